//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// serversDir holds a script for each server.
const serversDir = "testdata/servers"

// Real servers and clients of the protocols that carry TLS, captured at a
// mirror port between them, and the capture replayed: each certificate is the
// one that was made for the server, and its carrier is named. The scripts say
// what is run and what must be seen; the packages that have the programs stand
// in them too, for .ci/run to install.
//
// Beside the usual commands of a script there are
//
//	needs PROGRAM…            skips the script where one of them is not installed
//	issue NAME ALGORITHM      makes a certificate, NAME.pem and NAME.key, rsa or ec
//	start WHERE PORT PROGRAM  runs a program, in the namespace client or server,
//	                          until the script ends, and waits until it listens
//	                          on PORT, such as tcp/443
//	run WHERE PROGRAM         runs a program to its end
//	tls PORT FILE [ALPN]      connects to the server, has the dialogue of the
//	                          file, and shakes hands
//	tds PORT NAME             starts a stand-in for Microsoft's SQL Server
//	turn NETWORK KIND PORT PEER
//	                          relays what comes to PORT at the client to PEER at
//	                          the server, over its TURN server: datagrams in the
//	                          KIND channel or indication, or a connection
//	replay                    ends the capture, and writes what oddcert found to
//	                          the file seen
//
// In all files of a script $WORK is its folder. The client has the address
// 192.0.2.1 and the server 192.0.2.2.
func TestServers(t *testing.T) {
	if testing.Short() {
		t.Skip("left out of a short run")
	}
	root := t.TempDir()
	for dir := root; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // servers are no root
			t.Fatal(err)
		}
	}
	command := func(f func(s *stage, args []string) error) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, negated bool, args []string) {
			err := f(ts.Value(stageKey{}).(*stage).of(ts), args)
			if negated && err == nil {
				ts.Fatalf("it should have failed")
			}
			if !negated {
				ts.Check(err)
			}
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:         serversDir,
		WorkdirRoot: root,
		Setup:       setStage,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"needs":  needs,
			"issue":  command((*stage).issue),
			"start":  command((*stage).start),
			"run":    command((*stage).run),
			"tls":    command((*stage).tls),
			"tds":    command((*stage).tds),
			"turn":   command((*stage).turn),
			"replay": command((*stage).replay),
		},
	})
}

// stage is where a script is played.
type stage struct {
	*netlab.Lab
	t     testing.TB
	ts    *testscript.TestScript
	dir   string
	names map[string]string // of certificates, by their SHA-256
	dump  *exec.Cmd         // tcpdump, which writes to the file capture
	said  *lockedBuffer     // by it
}

type stageKey struct{}

func (s *stage) of(ts *testscript.TestScript) *stage {
	s.ts = ts
	return s
}

// needs skips a script where a program is not installed. A program with a path
// may be a pattern.
func needs(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		_, err := exec.LookPath(name)
		if found, _ := filepath.Glob(name); err != nil && len(found) == 0 {
			ts.Value(stageKey{}).(*stage).t.Skipf("%s is not installed", name)
		}
	}
}

// setStage makes the network of a script, and begins to capture.
func setStage(env *testscript.Env) error {
	t := env.T().(testing.TB)
	for _, tool := range []string{"tcpdump", "openssl", "unshare", "timeout"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	s := &stage{Lab: netlab.New(t), t: t, dir: env.WorkDir, names: map[string]string{}, said: new(lockedBuffer)}
	env.Values[stageKey{}] = s
	if err := filepath.WalkDir(s.dir, s.place); err != nil {
		return err
	}
	env.Setenv("HOME", s.dir)
	s.dump = s.Sensor.Command("tcpdump", "-i", s.SensorIface, "-U", "--immediate-mode", "-B", "16384", "-Z", "root", "-w", filepath.Join(s.dir, "capture"))
	s.dump.Stderr = s.said
	return s.background(s.dump, s.said, "tcpdump", func() bool { return strings.Contains(s.said.String(), "listening on") })
}

// place puts the folder of the script into one of its files.
func (s *stage) place(path string, entry fs.DirEntry, err error) error {
	if err != nil || entry.IsDir() {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes.ReplaceAll(text, []byte("$WORK"), []byte(s.dir)), 0)
}

// background starts a program that runs until the script ends, and waits until
// it is ready.
func (s *stage) background(cmd *exec.Cmd, said *lockedBuffer, name string, ready func() bool) error {
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", name, said.String())
		}
	})
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("%s ended: %v", name, err)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", patience, name)
		}
	}
	return nil
}

