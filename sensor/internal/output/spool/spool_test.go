package spool

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

func record(d output.Dataset, n int) *output.Record {
	id := fmt.Sprintf("%08x%024x", n, d)
	return &output.Record{Dataset: d, ID: id, Time: int64(n), JSON: fmt.Appendf(nil, `{"event":{"id":%q,"dataset":"oddcert.%s"},"n":%d}`, id, d, n)}
}

func open(t testing.TB, dir string, o Options) *Spool {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// drain takes everything out of both lanes of s, and checks that each record
// is what record made.
func drain(t testing.TB, s *Spool) (n []int) {
	t.Helper()
	s.Finish()
	for lane := range Lanes {
		for {
			batch, err := s.Next(context.Background(), lane, 7, 400)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range batch {
				want := record(r.Dataset, int(r.Time))
				if r.ID != want.ID || string(r.JSON) != string(want.JSON) || LaneOf(r.Dataset) != lane {
					t.Fatalf("lane %s: got %+v %s, want %+v %s", lane, r, r.JSON, want, want.JSON)
				}
				n = append(n, int(r.Time))
			}
			if err := s.Settle(lane, len(batch)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// checkSums holds the counts of s against what Stats promises.
func checkSums(t testing.TB, s *Spool) Stats {
	t.Helper()
	st := s.Stats()
	for d := range output.Datasets {
		if st.Appended[d] != st.Accepted[d]+st.Refused[d]+st.Pending[d] {
			t.Errorf("%s: appended %d != accepted %d + refused %d + pending %d", d, st.Appended[d], st.Accepted[d], st.Refused[d], st.Pending[d])
		}
		if st.Recovered[d]+st.Accepted[d] != st.Settled[d]+st.Dropped[d]+st.Spooled[d] {
			t.Errorf("%s: recovered %d + accepted %d != settled %d + dropped %d + spooled %d", d, st.Recovered[d], st.Accepted[d], st.Settled[d], st.Dropped[d], st.Spooled[d])
		}
	}
	return st
}

func TestOrder(t *testing.T) {
	s := open(t, t.TempDir(), Options{segment: 2000})
	const n = 300
	for i := range n {
		if err := s.Append(context.Background(), record(output.Dataset(i)%output.Datasets, i)); err != nil {
			t.Fatal(err)
		}
	}
	got := drain(t, s)
	if len(got) != n {
		t.Fatalf("got %d records, want %d", len(got), n)
	}
	alerts := 0
	for i, v := range got {
		if output.Dataset(v)%output.Datasets == output.Alert {
			alerts++
		}
		if i > 0 && alerts != n/int(output.Datasets) && got[i-1] > v {
			t.Fatalf("record %d before %d", got[i-1], v)
		}
	}
	if st := checkSums(t, s); st.Settled.Total() != n {
		t.Errorf("settled %d, want %d", st.Settled.Total(), n)
	}
}
