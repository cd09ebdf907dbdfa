package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/goccy/go-yaml"

	"github.com/oddcert/oddcert/packaging/sigma/sigmatest"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

const sigmaPipeline = "../packaging/sigma/oddcert.yml"

// The pipeline for pySigma knows every field that rules may use, and where the
// records have it.
func TestSigmaPipelineKnowsFields(t *testing.T) {
	text, err := os.ReadFile(sigmaPipeline)
	if err != nil {
		t.Fatal(err)
	}
	type condition struct {
		Type, Field, Mode string
		Fields            []string
	}
	type item struct {
		ID, Type string
		Rules    any         `yaml:"rule_conditions"`
		Names    []condition `yaml:"field_name_conditions"`
	}
	var pipeline struct{ Transformations []item }
	if err := yaml.Unmarshal(text, &pipeline); err != nil {
		t.Fatal(err)
	}
	lists := map[string]string{} // of each field, the list that it is in
	var values []*regexp.Regexp  // of the names whose values are rewritten
	for _, it := range pipeline.Transformations {
		conditions, _ := it.Rules.([]any)
		for _, c := range conditions {
			c, _ := c.(map[string]any)
			if c["type"] != "contains_field" {
				continue
			}
			name, _ := c["field"].(string)
			if lists[name] != "" {
				t.Errorf("%s is in two lists: %s and %s", name, lists[name], it.ID)
			}
			lists[name] = it.ID
		}
		for _, c := range it.Names {
			for _, f := range c.Fields {
				if c.Mode != "re" {
					f = regexp.QuoteMeta(f) + "$"
				}
				values = append(values, regexp.MustCompile("^"+f))
			}
		}
	}
	for _, name := range rules.FieldNames() {
		list := lists[name]
		delete(lists, name)
		f, known := schema.Lookup(name)
		if !known {
			t.Errorf("no record has %s", name)
			continue
		}
		if list == "" {
			t.Errorf("%s is in no list", name)
		}
		if !(f.In | f.Template).Has(schema.Handshake) {
			t.Errorf("no record of a handshake has %s", name)
		}
		lean := list == "flow" || list == "leaf" || list == "chain_hash" || list == "client_chain_hash"
		if lean == f.Full {
			t.Errorf("%s is in list %s; only in full records: %v", name, list, f.Full)
		}
		there := name // in the record of a certificate
		for _, prefix := range []string{"oddcert.chain.", "oddcert.client_chain."} {
			if after, ok := strings.CutPrefix(name, prefix); ok {
				there = "oddcert.certificate." + after
			}
		}
		if list == "leaf" || list == "full_leaf" || there != name {
			if g, ok := schema.Lookup(there); !ok || !g.In.Has(schema.Certificate) || g.Type != f.Type {
				t.Errorf("the record of a certificate has no %s of type %s", there, f.Type)
			}
		}
		// A keyword is compared to the letter, and rules do not mind the case.
		rewritten := slices.ContainsFunc(values, func(re *regexp.Regexp) bool { return re.MatchString(there) })
		if f.Type == schema.Keyword && !rewritten && !strings.HasSuffix(name, ".policies") { // these have digits and dots
			t.Errorf("the values of %s are left in the case that the rule has", name)
		}
	}
	for name, list := range lists {
		t.Errorf("list %s has %s, which rules cannot ask for", list, name)
	}
}

// convertSigma is a program for pySigma. It reads a pipeline and rules, and
// writes the queries of each rule by target, and for each what went wrong.
const convertSigma = `
import json, sys
from sigma.collection import SigmaCollection
from sigma.processing.pipeline import ProcessingPipeline
from sigma.backends.elasticsearch import LuceneBackend, EqlBackend, ESQLBackend

task = json.load(sys.stdin)
backends = {"lucene": LuceneBackend, "eql": EqlBackend, "esql": ESQLBackend}
answers = []
for rule in task["rules"]:
    answer = {}
    for target, backend in backends.items():
        try:
            pipeline = ProcessingPipeline.from_yaml(task["pipeline"])
            queries = backend(processing_pipeline=pipeline).convert(SigmaCollection.from_yaml(rule))
            answer[target] = {"query": "\n".join(queries)}
        except Exception as e:
            answer[target] = {"error": str(e) or repr(e)}
    answers.append(answer)
json.dump(answers, sys.stdout)
`

// converted is what became of a rule for one target.
type converted struct{ Query, Error string }

// convert lets pySigma convert rules with the pipeline, to each target.
func convert(t *testing.T, texts []string) []map[string]converted {
	t.Helper()
	pipeline, err := os.ReadFile(sigmaPipeline)
	if err != nil {
		t.Fatal(err)
	}
	var answers []map[string]converted
	sigmatest.Run(t, sigmatest.Converter, convertSigma, map[string]any{"pipeline": string(pipeline), "rules": texts}, &answers)
	if len(answers) != len(texts) {
		t.Fatalf("%d answers to %d rules", len(answers), len(texts))
	}
	return answers
}

