package cert

import "golang.org/x/crypto/cryptobyte/asn1"

// signatureAlgorithms has crypto/x509's names. RSASSA-PSS is not among them:
// its name depends on the parameters.
var signatureAlgorithms = map[string]string{
	"1.2.840.113549.1.1.4":   "MD5-RSA",
	"1.2.840.113549.1.1.5":   "SHA1-RSA",
	"1.3.14.3.2.29":          "SHA1-RSA", // of ISO/IEC JTC1
	"1.2.840.113549.1.1.11":  "SHA256-RSA",
	"1.2.840.113549.1.1.12":  "SHA384-RSA",
	"1.2.840.113549.1.1.13":  "SHA512-RSA",
	"1.2.840.10040.4.3":      "DSA-SHA1",
	"2.16.840.1.101.3.4.3.2": "DSA-SHA256",
	"1.2.840.10045.4.1":      "ECDSA-SHA1",
	"1.2.840.10045.4.3.2":    "ECDSA-SHA256",
	"1.2.840.10045.4.3.3":    "ECDSA-SHA384",
	"1.2.840.10045.4.3.4":    "ECDSA-SHA512",
	"1.3.101.112":            "Ed25519",
}

const (
	oidRSA    = "1.2.840.113549.1.1.1"
	oidRSAPSS = "1.2.840.113549.1.1.10"
	oidMGF1   = "1.2.840.113549.1.1.8"
)

// pssHashes are the hash functions with which RSASSA-PSS has a name, when the
// salt is as long as the hash.
var pssHashes = map[string]struct {
	name string
	salt byte
}{
	"2.16.840.1.101.3.4.2.1": {"SHA256-RSAPSS", 32},
	"2.16.840.1.101.3.4.2.2": {"SHA384-RSAPSS", 48},
	"2.16.840.1.101.3.4.2.3": {"SHA512-RSAPSS", 64},
}

// signatureAlgorithm names the contents of an AlgorithmIdentifier (RFC 5280,
// section 4.1.1.2).
func (p *parser) signatureAlgorithm(b []byte) string {
	oid, ok := p.oid(&b, "signatureAlgorithm")
	if !ok {
		return ""
	}
	if string(oid) == oidRSAPSS {
		if name, ok := pssName(b); ok {
			return name
		}
	}
	if name, ok := signatureAlgorithms[string(oid)]; ok {
		return name
	}
	return string(oid)
}

// pssName reads RSASSA-PSS-params (RFC 4055, section 3.1).
func pssName(b []byte) (string, bool) {
	q := parser{c: new(Certificate)} // its problems only mean that there is no name
	params, _ := q.expect(&b, asn1.SEQUENCE, "")
	field := func(n, inner asn1.Tag) []byte {
		e, _ := q.expect(&params.content, n.Constructed().ContextSpecific(), "")
		e, _ = q.whole(&e.content, inner, "")
		return e.content
	}
	hash := field(0, asn1.SEQUENCE)
	mgf := field(1, asn1.SEQUENCE)
	salt := field(2, asn1.INTEGER)
	oid := func(b *[]byte) string {
		dots, _ := q.oid(b, "")
		return string(dots)
	}
	hashOID, mgfOID := oid(&hash), oid(&mgf)
	mgfHash, _ := q.expect(&mgf, asn1.SEQUENCE, "")
	mgfHashOID := oid(&mgfHash.content)
	known, ok := pssHashes[hashOID]
	return known.name, ok && q.c.ParseError == "" && len(params.content) == 0 && // the default trailer
		mgfOID == oidMGF1 && mgfHashOID == hashOID && len(salt) == 1 && salt[0] == known.salt
}

// curves has the name and the size of a field element, in bits.
var curves = map[string]struct {
	name string
	bits int
}{
	"1.2.840.10045.3.1.1":   {"P-192", 192},
	"1.3.132.0.33":          {"P-224", 224},
	"1.2.840.10045.3.1.7":   {"P-256", 256},
	"1.3.132.0.34":          {"P-384", 384},
	"1.3.132.0.35":          {"P-521", 521},
	"1.3.132.0.10":          {"secp256k1", 256},
	"1.3.36.3.3.2.8.1.1.7":  {"brainpoolP256r1", 256},
	"1.3.36.3.3.2.8.1.1.11": {"brainpoolP384r1", 384},
	"1.3.36.3.3.2.8.1.1.13": {"brainpoolP512r1", 512},
	"1.2.156.10197.1.301":   {"SM2", 256},
}

