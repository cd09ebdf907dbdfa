package output

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed suites.txt
var suitesText string

//go:embed groups.txt
var groupsText string

// names is a table from a 16-bit value to its registered name.
type names [256]*[256]string

var (
	suites = parseNames(suitesText)
	groups = parseNames(groupsText)
)

func parseNames(text string) *names {
	t := new(names)
	for line := range strings.Lines(text) {
		value, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseUint(value, 16, 16)
		if !ok || err != nil {
			continue // a comment
		}
		t.set(uint16(v), name)
	}
	for i := range 16 { // RFC 8701, section 2
		t.set(uint16(i<<12|0x0a00|i<<4|0x0a), "GREASE")
	}
	return t
}

func (t *names) set(v uint16, name string) {
	if t[v>>8] == nil {
		t[v>>8] = new([256]string)
	}
	t[v>>8][v&0xff] = name
}

// append appends the name of v in quotes, or its four hex digits after 0x when
// it has none.
func (t *names) append(b []byte, v uint16) []byte {
	b = append(b, '"')
	if page := t[v>>8]; page != nil && page[v&0xff] != "" {
		b = append(b, page[v&0xff]...)
	} else {
		b = append(b, '0', 'x')
		b = appendHex(b, []byte{byte(v >> 8), byte(v)})
	}
	return append(b, '"')
}

// version returns tls.version and tls.version_protocol for a version as it is
// on the wire.
func version(v uint16) (number, protocol string) {
	switch v {
	case 0x0002:
		return "2.0", "ssl"
	case 0x0300:
		return "3.0", "ssl"
	case 0x0301:
		return "1.0", "tls"
	case 0x0302:
		return "1.1", "tls"
	case 0x0303:
		return "1.2", "tls"
	case 0x0304:
		return "1.3", "tls"
	case 0x0100: // DTLS1_BAD_VER, OpenSSL before DTLS 1.0 was done
		return "0.9", "dtls"
	case 0xfeff:
		return "1.0", "dtls"
	case 0xfefd:
		return "1.2", "dtls"
	case 0xfefc:
		return "1.3", "dtls"
	}
	switch v >> 8 {
	case 0x7f, 0xfb: // drafts of TLS 1.3
		return "1.3", "tls"
	case 0xfe:
		return fmt.Sprintf("0x%04X", v), "dtls"
	}
	return fmt.Sprintf("0x%04X", v), "tls"
}