// issue makes a certificate.
func (s *stage) issue(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: issue NAME rsa|ec")
	}
	name := args[0]
	key := map[string]string{"rsa": "rsa:2048 -sha256", "ec": "ec -pkeyopt ec_paramgen_curve:P-256"}[args[1]]
	line := fmt.Sprintf("req -x509 -newkey %s -noenc -days 30 -keyout %s.key -out %[2]s.pem -subj /O=Lab/CN=%[2]s.example -addext subjectAltName=DNS:%[2]s.example,DNS:localhost,IP:%s",
		key, name, s.ServerIP)
	cmd := exec.Command("openssl", strings.Fields(line)...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	out, err := exec.Command("openssl", "x509", "-in", s.ts.MkAbs(name+".pem"), "-noout", "-fingerprint", "-sha256").Output()
	if err != nil {
		return err
	}
	_, hash, _ := strings.Cut(strings.TrimSpace(string(out)), "=")
	s.names[strings.ReplaceAll(hash, ":", "")] = name
	return os.Chmod(s.ts.MkAbs(name+".key"), 0o644)
}

// namespace is the one that a script names.
func (s *stage) namespace(name string) (*netlab.Namespace, error) {
	switch name {
	case "client":
		return s.Client, nil
	case "server":
		return s.Server, nil
	}
	return nil, fmt.Errorf("no namespace is called %s", name)
}

// start runs a server. It has a /run of its own, and its processes end with it.
func (s *stage) start(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: start client|server tcp/PORT|udp/PORT PROGRAM [ARG…]")
	}
	where, err := s.namespace(args[0])
	if err != nil {
		return err
	}
	network, number, _ := strings.Cut(args[1], "/")
	port, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	cmd := where.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", `mount -t tmpfs -o mode=755 run /run && "$@"; exit $?`, "sh"}, args[2:]...)...) // which stays root, and so is killed
	said := new(lockedBuffer)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, said, said
	return s.background(cmd, said, args[2], func() bool { return where.Listens(network, port) })
}

// run runs a program. What it prints can be looked at.
func (s *stage) run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: run client|server PROGRAM [ARG…]")
	}
	where, err := s.namespace(args[0])
	if err != nil {
		return err
	}
	cmd := where.Command("timeout", append([]string{"30"}, args[1:]...)...)
	return s.ts.Exec(cmd.Args[0], cmd.Args[1:]...)
}

// tls shakes hands behind a dialogue, each line of which is > and what the
// client sends or < and what is the end of the server's answer, quoted.
func (s *stage) tls(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: tls PORT FILE [ALPN]")
	}
	conn := s.Client.Dial(s.t, net.JoinHostPort(s.ServerIP, args[0]))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	for line := range strings.Lines(s.ts.ReadFile(args[1])) {
		who, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if who == ">" {
			if _, err := io.WriteString(conn, text); err != nil {
				return err
			}
			continue
		}
		var answer []byte
		for !strings.HasSuffix(string(answer), text) {
			var part [4096]byte
			n, err := conn.Read(part[:])
			if answer = append(answer, part[:n]...); err != nil {
				return fmt.Errorf("%w behind %q, not %q", err, answer, text)
			}
		}
	}
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "lab.example", MaxVersion: tls.VersionTLS12, NextProtos: args[2:]})
	if err := secured.Handshake(); err != nil {
		return err
	}
	return secured.Close()
}

