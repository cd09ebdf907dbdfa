package rules

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// index finds the rules that can hold for a handshake without a look at the
// others. Each rule is anchored at some of its items: the rule can hold only if
// one of these does. Exact values are found by hash tables, other texts by three
// or four bytes that they must contain.
type index struct {
	flow        []*fieldIndex        // of fields of the handshake
	certificate [roles][]*fieldIndex // of fields that a certificate decides alone
	entry       [roles][]*fieldIndex // of fields about its place in the chain
	always      []int32              // rules without an anchor
}

// fieldIndex is the anchors at one field.
type fieldIndex struct {
	field *field
	exact keySet
	first []int32           // by key of exact: the first rule that is anchored there,
	more  map[int32][]int32 // and the others
	lists []listAnchor
	nets  []byte // prefix lengths that occur among networks, which are keys of exact too
	any   []int32
	grams map[uint32][]int32
	// gate has the bit of each gram, so that most of a text costs no look-up.
	gate  [1 << 10]uint64
	three bool // whether there are grams of three bytes
}

// listAnchor is the rules that are anchored at a list.
type listAnchor struct {
	list  *list
	rules []int32
}

// asString views b as a string, which is valid until b changes.
func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// anchors are items of a rule, which can hold only if one of them does.
type anchors struct {
	items []*item
	cost  int // how many handshakes it will let through, relatively
}

// anchorsOf finds the cheapest anchors of a condition. ok is false when it has
// no anchors, because it can hold when none of its items does.
func anchorsOf(n *node, negated bool) (best anchors, ok bool) {
	switch n.op {
	case opSelection:
		if negated {
			return anchors{}, false
		}
		for i := range n.sel.blocks {
			b := &n.sel.blocks[i]
			var least anchors
			ok := false
			for _, items := range [][]*item{b.flow, b.server, b.client, b.judged} {
				for _, it := range items {
					if a, good := anchorOf(it); good && (!ok || a.cost < least.cost) {
						least, ok = a, true
					}
				}
			}
			if !ok {
				return anchors{}, false
			}
			best.items = append(best.items, least.items...)
			best.cost += least.cost
		}
		return best, len(n.sel.blocks) > 0
	case opNot:
		return anchorsOf(n.kids[0], !negated)
	}
	if (n.op == opAnd) != negated { // all of them hold: the best one will do
		for _, kid := range n.kids {
			if a, good := anchorsOf(kid, negated); good && (!ok || a.cost < best.cost) {
				best, ok = a, true
			}
		}
		return best, ok
	}
	for _, kid := range n.kids { // any of them: it takes every one
		a, good := anchorsOf(kid, negated)
		if !good {
			return anchors{}, false
		}
		best.items = append(best.items, a.items...)
		best.cost += a.cost
	}
	return best, true
}

// anchorOf finds what an item can be anchored at.
func anchorOf(it *item) (anchors, bool) {
	if it.negated || it.null || it.empty || it.exists < 0 || it.field.scope == judged && it.field.reach != told {
		return anchors{}, false
	}
	if it.all != nil {
		var best anchors
		ok := false
		for _, one := range it.all {
			if a, good := anchorOf(one); good && (!ok || a.cost < best.cost) {
				best, ok = a, true
			}
		}
		return best, ok
	}
	cost := it.field.weight
	for i := range it.tests {
		switch t := &it.tests[i]; t.op {
		case opNetwork:
		case opPresent, opLess, opLessEqual, opGreater, opGreaterEqual:
			cost = max(cost, 5000)
		default:
			if len(t.needle()) < 3 {
				return anchors{}, false
			}
			cost = max(cost, 4*it.field.weight)
		}
	}
	if it.exists > 0 || len(it.others) > 0 {
		cost = 5000
	}
	return anchors{[]*item{it}, cost}, true
}

