package parsers

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/record"
)

// sample is one recorded handshake and what is known of it.
type sample struct {
	name   string
	chunks []chunk
	known  map[[32]byte]bool // the certificates that were sent
}

// samples are handshakes of several kinds.
func samples(t testing.TB) []sample {
	var l []sample
	add := func(name string, client, server *tls.Config) {
		s := sample{name: name, chunks: handshake(t, client, server), known: map[[32]byte]bool{}}
		for _, c := range append(client.Certificates, server.Certificates...) {
			for _, der := range c.Certificate {
				s.known[sha256.Sum256(der)] = true
			}
		}
		l = append(l, s)
	}
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		client, server := configs(v, ecdsaKey())
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		add(tls.VersionName(v), client, server)
		add(tls.VersionName(v)+" resumed", client, server)
	}
	client, server := configs(tls.VersionTLS12, rsaKey())
	server.ClientAuth = tls.RequestClientCert
	client.Certificates = []tls.Certificate{newAuthority().issue("client", ecdsaKey(), 0)}
	add("mutual", client, server)
	client, server = configs(tls.VersionTLS13, ecdsaKey())
	client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}
	server.CurvePreferences = []tls.CurveID{tls.CurveP384}
	add("retry", client, server)
	client, server = configs(tls.VersionTLS12, ecdsaKey())
	client.ServerName = "other.example"
	add("alert", client, server)
	return l
}

// still is a moment for all packets, where it must not matter how a stream is cut.
var still = event.Moment{Time: 1, Frame: 1}

// split plays chunks, each cut by cut into segments.
func split(t testing.TB, chunks []chunk, cut func(n int) int) []*event.Handshake {
	t.Helper()
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	for _, ch := range chunks {
		for b := ch.b; len(b) > 0; {
			n := cut(len(b))
			seg := bytes.Clone(b[:n])
			c.Segment(ch.d, still, seg)
			clear(seg) // it was only borrowed
			b = b[n:]
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
	for _, h := range s.got {
		h.Flow = nil
	}
	return s.got
}

func TestAnySplit(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			want := split(t, s.chunks, func(n int) int { return n })
			one(t, want)
			same := func(name string, got []*event.Handshake) {
				if len(got) != 1 || !alike(got[0], want[0]) {
					t.Errorf("%s: %+v\nwant %+v", name, got, want[0])
				}
			}
			for k := 1; k < 24; k++ {
				same(fmt.Sprintf("every %d bytes", k), split(t, s.chunks, func(n int) int { return min(k, n) }))
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				same("at random", split(t, s.chunks, func(n int) int { return 1 + r.IntN(n) }))
			}
			for k := 1; k < 24; k++ {
				same(fmt.Sprintf("records of %d bytes", k), split(t, refragment(t, s.chunks, k), func(n int) int { return n }))
			}
			same("records of 1 byte, byte by byte", split(t, refragment(t, s.chunks, 1), func(n int) int { return 1 }))
		})
	}
}

// alike compares handshakes; the certificates of two parsers are two copies.
func alike(a, b *event.Handshake) bool { return reflect.DeepEqual(a, b) }

// refragment cuts the plaintext handshake records into records of at most n
// bytes, with empty ones between.
func refragment(t testing.TB, chunks []chunk, n int) (out []chunk) {
	t.Helper()
	var sealed [2]bool
	for _, c := range chunks {
		var b []byte
		for r := c.b; len(r) > 0; {
			l := int(r[3])<<8 | int(r[4])
			head, body := r[:5], r[5:5+l]
			r = r[5+l:]
			if head[0] != 22 || sealed[c.d] {
				sealed[c.d] = sealed[c.d] || head[0] == 23 || head[0] == 20 && !retried(chunks)
				b = append(append(b, head...), body...)
				continue
			}
			for first := true; len(body) > 0; first = false {
				k := min(n, len(body))
				b = append(append(b, 22, head[1], head[2], byte(k>>8), byte(k)), body[:k]...)
				if body = body[k:]; first {
					b = append(b, 22, head[1], head[2], 0, 0)
				}
			}
		}
		out = append(out, chunk{c.d, b})
	}
	return out
}

// retried reports whether the second ClientHello comes after a ChangeCipherSpec.
func retried(chunks []chunk) bool {
	return bytes.Contains(stream(1, chunks), []byte{0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11})
}

