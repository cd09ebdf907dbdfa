package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Traffic is what a capture has brought.
type Traffic struct {
	Elapsed    time.Duration
	Interfaces []*Interface // that were captured on, as they were meanwhile
	Heard      Heard
	Handshakes Handshakes
	Counters   *output.Counters
	CardLost   uint64 // frames that cards dropped meanwhile
	NoShunt    error  // why the kernel cannot withhold flows; nil where it can, or need not
}

// The shares from which on something is wrong, in percent. A mirror port that is sound
// still shows flows that begin or end with the capture, and repeated segments.
const (
	oneSidedSome, oneSidedMany = 10, 50
	doubledSome, doubledMany   = 3, 20
	gapsSome, gapsMany         = 1, 10
	cutMany                    = 1
)

// JudgeTraffic says what is wrong with the traffic.
func JudgeTraffic(t *Traffic) []Finding {
	var all []Finding
	frames := uint64(0)
	for _, i := range t.Interfaces {
		r := &report{group: GroupInterface, subject: i.Name}
		f := t.Heard.ByInterface[i.Name]
		if i.Listeners > 0 {
			r.ok("promiscuous", "it takes the frames for all addresses")
		} else {
			r.problem("promiscuous", "ip link set "+i.Name+" promisc on", "it takes the frames for its own address only, although it was asked for all")
		}
		frames += f.Count
		switch {
		case f.Count == 0:
			r.problem("frames", "", "no frame came in %v: look at the mirror session of the switch, and at the cable", t.Elapsed.Round(time.Second))
		case f.Count == f.Group:
			r.problem("frames", "", "%d frames came in %v, all of them broadcast or multicast: nothing is mirrored to this port", f.Count, t.Elapsed.Round(time.Second))
		default:
			seconds := t.Elapsed.Seconds()
			r.ok("frames", "%d frames came in %v: %.0f a second, %s", f.Count, t.Elapsed.Round(time.Second), float64(f.Count)/seconds, bits(float64(8*f.Bytes)/seconds))
		}
		all = append(all, r.findings...)
	}
	r := &report{group: GroupTraffic}
	t.judgeCapture(r)
	if frames > 0 {
		t.judgeMirror(r)
		t.judgeTLS(r)
	}
	return append(all, r.findings...)
}

// judgeCapture judges the program itself.
func (t *Traffic) judgeCapture(r *report) {
	c := &t.Counters.Capture
	if c.Dropped > 0 {
		r.problem("ring", "", "the kernel dropped %d of %d frames since oddcert did not read them in time: give it more workers or memory",
			c.Dropped, c.Frames+c.Dropped)
	} else {
		r.ok("ring", "the kernel dropped none of %d frames that it captured", c.Frames)
	}
	switch {
	case t.NoShunt != nil:
		r.warn("shunt", "setcap cap_net_raw,cap_bpf+ep $(command -v oddcert)", "the kernel cannot withhold flows whose handshake is over: %v", t.NoShunt)
	case c.Shunted > 0:
		r.ok("shunt", "the kernel has withheld %d frames of flows whose handshake was over", c.Shunted)
	default:
		r.ok("shunt", "the kernel can withhold frames of flows whose handshake is over")
	}
	if c.Jumps > 0 {
		r.warn("clock", "chronyc tracking", "the clock of this machine jumped %s", plural(c.Jumps, "time", "times"))
	}
}

