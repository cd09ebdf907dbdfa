package rules

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// evidence is one value that made a condition hold.
type evidence struct {
	field *field
	value string
	list  string
	entry int // index of the certificate, or noEntry
}

// explain makes the match of a rule that holds for m.h.
func (m *Matcher) explain(r *Rule) Match {
	found := m.evidence(r.cond, nil)
	match := Match{Rule: r, ChainIndex: -1}
	if len(found) > 0 {
		first := found[0]
		match.Field, match.Value, match.List, match.ChainIndex = first.field.name, first.value, first.list, first.entry
	}
	if r.quiet { // nobody reads its reasons
		return match
	}
	match.Reason, _ = m.fill(r.reason, &match, found)
	for _, e := range found {
		var b strings.Builder
		b.WriteString(e.field.name)
		if e.value == "" {
			b.WriteString(" is not there")
		} else {
			b.WriteString(" is " + e.value)
		}
		if e.entry >= 0 {
			b.WriteString(" (" + ChainPlace(e.entry, len(e.field.scope.chain(m.h))) + ")")
		}
		if e.list != "" {
			b.WriteString(", in list " + e.list)
		}
		match.Reasons = append(match.Reasons, b.String())
	}
	for _, t := range r.reasons {
		if reason, whole := m.fill(t, &match, found); whole {
			match.Reasons = append(match.Reasons, reason)
		}
	}
	return match
}

// ChainPlace names the certificate at index, from 0, of a chain of n for people, who
// count from 1.
func ChainPlace(index, n int) string {
	place := fmt.Sprintf("certificate %d of %d", index+1, n)
	switch {
	case n == 1:
		return "the only certificate"
	case index == 0:
		return "the leaf, " + place
	}
	return place
}

// evidence appends the values that make n hold, in the order of the rule. A
// negation has no such values.
func (m *Matcher) evidence(n *node, found []evidence) []evidence {
	switch n.op {
	case opSelection:
		for i := range n.sel.blocks {
			b := &n.sel.blocks[i]
			if !m.block(b) {
				continue
			}
			before := len(found)
			server, _ := m.firstEntry(b.server, m.certificates(serverChain))
			client, _ := m.firstEntry(b.client, m.certificates(clientChain))
			parts := []struct {
				items []*item
				entry int
			}{{b.server, server}, {b.client, client}, {b.flow, noEntry}, {b.judged, noEntry}}
			for _, part := range parts {
				for _, it := range part.items {
					if !it.negated {
						found = m.show(it, part.entry, found)
					}
				}
			}
			for _, part := range parts { // all are negated: show the values that are there instead
				if len(found) == before && len(part.items) > 0 {
					found = m.show(part.items[0], part.entry, found)
				}
			}
			return found
		}
	case opAnd:
		for _, kid := range n.kids {
			found = m.evidence(kid, found)
		}
	case opOr:
		for _, kid := range n.kids {
			if m.node(kid) {
				return m.evidence(kid, found)
			}
		}
	}
	return found
}

// show appends the value that makes an item hold.
func (m *Matcher) show(it *item, entry int, found []evidence) []evidence {
	if it.all != nil && !it.negated {
		for _, one := range it.all {
			found = m.show(one, entry, found)
		}
		return found
	}
	e := evidence{field: it.field, entry: entry}
	if it.field.scope == serverLeaf || it.field.scope == clientLeaf {
		e.entry = 0
	}
	m.refer(it, entry)
	for m.beginAt(it.field, entry); len(m.values) > 0; m.next(it.field) {
		for i := range m.values {
			ok, l := m.value(it, &m.values[i])
			if it.negated {
				l = nil
			}
			if ok == it.negated && it.exists <= 0 {
				continue
			}
			e.value = m.shown(it.field, &m.values[i])
			if l != nil {
				e.list = l.Name
			}
			return append(found, e)
		}
	}
	return append(found, e)
}

// shown is the text of a value, fit to be read: without control characters, and
// not too long.
func (m *Matcher) shown(f *field, v *value) string {
	m.text = f.appendText(m.text[:0], v)
	s := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, string(m.text))
	return clip(s, maxValueShown)
}

// all is the text of all values of a field. Where the field speaks of a
// certificate, it is the one that the evidence is about.
func (m *Matcher) all(f *field, found []evidence) string {
	entry := 0
	for _, e := range found {
		if e.field.scope == f.scope && e.entry >= 0 {
			entry = e.entry
			break
		}
	}
	m.beginAt(f, entry)
	if len(m.values) == 0 {
		return "(none)"
	}
	var b strings.Builder
	for i := range m.values {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == maxValuesShown {
			b.WriteString("…")
			break
		}
		b.WriteString(m.shown(f, &m.values[i]))
	}
	return b.String()
}
