package rules

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oddcert/oddcert/rules/judgement"
)

// A rule file, whatever is in it, is a set that can be used, or problems that
// each name a file and say something on one line.
func FuzzLoad(f *testing.F) {
	err := fs.WalkDir(Builtin().FS, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(Builtin().FS, name)
		f.Add(string(b))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		rule("a:\n  server.ip|cidr: [10.0.0.0/8]\n  tls.client.server_name|re|i: '^a+(b|c)'\ncondition: a"),
		rule("a:\n  - oddcert.chain.name|contains|all: [a, 'b*c?d\\*']\n    oddcert.chain.position|lt|neq: 2\n  - tls.cipher: null\ncondition: not 1 of a*"),
		rule("a:\n  server.port|exists: true\ncondition: [a, a or (a)]") + "---\n" + rule("a:\n  server.ip|expand: '%x%'\ncondition: a"),
		rule("a: {server.port: 1}\ncondition: >\n  a and\n  a") + "oddcert: {reason: \"{server.ip} {{\\t}}\", verdict_reasons: ['{oddcert.match.value}']}\n",
		base("one", 443) + correlates("type: event_count, rules: one, timespan: 1h, condition: {gt: 1, lte: 3}, group-by: [server.ip, oddcert.chain.name]"),
		base("one", 443) + base("two", 444) + correlates("type: temporal_ordered, rules: [one, two], timespan: 1M, group-by: x, aliases: {x: {one: server.ip, two: client.ip}}, generate: true") + "oddcert: {reason: '{oddcert.correlation.count} {oddcert.correlation.group}', suppress: {by: [server.ip, oddcert.chain.name], for: 1d}}\n",
		base("one", 443) + correlates("type: value_count, rules: 00000000-0000-0000-0000-000000000443, timespan: 1s, condition: {eq: 1, field: oddcert.chain.name}"),
		base("one", 443) + "title: F\nlogsource: {product: oddcert}\nfilter: {rules: [one], a: {server.ip|cidr: 10.0.0.0/8}, condition: not 1 of them}\n",
		base("one", 443) + "title: F\nlogsource: {category: tls}\nfilter: {rules: any, a: {server.ip: null}, condition: a}\n",
		correlates("type: temporal, rules: [11111111-0000-0000-0000-000000000000], timespan: 1w"),
		rule("a:\n  oddcert.chain.name|fieldref|neq: [tls.client.server_name, oddcert.chain.x509.issuer.common_name]\n  tls.server.not_after|lt: 2030-01-01\ncondition: a"),
		"a: |\n  b\n c: d", "- - - a", "? [a\n: b", "a: !!x &y *z", "{a: [b, {c: d}], e}", "%YAML 1.1\n---\n...\n", "\ufeffa: \"\\x", "a:\tb\n\t- c",
	} {
		f.Add(s)
	}
	h := sample()
	line := regexp.MustCompile(`^dir/(r\.yml|lists/[^:]*)(:[1-9][0-9]*:[1-9][0-9]*)?: [^\n]+$`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := loadText(map[string]string{"r.yml": text})
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error without problems: %v", err)
			}
			for _, p := range problems {
				if !line.MatchString(p.Error()) || p.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+1 {
					t.Fatalf("problem %q", p.Error())
				}
			}
			return
		}
		m := s.NewMatcher(nil)
		var want []*Rule
		m.h, m.j = h, new(judgement.Judgement)
		for _, r := range s.Rules() {
			if r.Enabled && r.cond != nil && m.node(r.cond) {
				want = append(want, r)
			}
		}
		got := m.Match(h, nil, nil)
		if len(got) != len(want) {
			t.Fatalf("%d matches, %d without the index", len(got), len(want))
		}
		for i, match := range got {
			if match.Rule != want[i] || !utf8.ValidString(match.Reason) {
				t.Fatalf("%+v", match)
			}
		}
		// Correlations see it twice: what they raise is of enabled rules, and no rule that
		// only they look at is raised. Suppression raises each, or counts it once.
		c, suppressor := s.NewCorrelator(nil, 1), NewSuppressor(nil, 1)
		raised, counted, all := 0, uint64(0), 0
		for range 2 {
			for _, match := range c.See(h, nil, got) {
				if match.Rule.quiet || !match.Rule.Enabled || (match.Correlation != nil) != (match.Rule.correlation != nil) || !utf8.ValidString(match.Reason) {
					t.Fatalf("%+v", match)
				}
				if all++; suppressor.Admit(h, nil, &match) {
					raised++
				}
			}
		}
		for _, sum := range suppressor.Flush(nil) {
			counted += sum.Count
		}
		if raised+int(counted) != all {
			t.Fatalf("%d were raised and %d counted of %d", raised, counted, all)
		}
	})
}

// A condition is a tree over the selections, or a problem within its bounds.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{"a and not (b or 1 of ab*)", "all of them", "any of *", "not not a", "a AND b", "((a)", "1 of", "a\n or\tb", "a | count()", "ä", "1 of a-b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names := []string{"a", "b", "ab_c", "_d"}
		var selections []*selection
		for _, name := range names {
			selections = append(selections, &selection{name: name})
		}
		n, used, problem := parseCondition(s, selections)
		if (n == nil) == (problem == nil) {
			t.Fatalf("%v, %v", n, problem)
		}
		if problem != nil {
			if problem.offset < 0 || problem.offset > len(s) || problem.text == "" || !strings.HasPrefix(s[problem.offset:], problem.token) {
				t.Fatalf("%+v", problem)
			}
			return
		}
		// Written out in full, it reads as the same tree.
		written := write(n)
		again, usedAgain, problem := parseCondition(written, selections)
		if problem != nil || treeOf(again, names) != treeOf(n, names) || len(used) != len(usedAgain) {
			t.Fatalf("%q: %q: %+v", s, written, problem)
		}
	})
}

func write(n *node) string {
	switch n.op {
	case opSelection:
		return n.sel.name
	case opNot:
		return "not (" + write(n.kids[0]) + ")"
	}
	operator := " and "
	if n.op == opOr {
		operator = " or "
	}
	parts := make([]string, len(n.kids))
	for i, kid := range n.kids {
		parts[i] = "(" + write(kid) + ")"
	}
	return strings.Join(parts, operator)
}
