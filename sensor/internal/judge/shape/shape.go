// Package shape says what the lengths of a server's encrypted records tell of its
// certificate, where TLS 1.3 hides the certificate itself: [Of] finds the messages
// among the records, and [Watched] and [Shown] know certificates whose lengths are
// compared with theirs. A fit says that the records are consistent with a certificate,
// and never that it is the one.
package shape

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// The parts of the messages of a flight that have always the same length, in bytes.
const (
	header      = 4              // of a handshake message (RFC 8446, section 4)
	extensions  = header + 2     // EncryptedExtensions without any (section 4.3.1)
	certificate = header + 1 + 3 // Certificate without entries, and with an empty context (section 4.4.2)
	entry       = 3 + 2          // of a certificate: its length, and that of no extensions
	verify      = header + 2 + 2 // CertificateVerify without the signature (section 4.4.3)
	shortestDER = 128            // of any certificate
	serverName  = 2 + 2          // the extension that says that the name was used (RFC 6066, section 3)
	protocol    = 2 + 2 + 2 + 1  // that with the protocol selected, without its name (RFC 7301, section 3.1)
	padding     = 16             // that Java adds to every record, whatever its length
	full        = 1 << 14        // the longest content of a record (RFC 8446, section 5.1)
	leastBlock  = 8              // of padding: smaller ones cannot be told from chance
)

// suite is what the lengths depend on beside the certificate: what is added to the
// content of a record, which is its type and the tag (RFC 8446, section 5.2), and the
// Finished message, whose hash is that of the suite (section 4.4.4).
type suite struct{ added, finished int }

// suiteOf returns the lengths of a cipher suite of TLS 1.3 that encrypts.
func suiteOf(id uint16) (s suite, ok bool) {
	const sha256, sha384 = 32, 48
	switch id {
	case 0x1301, 0x1303, 0x1304, 0x00c6, 0x00c7: // the last two: RFC 8998
		return suite{1 + 16, header + sha256}, true
	case 0x1302:
		return suite{1 + 16, header + sha384}, true
	case 0x1305: // CCM_8
		return suite{1 + 8, header + sha256}, true
	}
	return suite{}, false
}

// Of returns what the lengths of the encrypted records of h tell: nil where they tell
// nothing. It knows two forms. In one, each message has a record of its own, as far as
// Finished, without padding or with Java's; what the server sends after that does not
// matter. In the other, all messages are in one record, which is the whole flight; then
// only the sum of their lengths is known. Fits is empty: see [Watched.Fits] and
// [Shown.Fits].
func Of(h *event.Handshake) *judgement.Shape {
	s, ok := suiteOf(h.CipherSuite)
	if !ok || h.Resumed || h.Flight.Records == 0 {
		return nil
	}
	f := &h.Flight
	lengths := f.Lengths[:f.Records]
	for i := 3; i <= 4 && i < len(lengths); i++ { // with a CertificateRequest, and without
		more := int(lengths[i]) - s.finished
		if more != s.added && more != s.added+padding || !isSignature(int(lengths[i-1])-verify-more) {
			continue
		}
		if n := int(lengths[i-2]) - more; n < certificate+entry+shortestDER || n > full || padded(lengths[:i+1], s.added) {
			return nil
		}
		return &judgement.Shape{Certificate: int(lengths[i-2]), Verify: int(lengths[i-1]), Finished: int(lengths[i])}
	}
	if f.Whole && len(lengths) == 1 && total(f, s) >= extensions+certificate+entry+shortestDER+verify+shortestSignature+s.finished {
		return &judgement.Shape{Coalesced: true}
	}
	return nil
}

// total is the length of all messages of a flight together.
func total(f *event.Flight, s suite) (n int) {
	for _, length := range f.Lengths[:f.Records] {
		n += int(length) - s.added
	}
	return n
}

// padded reports whether the lengths are those of records that are padded (RFC 8446,
// section 5.4) to multiples of a block, with the content type or without it.
func padded(lengths []uint16, added int) bool {
	for _, added := range [2]int{added, added - 1} {
		block := 0
		for _, length := range lengths {
			for a := int(length) - added; a > 0; {
				a, block = block%a, a
			}
		}
		if block >= leastBlock {
			return true
		}
	}
	return false
}

// fits reports whether s, which is of h, is what a server sends that has a Certificate
// message of content bytes, without extensions, and a key whose signatures are like k.
func fits(s *judgement.Shape, h *event.Handshake, content int, k key) bool {
	x, ok := suiteOf(h.CipherSuite)
	if !ok {
		return false
	}
	if !s.Coalesced {
		more := s.Finished - x.finished
		return s.Certificate == content+more && k.signs(s.Verify-verify-more)
	}
	if !h.Flight.Whole || h.ClientAuth {
		return false
	}
	choices, n := encryptedExtensions(h)
	if n*(k.longest-k.shortest+1) > maxSums {
		return false
	}
	rest := total(&h.Flight, x) - content - verify - x.finished
	for _, length := range choices[:n] {
		if k.signs(rest - length) {
			return true
		}
	}
	return false
}

// encryptedExtensions returns the lengths that EncryptedExtensions may have, where the
// server answers what the client asks for in its hello, and adds nothing: the server
// confirms the name or not, and selects one of the protocols or none. n is how many
// there are, more than maxSums where not all are known.
func encryptedExtensions(h *event.Handshake) (choices [maxSums]int, n int) {
	c := h.ClientHello
	if c == nil || c.JA3 == "" { // it was not seen whole
		return choices, maxSums + 1
	}
	add := func(length int) {
		for _, l := range choices[:min(n, maxSums)] {
			if l == length {
				return
			}
		}
		if n < maxSums {
			choices[n] = length
		}
		n = min(n+1, maxSums+1)
	}
	both := func(length int) {
		if add(length); c.ServerName != "" {
			add(length + serverName)
		}
	}
	both(extensions)
	for _, name := range c.ALPN {
		both(extensions + protocol + len(name))
	}
	return choices, n
}
