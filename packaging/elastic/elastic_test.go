package elastic

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the files that are made of the structs")

// TestFiles holds the files to the structs.
func TestFiles(t *testing.T) {
	want := Files()
	if *update {
		if err := os.RemoveAll("monitors"); err != nil {
			t.Fatal(err)
		}
		for name, b := range want {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, b := range want {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, b) {
			t.Errorf("%s is not what the structs say: run this test with -update", name)
		}
	}
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, _ fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); (ext == ".ndjson" || ext == ".json" && strings.HasPrefix(path, "monitors/")) && want[path] == nil {
			t.Errorf("%s is made of nothing", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// parsed decodes each line of a file.
func parsed(t *testing.T, name string) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v: %.100s", name, err, line)
		}
		all = append(all, o)
	}
	return all
}

// TestSavedObjects follows everything that an object of Kibana refers to.
func TestSavedObjects(t *testing.T) {
	ids, types := map[string]bool{}, map[string]int{}
	for _, o := range parsed(t, "kibana.ndjson") {
		key := o["type"].(string) + " " + o["id"].(string)
		if ids[key] {
			t.Errorf("%s is there twice", key)
		}
		named := map[string]string{}
		for _, r := range o["references"].([]any) {
			r := r.(map[string]any)
			to := r["type"].(string) + " " + r["id"].(string)
			if !ids[to] { // Kibana imports in order
				t.Errorf("%s refers to %s, which is not before it", key, to)
			}
			if named[r["name"].(string)] != "" {
				t.Errorf("%s has two references %s", key, r["name"])
			}
			named[r["name"].(string)] = to
		}
		ids[key] = true
		types[o["type"].(string)]++
		if o["type"] == "dashboard" {
			checkDashboard(t, o["attributes"].(map[string]any), named)
		}
	}
	if types["dashboard"] != 1 || types[dataView] != len(dataViews) {
		t.Errorf("objects: %v", types)
	}
}

// checkDashboard checks the parts of a dashboard that are JSON within strings, and what
// they name.
func checkDashboard(t *testing.T, attributes map[string]any, references map[string]string) {
	t.Helper()
	var source, options map[string]any
	var panels []struct {
		Type, PanelIndex string
		GridData         Grid
		EmbeddableConfig struct {
			Attributes struct {
				Title, VisualizationType string
				References               []Reference
				State                    struct {
					Query            struct{ Query, Language string }
					Visualization    json.RawMessage
					DatasourceStates struct {
						FormBased struct {
							Layers map[string]struct {
								Columns     map[string]Column
								ColumnOrder []string
							}
						}
					}
				}
			}
		}
	}
	meta := attributes["kibanaSavedObjectMeta"].(map[string]any)
	for where, into := range map[any]any{attributes["panelsJSON"]: &panels, attributes["optionsJSON"]: &options, meta["searchSourceJSON"]: &source} {
		if err := json.Unmarshal([]byte(where.(string)), into); err != nil {
			t.Fatalf("%v: %.100v", err, where)
		}
	}
	if len(panels) != len(Panels) || len(panels) != len(references) {
		t.Errorf("%d panels with %d references", len(panels), len(references))
	}
	taken := map[[2]int]string{}
	for _, p := range panels {
		a := p.EmbeddableConfig.Attributes
		if p.GridData.I != p.PanelIndex {
			t.Errorf("%s: index %s in the grid, %s beside it", a.Title, p.GridData.I, p.PanelIndex)
		}
		for x := p.GridData.X; x < p.GridData.X+p.GridData.W; x++ {
			for y := p.GridData.Y; y < p.GridData.Y+p.GridData.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 48 {
					t.Fatalf("%s lies on %q, or outside", a.Title, other)
				}
				taken[[2]int{x, y}] = a.Title
			}
		}
		for id, l := range a.State.DatasourceStates.FormBased.Layers {
			name := "indexpattern-datasource-layer-" + id
			if references[p.PanelIndex+":"+name] == "" || len(a.References) != 1 || a.References[0].Name != name ||
				references[p.PanelIndex+":"+name] != a.References[0].Type+" "+a.References[0].ID {
				t.Errorf("%s: its data view is %q outside, and %v within", a.Title, references[p.PanelIndex+":"+name], a.References)
			}
			if len(l.ColumnOrder) != len(l.Columns) {
				t.Errorf("%s: an order of %d for %d columns", a.Title, len(l.ColumnOrder), len(l.Columns))
			}
			metrics := false // Lens wants groups first
			for _, id := range l.ColumnOrder {
				c, ok := l.Columns[id]
				if !ok || c.Bucketed && metrics {
					t.Errorf("%s: %s is missing or misplaced", a.Title, id)
				}
				metrics = metrics || !c.Bucketed
				used := c.References
				if by, ok := c.Params["orderBy"].(map[string]any); ok {
					used = append(used, by["columnId"].(string))
				}
				for _, id := range used {
					if other, ok := l.Columns[id]; !ok || other.Bucketed {
						t.Errorf("%s: %q refers to %s", a.Title, c.Label, id)
					}
				}
			}
			var at any
			if err := json.Unmarshal(a.State.Visualization, &at); err != nil {
				t.Fatal(err)
			}
			walk(at, func(key string, value any) {
				switch s, _ := value.(string); key {
				case "layerId":
					if _, ok := a.State.DatasourceStates.FormBased.Layers[s]; !ok {
						t.Errorf("%s: draws layer %q", a.Title, s)
					}
				case "columnId", "xAccessor", "splitAccessor", "accessors", "primaryGroups", "metrics":
					if _, ok := l.Columns[s]; s != "" && !ok {
						t.Errorf("%s: draws column %q", a.Title, s)
					}
				}
			})
		}
	}
}

