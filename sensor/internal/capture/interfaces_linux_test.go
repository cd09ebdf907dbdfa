package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// listener is a sensor in a namespace of its own that is always read, and what it saw.
type listener struct {
	t       *testing.T
	far     *netlab.Namespace
	sensor  *netlab.Namespace
	live    *Live
	reading sync.WaitGroup

	mu    sync.Mutex
	lines []string
	got   map[string][]uint32 // numbers of frames by interface, as they came
	last  map[string]uint64   // number in its ring, by interface and worker; nil to ignore it
}

// newListener makes the namespaces. Cables are joined by join, and then listen is called.
func newListener(t *testing.T) *listener {
	t.Helper()
	l := &listener{t: t, far: netlab.NewNamespace(t), sensor: netlab.NewNamespace(t), got: map[string][]uint32{}}
	netlab.Silence(t, l.far)
	netlab.Silence(t, l.sensor)
	return l
}

// join makes a cable to an interface of the sensor, and returns what sends a numbered
// frame from its other end.
func (l *listener) join(name string) (send func(number uint32)) {
	l.t.Helper()
	netlab.Join(l.t, l.far, "far"+name, l.sensor, name)
	return l.sender(name)
}

func (l *listener) sender(name string) func(uint32) {
	l.t.Helper()
	send := rawSocket(l.t, l.far, "far"+name)
	return func(number uint32) { send(numbered(l.t, number)) }
}

// numbered is a frame of one of many flows, with a number in its payload.
func numbered(t testing.TB, number uint32) []byte {
	frame := packet{src: netip.MustParseAddrPort("198.51.100.1:40000"),
		dst: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), 1000+uint16(number%512)), udp: true, payload: 60}.frame(t)
	binary.BigEndian.PutUint32(frame[14+20+8:], number)
	return frame
}

// listen opens a capture and reads it until the test ends.
func (l *listener) listen(opt LiveOptions) {
	l.t.Helper()
	if opt.RingSize == 0 {
		opt.RingSize = 1 << 20
	}
	opt.Warn = func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, err.Error())
	}
	opt.Socket = func() (fd int, err error) {
		l.sensor.Do(func() { fd, err = Socket() })
		return fd, err
	}
	var err error
	l.sensor.Do(func() { l.live, err = OpenLive(opt) })
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.live.Close() })
	for worker, s := range l.live.Sources {
		l.reading.Go(func() {
			for {
				batch, err := s.Next()
				if err == io.EOF {
					return
				}
				if err != nil {
					l.t.Error(err)
					return
				}
				l.take(worker, batch)
				batch.Release()
			}
		})
	}
}

func (l *listener) take(worker int, batch *Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range batch.Frames {
		name := batch.Origin.Interface
		if len(f.Data) >= 46 {
			l.got[name] = append(l.got[name], binary.BigEndian.Uint32(f.Data[42:]))
		}
		key := fmt.Sprint(name, " ", worker)
		if last, ok := l.last[key]; ok && f.Number != last+1 {
			l.t.Errorf("%s: frame %d comes after frame %d", key, f.Number, last)
		}
		if l.last != nil {
			l.last[key] = f.Number
		}
	}
}

// stop ends the capture, and returns the sums.
func (l *listener) stop() (sum Stats) {
	l.t.Helper()
	for _, s := range l.live.Sources {
		s.(Stopper).Stop()
	}
	l.reading.Wait()
	l.live.Close()
	for _, s := range l.live.Sources {
		sum.Add(s.Stats())
	}
	return sum
}

// count is how many numbered frames came on an interface.
func (l *listener) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.got[name])
}

// until waits until something is so.
func (l *listener) until(what string, is func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Fatalf("not %s; lines:\n%s\n%+v", what, strings.Join(l.lines, "\n"), l.live.Interfaces())
		}
	}
}

// says waits until a line has a text, and forgets the lines up to it.
func (l *listener) says(text string) {
	l.t.Helper()
	l.until(fmt.Sprintf("said: %q", text), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, line := range l.lines {
			if strings.Contains(line, text) {
				l.lines = l.lines[i+1:]
				return true
			}
		}
		return false
	})
}

