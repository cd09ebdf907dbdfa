package parsers

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/quic"
)

// keysOf is a store with the text of a key log.
func keysOf(t testing.TB, text []byte) *keylog.Store {
	t.Helper()
	store := new(keylog.Store)
	store.Add("test", text, func(err error) { t.Error(err) })
	return store
}

// keyedSensor is a sensor that has the secrets of a key log.
func keyedSensor(t testing.TB, text []byte) *sensor {
	s := newSensor()
	s.SetKeys(keysOf(t, text))
	return s
}

// lines are the lines of a key log that begin with prefix.
func lines(log []byte, prefix string) (l []byte) {
	for line := range bytes.Lines(log) {
		if bytes.HasPrefix(line, []byte(prefix)) {
			l = append(l, line...)
		}
	}
	return l
}

// conversation13 is a recorded handshake of TLS 1.3, with its key log and what
// its parties have.
type conversation13 struct {
	name           string
	chunks         []chunk
	log            []byte
	server, client [][]byte // the chains
	retry          bool
	request        bool
}

func conversations13(t testing.TB) (all []conversation13) {
	add := func(name string, change func(c *conversation13, client, server *tls.Config)) {
		c := conversation13{name: name}
		var log bytes.Buffer
		client, server := configs(tls.VersionTLS13, ecdsaKey())
		server.KeyLogWriter = &log
		change(&c, client, server)
		c.chunks = handshake(t, client, server)
		c.log, c.server = log.Bytes(), server.Certificates[0].Certificate
		all = append(all, c)
	}
	add("ecdsa", func(c *conversation13, client, server *tls.Config) {})
	add("rsa, HelloRetryRequest", func(c *conversation13, client, server *tls.Config) {
		server.Certificates[0] = newAuthority().issue(serverName, rsaKey(), 0)
		client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}
		server.CurvePreferences = []tls.CurveID{tls.CurveP384}
		c.retry = true
	})
	add("mutual", func(c *conversation13, client, server *tls.Config) {
		server.ClientAuth, c.request = tls.RequireAndVerifyClientCert, true
		client.Certificates = []tls.Certificate{newAuthority().issue("client", rsaKey(), 0)}
		c.client = client.Certificates[0].Certificate
	})
	add("no certificate of the client's", func(c *conversation13, client, server *tls.Config) {
		server.ClientAuth, c.request = tls.RequestClientCert, true
	})
	add("over many records", func(c *conversation13, client, server *tls.Config) {
		server.Certificates[0] = newAuthority().issue(serverName, ed25519Key(), 40000)
	})
	return all
}

// check compares what was seen with what was.
func (c *conversation13) check(t testing.TB, h *event.Handshake) {
	t.Helper()
	c.checkChains(t, h)
	if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
		t.Errorf("%+v", h.Proof)
	}
}

// checkChains is check for messages that are not as the server has signed them.
func (c *conversation13) checkChains(t testing.TB, h *event.Handshake) {
	t.Helper()
	if h.Outcome != event.Extracted || !h.Established || h.HelloRetry != c.retry || h.ClientAuth != c.request || h.Version != tls.VersionTLS13 || h.ServerHello.ALPN != "h2" {
		t.Errorf("%+v", h)
	}
	wantChain(t, h.Chain, c.server)
	wantChain(t, h.ClientChain, c.client)
}

