// Package flow turns packets into the bytes of flows: it keeps the table of
// flows, puts TCP segments in order, and hands the bytes to the parsers.
//
// A [Tracker] owns the flows of one shard. Nothing here is safe for concurrent
// use, and nothing needs a lock: the packets of a flow, both ways, go to one
// shard.
package flow

import (
	"net/netip"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Limits bounds what one tracker holds, and sets how it reads packets.
type Limits struct {
	Flows int // in the table; stops a flood of SYNs
	// Undecided flows with payload, each with state in the parser. Stops a
	// flood of hellos that nobody answers.
	Undecided   int
	Held        int // bytes that segments after holes take, of all flows
	Transcripts int // bytes of the transcripts of undecided flows, of all flows
	Parsing     int // bytes that the parser holds for all flows: see [parsers.Limits]
	Aside       int // bytes of segments kept aside, of all flows

	Checksums  Checksums
	IgnoreVLAN bool // packets with different VLAN tags may be of one flow
	Live       bool // somebody waits for the alert: holes are given up after some time

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

// conn is the state that a flow has in the parser: *parsers.Conn, except in
// tests.
type conn interface {
	Midstream(event.Direction)
	Segment(event.Direction, event.Moment, []byte) parsers.Status
	EarlierBytes(event.Direction, event.Moment, []byte) parsers.Status
	Gap(event.Direction, event.Moment, int) parsers.Status
	Datagram(event.Direction, event.Moment, []byte) parsers.Status
	Forged(event.Forged)
	Begun() bool
	Unproven() bool
	Close(event.Loss)
}

// parser opens the states of flows, and alternatives of them: a shard, except in
// tests.
type parser interface {
	Open(*event.Flow) conn
	Alternative(conn) conn
}

// shard is the parser of the flows of one tracker.
type shard struct{ *parsers.Shard }

func (s shard) Open(f *event.Flow) conn { return s.Shard.Open(f) }

func (shard) Alternative(c conn) conn { return c.(*parsers.Conn).Alternative() }

// Tracker owns the flows of one shard.
type Tracker struct {
	// Shunter is asked to withhold the flows that are decided and go on; nil
	// where that is not possible. It is set before the first packet.
	Shunter capture.Shunter
	// Contact is told of the first flow of a day that a server's port of OpenVPN has
	// answered; nil for nobody. It is set before the first packet.
	Contact func(event.Contact)

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
	holes        []hole     // those of each stream once, by and large in the order of their time
	patient      []hole     // likewise, those that a retransmission can still fill
	flow         event.Flow // scratch of eventFlow
	touched      uint32     // so that the compiler keeps what Touch reads
	slot         uint32     // the flow of the last packet, for Follow
	stats        Stats
	failure      *Failure                              // the first
	contacts     *generations.Cache[netip.Addr, int64] // by server: the day that was told; nil before the first

	contested  bool // set by segment: other bytes came for the same place before
	unverified bool // the packet at hand was accepted with a bad checksum
}

// hole is a direction of a flow in which bytes are missing.
type hole struct {
	slot, serial uint32
	d            event.Direction
	since        int64 // the flow time since which bytes are missing, when it was queued
}

// NewTracker returns a tracker that feeds parser. Several trackers may share a
// parser, when one goroutine runs them all.
func NewTracker(parser *parsers.Parser, limits Limits) *Tracker {
	return &Tracker{parser: shard{parser.Shard(limits.Parsing)}, limits: limits, table: newTable(), reassemblies: make([]*reassembly, 1)}
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

// Packet takes the next packet of the shard that is not idle. It borrows p and
// what p refers to until it returns.
func (t *Tracker) Packet(p *decode.Packet, origin *event.Origin) {
	t.now = max(t.now, p.Frame.Clock)
	if p.Transport != event.TCP {
		t.datagram(p, origin)
		return
	}
	if p.Flags&(decode.FlagSYN|decode.FlagRST) == decode.FlagSYN {
		i := t.syn(p)
		if p.SrcPort == event.PortOpenVPN && i != 0 && p.Flags&decode.FlagACK != 0 && t.table.at(i).answered() {
			t.contact(p)
		}
		t.tcp(i, p, origin)
		return
	}
	i := t.lookup(p)
	if i != 0 {
		if e := t.table.at(i); e.state == decided && p.Flags&decode.FlagsControl == 0 {
			e.last, t.slot = t.now, i
			if t.Shunter != nil {
				t.shunt(e, p)
			}
			return
		}
	} else {
		if len(p.Payload)+p.Missing == 0 || p.Flags&decode.FlagRST != 0 {
			return // the end of a connection that was not seen
		}
		if p.Flags&decode.FlagACK == 0 {
			t.stats.Forged.ACK++
			return
		}
		i = t.open(p)
	}
	t.tcp(i, p, origin)
}

// shuntAfter is how many packets of a flow come after it was decided until the
// kernel is asked to withhold it, and asked again with each later one. To ask
// costs as much as to read some tens of packets, and most flows are over by then.
const shuntAfter = 8

// shunt asks the kernel to withhold the frames of e, a decided flow of which p is a
// packet. The flow then expires here as if it were silent. If the kernel forgets it,
// its frames come again, as those of a flow whose beginning was not seen, and it is
// decided again.
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

// direction is the direction of p in the flow e.
func (e *entry) direction(p *decode.Packet) event.Direction {
	if p.Swapped != (e.bits&fromHigh != 0) {
		return 1
	}
	return 0
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
	e.bits |= hadPayload
	if e.forged != 0 {
		t.reportForged(e, r)
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

// drop ends a reassembly, and frees all that it held.
func (t *Tracker) drop(r *reassembly, cause event.Loss) {
	t.guard(r, func() parsers.Status {
		r.conn.Close(cause)
		return parsers.Done
	})
	var held [2]window
	var aside [2][]suspect
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

// eventFlow makes what handshakes say of the flow e. p is the first packet of e
// with a payload: the tunnels are those of p, though others of the flow may come
// through other tunnels.
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

// decide ends the parsing of a flow whose handshake the parser has emitted, or that
// is not TLS.
func (t *Tracker) decide(i uint32) {
	t.stats.Decided++
	t.finish(i, event.NoLoss)
	t.table.move(i, decided)
	if e := t.table.at(i); e.bits&twin != 0 {
		t.supersede(i)
	}
}

// finish ends the reassembly of a flow, and its alternative.
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

// close ends a flow in any state. It delivers what was held after holes or kept
// aside first.
func (t *Tracker) close(i uint32, cause event.Loss) {
	e := t.table.at(i)
	if e.bits&hadPayload == 0 {
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

// exhaust delivers all that is held of a flow.
func (t *Tracker) exhaust(i uint32) {
	e := t.table.at(i)
	for d := range event.Direction(2) {
		for e.reassembly != 0 {
			n := t.mayBeReal(e, d)
			if n < 0 {
				break
			}
			t.takeAside(i, t.reassemblies[e.reassembly], d, n)
		}
		if e.reassembly == 0 {
			return
		}
		r := t.reassemblies[e.reassembly]
		t.each(r, func(r *reassembly) parsers.Status {
			for !r.streams[d].held.empty() && !r.done {
				if t.skip(r, d, r.streams[d].last) == parsers.Done {
					return parsers.Done
				}
			}
			return parsers.NeedMore
		})
		for e.reassembly != 0 && !t.reassemblies[e.reassembly].done && r.streams[d].farRun >= farRunAtEnd && len(r.streams[d].aside) > 0 {
			t.takeAside(i, t.reassemblies[e.reassembly], d, 0)
		}
	}
}

// each calls f for a reassembly and its alternative, as long as their parsers
// want more.
func (t *Tracker) each(r *reassembly, f func(*reassembly) parsers.Status) {
	for ; r != nil; r = r.alternative {
		if !r.done && t.guard(r, func() parsers.Status { return f(r) }) == parsers.Done {
			r.done = true
		}
	}
}

// guard calls the parser for r. Where the parser panics, guard counts that and gives
// up this one flow. Tests run without guard, to see the panic.
func (t *Tracker) guard(r *reassembly, parse func() parsers.Status) (v parsers.Status) {
	if !t.limits.noRecover {
		defer func() {
			if cause := recover(); cause != nil {
				t.stats.Panics++
				if t.failure == nil {
					t.failure = NewFailure(cause, t.table.at(r.flow).key.String())
				}
				v = parsers.Done
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
	// Encrypted records are of use only while a handshake is under way.
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
	e.last, t.slot = t.now, i
	d := e.direction(p)
	e.tag(d, t.vlans(p))
	if p.SrcPort == event.PortOpenVPN && (d == 1 || p.DstPort != event.PortOpenVPN) && e.vlans[d.Other()]&vlansKnown != 0 {
		t.contact(p)
	}
	// A flow of datagrams has no end: the reassembly stays, and a new hello begins a
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
	v := t.guard(r, func() parsers.Status { return r.conn.Datagram(d, moment(p), p.Payload) })
	switch {
	case v == parsers.Done && was != resting:
		t.table.move(i, resting)
	case v != parsers.Done && was == resting:
		t.table.move(i, undecided)
	}
}

// Tick moves the flow time of the shard to now, in nanoseconds, and ends the flows
// and holes that have waited too long.
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

// Close ends all flows. The tracker is then as new, except for its counters.
func (t *Tracker) Close() {
	for c := range t.table.queues {
		for i := t.table.queues[c].head; i != 0; i = t.table.queues[c].head {
			t.close(i, event.EndOfInput)
		}
	}
	t.holes, t.patient, t.now, t.contacts = nil, nil, 0, nil
}
