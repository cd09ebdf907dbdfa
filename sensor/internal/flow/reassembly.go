package flow

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// stream is one direction of a TCP connection while its flow is undecided.
type stream struct {
	next      uint32 // sequence number of the next byte in order
	started   bool   // next is known
	fin       bool   // a FIN was seen
	midstream bool   // the capture began in the middle of it
	delivered bool   // bytes of it, or a gap in their place, went to the parser
	doubtful  uint8  // zero bytes at next that may be padding
	stamped   bool   // stamp is set
	waits     bool   // the hole here, or in the alternative, is in a queue of the tracker
	stamp     uint32 // the timestamp of the last segment in order (RFC 7323, section 4.3)
	hasAcked  bool
	acked     uint32       // what the other side has acknowledged; valid with hasAcked
	end       uint32       // sequence number of the FIN
	hole      int64        // the flow time since which the bytes at next are missing
	heldAt    int64        // the flow time at which the last packet was held
	held      window       // bytes after the hole at next
	last      event.Moment // of the last packet that was held
	urgent    []uint32     // sequence numbers of urgent bytes, not more than limitUrgent

	aside      []suspect // segments that an endpoint may have ignored
	asideBytes int
	farNext    uint32 // the end of the last segment that was far away
	farRun     int    // how many consecutive segments were far away
}

// reassembly is what a flow needs while it is undecided: the state of its parser
// and both of its streams.
type reassembly struct {
	conn    conn
	flow    uint32 // its slot in the table
	streams [2]stream
	log     transcript
	told    event.Forged // what the parser knows of forged packets
	done    bool         // the parser wants no more
	after   uint8        // segments since then

	// alternative is the same flow with the other copy, where different bytes came
	// for one place, or without its urgent bytes; nil where there is neither.
	// replaces is set in it.
	alternative *reassembly
	replaces    bool
	outOfBand   bool // urgent bytes are not of the stream
	reparsed    int  // bytes that were parsed again for alternatives, see transcript.cost
}

// segment is a payload with its place.
type segment struct {
	seq     uint32
	missing uint32 // bytes after data that the snaplen cut off
	at      event.Moment
	data    []byte // borrowed
	padding bool   // data may be the padding of a frame
}

// end is the sequence number after g.
func (g *segment) end() uint32 { return g.seq + uint32(len(g.data)) + g.missing }

// distance is b-a in the circle of sequence numbers (RFC 9293, section 3.4).
func distance(a, b uint32) int { return int(int32(b - a)) }

// stream returns direction d of the flow e; nil where nothing is kept of it.
func (t *Tracker) stream(e *entry, d event.Direction) *stream {
	if e.reassembly == 0 {
		return nil
	}
	return &t.reassemblies[e.reassembly].streams[d]
}

// start sets where the stream of direction d begins, with its first segment at
// seq.
func (t *Tracker) start(e *entry, r *reassembly, d event.Direction, seq uint32) {
	s := &r.streams[d]
	s.started = true
	s.next = seq
	known, guess := e.bits&(baseKnown<<d) != 0, e.bits&(baseGuess<<d) != 0
	// A guess may be wrong, and bytes before the first segment may still come.
	if off := distance(e.base[d], seq); known || guess && off > 0 && off <= limitHeldStream {
		s.next = e.base[d]
	} else if !known {
		e.base[d] = seq
		e.bits |= baseGuess << d
		guess = guess && off == 0
	}
	// A stream begins at what the answer to its SYN acknowledges, or at what is
	// acknowledged first after that. Without either, the capture began later.
	if !known && (!guess || e.bits&(baseKnown<<d.Other()) == 0) {
		s.midstream = true
		r.conn.Midstream(d)
	}
}

// restart moves the beginning of direction d to seq, where nothing of it was
// delivered: where it began was a guess. What is held is of the stream where it comes
// after seq, and not far from it.
func (t *Tracker) restart(r *reassembly, d event.Direction, seq uint32, at event.Moment) parsers.Status {
	s := &r.streams[d]
	if !s.started || s.delivered {
		return parsers.NeedMore
	}
	s.next = seq
	if s.held.empty() {
		return parsers.NeedMore
	}
	if off := distance(seq, s.held.high()); off <= 0 || off > limitWindow {
		s.held.reset(&t.pages)
		t.forged(t.table.at(r.flow), event.ForgedData)
		return parsers.NeedMore
	}
	s.held.advance(&t.pages, seq)
	return t.drain(r, d, at)
}

