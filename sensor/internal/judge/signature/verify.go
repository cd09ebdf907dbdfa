package signature

import (
	"bytes"
	"crypto"
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/sha1"
	_ "crypto/sha256" // SHA-224 and SHA-256
	_ "crypto/sha512" // SHA-384, SHA-512 and its cut forms
	"encoding/binary"
	"math/big"
)

// Verify returns nil if sig is a signature of signed by k. An error wraps
// [ErrMismatch] if it is none, whatever the octets of sig are, or [ErrUnsupported].
func (k *Key) Verify(s Scheme, signed, sig []byte) error {
	if !s.fits(k) {
		return mismatch("the signature is %s, the key is %s", s.Kind, k.algorithm)
	}
	if len(sig) > maxSignature {
		return mismatch("a signature of %d bytes", len(sig))
	}
	if s.Kind == Ed25519 {
		if !ed25519.Verify(k.ed25519, signed, sig) {
			return ErrMismatch
		}
		return nil
	}
	var room [64]byte
	digest, err := sum(room[:0], s.Hash, signed)
	if err != nil {
		return err
	}
	ok := false
	switch s.Kind {
	case PKCS1:
		prefix, known := digestInfos[s.Hash]
		if !known {
			return unsupported("RSA with %s", s.Hash)
		}
		em, fine := k.rsa.open(sig)
		if !fine {
			return mismatch("a signature of %d bytes for a key of %d bits", len(sig), k.bits)
		}
		ok = isPKCS1(em, prefix, digest)
	case PSS:
		if !s.MGF.Available() || s.MGF == crypto.MD5SHA1 {
			return unsupported("RSA-PSS with the mask hash %s", s.MGF)
		}
		em, fine := k.rsa.open(sig)
		if !fine {
			return mismatch("a signature of %d bytes for a key of %d bits", len(sig), k.bits)
		}
		ok = isPSS(em, k.bits, s, digest)
	case ECDSA:
		ok = ecdsa.VerifyASN1(k.ecdsa, digest, sig)
	case DSA:
		ok = verifyDSA(k.dsa, digest, sig)
	}
	if !ok {
		return ErrMismatch
	}
	return nil
}

// sum appends the hash of b to dst.
func sum(dst []byte, h crypto.Hash, b []byte) ([]byte, error) {
	if h == crypto.MD5SHA1 {
		m, s := md5.Sum(b), sha1.Sum(b)
		return append(append(dst, m[:]...), s[:]...), nil
	}
	if !h.Available() {
		return nil, unsupported("the hash %s", h)
	}
	x := h.New()
	x.Write(b)
	return x.Sum(dst), nil
}

// open raises sig to the public exponent, and returns the result as long as the
// modulus (RFC 8017, section 8.2.2, steps 1 and 2). It is false where sig has
// another length, or is no smaller than the modulus.
func (k *rsaKey) open(sig []byte) ([]byte, bool) {
	size := (k.n.BitLen() + 7) / 8
	if len(sig) != size {
		return nil, false
	}
	m := new(big.Int).SetBytes(sig)
	if m.Cmp(k.n) >= 0 {
		return nil, false
	}
	return m.Exp(m, k.e, k.n).FillBytes(make([]byte, size)), true
}

// digestInfos has what is before the hash in a DigestInfo (RFC 8017, section 9.2,
// note 1): the parameters are NULL. MD5 and SHA-1 together have none (RFC 4346,
// section 4.7).
var digestInfos = map[crypto.Hash]string{
	crypto.MD5SHA1:    "",
	crypto.MD5:        "\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
	crypto.SHA1:       "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
	crypto.SHA224:     "\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
	crypto.SHA256:     "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	crypto.SHA384:     "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	crypto.SHA512:     "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
	crypto.SHA512_224: "\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x05\x05\x00\x04\x1c",
	crypto.SHA512_256: "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x06\x05\x00\x04\x20",
}

