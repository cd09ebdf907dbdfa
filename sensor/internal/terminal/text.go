package terminal

import (
	"io"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

// printable makes s harmless on a terminal, and bounds its length.
func printable(s string) string { return harmless.Short(s, maxValue) }

// Harmless returns a writer of text for people, such as warnings and lines of
// the log. They repeat names and values of files, of servers and of the wire,
// which must not control the terminal: what package harmless escapes is written
// as escapes, except for the ends of lines and tabs. Each call of Write must have whole characters.
func Harmless(w io.Writer) io.Writer { return harmlessWriter{w} }

type harmlessWriter struct{ w io.Writer }

func (h harmlessWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(h.w, harmless.Except(string(p), "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// narrow measures characters as terminals outside of East Asia show them.
var narrow = &runewidth.Condition{}

// columns is how wide printable text is.
func columns(s string) (n int) {
	for _, r := range s {
		n += narrow.RuneWidth(r)
	}
	return n
}

// fitting is how many bytes of s fit into width columns, at least one character.
func fitting(s string, width int) int {
	used := 0
	for i, r := range s {
		if used += narrow.RuneWidth(r); used > width && i > 0 {
			return i
		}
	}
	return len(s)
}

// wrapped breaks s into lines, between words where it can.
func wrapped(s string, width int) (lines []string) {
	for {
		n := fitting(s, width)
		if n == len(s) {
			return append(lines, s)
		}
		line := s[:n]
		if space := strings.LastIndexByte(s[:n+1], ' '); space > 0 {
			line = s[:space]
		}
		lines = append(lines, strings.TrimRight(line, " "))
		if s = strings.TrimLeft(s[len(line):], " "); s == "" {
			return lines
		}
	}
}

// truncated is s in at most width columns.
func truncated(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return s[:fitting(s, width-1)] + "…"
}

// thousands is n with separators.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Count writes how many things there are: "1 rule", "2 rules".
func Count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}
