package decode

import (
	"encoding/binary"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
)

// Piece is a part that a frame holds of a datagram which comes in fragments.
type Piece struct {
	Of    uint64 // the datagram: a number from 1 on that this decoder gives to no other
	In    uint64 // the datagram that the piece came in, which was put together itself; 0 where the frame holds it
	Whole bool   // the piece made the datagram whole
}

// Pieces returns the pieces that the frame which was decoded last holds, as far as
// [Decoder.Decode] and [Decoder.Next] have read it, in the order in which they were
// met. A fragment that is refused or was given up at once is none. The slice is lent
// until the next Decode.
func (d *Decoder) Pieces() []Piece { return d.pieces }

// Assembled returns the datagram that p came in, as [Piece.Of] has it: the innermost
// one, where fragments came in fragments. It is 0 where the frame holds all of p.
func (p *Packet) Assembled() uint64 { return p.assembled }

// fragment is fragments.add, and notes the piece.
func (d *Decoder) fragment(p *Packet, g piece) (whole bool) {
	whole = d.fragments.add(p, g)
	if a := d.fragments.at; a != nil {
		d.pieces = append(d.pieces, Piece{Of: a.id, In: p.assembled, Whole: whole})
		if whole {
			p.assembled = a.id
		}
	}
	return whole
}

// OfAssociation reports whether the frame that was decoded last into p, of class
// OtherIP, Fragment or Malformed, holds chunks of SCTP and no user message that is
// whole. It then makes of p an idle packet of the association, with its Key, Swapped,
// Shard and Hash.
func (d *Decoder) OfAssociation(p *Packet) bool {
	if d.content != ofIP|protoSCTP && d.content&^numberOf != ofSCTP {
		return false
	}
	p.Transport, p.Kind = event.SCTP, Unknown
	p.Payload, p.Missing, p.idle = nil, 0, true
	p.Address()
	return true
}

// NewKey returns the key of the flow between two ends, in any order. It is not ok
// where there is none: the ends are of different kinds, or have no address.
func NewKey(transport event.Transport, a, b event.Endpoint) (k Key, ok bool) {
	p := Packet{Transport: transport, SrcPort: a.Port, DstPort: b.Port}
	if transport == event.EAPOL {
		p.SrcPort, p.DstPort = 0, 0
		p.src0, p.src1, p.dst0, p.dst1 = macWord, macNumber(&a.MAC), macWord, macNumber(&b.MAC)
	} else {
		if !a.Addr.IsValid() || !b.Addr.IsValid() || a.Addr.Is4() != b.Addr.Is4() {
			return Key{}, false
		}
		p.v6 = !a.Addr.Is4()
		p.src0, p.src1 = words(a.Addr)
		p.dst0, p.dst1 = words(b.Addr)
	}
	switch transport {
	case event.TCP, event.UDP, event.SCTP, event.EAPOL:
	default:
		return Key{}, false
	}
	p.setKey()
	return p.Key, true
}

// words returns an address as it stands in a Key.
func words(a netip.Addr) (w0, w1 uint64) {
	if a.Is4() {
		raw := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(raw[:]))
	}
	raw := a.As16()
	return binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
}
