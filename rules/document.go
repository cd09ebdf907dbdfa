package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	datePattern = regexp.MustCompile(`^([12][0-9]{3})[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12][0-9]|3[01])$`)
)

var (
	ruleKeys = []string{"title", "id", "related", "name", "taxonomy", "status", "description", "license", "author",
		"references", "date", "modified", "logsource", "detection", "fields", "falsepositives", "level", "tags", "scope", "oddcert"}
	correlationKeys = append(allBut(ruleKeys, "logsource", "detection"), "correlation", "generate")
	filterKeys      = append(allBut(ruleKeys, "detection", "level", "falsepositives", "oddcert"), "filter")

	requiredKeys        = []string{"title", "id", "level", "logsource", "detection"}
	correlationRequired = []string{"title", "id", "level"}
	filterRequired      = []string{"title", "logsource"}

	oddcertKeys = []string{"enabled", "verdict", "risk_score", "reason", "verdict_reasons", "suppress"}
	taxonomies  = []string{"ecs", "sigma", "oddcert"}
	categories  = []string{"tls", "certificate", "network"}
	services    = []string{"tls", "ssl", "x509"}
	statuses    = []string{"stable", "test", "experimental", "deprecated", "unsupported"}
	relations   = []string{"derived", "obsolete", "obsoletes", "merged", "renamed", "similar", "correlation"}
	levels      = []string{"informational", "low", "medium", "high", "critical"}
	severities  = []int{21, 21, 47, 73, 99} // of levels, as Elastic Security has them
	verdicts    = []string{"genuine", "disguise", "relayed", "forged", "copied", "weak-ca", "rogue-ca", "posing", "intercepted", "shared", "contact", "hygiene", "listed"}
)

// document reads one rule.
type document struct {
	*fileReader
	rule     *Rule
	keys     []string // that such a document may have
	filtered *filter  // nil unless it is a filter
	// field finds a field; when there is no such field, near is the name most like it.
	field func(name string) (f *field, near string)
	// list finds a list by name for a field's kind; it reports what is wrong itself.
	list func(name string, f *field, at place) *list
	warn func(at place, tok, format string, args ...any)
}

// allBut returns a list without some of its elements.
func allBut(list []string, these ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(these, s) })
}

// read reads the rule or filter that body is, with source its text. It is of no use
// when problems were reported.
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
	r.Text = strings.TrimSpace(strings.TrimPrefix(source, "---"))
	r.content = sha256.Sum256([]byte(r.Text))
	what, required := "rule", requiredKeys
	correlates, filters := find(entries, "correlation"), find(entries, "filter")
	d.keys = ruleKeys
	switch {
	case correlates != nil:
		what, d.keys, required = "correlation rule", correlationKeys, correlationRequired
	case filters != nil:
		what, d.keys, required = "filter", filterKeys, filterRequired
	}
	for i := range entries {
		if e := &entries[i]; slices.Contains(d.keys, e.key) {
			d.attribute(e)
		} else if e.key == "action" {
			d.problem(e.place, e.key, "rule collections with action are not supported: write each rule out")
		} else {
			d.problem(e.place, e.key, "is not an attribute of a %s%s", what, didYouMean(nearest(e.key, d.keys)))
		}
	}
	for _, key := range required {
		if find(entries, key) == nil {
			d.problem(start, "", "the %s has no %s", what, key)
		}
	}
	switch {
	case correlates != nil:
		d.correlation(correlates)
		if e := find(entries, "generate"); e != nil && r.correlation != nil {
			r.correlation.generate = d.oneOf(e.value, e.key, []string{"true", "false"}) == "true"
		}
	case filters != nil:
		d.filter(filters)
		return
	}
	r.RiskScore = r.Severity
	if e := find(entries, "oddcert"); e != nil {
		d.oddcert(e)
	}
	if r.reason == nil {
		r.reason, _ = parseTemplate(strings.ReplaceAll(strings.ReplaceAll(r.Title, "{", "{{"), "}", "}}")+
			": {client.ip} to {server.ip}:{server.port}, "+matchText(r), r.correlation != nil)
	}
	if find(entries, "date") == nil && find(entries, "modified") == nil {
		r.Version = hex.EncodeToString(r.content[:6])
	}
	if e := find(entries, "detection"); e != nil && r.correlation == nil {
		if selections, ok := d.entries(e.value); ok {
			d.detection(e, selections)
		} else {
			d.problem(e.place, e.key, "detection must be a map of selections and a condition")
		}
	}
}

// matchText is the end of the reason that a rule has when it does not say one.
func matchText(r *Rule) string {
	if r.correlation == nil {
		return "{oddcert.match.field} is {oddcert.match.value}"
	}
	return "count {oddcert.correlation.count}, from {oddcert.correlation.from} to {oddcert.correlation.to}"
}

