package carrier

import (
	"bytes"
	"encoding/binary"
)

// What lengths are believed.
const (
	maxLDAP  = 1 << 24 // bytes of a message
	maxBody  = 1 << 27 // bytes of an HTTP message's; more are taken for as many
	maxMySQL = 1 << 16 // bytes of one of the first packets
)

const (
	x224Request = 0xe0
	x224Confirm = 0xd0

	// The first packets of a PostgreSQL client (PostgreSQL 17, section 54.7).
	postgresTLS     = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	postgresGSS     = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	postgresCancel  = "\x00\x00\x00\x10\x04\xd2\x16\x2e"
	postgresStartup = "\x00\x03\x00"

	// The header of an SSLRequest, and CLIENT_SSL in the second byte of the
	// capabilities after it (MySQL, Protocol::SSLRequest).
	mysqlRequest = "\x20\x00\x00\x01"
	mysqlTLS     = 0x08

	tdsHeaderLength = 8
	tdsPreLogin     = 0x12
	tdsResponse     = 0x04

	amqpSignature = "AMQP"
	amqpTLS       = 2 // the protocol after the header

	socks4Granted = 0x5a // of answers; those that refuse are greater

	// The beginnings of the two versions of the PROXY protocol.
	proxy1          = "PROXY "
	proxy2Signature = "\r\n\r\n\x00\r\nQUIT\n"
)

// Where in the messages of SOCKS a scanner is.
const (
	socks4Fixed  = iota // in front of the user
	socks4User          // in the user
	socks4aUser         // in the user that a name follows
	socks4aName         // in the name
	socks5Method = 0    // in front of the methods
	socks5Talk   = 1    // in front of a name and password, or of a request
	socks5Secret = 2    // in front of the password
)

// length is that of the unit of which the beginning is held, 0 when more of it
// is needed, -1 when it is not one of the protocol.
func (s *Scanner) length() int {
	u := s.unit[:s.held]
	switch s.protocol {
	case ldap:
		n, size := berLength(u[1:])
		if u[0] != 0x30 || size < 0 {
			return -1
		}
		if size > 0 {
			return 1 + size + n
		}
	case tpkt:
		if u[0] != 3 {
			return -1
		}
		if len(u) >= 4 {
			return max(4, int(binary.BigEndian.Uint16(u[2:])))
		}
	case postgres:
		if len(u) >= 4 {
			if n := int(binary.BigEndian.Uint32(u)); n >= 8 && n <= 1<<16 {
				return n
			}
			return -1
		}
	case mysql:
		if len(u) >= 4 {
			n := int(u[0]) | int(u[1])<<8 | int(u[2])<<16
			if n == 0 || n > maxMySQL {
				return -1
			}
			return 4 + n
		}
	case tds:
		return tdsHeaderLength
	case socks4:
		return 8
	case socks5:
		return s.socks5Length(u)
	case preconnection:
		if len(u) >= 4 {
			return max(4, int(binary.LittleEndian.Uint32(u)))
		}
	case amqp:
		return 8
	case proxy2:
		if len(u) >= 16 {
			return 16 + int(binary.BigEndian.Uint16(u[14:]))
		}
	}
	return 0
}

const startTLS = "1.3.6.1.4.1.1466.20037"

// ldapMessage knows the request to start TLS, and extended responses that say
// success.
func (s *Scanner) ldapMessage(b []byte) {
	const extendedRequest, extendedResponse, requestName = 0x77, 0x78, 0x80
	s.hint(LDAP)
	op, m := ldapOperation(b)
	if m != yes {
		return
	}
	_, n := berLength(op[1:])
	if n <= 0 {
		return
	}
	body := op[1+n:]
	switch op[0] {
	case extendedRequest:
		if len(body) == 0 || body[0] != requestName {
			return
		}
		l, n := berLength(body[1:])
		if n > 0 && l == len(startTLS) && literal(body[1+n:], startTLS) == yes {
			s.offer(LDAP)
		}
	case extendedResponse:
		if literal(body, "\x0a\x01\x00") == yes {
			s.offer(LDAP)
		}
	}
}

// x224 knows the two messages that open a connection, and what the server says
// there of security (MS-RDPBCGR, section 2.2.1.2).
func (s *Scanner) x224(b []byte) {
	const negotiation, response = 11, 2
	s.protocol = foreign // what follows but TLS
	if len(b) < negotiation {
		return
	}
	switch b[5] & 0xf0 {
	case x224Request:
		s.protocol = tpkt
		s.offer(RDP)
	case x224Confirm:
		if len(b) >= negotiation+5 && b[negotiation] == response && b[negotiation+4] != 0 {
			s.protocol = tpkt
			s.offer(RDP)
		}
	}
}

func (s *Scanner) postgresMessage(b []byte) {
	switch string(b[:min(len(b), len(postgresTLS))]) {
	case postgresTLS:
		s.offer(PostgreSQL)
	case postgresGSS:
		s.carrier = PostgreSQL
	default: // it begins without TLS
		s.protocol = foreign
	}
}

// mysqlPacket takes the first packet of either side; a second one says that
// they do without TLS.
func (s *Scanner) mysqlPacket([]byte) {
	if s.state++; s.state > 1 {
		s.protocol = foreign
		return
	}
	s.offer(MySQL)
}

// socks4Part reads a request of SOCKS 4 or 4a, or the answer.
func (s *Scanner) socks4Part(b []byte) {
	switch s.state {
	case socks4Fixed:
		switch {
		case b[1] == socks4Granted:
			s.nest(SOCKS4)
		case b[1] > socks4Granted: // refused
			s.protocol = foreign
		case bytes.Equal(b[4:7], []byte{0, 0, 0}) && b[7] != 0:
			s.state = socks4aUser
		default:
			s.state = socks4User
		}
	case socks4User:
		s.nest(SOCKS4)
	case socks4aUser:
		s.state = socks4aName
	case socks4aName:
		s.nest(SOCKS4a)
	}
}

// socks5Length reads as the client's what may be the server's: a chosen method,
// with the answer to a name and password where there is one, looks like a list
// of methods, and an answer like a request.
func (s *Scanner) socks5Length(u []byte) int {
	const version, passwordVersion = 5, 1
	switch {
	case s.state == socks5Secret: // RFC 1929
		return 1 + int(u[0])
	case s.state == socks5Talk && u[0] == passwordVersion:
		if len(u) == 2 {
			return 2 + int(u[1])
		}
		return 0
	case u[0] != version:
		return -1
	case s.state == socks5Method:
		if len(u) == 2 {
			return 2 + int(u[1])
		}
		return 0
	}
	const ipv4, name, ipv6 = 1, 3, 4
	if len(u) < 5 {
		return 0
	}
	switch u[3] {
	case ipv4:
		return 10
	case name:
		return 7 + int(u[4])
	case ipv6:
		return 22
	}
	return -1
}

func (s *Scanner) socks5Message(b []byte) {
	switch {
	case s.state == socks5Method, s.state == socks5Secret:
		s.state = socks5Talk
	case b[0] == 1:
		s.state = socks5Secret
	default:
		s.nest(SOCKS5)
	}
}
