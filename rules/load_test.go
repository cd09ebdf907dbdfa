package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// rule is a rule with the given selections and condition, indented by two.
func rule(detection string) string {
	return `title: A rule
id: 11111111-2222-3333-4444-555555555555
level: high
logsource:
  product: oddcert
detection:
` + "  " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n  ") + "\n"
}

func loadText(files map[string]string) (*Set, error) {
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return Load(Source{"dir", tree})
}

// mapFS is a tree of one file.
func mapFS(name, text string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(text)}} }

func mustLoad(t testing.TB, files map[string]string) *Set {
	t.Helper()
	s, err := loadText(files)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each wrong thing is reported with its place and token, and all at once.
func TestProblems(t *testing.T) {
	selection := func(line string) string {
		return rule("selection:\n  " + line + "\ncondition: selection")
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"unknown field": {selection("tls.client.servername: a"),
			[]string{`dir/r.yml:8:5: "tls.client.servername": is not a known field: did you mean tls.client.server_name?`}},
		"part of a field": {selection("sha256: a"), []string{`dir/r.yml:8:5: "sha256": is not a known field: did you mean`}},
		"unknown modifier": {selection("server.ip|startwith: a"),
			[]string{`dir/r.yml:8:15: "startwith": is not a supported modifier: did you mean startswith?`}},
		"base64":         {selection("tls.server.subject|base64: a"), []string{`dir/r.yml:8:24: "base64": is not a supported modifier`}},
		"fieldref":       {selection("tls.server.subject|fieldref: a"), []string{`dir/r.yml:8:34: "a": is not a known field`}},
		"fieldref kind":  {selection("tls.server.subject|fieldref: server.ip"), []string{`8:34: "server.ip": cannot be compared with tls.server.subject, which is of another kind`}},
		"fieldref chain": {selection("tls.client.server_name|fieldref: oddcert.chain.name"), []string{`8:38: "oddcert.chain.name": is of any certificate of a chain`}},
		"fieldref null":  {selection("tls.client.server_name|fieldref: null"), []string{`null cannot go with modifiers`}},
		"fieldref cased": {selection("tls.client.server_name|fieldref|cased: tls.server.subject"), []string{`"cased": cannot go with fieldref`}},
		"fieldref parts": {selection("tls.client.server_name|fieldref|contains: tls.server.subject"), []string{`"contains": cannot go with fieldref`}},
		"less than time": {selection("tls.server.not_after|lt: soon"), []string{`8:30: "soon": is not a time: write`}},
		"windash":        {selection("tls.server.subject|contains|windash: a"), []string{`dir/r.yml:8:33: "windash": is not a supported`}},
		"two operators":  {selection("tls.server.subject|contains|endswith: a"), []string{`8:33: "endswith": cannot go with contains`}},
		"re not first":   {selection("tls.server.subject|all|re: [a, b]"), []string{`8:28: "re": must be the first modifier`}},
		"flag alone":     {selection("tls.server.subject|i: a"), []string{`8:24: "i": may follow re only`}},
		"short hash":     {selection("tls.server.hash.sha256: 1234"), []string{`8:29: "1234": is not a value of tls.server.hash.sha256: write 64 hex digits`}},
		"hash of others": {selection("tls.server.hash.sha1:\n    - " + strings.Repeat("a", 64)), []string{`9:9: "aaaa`, `write 40 hex digits`}},
		"port":           {selection("server.port: https"), []string{`8:18: "https": is not a whole number`}},
		"address":        {selection("server.ip: 300.1.1.1"), []string{`8:16: "300.1.1.1": is not an IP address`}},
		"network":        {selection("server.ip: 10.0.0.0/8"), []string{`8:16: "10.0.0.0/8": is a network: write server.ip|cidr`}},
		"network bits":   {selection("server.ip|cidr: 10.1.0.0/8"), []string{`8:21: "10.1.0.0/8": has bits after its length: the network is 10.0.0.0/8`}},
		"cidr of a name": {selection("tls.server.subject|cidr: 10.0.0.0/8"), []string{`cidr needs an address, and tls.server.subject is not an address`}},
		"regex":          {selection("tls.server.subject|re: 'a(b'"), []string{`8:28: "a(b": missing closing )`}},
		"regex look":     {selection("tls.server.subject|re: '(?=a)'"), []string{`8:28: "(?=a)": invalid or unsupported Perl syntax`}},
		"regex bomb":     {selection("tls.server.subject|re: '((a{1000}){1000}){1000}'"), []string{`8:28: "((a{1000}){1000}){1000}": `}},
		"regex size":     {selection("tls.server.subject|re: '" + strings.Repeat("((a?){30}){30}", 20) + "'"), []string{`written out`}},
		"regex large":    {selection("tls.server.subject|re: '" + strings.Repeat("a", maxRegex+1) + "'"), []string{`a regular expression may have 4096 bytes at most`}},
		"regex empty":    {selection("tls.server.subject|re: ''"), []string{`8:28: an empty regular expression holds for every text`}},
		"less than text": {selection("tls.server.subject|lt: 3"), []string{`lt needs a number or a time, and tls.server.subject is neither`}},
		"less than word": {selection("server.port|lt: many"), []string{`8:21: "many": is not a whole number`}},
		"bool":           {selection("tls.resumed: yes"), []string{`8:18: "yes": is not true or false, which tls.resumed is`}},
		"bool contains":  {selection("tls.resumed|contains: true"), []string{`contains cannot go with tls.resumed, which is true or false`}},
		"cipher":         {selection("tls.cipher: TLS_RSA_WITH_NOTHING"), []string{`is not a known name of tls.cipher`}},
		"serial":         {selection("tls.server.x509.serial_number: xyz"), []string{`is not a serial number`}},
		"time":           {selection("tls.server.not_after: tomorrow"), []string{`"tomorrow": is not a time`}},
		"exists":         {selection("tls.cipher|exists: maybe"), []string{`8:24: "maybe": exists must be true or false`}},
		"empty contains": {selection("tls.server.subject|contains: ''"), []string{`an empty text is in every text`}},
		"null contains":  {selection("tls.server.subject|contains: null"), []string{`null cannot go with modifiers`}},
		"no values":      {selection("server.port: []"), []string{`8:5: "server.port": the list of values is empty`}},
		"map as value":   {selection("server.port: {a: 1}"), []string{`a value must be a text, a number, a truth value or null`}},
		"keywords":       {rule("selection:\n  - foo\ncondition: selection"), []string{`8:7: "selection": a selection must name fields: keywords are not supported`}},
		"keyword":        {rule("selection: foo\ncondition: selection"), []string{`7:3: "selection": a selection must name fields`}},
		"no field":       {selection("'|contains': foo"), []string{`8:5: "|contains": keywords are not supported`}},
		"expand":         {selection("server.ip|expand: foo"), []string{`"foo": must be the name of a list between percent signs`}},
		"expand up":      {selection("server.ip|expand: '%../x%'"), []string{`must be the name of a list`}},
		"no list":        {selection("server.ip|expand: '%nothing%'"), []string{`8:23: "%nothing%": dir/lists/nothing.txt: open: file does not exist`}},
		"condition name": {rule("selection:\n  server.port: 1\ncondition: selection and selektion"),
			[]string{`dir/r.yml:9:28: "selektion": is not a selection: did you mean selection?`}},
		"condition end":      {rule("a:\n  server.port: 1\ncondition: a and"), []string{`the condition ends where a selection is expected`}},
		"condition upper":    {rule("a:\n  server.port: 1\ncondition: a AND a"), []string{`9:16: "AND": operators are written in lower case`}},
		"condition pipe":     {rule("a:\n  server.port: 1\ncondition: a | count() > 3"), []string{`9:16: "|": aggregations are not supported`}},
		"condition paren":    {rule("a:\n  server.port: 1\ncondition: (a"), []string{`expected )`}},
		"condition of":       {rule("a:\n  server.port: 1\ncondition: 2 of them"), []string{`9:14: "2": the quantifier must be 1, any or all`}},
		"condition pattern":  {rule("a:\n  server.port: 1\ncondition: 1 of b*"), []string{`9:19: "b*": no selection has such a name`}},
		"condition wildcard": {rule("a1:\n  server.port: 1\ncondition: a*"), []string{`"a*": a pattern needs a quantifier`}},
		"condition quoted":   {rule("a:\n  server.port: 1\ncondition: 'a or b'"), []string{`9:20: "b": is not a selection`}},
		"no condition":       {rule("a:\n  server.port: 1"), []string{`6:1: "detection": the detection has no condition`}},
		"timeframe":          {rule("a:\n  server.port: 1\ntimeframe: 5m\ncondition: a"), []string{`9:3: "timeframe": timeframe is not supported: write a correlation rule`}},
		"unknown key":        {"levle: high\n" + rule("a:\n  server.port: 1\ncondition: a"), []string{`dir/r.yml:1:1: "levle": is not an attribute of a rule: did you mean level?`}},
		"correlation":        {"title: a\ncorrelation: {}\n", []string{`2:1: "correlation": the correlation has no type`}},
		"many": {"title: A\nid: 7\nlevel: severe\nstatus: new\ntags: [attack.foo, x]\ndate: 2020-13-01\nlogsource: {product: zeek}\ndetection: {a: {b: 1}, condition: c}\noddcert: {verdict: bad, reason: '{foo}', risk_score: 101, colour: red}\n",
			[]string{`2:5: "7": id must be a UUID`, `3:8: "severe": level must be one of informational, low`, `4:9: "new": status must be`,
				`5:8: "attack.foo": is not a tactic or technique`, `5:20: "x": a tag begins with a namespace`, `6:7: "2020-13-01": date must be a date`,
				`7:22: "zeek": logsource.product must be one of oddcert`, `8:17: "b": is not a known field`, `8:35: "c": is not a selection`,
				`9:20: "bad": verdict must be one of`, `9:35: "foo": is not a known field`, `9:54: "101": risk_score must be`, `9:59: "colour": is not an attribute of oddcert`}},
		"missing": {"author: me\n", []string{`the rule has no title`, `the rule has no id`, `the rule has no level`, `the rule has no logsource`, `the rule has no detection`}},
		"second document": {rule("a:\n  server.port: 1\ncondition: a") + "---\n" + strings.Replace(rule("a:\n  server.port: x\ncondition: a"), "1111-", "2111-", 1),
			[]string{`dir/r.yml:18:18: "x": is not a whole number`}},
		"same id":            {rule("a:\n  server.port: 1\ncondition: a") + "---\n" + rule("a:\n  server.port: 1\ncondition: a"), []string{`has this id too`, `dir/r.yml:1 `}},
		"duplicate key":      {"title: a\ntitle: b\n", []string{`dir/r.yml:2:1: "title": mapping key "title" already defined`}},
		"anchor":             {"title: &a b\n", []string{`"&": anchors and aliases are not supported`}},
		"bomb":               {"a: &a [x, x]\nb: &b [*a, *a]\n", []string{`anchors and aliases are not supported`}},
		"tag":                {"title: !!python/object x\n", []string{`tags are not supported`}},
		"deep flow":          {"title: " + strings.Repeat("[", 100000), []string{`nested more than 32 deep`}},
		"deep block":         {"a:\n- " + strings.Repeat("- ", 100000), []string{`nested more than 8 deep on one line`}},
		"carriage returns":   {strings.ReplaceAll(rule("a:\n  tls.client.server_name: >-\n    a\n    b\n  server.port: x\ncondition: a"), "\n", "\r\n"), []string{`dir/r.yml:11:18: "x": is not a whole number`}},
		"no YAML":            {"title: [\n", []string{`dir/r.yml:`}},
		"not a map":          {"- a\n- b\n", []string{`a rule must be a map`}},
		"not UTF-8":          {"title: a\nid: \xff\n", []string{`dir/r.yml:2:5: is not UTF-8`}},
		"too large":          {strings.Repeat("# padding\n", maxRuleFile/10+1), []string{`dir/r.yml: larger than`}},
		"long rule":          {"title: " + strings.Repeat("a", maxDocument), []string{`dir/r.yml:1:1: a document may have 1048576 bytes`}},
		"many keys":          {strings.Repeat("a: b\n", maxYAMLKeys+1), []string{`dir/r.yml:2001:2: ":": a document may have 2000 keys`}},
		"many empty entries": {"a:\n" + strings.Repeat("-\n", maxYAMLKeys+2), []string{`dir/r.yml:2002:1: "-": a document may have 2000 keys, with entries that have no value`}},
		"a set":              {"a: {" + strings.Repeat("b,", maxYAMLKeys+1) + "}", []string{`dir/r.yml:1:4004: ",": a document may have 2000 keys, with entries that have no value`}},
		"many sets":          {"a: [" + strings.Repeat("{b},", maxYAMLKeys+1) + "]", []string{`dir/r.yml:1:8003: "}": a document may have 2000 keys, with entries that have no value`}},
		"hidden document":    {rule("a:\n  server.port: 1\ncondition: a") + "...\ntitle: b\n", []string{`dir/r.yml:11:6: a second document begins without a line ---`}},
		"deep condition":     {rule("a:\n  server.port: 1\ncondition: " + strings.Repeat("(", 10000) + "a"), []string{`nested more than 64 deep`}},
		"deep not":           {rule("a:\n  server.port: 1\ncondition: " + strings.Repeat("not ", 10000) + "a"), []string{`nested more than 64 deep`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText(map[string]string{"r.yml": c.text})
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("no problems but %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("want %s\n in %s", w, clip(err.Error(), 2000))
				}
			}
			if name != "missing" && name != "correlation" && name != "many" && name != "hash of others" && len(problems) > max(1, len(c.want)) {
				t.Errorf("more problems than expected: %v", clip(err.Error(), 2000))
			}
			for line := range strings.Lines(err.Error()) {
				if !regexp.MustCompile(`^dir/[a-z/.]+(:[0-9]+:[0-9]+)?: .`).MatchString(line) {
					t.Errorf("a line of its own form: %q", line)
				}
			}
		})
	}
}

