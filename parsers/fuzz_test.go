package parsers

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/dtlsrecord"
	"github.com/oddcert/oddcert/parsers/internal/negotiation"
	"github.com/oddcert/oddcert/parsers/internal/record"
)

// A script is a sequence of steps. Each has a byte whose lowest bit is the direction
// and whose next bits say what to do, two bytes of length, and the bytes.
const (
	stepBytes = iota
	stepGap   // no bytes follow
	steps
)

func appendStep(b []byte, d event.Direction, kind int, data []byte) []byte {
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), 0xffff)
		b = append(b, byte(d)|byte(kind)<<1)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, data[:n]...)
		data = data[n:]
	}
	return b
}

// step cuts the first step off a script.
func step(b []byte) (d event.Direction, kind, n int, data, rest []byte, ok bool) {
	if len(b) < 3 {
		return 0, 0, 0, nil, nil, false
	}
	d, kind, n = event.Direction(b[0]&1), int(b[0]>>1)%steps, int(b[1])<<8|int(b[2])
	b = b[3:]
	if kind == stepGap {
		return d, kind, n, nil, b, true
	}
	n = min(n, len(b))
	return d, kind, n, b[:n], b[n:], true
}

// subsequence reports whether all of b is in stream, in this order.
func subsequence(stream, b []byte) bool {
	for _, v := range b {
		i := bytes.IndexByte(stream, v)
		if i < 0 {
			return false
		}
		stream = stream[i+1:]
	}
	return true
}

// sane checks what is true for handshakes from any input.
func sane(t *testing.T, s *sensor, input [2][]byte, datagram bool) {
	s.check(t)
	for i, h := range s.got {
		if h.Index != i || h.Client > 1 || h.Outcome >= event.Outcomes || h.Loss >= event.Losses ||
			(h.Outcome == event.Lost) != (h.Loss != event.NoLoss) || h.Resumed != (h.Outcome == event.Resumed) {
			t.Errorf("%+v", h)
		}
		if (h.Outcome == event.Extracted) != (len(h.Chain) > 0 && !h.Chain[0].Truncated) || (h.Outcome == event.Extracted) != (h.Certificate != event.Moment{}) {
			t.Errorf("outcome %v, chain of %d, certificate %v", h.Outcome, len(h.Chain), h.Certificate)
		}
		for side, chain := range [][]event.ChainEntry{h.Chain, h.ClientChain} {
			d := h.Client
			if side == 0 {
				d = d.Other()
			}
			if len(chain) > negotiation.MaxChain {
				t.Errorf("chain of %d", len(chain))
			}
			for _, e := range chain {
				switch {
				case e.Certificate == nil:
					t.Error("an entry of nothing")
				case e.Truncated && (e.DER != nil || e.SHA256 != [32]byte{} || e.SHA1 != [20]byte{} || e.MD5 != [16]byte{}):
					t.Error("a truncated certificate has a hash")
				case !e.Truncated && !datagram && !subsequence(input[d], e.DER):
					t.Errorf("certificate %x is not in %x", e.DER, input[d])
				case !e.Truncated && len(e.DER) > len(input[d]):
					t.Error("a certificate longer than the input")
				}
			}
		}
	}
}

