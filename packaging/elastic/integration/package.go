package main

import (
	"embed"
	_ "embed"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
)

// formatVersion is the version of the specification that the package follows: one
// that all Kibanas know for which the package is.
const formatVersion = "3.3.0"

// kibanaVersions are those that the package is for. 8.18 is the first that takes all of
// the detection rules.
const kibanaVersions = "^8.18.0 || ^9.0.0"

// exclusions are the checks that the package does without. A test holds the reason.
const exclusions = `errors:
  exclude_checks:
    # A dashboard is to have a filter, so that it shows what belongs to the package
    # and nothing else. Here the data views do that: each is of one data stream.
    - SVR00002
`

//go:embed icon.svg
var iconFile []byte

// samples has a record of each dataset, as the program wrote it. A test makes them.
//
//go:embed samples/*.json
var samples embed.FS

// build makes the files of the package of a version, by their paths in it.
func build(s *sources, version string) (map[string][]byte, error) {
	meanings, err := readMeanings(s.fields)
	if err != nil {
		return nil, err
	}
	files, err := kibanaFiles(s.kibana)
	if err != nil {
		return nil, err
	}
	// put writes a file of YAML.
	put := func(path string, v any) {
		if err != nil {
			return
		}
		var text []byte
		if text, err = yaml.MarshalWithOptions(v, yaml.Indent(2), yaml.IndentSequence(true)); err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
			return
		}
		if strings.Contains(path, "/ingest_pipeline/") {
			text = append([]byte("---\n"), text...) // the specification wants it there
		}
		files[path] = text
	}
	put("manifest.yml", packageManifest(version))
	put("changelog.yml", []release{{version, []change{{
		Description: "The fields, rules and dashboards of oddcert " + version + ".",
		Type:        "enhancement",
		Link:        "https://csirt.divd.nl/cases/DIVD-2022-00013/", // a link has to be there; this is the case that oddcert began with
	}}}})
	files["validation.yml"] = []byte(exclusions)
	files["LICENSE.txt"] = s.license
	files["img/oddcert.svg"] = iconFile
	tables := map[string][]field{}
	for _, d := range datasets {
		m, readErr := readMappings(s.templates, d)
		if readErr != nil {
			return nil, readErr
		}
		tables[d.name] = fieldsOf(m, meanings)
		sample, readErr := samples.ReadFile("samples/" + d.name + ".json")
		if readErr != nil {
			return nil, readErr
		}
		dir := "data_stream/" + d.name + "/"
		put(dir+"manifest.yml", d.manifest(m))
		put(dir+"fields/fields.yml", tables[d.name])
		put(dir+"elasticsearch/ingest_pipeline/default.yml", d.pipeline())
		files[dir+"agent/stream/"+agentFile] = []byte(d.agentTemplate())
		files[dir+"sample_event.json"] = sample

		if d.name == "certificate" {
			dir := "elasticsearch/transform/certificate/"
			put(dir+"transform.yml", latestCertificate())
			put(dir+"manifest.yml", transformManifest{true, d.manifest(m).Elasticsearch.IndexTemplate})
			put(dir+"fields/fields.yml", tables[d.name])
			dir = "elasticsearch/transform/servers/"
			put(dir+"transform.yml", serversByCertificate())
			put(dir+"manifest.yml", transformManifest{true, d.manifest(m).Elasticsearch.IndexTemplate})
			put(dir+"fields/fields.yml", inventoryFields(tables[d.name]))
		}
	}
	if err != nil {
		return nil, err
	}
	files["docs/README.md"] = readme(tables)
	return files, nil
}

// packageManifest is manifest.yml of the package. Detection rules need Elastic
// Security.
func packageManifest(version string) manifest {
	return manifest{
		FormatVersion: formatVersion,
		Name:          "oddcert",
		Title:         "oddcert",
		Version:       version,
		Source:        source{"Apache-2.0"},
		Description:   "Collect TLS certificates and handshakes, and alerts about them, from mirror ports with oddcert.",
		Type:          "integration",
		Categories:    []string{"security", "network_security"},
		Conditions:    conditions{kibanaCondition{kibanaVersions}, elasticCondition{"basic", []string{"security"}}},
		Icons:         []icon{{"/img/oddcert.svg", "oddcert", "32x32", "image/svg+xml"}},
		PolicyTemplates: []policyTemplate{{
			Name: "oddcert", Title: "oddcert records", Description: "Records that oddcert wrote to files",
			Inputs: []input{{
				Type: "filestream", Title: "Collect records from files", Description: "Files that oddcert writes with --json",
				Vars: []variable{{
					Name: "paths", Type: "text", Title: "Paths", Multi: true, Required: true, ShowUser: true,
					Description: "Files of records, one JSON object a line",
					Default:     []string{"/var/log/oddcert/*.json"},
				}},
			}},
		}},
		Owner: owner{"oddcert/oddcert", "community"},
	}
}
