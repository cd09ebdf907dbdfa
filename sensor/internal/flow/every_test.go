package flow

import (
	"testing"

	"github.com/oddcert/oddcert/parsers"
)

// greedy wants every datagram of a flow until one says that it is over.
type greedy struct{ *tape }

func (g greedy) Datagram(h *parsers.Conn, d parsers.Direction, at parsers.Moment, b []byte) parsers.Verdict {
	g.tape.Datagram(h, d, at, b)
	if string(b) == "over" {
		return parsers.Decided
	}
	return parsers.Every
}

// A flow of which the parser wants every datagram gets those that look like
// nothing, until it is decided; others do not.
func TestEveryDatagram(t *testing.T) {
	tracker, tape := newTestTracker(Limits{Flows: 4, Undecided: 2})
	tracker.parser = greedy{tape}
	send := func(port uint16, time int64, data string) {
		p := seg(0, time, 0, 0, data)
		p.Transport, p.SrcPort = parsers.UDP, port
		p.setKey()
		tracker.Packet(p, nil)
	}
	const hello = "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\xfe\xfd"
	send(1, 1, "before")
	send(1, 2, hello)
	send(2, 3, "of another flow")
	send(1, 4, "more")
	send(1, 5, "over")
	send(1, 6, "after")
	if len(tape.conns) != 1 || string(tape.conns[0].data[0]) != hello+"moreover" || tracker.every != 0 {
		t.Errorf("%d flows, %d want all", len(tape.conns), tracker.every)
	}
	// What gives way or expires wants nothing any more.
	for port := range uint16(6) {
		send(10+port, 7, hello)
	}
	if tracker.every != 2 {
		t.Errorf("%d flows want all, of 2 that may be undecided", tracker.every)
	}
	tracker.Tick(8 + timeoutHandshake)
	if tracker.every != 0 {
		t.Errorf("%d flows want all after they expired", tracker.every)
	}
	tracker.Close()
	checkEmpty(t, tracker)
}