// A rule says that it is about TLS, in the words of this program or of Sigma's
// taxonomy. Rules for other sources mean something else by the same names.
func TestLogsource(t *testing.T) {
	with := func(logsource string) string {
		return strings.Replace(rule("a: {server.port: 1}\ncondition: a"), "logsource:\n  product: oddcert\n", "logsource: "+logsource+"\n", 1)
	}
	for logsource, category := range map[string]string{
		"{product: oddcert}":                                     "tls",
		"{category: tls}":                                        "tls",
		"{category: certificate, definition: any}":               "certificate",
		"{product: oddcert, category: certificate}":              "certificate",
		"{category: network, service: tls}":                      "network",
		"{category: network, service: ssl}":                      "network",
		"{category: network, service: x509}":                     "network",
		"{product: oddcert, category: network, service: tls}":    "network",
		"{product: oddcert, service: x509}":                      "tls",
		"{product: oddcert, category: network, definition: any}": "network",
	} {
		if s, err := loadText(map[string]string{"r.yml": with(logsource)}); err != nil || s.Rules()[0].Category != category {
			t.Errorf("%s: %v, want category %s", logsource, err, category)
		}
	}
	for logsource, want := range map[string]string{
		"{}":                                    `dir/r.yml:4:1: "logsource": logsource must be a map with product: oddcert`,
		"tls":                                   `4:1: "logsource": logsource must be a map`,
		"{definition: any}":                     `4:1: "logsource": logsource must have product: oddcert`,
		"{service: tls}":                        `4:1: "logsource": logsource must have product: oddcert`,
		"{category: network}":                   `4:13: "category": category: network is not about TLS alone: add service: tls`,
		"{category: network, service: dns}":     `4:41: "dns": logsource.service must be one of tls, ssl, x509`,
		"{category: proxy}":                     `4:23: "proxy": logsource.category must be one of tls, certificate, network`,
		"{product: zeek, service: ssl}":         `4:22: "zeek": logsource.product must be one of oddcert`,
		"{product: oddcert, vendor: somebody}":  `4:31: "vendor": is not supported in logsource`,
		"{category: network, product: windows}": `4:41: "windows": logsource.product must be one of oddcert`,
	} {
		_, err := loadText(map[string]string{"r.yml": with(logsource)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant %s", logsource, err, want)
		}
	}
	for _, taxonomy := range taxonomies {
		mustLoad(t, map[string]string{"r.yml": "taxonomy: " + taxonomy + "\n" + with("{category: tls}")})
	}
	_, err := loadText(map[string]string{"r.yml": "taxonomy: sigmo\n" + with("{category: tls}")})
	if want := `dir/r.yml:1:11: "sigmo": taxonomy must be one of ecs, sigma, oddcert: did you mean sigma?`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// Problems of several files come together, in order.
func TestAllProblemsAtOnce(t *testing.T) {
	bad := rule("a:\n  server.port: x\ncondition: b")
	_, err := loadText(map[string]string{"b/2.yaml": bad, "b/1.yml": bad, "a.yml": bad, ".hidden.yml": bad, "notes.txt": bad, ".git/x.yml": bad})
	want := "dir/a.yml:8:18 dir/a.yml:9:14 dir/b/1.yml:8:18 dir/b/1.yml:9:14 dir/b/2.yaml:8:18 dir/b/2.yaml:9:14"
	var places []string
	for line := range strings.Lines(fmt.Sprint(err)) {
		places = append(places, strings.SplitN(line, ": ", 2)[0])
	}
	if got := strings.Join(places, " "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestDirs(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	if _, err := Load(Builtin(), Dir(missing)); err == nil || !strings.HasPrefix(err.Error(), missing+": ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("missing directory: %v", err)
	}
	// A copy of a built-in rule takes its place, with a warning.
	b, err := fs.ReadFile(Builtin().FS, "microsoft-update/genuine.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mine.yml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "enabled: false", "enabled: true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(Builtin(), Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if w := s.Warnings(); len(w) != 1 || w[0].File != file || !strings.Contains(w[0].Text, "replaces the rule at packs/microsoft-update/genuine.yml:1") {
		t.Errorf("warnings: %v", w)
	}
	var mine []*Rule
	for _, r := range s.Rules() {
		if r.Title == "Genuine Windows Update server" {
			mine = append(mine, r)
		}
	}
	if len(mine) != 1 || mine[0].File != file || !mine[0].Enabled || mine[0].Ruleset != filepath.Base(dir) {
		t.Errorf("rules: %+v", mine)
	}
}

func TestAttributes(t *testing.T) {
	s := mustLoad(t, map[string]string{"pack/r.yml": `title: Title
id: 11111111-2222-3333-4444-55555555555A
name: short-name
related:
  - id: 11111111-2222-3333-4444-55555555555b
    type: derived
status: test
description: >-
  Two
  lines.
license: MIT
author: Someone
references: [https://example.org/]
date: 2024/05/06
modified: 2025-01-02
tags: [attack.command_and_control, attack.t1573.002, attack.t1573, attack.s0363, tlp.amber]
logsource: {category: certificate, product: oddcert, definition: any}
detection:
  a: {server.port: 443}
  b: {server.port: 444}
  condition: a
fields: [server.ip]
falsepositives: [none]
level: critical
oddcert:
  verdict: shared
  risk_score: 80
`})
	r := *s.Rules()[0]
	if !strings.HasSuffix(r.Text, "level: critical\noddcert:\n  verdict: shared\n  risk_score: 80") {
		t.Errorf("its text is %q", r.Text)
	}
	r.reason, r.cond, r.content, r.Text = nil, nil, [32]byte{}, ""
	want := Rule{ID: "11111111-2222-3333-4444-55555555555a", Title: "Title", Description: "Two lines.", Category: "certificate", Ruleset: "pack",
		Version: "2025-01-02", Author: "Someone", License: "MIT", Status: "test", References: []string{"https://example.org/"},
		Tags:           []string{"attack.command_and_control", "attack.t1573.002", "attack.t1573", "attack.s0363", "tlp.amber"},
		FalsePositives: []string{"none"}, Level: "critical", Severity: 99, RiskScore: 80, Verdict: "shared", Enabled: true, File: "dir/pack/r.yml", Line: 1,
		name: "short-name", source: logSource{"oddcert", "certificate", ""},
		Threat: Threat{"MITRE ATT&CK", []ThreatEntry{{"TA0011", "Command and Control", "https://attack.mitre.org/tactics/TA0011/"}},
			[]ThreatEntry{{"T1573", "Encrypted Channel", "https://attack.mitre.org/techniques/T1573/"}},
			[]ThreatEntry{{"T1573.002", "Asymmetric Cryptography", "https://attack.mitre.org/techniques/T1573/002/"}}}}
	if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if w := s.Warnings(); len(w) != 1 || w[0].Error() != `dir/pack/r.yml:20:3: "b": no condition uses this selection` {
		t.Errorf("warnings: %v", w)
	}

	// Without a date, the version follows the text of the rule alone.
	version := func(a, b string) (string, string) {
		s := mustLoad(t, map[string]string{"r.yml": rule(a) + "---\n" + strings.Replace(rule(b), "1111-", "9111-", 1)})
		return s.Rules()[0].Version, s.Rules()[1].Version
	}
	a, b := "a: {server.port: 1}\ncondition: a", "a: {server.port: 2}\ncondition: a"
	v1, v2 := version(a, b)
	w1, w2 := version(a, a)
	if len(v1) != 12 || v1 == v2 || v1 != w1 || v2 == w2 {
		t.Errorf("versions %s %s, %s %s", v1, v2, w1, w2)
	}
}

func TestListFiles(t *testing.T) {
	hash := strings.Repeat("0123456789abcdef", 4)
	text := rule("a:\n  - oddcert.chain.hash.sha256|expand: '%bad%'\n  - tls.client.server_name|expand: ['%names%', '%more%']\ncondition: a")
	s := mustLoad(t, map[string]string{
		"r.yml":           text,
		"lists/bad.txt":   "\uFEFF# hashes\r\n\r\n" + strings.ToUpper(hash) + "\r\n" + hash + " # again\n" + regexp.MustCompile("..").ReplaceAllString(hash[2:], "$0:") + "ff\n",
		"lists/names.txt": "evil.example\nhas#hash.example\n*.literal.example\n",
		"lists/more.txt":  "more.example",
	})
	var got []string
	for _, l := range s.Lists() {
		got = append(got, fmt.Sprintf("%s %s %d", l.Name, l.File, l.Entries))
	}
	if want := []string{"bad dir/lists/bad.txt 2", "more dir/lists/more.txt 1", "names dir/lists/names.txt 3"}; !slices.Equal(got, want) {
		t.Errorf("lists %q", got)
	}
	_, err := loadText(map[string]string{"r.yml": text, "lists/bad.txt": "ok\n  " + hash + "\n\tnothing\n", "lists/names.txt": "# none\n", "lists/more.txt": strings.Repeat("a", maxListLine+1)})
	want := `dir/lists/bad.txt:1:1: "ok": is not a value of oddcert.chain.hash.sha256: write 64 hex digits, with or without separators
dir/lists/bad.txt:3:2: "nothing": is not a value of oddcert.chain.hash.sha256: write 64 hex digits, with or without separators
dir/lists/more.txt:1:1: a line may have 65536 bytes
dir/lists/names.txt:1:1: the list is empty
dir/r.yml:8:41: "%bad%": the list cannot be used
dir/r.yml:9:39: "%names%": the list cannot be used
dir/r.yml:9:50: "%more%": the list cannot be used`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// A million hashes and ten thousand rules are held in tens of megabytes.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var before, after runtime.MemStats
	source := manyRules(1000, 1_000_000)
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	s, err := Load(source)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(start))
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20
	t.Logf("%d MiB", grown)
	if grown > 128 {
		t.Errorf("a million hashes take %d MiB", grown)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(source)
}

// TestNoYAML reads documents of nothing but a token that cannot stand there: what that
// takes is in proportion to their size.
func TestNoYAML(t *testing.T) {
	const size = 128 << 10
	for _, token := range []string{"@", "`", "\"", "' ", "]", "}", ",", "a: [,", "|x\n", "\"a\" ", "a: b: c\n"} {
		text := strings.Repeat(token, size/len(token))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := loadText(map[string]string{"r.yml": text})
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > 1000*size {
			t.Errorf("%q: %d bytes take %d, %v", token, size, took, err)
		}
	}
}