// comes sends until frames come on an interface.
func (l *listener) comes(name string, send func(uint32)) {
	l.t.Helper()
	before, number := l.count(name), uint32(1<<31)
	l.until("frames on "+name, func() bool {
		number++
		send(number)
		i := l.shows(name)
		return l.count(name) > before && i != nil && i.State == LinkUp
	})
}

// shows returns what is told of an interface, or nil.
func (l *listener) shows(name string) *Interface {
	for _, i := range l.live.Interfaces() {
		if i.Name == name {
			return &i
		}
	}
	return nil
}

// is waits until an interface is in a state.
func (l *listener) is(name string, state LinkState) {
	l.t.Helper()
	l.until(fmt.Sprintf("%s is %s", name, state), func() bool {
		i := l.shows(name)
		return i != nil && i.State == state
	})
}

func ip(t *testing.T, n *netlab.Namespace, args ...string) {
	t.Helper()
	if out, err := n.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// witness counts the frames that packet sockets on an interface are given, as the
// kernel counts them.
func witness(t *testing.T, n *netlab.Namespace, name string) (count func() int) {
	t.Helper()
	var fd int
	n.Do(func() {
		var err error
		if fd, err = Socket(); err == nil {
			request, _ := unix.NewIfreq(name)
			if err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err == nil {
				err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: int(request.Uint32())})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { unix.Close(fd) })
	sum := 0
	return func() int {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			t.Fatal(err)
		}
		sum += int(stats.Packets)
		return sum
	}
}

// TestLiveReturns deletes one of two interfaces again and again, and makes another of
// its name, while numbered frames come on both. The other loses none, and what came on
// the one while it was there is read or counted.
func TestLiveReturns(t *testing.T) {
	for _, test := range []struct {
		workers int
		noShunt bool
	}{{1, false}, {3, false}, {1, true}, {2, true}} {
		t.Run(fmt.Sprintf("workers=%d/shunt=%v", test.workers, !test.noShunt), func(t *testing.T) {
			l := newListener(t)
			l.last = map[string]uint64{}
			sendSteady, send := l.join("span0"), l.join("span1")
			l.listen(LiveOptions{Interfaces: []string{"span0", "span1"}, Workers: test.workers, NoShunt: test.noShunt, Filter: "udp"})
			steady, stop := uint32(0), make(chan struct{})
			var sending sync.WaitGroup
			sending.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Microsecond):
						sendSteady(steady)
						steady++
					}
				}
			})
			backlog := backlogDrops(t)
			const rounds, burst = 6, 700
			sent := 0
			for round := range rounds {
				if round > 0 {
					send = l.join("span1")
					l.says("capture on span1: the interface is back after")
					l.is("span1", LinkUp)
				}
				count := witness(t, l.sensor, "span1")
				for n := range uint32(burst) {
					send(uint32(round)*burst + n)
				}
				sent += burst
				l.until("seen by the kernel", func() bool { return count() >= burst })
				ip(t, l.sensor, "link", "delete", "span1")
				l.says("capture on span1: the interface is gone: going on without, until it comes back")
			}
			close(stop)
			sending.Wait()
			l.until("all read", func() bool { return l.count("span0") == int(steady) })
			sum := l.stop()
			shown := [2]*Interface{l.shows("span0"), l.shows("span1")}
			if backlogDrops(t) != backlog {
				t.Skip("the machine is so busy that it lost frames before they reached an interface")
			}
			numbers := l.got["span0"]
			slices.Sort(numbers)
			for i, n := range numbers {
				if n != uint32(i) {
					t.Fatalf("frame %d of span0 did not come, or twice", i)
				}
			}
			read := l.count("span1")
			if total := uint64(read) + sum.Unread + sum.Dropped; total != uint64(sent) || sum.Frames != uint64(read)+uint64(steady) {
				t.Errorf("%d frames were sent on span1 and %d read; %+v", sent, read, sum)
			}
			if shown[0].State != LinkUp || shown[0].Changes != 0 || shown[0].Frames != uint64(steady) || time.Since(shown[0].Last) > patience {
				t.Errorf("%+v", shown[0])
			}
			if shown[1].State != LinkGone || shown[1].Frames != uint64(read) || sum.Gone != rounds {
				t.Errorf("%+v, %+v", shown[1], sum)
			}
			t.Logf("%d frames on span0; of %d on span1 %d were read, %d dropped, %d left; interfaces %+v",
				steady, sent, read, sum.Dropped, sum.Unread, *shown[1])
		})
	}
}

