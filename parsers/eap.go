package parsers

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
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
		s = c.openSession(eapCarrier(pkt.Method))
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
	s.packet(d, at, &pkt)
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
	s := c.find(func(s *session) bool { return s.eap.method == pkt.Method })
	if s == nil || s.eap.over(s.conn, &pkt) {
		c.closeSessions(event.EndOfInput)
		s = c.openSession(eapCarrier(pkt.Method))
		s.eap.method = pkt.Method
	}
	s.packet(d, at, &pkt)
}

// LooksEAP reports whether an EAP packet is of a method that carries TLS: only
// such packets need to reach a [Conn].
func LooksEAP(b []byte) bool {
	_, ok := eap.Parse(b)
	return ok
}

// over reports whether pkt belongs to another conversation than e, whose TLS is
// that of c.
func (e *eapState) over(c *Conn, pkt *eap.Packet) bool {
	if pkt.Start && !pkt.Response {
		return e.id != [2]int{} && e.id[0] != int(pkt.Identifier)+1
	}
	again, ahead := e.ahead(pkt)
	return c.decided && !again && ahead > 1 && len(pkt.Data) > 0 && pkt.Data[0] == tls.Handshake
}

// eapSide is 1 for the peer, which answers, and 0 for the authenticator.
func eapSide(pkt *eap.Packet) int {
	if pkt.Response {
		return 1
	}
	return 0
}

// ahead reports whether pkt was sent again, and by how much its identifier is
// ahead of the last that its sender used; 0 when that is not known.
func (e *eapState) ahead(pkt *eap.Packet) (again bool, ahead uint8) {
	last := e.id[eapSide(pkt)]
	if last == 0 {
		return false, 0
	}
	ahead = uint8(int(pkt.Identifier) + 1 - last)
	return ahead == 0 || ahead > 256-maxPiecesHeld, ahead
}

// packet takes a packet of a conversation of EAP. What comes twice is known by its
// identifier, and so is what is missing.
func (s *session) packet(d event.Direction, at event.Moment, pkt *eap.Packet) {
	e := &s.eap
	again, ahead := e.ahead(pkt)
	if again {
		return
	}
	e.id[eapSide(pkt)] = int(pkt.Identifier) + 1
	if ahead > 1 {
		s.conn.p.Gap(s.conn, d, at, unknownGap)
	}
	s.conn.p.Segment(s.conn, d, at, pkt.Data)
	if pkt.Cut > 0 {
		s.conn.p.Gap(s.conn, d, at, pkt.Cut)
	}
}
