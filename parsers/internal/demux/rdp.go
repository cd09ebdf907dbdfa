package demux

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/rdpudp"
)

// RDPTransport is the transport of one connection of Remote Desktop over UDP (MS-RDPEUDP,
// MS-RDPEUDP2).
type RDPTransport struct {
	Lossy bool // its datagrams hold DTLS, and not pieces of a stream

	version rdpudp.Version // the server's, 0 while it has not said
	offered rdpudp.Version // the client's, likewise
	senders [2]rdpSender
}

// rdpSender is what one side sends.
type rdpSender struct {
	known    bool   // initial is
	initial  uint32 // number in the SYN
	numbered bool   // first is
	first    uint16 // number of the first piece that was seen, of version 3
}

// pieceOrigin is the number that the initial or first piece is given, so that
// those before it, which come late, have a number too.
const pieceOrigin = 1 << 16

// Begins reports whether a SYN of direction d begins another connection.
func (r *RDPTransport) Begins(d event.Direction, s *rdpudp.SYN) bool {
	return r.senders[d].known && r.senders[d].initial != s.Initial
}

// SYN takes a packet that begins the connection.
func (r *RDPTransport) SYN(d event.Direction, s *rdpudp.SYN) {
	r.Lossy = r.Lossy || s.Lossy
	r.senders[d].known, r.senders[d].initial = true, s.Initial
	if s.Answer {
		r.version = s.Version
		r.senders[d.Other()].known, r.senders[d.Other()].initial = true, s.Peer
	} else {
		r.offered = s.Version
	}
}

// Piece is the piece of the stream, or the datagram of DTLS, in a datagram, with a
// number that shows which pieces follow one another. Scratch is used for a
// datagram whose bytes must be put in order, and returned.
func (r *RDPTransport) Piece(d event.Direction, b, scratch []byte) (number uint32, piece, used []byte, ok bool) {
	h := &r.senders[d]
	if r.version != rdpudp.Version3 && h.known {
		if number, piece, ok = rdpudp.Parse(b, h.initial); ok {
			return number - h.initial + pieceOrigin, piece, scratch, true
		}
	}
	if r.version != rdpudp.Version3 && (r.version != 0 || r.offered != rdpudp.Version3) {
		return 0, nil, scratch, false
	}
	var short uint16
	if short, piece, scratch, ok = rdpudp.Parse3(b, scratch); !ok {
		return 0, nil, scratch, false
	}
	if !h.numbered {
		h.numbered, h.first = true, short
	}
	return uint32(pieceOrigin + int(int16(short-h.first))), piece, scratch, true
}
