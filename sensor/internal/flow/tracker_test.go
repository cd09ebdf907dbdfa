package flow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/sparse"
)

// tape is a parser that writes down what it gets.
type tape struct {
	conns  []*taped
	decide int // bytes after which a flow is decided; 0 is never
}

// taped is what a tape has of one flow.
type taped struct {
	tape   *tape
	flow   *event.Flow
	data   [2][]byte // missing bytes stand as '?'
	gaps   int
	cause  event.Loss
	closed bool

	alternative bool
	forged      event.Forged
}

func (t *tape) open(f *event.Flow) *taped {
	c := &taped{tape: t, flow: f}
	t.conns = append(t.conns, c)
	return c
}

func (t *tape) Open(f *event.Flow) conn { return t.open(f) }

func (t *tape) Alternative(of conn) conn {
	c := t.open(of.(*taped).flow)
	c.alternative = true
	return c
}

func (c *taped) Segment(d event.Direction, at event.Moment, b []byte) parsers.Status {
	if c.closed || len(b) == 0 {
		panic("a segment after the end, or an empty one")
	}
	c.data[d] = append(c.data[d], b...)
	if t := c.tape; t.decide > 0 && len(c.data[d]) >= t.decide {
		return parsers.Done
	}
	return parsers.NeedMore
}

func (c *taped) Midstream(event.Direction) {}

func (c *taped) EarlierBytes(event.Direction, event.Moment, []byte) parsers.Status {
	return parsers.NeedMore
}

func (c *taped) Gap(d event.Direction, at event.Moment, n int) parsers.Status {
	if c.closed || n <= 0 {
		panic(fmt.Sprint("a gap after the end, or of ", n))
	}
	c.gaps++
	c.data[d] = append(c.data[d], bytes.Repeat([]byte{'?'}, min(n, 64<<10))...)
	return parsers.NeedMore
}

func (c *taped) Datagram(d event.Direction, at event.Moment, b []byte) parsers.Status {
	return c.Segment(d, at, b)
}

func (c *taped) Forged(kinds event.Forged) { c.forged = kinds }

func (c *taped) Begun() bool { return false }

func (c *taped) Unproven() bool { return false }

func (c *taped) Close(cause event.Loss) {
	if c.closed {
		panic("closed twice")
	}
	c.closed, c.cause = true, cause
}

func newTestTracker(limits Limits) (*Tracker, *tape) {
	tape := new(tape)
	limits.noRecover = true
	t := NewTracker(nil, limits)
	t.parser = tape
	return t, tape
}

// seg is a segment of the one test flow; d is its direction. Its checksum says
// nothing: the kernel has said that the card was to compute it.
func seg(d int, time int64, seq uint32, flags uint8, data string) *decode.Packet {
	return at(time, wire(d, seq, 0, flags, []byte(data), true))
}

// at gives p a time.
func at(time int64, p *decode.Packet) *decode.Packet {
	f := p.Frame
	f.Time, f.Clock, f.Number, f.Checksum = time, time, uint64(time), capture.ChecksumNotReady
	return p
}

// datagram is a datagram of the one test flow.
func datagram(d int, time int64, data string) *decode.Packet {
	b := slices.Concat(make([]byte, 8), []byte(data))
	sport, dport := ports(d)
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return at(time, decoded(overIP(d, 17, b), decode.Datagram))
}

func acking(p *decode.Packet, ack uint32) *decode.Packet {
	p.Ack = ack
	return p
}

func text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i*7+i/26)%26
	}
	return string(b)
}

// Whatever way the segments come, the bytes come out in order, and what is
// missing is said.
func TestReassembly(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want := text(1 + r.IntN(4000))
		isn := []uint32{0, 1 << 31, ^uint32(0) - uint32(r.IntN(2000))}[r.IntN(3)]
		type piece struct{ from, to int }
		var pieces []piece
		for at := 0; at < len(want); {
			n := 1 + r.IntN(300)
			pieces = append(pieces, piece{at, min(at+n, len(want))})
			at += n
		}
		lost := make([]bool, len(want))
		if r.IntN(2) == 0 { // lose one, but not the last: nothing would tell
			if i := r.IntN(len(pieces)); i < len(pieces)-1 {
				for j := pieces[i].from; j < pieces[i].to; j++ {
					lost[j] = true
				}
				pieces = slices.Delete(pieces, i, i+1)
			}
		}
		for range r.IntN(6) { // repeat and overlap
			a := r.IntN(len(want))
			b := min(a+1+r.IntN(500), len(want))
			if !slices.Contains(lost[a:b], true) {
				pieces = slices.Insert(pieces, r.IntN(len(pieces)+1), piece{a, b})
			}
		}
		for i := range pieces { // reorder
			j := min(i+r.IntN(5), len(pieces)-1)
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		tracker, tape := newTestTracker(DefaultLimits)
		tracker.Packet(seg(0, 1, isn-1, decode.FlagSYN, ""), nil)
		for i, p := range pieces {
			tracker.Packet(seg(0, int64(2+i), isn+uint32(p.from), decode.FlagACK, want[p.from:p.to]), nil)
		}
		tracker.Close()
		expect := []byte(want)
		for i := range expect {
			if lost[i] {
				expect[i] = '?'
			}
		}
		if got := tape.conns[0].data[0]; !bytes.Equal(got, expect) {
			t.Fatalf("seed %d: got\n%s\nwant\n%s", seed, got, expect)
		}
		checkEmpty(t, tracker)
		if tracker.stats.Forged.Conflict != 0 {
			t.Fatalf("seed %d: %d conflicts among equal bytes", seed, tracker.stats.Forged.Conflict)
		}
	}
}

