package doctor

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// sound is a card with which nothing is wrong.
func sound() *Interface {
	return &Interface{
		Name: "span0", Up: true, Carrier: true, MTU: 1500, Driver: "ixgbe", Speed: 10000, Duplex: "full",
		Features: map[string]bool{"rx-gro": false, "rx-lro": false, "rx-vlan-hw-parse": true, "tx-tcp-segmentation": true},
		Ring:     4096, RingMost: 4096, Queues: 8, Count: Counts{Frames: 1e6, Bytes: 1e9},
		Card: map[string]uint64{"rx_packets": 1e6, "rx_no_dma_resources": 0, "tx_flow_control_xoff": 0},
	}
}

func find(findings []Finding, check string) Finding {
	for _, f := range findings {
		if f.Check == check {
			return f
		}
	}
	return Finding{}
}

// TestJudgeInterface has cards, as ethtool and the kernel would describe them, with one
// thing each that is wrong.
func TestJudgeInterface(t *testing.T) {
	for _, f := range JudgeInterface(sound(), sound(), 10*time.Second, 1514) {
		if f.Level != OK || f.Fix != "" || f.Group != GroupInterface || f.Subject != "span0" {
			t.Errorf("nothing is wrong: %+v", f)
		}
	}
	for _, c := range []struct {
		name    string
		change  func(before, now *Interface)
		longest int
		check   string
		level   Level
		text    string // a part
		fix     string
	}{
		{"missing", func(_, i *Interface) { *i = Interface{Name: "span0", Missing: true} }, 0, "link", Problem, "no interface", "ip -brief link"},
		{"down", func(_, i *Interface) { i.Up = false }, 0, "link", Problem, "is down", "ip link set span0 up"},
		{"no carrier", func(_, i *Interface) { i.Carrier = false }, 0, "link", Problem, "no carrier", "ethtool span0"},
		{"half duplex", func(_, i *Interface) { i.Duplex, i.Speed = "half", 100 }, 0, "link", Warning, "100 Mbit/s half duplex", "ethtool -s span0 autoneg on"},
		{"address", func(_, i *Interface) { i.Addresses = []string{"192.0.2.1/24"} }, 0, "address", Warning, "192.0.2.1/24", "ip address flush dev span0"},
		{"address of its own", func(_, i *Interface) { i.Addresses = []string{"fe80::1/64"} }, 0, "address", Warning, "fe80::1/64", "sysctl -w net/ipv6/conf/span0/disable_ipv6=1"},
		{"addresses", func(_, i *Interface) { i.Addresses = []string{"fe80::1/64", "2001:db8::1/64"} }, 0, "address", Warning, "", "ip address flush dev span0"},
		{"GRO and LRO", func(_, i *Interface) { i.Features["rx-gro"], i.Features["rx-lro"] = true, true }, 0, "offload", Warning, "rx-gro, rx-lro", "ethtool -K span0 gro off lro off"},
		{"GRO of the card", func(_, i *Interface) { i.Features["rx-gro-hw"] = true }, 0, "offload", Warning, "rx-gro-hw", "ethtool -K span0 rx-gro-hw off"},
		{"tags", func(_, i *Interface) {}, 0, "vlan", OK, "puts them back", ""},
		{"long frames", func(_, i *Interface) {}, 9014, "mtu", Warning, "up to 9014 bytes came through an MTU of 1500", "ip link set span0 mtu 9000"},
		{"frames with two tags", func(_, i *Interface) {}, 1522, "mtu", OK, "1522", ""},
		{"refused lengths", func(_, i *Interface) { i.Count.Length = 7 }, 1514, "mtu", Warning, "7 frames were too long", "ip link set span0 mtu 9000"},
		{"missed", func(_, i *Interface) { i.Ring, i.Count.Missed, i.Count.FIFO = 512, 9, 9 }, 0, "drops", Problem, "9 of 9 frames were dropped in 10s", "ethtool -G span0 rx 4096"},
		{"dropped, said by the driver alone", func(_, i *Interface) { i.Card = map[string]uint64{"rx_no_dma_resources": 5} }, 0, "drops", Problem, "rx_no_dma_resources 5", ""},
		{"missed long ago", func(b, i *Interface) { b.Count.Missed, i.Count.Missed = 1e4, 1e4 }, 0, "drops", Warning, "10000 (0.99 %) since", ""},
		{"small ring", func(_, i *Interface) { i.Ring = 256 }, 0, "ring", Warning, "room for 256 frames, and could have for 4096", "ethtool -G span0 rx 4096"},
		{"a ring that could be very large", func(_, i *Interface) { i.Ring, i.RingMost = 512, 8192 }, 0, "ring", Warning, "", "ethtool -G span0 rx 4096"},
		{"a ring of all that there is", func(_, i *Interface) { i.Ring, i.RingMost = 256, 256 }, 0, "ring", OK, "", ""},
		{"damaged now", func(_, i *Interface) { i.Count.CRC = 3 }, 0, "crc", Problem, "3 frames came damaged in 10s", "ethtool -S span0"},
		{"damaged once", func(b, i *Interface) { b.Count.CRC, i.Count.CRC = 3, 3 }, 0, "crc", Warning, "none in 10s", "ethtool -S span0"},
		{"pauses", func(_, i *Interface) { i.Card = map[string]uint64{"tx_flow_control_xoff": 4} }, 0, "pause", Warning, "4 times", "ethtool -A span0 tx off"},
		{"queues", func(_, i *Interface) {}, 0, "queues", OK, "8 receive queues", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, now := sound(), sound()
			c.change(before, now)
			f := find(JudgeInterface(before, now, 10*time.Second, c.longest), c.check)
			if f.Level != c.level || !strings.Contains(f.Text, c.text) || f.Fix != c.fix {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestJudgeAnything holds, for whatever a driver says: each finding has a text, what is
// well has no command, and counters that go back are not counted as losses of 2^64.
func TestJudgeAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	number := func() uint64 {
		switch r.IntN(3) {
		case 0:
			return 0
		case 1:
			return r.Uint64N(100)
		}
		return r.Uint64() >> 8
	}
	names := []string{"rx_dropped", "rx_queue_0_drops", "tx_pause", "rx_out_of_buffer", "unrelated", "port.rx_dropped", "rx_missed_errors"}
	random := func() *Interface {
		i := sound()
		i.Up, i.Carrier, i.Missing = r.IntN(8) > 0, r.IntN(8) > 0, r.IntN(8) == 0
		i.MTU, i.Speed, i.Ring, i.RingMost, i.Queues = int(r.Uint32()), r.Uint32(), uint32(number()), uint32(number()), uint32(number())
		i.Count = Counts{number(), number(), number(), number(), number(), number(), number(), number(), number()}
		i.Card = map[string]uint64{}
		for _, name := range names {
			i.Card[name] = number()
		}
		return i
	}
	for range 5000 {
		before, now := random(), random()
		for _, f := range JudgeInterface(before, now, time.Duration(r.Int64N(1e11)), r.IntN(1<<17)) {
			if f.Text == "" || f.Check == "" || f.Level == OK && f.Fix != "" || strings.Contains(f.Text, "%!") {
				t.Fatalf("%+v", f)
			}
		}
		if lost, most := now.LostSince(before), now.Count.lost()+now.Count.Dropped; lost > most {
			t.Fatalf("%d frames lost of %d: from %+v to %+v", lost, most, before.Count, now.Count)
		}
	}
}
