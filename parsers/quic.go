package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/quic"
	"github.com/oddcert/oddcert/parsers/tls"
)

// overQUIC is the state of a flow of QUIC: the session that decrypts its packets, and
// the number of the connection whose handshake is followed.
type overQUIC struct {
	session    *quic.Session
	connection int // -1 before one is known
}

// reopenQUIC takes a datagram of QUIC on a flow that is done. A client that uses its
// port again begins another connection there.
func (c *Conn) reopenQUIC(d event.Direction, at event.Moment, b []byte) Status {
	if c.quic == nil || !c.quic.session.Begins(uint8(d), b) {
		return Done
	}
	before := c.quic.connection
	c.quicDatagram(d, at, b)
	if c.done = c.quic.connection == before; c.done {
		return Done
	}
	return c.conclude()
}

// quicDatagram reads the TLS that a datagram of QUIC carries (RFC 9001). The hellos
// are in Initial packets, which anybody who has seen the first one of the client can
// decrypt. The certificate is in Handshake packets, which need a secret.
func (c *Conn) quicDatagram(d event.Direction, at event.Moment, b []byte) {
	if c.quic == nil {
		c.quic = &overQUIC{c.p.quic.Open(), -1}
	}
	h := c.stream.Direction(d)
	h.Seen = true
	if h.Ended() {
		h.After++
	}
	c.p.quic.Wait = c.p.Decrypts()
	c.quic.session.Mark = [2]uint64{uint64(at.Time), at.Frame}
	r := c.quic.session.Datagram(uint8(d), b)
	if r.Connection >= 0 && r.Connection < c.quic.connection {
		return // late, and of an earlier connection
	}
	if r.Connection > c.quic.connection {
		if c.quic.connection >= 0 {
			c.finish(event.EndOfInput) // another connection of the same flow
			c.stream.Reset()
		}
		c.quic.connection = r.Connection
	}
	c.quicMessages(&r)
	if !c.hs.Begun() {
		return
	}
	if h.Phase != record.Protected || len(r.Messages) > 0 {
		c.hs.Touch(at)
	}
	c.hs.Carrier, c.hs.Datagram = carrier.QUIC.String(), false
	c.hs.HelloRetry = c.hs.HelloRetry || r.Retry
	if description, ok := r.Alert(); ok {
		c.hs.Alert(d, at, tls.AlertFatal, description)
	}
	if r.Sealed {
		c.hs.Encrypted(d, tls.ApplicationData)
		if h.Phase != record.Protected {
			h.Phase = record.Encrypted
		} else {
			c.stream.Direction(d).Protection().Begun = true
		}
	}
	c.hs.Assume13(ja.QUIC)
	// All that comes now is encrypted, in both directions.
	fresh := false
	for d := range event.Direction(2) {
		h := c.stream.Direction(d)
		if h.Ended() || h.Phase == record.Protected {
			continue
		}
		if h.StartProtection(at) {
			fresh = fresh || c.stream.Direction(d).Protection().Keyed
		} else if c.hs.Answered() {
			h.Phase = record.Abandoned
		}
	}
	if fresh {
		c.quicSecrets()
	}
}

// quicSecrets decrypts the Handshake packets with the secrets that are known.
func (c *Conn) quicSecrets() {
	known := c.p.keys.Secrets(c.hs.Random())
	r := c.quic.session.SetSecrets(c.quic.connection, known.Client, known.Server)
	c.quicMessages(&r)
}

// quicMessages takes the messages of one connection.
func (c *Conn) quicMessages(r *quic.Result) {
	for i := range r.Messages {
		m := &r.Messages[i]
		d, at := event.Direction(m.Direction), event.Moment{Time: int64(m.Mark[0]), Frame: m.Mark[1]}
		if m.TLS13 = m.Level == quic.Handshake; m.TLS13 {
			if !c.hs.Begun() || c.stream.Direction(d).Phase != record.Protected {
				continue // it comes after Finished
			}
			c.stream.Direction(d).Decrypted(at)
		}
		c.quicMessage(d, at, &m.Message, event.NoLoss)
	}
	for d := range event.Direction(2) {
		h := c.stream.Direction(d)
		if r.Unopened[d] && c.stream.Protected() {
			h.Protection().Failed = true
		}
		if r.Limited[d] && h.Phase == record.Protected { // perhaps a part of the certificate
			h.Cause = event.Limit
		}
	}
}

// quicMessage takes one message of QUIC.
func (c *Conn) quicMessage(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	if c.message(d, at, m, cause) {
		c.stream.Direction(d).EndProtection()
	}
}

// flushQUIC hands on what was captured of unfinished certificates.
func (c *Conn) flushQUIC(cause event.Loss) {
	if c.quic == nil || !c.stream.Protected() || !c.hs.Begun() {
		return
	}
	for _, m := range c.quic.session.Unfinished() {
		if d := event.Direction(m.Direction); m.Level == quic.Handshake && m.Connection == c.quic.connection && c.stream.Direction(d).Phase == record.Protected {
			c.hs.Decrypted(d)
			m.TLS13 = true
			why := cause
			if c.stream.Direction(d).Cause != event.NoLoss {
				why = c.stream.Direction(d).Cause
			}
			c.quicMessage(d, c.hs.End, &m.Message, why)
		}
	}
}
