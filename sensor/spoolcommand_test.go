package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// ran runs the program and returns what it says.
func ran(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
	return out.String(), errs.String(), status
}

// The status of a spool is that of its outputs, while a process has it open and
// afterwards; an output is forgotten only then.
func TestSpoolStatus(t *testing.T) {
	dir := t.TempDir()
	sp, err := spool.Open(dir, spool.Options{Outputs: []spool.Output{{Name: "siem", Datasets: output.Records}, {Name: "archive", Datasets: output.Records}}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-50*time.Hour - 30*time.Minute)
	for i, d := range []output.Dataset{output.Alert, output.Alert, output.Handshake, output.Handshake, output.Certificate} {
		if err := sp.Append(t.Context(), &output.Record{Dataset: d, ID: fmt.Sprint(i), Time: at.UnixNano(), JSON: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sp.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown := func(want ...string) {
		t.Helper()
		stdout, stderr, status := ran("spool", "status", dir)
		if status != exitOK || stderr != "" {
			t.Errorf("exit status %d: %s", status, stderr)
		}
		for _, line := range want {
			if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(stdout) {
				t.Errorf("there is no line %s in\n%s", line, stdout)
			}
		}
	}
	for q := range spool.Queues {
		var b spool.Batch
		siem := sp.Reader("siem")
		if err := siem.Next(t.Context(), q, &b, 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := siem.Settle(q, 1); err != nil {
			t.Fatal(err)
		}
	}
	oldest := at.UTC().Format(time.RFC3339)
	shown(`.*: \d+ bytes in 2 files`, `OUTPUT +QUEUE +OLDEST +BYTES +CURSOR +WAITING`,
		`siem +alerts +`+oldest+` \(2d2h ago\) +\d+ +2 +1 alert`, `siem +telemetry +`+oldest+` .* +2 +1 handshake, 1 certificate`)
	if _, stderr, status := ran("spool", "forget", "archive", dir); status != exitFailure || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
	shown(`archive +alerts .* 1 +2 alert`, `siem +alerts .* 2 +1 alert`)
	stdout, _, _ := ran("spool", "status", "--json", dir)
	var named struct {
		Outputs []struct {
			Output, Queue string
			Waiting       map[string]int
		}
	}
	if err := json.Unmarshal([]byte(stdout), &named); err != nil || len(named.Outputs) != 4 || named.Outputs[1].Output != "archive" || named.Outputs[2].Output != "siem" {
		t.Errorf("%v in %s", err, stdout)
	}
	for _, o := range named.Outputs {
		if o.Output == "siem" && o.Queue == "telemetry" && (o.Waiting["handshake"] != 1 || o.Waiting["certificate"] != 1) {
			t.Errorf("%+v", o)
		}
	}
	for _, name := range []string{"archive", "siem"} {
		if _, stderr, status := ran("spool", "forget", name, dir); status != exitOK {
			t.Errorf("exit status %d: %s", status, stderr)
		}
		if stdout, _, _ := ran("spool", "status", dir); strings.Contains(stdout, name) {
			t.Error(stdout)
		}
	}
	shown(`alerts: 2 alert for no output`, `telemetry: 2 handshake, 1 certificate for no output`)
}

// A record that a receiver refuses is a dead letter, which the next run delivers when
// somebody wants it sent again, and not before.
func TestDeadLettersAreSentAgain(t *testing.T) {
	var refuses atomic.Bool
	var mu sync.Mutex
	got := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		if r.URL.Path != "/_bulk" { // what the server is, and whether it has templates
			w.WriteHeader(http.StatusForbidden)
			return
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var items []string
		lines := bufio.NewScanner(z)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var action struct {
				Create struct {
					ID string `json:"_id"`
				}
			}
			if json.Unmarshal(lines.Bytes(), &action) != nil || action.Create.ID == "" {
				continue // the document
			}
			answer := `"status":201`
			if refuses.Load() {
				answer = `"status":400,"error":{"type":"document_parsing_exception","reason":"not so"}`
			} else {
				mu.Lock()
				got[action.Create.ID]++
				mu.Unlock()
			}
			items = append(items, fmt.Sprintf(`{"create":{"_id":%q,%s}}`, action.Create.ID, answer))
		}
		fmt.Fprintf(w, `{"errors":%v,"items":[%s]}`, refuses.Load(), strings.Join(items, ","))
	}))
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "spool")
	replay := func(want int) {
		t.Helper()
		_, stderr, status := ran("replay", "--es", server.URL, "--spool", dir, "--records", "alert,handshake", filepath.Join(capturesDir, "odd-certificate", "capture.pcap"))
		if status != want {
			t.Fatalf("exit status %d: %s", status, stderr)
		}
	}
	letters := func() int {
		t.Helper()
		stdout, stderr, status := ran("deadletters", "list", "--json", "--spool", dir)
		if status != exitOK {
			t.Fatalf("exit status %d: %s", status, stderr)
		}
		return strings.Count(stdout, `"reason":"document_parsing_exception: not so"`)
	}
	refuses.Store(true)
	replay(exitFailure)
	if n := letters(); n != 2 || len(got) != 0 {
		t.Fatalf("%d dead letters, %v", n, got)
	}
	refuses.Store(false)
	if stdout, stderr, status := ran("deadletters", "retry", "--output", "elasticsearch", "--spool", dir); status != exitOK || stdout != "elasticsearch: 2 dead letters to be sent again\n" {
		t.Fatalf("exit status %d: %s%s", status, stdout, stderr)
	}
	replay(exitOK)
	if n := letters(); n != 0 || len(got) != 2 {
		t.Errorf("%d dead letters, %v", n, got)
	}
	for id, n := range got {
		if n != 2 { // the same capture has the same records
			t.Errorf("%s came %d times", id, n)
		}
	}
}
