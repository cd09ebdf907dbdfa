// Package reassembly puts bytes in order that come in fragments which say where
// they belong: the handshake messages of DTLS (RFC 6347, section 4.2.3) and the
// CRYPTO data of QUIC (RFC 9000, section 7.5). Fragments may come in any number
// and order, twice, and overlap. What that costs is in proportion to their
// bytes, in time as in memory, whatever their order.
package reassembly

import (
	"math/bits"
	"unsafe"
)

const (
	pageBits = 9
	pageSize = 1 << pageBits
	word     = 64

	// maxSpare is how many pages that are free a pool keeps to use again.
	maxSpare = 4096
)

// page is a run of bytes, of which some are there.
type page struct {
	have [pageSize / word]uint64 // bit i%64 of have[i/64]: byte i is there
	data [pageSize]byte
}

// Pool lends the memory of buffers. It is not safe for concurrent use.
type Pool struct {
	held int
	free []*page
}

// Held is how many bytes the buffers take together. To bound it is up to the
// caller.
func (p *Pool) Held() int { return p.held }

// page lends an empty page.
func (p *Pool) page() *page {
	p.held += int(unsafe.Sizeof(page{}))
	if n := len(p.free); n > 0 {
		g := p.free[n-1]
		p.free = p.free[:n-1]
		return g
	}
	return new(page)
}

func (p *Pool) put(g *page) {
	p.held -= int(unsafe.Sizeof(page{}))
	if len(p.free) < maxSpare {
		g.have = [pageSize / word]uint64{}
		p.free = append(p.free, g)
	}
}

// Buffer is a run of bytes that is put together. The zero value is empty, and
// begins at offset 0. All calls must be with the same pool.
type Buffer struct {
	floor uint64  // offset of the first byte that is of interest
	ready uint64  // offset of the first byte from there that is missing
	pages []*page // from the one with the floor on; nil where there is nothing
}

// Floor is the offset of the first byte that was not discarded.
func (b *Buffer) Floor() uint64 { return b.floor }

// Ready is the offset of the first byte that is missing: all from the floor up
// to it are there.
func (b *Buffer) Ready() uint64 { return b.ready }

// Empty reports whether the buffer takes no memory.
func (b *Buffer) Empty() bool { return b.pages == nil }

// origin is the offset of the first byte of the first page.
func (b *Buffer) origin() uint64 { return b.floor &^ (pageSize - 1) }

// Add adds data, which is copied, at offset. Of bytes that are there already,
// the first copy stays; those before the floor are passed over. What lies between
// the floor and the end of data costs some memory too, 1/64 of it: how far that
// may be is up to the caller.
func (b *Buffer) Add(p *Pool, offset uint64, data []byte) {
	if offset < b.floor {
		skip := min(b.floor-offset, uint64(len(data)))
		offset, data = offset+skip, data[skip:]
	}
	for len(data) > 0 {
		at := offset - b.origin()
		n := min(pageSize-int(at%pageSize), len(data))
		b.page(p, int(at>>pageBits)).add(int(at%pageSize), data[:n])
		offset, data = offset+uint64(n), data[n:]
	}
	b.ready = b.scan(b.ready, ^uint64(0))
}

// page is the i-th page.
func (b *Buffer) page(p *Pool, i int) *page {
	if i >= len(b.pages) {
		b.table(p, append(b.pages, make([]*page, i+1-len(b.pages))...))
	}
	if b.pages[i] == nil {
		b.pages[i] = p.page()
	}
	return b.pages[i]
}

// add copies what is new in data to the page.
func (g *page) add(at int, data []byte) {
	for len(data) > 0 {
		w, bit := at/word, at%word
		n := min(word-bit, len(data))
		mask := ^uint64(0) >> (word - n) << bit
		switch missing := mask &^ g.have[w]; missing {
		case 0:
		case mask:
			copy(g.data[at:], data[:n])
		default:
			for m := missing; m != 0; m &= m - 1 {
				i := bits.TrailingZeros64(m)
				g.data[w*word+i] = data[i-bit]
			}
		}
		g.have[w] |= mask
		at, data = at+n, data[n:]
	}
}

// Run is the first run of bytes that are there from offset from on, which is not
// before the floor. Start and end are from when nothing is.
func (b *Buffer) Run(from uint64) (start, end uint64) {
	start = b.scan(from, 0)
	limit := b.origin() + uint64(len(b.pages))<<pageBits
	if start >= limit {
		return from, from
	}
	return start, b.scan(start, ^uint64(0))
}

// scan is the offset of the first byte from from on that is there, or where flip
// has all bits set is not, or the end of the pages.
func (b *Buffer) scan(from uint64, flip uint64) uint64 {
	at := from - b.origin()
	for ; at>>pageBits < uint64(len(b.pages)); at = (at | (pageSize - 1)) + 1 {
		g := b.pages[at>>pageBits]
		if g == nil {
			if flip == 0 {
				continue
			}
			return b.origin() + at
		}
		for i := at % pageSize; i < pageSize; i = (i | (word - 1)) + 1 {
			if m := (g.have[i/word] ^ flip) >> (i % word); m != 0 {
				return b.origin() + at&^(pageSize-1) + i + uint64(bits.TrailingZeros64(m))
			}
		}
	}
	return b.origin() + at
}

// Append appends the bytes from offset from to offset to, which are there, to dst.
func (b *Buffer) Append(dst []byte, from, to uint64) []byte {
	for from < to {
		at := from - b.origin()
		i := at % pageSize
		n := min(pageSize-i, to-from)
		dst = append(dst, b.pages[at>>pageBits].data[i:i+n]...)
		from += n
	}
	return dst
}

// Discard gives up what is before offset to, which is not after what is ready.
// When nothing is left, no memory is taken.
func (b *Buffer) Discard(p *Pool, to uint64) {
	n := min(int((to-b.origin())>>pageBits), len(b.pages))
	if start, end := b.Run(to); start == end {
		n = len(b.pages)
	}
	for _, g := range b.pages[:n] {
		if g != nil {
			p.put(g)
		}
	}
	b.floor, b.ready = to, max(to, b.ready)
	kept := copy(b.pages, b.pages[n:])
	clear(b.pages[kept:])
	if b.pages = b.pages[:kept]; kept == 0 {
		b.table(p, nil)
	}
}

// Release gives up all that is there, and begins again at offset 0.
func (b *Buffer) Release(p *Pool) {
	for _, g := range b.pages {
		if g != nil {
			p.put(g)
		}
	}
	b.table(p, nil)
	b.floor, b.ready = 0, 0
}

// table sets the list of pages.
func (b *Buffer) table(p *Pool, pages []*page) {
	p.held += (cap(pages) - cap(b.pages)) * int(unsafe.Sizeof((*page)(nil)))
	b.pages = pages
}
