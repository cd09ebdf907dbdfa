package rules

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// item is one line of a selection: a field and what its values must be.
type item struct {
	field   *field
	negated bool    // neq
	all     []*item // with the modifier all: one item for each value; nothing else is set then

	// One of the field's values is among these:
	keys  keySet
	lists []*list
	tests []test
	// Or it is a value of one of these fields, all of which are of its kind:
	others []*field
	null   bool // or it has no value
	empty  bool // or it has no value, or an empty one
	// Or it has no value in a record, which leaves out what is false.
	omitted bool
	// Where exists is set, the item holds when the field has a value (1) or has
	// no value (-1).
	exists int8
}

// block is a map of a selection. Its items hold together: those about a chain
// for one and the same certificate.
type block struct {
	flow, server, client []*item
	judged               []*item // looked at last
}

// selection is one or more blocks. It holds when one of them does.
type selection struct {
	name   string
	blocks []block
}

// node is an operator of a condition, or a selection.
type node struct {
	op   nodeOp
	kids []*node    // of opAnd and opOr; one of opNot
	sel  *selection // of opSelection

	judged bool // it speaks of judgements: among others it is evaluated last
}

type nodeOp uint8

const (
	opSelection nodeOp = iota
	opAnd
	opOr
	opNot
)

// Matcher evaluates a [Set] over handshakes. Without a set it evaluates the condition
// of a [Selection] over records: all is the same but where values come from ([Matcher.beginAt]
// and [Matcher.certificates]). It is not safe for concurrent use.
type Matcher struct {
	set     *Set
	judge   judgement.Judge
	h       *event.Handshake
	record  *record              // else
	j       *judgement.Judgement // what is known of h, and is added to
	looking bool                 // for candidates: nothing is judged
	none    judgement.Judgement  // what is known where the caller does not care
	round   uint32               // of Match
	seen    []uint32             // by rule: the round in which it became a candidate
	found   []int32              // the candidates of this round
	hits    []int32              // what one look-up found, rules more than once perhaps
	known   []known              // by hash of the certificate

	refs       references
	values     []value
	names      cert.Names // where the next values come from
	more       map[nameSet]*keySet
	key        []byte
	text, fold []byte
}

// node evaluates a condition.
func (m *Matcher) node(n *node) bool {
	switch n.op {
	case opSelection:
		for i := range n.sel.blocks {
			if m.block(&n.sel.blocks[i]) {
				return true
			}
		}
		return false
	case opNot:
		return !m.node(n.kids[0])
	case opAnd:
		return !m.anyKid(n, false)
	default:
		return m.anyKid(n, true)
	}
}

// anyKid reports whether one of the kids of n is what holds says. Those that ask for
// judgements come last.
func (m *Matcher) anyKid(n *node, holds bool) bool {
	for _, kid := range n.kids {
		if !kid.judged && m.node(kid) == holds {
			return true
		}
	}
	if n.judged {
		for _, kid := range n.kids {
			if kid.judged && m.node(kid) == holds {
				return true
			}
		}
	}
	return false
}

// markJudged sets judged in n and all below it.
func (n *node) markJudged() bool {
	for _, kid := range n.kids {
		n.judged = kid.markJudged() || n.judged
	}
	if n.op == opSelection {
		n.judged = slices.ContainsFunc(n.sel.blocks, func(b block) bool { return len(b.judged) > 0 })
	}
	return n.judged
}

func (m *Matcher) block(b *block) bool {
	if !m.items(b.flow, noEntry) {
		return false
	}
	_, server := m.firstEntry(b.server, m.certificates(serverChain))
	if !server {
		return false
	}
	_, client := m.firstEntry(b.client, m.certificates(clientChain))
	return client && m.items(b.judged, noEntry)
}

// certificates returns how many certificates a chain has.
func (m *Matcher) certificates(chain scope) int {
	if m.record != nil {
		return m.record.certificates[chain]
	}
	return len(chain.entries(m.h))
}

// beginAt sets m.values to the values of f, or to the first of them, as [Matcher.begin]
// does. Where f is about a chain, it is about the certificate at entry.
func (m *Matcher) beginAt(f *field, entry int) {
	if m.record != nil {
		m.values, m.names = m.record.values(m.values[:0], f, entry), cert.Names{}
		return
	}
	m.begin(f, f.entry(m.h, entry))
}

// noEntry is the index where items do not speak of a certificate, or the chain is
// empty.
const noEntry = -1

// firstEntry returns the index of the first of n certificates for which all
// items hold: noEntry when there are no items, or when they hold for an empty
// chain.
func (m *Matcher) firstEntry(items []*item, n int) (index int, ok bool) {
	if len(items) == 0 {
		return noEntry, true
	}
	if n == 0 {
		return noEntry, m.items(items, noEntry)
	}
	for i := range n {
		if m.items(items, i) {
			return i, true
		}
	}
	return noEntry, false
}

func (m *Matcher) items(items []*item, entry int) bool {
	for _, it := range items {
		if !m.item(it, entry) {
			return false
		}
	}
	return true
}

func (m *Matcher) item(it *item, entry int) bool {
	return m.plain(it, entry) != it.negated
}

// plain evaluates an item without its negation.
func (m *Matcher) plain(it *item, entry int) bool {
	if it.all != nil {
		return m.items(it.all, entry)
	}
	m.refer(it, entry)
	m.beginAt(it.field, entry)
	if it.exists != 0 {
		return (it.exists > 0) == (len(m.values) > 0)
	}
	if len(m.values) == 0 {
		return it.null || it.empty || it.omitted && (it.field.scope == flow || entry != noEntry)
	}
	for i := range m.values {
		if ok, _ := m.value(it, &m.values[i]); ok {
			return true
		}
	}
	return !m.names.Done() && m.anyName(it, it.field.entry(m.h, entry))
}

// value reports whether one value of its field makes an item hold, and returns
// the list that the value is in, if any.
func (m *Matcher) value(it *item, v *value) (bool, *list) {
	f := it.field
	if it.keys.n > 0 || len(it.lists) > 0 || len(it.others) > 0 {
		m.key = f.appendKey(m.key[:0], v)
		if it.keys.find(m.key) >= 0 {
			return true, nil
		}
		for _, l := range it.lists {
			if l.keys.find(m.key) >= 0 {
				return true, l
			}
		}
		if len(it.others) > 0 && m.refs.have(m.key) {
			return true, nil
		}
	}
	if it.empty && f.kind == text && v.s == "" {
		return true, nil
	}
	if len(it.tests) == 0 {
		return false, nil
	}
	m.text = m.text[:0]
	m.fold = m.fold[:0]
	if !it.tests[0].numeric() {
		m.texts(f, v)
	}
	for i := range it.tests {
		if it.tests[i].holds(v, m.text, m.fold) {
			return true, nil
		}
	}
	return false, nil
}

// texts sets m.text to the text of v, and m.fold to its folded form.
func (m *Matcher) texts(f *field, v *value) {
	m.text = f.appendText(m.text[:0], v)
	m.fold = appendFold(m.fold[:0], asString(m.text))
}
