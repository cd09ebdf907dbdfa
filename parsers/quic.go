package parsers

import (
	"github.com/oddcert/oddcert/parsers/quic"
	"github.com/oddcert/oddcert/parsers/tls"
)

// overQUIC is the QUIC side of a flow: the session that opens its packets, and
// which of its connections the handshake is of.
type overQUIC struct {
	session    *quic.Session
	connection int // -1 before one is known
}

// reopenQUIC takes a datagram of QUIC on a flow that was decided: a client that
// uses its port again begins another connection.
func (p *Parser) reopenQUIC(c *Conn, d Direction, at Moment, b []byte) Verdict {
	if c.quic == nil || !c.quic.session.Begins(uint8(d), b) {
		return Decided
	}
	before := c.quic.connection
	p.quicDatagram(c, d, at, b)
	if c.decided = c.quic.connection == before; c.decided {
		return Decided
	}
	return p.decide(c)
}

// quicDatagram reads the TLS that a datagram of QUIC carries (RFC 9001). The
// hellos are in Initial packets, which anybody can open who has seen the
// client's first; the certificate is in Handshake packets, which are encrypted.
func (p *Parser) quicDatagram(c *Conn, d Direction, at Moment, b []byte) {
	if c.quic == nil {
		c.quic = &overQUIC{p.quic.Open(), -1}
	}
	h := &c.half[d]
	h.seen = true
	if h.ended() {
		h.after++
	}
	r := c.quic.session.Datagram(uint8(d), b)
	if r.Connection >= 0 && r.Connection < c.quic.connection {
		return // late, of a connection before
	}
	if r.Connection > c.quic.connection {
		if c.quic.connection >= 0 {
			p.finish(c, EndOfInput) // another connection between the same ends
			c.half = [2]half{}
		}
		c.quic.connection = r.Connection
	}
	for i := range r.Messages {
		m := &r.Messages[i]
		p.handle(c, Direction(m.Direction), at, &m.Message, NoLoss)
	}
	if c.hs == nil {
		return
	}
	c.touch(at)
	c.hs.Carrier, c.hs.Handshake.Datagram = "quic", false
	c.hs.HelloRetry = c.hs.HelloRetry || r.Retry
	if description, ok := r.Alert(); ok {
		c.alert(d, at, alertFatal, description)
	}
	if r.Sealed {
		c.side[d].sealedBy = tls.ApplicationData
		h.phase = sealed
	}
	if c.hs.ServerHello == nil {
		c.hs.Version = tls.VersionTLS13
	} else {
		// What comes now is encrypted, whichever direction it comes in first.
		for d := range c.half {
			if !c.half[d].ended() {
				c.half[d].phase = spent
			}
		}
	}
}
