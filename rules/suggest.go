package rules

import (
	"fmt"
	"strings"
)

// didYouMean is the end of a problem with a name that is not known; near may be
// empty.
func didYouMean(near string) string {
	if near == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", near)
}

// nearest returns the candidate that takes the fewest edits to become s, or
// else one that ends with s; empty when no candidate is like it.
func nearest(s string, candidates []string) string {
	best, least := "", min(len(s)/2, 8)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), c, least); d < least {
			best, least = c, d
		}
	}
	if best == "" { // part of a name, such as sha256 or server_name
		for _, c := range candidates {
			if s != "" && strings.HasSuffix(c, "."+strings.ToLower(s)) {
				return c
			}
		}
	}
	return best
}

// distance is the Levenshtein distance, or limit when it is not less.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], limit)
}
