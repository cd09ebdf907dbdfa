package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is ample for a loaded machine.
const patience = 2 * time.Minute

// TestInstall installs the package on a Debian of its own, under a real systemd, in a
// network namespace with a span port: the life of a sensor from its installation to its
// purge.
func TestInstall(t *testing.T) {
	for _, name := range []string{"systemd-nspawn", "unshare", "nsenter", "ip", "tcpreplay", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("a container takes root")
	}
	first, second := releaseOf(t, "1.0.0"), releaseOf(t, "1.1.0")
	m := boot(t)
	m.run("ip", "link", "add", "sender0", "type", "veth", "peer", "name", "span0")
	m.run("ip", "link", "set", "lo", "up")
	m.run("ip", "link", "set", "sender0", "up")
	m.run("ip", "link", "set", "span0", "up")
	sink := serve(t, m.network)

	// Installed: nothing runs that nobody has configured.
	m.install(first)
	if got := m.run("oddcert", "--version"); got != "oddcert version v1.0.0" {
		t.Errorf("--version says %q", got)
	}
	m.run("getent", "passwd", "oddcert")
	if got := m.try("systemctl", "is-enabled", "oddcert"); got != "disabled" {
		t.Errorf("after the installation the service is %s", got)
	}
	for _, unit := range []string{"oddcert.service", "oddcert@span0.service"} {
		if got := m.run("systemd-analyze", "verify", "--man=no", unit); got != "" {
			t.Errorf("%s: %s", unit, got)
		}
		m.run("systemd-analyze", "security", "--threshold=20", unit) // 2.0
	}

	// The examples of drop-ins are right.
	m.run("cp", "-r", "/usr/share/doc/oddcert/drop-ins", "/etc/systemd/system/oddcert@example.service.d")
	if got := m.run("systemd-analyze", "verify", "--man=no", "oddcert@example.service"); got != "" {
		t.Errorf("the drop-ins: %s", got)
	}
	m.run("rm", "-r", "/etc/systemd/system/oddcert@example.service.d")

	// It runs, with a key from the credentials of systemd, and an alert arrives.
	m.write("/etc/credstore/oddcert.es-api-key", "secret", 0o600)
	m.write("/etc/systemd/system/oddcert.service.d/test.conf", `[Service]
LoadCredential=es-api-key:/etc/credstore/oddcert.es-api-key
Environment=ODDCERT_ES_API_KEY_FILE=%d/es-api-key
WatchdogSec=4
TimeoutAbortSec=2
RestartSec=1
`, 0o644)
	configuration := fmt.Sprintf("name: span-1\ninterface: [span0]\njson: /var/log/oddcert/records.json\nes: [%q]\n", sink.url)
	m.write("/etc/oddcert/oddcert.yaml", configuration, 0o644)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "enable", "--now", "oddcert")
	m.want("ActiveState", "active")
	m.want("Type", "notify")
	if status := m.property("oddcert", "StatusText"); status == "" {
		t.Error("systemctl status has no line of the sensor's")
	}
	m.replay()
	sink.await(1)
	if keys := sink.keys(); !slices.Equal(keys, []string{"ApiKey secret"}) {
		t.Errorf("the API keys that were sent are %q", keys)
	}

	// What it may: no more than the unit says.
	pid := m.property("oddcert", "MainPID")
	process := m.run("cat", "/proc/"+pid+"/status")
	for _, line := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(process, line) {
			t.Errorf("the sensor has not %q", line)
		}
	}
	if strings.Contains(process, "\nUid:\t0") {
		t.Error("the sensor is root")
	}

	// A reload opens the file of records anew, and restarts nothing.
	m.run("mv", "/var/log/oddcert/records.json", "/var/log/oddcert/old.json")
	m.run("systemctl", "reload", "oddcert")
	m.await("the file of records", func() bool { return m.exists("/var/log/oddcert/records.json") })
	if got := m.property("oddcert", "MainPID"); got != pid {
		t.Errorf("a reload has made process %s of %s", got, pid)
	}

	// A sensor that hangs is started again.
	m.run("kill", "-STOP", pid)
	m.await("the watchdog", func() bool {
		return m.property("oddcert", "NRestarts") == "1" && m.property("oddcert", "ActiveState") == "active"
	})
	if got := m.run("journalctl", "-u", "oddcert", "--no-pager"); !strings.Contains(strings.ToLower(got), "watchdog") {
		t.Errorf("the journal does not speak of the watchdog:\n%s", got)
	}

	// An upgrade while the receiver is away: what waits is delivered afterwards, and the
	// configuration stays.
	sink.refuse(true)
	before := sink.count()
	m.replay()
	m.await("records in the spool", func() bool { return m.waiting() > 0 })
	pid = m.property("oddcert", "MainPID")
	m.install(second)
	if got := m.property("oddcert", "MainPID"); got == pid || got == "0" {
		t.Errorf("after the upgrade of process %s, the process is %s", pid, got)
	}
	m.want("ActiveState", "active")
	if got := m.run("cat", "/etc/oddcert/oddcert.yaml"); got != strings.TrimSpace(configuration) {
		t.Errorf("the upgrade has changed the configuration: %s", got)
	}
	if got := m.run("oddcert", "--version"); got != "oddcert version v1.1.0" {
		t.Errorf("--version says %q", got)
	}
	if m.waiting() == 0 {
		t.Error("nothing waits after the upgrade")
	}
	sink.refuse(false)
	sink.await(before + 1)
	m.await("an empty spool", func() bool { return m.waiting() == 0 })

	// An instance has a folder of its own, and variables.
	m.run("systemctl", "stop", "oddcert")
	m.write("/etc/oddcert/span0.env", "ODDCERT_NAME=span-of-its-own\nODDCERT_JSON=/var/log/oddcert/interface/span0/records.json\nODDCERT_ES_API_KEY=secret\n", 0o600)
	m.run("systemctl", "enable", "--now", "oddcert@span0")
	m.replay()
	m.await("records of the instance", func() bool {
		return strings.Contains(m.try("cat", "/var/log/oddcert/interface/span0/records.json"), `"name":"span-of-its-own"`)
	})
	if !m.exists("/var/lib/oddcert/interface/span0/spool") {
		t.Error("the instance has no spool of its own")
	}

	// An upgrade leaves alone what does not run, and restarts what does.
	pid = m.property("oddcert@span0", "MainPID")
	m.install(first)
	if got := m.property("oddcert", "ActiveState"); got != "inactive" {
		t.Errorf("the upgrade has made a service that was stopped %s", got)
	}
	if got := m.property("oddcert@span0", "MainPID"); got == pid || got == "0" {
		t.Errorf("after the upgrade of process %s, the instance's process is %s", pid, got)
	}

	// Removed: stopped; the data stays. Purged: only what is not the package's stays.
	m.run("dpkg", "--remove", "oddcert")
	if got := m.property("oddcert@span0", "ActiveState"); got != "inactive" {
		t.Errorf("after the removal the instance is %s", got)
	}
	if links := m.try("sh", "-c", "ls /etc/systemd/system/*.wants | grep oddcert"); links != "" {
		t.Errorf("after the removal there are still %s", links)
	}
	for _, path := range []string{"/etc/oddcert/oddcert.yaml", "/var/lib/oddcert/spool"} {
		if !m.exists(path) {
			t.Errorf("the removal has taken %s", path)
		}
	}
	m.run("mkdir", "/srv/oddcert-elsewhere")
	m.run("dpkg", "--purge", "oddcert")
	left := m.try("find", "/", "-xdev", "-name", "*oddcert*", "-not", "-path", "/proc/*", "-not", "-path", "/run/*")
	want := []string{"/etc/credstore/oddcert.es-api-key", "/etc/systemd/system/oddcert.service.d", "/srv/oddcert-elsewhere"}
	got := slices.DeleteFunc(strings.Fields(left), func(path string) bool { return strings.HasPrefix(path, "/root/") })
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("after the purge there are %q, not %q", got, want)
	}
}

