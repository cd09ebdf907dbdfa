package syslog

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// daemon is a syslog daemon of the machine, as a child with its own configuration.
type daemon struct {
	program string
	args    []string
	dir     string
	ready   func() bool
	cmd     *exec.Cmd
}

// program finds a daemon, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("a daemon takes seconds")
	}
	for _, name := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	skip(t, name+" is not installed")
	return ""
}

func skip(t *testing.T, why string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "SKIP-SYSLOG: %s: %s\n", t.Name(), why) // standard error shows without -v too
	t.Skip("SKIP-SYSLOG: " + why)
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.program, d.args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !d.ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			t.Fatalf("%s does not listen: %s", d.program, text)
		}
	}
}

// stop ends the daemon, in good order or not.
func (d *daemon) stop(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(signal)
	_ = d.cmd.Wait()
	d.cmd = nil
}

// freePort is a port that nobody has.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// server is a daemon that receives over some transport. It writes each message as it
// came into one file, and what it has understood into another.
type server struct {
	*daemon
	Config
	raw, parsed string
}

// templates of both daemons write the same.
const understood = "%s|%s|%s|%s|%s"

// rsyslog starts rsyslog. It keeps no queue in its memory, which would be lost with
// it, and takes messages as long as by default.
func rsyslog(t *testing.T, transport, driver string) *server {
	dir := t.TempDir()
	s := &server{raw: filepath.Join(dir, "raw"), parsed: filepath.Join(dir, "parsed")}
	port := freePort(t)
	var input string
	s.daemon = &daemon{program: program(t, "rsyslogd"), dir: dir, ready: listens(transport, port, filepath.Join(dir, "socket"))}
	switch transport {
	case "udp":
		input = fmt.Sprintf("module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=%q)\n", port)
	case "unix":
		input = fmt.Sprintf("module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=%q UseSpecialParser=\"off\" ParseHostname=\"on\" RateLimit.Interval=\"0\")\n", filepath.Join(dir, "socket"))
	default:
		options := ""
		if transport == "tls" {
			if found, _ := filepath.Glob("/usr/lib*/**/rsyslog/lmnsd_" + driver + ".so"); found == nil {
				skip(t, "rsyslog's driver "+driver+" is not installed")
			}
			options = fmt.Sprintf(` StreamDriver.Name=%q StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name" PermittedPeer=["client.example.net"]`, driver)
		}
		input = fmt.Sprintf("module(load=\"imtcp\"%s)\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=%q)\n", options, port)
	}
	global := fmt.Sprintf(`workDirectory=%q parser.escapeControlCharactersOnReceive="off"`, dir)
	s.URL = address(transport, port, dir)
	if transport == "tls" {
		a := s.trust(t)
		global += fmt.Sprintf(` DefaultNetstreamDriverCAFile=%q DefaultNetstreamDriverCertFile=%q DefaultNetstreamDriverKeyFile=%q`,
			a.file("ca.pem"), a.file("server.pem"), a.file("server.key"))
	}
	text := fmt.Sprintf(`global(%s)
%smain_queue(queue.type="direct")
template(name="raw" type="string" string="%%rawmsg%%\n")
template(name="parsed" type="string" string="%%hostname%%|%%app-name%%|%%msgid%%|%%syslogfacility-text%%.%%syslogseverity-text%%|%%structured-data%%\n")
action(type="omfile" file=%q template="raw")
action(type="omfile" file=%q template="parsed")
`, global, input, s.raw, s.parsed)
	s.configure(t, text)
	s.args = []string{"-n", "-f", filepath.Join(dir, "conf"), "-i", filepath.Join(dir, "pid")}
	s.run(t)
	return s
}

