package rules

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

// place is a position in a file, 1-based.
type place struct{ line, col int }

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// scalar is a YAML value that is neither map nor list.
type scalar struct {
	place
	text   string
	isNull bool
	isText bool // a string, not a number or truth value
	inline bool // on one line as it stands, at col+quote
	quote  int  // 1 when it is in quotes
}

// entry is one line of a map.
type entry struct {
	place
	key   string
	value ast.Node
}

// fileReader reads the rules of one file and collects what is wrong with them.
type fileReader struct {
	file     string
	problems Problems
	full     bool // no more problems are collected
}

func (r *fileReader) problem(at place, tok, format string, args ...any) {
	if r.full {
		return
	}
	if len(r.problems) == maxProblems {
		r.full = true
		r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Col: at.col, Text: "more problems follow"})
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Col: at.col, Token: tok, Text: fmt.Sprintf(format, args...)})
}

// source is the text of one document, which begins at a line of its file.
type source struct {
	text string
	line int // 0-based
}

// split cuts a file into its documents. A line "---" divides them wherever it
// is (YAML 1.2.2, section 9.1.4), so no parser is needed; and the parser's time
// grows faster than its input.
func split(b []byte) (docs []source) {
	// The lexer miscounts lines that end in a carriage return.
	text := lineFeeds.Replace(strings.TrimPrefix(string(b), "\uFEFF"))
	start, line, first := 0, 0, 0
	for at := 0; at < len(text); line++ {
		end := strings.IndexByte(text[at:], '\n') + 1
		if end == 0 {
			end = len(text) - at
		}
		if s := text[at : at+end]; strings.HasPrefix(s, "---") && (len(s) == 3 || strings.IndexByte(" \t\n", s[3]) >= 0) && at > start {
			docs = append(docs, source{text[start:at], first})
			start, first = at, line
		}
		at += end
	}
	return append(docs, source{text[start:], first})
}

// parse parses one document; body is nil when the document is empty or wrong.
func (r *fileReader) parse(doc source) (body ast.Node) {
	// The parser has been seen to panic on input that is not YAML. Such a file
	// is a bad file, and must not end the program.
	defer func() {
		if recover() != nil {
			body = nil
			r.problem(place{doc.line + 1, 1}, "", "cannot be read as YAML")
		}
	}()
	if strings.Trim(doc.text, "- \t\n") == "" {
		return nil
	}
	if len(doc.text) > maxDocument {
		r.problem(place{doc.line + 1, 1}, "", "a document may have %d bytes: put values in a list file", maxDocument)
		return nil
	}
	tokens := tokenize(doc.text)
	for _, t := range tokens {
		if t.Position != nil {
			t.Position.Line += doc.line
		}
	}
	if !r.shallow(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		at, tok, text := place{doc.line + 1, 1}, "", ""
		var problem yaml.Error
		if errors.As(err, &problem) {
			text = problem.GetMessage()
			if t := problem.GetToken(); t != nil {
				at, tok = placeOf(t), strings.TrimSpace(t.Value)
			}
		} else {
			text = err.Error() // that of a yaml.Error draws the document: its time grows as the square of it
		}
		text, _, _ = strings.Cut(text, "\n")
		r.problem(at, tok, "%s", text)
		return nil
	}
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType || d.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			r.problem(placeOf(d.Body.GetToken()), "", "a second document begins without a line ---")
			return nil
		}
		body = d.Body
	}
	return body
}

// tokenize returns the tokens of a document, up to the first that there is not in YAML.
// What comes after that says nothing, and to go on takes room for all of it again.
func tokenize(text string) (tokens token.Tokens) {
	var s scanner.Scanner
	s.Init(text)
	for {
		more, err := s.Scan()
		tokens.Add(more...)
		if err != nil {
			return tokens // an error other than io.EOF is a token, too, which the parser refuses
		}
	}
}

