package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
		var names, wanted []string // of each sighting: the frame that it names, and its filter
		for s, err := range readFor(t, path).Sightings() {
			if err != nil {
				t.Fatal(err)
			}
			if len(wanted) == 2 {
				break
			}
			names, wanted = append(names, strconv.FormatUint(s.Last.Frame, 10)), append(wanted, frames.Filter(s.Last.Flow))
		}
		if len(wanted) == 0 {
			continue
		}
		shown, streamsOf := tsharkShows(t, tshark, path, wanted)
		filters += len(wanted)
		for i, filter := range wanted {
			if !shown[i][names[i]] {
				t.Errorf("%s: frame %s is not shown with %s", path, names[i], filter)
				continue
			}
			if len(streamsOf[names[i]]) != 1 {
				continue
			}
			streams++
			stream := streamsOf[names[i]][0]
			for number, of := range streamsOf {
				if slices.Contains(of, stream) && !shown[i][number] {
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

// showsScript has tshark say of each frame which TCP streams it belongs to, and which of
// the filters that are its arguments show it: one run for all of them, as tshark takes
// longer to start than to read most captures.
const showsScript = `
local stream = Field.new("tcp.stream")
local every = Listener.new("frame")
function every.packet(frame)
  local line = {"streams", frame.number}
  for _, of in ipairs({stream()}) do
    line[#line + 1] = tostring(of)
  end
  print(table.concat(line, " "))
end
for i, filter in ipairs({...}) do
  local shows = Listener.new("frame", filter)
  function shows.packet(frame)
    print(i - 1, frame.number)
  end
end
`

// tsharkShows are the numbers of the frames that each display filter shows, and the TCP
// streams of every frame.
func tsharkShows(t *testing.T, tshark, path string, filters []string) (shown []map[string]bool, streams map[string][]string) {
	t.Helper()
	args := []string{"-q", "-r", path, "-X", "lua_script:" + write(t, "shows.lua", []byte(showsScript))}
	for _, f := range filters {
		args = append(args, "-X", "lua_script1:"+f)
		shown = append(shown, map[string]bool{})
	}
	streams = map[string][]string{}
	for line := range strings.Lines(string(runTshark(t, tshark, args...))) {
		f := strings.Fields(line)
		if f[0] == "streams" {
			streams[f[1]] = f[2:]
			continue
		}
		i, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		shown[i][f[1]] = true
	}
	return shown, streams
}

// tsharkFields are the values of fields in the frames that a display filter shows, one
// frame a line.
func tsharkFields(t testing.TB, tshark, path, filter string, fields ...string) []byte {
	t.Helper()
	args := []string{"-r", path, "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	return runTshark(t, tshark, args...)
}

// runTshark is what tshark prints, also of a capture whose end is missing.
func runTshark(t testing.TB, tshark string, args ...string) []byte {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), tshark, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !strings.Contains(stderr.String(), "cut short") {
		t.Fatalf("tshark %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}