// segment takes a TCP payload that the endpoint takes too. Payloads come in any
// order, and go to the parser in that of the stream. Where other bytes came for the
// same place before, it sets t.contested.
func (t *Tracker) segment(r *reassembly, d event.Direction, g *segment) parsers.Status {
	s := &r.streams[d]
	e := t.table.at(r.flow)
	if !s.started {
		t.start(e, r, d, g.seq)
	}
	ahead := distance(s.next, g.seq)
	if ahead > limitWindow || ahead < -limitWindow { // an alternative is not where the other is
		if v := t.jump(r, d, g.seq, g.at); v == parsers.Done {
			return v
		}
		ahead = 0
	}
	if ahead == 0 && g.padding {
		// Some stacks count the padding of a short frame into the payload of a bare
		// acknowledgement, or of a SYN or FIN with one. If the next segment begins
		// here too, these bytes are padding; if it begins after them, they are of the
		// stream.
		s.doubtful = uint8(len(g.data))
		return parsers.NeedMore
	}
	if n := int(s.doubtful); n > 0 {
		s.doubtful = 0
		if ahead < n {
			t.count(r, &t.stats.Padding)
		} else {
			ahead -= n
			if v := t.deliver(r, d, zeros[:n], g.at); v == parsers.Done {
				return v
			}
			s.held.advance(&t.pages, s.next)
		}
	}
	if ahead < 0 && !s.delivered && e.bits&(baseKnown<<d) == 0 {
		s.next, e.base[d] = g.seq, g.seq // where it began was a guess, and too late
		ahead = 0
	}
	if ahead < 0 {
		t.count(r, &t.stats.Retransmitted)
		if early := min(distance(g.seq, e.base[d]), len(g.data)); s.midstream && early > 0 {
			r.log.stop(t) // it has no place for earlier bytes
			if !r.done {
				if v := r.conn.EarlierBytes(d, g.at, g.data[:early]); v == parsers.Done {
					return v
				}
			}
		} else if !r.log.agrees(d, g.seq, g.data) {
			t.contested = true
		}
		if -ahead >= len(g.data) {
			return parsers.NeedMore
		}
		rest := *g // the alternative gets g as well
		rest.data, rest.seq = g.data[-ahead:], s.next
		g = &rest
	}
	if s.held.empty() && ahead <= 0 {
		return t.take(r, d, g)
	}
	return t.hold(r, d, g)
}

// count counts what happened to a segment, but not for the alternative, which gets
// the same segment.
func (t *Tracker) count(r *reassembly, n *uint64) {
	if !r.replaces {
		*n++
	}
}

// zeros is the longest padding that a bare acknowledgement can have in the
// shortest Ethernet frame.
var zeros [6]byte

// isPadding reports whether the payload of p may be the padding of a frame.
func isPadding(p *decode.Packet) bool {
	return p.Flags&^(decode.FlagSYN|decode.FlagFIN) == decode.FlagACK && p.Missing == 0 && len(p.Payload) <= len(zeros) && bytes.Equal(p.Payload, zeros[:len(p.Payload)])
}

// take hands g, which is next, to the parser.
func (t *Tracker) take(r *reassembly, d event.Direction, g *segment) parsers.Status {
	v := parsers.NeedMore
	if len(g.data) > 0 {
		v = t.deliver(r, d, g.data, g.at)
	}
	if g.missing > 0 && v == parsers.NeedMore {
		v = t.pass(r, d, g.missing, g.at)
	}
	return v
}

// pass reports a gap to the parser: n bytes that the snaplen cut off.
func (t *Tracker) pass(r *reassembly, d event.Direction, n uint32, at event.Moment) parsers.Status {
	if !r.replaces {
		t.stats.CutBytes += uint64(n)
	}
	r.streams[d].next += n
	r.streams[d].delivered = true
	r.log.stop(t)
	if r.done {
		return parsers.NeedMore
	}
	return r.conn.Gap(d, at, int(n))
}

