package capture

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/klauspost/compress/zstd"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// result is all that a source of files said.
type result struct {
	Frames   []Frame
	Origins  []string // of each frame: path, or path[interface]
	Warnings []string
	Stats    Stats
}

// drain reads s to its end; warnings are those that s puts out.
func drain(t testing.TB, s *Files, warnings *[]string) result {
	t.Helper()
	var r result
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		if len(b.Frames) == 0 {
			t.Fatal("empty batch")
		}
		for _, f := range b.Frames {
			f.Data = bytes.Clone(f.Data)
			r.Frames = append(r.Frames, f)
			origin := b.Origin.Path
			if b.Origin.Interface != "" {
				origin += "[" + b.Origin.Interface + "]"
			}
			r.Origins = append(r.Origins, origin)
		}
		b.Release()
	}
	if _, err := s.Next(); err != io.EOF {
		t.Errorf("Next after the end: %v", err)
	}
	r.Stats = s.Stats()
	size := 0
	for _, f := range r.Frames {
		size += len(f.Data)
	}
	if r.Stats.Frames != uint64(len(r.Frames)) || r.Stats.Bytes != uint64(size) {
		t.Errorf("%d frames of %d bytes, counted as %+v", len(r.Frames), size, r.Stats)
	}
	r.Warnings = *warnings
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	return r
}

// readFiles reads paths with slabs of a size; 0 is the usual one.
func readFiles(t testing.TB, size int, paths ...string) result {
	t.Helper()
	warnings := []string{}
	s, err := OpenFiles(paths, FileOptions{Warn: func(err error) { warnings = append(warnings, err.Error()) }})
	if err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		s.slabs.size = size
	}
	return drain(t, s, &warnings)
}

// diff says how got differs from want, after a quick look whether it does.
func diff[T any](want, got T) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// unclocked is frames without flow time, which others do not know.
func unclocked(frames []Frame) []Frame {
	frames = slices.Clone(frames)
	for i := range frames {
		frames[i].Clock = 0
	}
	return frames
}

func begins(whole, part []Frame) bool {
	return len(part) == 0 || len(part) <= len(whole) && reflect.DeepEqual(whole[:len(part)], part)
}

func save(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read reads a file of these bytes; its name in warnings is "f".
func read(t testing.TB, size int, b []byte) result {
	t.Helper()
	t.Chdir(t.TempDir())
	save(t, ".", "f", b)
	return readFiles(t, size, "f")
}

// packetReader is what both of pcapgo's readers are.
type packetReader interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// pcapgoFrames reads b with gopacket's readers.
func pcapgoFrames(t *testing.T, b []byte) (frames []Frame) {
	t.Helper()
	var r packetReader
	var link func(gopacket.CaptureInfo) linktype.Type
	if binary.LittleEndian.Uint32(b) == blockSection {
		ng, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			t.Fatal(err)
		}
		link = func(ci gopacket.CaptureInfo) linktype.Type {
			return linktype.Type(ci.AncillaryData[0].(layers.LinkType))
		}
		r = ng
	} else {
		old, err := pcapgo.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		link = func(gopacket.CaptureInfo) linktype.Type { return linktype.Type(old.LinkType()) }
		r = old
	}
	for {
		data, ci, err := r.ReadPacketData()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, Frame{
			Data:     data,
			Time:     ci.Timestamp.UnixNano(),
			Number:   uint64(len(frames) + 1),
			Length:   uint32(max(ci.Length, ci.CaptureLength)),
			LinkType: link(ci),
		})
	}
}

// tsharkFrame is what tshark says of a frame.
type tsharkFrame struct {
	time             int64
	timed            bool // simple packets are not
	length, captured int
}

// tsharkFrames reads path with tshark: frames by number.
func tsharkFrames(t *testing.T, path string) map[uint64]tsharkFrame {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is not installed")
	}
	cmd := exec.Command("tshark", "-n", "-r", path, "-T", "fields",
		"-e", "frame.number", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len")
	out, err := cmd.Output() // an error where the file is damaged
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	frames := make(map[uint64]tsharkFrame)
	for line := range strings.Lines(string(out)) {
		col := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(col) != 4 {
			t.Fatalf("tshark said %q", line)
		}
		var f tsharkFrame
		number, _ := strconv.ParseUint(col[0], 10, 64)
		if sec, frac, ok := strings.Cut(col[1], "."); ok {
			s, _ := strconv.ParseInt(sec, 10, 64)
			ns, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
			f.time, f.timed = math.MaxInt64, true
			if s < 9_223_372_036 { // what an int64 of nanoseconds holds
				f.time = s*1e9 + ns
			}
		}
		f.length, _ = strconv.Atoi(col[2])
		f.captured, _ = strconv.Atoi(col[3])
		frames[number] = f
	}
	return frames
}

