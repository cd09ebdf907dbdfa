package elastic

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Lifecycle says who deletes old records on the server.
type Lifecycle string

// The lifecycles.
const (
	LifecycleAuto Lifecycle = ""     // dsl, or none where the server does not have it
	LifecycleDSL  Lifecycle = "dsl"  // data stream lifecycle, Elasticsearch 8.14 and newer
	LifecycleILM  Lifecycle = "ilm"  // index lifecycle management, older Elasticsearch
	LifecycleNone Lifecycle = "none" // nobody; always so on OpenSearch
)

// SetupOptions choose what the templates say.
type SetupOptions struct {
	// Portable keeps to the field types keyword, text, date, ip, long, float,
	// boolean and nested, for OpenSearch and servers with few modules.
	Portable  bool
	Lifecycle Lifecycle
	Retention string // how long records are kept, such as 90d; empty for ever
}

// Asset is something that the server needs to have before the first record.
type Asset struct {
	Path string          // such as _index_template/logs-oddcert
	Body json.RawMessage // a JSON object
	Keep bool            // belongs to the user: put only where it is missing
}

// Name is the last part of the path.
func (a *Asset) Name() string { return a.Path[strings.LastIndexByte(a.Path, '/')+1:] }

//go:embed templates/*.json
var templates embed.FS

const policyPath = "_ilm/policy/oddcert"

// Assets are the assets in the order in which the server needs them.
func Assets(o SetupOptions) ([]Asset, error) {
	var assets []Asset
	lifecycle := o.Lifecycle
	switch lifecycle {
	case LifecycleAuto:
		lifecycle = LifecycleDSL
	case LifecycleDSL, LifecycleILM, LifecycleNone:
	default:
		return nil, fmt.Errorf("lifecycle %q is none of dsl, ilm, none", lifecycle)
	}
	if lifecycle == LifecycleILM {
		phases := map[string]any{"hot": map[string]any{"actions": map[string]any{
			"rollover": map[string]any{"max_age": "30d", "max_primary_shard_size": "50gb"},
		}}}
		if o.Retention != "" {
			phases["delete"] = map[string]any{"min_age": o.Retention, "actions": map[string]any{"delete": map[string]any{}}}
		}
		policy := map[string]any{"policy": map[string]any{"phases": phases}}
		assets = append(assets, Asset{Path: policyPath, Body: encode(policy), Keep: true})
	}
	for _, path := range []string{
		"_component_template/oddcert@mappings",
		"_component_template/oddcert@settings",
		"_component_template/oddcert@custom",
		"_index_template/logs-oddcert",
	} {
		a := Asset{Path: path, Keep: strings.HasSuffix(path, "@custom")}
		b, err := templates.ReadFile("templates/" + a.Name() + ".json")
		if err != nil {
			return nil, err
		}
		var body map[string]any
		if err := json.Unmarshal(b, &body); err != nil {
			return nil, fmt.Errorf("read template %s: %w", a.Name(), err)
		}
		switch a.Name() {
		case "oddcert@mappings":
			if o.Portable {
				portable(at(body, "template", "mappings"))
			}
		case "oddcert@settings":
			switch lifecycle {
			case LifecycleDSL:
				l := map[string]any{"enabled": true}
				if o.Retention != "" {
					l["data_retention"] = o.Retention
				}
				at(body, "template")["lifecycle"] = l
			case LifecycleILM:
				at(body, "template", "settings", "index")["lifecycle"] = map[string]any{"name": "oddcert"}
			}
		}
		a.Body = encode(body)
		assets = append(assets, a)
	}
	return assets, nil
}

// at goes down into nested objects that are known to be there.
func at(o map[string]any, path ...string) map[string]any {
	for _, key := range path {
		o = o[key].(map[string]any)
	}
	return o
}

// encode makes readable JSON of what is known to have some.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// portable replaces the field types that not every server has.
func portable(mapping map[string]any) {
	fields, _ := mapping["properties"].(map[string]any)
	for name, v := range fields {
		field := v.(map[string]any)
		portable(field)
		switch field["type"] {
		case "match_only_text":
			field["type"] = "text"
		case "constant_keyword":
			fields[name] = map[string]any{"type": "keyword", "ignore_above": 1024}
		}
	}
}

// Setup puts the assets, and returns notes for the user. It can be repeated.
func Setup(ctx context.Context, c *Client, o SetupOptions) (notes []string, err error) {
	if c.openSearch {
		o.Portable = true
		if o.Lifecycle == LifecycleAuto {
			o.Lifecycle = LifecycleNone
		}
	}
	assets, err := Assets(o)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(assets); i++ {
		a := &assets[i]
		if a.Keep {
			switch _, err := c.do(ctx, http.MethodGet, "/"+a.Path, nil); {
			case err == nil:
				notes = append(notes, a.Path+" is there: left as it is")
				continue
			case !isStatus(err, http.StatusNotFound):
				return notes, fmt.Errorf("look for %s: %w", a.Path, err)
			}
		}
		_, err := c.do(ctx, http.MethodPut, "/"+a.Path, a.Body)
		if isStatus(err, http.StatusBadRequest) && o.Lifecycle == LifecycleAuto && a.Name() == "oddcert@settings" {
			o.Lifecycle = LifecycleNone
			if assets, err = Assets(o); err != nil {
				return notes, err
			}
			notes = append(notes, "the server has no data stream lifecycle: old records stay until somebody deletes them")
			i--
			continue
		}
		if err != nil {
			return notes, fmt.Errorf("put %s: %w", a.Path, err)
		}
	}
	return notes, nil
}