// hashes fails when a certificate is reported that was not sent, and returns
// whether the leaf, and one that was cut, are there.
func (s *sample) hashes(t testing.TB, got []*event.Handshake) (leaf, cut bool) {
	t.Helper()
	for _, h := range got {
		for _, e := range append(h.Chain[:len(h.Chain):len(h.Chain)], h.ClientChain...) {
			switch {
			case e.Truncated:
				cut = true
				if e.SHA256 != [32]byte{} || e.DER != nil {
					t.Errorf("%s: a truncated certificate has a hash", s.name)
				}
			case !s.known[e.SHA256]:
				t.Errorf("%s: a certificate that was not sent", s.name)
			}
		}
		if (h.Outcome == event.Extracted) != (len(h.Chain) > 0 && !h.Chain[0].Truncated) {
			t.Errorf("%s: outcome %v with a chain of %d", s.name, h.Outcome, len(h.Chain))
		}
		if (h.Outcome == event.Lost) != (h.Loss != event.NoLoss) {
			t.Errorf("%s: outcome %v, loss %v", s.name, h.Outcome, h.Loss)
		}
		leaf = leaf || h.Outcome == event.Extracted
	}
	return leaf, cut
}

// merge makes one chunk of neighbours of the same direction.
func merge(chunks []chunk) (l []chunk) {
	for _, c := range chunks {
		if n := len(l); n > 0 && l[n-1].d == c.d {
			l[n-1].b = append(l[n-1].b, c.b...)
			continue
		}
		l = append(l, chunk{c.d, bytes.Clone(c.b)})
	}
	return l
}

func TestEveryPrefix(t *testing.T) {
	for _, s := range samples(t) {
		total := 0
		for _, c := range s.chunks {
			total += len(c.b)
		}
		cuts := 0
		p := newSensor()
		for n := range total {
			var l []chunk
			for rest, i := n, 0; rest > 0; i++ {
				k := min(rest, len(s.chunks[i].b))
				l = append(l, chunk{s.chunks[i].d, s.chunks[i].b[:k]})
				rest -= k
			}
			p.got = nil
			p.play(l, event.EndOfInput)
			p.check(t)
			if n >= 11 {
				h := one(t, p.got)
				if h.Outcome == event.Lost && h.Loss != event.EndOfInput && h.Loss != event.Gap {
					t.Errorf("%s cut at %d: lost by %v", s.name, n, h.Loss)
				}
			}
			if _, cut := s.hashes(t, p.got); cut {
				cuts++
			}
		}
		if s.name == "TLS 1.2" && cuts < 500 {
			t.Errorf("%s: %d prefixes have a truncated certificate", s.name, cuts)
		}
	}
}

// TestGaps takes bytes out at every place, and reports the gap as package flow does.
func TestGaps(t *testing.T) {
	for _, s := range samples(t) {
		chunks := merge(s.chunks)
		p := newSensor()
		for i, c := range chunks {
			for from := 0; from < len(c.b); from += 17 {
				for _, n := range []int{1, 30, 200, 1460, 5000} {
					to := min(from+n, len(c.b))
					p.got = nil
					conn := p.Open(testFlow(event.TCP))
					for j, o := range chunks {
						if j != i {
							conn.Segment(o.d, still, o.b)
							continue
						}
						conn.Segment(o.d, still, o.b[:from])
						conn.Gap(o.d, still, to-from)
						for b := o.b[to:]; len(b) > 0; {
							k := min(300, len(b))
							conn.Segment(o.d, still, b[:k])
							b = b[k:]
						}
					}
					conn.Close(event.EndOfInput)
					p.check(t)
					leaf, _ := s.hashes(t, p.got)
					if c.d == 0 && (s.name == "TLS 1.2" || s.name == "mutual") && !leaf {
						t.Errorf("%s: a gap of the client's, chunk %d from %d to %d, loses the certificate", s.name, i, from, to)
					}
				}
			}
		}
	}
}

