package capture

import (
	"math"
	"math/bits"
)

// ngClock turns an interface's timestamps to nanoseconds since the epoch.
type ngClock struct {
	factor     uint64 // nanoseconds a unit, for timestamps up to limit
	limit      uint64
	offset     int64 // nanoseconds
	resolution uint8 // if_tsresol: the unit is 10^-resolution s, or 2^-n s if the top bit is set
}

// newNgClock makes the clock of an interface with the options if_tsresol and
// if_tsoffset, the latter in seconds.
func newNgClock(resolution uint8, offset int64) ngClock {
	c := ngClock{resolution: resolution}
	if hi, lo := bits.Mul64(magnitude(offset), 1e9); hi != 0 || lo > math.MaxInt64 {
		c.offset = math.MaxInt64
	} else {
		c.offset = int64(lo)
	}
	if offset < 0 {
		c.offset = -c.offset
	}
	const half = 1 << 62 // two of them add up without overflow
	if resolution <= 9 && magnitude(c.offset) < half {
		c.factor = pow10(9 - resolution)
		c.limit = half / c.factor
	}
	return c
}

// time is the time of timestamp t; one that no int64 holds becomes the nearest
// that does.
func (c *ngClock) time(t uint64) int64 {
	if t <= c.limit {
		return int64(t*c.factor) + c.offset
	}
	var hi, lo uint64
	switch n := c.resolution & 0x7f; {
	case c.resolution >= 0x80:
		hi, lo = bits.Mul64(t, 1e9)
		if n >= 64 {
			hi, lo, n = 0, hi, n-64
		}
		hi, lo = hi>>n, lo>>n|hi<<(64-n)
	case n <= 9:
		hi, lo = bits.Mul64(t, pow10(9-n))
	case n-9 < 20:
		lo = t / pow10(n-9)
	}
	if hi != 0 || lo > math.MaxInt64 {
		lo = math.MaxInt64
	}
	ns := int64(lo)
	if c.offset > 0 && ns > math.MaxInt64-c.offset {
		return math.MaxInt64
	}
	return ns + c.offset
}

// pow10 is 10^n, n at most 19.
func pow10(n uint8) uint64 {
	r := uint64(1)
	for ; n > 0; n-- {
		r *= 10
	}
	return r
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}