var lineFeeds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// shallow refuses what would make the parser recurse or expand without bound:
// deep nesting and anchors, and very many keys or places where it puts a null, as
// its time grows as the square of these. It reports whether the document is fit to
// be parsed.
func (r *fileReader) shallow(tokens token.Tokens) bool {
	line, entries, keys := 0, 0, 0
	var columns []int // of the first tokens of the lines that enclose this one
	type flow struct {
		isMap bool
		keyed bool // its entry at hand has a ":"
	}
	var flows []flow // the [ and { that enclose this token
	bare := false    // the last token is a "-"
	keep := func(t *token.Token) bool {
		if keys++; keys > maxYAMLKeys {
			r.problem(placeOf(t), t.Value, "a document may have %d keys, with entries that have no value", maxYAMLKeys)
		}
		return keys <= maxYAMLKeys
	}
	for _, t := range tokens {
		if t.Position == nil {
			continue
		}
		if t.Position.Line != line {
			if bare && !keep(t) {
				return false
			}
			line, entries = t.Position.Line, 0
			for len(columns) > 0 && columns[len(columns)-1] >= t.Position.Column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, t.Position.Column)
		}
		bare = t.Type == token.SequenceEntryType
		top := len(flows) - 1
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flows = append(flows, flow{isMap: t.Type == token.MappingStartType})
		case token.SequenceEndType, token.MappingEndType, token.CollectEntryType:
			if top < 0 {
				break
			}
			if flows[top].isMap && !flows[top].keyed && !keep(t) {
				return false
			}
			if flows[top].keyed = false; t.Type != token.CollectEntryType {
				flows = flows[:top]
			}
		case token.MappingValueType:
			if !keep(t) {
				return false
			}
			if top >= 0 {
				flows[top].keyed = true
			}
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			r.problem(placeOf(t), t.Value, "anchors and aliases are not supported")
			return false
		case token.TagType:
			r.problem(placeOf(t), t.Value, "tags are not supported")
			return false
		case token.SequenceEntryType, token.MappingKeyType:
			if entries++; entries > maxYAMLEntries {
				r.problem(placeOf(t), t.Value, "nested more than %d deep on one line", maxYAMLEntries)
				return false
			}
		}
		if len(flows) > maxYAMLDepth || len(columns) > maxYAMLDepth {
			r.problem(placeOf(t), t.Value, "nested more than %d deep", maxYAMLDepth)
			return false
		}
	}
	return true
}

// entries returns the lines of a map; ok is false when n is not a map.
func (r *fileReader) entries(n ast.Node) (entries []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return nil, false
	}
	for _, v := range values {
		at := placeOf(v.Key.GetToken())
		s, ok := r.scalarOf(v.Key)
		if !ok || s.isNull {
			r.problem(at, v.Key.String(), "is not a key")
			continue
		}
		entries = append(entries, entry{at, s.text, v.Value})
	}
	return entries, true
}

// scalarOf reads a scalar; ok is false when n is not a scalar.
func (r *fileReader) scalarOf(n ast.Node) (s scalar, ok bool) {
	if n == nil {
		return scalar{place: place{1, 1}, isNull: true}, true
	}
	t := n.GetToken()
	s.place = placeOf(t)
	switch n := n.(type) {
	case *ast.NullNode:
		s.isNull = true
	case *ast.StringNode:
		s.text, s.isText = n.Value, true
		s.inline = !strings.Contains(t.Origin, "\n") || !strings.Contains(strings.TrimSpace(t.Origin), "\n")
		if t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType {
			s.quote = 1
			s.inline = s.inline && !strings.ContainsAny(n.Value, `'"\`)
		}
	case *ast.LiteralNode:
		s.text, s.isText = n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		// As it was written: a hash that happens to have digits only stays one.
		s.text = t.Value
	default:
		return s, false
	}
	return s, true
}

// text reads a string that is not empty; what names it in a problem.
func (r *fileReader) text(n ast.Node, what string) (scalar, bool) {
	s, ok := r.scalarOf(n)
	switch {
	case !ok:
		r.problem(placeOf(n.GetToken()), "", "%s must be a text", what)
		return s, false
	case s.isNull || strings.TrimSpace(s.text) == "":
		r.problem(s.place, "", "%s is empty", what)
		return s, false
	}
	return s, true
}

// texts reads a list of strings.
func (r *fileReader) texts(n ast.Node, what string) []scalar {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		at := place{1, 1}
		if n != nil {
			at = placeOf(n.GetToken())
		}
		r.problem(at, "", "%s must be a list", what)
		return nil
	}
	var all []scalar
	for _, v := range list.Values {
		if s, ok := r.text(v, "each of "+what); ok {
			all = append(all, s)
		}
	}
	return all
}

// at is the place of an offset in the text of a scalar, or the place of the
// scalar where YAML folds or escapes its text.
func (s scalar) at(offset int) place {
	if s.inline && offset <= math.MaxInt32 {
		return place{s.line, s.col + s.quote + len([]rune(s.text[:offset]))}
	}
	return s.place
}
