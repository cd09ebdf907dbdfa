package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// integrationPackage makes the integration package, and returns its files.
func integrationPackage(t *testing.T) fs.FS {
	t.Helper()
	out := filepath.Join(t.TempDir(), "oddcert-1.2.3.zip")
	cmd := exec.Command("go", "run", "./packaging/elastic/integration", "-program", drilled(t), "-o", out)
	cmd.Dir = ".."
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the integration package: %v: %s", err, text)
	}
	z, err := zip.OpenReader(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	files, err := fs.Sub(z, "oddcert-1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// readYAML decodes a file of a package.
func readYAML(t *testing.T, files fs.FS, name string, v any) {
	t.Helper()
	text, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, v); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sendReplay sets the server up, replays the captures of testdata as a sensor of that
// name into a namespace, and returns the records.
func sendReplay(t *testing.T, server *estest.Server, namespace, sensor string, captures ...string) [][]byte {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run([]string{"es", "setup", "--portable", "--es", server.URL}, &out, &errs); status != exitOK {
		t.Fatal(errs.String())
	}
	records := filepath.Join(t.TempDir(), "records.json")
	args := []string{"replay", "--es", server.URL, "--es-namespace", namespace, "--spool", t.TempDir(), "--name", sensor, "--json", records}
	if status := run(append(args, captures...), &out, &errs); status != exitOK {
		t.Fatal(errs.String())
	}
	text, err := os.ReadFile(records)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSpace(text), []byte("\n"))
}

// putPackageTemplate puts an index template as Kibana makes it of a data stream of the
// package, for the data streams that pattern matches.
func putPackageTemplate(t *testing.T, server *estest.Server, files fs.FS, dataset, pattern string) {
	t.Helper()
	var fields []map[string]any
	readYAML(t, files, "data_stream/"+dataset+"/fields/fields.yml", &fields)
	var manifest struct {
		Elasticsearch struct {
			Template map[string]map[string]any `yaml:"index_template"`
		}
	}
	readYAML(t, files, "data_stream/"+dataset+"/manifest.yml", &manifest)
	template := manifest.Elasticsearch.Template
	properties := map[string]any{}
	var dynamic []any
	for _, f := range fields {
		name := f["name"].(string)
		if kind := f["object_type"]; kind != nil {
			matches := "string"
			if kind == "long" {
				matches = "long"
			}
			dynamic = append(dynamic, map[string]any{name: map[string]any{
				"path_match": name, "match_mapping_type": matches, "mapping": map[string]any{"type": kind},
			}})
			continue
		}
		at := properties
		for first, rest, below := strings.Cut(name, "."); below; first, rest, below = strings.Cut(rest, ".") {
			o, _ := at[first].(map[string]any)
			if o == nil {
				o = map[string]any{}
				at[first] = o
			}
			if o["properties"] == nil {
				o["properties"] = map[string]any{}
			}
			at, name = o["properties"].(map[string]any), rest
		}
		if f["type"] == "constant_keyword" && f["value"] == nil {
			f["type"] = "keyword" // OpenSearch takes no constant that is not known yet
		}
		delete(f, "name")
		delete(f, "description")
		if o, ok := at[name].(map[string]any); ok { // below it were others already
			maps.Copy(o, f)
		} else {
			at[name] = f
		}
	}
	general, _ := template["mappings"]["dynamic_templates"].([]any)
	template["mappings"]["dynamic_templates"] = append(dynamic, general...)
	template["mappings"]["properties"] = properties
	server.Do(t, http.MethodPut, "/_index_template/package-"+strings.TrimSuffix(pattern, "*"), encoded(t, map[string]any{
		"index_patterns": []string{pattern}, "priority": 1000, "data_stream": map[string]any{}, "template": template,
	}), nil)
}

// bulk sends documents of op_type create, and returns the status and the id of each.
func bulk(t *testing.T, server *estest.Server, index, pipeline string, documents ...any) (statuses []int, ids []string) {
	t.Helper()
	var body strings.Builder
	for _, d := range documents {
		fmt.Fprintf(&body, "{\"create\":{}}\n%s\n", encoded(t, d))
	}
	var answer struct {
		Items []struct {
			Create struct {
				ID     string `json:"_id"`
				Status int    `json:"status"`
				Error  any    `json:"error"`
			} `json:"create"`
		} `json:"items"`
	}
	server.Do(t, http.MethodPost, "/"+index+"/_bulk?pipeline="+pipeline, body.String(), &answer)
	for _, item := range answer.Items {
		if item.Create.Status >= 300 && item.Create.Status != http.StatusConflict {
			t.Errorf("%s: status %d: %v", index, item.Create.Status, item.Create.Error)
		}
		statuses, ids = append(statuses, item.Create.Status), append(ids, item.Create.ID)
	}
	return statuses, ids
}

// TestPackagePipeline reads a file as Elastic Agent does, and sends its lines through
// the ingest pipelines of the integration package into data streams with its mappings:
// the documents are those that oddcert sent itself, under the same ids. OpenSearch has the processors, the server of
// Elasticsearch that tests can have has not.
func TestPackagePipeline(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a server")
	}
	server := estest.SharedOf(t, estest.OpenSearch3)
	files := integrationPackage(t)
	sent, read := estest.Namespace(t)+"_sent", estest.Namespace(t)+"_read"
	records := sendReplay(t, server, sent, "sensor-1", "testdata/captures/odd-certificate", "testdata/captures/tls12-client-certificate")

	seen := map[string]int{}
	for _, line := range records {
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		event := record["event"].(map[string]any)
		id, dataset := event["id"].(string), event["dataset"].(string)
		stream := "logs-" + dataset
		if dataset == "oddcert.stats" {
			stream = "metrics-" + dataset
		}
		pipeline := "package-" + dataset
		if seen[dataset]++; seen[dataset] == 1 {
			var body any
			readYAML(t, files, "data_stream/"+strings.TrimPrefix(dataset, "oddcert.")+"/elasticsearch/ingest_pipeline/default.yml", &body)
			server.Do(t, http.MethodPut, "/_ingest/pipeline/"+pipeline, encoded(t, body), nil)
			putPackageTemplate(t, server, files, strings.TrimPrefix(dataset, "oddcert."), stream+"-"+read+"*")
		}
		// What an agent makes of a line.
		agent := map[string]any{
			"@timestamp":    "2026-11-29T12:00:00.000Z",
			"message":       string(line),
			"agent":         map[string]any{"name": "machine", "type": "filebeat", "version": "9.2.0", "id": "4f2c", "ephemeral_id": "77aa"},
			"host":          map[string]any{"name": "machine", "ip": []string{"198.51.100.7"}},
			"ecs":           map[string]any{"version": "8.0.0"},
			"input":         map[string]any{"type": "filestream"},
			"log":           map[string]any{"file": map[string]any{"path": "/var/log/oddcert/records.json"}, "offset": 4711},
			"elastic_agent": map[string]any{"id": "4f2c", "snapshot": false, "version": "9.2.0"},
			"event":         map[string]any{"dataset": dataset},
		}
		// Twice, as after a crash of the agent.
		statuses, ids := bulk(t, server, stream+"-"+read, pipeline, agent, agent)
		if !slices.Equal(statuses, []int{http.StatusCreated, http.StatusConflict}) || ids[0] != id {
			t.Errorf("%s: statuses %v, ids %v, want 201 and 409, and %s", dataset, statuses, ids, id)
		}
	}
	if len(seen) != 6 {
		t.Fatalf("records of %v", seen)
	}
	// Records that oddcert sends go through the same pipeline when the package is installed.
	statuses, ids := bulk(t, server, "logs-oddcert.alert-"+read+"_direct", "package-oddcert.alert", json.RawMessage(records[0]))
	if statuses[0] != http.StatusCreated || !bytes.Contains(records[0], []byte(`"id":"`+ids[0]+`"`)) {
		t.Errorf("a record that oddcert sends: status %d, id %s", statuses[0], ids[0])
	}

	for dataset := range seen {
		stream := "logs-" + dataset
		if dataset == "oddcert.stats" {
			stream = "metrics-" + dataset
		}
		want, got := server.Search(t, stream+"-"+sent), server.Search(t, stream+"-"+read)
		if len(want) != len(got) || len(want) == 0 {
			t.Errorf("%s: %d documents that oddcert sent, %d that an agent read", dataset, len(want), len(got))
		}
		for id, w := range want {
			if diff := cmp.Diff(bare(t, w), bare(t, got[id])); diff != "" {
				t.Errorf("%s %s: what oddcert sends and what an agent reads differ:\n%s", dataset, id, diff)
			}
		}
	}

	// A line that is no record is kept, and says what is wrong.
	bulk(t, server, "logs-oddcert.hello-"+read+"_broken", "package-oddcert.hello", map[string]any{
		"@timestamp": "2026-11-29T12:00:00.000Z", "message": `{"@timestamp":cut`, "event": map[string]any{"dataset": "oddcert.hello"},
	})
	var found struct {
		Hits struct {
			Hits []struct {
				Source struct {
					Message string
					Error   struct{ Message any }
				} `json:"_source"`
			}
		}
	}
	server.Do(t, http.MethodPost, "/logs-oddcert.hello-"+read+"_broken/_refresh", "", nil)
	server.Do(t, http.MethodGet, "/logs-oddcert.hello-"+read+"_broken/_search", "", &found)
	if len(found.Hits.Hits) != 1 {
		t.Fatalf("%d documents of a line that is no record", len(found.Hits.Hits))
	}
	broken := found.Hits.Hits[0].Source
	if broken.Message != `{"@timestamp":cut` || broken.Error.Message == nil {
		t.Errorf("a line that is no record became %+v", broken)
	}
}

