//go:build unix

package capture

import (
	"encoding/binary"
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
