package elastic

import (
	"context"
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

// Setup puts the assets, and returns a line for each: created, updated,
// unchanged, or left as it is because it belongs to the user. It can be repeated.
// With an error it returns the lines until then.
func Setup(ctx context.Context, c *Client, o SetupOptions) (done []string, err error) {
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
	say := func(format string, args ...any) { done = append(done, fmt.Sprintf(format, args...)) }
	for i := 0; i < len(assets); i++ {
		a := &assets[i]
		differences, err := difference(ctx, c, a, false)
		if err != nil {
			return done, err
		}
		did := "updated"
		switch {
		case len(differences) == 0 && a.Keep:
			say("%s: left as it is: it is yours", a.Path)
			continue
		case len(differences) == 0:
			say("%s: unchanged", a.Path)
			continue
		case slices.Equal(differences, []string{missing}):
			did = "created"
		}
		_, err = c.do(ctx, a.put())
		switch {
		case err == nil:
			say("%s: %s", a.Path, did)
			continue
		case isStatus(err, http.StatusBadRequest) && a.Path == pipelinePath && strings.Contains(err.Error(), "No processor type"):
			o.noPipeline = true
			say("%s: left out: the server has no ingest processor that sets a field, so event.ingested will be missing", a.Path)
			i-- // the assets without it
		case isStatus(err, http.StatusBadRequest) && a.Path == settingsPath && o.Lifecycle == LifecycleAuto:
			o.Lifecycle = LifecycleNone
			say("%s: without a lifecycle: the server has none for data streams, so old records stay until you delete them", a.Path)
			i-- // once more
		default:
			return done, fmt.Errorf("put %s: %w", a.Path, cure(err, a))
		}
		if assets, err = Assets(o); err != nil {
			return done, err
		}
	}
	left, err := leftovers(ctx, c)
	if o.Portable {
		say("Fields that are constant, such as event.module, have no value in portable templates: oddcert writes them into the records with --constants")
	}
	return append(done, left...), err
}

// cure adds to the error of a PUT what to do about it.
func cure(err error, a *Asset) error {
	var status *StatusError
	if !errors.As(err, &status) {
		return err
	}
	switch {
	case status.Status == http.StatusForbidden && a.Path == pipelinePath:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_ingest_pipelines", err)
	case status.Status == http.StatusForbidden && a.Path == policyPath:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_ilm", err)
	case status.Status == http.StatusForbidden:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_index_templates", err)
	case strings.Contains(status.Reason, "type [") && strings.Contains(status.Reason, "declared on field"):
		return fmt.Errorf("%w: the server lacks the module of that field type: use --portable", err)
	case a.Path == policyPath && status.Status < 500:
		return fmt.Errorf("%w: the server may have no index lifecycle management: use --lifecycle dsl or none", err)
	}
	return err
}

// version1 are the assets of version 1 of the records, which had one template
// for all data streams.
var version1 = []Asset{{Path: indexTemplates + "logs-oddcert"}, {Path: componentTemplates + "oddcert@mappings"}}

// leftovers returns a line for each asset of version 1 that is still there.
func leftovers(ctx context.Context, c *Client) (left []string, err error) {
	for _, a := range version1 {
		have, err := stored(ctx, c, &a)
		if err != nil {
			return left, err
		}
		if meta, _ := have["_meta"].(object); meta["managed_by"] == "oddcert" {
			left = append(left, a.Path+": left by version 1 of the records: delete it when the data streams logs-oddcert.*-* have been rolled over (POST logs-oddcert.alert-default/_rollover, and so on)")
		}
	}
	return left, nil
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
		o.Lifecycle = LifecycleNone // either is right
	}
	// A server without the processor has neither the pipeline nor the setting.
	pipeline, err := stored(ctx, c, &Asset{Path: pipelinePath})
	if err != nil {
		return nil, err
	}
	have, err := stored(ctx, c, &Asset{Path: settingsPath})
	if err != nil {
		return nil, err
	}
	o.noPipeline = pipeline == nil && have != nil && !strings.Contains(string(encode(have)), "final_pipeline")
	assets, err := Assets(o)
	if err != nil {
		return nil, err
	}
	for _, a := range assets {
		found, err := difference(ctx, c, &a, auto)
		if err != nil {
			return differences, err
		}
		for _, d := range found {
			differences = append(differences, a.Path+": "+d)
		}
	}
	left, err := leftovers(ctx, c)
	return append(differences, left...), err
}

