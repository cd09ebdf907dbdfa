package parsers

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	wire "github.com/oddcert/oddcert/parsers/tls"
)

// rawRecord is one record of a stream.
func rawRecord(typ byte, version uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typ}, version)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// oddVersion is a version that receivers ignore in a record of TLS: most often
// one of major version 3.
func oddVersion(r *rand.Rand, first bool) uint16 {
	if first && r.IntN(4) == 0 {
		return uint16(r.IntN(0x1000)) // crypto/tls takes these for the first record
	}
	return 0x0300 | uint16(r.IntN(256))
}

// noise returns records that OpenSSL 3.0 or GnuTLS 3.8 ignore where a record of
// plaintext is due in direction d.
func noise(r *rand.Rand, d event.Direction, is13, first bool) (b []byte) {
	for range r.IntN(4) {
		v := oddVersion(r, false)
		switch r.IntN(6) {
		case 0, 1, 2:
			b = append(b, rawRecord(byte(20+r.IntN(4)), v)...)
		case 3:
			if d == 1 { // crypto/tls writes one message a record
				b = append(b, rawRecord(22, v, 0, 0, 0, 0)...)
			}
		case 4:
			if !is13 || first {
				b = append(b, rawRecord(21, v, 1, byte(100+r.IntN(20)))...)
			}
		case 5:
			if !is13 || first {
				b = append(b, rawRecord(21, v, bytes.Repeat([]byte{byte(1 + 2*r.IntN(2)), 112}, 1+r.IntN(4))...)...)
			}
		}
	}
	return b
}

// noisy puts noise before every record of plaintext, and changes the versions.
func noisy(r *rand.Rand, chunks []chunk, is13 bool) (out []chunk) {
	var sealed, begun [2]bool
	for _, c := range chunks {
		var b []byte
		for rest := c.b; len(rest) > 0; {
			n := 5 + int(binary.BigEndian.Uint16(rest[3:]))
			record := bytes.Clone(rest[:n])
			rest = rest[n:]
			sealed[c.d] = sealed[c.d] || record[0] == 23
			if !sealed[c.d] {
				b = append(b, noise(r, c.d, is13, !begun[c.d])...)
				binary.BigEndian.PutUint16(record[1:], oddVersion(r, !begun[c.d]))
				begun[c.d] = true
			}
			sealed[c.d] = sealed[c.d] || record[0] == 20 && !is13
			b = append(b, record...)
		}
		out = append(out, chunk{c.d, b})
	}
	return out
}

// TestNoise plays handshakes with records between theirs that peers ignore, and with
// versions that they ignore.
func TestNoise(t *testing.T) {
	for _, s := range samples(t) {
		is13 := strings.Contains(s.name, "1.3") || s.name == "retry"
		t.Run(s.name, func(t *testing.T) {
			want := one(t, split(t, s.chunks, func(n int) int { return n }))
			for seed := range uint64(300) {
				r := rand.New(rand.NewPCG(seed, 7))
				chunks := noisy(r, s.chunks, is13)
				cut := func(n int) int { return n }
				switch seed % 3 {
				case 1:
					cut = func(n int) int { return 1 + r.IntN(n) }
				case 2:
					cut = func(n int) int { return 1 + r.IntN(min(n, 6)) }
				}
				got := split(t, chunks, cut)
				if len(got) != 1 || !alike(got[0], want) {
					for _, c := range chunks {
						t.Logf("%d %x", c.d, c.b[:min(len(c.b), 64)])
					}
					t.Fatalf("seed %d: %+v\nwant %+v", seed, got, want)
				}
			}
		})
	}
}

// TestNoiseAfterSTARTTLS does the same after a protocol that upgrades to TLS.
func TestNoiseAfterSTARTTLS(t *testing.T) {
	before := []chunk{{1, []byte("220 mail.example ESMTP\r\n")}, {0, []byte("EHLO a\r\n")},
		{1, []byte("250-mail.example\r\n250 STARTTLS\r\n")}, {0, []byte("STARTTLS\r\n")}, {1, []byte("220 go\r\n")}}
	for _, s := range samples(t) {
		is13 := strings.Contains(s.name, "1.3") || s.name == "retry"
		want := one(t, split(t, append(before[:5:5], s.chunks...), func(n int) int { return n }))
		for seed := range uint64(100) {
			r := rand.New(rand.NewPCG(seed, 8))
			got := split(t, append(before[:5:5], noisy(r, s.chunks, is13)...), func(n int) int { return 1 + r.IntN(n) })
			if len(got) != 1 || !alike(got[0], want) {
				t.Fatalf("%s, seed %d: %+v\nwant %+v", s.name, seed, got, want)
			}
		}
	}
}

