package parsers

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
)

// dtlsMessage is a handshake message, or a ChangeCipherSpec.
type dtlsMessage struct {
	d    event.Direction
	typ  uint8
	seq  uint16
	body []byte // of the message, or of the record for changeCipher
}

const changeCipher = 0x80 + 20

// messages returns the plaintext handshake messages of a recorded handshake of TLS up
// to 1.2, changed into those of DTLS: other versions, a cookie.
func messages(t testing.TB, chunks []chunk) (l []dtlsMessage) {
	t.Helper()
	var pending [2][]byte
	var sealed [2]bool
	var seq [2]uint16
	for _, c := range chunks {
		for r := c.b; len(r) > 0; {
			n := 5 + (int(r[3])<<8 | int(r[4]))
			typ, body := r[0], r[5:n]
			r = r[n:]
			switch {
			case sealed[c.d]:
			case typ == 20:
				sealed[c.d] = true
				l = append(l, dtlsMessage{d: c.d, typ: changeCipher, body: body})
			case typ == 22:
				pending[c.d] = append(pending[c.d], body...)
				for p := pending[c.d]; len(p) >= 4; p = pending[c.d] {
					n := 4 + (int(p[1])<<16 | int(p[2])<<8 | int(p[3]))
					if len(p) < n {
						break
					}
					m := dtlsMessage{c.d, p[0], seq[c.d], bytes.Clone(p[4:n])}
					if m.typ <= 2 {
						m.body[0], m.body[1] = 0xfe, 0xfd
					}
					if m.typ == 1 { // an empty cookie after the session
						at := 35 + int(m.body[34])
						m.body = slices.Insert(m.body, at, 0)
					}
					l = append(l, m)
					seq[c.d]++
					pending[c.d] = p[n:]
				}
			}
		}
	}
	return l
}

// fragments cuts m into handshake fragments of at most n bytes.
func (m *dtlsMessage) fragments(n int) (l [][]byte) {
	for off := 0; off == 0 || off < len(m.body); off += n {
		l = append(l, m.fragment(off, min(off+n, len(m.body))))
	}
	return l
}

