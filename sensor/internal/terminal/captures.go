package terminal

import (
	"path/filepath"
	"strings"
)

// distinct returns what each path is shown as: the end of it that no other has, at
// least the name of the file.
func distinct(paths []string) map[string]string {
	names := make(map[string]string, len(paths))
	for _, p := range paths {
		names[p] = filepath.Clean(p)
	}
	left := make(map[string]bool, len(names)) // cleaned
	for _, p := range names {
		left[p] = true
	}
	short := make(map[string]string, len(left))
	for n := 1; len(left) > 0; n++ {
		alike := make(map[string]int, len(left))
		for p := range left {
			alike[tail(p, n)]++
		}
		for p := range left {
			if t := tail(p, n); alike[t] == 1 || t == p {
				short[p] = t
				delete(left, p)
			}
		}
	}
	for p, clean := range names {
		names[p] = short[clean]
	}
	return names
}

// tail is the last n elements of a path.
func tail(path string, n int) string {
	at := len(path)
	for range n {
		if at = strings.LastIndexByte(path[:at], filepath.Separator); at < 0 {
			return path
		}
	}
	return path[at+1:]
}
