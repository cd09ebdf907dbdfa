package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A test starts its own program again, as an opener or as a process that confines
// itself, and speaks with that over its standard input and output.
func TestMain(m *testing.M) {
	if IsOpener() {
		os.Exit(Serve())
	}
	if os.Getenv(confinedVariable) != "" {
		os.Exit(confined())
	}
	os.Exit(m.Run())
}

const confinedVariable = "ODDCERT_TEST_CONFINED"

// task is what a confined process is told.
type task struct {
	Policy Policy
	Free   bool // it does not confine itself
	ABI    int  // of Landlock, at most; -1 for what there is
	NoCall bool // the kernel has no seccomp

	Outside     string // a folder that it has no business in
	Inside      string // one that it may write to
	Secret      string // a file that it may read, and that is replaced
	Allowed     uint16 // ports of TCP on 127.0.0.1 where somebody listens
	Denied      uint16
	Abstract    string // a socket of the Unix domain, likewise
	Echo        string // where a datagram is answered
	Authorities bool   // this machine has some
	Parent      int    // a process that it has no business with
}

// outcome is what became of a step.
type outcome struct {
	Step   string
	Number int    // the error number; 0 for success
	Text   string // the error
}

// denied reports whether the kernel said no. Landlock says EXDEV where a file would get
// into another folder.
func (o outcome) denied() bool {
	return slices.Contains([]unix.Errno{unix.EPERM, unix.EACCES, unix.EXDEV}, unix.Errno(o.Number))
}

// confinedProcess is a process that does a task.
type confinedProcess struct {
	cmd    *exec.Cmd
	in     *json.Encoder
	out    *bufio.Scanner
	Report Report
	killed bool // by the test
}

// account is whom a confined process runs as.
type account struct {
	name string
	uid  uint32
}

var (
	root   = account{"root", 0}
	nobody = account{"nobody with ambient CAP_NET_RAW", 65534}
)

// lookAround makes what a task needs outside of its process.
func lookAround(t *testing.T) task {
	t.Helper()
	dir := t.TempDir()
	// Others may go in, whoever made the folder.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k := task{ABI: -1, Outside: filepath.Join(dir, "outside"), Inside: filepath.Join(dir, "inside"),
		Secret: filepath.Join(dir, "secrets", "key"), Parent: os.Getpid()}
	for _, d := range []string{k.Outside, k.Inside, filepath.Dir(k.Secret)} {
		if err := os.Mkdir(d, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(k.Outside, "file"), "others'", 0o666)
	write(t, k.Secret, "first", 0o644)
	k.Allowed, k.Denied = listen(t), listen(t)
	k.Abstract = "@" + dir
	accept(t, "unix", k.Abstract)
	k.Echo = echo(t)
	k.Authorities = authorities() == nil
	k.Policy = Policy{Write: []string{k.Inside}, Read: []string{k.Secret}, Ports: []uint16{k.Allowed}}
	return k
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// listen takes connections on a port of the loopback interface until the test ends.
func listen(t *testing.T) uint16 {
	t.Helper()
	return uint16(accept(t, "tcp4", "127.0.0.1:0").(*net.TCPAddr).Port)
}

// accept takes connections until the test ends.
func accept(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr()
}

// echo answers datagrams until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

// confine starts a process that confines itself as k says.
func (k task) confine(t *testing.T, as account) *confinedProcess {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to open packet sockets and to become others")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"confined"}
	cmd.Env = append(os.Environ(), confinedVariable+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if as.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.uid}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_RAW}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &confinedProcess{cmd: cmd, in: json.NewEncoder(in), out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close() // it ends
		if err := cmd.Wait(); err != nil && !p.killed {
			t.Errorf("the confined process: %v", err)
		}
	})
	p.tell(t, k)
	p.hear(t, &p.Report)
	return p
}

func (p *confinedProcess) tell(t *testing.T, v any) {
	t.Helper()
	if err := p.in.Encode(v); err != nil {
		t.Fatal(err)
	}
}

func (p *confinedProcess) hear(t *testing.T, v any) {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the confined process said nothing: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), v); err != nil {
		t.Fatalf("%v: %q", err, p.out.Text())
	}
}

// do has the process do something, and returns what became of each step.
func (p *confinedProcess) do(t *testing.T, what string) (all []outcome) {
	t.Helper()
	p.tell(t, what)
	p.hear(t, &all)
	if len(all) == 0 {
		t.Fatalf("%s: no outcomes", what)
	}
	return all
}