func (m *dtlsMessage) fragment(from, to int) []byte {
	length, n := len(m.body), to-from
	b := []byte{m.typ, byte(length >> 16), byte(length >> 8), byte(length), byte(m.seq >> 8), byte(m.seq),
		byte(from >> 16), byte(from >> 8), byte(from), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(b, m.body[from:to]...)
}

var recordNumber uint32

// dtlsRecord is a record of a type and an epoch.
func dtlsRecord(typ uint8, epoch uint16, body []byte) []byte {
	recordNumber++
	b := binary.BigEndian.AppendUint16([]byte{typ, 0xfe, 0xfd}, epoch)
	b = binary.BigEndian.AppendUint32(append(b, 0, 0), recordNumber)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// datagrams returns the messages in fragments of at most n bytes, one in a datagram,
// with a Finished after each ChangeCipherSpec.
func datagrams(l []dtlsMessage, n int) (out []chunk) {
	for _, m := range l {
		if m.typ == changeCipher {
			out = append(out, chunk{m.d, append(dtlsRecord(20, 0, m.body), dtlsRecord(22, 1, make([]byte, 48))...)})
			continue
		}
		for _, f := range m.fragments(n) {
			out = append(out, chunk{m.d, dtlsRecord(22, 0, f)})
		}
	}
	return out
}

func (s *sensor) datagrams(l []chunk) *Conn {
	c := s.Open(testFlow(event.UDP))
	for i, ch := range l {
		b := bytes.Clone(ch.b)
		c.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, b)
		clear(b)
	}
	return c
}

func playDatagrams(t testing.TB, l []chunk) []*event.Handshake {
	t.Helper()
	s := newSensor()
	s.datagrams(l).Close(event.EndOfInput)
	s.check(t)
	return s.got
}

func dtlsSample(t testing.TB) (l []dtlsMessage, chain [][]byte) {
	client, server := configs(tls.VersionTLS12, rsaKey())
	return messages(t, handshake(t, client, server)), server.Certificates[0].Certificate
}

func TestDatagrams(t *testing.T) {
	l, chain := dtlsSample(t)
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		name string
		l    func(n int) []chunk
	}{
		{"in order", func(n int) []chunk { return datagrams(l, n) }},
		{"every datagram twice", func(n int) (out []chunk) {
			for _, d := range datagrams(l, n) {
				out = append(out, d, d)
			}
			return out
		}},
		{"the server's flight twice, in other fragments", func(n int) (out []chunk) {
			return append(datagrams(l, n), datagrams(l, n+3)...)
		}},
		{"each side's handshake fragments in any order", func(n int) []chunk {
			var out, last []chunk
			for _, d := range datagrams(l, n) {
				if d.b[0] == 20 {
					last = append(last, d)
				} else {
					out = append(out, d)
				}
			}
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			return append(out, last...)
		}},
		{"overlapping fragments", func(n int) (out []chunk) {
			for _, m := range l {
				if m.typ == changeCipher {
					out = append(out, datagrams([]dtlsMessage{m}, n)...)
					continue
				}
				for off := 0; off == 0 || off < len(m.body); off += (n + 1) / 2 {
					out = append(out, chunk{m.d, dtlsRecord(22, 0, m.fragment(off, min(off+n, len(m.body))))})
				}
			}
			return out
		}},
		{"many to a datagram", func(n int) []chunk { return merge(datagrams(l, n)) }},
		{"many to a record", func(n int) (out []chunk) {
			for i := 0; i < len(l); {
				j, body := i, []byte(nil)
				for ; j < len(l) && l[j].d == l[i].d && l[j].typ != changeCipher; j++ {
					body = append(body, bytes.Join(l[j].fragments(n), nil)...)
				}
				if j == i {
					out = append(out, datagrams(l[i:i+1], n)...)
					j++
				} else {
					out = append(out, chunk{l[i].d, dtlsRecord(22, 0, body)})
				}
				i = j
			}
			return out
		}},
		{"the server alone", func(n int) []chunk { return only(1, datagrams(l, n)) }},
	} {
		for _, n := range []int{1 << 14, 500, 100, 50} {
			t.Run(fmt.Sprintf("%s, fragments of %d", c.name, n), func(t *testing.T) {
				h := one(t, playDatagrams(t, c.l(n)))
				if h.Outcome != event.Extracted || h.Carrier != "dtls" || !h.Datagram || h.Client != 0 || h.Version != 0xfefd {
					t.Errorf("outcome %v, loss %v, carrier %q, client %d, version %#x", h.Outcome, h.Loss, h.Carrier, h.Client, h.Version)
				}
				wantChain(t, h.Chain, chain)
				if c.name == "the server alone" {
					if h.Established || h.ClientHello != nil {
						t.Error("established, with a client that is not there")
					}
					if h.Proof.Missing != event.ProofCut {
						t.Errorf("%+v", h.Proof)
					}
				} else if !h.Established || h.ClientHello == nil || h.ClientHello.ServerName != serverName ||
					h.ClientHello.JA4[0] != 'd' || h.Curve != uint16(tls.X25519) {
					t.Errorf("established %v, curve %d, ClientHello %+v", h.Established, h.Curve, h.ClientHello)
				} else if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
					t.Errorf("%+v", h.Proof)
				}
			})
		}
	}
}

// cookieExchange puts a HelloVerifyRequest in front.
func cookieExchange(l []dtlsMessage) []dtlsMessage {
	verify := dtlsMessage{1, 3, 0, []byte{0xfe, 0xff, 4, 1, 2, 3, 4}}
	again := l[0]
	at := 35 + int(again.body[34])
	again.body = slices.Concat(again.body[:at], []byte{4, 1, 2, 3, 4}, again.body[at+1:])
	again.seq = 1
	out := []dtlsMessage{l[0], verify, again}
	for _, m := range l[1:] {
		if m.typ != changeCipher {
			m.seq++
		}
		out = append(out, m)
	}
	return out
}

func TestCookie(t *testing.T) {
	l, chain := dtlsSample(t)
	h := one(t, playDatagrams(t, datagrams(cookieExchange(l), 200)))
	if !h.HelloRetry || h.Outcome != event.Extracted || !h.Established || h.Start.Frame != 1 {
		t.Errorf("retry %v, outcome %v, established %v, start %v", h.HelloRetry, h.Outcome, h.Established, h.Start)
	}
	wantChain(t, h.Chain, chain)
}

func TestNextHandshake(t *testing.T) {
	a, _ := dtlsSample(t)
	b, _ := dtlsSample(t)
	s := newSensor()
	c := s.datagrams(slices.Concat(datagrams(a, 300), datagrams(a, 300), datagrams(b, 300), datagrams(b[1:], 300)))
	if len(s.got) != 2 || s.got[0].Index != 0 || s.got[1].Index != 1 || s.got[1].Outcome != event.Extracted || !s.got[1].Established {
		t.Fatalf("%d handshakes", len(s.got))
	}
	c.Close(event.EndOfInput)
	s.check(t)

	// The client begins another handshake before the first is over.
	h := playDatagrams(t, slices.Concat(datagrams(a[:1], 1<<14), datagrams(b, 300)))
	if len(h) != 2 || h[0].Outcome != event.Lost || h[0].Loss != event.EndOfInput || h[1].Outcome != event.Extracted || h[1].Index != 1 {
		t.Fatalf("%d handshakes", len(h))
	}
}

