package elastic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// Lifecycle says who deletes old records on the server.
type Lifecycle string

// The lifecycles.
const (
	LifecycleAuto Lifecycle = ""     // the first of the others that the server has
	LifecycleDSL  Lifecycle = "dsl"  // data stream lifecycle, Elasticsearch 8.14 and newer
	LifecycleILM  Lifecycle = "ilm"  // index lifecycle management, older Elasticsearch
	LifecycleNone Lifecycle = "none" // nobody deletes them
)

// SetupOptions choose what the templates say.
type SetupOptions struct {
	// Portable keeps to the field types keyword, text, date, date_nanos, ip,
	// long, float, boolean, nested and alias, for OpenSearch and servers with few
	// modules. Constant fields have no values then. Setup finds out by itself
	// where it must be so.
	Portable  bool
	Lifecycle Lifecycle
	Retention string // how long records are kept, such as 90d; empty for ever

	noPipeline bool // the server has no ingest processor that sets a field
}

// Asset is something that the server needs to have before the first record.
type Asset struct {
	Path string          // such as _index_template/logs-oddcert.alert
	Body json.RawMessage // a JSON object
	Keep bool            // belongs to the user: put only where it is missing
}

// Name is the last part of the path.
func (a *Asset) Name() string { return a.Path[strings.LastIndexByte(a.Path, '/')+1:] }

// The kinds of assets: all of their paths up to the name.
const (
	policies           = "_ilm/policy/"
	pipelines          = "_ingest/pipeline/"
	componentTemplates = "_component_template/"
	indexTemplates     = "_index_template/"
)

// The assets that all data streams share.
const (
	policyPath   = policies + "oddcert"
	pipelinePath = pipelines + "oddcert@final"
	settingsPath = componentTemplates + "oddcert@settings"
	customPath   = componentTemplates + "oddcert@custom"
)

// get is the request for what the server has at a's path.
func (a *Asset) get() esapi.Request {
	switch a.kind() {
	case policies:
		return esapi.ILMGetLifecycleRequest{Policy: a.Name()}
	case pipelines:
		return esapi.IngestGetPipelineRequest{PipelineID: a.Name()}
	case componentTemplates:
		return esapi.ClusterGetComponentTemplateRequest{Name: []string{a.Name()}}
	default:
		return esapi.IndicesGetIndexTemplateRequest{Name: a.Name()}
	}
}

// put is the request that puts a.
func (a *Asset) put() esapi.Request {
	body := bytes.NewReader(a.Body)
	switch a.kind() {
	case policies:
		return esapi.ILMPutLifecycleRequest{Policy: a.Name(), Body: body}
	case pipelines:
		return esapi.IngestPutPipelineRequest{PipelineID: a.Name(), Body: body}
	case componentTemplates:
		return esapi.ClusterPutComponentTemplateRequest{Name: a.Name(), Body: body}
	default:
		return esapi.IndicesPutIndexTemplateRequest{Name: a.Name(), Body: body}
	}
}

// delete is the request that deletes what the server has at a's path.
func (a *Asset) delete() esapi.Request {
	switch a.kind() {
	case policies:
		return esapi.ILMDeleteLifecycleRequest{Policy: a.Name()}
	case pipelines:
		return esapi.IngestDeletePipelineRequest{PipelineID: a.Name()}
	case componentTemplates:
		return esapi.ClusterDeleteComponentTemplateRequest{Name: a.Name()}
	default:
		return esapi.IndicesDeleteIndexTemplateRequest{Name: a.Name()}
	}
}

// kind is the path without the name.
func (a *Asset) kind() string { return strings.TrimSuffix(a.Path, a.Name()) }

// templateOf is the name of the index template of a dataset.
func templateOf(d schema.Dataset) string { return d.Stream() + "-oddcert." + d.String() }

// priority is that of the index templates: above those of the server itself,
// and above the 250 that the template of version 1 of the records had.
const priority = 300

type object = map[string]any

// Assets returns the assets in the order in which the server needs them.
func Assets(o SetupOptions) ([]Asset, error) {
	lifecycle := o.Lifecycle
	switch lifecycle {
	case LifecycleAuto:
		lifecycle = LifecycleDSL
	case LifecycleDSL, LifecycleILM, LifecycleNone:
	default:
		return nil, fmt.Errorf("lifecycle: %q is not dsl, ilm or none", lifecycle)
	}
	var assets []Asset
	add := func(path string, body object) { assets = append(assets, Asset{Path: path, Body: encode(body)}) }
	if !o.noPipeline {
		add(pipelinePath, pipelineBody())
	}
	if lifecycle == LifecycleILM {
		phases := object{"hot": object{"actions": object{
			"rollover": object{"max_age": "30d", "max_primary_shard_size": "50gb"},
		}}}
		if o.Retention != "" {
			phases["delete"] = object{"min_age": o.Retention, "actions": object{"delete": object{}}}
		}
		add(policyPath, object{"policy": object{"phases": phases}})
		assets[len(assets)-1].Keep = true
	}
	add(settingsPath, settings(o, lifecycle))
	add(customPath, object{
		"_meta":    object{"description": "Your own settings and mappings for oddcert's data streams; they win over oddcert's, and oddcert never changes them"},
		"template": object{},
	})
	assets[len(assets)-1].Keep = true
	for d := range schema.Datasets {
		template := object{"mappings": mappings(d, o.Portable)}
		if d == schema.Alert { // somebody waits for it
			template["settings"] = object{"index": object{"refresh_interval": "250ms"}}
		}
		add(mappingsPath(d), object{
			"_meta":    object{"managed_by": "oddcert", "description": "Fields of oddcert." + d.String() + ": ECS " + schema.ECS + ", and oddcert.* for the rest"},
			"template": template,
		})
	}
	for d := range schema.Datasets {
		add(indexTemplates+templateOf(d), indexTemplate(d, o))
	}
	return assets, nil
}

