package rules

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"sort"
	"strconv"
)

// record is where in the JSON of a record the values are that a [Selection] looks at.
// It refers to the record until forget.
type record struct {
	json         []byte
	at           int      // of the next byte, while it is read
	found        [][]span // by slot, in the order of the record
	certificates [judged]int
	mac          []byte // of the values of one field
}

// span is one value of a field.
type span struct {
	start, end int // in the JSON, the quotes of a string among it
	entry      int // of the chain that it is in, else noEntry
}

// recordName is one part of the dotted name of a field, and the names below it.
type recordName struct {
	key   []byte
	slot  int // of the field that has this name, or noSlot
	chain scope
	below []*recordName
}

const noSlot = -1

// read finds the values of names, and reports whether b is a JSON object as far as it
// must be looked at for that: what has no such name is only skipped.
func (r *record) read(names *recordName, b []byte) bool {
	r.json, r.at = b, 0
	return r.next() == '{' && r.value(names, noEntry, 0) && r.next() == 0 && r.at == len(b)
}

// forget gives the record back, and reports whether r is fit to be kept for another.
func (r *record) forget() bool {
	r.json = nil
	kept := 0
	for i := range r.found {
		kept += cap(r.found[i])
		r.found[i] = r.found[i][:0]
	}
	clear(r.certificates[:])
	return kept <= maxSpansKept
}

// next returns the next byte that is not white space; 0 at the end.
func (r *record) next() byte {
	for ; r.at < len(r.json); r.at++ {
		switch c := r.json[r.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// value reads a value that has a name, in an entry of a chain or in none, below as
// many lists and objects. It reports whether it could be read, as the next three do.
func (r *record) value(n *recordName, entry, depth int) bool {
	switch c := r.next(); {
	case depth > maxRecordDepth:
		return false
	case c == '[':
		return r.list(n, entry, depth+1)
	case c == '{' && len(n.below) > 0:
		if n.chain != flow && entry == noEntry { // a record that has only hashes of a chain has them in one object
			entry = r.certificates[n.chain]
			r.certificates[n.chain]++
		}
		return r.object(n, entry, depth+1)
	case c == '{':
		return r.skip()
	}
	start := r.at
	if !r.skip() {
		return false
	}
	if n.slot != noSlot && !bytes.Equal(r.json[start:r.at], []byte("null")) {
		r.found[n.slot] = append(r.found[n.slot], span{start, r.at, entry})
	}
	return true
}

func (r *record) list(n *recordName, entry, depth int) bool {
	r.at++
	if r.next() == ']' {
		r.at++
		return true
	}
	for {
		if !r.value(n, entry, depth) {
			return false
		}
		c := r.next()
		r.at++
		if c == ']' {
			return true
		}
		if c != ',' {
			return false
		}
	}
}

func (r *record) object(n *recordName, entry, depth int) bool {
	r.at++
	if r.next() == '}' {
		r.at++
		return true
	}
	for {
		if r.next() != '"' {
			return false
		}
		start := r.at
		if !r.skip() {
			return false
		}
		below := n.named(r.json[start:r.at])
		if r.next() != ':' {
			return false
		}
		r.at++
		ok := false
		if below != nil {
			ok = r.value(below, entry, depth)
		} else {
			ok = r.skip()
		}
		if !ok {
			return false
		}
		c := r.next()
		r.at++
		if c == '}' {
			return true
		}
		if c != ',' {
			return false
		}
	}
}

// named finds the name that a key in quotes is, nil when nothing below n is called so.
func (n *recordName) named(quoted []byte) *recordName {
	key := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		s, _ := unquote(quoted)
		key = []byte(s)
	}
	for _, b := range n.below {
		if bytes.Equal(b.key, key) {
			return b
		}
	}
	return nil
}

// skip moves behind a value. What is in lists and objects is not looked at, beyond
// where they end.
func (r *record) skip() bool {
	depth := 0
	for {
		switch c := r.next(); c {
		case '"':
			if !r.skipString() {
				return false
			}
		case '{', '[':
			depth++
			r.at++
		case '}', ']':
			depth--
			r.at++
		case ',', ':':
			if depth == 0 {
				return false
			}
			r.at++
		default: // a number, a truth value or null; or the end
			start := r.at
			for r.at < len(r.json) && !delimits[r.json[r.at]] {
				r.at++
			}
			if r.at == start {
				return false
			}
		}
		if depth <= 0 {
			return depth == 0
		}
	}
}

// delimits are the bytes that end a number, a truth value or null.
var delimits = func() (t [256]bool) {
	for _, c := range []byte(" \t\r\n,:[]{}\"") {
		t[c] = true
	}
	return t
}()

// skipString moves behind a string. Each byte is looked at twice at most, also where
// all of them are escaped.
func (r *record) skipString() bool {
	r.at++
	quote := -1
	for {
		if quote < r.at {
			i := bytes.IndexByte(r.json[r.at:], '"')
			if i < 0 {
				return false
			}
			quote = r.at + i
		}
		escape := bytes.IndexByte(r.json[r.at:quote], '\\')
		if escape < 0 {
			r.at = quote + 1
			return true
		}
		if r.at += escape + 2; r.at > len(r.json) {
			return false
		}
	}
}

// unquote returns the text of a string in quotes.
func unquote(quoted []byte) (s string, ok bool) {
	err := json.Unmarshal(quoted, &s)
	return s, err == nil
}

// values appends the values of f, those of the certificate at entry where f is about a
// chain. They refer to the record, and are lent until the next call.
func (r *record) values(dst []value, f *field, entry int) []value {
	r.mac = r.mac[:0]
	spans := r.found[f.slot]
	if f.scope == serverChain || f.scope == clientChain {
		first := sort.Search(len(spans), func(i int) bool { return spans[i].entry >= entry })
		after := first + sort.Search(len(spans)-first, func(i int) bool { return spans[first+i].entry > entry })
		spans = spans[first:after]
	}
	for _, at := range spans {
		if v, ok := r.parse(f, r.json[at.start:at.end]); ok {
			dst = append(dst, v)
		}
	}
	return dst
}

// parse reads a value of f. What is not a value of its kind is none.
func (r *record) parse(f *field, b []byte) (v value, ok bool) {
	v.s = asString(b)
	if b[0] == '"' {
		v.s = v.s[1 : len(v.s)-1]
		if bytes.IndexByte(b, '\\') >= 0 {
			if v.s, ok = unquote(b); !ok {
				return v, false
			}
		}
	}
	var err error
	switch f.kind {
	case digest:
		ok = len(v.s)%2 == 0
		for i := range len(v.s) {
			ok = ok && isHex(v.s[i])
		}
		return v, ok
	case mac:
		start := len(r.mac)
		r.mac, ok = appendUnhex(r.mac, v.s)
		v.raw = r.mac[start:]
		return v, ok
	case number:
		v.n, err = strconv.ParseInt(v.s, 10, 64)
	case boolean:
		if v.s == "true" {
			v.n = 1
		}
		return v, v.n == 1 || v.s == "false"
	case instant:
		v.n, err = parseTime(v.s)
	case suite, group:
		n, ok := codePoint(f.kind, v.s)
		v.n = int64(n)
		return v, ok
	case address:
		var a netip.Addr
		a, err = netip.ParseAddr(v.s)
		v.ip = a.Unmap().WithZone("")
	}
	return v, err == nil
}