func isStatus(err error, status int) bool {
	var e *StatusError
	return errors.As(err, &e) && e.Status == status
}

// Check compares what the server has with the assets, and returns a line for
// each difference, none when all is well.
func Check(ctx context.Context, c *Client, o SetupOptions) (differences []string, err error) {
	if c.openSearch {
		o.Portable = true
	}
	auto := o.Lifecycle == LifecycleAuto
	if auto {
		o.Lifecycle = LifecycleNone // either will do
	}
	assets, err := Assets(o)
	if err != nil {
		return nil, err
	}
	for _, a := range assets {
		b, err := c.do(ctx, http.MethodGet, "/"+a.Path, nil)
		if isStatus(err, http.StatusNotFound) {
			differences = append(differences, a.Path+": missing")
			continue
		}
		if err != nil {
			return differences, fmt.Errorf("get %s: %w", a.Path, err)
		}
		if a.Keep {
			continue
		}
		have, err := stored(b)
		if err != nil {
			return differences, fmt.Errorf("read %s: %w", a.Path, err)
		}
		var want map[string]any
		if err := json.Unmarshal(a.Body, &want); err != nil {
			return differences, fmt.Errorf("read %s: %w", a.Path, err)
		}
		if auto && a.Name() == "oddcert@settings" {
			if template, ok := have["template"].(map[string]any); ok {
				delete(template, "lifecycle")
			}
		}
		for _, d := range compare("", normal(want), normal(have)) {
			differences = append(differences, a.Path+": "+d)
		}
	}
	return differences, nil
}

// stored is the template in the answer to a GET for one.
func stored(answer []byte) (map[string]any, error) {
	type entry struct {
		Component map[string]any `json:"component_template"`
		Index     map[string]any `json:"index_template"`
	}
	var a struct {
		Components []entry `json:"component_templates"`
		Indexes    []entry `json:"index_templates"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, err
	}
	switch {
	case len(a.Components) == 1:
		return a.Components[0].Component, nil
	case len(a.Indexes) == 1:
		return a.Indexes[0].Index, nil
	}
	return nil, errors.New("the answer does not have exactly one template")
}

// normal brings a template into one form: the server stores settings as strings
// and adds members that say the same as leaving them out.
func normal(template map[string]any) map[string]any {
	for key := range template {
		switch key {
		case "_meta", "template", "index_patterns", "composed_of", "priority", "data_stream":
		default:
			delete(template, key)
		}
	}
	if _, ok := template["data_stream"]; ok {
		template["data_stream"] = true
	}
	if t, ok := template["template"].(map[string]any); ok {
		if settings, ok := t["settings"]; ok {
			t["settings"] = texts(settings)
		}
	}
	return template
}

// texts makes strings of all scalars in v.
func texts(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = texts(inner)
		}
		return v
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// compare names the places where have is not want.
func compare(path string, want, have any) (differences []string) {
	w, wok := want.(map[string]any)
	h, hok := have.(map[string]any)
	if !wok || !hok {
		if !reflect.DeepEqual(want, have) {
			return []string{fmt.Sprintf("%s is %s, not %s", strings.TrimPrefix(path, "."), brief(have), brief(want))}
		}
		return nil
	}
	keys := []string{}
	for key := range w {
		keys = append(keys, key)
	}
	for key := range h {
		if _, ok := w[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		differences = append(differences, compare(path+"."+key, w[key], h[key])...)
	}
	return differences
}

func brief(v any) string {
	if v == nil {
		return "missing"
	}
	b, err := json.Marshal(v)
	if err != nil || len(b) > 60 {
		return "something else"
	}
	return string(b)
}

// Export writes the assets as requests for Kibana's console.
func Export(w io.Writer, o SetupOptions) error {
	assets, err := Assets(o)
	if err != nil {
		return err
	}
	for _, a := range assets {
		if _, err := fmt.Fprintf(w, "PUT %s\n%s\n", a.Path, a.Body); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

// ExportDir writes each asset to a file of its name in dir.
func ExportDir(dir string, o SetupOptions) error {
	assets, err := Assets(o)
	if err != nil {
		return err
	}
	for _, a := range assets {
		path := filepath.Join(dir, filepath.FromSlash(a.Path)+".json")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		if err := os.WriteFile(path, a.Body, 0o644); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}
