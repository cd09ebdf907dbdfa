package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

const childEnv = "ODDCERT_SPOOL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// segments returns the segment files of a queue, oldest first.
func segments(t testing.TB, dir string, queue Queue) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, queue.String()+"-*.spool"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fill makes a spool of n alerts in one segment, each in a block of its own, and
// returns its bytes and the offset after each block.
func fill(t testing.TB, n int) (image []byte, ends []int) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range n {
		if err := s.Append(context.Background(), record(output.Alert, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(stats(s).Bytes))
	}
	s.Close()
	names := segments(t, dir, Alerts)
	if len(names) != 1 {
		t.Fatalf("segments %q", names)
	}
	image, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(image) != ends[n-1] {
		t.Fatalf("a segment of %d bytes counts as %d", len(image), ends[n-1])
	}
	return image, ends
}

// plant makes a spool directory whose alerts are image.
func plant(t testing.TB, dir string, image []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "alerts-0000000000000001.spool"), image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// stride is the step over the bytes of a segment.
func stride() int {
	if testing.Short() {
		return 5
	}
	return 1
}

// TestTornAtEveryByte cuts a segment at every offset, with and without the
// zeros that a file system may leave behind the cut.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	image, ends := fill(t, 4)
	dir := t.TempDir()
	for cut := 0; cut <= len(image); cut += stride() {
		for _, zeros := range []int{0, 3, 600} {
			plant(t, dir, append(image[:cut:cut], make([]byte, zeros)...))
			s := open(t, dir, Options{})
			whole, end := 0, fileHeaderSize
			for _, e := range ends {
				if e <= cut {
					whole, end = whole+1, e
				}
			}
			got := drain(t, s)
			if len(got) != whole {
				t.Fatalf("cut at %d, %d zeros: got %v, want the first %d", cut, zeros, got, whole)
			}
			for i, n := range got {
				if n != i {
					t.Fatalf("cut at %d: got %v", cut, got)
				}
			}
			st := checkSums(t, s)
			if rest := cut + zeros - end; rest > 0 && (st.Torn != 1 || st.TornBytes != uint64(rest)) {
				t.Fatalf("cut at %d, %d zeros: torn %d, %d bytes; want 1, %d bytes", cut, zeros, st.Torn, st.TornBytes, rest)
			}
			s.Close()
			if left := segments(t, dir, Alerts); len(left) != 0 {
				t.Fatalf("cut at %d: %q left when all is settled", cut, left)
			}
			os.Remove(filepath.Join(dir, "elasticsearch.alerts.cursor"))
		}
	}
}

// TestTornOnce finds a torn tail, and not again.
func TestTornOnce(t *testing.T) {
	image, _ := fill(t, 2)
	dir := t.TempDir()
	plant(t, dir, image[:len(image)-1])
	for torn := range 2 {
		s := open(t, dir, Options{})
		if st := checkSums(t, s); st.Torn != uint64(1-torn) || st.Recovered.Total() != 1 {
			t.Errorf("torn %d, recovered %v", st.Torn, st.Recovered)
		}
		s.Close()
	}
}

// TestDamageAtEveryByte flips each byte of a segment, except that of its version:
// the block that it is in is lost, and nothing else.
func TestDamageAtEveryByte(t *testing.T) {
	t.Parallel()
	image, ends := fill(t, 4)
	dir := t.TempDir()
	for at := 0; at < len(image); at += stride() {
		if at == len(formatName) {
			continue
		}
		for _, flip := range []byte{0x01, 0xFF} {
			damaged := append([]byte(nil), image...)
			damaged[at] ^= flip
			hit := 0
			for at >= ends[hit] {
				hit++
			}
			plant(t, dir, damaged)
			s := open(t, dir, Options{})
			got := drain(t, s)
			want, harm := []int{0, 1, 2, 3}, uint64(0)
			if at >= fileHeaderSize {
				want, harm = slices.Delete(want, hit, hit+1), 1
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("byte %d flipped: got %v, want %v", at, got, want)
			}
			st := checkSums(t, s)
			if st.Corrupt+st.Torn != harm {
				t.Fatalf("byte %d flipped: corrupt %d, torn %d", at, st.Corrupt, st.Torn)
			}
			s.Close()
			os.Remove(filepath.Join(dir, "elasticsearch.alerts.cursor"))
		}
	}
}

// TestDamageWhileOpen damages a record after Open has counted it.
func TestDamageWhileOpen(t *testing.T) {
	image, ends := fill(t, 5)
	for hit := range ends {
		dir := t.TempDir()
		plant(t, dir, image)
		s := open(t, dir, Options{})
		damaged := append([]byte(nil), image...)
		damaged[ends[hit]-1] ^= 0x20
		plant(t, dir, damaged)
		if got := drain(t, s); len(got) != 4 {
			t.Fatalf("record %d damaged: got %v", hit, got)
		}
		if st := checkSums(t, s); st.Corrupt != 1 || st.Dropped[output.Alert] != 1 || st.Recovered[output.Alert] != 5 {
			t.Fatalf("record %d damaged: %+v", hit, st)
		}
	}
}

