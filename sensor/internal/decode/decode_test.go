package decode

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// build serialises layers, with lengths and checksums set.
func build(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ethernet(proto layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: proto,
	}
}

func ipv4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IP{192, 0, 2, 9}, DstIP: net.IP{198, 51, 100, 7}}
}

func ipv6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next,
		SrcIP: net.ParseIP("2001:db8::9"), DstIP: net.ParseIP("2001:db8::7")}
}

func tcp(ip gopacket.NetworkLayer) *layers.TCP {
	l := &layers.TCP{SrcPort: 50000, DstPort: 8443, Seq: 0x01020304, Ack: 0x0a0b0c0d, ACK: true, PSH: true, Window: 1000,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}}
	l.SetNetworkLayerForChecksum(ip)
	return l
}

func udp(ip gopacket.NetworkLayer) *layers.UDP {
	l := &layers.UDP{SrcPort: 443, DstPort: 40000}
	l.SetNetworkLayerForChecksum(ip)
	return l
}

func frame(link linktype.Type, data []byte) *capture.Frame {
	return &capture.Frame{Data: data, Length: uint32(len(data)), LinkType: link, Number: 1}
}

// text is n bytes in which no run of some length comes twice near by.
func text(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i*7+i/26)%26
	}
	return string(b)
}

var payload = gopacket.Payload("\x16\x03\x01 these are the bytes")

func TestDecode(t *testing.T) {
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
	ip4 := build(t, four, tcp(four), payload)
	ip6 := build(t, six, tcp(six), payload)
	extended := func(headers ...[]byte) []byte { // each header names the next in its first byte
		all := bytes.Join(headers, nil)
		b := bytes.Clone(ip6[:40])
		b[6] = 0
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])+uint16(len(all)))
		return append(append(b, all...), ip6[40:]...)
	}
	prefixed := func(prefix string, b []byte) []byte { return append([]byte(prefix), b...) }
	for _, c := range []struct {
		name string
		link linktype.Type
		data []byte
		v6   bool
		vlan string
	}{
		{"ethernet", linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), four, tcp(four), payload), false, ""},
		{"vlan", linktype.Ethernet, build(t, ethernet(layers.EthernetTypeDot1Q),
			&layers.Dot1Q{VLANIdentifier: 17, Priority: 5, Type: layers.EthernetTypeIPv4}, four, tcp(four), payload), false, "17"},
		{"qinq", linktype.Ethernet, build(t, ethernet(layers.EthernetTypeQinQ),
			&layers.Dot1Q{VLANIdentifier: 4094, Type: layers.EthernetTypeDot1Q},
			&layers.Dot1Q{VLANIdentifier: 1, Type: layers.EthernetTypeIPv6}, six, tcp(six), payload), true, "4094 1"},
		{"priority tag", linktype.Ethernet, build(t, ethernet(layers.EthernetTypeDot1Q),
			&layers.Dot1Q{VLANIdentifier: 0, Priority: 5, Type: layers.EthernetTypeIPv4}, four, tcp(four), payload), false, ""},
		{"padded", linktype.Ethernet, append(build(t, ethernet(layers.EthernetTypeIPv4), four, tcp(four), payload), 0, 0, 0, 0), false, ""},
		{"raw 4", linktype.Raw, ip4, false, ""},
		{"raw 6", linktype.Raw, ip6, true, ""},
		{"ipv4", linktype.IPv4, ip4, false, ""},
		{"ipv6", linktype.IPv6, ip6, true, ""},
		{"null, little endian", linktype.Null, prefixed("\x02\x00\x00\x00", ip4), false, ""},
		{"null, big endian, ipv6 of a BSD", linktype.Null, prefixed("\x00\x00\x00\x1c", ip6), true, ""},
		{"loop", linktype.Loop, prefixed("\x00\x00\x00\x02", ip4), false, ""},
		{"sll", linktype.LinuxSLL, prefixed("\x00\x04\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00\x08\x00", ip4), false, ""},
		{"sll2", linktype.LinuxSLL2, prefixed("\x86\xdd\x00\x00\x00\x00\x00\x02\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00", ip6), true, ""},
		{"ppp", linktype.PPP, prefixed("\x00\x21", ip4), false, ""},
		{"ppp with address and control", linktype.PPP, prefixed("\xff\x03\x00\x57", ip6), true, ""},
		{"ppp, compressed protocol", linktype.PPP, prefixed("\x21", ip4), false, ""},
		{"hop by hop and destination options", linktype.Raw, extended(
			[]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), true, ""},
		{"atomic fragment", linktype.Raw, extended([]byte{44, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 0, 0, 0, 1, 2, 3, 4}), true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			var p Packet
			if class := d.Decode(frame(c.link, c.data), &p); class != Segment {
				t.Fatalf("class %v", class)
			}
			if string(p.Payload) != string(payload) || p.Missing != 0 {
				t.Errorf("payload %q, missing %d", p.Payload, p.Missing)
			}
			if p.Seq != 0x01020304 || p.Ack != 0x0a0b0c0d || p.Flags != 0x18 {
				t.Errorf("seq %x ack %x flags %x", p.Seq, p.Ack, p.Flags)
			}
			src, dst := netip.MustParseAddrPort("192.0.2.9:50000"), netip.MustParseAddrPort("198.51.100.7:8443")
			if c.v6 {
				src, dst = netip.MustParseAddrPort("[2001:db8::9]:50000"), netip.MustParseAddrPort("[2001:db8::7]:8443")
			}
			a, b := p.Key.Endpoints()
			if p.Swapped {
				a, b = b, a
			}
			if a != src || b != dst {
				t.Errorf("%v > %v", a, b)
			}
			ids, n := p.VLANs().IDs()
			want := map[string][2]uint16{"17": {17}, "4094 1": {4094, 1}}[c.vlan]
			if ids != want || int(n) != len(bytes.Fields([]byte(c.vlan))) {
				t.Errorf("VLANs %v (%d)", ids, n)
			}
			// Every prefix: no panic, and no byte that was not captured.
			for n := range c.data {
				f := frame(c.link, c.data[:n:n])
				f.Length = uint32(len(c.data))
				if class := d.Decode(f, &p); class == Segment && !bytes.HasPrefix(payload, p.Payload) {
					t.Fatalf("%d bytes: payload %q", n, p.Payload)
				}
			}
		})
	}
}

