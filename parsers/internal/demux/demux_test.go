package demux

import (
	"bytes"
	"testing"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
)

// recorder is a stream that notes what it is told: a gap is a byte of 0xff.
type recorder struct{ got [2][]byte }

func (s *recorder) Segment(d event.Direction, at event.Moment, b []byte) {
	s.got[d] = append(s.got[d], b...)
}

func (s *recorder) Gap(d event.Direction, at event.Moment, n int) { s.got[d] = append(s.got[d], 0xff) }

// FuzzPieces gives numbered pieces in any order, twice, and with some missing. What
// comes out is in the order of the numbers, without repetition, and with a gap
// where some are missing; all buffers are given back.
func FuzzPieces(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(1))
	f.Add([]byte{3, 2, 1, 4, 4, 9}, uint8(1))
	f.Add(bytes.Repeat([]byte{7, 5, 200, 6}, 20), uint8(5))
	f.Fuzz(func(t *testing.T, numbers []byte, first uint8) {
		var pool memory.Pool
		var p Pieces
		s := new(recorder)
		if p.Started() {
			t.Fatal("started before the start")
		}
		start := max(uint32(first), 1)
		for i, n := range numbers {
			if i == len(numbers)/4 {
				p.Start(&pool, start)
			}
			n &= 0x7f
			if !p.Started() {
				if !p.Full() {
					p.Hold(&pool, event.Moment{}, uint32(n), []byte{n})
				}
				continue
			}
			p.Add(&pool, s, 0, event.Moment{Frame: uint64(i)}, uint32(n), []byte{n})
			if pool.Lent() > (MaxPiecesHeld+1)*512 {
				t.Fatalf("%d bytes held", pool.Lent())
			}
		}
		if p.Started() {
			p.Drain(&pool, s, 0)
		} else {
			p.Start(&pool, 1<<31)
		}
		if pool.Held() != 0 || len(s.got[1]) > 0 {
			t.Fatalf("%d bytes held after the end", pool.Held())
		}
		next := int(start)
		for _, b := range s.got[0] {
			switch {
			case b == 0xff:
				next = -1
			case next >= 0 && int(b) != next:
				t.Fatalf("%d where %d must be in %v", b, next, s.got[0])
			default:
				next = int(b) + 1
			}
		}
	})
}

// FuzzFraming reads any bytes as a stream of packets: a packet that is found has a
// length, and what is read of its beginning does not depend on what follows.
func FuzzFraming(f *testing.F) {
	f.Add([]byte{0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0}, uint8(0))
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, uint8(0))
	f.Add([]byte{0x40, 0, 0, 3, 1, 2, 3}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, framing uint8) {
		if len(b) == 0 {
			return
		}
		f := Framing(framing % 4)
		found, n := Frame(f, b)
		if n < 0 || found == Unframed && n != 0 || f != Unframed && found != Unframed && found != f {
			t.Fatalf("%d as %d, of %d bytes", f, found, n)
		}
		if f != Unframed && n > 0 {
			if n < 2 {
				t.Fatalf("a packet of %d bytes", n)
			}
			if again, m := Frame(f, b[:min(len(b), n)]); len(b) >= n && n >= 4 && (again != found || m != n) {
				t.Fatalf("%d of %d bytes, and %d of %d without what follows", found, n, again, m)
			}
			f.Resumes(b, n)
		}
		if MayBePackets(b) != (func() bool { k, _ := Frame(Unframed, b); return k != Unframed }()) {
			t.Fatal("in two minds")
		}
	})
}

// FuzzInspect asks what any payload is: what is found in it is a part of it.
func FuzzInspect(f *testing.F) {
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Add([]byte{1, 0, 0, 0, 22, 0xfe, 0xfd})
	f.Add([]byte{0x2c, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, inner := range [][]byte{second(Inspect(b)), EncryptedRecords(b)} {
			if len(inner) > len(b) || !bytes.Contains(b, inner) {
				t.Fatalf("%x in %x", inner, b)
			}
		}
		if p, inner := Inspect(b); (inner != nil) != (p == DTLS || p.Carrier() != carrier.None) {
			t.Fatalf("payload %d with %d bytes of DTLS", p, len(inner))
		}
	})
}

func second(_ Payload, b []byte) []byte { return b }

// TestEAP sends requests and responses again, and leaves some out.
func TestEAP(t *testing.T) {
	packet := func(response bool, id uint8, data string) *eap.Packet {
		return &eap.Packet{Response: response, Identifier: id, Method: eap.TLS, Data: []byte(data)}
	}
	s, e := new(recorder), EAP{Method: eap.TLS}
	for _, p := range []*eap.Packet{
		packet(false, 255, "a"), packet(true, 255, "A"), packet(true, 255, "A"),
		packet(false, 0, "b"), packet(false, 255, "a"), packet(true, 0, "B"),
		packet(false, 2, "d"), packet(true, 2, "D"),
	} {
		d := event.Direction(0)
		if p.Response {
			d = 1
		}
		e.Packet(s, d, event.Moment{}, p)
	}
	if string(s.got[0]) != "ab\xffd" || string(s.got[1]) != "AB\xffD" {
		t.Errorf("%q and %q", s.got[0], s.got[1])
	}
	if !e.Answers(packet(true, 2, "")) || e.Answers(packet(true, 3, "")) {
		t.Error("an answer is not known by its identifier")
	}
	if e.Over(true, packet(false, 3, "\x16")) || !e.Over(true, packet(false, 9, "\x16")) {
		t.Error("the next conversation is not told from this one")
	}
}
