package rules

import (
	"bytes"
	"slices"
	"sort"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// A certificate of 1 MiB has room for 100,000 names, and the parser keeps only the
// first of them. The index reads the others from the certificate itself. For the
// rules that it finds, the others are put into a set, once for a handshake:
// otherwise each rule would cost as much as reading the whole certificate.

// begin sets m.values to the values of f, of the certificate c that it speaks of,
// or to the first of them. It leaves m.values empty when f has no values.
func (m *Matcher) begin(f *field, c *event.ChainEntry) {
	m.values = f.values(m.values[:0], m, c)
	m.names = cert.Names{}
	if f.names != nil && c != nil && c.Certificate != nil {
		m.names = c.MoreNames()
		if len(m.values) == 0 {
			m.next(f)
		}
	}
}

// next sets m.values to more values of f, and leaves it empty when there are no
// more.
func (m *Matcher) next(f *field) {
	m.values = m.values[:0]
	for len(m.values) < namesAtOnce {
		kind, name, ok := m.names.Next()
		if !ok {
			break
		}
		if slices.Contains(f.names, kind) {
			m.values = append(m.values, value{s: name})
		}
	}
}

// nameSet is the key of a set of names: the certificate, and the kinds of names
// that a field has. kinds points to the first of these.
type nameSet struct {
	certificate *cert.Certificate
	kinds       *cert.NameKind
}

// others returns the folded names of c that are values of f and have no room in
// the certificate's lists.
func (m *Matcher) others(f *field, c *event.ChainEntry) *keySet {
	key := nameSet{c.Certificate, &f.names[0]}
	s := m.more[key]
	if s == nil {
		s = new(keySet)
		m.names = c.MoreNames()
		for m.next(f); len(m.values) > 0; m.next(f) {
			for i := range m.values {
				m.key = f.appendKey(m.key[:0], &m.values[i])
				s.add(m.key)
			}
		}
		if m.more == nil {
			m.more = make(map[nameSet]*keySet)
		}
		m.more[key] = s
	}
	return s
}

// anyName reports whether an item holds for one of the names that others returns.
func (m *Matcher) anyName(it *item, c *event.ChainEntry) bool {
	s := m.others(it.field, c)
	if meets(&it.keys, s) || it.empty && s.find(nil) >= 0 {
		return true
	}
	for _, l := range it.lists {
		if meets(&l.keys, s) {
			return true
		}
	}
	if len(it.others) > 0 && m.refs.any(s) {
		return true
	}
	for i := range it.tests {
		t := &it.tests[i]
		found := s.search([]byte(t.needle()), func(name []byte) bool {
			return t.cased || t.op == opRegex || t.holds(nil, nil, name)
		})
		if found && (t.cased || t.op == opRegex) { // it looks at what is not folded
			found = m.anyText(it.field, t, c)
		}
		if found {
			return true
		}
	}
	return false
}

// anyText reports whether a test holds for one of these names, unfolded.
func (m *Matcher) anyText(f *field, t *test, c *event.ChainEntry) bool {
	m.names = c.MoreNames()
	for m.next(f); len(m.values) > 0; m.next(f) {
		if slices.ContainsFunc(m.values, func(v value) bool {
			m.texts(f, &v)
			return t.holds(&v, m.text, m.fold)
		}) {
			return true
		}
	}
	return false
}

// meets reports whether two sets have a key in common.
func meets(a, b *keySet) bool {
	if a.n > b.n {
		a, b = b, a
	}
	for i := range a.n {
		if b.find(a.key(i)) >= 0 {
			return true
		}
	}
	return false
}

// search reports whether a key that contains the needle is good.
func (s *keySet) search(needle []byte, good func(key []byte) bool) bool {
	if len(needle) == 0 {
		for i := range s.n {
			if good(s.key(i)) {
				return true
			}
		}
		return false
	}
	for at := 0; ; {
		found := bytes.Index(s.bytes[at:], needle)
		if found < 0 {
			return false
		}
		at += found
		i, end := s.keyAt(at)
		if at+len(needle) <= end && good(s.key(i)) {
			return true
		}
		at = end // a needle across two keys is in neither
	}
}

// keyAt returns the number of the key that has the byte at an offset of s.bytes,
// and the offset where the key ends.
func (s *keySet) keyAt(offset int) (i, end int) {
	if s.ends == nil {
		i = offset / s.size
		return i, (i + 1) * s.size
	}
	i = sort.Search(s.n, func(i int) bool { return s.ends[i] > uint64(offset) })
	return i, int(s.ends[i])
}
