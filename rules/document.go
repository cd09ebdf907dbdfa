package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	datePattern = regexp.MustCompile(`^([12][0-9]{3})[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12][0-9]|3[01])$`)
	listPattern = regexp.MustCompile(`^%([A-Za-z0-9_][A-Za-z0-9_.-]*)%$`)
)

var (
	ruleKeys = []string{"title", "id", "related", "name", "taxonomy", "status", "description", "license", "author",
		"references", "date", "modified", "logsource", "detection", "fields", "falsepositives", "level", "tags", "scope", "oddcert"}
	oddcertKeys = []string{"enabled", "verdict", "risk_score", "reason", "verdict_reasons"}
	statuses    = []string{"stable", "test", "experimental", "deprecated", "unsupported"}
	levels      = []string{"informational", "low", "medium", "high", "critical"}
	severities  = []int{21, 21, 47, 73, 99}
	verdicts    = []string{"genuine", "disguise", "relayed", "forged", "copied", "weak-ca", "rogue-ca", "shared", "contact", "listed"}
	modifiers   = []string{"contains", "startswith", "endswith", "re", "i", "ignorecase", "m", "multiline", "s", "dotall",
		"cidr", "exists", "all", "neq", "cased", "lt", "lte", "gt", "gte", "expand"}
)

// document reads one rule.
type document struct {
	*fileReader
	rule *Rule
	// list finds a list by name for a field's kind; it reports what is wrong itself.
	list func(name string, f *field, at place) *list
	warn func(at place, tok, format string, args ...any)
}

// read reads the rule that body is, with source its text. It is of no use when problems were reported.
func (d *document) read(body ast.Node, source string) {
	start := placeOf(body.GetToken())
	entries, ok := d.entries(body)
	if !ok {
		d.problem(start, "", "a rule must be a map")
		return
	}
	if len(entries) > 0 {
		start = entries[0].place
	}
	r := d.rule
	r.File, r.Line, r.Enabled, r.Verdict, r.Category = d.file, start.line, true, "listed", "tls"
	r.RiskScore = -1
	var detection, extra *entry
	var logsource, date, modified bool
	for i := range entries {
		e := &entries[i]
		switch e.key {
		case "title":
			if s, ok := d.text(e.value, "title"); ok {
				if r.Title = s.text; len([]rune(s.text)) > 256 {
					d.problem(s.place, s.text, "title may have 256 characters")
				}
			}
		case "id":
			if s, ok := d.text(e.value, "id"); ok {
				if r.ID = strings.ToLower(s.text); !uuidPattern.MatchString(s.text) {
					d.problem(s.place, s.text, "id must be a UUID")
				}
			}
		case "status":
			r.Status = d.oneOf(e.value, "status", statuses)
		case "level":
			if r.Level = d.oneOf(e.value, "level", levels); r.Level != "" {
				r.Severity = severities[slices.Index(levels, r.Level)]
			}
		case "taxonomy":
			d.oneOf(e.value, "taxonomy", []string{"sigma", "oddcert"})
		case "description":
			r.Description = d.optional(e)
		case "license":
			r.License = d.optional(e)
		case "author":
			r.Author = d.optional(e)
		case "name":
			d.optional(e)
		case "date", "modified":
			s, ok := d.text(e.value, e.key)
			if ok && !datePattern.MatchString(s.text) {
				d.problem(s.place, s.text, "%s must be a date: 2006-01-02", e.key)
			}
			if e.key == "modified" || !modified {
				r.Version = strings.ReplaceAll(s.text, "/", "-")
			}
			date, modified = true, modified || e.key == "modified"
		case "references":
			r.References = d.strings(e)
		case "falsepositives":
			r.FalsePositives = d.strings(e)
		case "fields", "scope":
			d.strings(e)
		case "tags":
			d.tags(e)
		case "related":
			d.related(e)
		case "logsource":
			logsource = true
			d.logsource(e)
		case "detection":
			detection = e
		case "oddcert":
			extra = e
		case "correlation":
			d.problem(e.place, e.key, "correlation rules are not supported")
		case "filter":
			d.problem(e.place, e.key, "filter documents are not supported")
		case "action":
			d.problem(e.place, e.key, "rule collections with action are not supported: write each rule out")
		default:
			d.problem(e.place, e.key, "is no attribute of a rule%s", didYouMean(nearest(e.key, ruleKeys)))
		}
	}
	for _, required := range []struct {
		what string
		ok   bool
	}{
		{"title", has(entries, "title")}, {"id", has(entries, "id")}, {"level", has(entries, "level")},
		{"logsource", logsource}, {"detection", detection != nil},
	} {
		if !required.ok {
			d.problem(start, "", "the rule has no %s", required.what)
		}
	}
	if extra != nil {
		d.extra(extra)
	}
	if r.RiskScore < 0 {
		r.RiskScore = r.Severity
	}
	if r.reason == nil {
		r.reason, _ = parseTemplate(strings.ReplaceAll(strings.ReplaceAll(r.Title, "{", "{{"), "}", "}}") +
			": {client.ip} to {server.ip}:{server.port}, {oddcert.match.field} is {oddcert.match.value}")
	}
	if !date {
		sum := sha256.Sum256([]byte(strings.TrimSpace(strings.TrimPrefix(source, "---"))))
		r.Version = hex.EncodeToString(sum[:6])
	}
	if detection != nil {
		d.detection(detection)
	}
}

