package cert

import "golang.org/x/crypto/cryptobyte/asn1"

// Parts are the elements of a certificate that its signature is made of (RFC 5280,
// section 4.1), each as it was sent, with identifier and length. They refer to DER.
type Parts struct {
	TBS       []byte // TBSCertificate, which the issuer has signed
	PublicKey []byte // SubjectPublicKeyInfo
	Algorithm []byte // AlgorithmIdentifier of the signature, outside of the TBSCertificate
	Signature []byte // the octets of signatureValue
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
	for range 4 {          // signature, issuer, validity, subject
		take(&b, asn1.SEQUENCE)
	}
	x.PublicKey = take(&b, asn1.SEQUENCE).raw
	if !ok || !fine || unused != 0 {
		return Parts{}, false
	}
	return x, true
}
