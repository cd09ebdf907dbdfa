package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"golang.org/x/sys/unix"
)

// patience bounds how long a test waits for what must come.
const patience = 20 * time.Second

// openIn opens a capture in a namespace, with a ring that is quickly made unless
// its size is given. It is closed with the test.
func openIn(t testing.TB, n *netlab.Namespace, opt LiveOptions) []Source {
	t.Helper()
	if opt.RingSize == 0 {
		opt.RingSize = 1 << 20
	}
	var live *Live
	var err error
	n.Do(func() { live, err = OpenLive(opt) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { live.Close() })
	return live.Sources
}

// wire is a sensor that sees what is sent from MirrorIface and nothing else.
type wire struct {
	Server, Sensor           *netlab.Namespace
	MirrorIface, SensorIface string
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{Server: netlab.NewNamespace(t), Sensor: netlab.NewNamespace(t), MirrorIface: "mirror0", SensorIface: "span0"}
	netlab.Silence(t, w.Server)
	netlab.Silence(t, w.Sensor)
	netlab.Join(t, w.Server, w.MirrorIface, w.Sensor, w.SensorIface)
	return w
}

// rawSocket returns a packet socket that sends whole frames from an interface.
func rawSocket(t testing.TB, n *netlab.Namespace, iface string) (send func(frame []byte)) {
	t.Helper()
	var fd int
	var err error
	n.Do(func() {
		var i *net.Interface
		if i, err = net.InterfaceByName(iface); err != nil {
			return
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(frame []byte) {
		if _, err := unix.Write(fd, frame); err != nil {
			t.Fatalf("send a frame of %d bytes: %v", len(frame), err)
		}
	}
}

// receive returns copies of the next n frames of a source.
func receive(t testing.TB, s Source, n int) []Frame {
	t.Helper()
	var frames []Frame
	for deadline := time.Now().Add(patience); len(frames) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d frames came; stats %+v", len(frames), n, s.Stats())
		}
		batch, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range batch.Frames {
			f.Data = slices.Clone(f.Data)
			frames = append(frames, f)
		}
		batch.Release()
	}
	return frames
}

// silent fails when a source has another frame.
func silent(t testing.TB, s Source) {
	t.Helper()
	for range 3 {
		batch, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range batch.Frames {
			t.Errorf("unexpected frame %x", f.Data)
		}
		batch.Release()
	}
}

// packet is what the frames of these tests are made of.
type packet struct {
	tags      [][2]uint16 // protocol and TCI of VLAN tags, outermost first
	src, dst  netip.AddrPort
	udp       bool
	flowLabel uint32
	payload   int
}

func (p packet) frame(t testing.TB) []byte {
	t.Helper()
	var stack []gopacket.SerializableLayer
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	etherType := layers.EthernetTypeIPv4
	if p.src.Addr().Is6() {
		etherType = layers.EthernetTypeIPv6
	}
	types := []layers.EthernetType{}
	for _, tag := range p.tags {
		types = append(types, layers.EthernetType(tag[0]))
	}
	types = append(types, etherType)
	eth.EthernetType = types[0]
	stack = append(stack, eth)
	for i, tag := range p.tags {
		stack = append(stack, &layers.Dot1Q{
			Priority: uint8(tag[1] >> 13), DropEligible: tag[1]>>12&1 == 1, VLANIdentifier: tag[1] & 0xfff, Type: types[i+1]})
	}
	protocol := layers.IPProtocolTCP
	if p.udp {
		protocol = layers.IPProtocolUDP
	}
	var network gopacket.NetworkLayer
	if p.src.Addr().Is6() {
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, FlowLabel: p.flowLabel,
			SrcIP: p.src.Addr().AsSlice(), DstIP: p.dst.Addr().AsSlice()}
		network, stack = ip, append(stack, ip)
	} else {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol,
			SrcIP: p.src.Addr().AsSlice(), DstIP: p.dst.Addr().AsSlice()}
		network, stack = ip, append(stack, ip)
	}
	if p.udp {
		u := &layers.UDP{SrcPort: layers.UDPPort(p.src.Port()), DstPort: layers.UDPPort(p.dst.Port())}
		u.SetNetworkLayerForChecksum(network)
		stack = append(stack, u)
	} else {
		s := &layers.TCP{SrcPort: layers.TCPPort(p.src.Port()), DstPort: layers.TCPPort(p.dst.Port()), ACK: true, Window: 1000}
		s.SetNetworkLayerForChecksum(network)
		stack = append(stack, s)
	}
	payload := make(gopacket.Payload, p.payload)
	for i := range payload {
		payload[i] = byte(i)
	}
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(stack, payload)...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(buffer.Bytes())
}

