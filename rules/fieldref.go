package rules

// references are the keys of the values of the fields that an item names.
type references struct {
	bytes []byte // the keys, end to end
	ends  []int
	sets  []*keySet // names for which a certificate has no room
}

// refer puts the values of the other fields that an item names into m.refs, those
// of the certificate at entry where they speak of a chain.
func (m *Matcher) refer(it *item, entry int) {
	if len(it.others) == 0 {
		return
	}
	r := &m.refs
	r.bytes, r.ends, r.sets = r.bytes[:0], r.ends[:0], r.sets[:0]
	for _, f := range it.others {
		m.beginAt(f, entry)
		for i := range m.values {
			r.bytes = f.appendKey(r.bytes, &m.values[i])
			r.ends = append(r.ends, len(r.bytes))
		}
		if !m.names.Done() {
			r.sets = append(r.sets, m.others(f, f.entry(m.h, entry)))
		}
	}
}

// have reports whether a key is among the references.
func (r *references) have(key []byte) bool {
	start := 0
	for _, end := range r.ends {
		if string(r.bytes[start:end]) == string(key) {
			return true
		}
		start = end
	}
	for _, s := range r.sets {
		if s.find(key) >= 0 {
			return true
		}
	}
	return false
}

// any reports whether one of the keys of s is among the references.
func (r *references) any(s *keySet) bool {
	start := 0
	for _, end := range r.ends {
		if s.find(r.bytes[start:end]) >= 0 {
			return true
		}
		start = end
	}
	for _, of := range r.sets {
		if meets(of, s) {
			return true
		}
	}
	return false
}
