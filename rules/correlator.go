package rules

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Correlator evaluates the correlation rules of a [Set] over the matches of the
// others. It looks at handshakes in the order of time, and belongs to one
// goroutine.
//
// A window is all that lies at most a timespan before the last event, both ends
// included: two events exactly a timespan apart are in one window. Counts are judged
// with each match. Where a group has raised an alert, it raises the next for a match
// more than a timespan later, so that no match is part of two alerts.
//
// What a group holds does not grow with the traffic: times of as many matches, or
// hashes of as many values, as the condition tells apart. All groups together are
// bounded too. Groups with one match are given up first, those that were quiet for
// longest before the others.
type Correlator struct {
	limit   int     // of memory
	m       Matcher // fills in reasons, and has the judgement that fields look at
	groups  map[groupKey]*tally
	oldest  [2]ring // of the groups with one match, and of the others
	memory  int
	round   uint64  // of See
	out     []Match // lent by See
	keys    []groupKey
	columns [][][]byte // of the fields of a group-by: the keys of their values
	stats   CorrelationStats
}

// CorrelationStats counts what a [Correlator] did.
type CorrelationStats struct {
	Groups    int    `json:"groups"`    // now
	Memory    int    `json:"memory"`    // bytes that they hold
	Matches   uint64 `json:"matches"`   // of correlation rules
	Ungrouped uint64 `json:"ungrouped"` // matches without a value of a field that they are grouped or counted by
	Cut       uint64 `json:"cut"`       // matches with more values than are looked at
	GivenUp   uint64 `json:"given_up"`  // groups for which there was no room
}

// Correlation is what a correlation rule has counted when it holds.
type Correlation struct {
	Count    int       // matches, distinct values or rules
	AtLeast  bool      // there may have been more: the rule does not tell them apart
	From, To int64     // of the window: the first that counts and the last, nanoseconds since the Unix epoch
	Group    []ByValue // in the order of group-by
}

// ByValue is a field and its value, as records write it; empty where it has none.
type ByValue struct{ Field, Value string }

// groupKey is a hash of a correlation rule and the values of a group. It is of the
// values themselves, so that memory does not depend on their length, and
// collision-resistant, since values are the wire's.
type groupKey [16]byte

// tally is what a correlation rule has counted for one combination of values.
type tally struct {
	key        groupKey
	rule       *Rule
	next, prev *tally
	in         *ring
	touched    int64 // the latest time in its window
	raised     int64 // of its last alert, when there was one
	alerted    bool
	round      uint64 // of See, in which its last match was
	more       bool   // there were more in the window than are kept

	times  []int64 // of eventCount, ascending; those before first are over
	first  int
	values []seen   // of valueCount, by time
	last   []seenAt // of temporal and temporalOrdered, by member of the rule
}

// seen is a value of a field and when it was there last.
type seen struct {
	value groupKey
	time  int64
}

// seenAt says of a member of a rule when it matched last. Of temporalOrdered it is
// when the latest sequence began that ends with this member, and the same without
// the handshake of round.
type seenAt struct {
	time, before int64
	is, was      bool
	round        uint64
}

// ring is a list of groups, those touched last at the front.
type ring struct{ root tally }

func (r *ring) init() { r.root.next, r.root.prev = &r.root, &r.root }

func (r *ring) oldest() *tally {
	if r.root.prev == &r.root {
		return nil
	}
	return r.root.prev
}

func (r *ring) push(g *tally) {
	g.in, g.prev, g.next = r, &r.root, r.root.next
	g.prev.next, g.next.prev = g, g
}

func (g *tally) unlink() { g.prev.next, g.next.prev = g.next, g.prev }

// groupOverhead is the memory of a group beside what it counts, with its place in
// the map.
const groupOverhead = 256

func (g *tally) memory() int {
	return groupOverhead + 8*cap(g.times) + 24*cap(g.values) + 40*cap(g.last)
}

// NewCorrelator returns a correlator that has seen nothing. It asks judge where rules
// group by what is not judged yet; nil is for nobody. share, above 0 and at most 1, is
// how much of the most that it may remember it may.
func (s *Set) NewCorrelator(judge judgement.Judge, share float64) *Correlator {
	c := &Correlator{m: Matcher{set: s, judge: judge}, limit: int(maxCorrelationMemory * share)}
	c.Next()
	return c
}

