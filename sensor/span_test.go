//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

var update = flag.Bool("update", false, "make the captures in "+capturesDir+" anew")

// patience is how long the tests wait for what takes a moment: ample on a
// loaded machine.
const patience = time.Minute

// The program as it is shipped, in a namespace of its own, at a mirror port
// between clients and servers of OpenSSL, GnuTLS and Go: each handshake is
// reported with the certificates that OpenSSL says the servers have, the
// look-alike is flagged, its alert is in Elasticsearch at once, nothing is sent
// on the mirror port, and a signal ends it in order.
func TestSpan(t *testing.T) {
	b := newBench(t)
	program := drilled(t)
	server := estest.Shared(t)
	namespace := estest.Namespace(t)
	es := reach(t, b.Sensor, strings.TrimPrefix(server.URL, "http://"))
	dir := t.TempDir()
	lines := filepath.Join(dir, "records.json")

	setup := b.Sensor.Command(program, "es", "setup", "--portable", "--es", es, "--es-namespace", namespace)
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("es setup: %v: %s", err, out)
	}
	_, sent := b.Sensor.Counters(t, b.SensorIface)

	live := b.listen(t, program, "--json", lines, "--es", es, "--es-namespace", namespace, "--spool", filepath.Join(dir, "spool"))

	var want []handshake
	// The look-alike comes last: as in the field, its alert is not the first that
	// Elasticsearch gets, which waits until an index is made for it.
	for _, e := range slices.Concat(exchanges[1:], exchanges[:1]) {
		b.run(t, &e)
		want = append(want, b.expected(&e)...)
		for _, h := range e.want {
			for _, rule := range h.Alerts {
				took := searchable(t, server, namespace, rule)
				t.Logf("%s: the alert could be searched %v after the handshake", e.name, took)
			}
		}
	}
	waitFor(t, "all handshakes", func() bool {
		text, _ := os.ReadFile(lines)
		return bytes.Count(text, []byte(`"dataset":"oddcert.handshake"`)) >= len(want)
	})

	live.end(t)
	if _, after := b.Sensor.Counters(t, b.SensorIface); after != sent {
		t.Errorf("%d frames were sent on the mirror port", after-sent)
	}

	t.Log(live.stderr.String())
	text, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	got := records(t, text)
	byServer := func(a, b handshake) int {
		return strings.Compare(a.Transport+a.Server+a.Certificates, b.Transport+b.Server+b.Certificates)
	}
	found := handshakes(got)
	slices.SortStableFunc(want, byServer)
	slices.SortStableFunc(found, byServer)
	if diff := cmp.Diff(want, found, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if !strings.Contains(live.stdout.String(), fmt.Sprintf("%d  handshakes\n", len(want))) || !strings.Contains(live.stdout.String(), "nothing lost") {
		t.Errorf("the summary:\n%s", live.stdout.String())
	}

	documents := server.Search(t, "*-oddcert.*-"+namespace)
	for _, r := range got {
		if documents[r.Event.ID] == nil {
			t.Errorf("%s %s is not in Elasticsearch", r.Event.Dataset, r.Event.ID)
		}
	}
	if len(documents) != len(got) {
		t.Errorf("%d documents in Elasticsearch, %d records in the file", len(documents), len(got))
	}
}

// reach makes an address of this machine's loopback reachable on the loopback
// of a namespace, and returns its URL there.
func reach(t *testing.T, n *netlab.Namespace, address string) string {
	t.Helper()
	listener := n.Listen(t, "127.0.0.1:0")
	go func() {
		for {
			inner, err := listener.Accept()
			if err != nil {
				return
			}
			outer, err := net.Dial("tcp", address)
			if err != nil {
				inner.Close()
				continue
			}
			pipe := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
			}
			go pipe(inner, outer)
			go pipe(outer, inner)
		}
	}()
	return "http://" + listener.Addr().String()
}

