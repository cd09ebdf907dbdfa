package rules

import (
	"bytes"
	"slices"
	"sort"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// A certificate of 1 MiB has room for 100,000 names, of which the parser keeps
// the first. The index reads the others as they stand in the certificate. Rules
// that it finds are asked of a set that is made of them once for a handshake, or
// each rule would cost as much as the whole certificate.

// begin sets m.values to the values of f, of the certificate c that it speaks of,
// or to the first of them. There are none at all when it leaves m.values empty.
func (m *Matcher) begin(f *field, c *event.ChainEntry) {
	m.values = f.values(m.values[:0], m.h, c)
	m.names = cert.Names{}
	if f.names != nil && c != nil && c.Certificate != nil {
		m.names = c.MoreNames()
		if len(m.values) == 0 {
			m.next(f)
		}
	}
}

// next sets m.values to more values of f, none when there are no more.
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

// nameSet tells the sets of names of a handshake's certificates apart: kinds is
// the first of a field's.
type nameSet struct {
	certificate *cert.Certificate
	kinds       *cert.NameKind
}

// others returns the folded names of c that are values of f and that its lists leave
// out.
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

// anyName tells whether an item holds for a name of c that its lists leave out.
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

// anyText tells whether a test holds for a name of c that its lists leave out.
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

// meets tells whether two sets have a key in common.
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

// search tells whether a key that has the needle in it is good.
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
		at = end // what goes on into the next key is not in one
	}
}

// keyAt finds the key that has the byte at an offset of s.bytes, and its end.
func (s *keySet) keyAt(offset int) (i, end int) {
	if s.ends == nil {
		i = offset / s.size
		return i, (i + 1) * s.size
	}
	i = sort.Search(s.n, func(i int) bool { return s.ends[i] > uint64(offset) })
	return i, int(s.ends[i])
}
