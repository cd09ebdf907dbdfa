package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// changed is a capture that the tests change in ways that must make no
// difference.
type changed struct {
	name   string
	frames []capture.Frame
}

// limitChanged is how long a capture may be: longer ones say nothing new, and
// take their time.
const limitChanged = 1 << 20

// capturesIn reads the captures below dir that are of one link type.
func capturesIn(t *testing.T, dir string) (all []changed) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Size() > limitChanged {
			return err
		}
		files, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		c := changed{name: strings.NewReplacer("/", "+", ".", "_").Replace(strings.TrimPrefix(path, dir))}
		for {
			b, err := files.Next()
			if err != nil {
				break
			}
			for _, f := range b.Frames {
				f.Data = bytes.Clone(f.Data)
				c.frames = append(c.frames, f)
			}
			b.Release()
		}
		for i := range c.frames {
			f := &c.frames[i]
			if f.LinkType != c.frames[0].LinkType || f.Time < 0 || f.Time/1e9 > 1<<31 {
				return nil // a pcap file cannot have them
			}
		}
		if len(c.frames) > 1 {
			all = append(all, c)
		}
		return nil
	})
	return all
}

// rotates reports whether the capture may be one of a rotation: one without time,
// or with days between its packets, is none.
func (c *changed) rotates() bool {
	for i := range c.frames[1:] {
		if d := c.frames[i+1].Time - c.frames[i].Time; d < -1e9 || d > 300e9 {
			return false
		}
	}
	return c.frames[len(c.frames)-1].Time != c.frames[0].Time
}

// pcapOf is a pcap file of frames, with times in nanoseconds.
func pcapOf(frames []capture.Frame) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 1<<18)
	b = binary.LittleEndian.AppendUint32(b, uint32(frames[0].LinkType))
	for i := range frames {
		f := &frames[i]
		for _, v := range [...]uint32{uint32(f.Time / 1e9), uint32(f.Time % 1e9), uint32(len(f.Data)), f.Length} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		b = append(b, f.Data...)
	}
	return b
}

// object is a record as any reader of JSON has it.
type object = map[string]any

// lines replays captures, and returns the records of handshakes.
func lines(t *testing.T, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"replay", "--json", "-", "--records", "handshake"}, args...), &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.Bytes())
	}
	return stdout.Bytes()
}

// ofCapture ends the name of a capture in those of the files made of it.
const ofCapture = "~"

// told returns the records of handshakes in a folder that has a folder for each
// capture, by capture.
func told(t *testing.T, dir string) map[string][]object {
	t.Helper()
	return byCapture(t, lines(t, dir))
}

func byCapture(t *testing.T, text []byte) map[string][]object {
	t.Helper()
	all := map[string][]object{}
	for line := range bytes.Lines(text) {
		var r object
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(member(r, "log", "file", "path").(string), ofCapture)
		all[name] = append(all[name], r)
	}
	return all
}

// member is what lies in an object of objects.
func member(o object, path ...string) any {
	var v any = o
	for _, key := range path {
		o, _ = v.(object)
		v = o[key]
	}
	return v
}

// without takes members out of records, and returns them in an order of their own.
func without(records []object, paths ...string) (all []string) {
	for _, r := range records {
		r = copied(r)
		for _, path := range paths {
			remove(r, strings.Split(path, " "))
		}
		line, _ := json.Marshal(r)
		all = append(all, string(line))
	}
	slices.Sort(all)
	return all
}

// remove removes a member from an object, or from each in an array of them.
func remove(v any, path []string) {
	switch v := v.(type) {
	case object:
		if len(path) == 1 {
			delete(v, path[0])
		} else {
			remove(v[path[0]], path[1:])
		}
	case []any:
		for _, one := range v {
			remove(one, path)
		}
	}
}

func copied(o object) object {
	o = maps.Clone(o)
	for k, v := range o {
		switch v := v.(type) {
		case object:
			o[k] = copied(v)
		case []any:
			list := slices.Clone(v)
			for i := range list {
				if inner, ok := list[i].(object); ok {
					list[i] = copied(inner)
				}
			}
			o[k] = list
		}
	}
	return o
}

// What a change of the file, and what one of the clock makes different. Chains are judged at the time of the capture; a proof once a day and
// within a budget for all; and what was seen of a server before, by time.
var (
	ofFile  = []string{"log", "event id", "oddcert pcap"}
	ofClock = []string{"oddcert key_proof", "oddcert trust", "oddcert server", "oddcert shape", "log", "event id", "event duration", "@timestamp", "oddcert clock_jump", "oddcert chain validity", "oddcert client_chain validity"}
)

