package decode

import (
	"encoding/binary"
	"math/bits"

	"github.com/oddcert/oddcert/parsers/event"
)

// ChecksumState is the result of verifying the checksum of a TCP segment or UDP
// datagram.
type ChecksumState uint8

const (
	ChecksumUnknown ChecksumState = iota // nobody can know: bytes are missing, or a header says less than there was
	ChecksumGood
	ChecksumBad
	// ChecksumPartial: the field holds the sum of the pseudo-header alone, as on the
	// sending host, whose network card computes the rest.
	ChecksumPartial
	// ChecksumZero: the field is zero. A datagram then has no checksum (RFC 768; RFC
	// 6935 allows that to tunnels over IPv6). A segment is then of a host that leaves
	// all of the checksum to its network card.
	ChecksumZero
)

// String is the name of s, for tests and messages.
func (s ChecksumState) String() string {
	return [...]string{"unknown", "good", "bad", "partial", "zero"}[s]
}

// segmentMTU is the longest packet whose checksum is believed where it is bad. In
// longer ones a network card or driver may have joined several segments (LRO, GRO),
// with the checksum of one of them.
const segmentMTU = 1500

// Checksum verifies the checksum of p, a segment or datagram (RFC 9293, section 3.1;
// RFC 768; RFC 8200, section 8.1), and is bad where that of the IPv4 header is. It reads
// all of the bytes: the decoder has computed nothing. It must be called while the frame
// is lent.
func (p *Packet) Checksum() ChecksumState {
	if p.badHeader {
		return ChecksumBad
	}
	b := p.segment
	at, proto := 16, uint64(protoTCP)
	if p.Transport == event.UDP {
		at, proto = 6, protoUDP
	}
	if len(b) < at+2 {
		return ChecksumUnknown
	}
	field := binary.BigEndian.Uint16(b[at:])
	if field == 0 && p.Transport == event.UDP {
		return ChecksumZero
	}
	addresses := add(add(p.src0, p.src1), add(p.dst0, p.dst1))
	pseudo := add(addresses, proto+uint64(len(b)+p.Missing))
	if p.Missing == 0 && fold(add(pseudo, uint64(onesSum(b)))) == 0xffff {
		return ChecksumGood
	}
	partial := field == fold(pseudo) || field == bits.ReverseBytes16(fold(pseudo)) ||
		field == fold(add(addresses, proto)) // where a card is to cut the segment into several
	joined := p.Transport == event.TCP && !p.reassembled && len(b) > segmentMTU-40
	switch {
	case joined:
		return ChecksumUnknown
	case partial:
		return ChecksumPartial
	case field == 0:
		return ChecksumZero
	case p.Missing > 0, p.unsummed:
		return ChecksumUnknown
	}
	return ChecksumBad
}

// onesSum returns the ones' complement sum of the 16-bit words of b (RFC 1071), with
// a byte of zero after an odd last one.
func onesSum(b []byte) uint16 {
	// The sum is the same in any byte order, except for the order of its own bytes,
	// and words of 64 bits add up to the same once they are folded.
	var s, carry uint64
	for ; len(b) >= 64; b = b[64:] {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[32:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[40:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[48:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[56:]), carry)
	}
	for ; len(b) >= 8; b = b[8:] {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b), carry)
	}
	last := uint64(0)
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	s, carry = bits.Add64(s, last, carry)
	return bits.ReverseBytes16(fold(add(s, carry)))
}

// add adds with the carry brought round.
func add(a, b uint64) uint64 {
	s, carry := bits.Add64(a, b, 0)
	return s + carry
}

// fold adds the four words of 16 bits in s, with the carry brought round.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}
