package rules

import (
	"unicode"
	"unicode/utf8"
)

// appendFold appends s in folded form: two strings have the same folded form
// exactly when [strings.EqualFold] reports them equal. Bytes that are not UTF-8
// stay as they are.
func appendFold(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += n
	}
	return dst
}

// foldRune returns the same rune for all runes that fold to one another: the
// ASCII lower-case letter if there is one (k for the Kelvin sign), else the least.
func foldRune(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

func fold(s string) string { return string(appendFold(nil, s)) }
