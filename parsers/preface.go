package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// dialogue is what the two directions say before TLS.
type dialogue [2]carrier.Scanner

// talk is the dialogue of the flow, which most flows that are TLS never need.
func (c *Conn) talk() *dialogue {
	if c.before == nil {
		c.before = new(dialogue)
	}
	return c.before
}

// opens tells whether TLS may begin with the next byte of d: at the beginning
// of the stream, or where the carrier says so.
func (c *Conn) opens(d event.Direction) bool { return c.before == nil || c.before[d].Open() }

// framed tells whether the TLS of d comes in packets of the carrier.
func (c *Conn) framed(d event.Direction) bool { return c.before != nil && c.before[d].Framed() }

// segment takes the next bytes of one direction, out of the carrier's packets
// where it has some.
func (p *Parser) segment(c *Conn, d event.Direction, at event.Moment, b []byte) {
	if c.framed(d) {
		p.unframe(c, d, at, b)
		return
	}
	p.stream(c, d, at, b)
}

// stream takes the next bytes of one direction.
func (p *Parser) stream(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	switch h.phase {
	case preface:
		p.search(c, d, at, b)
		p.tire(c, d)
	case astray:
		held := h.headers > 0
		if p.recognize(c, d, at, b) {
			break
		}
		h.headers = 0
		if held && p.recognize(c, d, at, b) { // not what it began like: perhaps it begins here
			break
		}
		p.wander(c, d, at, b)
	case records:
		p.records(c, d, at, b)
	case version2:
		p.version2(c, d, at, b)
	case veiled:
		p.unveil(c, d, at, b)
	case spent:
		h.after++
		h.bytes += len(b)
		// Only a segment that begins with a hello is of interest: to tell costs
		// a look at its first byte.
		if b[0] == tls.Handshake && c.hs == nil && h.cause == event.NoLoss && starts(b[:min(len(b), startBytes)], false) == hello {
			h.phase = preface
			if !p.recognize(c, d, at, b) {
				h.phase = spent
			}
		}
	case sealed:
		h.after++
	}
}

// search looks for TLS in a segment where there was none yet.
func (p *Parser) search(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	if h.headers == 0 {
		p.scan(c, d, at, b, h.bytes <= maxPreface && h.segments < maxPrefaceSegments || c.isTLS(d), false)
		return
	}
	if p.recognize(c, d, at, b) {
		return
	}
	held := p.start[:copy(p.start[:], h.header[:h.headers])] // what looked like the beginning of TLS is none
	h.headers = 0
	c.talk()[d].Shut()
	p.scan(c, d, at, held, false, true)
	if h.phase == preface && !c.framed(d) {
		p.search(c, d, at, b)
	} else {
		p.segment(c, d, at, b)
	}
}

// scan looks for TLS where the carrier lets it begin, and at the beginning of b
// in any case if boundary says so: the last resort for carriers that nobody
// knows. What was carved before is not again.
func (p *Parser) scan(c *Conn, d event.Direction, at event.Moment, b []byte, boundary, carved bool) {
	h := &c.half[d]
	plain := 0 // where what is no TLS begins
	for n := 0; n < len(b); {
		if boundary || c.opens(d) {
			if !carved && p.stray(c, d, at, b[plain:n]) {
				p.stream(c, d, at, b[n:])
				return
			}
			if plain = n; p.recognize(c, d, at, b[n:]) {
				return
			}
			if c.before != nil && c.before[d].Nested() && mayBePackets(b[n:]) {
				c.before[d].Shut() // for what turns out to be none
				p.unpack(c, d, at, b[n:])
				return
			}
		}
		boundary = false
		t := c.talk()
		k := t[d].Scan(b[n:], &t[d.Other()])
		h.bytes += k
		n += k
		if t[d].Foreign() && !h.gapped && !c.isTLS(d) {
			h.phase = spent
			p.settle(c, d)
			return
		}
		if t[d].Framed() {
			p.unframe(c, d, at, b[n:])
			return
		}
	}
	if !carved {
		p.stray(c, d, at, b[plain:])
	}
}

// stray looks for certificates in what is no TLS, where something of the
// direction was lost before. It is true when the reading of records was taken
// up.
func (p *Parser) stray(c *Conn, d event.Direction, at event.Moment, b []byte) bool {
	return len(b) > 0 && c.half[d].lost() && p.carve(c, d, at, b, true, false)
}

// unframe takes TLS out of the packets of its carrier.
func (p *Parser) unframe(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h, s := &c.half[d], &c.before[d]
	if h.ended() {
		h.after++
		return
	}
	for len(b) > 0 && !h.ended() {
		n, payload := s.Unframe(b)
		b = b[n:]
		switch {
		case h.phase != preface:
			if len(payload) > 0 {
				p.stream(c, d, at, payload)
			}
			if s.Foreign() {
				p.lose(c, d, event.Malformed)
				return
			}
		case s.Foreign():
			h.phase = spent
		case len(payload) > 0 && s.Open():
			if !p.recognize(c, d, at, payload) {
				h.headers = 0
				s.Shut()
			}
			fallthrough
		default:
			h.bytes += n
		}
		if !s.Framed() && h.phase == preface { // it was not TLS
			p.scan(c, d, at, b, false, false)
			break
		}
	}
	p.tire(c, d)
}

// upgrades tells whether a protocol was recognized in either direction that TLS
// may follow.
func (c *Conn) upgrades() bool {
	return c.before != nil && (c.before[0].Upgrades() || c.before[1].Upgrades())
}

// tire counts a segment, and gives a direction up in which too much was searched
// in vain.
func (p *Parser) tire(c *Conn, d event.Direction) {
	h := &c.half[d]
	if h.phase != preface {
		return
	}
	h.segments++
	bytes, segments := maxPreface, maxPrefaceSegments
	if c.upgrades() || c.isTLS(d) {
		bytes, segments = maxDialogue, maxDialogueSegments
	}
	if h.bytes > bytes || h.segments >= segments {
		h.phase = spent
		p.settle(c, d)
	}
}

// carried notes what carries the TLS that begins in d, with a message of type
// typ if with one.
func (c *Conn) carried(d event.Direction, typ uint8) {
	h := &c.half[d]
	if c.before != nil {
		h.carrier = c.before[d].Carrier()
	}
	if h.carrier == carrier.None && h.bytes > 0 && !h.gapped && (typ == tls.TypeClientHello || typ == tls.TypeServerHello) {
		h.carrier = carrier.Unknown
	}
}

// carrier is what carries the TLS of the flow: what the client says, who knows
// more, or else the server. PostgreSQL and TDS also speak TLS from the first
// byte, which the client's ALPN tells.
func (c *Conn) carrier() carrier.Carrier {
	client, server := c.half[c.client].carrier, c.half[c.client.Other()].carrier
	switch {
	case client > carrier.Unknown:
		return client
	case server != carrier.None:
		return server
	case client == carrier.None && c.hs.ClientHello != nil && len(c.hs.ClientHello.ALPN) > 0:
		switch c.hs.ClientHello.ALPN[0] {
		case "postgresql":
			return carrier.PostgreSQLDirect
		case "tds/8.0":
			return carrier.TDS
		}
	}
	return client
}
