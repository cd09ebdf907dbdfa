package network

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// problem is one thing wrong with what is loaded.
type problem struct {
	file      string
	line, col int    // 1-based; 0 when it is not at one place of the file
	token     string // what is wrong, as the file has it; may be empty
	text      string
}

// problems are all problems of a load. As an error they are a line each, in the
// form file:line:col: "token": text.
type problems []problem

func (ps problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.file)
		if p.line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.line, p.col)
		}
		if len(p.token) > maxTokenShown {
			p.token = strings.ToValidUTF8(p.token[:maxTokenShown], "") + "…"
		}
		if p.token != "" {
			fmt.Fprintf(&b, ": %q", p.token)
		}
		b.WriteString(": " + p.text)
	}
	return b.String()
}

func (ps problems) sort() {
	slices.SortStableFunc(ps, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
}
