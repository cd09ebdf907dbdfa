package pipeline

import (
	"cmp"
	"slices"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// generation is what handshakes are matched and judged by from one reload to the next.
// It is read-only, and has an identity: another one may hold the same.
type generation struct {
	rules  *rules.Set
	tables *judge.Tables // nil when nothing is judged
}

// Reload makes the run go on with other rules and tables. tables is nil where
// Config.Judge was, and only there. Any goroutine may call it, at any time; it returns
// when the new ones are ready, and the workers take them at their next ticks. The old
// ones are in memory until then.
//
// Each handshake is matched by one set alone: that which the stage that orders has
// when it comes there. No alert is raised twice: where a rule has raised one for a
// handshake that was not over, it raises no other for the same handshake, even where
// the rule has changed.
//
// What was seen, told and remembered before stays as it is, and so do the counts of
// rules that say the same as before: those of correlations, and the windows of
// suppression. The windows of rules that have changed or are gone end, and what they
// have counted is told.
func (p *Pipeline) Reload(set *rules.Set, tables *judge.Tables) {
	if tables != nil {
		tables.Prepare()
	}
	p.current.Store(&generation{set, tables})
}

// renew makes the handshakes of the interval go by what Reload was given last.
func (w *worker) renew() {
	g := w.current.Load()
	if g == w.generation {
		return
	}
	if w.judge != nil && g.tables != w.generation.tables {
		w.judge.Use(g.tables)
	}
	w.matcher.Use(g.rules)
	w.generation = g
}

// renew is the same for the stage that orders.
func (p *Pipeline) renew() {
	g := p.current.Load()
	if g == p.generation {
		return
	}
	if p.judge != nil && g.tables != p.generation.tables {
		p.judge.Use(g.tables)
	}
	p.matcher.Use(g.rules)
	clear(p.matches)
	p.sequence.use(g.rules)
	p.hits.use(g.rules)
	p.generation = g
}

// use makes s go on with another set.
func (s *sequence) use(set *rules.Set) {
	s.correlator.Use(set)
	s.suppressor.Use(set)
	clear(s.summaries)
}

// maxFormer bounds the rules that are gone and whose matches statistics still tell one
// by one, in each of their records: a feed may have other rules each day.
const maxFormer = 64

// hits counts how often rules matched.
type hits struct {
	current map[*rules.Rule]uint64
	former  []output.RuleCount // of rules that are gone, with as much of each as statistics need
	others  uint64             // of former rules for which former has no room
}

// use makes h go on with another set. A rule with the same id has the same count,
// whatever it says now.
func (h *hits) use(set *rules.Set) {
	before := h.former
	for r, n := range h.current {
		before = append(before, output.RuleCount{Rule: r, Matches: n})
	}
	h.current, h.former = map[*rules.Rule]uint64{}, nil
	for _, c := range before {
		if now := set.Rule(c.Rule.ID); now != nil {
			h.current[now] += c.Matches
			continue
		}
		r := c.Rule
		c.Rule = &rules.Rule{
			ID: r.ID, Title: r.Title, Category: r.Category, Ruleset: r.Ruleset, Version: r.Version,
			Level: r.Level, Severity: r.Severity, RiskScore: r.RiskScore, Verdict: r.Verdict,
		}
		h.former = append(h.former, c)
	}
	slices.SortFunc(h.former, func(a, b output.RuleCount) int {
		return cmp.Or(cmp.Compare(b.Matches, a.Matches), cmp.Compare(a.Rule.ID, b.Rule.ID))
	})
	for _, c := range h.former[min(maxFormer, len(h.former)):] {
		h.others += c.Matches
	}
	h.former = h.former[:min(maxFormer, len(h.former))]
}

// list returns the counts: those of the set in its order, and then those of rules
// that are gone, the largest first.
func (h *hits) list(set *rules.Set) (list []output.RuleCount) {
	for _, r := range set.Rules() {
		if n := h.current[r]; n > 0 {
			list = append(list, output.RuleCount{Rule: r, Matches: n})
		}
	}
	list = append(list, h.former...)
	if h.others > 0 {
		list = append(list, output.RuleCount{Rule: &rules.Rule{Title: "other rules that are gone"}, Matches: h.others})
	}
	return list
}

// sum is how often any rule matched.
func (h *hits) sum() (n uint64) {
	for _, of := range h.current {
		n += of
	}
	for _, c := range h.former {
		n += c.Matches
	}
	return n + h.others
}