func has(entries []entry, key string) bool {
	return slices.ContainsFunc(entries, func(e entry) bool { return e.key == key })
}

func (d *document) oneOf(n ast.Node, what string, allowed []string) string {
	s, ok := d.text(n, what)
	if !ok {
		return ""
	}
	if !slices.Contains(allowed, s.text) {
		d.problem(s.place, s.text, "%s must be one of %s%s", what, strings.Join(allowed, ", "), didYouMean(nearest(s.text, allowed)))
		return ""
	}
	return s.text
}

func (d *document) optional(e *entry) string {
	s, _ := d.text(e.value, e.key)
	return strings.TrimSpace(s.text)
}

func (d *document) strings(e *entry) []string {
	var all []string
	for _, s := range d.texts(e.value, e.key) {
		all = append(all, s.text)
	}
	return all
}

func (d *document) tags(e *entry) {
	for _, s := range d.texts(e.value, "tags") {
		d.rule.Tags = append(d.rule.Tags, s.text)
		namespace, name, ok := strings.Cut(s.text, ".")
		switch {
		case !ok || namespace == "" || name == "":
			d.problem(s.place, s.text, "a tag has a namespace and a dot before it, such as attack.")
		case namespace == "attack" && !d.rule.Threat.attackTag(name):
			d.problem(s.place, s.text, "is no tactic or technique of ATT&CK, such as attack.command-and-control or attack.t1573.002")
		}
	}
}

func (d *document) related(e *entry) {
	list, ok := e.value.(*ast.SequenceNode)
	if !ok {
		d.problem(e.place, e.key, "related must be a list of id and type")
		return
	}
	for _, n := range list.Values {
		entries, ok := d.entries(n)
		if !ok || !has(entries, "id") || !has(entries, "type") {
			d.problem(placeOf(n.GetToken()), "", "each of related must have id and type")
			continue
		}
		for _, e := range entries {
			switch s, ok := d.text(e.value, e.key); {
			case !ok:
			case e.key == "id" && !uuidPattern.MatchString(s.text):
				d.problem(s.place, s.text, "id must be a UUID")
			case e.key == "type":
				d.oneOf(e.value, "type", []string{"derived", "obsolete", "obsoletes", "merged", "renamed", "similar", "correlation"})
			}
		}
	}
}

// logsource wants the rule to be about TLS as this program sees it: rules for
// other sources name fields that mean something else.
func (d *document) logsource(e *entry) {
	entries, ok := d.entries(e.value)
	if !ok || len(entries) == 0 {
		d.problem(e.place, e.key, "logsource must be a map with product: oddcert or category: tls")
		return
	}
	for _, e := range entries {
		switch e.key {
		case "product":
			d.oneOf(e.value, "logsource.product", []string{"oddcert"})
		case "category":
			if c := d.oneOf(e.value, "logsource.category", []string{"tls", "certificate"}); c != "" {
				d.rule.Category = c
			}
		case "definition":
			d.text(e.value, e.key)
		default:
			d.problem(e.place, e.key, "is not supported in logsource: use product: oddcert and category: tls")
		}
	}
	if !has(entries, "product") && !has(entries, "category") {
		d.problem(e.place, e.key, "logsource must have product: oddcert or category: tls")
	}
}

