package parsers

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
)

// placed is a record of a stream.
type placed struct {
	from, to int // in the stream, with its header
	typ      uint8
}

// recordsOf takes a stream apart that is nothing but whole records.
func recordsOf(b []byte) (l []placed) {
	for n := 0; n < len(b); {
		to := n + 5 + int(b[n+3])<<8 + int(b[n+4])
		l = append(l, placed{n, to, b[n]})
		n = to
	}
	return l
}

// sentBefore is how long the encrypted records are that the server writes before the
// client writes its first one.
func sentBefore(chunks []chunk) (l []uint16) {
	for _, c := range chunks {
		for _, r := range recordsOf(c.b) {
			switch {
			case r.typ == 23 && c.d == 0:
				return l
			case r.typ == 23:
				l = append(l, uint16(r.to-r.from-5))
			}
		}
	}
	return l
}

// flight is what an event.Flight says, to compare it.
func flight(lengths []uint16, whole bool) (f event.Flight) {
	f.Records = uint8(copy(f.Lengths[:], lengths))
	f.More = len(lengths) > len(f.Lengths)
	f.Whole = whole && !f.More
	return f
}

// The lengths are those of the records that the server has sent before the client
// answered, with and without keys, and whenever these come.
func TestFlight(t *testing.T) {
	for _, c := range conversations13(t) {
		want := flight(sentBefore(c.chunks), true)
		if want.Records < 4 {
			t.Fatalf("%s: %+v", c.name, want)
		}
		check := func(how string, got []*event.Handshake) {
			t.Helper()
			if h := one(t, got); h.Flight != want {
				t.Errorf("%s, %s: %+v\nwant %+v", c.name, how, h.Flight, want)
			}
		}
		check("no keys", play(t, c.chunks, event.EndOfInput))
		s := keyedSensor(t, c.log)
		s.play(c.chunks, event.EndOfInput)
		check("keys", s.got)
		s = newSensor()
		store := new(keylog.Store)
		s.SetKeys(store)
		s.WaitForKeys()
		s.play(c.chunks, event.EndOfInput)
		store.Add("test", c.log, nil)
		s.Tick(int64(len(c.chunks)))
		check("late keys", s.got)
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			check("cut", split(t, c.chunks, func(n int) int { return 1 + r.IntN(n) }))
		}
		check("byte by byte", split(t, c.chunks, func(int) int { return 1 }))
	}
}

// Where nothing is encrypted in records of TLS 1.3, or nothing of a certificate can be
// in them, there is no flight, or one of the two messages of a resumed session.
func TestNoFlight(t *testing.T) {
	for _, s := range samples(t) {
		h := one(t, play(t, s.chunks, event.EndOfInput))
		want := event.Flight{}
		if h.Version == tls.VersionTLS13 {
			want = flight(sentBefore(s.chunks), true)
		}
		if h.Flight != want || h.Resumed && h.Flight.Records > 3 {
			t.Errorf("%s: %+v, want %+v", s.name, h.Flight, want)
		}
	}
}

// Of one direction alone the first records are known, and not which of them came
// before an answer.
func TestFlightOneSided(t *testing.T) {
	for _, c := range conversations13(t) {
		h := one(t, play(t, only(1, c.chunks), event.EndOfInput))
		if f, want := h.Flight, sentBefore(c.chunks); f.Whole || int(f.Records) < len(want) || !slices.Equal(f.Lengths[:len(want)], want) {
			t.Errorf("the server: %+v, want %v", f, want)
		}
		if h := one(t, play(t, only(0, c.chunks), event.EndOfInput)); h.Flight != (event.Flight{}) {
			t.Errorf("the client: %+v", h.Flight)
		}
	}
}

