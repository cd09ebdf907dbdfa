package dtlsrecord

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/tls"
)

// recorder is a sink, of the records of DTLS and of a stream, that notes the whole
// messages that it is given.
type recorder struct {
	record.Sink // what is not called
	t           testing.TB
	stream      record.Stream
	reader      *Reader
	shared      Shared
	records     record.Shared
	account     memory.Account
	messages    []tls.Message
	losses      []event.Loss
}

func newRecorder(t testing.TB) *recorder {
	s := &recorder{t: t}
	s.records.Certs = cert.NewCache(16, 1<<20)
	s.shared.Records = &s.records
	s.account = s.records.Pool.NewAccount()
	s.stream.Open(&s.records, s, &s.account, false)
	s.reader = NewReader(&s.shared, s, &s.stream)
	return s
}

func (s *recorder) Begins(d event.Direction, at event.Moment, typ uint8)               {}
func (s *recorder) ChangeCipherSpec(d event.Direction, at event.Moment) bool           { return true }
func (s *recorder) Alert(d event.Direction, at event.Moment, level, description uint8) {}
func (s *recorder) Touch(at event.Moment)                                              {}
func (s *recorder) Flight(d event.Direction) Flight                                    { return Flight{} }
func (s *recorder) Progress() record.Progress                                          { return record.Progress{Begun: true} }
func (s *recorder) Protect(d event.Direction, at event.Moment) bool                    { return false }
func (s *recorder) Message(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) bool {
	if !m.Whole() && cause == event.NoLoss && record.Keeps(m.Type, m.TLS13) > 0 {
		s.t.Fatalf("message %d has %d of %d bytes, for no reason", m.Type, len(m.Head), m.Length)
	}
	if len(m.Tail) > 0 && (m.TailAt <= len(m.Head) || m.TailAt+len(m.Tail) > m.Length) {
		s.t.Fatalf("message %d of %d bytes has %d, and %d at %d", m.Type, m.Length, len(m.Head), len(m.Tail), m.TailAt)
	}
	m.Head, m.Tail = bytes.Clone(m.Head), bytes.Clone(m.Tail)
	s.messages, s.losses = append(s.messages, m), append(s.losses, cause)
	return false
}

// close ends the flow: nothing may be held then.
func (s *recorder) close() {
	for d := range event.Direction(2) {
		s.reader.Flush(d, event.EndOfInput)
		s.stream.Direction(d).Flush(event.EndOfInput)
		s.stream.Direction(d).TakeCarved()
		s.stream.Direction(d).Release()
	}
	if s.account.Discharge(); s.records.Pool.Held() != 0 || s.shared.Pool.Held() != 0 {
		s.t.Fatalf("%d and %d bytes held after the end", s.records.Pool.Held(), s.shared.Pool.Held())
	}
}

// datagram is a record with one fragment of a message.
func datagram(typ uint8, seq uint16, body []byte, from, to int) []byte {
	u24 := func(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }
	f := append([]byte{typ}, u24(len(body))...)
	f = append(f, byte(seq>>8), byte(seq))
	f = append(append(f, u24(from)...), u24(to-from)...)
	f = append(f, body[from:to]...)
	return append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(f) >> 8), byte(len(f))}, f...)
}

// TestFragments cuts a message into fragments that come in any order, twice, and
// overlap: it comes out whole, once.
func TestFragments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	body := make([]byte, 5000)
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	for range 50 {
		s := newRecorder(t)
		size := 1 + r.IntN(900)
		var l [][]byte
		for from := 0; from < len(body); from += size {
			l = append(l, datagram(tls.TypeServerHello, 1, body, max(0, from-r.IntN(size+1)), min(len(body), from+size)))
		}
		l = append(l, l[:len(l)/2]...)
		r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
		for i, b := range l {
			if s.reader.Datagram(1, event.Moment{Frame: uint64(i)}, b); len(s.messages) > 0 {
				break
			}
		}
		if len(s.messages) != 1 || !bytes.Equal(s.messages[0].Head, body) || s.losses[0] != event.NoLoss {
			t.Fatalf("fragments of %d: %d messages", size, len(s.messages))
		}
		s.close()
	}
}

// TestLimits holds what unfinished messages cost, and says which limit was reached.
func TestLimits(t *testing.T) {
	s := newRecorder(t)
	body := make([]byte, MaxMessage)
	for seq := range uint16(3 * MaxPending) {
		s.reader.Datagram(1, event.Moment{}, datagram(tls.TypeServerHello, seq, body, int(seq), int(seq)+1))
	}
	if n := len(s.reader.sent[1].pending); n != MaxPending || s.stream.Direction(1).Cause != event.Limit {
		t.Errorf("%d messages are put together, cause %q", n, s.stream.Direction(1).Cause)
	}
	s.close()
	s = newRecorder(t)
	s.reader.Datagram(1, event.Moment{}, datagram(tls.Certificate, 0, make([]byte, MaxMessage+1), 0, 9))
	if s.shared.Pool.Held() != 0 {
		t.Errorf("%d bytes of a message that is too long are held", s.shared.Pool.Held())
	}
	if s.close(); len(s.losses) != 1 || s.losses[0] != event.Limit {
		t.Errorf("losses %v", s.losses)
	}
}

// FuzzReader gives any datagrams to both directions: what is handed on agrees with
// itself, what is held is bounded by what came, and all of it is given back.
func FuzzReader(f *testing.F) {
	body := bytes.Repeat([]byte{1, 2, 3}, 20)
	f.Add(datagram(tls.TypeServerHello, 0, body, 0, 30), datagram(tls.TypeServerHello, 0, body, 25, 60), []byte{1})
	f.Add(datagram(tls.Certificate, 2, body, 40, 60), datagram(tls.Certificate, 2, body, 0, 10), []byte{20, 0xfe, 0xfd})
	f.Add([]byte{20, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, []byte{0x2f, 1, 2, 3}, []byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		s := newRecorder(t)
		s.shared.Keys = len(a)%2 == 1
		given := 0
		for i, b := range [][]byte{a, b, a, c, b} {
			s.reader.Datagram(event.Direction(len(b)&1), event.Moment{Time: int64(i), Frame: uint64(i)}, b)
			given += len(b)
			if s.shared.Pool.Held() > 1<<14+64*given || s.records.Pool.Lent() > 4096+8*given {
				t.Fatalf("%d and %d bytes held for %d", s.shared.Pool.Held(), s.records.Pool.Lent(), given)
			}
			for d := range s.reader.sent {
				if n := len(s.reader.sent[d].pending); n > MaxPending {
					t.Fatalf("%d messages are put together", n)
				}
			}
		}
		s.close()
	})
}
