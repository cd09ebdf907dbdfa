package tls

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/dreadl0ck/tlsx"
)

// ClientLists are the lists of a ClientHello that fingerprints are made of, in
// the order sent, with the GREASE values. They own their memory.
type ClientLists struct {
	Version             uint16
	CipherSuites        []uint16
	Extensions          []uint16
	SupportedGroups     []uint16
	PointFormats        []uint8
	SignatureAlgorithms []uint16
	SupportedVersions   []uint16
	ALPN                []string
}

// Lists decodes the lists of h. tlsx does it where h is well-formed enough
// that tlsx reads it right; what tlsx does not know, and hellos with oddities
// on which it fails, are read here.
func (h *ClientHello) Lists() ClientLists {
	l := ClientLists{Version: h.Version, SupportedVersions: uint16s(h.SupportedVersions)}
	if x, ok := h.tlsx(); ok {
		for _, c := range x.CipherSuites {
			l.CipherSuites = append(l.CipherSuites, uint16(c))
		}
		l.Extensions = x.AllExtensions
		l.SupportedGroups = x.SupportedGroups
		l.PointFormats = x.SupportedPoints
		l.SignatureAlgorithms = x.SignatureAlgs
		l.ALPN = x.ALPNs
		return l
	}
	l.CipherSuites = uint16s(h.CipherSuites)
	for rest := h.Extensions; len(rest) > 0; {
		typ, _, next, ok := NextExtension(rest)
		if !ok {
			break
		}
		l.Extensions = append(l.Extensions, typ)
		rest = next
	}
	l.SupportedGroups = uint16s(h.SupportedGroups)
	l.PointFormats = slices.Clone(h.PointFormats)
	l.SignatureAlgorithms = uint16s(h.SignatureAlgorithms)
	for rest := h.ALPN; len(rest) > 0 && len(rest) > int(rest[0]); rest = rest[1+int(rest[0]):] {
		l.ALPN = append(l.ALPN, string(rest[1:1+int(rest[0])]))
	}
	return l
}

// tlsx decodes h with tlsx when that is safe and right.
func (h *ClientHello) tlsx() (x tlsx.ClientHello, ok bool) {
	if h.datagram || !h.Whole || !h.tlsxReads() {
		return x, false
	}
	err := x.Unmarshal(record(TypeClientHello, h.body))
	return x, err == nil
}

// tlsxReads tells whether tlsx would decode h, which is whole, without
// slicing past its input and without mistaking anything: it believes the
// lengths inside extensions, overflows on extensions of nearly 65,535 bytes,
// takes all that follows the first server name for a part of it, and adds up
// the lists of repeated extensions.
func (h *ClientHello) tlsxReads() bool {
	const longest = 1<<16 - 1 - 4
	if len(h.CipherSuites)%2 != 0 || len(h.body) > longest {
		return false
	}
	var seen uint32 // bit i is extension i
	for rest := h.Extensions; len(rest) > 0; {
		typ, data, next, ok := NextExtension(rest)
		if !ok {
			return false
		}
		rest = next
		switch typ {
		case extServerName:
			ok = h.ServerName != nil && len(data) == 5+len(h.ServerName) && data[2] == 0
		case extSupportedGroups:
			ok = len(h.SupportedGroups)%2 == 0 && len(data) == 2+len(h.SupportedGroups)
		case extSignatureAlgorithms:
			ok = len(h.SignatureAlgorithms)%2 == 0 && len(data) == 2+len(h.SignatureAlgorithms)
		case extPointFormats:
			ok = len(data) == 1+len(h.PointFormats)
		case extALPN:
			ok = len(data) == 2+len(h.ALPN)
			for names := h.ALPN; ok && len(names) > 0; {
				if ok = len(names) > int(names[0]); ok {
					names = names[1+int(names[0]):]
				}
			}
		}
		if !ok || typ < 32 && seen>>typ&1 == 1 {
			return false
		}
		if typ < 32 {
			seen |= 1 << typ
		}
	}
	return true
}

// record is a handshake message in one record, as tlsx wants it.
func record(typ uint8, body []byte) []byte {
	b := make([]byte, 0, RecordHeader+MessageHeader+len(body))
	n := len(body)
	b = append(b, Handshake, 3, 1, byte((n+MessageHeader)>>8), byte(n+MessageHeader),
		typ, byte(n>>16), byte(n>>8), byte(n))
	return append(b, body...)
}

// JA3 is the fingerprint of a ClientHello and the string that it hashes
// (https://github.com/salesforce/ja3).
func (l *ClientLists) JA3() (hash, raw string) {
	b := strconv.AppendUint(nil, uint64(l.Version), 10)
	b = appendDecimals(append(b, ','), l.CipherSuites)
	b = appendDecimals(append(b, ','), l.Extensions)
	b = appendDecimals(append(b, ','), l.SupportedGroups)
	b = append(b, ',')
	for i, p := range l.PointFormats {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(p), 10)
	}
	return md5hex(b), string(b)
}

// JA3S is the fingerprint of a ServerHello and the string that it hashes. tlsx
// decodes the message where it is whole.
func (h *ServerHello) JA3S() (hash, raw string) {
	version, suite, extensions := h.LegacyVersion, h.CipherSuite, []uint16(nil)
	var x tlsx.ServerHelloBasic
	if h.Whole && h.LegacyVersion>>8 != draftsTLS13 && x.Unmarshal(record(TypeServerHello, h.body)) == nil {
		version, suite, extensions = x.Vers, x.CipherSuite, x.Extensions
	} else {
		for rest := h.Extensions; len(rest) > 0; {
			typ, _, next, ok := NextExtension(rest)
			if !ok {
				break
			}
			extensions = append(extensions, typ)
			rest = next
		}
	}
	b := strconv.AppendUint(nil, uint64(version), 10)
	b = strconv.AppendUint(append(b, ','), uint64(suite), 10)
	b = appendDecimals(append(b, ','), extensions)
	return md5hex(b), string(b)
}