// tagged are frames without a tag, and with the tags that are about.
func tagged(t testing.TB) [][]byte {
	var frames [][]byte
	for _, tags := range [][][2]uint16{
		nil,
		{{0x8100, 10}},
		{{0x8100, 0xf00a}}, // priority 7, drop eligible
		{{0x8100, 0}},      // priority tag
		{{0x88a8, 10}},
		{{0x88a8, 10}, {0x8100, 20}},
		{{0x8100, 10}, {0x8100, 20}},
		{{0x9100, 10}},
		{{0x8100, 10}, {0x8100, 20}, {0x8100, 30}},
	} {
		for _, p := range []packet{
			{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.MustParseAddrPort("198.51.100.2:443"), payload: 100},
			{src: netip.MustParseAddrPort("[2001:db8:1::1]:40000"), dst: netip.MustParseAddrPort("[2001:db8:1::2]:443"), payload: 1},
			{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.MustParseAddrPort("198.51.100.2:53"), udp: true, payload: 1400},
		} {
			p.tags = tags
			frames = append(frames, p.frame(t))
		}
	}
	return frames
}

func TestLiveFrames(t *testing.T) {
	lab := netlab.New(t)
	source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}})[0]
	send := rawSocket(t, lab.Client, lab.ClientIface)

	// The systems at the ends of the link send frames of their own.
	ours := func(f Frame) bool { return bytes.HasPrefix(f.Data, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}) }

	want := tagged(t)
	before := time.Now()
	for _, frame := range want {
		send(frame)
	}
	var got []Frame
	number := uint64(0)
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); {
		for _, f := range receive(t, source, 1) {
			if number++; f.Number != number {
				t.Errorf("frame %d has number %d", number, f.Number)
			}
			if ours(f) {
				got = append(got, f)
			}
		}
	}
	after := time.Now()
	if len(got) != len(want) {
		t.Fatalf("%d of %d frames", len(got), len(want))
	}
	for i, f := range got {
		if !bytes.Equal(f.Data, want[i]) {
			t.Errorf("frame %d is\n%x, sent was\n%x", i, f.Data, want[i])
		}
		if int(f.Length) != len(want[i]) || f.LinkType != linktype.Ethernet {
			t.Errorf("frame %d has length %d of %d, link type %d", i, f.Length, len(want[i]), f.LinkType)
		}
		if at := time.Unix(0, f.Time); at.Before(before.Add(-time.Second)) || at.After(after.Add(time.Second)) {
			t.Errorf("frame %d is of %v, sent between %v and %v", i, at, before, after)
		}
	}
	stats := source.Stats()
	if stats.Frames != number || stats.Dropped != 0 || stats.Bytes == 0 {
		t.Errorf("stats %+v for %d frames", stats, number)
	}
	if _, sent := lab.Sensor.Counters(t, lab.SensorIface); sent != 0 {
		t.Errorf("the sensor sent %d frames", sent)
	}
}

func TestLivePromiscuous(t *testing.T) {
	lab := newWire(t)
	promiscuity := func() bool {
		out, err := lab.Sensor.Command("ip", "-d", "link", "show", lab.SensorIface).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(out), "promiscuity 1")
	}
	if promiscuity() {
		t.Fatal("promiscuous before")
	}
	source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}})[0]
	if !promiscuity() {
		t.Error("not promiscuous while capturing")
	}
	source.Close()
	if promiscuity() {
		t.Error("promiscuous after Close")
	}
}

