package carrier

import "bytes"

// The tokens of GSSAPI and SASL go in base64, one a line. With the mechanism of
// the Grid Security Infrastructure they are TLS, whose handshake of FTP is in
// the ADAT commands of the client and in the replies of the server (RFC 2228,
// sections 3 and 4); in SMTP, POP3 and IMAP, tokens stand after 334 or +, and
// alone on the client's lines (RFC 4954, RFC 5034, RFC 3501).

// How the tokens of a direction stand in their lines, in Scanner.state.
const (
	tokenADAT   = iota // after ADAT, or ADAT= in a reply
	tokenServer        // after 334, or +
	tokenClient        // alone, or after the command that begins the exchange

	tokenKind = 0x03 // one of these
	tokenBody = 0x04 // in a token
	tokenRest = 0x08 // in a line of no use, or the rest of one
)

// lineAuth in the state of a protocol of lines says that the last line began an
// exchange of tokens.
const lineAuth = 1

// tokenTLS is how a token begins that begins with a record of the handshake of
// TLS, 16 03.
const tokenTLS = "FgM"

// token tells where in the line that begins with u a token starts that may be
// TLS, of which more than the first seen bytes are new: the place after
// tokenTLS, 0 when there is none.
func (s *Scanner) token(u []byte, seen int) (end int, kind uint16) {
	from := max(seen-len(tokenTLS)+1, 0)
	i := bytes.Index(u[from:], []byte(tokenTLS))
	if i < 0 {
		return 0, 0
	}
	end = from + i + len(tokenTLS)
	before := u[:from+i]
	switch first, rest := word(before); {
	case len(before) == 0:
		if s.state&lineAuth != 0 {
			return end, tokenClient
		}
	case fold(before, "ADAT "), len(before) > 5 && fold(before[len(before)-5:], "ADAT="):
		return end, tokenADAT
	case string(before) == "+ ", string(before) == "334 ":
		return end, tokenServer
	case before[len(before)-1] == ' ' && (fold(first, "AUTH") || len(rest) > 12 && folds(rest, "AUTHENTICATE ")):
		return end, tokenClient
	}
	return 0, 0
}

// beginTokens goes over to lines with tokens, in the first of which tokenTLS was
// read.
func (s *Scanner) beginTokens(kind uint16) {
	s.protocol, s.state, s.left = tokens, kind|tokenBody, 0
	s.held = uint8(copy(s.unit[:], tokenTLS))
	s.upgrades = true
	if s.offer(SASL); kind == tokenADAT {
		s.offer(FTPGSSAPI)
	}
}

// endTokens says that they are not TLS.
func (s *Scanner) endTokens() {
	s.protocol, s.torn, s.held = lines, s.state&(tokenBody|tokenRest) != 0, 0
	s.state = 0
}

// base64Value is the value of a character of base64 (RFC 4648, section 4).
func base64Value(c byte) (v byte, ok bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A', true
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26, true
	case c >= '0' && c <= '9':
		return c - '0' + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

const quartet = 4 // characters of base64, for three bytes

// untoken takes the beginning of b, at least one byte of it, and decodes what is
// of a token there. The payload is good until the next call.
func (s *Scanner) untoken(b []byte) (n int, payload []byte) {
	payload = s.unit[quartet:quartet] // where the next line would go: it ends before that
	for n < len(b) && len(payload) <= maxUnit-quartet-3 && (len(payload) == 0 || s.state&tokenBody != 0) {
		c := b[n]
		n++
		switch {
		case s.state&tokenBody != 0:
			if _, ok := base64Value(c); ok {
				s.unit[s.held] = c
				s.held++
				if s.held == quartet {
					payload = s.decode(payload)
				}
				continue
			}
			payload = s.decode(payload)
			s.state = s.state&tokenKind | tokenRest
		case s.state&tokenRest == 0:
			s.prefix(c)
		}
		if c == '\n' {
			s.state &= tokenKind
			s.held = 0
		}
	}
	return n, payload
}

// decode appends the bytes of the characters that are held.
func (s *Scanner) decode(dst []byte) []byte {
	var bits uint32
	for i := range quartet {
		v := byte(0)
		if i < int(s.held) {
			v, _ = base64Value(s.unit[i])
		}
		bits = bits<<6 | uint32(v)
	}
	n := int(s.held) * 3 / quartet
	s.held = 0
	return append(dst, []byte{byte(bits >> 16), byte(bits >> 8), byte(bits)}[:n]...)
}

// prefix takes the next character of a line before its token.
func (s *Scanner) prefix(c byte) {
	kind := s.state & tokenKind
	if _, ok := base64Value(c); kind == tokenClient {
		if s.state |= tokenRest; ok {
			s.state = kind | tokenBody
			s.unit[0], s.held = c, 1
		}
		return
	}
	s.keep([]byte{c})
	u := s.unit[:s.held]
	switch {
	case kind == tokenADAT && (fold(u, "ADAT ") || len(u) > 5 && fold(u[len(u)-5:], "ADAT=")),
		kind == tokenServer && (string(u) == "+ " || string(u) == "334 "):
		s.state, s.held = kind|tokenBody, 0
		s.offer(s.carrier)
	case s.held == maxUnit:
		s.state, s.held = kind|tokenRest, 0
	}
}
