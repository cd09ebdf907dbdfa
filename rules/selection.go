package rules

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
)

// Selection is a choice among records, in the language of the rules: what a rule asks
// of a handshake, it asks of the JSON of a record. It is immutable and safe for
// concurrent use.
type Selection struct {
	cond     *node
	names    *recordName
	slots    int
	matchers sync.Pool // of *Matcher
}

// ParseSelection reads a selection, which is YAML of one of these forms:
//
//	oddcert.verdict: [forged, relayed]      a map: all must hold
//	event.severity|gte: 73
//
//	- oddcert.verdict: forged               a list of maps: one must hold
//	- event.dataset: oddcert.stats
//
//	grave: {event.severity|gte: 73}         maps or lists with names, and a condition
//	lab: {source.ip|cidr: 192.0.2.0/24}     over them, as in a rule's detection
//	condition: grave and not lab
//
// fields has the types that records have in Elasticsearch ("keyword", "long",
// "nested", …) by their dotted names. A name that ends in ".*" stands for all names
// below it that are not in fields themselves. Fields that rules have too, and those of
// oddcert.certificate that are oddcert.chain's, are compared as rules compare them. The
// names client.* and server.* mean source.* and destination.*, which all records have.
// A truth value that is not in a record counts as false, as many are left out then;
// null holds for it, too.
//
// The error is [Problems], with all that is wrong with the text.
func ParseSelection(text string, fields map[string]string) (*Selection, error) {
	s := &Selection{names: &recordName{slot: noSlot}}
	r := &fileReader{}
	d := &document{
		fileReader: r,
		rule:       new(Rule),
		field:      (&recordFields{types: fields, made: make(map[string]*field), selection: s}).named,
		list: func(name string, _ *field, at place) *list {
			r.problem(at, "%"+name+"%", "lists are for rules: write the values here")
			return nil
		},
		warn: r.problem,
	}
	d.chosen(text)
	if len(r.problems) > 0 {
		r.problems.sort()
		return nil, r.problems
	}
	s.cond = d.rule.cond
	s.matchers.New = func() any { return &Matcher{record: &record{found: make([][]span, s.slots)}} }
	return s, nil
}

// chosen reads the text of a selection.
func (d *document) chosen(text string) {
	if i := invalidUTF8([]byte(text)); i >= 0 {
		before := text[:i]
		d.problem(place{strings.Count(before, "\n") + 1, i - strings.LastIndexByte(before, '\n')}, "", "is not UTF-8")
		return
	}
	if len(text) > maxSelection {
		d.problem(place{1, 1}, "", "a selection may have %d bytes", maxSelection)
		return
	}
	docs := split([]byte(text))
	if len(docs) > 1 {
		d.problem(place{docs[1].line + 1, 1}, "", "a selection is one document")
		return
	}
	body := d.parse(docs[0])
	if body == nil {
		if len(d.problems) == 0 {
			d.problem(place{1, 1}, "", "the selection is empty")
		}
		return
	}
	whole := entry{place: placeOf(body.GetToken()), value: body}
	entries, _ := d.entries(body)
	if find(entries, "condition") != nil {
		d.detection(&whole, entries)
		return
	}
	for i := range entries {
		switch entries[i].value.(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			d.problem(entries[i].place, entries[i].key, "selections with names need a condition over them")
			return
		}
	}
	d.rule.cond = &node{op: opSelection, sel: d.selection(&whole)}
}

// Matches reports whether the selection holds for a record, which is lent: one JSON
// object in UTF-8. It holds for nothing that is not one. The record is read once; what
// no field of the selection is in is skipped.
func (s *Selection) Matches(json []byte) bool {
	m := s.matchers.Get().(*Matcher)
	holds, keep := s.matches(m, json)
	if keep {
		s.matchers.Put(m)
	}
	return holds
}

// matches is Matches with a matcher, and reports whether that is fit to be kept.
func (s *Selection) matches(m *Matcher, json []byte) (holds, keep bool) {
	holds = m.record.read(s.names, json) && m.node(s.cond)
	clear(m.values[:cap(m.values)])
	return holds, m.record.forget()
}

// recordFields makes the fields that a selection names.
type recordFields struct {
	types     map[string]string // by name, as ParseSelection has them
	made      map[string]*field
	selection *Selection
}

// named finds a field, as fieldNamed does.
func (r *recordFields) named(name string) (f *field, near string) {
	if f := r.made[name]; f != nil {
		return f, ""
	}
	at := name
	for alias, of := range map[string]string{"client.": "source.", "server.": "destination."} {
		if after, ok := strings.CutPrefix(name, alias); ok && r.typeOf(of+after) != "" {
			at = of + after
		}
	}
	typ := r.typeOf(at)
	if typ == "" || typ == "nested" { // a list of objects, whose fields have values
		candidates := slices.Sorted(maps.Keys(r.types))
		return nil, nearest(name, slices.DeleteFunc(candidates, func(c string) bool {
			return strings.HasSuffix(c, "*") || r.types[c] == "nested"
		}))
	}
	f = &field{name: name, kind: recordKinds[typ], scope: flow}
	like := at
	if of, ok := strings.CutPrefix(at, "oddcert.certificate."); ok {
		like = "oddcert.chain." + of
	}
	if of := fields[like]; of != nil {
		f.kind, f.size = of.kind, of.size
	}
	for _, chain := range []scope{serverChain, clientChain} {
		if strings.HasPrefix(at, chainNames[chain]+".") {
			f.scope = chain
		}
	}
	f.slot, f.omitted = r.selection.slotOf(at), f.kind == boolean
	r.made[name] = f
	return f, ""
}

// recordKinds are the kinds of fields that rules do not have, by type. All other types
// are text.
var recordKinds = map[string]kind{"boolean": boolean, "date": instant, "date_nanos": instant, "float": number, "ip": address, "long": number}

// chainNames are the names of the lists in which the fields of a scope are.
var chainNames = map[scope]string{serverChain: "oddcert.chain", clientChain: "oddcert.client_chain"}

// typeOf returns the type of a field, empty where no record has it.
func (r *recordFields) typeOf(name string) string {
	if strings.HasSuffix(name, "*") {
		return ""
	}
	if t := r.types[name]; t != "" {
		return t
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '.' {
			if t := r.types[name[:i]+".*"]; t != "" {
				return t
			}
		}
	}
	return ""
}

// slotOf returns the slot in which a record has the values of a name.
func (s *Selection) slotOf(name string) int {
	n := s.names
	path := ""
	for part := range strings.SplitSeq(name, ".") {
		path = strings.TrimPrefix(path+"."+part, ".")
		i := slices.IndexFunc(n.below, func(b *recordName) bool { return bytes.Equal(b.key, []byte(part)) })
		if i < 0 {
			i = len(n.below)
			below := &recordName{key: []byte(part), slot: noSlot}
			for chain, name := range chainNames {
				if path == name {
					below.chain = chain
				}
			}
			n.below = append(n.below, below)
		}
		n = n.below[i]
	}
	if n.slot == noSlot {
		n.slot = s.slots
		s.slots++
	}
	return n.slot
}
