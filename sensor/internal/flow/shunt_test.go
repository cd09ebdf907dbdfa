package flow

import (
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// asked is a shunter that writes down what it is asked.
type asked struct {
	flows  []capture.ShuntKey
	seen   []int64
	states []capture.ShuntState
}

func (a *asked) Shunt(k capture.ShuntKey, seen int64, state capture.ShuntState) capture.ShuntState {
	a.flows, a.seen, a.states = append(a.flows, k), append(a.seen, seen), append(a.states, state)
	return state + 10
}

// TestShunt asks for flows that are decided and go on, and for no others.
func TestShunt(t *testing.T) {
	tracker, tape := newTestTracker(DefaultLimits)
	tape.decide = 100
	var a asked
	tracker.Shunter = &a
	var time int64
	seq := [2]uint32{1000, 2000}
	send := func(d int, flags uint8, data string) {
		time++
		tracker.Packet(acking(seg(d, time, seq[d], flags, data), seq[1-d]), nil)
		seq[d] += uint32(len(data))
	}
	wantAsked := func(n int) {
		t.Helper()
		if len(a.flows) != n {
			t.Fatalf("asked %d times after packet %d, want %d", len(a.flows), time, n)
		}
	}
	for range 99 {
		send(0, decode.FlagACK, "x")
		send(1, decode.FlagACK, "")
	}
	wantAsked(0)
	send(0, decode.FlagACK, "x") // decides
	for range shuntAfter - 1 {
		send(1, decode.FlagACK, "y")
	}
	wantAsked(0)
	send(0, decode.FlagACK, "")
	wantAsked(1)
	want := seg(0, 0, 0, 0, "").ShuntKey()
	if a.flows[0] != want || a.seen[0] != time || a.states[0] != 0 {
		t.Errorf("asked for %+v at %d with state %d", a.flows[0], a.seen[0], a.states[0])
	}
	for range 300 { // with each one that still comes
		send(0, decode.FlagACK, "z")
	}
	wantAsked(301)
	if a.states[1] != 10 || a.states[300] != 3000 {
		t.Errorf("states %v", a.states)
	}
	// One direction ends, the other goes on.
	send(0, decode.FlagFIN|decode.FlagACK, "")
	send(1, decode.FlagACK, "y")
	wantAsked(302)

	// The five-tuple again: nothing is asked before it is decided, and from
	// the beginning.
	seq = [2]uint32{1 << 30, 1 << 31}
	send(0, decode.FlagSYN, "")
	seq[0]++
	send(1, decode.FlagSYN|decode.FlagACK, "")
	seq[1]++
	for range 99 {
		send(0, decode.FlagACK, "x")
	}
	wantAsked(302)
	for range 1 + shuntAfter {
		send(0, decode.FlagACK, "x")
	}
	wantAsked(303)
	if a.states[302] != 0 {
		t.Errorf("a new flow has the state %d of another", a.states[302])
	}
}

// TestShuntUndecided never asks for what is not decided, for flows that were
// reset, and for UDP.
func TestShuntUndecided(t *testing.T) {
	tracker, tape := newTestTracker(DefaultLimits)
	var a asked
	tracker.Shunter = &a
	for i := range 300 {
		tracker.Packet(seg(0, int64(i), uint32(i), decode.FlagACK, "x"), nil)
	}
	tracker.Packet(seg(1, 300, 1, decode.FlagRST, ""), nil)
	for i := range 300 {
		tracker.Packet(seg(1, int64(300+i), uint32(i), decode.FlagACK, ""), nil)
	}
	tape.decide = 1
	hello := dtlsHello(t)
	for i := range 300 {
		tracker.Packet(datagram(0, int64(i), hello), nil)
	}
	if len(a.flows) != 0 {
		t.Errorf("asked for %+v", a.flows[0])
	}
}

// dtlsHello is the beginning of a DTLS handshake: the header of a record
// (RFC 6347, section 4.1) with that of a ClientHello in it.
func dtlsHello(t *testing.T) string {
	t.Helper()
	record := "\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40"
	message := "\x01\x00\x00\x34\x00\x00\x00\x00\x00\x00\x00\x34\xfe\xfd"
	hello := record + message + string(make([]byte, 0x40-len(message)))
	if !parsers.Looks([]byte(hello)) {
		t.Fatal("no DTLS")
	}
	return hello
}

type sink struct{ calls int }

func (s *sink) Shunt(_ capture.ShuntKey, seen int64, _ capture.ShuntState) capture.ShuntState {
	s.calls++
	return capture.ShuntState(seen)
}

// TestShuntAllocates takes the packets of a decided flow.
func TestShuntAllocates(t *testing.T) {
	tracker, tape := newTestTracker(DefaultLimits)
	tape.decide = 1
	s := new(sink)
	tracker.Shunter = s
	p := seg(0, 1, 1, decode.FlagACK, "x")
	tracker.Packet(p, nil)
	if n := testing.AllocsPerRun(1000, func() { tracker.Packet(p, nil) }); n != 0 || s.calls < 60 {
		t.Errorf("%v allocations, asked %d times", n, s.calls)
	}
}

// TestShuntBeside withholds no frames of a flow that is decided while another on the
// same five-tuple is not: it may be forged, and decide what the real one shows.
func TestShuntBeside(t *testing.T) {
	tracker, tape := newTestTracker(DefaultLimits)
	var a asked
	tracker.Shunter = &a
	packets := handshaken(seg(0, 2, 100, decode.FlagACK, "hello"))
	acknowledge(packets)
	for _, p := range packets {
		tracker.Packet(p, nil)
	}
	tape.decide = 1
	tracker.Packet(seg(0, 3, 1<<30, decode.FlagSYN, ""), nil)
	for i := range 3 * shuntAfter {
		tracker.Packet(acking(seg(0, int64(4+i), 1<<30+1+uint32(i), decode.FlagACK, "x"), 1<<29), nil)
	}
	if len(a.flows) != 0 {
		t.Errorf("asked %d times", len(a.flows))
	}
	tape.decide = 0
	tracker.Packet(acking(seg(1, 100, 500, decode.FlagACK, "world"), 105), nil)
	if got := string(tape.conns[0].data[1]); got != "world" {
		t.Errorf("the other flow got %q", got)
	}
	tracker.Close()
	checkEmpty(t, tracker)
}
