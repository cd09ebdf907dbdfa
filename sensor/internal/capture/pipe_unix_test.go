//go:build unix

package capture

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamedPipe(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := unix.Mkfifo("pipe", 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	sample := pcapSample(binary.LittleEndian, magicMicro, 1)
	save(t, ".", "f", sample.out)
	go os.WriteFile("pipe", sample.out, 0o600)
	got := readFiles(t, 0, "pipe", "f")
	if want := []string{"f", "pipe"}; !slices.Equal(slices.Compact(got.Origins), want) || len(got.Frames) != 2*sample.count {
		t.Errorf("%q, %+v", got.Origins, got.Stats)
	}
}

// The secrets of a pipe come where they stand, when what was before is over.
func TestSecretsPipe(t *testing.T) {
	sample, pipe := secretsSample(), filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	go func() {
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		for part := range slices.Chunk(sample, 1000) {
			f.Write(part)
		}
	}()
	if _, want := secretsOrders(); !slices.Equal(chronicle(t, pipe), want) {
		t.Error("not in order")
	}
}

// TestPipeWaits has a pipe that nobody writes to, and one of which not even the beginning
// comes: Next says that time has passed, as it does later, so whoever reads can stop. What
// was read before goes out, and what comes then is read.
func TestPipeWaits(t *testing.T) {
	sample, pipe := pcapSample(binary.LittleEndian, magicMicro, 1), filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	s, err := OpenFiles([]string{pipe}, FileOptions{Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	idle := func() {
		t.Helper()
		if b, err := s.Next(); err != nil || len(b.Frames) > 0 {
			t.Fatalf("%v, %v", b, err)
		}
	}
	idle()
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	idle()
	w.Write(sample.out[:3])
	idle()
	w.Write(sample.out[3:])
	w.Close()
	frames := 0
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		frames += len(b.Frames)
		b.Release()
	}
	if s.Close(); frames != sample.count || s.Stats().Files != 1 {
		t.Errorf("%d frames of %d, %+v", frames, sample.count, s.Stats())
	}

	// One that is closed while it is waited for is closed when it is open.
	if s, err = OpenFiles([]string{pipe}, FileOptions{}); err != nil {
		t.Fatal(err)
	}
	idle()
	s.Close()
	if w, err = os.OpenFile(pipe, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for err = nil; err == nil; { // until nobody has it open: EPIPE
		_, err = w.Write(sample.out[:1])
	}
	if !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
}
