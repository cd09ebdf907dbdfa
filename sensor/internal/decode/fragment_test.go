package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/sparse"
)

// slice is a fragment of a test datagram.
type slice struct {
	from int
	data []byte
	more bool
}

// slicesOf cuts b at multiples of 8.
func slicesOf(b []byte, cuts ...int) (all []slice) {
	from := 0
	for _, to := range append(cuts, len(b)) {
		all = append(all, slice{from, b[from:to], to < len(b)})
		from = to
	}
	return all
}

// fragmentFrame is a frame with a fragment of UDP, IPv4 or IPv6.
func fragmentFrame(t testing.TB, v6 bool, id int, s slice) *capture.Frame {
	if v6 {
		ip := ipv6(layers.IPProtocolIPv6Fragment)
		header := binary.BigEndian.AppendUint16([]byte{17, 0}, uint16(s.from)|uint16(btoi(s.more)))
		header = binary.BigEndian.AppendUint32(header, uint32(id))
		return frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv6), ip, gopacket.Payload(append(header, s.data...))))
	}
	ip := ipv4(layers.IPProtocolUDP)
	ip.Id, ip.FragOffset = uint16(id), uint16(s.from/8)
	if s.more {
		ip.Flags = layers.IPv4MoreFragments
	}
	return frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), ip, gopacket.Payload(s.data)))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// datagramOf is a UDP datagram over IPv4 with a payload of n bytes.
func datagramOf(t testing.TB, n int) []byte { return datagramOver(t, false, n) }

func datagramOver(t testing.TB, v6 bool, n int) []byte {
	var l *layers.UDP
	if v6 {
		l = udp(ipv6(layers.IPProtocolUDP))
	} else {
		l = udp(ipv4(layers.IPProtocolUDP))
	}
	return build(t, l, gopacket.Payload(strings.Repeat(text(1000), n/1000+1)[:n]))
}

// checkFragments holds the ledger and the bounds of what is held.
func checkFragments(t testing.TB, f *fragments) {
	t.Helper()
	s := f.stats
	if s.Fragments != s.Reassembled+s.Held+s.Repeated+s.Malformed+s.Oversized+s.Expired+s.Evicted+s.Discarded {
		t.Fatalf("the sums do not add up: %+v", s)
	}
	cost, held, datagrams := 0, 0, 0
	heavy := 0
	for source, x := range f.accounts {
		inside, members := 0, 0
		heavy += btoi(x.heavy)
		for rank := range x.ages {
			for a := x.ages[rank].oldest; a != nil; a = a.links[inAccount].after {
				members++
				inside += costOf(a)
				held += a.count
				if f.open[a.key] != a || a.rank != rank || a.account != x || x.source != source || (a.state == complete) != (rank == delivered) || len(a.others) > limitVersions {
					t.Fatalf("a datagram out of place: %+v", a)
				}
			}
		}
		if inside != x.bytes || members != x.datagrams || members == 0 || x.heavy != slices.Contains(f.heavy, x) {
			t.Fatalf("account %v: %d datagrams (%d), %d bytes (%d)", source, members, x.datagrams, inside, x.bytes)
		}
		cost += inside
	}
	for a := f.byTime.oldest; a != nil; a = a.links[inTime].after {
		datagrams++
	}
	for rank := range f.byRank {
		for a := f.byRank[rank].oldest; a != nil; a = a.links[inRank].after {
			datagrams--
			if a.rank != rank {
				t.Fatalf("a datagram out of place: %+v", a)
			}
		}
	}
	if datagrams != 0 || heavy != len(f.heavy) || heavy > 2*share+1 {
		t.Fatalf("%d datagrams without a rank, %d of %d accounts heavy", datagrams, heavy, len(f.accounts))
	}
	if cost != f.bytes || uint64(held) != s.Held || len(f.open) > limitDatagrams || f.bytes > limitFragmentBytes {
		t.Fatalf("%d datagrams, %d bytes (%d), %d fragments (%d)", len(f.open), cost, f.bytes, held, s.Held)
	}
}

