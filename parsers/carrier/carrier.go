// Package carrier follows what is said on a stream before TLS begins: the
// protocols that upgrade to TLS, and those that carry any stream in them. A
// [Scanner] reads one direction and tells where TLS may begin. It keeps a fixed
// number of bytes, allocates nothing, and owns nothing that it is given.
package carrier

import "bytes"

// protocol is how the bytes are cut into units, and what the units mean.
type protocol uint8

const (
	fresh    protocol = iota // the beginning, not recognized yet
	lines                    // of text, whatever they say
	http                     // lines, and bodies
	xml                      // tags
	ldap                     // BER
	tpkt                     // RFC 1006
	postgres                 // the client's first packets
	mysql
	tds
	socks4
	socks5
	proxy2
	preconnection // of RDP
	amqp
	tokens  // lines with TLS in base64
	foreign // of which it is known that no TLS follows
)

// maxUnit is how many bytes of the beginning of a line, tag or packet are looked
// at: as many as the OID in an LDAP request with all its lengths in long form.
const maxUnit = 48

// Scanner follows one direction of a stream. The zero value is at the beginning
// of one.
type Scanner struct {
	protocol protocol
	state    uint16  // within the protocol
	carrier  Carrier // of TLS that would begin here
	shut     bool    // TLS does not begin here
	upgrades bool    // a protocol was recognized that TLS may follow, if late
	torn     bool    // bytes of the current unit are missing
	proxied  bool    // an HTTP proxy was asked for more than a tunnel
	tunnels  bool    // an HTTP proxy was asked for a tunnel
	asked    bool    // an HTTP server was asked for what is no TLS
	held     uint8   // bytes in unit
	unit     [maxUnit]byte
	left     int // bytes of the current unit that are still to come, 0 when not known
	body     int // of an HTTP message, as its head has it
}

// Open reports whether the next byte may be the first of TLS, as it may be at the
// beginning and wherever the protocol says so.
func (s *Scanner) Open() bool { return !s.shut }

// Shut says that the next byte is not the first of TLS.
func (s *Scanner) Shut() {
	if s.shut = true; s.protocol == tokens {
		s.endTokens()
	}
}

// Nested reports whether another stream begins here, TLS or anything, that the
// carrier carries.
func (s *Scanner) Nested() bool {
	return s.protocol == fresh && s.held == 0 && s.carrier != None && !s.shut
}

// Carrier is what would carry TLS that began here.
func (s *Scanner) Carrier() Carrier {
	if s.protocol == fresh && s.agrees() {
		return PostgreSQL
	}
	return s.carrier
}

// Upgrades reports whether a protocol was recognized that can go over to TLS, or
// carry it, if only after a long talk.
func (s *Scanner) Upgrades() bool { return s.upgrades }

// Foreign reports whether a protocol was recognized that never goes over to TLS.
func (s *Scanner) Foreign() bool { return s.protocol == foreign }

// Scan takes the beginning of b, at least one byte of it: up to where TLS may
// begin, or where the framing does, or all. It then tells how many bytes. peer
// is the other direction, as far as it was seen.
func (s *Scanner) Scan(b []byte, peer *Scanner) int {
	s.shut = true
	n := 0
	for n < len(b) && s.shut && !s.Framed() {
		if s.protocol == foreign {
			return len(b)
		}
		if s.protocol != fresh {
			n += s.step(b[n:], peer)
			continue
		}
		s.keep(b[n : n+1])
		n++
		if p := identify(s.unit[:s.held]); p != fresh {
			s.begin(p, peer)
		} else {
			s.shut = !s.agrees()
		}
	}
	return n
}

// begin reads what was held to recognize protocol p as that.
func (s *Scanner) begin(p protocol, peer *Scanner) {
	var buf [maxSignature]byte
	b := buf[:copy(buf[:], s.unit[:s.held])]
	s.protocol, s.state, s.held = p, 0, 0
	s.upgrades = s.upgrades || p > xml && p < foreign || p == http || literal(b, proxy1) == yes
	for len(b) > 0 && s.protocol != foreign && s.protocol != tokens {
		s.shut = true
		b = b[s.step(b, peer):]
	}
}

