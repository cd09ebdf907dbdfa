package cert

import (
	"net/netip"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// extension is one of those that are read, a bit each (RFC 5280, section 4.2.1).
type extension uint

const (
	subjectAltName extension = 1 << iota
	basicConstraints
	keyUsage
	extKeyUsage
	subjectKeyIdentifier
	authorityKeyIdentifier
)

var extensions = map[string]struct {
	extension
	name string
}{
	"2.5.29.14": {subjectKeyIdentifier, "subjectKeyIdentifier"},
	"2.5.29.15": {keyUsage, "keyUsage"},
	"2.5.29.17": {subjectAltName, "subjectAltName"},
	"2.5.29.19": {basicConstraints, "basicConstraints"},
	"2.5.29.35": {authorityKeyIdentifier, "authorityKeyIdentifier"},
	"2.5.29.37": {extKeyUsage, "extKeyUsage"},
}

// usages has RFC 5280's names (section 4.2.1.12), and those in common use.
var usages = map[string]string{
	"2.5.29.37.0":            "anyExtendedKeyUsage",
	"1.3.6.1.5.5.7.3.1":      "serverAuth",
	"1.3.6.1.5.5.7.3.2":      "clientAuth",
	"1.3.6.1.5.5.7.3.3":      "codeSigning",
	"1.3.6.1.5.5.7.3.4":      "emailProtection",
	"1.3.6.1.5.5.7.3.5":      "ipsecEndSystem",
	"1.3.6.1.5.5.7.3.6":      "ipsecTunnel",
	"1.3.6.1.5.5.7.3.7":      "ipsecUser",
	"1.3.6.1.5.5.7.3.8":      "timeStamping",
	"1.3.6.1.5.5.7.3.9":      "OCSPSigning",
	"1.3.6.1.4.1.311.10.3.3": "msSGC",
	"1.3.6.1.4.1.311.2.1.21": "msCodeInd",
	"1.3.6.1.4.1.311.2.1.22": "msCodeCom",
	"1.3.6.1.4.1.311.20.2.2": "msSmartcardLogin",
	"2.16.840.1.113730.4.1":  "nsSGC",
}

func (p *parser) extensions(b []byte) {
	for len(b) > 0 {
		e, ok := p.expect(&b, asn1.SEQUENCE, "extensions")
		if !ok {
			continue
		}
		oid, ok := p.oid(&e.content, "extensions")
		if !ok {
			continue
		}
		known, ok := extensions[string(oid)]
		if !ok {
			continue
		}
		if p.seen&known.extension != 0 {
			p.note(known.name, "repeated")
			if known.extension != subjectAltName { // of which every name may be the one that matters
				continue
			}
		}
		p.seen |= known.extension
		if len(e.content) > 0 && asn1.Tag(e.content[0]) == asn1.BOOLEAN {
			p.whole(&e.content, asn1.BOOLEAN, known.name) // critical
		}
		value, ok := p.expect(&e.content, asn1.OCTET_STRING, known.name)
		if ok {
			p.extension(known.extension, known.name, value.content)
		}
	}
}

func (p *parser) extension(which extension, field string, b []byte) {
	c := p.c
	switch which {
	case subjectAltName:
		if e, ok := p.expect(&b, asn1.SEQUENCE, field); ok {
			p.subjectAltName(field, e.content)
		}
	case basicConstraints:
		if e, ok := p.whole(&b, asn1.SEQUENCE, field); ok {
			c.BasicConstraints = true
			if len(e.content) > 0 && asn1.Tag(e.content[0]) == asn1.BOOLEAN {
				ca, ok := p.whole(&e.content, asn1.BOOLEAN, field)
				c.IsCA = ok && len(ca.content) == 1 && ca.content[0] != 0
			}
		}
	case keyUsage:
		if e, ok := p.whole(&b, asn1.BIT_STRING, field); ok {
			octets, _, ok := bitString(e.content)
			if !ok {
				p.note(field, "bad bit string")
			}
			for i := range min(9, 8*len(octets)) { // bit 8 is decipherOnly, the last
				c.KeyUsage |= uint16(octets[i/8]>>(7-i%8)&1) << i
			}
		}
	case extKeyUsage:
		e, _ := p.expect(&b, asn1.SEQUENCE, field)
		for len(e.content) > 0 {
			oid, ok := p.oid(&e.content, field)
			if !ok {
				continue
			}
			if len(c.ExtendedKeyUsage) == maxUsages {
				p.note(field, moreUsages)
				break
			}
			name, ok := usages[string(oid)]
			if !ok {
				name = string(oid)
			}
			c.ExtendedKeyUsage = append(c.ExtendedKeyUsage, name)
		}
	case subjectKeyIdentifier:
		if e, ok := p.whole(&b, asn1.OCTET_STRING, field); ok {
			c.SubjectKeyID = p.keyID(field, e.content)
		}
	case authorityKeyIdentifier:
		e, _ := p.expect(&b, asn1.SEQUENCE, field)
		if tag := asn1.Tag(0).ContextSpecific(); len(e.content) > 0 && asn1.Tag(e.content[0]) == tag {
			if e, ok := p.whole(&e.content, tag, field); ok {
				c.AuthorityKeyID = p.keyID(field, e.content)
			}
		}
	}
}

func (p *parser) keyID(field string, b []byte) []byte {
	if len(b) > maxKeyID {
		p.note(field, longKeyID)
		return nil
	}
	return b
}

// subjectAltName reads the contents of GeneralNames (RFC 5280, section 4.2.1.6).
func (p *parser) subjectAltName(field string, b []byte) {
	c := p.c
	for len(b) > 0 {
		e, rest, ok := read(b, maxDepth)
		b = rest
		if !ok || e.cut {
			p.note(field, "cut short")
			break
		}
		var kind *[]string
		switch e.tag {
		case asn1.Tag(1).ContextSpecific():
			kind = &c.EmailAddresses
		case asn1.Tag(2).ContextSpecific():
			kind = &c.DNSNames
		case asn1.Tag(6).ContextSpecific():
			kind = &c.URIs
		case asn1.Tag(7).ContextSpecific():
			kind = &c.IPAddresses
		default:
			continue
		}
		if p.altNames == maxAltNames {
			p.note(field, moreAltNames)
			break
		}
		p.altNames++
		var text string
		if kind == &c.IPAddresses {
			addr, ok := netip.AddrFromSlice(e.content)
			if !ok {
				p.note(field, "bad IP address")
				continue
			}
			text = addr.String()
		} else {
			text = p.text(field, asn1.IA5String, e.content)
		}
		*kind = append(*kind, text)
	}
}
