package record

import (
	"bytes"
	stdtls "crypto/tls"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/tls"
)

// recorder is a sink that notes what it is told.
type recorder struct {
	stream   Stream
	messages [2][]message
	begun    bool
	answered bool
	touched  event.Moment
	closed   bool
	t        testing.TB
}

type message struct {
	typ   uint8
	body  string
	whole bool
}

func (s *recorder) Begins(d event.Direction, at event.Moment, typ uint8) { s.begun = true; s.Touch(at) }

func (s *recorder) Message(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) bool {
	s.Touch(at)
	switch {
	case s.closed:
		s.t.Fatal("a message after the end")
	case !m.Whole() && cause == event.NoLoss && Keeps(m.Type, m.TLS13) >= m.Length:
		s.t.Fatalf("message %d is not whole, for no reason", m.Type)
	case len(m.Head) > m.Length, len(m.Tail) > 0 && m.TailAt+len(m.Tail) > m.Length, len(m.Tail) > 0 && m.TailAt <= len(m.Head):
		s.t.Fatalf("message %d of %d bytes has %d, and %d at %d", m.Type, m.Length, len(m.Head), len(m.Tail), m.TailAt)
	}
	if m.Whole() {
		s.messages[d] = append(s.messages[d], message{m.Type, string(m.Head[:m.Length]), true})
	}
	s.answered = s.answered || m.Type == tls.TypeServerHello
	return false
}

func (s *recorder) SSLv2(d event.Direction, at event.Moment, hello []byte, client bool) bool {
	if n, c := tls.V2Length(hello); n != len(hello) || c != client {
		s.t.Fatalf("a hello of SSL 2.0 of %d bytes, not %d", len(hello), n)
	}
	s.begun = true
	return !client
}

func (s *recorder) ChangeCipherSpec(d event.Direction, at event.Moment) bool { return s.answered }
func (s *recorder) Alert(d event.Direction, at event.Moment, level, description uint8) {
}
func (s *recorder) Encrypted(d event.Direction, at event.Moment, by uint8) { s.Touch(at) }
func (s *recorder) Touch(at event.Moment)                                  { s.touched = event.Later(s.touched, at) }
func (s *recorder) Protect(d event.Direction, at event.Moment) bool        { return false }
func (s *recorder) Decrypted(d event.Direction, at event.Moment) {
	s.t.Fatal("decrypted without a secret")
}
func (s *recorder) EncryptedRecord(d event.Direction, length int) bool       { return false }
func (s *recorder) Nested(d event.Direction, at event.Moment, b []byte) bool { return false }
func (s *recorder) Progress() Progress                                       { return Progress{Begun: s.begun, Answered: s.answered} }
func (s *recorder) close(shared *Shared, account *memory.Account) {
	for d := range event.Direction(2) {
		s.stream.Direction(d).Flush(event.EndOfInput)
	}
	for d := range event.Direction(2) {
		if c, ok := s.stream.Direction(d).TakeCarved(); ok {
			for i, e := range c.Chain {
				if e.Truncated || len(e.DER) < smallestCertificate || i >= MaxChain {
					s.t.Fatalf("certificate %d of %d bytes was carved", i, len(e.DER))
				}
			}
		}
		s.stream.Direction(d).Release()
	}
	s.closed = true
	s.stream.Close()
	account.Discharge()
	if shared.Pool.Held() != 0 || shared.Waiting != 0 {
		s.t.Fatalf("%d bytes held after the end, %d that wait", shared.Pool.Held(), shared.Waiting)
	}
}

