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

// carriesTLS tells whether a method is one of those.
func carriesTLS(method uint8) bool {
	return method == TLS || method == TTLS || method == PEAP || method == FAST || method == TEAP
}

const (
	header = 5 // of a request or response: code, identifier, length, type

	request  = 1
	response = 2

	flagLength = 0x80
	flagMore   = 0x40
	flagStart  = 0x20
)

// Packet is a request or response of a method that carries TLS.
type Packet struct {
	Response   bool // from the peer, so from the TLS client
	Identifier uint8
	Method     uint8
	More       bool   // the message goes on in the next packet
	Total      int    // length of the message, 0 where the packet does not say
	Data       []byte // a piece of the TLS stream; shorter when it was cut
}

// Parse reads an EAP packet.
func Parse(b []byte) (p Packet, ok bool) {
	if len(b) < header+1 {
		return p, false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	p = Packet{Response: b[0] == response, Identifier: b[1], Method: b[4]}
	flags := b[5]
	if b[0] != request && b[0] != response || length < header+1 || !carriesTLS(p.Method) {
		return p, false
	}
	b = b[header+1 : min(length, len(b))]
	p.More = flags&flagMore != 0
	if flags&flagLength != 0 {
		if len(b) < 4 {
			return p, false
		}
		if p.Total = int(binary.BigEndian.Uint32(b)); p.Total < 0 || p.Total > maxMessage {
			return p, false
		}
		b = b[4:]
	}
	if flags&flagStart == 0 { // what begins a conversation is no TLS
		p.Data = b
	}
	return p, true
}

// maxMessage is the longest message that is believed in, in bytes.
const maxMessage = 1 << 24
