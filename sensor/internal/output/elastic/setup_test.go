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
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
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

// TestSetup puts the assets into real servers, repeatedly, and finds changes.
func TestSetup(t *testing.T) {
	for _, p := range estest.Products {
		t.Run(p.String(), func(t *testing.T) {
			if testing.Short() && p != estest.Elasticsearch8 {
				t.Skip("starts a server of its own")
			}
			s := estest.SharedOf(t, p)
			if p == estest.Elasticsearch7 {
				testNoDataStreams(t, s)
				return
			}
			testSetup(t, s)
		})
	}
}

// testNoDataStreams has a server that takes no template for data streams, as this
// distribution lacks their module: it is left as it was.
func testNoDataStreams(t *testing.T, s *estest.Server) {
	c := connect(t, s)
	done, err := Setup(t.Context(), c, SetupOptions{})
	if err == nil || len(done) != 0 || !strings.Contains(err.Error(), "no template for a data stream") || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("setup said %q, %v", done, err)
	}
	checkNothing(t, c)
}

// checkNothing holds that a server has none of our assets.
func checkNothing(t *testing.T, c *Client) {
	t.Helper()
	assets, err := Assets(SetupOptions{Lifecycle: LifecycleNone})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range assets {
		if have, err := stored(t.Context(), c, &a); err != nil || have != nil {
			t.Errorf("%s: %v, %v", a.Path, have, err)
		}
	}
}

func testSetup(t *testing.T, s *estest.Server) {
	ctx := t.Context()
	c := connect(t, s)
	o := SetupOptions{}
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
	// What is chosen is what the server can: these distributions lack field types,
	// OpenSearch lacks lifecycles that oddcert knows.
	chosen := []string{"field types: portable", "lifecycle: dsl"}
	if s.Product.OpenSearch() {
		chosen[1] = "lifecycle: none"
	}
	if s.Product != estest.OpenSearch3 {
		chosen = append(chosen, "_ingest/pipeline/oddcert@final: left out")
	}
	setup(chosen...)
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
	check("_meta is missing", "composed_of is ", "index_patterns is", "priority is 340, not 300")
	setup("_index_template/logs-oddcert.alert: updated")
	check()

	// What version 1 put is named, and does not get in the way.
	const version1 = `{"_meta":{"managed_by":"oddcert"},"index_patterns":["logs-oddcert.of1-*"],"priority":250,"composed_of":["oddcert@mappings"],"data_stream":{}}`
	s.Do(t, http.MethodPut, "/_component_template/oddcert@mappings", `{"_meta":{"managed_by":"oddcert"},"template":{}}`, nil)
	s.Do(t, http.MethodPut, "/_index_template/logs-oddcert", version1, nil)
	setup("_index_template/logs-oddcert: left by version 1", "_component_template/oddcert@mappings: left by version 1")
	check("_index_template/logs-oddcert: left by version 1", "_component_template/oddcert@mappings: left by version 1")
	s.Do(t, http.MethodDelete, "/_index_template/logs-oddcert", "", nil)
	s.Do(t, http.MethodDelete, "/_component_template/oddcert@mappings", "", nil)
	check()

	// What the server would refuse is found before anything is changed: a template of
	// somebody else for the same streams, a lifecycle that is not there.
	s.Do(t, http.MethodPut, "/_component_template/oddcert@settings", `{"template":{"settings":{"index":{"codec":"default"}}}}`, nil)
	refused := func(what, want string) {
		t.Helper()
		done, err := Setup(ctx, c, o)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing was changed") || slices.ContainsFunc(done, func(line string) bool { return strings.HasSuffix(line, "ated") }) {
			t.Errorf("%s: setup said %q, %v", what, done, err)
		}
	}
	s.Do(t, http.MethodPut, "/_index_template/logs-oddcert.hello", `{"index_patterns":["logs-oddcert.hello-*"],"priority":299,"data_stream":{}}`, nil)
	s.Do(t, http.MethodPut, "/_index_template/zz-other", `{"index_patterns":["logs-oddcert.hello-other*"],"priority":300,"data_stream":{}}`, nil)
	refused("a template of somebody else", "zz-other")
	s.Do(t, http.MethodDelete, "/_index_template/zz-other", "", nil)
	o.Lifecycle = LifecycleILM
	refused("no ILM", "leave --lifecycle out")
	o.Lifecycle = LifecycleAuto
	setup("_component_template/oddcert@settings: updated")
	check()
}

