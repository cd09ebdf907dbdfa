package rules

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/packaging/sigma/sigmatest"
)

// readSigma is a program for pySigma. It reads a JSON list of texts, and
// writes for each what it is to pySigma: an error, or the trees of its
// conditions.
const readSigma = `
import json, sys
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationRule
from sigma.conditions import ConditionAND, ConditionOR, ConditionNOT, ConditionFieldEqualsValueExpression

def tree(c):
    if isinstance(c, ConditionAND): return "(and " + " ".join(map(tree, c.args)) + ")"
    if isinstance(c, ConditionOR): return "(or " + " ".join(map(tree, c.args)) + ")"
    if isinstance(c, ConditionNOT): return "(not " + tree(c.args[0]) + ")"
    if isinstance(c, ConditionFieldEqualsValueExpression): return str(c.value)
    return repr(type(c))

out = []
for text in json.load(sys.stdin):
    try:
        rules = SigmaCollection.from_yaml(text)
        trees = []
        for rule in rules.rules:
            if rule.errors: raise rule.errors[0]
            if isinstance(rule, SigmaCorrelationRule):
                trees.append(" ".join(["correlation", rule.type.name.lower(), str(rule.timespan.seconds), *(r.rule.title for r in rule.rules)]))
                continue
            for c in rule.detection.parsed_condition: trees.append(tree(c.parsed))
        out.append({"trees": trees})
    except Exception as e:
        out.append({"error": str(e) or repr(e)})
json.dump(out, sys.stdout)
`

type sigmaAnswer struct {
	Trees []string
	Error string
}

// pySigma asks pySigma about texts; the test is skipped where it cannot be had.
func pySigma(t *testing.T, texts []string) []sigmaAnswer {
	t.Helper()
	var answers []sigmaAnswer
	sigmatest.Run(t, sigmatest.Reader, readSigma, texts, &answers)
	if len(answers) != len(texts) {
		t.Fatalf("%d answers to %d texts", len(answers), len(texts))
	}
	return answers
}

