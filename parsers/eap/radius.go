package eap

import "encoding/binary"

const (
	accessRequest   = 1
	accessChallenge = 11

	radiusHeader = 20
	radiusMost   = 4096

	attributeState = 24
	attributeEAP   = 79
)

// Access is a RADIUS packet with an EAP packet in it.
type Access struct {
	Request    bool   // from the network access server; else the answer, a challenge
	Identifier uint8  // the same in request and answer
	State      []byte // of the conversation, by the server; nil without
	parts      []byte // the attributes
}

// ParseAccess reads a RADIUS packet that is a request or a challenge with EAP
// in it, of a method that carries TLS.
func ParseAccess(b []byte) (a Access, ok bool) {
	if len(b) < radiusHeader+2+header || b[0] != accessRequest && b[0] != accessChallenge {
		return a, false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length > len(b) || length < radiusHeader || len(b) > radiusMost {
		return a, false
	}
	a = Access{Request: b[0] == accessRequest, Identifier: b[1], parts: b[radiusHeader:length]}
	carries := false
	first := true
	for l := a.parts; len(l) > 0; {
		if len(l) < 2 || l[1] < 2 || int(l[1]) > len(l) {
			return a, false
		}
		value := l[2:l[1]]
		switch l[0] {
		case attributeState:
			a.State = value
		case attributeEAP:
			if first {
				carries = len(value) > header && carriesTLS(value[4]) && (value[0] == request && !a.Request || value[0] == Response && a.Request)
				first = false
			}
		}
		l = l[l[1]:]
	}
	return a, carries
}

// AppendEAP appends the EAP packet, which may be dealt out to several
// attributes, to b.
func (a *Access) AppendEAP(b []byte) []byte {
	for l := a.parts; len(l) > 0; l = l[l[1]:] {
		if l[0] == attributeEAP {
			b = append(b, l[2:l[1]]...)
		}
	}
	return b
}
