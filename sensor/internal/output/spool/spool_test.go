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
	s, err := Open(dir, withOutput(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// everything is the set of all datasets.
const everything = output.Set(1<<output.Datasets - 1)

// withOutput returns o with an output that wants everything, where it has none.
func withOutput(o Options) Options {
	if o.Outputs == nil {
		o.Outputs = []Output{{Name: onlyOutput, Datasets: everything}}
	}
	return o
}

// next is Next of the only output, in memory of its own.
func next(ctx context.Context, s *Spool, queue Queue, records, bytes int) ([]output.Record, error) {
	var b Batch
	err := s.Reader(onlyOutput).Next(ctx, queue, &b, records, bytes)
	return b.Records, err
}

func settle(s *Spool, queue Queue, n int) error { return s.Reader(onlyOutput).Settle(queue, n) }

// allStats are the counts of a spool and of its only output.
type allStats struct {
	Stats
	ReaderStats
}

func stats(s *Spool) allStats { return allStats{s.Stats(), s.Reader(onlyOutput).Stats()} }

// drain takes everything out of both queues of s, and checks that each record
// is what record made.
func drain(t testing.TB, s *Spool) (n []int) {
	t.Helper()
	s.Finish()
	for queue := range Queues {
		for {
			batch, err := next(context.Background(), s, queue, 7, 400)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range batch {
				want := record(r.Dataset, int(r.Time))
				if r.ID != want.ID || string(r.JSON) != string(want.JSON) || QueueOf(r.Dataset) != queue {
					t.Fatalf("queue %s: got %+v %s, want %+v %s", queue, r, r.JSON, want, want.JSON)
				}
				n = append(n, int(r.Time))
			}
			if err := settle(s, queue, len(batch)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// checkSums holds the counts of s against what Stats promises.
func checkSums(t testing.TB, s *Spool) allStats {
	t.Helper()
	st := stats(s)
	for d := range output.Datasets {
		if q := &st.QueueStats; q.Appended[d] != q.Accepted[d]+q.Refused[d]+q.Pending[d] { // the output's counts are of a moment later
			t.Errorf("%s: appended %d != accepted %d + refused %d + pending %d", d, q.Appended[d], q.Accepted[d], q.Refused[d], q.Pending[d])
		}
		if st.Recovered[d]+st.Accepted[d] != st.Settled[d]+st.Dropped[d]+st.Waiting[d] {
			t.Errorf("%s: recovered %d + accepted %d != settled %d + dropped %d + spooled %d", d, st.Recovered[d], st.Accepted[d], st.Settled[d], st.Dropped[d], st.Waiting[d])
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
		if i > 0 && alerts != (n+int(output.Datasets)-1-int(output.Alert))/int(output.Datasets) && got[i-1] > v {
			t.Fatalf("record %d before %d", got[i-1], v)
		}
	}
	if st := checkSums(t, s); st.Settled.Total() != n {
		t.Errorf("settled %d, want %d", st.Settled.Total(), n)
	}
}