func TestLiveSnaplen(t *testing.T) {
	lab := newWire(t)
	source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Snaplen: 200, Filter: "udp port 53"})[0]
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	p := packet{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.MustParseAddrPort("198.51.100.2:53"), udp: true}
	for _, payload := range []int{10, 158, 159, 1400} {
		p.payload = payload
		want := p.frame(t)
		send(want)
		got := receive(t, source, 1)[0]
		if int(got.Length) != len(want) || !bytes.Equal(got.Data, want[:min(200, len(want))]) {
			t.Errorf("%d bytes on the wire: %d of %d", len(want), len(got.Data), got.Length)
		}
	}
}

// TestLiveFilter captures the same frames as tcpdump does with the same
// expression, and the same bytes of them.
func TestLiveFilter(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	last := packet{src: netip.MustParseAddrPort("198.51.100.9:9"), dst: netip.MustParseAddrPort("198.51.100.9:9"), udp: true}.frame(t)
	const orLast = "src host 198.51.100.9 or "

	for _, expression := range []string{
		"",
		"tcp port 443",
		"not tcp",
		"ip6",
		"vlan",
		"not vlan",
		"vlan 10",
		"vlan 10 and tcp port 443",
		"vlan 10 and vlan 20",
		"vlan 10 and vlan 20 and tcp port 443",
		"vlan and vlan and vlan 30 and udp",
		"port 443 or (vlan and port 443) or (vlan and port 443)",
		"vlan and not tcp",
		"greater 200",
	} {
		if expression != "" {
			expression = orLast + "(" + expression + ")"
		}
		t.Run(expression, func(t *testing.T) {
			source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Filter: expression})[0]
			defer source.Close()
			theirs := startTcpdump(t, lab.Sensor, lab.SensorIface, expression)
			for _, frame := range tagged(t) {
				send(frame)
			}
			send(last)
			read := func(next func() []byte) (frames [][]byte) {
				for {
					if frame := next(); bytes.Equal(frame, last) {
						return frames
					} else {
						frames = append(frames, frame)
					}
				}
			}
			want := read(theirs)
			var pending []Frame
			got := read(func() []byte {
				if len(pending) == 0 {
					pending = receive(t, source, 1)
				}
				frame := pending[0]
				pending = pending[1:]
				return frame.Data
			})
			if len(want) == 0 {
				t.Error("tcpdump captures nothing: not much of a test")
			}
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("%d frames, tcpdump has %d\n%x\n%x", len(got), len(want), got, want)
			}
		})
	}
}

// startTcpdump captures until the test ends. It returns when frames are
// captured, with a function that returns the next one.
func startTcpdump(t *testing.T, n *netlab.Namespace, iface, expression string) (next func() []byte) {
	t.Helper()
	cmd := n.Command("tcpdump", "-i", iface, "-U", "-w", "-", "--immediate-mode", "-Z", "root", expression)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); !strings.Contains(said.String(), "listening on"); {
		if !lines.Scan() {
			t.Fatalf("tcpdump: %s", said.String())
		}
		said.WriteString(lines.Text() + "\n")
	}
	r, err := pcapgo.NewReader(stdout)
	if err != nil {
		t.Fatal(err)
	}
	return func() []byte {
		frame, _, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("tcpdump: %v", err)
		}
		return frame
	}
}

// TestLiveFilterBeforeFrames floods an interface with frames that the filter
// rejects while captures are opened on it.
func TestLiveFilterBeforeFrames(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	flood := packet{src: netip.MustParseAddrPort("198.51.100.1:1"), dst: netip.MustParseAddrPort("198.51.100.2:443")}.frame(t)
	wanted := packet{src: netip.MustParseAddrPort("198.51.100.1:1"), dst: netip.MustParseAddrPort("198.51.100.2:53"), udp: true}.frame(t)
	for workers := 1; workers <= 3; workers++ {
		stop := make(chan struct{})
		var sender sync.WaitGroup
		sender.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					send(flood)
				}
			}
		})
		sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Filter: "udp", Workers: workers})
		close(stop)
		sender.Wait()
		send(wanted)
		frames := 0
		for _, s := range sources {
			for range 3 {
				batch, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range batch.Frames {
					if frames++; !bytes.Equal(f.Data, wanted) {
						t.Errorf("%d workers: a frame that the filter rejects: %x", workers, f.Data)
					}
				}
				batch.Release()
			}
			s.Close()
		}
		if frames != 1 {
			t.Errorf("%d workers: %d frames, 1 was sent", workers, frames)
		}
	}
}

