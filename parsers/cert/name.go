package cert

import (
	"encoding/binary"
	"encoding/hex"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// String types that cryptobyte has no name for (X.680, clause 41).
const (
	numericString   = asn1.Tag(18)
	visibleString   = asn1.Tag(26)
	universalString = asn1.Tag(28)
	bmpString       = asn1.Tag(30)
)

// attributes names the types of RFC 4514, section 3, and others by the short
// names in common use.
var attributes = map[string]string{
	"2.5.4.3":                    "CN",
	"2.5.4.4":                    "SN",
	"2.5.4.5":                    "SERIALNUMBER",
	"2.5.4.6":                    "C",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.9":                    "STREET",
	"2.5.4.10":                   "O",
	"2.5.4.11":                   "OU",
	"2.5.4.12":                   "title",
	"2.5.4.13":                   "description",
	"2.5.4.15":                   "businessCategory",
	"2.5.4.16":                   "postalAddress",
	"2.5.4.17":                   "postalCode",
	"2.5.4.18":                   "postOfficeBox",
	"2.5.4.20":                   "telephoneNumber",
	"2.5.4.41":                   "name",
	"2.5.4.42":                   "GN",
	"2.5.4.43":                   "initials",
	"2.5.4.44":                   "generationQualifier",
	"2.5.4.45":                   "x500UniqueIdentifier",
	"2.5.4.46":                   "dnQualifier",
	"2.5.4.65":                   "pseudonym",
	"2.5.4.97":                   "organizationIdentifier",
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.25": "DC",
	"1.2.840.113549.1.9.1":       "emailAddress",
	"1.2.840.113549.1.9.2":       "unstructuredName",
	"1.2.840.113549.1.9.8":       "unstructuredAddress",
	"1.3.6.1.4.1.311.60.2.1.1":   "jurisdictionL",
	"1.3.6.1.4.1.311.60.2.1.2":   "jurisdictionST",
	"1.3.6.1.4.1.311.60.2.1.3":   "jurisdictionC",
}

// name reads the contents of an RDNSequence (RFC 5280, section 4.1.2.4). more is
// at the attributes for which there is no room.
func (p *parser) name(field string, rdns []byte) (n Name, more Names) {
	var s, set []byte
	separator := ""
	for kept := 0; ; kept++ {
		here := Names{set: set, rdns: rdns}
		kind, value, first, ok := p.nextAttribute(field, &set, &rdns)
		if !ok {
			n.String = string(s)
			return n, Names{}
		}
		if kept == maxAttributes || len(s) > maxName {
			if kept == maxAttributes {
				p.note(field, moreAttributes)
			} else {
				p.note(field, longName)
			}
			n.String = string(s)
			return n, here
		}
		if first {
			separator = ", "
		}
		if len(s) > 0 {
			s = append(s, separator...)
		}
		separator = "+"
		short, known := attributes[string(kind)]
		if known {
			s = append(s, short...)
		} else {
			s = append(s, kind...)
		}
		s = append(s, '=')
		if !isString(value.tag) {
			p.note(field, "not a string")
			s = appendHex(s, value.raw)
			continue
		}
		text := p.text(field, value.tag, value.content)
		s = appendEscaped(s, text)
		switch short {
		case "CN":
			n.CommonName = append(n.CommonName, text)
		case "O":
			n.Organization = append(n.Organization, text)
		case "OU":
			n.OrganizationalUnit = append(n.OrganizationalUnit, text)
		case "C":
			n.Country = append(n.Country, text)
		case "L":
			n.Locality = append(n.Locality, text)
		case "ST":
			n.StateOrProvince = append(n.StateOrProvince, text)
		}
	}
}

// nextAttribute takes the next AttributeTypeAndValue that can be read off a set,
// and the set off rdns when it has none; first says that it did. ok is false at
// the end. The type is valid until the next call.
func (p *parser) nextAttribute(field string, set, rdns *[]byte) (kind []byte, value element, first, ok bool) {
	for {
		for len(*set) == 0 {
			if len(*rdns) == 0 {
				return nil, element{}, false, false
			}
			if rdn, ok := p.expect(rdns, asn1.SET, field); ok {
				*set, first = rdn.content, true
			}
		}
		attribute, ok := p.expect(set, asn1.SEQUENCE, field)
		if !ok {
			continue
		}
		kind, ok := p.oid(&attribute.content, field)
		if !ok {
			continue
		}
		value, _, ok := read(attribute.content, maxDepth)
		if !ok || value.cut {
			p.note(field, "cut short")
			continue
		}
		return kind, value, first, true
	}
}

func isString(tag asn1.Tag) bool {
	switch tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.T61String, asn1.IA5String, asn1.GeneralString,
		numericString, visibleString, universalString, bmpString:
		return true
	}
	return false
}

// text decodes a string, at most maxValue bytes of it.
func (p *parser) text(field string, tag asn1.Tag, b []byte) string {
	if len(b) > maxValue {
		p.note(field, longValue)
		b = b[:maxValue]
		if tag != asn1.T61String && tag != bmpString && tag != universalString {
			b = wholeRunes(b)
		}
	}
	if tag != bmpString && tag != universalString && isASCII(b) {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	bad := false
	switch tag {
	case asn1.T61String:
		// T.61 itself is not what anybody wrote: ISO 8859-1 is.
		for _, x := range b {
			out = utf8.AppendRune(out, rune(x))
		}
	case bmpString:
		for ; len(b) >= 2; b = b[2:] {
			r := rune(binary.BigEndian.Uint16(b))
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if len(b) >= 4 {
					low = rune(binary.BigEndian.Uint16(b[2:]))
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					bad = true
				} else {
					b = b[2:]
				}
			}
			out = utf8.AppendRune(out, r)
		}
	case universalString:
		for ; len(b) >= 4; b = b[4:] {
			r := rune(utf8.RuneError)
			if x := binary.BigEndian.Uint32(b); x <= utf8.MaxRune && utf8.ValidRune(rune(x)) {
				r = rune(x)
			} else {
				bad = true
			}
			out = utf8.AppendRune(out, r)
		}
	default:
		// Also the ASCII types: who puts other characters there mostly means UTF-8.
		for len(b) > 0 {
			r, size := utf8.DecodeRune(b)
			bad = bad || r == utf8.RuneError && size == 1 || size > 1 && tag != asn1.UTF8String
			out = utf8.AppendRune(out, r)
			b = b[size:]
		}
	}
	if len(b) > 0 && (tag == bmpString || tag == universalString) {
		bad = true
		out = utf8.AppendRune(out, utf8.RuneError)
	}
	if bad {
		p.note(field, "bad string")
	}
	return string(out)
}

func isASCII(b []byte) bool {
	for _, x := range b {
		if x >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// wholeRunes is b without the front part of a UTF-8 sequence at its end.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if start := b[len(b)-i:]; utf8.RuneStart(start[0]) {
			if !utf8.FullRune(start) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// appendEscaped appends an attribute value as RFC 4514, section 2.4, has it,
// control characters in hex.
func appendEscaped(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		switch x := s[i]; {
		case x < ' ' || x == 0x7f:
			dst = append(dst, '\\', digits[x>>4], digits[x&15])
			continue
		case x == '"', x == '+', x == ',', x == ';', x == '<', x == '>', x == '\\',
			x == '#' && i == 0, x == ' ' && (i == 0 || i == len(s)-1):
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return dst
}

// appendHex appends a value that is not a string (RFC 4514, section 2.4), at most
// maxValue octets of it.
func appendHex(dst, raw []byte) []byte {
	return hex.AppendEncode(append(dst, '#'), raw[:min(len(raw), maxValue)])
}
