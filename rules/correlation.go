package rules

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// correlationKind is what a correlation rule counts.
type correlationKind uint8

const (
	eventCount      correlationKind = iota // handshakes
	valueCount                             // distinct values of a field
	temporal                               // rules that matched
	temporalOrdered                        // the same, in the order of the list
)

// correlationTypes are the names of the kinds, by kind.
var correlationTypes = []string{"event_count", "value_count", "temporal", "temporal_ordered"}

var correlationSectionKeys = []string{"type", "rules", "group-by", "timespan", "condition", "aliases", "generate"}

// correlation is what a correlation rule says of the matches of other rules.
type correlation struct {
	kind     correlationKind
	rules    []*Rule // that it refers to, as listed
	span     int64   // nanoseconds
	timespan string  // as written
	generate bool    // these rules raise alerts of their own too
	by       []string
	fields   [][]*field // by rule: the field of each of by; all of one kind in a column
	count    *field     // of valueCount
	// The condition holds for counts from least to most. Counts above most are not
	// told apart, nor above least where there is no upper limit.
	least, most int

	refs    []scalar // rules as written
	aliases []alias
}

// alias is a name that stands for another field with each rule.
type alias struct {
	scalar
	of []entry // reference of a rule, and field
}

// keep is how many events or values of a group are of use.
func (c *correlation) keep() int {
	if c.most == math.MaxInt {
		return c.least
	}
	return c.most + 1
}

// feed is a correlation rule that takes the matches of another rule, and where in
// its list that rule is. A rule may be there several times.
type feed struct {
	rule   *Rule
	member int
}

// correlation reads what a correlation rule says. What it refers to is not looked
// for before all rules are read.
func (d *document) correlation(e *entry) {
	entries, ok := d.entries(e.value)
	if !ok {
		d.problem(e.place, e.key, "correlation must be a map")
		return
	}
	c := &correlation{least: 1, most: math.MaxInt}
	d.rule.correlation = c
	for _, key := range []string{"type", "rules", "timespan"} {
		if find(entries, key) == nil {
			d.problem(e.place, e.key, "the correlation has no %s", key)
		}
	}
	for i := range entries {
		switch e := &entries[i]; e.key {
		case "type":
			if s := d.oneOf(e.value, "type", correlationTypes); s != "" {
				c.kind = correlationKind(slices.Index(correlationTypes, s))
			}
		case "rules":
			c.refs = d.oneOrMore(e, maxCorrelated)
		case "group-by":
			for _, s := range d.oneOrMore(e, maxGroupBy) {
				if slices.Contains(c.by, s.text) {
					d.problem(s.place, s.text, "is here twice")
				}
				c.by = append(c.by, s.text)
			}
		case "timespan":
			if s, ok := d.text(e.value, e.key); ok {
				c.timespan, c.span = s.text, d.duration(s, time.Second, maxTimespan)
			}
		case "generate":
			c.generate = d.oneOf(e.value, "generate", []string{"true", "false"}) == "true"
		case "aliases":
			d.aliases(e)
		case "condition":
		default:
			d.problem(e.place, e.key, "is not an attribute of correlation%s", didYouMean(nearest(e.key, correlationSectionKeys)))
		}
	}
	condition := find(entries, "condition")
	switch {
	case condition != nil:
		d.correlationCondition(condition)
	case c.kind == temporal || c.kind == temporalOrdered:
		c.least = max(len(c.refs), 1)
	default:
		d.problem(e.place, e.key, "the correlation has no condition")
	}
	d.group(find(entries, "group-by"))
	c.aliases = nil // they hold the document
}

// oneOrMore reads a text, or a list of limit texts at most.
func (d *document) oneOrMore(e *entry, limit int) []scalar {
	if _, ok := e.value.(*ast.SequenceNode); !ok {
		if s, ok := d.text(e.value, e.key); ok {
			return []scalar{s}
		}
		return nil
	}
	all := d.texts(e.value, e.key)
	switch {
	case len(all) > limit:
		d.problem(e.place, e.key, "has more than %d entries", limit)
		return nil
	case len(all) == 0:
		d.problem(e.place, e.key, "the list is empty")
	}
	return all
}

var durationPattern = regexp.MustCompile(`^([0-9]{1,9})([smhdwMy])$`)

// units are those of pySigma, whose month is a twelfth of 365.2425 days.
var units = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "M": 2629746 * time.Second, "y": 31556952 * time.Second}

// duration reads a time such as 15m, in nanoseconds.
func (d *document) duration(s scalar, least, most time.Duration) int64 {
	parts := durationPattern.FindStringSubmatch(s.text)
	if parts == nil {
		d.problem(s.place, s.text, "is not a time: write a number and s, m, h, d, w or M, such as 15m")
		return 0
	}
	n, _ := strconv.Atoi(parts[1])
	unit := units[parts[2]]
	if n > int(most/unit) || time.Duration(n)*unit < least {
		d.problem(s.place, s.text, "is not a time from %s to %s", shortDuration(least), shortDuration(most))
		return 0
	}
	return int64(time.Duration(n) * unit)
}

