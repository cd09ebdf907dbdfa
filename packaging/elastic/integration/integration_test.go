package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the samples anew")

// root is the root of the repository.
const root = "../../.."

// made is the program and what it gives, once for all tests.
var made struct {
	sync.Once
	dir     string
	program string
	sources *sources
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(made.dir)
	os.Exit(code)
}

// fromProgram returns the program, and the sources of a package.
func fromProgram(t *testing.T) (string, *sources) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds the program")
	}
	made.Do(func() {
		if made.dir, made.err = os.MkdirTemp("", "oddcert-integration"); made.err != nil {
			return
		}
		made.program = filepath.Join(made.dir, "oddcert")
		cmd := exec.Command("go", "build", "-o", made.program, "./sensor")
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			made.err = fmt.Errorf("build oddcert: %w: %s", err, text)
			return
		}
		made.sources, made.err = readSources(t.Context(), root, made.program)
	})
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.program, made.sources
}

// TestMappings makes the mappings of a package as Kibana makes them of its fields, and
// holds them against the program's own.
func TestMappings(t *testing.T) {
	_, s := fromProgram(t)
	for _, d := range datasets {
		m, err := readMappings(s.templates, d)
		if err != nil {
			t.Fatal(err)
		}
		fields := fieldsOf(m, nil)
		if len(fields) < 40 {
			t.Errorf("%s has %d fields", d, len(fields))
		}
		got := map[string]*mapping{}
		var dynamic []map[string]dynamicTemplate
		for _, f := range fields {
			if f.ObjectType != "" {
				dynamic = append(dynamic, map[string]dynamicTemplate{f.Name: {PathMatch: f.Name}})
				continue
			}
			p := at(got, f.Name)
			p.Type, p.Value, p.Path, p.IgnoreAbove = f.Type, f.Value, f.Path, f.IgnoreAbove
			p.Normalizer, p.CopyTo, p.Index, p.DocValues, p.IncludeInRoot = f.Normalizer, f.CopyTo, f.Index, f.DocValues, f.IncludeInRoot
		}
		if got["@timestamp"].Type != "date" {
			t.Errorf("%s: @timestamp is a %s", d, got["@timestamp"].Type)
		}
		got["@timestamp"].Type = "date_nanos" // the one difference
		if diff := cmp.Diff(m.Properties, got); diff != "" {
			t.Errorf("%s: the program's and the package's mappings differ:\n%s", d, diff)
		}
		if len(dynamic)+len(generalTemplates(m)) != len(m.DynamicTemplates) {
			t.Errorf("%s: %d fields and %d general templates for %d dynamic templates", d, len(dynamic), len(generalTemplates(m)), len(m.DynamicTemplates))
		}
	}
}

// at returns the mapping of a dotted name, which it makes if need be.
func at(properties map[string]*mapping, name string) *mapping {
	first, rest, below := strings.Cut(name, ".")
	p := properties[first]
	if p == nil {
		p = &mapping{}
		properties[first] = p
	}
	if !below {
		return p
	}
	if p.Properties == nil {
		p.Properties = map[string]*mapping{}
	}
	return at(p.Properties, rest)
}

// TestDataStreams finds a data stream in the package for each that the program writes
// to, under the same name, and no other.
func TestDataStreams(t *testing.T) {
	_, s := fromProgram(t)
	var program, ours []string
	for name, text := range s.templates {
		if !strings.HasPrefix(name, "_index_template/") {
			continue
		}
		var template struct {
			Patterns []string `json:"index_patterns"`
		}
		if err := json.Unmarshal(text, &template); err != nil {
			t.Fatal(err)
		}
		program = append(program, template.Patterns...)
	}
	for _, d := range datasets {
		ours = append(ours, d.stream+"-"+d.String()+"-*")
	}
	slices.Sort(program)
	slices.Sort(ours)
	if diff := cmp.Diff(program, ours); diff != "" {
		t.Error(diff)
	}
}