// TestLiveFanout sends both directions of many flows, over one interface and
// over two, and looks which worker they reach.
func TestLiveFanout(t *testing.T) {
	lab := newWire(t)
	netlab.Join(t, lab.Server, "mirror1", lab.Sensor, "span1")
	ports := []func([]byte){rawSocket(t, lab.Server, lab.MirrorIface), rawSocket(t, lab.Server, "mirror1")}

	var flows [][2][]byte
	for i := range 300 {
		a := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		b := netip.AddrFrom4([4]byte{203, 0, 113, byte(i * 7)})
		if i%3 == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})
			b = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, 15: byte(i * 7)})
		}
		p := packet{src: netip.AddrPortFrom(a, uint16(20000+i)), dst: netip.AddrPortFrom(b, 443), udp: i%2 == 0, payload: 20}
		if i%5 == 0 {
			p.tags = [][2]uint16{{0x8100, uint16(i)}}
		}
		if i%20 == 0 {
			p.tags = [][2]uint16{{0x88a8, uint16(i)}, {0x8100, 7}}
		}
		reply := p
		reply.src, reply.dst = p.dst, p.src
		if i%2 == 0 {
			reply.flowLabel = uint32(i + 1) // as a system sets it that labels its flows
		}
		flows = append(flows, [2][]byte{p.frame(t), reply.frame(t)})
	}

	for _, workers := range []int{1, 2, 4} {
		sources := openIn(t, lab.Sensor, LiveOptions{
			Interfaces: []string{lab.SensorIface, "span1"}, Workers: workers})
		owner := map[string]int{}
		for round, port := range [][2]int{{0, 0}, {0, 1}, {1, 0}} {
			for _, flow := range flows {
				ports[port[0]](flow[0])
				ports[port[1]](flow[1])
			}
			seen := 0
			for deadline := time.Now().Add(patience); seen < 2*len(flows) && time.Now().Before(deadline); {
				for i, s := range sources {
					batch, err := s.Next()
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range batch.Frames {
						seen++
						// The same flow each time, whatever the interface.
						if before, ok := owner[string(f.Data)]; ok && before != i {
							t.Fatalf("%d workers, round %d: a frame reached worker %d, then %d: %x", workers, round, before, i, f.Data)
						}
						owner[string(f.Data)] = i
					}
					batch.Release()
				}
			}
			if seen != 2*len(flows) {
				t.Fatalf("%d workers: %d frames of %d", workers, seen, 2*len(flows))
			}
		}
		load := make([]int, workers)
		for i, flow := range flows {
			a, b := owner[string(flow[0])], owner[string(flow[1])]
			if a != b {
				t.Errorf("%d workers: flow %d reached worker %d and %d", workers, i, a, b)
			}
			load[a]++
		}
		for i, n := range load {
			if n < len(flows)/workers/3 {
				t.Errorf("%d workers: worker %d has %d flows of %d: %v", workers, i, n, len(flows), load)
			}
		}
		for _, s := range sources {
			s.Close()
		}
	}
}