func TestDatagramLosses(t *testing.T) {
	l, chain := dtlsSample(t)
	all := datagrams(l, 100)
	for i := range all {
		h := one(t, playDatagrams(t, slices.Concat(all[:i], all[i+1:])))
		if h.Outcome != event.Extracted && (h.Outcome != event.Lost || h.Loss != event.Gap) {
			t.Errorf("without datagram %d: outcome %v, loss %v", i, h.Outcome, h.Loss)
		}
		for _, e := range h.Chain {
			if !e.Truncated && e.SHA256 != sha256.Sum256(chain[0]) && e.SHA256 != sha256.Sum256(chain[1]) {
				t.Errorf("without datagram %d: a certificate that was not sent", i)
			}
		}
		if f := all[i].b; f[0] == 22 && f[13] == 11 && h.Outcome == event.Extracted && len(h.Chain) == 2 && !h.Chain[1].Truncated {
			t.Errorf("without datagram %d, a piece of the certificates: all there", i)
		}
		if f := all[i].b; (f[0] != 22 || f[13] != 11) && h.Outcome != event.Extracted {
			t.Errorf("without datagram %d, no piece of the certificates: outcome %v", i, h.Outcome)
		}
	}
	// Datagrams cut by the snaplen, at every length.
	whole := datagrams(l, 1<<14)
	for i, d := range whole {
		for n := 0; n < len(d.b); n += 11 {
			cut := slices.Clone(whole)
			cut[i].b = d.b[:n]
			for _, h := range playDatagrams(t, cut) {
				for _, e := range h.Chain {
					if e.Truncated == (e.SHA256 != [32]byte{}) {
						t.Errorf("truncated %v, SHA-256 %x", e.Truncated, e.SHA256)
					}
				}
			}
		}
	}
}

// fragmentShapes are ways to cut a message of n bytes into fragments, each given by
// where it begins and ends.
var fragmentShapes = map[string]func(n int, yield func(from, to int)){
	"whole":  func(n int, yield func(from, to int)) { yield(0, n) },
	"rising": func(n int, yield func(from, to int)) { cutFrom(0, 200, 200, n, yield) },
	"falling": func(n int, yield func(from, to int)) {
		for at := (n - 1) / 200 * 200; at >= 0; at -= 200 {
			yield(at, min(at+200, n))
		}
	},
	"interleaved": func(n int, yield func(from, to int)) {
		cutFrom(40, 80, 40, n, yield)
		cutFrom(0, 80, 40, n, yield)
	},
	"overlapping": func(n int, yield func(from, to int)) { cutFrom(0, 100, 300, n, yield) },
	"one byte": func(n int, yield func(from, to int)) {
		cutFrom(1, 2, 1, n, yield)
		cutFrom(0, 2, 1, n, yield)
	},
	"one byte, falling": func(n int, yield func(from, to int)) {
		for at := n - 1; at >= 0; at-- {
			yield(at, at+1)
		}
	},
}

func cutFrom(at, step, size, n int, yield func(from, to int)) {
	for ; at < n; at += step {
		yield(at, min(at+size, n))
	}
}

// TestFragments cuts the Certificate into fragments of every shape, and gives them in
// any order, some of them twice or cut in two. The message is put together, and where
// copies differ, the first is taken.
func TestFragments(t *testing.T) {
	l, chain := dtlsSample(t)
	play := func(name string, cut func(m *dtlsMessage) []chunk) {
		var all []chunk
		for i := range l {
			if l[i].typ == 11 {
				all = append(all, cut(&l[i])...)
			} else {
				all = append(all, datagrams(l[i:i+1], 1<<14)...)
			}
		}
		h := one(t, playDatagrams(t, all))
		if h.Outcome != event.Extracted || !h.Established {
			t.Fatalf("%s: %v, %v", name, h.Outcome, h.Loss)
		}
		wantChain(t, h.Chain, chain)
	}
	for name, shape := range fragmentShapes {
		play(name, func(m *dtlsMessage) (out []chunk) {
			shape(len(m.body), func(from, to int) { out = append(out, chunk{m.d, dtlsRecord(22, 0, m.fragment(from, to))}) })
			return out
		})
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		play(fmt.Sprintf("seed %d", seed), func(m *dtlsMessage) (out []chunk) {
			for at := 0; at < len(m.body); {
				n := min(1+r.IntN(300), len(m.body)-at)
				out = append(out, chunk{m.d, dtlsRecord(22, 0, m.fragment(at, at+n))})
				if from := r.IntN(len(m.body)); r.IntN(2) == 0 {
					out = append(out, chunk{m.d, dtlsRecord(22, 0, m.fragment(from, min(from+100, len(m.body))))})
				}
				at += n
			}
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			for range 5 { // other copies, later
				other := bytes.Clone(out[r.IntN(len(out)-1)].b)
				other[len(other)-1] ^= 1
				at := len(out) - 1
				out = slices.Insert(out, at, chunk{m.d, other})
			}
			return out
		})
	}
}