// compareTshark compares frames with tshark's of the file at path. It returns
// how many of tshark's frames are not in got.
func compareTshark(t *testing.T, path string, got []Frame) (missing int) {
	t.Helper()
	want := tsharkFrames(t, path)
	for _, f := range got {
		w, ok := want[f.Number]
		switch {
		case !ok:
			t.Errorf("%s: tshark has no frame %d", path, f.Number)
		case len(f.Data) != w.captured || int(f.Length) != max(w.length, w.captured):
			t.Errorf("%s: frame %d: %d of %d bytes, tshark says %d of %d", path, f.Number, len(f.Data), f.Length, w.captured, w.length)
		case w.timed && f.Time != w.time:
			t.Errorf("%s: frame %d: time %d, tshark says %d", path, f.Number, f.Time, w.time)
		}
		delete(want, f.Number)
	}
	return len(want)
}

func TestPcapAsGopacketReadsIt(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, magic := range []uint32{magicMicro, magicNano} {
			for _, link := range []linktype.Type{linktype.Null, linktype.Ethernet, linktype.Raw, linktype.LinuxSLL} {
				b := pcapSample(order, magic, uint32(link)).out
				got := read(t, 0, b)
				if diff := diff(pcapgoFrames(t, b), unclocked(got.Frames)); diff != "" {
					t.Errorf("%v %#x %d: -gopacket +ours\n%s", order, magic, link, diff)
				}
				if len(got.Warnings) > 0 || got.Stats.Files != 1 {
					t.Errorf("%v %#x %d: %q, %+v", order, magic, link, got.Warnings, got.Stats)
				}
			}
		}
	}
}

// What gopacket cannot read.
func TestPcapAsTsharkReadsIt(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := pcapSample(order, magicModified, 1).out
		got := read(t, 0, b)
		plain := read(t, 0, pcapSample(order, magicMicro, 1).out)
		if diff := diff(plain.Frames, got.Frames); diff != "" {
			t.Errorf("%v: -plain +modified\n%s", order, diff)
		}
		path := save(t, t.TempDir(), "modified.pcap", b)
		if n := compareTshark(t, path, got.Frames); n != 0 {
			t.Errorf("%v: %d frames fewer than tshark", order, n)
		}
	}
}

func TestLinkTypeOfFile(t *testing.T) {
	for _, c := range []struct {
		file uint32
		want linktype.Type
	}{
		{1, linktype.Ethernet}, {0xf4000001, linktype.Ethernet}, // with a frame check sequence of 4 bytes
		{12, linktype.Raw}, {14, linktype.Raw}, {101, linktype.Raw}, {50, linktype.PPP}, {276, linktype.LinuxSLL2},
	} {
		got := read(t, 0, pcapSample(binary.BigEndian, magicMicro, c.file).out)
		if len(got.Frames) == 0 || got.Frames[0].LinkType != c.want {
			t.Errorf("%#x: %+v", c.file, got.Stats)
		}
	}
}

