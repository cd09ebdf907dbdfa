package cert

import (
	"math/big"
	"math/bits"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// element is one encoded value (X.690, section 8.1). Unlike cryptobyte, which
// reads nothing but DER, this takes any form of length that BER has, and the
// front part of an element whose end is missing.
type element struct {
	tag     asn1.Tag // of a tag number above 30, its first octet
	raw     []byte   // identifier, length and contents
	content []byte
	cut     bool // the contents go on beyond the bytes there are
	ber     bool // the length is not as DER has it
}

// read takes the element at the start of b. It is false when b does not hold a
// whole identifier and length. depth is how many indefinite lengths may follow
// within one another.
func read(b []byte, depth int) (e element, rest []byte, ok bool) {
	if len(b) < 2 {
		return e, nil, false
	}
	e.tag = asn1.Tag(b[0])
	i := 1
	if b[0]&0x1f == 0x1f {
		for i < len(b) && b[i] >= 0x80 {
			i++
		}
		i++
		if i >= len(b) {
			return e, nil, false
		}
	}
	n, trailer := uint64(b[i]), 0
	i++
	switch {
	case n == 0x80:
		e.ber = true
		if end := contentsEnd(b[i:], depth); end >= 0 {
			n, trailer = uint64(end), 2
		} else {
			n, e.cut = uint64(len(b)-i), true
		}
	case n > 0x80:
		octets := int(n & 0x7f)
		if octets > len(b)-i {
			return e, nil, false
		}
		n = 0
		for _, x := range b[i : i+octets] {
			n = min(n, 1<<32)<<8 | uint64(x)
		}
		e.ber = b[i] == 0 || n < 0x80
		i += octets
	}
	if n > uint64(len(b)-i) {
		n, e.cut = uint64(len(b)-i), true
	}
	end := i + int(n)
	e.content = b[i:end:end]
	end += trailer
	e.raw = b[:end:end]
	return e, b[end:], true
}

// contentsEnd is the length of the contents at the start of b, which
// end-of-contents octets end (X.690, section 8.1.5); -1 when none do.
func contentsEnd(b []byte, depth int) int {
	if depth == 0 {
		return -1
	}
	for rest := b; len(rest) >= 2; {
		if rest[0] == 0 && rest[1] == 0 {
			return len(b) - len(rest)
		}
		e, after, ok := read(rest, depth-1)
		if !ok || e.cut {
			break
		}
		rest = after
	}
	return -1
}

// appendOID appends the object identifier in dots. It returns false, and dst as it
// was, if the octets are not an object identifier (X.690, section 8.19).
func appendOID(dst, content []byte) ([]byte, bool) {
	if len(content) == 0 || len(content) > maxOID || content[len(content)-1] >= 0x80 {
		return dst, false
	}
	for i, start := 0, 0; i < len(content); i++ {
		if content[i] >= 0x80 {
			continue
		}
		arc := content[start : i+1]
		first := start == 0
		start = i + 1
		if len(arc) > 9 { // more than 63 bits, as UUIDs under 2.25 are
			n := new(big.Int).SetBytes(eights(arc))
			if first {
				dst = append(dst, '2')
				n.Sub(n, big.NewInt(80))
			}
			dst = n.Append(append(dst, '.'), 10)
			continue
		}
		var n uint64
		for _, x := range arc {
			n = n<<7 | uint64(x&0x7f)
		}
		if first {
			top := min(n/40, 2)
			dst = append(dst, '0'+byte(top))
			n -= top * 40
		}
		dst = strconv.AppendUint(append(dst, '.'), n, 10)
	}
	return dst, true
}

// eights packs the seven bits of each octet of an arc into octets of eight. They
// are shifted to the end, where the number is.
func eights(arc []byte) []byte {
	octets := make([]byte, len(arc))
	at, have, held := len(octets), 0, uint(0)
	for i := len(arc) - 1; i >= 0; i-- {
		held |= uint(arc[i]&0x7f) << have
		if have += 7; have >= 8 {
			at--
			octets[at] = byte(held)
			held, have = held>>8, have-8
		}
	}
	octets[at-1] = byte(held)
	return octets
}

// padded reports whether an INTEGER has octets at its front that it does not need
// (X.690, section 8.3.2).
func padded(content []byte) bool {
	return len(content) > 1 && (content[0] == 0 && content[1] < 0x80 || content[0] == 0xff && content[1] >= 0x80)
}

// magnitude is the absolute value of the INTEGER, big-endian, without the octet
// that only carries the sign.
func magnitude(content []byte) (octets []byte, negative bool) {
	if len(content) == 0 {
		return nil, false
	}
	if content[0] < 0x80 {
		if len(content) > 1 && content[0] == 0 && content[1] >= 0x80 {
			content = content[1:]
		}
		return content, false
	}
	octets = make([]byte, len(content))
	carry := byte(1)
	for i := len(content) - 1; i >= 0; i-- {
		octets[i] = ^content[i] + carry
		if octets[i] != 0 {
			carry = 0
		}
	}
	if len(octets) > 1 && octets[0] == 0 {
		octets = octets[1:]
	}
	return octets, true
}

// bitLength is the length in bits of a big-endian number.
func bitLength(octets []byte) int {
	for i, x := range octets {
		if x != 0 {
			return (len(octets)-i-1)*8 + bits.Len8(x)
		}
	}
	return 0
}

// parseTime reads a UTCTime or GeneralizedTime (X.680, clauses 46 and 47). More
// forms are taken than RFC 5280, section 4.1.2.5, allows: without seconds, with
// an offset, with a fraction (which is dropped), without a zone (taken as UTC).
func parseTime(tag asn1.Tag, content []byte) (time.Time, bool) {
	bad := false
	two := func() int {
		if len(content) < 2 || content[0]-'0' > 9 || content[1]-'0' > 9 {
			bad = true
			return 0
		}
		n := int(content[0]-'0')*10 + int(content[1]-'0')
		content = content[2:]
		return n
	}
	digit := func() bool { return len(content) > 0 && content[0]-'0' <= 9 }

	year := two()
	switch tag {
	case asn1.UTCTime:
		if year < 50 { // RFC 5280, section 4.1.2.5.1
			year += 100
		}
		year += 1900
	case asn1.GeneralizedTime:
		year = year*100 + two()
	default:
		return time.Time{}, false
	}
	month, day, hour := two(), two(), two()
	var minute, second, offset int
	if digit() {
		minute = two()
	}
	if digit() {
		second = two()
	}
	if len(content) > 1 && (content[0] == '.' || content[0] == ',') {
		content = content[1:]
		for digit() {
			content = content[1:]
		}
	}
	if len(content) > 0 {
		sign := content[0]
		content = content[1:]
		switch sign {
		case 'Z':
		case '+', '-':
			h, m := two(), 0
			if digit() {
				m = two()
			}
			bad = bad || h > 23 || m > 59
			offset = h*60 + m
			if sign == '-' {
				offset = -offset
			}
		default:
			bad = true
		}
	}
	if bad || len(content) > 0 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day {
		return time.Time{}, false
	}
	t = t.Add(-time.Duration(offset) * time.Minute)
	if t.Year() < 0 || t.Year() > 9999 { // RFC 3339 has no such year
		return time.Time{}, false
	}
	return t, true
}