// TestLiveOnlyInterface has the only interface of a sensor go and come back.
func TestLiveOnlyInterface(t *testing.T) {
	l := newListener(t)
	send := l.join("span0")
	l.listen(LiveOptions{Interfaces: []string{"span0"}, Workers: 2})
	l.comes("span0", send)
	for range 3 {
		ip(t, l.sensor, "link", "delete", "span0")
		l.is("span0", LinkGone)
		l.says("going on without, until it comes back")
		send = l.join("span0")
		there := time.Now()
		l.comes("span0", send)
		t.Logf("the first frame came %v after the interface was up", time.Since(there).Round(time.Millisecond))
	}
	l.is("span0", LinkUp)
	if i := l.shows("span0"); i.Changes < 6 {
		t.Errorf("%+v", i)
	}
	if sum := l.stop(); sum.Gone != 3 {
		t.Errorf("%+v", sum)
	}
}

// TestLiveHashed has a kernel that takes no program for its fanout groups, as before
// Linux 4.3: its own hash deals the frames, and that is said once of an interface. Where
// another interface has taken the program, a refusal is none of the kernel's: two hashes
// would deal the directions of a flow to two workers.
func TestLiveHashed(t *testing.T) {
	real := joinGroup
	t.Cleanup(func() { joinGroup = real })
	joinGroup = func(fd, group int) error {
		if group>>16&0xff == unix.PACKET_FANOUT_CBPF {
			return unix.EINVAL
		}
		return real(fd, group)
	}
	l := newListener(t)
	send := l.join("span0")
	l.listen(LiveOptions{Interfaces: []string{"span0"}, Workers: 2})
	l.comes("span0", send)
	const said = "capture on span0: fanout: the kernel takes no program"
	l.says(said)
	ip(t, l.sensor, "link", "delete", "span0")
	l.is("span0", LinkGone)
	l.comes("span0", l.join("span0"))
	l.stop()
	if slices.ContainsFunc(l.lines, func(line string) bool { return strings.HasPrefix(line, said) }) {
		t.Errorf("said again: %q", l.lines)
	}

	rings := []*ring{{fd: -1}, {fd: -1}}
	if _, err := joinFanout(rings, false, nil, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a second hash: %v", err)
	}
}

// TestLiveLent has a worker keep a batch of an interface that goes and comes back.
func TestLiveLent(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	var live *Live
	var err error
	socket := func() (fd int, err error) {
		lab.Sensor.Do(func() { fd, err = Socket() })
		return fd, err
	}
	lab.Sensor.Do(func() {
		live, err = OpenLive(LiveOptions{Interfaces: []string{lab.SensorIface}, RingSize: 1 << 20, Socket: socket})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	source := live.Sources[0]
	next := func() *Batch {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			batch, err := source.Next()
			if err != nil {
				t.Fatal(err)
			}
			if len(batch.Frames) > 0 {
				return batch
			}
		}
		t.Fatal("no frame")
		return nil
	}
	first := numbered(t, 1)
	send(first)
	lent := next()
	ip(t, lab.Sensor, "link", "delete", lab.SensorIface)
	netlab.Join(t, lab.Server, lab.MirrorIface, lab.Sensor, lab.SensorIface)
	send = rawSocket(t, lab.Server, lab.MirrorIface)
	for deadline := time.Now().Add(patience); live.Interfaces()[0].State != LinkUp || live.Interfaces()[0].Changes < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", live.Interfaces())
		}
	}
	send(numbered(t, 2))
	second := next()
	if string(lent.Frames[0].Data) != string(first) || second.Frames[0].Number != 2 {
		t.Errorf("lent before: %x; then frame %d", lent.Frames[0].Data, second.Frames[0].Number)
	}
	second.Release()
	lent.Release()
	lent.Release() // does no harm
}

