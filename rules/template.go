package rules

import (
	"slices"
	"strconv"
	"strings"
)

// template is a text with the names of fields between braces.
type template []templatePart

type templatePart struct {
	literal string
	field   *field // else
	match   string // "field", "value", "list" or "chain_index" of the match
	count   string // one of correlationWords, of the match of a correlation rule
}

// correlationWords are what a text can say of a correlation.
var correlationWords = []string{"count", "group", "from", "to"}

// parseTemplate reads a text with names of fields between braces; doubled
// braces stand for themselves. correlates is set for the texts of a correlation
// rule.
func parseTemplate(s string, correlates bool) (template, *conditionError) {
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
			} else if of, ok := strings.CutPrefix(name, "oddcert.correlation."); ok && slices.Contains(correlationWords, of) {
				if !correlates {
					return nil, &conditionError{i + 1, name, "is for correlation rules"}
				}
				t = append(t, templatePart{count: of})
			} else if f, near := fieldNamed(name); f != nil {
				t = append(t, templatePart{field: f})
			} else {
				return nil, &conditionError{i + 1, name, "is not a known field" + didYouMean(near)}
			}
			i += len(name) + 1
		default:
			literal.WriteByte(s[i])
		}
	}
	return append(t, templatePart{literal: literal.String()}), nil
}

// fill writes a template out for a match. It is not whole where a field that it
// names has no value.
func (m *Matcher) fill(t template, match *Match, found []evidence) (text string, whole bool) {
	var b strings.Builder
	whole = true
	for _, p := range t {
		switch {
		case p.field != nil:
			b.WriteString(m.all(p.field, found))
			whole = whole && len(m.values) > 0
		case p.match == "field":
			b.WriteString(match.Field)
		case p.match == "value":
			b.WriteString(match.Value)
		case p.match == "list":
			b.WriteString(match.List)
		case p.match == "chain_index":
			b.WriteString(strconv.Itoa(match.ChainIndex))
		case p.count != "":
			b.WriteString(match.Correlation.word(p.count))
		default:
			b.WriteString(p.literal)
		}
	}
	return b.String(), whole
}