// TestInstallRPM installs the .rpm with its scripts into a root where no systemd runs,
// replaces it by another version and removes it. The root is a Debian's; what it depends
// on is there.
func TestInstallRPM(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("installing into a root takes root")
	}
	first, second := releaseOf(t, "1.0.0"), releaseOf(t, "1.1.0")
	root := t.TempDir()
	runProgram(t, "tar", "-xf", debian(t), "-C", root)
	exists := func(path string) bool {
		_, err := os.Lstat(filepath.Join(root, path))
		return err == nil
	}
	rpm := func(args ...string) {
		t.Helper()
		runProgram(t, "rpm", append([]string{"--root", root, "--nodeps"}, args...)...)
	}
	const configuration, program = "/etc/oddcert/oddcert.yaml", "/usr/bin/oddcert"
	rpm("--install", first.file(t, "*.rpm"))
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !bytes.Contains(passwd, []byte("\noddcert:")) {
		t.Errorf("there is no user oddcert: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, configuration), []byte("name: mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rpm("--upgrade", second.file(t, "*.rpm"))
	if text, err := os.ReadFile(filepath.Join(root, configuration)); err != nil || string(text) != "name: mine\n" {
		t.Errorf("an upgrade has changed the configuration: %q, %v", text, err)
	}
	if got := runProgram(t, filepath.Join(root, program), "--version"); got != "oddcert version v1.1.0\n" {
		t.Errorf("--version says %q", got)
	}
	rpm("--erase", "oddcert")
	if exists(program) || exists("/etc/systemd/system/multi-user.target.wants/oddcert.service") {
		t.Error("the removal leaves the program, or has the service enabled")
	}
	if !exists(configuration + ".rpmsave") {
		t.Error("the removal has taken a configuration that was changed")
	}
}

// machine is a Debian in a container.
type machine struct {
	t       *testing.T
	root    string
	init    int    // process of its systemd
	network string // its network namespace
}

// boot starts a Debian in a network namespace of its own.
func boot(t *testing.T) *machine {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "tar", "-xf", debian(t), "-C", root)

	holder := exec.Command("unshare", "--net", "sleep", "infinity")
	start(t, holder)
	network := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	deadline := time.Now().Add(patience)
	for {
		own, _ := os.Readlink("/proc/self/ns/net")
		if its, err := os.Readlink(network); err == nil && its != own {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the network namespace does not come")
		}
		time.Sleep(50 * time.Millisecond)
	}
	var console bytes.Buffer
	container := exec.Command("nsenter", "--net="+network, "systemd-nspawn", "--quiet", "--directory="+root, "--boot",
		"--register=no", "--keep-unit", "--capability=CAP_BPF", "--system-call-filter=bpf", "--console=pipe")
	container.Stdout, container.Stderr = &console, &console
	start(t, container)
	m := &machine{t: t, root: root, network: network}
	m.await("systemd", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", container.Process.Pid, container.Process.Pid))
		m.init, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		if m.init == 0 {
			return false
		}
		state := m.try("systemctl", "is-system-running")
		return state == "running" || state == "degraded"
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("journal:\n%s", m.try("journalctl", "--no-pager", "-u", "oddcert*", "-n", "60"))
		}
		m.try("systemctl", "poweroff")
		stopped := make(chan struct{})
		go func() { _ = container.Wait(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(30 * time.Second):
			_ = container.Process.Kill()
		}
	})
	return m
}