// pySigma reads every rule that is part of the program.
func TestSigmaReadsShippedRules(t *testing.T) {
	var names, texts []string
	err := fs.WalkDir(Builtin().FS, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".yml") {
			return err
		}
		b, err := fs.ReadFile(Builtin().FS, name)
		names, texts = append(names, name), append(texts, string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range pySigma(t, texts) {
		if documents := strings.Count(texts[i], "\n---\n") + 1; a.Error != "" || len(a.Trees) != documents {
			t.Errorf("%s: %s %v", names[i], a.Error, a.Trees)
		}
	}
}

// What pySigma and we both read, and what neither does.
func TestSigmaAgrees(t *testing.T) {
	one := func(line string) string { return rule("a:\n  " + line + "\ncondition: a") }
	condition := func(c string) string {
		return rule("sel_a:\n  server.port: 1\nsel_b:\n  server.port: 2\nnotable:\n  server.port: 3\n_x:\n  server.port: 4\ncondition: " + c)
	}
	must := []string{
		one("server.port: 443"), one("server.port: [1, 2]"), one("tls.resumed: true"), one("tls.client.server_name: null"),
		one("tls.client.server_name|contains|all: [a, b]"), one("tls.client.server_name|re|i|m|s: '^a.*b$'"), one("server.ip|cidr: [10.0.0.0/8, '2001:db8::/32']"),
		one("tls.client.server_name|exists: false"), one("tls.client.server_name|contains|cased: Abc"), one("tls.client.server_name|startswith|neq: a"),
		one(`tls.client.server_name: 'a\*b\?c\\*d'`), one("server.port|gte: 1024"), one("tls.client.server_name|endswith: ['.a', '.b']"),
		one("tls.client.server_name|fieldref: tls.server.subject"), one("tls.client.server_name|fieldref|neq: [tls.server.subject, tls.server.issuer]"), one("server.ip|fieldref|all: [client.ip, source.ip]"),
		rule("a:\n  - server.port: 1\n  - server.port: 2\n    tls.resumed: true\ncondition: a"),
		condition("sel_a"), condition("1 of sel_*"), condition("all of them"), condition("any of them"), condition("notable"), condition("not notable and sel_a"),
		condition("1 of _* or sel_a"), condition("not (sel_a or sel_b) and notable"), condition("[sel_a, sel_b or notable]"), condition(">-\n    sel_a\n    and sel_b"),
		one("server.port: 1") + "oddcert:\n  verdict: forged\n  reason: '{server.ip}'\n",
		strings.Replace("taxonomy: ecs\n"+one("server.port: 1"), "product: oddcert", "category: network\n  service: tls", 1),
		one("server.port: 1") + "---\n" + strings.Replace(one("server.port: 1"), "1111-", "2222-", 1),
	}
	mustNot := []string{
		"title: [\n", "{}", one("server.port|nothing: 1"), one("tls.client.server_name|re: 'a('"), one("server.ip|cidr: 10.0.0.1/8"), one("server.ip|cidr: ten"),
		one("server.port|lt: x"), one("tls.client.server_name|exists: perhaps"), one("tls.client.server_name|contains|re: x"), one("tls.client.server_name|contains: null"),
		one("tls.client.server_name|fieldref: null"), one("tls.client.server_name|fieldref|cased: tls.server.subject"), one("server.port|fieldref: 1"),
		condition("sel_a and"), condition("sel_a sel_b"), condition("(sel_a"), condition("sel_c"), condition("2 of them"), condition("1 of foo*"), condition("sel_a AND sel_b"),
		condition("sel_a | count() > 1"), condition("or sel_a"), condition("sel_*"), condition("1 of"), condition("sel_a and ()"), condition("1 of sel-*"), condition("'''"),
		strings.Replace(condition("sel_a"), "id: 1", "id: x", 1), strings.Replace(condition("sel_a"), "level: high", "level: huge", 1),
		strings.Replace(condition("sel_a"), "title: A rule\n", "", 1), condition("sel_a") + "status: mine\n", condition("sel_a") + "tags: [untold]\n",
		condition("sel_a") + "date: yesterday\n", condition("sel_a") + "references: one\n", rule("a: {}\ncondition: a"), rule("a:\n  server.port: 1"),
	}
	for i, text := range append(must, mustNot...) {
		if _, err := loadText(map[string]string{"r.yml": text}); (err == nil) != (i < len(must)) {
			t.Errorf("we say %v of\n%s", err, text)
		}
	}
	for i, a := range pySigma(t, append(must, mustNot...)) {
		if (a.Error == "") != (i < len(must)) {
			t.Errorf("pySigma says %q of\n%s", a.Error, append(must, mustNot...)[i])
		}
	}
}

// Conditions mean to pySigma what they mean to us, in random ones.
func TestSigmaConditionTrees(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	names := []string{"a", "ab", "abc", "not_b", "order", "_under"}
	var expression func(depth int) string
	expression = func(depth int) string {
		switch n := random.IntN(10); {
		case depth == 0 || n < 3:
			return names[random.IntN(len(names))]
		case n < 4:
			return []string{"1", "any", "all"}[random.IntN(3)] + " of " + []string{"them", "a*", "*b*", "_*", "ab", "*"}[random.IntN(6)]
		case n < 5:
			return "not " + expression(depth-1)
		case n < 6:
			return "(" + expression(depth-1) + ")"
		case n < 8:
			return expression(depth-1) + " and " + expression(depth-1)
		default:
			return expression(depth-1) + " or " + expression(depth-1)
		}
	}
	var texts, ours []string
	for range 400 {
		var b strings.Builder
		for i, name := range names {
			fmt.Fprintf(&b, "%s:\n  server.port: %d\n", name, i+1)
		}
		text := rule(b.String() + "condition: " + expression(4))
		texts = append(texts, text)
		s := mustLoad(t, map[string]string{"r.yml": text})
		ours = append(ours, treeOf(s.Rules()[0].cond, names))
	}
	for i, a := range pySigma(t, texts) {
		if a.Error != "" || len(a.Trees) != 1 || a.Trees[0] != ours[i] {
			t.Errorf("pySigma: %s %s\nours:    %s\n%s", a.Trees, a.Error, ours[i], texts[i][strings.Index(texts[i], "condition"):])
		}
	}
}

// Correlations and filters that pySigma and we both read, and that neither does. It
// takes references to nothing in a filter, and rules named twice.
func TestSigmaCorrelations(t *testing.T) {
	filter := func(section string) string {
		return "title: F\nlogsource: {product: oddcert}\nfilter: {" + section + "}\n"
	}
	must := []string{
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 3}"),
		correlates("type: event_count, rules: [one, two], timespan: 90m, condition: {gt: 3}, group-by: server.ip, generate: true"),
		correlates("type: event_count, rules: 00000000-0000-0000-0000-000000000001, timespan: 1M, condition: {eq: 3}"),
		correlates("type: value_count, rules: [one], timespan: 4w, condition: {lte: 3, field: server.ip}, group-by: [client.ip, tls.client.server_name]"),
		correlates("type: temporal, rules: [one, two], timespan: 30d") + "oddcert: {suppress: {by: [server.ip], for: 1h}}\n",
		correlates("type: temporal_ordered, rules: [one, two], timespan: 1s, group-by: x, aliases: {x: {one: server.ip, two: client.ip}}"),
		correlates("type: temporal, rules: [one, two], timespan: 5m, condition: {gte: 2}"),
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 3}") + "name: many\n---\n" +
			strings.Replace(correlates("type: event_count, rules: many, timespan: 1d, condition: {gte: 3}"), "1111-", "2222-", 1),
	}
	mustNot := []string{
		correlates("type: event_count, rules: one, timespan: 1h"), correlates("type: event_count, timespan: 1h, condition: {gte: 1}"),
		correlates("type: value_count, rules: one, timespan: 1h, condition: {gte: 3}"), correlates("type: temporal, rules: one, timespan: 0s"),
		correlates("type: temporal, rules: one, timespan: 1x"), correlates("type: temporal, rules: three, timespan: 1h"), correlates("type: temporal, rules: one"),
		correlates("type: count, rules: one, timespan: 1h"), correlates("rules: one, timespan: 1h"), correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: x}"),
		correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 3}, generate: maybe"), correlates("type: event_count, rules: one, timespan: 1h, condition: {}"),
		correlates("type: event_count, rules: {a: b}, timespan: 1h, condition: {gte: 1}"), correlates("type: temporal, rules: one, timespan: 1h, group-by: {a: b}"),
		correlates("type: temporal, rules: one, timespan: 1h, aliases: [x]"), correlates("type: event_count, rules: one, timespan: 1h, condition: {gte: 3, of: 2}"),
		filter("a: {server.port: 1}, condition: a"), filter("rules: one, a: {server.port: 1}"), filter("rules: one, a: {server.port: 1}, condition: [a]"), filter("rules: any, condition: a"),
		"title: F\nfilter: {rules: any, a: {server.port: 1}, condition: a}\n",
	}
	all := append(must, mustNot...)
	for i := range all {
		all[i] = base("one", 1) + base("two", 2) + all[i]
		if _, err := loadText(map[string]string{"r.yml": all[i]}); (err == nil) != (i < len(must)) {
			t.Errorf("we say %v of\n%s", err, all[i])
		}
	}
	for i, a := range pySigma(t, all) {
		if (a.Error == "") != (i < len(must)) {
			t.Errorf("pySigma says %q of\n%s", a.Error, all[i])
		}
		if i >= len(must) || a.Error != "" {
			continue
		}
		r := mustLoad(t, map[string]string{"r.yml": all[i]}).Rules()[2]
		want := fmt.Sprintf("correlation %s %d", correlationTypes[r.correlation.kind], r.correlation.span/1e9)
		for _, of := range r.correlation.rules {
			want += " " + of.Title
		}
		if a.Trees[2] != want {
			t.Errorf("pySigma %s\nours    %s", a.Trees[2], want)
		}
	}
}

