package flow

import "math/bits"

// window holds the bytes of one direction of a stream that came before those in
// front of them. They lie at their place, in pages that are allocated when the
// first byte of one comes, so that a byte costs the same whatever the order and
// the size of the segments. Which bytes are there, and where segments began, is
// kept in bitmaps. The zero value is empty.
type window struct {
	first uint32      // sequence number of the first byte of pages[0]; a multiple of heldPageBytes
	pages []*heldPage // nil where no byte has come
	cuts  []span32
	bytes int
}

// span32 is a range of sequence numbers.
type span32 struct {
	seq uint32
	n   uint32
}

const (
	heldPageBytes = 2048
	// heldPageCost is what a page takes: the size class of the allocator.
	heldPageCost = 2688
)

type heldPage struct {
	data   [heldPageBytes]byte
	have   [heldPageBytes / 64]uint64 // bit i of the bitmap: data[i] has come
	begins [heldPageBytes / 64]uint64 // a segment began at data[i]
}

// pages is a free list of pages, and the account of those that are used.
type pages struct {
	free []*heldPage
	used int // bytes taken by pages that are not free
}

// limitFreePages bounds what stays allocated after a burst.
const limitFreePages = 256

func (p *pages) get() *heldPage {
	p.used += heldPageCost
	if n := len(p.free); n > 0 {
		g := p.free[n-1]
		p.free = p.free[:n-1]
		return g
	}
	return new(heldPage)
}

func (p *pages) put(g *heldPage) {
	p.used -= heldPageCost
	if len(p.free) < limitFreePages {
		g.have, g.begins = [heldPageBytes / 64]uint64{}, [heldPageBytes / 64]uint64{}
		p.free = append(p.free, g)
	}
}

// empty reports whether nothing is held.
func (w *window) empty() bool { return w.bytes == 0 && len(w.cuts) == 0 }

// high returns the end of the farthest byte that is held. It must not be empty.
func (w *window) high() uint32 {
	high, any := uint32(0), false
	for i := len(w.pages) - 1; i >= 0 && !any; i-- {
		if g := w.pages[i]; g != nil {
			for j := len(g.have) - 1; j >= 0; j-- {
				if g.have[j] != 0 {
					high, any = w.first+uint32(i*heldPageBytes+j*64+bits.Len64(g.have[j])), true
					break
				}
			}
		}
	}
	for _, c := range w.cuts {
		if !any || distance(high, c.seq+c.n) > 0 {
			high, any = c.seq+c.n, true
		}
	}
	return high
}

// put copies data to its place from seq on. Where bytes are there already they
// stay, or with replace give way; overlap says that there were some, and
// conflict that they had other content. next is where the stream is, which is
// before seq; the caller bounds how far.
func (w *window) put(p *pages, next, seq uint32, data []byte, replace bool) (overlap, conflict bool) {
	if len(w.pages) == 0 {
		w.first = next &^ (heldPageBytes - 1)
	}
	if early := distance(seq, w.first); early > 0 { // where the stream begins was a guess, and too late
		n := (early + heldPageBytes - 1) / heldPageBytes
		w.pages = append(make([]*heldPage, n), w.pages...)
		w.first -= uint32(n * heldPageBytes)
	}
	begin := true
	for len(data) > 0 {
		at := int(seq - w.first)
		i, from := at/heldPageBytes, at%heldPageBytes
		for len(w.pages) <= i {
			w.pages = append(w.pages, nil)
		}
		g := w.pages[i]
		if g == nil {
			g = p.get()
			w.pages[i] = g
		}
		n := min(len(data), heldPageBytes-from)
		if begin {
			g.begins[from/64] |= 1 << (from % 64)
			begin = false
		}
		fresh, differs := g.put(from, data[:n], replace)
		w.bytes += fresh
		overlap, conflict = overlap || fresh < n, conflict || differs
		seq += uint32(n)
		data = data[n:]
	}
	return overlap, conflict
}

// put copies b to data[from:], and returns how many of its bytes were not there.
func (g *heldPage) put(from int, b []byte, replace bool) (fresh int, conflict bool) {
	for len(b) > 0 {
		word, low := from/64, from%64
		n := min(len(b), 64-low)
		mask := ^uint64(0) >> (64 - n) << low
		old := g.have[word] & mask
		fresh += n - bits.OnesCount64(old)
		if old == 0 {
			copy(g.data[from:], b[:n])
		} else {
			for i, c := range b[:n] {
				switch {
				case old>>(low+i)&1 == 0:
					g.data[from+i] = c
				case g.data[from+i] != c:
					conflict = true
					if replace {
						g.data[from+i] = c
					}
				}
			}
		}
		g.have[word] |= mask
		from += n
		b = b[n:]
	}
	return fresh, conflict
}