// TestSetupIsUndone has a server that refuses one asset after the other: each time
// the others are as they were before.
func TestSetupIsUndone(t *testing.T) {
	s := newSetupServer(t)
	c, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	assets, err := Assets(SetupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []bool{false, true} {
		for i, a := range assets {
			s.assets = map[string]string{}
			before := map[string]string{}
			if old {
				for _, a := range assets {
					if !a.Keep {
						s.assets[a.Path] = `{"_meta":{"version":12345678901234567890},"created_date":"2026-01-01"}`
						before[a.Path] = `{"_meta":{"version":12345678901234567890}}`
					}
				}
			}
			s.refuse = a.Path
			done, err := Setup(t.Context(), c, SetupOptions{})
			if err == nil || !strings.Contains(err.Error(), "put "+a.Path) {
				t.Fatalf("%s: %v", a.Path, err)
			}
			if n := len(done); i > 0 && !strings.HasSuffix(done[n-1], ": taken back") {
				t.Errorf("%s: setup said %q", a.Path, done)
			}
			for path, body := range s.assets {
				var compact bytes.Buffer
				if err := json.Compact(&compact, []byte(body)); err != nil {
					t.Fatal(err)
				}
				want := before[path]
				if path == a.Path || slices.IndexFunc(assets, func(a Asset) bool { return a.Path == path }) > i {
					continue // never touched
				}
				if compact.String() != want {
					t.Errorf("%s refused: %s is %s, not %q", a.Path, path, compact.String(), want)
				}
			}
		}
	}
	// When the server does not take it back, that is said.
	s.assets, s.refuse, s.stuck = map[string]string{}, indexTemplates+templateOf(schema.Alert), true
	if _, err := Setup(t.Context(), c, SetupOptions{}); err == nil || !strings.Contains(err.Error(), "take "+settingsPath+" back") {
		t.Errorf("setup: %v", err)
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

// setupServer keeps assets as a server with all modules does.
type setupServer struct {
	*httptest.Server

	mu     sync.Mutex
	assets map[string]string // by path
	lacks  string            // what a simulated template must not have
	forbid string            // begin of the paths that need a right that we lack
	refuse string            // the path of an asset that is not taken
	stuck  bool              // nothing is deleted
}

func newSetupServer(t *testing.T) *setupServer {
	s := &setupServer{assets: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *setupServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	path := strings.TrimPrefix(r.URL.Path, "/")
	b, _ := io.ReadAll(r.Body)
	fail := func(status int, kind, reason string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"type":%q,"reason":%q},"status":%d}`, kind, reason, status)
	}
	switch {
	case path == "_security/user/_has_privileges":
		fail(http.StatusBadRequest, "", "no handler found for uri")
	case s.forbid != "" && strings.HasPrefix(path, s.forbid):
		fail(http.StatusForbidden, "security_exception", "action is unauthorized")
	case strings.Contains(path, "/_simulate"):
		if s.lacks != "" && strings.Contains(string(b), s.lacks) {
			fail(http.StatusBadRequest, "illegal_argument_exception", "there is no "+s.lacks)
			return
		}
		io.WriteString(w, `{}`)
	case r.Method == http.MethodPut && path == s.refuse:
		fail(http.StatusBadRequest, "illegal_argument_exception", "as scripted")
	case r.Method == http.MethodPut:
		s.assets[path] = string(b)
		io.WriteString(w, `{"acknowledged":true}`)
	case r.Method == http.MethodDelete && s.stuck:
		fail(http.StatusInternalServerError, "", "as scripted")
	case r.Method == http.MethodDelete:
		delete(s.assets, path)
		io.WriteString(w, `{"acknowledged":true}`)
	case s.assets[path] == "":
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{}`)
	case strings.HasPrefix(path, pipelines), strings.HasPrefix(path, policies):
		fmt.Fprintf(w, `{%q:%s}`, path[strings.LastIndexByte(path, '/')+1:], s.assets[path])
	case strings.HasPrefix(path, componentTemplates):
		fmt.Fprintf(w, `{"component_templates":[{"name":"x","component_template":%s}]}`, s.assets[path])
	default:
		fmt.Fprintf(w, `{"index_templates":[{"name":"x","index_template":%s}]}`, s.assets[path])
	}
}

// TestChoices sets up servers that lack one thing or another.
func TestChoices(t *testing.T) {
	for name, c := range map[string]struct {
		lacks        string
		options      SetupOptions
		said         string // before the assets
		has, hasNot  string // in the settings or the mappings of alerts
		bad          string
		differences  int // of a check afterwards
		autoDisabled bool
	}{
		"all":              {said: "lifecycle: dsl", has: `"final_pipeline"`},
		"no field types":   {lacks: "constant_keyword", said: "field types: portable", hasNot: "constant_keyword"},
		"no lifecycle":     {lacks: `"lifecycle"`, said: "lifecycle: none", hasNot: `"lifecycle"`},
		"only ILM":         {lacks: `"enabled": true`, said: "lifecycle: ilm", has: `"name": "oddcert"`},
		"no processor":     {lacks: "processors", bad: "try the ingest pipeline"},
		"no data streams":  {lacks: "data_stream", bad: "no template for a data stream"},
		"DSL, not there":   {lacks: `"enabled": true`, options: SetupOptions{Lifecycle: LifecycleDSL}, bad: "there is no"},
		"portable, wanted": {options: SetupOptions{Portable: true}, hasNot: "constant_keyword"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetupServer(t)
			s.lacks = c.lacks
			client, err := NewClient(Config{Addresses: []string{s.URL}})
			if err != nil {
				t.Fatal(err)
			}
			done, err := Setup(t.Context(), client, c.options)
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || len(s.assets) != 0 {
					t.Errorf("setup said %q, %v; %d assets", done, err, len(s.assets))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(done, "\n"), c.said) {
				t.Errorf("setup said %q", done)
			}
			text := s.assets[settingsPath] + s.assets[mappingsPath(schema.Alert)]
			if !strings.Contains(text, c.has) || c.hasNot != "" && strings.Contains(text, c.hasNot) {
				t.Errorf("assets %s", text)
			}
			if differences, err := Check(t.Context(), client, SetupOptions{}); err != nil || len(differences) > 0 {
				t.Errorf("differences %q, %v", differences, err)
			}
			again, err := Setup(t.Context(), client, c.options)
			if err != nil || strings.Contains(strings.Join(again, "\n"), "ated\n") {
				t.Errorf("setup said %q, %v", again, err)
			}
		})
	}
	s := newSetupServer(t)
	client, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	for forbidden, want := range map[string]string{pipelines: "manage_ingest_pipelines", indexTemplates: "manage_index_templates"} {
		s.forbid = forbidden
		if _, err := Setup(t.Context(), client, SetupOptions{}); err == nil || !strings.Contains(err.Error(), want) || len(s.assets) != 0 {
			t.Errorf("setup without the right: %v", err)
		}
	}
}

