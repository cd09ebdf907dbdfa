package flow

import (
	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// vlans returns what tells the VLANs of p from others.
func (t *Tracker) vlans(p *decode.Packet) decode.VLANs {
	if t.limits.IgnoreVLAN {
		return 0
	}
	return p.VLANs()
}

// lookup returns the flow of p, which is not a SYN; 0 when there is none.
func (t *Tracker) lookup(p *decode.Packet) uint32 {
	i := t.table.find(&p.Key, p.Hash)
	if i == 0 {
		return 0
	}
	if e := t.table.at(i); e.bits&(twin|tagged) == 0 && t.vlans(p) == 0 && (e.answered() || e.reassembly == 0 && e.bits&hadPayload != 0) {
		return i
	}
	return t.choose(i, p)
}

// choose returns the flow on a five-tuple that p fits best; i is the first of those
// flows. Nothing must contradict that p is of the flow, and the sequence number of
// p must be near the next.
func (t *Tracker) choose(i uint32, p *decode.Packet) (best uint32) {
	vlans := t.vlans(p)
	least := 0
	for ; i != 0; i = t.table.next(i) {
		e := t.table.at(i)
		d := e.direction(p)
		if e.contradicts(d, vlans) {
			continue
		}
		off := 0
		if p.Transport == event.TCP {
			// A packet that does not fit is of another flow, if only one side of this
			// one was seen.
			if off = t.offset(e, d, p); off > offsetOver && (e.differs(d, vlans) || !t.hasBoth(e)) {
				continue
			}
		} else if e.differs(d, vlans) {
			off = 1
		}
		if best == 0 || off < least || off == least && e.order > t.table.at(best).order {
			best, least = i, off
		}
	}
	return best
}

// hasBoth reports whether both sides of the flow were seen.
func (t *Tracker) hasBoth(e *entry) bool {
	return e.answered() || t.delivered(e, 0) && t.delivered(e, 1)
}

// delivered reports whether bytes of direction d of the flow e, which is
// undecided, went to the parser.
func (t *Tracker) delivered(e *entry, d event.Direction) bool {
	s := t.stream(e, d)
	return s != nil && s.delivered
}

// What offset returns besides sums of distances.
const (
	offsetOver  = 4*limitHeldStream + 1 // nobody knows any more where the flow is
	offsetUnfit = 4*limitHeldStream + 2
)

// offset returns how far p is from where the flow e is: the sum of the distances in
// its own direction and, by what it acknowledges, in the other. Where nothing is
// known of a direction, it counts as far as the window is long. So does a direction
// in which no checksum was good.
func (t *Tracker) offset(e *entry, d event.Direction, p *decode.Packet) int {
	if e.reassembly == 0 && e.bits&hadPayload != 0 {
		return offsetOver
	}
	s := t.stream(e, d)
	own, other := limitHeldStream, limitHeldStream
	if next, ok := e.near(d, s); ok {
		away := distance(next, p.Seq)
		if away = max(away, -away); away > limitHeldStream {
			return offsetUnfit
		}
		// A direction of which nothing was seen fits less well than one that was, and so
		// does a SYN that nobody has answered: the others come first.
		if _, seen := e.reference(d, s); seen && (away == 0 || e.bits&(baseKnown<<0) == e.bits&(baseKnown<<1)>>1) {
			own = away
		}
	}
	if x := t.extent(e, d.Other()); p.Flags&decode.FlagACK != 0 {
		if ahead, ok := x.ackAhead(p.Ack); ok {
			if ahead > limitHeldStream || ahead < oldestACK {
				return offsetUnfit
			}
			if x.more == 0 {
				other = min(max(ahead, -ahead), limitHeldStream)
			}
		}
	}
	for d := range 2 {
		if e.bits&(unverified<<d) != 0 && e.bits&(verified<<d) == 0 {
			other += limitHeldStream // it may be made of forged segments
		}
	}
	return own + other
}

// syn returns the flow of a SYN or SYN-ACK, and opens one where there is none. A SYN
// with another number than the flow on its five-tuple may begin another connection,
// or it may be forged: both flows then go on. It returns 0 for a SYN that changes
// nothing.
func (t *Tracker) syn(p *decode.Packet) uint32 {
	vlans := t.vlans(p)
	first := t.table.find(&p.Key, p.Hash)
	for _, sure := range [...]bool{true, false} {
		for i := first; i != 0; i = t.table.next(i) {
			e := t.table.at(i)
			d := e.direction(p)
			if e.contradicts(d, vlans) {
				continue
			}
			if sure && e.bits&(verified<<d) != 0 && t.verified(e, d, p) != accepted {
				t.forged(e, event.ForgedChecksum)
				return 0
			}
			switch t.opens(e, d, p, sure) {
			case opensRival:
				// Two answers to one SYN: that with the number of the later segments counts.
				t.forged(e, event.ForgedSYN)
				e.rival = p.Seq + 1
				e.bits |= rivalKnown
				return 0
			case opensThis:
				t.begin(i, d, p.Seq+1, moment(p))
				if o := d.Other(); p.Flags&decode.FlagACK != 0 && e.bits&(baseKnown<<o) == 0 {
					e.base[o] = p.Ack // the beginning, if the SYN comes late
					e.bits |= baseGuess << o
				}
				return i
			}
		}
		if first == 0 {
			break
		}
	}
	i := t.open(p)
	t.begin(i, t.table.at(i).direction(p), p.Seq+1, moment(p))
	return i
}

// opening is what a SYN is to a flow.
type opening uint8

const (
	opensOther opening = iota // it opens another flow
	opensThis
	opensRival // it answers the SYN, as another SYN-ACK has before
)

// opens returns what p, a SYN or SYN-ACK, is to the flow e. With sure, p is of e only
// if it has a number of e that nobody can guess; else p is of e if nothing
// contradicts that.
func (t *Tracker) opens(e *entry, d event.Direction, p *decode.Packet, sure bool) opening {
	o := d.Other()
	answers := p.Flags&decode.FlagACK != 0
	known := e.bits&(baseKnown<<d) != 0
	exact := answers && e.bits&(baseKnown<<o) != 0 && p.Ack == e.base[o]
	off := distance(p.Seq+1, e.base[d])
	switch {
	case known && off == 0 && (!answers || exact || e.bits&(baseKnown<<o) == 0):
		return opensThis
	case known && exact && d == 1:
		return opensRival
	case exact && !known:
		if next, ok := e.near(d, t.stream(e, d)); ok && (d == 0 || t.delivered(e, d)) {
			if off := distance(p.Seq+1, next); off < 0 || off > limitHeldStream {
				return opensOther // the other side has acknowledged other numbers
			}
		}
		return opensThis
	case sure || known:
		return opensOther
	}
	if answers {
		switch off := distance(e.base[o], p.Ack); {
		case e.bits&(baseKnown<<o) != 0: // it may acknowledge what came with the SYN (RFC 7413)
			if off < 0 || !t.delivered(e, o) || distance(p.Ack, t.stream(e, o).next) < 0 {
				return opensOther
			}
		case e.bits&(baseGuess<<o) != 0 && (off < -limitHeldStream || off > limitHeldStream), e.bits&(baseGuess<<o) == 0 && e.differs(d, t.vlans(p)):
			return opensOther
		}
	} else if e.bits&(baseKnown<<o) != 0 && off != 0 {
		return opensOther // it is not the SYN that was answered
	}
	if e.bits&(baseGuess<<d) == 0 {
		if e.bits&hadPayload != 0 && !answers {
			return opensOther
		}
		return opensThis
	}
	// The beginning was not seen, and p may be a SYN that comes late.
	if off < 0 || off > limitHeldStream || off > limitEarly && t.delivered(e, d) {
		return opensOther
	}
	return opensThis
}

// begin notes where direction d of the flow i begins, as the SYN at the moment at
// says.
func (t *Tracker) begin(i uint32, d event.Direction, seq uint32, at event.Moment) {
	e := t.table.at(i)
	e.base[d] = seq
	e.bits |= baseKnown << d
	if e.reassembly == 0 {
		return
	}
	r := t.reassemblies[e.reassembly]
	if r.streams[d].delivered && r.log.begun[d] && r.log.from[d] != seq {
		t.forged(e, event.ForgedData)
		t.reread(i, d, &segment{seq: seq}, misplaced)
	}
	t.each(r, func(r *reassembly) parsers.Status { return t.restart(r, d, seq, at) })
	if r.done {
		t.conclude(r)
	}
}

// open makes an entry for the flow of p.
func (t *Tracker) open(p *decode.Packet) uint32 {
	for t.table.length >= t.limits.Flows {
		t.evict()
	}
	i := t.table.insert(&p.Key, p.Hash, t.now)
	t.stats.Flows++
	// The answer to a SYN goes against the direction of the flow.
	e := t.table.at(i)
	if p.Swapped != (p.Flags&(decode.FlagSYN|decode.FlagACK) == decode.FlagSYN|decode.FlagACK) {
		e.bits |= fromHigh
	}
	e.start = p.Frame.Time
	if other := t.table.next(i); other != 0 {
		e.bits |= twin
		t.table.at(other).bits |= twin
		t.boundTwins(i)
	}
	return i
}

// worth returns how much suggests that a flow which shares its five-tuple with
// others is the real one.
func (t *Tracker) worth(e *entry) (n int) {
	if e.reassembly == 0 && e.bits&hadPayload != 0 {
		return 1 // it is over
	}
	for d := range event.Direction(2) {
		if e.bits&(baseKnown<<d) != 0 {
			n++
		}
		if t.delivered(e, d) {
			n += 2
		}
	}
	if e.answered() {
		n++
	}
	if e.reassembly != 0 && t.reassemblies[e.reassembly].conn.Begun() {
		n += 4
	}
	return n
}

// boundTwins bounds how many flows there are on one five-tuple: the one with the
// least worth is evicted, and of several the oldest.
func (t *Tracker) boundTwins(newest uint32) {
	n, worst := 0, uint32(0)
	for i := newest; i != 0; i = t.table.next(i) {
		if n++; i == newest {
			continue
		}
		if worst == 0 {
			worst = i
			continue
		}
		e, w := t.table.at(i), t.table.at(worst)
		if a, b := t.worth(e), t.worth(w); a < b || a == b && e.order < w.order {
			worst = i
		}
	}
	if n > limitTwins {
		t.stats.Superseded++
		t.close(worst, event.EndOfInput)
	}
}

// forget takes a flow out of the table.
func (t *Tracker) forget(i uint32) {
	e := t.table.at(i)
	twins, key, hash := e.bits&twin != 0, e.key, e.hash
	t.table.remove(i)
	if !twins {
		return
	}
	if i = t.table.find(&key, hash); i != 0 && t.table.next(i) == 0 {
		t.table.at(i).bits &^= twin
	}
}

// supersede forgets the flows on the five-tuple of i that are older and over.
func (t *Tracker) supersede(i uint32) {
	order := t.table.at(i).order
	for j := t.table.find(&t.table.at(i).key, t.table.at(i).hash); j != 0; {
		next := t.table.next(j)
		if e := t.table.at(j); j != i && e.order < order && e.reassembly == 0 && e.bits&hadPayload != 0 {
			t.stats.Superseded++
			t.close(j, event.EndOfInput)
		}
		j = next
	}
}

// unfollowed counts the SYN of the flow i as forged if no segment has followed it
// while another flow on its five-tuple went on.
func (t *Tracker) unfollowed(i uint32) {
	last := t.table.at(i).last
	for j := t.table.find(&t.table.at(i).key, t.table.at(i).hash); j != 0; j = t.table.next(j) {
		if e := t.table.at(j); j != i && (e.reassembly != 0 || e.bits&hadPayload != 0 && e.last > last) {
			t.forged(e, event.ForgedSYN)
			return
		}
	}
}
