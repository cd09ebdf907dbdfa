package tls13

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The keys of RFC 8448, section 3.
func TestKeySchedule(t *testing.T) {
	secret := unhex(t, "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
	if got := ExpandLabel(sha256.New, secret, "tls13 key", 16); !bytes.Equal(got, unhex(t, "3fce516009c21727d0f2e4e86ee403bc")) {
		t.Errorf("key %x", got)
	}
	if got := ExpandLabel(sha256.New, secret, "tls13 iv", 12); !bytes.Equal(got, unhex(t, "5d313eb2671276ee13000b30")) {
		t.Errorf("iv %x", got)
	}
}

// Example 3 of NIST SP 800-38C, the one whose nonce is that of TLS.
func TestCCM(t *testing.T) {
	key := unhex(t, "404142434445464748494a4b4c4d4e4f")
	nonce := unhex(t, "101112131415161718191a1b")
	data := unhex(t, "000102030405060708090a0b0c0d0e0f10111213")
	plain := unhex(t, "202122232425262728292a2b2c2d2e2f3031323334353637")
	sealed := unhex(t, "e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951")
	c, err := newCCM(key, 8)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Seal(nil, nonce, plain, data); !bytes.Equal(got, sealed) {
		t.Errorf("sealed %x", got)
	}
	if got, err := c.Open([]byte("before"), nonce, sealed, data); err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
		t.Errorf("%x, %v", got, err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := c.Open(nil, nonce, bad, data); err == nil {
			t.Errorf("with byte %d changed it opens", i)
		}
		if _, err := c.Open(nil, nonce, sealed[:i], data); err == nil {
			t.Errorf("%d bytes of it open", i)
		}
	}
	for n := range 50 { // every remainder of a block, with and without data
		for _, data := range [][]byte{nil, data[:n%20]} {
			for _, tag := range []int{8, 16} {
				c, _ := newCCM(key, tag)
				text := bytes.Repeat([]byte{7}, n)
				got, err := c.Open(nil, nonce, c.Seal(nil, nonce, text, data), data)
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("%d bytes, %d of data: %x, %v", n, len(data), got, err)
				}
			}
		}
	}
}

func TestSuites(t *testing.T) {
	for _, c := range []struct {
		id       uint16
		n, count int
	}{{0, 32, 4}, {0, 48, 1}, {0, 20, 0}, {0x1301, 32, 1}, {0x1302, 48, 1}, {0x1302, 32, 0}, {0x1303, 32, 1}, {0x1304, 32, 1}, {0x1305, 32, 1}, {0xc02f, 32, 0}} {
		if l := Suites(c.id, c.n); len(l) != c.count || c.id != 0 && len(l) == 1 && l[0].ID != c.id {
			t.Errorf("%#x, %d bytes: %d", c.id, c.n, len(l))
		}
	}
	if NewStream(make([]byte, 31), 0, 0) != nil || NewDatagrams(make([]byte, 31), 0) != nil {
		t.Error("a secret of 31 bytes is of use")
	}
	if NewStream(make([]byte, 48), 0x1301, 0) == nil {
		t.Error("a secret of another suite's length must be told by what it does not open")
	}
}

// sealed is record number seq of a stream, with padding.
func sealed(t testing.TB, s *Suite, secret []byte, seq uint64, typ uint8, content []byte, padding int) (header, body []byte) {
	k, ok := newSeal(s, secret, "tls13 ")
	if !ok {
		t.Fatal("no keys")
	}
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(seq >> (56 - 8*i))
	}
	inner := append(append(bytes.Clone(content), typ), make([]byte, padding)...)
	header = binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+k.aead.Overhead()))
	return header, k.aead.Seal(nil, nonce, inner, header)
}

func TestStream(t *testing.T) {
	for _, suite := range []*Suite{AES128GCM, AES256GCM, ChaCha20, AES128CCM, AES128CCM8} {
		secret := bytes.Repeat([]byte{5}, suite.Hash().Size())
		for _, known := range []uint16{suite.ID, 0} {
			s := NewStream(secret, known, 0x0304)
			wrong := NewStream(bytes.Repeat([]byte{6}, len(secret)), known, 0x0304)
			for seq := range uint64(5) {
				header, body := sealed(t, suite, secret, seq, 22, []byte("content\x00"), int(seq))
				if _, _, ok := wrong.Open(nil, header, body, true); ok {
					t.Errorf("%#x opens with a wrong secret", suite.ID)
				}
				typ, content, ok := s.Open([]byte("x"), header, body, false)
				if !ok || typ != 22 || string(content) != "xcontent\x00" || !s.Proved() || wrong.Proved() {
					t.Fatalf("%#x, record %d: %d %q %v", suite.ID, seq, typ, content, ok)
				}
				if _, _, ok := s.Open(nil, header, body, false); ok {
					t.Error("a record opens twice")
				}
			}
			header, body := sealed(t, suite, secret, 5+tried, 22, []byte("behind a gap"), 0)
			if _, _, ok := s.Open(nil, header, body, false); ok {
				t.Error("records are passed over without a gap")
			}
			if _, content, ok := s.Open(nil, header, body, true); !ok || string(content) != "behind a gap" {
				t.Errorf("%#x: %q behind a gap", suite.ID, content)
			}
			header, body = sealed(t, suite, secret, 6+tried, 0, nil, 30)
			if _, _, ok := s.Open(nil, header, body, false); ok {
				t.Error("a record of nothing but padding has content")
			}
		}
	}
	// Drafts 20 to 24 do not authenticate the header.
	secret := make([]byte, 32)
	k, _ := newSeal(AES128GCM, secret, "tls13 ")
	body := k.aead.Seal(nil, k.iv, []byte("old\x16"), nil)
	for version, want := range map[uint16]bool{0x7f17: true, 0x7f18: true, 0x7f1c: false, 0x0304: false} {
		if _, _, ok := NewStream(secret, 0x1301, version).Open(nil, []byte{23, 3, 1, 0, 20}, body, false); ok != want {
			t.Errorf("version %#x: %v", version, ok)
		}
	}
}