// Use makes c evaluate another set from now on. Correlation rules that say the same
// there, of rules that say the same, go on with what they have counted; the others
// begin anew.
func (c *Correlator) Use(s *Set) {
	c.m.set = s
	clear(c.out)
	for _, g := range c.groups {
		if now := s.same(g.rule); now != nil {
			g.rule = now
		} else {
			c.remove(g)
		}
	}
}

// Next forgets everything: what follows has nothing to do with what came before.
func (c *Correlator) Next() {
	c.groups, c.memory = make(map[groupKey]*tally), 0
	for i := range c.oldest {
		c.oldest[i].init()
	}
}

// Stats returns what was counted so far.
func (c *Correlator) Stats() CorrelationStats {
	s := c.stats
	s.Groups, s.Memory = len(c.groups), c.memory
	return s
}

// See takes what matched for h, in the order of time, and returns what is to be
// raised: matches without those of rules that only correlations look at, and then
// the matches of correlation rules that hold with h. j is what was judged of h, and
// may be nil. matches is left as it is; what is returned is lent until the next
// call.
func (c *Correlator) See(h *event.Handshake, j *judgement.Judgement, matches []Match) []Match {
	if !slices.ContainsFunc(matches, func(m Match) bool { return len(m.Rule.feeds) > 0 }) {
		return matches
	}
	c.round++
	c.m.see(h, j)
	clear(c.out)
	c.out = append(c.out[:0], matches...)
	for i := 0; i < len(c.out); i++ { // matches of correlations are appended, and may be looked at by others
		for _, f := range c.out[i].Rule.feeds {
			c.count(f, i)
		}
	}
	c.m.see(nil, nil)
	c.out = slices.DeleteFunc(c.out, func(m Match) bool { return m.Rule.quiet })
	return c.out
}

// count counts a match, that at i of c.out, for a correlation rule.
func (c *Correlator) count(f feed, i int) {
	what := f.rule.correlation
	base := &c.out[i]
	if !c.group(f, base) {
		c.stats.Ungrouped++
		return
	}
	t := c.m.h.End.Time
	c.expire(t)
	var values []groupKey
	if what.kind == valueCount {
		if values = c.values(what.count, base); len(values) == 0 {
			c.stats.Ungrouped++
			return
		}
	}
	for _, key := range c.keys {
		g := c.groups[key]
		if g == nil {
			g = &tally{key: key, rule: f.rule}
			c.groups[key] = g
			c.oldest[0].push(g)
		} else {
			g.unlink()
			c.oldest[1].push(g)
			c.memory -= g.memory()
		}
		again := g.round == c.round // a second rule of the correlation matches the same handshake
		g.round = c.round
		if t > g.touched || !within(t, g.touched, what.span) {
			g.touched = t
		}
		var n int
		var from int64
		switch what.kind {
		case eventCount:
			if again {
				c.memory += g.memory()
				continue
			}
			n, from = g.event(what, t)
		case valueCount:
			n, from = g.distinct(what, values, t)
		case temporal:
			n, from = g.together(what, f.member, t)
		case temporalOrdered:
			n, from = g.ordered(what, f.member, t, c.round)
		}
		c.memory += g.memory()
		if n >= what.least && n <= what.most && !(g.alerted && within(t, g.raised, what.span)) {
			g.alerted, g.raised = true, t
			c.stats.Matches++
			c.raise(f, i, n, g.more, from, t)
		}
		c.fit(g)
	}
}

// within reports whether two times are at most span apart.
func within(a, b, span int64) bool {
	if a < b {
		a, b = b, a
	}
	return uint64(a)-uint64(b) <= uint64(span)
}

// event counts the matches of a window that ends at t, with the one at t.
func (g *tally) event(c *correlation, t int64) (n int, from int64) {
	for g.first < len(g.times) && !within(t, g.times[g.first], c.span) {
		g.first++
	}
	for len(g.times) > g.first && !within(t, g.times[len(g.times)-1], c.span) { // a clock went back
		g.times = g.times[:len(g.times)-1]
	}
	if g.more = len(g.times)-g.first == c.keep(); g.more { // the oldest is of no use
		if t <= g.times[g.first] {
			return c.keep(), t
		}
		g.first++
	}
	if g.first > 0 && len(g.times) == cap(g.times) {
		g.times = g.times[:copy(g.times, g.times[g.first:])]
		g.first = 0
	}
	at := len(g.times)
	for at > g.first && g.times[at-1] > t {
		at--
	}
	g.times = slices.Insert(g.times, at, t)
	return len(g.times) - g.first, g.times[g.first]
}