func (d *document) extra(e *entry) {
	entries, ok := d.entries(e.value)
	if !ok {
		d.problem(e.place, e.key, "oddcert must be a map")
		return
	}
	r := d.rule
	for _, e := range entries {
		switch e.key {
		case "enabled":
			r.Enabled = d.oneOf(e.value, "enabled", []string{"true", "false"}) != "false"
		case "verdict":
			r.Verdict = d.oneOf(e.value, "verdict", verdicts)
		case "risk_score":
			if s, ok := d.text(e.value, e.key); ok {
				n, err := strconv.Atoi(s.text)
				if err != nil || n < 0 || n > 100 {
					d.problem(s.place, s.text, "risk_score must be a whole number from 0 to 100")
				}
				r.RiskScore = n
			}
		case "reason":
			if s, ok := d.text(e.value, e.key); ok {
				r.reason = d.template(s)
			}
		case "verdict_reasons":
			for _, s := range d.texts(e.value, e.key) {
				r.reasons = append(r.reasons, d.template(s))
			}
		default:
			d.problem(e.place, e.key, "is no attribute of oddcert%s", didYouMean(nearest(e.key, oddcertKeys)))
		}
	}
}

func (d *document) template(s scalar) template {
	t, problem := parseTemplate(strings.TrimSpace(s.text))
	if problem != nil {
		d.problem(s.at(min(problem.offset, len(s.text))), problem.token, "%s", problem.text)
	}
	return t
}

// parseTemplate reads a text with names of fields between braces; doubled
// braces stand for themselves.
func parseTemplate(s string) (template, *conditionError) {
	t := template{}
	var literal strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "{{"), strings.HasPrefix(s[i:], "}}"):
			literal.WriteByte(s[i])
			i++
		case s[i] == '}':
			return nil, &conditionError{i, "}", "has no { before it: write }} for the character"}
		case s[i] == '{':
			name, _, ok := strings.Cut(s[i+1:], "}")
			if !ok {
				return nil, &conditionError{i, clip(s[i:], 20), "has no } after it: write {{ for the character"}
			}
			t = append(t, templatePart{literal: literal.String()})
			literal.Reset()
			if of, ok := strings.CutPrefix(name, "oddcert.match."); ok && slices.Contains([]string{"field", "value", "list", "chain_index"}, of) {
				t = append(t, templatePart{match: of})
			} else if f, near := fieldNamed(name); f != nil {
				t = append(t, templatePart{field: f})
			} else {
				return nil, &conditionError{i + 1, name, "is no known field" + didYouMean(near)}
			}
			i += len(name) + 1
		default:
			literal.WriteByte(s[i])
		}
	}
	return append(t, templatePart{literal: literal.String()}), nil
}

// detection reads the selections, then the condition over them.
func (d *document) detection(e *entry) {
	entries, ok := d.entries(e.value)
	if !ok {
		d.problem(e.place, e.key, "detection must be a map of selections and a condition")
		return
	}
	var condition *entry
	var selections []*selection
	places := make(map[string]place)
	for i := range entries {
		switch e := &entries[i]; e.key {
		case "condition":
			condition = e
		case "timeframe":
			d.problem(e.place, e.key, "timeframe is not supported: a rule looks at one handshake")
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
		d.problem(e.place, e.key, "the detection has no condition")
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
}

func (d *document) selection(e *entry) *selection {
	sel := &selection{name: e.key}
	const keyword = "a selection must name fields: keywords are not supported, as a handshake has no one text to search"
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
		default:
			b.flow = append(b.flow, it)
		}
	}
	return b
}

