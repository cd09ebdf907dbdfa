package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
	"unicode"
	"unicode/utf8"
)

// body makes the bodies of requests out of a template.
//
// A template can name any field, whether the record at hand has it or not: what is
// missing is empty. That is not so in package text/template, where a field of what is
// missing is an error, and an alert without a certificate would be lost. So the
// template is changed once it is parsed: fields are looked up by a function, and
// another one prints what comes out.
type body struct {
	template *template.Template
}

// functions are those that templates can call, besides the ones of package
// text/template.
var functions = template.FuncMap{
	"json":    encode,
	"join":    join,
	"default": fallback,
	"upper":   func(v any) string { return strings.ToUpper(text(v)) },
	"lower":   func(v any) string { return strings.ToLower(text(v)) },
	"replace": func(old, by string, v any) string { return strings.ReplaceAll(text(v), old, by) },
	"trunc":   truncate,
	"date":    date,
	"code":    code,
	// These are of package text/template too; here, what is missing is empty.
	"printf":   printf,
	"html":     func(v any) string { return template.HTMLEscapeString(text(v)) },
	"urlquery": func(v any) string { return url.QueryEscape(text(v)) },
	// These two are put in below; nobody need call them.
	fieldFunction: field,
	textFunction:  text,
}

const (
	fieldFunction = "_field"
	textFunction  = "_text"
)

// parseBody parses a template. Its errors name the line. The secrets are those that
// it may ask for.
func parseBody(name, source string, secret func(string) (string, error)) (*body, error) {
	t, err := template.New(name).Funcs(functions).Funcs(template.FuncMap{"secret": secret}).Parse(source)
	if err != nil {
		return nil, err
	}
	for _, part := range t.Templates() {
		if part.Tree != nil {
			rewrite(part.Tree.Root)
		}
	}
	return &body{t}, nil
}

// make executes the template over what was decoded from a record, or from several.
func (b *body) make(data any) ([]byte, error) {
	w := limited{max: maxBody}
	if err := b.template.Execute(&w, data); err != nil {
		return nil, err
	}
	return w.Bytes(), nil
}

// limited is a buffer that refuses to grow beyond max.
type limited struct {
	bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > l.max {
		return 0, fmt.Errorf("the body has more than %d bytes", l.max)
	}
	return l.Buffer.Write(p)
}

// decode reads JSON for a template: objects become maps, whole numbers int64.
func decode(record []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			v[key] = numbers(member)
		}
	case []any:
		for i, element := range v {
			v[i] = numbers(element)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return v
}

// rewrite changes the parts of a template that name fields, and those that print.
func rewrite(node parse.Node) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			rewrite(child)
		}
	case *parse.ActionNode:
		rewrite(n.Pipe)
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: n.Pos,
				Args: []parse.Node{identifier(textFunction, n.Pos)}})
		}
	case *parse.IfNode:
		rewriteBranch(&n.BranchNode)
	case *parse.RangeNode:
		rewriteBranch(&n.BranchNode)
	case *parse.WithNode:
		rewriteBranch(&n.BranchNode)
	case *parse.TemplateNode:
		rewrite(n.Pipe)
	case *parse.PipeNode:
		if n == nil {
			return
		}
		for _, c := range n.Cmds {
			for i, arg := range c.Args {
				c.Args[i] = lookup(arg)
			}
		}
	}
}

func rewriteBranch(n *parse.BranchNode) {
	rewrite(n.Pipe)
	rewrite(n.List)
	rewrite(n.ElseList)
}

// lookup is the call that looks up the field that an argument names, or the argument.
func lookup(arg parse.Node) parse.Node {
	switch n := arg.(type) {
	case *parse.FieldNode: // .rule.name
		return call(&parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}, n.Ident, n.Pos)
	case *parse.VariableNode: // $x.rule.name
		if len(n.Ident) > 1 {
			return call(&parse.VariableNode{NodeType: parse.NodeVariable, Pos: n.Pos, Ident: n.Ident[:1]}, n.Ident[1:], n.Pos)
		}
	case *parse.ChainNode: // (index .x 0).rule.name
		return call(lookup(n.Node), n.Field, n.Pos)
	case *parse.PipeNode:
		rewrite(n)
	}
	return arg
}

func call(of parse.Node, path []string, pos parse.Pos) parse.Node {
	args := []parse.Node{identifier(fieldFunction, pos), of}
	for _, name := range path {
		args = append(args, &parse.StringNode{NodeType: parse.NodeString, Pos: pos, Quoted: strconv.Quote(name), Text: name})
	}
	return &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{{NodeType: parse.NodeCommand, Pos: pos, Args: args}}}
}

func identifier(name string, pos parse.Pos) *parse.IdentifierNode {
	return parse.NewIdentifier(name).SetPos(pos)
}

// field is the member of an object at a path, nil when there is none.
func field(of any, path ...string) any {
	for _, name := range path {
		object, ok := of.(map[string]any)
		if !ok {
			return nil
		}
		of = object[name]
	}
	return of
}

// text is v as it is printed: nothing where there is nothing, and JSON for a list or
// an object.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any, map[string]any:
		if s, err := encode(v); err == nil {
			return s
		}
	}
	return fmt.Sprint(v)
}

// encode is v in JSON, as a value that can stand in JSON anywhere.
func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// join is the elements of a list with separator between them. What is no list is a
// list of one, and what is missing has none.
func join(separator string, v any) string {
	list, ok := v.([]any)
	if !ok {
		return text(v)
	}
	parts := make([]string, len(list))
	for i, element := range list {
		parts[i] = text(element)
	}
	return strings.Join(parts, separator)
}

// fallback is v, or otherwise where v is missing or empty.
func fallback(otherwise, v any) any {
	if full, ok := template.IsTrue(v); !ok || !full {
		if r := reflect.ValueOf(v); v == nil || r.Kind() == reflect.String || r.Kind() == reflect.Slice || r.Kind() == reflect.Map {
			return otherwise
		}
	}
	return v
}

// truncate cuts v after so many characters; the last one that is left says so.
func truncate(characters int, v any) (string, error) {
	s := text(v)
	if characters < 1 {
		return "", errors.New("trunc needs a number from 1 on")
	}
	if utf8.RuneCountInString(s) <= characters {
		return s, nil
	}
	return string([]rune(s)[:characters-1]) + "…", nil
}

// printf is fmt.Sprintf over what text prints, except for numbers.
func printf(format string, args ...any) string {
	for i, v := range args {
		switch v.(type) {
		case int64, float64, int:
		default:
			args[i] = text(v)
		}
	}
	return fmt.Sprintf(format, args...)
}

// code is v as code in a line of Markdown, where no mention, link or format works:
// without what would end it.
func code(v any) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r == '`':
			return '\''
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return ' '
		}
		return r
	}, text(v))
	if s = strings.TrimSpace(s); s == "" {
		return ""
	}
	return "`" + s + "`"
}

// date is a time of a record in another layout, as package time has them, or as unix
// for seconds and unix_ms for milliseconds since 1970.
func date(layout string, v any) (string, error) {
	s := text(v)
	if s == "" {
		return "", nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return "", errors.New("date needs a time such as @timestamp")
	}
	switch layout {
	case "unix":
		return strconv.FormatInt(t.Unix(), 10), nil
	case "unix_ms":
		return strconv.FormatInt(t.UnixMilli(), 10), nil
	}
	return t.UTC().Format(layout), nil
}
