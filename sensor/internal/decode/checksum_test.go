package decode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// onIP is an IP packet in which body follows the header ip.
func onIP(t testing.TB, ip gopacket.SerializableLayer, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	return build(t, append([]gopacket.SerializableLayer{ip}, body...)...)
}

// stateOf decodes an IP packet and returns the state of its checksum.
func stateOf(t testing.TB, f *capture.Frame) ChecksumState {
	t.Helper()
	var d Decoder
	var p Packet
	if c := d.Decode(f, &p); c > Datagram {
		t.Fatalf("class %v", c)
	}
	return p.Checksum()
}

// transports are an IP packet of each kind with n bytes of payload, as gopacket
// makes it, with the place of the checksum.
func transports(t testing.TB, n int) (packets [][]byte, fields []int) {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 5))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
	four17, six17 := ipv4(layers.IPProtocolUDP), ipv6(layers.IPProtocolUDP)
	return [][]byte{
		onIP(t, four, tcp(four), gopacket.Payload(data)), onIP(t, six, tcp(six), gopacket.Payload(data)),
		onIP(t, four17, udp(four17), gopacket.Payload(data)), onIP(t, six17, udp(six17), gopacket.Payload(data)),
	}, []int{20 + 16, 40 + 16, 20 + 6, 40 + 6}
}

// TestChecksumGood compares with what gopacket computes, for all lengths around
// those of a word and of the loops.
func TestChecksumGood(t *testing.T) {
	for n := range 1400 {
		if n > 80 && n%67 != 0 {
			continue
		}
		packets, _ := transports(t, n)
		for i, b := range packets {
			if s := stateOf(t, frame(linktype.Raw, b)); s != ChecksumGood {
				t.Fatalf("%d bytes, kind %d: %v", n, i, s)
			}
		}
	}
}

// TestChecksumStates has every state but the good one.
func TestChecksumStates(t *testing.T) {
	packets, fields := transports(t, 101)
	for i, b := range packets {
		udp := i >= 2
		at := fields[i]
		was := binary.BigEndian.Uint16(b[at:])
		pseudo := func(length bool) uint16 {
			var p Packet
			new(Decoder).Decode(frame(linktype.Raw, b), &p)
			proto := uint64(protoTCP)
			if udp {
				proto = protoUDP
			}
			s := p.src0>>32 + p.src0&0xffffffff + p.src1>>32 + p.src1&0xffffffff + p.dst0>>32 + p.dst0&0xffffffff + p.dst1>>32 + p.dst1&0xffffffff + proto
			if length {
				s += uint64(len(p.segment))
			}
			return fold(s)
		}
		for _, c := range []struct {
			name  string
			field uint16
			want  ChecksumState
		}{
			{"off by one", was + 1, ChecksumBad},
			{"swapped", bits.ReverseBytes16(was), ChecksumBad},
			{"pseudo-header", pseudo(true), ChecksumPartial},
			{"pseudo-header in the host's byte order", bits.ReverseBytes16(pseudo(true)), ChecksumPartial},
			{"pseudo-header without its length", pseudo(false), ChecksumPartial},
			{"none", 0, ChecksumZero},
		} {
			binary.BigEndian.PutUint16(b[at:], c.field)
			if s := stateOf(t, frame(linktype.Raw, b)); s != c.want {
				t.Errorf("kind %d, %s: %v, want %v", i, c.name, s, c.want)
			}
			// Cut by the snaplen, a sum cannot be had; the field itself still tells.
			cut := frame(linktype.Raw, b[:len(b)-1])
			cut.Length++
			want := c.want
			if want == ChecksumBad {
				want = ChecksumUnknown
			}
			if s := stateOf(t, cut); s != want {
				t.Errorf("kind %d, %s, cut: %v, want %v", i, c.name, s, want)
			}
		}
	}
}

