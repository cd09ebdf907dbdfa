package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// dataset is a kind of record, and what the package says of it.
type dataset struct {
	name        string // the last part of event.dataset
	stream      string // "logs" or "metrics"
	title       string
	description string
}

// datasets are all of them.
var datasets = []dataset{
	{"alert", "logs", "Alerts", "A rule matched a handshake. The record has everything that the rule looked at."},
	{"handshake", "logs", "Handshakes", "One record for each TLS, DTLS and QUIC handshake. It names certificates by their hashes."},
	{"certificate", "logs", "Certificates", "Each distinct certificate, complete, once a day for each sensor."},
	{"sighting", "logs", "Sightings", "A certificate that a sensor had not seen before on this server and under this name."},
	{"hello", "logs", "Client hellos", "What a kind of client offers, once a day for each sensor."},
	{"stats", "metrics", "Statistics", "What a sensor has read, decided and lost, every 30 s."},
}

// String is the name of the dataset in the records.
func (d dataset) String() string { return "oddcert." + d.name }

// mapping is the mapping of a field or of an object, with those parameters that
// the program's templates use.
type mapping struct {
	Type          string              `json:"type,omitempty"`
	Value         string              `json:"value,omitempty"`
	Path          string              `json:"path,omitempty"`
	IgnoreAbove   int                 `json:"ignore_above,omitempty"`
	Normalizer    string              `json:"normalizer,omitempty"`
	CopyTo        string              `json:"copy_to,omitempty"`
	Index         *bool               `json:"index,omitempty"`
	DocValues     *bool               `json:"doc_values,omitempty"`
	IncludeInRoot bool                `json:"include_in_root,omitempty"`
	Properties    map[string]*mapping `json:"properties,omitempty"`
}

// dynamicTemplate maps fields that have no mapping of their own.
type dynamicTemplate struct {
	PathMatch        string   `json:"path_match,omitempty" yaml:"path_match,omitempty"`
	MatchMappingType string   `json:"match_mapping_type,omitempty" yaml:"match_mapping_type,omitempty"`
	Mapping          *dynamic `json:"mapping" yaml:"mapping"`
}

type dynamic struct {
	Type        string `json:"type" yaml:"type"`
	IgnoreAbove int    `json:"ignore_above,omitempty" yaml:"ignore_above,omitempty"`
}

// mappings are the mappings of a dataset.
type mappings struct {
	Dynamic          bool                         `json:"dynamic"`
	DateDetection    bool                         `json:"date_detection"`
	NumericDetection bool                         `json:"numeric_detection"`
	DynamicTemplates []map[string]dynamicTemplate `json:"dynamic_templates"`
	Properties       map[string]*mapping          `json:"properties"`
}

// readMappings returns the program's mappings of a dataset. A parameter that the
// package could not express is an error.
func readMappings(templates map[string][]byte, d dataset) (*mappings, error) {
	name := "_component_template/" + d.String() + "@mappings.json"
	var component struct {
		Meta     json.RawMessage `json:"_meta"`
		Template struct {
			Settings json.RawMessage `json:"settings"` // which a package cannot say
			Mappings *mappings       `json:"mappings"`
		} `json:"template"`
	}
	decoder := json.NewDecoder(bytes.NewReader(templates[name]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&component); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if component.Template.Mappings == nil {
		return nil, fmt.Errorf("read %s: there are no mappings in it", name)
	}
	return component.Template.Mappings, nil
}

// field is a field as a file fields/*.yml defines it.
type field struct {
	Name          string `yaml:"name"`
	Type          string `yaml:"type"`
	ObjectType    string `yaml:"object_type,omitempty"`
	Description   string `yaml:"description,omitempty"`
	Value         string `yaml:"value,omitempty"`
	Path          string `yaml:"path,omitempty"`
	IgnoreAbove   int    `yaml:"ignore_above,omitempty"`
	Normalizer    string `yaml:"normalizer,omitempty"`
	CopyTo        string `yaml:"copy_to,omitempty"`
	Index         *bool  `yaml:"index,omitempty"`
	DocValues     *bool  `yaml:"doc_values,omitempty"`
	IncludeInRoot bool   `yaml:"include_in_root,omitempty"`
}

// What FIELDS.md says of fields, as the package says it.
const (
	ofECS       = "As the Elastic Common Schema defines it"
	anotherName = "Another name of "
)

// fieldsOf are the fields of m in the order of their names.
func fieldsOf(m *mappings, meanings map[string]string) []field {
	byName := map[string]field{}
	var add func(prefix string, properties map[string]*mapping)
	add = func(prefix string, properties map[string]*mapping) {
		for name, p := range properties {
			name = prefix + name
			if p.Type != "" {
				meaning := meanings[name]
				if p.Type != "alias" && strings.HasPrefix(meaning, anotherName) { // where the record has the field itself
					meaning = ofECS + "."
				}
				byName[name] = field{
					Name: name, Type: p.Type, Description: meaning, Value: p.Value, Path: p.Path, IgnoreAbove: p.IgnoreAbove,
					Normalizer: p.Normalizer, CopyTo: p.CopyTo, Index: p.Index, DocValues: p.DocValues, IncludeInRoot: p.IncludeInRoot,
				}
			}
			add(name+".", p.Properties)
		}
	}
	add("", m.Properties)
	for _, templates := range m.DynamicTemplates {
		for _, t := range templates {
			if t.PathMatch != "" {
				byName[t.PathMatch] = field{Name: t.PathMatch, Type: "object", ObjectType: t.Mapping.Type, Description: meanings[t.PathMatch]}
			}
		}
	}
	// The specification of packages wants it so. An index of date cuts times to
	// milliseconds in searches; the documents keep the nanoseconds.
	if time, ok := byName["@timestamp"]; ok {
		time.Type = "date"
		byName["@timestamp"] = time
	}
	sorted := make([]field, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		sorted = append(sorted, byName[name])
	}
	return sorted
}

// generalTemplates are the dynamic templates of m that are not about one field.
func generalTemplates(m *mappings) (general []map[string]dynamicTemplate) {
	for _, templates := range m.DynamicTemplates {
		for name, t := range templates {
			if t.PathMatch == "" {
				general = append(general, map[string]dynamicTemplate{name: t})
			}
		}
	}
	return general
}

// readMeanings reads from the table of FIELDS.md what each field is.
func readMeanings(text []byte) (map[string]string, error) {
	meanings := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 7 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name, meaning := strings.Trim(cells[1], " `"), strings.TrimSpace(strings.Join(cells[4:len(cells)-2], "|"))
		switch {
		case meaning == "ECS":
			meaning = ofECS
		case meaning == "rules":
			meaning = "As the documentation of oddcert's rules explains it"
		default:
			meaning = strings.TrimPrefix(meaning, "ECS, ")
			meaning = strings.ToUpper(meaning[:1]) + meaning[1:]
		}
		names := []string{name}
		if rest, ok := strings.CutPrefix(name, "CERT."); ok {
			names = []string{"oddcert.certificate." + rest, "oddcert.chain." + rest, "oddcert.client_chain." + rest}
		}
		for _, n := range names {
			meanings[n] = meaning + "."
		}
	}
	if len(meanings) == 0 {
		return nil, fmt.Errorf("read FIELDS.md: there is no table in it")
	}
	return meanings, nil
}
