package eap

import (
	"bytes"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, b string
		want    Packet
		ok      bool
	}{
		{"start", "\x01\x05\x00\x06\x0d\x20", Packet{Identifier: 5, Method: TLS, Start: true}, true},
		{"first fragment", "\x02\x05\x00\x0d\x19\xc0\x00\x00\x04\x00abc", Packet{Response: true, Identifier: 5, Method: PEAP, More: true, Total: 1024, Data: []byte("abc")}, true},
		{"last fragment, padding behind it", "\x01\x06\x00\x09\x15\x00abcd", Packet{Identifier: 6, Method: TTLS, Data: []byte("abc")}, true},
		{"acknowledgement", "\x02\x05\x00\x06\x0d\x00", Packet{Response: true, Identifier: 5, Method: TLS}, true},
		{"the start of EAP-FAST", "\x01\x05\x00\x09\x2b\x21abc", Packet{Identifier: 5, Method: FAST, Start: true}, true},
		{"identity", "\x02\x05\x00\x08\x01bob", Packet{}, false},
		{"success", "\x03\x05\x00\x04", Packet{}, false},
		{"no room for the length", "\x02\x05\x00\x08\x19\xc0\x00\x00", Packet{}, false},
		{"a length that lies", "\x02\x05\x00\x0b\x19\xc0\xff\x00\x00\x00a", Packet{}, false},
	} {
		p, ok := Parse([]byte(c.b))
		if ok != c.ok || ok && (p.Response != c.want.Response || p.Identifier != c.want.Identifier || p.Method != c.want.Method || p.More != c.want.More || p.Start != c.want.Start || p.Cut != 0 ||
			p.Total != c.want.Total || !bytes.Equal(p.Data, c.want.Data)) {
			t.Errorf("%s: %+v, %v", c.name, p, ok)
		}
		for n := range c.b {
			if q, ok := Parse([]byte(c.b[:n])); ok && (q.Method != p.Method || !bytes.HasPrefix(p.Data, q.Data) || len(q.Data)+q.Cut != len(p.Data)) {
				t.Errorf("%s, %d bytes: %+v", c.name, n, q)
			}
		}
	}
}

func TestParseEAPOL(t *testing.T) {
	for _, c := range []struct {
		name, b, packet string
		length          int
		ok              bool
	}{
		{"padded", "\x02\x00\x00\x04\x03\x05\x00\x04\x00\x00", "\x03\x05\x00\x04", 4, true},
		{"cut", "\x01\x00\x00\x06\x01\x05", "\x01\x05", 6, true},
		{"start", "\x01\x01\x00\x00", "", 0, false},
		{"key", "\x02\x03\x00\x5f\x02", "", 0, false},
		{"no version", "\x00\x00\x00\x04\x03\x05\x00\x04", "", 0, false},
		{"short", "\x01\x00\x00", "", 0, false},
	} {
		if p, length, ok := ParseEAPOL([]byte(c.b)); string(p) != c.packet || length != c.length || ok != c.ok {
			t.Errorf("%s: %q of %d, %v", c.name, p, length, ok)
		}
	}
}

// access is a RADIUS packet with attributes.
func access(code byte, attributes ...string) []byte {
	all := strings.Join(attributes, "")
	b := append([]byte{code, 7, 0, byte(20 + len(all))}, make([]byte, 16)...)
	return append(b, all...)
}

func TestParseAccess(t *testing.T) {
	first, second := "\x4f\x0c\x01\x05\x00\x0e\x0d\x00abcd", "\x4f\x06efgh"
	for _, c := range []struct {
		name   string
		b      []byte
		ok     bool
		state  string
		packet string
	}{
		{"challenge", access(11, first, "\x18\x04ab", second), true, "ab", "\x01\x05\x00\x0e\x0d\x00abcdefgh"},
		{"no state", access(11, first), true, "", "\x01\x05\x00\x0e\x0d\x00abcd"},
		{"a request from the wrong side", access(1, first), false, "", ""},
		{"an attribute that lies", access(11, first, "\x18\xffab"), false, "", ""},
		{"an attribute of nothing", access(11, first, "\x18\x00"), false, "", ""},
		{"no EAP", access(11, "\x18\x04ab"), false, "", ""},
		{"accept", access(2, "\x4f\x06\x03\x05\x00\x04"), false, "", ""},
		{"cut", access(11, first, second)[:37], false, "", ""},
	} {
		a, ok := ParseAccess(c.b)
		if ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
		if ok && (string(a.State) != c.state || string(a.AppendEAP(nil)) != c.packet || a.Identifier != 7 || a.Request) {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
}

func FuzzParseEAPOL(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x0e\x01\x05\x00\x0e\x0d\xc0\x00\x00\x04\x00abcd"))
	f.Add([]byte("\x01\x00\x00\x06\x02\x05\x00\x06\x19\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, length, ok := ParseEAPOL(b)
		if !ok {
			return
		}
		if len(e) > length || len(e) < length && len(e) != len(b)-4 {
			t.Errorf("%d of %d bytes in %x", len(e), length, b)
		}
		if p, ok := Parse(e); ok && (!bytes.Contains(e, p.Data) || p.Cut < 0 || len(p.Data)+p.Cut > 1<<16) {
			t.Errorf("%+v of %x", p, e)
		}
	})
}

func FuzzParseAccess(f *testing.F) {
	f.Add(access(11, "\x4f\x0c\x01\x05\x00\x0e\x0d\x00abcd", "\x18\x04ab", "\x4f\x06efgh"))
	f.Add(access(1, "\x4f\x0c\x02\x05\x00\x0a\x19\x80\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := ParseAccess(b)
		if !ok {
			return
		}
		e := a.AppendEAP(nil)
		if len(e) <= header || len(e) > len(b) || !bytes.Contains(b, a.State) {
			t.Errorf("%+v of %x", a, b)
		}
		if p, ok := Parse(e); ok && (p.Response != a.Request || !bytes.Contains(e, p.Data)) {
			t.Errorf("%+v of %x", p, e)
		}
	})
}
