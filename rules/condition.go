package rules

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// conditionError is what is wrong with a condition, at an offset in bytes.
type conditionError struct {
	offset      int
	token, text string
}

// conditionParser reads a condition:
//
//	or    = and { "or" and }
//	and   = not { "and" not }
//	not   = "not" not | "(" or ")" | name | ("1" | "any" | "all") "of" (pattern | "them")
type conditionParser struct {
	s          string
	offset     int    // of the byte after token
	token      string // the next token; empty at the end
	start      int    // its offset
	depth      int
	nodes      int
	selections []*selection // in the order of the rule
	used       map[*selection]bool
}

// parseCondition reads a condition over selections, and returns which of them it
// uses.
func parseCondition(s string, selections []*selection) (n *node, used map[*selection]bool, problem *conditionError) {
	p := &conditionParser{s: s, selections: selections, used: make(map[*selection]bool)}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *conditionError:
			n, problem = nil, e
		default:
			panic(e)
		}
	}()
	if len(s) > maxConditionSize {
		panic(&conditionError{0, "", fmt.Sprintf("a condition may have %d bytes", maxConditionSize)})
	}
	p.next()
	if p.token == "" {
		p.fail("the condition is empty")
	}
	n = p.or()
	if p.token != "" {
		switch strings.ToLower(p.token) {
		case "and", "or", "not":
			p.fail("operators are written in lower case")
		case "|":
			p.fail("aggregations are not supported")
		}
		p.fail("expected and, or, or the end of the condition")
	}
	return n, p.used, nil
}

func (p *conditionParser) fail(format string, args ...any) {
	panic(&conditionError{p.start, p.token, fmt.Sprintf(format, args...)})
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// next moves to the next token: a word, which may have "*" in it, or one other
// character.
func (p *conditionParser) next() {
	for p.offset < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.offset]) >= 0 {
		p.offset++
	}
	p.start = p.offset
	for p.offset < len(p.s) && (isNameByte(p.s[p.offset]) || p.s[p.offset] == '*') {
		p.offset++
	}
	if p.offset == p.start && p.offset < len(p.s) {
		_, n := utf8.DecodeRuneInString(p.s[p.offset:])
		p.offset += n
	}
	p.token = p.s[p.start:p.offset]
}

func (p *conditionParser) enter() {
	if p.depth++; p.depth > maxConditionDepth {
		p.fail("nested more than %d deep", maxConditionDepth)
	}
}

func (p *conditionParser) count(n int) {
	if p.nodes += n; p.nodes > maxConditionNodes {
		p.fail("the condition refers to selections more than %d times", maxConditionNodes)
	}
}

func (p *conditionParser) or() *node  { return p.chain("or", opOr, p.and) }
func (p *conditionParser) and() *node { return p.chain("and", opAnd, p.not) }

// chain reads one or more operands with an operator between them.
func (p *conditionParser) chain(operator string, op nodeOp, operand func() *node) *node {
	n := operand()
	if p.token != operator {
		return n
	}
	n = &node{op: op, kids: []*node{n}}
	for p.token == operator {
		p.next()
		n.kids = append(n.kids, operand())
	}
	return n
}

func (p *conditionParser) not() *node {
	switch p.token {
	case "not":
		p.enter()
		p.next()
		n := &node{op: opNot, kids: []*node{p.not()}}
		p.depth--
		return n
	case "(":
		p.enter()
		p.next()
		n := p.or()
		if p.token != ")" {
			p.fail("expected )")
		}
		p.next()
		p.depth--
		return n
	case "":
		p.fail("the condition ends where a selection is expected")
	case "and", "or":
		p.fail("expected a selection before it")
	}
	word, start := p.token, p.start
	if !isNameByte(word[0]) && word[0] != '*' {
		p.fail("unexpected character")
	}
	p.next()
	if p.token == "of" {
		return p.of(word, start)
	}
	if strings.Contains(word, "*") {
		p.start, p.token = start, word
		p.fail("a pattern needs a quantifier: 1 of %s or all of %s", word, word)
	}
	for _, s := range p.selections {
		if s.name == word {
			p.count(1)
			p.used[s] = true
			return &node{op: opSelection, sel: s}
		}
	}
	p.start, p.token = start, word
	names := make([]string, len(p.selections))
	for i, s := range p.selections {
		names[i] = s.name
	}
	p.fail("is not a selection%s", didYouMean(nearest(word, names)))
	return nil
}

// of reads what follows a quantifier.
func (p *conditionParser) of(quantifier string, start int) *node {
	n := &node{op: opOr}
	switch quantifier {
	case "1", "any":
	case "all":
		n.op = opAnd
	default:
		p.start, p.token = start, quantifier
		p.fail("the quantifier must be 1, any or all")
	}
	p.next()
	if p.token == "" || p.token == "(" || strings.Contains(p.token, "-") || !isNameByte(p.token[0]) && p.token[0] != '*' {
		p.fail("expected them, or a pattern of letters, digits, _ and *")
	}
	pattern := splitWildcards(p.token)
	for _, s := range p.selections {
		// What begins with "_" is left out unless the pattern does too.
		if strings.HasPrefix(s.name, "_") && !strings.HasPrefix(p.token, "_") {
			continue
		}
		if p.token == "them" || glob(pattern, []byte(s.name)) {
			n.kids = append(n.kids, &node{op: opSelection, sel: s})
			p.used[s] = true
		}
	}
	p.count(len(n.kids))
	if len(n.kids) == 0 {
		p.fail("no selection has such a name")
	}
	p.next()
	if len(n.kids) == 1 {
		return n.kids[0]
	}
	return n
}
