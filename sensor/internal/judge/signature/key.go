// Package signature reads the public keys of certificates, and verifies with them
// what certificates and servers sign. It takes keys that crypto/x509 and crypto/rsa
// refuse as too weak, for whether a weak key was used is what is asked here, and it
// refuses those that would cost too much. All of it is about public data, so nothing
// takes care to run in constant time.
package signature

import (
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"
	"math/bits"

	"github.com/oddcert/oddcert/parsers/cert"
)

// The errors. What is returned wraps one of them, and says what exactly it is.
var (
	ErrMismatch    = errors.New("not signed with this key") // also where it cannot be read
	ErrUnsupported = errors.New("unsupported")
	ErrTooCostly   = errors.New("too costly")
	ErrMalformed   = errors.New("malformed") // of keys and algorithm identifiers
)

// Key is a public key of a certificate, or a raw one (RFC 7250). It is immutable
// and refers to no bytes of the caller's.
type Key struct {
	algorithm string
	bits      int

	rsa     *rsaKey
	ecdsa   *ecdsa.PublicKey
	dsa     *dsa.PublicKey
	ed25519 ed25519.PublicKey
}

// rsaKey is a key of RSA with a positive odd modulus and an odd exponent above 1.
type rsaKey struct {
	n, e *big.Int
}

// Algorithm is the name of the algorithm, as [cert.Certificate] has it: "RSA",
// "RSASSA-PSS", "ECDSA", "DSA" or "Ed25519".
func (k *Key) Algorithm() string { return k.algorithm }

// Bits is the length of the modulus, of the prime, or of a coordinate, in bits.
func (k *Key) Bits() int { return k.bits }

// KeyOf returns the key of a certificate. Whatever else is wrong with the
// certificate does not matter.
func KeyOf(c *cert.Certificate) (*Key, error) {
	parts, ok := c.Parts()
	if !ok {
		return nil, malformed("the certificate cannot be read as far as its key")
	}
	return ParseKey(parts.PublicKey)
}

// The algorithms of keys and the named curves, the contents of their object
// identifiers.
const (
	oidRSA     = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01" // RFC 3279, section 2.3.1
	oidRSAPSS  = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a" // RFC 4055, section 1.2
	oidDSA     = "\x2a\x86\x48\xce\x38\x04\x01"         // RFC 3279, section 2.3.2
	oidEC      = "\x2a\x86\x48\xce\x3d\x02\x01"         // RFC 5480, section 2.1.1
	oidEd25519 = "\x2b\x65\x70"                         // RFC 8410, section 3

	oidP224 = "\x2b\x81\x04\x00\x21"
	oidP256 = "\x2a\x86\x48\xce\x3d\x03\x01\x07"
	oidP384 = "\x2b\x81\x04\x00\x22"
	oidP521 = "\x2b\x81\x04\x00\x23"
)

// ParseKey reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in DER, or in
// what BER has besides of definite lengths. What spki holds beyond it is ignored.
func ParseKey(spki []byte) (*Key, error) {
	info, _, ok := read(spki, tagSequence)
	algorithm, rest, ok1 := read(info, tagSequence)
	oid, params, ok2 := read(algorithm, tagOID)
	value, _, ok3 := read(rest, tagBitString)
	if !ok || !ok1 || !ok2 || !ok3 || len(value) == 0 || value[0] != 0 {
		return nil, malformed("not a SubjectPublicKeyInfo")
	}
	value = value[1:]
	switch string(oid) {
	case oidRSA:
		return parseRSA("RSA", value)
	case oidRSAPSS:
		return parseRSA("RSASSA-PSS", value)
	case oidDSA:
		return parseDSA(params, value)
	case oidEC:
		return parseEC(params, value)
	case oidEd25519:
		if len(value) != ed25519.PublicKeySize {
			return nil, malformed("an Ed25519 key of %d bytes", len(value))
		}
		return &Key{algorithm: "Ed25519", bits: 256, ed25519: append(ed25519.PublicKey(nil), value...)}, nil
	}
	return nil, unsupported("keys of algorithm %s", dots(oid))
}

