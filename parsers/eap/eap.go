// Package eap takes the TLS of EAP methods (RFC 3748, RFC 5216) out of RADIUS
// packets (RFC 2865, RFC 3579) and EAPOL frames (IEEE 802.1X). Bytes in,
// structs out; what it returns points into what it was given unless it says
// otherwise.
package eap

import "encoding/binary"

// The methods that carry TLS (IANA, EAP method types).
const (
	TLS  = 13
	TTLS = 21
	PEAP = 25
	FAST = 43
	TEAP = 55
)

// carriesTLS reports whether a method is one of those.
func carriesTLS(method uint8) bool {
	return method == TLS || method == TTLS || method == PEAP || method == FAST || method == TEAP
}

// Response is the code of a packet from the peer (RFC 3748, section 4).
const Response = 2

const (
	header = 5 // of a request or response: code, identifier, length, type

	request = 1

	flagLength = 0x80
	flagMore   = 0x40
	flagStart  = 0x20
)

// Packet is a request or response of a method that carries TLS.
type Packet struct {
	Response   bool // from the peer, so from the TLS client
	Identifier uint8
	Method     uint8
	Start      bool   // a conversation begins (RFC 5216, section 3.1)
	More       bool   // the message goes on in the next packet
	Total      int    // length of the message, 0 where the packet does not say
	Data       []byte // a piece of the TLS stream
	Cut        int    // bytes of it that were not captured: they would follow on Data
}

// Parse reads an EAP packet.
func Parse(b []byte) (p Packet, ok bool) {
	if len(b) < header+1 {
		return p, false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	p = Packet{Response: b[0] == Response, Identifier: b[1], Method: b[4]}
	flags := b[5]
	if b[0] != request && b[0] != Response || length < header+1 || !carriesTLS(p.Method) {
		return p, false
	}
	cut := max(length-len(b), 0)
	b = b[header+1 : min(length, len(b))]
	p.More, p.Start = flags&flagMore != 0, flags&flagStart != 0
	if flags&flagLength != 0 {
		if len(b) < 4 {
			return p, false
		}
		if p.Total = int(binary.BigEndian.Uint32(b)); p.Total < 0 || p.Total > maxMessage {
			return p, false
		}
		b = b[4:]
	}
	if !p.Start { // what begins a conversation is no TLS
		p.Data, p.Cut = b, cut
	}
	return p, true
}

// maxMessage is the longest message that is believed in, in bytes.
const maxMessage = 1 << 24