// TestSamples holds the samples against what the program writes, and each of their
// fields against the fields of the data stream.
func TestSamples(t *testing.T) {
	program, s := fromProgram(t)
	cmd := exec.Command(program, "replay", "--config", "", "--json", "-", "--constants", "--name", "sensor-1", "odd-certificate/capture.pcap")
	cmd.Dir = filepath.Join(root, "sensor/testdata/captures")
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(text) {
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(record["event"].(map[string]any)["dataset"].(string), "oddcert.")
		if seen[name] {
			continue
		}
		seen[name] = true
		record["observer"].(map[string]any)["version"] = "devel" // which the build decides
		file := "samples/" + name + ".json"
		if *update {
			pretty, err := json.MarshalIndent(record, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(pretty, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var sample map[string]any
		if err := json.Unmarshal(text, &sample); err != nil {
			t.Fatalf("read %s: %v", file, err)
		}
		if name == "stats" { // its values are those of the run
			record, sample = shape(record).(map[string]any), shape(sample).(map[string]any)
		}
		if diff := cmp.Diff(sample, record); diff != "" {
			t.Errorf("%s is not what the program writes: run this test with -update:\n%s", file, diff)
		}
		i := slices.IndexFunc(datasets, func(d dataset) bool { return d.name == name })
		m, err := readMappings(s.templates, datasets[i])
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, f := range fieldsOf(m, nil) {
			names[strings.TrimSuffix(f.Name, ".*")] = true
		}
		for _, leaf := range leaves("", sample) {
			known := names[leaf]
			for dot := leaf; !known && strings.Contains(dot, "."); known = names[dot] {
				dot = dot[:strings.LastIndexByte(dot, '.')]
			}
			if !known {
				t.Errorf("%s has %s, which the data stream does not have", file, leaf)
			}
		}
	}
	if len(seen) != len(datasets) {
		t.Errorf("the program wrote records of %v", slices.Sorted(maps.Keys(seen)))
	}
}

// shape is v with its values replaced by their types.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		o := map[string]any{}
		for name, value := range v {
			o[name] = shape(value)
		}
		return o
	case []any:
		if len(v) == 0 {
			return nil
		}
		return []any{shape(v[0])}
	}
	return fmt.Sprintf("%T", v)
}

// leaves are the dotted names of what is in v.
func leaves(prefix string, v any) (names []string) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			names = append(names, leaves(strings.TrimPrefix(prefix+"."+name, "."), value)...)
		}
		return names
	case []any:
		for _, value := range v {
			names = append(names, leaves(prefix, value)...)
		}
		return names
	}
	return []string{prefix}
}

// TestLines gives each line of a file to the data stream of its dataset, and to that
// alone, whatever texts are in it.
func TestLines(t *testing.T) {
	for _, of := range datasets {
		text, err := samples.ReadFile("samples/" + of.name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var record map[string]any
		if err := json.Unmarshal(text, &record); err != nil {
			t.Fatal(err)
		}
		for _, forged := range datasets {
			record["labels"] = map[string]any{"site": `x","dataset":"oddcert.` + forged.name + `"`, `"dataset":"oddcert.` + forged.name + `"`: "x"}
			line, err := json.Marshal(record)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range datasets {
				if got := regexp.MustCompile(d.linePattern()).Match(line); got != (d == of) {
					t.Errorf("the data stream %s takes a line of %s: %v", d, of, got)
				}
			}
		}
	}
}

// TestAgentTemplate reads what an agent is told.
func TestAgentTemplate(t *testing.T) {
	for _, d := range datasets {
		text := strings.NewReplacer("{{#each paths}}\n", "", "{{/each}}\n", "", "{{this}}", "/var/log/oddcert/*.json").Replace(d.agentTemplate())
		var got map[string]any
		if err := yaml.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"paths":                           []any{"/var/log/oddcert/*.json"},
			"include_lines":                   []any{d.linePattern()},
			"publisher_pipeline.disable_host": true,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", d, got)
		}
	}
}