// BenchmarkFragments plays a server's flight whose Certificate of 100 kB comes in
// fragments of every shape. It counts bytes of UDP: no shape may cost many times more
// for each byte than another.
func BenchmarkFragments(b *testing.B) {
	l, _ := dtlsSample(b)
	for name, shape := range fragmentShapes {
		b.Run(name, func(b *testing.B) {
			var all []chunk
			n := 0
			for _, m := range l {
				if m.typ != 11 {
					continue
				}
				m.body = append(m.body, make([]byte, 100_000-len(m.body))...)
				add := func(from, to int) {
					all = append(all, chunk{m.d, dtlsRecord(22, 0, m.fragment(from, to))})
					n += len(all[len(all)-1].b)
				}
				if name == "whole" {
					cutFrom(0, 1200, 1200, len(m.body), add)
				} else {
					shape(len(m.body), add)
				}
			}
			s := newSensor()
			b.SetBytes(int64(n))
			for b.Loop() {
				c := s.Open(testFlow(event.UDP))
				for _, ch := range all {
					c.Datagram(ch.d, still, ch.b)
				}
				c.Close(event.EndOfInput)
				s.got = s.got[:0]
			}
		})
	}
}

// TestFragmentFlood sends fragments that never make a message.
func TestFragmentFlood(t *testing.T) {
	s := newSensor()
	var conns []*Conn
	body := make([]byte, 100000)
	for i := range 100 {
		c := s.Open(testFlow(event.UDP))
		for j := range 3000 {
			m := dtlsMessage{1, 11, uint16(j % 40), body}
			c.Datagram(1, still, dtlsRecord(22, 0, m.fragment((j*37+i)%90000, (j*37+i)%90000+1)))
		}
		conns = append(conns, c)
	}
	if limit := len(conns) * 3000 * 100; s.Parser.datagrams.Pool.Held() > limit {
		t.Errorf("%d bytes held, want at most %d", s.Parser.datagrams.Pool.Held(), limit)
	}
	for _, c := range conns {
		c.Close(event.EndOfInput)
	}
	s.check(t)
	if st := s.Stats(); st.Losses[event.Limit] != uint64(len(conns)) {
		t.Errorf("losses %v", st.Losses)
	}
}

func TestDatagramAlert(t *testing.T) {
	l, _ := dtlsSample(t)
	h := one(t, playDatagrams(t, append(datagrams(l[:1], 1<<14), chunk{1, dtlsRecord(21, 0, []byte{2, 40})})))
	if h.Outcome != event.None || !h.Alerted || h.Alert != 40 {
		t.Errorf("outcome %v, alerted %v, alert %d", h.Outcome, h.Alerted, h.Alert)
	}
}

func TestDTLS13(t *testing.T) {
	l, _ := dtlsSample(t)
	hello := append([]byte{0xfe, 0xfd}, make([]byte, 33)...)
	hello = append(hello, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 0xfe, 0xfc)
	server := dtlsMessage{1, 2, 0, hello}
	s := newSensor()
	c := s.Open(testFlow(event.UDP))
	c.Datagram(0, still, datagrams(l[:1], 1<<14)[0].b)
	if c.Datagram(1, still, append(datagrams([]dtlsMessage{server}, 1<<14)[0].b, 0x2e, 1, 2, 3)) != Done {
		t.Error("not done")
	}
	c.Close(event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); h.Outcome != event.Encrypted || h.Version != 0xfefc {
		t.Errorf("outcome %v, version %#x", h.Outcome, h.Version)
	}
}

