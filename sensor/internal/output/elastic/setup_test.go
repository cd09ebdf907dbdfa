package elastic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// flatten lists the fields of a mapping by their dotted names, with their
// types. An object without a type has none.
func flatten(into map[string]string, prefix string, mapping object) {
	fields, _ := mapping["properties"].(object)
	for name, v := range fields {
		field := v.(object)
		if kind, ok := field["type"].(string); ok {
			into[prefix+name] = kind
		}
		flatten(into, prefix+name+".", field)
	}
}

// at goes down into nested objects that are known to be there.
func at(o object, path ...string) object {
	for _, key := range path {
		o = o[key].(object)
	}
	return o
}

// mapped returns the mappings in the templates of each dataset.
func mapped(t *testing.T, o SetupOptions) (of [schema.Datasets]object) {
	t.Helper()
	assets, err := Assets(o)
	if err != nil {
		t.Fatal(err)
	}
	for d := range schema.Datasets {
		i := slices.IndexFunc(assets, func(a Asset) bool { return a.Name() == "oddcert."+d.String()+"@mappings" })
		if i < 0 {
			t.Fatalf("no mappings for %s", d)
		}
		var body object
		if err := json.Unmarshal(assets[i].Body, &body); err != nil {
			t.Fatal(err)
		}
		of[d] = at(body, "template", "mappings")
	}
	return of
}

// TestMappings holds the templates against the schema.
func TestMappings(t *testing.T) {
	for _, portable := range []bool{false, true} {
		for d, mapping := range mapped(t, SetupOptions{Portable: portable}) {
			d := schema.Dataset(d)
			got := map[string]string{}
			flatten(got, "", mapping)
			for _, f := range schema.Of(d) {
				want := string(f.Type)
				switch {
				case strings.HasSuffix(f.Name, ".*"):
					if !strings.Contains(string(encode(mapping["dynamic_templates"])), `"path_match": "`+f.Name+`"`) {
						t.Errorf("%s: %s has no dynamic template", d, f.Name)
					}
					continue
				case f.Template.Has(d) && f.AliasOf != "":
					want = "alias"
				case portable:
					want = string(f.Type.Portable())
				}
				if got[f.Name] != want {
					t.Errorf("%s: %s is mapped as %q, not %q", d, f.Name, got[f.Name], want)
				}
				delete(got, f.Name)
			}
			for name, kind := range got {
				t.Errorf("%s: %s is mapped as %s, but is not in the schema", d, name, kind)
			}
		}
	}
}

// TestPortable holds the portable variant to types that all servers have, and
// the other one to real constants.
func TestPortable(t *testing.T) {
	allowed := []string{"keyword", "text", "date", "date_nanos", "ip", "long", "float", "boolean", "nested", "alias"}
	for d, mapping := range mapped(t, SetupOptions{Portable: true}) {
		fields := map[string]string{}
		flatten(fields, "", mapping)
		for name, kind := range fields {
			if !slices.Contains(allowed, kind) {
				t.Errorf("%s: %s is a %s", schema.Dataset(d), name, kind)
			}
		}
	}
	full := mapped(t, SetupOptions{})
	for path, want := range map[string]object{
		"event.kind":          {"type": "constant_keyword", "value": "alert"},
		"event.dataset":       {"type": "constant_keyword", "value": "oddcert.alert"},
		"data_stream.type":    {"type": "constant_keyword", "value": "logs"},
		"message":             {"type": "match_only_text"},
		"client.ip":           {"type": "ip"}, // the record has it
		"agent.name":          {"type": "alias", "path": "observer.name"},
		"source.ip":           {"type": "ip"}, // and does not need to be copied
		"rule.name":           {"type": "keyword", "ignore_above": 1024.0},
		"oddcert.ja4":         {"type": "keyword", "ignore_above": 1024.0},
		"tls.client.ja3":      {"type": "keyword", "ignore_above": 1024.0, "normalizer": "lowercase"},
		"threat.indicator.ip": {"type": "ip"},

		"tls.server.certificate_chain": {"type": "keyword", "index": false, "doc_values": false},
	} {
		if got := at(full[schema.Alert], strings.Split("properties."+strings.ReplaceAll(path, ".", ".properties."), ".")...); !reflect.DeepEqual(got, want) {
			t.Errorf("alert: %s is %v, not %v", path, got, want)
		}
	}
	for path, want := range map[string]object{
		"client.ip":              {"type": "alias", "path": "source.ip"},
		"server.domain":          {"type": "alias", "path": "destination.domain"},
		"source.ip":              {"type": "ip", "copy_to": "related.ip"},
		"tls.server.hash.sha256": {"type": "keyword", "ignore_above": 1024.0, "normalizer": "lowercase", "copy_to": "related.hash"},
	} {
		if got := at(full[schema.Handshake], strings.Split("properties."+strings.ReplaceAll(path, ".", ".properties."), ".")...); !reflect.DeepEqual(got, want) {
			t.Errorf("handshake: %s is %v, not %v", path, got, want)
		}
	}
}