// The carriers that JA4 tells apart, by its first letter.
const (
	OverTCP  = 't'
	OverQUIC = 'q'
	OverDTLS = 'd'
)

// JA4 is the fingerprint of a ClientHello of FoxIO
// (https://github.com/FoxIO-LLC/ja4, technical_details/JA4.md); carrier is
// OverTCP, OverQUIC or OverDTLS.
func (l *ClientLists) JA4(carrier byte) string {
	suites := withoutGREASE(l.CipherSuites)
	extensions := withoutGREASE(l.Extensions)
	sni := byte('i')
	if slices.Contains(extensions, extServerName) {
		sni = 'd'
	}
	b := append(make([]byte, 0, 36), carrier)
	b = append(b, l.ja4Version()...)
	b = append(b, sni)
	b = appendCount(b, len(suites))
	b = appendCount(b, len(extensions))
	b = append(b, ja4ALPN(l.ALPN)...)

	sortCodes(suites)
	b = appendHash(append(b, '_'), appendHex(nil, suites))

	extensions = slices.DeleteFunc(extensions, func(e uint16) bool { return e == extServerName || e == extALPN })
	sortCodes(extensions)
	c := appendHex(nil, extensions)
	if algorithms := withoutGREASE(l.SignatureAlgorithms); len(c) > 0 && len(algorithms) > 0 {
		c = appendHex(append(c, '_'), algorithms)
	}
	return string(appendHash(append(b, '_'), c))
}

// sortCodes sorts l. A hello has room for 32,767 suites in any order: from some
// number on they are counted, byte by byte, which costs each the same.
func sortCodes(l []uint16) {
	const many = 256
	if len(l) < many {
		slices.Sort(l)
		return
	}
	from, to := l, make([]uint16, len(l))
	for shift := 0; shift < 16; shift += 8 {
		var at [256]int // where the next with that byte goes
		for _, v := range from {
			at[byte(v>>shift)]++
		}
		sum := 0
		for b, n := range at {
			at[b], sum = sum, sum+n
		}
		for _, v := range from {
			b := byte(v >> shift)
			to[at[b]] = v
			at[b]++
		}
		from, to = to, from
	}
}

// ja4Version is the highest version that the client offers. Those of DTLS count
// down.
func (l *ClientLists) ja4Version() string {
	version := l.Version
	if offered := withoutGREASE(l.SupportedVersions); len(offered) > 0 {
		version = slices.MaxFunc(offered, func(a, b uint16) int {
			if a>>8 == 0xfe && b>>8 == 0xfe {
				return int(b) - int(a)
			}
			return int(a) - int(b)
		})
	}
	switch version {
	case VersionTLS13:
		return "13"
	case VersionTLS12:
		return "12"
	case 0x0302:
		return "11"
	case VersionTLS10:
		return "10"
	case VersionSSL30:
		return "s3"
	case VersionSSL2:
		return "s2"
	case VersionDTLS10:
		return "d1"
	case VersionDTLS12:
		return "d2"
	case VersionDTLS13:
		return "d3"
	}
	return "00"
}

// ja4ALPN is the first and the last character of the first protocol, or of its
// bytes in hex where one of the two is not alphanumeric.
func ja4ALPN(protocols []string) string {
	if len(protocols) == 0 || protocols[0] == "" {
		return "00"
	}
	p := protocols[0]
	first, last := p[0], p[len(p)-1]
	if !alphanumeric(first) || !alphanumeric(last) {
		const digits = "0123456789abcdef"
		first, last = digits[first>>4], digits[last&15]
	}
	return string([]byte{first, last})
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// appendCount appends n in two digits.
func appendCount(b []byte, n int) []byte {
	n = min(n, 99)
	return append(b, byte('0'+n/10), byte('0'+n%10))
}

// appendHash appends the first 12 hex digits of the SHA-256 of what, or zeros
// for nothing.
func appendHash(b, what []byte) []byte {
	if len(what) == 0 {
		return append(b, "000000000000"...)
	}
	h := sha256.Sum256(what)
	return hex.AppendEncode(b, h[:6])
}

func appendHex(b []byte, list []uint16) []byte {
	b = slices.Grow(b, 5*len(list))
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
	}
	return b
}

// appendDecimals appends the values that are not GREASE, with dashes between.
func appendDecimals(b []byte, list []uint16) []byte {
	b = slices.Grow(b, 6*len(list))
	first := true
	for _, v := range list {
		if IsGREASE(v) {
			continue
		}
		if !first {
			b = append(b, '-')
		}
		first = false
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return b
}

func withoutGREASE(list []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(list), IsGREASE)
}

func uint16s(list []byte) []uint16 {
	if len(list) < 2 {
		return nil
	}
	l := make([]uint16, 0, len(list)/2)
	for ; len(list) >= 2; list = list[2:] {
		l = append(l, binary.BigEndian.Uint16(list))
	}
	return l
}

func md5hex(b []byte) string {
	h := md5.Sum(b)
	return hex.EncodeToString(h[:])
}
