package flow

import (
	"fmt"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Checksums is the policy for segments and datagrams with bad checksums.
type Checksums uint8

const (
	// ChecksumsAuto ignores what has a bad checksum once its sender has sent a good
	// one on the same flow. A sender that never does leaves checksums to its network
	// card, or somebody has changed the capture.
	ChecksumsAuto   Checksums = iota
	ChecksumsVerify           // what has a bad checksum is ignored
	ChecksumsIgnore           // checksums are not looked at
)

// ParseChecksums reads auto, verify or ignore.
func ParseChecksums(s string) (Checksums, error) {
	switch s {
	case "", "auto":
		return ChecksumsAuto, nil
	case "verify":
		return ChecksumsVerify, nil
	case "ignore":
		return ChecksumsIgnore, nil
	}
	return 0, fmt.Errorf("%q is not auto, verify or ignore", s)
}

// ForgedStats counts packets that an endpoint ignores, by what is wrong with
// them. Not all are forged: delayed duplicates and proxies make some too.
type ForgedStats struct {
	FIN       uint64 `json:"fin"`       // FIN outside of the window, or before bytes that came after
	RST       uint64 `json:"rst"`       // RST whose sequence number is not the next
	SYN       uint64 `json:"syn"`       // SYN with another number on a connection that went on, or that nothing followed
	Data      uint64 `json:"data"`      // payload outside of the window
	Checksum  uint64 `json:"checksum"`  // bad checksum, of a sender that has sent good ones
	ACK       uint64 `json:"ack"`       // no acknowledgement, or of what was not sent
	Timestamp uint64 `json:"timestamp"` // a timestamp from before the last
	Conflict  uint64 `json:"conflict"`  // other bytes where some came before
}

// Add adds o to s.
func (s *ForgedStats) Add(o ForgedStats) {
	s.FIN += o.FIN
	s.RST += o.RST
	s.SYN += o.SYN
	s.Data += o.Data
	s.Checksum += o.Checksum
	s.ACK += o.ACK
	s.Timestamp += o.Timestamp
	s.Conflict += o.Conflict
}

// of returns the count of one kind.
func (s *ForgedStats) of(k event.Forged) *uint64 {
	switch k {
	case event.ForgedFIN:
		return &s.FIN
	case event.ForgedRST:
		return &s.RST
	case event.ForgedSYN:
		return &s.SYN
	case event.ForgedData:
		return &s.Data
	case event.ForgedChecksum:
		return &s.Checksum
	case event.ForgedACK:
		return &s.ACK
	case event.ForgedTimestamp:
		return &s.Timestamp
	}
	return &s.Conflict
}

// forged counts a packet that an endpoint ignores, and notes it for the
// handshakes of the flow.
func (t *Tracker) forged(e *entry, k event.Forged) {
	*t.stats.Forged.of(k)++
	if e.forged&k == 0 {
		e.forged |= k
		if e.reassembly != 0 {
			t.reportForged(e, t.reassemblies[e.reassembly])
		}
	}
}

// reportForged reports to the parser what it marks the handshakes of the flow with:
// what was ignored, and what is kept aside and not proven.
func (t *Tracker) reportForged(e *entry, r *reassembly) {
	kinds := e.forged
	for d := range r.streams {
		for i := range r.streams[d].aside {
			kinds |= r.streams[d].aside[i].kind
		}
	}
	r.told = kinds
	r.conn.Forged(kinds)
	if a := r.alternative; a != nil {
		a.conn.Forged(kinds)
	}
}

// suspect is a segment that an endpoint may have ignored. It is kept aside until
// later packets prove it.
type suspect struct {
	segment        // data is from the tracker's buffers
	ack     uint32 // what it acknowledged
	kind    event.Forged
	far     bool // out of the window
}

// validity is what the endpoint makes of a segment.
type validity uint8

const (
	accepted validity = iota
	doubted           // it ignores the segment, unless the capture has a hole
	refused           // it ignores the segment
)

// verified judges p by its checksum, and notes whether the sender's checksums are
// good.
func (t *Tracker) verified(e *entry, d event.Direction, p *decode.Packet) validity {
	t.unverified = false
	if t.limits.Checksums == ChecksumsIgnore {
		return accepted
	}
	if !p.Tunnelled() && !p.BadHeader() { // what the kernel says is about the outer packet, and not about its header
		switch p.Frame.Checksum {
		case capture.ChecksumNotReady:
			return accepted
		case capture.ChecksumValid:
			e.bits |= verified << d
			return accepted
		}
	}
	state := p.Checksum()
	switch state {
	case decode.ChecksumGood:
		e.bits |= verified << d
		return accepted
	case decode.ChecksumUnknown:
		return accepted
	case decode.ChecksumZero:
		if p.Transport == event.UDP {
			return accepted
		}
	}
	switch {
	case t.limits.Checksums == ChecksumsVerify:
		return refused
	case e.bits&(verified<<d) == 0:
		t.stats.Unverified++
		t.unverified = true
		e.bits |= unverified << d
		return accepted
	case state != decode.ChecksumBad:
		return doubted // a driver may have joined segments whose checksums were good
	}
	return refused
}

// expects reports whether p is just the next segment of direction d, with nothing
// missing and nothing doubtful in either direction. Most segments are. Its checksum
// is still to be verified.
func (r *reassembly) expects(d event.Direction, p *decode.Packet) bool {
	s, o := &r.streams[d], &r.streams[d.Other()]
	if !s.started || p.Seq != s.next || !o.started || p.Flags&(decode.FlagACK|decode.FlagSYN|decode.FlagRST|decode.FlagFIN) != decode.FlagACK ||
		s.doubtful|o.doubtful != 0 || !o.held.empty() || len(o.aside) > 0 || p.Missing > 0 {
		return false
	}
	if s.isOld(p) {
		return false
	}
	behind := distance(p.Ack, o.next)
	return behind >= 0 && behind <= limitEarly
}

// judge returns whether the endpoint takes p, a segment of direction d with a
// payload, which begins at seq, or with a FIN (RFC 9293, section 3.10.7.4; RFC
// 5961; RFC 7323, section 5.3; RFC 2385). Where it does not, kind is what is wrong with p, and
// far reports that its number is outside of the window. The capture may lack
// segments that the endpoint got: much that does not fit is therefore doubted and
// not refused.
func (t *Tracker) judge(e *entry, d event.Direction, p *decode.Packet, seq uint32) (v validity, kind event.Forged, far bool) {
	if p.Flags&(decode.FlagACK|decode.FlagSYN|decode.FlagRST) == 0 {
		return refused, event.ForgedACK, false
	}
	if e.bits&(unsigned<<d) != 0 && p.Signed() {
		return refused, event.ForgedData, false
	}
	if v = t.verified(e, d, p); v == refused {
		return refused, event.ForgedChecksum, false
	} else if v == doubted {
		kind = event.ForgedChecksum
	}
	s := t.stream(e, d)
	if next, ok := e.near(d, s); ok {
		ahead := distance(next, seq)
		if d == 1 && e.bits&rivalKnown != 0 && (s == nil || !s.started) && (ahead < 0 || ahead > limitHeldStream) {
			if off := distance(e.rival, seq); off >= 0 && off <= limitHeldStream {
				e.base[d], ahead = e.rival, off // of two SYN-ACKs, the second is the one that counts
			}
		}
		payload := len(p.Payload) + p.Missing
		fin := int(p.Flags & decode.FlagFIN)
		early := e.bits&(baseKnown<<d) != 0 && (payload > 1 || fin > 0) && distance(e.base[d], seq)+payload+fin <= 0
		if ahead > limitHeldStream || ahead+payload < -limitHeldStream || early {
			return doubted, event.ForgedData, true
		}
		if d == 0 && ahead > 0 && len(p.Payload) > 0 && e.bits&(baseKnown<<0) != 0 && e.bits&((baseKnown|baseGuess)<<1) == 0 {
			return doubted, event.ForgedACK, false // nobody has answered the SYN
		}
	}
	if p.Flags&decode.FlagACK != 0 {
		o := d.Other()
		if d == 1 && len(p.Payload) > 0 && p.Flags&decode.FlagSYN == 0 && e.bits&(baseKnown<<0) != 0 && e.bits&((baseKnown|baseGuess)<<1) == 0 {
			return doubted, event.ForgedData, false // it comes before the answer to the SYN
		}
		if ahead, ok := t.ackAhead(e, o, p.Ack); ok && (ahead > 0 || ahead < oldestACK) && !t.acksFar(e, o, p.Ack) {
			return doubted, event.ForgedACK, false
		}
	}
	if s != nil && s.isOld(p) {
		return doubted, event.ForgedTimestamp, false
	}
	if v == accepted && isShort(p) {
		return doubted, event.ForgedData, false
	}
	return v, kind, false
}

// isShort reports whether bytes of p are missing that its frame never had. A host
// ignores such a packet (RFC 1122, section 3.2.1.8 c). A mirror port that cuts frames
// makes them too.
func isShort(p *decode.Packet) bool {
	return p.Missing > int(p.Frame.Length)-len(p.Frame.Data)
}

// reference returns the sequence number around which segments of direction d
// are expected; false where anything may come.
func (e *entry) reference(d event.Direction, s *stream) (seq uint32, ok bool) {
	if s != nil && s.started {
		return s.next, true
	}
	return e.base[d], e.bits&(baseKnown<<d) != 0
}

// near is reference, or where only the other side was seen, what that has acknowledged.
func (e *entry) near(d event.Direction, s *stream) (seq uint32, ok bool) {
	if seq, ok = e.reference(d, s); ok || e.bits&(baseGuess<<d) == 0 {
		return seq, ok
	}
	if s != nil && s.hasAcked {
		return s.acked, true
	}
	return e.base[d], true
}

// high returns the sequence number after all that direction d has sent, with its
// FIN; false where that is not known.
func (t *Tracker) high(e *entry, d event.Direction) (uint32, bool) {
	s := t.stream(e, d)
	high, ok := e.reference(d, s)
	if !ok || s == nil {
		return high + 1, ok
	}
	if !s.held.empty() {
		if h := s.held.high(); distance(high, h) > 0 {
			high = h
		}
	}
	if s.doubtful > 0 {
		high += uint32(s.doubtful)
	}
	if s.fin && distance(high, s.end) >= 0 {
		high = s.end
	}
	for i := range s.aside { // the other side has it, if it is of the stream
		a := &s.aside[i]
		if end := a.end(); !a.far && a.kind != event.ForgedChecksum && distance(high, end) > 0 {
			high = end
		}
	}
	return high + 1, true // a FIN may be lost
}

// oldestACK is how far an acknowledgement may be before what was sent last.
const oldestACK = -2 * limitHeldStream

// extent is what is known of how far one direction has sent. To find it out may mean
// to look at all that is kept aside, so it is done once where many acknowledgements
// are compared with it.
type extent struct {
	known bool
	high  uint32 // after all that was sent
	base  uint32 // the first byte
	early int    // how far from base the oldest acknowledgement is
	more  int    // how far from high the newest may be, where nothing of the direction was seen
}

func (t *Tracker) extent(e *entry, d event.Direction) extent {
	x := extent{base: e.base[d]}
	if e.bits&(baseKnown<<d) == 0 {
		x.early = -limitEarly
	}
	if x.high, x.known = t.high(e, d); !x.known { // it may have sent more than was acknowledged last
		if x.high, x.known = e.near(d, t.stream(e, d)); x.known {
			x.more = limitHeldStream
		}
	}
	return x
}

// ackAhead returns how far an acknowledgement is after all that was sent: less than
// oldestACK where it is from before the connection. It returns false where nothing is
// known of what was sent.
func (x *extent) ackAhead(ack uint32) (ahead int, ok bool) {
	switch {
	case !x.known:
		return 0, false
	case distance(x.base, ack) < x.early:
		return oldestACK - 1, true
	}
	if ahead = distance(x.high, ack); ahead > 0 {
		ahead = max(ahead-x.more, 0)
	}
	return ahead, true
}

// ackAhead returns how far an acknowledgement is after all that direction d has sent,
// as [extent.ackAhead] does.
func (t *Tracker) ackAhead(e *entry, d event.Direction, ack uint32) (ahead int, ok bool) {
	x := t.extent(e, d)
	return x.ackAhead(ack)
}

// acksFar reports whether ack acknowledges a segment of direction d that came far
// from the next byte: the capture then lacks what is between them.
func (t *Tracker) acksFar(e *entry, d event.Direction, ack uint32) bool {
	s := t.stream(e, d)
	if s == nil {
		return false
	}
	for i := range s.aside {
		a := &s.aside[i]
		if off := distance(a.seq, ack); a.far && off > 0 && off <= limitHeldStream {
			return true
		}
	}
	return false
}

// isOld reports whether p has a timestamp from before the last of the stream
// (RFC 7323, section 5.3).
func (s *stream) isOld(p *decode.Packet) bool {
	if !s.stamped {
		return false
	}
	stamp, ok := p.Timestamp()
	return ok && int32(stamp-s.stamp) < 0
}

// setAside keeps a segment that is doubted.
func (t *Tracker) setAside(i uint32, d event.Direction, g segment, ack uint32, kind event.Forged, far bool) {
	e := t.table.at(i)
	r := t.reassemblies[e.reassembly]
	s := &r.streams[d]
	if far {
		if g.seq != s.farNext {
			s.farRun = 0
		}
		s.farRun++
		s.farNext = g.end()
	}
	forget := func() {
		k := s.aside[0].kind
		t.dropAside(s, 0)
		t.forged(e, k)
	}
	for len(s.aside) > 0 && (len(s.aside) >= limitAside || s.asideBytes+len(g.data) > limitAsideBytes) {
		forget()
	}
	data, ok := t.aside.append(nil, g.data, t.limits.Aside)
	for !ok && len(s.aside) > 0 {
		forget()
		data, ok = t.aside.append(nil, g.data, t.limits.Aside)
	}
	if !ok {
		t.stats.Unkept++
		t.forged(e, kind)
		return
	}
	g.data = data
	s.aside = append(s.aside, suspect{g, ack, kind, far})
	s.asideBytes += cap(data)
	if r.told&kind == 0 {
		t.reportForged(e, r)
	}
}

// dropAside forgets segment n of those that are kept aside.
func (t *Tracker) dropAside(s *stream, n int) {
	s.asideBytes -= cap(s.aside[n].data)
	t.aside.put(s.aside[n].data)
	last := len(s.aside) - 1
	copy(s.aside[n:], s.aside[n+1:])
	s.aside[last] = suspect{}
	s.aside = s.aside[:last]
}

// reconsider takes the segments kept aside that later packets prove: what they
// acknowledge has been sent, or the other side has acknowledged them.
func (t *Tracker) reconsider(i uint32) {
	for {
		e := t.table.at(i)
		if e.reassembly == 0 {
			return
		}
		r := t.reassemblies[e.reassembly]
		d, n := t.proven(e, r)
		if n < 0 {
			return
		}
		t.takeAside(i, r, d, n)
	}
}

// takeAside accepts segment n of those of direction d that are kept aside.
func (t *Tracker) takeAside(i uint32, r *reassembly, d event.Direction, n int) {
	s := &r.streams[d]
	a := s.aside[n]
	s.asideBytes -= cap(a.data)
	s.aside[n].data = nil
	t.dropAside(s, n)
	t.reportForged(t.table.at(i), r)
	if a.far && s.started {
		t.each(r, func(r *reassembly) parsers.Status {
			if ahead := distance(r.streams[d].next, a.seq); ahead >= -limitHeldStream && ahead <= limitHeldStream {
				return parsers.NeedMore
			}
			return t.jump(r, d, a.seq, a.at)
		})
	}
	if t.table.at(i).reassembly != 0 {
		t.unverified = false // its checksum was looked at when it came
		t.accept(i, d, &a.segment)
	}
	t.aside.put(a.data)
}

// locate marks a, kept aside in the stream s, as far where that is known now: when
// it came, less may have been known of where the stream is.
func (e *entry) locate(d event.Direction, s *stream, a *suspect) {
	if next, ok := e.reference(d, s); ok && !a.far {
		if ahead := distance(next, a.seq); ahead > limitHeldStream || ahead < -limitHeldStream {
			a.far, a.kind = true, event.ForgedData
		}
	}
}

// proven finds a segment kept aside that the endpoint has taken; n is negative
// where there is none.
func (t *Tracker) proven(e *entry, r *reassembly) (d event.Direction, n int) {
	for d := range event.Direction(2) {
		s := &r.streams[d]
		if len(s.aside) == 0 {
			continue
		}
		other := t.extent(e, d.Other())
		for n := range s.aside {
			a := &s.aside[n]
			e.locate(d, s, a)
			switch {
			case a.kind == event.ForgedACK:
				if ahead, ok := other.ackAhead(a.ack); ok && ahead <= 0 && ahead >= oldestACK {
					return d, n
				}
			case s.ackedUpTo(a.end()):
				return d, n
			case a.far && s.farRun >= farRun && moved(&other, &r.streams[d.Other()], a):
				return d, n
			}
		}
	}
	return 0, -1
}

// mayBeReal finds a segment kept aside in direction d, which nothing has proven when
// the flow ends, that is perhaps of the stream all the same: the capture may lack the
// packets that would prove it. It returns -1 where there is none.
func (t *Tracker) mayBeReal(e *entry, d event.Direction) int {
	s := t.stream(e, d)
	if len(s.aside) == 0 {
		return -1
	}
	other := t.extent(e, d.Other())
	for n := range s.aside {
		a := &s.aside[n]
		e.locate(d, s, a)
		if a.far || a.kind == event.ForgedChecksum || s.fin && distance(s.end, a.end()) > 0 {
			continue
		}
		if ahead, ok := other.ackAhead(a.ack); !ok || ahead <= limitHeldStream && ahead >= oldestACK {
			return n
		}
	}
	return -1
}

// ackedUpTo reports whether the other side has acknowledged the bytes before end,
// and not much more.
func (s *stream) ackedUpTo(end uint32) bool {
	off := distance(end, s.acked)
	return s.hasAcked && off >= 0 && off <= limitHeldStream
}

// moved reports whether a, far from the next byte, shows that the capture lacks a
// part of the stream: what it acknowledges fits the other direction, of which other
// and o are known, or that was never seen.
func moved(other *extent, o *stream, a *suspect) bool {
	if ahead, ok := other.ackAhead(a.ack); ok {
		if ahead <= 0 && ahead >= oldestACK {
			return true
		}
		off := distance(o.farNext, a.ack)
		return o.farRun >= farRun && off >= -limitHeldStream && off <= limitHeldStream
	}
	return true
}
