package carrier

import "encoding/binary"

// Framed reports whether TLS comes in packets of TDS, or in lines of base64: what
// follows is to be given to Unframe.
func (s *Scanner) Framed() bool { return s.protocol == tds && s.state > 0 || s.protocol == tokens }

// Unframe takes the next packet's header, or of its payload what is there: the
// first n bytes of b, which is not empty. At the beginning of a payload the
// scanner is open. The payload is good until the next call.
func (s *Scanner) Unframe(b []byte) (n int, payload []byte) {
	if s.protocol == tokens {
		return s.untoken(b)
	}
	if s.left > 0 {
		n = min(s.left, len(b))
		s.left -= n
		return n, b[:n]
	}
	n = min(tdsHeaderLength-int(s.held), len(b))
	s.keep(b[:n])
	if s.held == tdsHeaderLength {
		s.held = 0
		s.tdsHeader(s.unit[:tdsHeaderLength])
	}
	return n, nil
}

// tdsHeader reads the header of a packet. Others than these come instead of TLS,
// or after its handshake; of the server's responses, the first is to the
// client's pre-login.
func (s *Scanner) tdsHeader(b []byte) {
	length := int(binary.BigEndian.Uint16(b[2:]))
	if b[0] != tdsPreLogin && (b[0] != tdsResponse || s.state > 1 && s.shut) || length < tdsHeaderLength {
		s.protocol = foreign
		return
	}
	s.state = min(s.state+1, 2)
	s.left = length - tdsHeaderLength
	s.offer(TDS)
}
