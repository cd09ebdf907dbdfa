package flow

import (
	"bytes"
	"hash/maphash"

	"github.com/oddcert/oddcert/parsers"
)

// stream is one direction of a TCP connection while its flow is undecided.
type stream struct {
	next     uint32 // sequence number of the next byte in order
	started  bool   // next is known
	fin      bool   // a FIN was seen
	joined   bool   // the capture began in the middle of it
	astray   bool   // the last segment was far from next
	doubtful uint8  // zero bytes at next that may be no part of the stream
	stray    uint32 // where the segment after it would begin
	end      uint32 // sequence number of the FIN
	hole     int64  // when the hole before held[0] was first seen
	held     []segment
	bytes    int // in held

	// The segments delivered last, to tell a retransmission with other
	// content from a repetition.
	recent [4]sum
	turn   uint8
}

// segment is a piece of the stream beyond a hole.
type segment struct {
	seq     uint32
	missing uint32 // bytes after data that the snaplen cut off
	at      parsers.Moment
	data    []byte // from the tracker's pages
}

type sum struct {
	seq, n uint32
	hash   uint64
}

// delivered tells whether bytes of the stream went to the parser.
func (s *stream) delivered() bool { return s.recent[0].n > 0 }

// distance is b-a in the circle of sequence numbers (RFC 9293, section 3.4).
func distance(a, b uint32) int { return int(int32(b - a)) }

// pair is what a flow needs while it is undecided.
type pair struct {
	conn    *parsers.Conn
	streams [2]stream
}

// segment takes a TCP payload in whatever order it comes, and hands what is in
// order to the parser.
func (t *Tracker) segment(i uint32, pr *pair, d parsers.Direction, p *Packet, seq uint32, at parsers.Moment) parsers.Verdict {
	s := &pr.streams[d]
	e := t.table.at(i)
	if !s.started {
		s.started = true
		s.next = seq
		known, guess := e.bits&(baseKnown<<d) != 0, e.bits&(baseGuess<<d) != 0
		// A guess may be junk, and bytes before it may still come.
		if off := distance(e.base[d], seq); known || guess && off > 0 && off <= limitHeldStream {
			s.next = e.base[d]
		} else if !known {
			e.base[d] = seq
			e.bits |= baseGuess << d
			guess = guess && off == 0
		}
		// What the answer to a SYN acknowledges, or what is acknowledged
		// first after it, is the beginning.
		if !known && (!guess || e.bits&(baseKnown<<d.Other()) == 0) {
			s.joined = true
			t.parser.Join(pr.conn, d)
		}
	}
	data, missing := p.Payload, uint32(p.Missing)
	ahead := distance(s.next, seq)
	if ahead > limitHeldStream || ahead < -limitHeldStream {
		// Junk, or the stream after a loss too long to wait for: the segment
		// that follows on this one tells.
		t.stats.OutOfWindow++
		follows := s.astray && s.stray == seq
		s.astray, s.stray = true, seq+uint32(len(data))+missing
		if !follows {
			return parsers.More
		}
		s.astray = false
		return t.jump(pr, d, segment{seq, missing, at, data})
	}
	s.astray = false
	if ahead == 0 && isPadding(p) {
		// Some stacks count the padding of a short frame into the payload of
		// a bare acknowledgement, or of a SYN or FIN with one. The next segment tells: it begins here too,
		// or after bytes that are of the stream.
		s.doubtful = uint8(len(data))
		return parsers.More
	}
	if n := int(s.doubtful); n > 0 {
		s.doubtful = 0
		if ahead < n {
			t.stats.Padding++
		} else {
			ahead -= n
			if v := t.deliver(pr, d, zeros[:n], 0, at); v == parsers.Decided {
				return v
			}
		}
	}
	if ahead < 0 && !s.delivered() && e.bits&(baseKnown<<d) == 0 {
		s.next, e.base[d] = seq, seq // where it began was a guess, and too late
		ahead = 0
	}
	if ahead < 0 {
		t.stats.Retransmitted++
		if early := min(distance(seq, e.base[d]), len(data)); s.joined && early > 0 {
			if v := t.parser.Late(pr.conn, d, at, data[:early]); v == parsers.Decided {
				return v
			}
		} else {
			t.compare(s, seq, data)
		}
		if -ahead >= len(data) {
			return parsers.More
		}
		data = data[-ahead:]
		seq = s.next
		ahead = 0
	}
	if ahead > 0 {
		return t.hold(i, pr, d, segment{seq, missing, at, data})
	}
	v := t.deliver(pr, d, data, missing, at)
	if v == parsers.More && len(s.held) > 0 {
		v = t.drain(pr, d, at)
	}
	return v
}