// bare is a document without what those who send it add.
func bare(t *testing.T, source json.RawMessage) map[string]any {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal(source, &document); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent", "data_stream", "elastic_agent"} {
		delete(document, name)
	}
	delete(document["event"].(map[string]any), "ingested")
	return document
}

// TestPackageTransforms asks a real Elasticsearch what the transforms of the integration
// package ask, over the records of two sensors, and counts the records for the same.
// The server that tests can have does not run transforms itself.
func TestPackageTransforms(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a server")
	}
	server, namespace := estest.Shared(t), estest.Namespace(t)
	files := integrationPackage(t)
	// Each sensor has a namespace: ids of replays are those of the captures, whoever reads
	// them. The second sees certificates of the first, later.
	records := [][][]byte{
		sendReplay(t, server, namespace+"_1", "sensor-1", "testdata/captures"),
		sendReplay(t, server, namespace+"_2", "sensor-2", "testdata/captures/odd-certificate", "testdata/captures/tls12-resumed"),
	}
	server.Do(t, http.MethodPost, "/logs-oddcert.*-"+namespace+"_*/_refresh", "", nil)

	type transform struct {
		Source struct {
			Index []string
			Query any
		}
		Latest struct {
			UniqueKey []string `yaml:"unique_key"`
			Sort      string
		}
		Pivot struct {
			GroupBy      map[string]any `yaml:"group_by"`
			Aggregations map[string]any
		}
	}
	// A transform pages through buckets, as this does in one page.
	search := func(tr *transform, groups, aggregations map[string]any, answer any) {
		var sources []any
		for name, group := range groups {
			sources = append(sources, map[string]any{name: group})
		}
		server.Do(t, http.MethodPost, "/"+strings.TrimSuffix(tr.Source.Index[0], "*")+namespace+"_*/_search", encoded(t, map[string]any{
			"size": 0, "query": tr.Source.Query,
			"aggs": map[string]any{"pages": map[string]any{
				"composite": map[string]any{"size": 10_000, "sources": sources}, "aggs": aggregations,
			}},
		}), answer)
	}

	// The truth, from the records.
	type counts struct{ Servers, Names, Sensors int }
	distinct := map[string][3]map[string]bool{}
	newest := map[string]string{} // times have the same length, so they sort as texts
	stored := map[string]bool{}
	for i, line := range slices.Concat(records...) {
		var r struct {
			Timestamp string `json:"@timestamp"`
			Event     struct{ Dataset, ID string }
			Observer  struct{ Name string }
			// The server and the name asked for.
			Destination struct{ IP, Domain string }
			Oddcert     struct {
				Certificate struct{ Hash struct{ SHA256 string } }
			}
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint(i >= len(records[0]), r.Event.ID)
		if stored[id] { // the same event in another capture of that name: the first one stays
			continue
		}
		stored[id] = true
		sum := strings.ToLower(r.Oddcert.Certificate.Hash.SHA256)
		switch {
		case sum == "":
		case r.Event.Dataset == "oddcert.certificate":
			newest[sum] = max(newest[sum], r.Timestamp)
		case r.Event.Dataset == "oddcert.sighting":
			sets, ok := distinct[sum]
			if !ok {
				sets = [3]map[string]bool{{}, {}, {}}
				distinct[sum] = sets
			}
			for i, value := range []string{r.Destination.IP, r.Destination.Domain, r.Observer.Name} {
				if value != "" {
					sets[i][value] = true
				}
			}
		}
	}
	want := map[string]counts{}
	for sum, sets := range distinct {
		want[sum] = counts{len(sets[0]), len(sets[1]), len(sets[2])}
	}

	var servers transform
	readYAML(t, files, "elasticsearch/transform/servers/transform.yml", &servers)
	const hash, inventory = "oddcert.certificate.hash.sha256", "oddcert.inventory."
	var pivoted struct {
		Aggregations struct {
			Pages struct {
				Buckets []map[string]json.RawMessage
			}
		}
	}
	search(&servers, servers.Pivot.GroupBy, servers.Pivot.Aggregations, &pivoted)
	got := map[string]counts{}
	for _, b := range pivoted.Aggregations.Pages.Buckets {
		var key map[string]string
		if err := json.Unmarshal(b["key"], &key); err != nil {
			t.Fatal(err)
		}
		number := func(name string) int {
			var v struct{ Value int }
			if err := json.Unmarshal(b[inventory+name], &v); err != nil {
				t.Fatal(err)
			}
			return v.Value
		}
		got[key[hash]] = counts{number("servers"), number("names"), number("sensors")}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 5 {
		t.Errorf("servers of %d certificates, counted from the records and by the transform:\n%s", len(want), diff)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(got)), func(c counts) bool { return c.Sensors == 2 }) {
		t.Error("no certificate was seen by both sensors")
	}

	var certificates transform
	readYAML(t, files, "elasticsearch/transform/certificate/transform.yml", &certificates)
	groups := map[string]any{}
	for _, name := range certificates.Latest.UniqueKey {
		groups[name] = map[string]any{"terms": map[string]any{"field": name}}
	}
	var latest struct {
		Aggregations struct {
			Pages struct {
				Buckets []struct {
					Key    map[string]string
					Latest struct {
						Hits struct {
							Hits []struct {
								Source struct {
									Timestamp string `json:"@timestamp"`
								} `json:"_source"`
							}
						}
					}
				}
			}
		}
	}
	search(&certificates, groups, map[string]any{"latest": map[string]any{"top_hits": map[string]any{
		"size": 1, "sort": []any{map[string]any{certificates.Latest.Sort: "desc"}},
	}}}, &latest)
	last := map[string]string{}
	for _, b := range latest.Aggregations.Pages.Buckets {
		last[b.Key[hash]] = b.Latest.Hits.Hits[0].Source.Timestamp
	}
	if diff := cmp.Diff(newest, last); diff != "" || len(newest) < 5 {
		t.Errorf("the last records of %d certificates, from the records and by the transform:\n%s", len(newest), diff)
	}
}