func TestNgAsGopacketReadsIt(t *testing.T) {
	// As gopacket writes it.
	var out bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&out, pcapgo.NgInterface{Name: "eth7", LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, pcapgo.NgWriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tun, err := w.AddInterface(pcapgo.NgInterface{Name: "tun7", LinkType: layers.LinkTypeRaw, TimestampResolution: 6})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		n := i * i
		if err := w.WritePacket(gopacket.CaptureInfo{
			Timestamp: time.Unix(aTime, int64(i)*1_000_001), CaptureLength: n, Length: n + i, InterfaceIndex: i % 2 * tun,
		}, payload(uint64(i), n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	files := map[string][]byte{"pcapgo": out.Bytes(), "sample": ngSample().out, "clocks": clockSample(3, 6, 7, 9, 12)}
	for name, b := range files {
		got := read(t, 0, b)
		want := pcapgoFrames(t, b)
		for i := range want {
			if want[i].LinkType == linktype.LinuxSLL { // gopacket rounds binary fractions twice; tshark does not
				want[i].Time = got.Frames[i].Time
			}
		}
		if diff := diff(want, unclocked(got.Frames)); diff != "" {
			t.Errorf("%s: -gopacket +ours\n%s", name, diff)
		}
		if len(got.Warnings) > 0 || got.Stats.Files != 1 {
			t.Errorf("%s: %q, %+v", name, got.Warnings, got.Stats)
		}
	}
}

// clockSample is a pcapng file with an interface of each of these resolutions.
func clockSample(resolutions ...uint8) []byte {
	w := &builder{}
	w.section(binary.BigEndian)
	for id, resolution := range resolutions {
		w.iface(1, 0, "", resolution, 17)
		for i := range uint64(50) {
			w.enhanced(uint32(id), aTime<<4+i*i*i*i*7919, 4, payload(i, 4), "")
		}
	}
	return w.out
}

func TestNgAsTsharkReadsIt(t *testing.T) {
	simple := &builder{}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		simple.section(order)
		simple.iface(1, 64, "eth0", 6, 0)
		simple.simple(1000, payload(1, 64))
		simple.enhanced(0, aTime*1e6, 60, payload(2, 60), "")
		simple.simple(61, payload(3, 61))
	}
	counted := &builder{}
	counted.section(binary.LittleEndian)
	counted.iface(1, 0, "", 6, 0)
	for i, kind := range []uint32{9, 0xbad, 0x40000bad, 0x7777, 11} {
		counted.enhanced(0, aTime*1e6+uint64(i), 60, payload(uint64(i), 60), "")
		counted.block(kind, 0, func() { counted.u32(32473).raw([]byte("__REALTIME_TIMESTAMP=1645461580000000\n")) })
	}
	counted.enhanced(0, aTime*1e6+9, 64, payload(9, 64), "")

	for name, c := range map[string]struct {
		b       []byte
		missing int
	}{
		"sample":  {ngSample().out, 0},
		"simple":  {simple.out, 0},
		"counted": {counted.out, 3},
		"clocks":  {clockSample(0x80|10, 0x80|20, 0x80|32, 3, 9), 0},
	} {
		got := read(t, 0, c.b)
		path := save(t, t.TempDir(), name, c.b)
		if n := compareTshark(t, path, got.Frames); n != c.missing {
			t.Errorf("%s: %d frames fewer than tshark, want %d", name, n, c.missing)
		}
	}
}

// A simple packet has the time of the one before it in its section.
func TestSimplePacketTime(t *testing.T) {
	w := &builder{}
	w.section(binary.LittleEndian)
	w.iface(1, 0, "", 6, 0)
	w.iface(1, 0, "", 9, 0)
	w.simple(60, payload(1, 60))
	w.enhanced(1, aTime*1e9, 60, payload(2, 60), "")
	w.simple(60, payload(3, 60))
	w.section(binary.LittleEndian)
	w.iface(1, 0, "", 6, 0)
	w.simple(60, payload(4, 60))
	var times []int64
	for _, f := range read(t, 0, w.out).Frames {
		times = append(times, f.Time)
	}
	if want := []int64{0, aTime * 1e9, aTime * 1e9, 0}; !slices.Equal(times, want) {
		t.Errorf("times %d, want %d", times, want)
	}
}

// The clock against arithmetic without limits.
func TestNgClock(t *testing.T) {
	stamps := []uint64{0, 1, 999, 1e6, 1e9 + 1, aTime * 1e6, aTime * 1e9, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64}
	for i := range 64 {
		stamps = append(stamps, aTime<<i)
	}
	for _, offset := range []int64{0, -3600, 4e9, 5e9, -5e9} {
		for resolution := range 256 {
			c := newNgClock(uint8(resolution), offset)
			unit := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(resolution)), nil))
			if resolution >= 0x80 {
				unit.SetInt(new(big.Int).Lsh(big.NewInt(1), uint(resolution&0x7f)))
			}
			for _, ts := range stamps {
				ns := new(big.Rat).SetInt(new(big.Int).SetUint64(ts))
				ns.Mul(ns, big.NewRat(1e9, 1)).Quo(ns, unit)
				want := new(big.Int).Quo(ns.Num(), ns.Denom())
				if !want.IsInt64() {
					want.SetInt64(math.MaxInt64)
				}
				want.Add(want, new(big.Int).Mul(big.NewInt(offset), big.NewInt(1e9)))
				if !want.IsInt64() {
					want.SetInt64(math.MaxInt64)
				}
				if got := c.time(ts); got != want.Int64() {
					t.Fatalf("resolution %#x offset %d timestamp %d: %d, want %d", resolution, offset, ts, got, want)
				}
			}
		}
	}
}

func samples() map[string]*builder {
	return map[string]*builder{
		"pcap":          pcapSample(binary.LittleEndian, magicMicro, 1),
		"pcap, swapped": pcapSample(binary.BigEndian, magicNano, 1),
		"modified":      pcapSample(binary.LittleEndian, magicModified, 1),
		"unknown link":  pcapSample(binary.LittleEndian, magicMicro, 147),
		"pcapng":        ngSample(),
	}
}

// The size of the slabs changes nothing, damaged or not.
func TestAnySlabSize(t *testing.T) {
	for name, w := range samples() {
		for what, b := range map[string][]byte{
			"whole":   w.out,
			"cut":     w.out[:len(w.out)-3],
			"damaged": append(slices.Clone(w.out), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		} {
			want := read(t, 0, b)
			for size := 1; size < len(b)+100; size += 1 + size/23 {
				if diff := diff(want, readFiles(t, size, "f")); diff != "" {
					t.Fatalf("%s, %s, slabs of %d bytes: -usual +got\n%s", name, what, size, diff)
				}
			}
		}
	}
}

// A reader that gives what it likes changes nothing either.
func TestAnyRead(t *testing.T) {
	for name, w := range samples() {
		want := read(t, 0, w.out)
		for kind, r := range map[string]io.Reader{
			"one byte":   iotest.OneByteReader(bytes.NewReader(w.out)),
			"half":       iotest.HalfReader(bytes.NewReader(w.out)),
			"with error": iotest.DataErrReader(bytes.NewReader(w.out)),
		} {
			var frames []Frame
			f := newFile("f", r, &slabs{size: slabSize})
			for {
				b, err := f.next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("%s, %s: %v", name, kind, err)
				}
				frames = append(frames, b.Frames...) // not released, so valid
			}
			if diff := diff(want.Frames, frames); diff != "" {
				t.Errorf("%s, %s:\n%s", name, kind, diff)
			}
		}
	}
}