// attribute reads an attribute of the rule; detection, correlation, filter and
// oddcert come later, as they need the others.
func (d *document) attribute(e *entry) {
	r := d.rule
	switch e.key {
	case "title":
		if s, ok := d.text(e.value, "title"); ok {
			if r.Title = s.text; len([]rune(s.text)) > maxTitle {
				d.problem(s.place, s.text, "a title may have %d characters at most", maxTitle)
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
		d.oneOf(e.value, "taxonomy", taxonomies)
	case "description":
		r.Description = d.line(e)
	case "license":
		r.License = d.line(e)
	case "author":
		r.Author = d.line(e)
	case "name":
		r.name = d.line(e)
	case "modified":
		r.Version = d.date(e)
	case "date":
		if version := d.date(e); r.Version == "" { // modified goes before date
			r.Version = version
		}
	case "references":
		r.References = d.lines(e)
	case "falsepositives":
		r.FalsePositives = d.lines(e)
	case "fields", "scope":
		d.lines(e)
	case "tags":
		d.tags(e)
	case "related":
		d.related(e)
	case "logsource":
		d.logsource(e)
	}
}

// find returns the entry with a key, nil when there is no such entry.
func find(entries []entry, key string) *entry {
	if i := slices.IndexFunc(entries, func(e entry) bool { return e.key == key }); i >= 0 {
		return &entries[i]
	}
	return nil
}

// oneOf reads a text that must be among those allowed; empty when it is not.
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

// line reads a text without the white space around it.
func (d *document) line(e *entry) string {
	s, _ := d.text(e.value, e.key)
	return strings.TrimSpace(s.text)
}

// lines reads a list of texts.
func (d *document) lines(e *entry) []string {
	var all []string
	for _, s := range d.texts(e.value, e.key) {
		all = append(all, s.text)
	}
	return all
}

// date reads a date, and returns it with hyphens.
func (d *document) date(e *entry) string {
	s, ok := d.text(e.value, e.key)
	if ok && !datePattern.MatchString(s.text) {
		d.problem(s.place, s.text, "%s must be a date: 2006-01-02", e.key)
	}
	return strings.ReplaceAll(s.text, "/", "-")
}

func (d *document) tags(e *entry) {
	for _, s := range d.texts(e.value, "tags") {
		d.rule.Tags = append(d.rule.Tags, s.text)
		namespace, name, ok := strings.Cut(s.text, ".")
		switch {
		case !ok || namespace == "" || name == "":
			d.problem(s.place, s.text, "a tag begins with a namespace and a dot, such as attack.")
		case namespace == "attack" && !d.rule.Threat.attackTag(name):
			d.problem(s.place, s.text, "is not a tactic or technique of ATT&CK, such as attack.command-and-control or attack.t1573.002")
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
		if !ok || find(entries, "id") == nil || find(entries, "type") == nil {
			d.problem(placeOf(n.GetToken()), "", "each of related must have id and type")
			continue
		}
		for _, e := range entries {
			switch s, ok := d.text(e.value, e.key); {
			case !ok:
			case e.key == "id" && !uuidPattern.MatchString(s.text):
				d.problem(s.place, s.text, "id must be a UUID")
			case e.key == "type":
				d.oneOf(e.value, "type", relations)
			}
		}
	}
}

// logsource wants the rule to be about TLS as this program sees it: rules for
// other sources name fields that mean something else.
func (d *document) logsource(e *entry) {
	const want = "product: oddcert, category: tls, or category: network with service: tls"
	entries, ok := d.entries(e.value)
	if !ok || len(entries) == 0 {
		d.problem(e.place, e.key, "logsource must be a map with "+want)
		return
	}
	for _, e := range entries {
		switch e.key {
		case "product":
			d.rule.source.product = d.oneOf(e.value, "logsource.product", []string{"oddcert"})
		case "category":
			if c := d.oneOf(e.value, "logsource.category", categories); c != "" {
				d.rule.Category, d.rule.source.category = c, c
			}
		case "service":
			d.rule.source.service = d.oneOf(e.value, "logsource.service", services)
		case "definition":
			d.text(e.value, e.key)
		default:
			d.problem(e.place, e.key, "is not supported in logsource: write "+want)
		}
	}
	switch product, category, service := find(entries, "product"), find(entries, "category"), find(entries, "service"); {
	case product != nil:
	case category == nil:
		d.problem(e.place, e.key, "logsource must have "+want)
	case d.rule.Category == "network" && service == nil:
		d.problem(category.place, category.key, "category: network is not about TLS alone: add service: tls (or ssl, or x509)")
	}
}

// oddcert reads the attributes that only this program has.
func (d *document) oddcert(e *entry) {
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
				r.reason = d.sentence(s)
			}
		case "verdict_reasons":
			for _, s := range d.texts(e.value, e.key) {
				r.reasons = append(r.reasons, d.sentence(s))
			}
		case "suppress":
			d.suppress(&e)
		default:
			d.problem(e.place, e.key, "is not an attribute of oddcert%s", didYouMean(nearest(e.key, oddcertKeys)))
		}
	}
}

// sentence reads a text with the names of fields between braces.
func (d *document) sentence(s scalar) template {
	t, problem := parseTemplate(strings.TrimSpace(s.text), d.rule.correlation != nil)
	if problem != nil {
		d.problem(s.at(min(problem.offset, len(s.text))), problem.token, "%s", problem.text)
	}
	return t
}
