package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/rdpudp"
	"github.com/oddcert/oddcert/parsers/tls"
)

// overRDP is the state of a flow of Remote Desktop over UDP.
type overRDP struct {
	demux.RDPTransport
	count int // datagrams
}

// rdpSYN takes a packet that begins a connection of Remote Desktop over UDP.
func (c *Conn) rdpSYN(d event.Direction, s *rdpudp.SYN) Status {
	r := c.rdp
	switch {
	case r == nil:
	case r.Begins(d, s):
		c.closeSessions(event.EndOfInput)
		if !c.done {
			c.finish(event.EndOfInput)
		}
		c.stream.Reset()
		r = nil
	case c.done:
		return Done
	}
	if r == nil {
		r = new(overRDP)
		c.rdp, c.done = r, false
	}
	c.within = carrier.RDPUDP
	r.SYN(d, s)
	return NeedMore
}

// rdpDatagram takes another datagram of a connection of Remote Desktop over UDP.
func (c *Conn) rdpDatagram(d event.Direction, at event.Moment, b []byte) Status {
	r := c.rdp
	if c.done {
		return Done
	}
	if r.count++; r.count > maxRDP {
		c.p.stats.PacketLimit++
		return c.abandonPackets()
	}
	number, piece, scratch, ok := r.Piece(d, b, c.p.ordered)
	c.p.ordered = scratch
	if !ok || len(piece) == 0 {
		return NeedMore
	}
	if r.Lossy && dtls.Looks(piece) {
		c.dtlsDatagram(d, at, piece)
		return c.conclude()
	}
	s := c.find(func(*session) bool { return true })
	if s == nil {
		s = c.openSession(carrier.RDPUDP)
	}
	pool, v := &c.p.records.Pool, &s.pieces[d]
	if !v.Started() {
		begins := len(piece) > 1 && piece[0] == tls.Handshake && piece[1] == tls.VersionTLS10>>8
		if !begins && !v.Full() {
			v.Hold(pool, at, number, piece)
			return NeedMore
		}
		v.Start(pool, number)
	}
	v.Add(pool, (*inner)(s.conn), d, at, number, piece)
	if s.conn.done {
		return c.abandonPackets()
	}
	return NeedMore
}