// costOf is what a takes.
func costOf(a *datagram) int {
	n := datagramCost + 8*cap(a.pages) + endCost*cap(a.ends) + cap(a.whole)
	for _, p := range a.pages {
		if p != nil {
			n += sparse.PageCost
		}
	}
	for _, v := range a.others {
		n += versionCost + cap(v.data)
	}
	return n
}

// However a datagram is cut, and in whatever order the fragments come, it comes
// out as it was. gopacket's reassembly of IPv4 is held to the same.
func TestFragments(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		v6 := seed%2 == 1
		want := datagramOver(t, v6, 9+r.IntN(6000))
		var cuts []int
		for at := 0; ; {
			if at += 8 * (1 + r.IntN(100)); at >= len(want) {
				break
			}
			cuts = append(cuts, at)
		}
		if len(cuts) == 0 {
			continue
		}
		pieces := slicesOf(want, cuts...)
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		for range r.IntN(3) { // one of them comes again
			i := r.IntN(len(pieces))
			pieces = slices.Insert(pieces, i+r.IntN(len(pieces)-i), pieces[i])
		}
		var d Decoder
		var p Packet
		defrag := ip4defrag.NewIPv4Defragmenter()
		got := 0
		for i, s := range pieces {
			f := fragmentFrame(t, v6, 7, s)
			f.Number = uint64(i + 1)
			switch c := d.Decode(f, &p); c {
			case Datagram:
				got++
				if !bytes.Equal(p.Payload, want[8:]) || p.SrcPort != 443 || p.Missing != 0 || p.Frame != f {
					t.Fatalf("seed %d: %d bytes of %d", seed, len(p.Payload), len(want)-8)
				}
			case Fragment:
			default:
				t.Fatalf("seed %d: %v", seed, c)
			}
			// gopacket refuses a last fragment of less than 8 bytes, as if it were hostile.
			if !v6 && got == 0 && len(want)-cuts[len(cuts)-1] >= 8 {
				pkt := gopacket.NewPacket(f.Data, layers.LinkTypeEthernet, gopacket.Default)
				if whole, err := defrag.DefragIPv4(pkt.Layer(layers.LayerTypeIPv4).(*layers.IPv4)); err != nil || whole != nil {
					t.Fatalf("seed %d: gopacket is done before us: %v", seed, err)
				}
			}
			checkFragments(t, &d.fragments)
		}
		s := d.Fragments()
		if got != 1 || s.Datagrams != 1 || s.Held != 0 || s.Reassembled != uint64(len(cuts)+1) || s.Repeated != uint64(len(pieces)-len(cuts)-1) {
			t.Fatalf("seed %d: %d datagrams of %d fragments in %d: %+v", seed, got, len(cuts)+1, len(pieces), s)
		}
	}
}