// walk calls visit for each scalar in v with the key that it is under.
func walk(v any, visit func(key string, value any)) { walkUnder("", v, visit) }

func walkUnder(key string, v any, visit func(key string, value any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			walkUnder(k, inner, visit)
		}
	case []any:
		for _, inner := range v {
			walkUnder(key, inner, visit)
		}
	default:
		visit(key, v)
	}
}

// TestRules holds what is told of a rule to what somebody who gets an alert needs, and
// to raising it once.
func TestRules(t *testing.T) {
	ids, files := map[string]bool{}, map[string]bool{}
	for i := range Detections {
		d := &Detections[i]
		r := d.Rule()
		if ids[r.RuleID] || files[d.File] {
			t.Errorf("%s: its identifier or file is there twice", r.Name)
		}
		ids[r.RuleID], files[d.File] = true, true
		if r.Description == "" || r.Note == "" || len(r.FalsePositives) == 0 || r.RiskScore == 0 || priorities[r.Severity] == "" {
			t.Errorf("%s: something is not said", r.Name)
		}
		// The suppression is the time in which the same is not raised again. It has
		// to cover the records that one judgement looks at, so that no record is part
		// of two alerts.
		looked := d.Window
		if n, ok := d.When.(New); ok {
			looked = n.Recent
		}
		if d.Once < looked || looked <= d.Every {
			t.Errorf("%s looks back %v each %v, and is raised again after %v", r.Name, looked, d.Every, d.Once)
		}
		if r.Type == "threshold" != (r.Suppression.GroupBy == nil) {
			t.Errorf("%s is a rule of type %s suppressed by %v", r.Name, r.Type, r.Suppression.GroupBy)
		}
		if len(d.GroupBy) > 3 { // as many as Kibana takes in new_terms and suppression
			t.Errorf("%s groups by %v", r.Name, d.GroupBy)
		}
		if d.Every%time.Minute != 0 { // which monitors count in
			t.Errorf("%s each %v", r.Name, d.Every)
		}
	}
	if n := len(parsed(t, "rules.ndjson")); n != len(Detections) {
		t.Errorf("%d rules of %d detections", n, len(Detections))
	}
}