// parseRSA reads an RSAPublicKey (RFC 8017, appendix A.1.1).
func parseRSA(algorithm string, b []byte) (*Key, error) {
	seq, _, ok := read(b, tagSequence)
	modulus, seq, ok1 := read(seq, tagInteger)
	exponent, _, ok2 := read(seq, tagInteger)
	if !ok || !ok1 || !ok2 {
		return nil, malformed("not an RSAPublicKey")
	}
	if bitLength(modulus) > maxModulus || bitLength(exponent) > maxExponent {
		return nil, tooCostly("an RSA key of %d bits with an exponent of %d", bitLength(modulus), bitLength(exponent))
	}
	n, e := number(modulus), number(exponent)
	switch {
	case n == nil || e == nil:
		return nil, malformed("the RSA modulus or exponent is not positive")
	case n.Bit(0) == 0 || e.Bit(0) == 0 || e.Cmp(one) == 0:
		return nil, malformed("the RSA modulus is even, or the exponent is even or 1")
	case e.Cmp(n) >= 0:
		return nil, malformed("the RSA exponent is larger than the modulus")
	}
	if cost := rsaCost(n, e); cost > maxCost {
		return nil, tooCostly("an RSA key of %d bits with an exponent of %d", n.BitLen(), e.BitLen())
	}
	return &Key{algorithm: algorithm, bits: n.BitLen(), rsa: &rsaKey{n, e}}, nil
}

var one = big.NewInt(1)

// rsaCost is how many products of words an operation takes, about: so many for each
// squaring, of which there are as many as bits in e, and multiplication, of which
// there are as many as ones.
func rsaCost(n, e *big.Int) int {
	words := (n.BitLen() + 63) / 64
	return words * words * (e.BitLen() + bits.OnesCount64(e.Uint64()))
}

// parseDSA reads a DSA key and its Dss-Parms (RFC 3279, section 2.3.2).
func parseDSA(params, b []byte) (*Key, error) {
	if len(params) == 0 || params[0] == tagNull {
		return nil, unsupported("a DSA key with the parameters of its issuer")
	}
	seq, _, ok := read(params, tagSequence)
	p, seq, ok1 := read(seq, tagInteger)
	q, seq, ok2 := read(seq, tagInteger)
	g, _, ok3 := read(seq, tagInteger)
	y, _, ok4 := read(b, tagInteger)
	if !ok || !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, malformed("not a DSA key with its parameters")
	}
	if bitLength(p) > maxPrime {
		return nil, tooCostly("a DSA key of %d bits", bitLength(p))
	}
	if bits := bitLength(q); bits != 160 && bits != 224 && bits != 256 { // FIPS 186-4, section 4.2
		return nil, unsupported("a DSA key with a subgroup of %d bits", bits)
	}
	for _, x := range [][]byte{g, y} {
		if bitLength(x) > bitLength(p) {
			return nil, malformed("a number of the DSA key is larger than its prime")
		}
	}
	k := &dsa.PublicKey{Parameters: dsa.Parameters{P: number(p), Q: number(q), G: number(g)}, Y: number(y)}
	if k.P == nil || k.Q == nil || k.G == nil || k.Y == nil {
		return nil, malformed("a number of the DSA key is not positive")
	}
	if k.P.Bit(0) == 0 || k.Q.Bit(0) == 0 || k.Q.Cmp(k.P) >= 0 ||
		k.G.Cmp(one) <= 0 || k.G.Cmp(k.P) >= 0 || k.Y.Cmp(one) <= 0 || k.Y.Cmp(k.P) >= 0 {
		return nil, malformed("the numbers of the DSA key do not fit together")
	}
	return &Key{algorithm: "DSA", bits: k.P.BitLen(), dsa: k}, nil
}

// parseEC reads a point on a named curve (RFC 5480, section 2.2).
func parseEC(params, point []byte) (*Key, error) {
	if len(params) > 0 && params[0] == tagSequence {
		return nil, unsupported("a curve given by its parameters")
	}
	oid, _, ok := read(params, tagOID)
	if !ok {
		return nil, malformed("an elliptic curve key without a curve")
	}
	var curve elliptic.Curve
	switch string(oid) {
	case oidP224:
		curve = elliptic.P224()
	case oidP256:
		curve = elliptic.P256()
	case oidP384:
		curve = elliptic.P384()
	case oidP521:
		curve = elliptic.P521()
	default:
		return nil, unsupported("the curve %s", dots(oid))
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(point) == 1+size && (point[0] == 2 || point[0] == 3) { // compressed: SEC 1, section 2.3.4
		x, y := elliptic.UnmarshalCompressed(curve, point)
		if x == nil {
			return nil, malformed("the point is not on the curve %s", curve.Params().Name)
		}
		point = make([]byte, 1+2*size)
		point[0] = 4
		x.FillBytes(point[1 : 1+size])
		y.FillBytes(point[1+size:])
	}
	k, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, malformed("the point is not on the curve %s", curve.Params().Name)
	}
	return &Key{algorithm: "ECDSA", bits: curve.Params().BitSize, ecdsa: k}, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func tooCostly(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrTooCostly}, args...)...)
}

func mismatch(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMismatch}, args...)...)
}
