package rules

import (
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

var listPattern = regexp.MustCompile(`^%([A-Za-z0-9_][A-Za-z0-9_.-]*)%$`)

var modifierNames = []string{"contains", "startswith", "endswith", "re", "i", "ignorecase", "m", "multiline", "s", "dotall",
	"cidr", "exists", "all", "neq", "cased", "lt", "lte", "gt", "gte", "expand", "fieldref"}

// detection reads the selections among the entries of e, then the condition over
// them.
func (d *document) detection(e *entry, entries []entry) {
	var condition *entry
	var selections []*selection
	places := make(map[string]place)
	for i := range entries {
		switch e := &entries[i]; e.key {
		case "condition":
			condition = e
		case "timeframe":
			d.problem(e.place, e.key, "timeframe is not supported: write a correlation rule")
		default:
			if strings.IndexFunc(e.key, func(r rune) bool { return r >= 0x80 || !isNameByte(byte(r)) }) >= 0 || e.key == "" {
				d.problem(e.place, e.key, "a selection's name has letters, digits, _ and -")
				continue
			}
			if slices.Contains([]string{"and", "or", "not", "them", "of"}, e.key) {
				d.problem(e.place, e.key, "a selection cannot have the name of an operator")
				continue
			}
			places[e.key] = e.place
			selections = append(selections, d.selection(e))
		}
	}
	if condition == nil {
		d.problem(e.place, e.key, "the %s has no condition", e.key)
		return
	}
	var conditions []scalar
	if _, ok := condition.value.(*ast.SequenceNode); ok {
		conditions = d.texts(condition.value, "condition")
	} else if s, ok := d.text(condition.value, "condition"); ok {
		conditions = []scalar{s}
	}
	all := &node{op: opOr}
	usedByAny := make(map[*selection]bool)
	for _, s := range conditions {
		n, used, problem := parseCondition(s.text, selections)
		if problem != nil {
			d.problem(s.at(problem.offset), problem.token, "%s", problem.text)
			continue
		}
		all.kids = append(all.kids, n)
		for s := range used {
			usedByAny[s] = true
		}
	}
	if len(all.kids) == len(conditions) {
		for _, s := range selections {
			if !usedByAny[s] {
				d.warn(places[s.name], s.name, "no condition uses this selection")
			}
		}
	}
	d.rule.cond = all
	if len(all.kids) == 1 {
		d.rule.cond = all.kids[0]
	}
	d.rule.cond.markJudged()
}

func (d *document) selection(e *entry) *selection {
	sel := &selection{name: e.key}
	const keyword = "a selection must name fields: keywords are not supported, as there is no one text to search"
	if list, ok := e.value.(*ast.SequenceNode); ok {
		if len(list.Values) == 0 {
			d.problem(e.place, e.key, "the selection is empty")
		}
		for _, n := range list.Values {
			if entries, ok := d.entries(n); ok {
				sel.blocks = append(sel.blocks, d.block(entries))
			} else {
				d.problem(placeOf(n.GetToken()), e.key, keyword)
			}
		}
		return sel
	}
	entries, ok := d.entries(e.value)
	switch {
	case !ok:
		d.problem(e.place, e.key, keyword)
	case len(entries) == 0:
		d.problem(e.place, e.key, "the selection is empty")
	default:
		sel.blocks = []block{d.block(entries)}
	}
	return sel
}

func (d *document) block(entries []entry) block {
	var b block
	for i := range entries {
		it := d.item(&entries[i])
		if it == nil {
			continue
		}
		switch it.field.scope {
		case serverChain:
			b.server = append(b.server, it)
		case clientChain:
			b.client = append(b.client, it)
		case judged:
			b.judged = append(b.judged, it)
		default:
			b.flow = append(b.flow, it)
		}
	}
	return b
}

// modifiers is what the modifiers after a field's name say.
type modifiers struct {
	op              string // contains, startswith, endswith, re, cidr, exists, lt, …, expand; empty for a plain value
	all, neq, cased bool
	flags           string // of op re, in the order given: i, m and s
}

// modifiers reads the modifiers of the field that e's key begins with.
func (d *document) modifiers(e *entry, names []string) (m modifiers, ok bool) {
	ok = true
	offset := strings.IndexByte(e.key, '|') + 1
	fail := func(name, format string, args ...any) {
		ok = false
		d.problem(place{e.line, e.col + offset}, name, format, args...)
	}
	seen := make(map[string]bool)
	for _, name := range names {
		switch {
		case seen[name]:
			fail(name, "is here twice")
		case !slices.Contains(modifierNames, name):
			fail(name, "is not a supported modifier%s", didYouMean(nearest(name, modifierNames)))
		}
		seen[name] = true
		switch name {
		case "all":
			m.all = true
		case "neq":
			m.neq = true
		case "cased":
			m.cased = true
		case "i", "ignorecase", "m", "multiline", "s", "dotall":
			if m.op != "re" {
				fail(name, "may follow re only")
			}
			flag := strings.NewReplacer("ignorecase", "i", "multiline", "m", "dotall", "s").Replace(name)
			if !strings.Contains(m.flags, flag) {
				m.flags += flag
			}
		default:
			if m.op != "" && ok {
				fail(name, "cannot go with %s", m.op)
			}
			if (name == "re" || name == "cidr" || name == "exists") && len(seen) > 1 && ok {
				fail(name, "must be the first modifier")
			}
			m.op = name
		}
		offset += len(name) + 1
	}
	if ok && m.cased && slices.Contains([]string{"re", "cidr", "exists", "expand", "fieldref", "lt", "lte", "gt", "gte"}, m.op) {
		fail("cased", "cannot go with %s", m.op)
	}
	if ok && m.op == "exists" && (m.all || m.neq) {
		fail("exists", "cannot go with other modifiers")
	}
	return m, ok
}

// item reads one line of a selection; nil when it is wrong.
func (d *document) item(e *entry) *item {
	parts := strings.Split(e.key, "|")
	f, near := d.field(parts[0])
	switch {
	case f != nil:
	case parts[0] == "":
		d.problem(e.place, e.key, "keywords are not supported: name a field")
	default:
		d.problem(e.place, parts[0], "is not a known field%s", didYouMean(near))
	}
	m, ok := d.modifiers(e, parts[1:])
	if f == nil || !ok {
		return nil
	}
	values, ok := d.itemValues(e)
	if !ok {
		return nil
	}
	it := &item{field: f, negated: m.neq}
	if m.op == "exists" {
		if len(values) != 1 || values[0].text != "true" && values[0].text != "false" {
			d.problem(values[0].place, values[0].text, "exists must be true or false")
			return nil
		}
		it.exists = 1
		if values[0].text == "false" {
			it.exists = -1
		}
		return it
	}
	good := true
	for _, v := range values {
		to := it
		if m.all {
			to = &item{field: f}
			it.all = append(it.all, to)
		}
		good = d.add(to, v, m) && good
	}
	if !good {
		return nil
	}
	return it
}

func (d *document) itemValues(e *entry) (values []scalar, ok bool) {
	nodes := []ast.Node{e.value}
	if list, ok := e.value.(*ast.SequenceNode); ok {
		nodes = list.Values
		if len(nodes) == 0 {
			d.problem(e.place, e.key, "the list of values is empty")
			return nil, false
		}
	}
	ok = true
	for _, n := range nodes {
		s, good := d.scalarOf(n)
		if !good {
			d.problem(placeOf(n.GetToken()), e.key, "a value must be a text, a number, a truth value or null")
			ok = false
			continue
		}
		if n == nil || s.line == 0 {
			s.place = e.place
		}
		values = append(values, s)
	}
	return values, ok
}

// add adds a value to an item, and returns whether it is right.
func (d *document) add(it *item, s scalar, m modifiers) bool {
	f := it.field
	fail := func(format string, args ...any) bool {
		d.problem(s.place, s.text, format, args...)
		return false
	}
	if s.isNull {
		if m.op != "" || m.cased {
			return fail("null cannot go with modifiers")
		}
		it.null = true
		return true
	}
	if f.kind == boolean && m.op != "" {
		return fail("%s cannot go with %s, which is true or false", m.op, f.name)
	}
	switch m.op {
	case "":
		return d.plain(it, s, m.cased)
	case "contains", "startswith", "endswith":
		parts := splitWildcards(s.text)
		if len(parts) == 0 {
			return fail("an empty text is in every text")
		}
		star := part{many: true}
		if m.op != "startswith" && !parts[0].many {
			parts = append([]part{star}, parts...)
		}
		if m.op != "endswith" && !parts[len(parts)-1].many {
			parts = append(parts, star)
		}
		it.tests = append(it.tests, pattern(parts, m.cased))
	case "re":
		re, problem := compile(s.text, m.flags)
		if problem != "" {
			return fail("%s", problem)
		}
		it.tests = append(it.tests, test{op: opRegex, regex: re})
	case "cidr":
		if f.kind != address {
			return fail("cidr needs an address, and %s is not an address", f.name)
		}
		p, err := netip.ParsePrefix(s.text)
		if err != nil || p.Addr().Is4In6() {
			return fail("is not a network, such as 192.0.2.0/24 or 2001:db8::/32")
		}
		if p != p.Masked() {
			return fail("has bits after its length: the network is %s", p.Masked())
		}
		it.tests = append(it.tests, test{op: opNetwork, network: p})
	case "lt", "lte", "gt", "gte":
		if f.kind == instant {
			n, err := parseTime(s.text)
			if err != nil {
				return fail("%v", err)
			}
			it.tests = append(it.tests, test{op: comparisons[m.op], n: n})
			return true
		}
		if f.kind != number {
			return fail("%s needs a number or a time, and %s is neither", m.op, f.name)
		}
		n, err := strconv.ParseInt(s.text, 10, 64)
		if err != nil || s.isText {
			return fail("is not a whole number")
		}
		it.tests = append(it.tests, test{op: comparisons[m.op], n: n})
	case "fieldref":
		other, near := d.field(s.text)
		switch {
		case other == nil || !s.isText:
			return fail("is not a known field%s", didYouMean(near))
		case !alike(f, other):
			return fail("cannot be compared with %s, which is of another kind", f.name)
		case (other.scope == serverChain || other.scope == clientChain) && other.scope != f.scope:
			return fail("is of any certificate of a chain: compare the field of the chain with %s, not the other way round", f.name)
		}
		it.others = append(it.others, other)
	case "expand":
		match := listPattern.FindStringSubmatch(s.text)
		if match == nil {
			return fail("must be the name of a list between percent signs, such as %%bad_hashes%%")
		}
		l := d.list(match[1], f, s.place)
		if l == nil {
			return false
		}
		it.lists = append(it.lists, l)
	}
	return true
}

var comparisons = map[string]operator{"lt": opLess, "lte": opLessEqual, "gt": opGreater, "gte": opGreaterEqual}

// compile compiles a regular expression, and says what is wrong with it.
func compile(expr, flags string) (re *regexp.Regexp, problem string) {
	switch {
	case len(expr) > maxRegex:
		return nil, "a regular expression may have " + strconv.Itoa(maxRegex) + " bytes at most"
	case expr == "":
		return nil, "an empty regular expression holds for every text"
	case flags != "":
		expr = "(?" + flags + ")" + expr
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	if regexSize(tree) > maxRegexSize {
		return nil, "a regular expression may have " + strconv.Itoa(maxRegexSize) + " characters at most when its repeats are written out"
	}
	re, err = regexp.Compile(expr)
	if err != nil {
		return nil, strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	return re, ""
}

// regexSize is about how many instructions the program of a regular expression has. The
// parser bounds its nesting, and the product of nested repeats.
func regexSize(re *syntax.Regexp) int {
	n := max(1, len(re.Rune))
	if re.Op == syntax.OpCharClass {
		n = 1
	}
	for _, sub := range re.Sub {
		n += regexSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

// plain adds a value without an operator: the field must equal it, wildcards
// aside.
func (d *document) plain(it *item, s scalar, cased bool) bool {
	f := it.field
	if s.text == "" {
		it.empty = true
		return true
	}
	parts := splitWildcards(s.text)
	if len(parts) > 1 || parts[0].literal == "" {
		if f.kind == boolean {
			d.problem(s.place, s.text, "%s is true or false", f.name)
			return false
		}
		it.tests = append(it.tests, pattern(parts, cased))
		return true
	}
	if cased && f.kind == text {
		it.tests = append(it.tests, pattern(parts, true))
		return true
	}
	key, err := f.parse(nil, parts[0].literal)
	if err != nil {
		d.problem(s.place, s.text, "%v", err)
		return false
	}
	it.keys.add(key)
	it.omitted = it.omitted || f.omitted && !slices.Contains(key, 1)
	return true
}
