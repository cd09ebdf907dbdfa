package sparse

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// model is a page as a map.
type model map[int]byte

// check holds all that p says against the model.
func check(t *testing.T, p *Page, m model) {
	t.Helper()
	if p.Len() != len(m) {
		t.Fatalf("%d bytes, want %d", p.Len(), len(m))
	}
	end := 0
	for at := range m {
		end = max(end, at+1)
	}
	if p.End() != end {
		t.Fatalf("the end is %d, want %d", p.End(), end)
	}
	run, first := PageBytes, PageBytes
	for from := PageBytes - 1; from >= 0; from-- {
		c, ok := m[from]
		if ok {
			first = from
			if got := p.Bytes(from, from+1)[0]; got != c {
				t.Fatalf("%d at %d, want %d", got, from, c)
			}
		} else {
			run = from
		}
		if p.Run(from) != run || p.First(from) != first {
			t.Fatalf("from %d: run to %d, first at %d; want %d, %d", from, p.Run(from), p.First(from), run, first)
		}
	}
}

// play does with a page and with the model what in says, in steps of five bytes.
func play(t *testing.T, in []byte) {
	p, m := new(Page), model{}
	for steps := 0; len(in) >= 5 && steps < 40; in, steps = in[5:], steps+1 {
		at := (int(in[1])<<8 | int(in[2])) % PageBytes
		switch in[0] % 8 {
		case 0:
			n := 0
			for i := range m {
				if i < at {
					delete(m, i)
					n++
				}
			}
			if got := p.Forget(at); got != n {
				t.Fatalf("%d bytes forgotten, want %d", got, n)
			}
		case 1:
			p.Clear()
			clear(m)
		default:
			replace := in[0]&8 != 0
			b := make([]byte, min(1+int(in[3])<<(in[0]>>6), PageBytes-at))
			fresh, conflict := 0, false
			for i := range b {
				b[i] = in[4] + byte(i)/200
				old, ok := m[at+i]
				if !ok {
					fresh++
				}
				conflict = conflict || ok && old != b[i]
				if !ok || replace {
					m[at+i] = b[i]
				}
			}
			if f, c := p.Put(at, b, replace); f != fresh || c != conflict {
				t.Fatalf("put %d at %d: %d fresh, conflict %v; want %d, %v", len(b), at, f, c, fresh, conflict)
			}
		}
		check(t, p, m)
	}
}

// A page says of every byte what a map from places says.
func TestPage(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		in := make([]byte, 200)
		for i := range in {
			in[i] = byte(r.IntN(256))
			if i%5 == 4 {
				in[i] %= 2
			}
		}
		play(t, in)
	}
}

func FuzzPage(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x40\x01\x0a\x00\x20\x40\x02\x00\x00\x30\x00\x00"))
	f.Fuzz(play)
}

// A page fills a size class of the allocator, and costs what is counted for it.
func TestPageCost(t *testing.T) {
	if n := unsafe.Sizeof(Page{}); n != PageCost {
		t.Errorf("a page has %d bytes", n)
	}
}

func TestPutAllocates(t *testing.T) {
	var p Page
	b := make([]byte, 700)
	if n := testing.AllocsPerRun(100, func() {
		p.Clear()
		p.Put(100, b, false)
		p.Put(0, b, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