// shortDuration writes whole seconds or days as rules do.
func shortDuration(d time.Duration) string {
	if day := 24 * time.Hour; d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

// correlationCondition reads the counts for which a correlation holds.
func (d *document) correlationCondition(e *entry) {
	c := d.rule.correlation
	entries, ok := d.entries(e.value)
	if !ok {
		d.problem(e.place, e.key, "the condition of a correlation must be a map, such as gte: 10")
		return
	}
	lower, bounds := false, 0
	for _, e := range entries {
		if e.key == "field" {
			if c.kind != valueCount {
				d.problem(e.place, e.key, "is of value_count only")
			} else if s, ok := d.text(e.value, e.key); ok {
				c.count = d.fieldFor(s)
			}
			continue
		}
		if !slices.Contains([]string{"gt", "gte", "lt", "lte", "eq"}, e.key) {
			d.problem(e.place, e.key, "is not a comparison: write gt, gte, lt, lte or eq")
			continue
		}
		s, ok := d.text(e.value, e.key)
		if !ok {
			continue
		}
		limit := maxCorrelationCount
		if c.kind == valueCount {
			limit = maxCorrelationValues
		}
		n, err := strconv.Atoi(s.text)
		if err != nil || n < 0 || n > limit {
			d.problem(s.place, s.text, "is not a whole number from 0 to %d", limit)
			continue
		}
		bounds++
		lower = lower || e.key[0] != 'l'
		switch e.key {
		case "gt":
			c.least = max(c.least, n+1)
		case "gte":
			c.least = max(c.least, n)
		case "lt":
			c.most = min(c.most, n-1)
		case "lte":
			c.most = min(c.most, n)
		case "eq":
			c.least, c.most = max(c.least, n), min(c.most, n)
		}
	}
	switch {
	case bounds == 0:
		d.problem(e.place, e.key, "the condition has no comparison: write gt, gte, lt, lte or eq")
	case c.least > c.most:
		d.problem(e.place, e.key, "no count satisfies the condition: what is counted is at least 1")
	case (c.kind == temporal || c.kind == temporalOrdered) && c.least > len(c.refs):
		d.problem(e.place, e.key, "the condition never holds, as there are %d rules", len(c.refs))
	case c.kind == temporalOrdered && (c.least != len(c.refs) || c.most < len(c.refs)):
		d.problem(e.place, e.key, "temporal_ordered needs all of its %d rules", len(c.refs))
	case !lower:
		d.warn(e.place, e.key, "an upper limit alone holds with the first match already: counts are judged with each match, not at the end of the timespan")
	}
	if c.kind == valueCount && find(entries, "field") == nil {
		d.problem(e.place, e.key, "value_count needs a field in its condition")
	}
}

// fieldFor finds the field that s names; nil when there is no such field.
func (d *document) fieldFor(s scalar) *field {
	f, near := fieldNamed(s.text)
	if f == nil {
		d.problem(s.place, s.text, "is not a known field%s", didYouMean(near))
	}
	return f
}

// aliases reads the aliases of a correlation.
func (d *document) aliases(e *entry) {
	c := d.rule.correlation
	entries, ok := d.entries(e.value)
	if !ok || len(entries) > maxGroupBy {
		d.problem(e.place, e.key, "aliases must be a map of %d aliases at most", maxGroupBy)
		return
	}
	for _, e := range entries {
		of, ok := d.entries(e.value)
		if !ok || len(of) == 0 {
			d.problem(e.place, e.key, "an alias must be a map of rules and fields")
			continue
		}
		if fields[e.key] != nil {
			d.problem(e.place, e.key, "is the name of a field too")
		}
		c.aliases = append(c.aliases, alias{scalar{place: e.place, text: e.key}, of})
	}
}

// group finds the fields by which matches are grouped, with each rule.
func (d *document) group(e *entry) {
	c := d.rule.correlation
	c.fields = make([][]*field, len(c.refs))
	if e == nil {
		return
	}
	for _, s := range d.oneOrMore(e, maxGroupBy) {
		i := slices.IndexFunc(c.aliases, func(a alias) bool { return a.text == s.text })
		if i < 0 {
			f := d.fieldFor(s)
			for k := range c.fields {
				c.fields[k] = append(c.fields[k], f)
			}
			continue
		}
		var first *field
		for k, ref := range c.refs {
			e := find(c.aliases[i].of, ref.text)
			if e == nil {
				d.problem(c.aliases[i].place, s.text, "the alias has no field for the rule %s", ref.text)
				continue
			}
			name, ok := d.text(e.value, e.key)
			if !ok {
				continue
			}
			f := d.fieldFor(name)
			if f != nil && first != nil && !alike(f, first) {
				d.problem(name.place, name.text, "cannot be compared with %s", first.name)
			}
			if first == nil {
				first = f
			}
			c.fields[k] = append(c.fields[k], f)
		}
		for _, e := range c.aliases[i].of {
			if !slices.ContainsFunc(c.refs, func(s scalar) bool { return s.text == e.key }) {
				d.problem(e.place, e.key, "is not among the rules of the correlation")
			}
		}
	}
}

// alike reports whether values of two fields are the same when their keys are.
func alike(a, b *field) bool {
	return a.kind == b.kind && (a.size == b.size || a.size == 0 || b.size == 0)
}

// unresolved is a document that refers to rules, which may be in other files.
type unresolved struct {
	*document
	at place
}

// resolve finds the rules that correlation rules refer to, and those to which
// filters apply, once all rules are read.
func (l *loader) resolve() {
	byName := make(map[string][]*Rule)
	for _, r := range l.rules {
		if r != nil && r.name != "" {
			byName[r.name] = append(byName[r.name], r)
		}
	}
	for _, f := range l.filters {
		if f != nil {
			l.apply(f, byName)
		}
	}
	for _, u := range l.correlations {
		c := u.rule.correlation
		if i, ok := l.byID[u.rule.ID]; !ok || l.rules[i] != u.rule { // a later rule has replaced it
			continue
		}
		for _, ref := range c.refs {
			r := l.find(u.document, ref, byName)
			if r == nil {
				continue
			}
			if c.kind == temporal && slices.Contains(c.rules, r) {
				u.problem(ref.place, ref.text, "is here twice")
			}
			c.rules = append(c.rules, r)
		}
	}
	l.chains()
}

// find finds the rule that ref refers to by its id or its name, and says so where
// there is none.
func (l *loader) find(d *document, ref scalar, byName map[string][]*Rule) *Rule {
	if i, ok := l.byID[strings.ToLower(ref.text)]; ok {
		return l.rules[i]
	}
	switch named := byName[ref.text]; {
	case len(named) == 1:
		return named[0]
	case len(named) > 1:
		d.problem(ref.place, ref.text, "is the name of several rules: the first are at %s:%d and %s:%d",
			named[0].File, named[0].Line, named[1].File, named[1].Line)
	case l.broken[strings.ToLower(ref.text)]: // its own problems are told
	default:
		var names []string
		if len(byName) <= maxSuggested {
			names = slices.Sorted(maps.Keys(byName))
		}
		d.problem(ref.place, ref.text, "is neither the id nor the name of a rule%s", didYouMean(nearest(ref.text, names)))
	}
	return nil
}

// chains looks through the correlations that refer to others, and notes with each
// rule who takes its matches.
func (l *loader) chains() {
	depth := make(map[*Rule]int) // -1 while what it refers to is looked at
	documents := make(map[*Rule]unresolved, len(l.correlations))
	for _, u := range l.correlations {
		documents[u.rule] = u
	}
	var look func(r *Rule, above int) int
	look = func(r *Rule, above int) int {
		n, seen := depth[r]
		if r.correlation == nil || seen || above > maxCorrelationDepth { // that is told of the first
			return n
		}
		depth[r] = -1
		u := documents[r]
		for member, of := range r.correlation.rules {
			if depth[of] < 0 {
				ref := r.correlation.refs[member]
				u.problem(ref.place, ref.text, "the correlation refers to itself, perhaps by way of others")
				continue
			}
			n = max(n, look(of, above+1)+1)
			r.include(of)
		}
		if n > maxCorrelationDepth {
			u.problem(u.at, r.ID, "correlations refer to correlations more than %d deep", maxCorrelationDepth-1)
		}
		depth[r] = n
		return n
	}
	for _, u := range l.correlations {
		look(u.rule, 0)
	}
	for _, u := range l.correlations {
		r := u.rule
		if i, ok := l.byID[r.ID]; !ok || l.rules[i] != r || !r.Enabled {
			continue
		}
		for member, of := range r.correlation.rules {
			of.feeds = append(of.feeds, feed{r, member})
			switch {
			case !of.Enabled:
				u.warn(u.correlationPlace(member), of.ID, "the rule at %s:%d is not enabled, so it never matches", of.File, of.Line)
			case !r.correlation.generate && of.Ruleset != r.Ruleset && !of.quiet:
				u.warn(u.correlationPlace(member), of.ID, "the rule at %s:%d raises no alerts of its own any more: say generate: true if it is to", of.File, of.Line)
			}
			of.quiet = of.quiet || !r.correlation.generate
		}
	}
}

// correlationPlace is where a correlation names a rule.
func (u *unresolved) correlationPlace(member int) place { return u.rule.correlation.refs[member].place }