// Fragments that attack. What the sender sent is always there, and comes out.
func TestHostileFragments(t *testing.T) {
	for i, v6 := range []bool{false, true} {
		whole := datagramOver(t, v6, 56)
		first, second := whole[:32], whole[32:]
		other := bytes.Repeat([]byte{'X'}, 64)
		for name, c := range map[string]struct {
			pieces []slice
			got    [2]string // out of IPv4 and of IPv6: T is what was sent, f something else
			stats  [2]FragmentStats
		}{
			"teardrop": {[]slice{{0, first, true}, {16, other[:8], false}}, [2]string{},
				[2]FragmentStats{{Held: 2, Conflicting: 1, Overlapping: 1}, {Held: 2, Conflicting: 1, Overlapping: 1}}},
			"an overlap that rewrites the first": {[]slice{{0, first, true}, {24, other[:40], false}, {32, second, false}}, [2]string{"fT", "T"},
				[2]FragmentStats{{Reassembled: 3, Overlapping: 2, Conflicting: 2, Resolved: 1}, {Reassembled: 3, Overlapping: 2, Conflicting: 2, Resolved: 1}}},
			"the same place with other bytes": {[]slice{{0, first, true}, {0, other[:32], true}, {32, second, false}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}}},
			"the same place with other bytes before": {[]slice{{0, other[:32], true}, {0, first, true}, {32, second, false}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}}},
			"the whole before": {[]slice{{0, other[:32], true}, {32, other[:32], false}, {0, first, true}, {32, second, false}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 4, Overlapping: 2, Conflicting: 2, Resolved: 1}, {Reassembled: 4, Overlapping: 2, Conflicting: 2, Resolved: 1}}},
			"two ends": {[]slice{{32, second, false}, {32, other[:40], false}, {0, first, true}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}}},
			"an end that is too soon": {[]slice{{32, other[:3], false}, {0, first, true}, {32, second, false}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Overlapping: 1, Conflicting: 1, Resolved: 1}}},
			"an end that is too late": {[]slice{{64, other[:3], false}, {0, first, true}, {32, second, false}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Conflicting: 1, Resolved: 1}}},
			"beyond the end": {[]slice{{32, second, false}, {64, other[:8], true}, {0, first, true}}, [2]string{"T", "T"},
				[2]FragmentStats{{Reassembled: 3, Conflicting: 1, Resolved: 1}, {Reassembled: 3, Conflicting: 1, Resolved: 1}}},
			"ping of death": {[]slice{{65528, other[:64], false}}, [2]string{},
				[2]FragmentStats{{Oversized: 1}, {Oversized: 1}}},
			"not of a multiple of 8": {[]slice{{0, first[:31], true}, {32, second, false}}, [2]string{},
				[2]FragmentStats{{Malformed: 1, Held: 1}, {Malformed: 1, Held: 1}}},
			"empty": {[]slice{{0, nil, true}, {64, nil, false}}, [2]string{},
				[2]FragmentStats{{Malformed: 2}, {Malformed: 2}}},
		} {
			var d Decoder
			var p Packet
			got := ""
			for _, s := range c.pieces {
				if d.Decode(fragmentFrame(t, v6, 7, s), &p) == Datagram {
					if bytes.Equal(p.Payload, whole[8:]) {
						got += "T"
					} else {
						got += "f"
					}
				}
				checkFragments(t, &d.fragments)
			}
			want := c.stats[i]
			want.Fragments, want.Datagrams = uint64(len(c.pieces)), uint64(len(c.got[i]))
			if s := d.Fragments(); got != c.got[i] || s != want {
				t.Errorf("%s, IPv6 %v: %q\n got %+v\nwant %+v", name, v6, got, s, want)
			}
		}
	}
}

// A first fragment too small for the flags of TCP is followed, as hosts do.
func TestTinyFragments(t *testing.T) {
	ip := ipv4(layers.IPProtocolTCP)
	segment := build(t, ip, tcp(ip), payload)[20:]
	var d Decoder
	var p Packet
	var c Class
	for _, s := range slicesOf(segment, 8, 16) {
		ip := ipv4(layers.IPProtocolTCP)
		ip.Id, ip.FragOffset = 9, uint16(s.from/8)
		if s.more {
			ip.Flags = layers.IPv4MoreFragments
		}
		c = d.Decode(frame(linktype.Raw, build(t, ip, gopacket.Payload(s.data))), &p)
	}
	if c != Segment || string(p.Payload) != string(payload) || d.Fragments().Tiny != 1 {
		t.Errorf("%v: %q, %+v", c, p.Payload, d.Fragments())
	}
}

