package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestOutputSettings sets each setting of each type to its example, in a file and as a
// flag, and holds that both say the same.
func TestOutputSettings(t *testing.T) {
	for _, kind := range outputTypes {
		keys := map[string]bool{}
		for _, s := range new(outputConfig).table() {
			if !s.has(kind.name) {
				continue
			}
			if keys[s.key] || s.usage == "" || s.example == "" || s.key != strings.ToLower(s.key) {
				t.Errorf("%s: %+v", kind.name, s)
			}
			keys[s.key] = true
			if s.key == "type" {
				continue
			}
			inFile := &config{file: "example.yaml"}
			err := inFile.applyYAML(fmt.Appendf(nil, "output:\n  siem:\n    type: %s\n    %s: %s\n", kind.name, s.key, s.example))
			if err == nil {
				err = wrongSetting(inFile, s.key)
			}
			if err != nil {
				t.Errorf("%s: %s: %v", kind.name, s.key, err)
				continue
			}
			asFlag := new(config)
			parts := inFile.Outputs[0].given[1].parts
			texts := []string{"siem.type=" + kind.name + ", siem." + s.key + "=" + strings.Join(parts, ",")}
			err = asFlag.find("output").applyText(texts, "--output")
			if err == nil {
				err = wrongSetting(asFlag, s.key)
			}
			if got := asFlag.Outputs[0].given[1].parts; err != nil || !slices.Equal(got, parts) {
				t.Errorf("%s: %s: %q as a flag, %q in a file: %v", kind.name, s.key, got, parts, err)
			}
		}
	}
}

// wrongSetting is what is wrong with one setting of the only output; that others are
// missing is no matter.
func wrongSetting(c *config, key string) error {
	o := c.Outputs[0]
	if err := o.set(o.find("type", ""), o.given[0]); err != nil {
		return err
	}
	s := o.find(key, o.Type)
	if s == nil {
		return fmt.Errorf("no such setting")
	}
	return o.set(s, o.given[1])
}

// TestOutputMistakes names everything that is wrong with outputs, with its place.
func TestOutputMistakes(t *testing.T) {
	c := &config{file: "c.yaml"}
	err := c.applyYAML([]byte(`output:
  siem:
    type: kafka
    level: hihg
    index: x
  Bad: {type: file}
  two: {type: kafka2}
  three:
    path: a
  four: {type: file, format: eve, path: a, records: hello}
  five: {type: file, path: a, where: "oddcert.verdit: forged"}
  six: 6
  siem: {type: file}
  seven: {type: file, type: file}
  eight: {type: syslog, url: "http://x"}
  nine: {type: webhook, url: "https://u:p@x", certificate_file: a}
`))
	var said bytes.Buffer
	fmt.Fprintln(&said, err)
	fmt.Fprintln(&said, c.checkOutputs())
	for _, want := range []string{
		"c.yaml:4:12: output siem: level: \"hihg\" is not one of low, medium, high, critical: did you mean high?",
		"c.yaml:5:12: output siem: index: type kafka has no such setting",
		"c.yaml:6:3: output \"Bad\": a name is",
		"output two: type: \"kafka2\" is not one of ",
		"c.yaml:9:11: output three: type is missing",
		"output four: records: format eve has no form for any of them",
		"output five: where: 1:1: \"oddcert.verdit\": is not a known field: did you mean oddcert.verdict?",
		"c.yaml:12:8: output six: a mapping of settings is expected",
		"c.yaml:13:3: output siem is repeated",
		"output seven: type is repeated",
		"output eight: url: ",
		"output nine: url: credentials in",
		"output nine: key_file: is missing",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said", want)
		}
	}
	if strings.Contains(said.String(), "u:p") {
		t.Error("a password is said")
	}
	if t.Failed() {
		t.Log(said.String())
	}
}
