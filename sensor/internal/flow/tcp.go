package flow

import (
	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// tcp takes a segment of the flow i; 0 is not a flow.
func (t *Tracker) tcp(i uint32, p *decode.Packet, origin *event.Origin) {
	if i == 0 {
		return
	}
	e := t.table.at(i)
	e.last, t.slot = t.now, i
	d := e.direction(p)
	e.tag(d, t.vlans(p))
	payload := len(p.Payload) + p.Missing
	seq := p.Seq
	if p.Flags&decode.FlagSYN != 0 {
		seq++
	} else if payload == 1 && isPadding(p) && e.bits&((baseKnown|baseGuess)<<d) == 0 {
		// A keep-alive may have a byte from before the next one (RFC 9293,
		// section 3.8.4).
		payload, seq = 0, seq+1
		e.base[d] = seq
		e.bits |= baseGuess << d
	}
	if e.reassembly == 0 && e.bits&hadPayload != 0 { // it is decided, closed or aborted
		switch {
		case p.Flags&decode.FlagRST != 0:
			t.reset(i)
		case p.Flags&decode.FlagFIN != 0:
			if e.state == decided {
				t.table.move(i, closed)
			}
		case e.state == closed && t.Shunter != nil:
			t.shunt(e, p) // one direction may go on for long
		}
		return
	}
	if p.Flags&decode.FlagRST != 0 {
		if t.resets(e, d, p) {
			t.reset(i)
		} else {
			t.forged(e, event.ForgedRST)
		}
		return
	}
	was := e.bits & (verified << d)
	signed := p.Signed()
	expected := e.reassembly != 0 && !signed && t.reassemblies[e.reassembly].expects(d, p)
	var v validity
	var kind event.Forged
	var far bool
	if expected {
		v, kind = t.verified(e, d, p), event.ForgedChecksum
	} else {
		v, kind, far = t.judge(e, d, p, seq)
	}
	if v == accepted && p.Flags&decode.FlagACK != 0 && (expected || t.isNew(e, d, seq, payload)) {
		t.acknowledged(e, d.Other(), p.Ack)
	}
	if v == accepted && !signed {
		e.bits |= unsigned << d
	}
	if v != accepted {
		if kind == event.ForgedData && p.Flags&decode.FlagFIN != 0 && payload == 0 {
			kind = event.ForgedFIN
		}
		if v == refused || payload == 0 || e.reassembly == 0 && far {
			t.forged(e, kind)
		}
	}
	if v == accepted && e.reassembly != 0 && e.bits&(unverified<<d) != 0 && was == 0 && e.bits&(verified<<d) != 0 {
		t.discredit(i, d, &segment{seq: seq})
	}
	if payload > 0 && v != refused {
		if e.reassembly == 0 {
			if v == doubted && far {
				return // the beginning is known, and the segment is far from it
			}
			t.reassemblyOf(i, p, origin)
			if v == accepted && p.Flags&decode.FlagACK != 0 {
				t.acknowledged(e, d.Other(), p.Ack)
			}
		}
		g := segment{seq, uint32(p.Missing), moment(p), p.Payload, isPadding(p)}
		if v == accepted {
			if e.state == reset {
				t.table.move(i, undecided)
			}
			s := &t.reassemblies[e.reassembly].streams[d]
			s.farRun = 0
			// A segment with nothing new does not count, whatever its timestamp is.
			if stamp, ok := p.Timestamp(); ok && (!s.started || distance(s.next, seq) <= 0 && distance(s.next, g.end()) > 0) {
				s.stamped, s.stamp = true, stamp
			}
			t.urgent(i, d, p, seq)
			t.accept(i, d, &g)
		} else {
			if kind == event.ForgedTimestamp {
				t.old(i, d, p, &g)
			}
			t.setAside(i, d, g, p.Ack, kind, far)
		}
	} else if v == accepted && e.reassembly != 0 {
		t.urgent(i, d, p, seq)
	}
	if v == accepted && p.Flags&decode.FlagFIN != 0 && e.reassembly != 0 {
		if isPadding(p) {
			payload = 0
		}
		t.fin(i, d, seq+uint32(payload))
	}
	if e.reassembly != 0 {
		if r := t.reassemblies[e.reassembly]; len(r.streams[0].aside)+len(r.streams[1].aside) > 0 {
			t.reconsider(i)
		}
	}
	for t.pages.used > t.limits.Held && t.evictHole() {
	}
}

// isNew reports whether a segment of direction d is not a repetition. An endpoint
// ignores what a repetition acknowledges (RFC 9293, section 3.10.7.4).
func (t *Tracker) isNew(e *entry, d event.Direction, seq uint32, payload int) bool {
	s := t.stream(e, d)
	next, ok := e.reference(d, s)
	ahead := distance(next, seq)
	return !ok || ahead >= 0 || ahead+payload > 0
}

// acknowledged notes that a segment acknowledges direction d up to ack.
func (t *Tracker) acknowledged(e *entry, d event.Direction, ack uint32) {
	if e.bits&((baseKnown|baseGuess)<<d) == 0 {
		e.base[d] = ack
		e.bits |= baseGuess << d
	}
	if s := t.stream(e, d); s != nil && (!s.hasAcked || distance(s.acked, ack) > 0) {
		s.acked, s.hasAcked = ack, true
	}
}

// accept hands a payload that the endpoint takes to the reassembly of the flow and
// to its alternative.
func (t *Tracker) accept(i uint32, d event.Direction, g *segment) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	contested := t.feed(r, d, g)
	if contested {
		t.forged(e, event.ForgedConflict)
	}
	if a := r.alternative; contested && (a == nil || a.done) { // what has ended a may be forged too
		t.offer(e, r, t.alternative(r, d, g, contradicted))
	}
	if a := r.alternative; a != nil && !a.done && t.feed(a, d, g) && (contested || r.log.ended) { // else r has this copy
		t.offer(e, r, t.alternative(a, d, g, contradicted))
	}
	if s := &r.streams[d]; s.fin && distance(s.end, s.next) > 0 {
		s.fin = false
		t.forged(e, event.ForgedFIN)
	}
	if r.done {
		t.conclude(r)
	}
}

