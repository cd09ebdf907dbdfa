package inventory

import (
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
)

// after holds that what comes after each entry of a list is the rest of it.
func after[T any, K any](t *testing.T, all iter.Seq2[T, error], rest func(K) iter.Seq2[T, error], key func(T) K, same func(a, b T) bool) {
	t.Helper()
	collect := func(seq iter.Seq2[T, error]) (list []T) {
		for v, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, v)
		}
		return list
	}
	want := collect(all)
	if len(want) < 2 {
		t.Fatalf("%d entries", len(want))
	}
	var zero K
	if got := collect(rest(zero)); !slices.EqualFunc(got, want, same) {
		t.Errorf("after nothing: %d of %d", len(got), len(want))
	}
	for i, v := range want {
		if got := collect(rest(key(v))); !slices.EqualFunc(got, want[i+1:], same) {
			t.Errorf("after entry %d: %d of %d", i, len(got), len(want)-i-1)
		}
	}
}

// TestAfter asks for the rest of lists, from each of their entries on.
func TestAfter(t *testing.T) {
	s, err := Temporary()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, f := range findings(rand.New(rand.NewPCG(1, 2)), 2000) {
		s.See(f)
	}
	after(t, s.Certificates(), s.CertificatesAfter, func(c *Certificate) Hash { return c.SHA256 }, func(a, b *Certificate) bool { return a.SHA256 == b.SHA256 })
	after(t, s.Servers(), s.ServersAfter, func(v *Server) ServerKey { return v.ServerKey }, func(a, b *Server) bool { return a.ServerKey == b.ServerKey })
	ids := func(all iter.Seq2[*Alert, error]) (list []string) {
		for a, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, a.ID)
		}
		return list
	}
	forward, backward := ids(s.Alerts()), ids(s.AlertsBefore(nil))
	if slices.Reverse(backward); len(forward) < 2 || !slices.Equal(forward, backward) {
		t.Errorf("%d alerts forward, %d backward", len(forward), len(backward))
	}
	n := 0
	for a := range s.Alerts() {
		before := ids(s.AlertsBefore(a))
		if slices.Reverse(before); !slices.Equal(before, forward[:n]) {
			t.Errorf("before alert %d: %d alerts", n, len(before))
		}
		n++
	}
}

// TestAnswerAsStored has an inventory asked that is to answer with what it has.
func TestAnswerAsStored(t *testing.T) {
	s, err := Temporary()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.AnswerAsStored()
	for _, f := range findings(rand.New(rand.NewPCG(1, 2)), 10) {
		s.See(f)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if totals, err := s.Totals(); err != nil || totals.Certificates == 0 {
		t.Errorf("%+v, %v", totals, err)
	}
}
