package main

import (
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// A replay while Elasticsearch is away says so in one line, ends with status 1,
// and keeps its records; the next run delivers them with its own.
func TestOutage(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "http://" + closed.Addr().String()
	closed.Close()
	dir := t.TempDir()
	odd := filepath.Join(capturesDir, "odd-certificate", "capture.pcap")
	namespace := estest.Namespace(t)
	replay := func(es, capture string, more ...string) (stdout, stderr string, status int) {
		var out, errs bytes.Buffer
		status = run(append([]string{"replay", "--es", es, "--es-namespace", namespace, "--spool", filepath.Join(dir, "spool"),
			"--json", "-", "--records", "alert,handshake,certificate", capture}, more...), &out, &errs)
		return out.String(), errs.String(), status
	}

	written, stderr, status := replay(away, odd)
	if status != exitFailure {
		t.Errorf("exit status %d", status)
	}
	var lines []string
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "oddcert: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "connection refused") || !strings.Contains(lines[0], "3 records kept in "+dir) {
		t.Errorf("said:\n%s", stderr)
	}

	server := estest.Shared(t)
	var said bytes.Buffer
	if status := run([]string{"es", "setup", "--portable", "--es", server.URL}, &said, &said); status != exitOK {
		t.Fatalf("es setup: exit status %d: %s", status, said.String())
	}
	if _, stderr, status := replay(server.URL, filepath.Join(capturesDir, "tls13", "capture.pcap")); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	documents := server.Search(t, "*-oddcert.*-"+namespace)
	for _, r := range records(t, []byte(written)) {
		if documents[r.Event.ID] == nil {
			t.Errorf("%s %s is not in Elasticsearch", r.Event.Dataset, r.Event.ID)
		}
	}
	if want := 3 + 2; len(documents) != want { // the other capture has one handshake, which poses, and no certificate
		t.Errorf("%d documents, want %d", len(documents), want)
	}
}
