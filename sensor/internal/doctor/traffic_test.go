package doctor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestJudgeTraffic has traffic with one thing each that is wrong.
func TestJudgeTraffic(t *testing.T) {
	sound := func() (*Traffic, *flow.Stats) {
		flows := &flow.Stats{Flows: 1000}
		return &Traffic{
			Elapsed: 10 * time.Second, Interfaces: []*Interface{{Name: "span0", Listeners: 1}},
			Heard:      Heard{ByInterface: map[string]Frames{"span0": {Count: 100_000, Bytes: 80e6, Group: 50, Longest: 1514}}, Packets: 60_000, Doubled: 3, Flows: 900, OneSided: 4},
			Handshakes: Handshakes{All: 100, TLS13: 60, Extracted: 40, Encrypted: 60},
			Counters:   &output.Counters{Capture: capture.Stats{Frames: 100_000}},
		}, flows
	}
	judge := func(change func(t *Traffic, f *flow.Stats)) []Finding {
		all, flows := sound()
		change(all, flows)
		all.Counters.Sections = []output.Section{{Name: "flows", Value: *flows}}
		return JudgeTraffic(all)
	}
	for _, f := range judge(func(*Traffic, *flow.Stats) {}) {
		if f.Level != OK || f.Fix != "" || strings.Contains(f.Text, "%!") {
			t.Errorf("nothing is wrong: %+v", f)
		}
	}
	for _, c := range []struct {
		name   string
		change func(t *Traffic, f *flow.Stats)
		check  string
		level  Level
		text   string // a part
	}{
		{"sound", func(*Traffic, *flow.Stats) {}, "frames", OK, "100000 frames came in 10s: 10000 a second, 64 Mbit/s"},
		{"nothing", func(t *Traffic, _ *flow.Stats) { t.Heard = Heard{} }, "frames", Problem, "no frame came in 10s"},
		{"only groups", func(t *Traffic, _ *flow.Stats) {
			t.Heard.ByInterface["span0"] = Frames{Count: 50, Group: 50}
		}, "frames", Problem, "nothing is mirrored"},
		{"a card that is not promiscuous", func(t *Traffic, _ *flow.Stats) { t.Interfaces[0].Listeners = 0 }, "promiscuous", Problem, "its own address only"},
		{"some flows with one side", func(t *Traffic, _ *flow.Stats) { t.Heard.OneSided = 180 }, "directions", Warning, "20 % of 900"},
		{"most flows with one side", func(t *Traffic, _ *flow.Stats) { t.Heard.OneSided = 880 }, "directions", Problem, "98 % of 900"},
		{"no flows", func(t *Traffic, _ *flow.Stats) { t.Heard.Flows, t.Heard.OneSided = 0, 0 }, "directions", OK, "no flow of TCP"},
		{"doubled VLANs", func(t *Traffic, _ *flow.Stats) { t.Heard.Doubled, t.Heard.OtherVLAN = 29_000, 28_000 }, "doubled", Problem, "in another VLAN"},
		{"doubled by a router", func(t *Traffic, _ *flow.Stats) { t.Heard.Doubled, t.Heard.OtherMAC = 29_000, 28_000 }, "doubled", Problem, "one side of the router"},
		{"some doubled", func(t *Traffic, _ *flow.Stats) { t.Heard.Doubled = 3000 }, "doubled", Warning, "5 % of 60000 packets came twice, the same each time"},
		{"cut", func(t *Traffic, _ *flow.Stats) { t.Heard.Cut = 20_000 }, "cut", Problem, "20000 frames (20 %) lack their end"},
		{"one cut", func(t *Traffic, _ *flow.Stats) { t.Heard.Cut = 1 }, "cut", Warning, "0.001 %"},
		{"gaps", func(_ *Traffic, f *flow.Stats) { f.Gaps, f.GapBytes = 300, 5000 }, "gaps", Problem, "the mirror port is overbooked"},
		{"some gaps", func(_ *Traffic, f *flow.Stats) { f.Gaps = 20 }, "gaps", Warning, "2 %"},
		{"a gap", func(_ *Traffic, f *flow.Stats) { f.Gaps = 1 }, "gaps", OK, "1 gaps"},
		{"gaps that the ring explains", func(t *Traffic, f *flow.Stats) { f.Gaps, t.Counters.Capture.Dropped = 300, 10 }, "gaps", Warning, "as frames were dropped here"},
		{"gaps that the card explains", func(t *Traffic, f *flow.Stats) { f.Gaps, t.CardLost = 300, 10 }, "gaps", Warning, "as frames were dropped here"},
		{"dropped", func(t *Traffic, _ *flow.Stats) { t.Counters.Capture.Dropped = 10 }, "ring", Problem, "dropped 10 of 100010 frames"},
		{"no shunt", func(t *Traffic, _ *flow.Stats) { t.NoShunt = errors.New("not allowed") }, "shunt", Warning, "not allowed"},
		{"a clock that jumps", func(t *Traffic, _ *flow.Stats) { t.Counters.Capture.Jumps = 2 }, "clock", Warning, "jumped 2 times"},
		{"no TLS", func(t *Traffic, _ *flow.Stats) { t.Handshakes = Handshakes{} }, "handshakes", Warning, "no handshake of TLS was seen in 1000 flows"},
		{"lost certificates", func(t *Traffic, _ *flow.Stats) { t.Handshakes.Extracted, t.Handshakes.Lost = 20, 20 }, "handshakes", Warning, "was lost in 20"},
		{"shares", func(*Traffic, *flow.Stats) {}, "handshakes", OK, "100 handshakes in 1000 flows: 60 % TLS 1.3, 0 % QUIC; the certificate was seen in 40, is encrypted in 60, was lost in 0"},
		{"bad checksums", func(_ *Traffic, f *flow.Stats) { f.Forged.Checksum = 9 }, "checksums", OK, "9 packets"},
		{"fragments", func(t *Traffic, _ *flow.Stats) { t.Counters.Capture.Fragments = 9 }, "fragments", OK, "9 fragments"},
		{"tunnels", func(t *Traffic, _ *flow.Stats) { t.Heard.Tunnels = map[string]uint64{"vxlan": 3, "gre": 9} }, "tags", OK, "tunnels gre, vxlan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if f := find(judge(c.change), c.check); f.Level != c.level || !strings.Contains(f.Text, c.text) {
				t.Errorf("%+v", f)
			}
		})
	}
}