// needAdmin skips a test where root is less than root, as in a container.
func needAdmin(t *testing.T) {
	t.Helper()
	if has, err := permitted(); err != nil || has&(1<<unix.CAP_SYS_ADMIN) == 0 {
		t.Skip("needs CAP_SYS_ADMIN")
	}
}

// The layers by which an attack is stopped.
const (
	byCapabilities = 1 << iota
	byLandlock
	byTruncation // Landlock of ABI 3
	byPorts      // of ABI 4
	byScopes     // of ABI 6
	bySeccomp
)

// inForce are the layers of a report.
func inForce(r Report) (layers int) {
	layers = byCapabilities
	if r.Landlock > 0 {
		layers |= byLandlock
	}
	if r.Landlock >= 3 {
		layers |= byTruncation
	}
	if r.Landlock >= abiPorts {
		layers |= byPorts
	}
	if r.Landlock >= abiScopes {
		layers |= byScopes
	}
	if r.Seccomp {
		layers |= bySeccomp
	}
	return layers
}

// TestAttacks has a stranger run inside of the process, with each of the layers in force
// or not. Without any, everything is possible, which shows that the attacks are some.
func TestAttacks(t *testing.T) {
	for _, as := range []account{root, nobody} {
		for _, c := range []struct {
			name string
			set  func(k *task)
		}{
			{"free", func(k *task) { k.Free = true }},
			{"everything", func(*task) {}},
			{"no seccomp", func(k *task) { k.NoCall = true }},
			{"no Landlock", func(k *task) { k.ABI = 0 }},
			{"Landlock 1", func(k *task) { k.ABI, k.NoCall = 1, true }},
			{"Landlock 3", func(k *task) { k.ABI, k.NoCall = 3, true }},
			{"Landlock 4", func(k *task) { k.ABI, k.NoCall = 4, true }},
			{"capabilities alone", func(k *task) { k.ABI, k.NoCall = 0, true }},
		} {
			if as != root && c.name == "free" {
				continue // the kernel denies it most
			}
			t.Run(as.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				k := lookAround(t)
				if c.set(&k); k.Free {
					needAdmin(t)
				}
				p := k.confine(t, as)
				layers := 0
				if !k.Free {
					layers = inForce(p.Report)
				}
				for _, thread := range []string{"attack", "attack on an old thread"} {
					for _, o := range p.do(t, thread) {
						i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == o.Step })
						missing := o.Number == int(unix.ENOSYS)
						switch stopped := attacks[i].by&layers != 0; {
						case stopped && !o.denied() && !missing:
							t.Errorf("%s: %s: %q; it has to be denied", thread, o.Step, o.Text)
						case k.Free && o.denied():
							t.Errorf("%s: %s: %q; it is no attack", thread, o.Step, o.Text)
						}
					}
				}
				if text, err := os.ReadFile(filepath.Join(k.Outside, "file")); layers&byLandlock != 0 && (err != nil || string(text) != "others'") {
					t.Errorf("a file outside has %q, %v", text, err)
				}
			})
		}
	}
}

// TestReport holds what is said to be in force against what the kernel says of each
// thread.
func TestReport(t *testing.T) {
	for _, as := range []account{root, nobody} {
		for _, c := range []struct {
			name   string
			abi    int
			noCall bool
			lacks  []string // in their order
		}{
			{"everything", -1, false, nil},
			{"Landlock 1", 1, false, []string{"truncation", "ports", "devices", "signals"}},
			{"Landlock 4", 4, false, []string{"devices", "signals"}},
			{"no Landlock", 0, false, []string{"Linux 5.13"}},
			{"nothing", 0, true, []string{"Linux 5.13", "seccomp"}},
		} {
			t.Run(as.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				k := lookAround(t)
				k.ABI, k.NoCall = c.abi, c.noCall
				p := k.confine(t, as)
				r := p.Report
				if c.abi < 0 {
					if abi, _ := landlockABI(); abi < len(versions)-1 {
						t.Skipf("this kernel has Landlock of ABI %d", abi)
					}
				} else if r.Landlock != c.abi {
					t.Errorf("Landlock of ABI %d is in force, want %d", r.Landlock, c.abi)
				}
				if len(r.Lacks) != len(c.lacks) {
					t.Fatalf("lacks %q, want %q", r.Lacks, c.lacks)
				}
				for i, want := range c.lacks {
					if !strings.Contains(r.Lacks[i], want) {
						t.Errorf("lacks %q, want something about %q", r.Lacks[i], want)
					}
				}
				if r.Seccomp == c.noCall || !r.NoNewPrivs || r.Bounding != (as == root) || len(r.Capabilities) != 0 {
					t.Errorf("report %+v", r)
				}
				if !slices.Contains(r.Write, k.Inside) || !slices.Contains(r.Read, filepath.Dir(k.Secret)) {
					t.Errorf("read %q, write %q", r.Read, r.Write)
				}
				p.do(t, "work") // with more threads
				seccomp := "2"
				if c.noCall {
					seccomp = "0"
				}
				want := map[string]string{"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
					"CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": seccomp}
				if as == root {
					want["CapBnd"] = "0000000000000000"
				}
				checkThreads(t, p.cmd.Process.Pid, want)
			})
		}
	}
}

