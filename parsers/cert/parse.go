package cert

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	moreAttributes = fmt.Sprintf("more than %d attributes", maxAttributes)
	longName       = fmt.Sprintf("more than %d bytes", maxName)
	moreAltNames   = fmt.Sprintf("more than %d names", maxAltNames)
	moreUsages     = fmt.Sprintf("more than %d usages", maxUsages)
	morePolicies   = fmt.Sprintf("more than %d policies", maxPolicies)
	moreSubtrees   = fmt.Sprintf("more than %d names", maxSubtrees)
	longValue      = fmt.Sprintf("value of more than %d bytes", maxValue)
	longSerial     = fmt.Sprintf("more than %d bytes", maxSerial)
	longKeyID      = fmt.Sprintf("more than %d bytes", maxKeyID)
)

// parser fills in a certificate. Whatever is wrong with one field, the next is
// read all the same.
//
// Elements that hold others are read as far as there are bytes; a value counts
// only when it is whole. So the reading of a prefix is part of the reading of
// the whole.
type parser struct {
	c              *Certificate // nil when problems matter to nobody
	hash           bool         // the bytes are all there, so that hashes mean something
	seen           extension    // those met so far
	extensionsLeft []byte       // after the one that is being read
	scratch        [4 * maxOID]byte
}

// note keeps the first problem.
func (p *parser) note(field, problem string) {
	if p.c != nil && p.c.ParseError == "" {
		p.c.ParseError = field + ": " + problem
	}
}

// expect takes the next element off b, which it empties when there is none. It
// is false for a missing element and for one of another type.
func (p *parser) expect(b *[]byte, tag asn1.Tag, field string) (element, bool) {
	empty := len(*b) == 0
	e, rest, ok := read(*b, maxDepth)
	*b = rest
	switch {
	case empty:
		p.note(field, "missing")
		return e, false
	case !ok:
		p.note(field, "bad length")
		return e, false
	case e.tag != tag:
		p.note(field, "unexpected type")
		return e, false
	case e.cut:
		p.note(field, "cut short")
	case e.ber:
		p.note(field, "length not DER")
	}
	return e, true
}

// whole is expect for an element of which a part is of no use.
func (p *parser) whole(b *[]byte, tag asn1.Tag, field string) (element, bool) {
	e, ok := p.expect(b, tag, field)
	return e, ok && !e.cut
}

// oid takes an object identifier off b. The dots are valid until the next call.
func (p *parser) oid(b *[]byte, field string) ([]byte, bool) {
	e, ok := p.whole(b, asn1.OBJECT_IDENTIFIER, field)
	if !ok {
		return nil, false
	}
	dots, ok := appendOID(p.scratch[:0], e.content)
	if !ok {
		p.note(field, "bad object identifier")
	}
	return dots, ok
}

// certificate reads a Certificate (RFC 5280, section 4.1).
func (p *parser) certificate(b []byte) {
	e, ok := p.expect(&b, asn1.SEQUENCE, "certificate")
	if !ok {
		return
	}
	if len(b) > 0 {
		p.note("certificate", "trailing bytes")
	}
	b = e.content
	var signed element
	if tbs, ok := p.expect(&b, asn1.SEQUENCE, "tbsCertificate"); ok {
		if p.hash && !tbs.cut {
			p.c.TBSSHA256 = sha256.Sum256(tbs.raw)
		}
		signed = p.tbs(tbs.content)
	}
	algorithm, ok := p.whole(&b, asn1.SEQUENCE, "signatureAlgorithm")
	if ok {
		if !bytes.Equal(algorithm.raw, signed.raw) {
			p.note("signatureAlgorithm", "not the one in tbsCertificate")
		}
	} else {
		algorithm = signed
	}
	if algorithm.raw != nil {
		p.c.SignatureAlgorithm = p.signatureAlgorithm(algorithm.content)
	}
	if e, ok := p.whole(&b, asn1.BIT_STRING, "signature"); ok {
		if value, unused, ok := bitString(e.content); ok {
			p.c.SignatureBits = len(value)*8 - unused
		} else {
			p.note("signature", "bad bit string")
		}
	}
	if len(b) > 0 {
		p.note("certificate", "trailing bytes")
	}
}