// zeros is the longest padding that a bare acknowledgement can have in the
// shortest Ethernet frame.
var zeros [6]byte

// isPadding says whether the payload of p may be the padding of a frame.
func isPadding(p *Packet) bool {
	return p.Flags&^(flagSYN|flagFIN) == flagACK && p.Missing == 0 && len(p.Payload) <= len(zeros) && bytes.Equal(p.Payload, zeros[:len(p.Payload)])
}

// deliver hands the next bytes in order to the parser.
func (t *Tracker) deliver(pr *pair, d parsers.Direction, data []byte, missing uint32, at parsers.Moment) parsers.Verdict {
	s := &pr.streams[d]
	v := parsers.More
	if len(data) > 0 {
		seq := s.next
		s.next += uint32(len(data))
		if v = t.parser.Segment(pr.conn, d, at, data); v == parsers.More {
			s.recent[s.turn%uint8(len(s.recent))] = sum{seq, uint32(len(data)), maphash.Bytes(t.seed, data)}
			s.turn++
		}
	}
	if missing > 0 && v == parsers.More {
		t.stats.CutBytes += uint64(missing)
		s.next += missing
		v = t.parser.Gap(pr.conn, d, at, int(missing))
	}
	return v
}

// drain delivers what was held and is now in order. The moment is that of the
// packet that closed the hole: it is what completed the bytes.
func (t *Tracker) drain(pr *pair, d parsers.Direction, at parsers.Moment) parsers.Verdict {
	s := &pr.streams[d]
	for len(s.held) > 0 {
		g := s.held[0]
		behind := -distance(s.next, g.seq)
		if behind < 0 {
			s.hole = at.Time
			return parsers.More
		}
		s.held = s.held[:copy(s.held, s.held[1:])]
		s.bytes -= len(g.data)
		t.held -= len(g.data)
		v := parsers.More
		if behind < len(g.data) {
			v = t.deliver(pr, d, g.data[behind:], g.missing, at)
		}
		t.pages.put(g.data)
		if v == parsers.Decided {
			return v
		}
	}
	return parsers.More
}

// hold keeps a segment beyond a hole: what is held already stays, since the
// first copy wins. A limit that is reached gives up the hole.
func (t *Tracker) hold(i uint32, pr *pair, d parsers.Direction, g segment) parsers.Verdict {
	s := &pr.streams[d]
	t.stats.OutOfOrder++
	// Most often the segment belongs at the end.
	n := len(s.held)
	for n > 0 && distance(s.held[n-1].seq, g.seq) < 0 {
		n--
	}
	if n > 0 {
		prev := &s.held[n-1]
		if over := len(prev.data) - distance(prev.seq, g.seq); over > 0 {
			t.stats.Overlapping++
			shared := min(over, len(g.data))
			from := distance(prev.seq, g.seq)
			if !bytes.Equal(prev.data[from:from+shared], g.data[:shared]) {
				t.stats.Conflicting++
			}
			if over >= len(g.data) {
				return parsers.More
			}
			g.seq += uint32(over)
			g.data = g.data[over:]
		}
	}
	// What comes later in the stream but came first stays; this one is cut at
	// it, and what it has beyond goes back in as a piece of its own.
	var beyond segment
	if n < len(s.held) {
		follow := &s.held[n]
		if over := len(g.data) - distance(g.seq, follow.seq); over > 0 {
			t.stats.Overlapping++
			start := len(g.data) - over
			shared := min(over, len(follow.data))
			if !bytes.Equal(g.data[start:start+shared], follow.data[:shared]) {
				t.stats.Conflicting++
			}
			if over > len(follow.data) && follow.missing == 0 {
				beyond = segment{follow.seq + uint32(len(follow.data)), g.missing, g.at, g.data[start+shared:]}
			}
			g.data, g.missing = g.data[:start], 0
		}
	}
	if len(g.data) > 0 {
		if len(s.held) == 0 {
			s.hole = g.at.Time
			t.holes = append(t.holes, hole{i, t.table.at(i).serial, d})
		}
		g.data = t.pages.copy(g.data)
		s.held = append(s.held, segment{})
		copy(s.held[n+1:], s.held[n:])
		s.held[n] = g
		s.bytes += len(g.data)
		t.held += len(g.data)
	}
	if s.bytes > limitHeldStream || len(s.held) > limitHeldSegments || t.held > t.limits.Held {
		t.stats.HeldLimit++
		if v := t.skip(pr, d, g.at); v == parsers.Decided {
			return v
		}
	}
	if len(beyond.data) > 0 && distance(s.next, beyond.seq) > 0 {
		return t.hold(i, pr, d, beyond)
	}
	return parsers.More
}

