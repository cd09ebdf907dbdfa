package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDay is a day of a sensor in a short time, with a trouble each hour: new rules, some
// of them wrong, rotated files, a receiver that is away, and an interface that comes and
// goes. All the while handshakes pass on another interface. Each of them is in a record,
// each alert reaches the receiver, and memory does not grow.
//
// ODDCERT_DRILL_HOUR is how long an hour takes, ODDCERT_DRILL_RATE how many handshakes
// pass in a second.
func TestDay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	hour, rate := time.Second, 500
	if text := os.Getenv("ODDCERT_DRILL_HOUR"); text != "" {
		var err error
		if hour, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("ODDCERT_DRILL_RATE"); text != "" {
		var err error
		if rate, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newDrillWire(t)
	w.join(t, "span1")
	dir := t.TempDir()
	rules, file := filepath.Join(dir, "rules"), filepath.Join(dir, "records.json")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &day{t: t, wire: w, file: file}
	writeRule := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(rules, "day.yml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeRule(dayRule(0))
	url := d.receive()
	cmd := w.sensor.Command(drilled(t), "live", "-i", "span*", "--rules", rules, "--json", file, "--records", "handshake,alert,stats",
		"--spool", filepath.Join(dir, "spool"), "--output", "hook.type=webhook", "--output", "hook.url="+url, "--output", "hook.records=alert", "--no-builtin", "--memory", "512M")
	s := start(t, cmd)
	d.sensor = s
	s.says(t, "listening")

	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { d.send("span0", 0, rate, stop) })
	sending.Go(func() { d.send("span1", 2, 20, stop) })
	begun := time.Now()
	var resident []int
	for n := range 24 {
		switch n % 4 {
		case 0:
			d.away.Store(true)
		case 1:
			d.away.Store(false)
		case 2:
			d.ip("link", "set", "span1", "down")
		case 3:
			d.ip("link", "delete", "span1")
			w.join(t, "span1")
		}
		if n%4 == 2 {
			d.ip("link", "set", "span1", "up")
		}
		if wrong := n%3 == 2; wrong {
			writeRule("title: [")
			d.hangup(n, "those in use are kept")
		} else {
			writeRule(dayRule(n))
			d.hangup(n, "rules and lists are read anew")
		}
		time.Sleep(time.Until(begun.Add(time.Duration(n+1) * hour)))
		resident = append(resident, residentMemory(t, s.Process.Pid))
	}
	close(stop)
	sending.Wait()
	took := time.Since(begun)
	d.away.Store(false)
	if status := s.end(t, syscall.SIGTERM); status != exitOK {
		t.Errorf("exit status %d: %s", status, s.stderr.String())
	}
	d.check(resident)
	t.Logf("%d handshakes in %v, %.0f in a second; resident memory in MiB %v; %d times sent again", d.sent[0].Load()+d.sent[1].Load(), took.Round(time.Second),
		float64(d.sent[0].Load()+d.sent[1].Load())/took.Seconds(), mebibytes(resident), d.again)
}

// day is what TestDay knows.
type day struct {
	t      *testing.T
	wire   *drillWire
	sensor *started
	file   string
	turned int // files that were rotated

	sent [4]atomic.Int64 // handshakes, by the second byte of the client's address
	away atomic.Bool     // the receiver

	mu     sync.Mutex
	alerts map[string]netip.AddrPort // by id, what reached the receiver
	again  int                       // times that one came that was there
}

// dayRule matches each handshake of the clients in 10.1.0.0/16; n makes it another one.
func dayRule(n int) string {
	return fmt.Sprintf("title: A client of the day\nid: 7d0e6c1e-5d0b-4b7c-9f58-3a5d2c1b4e6f\ndescription: Rule %d of the day\nlogsource: {product: oddcert}\n"+
		"detection:\n  client: {source.ip|cidr: 10.1.0.0/16}\n  condition: client\nlevel: low\n", n)
}

// ip runs ip in the namespace of the sensor.
func (d *day) ip(args ...string) {
	d.t.Helper()
	if out, err := d.wire.sensor.Command("ip", args...).CombinedOutput(); err != nil {
		d.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// hangup rotates the file of records and has the program read its rules again.
func (d *day) hangup(n int, want string) {
	d.t.Helper()
	waitFor(d.t, "the file of records", func() bool { _, err := os.Stat(d.file); return err == nil })
	if err := os.Rename(d.file, fmt.Sprintf("%s.%d", d.file, n)); err != nil {
		d.t.Fatal(err)
	}
	d.turned++
	before := strings.Count(d.sensor.stderr.String(), want)
	if err := d.sensor.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
	waitFor(d.t, want+" in "+d.sensor.stderr.String(), func() bool { return strings.Count(d.sensor.stderr.String(), want) > before })
}

// receive is the receiver of alerts. It is in the namespace of the sensor, and refuses
// everything while it is away.
func (d *day) receive() (url string) {
	d.t.Helper()
	d.ip("link", "set", "lo", "up")
	d.alerts = map[string]netip.AddrPort{}
	var l net.Listener
	var err error
	d.wire.sensor.Do(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		d.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || d.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var a struct {
			Event  struct{ ID string }
			Source struct {
				IP   netip.Addr
				Port uint16
			}
		}
		if err := json.Unmarshal(body, &a); err != nil || a.Event.ID == "" {
			d.t.Errorf("a request that is no alert: %v: %.200s", err, body)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, there := d.alerts[a.Event.ID]; there {
			d.again++
		}
		d.alerts[a.Event.ID] = netip.AddrPortFrom(a.Source.IP, a.Source.Port)
	})}
	go server.Serve(l)
	d.t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

// send sends so many handshakes a second on an interface until stop is closed. Their
// clients are in 10.NET.0.0/16, and one of a hundred in the network after that.
func (d *day) send(iface string, network byte, rate int, stop <-chan struct{}) {
	frames := oddFrames(d.t, 1024)
	every := time.Second / time.Duration(rate)
	begun, n := time.Now(), 0
	socket := func() (fd int) {
		fd = -1
		d.wire.sender.Do(func() {
			if _, err := net.InterfaceByName(iface); err == nil {
				fd = rawSocket(d.t, iface)
			}
		})
		return fd
	}
	fd := socket()
	defer func() { unix.Close(fd) }()
	for {
		select {
		case <-stop:
			return
		default:
		}
		if early := time.Until(begun.Add(time.Duration(n) * every)); early > 0 {
			time.Sleep(early)
		}
		client := [4]byte{10, network, byte(n / 100 >> 8), byte(n / 100)}
		if n%100 == 0 {
			client[1]++
		}
		whole := true
		for _, f := range frames {
			moveClient(f, client, uint16(1024+n%100+n/6_553_600*100))
			for {
				_, err := unix.Write(fd, f)
				if err == nil {
					break
				}
				if errors.Is(err, unix.ENOBUFS) {
					time.Sleep(time.Millisecond)
					continue
				}
				whole = false
				break
			}
		}
		if n++; whole {
			d.sent[client[1]].Add(1)
		} else if network == 0 {
			d.t.Errorf("send on %s", iface)
			return
		} else { // the interface is away
			unix.Close(fd)
			time.Sleep(50 * time.Millisecond)
			fd = socket()
		}
	}
}

// moveClient gives the client of a frame of oddFrames another address and port.
func moveClient(f []byte, ip [4]byte, port uint16) {
	const ipSum, source, destination, ports, tcpSum = 14 + 10, 14 + 12, 14 + 16, 14 + 20, 14 + 20 + 16
	address, number := f[source:][:4], f[ports:][:2]
	if binary.BigEndian.Uint16(number) == 443 {
		address, number = f[destination:][:4], f[ports+2:][:2]
	}
	put := func(at []byte, v uint16, sums ...int) { // RFC 1624, section 3
		for _, s := range sums {
			sum := uint32(^binary.BigEndian.Uint16(f[s:])) + uint32(^binary.BigEndian.Uint16(at)) + uint32(v)
			sum = sum&0xFFFF + sum>>16
			sum = sum&0xFFFF + sum>>16
			binary.BigEndian.PutUint16(f[s:], ^uint16(sum))
		}
		binary.BigEndian.PutUint16(at, v)
	}
	put(address[:2], binary.BigEndian.Uint16(ip[:2]), ipSum, tcpSum)
	put(address[2:], binary.BigEndian.Uint16(ip[2:]), ipSum, tcpSum)
	put(number, port, tcpSum)
}

// check compares what was sent with what came.
func (d *day) check(resident []int) {
	t := d.t
	t.Helper()
	handshakes, raised := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	var last struct {
		Capture struct{ Dropped, Unread, Frames uint64 }
		Flows   struct{ Gaps uint64 }
		Parser  struct{ Handshakes uint64 }
	}
	for n := range d.turned + 1 {
		path := d.file
		if n < d.turned {
			path += "." + strconv.Itoa(n)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReaderSize(f, 1<<20)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				if len(line) > 0 {
					t.Errorf("%s: a torn line: %.100q", path, line)
				}
				break
			}
			if bytes.Contains(line, []byte(`"oddcert.stats"`)) {
				var r struct {
					Oddcert struct{ Stats json.RawMessage }
				}
				if err := json.Unmarshal(line, &r); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(r.Oddcert.Stats, &last); err != nil {
					t.Fatal(err)
				}
				continue
			}
			var r struct {
				Event  struct{ Dataset string }
				Source struct {
					IP   netip.Addr
					Port uint16
				}
			}
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatalf("%s: %v: %.200q", path, err, line)
			}
			switch client := netip.AddrPortFrom(r.Source.IP, r.Source.Port); r.Event.Dataset {
			case "oddcert.handshake":
				handshakes[client]++
			case "oddcert.alert":
				raised[client]++
			}
		}
		f.Close()
	}
	inNetwork := func(seen map[netip.AddrPort]int, networks ...byte) (n int) {
		for client, times := range seen {
			if !bytes.Contains(networks, []byte{client.Addr().As4()[1]}) {
				continue
			}
			if n++; times > 1 {
				t.Errorf("%v has %d records", client, times)
			}
		}
		return n
	}
	sent, got := int(d.sent[0].Load()+d.sent[1].Load()), inNetwork(handshakes, 0, 1)
	if missing := sent - got; missing < 0 || missing > int(last.Capture.Dropped) {
		t.Errorf("%d handshakes were sent, %d are in records; the kernel has dropped %d frames", sent, got, last.Capture.Dropped)
	}
	if got == 0 || last.Capture.Frames == 0 {
		t.Error("nothing was seen")
	}
	watched, alerts := inNetwork(handshakes, 1), inNetwork(raised, 1)
	if alerts != watched {
		t.Errorf("%d handshakes of watched clients, %d alerts", watched, alerts)
	}
	arrived := map[netip.AddrPort]bool{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, client := range d.alerts {
		arrived[client] = true
	}
	if len(arrived) != alerts || len(d.alerts) != alerts {
		t.Errorf("%d alerts, %d of them with %d ids reached the receiver", alerts, len(arrived), len(d.alerts))
	}
	third := len(resident) / 3
	if before, after := maxOf(resident[third:2*third]), maxOf(resident[2*third:]); after > before*5/4 {
		t.Errorf("resident memory grows: %v MiB", mebibytes(resident))
	}
}

// residentMemory is how much memory of a process is resident, in bytes.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func maxOf(list []int) (m int) {
	for _, n := range list {
		m = max(m, n)
	}
	return m
}

func mebibytes(list []int) (all []int) {
	for _, n := range list {
		all = append(all, n>>20)
	}
	return all
}
