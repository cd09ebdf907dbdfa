package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/parsers/tls"
)

// addText appends a text unless it is empty.
func addText(dst []value, s string) []value {
	if s == "" {
		return dst
	}
	return append(dst, value{s: s})
}

func addTexts(dst []value, texts []string) []value {
	for _, s := range texts {
		dst = append(dst, value{s: s})
	}
	return dst
}

// addPositive appends a number; 0 and less mean that it is not known.
func addPositive(dst []value, n int) []value {
	if n <= 0 {
		return dst
	}
	return append(dst, value{n: int64(n)})
}

func addFlag(dst []value, b bool) []value {
	if b {
		return append(dst, value{n: 1})
	}
	return append(dst, value{})
}

// appendKey appends what makes v equal to another value of f: two are equal
// when their keys are.
func (f *field) appendKey(dst []byte, v *value) []byte {
	switch f.kind {
	case text:
		return appendFold(dst, v.s)
	case serial:
		return appendSerial(dst, v.s)
	case digest:
		if v.raw == nil { // JA3 and JA3S come in hex
			for i := 0; i+1 < len(v.s); i += 2 {
				dst = append(dst, unhex(v.s[i])<<4|unhex(v.s[i+1]))
			}
			return dst
		}
		return append(dst, v.raw...)
	case mac:
		return append(dst, v.raw...)
	case address:
		a := v.ip.As16()
		return append(dst, a[:]...)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v.n))
}

// appendText appends v as records write it.
func (f *field) appendText(dst []byte, v *value) []byte {
	switch f.kind {
	case digest:
		if v.raw == nil {
			return append(dst, v.s...)
		}
		return appendHex(dst, v.raw)
	case mac:
		for i := range v.raw {
			if i > 0 {
				dst = append(dst, '-')
			}
			dst = appendHex(dst, v.raw[i:i+1])
		}
		return dst
	case number:
		return strconv.AppendInt(dst, v.n, 10)
	case boolean:
		return strconv.AppendBool(dst, v.n != 0)
	case instant:
		return time.Unix(v.n, 0).UTC().AppendFormat(dst, time.RFC3339)
	case suite, group:
		name := tls.CipherSuiteName
		if f.kind == group {
			name = tls.GroupName
		}
		if s := name(uint16(v.n)); s != "" {
			return append(dst, s...)
		}
		return fmt.Appendf(dst, "0x%04x", uint16(v.n))
	case address:
		return v.ip.AppendTo(dst)
	}
	return append(dst, v.s...)
}

// parse reads one value of f as a rule or a list writes it, and appends its key
// to dst. The error is what comes after the value in a [Problem].
func (f *field) parse(dst []byte, s string) (key []byte, err error) {
	v := value{s: s}
	switch f.kind {
	case text:
	case serial:
		key = appendSerial(dst, s)
		if s == "" || slices.ContainsFunc(key, func(c byte) bool { return !isHex(c) && c != '-' }) {
			return nil, errors.New("is not a serial number: write hex digits, with or without separators")
		}
		return key, nil
	case digest, mac:
		key, ok := appendUnhex(dst, s)
		switch {
		case f.size == 0 && (!ok || len(key) == 0):
			return nil, fmt.Errorf("is not a value of %s: write hex digits, with or without separators", f.name)
		case f.size > 0 && (!ok || len(key) != f.size):
			return nil, fmt.Errorf("is not a value of %s: write %d hex digits, with or without separators", f.name, 2*f.size)
		}
		return key, nil
	case number:
		if v.n, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("is not a whole number, which %s is", f.name)
		}
	case boolean:
		switch strings.ToLower(s) {
		case "true":
			v.n = 1
		case "false":
		default:
			return nil, fmt.Errorf("is not true or false, which %s is", f.name)
		}
	case instant:
		if v.n, err = parseTime(s); err != nil {
			return nil, err
		}
	case suite, group:
		n, ok := codePoint(f.kind, s)
		if !ok {
			return nil, fmt.Errorf("is not a known name of %s: write IANA's name, or the number as 0x1301", f.name)
		}
		v.n = int64(n)
	case address:
		a, err := netip.ParseAddr(s)
		if err != nil {
			if _, err := netip.ParsePrefix(s); err == nil {
				return nil, fmt.Errorf("is a network: write %s|cidr", f.name)
			}
			return nil, errors.New("is not an IP address")
		}
		v.ip = a.Unmap().WithZone("")
	}
	return f.appendKey(dst, &v), nil
}

// parseTime reads a time, in seconds since the Unix epoch.
func parseTime(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		if t, err = time.Parse(time.DateOnly, s); err != nil {
			return 0, errors.New("is not a time: write 2006-01-02T15:04:05Z or 2006-01-02")
		}
	}
	return t.Unix(), nil
}

// codePoint finds a suite or group by name or number.
func codePoint(k kind, s string) (uint16, bool) {
	if len(s) == 6 && strings.EqualFold(s[:2], "0x") {
		n, err := strconv.ParseUint(s[2:], 16, 16)
		return uint16(n), err == nil
	}
	points := suitePoints
	if k == group {
		points = groupPoints
	}
	n, ok := points()[strings.ToUpper(s)]
	return n, ok
}

var (
	suitePoints = sync.OnceValue(func() map[string]uint16 { return points(tls.CipherSuiteName) })
	groupPoints = sync.OnceValue(func() map[string]uint16 { return points(tls.GroupName) })
)

// points inverts name; its keys are upper case.
func points(name func(uint16) string) map[string]uint16 {
	m := make(map[string]uint16)
	for n := range 1 << 16 {
		if s := name(uint16(n)); s != "" {
			m[strings.ToUpper(s)] = uint16(n)
		}
	}
	return m
}