// A file cut anywhere is read to its last whole packet, with one warning unless
// it is cut between two.
func TestEveryPrefix(t *testing.T) {
	for name, w := range samples() {
		whole := read(t, 0, w.out)
		offered := func(r result) int { return len(r.Frames) + int(r.Stats.Ignored) }
		if offered(whole) != w.count {
			t.Fatalf("%s: %d packets of %d", name, offered(whole), w.count)
		}
		for n := len(w.out) - 1; n >= 0; n-- {
			if err := os.Truncate("f", int64(n)); err != nil {
				t.Fatal(err)
			}
			got := readFiles(t, 1<<10, "f")
			at, clean := slices.BinarySearch(w.ends, n)
			packets := 0
			if clean {
				packets = w.packets[at]
			} else if at > 0 {
				packets = w.packets[at-1]
			}
			if offered(got) != packets {
				t.Fatalf("%s: %d packets in %d bytes, want %d", name, offered(got), n, packets)
			}
			if !begins(whole.Frames, got.Frames) {
				t.Fatalf("%s: other frames in %d bytes", name, n)
			}
			var cuts []string
			for _, warning := range got.Warnings {
				if !strings.Contains(warning, "link type") {
					cuts = append(cuts, warning)
				}
			}
			want := []string{fmt.Sprintf("read f: offset %d: cut short: unexpected EOF", n)}
			switch {
			case n == 0:
				want[0] = "read f: offset 0: not a capture: the file is empty"
			case n < 4:
				want[0] = "read f: offset 0: not a capture: neither pcap, pcapng nor snoop"
			case clean:
				want = nil
			}
			if !slices.Equal(cuts, want) {
				t.Fatalf("%s: %d bytes: %q, want %q", name, n, cuts, want)
			}
			if whole := uint64(btou(clean)); got.Stats.Files != whole || got.Stats.Broken != 1-whole {
				t.Fatalf("%s: %d bytes: %+v", name, n, got.Stats)
			}
		}
	}
}