// hellos are the first bytes of the client and of the server of a handshake of
// TLS 1.2.
func hellos(t testing.TB) (l [2][]byte) {
	a, b := net.Pipe()
	go func() {
		stdtls.Client(a, &stdtls.Config{InsecureSkipVerify: true, MaxVersion: stdtls.VersionTLS12}).Handshake()
		a.Close()
	}()
	buf := make([]byte, 1<<14)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for n < tls.RecordHeader+tls.RecordLength(buf) {
		k, err := b.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	b.Close()
	l[0] = bytes.Clone(buf[:n])
	hello := append(append([]byte{3, 3}, make([]byte, 32)...), 0, 0xc0, 0x2f, 0)
	der := append([]byte{0x30, 0x81, 0x90}, bytes.Repeat([]byte{5, 0}, 72)...)
	list := append([]byte{0, 0, byte(3 + len(der)), 0, 0, byte(len(der))}, der...)
	l[1] = oneRecord(22, handshakeMessage(tls.TypeServerHello, hello), handshakeMessage(tls.Certificate, list), handshakeMessage(tls.ServerHelloDone, nil))
	return l
}

func handshakeMessage(typ uint8, body []byte) []byte {
	return append([]byte{typ, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// oneRecord is one record of a type with the messages.
func oneRecord(typ uint8, messages ...[]byte) []byte {
	body := bytes.Join(messages, nil)
	return append([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// play gives b to a direction in pieces of n bytes.
func play(t testing.TB, streams [2][]byte, n int) *recorder {
	shared := &Shared{Certs: cert.NewCache(16, 1<<20)}
	account := shared.Pool.NewAccount()
	s := &recorder{t: t}
	s.stream.Open(shared, s, &account, true)
	for d, b := range streams {
		for at := int64(1); len(b) > 0; at++ {
			k := min(n, len(b))
			h := s.stream.Direction(event.Direction(d))
			h.Seen = true
			h.Segment(event.Moment{Time: at, Frame: uint64(at)}, b[:k])
			b = b[k:]
		}
	}
	s.close(shared, &account)
	return s
}

// TestPieces cuts a handshake into pieces of any size: the messages are the same.
func TestPieces(t *testing.T) {
	streams := hellos(t)
	want := play(t, streams, 1<<20)
	if len(want.messages[0]) != 1 || len(want.messages[1]) != 3 {
		t.Fatalf("%d and %d messages", len(want.messages[0]), len(want.messages[1]))
	}
	for n := range len(streams[0]) {
		got := play(t, streams, n+1)
		for d := range got.messages {
			if len(got.messages[d]) != len(want.messages[d]) {
				t.Fatalf("pieces of %d: %d messages, want %d", n+1, len(got.messages[d]), len(want.messages[d]))
			}
			for i, m := range got.messages[d] {
				if m.typ != want.messages[d][i].typ || Keeps(m.typ, false) > 3 && m.body != want.messages[d][i].body {
					t.Errorf("pieces of %d: message %d differs", n+1, i)
				}
			}
		}
	}
}

// certificateShape makes b begin like a certificate of n bytes with its length before
// it.
func certificateShape(b []byte, n int) {
	u24 := func(b []byte, n int) { b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n) }
	u24(b, n)
	u24(b[5:], n-5)
	u24(b[10:], n-20)
	b[3], b[4], b[8], b[9] = 0x30, 0x83, 0x30, 0x83
	copy(b[13:], []byte{2, 1, 1})
}

// What is made to look like many certificates, or like one with many records in it,
// is looked at within a limit, also where it comes at once.
func TestCarvingLimit(t *testing.T) {
	nested := make([]byte, 64<<10) // each ends where all end
	for i := 0; i+200 < len(nested); i += 18 {
		certificateShape(nested[i:], len(nested)-i-3)
	}
	records := make([]byte, 512<<10) // no header is followed by another
	certificateShape(records, len(records)+100)
	for i := 100; i+10 < len(records); i += 10 {
		copy(records[i:], []byte{tls.Handshake, 3, 1, 1, 51})
	}
	for name, c := range map[string]struct {
		data []byte
		step int
	}{"certificates": {nested, 1460}, "certificates at once": {nested, len(nested)}, "records": {records, 300}} {
		shared := &Shared{Certs: cert.NewCache(16, 1<<20)}
		account := shared.Pool.NewAccount()
		s := &recorder{t: t, begun: true}
		s.stream.Open(shared, s, &account, true)
		h := s.stream.Direction(1)
		h.Phase, h.Seen = Unsynced, true
		for b := c.data; len(b) > 0; {
			n := min(c.step, len(b))
			h.Segment(event.Moment{}, b[:n])
			b = b[n:]
		}
		h.Flush(event.EndOfInput)
		if cost := h.carver.cost; cost > MaxCarving+len(c.data) || shared.CarvingLimited != 1 {
			t.Errorf("%s: %d bytes were looked at in vain, limited %d times", name, cost, shared.CarvingLimited)
		}
		s.close(shared, &account)
	}
}

// The next mark is the first byte that may begin something, wherever the pieces end
// in which it is looked for.
func TestNextMark(t *testing.T) {
	mark := func(w []byte, raw bool) int {
		for i := range w {
			last := i+1 == len(w)
			if w[i] == 0x30 && (last || w[i+1] >= 0x81 && w[i+1] <= 0x83) || raw && w[i] == tls.Handshake && (last || w[i+1] == 3 || w[i+1] == 1) {
				return i
			}
		}
		return -1
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		w := make([]byte, r.IntN(3*markPiece))
		for range r.IntN(4) {
			if len(w) > 1 {
				copy(w[r.IntN(len(w)):], [][]byte{{0x30, 0x82}, {0x30, 0}, {tls.Handshake, 3}, {tls.Handshake, 9}}[r.IntN(4)])
			}
		}
		for _, raw := range []bool{false, true} {
			if got, want := nextMark(w, 0, raw), mark(w, raw); got != want {
				t.Fatalf("%d, want %d, raw %v, in %x", got, want, raw, w)
			}
		}
	}
}

// FuzzDirection gives any bytes and gaps to both directions of a stream: what is
// handed on agrees with itself, what is held is bounded by what came, and all of
// it is given back.
func FuzzDirection(f *testing.F) {
	streams := hellos(f)
	f.Add(streams[0], streams[1], uint64(0x1234567890), false)
	f.Add(streams[0], streams[1][7:], uint64(99), true)
	f.Add([]byte("EHLO c\r\nSTARTTLS\r\n\x16\x03\x01\x00"), []byte("220 mx\r\n250-a\r\n250 STARTTLS\r\n220 go\n\x16"), uint64(3), false)
	f.Add([]byte{0x80, 0x2e, 1, 0, 2, 0, 0x15}, []byte{0x15, 3, 1, 0, 2, 2, 40}, uint64(0), false)
	f.Add([]byte{0x14, 3, 3, 0, 1, 1, 0x17, 3, 3, 0, 1, 9}, []byte{}, uint64(1<<40), true)
	f.Fuzz(func(t *testing.T, client, server []byte, cuts uint64, midstream bool) {
		shared := &Shared{Certs: cert.NewCache(16, 1<<20)}
		account := shared.Pool.NewAccount()
		s := &recorder{t: t}
		s.stream.Open(shared, s, &account, true)
		given := 0
		for at := int64(1); len(client)+len(server) > 0; at++ {
			d := event.Direction(cuts & 1)
			b := &client
			if d == 1 {
				b = &server
			}
			n := min(int(cuts>>1&63)+1, len(*b))
			gap := cuts>>7&7 == 7
			cuts = cuts>>10 | cuts<<54
			if n == 0 {
				cuts ^= 1
				continue
			}
			h, moment := s.stream.Direction(d), event.Moment{Time: at, Frame: uint64(at)}
			if midstream && !h.Seen {
				h.Midstream()
			}
			switch {
			case h.Ended():
			case gap:
				h.Gap(moment, n)
			default:
				h.Seen = true
				h.Segment(moment, (*b)[:n])
				given += n
			}
			*b = (*b)[n:]
			if h.Phase == Cleartext && (h.bytes > MaxDialogue+given || h.segments > MaxDialogueSegments) {
				t.Fatalf("%d bytes and %d segments searched", h.bytes, h.segments)
			}
			if h.partial.have > h.partial.length || h.left > h.length && h.Phase == Plaintext {
				t.Fatalf("%d of %d bytes of a message, %d of %d of a record to come", h.partial.have, h.partial.length, h.left, h.length)
			}
			if k := h.carver; k != nil && k.cost > MaxCarving+resumeCost+given {
				t.Fatalf("%d bytes were looked at in vain", k.cost)
			}
			if shared.Pool.Lent() > 4096+8*given {
				t.Fatalf("%d bytes held for %d", shared.Pool.Lent(), given)
			}
		}
		s.close(shared, &account)
	})
}
