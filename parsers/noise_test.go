package parsers

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
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

// noise is a run of records that OpenSSL 3.0 or GnuTLS 3.8 pass over where a
// record of plaintext is due in direction d.
func noise(r *rand.Rand, d Direction, is13, first bool) (b []byte) {
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

// TestNoise plays handshakes with records between theirs that peers pass over,
// and with versions that they ignore.
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

// TestNoiseBehindSTARTTLS does the same behind a protocol that goes over to TLS.
func TestNoiseBehindSTARTTLS(t *testing.T) {
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
			continue // these say something
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
			if len(got) != 1 || got[0].Outcome != Extracted || len(got[0].Chain) != len(want.Chain) {
				t.Errorf("type %d, in the same record %v: %+v", typ, within, got)
			}
		}
	}
}