// TestLiveLinks changes links in every way that the kernel tells of.
func TestLiveLinks(t *testing.T) {
	l := newListener(t)
	send := l.join("span0")
	l.listen(LiveOptions{Interfaces: []string{"span0"}, Workers: 2})
	l.comes("span0", send)
	if i := l.shows("span0"); i.State != LinkUp || i.Changes != 0 || i.MTU != 1500 || i.Speed != 10000 || i.Since.IsZero() {
		t.Errorf("%+v", i) // the speed is what the driver veth says
	}

	ip(t, l.sensor, "link", "set", "span0", "down")
	l.says("capture on span0: the link is down")
	l.is("span0", LinkDown)
	ip(t, l.sensor, "link", "set", "span0", "up")
	l.says("capture on span0: the link is up again after ")
	l.is("span0", LinkUp)
	l.comes("span0", send)

	ip(t, l.far, "link", "set", "farspan0", "down")
	l.says("capture on span0: the link has no carrier")
	l.is("span0", LinkNoCarrier)
	ip(t, l.far, "link", "set", "farspan0", "up")
	l.says("capture on span0: the link is up again after ")
	l.comes("span0", l.sender("span0"))
	if i := l.shows("span0"); i.Changes != 4 {
		t.Errorf("%+v", i)
	}

	ip(t, l.sensor, "link", "set", "span0", "mtu", "9000")
	l.says("capture on span0: the MTU is 9000 now, and was 1500")
	if i := l.shows("span0"); i.MTU != 9000 || i.Changes != 4 {
		t.Errorf("%+v", i)
	}

	// The port of a bridge that is deleted is no interface that is.
	ip(t, l.sensor, "link", "add", "bridge0", "type", "bridge")
	ip(t, l.sensor, "link", "set", "span0", "master", "bridge0")
	ip(t, l.sensor, "link", "set", "span0", "nomaster")
	ip(t, l.sensor, "link", "set", "span0", "mtu", "1500")
	l.says("capture on span0: the MTU is 1500 now")
	l.comes("span0", send)
	if sum := l.stop(); sum.Gone != 0 {
		t.Errorf("%+v", sum)
	}
}

// rename gives an interface another name, which older kernels allow only while it is
// down.
func rename(t *testing.T, n *netlab.Namespace, from, to string) {
	t.Helper()
	ip(t, n, "link", "set", from, "down")
	ip(t, n, "link", "set", from, "name", to)
	ip(t, n, "link", "set", to, "up")
}

// TestLiveRename renames an interface: its frames go on under the new name, until
// another has the name that was given.
func TestLiveRename(t *testing.T) {
	l := newListener(t)
	send := l.join("span0")
	l.listen(LiveOptions{Interfaces: []string{"span0", "spa[n]1"}, Workers: 2})
	l.comes("span0", send)
	rename(t, l.sensor, "span0", "tap0")
	l.says("capture on span0: the interface is tap0 now; its frames go on under this name")
	l.comes("tap0", send)
	if len(l.live.Interfaces()) != 1 {
		t.Errorf("%+v", l.live.Interfaces())
	}
	ip(t, l.far, "link", "set", "farspan0", "name", "fartap0")
	other := l.join("span0")
	l.says("capture on tap0: no longer, as another interface is span0 now")
	l.comes("span0", other)
	if l.shows("tap0") != nil {
		t.Errorf("%+v", l.live.Interfaces())
	}

	// One that is captured because of a pattern takes the name that was given.
	ip(t, l.sensor, "link", "delete", "span0")
	l.is("span0", LinkGone)
	other = l.join("span1")
	l.comes("span1", other)
	rename(t, l.sensor, "span1", "span0")
	l.comes("span0", other)
	if all := l.live.Interfaces(); len(all) != 1 || all[0].State != LinkUp {
		t.Errorf("%+v", all)
	}
	// It stands for that name now, so it stays when it is renamed again.
	rename(t, l.sensor, "span0", "tap1")
	l.comes("tap1", other)
	// It is the pattern's when another has the name.
	rename(t, l.sensor, "tap1", "span1")
	ip(t, l.far, "link", "set", "farspan1", "name", "fartap1")
	third := l.join("span0")
	l.comes("span0", third)
	l.comes("span1", other)
	// It is not captured when it has a name that matches nothing.
	rename(t, l.sensor, "span1", "tap2")
	l.says("capture on span1: no longer, as it is tap2 now, which matches no pattern")
	l.comes("span0", third)
	if all := l.live.Interfaces(); len(all) != 1 || all[0].Name != "span0" {
		t.Errorf("%+v", all)
	}
}

