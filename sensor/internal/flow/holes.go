package flow

import "github.com/oddcert/oddcert/parsers"

// waiting returns the reassembly and the stream of a hole; nil when the hole is
// filled or the flow is over.
func (t *Tracker) waiting(h hole) (*reassembly, *stream) {
	e := t.table.at(h.slot)
	if e.serial != h.serial || e.reassembly == 0 {
		return nil, nil
	}
	r := t.reassemblies[e.reassembly]
	s := &r.streams[h.d]
	if s.held.empty() {
		s.waits = false
		return nil, nil
	}
	return r, s
}

// expireHoles gives up the holes that no retransmission has filled in time. Where
// the other side has acknowledged the bytes, that time is short: the capture lacks
// them, and nobody sends them again.
func (t *Tracker) expireHoles(now int64) {
	t.holes = t.expire(t.holes, now-timeoutHole, func(s *stream) bool {
		first, _ := s.held.after(s.next)
		return s.ackedUpTo(first)
	})
	t.patient = t.expire(t.patient, now-timeoutRetransmission, nil)
}

// expire gives up the holes that are older than before, except those for which
// soon returns false: they go to the patient ones.
func (t *Tracker) expire(holes []hole, before int64, soon func(*stream) bool) []hole {
	n := 0
	for ; n < len(holes); n++ {
		h := holes[n]
		r, s := t.waiting(h)
		if r == nil {
			continue
		}
		if s.hole > before {
			break
		}
		if soon != nil && !soon(s) {
			t.patient = append(t.patient, h)
			continue
		}
		t.giveUp(h, r)
	}
	return append(holes[:0], holes[n:]...)
}

// giveUp gives up the first hole of a stream, and queues the next.
func (t *Tracker) giveUp(h hole, r *reassembly) {
	t.each(r, func(r *reassembly) parsers.Status { return t.skip(r, h.d, r.streams[h.d].last) })
	if s := &r.streams[h.d]; r.done {
		r.after = limitAfter
		t.conclude(r)
	} else if s.waits = !s.held.empty(); s.waits {
		t.holes = append(t.holes, h)
	}
}

// evictHole gives up the hole that has waited longest, so that what is held stays
// within its limit; false when there is no hole.
func (t *Tracker) evictHole() bool {
	for _, q := range [...]*[]hole{&t.patient, &t.holes} {
		for len(*q) > 0 {
			h := (*q)[0]
			*q = (*q)[1:]
			if r, _ := t.waiting(h); r != nil {
				t.stats.HeldLimit++
				t.giveUp(h, r)
				return true
			}
		}
	}
	return false
}