func checkEmpty(t *testing.T, tracker *Tracker) {
	t.Helper()
	s := tracker.Stats()
	if s.Open != 0 || tracker.pages.used != 0 || tracker.buffers.used != 0 || tracker.aside.used != 0 || tracker.used != 0 || len(tracker.spare) != len(tracker.reassemblies)-1 || len(tracker.holes) != 0 {
		t.Fatalf("left: %d flows, %d, %d and %d bytes, %d reassemblies, %d of %d numbers, %d holes", s.Open, tracker.pages.used, tracker.buffers.used, tracker.aside.used, tracker.used, len(tracker.spare), len(tracker.reassemblies)-1, len(tracker.holes))
	}
}

// script runs packets and returns the connections as the parser saw them.
func script(t *testing.T, packets ...*decode.Packet) (*Tracker, []*taped) {
	t.Helper()
	tracker, tape := newTestTracker(DefaultLimits)
	now := int64(0)
	acknowledge(packets)
	for _, p := range packets {
		now = max(now, p.Frame.Time)
		tracker.Tick(now)
		tracker.Packet(p, nil)
		checkStates(t, tracker)
	}
	tracker.Close()
	checkEmpty(t, tracker)
	var conns []*taped
	for _, c := range tape.conns {
		if !c.closed {
			t.Error("not closed")
		}
		if !c.alternative {
			conns = append(conns, c)
		}
	}
	return tracker, conns
}

// acknowledge fills in the acknowledgements of packets that have none: each is of
// all that the other side has sent before.
func acknowledge(packets []*decode.Packet) {
	var high [2]uint32
	var sent [2]bool
	for _, p := range packets {
		d := 0
		if p.SrcPort == 443 {
			d = 1
		}
		if p.Flags&decode.FlagACK != 0 && p.Ack == 0 && sent[1-d] {
			p.Ack = high[1-d]
		}
		end := p.Seq + uint32(len(p.Payload))
		if p.Flags&(decode.FlagSYN|decode.FlagFIN) != 0 {
			end++
		}
		if !sent[d] || distance(high[d], end) > 0 || p.Flags&decode.FlagSYN != 0 {
			sent[d], high[d] = true, end
		}
	}
}

const second = int64(1e9)

