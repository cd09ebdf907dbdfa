// Package sparse holds bytes that come in any order, each at its place: those of a
// stream whose segments overtake one another, and those of a datagram that comes
// in fragments. A bitmap says which bytes have come, so that a byte costs the same
// whatever the order and the size of the pieces, and nothing is ever moved.
package sparse

import (
	"bytes"
	"math/bits"
)

// PageBytes is the length of a page.
const PageBytes = 1024

// PageCost is what a Page takes in memory. It is a size class of the allocator.
const PageCost = 1152

// Bitmap has a bit for each byte of a page.
type Bitmap [PageBytes / 64]uint64

// Page is a part of a stream or datagram. The zero value is empty.
type Page struct {
	data [PageBytes]byte
	have Bitmap // bit i: data[i] has come
}

// Put copies b to the places from at on, all of which must be in the page. Where
// bytes have come before they stay, or with replace are overwritten. It returns
// how many of the bytes had not come before, and whether those that had differ
// from b.
func (p *Page) Put(at int, b []byte, replace bool) (fresh int, conflict bool) {
	if len(b) == 0 {
		return 0, false
	}
	end := at + len(b)
	before := 0 // bytes that have come before
	for w := at / 64; w <= (end-1)/64; w++ {
		before += bits.OnesCount64(p.have[w] & mask(w, at, end))
	}
	fresh = len(b) - before
	switch before {
	case 0:
		copy(p.data[at:], b)
		for w := at / 64; w <= (end-1)/64; w++ {
			p.have[w] |= mask(w, at, end)
		}
		return fresh, false
	case len(b):
		if conflict = !bytes.Equal(p.data[at:end], b); conflict && replace {
			copy(p.data[at:], b)
		}
		return fresh, conflict
	}
	for w := at / 64; at < end; w++ {
		part := b[:min(len(b), 64*(w+1)-at)]
		m := mask(w, at, at+len(part))
		switch have := p.have[w] & m; have {
		case 0:
			copy(p.data[at:], part)
		case m:
			if !bytes.Equal(p.data[at:at+len(part)], part) {
				conflict = true
				if replace {
					copy(p.data[at:], part)
				}
			}
		default:
			for i, c := range part {
				if have>>((at+i)%64)&1 != 0 && p.data[at+i] != c {
					conflict = true
					if !replace {
						continue
					}
				}
				p.data[at+i] = c
			}
		}
		p.have[w] |= m
		at, b = at+len(part), b[len(part):]
	}
	return fresh, conflict
}

// mask returns the bits of word w of a bitmap that are in from..to.
func mask(w, from, to int) uint64 {
	m := ^uint64(0)
	if from > 64*w {
		m <<= from - 64*w
	}
	if over := 64*(w+1) - to; over > 0 {
		m &= ^uint64(0) >> over
	}
	return m
}

// Bytes returns the bytes from..to; lent until they are overwritten.
func (p *Page) Bytes(from, to int) []byte { return p.data[from:to] }

// Len returns how many bytes have come.
func (p *Page) Len() (n int) {
	for _, w := range p.have {
		n += bits.OnesCount64(w)
	}
	return n
}

// Run returns the end of the bytes that have come from a place on, without a hole;
// from itself where there is none.
func (p *Page) Run(from int) int { return p.have.ones(from) }

// First returns the first place from a place on whose byte has come, PageBytes
// where there is none.
func (p *Page) First(from int) int { return p.have.Next(from) }

// End returns the place after the last byte that has come, 0 where none has.
func (p *Page) End() int {
	for w := len(p.have) - 1; w >= 0; w-- {
		if p.have[w] != 0 {
			return 64*w + bits.Len64(p.have[w])
		}
	}
	return 0
}

// Forget forgets the bytes before a place, and returns how many have come.
func (p *Page) Forget(to int) (n int) {
	for w := 0; 64*w < to; w++ {
		gone := p.have[w] & mask(w, 0, to)
		n += bits.OnesCount64(gone)
		p.have[w] &^= gone
	}
	return n
}

// Clear empties the page.
func (p *Page) Clear() { p.have = Bitmap{} }

// Set sets a bit.
func (m *Bitmap) Set(at int) { m[at/64] |= 1 << (at % 64) }

// Next returns the first bit from a place on that is set, PageBytes where there is
// none.
func (m *Bitmap) Next(from int) int {
	for w := from / 64; w < len(m); w++ {
		if v := m[w] & mask(w, from, PageBytes); v != 0 {
			return 64*w + bits.TrailingZeros64(v)
		}
	}
	return PageBytes
}

// Unset clears the bits before a place.
func (m *Bitmap) Unset(to int) {
	for w := 0; 64*w < to; w++ {
		m[w] &^= mask(w, 0, to)
	}
}

// ones returns the first bit from a place on that is not set, PageBytes where
// there is none.
func (m *Bitmap) ones(from int) int {
	for w := from / 64; w < len(m); w++ {
		if v := ^m[w] & mask(w, from, PageBytes); v != 0 {
			return 64*w + bits.TrailingZeros64(v)
		}
	}
	return PageBytes
}
