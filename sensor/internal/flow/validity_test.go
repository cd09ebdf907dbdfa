package flow

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// inVLAN gives p VLAN tags.
func inVLAN(p *decode.Packet, ids ...uint32) *decode.Packet {
	frame := make([]byte, 12)
	for _, id := range ids {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x81, 0), uint16(id))
	}
	f := *p.Frame
	f.LinkType, f.Data = linktype.Ethernet, slices.Concat(frame, []byte{8, 0}, p.Frame.Data)
	f.Length = uint32(len(f.Data))
	if c := new(decode.Decoder).Decode(&f, p); c != decode.Segment {
		panic(c)
	}
	p.Address()
	return p
}

// longer makes of p a packet that says to have n bytes more than its frame.
func longer(p *decode.Packet, n int) *decode.Packet {
	p.Missing = n
	return p
}

// handshaken begins with a SYN and its answer.
func handshaken(packets ...*decode.Packet) []*decode.Packet {
	return append([]*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, "")}, packets...)
}

func TestValidity(t *testing.T) {
	for _, c := range []struct {
		name    string
		packets []*decode.Packet
		want    []string // direction 0, direction 1 of each connection
		forged  event.Forged
	}{
		{"a RST with another number", handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(1, 3, 505, decode.FlagRST, ""), seg(0, 3+5*second, 102, decode.FlagACK, "llo")),
			[]string{"hello", ""}, event.ForgedRST},
		{"a RST with the next number", handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(1, 3, 500, decode.FlagRST, ""), seg(0, 3+5*second, 102, decode.FlagACK, "llo")),
			[]string{"he", "", "llo", ""}, 0},
		{"a FIN before bytes that come after", handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 3, 103, decode.FlagFIN|decode.FlagACK, ""), seg(1, 4, 500, decode.FlagFIN|decode.FlagACK, ""),
			seg(0, 5, 102, decode.FlagACK, "llo")), []string{"hello", ""}, event.ForgedFIN},
		{"a FIN before the first byte", handshaken(seg(0, 2, 90, decode.FlagFIN|decode.FlagACK, ""), seg(0, 3, 100, decode.FlagACK, "hello")), []string{"hello", ""}, event.ForgedFIN},
		{"a packet longer than its frame", handshaken(seg(0, 2, 100, decode.FlagACK, "he"), longer(seg(0, 3, 102, decode.FlagACK, "X"), 9), seg(0, 4, 102, decode.FlagACK, "llo")),
			[]string{"hello", ""}, event.ForgedConflict},
		{"a frame that the mirror has cut", handshaken(longer(seg(0, 2, 100, decode.FlagACK, "he"), 2), seg(0, 3, 104, decode.FlagACK, "o"), acking(seg(1, 4, 500, decode.FlagACK, "world"), 105)),
			[]string{"he??o", "world"}, 0},
		{"a SYN in between", handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 3, 1<<30, decode.FlagSYN, ""), seg(0, 4, 102, decode.FlagACK, "llo")),
			[]string{"hello", ""}, event.ForgedSYN},
		{"an answer with another number", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, ""), acking(seg(1, 2, 1<<30, decode.FlagSYN|decode.FlagACK, ""), 100), acking(seg(1, 3, 499, decode.FlagSYN|decode.FlagACK, ""), 100),
			acking(seg(0, 4, 100, decode.FlagACK, "hello"), 500), acking(seg(1, 5, 500, decode.FlagACK, "world"), 105)}, []string{"hello", "world"}, event.ForgedSYN},
		{"nothing acknowledged", handshaken(seg(0, 2, 100, 0, "XXXXX"), seg(0, 3, 100, decode.FlagACK, "hello")), []string{"hello", ""}, event.ForgedACK},
		{"of what was not sent", handshaken(acking(seg(0, 2, 100, decode.FlagACK, "XXXXX"), 1<<31), seg(0, 3, 100, decode.FlagACK, "hello"), seg(1, 4, 500, decode.FlagACK, "world")),
			[]string{"hello", "world"}, event.ForgedACK},
		{"of what the capture brings later", handshaken(acking(seg(1, 2, 500, decode.FlagACK, "world"), 105), seg(0, 3, 100, decode.FlagACK, "hello")),
			[]string{"hello", "world"}, 0},
		{"data in SYN and SYN-ACK", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, "hel"), acking(seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, "wor"), 103),
			acking(seg(0, 3, 103, decode.FlagACK, "lo"), 503), acking(seg(1, 4, 503, decode.FlagACK, "ld"), 105)}, []string{"hello", "world"}, 0},
		{"data in the SYN that is refused", []*decode.Packet{seg(0, 1, 99, decode.FlagSYN, "hel"), acking(seg(1, 2, 499, decode.FlagSYN|decode.FlagACK, ""), 100),
			acking(seg(0, 3, 100, decode.FlagACK, "hello"), 500)}, []string{"hello", ""}, 0},
		{"a keep-alive before the first byte", handshaken(seg(0, 2+40*second, 99, decode.FlagACK, "\x00"), seg(0, 3+40*second, 100, decode.FlagACK, "hello")),
			[]string{"hello", ""}, 0},
		{"a hole that is filled late", handshaken(seg(0, 2, 103, decode.FlagACK, "lo"), seg(0, 20*second, 100, decode.FlagACK, "hel")), []string{"hello", ""}, 0},
		{"one direction without a tag", []*decode.Packet{inVLAN(seg(0, 1, 99, decode.FlagSYN, ""), 7), seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), inVLAN(seg(0, 2, 100, decode.FlagACK, "hello"), 7),
			seg(1, 3, 500, decode.FlagACK, "world")}, []string{"hello", "world"}, 0},
		{"a priority", []*decode.Packet{inVLAN(seg(0, 1, 99, decode.FlagSYN, ""), 0), seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), seg(0, 2, 100, decode.FlagACK, "hello"),
			inVLAN(seg(1, 3, 500, decode.FlagACK, "world"), 0)}, []string{"hello", "world"}, 0},
		{"two customers", []*decode.Packet{inVLAN(seg(0, 1, 99, decode.FlagSYN, ""), 7), inVLAN(seg(0, 1, 99, decode.FlagSYN, ""), 8), inVLAN(seg(0, 2, 100, decode.FlagACK, "hello"), 7),
			inVLAN(seg(0, 2, 100, decode.FlagACK, "world"), 8)}, []string{"hello", "", "world", ""}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, conns := script(t, c.packets...)
			var got []string
			var forged event.Forged
			for _, c := range conns {
				got = append(got, string(c.data[0]), string(c.data[1]))
				forged |= c.forged
			}
			if !slices.Equal(got, c.want) || forged != c.forged {
				t.Errorf("got %q, forged %v; want %q, %v", got, forged.Names(), c.want, c.forged.Names())
			}
		})
	}
}

