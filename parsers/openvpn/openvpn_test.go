package openvpn

import (
	"bytes"
	"testing"
)

// A ClientHello's packet, and resets, as OpenVPN 2.4 sends them with and
// without an HMAC of SHA-1.
var samples = []struct {
	name string
	b    []byte
	want Packet
}{
	{"hard reset of the client", []byte("\x38\x33\x48\x57\x70\x3d\x96\xdb\x39\x00\x00\x00\x00\x00"),
		Packet{Opcode: HardResetClientV2, Session: 0x334857703d96db39}},
	{"hard reset of the server", []byte("\x40\xd3\x1c\x3a\x69\x64\x60\x2f\xa0\x01\x00\x00\x00\x00\x33\x48\x57\x70\x3d\x96\xdb\x39\x00\x00\x00\x00"),
		Packet{Opcode: HardResetServerV2, Session: 0xd31c3a6964602fa0, Peer: 0x334857703d96db39, Acks: 1}},
	{"acknowledgement", []byte("\x28\x33\x48\x57\x70\x3d\x96\xdb\x39\x01\x00\x00\x00\x00\xd3\x1c\x3a\x69\x64\x60\x2f\xa0"),
		Packet{Opcode: Ack, Session: 0x334857703d96db39, Peer: 0xd31c3a6964602fa0, Acks: 1}},
	{"control", []byte("\x21\x33\x48\x57\x70\x3d\x96\xdb\x39\x00\x00\x00\x00\x01\x16\x03\x01"),
		Packet{Opcode: Control, Key: 1, Session: 0x334857703d96db39, ID: 1, Payload: []byte{0x16, 3, 1}}},
	{"hard reset with an HMAC", []byte("\x38\xd6\x7b\xe4\x5b\xe5\xc2\x01\xeb\x01\x64\x35\xfc\xb1\xd6\xf6\x0e\x1a\xc8\x8b\x32\x95\x46\xdc\x3c\x7a\xbf\x0b\x9e" +
		"\x00\x00\x00\x01\x5e\x3e\x7b\x98\x00\x00\x00\x00\x00"),
		Packet{Opcode: HardResetClientV2, Session: 0xd67be45be5c201eb, Digest: 20}},
}

func TestParse(t *testing.T) {
	for _, s := range samples {
		p, ok := Parse(s.b)
		if !ok || !same(&p, &s.want) {
			t.Errorf("%s: %+v, %v", s.name, p, ok)
		}
		for n := range s.b {
			if p, ok := Parse(s.b[:n]); ok && (p.Opcode != Control || p.ID != s.want.ID) {
				t.Errorf("%s, the first %d bytes: %+v", s.name, n, p)
			}
		}
	}
	for _, b := range []string{"", "\x30\x00\x00\x01", "\x48\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if p, ok := Parse([]byte(b)); ok {
			t.Errorf("%q: %+v", b, p)
		}
	}
}

func same(a, b *Packet) bool {
	return a.Opcode == b.Opcode && a.Key == b.Key && a.Session == b.Session && a.Peer == b.Peer && a.Acks == b.Acks && a.ID == b.ID &&
		a.Digest == b.Digest && bytes.Equal(a.Payload, b.Payload)
}

func TestEncrypted(t *testing.T) {
	reset := append([]byte("\x38abcdefgh\x00\x00\x00\x01\x66\x01\x02\x03"), bytes.Repeat([]byte{0xaa}, 37)...)
	if !Encrypted(reset) {
		t.Error("tls-crypt")
	}
	if _, ok := Parse(reset); ok {
		t.Error("tls-crypt is read")
	}
	answer := append(bytes.Clone(reset), make([]byte, 12)...)
	answer[0] = HardResetServerV2 << 3
	if !Encrypted(answer) || Encrypted(answer[:len(answer)-1]) || Encrypted(append(answer, 0)) {
		t.Error("the server's answer with tls-crypt")
	}
	v3 := append(bytes.Clone(reset), make([]byte, 300)...)
	v3[0], v3[len(v3)-2], v3[len(v3)-1] = 10<<3, 1, 300-256
	if !Encrypted(v3) || Encrypted(v3[:len(v3)-1]) {
		t.Error("tls-crypt-v2")
	}
	v3[9] = 0x0f
	if !Encrypted(v3) {
		t.Error("tls-crypt-v2, with early negotiation")
	}
	for _, s := range samples {
		if Encrypted(s.b) {
			t.Errorf("%s is taken for encrypted", s.name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples {
		f.Add(s.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := Parse(b)
		if !ok {
			return
		}
		if p.Opcode != b[0]>>3 || IsData(b[0]) || p.Acks > maxAcks || p.ID >= maxID || !bytes.HasSuffix(b, p.Payload) {
			t.Errorf("%+v", p)
		}
		if p.Reset() && (p.ID != 0 || len(p.Payload) > 0) || p.Opcode == Ack && p.Acks == 0 {
			t.Errorf("%+v", p)
		}
	})
}
