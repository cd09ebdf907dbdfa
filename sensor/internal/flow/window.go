package flow

import (
	"unsafe"

	"github.com/oddcert/oddcert/sensor/internal/sparse"
)

// window holds the bytes of one direction of a stream that came before those in
// front of them. They lie at their places in pages, which are allocated when the
// first byte of one comes. The zero value is empty.
type window struct {
	first uint32      // sequence number of the first byte of pages[0]; a multiple of sparse.PageBytes
	pages []*heldPage // nil where no byte has come
	cuts  []span      // what the snaplen cut off
	bytes int         // how many have come
	lists int         // bytes that pages and cuts take, as far as they are accounted for
}

// span is a range of sequence numbers.
type span struct{ seq, n uint32 }

// heldPage is a part of a window.
type heldPage struct {
	sparse.Page
	begins sparse.Bitmap // bit i: a segment began with byte i
}

// heldPageCost is what a heldPage takes: a size class of the allocator.
const heldPageCost = 1280

// limitKept is how long the lists of an empty window may be that are kept to be
// used again.
const limitKept = 16

// pages is a free list of pages, and the account of all that windows take.
type pages struct {
	free []*heldPage
	used int // bytes taken by windows
}

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
		g.Clear()
		g.begins = sparse.Bitmap{}
		p.free = append(p.free, g)
	}
}

// empty reports whether nothing is held.
func (w *window) empty() bool { return w.bytes == 0 && len(w.cuts) == 0 }

// high returns the end of the farthest byte that is held. The window must not be
// empty.
func (w *window) high() uint32 {
	high, any := uint32(0), false
	for i := len(w.pages) - 1; i >= 0 && !any; i-- {
		if g := w.pages[i]; g != nil {
			end := g.End()
			high, any = w.first+uint32(i*sparse.PageBytes+end), end > 0
		}
	}
	for _, c := range w.cuts {
		if !any || distance(high, c.seq+c.n) > 0 {
			high, any = c.seq+c.n, true
		}
	}
	return high
}

// put copies data to its place from seq on. Where bytes have come before they
// stay, or with replace are overwritten; overlap reports that there were some,
// and conflict that they had other content. next is where the stream is, which is
// before seq; the caller bounds how far.
func (w *window) put(p *pages, next, seq uint32, data []byte, replace bool) (overlap, conflict bool) {
	if len(w.pages) == 0 {
		w.first = next &^ (sparse.PageBytes - 1)
	}
	if early := distance(seq, w.first); early > 0 { // where the stream begins was a guess, and too late
		n := (early + sparse.PageBytes - 1) / sparse.PageBytes
		w.pages = append(make([]*heldPage, n), w.pages...)
		w.first -= uint32(n * sparse.PageBytes)
	}
	begin := true
	for len(data) > 0 {
		at := int(seq - w.first)
		i, from := at/sparse.PageBytes, at%sparse.PageBytes
		for len(w.pages) <= i {
			w.pages = append(w.pages, nil)
		}
		g := w.pages[i]
		if g == nil {
			g = p.get()
			w.pages[i] = g
		}
		n := min(len(data), sparse.PageBytes-from)
		if begin {
			g.begins.Set(from)
			begin = false
		}
		fresh, differs := g.Put(from, data[:n], replace)
		w.bytes += fresh
		overlap, conflict = overlap || fresh < n, conflict || differs
		seq += uint32(n)
		data = data[n:]
	}
	w.account(p)
	return overlap, conflict
}

// putCut notes that n bytes from seq on were cut off, unless there are too many
// such pieces.
func (w *window) putCut(p *pages, seq, n uint32) {
	if len(w.cuts) < limitCuts {
		w.cuts = append(w.cuts, span{seq, n})
		w.account(p)
	}
}

// account brings the account up to what the lists of the window take. One byte far
// ahead makes a long list of pages that are not there.
func (w *window) account(p *pages) {
	takes := int(unsafe.Sizeof((*heldPage)(nil)))*cap(w.pages) + int(unsafe.Sizeof(span{}))*cap(w.cuts)
	p.used += takes - w.lists
	w.lists = takes
}

// run returns the bytes that are held from next on, as far as they are of one
// segment and one page; nil when there are none. They are lent until the next
// call of a method of w.
func (w *window) run(next uint32) []byte {
	at := distance(w.first, next)
	if at < 0 || at/sparse.PageBytes >= len(w.pages) || w.pages[at/sparse.PageBytes] == nil {
		return nil
	}
	g, from := w.pages[at/sparse.PageBytes], at%sparse.PageBytes
	end := g.Run(from)
	if end == from {
		return nil
	}
	return g.Bytes(from, min(end, g.begins.Next(from+1)))
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
	for i := at / sparse.PageBytes; i < len(w.pages) && !ok; i++ {
		g := w.pages[i]
		if g == nil {
			continue
		}
		if first := g.First(max(at-i*sparse.PageBytes, 0)); first < sparse.PageBytes {
			seq, ok = w.first+uint32(i*sparse.PageBytes+first), true
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
	for ; n < len(w.pages) && (n+1)*sparse.PageBytes <= at; n++ {
		if g := w.pages[n]; g != nil {
			w.bytes -= g.Len()
			p.put(g)
		}
	}
	if n > 0 {
		rest := copy(w.pages, w.pages[n:])
		clear(w.pages[rest:])
		w.pages = w.pages[:rest]
		w.first += uint32(n * sparse.PageBytes)
	}
	if at -= n * sparse.PageBytes; at > 0 && len(w.pages) > 0 && w.pages[0] != nil {
		w.bytes -= w.pages[0].Forget(at)
		w.pages[0].begins.Unset(at)
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
	p.used -= w.lists
	kept := window{pages: w.pages[:0], cuts: w.cuts[:0]}
	if cap(kept.pages) > limitKept {
		kept.pages = nil
	}
	if cap(kept.cuts) > limitKept {
		kept.cuts = nil
	}
	*w = kept
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
	w.account(p)
}