// pipelineBody is the ingest pipeline that all records go through in the end.
func pipelineBody() object {
	return object{
		"description": "Sets event.ingested of oddcert's records; oddcert manages it", // OpenSearch has no _meta here
		"processors": []any{object{"set": object{
			"field": "event.ingested", "value": "{{{_ingest.timestamp}}}",
		}}},
	}
}

// mappingsPath is where the mappings of a dataset are.
func mappingsPath(d schema.Dataset) string {
	return componentTemplates + "oddcert." + d.String() + "@mappings"
}

// indexTemplate is the index template of a dataset.
func indexTemplate(d schema.Dataset, o SetupOptions) object {
	template := object{
		"_meta":          object{"managed_by": "oddcert", "description": "Data streams of oddcert." + d.String()},
		"index_patterns": []string{d.DataStream("*")},
		"priority":       priority,
		"composed_of":    []string{"oddcert@settings", "oddcert." + d.String() + "@mappings", "oddcert@custom"}, // the last wins
		"data_stream":    object{},
	}
	if !o.Portable { // OpenSearch does not know it
		template["allow_auto_create"] = true
	}
	return template
}

// settings are the settings of all data streams.
func settings(o SetupOptions, lifecycle Lifecycle) object {
	index := object{
		"codec":            "best_compression",
		"refresh_interval": "1s",
		"mapping":          object{"ignore_malformed": true, "total_fields": object{"limit": 2000}},
	}
	template := object{"settings": object{"index": index}}
	if !o.noPipeline {
		index["final_pipeline"] = strings.TrimPrefix(pipelinePath, pipelines)
	}
	switch lifecycle {
	case LifecycleDSL:
		l := object{"enabled": true}
		if o.Retention != "" {
			l["data_retention"] = o.Retention
		}
		template["lifecycle"] = l
	case LifecycleILM:
		index["lifecycle"] = object{"name": strings.TrimPrefix(policyPath, policies)}
	}
	return object{
		"_meta":    object{"managed_by": "oddcert", "description": "Settings of oddcert's data streams"},
		"template": template,
	}
}

// mappings are the mappings of the records of a dataset. Fields that are not in
// the schema are mapped by their values.
func mappings(d schema.Dataset, portable bool) object {
	properties := object{}
	var dynamic []any
	for _, f := range schema.Of(d) {
		m := mapping(f, d, portable)
		if group, ok := strings.CutSuffix(f.Name, ".*"); ok {
			kind := "string"
			if f.Type == schema.Long {
				kind = "long"
			}
			dynamic = append(dynamic, object{group: object{"path_match": f.Name, "match_mapping_type": kind, "mapping": m}})
			continue
		}
		at, name := properties, f.Name
		for {
			first, rest, nested := strings.Cut(name, ".")
			o, ok := at[first].(object)
			if !ok {
				o = object{}
				at[first] = o
			}
			if !nested {
				for key, value := range m {
					o[key] = value
				}
				break
			}
			if o["properties"] == nil {
				o["properties"] = object{}
			}
			at, name = o["properties"].(object), rest
		}
	}
	dynamic = append(dynamic,
		object{"numbers": object{"match_mapping_type": "double", "mapping": object{"type": schema.Float}}},
		object{"strings": object{"match_mapping_type": "string", "mapping": object{"type": schema.Keyword, "ignore_above": maxKeyword}}},
	)
	return object{
		"dynamic":           true,
		"date_detection":    false,
		"numeric_detection": false,
		"dynamic_templates": dynamic,
		"properties":        properties,
	}
}

// maxKeyword is the length in characters above which a keyword is kept in the
// document, but not indexed; ECS has the same. A peer can send names of any
// length, and an index refuses documents with terms above 32,766 bytes.
const maxKeyword = 1024

// mapping is the mapping of one field.
func mapping(f schema.Field, d schema.Dataset, portable bool) object {
	if f.AliasOf != "" && f.Template.Has(d) {
		return object{"type": "alias", "path": f.AliasOf}
	}
	kind := f.Type
	if portable {
		kind = kind.Portable()
	}
	m := object{"type": kind}
	switch {
	case f.Opaque:
		m["index"], m["doc_values"] = false, false
	case kind == schema.Keyword:
		m["ignore_above"] = maxKeyword
		if f.FoldCase {
			m["normalizer"] = "lowercase"
		}
	case kind == schema.Nested:
		m["include_in_root"] = true // also found by searches that do not know nested fields, such as ES|QL
	case kind == schema.ConstantKeyword && f.Constant[d] != "":
		m["value"] = f.Constant[d]
	}
	if to, ok := schema.Lookup(f.CopyTo); ok && to.Template.Has(d) {
		m["copy_to"] = f.CopyTo
	}
	return m
}

// encode makes readable JSON of a value that can be encoded.
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