func FuzzStream(f *testing.F) {
	for _, s := range samples(f) {
		var whole, gapped []byte
		for i, c := range s.chunks {
			whole = appendStep(whole, c.d, stepBytes, c.b)
			k := len(c.b) / 2
			gapped = appendStep(gapped, c.d, stepBytes, c.b[:k])
			if i == 1 {
				gapped = append(gapped, byte(c.d)|stepGap<<1, 0, 9)
				k += 9
			}
			gapped = appendStep(gapped, c.d, stepBytes, c.b[k:])
		}
		f.Add(whole)
		f.Add(gapped)
	}
	v2 := append([]byte{0x80, 31, 1, 0, 2, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 1, 0, 0x80}, make([]byte, 16)...)
	answer := append([]byte{0x80, 33, 4, 0, 1, 0, 2, 0, 3, 0, 3, 0, 16, 0x30, 1, 2, 1, 0, 0x80}, make([]byte, 16)...)
	f.Add(appendStep(appendStep(nil, 0, stepBytes, v2), 1, stepBytes, answer))
	s := newSensor()
	f.Fuzz(func(t *testing.T, script []byte) {
		s.got = s.got[:0]
		c := s.Open(testFlow(event.TCP))
		var input [2][]byte
		for b := script; ; {
			d, kind, n, data, rest, ok := step(b)
			if !ok {
				break
			}
			b = rest
			var v Status
			if kind == stepGap {
				v = c.Gap(d, still, n)
			} else {
				input[d] = append(input[d], data...)
				v = c.Segment(d, still, data)
			}
			if (v == Done) != c.done {
				t.Fatal("the status is not that of the flow")
			}
			if s.records.Pool.Lent() > 4096+4*len(script) {
				t.Fatalf("%d bytes held for %d", s.records.Pool.Lent(), len(script))
			}
		}
		c.Close(event.EndOfInput)
		sane(t, s, input, false)
	})
}

// FuzzSplit gives two streams whole, and cut into a few segments.
func FuzzSplit(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(stream(0, s.chunks), stream(1, s.chunks), uint64(0x123456789abcdef))
	}
	dialogues, _ := tokenDialogues(f)
	for _, chunks := range dialogues {
		f.Add(stream(0, chunks), stream(1, chunks), uint64(0x123456789abcdef))
	}
	a, b := newSensor(), newSensor()
	f.Fuzz(func(t *testing.T, client, server []byte, cuts uint64) {
		a.got, b.got = a.got[:0], b.got[:0]
		c := a.Open(testFlow(event.TCP))
		c.Segment(0, still, client)
		c.Segment(1, still, server)
		followed := true // both directions, completely: where the framing is lost, segments matter
		for d := range event.Direction(2) {
			h := c.stream.Direction(d)
			followed = followed && (h.Phase == record.Plaintext || h.Phase == record.Encrypted) && h.Cause == event.NoLoss && !h.Unaligned
		}
		c.Close(event.EndOfInput)
		a.check(t)
		c = b.Open(testFlow(event.TCP))
		for d, s := range [][]byte{client, server} {
			for range 5 {
				k := int(cuts % uint64(len(s)+1))
				cuts = cuts>>7 | cuts<<57
				c.Segment(event.Direction(d), still, s[:k])
				s = s[k:]
			}
			c.Segment(event.Direction(d), still, s)
		}
		c.Close(event.EndOfInput)
		b.check(t)
		for _, h := range a.got {
			followed = followed && !h.Alerted // a refusal ends it at once, wherever it comes in the flight of the other
		}
		if !followed {
			return
		}
		if len(a.got) != len(b.got) {
			t.Fatalf("%d handshakes, cut %d", len(a.got), len(b.got))
		}
		for i := range a.got {
			a.got[i].Flow, b.got[i].Flow = nil, nil
			if !alike(a.got[i], b.got[i]) {
				t.Errorf("whole %+v\ncut %+v", a.got[i], b.got[i])
			}
		}
	})
}

func FuzzDatagrams(f *testing.F) {
	l, _ := dtlsSample(f)
	for _, n := range []int{1 << 14, 300} {
		var script []byte
		for _, d := range datagrams(cookieExchange(l), n) {
			script = appendStep(script, d.d, stepBytes, d.b)
		}
		f.Add(script)
	}
	s := newSensor()
	f.Fuzz(func(t *testing.T, script []byte) {
		s.got = s.got[:0]
		c := s.Open(testFlow(event.UDP))
		var input [2][]byte
		for b := script; ; {
			d, _, _, data, rest, ok := step(b)
			if !ok {
				break
			}
			b = rest
			input[d] = append(input[d], data...)
			c.Datagram(d, still, data)
			if s.records.Pool.Lent() > 2*dtlsrecord.MaxPending*512+2*len(script) {
				t.Fatalf("%d bytes held for %d", s.records.Pool.Lent(), len(script))
			}
		}
		c.Close(event.EndOfInput)
		sane(t, s, input, true)
	})
}