// TestMapped sends a document with every field of each dataset, and reads the
// mapping of the stream back.
func TestMapped(t *testing.T) {
	for _, p := range estest.Products {
		if p == estest.Elasticsearch7 {
			continue // this distribution has no data streams
		}
		t.Run(p.String(), func(t *testing.T) { testMapped(t, ready(t, p)) })
	}
}

func testMapped(t *testing.T, s realServer) {
	cfg := s.config(t)
	var records []*output.Record
	for d := range schema.Datasets {
		r := record(output.Dataset(d), 1)
		var err error
		if r.JSON, err = json.Marshal(filled(d, r.ID)); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	for i, v := range one(t, newTest(t, cfg, nil), records...) {
		if v.Fate != delivery.Delivered {
			t.Fatalf("%s: %+v", records[i].Dataset, v)
		}
	}
	for d := range schema.Datasets {
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
		count(`{"bool":{"filter":[{"term":{"data_stream.type":"`+d.Stream()+`"}},{"term":{"data_stream.dataset":"oddcert.`+d.String()+`"}},{"term":{"data_stream.namespace":"`+cfg.Namespace+`"}}]}}`, 1)
		if s.Product == estest.OpenSearch3 { // the others lack the processor
			count(`{"range":{"event.ingested":{"gte":"now-1d"}}}`, 1)
		}
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
