package logfile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// TestKill kills a process that writes, at random moments, again and again. In the
// end each record is there once, in all files, also where they were rotated.
func TestKill(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	for range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan() // it has begun
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		cmd.Process.Kill()
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("child: %v", err)
		}
	}
	// What was written and not settled is written again by the last process.
	cursors := [2]int{readCursor(dir, 0), readCursor(dir, 1)}
	d := open(t, childConfig(dir), childFormat{})
	again := 0
	for queue, at := range cursors {
		n := send(t, d, queued(queue, at, childBatch))
		again += n[delivery.Duplicate]
	}
	d.Close()
	for file, name := range []string{"a", "b"} {
		found := map[string]int{}
		for _, path := range glob(t, filepath.Join(dir, "logs", name+"*.log")) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				if id, _, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && strings.HasSuffix(line, "\n") {
					found[id]++
				} else if !strings.HasPrefix(line, "#") {
					t.Fatalf("%s has the line %q", path, line)
				}
			}
		}
		want := 0
		for queue, at := range cursors {
			for _, r := range queued(queue, 0, at+childBatch) {
				if file == 1 && r.Time%3 != 0 {
					continue
				}
				want++
				if found[r.ID] != 1 {
					t.Errorf("in %s.log, record %s is there %d times", name, r.ID, found[r.ID])
				}
			}
		}
		if len(found) != want {
			t.Errorf("%s.log has %d records, want %d", name, len(found), want)
		}
	}
	t.Logf("%d and %d records in %d files; %d were there at the end and came again", cursors[0], cursors[1],
		len(glob(t, filepath.Join(dir, "logs", "*.log"))), again)
}

const (
	childEnv   = "ODDCERT_LOGFILE_CHILD"
	childBatch = 200
)

func childConfig(dir string) Config {
	return Config{Path: filepath.Join(dir, "logs"), RotateSize: minRotateSize}
}

// childFormat has a header and two files: a third of the records are in both.
type childFormat struct{}

func (childFormat) Files() []File {
	header := func(at time.Time) []byte { return []byte("#fields\n#types\n") }
	return []File{{Name: "a.log", Header: header}, {Name: "b.log", Header: header}}
}

func (childFormat) Format(r *output.Record, emit func(int, []byte)) error {
	emit(0, r.JSON)
	if r.Time%3 == 0 {
		emit(1, r.JSON)
	}
	return nil
}

// queued returns records of a queue.
func queued(queue, from, n int) (all []*output.Record) {
	for i := from; i < from+n; i++ {
		id := fmt.Sprintf("%d-%d", queue, i)
		all = append(all, &output.Record{ID: id, Time: int64(i), JSON: []byte(id + " " + strings.Repeat("x", i%997))})
	}
	return all
}

func cursorPath(dir string, queue int) string {
	return filepath.Join(dir, fmt.Sprintf("cursor%d", queue))
}

func readCursor(dir string, queue int) int {
	b, _ := os.ReadFile(cursorPath(dir, queue))
	if len(b) < 8 {
		return 0
	}
	return int(binary.BigEndian.Uint64(b))
}

// child does what the engine does with two queues, until it is killed: it sends a
// batch and moves the cursor of its queue.
func child(dir string) error {
	d, err := New(childConfig(dir), childFormat{}, nil)
	if err != nil {
		return err
	}
	fmt.Println("begun")
	failed := make(chan error)
	for queue := range 2 {
		go func() {
			for at := readCursor(dir, queue); ; {
				records := queued(queue, at, childBatch)
				if t := d.Send(context.Background(), records, make([]delivery.Verdict, len(records))); t != nil {
					failed <- t.Err
				}
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
				at += len(records)
				next := cursorPath(dir, queue) + ".new"
				if err := os.WriteFile(next, binary.BigEndian.AppendUint64(nil, uint64(at)), 0o600); err != nil {
					failed <- err
				}
				if err := os.Rename(next, cursorPath(dir, queue)); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("one\ntwo\nthr"), false)
	f.Add([]byte("ee\nfour\n"), true)
	f.Add([]byte("\n\n"), false)
	f.Add([]byte("#close\t2026-11-29-00-00-00-and-so-on\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, partial bool) {
		got, err := readTail(bytes.NewReader(b), partial)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(b, []byte("\n"))
		torn := lines[len(lines)-1]
		lines = lines[:len(lines)-1]
		if partial && len(lines) > 0 {
			lines = lines[1:]
		}
		var sums []sum
		var last []byte
		for _, line := range lines {
			sums = append(sums, sumOf(line))
			last = line[:min(len(line), lineBegin)]
		}
		if !slices.Equal(got.sums, sums) || !bytes.Equal(got.last, last) || got.torn != int64(len(torn)) {
			t.Errorf("%q: %d lines, %q at the end, %d bytes torn", b, len(got.sums), got.last, got.torn)
		}
	})
}

// TestTailIsBounded reads more lines than are remembered.
func TestTailIsBounded(t *testing.T) {
	var b []byte
	const n = 3*tailLines + 17
	for i := range n {
		b = fmt.Appendf(b, "%d\n", i)
	}
	got, err := readTail(bytes.NewReader(b), false)
	if err != nil || len(got.sums) != tailLines || got.sums[tailLines-1] != sumOf(fmt.Appendf(nil, "%d\n", n-1)) ||
		got.sums[0] != sumOf(fmt.Appendf(nil, "%d\n", n-tailLines)) {
		t.Errorf("%d lines, %v", len(got.sums), err)
	}
}
