package spool

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// drainReader returns the numbers of all that an output gets from a queue, and settles it.
func drainReader(t testing.TB, r *Reader, q Queue) (got []int) {
	t.Helper()
	var b Batch
	for {
		err := r.Next(ctx, q, &b, 7, 500)
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Records {
			r := &b.Records[i]
			if want := record(r.Dataset, int(r.Time)); r.ID != want.ID || string(r.JSON) != string(want.JSON) {
				t.Fatalf("got %+v %s", r, r.JSON)
			}
			got = append(got, int(r.Time))
		}
		if err := r.Settle(q, len(b.Records)); err != nil {
			t.Fatal(err)
		}
	}
}

// checkReader holds the counts of an output against what ReaderStats promises.
func checkReader(t testing.TB, r *Reader) ReaderStats {
	t.Helper()
	st := r.Stats()
	for d := range output.Datasets {
		if st.Recovered[d]+st.Accepted[d] != st.Settled[d]+st.Dropped[d]+st.Waiting[d] {
			t.Errorf("%s: %s: %+v", r.name, d, st)
		}
	}
	return st
}

// TestSlowReader has one output that takes nothing: the other gets everything, also
// far beyond the limit of the spool, and what the slow one loses is counted for it
// alone, telemetry first.
func TestSlowReader(t *testing.T) {
	var said syncBuffer
	dir := t.TempDir()
	s := open(t, dir, Options{Size: MinSize, delay: 1, Logger: slog.New(slog.NewTextHandler(&said, nil)), Outputs: []Output{
		{Name: "fast", Datasets: everything}, {Name: "dead", Datasets: everything},
	}})
	fast, dead := s.Reader("fast"), s.Reader("dead")
	var b Batch
	const n = 80
	for i := range n {
		for _, d := range []output.Dataset{output.Alert, output.Handshake} {
			if err := s.Append(ctx, large(d, i, 10_000)); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			q := QueueOf(d)
			if err := fast.Next(ctx, q, &b, 1, 1); err != nil || int(b.Records[0].Time) != i {
				t.Fatalf("%v, %v", b.Records, err)
			}
			if err := fast.Settle(q, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := checkReader(t, fast); st.Settled.Total() != 2*n || st.Dropped.Total() != 0 {
		t.Errorf("fast: %+v", st)
	}
	st := checkReader(t, dead)
	if st.Dropped[output.Handshake] < 50 || st.Dropped[output.Alert] != 0 || st.Waiting[output.Alert] != n {
		t.Errorf("dead: %+v", st)
	}
	if used := s.Stats().Bytes; used > MinSize {
		t.Errorf("%d bytes are used", used)
	}
	if !strings.Contains(said.String(), "lost=map[dead:") || strings.Contains(said.String(), "fast:") {
		t.Errorf("said %s", said.String())
	}
	// It comes back.
	s.Finish()
	got := Counts{}
	for q := range Queues {
		for {
			if err := dead.Next(ctx, q, &b, 100, 1<<20); err != nil {
				break
			}
			for _, r := range b.Records {
				got[r.Dataset]++
			}
			if err := dead.Settle(q, len(b.Records)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got != st.Waiting {
		t.Errorf("got %v of %v", got, st.Waiting)
	}
	checkReader(t, dead)
	s.Close()
	if files, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(files) > 0 {
		t.Errorf("%q left", files)
	}
}

// TestDatasets gives each output what it wants. What nobody wants is not written, and
// what one does not want keeps no segment for it.
func TestDatasets(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{segment: 500, Outputs: []Output{
		{Name: "alerts", Datasets: output.Set(0).Add(output.Alert)},
		{Name: "stats", Datasets: output.Set(0).Add(output.Stats)},
		{Name: "both", Datasets: output.Set(0).Add(output.Alert).Add(output.Handshake).Add(output.Stats)},
	}})
	want := map[string][]int{}
	for i := range 200 {
		d := []output.Dataset{output.Alert, output.Handshake, output.Handshake, output.Hello, output.Stats}[i%5]
		if err := s.Append(ctx, record(d, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for _, r := range s.readers {
			if r.Wants(d) {
				want[r.name] = append(want[r.name], i)
			}
		}
	}
	if n := s.Stats().Accepted[output.Hello]; n != 0 {
		t.Errorf("%d hellos accepted, which nobody wants", n)
	}
	s.Finish()
	if s.Reader("alerts").Has(Telemetry) || s.Reader("stats").Has(Alerts) {
		t.Error("an output reads a queue that has nothing for it")
	}
	for _, r := range s.readers {
		var got []int
		for q := range Queues {
			if r.Has(q) {
				got = append(got, drainReader(t, r, q)...)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want[r.name]) {
			t.Errorf("%s: got %v, want %v", r.name, got, want[r.name])
		}
		checkReader(t, r)
	}
	s.Close()
	if files, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(files) > 0 {
		t.Errorf("%q left", files)
	}
}

// TestOutputsComeAndGo adds an output, leaves one out, and forgets it.
func TestOutputsComeAndGo(t *testing.T) {
	dir := t.TempDir()
	outs := func(names ...string) (all []Output) {
		for _, n := range names {
			all = append(all, Output{Name: n, Datasets: everything})
		}
		return all
	}
	add := func(s *Spool, from, n int) {
		for i := from; i < from+n; i++ {
			if err := s.Append(ctx, record(output.Dataset(i)%output.Datasets, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	drainAll := func(s *Spool, name string) int {
		s.Finish()
		n := 0
		for q := range Queues {
			n += len(drainReader(t, s.Reader(name), q))
		}
		return n
	}
	s := open(t, dir, Options{Outputs: outs("a", "b")})
	add(s, 0, 70)
	if n := drainAll(s, "a"); n != 70 {
		t.Errorf("a got %d", n)
	}
	s.Close()

	// A new output gets what is there; what b did not settle is kept without b.
	var said syncBuffer
	s = open(t, dir, Options{Outputs: outs("a", "c"), Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if !strings.Contains(said.String(), "not configured") || !strings.Contains(said.String(), "output=b records=70") {
		t.Errorf("said %q", said.String())
	}
	add(s, 70, 70)
	if n := drainAll(s, "a"); n != 70 {
		t.Errorf("a got %d", n)
	}
	if n := drainAll(s, "c"); n != 140 {
		t.Errorf("c got %d", n)
	}
	s.Close()
	s = open(t, dir, Options{Outputs: outs("a", "b", "c")})
	if st := checkReader(t, s.Reader("b")); st.Recovered.Total() != 140 || st.Missing != 0 {
		t.Errorf("%+v", st)
	}
	s.Close()
	if err := Forget(dir, "b"); err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir, "b"); err == nil {
		t.Error("forgotten twice")
	}
	s = open(t, dir, Options{Outputs: outs("a", "c")})
	s.Close()
	if files, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(files) > 0 {
		t.Errorf("%q left", files)
	}
}

// TestWantsChange has an output that wants telemetry, then not, and then again: nothing
// is held back for it meanwhile, and nothing is missing later.
func TestWantsChange(t *testing.T) {
	dir := t.TempDir()
	alerts := output.Set(0).Add(output.Alert)
	n := 0
	for _, set := range []output.Set{everything, alerts, everything} {
		s := open(t, dir, Options{segment: 300, delay: 1, Outputs: []Output{{Name: "a", Datasets: set}, {Name: "b", Datasets: everything}}})
		for range 20 {
			if err := s.Append(ctx, record(output.Handshake, n)); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			n++
		}
		s.Finish()
		if got := drainReader(t, s.Reader("b"), Telemetry); len(got) != 20 {
			t.Errorf("b got %v", got)
		}
		st := checkReader(t, s.Reader("a"))
		if st.Missing != 0 || st.Corrupt != 0 {
			t.Errorf("%+v", st)
		}
		if set == everything && (st.Waiting.Total() != 20 || s.Reader("a").Stats().Accepted.Total() != 20) {
			t.Errorf("%+v", st)
		}
		s.Close()
		files, _ := filepath.Glob(filepath.Join(dir, "telemetry-*.spool"))
		if set == alerts && len(files) > 0 {
			t.Errorf("%q are held back", files)
		}
	}
}

// TestReadersModel does random things to a spool with three outputs, also
// crashes, and compares: each output gets each record that it wants once,
// in order, or counts it.
func TestReadersModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		dir := t.TempDir()
		outs := []Output{
			{Name: "all", Datasets: everything},
			{Name: "alerts", Datasets: output.Set(0).Add(output.Alert)},
			{Name: "some", Datasets: output.Set(0).Add(output.Alert).Add(output.Certificate).Add(output.Stats)},
		}
		o := Options{segment: int64(200 + r.IntN(2000)), delay: 1, Outputs: outs}
		s := open(t, dir, o)
		type lane struct {
			want  []int // accepted, not settled
			taken int   // of these, returned
		}
		lanes := map[string]*[Queues]lane{"all": {}, "alerts": {}, "some": {}}
		n := 0
		for range 200 {
			switch r.IntN(8) {
			case 0, 1, 2, 3:
				d := output.Dataset(r.IntN(int(output.Datasets)))
				if err := s.Append(ctx, record(d, n)); err != nil {
					t.Fatal(err)
				}
				if err := s.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				for _, out := range outs {
					if out.Datasets.Has(d) {
						l := &lanes[out.Name][QueueOf(d)]
						l.want = append(l.want, n)
					}
				}
				n++
			case 4, 5, 6:
				out := outs[r.IntN(len(outs))]
				q := Queue(r.IntN(int(Queues)))
				reader, l := s.Reader(out.Name), &lanes[out.Name][q]
				if l.taken < len(l.want) && r.IntN(3) > 0 {
					var b Batch
					if err := reader.Next(ctx, q, &b, 1+r.IntN(9), 1+r.IntN(900)); err != nil {
						t.Fatal(err)
					}
					for i := range b.Records {
						if int(b.Records[i].Time) != l.want[l.taken+i] {
							t.Fatalf("seed %d: %s got %d, want %d", seed, out.Name, b.Records[i].Time, l.want[l.taken+i])
						}
					}
					l.taken += len(b.Records)
				}
				if reader.Has(q) {
					k := r.IntN(l.taken + 1)
					if err := reader.Settle(q, k); err != nil {
						t.Fatal(err)
					}
					l.want, l.taken = l.want[k:], l.taken-k
				}
			case 7:
				for _, l := range lanes {
					l[Alerts].taken, l[Telemetry].taken = 0, 0
				}
				if r.IntN(2) == 0 {
					s.Close()
				} else { // the process is killed: nothing of its end is done
					crash(t, s)
				}
				s = open(t, dir, o)
				for _, out := range outs {
					if st := checkReader(t, s.Reader(out.Name)); st.Missing+st.Corrupt > 0 {
						t.Fatalf("seed %d: %s: %+v", seed, out.Name, st)
					}
				}
			}
		}
		s.Finish()
		for _, out := range outs {
			for q := range Queues {
				reader, l := s.Reader(out.Name), &lanes[out.Name][q]
				if !reader.Has(q) {
					continue
				}
				if err := reader.Settle(q, l.taken); err != nil {
					t.Fatal(err)
				}
				if got := drainReader(t, reader, q); !slices.Equal(got, l.want[l.taken:]) {
					t.Fatalf("seed %d: %s got %v, want %v", seed, out.Name, got, l.want[l.taken:])
				}
			}
			checkReader(t, s.Reader(out.Name))
		}
		s.Close()
		if files, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(files) > 0 {
			t.Errorf("seed %d: %q left", seed, files)
		}
	}
}

// crash leaves the folder of a spool as it is, and gives up the process's hold on it.
func crash(t testing.TB, s *Spool) {
	t.Helper()
	dir := s.dir
	away := dir + ".away"
	// What the old process does from now on happens elsewhere.
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(away)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.RemoveAll(away); err != nil {
		t.Fatal(err)
	}
}

// TestCursorOfOne damages and deletes the cursor of one output: it gets everything
// that is kept again, and the others nothing.
func TestCursorOfOne(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"deleted": os.Remove,
		"flipped": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Outputs: []Output{{Name: "a", Datasets: everything}, {Name: "b", Datasets: everything}}}
			s := open(t, dir, o)
			for i := range 20 {
				if err := s.Append(ctx, record(output.Alert, i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			var b Batch
			for _, r := range s.readers {
				if err := r.Next(ctx, Alerts, &b, 10, 1<<20); err != nil {
					t.Fatal(err)
				}
				if err := r.Settle(Alerts, len(b.Records)); err != nil {
					t.Fatal(err)
				}
			}
			s.Close()
			if err := damage(filepath.Join(dir, "a.alerts.cursor")); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, o)
			s.Finish()
			if got := drainReader(t, s.Reader("a"), Alerts); len(got) != 20 {
				t.Errorf("a got %v", got)
			}
			if got := drainReader(t, s.Reader("b"), Alerts); len(got) != 10 || got[0] != 10 {
				t.Errorf("b got %v", got)
			}
			if st := checkReader(t, s.Reader("a")); (name != "deleted") != (st.Corrupt == 1) || st.Missing != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestClockSteps opens a spool whose segments were written an hour in the future.
func TestClockSteps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := s.Append(ctx, record(output.Handshake, 1)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	later := time.Now().Add(time.Hour)
	for _, name := range segments(t, dir, Telemetry) {
		if err := os.Chtimes(name, later, later); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, Options{Age: time.Minute})
	if err := s.Append(ctx, record(output.Handshake, 2)); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, s); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("got %v", got)
	}
}

// TestNames refuses names that cannot be those of files.
func TestNames(t *testing.T) {
	for _, name := range []string{"", "../x", "A", "a.b", "a/b", strings.Repeat("a", 33), "lock\n", "é"} {
		if _, err := Open(t.TempDir(), Options{Outputs: []Output{{Name: name, Datasets: everything}}}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if _, err := Open(t.TempDir(), Options{Outputs: []Output{{Name: "a"}, {Name: "a"}}}); err == nil {
		t.Error("a name is taken twice")
	}
	if err := Forget(t.TempDir(), "../x"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("forgot: %v", err)
	}
}

// TestEnd finishes a spool while its last records are being written: its readers get
// them before the end.
func TestEnd(t *testing.T) {
	for i := range 200 {
		s := open(t, t.TempDir(), Options{delay: time.Nanosecond, Outputs: []Output{{Name: "a", Datasets: everything}, {Name: "b", Datasets: everything}}})
		const n = 3
		for k := range n {
			if err := s.Append(ctx, record(output.Alert, k)); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan int)
		for _, r := range s.readers {
			go func() { got <- len(drainReader(t, r, Alerts)) }()
		}
		s.Finish()
		for range s.readers {
			if k := <-got; k != n {
				t.Fatalf("round %d: %d of %d records before the end", i, k, n)
			}
		}
		s.Close()
	}
}
