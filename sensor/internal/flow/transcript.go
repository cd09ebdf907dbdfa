package flow

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
)

// transcript is what was delivered to the parser, from the beginning of the flow
// on. It shows that a retransmission has other bytes, and the flow can be parsed
// again with those. It ends where bytes are missing, or when it is too long.
type transcript struct {
	ended      bool
	begun      [2]bool
	from       [2]uint32 // sequence number of data[d][0]
	data       [2][]byte // from the tracker's buffers
	deliveries []delivery
}

// delivery is one call of the parser, with the next n bytes of data[d].
type delivery struct {
	d          event.Direction
	unverified bool // from a segment whose checksum was bad, before a good one was seen
	n          uint32
	at         event.Moment
}

// deliveryCost is what a delivery takes, with the room that its list has to grow.
const deliveryCost = 32

// add notes what is delivered.
func (l *transcript) add(t *Tracker, d event.Direction, seq uint32, data []byte, at event.Moment) {
	if l.ended {
		return
	}
	if !l.begun[d] {
		l.begun[d], l.from[d] = true, seq
	}
	if len(l.deliveries) == limitDeliveries || len(l.data[d])+len(data) > limitTranscript {
		l.stop(t)
		return
	}
	grown, ok := t.buffers.append(l.data[d], data, t.limits.Transcripts)
	if !ok {
		t.stats.Untold++
		l.stop(t)
		return
	}
	l.data[d] = grown
	l.deliveries = append(l.deliveries, delivery{d: d, unverified: t.unverified, n: uint32(len(data)), at: at})
	t.buffers.used += deliveryCost
}

// stop ends the transcript, and gives its memory back.
func (l *transcript) stop(t *Tracker) {
	l.ended = true
	l.free(t)
}

// free empties the transcript.
func (l *transcript) free(t *Tracker) {
	for d := range l.data {
		t.buffers.put(l.data[d])
		l.data[d] = nil
	}
	t.buffers.used -= deliveryCost * len(l.deliveries)
	l.deliveries = l.deliveries[:0]
	if cap(l.deliveries) > 32 {
		l.deliveries = nil
	}
}

// unverified reports whether the first delivery of direction d is.
func (l *transcript) unverified(d event.Direction) bool {
	for i := range l.deliveries {
		if l.deliveries[i].d == d {
			return l.deliveries[i].unverified
		}
	}
	return false
}

// cost is what it takes to parse all of it again, in bytes.
func (l *transcript) cost() int {
	return costAlternative + len(l.data[0]) + len(l.data[1]) + costReparsedCall*len(l.deliveries)
}

// agrees reports whether data, sent again from seq on, is what was delivered
// there, as far as that is known.
func (l *transcript) agrees(d event.Direction, seq uint32, data []byte) bool {
	known := l.data[d]
	off := distance(l.from[d], seq)
	if off < 0 {
		if -off >= len(data) {
			return true
		}
		data, off = data[-off:], 0
	}
	if off >= len(known) {
		return true
	}
	n := min(len(data), len(known)-off)
	return bytes.Equal(known[off:off+n], data[:n])
}

// doubt is why a flow is parsed again.
type doubt uint8

const (
	contradicted doubt = iota // other bytes have come for a place
	unsummed                  // the first good checksum has come after bad ones
	misplaced                 // the SYN has come, and the stream does not begin where bytes were
	urgent                    // there is an urgent byte
)