func btou(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestBadFiles(t *testing.T) {
	pcap := func(edit func(w *builder)) []byte {
		w := pcapSample(binary.LittleEndian, magicMicro, 1)
		edit(w)
		return w.out
	}
	ng := func(edit func(w *builder)) []byte {
		w := &builder{}
		w.section(binary.LittleEndian)
		w.iface(1, 0, "", 6, 0)
		w.enhanced(0, aTime*1e6, 60, payload(1, 60), "")
		edit(w)
		w.enhanced(0, aTime*1e6, 60, payload(1, 60), "")
		return w.out
	}
	pcapEnd := len(pcap(func(*builder) {}))
	ngEnd := len(ng(func(*builder) {})) - 92
	for _, c := range []struct {
		name   string
		file   []byte
		frames int
		stats  Stats
		want   string
	}{
		{"text", []byte("Neither this nor that.\n"), 0, Stats{Broken: 1},
			"read f: offset 0: not a capture: neither pcap, pcapng nor snoop"},
		{"pcap version", newPcapVersion(3), 0, Stats{Broken: 1},
			"read f: offset 0: pcap version 3.4 is not supported"},
		{"4 GB", pcap(func(w *builder) {
			w.u32(1).u32(2).u32(math.MaxUint32).u32(math.MaxUint32).raw(payload(1, 100))
		}), 8, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt record: a frame of 4294967295 bytes, more than 262144", pcapEnd)},
		{"just too long", pcap(func(w *builder) { w.record(1, 2, 3, make([]byte, maxFrameLen+1)) }), 8, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt record: a frame of 262145 bytes, more than 262144", pcapEnd)},
		{"byte order mark", ng(func(w *builder) {
			w.block(blockSection, 0, func() { w.u32(0xdeadbeef).u16(1).u16(0).u64(0) })
		}), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt section header: the byte order mark is 0xdeadbeef", ngEnd)},
		{"pcapng version", ng(func(w *builder) {
			w.block(blockSection, 0, func() { w.u32(0x1a2b3c4d).u16(2).u16(0).u64(0) })
		}), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: pcapng version 2.0 is not supported", ngEnd)},
		{"no such interface", ng(func(w *builder) { w.enhanced(1, 0, 4, payload(1, 4), "") }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt packet block: interface 1 of 1", ngEnd)},
		{"no interface", ng(func(w *builder) {
			w.section(binary.BigEndian)
			w.simple(4, payload(1, 4))
			w.section(binary.LittleEndian)
		}),
			1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt packet block: interface 0 of 0", ngEnd+44)},
		{"more than its block", ng(func(w *builder) {
			w.block(blockEnhanced, 0, func() { w.u32(0).u64(0).u32(5).u32(5).raw(payload(1, 4)) })
		}), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt packet block: 5 bytes in a block with room for 4", ngEnd)},
		{"frame too long", ng(func(w *builder) { w.enhanced(0, 0, 4, make([]byte, maxFrameLen+4), "") }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt record: a frame of 262148 bytes, more than 262144", ngEnd)},
		{"packet block too long", ng(func(w *builder) { w.u32(blockEnhanced).u32(0xfffffffc) }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt block of type 0x6: its length of 4294967292 is more than 524288", ngEnd)},
		{"block too short", ng(func(w *builder) { w.u32(blockEnhanced).u32(28).raw(make([]byte, 16)).u32(28) }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt block of type 0x6: its length is 28", ngEnd)},
		{"odd block", ng(func(w *builder) { w.u32(99).u32(13).raw(make([]byte, 5)) }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt block of type 0x63: its length is 13", ngEnd)},
		{"lengths differ", ng(func(w *builder) {
			w.enhanced(0, 0, 4, payload(1, 4), "")
			w.out[len(w.out)-4]++
		}), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt block of type 0x6: its length is 36 in front and 37 at the end", ngEnd)},
		{"option", ng(func(w *builder) {
			w.block(blockInterface, 0, func() { w.u16(1).u16(0).u32(0).u16(2).u16(9).u32(0) })
		}), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: corrupt interface description: option 2 of 9 bytes where 4 are left", ngEnd)},
		{"endless block", ng(func(w *builder) { w.u32(99).u32(0xfffffffc) }), 1, Stats{Broken: 1, Corrupt: 1},
			fmt.Sprintf("read f: offset %d: cut short: unexpected EOF", ngEnd+8+92)},
		{"unknown link types", ng(func(w *builder) {
			w.iface(147, 0, "", 6, 0)
			w.iface(147, 0, "", 6, 0)
			for i := range uint32(3) {
				w.enhanced(1+i%2, 0, 4, payload(1, 4), "")
			}
		}), 2, Stats{Files: 1, Ignored: 3},
			"read f: frame 2: link type 147 is not supported, its frames are ignored"},
		{"unknown link type", pcapSample(binary.LittleEndian, magicMicro, 147).out, 0, Stats{Files: 1, Ignored: 8},
			"read f: frame 1: link type 147 is not supported, its frames are ignored"},
		{"gzip of text", gzipped([]byte("Neither this nor that.\n")), 0, Stats{Broken: 1},
			"read f: offset 0: not a capture: neither pcap, pcapng nor snoop"},
		{"gzip header", gzipped([]byte("Neither this nor that.\n"))[:7], 0, Stats{Broken: 1},
			"read f: offset 0: cut short: unexpected EOF"},
		{"gzip damaged", damaged(gzipped(pcap(func(*builder) {}))), 8, Stats{Broken: 1},
			fmt.Sprintf("read f: offset %d: gzip: invalid checksum", pcapEnd)},
		{"zstd window of 3.75 TB", []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 1, 0, 0}, 0, Stats{Broken: 1},
			"read f: offset 0: window size exceeded: the window of Zstandard may take 128 MiB, which is the most"},
		{"zstd frame of 32 GB that is its own window", []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0}, 0, Stats{Broken: 1},
			"read f: offset 0: decompressed size exceeds configured limit: the window of Zstandard may take 128 MiB, which is the most"},
	} {
		got := read(t, 0, c.file)
		if len(got.Warnings) != 1 || got.Warnings[0] != c.want {
			t.Errorf("%s: warned %q, want %q", c.name, got.Warnings, c.want)
		}
		if len(got.Frames) != c.frames {
			t.Errorf("%s: %d frames, want %d", c.name, len(got.Frames), c.frames)
		}
		c.stats.Frames, c.stats.Bytes = got.Stats.Frames, got.Stats.Bytes
		if got.Stats != c.stats {
			t.Errorf("%s: %+v, want %+v", c.name, got.Stats, c.stats)
		}
	}
}

func newPcapVersion(major byte) []byte {
	b := newPcap(binary.LittleEndian, magicMicro, 1).out
	b[4] = major
	return b
}

// damaged spoils the checksum of a gzip member.
func damaged(b []byte) []byte {
	b[len(b)-5]++
	return b
}

// A section of nothing but interfaces is given up before it fills the memory.
func TestInterfaceLimit(t *testing.T) {
	w := &builder{}
	w.section(binary.LittleEndian)
	for range maxSectionInterfaces + 1 {
		w.iface(1, 0, "", 6, 0)
	}
	got := read(t, 0, w.out)
	if len(got.Warnings) != 1 || !strings.HasSuffix(got.Warnings[0], "more than 65536 interfaces in a section") {
		t.Errorf("warned %q", got.Warnings)
	}
}

// What is allocated does not depend on the lengths in a file, nor on how much
// there is in a zstd stream.
func TestHugeBlocksAreNotHeld(t *testing.T) {
	w := &builder{}
	w.section(binary.LittleEndian)
	w.iface(1, 0, "", 6, 0)
	w.enhanced(0, aTime*1e6, 60, payload(1, 60), "")
	w.block(0x7777, 0, func() { w.raw(make([]byte, 160<<20)) })
	w.enhanced(0, aTime*1e6, 60, payload(2, 60), "")
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	z.Write(w.out)
	z.Close()
	w = nil
	t.Chdir(t.TempDir())
	save(t, ".", "f", packed.Bytes())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := readFiles(t, 0, "f")
	runtime.ReadMemStats(&after)
	if len(got.Frames) != 2 || len(got.Warnings) > 0 {
		t.Errorf("%d frames, %q", len(got.Frames), got.Warnings)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

func gzipped(parts ...[]byte) []byte {
	var out bytes.Buffer
	for _, b := range parts {
		w := stdgzip.NewWriter(&out)
		w.Write(b)
		w.Close()
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte) []byte {
	t.Helper()
	if path, err := exec.LookPath("zstd"); err == nil {
		cmd := exec.Command(path, "-q", "-c")
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func TestCompressed(t *testing.T) {
	big := newPcap(binary.LittleEndian, magicMicro, 1)
	for i := range 3000 {
		big.record(aTime, uint32(i), 900, payload(uint64(i), 900))
	}
	for name, plain := range map[string][]byte{"pcap": big.out, "pcapng": ngSample().out} {
		want := read(t, 0, plain)
		half := len(plain) / 2
		z := zstandard(t, plain)
		for kind, b := range map[string][]byte{
			"gzip":          gzipped(plain),
			"gzip, members": gzipped(plain[:10], nil, plain[10:half], plain[half:]),
			"zstd":          z,
			"zstd, frames":  slices.Concat(zstandard(t, plain[:half]), zstandard(t, plain[half:])),
			"pzstd":         slices.Concat([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, z),
		} {
			got := read(t, 0, b)
			if diff := diff(want, got); diff != "" {
				t.Errorf("%s, %s: -plain +compressed\n%s", name, kind, diff)
			}
			// Cut, it yields a beginning of the frames.
			got = read(t, 0, b[:len(b)*2/3])
			if len(got.Warnings) != 1 || !strings.HasSuffix(got.Warnings[0], "cut short: unexpected EOF") || got.Stats.Broken != 1 {
				t.Errorf("%s, %s, cut: %q, %+v", name, kind, got.Warnings, got.Stats)
			}
			if !begins(want.Frames, got.Frames) || name == "pcap" && len(got.Frames) < 1000 {
				t.Errorf("%s, %s, cut: %d frames", name, kind, len(got.Frames))
			}
		}
	}
}

func TestFoldersInOrderOfTime(t *testing.T) {
	at := func(sec uint32) []byte {
		w := newPcap(binary.LittleEndian, magicMicro, 1)
		w.record(sec, 0, 4, payload(uint64(sec), 4))
		return w.out
	}
	t.Chdir(t.TempDir())
	save(t, "in", "a.pcap", at(50))
	save(t, "in", "deep/er/b", gzipped(at(30)))
	save(t, "in", "deep/c.pcapng", ngSample().out) // 2022
	save(t, "in", "same2", at(40))
	save(t, "in", "same1", at(40))
	save(t, "in", "README", []byte("about these"))
	save(t, "in", "empty", nil)
	save(t, ".", "z.pcap", at(10))
	save(t, ".", "y.pcap", at(60))
	unknown := newPcap(binary.LittleEndian, magicMicro, 147)
	unknown.record(45, 0, 4, payload(1, 4))
	unknown.out = append(unknown.out, 1)
	save(t, "in", "unknown", unknown.out)
	if err := os.Symlink("../y.pcap", "in/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", "in/loop"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", "in/dangling"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("none", 0o700); err != nil {
		t.Fatal(err)
	}

	got := readFiles(t, 0, "y.pcap", "in", "z.pcap", "none", "missing")
	want := []string{"z.pcap", "in/deep/er/b", "in/same1", "in/same2", "in/a.pcap", "in/link", "y.pcap"}
	if origins := slices.Compact(got.Origins); !slices.Equal(origins[:len(want)], want) {
		t.Errorf("order %q, want %q", origins, want)
	}
	wantWarnings := []string{
		"read in/dangling: no such file or directory",
		"read none: the folder holds no files",
		"read missing: no such file or directory",
		"read in/unknown: frame 1: link type 147 is not supported, its frames are ignored",
		"read in/unknown: offset 45: cut short: unexpected EOF",
	}
	if diff := diff(wantWarnings, got.Warnings); diff != "" {
		t.Error(diff)
	}
	if got.Stats.Files != 8 || got.Stats.Broken != 4 || got.Stats.Skipped != 2 || got.Stats.Ignored != 1 {
		t.Errorf("%+v", got.Stats)
	}
}

func TestBadUse(t *testing.T) {
	for _, paths := range [][]string{nil, {"-", "x", "-"}} {
		if _, err := OpenFiles(paths, FileOptions{Warn: func(err error) { t.Error(err) }}); err == nil {
			t.Errorf("%q: no error", paths)
		}
	}
}

// useStdin makes r standard input for the test.
func useStdin(t *testing.T, r *os.File) {
	old := os.Stdin
	os.Stdin = r
	t.Cleanup(func() { os.Stdin = old; r.Close() })
}

func TestStandardInput(t *testing.T) {
	sample := ngSample().out
	want := read(t, 0, sample)
	for kind, b := range map[string][]byte{"plain": sample, "gzip": gzipped(sample), "zstd": zstandard(t, sample)} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		useStdin(t, r)
		go func() {
			defer w.Close()
			for part := range slices.Chunk(b, 100) {
				w.Write(part)
			}
		}()
		got := readFiles(t, 0, "-", "f") // read last all the same
		n := len(want.Frames)
		if !reflect.DeepEqual(got.Frames[:n], want.Frames) || !reflect.DeepEqual(got.Frames[n:], want.Frames) {
			t.Errorf("%s: other frames", kind)
		}
		if got.Origins[0] != "f[eth0]" || got.Origins[n] != "-[eth0]" || len(got.Warnings) > 0 || got.Stats.Files != 2 {
			t.Errorf("%s: %q, %q, %+v", kind, got.Origins, got.Warnings, got.Stats)
		}
	}
}

// What has come through a pipe is yielded, although more may follow.
func TestStandardInputDoesNotWait(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	useStdin(t, r)
	sample := pcapSample(binary.LittleEndian, magicMicro, 1)
	if _, err := w.Write(sample.out[:sample.ends[4]+5]); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFiles([]string{"-"}, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := 0; n < sample.packets[4]; {
		b, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Frames)
		b.Release()
	}
	if _, total := s.Progress(); total != 0 {
		t.Errorf("the total of a pipe is %d", total)
	}
}

// The interface is named while there is only one of that name.
func TestOriginInterface(t *testing.T) {
	w := &builder{}
	packet := func(id uint32) { w.enhanced(id, aTime*1e6, 4, payload(1, 4), "") }
	w.section(binary.LittleEndian)
	w.iface(1, 0, "eth0", 6, 0)
	packet(0)
	packet(0)
	w.section(binary.BigEndian)
	w.iface(1, 0, "eth0", 6, 0)
	packet(0)
	w.iface(1, 0, "eth1", 6, 0)
	packet(0)
	packet(1)
	w.section(binary.BigEndian)
	w.iface(1, 0, "eth0", 6, 0)
	packet(0)
	got := read(t, 0, w.out)
	if want := []string{"f[eth0]", "f[eth0]", "f[eth0]", "f", "f", "f"}; !slices.Equal(got.Origins, want) {
		t.Errorf("%q, want %q", got.Origins, want)
	}
}

func TestProgress(t *testing.T) {
	t.Chdir(t.TempDir())
	good := pcapSample(binary.LittleEndian, magicMicro, 1).out
	bad := pcapSample(binary.LittleEndian, magicMicro, 1).out
	bad = slices.Concat(bad, bytes.Repeat([]byte{0xff}, 3*slabSize))
	sizes := int64(2*len(good)+len(bad)) + 5
	save(t, "in", "1", good)
	save(t, "in", "2", bad)
	save(t, "in", "3", []byte("text\n"))
	z := gzipped(good)
	save(t, "in", "4", z)
	sizes += int64(len(z)) - int64(len(good))
	s, err := OpenFiles([]string{"in"}, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	last := int64(0)
	for {
		read, total := s.Progress()
		if read < last || read > total || total != sizes {
			t.Fatalf("%d of %d after %d of %d", read, total, last, sizes)
		}
		last = read
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		b.Release()
	}
	if read, total := s.Progress(); read != total {
		t.Errorf("%d of %d at the end", read, total)
	}
}

// Batches stay as they are until they are released, by whomever.
func TestLending(t *testing.T) {
	w := newPcap(binary.LittleEndian, magicMicro, 1)
	var want [][]byte
	for i := range 2000 {
		want = append(want, payload(uint64(i), i%1500))
		w.record(aTime, uint32(i), 1500, want[i])
	}
	t.Chdir(t.TempDir())
	save(t, ".", "f", w.out)
	s, err := OpenFiles([]string{"f", "f", "f"}, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.slabs.size = 8 << 10
	queue := make(chan *Batch, 50)
	done := make(chan int)
	go func() {
		frames := 0
		for b := range queue {
			for _, f := range b.Frames {
				if !bytes.Equal(f.Data, want[f.Number-1]) {
					t.Errorf("frame %d has changed", f.Number)
				}
			}
			frames += len(b.Frames)
			b.Release()
		}
		done <- frames
	}()
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		queue <- b
		s.Stats()
	}
	close(queue)
	if n := <-done; n != 6000 {
		t.Errorf("%d frames", n)
	}
	if n := len(s.slabs.spare); n > spareSlabs {
		t.Errorf("%d slabs kept", n)
	}
}

// Whoever releases a batch twice gives nothing back that others have.
func TestReleaseTwice(t *testing.T) {
	w := newPcap(binary.LittleEndian, magicMicro, 1)
	for i := range 200 {
		w.record(aTime, uint32(i), 100, payload(uint64(i), 100))
	}
	t.Chdir(t.TempDir())
	save(t, ".", "f", w.out)
	s, err := OpenFiles([]string{"f"}, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.slabs.size = 1 << 10
	lent := map[*byte]bool{}
	next := func() *Batch {
		b, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		first := &b.Frames[0].Data[0]
		if lent[first] {
			t.Fatal("two batches have the same bytes")
		}
		lent[first] = true
		return b
	}
	one := next()
	first := &one.Frames[0].Data[0]
	next()
	one.Release()
	one.Release()
	delete(lent, first)
	for range 5 {
		next()
	}
	if s.slabs.lent != len(lent) {
		t.Errorf("%d batches are lent, the count is %d", len(lent), s.slabs.lent)
	}
}

// TestWindow has captures whose window is as large as the memory allows, and larger: the
// warning says which limit it was.
func TestWindow(t *testing.T) {
	w := newPcap(binary.LittleEndian, magicMicro, 1)
	for i := range 40_000 {
		w.record(aTime, uint32(i), 100, payload(uint64(i), 100))
	}
	t.Chdir(t.TempDir())
	for _, size := range []int{1 << 20, 2 << 20} {
		var packed bytes.Buffer
		z, err := zstd.NewWriter(&packed, zstd.WithWindowSize(size), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		z.Write(w.out)
		z.Close()
		save(t, ".", "f", packed.Bytes())
		for _, paths := range [][]string{{"f"}, {"f", "f"}} { // more than one are peeked at
			var said []string
			s, err := OpenFiles(paths, FileOptions{Window: 1 << 20, Warn: func(err error) { said = append(said, err.Error()) }})
			if err != nil {
				t.Fatal(err)
			}
			frames := 0
			for {
				b, err := s.Next()
				if err != nil {
					break
				}
				frames += len(b.Frames)
				b.Release()
			}
			s.Close()
			if size <= 1<<20 {
				if frames != 40_000*len(paths) || said != nil {
					t.Errorf("a window of %d bytes: %d frames, %q", size, frames, said)
				}
				continue
			}
			if frames != 0 || len(said) != len(paths) || !strings.HasSuffix(said[0], "the window of Zstandard may take 1 MiB, as --memory is small") {
				t.Errorf("a window of %d bytes: %d frames, %q", size, frames, said)
			}
		}
	}
}

// TestManySections reads captures of one packet each that were joined: there is a batch for
// each, and what was read is not copied for each of them. No batch is released, so there
// are as many buffers as were filled.
func TestManySections(t *testing.T) {
	const count = 20_000
	plain, ng := &builder{}, &builder{}
	for i := range count {
		one := newPcap(binary.LittleEndian, magicMicro, 1)
		one.record(aTime, uint32(i), 60, payload(uint64(i), 60))
		plain.out = append(plain.out, one.out...)
		ng.section(binary.LittleEndian)
		ng.iface(1, 0, "eth0", 9, 0)
		ng.enhanced(0, aTime*1e9+uint64(i), 60, payload(uint64(i), 60), "")
	}
	for name, b := range map[string][]byte{"pcap": plain.out, "pcapng": ng.out} {
		t.Chdir(t.TempDir())
		save(t, ".", "f", b)
		s, err := OpenFiles([]string{"f"}, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.slabs.size = 16 << 10
		var batches []*Batch
		for {
			b, err := s.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			batches = append(batches, b)
		}
		buffers := map[*byte]bool{}
		for i, batch := range batches {
			buffers[&batch.from[0]] = true
			for j := range batch.Frames {
				f := &batch.Frames[j]
				at := batch.Offset(f)
				if f.Number != uint64(i+1) || !bytes.Equal(f.Data, payload(uint64(i), 60)) || !bytes.Equal(b[at:][:60], f.Data) {
					t.Fatalf("%s: batch %d has frame %d, at %d", name, i, f.Number, at)
				}
			}
		}
		// Less than a record, or what tells variants of pcap apart, stays for the next one.
		if most := len(b)/(16<<10-variantWindow-100) + 2; len(batches) != count || len(buffers) > most {
			t.Errorf("%s: %d batches in %d buffers, where %d do for %d bytes", name, len(batches), len(buffers), most, len(b))
		}
		for _, batch := range batches {
			batch.Release()
		}
		if s.Close(); s.slabs.lent != 0 || len(s.slabs.buffers) > spareSlabs || len(s.slabs.spare) > spareSlabs {
			t.Errorf("%s: %d lent, %d buffers and %d slabs kept", name, s.slabs.lent, len(s.slabs.buffers), len(s.slabs.spare))
		}
	}
}

func TestNoAllocations(t *testing.T) {
	plain := newPcap(binary.LittleEndian, magicMicro, 1)
	ng := &builder{}
	ng.section(binary.LittleEndian)
	ng.iface(1, 0, "eth0", 9, 0)
	for i := range 20_000 {
		plain.record(aTime, uint32(i), 200, payload(uint64(i), 100))
		ng.enhanced(0, aTime*1e9+uint64(i), 200, payload(uint64(i), 100), "")
	}
	for name, b := range map[string][]byte{"pcap": plain.out, "pcapng": ng.out} {
		t.Chdir(t.TempDir())
		save(t, ".", "f", b)
		s, err := OpenFiles([]string{"f"}, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.slabs.size = 16 << 10
		next := func() {
			b, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		for range 10 {
			next()
		}
		if n := testing.AllocsPerRun(100, next); n != 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
}

// Public captures, as tshark reads them.
func TestCorpusAsTsharkReadsIt(t *testing.T) {
	root := os.Getenv("ODDCERT_CORPUS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "corpus")
	}
	var paths []string
	filepath.WalkDir(filepath.Join(root, "captures"), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return nil
	})
	if len(paths) == 0 {
		t.Skip("no public captures: ODDCERT_CORPUS names no folder that holds them")
	}
	const sample = 30
	frames := 0
	for i := 0; i < len(paths); i += max(1, len(paths)/sample) {
		got := readFiles(t, 0, paths[i])
		frames += len(got.Frames)
		if n := compareTshark(t, paths[i], got.Frames); n != int(got.Stats.Ignored) {
			t.Errorf("%s: %d frames fewer than tshark, %d ignored; %q", paths[i], n, got.Stats.Ignored, got.Warnings)
		}
	}
	t.Logf("%d frames compared", frames)
}
