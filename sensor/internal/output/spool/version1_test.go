package spool

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// version1 returns a folder that an older version of the program left, see
// testdata/version1.
func version1(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "version1"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// numbersIn are the numbers of the records in the folder: those of a queue that
// are not settled.
func numbersIn(queue Queue) (n []int) {
	if queue == Alerts {
		for i := 28; i < 80; i += 2 {
			n = append(n, i)
		}
		return n
	}
	for i := 1; i < 80; i += 2 {
		n = append(n, i)
	}
	return n
}

// all is the output that there was.
var all = []Output{{Name: onlyOutput, Datasets: allDatasets}}

// TestVersion1 upgrades: all that was not settled comes out, once, in order, with
// what is new after it, however often the program starts again meanwhile.
func TestVersion1(t *testing.T) {
	t.Parallel()
	for restarts := range 5 {
		dir := version1(t)
		s := open(t, dir, Options{segment: 1000, Outputs: all})
		if st := checkSums(t, s); st.Recovered.Total() != 26+40 || st.Missing+st.Corrupt+st.Torn != 0 {
			t.Fatalf("%+v", st)
		}
		want := [Queues][]int{numbersIn(Alerts), numbersIn(Telemetry)}
		for i := range 20 {
			d := []output.Dataset{output.Alert, output.Stats}[i%2]
			if err := s.Append(ctx, record(d, 100+i)); err != nil {
				t.Fatal(err)
			}
			want[QueueOf(d)] = append(want[QueueOf(d)], 100+i)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for queue := range Queues {
			outstanding := 0
			for taken := 0; len(want[queue]) > outstanding; taken++ {
				batch, err := next(ctx, s, queue, 3+taken%4, 1000)
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range batch {
					if w := record(r.Dataset, want[queue][outstanding+i]); r.ID != w.ID || !bytes.Equal(r.JSON, w.JSON) {
						t.Fatalf("%s: got %s, want %s", queue, r.JSON, w.JSON)
					}
				}
				outstanding += len(batch)
				n := outstanding - len(batch)/2
				if err := settle(s, queue, n); err != nil {
					t.Fatal(err)
				}
				want[queue] = want[queue][n:]
				outstanding -= n
				if restarts > 0 && taken%restarts == 0 {
					outstanding = 0
					s.Close()
					s = open(t, dir, Options{segment: 1000, Outputs: all})
					if st := checkSums(t, s); st.Missing+st.Corrupt+st.Torn != 0 {
						t.Fatalf("%+v", st)
					}
				}
			}
			if err := settle(s, queue, outstanding); err != nil {
				t.Fatal(err)
			}
		}
		s.Finish()
		if _, err := next(ctx, s, Alerts, 1, 1); err != io.EOF {
			t.Errorf("next: %v", err)
		}
		s.Close()
		if names, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(names) != 0 {
			t.Errorf("%q left", names)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "elasticsearch.alerts.cursor")); err != nil || !strings.HasPrefix(string(b), "oddcert-spool 4 ") {
			t.Errorf("cursor %q, %v", b, err)
		}
	}
}

// TestVersion1Damage flips bytes all over the segments, except that of their
// version: at most one record is lost, and it is counted. Then it cuts them.
func TestVersion1Damage(t *testing.T) {
	t.Parallel()
	names := segments(t, filepath.Join("testdata", "version1"), Alerts)
	for i, name := range names {
		image, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		last := i == len(names)-1
		try := func(what string, at int, damaged []byte, most int) {
			dir := version1(t)
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, Options{Outputs: all})
			st := checkSums(t, s)
			n := len(drain(t, s))
			if lost := 26 + 40 - n; lost < 0 || lost > most || st.Missing != uint64(lost) || st.Torn > 0 && !last {
				t.Fatalf("%s: %s at %d: %d records, %+v", name, what, at, n, st)
			}
			checkSums(t, s)
			s.Close()
		}
		for at := range image {
			if at != len(formatName) && at%67 == i {
				damaged := bytes.Clone(image)
				damaged[at] ^= 0x20
				try("flipped", at, damaged, 1)
			}
		}
		for at := 0; at < len(image); at += 151 {
			try("cut", at, image[:at], 11)
		}
	}
}