func TestTracker(t *testing.T) {
	for _, c := range []struct {
		name    string
		packets []*decode.Packet
		want    []string // direction 0, direction 1 of each connection
	}{
		{"both directions", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, ""),
			seg(0, 3, 100, decode.FlagACK, "hello"), seg(1, 4, 500, decode.FlagACK, "world")}, []string{"hello", "world"}},
		{"SYN-ACK first", []*decode.Packet{acking(seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, ""), 100), seg(1, 4, 500, decode.FlagACK, "world"),
			seg(0, 5, 100, decode.FlagACK, "hello")}, []string{"hello", "world"}},
		{"mid-stream, one direction", []*decode.Packet{seg(1, 1, 500, decode.FlagACK, "wor"), seg(1, 2, 503, decode.FlagACK, "ld")}, []string{"world", ""}},
		{"data in the SYN", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, "hel"), seg(0, 2, 103, decode.FlagACK, "lo")}, []string{"hello", ""}},
		{"the first two swapped, SYN lost, SYN-ACK seen", []*decode.Packet{acking(seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), 100),
			seg(0, 2, 103, decode.FlagACK, "lo"), seg(0, 3, 100, decode.FlagACK, "hel")}, []string{"hello", ""}},
		{"junk in the ACK", []*decode.Packet{acking(seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), 1<<30),
			seg(0, 2, 100, decode.FlagACK, "hello")}, []string{"hello", ""}},
		{"first copy wins in what is held", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 103, decode.FlagACK, "lo"),
			seg(0, 3, 102, decode.FlagACK, "lXX!"), seg(0, 4, 100, decode.FlagACK, "he")}, []string{"hello!", ""}},
		{"five-tuple used again", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "one"),
			seg(0, 3, 7000, decode.FlagSYN, ""), seg(0, 4, 7001, decode.FlagACK, "two")}, []string{"one", "", "two", ""}},
		{"SYN repeated", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 99, decode.FlagSYN, ""), seg(0, 3, 100, decode.FlagACK, "one"),
			seg(0, 4, 99, decode.FlagSYN, "")}, []string{"one", ""}},
		{"used again after FIN", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK|decode.FlagFIN, "one"), seg(1, 3, 1, decode.FlagACK|decode.FlagFIN, ""),
			seg(0, 4, 50, decode.FlagSYN, ""), seg(0, 5, 51, decode.FlagACK, "two")}, []string{"one", "", "two", ""}},
		{"data after the FINs", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, ""), acking(seg(0, 3, 105, decode.FlagACK|decode.FlagFIN, ""), 505),
			acking(seg(1, 4, 505, decode.FlagACK|decode.FlagFIN, ""), 106), seg(0, 5, 100, decode.FlagACK, "hello"), seg(1, 6, 500, decode.FlagACK, "world")}, []string{"hello", "world"}},
		{"SYN-ACK after data", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), acking(seg(0, 2, 100, decode.FlagACK, "hello"), 500), seg(1, 3, 500, decode.FlagACK, "wo"),
			seg(1, 4, 499, decode.FlagSYN|decode.FlagACK, ""), seg(1, 5, 502, decode.FlagACK, "rld")}, []string{"hello", "world"}},
		{"late retransmission after the end", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK|decode.FlagFIN, "one"),
			seg(1, 3, 1, decode.FlagACK|decode.FlagFIN, ""), seg(0, 4, 100, decode.FlagACK, "one")}, []string{"one", ""}},
		{"all of the client late", []*decode.Packet{acking(seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), 105), acking(seg(1, 2, 500, decode.FlagACK, "no"), 105),
			acking(seg(0, 3, 105, decode.FlagACK|decode.FlagFIN, ""), 502), acking(seg(1, 4, 502, decode.FlagACK|decode.FlagFIN, ""), 106),
			seg(0, 5, 100, decode.FlagACK, "hello"), seg(0, 6, 99, decode.FlagSYN, "")}, []string{"hello", "no"}},
		{"forged RST before the first payload", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 2, 1, decode.FlagRST, ""), seg(0, 3, 100, decode.FlagACK, "hello")},
			[]string{"hello", ""}},
		{"forged RST", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "he"), seg(1, 3, 1, decode.FlagRST, ""),
			seg(0, 4, 102, decode.FlagACK, "llo")}, []string{"hello", ""}},
		{"a hole is given up", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 103, decode.FlagACK, "lo"), seg(0, 4*second, 105, decode.FlagACK, "!")},
			[]string{"???lo!", ""}},
		{"junk far away is left out", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), seg(0, 2, 100, decode.FlagACK, "he"),
			seg(0, 3, 1<<30, decode.FlagACK, "JUNK"), seg(0, 4, 102, decode.FlagACK, "llo")}, []string{"hello", ""}},
		{"padding in an acknowledgement", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "\x00\x00"), seg(0, 3, 100, decode.FlagACK|8, "hello"),
			seg(0, 4, 105, decode.FlagACK, "\x00\x00\x00"), seg(0, 5, 105, decode.FlagACK|8, "!")}, []string{"hello!", ""}},
		{"padding in an answer to a SYN, and in a FIN", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, "\x00\x00"),
			seg(1, 3, 500, decode.FlagACK, "\x00\x00"), seg(1, 4, 500, decode.FlagACK, "hello"), seg(1, 5, 505, decode.FlagFIN|decode.FlagACK, "\x00\x00")}, []string{"", "hello"}},
		{"zero bytes of the stream", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "\x00\x00"), seg(0, 3, 102, decode.FlagACK, "\x00"),
			seg(0, 4, 103, decode.FlagACK, "!")}, []string{"\x00\x00\x00!", ""}},
		{"keep-alive", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 3, 101, decode.FlagACK, "e"),
			seg(0, 4, 102, decode.FlagACK, "llo")}, []string{"hello", ""}},
		{"idle too long", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "one"), seg(0, 2+timeoutHandshake+second, 103, decode.FlagACK, "two")},
			[]string{"one", "", "two", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, conns := script(t, c.packets...)
			var got []string
			for _, c := range conns {
				got = append(got, string(c.data[0]), string(c.data[1]))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestConflicts(t *testing.T) {
	for name, packets := range map[string][]*decode.Packet{
		"delivered": {seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 100, decode.FlagACK, "hello"), seg(0, 3, 100, decode.FlagACK, "jello")},
		"held":      {seg(0, 1, 99, decode.FlagSYN, ""), seg(0, 2, 101, decode.FlagACK, "ello"), seg(0, 3, 101, decode.FlagACK, "elle"), seg(0, 4, 100, decode.FlagACK, "h")},
	} {
		tracker, conns := script(t, packets...)
		if tracker.stats.Forged.Conflict != 1 || string(conns[0].data[0]) != "hello" {
			t.Errorf("%s: %d conflicts, %q", name, tracker.stats.Forged.Conflict, conns[0].data[0])
		}
	}
}

// What a flow may hold is bounded, and so is what all hold together.
func TestHeldLimits(t *testing.T) {
	tracker, tape := newTestTracker(Limits{Flows: 10, Undecided: 10, Held: 3 * heldPageCost})
	tracker.Packet(seg(0, 1, 99, decode.FlagSYN, ""), nil)
	tracker.Packet(acking(seg(1, 1, 99, decode.FlagSYN|decode.FlagACK, ""), 100), nil)
	for i := range 100 {
		tracker.Packet(acking(seg(0, 2, uint32(1000+2*i*1000), decode.FlagACK, text(1000)), 100), nil)
		if tracker.pages.used > 3*heldPageCost {
			t.Fatalf("%d bytes held", tracker.pages.used)
		}
	}
	if tracker.stats.HeldLimit == 0 {
		t.Error("not counted")
	}
	tracker.Close()
	checkEmpty(t, tracker)
	if n := bytes.Count(tape.conns[0].data[0], []byte("?")); uint64(n) != tracker.stats.GapBytes {
		t.Errorf("%d bytes of gaps reported, %d counted", n, tracker.stats.GapBytes)
	}
}

// checkStates holds every flow against what its state says of it, and what a slot
// refers to against what refers back.
func checkStates(t testing.TB, tracker *Tracker) {
	t.Helper()
	n := 0
	for s := range tracker.table.queues {
		for i := tracker.table.queues[s].head; i != 0; i = tracker.table.at(i).after {
			n++
			e := tracker.table.at(i)
			keeps := e.state == undecided || e.state == resting || e.state == reset
			if e.state != state(s) || keeps != (e.reassembly != 0) {
				t.Fatalf("a flow in the queue of %v is %v, with reassembly %d", state(s), e.state, e.reassembly)
			}
			if e.hash != e.key.Hash() {
				t.Fatalf("the hash of %v is %#x, not %#x", &e.key, e.hash, e.key.Hash())
			}
			if r := tracker.reassemblies[e.reassembly]; keeps && r.flow != i {
				t.Fatalf("the reassembly of flow %d is that of %d", i, r.flow)
			}
		}
	}
	if n != tracker.table.length {
		t.Fatalf("%d flows in queues, %d in the table", n, tracker.table.length)
	}
}

// What is held after holes is accounted for, lies near the next byte, and is in a
// queue of those that are given up.
func checkHeld(t testing.TB, tracker *Tracker) {
	t.Helper()
	queued := map[hole]int64{}
	for _, h := range slices.Concat(tracker.holes, tracker.patient) {
		since := h.since
		h.since = 0
		queued[h] = since
	}
	used := 0
	for i, r := range tracker.reassemblies {
		if r == nil {
			continue
		}
		h := hole{slot: r.flow, serial: tracker.table.at(r.flow).serial}
		for ; r != nil; r = r.alternative {
			for d := range event.Direction(2) {
				s := &r.streams[d]
				used += s.held.lists
				for _, g := range s.held.pages {
					if g != nil {
						used += heldPageCost
					}
				}
				if s.held.empty() {
					continue
				}
				if off := distance(s.next, s.held.high()); off <= 0 || off > 2*limitWindow {
					t.Fatalf("what reassembly %d holds ends %d bytes after the next", i, off)
				}
				if n := len(s.held.pages); n > 2*limitWindow/sparse.PageBytes {
					t.Fatalf("a window of %d pages", n)
				}
				h.d = d
				since, ok := queued[h]
				if !ok {
					t.Fatalf("reassembly %d holds %d bytes after a hole that is in no queue", i, s.held.bytes)
				}
				if tracker.limits.Live && tracker.now-since > 2*timeoutRetransmission {
					t.Fatalf("reassembly %d has waited since %d, and it is %d", i, since, tracker.now)
				}
			}
		}
	}
	if used != tracker.pages.used {
		t.Fatalf("%d bytes are held, %d accounted for", used, tracker.pages.used)
	}
}

// What is kept of undecided flows besides that is accounted for, and within the limits.
func checkAccounts(t testing.TB, tracker *Tracker) {
	t.Helper()
	aside, transcripts, used := 0, 0, 0
	for _, r := range tracker.reassemblies {
		for n := 0; r != nil; r = r.alternative {
			if n++; n > 2 {
				t.Fatal("an alternative of an alternative")
			}
			used++
			transcripts += cap(r.log.data[0]) + cap(r.log.data[1]) + deliveryCost*len(r.log.deliveries)
			for d := range r.streams {
				s, kept := &r.streams[d], 0
				for i := range s.aside {
					kept += cap(s.aside[i].data)
				}
				if kept != s.asideBytes || len(s.aside) > limitAside || r.replaces && len(s.aside) > 0 {
					t.Fatalf("%d bytes in %d segments are kept aside, %d accounted for", kept, len(s.aside), s.asideBytes)
				}
				aside += kept
			}
		}
	}
	if aside != tracker.aside.used || transcripts != tracker.buffers.used || used != tracker.used {
		t.Fatalf("%d bytes are kept aside (%d), %d in transcripts (%d), of %d reassemblies (%d)", aside, tracker.aside.used, transcripts, tracker.buffers.used, used, tracker.used)
	}
	l := tracker.limits
	if aside > l.Aside || transcripts > l.Transcripts+deliveryCost*limitDeliveries*used || used > l.Undecided || tracker.pages.used > l.Held || tracker.table.length > l.Flows {
		t.Fatalf("%d bytes aside, %d in transcripts, %d held, of %d reassemblies and %d flows, are too much", aside, transcripts, tracker.pages.used, used, tracker.table.length)
	}
}

// Flows that were reset and have nothing left wait beside those that have, so that
// room for another reassembly is found in one step, however many there are.
func TestEvictUndecidedSteps(t *testing.T) {
	const flows, limit = 3000, 4
	tracker, tape := newTestTracker(Limits{Flows: 2 * flows, Undecided: limit})
	tape.decide = 100
	send := func(port uint16, flags uint8, data string) {
		p := seg(0, 1, 100, flags, data)
		p.SrcPort = port
		p.Address()
		tracker.Packet(p, nil)
	}
	for i := range uint16(flows) { // decided, and then reset
		send(i, decode.FlagACK, text(100))
		send(i, decode.FlagRST, "")
	}
	for i := range uint16(limit) {
		send(flows+i, decode.FlagACK, "hello")
	}
	p := seg(0, 1, 105, decode.FlagRST, "") // the third is reset, and so the least worthy
	p.SrcPort = flows + 2
	p.Address()
	tracker.Packet(p, nil)
	checkStates(t, tracker)
	if n := tracker.table.queues[aborted].length; n != flows {
		t.Fatalf("%d flows were reset and have nothing left, not %d", n, flows)
	}
	for i, evicted := range []int{2, 0, 1, 3} {
		// Whatever is evicted is at the head of its queue: nothing is searched.
		head := uint32(0)
		for _, s := range [...]state{reset, undecided} {
			if head == 0 {
				head = tracker.table.queues[s].head
			}
		}
		key := tracker.table.at(head).key
		tracker.evictUndecided()
		checkStates(t, tracker)
		if tracker.table.find(&key, key.Hash()) != 0 || !tape.conns[flows+evicted].closed {
			t.Errorf("%d: not the least worthy flow was evicted", i)
		}
	}
	if tracker.used != 0 {
		t.Errorf("%d reassemblies are left", tracker.used)
	}
	tracker.evictUndecided() // there is none
	tracker.Close()
	checkEmpty(t, tracker)
}

// In a full table a SYN without more gives way before a handshake does.
func TestEviction(t *testing.T) {
	tracker, tape := newTestTracker(Limits{Flows: 100, Undecided: 100, Held: 1 << 20})
	real := seg(0, 1, 99, decode.FlagACK, "hello")
	tracker.Packet(real, nil)
	for i := range 1000 {
		p := seg(0, int64(2+i), 5, decode.FlagSYN, "")
		p.SrcPort = uint16(2000 + i)
		p.Address()
		tracker.Packet(p, nil)
		if tracker.table.length > 100 {
			t.Fatalf("%d flows", tracker.table.length)
		}
	}
	if tape.conns[0].closed {
		t.Error("the handshake gave way to SYNs")
	}
	s := tracker.Stats()
	if s.EvictedEmbryonic != 1001-100 || s.Flows != 1001 {
		t.Errorf("%+v", s)
	}
	tracker.Close()
	s = tracker.Stats()
	if s.Flows != s.Embryonic+s.Undecided+s.Decided {
		t.Errorf("the sums do not add up: %+v", s)
	}
}

// A decided flow of UDP keeps its state, and gives way as what it is.
func TestDatagramEviction(t *testing.T) {
	for name, limits := range map[string]Limits{
		"a full table":     {Flows: 1, Undecided: 8},
		"no room for more": {Flows: 8, Undecided: 1},
	} {
		t.Run(name, func(t *testing.T) {
			tracker, tape := newTestTracker(limits)
			hello := datagram(0, 1, "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\xfe\xfd")
			for i := range 3 {
				tape.decide = 1 - i/2 // all but the last are decided at once
				p := *hello
				p.SrcPort += uint16(i)
				p.Address()
				tracker.Packet(&p, nil)
				if len(tape.conns) != i+1 {
					t.Fatalf("%d flows", len(tape.conns))
				}
			}
			if s := tracker.Stats(); s.EvictedDecided != 2 || s.EvictedUndecided != 0 || tape.conns[1].cause != event.NoLoss {
				t.Errorf("%+v", s)
			}
			other := *hello
			other.SrcPort += 9
			other.Address()
			tracker.Packet(&other, nil)
			if s := tracker.Stats(); s.EvictedDecided != 2 || s.EvictedUndecided != 1 || tape.conns[2].cause != event.Evicted {
				t.Errorf("%+v", s)
			}
			tracker.Close()
			checkEmpty(t, tracker)
		})
	}
}

// State that is kept for the next handshake of a flow of UDP gives way before
// that of a handshake, though it is younger, and also when it is some TCP's.
func TestSettledGivesWay(t *testing.T) {
	tracker, tape := newTestTracker(Limits{Flows: 8, Undecided: 2})
	send := func(port uint16, transport event.Transport, decide int) {
		const hello = "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\xfe\xfd"
		p := seg(0, int64(port), 100, decode.FlagACK, hello)
		if transport == event.UDP {
			p = datagram(0, int64(port), hello)
		}
		tape.decide = decide
		p.SrcPort = port
		p.Address()
		tracker.Packet(p, nil)
	}
	send(1, event.TCP, 0)
	send(2, event.UDP, 1)
	send(3, event.UDP, 0)
	if s := tracker.Stats(); tape.conns[0].closed || !tape.conns[1].closed || s.EvictedDecided != 1 || s.EvictedUndecided != 0 {
		t.Errorf("%+v", s)
	}
	tracker.Close()
	checkEmpty(t, tracker)
}

func TestDecided(t *testing.T) {
	tracker, tape := newTestTracker(DefaultLimits)
	tape.decide = 5
	tracker.Packet(seg(0, 1, 99, decode.FlagSYN, ""), nil)
	tracker.Packet(seg(0, 2, 100, decode.FlagACK, "hello"), nil)
	if !tape.conns[0].closed || tape.conns[0].cause != event.NoLoss {
		t.Fatal("not closed when it was decided")
	}
	bulk := seg(0, 3, 105, decode.FlagACK, text(1400))
	if n := testing.AllocsPerRun(100, func() { tracker.Packet(bulk, nil) }); n != 0 {
		t.Errorf("%v allocations for a packet of a decided flow", n)
	}
	if len(tape.conns[0].data[0]) != 5 {
		t.Error("bytes after the parser was done")
	}
	again := seg(0, 4, 9000, decode.FlagSYN, "")
	tracker.Packet(again, nil)
	tracker.Packet(seg(0, 5, 9001, decode.FlagACK, "hello"), nil)
	if len(tape.conns) != 2 || string(tape.conns[1].data[0]) != "hello" {
		t.Error("a SYN does not begin a new flow on a decided five-tuple")
	}
}

func TestNoAllocationInOrder(t *testing.T) {
	tracker, _ := newTestTracker(DefaultLimits)
	tracker.parser = mute{}
	tracker.Packet(seg(0, 1, 99, decode.FlagSYN, ""), nil)
	p := seg(0, 2, 100, decode.FlagACK, text(1400))
	tracker.Packet(p, nil)
	if n := testing.AllocsPerRun(100, func() { p.Seq += 1400; tracker.Packet(p, nil) }); n != 0 {
		t.Errorf("%v allocations for a segment in order", n)
	}
}

// mute is a parser, and the state of every flow in it, that takes everything and
// keeps nothing.
type mute struct{}

func (mute) Open(*event.Flow) conn                                        { return mute{} }
func (mute) Alternative(conn) conn                                        { return mute{} }
func (mute) Segment(event.Direction, event.Moment, []byte) parsers.Status { return parsers.NeedMore }
func (mute) Midstream(event.Direction)                                    {}
func (mute) EarlierBytes(event.Direction, event.Moment, []byte) parsers.Status {
	return parsers.NeedMore
}
func (mute) Gap(event.Direction, event.Moment, int) parsers.Status         { return parsers.NeedMore }
func (mute) Datagram(event.Direction, event.Moment, []byte) parsers.Status { return parsers.NeedMore }
func (mute) Forged(event.Forged)                                           {}
func (mute) Begun() bool                                                   { return false }
func (mute) Unproven() bool                                                { return false }
func (mute) Close(event.Loss)                                              {}

// A parser that fails costs the one flow, and is counted.
func TestGuard(t *testing.T) {
	tracker, _ := newTestTracker(DefaultLimits)
	tracker.limits.noRecover = false
	tracker.parser = failing{}
	tracker.Packet(seg(0, 1, 100, decode.FlagACK, "hello"), nil)
	if s := tracker.Stats(); s.Panics != 1 || s.Decided != 1 {
		t.Errorf("%+v", s)
	}
	f := tracker.Failure()
	if f == nil || f.Text != "a defect" || !strings.Contains(string(f.Stack), "failing.Segment") || f.Where != "192.0.2.1:40000 - 192.0.2.2:443 tcp" {
		t.Fatalf("%+v", f)
	}
	tracker.Packet(seg(1, 2, 100, decode.FlagACK, "the way back"), nil)
	if tracker.Failure() != f {
		t.Error("not the first failure")
	}
	tracker.Close()
	checkEmpty(t, tracker)
}

// failing is a parser, and the state of a flow in it, that fails on a segment.
type failing struct{ mute }

func (failing) Open(*event.Flow) conn { return failing{} }

func (failing) Segment(event.Direction, event.Moment, []byte) parsers.Status {
	panic("a defect")
}

// A SYN-ACK that comes late says where the stream begins of which nothing was
// delivered. What is held is then the beginning, or comes after it, or is not of
// this stream: it is never kept so far away that all between is walked through.
func TestLateBeginning(t *testing.T) {
	const guess = uint32(50_000_000)
	for name, c := range map[string]struct {
		begins uint32
		data   string
		forged uint64
	}{
		"at what is held":     {guess + 100, "held", 0},
		"before what is held": {guess + 96, "new held", 0},
		"within what is held": {guess + 102, "ld", 0},
		"after what is held":  {guess + 300, "new ", 1},
		"far away":            {guess + 1<<31, "new ", 1},
		"far before":          {guess - limitWindow, "new ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			tracker, tape := newTestTracker(Limits{Flows: 8, Undecided: 8, Held: 4 * heldPageCost})
			packets := []*decode.Packet{
				seg(0, 1, 99, decode.FlagSYN, ""),
				acking(seg(0, 2, 100, decode.FlagACK, "hello"), guess), // of an answer that was not seen
				acking(seg(1, 3, guess+100, decode.FlagACK, "held"), 105),
				acking(seg(1, 4, c.begins-1, decode.FlagSYN|decode.FlagACK, ""), 100),
			}
			if c.data != "held" && c.data != "ld" {
				packets = append(packets, acking(seg(1, 5, c.begins, decode.FlagACK, "new "), 105))
			}
			for _, p := range packets {
				tracker.Packet(p, nil)
				checkStates(t, tracker)
				checkHeld(t, tracker)
			}
			if s := tracker.Stats(); s.Forged.Data != c.forged || s.Gaps != 0 || s.Flows != 1 {
				t.Errorf("%+v", s)
			}
			if got := string(tape.conns[0].data[1]); got != c.data || tracker.pages.used != 0 {
				t.Errorf("%q, want %q; %d bytes held", got, c.data, tracker.pages.used)
			}
			tracker.Close()
			checkEmpty(t, tracker)
		})
	}
}

