package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/doctor"
	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// diagnosis is what oddcert doctor has found, by "group subject check".
type diagnosis struct {
	status   int
	findings map[string]doctor.Finding
}

// diagnose runs a command that is oddcert doctor --json, while traffic is made again
// and again until it ends. The pauses are longer than those between copies of a frame.
func diagnose(t *testing.T, cmd *exec.Cmd, traffic func()) *diagnosis {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, envPrefix) })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	for running := true; running; {
		if traffic != nil {
			traffic()
		}
		select {
		case err = <-ended:
			running = false
		case <-time.After(50 * time.Millisecond):
		}
	}
	d := &diagnosis{findings: map[string]doctor.Finding{}}
	var status *exec.ExitError
	if errors.As(err, &status) {
		d.status = status.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var f doctor.Finding
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		d.findings[strings.Join(strings.Fields(f.Group+" "+f.Subject+" "+f.Check), " ")] = f
	}
	if len(d.findings) == 0 {
		t.Fatalf("nothing was found: exit status %d: %s", d.status, &stderr)
	}
	return d
}

// want holds a finding against its level, and a part of its text or command.
func (d *diagnosis) want(t *testing.T, name string, level doctor.Level, part string) {
	t.Helper()
	f, ok := d.findings[name]
	switch {
	case !ok:
		t.Errorf("no finding %s", name)
	case f.Level != level || !strings.Contains(f.Text+"\n"+f.Fix, part):
		t.Errorf("%s: %s: %s [%s]; want %s with %q", name, f.Level, f.Text, f.Fix, level, part)
	}
}

// wires sends frames on an interface of a namespace.
func wires(t *testing.T, n *netlab.Namespace, iface string) (send func(frame []byte)) {
	t.Helper()
	var fd int
	var err error
	n.Do(func() {
		var link *net.Interface
		if link, err = net.InterfaceByName(iface); err != nil {
			return
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(frame []byte) {
		if _, err := unix.Write(fd, frame); err != nil {
			t.Errorf("send a frame of %d bytes: %v", len(frame), err)
		}
	}
}

// framesOf are the frames of a capture.
func framesOf(t *testing.T, path string) (all [][]byte) {
	t.Helper()
	files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for {
		batch, err := files.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range batch.Frames {
			all = append(all, slices.Clone(f.Data))
		}
		batch.Release()
	}
}

// renumbered is a frame of TCP over IP without options, with the port of the client,
// which is the higher one, moved by n, and its checksum with it (RFC 1624).
func renumbered(frame []byte, n uint16) []byte {
	f := slices.Clone(frame)
	tcp := f[14+20:]
	if binary.BigEndian.Uint16(f[12:]) == ethertype.IPv6 {
		tcp = f[14+40:]
	}
	port := tcp[0:2]
	if binary.BigEndian.Uint16(port) < binary.BigEndian.Uint16(tcp[2:]) {
		port = tcp[2:4]
	}
	old := binary.BigEndian.Uint16(port)
	binary.BigEndian.PutUint16(port, old+n)
	sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + uint32(^old) + uint32(old+n)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return f
}

// talk makes a handshake of TLS 1.2 and one of 1.3 between client and server, each
// with some bytes both ways. It returns how to do that again.
func talk(t *testing.T, lab *netlab.Lab) func() {
	certificate := newCertificate(t)
	listener := lab.Server.Listen(t, net.JoinHostPort(lab.ServerIP, "443"))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}})
				_, _ = io.Copy(c, c) // an echo
			}()
		}
	}()
	return func() {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			var conn net.Conn
			var err error
			lab.Client.Do(func() { conn, err = net.Dial("tcp", net.JoinHostPort(lab.ServerIP, "443")) })
			if err != nil {
				t.Errorf("connect: %v", err)
				return
			}
			c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			text := bytes.Repeat([]byte("payload "), 1000)
			if _, err := c.Write(text); err != nil {
				t.Errorf("write: %v", err)
			} else if _, err := io.ReadFull(c, text); err != nil {
				t.Errorf("read: %v", err)
			}
			c.Close()
		}
	}
}

