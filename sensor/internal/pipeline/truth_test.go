package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// generate writes a capture with known truth.
func generate(t testing.TB, spec traffic.Spec) (string, *traffic.Truth) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "generated.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	truth, err := traffic.Generate(f, spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, truth
}

func named(t testing.TB, kind string, scale float64) traffic.Spec {
	t.Helper()
	spec, err := traffic.Named(kind, scale, 1)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// builtin is the rule set of the program, but for the rules on forged certificates:
// those of the tests go by what a certificate says, need no judge, and count no alert
// instead of raising it.
func builtin(t testing.TB) *rules.Set {
	t.Helper()
	set, err := rules.Load(rules.Builtin(), rules.Dir("testdata/rules"))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// everything is all datasets.
const everything = output.Records

// replayed is what came of reading captures.
type replayed struct {
	lines    []byte
	counters *output.Counters
	pipeline *Pipeline
}

// replay reads captures with a number of workers.
func replay(t testing.TB, workers int, limits flow.Limits, paths ...string) replayed {
	t.Helper()
	source, err := capture.OpenFiles(paths, capture.FileOptions{Warn: func(err error) { t.Log(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var lines bytes.Buffer
	out := output.NewLines(output.NewSink(&lines, output.SinkOptions{Block: true}), everything)
	p := New(Config{
		Workers:  workers,
		Rules:    builtin(t),
		Observer: output.Observer{Name: "test", Version: "test"},
		Records:  output.Options{Datasets: everything},
		Outputs:  []output.Output{out},
		Limits:   limits,
		Parsers:  parsers.DefaultLimits,
		Encoders: output.DefaultCache,
		Now:      func() time.Time { return time.Unix(1e9, 0) },
	})
	if err := p.Replay(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return replayed{lines.Bytes(), p.Counters(source.Stats()), p}
}

// event is what the tests read of a record.
type emitted struct {
	Event struct {
		Dataset string `json:"dataset"`
		ID      string `json:"id"`
	} `json:"event"`
	Timestamp           string `json:"@timestamp"`
	Source, Destination struct {
		IP     netip.Addr `json:"ip"`
		Port   uint16     `json:"port"`
		Domain string     `json:"domain"`
	}
	TLS struct {
		Client struct {
			JA3 string `json:"ja3"`
		} `json:"client"`
		Server struct {
			Hash hash `json:"hash"`
		} `json:"server"`
	} `json:"tls"`
	Network struct {
		Transport string `json:"transport"`
		VLAN      struct {
			ID json.RawMessage `json:"id"`
		} `json:"vlan"`
		Inner struct {
			VLAN struct {
				ID json.RawMessage `json:"id"`
			} `json:"vlan"`
		} `json:"inner"`
	} `json:"network"`
	Oddcert struct {
		Certificates json.RawMessage `json:"certificates"` // an outcome, or counters in statistics
		Alternative  bool            `json:"alternative"`
		JA4          string          `json:"ja4"`
		Certificate  struct {
			Hash hash `json:"hash"`
		} `json:"certificate"`
		Chain       traffic.Hashes `json:"chain"`
		ClientChain traffic.Hashes `json:"client_chain"`
	} `json:"oddcert"`
	Rule struct {
		Name    string `json:"name"`
		Ruleset string `json:"ruleset"`
	} `json:"rule"`
}

type hash struct {
	SHA256 string `json:"sha256"`
}

func events(t testing.TB, lines []byte) (all []emitted) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var e emitted
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, e)
	}
	return all
}

// found turns handshake records into what the truth compares.
func found(t testing.TB, lines []byte) (all []traffic.Found) {
	t.Helper()
	var alternatives []traffic.Found
	for _, e := range events(t, lines) {
		if e.Event.Dataset != "oddcert.handshake" {
			continue
		}
		f := traffic.Found{
			Client:  netip.AddrPortFrom(e.Source.IP, e.Source.Port),
			Server:  netip.AddrPortFrom(e.Destination.IP, e.Destination.Port),
			Outcome: strings.Trim(string(e.Oddcert.Certificates), `"`),
			Chain:   e.Oddcert.Chain, ClientChain: e.Oddcert.ClientChain,
		}
		for _, raw := range []json.RawMessage{e.Network.VLAN.ID, e.Network.Inner.VLAN.ID} {
			var id uint16
			if n, err := fmt.Sscanf(string(bytes.Trim(raw, `"`)), "%d", &id); n == 1 && err == nil {
				f.VLANs = append(f.VLANs, id)
			}
		}
		if e.Oddcert.Alternative {
			alternatives = append(alternatives, f)
		} else {
			all = append(all, f)
		}
	}
	// Where segments came with different content, either copy may be the true one.
	for _, f := range alternatives {
		for i, o := range all {
			if o.Client == f.Client && o.Server == f.Server && slices.Equal(o.VLANs, f.VLANs) && o.Outcome == "lost" {
				all[i] = f
			}
		}
	}
	return all
}

// Ten thousand handshakes with reordered, repeated, overlapping and lost
// segments: every visible certificate is found, every planted one raises its
// alert and no other does, the sums add up, and the number of workers does not
// show in a single byte.
func TestTruth(t *testing.T) {
	scale := 1.0
	if testing.Short() {
		scale = 0.1
	}
	path, truth := generate(t, named(t, "truth", scale))
	one := replay(t, 1, flow.DefaultLimits, path)
	for _, workers := range []int{2, 8} {
		if other := replay(t, workers, flow.DefaultLimits, path); !bytes.Equal(one.lines, other.lines) {
			t.Errorf("the output of %d workers differs from that of one", workers)
		}
	}
	for _, d := range truth.Check(found(t, one.lines)) {
		t.Error(d)
	}
	checkSums(t, one)
	checkAlerts(t, truth, one)
}

// Every kind of handshake, with frames lost, repeated, reordered and overlapped
// at several rates: every certificate whose bytes were all captured is found,
// none is wrong, and the sums add up.
func TestImpaired(t *testing.T) {
	scale := 0.1
	if testing.Short() {
		scale = 0.01
	}
	faults := map[string]func(rate float64) traffic.Impairment{
		"drop":      func(rate float64) traffic.Impairment { return traffic.Impairment{Drop: rate} },
		"duplicate": func(rate float64) traffic.Impairment { return traffic.Impairment{Duplicate: rate} },
		"reorder":   func(rate float64) traffic.Impairment { return traffic.Impairment{Reorder: rate} },
		"overlap":   func(rate float64) traffic.Impairment { return traffic.Impairment{Overlap: rate} },
		"all":       traffic.Uniform,
	}
	for _, fault := range slices.Sorted(maps.Keys(faults)) {
		for _, rate := range []float64{0.001, 0.01, 0.05, 0.1} {
			t.Run(fmt.Sprintf("%s %g%%", fault, 100*rate), func(t *testing.T) {
				spec := named(t, "clean", scale)
				spec.Impairment = faults[fault](rate)
				path, truth := generate(t, spec)
				r := replay(t, 1, flow.DefaultLimits, path)
				for _, d := range truth.Check(found(t, r.lines)) {
					t.Error(d)
				}
				checkSums(t, r)
			})
		}
	}
}

// checkSums holds the counters against each other.
func checkSums(t *testing.T, r replayed) {
	t.Helper()
	c := r.counters
	var outcomes, losses, decoded uint64
	for _, n := range c.Parser.Outcomes {
		outcomes += n
	}
	for _, n := range c.Parser.Losses {
		losses += n
	}
	if outcomes != c.Parser.Handshakes || losses != c.Parser.Outcomes[event.Lost] {
		t.Errorf("%d handshakes, %d outcomes; %d lost, %d losses", c.Parser.Handshakes, outcomes, c.Parser.Outcomes[event.Lost], losses)
	}
	for _, n := range r.pipeline.total.decoded {
		decoded += n
	}
	if decoded != c.Capture.Frames {
		t.Errorf("%d frames, %d decoded", c.Capture.Frames, decoded)
	}
	f := r.pipeline.total.flows
	if f.Open != 0 || f.Flows != f.Embryonic+f.Undecided+f.Decided || f.Panics != 0 {
		t.Errorf("flows: %+v", f)
	}
	if total := &r.pipeline.total; total.unmatched+total.unencoded+r.pipeline.recorder.unencoded > 0 {
		t.Errorf("a failure: %+v", r.pipeline.Failure())
	}
	// What a handshake refers to is told, and told once.
	records := map[string]uint64{}
	told := map[string]int{}
	all := events(t, r.lines)
	for i := range all {
		e := &all[i]
		records[e.Event.Dataset]++
		switch e.Event.Dataset {
		case "oddcert.certificate":
			told[e.Oddcert.Certificate.Hash.SHA256]++
		case "oddcert.hello":
			told[e.Oddcert.JA4+e.TLS.Client.JA3]++
		case "oddcert.sighting":
			told[sighted(e, e.Oddcert.Certificate.Hash.SHA256)]++
		}
	}
	for i := range all {
		e := &all[i]
		if e.Event.Dataset != "oddcert.handshake" {
			continue
		}
		parts := slices.Concat(e.Oddcert.Chain, e.Oddcert.ClientChain)
		if e.TLS.Client.JA3 != "" {
			parts = append(parts, e.Oddcert.JA4+e.TLS.Client.JA3)
		}
		if leaf := e.TLS.Server.Hash.SHA256; leaf != "" {
			parts = append(parts, sighted(e, leaf))
		}
		for _, part := range parts {
			if told[part] != 1 {
				t.Errorf("%s is told %d times", part, told[part])
			}
		}
	}
	for dataset, n := range map[string]uint64{
		"handshake": c.Parser.Handshakes, "certificate": c.Told.Certificates, "sighting": c.Told.Sightings, "hello": c.Told.Hellos, "stats": 1,
	} {
		if records["oddcert."+dataset] != n {
			t.Errorf("%d records of %s, %d counted", records["oddcert."+dataset], dataset, n)
		}
	}
}

// sighted identifies a leaf on the server of e, under the name asked for.
func sighted(e *emitted, leaf string) string {
	d := &e.Destination
	return fmt.Sprint(leaf, d.IP, d.Port, e.Network.Transport, d.Domain)
}

// checkAlerts compares the servers that raised alerts with those that showed a
// planted certificate.
func checkAlerts(t *testing.T, truth *traffic.Truth, r replayed) {
	t.Helper()
	type where struct {
		client, server netip.AddrPort
	}
	planted := map[where]bool{}
	for i := range truth.Connections {
		c := &truth.Connections[i]
		for _, s := range c.Chain {
			if s.Whole && truth.Certificates[s.Certificate].Plant != "" {
				planted[where{c.Client, c.Server}] = true
			}
		}
	}
	if len(planted) == 0 {
		t.Error("nothing is planted")
	}
	alerted := map[where]bool{}
	for _, e := range events(t, r.lines) {
		if e.Event.Dataset != "oddcert.alert" || e.Rule.Ruleset == "evasion" { // which the faults of the capture look like
			continue
		}
		w := where{netip.AddrPortFrom(e.Source.IP, e.Source.Port), netip.AddrPortFrom(e.Destination.IP, e.Destination.Port)}
		alerted[w] = true
		if !planted[w] {
			t.Errorf("an alert that nothing was planted for: %v, %s", w, e.Rule.Name)
		}
	}
	for w := range planted {
		if !alerted[w] {
			t.Errorf("no alert for %v", w)
		}
	}
}

// Many passes over a capture are like one: no flow is left, no memory is kept.
func TestManyPasses(t *testing.T) {
	path, _ := generate(t, named(t, "truth", 0.05))
	passes := func(n int) (replayed, uint64) {
		paths := make([]string, n)
		for i := range paths {
			paths[i] = path
		}
		r := replay(t, 2, flow.DefaultLimits, paths...)
		r.lines, r.pipeline.config.Outputs = nil, nil // they hold the records
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		runtime.KeepAlive(r.pipeline)
		return r, m.HeapAlloc
	}
	one, _ := passes(1)
	_, before := passes(5) // buffers have grown to their size
	ten, after := passes(15)
	if ten.counters.Parser.Handshakes != 15*one.counters.Parser.Handshakes {
		t.Errorf("%d handshakes in fifteen passes, %d in one", ten.counters.Parser.Handshakes, one.counters.Parser.Handshakes)
	}
	if f := ten.pipeline.total.flows; f.Open != 0 {
		t.Errorf("%d flows are left", f.Open)
	}
	if after > before+2<<20 {
		t.Errorf("%d bytes are in use after fifteen passes, %d after five", after, before)
	}
}

// Records come in the order of time.
func TestOrder(t *testing.T) {
	path, _ := generate(t, named(t, "clean", 0.05))
	var last string
	for _, e := range events(t, replay(t, 2, flow.DefaultLimits, path).lines) {
		if e.Event.Dataset != "oddcert.handshake" {
			continue
		}
		if e.Timestamp < last {
			t.Errorf("%s after %s", e.Timestamp, last)
		}
		last = e.Timestamp
	}
	if last == "" {
		t.Error("no records")
	}
}