// Of two copies the first goes on, and the other is told beside it.
func TestAlternative(t *testing.T) {
	for name, packets := range map[string][]*decode.Packet{
		"of what was delivered":   handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 3, 102, decode.FlagACK, "XXX"), seg(0, 4, 102, decode.FlagACK, "llo"), seg(1, 5, 500, decode.FlagACK, "world")),
		"of what was held":        handshaken(seg(0, 2, 102, decode.FlagACK, "XXX"), seg(0, 3, 102, decode.FlagACK, "llo"), seg(0, 4, 100, decode.FlagACK, "he"), seg(1, 5, 500, decode.FlagACK, "world")),
		"of what came in between": handshaken(seg(0, 2, 100, decode.FlagACK, "heXXX"), seg(0, 3, 103, decode.FlagACK, "lo"), seg(0, 4, 100, decode.FlagACK, "hel"), seg(1, 5, 500, decode.FlagACK, "world")),
		"and of the first again":  handshaken(seg(0, 2, 100, decode.FlagACK, "heXXX"), seg(0, 3, 102, decode.FlagACK, "l"), seg(0, 4, 102, decode.FlagACK, "XXX"), seg(0, 5, 103, decode.FlagACK, "lo"), seg(1, 6, 500, decode.FlagACK, "world")),
		"and of another":          handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 3, 102, decode.FlagACK, "XXX"), seg(0, 4, 102, decode.FlagACK, "l"), seg(0, 5, 103, decode.FlagACK, "lo"), seg(1, 6, 500, decode.FlagACK, "world")),
	} {
		t.Run(name, func(t *testing.T) {
			acknowledge(packets)
			tracker, tape := newTestTracker(DefaultLimits)
			for _, p := range packets {
				tracker.Packet(p, nil)
			}
			tracker.Close()
			checkEmpty(t, tracker)
			var got []string
			for _, c := range tape.conns {
				got = append(got, string(c.data[0])+" "+string(c.data[1]))
			}
			if !strings.Contains(got[0], "XXX") || !slices.Contains(got[1:], "hello world") || tape.conns[0].forged != event.ForgedConflict {
				t.Errorf("got %q, forged %v", got, tape.conns[0].forged.Names())
			}
		})
	}
}

