package rules

import (
	"bytes"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// part is a stretch of a Sigma string: literal characters, or one wildcard.
type part struct {
	literal string // empty for a wildcard
	many    bool   // "*", else "?"
}

// splitWildcards reads a Sigma string. "*" and "?" are wildcards unless a
// backslash comes before them. Two backslashes are one; a backslash before any
// other character is itself.
func splitWildcards(s string) []part {
	var parts []part
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			parts = append(parts, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`\*?`, s[i+1]) >= 0:
			i++
			literal.WriteByte(s[i])
		case c == '*':
			flush()
			if n := len(parts); n == 0 || !parts[n-1].many { // two in a row mean the same as one
				parts = append(parts, part{many: true})
			}
		case c == '?':
			flush()
			parts = append(parts, part{})
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return parts
}

// operator is how a test looks at a value.
type operator uint8

const (
	opPresent  operator = iota // any value
	opEqual                    // literal, with regard to case
	opContains                 // literal within
	opPrefix                   // literal at the start
	opSuffix                   // literal at the end
	opGlob                     // parts
	opRegex                    // regex
	opNetwork                  // address in network
	opLess                     // number below n; likewise the next three
	opLessEqual
	opGreater
	opGreaterEqual
)

// test is one condition on one value, other than to be equal to a key.
type test struct {
	op      operator
	cased   bool   // literal and parts are compared as they are, else folded
	literal []byte // folded unless cased
	parts   []part // likewise
	regex   *regexp.Regexp
	network netip.Prefix
	n       int64
}

// pattern turns the parts of a Sigma string into a test. Without a wildcard the
// test is an equality; values that are not cased are found by key, not by a test.
func pattern(parts []part, cased bool) test {
	t := test{cased: cased}
	literal := func(s string) []byte {
		if cased {
			return []byte(s)
		}
		return []byte(fold(s))
	}
	many := func(i int) bool { return parts[i].many }
	plain := func(i int) bool { return parts[i].literal != "" }
	switch {
	case len(parts) == 0:
		t.op = opEqual
	case len(parts) == 1 && many(0):
		t.op = opPresent
	case len(parts) == 1 && plain(0):
		t.op, t.literal = opEqual, literal(parts[0].literal)
	case len(parts) == 2 && plain(0) && many(1):
		t.op, t.literal = opPrefix, literal(parts[0].literal)
	case len(parts) == 2 && many(0) && plain(1):
		t.op, t.literal = opSuffix, literal(parts[1].literal)
	case len(parts) == 3 && many(0) && plain(1) && many(2):
		t.op, t.literal = opContains, literal(parts[1].literal)
	default:
		t.op, t.parts = opGlob, parts
		for i := range t.parts {
			t.parts[i].literal = string(literal(t.parts[i].literal))
		}
	}
	return t
}

// numeric reports whether the test looks at the value itself, not at its text.
func (t *test) numeric() bool { return t.op >= opNetwork }

// holds reports whether the test holds for a value v, given its text and its
// folded text.
func (t *test) holds(v *value, text, folded []byte) bool {
	s := folded
	if t.cased {
		s = text
	}
	switch t.op {
	case opPresent:
		return true
	case opEqual:
		return bytes.Equal(s, t.literal)
	case opContains:
		return bytes.Contains(s, t.literal)
	case opPrefix:
		return bytes.HasPrefix(s, t.literal)
	case opSuffix:
		return bytes.HasSuffix(s, t.literal)
	case opGlob:
		return glob(t.parts, s)
	case opRegex:
		return t.regex.Match(text)
	case opNetwork:
		return t.network.Contains(v.ip)
	case opLess:
		return v.n < t.n
	case opLessEqual:
		return v.n <= t.n
	case opGreater:
		return v.n > t.n
	default:
		return v.n >= t.n
	}
}

// glob reports whether parts match all of s. It goes back to the last "*" only.
// That suffices, as everything before it has matched as early as it could. So
// the time is bounded by the product of both lengths.
func glob(parts []part, s []byte) bool {
	p, at := 0, 0       // the next part, and where in s
	star, from := -1, 0 // the part after the last "*", and where it was tried
	for at < len(s) || p < len(parts) {
		if p < len(parts) {
			switch q := parts[p]; {
			case q.many:
				p++
				star, from = p, at
				continue
			case q.literal == "": // "?" is one character
				if at < len(s) {
					_, n := utf8.DecodeRune(s[at:])
					p, at = p+1, at+n
					continue
				}
			case bytes.HasPrefix(s[at:], []byte(q.literal)):
				p, at = p+1, at+len(q.literal)
				continue
			}
		}
		if star < 0 || from >= len(s) {
			return false
		}
		_, n := utf8.DecodeRune(s[from:])
		from += n
		p, at = star, from
	}
	return true
}

// needle returns a text that the folded text of every value contains for which
// the test holds; empty when no such text is known.
func (t *test) needle() string {
	switch t.op {
	case opEqual, opContains, opPrefix, opSuffix:
		return fold(string(t.literal))
	case opGlob:
		longest := ""
		for _, p := range t.parts {
			if len(p.literal) > len(longest) {
				longest = p.literal
			}
		}
		return fold(longest)
	case opRegex:
		tree, err := syntax.Parse(t.regex.String(), syntax.Perl)
		if err != nil {
			return ""
		}
		return fold(required(tree.Simplify()))
	}
	return ""
}

// required returns the longest literal that every match of re has.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if slices.Contains(re.Rune, utf8.RuneError) { // also matches bytes that are no UTF-8
			return ""
		}
		return string(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(longest) {
				longest = s
			}
		}
		return longest
	}
	return ""
}