func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=server.example.net", "-days", "30", "-keyout", key, "-out", cert).CombinedOutput()
	if err != nil {
		t.Skipf("openssl: %v: %s", err, out)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func in(t *testing.T, n *netlab.Namespace, name string, args ...string) {
	t.Helper()
	if out, err := n.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// TestDoctor breaks a mirror port in each way that it can be broken in a namespace, and
// has oddcert doctor look at it.
func TestDoctor(t *testing.T) {
	if testing.Short() {
		t.Skip("it listens for some seconds, many times")
	}
	program := drilled(t)
	look := func(t *testing.T, lab *netlab.Lab, traffic func(), args ...string) *diagnosis {
		t.Helper()
		args = append([]string{program, "doctor", "--config", "", "--json", "--for", "3s", "-i", lab.SensorIface}, args...)
		return diagnose(t, lab.Sensor.Command(args[0], args[1:]...), traffic)
	}
	odd := framesOf(t, oddCapture)

	t.Run("healthy", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		d := look(t, lab, talk(t, lab))
		for name, f := range d.findings {
			if f.Level != doctor.OK && f.Group != doctor.GroupMachine {
				t.Errorf("%s: %s: %s", name, f.Level, f.Text)
			}
		}
		d.want(t, "interface span0 link", doctor.OK, "driver veth")
		d.want(t, "interface span0 offload", doctor.OK, "")
		d.want(t, "interface span0 address", doctor.OK, "")
		d.want(t, "interface span0 drops", doctor.OK, "")
		d.want(t, "interface span0 frames", doctor.OK, "frames came in 3")
		d.want(t, "traffic directions", doctor.OK, "")
		d.want(t, "traffic doubled", doctor.OK, ": 0 of ")
		d.want(t, "traffic handshakes", doctor.OK, " % TLS 1.3, 0 % QUIC")
		share := 0 // half of them; the last may be cut off when the time is over
		if text := d.findings["traffic handshakes"].Text; strings.Contains(text, ": ") {
			_, _ = fmt.Sscanf(text[strings.Index(text, ": ")+2:], "%d %%", &share)
		}
		if share < 45 || share > 55 {
			t.Errorf("%d %% TLS 1.3: %s", share, d.findings["traffic handshakes"].Text)
		}
		d.want(t, "interface span0 promiscuous", doctor.OK, "")
		d.want(t, "traffic gaps", doctor.OK, "no segment is missing")
		if d.status != exitOK {
			t.Errorf("exit status %d", d.status)
		}
	})
	t.Run("one direction", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Server, "tc", "filter", "del", "dev", lab.ServerIface, "egress")
		d := look(t, lab, talk(t, lab))
		d.want(t, "traffic directions", doctor.Problem, "100 % of ")
		d.want(t, "traffic doubled", doctor.OK, "")
		if d.status != exitProblem {
			t.Errorf("exit status %d", d.status)
		}
	})
	t.Run("mirrored twice", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		for _, side := range []string{"ingress", "egress"} {
			in(t, lab.Server, "tc", "filter", "add", "dev", lab.ServerIface, side, "protocol", "all",
				"u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", lab.MirrorIface, "pipe",
				"action", "mirred", "egress", "mirror", "dev", lab.MirrorIface)
			in(t, lab.Server, "tc", "filter", "del", "dev", lab.ServerIface, side, "pref", "49152")
		}
		d := look(t, lab, talk(t, lab))
		d.want(t, "traffic doubled", doctor.Problem, "the same each time")
		d.want(t, "traffic directions", doctor.OK, "")
	})
	t.Run("two VLANs", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		send := wires(t, lab.Server, lab.MirrorIface)
		d := look(t, lab, func() {
			for _, f := range odd {
				for id := byte(5); id < 7; id++ {
					send(slices.Concat(f[:12], []byte{0x81, 0, 0, id}, f[12:]))
				}
			}
		})
		d.want(t, "traffic doubled", doctor.Problem, "50 % of ")
		d.want(t, "traffic doubled", doctor.Problem, "in another VLAN each time")
		d.want(t, "traffic tags", doctor.OK, "VLAN 5, 6")
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		send := wires(t, lab.Server, lab.MirrorIface)
		d := look(t, lab, func() {
			for _, f := range odd {
				send(f[:min(len(f), 96)])
			}
		})
		d.want(t, "traffic cut", doctor.Problem, "lack their end")
	})
	t.Run("lost", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		send := wires(t, lab.Server, lab.MirrorIface)
		chain := framesOf(t, filepath.Join(capturesDir, "tls12-chain", "capture.pcap"))
		longest := 0
		for i, f := range chain {
			if len(f) > len(chain[longest]) {
				longest = i
			}
		}
		connection := uint16(0)
		d := look(t, lab, func() {
			connection++
			for i, f := range chain {
				if i != longest {
					send(renumbered(f, connection))
				}
			}
		})
		d.want(t, "traffic gaps", doctor.Problem, "the mirror port is overbooked")
		d.want(t, "traffic handshakes", doctor.Warning, "the certificate was seen in 0")
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Server, "tc", "qdisc", "del", "dev", lab.ServerIface, "clsact")
		d := look(t, lab, nil)
		d.want(t, "interface span0 frames", doctor.Problem, "no frame came")
	})
	t.Run("not mirrored", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Server, "tc", "qdisc", "del", "dev", lab.ServerIface, "clsact")
		send := wires(t, lab.Server, lab.MirrorIface)
		arp := slices.Concat(bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 1, 8, 6}, make([]byte, 46))
		d := look(t, lab, func() { send(arp) })
		d.want(t, "interface span0 frames", doctor.Problem, "all of them broadcast or multicast")
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Sensor, "ip", "link", "set", lab.SensorIface, "down")
		d := look(t, lab, nil)
		d.want(t, "interface span0 link", doctor.Problem, "ip link set span0 up")
	})
	t.Run("no carrier", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Server, "ip", "link", "set", lab.MirrorIface, "down")
		d := look(t, lab, nil)
		d.want(t, "interface span0 link", doctor.Problem, "no carrier")
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		d := look(t, lab, talk(t, lab), "-i", "span1")
		d.want(t, "interface span1 link", doctor.Problem, "no interface of this name")
		d.want(t, "interface span0 frames", doctor.OK, "")
	})
	t.Run("address and GRO", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		in(t, lab.Sensor, "ip", "address", "add", "198.51.100.9/24", "dev", lab.SensorIface)
		in(t, lab.Sensor, "ethtool", "-K", lab.SensorIface, "gro", "on")
		d := look(t, lab, talk(t, lab))
		d.want(t, "interface span0 address", doctor.Warning, "ip address flush dev span0")
		d.want(t, "interface span0 offload", doctor.Warning, "ethtool -K span0 gro off")
		// The commands mend it.
		for _, check := range []string{"address", "offload"} {
			in(t, lab.Sensor, "sh", "-c", d.findings["interface span0 "+check].Fix)
		}
		d = look(t, lab, shown(t, lab))
		d.want(t, "interface span0 address", doctor.OK, "")
		d.want(t, "interface span0 offload", doctor.OK, "")
	})
	t.Run("no rights", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		cmd := lab.Sensor.Command("setpriv", "--reuid", "65534", "--clear-groups", program, "doctor", "--config", "", "--json", "--for", "3s", "-i", lab.SensorIface)
		copied := filepath.Join(os.TempDir(), "oddcert-doctor-"+strconv.Itoa(os.Getpid()))
		if out, err := exec.Command("install", "-m", "755", program, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { os.Remove(copied) })
		cmd.Args[slices.Index(cmd.Args, program)] = copied
		d := diagnose(t, cmd, nil)
		d.want(t, "machine capabilities", doctor.Problem, "setcap cap_net_raw,cap_bpf+ep")
		d.want(t, "traffic capture", doctor.Problem, "CAP_NET_RAW")
	})
}

