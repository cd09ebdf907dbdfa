package transparency

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/cert"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Contents of object identifiers.
var (
	oidTimestamps     = []byte{0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2} // RFC 6962, section 3.3
	oidOCSPTimestamps = []byte{0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 5}
)

// Tags of optional parts of a TBSCertificate (RFC 5280, section 4.1).
var (
	tagVersion    = asn1.Tag(0).Constructed().ContextSpecific()
	tagIssuerID   = asn1.Tag(1).ContextSpecific()
	tagSubjectID  = asn1.Tag(2).ContextSpecific()
	tagExtensions = asn1.Tag(3).Constructed().ContextSpecific()
)

// body is what is read of a TBSCertificate. It refers to the bytes of it.
type body struct {
	serial    []byte // contents of the INTEGER
	issuer    []byte // the Name, whole
	subject   []byte // likewise
	key       []byte // SubjectPublicKeyInfo, whole
	timeless  []byte // the TBSCertificate without the timestamps: what the logs signed
	stamps    []byte // the SignedCertificateTimestampList; nil without one
	malformed bool   // there is an extension for timestamps that cannot be read, or several
}

// readBody reads a TBSCertificate. It is false for what is not DER: then nobody knows
// what the logs signed.
func readBody(tbs []byte) (b body, ok bool) {
	var whole, left, front, extensions cryptobyte.String
	var serial, issuer, subject, key cryptobyte.String
	s := cryptobyte.String(tbs)
	if !s.ReadASN1(&whole, asn1.SEQUENCE) || !s.Empty() {
		return b, false
	}
	left = whole
	hasExtensions := false
	if !left.SkipOptionalASN1(tagVersion) || !left.ReadASN1(&serial, asn1.INTEGER) || !left.SkipASN1(asn1.SEQUENCE) ||
		!left.ReadASN1Element(&issuer, asn1.SEQUENCE) || !left.SkipASN1(asn1.SEQUENCE) ||
		!left.ReadASN1Element(&subject, asn1.SEQUENCE) || !left.ReadASN1Element(&key, asn1.SEQUENCE) ||
		!left.SkipOptionalASN1(tagIssuerID) || !left.SkipOptionalASN1(tagSubjectID) {
		return b, false
	}
	front = whole[:len(whole)-len(left)]
	if !left.ReadOptionalASN1(&extensions, &hasExtensions, tagExtensions) || !left.Empty() {
		return b, false
	}
	b = body{serial: serial, issuer: issuer, subject: subject, key: key, timeless: tbs}
	if !hasExtensions {
		return b, true
	}
	rest, value, found, ok := without(extensions, oidTimestamps)
	if !ok {
		return b, false
	}
	if found == 0 {
		return b, true
	}
	b.stamps, ok = unwrap(value)
	b.malformed = !ok || found > 1
	out := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)))
	out.AddASN1(asn1.SEQUENCE, func(out *cryptobyte.Builder) {
		out.AddBytes(front)
		if len(rest) > 0 {
			out.AddASN1(tagExtensions, func(out *cryptobyte.Builder) {
				out.AddASN1(asn1.SEQUENCE, func(out *cryptobyte.Builder) { out.AddBytes(rest) })
			})
		}
	})
	timeless, err := out.Bytes()
	b.timeless = timeless
	return b, err == nil
}

// without takes the extensions with an identifier out of Extensions. The others are
// left as they are; value is the extnValue of the first, and found is how many
// there were.
func without(extensions cryptobyte.String, id []byte) (rest, value []byte, found int, ok bool) {
	var all cryptobyte.String
	if !extensions.ReadASN1(&all, asn1.SEQUENCE) || !extensions.Empty() {
		return nil, nil, 0, false
	}
	for !all.Empty() {
		var element, content, oid, v cryptobyte.String
		if !all.ReadASN1Element(&element, asn1.SEQUENCE) {
			return nil, nil, 0, false
		}
		content = element
		if !content.ReadASN1(&content, asn1.SEQUENCE) || !content.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
			!content.SkipOptionalASN1(asn1.BOOLEAN) || !content.ReadASN1(&v, asn1.OCTET_STRING) || !content.Empty() {
			return nil, nil, 0, false
		}
		if !bytes.Equal(oid, id) {
			rest = append(rest, element...)
			continue
		}
		if found == 0 {
			value = v
		}
		found++
	}
	return rest, value, found, true
}

// unwrap takes the OCTET STRING off that the list of timestamps is wrapped in, within
// the one that each extension has.
func unwrap(value []byte) (list []byte, ok bool) {
	s := cryptobyte.String(value)
	var inner cryptobyte.String
	if !s.ReadASN1(&inner, asn1.OCTET_STRING) || !s.Empty() {
		return nil, false
	}
	return inner, true
}

// keyBits is the public key of a certificate: the octets of subjectPublicKey, of which
// OCSP has the hash (RFC 6960, section 4.1.1); nil where it cannot be read.
func keyBits(c *cert.Certificate) []byte {
	parts, _ := c.Parts()
	s := cryptobyte.String(parts.PublicKey)
	var bits cryptobyte.String
	if !s.ReadASN1(&s, asn1.SEQUENCE) || !s.SkipASN1(asn1.SEQUENCE) || !s.ReadASN1(&bits, asn1.BIT_STRING) || len(bits) == 0 {
		return nil
	}
	return bits[1:]
}
