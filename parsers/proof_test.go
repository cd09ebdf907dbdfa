package parsers

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// proved verifies the signature of h with the key of its leaf, with nothing of ours.
func proved(t testing.TB, h *event.Handshake) bool {
	t.Helper()
	leaf, err := x509.ParseCertificate(h.Chain[0].DER)
	if err != nil {
		t.Fatal(err)
	}
	p := &h.Proof
	digest := func(hash crypto.Hash) []byte {
		x := hash.New()
		x.Write(p.Signed)
		return x.Sum(nil)
	}
	hash := map[uint16]crypto.Hash{2: crypto.SHA1, 4: crypto.SHA256, 5: crypto.SHA384, 6: crypto.SHA512}[p.Scheme>>8]
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if p.Scheme == 0 {
			hash = crypto.SHA1
		}
		return hash != 0 && (p.Scheme == 0 || p.Scheme&0xff == 3) && ecdsa.VerifyASN1(key, digest(hash), p.Signature)
	case ed25519.PublicKey:
		return p.Scheme == uint16(tls.Ed25519) && ed25519.Verify(key, p.Signed, p.Signature)
	case *rsa.PublicKey:
		switch {
		case p.Scheme == 0:
			a, b := md5.Sum(p.Signed), sha1.Sum(p.Signed)
			return rsa.VerifyPKCS1v15(key, crypto.MD5SHA1, append(a[:], b[:]...), p.Signature) == nil
		case p.Scheme>>8 == 8: // RSA-PSS
			hash := []crypto.Hash{4: crypto.SHA256, 5: crypto.SHA384, 6: crypto.SHA512}[p.Scheme&0xff]
			return rsa.VerifyPSS(key, hash, digest(hash), p.Signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return hash != 0 && p.Scheme&0xff == 1 && rsa.VerifyPKCS1v15(key, hash, digest(hash), p.Signature) == nil
	}
	return false
}

// TestProof has the signature of every handshake of Go's TLS up to 1.2 that signs
// something, in whatever way it is cut into records and segments.
func TestProof(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		for _, suite := range []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA,
		} {
			key := crypto.Signer(rsaKey())
			if suite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA {
				key = ecdsaKey()
			}
			client, server := configs(v, key)
			client.CipherSuites, server.CipherSuites = []uint16{suite}, []uint16{suite}
			chunks := handshake(t, client, server)
			for _, record := range []int{1 << 14, 100, 1} {
				for _, n := range []int{1 << 14, 7, 1} {
					again := chunks
					if record < 1<<14 {
						again = refragment(t, chunks, record)
					}
					h := one(t, split(t, again, func(have int) int { return min(n, have) }))
					if suite == tls.TLS_RSA_WITH_AES_128_CBC_SHA {
						if h.Proof.Missing != event.ProofRSA {
							t.Errorf("%x, records of %d, segments of %d: missing %d", v, record, n, h.Proof.Missing)
						}
						continue
					}
					if h.Proof.Missing != event.ProofSeen || (h.Proof.Scheme == 0) != (v < tls.VersionTLS12) || !proved(t, h) {
						t.Errorf("%x, suite %x, records of %d, segments of %d: %+v", v, suite, record, n, h.Proof)
					}
				}
			}
		}
	}
}

// keyExchange finds the ServerKeyExchange of a handshake of TLS 1.2 in what the server
// sent: its chunk, and where the message's header begins.
func keyExchange(t testing.TB, chunks []chunk) (b []byte, at, n int) {
	for _, ch := range chunks {
		for i := 5; ch.d == 1 && i+4 < len(ch.b); {
			if ch.b[i-5] != 22 {
				break
			}
			record := int(binary.BigEndian.Uint16(ch.b[i-2:]))
			for j := i; j < i+record; {
				n := int(ch.b[j+1])<<16 | int(ch.b[j+2])<<8 | int(ch.b[j+3])
				if ch.b[j] == 12 {
					return ch.b, j, n
				}
				j += 4 + n
			}
			i += record + 5
		}
	}
	t.Fatal("no ServerKeyExchange")
	return nil, 0, 0
}

