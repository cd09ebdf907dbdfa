package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// tape is a source of frames in memory, each a batch of its own.
type tape struct {
	frames []capture.Frame
	next   int
}

func (s *tape) Next() (*capture.Batch, error) {
	if s.next == len(s.frames) {
		return nil, io.EOF
	}
	s.next++
	return &capture.Batch{Frames: s.frames[s.next-1 : s.next]}, nil
}

func (s *tape) Stats() capture.Stats { return capture.Stats{} }
func (s *tape) Close() error         { return nil }

// framesOf reads the frames of a capture, and gives them times of its own: the first
// start, and each a step after the one before.
func framesOf(t testing.TB, path string, start time.Time, step time.Duration) (all []capture.Frame) {
	t.Helper()
	source, err := capture.OpenFiles([]string{path}, capture.FileOptions{Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	for {
		b, err := source.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b.Frames {
			f.Data = bytes.Clone(f.Data)
			f.Time = start.Add(step * time.Duration(len(all))).UnixNano()
			f.Clock = f.Time
			all = append(all, f)
		}
		b.Release()
	}
}

// promptRules match as soon as the certificate is seen, when the key is proven, and
// when the handshake is over; a correlation counts the first.
func promptRules(t testing.TB) *rules.Set {
	t.Helper()
	set, err := rules.Load(rules.Source{Name: "dir", FS: fstest.MapFS{"r.yml": {Data: []byte(`title: Shown
id: 11111111-0000-0000-0000-000000000001
level: low
logsource: {product: oddcert}
detection: {a: {oddcert.certificates: extracted}, condition: a}
---
title: Established
id: 11111111-0000-0000-0000-000000000002
level: low
logsource: {product: oddcert}
detection: {a: {tls.established: true}, condition: a}
---
title: Proven
id: 11111111-0000-0000-0000-000000000003
level: low
logsource: {product: oddcert}
detection: {a: {oddcert.key_proof: proven}, condition: a}
---
title: Twice
id: 11111111-0000-0000-0000-000000000004
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1}, condition: a}
oddcert: {suppress: {by: [server.ip], for: 1h}}
`)}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// told is what the tests here read of a record.
type told struct {
	Event   struct{ Dataset, ID string }
	Rule    struct{ Name string }
	Time    time.Time `json:"@timestamp"`
	TLS     struct{ Established *bool }
	Oddcert struct {
		Alerts     int
		Suppressed *struct{ Count int }
		Flagged    *struct{ Time string }
	}
	line string
}

// run gives frames to a pipeline that is live, or else replays them.
func run(t testing.TB, live bool, frames []capture.Frame) (all []told) {
	t.Helper()
	tables, err := judge.Load(judge.Options{Packs: fstest.MapFS{}})
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	out := output.NewLines(output.NewSink(&lines, output.SinkOptions{Block: true}), everything)
	p := New(Config{
		Workers: 1, Rules: promptRules(t), Judge: tables, Records: output.Options{Datasets: everything}, Limits: flow.DefaultLimits,
		Parsers: parsers.DefaultLimits, Outputs: []output.Output{out}, Now: func() time.Time { return time.Unix(1e9, 0) },
	})
	if live {
		err = p.Live(context.Background(), []capture.Source{&tape{frames: frames}})
	} else {
		err = p.Replay(context.Background(), &tape{frames: frames})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := p.total.unmatched + p.ordered.unmatched + p.sequence.failures; n > 0 {
		t.Errorf("%d failures: %v", n, p.Failure())
	}
	for line := range bytes.Lines(withoutStats(lines.Bytes())) {
		r := told{line: string(line)}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestPromptAlert has a client that falls silent after the server's certificate. Its
// alert comes before the records of what happens a second later, and once; its
// handshake comes when it is over.
func TestPromptAlert(t *testing.T) {
	const shown, port = 6, `"port":44512,` // the packet that completes the certificate, and the client's port
	start := time.Unix(1.7e9, 0)
	first := framesOf(t, "../../testdata/captures/odd-certificate/capture.pcap", start, time.Millisecond)
	second := framesOf(t, "../../testdata/captures/tls12-go/capture.pcap", start.Add(time.Second), time.Millisecond)
	third := framesOf(t, "../../testdata/captures/tls12-gnutls/capture.pcap", start.Add(2*time.Second), time.Millisecond)
	for _, over := range []bool{false, true} {
		frames := slices.Concat(first[:shown], second, third)
		if over { // it goes on after all
			for _, f := range first[shown:] {
				f.Time += int64(3 * time.Second)
				frames = append(frames, f)
			}
		}
		alerts := map[string]int{}
		var mine, others []int // the places of handshakes
		for i, r := range run(t, true, frames) {
			switch ours := strings.Contains(r.line, port); {
			case ours && r.Event.Dataset == "oddcert.alert":
				if _, twice := alerts[r.Rule.Name]; twice {
					t.Errorf("over %v: the alert %s is raised twice", over, r.Rule.Name)
				}
				alerts[r.Rule.Name] = i
			case ours && r.Event.Dataset == "oddcert.handshake":
				mine = append(mine, i)
				if r.Oddcert.Alerts != len(alerts) || (r.TLS.Established != nil && *r.TLS.Established) != over {
					t.Errorf("over %v, %d alerts: %s", over, len(alerts), r.line)
				}
			case r.Event.Dataset == "oddcert.handshake":
				others = append(others, i)
			}
		}
		if len(mine) != 1 || len(others) != 2 {
			t.Fatalf("over %v: handshakes at %v and %v", over, mine, others)
		}
		at, ok := alerts["Shown"]
		late, established := alerts["Established"]
		if !ok || at > others[0] || mine[0] < others[0] || established != over || over && late < others[1] {
			t.Errorf("over %v: alerts at %v, its handshake at %d, others at %v", over, alerts, mine[0], others)
		}
	}
}

// TestPromptRecords replays captures in which all packets are far apart, and gives
// them to a live sensor, which raises alerts before the handshakes are over. The
// records are the same in the end, but for what an alert could not know yet.
func TestPromptRecords(t *testing.T) {
	paths, err := filepath.Glob("../../testdata/captures/*/capture.pcap")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d captures: %v", len(paths), err)
	}
	earlier := 0
	for _, path := range paths {
		frames := framesOf(t, path, time.Unix(1.7e9, 0), 700*time.Millisecond)
		want, got := run(t, false, frames), run(t, true, frames)
		sorted := func(all []told, dataset string, of func(*told) string) (list []string) {
			for i := range all {
				if all[i].Event.Dataset == "oddcert."+dataset {
					list = append(list, of(&all[i]))
				}
			}
			slices.Sort(list)
			return list
		}
		whole := func(r *told) string {
			if f := r.Oddcert.Flagged; f != nil { // when the alert was raised, which is earlier
				return strings.Replace(r.line, f.Time, "", 1)
			}
			return r.line
		}
		for _, dataset := range []string{"handshake", "certificate", "sighting", "hello"} {
			if a, b := sorted(got, dataset, whole), sorted(want, dataset, whole); !slices.Equal(a, b) {
				t.Errorf("%s, %s: live\n%s\nreplayed\n%s", path, dataset, a, b)
			}
		}
		id := func(r *told) string {
			if s := r.Oddcert.Suppressed; s != nil { // its id has the time of the first alert
				return fmt.Sprint(s.Count, " more of ", r.Rule.Name)
			}
			return r.Event.ID + " " + r.Rule.Name
		}
		if a, b := sorted(got, "alert", id), sorted(want, "alert", id); !slices.Equal(a, b) {
			t.Errorf("%s: alerts live\n%s\nreplayed\n%s", path, a, b)
		}
		ends := map[string]time.Time{}
		for _, r := range want {
			ends[id(&r)] = r.Time
		}
		for _, r := range got {
			if r.Event.Dataset == "oddcert.alert" && r.Time.Before(ends[id(&r)]) {
				earlier++
			}
		}
	}
	if earlier < 10 {
		t.Errorf("%d alerts came before the end of their handshakes", earlier)
	}
}
