package summary

import (
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_060_000_000: "1.1 GB", 99_949: "99.9 kB", 99_950: "100 kB",
		999_499: "999 kB", 999_500: "1.0 MB", 2_000_000_000_000: "2.0 TB", 2_000_000_000_000_000: "2000 TB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestNumbersInWords has every counter that has words of its own in the singular
// and in the plural.
func TestNumbersInWords(t *testing.T) {
	for key, w := range words {
		section, name, _ := strings.Cut(key, ": ")
		if r := (number{name, 1}).row(section); r.Label != w.one || r.Label == "" {
			t.Errorf("%s: one is %q", key, r.Label)
		}
		if r := (number{name, 2}).row(section); r.Label != w.many || r.Label == "" {
			t.Errorf("%s: many are %q", key, r.Label)
		}
	}
	if r := (number{"held_limit x", 1}).row("flows"); r.Label != "flows: held limit x" || r.Note != "" {
		t.Errorf("without words: %+v", r)
	}
}