// TestGapInChain cuts the chain at places that are known.
func TestGapInChain(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chain := server.Certificates[0].Certificate
	b := stream(1, handshake(t, client, server))
	leaf, root := bytes.Index(b, chain[0]), bytes.Index(b, chain[1])
	run := func(from, to int) *event.Handshake {
		p := newSensor()
		c := p.Open(testFlow(event.TCP))
		c.Segment(1, still, b[:from])
		c.Gap(1, still, to-from)
		c.Segment(1, still, b[to:])
		c.Close(event.EndOfInput)
		p.check(t)
		return one(t, p.got)
	}

	h := run(root+100, root+200)
	if h.Outcome != event.Extracted || len(h.Chain) != 2 || h.Chain[0].Truncated || !h.Chain[1].Truncated ||
		h.Chain[1].Subject.String == "" && h.Chain[1].Issuer.String == "" {
		t.Errorf("gap in the second certificate: outcome %v, chain %+v", h.Outcome, h.Chain)
	}
	if h.Curve == 0 {
		t.Error("gap in the second certificate: what comes after is lost")
	}

	h = run(leaf+250, leaf+260)
	if h.Outcome != event.Lost || h.Loss != event.Gap || len(h.Chain) != 2 || !h.Chain[0].Truncated || h.Chain[0].Issuer.CommonName[0] != "Test CA" ||
		h.Chain[1].Truncated || h.Chain[1].SHA256 != sha256.Sum256(chain[1]) {
		t.Errorf("gap in the leaf: outcome %v, loss %v, chain %+v", h.Outcome, h.Loss, h.Chain)
	}

	// The lengths between the certificates are gone.
	h = run(root-2, root+2)
	if h.Outcome != event.Extracted || len(h.Chain) != 1 {
		t.Errorf("gap between the certificates: outcome %v, chain of %d", h.Outcome, len(h.Chain))
	}
}

func TestLongChain(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	server.Certificates = []tls.Certificate{newAuthority().issue(serverName, ecdsaKey(), 60000)}
	chain := &server.Certificates[0].Certificate
	for len(*chain) < 6 { // 300 kB and more
		more := newAuthority().issue(fmt.Sprintf("ca%d", len(*chain)), ecdsaKey(), 60000)
		*chain = append(*chain, more.Certificate[0])
	}
	b := stream(1, handshake(t, client, server))
	if len(b) < 300000 {
		t.Fatalf("stream of %d bytes", len(b))
	}
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	for len(b) > 0 {
		n := min(1448, len(b))
		c.Segment(1, still, b[:n])
		b = b[n:]
	}
	c.Close(event.EndOfInput)
	s.check(t)
	wantChain(t, one(t, s.got).Chain, *chain)
}

