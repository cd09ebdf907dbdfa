package decode

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// What a frame carries in the place of a packet is named, and told from what is
// known to carry no TLS. What is wrapped round it does not matter.
func TestUnread(t *testing.T) {
	body := slices.Repeat(hex("a5"), 46)
	beacon := hex("80 00 00 00 ff ff ff ff ff ff 02 00 00 00 00 02 02 00 00 00 00 02 10 00")
	ether := func(proto uint16, b ...[]byte) []byte { return overEther(t, proto, append(b, body)...) }
	llc := func(b []byte) []byte { return overEther(t, uint16(len(b)+len(body)), b, body) }
	for _, c := range []struct {
		link linktype.Type
		data []byte
		name string
		none bool // it carries no TLS
	}{
		{1, ether(0x0806), "EtherType 0x0806 (ARP)", true},
		{1, ether(0x88cc), "EtherType 0x88cc (LLDP)", true},
		{1, ether(0x88ff), "EtherType 0x88ff", false},
		{1, ether(0x8100, hex("00 05 88 ff")), "EtherType 0x88ff", false},
		{1, ether(0x88e5, hex("0c 00 00 00 00 01")), "EtherType 0x88e5 (MACsec, encrypted)", false},
		{1, ether(0xd28b, hex("00 07 00 10")), "EtherType 0xd28b (Arista's, of another subtype)", false},
		{1, ether(0x888e, hex("02 03 00 05")), "EtherType 0x888e (EAPOL without EAP)", true},
		{1, ether(0x8847, hex("00 01 21 40 10 00 00 00")), "EtherType 0x8847 (MPLS of neither IP nor Ethernet)", false},
		{1, ether(0x8847, hex("00 01 21 40 00 00 00 00"), innerMACs[1], innerMACs[0], hex("08 06")), "EtherType 0x0806 (ARP)", true},
		{1, ether(0x8847, hex("00 01 21 40"), innerMACs[1], innerMACs[0], hex("00 26 42 42 03")), "LLC 0x42 (STP)", true},
		{1, ether(0x894f, hex("0f c2 02 09 00 00 01 ff")), "NSH 9", false},
		{1, llc(hex("42 42 03")), "LLC 0x42 (STP)", true},
		{1, llc(hex("fe fe 03 83")), "LLC 0xfe (ISO, IS-IS)", true},
		{1, llc(hex("22 22 03")), "LLC 0x22", false},
		{1, llc(hex("aa aa 03 00 00 0c 20 00")), "SNAP 00-00-0c 0x2000 (CDP)", true},
		{1, llc(hex("aa aa 03 00 00 0c 77 77")), "SNAP 00-00-0c 0x7777", false},
		{1, llc(hex("aa aa 03 00 00 00 88 cc")), "EtherType 0x88cc (LLDP)", true},
		{1, overIP4(t, 1, body), "IP protocol 1 (ICMP)", true},
		{1, overIP4(t, 50, body), "IP protocol 50 (ESP, encrypted)", false},
		{1, overIP4(t, 132, hex("00 01 00 02 01 02 03 04 00 00 00 00 40 03 00 18"), body[:20]), "SCTP chunk 64 (I-DATA)", false},
		{1, overIP4(t, 253, body), "IP protocol 253", false},
		{1, overIP4(t, 47, hex("00 05 08 00"), body), "IP protocol 47 (GRE of another version)", false},
		{1, overIP4(t, 47, hex("00 00 88 ff"), body), "EtherType 0x88ff", false},
		{1, overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), ether(0x88ff)), "EtherType 0x88ff", false},
		{1, overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), ether(0x0806)), "EtherType 0x0806 (ARP)", true},
		{1, overUDP4(t, 50001, 4790, hex("0c 00 00 06 00 00 07 00"), body), "NSH 6", false},
		{1, overUDP4(t, 50001, 6081, hex("00 00 65 58 00 00 07 00"), llc(hex("42 42 03"))), "LLC 0x42 (STP)", true},
		{1, overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), overIP4(t, 50, body)), "IP protocol 50 (ESP, encrypted)", false},
		{linktype.Raw, append(hex("50"), body...), "IP version 5", false},
		{linktype.PPP, append(hex("ff 03 c0 21"), body...), "PPP 0xc021 (LCP)", true},
		{linktype.PPP, append(hex("ff 03 00 fd"), body...), "PPP 0x00fd (compressed or encrypted)", false},
		{linktype.FrameRelay, append(hex("18 41 03 08"), body...), "NLPID 0x08 (Q.933)", true},
		{linktype.IEEE80211, append(beacon, body...), "802.11 management and control", true},
		{linktype.IEEE80211, slices.Concat(hex("08 41 00 00"), beacon[4:], body), "802.11, encrypted", false},
		{linktype.PPI, append(hex("00 00 08 00 93 00 00 00"), body...), "link type 147", false},
		{147, body, "link type 147", false},
	} {
		var d Decoder
		var p Packet
		for range 3 {
			d.Decode(frame(c.link, c.data), &p)
		}
		u := d.Unread()
		none, unread := u.Lists()
		if !c.none {
			none, unread = unread, none
		}
		if want := (FrameCount{c.name, 3}); len(none) != 1 || none[0] != want || len(unread) > 0 {
			t.Errorf("%v, want %v, and not %v", none, want, unread)
		}
		f := frame(c.link, c.data)
		if n := testing.AllocsPerRun(20, func() { d.Decode(f, &p) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// What is read is not counted, nor what looks like a tunnel and is none.
func TestUnreadCoincidence(t *testing.T) {
	query := hex("08 00 01 00 00 01 00 00 00 00 00 00 03 77 77 77 00 00 01 00 01")
	var d Decoder
	var p Packet
	for _, port := range []uint16{53, 1701, 2152, 4754, 4789, 4790, 5247, 6081, 6635, 8472, 37008} {
		for _, f := range [][]byte{overUDP4(t, port, 53, query), overUDP4(t, 53, port, query)} {
			if c := d.Decode(frame(linktype.Ethernet, f), &p); c != Datagram {
				t.Fatalf("port %d: %v", port, c)
			}
		}
	}
	for _, c := range stackCases(t) {
		d.Decode(frame(c.link, c.data), &p)
	}
	if u := d.Unread(); len(u.frames) > 0 {
		t.Error(u.Lists())
	}
}

// Made-up numbers find an end, are all counted, and push out nothing that is
// known. The sum of several decoders' is that of one.
func TestUnreadFlood(t *testing.T) {
	var one Decoder
	var several [3]Decoder
	var p Packet
	frames := uint64(0)
	feed := func(proto uint16) {
		f := frame(linktype.Ethernet, overEther(t, proto, make([]byte, 46)))
		one.Decode(f, &p)
		several[frames%3].Decode(f, &p)
		frames++
	}
	for proto := range 1000 {
		feed(uint16(0x7000 + proto))
		feed(uint16(layers.EthernetTypeARP))
	}
	var sum Unread
	for i := range several {
		sum.Add(several[i].Unread())
	}
	for _, u := range []Unread{one.Unread(), sum} {
		none, unread := u.Lists()
		n := uint64(0)
		for _, c := range slices.Concat(none, unread) {
			n += c.Frames
		}
		if n != frames || len(unread) > limitUnread+1 || unread[0].Name != "others" || len(none) != 1 || none[0].Frames != frames/2 {
			t.Errorf("%d of %d frames, %d kinds, the first %v, beside %v", n, frames, len(unread), unread[0], none)
		}
	}
}

// The name of every content has its number, and no two have one name.
func TestContentNames(t *testing.T) {
	seen := map[string]content{}
	for _, kind := range []content{ofLink, ofEther, ofLLC, ofSNAP, ofPPP, ofIP, ofSCTP, ofIPVersion, ofNLPID, ofNSH, ofCapture} {
		for n := range content(1 << 16) {
			name := (kind | n).String()
			if other, ok := seen[name]; ok {
				t.Fatalf("%#x and %#x are both %q", other, kind|n, name)
			}
			seen[name] = kind | n
		}
	}
	for c := range hiding {
		if _, both := carrying[c]; both {
			t.Errorf("%v may carry TLS and may not", c)
		}
	}
}

// BenchmarkUnread is what ARP costs, and a flood of made-up EtherTypes.
func BenchmarkUnread(b *testing.B) {
	for name, numbers := range map[string]int{"ARP": 1, "flood": 1 << 14} {
		b.Run(name, func(b *testing.B) {
			data := overEther(b, 0x0806, make([]byte, 46))
			f := frame(linktype.Ethernet, data)
			var d Decoder
			var p Packet
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if numbers > 1 {
					binary.BigEndian.PutUint16(data[12:], uint16(0x7000+i%numbers))
				}
				d.Decode(f, &p)
			}
		})
	}
}