// TestProofBits flips every bit of the message: nothing is proved then.
func TestProofBits(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	b, at, n := keyExchange(t, chunks)
	whole := func(n int) int { return n }
	for i := range n * 8 {
		b[at+4+i/8] ^= 1 << (i % 8)
		h := one(t, split(t, chunks, whole))
		if h.Proof.Missing == event.ProofSeen && proved(t, h) {
			t.Errorf("proved with bit %d flipped", i)
		}
		b[at+4+i/8] ^= 1 << (i % 8)
	}
	if h := one(t, split(t, chunks, whole)); !proved(t, h) {
		t.Error("not proved")
	}
}

// TestProofTwice sends the message twice. It proves as much where it is the same, and
// nothing where it differs.
func TestProofTwice(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	b, at, n := keyExchange(t, chunks)
	message := bytes.Clone(b[at : at+4+n])
	for _, differs := range []bool{false, true} {
		second := bytes.Clone(message)
		if differs {
			second[len(second)-1]++
		}
		var l []chunk
		for _, ch := range chunks {
			if len(ch.b) > 0 && &ch.b[0] == &b[0] {
				i := at - 5 // Go sends each message in a record of its own
				record := append([]byte{22, 3, 3, byte(len(second) >> 8), byte(len(second))}, second...)
				ch.b = append(append(bytes.Clone(b[:i]), record...), b[i:]...)
			}
			l = append(l, ch)
		}
		h := one(t, split(t, l, func(n int) int { return n }))
		if differs && h.Proof.Missing != event.ProofMalformed || !differs && !proved(t, h) {
			t.Errorf("differs %v: %+v", differs, h.Proof)
		}
	}
}

// TestProofGap loses each byte of the server's flight after its hello: what is left
// proves the same, or nothing.
func TestProofGap(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	b, at, n := keyExchange(t, chunks)
	for lost := at; lost < at+4+n; lost++ {
		s := newSensor()
		c := s.Open(testFlow(event.TCP))
		for _, ch := range chunks {
			if &ch.b[0] != &b[0] {
				c.Segment(ch.d, still, ch.b)
				continue
			}
			c.Segment(ch.d, still, b[:lost])
			c.Gap(ch.d, still, 1)
			if lost+1 < len(b) {
				c.Segment(ch.d, still, b[lost+1:])
			}
		}
		c.Close(event.EndOfInput)
		if h := one(t, s.got); h.Proof.Missing != event.ProofCut {
			t.Errorf("byte %d of %d: %+v", lost-at, n, h.Proof)
		}
	}
}

// TestStaples has what Go's server sends with its certificate.
func TestStaples(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	server.Certificates[0].OCSPStaple = bytes.Repeat([]byte{0x30}, 3000)
	server.Certificates[0].SignedCertificateTimestamps = [][]byte{[]byte("one"), bytes.Repeat([]byte{2}, 120)}
	chunks := handshake(t, client, server)
	for _, n := range []int{1 << 14, 100, 1} {
		checkStaples(t, &server.Certificates[0], one(t, split(t, chunks, func(have int) int { return min(n, have) })))
	}
}

func checkStaples(t testing.TB, sent *tls.Certificate, h *event.Handshake) {
	t.Helper()
	var list []byte
	for _, sct := range sent.SignedCertificateTimestamps {
		list = append(append(list, byte(len(sct)>>8), byte(len(sct))), sct...)
	}
	list = append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)
	if !bytes.Equal(h.OCSP, sent.OCSPStaple) || !bytes.Equal(h.SCTs, list) {
		t.Errorf("OCSP %x, SCTs %x, sent %x and %x", h.OCSP, h.SCTs, sent.OCSPStaple, list)
	}
}

// TestStaples13 has what Go's server sends with its certificate in TLS 1.3, with keys.
func TestStaples13(t *testing.T) {
	var log bytes.Buffer
	client, server := configs(tls.VersionTLS13, ecdsaKey())
	server.KeyLogWriter = &log
	server.Certificates[0].OCSPStaple = bytes.Repeat([]byte{0x30}, 3000)
	server.Certificates[0].SignedCertificateTimestamps = [][]byte{[]byte("one"), bytes.Repeat([]byte{2}, 120)}
	chunks := handshake(t, client, server)
	s := keyedSensor(t, log.Bytes())
	s.play(chunks, event.EndOfInput)
	h := one(t, s.got)
	checkStaples(t, &server.Certificates[0], h)
	if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
		t.Errorf("%+v", h.Proof)
	}
}