// TestSegmentGone takes a segment away under an open spool.
func TestSegmentGone(t *testing.T) {
	for _, gone := range []int{0, 1, 2} {
		dir := t.TempDir()
		s := open(t, dir, Options{segment: 1})
		for i := range 3 {
			if err := s.Append(context.Background(), record(output.Alert, i)); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(segments(t, dir, Alerts)[gone]); err != nil {
			t.Fatal(err)
		}
		if got := drain(t, s); len(got) != 2 {
			t.Errorf("segment %d gone: got %v", gone, got)
		}
		if st := checkSums(t, s); st.Dropped[output.Alert] != 1 || st.Corrupt != 1 {
			t.Errorf("segment %d gone: %+v", gone, st)
		}
	}
}

// TestCursor damages the cursor, and takes it away.
func TestCursor(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(path string) error
		want    int
		corrupt uint64
	}{
		"kept":    {func(string) error { return nil }, 6, 0},
		"gone":    {os.Remove, 10, 0},
		"empty":   {func(p string) error { return os.WriteFile(p, nil, 0o600) }, 10, 1},
		"damaged": {func(p string) error { return os.WriteFile(p, []byte("oddcert-spool 1 1 99 00000000\n"), 0o600) }, 10, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			for i := range 10 {
				if err := s.Append(context.Background(), record(output.Alert, i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := next(context.Background(), s, Alerts, 7, 1<<20); err != nil {
				t.Fatal(err)
			}
			if err := settle(s, Alerts, 4); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if err := c.change(filepath.Join(dir, "elasticsearch.alerts.cursor")); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, Options{})
			got := drain(t, s)
			if len(got) != c.want || got[0] != 10-c.want {
				t.Errorf("got %v, want the last %d", got, c.want)
			}
			if st := checkSums(t, s); st.Corrupt != c.corrupt || st.Recovered.Total() != uint64(c.want) || st.Dropped.Total() != 0 {
				t.Errorf("corrupt %d, want %d; recovered %v, dropped %v", st.Corrupt, c.corrupt, st.Recovered, st.Dropped)
			}
		})
	}
}

// TestNumbersAfterCursor takes away all segments but not the cursor: new
// records must not count as settled.
func TestNumbersAfterCursor(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		s := open(t, dir, Options{})
		if err := s.Append(context.Background(), record(output.Alert, round)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = open(t, dir, Options{})
		if got := drain(t, s); len(got) != 1 || got[0] != round {
			t.Fatalf("round %d: got %v", round, got)
		}
		s.Close()
	}
}

// TestLock opens a spool twice.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if _, err := Open(dir, withOutput(Options{})); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("second open: %v", err)
	}
	s.Close()
	open(t, dir, Options{})
}

// TestUnknownFormat meets a segment of a later version, which must not be
// touched.
func TestUnknownFormat(t *testing.T) {
	image, _ := fill(t, 1)
	image[len(formatName)]++
	dir := t.TempDir()
	plant(t, dir, image)
	if _, err := Open(dir, withOutput(Options{})); err == nil || !strings.Contains(err.Error(), "format 3") {
		t.Fatalf("open: %v", err)
	}
	if b, err := os.ReadFile(segments(t, dir, Alerts)[0]); err != nil || string(b) != string(image) {
		t.Errorf("segment was changed: %v", err)
	}
}

// TestKill kills a process that appends, reads and settles, again and again in
// one directory. What it said was accepted comes out, unless it said that it
// was settled.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		accepted, taken, settled := map[string]bool{}, map[string]bool{}, map[string]bool{}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			word, id, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "accepted":
				accepted[id] = true
			case "taken":
				taken[id] = true
			case "settled":
				settled[id] = true
			default:
				t.Fatalf("child said %q", lines.Text())
			}
			if n == 700+100*round {
				cmd.Process.Kill() // and read on what it had said before
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("child: %v", err)
		}
		s := open(t, dir, Options{})
		found := map[string]bool{}
		s.Finish()
		for queue := range Queues {
			for {
				batch, err := next(context.Background(), s, queue, 100, 1<<20)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range batch {
					want := record(r.Dataset, int(r.Time))
					if r.ID != want.ID || string(r.JSON) != string(want.JSON) {
						t.Fatalf("got %+v %s", r, r.JSON)
					}
					if settled[r.ID] {
						t.Fatalf("round %d: %s was settled", round, r.ID)
					}
					found[r.ID] = true
				}
				if err := settle(s, queue, len(batch)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if st := checkSums(t, s); st.Missing != 0 {
			t.Errorf("round %d: %d records are said to be missing", round, st.Missing)
		}
		for id := range accepted {
			if !found[id] && !taken[id] {
				t.Fatalf("round %d: %s was accepted and is missing", round, id)
			}
		}
		s.Close()
	}
}

// child appends, reads and settles until it is killed, and says so: "accepted"
// after Sync, "taken" before Settle, "settled" after it.
func child(dir string) int {
	s, err := Open(dir, withOutput(Options{segment: 4000}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	say := func(word string, records []output.Record) {
		var b strings.Builder
		for _, r := range records {
			fmt.Fprintf(&b, "%s %s\n", word, r.ID)
		}
		os.Stdout.WriteString(b.String())
	}
	for queue := range Queues {
		go func() {
			for {
				batch, err := next(ctx, s, queue, 10, 1<<20)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				say("taken", batch)
				if err := settle(s, queue, len(batch)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				say("settled", batch)
			}
		}()
	}
	for n := 0; ; n += 25 {
		var records []output.Record
		for i := n; i < n+25; i++ {
			r := record(output.Dataset(i)%output.Datasets, i)
			if err := s.Append(ctx, r); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			records = append(records, *r)
		}
		if err := s.Sync(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		say("accepted", records)
	}
}
