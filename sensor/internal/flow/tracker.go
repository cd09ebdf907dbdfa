// Package flow turns packets into the bytes of flows: it keeps the table of
// flows, puts TCP segments in order, and hands the bytes to the parsers.
//
// A [Tracker] owns the flows of one shard. Nothing here is safe for concurrent
// use, and nothing needs a lock: the packets of a flow, both ways, go to one
// shard.
package flow

import (
	"slices"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Limits bounds what one tracker holds, and says how it reads what it sees.
type Limits struct {
	Flows int // in the table
	// Undecided flows with payload, each with state in the parser. Stops a
	// flood of hellos that nobody answers.
	Undecided   int
	Held        int // bytes taken by segments beyond holes, over all flows
	Transcripts int // bytes of what was delivered of undecided flows, over all
	Parsing     int // bytes that the parser holds for all flows: see [parsers.Limits]
	Aside       int // bytes of segments in doubt, over all flows

	Checksums  Checksums
	IgnoreVLAN bool // VLAN tags tell no flows apart
	Live       bool // somebody waits for the alert: what is not complete is given up after some time

	noRecover bool // tests want to see a parser fail
}

// DefaultLimits are those of a whole sensor.
var DefaultLimits = Limits{Flows: 1 << 20, Undecided: 1 << 16, Held: 64 << 20, Transcripts: 64 << 20, Aside: 16 << 20, Parsing: 128 << 20}

// Share returns the limits of one of n trackers that share l.
func (l Limits) Share(n int) Limits {
	l.Flows = max(l.Flows/n, 1)
	l.Undecided = max(l.Undecided/n, 1)
	l.Held = max(l.Held/n, heldPageCost)
	l.Transcripts /= n
	l.Aside /= n
	l.Parsing = max(l.Parsing/n, 1)
	return l
}

// Stats counts what a tracker has seen, and everything that it gave up.
type Stats struct {
	Flows     uint64 `json:"total"`     // seen
	Embryonic uint64 `json:"embryonic"` // ended with a SYN and no payload
	Undecided uint64 `json:"undecided"` // ended before it was known what they are
	Decided   uint64 `json:"decided"`   // known: a handshake that is over, or no TLS
	Open      uint64 `json:"open"`      // in the table now
	Expired   uint64 `json:"expired"`   // undecided, nothing heard of for the timeout

	EvictedUndecided uint64 `json:"evicted_undecided"` // gave way to others in a full table before they were decided
	EvictedDecided   uint64 `json:"evicted_decided"`   // the same, after; harmless
	EvictedEmbryonic uint64 `json:"evicted_embryonic"` // the same, with only a SYN seen
	Resets           uint64 `json:"resets"`            // ended by RST
	Reused           uint64 `json:"reused"`            // five-tuples used again before their flow had ended

	Retransmitted uint64      `json:"retransmitted"`   // segments with bytes delivered before
	OutOfOrder    uint64      `json:"out_of_order"`    // segments held
	Overlapping   uint64      `json:"overlapping"`     // held segments that overlapped others
	Untried       uint64      `json:"untried"`         // conflicts of which only the first copy was parsed
	Untold        uint64      `json:"untold"`          // flows whose bytes could not be kept to be compared, for want of room
	Unkept        uint64      `json:"unkept"`          // segments in doubt that could not be kept, for want of room
	Unverified    uint64      `json:"unverified"`      // segments taken in spite of their checksum: their sender has sent no good one
	Superseded    uint64      `json:"superseded"`      // flows on a five-tuple that gave way to others on the same
	Gaps          uint64      `json:"gaps"`            // holes given up
	GapBytes      uint64      `json:"gap_bytes"`       // their length
	CutBytes      uint64      `json:"cut_bytes"`       // payload that the snaplen cut off
	Padding       uint64      `json:"padding"`         // bare acknowledgements with padding for a payload
	HeldLimit     uint64      `json:"held_limit"`      // holes given up because too much was held
	Forged        ForgedStats `json:"forged"`          // packets that an endpoint ignores
	Panics        uint64      `json:"parser_failures"` // flows given up because a parser failed on them, and failures to match or encode a handshake
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Flows += o.Flows
	s.Embryonic += o.Embryonic
	s.Undecided += o.Undecided
	s.Decided += o.Decided
	s.Open += o.Open
	s.Expired += o.Expired
	s.EvictedUndecided += o.EvictedUndecided
	s.EvictedDecided += o.EvictedDecided
	s.EvictedEmbryonic += o.EvictedEmbryonic
	s.Resets += o.Resets
	s.Reused += o.Reused
	s.Retransmitted += o.Retransmitted
	s.OutOfOrder += o.OutOfOrder
	s.Overlapping += o.Overlapping
	s.Untried += o.Untried
	s.Untold += o.Untold
	s.Unkept += o.Unkept
	s.Unverified += o.Unverified
	s.Superseded += o.Superseded
	s.Forged.Add(o.Forged)
	s.Gaps += o.Gaps
	s.GapBytes += o.GapBytes
	s.CutBytes += o.CutBytes
	s.Padding += o.Padding
	s.HeldLimit += o.HeldLimit
	s.Panics += o.Panics
}

// parser is what a tracker feeds: *parsers.Parser, but in tests.
type parser interface {
	Open(*event.Flow) *parsers.Conn
	Segment(*parsers.Conn, event.Direction, event.Moment, []byte) parsers.Verdict
	Join(*parsers.Conn, event.Direction)
	Late(*parsers.Conn, event.Direction, event.Moment, []byte) parsers.Verdict
	Gap(*parsers.Conn, event.Direction, event.Moment, int) parsers.Verdict
	Datagram(*parsers.Conn, event.Direction, event.Moment, []byte) parsers.Verdict
	Alternative(*parsers.Conn) *parsers.Conn
	Forged(*parsers.Conn, event.Forged)
	Close(*parsers.Conn, event.Loss)
}

// Tracker owns the flows of one shard.
type Tracker struct {
	// Shunter is asked to withhold the flows that are decided and go on; nil
	// where that is not possible. It is set before the first packet.
	Shunter capture.Shunter

	parser       parser
	limits       Limits
	table        table
	now          int64         // the highest flow time
	reassemblies []*reassembly // 0 stays unused
	spare        []uint32      // free numbers in reassemblies
	idle         []*reassembly // to use again
	used         int           // reassemblies in use
	pages        pages
	buffers      buffers    // of transcripts
	aside        buffers    // of segments in doubt
	holes        []hole     // in the order of their time
	patient      []hole     // the same, of those that a retransmission may still fill
	flow         event.Flow // scratch of eventFlow
	touched      uint32     // so that the compiler keeps what Touch reads
	stats        Stats
	failure      *Failure // the first

	contested  bool // by segment: other bytes came for the same place before
	unverified bool // the packet at hand has a bad checksum, and was taken
}

// hole refers to a direction of a flow in which bytes are missing.
type hole struct {
	slot, serial uint32
	d            event.Direction
}

// NewTracker returns a tracker that feeds parser. Several trackers may share a
// parser, when one goroutine runs them all.
func NewTracker(parser *parsers.Parser, limits Limits) *Tracker {
	return &Tracker{parser: parser.Shard(limits.Parsing), limits: limits, table: newTable(), reassemblies: make([]*reassembly, 1)}
}

// Stats returns the counters so far.
func (t *Tracker) Stats() Stats {
	s := t.stats
	s.Open = uint64(t.table.length)
	return s
}

// Touch brings into the processor's cache what Packet will look up for p, and
// changes nothing else. Look-ups in a large table wait for memory: those of
// several packets that are touched before the first of them is tracked wait
// together.
func (t *Tracker) Touch(p *decode.Packet) {
	if i := *t.table.bucket(p.Hash); i != 0 {
		t.touched = t.table.at(i).key.Stack
	}
}

// Packet takes the next packet of the shard that is not idle. It is borrowed
// until the return.
func (t *Tracker) Packet(p *decode.Packet, origin *event.Origin) {
	t.now = max(t.now, p.Frame.Clock)
	if p.Transport != event.TCP {
		t.datagram(p, origin)
		return
	}
	if p.Flags&(decode.FlagSYN|decode.FlagRST) == decode.FlagSYN {
		t.tcp(t.syn(p), p, origin)
		return
	}
	i := t.lookup(p)
	if i != 0 {
		if e := t.table.at(i); e.state == decided && p.Flags&decode.FlagsControl == 0 {
			e.last = t.now
			if t.Shunter != nil {
				t.shunt(e, p)
			}
			return
		}
	} else {
		if len(p.Payload)+p.Missing == 0 || p.Flags&decode.FlagRST != 0 {
			return // the end of what was not seen
		}
		if p.Flags&decode.FlagACK == 0 {
			t.stats.Forged.ACK++
			return
		}
		i = t.open(p)
	}
	t.tcp(i, p, origin)
}

// tcp takes a segment of the flow i; 0 is of none.
func (t *Tracker) tcp(i uint32, p *decode.Packet, origin *event.Origin) {
	if i == 0 {
		return
	}
	e := t.table.at(i)
	e.last = t.now
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
	if e.reassembly == 0 && e.bits&spoke != 0 { // it is over
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
	expected := e.reassembly != 0 && t.reassemblies[e.reassembly].expects(d, p)
	var v verdict
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
	if v != accepted {
		if kind == event.ForgedData && p.Flags&decode.FlagFIN != 0 && payload == 0 {
			kind = event.ForgedFIN
		}
		if v == refused || payload == 0 || e.reassembly == 0 && far {
			t.forged(e, kind)
		}
	}
	if payload > 0 && v != refused {
		if e.reassembly == 0 {
			if v == doubted && far {
				return // nothing to compare it with, and the beginning is known
			}
			t.reassemblyOf(i, p, origin)
		}
		g := segment{seq, uint32(p.Missing), moment(p), p.Payload, isPadding(p)}
		if v == accepted {
			if e.state == reset {
				t.table.move(i, undecided)
			}
			if e.bits&(unverified<<d) != 0 && was == 0 && e.bits&(verified<<d) != 0 {
				t.discredit(i, d, &g)
			}
			s := &t.reassemblies[e.reassembly].streams[d]
			s.farRun = 0
			if stamp, ok := p.Timestamp(); ok && (!s.started || distance(s.next, seq) <= 0) {
				s.stamped, s.stamp = true, stamp
			}
			t.accept(i, d, &g)
		} else {
			t.setAside(i, d, g, p.Ack, kind, far)
		}
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
	for t.pages.used > t.limits.Held && t.relieve() {
	}
}

// isNew reports whether a segment of direction d is no repetition, whose
// acknowledgement nobody looks at (RFC 9293, section 3.10.7.4).
func (t *Tracker) isNew(e *entry, d event.Direction, seq uint32, payload int) bool {
	s := t.stream(e, d)
	next, ok := e.reference(d, s)
	ahead := distance(next, seq)
	return !ok || ahead >= 0 || ahead+payload > 0
}

// acknowledged notes what a segment acknowledges of direction d.
func (t *Tracker) acknowledged(e *entry, d event.Direction, ack uint32) {
	if e.bits&((baseKnown|baseGuess)<<d) == 0 {
		e.base[d] = ack
		e.bits |= baseGuess << d
	}
	if s := t.stream(e, d); s != nil && (!s.hasAcked || distance(s.acked, ack) > 0) {
		s.acked, s.hasAcked = ack, true
	}
}

// accept hands on a payload that the endpoint takes, to the flow and to its
// alternative.
func (t *Tracker) accept(i uint32, d event.Direction, g *segment) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	t.contested = false
	if t.guard(r, func() parsers.Verdict { return t.segment(r, d, g) }) == parsers.Decided {
		r.done = true
	}
	if t.contested {
		t.forged(e, event.ForgedConflict)
		if r.alternative == nil {
			t.offer(e, r, t.alternative(r, d, g, false))
		}
	}
	if a := r.alternative; a != nil && !a.done {
		t.contested = false
		if t.guard(a, func() parsers.Verdict { return t.segment(a, d, g) }) == parsers.Decided {
			a.done = true
		}
		if t.contested {
			t.offer(e, r, t.alternative(a, d, g, false))
		}
	}
	if s := &r.streams[d]; s.fin && distance(s.end, s.next) > 0 {
		s.fin = false
		t.forged(e, event.ForgedFIN)
	}
	if r.done {
		t.conclude(r)
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
	t.parser.Forged(a.conn, e.forged)
}

// discredit tells the flow again without what came before the first good
// checksum of direction d: g is the segment that has it.
func (t *Tracker) discredit(i uint32, d event.Direction, g *segment) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	t.forged(e, event.ForgedChecksum)
	if r.alternative == nil {
		t.offer(e, r, t.alternative(r, d, g, true))
	}
}

// conclude decides a flow whose parser wants no more, when nothing speaks
// against it: that a flow is no TLS, or that its handshake has failed, may be what
// forged segments say, which those of the endpoints follow.
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

// resets reports whether a RST ends the flow e (RFC 5961, section 3.2; RFC 9293,
// section 3.10.7.3): another number than the next is not taken.
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

// shuntAfter is how many packets a flow must have after its handshake before
// the kernel is asked to withhold it, with each one that still comes. Asking
// costs as much as reading some tens of packets, and most flows are over by then.
const shuntAfter = 8

// shunt asks for the frames of e, of which p is a packet that says nothing more,
// not to come any more. The flow then expires here as if it were silent. When
// it comes again, because the kernel has forgotten it, it is a flow whose
// beginning was not seen, and decided anew.
func (t *Tracker) shunt(e *entry, p *decode.Packet) {
	if e.since < shuntAfter-1 {
		e.since++
		return
	}
	// The kernel knows nothing of tunnels, and tells flows apart by all their
	// tags. Another flow on the five-tuple may be undecided.
	if p.Tunnelled() || e.bits&twin != 0 || !e.sameTags() {
		return
	}
	e.shunt = t.Shunter.Shunt(p.ShuntKey(), p.Frame.Time, e.shunt)
}

// moment is when and where p was captured.
func moment(p *decode.Packet) event.Moment {
	return event.Moment{Time: p.Frame.Time, Frame: p.Frame.Number}
}

// direction is the way that p goes in the flow e.
func (e *entry) direction(p *decode.Packet) event.Direction {
	if p.Swapped != (e.bits&fromHigh != 0) {
		return 1
	}
	return 0
}

// evict makes room: what is worth least goes first.
func (t *Tracker) evict() {
	for _, s := range [...]state{closed, embryonic, aborted, reset, decided, established, resting, undecided} {
		i := t.table.queues[s].head
		for s == embryonic && i != 0 && t.table.at(i).answered() {
			t.table.move(i, established)
			i = t.table.queues[s].head
		}
		if i == 0 {
			continue
		}
		t.evicted(i)
		return
	}
}

// evicted closes a flow that gives way.
func (t *Tracker) evicted(i uint32) {
	switch e := t.table.at(i); {
	case e.state == embryonic, e.state == established:
		t.stats.EvictedEmbryonic++
	case e.state == resting, e.reassembly == 0:
		t.stats.EvictedDecided++
	case t.now-e.last >= timeoutHandshakeIdle:
		t.stats.Expired++ // it was over, though nobody said so
		t.close(i, event.EndOfInput)
		return
	default:
		t.stats.EvictedUndecided++
	}
	t.close(i, event.Evicted)
}

// evictUndecided makes room for another reassembly: that of a flow that was
// reset, or that is decided, or else of the one that has waited longest.
func (t *Tracker) evictUndecided() {
	for _, s := range [...]state{reset, resting, undecided} {
		if i := t.table.queues[s].head; i != 0 {
			t.evicted(i)
			return
		}
	}
}

// reassemblyOf returns the reassembly of a flow that is not decided, and makes it
// with the first payload.
func (t *Tracker) reassemblyOf(i uint32, p *decode.Packet, origin *event.Origin) *reassembly {
	e := t.table.at(i)
	if e.reassembly != 0 {
		return t.reassemblies[e.reassembly]
	}
	if t.used >= t.limits.Undecided {
		t.evictUndecided()
	}
	if n := len(t.spare); n > 0 {
		e.reassembly = t.spare[n-1]
		t.spare = t.spare[:n-1]
	} else {
		e.reassembly = uint32(len(t.reassemblies))
		t.reassemblies = append(t.reassemblies, nil)
	}
	r := t.newReassembly(i)
	t.reassemblies[e.reassembly] = r
	r.conn = t.parser.Open(t.eventFlow(e, p, origin))
	e.bits |= spoke
	if e.forged != 0 {
		t.tellForged(e, r)
	}
	t.table.move(i, undecided)
	return r
}

// newReassembly returns an empty reassembly of the flow i.
func (t *Tracker) newReassembly(i uint32) *reassembly {
	t.used++
	if n := len(t.idle); n > 0 {
		r := t.idle[n-1]
		t.idle = t.idle[:n-1]
		r.flow = i
		return r
	}
	return &reassembly{flow: i}
}

// drop ends a reassembly, and gives back all that it had.
func (t *Tracker) drop(r *reassembly, cause event.Loss) {
	t.guard(r, func() parsers.Verdict {
		t.parser.Close(r.conn, cause)
		return parsers.Decided
	})
	var held [2]window
	var aside [2][]doubt
	for d := range r.streams {
		s := &r.streams[d]
		if s.held.lists > 0 {
			s.held.reset(&t.pages)
		}
		for len(s.aside) > 0 {
			*t.stats.Forged.of(s.aside[0].kind)++
			t.dropAside(s, 0)
		}
		held[d], aside[d] = s.held, s.aside
	}
	r.log.free(t)
	*r = reassembly{log: transcript{deliveries: r.log.deliveries}}
	for d := range r.streams {
		r.streams[d].held.pages, r.streams[d].held.cuts, r.streams[d].aside = held[d].pages, held[d].cuts, aside[d]
	}
	t.used--
	if len(t.idle) < limitIdle {
		t.idle = append(t.idle, r)
	}
}

// eventFlow makes what handshakes say of the flow e, of which p is the first
// packet with payload: the tunnels are those of that packet, though others of
// the flow may come through others.
func (t *Tracker) eventFlow(e *entry, p *decode.Packet, origin *event.Origin) *event.Flow {
	a, b := e.key.Endpoints()
	if e.bits&fromHigh != 0 {
		a, b = b, a
	}
	f := &t.flow
	*f = event.Flow{Transport: e.key.Transport(), Start: e.start, Origin: origin}
	f.VLANs, f.VLANCount = t.vlans(p).IDs()
	f.Endpoints = [2]event.Endpoint{{Addr: a.Addr(), Port: a.Port()}, {Addr: b.Addr(), Port: b.Port()}}
	f.Tunnel = p.Tunnels()
	d := e.direction(p)
	if p.SrcMAC != nil {
		f.Endpoints[d].MAC = *p.SrcMAC
	}
	if p.DstMAC != nil {
		f.Endpoints[d.Other()].MAC = *p.DstMAC
	}
	if f.Transport == event.EAPOL { // the frame may have been for a group
		from := e.bits & fromHigh
		f.Endpoints[from].MAC, f.Endpoints[from^1].MAC = e.key.MACs()
	}
	return f
}

// decide ends the parsing of a flow whose handshake the parser has emitted, or
// that is no TLS.
func (t *Tracker) decide(i uint32) {
	t.stats.Decided++
	t.finish(i, event.NoLoss)
	t.table.move(i, decided)
	if e := t.table.at(i); e.bits&twin != 0 {
		t.supersede(i)
	}
}

// finish closes the protocol state of a flow, and gives back all that the flow
// needed while it was undecided.
func (t *Tracker) finish(i uint32, cause event.Loss) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	a := r.alternative
	t.drop(r, cause)
	if a != nil {
		t.drop(a, cause) // after r: it is emitted where it has another chain
	}
	t.reassemblies[e.reassembly] = nil
	t.spare = append(t.spare, e.reassembly)
	e.reassembly = 0
}

// fin notes the end of one direction; when both have ended the flow is closed.
func (t *Tracker) fin(i uint32, d event.Direction, end uint32) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	for ; r != nil; r = r.alternative {
		s := &r.streams[d]
		s.fin, s.end = true, end
		if !s.started {
			// What comes late is still between the beginning and the end.
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

// close ends a flow, whatever state it is in: what was held beyond holes, and
// what was in doubt, is delivered first.
func (t *Tracker) close(i uint32, cause event.Loss) {
	e := t.table.at(i)
	if e.bits&spoke == 0 {
		t.stats.Embryonic++
		if e.bits&twin != 0 {
			t.unfollowed(i)
		}
	}
	if e.reassembly != 0 {
		t.exhaust(i)
	}
	if e.reassembly != 0 { // it may have been decided
		r := t.reassemblies[e.reassembly]
		if r.done || e.state == resting {
			t.stats.Decided++
			cause = event.NoLoss
		} else {
			t.stats.Undecided++
		}
		t.finish(i, cause)
	}
	t.forget(i)
}

// exhaust delivers all that is kept of a flow.
func (t *Tracker) exhaust(i uint32) {
	e := t.table.at(i)
	for d := range event.Direction(2) {
		for e.reassembly != 0 {
			r := t.reassemblies[e.reassembly]
			n := slices.IndexFunc(r.streams[d].aside, func(a doubt) bool { return t.mayBeReal(e, d, &a) })
			if n < 0 {
				break
			}
			t.takeAside(i, r, d, n)
		}
		if e.reassembly == 0 {
			return
		}
		r := t.reassemblies[e.reassembly]
		t.each(r, func(r *reassembly) parsers.Verdict {
			for !r.streams[d].held.empty() && !r.done {
				if t.skip(r, d, r.streams[d].last) == parsers.Decided {
					return parsers.Decided
				}
			}
			return parsers.More
		})
		for e.reassembly != 0 && !t.reassemblies[e.reassembly].done && r.streams[d].farRun >= farRunAtEnd && len(r.streams[d].aside) > 0 {
			t.takeAside(i, t.reassemblies[e.reassembly], d, 0)
		}
	}
}

// each calls f for a reassembly and its alternative, as long as their parsers
// want more.
func (t *Tracker) each(r *reassembly, f func(*reassembly) parsers.Verdict) {
	for ; r != nil; r = r.alternative {
		if !r.done && t.guard(r, func() parsers.Verdict { return f(r) }) == parsers.Decided {
			r.done = true
		}
	}
}

// guard calls a parser for r, and gives the one flow up that it fails on. Tests
// run without that net.
func (t *Tracker) guard(r *reassembly, parse func() parsers.Verdict) (v parsers.Verdict) {
	if !t.limits.noRecover {
		defer func() {
			if cause := recover(); cause != nil {
				t.stats.Panics++
				if t.failure == nil {
					t.failure = NewFailure(cause, t.table.at(r.flow).key.String())
				}
				v = parsers.Decided
			}
		}()
	}
	return parse()
}

// Failure returns the first panic of the parser, nil where there was none.
// Stats.Panics counts them all.
func (t *Tracker) Failure() *Failure { return t.failure }

// datagram takes a UDP payload, or an EAP packet, that looks like a handshake or
// the encrypted part of one, or is of a flow that is followed.
func (t *Tracker) datagram(p *decode.Packet, origin *event.Origin) {
	i := t.lookup(p)
	// Encrypted records are of use to a handshake that is under way alone.
	if p.Kind == decode.Encrypted && (i == 0 || t.table.at(i).state != undecided) {
		return
	}
	if i == 0 {
		if p.Kind != decode.Handshake {
			return
		}
		i = t.open(p)
	}
	e := t.table.at(i)
	e.last = t.now
	d := e.direction(p)
	e.tag(d, t.vlans(p))
	// A five-tuple of UDP has no end: the state stays, and a new hello begins a
	// new handshake.
	was := e.state
	if was == resting && (p.Kind != decode.Handshake || !parsers.Starts(p.Payload)) {
		return
	}
	if p.Transport == event.UDP && t.verified(e, d, p) != accepted {
		t.forged(e, event.ForgedChecksum)
		return
	}
	r := t.reassemblyOf(i, p, origin)
	v := t.guard(r, func() parsers.Verdict { return t.parser.Datagram(r.conn, d, moment(p), p.Payload) })
	switch {
	case v == parsers.Decided && was != resting:
		t.table.move(i, resting)
	case v != parsers.Decided && was == resting:
		t.table.move(i, undecided)
	}
}

// Tick moves the flow time of the shard to now, and ends what has waited too long.
func (t *Tracker) Tick(now int64) {
	t.now = max(t.now, now)
	if t.limits.Live {
		t.expireHoles(now)
	}
	for s, timeout := range t.timeouts() {
		for {
			i := t.table.expired(state(s), now-timeout)
			if i == 0 {
				break
			}
			switch e := t.table.at(i); {
			case state(s) == embryonic && e.answered():
				t.table.move(i, established)
				continue
			case state(s) == undecided:
				t.stats.Expired++
			}
			t.close(i, event.EndOfInput)
		}
	}
}

// timeouts returns how long a flow may be silent in each state.
func (t *Tracker) timeouts() [states]int64 {
	timeouts := [states]int64{
		embryonic:   timeoutEmbryonic,
		established: timeoutHandshake,
		undecided:   timeoutHandshake,
		decided:     timeoutDecided,
		resting:     timeoutDecided,
		closed:      timeoutClosed,
		reset:       timeoutReset,
		aborted:     timeoutReset,
	}
	if t.limits.Live {
		timeouts[established], timeouts[undecided] = timeoutHandshakeLive, timeoutHandshakeLive
	}
	return timeouts
}

// Close ends all flows. The tracker is then as new, but for its counters.
func (t *Tracker) Close() {
	for c := range t.table.queues {
		for i := t.table.queues[c].head; i != 0; i = t.table.queues[c].head {
			t.close(i, event.EndOfInput)
		}
	}
	t.holes, t.patient, t.now = nil, nil, 0
}
