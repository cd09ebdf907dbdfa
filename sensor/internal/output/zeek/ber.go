package zeek

import cryptox509 "crypto/x509"

// Tags of ASN.1 (X.680, clause 8.4), with the bit of constructed encodings.
const (
	tagInteger          = 0x02
	tagObjectIdentifier = 0x06
	tagUTF8String       = 0x0C
	tagNumericString    = 0x12
	tagPrintableString  = 0x13
	tagT61String        = 0x14
	tagIA5String        = 0x16
	tagVisibleString    = 0x1A
	tagUniversalString  = 0x1C
	tagBMPString        = 0x1E
	tagSequence         = 0x30
	tagSet              = 0x31
	tagVersion          = 0xA0 // of a certificate, EXPLICIT
)

// element is a value of ASN.1 with its tag and length.
type element struct {
	tag     byte
	content []byte
	whole   []byte // the content with what is before it
}

// take takes the next element off b. Lengths need not be as short as DER wants them
// (X.690, clause 10.1): OpenSSL reads such certificates too. Tags of several octets and
// indefinite lengths are not read.
func take(b *[]byte) (e element, ok bool) {
	s := *b
	if len(s) < 2 || s[0]&0x1F == 0x1F {
		return e, false
	}
	size, head := int(s[1]), 2
	if size >= 0x80 {
		n := size & 0x7F
		if n == 0 || n > 4 || len(s) < 2+n {
			return e, false
		}
		size, head = 0, 2+n
		for _, c := range s[2:head] {
			size = size<<8 | int(c)
		}
	}
	if size > len(s)-head {
		return e, false
	}
	*b = s[head+size:]
	return element{s[0], s[head : head+size], s[:head+size]}, true
}

// takeTag takes the content of the next element off b, which is to have a certain tag.
// Where it has not, b is empty: what comes then cannot be told.
func takeTag(b *[]byte, tag byte) ([]byte, bool) {
	e, ok := take(b)
	if !ok || e.tag != tag {
		*b = nil
		return nil, false
	}
	return e.content, true
}

// takeObjectIdentifier takes an OBJECT IDENTIFIER off b; it is in dots.
func takeObjectIdentifier(b *[]byte) (string, bool) {
	content, ok := takeTag(b, tagObjectIdentifier)
	var oid cryptox509.OID
	if !ok || oid.UnmarshalBinary(content) != nil {
		return "", false
	}
	return oid.String(), true
}
