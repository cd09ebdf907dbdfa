package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// said is a log that can be read while it is written.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *said) log() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// until waits for what takes a moment.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// Errors are those of the kernel: a reader who went away, a disk that is full.
// Each is said, each line that is lost is counted, and only the reader is
// given up.
func TestSinkErrors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for f, want := range map[*os.File]error{w: syscall.EPIPE, full: syscall.ENOSPC} {
		var log said
		s := NewSink(f, SinkOptions{Name: "there", What: "records", Log: log.log()})
		const lines = 100
		for range lines {
			if _, err := s.Write([]byte("line\n")); err != nil && !errors.Is(err, want) {
				t.Errorf("write: %v, want %v", err, want)
			}
			s.Flush()
		}
		until(t, "the error to be said", func() bool { return strings.Contains(log.String(), want.Error()) })
		if _, err := s.Write([]byte("line\n")); errors.Is(err, ErrGone) != (f == w) {
			t.Errorf("%v: %v", want, err)
		}
		err := s.Close(t.Context())
		if !errors.Is(err, want) || !strings.Contains(err.Error(), fmt.Sprintf("%d lost", lines+1)) || s.Lost() != lines+1 {
			t.Errorf("close: %v", err)
		}
	}
}

// A reader who does not read stops nobody who must not wait: what has no room is
// lost, counted and said; what he reads then is whole lines.
func TestSinkBlocked(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var log said
	s := NewSink(w, SinkOptions{Name: "there", What: "records", Log: log.log()})
	line := append(bytes.Repeat([]byte("x"), 9999), '\n')
	const lines = 2 * maxSinkQueue / 10_000
	lost := uint64(0)
	for range lines {
		if _, err := s.Write(line); err != nil {
			lost++
		}
	}
	if lost == 0 || !strings.Contains(log.String(), "cannot be written") {
		t.Fatalf("%d lost, said %q", lost, log.String())
	}
	got := make(chan int)
	go func() {
		n := 0
		defer func() { got <- n }()
		buf := make([]byte, len(line))
		for {
			if _, err := io.ReadFull(r, buf); err != nil || !bytes.Equal(buf, line) {
				return
			}
			n++
		}
	}()
	until(t, "the sink to write again", func() bool { return strings.Contains(log.String(), "written again") })
	if err := s.Close(t.Context()); err == nil || s.Lost() != lost {
		t.Errorf("close: %v; %d lost, counted %d", err, lost, s.Lost())
	}
	w.Close()
	if n := <-got; uint64(n)+lost != lines {
		t.Errorf("%d read and %d lost of %d", n, lost, lines)
	}
	if !strings.Contains(log.String(), fmt.Sprintf("lost=%d", lost)) {
		t.Errorf("said %q, not %d", log.String(), lost)
	}
}

// One who may wait waits for a reader who does not read, until it is late.
func TestSinkWaits(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	late, cancel := context.WithCancel(t.Context())
	s := NewSink(w, SinkOptions{Block: true, Late: late})
	line := append(bytes.Repeat([]byte("x"), 9999), '\n')
	var written, lost uint64
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for range 1000 {
			if _, err := s.Write(line); err != nil {
				lost++
			} else {
				written++
			}
		}
	}()
	select {
	case <-ended:
		t.Fatal("did not wait")
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	<-ended
	if err := s.Close(late); err == nil || s.Lost() != written+lost || lost == 0 {
		t.Errorf("close: %v; %d lost of %d", err, s.Lost(), written+lost)
	}
}

// A file that was moved away is opened anew between two lines.
func TestSinkReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines")
	open := func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) }
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	var log said
	s := NewSink(f, SinkOptions{Block: true, Open: open, Log: log.log()})
	const lines = 10_000
	for i := range lines {
		if i%1000 == 500 {
			if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
				t.Fatal(err)
			}
			s.Reopen()
			until(t, "the file", func() bool { _, err := os.Stat(path); return err == nil })
		}
		if _, err := fmt.Fprintf(s, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 11 {
		t.Errorf("%d files, %v", len(files), err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			seen[line] = true
		}
	}
	for i := range lines {
		if !seen[fmt.Sprintf("line %d\n", i)] {
			t.Fatalf("line %d is missing", i)
		}
	}
}