// checkThreads looks at the status of each thread of a process.
func checkThreads(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d threads, %v", len(files), err)
	}
	for _, file := range files {
		status, err := os.ReadFile(file)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if w, ok := want[key]; ok {
				seen++
				if value := strings.TrimSpace(value); value != w {
					t.Errorf("%s: %s is %s, want %s", file, key, value, w)
				}
			}
		}
		if seen != len(want) {
			t.Errorf("%s: %d of %d lines", file, seen, len(want))
		}
	}
}

// TestWork has a confined process go on with its work.
func TestWork(t *testing.T) {
	for _, as := range []account{root, nobody} {
		t.Run(as.name, func(t *testing.T) {
			k := lookAround(t)
			k.Policy.Resolve = true
			p := k.confine(t, as)
			for _, o := range p.do(t, "work") {
				if o.Number != 0 || o.Text != "" {
					t.Errorf("%s: %s", o.Step, o.Text)
				}
			}
			// Somebody connects to what it listens on.
			port, err := os.ReadFile(filepath.Join(k.Inside, "port"))
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp4", "127.0.0.1:"+string(port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if o := p.do(t, "accept"); o[0].Text != "" {
				t.Error(o[0].Text)
			}
			// The secret is renewed as programs renew files.
			write(t, k.Secret+".new", "second", 0o644)
			if err := os.Rename(k.Secret+".new", k.Secret); err != nil {
				t.Fatal(err)
			}
			if o := p.do(t, "read secret"); o[0].Text != "second" {
				t.Errorf("the new secret is %q", o[0].Text)
			}
			// Frames come on a ring that was open, and on one that was opened since.
			stop := make(chan struct{})
			defer close(stop)
			go chatter(stop)
			for _, o := range p.do(t, "capture") {
				if o.Text != "" {
					t.Errorf("%s: %s", o.Step, o.Text)
				}
			}
			if err := p.cmd.Process.Signal(unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if o := p.do(t, "wait for SIGHUP"); o[0].Text != "" {
				t.Error(o[0].Text)
			}
		})
	}
}

// TestBPF has a process use a table that is open, with and without CAP_BPF.
func TestBPF(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprintf("keep %v", keep), func(t *testing.T) {
			needAdmin(t)
			k := lookAround(t)
			k.Policy.KeepBPF = keep
			p := k.confine(t, root)
			var want []string
			left := uint64(0)
			if keep {
				want, left = []string{"cap_bpf"}, 1<<unix.CAP_BPF
			}
			if !slices.Equal(p.Report.Capabilities, want) {
				t.Errorf("capabilities %q, want %q", p.Report.Capabilities, want)
			}
			set := fmt.Sprintf("%016x", left)
			checkThreads(t, p.cmd.Process.Pid, map[string]string{"CapEff": set, "CapPrm": set, "CapInh": "0000000000000000", "CapBnd": "0000000000000000"})
			if o := p.do(t, "use a BPF table"); o[0].Number != 0 || o[0].Text != "" {
				t.Errorf("%s: %s", o[0].Step, o[0].Text)
			}
			for _, o := range p.do(t, "attack") {
				if strings.Contains(o.Step, "BPF") && !o.denied() {
					t.Errorf("%s: %q; it has to be denied", o.Step, o.Text)
				}
			}
		})
	}
}

// chatter makes frames on the loopback interface.
func chatter(stop <-chan struct{}) {
	conn, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
			_, _ = conn.Write([]byte("frame")) // refused, and seen
		}
	}
}

