// Package carrier follows what is said on a stream before TLS begins: the
// protocols that upgrade to TLS, and those that carry any stream in them. A
// [Scanner] reads one direction and tells where TLS may begin. It keeps a fixed
// number of bytes, allocates nothing, and owns nothing that it is given.
package carrier

import "bytes"

// Carrier is what carries TLS.
type Carrier uint8

// The carriers. Of nested ones, such as STARTTLS behind a proxy, the innermost
// counts.
const (
	None        Carrier = iota // nothing: TLS is the first thing in the stream
	Preface                    // something that is not known
	SMTP                       // STARTTLS, LMTP's too (RFC 3207)
	IMAP                       // STARTTLS (RFC 3501, section 6.2.1)
	POP3                       // STLS (RFC 2595, section 4)
	FTP                        // AUTH TLS (RFC 4217)
	LDAP                       // StartTLS (RFC 4511, section 4.14)
	XMPP                       // starttls (RFC 6120, section 5)
	IRC                        // STARTTLS (IRCv3 tls-3.1)
	NNTP                       // STARTTLS (RFC 4642)
	Sieve                      // STARTTLS (RFC 5804, section 2.2)
	PostgreSQL                 // SSLRequest (PostgreSQL, section 54.2.11)
	MySQL                      // SSLRequest, MariaDB's too
	TDS                        // pre-login packets (MS-TDS, section 2.2.6.5)
	RDP                        // X.224 connection (MS-RDPBCGR, section 1.3.1.1)
	AMQP                       // TLS protocol header (AMQP 1.0, section 5.2.1)
	HTTPConnect                // CONNECT (RFC 9110, section 9.3.6)
	HTTPUpgrade                // Upgrade: TLS/1.0 (RFC 2817)
	SOCKS4
	SOCKS4a
	SOCKS5        // RFC 1928
	FTPGSSAPI     // tokens of ADAT that are TLS (RFC 2228, GFD.20)
	SASL          // tokens of other protocols that are
	ProxyProtocol // PROXY, versions 1 and 2 (HAProxy, proxy-protocol.txt)

	// Those of packets, which no [Scanner] finds.
	TURN    // channel data and indications (RFC 8656)
	CAPWAP  // RFC 5415
	OpenVPN // its control channel
	EAPTLS  // RFC 5216
	TTLS    // EAP-TTLS (RFC 5281)
	PEAP    // draft-josefsson-pppext-eap-tls-eap
	EAPFAST // RFC 4851
	TEAP    // RFC 7170
	RDPUDP  // MS-RDPEUDP and MS-RDPEUDP2
	STUN    // connectivity checks of ICE (draft-hancke-webrtc-sped)

	Carriers // how many carriers there are
)

// String is the name of c in records.
func (c Carrier) String() string {
	return [...]string{"tls", "preface", "starttls-smtp", "starttls-imap", "starttls-pop3", "starttls-ftp", "ldap", "xmpp", "irc", "nntp",
		"sieve", "postgresql", "mysql", "tds", "rdp", "amqp", "http-connect", "http-upgrade", "socks4", "socks4a", "socks5", "ftp-gssapi", "sasl", "proxy-protocol",
		"turn", "capwap", "openvpn", "eap-tls", "ttls", "peap", "eap-fast", "teap", "rdp-udp", "stun"}[c]
}

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

// Open tells whether the next byte may be the first of TLS, as it may be at the
// beginning and wherever the protocol says so.
func (s *Scanner) Open() bool { return !s.shut }

// Shut says that the next byte is not the first of TLS.
func (s *Scanner) Shut() {
	if s.shut = true; s.protocol == tokens {
		s.endTokens()
	}
}

// Nested tells whether another stream begins here, TLS or anything, that the
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

// Upgrades tells whether a protocol was recognized that can go over to TLS, or
// carry it, if only after a long talk.
func (s *Scanner) Upgrades() bool { return s.upgrades }

// Foreign tells whether a protocol was recognized that never goes over to TLS.
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

// agrees tells whether what was held is a PostgreSQL server's answer: S says
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
// is one, can be followed behind them.
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
