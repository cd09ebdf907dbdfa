package quic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"slices"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// suite is an AEAD with the hash of its key schedule and its header protection
// (RFC 9001, sections 5.3 and 5.4).
type suite struct {
	hash func() hash.Hash
	key  int // bytes
	aead func(key []byte) (cipher.AEAD, error)
	// block is the cipher of the header protection; nil for ChaCha20.
	block func(key []byte) (cipher.Block, error)
}

var (
	aes128 = &suite{sha256.New, 16, newGCM, aes.NewCipher}
	aes256 = &suite{sha512.New384, 32, newGCM, aes.NewCipher}
	chacha = &suite{sha256.New, chacha20poly1305.KeySize, chacha20poly1305.New, nil}

	// By the length of a secret, which is that of the hash.
	suites256 = []*suite{aes128, chacha}
	suites384 = []*suite{aes256}
)

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// suitesOf are the suites that a secret of n bytes may be for.
func suitesOf(n int) []*suite {
	switch n {
	case sha256.Size:
		return suites256
	case sha512.Size384:
		return suites384
	}
	return nil
}

// opener removes the protection from the packets of one sender at one level.
type opener struct {
	aead   cipher.AEAD
	iv     []byte
	block  cipher.Block // of the header protection; nil for ChaCha20
	chacha []byte       // key of the header protection with ChaCha20
	next   uint64       // the packet number after the greatest that was opened
}

// newOpener makes the opener for the traffic secret of a sender (RFC 9001,
// section 5.1), nil when the secret is of no use.
func newOpener(s *suite, secret []byte, labels string) *opener {
	var err error
	o := new(opener)
	if o.aead, err = s.aead(expand(s.hash, secret, labels+"key", s.key)); err != nil {
		return nil
	}
	o.iv = expand(s.hash, secret, labels+"iv", o.aead.NonceSize())
	hp := expand(s.hash, secret, labels+"hp", s.key)
	if s.block == nil {
		o.chacha = hp
	} else if o.block, err = s.block(hp); err != nil {
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
	return expand(sha256.New, common, side, sha256.Size)
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446, section 7.1).
func expand(h func() hash.Hash, secret []byte, label string, n int) []byte {
	info := make([]byte, 0, 32)
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "...)
	info = append(info, label...)
	info = append(info, 0)
	out, err := hkdf.Expand(h, secret, string(info), n)
	if err != nil { // in FIPS mode, by policy
		return nil
	}
	return out
}

// scratch is what removing protection needs, lent to one packet at a time.
type scratch struct {
	mask   [sampleLength]byte
	nonce  [chacha20poly1305.NonceSize]byte
	header []byte
	plain  []byte
}

// open removes the protection from p (RFC 9001, sections 5.3 and 5.4) and
// returns its frames, which live in s. It is false when p was not made with
// these keys.
func (s *scratch) open(o *opener, p *packet) (frames []byte, ok bool) {
	b, at := p.bytes, p.number
	sample := b[at+4 : at+4+sampleLength]
	if o.block != nil {
		o.block.Encrypt(s.mask[:], sample)
	} else {
		c, err := chacha20.NewUnauthenticatedCipher(o.chacha, sample[4:])
		if err != nil {
			return nil, false
		}
		c.SetCounter(binary.LittleEndian.Uint32(sample))
		clear(s.mask[:])
		c.XORKeyStream(s.mask[:5], s.mask[:5])
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
	number := packetNumber(o.next, truncated, 8*size)
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

// packetNumber is the packet number nearest to expected whose low bits are
// truncated (RFC 9000, appendix A.3).
func packetNumber(expected, truncated uint64, bits int) uint64 {
	window := uint64(1) << bits
	candidate := expected&^(window-1) | truncated
	switch {
	case candidate+window/2 <= expected && candidate < 1<<62-window:
		return candidate + window
	case candidate > expected+window/2 && candidate >= window:
		return candidate - window
	}
	return candidate
}
