package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// readFor reads captures into an inventory for a test.
func readFor(t testing.TB, paths ...string) *inventory.Store {
	t.Helper()
	cmd := &cobra.Command{}
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetContext(t.Context())
	var c config
	c.bind(cmd, cmd.Flags(), onInventory)
	s, err := readInventory(cmd, &c, paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// capturesBelow are the files of captures in a folder.
func capturesBelow(t testing.TB, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(filepath.Base(path), "cap") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestDisplayFilter has tshark find, with the filter of a sighting, the frame that the
// sighting names, and each frame of its TCP stream.
func TestDisplayFilter(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	paths := capturesBelow(t, "testdata/captures")
	if _, err := os.Stat(filepath.Join(corpusDir(), "captures")); err == nil && !testing.Short() {
		for _, below := range []string{"Lekensteyn+wireshark-notes", "FoxIO-LLC+ja4", "secdev+scapy", "seladb+PcapPlusPlus"} {
			if dir := filepath.Join(corpusDir(), "captures", below); isFolder(dir) {
				paths = append(paths, capturesBelow(t, dir)...)
			}
		}
	}
	filters, streams := 0, 0
	for _, path := range paths {
		asked := 0
		for s, err := range readFor(t, path).Sightings() {
			if err != nil {
				t.Fatal(err)
			}
			if asked++; asked > 2 {
				break
			}
			filter := frames.Filter(s.Last.Flow)
			shown := map[string]bool{}
			stream := ""
			for line := range strings.Lines(string(tsharkFields(t, tshark, path, filter, "frame.number", "tcp.stream"))) {
				number, of, _ := strings.Cut(strings.TrimSpace(line), "\t")
				if shown[number] = true; number == strconv.FormatUint(s.Last.Frame, 10) {
					stream = of
				}
			}
			filters++
			if !shown[strconv.FormatUint(s.Last.Frame, 10)] {
				t.Errorf("%s: frame %d is not shown with %s", path, s.Last.Frame, filter)
				continue
			}
			if stream == "" || strings.Contains(stream, ",") {
				continue
			}
			streams++
			for line := range strings.Lines(string(tsharkFields(t, tshark, path, "tcp.stream=="+stream, "frame.number"))) {
				if number := strings.TrimSpace(line); !shown[number] {
					t.Errorf("%s: frame %s of stream %s is not shown with %s", path, number, stream, filter)
				}
			}
		}
	}
	t.Logf("%d filters, %d of them of a TCP stream of tshark", filters, streams)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// tsharkFields are the values of fields in the frames that a display filter shows, one
// frame a line.
func tsharkFields(t testing.TB, tshark, path, filter string, fields ...string) []byte {
	t.Helper()
	args := []string{"-r", path, "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), tshark, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !strings.Contains(stderr.String(), "cut short") {
		t.Fatalf("tshark %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}
