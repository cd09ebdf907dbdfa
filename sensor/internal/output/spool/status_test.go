package spool

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestInspect compares what the files say with what the process that has them open
// counts, and looks again when it has ended.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	certificates := output.Set(0).Add(output.Certificate).Add(output.Alert)
	names := []Output{{Name: "all", Datasets: everything}, {Name: "some", Datasets: certificates}}
	s := open(t, dir, Options{Outputs: names, segment: 4000, delay: 1})
	sets := []output.Dataset{output.Alert, output.Handshake, output.Certificate}
	check := func() {
		t.Helper()
		st, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(st.Outputs); got != 4 {
			t.Fatalf("%d cursors", got)
		}
		if st.Bytes != s.Stats().Bytes || st.Bytes != st.Queues[0].Bytes+st.Queues[1].Bytes {
			t.Errorf("%d bytes, want %d", st.Bytes, s.Stats().Bytes)
		}
		waiting := map[string]Counts{}
		for _, o := range st.Outputs {
			n := waiting[o.Output]
			n.add(o.Waiting)
			waiting[o.Output] = n
			if o.Damaged || (o.Waiting.Total() > 0) != (o.Bytes > 0) || (o.Waiting.Total() == 0) != o.Oldest.IsZero() {
				t.Errorf("%+v", o)
			}
		}
		for _, o := range names {
			if want := s.Reader(o.Name).Stats().Waiting; waiting[o.Name] != want {
				t.Errorf("%s: %v, want %v", o.Name, waiting[o.Name], want)
			}
		}
	}
	// Each has taken one record, so that there are cursors.
	for _, d := range sets {
		if err := s.Append(ctx, record(d, 0)); err != nil {
			t.Fatal(err)
		}
	}
	left := map[string][Queues]int{}
	for n := 1; n < 300; n++ {
		d := sets[random.IntN(len(sets))]
		if err := s.Append(ctx, record(d, n)); err != nil {
			t.Fatal(err)
		}
		if n%10 != 0 {
			continue
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for i, o := range names {
			for q := range Queues {
				if n > 10 && random.IntN(2+i) > 0 {
					continue
				}
				var b Batch
				if s.Reader(o.Name).Stats().Waiting.of(q.Datasets()).Total() == uint64(left[o.Name][q]) {
					continue
				}
				if err := s.Reader(o.Name).Next(ctx, q, &b, 1+random.IntN(7), 1<<20); err != nil {
					t.Fatal(err)
				}
				settled := min(len(b.Records), 1+random.IntN(7))
				now := left[o.Name]
				now[q] += len(b.Records) - settled
				left[o.Name] = now
				if err := s.Reader(o.Name).Settle(q, settled); err != nil {
					t.Fatal(err)
				}
			}
		}
		check()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check()
}

func TestInspectDamage(t *testing.T) {
	dir := t.TempDir()
	if _, err := Inspect(filepath.Join(dir, "nothing")); err == nil {
		t.Error("a folder that is not there has a status")
	}
	st, err := Inspect(dir)
	if err != nil || st.Bytes != 0 || len(st.Outputs) != 0 || len(st.Queues) != int(Queues) {
		t.Fatalf("%+v, %v", st, err)
	}
	s := open(t, dir, Options{Outputs: []Output{{Name: "one", Datasets: everything}}, segment: 1})
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	for n := range 3 { // a segment each
		r := record(output.Alert, n)
		r.Time = at.UnixNano() + int64(n)
		if err := s.Append(ctx, r); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	alerts := func() (QueueFiles, OutputFiles) {
		t.Helper()
		st, err := Inspect(dir)
		if err != nil || st.Outputs[0].Queue != "alerts" {
			t.Fatalf("%+v, %v", st, err)
		}
		return st.Queues[0], st.Outputs[0]
	}
	q, o := alerts()
	if q.Segments != 3 || q.Damaged != 0 || q.Records[output.Alert] != 3 || o.Waiting != q.Records || !o.Oldest.Equal(at) || o.Cursor != 1 || o.Next != 4 {
		t.Errorf("%+v\n%+v", q, o)
	}
	change := func(name string, f func([]byte) []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A tail that is torn, or being written, is not damage. The same in the middle is.
	torn := func(b []byte) []byte { return b[:len(b)-1] }
	change("alerts-0000000000000003.spool", torn)
	if q, o := alerts(); q.Damaged != 0 || o.Waiting.Total() != 2 {
		t.Errorf("%+v\n%+v", q, o)
	}
	change("alerts-0000000000000001.spool", torn)
	if q, o := alerts(); q.Damaged != 1 || o.Waiting.Total() != 1 || !o.Oldest.Equal(at.Add(1)) {
		t.Errorf("%+v\n%+v", q, o)
	}
	change("one.alerts.cursor", func(b []byte) []byte { return bytes.ToUpper(b) })
	if _, o := alerts(); !o.Damaged || o.Waiting.Total() != 1 {
		t.Errorf("%+v", o)
	}
}
