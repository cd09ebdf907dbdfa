package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
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
func (p *Parser) reopenQUIC(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
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
func (p *Parser) quicDatagram(c *Conn, d event.Direction, at event.Moment, b []byte) {
	if c.quic == nil {
		c.quic = &overQUIC{p.quic.Open(), -1}
	}
	h := &c.half[d]
	h.seen = true
	if h.ended() {
		h.after++
	}
	p.quic.Wait = p.Keyed()
	c.quic.session.Mark = [2]uint64{uint64(at.Time), at.Frame}
	r := c.quic.session.Datagram(uint8(d), b)
	if r.Connection >= 0 && r.Connection < c.quic.connection {
		return // late, of a connection before
	}
	if r.Connection > c.quic.connection {
		if c.quic.connection >= 0 {
			p.finish(c, event.EndOfInput) // another connection between the same ends
			c.half = [2]half{}
		}
		c.quic.connection = r.Connection
	}
	p.quicMessages(c, &r)
	if c.hs == nil {
		return
	}
	if h.phase != veiled || len(r.Messages) > 0 {
		c.touch(at)
	}
	c.hs.Carrier, c.hs.Handshake.Datagram = carrier.QUIC.String(), false
	c.hs.HelloRetry = c.hs.HelloRetry || r.Retry
	if description, ok := r.Alert(); ok {
		c.alert(d, at, alertFatal, description)
	}
	if r.Sealed {
		c.side[d].sealedBy = tls.ApplicationData
		if h.phase != veiled {
			h.phase = sealed
		} else {
			c.veils[d].begun = true
		}
	}
	if c.hs.ServerHello == nil {
		c.hs.Version = tls.VersionTLS13
	}
	// What comes now is encrypted, whichever direction it comes in first.
	fresh := false
	for d := range event.Direction(2) {
		h := &c.half[d]
		if h.ended() || h.phase == veiled {
			continue
		}
		if p.cover(c, d, at) {
			fresh = fresh || c.veils[d].keyed
		} else if c.hs.ServerHello != nil {
			h.phase = spent
		}
	}
	if fresh {
		p.quicSecrets(c)
	}
}

// quicSecrets opens the Handshake packets with the secrets that are known.
func (p *Parser) quicSecrets(c *Conn) {
	known := p.keys.Secrets(&c.random)
	r := c.quic.session.SetSecrets(c.quic.connection, known.Client, known.Server)
	p.quicMessages(c, &r)
}

// quicMessages takes the messages of one connection.
func (p *Parser) quicMessages(c *Conn, r *quic.Result) {
	for i := range r.Messages {
		m := &r.Messages[i]
		d, at := event.Direction(m.Direction), event.Moment{Time: int64(m.Mark[0]), Frame: m.Mark[1]}
		if m.TLS13 = m.Level == quic.Handshake; m.TLS13 {
			if c.hs == nil || c.half[d].phase != veiled {
				continue // what comes behind Finished
			}
			p.opened(c, d, at)
		}
		p.handle(c, d, at, &m.Message, event.NoLoss)
	}
	for d, shut := range r.Unopened {
		if shut && c.veils != nil {
			c.veils[d].failed = true
		}
	}
}

// flushQUIC hands on what is there of unfinished certificates.
func (p *Parser) flushQUIC(c *Conn, cause event.Loss) {
	if c.quic == nil || c.veils == nil || c.hs == nil {
		return
	}
	for _, m := range c.quic.session.Unfinished() {
		if d := event.Direction(m.Direction); m.Level == quic.Handshake && m.Connection == c.quic.connection && c.half[d].phase == veiled {
			c.side[d].opened = true
			m.TLS13 = true
			p.handle(c, d, c.hs.End, &m.Message, cause)
		}
	}
}