// run returns the bytes that are held from next on, as far as they are of one
// segment and one page; nil when there are none. They are lent until the next
// call of a method of w.
func (w *window) run(next uint32) []byte {
	at := distance(w.first, next)
	if at < 0 || at/heldPageBytes >= len(w.pages) || w.pages[at/heldPageBytes] == nil {
		return nil
	}
	g, from := w.pages[at/heldPageBytes], at%heldPageBytes
	end := from
	for end < heldPageBytes {
		word, low := end/64, end%64
		ones := min(bits.TrailingZeros64(^(g.have[word] >> low)), 64-low)
		if ones == 0 {
			break
		}
		begins := g.begins[word] >> low
		if end == from {
			begins &^= 1
		}
		if b := bits.TrailingZeros64(begins); b < ones {
			end += b
			break
		}
		end += ones
		if low+ones < 64 {
			break
		}
	}
	if end == from {
		return nil
	}
	return g.data[from:end]
}

// cut returns how many bytes from next on were cut off by the snaplen; 0 when
// none were.
func (w *window) cut(next uint32) uint32 {
	for _, c := range w.cuts {
		if off := distance(c.seq, next); off >= 0 && off < int(c.n) {
			return c.n - uint32(off)
		}
	}
	return 0
}

// after returns the first sequence number from next on at which something is
// held; false when nothing is.
func (w *window) after(next uint32) (seq uint32, ok bool) {
	at := max(distance(w.first, next), 0)
	for i := at / heldPageBytes; i < len(w.pages) && !ok; i++ {
		g := w.pages[i]
		if g == nil {
			continue
		}
		from := max(at-i*heldPageBytes, 0)
		for word := from / 64; word < len(g.have); word++ {
			have := g.have[word]
			if word == from/64 {
				have &= ^uint64(0) << (from % 64)
			}
			if have != 0 {
				seq, ok = w.first+uint32(i*heldPageBytes+word*64+bits.TrailingZeros64(have)), true
				break
			}
		}
	}
	for _, c := range w.cuts {
		if distance(next, c.seq) >= 0 && (!ok || distance(c.seq, seq) > 0) {
			seq, ok = c.seq, true
		}
	}
	return seq, ok
}

// advance forgets what lies before next.
func (w *window) advance(p *pages, next uint32) {
	at := distance(w.first, next)
	n := 0
	for ; n < len(w.pages) && (n+1)*heldPageBytes <= at; n++ {
		if g := w.pages[n]; g != nil {
			for _, have := range g.have {
				w.bytes -= bits.OnesCount64(have)
			}
			p.put(g)
		}
	}
	if n > 0 {
		rest := copy(w.pages, w.pages[n:])
		clear(w.pages[rest:])
		w.pages = w.pages[:rest]
		w.first += uint32(n * heldPageBytes)
	}
	if at -= n * heldPageBytes; at > 0 && len(w.pages) > 0 && w.pages[0] != nil {
		g := w.pages[0]
		for word := 0; word <= (at-1)/64; word++ {
			gone := g.have[word]
			if keep := at - word*64; keep < 64 {
				gone &= 1<<keep - 1
			}
			w.bytes -= bits.OnesCount64(gone)
			g.have[word] &^= gone
			g.begins[word] &^= gone
		}
	}
	k := 0
	for _, c := range w.cuts {
		if distance(next, c.seq+c.n) > 0 {
			w.cuts[k] = c
			k++
		}
	}
	w.cuts = w.cuts[:k]
	if w.empty() {
		w.reset(p)
	}
}

// reset forgets everything.
func (w *window) reset(p *pages) {
	for _, g := range w.pages {
		if g != nil {
			p.put(g)
		}
	}
	clear(w.pages)
	*w = window{pages: w.pages[:0], cuts: w.cuts[:0]}
}

// copyOf makes w a copy of o.
func (w *window) copyOf(p *pages, o *window) {
	w.reset(p)
	w.first, w.bytes = o.first, o.bytes
	w.cuts = append(w.cuts, o.cuts...)
	for _, g := range o.pages {
		var c *heldPage
		if g != nil {
			c = p.get()
			*c = *g
		}
		w.pages = append(w.pages, c)
	}
}