// TestLivePattern captures on what matches, now and later.
func TestLivePattern(t *testing.T) {
	l := newListener(t)
	l.listen(LiveOptions{Interfaces: []string{"span*", "span?", "l*"}, Workers: 2})
	l.says("capture on span*: no interface matches: waiting for one")
	if all := l.live.Interfaces(); len(all) != 0 {
		t.Errorf("%+v", all) // not loopback
	}
	total := 0
	for round := range 3 {
		sends := map[string]func(uint32){}
		for _, name := range []string{"span0", "span1", "other0"} {
			sends[name] = l.join(name)
		}
		for _, name := range []string{"span0", "span1"} {
			l.is(name, LinkUp)
			l.comes(name, sends[name])
			before := l.count(name)
			for n := range uint32(100) {
				sends[name](n)
			}
			l.until("100 frames on "+name, func() bool { return l.count(name) >= before+100 })
		}
		if all := l.live.Interfaces(); len(all) != 2 {
			t.Errorf("%+v", all)
		}
		for _, name := range []string{"span0", "span1", "other0"} {
			ip(t, l.sensor, "link", "delete", name)
		}
		l.until("forgotten", func() bool { return len(l.live.Interfaces()) == 0 })
		total = 2 * (round + 1)
	}
	sum := l.stop()
	if got := l.count("span0") + l.count("span1"); sum.Frames != uint64(got) || sum.Gone != uint64(total) || sum.Refused != 0 {
		t.Errorf("%d frames; %+v", got, sum)
	}
}

