package parsers

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// hole is a run of one direction of a stream that is missing.
type hole struct{ from, to int }

// punctured plays the chunks of direction d with holes in them, cut into
// segments at random. A capture that joins has nothing before the end of the
// first hole, and no SYN.
func punctured(t testing.TB, chunks []chunk, d event.Direction, join bool, r *rand.Rand, mss int, holes ...hole) []*event.Handshake {
	t.Helper()
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	if join {
		c.Midstream(d)
	}
	missing := func(at int) bool {
		return slices.ContainsFunc(holes, func(h hole) bool { return h.from <= at && at < h.to })
	}
	at := 0
	for i, ch := range chunks {
		m := event.Moment{Time: int64(i), Frame: uint64(i + 1)}
		for b := ch.b; len(b) > 0; {
			n, gone := min(len(b), 1+r.IntN(mss)), false
			if ch.d == d {
				gone = missing(at)
				k := 1
				for k < len(b) && missing(at+k) == gone {
					k++
				}
				if n = min(n, k); gone {
					n = k
				}
				at += n
			}
			switch {
			case !gone:
				seg := bytes.Clone(b[:n])
				c.Segment(ch.d, m, seg)
				clear(seg)
			case !join:
				c.Gap(ch.d, m, n)
			}
			b = b[n:]
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
	return s.got
}

// chained is a handshake with a chain of several certificates.
func chainedSample(t testing.TB, size int) (chunks []chunk, chain [][]byte) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	a := newAuthority()
	cert := a.issue(serverName, rsaKey(), 700)
	for i := range 4 {
		cert.Certificate = append(cert.Certificate, a.issue(fmt.Sprintf("other %d", i), ecdsaKey(), 200*i).Certificate[0])
	}
	server.Certificates[0] = cert
	chunks = handshake(t, client, server)
	if size > 0 {
		chunks = rerecord(t, chunks, size)
	}
	return chunks, cert.Certificate
}

// rerecord puts the plaintext handshake of each chunk into records of n bytes,
// one message after another.
func rerecord(t testing.TB, chunks []chunk, n int) (out []chunk) {
	t.Helper()
	var sealed [2]bool
	for _, c := range chunks {
		var b, messages []byte
		flush := func() {
			for len(messages) > 0 {
				k := min(n, len(messages))
				b = append(append(b, 22, 3, 3, byte(k>>8), byte(k)), messages[:k]...)
				messages = messages[k:]
			}
		}
		for r := c.b; len(r) > 0; {
			l := 5 + int(r[3])<<8 + int(r[4])
			if r[0] == 22 && !sealed[c.d] {
				messages = append(messages, r[5:l]...)
			} else {
				flush()
				sealed[c.d] = true
				b = append(b, r[:l]...)
			}
			r = r[l:]
		}
		flush()
		out = append(out, chunk{c.d, b})
	}
	return out
}

// whole returns the places of the bytes of each certificate in a stream of records.
func places(t testing.TB, s []byte, chain [][]byte) []hole {
	t.Helper()
	var body []byte
	var at []int
	for i := 0; i+5 <= len(s) && s[i] == 22; {
		n := int(s[i+3])<<8 | int(s[i+4])
		for j := range n {
			body, at = append(body, s[i+5+j]), append(at, i+5+j)
		}
		i += 5 + n
	}
	var l []hole
	for _, der := range chain {
		i := bytes.Index(body, der)
		if i < 0 {
			t.Fatal("a certificate is not in the stream")
		}
		l = append(l, hole{at[i], at[i+len(der)-1] + 1})
	}
	return l
}

// Every certificate whose bytes are all there is found, and no other, wherever the
// hole is and however long the records and the segments are.
func TestCertificatesBehindAHole(t *testing.T) {
	for _, size := range []int{0, 1 << 14, 4000, 1500, 700, 90} {
		chunks, chain := chainedSample(t, size)
		s := stream(1, chunks)
		spans := places(t, s, chain)
		end := spans[len(spans)-1].to
		for _, join := range []bool{false, true} {
			t.Run(fmt.Sprintf("records of %d, join %v", size, join), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(size), 5))
				for from := 0; from < end; from += 1 + r.IntN(200) {
					h := hole{from, from + 1 + r.IntN(2000)}
					switch {
					case join:
						h = hole{0, h.from}
					case r.IntN(3) == 0: // from or to the edge of a certificate
						h.from = min(spans[r.IntN(len(spans))].to, h.to-1)
					case r.IntN(2) == 0:
						h.to = max(spans[r.IntN(len(spans))].from, h.from+1)
					}
					mss := []int{1448, 1448, 3000, 200, 60, 7}[r.IntN(6)]
					got := punctured(t, chunks, 1, join, r, mss, h)
					found := map[[32]byte]bool{}
					for _, g := range got {
						for i, e := range g.Chain {
							if !e.Truncated {
								found[e.SHA256] = true
								if i == 0 != (sha256.Sum256(chain[0]) == e.SHA256) && g.Outcome == event.Extracted && h.to <= spans[1].from {
									t.Errorf("hole %v: certificate %d is %v", h, i, e.Subject.String)
								}
							}
						}
					}
					for i, der := range chain {
						sum := sha256.Sum256(der)
						there := spans[i].to <= h.from || spans[i].from >= h.to
						if there != found[sum] {
							t.Fatalf("hole %v, segments of %d: certificate %d at %v found %v", h, mss, i, spans[i], found[sum])
						}
						delete(found, sum)
					}
					if len(found) > 0 {
						t.Fatalf("hole %v: a certificate that nobody sent", h)
					}
				}
			})
		}
	}
}

// Whatever is missing, no certificate is wrong.
func TestNoWrongCertificate(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, size := range []int{0, 1500, 300, 50} {
		chunks, chain := chainedSample(t, size)
		known := map[[32]byte]bool{}
		for _, der := range chain {
			known[sha256.Sum256(der)] = true
		}
		end := len(stream(1, chunks))
		for range 150 {
			join := r.IntN(2) == 0
			holes := []hole{{0, 1 + r.IntN(end)}}
			for range r.IntN(6) {
				if from := r.IntN(end); !join {
					holes = append(holes, hole{from, from + 1 + r.IntN(200)})
				}
			}
			for _, g := range punctured(t, chunks, 1, join, r, 1+r.IntN(1500), holes...) {
				for _, e := range g.Chain {
					if !e.Truncated && !known[e.SHA256] {
						t.Fatalf("records of %d, holes %v: a certificate that nobody sent", size, holes)
					}
				}
			}
		}
	}
}

// No certificate is found in what is not TLS.
func TestNoCertificatesInOthers(t *testing.T) {
	chunks, _ := chainedSample(t, 0)
	s := stream(1, chunks)
	r := rand.New(rand.NewPCG(1, 9))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, play := range map[string]func(*Conn){
		"a file with a handshake in it": func(c *Conn) {
			c.Segment(0, still, []byte("GET /capture.pcap HTTP/1.1\r\n\r\n"))
			c.Gap(1, still, 700)
			c.Segment(1, still, append(bytes.Repeat([]byte("x"), 500), s...))
		},
		"noise": func(c *Conn) {
			c.Midstream(0)
			c.Midstream(1)
			for b := noise; len(b) > 0; b = b[min(1448, len(b)):] {
				c.Segment(1, still, b[:min(1448, len(b))])
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s2 := newSensor()
			c := s2.Open(testFlow(event.TCP))
			play(c)
			c.Close(event.EndOfInput)
			s2.check(t)
			if len(s2.got) > 0 {
				t.Errorf("%+v", s2.got[0])
			}
		})
	}
}