// TestChecksumUnknown has packets with a bad checksum whose headers do not say
// what was summed, beside those that are like them and do.
func TestChecksumUnknown(t *testing.T) {
	spoil := func(b []byte, at int, length ...byte) []byte { // at is where the checksum is, length what IP says
		b = bytes.Clone(b)
		b[at] ^= 1
		if length != nil {
			copy(b[map[uint8]int{4: 2, 6: 4}[b[0]>>4]:], length)
		}
		return b
	}
	small, at := transports(t, 40)
	large, _ := transports(t, 4000)
	extended := func(next byte, header ...byte) []byte {
		b := append(append(bytes.Clone(small[1][:40]), header...), small[1][40:]...)
		b[6] = next
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		return spoil(b, at[1]+len(header))
	}
	routed := func(option byte) []byte {
		ip := ipv4(layers.IPProtocolTCP)
		ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: option, OptionLength: 7, OptionData: []byte{4, 10, 0, 0, 1}}}
		return spoil(onIP(t, ip, tcp(ip), payload), 28+16)
	}
	for _, c := range []struct {
		name string
		data []byte
		want ChecksumState
	}{
		{"no length in IPv4", spoil(small[0], at[0], 0, 0), ChecksumUnknown},
		{"no length in IPv6", spoil(small[1], at[1], 0, 0), ChecksumUnknown},
		{"a loose route", routed(131), ChecksumUnknown},
		{"a strict route", routed(137), ChecksumUnknown},
		{"a record of the route", routed(7), ChecksumBad},
		{"a route with a segment left", extended(protoRouting, 6, 0, 4, 1, 0, 0, 0, 0), ChecksumUnknown},
		{"a route that is over", extended(protoRouting, 6, 0, 4, 0, 0, 0, 0, 0), ChecksumBad},
		{"a home address", extended(protoDestination, append([]byte{6, 2, 1, 2, 0, 0, 201, 16}, make([]byte, 16)...)...), ChecksumUnknown},
		{"other options", extended(protoDestination, 6, 0, 0, 0, 1, 2, 0, 0), ChecksumBad},
		{"a segment that no frame holds", spoil(large[0], at[0]), ChecksumUnknown},
		{"a datagram that no frame holds", spoil(large[2], at[2]), ChecksumBad},
	} {
		if s := stateOf(t, frame(linktype.Raw, c.data)); s != c.want {
			t.Errorf("%s: %v, want %v", c.name, s, c.want)
		}
	}
	var d Decoder
	var p Packet
	if d.Decode(frame(linktype.Ethernet, eapolFrame(t, switchMAC, paeGroup, 5, layers.EAPCodeRequest, 7)), &p); p.Checksum() != ChecksumUnknown {
		t.Error("EAP has no checksum")
	}
}

// TestChecksumReassembled sums what came in fragments.
func TestChecksumReassembled(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, flip := range []byte{0, 1} {
			var b []byte
			if v6 {
				ip := ipv6(layers.IPProtocolUDP)
				b = onIP(t, ip, udp(ip), gopacket.Payload(make([]byte, 3000)))[40:]
			} else {
				ip := ipv4(layers.IPProtocolUDP)
				b = onIP(t, ip, udp(ip), gopacket.Payload(make([]byte, 3000)))[20:]
			}
			b[2000] ^= flip
			var d Decoder
			var p Packet
			pieces := slicesOf(b, 1000, 2000)
			for i, s := range pieces {
				if c := d.Decode(fragmentFrame(t, v6, 7, s), &p); (c == Datagram) != (i == len(pieces)-1) {
					t.Fatalf("fragment %d: class %v", i, c)
				}
			}
			if s, want := p.Checksum(), [...]ChecksumState{ChecksumGood, ChecksumBad}[flip]; s != want {
				t.Errorf("IPv6 %v: %v, want %v", v6, s, want)
			}
		}
	}
}