// Live, every hole of a stream is given up in its time, and not the first alone: those
// before bytes that the other side has are given up together, unless the capture may
// still bring what is in them. One that the other side has too waits for the flow's end.
func TestSeveralHoles(t *testing.T) {
	for _, c := range []struct {
		name  string
		ack   uint32
		later int64 // how much later than the others the last segment comes
		want  []string
		waits []int64
	}{
		{"acknowledged", 114, 0, []string{"", "???lo??wor??ld"}, []int64{timeoutHole - second, second}},
		{"one side alone", 0, 0, []string{"lo", "lo??wor", "lo??wor??ld"}, []int64{timeoutRetransmission - second, second, timeoutHole + timeoutRetransmission}},
		{"not acknowledged", 100, 0, []string{"", "", "???lo??wor??ld"}, []int64{timeoutHole + timeoutRetransmission, timeoutRetransmission, timeoutHandshakeLive}},
		{"the last not acknowledged", 110, 0, []string{"???lo??wor", "???lo??wor", "???lo??wor??ld"}, []int64{timeoutHole, timeoutRetransmission, timeoutHandshakeLive}},
		{"the last comes late", 114, timeoutHole - second, []string{"???lo", "???lo??wor??ld"}, []int64{second, timeoutHole}},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := DefaultLimits
			limits.Live = true
			tracker, tape := newTestTracker(limits)
			now := second
			for _, p := range []*decode.Packet{
				seg(0, now, 99, decode.FlagSYN, ""),
				acking(seg(1, now, 499, decode.FlagSYN|decode.FlagACK, ""), 100),
				acking(seg(0, now, 103, decode.FlagACK, "lo"), 500),
				acking(seg(0, now, 107, decode.FlagACK, "wor"), 500),
				acking(seg(0, now+c.later, 112, decode.FlagACK, "ld"), 500),
				acking(seg(1, now+c.later, 500, decode.FlagACK, "ok"), c.ack),
			} {
				if c.ack > 0 || p.DstPort == 443 && p.Flags&decode.FlagSYN == 0 {
					tracker.Packet(p, nil)
				}
			}
			now += c.later
			for i, want := range c.want {
				now += c.waits[i]
				tracker.Tick(now)
				checkHeld(t, tracker)
				if got := string(tape.conns[0].data[0]); got != want {
					t.Fatalf("%q, want %q", got, want)
				}
			}
			tracker.Close()
			checkEmpty(t, tracker)
		})
	}
}

