package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
)

// captureFiles returns the captures of this repository, and those that are shared with
// others where they are there.
func captureFiles(t *testing.T) (paths []string) {
	t.Helper()
	for _, dir := range []string{
		"../../testdata/captures",
		filepath.Join(cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../shared/corpus"), "captures"),
		cmp.Or(os.Getenv("ODDCERT_CASES"), "../../../../shared/cases"),
		cmp.Or(os.Getenv("ODDCERT_ATTACKS"), "../../../../shared/attacks"),
	} {
		if _, err := os.Stat(dir); err != nil {
			t.Logf("without the captures of %s: %v", dir, err)
			continue
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && (strings.Contains(filepath.Ext(path), "cap") || strings.Contains(path, "cap.") || filepath.Ext(path) == ".snoop") {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// seen is a handshake, and the frames of it that a buffer had when it was told.
type seen struct {
	flow     frames.Flow
	list     []frames.Frame
	complete bool
}

// kept replays captures with a buffer, and returns each handshake with its frames.
func kept(t testing.TB, workers, size int, paths ...string) (all []seen, stats frames.BufferStats) {
	t.Helper()
	source, err := capture.OpenFiles(paths, capture.FileOptions{Warn: func(error) {}})
	if err != nil {
		t.Skip(err)
	}
	defer source.Close()
	buffer := frames.NewBuffer(size)
	p := New(Config{
		Workers: workers, Rules: builtin(t), Limits: flow.DefaultLimits, Frames: buffer,
		Found: func(f *finding.Finding) {
			if !f.Handshake.Unfinished {
				flow := frames.Of(f.Handshake)
				flow.To = f.Handshake.End // what comes after the decision is not kept
				list, complete := buffer.Frames(flow)
				all = append(all, seen{flow, list, complete})
			}
		},
	})
	if err := p.Replay(context.Background(), source); err != nil {
		t.Log(err)
	}
	return all, buffer.Stats()
}

// cutOf returns the frames of handshakes by a second look at the captures, without those
// that no tracker is told of.
func cutOf(t testing.TB, all []seen, paths ...string) [][]frames.Frame {
	t.Helper()
	source, err := capture.OpenFiles(paths, capture.FileOptions{Warn: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var flows []frames.Flow
	for _, s := range all {
		flows = append(flows, s.flow)
	}
	lists := make([][]frames.Frame, len(all))
	tracked := trackedFrames(t, paths...)
	_, err = frames.Cut(context.Background(), source, flows, frames.Options{}, func(f *frames.Frame, of []int) error {
		if tracked[place{f.Number, f.Time}] {
			for _, i := range of {
				if f.Time >= all[i].flow.From.Time { // what an endpoint ignored before a flow is not kept with it
					lists[i] = append(lists[i], *f)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Log(err)
	}
	return lists
}

// place is where a frame is in a capture.
type place struct {
	number uint64
	time   int64
}

// trackedFrames returns the frames of captures with packets that are not idle, or with
// chunks of SCTP, and the fragments that such packets came in.
func trackedFrames(t testing.TB, paths ...string) map[place]bool {
	t.Helper()
	source, err := capture.OpenFiles(paths, capture.FileOptions{Warn: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	tracked := map[place]bool{}
	datagrams := map[uint64][]place{}
	var d decode.Decoder
	var p decode.Packet
	for {
		batch, err := source.Next()
		if err != nil {
			return tracked
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			at := place{f.Number, f.Time}
			noted := 0
			for c, more := d.Decode(f, &p), true; more; more = d.Next(&p) {
				for _, piece := range d.Pieces()[noted:] {
					datagrams[piece.Of] = append(append(datagrams[piece.Of], datagrams[piece.In]...), at)
					noted++
				}
				if c <= decode.Datagram && p.Idle() || c == decode.NotIP || c > decode.Datagram && !d.OfAssociation(&p) {
					continue
				}
				tracked[at] = true
				for _, at := range datagrams[p.Assembled()] {
					tracked[at] = true
				}
			}
		}
		batch.Release()
	}
}

// sameFrame reports whether two frames are the same but for who read them.
func sameFrame(a, b *frames.Frame) bool {
	return a.Number == b.Number && a.Time == b.Time && a.Length == b.Length && a.LinkType == b.LinkType && bytes.Equal(a.Data, b.Data) && sameOrigin(a.Origin, b.Origin)
}

func sameOrigin(a, b *event.Origin) bool { return a == b || a != nil && b != nil && *a == *b }

// numbers are those of frames, for messages.
func numbers(list []frames.Frame) (n []uint64) {
	for i := range list {
		n = append(n, list[i].Number)
	}
	return n
}

// missing returns the frames of list that are not in others, which are in the same order.
func missing(list, others []frames.Frame) (n []uint64) {
	for i := range list {
		for len(others) > 0 && others[0].Number < list[i].Number {
			others = others[1:]
		}
		if len(others) == 0 || !sameFrame(&list[i], &others[0]) {
			n = append(n, list[i].Number)
		}
	}
	return n
}

// A buffer that is large enough has the frames of each handshake that a second look at
// the capture finds, but for idle ones, whatever the number of workers. One that is not has some of them,
// and says that there are more.
func TestKeptFrames(t *testing.T) {
	paths := captureFiles(t)
	handshakes, equal, short, found := 0, 0, 0, 0
	for _, path := range paths {
		size := 16 << 20
		all, stats := kept(t, 1, size, path)
		if len(all) == 0 {
			continue
		}
		if stats.GivenUp+stats.GivenUpEarly > 0 {
			size = 256 << 20
			all, _ = kept(t, 1, size, path)
		}
		lists := cutOf(t, all, path)
		for i, s := range all {
			handshakes++
			found += len(s.list)
			if len(s.list) == 0 {
				t.Errorf("%s: %v: no frames", path, s.flow)
			}
			lacks, more := missing(lists[i], s.list), missing(s.list, lists[i])
			switch {
			case len(lacks)+len(more) == 0 && s.complete:
				equal++
			case len(lacks) > 0 && s.complete, len(more) > 0:
				t.Errorf("%s: %v: complete %v, of %v lacks %v, has %v more", path, s.flow, s.complete, numbers(lists[i]), lacks, more)
			default:
				short++
				t.Logf("%s: %v: incomplete, of %v lacks %v", path, s.flow, numbers(lists[i]), lacks)
			}
		}
		for _, workers := range []int{2, 8} {
			others, _ := kept(t, workers, max(64<<20, size), path)
			if len(others) != len(all) {
				t.Fatalf("%s: %d handshakes with %d workers, %d with one", path, len(others), workers, len(all))
			}
			for i, s := range others {
				if a, b := missing(all[i].list, s.list), missing(s.list, all[i].list); len(a)+len(b) > 0 || s.complete != all[i].complete {
					t.Errorf("%s: %v: with %d workers complete %v lacks %v, has %v more", path, s.flow, workers, s.complete, a, b)
				}
			}
		}
	}
	t.Logf("%d captures, %d handshakes, %d frames: %d with the frames of a second look, %d incomplete", len(paths), handshakes, found, equal, short)
}

// A buffer that is too small has some of the frames of a handshake, and never says that
// these are all where one is missing.
func TestKeptFramesInLittleMemory(t *testing.T) {
	path, _ := generate(t, named(t, "handshakes", 0.03))
	for _, workers := range []int{1, 2, 8} {
		all, stats := kept(t, workers, frames.MinBuffer, path)
		if stats.GivenUp+stats.GivenUpEarly == 0 || stats.Held == 0 || stats.Copied != stats.Held+stats.GivenUp+stats.GivenUpEarly || stats.HeldBytes > frames.MinBuffer {
			t.Errorf("%+v", stats)
		}
		complete := 0
		for i, list := range cutOf(t, all, path) {
			s := &all[i]
			lacks, more := missing(list, s.list), missing(s.list, list)
			if s.complete {
				complete++
			}
			if len(more) > 0 || s.complete != (len(lacks) == 0) {
				t.Errorf("%d workers, %v: complete %v, of %v lacks %v, has %v more", workers, s.flow, s.complete, numbers(list), lacks, more)
			}
		}
		if complete == 0 || complete == len(all) {
			t.Errorf("%d of %d handshakes are complete", complete, len(all))
		}
		t.Logf("%d workers: %d of %d handshakes are complete: %+v", workers, complete, len(all), stats)
	}
}

// BenchmarkKept shows what it costs to keep frames. With a buffer the heap is larger, and
// the garbage collector runs less often: a whole process pays more than this.
func BenchmarkKept(b *testing.B) {
	path, truth := generate(b, named(b, "handshakes", 0.25))
	for name, size := range map[string]int{"without": 0, "with": frames.DefaultBuffer} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				source, err := capture.OpenFiles([]string{path}, capture.FileOptions{})
				if err != nil {
					b.Fatal(err)
				}
				c := Config{Workers: 2, Rules: builtin(b), Limits: flow.DefaultLimits}
				if size > 0 {
					c.Frames = frames.NewBuffer(size)
				}
				if err := New(c).Replay(context.Background(), source); err != nil {
					b.Error(err)
				}
				source.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(truth.Flows), "ns/flow")
		})
	}
}