// publicKey reads the contents of a SubjectPublicKeyInfo (RFC 5280, section
// 4.1.2.7; RFC 3279, section 2.3; RFC 5480; RFC 8410).
func (p *parser) publicKey(b []byte) {
	const field = "subjectPublicKeyInfo"
	c := p.c
	algorithm, ok := p.expect(&b, asn1.SEQUENCE, field)
	if !ok {
		return
	}
	dots, ok := p.oid(&algorithm.content, field)
	if !ok {
		return
	}
	oid, params := string(dots), algorithm.content
	c.PublicKeyAlgorithm = oid
	switch oid {
	case oidRSA, oidRSAPSS:
		if oid == oidRSA {
			c.PublicKeyAlgorithm = "RSA"
		}
		e, ok := p.whole(&b, asn1.BIT_STRING, field)
		if !ok {
			return
		}
		key, unused, ok := bitString(e.content)
		if !ok || unused != 0 {
			p.note(field, "bad bit string")
			return
		}
		if e, ok := p.expect(&key, asn1.SEQUENCE, field); ok { // RFC 8017, appendix A.1.1
			c.PublicKeySize = bitLength(p.positive(&e.content, field))
			exponent := p.positive(&e.content, field)
			if bitLength(exponent) <= 64 {
				for _, x := range exponent {
					c.PublicKeyExponent = c.PublicKeyExponent<<8 | uint64(x)
				}
			}
		}
	case "1.2.840.10040.4.1":
		c.PublicKeyAlgorithm = "DSA"
		if len(params) == 0 { // inherited from the issuer
			return
		}
		if e, ok := p.expect(&params, asn1.SEQUENCE, field); ok {
			c.PublicKeySize = bitLength(p.positive(&e.content, field))
		}
	case "1.2.840.10045.2.1":
		c.PublicKeyAlgorithm = "ECDSA"
		if len(params) > 0 && asn1.Tag(params[0]) == asn1.SEQUENCE {
			c.PublicKeyCurve = "explicit"
			p.note(field, "explicit curve")
			c.PublicKeySize = explicitSize(params)
			return
		}
		if oid, ok := p.oid(&params, field); ok {
			curve, known := curves[string(oid)]
			if !known {
				curve.name = string(oid)
			}
			c.PublicKeyCurve, c.PublicKeySize = curve.name, curve.bits
		}
	case "1.3.101.112":
		c.PublicKeyAlgorithm = "Ed25519"
		c.PublicKeySize = 256
	}
}

// explicitSize is the length in bits of the prime in ECParameters (SEC 1,
// appendix C.2), 0 for other fields.
func explicitSize(b []byte) int {
	q := parser{c: new(Certificate)} // its problems change nothing
	params, _ := q.expect(&b, asn1.SEQUENCE, "")
	q.whole(&params.content, asn1.INTEGER, "")
	fieldID, _ := q.expect(&params.content, asn1.SEQUENCE, "")
	q.oid(&fieldID.content, "")
	return bitLength(q.positive(&fieldID.content, ""))
}

// positive takes an INTEGER off b that must be more than zero, and returns its
// magnitude.
func (p *parser) positive(b *[]byte, field string) []byte {
	e, ok := p.whole(b, asn1.INTEGER, field)
	if !ok {
		return nil
	}
	octets, negative := magnitude(e.content)
	if negative || bitLength(octets) == 0 {
		p.note(field, "number not positive")
	}
	return octets
}

// bitString splits the contents of a BIT STRING (X.690, section 8.6) into its
// octets and the count of unused bits in the last.
func bitString(b []byte) (octets []byte, unused int, ok bool) {
	if len(b) == 0 || b[0] > 7 || len(b) == 1 && b[0] != 0 {
		return nil, 0, false
	}
	return b[1:], int(b[0]), true
}
