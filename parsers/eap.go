package parsers

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
)

// radiusState identifies one conversation in a flow of RADIUS.
type radiusState struct {
	state []byte // State attribute (RFC 2865, section 5.24) that the server has sent last
	id    uint8  // identifier of the last request
	asked bool   // the last request was not answered
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
		case a.Request: // perhaps sent again
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

// eapCarrier returns the carrier that stands for an EAP method.
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

// eapol takes an EAP packet of a flow of EAPOL frames, in which one conversation
// follows another.
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