// TestFarByte has a server send one byte of its flight first, and the others when no
// retransmission comes any more. Its client waits for them, and so does the tracker.
func TestFarByte(t *testing.T) {
	limits := DefaultLimits
	limits.Live = true
	tracker, tape := newTestTracker(limits)
	now := second
	for _, p := range []*decode.Packet{
		seg(0, now, 99, decode.FlagSYN, ""),
		acking(seg(1, now, 499, decode.FlagSYN|decode.FlagACK, ""), 100),
		acking(seg(0, now, 100, decode.FlagACK, "hello"), 500),
		acking(seg(1, now, 505, decode.FlagACK, "t"), 105),
	} {
		tracker.Packet(p, nil)
	}
	for range 4 {
		now += timeoutRetransmission
		tracker.Tick(now)
		checkHeld(t, tracker)
	}
	tracker.Packet(acking(seg(1, now, 500, decode.FlagACK, "fligh"), 105), nil)
	if got := string(tape.conns[0].data[1]); got != "flight" {
		t.Errorf("%q, want flight", got)
	}
	tracker.Close()
	checkEmpty(t, tracker)
}

// A stream whose holes are filled again and again, late but in time, holds up no
// other.
func TestHoleBehindAnother(t *testing.T) {
	limits := DefaultLimits
	limits.Live = true
	tracker, tape := newTestTracker(limits)
	other := func(p *decode.Packet) *decode.Packet {
		if p.SrcPort == 443 {
			p.DstPort++
		} else {
			p.SrcPort++
		}
		p.Address()
		return p
	}
	same := func(p *decode.Packet) *decode.Packet { return p }
	for _, of := range []func(*decode.Packet) *decode.Packet{same, other} {
		tracker.Packet(of(seg(0, 1, 99, decode.FlagSYN, "")), nil)
		tracker.Packet(of(acking(seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, ""), 100)), nil)
		tracker.Packet(of(acking(seg(0, 3, 101, decode.FlagACK, "a"), 500)), nil)
	}
	now := int64(4)
	for i := range uint32(30) { // the first hole is filled, and there is another
		tracker.Packet(acking(seg(0, now, 103+2*i, decode.FlagACK, "b"), 500), nil)
		tracker.Packet(acking(seg(0, now, 100+2*i, decode.FlagACK, "c"), 500), nil)
		now += 2 * second
		tracker.Tick(now)
		checkHeld(t, tracker)
	}
	if got := string(tape.conns[1].data[0]); got != "?a" {
		t.Errorf("the other flow has %q", got)
	}
	tracker.Close()
	checkEmpty(t, tracker)
}

