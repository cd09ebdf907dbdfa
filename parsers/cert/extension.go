package cert

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// extension is one of those that are read, a bit each (RFC 5280, section 4.2.1,
// and RFC 6962, section 3.3).
type extension uint

const (
	subjectAltName extension = 1 << iota
	basicConstraints
	keyUsage
	extKeyUsage
	subjectKeyIdentifier
	authorityKeyIdentifier
	certificatePolicies
	nameConstraints
	timestampList
)

var extensions = map[string]struct {
	extension
	name string
}{
	"2.5.29.14": {subjectKeyIdentifier, "subjectKeyIdentifier"},
	"2.5.29.15": {keyUsage, "keyUsage"},
	"2.5.29.17": {subjectAltName, "subjectAltName"},
	"2.5.29.19": {basicConstraints, "basicConstraints"},
	"2.5.29.30": {nameConstraints, "nameConstraints"},
	"2.5.29.32": {certificatePolicies, "certificatePolicies"},
	"2.5.29.35": {authorityKeyIdentifier, "authorityKeyIdentifier"},
	"2.5.29.37": {extKeyUsage, "extKeyUsage"},

	"1.3.6.1.4.1.11129.2.4.2": {timestampList, "SignedCertificateTimestampList"},
}

// KeyUsage is the bits of the keyUsage extension, digitalSignature the lowest.
type KeyUsage uint16

// keyUsages are RFC 5280's names of the bits (section 4.2.1.3).
var keyUsages = [...]string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement",
	"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// Names yields RFC 5280's names of the bits that are set, in their order.
func (u KeyUsage) Names(yield func(string) bool) {
	for i, name := range keyUsages {
		if u>>i&1 != 0 && !yield(name) {
			return
		}
	}
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
		which, field, value := p.nextExtension(&b)
		if which == 0 {
			continue
		}
		if p.seen&which != 0 {
			p.note(field, "repeated")
			if which != subjectAltName { // of which every name may be the one that matters
				continue
			}
		}
		p.seen |= which
		p.extensionsLeft = b
		p.extension(which, field, value)
	}
}

// nextExtension takes an Extension off b, which is 0 when it is not one of those
// that are read or its value cannot be found.
func (p *parser) nextExtension(b *[]byte) (which extension, field string, value []byte) {
	e, ok := p.expect(b, asn1.SEQUENCE, "extensions")
	if !ok {
		return 0, "", nil
	}
	oid, ok := p.oid(&e.content, "extensions")
	if !ok {
		return 0, "", nil
	}
	known, ok := extensions[string(oid)]
	if !ok {
		return 0, "", nil
	}
	if len(e.content) > 0 && asn1.Tag(e.content[0]) == asn1.BOOLEAN {
		p.whole(&e.content, asn1.BOOLEAN, known.name) // critical
	}
	octets, ok := p.expect(&e.content, asn1.OCTET_STRING, known.name)
	if !ok {
		return 0, "", nil
	}
	return known.extension, known.name, octets.content
}