// checkDeal holds what Deal says of a frame against what any decoder reads, and
// says whether it dealt it.
func checkDeal(t *testing.T, f *capture.Frame) (idle, ok bool) {
	t.Helper()
	var dealer, owner Decoder
	var p, q Packet
	idle, ok = dealer.Deal(f, &p)
	if !ok {
		if idle || dealer.Decoded() != [Classes]uint64{} {
			t.Fatalf("idle %v, counts %v, of a frame that was not dealt", idle, dealer.Decoded())
		}
		return idle, ok
	}
	switch c := owner.Decode(f, &q); {
	case idle && (c != Segment || !q.Idle()):
		t.Fatalf("idle is %v with %d bytes of payload, flags %x", c, len(q.Payload)+q.Missing, q.Flags)
	case idle && dealer.Decoded() != owner.Decoded(), !idle && dealer.Decoded() != [Classes]uint64{}:
		t.Fatalf("the dealer counts %v, the owner %v", dealer.Decoded(), owner.Decoded())
	case c == Segment && !idle && (q.Idle() || p.Shard != q.Shard):
		t.Fatalf("dealt to shard %d, is of %d, idle %v", p.Shard, q.Shard, q.Idle())
	case c != Segment && c != Malformed, owner.Next(&q), owner.Fragments() != FragmentStats{}:
		t.Fatalf("%v was dealt", c)
	}
	return idle, ok
}

