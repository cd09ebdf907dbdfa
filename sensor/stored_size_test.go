package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// plannedRow matches a row of the table in SIZING.md that says how many bytes of a
// record are planned.
var plannedRow = regexp.MustCompile(`(?m)^\| (\w+) \|(?:[^|\n]*\|){4} ([\d,]+) \| ([\d,]+) \|[^|\n]*\|$`)

// TestStoredSize stores the records of generated traffic in a real Elasticsearch, and
// holds their size against what SIZING.md plans. Datasets of which there are few
// records are left out: an index takes 80 kB before the first.
func TestStoredSize(t *testing.T) {
	if testing.Short() {
		t.Skip("it stores 14,000 records")
	}
	server, namespace := estest.Shared(t), estest.Namespace(t)
	text, err := os.ReadFile("../packaging/elastic/SIZING.md")
	if err != nil {
		t.Fatal(err)
	}
	planned := map[string][2]int{}
	for _, row := range plannedRow.FindAllSubmatch(text, -1) {
		var bytes [2]int
		for i := range bytes {
			if bytes[i], err = strconv.Atoi(strings.ReplaceAll(string(row[2+i]), ",", "")); err != nil {
				t.Fatal(err)
			}
		}
		planned[string(row[1])] = bytes
	}
	if len(planned) != 6 {
		t.Fatalf("SIZING.md plans %v", planned)
	}

	spec, err := traffic.Named(traffic.NewNames, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var capture bytes.Buffer
	if _, err := traffic.Generate(&capture, spec); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "capture.pcap")
	if err := os.WriteFile(path, capture.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, records := map[string]int{}, map[string]int{}
	for _, line := range sendReplay(t, server, namespace, "sensor-1", path) {
		var r struct{ Event struct{ Dataset string } }
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		dataset := strings.TrimPrefix(r.Event.Dataset, "oddcert.")
		raw[dataset] += len(line) + 1
		records[dataset]++
	}
	measured := 0
	for dataset, n := range records {
		if n < 100 {
			continue
		}
		measured++
		index := "/logs-oddcert." + dataset + "-" + namespace
		server.Do(t, http.MethodPost, index+"/_forcemerge?max_num_segments=1&flush=true", "", nil)
		var stats struct {
			All struct {
				Primaries struct {
					Store struct {
						Size int `json:"size_in_bytes"`
					}
				}
			} `json:"_all"`
		}
		server.Do(t, http.MethodGet, index+"/_stats/store", "", &stats)
		got := [2]int{raw[dataset] / n, stats.All.Primaries.Store.Size / n}
		t.Logf("%s: %d records of %d bytes, %d stored", dataset, n, got[0], got[1])
		for i, what := range []string{"raw", "stored"} {
			if got[i] > planned[dataset][i] || got[i] < planned[dataset][i]/4 {
				t.Errorf("%s: a record has %d bytes %s, and %d are planned", dataset, got[i], what, planned[dataset][i])
			}
		}
	}
	if measured < 3 {
		t.Errorf("records: %v", records)
	}
}
