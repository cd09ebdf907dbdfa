package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// savedObject is a saved object as Kibana imports and exports it.
type savedObject struct {
	ID                   string          `json:"id"`
	Type                 string          `json:"type"`
	Attributes           json.RawMessage `json:"attributes"`
	References           []reference     `json:"references"`
	CoreMigrationVersion string          `json:"coreMigrationVersion,omitempty"`
	TypeMigrationVersion string          `json:"typeMigrationVersion,omitempty"`
}

type reference struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

// folders are the folders of a package for the types of saved objects.
var folders = map[string]string{
	"dashboard":     "dashboard",
	"index-pattern": "index_pattern",
	"lens":          "lens",
	"map":           "map",
	"search":        "search",
	"security-rule": "security_rule",
	"tag":           "tag",
	"visualization": "visualization",
}

// ruleOwn are the members of a detection rule that belong to a Kibana, and have no
// place in a package.
var ruleOwn = []string{
	"id", "actions", "created_at", "created_by", "enabled", "execution_summary", "immutable", "meta", "namespace", "outcome",
	"output_index", "response_actions", "revision", "rule_source", "throttle", "updated_at", "updated_by",
}

// kibanaFiles splits files of saved objects and of detection rules, as Kibana imports
// them, into the files of a package: one for each object.
func kibanaFiles(ndjson map[string][]byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, text := range ndjson {
		number := 0
		for line := range bytes.Lines(text) {
			number++
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			o, err := readObject(line)
			if err != nil {
				return nil, fmt.Errorf("read %s, line %d: %w", name, number, err)
			}
			if o == nil {
				continue
			}
			path := "kibana/" + folders[o.Type] + "/" + o.ID + ".json"
			if files[path] != nil {
				return nil, fmt.Errorf("read %s, line %d: there is another %s %s", name, number, o.Type, o.ID)
			}
			if files[path], err = json.MarshalIndent(o, "", "  "); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// readObject reads a line: a saved object or a detection rule, or nil for the last
// line of an export, which counts the others.
func readObject(line []byte) (*savedObject, error) {
	var o struct {
		savedObject
		RuleID        string `json:"rule_id"`
		Version       any    `json:"version"` // a number in rules, a text in saved objects
		ExportedCount *int   `json:"exportedCount"`
		RulesCount    *int   `json:"exported_rules_count"`
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, err
	}
	if o.ExportedCount != nil || o.RulesCount != nil {
		return nil, nil
	}
	if o.RuleID != "" && o.Attributes == nil {
		return ruleObject(line, o.RuleID, o.Version)
	}
	switch folder := folders[o.Type]; {
	case folder == "":
		return nil, fmt.Errorf("a package has no place for a saved object of type %q", o.Type)
	case o.ID == "" || strings.ContainsAny(o.ID, `/\`):
		return nil, fmt.Errorf("the id %q of a %s cannot name a file", o.ID, o.Type)
	case o.Type != "index-pattern" && o.Type != "security-rule" && !strings.HasPrefix(o.ID, "oddcert-"):
		return nil, fmt.Errorf("the id %q of a %s does not begin with the name of the package", o.ID, o.Type)
	}
	if o.References == nil {
		o.References = []reference{}
	}
	return &o.savedObject, nil
}

// ruleObject makes the saved object that installs a detection rule.
func ruleObject(line []byte, id string, version any) (*savedObject, error) {
	number, ok := version.(float64)
	if !ok || number < 1 || number != float64(int(number)) {
		return nil, fmt.Errorf("the version of rule %s is not a number from 1 on", id)
	}
	var rule map[string]json.RawMessage
	if err := json.Unmarshal(line, &rule); err != nil {
		return nil, err
	}
	for name := range rule {
		if slices.Contains(ruleOwn, name) {
			delete(rule, name)
		}
	}
	attributes, err := json.Marshal(rule)
	if err != nil {
		return nil, err
	}
	return &savedObject{
		ID: fmt.Sprintf("%s_%d", id, int(number)), Type: "security-rule", Attributes: attributes, References: []reference{},
	}, nil
}
