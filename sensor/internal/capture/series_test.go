package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// series reads paths, and returns the names of the files of each series, with
// the numbers of their packets where they are of one.
func series(t *testing.T, paths ...string) (all [][]string) {
	t.Helper()
	s, err := OpenFiles(paths, FileOptions{Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	last := 0
	for {
		b, err := s.Next()
		if err == io.EOF {
			return all
		}
		if b.Series != last {
			last = b.Series
			all = append(all, nil)
		}
		names := &all[len(all)-1]
		if name := filepath.Base(b.Origin.Path); !slices.Contains(*names, name) {
			*names = append(*names, name)
		}
		b.Release()
	}
}

// at is a capture of n packets, a second apart from sec on.
func at(sec uint32, n int) []byte {
	w := newPcap(binary.LittleEndian, magicMicro, 1)
	for i := range n {
		w.record(sec+uint32(i), 0, 60, payload(uint64(i), 60))
	}
	return w.out
}

// Files of one rotated capture are one series, wherever others lie between them;
// any other file is one of its own.
func TestSeries(t *testing.T) {
	type file struct {
		name string
		b    []byte
	}
	tun := newPcap(binary.LittleEndian, magicMicro, 101)
	tun.record(1100, 0, 60, payload(1, 60))
	mad := at(1100, 100)
	binary.LittleEndian.PutUint32(mad[pcapHeaderLen:], 4_000_000_000)
	madEnd := at(1000, 100)
	binary.LittleEndian.PutUint32(madEnd[len(madEnd)-76:], 0)
	for what, c := range map[string]struct {
		files []file
		want  [][]string
	}{
		"tcpdump -C":          {[]file{{"x.pcap", at(1000, 100)}, {"x.pcap1", at(1100, 100)}, {"x.pcap2", at(1200, 9)}}, [][]string{{"x.pcap", "x.pcap1", "x.pcap2"}}},
		"dumpcap -b":          {[]file{{"x_00001_20240101120000.pcap", at(1000, 100)}, {"x_00002_20240101120140.pcap", at(1100, 100)}}, [][]string{{"x_00001_20240101120000.pcap", "x_00002_20240101120140.pcap"}}},
		"tcpdump -G":          {[]file{{"x-2024-01-01T12:00:00.pcap", at(1000, 100)}, {"x-2024-01-01T12:01:40.pcap", at(1100, 100)}}, [][]string{{"x-2024-01-01T12:00:00.pcap", "x-2024-01-01T12:01:40.pcap"}}},
		"letters":             {[]file{{"xa", at(1000, 100)}, {"xb", at(1100, 100)}}, [][]string{{"xa", "xb"}}},
		"out of order":        {[]file{{"x0", at(1000, 100)}, {"x1", at(1099, 100)}}, [][]string{{"x0", "x1"}}},
		"silence":             {[]file{{"x0", at(1000, 100)}, {"x1", at(1300, 100)}}, [][]string{{"x0", "x1"}}},
		"one packet":          {[]file{{"x0", at(1000, 1)}, {"x1", at(1001, 1)}, {"x2", at(1002, 1)}}, [][]string{{"x0", "x1", "x2"}}},
		"two interfaces":      {[]file{{"eth0", at(1000, 100)}, {"eth1", at(1000, 100)}}, [][]string{{"eth0"}, {"eth1"}}},
		"a first that is mad": {[]file{{"x0", at(1000, 100)}, {"x1", mad}}, [][]string{{"x0", "x1"}}},
		"a last that is mad":  {[]file{{"x0", madEnd}, {"x1", at(1100, 100)}}, [][]string{{"x0", "x1"}}},
		"two rotated": {[]file{{"a0", at(1000, 100)}, {"b0", at(1000, 100)}, {"a1", at(1100, 100)}, {"b1", at(1100, 100)}},
			[][]string{{"a0", "a1"}, {"b0", "b1"}}},
		"long silence": {[]file{{"x0", at(1000, 100)}, {"x1", at(1500, 100)}}, [][]string{{"x0"}, {"x1"}}},
		"other names":  {[]file{{"left", at(1000, 100)}, {"right", at(1100, 100)}}, [][]string{{"left"}, {"right"}}},
		"other folder": {[]file{{"a/x0", at(1000, 100)}, {"b/x1", at(1100, 100)}}, [][]string{{"x0"}, {"x1"}}},
		"other link":   {[]file{{"x0", at(1000, 100)}, {"x1", tun.out}}, [][]string{{"x0"}, {"x1"}}},
		"no time":      {[]file{{"x0", at(0, 1)}, {"x1", at(0, 1)}}, [][]string{{"x0"}, {"x1"}}},
		"overlap":      {[]file{{"x0", at(1000, 100)}, {"x1", at(1050, 100)}}, [][]string{{"x0"}, {"x1"}}},
	} {
		dir := t.TempDir()
		var paths []string
		for _, f := range c.files {
			paths = append(paths, save(t, dir, f.name, f.b))
		}
		slices.Reverse(paths)
		for _, given := range [][]string{{dir}, paths} {
			if diff := diff(c.want, series(t, given...)); diff != "" {
				t.Errorf("%s: -want +got\n%s", what, diff)
			}
		}
	}
}

// Captures of all formats behind one another are read as one file after the other:
// all packets, numbered on, with the link type, the clock and the byte order of
// each; what does not go on is a series of its own.
func TestBehindOneAnother(t *testing.T) {
	parts := map[string][]byte{
		"micro":  at(1000, 50),
		"next":   at(1050, 50),
		"far":    at(9000, 50),
		"nano":   pcapSample(binary.BigEndian, magicNano, 101).out,
		"pcapng": ngSample().out,
		"empty":  newPcap(binary.LittleEndian, magicMicro, 1).out,
	}
	for first := range parts {
		for second := range parts {
			for _, slab := range []int{0, 1, 100} {
				got := read(t, slab, append(bytes.Clone(parts[first]), parts[second]...))
				a, b := read(t, 0, parts[first]), read(t, 0, parts[second])
				want := append(unclocked(a.Frames), unclocked(b.Frames)...)
				for i := range b.Frames {
					want[len(a.Frames)+i].Number += uint64(len(a.Frames))
				}
				if diff := diff(want, unclocked(got.Frames)); diff != "" {
					t.Errorf("%s, %s: -want +got\n%s", first, second, diff)
				}
				if len(got.Warnings) > 0 || got.Stats.Files != 1 {
					t.Errorf("%s, %s: %q, %+v", first, second, got.Warnings, got.Stats)
				}
			}
		}
	}
	for _, c := range []struct {
		parts  []string
		series int
	}{{[]string{"micro", "next"}, 1}, {[]string{"micro", "far"}, 2}, {[]string{"micro", "micro"}, 2}, {[]string{"micro", "next", "far", "micro"}, 3}} {
		var b []byte
		for _, part := range c.parts {
			b = append(b, parts[part]...)
		}
		if got := series(t, save(t, t.TempDir(), "f", b)); len(got) != c.series {
			t.Errorf("%q: %d series, want %d", c.parts, len(got), c.series)
		}
		if got := series(t, save(t, t.TempDir(), "f.gz", gzipped(b))); len(got) != c.series {
			t.Errorf("%q, compressed: %d series, want %d", c.parts, len(got), c.series)
		}
	}
}

// An ordinary capture is read as one, whatever its times are.
func TestOrdinaryWhateverItsTimes(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, magic := range []uint32{magicMicro, magicNano} {
			for _, secs := range [][]uint32{{0, aTime, aTime}, {aTime, 0, aTime}, {0, 0, 0}, {1 << 31, 1, aTime}, {1<<32 - 1, 0, 1 << 31}} {
				for _, frac := range []uint32{0, 999_999, 1_000_000, 4_000_000_000} {
					w := newPcap(order, magic, 1)
					for i := range 20 {
						w.record(secs[min(i, 2)], frac, 54, payload(uint64(i), 54))
					}
					got := read(t, 0, w.out)
					if len(got.Frames) != 20 || len(got.Warnings) > 0 {
						t.Errorf("%v %#x, seconds %d, fraction %d: %d frames, %q", order, magic, secs, frac, len(got.Frames), got.Warnings)
					}
				}
			}
		}
	}
}

func TestSnoop(t *testing.T) {
	b := snoopSample()
	path := save(t, t.TempDir(), "f", b)
	got := readFiles(t, 0, path)
	if len(got.Frames) != 4 || len(got.Warnings) > 0 {
		t.Fatalf("%d frames, %q", len(got.Frames), got.Warnings)
	}
	if f := got.Frames[3]; len(f.Data) != 300 || f.Length != 400 || f.Time != (aTime+3)*1e9+7000 || f.LinkType != linktype.Ethernet || f.Number != 4 {
		t.Errorf("%+v", f)
	}
	if n := compareTshark(t, path, got.Frames); n != 0 {
		t.Errorf("%d frames fewer than tshark", n)
	}
	for n := range len(b) {
		if got := read(t, 0, b[:n]); len(got.Frames) == 4 || len(got.Warnings) > 1 {
			t.Errorf("%d of %d bytes: %d frames, %q", n, len(b), len(got.Frames), got.Warnings)
		}
	}
}

func TestBzip2(t *testing.T) {
	program, err := exec.LookPath("bzip2")
	if err != nil {
		t.Skip("bzip2 is not installed")
	}
	b := pcapSample(binary.LittleEndian, magicMicro, 1).out
	cmd := exec.Command(program, "-c")
	cmd.Stdin = bytes.NewReader(b)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := diff(read(t, 0, b).Frames, read(t, 0, packed).Frames); diff != "" {
		t.Error(diff)
	}
}

// A pipe yields an empty batch while nothing comes, and all that comes.
func TestPipeIsFollowed(t *testing.T) {
	b := at(1000, 50)
	r, w := io.Pipe()
	a := readAhead(io.NopCloser(r))
	a.patience = time.Millisecond
	f := newFile("f", a, &slabs{size: slabSize})
	go func() {
		for i := 0; i < len(b); i += 100 {
			time.Sleep(3 * time.Millisecond)
			w.Write(b[i:min(i+100, len(b))])
		}
		w.Close()
	}()
	frames, idle := 0, 0
	for {
		batch, err := f.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if frames += len(batch.Frames); len(batch.Frames) == 0 {
			idle++
		}
	}
	if frames != 50 || idle == 0 {
		t.Errorf("%d frames, %d times nothing", frames, idle)
	}
}

func TestFoldersOfOtherThings(t *testing.T) {
	dir := t.TempDir()
	can := newPcap(binary.LittleEndian, magicMicro, 227)
	can.record(1, 0, 16, payload(1, 16))
	for i, b := range [][]byte{nil, []byte("text"), []byte("text of some length, no capture"), []byte("\x89PNG\r\n\x1a\n0123456789"), can.out, gzipped([]byte("text"))} {
		save(t, dir, fmt.Sprint("other", i), b)
	}
	save(t, dir, "capture", at(1000, 3))
	got := readFiles(t, 0, dir)
	if len(got.Frames) != 3 || len(got.Warnings) > 0 || got.Stats.Files != 1 || got.Stats.Skipped != 6 || got.Stats.Foreign != 1 || got.Stats.Ignored != 0 || got.Stats.Broken != 0 {
		t.Errorf("%d frames, %q, %+v", len(got.Frames), got.Warnings, got.Stats)
	}
	// What was asked for by name is another thing.
	got = readFiles(t, 0, filepath.Join(dir, "other2"), filepath.Join(dir, "other4"))
	if len(got.Warnings) != 2 || got.Stats.Broken != 1 || got.Stats.Ignored != 1 || got.Stats.Foreign != 0 || got.Stats.Skipped != 0 {
		t.Errorf("%q, %+v", got.Warnings, got.Stats)
	}
	for _, f := range unreadable {
		got := read(t, 0, append([]byte(f.magic), make([]byte, 100)...))
		if len(got.Warnings) != 1 || got.Stats.Broken != 1 || got.Warnings[0] != "read f: offset 0: "+f.err.Error() {
			t.Errorf("%q: %q", f.magic, got.Warnings)
		}
	}
}