// same wants the handshakes of each capture to be those that it has alone, but
// for some members.
func same(t *testing.T, what string, want, got map[string][]object, but ...string) {
	t.Helper()
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w, g := without(want[name], but...), without(got[name], but...)
		if slices.Equal(w, g) {
			continue
		}
		if bad++; bad > 5 {
			continue
		}
		t.Errorf("%s: %s: %d handshakes, %d alone", what, name, len(g), len(w))
		for _, pair := range [][2][]string{{w, g}, {g, w}} {
			for _, line := range pair[0] {
				if !slices.Contains(pair[1], line) {
					t.Log("  ", brief(line))
					break
				}
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d captures differ", what, bad, len(want))
	}
	for name := range got {
		if want[name] == nil {
			t.Errorf("%s: %s has handshakes, and none alone", what, name)
		}
	}
}

// brief is what tells most of a record.
func brief(line string) string {
	var r object
	json.Unmarshal([]byte(line), &r)
	var words []string
	for _, path := range [][]string{{"source", "port"}, {"destination", "port"}, {"@timestamp"}, {"event", "duration"}, {"oddcert", "carrier"},
		{"oddcert", "certificates"}, {"oddcert", "loss"}, {"tls", "version"}, {"tls", "established"}, {"tls", "client", "server_name"}} {
		words = append(words, fmt.Sprint(member(r, path...)))
	}
	return strings.Join(words, " ")
}

// A capture says the same in whatever way it is kept, and whatever its clock
// does.
func TestMetamorphic(t *testing.T) {
	all := capturesIn(t, capturesDir)
	if dir := filepath.Join(corpusDir(), "captures"); exists(dir) {
		all = append(all, capturesIn(t, dir)...)
	} else {
		t.Logf("without the public captures: there is no %s (ODDCERT_CORPUS names their folder)", dir)
	}
	if testing.Short() {
		all = slices.DeleteFunc(all, func(c changed) bool { return len(c.name)%8 != 0 })
	}
	r := rand.New(rand.NewPCG(1, 2))

	// made writes files into a folder for each capture, and returns the folder of
	// these.
	made := func(t *testing.T, files func(c *changed) map[string][]byte) string {
		t.Helper()
		dir := t.TempDir()
		for i := range all {
			for name, b := range files(&all[i]) {
				folder := filepath.Join(dir, all[i].name)
				if err := os.MkdirAll(folder, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, all[i].name+ofCapture+name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		return dir
	}
	one := func(frames []capture.Frame) map[string][]byte { return map[string][]byte{"c.pcap": pcapOf(frames)} }
	want := told(t, made(t, func(c *changed) map[string][]byte { return one(c.frames) }))
	total := 0
	for _, records := range want {
		total += len(records)
	}
	t.Logf("%d captures with %d handshakes", len(all), total)

	t.Run("alone", func(t *testing.T) {
		dir := t.TempDir()
		alone := map[string][]object{}
		some := map[string][]object{}
		var paths []string
		for i := range all {
			path := filepath.Join(dir, all[i].name, all[i].name+ofCapture+"c.pcap")
			os.Mkdir(filepath.Dir(path), 0o700)
			if err := os.WriteFile(path, pcapOf(all[i].frames), 0o600); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
			if r.IntN(8) != 0 {
				continue
			}
			for name, records := range told(t, filepath.Dir(path)) {
				alone[name], some[name] = records, want[name]
			}
		}
		same(t, "alone", alone, some, "log")
		together := lines(t, "--workers", "1", dir)
		for _, workers := range []string{"2", "8"} {
			if !bytes.Equal(lines(t, "--workers", workers, dir), together) {
				t.Errorf("%s workers tell something else than one", workers)
			}
		}
		r.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		if !bytes.Equal(lines(t, paths...), together) {
			t.Error("the order in which the captures are named makes a difference")
		}
	})
	t.Run("gzipped", func(t *testing.T) {
		same(t, "gzipped", want, told(t, made(t, func(c *changed) map[string][]byte {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write(pcapOf(c.frames))
			z.Close()
			return map[string][]byte{"c.pcap": b.Bytes()}
		})), "log")
	})
	t.Run("split", func(t *testing.T) {
		for range 3 {
			same(t, "split in two", want, told(t, made(t, func(c *changed) map[string][]byte {
				at := 1 + r.IntN(len(c.frames)-1)
				if !c.rotates() || c.frames[at].Time == c.frames[0].Time {
					return one(c.frames)
				}
				return map[string][]byte{"c_1.pcap": pcapOf(c.frames[:at]), "c_2.pcap": pcapOf(c.frames[at:])}
			})), ofFile...)
		}
	})
	t.Run("concatenated", func(t *testing.T) {
		// Each is behind another one, and before a third.
		both := map[string][]object{}
		for i := range all {
			name := all[i].name
			both[name] = append(slices.Clone(want[name]), want[all[(i+1)%len(all)].name]...)
			if len(both[name]) == 0 {
				delete(both, name)
			}
		}
		i := 0
		same(t, "concatenated", both, told(t, made(t, func(c *changed) map[string][]byte {
			i++
			return map[string][]byte{"c.pcap": append(pcapOf(c.frames), pcapOf(all[i%len(all)].frames)...)}
		})), ofFile...)
	})
	t.Run("merged", func(t *testing.T) {
		merge(t, all, want, made, r)
	})
	retimed := func(what string, retime func(frames []capture.Frame)) {
		t.Run(what, func(t *testing.T) {
			dir := made(t, func(c *changed) map[string][]byte {
				frames := slices.Clone(c.frames)
				retime(frames)
				return one(frames)
			})
			text := lines(t, "--workers", "1", dir)
			same(t, what, want, byCapture(t, text), ofClock...)
			if !bytes.Equal(lines(t, "--workers", "8", dir), text) {
				t.Errorf("%s: 8 workers tell something else than one", what)
			}
		})
	}
	for _, d := range []time.Duration{-time.Hour, 1234567890 * time.Second} {
		retimed("shifted by "+d.String(), func(frames []capture.Frame) {
			for i := range frames {
				frames[i].Time = max(frames[i].Time+int64(d), 0)
			}
		})
	}
	for _, scale := range []float64{0.1, 2, 10} {
		retimed(fmt.Sprintf("times %v", scale), func(frames []capture.Frame) {
			first := frames[0].Time
			for i := range frames {
				frames[i].Time = max(first+int64(float64(frames[i].Time-first)*scale), 0)
			}
		})
	}
	for _, mad := range []int64{0, 2_145_916_800e9} {
		for what, where := range map[string]func(n int) int{
			"first":  func(int) int { return 0 },
			"middle": func(n int) int { return r.IntN(n) },
			"last":   func(n int) int { return n - 1 },
		} {
			retimed(fmt.Sprintf("the %s packet of %d", what, mad), func(frames []capture.Frame) {
				frames[where(len(frames))].Time = mad
			})
		}
	}
	retimed("five packets a day ahead", func(frames []capture.Frame) {
		at := r.IntN(len(frames))
		for i := at; i < min(at+5, len(frames)); i++ {
			frames[i].Time += 86400e9
		}
	})
	retimed("an hour back", func(frames []capture.Frame) {
		for i := r.IntN(len(frames)); i < len(frames); i++ {
			frames[i].Time = max(frames[i].Time-3600e9, 0)
		}
	})
}

// merge mixes each capture with another one, of the same time. Where both have
// packets of one five-tuple, or from one address to another, they would be in
// conflict: those are left out.
func merge(t *testing.T, all []changed, want map[string][]object, made func(*testing.T, func(*changed) map[string][]byte) string, r *rand.Rand) {
	flows := make([]map[decode.Key]bool, len(all))
	for i := range all {
		var d decode.Decoder
		var p decode.Packet
		flows[i] = map[decode.Key]bool{}
		for j := range all[i].frames {
			for ok := d.Decode(&all[i].frames[j], &p) <= decode.Datagram; ok; ok = d.Next(&p) {
				flows[i][p.Key] = true
			}
		}
	}
	with := map[string]int{}
	both := map[string][]object{}
	for i := range all {
		for range 20 {
			j := r.IntN(len(all))
			if i == j || all[i].frames[0].LinkType != all[j].frames[0].LinkType {
				continue
			}
			conflict := false
			for key := range flows[j] {
				conflict = conflict || flows[i][key]
			}
			if conflict {
				continue
			}
			name := all[i].name
			with[name] = j
			if both[name] = append(slices.Clone(want[name]), want[all[j].name]...); len(both[name]) == 0 {
				delete(both, name)
			}
			break
		}
	}
	same(t, "merged", both, told(t, made(t, func(c *changed) map[string][]byte {
		j, ok := with[c.name]
		if !ok {
			return nil
		}
		other := slices.Clone(all[j].frames)
		shift := c.frames[0].Time - other[0].Time
		var merged []capture.Frame
		n := 0
		for _, f := range c.frames {
			for ; n < len(other) && other[n].Time+shift < f.Time; n++ {
				o := other[n]
				o.Time = max(o.Time+shift, 0)
				merged = append(merged, o)
			}
			merged = append(merged, f)
		}
		for ; n < len(other); n++ {
			o := other[n]
			o.Time = max(o.Time+shift, 0)
			merged = append(merged, o)
		}
		return map[string][]byte{"c.pcap": pcapOf(merged)}
	})), append(slices.Clone(ofFile), ofClock...)...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