// start starts a program that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes when this thread ends
		started <- cmd.Start()
		<-t.Context().Done()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// debian is the archive of a Debian's root, which is made once and kept in the user's
// cache.
func debian(t *testing.T) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(cache, "oddcert-test", "debian-bookworm.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skip("debootstrap is not installed")
	}
	root := filepath.Join(t.TempDir(), "debian")
	cmd := exec.Command("debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,iproute2,procps", "bookworm", root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("debootstrap: %v: %s", err, out[max(0, len(out)-500):])
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "tar", "-cf", archive+".part", "-C", root, ".")
	if err := os.Rename(archive+".part", archive); err != nil {
		t.Fatal(err)
	}
	return archive
}

// command is a program in the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--all", "--target=" + strconv.Itoa(m.init), "--"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_COLORS=0"}
	cmd.Dir = "/"
	return cmd
}

// run runs a program in the machine, which must end well, and returns what it writes.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// try runs a program in the machine, however it ends.
func (m *machine) try(args ...string) string {
	out, _ := m.command(args...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func (m *machine) property(unit, name string) string {
	return m.try("systemctl", "show", "--value", "--property="+name, unit)
}

// want holds a property of the service.
func (m *machine) want(name, value string) {
	m.t.Helper()
	if got := m.property("oddcert", name); got != value {
		m.t.Fatalf("%s of the service is %q, not %q", name, got, value)
	}
}

func (m *machine) exists(path string) bool {
	return m.command("test", "-e", path).Run() == nil
}

func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// install installs the package of a release, as somebody would who was not asked.
func (m *machine) install(r *release) {
	m.t.Helper()
	text, err := os.ReadFile(r.file(m.t, "*.deb"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("/root/oddcert.deb", string(text), 0o644)
	m.run("dpkg", "--install", "/root/oddcert.deb")
}

// replay sends a handshake with a certificate that a rule matches over the span port.
func (m *machine) replay() {
	m.t.Helper()
	time.Sleep(3 * time.Second) // the flow before is forgotten 2 s after its end
	runProgram(m.t, "nsenter", "--net="+m.network, "tcpreplay", "--quiet", "--topspeed", "--intf1=sender0",
		"../../sensor/testdata/captures/odd-certificate/capture.pcap")
}

// waiting is how many records wait in the spool of the service.
func (m *machine) waiting() int {
	var status struct {
		Outputs []struct{ Waiting map[string]int }
	}
	text := m.try("oddcert", "spool", "status", "--json", "/var/lib/oddcert/spool")
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		m.t.Fatalf("spool status: %v: %s", err, text)
	}
	sum := 0
	for _, o := range status.Outputs {
		for _, n := range o.Waiting {
			sum += n
		}
	}
	return sum
}

// await waits until something is so.
func (m *machine) await(what string, is func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: waited in vain", what)
		}
	}
}

// sink is a stand-in for Elasticsearch that takes alerts.
type sink struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	refused bool
	alerts  map[string]bool // ids
	auth    map[string]bool
}

