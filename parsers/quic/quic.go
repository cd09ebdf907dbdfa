// Package quic takes the TLS handshake out of QUIC: versions 1 and 2 and the
// drafts from 22 on (RFC 9000, RFC 9001, RFC 9369). Datagrams in, handshake
// messages out. Initial packets are encrypted with keys that follow from the
// packets themselves, so their messages, the hellos, are there for everybody;
// the Handshake packets, with the server's certificate, need the secrets of the
// connection (see [Session.SetSecrets]).
//
// [Looks] and [Starts] report at little cost which flows to follow; a [Session] of a
// [Decoder] follows one.
package quic

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/tls13"
)

type packetType uint8

const (
	initial packetType = iota
	zeroRTT
	handshake
	retry
	negotiation // Version Negotiation
)

const tagLength = 16 // of the AEADs, and of a Retry

// packet is one packet with a long header (RFC 9000, section 17.2). The slices
// point into the datagram.
type packet struct {
	typ     packetType
	version uint32
	dcid    []byte
	scid    []byte
	token   []byte // of an Initial
	number  int    // offset in bytes of the protected packet number
	cut     bool   // the datagram ends before the packet does
	bytes   []byte // the packet
}

// next cuts the first packet, which has a long header, off a datagram. It is
// false when there is none, when its version is not known, or when its lengths
// lie.
func next(b []byte) (p packet, rest []byte, ok bool) {
	const fixed = 7 // first byte, version, two lengths
	if len(b) < fixed || b[0]&0x80 == 0 {
		return p, nil, false
	}
	p.version = binary.BigEndian.Uint32(b[1:])
	schemes := schemesOf(p.version)
	if schemes == nil && p.version != 0 {
		return p, nil, false
	}
	at := 5
	for _, id := range []*[]byte{&p.dcid, &p.scid} {
		if at >= len(b) {
			return p, nil, false
		}
		n := int(b[at])
		at++
		if n > maxConnectionID || at+n > len(b) {
			return p, nil, false
		}
		*id = b[at : at+n]
		at += n
	}
	p.bytes = b
	if p.version == 0 {
		p.typ = negotiation
		return p, nil, offersKnown(b[at:])
	}
	p.typ = schemes[0].types[b[0]>>4&3]
	if p.typ == retry {
		return p, nil, len(b) >= at+tagLength
	}
	if p.typ == initial {
		n, size := varint(b[at:])
		at += size
		if size == 0 || n > uint64(len(b)-at) {
			return p, nil, false
		}
		p.token = b[at : at+int(n)]
		at += int(n)
	}
	n, size := varint(b[at:])
	at += size
	if size == 0 || n < 4+tls13.SampleLength || n > 1<<16 {
		return p, nil, false
	}
	p.number = at
	end := at + int(n)
	if end > len(b) {
		p.cut = true
		return p, nil, true
	}
	p.bytes = b[:end:end]
	return p, b[end:], true
}

// offersKnown reports whether list, of a Version Negotiation packet, is whole and
// has a version that is known.
func offersKnown(list []byte) bool {
	known := false
	for ; len(list) >= 4; list = list[4:] {
		v := binary.BigEndian.Uint32(list)
		known = known || schemesOf(v) != nil && !isReserved(v)
	}
	return known && len(list) == 0
}

// Looks reports whether a UDP payload begins with a packet that has a long
// header, of a version that is known: what a [Session] can use. Such a packet
// belongs to a handshake.
func Looks(b []byte) bool {
	p, _, ok := next(b)
	return ok && (!isReserved(p.version) || p.typ == initial && len(b) >= minInitialDatagram)
}

// Starts reports whether a UDP payload may begin with a client's first Initial
// packet: it is as long as that must be, and names a server by an ID as long as
// a client must choose it.
func Starts(b []byte) bool {
	if len(b) < minInitialDatagram {
		return false
	}
	p, _, ok := next(b)
	return ok && p.typ == initial && len(p.dcid) >= minFirstID
}

// varint reads the variable-length integer (RFC 9000, section 16) that b begins
// with, and says how many bytes it takes: 0 when it is not there whole.
func varint(b []byte) (v uint64, size int) {
	if len(b) == 0 {
		return 0, 0
	}
	size = 1 << (b[0] >> 6)
	if len(b) < size {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:size] {
		v = v<<8 | uint64(c)
	}
	return v, size
}
