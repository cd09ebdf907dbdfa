// Package harmless makes text of foreign bytes that cannot deceive whoever reads it.
// Names and values come from the wire, from files and from servers. As they are, they
// could move a cursor, change colours, reorder what is read, or hide in it.
//
// It is the first step only: markup and formulas are for whoever writes HTML or tables.
package harmless

import (
	"fmt"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many marks a character is shown with. More of them climb over the
// lines around.
const maxMarks = 4

// Text returns s in one line, with all that is not plainly visible as an escape: \xNN
// for bytes that are not UTF-8 and for controls, \uNNNN and \UNNNNNNNN for characters
// that reorder text, have no width, are a space other than that of ASCII, or mean
// something else to everybody (private use).
func Text(s string) string { return Except(s, "") }

// Except is Text that lets the characters of kept through, such as "\n\t".
func Except(s, kept string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for part := range parts(s, kept) {
		b.WriteString(part)
	}
	return b.String()
}

// Parts returns Text(s) in parts, in order, and whether each is one escape. Whoever
// can mark text tells by them an escape from text that looks like one.
func Parts(s string) iter.Seq2[string, bool] { return parts(s, "") }

func parts(s, kept string) iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		marks := maxMarks // what would stand on the character at i
		from, i := 0, 0   // what is visible and not yet given is s[from:i]
		for i < len(s) {
			r, size := utf8.DecodeRuneInString(s[i:])
			visible := Visible(r)
			switch {
			case !unicode.Is(unicode.M, r):
				marks = 0
			case marks < maxMarks:
				marks++
			default:
				visible = false
			}
			var escape string
			switch {
			case r == utf8.RuneError && size == 1:
				escape = fmt.Sprintf(`\x%02x`, s[i])
			case visible || strings.ContainsRune(kept, r):
				i += size
				continue
			case r < 0x100:
				escape = fmt.Sprintf(`\x%02x`, r)
			case r < 0x10000:
				escape = fmt.Sprintf(`\u%04x`, r)
			default:
				escape = fmt.Sprintf(`\U%08x`, r)
			}
			if from < i && !yield(s[from:i], false) || !yield(escape, true) {
				return
			}
			i += size
			from = i
		}
		if from < len(s) {
			yield(s[from:], false)
		}
	}
}

// plain reports whether s is printable ASCII, as nearly all of it is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Short is Text of the first n bytes of s or a few less, so that no character is cut.
// An ellipsis stands for the rest. The result can have more bytes than n.
func Short(s string, n int) string {
	if len(s) <= n {
		return Text(s)
	}
	for cut := n; cut > max(0, n-utf8.UTFMax); cut-- {
		if utf8.RuneStart(s[cut]) {
			n = cut
			break
		}
	}
	return Text(s[:n]) + "…"
}

// Visible reports whether a character is seen where it stands. Those that Unicode has
// as ignorable (fillers, joiners, selectors of variants) are letters and marks by their
// category; the blank of Braille is a symbol.
func Visible(r rune) bool {
	return unicode.IsPrint(r) && r != '\u2800' &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