// TestSockets holds the sockets that a process can make against its policy.
func TestSockets(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		can    string
	}{
		{Policy{}, "netlink"},
		{Policy{Ports: []uint16{1}}, "tcp4 tcp6 netlink"},
		{Policy{AnyPort: true}, "tcp4 tcp6 netlink"},
		{Policy{UDP: true}, "udp4 udp6 netlink"},
		{Policy{Resolve: true}, "tcp4 tcp6 udp4 udp6 netlink"},
		{Policy{Unix: true}, "unix netlink"},
		{Policy{AnyPort: true, UDP: true, Unix: true, Resolve: true}, "tcp4 tcp6 udp4 udp6 unix netlink"},
	} {
		t.Run(c.can, func(t *testing.T) {
			t.Parallel()
			k := lookAround(t)
			k.Policy = c.policy
			var can []string
			for _, o := range k.confine(t, root).do(t, "make sockets") {
				switch {
				case o.Number == 0:
					can = append(can, o.Step)
				case !o.denied():
					t.Errorf("%s: %s", o.Step, o.Text)
				}
			}
			if got := strings.Join(can, " "); got != c.can {
				t.Errorf("can make %s, want %s", got, c.can)
			}
		})
	}
}

// TestAnyPort has a process connect to ports that nobody could name.
func TestAnyPort(t *testing.T) {
	k := lookAround(t)
	k.Policy.Ports, k.Policy.AnyPort = nil, true
	for _, o := range k.confine(t, nobody).do(t, "attack") {
		if o.Step == "connect to another port" && o.Number != 0 {
			t.Errorf("%s: %s", o.Step, o.Text)
		}
		if o.Step == "listen" && !o.denied() {
			t.Errorf("%s: %q", o.Step, o.Text)
		}
	}
}

func TestGrants(t *testing.T) {
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	for _, d := range []string{"logs", "secret/..2026"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, at("logs", "eve.json"), "", 0o600)
	write(t, at("secret", "..2026", "key"), "", 0o600)
	// As Kubernetes mounts a secret.
	if err := errors.Join(os.Symlink("..2026", at("secret", "..data")), os.Symlink("..data/key", at("secret", "key"))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want []string // nil for an error
	}{
		{at("logs"), []string{at("logs")}},
		{at("logs", "eve.json"), []string{at("logs")}},
		{at("logs", "later.json"), []string{at("logs")}},
		{at("secret", "key"), []string{at("secret"), at("secret", "..2026")}},
		{at("pipe"), []string{at("pipe")}},
		{"/dev/null", []string{"/dev/null"}},
		{"/etc/passwd", []string{"/etc/passwd"}},
		{"/oddcert-test-missing", nil},
		{"/etc/oddcert-test-missing", nil},
		{at("missing", "file"), nil},
	} {
		for _, writing := range []bool{false, true} {
			var r Report
			p := Policy{Read: []string{c.path}}
			if writing {
				p = Policy{Write: []string{c.path}}
			}
			_, err := p.grants(&r)
			got := r.Read
			if got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "/proc/") }); writing {
				got = r.Write
			}
			if (err != nil) != (c.want == nil) || err == nil && !slices.Equal(got, c.want) {
				t.Errorf("%s, writing %v: %q, %v; want %q", c.path, writing, got, err, c.want)
			}
		}
	}
}

// TestReportLog holds what is logged to what it is about.
func TestReportLog(t *testing.T) {
	for _, c := range []struct {
		report Report
		want   string
	}{
		{Report{}, "[capabilities=none no_new_privs=false landlock=none seccomp=false]"},
		{Report{Capabilities: []string{"cap_bpf"}, NoNewPrivs: true, Landlock: 7, Seccomp: true},
			"[capabilities=cap_bpf no_new_privs=true landlock=ABI 7 seccomp=true]"},
	} {
		if got := slog.AnyValue(c.report).Resolve().String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// TestNoFolderIsExecutable holds the rights to what the package promises.
func TestNoFolderIsExecutable(t *testing.T) {
	for _, access := range []string{readFile.String(), readFolder.String(), writeFile.String(), writeFolder.String()} {
		for _, never := range []string{"execute", "make_char", "make_block", "make_sock", "make_fifo", "make_sym", "refer", "ioctl"} {
			if strings.Contains(access, never) {
				t.Errorf("%s has %s", access, never)
			}
		}
	}
}
