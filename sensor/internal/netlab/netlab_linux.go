package netlab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is a client and a server joined by a link, and a sensor to whose
// interface both directions of the link are mirrored. The sensor's interface
// has no address, and its system sends nothing by itself.
type Lab struct {
	Client, Server, Sensor *Namespace

	ClientIface, ServerIface string // the ends of the link
	SensorIface              string // where the mirrored frames arrive
	MirrorIface              string // the server's end of the cable to the sensor

	ClientIP, ServerIP   string // IPv4
	ClientIP6, ServerIP6 string // IPv6, global
}

// New makes a lab that ends with the test. It skips the test where that is not
// possible, and says why.
func New(t testing.TB) *Lab {
	t.Helper()
	for _, tool := range []string{"ip", "tc", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("network namespaces: %s is not installed", tool)
		}
	}
	l := &Lab{
		Client: NewNamespace(t), Server: NewNamespace(t), Sensor: NewNamespace(t),
		ClientIface: "client0", ServerIface: "server0", SensorIface: "span0", MirrorIface: "mirror0",
		ClientIP: "192.0.2.1", ServerIP: "192.0.2.2",
		ClientIP6: "2001:db8::1", ServerIP6: "2001:db8::2",
	}
	Join(t, l.Client, l.ClientIface, l.Server, l.ServerIface)
	Silence(t, l.Server)
	Silence(t, l.Sensor)
	Join(t, l.Server, l.MirrorIface, l.Sensor, l.SensorIface)
	run(t, l.Client, "ip", "address", "add", l.ClientIP+"/24", "dev", l.ClientIface)
	run(t, l.Server, "ip", "address", "add", l.ServerIP+"/24", "dev", l.ServerIface)
	run(t, l.Client, "ip", "address", "add", l.ClientIP6+"/64", "dev", l.ClientIface, "nodad")
	run(t, l.Server, "ip", "address", "add", l.ServerIP6+"/64", "dev", l.ServerIface, "nodad")
	Mirror(t, l.Server, l.ServerIface, l.MirrorIface)
	return l
}

// Join makes a cable between two namespaces, with frames as they would be on a
// wire: nothing is left for hardware to do that is not there. It returns when both
// ends are up.
func Join(t testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	t.Helper()
	run(t, a, "ip", "link", "add", nameA, "type", "veth", "peer", "name", nameB, "netns", b.path())
	ends := []struct {
		namespace *Namespace
		name      string
	}{{a, nameA}, {b, nameB}}
	for _, end := range ends {
		if _, err := exec.LookPath("ethtool"); err == nil {
			run(t, end.namespace, "ethtool", "-K", end.name,
				"tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
		} else {
			t.Log("ethtool is not installed: frames are offloaded")
		}
		run(t, end.namespace, "ip", "link", "set", end.name, "up")
	}
	// Until the kernel has taken note of the other end, for up to a second, it drops
	// what is sent.
	for _, end := range ends {
		for deadline := time.Now().Add(patience); !end.namespace.isUp(t, end.name); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not come up in %v", end.name, patience)
			}
		}
	}
}

// patience bounds how long Join waits for the kernel.
const patience = 20 * time.Second

// isUp reports whether an interface of the namespace is up and sends.
func (n *Namespace) isUp(t testing.TB, iface string) bool {
	t.Helper()
	out, err := n.Command("ip", "link", "show", iface).Output()
	if err != nil {
		t.Fatalf("ip link show %s: %v", iface, err)
	}
	return strings.Contains(string(out), " state UP ")
}

// Mirror copies what one interface of a namespace receives and sends to
// another.
func Mirror(t testing.TB, n *Namespace, from, to string) {
	t.Helper()
	run(t, n, "tc", "qdisc", "add", "dev", from, "clsact")
	for _, side := range []string{"ingress", "egress"} {
		run(t, n, "tc", "filter", "add", "dev", from, side, "protocol", "all",
			"u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", to)
	}
}

// Silence keeps a system from sending anything by itself, such as neighbour
// discovery, on interfaces that are made from now on.
func Silence(t testing.TB, n *Namespace) {
	t.Helper()
	n.Do(func() {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	})
}

// Namespace is a network namespace, with loopback up.
type Namespace struct {
	file *os.File
}

// NewNamespace makes a namespace that ends with the test. It skips the test
// where that is not allowed.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	n, err := unshare()
	if err == unix.EPERM {
		t.Skip("network namespaces need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { n.file.Close() })
	run(t, n, "ip", "link", "set", "lo", "up")
	return n
}

// unshare makes a namespace that lives as long as its file is open, or
// something runs or is open in it.
func unshare() (*Namespace, error) {
	back, err := lockThread()
	if err != nil {
		return nil, err
	}
	defer back()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	file, err := os.Open(threadNamespace)
	if err != nil {
		return nil, err
	}
	return &Namespace{file: file}, nil
}

const threadNamespace = "/proc/thread-self/ns/net"

// lockThread binds the goroutine to its thread until it calls back, which also
// takes the thread to the namespace that it is in now.
func lockThread() (back func(), err error) {
	runtime.LockOSThread()
	home, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		defer home.Close()
		// A thread that cannot go home stays locked, and ends with its goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

// path names the namespace to other programs.
func (n *Namespace) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Command returns a command that runs in the namespace.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + n.path(), "--", name}, args...)...)
}

// Do calls f in the namespace. Sockets that f opens stay in it; goroutines that
// f starts do not run in it.
func (n *Namespace) Do(f func()) {
	back, err := lockThread()
	if err != nil {
		panic(fmt.Sprintf("read the network namespace: %v", err))
	}
	defer back()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(fmt.Sprintf("enter the network namespace: %v", err))
	}
	f()
}

// Counters returns how many frames an interface of the namespace has received
// and sent.
func (n *Namespace) Counters(t testing.TB, iface string) (received, sent uint64) {
	t.Helper()
	var table []byte
	var err error
	n.Do(func() { table, err = os.ReadFile("/proc/thread-self/net/dev") })
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name != iface {
			continue
		}
		var skip uint64
		if _, err := fmt.Sscan(rest, &skip, &received, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &sent); err != nil {
			t.Fatal(err)
		}
		return received, sent
	}
	t.Fatalf("no interface %s", iface)
	return 0, 0
}

// Listens reports whether a socket of the namespace waits for connections or
// datagrams on a port of network, tcp or udp. It sends nothing.
func (n *Namespace) Listens(network string, port int) bool {
	state := "0A" // TCP_LISTEN
	if network == "udp" {
		state = "07" // TCP_CLOSE, which unconnected sockets have
	}
	suffix := fmt.Sprintf(":%04X", port)
	var tables []byte
	n.Do(func() {
		for _, name := range []string{network, network + "6"} {
			table, _ := os.ReadFile("/proc/thread-self/net/" + name) // one of them may not be there
			tables = append(tables, table...)
		}
	})
	for line := range strings.Lines(string(tables)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], suffix) && f[3] == state {
			return true
		}
	}
	return false
}

// Listen listens on a TCP address of the namespace until the test ends.
func (n *Namespace) Listen(t testing.TB, address string) (listener net.Listener) {
	t.Helper()
	var err error
	n.Do(func() { listener, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// Dial connects to a TCP address from the namespace.
func (n *Namespace) Dial(t testing.TB, address string) (conn net.Conn) {
	t.Helper()
	var err error
	n.Do(func() { conn, err = net.Dial("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// run runs a command in a namespace and ends the test when it fails.
func run(t testing.TB, n *Namespace, name string, args ...string) {
	t.Helper()
	if out, err := n.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
}
