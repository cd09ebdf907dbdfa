// Package rules loads, compiles and evaluates rules in Sigma's format over the
// handshakes that the sensor sees.
//
// Call these in order: [Load], with the packs that are part of the program
// ([Builtin]) and the user's own directories ([Dir]), makes a [Set];
// [Set.NewMatcher] makes a [Matcher] for each goroutine; [Matcher.Match] returns
// a [Match] for each rule that holds for a handshake. One [Correlator] takes the
// matches of all handshakes in the order of time, and returns what is to be raised;
// a [Suppressor] says what of this is more of the same. What is wrong with rules is a
// list of [Problems], each with its file, line and token.
//
// The supported subset of Sigma and the names of the fields are in README.md
// beside this file.
package rules

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Rule is one loaded rule. It is immutable and shared by all matches of it.
type Rule struct {
	ID             string // UUID, lower case
	Title          string
	Description    string
	Category       string // logsource.category, "tls" when the rule leaves it out
	Ruleset        string // the pack: the name of the directory that holds the file
	Version        string // the date in modified, else in date; else 12 hex digits of a hash of the rule's text
	Author         string
	License        string
	Status         string // stable, test, experimental, deprecated, unsupported or empty
	References     []string
	Tags           []string
	FalsePositives []string
	Level          string // informational, low, medium, high or critical
	Severity       int    // of the level: 21 (informational and low), 47, 73 or 99
	RiskScore      int    // 0..100: oddcert.risk_score, else the severity
	Verdict        string // oddcert.verdict, such as "forged"; "listed" when the rule does not have it
	Threat         Threat // from the attack.* tags
	Enabled        bool   // false when oddcert.enabled says so: loaded and checked, never matched
	Builtin        bool   // it is part of the program
	File           string // where it was read
	Line           int    // 1-based, of its document
	Text           string // of its document, without the line that separates documents

	name        string // by which correlations and filters may refer to it; empty without one
	source      logSource
	reason      template
	reasons     []template
	cond        *node        // nil of a correlation rule
	correlation *correlation // nil of any other rule
	suppress    *suppression // nil where each match is an alert
	feeds       []feed       // the enabled correlation rules that take its matches
	quiet       bool         // it raises no alerts of its own, as one of these says
	content     [32]byte     // a hash of its text, of the filters that apply to it, and of the rules that it counts
}

// Threat names the MITRE ATT&CK entries of a rule, in the order of its tags.
type Threat struct {
	Framework     string // "MITRE ATT&CK"; empty when the rule has no such tags
	Tactics       []ThreatEntry
	Techniques    []ThreatEntry
	Subtechniques []ThreatEntry
}

// ThreatEntry is one tactic, technique or subtechnique.
type ThreatEntry struct {
	ID        string // such as TA0011 or T1573.002
	Name      string // of a tactic; empty for techniques
	Reference string // its page at attack.mitre.org
}

// Match is what a rule that holds for a handshake says. It owns what it refers to.
type Match struct {
	Rule       *Rule
	Field      string   // the field that decided, in the order of the condition
	Value      string   // its value, as records write it
	List       string   // the list file that named the value, without its extension; else empty
	ChainIndex int      // 0-based certificate of Chain or, for oddcert.client_chain.*, ClientChain; -1 when the field speaks of neither
	Reason     string   // one sentence for the analyst, for event.reason
	Reasons    []string // for oddcert.verdict_reasons: what held, then the rule's own words

	// Correlation is what was counted; nil unless Rule is a correlation rule.
	Correlation *Correlation

	window *window // that it began, or in which it was counted
}

// Set is a compiled set of rules. It is immutable and safe for concurrent use.
type Set struct {
	rules    []*Rule // enabled and not, in the order of files and documents
	byID     map[string]*Rule
	warnings Problems
	lists    []List
	empty    []string // names of sources
	index    *index
}

// Rules returns all rules, enabled or not, in the order of files and documents. The slice is lent.
func (s *Set) Rules() []*Rule { return s.rules }

// Rule returns the rule with an id, in lower case; nil where there is none.
func (s *Set) Rule(id string) *Rule { return s.byID[id] }

// same returns the rule of s that says the same as r, which is of another set: then
// what was counted for r counts for it. What lists hold may differ: they change more
// often than rules. It is nil where there is no such rule.
func (s *Set) same(r *Rule) *Rule {
	if now := s.byID[r.ID]; now != nil && now.content == r.content {
		return now
	}
	return nil
}

// Changes is what is different in a set from one before.
type Changes struct {
	Added, Removed int // rules whose ids are in one set alone
	Changed        int // rules that say something else; lists are not looked at
}

// Since returns what is different from the set before.
func (s *Set) Since(before *Set) (c Changes) {
	for _, r := range before.rules {
		switch {
		case s.byID[r.ID] == nil:
			c.Removed++
		case s.same(r) == nil:
			c.Changed++
		}
	}
	c.Added = len(s.rules) - (len(before.rules) - c.Removed)
	return c
}

// Lists returns the list files that rules refer to. The slice is lent.
func (s *Set) Lists() []List { return s.lists }

// Empty returns the names of the sources in which no rule was read, in their order.
// The slice is lent.
func (s *Set) Empty() []string { return s.empty }

// Warnings returns what is odd about the rules but is not an error. The slice is
// lent.
func (s *Set) Warnings() Problems { return s.warnings }

// List is a file of values that rules refer to.
type List struct {
	Name    string // without extension
	File    string
	Entries int // distinct values
}

// NewMatcher returns a matcher with its own scratch space, for one goroutine. It asks
// judge what rules want to know beyond the handshake; without one, which is nil, the
// fields of judgements have only the values that are known already.
func (s *Set) NewMatcher(judge judgement.Judge) *Matcher {
	m := &Matcher{judge: judge, known: make([]known, knownCertificates)}
	m.Use(s)
	return m
}

// Use makes m evaluate another set from now on.
func (m *Matcher) Use(s *Set) {
	m.set, m.seen, m.round = s, make([]uint32, len(s.rules)), 0
	clear(m.known)
}

// Match appends one match for each enabled rule that holds for h, in the order
// of [Set.Rules], and returns dst. Nothing of h is kept. It does not allocate
// when no rule holds.
//
// j is what is known of h already, and gets what the judge was asked; nil is for
// nobody. Where j.Pending is set then, the matches are not all, and not final: they
// depend on handshakes before.
func (m *Matcher) Match(h *event.Handshake, j *judgement.Judgement, dst []Match) []Match {
	m.see(h, j)
	for _, r := range m.candidates(h) {
		rule := m.set.rules[r]
		if m.node(rule.cond) && !m.j.Pending {
			dst = append(dst, m.explain(rule))
		}
	}
	m.see(nil, nil)
	return dst
}

// see makes h, and what is judged of it, what fields are looked up in.
func (m *Matcher) see(h *event.Handshake, j *judgement.Judgement) {
	m.h = h
	if m.j = j; j == nil {
		m.none = judgement.Judgement{}
		m.j = &m.none
	}
	clear(m.more)
}