// A gap within a record does not hide its length. After any other, nothing more is
// known: what is known are the first records, without one missing.
func TestFlightGaps(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range conversations13(t) {
		server, want := stream(1, c.chunks), sentBefore(c.chunks)
		records := recordsOf(server)
		first := slices.IndexFunc(records, func(r placed) bool { return r.typ == 23 })
		for range 500 {
			from := r.IntN(len(server))
			n := 1 + r.IntN(min(len(server)-from, 1<<r.IntN(12)))
			var within, before int // whether the gap is within a fragment, how many records lie before it
			at := 0
			s := newSensor()
			conn := s.Open(testFlow(event.TCP))
			for _, ch := range c.chunks {
				if ch.d == 0 {
					conn.Segment(0, still, ch.b)
					continue
				}
				for i := 0; i < len(ch.b); {
					switch {
					case at == from:
						k := min(n, len(ch.b)-i) // where the other direction speaks in between, so does the gap end
						n = k
						conn.Gap(1, still, k)
						i, at = i+k, at+k
					default:
						k := len(ch.b) - i
						if at < from {
							k = min(k, from-at)
						}
						conn.Segment(1, still, ch.b[i:i+k])
						i, at = i+k, at+k
					}
				}
			}
			conn.Close(event.EndOfInput)
			s.check(t)
			for _, p := range records[first:] {
				if p.typ == 23 && p.from+5 <= from {
					before++
				}
				if from >= p.from+5 && from+n <= p.to {
					within = 1
				}
			}
			for _, h := range s.got {
				f := h.Flight
				if int(f.Records) > len(want) || !slices.Equal(f.Lengths[:f.Records], want[:f.Records]) {
					t.Fatalf("%s, gap of %d at %d: %+v, want %v", c.name, n, from, f, want)
				}
				sent := records[first].from
				for _, l := range want {
					sent += 5 + int(l)
				}
				if within == 1 || from >= sent {
					if f != flight(want, true) {
						t.Fatalf("%s, gap of %d at %d, within a record or late: %+v, want %v", c.name, n, from, f, want)
					}
				} else if from >= records[first].from && (f.Whole || int(f.Records) != before) {
					t.Fatalf("%s, gap of %d at %d, %d records before it: %+v", c.name, n, from, before, f)
				}
			}
		}
	}
}

// A ChangeCipherSpec for show may stand anywhere, and an answer that was captured too
// early ends the flight where it was, within a record or not.
func TestFlightOrder(t *testing.T) {
	for _, c := range conversations13(t) {
		client, server := stream(0, c.chunks), stream(1, c.chunks)
		want := sentBefore(c.chunks)
		var noisy, all []byte
		for _, r := range recordsOf(server) {
			if r.typ == 23 {
				noisy = append(noisy, 20, 3, 3, 0, 1, 1)
			}
			if r.typ != 20 {
				noisy = append(noisy, server[r.from:r.to]...)
			}
		}
		hello := c.chunks[0].b
		if c.retry {
			continue // its hellos come in turns
		}
		// Before the client's words there is all that the server sends, tickets too.
		for _, r := range recordsOf(server) {
			all = append(all, server[r.from:r.to]...)
		}
		answer := client[len(hello):]
		for _, b := range [][]byte{noisy, all} {
			for n := range min(len(b), 3000) {
				h := play(t, []chunk{{0, hello}, {1, b[:n]}, {0, answer}, {1, b[n:]}}, event.EndOfInput)[0]
				f := h.Flight
				k := min(int(f.Records), len(want))
				if !slices.Equal(f.Lengths[:k], want[:k]) {
					t.Fatalf("%s: %+v, want %v", c.name, f, want)
				}
				boundary, begun := false, false // whether the answer comes between two records
				for _, r := range recordsOf(b) {
					begun = begun || r.typ == 23
					boundary = boundary || r.to == n && begun
				}
				if f.Whole != boundary {
					t.Fatalf("%s, answer after %d bytes: %+v", c.name, n, f)
				}
			}
		}
	}
}