// The identifier alone does not tell datagrams apart, and it is used again.
func TestFragmentKeys(t *testing.T) {
	one, two := datagramOf(t, 100), append(datagramOf(t, 40), bytes.Repeat([]byte{'2'}, 60)...)
	var d Decoder
	var p Packet
	decode := func(f *capture.Frame) string {
		if d.Decode(f, &p) == Datagram {
			return string(p.Payload)
		}
		return ""
	}
	tag := func(f *capture.Frame, id byte) *capture.Frame {
		return frame(linktype.Ethernet, slices.Concat(f.Data[:12], []byte{0x81, 0, 0, id}, f.Data[12:]))
	}
	a, b := slicesOf(one, 64), slicesOf(two, 64)
	decode(fragmentFrame(t, false, 1, a[0]))
	decode(tag(fragmentFrame(t, false, 1, b[0]), 5))
	if got := decode(tag(fragmentFrame(t, false, 1, b[1]), 5)); got != string(two[8:40+8]) && got != string(two[8:]) {
		t.Errorf("in the VLAN %q", got)
	}
	if got := decode(fragmentFrame(t, false, 1, a[1])); got != string(one[8:]) {
		t.Errorf("outside %q", got)
	}
	// What a mirror shows twice is no loss.
	for _, s := range a {
		if got := decode(fragmentFrame(t, false, 1, s)); got != "" {
			t.Errorf("a second time: %q", got)
		}
	}
	if s := d.Fragments(); s.Repeated != 2 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
	// The next datagram with the same identifier.
	decode(fragmentFrame(t, false, 1, b[0]))
	if got := decode(fragmentFrame(t, false, 1, b[1])); got == "" {
		t.Error("an identifier that is used again")
	}
	if s := d.Fragments(); s.Datagrams != 3 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
	checkFragments(t, &d.fragments)
}

func TestFragmentTimeout(t *testing.T) {
	const second = int64(time.Second)
	pieces := slicesOf(datagramOf(t, 100), 64)
	for _, c := range []struct {
		first, second int64
		want          Class
	}{
		{100 * second, 129 * second, Datagram},
		{100 * second, 130 * second, Fragment},
	} {
		var d Decoder
		var p Packet
		for i, s := range pieces {
			f := fragmentFrame(t, false, 1, s)
			f.Clock = []int64{c.first, c.second}[i]
			if got := d.Decode(f, &p); i == 1 && got != c.want {
				t.Errorf("%d, %d: %v", c.first, c.second, got)
			}
		}
		if s := d.Fragments(); (s.Expired == 1) != (c.want == Fragment) {
			t.Errorf("%+v", s)
		}
		checkFragments(t, &d.fragments)
	}
}

// A fragment that the snaplen cut makes its datagram hopeless.
func TestFragmentCut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		var d Decoder
		var p Packet
		for i, s := range slicesOf(datagramOf(t, 100), 64) {
			f := fragmentFrame(t, v6, 1, s)
			if i == 0 {
				f.Data = f.Data[:len(f.Data)-1]
			}
			if c := d.Decode(f, &p); c != Fragment {
				t.Errorf("class %v", c)
			}
		}
		if s := d.Fragments(); s.Cut != 1 || s.Discarded != 2 || s.Held != 0 {
			t.Errorf("%+v", s)
		}
		checkFragments(t, &d.fragments)
	}
}

// A flood of first fragments costs no more than the limits, and the oldest go.
func TestFragmentLimits(t *testing.T) {
	for _, c := range []struct{ size, count int }{{8, limitDatagrams * 2}, {40000, 1000}} {
		var d Decoder
		var p Packet
		data := make([]byte, c.size)
		for id := range c.count {
			f := fragmentFrame(t, true, id, slice{0, data, true})
			if class := d.Decode(f, &p); class != Fragment {
				t.Fatal(class)
			}
		}
		checkFragments(t, &d.fragments)
		s := d.Fragments()
		if s.Evicted == 0 || s.Held+s.Evicted != uint64(c.count) {
			t.Errorf("%+v", s)
		}
		if c := d.Decode(fragmentFrame(t, true, c.count-1, slice{c.size, data[:8], false}), &p); c != Datagram && c != Malformed {
			t.Errorf("the newest is gone: %v", c)
		}
		if c := d.Decode(fragmentFrame(t, true, 0, slice{c.size, data[:8], false}), &p); c != Fragment {
			t.Errorf("the oldest is there: %v", c)
		}
	}
	// Nor does one datagram in crumbs.
	var d Decoder
	var p Packet
	for i := range 4000 {
		d.Decode(fragmentFrame(t, false, 1, slice{16 * i, make([]byte, 8), true}), &p)
	}
	checkFragments(t, &d.fragments)
	if s := d.Fragments(); s.Held != 4000 || d.fragments.bytes > 100_000 {
		t.Errorf("%+v, %d bytes", s, d.fragments.bytes)
	}
	// A host's largest over the smallest links does pass.
	whole := datagramOf(t, 65507)
	var cuts []int
	for at := 552; at < len(whole); at += 552 {
		cuts = append(cuts, at)
	}
	for _, s := range slicesOf(whole, cuts...) {
		d.Decode(fragmentFrame(t, false, 2, s), &p)
	}
	if !bytes.Equal(p.Payload, whole[8:]) {
		t.Errorf("%d bytes of %d", len(p.Payload), len(whole)-8)
	}
}