// isPKCS1 reports whether em is the encoding of digest (RFC 8017, section 9.2). The
// parameters of the hash may be missing, which is the same (note 2 there).
func isPKCS1(em []byte, prefix string, digest []byte) bool {
	if padded(em, prefix, digest) {
		return true
	}
	if len(prefix) == 0 {
		return false
	}
	var room [24]byte
	bare := append(room[:0], prefix[:len(prefix)-4]...) // without NULL, and what is behind it
	bare = append(bare, prefix[len(prefix)-2:]...)
	bare[1] -= 2
	bare[3] -= 2
	return padded(em, string(bare), digest)
}

// padded reports whether em is 0x00 0x01, at least eight of 0xff, 0x00, prefix and
// digest.
func padded(em []byte, prefix string, digest []byte) bool {
	fill := len(em) - 3 - len(prefix) - len(digest)
	if fill < 8 || em[0] != 0 || em[1] != 1 {
		return false
	}
	for _, x := range em[2 : 2+fill] {
		if x != 0xff {
			return false
		}
	}
	end := em[2+fill:]
	return end[0] == 0 && string(end[1:1+len(prefix)]) == prefix && bytes.Equal(end[1+len(prefix):], digest)
}

// isPSS reports whether em is an encoding of digest (RFC 8017, section 9.1.2). It
// changes em. bits is the length of the modulus.
func isPSS(em []byte, bits int, s Scheme, digest []byte) bool {
	if bits%8 == 1 { // the encoding is an octet shorter than the modulus
		if em[0] != 0 {
			return false
		}
		em = em[1:]
	}
	hash := len(digest)
	if len(em) < hash+2 || em[len(em)-1] != 0xbc {
		return false
	}
	db, h := em[:len(em)-hash-1], em[len(em)-hash-1:len(em)-1]
	top := byte(0xff) >> (8*len(em) - (bits - 1))
	if db[0]&^top != 0 {
		return false
	}
	unmask(db, s.MGF, h)
	db[0] &= top
	pad := bytes.IndexByte(db, 1)
	if pad < 0 {
		return false
	}
	for _, x := range db[:pad] {
		if x != 0 {
			return false
		}
	}
	salt := db[pad+1:]
	if s.Salt != SaltAny && len(salt) != s.Salt {
		return false
	}
	x := s.Hash.New()
	x.Write(make([]byte, 8))
	x.Write(digest)
	x.Write(salt)
	return bytes.Equal(x.Sum(nil), h)
}

// unmask removes the mask that MGF1 makes of seed (RFC 8017, appendix B.2.1).
func unmask(b []byte, h crypto.Hash, seed []byte) {
	x := h.New()
	var counter [4]byte
	var room [64]byte
	for n := uint32(0); len(b) > 0; n++ {
		binary.BigEndian.PutUint32(counter[:], n)
		x.Reset()
		x.Write(seed)
		x.Write(counter[:])
		for i, m := range x.Sum(room[:0]) {
			if i == len(b) {
				return
			}
			b[i] ^= m
		}
		b = b[min(len(b), h.Size()):]
	}
}

// verifyDSA verifies a Dss-Sig-Value (RFC 3279, section 2.2.2). The hash counts as
// far as the subgroup is long (FIPS 186-4, section 4.7).
func verifyDSA(k *dsa.PublicKey, digest, sig []byte) bool {
	seq, rest, ok := read(sig, tagSequence)
	r, seq, ok1 := read(seq, tagInteger)
	s, seq, ok2 := read(seq, tagInteger)
	bits := k.Q.BitLen()
	if !ok || !ok1 || !ok2 || len(rest) > 0 || len(seq) > 0 || bitLength(r) > bits || bitLength(s) > bits {
		return false
	}
	x, y := number(r), number(s)
	return x != nil && y != nil && dsa.Verify(k, digest[:min(len(digest), bits/8)], x, y)
}