func TestMessageLimit(t *testing.T) {
	// A Certificate that says that it has 16 MiB, and one that has.
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	body := append([]byte{11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc, 0, 0xff, 0xff}, make([]byte, 16000)...)
	hello := []byte{22, 3, 3, 0, 4, 2, 0, 0, 44}
	hello = append(hello, 22, 3, 3, 0, 44, 3, 3)
	hello = append(hello, make([]byte, 32+1)...)
	hello = append(hello, 0xc0, 0x2f, 0, 0, 4, 0xff, 0x01, 0, 0)
	c.Segment(1, still, hello)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 2000 {
		record := append([]byte{22, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
		if c.Segment(1, still, record) == Done {
			break
		}
		body = body[len(body)-16000:]
	}
	runtime.ReadMemStats(&after)
	if s.records.Pool.Lent() > 2*record.MaxMessage {
		t.Errorf("%d bytes held", s.records.Pool.Lent())
	}
	c.Close(event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); h.Outcome != event.Lost || h.Loss != event.Limit {
		t.Errorf("outcome %v, loss %v", h.Outcome, h.Loss)
	}
}

// TestHeldLimit opens many flows that each begin a long message.
func TestHeldLimit(t *testing.T) {
	s := newSensor()
	part := append([]byte{22, 3, 3, 0x40, 0, 11, 0x0f, 0, 0, 0x0e, 0xff, 0xfd, 0x0e, 0xff, 0xfa, 0x30}, make([]byte, 8000)...)
	var conns []*Conn
	for range 3 * s.limits.Held / len(part) {
		c := s.Open(testFlow(event.TCP))
		c.Segment(1, still, part)
		conns = append(conns, c)
		if s.records.Pool.Lent() > s.limits.Held {
			t.Fatalf("%d bytes held", s.records.Pool.Lent())
		}
	}
	for _, c := range conns {
		c.Close(event.EndOfInput)
	}
	s.check(t)
	st := s.Stats()
	if st.Losses[event.Evicted] == 0 || st.Losses[event.EndOfInput] == 0 || st.EvictedStreams != st.Losses[event.Evicted] {
		t.Errorf("losses %v, %d evicted", st.Losses, st.EvictedStreams)
	}
	if s.records.Pool.Held() != 0 || s.own.book.held != 0 || s.own.book.first != nil {
		t.Errorf("%d bytes held, %d in the books after the end", s.records.Pool.Held(), s.own.book.held)
	}
}

// TestPlaintextLimit sends small talk without an end.
func TestPlaintextLimit(t *testing.T) {
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	talk := bytes.Repeat([]byte{22, 3, 3, 0, 4, 14, 0, 0, 0}, 150)
	n := 0
	for c.Segment(1, still, talk) == NeedMore {
		if n += len(talk); n > 2*record.MaxPlaintext {
			t.Fatal("never done")
		}
	}
	c.Close(event.EndOfInput)
	s.check(t)
}

// TestLateStart lets TLS begin after an unknown preface.
func TestLateStart(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	preface := []chunk{{1, []byte("220 hello\r\n")}, {0, []byte("STARTTLS\r\n")}, {1, []byte("220 go\r\n")}}
	for _, k := range []int{1, 2, 5, 1500} {
		h := one(t, split(t, append(preface[:3:3], chunks...), func(n int) int { return min(n, k) }))
		if h.Outcome != event.Extracted {
			t.Errorf("segments of %d: outcome %v", k, h.Outcome)
		}
		wantChain(t, h.Chain, server.Certificates[0].Certificate)
	}
}

func TestNoAnswer(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	for _, cause := range []event.Loss{event.EndOfInput, event.Evicted, event.Malformed} {
		h := one(t, play(t, chunks[:1], cause))
		if h.Outcome != event.Lost || h.Loss != cause || h.ClientHello.JA3 == "" {
			t.Errorf("outcome %v, loss %v, want %v", h.Outcome, h.Loss, cause)
		}
	}
	// An answer that is not TLS.
	h := one(t, play(t, []chunk{chunks[0], {1, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")}}, event.EndOfInput))
	if h.Outcome != event.Lost || h.Loss != event.Malformed {
		t.Errorf("outcome %v, loss %v", h.Outcome, h.Loss)
	}
}

// TestAllocations bounds how many allocations a flow needs.
func TestAllocations(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	s := newSensor()
	s.got = make([]*event.Handshake, 0, 4096)
	f := testFlow(event.TCP)
	for _, c := range []struct {
		name string
		cut  int
		want float64
	}{
		{"whole", 1 << 20, 1}, // the server's name
		{"segments", 512, 1},
		{"small segments", 3, 1},
		{"prompt", 512, 1},
	} {
		if c.name == "prompt" {
			s.Prompt()
		}
		run := func() {
			conn := s.Open(f)
			for _, ch := range chunks {
				for b := ch.b; len(b) > 0; {
					n := min(c.cut, len(b))
					conn.Segment(ch.d, still, b[:n])
					b = b[n:]
				}
			}
			conn.Close(event.EndOfInput)
			for _, h := range s.got {
				if h.Proof.Missing != event.ProofSeen {
					t.Fatalf("proof %d", h.Proof.Missing)
				}
				s.Recycle(h)
			}
			s.got = s.got[:0]
		}
		run()
		if n := testing.AllocsPerRun(100, run); n > c.want {
			t.Errorf("%s: %v allocations a handshake, want %v", c.name, n, c.want)
		}
	}
	conn := s.Open(f)
	junk := bytes.Repeat([]byte("x"), 100)
	if n := testing.AllocsPerRun(1000, func() { conn.Segment(0, still, junk) }); n > 0 {
		t.Errorf("%v allocations a segment that is no TLS", n)
	}
}

func BenchmarkHandshake(b *testing.B) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b.Run(tls.VersionName(v), func(b *testing.B) {
			client, server := configs(v, ecdsaKey())
			chunks := handshake(b, client, server)
			s := New(func(*event.Handshake) {}, DefaultLimits)
			f := testFlow(event.TCP)
			b.ReportAllocs()
			for b.Loop() {
				c := s.Open(f)
				for _, ch := range chunks {
					if c.Segment(ch.d, still, ch.b) == Done {
						break
					}
				}
				c.Close(event.EndOfInput)
			}
		})
	}
}