// TestNumbers holds the two enumerations of the datasets together.
func TestNumbers(t *testing.T) {
	for d := range min(output.Datasets, output.Dataset(schema.Datasets)) {
		if d.String() != schema.Dataset(d).String() {
			t.Errorf("%s is %s in the schema", d, schema.Dataset(d))
		}
	}
}

func TestLifecycles(t *testing.T) {
	for lifecycle, want := range map[Lifecycle]struct{ has, hasNot string }{
		LifecycleAuto: {`"data_retention": "90d"`, "_ilm"},
		LifecycleDSL:  {`"data_retention": "90d"`, "_ilm"},
		LifecycleILM:  {`"min_age": "90d"`, "data_retention"},
		LifecycleNone: {"PUT _index_template/logs-oddcert.alert", "90d"},
	} {
		var b strings.Builder
		if err := Export(&b, SetupOptions{Lifecycle: lifecycle, Retention: "90d"}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want.has) || strings.Contains(b.String(), want.hasNot) {
			t.Errorf("%q: export has %q: %v, has %q: %v", lifecycle, want.has, strings.Contains(b.String(), want.has), want.hasNot, strings.Contains(b.String(), want.hasNot))
		}
	}
	if _, err := Assets(SetupOptions{Lifecycle: "weekly"}); err == nil {
		t.Error("an unknown lifecycle was taken")
	}
}

func TestExportDir(t *testing.T) {
	dir := t.TempDir()
	written, err := ExportDir(dir, SetupOptions{Lifecycle: LifecycleILM})
	if err != nil {
		t.Fatal(err)
	}
	assets, err := Assets(SetupOptions{Lifecycle: LifecycleILM})
	if want := 4 + 2*int(schema.Datasets); err != nil || len(assets) != want || len(written) != want {
		t.Fatalf("%d assets and %d files, not %d, %v", len(assets), len(written), want, err)
	}
	for _, a := range assets {
		b, err := os.ReadFile(filepath.Join(dir, a.Path+".json"))
		if err != nil || !bytes.Equal(b, a.Body) || !json.Valid(b) {
			t.Errorf("%s: %v", a.Path, err)
		}
	}
}

