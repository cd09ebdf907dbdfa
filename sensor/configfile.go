package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The limits of a configuration file, which the parser of YAML does not have: its
// time grows with the square of the depth.
const (
	limitConfig = 64 << 10 // bytes
	limitNested = 8        // brackets that are open, or list entries that begin on one line; a value needs 2
)

// readFile applies the configuration file, one mapping of the keys of options to
// their values in YAML, and names everything that is wrong with it.
func (c *config) readFile() error {
	f, err := os.Open(c.file)
	if err != nil {
		if c.chosen {
			return fmt.Errorf("read configuration: %w: --config '' does without", err)
		}
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limitConfig+1))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(text) > limitConfig {
		return fmt.Errorf("read configuration %s: it has more than %d bytes", c.file, limitConfig)
	}
	return c.applyYAML(text)
}

// applyYAML applies the text of a configuration file.
func (c *config) applyYAML(text []byte) (err error) {
	// The library has been seen to panic on input that is not YAML.
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%s: not YAML that can be read", c.file)
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if err := c.nested(tokens); err != nil {
		return err
	}
	// The parser would stop at the first key that is repeated.
	parsed, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return c.broken(err)
	}
	var errs []error
	seen := map[string]bool{}
	for _, doc := range parsed.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		pairs, ok := pairsOf(doc.Body)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: not a mapping of keys to values", c.place(doc.Body)))
		}
		for _, pair := range pairs {
			errs = append(errs, c.applyPair(pair, seen))
		}
	}
	return errors.Join(errs...)
}

// nested refuses what is nested too deep.
func (c *config) nested(tokens token.Tokens) error {
	open, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			entries, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open--
		case token.SequenceEntryType, token.MappingKeyType:
			entries++
		}
		if open > limitNested || entries > limitNested {
			return fmt.Errorf("%s:%d:%d: nested too deep", c.file, t.Position.Line, t.Position.Column)
		}
	}
	return nil
}

// applyPair applies one key and its value.
func (c *config) applyPair(pair *ast.MappingValueNode, seen map[string]bool) error {
	key := pair.Key.GetToken().Value
	if seen[key] {
		return fmt.Errorf("%s: key %q is repeated", c.place(pair.Key), key)
	}
	seen[key] = true
	o := c.find(strings.ReplaceAll(key, "_", "-"))
	if o == nil || o.key() != key {
		var keys []string
		for _, o := range c.table() {
			keys = append(keys, o.key())
		}
		return fmt.Errorf("%s: unknown key %q%s", c.place(pair.Key), key, didYouMean("", key, keys))
	}
	if o.value.kind == kindSettings {
		return c.applyOutputs(o, pair.Value)
	}
	parts, err := c.partsOf(o, pair.Value)
	if err != nil {
		return err
	}
	if err := o.apply(parts, c.place(pair.Value)+": "+key); err != nil {
		return err
	}
	o.from = c.place(pair.Value)
	return nil
}

// partsOf reads the value of o: a scalar, which is split as the text of a flag, or
// a list of them, or a mapping for labels.
func (c *config) partsOf(o *option, node ast.Node) ([]string, error) {
	if s, ok := scalarOf(node); ok {
		parts, err := o.split(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.place(node), o.key(), err)
		}
		return parts, nil
	}
	parts := []string{}
	if pairs, ok := pairsOf(node); ok && o.value.kind == kindPairs {
		for _, pair := range pairs {
			s, ok := scalarOf(pair.Value)
			if !ok {
				return nil, fmt.Errorf("%s: %s: a text is expected", c.place(pair.Value), o.key())
			}
			parts = append(parts, pair.Key.GetToken().Value+"="+s)
		}
		return parts, nil
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok || !o.value.many {
		return nil, fmt.Errorf("%s: %s: %s is expected", c.place(node), o.key(), o.value.expected())
	}
	for _, item := range list.Values {
		s, ok := scalarOf(item)
		if !ok {
			return nil, fmt.Errorf("%s: %s: a text is expected", c.place(item), o.key())
		}
		parts = append(parts, s)
	}
	return parts, nil
}

// pairsOf returns the pairs of a mapping; ok is false when node is not one.
func pairsOf(node ast.Node) (pairs []*ast.MappingValueNode, ok bool) {
	switch node := node.(type) {
	case *ast.MappingNode:
		return node.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{node}, true
	}
	return nil, false
}

// scalarOf returns the text of a scalar as it is written; ok is false when node is
// not one, or has no text.
func scalarOf(node ast.Node) (text string, ok bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return node.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// place is where node stands in the file.
func (c *config) place(node ast.Node) string {
	pos := node.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", c.file, pos.Line, pos.Column)
}

// broken says where in the file the YAML is broken.
func (c *config) broken(err error) error {
	var broken yaml.Error
	if errors.As(err, &broken) && broken.GetToken() != nil {
		pos := broken.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", c.file, pos.Line, pos.Column, broken.GetMessage())
	}
	return fmt.Errorf("%s: %w", c.file, err)
}
