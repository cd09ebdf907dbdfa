package flow

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// A window says of every byte what a map from sequence numbers says.
func TestWindow(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var w window
		var p pages
		next := []uint32{0, 12345, 1<<32 - 3000}[r.IntN(3)]
		model := map[uint32]byte{}
		replace := seed%2 == 0
		for range 60 {
			switch r.IntN(5) {
			case 1: // the stream begins earlier
				next -= uint32(r.IntN(3000))
			case 0:
				next += uint32(r.IntN(1500))
				for at := range model {
					if distance(next, at) < 0 {
						delete(model, at)
					}
				}
				w.advance(&p, next)
			default:
				seq := next + uint32(r.IntN(9000))
				data := make([]byte, 1+r.IntN([]int{1, 100, 5000}[r.IntN(3)]))
				for i := range data {
					data[i] = byte(r.IntN(3))
				}
				overlaps, conflicts := false, false
				for i, c := range data {
					old, ok := model[seq+uint32(i)]
					overlaps = overlaps || ok
					conflicts = conflicts || ok && old != c
					if !ok || replace {
						model[seq+uint32(i)] = c
					}
				}
				overlap, conflict := w.put(&p, next, seq, data, replace)
				if overlap != overlaps || conflict != conflicts {
					t.Fatalf("seed %d: overlap %v, conflict %v; want %v, %v", seed, overlap, conflict, overlaps, conflicts)
				}
			}
			held := 0
			for _, g := range w.pages {
				if g != nil {
					held += heldPageCost
				}
			}
			if most := held + 8*cap(w.pages) + 8*cap(w.cuts); p.used > most || p.used < most-8*limitKept {
				t.Fatalf("seed %d: %d bytes are accounted for, %d taken", seed, p.used, most)
			}
			if w.bytes != len(model) || w.empty() != (len(model) == 0) {
				t.Fatalf("seed %d: %d bytes, want %d", seed, w.bytes, len(model))
			}
			var high uint32
			first, any := uint32(0), false
			for at := range model {
				if !any || distance(first, at) < 0 {
					first = at
				}
				if !any || distance(high, at+1) > 0 {
					high = at + 1
				}
				any = true
			}
			if seq, ok := w.after(next); ok != any || ok && seq != first {
				t.Fatalf("seed %d: first at %d, %v; want %d, %v", seed, seq, ok, first, any)
			}
			if any && w.high() != high {
				t.Fatalf("seed %d: high %d, want %d", seed, w.high(), high)
			}
			got := 0
			for at := next; distance(at, high) > 0 && any; {
				run := w.run(at)
				if run == nil {
					if _, ok := model[at]; ok {
						t.Fatalf("seed %d: %d is not there", seed, at)
					}
					at++
					continue
				}
				for _, c := range run {
					if want, ok := model[at]; !ok || want != c {
						t.Fatalf("seed %d: %d at %d, want %d, %v", seed, c, at, want, ok)
					}
					at++
					got++
				}
			}
			if got != len(model) {
				t.Fatalf("seed %d: %d bytes in runs, want %d", seed, got, len(model))
			}
		}
		if n := unsafe.Sizeof(heldPage{}); n != heldPageCost {
			t.Fatalf("a page has %d bytes", n)
		}
		w.reset(&p)
		if p.used != 0 {
			t.Fatalf("seed %d: %d bytes are left", seed, p.used)
		}
	}
}
