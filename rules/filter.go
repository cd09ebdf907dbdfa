package rules

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// filter is a document that makes a condition part of other rules.
type filter struct {
	*document
	any  bool     // it applies to all rules with its log source
	refs []scalar // else the rules as written
}

// filter reads the detection of a filter: selections, a condition and the rules
// that it is for.
func (d *document) filter(e *entry) {
	f := &filter{document: d}
	d.filtered = f
	entries, ok := d.entries(e.value)
	if !ok {
		d.problem(e.place, e.key, "filter must be a map of rules, selections and a condition")
		return
	}
	if of := find(entries, "rules"); of == nil {
		d.problem(e.place, e.key, "the filter has no rules: name some by id or name, or write any")
	} else if s, ok := d.scalarOf(of.value); ok && strings.EqualFold(s.text, "any") {
		f.any = true
	} else {
		f.refs = d.oneOrMore(of, maxFiltered)
	}
	if of := find(entries, "condition"); of != nil {
		if _, ok := d.scalarOf(of.value); !ok {
			d.problem(of.place, of.key, "the condition of a filter must be one text")
		}
	}
	d.detection(e, slices.DeleteFunc(entries, func(e entry) bool { return e.key == "rules" }))
	if d.rule.cond != nil {
		if _, ok := anchorsOf(d.rule.cond, false); ok {
			d.warn(e.place, e.key, "the rules match only what this condition holds for: write not before it to leave that out")
		}
	}
}

// apply makes the condition of a filter part of the rules that it is for: a rule
// holds where its own condition and the filter's do.
func (l *loader) apply(f *filter, byName map[string][]*Rule) {
	var to []*Rule
	for _, ref := range f.refs {
		r := l.find(f.document, ref, byName)
		switch {
		case r == nil:
		case r.correlation != nil:
			f.problem(ref.place, ref.text, "is a correlation rule: filter the rules that it refers to")
		case !f.rule.source.has(r.source):
			f.problem(ref.place, ref.text, "has another logsource than the filter")
		case slices.Contains(to, r):
			f.problem(ref.place, ref.text, "is here twice")
		default:
			to = append(to, r)
		}
	}
	if f.any {
		for _, r := range l.rules {
			if r != nil && r.correlation == nil && f.rule.source.has(r.source) {
				to = append(to, r)
			}
		}
	}
	for _, r := range to {
		r.cond = &node{op: opAnd, kids: []*node{r.cond, f.rule.cond}}
		r.cond.markJudged()
		r.include(f.rule)
	}
}

// include makes what another rule says part of what r says.
func (r *Rule) include(o *Rule) {
	r.content = sha256.Sum256(append(r.content[:], o.content[:]...))
}

// logSource is what a rule says of the source of its events.
type logSource struct{ product, category, service string }

// has reports whether a rule with the log source of is about what s is about:
// what s leaves out may be anything.
func (s logSource) has(of logSource) bool {
	return (s.product == "" || s.product == of.product) &&
		(s.category == "" || s.category == of.category) &&
		(s.service == "" || s.service == of.service)
}
