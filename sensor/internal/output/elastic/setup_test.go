package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// flatten lists the fields of a mapping by their dotted names, with their
// types. An object without a type has none.
func flatten(into map[string]string, prefix string, mapping map[string]any) {
	fields, _ := mapping["properties"].(map[string]any)
	for name, v := range fields {
		field := v.(map[string]any)
		if kind, ok := field["type"].(string); ok {
			into[prefix+name] = kind
		}
		flatten(into, prefix+name+".", field)
	}
}

func mappings(t *testing.T, o SetupOptions) map[string]string {
	t.Helper()
	assets, err := Assets(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range assets {
		if a.Name() == "oddcert@mappings" {
			var body map[string]any
			if err := json.Unmarshal(a.Body, &body); err != nil {
				t.Fatal(err)
			}
			fields := map[string]string{}
			flatten(fields, "", at(body, "template", "mappings"))
			return fields
		}
	}
	t.Fatal("no mappings")
	return nil
}

// TestFields holds the mapping against the fields that records have.
func TestFields(t *testing.T) {
	want := maps.Clone(output.Fields)
	maps.DeleteFunc(want, func(name, _ string) bool { return strings.HasSuffix(name, ".*") }) // dynamic
	got := mappings(t, SetupOptions{Portable: true})
	maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasPrefix(name, "data_stream.") }) // never in a record
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: mapped as %q, is %q", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s: mapped, but in no record", name)
		}
	}
}

// TestPortable holds the portable variant to its field types.
func TestPortable(t *testing.T) {
	allowed := []string{"keyword", "text", "date", "ip", "long", "float", "boolean", "nested"}
	for name, kind := range mappings(t, SetupOptions{Portable: true}) {
		if !slices.Contains(allowed, kind) {
			t.Errorf("%s is a %s", name, kind)
		}
	}
	full := mappings(t, SetupOptions{})
	if full["message"] != "match_only_text" || full["data_stream.type"] != "constant_keyword" {
		t.Errorf("the full variant has %s and %s", full["message"], full["data_stream.type"])
	}
}

