package cert

import (
	"net/netip"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// NameKind is the kind of a name of the certificate's owner.
type NameKind uint8

// Kinds of names: those of a GeneralName (RFC 5280, section 4.2.1.6) that are
// read, which have its tag numbers, and the common name of the subject.
const (
	EmailAddress NameKind = 1
	DNSName      NameKind = 2
	URI          NameKind = 6
	IPAddress    NameKind = 7
	CommonName   NameKind = 32
)

// Names reads names of a certificate one after another. It refers to the
// certificate's bytes, and is at the end when it is zero.
type Names struct {
	set        []byte // attributes of the subject's RDN that is being read
	rdns       []byte // that follow it
	names      []byte // GeneralNames of the extension that is being read
	extensions []byte // that follow it, of which more may be subjectAltName
}

// MoreNames reads the names of subjectAltName and the common names of the subject
// that [Certificate]'s lists leave out for want of room: a sender may fill a
// certificate with names, and the last may be the one that matters. Each reading
// of all takes time in proportion to the certificate.
func (c *Certificate) MoreNames() Names { return c.more }

// Done reports whether there are no more names for certain; otherwise only
// [Names.Next] can tell.
func (n *Names) Done() bool { return len(n.set)+len(n.rdns)+len(n.names)+len(n.extensions) == 0 }

// Next returns the next name; ok is false at the end.
func (n *Names) Next() (kind NameKind, name string, ok bool) {
	var p parser // what it notes was noted by the first reading
	for {
		kind, value, _, ok := p.nextAttribute("subject", &n.set, &n.rdns)
		if !ok {
			break
		}
		if attributes[string(kind)] == "CN" && isString(value.tag) {
			return CommonName, p.text("subject", value.tag, value.content), true
		}
	}
	for {
		for len(n.names) > 0 {
			kind, value, ok := nextAltName(&n.names)
			if !ok {
				break
			}
			if name, ok := p.altName(kind, value); ok {
				return kind, name, true
			}
		}
		which, value := extension(0), []byte(nil)
		for which != subjectAltName {
			if len(n.extensions) == 0 {
				*n = Names{}
				return 0, "", false
			}
			which, _, value = p.nextExtension(&n.extensions)
		}
		e, _ := p.expect(&value, asn1.SEQUENCE, "")
		n.names = e.content
	}
}

// nextAltName takes the next GeneralName off b, of any kind. It is false, and b
// empty, when none is there whole.
func nextAltName(b *[]byte) (kind NameKind, value []byte, ok bool) {
	e, rest, ok := read(*b, maxDepth)
	if !ok || e.cut {
		*b = nil
		return 0, nil, false
	}
	*b = rest
	if e.tag&^31 == asn1.Tag(0).ContextSpecific() {
		kind = NameKind(e.tag & 31)
	}
	return kind, e.content, true
}

// altName returns the text of a GeneralName; ok is false for kinds that are not read
// and for addresses of a wrong length.
func (p *parser) altName(kind NameKind, value []byte) (name string, ok bool) {
	switch kind {
	case EmailAddress, DNSName, URI:
		return p.text("subjectAltName", asn1.IA5String, value), true
	case IPAddress:
		addr, ok := netip.AddrFromSlice(value)
		if !ok {
			p.note("subjectAltName", "bad IP address")
			return "", false
		}
		return addr.String(), true
	}
	return "", false
}

// subjectAltName reads GeneralNames. The first names are kept; the others are
// counted, and where they begin is remembered.
func (p *parser) subjectAltName(names []byte) {
	c := p.c
	for len(names) > 0 {
		here := names
		kind, value, ok := nextAltName(&names)
		if !ok {
			p.note("subjectAltName", "cut short")
			return
		}
		if c.AltNames >= maxAltNames {
			switch kind {
			case EmailAddress, DNSName, URI:
			case IPAddress:
				if len(value) != 4 && len(value) != 16 {
					continue
				}
			default:
				continue
			}
			if c.AltNames == maxAltNames {
				p.note("subjectAltName", moreAltNames)
				c.more.names, c.more.extensions = here, p.extensionsLeft
			}
			c.AltNames++
			continue
		}
		name, ok := p.altName(kind, value)
		if !ok {
			continue
		}
		c.AltNames++
		switch kind {
		case EmailAddress:
			c.EmailAddresses = append(c.EmailAddresses, name)
		case DNSName:
			c.DNSNames = append(c.DNSNames, name)
		case URI:
			c.URIs = append(c.URIs, name)
		case IPAddress:
			c.IPAddresses = append(c.IPAddresses, name)
		}
	}
}