func TestKeys(t *testing.T) {
	for _, c := range conversations13(t) {
		t.Run(c.name, func(t *testing.T) {
			s := keyedSensor(t, c.log)
			s.play(c.chunks, event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			c.check(t, h)
			if c.request && len(h.AuthorityNames) != 1 {
				t.Errorf("authorities %q", h.AuthorityNames)
			}
			if h.Certificate.Frame < 2 || h.End.Frame < h.Certificate.Frame {
				t.Errorf("certificate %v, end %v", h.Certificate, h.End)
			}
			if st := s.Stats(); st.Decrypted != 1 || st.WrongSecrets != 0 || st.SealedLimit != 0 {
				t.Errorf("%+v", st)
			}

			// One secret alone decrypts its direction.
			for prefix, want := range map[string][2][][]byte{"SERVER_H": {c.server, nil}, "CLIENT_H": {nil, c.client}} {
				s := keyedSensor(t, lines(c.log, prefix))
				s.play(c.chunks, event.EndOfInput)
				s.check(t)
				h := one(t, s.got)
				wantChain(t, h.Chain, want[0])
				wantChain(t, h.ClientChain, want[1])
				if seen := want[0] != nil; !seen && h.Proof.Missing != event.ProofEncrypted || seen && !proved(t, h) {
					t.Errorf("%s alone: %+v", prefix, h.Proof)
				}
				if (h.Outcome == event.Extracted) != (want[0] != nil) || h.Outcome != event.Extracted && h.Outcome != event.Encrypted || !h.Established {
					t.Errorf("%s alone: %+v", prefix, h)
				}
			}

			// With wrong secrets it is as without any.
			wrong := bytes.Clone(c.log)
			for i := range wrong[1:] {
				if wrong[i+1] == '\n' {
					wrong[i] ^= 1 // still a digit
				}
			}
			s = keyedSensor(t, bytes.ReplaceAll(bytes.ReplaceAll(wrong, []byte("`\n"), []byte("b\n")), []byte("g\n"), []byte("e\n")))
			s.play(c.chunks, event.EndOfInput)
			s.check(t)
			without := one(t, play(t, c.chunks, event.EndOfInput))
			if st := s.Stats(); st.WrongSecrets == 0 || st.Decrypted != 0 {
				t.Errorf("%+v", st)
			}
			if h := one(t, s.got); h.Outcome != event.Encrypted || h.Established != without.Established {
				t.Errorf("wrong secrets: %+v", h)
			}
		})
	}
}

// A store that has nothing for a handshake changes nothing.
func TestKeysOfOthers(t *testing.T) {
	all := conversations13(t)
	for _, sample := range samples(t) {
		s := keyedSensor(t, all[0].log)
		s.play(sample.chunks, event.EndOfInput)
		s.check(t)
		want := play(t, sample.chunks, event.EndOfInput)
		for _, h := range append(s.got, want...) {
			h.Flow = nil
		}
		if len(s.got) != 1 || !alike(s.got[0], want[0]) {
			t.Errorf("%s: %+v\nwithout keys %+v", sample.name, s.got[0], want[0])
		}
	}
}

func TestKeysResumption(t *testing.T) {
	var log bytes.Buffer
	client, server := configs(tls.VersionTLS13, ecdsaKey())
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	server.KeyLogWriter = &log
	handshake(t, client, server)
	chunks := handshake(t, client, server)
	s := keyedSensor(t, log.Bytes())
	s.play(chunks, event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); h.Outcome != event.Resumed || !h.Established {
		t.Errorf("%+v", h)
	}
}

// However the streams are cut into segments, the same comes out.
func TestKeysAnySplit(t *testing.T) {
	for _, c := range conversations13(t) {
		cut := func(n func(int) int) *event.Handshake {
			s := keyedSensor(t, c.log)
			conn := s.Open(testFlow(event.TCP))
			for _, ch := range c.chunks {
				for b := ch.b; len(b) > 0; {
					k := n(len(b))
					seg := bytes.Clone(b[:k])
					conn.Segment(ch.d, still, seg)
					clear(seg)
					b = b[k:]
				}
			}
			conn.Close(event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			h.Flow = nil
			return h
		}
		want := cut(func(n int) int { return n })
		c.check(t, want)
		for k := 1; k < 24; k++ {
			if got := cut(func(n int) int { return min(k, n) }); !alike(got, want) {
				t.Errorf("%s, every %d bytes: %+v", c.name, k, got)
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 30 {
			if got := cut(func(n int) int { return 1 + r.IntN(n) }); !alike(got, want) {
				t.Errorf("%s, at random: %+v", c.name, got)
			}
		}
	}
}

// Secrets may come after the packets, and after the end of the flow. If none come, the
// handshake is the same as without keys.
func TestKeysLate(t *testing.T) {
	for _, c := range conversations13(t) {
		for _, closed := range []bool{false, true} {
			s := newSensor()
			store := new(keylog.Store)
			s.SetKeys(store)
			s.WaitForKeys()
			conn := s.Open(testFlow(event.TCP))
			var last event.Moment
			for i, ch := range c.chunks {
				last = event.Moment{Time: int64(i), Frame: uint64(i + 1)}
				conn.Segment(ch.d, last, bytes.Clone(ch.b))
			}
			if closed {
				conn.Close(event.EndOfInput)
			}
			s.Tick(last.Time)
			if len(s.got) > 0 || s.records.Waiting == 0 {
				t.Fatalf("%s: %d emitted, %d bytes held", c.name, len(s.got), s.records.Waiting)
			}
			store.Add("test", c.log, nil)
			s.Tick(last.Time)
			c.check(t, one(t, s.got))
			early := keyedSensor(t, c.log)
			early.play(c.chunks, event.EndOfInput)
			if got, want := s.got[0], early.got[0]; got.Certificate != want.Certificate || got.End != want.End {
				t.Errorf("%s: certificate %v, end %v; with keys at once %v, %v", c.name, got.Certificate, got.End, want.Certificate, want.End)
			}
			if !closed {
				conn.Close(event.EndOfInput)
			}
			if s.check(t); s.records.Waiting != 0 || s.waiting.Len() != 0 || len(s.got) != 1 {
				t.Errorf("%s: %d bytes held, %d wait", c.name, s.records.Waiting, s.waiting.Len())
			}
		}

		s := newSensor()
		s.SetKeys(new(keylog.Store))
		s.WaitForKeys()
		s.play(c.chunks, event.EndOfInput)
		if len(s.got) > 0 {
			t.Fatalf("%s: emitted before the time", c.name)
		}
		s.Tick(maxWaitingTime + int64(len(c.chunks)))
		s.check(t)
		want := one(t, play(t, c.chunks, event.EndOfInput))
		got := one(t, s.got)
		got.Flow, want.Flow = nil, nil
		if !alike(got, want) || s.records.Waiting != 0 {
			t.Errorf("%s, never: %+v\nwant %+v", c.name, got, want)
		}
	}
}

// What waits is bounded: for each side of a flow, and for all together.
func TestKeysLimits(t *testing.T) {
	c := conversations13(t)[0]
	s := newSensor()
	s.SetKeys(new(keylog.Store))
	s.WaitForKeys()
	encrypted := append([]byte{23, 3, 3, 0x40, 0}, make([]byte, 1<<14)...)
	conn := s.Open(testFlow(event.TCP))
	v := NeedMore
	for _, ch := range c.chunks {
		conn.Segment(ch.d, still, ch.b)
	}
	for range 64 {
		for d := range event.Direction(2) {
			v = conn.Segment(d, still, encrypted)
		}
	}
	if v != Done || conn.stream.Direction(0).Full != conn.stream.Direction(1).Full || s.records.Waiting > 2*(record.MaxHeldServer+record.MaxHeldClient) {
		t.Errorf("status %v, %d bytes held", v, s.records.Waiting)
	}
	conn.Close(event.NoLoss)
	const flows = 1000
	for range flows {
		conn := s.Open(testFlow(event.TCP))
		for _, ch := range c.chunks {
			conn.Segment(ch.d, still, ch.b)
		}
		for range 8 {
			conn.Segment(0, still, encrypted)
			conn.Segment(1, still, encrypted)
		}
		conn.Close(event.EndOfInput)
		if s.records.Waiting > s.limits.Sealed+record.MaxHeldServer {
			t.Fatalf("%d bytes held", s.records.Waiting)
		}
	}
	if s.Stats().SealedLimit == 0 || len(s.got) == 0 {
		t.Error("no flow gave way")
	}
	s.Flush()
	if s.check(t); len(s.got) != flows+1 || s.records.Waiting != 0 {
		t.Errorf("%d emitted, %d bytes held", len(s.got), s.records.Waiting)
	}
	s.got = nil
	for range maxWaiting + 10 { // however little each holds
		conn := s.Open(testFlow(event.TCP))
		for _, ch := range c.chunks[:2] {
			conn.Segment(ch.d, still, ch.b)
		}
		conn.Close(event.EndOfInput)
	}
	if s.waiting.Len() > maxWaiting || len(s.got) < 10 {
		t.Errorf("%d wait, %d emitted", s.waiting.Len(), len(s.got))
	}
	s.Flush()
	s.check(t)
}

// Whatever segment is missing, no certificate is made up, and those whose
// records are there are found.
func TestKeysGap(t *testing.T) {
	for _, c := range conversations13(t) {
		whole := keyedSensor(t, c.log)
		whole.play(c.chunks, event.EndOfInput)
		const size = 700
		found, places := 0, 0
		for lost := 0; ; lost++ {
			s := keyedSensor(t, c.log)
			conn := s.Open(testFlow(event.TCP))
			n := 0
			for _, ch := range c.chunks {
				for b := ch.b; len(b) > 0; n++ {
					k := min(size, len(b))
					if ch.d == 1 && n == lost {
						conn.Gap(1, still, k)
					} else {
						conn.Segment(ch.d, still, bytes.Clone(b[:k]))
					}
					b = b[k:]
				}
			}
			conn.Close(event.EndOfInput)
			s.check(t)
			for _, h := range s.got {
				for _, e := range h.Chain {
					if !e.Truncated && !slices.ContainsFunc(c.server, func(der []byte) bool { return sha256.Sum256(der) == e.SHA256 }) {
						t.Errorf("%s, segment %d: a certificate that nobody sent", c.name, lost)
					}
				}
				if len(h.Chain) > 0 && !h.Chain[0].Truncated {
					found++
				}
			}
			if places++; lost > n {
				break
			}
		}
		if found == 0 || found >= places && len(c.server[0]) > 2*size {
			t.Errorf("%s: found with %d of %d segments missing", c.name, found, places)
		}
	}
}

// A segment between the ServerHello and the certificate may be missing: the
// numbers of the records after it are not known then.
func TestKeysGapBefore(t *testing.T) {
	// crypto/tls writes each message of the flight into a record of its own.
	c := conversations13(t)[0]
	var server []byte
	for _, ch := range c.chunks {
		if ch.d == 1 {
			server = append(server, ch.b...)
		}
	}
	at, records := 0, 0
	for ; records < 2 || server[at] != 23; at += 5 + int(server[at+3])<<8 + int(server[at+4]) {
		records++
	}
	next := at + 5 + int(server[at+3])<<8 + int(server[at+4]) // after EncryptedExtensions
	for _, cut := range [][2]int{{at, next}, {at + 3, next}, {at + 7, next - 2}, {at, next + 5}} {
		s := keyedSensor(t, c.log)
		conn := s.Open(testFlow(event.TCP))
		conn.Segment(0, still, c.chunks[0].b)
		conn.Segment(1, still, server[:cut[0]])
		conn.Gap(1, still, cut[1]-cut[0])
		conn.Segment(1, still, server[cut[1]:])
		conn.Close(event.EndOfInput)
		s.check(t)
		h := one(t, s.got)
		if cut[1] > next { // in the record of the certificate
			if h.Outcome != event.Lost || h.Loss != event.Gap {
				t.Errorf("%v: %v, %v", cut, h.Outcome, h.Loss)
			}
			continue
		}
		wantChain(t, h.Chain, c.server)
	}
}

// An alert that is encrypted ends the handshake as one in plaintext does.
func TestKeysAlert(t *testing.T) {
	var log bytes.Buffer
	client, server := configs(tls.VersionTLS13, ecdsaKey())
	client.RootCAs = x509.NewCertPool()
	server.KeyLogWriter = &log
	chunks := handshake(t, client, server)
	s := keyedSensor(t, log.Bytes())
	s.play(chunks, event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); !h.Alerted || h.Alert != 42 || h.Established || h.Outcome != event.Extracted {
		t.Errorf("%+v", h)
	}
}

// Client certificates and retries over QUIC, by a client and a server of quic-go.
func TestKeysQUIC(t *testing.T) {
	for _, wait := range []bool{false, true} {
		t.Run(fmt.Sprintf("wait %v", wait), func(t *testing.T) {
			c := quicConversation(t)
			store := new(keylog.Store)
			if !wait {
				store.Add("test", c.log, nil)
			}
			s := newSensor()
			s.SetKeys(store)
			if wait {
				s.WaitForKeys()
			}
			conn := s.Open(testFlow(event.UDP))
			for i, ch := range c.chunks {
				if quic.Looks(ch.b) {
					conn.Datagram(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, ch.b)
				}
			}
			if wait {
				conn.Close(event.EndOfInput)
				if len(s.got) > 0 {
					t.Fatal("emitted before the secrets came")
				}
				store.Add("test", c.log, nil)
				s.Tick(1)
			} else {
				conn.Close(event.EndOfInput)
			}
			s.check(t)
			h := one(t, s.got)
			if h.Outcome != event.Extracted || !h.ClientAuth || h.Carrier != "quic" || h.ServerHello.ALPN != "h3-test" || h.Certificate.Frame < 2 || h.Certificate.Frame > h.End.Frame {
				t.Errorf("%+v", h)
			}
			if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
				t.Errorf("%+v", h.Proof)
			}
			wantChain(t, h.Chain, c.server)
			wantChain(t, h.ClientChain, c.client)

			s = newSensor()
			s.SetKeys(keysOf(t, bytes.ReplaceAll(c.log, []byte("\n"), []byte("0\n"))[:0]))
			s.WaitForKeys()
			conn = s.Open(testFlow(event.UDP))
			for _, ch := range c.chunks {
				conn.Datagram(ch.d, still, ch.b)
			}
			conn.Close(event.EndOfInput)
			s.Flush()
			s.check(t)
			if h := one(t, s.got); h.Outcome != event.Encrypted || h.Chain != nil {
				t.Errorf("without secrets: %+v", h)
			}
		})
	}
}

// TestKeysQUICLimit loses a certificate over QUIC that is longer than its window: the
// rest of it was dropped, and the statistics and the record say why.
func TestKeysQUICLimit(t *testing.T) {
	c := quicConversation(t)
	s := keyedSensor(t, c.log)
	conn := s.Open(testFlow(event.UDP))
	for _, ch := range c.chunks {
		if conn.Datagram(ch.d, still, ch.b); conn.hs.Answered() {
			break
		}
	}
	if conn.stream.Direction(1).Phase != record.Protected || conn.done {
		t.Fatal("the server's flight has not begun, or is over")
	}
	conn.stream.Direction(1).Decrypted(still)
	conn.quicMessages(&quic.Result{Limited: [2]bool{1: true}})
	conn.Close(event.EndOfInput)
	s.check(t)
	if h := one(t, s.got); h.Outcome != event.Lost || h.Loss != event.Limit {
		t.Errorf("%v, by %q", h.Outcome, h.Loss)
	}
}
