// Package tls13 removes the protection of TLS 1.3 and DTLS 1.3 from records,
// given the traffic secret of their sender (RFC 8446, RFC 9147). It can do nothing
// without a secret. Its cipher suites, key derivation and masks are those of QUIC
// too.
package tls13

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// Suite is a cipher suite of TLS 1.3 (RFC 8446, section B.4): an AEAD, and the
// hash of the key schedule.
type Suite struct {
	ID   uint16
	Hash func() hash.Hash
	Key  int // length of the AEAD's key in bytes
	AEAD func(key []byte) (cipher.AEAD, error)
	// block is the cipher of masks, nil for ChaCha20.
	block func(key []byte) (cipher.Block, error)
}

// The suites.
var (
	AES128GCM  = &Suite{0x1301, sha256.New, 16, newGCM, aes.NewCipher}
	AES256GCM  = &Suite{0x1302, sha512.New384, 32, newGCM, aes.NewCipher}
	ChaCha20   = &Suite{0x1303, sha256.New, chacha20poly1305.KeySize, chacha20poly1305.New, nil}
	AES128CCM  = &Suite{0x1304, sha256.New, 16, func(key []byte) (cipher.AEAD, error) { return newCCM(key, 16) }, aes.NewCipher}
	AES128CCM8 = &Suite{0x1305, sha256.New, 16, func(key []byte) (cipher.AEAD, error) { return newCCM(key, 8) }, aes.NewCipher}
)

// By the length of a secret, which is that of the hash.
var (
	suites256 = []*Suite{AES128GCM, ChaCha20, AES128CCM, AES128CCM8}
	suites384 = []*Suite{AES256GCM}
)

// Suites are the suites that a secret of n bytes may be for, the likeliest
// first; only that with the number id, when id is not 0.
func Suites(id uint16, n int) []*Suite {
	var all []*Suite
	switch n {
	case sha256.Size:
		all = suites256
	case sha512.Size384:
		all = suites384
	}
	for i := range all {
		if all[i].ID == id {
			return all[i : i+1]
		}
	}
	if id != 0 {
		return nil
	}
	return all
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// ExpandLabel is HKDF-Expand-Label with an empty context (RFC 8446, section
// 7.1). The label comes with the prefix of its protocol, such as "tls13 ". It is
// nil when the secret is not allowed for h, by the policy of FIPS 140.
func ExpandLabel(h func() hash.Hash, secret []byte, label string, n int) []byte {
	info := make([]byte, 0, 32)
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, 0)
	out, err := hkdf.Expand(h, secret, string(info), n)
	if err != nil {
		return nil
	}
	return out
}

// SampleLength is how many bytes of a packet's ciphertext its mask follows from.
const SampleLength = 16

// Mask hides the packet numbers of QUIC (RFC 9001, section 5.4) and the record
// numbers of DTLS 1.3 (RFC 9147, section 4.2.3).
type Mask struct {
	block  cipher.Block // nil for ChaCha20
	chacha []byte
}

// NewMask makes the mask of suite s with key.
func NewMask(s *Suite, key []byte) (*Mask, error) {
	if s.block == nil {
		return &Mask{chacha: key}, nil
	}
	block, err := s.block(key)
	return &Mask{block: block}, err
}

// Of writes the mask for sample, of [SampleLength] bytes, to out. At least five
// bytes of it are good. It is false when there is none.
func (m *Mask) Of(sample []byte, out *[SampleLength]byte) bool {
	if m.block != nil {
		m.block.Encrypt(out[:], sample)
		return true
	}
	c, err := chacha20.NewUnauthenticatedCipher(m.chacha, sample[4:SampleLength])
	if err != nil {
		return false
	}
	c.SetCounter(binary.LittleEndian.Uint32(sample))
	clear(out[:])
	c.XORKeyStream(out[:5], out[:5])
	return true
}

// seal is an AEAD with the keys of one sender.
type seal struct {
	aead cipher.AEAD
	iv   []byte
}

// newSeal derives the keys of suite s from a traffic secret (RFC 8446, section
// 7.3). prefix is that of the labels.
func newSeal(s *Suite, secret []byte, prefix string) (k seal, ok bool) {
	key := ExpandLabel(s.Hash, secret, prefix+"key", s.Key)
	if key == nil {
		return k, false
	}
	var err error
	if k.aead, err = s.AEAD(key); err != nil {
		return k, false
	}
	k.iv = ExpandLabel(s.Hash, secret, prefix+"iv", k.aead.NonceSize())
	return k, true
}

// open decrypts body, of record number seq, and appends the plaintext to dst.
func (k *seal) open(dst []byte, nonce *[12]byte, seq uint64, body, header []byte) ([]byte, bool) {
	copy(nonce[:], k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(seq >> (56 - 8*i))
	}
	plain, err := k.aead.Open(dst, nonce[:], body, header)
	return plain, err == nil
}