// syslogNG starts syslog-ng.
func syslogNG(t *testing.T, transport string) *server {
	dir := t.TempDir()
	s := &server{raw: filepath.Join(dir, "raw"), parsed: filepath.Join(dir, "parsed")}
	port := freePort(t)
	s.daemon = &daemon{program: program(t, "syslog-ng"), dir: dir, ready: listens(transport, port, filepath.Join(dir, "socket"))}
	s.URL = address(transport, port, dir)
	source := fmt.Sprintf(`syslog(ip(127.0.0.1) port(%s) transport(%q) flags(store-raw-message))`, port, transport)
	switch transport {
	case "unix":
		source = fmt.Sprintf(`unix-stream(%q flags(syslog-protocol, store-raw-message))`, filepath.Join(dir, "socket"))
	case "tls":
		a := s.trust(t)
		source = fmt.Sprintf(`syslog(ip(127.0.0.1) port(%s) transport("tls") flags(store-raw-message)
			tls(ca-file(%q) cert-file(%q) key-file(%q) peer-verify(required-trusted)))`, port, a.file("ca.pem"), a.file("server.pem"), a.file("server.key"))
	}
	text := fmt.Sprintf(`@version: 3.38
options { keep-hostname(yes); log-msg-size(8192); flush-lines(1); };
source in { %s; };
destination raw { file(%q template("${RAWMSG}\n")); };
destination parsed { file(%q template("${HOST}|${PROGRAM}|${MSGID}|${FACILITY}.${LEVEL}|${SDATA}\n")); };
log { source(in); destination(raw); destination(parsed); flags(flow-control); };
`, source, s.raw, s.parsed)
	s.configure(t, text)
	file := func(name string) string { return filepath.Join(dir, name) }
	s.args = []string{"-F", "-f", file("conf"), "-p", file("pid"), "-R", file("persist"), "-c", file("ctl"), "--no-caps"}
	s.run(t)
	return s
}

func address(transport, port, dir string) string {
	if transport == "unix" {
		return "unix://" + filepath.Join(dir, "socket")
	}
	return transport + "://127.0.0.1:" + port
}

// listens reports whether somebody listens: over UDP the kernel's table tells.
func listens(transport, port, socket string) func() bool {
	return func() bool {
		switch transport {
		case "unix":
			// A socket that a daemon left behind is no proof.
			for _, network := range []string{"unixgram", "unix"} {
				if c, err := net.Dial(network, socket); err == nil {
					c.Close()
					return true
				}
			}
			return false
		case "udp":
			c, err := net.ListenPacket("udp", "127.0.0.1:"+port)
			if err == nil {
				c.Close()
			}
			return err != nil
		}
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
}

// trust makes certificates for both ends.
func (s *server) trust(t *testing.T) *authority {
	a := newAuthority(t)
	a.issue(t, "server")
	a.issue(t, "client")
	s.TLS = endpoint.TLS{CAFile: a.file("ca.pem"), CertificateFile: a.file("client.pem"), KeyFile: a.file("client.key")}
	return a
}

func (s *server) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) run(t *testing.T) {
	t.Helper()
	s.start(t)
	t.Cleanup(func() {
		s.stop(syscall.SIGKILL)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Logf("%s says: %s", s.program, log)
		}
	})
}

// arrived waits until the daemon has written the messages of all records, byte for
// byte, and returns its lines.
func (s *server) arrived(t *testing.T, d *Destination, records []*output.Record) []string {
	t.Helper()
	var missing []string
	var lines []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		text, _ := os.ReadFile(s.raw)
		lines = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		got := map[string]bool{}
		for _, line := range lines {
			got[line] = true
		}
		missing = nil
		for _, r := range records {
			want, err := d.message.format(r)
			if err != nil {
				t.Fatal(err)
			}
			if !got[string(want)] {
				missing = append(missing, string(want))
			}
		}
		if missing == nil {
			return lines
		}
	}
	t.Fatalf("%d of %d messages are missing; %d lines; the first: %s", len(missing), len(records), len(lines), missing[0])
	return nil
}

