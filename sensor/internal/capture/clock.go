package capture

import (
	"math"
	"time"
)

const (
	// clockTolerance is how far the time of a packet may lie from that of those
	// before it to be believed at once: more than the queues of a card and the
	// interfaces of a capture put packets out of order, and less than any
	// time-out of a flow that is not decided.
	clockTolerance = int64(2 * time.Second)

	// clockProof is how many packets in a row must agree on another time before
	// it is believed.
	clockProof = 64

	// clockSilence is the longest time ahead that counts as silence. A clock that
	// goes further ahead, or back by more than the tolerance, has jumped.
	clockSilence = int64(20 * time.Hour)
)

// Clock makes flow time, in which time-outs are measured, from the times of packets,
// which may have any value. Flow time never goes back, and no jump of a clock moves it
// by more than some seconds.
//
// A packet whose time is near that of those before it moves flow time on. For any other
// flow time stands still, until so many packets in a row agree that theirs is the time
// now. It then goes on from where it was: nothing shows whether a clock was put ahead
// or nothing happened for long, and a time-out that comes late does no harm. The zero
// value is ready.
type Clock struct {
	begun   int64 // flow time at the first packet
	now     int64
	sources []clockSource
	jumps   uint64
}

// clockSource is the clock of one interface.
type clockSource struct {
	latest int64 // the highest time that was believed
	offset int64 // of flow time from its times
	proven int   // packets that agreed with latest, up to clockProof

	other  int64 // the time of the last packet, when that was not believed
	others int   // how many in a row agreed on it
	passed int64 // how much time they say has passed since the first of them, in steps of at most the tolerance
}

// See takes the time of the next packet of an interface, which is a small
// number, and returns the flow time. jumped says that the clock jumped to that
// time from that of the interface's packet before.
func (c *Clock) See(iface int, t int64) (now int64, jumped bool) {
	if iface >= len(c.sources) {
		c.join(iface, t)
	}
	s := &c.sources[iface]
	d := t - s.latest
	if d < -clockTolerance || d > clockTolerance {
		// An interface that was silent agrees with the others.
		if e := t + s.offset - c.now; e < -clockTolerance || e > clockTolerance {
			return c.doubt(s, t)
		}
	}
	if s.others > 0 {
		jumped = c.jump(s.other, t)
		s.others, s.passed = 0, 0
	}
	s.proven = min(s.proven+1, clockProof)
	if d > 0 {
		s.latest = t
		c.now = max(c.now, t+s.offset)
	}
	return c.now, jumped
}

// next is See for a time that just goes on, as most do. For any other it returns
// 0, which flow time never is, and changes nothing.
func (c *Clock) next(iface int, t int64) (now int64) {
	if iface >= len(c.sources) {
		return 0
	}
	s := &c.sources[iface]
	if uint64(t-s.latest) > uint64(clockTolerance) || s.proven < clockProof || s.others > 0 {
		return 0
	}
	s.latest = t
	c.now = max(c.now, t+s.offset)
	return c.now
}

// join begins the clocks of interfaces up to iface.
func (c *Clock) join(iface int, t int64) {
	if len(c.sources) == 0 {
		// Far from where sums of times overflow.
		c.now = min(max(t, clockSilence), 1<<62)
		c.begun = c.now
		c.sources = append(c.sources, clockSource{latest: t, offset: c.now - t})
	}
	for offset := c.sources[0].offset; iface >= len(c.sources); {
		c.sources = append(c.sources, clockSource{latest: c.now - offset, offset: offset})
	}
}

// doubt takes a time that is far from those before.
func (c *Clock) doubt(s *clockSource, t int64) (now int64, jumped bool) {
	last := s.latest
	if s.others > 0 {
		last = s.other
	}
	if s.proven > 0 {
		jumped = c.jump(last, t)
	}
	switch {
	case s.others == 0:
	case backwards(last, t) || forwards(last, t):
		s.others, s.passed = 0, 0
	case t > last:
		s.passed += min(t-last, clockTolerance)
	}
	s.others++
	s.other = t
	if s.others > s.proven || s.others >= clockProof {
		if s.proven > 0 && t > s.latest {
			c.now += clockTolerance
		}
		c.now += s.passed
		*s = clockSource{latest: t, offset: c.now - t, proven: s.others}
	}
	return c.now, jumped
}

// jump counts the step from the time of one packet to that of the next if it is a
// jump of the clock, and reports whether it is.
func (c *Clock) jump(from, to int64) bool {
	if !backwards(from, to) && !forwards(from, to) {
		return false
	}
	c.jumps++
	return true
}

// The differences of times of any sign fit into an uint64.
func backwards(from, to int64) bool {
	return to < from && uint64(from)-uint64(to) > uint64(clockTolerance)
}
func forwards(from, to int64) bool {
	return to > from && uint64(to)-uint64(from) > uint64(clockSilence)
}

// following returns the earliest and the latest time of the first packet of what may
// go on from the packets so far.
func (c *Clock) following() (from, to int64) {
	if len(c.sources) == 0 {
		return math.MaxInt64, math.MinInt64
	}
	s := &c.sources[0]
	from, to = c.now-s.offset, c.now-s.offset
	if s.others > 0 {
		from, to = min(from, s.other), max(to, s.other)
	}
	return max(from, math.MinInt64+int64(rotationBack)) - int64(rotationBack), min(to, math.MaxInt64-int64(rotationGap)) + int64(rotationGap)
}

// goesOn reports whether a packet of time t may be the first of the next file of a
// rotated capture: it comes after no long silence, and after all packets so far,
// except for what is out of order at the end. Where no time passes at all, as in
// captures made by hand, nothing goes on.
func (c *Clock) goesOn(t int64) bool {
	if len(c.sources) == 0 {
		return false
	}
	s := &c.sources[0]
	if c.now == c.begun && t == s.latest {
		return false
	}
	back := min(int64(rotationBack), (c.now-c.begun)/2)
	follows := func(last int64) bool {
		return t >= last && uint64(t)-uint64(last) <= uint64(rotationGap) || t < last && uint64(last)-uint64(t) <= uint64(back)
	}
	return follows(c.now-s.offset) || s.others > 0 && follows(s.other)
}

// Pass moves the clock on by d nanoseconds in which no packet came, and returns the
// flow time, which is 0 before the first packet.
func (c *Clock) Pass(d int64) (now int64) {
	if len(c.sources) == 0 {
		return 0
	}
	c.now += d
	for i := range c.sources {
		c.sources[i].latest += d
	}
	return c.now
}

// Jumps is how often the clock has jumped.
func (c *Clock) Jumps() uint64 { return c.jumps }