// shown sends the frames of a capture to the sensor.
func shown(t *testing.T, lab *netlab.Lab) func() {
	send := wires(t, lab.Server, lab.MirrorIface)
	odd := framesOf(t, oddCapture)
	return func() {
		for _, f := range odd {
			send(f)
		}
	}
}

// TestDoctorCorpus plays a public capture to an interface, and compares the share of
// TLS 1.3 with what tshark counts.
func TestDoctorCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("it listens for some seconds")
	}
	t.Parallel()
	for _, tool := range []string{"tcpreplay", "tshark"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	path := filepath.Join(publicCorpus(t), "captures", "ntop+nDPI", "tests", "cfgs", "default", "pcap", "reddit.pcap")
	out, err := exec.Command("tshark", "-r", path, "-Y", "tls.handshake.type == 2", "-T", "fields", "-e", "tcp.stream", "-e", "tls.handshake.extensions.supported_version").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	all, of13 := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		stream, version, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		all[stream] = true
		if strings.Contains(version, "0x0304") {
			of13[stream] = true
		}
	}
	lab := netlab.New(t)
	in(t, lab.Server, "ip", "link", "set", lab.MirrorIface, "mtu", "9000")
	in(t, lab.Sensor, "ip", "link", "set", lab.SensorIface, "mtu", "9000")
	program := drilled(t)
	played := false
	d := diagnose(t, lab.Sensor.Command(program, "doctor", "--config", "", "--json", "--for", "15s", "-i", lab.SensorIface), func() {
		if played {
			return
		}
		played = true
		time.Sleep(3 * time.Second) // it listens by then, or the count below is short
		in(t, lab.Server, "tcpreplay", "--mbps=20", "-i", lab.MirrorIface, path)
	})
	d.want(t, "traffic handshakes", doctor.OK, fmt.Sprintf("%d handshakes in ", len(all)))
	d.want(t, "traffic handshakes", doctor.OK, fmt.Sprintf("flows: %.0f %% TLS 1.3", 100*float64(len(of13))/float64(len(all))))
	d.want(t, "traffic directions", doctor.OK, "")
	d.want(t, "traffic doubled", doctor.OK, "")
}