func TestClientDatagramsAlone(t *testing.T) {
	l, _ := dtlsSample(t)
	h := one(t, playDatagrams(t, only(0, datagrams(l, 300))))
	if h.Outcome != event.Lost || h.Loss != event.Gap || h.Client != 0 || h.ClientHello == nil {
		t.Errorf("outcome %v, loss %v", h.Outcome, h.Loss)
	}
}

func TestDatagramAllocations(t *testing.T) {
	l, _ := dtlsSample(t)
	all := datagrams(l, 1<<14)
	s := newSensor()
	s.got = make([]*event.Handshake, 0, 16)
	f := testFlow(event.UDP)
	run := func() {
		c := s.Open(f)
		for _, d := range all {
			c.Datagram(d.d, still, d.b)
		}
		c.Close(event.EndOfInput)
		for _, h := range s.got {
			s.Recycle(h)
		}
		s.got = s.got[:0]
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 1 { // the server's name
		t.Errorf("%v allocations a handshake, want 1", n)
	}
}

// TestOpenSSL records a handshake of openssl's DTLS over loopback.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	issued := newAuthority().issue(serverName, rsaKey(), 0)
	file := pemFile(t, issued)
	for _, args := range [][]string{{"-dtls1_2"}, {"-dtls1_2", "-listen"}, {"-dtls1_2", "-mtu", "300"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			front, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer front.Close()
			free, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := free.LocalAddr().String()
			free.Close()
			server := exec.Command(openssl, append([]string{"s_server", "-accept", address, "-cert", file, "-cert_chain", file, "-key", file}, args...)...)
			stdin, err := server.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer server.Wait()
			defer server.Process.Kill()

			var rec tape
			back, err := net.Dial("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			done := make(chan struct{})
			go relay(&rec, front, back, done)
			client := exec.Command(openssl, "s_client", "-connect", front.LocalAddr().String(), "-dtls1_2", "-servername", serverName)
			in, err := client.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			// Until both sides have sent something of epoch 1.
			for range 200 {
				time.Sleep(50 * time.Millisecond)
				if rec.encrypted() {
					break
				}
			}
			in.Close()
			client.Process.Kill()
			client.Wait()
			front.Close()
			back.Close()
			<-done
			if !rec.encrypted() {
				t.Skip("openssl made no DTLS handshake here")
			}
			s := newSensor()
			c := s.Open(testFlow(event.UDP))
			for i, d := range rec.chunks {
				if Looks(d.b) { // as flow does
					c.Datagram(d.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, d.b)
				}
			}
			c.Close(event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			if h.Outcome != event.Extracted || !h.Established || h.Version != 0xfefd || h.ClientHello.ServerName != serverName {
				t.Errorf("outcome %v, established %v, version %#x", h.Outcome, h.Established, h.Version)
			}
			if want := slices.Contains(args, "-listen"); want && !h.HelloRetry {
				t.Error("no HelloVerifyRequest")
			}
			if len(h.Chain) == 0 || h.Chain[0].SHA256 != sha256.Sum256(issued.Certificate[0]) {
				t.Errorf("chain of %d", len(h.Chain))
			}
		})
	}
}

// relay passes datagrams between back and whoever talks to front.
func relay(rec *tape, front net.PacketConn, back net.Conn, done chan struct{}) {
	var peer net.Addr
	forward := make(chan struct{})
	add := func(d event.Direction, b []byte) {
		rec.mu.Lock()
		rec.chunks = append(rec.chunks, chunk{d, bytes.Clone(b)})
		rec.mu.Unlock()
	}
	go func() {
		defer close(forward)
		b := make([]byte, 1<<16)
		for {
			n, addr, err := front.ReadFrom(b)
			if err != nil {
				return
			}
			rec.mu.Lock()
			peer = addr
			rec.mu.Unlock()
			add(0, b[:n])
			back.Write(b[:n])
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := back.Read(b)
		if err != nil {
			if opErr, ok := err.(*net.OpError); ok && !opErr.Timeout() && err != io.EOF && opErr.Err.Error() == "read: connection refused" {
				continue // the server is not up yet; the client sends again
			}
			break
		}
		add(1, b[:n])
		rec.mu.Lock()
		to := peer
		rec.mu.Unlock()
		front.WriteTo(b[:n], to)
	}
	<-forward
	close(done)
}

// encrypted reports whether both sides went on to epoch 1.
func (r *tape) encrypted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sides [2]bool
	for _, c := range r.chunks {
		for b := c.b; len(b) >= 13; {
			if b[4] > 0 {
				sides[c.d] = true
			}
			b = b[min(len(b), 13+(int(b[11])<<8|int(b[12]))):]
		}
	}
	return sides[0] && sides[1]
}
