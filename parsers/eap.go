package parsers

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
)

// radiusState is how one conversation of a flow of RADIUS is known.
type radiusState struct {
	state []byte // that the server gives it
	id    uint8  // identifier of the last request
	asked bool   // there was one that was not answered
}

// radius takes a RADIUS packet with EAP in it.
func (c *Conn) radius(d event.Direction, at event.Moment, b []byte) {
	a, ok := eap.ParseAccess(b)
	if !ok {
		return
	}
	c.p.message = a.AppendEAP(c.p.message[:0])
	pkt, ok := eap.Parse(c.p.message)
	if !ok {
		return
	}
	s := c.find(func(s *session) bool {
		e := &s.radius
		same := len(a.State) > 0 && bytes.Equal(e.state, a.State)
		answers := e.asked && e.id == a.Identifier
		switch {
		case s.eap.Method != pkt.Method:
			return false
		case a.Request: // which may have been sent again
			return same || answers && s.eap.Answers(&pkt)
		}
		return answers || !e.asked && same
	})
	if s == nil {
		s = c.openSession(eapCarrier(pkt.Method))
		s.eap.Method = pkt.Method
	}
	e := &s.radius
	if a.Request {
		e.id, e.asked = a.Identifier, true
	} else {
		e.asked = false
	}
	if len(a.State) > 0 {
		e.state = append(e.state[:0], a.State...)
	}
	s.eap.Packet((*inner)(s.conn), d, at, &pkt)
}

// eapCarrier is the carrier that an EAP method is.
func eapCarrier(method uint8) carrier.Carrier {
	switch method {
	case eap.TTLS:
		return carrier.EAPTTLS
	case eap.PEAP:
		return carrier.PEAP
	case eap.FAST:
		return carrier.EAPFAST
	case eap.TEAP:
		return carrier.TEAP
	}
	return carrier.EAPTLS
}

// eapol takes an EAP packet of a flow of EAPOL frames: on those one conversation
// follows the other.
func (c *Conn) eapol(d event.Direction, at event.Moment, b []byte) {
	pkt, ok := eap.Parse(b)
	if !ok {
		return
	}
	s := c.find(func(s *session) bool { return s.eap.Method == pkt.Method })
	if s == nil || s.eap.Over(s.conn.done, &pkt) {
		c.closeSessions(event.EndOfInput)
		s = c.openSession(eapCarrier(pkt.Method))
		s.eap.Method = pkt.Method
	}
	s.eap.Packet((*inner)(s.conn), d, at, &pkt)
}
