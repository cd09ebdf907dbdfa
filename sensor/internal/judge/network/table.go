package network

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/oddcert/oddcert/rules/judgement"
)

// set is what lists say of an address: their names and labels, each sorted. Sets
// are numbered, and 0 is the empty one.
type set struct {
	networks []string
	labels   []judgement.Label
}

func compareLabels(a, b judgement.Label) int { return strings.Compare(a.Key, b.Key) }

// sets has each set once.
type sets struct {
	all    []set
	byText map[string]uint32
	unions map[[2]uint32]uint32
	items  int
}

func newSets() *sets {
	return &sets{all: make([]set, 1), byText: map[string]uint32{"\x00": 0}, unions: map[[2]uint32]uint32{}}
}

var tooManySets = fmt.Sprintf("the networks that overlap, and their labels, make too many combinations: their names and labels are more than %d", maxSetItems)

// intern returns the number of a set, which it keeps. ok is false when there are
// too many.
func (s *sets) intern(networks []string, labels []judgement.Label) (id uint32, ok bool) {
	var b strings.Builder
	for _, n := range networks {
		b.WriteString(n)
		b.WriteByte(' ')
	}
	b.WriteByte(0) // no name or label has it
	for _, l := range labels {
		b.WriteString(l.Key)
		b.WriteByte('=')
		b.WriteString(l.Value)
		b.WriteByte(0)
	}
	if id, ok = s.byText[b.String()]; ok {
		return id, true
	}
	if s.items += len(networks) + len(labels); s.items > maxSetItems {
		return 0, false
	}
	id = uint32(len(s.all))
	s.all = append(s.all, set{networks, labels})
	s.byText[b.String()] = id
	return id, true
}

// union returns the number of the set of the networks of both and their labels; a
// label of inner replaces one of outer.
func (s *sets) union(outer, inner uint32) (id uint32, text string) {
	if outer == 0 || inner == outer {
		return inner, ""
	}
	if id, ok := s.unions[[2]uint32{outer, inner}]; ok {
		return id, ""
	}
	a, b := s.all[outer], s.all[inner]
	labels := slices.Clone(b.labels)
	for _, l := range a.labels {
		if _, there := slices.BinarySearchFunc(b.labels, l, compareLabels); !there {
			labels = append(labels, l)
		}
	}
	if len(labels) > maxLabels {
		return 0, fmt.Sprintf("with those of wider networks, the network has more than %d labels", maxLabels)
	}
	slices.SortFunc(labels, compareLabels)
	id, ok := s.intern(mergeNames(a.networks, b.networks), labels)
	if !ok {
		return 0, tooManySets
	}
	s.unions[[2]uint32{outer, inner}] = id
	return id, ""
}

// mergeNames returns the names of both, sorted, each once.
func mergeNames(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// number is an address as a number of 128 bits, of which IPv4 has the lower 32.
type number struct{ hi, lo uint64 }

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n number) less(m number) bool { return n.hi < m.hi || n.hi == m.hi && n.lo < m.lo }

// next is n + 1; 0 follows the highest.
func (n number) next() number {
	if n.lo++; n.lo == 0 {
		n.hi++
	}
	return n
}

// entry is a line of a list: the last bits of the network's addresses are host.
type entry struct {
	first  number
	set    uint32 // of the line alone
	line   uint32
	source uint16 // index of the file
	host   uint8
}

func (e *entry) last() number {
	if e.host >= 64 {
		return number{e.first.hi | (1<<(e.host-64) - 1), ^uint64(0)}
	}
	return number{e.first.hi, e.first.lo | (1<<e.host - 1)}
}

// entries are those of IPv4 and of IPv6.
type entries [2][]entry

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (es *entries) add(p netip.Prefix, set uint32, source uint16, line uint32) {
	a := p.Addr()
	f := &es[family(a)]
	*f = append(*f, entry{numberOf(a), set, line, source, uint8(a.BitLen() - p.Bits())})
}

// span is the addresses from first to the next span, all of which have one set.
type span struct {
	first number
	set   uint32
}

// table has the spans of IPv4 and of IPv6, sorted.
type table [2][]span

// find returns the number of the set of an address, which is not IPv4 in IPv6.
func (t *table) find(a netip.Addr) uint32 {
	spans, n := t[family(a)], numberOf(a)
	i := sort.Search(len(spans), func(i int) bool { return n.less(spans[i].first) })
	if i == 0 {
		return 0
	}
	return spans[i-1].set
}

// table makes the table of entries, and needs them no more. Networks either
// contain each other or have nothing in common, so those around an address are a
// stack.
func (l *loader) table(es entries) (t table) {
	for f, entries := range es {
		slices.SortFunc(entries, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.first.hi, b.first.hi), cmp.Compare(a.first.lo, b.first.lo), cmp.Compare(b.host, a.host),
				cmp.Compare(a.source, b.source), cmp.Compare(a.line, b.line))
		})
		t[f] = slices.Clone(l.spans(entries)) // in no more memory than it needs
	}
	return t
}

func (l *loader) spans(entries []entry) (spans []span) {
	from := func(first number, set uint32) {
		if n := len(spans); n > 0 && spans[n-1].first == first {
			spans = spans[:n-1]
		}
		if n := len(spans); n == 0 && set == 0 || n > 0 && spans[n-1].set == set {
			return
		}
		spans = append(spans, span{first, set})
	}
	type network struct {
		last number
		set  uint32
	}
	stack := []network{{}} // all addresses, in no list
	leave := func() {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if after := top.last.next(); after != (number{}) {
			from(after, stack[len(stack)-1].set)
		}
	}
	for i := 0; i < len(entries); {
		e := &entries[i]
		for len(stack) > 1 && stack[len(stack)-1].last.less(e.first) {
			leave()
		}
		start := i
		for i++; i < len(entries) && entries[i].first == e.first && entries[i].host == e.host; i++ {
		}
		own := l.join(entries[start:i])
		set, text := l.sets.union(stack[len(stack)-1].set, own)
		if text != "" {
			l.problem(l.sources[e.source], int(e.line), 1, "", "%s", text)
		}
		if len(l.problems) >= maxProblems {
			return nil
		}
		from(e.first, set)
		stack = append(stack, network{e.last(), set})
	}
	for len(stack) > 1 {
		leave()
	}
	return spans
}

// join returns the set of a network that stands in some lines.
func (l *loader) join(lines []entry) uint32 {
	id := lines[0].set
	for i := range lines {
		e := &lines[i]
		all, text := l.sets.union(id, e.set)
		if other, ok := contradiction(l.sets.all[id].labels, l.sets.all[e.set].labels); ok {
			if len(l.problems) >= maxProblems {
				return id
			}
			j := slices.IndexFunc(lines, func(e entry) bool { return slices.Contains(l.sets.all[e.set].labels, other) })
			text = fmt.Sprintf("the same network has the label %s=%s, see %s:%d", other.Key, other.Value, l.sources[lines[j].source], lines[j].line)
		}
		if text == "" {
			id = all
		} else if len(l.problems) < maxProblems {
			l.problem(l.sources[e.source], int(e.line), 1, "", "%s", text)
		}
	}
	return id
}

// contradiction returns the first label of a to which b gives another value.
func contradiction(a, b []judgement.Label) (judgement.Label, bool) {
	for _, label := range a {
		if i, there := slices.BinarySearchFunc(b, label, compareLabels); there && b[i].Value != label.Value {
			return label, true
		}
	}
	return judgement.Label{}, false
}
