package eap

import "encoding/binary"

// ParseEAPOL reads the body of an EAPOL frame (IEEE 802.1X-2020, section 11.3)
// that holds an EAP packet. length is the packet's on the wire: what is returned
// is shorter when the frame was cut.
func ParseEAPOL(b []byte) (packet []byte, length int, ok bool) {
	const header, typeEAP = 4, 0
	if len(b) < header || b[0] == 0 || b[1] != typeEAP {
		return nil, 0, false
	}
	length = int(binary.BigEndian.Uint16(b[2:]))
	return b[header:min(header+length, len(b))], length, true
}
