package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/rules"
)

// asked is a question to handshakes, as a rule and as a selection.
type asked struct {
	id, detection string
	selection     *rules.Selection
}

// ask writes detections as rules to a folder, and reads them as selections.
func ask(t *testing.T, detections []string) (dir string, all []asked) {
	t.Helper()
	dir = t.TempDir()
	fields := recordFields()
	var text strings.Builder
	for i, d := range detections {
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		s, err := rules.ParseSelection(d, fields)
		if err != nil {
			t.Fatalf("%v in\n%s", err, d)
		}
		fmt.Fprintf(&text, "---\ntitle: Question %d\nid: %s\nlevel: low\nlogsource: {product: oddcert, category: tls}\ndetection:\n%s\n", i, id, d)
		all = append(all, asked{id, d, s})
	}
	if err := os.WriteFile(filepath.Join(dir, "asked.yml"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, all
}

// agree compares what rules say of handshakes with what selections say of their
// records: alerts by rule for each handshake, against the handshake's record in full
// and its alerts.
func agree(t *testing.T, lines []byte, all []asked) (handshakes, matches int) {
	t.Helper()
	type told struct {
		lines []string // of the handshake and its alerts
		rules map[string]bool
	}
	byID := map[string]*told{}
	for line := range bytes.Lines(lines) {
		var r struct {
			Time    string `json:"@timestamp"`
			Event   struct{ Dataset string }
			Rule    struct{ ID string }
			Source  party
			Dest    party `json:"destination"`
			Log     struct{ File struct{ Path string } }
			Oddcert struct {
				Alternative  bool
				Certificates string
			}
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Event.Dataset != "oddcert.handshake" && r.Event.Dataset != "oddcert.alert" {
			continue
		}
		key := fmt.Sprint(r.Time, r.Source, r.Dest, r.Log.File.Path, r.Oddcert)
		of := byID[key]
		if of == nil {
			of = &told{rules: map[string]bool{}}
			byID[key] = of
		}
		of.lines = append(of.lines, string(line))
		if r.Event.Dataset == "oddcert.alert" {
			of.rules[r.Rule.ID] = true
			matches++
		} else {
			handshakes++
		}
	}
	wrong := 0
	for _, key := range slices.Sorted(maps.Keys(byID)) {
		of := byID[key]
		lines := of.lines // one alert has what all of them have, beside the rule
		if len(lines) > 2 {
			lines = []string{lines[0], lines[len(lines)/2], lines[len(lines)-1]}
		}
		for _, line := range lines {
			for _, a := range all {
				if got := a.selection.Matches([]byte(line)); got != of.rules[a.id] {
					if wrong++; wrong < 20 {
						t.Errorf("the rule says %v, the selection %v, of %s:\n%s", of.rules[a.id], got, key, a.detection)
					}
				}
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d answers differ", wrong)
	}
	return handshakes, matches
}

// A built-in rule's detection holds for the record of a handshake exactly when the
// rule holds for the handshake.
func TestSelectionsAreRules(t *testing.T) {
	if testing.Short() {
		t.Skip("reads hundreds of captures")
	}
	dir := publicCorpus(t)
	var detections []string
	section := regexp.MustCompile(`(?ms)^detection:\n(.*?)^\S`)
	err := fs.WalkDir(rules.Builtin("hygiene").FS, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".yml" {
			return err
		}
		b, err := fs.ReadFile(rules.Builtin("hygiene").FS, name)
		for _, doc := range strings.Split(string(b), "\n---") {
			if m := section.FindStringSubmatch(doc); m != nil {
				detections = append(detections, m[1])
			}
		}
		return err
	})
	if err != nil || len(detections) < 30 {
		t.Fatalf("%d built-in rules: %v", len(detections), err)
	}
	folder, all := ask(t, detections)
	var stdout, stderr bytes.Buffer
	run([]string{"replay", "--json", "-", "--no-builtin", "--rules", folder, "--handshakes", "full", "--records", "handshake,alert",
		filepath.Join(dir, "captures"), capturesDir}, &stdout, &stderr)
	handshakes, matches := agree(t, stdout.Bytes(), all)
	if handshakes < 1000 || matches < 100 {
		t.Errorf("%d handshakes and %d matches: too few to tell", handshakes, matches)
	}
	t.Logf("%d rules, %d handshakes, %d matches", len(all), handshakes, matches)
}

// Each field that a rule can name has the same values in a record as in the handshake.
// The questions are made of what records have, read by encoding/json.
func TestSelectionsAskEachField(t *testing.T) {
	if testing.Short() {
		t.Skip("reads captures with hundreds of rules")
	}
	paths := []string{capturesDir}
	for _, name := range []string{"ntop+nDPI/tests/cfgs/default/pcap/google_ssl.pcap", "ntop+nDPI/tests/cfgs/default/pcap/dtls.pcap", "ntop+nDPI/tests/cfgs/default/pcap/anyconnect-vpn.pcap"} {
		if path := filepath.Join(corpusDir(), "captures", name); fileExists(path) {
			paths = append(paths, path)
		}
	}
	replay := func(args ...string) []byte {
		var stdout, stderr bytes.Buffer
		run(append(append([]string{"replay", "--json", "-", "--handshakes", "full", "--records", "handshake,alert"}, args...), paths...), &stdout, &stderr)
		return stdout.Bytes()
	}
	values := map[string]map[string]bool{}
	var collect func(name string, v any)
	collect = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, below := range v {
				collect(strings.TrimPrefix(name+"."+key, "."), below)
			}
		case []any:
			for _, one := range v {
				collect(name, one)
			}
		default:
			if values[name] == nil {
				values[name] = map[string]bool{}
			}
			values[name][fmt.Sprint(v)] = true
		}
	}
	for line := range bytes.Lines(replay("--pack", "hygiene")) {
		var record any
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber()
		if err := decoder.Decode(&record); err != nil {
			t.Fatal(err)
		}
		collect("", record)
	}
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `'`, `''`)
	var detections []string
	add := func(format string, args ...any) {
		detections = append(detections, "  a:\n    "+fmt.Sprintf(format, args...)+"\n  condition: a")
	}
	fields, asked := recordFields(), 0
	for _, name := range rules.FieldNames() {
		switch name {
		case "log.file.path", // in records without the folder that was named
			"oddcert.prevalence.names", // in records also where it is 0
			"oddcert.shape.coalesced":  // nothing is known of most handshakes, and false of a record that does not have it
			continue
		}
		if fields[name] == "boolean" {
			add("%s: true", name)
			add("%s: false", name)
			continue
		}
		add("%s: null", name)
		add("%s|exists: true", name)
		sorted := slices.SortedFunc(maps.Keys(values[name]), func(a, b string) int {
			return cmp.Or(-cmp.Compare(len(a)&3, len(b)&3), strings.Compare(a, b))
		})
		if len(sorted) > 0 {
			asked++
		}
		for i, v := range sorted[:min(2, len(sorted))] {
			quoted := "'" + escape.Replace(v) + "'"
			switch {
			case i == 0 && (fields[name] == "long" || fields[name] == "date"):
				add("%s|lte: %s", name, v)
				add("%s|gt: %s", name, v)
			case fields[name] == "ip":
				add("%s|cidr: %s/%d", name, v, map[bool]int{true: 128, false: 32}[strings.Contains(v, ":")])
			case fields[name] == "long":
				add("%s: %s", name, v)
			case i == 0:
				add("%s: %s", name, strings.ToUpper(quoted))
				add("%s|startswith|cased: '%s'", name, escape.Replace(v[:len(v)/2+1]))
			default:
				add("%s|re: '%s$'", name, strings.ReplaceAll(regexp.QuoteMeta(v), "'", "''"))
				add("%s|neq: %s", name, quoted)
			}
		}
	}
	folder, all := ask(t, detections)
	handshakes, matches := agree(t, replay("--no-builtin", "--rules", folder), all)
	if handshakes < 17 || asked < 90 {
		t.Errorf("%d handshakes, values of %d fields", handshakes, asked)
	}
	t.Logf("%d questions about %d of %d fields, %d handshakes, %d matches", len(all), asked, len(rules.FieldNames()), handshakes, matches)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