// newIndex indexes the enabled rules.
func newIndex(rules []*Rule) *index {
	x := &index{}
	byField := make(map[*field]*fieldIndex)
	// How many rules want each gram: a text is anchored at its rarest.
	type want struct {
		fi     *fieldIndex
		needle string
		rule   int32
	}
	var wants []want
	frequency := make(map[uint32]int)
	for i, r := range rules {
		if !r.Enabled || r.cond == nil {
			continue
		}
		rule := int32(i)
		best, ok := anchorsOf(r.cond, false)
		if !ok {
			x.always = append(x.always, rule)
			continue
		}
		for _, it := range best.items {
			fi := byField[it.field]
			if fi == nil {
				fi = &fieldIndex{field: it.field, more: make(map[int32][]int32), grams: make(map[uint32][]int32)}
				byField[it.field] = fi
				x.add(fi)
			}
			for k := range it.keys.n {
				fi.anchor(it.keys.key(k), rule)
			}
			for _, l := range it.lists {
				at := slices.IndexFunc(fi.lists, func(a listAnchor) bool { return a.list == l })
				if at < 0 {
					at = len(fi.lists)
					fi.lists = append(fi.lists, listAnchor{list: l})
				}
				fi.lists[at].rules = appendNew(fi.lists[at].rules, rule)
			}
			if it.exists > 0 || len(it.others) > 0 {
				fi.any = appendNew(fi.any, rule)
			}
			for k := range it.tests {
				switch t := &it.tests[k]; t.op {
				case opNetwork:
					key, bits := networkKey(nil, t.network)
					fi.anchor(key, rule)
					if !slices.Contains(fi.nets, bits) {
						fi.nets = append(fi.nets, bits)
					}
				case opPresent, opLess, opLessEqual, opGreater, opGreaterEqual:
					fi.any = appendNew(fi.any, rule)
				default:
					needle := t.needle()
					wants = append(wants, want{fi, needle, rule})
					for g := range grams(needle) {
						frequency[g]++
					}
				}
			}
		}
	}
	for _, w := range wants {
		rarest, least := uint32(0), -1
		for g := range grams(w.needle) {
			if n := frequency[g]; least < 0 || n < least {
				rarest, least = g, n
			}
		}
		w.fi.grams[rarest] = appendNew(w.fi.grams[rarest], w.rule)
		word, bit := gate(rarest)
		w.fi.gate[word] |= bit
		w.fi.three = w.fi.three || len(w.needle) == 3
	}
	return x
}

func (x *index) add(fi *fieldIndex) {
	if fi.field.scope == flow || fi.field.scope == judged {
		x.flow = append(x.flow, fi)
		return
	}
	for r := range roles {
		if !r.has(fi.field.scope) {
			continue
		}
		if fi.field.ofEntry {
			x.entry[r] = append(x.entry[r], fi)
		} else {
			x.certificate[r] = append(x.certificate[r], fi)
		}
	}
}

// appendNew appends r unless it is the last already.
func appendNew(rules []int32, r int32) []int32 {
	if n := len(rules); n > 0 && rules[n-1] == r {
		return rules
	}
	return append(rules, r)
}

// anchor adds a rule at a key.
func (fi *fieldIndex) anchor(key []byte, rule int32) {
	n, added := fi.exact.add(key)
	if added {
		fi.first = append(fi.first, rule)
	} else if fi.first[n] != rule {
		fi.more[int32(n)] = appendNew(fi.more[int32(n)], rule)
	}
}

// networkKey appends the key of a network, one byte longer than that of an
// address, and returns its length in bits of IPv6.
func networkKey(dst []byte, p netip.Prefix) (key []byte, bits byte) {
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	a := p.Masked().Addr().As16()
	return append(append(dst, a[:]...), byte(n)), byte(n)
}

// grams yields the four bytes at each place of a text, or the only three.
func grams(s string) func(func(uint32) bool) {
	return func(yield func(uint32) bool) {
		if len(s) == 3 {
			yield(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16)
			return
		}
		for i := 0; i+4 <= len(s); i++ {
			if !yield(binary.LittleEndian.Uint32([]byte(s[i : i+4]))) {
				return
			}
		}
	}
}

func gate(gram uint32) (word uint32, bit uint64) {
	h := gram * 0x9E3779B1 >> 16
	return h >> 6, 1 << (h & 63)
}

// role is the place of a certificate in a handshake. It decides which fields
// speak of the certificate.
type role uint8

const (
	serversLeaf role = iota
	serversOther
	clientsLeaf
	clientsOther
	roles
)

// has reports whether a field of scope s speaks of a certificate in this role.
func (r role) has(s scope) bool {
	switch s {
	case serverLeaf:
		return r == serversLeaf
	case serverChain:
		return r <= serversOther
	case clientLeaf:
		return r == clientsLeaf
	case clientChain:
		return r >= clientsLeaf
	}
	return false
}

// known is what the index found for a certificate in a role. Most certificates
// on a network have been seen before.
type known struct {
	certificate *cert.Certificate
	role        role
	rules       []int32
}

