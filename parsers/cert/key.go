package cert

import "golang.org/x/crypto/cryptobyte/asn1"

const oidMGF1 = "1.2.840.113549.1.1.8"

// pssHash is a hash function that RSASSA-PSS can have.
type pssHash struct {
	name string
	salt byte // as long as the hash
}

// pssHashes has them by name in the manner of crypto/x509, which has names for
// the last three.
var pssHashes = map[string]pssHash{
	oidSHA1:                   {"SHA1-RSAPSS", 20},
	"2.16.840.1.101.3.4.2.4":  {"SHA224-RSAPSS", 28},
	"2.16.840.1.101.3.4.2.5":  {"SHA512/224-RSAPSS", 28},
	"2.16.840.1.101.3.4.2.6":  {"SHA512/256-RSAPSS", 32},
	"2.16.840.1.101.3.4.2.7":  {"SHA3-224-RSAPSS", 28},
	"2.16.840.1.101.3.4.2.8":  {"SHA3-256-RSAPSS", 32},
	"2.16.840.1.101.3.4.2.9":  {"SHA3-384-RSAPSS", 48},
	"2.16.840.1.101.3.4.2.10": {"SHA3-512-RSAPSS", 64},
	"2.16.840.1.101.3.4.2.1":  {"SHA256-RSAPSS", 32},
	"2.16.840.1.101.3.4.2.2":  {"SHA384-RSAPSS", 48},
	"2.16.840.1.101.3.4.2.3":  {"SHA512-RSAPSS", 64},
}

const oidSHA1 = "1.3.14.3.2.26"

// signatureAlgorithm names the contents of an AlgorithmIdentifier (RFC 5280,
// section 4.1.1.2).
func (p *parser) signatureAlgorithm(b []byte) string {
	dots, ok := p.oid(&b, "signatureAlgorithm")
	if !ok {
		return ""
	}
	oid := string(dots)
	if oid == oidRSAPSS {
		return pssName(b)
	}
	if name, ok := signatureAlgorithms[oid]; ok {
		return name
	}
	if name, ok := otherSignatures[oid]; ok {
		return name
	}
	if kind, ok := keyAlgorithms[oid]; ok {
		return kind.name
	}
	return oid
}

// pssName reads RSASSA-PSS-params (RFC 4055, section 3.1), whose fields are those
// of SHA-1 where they are left out. A name stands for one hash function in both
// places and a salt of its length; other parameters have none of their own.
func pssName(b []byte) string {
	const other = "RSAPSS"
	q := parser{c: new(Certificate)} // its problems only mean that there is no name
	var params element
	if len(b) > 0 {
		params, _ = q.expect(&b, asn1.SEQUENCE, "")
	}
	field := func(n, inner asn1.Tag) ([]byte, bool) {
		n = n.Constructed().ContextSpecific()
		if len(params.content) == 0 || asn1.Tag(params.content[0]) != n {
			return nil, false
		}
		e, _ := q.expect(&params.content, n, "")
		e, _ = q.whole(&e.content, inner, "")
		return e.content, true
	}
	oid := func(b *[]byte) string {
		dots, _ := q.oid(b, "")
		return string(dots)
	}
	hash, mgfHash, salt := oidSHA1, oidSHA1, []byte{20}
	if b, ok := field(0, asn1.SEQUENCE); ok {
		hash = oid(&b)
	}
	if b, ok := field(1, asn1.SEQUENCE); ok {
		if oid(&b) != oidMGF1 {
			return other
		}
		e, _ := q.expect(&b, asn1.SEQUENCE, "")
		mgfHash = oid(&e.content)
	}
	if b, ok := field(2, asn1.INTEGER); ok {
		salt = b
	}
	known, ok := pssHashes[hash]
	if !ok || q.c.ParseError != "" || len(params.content) > 0 || // the default trailer
		mgfHash != hash || len(salt) != 1 || salt[0] != known.salt {
		return other
	}
	return known.name
}

