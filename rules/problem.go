package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with the rules, or with a selection.
type Problem struct {
	File      string // empty of a selection
	Line, Col int    // 1-based; 0 when the problem is not at one place of the file
	Token     string // what is wrong, as the file has it; may be empty
	Text      string
}

// Error is one line: file:line:col: "token": text, without what is empty.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Col)
	}
	if p.Token != "" {
		fmt.Fprintf(&b, " %q:", clip(p.Token, maxTokenShown))
	}
	b.WriteString(" " + p.Text)
	return strings.TrimPrefix(b.String(), " ")
}

// Problems are all problems of a load, sorted by place. As an error it is one
// problem a line.
type Problems []Problem

// Error is the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// clip shortens s to at most n bytes, at a rune's edge, and says so.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