// shippedRules returns the text of each rule that is part of the program, by its
// path.
func shippedRules(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	packs := rules.PackFiles()
	err := fs.WalkDir(packs, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(name) != ".yml" {
			return err
		}
		b, err := fs.ReadFile(packs, name)
		texts[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// ofHandshake finds the fields that are of a handshake, and not of its certificates.
var ofHandshake = regexp.MustCompile(`\b(oddcert\.(trust|key_proof|network|ocsp|flagged|shape|carrier|certificates)|network\.direction|tls\.(client\.server_name|cipher|version))\b`)

// between is what is in a text from one word on to another.
func between(text, from, to string) string {
	_, text, _ = strings.Cut(text, from)
	text, _, _ = strings.Cut(text, to)
	return text
}

// Every rule that is part of the program becomes a query in each language of
// Elasticsearch, on the data stream that has all that it asks about.
func TestSigmaConvertsShippedRules(t *testing.T) {
	var names, texts []string
	for name, text := range shippedRules(t) {
		names, texts = append(names, name), append(texts, text)
	}
	for i, answer := range convert(t, texts) {
		detection := between(texts[i], "\ndetection:", "\nlevel:")
		dataset := "oddcert.handshake"
		if strings.Contains(detection, "oddcert.chain.") && !ofHandshake.MatchString(detection) {
			dataset = "oddcert.certificate"
		}
		for target, c := range answer {
			if target != "esql" && strings.Contains(texts[i], "\ncorrelation:") {
				continue // packaging/sigma/README.md says which language is for what
			}
			if strings.Contains(detection, ".not_before|startswith:") && strings.Contains(c.Error, "does not compare times with wildcards") {
				continue
			}
			if c.Error != "" || !strings.Contains(c.Query, dataset) || dataset == "oddcert.certificate" && strings.Contains(c.Query, "oddcert.chain.") {
				t.Errorf("%s to %s: %s %s", names[i], target, c.Query, c.Error)
			}
		}
	}
}

// The pipeline chooses the data stream, writes values as records do, and refuses
// what it cannot say.
func TestSigmaPipeline(t *testing.T) {
	type want struct{ detection, query string } // a part of the query, or of the error
	const handshake, certificate = "event.dataset:oddcert.handshake AND ", "event.dataset:oddcert.certificate AND "
	cases := []want{
		// Which data stream.
		{"a: {server.port: 443}", handshake + "server.port:443"},
		{"a: {tls.server.hash.sha1: 'aa:bb'}", handshake + "tls.server.hash.sha1:AABB"},
		{"a: {oddcert.chain.hash.sha256: aabb}", handshake + "oddcert.chain.hash.sha256:AABB"},
		{"a: {oddcert.chain.hash.sha256: aabb, server.port: 443}", handshake + "(oddcert.chain.hash.sha256:AABB AND server.port:443)"},
		{"a: {oddcert.chain.hash.sha256: aabb, oddcert.chain.is_ca: true}", certificate + "(oddcert.certificate.hash.sha256:AABB AND oddcert.certificate.is_ca:true)"},
		{"a: {oddcert.client_chain.is_ca: true}", "oddcert.certificate.role:client AND (" + certificate + "oddcert.certificate.is_ca:true)"},
		{"a: {tls.server.x509.public_key_size: 512, tls.server.hash.sha1: aabb}", certificate + "(tls.server.x509.public_key_size:512 AND tls.server.hash.sha1:AABB)"},
		{"a: {tls.server.x509.public_key_size: 512, server.port: 443}", handshake + "(tls.server.x509.public_key_size:512 AND server.port:443)"},
		{"a: {oddcert.chain.is_ca: true, server.port: 443}", handshake + "(oddcert.chain.is_ca:true AND server.port:443)"},
		{"a: {oddcert.chain.is_ca: true, oddcert.client_chain.is_ca: true}", handshake + "(oddcert.chain.is_ca:true AND oddcert.client_chain.is_ca:true)"},
		{"a: {tls.client.supported_ciphers: tls_null_with_null_null}", handshake + "tls.client.supported_ciphers:TLS_NULL_WITH_NULL_NULL"},
		{"a: {Image: cmd.exe}", "the rule names no field of oddcert"},
		// How values are written.
		{"a: {tls.client.server_name: a1.example}", handshake + `tls.client.server_name:/[aA]1\.[eE][xX][aA][mM][pP][lL][eE]/`},
		{"a: {tls.client.server_name|endswith: .ab}", handshake + `tls.client.server_name:/.*\.[aA][bB]/`},
		{"a: {oddcert.chain.x509.alternative_names: a@b}", certificate + `oddcert.certificate.x509.alternative_names:a@b`},
		{"a: {oddcert.chain.x509.serial_number: ['00:1c:67', '0x1c6', 12, '00']}", certificate + "(oddcert.certificate.x509.serial_number:(1C67 OR 01C6 OR 12 OR 00))"},
		{"a: {tls.client.ja3: 0123456789ABCDEF0123456789ABCDEF}", handshake + "tls.client.ja3:0123456789abcdef0123456789abcdef"},
		{"a: {client.mac: ['00:1c:b3:09:85:15', 001cb3098516]}", handshake + `(client.mac:(00\-1C\-B3\-09\-85\-15 OR 00\-1C\-B3\-09\-85\-16))`},
		{"a: {tls.server.not_after: '2026-01-02'}", handshake + `tls.server.not_after:2026\-01\-02T00\:00\:00Z`},
		{"a: {tls.server.not_after: '2019-*'}", "does not compare times with wildcards"},
		{"a: {oddcert.loss: Gap}", handshake + "oddcert.loss:gap"},
		{"a: {tls.version: '1.2'}", handshake + "tls.version:1.2"},
		{"a: {server.ip|cidr: 10.0.0.0/8}", handshake + `server.ip:10.0.0.0\/8`},
		{"a: {tls.client.server_name|expand: '%names%'}", "names"},
	}
	var texts []string
	for _, c := range cases {
		texts = append(texts, "title: A rule\nid: 11111111-2222-3333-4444-555555555555\nlevel: low\ntaxonomy: ecs\n"+
			"logsource: {category: network, service: tls}\ndetection:\n  "+c.detection+"\n  condition: a\n")
	}
	for i, answer := range convert(t, texts) {
		got := answer["lucene"]
		if got.Error == "" && got.Query != cases[i].query || got.Error != "" && !strings.Contains(got.Error, cases[i].query) {
			b, _ := json.Marshal(got)
			t.Errorf("%s: %s\nwant %s", cases[i].detection, b, cases[i].query)
		}
	}
}

// A correlation becomes a query on the data stream of the rules that it names, in the
// languages that can say it; a filter becomes part of the query, and a comparison of
// fields one of ES|QL.
func TestSigmaConvertsCorrelations(t *testing.T) {
	base := func(name, detection string) string {
		return "title: Rule " + name + "\nid: 00000000-0000-0000-0000-00000000000" + name + "\nname: r" + name + "\nlevel: low\nlogsource: {product: oddcert}\n" +
			"detection: {a: {" + detection + "}, condition: a}\n---\n"
	}
	correlation := func(section string) string {
		return base("1", "server.port: 443") + base("2", "server.port: 444") + "title: C\nid: 11111111-2222-3333-4444-555555555555\nlevel: low\ncorrelation: {" + section + "}\n"
	}
	cases := []struct {
		text string
		want map[string]string // by target, a part of the query, or of the error
	}{
		{correlation("type: value_count, rules: r1, group-by: tls.server.hash.sha256, timespan: 1d, condition: {gte: 5, field: server.ip}"), map[string]string{
			"esql": "from logs-oddcert.handshake-* metadata _id, _index, _version | where event.dataset==\"oddcert.handshake\" and server.port==443\n" +
				"| eval timebucket=date_trunc(1days, @timestamp) | stats value_count=count_distinct(server.ip) by timebucket, tls.server.hash.sha256\n| where value_count >= 5",
			"lucene": "does not support correlation rules",
		}},
		{correlation("type: event_count, rules: r1, group-by: client.ip, timespan: 1h, condition: {gte: 5}"), map[string]string{
			"esql": "stats event_count=count() by timebucket, client.ip\n| where event_count >= 5", "eql": "with runs=5"}},
		{correlation("type: temporal, rules: [r1, r2], group-by: server.ip, timespan: 1h"), map[string]string{"esql": "| where event_type_count >= 2"}},
		{correlation("type: temporal_ordered, rules: [r1, r2], group-by: server.ip, timespan: 1h"), map[string]string{"eql": "sequence by server.ip with maxspan=1h"}},
		{base("1", "server.port: 443") + "title: F\nlogsource: {product: oddcert}\nfilter: {rules: r1, a: {server.ip: 192.0.2.1}, condition: not a}\n", map[string]string{
			"lucene": "server.port:443 AND (NOT server.ip:192.0.2.1)", "esql": "not server.ip==", "eql": "not server.ip"}},
		{base("1", "server.port|fieldref: client.port"), map[string]string{"esql": "server.port==client.port", "lucene": "can't handle field references"}},
	}
	texts := make([]string, len(cases))
	for i, c := range cases {
		texts[i] = c.text
		if _, err := rules.Load(rules.Source{Name: "dir", FS: fstest.MapFS{"r.yml": {Data: []byte(c.text)}}}); err != nil {
			t.Error(err)
		}
	}
	for i, answer := range convert(t, texts) {
		for target, want := range cases[i].want {
			if got := answer[target]; !strings.Contains(got.Query, want) && !strings.Contains(got.Error, want) {
				t.Errorf("%s to %s: %q %s", cases[i].text, target, got.Query, got.Error)
			}
		}
	}
}