// TestUrgent has urgent bytes, as a segment says where they are. The flow is told with them
// and without them.
func TestUrgent(t *testing.T) {
	type urgent struct {
		seq     uint32
		pointer uint16
		data    string
		flags   uint8
	}
	const flags = decode.FlagACK | decode.FlagURG
	for name, c := range map[string]struct {
		segments []urgent
		inline   string
	}{
		"in the middle":    {[]urgent{{100, 3, "heXllo", flags}}, "heXllo"},
		"the first":        {[]urgent{{100, 1, "Xhello", flags}}, "Xhello"},
		"a pointer of 0":   {[]urgent{{100, 0, "Xhello", flags}}, "Xhello"},
		"a segment of it":  {[]urgent{{100, 0, "he", decode.FlagACK}, {102, 1, "X", flags}, {103, 0, "llo", decode.FlagACK}}, "heXllo"},
		"two of them":      {[]urgent{{100, 2, "hXel", flags}, {104, 2, "lXo", flags}}, "hXellXo"},
		"said before":      {[]urgent{{100, 4, "he", flags}, {102, 2, "lXlo", flags}}, "helXlo"},
		"said by itself":   {[]urgent{{100, 0, "he", decode.FlagACK}, {102, 2, "", flags}, {102, 0, "lXlo", decode.FlagACK}}, "helXlo"},
		"out of order":     {[]urgent{{103, 0, "llo", decode.FlagACK}, {100, 3, "heX", flags}}, "heXllo"},
		"after the others": {[]urgent{{103, 1, "Xllo", flags}, {100, 0, "hel", decode.FlagACK}}, "helXllo"},
	} {
		t.Run(name, func(t *testing.T) {
			hello := strings.ReplaceAll(c.inline, "X", "")
			tracker, tape := newTestTracker(DefaultLimits)
			tracker.Packet(wire(0, 99, 0, decode.FlagSYN, nil, true), nil)
			tracker.Packet(wire(1, 499, 100, decode.FlagSYN|decode.FlagACK, nil, true), nil)
			for _, s := range c.segments {
				tracker.Packet(pointing(s.pointer, 0, s.seq, 500, s.flags, s.data), nil)
				checkStates(t, tracker)
				checkHeld(t, tracker)
				checkAccounts(t, tracker)
			}
			tracker.Close()
			checkEmpty(t, tracker)
			var got []string
			for _, x := range tape.conns {
				got = append(got, string(x.data[0]))
			}
			if !slices.Contains(got, c.inline) || !slices.Contains(got, hello) {
				t.Errorf("got %q, want %q and %q", got, c.inline, hello)
			}
		})
	}
}

// What came before the SYN, and does not begin where the SYN says, may be forged: the
// flow is told without it too.
func TestBeforeSYN(t *testing.T) {
	const bad, good = false, true
	for _, c := range []struct {
		name   string
		sum    bool
		forged event.Forged
	}{{"another number", good, event.ForgedData}, {"a bad checksum", bad, event.ForgedData | event.ForgedChecksum}} {
		tracker, tape := newTestTracker(DefaultLimits)
		for _, p := range []*decode.Packet{
			wire(1, 600, 200, decode.FlagACK, []byte("XXX"), c.sum),
			wire(0, 99, 0, decode.FlagSYN, nil, good),
			wire(1, 499, 100, decode.FlagSYN|decode.FlagACK, nil, good),
			wire(0, 100, 500, decode.FlagACK, []byte("hello"), good),
			wire(1, 500, 105, decode.FlagACK, []byte("world"), good),
		} {
			tracker.Packet(p, nil)
			checkStates(t, tracker)
		}
		tracker.Close()
		checkEmpty(t, tracker)
		found := false
		for _, x := range tape.conns {
			found = found || string(x.data[0])+string(x.data[1]) == "worldhello" // the server was seen first
		}
		if got := tape.conns[0].forged; !found || got != c.forged {
			t.Errorf("%s: found %v, forged %v", c.name, found, got.Names())
		}
	}
}

// A SYN that nothing follows is counted where the flow that goes on is decided by then,
// but not where that had ended.
func TestUnfollowedSYN(t *testing.T) {
	for _, goesOn := range []bool{true, false} {
		tracker, tape := newTestTracker(DefaultLimits)
		tape.decide = 5
		packets := handshaken(seg(0, 2, 100, decode.FlagACK, "he"), seg(0, 4, 102, decode.FlagACK, "llo"))
		acknowledge(packets)
		syn := seg(0, 3, 1<<30, decode.FlagSYN, "")
		if !goesOn {
			syn = seg(0, 5, 1<<30, decode.FlagSYN, "")
		}
		packets = append(packets, syn)
		slices.SortStableFunc(packets, func(a, b *decode.Packet) int { return int(a.Frame.Clock - b.Frame.Clock) })
		for _, p := range packets {
			tracker.Packet(p, nil)
		}
		tracker.Close()
		if n := tracker.Stats().Forged.SYN; (n == 1) != goesOn || string(tape.conns[0].data[0]) != "hello" {
			t.Errorf("goes on %v: %d, %q", goesOn, n, tape.conns[0].data[0])
		}
	}
}