// FuzzChecksum changes one byte of a good packet. That is noticed, but for 0x00
// and 0xff where the sum takes them for one another, and for what makes another
// state of the field itself. Sums in pieces are the sum of the whole.
func FuzzChecksum(f *testing.F) {
	for i := range uint8(4) {
		f.Add(i, []byte("\x16\x03\x01 these are the bytes"), uint16(30), uint8(1))
		f.Add(i, []byte{}, uint16(0), uint8(0xff))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte, at uint16, flip uint8) {
		data = data[:min(len(data), 1400)]
		four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
		var b []byte
		header := 20
		switch kind % 4 {
		case 0:
			b = onIP(t, four, tcp(four), gopacket.Payload(data))
		case 1:
			b, header = onIP(t, six, tcp(six), gopacket.Payload(data)), 40
		case 2:
			four.Protocol = layers.IPProtocolUDP
			b = onIP(t, four, udp(four), gopacket.Payload(data))
		case 3:
			six.NextHeader = layers.IPProtocolUDP
			b, header = onIP(t, six, udp(six), gopacket.Payload(data)), 40
		}
		var d Decoder
		var p Packet
		fr := frame(linktype.Raw, b)
		d.Decode(fr, &p)
		if s := p.Checksum(); s != ChecksumGood {
			t.Fatalf("gopacket's packet: %v", s)
		}
		if i := len(data) / 2 &^ 1; onesSum(data) != fold(uint64(onesSum(data[:i]))+uint64(onesSum(data[i:]))) {
			t.Fatalf("sum of %x", data)
		}
		// Lengths and ports of tunnels change what is summed at all.
		from := header + 6
		if kind%4 < 2 {
			from = header + 13
		}
		place := from + int(at)%(len(b)-from)
		word := func() uint16 { return binary.BigEndian.Uint16(append(bytes.Clone(b), 0)[place&^1:]) }
		before := word()
		b[place] ^= flip
		after := word()
		same := before == after || before^after == 0xffff && (before == 0 || after == 0)
		if d.Decode(fr, &p) > Datagram {
			t.Fatal("no packet any more")
		}
		switch s := p.Checksum(); {
		case same != (s == ChecksumGood) && s != ChecksumZero:
			t.Fatalf("%04x became %04x at %d: %v", before, after, place, s)
		case s == ChecksumUnknown:
			t.Fatal("unknown")
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	packets, _ := transports(b, 1400)
	var d Decoder
	var p Packet
	d.Decode(frame(linktype.Raw, packets[0]), &p)
	b.SetBytes(int64(len(p.segment)))
	b.ReportAllocs()
	for b.Loop() {
		if p.Checksum() != ChecksumGood {
			b.Fatal("not good")
		}
	}
}

// TestBadHeader changes the header of IPv4 alone, as to change the TTL does.
func TestBadHeader(t *testing.T) {
	packets, _ := transports(t, 101)
	options := ipv4(layers.IPProtocolTCP)
	options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	for name, c := range map[string]struct {
		packet []byte
		v6     bool
	}{
		"TCP": {packets[0], false}, "UDP": {packets[2], false}, "options": {onIP(t, options, tcp(options), gopacket.Payload("data")), false},
		"IPv6": {packets[1], true},
	} {
		b := bytes.Clone(c.packet)
		if s := stateOf(t, frame(linktype.Raw, b)); s != ChecksumGood {
			t.Errorf("%s: %v", name, s)
		}
		ttl, want := 8, ChecksumBad
		if c.v6 { // which has no such checksum
			ttl, want = 7, ChecksumGood
		}
		b[ttl]--
		if s := stateOf(t, frame(linktype.Raw, b)); s != want {
			t.Errorf("%s with another TTL: %v", name, s)
		}
		if c.v6 {
			continue
		}
		b[10], b[11] = 0, 0
		if s := stateOf(t, frame(linktype.Raw, b)); s != ChecksumGood {
			t.Errorf("%s with a checksum that a card is to compute: %v", name, s)
		}
	}
}
