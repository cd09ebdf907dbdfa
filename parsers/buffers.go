package parsers

import "math/bits"

// buffers lends memory for unfinished messages, in powers of two from
// smallestBuffer, and takes it back. What is kept is bounded here, and what is
// lent by the books of the shards.
type buffers struct {
	free  [classes][][]byte
	lent  int // bytes
	spare int // bytes in free
}

const (
	smallestBits = 9 // 512 bytes
	classes      = 21 - smallestBits + 1
)

// class is the class of the smallest buffer of at least n bytes.
func class(n int) int { return max(bits.Len(uint(n-1))-smallestBits, 0) }

// append appends b to buf, which is nil or comes from here. It is false, and
// buf is as it was, when the buffer would be longer than any.
func (p *buffers) append(buf, b []byte) ([]byte, bool) {
	n := len(buf) + len(b)
	if n <= cap(buf) {
		return append(buf, b...), true
	}
	k := class(n)
	size := 1 << (k + smallestBits)
	if k >= classes {
		return buf, false
	}
	var grown []byte
	if f := p.free[k]; len(f) > 0 {
		grown = f[len(f)-1]
		p.free[k] = f[:len(f)-1]
		p.spare -= size
	} else {
		grown = make([]byte, 0, size)
	}
	p.lent += size
	grown = append(append(grown, buf...), b...)
	p.put(buf)
	return grown, true
}

// put takes buf back; nil is fine.
func (p *buffers) put(buf []byte) {
	size := cap(buf)
	if size == 0 {
		return
	}
	p.lent -= size
	if p.spare+size > maxSpare {
		return
	}
	p.spare += size
	k := class(size)
	p.free[k] = append(p.free[k], buf[:0])
}
