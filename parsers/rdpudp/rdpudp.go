// Package rdpudp reads the transport of Remote Desktop over UDP: versions 1 and
// 2 (MS-RDPEUDP), and version 3, which is another protocol behind the same
// first packets (MS-RDPEUDP2). It carries a TLS stream in pieces, or datagrams
// of DTLS. Bytes in, structs out: it keeps no state, and what it returns points
// into what it was given, unless it says otherwise.
package rdpudp

import "encoding/binary"

// The flags of a header (MS-RDPEUDP, section 2.2.2.1).
const (
	flagSYN         = 0x0001
	flagACK         = 0x0004
	flagDATA        = 0x0008
	flagFEC         = 0x0010
	flagAckOfAcks   = 0x0100
	flagLossy       = 0x0200
	flagCorrelation = 0x0800
	flagSYNEX       = 0x1000
)

const (
	header      = 8
	sources     = 8 // of a packet with data: its numbers
	initial     = 8 // of a SYN: the first number, and how long datagrams may be
	correlation = 32

	// How long a datagram with a SYN is, and what lengths it may name.
	shortestSYN, longestSYN = 1132, 1500
	least, most             = 1132, 1232
)

// Version is a version of the protocol (MS-RDPEUDP, section 2.2.2.9).
type Version uint16

// The versions. A SYN without one means the first.
const (
	Version1 Version = 0x0001
	Version2 Version = 0x0002
	Version3 Version = 0x0101
)

// SYN is one of the two packets that begin a connection.
type SYN struct {
	Answer  bool   // from the server
	Initial uint32 // number of the sender's first piece, less one
	Peer    uint32 // in an answer, the number that the client's SYN has
	Lossy   bool   // datagrams of DTLS will follow, not a stream
	Version Version
}

// ParseSYN reads a SYN, or the answer to one. Both fill a datagram with zeros.
func ParseSYN(b []byte) (s SYN, ok bool) {
	if !mayBeSYN(b) {
		return s, false
	}
	flags := binary.BigEndian.Uint16(b[6:])
	s = SYN{
		Answer: flags&flagACK != 0, Initial: binary.BigEndian.Uint32(b[header:]), Peer: binary.BigEndian.Uint32(b),
		Lossy: flags&flagLossy != 0, Version: Version1,
	}
	if !s.Answer && s.Peer != 1<<32-1 {
		return s, false
	}
	rest := b[header+initial:]
	if flags&flagCorrelation != 0 {
		rest = rest[correlation:]
	}
	if flags&flagSYNEX != 0 {
		const hash = 32 // of the cookie, in a client's SYN
		if rest[1]&1 != 0 {
			s.Version = Version(binary.BigEndian.Uint16(rest[2:]))
		}
		rest = rest[4:]
		if s.Version == Version3 {
			rest = rest[hash:]
		}
	}
	for _, c := range rest {
		if c != 0 {
			return s, false
		}
	}
	return s, true
}

// mayBeSYN looks at what stands at fixed offsets.
func mayBeSYN(b []byte) bool {
	if len(b) < shortestSYN || len(b) > longestSYN {
		return false
	}
	const known = flagSYN | flagACK | flagLossy | flagCorrelation | flagSYNEX
	if flags := binary.BigEndian.Uint16(b[6:]); flags&^known != 0 || flags&flagSYN == 0 {
		return false
	}
	up, down := binary.BigEndian.Uint16(b[12:]), binary.BigEndian.Uint16(b[14:])
	return up >= least && up <= most && down >= least && down <= most
}

// maxAhead is how far from the one that is expected the number of a piece may
// be, to be believed.
const maxAhead = 1 << 12

// Parse reads a packet of versions 1 and 2 that carries a piece, and returns it
// with its number, which is not far from near. The repair packets of forward
// error correction carry none.
func Parse(b []byte, near uint32) (number uint32, piece []byte, ok bool) {
	if len(b) < header+sources {
		return 0, nil, false
	}
	flags := binary.BigEndian.Uint16(b[6:])
	if flags&flagDATA == 0 || flags&(flagSYN|flagFEC) != 0 {
		return 0, nil, false
	}
	b = b[header:]
	padding := 0
	if flags&flagACK != 0 {
		n := 2 + int(binary.BigEndian.Uint16(b))
		if n > len(b) {
			return 0, nil, false
		}
		b, padding = b[n:], -n&3
	}
	// The vector of acknowledgements ends on a boundary of four bytes (section
	// 2.2.2.7). Not every sender takes notice.
	for _, skip := range [...]int{padding, 0} {
		r := b[min(skip, len(b)):]
		if flags&flagAckOfAcks != 0 {
			r = r[min(4, len(r)):]
		}
		if len(r) < sources {
			return 0, nil, false
		}
		number = binary.BigEndian.Uint32(r[4:])
		if uint32(number-near+maxAhead) <= 2*maxAhead {
			return number, r[sources:], true
		}
	}
	return 0, nil, false
}

// The flags of version 3 (MS-RDPEUDP2, section 2.2.1.1).
const (
	flag3ACK       = 0x001
	flag3DATA      = 0x004
	flag3Vector    = 0x008
	flag3AckOfAcks = 0x010
	flag3Overhead  = 0x040
	flag3Delay     = 0x100
	flags3         = flag3ACK | flag3DATA | flag3Vector | flag3AckOfAcks | flag3Overhead | flag3Delay
)

// Parse3 reads a packet of version 3 that carries a piece, and returns it with
// its number. The header is copied to scratch and put in order there, so that
// the piece may be of scratch.
func Parse3(b []byte, scratch []byte) (number uint16, piece, grown []byte, ok bool) {
	const prefix, swapped, dummy = 1, 7, 8
	if len(b) <= swapped {
		return 0, nil, scratch, false
	}
	grown = append(scratch[:0], b...)
	r := grown
	r[0], r[swapped] = r[swapped], r[0]
	if r[0]>>1&0xf == dummy {
		return 0, nil, grown, false
	}
	flags := binary.LittleEndian.Uint16(r[prefix:]) & 0xfff
	if flags&flag3DATA == 0 || flags&^flags3 != 0 {
		return 0, nil, grown, false
	}
	r = r[prefix+2:]
	// skip cuts n bytes off, and is false when they are not there.
	skip := func(n int) bool {
		if n > len(r) {
			return false
		}
		r = r[n:]
		return true
	}
	if flags&flag3ACK != 0 { // number, time, gap, and the delays of others
		if len(r) < 7 || !skip(7+int(r[6]&0xf)) {
			return 0, nil, grown, false
		}
	}
	fixed := 2 // the packet's number
	if flags&flag3Overhead != 0 {
		fixed++
	}
	if flags&flag3Delay != 0 {
		fixed += 3
	}
	if flags&flag3AckOfAcks != 0 {
		fixed += 2
	}
	if !skip(fixed) {
		return 0, nil, grown, false
	}
	if flags&flag3Vector != 0 {
		if len(r) < 3 {
			return 0, nil, grown, false
		}
		n := 3 + int(r[2]&0x7f)
		if r[2]&0x80 != 0 {
			n += 4
		}
		if !skip(n) {
			return 0, nil, grown, false
		}
	}
	if len(r) < 2 {
		return 0, nil, grown, false
	}
	return binary.LittleEndian.Uint16(r), r[2:], grown, true
}
