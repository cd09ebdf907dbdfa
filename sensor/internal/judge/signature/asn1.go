package signature

import (
	"math/big"
	"math/bits"
	"strconv"
)

// Identifiers of universal types (X.690, section 8.1.2).
const (
	tagInteger   = 0x02
	tagBitString = 0x03
	tagNull      = 0x05
	tagOID       = 0x06
	tagSequence  = 0x30
)

// read takes an element off b that has this identifier and a definite length, which
// may have more octets than it needs (X.690, section 8.1.3), and returns its
// contents. It is false where there is none, and then so is what is read from its
// contents, which are nil.
func read(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, b := uint64(b[1]), b[2:]
	if n >= 0x80 {
		octets := int(n & 0x7f)
		if octets == 0 || octets > len(b) {
			return nil, nil, false
		}
		n = 0
		for _, x := range b[:octets] {
			n = min(n, 1<<32)<<8 | uint64(x)
		}
		b = b[octets:]
	}
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// number is the value of an INTEGER, nil unless it is positive.
func number(content []byte) *big.Int {
	if bitLength(content) == 0 || content[0] >= 0x80 {
		return nil
	}
	return new(big.Int).SetBytes(content)
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

// dots is an object identifier in dots, for people: as much of it as is readable.
func dots(content []byte) string {
	if len(content) > 32 {
		content = content[:32]
	}
	var out []byte
	var n uint64
	for _, x := range content {
		n = n<<7 | uint64(x&0x7f)
		if x >= 0x80 {
			continue
		}
		if out == nil {
			top := min(n/40, 2)
			out = strconv.AppendUint(out, top, 10)
			n -= top * 40
		}
		out = strconv.AppendUint(append(out, '.'), n, 10)
		n = 0
	}
	return string(out)
}