// searchable waits until the alert of a rule is found by a search, and returns
// the time since the packet that completed the handshake.
func searchable(t *testing.T, server *estest.Server, namespace, rule string) time.Duration {
	t.Helper()
	var at time.Time
	waitFor(t, "the alert in Elasticsearch", func() bool {
		var answer struct {
			Hits struct {
				Hits []struct {
					Source struct {
						Timestamp time.Time `json:"@timestamp"`
					} `json:"_source"`
				} `json:"hits"`
			} `json:"hits"`
		}
		// While the first alert makes the index there are answers of other kinds.
		res, err := http.Post(server.URL+"/logs-oddcert.alert-"+namespace+"/_search", "application/json",
			strings.NewReader(`{"query":{"term":{"rule.id":"`+rule+`"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if json.NewDecoder(res.Body).Decode(&answer) != nil || len(answer.Hits.Hits) == 0 {
			return false
		}
		at = answer.Hits.Hits[0].Source.Timestamp
		return true
	})
	return time.Since(at).Round(time.Millisecond)
}

// waitFor waits until done says so.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// sensing is the program, live on the mirror port.
type sensing struct {
	process        *os.Process
	ended          chan error
	stdout, stderr lockedBuffer
}

// listen starts the program and waits until it listens.
func (b *bench) listen(t *testing.T, program string, args ...string) *sensing {
	t.Helper()
	cmd := b.Sensor.Command(program, append([]string{"live", "-i", b.SensorIface}, args...)...)
	l := &sensing{ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &l.stdout, &l.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.process = cmd.Process
	go func() { l.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = l.process.Kill() })
	waitFor(t, "the sensor to listen", func() bool { return strings.Contains(l.stderr.String(), "listening") })
	return l
}

// end has the program finish what is under way.
func (l *sensing) end(t *testing.T) {
	t.Helper()
	if err := l.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-l.ended:
		if err != nil {
			t.Errorf("after SIGTERM: %v: %s", err, l.stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("does not end after SIGTERM")
	}
}

// lockedBuffer is a buffer that can be read while a program writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestRecord makes the captures of the project, with -update.
func TestRecord(t *testing.T) {
	if !*update {
		t.Skip("makes captures, with -update only")
	}
	b := newBench(t)
	for i := range exchanges {
		b.record(t, &exchanges[i])
	}
}

// record does the handshakes of e with tcpdump at the mirror port, and writes
// the folder of the capture.
func (b *bench) record(t *testing.T, e *exchange) {
	t.Helper()
	dir := filepath.Join(capturesDir, e.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	dump := b.Sensor.Command("tcpdump", "-i", b.SensorIface, "-U", "--immediate-mode", "-Z", "root",
		"-w", filepath.Join(dir, "capture.pcap"), fmt.Sprintf("port %d", e.port))
	var said lockedBuffer
	dump.Stderr = &said
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "tcpdump to listen", func() bool { return strings.Contains(said.String(), "listening on") })
	b.run(t, e)
	time.Sleep(time.Second / 2) // for the last packets of the connection
	if err := dump.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := dump.Wait(); err != nil {
		t.Fatalf("tcpdump: %v: %s", err, said.String())
	}

	text, err := json.MarshalIndent(golden{b.expected(e)}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"want.json": string(text) + "\n", "README.md": b.readme(e)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readme says how a capture was made.
func (b *bench) readme(e *exchange) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# %s\n\n%s\n\n", e.name, e.about)
	fmt.Fprintf(&s, "Made on %s by `go test ./sensor -run TestRecord -update`, with %s: tcpdump recorded it at a mirror port between two network namespaces. `want.json` says what it holds; the hashes are those that `openssl x509 -fingerprint -sha256` printed. The keys were made for this capture and thrown away.\n\n",
		time.Now().UTC().Format(time.DateOnly), strings.Join(versions(e), ", "))
	s.WriteString("```\n")
	used := e.server + " " + strings.Join(e.clients, " ")
	if e.goTLS != 0 {
		used = "rsa.pem"
	}
	if strings.Contains(used, "leaf.pem") {
		used += " root.pem middle.pem"
	}
	if strings.Contains(used, "lookalike.pem") {
		used += " issuer.pem"
	}
	for _, line := range certificates {
		_, out, _ := strings.Cut(line, "-out ")
		if strings.Contains(used, strings.Fields(out)[0]) {
			s.WriteString(line + "\n")
		}
	}
	if strings.Contains(used, "chain.pem") {
		s.WriteString("cat middle.pem root.pem > chain.pem\n")
	}
	for _, template := range append([]string{e.server}, e.clients...) {
		if template != "" {
			s.WriteString(strings.Join(b.line(e, template), " ") + "\n")
		}
	}
	if e.goTLS != 0 {
		fmt.Fprintf(&s, "# client and server: crypto/tls, %s, with rsa.pem and rsa.key\n", tls.VersionName(e.goTLS))
	}
	s.WriteString("```\n")
	return s.String()
}

// versions are those of the programs that made a capture.
func versions(e *exchange) (all []string) {
	commands := [][]string{{"openssl", "version"}, {"tcpdump", "--version"}}
	if strings.HasPrefix(e.server, "gnutls") {
		commands = append(commands, []string{"gnutls-cli", "--version"})
	}
	if e.goTLS != 0 {
		commands = append(commands, []string{"go", "version"})
	}
	for _, c := range commands {
		out, _ := exec.Command(c[0], c[1:]...).CombinedOutput()
		first, _, _ := strings.Cut(string(out), "\n")
		all = append(all, first)
	}
	return all
}
