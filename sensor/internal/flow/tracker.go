// Package flow turns frames into flows: it decodes them, keeps the table of
// flows, puts TCP segments in order, and hands the bytes to the parsers.
//
// A [Decoder] makes packets of frames; a [Tracker] owns the flows of one shard.
// Nothing here is safe for concurrent use, and nothing needs a lock: the
// packets of a flow, both ways, go to one shard.
package flow

import (
	"hash/maphash"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// Limits bounds what one tracker holds.
type Limits struct {
	Flows int // in the table
	// Undecided flows with payload, each with state in the parser. Stops a
	// flood of hellos that nobody answers.
	Undecided int
	Held      int // bytes of segments beyond holes, over all flows
	Parsing   int // bytes that the parser holds for all flows: see [parsers.Limits]

	noRecover bool // tests want to see a parser fail
}

// DefaultLimits are those of a whole sensor.
var DefaultLimits = Limits{Flows: 1 << 20, Undecided: 1 << 16, Held: 64 << 20, Parsing: 128 << 20}

// Share returns the limits of one of n trackers that share l.
func (l Limits) Share(n int) Limits {
	return Limits{max(l.Flows/n, 1), max(l.Undecided/n, 1), max(l.Held/n, pageSize), max(l.Parsing/n, 1), l.noRecover}
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

	Retransmitted uint64 `json:"retransmitted"`   // segments with bytes delivered before
	OutOfOrder    uint64 `json:"out_of_order"`    // segments held
	Overlapping   uint64 `json:"overlapping"`     // held segments that overlapped others
	Conflicting   uint64 `json:"conflicting"`     // segments that repeated bytes with other content; the first copy won
	OutOfWindow   uint64 `json:"out_of_window"`   // segments too far from where the stream was
	Gaps          uint64 `json:"gaps"`            // holes given up
	GapBytes      uint64 `json:"gap_bytes"`       // their length
	CutBytes      uint64 `json:"cut_bytes"`       // payload that the snaplen cut off
	Padding       uint64 `json:"padding"`         // bare acknowledgements with padding for a payload
	HeldLimit     uint64 `json:"held_limit"`      // holes given up because too much was held
	Panics        uint64 `json:"parser_failures"` // flows dropped because a parser failed on them, and failures to match or encode a handshake
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
	s.Conflicting += o.Conflicting
	s.OutOfWindow += o.OutOfWindow
	s.Gaps += o.Gaps
	s.GapBytes += o.GapBytes
	s.CutBytes += o.CutBytes
	s.Padding += o.Padding
	s.HeldLimit += o.HeldLimit
	s.Panics += o.Panics
}

// parser is what a tracker feeds: *parsers.Parser, but in tests.
type parser interface {
	Open(*parsers.Flow) *parsers.Conn
	Segment(*parsers.Conn, parsers.Direction, parsers.Moment, []byte) parsers.Verdict
	Join(*parsers.Conn, parsers.Direction)
	Late(*parsers.Conn, parsers.Direction, parsers.Moment, []byte) parsers.Verdict
	Gap(*parsers.Conn, parsers.Direction, parsers.Moment, int) parsers.Verdict
	Datagram(*parsers.Conn, parsers.Direction, parsers.Moment, []byte) parsers.Verdict
	Close(*parsers.Conn, parsers.Loss)
}

// Tracker owns the flows of one shard.
type Tracker struct {
	// Shunter is asked to withhold the flows that are decided and go on; nil
	// where that is not possible. It is set before the first packet.
	Shunter capture.Shunter

	parser parser
	limits Limits
	table  table
	pairs  []pair // 0 stays unused
	spare  []uint32
	pages  pages
	held   int
	holes  []hole       // in the order of their time
	flow   parsers.Flow // scratch of describe
	stats  Stats
	seed   maphash.Seed
}

// hole refers to a direction of a flow in which bytes are missing.
type hole struct {
	slot, serial uint32
	d            parsers.Direction
}

// NewTracker returns a tracker that feeds parser. Several trackers may share a
// parser, when one goroutine runs them all.
func NewTracker(parser *parsers.Parser, limits Limits) *Tracker {
	return &Tracker{parser: parser.Shard(limits.Parsing), limits: limits, table: newTable(), pairs: make([]pair, 1), seed: maphash.MakeSeed()}
}

// Stats returns the counters so far.
func (t *Tracker) Stats() Stats {
	s := t.stats
	s.Open = uint64(t.table.length)
	return s
}

// Touch brings near what Packet will look up for p, and changes nothing but p.
// Look-ups in a large table wait for memory: those of several packets that are
// touched before the first of them is tracked wait together.
func (t *Tracker) Touch(p *Packet) {
	if i := *t.table.bucket(p.hash); i != 0 {
		p.near = t.table.at(i).key.rest
	}
}

// Packet takes the next packet of the shard that is not idle. It is borrowed
// until the return.
func (t *Tracker) Packet(p *Packet, origin *parsers.Origin) {
	if p.Transport != parsers.TCP {
		t.datagram(p, origin)
		return
	}
	payload := len(p.Payload) + p.Missing
	i := t.table.find(&p.Key, p.hash)
	if i != 0 && t.table.at(i).class == decided && p.Flags&flagsOfNote == 0 {
		e := t.table.at(i)
		e.last = max(e.last, p.Frame.Time)
		if t.Shunter != nil && p.tunnels[0] == noTunnel {
			t.shunt(e, p)
		}
		return
	}
	if i == 0 {
		if p.Flags&flagSYN == 0 && payload == 0 {
			return // the end of what was not seen
		}
		i = t.open(p)
	} else if p.Flags&flagSYN != 0 && t.isReuse(i, p) {
		t.stats.Reused++
		t.close(i, parsers.EndOfInput)
		i = t.open(p)
	}
	e := t.table.at(i)
	e.last = max(e.last, p.Frame.Time)
	d := e.direction(p)

	seq := p.Seq
	if p.Flags&flagSYN != 0 {
		seq++
		if e.bits&(baseKnown<<d) == 0 {
			e.base[d] = seq
			e.bits |= baseKnown << d
			if e.pair != 0 {
				if s := &t.pairs[e.pair].streams[d]; s.started && !s.delivered() {
					s.next = seq
				}
			}
		}
	}
	if o := d.Other(); p.Flags&(flagACK|flagRST) == flagACK && e.bits&((baseKnown|baseGuess)<<o) == 0 {
		e.base[o] = p.Ack
		e.bits |= baseGuess << o
	}
	if payload > 0 && (e.pair != 0 || e.bits&spoke == 0) {
		pr := t.undecided(i, p, origin)
		if t.guard(func() parsers.Verdict { return t.segment(i, pr, d, p, seq, moment(p)) }) == parsers.Decided {
			t.decide(i)
		}
		e = t.table.at(i)
	}
	switch {
	case p.Flags&flagRST != 0:
		if e.class != reset {
			t.stats.Resets++
			t.table.move(i, reset)
		}
	case p.Flags&flagFIN != 0:
		if isPadding(p) {
			payload = 0
		}
		t.fin(i, d, seq+uint32(payload))
	case e.class == closed && t.Shunter != nil:
		t.shunt(e, p) // one direction may go on for long
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
func (t *Tracker) shunt(e *entry, p *Packet) {
	if e.over < shuntAfter-1 {
		e.over++
		return
	}
	e.shunt = t.Shunter.Shunt(e.key.Shunt(), p.Frame.Time, e.shunt)
}

// moment is when and where p was captured.
func moment(p *Packet) parsers.Moment {
	return parsers.Moment{Time: p.Frame.Time, Frame: p.Frame.Number}
}

// direction is the way that p goes in the flow e.
func (e *entry) direction(p *Packet) parsers.Direction {
	if p.Swapped != (e.bits&fromB != 0) {
		return 1
	}
	return 0
}

// open makes an entry for the flow of p.
func (t *Tracker) open(p *Packet) uint32 {
	for t.table.length >= t.limits.Flows {
		t.evict()
	}
	i := t.table.insert(&p.Key, p.hash, p.Frame.Time)
	t.stats.Flows++
	// The answer to a SYN goes against the direction of the flow.
	if p.Swapped != (p.Flags&(flagSYN|flagACK) == flagSYN|flagACK) {
		t.table.at(i).bits |= fromB
	}
	return i
}

// evict makes room: what is worth least goes first.
func (t *Tracker) evict() {
	for _, c := range [...]class{closed, embryonic, reset, decided, settled, handshake} {
		i := t.table.queues[c].head
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
	case e.class == embryonic:
		t.stats.EvictedEmbryonic++
	case e.class == settled, e.pair == 0:
		t.stats.EvictedDecided++
	default:
		t.stats.EvictedUndecided++
	}
	t.close(i, parsers.Evicted)
}

// evictUndecided makes room for another flow with state: one that needs it no
// more, or else the one that has waited longest.
func (t *Tracker) evictUndecided() {
	for _, c := range [...]class{reset, settled, handshake} {
		for i := t.table.queues[c].head; i != 0; i = t.table.at(i).after {
			if t.table.at(i).pair != 0 {
				t.evicted(i)
				return
			}
		}
	}
}

// isReuse says whether a SYN, alone or with an ACK, begins another connection
// on the five-tuple of flow i.
func (t *Tracker) isReuse(i uint32, p *Packet) bool {
	e := t.table.at(i)
	d := e.direction(p)
	if e.bits&(baseKnown<<d) != 0 {
		return e.base[d] != p.Seq+1
	}
	if e.bits&(baseGuess<<d) != 0 {
		// The beginning was not seen. A SYN that comes late fits what was.
		off := distance(p.Seq+1, e.base[d])
		return off < 0 || off > limitHeldStream
	}
	return e.bits&spoke != 0
}

// undecided returns the state of a flow that is not decided, and makes it with
// the first payload.
func (t *Tracker) undecided(i uint32, p *Packet, origin *parsers.Origin) *pair {
	e := t.table.at(i)
	if e.pair != 0 {
		return &t.pairs[e.pair]
	}
	if used := len(t.pairs) - 1 - len(t.spare); used >= t.limits.Undecided {
		t.evictUndecided()
	}
	if n := len(t.spare); n > 0 {
		e.pair = t.spare[n-1]
		t.spare = t.spare[:n-1]
	} else {
		e.pair = uint32(len(t.pairs))
		t.pairs = append(t.pairs, pair{})
	}
	pr := &t.pairs[e.pair]
	pr.conn = t.parser.Open(t.describe(e, p, origin))
	e.bits |= spoke
	t.table.move(i, handshake)
	return pr
}

// describe makes what handshakes say of the flow e, of which p is the first
// packet with payload: the tunnels are those of that packet, though others of
// the flow may come through others.
func (t *Tracker) describe(e *entry, p *Packet, origin *parsers.Origin) *parsers.Flow {
	a, b := e.key.endpoints()
	if e.bits&fromB != 0 {
		a, b = b, a
	}
	f := &t.flow
	*f = parsers.Flow{Transport: e.key.transport(), Start: e.start, Origin: origin}
	f.VLANs, f.VLANCount = e.key.vlans()
	f.Endpoints = [2]parsers.Endpoint{{Addr: a.Addr(), Port: a.Port()}, {Addr: b.Addr(), Port: b.Port()}}
	f.Tunnel = p.tunnels.names()
	d := e.direction(p)
	if p.srcMAC != nil {
		f.Endpoints[d].MAC = *p.srcMAC
	}
	if p.dstMAC != nil {
		f.Endpoints[d.Other()].MAC = *p.dstMAC
	}
	if f.Transport == parsers.EAPOL { // the frame may have been for a group
		from := e.bits & fromB
		f.Endpoints[from].MAC, f.Endpoints[from^1].MAC = e.key.macs()
	}
	return f
}

// decide ends the parsing of a flow whose handshake the parser has emitted, or
// that is no TLS.
func (t *Tracker) decide(i uint32) {
	t.stats.Decided++
	t.finish(i, parsers.NoLoss)
	t.table.move(i, decided)
}

// finish closes the protocol state of a flow, and gives back all that the flow
// needed while it was undecided.
func (t *Tracker) finish(i uint32, cause parsers.Loss) {
	e := t.table.at(i)
	pr := &t.pairs[e.pair]
	t.guard(func() parsers.Verdict {
		t.parser.Close(pr.conn, cause)
		return parsers.Decided
	})
	for d := range pr.streams {
		s := &pr.streams[d]
		for _, g := range s.held {
			t.pages.put(g.data)
		}
		t.held -= s.bytes
		clear(s.held)
		*s = stream{held: s.held[:0]}
	}
	pr.conn = nil
	t.spare = append(t.spare, e.pair)
	e.pair = 0
}

// fin notes the end of one direction; when both have ended the flow is closed.
func (t *Tracker) fin(i uint32, d parsers.Direction, end uint32) {
	e := t.table.at(i)
	if e.pair == 0 {
		// Before the first payload, it may be on its way still.
		if e.class == decided {
			t.table.move(i, closed)
		}
		return
	}
	pr := &t.pairs[e.pair]
	s := &pr.streams[d]
	s.fin, s.end = true, end
	if !s.started {
		// What comes late is still between the beginning and the end.
		s.started, s.next = true, end
		if off := distance(e.base[d], end); e.bits&((baseKnown|baseGuess)<<d) != 0 && off > 0 && off <= limitHeldStream {
			s.next = e.base[d]
		}
	}
	for d := range pr.streams {
		s := &pr.streams[d]
		guessed := !s.delivered() && e.bits&(baseKnown<<d) == 0
		if !s.fin || distance(s.next, s.end) > 0 || guessed {
			return
		}
	}
	t.stats.Undecided++
	t.finish(i, parsers.EndOfInput)
	t.table.move(i, closed)
}

// close ends a flow, whatever state it is in: what was held beyond holes is
// delivered first.
func (t *Tracker) close(i uint32, cause parsers.Loss) {
	e := t.table.at(i)
	if e.bits&spoke == 0 {
		t.stats.Embryonic++
	}
	if e.pair != 0 {
		pr := &t.pairs[e.pair]
		v := t.guard(func() parsers.Verdict {
			for d := range pr.streams {
				for len(pr.streams[d].held) > 0 {
					at := pr.streams[d].held[0].at
					if t.skip(pr, parsers.Direction(d), at) == parsers.Decided {
						return parsers.Decided
					}
				}
			}
			return parsers.More
		})
		if v == parsers.Decided || e.class == settled {
			t.stats.Decided++
			cause = parsers.NoLoss
		} else {
			t.stats.Undecided++
		}
		t.finish(i, cause)
	}
	t.table.remove(i)
}

// guard calls a parser, and drops the one flow that it fails on. Tests run
// without the net.
func (t *Tracker) guard(parse func() parsers.Verdict) (v parsers.Verdict) {
	if !t.limits.noRecover {
		defer func() {
			if recover() != nil {
				t.stats.Panics++
				v = parsers.Decided
			}
		}()
	}
	return parse()
}

// datagram takes a UDP payload, or an EAP packet, that looks like a handshake or
// the encrypted part of one, or is of a flow that is followed.
func (t *Tracker) datagram(p *Packet, origin *parsers.Origin) {
	i := t.table.find(&p.Key, p.hash)
	// Encrypted records are of use to a handshake that is under way alone.
	if parsers.LooksSealed(p.Payload) && (i == 0 || t.table.at(i).class != handshake) && !parsers.Looks(p.Payload) {
		return
	}
	if i == 0 {
		if p.followed && !parsers.Looks(p.Payload) {
			return
		}
		i = t.open(p)
	}
	e := t.table.at(i)
	e.last = max(e.last, p.Frame.Time)
	// A five-tuple of UDP has no end: the state stays, and a new hello begins a
	// new handshake.
	was := e.class
	if was == settled && !parsers.Starts(p.Payload) {
		return
	}
	pr := t.undecided(i, p, origin)
	d := t.table.at(i).direction(p)
	v := t.guard(func() parsers.Verdict { return t.parser.Datagram(pr.conn, d, moment(p), p.Payload) })
	switch {
	case v == parsers.Decided && was != settled:
		t.table.move(i, settled)
	case v != parsers.Decided && was == settled:
		t.table.move(i, handshake)
	}
}

// Tick moves the time of the shard to now, and ends what has waited too long.
func (t *Tracker) Tick(now int64) {
	t.expireHoles(now)
	for c, timeout := range [classes]int64{
		embryonic: timeoutEmbryonic,
		handshake: timeoutHandshake,
		decided:   timeoutDecided,
		settled:   timeoutDecided,
		closed:    timeoutClosed,
		reset:     timeoutReset,
	} {
		for {
			i := t.table.expired(class(c), now-timeout)
			if i == 0 {
				break
			}
			if class(c) == handshake {
				t.stats.Expired++
			}
			t.close(i, parsers.EndOfInput)
		}
	}
}

// expireHoles gives up the holes that no retransmission has filled in time.
func (t *Tracker) expireHoles(now int64) {
	n := 0
	for _, h := range t.holes {
		e := t.table.at(h.slot)
		if e.serial != h.serial || e.pair == 0 {
			n++
			continue
		}
		pr := &t.pairs[e.pair]
		s := &pr.streams[h.d]
		if len(s.held) == 0 {
			n++
			continue
		}
		if now-s.hole < timeoutHole {
			break
		}
		n++
		v := t.guard(func() parsers.Verdict { return t.skip(pr, h.d, parsers.Moment{Time: now, Frame: s.held[0].at.Frame}) })
		if v == parsers.Decided {
			t.decide(h.slot)
		} else if len(s.held) > 0 {
			t.holes = append(t.holes, h)
		}
	}
	t.holes = append(t.holes[:0], t.holes[n:]...)
}

// Close ends all flows.
func (t *Tracker) Close() {
	for c := range t.table.queues {
		for i := t.table.queues[c].head; i != 0; i = t.table.queues[c].head {
			t.close(i, parsers.EndOfInput)
		}
	}
	t.holes = t.holes[:0]
}
