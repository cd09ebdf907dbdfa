// Package turn takes what peers send one another out of the messages of TURN
// (RFC 8656) and STUN (RFC 8489). Bytes in, slices of them out.
package turn

import "encoding/binary"

const (
	header        = 20 // of a STUN message
	channelHeader = 4
	magicCookie   = 0x2112a442

	sendIndication = 0x0016
	dataIndication = 0x0017
	dataAttribute  = 0x0013
	dtlsAttribute  = 0xc070 // META-DTLS-IN-STUN

	connectionBind        = 0x000b
	connectionBindSuccess = 0x010b
)

// Data is the payload of a datagram that is channel data, or a Send or Data
// indication; nil when it is not one.
func Data(b []byte) []byte {
	if len(b) < channelHeader {
		return nil
	}
	if IsChannel(b) {
		// Over UDP there may be padding.
		length := int(binary.BigEndian.Uint16(b[2:]))
		if b = b[channelHeader:]; length > len(b) || len(b)-length > 3 {
			return nil
		}
		return b[:length]
	}
	if !IsMessage(b) {
		return nil
	}
	if t := binary.BigEndian.Uint16(b); t != sendIndication && t != dataIndication {
		return nil
	}
	return attribute(b, dataAttribute)
}

// Embedded is the DTLS in a STUN message of a connectivity check of ICE
// (draft-hancke-webrtc-sped), nil when there is none.
func Embedded(b []byte) []byte {
	if !IsMessage(b) {
		return nil
	}
	return attribute(b, dtlsAttribute)
}

// attribute is the value of the first attribute of type typ of the STUN message
// b (RFC 8489, section 14), nil when there is none.
func attribute(b []byte, typ uint16) []byte {
	if header+int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return nil
	}
	for b = b[header:]; len(b) >= 4; {
		t, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; n > len(b) {
			return nil
		}
		if t == typ {
			return b[:n]
		}
		b = b[min(padded(n), len(b)):]
	}
	return nil
}

// IsChannel reports whether b, of at least 4 bytes, begins like channel data.
func IsChannel(b []byte) bool { return b[0]>>6 == 1 }

// IsMessage reports whether b begins like a STUN message.
func IsMessage(b []byte) bool {
	return len(b) >= header && b[0]>>6 == 0 && b[3]&3 == 0 && binary.BigEndian.Uint32(b[4:]) == magicCookie
}

// Binds reports whether the message b says that what follows on a connection is
// a stream that is relayed (RFC 6062, section 4.3), if of a client, when the
// server agrees.
func Binds(b []byte) bool {
	if !IsMessage(b) {
		return false
	}
	t := binary.BigEndian.Uint16(b)
	return t == connectionBind || t == connectionBindSuccess
}

func padded(n int) int { return (n + 3) &^ 3 }