// alternative parses the flow of r again, in another state of the parser. Where bytes
// are contradicted, g is in the place of those that were delivered there. Else all
// bytes of direction d that came before are left out, or those with bad checksums, and
// g is next; or it is urgent bytes alone that are left out, from now on. It returns nil
// where the transcript is not enough for that.
func (t *Tracker) alternative(r *reassembly, d event.Direction, g *segment, why doubt) *reassembly {
	reparsed := r.reparsed
	if r.alternative != nil {
		reparsed = max(reparsed, r.alternative.reparsed)
	}
	reparsed += r.log.cost()
	if r.log.ended || reparsed > limitReparsed || t.used >= t.limits.Undecided {
		t.stats.Untried++
		return nil
	}
	a := t.newReassembly(r.flow)
	a.replaces, a.reparsed = true, reparsed
	a.outOfBand = r.outOfBand || why == urgent
	a.conn = t.parser.Alternative(r.conn)
	for x := range a.streams {
		s, o := &a.streams[x], &r.streams[x]
		held := s.held
		held.copyOf(&t.pages, &o.held)
		*s = stream{next: o.next, started: o.started, midstream: o.midstream, fin: o.fin, end: o.end, stamped: o.stamped, stamp: o.stamp, hasAcked: o.hasAcked, acked: o.acked, hole: o.hole, heldAt: o.heldAt, held: held, urgent: slices.Clone(o.urgent)}
		if r.log.begun[x] {
			s.next = r.log.from[x]
		}
		if event.Direction(x) == d && (why == misplaced || why == unsummed && s.midstream && r.log.unverified(d)) {
			s.next = g.seq
			s.held.reset(&t.pages)
			if why == misplaced {
				s.midstream, s.fin, s.stamped = false, false, false
			}
		}
		if s.midstream {
			a.conn.Midstream(event.Direction(x))
		}
	}
	var data [2][]byte
	data[d.Other()] = r.log.data[d.Other()]
	data[d] = bytes.Clone(r.log.data[d])
	if off := distance(r.log.from[d], g.seq); why == contradicted && off < len(data[d]) {
		if from := max(-off, 0); from < len(g.data) {
			copy(data[d][max(off, 0):], g.data[from:])
		}
	}
	at := r.log.from
	skip, cut := false, false
	for _, ev := range r.log.deliveries {
		b, seq := data[ev.d][:ev.n], at[ev.d]
		data[ev.d], at[ev.d] = data[ev.d][ev.n:], seq+ev.n
		if skip = skip || ev.d == d && (why == misplaced || why == unsummed && ev.unverified); skip && ev.d == d || a.done {
			continue
		}
		if ev.d == d && cut { // after what is missing now
			s := &a.streams[d]
			if s.held.empty() {
				s.hole = t.now
			}
			s.last = ev.at
			s.held.put(&t.pages, s.next, seq, b, false)
			continue
		}
		deliver := func(b []byte) bool {
			return t.guard(a, func() parsers.Status { return t.deliver(a, ev.d, b, ev.at) }) == parsers.Done
		}
		if ev.d == d && why == contradicted {
			// What comes before g is of another copy than g is, and so is what comes after
			// it: that is as doubtful as the bytes which g contradicts.
			if n := distance(seq, g.seq); n > 0 && n < len(b) {
				a.done, b, seq = deliver(b[:n]), b[n:], seq+uint32(n)
			}
			if n := distance(seq, g.end()); n > 0 && n < len(b) {
				b, cut = b[:n], true
			}
		}
		a.done = a.done || deliver(b)
	}
	return a
}

// buffers lends memory in sizes that are powers of two, and takes it back. A buffer
// that grows gets four times its size, so that little is copied.
type buffers struct {
	free [bufferClasses][][]byte
	used int // bytes lent
}

const (
	smallestBuffer = 9 // 512 bytes
	bufferClasses  = 8
)

// append appends b to buf, which is nil or comes from here; false, and nothing
// done, where more than limit would be lent or no buffer is as large.
func (p *buffers) append(buf, b []byte, limit int) ([]byte, bool) {
	n := len(buf) + len(b)
	if n <= cap(buf) {
		return append(buf, b...), true
	}
	k := max(bits.Len(uint(max(n, min(4*cap(buf), limitTranscript))-1))-smallestBuffer, 0)
	size := 1 << (k + smallestBuffer)
	if k >= bufferClasses || p.used-cap(buf)+size > limit {
		return buf, false
	}
	var grown []byte
	if f := p.free[k]; len(f) > 0 {
		grown = f[len(f)-1]
		p.free[k] = f[:len(f)-1]
	} else {
		grown = make([]byte, 0, size)
	}
	p.used += size
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
	p.used -= size
	k := bits.Len(uint(size-1)) - smallestBuffer
	if len(p.free[k]) < limitFreeBuffers {
		p.free[k] = append(p.free[k], buf[:0])
	}
}