// A hole that was filled leaves nothing, however many flows had one.
func TestFilledHoles(t *testing.T) {
	tracker, tape := newTestTracker(Limits{Flows: 8, Undecided: 8, Held: 1 << 20})
	for i := range 3 * limitOldHoles {
		for _, p := range []*decode.Packet{
			seg(1, 1, 500, decode.FlagACK, "hel"), seg(1, 2, 505, decode.FlagACK, "!"), seg(1, 3, 503, decode.FlagACK, "lo"),
		} {
			p.DstPort = uint16(i)
			p.Address()
			tracker.Packet(p, nil)
		}
		if got := string(tape.conns[i].data[0]); got != "hello!" {
			t.Fatalf("%q", got)
		}
		checkHeld(t, tracker)
		if n := len(tracker.holes); n > limitOldHoles+4*8 {
			t.Fatalf("%d holes are queued after %d flows", n, i)
		}
	}
	tracker.Close()
	checkEmpty(t, tracker)
}

// FuzzTracker feeds packets that contradict each other: nothing panics, limits
// hold, every flow is closed, and the sums add up.
func FuzzTracker(f *testing.F) {
	f.Add([]byte("\x00\x02\x10\x00\x01\x12\x20\x00\x00\x10\x11\x10\x01\x10\x21\x05"))
	play := func(t *testing.T, in []byte, live bool) {
		tracker, tape := newTestTracker(Limits{Flows: 8, Undecided: 8, Held: 4 * heldPageCost, Transcripts: 4096, Aside: 4096, Live: live})
		now := int64(0)
		for ; len(in) >= 6; in = in[6:] {
			p := seg(int(in[0]&1), now, uint32(in[1])<<5|uint32(in[0]&0xf0)<<24, in[2]&0x37, text(int(in[3])*4))
			if in[0]&2 != 0 {
				p.Missing = int(in[4])
				if in[0]&1 == 0 { // the snaplen cut it
					p.Frame.Length += uint32(p.Missing)
				}
			}
			p.Ack = uint32(in[4]) << 5
			p.SrcPort += uint16(in[0] >> 2 & 3)
			p.DstPort += uint16(in[0] >> 2 & 3)
			p.Address()
			now += int64(in[5]) << 22
			tracker.Packet(p, nil)
			tracker.Tick(now)
			checkStates(t, tracker)
			checkHeld(t, tracker)
			checkAccounts(t, tracker)
		}
		tracker.Close()
		checkEmpty(t, tracker)
		for _, c := range tape.conns {
			if !c.closed {
				t.Fatal("a flow that nobody closed")
			}
		}
		if s := tracker.Stats(); s.Flows != s.Embryonic+s.Undecided+s.Decided {
			t.Fatalf("the sums do not add up: %+v", s)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		play(t, in, false)
		play(t, in, true)
	})
}