// TestSetup puts the assets into a real server, repeatedly, and finds changes.
func TestSetup(t *testing.T) {
	s := estest.Shared(t)
	ctx := context.Background()
	c, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	o := SetupOptions{Portable: true}
	setup := func(want ...string) {
		t.Helper()
		done, err := Setup(ctx, c, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !slices.ContainsFunc(done, func(line string) bool { return strings.HasPrefix(line, w) }) {
				t.Errorf("setup said %q, not %q", done, w)
			}
		}
	}
	check := func(want ...string) {
		t.Helper()
		differences, err := Check(ctx, c, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(differences) != len(want) {
			t.Fatalf("differences %q, want %q", differences, want)
		}
		for i, d := range differences {
			if !strings.Contains(d, want[i]) {
				t.Errorf("difference %q, want %q", d, want[i])
			}
		}
	}
	setup("_ingest/pipeline/oddcert@final: left out") // this server has no processors
	setup("_component_template/oddcert@settings: unchanged", "_component_template/oddcert@custom: left as it is",
		"_component_template/oddcert.alert@mappings: unchanged", "_index_template/metrics-oddcert.stats: unchanged")
	check()

	const own = `{"template":{"settings":{"index":{"number_of_replicas":0}}}}`
	s.Do(t, http.MethodPut, "/_component_template/oddcert@custom", own, nil)
	s.Do(t, http.MethodPut, "/_component_template/oddcert@settings", `{"template":{"settings":{"index":{"codec":"default"}}}}`, nil)
	differences, err := Check(ctx, c, o)
	if err != nil || !strings.Contains(strings.Join(differences, "\n"), `codec is "default", not "best_compression"`) {
		t.Errorf("differences %q, %v", differences, err)
	}
	setup("_component_template/oddcert@settings: updated", "_component_template/oddcert@custom: left as it is")
	check()
	var custom object
	s.Do(t, http.MethodGet, "/_component_template/oddcert@custom", "", &custom)
	if b, _ := json.Marshal(custom); !strings.Contains(string(b), `"number_of_replicas":"0"`) {
		t.Errorf("oddcert@custom was changed: %s", b)
	}
	s.Do(t, http.MethodPut, "/_index_template/logs-oddcert.alert", `{"index_patterns":["logs-oddcert.a*"],"priority":340,"data_stream":{}}`, nil)
	check("_meta is missing", "composed_of is []", "index_patterns is", "priority is 340, not 300")
	setup("_index_template/logs-oddcert.alert: updated")
	check()

	// What version 1 put is named, and does not get in the way.
	const version1 = `{"_meta":{"managed_by":"oddcert"},"index_patterns":["logs-oddcert.alert-*","logs-oddcert.stats-*"],"priority":250,"composed_of":["oddcert@mappings"],"data_stream":{}}`
	s.Do(t, http.MethodPut, "/_component_template/oddcert@mappings", `{"_meta":{"managed_by":"oddcert"},"template":{}}`, nil)
	s.Do(t, http.MethodPut, "/_index_template/logs-oddcert", version1, nil)
	setup("_index_template/logs-oddcert: left by version 1", "_component_template/oddcert@mappings: left by version 1")
	check("_index_template/logs-oddcert: left by version 1", "_component_template/oddcert@mappings: left by version 1")
	s.Do(t, http.MethodDelete, "/_index_template/logs-oddcert", "", nil)
	s.Do(t, http.MethodDelete, "/_component_template/oddcert@mappings", "", nil)
	check()

	// A server without the modules names the field type that it lacks.
	if _, err := Setup(ctx, c, SetupOptions{}); err == nil || !strings.Contains(err.Error(), "@mappings") || !strings.Contains(err.Error(), "[constant_keyword]") || !strings.Contains(err.Error(), "--portable") {
		t.Errorf("full variant: %v", err)
	}
	if _, err := Setup(ctx, c, SetupOptions{Portable: true, Lifecycle: LifecycleILM}); err == nil || !strings.Contains(err.Error(), "index lifecycle management") {
		t.Errorf("the server has no ILM, but setup said: %v", err)
	}
}

// TestCheckFindsNothing checks a server that was never set up.
func TestCheckFindsNothing(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	assets, err := Assets(SetupOptions{Lifecycle: LifecycleNone})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, a := range assets {
		want = append(want, a.Path+": missing")
	}
	got, err := Check(context.Background(), c, SetupOptions{})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestPipeline sets up a server that has ingest processors, and one that refuses
// the pipeline because a right is missing.
func TestPipeline(t *testing.T) {
	puts := map[string]string{}
	var mu sync.Mutex
	forbid := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		path := strings.TrimPrefix(r.URL.Path, "/")
		switch {
		case r.Method == http.MethodPut && forbid && strings.HasPrefix(path, pipelines):
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"error":{"type":"security_exception","reason":"action is unauthorized"},"status":403}`)
		case r.Method == http.MethodPut:
			b, _ := io.ReadAll(r.Body)
			puts[path] = string(b)
			io.WriteString(w, `{"acknowledged":true}`)
		case puts[path] == "":
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{}`)
		case strings.HasPrefix(path, pipelines):
			fmt.Fprintf(w, `{"oddcert@final":%s}`, puts[path])
		case strings.HasPrefix(path, componentTemplates):
			fmt.Fprintf(w, `{"component_templates":[{"name":"x","component_template":%s}]}`, puts[path])
		default:
			fmt.Fprintf(w, `{"index_templates":[{"name":"x","index_template":%s}]}`, puts[path])
		}
	}))
	defer s.Close()
	c, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	done, err := Setup(ctx, c, SetupOptions{})
	if err != nil || len(done) != 3+2*int(schema.Datasets) || done[0] != "_ingest/pipeline/oddcert@final: created" {
		t.Errorf("setup said %q, %v", done, err)
	}
	if !strings.Contains(puts[settingsPath], `"final_pipeline": "oddcert@final"`) {
		t.Errorf("settings without the pipeline: %s", puts[settingsPath])
	}
	if differences, err := Check(ctx, c, SetupOptions{}); err != nil || len(differences) > 0 {
		t.Errorf("differences %q, %v", differences, err)
	}
	done, err = Setup(ctx, c, SetupOptions{})
	if err != nil || done[0] != "_ingest/pipeline/oddcert@final: unchanged" {
		t.Errorf("setup said %q, %v", done, err)
	}
	delete(puts, pipelinePath)
	if differences, err := Check(ctx, c, SetupOptions{}); err != nil || !slices.Equal(differences, []string{"_ingest/pipeline/oddcert@final: missing"}) {
		t.Errorf("differences %q, %v", differences, err)
	}
	forbid = true
	if _, err := Setup(ctx, c, SetupOptions{}); err == nil || !strings.Contains(err.Error(), "manage_ingest_pipelines") {
		t.Errorf("setup without the right: %v", err)
	}
}