// feed hands g to one reading of a flow, and reports whether other bytes came for the same
// place before.
func (t *Tracker) feed(r *reassembly, d event.Direction, g *segment) (contested bool) {
	t.contested = false
	if t.guard(r, func() parsers.Status { return t.segment(r, d, g) }) == parsers.Done {
		r.done = true
	}
	return t.contested
}

// old hands g, a segment that p has and whose timestamp is old, to the alternative of the
// flow. A segment that never reached the endpoint may have had one from the future, and
// other bytes: where g contradicts what was delivered, the flow is parsed with g too.
func (t *Tracker) old(i uint32, d event.Direction, p *decode.Packet, g *segment) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	stamp, _ := p.Timestamp()
	if a := r.alternative; a != nil && !a.done && !a.streams[d].isOld(p) {
		a.streams[d].stamp = stamp
		if t.feed(a, d, g) {
			t.offer(e, r, t.alternative(a, d, g, contradicted))
		}
	} else if (a == nil || a.done) && !r.log.agrees(d, g.seq, g.data) {
		if a = t.alternative(r, d, g, contradicted); a != nil {
			a.streams[d].stamp = stamp
			t.offer(e, r, a)
		}
	}
}

// offer makes a the alternative of r; nil changes nothing.
func (t *Tracker) offer(e *entry, r, a *reassembly) {
	if a == nil {
		return
	}
	if r.alternative != nil {
		t.drop(r.alternative, event.NoLoss)
	}
	r.alternative = a
	a.conn.Forged(e.forged)
	for d := range event.Direction(2) {
		t.wait(r.flow, d)
	}
}

// discredit parses the flow again without what came before the first good checksum
// of direction d. g is the segment that has it.
func (t *Tracker) discredit(i uint32, d event.Direction, g *segment) {
	e := t.table.at(i)
	t.forged(e, event.ForgedChecksum)
	t.reread(i, d, g, unsummed)
}

// reread parses the flow again without what g, a segment of direction d, says is not
// of it.
func (t *Tracker) reread(i uint32, d event.Direction, g *segment, why doubt) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	of := r
	if a := r.alternative; a != nil && !a.done {
		of = a
	}
	t.offer(e, r, t.alternative(of, d, g, why))
}

// conclude decides a flow whose parser wants no more, unless forged segments may
// have said that the flow is not TLS or that its handshake has failed: then the
// segments of the endpoints may still come.
func (t *Tracker) conclude(r *reassembly) {
	a := r.alternative
	if a != nil && a.done {
		a = nil
	}
	limit := uint8(limitAfter)
	if a != nil && a.conn.Begun() {
		limit = limitAfterBegun
	}
	if r.after++; r.after > limit || a == nil && !r.conn.Unproven() {
		t.decide(r.flow)
	}
}

// resets reports whether the endpoint takes the RST p of the flow e: its number must
// be the next (RFC 5961, section 3.2; RFC 9293, section 3.10.7.3).
func (t *Tracker) resets(e *entry, d event.Direction, p *decode.Packet) bool {
	if t.verified(e, d, p) == refused {
		return false
	}
	if p.Flags&decode.FlagACK != 0 && p.Seq == 0 && e.bits&(baseKnown<<d) == 0 { // the answer to a SYN
		return e.bits&(baseKnown<<d.Other()) == 0 || p.Ack == e.base[d.Other()]
	}
	s := t.stream(e, d)
	next, ok := e.reference(d, s)
	if !ok || p.Seq == next {
		return true
	}
	if s == nil {
		return false
	}
	return s.fin && (p.Seq == s.end || p.Seq == s.end+1) || !s.held.empty() && p.Seq == s.held.high()
}

// reset notes a RST.
func (t *Tracker) reset(i uint32) {
	e := t.table.at(i)
	if e.state == reset || e.state == aborted {
		return
	}
	t.stats.Resets++
	if e.reassembly != 0 {
		t.table.move(i, reset)
	} else {
		t.table.move(i, aborted)
	}
}

// fin notes the end of one direction. When both have ended, it closes the flow.
func (t *Tracker) fin(i uint32, d event.Direction, end uint32) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	for ; r != nil; r = r.alternative {
		s := &r.streams[d]
		s.fin, s.end = true, end
		if !s.started {
			// Bytes that come late are between the beginning and the end.
			s.started, s.next = true, end
			if off := distance(e.base[d], end); e.bits&((baseKnown|baseGuess)<<d) != 0 && off > 0 && off <= limitHeldStream {
				s.next = e.base[d]
			}
		}
	}
	r = t.reassemblies[e.reassembly]
	for d := range r.streams {
		s := &r.streams[d]
		guessed := !s.delivered && e.bits&(baseKnown<<d) == 0
		if !s.fin || distance(s.next, s.end) > 0 || guessed || len(s.aside) > 0 {
			return
		}
	}
	if r.done {
		t.stats.Decided++
	} else {
		t.stats.Undecided++
	}
	t.finish(i, event.EndOfInput)
	t.table.move(i, closed)
}
