package cert

import "golang.org/x/crypto/cryptobyte/asn1"

// Parts are the elements of a certificate that its signature is made of (RFC 5280,
// section 4.1), each as it was sent, with identifier and length. They refer to DER.
type Parts struct {
	TBS       []byte // TBSCertificate, which the issuer has signed
	Signed    []byte // AlgorithmIdentifier of the signature, inside of the TBSCertificate
	Subject   []byte // Name
	PublicKey []byte // SubjectPublicKeyInfo
	Algorithm []byte // AlgorithmIdentifier of the signature, outside of the TBSCertificate
	Signature []byte // the octets of signatureValue

	extensions []byte // contents of Extensions; nil where there are none
}

// Parts finds the parts of c. It is false where one of them is missing or cut.
func (c *Certificate) Parts() (x Parts, ok bool) {
	b := c.DER
	take := func(b *[]byte, tag asn1.Tag) element {
		e, rest, fine := read(*b, maxDepth)
		ok = ok && fine && !e.cut && e.tag == tag
		*b = rest
		return e
	}
	ok = true
	whole := take(&b, asn1.SEQUENCE).content
	tbs := take(&whole, asn1.SEQUENCE)
	x.TBS = tbs.raw
	x.Algorithm = take(&whole, asn1.SEQUENCE).raw
	signature, unused, fine := bitString(take(&whole, asn1.BIT_STRING).content)
	x.Signature = signature
	b = tbs.content
	if version := asn1.Tag(0).Constructed().ContextSpecific(); len(b) > 0 && asn1.Tag(b[0]) == version {
		take(&b, version)
	}
	take(&b, asn1.INTEGER) // serialNumber
	x.Signed = take(&b, asn1.SEQUENCE).raw
	take(&b, asn1.SEQUENCE) // issuer
	take(&b, asn1.SEQUENCE) // validity
	x.Subject = take(&b, asn1.SEQUENCE).raw
	x.PublicKey = take(&b, asn1.SEQUENCE).raw
	if !ok || !fine || unused != 0 {
		return Parts{}, false
	}
	for len(b) > 0 {
		e, rest, fine := read(b, maxDepth)
		if !fine {
			break
		}
		if b = rest; e.tag == asn1.Tag(3).Constructed().ContextSpecific() {
			list, _, _ := read(e.content, maxDepth)
			x.extensions = list.content
		}
	}
	return x, true
}

// Extension is one extension of a certificate (RFC 5280, section 4.2).
type Extension struct {
	OID      string // in dots
	Critical bool
	Value    []byte // contents of extnValue; they refer to DER
}

// Extensions yields the extensions in the order sent. One that cannot be read as far
// as its value has no OID, is critical and has all of the rest as its value: it may
// be anything.
func (x *Parts) Extensions(yield func(Extension) bool) {
	for b := x.extensions; len(b) > 0; {
		here := b
		var p parser // what it would note was noted by the first reading
		e, ok := p.whole(&b, asn1.SEQUENCE, "")
		dots, ok1 := p.oid(&e.content, "")
		extension := Extension{OID: string(dots)}
		if len(e.content) > 0 && asn1.Tag(e.content[0]) == asn1.BOOLEAN {
			critical, _ := p.whole(&e.content, asn1.BOOLEAN, "")
			extension.Critical = len(critical.content) != 1 || critical.content[0] != 0
		}
		value, ok2 := p.whole(&e.content, asn1.OCTET_STRING, "")
		extension.Value = value.content
		if !ok || !ok1 || !ok2 {
			yield(Extension{Critical: true, Value: here})
			return
		}
		if !yield(extension) {
			return
		}
	}
}