// TestMapped sends a document with every field of each dataset, and reads the
// mapping of the stream back.
func TestMapped(t *testing.T) {
	testMapped(t, ready(t, estest.Shared(t)))
}

func testMapped(t *testing.T, s realServer) {
	cfg := s.config(t)
	dir := t.TempDir()
	o := startTest(t, cfg, dir)
	for d := range output.Datasets {
		r := record(d, 1)
		var err error
		if r.JSON, err = json.Marshal(filled(schema.Dataset(d), r.ID)); err != nil {
			t.Fatal(err)
		}
		write(t, o, r)
	}
	if st := closeTest(t, o); st.Delivered.Total() != uint64(output.Datasets) {
		t.Fatalf("dead letters: %+v", deadLettersIn(t, dir))
	}
	for d := range output.Datasets {
		d := schema.Dataset(d)
		stream := d.DataStream(cfg.Namespace)
		var answer map[string]struct {
			Mappings object `json:"mappings"`
		}
		s.Do(t, http.MethodGet, "/"+stream+"/_mapping", "", &answer)
		if len(answer) != 1 {
			t.Fatalf("mappings of %v", slices.Collect(maps.Keys(answer)))
		}
		for index, m := range answer {
			if !strings.HasPrefix(index, ".ds-"+stream+"-") {
				t.Errorf("%s is not a backing index of a data stream", index)
			}
			got := map[string]string{}
			flatten(got, "", m.Mappings)
			for _, f := range schema.Of(d) {
				name, want := f.Name, f.Type.Portable()
				if base, ok := strings.CutSuffix(name, "*"); ok {
					name = base + "flow.evicted"
				}
				if f.AliasOf != "" && f.Template.Has(d) {
					want = "alias"
				}
				if schema.Type(got[name]) != want {
					t.Errorf("%s: %s is a %q, not a %s", d, name, got[name], want)
				}
			}
		}
		count := func(query string, want float64) {
			t.Helper()
			var answer struct{ Count float64 }
			s.Do(t, http.MethodPost, "/"+stream+"/_count", `{"query":`+query+`}`, &answer)
			if answer.Count != want {
				t.Errorf("%s: %s: %v documents, want %v", d, query, answer.Count, want)
			}
		}
		s.search(t, stream)
		count(`{"range":{"@timestamp":{"gte":"2022-02-21T16:39:40.123456789Z","lte":"2022-02-21T16:39:40.123456789Z"}}}`, 1)
		count(`{"range":{"@timestamp":{"gt":"2022-02-21T16:39:40.123456789Z"}}}`, 0)
		count(`{"term":{"agent.name":"ABCD"}}`, 1)
		if d == schema.Stats {
			continue
		}
		count(`{"term":{"client.ip":"2001:db8::/32"}}`, 1)
		count(`{"term":{"server.domain":"ABCD"}}`, 1)
		count(`{"term":{"related.ip":"2001:db8::1"}}`, 1)
		count(`{"term":{"related.hosts":"ABCD"}}`, 1)
		switch d {
		case schema.Handshake, schema.Certificate, schema.Alert:
			count(`{"term":{"related.hash":"abcd"}}`, 1) // lower case finds upper case
			count(`{"term":{"tls.server.hash.sha256":"AbCd"}}`, 1)
			count(`{"exists":{"field":"tls.server.certificate_chain"}}`, 0) // kept, but not indexed
		}
		if d == schema.Alert {
			count(`{"match":{"message":"words"}}`, 1)
			count(`{"nested":{"path":"oddcert.chain","query":{"term":{"oddcert.chain.hash.sha256":"abcd"}}}}`, 1)
			count(`{"term":{"oddcert.chain.hash.sha256":"abcd"}}`, 1)
			count(`{"nested":{"path":"threat.enrichments","query":{"exists":{"field":"threat.enrichments.matched"}}}}`, 1)
			count(`{"exists":{"field":"tls.client.server_name"}}`, 0) // too long for the index, kept in the document
		}
	}
}