func (p *parser) extension(which extension, field string, b []byte) {
	c := p.c
	switch which {
	case subjectAltName:
		if e, ok := p.expect(&b, asn1.SEQUENCE, field); ok {
			p.subjectAltName(e.content)
		}
	case basicConstraints:
		if e, ok := p.whole(&b, asn1.SEQUENCE, field); ok {
			c.BasicConstraints = true
			if len(e.content) > 0 && asn1.Tag(e.content[0]) == asn1.BOOLEAN {
				ca, ok := p.whole(&e.content, asn1.BOOLEAN, field)
				c.IsCA = ok && len(ca.content) == 1 && ca.content[0] != 0
			}
			if len(e.content) > 0 {
				c.PathLen = p.pathLen(&e.content, field)
			}
		}
	case keyUsage:
		if e, ok := p.whole(&b, asn1.BIT_STRING, field); ok {
			octets, _, ok := bitString(e.content)
			if !ok {
				p.note(field, "bad bit string")
			}
			for i := range min(9, 8*len(octets)) { // bit 8 is decipherOnly, the last
				c.KeyUsage |= KeyUsage(octets[i/8]>>(7-i%8)&1) << i
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
	case certificatePolicies:
		e, _ := p.expect(&b, asn1.SEQUENCE, field)
		for len(e.content) > 0 {
			policy, ok := p.expect(&e.content, asn1.SEQUENCE, field)
			if !ok {
				continue
			}
			oid, ok := p.oid(&policy.content, field)
			if !ok {
				continue
			}
			if len(c.Policies) == maxPolicies {
				p.note(field, morePolicies)
				break
			}
			c.Policies = append(c.Policies, string(oid))
		}
	case nameConstraints:
		e, _ := p.expect(&b, asn1.SEQUENCE, field)
		p.subtrees(&c.Permitted, &e.content, 0, field)
		p.subtrees(&c.Excluded, &e.content, 1, field)
		if len(e.content) > 0 {
			p.note(field, "unexpected type")
		}
	case timestampList:
		if e, ok := p.whole(&b, asn1.OCTET_STRING, field); ok {
			c.SCTs = p.timestamps(field, e.content)
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

// pathLen takes a pathLenConstraint off b; it is -1 when that is not one.
func (p *parser) pathLen(b *[]byte, field string) int {
	e, ok := p.whole(b, asn1.INTEGER, field)
	if !ok {
		return -1
	}
	octets, negative := magnitude(e.content)
	if len(octets) == 0 || negative || bitLength(octets) > 31 {
		p.note(field, "bad path length")
		return -1
	}
	n := 0
	for _, x := range octets {
		n = n<<8 | int(x)
	}
	return n
}

// subtrees takes GeneralSubtrees (RFC 5280, section 4.2.1.10) with that tag off b,
// if they are there.
func (p *parser) subtrees(list *[]string, b *[]byte, tag asn1.Tag, field string) {
	if tag = tag.Constructed().ContextSpecific(); len(*b) == 0 || asn1.Tag((*b)[0]) != tag {
		return
	}
	e, _ := p.expect(b, tag, field)
	for len(e.content) > 0 {
		subtree, ok := p.expect(&e.content, asn1.SEQUENCE, field)
		if !ok {
			continue
		}
		base, _, ok := read(subtree.content, maxDepth)
		if !ok || base.cut {
			p.note(field, "cut short")
			continue
		}
		if len(p.c.Permitted)+len(p.c.Excluded) == maxSubtrees {
			p.note(field, moreSubtrees)
			break
		}
		*list = append(*list, p.base(base, field))
	}
}

// base is the text of the GeneralName that a GeneralSubtree is below; in hex when
// it is of a kind that is not read.
func (p *parser) base(e element, field string) string {
	switch e.tag {
	case asn1.Tag(EmailAddress).ContextSpecific(), asn1.Tag(DNSName).ContextSpecific(), asn1.Tag(URI).ContextSpecific():
		return p.text(field, asn1.IA5String, e.content)
	case asn1.Tag(IPAddress).ContextSpecific():
		if n := len(e.content) / 2; n == 4 || n == 16 {
			return network(e.content[:n], e.content[n:2*n])
		}
		p.note(field, "bad IP address")
	case asn1.Tag(4).Constructed().ContextSpecific(): // directoryName
		if rdns, ok := p.expect(&e.content, asn1.SEQUENCE, field); ok {
			n, _ := p.name(field, rdns.content)
			return n.String
		}
	}
	return string(appendHex(nil, e.raw))
}

// network writes an address and its mask, of 4 or of 16 octets both.
func network(addr, mask []byte) string {
	a, _ := netip.AddrFromSlice(addr)
	m, _ := netip.AddrFromSlice(mask)
	ones := 0
	for _, x := range mask {
		ones += bits.LeadingZeros8(^x)
		if x != 0xff {
			break
		}
	}
	if p, err := m.Prefix(ones); err != nil || p.Addr() != m { // bits within that are 0
		return a.String() + "/" + m.String()
	}
	return a.String() + "/" + strconv.Itoa(ones)
}

// timestamps counts the elements of a SignedCertificateTimestampList (RFC 6962,
// section 3.3).
func (p *parser) timestamps(field string, b []byte) (n int) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2 {
		p.note(field, "bad length")
		return 0
	}
	for b = b[2:]; len(b) >= 2; n++ {
		size := int(binary.BigEndian.Uint16(b))
		if size > len(b)-2 {
			break
		}
		b = b[2+size:]
	}
	if len(b) > 0 {
		p.note(field, "bad length")
	}
	return n
}