// agrees reports whether what was held is a PostgreSQL server's answer: S says
// that it speaks TLS, N before that that it does not encrypt by GSSAPI.
func (s *Scanner) agrees() bool {
	u := string(s.unit[:s.held])
	return u == "S" || u == "NS"
}

// keep takes bytes of the beginning of a unit.
func (s *Scanner) keep(b []byte) { s.held += uint8(copy(s.unit[s.held:], b)) }

// step takes bytes of one unit.
func (s *Scanner) step(b []byte, peer *Scanner) (n int) {
	delimiter, delimited := s.delimiter()
	switch {
	case s.left > 0: // of a unit whose length is known
		n = min(s.left, len(b))
		s.keep(b[:n])
		if s.left -= n; s.left == 0 {
			s.end(peer)
		}
	case delimited:
		n = bytes.IndexByte(b, delimiter) + 1
		ended := n > 0
		if !ended {
			n = len(b)
		}
		seen := int(s.held)
		s.keep(b[:n])
		if s.protocol == lines && seen < int(s.held) && !s.torn {
			if end, kind := s.token(s.unit[:s.held], seen); end > 0 {
				s.beginTokens(kind)
				return end - seen
			}
		}
		if ended {
			s.end(peer)
		}
	default:
		n = 1
		s.keep(b[:1])
		switch length := s.length(); {
		case length < 0: // it was not that protocol
			s.protocol = lines
		case length > 0:
			if s.left = length - int(s.held); s.left == 0 {
				s.end(peer)
			}
		}
	}
	return n
}

// end reads a unit, of which the beginning is there.
func (s *Scanner) end(peer *Scanner) {
	u := s.unit[:s.held]
	torn := s.torn
	s.held, s.torn = 0, false
	if s.protocol == http && s.state == httpBody {
		s.state = 0
		return
	}
	if torn {
		return
	}
	switch s.protocol {
	case lines:
		s.line(u)
	case http:
		s.httpLine(u, peer)
	case xml:
		s.tag(u)
	case ldap:
		s.ldapMessage(u)
	case tpkt:
		s.x224(u)
	case postgres:
		s.postgresMessage(u)
	case mysql:
		s.mysqlPacket(u)
	case tds:
		s.tdsHeader(u)
	case socks4:
		s.socks4Part(u)
	case socks5:
		s.socks5Message(u)
	case proxy2:
		s.nest(ProxyProtocol)
	case preconnection:
		s.nest(RDP)
	case amqp:
		if s.protocol = foreign; u[len(amqpSignature)] == amqpTLS {
			s.protocol = lines
			s.offer(AMQP)
		}
	}
}

// offer says that TLS may begin here, and what carries it.
func (s *Scanner) offer(c Carrier) { s.carrier, s.shut = c, false }

// nest says that from here on c carries another stream, TLS or anything.
func (s *Scanner) nest(c Carrier) {
	s.offer(c)
	s.protocol, s.state, s.left, s.body = fresh, 0, 0, 0
}

// Skip says that n bytes are missing. It reports whether the framing, if there
// is one, can be followed after them.
func (s *Scanner) Skip(n int) bool {
	if s.protocol == tokens { // the next begins in another line
		s.state, s.held = s.state&tokenKind|tokenRest, 0
		return false
	}
	if s.Framed() {
		if n <= s.left {
			s.left -= n
			return true
		}
		s.protocol, s.left, s.held, s.shut = lines, 0, 0, true
		return false
	}
	s.shut, s.asked = true, false
	if s.protocol == http && s.state&httpHead != 0 {
		s.state |= httpTorn
	}
	if n <= s.left {
		s.torn = true
		if s.left -= n; s.left == 0 {
			s.end(s)
		}
		return true
	}
	if s.protocol != lines && s.protocol != http && s.protocol != xml && s.protocol != foreign {
		s.protocol = lines
	}
	s.left, s.held, s.torn = 0, 0, true
	return true
}