// TestLivePatternLimit has more interfaces match than are captured.
func TestLivePatternLimit(t *testing.T) {
	l := newListener(t)
	var batch strings.Builder
	const more = 5
	for n := range MaxInterfaces + more - 1 {
		fmt.Fprintf(&batch, "link add span%d type veth peer name end%d\nlink set span%d up\nlink set end%d up\n", n, n, n, n)
	}
	script := func(lines string) {
		t.Helper()
		cmd := l.sensor.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(lines)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	script(batch.String())
	l.listen(LiveOptions{Interfaces: []string{"lo", "span*"}, RingSize: MinRingSize})
	if all := l.live.Interfaces(); len(all) != MaxInterfaces {
		t.Errorf("%d interfaces", len(all))
	}
	refused := func() (sum Stats) {
		for _, s := range l.live.Sources {
			sum.Add(s.Stats())
		}
		return sum
	}
	if n := refused().Refused; n != more {
		t.Errorf("%d refused", n)
	}
	l.says(fmt.Sprintf("%d interfaces are captured on already: it is not captured", MaxInterfaces))
	script("link set span0 mtu 1400\nlink set span67 mtu 1400\n") // says nothing new
	script("link delete span1\n")
	l.says("capture on span1: the interface is gone")
	l.says("the interface is new")
	l.until("full again", func() bool { return len(l.live.Interfaces()) == MaxInterfaces })
	if n := refused().Refused; n != more {
		t.Errorf("%d refused", n)
	}
	if n := len(Expand([]string{"eth9", "no*"})); n != 2 {
		t.Errorf("%d interfaces", n)
	}
	l.sensor.Do(func() {
		if n := len(Expand([]string{"lo", "span[2-4]", "span4", "*"})); n != MaxInterfaces {
			t.Errorf("%d interfaces", n)
		}
		if n := len(Expand([]string{"lo", "span[2-4]", "span4"})); n != 4 {
			t.Errorf("%d interfaces", n)
		}
	})
}

// TestLiveFlaps has a link change hundreds of times: what is told in the end is right,
// and it is told in few lines.
func TestLiveFlaps(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lossy=%v", lossy), func(t *testing.T) {
			l := newListener(t)
			l.join("span0")
			sendSteady := l.join("span1")
			l.listen(LiveOptions{Interfaces: []string{"span0", "span1", "new*"}, Workers: 2})
			if lossy { // less than two messages
				err := l.kernel().conn.Control(func(fd uintptr) {
					if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			var batch strings.Builder
			const flaps = 300
			for n := range flaps {
				fmt.Fprintf(&batch, "link set span0 down\nlink set span0 mtu %d\nlink set span0 up\n", 1400+n%2)
			}
			batch.WriteString("link add new0 type veth peer name end0\nlink set end0 up\nlink set new0 up\nlink set span0 mtu 1300\nlink add new1 type bridge\nlink delete span0\n")
			started := time.Now()
			cmd := l.sensor.Command("ip", "-batch", "-")
			cmd.Stdin = strings.NewReader(batch.String())
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			const count = 3000
			for n := range uint32(count) {
				sendSteady(n)
				if n%100 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			l.is("new0", LinkUp)
			l.is("new1", LinkDown)
			l.is("span0", LinkGone)
			l.until("all frames", func() bool { return l.count("span1") == count })
			l.comes("span0", l.join("span0"))
			l.mu.Lock()
			lines, most := len(l.lines), warnBurst+int(time.Since(started)/warnInterval)+2
			lost := slices.ContainsFunc(l.lines, func(line string) bool { return strings.Contains(line, "looking at all of them again") })
			l.mu.Unlock()
			if lines > most {
				t.Errorf("%d lines in %v", lines, time.Since(started))
			}
			if lossy != lost {
				t.Errorf("messages were lost: %v; %q", lost, l.lines)
			}
			if i := l.shows("span0"); !lossy && i.Changes < 2*flaps {
				t.Errorf("%+v", i)
			}
			if !lossy {
				l.says("lines were left out; now ")
			}
			t.Logf("%d lines", lines)
		})
	}
}

// kernel is the socket on which the sensor hears of interfaces.
func (l *listener) kernel() *linkSocket { return l.all().kernel }

func (l *listener) all() *listening { return listeningOf(l.live.Sources[0]) }

func listeningOf(s Source) *listening {
	if s, ok := s.(*shuntingSource); ok {
		return s.all
	}
	return s.(*liveSource).all
}

// TestLiveComesAndGoes makes and deletes an interface as fast as it goes: rings do not
// pile up, and nothing of them stays open or running.
func TestLiveComesAndGoes(t *testing.T) {
	l := newListener(t)
	l.listen(LiveOptions{Interfaces: []string{"span*"}, NoShunt: true})
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before, running := descriptors(), runtime.NumGoroutine()
	var batch strings.Builder
	for n := range 100 {
		fmt.Fprintf(&batch, "link add span%d type bridge\nlink set span%d up\n", n, n)
		if n > 0 { // the one before may have been opened by now
			fmt.Fprintf(&batch, "link delete span%d\n", n-1)
		}
	}
	cmd := l.sensor.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- cmd.Wait() }()
	most := 0
	for open := true; open; time.Sleep(100 * time.Microsecond) {
		select {
		case err := <-ended:
			if open = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
		most = max(most, l.all().sources[0].draining())
	}
	t.Logf("at most %d rings were read of interfaces that were gone", most)
	// The two that were open when the limit was reached are lost after that.
	if most > maxDraining+2 {
		t.Errorf("%d rings were kept of interfaces that were gone", most)
	}
	l.comes("span200", l.join("span200"))
	l.until("read", func() bool { return l.all().sources[0].draining() == 0 })
	// What stays: the rings of the last one of the batch and of this one, and what sends.
	l.until("closed", func() bool { return descriptors() <= before+3 })
	l.until("ended", func() bool { return runtime.NumGoroutine() <= running })
}

// TestReap gives a ring up while the kernel still fills a block of it: the frames are
// read, or counted when nobody reads them.
func TestReap(t *testing.T) {
	for _, read := range []bool{true, false} {
		lab := newWire(t)
		send := rawSocket(t, lab.Server, lab.MirrorIface)
		source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Filter: "udp", NoShunt: true})[0].(*liveSource)
		const count = 10
		for n := range uint32(count) {
			send(numbered(t, n))
		}
		source.giveUp(source.rings[0])
		if ended := source.reap(time.Now()); len(ended) > 0 {
			t.Fatal("closed at once")
		}
		send(numbered(t, count)) // after it was given up
		if read {
			receive(t, source, count)
			silent(t, source)
		}
		for deadline := time.Now().Add(patience); source.draining() > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not closed")
			}
		}
		if stats := source.Stats(); stats.Frames+stats.Unread != count || stats.Frames > 0 != read {
			t.Errorf("read %v: %+v", read, stats)
		}
	}
}