// candidates returns the rules that may hold for h, in order.
func (m *Matcher) candidates(h *event.Handshake) []int32 {
	m.h = h
	m.found = m.found[:0]
	if m.round++; m.round == 0 { // wrapped: forget what the first rounds saw
		clear(m.seen)
		m.round = 1
	}
	x := m.set.index
	m.hits = append(m.hits[:0], x.always...)
	m.looking = true
	bare := m.j.KeyProof == nil && m.j.Memory == nil && m.j.Transparency == nil && m.j.Shape == nil
	for _, fi := range x.flow {
		if bare && fi.field.scope == judged {
			continue // as for most handshakes, nothing that the index is about is judged
		}
		m.values = fi.field.values(m.values[:0], m, nil)
		m.look(fi)
	}
	m.keep(m.hits)
	for i := range h.Chain {
		m.certificate(&h.Chain[i], min(serversOther, serversLeaf+role(min(i, 1))))
	}
	for i := range h.ClientChain {
		m.certificate(&h.ClientChain[i], min(clientsOther, clientsLeaf+role(min(i, 1))))
	}
	m.looking = false
	slices.Sort(m.found)
	return m.found
}

// keep adds rules to the candidates of this round.
func (m *Matcher) keep(rules []int32) {
	for _, r := range rules {
		if m.seen[r] != m.round {
			m.seen[r] = m.round
			m.found = append(m.found, r)
		}
	}
}

// certificate adds the rules that are anchored at what a certificate says.
func (m *Matcher) certificate(c *event.ChainEntry, as role) {
	x := m.set.index
	m.hits = m.hits[:0]
	for _, fi := range x.entry[as] {
		m.lookAt(fi, c)
	}
	m.keep(m.hits)
	if c.Certificate == nil || len(x.certificate[as]) == 0 {
		return
	}
	// A truncated certificate is a new one each time, and one without a hash
	// has no slot.
	var slot *known
	if !c.Truncated && c.SHA256 != [32]byte{} {
		slot = &m.known[(binary.LittleEndian.Uint32(c.SHA256[:])+uint32(as))%knownCertificates]
		if slot.certificate == c.Certificate && slot.role == as {
			m.keep(slot.rules)
			return
		}
	}
	m.hits = m.hits[:0]
	for _, fi := range x.certificate[as] {
		m.lookAt(fi, c)
	}
	if slot != nil {
		slot.certificate, slot.role, slot.rules = c.Certificate, as, append(slot.rules[:0], m.hits...)
	}
	m.keep(m.hits)
}

func (m *Matcher) markKey(fi *fieldIndex, key []byte) {
	n := fi.exact.find(key)
	if n < 0 {
		return
	}
	m.hits = append(m.hits, fi.first[n])
	if len(fi.more) > 0 {
		m.hits = append(m.hits, fi.more[int32(n)]...)
	}
}

// lookAt adds to m.hits the rules anchored at what a field has of a certificate.
func (m *Matcher) lookAt(fi *fieldIndex, c *event.ChainEntry) {
	limit := maxHits
	for m.begin(fi.field, c); len(m.values) > 0; m.next(fi.field) {
		m.look(fi)
		if len(m.hits) > limit {
			slices.Sort(m.hits)
			m.hits = slices.Compact(m.hits)
			limit = max(limit, 2*len(m.hits))
		}
	}
}

// look adds to m.hits the rules anchored at m.values of a field.
func (m *Matcher) look(fi *fieldIndex) {
	if len(m.values) > 0 {
		m.hits = append(m.hits, fi.any...)
	}
	for i := range m.values {
		v := &m.values[i]
		if fi.exact.n > 0 || len(fi.lists) > 0 {
			m.key = fi.field.appendKey(m.key[:0], v)
			m.markKey(fi, m.key)
			for _, a := range fi.lists {
				if a.list.keys.find(m.key) >= 0 {
					m.hits = append(m.hits, a.rules...)
				}
			}
		}
		for _, bits := range fi.nets {
			if v.ip.Is4() && bits < 96 {
				continue
			}
			n := int(bits)
			if v.ip.Is4() {
				n -= 96
			}
			if p, err := v.ip.Prefix(n); err == nil {
				m.key, _ = networkKey(m.key[:0], p)
				m.markKey(fi, m.key)
			}
		}
		if len(fi.grams) > 0 {
			m.texts(fi.field, v)
			m.markGrams(fi)
		}
	}
}

func (m *Matcher) markGrams(fi *fieldIndex) {
	s := m.fold
	for i := 0; i+3 <= len(s); i++ {
		three := uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16
		if fi.three {
			if word, bit := gate(three); fi.gate[word]&bit != 0 {
				m.hits = append(m.hits, fi.grams[three]...)
			}
		}
		if i+4 <= len(s) {
			four := three | uint32(s[i+3])<<24
			if word, bit := gate(four); fi.gate[word]&bit != 0 {
				m.hits = append(m.hits, fi.grams[four]...)
			}
		}
	}
}