// modifiersOf is what the modifiers behind a field's name say.
type modifiersOf struct {
	op                       string // contains, startswith, endswith, re, cidr, exists, lt, …, expand; empty for none
	all, neq, cased          bool
	ignoreCase, multi, dotNL bool
}

func (d *document) modifiers(e *entry, names []string) (m modifiersOf, ok bool) {
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
			fail(name, "stands here twice")
		case !slices.Contains(modifiers, name):
			fail(name, "is no supported modifier%s", didYouMean(nearest(name, modifiers)))
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
				fail(name, "goes behind re only")
			}
			m.ignoreCase = m.ignoreCase || name[0] == 'i'
			m.multi = m.multi || name[0] == 'm'
			m.dotNL = m.dotNL || name[0] == 's' || name[0] == 'd'
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
	if ok && m.cased && slices.Contains([]string{"re", "cidr", "exists", "expand", "lt", "lte", "gt", "gte"}, m.op) {
		fail("cased", "cannot go with %s", m.op)
	}
	if ok && m.op == "exists" && (m.all || m.neq) {
		fail("exists", "goes alone")
	}
	return m, ok
}

// item reads one line of a selection; nil when it is wrong.
func (d *document) item(e *entry) *item {
	parts := strings.Split(e.key, "|")
	f, near := fieldNamed(parts[0])
	if f == nil {
		switch {
		case parts[0] == "":
			d.problem(e.place, e.key, "keywords are not supported: name a field")
		default:
			d.problem(e.place, parts[0], "is no known field%s", didYouMean(near))
		}
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
	if m.all {
		for _, v := range values {
			one := &item{field: f}
			good = d.add(one, v, m) && good
			it.all = append(it.all, one)
		}
	} else {
		for _, v := range values {
			good = d.add(it, v, m) && good
		}
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

// add adds a value to an item.
func (d *document) add(it *item, s scalar, m modifiersOf) bool {
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
		return fail("%s is true or false, which %s cannot go with", f.name, m.op)
	}
	switch m.op {
	case "":
		return d.plain(it, s, m.cased)
	case "contains", "startswith", "endswith":
		parts := splitWildcards(s.text)
		if len(parts) == 0 {
			return fail("an empty text is in everything")
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
		flags := ""
		if m.ignoreCase {
			flags += "i"
		}
		if m.multi {
			flags += "m"
		}
		if m.dotNL {
			flags += "s"
		}
		expr := s.text
		if flags != "" {
			expr = "(?" + flags + ")" + expr
		}
		if len(s.text) > maxRegex {
			return fail("a regular expression may have %d bytes", maxRegex)
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return fail("%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		if s.text == "" {
			return fail("an empty regular expression holds for everything")
		}
		it.tests = append(it.tests, test{op: opRegex, regex: re})
	case "cidr":
		if f.kind != address {
			return fail("%s is no address, which cidr wants", f.name)
		}
		p, err := netip.ParsePrefix(s.text)
		if err != nil || p.Addr().Is4In6() {
			return fail("is no network, such as 192.0.2.0/24 or 2001:db8::/32")
		}
		if p != p.Masked() {
			return fail("has bits behind its length: %s would be the network", p.Masked())
		}
		it.tests = append(it.tests, test{op: opNetwork, network: p})
	case "lt", "lte", "gt", "gte":
		if f.kind != number {
			return fail("%s is no number, which %s wants", f.name, m.op)
		}
		n, err := strconv.ParseInt(s.text, 10, 64)
		if err != nil || s.isText {
			return fail("is no whole number")
		}
		op := map[string]operator{"lt": opLess, "lte": opLessEqual, "gt": opGreater, "gte": opGreaterEqual}[m.op]
		it.tests = append(it.tests, test{op: op, n: n})
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

// plain adds a value without an operator: it must be equal, but for wildcards.
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
	literal := parts[0].literal
	if cased && f.kind == text {
		it.tests = append(it.tests, pattern(parts, true))
		return true
	}
	key, err := f.parse(nil, literal)
	if err != nil {
		d.problem(s.place, s.text, "%s", fmt.Sprint(err))
		return false
	}
	it.keys.add(key)
	return true
}