// unified seals a record of DTLS 1.3 with the unified header.
func unified(t testing.TB, suite *Suite, secret []byte, seq uint64, flags byte, id, content []byte) []byte {
	k, ok := newSeal(suite, secret, "dtls13")
	if !ok {
		t.Fatal("no keys")
	}
	mask, err := NewMask(suite, ExpandLabel(suite.Hash, secret, "dtls13sn", suite.Key))
	if err != nil {
		t.Fatal(err)
	}
	inner := append(append(bytes.Clone(content), 22), make([]byte, max(0, 16-len(content)))...)
	b := append([]byte{0x20 | flags}, id...)
	at := len(b)
	if flags&0x08 != 0 {
		b = append(b, byte(seq>>8))
	}
	b = append(b, byte(seq))
	end := len(b)
	if flags&0x04 != 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(inner)+k.aead.Overhead()))
	}
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(seq >> (56 - 8*i))
	}
	n := len(b)
	b = k.aead.Seal(b, nonce, inner, b[:n:n])
	var m [SampleLength]byte
	if !mask.Of(b[n:], &m) {
		t.Fatal("no mask")
	}
	for i := at; i < end; i++ {
		b[i] ^= m[i-at]
	}
	return b
}

func TestDatagrams(t *testing.T) {
	for _, suite := range []*Suite{AES128GCM, AES256GCM, ChaCha20, AES128CCM, AES128CCM8} {
		secret := bytes.Repeat([]byte{5}, suite.Hash().Size())
		for flags := byte(0); flags < 0x20; flags += 4 {
			var id []byte
			if flags&0x10 != 0 {
				id = []byte{1, 2, 3}
			}
			s := NewDatagrams(secret, 0)
			for _, seq := range []uint64{0, 3, 1, 2, 250, 260, 255, 300} {
				b := unified(t, suite, secret, seq, flags|2, id, []byte("content"))
				two := b
				if flags&0x04 != 0 {
					two = append(bytes.Clone(b), 0x2f, 1, 2)
				}
				r, rest, ok := NextUnified(two, len(id))
				if !ok || r.Epoch != 2 || !bytes.Equal(r.Bytes, b) || len(rest) != len(two)-len(b) {
					t.Fatalf("%#x, flags %#x: %+v, %d, %v", suite.ID, flags, r, len(rest), ok)
				}
				if typ, content, ok := s.Open([]byte("x"), &r); !ok || typ != 22 || string(content) != "xcontent" {
					t.Errorf("%#x, flags %#x, record %d: %d %q %v", suite.ID, flags, seq, typ, content, ok)
				}
				for n := range b {
					if r, _, ok := NextUnified(b[:n:n], len(id)); ok {
						if _, _, ok := s.Open(nil, &r); ok {
							t.Fatalf("a prefix of %d of %d opens", n, len(b))
						}
					}
				}
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	secret := make([]byte, 32)
	header, body := sealed(t, AES128GCM, secret, 0, 22, make([]byte, 2000), 0)
	s := NewStream(secret, 0x1301, 0x0304)
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		s.next = 0
		s.Open(dst, header, body, false)
	}); n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func FuzzStream(f *testing.F) {
	secret := make([]byte, 32)
	header, body := sealed(f, ChaCha20, secret, 0, 22, []byte("content"), 3)
	f.Add(secret, header, body, false)
	f.Add(secret, header, body[1:], true)
	f.Fuzz(func(t *testing.T, secret, header, body []byte, gap bool) {
		s := NewStream(secret, 0, 0x0304)
		if (s == nil) != (len(secret) != 32 && len(secret) != 48) {
			t.Fatalf("a secret of %d bytes", len(secret))
		}
		if s == nil {
			return
		}
		dst := []byte("before")
		_, content, ok := s.Open(dst, header, body, gap)
		if !bytes.HasPrefix(content, dst) || !ok && len(content) != len(dst) || ok && !s.Proved() {
			t.Fatalf("%q, %v", content, ok)
		}
		if ok && len(content)-len(dst) > len(body)-8-1 {
			t.Errorf("%d bytes of a record of %d", len(content)-len(dst), len(body))
		}
	})
}

func FuzzUnified(f *testing.F) {
	secret := make([]byte, 32)
	for _, flags := range []byte{0x02, 0x0e, 0x1e, 0x1a} {
		var id []byte
		if flags&0x10 != 0 {
			id = []byte{1, 2}
		}
		f.Add(unified(f, AES128GCM, secret, 3, flags, id, []byte("content")), byte(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, id byte) {
		s := NewDatagrams(secret, 0)
		for n := len(b); n > 0; n = len(b) {
			r, rest, ok := NextUnified(b, int(id))
			if ok && !IsUnified(b) {
				t.Fatal("a record without the header of one")
			}
			if !ok {
				return
			}
			if len(r.Bytes)+len(rest) != n || len(r.Header)+len(r.Body) != len(r.Bytes) || len(r.Header) == 0 || r.numberAt+r.number > len(r.Header) {
				t.Fatalf("%+v, %d of %d behind", r, len(rest), n)
			}
			before := bytes.Clone(b)
			if _, content, ok := s.Open(nil, &r); ok && len(content) >= len(r.Body) {
				t.Errorf("%d bytes of %d", len(content), len(r.Body))
			}
			if !bytes.Equal(before, b) {
				t.Fatal("the datagram was changed")
			}
			b = rest
		}
	})
}
