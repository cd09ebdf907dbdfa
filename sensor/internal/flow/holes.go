package flow

import (
	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
)

// holds returns the stream of direction d that holds bytes after a hole: that of r,
// or else of its alternative; nil when neither does.
func (r *reassembly) holds(d event.Direction) *stream {
	for ; r != nil; r = r.alternative {
		if s := &r.streams[d]; !s.held.empty() {
			return s
		}
	}
	return nil
}

// wait queues the hole in direction d of the flow i, if there is one. What is held
// after a hole that is in no queue would never be given up.
func (t *Tracker) wait(i uint32, d event.Direction) {
	e := t.table.at(i)
	if e.reassembly == 0 {
		return
	}
	r := t.reassemblies[e.reassembly]
	w := &r.streams[d]
	if w.waits {
		return
	}
	if s := r.holds(d); s != nil {
		if len(t.holes)+len(t.patient) >= 4*t.used+limitOldHoles {
			t.holes, t.patient = t.unfilled(t.holes), t.unfilled(t.patient)
		}
		w.waits = true
		t.holes = append(t.holes, hole{i, e.serial, d, s.hole})
	}
}

// unfilled returns those of a queue that are still holes.
func (t *Tracker) unfilled(holes []hole) []hole {
	n := 0
	for _, h := range holes {
		if r, _ := t.waiting(h); r != nil {
			holes[n] = h
			n++
		}
	}
	return holes[:n]
}

// waiting returns the reassembly and the stream of a hole; nil when the hole is
// filled or the flow is over.
func (t *Tracker) waiting(h hole) (*reassembly, *stream) {
	e := t.table.at(h.slot)
	if e.serial != h.serial || e.reassembly == 0 {
		return nil, nil
	}
	r := t.reassemblies[e.reassembly]
	s := r.holds(h.d)
	if s == nil {
		r.streams[h.d].waits = false
		return nil, nil
	}
	return r, s
}

// expireHoles gives up the holes that no retransmission has filled in time. Where
// the other side has acknowledged the bytes, that time is short: the capture lacks
// them, and nobody sends them again. Where it lacks them too, a sender may send one byte
// far ahead, rest, and send what comes before it later than any retransmission: such a
// hole waits until the flow ends.
func (t *Tracker) expireHoles(now int64) {
	t.expire(&t.holes, now-timeoutHole, func(s *stream) (int64, bool) { return s.hole, !s.received() })
	t.expire(&t.patient, now-timeoutRetransmission, func(s *stream) (int64, bool) { return now, s.lacked() })
}

// received reports whether the other side has acknowledged what is held after the
// first hole of s.
func (s *stream) received() bool {
	first, ok := s.held.after(s.next)
	return ok && s.ackedUpTo(first)
}

// lacked reports whether the other side, as far as it was seen, has not received the
// byte at the first hole of s.
func (s *stream) lacked() bool { return s.hasAcked && distance(s.next, s.acked) <= 0 }

// expire gives up the holes of a queue that are older than before, except those that
// longer names: they go to the patient ones, as holes since the time that it returns. A
// hole that is newer than its place in the queue, since those before it were filled, goes
// to the end. What is given up may queue the next hole of its stream.
func (t *Tracker) expire(holes *[]hole, before int64, longer func(*stream) (since int64, ok bool)) {
	for len(*holes) > 0 && (*holes)[0].since <= before {
		h := (*holes)[0]
		*holes = (*holes)[1:]
		r, s := t.waiting(h)
		if r == nil {
			continue
		}
		if s.hole > before {
			h.since = s.hole
			*holes = append(*holes, h)
		} else if since, ok := longer(s); ok {
			h.since = since
			t.patient = append(t.patient, h)
		} else {
			t.giveUp(h, r)
		}
	}
}

// giveUp gives up the first hole of a stream, and queues the next. Where the other
// side has the bytes after that too, and all has come that the capture may bring late,
// giveUp does not wait for it.
func (t *Tracker) giveUp(h hole, r *reassembly) {
	for a := r; a != nil; a = a.alternative {
		if a.done {
			a.streams[h.d].held.reset(&t.pages) // its parser wants no more
		}
	}
	t.each(r, func(r *reassembly) parsers.Status {
		s := &r.streams[h.d]
		v := t.skip(r, h.d, s.last)
		for v == parsers.NeedMore && s.received() && t.now-s.heldAt >= timeoutHole {
			v = t.skip(r, h.d, s.last)
		}
		return v
	})
	r.streams[h.d].waits = false
	if r.done {
		r.after = max(r.after, limitAfter)
		t.conclude(r)
	}
	t.wait(h.slot, h.d)
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