// replay ends the capture and writes the handshakes that oddcert finds in it
// to the file seen, a line each: carrier, port, version, server name, what
// became of the certificates, and those of the server and of the client by
// their names.
func (s *stage) replay(args []string) error {
	if len(args) > 0 {
		return errors.New("usage: replay")
	}
	s.calm()
	if err := s.dump.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	waitFor(s.t, "tcpdump to end", func() bool { return strings.Contains(s.said.String(), "dropped by kernel") })
	path := filepath.Join(s.dir, "capture")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"replay", "--json", "-", path}, &stdout, &stderr); status != exitOK {
		return fmt.Errorf("exit status %d: %s", status, stderr.Bytes())
	}
	found := map[string]bool{}
	chain := func(hashes []string) string {
		if len(hashes) == 0 {
			return "-"
		}
		var names []string
		for _, sum := range hashes {
			found[sum] = true
			name, ok := s.names[sum]
			if !ok {
				name = "unknown:" + sum
			}
			names = append(names, name)
		}
		return strings.Join(names, ",")
	}
	var seen strings.Builder
	outcomes := map[string]uint64{}
	lines := bytes.SplitAfter(stdout.Bytes(), []byte("\n"))
	for _, r := range records(s.t, stdout.Bytes()) {
		if r.Event.Dataset != "oddcert.handshake" {
			continue
		}
		outcomes[r.Oddcert.Certificates]++
		fmt.Fprintf(&seen, "%s %s/%d %s %s %s %s", r.Oddcert.Carrier, r.Network.Transport, r.Server.Port, r.TLS.Version,
			either(r.TLS.Client.ServerName, "-"), r.Oddcert.Certificates, chain(r.Oddcert.Chain))
		if len(r.Oddcert.ClientChain) > 0 {
			fmt.Fprintf(&seen, " %s", chain(r.Oddcert.ClientChain))
		}
		seen.WriteByte('\n')
	}
	var stats ledger
	if err := json.Unmarshal(lines[len(lines)-2], &stats); err != nil {
		return err
	}
	if n := stats.Oddcert.Stats.Parser.Opaque; n > 0 {
		fmt.Fprintf(&seen, "opaque %d\n", n)
	}
	if err := stats.check(outcomes); err != nil {
		return err
	}
	if _, err := exec.LookPath("tshark"); err == nil {
		for hash := range withTshark(s.t, path) {
			if !found[hash] {
				return fmt.Errorf("tshark alone finds %s, %s", hash, s.names[hash])
			}
		}
	}
	return os.WriteFile(filepath.Join(s.dir, "seen"), []byte(seen.String()), 0o644)
}

// calm waits until nothing has come to the sensor for a moment.
func (s *stage) calm() {
	last, since := uint64(0), time.Now()
	waitFor(s.t, "the last packets", func() bool {
		if n, _ := s.Sensor.Counters(s.t, s.SensorIface); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// ledger is what a record of statistics says of handshakes.
type ledger struct {
	Oddcert struct {
		Stats struct {
			Capture, Records, Certificates, Loss map[string]uint64
			Parser                               struct{ Handshakes, Opaque uint64 }
		} `json:"stats"`
	} `json:"oddcert"`
}

// check holds the statistics against each other, and against how often each
// outcome was reported.
func (l *ledger) check(outcomes map[string]uint64) error {
	s := &l.Oddcert.Stats
	sum := uint64(0)
	for outcome, n := range s.Certificates {
		if sum += n; n != outcomes[outcome] {
			return fmt.Errorf("%d certificates are counted as %s, %d reported", n, outcome, outcomes[outcome])
		}
	}
	lost := uint64(0)
	for _, n := range s.Loss {
		lost += n
	}
	switch {
	case s.Capture["frames"] == 0:
		return errors.New("nothing was captured")
	case sum != s.Parser.Handshakes || sum != s.Records["handshakes"]:
		return fmt.Errorf("%d handshakes and %d records of %d outcomes", s.Parser.Handshakes, s.Records["handshakes"], sum)
	case lost != s.Certificates["lost"]:
		return fmt.Errorf("%d certificates are lost, by %d causes", s.Certificates["lost"], lost)
	}
	return nil
}

func either(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