// A filter makes of a condition what it makes in pySigma.
func TestSigmaFilters(t *testing.T) {
	names := []string{"a", "b", "ours", "ours_b"}
	var texts, ours []string
	for _, condition := range []string{"not ours", "not 1 of ours*", "ours and not ours_b", "not (ours or ours_b)", "not all of them", "not 1 of *_b"} {
		for _, of := range []string{"any", "x", "[11111111-2222-3333-4444-555555555555]"} {
			texts = append(texts, "name: x\n"+rule("a:\n  server.port: 1\nb:\n  server.port: 2\ncondition: a or b")+
				"---\ntitle: F\nlogsource: {product: oddcert}\nfilter:\n  rules: "+of+"\n  ours: {server.port: 3}\n  ours_b: {server.port: 4}\n  condition: "+condition+"\n")
			ours = append(ours, treeOf(mustLoad(t, map[string]string{"r.yml": texts[len(texts)-1]}).Rules()[0].cond, names))
		}
	}
	for i, a := range pySigma(t, texts) {
		if a.Error != "" || len(a.Trees) != 1 || a.Trees[0] != ours[i] {
			t.Errorf("pySigma: %s %s\nours:    %s\n%s", a.Trees, a.Error, ours[i], texts[i])
		}
	}
}

// treeOf writes a condition as the program for pySigma does.
func treeOf(n *node, names []string) string {
	if n.op == opSelection {
		for i, name := range names {
			if name == n.sel.name {
				return fmt.Sprint(i + 1)
			}
		}
	}
	parts := []string{map[nodeOp]string{opAnd: "(and", opOr: "(or", opNot: "(not"}[n.op]}
	for _, kid := range n.kids {
		parts = append(parts, treeOf(kid, names))
	}
	return strings.Join(parts, " ") + ")"
}