// publicKey reads the contents of a SubjectPublicKeyInfo (RFC 5280, section
// 4.1.2.7).
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
	kind, ok := keyAlgorithms[oid]
	if !ok {
		c.PublicKeyAlgorithm = oid
		return
	}
	c.PublicKeyAlgorithm = kind.name
	switch oid {
	case oidRSA, oidRSAPSS, oidRSAOAEP: // RFC 3279, section 2.3.1; RFC 4055, sections 1.2 and 4
		key, ok := p.keyBits(&b, field)
		if !ok {
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
	case oidDSA, oidDSAOIW, oidDH, oidDHPKCS3: // RFC 3279, sections 2.3.2 and 2.3.3: the prime comes first
		if len(params) == 0 || asn1.Tag(params[0]) == asn1.NULL { // inherited from the issuer
			return
		}
		if e, ok := p.expect(&params, asn1.SEQUENCE, field); ok {
			c.PublicKeySize = bitLength(p.positive(&e.content, field))
		}
	case oidEC, oidECDH, oidECMQV: // RFC 5480
		p.curve(params, field)
		switch { // an SM2 key is told by its curve (GM/T 0006)
		case oid == oidEC && c.PublicKeyCurve == curves[oidSM2].name:
			c.PublicKeyAlgorithm = keyAlgorithms[oidSM2].name
		case algorithm.cut && c.PublicKeyCurve == "":
			c.PublicKeyAlgorithm = ""
		}
	case oidSM2:
		c.PublicKeyCurve, c.PublicKeySize = curves[oidSM2].name, curves[oidSM2].bits
	case oidGOST94: // RFC 4491, section 2.3.1
		c.PublicKeySize = 1024
	case oidGOST2001, oidGOST256, oidGOST512: // RFC 4491, section 2.3.2; RFC 9215, section 4
		c.PublicKeySize = 256
		if oid == oidGOST512 {
			c.PublicKeySize = 512
		}
		if len(params) == 0 || asn1.Tag(params[0]) == asn1.NULL { // inherited from the issuer
			return
		}
		if e, ok := p.expect(&params, asn1.SEQUENCE, field); ok {
			if set, ok := p.oid(&e.content, field); ok {
				c.PublicKeyCurve = curveOf(set).name
			}
		}
	default:
		c.PublicKeySize = 8 * kind.octets
		if key, ok := p.keyBits(&b, field); ok && kind.octets == 0 {
			c.PublicKeySize = 8 * len(key)
		} else if ok && len(key) != kind.octets {
			p.note(field, "key of a wrong length")
		}
	}
}

// keyBits takes subjectPublicKey off b.
func (p *parser) keyBits(b *[]byte, field string) ([]byte, bool) {
	e, ok := p.whole(b, asn1.BIT_STRING, field)
	if !ok {
		return nil, false
	}
	key, unused, ok := bitString(e.content)
	if !ok || unused != 0 {
		p.note(field, "bad bit string")
		return nil, false
	}
	return key, true
}

// curve reads ECParameters (RFC 5480, section 2.1.1).
func (p *parser) curve(params []byte, field string) {
	c := p.c
	if len(params) > 0 && asn1.Tag(params[0]) == asn1.SEQUENCE {
		c.PublicKeyCurve = "explicit"
		p.note(field, "explicit curve")
		c.PublicKeySize = explicitSize(params)
		return
	}
	if oid, ok := p.oid(&params, field); ok {
		known := curveOf(oid)
		c.PublicKeyCurve, c.PublicKeySize = known.name, known.bits
	}
}

// curveOf finds a curve by the dots of its object identifier, which are its name
// when it is not known.
func curveOf(oid []byte) curve {
	known, ok := curves[string(oid)]
	if !ok {
		known.name = string(oid)
	}
	return known
}

// explicitSize is the length in bits of the prime in ECParameters (SEC 1,
// appendix C.2), 0 for other fields.
func explicitSize(b []byte) int {
	var q parser // its problems change nothing
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