// filled is a document with every field that records of d have.
func filled(d schema.Dataset, id string) object {
	values := map[schema.Type]any{
		schema.Keyword: "ABCD", schema.Text: "two words", schema.MatchOnlyText: "two words",
		schema.Date: "2022-02-21T16:39:40.123456789Z", schema.DateNanos: "2022-02-21T16:39:40.123456789Z",
		schema.IP: "2001:db8::1", schema.Long: 9007199254740991, schema.Float: 47.5, schema.Boolean: true,
	}
	document := object{}
	set := func(name string, v any) {
		o := document
		parts := strings.Split(name, ".")
		for _, p := range parts[:len(parts)-1] {
			if o[p] == nil {
				o[p] = object{}
			}
			o = o[p].(object)
		}
		if o[parts[len(parts)-1]] == nil {
			o[parts[len(parts)-1]] = v
		}
	}
	for _, f := range schema.Fields() {
		base, group := strings.CutSuffix(f.Name, "*")
		switch {
		case !f.In.Has(d):
		case group:
			set(base+"flow.evicted", values[f.Type])
		case f.Type == schema.Nested:
			set(f.Name, object{})
		case f.Type == schema.ConstantKeyword:
			set(f.Name, cmp.Or(f.Constant[d], "default"))
		default:
			set(f.Name, values[f.Type])
		}
	}
	at(document, "event")["id"] = id
	if d != schema.Alert {
		return document
	}
	// A value that a peer made up must not cost the record.
	client := at(document, "tls", "client")
	client["server_name"] = strings.Repeat("x", 60_000)
	at(client, "x509")["not_before"] = "not a date"
	at(client, "x509")["not_after"] = "99999-13-99"
	at(client, "x509")["public_key_exponent"] = json.Number("18446744073709551615")
	at(document, "threat", "indicator")["ip"] = "not an address"
	return document
}