// TestNoiseMidstream plays flows whose capture may have begun in the middle: no
// certificate is missing.
func TestNoiseMidstream(t *testing.T) {
	for _, s := range samples(t) {
		want := one(t, split(t, s.chunks, func(n int) int { return n }))
		if want.Outcome != event.Extracted {
			continue
		}
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 8))
			p := newSensor()
			c := p.Open(testFlow(event.TCP))
			c.Midstream(0)
			c.Midstream(1)
			for _, ch := range noisy(r, s.chunks, false) {
				for b := ch.b; len(b) > 0; {
					n := min(len(b), 1+r.IntN(1448))
					c.Segment(ch.d, still, b[:n])
					b = b[n:]
				}
			}
			c.Close(event.EndOfInput)
			if h := one(t, p.got); h.Outcome != event.Extracted || len(h.Chain) != len(want.Chain) || len(h.ClientChain) != len(want.ClientChain) {
				t.Errorf("%s, seed %d: outcome %v, %v, chains of %d and %d", s.name, seed, h.Outcome, h.Loss, len(h.Chain), len(h.ClientChain))
			}
		}
	}
}

// TestEarlyChangeCipherSpec plays a server that sends one before its hello,
// which a client that may speak TLS 1.3 ignores.
func TestEarlyChangeCipherSpec(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	want := one(t, split(t, chunks, func(n int) int { return n }))
	for i, c := range chunks {
		if c.d == 1 {
			chunks[i].b = append(rawRecord(20, 0x0303, 1), c.b...)
			break
		}
	}
	for k := range 12 {
		got := split(t, chunks, func(n int) int { return min(n, k+1) })
		if len(got) != 1 || !alike(got[0], want) {
			t.Errorf("%d bytes: %+v", k+1, got)
		}
	}
}

// TestUnknownMessage plays a server that sends messages of types that are not
// known, or are not due, before its certificate.
func TestUnknownMessage(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	want := one(t, split(t, chunks, func(n int) int { return n }))
	for typ := range 256 {
		if typ == 1 || typ == 2 || typ == 3 || typ == 6 || typ == 11 || typ == 12 || typ == 13 || typ == 14 || typ == 16 {
			continue // these have a meaning
		}
		for _, within := range []bool{false, true} {
			l := bytes.Clone(stream(1, chunks))
			n := 5 + int(binary.BigEndian.Uint16(l[3:])) // the ServerHello
			message := []byte{byte(typ), 0, 0, 5, 1, 2, 3, 4, 5}
			record := rawRecord(22, 0x0303, message...)
			if within {
				record = rawRecord(22, 0x0303, append(message, l[5:n]...)...)
				l, n = l[n:], 0
			}
			l = append(append(bytes.Clone(l[:n]), record...), l[n:]...)
			got := split(t, []chunk{{0, stream(0, chunks)}, {1, l}}, func(n int) int { return min(n, 100) })
			if len(got) != 1 || got[0].Outcome != event.Extracted || len(got[0].Chain) != len(want.Chain) {
				t.Errorf("type %d, in the same record %v: %+v", typ, within, got)
			}
		}
	}
}

// TestDatagramNoise puts records before those of a handshake, in the same
// datagrams, that receivers discard.
func TestDatagramNoise(t *testing.T) {
	l, _ := dtlsSample(t)
	datagram := func(b []byte) bool { return Looks(b) }
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		clean := datagrams(l, 200+r.IntN(1200))
		want := one(t, playDatagrams(t, clean))
		dirty := make([]chunk, 0, len(clean))
		sealed := [2]bool{}
		for _, c := range clean {
			var b []byte
			sealed[c.d] = sealed[c.d] || c.b[0] == 20
			for range r.IntN(4) {
				record := dtlsRecord(byte(20+r.IntN(7)), 0, nil)
				switch r.IntN(5) {
				case 0: // of another epoch, which may come early
					record = dtlsRecord(22, 1, make([]byte, 40))
				case 1:
					record = dtlsRecord(22, 0, append([]byte{99, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3}, 1, 2, 3))
				case 2:
					record = dtlsRecord(21, 0, []byte{1, 112})
				case 3: // with a connection ID
					record = dtlsRecord(25, 1, nil)
					record = append(append(record[:11], make([]byte, r.IntN(20))...), 0, 30)
					record = append(record, bytes.Repeat([]byte{0xaa}, 30)...)
				}
				record[2] = byte(r.IntN(256))
				b = append(b, record...)
			}
			b = append(b, c.b...)
			if b[len(b)-len(c.b)] == 22 {
				b[len(b)-len(c.b)+2] = byte(r.IntN(256))
			}
			if datagram(c.b) && !datagram(b) || Starts(c.b) && !Starts(b) {
				t.Fatalf("seed %d: not taken for a handshake: %x", seed, b[:min(len(b), 80)])
			}
			dirty = append(dirty, chunk{c.d, b})
		}
		got := playDatagrams(t, dirty)
		if len(got) != 1 || !alike(got[0], want) {
			t.Fatalf("seed %d: %+v\nwant %+v", seed, *got[0], *want)
		}
	}
}