// servers are all daemons with all transports.
var servers = []struct {
	name  string
	start func(t *testing.T) *server
}{
	{"rsyslog-tcp", func(t *testing.T) *server { return rsyslog(t, "tcp", "") }},
	{"rsyslog-gnutls", func(t *testing.T) *server { return rsyslog(t, "tls", "gtls") }},
	{"rsyslog-openssl", func(t *testing.T) *server { return rsyslog(t, "tls", "ossl") }},
	{"rsyslog-udp", func(t *testing.T) *server { return rsyslog(t, "udp", "") }},
	{"rsyslog-unix", func(t *testing.T) *server { return rsyslog(t, "unix", "") }},
	{"syslog-ng-tcp", func(t *testing.T) *server { return syslogNG(t, "tcp") }},
	{"syslog-ng-tls", func(t *testing.T) *server { return syslogNG(t, "tls") }},
	{"syslog-ng-udp", func(t *testing.T) *server { return syslogNG(t, "udp") }},
	{"syslog-ng-unix", func(t *testing.T) *server { return syslogNG(t, "unix") }},
}

// believe shortens how long a connection is not believed: these daemons do not refuse
// anybody.
func believe(d *Destination) *Destination {
	for i := range d.links {
		d.links[i].young = 10 * time.Millisecond
	}
	return d
}

// longest returns a record whose message is exactly as long as it may be.
func longest(t *testing.T, d *Destination) *output.Record {
	t.Helper()
	r := many(1)[0]
	r.ID = "longest"
	text, err := d.message.format(r)
	if err != nil {
		t.Fatal(err)
	}
	r.JSON = append(r.JSON[:len(r.JSON)-2], strings.Repeat("y", DefaultMaxMessage-len(text))+`"}`...)
	if text, err = d.message.format(r); err != nil || len(text) != DefaultMaxMessage {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	return r
}

// The daemons write each message as it was sent, in each format, and understand its
// header.
func TestDaemons(t *testing.T) {
	for _, server := range servers {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			s := server.start(t)
			for _, format := range []string{"json", "cef", "leef"} {
				s.Format = format
				if s.Framing = ""; format == "leef" && strings.HasPrefix(server.name, "rsyslog-") && (s.URL[:3] == "tcp" || s.URL[:3] == "tls") {
					s.Framing = "newline" // rsyslog takes both
				}
				d := believe(open(t, s.Config))
				all := records(t)
				if format == "json" {
					all = append(all, longest(t, d))
				}
				for _, part := range [][]*output.Record{all[:1], all[1:]} { // an alert is first
					deliver(t, d, part, 100)
				}
				s.arrived(t, d, all)
				d.Close()
			}
			text, err := os.ReadFile(s.parsed)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records(t) {
				severity := "info"
				if r.Dataset == output.Alert {
					severity = "notice"
				}
				want := fmt.Sprintf(understood, "span-1", "oddcert", r.Dataset, "local0."+severity,
					fmt.Sprintf(`[oddcert@32473 id="%s" dataset="oddcert.%s"]`, r.ID, r.Dataset))
				if !bytes.Contains(text, []byte(want)) { // syslog-ng numbers local messages behind it
					t.Errorf("%s is not in %s", want, text)
				}
			}
		})
	}
}

// A daemon that is killed, or ends in good order, in the middle of everything loses
// nothing over TCP, TLS and a socket of the machine: what it had not written comes
// again, with the same id.
func TestRestart(t *testing.T) {
	for _, server := range servers {
		if strings.HasSuffix(server.name, "udp") {
			continue // loses by its nature
		}
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			s := server.start(t)
			d := believe(open(t, s.Config))
			all := many(6000)
			sent := make(chan int, 100)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; i < len(all); {
					n := min(100, len(all)-i)
					if trouble := d.Send(t.Context(), all[i:i+n], make([]delivery.Verdict, n)); trouble != nil {
						time.Sleep(20 * time.Millisecond)
						continue
					}
					i += n
					sent <- i
				}
			}()
			wait := func(n int) {
				for {
					select {
					case i := <-sent:
						if i >= n {
							return
						}
					case <-time.After(40 * time.Second):
						t.Fatal("nothing is delivered")
					}
				}
			}
			for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
				wait((i + 1) * 1200)
				s.stop(signal)
				s.start(t)
			}
			wait(len(all))
			<-done
			lines := s.arrived(t, d, all)
			t.Logf("%d lines for %d records", len(lines), len(all))
		})
	}
}