func TestLifecycles(t *testing.T) {
	for lifecycle, want := range map[Lifecycle]struct{ has, hasNot string }{
		LifecycleAuto: {`"data_retention": "90d"`, "_ilm"},
		LifecycleDSL:  {`"data_retention": "90d"`, "_ilm"},
		LifecycleILM:  {`"min_age": "90d"`, "data_retention"},
		LifecycleNone: {"PUT _index_template/logs-oddcert", "90d"},
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
	if err := ExportDir(dir, SetupOptions{Lifecycle: LifecycleILM}); err != nil {
		t.Fatal(err)
	}
	assets, err := Assets(SetupOptions{Lifecycle: LifecycleILM})
	if err != nil || len(assets) != 5 {
		t.Fatalf("%d assets, %v", len(assets), err)
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
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	o := SetupOptions{Portable: true}
	if _, err := Setup(ctx, c, o); err != nil {
		t.Fatal(err)
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
	check()

	const own = `{"template":{"settings":{"index":{"number_of_replicas":0}}}}`
	s.Do(t, http.MethodPut, "/_component_template/oddcert@custom", own, nil)
	s.Do(t, http.MethodPut, "/_component_template/oddcert@settings", `{"template":{"settings":{"index":{"codec":"default"}}}}`, nil)
	differences, err := Check(ctx, c, o)
	if err != nil || !strings.Contains(strings.Join(differences, "\n"), `codec is "default", not "best_compression"`) {
		t.Errorf("differences %q, %v", differences, err)
	}
	notes, err := Setup(ctx, c, o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "oddcert@custom is there") {
		t.Errorf("notes %q", notes)
	}
	check()
	var custom map[string]any
	s.Do(t, http.MethodGet, "/_component_template/oddcert@custom", "", &custom)
	if b, _ := json.Marshal(custom); !strings.Contains(string(b), `"number_of_replicas":"0"`) {
		t.Errorf("oddcert@custom was changed: %s", b)
	}
	s.Do(t, http.MethodPut, "/_index_template/logs-oddcert", `{"index_patterns":["logs-oddcert.*-*"],"priority":240,"data_stream":{}}`, nil)
	check("_meta is missing", "composed_of is []", "index_patterns is", "priority is 240, not 250")
	if _, err := Setup(ctx, c, o); err != nil {
		t.Fatal(err)
	}

	check()

	// A server without the modules says which field type it lacks.
	if _, err := Setup(ctx, c, SetupOptions{}); err == nil || !strings.Contains(err.Error(), "oddcert@mappings") || !strings.Contains(err.Error(), "[match_only_text]") {
		t.Errorf("full variant: %v", err)
	}
	if _, err := Setup(ctx, c, SetupOptions{Portable: true, Lifecycle: LifecycleILM}); err == nil {
		t.Error("the server has no ILM, but setup did not say so")
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
	got, err := Check(context.Background(), c, SetupOptions{})
	want := []string{
		"_component_template/oddcert@mappings: missing", "_component_template/oddcert@settings: missing",
		"_component_template/oddcert@custom: missing", "_index_template/logs-oddcert: missing",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestMapped sends one document with every field, and reads the mapping and the
// template's settings back from the stream.
func TestMapped(t *testing.T) {
	s := ready(t, estest.Shared(t))
	cfg := Config{Addresses: []string{s.URL}, Namespace: estest.Namespace(t)}
	values := map[string]any{"keyword": "ABCD", "text": "two words", "date": "2022-02-21T16:39:40.123456789Z", "ip": "2001:db8::1", "long": 9007199254740991, "float": 47.5, "boolean": true}
	document := map[string]any{}
	set := func(name string, v any) {
		o := document
		parts := strings.Split(name, ".")
		for _, p := range parts[:len(parts)-1] {
			if o[p] == nil {
				o[p] = map[string]any{}
			}
			o = o[p].(map[string]any)
		}
		if o[parts[len(parts)-1]] == nil {
			o[parts[len(parts)-1]] = v
		}
	}
	for name, kind := range output.Fields {
		if name, ok := strings.CutSuffix(name, ".*"); ok {
			set(name+".flows", 7)
			set(name+".flow.evicted", 0)
		} else if kind == "nested" {
			set(name, map[string]any{})
		} else {
			set(name, values[kind])
		}
	}
	// What a peer can make up must not cost the record.
	set("tls.client.x509.not_before", "not a date")
	r := record(output.Alert, 1)
	set("event.id", r.ID)
	document["event"].(map[string]any)["id"] = r.ID
	at(document, "tls", "client")["server_name"] = strings.Repeat("x", 60_000)
	at(document, "tls", "client", "x509")["not_after"] = "99999-13-99"
	at(document, "tls", "client", "x509")["public_key_exponent"] = json.Number("18446744073709551615")
	at(document, "related")["ip"] = "no address"
	var err error
	if r.JSON, err = json.Marshal(document); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := startTest(t, cfg, dir)
	write(t, o, r)
	if st := closeTest(t, o); st.Delivered.Total() != 1 {
		t.Fatalf("dead letters: %+v", deadLettersIn(t, dir))
	}
	stream := "logs-oddcert.alert-" + cfg.Namespace
	var answer map[string]struct {
		Mappings map[string]any `json:"mappings"`
	}
	s.Do(t, http.MethodGet, "/"+stream+"/_mapping", "", &answer)
	if len(answer) != 1 {
		t.Fatalf("mappings of %v", slices.Collect(maps.Keys(answer)))
	}
	for index, m := range answer {
		if !strings.HasPrefix(index, ".ds-"+stream+"-") {
			t.Errorf("%s is no backing index of a data stream", index)
		}
		got := map[string]string{}
		flatten(got, "", m.Mappings)
		for name, kind := range output.Fields {
			if base, ok := strings.CutSuffix(name, "*"); ok {
				name = base + "flow.evicted"
			}
			if got[name] != kind {
				t.Errorf("%s is a %q, not a %s", name, got[name], kind)
			}
		}
	}
	for query, want := range map[string]float64{
		`{"term":{"related.hash":"abcd"}}`:                                                                   1, // lower case finds upper case
		`{"term":{"tls.server.hash.sha256":"AbCd"}}`:                                                         1,
		`{"range":{"@timestamp":{"gte":"2022-02-21","lt":"2022-02-22"}}}`:                                    1,
		`{"term":{"source.ip":"2001:db8::/32"}}`:                                                             1,
		`{"match":{"message":"words"}}`:                                                                      1,
		`{"nested":{"path":"threat.enrichments","query":{"exists":{"field":"threat.enrichments.matched"}}}}`: 1,
		`{"exists":{"field":"tls.client.server_name"}}`:                                                      0, // too long for the index, kept in the document
	} {
		var answer struct{ Count float64 }
		s.search(t, stream)
		s.Do(t, http.MethodPost, "/"+stream+"/_count", `{"query":`+query+`}`, &answer)
		if answer.Count != want {
			t.Errorf("%s: %v documents", query, answer.Count)
		}
	}
}
