package pipeline

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
	"weak"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// reel is a source of frames in memory, a few in each batch.
type reel struct {
	frames  []capture.Frame
	size    int    // of a batch
	between func() // is called before each batch
	number  uint64
}

func (s *reel) Next() (*capture.Batch, error) {
	s.between()
	if len(s.frames) == 0 {
		return nil, io.EOF
	}
	n := min(s.size, len(s.frames))
	b := &capture.Batch{Frames: slices.Clone(s.frames[:n])}
	s.frames = s.frames[n:]
	s.number += uint64(n)
	return b, nil
}

func (s *reel) Stats() capture.Stats { return capture.Stats{Frames: s.number} }
func (s *reel) Close() error         { return nil }

// generatedFrames are the frames of a capture of the generator, in slow motion: there
// are ticks between them.
func generatedFrames(t testing.TB, kind string, scale float64) (all []capture.Frame) {
	t.Helper()
	path, _ := generate(t, named(t, kind, scale))
	source, err := capture.OpenFiles([]string{path}, capture.FileOptions{Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var start, now int64
	for {
		b, err := source.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b.Frames {
			if start == 0 {
				start = f.Time
			}
			f.Data = bytes.Clone(f.Data)
			f.Time = start + 20*(f.Time-start)
			now = max(now, f.Time)
			f.Clock = now
			all = append(all, f)
		}
		b.Release()
	}
}

// loadRules loads rules from files and, with builtin, those of the program.
func loadRules(t testing.TB, builtin bool, files fstest.MapFS) *rules.Set {
	t.Helper()
	sources := []rules.Source{{Name: "dir", FS: files}}
	if builtin {
		sources = append([]rules.Source{rules.Builtin(rules.Optional()...)}, sources...)
	}
	set, err := rules.Load(sources...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func loadTables(t testing.TB, o judge.Options) *judge.Tables {
	t.Helper()
	if o.Packs == nil {
		o.Packs = rules.PackFiles()
	}
	tables, err := judge.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// reloading is a run that writes to memory.
type reloading struct {
	*Pipeline
	lines bytes.Buffer
}

func newReloading(workers int, datasets output.Set, set *rules.Set, tables *judge.Tables) *reloading {
	r := new(reloading)
	r.Pipeline = New(Config{
		Workers: workers, Rules: set, Judge: tables, Records: output.Options{Datasets: datasets}, Limits: flow.DefaultLimits, Parsers: parsers.DefaultLimits,
		Outputs: []output.Output{output.NewLines(output.NewSink(&r.lines, output.SinkOptions{Block: true}), datasets)},
		Now:     func() time.Time { return time.Unix(1e9, 0) },
	})
	return r
}

// records ends the run, and returns what it wrote but for statistics.
func (r *reloading) records(t testing.TB, err error) []byte {
	t.Helper()
	if err == nil {
		err = r.config.Outputs[0].Close(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := r.total.unmatched + r.ordered.unmatched + r.sequence.failures; n > 0 {
		t.Fatalf("%d failures: %+v", n, r.Failure())
	}
	return withoutStats(r.lines.Bytes())
}

// constantRules say the same in all sets: a rule without state, one that is
// suppressed, one that a correlation counts, one that asks for trust, and one that asks
// how many servers show a certificate.
const constantRules = `title: Constant
id: 11111111-0000-0000-0000-000000000001
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1}, condition: a}
---
title: Suppressed
id: 11111111-0000-0000-0000-000000000002
name: suppressed
level: low
logsource: {product: oddcert}
detection: {a: {tls.version: '1.2'}, condition: a}
oddcert: {suppress: {by: [server.ip], for: 5s}}
---
title: Correlation
id: 11111111-0000-0000-0000-000000000003
level: low
correlation: {type: value_count, rules: suppressed, generate: true, group-by: server.ip, timespan: 10m, condition: {gte: 3, field: client.ip}}
---
title: Trust
id: 11111111-0000-0000-0000-000000000004
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1, oddcert.trust.status: [self-signed, incomplete]}, condition: a}
oddcert: {verdict: forged, suppress: {by: [server.ip], for: 1h}}
---
title: Prevalence
id: 11111111-0000-0000-0000-000000000005
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1, oddcert.prevalence.clients|gte: 3}, condition: a}
oddcert: {suppress: {by: [server.ip, client.ip], for: 30s}}
`

// Whenever the same rules and tables are loaded again, the records are byte for byte
// what they are without that, whatever the number of workers. Full handshakes alone
// may tell more: how often a certificate was seen is in those that were put off until
// their turn in the order.
func TestReloadSame(t *testing.T) {
	scale := 0.2
	if testing.Short() {
		scale = 0.03
	}
	frames := generatedFrames(t, "clean", scale)
	internal := filepath.Join(t.TempDir(), "internal.txt")
	if err := os.WriteFile(internal, []byte("10.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sets []*rules.Set
	var tables []*judge.Tables
	// Some handshakes match no rule.
	text := strings.NewReplacer("server.port|gte: 1", "client.port|gte: 45000", "{tls.version: '1.2'}", "{tls.version: '1.2', client.port|gte: 40000}").Replace(constantRules)
	for range 3 {
		sets = append(sets, loadRules(t, true, fstest.MapFS{"r.yml": {Data: []byte(text)}}))
		tables = append(tables, loadTables(t, judge.Options{Networks: []string{internal}}))
	}
	const full = everything&^(1<<output.Handshake) | 1<<output.FullHandshake
	prevalence := regexp.MustCompile(`"prevalence":\{[^}]*\},?`)
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		workers  int // 0 for a live capture
		datasets output.Set
	}{{1, everything}, {4, everything}, {4, full}, {0, everything}} {
		var want []byte
		var counted []output.RuleCount
		for _, reload := range []bool{false, true} {
			r, n := newReloading(max(c.workers, 1), c.datasets, sets[0], tables[0]), 0
			source := &reel{frames: frames, size: 97, between: func() {
				if reload && random.IntN(3) == 0 {
					n++
					r.Reload(sets[n%3], tables[random.IntN(3)])
				}
			}}
			var err error
			if c.workers == 0 {
				err = r.Live(context.Background(), []capture.Source{source})
			} else {
				err = r.Replay(context.Background(), source)
			}
			got, hits := r.records(t, err), r.hits.list(r.generation.rules)
			if !reload {
				want, counted = got, hits
				for _, part := range []string{"Constant", "Suppressed", "Correlation", "Trust", "Prevalence", `"suppressed":{`, `"direction":"outbound"`} {
					if !bytes.Contains(want, []byte(part)) {
						t.Errorf("no record has %s", part)
					}
				}
				plain := 0
				for line := range bytes.Lines(want) {
					if bytes.Contains(line, []byte(`"certificates":"extracted"`)) && bytes.Contains(line, []byte(`"oddcert.handshake"`)) && !bytes.Contains(line, []byte(`"alerts":`)) {
						plain++
					}
				}
				if plain == 0 {
					t.Errorf("only %d handshakes with a certificate match no rule", plain)
				}
				continue
			}
			if n < 10 {
				t.Errorf("only %d reloads", n)
			}
			if c.datasets == full {
				got, want = prevalence.ReplaceAll(got, nil), prevalence.ReplaceAll(want, nil)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d workers: the records with %d reloads differ: %s", c.workers, n, firstDifference(got, want))
			}
			if !slices.EqualFunc(hits, counted, func(a, b output.RuleCount) bool { return a.Rule.ID == b.Rule.ID && a.Matches == b.Matches }) {
				t.Errorf("%d workers: %v matches with reloads, %v without", c.workers, hits, counted)
			}
		}
	}
}

// firstDifference shows where two lists of lines differ first.
func firstDifference(a, b []byte) string {
	one, two := bytes.SplitAfter(a, []byte("\n")), bytes.SplitAfter(b, []byte("\n"))
	for i := range min(len(one), len(two)) {
		if !bytes.Equal(one[i], two[i]) {
			return fmt.Sprintf("line %d\n%s%s", i+1, one[i], two[i])
		}
	}
	return fmt.Sprintf("%d lines, %d lines", len(one), len(two))
}

// numbered is a set with the constant rules, a rule that is in this set alone, and one
// that says something else in each.
func numbered(t testing.TB, n int) *rules.Set {
	return loadRules(t, false, fstest.MapFS{"r.yml": {Data: fmt.Appendf([]byte(constantRules), `---
title: Only %[1]d
id: 22222222-0000-0000-0000-%012[1]d
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1}, condition: a}
---
title: Changed %[1]d
id: 33333333-0000-0000-0000-000000000000
level: low
modified: 2026-01-%02[1]d
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1}, condition: a}
oddcert: {suppress: {by: [client.ip, client.port, server.port], for: 1s}}
`, n)}})
}

// Rules come, go and change while handshakes come: each handshake is matched by one
// set, none by an older one than that before, and what the sets have in common comes
// out as if nothing had changed.
func TestReloadChanged(t *testing.T) {
	scale := 0.2
	if testing.Short() {
		scale = 0.03
	}
	frames := generatedFrames(t, "clean", scale)
	var sets []*rules.Set
	for n := range 28 {
		sets = append(sets, numbered(t, n+1))
	}
	tables := loadTables(t, judge.Options{})
	// common are the records without those of rules that not all sets have.
	common := func(lines []byte) (rest []byte) {
		for line := range bytes.Lines(lines) {
			if !bytes.Contains(line, []byte(`"id":"22222222-`)) && !bytes.Contains(line, []byte(`"id":"33333333-`)) {
				rest = append(rest, line...)
			}
		}
		return rest
	}
	without := newReloading(1, everything, sets[0], tables)
	want := common(without.records(t, without.Replay(context.Background(), &reel{frames: frames, size: 97, between: func() {}})))
	for _, workers := range []int{1, 4} {
		r, n, batch := newReloading(workers, everything, sets[0], tables), 0, 0
		every := max(1, len(frames)/53/len(sets))
		lines := r.records(t, r.Replay(context.Background(), &reel{frames: frames, size: 53, between: func() {
			if batch++; batch%every == 0 && n+1 < len(sets) {
				n++
				r.Reload(sets[n], tables)
			}
		}}))
		if got := common(lines); !bytes.Equal(got, want) {
			t.Errorf("%d workers: %s", workers, firstDifference(got, want))
		}
		// The alerts of a handshake come before it.
		var only, changed []string
		last, handshakes, seen := 0, 0, map[int]bool{}
		ids := map[string]bool{}
		for _, e := range events(t, lines) {
			if ids[e.Event.ID] && e.Event.Dataset == "oddcert.alert" {
				t.Errorf("%s is raised twice", e.Rule.Name)
			}
			ids[e.Event.ID] = true
			switch {
			case strings.HasPrefix(e.Rule.Name, "Only"):
				only = append(only, e.Rule.Name)
			case strings.HasPrefix(e.Rule.Name, "Changed"):
				changed = append(changed, e.Rule.Name)
			case e.Event.Dataset == "oddcert.handshake":
				handshakes++
				var a, b int
				if len(only) != 1 || len(changed) != 1 {
					t.Fatalf("%d workers: alerts %v and %v of one handshake", workers, only, changed)
				}
				fmt.Sscanf(only[0], "Only %d", &a)
				fmt.Sscanf(changed[0], "Changed %d", &b)
				if a != b || a < last {
					t.Fatalf("%d workers: alerts of sets %d and %d after one of %d", workers, a, b, last)
				}
				last, seen[a], only, changed = a, true, nil, nil
			}
		}
		if len(seen) < 4 {
			t.Errorf("%d workers: only %d sets have matched", workers, len(seen))
		}
		sums := map[string]uint64{}
		for _, c := range r.Counters(capture.Stats{}).Rules {
			sums[strings.Fields(c.Rule.Title)[0]] += c.Matches
		}
		if n := uint64(handshakes); sums["Constant"] != n || sums["Only"] != n || sums["Changed"] != n || n == 0 {
			t.Errorf("%d workers: %d handshakes, and matches %v", workers, n, sums)
		}
	}
}

// A live capture under load has other rules and tables each millisecond. No rule that
// all sets have misses a handshake or raises an alert twice.
func TestReloadLive(t *testing.T) {
	scale := 0.3
	if testing.Short() {
		scale = 0.05
	}
	var sources []capture.Source
	started := make(chan struct{})
	var once sync.Once
	for seed := range 2 {
		spec := named(t, "clean", scale)
		spec.Seed += uint64(seed)
		path, _ := generate(t, spec)
		source, err := capture.OpenFiles([]string{path}, capture.FileOptions{Warn: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		sources = append(sources, &begun{source, func() { once.Do(func() { close(started) }) }})
	}
	var sets []*rules.Set
	var tables []*judge.Tables
	for n := range 7 {
		sets, tables = append(sets, numbered(t, n+1)), append(tables, loadTables(t, judge.Options{}))
	}
	r := newReloading(2, everything, sets[0], tables[0])
	ctx, end := context.WithCancel(context.Background())
	reloads := make(chan int, 1)
	go func() {
		<-started
		n := 0
		for ; ctx.Err() == nil; n++ {
			r.Reload(sets[n%len(sets)], tables[n%len(tables)])
			time.Sleep(time.Millisecond)
		}
		reloads <- n
	}()
	err := r.Live(context.Background(), sources)
	end()
	n := <-reloads
	lines := r.records(t, err)
	alerts, ids := map[string]int{}, map[string]bool{}
	handshakes := 0
	for _, e := range events(t, lines) {
		switch {
		case e.Event.Dataset == "oddcert.handshake":
			handshakes++
		case e.Rule.Name != "":
			alerts[strings.Fields(e.Rule.Name)[0]]++
			if ids[e.Event.ID] {
				t.Errorf("%s is raised twice", e.Rule.Name)
			}
			ids[e.Event.ID] = true
		}
	}
	if n < 3 || handshakes == 0 || alerts["Constant"] != handshakes || alerts["Changed"] != handshakes || alerts["Only"] < handshakes {
		t.Errorf("%d reloads, %d handshakes, alerts %v", n, handshakes, alerts)
	}
	t.Logf("%d reloads, %d handshakes", n, handshakes)
}

// begun is a source that says when it is read first.
type begun struct {
	capture.Source
	tell func()
}

func (s *begun) Next() (*capture.Batch, error) {
	s.tell()
	return s.Source.Next()
}

// scene is a part of what happens on a network.
type scene struct {
	frames     []capture.Frame
	handshakes int                       // that it has
	until      func(records []byte) bool // it is over then, if not nil, and when its handshakes have records
	then       func(records []byte)      // is called when it is over, if not nil, with what was written in it
}

// stage is a live source that gives one scene after another, and the output of what
// comes of them.
type stage struct {
	scenes   []scene
	deadline time.Time

	mutex      sync.Mutex
	handshakes int // written
	settled    int // with all their records
	lines      []byte
}

func (s *stage) Next() (*capture.Batch, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.scenes) == 0 || time.Now().After(s.deadline) {
		return nil, io.EOF
	}
	now := &s.scenes[0]
	switch {
	case len(now.frames) > 0:
		b := &capture.Batch{Frames: now.frames[:1]}
		now.frames = now.frames[1:]
		return b, nil
	case s.settled >= now.handshakes && (now.until == nil || now.until(s.lines)):
		if now.then != nil {
			now.then(s.lines)
		}
		s.scenes, s.handshakes, s.settled, s.lines = s.scenes[1:], 0, 0, nil
	default:
		time.Sleep(time.Millisecond)
	}
	return &capture.Batch{}, nil
}

func (s *stage) Write(r *output.Record) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.lines = append(append(s.lines, r.JSON...), '\n')
	if r.Dataset == output.Handshake {
		s.handshakes++
	}
	return nil
}

// idle is called when all that was found is written.
func (s *stage) idle() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.settled = s.handshakes
}

func (s *stage) Stats() capture.Stats      { return capture.Stats{} }
func (*stage) Close(context.Context) error { return nil }

// stageSource is a stage as a source.
type stageSource struct{ *stage }

func (stageSource) Close() error { return nil }

// play gives scenes to a live pipeline that begins with some rules and tables. p is
// set before the first.
func play(t *testing.T, p **Pipeline, set *rules.Set, tables *judge.Tables, scenes ...scene) {
	t.Helper()
	s := &stage{scenes: scenes, deadline: time.Now().Add(2 * time.Minute)}
	*p = New(Config{
		Workers: 1, Rules: set, Judge: tables, Records: output.Options{Datasets: everything}, Outputs: []output.Output{s},
		Limits: flow.DefaultLimits, Parsers: parsers.DefaultLimits, Idle: s.idle,
	})
	if err := (*p).Live(context.Background(), []capture.Source{stageSource{s}}); err != nil {
		t.Fatal(err)
	}
	if len(s.scenes) > 0 {
		t.Fatalf("the last %d scenes are not over in time", len(s.scenes))
	}
}

// oneHandshake is the frames of a connection, the nth, on ports of its own.
func oneHandshake(t testing.TB, n int) []capture.Frame {
	t.Helper()
	frames := framesOf(t, "../../testdata/captures/tls12-chain/capture.pcap", time.Unix(1.8e9, 0).Add(time.Duration(n)*time.Second), time.Millisecond)
	for i := range frames {
		_, tcp, ok := segmentOf(frames[i].Data)
		if !ok {
			t.Fatal("the capture has other frames than those of TCP")
		}
		for at := tcp; at < tcp+4; at += 2 {
			port := frames[i].Data[at : at+2]
			binary.BigEndian.PutUint16(port, binary.BigEndian.Uint16(port)^uint16(n))
		}
		frames[i].Checksum = capture.ChecksumValid // it was
	}
	return frames
}

// raised returns how many alerts of a rule there are among records.
func raised(t testing.TB, records []byte, title string) (n int) {
	t.Helper()
	for _, e := range events(t, records) {
		if e.Rule.Name == title {
			n++
		}
	}
	return n
}

// A list that has another hash raises an alert for the next handshake that shows it,
// and one that does not have it any more raises none.
func TestReloadList(t *testing.T) {
	hashes := func(more string) *rules.Set {
		return loadRules(t, false, fstest.MapFS{
			"lists/bad.txt": {Data: []byte(strings.Repeat("ab", 32) + "\n" + more + "\n")},
			"r.yml": {Data: []byte(`title: Listed
id: 11111111-0000-0000-0000-000000000001
level: high
logsource: {product: oddcert}
detection: {a: {tls.server.hash.sha256|expand: '%bad%'}, condition: a}
`)}})
	}
	var p *Pipeline
	var got []int
	note := func(records []byte) { got = append(got, raised(t, records, "Listed")) }
	play(t, &p, hashes(""), nil,
		scene{frames: oneHandshake(t, 0), handshakes: 1, then: func(records []byte) {
			note(records)
			for _, e := range events(t, records) {
				if e.Event.Dataset == "oddcert.handshake" {
					p.Reload(hashes(e.TLS.Server.Hash.SHA256), nil)
				}
			}
		}},
		scene{frames: oneHandshake(t, 1), handshakes: 1, then: func(records []byte) {
			note(records)
			p.Reload(hashes(""), nil)
		}},
		scene{frames: oneHandshake(t, 2), handshakes: 1, then: note})
	if !slices.Equal(got, []int{0, 1, 0}) {
		t.Errorf("%v alerts without the hash in the list, with it, and without", got)
	}
	if c := p.Counters(capture.Stats{}); len(c.Rules) != 1 || c.Rules[0].Matches != 1 {
		t.Errorf("%+v are counted", c.Rules)
	}
}

// Other roots and networks hold for the next handshake.
func TestReloadTables(t *testing.T) {
	set := loadRules(t, false, fstest.MapFS{"r.yml": {Data: []byte(`title: Ours
id: 11111111-0000-0000-0000-000000000001
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1, oddcert.trust.store: operator}, condition: a}
---
title: Outbound
id: 11111111-0000-0000-0000-000000000002
level: low
logsource: {product: oddcert}
detection: {a: {network.direction: [outbound, internal]}, condition: a}
`)}})
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := loadTables(t, judge.Options{})
	var p *Pipeline
	var got []string
	note := func(records []byte) {
		got = append(got, fmt.Sprint(raised(t, records, "Ours"), raised(t, records, "Outbound")))
	}
	play(t, &p, set, plain,
		scene{frames: oneHandshake(t, 0), handshakes: 1, then: func(records []byte) {
			note(records)
			var roots, clients []byte
			for line := range bytes.Lines(records) {
				var r struct {
					Source  struct{ IP string }
					Oddcert struct{ Certificate struct{ DER string } }
				}
				if err := json.Unmarshal(line, &r); err != nil {
					t.Fatal(err)
				}
				clients = fmt.Appendf(clients, "%s\n", r.Source.IP)
				if der, err := base64.StdEncoding.DecodeString(r.Oddcert.Certificate.DER); err == nil && len(der) > 0 {
					roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
				}
			}
			p.Reload(set, loadTables(t, judge.Options{
				Roots: []string{write("roots.pem", string(roots))}, Networks: []string{write("internal.txt", string(clients))},
			}))
		}},
		scene{frames: oneHandshake(t, 1), handshakes: 1, then: func(records []byte) {
			note(records)
			p.Reload(set, plain)
		}},
		scene{frames: oneHandshake(t, 2), handshakes: 1, then: note})
	if !slices.Equal(got, []string{"0 0", "1 1", "0 0"}) {
		t.Errorf("alerts %v without the root and the network, with them, and without", got)
	}
}

// When the workers have taken other rules and tables, nothing is left of those before,
// although nothing comes on the network; and many reloads take no more memory than one.
func TestReloadReleases(t *testing.T) {
	networks := filepath.Join(t.TempDir(), "networks.txt")
	var list bytes.Buffer
	for n := range 100_000 {
		fmt.Fprintf(&list, "10.%d.%d.%d/32\n", n>>16, n>>8&255, n&255)
	}
	if err := os.WriteFile(networks, list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(n int) *rules.Set {
		var hashes bytes.Buffer
		for i := range 100_000 {
			fmt.Fprintf(&hashes, "%064x\n", i)
		}
		text := fmt.Sprintf("---\ntitle: Listed\nid: 44444444-0000-0000-0000-%012d\nlevel: high\nlogsource: {product: oddcert}\n"+
			"detection: {a: {tls.server.hash.sha256|expand: '%%bad%%'}, b: {server.port|gte: 1}, condition: a or b}\noddcert: {suppress: {by: [server.ip], for: 1h}}\n", n)
		return loadRules(t, true, fstest.MapFS{"lists/bad.txt": {Data: hashes.Bytes()}, "r.yml": {Data: []byte(constantRules + text)}})
	}
	tables := func() *judge.Tables { return loadTables(t, judge.Options{Networks: []string{networks}}) }
	var p *Pipeline
	var before []func() bool // whether something of the last generation is there
	var used []uint64
	n := 0
	reload := func([]byte) {
		g := p.current.Load()
		set1, tables1 := weak.Make(g.rules), weak.Make(g.tables)
		before = []func() bool{func() bool { return set1.Value() != nil }, func() bool { return tables1.Value() != nil }}
		for _, r := range g.rules.Rules() {
			rule := weak.Make(r)
			before = append(before, func() bool { return rule.Value() != nil })
		}
		n++
		p.Reload(set(n), tables())
	}
	gone := func([]byte) bool {
		runtime.GC()
		if slices.ContainsFunc(before, func(there func() bool) bool { return there() }) {
			return false
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		used = append(used, m.HeapAlloc)
		return true
	}
	var scenes []scene
	for i := range 6 {
		scenes = append(scenes, scene{frames: oneHandshake(t, i), handshakes: 1, then: reload}, scene{until: gone})
	}
	play(t, &p, set(0), tables(), scenes...)
	if len(used) != 6 || used[5] > used[1]+2<<20 {
		t.Errorf("%d bytes are in use after reloads", used)
	}
	if c := p.Counters(capture.Stats{}).Rules; c[len(c)-1].Rule.ID == "" || p.Matched() < 12 {
		t.Errorf("%d matches: %+v", p.Matched(), c)
	}
	t.Logf("%d bytes are in use after reloads", used)
}

// More rules that are gone than statistics name are counted together, and a rule that
// comes back goes on with its count.
func TestReloadHits(t *testing.T) {
	rule := func(n int) string {
		return fmt.Sprintf("---\ntitle: Rule %[1]d\nid: 55555555-0000-0000-0000-%012[1]d\nlevel: low\nlogsource: {product: oddcert}\ndetection: {a: {server.port: %[1]d}, condition: a}\n", n+1)
	}
	sets := map[bool]*rules.Set{}
	const many = maxFormer + 50
	for _, all := range []bool{true, false} {
		text := rule(0)
		for n := 1; all && n < many; n++ {
			text += rule(n)
		}
		sets[all] = loadRules(t, false, fstest.MapFS{"r.yml": {Data: []byte(text)}})
	}
	h := hits{current: map[*rules.Rule]uint64{}}
	want := uint64(0)
	for i, r := range sets[true].Rules() {
		h.current[r] = uint64(1 + i)
		want += uint64(1 + i)
	}
	sum := func(list []output.RuleCount) (n uint64) {
		for _, c := range list {
			n += c.Matches
		}
		return n
	}
	for i, all := range []bool{false, true, false, false} {
		h.use(sets[all])
		list := h.list(sets[all])
		if h.sum() != want || sum(list) != want {
			t.Errorf("step %d: the sum is %d, and %d of the list, want %d", i, h.sum(), sum(list), want)
		}
		if n := len(list); !all && n != 1+maxFormer+1 || all && n != 1+maxFormer+1 {
			t.Errorf("step %d: %d counts", i, n)
		}
		if list[0].Matches != 1 || list[0].Rule != sets[all].Rules()[0] {
			t.Errorf("step %d: %+v", i, list[0])
		}
	}
}

// A handshake that its worker has matched before a reload, and that comes to the stage
// that orders after it, is matched and judged anew: all that its record and its alerts
// say is of the new rules and tables.
func TestReloadBetween(t *testing.T) {
	list := filepath.Join(t.TempDir(), "internal.txt")
	if err := os.WriteFile(list, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inside, plain := loadTables(t, judge.Options{Networks: []string{list}}), loadTables(t, judge.Options{})
	one, two := numbered(t, 1), numbered(t, 2)
	nothing := loadRules(t, false, fstest.MapFS{"r.yml": {Data: []byte(strings.ReplaceAll(constantRules, "server.port|gte: 1", "server.port: 1"))}})
	for _, c := range []struct {
		before, after *rules.Set
		from, to      *judge.Tables
		direction     string
		alerts        int // of the rule that is in the set two alone
		handshakes    int // with records: what matches no rule has none, where it is not worth one
		summary       bool
	}{
		{one, two, inside, plain, "", 2, 2, true},
		{one, two, plain, inside, "outbound", 2, 2, true},
		{one, nothing, plain, inside, "outbound", 0, 1, false},
		{nothing, nothing, inside, plain, "", 0, 1, false},
		{nothing, nothing, plain, inside, "outbound", 0, 1, false},
	} {
		s := new(stage)
		p := New(Config{Rules: c.before, Judge: c.from, Records: output.Options{Datasets: everything}, Outputs: []output.Output{s}})
		w := p.newWorker(1, false)
		for _, unrecorded := range []bool{false, true} {
			w.handshake(&event.Handshake{Carrier: "tls", Unrecorded: unrecorded, Flow: &event.Flow{Endpoints: [2]event.Endpoint{
				{Addr: netip.MustParseAddr("192.0.2.1"), Port: 50000}, {Addr: netip.MustParseAddr("198.51.100.1"), Port: 443},
			}}})
		}
		w.finish()
		p.Reload(c.after, c.to)
		p.renew()
		for i := range w.now.items {
			if err := p.write(&w.now.items[i]); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := raised(t, s.lines, "Only 1"), raised(t, s.lines, "Only 2"); a != 0 || b != c.alerts {
			t.Errorf("%+v: %d alerts of the old set, %d of the new one", c, a, b)
		}
		if n, out := bytes.Count(s.lines, []byte(`"oddcert.handshake"`)), p.ordered.unrecorded+w.unrecorded; n != c.handshakes || n+int(out) != 2 {
			t.Errorf("%+v: %d handshakes have records, %d have none", c, n, out)
		}
		for line := range bytes.Lines(s.lines) {
			var r struct{ Network struct{ Direction string } }
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			if r.Network.Direction != c.direction {
				t.Errorf("%+v: the direction is %q: %s", c, r.Network.Direction, line)
			}
		}
		// Another reload: a rule that goes has raised one match, counted another, and tells it.
		s.lines = nil
		p.Reload(nothing, c.to)
		p.renew()
		if err := p.summarize(p.sequence.due(1)); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(s.lines, []byte(`"Changed 2: 1 more"`)); (n == 1) != c.summary || bytes.Count(s.lines, []byte("\n")) != n {
			t.Errorf("%+v: told are %s", c, s.lines)
		}
	}
}

// A rule has raised an alert for a handshake that is not over, and changes: it raises
// no other when the handshake is over. A rule that is new does.
func TestReloadUnfinished(t *testing.T) {
	const shown = 6 // packets, up to that which completes the certificate
	frames := framesOf(t, "../../testdata/captures/odd-certificate/capture.pcap", time.Unix(1.8e9, 0), time.Millisecond)
	var p *Pipeline
	tables := loadTables(t, judge.Options{})
	var before, after []byte
	alerted := func(records []byte) bool { // by all rules, whose alerts are written one by one
		whole := records[:bytes.LastIndexByte(records, '\n')+1]
		return raised(t, whole, "Constant") > 0 && raised(t, whole, "Only 1") > 0 && raised(t, whole, "Changed 1") > 0
	}
	play(t, &p, numbered(t, 1), tables,
		scene{frames: frames[:shown], until: alerted, then: func(records []byte) {
			before = records
			p.Reload(numbered(t, 2), tables)
		}},
		scene{frames: frames[shown:], handshakes: 1, then: func(records []byte) { after = records }})
	for title, want := range map[string][2]int{"Constant": {1, 0}, "Only 1": {1, 0}, "Changed 1": {1, 0}, "Only 2": {0, 1}, "Changed 2": {0, 0}} {
		if got := [2]int{raised(t, before, title), raised(t, after, title)}; got != want {
			t.Errorf("%s raises %v alerts before the reload and after it, want %v", title, got, want)
		}
	}
}
