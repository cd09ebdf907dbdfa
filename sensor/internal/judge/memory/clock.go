package memory

// clock numbers the days of a capture. The number never goes back, and is the same
// for the same handshakes in the same order. Of a jump of the capture's clock it
// cannot know whether there was nothing to see for days; it takes it for that.
type clock struct {
	started bool
	day     int64  // since the Unix epoch, the latest so far
	number  uint32 // of the day

	// How many handshakes in a row were more than a day ahead of day, and how many
	// behind it; and the one of these days that is nearest to day.
	ahead, behind int
	nearest       int64
}

// see takes the time of a handshake in nanoseconds since the Unix epoch, and returns
// the number of its day.
func (c *clock) see(t int64) uint32 {
	d := dayOf(t)
	switch off := d - c.day; {
	case !c.started:
		c.started, c.day = true, d
	case off == 0 || off == -1: // frames come a little out of order
		c.ahead, c.behind = 0, 0
	case off == 1:
		c.day, c.number = d, c.number+1
		c.ahead, c.behind = 0, 0
	case off > 1:
		if c.ahead == 0 || d < c.nearest {
			c.nearest = d
		}
		c.behind = 0
		if c.ahead++; c.ahead == believed {
			c.number += uint32(min(c.nearest-c.day, window))
			c.day, c.ahead = c.nearest, 0
		}
	default:
		if c.behind == 0 || d > c.nearest {
			c.nearest = d
		}
		c.ahead = 0
		if c.behind++; c.behind == believed {
			c.day, c.behind = c.nearest, 0
		}
	}
	return c.number
}

// dayOf returns the day of a time in nanoseconds since the Unix epoch, which may be
// negative.
func dayOf(t int64) int64 {
	d := t / day
	if t%day < 0 {
		d--
	}
	return d
}

// within reports whether two times are at most some nanoseconds apart. A clock that
// jumps can make either the later one.
func within(a, b, limit int64) bool {
	if a > b {
		a, b = b, a
	}
	return uint64(b)-uint64(a) <= uint64(limit)
}
