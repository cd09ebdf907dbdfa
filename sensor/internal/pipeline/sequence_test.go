package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// orderedRules are rules whose matches depend on those before: one that is
// suppressed, with or without that, one that only a correlation looks at, and the
// correlation.
func orderedRules(t testing.TB, suppress string) *rules.Set {
	t.Helper()
	set, err := rules.Load(rules.Source{Name: "dir", FS: fstest.MapFS{"r.yml": {Data: fmt.Appendf(nil, `title: Suppressed
id: 11111111-0000-0000-0000-000000000001
level: low
logsource: {product: oddcert}
detection: {a: {server.port|gte: 1}, condition: a}
%s
---
title: Plain
id: 11111111-0000-0000-0000-000000000002
level: low
logsource: {product: oddcert}
detection: {a: {tls.version: '1.2'}, condition: a}
---
title: Counted
id: 11111111-0000-0000-0000-000000000003
name: counted
level: low
logsource: {product: oddcert}
detection: {a: {oddcert.certificates: extracted}, condition: a}
---
title: Correlation
id: 11111111-0000-0000-0000-000000000004
level: low
correlation: {type: value_count, rules: counted, group-by: server.ip, timespan: 10m, condition: {gte: 3, field: client.ip}}
`, suppress)}}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// replayRules reads captures with rules of one's own.
func replayRules(t testing.TB, set *rules.Set, workers int, paths ...string) []byte {
	t.Helper()
	source, err := capture.OpenFiles(paths, capture.FileOptions{Warn: func(err error) { t.Log(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	var lines bytes.Buffer
	p := New(Config{
		Workers: workers, Rules: set, Records: output.Options{Datasets: everything}, Limits: flow.DefaultLimits,
		Outputs: []output.Output{output.NewLines(output.NewSink(&lines, output.SinkOptions{Block: true}), everything)},
		Now:     func() time.Time { return time.Unix(1e9, 0) },
	})
	if err := p.Replay(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	if err := p.config.Outputs[0].Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return withoutStats(lines.Bytes())
}

// Each match is an alert, or counted in one summary; what correlations count raises
// no alerts; and what comes out does not depend on the number of workers.
func TestOrdered(t *testing.T) {
	path, _ := generate(t, named(t, "clean", 0.05))
	type alert struct {
		Rule  struct{ Name string }
		Event struct {
			ID     string
			Reason string
		}
		Time    time.Time `json:"@timestamp"`
		Oddcert struct {
			Alerts     int
			Suppressed *struct {
				Count int
				First string `json:"first_alert"`
			}
			Correlation *struct{ Count int }
		}
	}
	count := func(lines []byte) (raised, counted map[string]int, told int) {
		raised, counted = map[string]int{}, map[string]int{}
		ids := map[string]bool{}
		var last time.Time
		for line := range bytes.Lines(lines) {
			var a alert
			if err := json.Unmarshal(line, &a); err != nil {
				t.Fatal(err)
			}
			told += a.Oddcert.Alerts
			if a.Rule.Name == "" {
				continue
			}
			if a.Time.Before(last) {
				t.Errorf("an alert of %v after one of %v", a.Time, last)
			}
			last = a.Time
			if ids[a.Event.ID] {
				t.Errorf("the id %s is there twice", a.Event.ID)
			}
			ids[a.Event.ID] = true
			if (a.Oddcert.Correlation != nil) != (a.Rule.Name == "Correlation") {
				t.Errorf("%s", line)
			}
			if s := a.Oddcert.Suppressed; s != nil {
				counted[a.Rule.Name] += s.Count
				if !ids[s.First] || s.Count == 0 {
					t.Errorf("a summary of %d after %q, which is no alert", s.Count, s.First)
				}
				continue
			}
			raised[a.Rule.Name]++
		}
		return raised, counted, told
	}
	want, none, told := count(replayRules(t, orderedRules(t, ""), 1, path))
	if len(none) > 0 || want["Suppressed"] == 0 || want["Plain"] == 0 || want["Counted"] != 0 || want["Correlation"] == 0 || told != want["Suppressed"]+want["Plain"]+want["Correlation"] {
		t.Fatalf("%v are raised, %v counted, %d told", want, none, told)
	}
	set := orderedRules(t, "oddcert: {suppress: {by: [server.ip], for: 5s}}")
	lines := replayRules(t, set, 1, path)
	raised, counted, toldNow := count(lines)
	if raised["Suppressed"]+counted["Suppressed"] != want["Suppressed"] || counted["Suppressed"] == 0 || len(counted) != 1 {
		t.Errorf("%v are raised, %v counted, %v match", raised, counted, want)
	}
	if raised["Plain"] != want["Plain"] || raised["Correlation"] != want["Correlation"] || raised["Counted"] != 0 || toldNow != told {
		t.Errorf("%v are raised, want %v; handshakes tell %d, want %d", raised, want, toldNow, told)
	}
	t.Logf("%v are raised, %v counted", raised, counted)
	for _, workers := range []int{2, 8} {
		if other := replayRules(t, set, workers, path); !bytes.Equal(other, lines) {
			t.Errorf("the output of %d workers differs from that of one", workers)
		}
	}
	// At the end of a capture, what is under way is told and forgotten.
	if twice := replayRules(t, set, 2, path, path); !bytes.Equal(twice, append(bytes.Clone(lines), lines...)) {
		t.Errorf("a capture has other records after itself: %d bytes, and %d alone", len(twice), len(lines))
	}
}
