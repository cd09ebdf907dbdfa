package demux

import (
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// EAP is a conversation of EAP (RFC 3748): requests and responses in turn, each with
// the identifier of the request.
type EAP struct {
	Method uint8
	last   [2]int // identifier of the last request and of the last response, plus one; 0 without
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
func (e *EAP) ahead(pkt *eap.Packet) (again bool, ahead uint8) {
	const late = 16 // no request is later than that
	last := e.last[eapSide(pkt)]
	if last == 0 {
		return false, 0
	}
	ahead = uint8(int(pkt.Identifier) + 1 - last)
	return ahead == 0 || ahead > 256-late, ahead
}

// Answers reports whether the last response has the identifier of pkt.
func (e *EAP) Answers(pkt *eap.Packet) bool { return e.last[1] == int(pkt.Identifier)+1 }

// Over reports whether pkt belongs to another conversation than e, whose handshake
// is done or is not.
func (e *EAP) Over(done bool, pkt *eap.Packet) bool {
	if pkt.Start && !pkt.Response {
		return e.last != [2]int{} && e.last[0] != int(pkt.Identifier)+1
	}
	again, ahead := e.ahead(pkt)
	return done && !again && ahead > 1 && len(pkt.Data) > 0 && pkt.Data[0] == tls.Handshake
}

// Packet takes a packet, whose TLS goes to s. What comes twice is known by its
// identifier, and so is what is missing.
func (e *EAP) Packet(s Stream, d event.Direction, at event.Moment, pkt *eap.Packet) {
	again, ahead := e.ahead(pkt)
	if again {
		return
	}
	e.last[eapSide(pkt)] = int(pkt.Identifier) + 1
	if ahead > 1 {
		s.Gap(d, at, UnknownGap)
	}
	s.Segment(d, at, pkt.Data)
	if pkt.Cut > 0 {
		s.Gap(d, at, pkt.Cut)
	}
}
