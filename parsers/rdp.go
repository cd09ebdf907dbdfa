package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/rdpudp"
	"github.com/oddcert/oddcert/parsers/tls"
)

// overRDP is the transport of Remote Desktop over UDP, of one connection.
type overRDP struct {
	version rdpudp.Version // the server's, 0 while it has not said
	offered rdpudp.Version // the client's, likewise
	lossy   bool
	half    [2]rdpHalf
	count   int // datagrams
}

// rdpHalf is what one side sends.
type rdpHalf struct {
	known    bool   // initial is
	initial  uint32 // number in the SYN
	numbered bool   // first is
	first    uint16 // number of the first piece that was seen, of version 3
}

// pieceOrigin is the number that the initial or first one is given, so that
// those before it, which come late, have a number too.
const pieceOrigin = 1 << 16

// rdpSYN takes a packet that begins a connection of Remote Desktop over UDP.
func (c *Conn) rdpSYN(d event.Direction, s *rdpudp.SYN) Verdict {
	r := c.rdp
	switch {
	case r == nil:
	case r.half[d].known && r.half[d].initial != s.Initial: // another connection
		c.closeSessions(event.EndOfInput)
		if !c.decided {
			c.finish(event.EndOfInput)
		}
		c.stream.Reset()
		r = nil
	case c.decided:
		return Decided
	}
	if r == nil {
		r = new(overRDP)
		c.rdp, c.decided = r, false
	}
	c.within = carrier.RDPUDP
	r.lossy = r.lossy || s.Lossy
	r.half[d].known, r.half[d].initial = true, s.Initial
	if s.Answer {
		r.version = s.Version
		r.half[d.Other()].known, r.half[d.Other()].initial = true, s.Peer
	} else {
		r.offered = s.Version
	}
	return More
}

// rdpDatagram takes another datagram of a connection of Remote Desktop over UDP.
func (c *Conn) rdpDatagram(d event.Direction, at event.Moment, b []byte) Verdict {
	r := c.rdp
	if c.decided {
		return Decided
	}
	if r.count++; r.count > maxRDP {
		return c.spendPackets()
	}
	number, piece, ok := c.rdpPiece(r, d, b)
	if !ok || len(piece) == 0 {
		return More
	}
	if r.lossy && dtls.Looks(piece) {
		c.dtlsDatagram(d, at, piece)
		if c.decide() == Decided {
			return Decided
		}
		return More
	}
	s := c.find(func(*session) bool { return true })
	if s == nil {
		s = c.openSession(carrier.RDPUDP)
	}
	v := &s.vpn.half[d]
	if v.next == 0 {
		if len(v.held) < maxPiecesHeld && !(len(piece) > 1 && piece[0] == tls.Handshake && piece[1] == tls.VersionTLS10>>8) {
			s.holdPiece(d, at, number, piece)
			return More
		}
		v.next = number
		for len(v.held) > 0 && v.held[0].id < number { // of nothing that is known
			c.p.records.Pool.Put(v.held[0].b)
			v.held = v.held[:copy(v.held, v.held[1:])]
		}
	}
	s.piece(d, at, number, piece)
	if s.conn.decided {
		return c.spendPackets()
	}
	return More
}

// rdpPiece is the piece of the stream, or the datagram of DTLS, in a datagram,
// with a number by which pieces can be told to follow on one another.
func (c *Conn) rdpPiece(r *overRDP, d event.Direction, b []byte) (number uint32, piece []byte, ok bool) {
	h := &r.half[d]
	if r.version != rdpudp.Version3 && h.known {
		if number, piece, ok = rdpudp.Parse(b, h.initial); ok {
			return number - h.initial + pieceOrigin, piece, true
		}
	}
	if r.version != rdpudp.Version3 && (r.version != 0 || r.offered != rdpudp.Version3) {
		return 0, nil, false
	}
	var short uint16
	if short, piece, c.p.ordered, ok = rdpudp.Parse3(b, c.p.ordered); !ok {
		return 0, nil, false
	}
	if !h.numbered {
		h.numbered, h.first = true, short
	}
	return uint32(pieceOrigin + int(int16(short-h.first))), piece, true
}