// An entry fills two cache lines, and the first has what most packets need.
func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != entrySize {
		t.Errorf("an entry has %d bytes", n)
	}
	if n := unsafe.Offsetof(entry{}.start); n != entrySize/2 {
		t.Errorf("the second half begins at %d", n)
	}
}

// What handshakes say of their flow is read from the packet with the first
// payload: its ends, VLANs, tunnels and MAC addresses. Over EAPOL the MAC
// addresses are the ends, whatever group the frame was for.
func TestDescribe(t *testing.T) {
	segment := wire(1, 100, 0, decode.FlagACK, []byte("hello"), true).Frame.Data
	vxlan := slices.Concat([]byte{0xc3, 0x51, 0x12, 0xb5, 0, byte(8 + 8 + 18 + len(segment)), 0, 0}, []byte{8, 0, 0, 0, 0, 0, 7, 0},
		[]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x81\x00\x00\x07\x08\x00"), segment)
	eap := []byte("\x01\x80\xc2\x00\x00\x03\x02\x00\x00\x00\x00\x01\x88\x8e\x02\x00\x00\x06\x02\x07\x00\x06\x0d\x20")
	for _, c := range []struct {
		name  string
		link  linktype.Type
		data  []byte
		class decode.Class
		want  event.Flow
	}{
		{"a tunnel", linktype.Raw, overIP(0, 17, vxlan), decode.Segment, event.Flow{Transport: event.TCP,
			Endpoints: [2]event.Endpoint{{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 2}), Port: 443, MAC: [6]byte{2, 5: 1}},
				{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Port: 40000, MAC: [6]byte{2, 5: 2}}},
			VLANs: [2]uint16{7}, VLANCount: 1, Tunnel: []string{"vxlan"}}},
		{"EAPOL", linktype.Ethernet, eap, decode.EAP, event.Flow{Transport: event.EAPOL,
			Endpoints: [2]event.Endpoint{{MAC: [6]byte{2, 5: 1}}, {MAC: [6]byte{1, 0x80, 0xc2, 0, 0, 3}}}}},
	} {
		tracker, tape := newTestTracker(DefaultLimits)
		var p decode.Packet
		f := &capture.Frame{Data: c.data, Length: uint32(len(c.data)), LinkType: c.link}
		if got := new(decode.Decoder).Decode(f, &p); got != c.class {
			t.Fatalf("%s: %v", c.name, got)
		}
		tracker.Packet(&p, nil)
		if d := cmp.Diff(c.want, *tape.conns[0].flow, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}