// jump goes on with a segment that is too far away to wait for: what lies
// between is given up, and what was held is delivered before.
func (t *Tracker) jump(pr *pair, d parsers.Direction, g segment) parsers.Verdict {
	s := &pr.streams[d]
	for len(s.held) > 0 {
		if v := t.skip(pr, d, g.at); v == parsers.Decided {
			return v
		}
	}
	if v := t.gap(pr, d, g.seq, g.at); v == parsers.Decided {
		return v
	}
	return t.deliver(pr, d, g.data, g.missing, g.at)
}

// skip gives up the hole before what is held first.
func (t *Tracker) skip(pr *pair, d parsers.Direction, at parsers.Moment) parsers.Verdict {
	s := &pr.streams[d]
	if len(s.held) == 0 {
		return parsers.More
	}
	if v := t.gap(pr, d, s.held[0].seq, at); v == parsers.Decided {
		return v
	}
	return t.drain(pr, d, at)
}

// unknownGap stands for a gap whose length nobody knows: longer than any message.
const unknownGap = 1<<31 - 1

// gap says that what lies before to is lost. A stream that goes on behind where
// it was is another one, and how much of it is lost is not known.
func (t *Tracker) gap(pr *pair, d parsers.Direction, to uint32, at parsers.Moment) parsers.Verdict {
	s := &pr.streams[d]
	n := distance(s.next, to)
	s.next = to
	t.stats.Gaps++
	if n <= 0 {
		n = unknownGap
	} else {
		t.stats.GapBytes += uint64(n)
	}
	return t.parser.Gap(pr.conn, d, at, n)
}

// compare counts a retransmission of delivered bytes with other content, where
// it has the bounds of one of the segments delivered last.
func (t *Tracker) compare(s *stream, seq uint32, data []byte) {
	for _, r := range s.recent {
		if r.n > 0 && r.seq == seq && r.n <= uint32(len(data)) {
			if maphash.Bytes(t.seed, data[:r.n]) != r.hash {
				t.stats.Conflicting++
			}
			return
		}
	}
}

// pages is a free list of buffers for held segments.
type pages struct{ free [][]byte }

// pageSize holds the payload of any frame without jumbo frames or offload.
const pageSize = 2048

// limitFreePages bounds what stays allocated after a burst.
const limitFreePages = 256

func (p *pages) copy(b []byte) []byte {
	if len(b) > pageSize {
		return bytes.Clone(b)
	}
	if n := len(p.free); n > 0 {
		page := p.free[n-1]
		p.free = p.free[:n-1]
		return append(page, b...)
	}
	return append(make([]byte, 0, pageSize), b...)
}

func (p *pages) put(b []byte) {
	if cap(b) == pageSize && len(p.free) < limitFreePages {
		p.free = append(p.free, b[:0])
	}
}