// TestProofGap13 loses some bytes of the server's flight of TLS 1.3, with keys, at every
// place: what is left proves the same, or nothing, but is never a wrong signature.
func TestProofGap13(t *testing.T) {
	for _, c := range conversations13(t) {
		if len(c.server[0]) > 10_000 {
			continue
		}
		server := 0 // bytes of what the server sent
		for _, ch := range merge(c.chunks) {
			if ch.d == 1 {
				server += len(ch.b)
			}
		}
		seen := 0
		for _, n := range []int{1, 100, 600} {
			for lost := 0; lost < server; lost += 1 + n/10 {
				s := keyedSensor(t, c.log)
				conn := s.Open(testFlow(event.TCP))
				at := 0 // of the server's
				for _, ch := range c.chunks {
					b := ch.b
					if ch.d == 1 {
						from, to := min(max(lost-at, 0), len(b)), min(max(lost+n-at, 0), len(b))
						at += len(b)
						if from < to {
							if from > 0 {
								conn.Segment(ch.d, still, b[:from])
							}
							conn.Gap(ch.d, still, to-from)
							b = b[to:]
						}
					}
					if len(b) > 0 {
						conn.Segment(ch.d, still, b)
					}
				}
				conn.Close(event.EndOfInput)
				for _, h := range s.got {
					if h.Proof.Missing != event.ProofSeen {
						continue
					}
					seen++
					if len(h.Chain) == 0 || h.Chain[0].Truncated || !proved(t, h) {
						t.Errorf("%s: %d bytes from %d of %d lost: %+v", c.name, n, lost, server, h.Proof.Missing)
					}
				}
			}
		}
		t.Logf("%s: %d proofs", c.name, seen)
	}
}

// TestProofLosses loses some bytes of either side of a handshake of TLS 1.2 at every
// place: a signature that is still there is a good one.
func TestProofLosses(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := merge(handshake(t, client, server))
	seen := 0
	for i, broken := range chunks {
		for _, n := range []int{1, 50, 400} {
			for lost := 0; lost < len(broken.b); lost += 1 + n/10 {
				s := newSensor()
				c := s.Open(testFlow(event.TCP))
				for j, ch := range chunks {
					b := ch.b
					if i == j {
						to := min(lost+n, len(b))
						if lost > 0 {
							c.Segment(ch.d, still, b[:lost])
						}
						c.Gap(ch.d, still, to-lost)
						b = b[to:]
					}
					if len(b) > 0 {
						c.Segment(ch.d, still, b)
					}
				}
				c.Close(event.EndOfInput)
				for _, h := range s.got {
					if h.Proof.Missing != event.ProofSeen || len(h.Chain) == 0 || h.Chain[0].Truncated {
						continue
					}
					if seen++; !proved(t, h) {
						t.Errorf("%d bytes from %d of chunk %d lost: %+v", n, lost, i, h.Proof)
					}
				}
			}
		}
	}
	if seen == 0 {
		t.Error("nothing was proved")
	}
}

// TestProofLossesQUIC loses each datagram of a handshake of QUIC, with keys.
func TestProofLossesQUIC(t *testing.T) {
	c := quicConversation(t)
	seen := 0
	for lost := range c.chunks {
		s := keyedSensor(t, c.log)
		conn := s.Open(testFlow(event.UDP))
		for i, ch := range c.chunks {
			if i != lost {
				conn.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, ch.b)
			}
		}
		conn.Close(event.EndOfInput)
		for _, h := range s.got {
			if h.Proof.Missing != event.ProofSeen {
				continue
			}
			if seen++; !proved(t, h) {
				t.Errorf("without datagram %d: %+v", lost, h.Proof)
			}
		}
	}
	if seen == 0 {
		t.Error("nothing was proved")
	}
}