// TestRemoveLent has an interface that cannot be opened for all workers, as one of them is
// told to stop meanwhile, while another has taken a block of its ring already: the memory
// of the block stays until it is released.
func TestRemoveLent(t *testing.T) {
	lab := newWire(t)
	send := rawSocket(t, lab.Server, lab.MirrorIface)
	source := openIn(t, lab.Sensor, LiveOptions{Interfaces: []string{lab.SensorIface}, Filter: "udp", NoShunt: true})[0].(*liveSource)
	send(numbered(t, 7))
	batch, err := source.Next()
	for ; err == nil && len(batch.Frames) == 0; batch, err = source.Next() {
	}
	if err != nil {
		t.Fatal(err)
	}
	source.remove(source.rings[0])
	if data := batch.Frames[0].Data; binary.BigEndian.Uint32(data[42:]) != 7 {
		t.Errorf("the frame is %x", data)
	}
	if n := source.draining(); n != 1 {
		t.Errorf("%d rings are given up", n)
	}
	batch.Release()
	for deadline := time.Now().Add(patience); source.draining() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not closed")
		}
	}
}

// TestSilence tells each silence once, and its end.
func TestSilence(t *testing.T) {
	start := time.Unix(1.9e9, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var i iface
	n := Interface{State: LinkUp, Since: start}
	for _, step := range []struct {
		now, last int // seconds; a frame came at last, or none at 0
		state     LinkState
		want      string
	}{
		{29, 0, LinkUp, ""},
		{30, 0, LinkUp, "no packets for 30s"},
		{31, 0, LinkUp, ""},
		{90, 0, LinkUp, ""},
		{101, 100, LinkUp, "packets again after 1m40s"},
		{129, 100, LinkUp, ""},
		{131, 100, LinkUp, "no packets for 31s"},
		{140, 100, LinkDown, ""}, // it is told that the link is down
		{150, 100, LinkNoCarrier, ""},
		{160, 155, LinkUp, ""},
		{184, 155, LinkUp, ""},
		{186, 155, LinkUp, "no packets for 31s"},
		{190, 188, LinkUp, "packets again after 33s"},
	} {
		if n.State = step.state; step.last > 0 {
			n.Last = at(step.last)
		}
		if got := i.silence(&n, at(step.now)); got != step.want {
			t.Errorf("after %d s: %q, want %q", step.now, got, step.want)
		}
	}
}

// TestLiveSilence has frames come that the filter withholds, and then none.
func TestLiveSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	l := newListener(t)
	send := l.join("span0")
	l.listen(LiveOptions{Interfaces: []string{"span0"}, Filter: "tcp"})
	busy := SilentAfter + 3*askAfter
	for end := time.Now().Add(busy); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		send(1)
	}
	quiet := time.Now()
	if i := l.shows("span0"); i.Silence(quiet) > 2*askAfter+watchInterval*4 || i.Frames != 0 {
		t.Errorf("frames came until now, and %+v", i)
	}
	l.mu.Lock()
	if len(l.lines) > 0 {
		t.Errorf("%q", l.lines)
	}
	l.mu.Unlock()
	for deadline := quiet.Add(SilentAfter + patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		l.mu.Lock()
		said := len(l.lines)
		l.mu.Unlock()
		if said > 0 {
			break
		}
	}
	if took := time.Since(quiet); took < SilentAfter-2*askAfter {
		t.Errorf("after %v: %q", took, l.lines)
	}
	l.says("capture on span0: no packets for 3")
	for range 20 {
		send(2)
	}
	l.says("capture on span0: packets again after ")
}

