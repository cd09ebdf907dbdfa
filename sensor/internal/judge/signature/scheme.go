package signature

import (
	"bytes"
	"crypto"
)

// Kind is a way to sign.
type Kind uint8

// The kinds.
const (
	PKCS1   Kind = iota // RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2)
	PSS                 // RSASSA-PSS (RFC 8017, section 8.1)
	ECDSA               // FIPS 186-4, section 6.4
	DSA                 // FIPS 186-4, section 4.7
	Ed25519             // RFC 8032, section 5.1
)

// String is the name of k for people.
func (k Kind) String() string {
	return [...]string{"RSA", "RSA-PSS", "ECDSA", "DSA", "Ed25519"}[k]
}

// SaltAny says that a salt of any length is good.
const SaltAny = -1

// Scheme is how something was signed.
type Scheme struct {
	Kind Kind
	Hash crypto.Hash // [crypto.MD5SHA1] in TLS before 1.2; 0 for Ed25519
	MGF  crypto.Hash // hash of the mask in RSA-PSS
	Salt int         // its length in bytes in RSA-PSS, or [SaltAny]
}

// String is the name of s for people, such as "RSA-PSS with SHA-256".
func (s Scheme) String() string {
	if s.Kind == Ed25519 {
		return "Ed25519"
	}
	if s.Hash == crypto.MD5SHA1 {
		return s.Kind.String() + " with MD5 and SHA-1"
	}
	return s.Kind.String() + " with " + s.Hash.String()
}

// fits reports whether k signs in the way of s.
func (s Scheme) fits(k *Key) bool {
	switch s.Kind {
	case PKCS1, PSS: // a key for RSASSA-PSS alone should not sign as PKCS1 does, but it can
		return k.rsa != nil
	case ECDSA:
		return k.ecdsa != nil
	case DSA:
		return k.dsa != nil
	default:
		return k.ed25519 != nil
	}
}