// distinct counts the values of a window that ends at t, with those at t.
func (g *tally) distinct(c *correlation, values []groupKey, t int64) (n int, from int64) {
	first, end := 0, len(g.values)
	for first < end && !within(t, g.values[first].time, c.span) {
		first++
	}
	for end > first && !within(t, g.values[end-1].time, c.span) { // a clock went back
		end--
	}
	g.values = slices.Delete(g.values[:end], 0, first)
	g.more = false
	for _, v := range values {
		if i := slices.IndexFunc(g.values, func(s seen) bool { return s.value == v }); i >= 0 {
			if g.values[i].time >= t {
				continue
			}
			g.values = slices.Delete(g.values, i, i+1)
		} else if len(g.values) == c.keep() {
			g.more = true
			if t <= g.values[0].time {
				continue
			}
			g.values = slices.Delete(g.values, 0, 1)
		}
		at := len(g.values)
		for at > 0 && g.values[at-1].time > t {
			at--
		}
		g.values = slices.Insert(g.values, at, seen{v, t})
	}
	return len(g.values), g.values[0].time
}

// together counts the members of which the last match is in the window that ends at t.
func (g *tally) together(c *correlation, member int, t int64) (n int, from int64) {
	if g.last == nil {
		g.last = make([]seenAt, len(c.rules))
	}
	g.last[member].time, g.last[member].is = t, true
	from = t
	for i := range g.last {
		if s := &g.last[i]; s.is && within(t, s.time, c.span) {
			n++
			from = min(from, s.time)
		}
	}
	return n, from
}

// ordered counts the members of the longest sequence that ends with the one that
// matches at t: it holds only with the last of them. A handshake is one step of a
// sequence at most.
func (g *tally) ordered(c *correlation, member int, t int64, round uint64) (n int, from int64) {
	if g.last == nil {
		g.last = make([]seenAt, len(c.rules))
	}
	began, ok := t, true
	if member > 0 {
		before := &g.last[member-1]
		began, ok = before.time, before.is
		if before.round == round {
			began, ok = before.before, before.was
		}
	}
	if !ok || !within(t, began, c.span) {
		return 0, t
	}
	s := &g.last[member]
	if s.round != round {
		s.before, s.was, s.round = s.time, s.is, round
	}
	s.time, s.is = began, true
	return member + 1, began
}

// group puts into c.keys the groups that a match belongs to: one for each
// combination of the values of group-by. It reports false when a field has no value.
func (c *Correlator) group(f feed, base *Match) bool {
	c.keys = c.keys[:0]
	what := f.rule.correlation
	sum := sha256.New()
	combinations := 1
	columns := c.columns[:0]
	for _, field := range what.fields[f.member] {
		column, more := c.m.keysOf(field, base)
		if len(column) == 0 {
			return false
		}
		if room := maxGroupsAtOnce / combinations; more || len(column) > room {
			c.stats.Cut++
			column = column[:min(room, len(column))]
		}
		combinations *= len(column)
		columns = append(columns, column)
	}
	c.columns = columns
	for n := range combinations {
		sum.Reset()
		sum.Write([]byte(f.rule.ID))
		for _, column := range columns {
			k := column[n%len(column)]
			n /= len(column)
			var size [4]byte
			binary.BigEndian.PutUint32(size[:], uint32(len(k)))
			sum.Write(size[:])
			sum.Write(k)
		}
		var full [sha256.Size]byte
		c.keys = append(c.keys, groupKey(sum.Sum(full[:0])[:16]))
	}
	return true
}

