package parsers

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/eap"
)

// eapState is a conversation of EAP: requests and responses in turn, each with
// the identifier of the request.
type eapState struct {
	method uint8
	state  []byte // by the RADIUS server, which tells the conversations of a flow apart
	radius uint8  // identifier of the last RADIUS request
	asked  bool   // there was one that was not answered
	id     [2]int // of the last request and the last response, one more; 0 without
}

// radius takes a RADIUS packet with EAP in it.
func (p *Parser) radius(c *Conn, d Direction, at Moment, b []byte) {
	a, ok := eap.ParseAccess(b)
	if !ok {
		return
	}
	p.message = a.AppendEAP(p.message[:0])
	pkt, ok := eap.Parse(p.message)
	if !ok {
		return
	}
	s := c.find(func(s *session) bool {
		e := &s.eap
		same := len(a.State) > 0 && bytes.Equal(e.state, a.State)
		answers := e.asked && e.radius == a.Identifier
		switch {
		case e.method != pkt.Method:
			return false
		case a.Request: // which may have been sent again
			return same || answers && e.id[1] == int(pkt.Identifier)+1
		}
		return answers || !e.asked && same
	})
	if s == nil {
		s = p.openSession(c, eapCarrier(pkt.Method))
		s.eap.method = pkt.Method
	}
	e := &s.eap
	if a.Request {
		e.radius, e.asked = a.Identifier, true
	} else {
		e.asked = false
	}
	if len(a.State) > 0 {
		e.state = append(e.state[:0], a.State...)
	}
	p.eap(s, d, at, &pkt)
}

// eapCarrier is the carrier that an EAP method is.
func eapCarrier(method uint8) carrier.Carrier {
	switch method {
	case eap.TTLS:
		return carrier.TTLS
	case eap.PEAP:
		return carrier.PEAP
	case eap.FAST:
		return carrier.EAPFAST
	case eap.TEAP:
		return carrier.TEAP
	}
	return carrier.EAPTLS
}

// eap takes a packet of a conversation. What comes twice is known by its
// identifier, and so is what is missing.
func (p *Parser) eap(s *session, d Direction, at Moment, pkt *eap.Packet) {
	e := &s.eap
	id := int(pkt.Identifier) + 1
	side := 0
	if pkt.Response {
		side = 1
	}
	last := e.id[side]
	ahead := uint8(id - last)
	if last != 0 && (ahead == 0 || ahead > 256-maxVPNHeld) {
		return // sent again
	}
	if e.id[side] = id; last != 0 && ahead > 1 {
		p.Gap(s.conn, d, at, unknownGap)
	}
	p.Segment(s.conn, d, at, pkt.Data)
}