// TestLiveFragments checks that the fragments of a datagram reach the worker of
// its flow, put together.
func TestLiveFragments(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 4})
	const headers, cut = 14 + 20, 1200
	for port := range uint16(5) {
		p := packet{src: netip.MustParseAddrPort("198.51.100.1:443"), dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), 40000+port), udp: true}
		short := p.frame(t)
		p.payload = 2000
		whole := p.frame(t)
		binary.BigEndian.PutUint16(whole[18:], port+1) // identification
		for _, part := range []struct {
			from, to int
			more     uint16
		}{{0, cut, 0x2000}, {cut, len(whole) - headers, 0}} {
			fragment := append(slices.Clone(whole[:headers]), whole[headers+part.from:headers+part.to]...)
			ip := fragment[14:headers]
			binary.BigEndian.PutUint16(ip[2:], uint16(len(fragment)-14))
			binary.BigEndian.PutUint16(ip[6:], part.more|uint16(part.from/8))
			binary.BigEndian.PutUint16(ip[10:], 0)
			var sum uint32
			for i := 0; i < len(ip); i += 2 {
				sum += uint32(binary.BigEndian.Uint16(ip[i:]))
			}
			binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
			send(fragment)
		}
		send(short)
		var owners []int
		var lengths []int
		for deadline := time.Now().Add(patience); len(owners) < 2 && time.Now().Before(deadline); {
			for i, s := range sources {
				batch, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range batch.Frames {
					owners, lengths = append(owners, i), append(lengths, len(f.Data))
					if len(f.Data) == len(whole) && !bytes.Equal(f.Data[headers:], whole[headers:]) {
						t.Errorf("put together: %x", f.Data)
					}
				}
				batch.Release()
			}
		}
		if !slices.Equal(lengths, []int{len(whole), len(short)}) || owners[0] != owners[1] {
			t.Fatalf("frames of %v bytes at workers %v; sent were %d bytes in fragments, and %d", lengths, owners, len(whole), len(short))
		}
	}
}

// TestLiveFragmentsLost checks that fragments that the kernel takes and of which
// nothing comes are counted.
func TestLiveFragmentsLost(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	lab.Sensor.Do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ipfrag_time", []byte("1"), 0); err != nil {
			t.Skipf("the kernel's time for fragments cannot be set: %v", err)
		}
	})
	sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 2})
	const lone = 7
	p := packet{src: netip.MustParseAddrPort("198.51.100.1:443"), dst: netip.MustParseAddrPort("198.51.100.2:40000"), udp: true, payload: 800}
	for id := range uint16(lone) {
		frame := p.frame(t)
		ip := frame[14:34]
		binary.BigEndian.PutUint16(ip[4:], id+1)
		binary.BigEndian.PutUint16(ip[6:], 0x2000) // more fragments, which never come
		binary.BigEndian.PutUint16(ip[2:], 20+800)
		binary.BigEndian.PutUint16(ip[10:], 0)
		var sum uint32
		for i := 0; i < len(ip); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[i:]))
		}
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
		send(frame[:34+800])
	}
	var s Stats
	for deadline := time.Now().Add(patience); s.Unassembled < lone && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s = Stats{}
		for _, source := range sources {
			s.Add(source.Stats())
		}
	}
	if s.Fragments != lone || s.Unassembled != lone {
		t.Errorf("%+v", s)
	}
}

// TestLiveFanoutAfterDown checks that the workers keep their flows when the
// interfaces go down and come up again.
func TestLiveFanoutAfterDown(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 3})
	var frames [][]byte
	for i := range 60 {
		frames = append(frames, packet{
			src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), uint16(i)),
		}.frame(t))
	}
	owners := func() map[string]int {
		for _, frame := range frames {
			send(frame)
		}
		owner := map[string]int{}
		for deadline := time.Now().Add(patience); len(owner) < len(frames) && time.Now().Before(deadline); {
			for i, s := range sources {
				batch, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range batch.Frames {
					owner[string(f.Data)] = i
				}
				batch.Release()
			}
		}
		return owner
	}
	before := owners()
	for _, state := range []string{"down", "up"} {
		if out, err := lab.Sensor.Command("ip", "link", "set", lab.SensorIface, state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, s := range sources {
			batch, err := s.Next()
			if err != nil {
				t.Fatalf("interface %s: %v", state, err)
			}
			batch.Release()
		}
	}
	after := owners()
	if len(before) != len(frames) || len(after) != len(frames) {
		t.Fatalf("%d, then %d frames of %d", len(before), len(after), len(frames))
	}
	for frame, i := range before {
		if after[frame] != i {
			t.Errorf("a flow went from worker %d to %d", i, after[frame])
		}
	}
}