// deliver hands the next bytes in order to the parser.
func (t *Tracker) deliver(r *reassembly, d event.Direction, data []byte, at event.Moment) parsers.Status {
	s := &r.streams[d]
	r.log.add(t, d, s.next, data, at)
	s.next += uint32(len(data))
	s.delivered = true
	if r.done {
		return parsers.NeedMore
	}
	if r.outOfBand {
		if data = s.withoutUrgent(s.next-uint32(len(data)), data); len(data) == 0 {
			return parsers.NeedMore
		}
	}
	return r.conn.Segment(d, at, data)
}

// drain delivers what was held and is now in order. at is the moment of the packet
// that filled the hole, since that packet completed the bytes.
func (t *Tracker) drain(r *reassembly, d event.Direction, at event.Moment) parsers.Status {
	s := &r.streams[d]
	from := s.next
	v := parsers.NeedMore
	for v == parsers.NeedMore {
		if b := s.held.run(s.next); b != nil {
			v = t.deliver(r, d, b, at)
		} else if n := s.held.cut(s.next); n > 0 {
			v = t.pass(r, d, n, at)
		} else {
			break
		}
	}
	if s.next != from {
		s.held.advance(&t.pages, s.next)
		s.hole = t.now
	}
	return v
}

// hold keeps a segment that comes after a hole, or that overlaps what is held.
func (t *Tracker) hold(r *reassembly, d event.Direction, g *segment) parsers.Status {
	s := &r.streams[d]
	if g.seq != s.next {
		t.count(r, &t.stats.OutOfOrder)
	}
	if s.held.empty() {
		s.hole = t.now
	}
	s.last, s.heldAt = g.at, t.now
	if len(g.data) > 0 {
		overlap, conflict := s.held.put(&t.pages, s.next, g.seq, g.data, r.replaces)
		if overlap {
			t.count(r, &t.stats.Overlapping)
		}
		t.contested = t.contested || conflict && !r.replaces // an alternative has taken the new bytes
	}
	if g.missing > 0 {
		s.held.putCut(&t.pages, g.seq+uint32(len(g.data)), g.missing)
	}
	v := t.drain(r, d, g.at)
	t.wait(r.flow, d)
	return v
}

// skip gives up the hole before the first bytes that are held.
func (t *Tracker) skip(r *reassembly, d event.Direction, at event.Moment) parsers.Status {
	s := &r.streams[d]
	seq, ok := s.held.after(s.next)
	if !ok {
		s.held.reset(&t.pages) // all that is held comes before next
		return parsers.NeedMore
	}
	if seq != s.next {
		if v := t.gap(r, d, seq, at); v == parsers.Done {
			return v
		}
	}
	return t.drain(r, d, at)
}

// jump goes on at a segment that is too far away to wait for the bytes before it.
// What is held is delivered first, and the rest is given up.
func (t *Tracker) jump(r *reassembly, d event.Direction, to uint32, at event.Moment) parsers.Status {
	s := &r.streams[d]
	for !s.held.empty() {
		if v := t.skip(r, d, at); v == parsers.Done {
			return v
		}
	}
	return t.gap(r, d, to, at)
}

// unknownGap stands for a gap whose length nobody knows: longer than any message.
const unknownGap = 1<<31 - 1

// gap reports to the parser that the bytes before to are lost. Where to comes
// before the next byte, the stream is another one, and nobody knows how much of it
// is lost.
func (t *Tracker) gap(r *reassembly, d event.Direction, to uint32, at event.Moment) parsers.Status {
	s := &r.streams[d]
	n := distance(s.next, to)
	s.next = to
	s.held.advance(&t.pages, to)
	r.log.stop(t)
	t.count(r, &t.stats.Gaps)
	if n <= 0 {
		n = unknownGap
	} else if !r.replaces {
		t.stats.GapBytes += uint64(n)
	}
	if r.done {
		return parsers.NeedMore
	}
	return r.conn.Gap(d, at, n)
}