// More records than are kept are no whole flight.
func TestFlightLimit(t *testing.T) {
	for _, n := range []int{1, event.MaxFlight, event.MaxFlight + 1, 500} {
		server := slices.Concat(serverHello3(0x1301, nil, 0, 43, 0, 2, 3, 4), bytes.Repeat(record3(23, make([]byte, 30)...), n))
		h := one(t, play(t, []chunk{{0, clientHello3(1, nil)}, {1, server}, {0, record3(23, make([]byte, 53)...)}}, event.EndOfInput))
		if f := h.Flight; int(f.Records) != min(n, event.MaxFlight) || f.More != (n > event.MaxFlight) || f.Whole == f.More {
			t.Errorf("%d records: %+v", n, f)
		}
	}
	for _, bad := range [][]byte{{23, 3, 3, 0, 0}, {23, 3, 3, 0xff, 0xff}, {22, 3, 3, 0, 4}, {20, 3, 3, 0, 2}, {0, 0, 0, 0, 0}} {
		server := slices.Concat(serverHello3(0x1301, nil, 0, 43, 0, 2, 3, 4), record3(23, make([]byte, 30)...), bad, make([]byte, 100))
		h := one(t, play(t, []chunk{{0, clientHello3(1, nil)}, {1, server}, {0, record3(23, make([]byte, 53)...)}}, event.EndOfInput))
		if f := h.Flight; f.Records != 1 || f.Whole {
			t.Errorf("%x: %+v", bad, f)
		}
	}
}

// FuzzFlight gives the parser a hello of TLS 1.3 and then any bytes of the server, cut
// anywhere. What it says of the flight is what a reader of the whole stream says.
func FuzzFlight(f *testing.F) {
	f.Add(slices.Concat(record3(20, 1), record3(23, make([]byte, 40)...), record3(23, make([]byte, 900)...)), uint16(7))
	f.Add(slices.Concat(record3(23, make([]byte, 40)...), record3(20, 1), record3(23, 1), record3(21, 2, 40)), uint16(1))
	f.Add(append(record3(23, 1, 2), 23, 3, 3, 0), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, step uint16) {
		hello := serverHello3(0x1301, nil, 0, 43, 0, 2, 3, 4)
		s := newSensor()
		c := s.Open(testFlow(event.TCP))
		c.Segment(0, still, clientHello3(1, nil))
		c.Segment(1, still, hello)
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 1+int(step))
			c.Segment(1, still, rest[:n])
			rest = rest[n:]
		}
		c.Segment(0, still, record3(23, make([]byte, 53)...))
		c.Close(event.EndOfInput)
		s.check(t)
		if len(b) < 5 || b[0] != 23 || b[3]|b[4] == 0 {
			return // what comes before the first encrypted record is the business of others
		}
		var want event.Flight
		whole := true
		for len(b) > 0 {
			n := 0
			if len(b) >= 5 {
				n = int(b[3])<<8 | int(b[4])
			}
			if n == 0 || n > 1<<14+2048 || b[0] != 23 && (b[0] != 20 || n != 1) {
				whole = false
				break
			}
			if b[0] == 23 {
				if want.Records == event.MaxFlight {
					want.More, whole = true, false
					break
				}
				want.Lengths[want.Records] = uint16(n)
				want.Records++
			}
			if len(b) < 5+n {
				whole = false
				break
			}
			b = b[5+n:]
		}
		want.Whole = whole && want.Records > 0
		if len(s.got) == 1 && s.got[0].Flight != want && s.got[0].Flight.Records > 0 {
			t.Errorf("%+v\nwant %+v", s.got[0].Flight, want)
		}
		if len(s.got) == 1 && s.got[0].Flight.Records == 0 && want.Records > 0 {
			t.Errorf("no flight, want %+v", want)
		}
	})
}

// BenchmarkFlight is what it costs to follow the records of a server's flight.
func BenchmarkFlight(b *testing.B) {
	for _, n := range []int{1460, 100} {
		b.Run(fmt.Sprintf("segments of %d", n), func(b *testing.B) {
			client, server := configs(tls.VersionTLS13, rsaKey())
			var chunks []chunk
			for _, c := range handshake(b, client, server) {
				for part := range slices.Chunk(c.b, n) {
					chunks = append(chunks, chunk{c.d, part})
				}
			}
			p := New(func(*event.Handshake) {}, DefaultLimits)
			f := testFlow(event.TCP)
			b.ReportAllocs()
			for b.Loop() {
				c := p.Open(f)
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