// TestLiveDrops gives a small ring more than it holds before anything is read.
func TestLiveDrops(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, RingSize: MinRingSize, Workers: 2, Filter: "udp"})
	const count = 4000
	lostBefore := backlogDrops(t)
	for i := range count {
		send(packet{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), uint16(i)), udp: true, payload: 1000}.frame(t))
	}
	var sum Stats
	for _, s := range sources {
		s.Stats() // the kernel forgets what it has told
		var frames uint64
		for idle := 0; idle < 3; {
			batch, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if len(batch.Frames) == 0 {
				idle++
			}
			frames += uint64(len(batch.Frames))
			batch.Release()
		}
		s.Close()
		stats := s.Stats()
		if again := s.Stats(); again != stats {
			t.Errorf("stats %+v, then %+v", stats, again)
		}
		if stats.Frames != frames {
			t.Errorf("%d frames, stats %+v", frames, stats)
		}
		sum.Add(stats)
	}
	if shown := listeningOf(sources[0]).interfaces()[0]; shown.Frames != sum.Frames || shown.Dropped != sum.Dropped {
		t.Errorf("%+v, stats %+v", shown, sum)
	}
	missing := count - int(sum.Frames+sum.Dropped)
	if lost := backlogDrops(t) - lostBefore; 0 < missing && missing <= lost {
		t.Skipf("the machine is so busy that it lost %d frames before they reached an interface", lost)
	}
	if missing != 0 || sum.Dropped == 0 || sum.Freezes == 0 {
		t.Errorf("%d frames came, stats %+v", count, sum)
	}
}

// backlogDrops returns how many frames this machine has dropped between its
// interfaces.
func backlogDrops(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var processed, dropped int
		if _, err := fmt.Sscanf(line, "%x %x", &processed, &dropped); err != nil {
			t.Fatal(err)
		}
		n += dropped
	}
	return n
}

func TestLiveClose(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	frame := packet{src: netip.MustParseAddrPort("198.51.100.1:1"), dst: netip.MustParseAddrPort("198.51.100.2:2")}.frame(t)

	t.Run("while waiting", func(t *testing.T) {
		source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}})[0]
		ended := make(chan error)
		go func() {
			for {
				batch, err := source.Next()
				if err != nil {
					ended <- err
					return
				}
				batch.Release()
			}
		}()
		source.Stats()
		if err := source.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != io.EOF {
			t.Errorf("Next: %v, want io.EOF", err)
		}
		if err := source.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
	t.Run("with a batch lent", func(t *testing.T) {
		source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}})[0]
		send(frame)
		var batch *Batch
		for batch == nil || len(batch.Frames) == 0 {
			var err error
			if batch, err = source.Next(); err != nil {
				t.Fatal(err)
			}
		}
		source.Close()
		if !bytes.Equal(batch.Frames[0].Data, frame) {
			t.Error("what was lent is not there after Close")
		}
		if batch.Origin.Interface != lab.SensorIface {
			t.Errorf("origin %+v", batch.Origin)
		}
		if _, err := source.Next(); err != io.EOF {
			t.Errorf("Next after Close: %v", err)
		}
		batch.Release()
		batch.Release() // does no harm
		if stats := source.Stats(); stats.Frames != 1 {
			t.Errorf("stats %+v", stats)
		}
	})
	t.Run("many batches lent", func(t *testing.T) {
		source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, RingSize: 4 * ringBlockSize})[0]
		var lent []*Batch
		for range 4 {
			send(frame)
			for {
				batch, err := source.Next()
				if err != nil {
					t.Fatal(err)
				}
				if len(batch.Frames) > 0 {
					lent = append(lent, batch)
					break
				}
			}
		}
		silent(t, source) // every block is lent
		for i, batch := range lent {
			if !bytes.Equal(batch.Frames[0].Data, frame) || batch.Frames[0].Number != uint64(i+1) {
				t.Errorf("batch %d is %+v", i, batch.Frames)
			}
			batch.Release()
		}
		send(frame)
		receive(t, source, 1)
	})
}