// exported is what a Kibana might export: a data view, a dashboard, a detection rule and
// their number.
const exported = `{"id":"oddcert-alerts","type":"index-pattern","attributes":{"title":"logs-oddcert.alert-*"},"references":[]}
{"id":"oddcert-overview","type":"dashboard","attributes":{"title":"oddcert"},"references":[{"id":"oddcert-alerts","name":"a","type":"index-pattern"}]}

{"rule_id":"6f7c1c36-8b0e-4f4e-9c57-0d1f6f3a2a11","version":3,"id":"a-kibana-gave-it","enabled":true,"name":"One certificate on many servers","type":"threshold"}
{"exportedCount":3,"missingRefCount":0,"missingReferences":[]}
`

// TestKibanaFiles splits files as Kibana imports them.
func TestKibanaFiles(t *testing.T) {
	files, err := kibanaFiles(map[string][]byte{"kibana.ndjson": []byte(exported)})
	if err != nil {
		t.Fatal(err)
	}
	rule := "kibana/security_rule/6f7c1c36-8b0e-4f4e-9c57-0d1f6f3a2a11_3.json"
	want := []string{"kibana/dashboard/oddcert-overview.json", "kibana/index_pattern/oddcert-alerts.json", rule}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("files %v", got)
	}
	var o struct {
		Type       string
		Attributes map[string]any
	}
	if err := json.Unmarshal(files[rule], &o); err != nil {
		t.Fatal(err)
	}
	if o.Type != "security-rule" || o.Attributes["name"] != "One certificate on many servers" || o.Attributes["enabled"] != nil {
		t.Errorf("the rule is %v", o)
	}

	for text, want := range map[string]string{
		`{"id":"oddcert-a","type":"dashboard","attributes":{}}` + "\n" + `{"id":"oddcert-a","type":"dashboard","attributes":{}}`: "line 2: there is another",
		`{"id":"other","type":"dashboard","attributes":{}}`:                                                                      "does not begin with the name of the package",
		`{"id":"oddcert-a/../b","type":"lens","attributes":{}}`:                                                                  "cannot name a file",
		`{"id":"oddcert-a","type":"canvas-workpad","attributes":{}}`:                                                             "no place for a saved object",
		`{"rule_id":"a","type":"query"}`:                                                                                         "version of rule a",
		`{"id":`:                                                                                                                 "line 1: unexpected end",
	} {
		if _, err := kibanaFiles(map[string][]byte{"x.ndjson": []byte(text)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// TestDataViews finds that all saved objects look at data views of the package's own
// data streams alone: the specification wants a filter otherwise.
func TestDataViews(t *testing.T) {
	_, s := fromProgram(t)
	files, err := kibanaFiles(s.kibana)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for name, text := range files {
		var o savedObject
		if err := json.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
		for _, r := range o.References {
			if r.Type != "index-pattern" {
				continue
			}
			looked++
			var view struct{ Attributes struct{ Title string } }
			if err := json.Unmarshal(files["kibana/index_pattern/"+r.ID+".json"], &view); err != nil {
				t.Errorf("%s: data view %s: %v", name, r.ID, err)
			} else if !slices.ContainsFunc(datasets, func(d dataset) bool { return view.Attributes.Title == d.stream+"-"+d.String()+"-*" }) {
				t.Errorf("%s: data view %s is of %s", name, r.ID, view.Attributes.Title)
			}
		}
	}
	if looked == 0 {
		t.Error("no saved object looks at a data view")
	}
}

// TestSameBytes makes the package twice.
func TestSameBytes(t *testing.T) {
	program, _ := fromProgram(t)
	t.Chdir(root)
	var zips [2][]byte
	for i := range zips {
		out := filepath.Join(t.TempDir(), "oddcert-1.2.3.zip")
		if err := run(t.Context(), out, program); err != nil {
			t.Fatal(err)
		}
		var err error
		if zips[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(zips[0], zips[1]) {
		t.Error("the same sources gave two packages")
	}
	for _, name := range []string{"oddcert.zip", "oddcert-v1.2.3.zip", "oddcert-1.2.zip", "oddcert-01.2.3.zip", "other-1.2.3.zip"} {
		if err := run(t.Context(), filepath.Join(t.TempDir(), name), program); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSpecification holds the package against Elastic's own validator, and packages
// that somebody broke as well, so that its silence means something.
func TestSpecification(t *testing.T) {
	_, s := fromProgram(t)
	dir := t.TempDir()
	validator := filepath.Join(dir, "validate")
	cmd := exec.Command("go", "build", "-o", validator, ".")
	cmd.Dir = "validate"
	if text, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "SKIP-PACKAGE-SPEC: %s: %v: %s\n", t.Name(), err, bytes.TrimSpace(text))
		t.Skip("SKIP-PACKAGE-SPEC: Elastic's validator cannot be built")
	}
	files, err := build(s, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(name string, files map[string][]byte) string {
		path := filepath.Join(dir, name+".zip")
		var b bytes.Buffer
		if err := writeZip(&b, "oddcert-1.2.3", files); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		text, err := exec.Command(validator, path).CombinedOutput()
		if err == nil && len(text) > 0 || err != nil && len(text) == 0 {
			t.Fatalf("%s: the validator ended with %v, and said %q", name, err, text)
		}
		return string(text)
	}
	if said := validate("whole", files); said != "" {
		t.Errorf("the validator says:\n%s", said)
	}
	replace := func(name, old, new string) func(map[string][]byte) {
		return func(files map[string][]byte) {
			if !bytes.Contains(files[name], []byte(old)) {
				t.Fatalf("%s does not have %q", name, old)
			}
			files[name] = bytes.Replace(files[name], []byte(old), []byte(new), 1)
		}
	}
	newest := maps.Clone(files) // which has more rules
	replace("manifest.yml", "format_version: "+formatVersion, "format_version: 3.5.4")(newest)
	if said := validate("newest", newest); said != "" {
		t.Errorf("by the newest specification the validator says:\n%s", said)
	}
	for name, broken := range map[string]struct {
		how  func(map[string][]byte)
		says string
	}{
		"no changelog":    {func(f map[string][]byte) { delete(f, "changelog.yml") }, "changelog.yml"},
		"another version": {replace("manifest.yml", "version: 1.2.3", "version: 1.2.4"), "changelog entry"},
		"no such type":    {replace("data_stream/alert/fields/fields.yml", "type: ip", "type: address"), "fields.yml"},
		"unknown member":  {replace("data_stream/stats/manifest.yml", "dataset:", "data_set:"), "data_set"},
		"no such data view": {func(f map[string][]byte) {
			name := "kibana/dashboard/oddcert-broken.json"
			f[name] = []byte(`{"id":"oddcert-broken","type":"dashboard","attributes":{"panelsJSON":"[]"},"references":[{"id":"oddcert-nowhere","name":"a","type":"lens"}]}`)
		}, "nowhere"},
		"no such processor":     {replace("data_stream/alert/elasticsearch/ingest_pipeline/default.yml", "- json:", "- jason:"), "jason"},
		"two ways to transform": {replace("elasticsearch/transform/servers/transform.yml", "pivot:", "latest:"), "latest"},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(files)
			broken.how(files)
			if said := validate(strings.ReplaceAll(name, " ", "-"), files); !strings.Contains(said, broken.says) {
				t.Errorf("the validator says %q, not a word of %q", said, broken.says)
			}
		})
	}
}

// TestZip reads what writeZip wrote.
func TestZip(t *testing.T) {
	files := map[string][]byte{"a.txt": []byte("a"), "b/c.txt": {}, "b/d.txt": bytes.Repeat([]byte("d"), 1<<16)}
	var b bytes.Buffer
	if err := writeZip(&b, "folder", files); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	for _, f := range r.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(rc); err != nil {
			t.Fatal(err)
		}
		rc.Close()
		got[strings.TrimPrefix(f.Name, "folder/")] = append([]byte{}, text.Bytes()...)
	}
	if !maps.EqualFunc(files, got, bytes.Equal) {
		t.Errorf("got %v", slices.Sorted(maps.Keys(got)))
	}
}