// Delivered datagrams, which stay to tell repetitions, give way to those that
// are still to be whole.
func TestFragmentEviction(t *testing.T) {
	var d Decoder
	var p Packet
	pieces := slicesOf(datagramOf(t, 100), 64)
	d.Decode(fragmentFrame(t, false, 0, pieces[0]), &p)
	for id := range 2 * limitDatagrams {
		for _, s := range pieces {
			d.Decode(fragmentFrame(t, false, 1+id, s), &p)
		}
	}
	if c := d.Decode(fragmentFrame(t, false, 0, pieces[1]), &p); c != Datagram {
		t.Errorf("%v: %+v", c, d.Fragments())
	}
	checkFragments(t, &d.fragments)
}

// Fragments of what tunnels carry, fragments of tunnels, and both; and what
// comes out stays what it is when more is decoded.
func TestFragmentsAndTunnels(t *testing.T) {
	four := ipv4(layers.IPProtocolTCP)
	long := gopacket.Payload(text(3000))
	inner := build(t, four, tcp(four), long)
	frame4 := build(t, innerEthernet(layers.EthernetTypeIPv4), gopacket.Payload(inner))
	cut := func(ip []byte, size int) (all [][]byte) {
		var cuts []int
		for at := size; at < len(ip)-20; at += size {
			cuts = append(cuts, at)
		}
		for _, s := range slicesOf(ip[20:], cuts...) {
			header := bytes.Clone(ip[:20])
			binary.BigEndian.PutUint16(header[2:], uint16(20+len(s.data)))
			binary.BigEndian.PutUint16(header[6:], uint16(s.from/8|btoi(s.more)<<13))
			all = append(all, append(header, s.data...))
		}
		return all
	}
	vxlan := func(b []byte) []byte {
		return overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), innerMACs[1], innerMACs[0], hex("08 00"), b)
	}
	capwap := func(b []byte) (all [][]byte) {
		b = slices.Concat(hex("08 01 00 00 02 00 00 00 00 02 02 11 22 33 44 55 02 66 77 88 99 aa 10 00 aa aa 03 00 00 00 08 00"), b)
		for _, s := range slicesOf(b, 800, 1600) {
			flags := byte(0x80)
			if !s.more {
				flags |= 0x40
			}
			all = append(all, overUDP4(t, 50001, 5247, []byte{0x00, 0x10, 0x03, flags, 0, 9}, be16(s.from), s.data))
		}
		return all
	}
	var inside, outside, both [][]byte
	for _, b := range cut(inner, 800) {
		inside = append(inside, vxlan(b))
		for _, b := range cut(vxlan(b)[14:], 400) {
			binary.BigEndian.PutUint16(b[4:], uint16(len(inside))) // the outer identifier
			both = append(both, overEther(t, 0x0800, b))
		}
	}
	for _, b := range cut(overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), frame4)[14:], 1000) {
		outside = append(outside, overEther(t, 0x0800, b))
	}
	slices.Reverse(outside)
	for name, c := range map[string]struct {
		frames [][]byte
		tunnel string
	}{"inside": {inside, "vxlan"}, "outside": {outside, "vxlan"}, "both": {both, "vxlan"}, "CAPWAP's own": {capwap(inner), "capwap"}} {
		var d Decoder
		var kept []Packet
		for round := range 3 {
			for i, data := range c.frames {
				var p Packet
				data = bytes.Clone(data)
				if c := d.Decode(frame(linktype.Ethernet, data), &p); c == Segment {
					kept = append(kept, p)
				} else if c != Fragment {
					t.Errorf("%s: frame %d: %v", name, i, c)
				}
				clear(data) // the ring takes it back
			}
			if len(kept) != 1 {
				t.Fatalf("%s, round %d: %d segments", name, round, len(kept))
			}
			if string(kept[0].Payload) != string(long) || fmt.Sprint(kept[0].Tunnels()) != "["+c.tunnel+"]" {
				t.Errorf("%s: %q in %v", name, kept[0].Payload, kept[0].Tunnels())
			}
		}
		checkFragments(t, &d.fragments)
	}
	if out, ok := tsharkFields(t, outside, "tcp.len"); ok && out[len(out)-1] != "3000" {
		t.Errorf("tshark has %q", out)
	}
}

