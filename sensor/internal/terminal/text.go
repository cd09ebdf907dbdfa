package terminal

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// printable makes s harmless on a terminal, and bounds its length.
func printable(s string) string {
	if len(s) > maxValue {
		return escaped(s[:maxValue], "") + "…"
	}
	return escaped(s, "")
}

// escaped shows characters that do not print as escapes, except those in kept.
func escaped(s, kept string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r) || strings.ContainsRune(kept, r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default: // controls of direction among them, which can reorder what is read
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// Harmless returns a writer of text for people, such as warnings and lines of
// the log. They repeat names and values of files, of servers and of the wire,
// which must not control the terminal: characters that do not print are written
// as escapes. Each call of Write must have whole characters.
func Harmless(w io.Writer) io.Writer { return harmlessWriter{w} }

type harmlessWriter struct{ w io.Writer }

func (h harmlessWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(h.w, escaped(string(p), "\n\t")); err != nil {
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

// size is a number of bytes in decimal units.
func size(n uint64) string {
	f, unit := float64(n), 0
	for f >= 999.5 && unit < 4 {
		f, unit = f/1000, unit+1
	}
	format := "%.1f %s"
	if unit == 0 || f >= 99.95 {
		format = "%.0f %s"
	}
	return fmt.Sprintf(format, f, [...]string{"B", "kB", "MB", "GB", "TB"}[unit])
}

// span says from when to when packets were seen.
func span(start, end int64) string {
	if start == 0 && end == 0 {
		return ""
	}
	from, to := time.Unix(0, start).UTC(), time.Unix(0, end).UTC()
	layout := time.DateTime
	if from.Format(time.DateOnly) == to.Format(time.DateOnly) {
		layout = time.TimeOnly
	}
	return ", " + from.Format(time.DateTime) + " to " + to.Format(layout) + " UTC"
}

// Count writes how many things there are: "1 rule", "2 rules".
func Count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}
