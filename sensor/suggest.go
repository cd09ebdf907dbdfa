package main

import "strings"

// didYouMean is what an error about an unknown name ends with: the name among
// names that is most like it, or nothing where none is. prefix goes before that.
func didYouMean(prefix, name string, names []string) string {
	if s := nearest(name, names); s != "" {
		return ": did you mean " + prefix + s + "?"
	}
	return ""
}

// nearest returns the name that takes the fewest changes of single letters to make
// of name, when they are few; and nothing otherwise. Case, and whether words are
// divided by - or _, do not matter.
func nearest(name string, names []string) (best string) {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	name = plain(name)
	least := min((len(name)+1)/3, 2) + 1
	for _, n := range names {
		if d := distance(name, plain(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// maxName bounds the names that are compared: none of ours is as long.
const maxName = 64

// distance is the number of letters to insert, to delete, to replace or to swap
// with the next one to make b of a (Damerau and Levenshtein, restricted).
func distance(a, b string) int {
	if len(a) > maxName || len(b) > maxName {
		return maxName
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