// judgeMirror judges whether the mirror port shows each frame, and once.
func (t *Traffic) judgeMirror(r *report) {
	h, flows := &t.Heard, t.flows()
	switch s := share(h.OneSided, h.Flows); {
	case h.Flows == 0:
		r.ok("directions", "no flow of TCP had enough segments to tell whether both directions are seen")
	case s >= oneSidedSome:
		level := Warning
		if s >= oneSidedMany {
			level = Problem
		}
		r.add(level, "directions", "", "%s of %d flows of TCP were seen in one direction only: mirror both, and the other link where routing is asymmetric",
			percent(h.OneSided, h.Flows), h.Flows)
	default:
		r.ok("directions", "both directions were seen of %d of %d flows of TCP", h.Flows-h.OneSided, h.Flows)
	}
	if h.Unjudged > 0 {
		r.ok("flows", "%d packets were of more flows of TCP than are looked at, which are %d", h.Unjudged, maxFlows)
	}
	switch s := share(h.Doubled, h.Packets); {
	case s >= doubledSome:
		level := Warning
		if s >= doubledMany {
			level = Problem
		}
		r.add(level, "doubled", "", "%s of %d packets came twice%s", percent(h.Doubled, h.Packets), h.Packets, h.whyTwice())
	case h.Packets > 0:
		r.ok("doubled", "frames are mirrored once: %d of %d packets came twice", h.Doubled, h.Packets)
	}
	switch s := share(h.Cut, h.Frames()); {
	case h.Cut == 0:
		r.ok("cut", "all frames are whole")
	case s >= cutMany:
		r.problem("cut", "", "%d frames (%s) lack their end: a tap or a packet broker cuts them, and certificates with them", h.Cut, percent(h.Cut, h.Frames()))
	default:
		r.warn("cut", "", "%d frames (%s) lack their end", h.Cut, percent(h.Cut, h.Frames()))
	}
	gaps := percent(flows.Gaps, flows.Flows)
	switch s := share(flows.Gaps, flows.Flows); {
	case flows.Gaps == 0:
		r.ok("gaps", "no segment is missing in %s", plural(flows.Flows, "flow", "flows"))
	case t.Counters.Capture.Dropped+t.CardLost > 0:
		r.warn("gaps", "", "%d gaps (%d bytes) in %d flows, as frames were dropped here", flows.Gaps, flows.GapBytes, flows.Flows)
	case s >= gapsSome:
		level := Warning
		if s >= gapsMany {
			level = Problem
		}
		r.add(level, "gaps", "", "%d gaps (%d bytes) in %d flows (%s), and this machine dropped nothing: the mirror port is overbooked, or loses frames",
			flows.Gaps, flows.GapBytes, flows.Flows, gaps)
	default:
		r.ok("gaps", "%d gaps (%d bytes) in %d flows (%s)", flows.Gaps, flows.GapBytes, flows.Flows, gaps)
	}
	if bad := flows.Forged.Checksum + flows.Unverified; bad > 0 {
		r.add(OK, "checksums", "", "%d packets had a bad checksum, as those have that a machine itself sends, or a bad cable damages", bad)
	}
	if n := t.Counters.Capture.Fragments; n > 0 {
		r.ok("fragments", "%d fragments of IPv4 came, and %d datagrams could not be put together", n, t.Counters.Capture.Unassembled)
	}
	if text := h.tags(); text != "" {
		r.ok("tags", "%s", text)
	}
}

// whyTwice is the likely reason.
func (h *Heard) whyTwice() string {
	switch {
	case 2*h.OtherVLAN > h.Doubled:
		return ", in another VLAN each time: mirror one side of the router, or a VLAN or its trunk"
	case 2*h.OtherMAC > h.Doubled:
		return ", with other MAC addresses each time: mirror one side of the router"
	}
	return ", the same each time: mirror one direction of each port, or one port of a link"
}

// tags says which VLANs and tunnels were seen.
func (h *Heard) tags() string {
	var parts []string
	if len(h.VLANs) > 0 {
		var names []string
		for v := range h.VLANs {
			ids, n := v.IDs()
			names = append(names, strings.Trim(fmt.Sprint(ids[:n]), "[]"))
		}
		slices.Sort(names)
		const shown = 8
		text := strings.Join(names[:min(shown, len(names))], ", ")
		if more := len(names) - shown; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, "VLAN "+text)
	}
	if len(h.Tunnels) > 0 {
		parts = append(parts, "tunnels "+strings.Join(sortedKeys(h.Tunnels, 4), ", "))
	}
	return strings.Join(parts, "; ")
}

// flows are the counters of the flow tables.
func (t *Traffic) flows() flow.Stats {
	for _, s := range t.Counters.Sections {
		if f, ok := s.Value.(flow.Stats); ok {
			return f
		}
	}
	return flow.Stats{}
}

// judgeTLS judges whether there is something for the sensor to see.
func (t *Traffic) judgeTLS(r *report) {
	h := t.Handshakes
	if h.All == 0 {
		r.warn("handshakes", "", "no handshake of TLS was seen in %d flows: give it more time, or mirror a link with clients and servers", t.flows().Flows)
		return
	}
	text := fmt.Sprintf("%s in %s: %s TLS 1.3, %s QUIC; the certificate was seen in %d, is encrypted in %d, was lost in %d",
		plural(h.All, "handshake", "handshakes"), plural(t.flows().Flows, "flow", "flows"), percent(h.TLS13, h.All), percent(h.QUIC, h.All), h.Extracted, h.Encrypted, h.Lost)
	lost := share(h.Lost, h.Extracted+h.Lost)
	if gap := t.Counters.Parser.Losses[event.Gap]; h.Lost > 0 && lost >= 10 {
		r.warn("handshakes", "", "%s (%d since bytes are missing)", text, gap)
		return
	}
	r.ok("handshakes", "%s", text)
}
