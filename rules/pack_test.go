package rules

import "testing"

func TestBuiltinLoads(t *testing.T) {
	s, err := LoadDirs(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Rules()); n != 8 {
		t.Errorf("%d rules", n)
	}
	for _, w := range s.Warnings() {
		t.Error(w)
	}
	for _, r := range s.Rules() {
		if _, ok := anchorsOf(r.cond, false); !ok {
			t.Errorf("%s: no anchor", r.File)
		}
	}
}
