// Package memory lends the memory of what flows keep, and counts it: buffers for
// unfinished messages, and charges for what lies elsewhere.
package memory

import "math/bits"

// Pool lends buffers in powers of two from 512 bytes, and takes them back. What it
// keeps to use again is bounded here; what it lends is up to the caller, who asks
// for [Pool.Held]. The zero value is ready. It is not safe for concurrent use.
type Pool struct {
	free    [classes][][]byte
	lent    int // bytes
	spare   int // bytes in free
	charged int // over all accounts
}

const (
	smallestBits = 9 // 512 bytes
	classes      = longestBits - smallestBits + 1
)

// Lent is how many bytes of buffers are lent.
func (p *Pool) Lent() int { return p.lent }

// Held is how many bytes are lent, and charged to accounts.
func (p *Pool) Held() int { return p.lent + p.charged }

// sizeClass is the class of the smallest buffer of at least n bytes.
func sizeClass(n int) int { return max(bits.Len(uint(n-1))-smallestBits, 0) }

// Append appends b to buf, which is nil or comes from here. It is false, and
// buf is as it was, when the buffer would be longer than any.
func (p *Pool) Append(buf, b []byte) ([]byte, bool) {
	n := len(buf) + len(b)
	if n <= cap(buf) {
		return append(buf, b...), true
	}
	k := sizeClass(n)
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
	p.Put(buf)
	return grown, true
}

// Put takes buf back, which must not be used any more; nil is fine.
func (p *Pool) Put(buf []byte) {
	size := cap(buf)
	if size == 0 {
		return
	}
	p.lent -= size
	if p.spare+size > maxSpare {
		return
	}
	p.spare += size
	k := sizeClass(size)
	p.free[k] = append(p.free[k], buf[:0])
}

// Account is what one flow keeps besides buffers, in bytes.
type Account struct {
	pool    *Pool
	charged int
}

// NewAccount returns an empty account, whose charges the pool counts.
func (p *Pool) NewAccount() Account { return Account{pool: p} }

// Charge notes that n bytes more are kept.
func (a *Account) Charge(n int) {
	a.charged += n
	a.pool.charged += n
}

// Discharge notes that all that was charged is given up.
func (a *Account) Discharge() { a.Charge(-a.charged) }