// TestDeal deals the common frames, both ways of a flow alike, and keeps the
// others.
func TestDeal(t *testing.T) {
	eth := func(ls ...gopacket.SerializableLayer) []byte {
		return build(t, append([]gopacket.SerializableLayer{ethernet(layers.EthernetTypeIPv4)}, ls...)...)
	}
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
	bare, fin := tcp(four), tcp(four)
	bare.PSH = false
	fin.PSH, fin.FIN = false, true
	fragment := ipv4(layers.IPProtocolTCP)
	fragment.Flags = layers.IPv4MoreFragments
	udp := ipv4(layers.IPProtocolUDP)
	for _, c := range []struct {
		name     string
		data     []byte
		idle, ok bool
	}{
		{"segment", eth(four, tcp(four), payload), false, true},
		{"bare acknowledgement", eth(four, bare), true, true},
		{"bare acknowledgement, padded", append(eth(four, bare), make([]byte, 6)...), true, true},
		{"end", eth(four, fin), false, true},
		{"tagged", build(t, ethernet(layers.EthernetTypeDot1Q),
			&layers.Dot1Q{VLANIdentifier: 17, Type: layers.EthernetTypeIPv4}, four, tcp(four), payload), false, true},
		{"IPv6", build(t, ethernet(layers.EthernetTypeIPv6), six, tcp(six), payload), false, true},
		{"fragment", eth(fragment, tcp(fragment), payload), false, false},
		{"datagram", eth(udp, gopacket.Payload("\x00\x01\x00\x02\x00\x0c\x00\x00abcd")), false, false},
	} {
		idle, ok := checkDeal(t, frame(linktype.Ethernet, c.data))
		if idle != c.idle || ok != c.ok {
			t.Errorf("%s: idle %v, ok %v", c.name, idle, ok)
		}
		for n := range c.data {
			f := frame(linktype.Ethernet, c.data[:n:n])
			f.Length = uint32(len(c.data))
			checkDeal(t, f)
		}
	}
	f := frame(linktype.Ethernet, eth(four, tcp(four), payload))
	var d Decoder
	var p Packet
	if n := testing.AllocsPerRun(100, func() { d.Deal(f, &p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDecodeCut(t *testing.T) {
	ip := ipv4(layers.IPProtocolTCP)
	whole := build(t, ethernet(layers.EthernetTypeIPv4), ip, tcp(ip), payload)
	f := frame(linktype.Ethernet, whole[:len(whole)-5])
	f.Length = uint32(len(whole))
	var d Decoder
	var p Packet
	if c := d.Decode(f, &p); c != Segment || p.Missing != 5 || len(p.Payload) != len(payload)-5 {
		t.Errorf("class %v, %d bytes, %d missing", c, len(p.Payload), p.Missing)
	}
}

func TestDecodeOther(t *testing.T) {
	four := ipv4(layers.IPProtocolUDP)
	icmp := ipv4(layers.IPProtocolICMPv4)
	fragment := ipv4(layers.IPProtocolTCP)
	fragment.Flags = layers.IPv4MoreFragments
	tagged := make([]byte, 14, 100)
	tagged[12] = 0x81
	for range 20 {
		tagged = append(tagged, 0, 1, 0x81, 0)
	}
	for _, c := range []struct {
		name string
		data []byte
		want Class
	}{
		{"udp", build(t, ethernet(layers.EthernetTypeIPv4), four, udp(four), payload), Datagram},
		{"icmp", build(t, ethernet(layers.EthernetTypeIPv4), icmp, payload), OtherIP},
		{"fragment", build(t, ethernet(layers.EthernetTypeIPv4), fragment, payload), Fragment},
		{"arp", build(t, ethernet(layers.EthernetTypeARP), payload), NotIP},
		{"nothing but tags", tagged, Malformed},
		{"runt", make([]byte, 9), Malformed},
		{"empty", nil, Malformed},
	} {
		var d Decoder
		var p Packet
		if got := d.Decode(frame(linktype.Ethernet, c.data), &p); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if d.Decoded()[c.want] != 1 {
			t.Errorf("%s: not counted", c.name)
		}
	}
}

// Both directions have one key, and a VLAN, a port or a protocol makes another.
func TestKey(t *testing.T) {
	var d Decoder
	key := func(tag int, src, dst string, sport, dport uint16, proto layers.IPProtocol) (Key, bool) {
		ip := ipv4(proto)
		ip.SrcIP, ip.DstIP = net.ParseIP(src).To4(), net.ParseIP(dst).To4()
		ls := []gopacket.SerializableLayer{ethernet(layers.EthernetTypeIPv4), ip}
		if tag >= 0 {
			ls = []gopacket.SerializableLayer{ethernet(layers.EthernetTypeDot1Q),
				&layers.Dot1Q{VLANIdentifier: uint16(tag), Type: layers.EthernetTypeIPv4}, ip}
		}
		if proto == layers.IPProtocolTCP {
			l := tcp(ip)
			l.SrcPort, l.DstPort = layers.TCPPort(sport), layers.TCPPort(dport)
			ls = append(ls, l)
		} else {
			l := udp(ip)
			l.SrcPort, l.DstPort = layers.UDPPort(sport), layers.UDPPort(dport)
			ls = append(ls, l)
		}
		var p Packet
		d.Decode(frame(linktype.Ethernet, build(t, ls...)), &p)
		p.Address() // idle packets have none
		return p.Key, p.Swapped
	}
	there, s1 := key(-1, "10.0.0.1", "10.0.0.2", 443, 5000, layers.IPProtocolTCP)
	back, s2 := key(-1, "10.0.0.2", "10.0.0.1", 5000, 443, layers.IPProtocolTCP)
	if there != back || s1 == s2 {
		t.Error("the two directions differ")
	}
	seen := map[Key]bool{there: true}
	for _, k := range []func() (Key, bool){
		func() (Key, bool) { return key(-1, "10.0.0.1", "10.0.0.2", 5000, 443, layers.IPProtocolTCP) },
		func() (Key, bool) { return key(-1, "10.0.0.1", "10.0.0.2", 443, 5000, layers.IPProtocolUDP) },
	} {
		k, _ := k()
		if seen[k] {
			t.Errorf("%+v stands for two flows", k)
		}
		seen[k] = true
	}
	if tagged, _ := key(7, "10.0.0.1", "10.0.0.2", 443, 5000, layers.IPProtocolTCP); tagged != there {
		t.Error("VLANs are in the key, where the directions of a flow may have different ones")
	}
	same1, _ := key(-1, "127.0.0.1", "127.0.0.1", 443, 5000, layers.IPProtocolTCP)
	same2, _ := key(-1, "127.0.0.1", "127.0.0.1", 5000, 443, layers.IPProtocolTCP)
	if same1 != same2 {
		t.Error("the two directions on one address differ")
	}
}

// FuzzDecode reads two frames of any link type, so that fragments meet. What
// comes out is of the frame, or of fragments; frames come to an end; what is
// held is bounded. Where gopacket too sees TCP right over Ethernet and IP, it
// sees the same.
func FuzzDecode(f *testing.F) {
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolUDP)
	f.Add(uint16(1), build(f, ethernet(layers.EthernetTypeIPv4), four, tcp(four), payload), []byte{})
	f.Add(uint16(1), build(f, ethernet(layers.EthernetTypeIPv6), six, udp(six), payload), []byte{})
	f.Add(uint16(1), eapolFrame(f, switchMAC, paeGroup, 5, layers.EAPCodeRequest, 7), eapolFrame(f, peer1, paeGroup, 5, layers.EAPCodeResponse, 7))
	f.Add(uint16(9), []byte{0xff, 3, 0, 0x21, 0x45}, []byte{})
	for _, c := range stackCases(f) {
		f.Add(uint16(c.link), c.data, c.data[:len(c.data)-1])
	}
	for _, v6 := range []bool{false, true} {
		pieces := slicesOf(datagramOf(f, 100), 64)
		f.Add(uint16(1), fragmentFrame(f, v6, 7, pieces[0]).Data, fragmentFrame(f, v6, 7, pieces[1]).Data)
	}
	f.Fuzz(func(t *testing.T, link uint16, first, second []byte) {
		var d Decoder
		for i, data := range [][]byte{first, second, first} {
			var p Packet
			before := d.Fragments().Datagrams
			fr := frame(linktype.Type(link), data)
			fr.Length += uint32(i)
			checkDeal(t, fr)
			c := d.Decode(fr, &p)
			whole := d.Fragments().Datagrams > before
			checkFragments(t, &d.fragments)
			packets := 0
			for ok := c <= Datagram; ok; ok = d.Next(&p) {
				if packets++; packets > len(data)/14+limitAssemblies {
					t.Fatalf("%d packets in %d bytes", packets, len(data))
				}
				if p.Missing < 0 || p.Frame != fr {
					t.Fatalf("%d bytes missing", p.Missing)
				}
				if len(p.Payload) > 0 && !whole && !within(data, p.Payload) {
					t.Fatalf("payload %x is not of the frame", p.Payload)
				}
				p.Tunnels()
				if s := p.String(); strings.Count(s, " > ") != 1 {
					t.Fatalf("%q", s)
				}
			}
			checkWeirds(t, &d)
			checkMessages(t, &d)
			if u := d.Unread(); len(u.frames) > 0 {
				u.Lists()
			}
			if link != 1 || c != Segment || p.Tunnelled() || whole || p.Missing != 0 {
				continue
			}
			pkt := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.NoCopy)
			if tcp, ok := pkt.TransportLayer().(*layers.TCP); ok && pkt.ErrorLayer() == nil {
				if uint16(tcp.SrcPort) != p.SrcPort || tcp.Seq != p.Seq || !bytes.Equal(tcp.Payload, p.Payload) {
					t.Fatalf("gopacket has %d %d %x, we have %d %d %x", tcp.SrcPort, tcp.Seq, tcp.Payload, p.SrcPort, p.Seq, p.Payload)
				}
			}
		}
	})
}

// within reports whether b is memory of data.
func within(data, b []byte) bool {
	for i := range data {
		if &data[i] == &b[0] {
			return len(b) <= len(data)-i
		}
	}
	return false
}

func BenchmarkDecode(b *testing.B) {
	ip := ipv4(layers.IPProtocolTCP)
	f := frame(linktype.Ethernet, build(b, ethernet(layers.EthernetTypeIPv4), ip, tcp(ip), gopacket.Payload(make([]byte, 1400))))
	var d Decoder
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		d.Decode(f, &p)
	}
}