// Where only the server is seen, what it acknowledges says where the client is: what
// somebody forges in the client's name, far from there, says nothing of the flow.
func TestOneSided(t *testing.T) {
	for name, forged := range map[string]*decode.Packet{
		"data":      acking(seg(0, 3, 1<<30, decode.FlagACK, "XXX"), 503),
		"a FIN":     acking(seg(0, 3, 1<<30, decode.FlagFIN|decode.FlagACK, ""), 503),
		"a SYN-ACK": acking(seg(0, 3, 1<<30, decode.FlagSYN|decode.FlagACK, ""), 500),
		"old data":  acking(seg(0, 3, 1<<31, decode.FlagACK, "XXX"), 503),
	} {
		for _, begun := range []bool{true, false} {
			tracker, tape := newTestTracker(DefaultLimits)
			if begun {
				tracker.Packet(acking(seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), 100), nil)
			}
			for _, p := range []*decode.Packet{
				acking(seg(1, 2, 500, decode.FlagACK, "wor"), 105), forged, acking(seg(1, 4, 503, decode.FlagACK, "l"), 105), acking(seg(1, 5, 504, decode.FlagACK, "d"), 110),
			} {
				tracker.Packet(p, nil)
				checkStates(t, tracker)
			}
			got := string(tape.conns[0].data[0]) + string(tape.conns[0].data[1]) // before its end
			if got != "world" {
				t.Errorf("%s, begun %v: %q", name, begun, got)
			}
			tracker.Close()
			checkEmpty(t, tracker)
		}
	}
}

// What the checksums of a sender are like says whether a bad one counts.
func TestChecksums(t *testing.T) {
	const bad, good = false, true
	for _, c := range []struct {
		name       string
		checksums  Checksums
		sums       [3]bool // of the SYN, of a segment, and of another in its place
		want       string
		unverified uint64
	}{
		{"a forged one", ChecksumsAuto, [3]bool{good, bad, good}, "hello", 0},
		{"all are left to the card", ChecksumsAuto, [3]bool{bad, bad, bad}, "XXXXX", 3},
		{"all are to be good", ChecksumsVerify, [3]bool{bad, bad, good}, "hello", 0},
		{"nobody looks", ChecksumsIgnore, [3]bool{good, bad, good}, "XXXXX", 0},
	} {
		limits := DefaultLimits
		limits.Checksums = c.checksums
		tracker, tape := newTestTracker(limits)
		tracker.Packet(wire(0, 99, 0, decode.FlagSYN, nil, c.sums[0]), nil)
		tracker.Packet(wire(0, 100, 1, decode.FlagACK, []byte("XXXXX"), c.sums[1]), nil)
		tracker.Packet(wire(0, 100, 1, decode.FlagACK, []byte("hello"), c.sums[2]), nil)
		tracker.Close()
		if got := string(tape.conns[0].data[0]); got != c.want || tracker.Stats().Unverified != c.unverified {
			t.Errorf("%s: %q, %d unverified", c.name, got, tracker.Stats().Unverified)
		}
	}
}

// BenchmarkAside measures what a segment costs that changes nothing, while all that
// may be kept aside is.
func BenchmarkAside(b *testing.B) {
	tracker, _ := newTestTracker(DefaultLimits)
	tracker.Packet(seg(0, 1, 99, decode.FlagSYN, ""), nil)
	tracker.Packet(acking(seg(1, 1, 499, decode.FlagSYN|decode.FlagACK, ""), 100), nil)
	tracker.Packet(acking(seg(0, 1, 100, decode.FlagACK, "he"), 500), nil)
	tracker.Packet(acking(seg(1, 1, 500, decode.FlagACK, "he"), 102), nil)
	for i := range uint32(limitAside) { // what they acknowledge was never sent
		tracker.Packet(acking(seg(0, 1, 102+i, decode.FlagACK, "x"), 100_000), nil)
		tracker.Packet(acking(seg(1, 1, 502+i, decode.FlagACK, "x"), 100_000), nil)
	}
	again := acking(seg(0, 1, 101, decode.FlagACK, "e"), 500)
	b.ReportAllocs()
	for b.Loop() {
		tracker.Packet(again, nil)
	}
}
