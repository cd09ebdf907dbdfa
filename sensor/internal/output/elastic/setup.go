package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// Setup puts the assets, and returns a line for each: created, updated,
// unchanged, or left as it is because it belongs to the user. It can be repeated.
//
// Before it changes anything, it asks the server for the rights that it needs, finds
// out what the server can, and has the server read all that is to be put. When the
// server refuses something all the same, what was put before is taken back. With an
// error the lines say what was done until then.
func Setup(ctx context.Context, c *Client, o SetupOptions) (done []string, err error) {
	say := func(format string, args ...any) { done = append(done, fmt.Sprintf(format, args...)) }
	if err := rights(ctx, c, "manage_index_templates", "manage_ingest_pipelines"); err != nil {
		return nil, err
	}
	if err := plan(ctx, c, &o, say); err != nil {
		return done, err
	}
	if o.Lifecycle == LifecycleILM {
		if err := rights(ctx, c, "manage_ilm"); err != nil {
			return done, err
		}
	}
	assets, err := Assets(o)
	if err != nil {
		return done, err
	}
	differences := make([][]string, len(assets))
	before := make([]object, len(assets)) // what the server has, nil for nothing
	for i := range assets {
		if before[i], differences[i], err = difference(ctx, c, &assets[i], false); err != nil {
			return done, err
		}
	}
	for i := range assets {
		a := &assets[i]
		switch {
		case len(differences[i]) == 0 && a.Keep:
			say("%s: left as it is: it is yours", a.Path)
			continue
		case len(differences[i]) == 0:
			say("%s: unchanged", a.Path)
			continue
		}
		if _, err := c.do(ctx, a.put); err != nil {
			err = fmt.Errorf("put %s: %w", a.Path, cure(err, a))
			for j := i - 1; j >= 0; j-- {
				if len(differences[j]) == 0 {
					continue
				}
				if undoing := restore(ctx, c, &assets[j], before[j]); undoing != nil {
					err = fmt.Errorf("%w; take %s back: %w", err, assets[j].Path, undoing)
				} else {
					say("%s: taken back", assets[j].Path)
				}
			}
			return done, err
		}
		if before[i] == nil {
			say("%s: created", a.Path)
		} else {
			say("%s: updated", a.Path)
		}
	}
	left, err := leftovers(ctx, c)
	if o.Portable {
		say("Fields that are constant, such as event.module, have no value in portable templates: oddcert writes them into the records with --constants")
	}
	return append(done, left...), err
}

// restore puts back what the server had at a's path, or deletes what was put there.
func restore(ctx context.Context, c *Client, a *Asset, before object) error {
	if before == nil {
		_, err := c.do(ctx, a.delete)
		return err
	}
	for _, key := range []string{"created_date", "created_date_millis", "modified_date", "modified_date_millis"} {
		delete(before, key) // the server sets them itself, and accepts them from nobody
	}
	old := Asset{Path: a.Path, Body: encode(before)}
	_, err := c.do(ctx, old.put)
	return err
}

