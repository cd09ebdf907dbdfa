package parsers

import (
	"reflect"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// TestRecycle gives back each handshake before the next: it is made of the same
// memory, and nothing of the one before is left in it.
func TestRecycle(t *testing.T) {
	var got *event.Handshake
	p := New(func(h *event.Handshake) { got = h }, DefaultLimits)
	all := samples(t)
	var before *event.Handshake
	for i := range 3 * len(all) {
		s := all[i*2%len(all)] // in another order each time
		want := one(t, split(t, s.chunks, func(n int) int { return n }))
		c := p.Open(testFlow(event.TCP))
		for _, ch := range s.chunks {
			c.Segment(ch.d, still, ch.b)
		}
		c.Close(event.EndOfInput)
		if before != nil && got != before {
			t.Fatalf("%s: not made of what was given back", s.name)
		}
		before = got
		if f := got.Flow; f == nil || f.Endpoints != testFlow(event.TCP).Endpoints || f.Transport != event.TCP {
			t.Errorf("%s: flow %+v", s.name, f)
		}
		memory := got.Memory
		got.Flow, got.Memory, want.Memory = nil, nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, alone %+v", s.name, got, want)
		}
		got.Memory = memory
		p.Recycle(got)
	}
	p.Recycle(&event.Handshake{}) // of no parser
}