// TestLiveLoopback checks that a frame on loopback is captured once.
func TestLiveLoopback(t *testing.T) {
	for _, workers := range []int{1, 2} {
		n := netlab.NewNamespace(t)
		sources := openIn(t, n, LiveOptions{Interfaces: []string{"lo"}, Workers: workers, Filter: "udp port 4433"})
		n.Do(func() {
			conn, err := net.Dial("udp", "127.0.0.1:4433")
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.Write([]byte("once"))
		})
		var frames []Frame
		for range 4 {
			for _, s := range sources {
				batch, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range batch.Frames {
					f.Data = slices.Clone(f.Data)
					frames = append(frames, f)
				}
				batch.Release()
			}
		}
		if len(frames) != 1 || !bytes.HasSuffix(frames[0].Data, []byte("once")) || frames[0].LinkType != linktype.Ethernet {
			t.Errorf("%d workers: %+v", workers, frames)
		}
	}
}

// TestLiveTun captures on an interface without link headers.
func TestLiveTun(t *testing.T) {
	n := netlab.NewNamespace(t)
	netlab.Silence(t, n)
	var tun int
	var err error
	n.Do(func() {
		if tun, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		request, _ := unix.NewIfreq("tun0")
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(tun, unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Skipf("open /dev/net/tun: %v", err)
	}
	defer unix.Close(tun)
	if out, err := n.Command("ip", "link", "set", "tun0", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	source := openIn(t, n, LiveOptions{Interfaces: []string{"tun0"}, Filter: "tcp port 443 and not host 198.51.100.7"})[0]
	for _, address := range []string{"198.51.100.7:40000", "198.51.100.1:40000", "[2001:db8::9]:40000"} {
		src := netip.MustParseAddrPort(address)
		dst := netip.MustParseAddrPort("198.51.100.2:443")
		if src.Addr().Is6() {
			dst = netip.MustParseAddrPort("[2001:db8::a]:443")
		}
		want := packet{src: src, dst: dst, payload: 30}.frame(t)[14:]
		if _, err := unix.Write(tun, want); err != nil {
			t.Fatal(err)
		}
		if address == "198.51.100.7:40000" {
			continue
		}
		got := receive(t, source, 1)[0]
		if !bytes.Equal(got.Data, want) || got.LinkType != linktype.Raw || int(got.Length) != len(want) {
			t.Errorf("%x of %d, link type %d; sent was %x", got.Data, got.Length, got.LinkType, want)
		}
	}
}

func TestLiveRefuses(t *testing.T) {
	lab := newWire(t)
	if out, err := lab.Sensor.Command("ip", "link", "add", "down0", "type", "veth", "peer", "name", "down1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, test := range []struct {
		opt  LiveOptions
		want string
	}{
		{LiveOptions{}, "no interface to capture on"},
		{LiveOptions{Interfaces: []string{"eth9"}}, "open eth9: no such interface"},
		{LiveOptions{Interfaces: []string{lab.SensorIface, "eth9"}, Workers: 2}, "open eth9: no such interface"},
		{LiveOptions{Interfaces: []string{"down0"}}, "open down0: the interface is down: ip link set down0 up"},
		{LiveOptions{Interfaces: []string{"span[0"}}, "open span[0: syntax error in pattern"},
		{LiveOptions{Interfaces: []string{"lo", "lo"}}, "open lo: the interface is given twice"},
		{LiveOptions{Interfaces: []string{"lo"}, Filter: "tcp and"}, `compile filter "tcp and": the expression ends too early`},
		{LiveOptions{Interfaces: []string{"lo"}, Workers: -1}, "-1 workers: not between 1 and 256"},
		{LiveOptions{Interfaces: []string{"lo"}, RingSize: 1}, "a ring of 1 bytes: not between 262144 and 1073741824"},
		{LiveOptions{Interfaces: []string{"lo"}, Snaplen: 1}, "a snaplen of 1 bytes: not between 128 and 262144"},
	} {
		var err error
		lab.Sensor.Do(func() { _, err = OpenLive(test.opt) })
		if err == nil || err.Error() != test.want {
			t.Errorf("%+v: %v, want %s", test.opt, err, test.want)
		}
	}
}

// TestLiveCapabilities captures with CAP_NET_RAW alone and not without it.
func TestLiveCapabilities(t *testing.T) {
	n := netlab.NewNamespace(t)
	with := func(capabilities uint32) (live *Live, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			// The thread has fewer capabilities from here on: it must end.
			runtime.LockOSThread()
			n.Do(func() {
				header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				data := [2]unix.CapUserData{{Effective: capabilities}}
				data[0].Permitted = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_ADMIN
				if err = unix.Capset(&header, &data[0]); err == nil {
					live, err = OpenLive(LiveOptions{Interfaces: []string{"lo"}, Workers: 2, Filter: "tcp"})
				}
			})
		}()
		<-done
		return live, err
	}
	live, err := with(1 << unix.CAP_NET_RAW)
	if err != nil {
		t.Errorf("with CAP_NET_RAW: %v", err)
	} else {
		live.Close()
	}
	_, err = with(0)
	if !errors.Is(err, unix.EPERM) || !strings.HasPrefix(err.Error(), "open lo: ") || !strings.Contains(err.Error(), "setcap cap_net_raw+ep") {
		t.Errorf("without capabilities: %v", err)
	}
}

// TestLiveOpenClose leaves no descriptor and no mapping behind, also when the
// last interface cannot be opened.
func TestLiveOpenClose(t *testing.T) {
	n := netlab.NewNamespace(t)
	count := func() (files, maps int) {
		list, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return len(list), strings.Count(string(text), "socket:")
	}
	files, maps := count()
	for range 5 {
		for _, s := range openIn(t, n, LiveOptions{Interfaces: []string{"lo"}, Workers: 3}) {
			s.Close()
		}
		n.Do(func() {
			if _, err := OpenLive(LiveOptions{Interfaces: []string{"lo", "eth9"}, Workers: 3}); err == nil {
				t.Error("opened")
			}
		})
	}
	if f, m := count(); f != files || m != maps {
		t.Errorf("%d files and %d mappings, before %d and %d", f, m, files, maps)
	}
}

func TestLiveAllocates(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, RingSize: MinRingSize})[0]
	frame := packet{tags: [][2]uint16{{0x8100, 5}}, src: netip.MustParseAddrPort("198.51.100.1:1"), dst: netip.MustParseAddrPort("198.51.100.2:2")}.frame(t)
	once := func() {
		for range 10 {
			send(frame)
		}
		for seen := 0; seen < 10; {
			batch, err := source.Next()
			if err != nil {
				t.Fatal(err)
			}
			seen += len(batch.Frames)
			batch.Release()
		}
	}
	once()
	once() // every block has its frames now
	if n := testing.AllocsPerRun(8, once); n != 0 {
		t.Errorf("%v allocations to capture 10 frames", n)
	}
}

// TestLiveStop stops with frames in the rings: all are read, or counted.
func TestLiveStop(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	const count = 500
	for _, read := range []bool{true, false} {
		sources := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 2, Filter: "udp"})
		before := backlogDrops(t)
		for i := range count {
			send(packet{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), uint16(i)), udp: true, payload: 100}.frame(t))
		}
		var sum Stats
		for _, s := range sources {
			s.(Stopper).Stop()
			for read {
				batch, err := s.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				batch.Release()
			}
		}
		if !read {
			time.Sleep(2 * drainAfter)
		}
		for _, s := range sources {
			s.Close()
			sum.Add(s.Stats())
		}
		want := Stats{Frames: count, Bytes: sum.Bytes}
		if !read {
			want = Stats{Unread: count}
		}
		if sum != want && backlogDrops(t) == before {
			t.Errorf("%+v, want %+v", sum, want)
		}
	}
}
