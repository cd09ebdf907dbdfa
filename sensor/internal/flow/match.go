package flow

import (
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

// lookup returns the flow that p belongs to, 0 when there is none. It is no SYN.
func (t *Tracker) lookup(p *decode.Packet) uint32 {
	i := t.table.find(&p.Key, p.Hash)
	if i == 0 {
		return 0
	}
	if e := t.table.at(i); e.bits&(twin|tagged) == 0 && t.vlans(p) == 0 && (e.answered() || e.reassembly == 0 && e.bits&spoke != 0) {
		return i
	}
	return t.choose(i, p)
}

// choose returns the one of the flows on a five-tuple, of which i is the first,
// that p fits best: nothing may contradict it, and its number must be near what
// the flow has come to.
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
			// What does not fit is of another flow, where only one side says what
			// this one is.
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

// hasBoth reports whether both sides have said what flow this is.
func (t *Tracker) hasBoth(e *entry) bool {
	return e.answered() || t.delivered(e, 0) && t.delivered(e, 1)
}

// delivered reports whether bytes of direction d of the flow e, which is
// undecided, went to the parser.
func (t *Tracker) delivered(e *entry, d event.Direction) bool {
	s := t.stream(e, d)
	return s != nil && s.delivered
}

// What offset returns beside sums of distances.
const (
	offsetOver  = 4*limitHeldStream + 1 // what the flow came to is forgotten
	offsetUnfit = 4*limitHeldStream + 2
)

// offset says how far p is from where the flow e is: in its own direction and by
// what it acknowledges of the other. Nothing known counts as the end of the
// window, and so does a direction in which no checksum was good.
func (t *Tracker) offset(e *entry, d event.Direction, p *decode.Packet) int {
	if e.reassembly == 0 && e.bits&spoke != 0 {
		return offsetOver
	}
	s := t.stream(e, d)
	own, other := limitHeldStream, limitHeldStream
	if next, ok := e.reference(d, s); ok {
		if own = distance(next, p.Seq); own < 0 {
			own = -own
		}
		if own > limitHeldStream {
			return offsetUnfit
		}
		if own > 0 && e.bits&(baseKnown<<0) != e.bits&(baseKnown<<1)>>1 {
			own = limitHeldStream // a SYN that nobody has answered: the others come first
		}
	}
	if ahead, ok := t.ackAhead(e, d.Other(), p.Ack); ok && p.Flags&decode.FlagACK != 0 {
		if other = ahead; other > limitHeldStream || other < oldestACK {
			return offsetUnfit
		}
		other = min(max(other, -other), limitHeldStream)
	}
	for d := range 2 {
		if e.bits&(unverified<<d) != 0 && e.bits&(verified<<d) == 0 {
			other += limitHeldStream // it may be made of forged segments
		}
	}
	return own + other
}

// syn returns the flow that a SYN belongs to, alone or with an ACK, and opens one
// where there is none: another number than that of a flow under way may begin
// another connection, or be forged, so that both go on. It returns 0 for a SYN
// that changes nothing.
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
				// Two answers to one SYN: the one that the rest follows on counts.
				t.forged(e, event.ForgedSYN)
				e.rival = p.Seq + 1
				e.bits |= rivalKnown
				return 0
			case opensThis:
				t.begin(e, d, p.Seq+1)
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
	e := t.table.at(i)
	t.begin(e, e.direction(p), p.Seq+1)
	return i
}

// opening says what a SYN is to a flow.
type opening uint8

const (
	opensOther opening = iota // it is of another one
	opensThis
	opensRival // it answers the SYN, and another has before
)

// opens says whether the SYN p, alone or with an ACK, is of the flow e: surely, by
// a number that nobody can guess, or because nothing contradicts it.
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
		return opensOther // it is not what was answered
	}
	if e.bits&(baseGuess<<d) == 0 {
		if e.bits&spoke != 0 && !answers {
			return opensOther
		}
		return opensThis
	}
	// The beginning was not seen, and a SYN that comes late fits what was.
	if off < 0 || off > limitHeldStream || off > limitEarly && t.delivered(e, d) {
		return opensOther
	}
	return opensThis
}

// begin notes where direction d of a flow begins.
func (t *Tracker) begin(e *entry, d event.Direction, seq uint32) {
	e.base[d] = seq
	e.bits |= baseKnown << d
	if s := t.stream(e, d); s != nil && s.started && !s.delivered {
		s.next = seq
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
		t.crowd(i)
	}
	return i
}

// worth says how much speaks for a flow that shares its five-tuple with others.
func (t *Tracker) worth(e *entry) (n int) {
	if e.reassembly == 0 && e.bits&spoke != 0 {
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

// crowd bounds how many flows there are on one five-tuple: the one that least
// speaks for gives way, and of several the oldest.
func (t *Tracker) crowd(newest uint32) {
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
	twins, key := e.bits&twin != 0, e.key
	t.table.remove(i)
	if !twins {
		return
	}
	if i = t.table.find(&key, key.Hash()); i != 0 && t.table.next(i) == 0 {
		t.table.at(i).bits &^= twin
	}
}

// supersede forgets the older flows on the five-tuple of i that are over.
func (t *Tracker) supersede(i uint32) {
	order := t.table.at(i).order
	for j := t.table.find(&t.table.at(i).key, t.table.at(i).key.Hash()); j != 0; {
		next := t.table.next(j)
		if e := t.table.at(j); j != i && e.order < order && e.reassembly == 0 && e.bits&spoke != 0 {
			t.stats.Superseded++
			t.close(j, event.EndOfInput)
		}
		j = next
	}
}

// unfollowed counts a SYN that nothing has followed, while another flow on the
// same five-tuple went on.
func (t *Tracker) unfollowed(i uint32) {
	for j := t.table.find(&t.table.at(i).key, t.table.at(i).key.Hash()); j != 0; j = t.table.next(j) {
		if e := t.table.at(j); j != i && e.reassembly != 0 {
			t.forged(e, event.ForgedSYN)
			return
		}
	}
}
