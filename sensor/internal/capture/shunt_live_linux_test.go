package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// cable is a sensor at the end of a cable on which only the test sends.
type cable struct {
	t      *testing.T
	source capture.Source
	shunt  capture.Shunter
	send   func([]byte)
	sent   uint64
	got    uint64
	last   capture.Frame
}

func newCable(t *testing.T, filter string) *cable {
	t.Helper()
	far, sensor := netlab.NewNamespace(t), netlab.NewNamespace(t)
	netlab.Silence(t, far)
	netlab.Silence(t, sensor)
	netlab.Join(t, far, "far0", sensor, "span0")
	c := &cable{t: t}
	var live *capture.Live
	var fd int
	var err error
	sensor.Do(func() {
		live, err = capture.OpenLive(capture.LiveOptions{
			Interfaces: []string{"span0"}, RingSize: 1 << 20, Filter: filter,
			Warn: func(err error) { t.Skip(err) },
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	c.source = live.Sources[0]
	c.shunt = c.source.(capture.Shunter)
	t.Cleanup(func() { c.source.Close() })
	far.Do(func() {
		var i *net.Interface
		if i, err = net.InterfaceByName("far0"); err != nil {
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
	c.send = func(frame []byte) {
		t.Helper()
		if _, err := unix.Write(fd, frame); err != nil {
			t.Fatal(err)
		}
		c.sent++
	}
	return c
}

// passes sends frames and wants them all to come.
func (c *cable) passes(frames ...[]byte) {
	c.t.Helper()
	for _, f := range frames {
		c.send(f)
	}
	for deadline := time.Now().Add(20 * time.Second); len(frames) > 0; {
		if time.Now().After(deadline) {
			c.t.Fatalf("%d frames did not come: %x; stats %+v", len(frames), frames[0], c.source.Stats())
		}
		batch, err := c.source.Next()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range batch.Frames {
			if len(frames) == 0 || !bytes.Equal(f.Data, frames[0]) {
				c.t.Fatalf("unexpected frame %x", f.Data)
			}
			frames = frames[1:]
			c.got++
			c.last = f
		}
		batch.Release()
	}
}

// withheld sends frames that must not come, and says so when another does that
// is sent after them.
func (c *cable) withheld(frames ...[]byte) {
	c.t.Helper()
	for _, f := range frames {
		c.send(f)
	}
	c.passes(conversation{protocol: layers.IPProtocolUDP}.frame(c.t, 0, ""))
}

// conversation describes the frames of a flow between two hosts, whose ports
// and protocol are the same in each.
type conversation struct {
	v6       bool
	tags     []uint16
	protocol layers.IPProtocol // 0 is TCP
}

func (v conversation) String() string { return fmt.Sprintf("v6 %v, VLANs %v", v.v6, v.tags) }

// frame makes a frame of one direction. flags are letters of TCP's, beside ACK.
func (v conversation) frame(t testing.TB, direction int, flags string) []byte {
	t.Helper()
	ends := []string{"192.0.2.1", "192.0.2.2"}
	if v.v6 {
		ends = []string{"2001:db8::1", "2001:db8::2"}
	}
	ports := []uint16{40000, 443}
	src, dst := netip.MustParseAddr(ends[direction]).AsSlice(), netip.MustParseAddr(ends[1-direction]).AsSlice()
	types := make([]layers.EthernetType, len(v.tags))
	for i := range types {
		types[i] = layers.EthernetTypeDot1Q
	}
	protocol := v.protocol
	if protocol == 0 {
		protocol = layers.IPProtocolTCP
	}
	var ip gopacket.NetworkLayer
	if v.v6 {
		types = append(types, layers.EthernetTypeIPv6)
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: src, DstIP: dst}
	} else {
		types = append(types, layers.EthernetTypeIPv4)
		ip = &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: src, DstIP: dst}
	}
	stack := []gopacket.SerializableLayer{&layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: types[0]}}
	for i, tag := range v.tags {
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: tag, Priority: 5, Type: types[i+1]})
	}
	stack = append(stack, ip.(gopacket.SerializableLayer))
	if protocol == layers.IPProtocolUDP {
		udp := &layers.UDP{SrcPort: layers.UDPPort(ports[direction]), DstPort: layers.UDPPort(ports[1-direction])}
		udp.SetNetworkLayerForChecksum(ip)
		stack = append(stack, udp)
	} else {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(ports[direction]), DstPort: layers.TCPPort(ports[1-direction]), ACK: true,
			SYN: strings.Contains(flags, "S"), FIN: strings.Contains(flags, "F"), RST: strings.Contains(flags, "R"), Window: 1000}
		tcp.SetNetworkLayerForChecksum(ip)
		stack = append(stack, tcp)
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, append(stack, gopacket.Payload("some bytes"))...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buffer.Bytes())
}

func (v conversation) key(t testing.TB) capture.ShuntKey {
	t.Helper()
	var e ends
	k, _, ok := e.key(linktype.Ethernet, v.frame(t, 0, ""))
	if !ok {
		t.Fatal("not a segment")
	}
	return k
}

// TestLiveShunt takes flows of all kinds through a live capture: announced,
// withheld, cleared.
func TestLiveShunt(t *testing.T) {
	c := newCable(t, "")
	var withheld, bytes uint64
	kinds := []conversation{
		{}, {v6: true}, {tags: []uint16{10}}, {tags: []uint16{0}}, {v6: true, tags: []uint16{4095}},
		{tags: []uint16{10, 20}}, {tags: []uint16{20, 10}}, {v6: true, tags: []uint16{20, 10}},
	}
	for i, v := range kinds {
		k := v.key(t)
		frames := [][]byte{v.frame(t, 0, ""), v.frame(t, 1, "")}
		c.passes(frames...)
		state := c.shunt.Shunt(k, c.last.Time, 0)
		if again := c.shunt.Shunt(k, c.last.Time, state); again != state {
			t.Fatalf("%v: withheld by a frame from before the announcement", v)
		}
		time.Sleep(2 * time.Millisecond) // what it takes to settle
		c.passes(frames...)
		state = c.shunt.Shunt(k, c.last.Time, state)
		c.withheld(frames[0], frames[1], frames[1])
		if again := c.shunt.Shunt(k, c.last.Time, state); again != state {
			t.Errorf("%v: asked again at once for a flow that is withheld", v)
		}
		c.send(frames[0])
		withheld += 4
		bytes += uint64(4 * len(frames[0]))

		others := [][]byte{}
		for j, other := range kinds {
			if j != i {
				others = append(others, other.frame(t, 0, ""), other.frame(t, 1, ""))
			}
		}
		datagram := v
		datagram.protocol = layers.IPProtocolUDP
		others = append(others, datagram.frame(t, 0, ""), datagram.frame(t, 1, ""))
		end := v.frame(t, 1, string("SFR"[i%3]))
		c.passes(append(append(others, end), frames...)...)
	}
	stats := c.source.Stats()
	if stats.Shunted != withheld || stats.ShuntedBytes != bytes {
		t.Errorf("%d frames of %d bytes were withheld; stats %+v", withheld, bytes, stats)
	}
	if stats.Frames != c.got || stats.Frames+stats.Shunted+stats.Dropped != c.sent {
		t.Errorf("%d frames were sent, %d came; stats %+v", c.sent, c.got, stats)
	}
	c.source.Close()
	if after := c.source.Stats(); after != stats {
		t.Errorf("stats %+v after Close, %+v before", after, stats)
	}
}

// TestLiveShuntReuse lets a new connection begin on a five-tuple between the
// two steps: nothing of it may be withheld.
func TestLiveShuntReuse(t *testing.T) {
	c := newCable(t, "")
	v := conversation{}
	k := v.key(t)
	data := v.frame(t, 0, "")
	c.passes(data)
	state := c.shunt.Shunt(k, c.last.Time, 0)
	time.Sleep(2 * time.Millisecond)
	c.passes(v.frame(t, 0, "S"), v.frame(t, 1, "S"), data)
	// As if the caller had not seen the SYN yet.
	state = c.shunt.Shunt(k, c.last.Time, state)
	c.passes(data, data)
	// It is announced again by now.
	time.Sleep(2 * time.Millisecond)
	c.passes(data)
	c.shunt.Shunt(k, c.last.Time, state)
	c.withheld(data)
}

// TestLiveShuntFilter checks that the user's filter decides first.
func TestLiveShuntFilter(t *testing.T) {
	c := newCable(t, "src host 192.0.2.1")
	v := conversation{}
	there, back := v.frame(t, 0, ""), v.frame(t, 1, "")
	c.passes(there)
	state := c.shunt.Shunt(v.key(t), c.last.Time, 0)
	time.Sleep(2 * time.Millisecond)
	c.passes(there)
	c.shunt.Shunt(v.key(t), c.last.Time, state)
	c.withheld(there, back, v.frame(t, 1, "S"), there)
	if stats := c.source.Stats(); stats.Shunted != 2 {
		t.Errorf("2 frames were withheld, 2 filtered; stats %+v", stats)
	}
}

// TestLiveShuntAllocates asks for flows that are not, are to be, and are
// withheld.
func TestLiveShuntAllocates(t *testing.T) {
	c := newCable(t, "")
	k := conversation{}.key(t)
	var state capture.ShuntState
	if n := testing.AllocsPerRun(200, func() {
		k.LowPort++
		state = c.shunt.Shunt(k, 1, 0)
		state = c.shunt.Shunt(k, 1, state)
		state = c.shunt.Shunt(k, time.Now().Add(time.Second).UnixNano(), state)
		state = c.shunt.Shunt(k, time.Now().UnixNano(), state)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkShunt is what the two steps cost together.
func BenchmarkShunt(b *testing.B) {
	n := netlab.NewNamespace(b)
	var live *capture.Live
	var err error
	n.Do(func() {
		live, err = capture.OpenLive(capture.LiveOptions{Interfaces: []string{"lo"}, RingSize: 1 << 20,
			Warn: func(err error) { b.Skip(err) }})
	})
	if err != nil {
		b.Fatal(err)
	}
	defer live.Sources[0].Close()
	shunt := live.Sources[0].(capture.Shunter)
	var k capture.ShuntKey
	b.ReportAllocs()
	for b.Loop() {
		k.Low[1]++
		shunt.Shunt(k, 1<<62, shunt.Shunt(k, 1, 0))
	}
}

// TestLiveShuntCapabilities opens captures with the capabilities that withholding
// takes, and without them.
func TestLiveShuntCapabilities(t *testing.T) {
	n := netlab.NewNamespace(t)
	open := func(capabilities ...int) (shunts bool, warning string) {
		t.Helper()
		var live *capture.Live
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			// The thread has fewer capabilities from here on: it must end.
			runtime.LockOSThread()
			n.Do(func() {
				header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var data [2]unix.CapUserData
				for _, c := range capabilities {
					data[c/32].Effective |= 1 << (c % 32)
				}
				for i := range data {
					data[i].Permitted = data[i].Effective
				}
				// What going back to the namespace takes stays permitted.
				data[0].Permitted |= 1 << unix.CAP_SYS_ADMIN
				if err = unix.Capset(&header, &data[0]); err == nil {
					live, err = capture.OpenLive(capture.LiveOptions{
						Interfaces: []string{"lo"}, Filter: "tcp", RingSize: 1 << 20,
						Warn: func(err error) { warning = err.Error() },
					})
				}
			})
		}()
		<-done
		if errors.Is(err, unix.EINVAL) {
			t.Skipf("set capabilities: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer live.Sources[0].Close()
		_, shunts = live.Sources[0].(capture.Shunter)
		return shunts, warning
	}
	if shunts, warning := open(unix.CAP_NET_RAW); shunts || !strings.HasPrefix(warning, "shunt: not allowed without CAP_BPF, ") ||
		!strings.HasSuffix(warning, ": going on without") || strings.Contains(warning, "\n") {
		t.Errorf("with CAP_NET_RAW: shunts %v, %q", shunts, warning)
	}
	for name, second := range map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN} {
		if shunts, warning := open(unix.CAP_NET_RAW, second); !shunts || warning != "" {
			t.Errorf("with CAP_NET_RAW and %s: shunts %v, %q", name, shunts, warning)
		}
	}
}

// TestLiveNoShunt captures without, when told so.
func TestLiveNoShunt(t *testing.T) {
	n := netlab.NewNamespace(t)
	var live *capture.Live
	var err error
	n.Do(func() {
		live, err = capture.OpenLive(capture.LiveOptions{Interfaces: []string{"lo"}, NoShunt: true, RingSize: 1 << 20,
			Warn: func(err error) { t.Error(err) }})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Sources[0].Close()
	if _, shunts := live.Sources[0].(capture.Shunter); shunts {
		t.Error("can shunt")
	}
}

// BenchmarkShuntProgram is what the kernel's program takes for a frame, without
// link layer, of a flow that is withheld and of others.
func BenchmarkShuntProgram(b *testing.B) {
	bench := capture.NewShuntBench(b, "", linktype.Raw)
	for _, v6 := range []bool{false, true} {
		v := conversation{v6: v6}
		bench.Withhold(b, v.key(b))
		other, datagram := v.frame(b, 0, ""), conversation{v6: v6, protocol: layers.IPProtocolUDP}.frame(b, 0, "")
		ports := 14 + 20
		if v6 {
			ports = 14 + 40
		}
		other[ports]++
		for name, frame := range map[string][]byte{"withheld": v.frame(b, 0, ""), "other": other, "UDP": datagram} {
			b.Run(fmt.Sprintf("v6=%v/%s", v6, name), func(b *testing.B) {
				var sum time.Duration
				for b.Loop() {
					sum += bench.Time(b, frame[14:])
				}
				b.ReportMetric(float64(sum.Nanoseconds())/float64(b.N), "ns/frame")
			})
		}
	}
}
