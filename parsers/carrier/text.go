package carrier

// delimiter is the byte that ends the current unit, if one does.
func (s *Scanner) delimiter() (byte, bool) {
	switch s.protocol {
	case lines, http:
		return '\n', true
	case xml:
		return '>', true
	case socks4:
		return 0, s.state != socks4Fixed
	}
	return 0, false
}

// fold reports whether b is the upper-case word, in whatever case.
func fold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, v := range b {
		if v >= 'a' && v <= 'z' {
			v -= 'a' - 'A'
		}
		if v != word[i] {
			return false
		}
	}
	return true
}

// folds reports whether b begins with the upper-case word, in whatever case.
func folds(b []byte, word string) bool { return len(b) >= len(word) && fold(b[:len(word)], word) }

// trim cuts white space off both ends.
func trim(b []byte) []byte {
	space := func(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// word cuts the first word off b.
func word(b []byte) (first, rest []byte) {
	for i, v := range b {
		if v == ' ' {
			return b[:i], trim(b[i:])
		}
	}
	return b, nil
}

// line reads one line of the protocols that talk in lines: a command of the
// client, or an answer of the server. Commands and answers that TLS follows
// offer it; others tell which protocol it is.
func (s *Scanner) line(b []byte) {
	if literal(b, proxy1) == yes {
		s.nest(ProxyProtocol)
		return
	}
	first, rest := word(trim(b))
	s.state = 0
	if fold(first, "AUTH") || folds(rest, "AUTHENTICATE ") {
		s.state = lineAuth
	}
	if len(first) > 0 && first[0] == '@' { // tags of IRC (IRCv3, message-tags)
		first, rest = word(rest)
	}
	if len(first) == 0 {
		return
	}
	second, _ := word(rest)
	if s.answer(first, second) {
		return
	}
	switch {
	case fold(first, "STARTTLS") && len(rest) == 0:
		s.upgrade(s.carrier)
	case fold(first, "X-ANONYMOUSTLS") && len(rest) == 0: // between Exchange servers (MS-OXSMTP)
		s.upgrade(SMTP)
	case fold(first, "STLS") && len(rest) == 0:
		s.upgrade(POP3)
	case fold(first, "AUTH") && (folds(second, "TLS") || folds(second, "SSL")):
		s.upgrade(FTP)
	case fold(second, "STARTTLS"):
		s.upgrade(IMAP)
	case fold(first, "EHLO"), fold(first, "HELO"), fold(first, "LHLO"):
		s.hint(SMTP)
	case fold(first, "CAPA"):
		s.hint(POP3)
	case fold(first, "FEAT"):
		s.hint(FTP)
	case fold(first, "CAP"), fold(first, "NICK"):
		s.hint(IRC)
	case fold(first, "CAPABILITIES"), fold(first, "MODE") && fold(second, "READER"):
		s.hint(NNTP)
	case fold(second, "CAPABILITY"), fold(second, "LOGIN"):
		s.hint(IMAP)
	case fold(first, "USER"), fold(first, "PASS"): // FTP, POP3, IRC
		s.upgrades = true
	}
}

// answer reads a line that begins as servers' do.
func (s *Scanner) answer(first, second []byte) bool {
	switch {
	case string(first) == "+OK":
		s.upgrade(POP3)
		return true
	case string(first) == "*":
		if string(second) == "OK" || string(second) == "PREAUTH" || string(second) == "CAPABILITY" {
			s.hint(IMAP)
		}
		return true
	case fold(first, `"IMPLEMENTATION"`):
		s.hint(Sieve)
		return true
	case fold(first, "OK"):
		if s.carrier == Sieve {
			s.upgrade(Sieve)
		}
		return true
	case string(first) == "670": // RPL_STARTTLS, of a server that does not name itself
		s.upgrade(IRC)
		return true
	case first[0] == ':':
		switch string(second) {
		case "670":
			s.upgrade(IRC)
		case "NOTICE", "CAP", "001", "451", "691":
			s.hint(IRC)
		}
		return true
	}
	if string(second) == "OK" {
		s.upgrade(IMAP)
		return true
	}
	if len(first) < 3 {
		return false
	}
	more := len(first) > 3 // 250-, of an answer of many lines
	switch string(first[:3]) {
	case "220":
		s.upgrades = true // SMTP, FTP
		if !more {
			s.upgrade(SMTP)
		}
	case "250":
		s.upgrades = true
		if s.carrier != FTP {
			s.hint(SMTP)
		}
	case "234":
		s.upgrade(FTP)
	case "382":
		s.upgrade(NNTP)
	case "200", "201":
		s.upgrades = true
	default:
		return false
	}
	return true
}

func (s *Scanner) hint(c Carrier) { s.carrier, s.upgrades = c, true }

func (s *Scanner) upgrade(c Carrier) {
	s.offer(c)
	s.upgrades = true
}

// tag reads one tag of XMPP, and the text before it.
func (s *Scanner) tag(b []byte) {
	b = trim(b)
	if len(b) == 0 || b[0] != '<' {
		return
	}
	if b = b[1:]; len(b) > 0 && b[0] == '/' {
		b = b[1:]
	}
	for i, v := range b { // without the prefix of the name space
		if v == ':' {
			b = b[i+1:]
			break
		}
		if v < '-' || v > 'z' || v == '/' || v == '>' || v == '=' {
			break
		}
	}
	switch {
	case literal(b, "starttls") == yes, literal(b, "proceed") == yes:
		s.hint(XMPP)
		s.offer(XMPP)
	case literal(b, "stream") == yes:
		s.hint(XMPP)
	}
}

// What the head of an HTTP message has told (RFC 9112), in Scanner.state.
const (
	httpHead     = 1 << iota // in one
	httpConnects             // a request for a tunnel
	httpAbsolute             // a request to a proxy
	httpUpgrades             // to TLS
	httpChunked              // a body of a length not told
	httpSuccess              // an answer 2xx
	httpSwitches             // 101
	httpAnswer               // any
	httpWaits                // 426, or 1xx, after which there is more to come
	httpTorn                 // lines of it are missing

	httpBody = 1 << 15 // not in a head, but in a body of known length
)

// httpLine reads one line of heads, or, between them, of bodies that have no
// length, which say nothing.
func (s *Scanner) httpLine(b []byte, peer *Scanner) {
	if s.state == 0 {
		s.httpStart(b)
		return
	}
	b = trim(b)
	switch {
	case len(b) == 0:
		s.httpEnd(peer)
	case folds(b, "UPGRADE:"):
		for ; len(b) > 0; b = b[1:] {
			if folds(b, "TLS/") {
				s.state |= httpUpgrades
			}
		}
	case folds(b, "CONTENT-LENGTH:"):
		s.body = 0
		for _, v := range trim(b[len("CONTENT-LENGTH:"):]) {
			if v < '0' || v > '9' || s.body > maxBody {
				break
			}
			s.body = 10*s.body + int(v-'0')
		}
	case folds(b, "TRANSFER-ENCODING:"):
		s.state |= httpChunked
	}
}

func (s *Scanner) httpStart(b []byte) {
	switch {
	case literal(b, "HTTP/1.") == yes && len(b) >= len("HTTP/1.1 200"):
		s.state = httpHead | httpAnswer
		switch code := b[9:12]; {
		case string(code) == "101":
			s.state |= httpSwitches
		case string(code) == "426": // to be asked for TLS (RFC 2817, section 4.2)
			s.state |= httpWaits
			s.upgrades = true
		case code[0] == '1':
			s.state |= httpWaits
		case code[0] == '2':
			s.state |= httpSuccess
		case string(code) == "407":
			s.upgrades = true // perhaps next time
		}
	case isHTTP(b) == yes:
		s.state = httpHead
		method, target := word(b)
		switch {
		case string(method) == "CONNECT":
			s.state |= httpConnects
		case folds(target, "HTTP:"):
			s.state |= httpAbsolute
		}
	}
}

// httpEnd is at the end of a head.
func (s *Scanner) httpEnd(peer *Scanner) {
	head := s.state
	plain := s.body == 0 && head&httpChunked == 0
	s.state = 0
	if s.body > 0 && head&httpChunked == 0 {
		s.left, s.state = s.body, httpBody
	}
	s.body = 0
	switch {
	case head&httpConnects != 0:
		s.tunnels, s.upgrades = true, true
		s.nest(HTTPConnect)
	case head&httpAnswer == 0 && head&httpUpgrades != 0:
		s.asked, s.upgrades = false, true
		if s.carrier = HTTPUpgrade; plain {
			s.offer(HTTPUpgrade)
		}
	case head&httpAbsolute != 0:
		s.proxied, s.upgrades = true, true
	case head&httpAnswer == 0:
		s.asked = head&httpTorn == 0
		s.upgrades = s.upgrades && !s.asked
	case head&httpWaits != 0:
	case peer.asked && !peer.tunnels && !peer.proxied:
		s.protocol = foreign
	case head&httpSwitches != 0:
		s.offer(HTTPUpgrade)
	case head&httpSuccess == 0:
	case peer.tunnels || plain && !peer.proxied: // whatever the head says of a body (RFC 9110, section 9.3.6)
		s.upgrades = s.upgrades || peer.tunnels
		s.nest(HTTPConnect)
	case peer.protocol != http:
		s.protocol = foreign
	}
}