// missing is the difference of an asset that is not there at all.
const missing = "missing"

// difference compares what the server has with a, and returns a line for each
// difference. An asset that belongs to the user differs only by its absence. With
// anyLifecycle the lifecycle in the settings is not compared.
func difference(ctx context.Context, c *Client, a *Asset, anyLifecycle bool) ([]string, error) {
	have, err := stored(ctx, c, a)
	if err != nil {
		return nil, err
	}
	if have == nil {
		return []string{missing}, nil
	}
	if a.Keep {
		return nil, nil
	}
	var want object
	if err := json.Unmarshal(a.Body, &want); err != nil {
		return nil, fmt.Errorf("read %s: %w", a.Path, err)
	}
	if template, ok := have["template"].(object); ok && anyLifecycle && a.Path == settingsPath {
		delete(template, "lifecycle")
	}
	return compare("", normal(want), normal(have)), nil
}

// stored returns what the server has at a's path, nil when there is nothing.
func stored(ctx context.Context, c *Client, a *Asset) (object, error) {
	b, err := c.do(ctx, a.get())
	if isStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", a.Path, cure(err, a))
	}
	type entry struct {
		Component object `json:"component_template"`
		Index     object `json:"index_template"`
	}
	var answer struct {
		Components []entry `json:"component_templates"`
		Indexes    []entry `json:"index_templates"`
	}
	var byName map[string]json.RawMessage // policies and pipelines
	err = json.Unmarshal(b, &answer)
	if err == nil {
		err = json.Unmarshal(b, &byName)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.Path, err)
	}
	switch {
	case len(answer.Components) == 1 && answer.Components[0].Component != nil:
		return answer.Components[0].Component, nil
	case len(answer.Indexes) == 1 && answer.Indexes[0].Index != nil:
		return answer.Indexes[0].Index, nil
	case byName[a.Name()] != nil:
		var o object
		err := json.Unmarshal(byName[a.Name()], &o)
		if err != nil || o == nil {
			return nil, fmt.Errorf("read %s: the answer does not have an object of that name", a.Path)
		}
		return o, nil
	}
	return nil, fmt.Errorf("read %s: the answer does not have exactly one template", a.Path)
}

// normal brings a template into one form: the server stores settings as strings
// and adds members that say the same as leaving them out.
func normal(template object) object {
	for key := range template {
		switch key {
		case "_meta", "template", "index_patterns", "composed_of", "priority", "data_stream", "allow_auto_create", "description", "processors":
		default:
			delete(template, key)
		}
	}
	if _, ok := template["data_stream"]; ok {
		template["data_stream"] = true
	}
	if t, ok := template["template"].(object); ok {
		if settings, ok := t["settings"]; ok {
			t["settings"] = texts(settings)
		}
	}
	return template
}

// texts makes strings of all scalars in v.
func texts(v any) any {
	switch v := v.(type) {
	case object:
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
	w, wok := want.(object)
	h, hok := have.(object)
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

// ExportDir writes each asset to a file of its name in dir, and returns the paths
// of the files.
func ExportDir(dir string, o SetupOptions) (written []string, err error) {
	assets, err := Assets(o)
	if err != nil {
		return nil, err
	}
	for _, a := range assets {
		path := filepath.Join(dir, filepath.FromSlash(a.Path)+".json")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return written, fmt.Errorf("export: %w", err)
		}
		if err := os.WriteFile(path, a.Body, 0o644); err != nil {
			return written, fmt.Errorf("export: %w", err)
		}
		written = append(written, path)
	}
	return written, nil
}
