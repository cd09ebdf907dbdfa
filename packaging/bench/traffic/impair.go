package traffic

import (
	"bytes"
	"math/rand/v2"
	"slices"
)

// capture is what becomes of the segments of one flow between the wire and the
// file, and what of its streams got there.
type capture struct {
	impairment Impairment
	luck       *rand.Rand // apart from the flow's, so that what is sent does not depend on the faults
	spared     bool       // its SYNs: without them nobody could tell it from the flow before
	skip       int        // frames sent before the capture began
	only       int        // the one direction that is captured; -1 for both
	lose       int        // the data segment to lose; -1 for none

	queue  []segment // ready for the file
	held   []held
	faults map[string]int

	first   int64    // time of its first frame in the file
	known   [2]bool  // the stream's start: a SYN or its first byte came before all other data
	started [2]bool  // some data was captured
	seen    [2]spans // of the stream; only the recorded part
}

// held is a segment that waits until some more of its flow have passed.
type held struct {
	segment
	frames int
}

// advance sends segments until one gets into the queue, or none is left.
func (f *flow) advance() bool {
	for len(f.queue) == 0 {
		s, ok := f.next()
		if !ok {
			for _, h := range f.held {
				f.queue = append(f.queue, h.segment)
			}
			f.held = nil
			return len(f.queue) > 0
		}
		f.impair(s)
	}
	return true
}

// impair passes one segment on, with what befalls it.
func (f *flow) impair(s segment) {
	waiting := len(f.held)
	f.fate(s)
	for i := 0; i < waiting; i++ {
		f.held[i].frames--
	}
	f.held = slices.DeleteFunc(f.held, func(h held) bool {
		if h.frames > 0 {
			return false
		}
		h.at = s.at
		f.queue = append(f.queue, h.segment)
		return true
	})
}

func (f *flow) fate(s segment) {
	data := len(s.payload) > 0
	lost := data && f.lose == 0
	if data {
		f.lose--
	}
	switch {
	case f.skip > 0:
		f.skip--
		f.fault("skipped")
		return
	case f.only >= 0 && int(s.dir) != f.only:
		f.fault("other direction")
		return
	case lost:
		f.fault("lost")
		return
	case f.spared && s.flags&syn != 0:
		f.queue = append(f.queue, s)
		return
	case f.chance(f.impairment.Drop):
		f.fault("dropped")
		return
	}
	extra, overlaps := f.overlap(s)
	if overlaps && f.luck.IntN(2) == 0 {
		f.queue = append(f.queue, extra)
		overlaps = false
	}
	if f.chance(f.impairment.Reorder) {
		f.fault("reordered")
		f.held = append(f.held, held{s, 1 + f.luck.IntN(f.impairment.Depth)})
	} else {
		f.queue = append(f.queue, s)
		if data && !f.conv.udp && f.chance(f.impairment.Conflict) {
			f.fault("conflicting")
			s := f.again(s)
			s.conflict, s.payload = true, bytes.Repeat([]byte{'#'}, len(s.payload))
			f.held = append(f.held, held{s, 1 + f.luck.IntN(f.impairment.Depth)})
		}
	}
	if overlaps {
		f.queue = append(f.queue, extra)
	}
	if f.chance(f.impairment.Duplicate) {
		f.fault("duplicated")
		if f.luck.IntN(2) == 0 {
			s = f.again(s)
		}
		f.queue = append(f.queue, s)
	}
}

// again is s in a new packet.
func (f *flow) again(s segment) segment {
	f.id[s.dir]++
	s.id = f.id[s.dir]
	return s
}

// overlap returns, now and then, a segment that begins before s and ends
// inside of it.
func (f *flow) overlap(s segment) (segment, bool) {
	if len(s.payload) < 2 || s.offset == 0 || f.conv.udp || !f.chance(f.impairment.Overlap) {
		return s, false
	}
	f.fault("overlapped")
	extra := f.again(s)
	back := min(s.offset, 1+f.luck.Int64N(int64(f.mss)))
	if recorded := int64(len(f.conv.stream[s.dir])); s.offset >= recorded {
		back = min(back, s.offset-recorded)
	}
	extra.offset -= back
	extra.seq -= uint32(back)
	extra.flags &^= fin
	extra.payload = f.bytes(s.dir, extra.offset, min(f.mss, int(back)+1+f.luck.IntN(len(s.payload)-1)))
	return extra, true
}

func (f *flow) chance(rate float64) bool { return rate > 0 && f.luck.Float64() < rate }

func (f *flow) fault(what string) {
	if f.faults == nil {
		f.faults = make(map[string]int)
	}
	f.faults[what]++
}

// captured notes that s is in the file, with n bytes of its payload.
func (f *flow) captured(s *segment, n int) {
	if f.first == 0 {
		f.first = s.at
	}
	if s.flags&syn != 0 && !f.started[s.dir] {
		f.known[s.dir] = true
	}
	if n == 0 || s.conflict {
		return
	}
	if !f.started[s.dir] && s.offset == 0 {
		f.known[s.dir] = true
	}
	f.started[s.dir] = true
	if recorded := int64(len(f.conv.stream[s.dir])); s.offset < recorded {
		f.seen[s.dir].add(span{s.offset, min(recorded, s.offset+int64(n))})
	}
}

// spans is a set of bytes: ranges in order that do not touch.
type spans []span

func (s *spans) add(x span) {
	kept := (*s)[:0:0]
	if n := len(*s); n > 0 && (*s)[n-1].lo <= x.lo {
		if last := &(*s)[n-1]; x.lo <= last.hi {
			last.hi = max(last.hi, x.hi)
			return
		}
		*s = append(*s, x)
		return
	}
	for _, r := range *s {
		if r.hi < x.lo || x.hi < r.lo {
			kept = append(kept, r)
			continue
		}
		x = span{min(x.lo, r.lo), max(x.hi, r.hi)}
	}
	i, _ := slices.BinarySearchFunc(kept, x, func(r, x span) int { return int(r.lo - x.lo) })
	*s = slices.Insert(kept, i, x)
}

func (s spans) contains(x span) bool {
	return slices.ContainsFunc(s, func(r span) bool { return r.lo <= x.lo && x.hi <= r.hi })
}
