package turn

import (
	"bytes"
	"strings"
	"testing"
)

const id = "\x21\x12\xa4\x42abcdefghijkl"

func TestData(t *testing.T) {
	for _, c := range []struct {
		name, b, want string
	}{
		{"channel data", "\x40\x00\x00\x05hello", "hello"},
		{"channel data, padded", "\x4f\xff\x00\x05hello\x00\x00\x00", "hello"},
		{"channel data that is cut", "\x40\x00\x00\x06hello", ""},
		{"channel data and more", "\x40\x00\x00\x01hello", ""},
		{"send indication", "\x00\x16\x00\x18" + id + "\x00\x12\x00\x08\x00\x01\x01\x02\x03\x04\x05\x06\x00\x13\x00\x05hello\x00\x00\x00", "hello"},
		{"data indication, the data first", "\x00\x17\x00\x18" + id + "\x00\x13\x00\x05hello\x00\x00\x00\x00\x12\x00\x08\x00\x01\x01\x02\x03\x04\x05\x06", "hello"},
		{"an attribute that lies", "\x00\x17\x00\x0c" + id + "\x00\x13\x00\x09hello\x00\x00\x00", ""},
		{"a message that lies", "\x00\x17\x00\x10" + id + "\x00\x13\x00\x05hello\x00\x00\x00", ""},
		{"binding request", "\x00\x01\x00\x0c" + id + "\x00\x13\x00\x05hello\x00\x00\x00", ""},
		{"no cookie", "\x00\x17\x00\x0c\x21\x12\xa4\x43abcdefghijkl\x00\x13\x00\x05hello\x00\x00\x00", ""},
		{"nothing", "", ""},
	} {
		if got := Data([]byte(c.b)); string(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		for n := range c.b {
			if got := Data([]byte(c.b[:n])); !strings.HasPrefix("hello", string(got)) {
				t.Errorf("%s, %d bytes: %q", c.name, n, got)
			}
		}
	}
}

func TestEmbedded(t *testing.T) {
	for _, c := range []struct {
		name, b, want string
	}{
		{"binding request", "\x00\x01\x00\x14" + id + "\xc0\x71\x00\x04abcd\xc0\x70\x00\x05hello\x00\x00\x00", "hello"},
		{"binding response", "\x01\x01\x00\x0c" + id + "\xc0\x70\x00\x05hello\x00\x00\x00", "hello"},
		{"empty", "\x00\x01\x00\x04" + id + "\xc0\x70\x00\x00", ""},
		{"an attribute that lies", "\x00\x01\x00\x0c" + id + "\xc0\x70\x00\x09hello\x00\x00\x00", ""},
		{"nothing", "", ""},
	} {
		for n := range len(c.b) + 1 {
			if got := Embedded([]byte(c.b[:n])); string(got) != c.want && n == len(c.b) || !strings.HasPrefix("hello", string(got)) {
				t.Errorf("%s, %d bytes: %q", c.name, n, got)
			}
		}
	}
}

func FuzzData(f *testing.F) {
	f.Add([]byte("\x40\x00\x00\x05hello"))
	f.Add([]byte("\x00\x16\x00\x18" + id + "\x00\x12\x00\x08\x00\x01\x01\x02\x03\x04\x05\x06\x00\x13\x00\x05hello\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d := Embedded(b); !bytes.Contains(b, d) || d != nil && len(d)+header+4 > len(b) {
			t.Errorf("%x of %x", d, b)
		}
		if d := Data(b); !bytes.Contains(b, d) || d != nil && len(d)+channelHeader > len(b) {
			t.Errorf("%x of %x", d, b)
		}
	})
}