// values returns hashes of the values of a field, each once.
func (c *Correlator) values(f *field, base *Match) []groupKey {
	column, more := c.m.keysOf(f, base)
	if more {
		c.stats.Cut++
	}
	var all []groupKey
	for _, key := range column {
		sum := sha256.Sum256(key)
		if k := groupKey(sum[:16]); !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return all
}

// expire removes some of the groups that can count no more, a timespan later than
// that and a few at a time: a clock may go back a little, or jump for one packet.
func (c *Correlator) expire(t int64) {
	for i := range c.oldest {
		if g := c.oldest[i].oldest(); g != nil && !within(t, g.touched, 2*g.rule.correlation.span) {
			c.remove(g)
		}
	}
}

// fit gives groups up, but not g, until there is room.
func (c *Correlator) fit(g *tally) {
	for c.memory > c.limit {
		old := c.oldest[0].oldest()
		if old == nil || old == g {
			old = c.oldest[1].oldest()
		}
		if old == nil || old == g {
			return
		}
		c.stats.GivenUp++
		c.remove(old)
	}
}

func (c *Correlator) remove(g *tally) {
	c.memory -= g.memory()
	delete(c.groups, g.key)
	g.unlink()
}

// keysOf returns the keys of the values of f in the handshake, each once, of the
// certificate that a match is about where f speaks of one. more is set where it has
// more than are looked at.
func (m *Matcher) keysOf(f *field, base *Match) (keys [][]byte, more bool) {
	m.beginAt(f, placeIn(f, base))
	for i := range m.values {
		key := f.appendKey(nil, &m.values[i])
		if slices.ContainsFunc(keys, func(k []byte) bool { return string(k) == string(key) }) {
			continue
		}
		if len(keys) == maxGroupsAtOnce {
			return keys, true
		}
		keys = append(keys, key)
	}
	return keys, !m.names.Done()
}

// placeIn returns the certificate of which a field of a chain speaks in what is said
// of a match: the one that the match is about, or else the leaf.
func placeIn(f *field, base *Match) int {
	if of := fields[base.Field]; of != nil && of.scope == f.scope && base.ChainIndex >= 0 {
		return base.ChainIndex
	}
	return 0
}

// evidenceOf is what a match says of the certificate that it is about.
func evidenceOf(m *Match) []evidence {
	if f := fields[m.Field]; f != nil {
		return []evidence{{field: f, entry: m.ChainIndex}}
	}
	return nil
}

// raise appends the match of a correlation rule that holds with the match at i of
// c.out.
func (c *Correlator) raise(f feed, i, n int, more bool, from, t int64) {
	what := f.rule.correlation
	base := &c.out[i]
	found := evidenceOf(base)
	in := &Correlation{Count: n, AtLeast: more, From: from, To: max(from, t)}
	match := Match{Rule: f.rule, Correlation: in}
	for k, field := range what.fields[f.member] {
		in.Group = append(in.Group, ByValue{what.by[k], c.m.all(field, found)})
		if k == 0 {
			match.Field, match.Value = field.name, in.Group[0].Value
		}
	}
	if what.kind == valueCount {
		match.Field, match.Value = what.count.name, c.m.all(what.count, found)
	}
	match.ChainIndex = noEntry
	if of := fields[match.Field]; of != nil && of.scope != flow && of.scope != judged {
		match.ChainIndex = placeIn(of, base)
	}
	match.Reason, _ = c.m.fill(f.rule.reason, &match, found)
	match.Reasons = append(match.Reasons, in.sentence(what))
	for _, t := range f.rule.reasons {
		if reason, whole := c.m.fill(t, &match, found); whole {
			match.Reasons = append(match.Reasons, reason)
		}
	}
	c.out = append(c.out, match)
}

// word is what a text says of a correlation.
func (c *Correlation) word(which string) string {
	switch which {
	case "count":
		if c.AtLeast {
			return "at least " + strconv.Itoa(c.Count)
		}
		return strconv.Itoa(c.Count)
	case "from":
		return time.Unix(0, c.From).UTC().Format(time.RFC3339)
	case "to":
		return time.Unix(0, c.To).UTC().Format(time.RFC3339)
	}
	values := make([]string, len(c.Group))
	for i, v := range c.Group {
		values[i] = v.Value
	}
	return strings.Join(values, ", ")
}

// sentence says what was counted.
func (c *Correlation) sentence(what *correlation) string {
	var b strings.Builder
	b.WriteString(c.word("count"))
	switch what.kind {
	case eventCount:
		b.WriteString(" matches")
	case valueCount:
		b.WriteString(" values of " + what.count.name)
	case temporal:
		b.WriteString(" of " + strconv.Itoa(len(what.rules)) + " rules matched")
	case temporalOrdered:
		b.WriteString(" rules matched one after another")
	}
	for i, v := range c.Group {
		b.WriteString([]string{" for ", ", "}[min(i, 1)] + v.Field + " " + v.Value)
	}
	return b.String() + " from " + c.word("from") + " to " + c.word("to") + " (timespan " + what.timespan + ")"
}