// tlsHashes are those of TLS 1.2 (RFC 5246, section 7.4.1.4.1).
var tlsHashes = [...]crypto.Hash{1: crypto.MD5, crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// SchemeOfTLS is what scheme, a SignatureScheme (RFC 8446, section 4.2.3), stands
// for, or 0 for what TLS before 1.2 signs with k (RFC 4346, section 7.4.3; RFC 8422,
// section 5.4). It is an error wrapping [ErrMismatch] if k cannot sign like that.
func SchemeOfTLS(scheme uint16, k *Key) (Scheme, error) {
	var s Scheme
	hash, kind := scheme>>8, scheme&0xff
	switch {
	case scheme == 0 && k.rsa != nil:
		return Scheme{Kind: PKCS1, Hash: crypto.MD5SHA1}, nil
	case scheme == 0 && k.ecdsa != nil:
		return Scheme{Kind: ECDSA, Hash: crypto.SHA1}, nil
	case scheme == 0 && k.dsa != nil:
		return Scheme{Kind: DSA, Hash: crypto.SHA1}, nil
	case scheme == 0:
		return s, unsupported("%s before TLS 1.2", k.algorithm)
	case hash >= 1 && int(hash) < len(tlsHashes) && kind >= 1 && kind <= 3:
		s = Scheme{Kind: [...]Kind{1: PKCS1, DSA, ECDSA}[kind], Hash: tlsHashes[hash]}
	case scheme >= 0x0804 && scheme <= 0x0806:
		s = pss(tlsHashes[4+scheme-0x0804])
	case scheme >= 0x0809 && scheme <= 0x080b:
		s = pss(tlsHashes[4+scheme-0x0809])
	case scheme == 0x0807:
		s = Scheme{Kind: Ed25519}
	default:
		return s, unsupported("the signature scheme 0x%04x", scheme)
	}
	if !s.fits(k) {
		return s, mismatch("the signature is %s, the key is %s", s.Kind, k.algorithm)
	}
	return s, nil
}

// pss is RSA-PSS with one hash, and a salt of its length (RFC 8446, section 4.2.3).
func pss(h crypto.Hash) Scheme { return Scheme{Kind: PSS, Hash: h, MGF: h, Salt: h.Size()} }

const oidMGF1 = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"

// certificateSchemes has the algorithms of signatures without parameters by the
// contents of their object identifiers.
var certificateSchemes = map[string]Scheme{
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04": {Kind: PKCS1, Hash: crypto.MD5},
	"\x2b\x0e\x03\x02\x03":                 {Kind: PKCS1, Hash: crypto.MD5}, // of OIW, as the next but one
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05": {Kind: PKCS1, Hash: crypto.SHA1},
	"\x2b\x0e\x03\x02\x1d":                 {Kind: PKCS1, Hash: crypto.SHA1},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e": {Kind: PKCS1, Hash: crypto.SHA224},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b": {Kind: PKCS1, Hash: crypto.SHA256},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c": {Kind: PKCS1, Hash: crypto.SHA384},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d": {Kind: PKCS1, Hash: crypto.SHA512},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0f": {Kind: PKCS1, Hash: crypto.SHA512_224},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x10": {Kind: PKCS1, Hash: crypto.SHA512_256},
	"\x2a\x86\x48\xce\x38\x04\x03":         {Kind: DSA, Hash: crypto.SHA1},
	"\x2b\x0e\x03\x02\x1b":                 {Kind: DSA, Hash: crypto.SHA1},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x01": {Kind: DSA, Hash: crypto.SHA224},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x02": {Kind: DSA, Hash: crypto.SHA256},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x03": {Kind: DSA, Hash: crypto.SHA384},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x04": {Kind: DSA, Hash: crypto.SHA512},
	"\x2a\x86\x48\xce\x3d\x04\x01":         {Kind: ECDSA, Hash: crypto.SHA1},
	"\x2a\x86\x48\xce\x3d\x04\x03\x01":     {Kind: ECDSA, Hash: crypto.SHA224},
	"\x2a\x86\x48\xce\x3d\x04\x03\x02":     {Kind: ECDSA, Hash: crypto.SHA256},
	"\x2a\x86\x48\xce\x3d\x04\x03\x03":     {Kind: ECDSA, Hash: crypto.SHA384},
	"\x2a\x86\x48\xce\x3d\x04\x03\x04":     {Kind: ECDSA, Hash: crypto.SHA512},
	oidEd25519:                             {Kind: Ed25519},
}

var hashes = map[string]crypto.Hash{
	"\x2b\x0e\x03\x02\x1a":                 crypto.SHA1,
	"\x2a\x86\x48\x86\xf7\x0d\x02\x05":     crypto.MD5,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x04": crypto.SHA224,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x01": crypto.SHA256,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x02": crypto.SHA384,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x03": crypto.SHA512,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x05": crypto.SHA512_224,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x06": crypto.SHA512_256,
}

// SchemeOfCertificate reads an AlgorithmIdentifier (RFC 5280, section 4.1.1.2) in
// DER, for RSASSA-PSS with its parameters.
func SchemeOfCertificate(algorithmIdentifier []byte) (Scheme, error) {
	b, _, ok := read(algorithmIdentifier, tagSequence)
	oid, params, ok1 := read(b, tagOID)
	if !ok || !ok1 {
		return Scheme{}, malformed("not an AlgorithmIdentifier")
	}
	if string(oid) == oidRSAPSS {
		return pssScheme(params)
	}
	if s, ok := certificateSchemes[string(oid)]; ok {
		return s, nil
	}
	return Scheme{}, unsupported("the signature algorithm %s", dots(oid))
}

// pssScheme reads RSASSA-PSS-params (RFC 4055, section 3.1). The fields that are
// left out are those of SHA-1. The length of the salt is taken from the signature.
func pssScheme(b []byte) (Scheme, error) {
	s := Scheme{Kind: PSS, Hash: crypto.SHA1, MGF: crypto.SHA1, Salt: SaltAny}
	bad := malformed("not the parameters of RSASSA-PSS")
	params, _, ok := read(b, tagSequence)
	if !ok && len(b) > 0 {
		return s, bad
	}
	field := func(n byte) []byte {
		content, rest, ok := read(params, 0xa0|n)
		if ok {
			params = rest
		}
		return content
	}
	algorithm := func(b []byte) (oid, rest []byte) {
		seq, _, _ := read(b, tagSequence)
		oid, rest, _ = read(seq, tagOID)
		return oid, rest
	}
	if b := field(0); b != nil {
		oid, _ := algorithm(b)
		if s.Hash, ok = hashes[string(oid)]; !ok {
			return s, unsupported("RSA-PSS with the hash %s", dots(oid))
		}
	}
	if b := field(1); b != nil {
		oid, rest := algorithm(b)
		if string(oid) != oidMGF1 {
			return s, unsupported("RSA-PSS with the mask %s", dots(oid))
		}
		oid, _ = algorithm(rest)
		if s.MGF, ok = hashes[string(oid)]; !ok {
			return s, unsupported("RSA-PSS with the mask hash %s", dots(oid))
		}
	}
	field(2) // saltLength
	if b := field(3); b != nil && !bytes.Equal(b, []byte{tagInteger, 1, 1}) {
		return s, unsupported("RSA-PSS with another trailer")
	}
	if len(params) > 0 {
		return s, bad
	}
	return s, nil
}
