package pipeline

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// What is told once is told once in each capture: a capture has the same records
// alone and among others, whatever the number of workers, and whatever certificates,
// servers and hellos the others share with it.
func TestToldInEachCapture(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"a.pcap", "b.pcap"} {
		made, _ := generate(t, named(t, "clean", 0.02)) // the same servers and clients in both
		text, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	var alone []byte
	for _, path := range paths {
		alone = append(alone, withoutStats(replay(t, 1, flow.DefaultLimits, path).lines)...)
	}
	for _, once := range []string{"certificate", "sighting", "hello"} {
		if n := bytes.Count(alone, []byte(`"oddcert.`+once+`"`)); n == 0 || n%2 != 0 {
			t.Errorf("%d records of %s in two captures of the same servers and clients", n, once)
		}
	}
	for _, workers := range []int{1, 2, 8} {
		together := withoutStats(replay(t, workers, flow.DefaultLimits, paths...).lines)
		if !bytes.Equal(together, alone) {
			t.Errorf("%d workers: %d bytes together, %d alone", workers, len(together), len(alone))
		}
	}
}

func withoutStats(lines []byte) (rest []byte) {
	for line := range bytes.Lines(lines) {
		if !bytes.Contains(line, []byte(`"oddcert.stats"`)) {
			rest = append(rest, line...)
		}
	}
	return rest
}