// tsharkFields runs tshark over Ethernet frames, when there is one.
func tsharkFields(t *testing.T, frames [][]byte, fields ...string) ([]string, bool) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("tshark is not installed")
		return nil, false
	}
	path := filepath.Join(t.TempDir(), "frames.pcap")
	writePcap(t, path, frames)
	args := []string{"-r", path, "-T", "fields", "-E", "occurrence=l"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command(tshark, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n"), true
}

// Fragments that make the sum of a long datagram good, but not its checksum, do not
// have it put together for each end that others have forged.
func TestFragmentsInVain(t *testing.T) {
	var d Decoder
	var p Packet
	whole := make([]byte, 64_000)
	binary.BigEndian.PutUint16(whole[4:], 4) // of no datagram
	take := func(s slice) { d.Decode(fragmentFrame(t, false, 7, s), &p) }
	for i := range limitEnds {
		end := len(whole) - 8*i
		binary.BigEndian.PutUint16(whole[end-2:], 0xfff7) // 8 bytes more make no other sum
		take(slice{end - 8, whole[end-8 : end], false})
	}
	for end := len(whole); end > 0; end -= 1600 {
		take(slice{end - 1600, whole[end-1600 : end], true})
	}
	if d.fragments.at.state != doubtful || len(d.fragments.at.ends) != limitEnds {
		t.Fatalf("%+v", d.fragments.at)
	}
	sum := d.fragments.at.ends[0].sum
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range uint16(limitVersions) {
		v := binary.BigEndian.AppendUint16(nil, i+1)
		v = append(v, 0, 0, 0, 4)
		take(slice{0, binary.BigEndian.AppendUint16(v, fold(add(uint64(^sum), uint64(^(i+1))))), true})
		checkFragments(t, &d.fragments)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(limitVersions*len(whole)) || d.Fragments().Datagrams != 1 {
		t.Errorf("%d bytes were allocated, %d datagrams", took, d.Fragments().Datagrams)
	}
}

// FuzzFragments makes fragments of one datagram, and puts forged ones between
// them. It comes out as it was, whatever the cuts and the order, and whatever the
// forged ones say, as long as there are not too many of them. What is held is
// bounded and accounted for.
func FuzzFragments(f *testing.F) {
	f.Add(false, uint16(300), []byte{3, 9, 1, 200}, []byte{2, 1, 0}, []byte{})
	f.Add(true, uint16(3000), []byte{40, 40, 80}, []byte{5, 2, 9, 9}, []byte{})
	f.Add(false, uint16(300), []byte{3, 9}, []byte{}, []byte{1, 4, 0x81, 8, 2, 7})
	f.Add(true, uint16(300), []byte{3, 9}, []byte{1}, []byte{2, 9, 0})
	f.Add(false, uint16(900), []byte{9, 9, 9, 9, 9}, []byte{}, []byte{0, 0, 255, 3, 0, 80, 5, 20, 47})
	f.Fuzz(func(t *testing.T, v6 bool, size uint16, cuts, order, noise []byte) {
		want := datagramOver(t, v6, int(size)%8000)
		var at []int
		last := 0
		for _, c := range cuts {
			if last += 8 * (1 + int(c)); last >= len(want) {
				break
			}
			at = append(at, last)
		}
		if len(at) == 0 {
			return // whole
		}
		pieces := slicesOf(want, at...)
		for i, o := range order[:min(len(order), len(pieces))] {
			j := int(o) % len(pieces)
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		count := len(pieces)
		for noise = noise[:min(len(noise), 90)]; len(noise) >= 3; noise = noise[3:] {
			n := 1 + int(noise[2])
			if noise[1] == 0 { // else it is no fragment
				n = (n + 7) &^ 7
			}
			pieces = slices.Insert(pieces, int(noise[0])%(len(pieces)+1), slice{int(noise[1]) * 8, bytes.Repeat([]byte{'X'}, n), n%8 == 0})
		}
		var d Decoder
		var p Packet
		packets, good, truth := 0, 0, 0
		for i, s := range pieces {
			fr := fragmentFrame(t, v6, 7, s)
			// Of another datagram, with the same identifier.
			d.Decode(fragmentFrame(t, !v6, 7, s), &p)
			before := d.Fragments()
			c := d.Decode(fr, &p)
			checkFragments(t, &d.fragments)
			if after := d.Fragments(); (after.Datagrams > before.Datagrams) != (c != Fragment) {
				t.Fatalf("fragment %d: %v", i, c)
			}
			for ok := c == Datagram; ok; ok = d.Next(&p) {
				packets++
				switch {
				case bytes.Equal(p.Payload, want[8:]):
					truth++
					good++
				case p.Checksum() == ChecksumGood:
					good++ // by chance
				}
			}
		}
		s := d.Fragments()
		if len(pieces) == count {
			if packets != 1 || truth != 1 || s.Conflicting > 0 {
				t.Fatalf("%d datagrams out of %d fragments: %+v", packets, count, s)
			}
			return
		}
		if s.Conflicting <= 8 && truth == 0 && good == 0 && !blocked(pieces, want) {
			t.Fatalf("the datagram is hidden: %+v\n%v", s, pieces)
		}
	})
}

// blocked reports whether forged fragments end a datagram in more places than are
// looked at.
func blocked(pieces []slice, want []byte) bool {
	ends := map[int]bool{}
	for _, s := range pieces {
		if !s.more {
			ends[s.from+len(s.data)] = true
		}
	}
	return len(ends) > limitEnds
}

// The costs that are charged are not less than what is taken.
func TestFragmentCosts(t *testing.T) {
	if n := unsafe.Sizeof(datagram{}) + unsafe.Sizeof(account{}) + 2*(unsafe.Sizeof(datagramKey{})+16+2*8); n > datagramCost {
		t.Errorf("a datagram takes %d bytes", n)
	}
	if unsafe.Sizeof(version{}) > versionCost || unsafe.Sizeof(end{}) > endCost {
		t.Errorf("%d, %d", unsafe.Sizeof(version{}), unsafe.Sizeof(end{}))
	}
}

// One source's flood, of whatever shape, does not push out what another sends
// slowly; nor do many sources that each begin datagrams and never go on.
func TestFragmentFlood(t *testing.T) {
	datagram := datagramOf(t, 4000)
	for name, flood := range map[string]func(i int) *capture.Frame{
		"first fragments": func(i int) *capture.Frame { return floodFrame(t, 1, i, slice{0, make([]byte, 64), true}) },
		"large ones":      func(i int) *capture.Frame { return floodFrame(t, 1, i, slice{0, make([]byte, 1480), true}) },
		"far ones":        func(i int) *capture.Frame { return floodFrame(t, 1, i, slice{65000, make([]byte, 8), true}) },
		"whole datagrams": func(i int) *capture.Frame {
			return floodFrame(t, 1, i/2, slice{i % 2 * 1480, make([]byte, 1480), i%2 == 0})
		},
		"many sources": func(i int) *capture.Frame { return floodFrame(t, uint32(i), i, slice{0, make([]byte, 64), true}) },
	} {
		var d Decoder
		var p Packet
		came := false
		for i, s := range slicesOf(datagram, 1480, 2960) {
			came = d.Decode(fragmentFrame(t, false, 7, s), &p) == Datagram && bytes.Equal(p.Payload, datagram[8:])
			if i == 0 && name == "many sources" { // what has not grown gives way
				continue
			}
			for k := range 3 * limitDatagrams {
				d.Decode(flood(i*3*limitDatagrams+k), &p)
			}
		}
		checkFragments(t, &d.fragments)
		if !came {
			t.Errorf("%s: it is gone: %+v", name, d.Fragments())
		}
	}
}

// floodFrame is a fragment of one of many sources.
func floodFrame(t testing.TB, source uint32, id int, s slice) *capture.Frame {
	f := fragmentFrame(t, false, id, s)
	binary.BigEndian.PutUint32(f.Data[26:], 0x0a000000|source&0xffffff)
	return f
}

func BenchmarkFragments(b *testing.B) {
	var frames []*capture.Frame
	for _, s := range slicesOf(datagramOf(b, 4000), 1480, 2960) {
		frames = append(frames, fragmentFrame(b, false, 7, s))
	}
	var d Decoder
	var p Packet
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for _, f := range frames {
			binary.BigEndian.PutUint16(f.Data[18:], uint16(i))
			d.Decode(f, &p)
		}
	}
}

// BenchmarkHostileFragments is what a byte of capture costs in shapes that are
// made to cost, each of a whole datagram of 64 KiB.
func BenchmarkHostileFragments(b *testing.B) {
	whole := datagramOf(b, 65000)
	shape := func(size int) []slice {
		var cuts []int
		for at := size; at < len(whole); at += size {
			cuts = append(cuts, at)
		}
		return slicesOf(whole, cuts...)
	}
	reversed := func(s []slice) []slice { slices.Reverse(s); return s }
	interleaved := func(s []slice) (all []slice) {
		for k := range 2 {
			for i := k; i < len(s); i += 2 {
				all = append(all, s[i])
			}
		}
		return all
	}
	forge := func(s slice, n int) slice {
		data := bytes.Clone(s.data)
		binary.BigEndian.PutUint32(data, uint32(n)*0x9e3779b1)
		return slice{s.from, data, s.more}
	}
	crumbs := shape(8)
	var overlapping, duplicates, forged, versions, ends []slice
	for i, s := range crumbs[:len(crumbs)-1] {
		overlapping = append(overlapping, slice{s.from, whole[s.from:min(s.from+64, len(whole)&^7)], true})
		duplicates = append(duplicates, s, s, s)
		forged = append(forged, forge(s, i), s)
	}
	versions = []slice{forge(crumbs[5], 1)}
	for i, s := range shape(1480) {
		versions = append(versions, s)
		ends = append(ends, s, slice{s.from + 8*i, s.data[:9], false})
	}
	for i := range 2000 {
		versions = append(versions, forge(crumbs[100+i], i))
	}
	small := datagramOf(b, 248)
	small[100] ^= 1
	search := slicesOf(small, 128)
	for i := range limitVersions {
		search = append(search, forge(slice{i % 16 * 8, small[i%16*8:][:8], true}, i))
	}
	for name, pieces := range map[string][]slice{
		"frames": shape(1480), "rising": crumbs, "falling": reversed(shape(8)), "interleaved": interleaved(shape(8)),
		"overlapping": overlapping, "duplicates": duplicates, "forged": forged, "versions": versions, "ends": ends, "search": search,
	} {
		b.Run(name, func(b *testing.B) {
			var frames []*capture.Frame
			size := 0
			for _, s := range pieces {
				f := fragmentFrame(b, false, 7, s)
				f.Data = append(f.Data, make([]byte, max(60-len(f.Data), 0))...)
				f.Length = uint32(len(f.Data))
				frames = append(frames, f)
				size += len(f.Data)
			}
			var d Decoder
			var p Packet
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				for _, f := range frames {
					binary.BigEndian.PutUint16(f.Data[18:], uint16(i))
					d.Decode(f, &p)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/byte")
		})
	}
}