// TestLiveUnprivileged runs a capture in a process that gives up all its rights, while
// its only interface goes and comes back.
func TestLiveUnprivileged(t *testing.T) {
	const variable = "ODDCERT_TEST_UNPRIVILEGED"
	if os.Getenv(variable) != "" {
		unprivileged()
		return
	}
	for _, workers := range []string{"1", "2"} {
		l := newListener(t)
		send := l.join("span0")
		cmd := l.sensor.Command(os.Args[0], "-test.run=^TestLiveUnprivileged$", "-test.v=false")
		cmd.Env = append(os.Environ(), variable+"="+workers)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		lines := bufio.NewScanner(stdout)
		wait := func(text string) string {
			t.Helper()
			for lines.Scan() {
				if strings.Contains(lines.Text(), text) {
					return lines.Text()
				}
				if strings.HasPrefix(lines.Text(), "error ") {
					t.Fatal(lines.Text())
				}
			}
			t.Fatalf("no %q", text)
			return ""
		}
		if line := wait("ready"); strings.HasPrefix(line, "skip ") {
			t.Skip(line)
		}
		send(1)
		wait("frame 1")
		for n := uint32(2); n < 5; n++ {
			ip(t, l.sensor, "link", "delete", "span0")
			wait("the interface is gone")
			send = l.join("span0")
			wait("the link is up again")
			send(n)
			wait(fmt.Sprintf("frame %d", n))
		}
		// A flow that it had withheld is withheld on the new interface.
		flow := conversationFrame(t)
		for range 3 {
			send(100)
			wait("frame 100")
			rawSocket(t, l.far, "farspan0")(flow)
			wait("withheld")
		}
		stdin.Close()
		wait("capabilities 0000000000000000")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// conversationFrame is a segment of the flow that unprivileged withholds.
func conversationFrame(t testing.TB) []byte {
	return packet{src: netip.MustParseAddrPort("198.51.100.1:40000"), dst: netip.MustParseAddrPort("198.51.100.2:443"), payload: 20}.frame(t)
}

// unprivileged is the process of TestLiveUnprivileged. It ends with its standard input.
func unprivileged() {
	var workers int
	fmt.Sscan(os.Getenv("ODDCERT_TEST_UNPRIVILEGED"), &workers)
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	sockets := make(chan int, 64)
	for range cap(sockets) {
		fd, err := Socket()
		if err != nil {
			say("error %v", err)
			return
		}
		sockets <- fd
	}
	live, err := OpenLive(LiveOptions{Interfaces: []string{"span0"}, Workers: workers, RingSize: 1 << 20,
		Warn: func(err error) { say("%v", err) }, Socket: func() (int, error) { return <-sockets, nil }})
	if err != nil {
		say("error %v", err)
		return
	}
	if err := syscall.Setuid(65534); err != nil { // all threads lose all capabilities
		say("error %v", err)
		return
	}
	if _, err := Socket(); !errors.Is(err, unix.EPERM) {
		say("error a packet socket was opened without a right: %v", err)
		return
	}
	shunter, ok := live.Sources[0].(Shunter)
	switch {
	case !ok:
		say("skip ready: flows are not shunted")
		return
	case live.NeedsBPF:
		say("skip ready: this kernel wants CAP_BPF")
		return
	}
	say("ready")
	low, high := netip.MustParseAddr("198.51.100.1").As4(), netip.MustParseAddr("198.51.100.2").As4()
	flow := ShuntKey{Low: [2]uint64{1: uint64(binary.BigEndian.Uint32(low[:]))}, High: [2]uint64{1: uint64(binary.BigEndian.Uint32(high[:]))}, LowPort: 40000, HighPort: 443}
	state := shunter.Shunt(flow, 1, 0)
	shunter.Shunt(flow, int64(1)<<62, state)
	for _, s := range live.Sources {
		go func() {
			counted := uint64(0)
			for {
				batch, err := s.Next()
				if err == io.EOF {
					return
				}
				if err != nil {
					say("error %v", err)
					return
				}
				for _, f := range batch.Frames {
					say("frame %d", binary.BigEndian.Uint32(f.Data[42:]))
				}
				batch.Release()
				if n := s.Stats().Shunted; n > counted {
					counted = n
					say("withheld %d", n)
				}
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	live.Close()
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		status, _ := os.ReadFile(task)
		for line := range strings.Lines(string(status)) {
			if effective, ok := strings.CutPrefix(line, "CapEff:\t"); ok && strings.Trim(effective, "0\n") != "" {
				say("error a thread has capabilities: %s", effective)
			}
		}
	}
	say("capabilities 0000000000000000")
}