// rights asks the server whether it lets us do what needs these privileges of the
// cluster. A server that cannot tell is asked for nothing more.
func rights(ctx context.Context, c *Client, privileges ...string) error {
	b, err := c.do(ctx, func() esapi.Request {
		return esapi.SecurityHasPrivilegesRequest{Body: bytes.NewReader(encode(object{"cluster": privileges}))}
	})
	var status *StatusError
	if errors.As(err, &status) && status.Status != http.StatusUnauthorized && status.Status < 500 {
		return nil // security is off, or is that of OpenSearch
	}
	if err != nil {
		return fmt.Errorf("ask for our rights: %w", err)
	}
	var answer struct {
		Cluster map[string]bool `json:"cluster"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("ask for our rights: %w", err)
	}
	var lacking []string
	for _, p := range privileges {
		if has, known := answer.Cluster[p]; known && !has {
			lacking = append(lacking, p)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("setting up needs a key with the cluster privileges %s: this one lacks %s; nothing was changed",
			strings.Join(privileges, ", "), strings.Join(lacking, ", "))
	}
	return nil
}

// plan completes o by what the server can, and has the server read the templates. It
// changes nothing there.
func plan(ctx context.Context, c *Client, o *SetupOptions, say func(format string, args ...any)) error {
	// can asks whether the server takes a template.
	can := func(template object) (bool, error) {
		err := simulate(ctx, c, schema.Alert, template)
		if isStatus(err, http.StatusBadRequest) {
			return false, nil
		}
		return err == nil, err
	}
	minimal := func(members object) object {
		return object{"index_patterns": []string{schema.Alert.DataStream("*")}, "priority": priority, "data_stream": object{}, "template": members}
	}
	if err := simulate(ctx, c, schema.Alert, minimal(object{})); isStatus(err, http.StatusBadRequest) {
		return fmt.Errorf("the server takes no template for a data stream: %w; nothing was changed", err)
	} else if err != nil {
		return err
	}

	pipeline := pipelineBody()
	_, err := c.do(ctx, func() esapi.Request {
		return esapi.IngestSimulateRequest{Body: bytes.NewReader(encode(object{"pipeline": pipeline, "docs": []any{object{"_source": object{}}}}))}
	})
	if o.noPipeline = err != nil && strings.Contains(err.Error(), "No processor type"); o.noPipeline {
		say("%s: left out: the server has no ingest processor that sets a field, so event.ingested will be missing", pipelinePath)
	} else if err != nil {
		return fmt.Errorf("try the ingest pipeline: %w", cure(err, &Asset{Path: pipelinePath}))
	}

	if o.Lifecycle == LifecycleAuto {
		o.Lifecycle = LifecycleNone
		for _, l := range []Lifecycle{LifecycleDSL, LifecycleILM} {
			template := at(settings(SetupOptions{noPipeline: true}, l), "template")
			ok, err := can(minimal(template))
			if err != nil {
				return err
			}
			if ok {
				o.Lifecycle = l
				break
			}
		}
		if o.Lifecycle == LifecycleNone {
			say("lifecycle: none: the server has none that oddcert knows, so old records stay until you delete them")
		} else {
			say("lifecycle: %s", o.Lifecycle)
		}
	}

	if !o.Portable {
		full := minimal(object{"mappings": mappings(schema.Alert, false)})
		full["allow_auto_create"] = true
		ok, err := can(full)
		if err != nil {
			return err
		}
		if o.Portable = !ok; o.Portable {
			say("field types: portable, as the server lacks some of the others")
		}
	}
	return validate(ctx, c, *o)
}

// validate has the server read each index template with all that it is composed of,
// also with what the user has put into oddcert@custom.
func validate(ctx context.Context, c *Client, o SetupOptions) error {
	custom, err := stored(ctx, c, &Asset{Path: customPath})
	if err != nil {
		return err
	}
	composed := []string{}
	if custom != nil {
		composed = append(composed, strings.TrimPrefix(customPath, componentTemplates))
	}
	for d := range schema.Datasets {
		template := indexTemplate(d, o)
		template["composed_of"] = composed
		members := at(settings(o, o.Lifecycle), "template")
		members["mappings"] = mappings(d, o.Portable)
		template["template"] = members
		if err := simulate(ctx, c, d, template); err != nil {
			return fmt.Errorf("try %s: %w; nothing was changed", indexTemplates+templateOf(d), cure(err, &Asset{Path: indexTemplates + templateOf(d)}))
		}
	}
	return nil
}

// simulate has the server read an index template in the place of that of d.
func simulate(ctx context.Context, c *Client, d schema.Dataset, template object) error {
	_, err := c.do(ctx, func() esapi.Request {
		return esapi.IndicesSimulateTemplateRequest{Name: templateOf(d), Body: bytes.NewReader(encode(template))}
	})
	if isStatus(err, http.StatusForbidden) {
		return cure(err, &Asset{Path: indexTemplates})
	}
	return err
}

// at goes down into nested objects that are known to be there.
func at(o object, path ...string) object {
	for _, key := range path {
		o = o[key].(object)
	}
	return o
}

// cure adds to the error of a PUT what to do about it.
func cure(err error, a *Asset) error {
	var status *StatusError
	if !errors.As(err, &status) {
		return err
	}
	switch {
	case status.Status == http.StatusForbidden && a.Path == pipelinePath:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_ingest_pipelines (OpenSearch: cluster_manage_pipelines)", err)
	case status.Status == http.StatusForbidden && a.Path == policyPath:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_ilm", err)
	case status.Status == http.StatusForbidden:
		return fmt.Errorf("%w: setting up needs the cluster privilege manage_index_templates (OpenSearch: cluster_manage_index_templates)", err)
	case strings.Contains(status.Reason, "lifecycle"):
		return fmt.Errorf("%w: the server may not have that lifecycle: leave --lifecycle out", err)
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
// each difference, none when all is well. It needs no right but that to read them.
func Check(ctx context.Context, c *Client, o SetupOptions) (differences []string, err error) {
	// What Setup chose shows in what it put: either is right.
	have, err := stored(ctx, c, &Asset{Path: settingsPath})
	if err != nil {
		return nil, err
	}
	text := string(encode(have))
	o.noPipeline = have != nil && !strings.Contains(text, "final_pipeline")
	auto := o.Lifecycle == LifecycleAuto
	if auto {
		o.Lifecycle = LifecycleNone
		if policy := strings.TrimPrefix(policyPath, policies); strings.Contains(text, `"name": "`+policy+`"`) {
			o.Lifecycle = LifecycleILM
		}
	}
	have, err = stored(ctx, c, &Asset{Path: mappingsPath(schema.Alert)})
	if err != nil {
		return nil, err
	}
	o.Portable = o.Portable || have != nil && !strings.Contains(string(encode(have)), string(schema.ConstantKeyword))
	assets, err := Assets(o)
	if err != nil {
		return nil, err
	}
	for _, a := range assets {
		_, found, err := difference(ctx, c, &a, auto)
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
func difference(ctx context.Context, c *Client, a *Asset, anyLifecycle bool) (have object, differences []string, err error) {
	have, err = stored(ctx, c, a)
	switch {
	case err != nil:
		return nil, nil, err
	case have == nil:
		return nil, []string{missing}, nil
	case a.Keep:
		return have, nil, nil
	}
	var want object
	if err := decode(a.Body, &want); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", a.Path, err)
	}
	got := maps.Clone(have)
	if template, ok := got["template"].(object); ok && anyLifecycle && a.Path == settingsPath {
		template = maps.Clone(template)
		delete(template, "lifecycle")
		got["template"] = template
	}
	return have, compare("", normal(want), normal(got)), nil
}

// decode reads JSON as it is: a number keeps its digits.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

// stored returns what the server has at a's path, nil when there is nothing.
func stored(ctx context.Context, c *Client, a *Asset) (object, error) {
	b, err := c.do(ctx, a.get)
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
	err = decode(b, &answer)
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
		err := decode(byName[a.Name()], &o)
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
			t = maps.Clone(t)
			t["settings"] = texts(settings)
			template["template"] = t
		}
	}
	return template
}

// texts makes strings of all scalars in v.
func texts(v any) any {
	switch v := v.(type) {
	case object:
		all := object{}
		for key, inner := range v {
			all[key] = texts(inner)
		}
		return all
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
