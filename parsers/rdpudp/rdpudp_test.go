package rdpudp

import (
	"bytes"
	"testing"
)

// synOf is a SYN filled with zeros.
func synOf(head string) []byte { return append([]byte(head), make([]byte, 1232-len(head))...) }

const cookie = "0123456789abcdef0123456789abcdef"

func TestParseSYN(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want SYN
		ok   bool
	}{
		{"version 1", synOf("\xff\xff\xff\xff\x00\x40\x00\x01\x11\x22\x33\x44\x04\xd0\x04\xd0"), SYN{Initial: 0x11223344, Peer: 1<<32 - 1, Version: Version1}, true},
		{"version 2, lossy", synOf("\xff\xff\xff\xff\x00\x40\x12\x01\x11\x22\x33\x44\x04\xd0\x04\xd0\x00\x01\x00\x02"), SYN{Initial: 0x11223344, Peer: 1<<32 - 1, Lossy: true, Version: Version2}, true},
		{"correlation, version 3", synOf("\xff\xff\xff\xff\x00\x40\x18\x01\x11\x22\x33\x44\x04\xd0\x04\x6c" + cookie + "\x00\x01\x01\x01" + cookie), SYN{Initial: 0x11223344, Peer: 1<<32 - 1, Version: Version3}, true},
		{"answer", synOf("\x11\x22\x33\x44\x00\x40\x10\x05\x55\x66\x77\x88\x04\xd0\x04\xd0\x00\x01\x00\x02"), SYN{Answer: true, Initial: 0x55667788, Peer: 0x11223344, Version: Version2}, true},
		{"acknowledges nothing", synOf("\x11\x22\x33\x44\x00\x40\x00\x01\x55\x66\x77\x88\x04\xd0\x04\xd0"), SYN{}, false},
		{"no zeros", bytes.Repeat([]byte{0xff, 0xff, 0xff, 0xff, 4, 0xd0, 0, 1}, 150), SYN{}, false},
		{"data in it", synOf("\xff\xff\xff\xff\x00\x40\x00\x09\x11\x22\x33\x44\x04\xd0\x04\xd0"), SYN{}, false},
		{"too long datagrams", synOf("\xff\xff\xff\xff\x00\x40\x00\x01\x11\x22\x33\x44\x05\xd0\x04\xd0"), SYN{}, false},
		{"short", []byte("\xff\xff\xff\xff\x00\x40\x00\x01\x11\x22\x33\x44\x04\xd0\x04\xd0"), SYN{}, false},
	} {
		if s, ok := ParseSYN(c.b); ok != c.ok || ok && s != c.want {
			t.Errorf("%s: %+v, %v", c.name, s, ok)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, b string
		near    uint32
		number  uint32
		piece   string
		ok      bool
	}{
		{"data alone", "\x00\x00\x00\x09\x00\x40\x00\x08\x00\x00\x00\x07\x00\x00\x00\x05abc", 4, 5, "abc", true},
		{"padded vector", "\x00\x00\x00\x09\x00\x40\x00\x0c\x00\x03\x01\x02\x03\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x05abc", 4, 5, "abc", true},
		{"no padding", "\x00\x00\x00\x09\x00\x40\x00\x0c\x00\x03\x01\x02\x03\x00\x00\x00\x07\x00\x00\x00\x05abc", 4, 5, "abc", true},
		{"a number that wraps", "\x00\x00\x00\x09\x00\x40\x01\x0c\x00\x02\x01\x02\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x00abc", 1<<32 - 2, 0, "abc", true},
		{"far", "\x00\x00\x00\x09\x00\x40\x00\x08\x00\x00\x00\x07\x00\x01\x00\x05abc", 4, 0, "", false},
		{"repair", "\x00\x00\x00\x09\x00\x40\x00\x18\x00\x00\x00\x07\x00\x00\x00\x05abc", 4, 0, "", false},
		{"a vector that lies", "\x00\x00\x00\x09\x00\x40\x00\x0c\xff\xff\x01\x02\x00\x00\x00\x07\x00\x00\x00\x05abc", 4, 0, "", false},
	} {
		if n, p, ok := Parse([]byte(c.b), c.near); ok != c.ok || ok && (n != c.number || string(p) != c.piece) {
			t.Errorf("%s: %d, %q, %v", c.name, n, p, ok)
		}
		for n := range c.b {
			if _, p, ok := Parse([]byte(c.b[:n]), c.near); ok && !bytes.HasPrefix([]byte(c.piece), p) {
				t.Errorf("%s: %q of %d bytes", c.name, p, n)
			}
		}
	}
}

func TestParse3(t *testing.T) {
	for _, c := range []struct {
		name, b string
		number  uint16
		piece   string
		ok      bool
	}{
		{"data alone", "a\x04\x40\x21\x00\x34\x12\x0ebc", 0x1234, "abc", true}, // its first byte is the first
		{"with all others", "\x03\x5d\x41\x01\x00\x01\x02\x0e\x04\x22\xaa\xbb\x0b\x08\xc8\x00\x05\x00\x21\x00\x01\x00\x81\x01\x02\x03\x04\x7f\x34\x12abc", 0x1234, "abc", true},
		{"dummy", "a\x04\x40\x21\x00\x34\x12\x10bc", 0, "", false},
		{"acknowledgement", "\x03\x01\x40\x01\x00\x01\x02\x0e\x04\x00", 0, "", false},
		{"a flag that nobody knows", "a\x04\x42\x21\x00\x34\x12\x0ebc", 0, "", false},
	} {
		n, p, _, ok := Parse3([]byte(c.b), nil)
		if ok != c.ok || ok && (n != c.number || string(p) != c.piece) {
			t.Errorf("%s: %#x, %q, %v", c.name, n, p, ok)
		}
		for n := range c.b {
			if _, p, _, ok := Parse3([]byte(c.b[:n]), nil); ok && !bytes.HasPrefix([]byte(c.piece), p) {
				t.Errorf("%s: %q of %d bytes", c.name, p, n)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(synOf("\xff\xff\xff\xff\x00\x40\x18\x01\x11\x22\x33\x44\x04\xd0\x04\x6c"+cookie+"\x00\x01\x01\x01"+cookie), uint32(0))
	f.Add([]byte("\x00\x00\x00\x09\x00\x40\x01\x0c\x00\x03\x01\x02\x03\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x05abc"), uint32(4))
	f.Add([]byte("\x03\x5d\x41\x01\x00\x01\x02\x0e\x04\x22\xaa\xbb\x0b\x08\xc8\x00\x05\x00\x21\x00\x01\x00\x81\x01\x02\x03\x04\x7f\x34\x12abc"), uint32(4))
	f.Fuzz(func(t *testing.T, b []byte, near uint32) {
		before := bytes.Clone(b)
		if n, p, ok := Parse(b, near); ok && (n-near+maxAhead > 2*maxAhead || !bytes.HasSuffix(b, p)) {
			t.Errorf("%d near %d, %x of %x", n, near, p, b)
		}
		if _, p, scratch, ok := Parse3(b, nil); ok && (len(scratch) != len(b) || !bytes.HasSuffix(scratch, p)) {
			t.Errorf("%x of %x", p, b)
		}
		if s, ok := ParseSYN(b); ok && (len(b) < shortestSYN || s.Answer == (b[7]&flagACK == 0)) {
			t.Errorf("%+v of %x", s, b)
		}
		if !bytes.Equal(b, before) {
			t.Error("the datagram was changed")
		}
	})
}
