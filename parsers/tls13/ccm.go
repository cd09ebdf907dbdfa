package tls13

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// ccm is AES in counter mode with CBC-MAC (RFC 3610) as TLS 1.3 uses it: with
// nonces of 12 bytes, which leave 3 for the length.
type ccm struct {
	block cipher.Block
	tag   int
}

const (
	ccmNonce  = 12
	ccmLength = aes.BlockSize - 1 - ccmNonce // bytes of the message's length
	ccmMax    = 1<<(8*ccmLength) - 1
)

var errOpen = errors.New("message authentication failed")

// newCCM returns CCM with a tag of the given length.
func newCCM(key []byte, tag int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	return &ccm{block, tag}, err
}

func (c *ccm) NonceSize() int { return ccmNonce }

func (c *ccm) Overhead() int { return c.tag }

// Seal implements [cipher.AEAD]. The plaintext must be shorter than 2^24 bytes
// and the additional data than 2^16-2^8.
func (c *ccm) Seal(dst, nonce, plaintext, data []byte) []byte {
	n := len(dst)
	tag := c.mac(nonce, plaintext, data)
	dst = append(dst, plaintext...)
	c.crypt(nonce, dst[n:], &tag)
	return append(dst, tag[:c.tag]...)
}

// Open implements [cipher.AEAD], within the same bounds.
func (c *ccm) Open(dst, nonce, ciphertext, data []byte) ([]byte, error) {
	n, size := len(dst), len(ciphertext)-c.tag
	if size < 0 || size > ccmMax {
		return nil, errOpen
	}
	var sent [aes.BlockSize]byte
	copy(sent[:], ciphertext[size:])
	dst = append(dst, ciphertext[:size]...)
	plain := dst[n:]
	c.crypt(nonce, plain, &sent)
	tag := c.mac(nonce, plain, data)
	if subtle.ConstantTimeCompare(tag[:c.tag], sent[:c.tag]) != 1 {
		clear(plain)
		return nil, errOpen
	}
	return dst, nil
}

// mac is the CBC-MAC of a message (RFC 3610, section 2.2), not encrypted yet.
func (c *ccm) mac(nonce, plain, data []byte) (x [aes.BlockSize]byte) {
	x[0] = byte((c.tag-2)/2)<<3 | (ccmLength - 1)
	if len(data) > 0 {
		x[0] |= 1 << 6
	}
	copy(x[1:], nonce)
	x[13], x[14], x[15] = byte(len(plain)>>16), byte(len(plain)>>8), byte(len(plain))
	c.block.Encrypt(x[:], x[:])
	if len(data) > 0 {
		var first [2]byte
		binary.BigEndian.PutUint16(first[:], uint16(len(data)))
		x[0] ^= first[0]
		x[1] ^= first[1]
		n := subtle.XORBytes(x[2:], x[2:], data)
		c.block.Encrypt(x[:], x[:])
		c.absorb(&x, data[n:])
	}
	c.absorb(&x, plain)
	return x
}

func (c *ccm) absorb(x *[aes.BlockSize]byte, b []byte) {
	for len(b) > 0 {
		b = b[subtle.XORBytes(x[:], x[:], b):]
		c.block.Encrypt(x[:], x[:])
	}
}

// crypt encrypts or decrypts b and the tag in place (RFC 3610, section 2.3).
func (c *ccm) crypt(nonce, b []byte, tag *[aes.BlockSize]byte) {
	var counter [aes.BlockSize]byte
	counter[0] = ccmLength - 1
	copy(counter[1:], nonce)
	stream := cipher.NewCTR(c.block, counter[:])
	stream.XORKeyStream(tag[:], tag[:]) // the block of counter 0
	stream.XORKeyStream(b, b)
}