// tlcp makes a recorded handshake of TLS 1.2 one of TLCP, as far as it is in
// plaintext.
func tlcp(chunks []chunk, suite uint16) (out []chunk) {
	var sealed [2]bool
	for _, c := range chunks {
		b := bytes.Clone(c.b)
		for r := b; len(r) > 0; {
			n := 5 + int(binary.BigEndian.Uint16(r[3:]))
			binary.BigEndian.PutUint16(r[1:], 0x0101)
			if r[0] == 22 && !sealed[c.d] && r[5] <= 2 {
				binary.BigEndian.PutUint16(r[9:], 0x0101)
				if r[5] == 2 {
					binary.BigEndian.PutUint16(r[44+int(r[43]):], suite)
				}
			}
			sealed[c.d] = sealed[c.d] || r[0] == 20
			r = r[n:]
		}
		out = append(out, chunk{c.d, b})
	}
	return out
}

// TestTLCP plays TLCP (GB/T 38636-2020). Its messages are those of TLS 1.1 with
// another version, and servers have a second certificate, for encryption.
func TestTLCP(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	encryption := newAuthority().issue(serverName, rsaKey(), 0)
	server.Certificates[0].Certificate = [][]byte{server.Certificates[0].Certificate[0], encryption.Certificate[0], encryption.Certificate[1]}
	chunks := tlcp(handshake(t, client, server), 0xe013)
	for k := range 20 {
		h := one(t, split(t, chunks, func(n int) int { return min(n, k*k+1) }))
		if protocol, number := wire.VersionName(h.Version); protocol != "tlcp" || number != "1.1" || !h.Established || h.Carrier != "tls" {
			t.Errorf("%s %s, established %v, carrier %s", protocol, number, h.Established, h.Carrier)
		}
		if name := wire.CipherSuiteName(h.CipherSuite); name != "ECC_SM4_CBC_SM3" {
			t.Errorf("suite %s", name)
		}
		wantChain(t, h.Chain, server.Certificates[0].Certificate)
	}
	for seed := range uint64(100) { // what comes after a hole is found
		r := rand.New(rand.NewPCG(seed, 3))
		from := 200 + r.IntN(300)
		got := punctured(t, chunks, 1, false, r, 1448, hole{from, from + 1 + r.IntN(100)})
		if len(got) != 1 || len(got[0].Chain) == 0 {
			t.Errorf("seed %d: %+v", seed, got)
		}
	}
	h := one(t, split(t, tlcp(chunks, 0xe017), func(n int) int { return n }))
	if h.Outcome != event.None {
		t.Errorf("keys of identities: %v", h.Outcome)
	}
}

// TestDTLCP plays the same over datagrams.
func TestDTLCP(t *testing.T) {
	l, chain := dtlsSample(t)
	for i := range l {
		if l[i].typ <= 2 {
			binary.BigEndian.PutUint16(l[i].body, 0x0101)
		}
	}
	chunks := datagrams(l, 300)
	for _, c := range chunks {
		binary.BigEndian.PutUint16(c.b[1:], 0x0101)
		if !Looks(c.b) {
			t.Errorf("%x", c.b[:20])
		}
	}
	h := one(t, playDatagrams(t, chunks))
	if protocol, number := wire.VersionName(h.Version); protocol != "tlcp" || number != "1.1" || h.Carrier != "dtls" {
		t.Errorf("%s %s, carrier %s", protocol, number, h.Carrier)
	}
	wantChain(t, h.Chain, chain)
}

// TestNoiseAfterSSLv2 plays a client that begins with a hello of SSLv2, of every
// form that OpenSSL takes, and noise in what follows.
func TestNoiseAfterSSLv2(t *testing.T) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	l := handshake(t, client, server)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		version, ciphers, session, challenge := byte(r.IntN(256)), 3*(1+r.IntN(20)), r.IntN(33), r.IntN(40)
		hello := []byte{0, 0, 1, 3, version, 0, byte(ciphers), 0, byte(session), 0, byte(challenge)}
		hello = append(hello, make([]byte, ciphers+session+challenge)...)
		binary.BigEndian.PutUint16(hello, 0x8000|uint16(len(hello)-2))
		dirty := noisy(r, l, false)
		own, rest := stream(0, l), stream(0, dirty)
		n := 5 + int(binary.BigEndian.Uint16(own[3:]))
		i := bytes.Index(rest, own[5:n]) + n - 5 // after its own hello
		chunks := []chunk{{0, hello}, {1, stream(1, dirty)}, {0, rest[i:]}}
		got := split(t, chunks, func(n int) int { return 1 + r.IntN(n) })
		if len(got) != 1 || got[0].Outcome != event.Extracted || got[0].Client != 0 || !got[0].Established || got[0].Carrier != "tls" {
			t.Fatalf("seed %d: %+v", seed, got)
		}
		wantChain(t, got[0].Chain, server.Certificates[0].Certificate)
	}
}
