package zeek

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// name is a distinguished name as OpenSSL prints it with XN_FLAG_RFC2253 (its manual
// page X509_NAME_print_ex), which Zeek's logs have: the attributes in reverse, those of
// one set with a plus between them, all but ASCII escaped.
type name struct {
	attributes []attribute
}

type attribute struct {
	text   string // type and value
	joined bool   // it is in the set of the one before it
}

func (n *name) String() string {
	var b strings.Builder
	for i, a := range slices.Backward(n.attributes) {
		b.WriteString(a.text)
		switch {
		case i == 0:
		case a.joined:
			b.WriteByte('+')
		default:
			b.WriteByte(',')
		}
		if b.Len() > maxName {
			return beginning(b.String(), maxName)
		}
	}
	return b.String()
}

// add adds an attribute whose type is an object identifier in dots or a name, and
// whose value is escaped already.
func (n *name) add(kind, value string, first bool) {
	n.attributes = append(n.attributes, attribute{kind + "=" + value, !first})
}

// distinguishedName prints the contents of an RDNSequence (RFC 5280, section
// 4.1.2.4), as far as it can be read.
func distinguishedName(rdns []byte) string {
	var n name
	for len(rdns) > 0 {
		set, ok := takeTag(&rdns, tagSet)
		if !ok {
			break
		}
		for first := true; len(set) > 0; first = false {
			pair, ok := takeTag(&set, tagSequence)
			kind, typed := takeObjectIdentifier(&pair)
			value, valued := take(&pair)
			if !ok || !typed || !valued {
				return n.String()
			}
			if short, ok := shortNames[kind]; ok {
				n.add(short, printed(value), first)
			} else {
				n.add(kind, dump(value), first)
			}
		}
	}
	return n.String()
}

// dump prints a value that is no string, or whose type of attribute is not known (RFC
// 2253, section 2.4).
func dump(e element) string { return "#" + strings.ToUpper(hex.EncodeToString(e.whole)) }

// printed prints the value of an attribute.
func printed(e element) string {
	content := e.content
	var b []byte
	switch e.tag {
	case tagUTF8String:
		return escaped(string(content))
	case tagPrintableString, tagT61String, tagIA5String, tagNumericString, tagVisibleString:
		for _, c := range content { // read as ISO 8859-1
			b = utf8.AppendRune(b, rune(c))
		}
	case tagUniversalString:
		if len(content)%4 != 0 {
			return dump(e)
		}
		for ; len(content) > 0; content = content[4:] {
			if c := binary.BigEndian.Uint32(content); c <= utf8.MaxRune && utf8.ValidRune(rune(c)) {
				b = utf8.AppendRune(b, rune(c))
			}
		}
	case tagBMPString:
		if len(content)%2 != 0 {
			return dump(e)
		}
		for ; len(content) > 0; content = content[2:] {
			if c := rune(binary.BigEndian.Uint16(content)); !utf16.IsSurrogate(c) {
				b = utf8.AppendRune(b, c)
			}
		}
	default:
		return dump(e)
	}
	return escaped(string(b))
}

const upperHex = "0123456789ABCDEF"

// escaped escapes a value as RFC 2253, section 2.4, and OpenSSL have it.
func escaped(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		c := s[i]
		last := i == len(s)-1
		switch {
		case c < ' ', c >= 0x7F:
			b = append(b, '\\', upperHex[c>>4], upperHex[c&15])
			continue
		case strings.IndexByte(`,+"\<>;`, c) >= 0, c == ' ' && (i == 0 || last), c == '#' && i == 0 && !last:
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return string(b)
}

// reversedName turns a name as records have it, in the order sent and with the escapes
// of RFC 4514, into one as Zeek's logs have it. A value of an attribute that OpenSSL does
// not know stands as it is: its type cannot be told.
func reversedName(s string) string {
	var n name
	for first := true; s != ""; {
		end := 0
		for end < len(s) && s[end] != '+' && s[end] != ',' {
			if s[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(s))
		kind, value, _ := strings.Cut(s[:end], "=")
		switch kind {
		case "SERIALNUMBER":
			kind = "serialNumber"
		case "STREET":
			kind = "street"
		default:
			if short, ok := shortNames[kind]; ok {
				kind = short
			}
		}
		if strings.HasPrefix(value, "#") {
			value = strings.ToUpper(value)
		} else {
			value = escaped(unescaped(value))
		}
		n.add(kind, value, first)
		first = strings.HasPrefix(s[end:], ",")
		s = strings.TrimPrefix(s[min(end+1, len(s)):], " ")
	}
	return n.String()
}

// unescaped undoes the escapes of RFC 4514, section 2.4.
func unescaped(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if octet, err := hex.DecodeString(s[i+1 : min(i+3, len(s))]); err == nil && len(octet) == 1 {
				b = append(b, octet[0])
				i += 2
				continue
			}
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
