//go:build linux

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// written is what was written so far, for any goroutine to look at.
type written struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.Write(b)
}

func (w *written) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.all.Bytes())
}

// piped begins to replay a pipe. It returns the end to write on, what the program
// writes, and how to get its exit status.
func piped(t *testing.T, args ...string) (in io.WriteCloser, out *written, wait func() int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin = r
	out = new(written)
	status := make(chan int, 1)
	go func() {
		status <- run(append([]string{"replay", "--json", "-"}, append(args, "-")...), out, io.Discard)
	}()
	t.Cleanup(func() { w.Close(); os.Stdin = stdin })
	return w, out, func() int { return <-status }
}

// What comes through a pipe is told when nothing more comes for a while, and is
// the same in the end however it came.
func TestPipe(t *testing.T) {
	path := filepath.Join(capturesDir, "tls12-chain", "capture.pcap")
	capture, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := replayed(t, "--records", "handshake", path)
	for _, workers := range []string{"1", "2", "8"} {
		in, out, wait := piped(t, "--records", "handshake", "--workers", workers)
		// In halves, with silence between them and at the end.
		for _, part := range [][]byte{capture[:len(capture)/2], capture[len(capture)/2:]} {
			before := len(out.bytes())
			if _, err := in.Write(part); err != nil {
				t.Fatal(err)
			}
			if n := len(out.bytes()); n < before {
				t.Fatal("what was written is gone")
			}
		}
		waitFor(t, "the records, with the pipe still open", func() bool { return len(records(t, out.bytes())) == len(want) })
		in.Close()
		if status := wait(); status != exitOK {
			t.Errorf("%s workers: exit status %d", workers, status)
		}
		if got := handshakes(records(t, out.bytes())); len(got) != len(want) || !slices.EqualFunc(got, handshakes(want), func(a, b handshake) bool {
			return a.Certificates == b.Certificates && slices.Equal(a.Chain, b.Chain)
		}) {
			t.Errorf("%s workers: %+v, want %+v", workers, got, want)
		}
	}
}

// A key log may be written after the packets that come through a pipe.
func TestPipeKeys(t *testing.T) {
	k := keyed(t, 3)
	log := write(t, "keys.log", nil)
	in, out, wait := piped(t, "--records", "handshake", "--keys", log)
	if _, err := in.Write(k.pcap()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(k.log); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the certificates, with the pipe still open", func() bool {
		n := 0
		for _, h := range handshakes(records(t, out.bytes())) {
			if h.Certificates == "extracted" {
				n++
			}
		}
		return n == 3
	})
	in.Close()
	if status := wait(); status != exitOK {
		t.Errorf("exit status %d", status)
	}
}
