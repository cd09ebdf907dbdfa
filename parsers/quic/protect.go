package quic

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/oddcert/oddcert/parsers/tls13"
)

// opener removes the protection from the packets of one sender at one level.
type opener struct {
	aead cipher.AEAD
	iv   []byte
	mask *tls13.Mask // of the header protection
	next uint64      // the packet number after the greatest that was opened
}

// newOpener makes the opener for the traffic secret of a sender (RFC 9001,
// section 5.1), nil when the secret is of no use.
func newOpener(s *tls13.Suite, secret []byte, labels string) *opener {
	var err error
	o := new(opener)
	if o.aead, err = s.AEAD(tls13.ExpandLabel(s.Hash, secret, labels+"key", s.Key)); err != nil {
		return nil
	}
	o.iv = tls13.ExpandLabel(s.Hash, secret, labels+"iv", o.aead.NonceSize())
	if o.mask, err = tls13.NewMask(s, tls13.ExpandLabel(s.Hash, secret, labels+"hp", s.Key)); err != nil {
		return nil
	}
	return o
}

// initialSecret is the secret of the Initials of a connection whose client
// began with dcid (RFC 9001, section 5.2), and side one of "client in" and
// "server in".
func initialSecret(salt, dcid []byte, side string) []byte {
	common, err := hkdf.Extract(sha256.New, dcid, salt)
	if err != nil { // in FIPS mode, by policy
		return nil
	}
	return tls13.ExpandLabel(sha256.New, common, "tls13 "+side, sha256.Size)
}

// scratch is what removing protection needs, lent to one packet at a time.
type scratch struct {
	mask   [tls13.SampleLength]byte
	nonce  [chacha20poly1305.NonceSize]byte
	header []byte
	plain  []byte
}

// open removes the protection from p (RFC 9001, sections 5.3 and 5.4) and
// returns its frames, which live in s. It is false when p was not made with
// these keys.
func (s *scratch) open(o *opener, p *packet) (frames []byte, ok bool) {
	b, at := p.bytes, p.number
	sample := b[at+4 : at+4+tls13.SampleLength]
	if !o.mask.Of(sample, &s.mask) {
		return nil, false
	}
	first := b[0]
	if first&0x80 != 0 {
		first ^= s.mask[0] & 0x0f
	} else {
		first ^= s.mask[0] & 0x1f
	}
	size := int(first&3) + 1
	s.header = append(s.header[:0], b[:at+size]...)
	s.header[0] = first
	truncated := uint64(0)
	for i := range size {
		s.header[at+i] ^= s.mask[1+i]
		truncated = truncated<<8 | uint64(s.header[at+i])
	}
	number := tls13.Number(o.next, truncated, 8*size)
	copy(s.nonce[:], o.iv)
	for i := range 8 {
		s.nonce[4+i] ^= byte(number >> (56 - 8*i))
	}
	s.plain = slices.Grow(s.plain[:0], len(b))
	frames, err := o.aead.Open(s.plain, s.nonce[:], b[at+size:], s.header)
	if err != nil {
		return nil, false
	}
	o.next = max(o.next, number+1)
	return frames, true
}