// serve starts a sink on the loopback of a network namespace.
func serve(t *testing.T, network string) *sink {
	s := &sink{t: t, alerts: map[string]bool{}, auth: map[string]bool{}}
	type result struct {
		listener net.Listener
		err      error
	}
	listening := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends in the other namespace
		f, err := os.Open(network)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			listening <- result{err: err}
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		listening <- result{l, err}
	}()
	r := <-listening
	if r.err != nil {
		t.Fatal(r.err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(r.listener) }()
	t.Cleanup(func() { _ = server.Close() })
	s.url = "http://" + r.listener.Addr().String()
	return s
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	from, err := gzip.NewReader(r.Body)
	if err == nil {
		body, err = io.ReadAll(from)
	} else if r.Header.Get("Content-Encoding") == "" {
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	s.auth[r.Header.Get("Authorization")] = true
	switch {
	case s.refused || err != nil:
		http.Error(w, "{}", http.StatusServiceUnavailable)
	case strings.HasSuffix(r.URL.Path, "/_bulk"):
		var items []string
		for line := range bytes.Lines(body) {
			var action struct {
				Create *struct {
					ID    string `json:"_id"`
					Index string `json:"_index"`
				}
			}
			if json.Unmarshal(line, &action) != nil || action.Create == nil {
				continue
			}
			if strings.Contains(action.Create.Index, "oddcert.alert") {
				s.alerts[action.Create.ID] = true
			}
			items = append(items, fmt.Sprintf(`{"create":{"_index":%q,"_id":%q,"status":201}}`, action.Create.Index, action.Create.ID))
		}
		fmt.Fprintf(w, `{"errors":false,"items":[%s]}`, strings.Join(items, ","))
	default:
		fmt.Fprint(w, `{"version":{"number":"8.19.0","build_flavor":"default"},"tagline":"You Know, for Search"}`)
	}
}

func (s *sink) refuse(refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = refused
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.alerts)
}

func (s *sink) keys() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.auth {
		keys = append(keys, key)
	}
	return keys
}

// await waits until there are n alerts.
func (s *sink) await(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.count() < n; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d alerts have arrived, not %d", s.count(), n)
		}
	}
}
