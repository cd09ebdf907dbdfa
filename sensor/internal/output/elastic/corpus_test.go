package elastic

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// corpusRecords has the program read the public captures, and returns the records of
// all handshakes there, with references and in full.
func corpusRecords(t *testing.T) (records []*output.Record) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program, and starts servers")
	}
	captures := filepath.Join(cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../../shared/corpus"), "captures")
	if _, err := os.Stat(captures); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	program := filepath.Join(t.TempDir(), "oddcert")
	if out, err := exec.Command("go", "build", "-o", program, "../../..").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for _, form := range []string{"lean", "full"} {
		file := filepath.Join(t.TempDir(), form)
		cmd := exec.Command(program, "replay", "--name", "test", "--handshakes", form, "--json", file, captures)
		if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 2 { // some captures are cut
			t.Fatalf("replay: %v: %s", err, out)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, len(b))
		for lines.Scan() {
			var e struct{ Event struct{ ID, Dataset string } }
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			r := &output.Record{ID: e.Event.ID, JSON: bytes.Clone(lines.Bytes())}
			for d := range output.Datasets {
				if "oddcert."+d.String() == e.Event.Dataset {
					r.Dataset = d
				}
			}
			if form == "full" {
				r.ID += "-full" // beside the other form of the same event
			}
			records = append(records, r)
		}
	}
	return records
}

// TestCorpus sends the records of all public captures to each server, and holds that
// its mappings take each of them.
func TestCorpus(t *testing.T) {
	records := corpusRecords(t)
	outcomes := map[string]int{}
	for _, r := range records {
		var e struct {
			Oddcert struct{ Certificates string }
		}
		if err := json.Unmarshal(r.JSON, &e); err == nil && r.Dataset == output.Handshake {
			outcomes[e.Oddcert.Certificates]++
		}
	}
	t.Logf("%d records; handshakes, in two forms each: %v", len(records), outcomes)
	for _, outcome := range []string{"extracted", "encrypted", "resumed", "none", "lost"} {
		if outcomes[outcome] == 0 {
			t.Errorf("there is no handshake whose certificates are %s", outcome)
		}
	}
	for _, p := range estest.Products {
		t.Run(p.String(), func(t *testing.T) {
			s := ready(t, p)
			cfg := s.config(t)
			d := newTest(t, cfg, slogDiscard)
			for i := 0; i < len(records); i += 500 {
				batch := records[i:min(i+500, len(records))]
				for j, v := range one(t, d, batch...) {
					// A certificate that two captures show on one day is one event.
					if v.Fate != delivery.Delivered && v.Fate != delivery.Duplicate {
						t.Fatalf("%+v: %s", v, batch[j].JSON)
					}
				}
			}
			stream := "*-oddcert.*-" + cfg.Namespace
			s.Do(t, http.MethodPost, "/"+stream+"/_refresh", "", nil)
			if p == estest.Elasticsearch7 {
				return // without templates, fields have the types of their first values
			}
			// What a mapping cannot take of a record is ignored there, and named.
			var answer struct {
				Hits struct {
					Hits []struct {
						Ignored []string `json:"_ignored"`
						Source  object   `json:"_source"`
					} `json:"hits"`
				} `json:"hits"`
			}
			s.Do(t, http.MethodPost, "/"+stream+"/_search", `{"size":1000,"query":{"exists":{"field":"_ignored"}}}`, &answer)
			for _, h := range answer.Hits.Hits {
				for _, field := range h.Ignored {
					if !longer(h.Source, strings.Split(field, "."), maxKeyword) {
						t.Errorf("%s was ignored: %s", field, encode(h.Source))
					}
				}
			}
			t.Logf("%d records have a value that is too long for an index", len(answer.Hits.Hits))
		})
	}
}

// longer reports whether a text at a path has more than n characters.
func longer(v any, path []string, n int) bool {
	switch v := v.(type) {
	case []any:
		for _, inner := range v {
			if longer(inner, path, n) {
				return true
			}
		}
	case object:
		return len(path) > 0 && longer(v[path[0]], path[1:], n)
	case string:
		return len([]rune(v)) > n
	}
	return false
}
