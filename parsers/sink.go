package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/internal/dtlsrecord"
	"github.com/oddcert/oddcert/parsers/internal/negotiation"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// sink is a Conn as the packages that read its records see it. What they find in the
// records goes on to the handshake.
type sink Conn

var (
	_ record.Sink     = (*sink)(nil)
	_ dtlsrecord.Sink = (*sink)(nil)
)

// over returns the transport of the handshakes of c.
func (c *Conn) over() ja.Transport {
	switch {
	case c.quic != nil:
		return ja.QUIC
	case c.dtls():
		return ja.DTLS
	}
	return ja.TCP
}

// dtls reports whether the handshakes of c are those of DTLS.
func (c *Conn) dtls() bool {
	if c.flow.Transport == event.TCP {
		return c.packets != nil && (c.packets.framing == demux.TURNFraming || c.packets.framing == demux.ICEFraming)
	}
	return c.parent == nil && c.quic == nil
}

// begin makes sure that there is a handshake to add to.
func (c *Conn) begin(d event.Direction, at event.Moment) {
	if !c.hs.Begun() {
		within, datagram := c.within, c.dtls()
		if within == carrier.None && datagram {
			within = carrier.DTLS
		}
		c.hs.Begin(d, at, negotiation.Opening{Flow: &c.flow, Carrier: within, Datagram: datagram, Version: c.stream.Direction(d).Version, Keys: !c.replaces && c.p.Decrypts()})
	}
	c.hs.Touch(at)
}

// message takes one handshake message of direction d. If the message is not complete,
// cause says why. It reports whether this was the last message of d to decrypt.
func (c *Conn) message(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) (last bool) {
	over := c.over()
	if c.hs.Restarts(d, m, over) { // the client begins another handshake
		c.finish(event.EndOfInput)
		if over == ja.DTLS {
			c.stream.Reset()
			h := c.stream.Direction(d)
			h.Seen, h.Phase = true, record.Plaintext
		}
	}
	if !m.TLS13 {
		c.begin(d, at)
	}
	torn := c.hs.Torn(d, m)
	last = c.hs.Message(d, at, m, cause, over)
	if torn {
		c.stream.Direction(d).Carve(at, m.Tail)
	}
	return last
}

func (s *sink) Begins(d event.Direction, at event.Moment, typ uint8) {
	c := (*Conn)(s)
	c.begin(d, at)
	c.hs.Sent(d, typ)
}

func (s *sink) Message(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) (last bool) {
	return (*Conn)(s).message(d, at, &m, cause)
}

func (s *sink) SSLv2(d event.Direction, at event.Moment, hello []byte, client bool) (old bool) {
	c := (*Conn)(s)
	c.begin(d, at)
	return c.hs.SSLv2(d, at, hello, client)
}

func (s *sink) ChangeCipherSpec(d event.Direction, at event.Moment) (encrypted bool) {
	return s.hs.ChangeCipherSpec(d, at)
}

func (s *sink) Alert(d event.Direction, at event.Moment, level, description uint8) {
	s.hs.Alert(d, at, level, description)
}

func (s *sink) Encrypted(d event.Direction, at event.Moment, by uint8) {
	s.hs.Encrypted(d, by)
	s.hs.Touch(at)
}

func (s *sink) EncryptedRecord(d event.Direction, length int) (more bool) {
	return s.hs.EncryptedRecord(d, length)
}

func (s *sink) Touch(at event.Moment) { s.hs.Touch(at) }

func (s *sink) Protect(d event.Direction, at event.Moment) bool { return (*Conn)(s).protect(d, at) }

func (s *sink) Decrypted(d event.Direction, at event.Moment) {
	c := (*Conn)(s)
	c.hs.Decrypted(d)
	c.hs.Touch(at)
	c.hs.Assume13(c.over())
}

func (s *sink) Nested(d event.Direction, at event.Moment, b []byte) (taken bool) {
	if !demux.MayBePackets(b) {
		return false
	}
	c := (*Conn)(s)
	c.stream.Direction(d).ShutNested() // for what turns out not to be packets
	c.unpack(d, at, b)
	return true
}

func (s *sink) Progress() record.Progress {
	if !s.hs.Begun() {
		return record.Progress{}
	}
	return record.Progress{Begun: true, Answered: s.hs.ServerHello != nil, Retried: s.hs.HelloRetry}
}

func (s *sink) Flight(d event.Direction) dtlsrecord.Flight { return dtlsrecord.Flight(s.hs.Side(d)) }
