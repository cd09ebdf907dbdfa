package dtls

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/oddcert/oddcert/parsers/tls"
)

// record is a record of epoch 0 in DTLS 1.2.
func record(typ uint8, body ...byte) []byte {
	b := []byte{typ, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// fragment is n bytes at off of a message of length bytes.
func fragment(typ uint8, seq uint16, length, off, n int) []byte {
	b := []byte{typ, byte(length >> 16), byte(length >> 8), byte(length), byte(seq >> 8), byte(seq),
		byte(off >> 16), byte(off >> 8), byte(off), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(b, bytes.Repeat([]byte{0x5a}, n)...)
}

func TestLooks(t *testing.T) {
	hello := record(tls.Handshake, fragment(tls.TypeClientHello, 0, 100, 0, 100)...)
	with := func(i int, v byte) []byte {
		b := bytes.Clone(hello)
		b[i] = v
		return b
	}
	for _, c := range []struct {
		name          string
		b             []byte
		looks, starts bool
	}{
		{"ClientHello", hello, true, true},
		{"its first fragment", record(tls.Handshake, fragment(tls.TypeClientHello, 0, 100, 0, 40)...), true, true},
		{"its second fragment", record(tls.Handshake, fragment(tls.TypeClientHello, 0, 100, 40, 60)...), true, false},
		{"with a cookie, so the second", record(tls.Handshake, fragment(tls.TypeClientHello, 1, 100, 0, 100)...), true, false},
		{"ServerHello", record(tls.Handshake, fragment(tls.TypeServerHello, 1, 80, 0, 80)...), true, false},
		{"ServerHelloDone", record(tls.Handshake, fragment(tls.ServerHelloDone, 4, 0, 0, 0)...), true, false},
		{"cut by the snaplen", hello[:40], true, true},
		{"ChangeCipherSpec", record(tls.ChangeCipherSpec, 1), true, false},
		{"alert", record(tls.Alert, 2, 40), true, false},
		{"DTLS 1.0", with(2, 0xff), true, true},
		{"old OpenSSL", func() []byte { b := with(1, 1); b[2] = 0; return b }(), true, true},
		{"another version", with(2, 0x01), true, true},
		{"another major version", with(1, 0xfd), false, false},
		{"epoch 1", with(4, 1), false, false},
		{"application data", record(tls.ApplicationData, 1, 2, 3), false, false},
		{"unknown message", with(13, 99), false, false},
		{"fragment beyond its message", record(tls.Handshake, fragment(tls.TypeClientHello, 0, 50, 20, 40)...), false, false},
		{"fragment beyond its record", with(12, 50), false, false},
		{"empty fragment of a message", record(tls.Handshake, fragment(tls.TypeClientHello, 0, 50, 20, 0)...), true, false},
		{"STUN", append([]byte{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 20)...), false, false},
		{"RTP", append([]byte{0x80, 0x60}, make([]byte, 40)...), false, false},
		{"nothing", nil, false, false},
	} {
		if got := Looks(c.b); got != c.looks {
			t.Errorf("%s: looks %v", c.name, got)
		}
		if got := Starts(c.b); got != c.starts {
			t.Errorf("%s: starts %v", c.name, got)
		}
		for n := range c.b {
			if Starts(c.b[:n:n]) && !Looks(c.b[:n:n]) {
				t.Errorf("%s: prefix of %d starts, but does not look", c.name, n)
			}
		}
		if n := testing.AllocsPerRun(10, func() { Looks(c.b) }); n > 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// TestLooksIsStrict throws random payloads at it, half of them with the first
// bytes of a record.
func TestLooksIsStrict(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 200)
	for i := range 200000 {
		for j := 0; j < len(b); j += 8 {
			binary.BigEndian.PutUint64(b[j:], r.Uint64())
		}
		if i%2 == 0 {
			copy(b, []byte{22, 0xfe, 0xfd})
		}
		if Looks(b) {
			t.Fatalf("%x", b)
		}
	}
}

func TestNext(t *testing.T) {
	a, b := record(tls.Handshake, fragment(tls.TypeServerHello, 1, 10, 0, 10)...), record(tls.ChangeCipherSpec, 1)
	both := append(bytes.Clone(a), b...)
	r, rest, ok := Next(both)
	if !ok || r.Type != tls.Handshake || r.Version != tls.VersionDTLS12 || r.Epoch != 0 || r.Length != len(a)-RecordHeader || !bytes.Equal(rest, b) {
		t.Fatalf("%+v, rest %x, %v", r, rest, ok)
	}
	f, rest, ok := NextFragment(r.Body)
	if !ok || !f.Whole() || f.Sequence != 1 || f.Length != 10 || len(rest) > 0 {
		t.Errorf("%+v, rest %x, %v", f, rest, ok)
	}
	for n := range a { // cut by the snaplen
		r, rest, ok := Next(a[:n:n])
		if ok != (n >= RecordHeader) || len(rest) > 0 || ok && len(r.Body) != n-RecordHeader {
			t.Errorf("prefix of %d: %+v, %v", n, r, ok)
		}
		if f, _, ok := NextFragment(r.Body); ok != (n >= RecordHeader+FragmentHeader) || ok && f.Whole() {
			t.Errorf("prefix of %d: %+v, %v", n, f, ok)
		}
	}
	if r, rest, ok := Next([]byte{0x2e, 1, 2, 3}); !ok || r.Epoch == 0 || len(rest) > 0 {
		t.Errorf("a record of DTLS 1.3: %+v, %v", r, ok)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(append(record(tls.Handshake, fragment(tls.TypeServerHello, 1, 10, 0, 10)...), record(tls.ChangeCipherSpec, 1)...))
	f.Add(record(tls.Handshake, append(fragment(tls.Certificate, 1, 10, 0, 5), fragment(tls.Certificate, 1, 10, 5, 5)...)...))
	f.Add([]byte{0x2e, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if Starts(b) && !Looks(b) {
			t.Error("starts, but does not look")
		}
		if Looks(b) {
			if r, _, ok := Next(Find(b)); !ok || r.Epoch != 0 {
				t.Error("looks, but has no record of epoch 0")
			} else if r.Type == tls.Handshake {
				if _, _, ok := NextFragment(r.Body); !ok {
					t.Error("looks, but has no fragment")
				}
			}
		}
		for n := len(b); n > 0; n = len(b) {
			r, rest, ok := Next(b)
			if !ok {
				return
			}
			if len(rest) >= n || len(r.Body) > r.Length {
				t.Fatalf("%d bytes after a record of %d", len(rest), n)
			}
			b = rest
			for body := r.Body; ; {
				f, rest, ok := NextFragment(body)
				if !ok {
					break
				}
				if len(rest) >= len(body) || f.Offset+len(f.Body) > f.Length {
					t.Fatalf("%+v, rest %d", f, len(rest))
				}
				body = rest
			}
		}
	})
}