// tbs reads a TBSCertificate and returns its signature algorithm.
func (p *parser) tbs(b []byte) (algorithm element) {
	c := p.c
	tag := asn1.Tag(0).Constructed().ContextSpecific()
	if len(b) > 0 && asn1.Tag(b[0]) != tag {
		c.Version = 1
	} else if len(b) > 0 {
		e, _ := p.expect(&b, tag, "version")
		if v, ok := p.whole(&e.content, asn1.INTEGER, "version"); ok {
			if len(v.content) == 1 && v.content[0] <= 2 {
				c.Version = int(v.content[0]) + 1
			} else {
				p.note("version", "none of 1 to 3")
			}
		}
	}
	if e, ok := p.whole(&b, asn1.INTEGER, "serialNumber"); ok {
		p.serial(e.content)
	}
	if e, ok := p.whole(&b, asn1.SEQUENCE, "signature"); ok {
		algorithm = e
	}
	issuer, ok := p.expect(&b, asn1.SEQUENCE, "issuer")
	if ok {
		c.Issuer, _ = p.name("issuer", issuer.content)
	}
	if e, ok := p.expect(&b, asn1.SEQUENCE, "validity"); ok {
		c.NotBefore = p.date(&e.content)
		c.NotAfter = p.date(&e.content)
	}
	subject, ok := p.expect(&b, asn1.SEQUENCE, "subject")
	if ok {
		c.Subject, c.more = p.name("subject", subject.content)
		c.SelfSigned = !subject.cut && bytes.Equal(issuer.raw, subject.raw)
	}
	if e, ok := p.expect(&b, asn1.SEQUENCE, "subjectPublicKeyInfo"); ok {
		if p.hash && !e.cut {
			c.SPKISHA256 = sha256.Sum256(e.raw)
		}
		p.publicKey(e.content)
	}
	for len(b) > 0 {
		e, rest, ok := read(b, maxDepth)
		b = rest
		switch {
		case !ok:
			p.note("tbsCertificate", "trailing bytes")
		case e.tag == asn1.Tag(3).Constructed().ContextSpecific():
			if c.Version != 3 {
				p.note("extensions", "version is not 3")
			}
			if list, ok := p.expect(&e.content, asn1.SEQUENCE, "extensions"); ok {
				p.extensions(list.content)
			}
		case e.tag != asn1.Tag(1).ContextSpecific() && e.tag != asn1.Tag(2).ContextSpecific(): // unique identifiers
			p.note("tbsCertificate", "unexpected type")
		}
	}
	return algorithm
}

func (p *parser) serial(content []byte) {
	if len(content) > maxSerial {
		p.note("serialNumber", longSerial)
		return
	}
	if len(content) == 0 {
		p.note("serialNumber", "empty")
		return
	}
	if padded(content) {
		p.c.SerialPadded = true
		p.note("serialNumber", "padded")
	}
	octets, negative := magnitude(content)
	if negative {
		p.note("serialNumber", "negative") // RFC 5280, section 4.1.2.2
		p.c.Serial = fmt.Sprintf("-%X", octets)
	} else {
		p.c.Serial = fmt.Sprintf("%X", octets)
	}
}

func (p *parser) date(b *[]byte) Date {
	e, rest, ok := read(*b, maxDepth)
	*b = rest
	if !ok || e.cut {
		p.note("validity", "cut short")
		return Date{}
	}
	t, ok := parseTime(e.tag, e.content)
	if !ok {
		p.note("validity", "bad time")
		return Date{}
	}
	return DateOf(t)
}
