package tls

import "encoding/binary"

// SSLv2 messages (draft-hickman-netscape-ssl-00; RFC 5246, appendix E.2).
const (
	// V2Header is how many bytes of an SSLv2 hello must be there to tell one.
	V2Header = 11

	v2ClientHello = 1
	v2ServerHello = 4
)

// V2Length is the length of the SSLv2 record that begins with b, header
// included, when it is a CLIENT-HELLO or SERVER-HELLO whose lengths fit one
// another to the byte; else 0. b has at least [V2Header] bytes.
func V2Length(b []byte) (length int, client bool) {
	if b[0]&0x80 == 0 {
		return 0, false
	}
	n := int(b[0]&0x7f)<<8 | int(b[1])
	u16 := func(i int) int { return int(binary.BigEndian.Uint16(b[i:])) }
	switch b[2] {
	case v2ClientHello: // version, and the lengths of the ciphers, the session and the challenge
		version := u16(3)
		ciphers, session, challenge := u16(5), u16(7), u16(9)
		if (version == VersionSSL2 || b[3] == 3) && ciphers > 0 && ciphers%3 == 0 &&
			session <= randomLength && n == 9+ciphers+session+challenge {
			return 2 + n, true
		}
	case v2ServerHello: // hit, certificate type, version, and the lengths of certificate, ciphers and connection
		if b[3] <= 1 && b[4] <= 1 && u16(5) == VersionSSL2 && u16(9)%3 == 0 && n >= 11+u16(7)+u16(9) {
			return 2 + n, false
		}
	}
	return 0, false
}

// ParseV2ClientHello reads an SSLv2 CLIENT-HELLO that [V2Length] accepted and
// that is whole, header included. The suites of SSLv2 alone are left out; the
// list is the only thing that is copied.
func ParseV2ClientHello(b []byte) (h ClientHello) {
	ciphers := int(binary.BigEndian.Uint16(b[5:]))
	session := int(binary.BigEndian.Uint16(b[7:]))
	h.Version = binary.BigEndian.Uint16(b[3:])
	list := b[11 : 11+ciphers]
	for ; len(list) >= 3; list = list[3:] {
		if list[0] == 0 {
			h.CipherSuites = append(h.CipherSuites, list[1], list[2])
		}
	}
	h.SessionID = b[11+ciphers : 11+ciphers+session]
	h.Random = b[11+ciphers+session:]
	return h
}

// ParseV2ServerHello returns the certificate in an SSLv2 SERVER-HELLO that
// [V2Length] accepted and that is whole, header included; resumed when the
// server found the session.
func ParseV2ServerHello(b []byte) (der []byte, resumed bool) {
	n := int(binary.BigEndian.Uint16(b[7:]))
	return b[13 : 13+n], b[3] == 1
}
