package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/rules"
)

// TestMain lets the test binary stand in for the command where that starts
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && parts[os.Args[1]] != nil {
		main()
		return
	}
	os.Exit(m.Run())
}

// parse reads the tables of a report, each with its head first.
func parse(t *testing.T, text string) (tables [][][]string) {
	t.Helper()
	within := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			within = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !within {
			tables = append(tables, nil)
			within = true
		}
		at := &tables[len(tables)-1]
		if len(*at) == 1 && strings.Trim(strings.Join(cells, ""), "-") == "" {
			continue
		}
		if *at = append(*at, cells); strings.Count(line, "|") != len((*at)[0])+1 {
			t.Errorf("a row of another width than its head: %s", line)
		}
	}
	return tables
}

// The floods on a small scale: each program has its row, and oddcert raises all
// alerts that are due.
func TestFloods(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs and runs them")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build oddcert with")
	}
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"-floods", "-only", "certificates", "-scale", "0.05", "-dir", t.TempDir()}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	tables := parse(t, stdout.String())
	if len(tables) != 1 {
		t.Fatalf("%d tables in:\n%s", len(tables), stdout.String())
	}
	for _, row := range tables[0][1:] {
		if found, due, _ := strings.Cut(row[2], " of "); row[0] == "certificates" && row[1] == oneWorker && (found != due || due == "0") {
			t.Errorf("%s alerts", row[2])
		}
	}
	if err := run(t.Context(), []string{"-floods", "-only", "bulk"}, &stdout, &stderr); err == nil {
		t.Error("a case that is no flood is taken for one")
	}
}

// The whole command on small captures: oddcert finds what is in each of them,
// and whatever is installed has its row.
func TestCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs and runs them many times")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build oddcert with")
	}
	var stdout, stderr bytes.Buffer
	dir := t.TempDir()
	if err := run(t.Context(), []string{"-scale", "0.01", "-runs", "1", "-quick", "-dir", dir}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	tables := parse(t, stdout.String())
	if len(tables) < 2 {
		t.Fatalf("%d tables in:\n%s", len(tables), stdout.String())
	}
	for _, goal := range tables[0][1:] {
		if state, _, _ := strings.Cut(goal[2], ","); !slices.Contains([]string{"reached", "short"}, state) && !strings.HasPrefix(state, "not measured") {
			t.Errorf("%q is %q", goal[0], goal[2])
		}
	}
	timed := make(map[string]bool)
	for _, figures := range tables[1][1:] {
		if figures[4] == "wrong" && (strings.HasPrefix(figures[1], "Suricata") || strings.HasPrefix(figures[0], "live")) {
			continue
		}
		for _, cell := range figures[4:] {
			if n, err := strconv.ParseFloat(cell, 64); err != nil || n < 0 {
				t.Errorf("%q is no figure in %q", cell, figures)
			}
		}
		timed[figures[0]+"/"+figures[1]] = true
	}
	want := []string{rulesHandshakes + "/" + oneWorker, rulesHandshakes + "/" + withRules, rulesStartup + "/" + withRules}
	for _, c := range cases {
		if !slices.Contains([]string{"compressed", "rules", "live"}, c.name) {
			want = append(want, c.name+"/"+oneWorker, c.name+"/"+twoWorkers, c.name+"/"+bareLoop)
		}
	}
	for tool, row := range map[string]string{"tcpdump": mix + "/" + tcpdump, "suricata": mix + "/" + single,
		"zstd": zstdBulk + "/" + oneWorker, "gzip": gzipBulk + "/" + oneWorker} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("without %s, which is not installed", tool)
			continue
		}
		want = append(want, row)
	}
	for _, w := range want {
		if !timed[w] {
			t.Errorf("no figures for %s", w)
		}
	}
	if t.Failed() {
		t.Logf("%s", stdout.String())
	}
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-runs", "0"}, {"-scale", "0"}, {"-scale", "NaN"}, {"-only", "nothing"}, {"more"}, {"-x"}} {
		if err := run(t.Context(), args, t.Output(), t.Output()); err == nil {
			t.Errorf("%q passes", args)
		}
	}
}

// sample is a capture and its truth, in a file each.
func sample(t *testing.T) (path string, truth *traffic.Truth) {
	t.Helper()
	spec, err := traffic.Named("clean", 0.02, 1)
	if err != nil {
		t.Fatal(err)
	}
	var capture bytes.Buffer
	if truth, err = traffic.Generate(&capture, spec); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "sample.pcap")
	if err := os.WriteFile(path, capture.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path, truth
}

// The bare loop meets every frame, and does not take half a capture for one.
func TestWalk(t *testing.T) {
	path, truth := sample(t)
	var out bytes.Buffer
	if err := walk([]string{path}, &out); err != nil {
		t.Fatal(err)
	}
	var frames, sum uint64
	if _, err := fmt.Sscan(out.String(), &frames, &sum); err != nil || frames != uint64(truth.Frames) || sum == 0 {
		t.Errorf("%q for %d frames: %v", out.String(), truth.Frames, err)
	}
	if err := os.Truncate(path, truth.Bytes-1); err != nil {
		t.Fatal(err)
	}
	if err := walk([]string{path}, &out); err == nil {
		t.Error("half a frame passes")
	}
}

// object is a JSON object.
type object = map[string]any

// perfect is what a sensor writes that finds everything.
func perfect(truth *traffic.Truth) (records []object) {
	chain := func(shown []traffic.Shown) object {
		var all []string
		for _, s := range shown {
			all = append(all, truth.Certificates[s.Certificate].SHA256)
		}
		return object{"hash": object{"sha256": all}}
	}
	for _, c := range truth.Connections {
		network, planted := object{}, false
		switch len(c.VLANs) {
		case 2:
			network["inner"] = object{"vlan": object{"id": fmt.Sprint(c.VLANs[1])}}
			fallthrough
		case 1:
			network["vlan"] = object{"id": fmt.Sprint(c.VLANs[0])}
		}
		for _, s := range c.Chain {
			planted = planted || truth.Certificates[s.Certificate].Plant != ""
		}
		record := func(dataset string) object {
			return object{
				"event":       object{"dataset": dataset},
				"source":      object{"ip": c.Client.Addr(), "port": c.Client.Port()},
				"destination": object{"ip": c.Server.Addr(), "port": c.Server.Port()},
				"network":     network,
				"oddcert":     object{"certificates": c.Outcomes[0], "chain": chain(c.Chain), "client_chain": chain(c.ClientChain)},
			}
		}
		records = append(records, record("oddcert.handshake"))
		if planted {
			records[len(records)-1]["oddcert"].(object)["alerts"] = 1
			records = append(records, record("oddcert.alert"))
		}
	}
	return append(records, object{"event": object{"dataset": "oddcert.stats"},
		"oddcert": object{"certificates": object{"lost": 0}, "stats": object{"flows": object{"total": truth.Flows}}}})
}

func encode(t *testing.T, records []object) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for _, r := range records {
		if err := json.NewEncoder(&b).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

// Whatever differs from the truth is wrong.
func TestJudgeRecords(t *testing.T) {
	_, truth := sample(t)
	is := func(dataset string) func(object) bool {
		return func(r object) bool { return r["event"].(object)["dataset"] == dataset }
	}
	certified := func(r object) bool {
		return is("oddcert.handshake")(r) && len(r["oddcert"].(object)["chain"].(object)["hash"].(object)["sha256"].([]string)) > 0
	}
	for name, test := range map[string]struct {
		spoil func([]object) []object
		right bool
	}{
		"perfect": {func(r []object) []object { return r }, true},
		"lost handshake": {func(r []object) []object {
			at := slices.IndexFunc(r, is("oddcert.handshake"))
			return slices.Delete(r, at, at+1)
		}, false},
		"lost alert": {func(r []object) []object {
			at := slices.IndexFunc(r, is("oddcert.alert"))
			delete(r[at-1]["oddcert"].(object), "alerts")
			return slices.Delete(r, at, at+1)
		}, false},
		"false alert": {func(r []object) []object {
			harmless := encrypted(t, r)
			harmless["event"] = object{"dataset": "oddcert.alert"}
			at := slices.IndexFunc(r, func(r object) bool { return r["oddcert"].(object)["certificates"] == "encrypted" })
			r[at]["oddcert"].(object)["alerts"] = 1
			return append(r, harmless)
		}, false},
		"other certificate": {func(r []object) []object {
			at := slices.IndexFunc(r, certified)
			r[at]["oddcert"].(object)["chain"] = []object{{"hash": object{"sha256": "00"}}}
			return r
		}, false},
		"twice": {func(r []object) []object { return append(r, r[0]) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := judgeRecords(truth, encode(t, test.spoil(perfect(truth))))
			if err != nil {
				t.Fatal(err)
			}
			if (v.Wrong == "") != test.right {
				t.Errorf("%+v", v)
			}
			if test.right && (v.Leaves.Found == 0 || v.Leaves.Found != v.Leaves.Expected || v.Alerts.Found == 0 ||
				v.Alerts.Found != v.Alerts.Expected || v.Counters.Total != uint64(truth.Flows)) {
				t.Errorf("%+v", v)
			}
		})
	}
	if _, err := judgeRecords(truth, strings.NewReader("{")); err == nil {
		t.Error("broken JSON passes")
	}
}

// encrypted is a copy of a handshake record without a certificate.
func encrypted(t *testing.T, records []object) object {
	t.Helper()
	for _, r := range records {
		if r["event"].(object)["dataset"] == "oddcert.handshake" && r["oddcert"].(object)["certificates"] == "encrypted" {
			copied := object{}
			for k, v := range r {
				copied[k] = v
			}
			return copied
		}
	}
	t.Fatal("no handshake is encrypted")
	return nil
}

// Suricata and tshark are judged by counts.
func TestJudgeCounts(t *testing.T) {
	_, truth := sample(t)
	var events []object
	text := "\n"
	for i := range truth.Connections {
		c := &truth.Connections[i]
		leaf := leafOf(truth, c)
		tls := object{"version": "TLS 1.3"}
		if leaf != nil {
			tls["fingerprint"] = "00:11"
			text += "198.18.0.1\t3082\n"
			if strings.Contains(strings.ToLower(leaf.Subject), watched) {
				events = append(events, object{"event_type": "alert", "tls": tls})
			}
		}
		events = append(events, object{"event_type": "tls", "tls": tls})
	}
	for cut, right := range map[int]bool{0: true, 1: false} {
		v, err := judgeEVE(truth, encode(t, events[cut*len(events)/2:]))
		if err != nil || (v.Wrong == "") != right || v.Leaves.Expected == 0 || v.Alerts.Expected == 0 {
			t.Errorf("EVE: %+v, %v", v, err)
		}
		v, err = judgeLines(truth, strings.NewReader(text[cut*len(text)/2:]))
		if err != nil || (v.Wrong == "") != right {
			t.Errorf("lines: %+v, %v", v, err)
		}
	}
}

// Unanswered hellos that have no record are right if they are counted, each.
func TestJudgeUnrecorded(t *testing.T) {
	truth := new(traffic.Truth)
	var records []object
	for i := range byte(3) {
		c := traffic.Connection{Kind: traffic.Unanswered, Outcomes: []string{"lost"},
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 1000), Server: netip.MustParseAddrPort("10.1.0.1:443")}
		truth.Connections = append(truth.Connections, c)
		if i == 0 {
			records = append(records, object{"event": object{"dataset": "oddcert.handshake"}, "oddcert": object{"certificates": "lost"},
				"source":      object{"ip": c.Client.Addr(), "port": c.Client.Port()},
				"destination": object{"ip": c.Server.Addr(), "port": c.Server.Port()}})
		}
	}
	for counted, right := range map[int]bool{0: false, 1: false, 2: true, 3: false} {
		stats := object{"event": object{"dataset": "oddcert.stats"},
			"oddcert": object{"stats": object{"records": object{"handshakes_unrecorded": counted}}}}
		v, err := judgeRecords(truth, encode(t, append(slices.Clone(records), stats)))
		if err != nil || (v.Wrong == "") != right {
			t.Errorf("%d counted: %+v, %v", counted, v, err)
		}
	}
}

// The goals are where the issue of who is faster is decided: on either side of
// each limit.
func TestGoals(t *testing.T) {
	const ms = time.Millisecond
	measured := func(capture, program string, wall, cpu time.Duration, mib int64) row {
		return row{capture: capture, program: program, verdict: new(verdict), runs: []figures{{wall, cpu, mib << 20, frames{}}}}
	}
	base := func() *report {
		return &report{rows: []row{
			measured(bulk, oneWorker, 100*ms, 100*ms, 64),
			measured(bulk, twoWorkers, 80*ms, 120*ms, 60),
			measured(bulk, tcpdump, 400*ms, 400*ms, 6),
			measured(bulk, bareLoop, 67*ms, 67*ms, 6),
			measured(handshakes, oneWorker, 160*ms, 160*ms, 64),
			measured(handshakes, twoWorkers, 100*ms, 180*ms, 64),
			measured(handshakes, single, 800*ms, 1000*ms, 50),
			measured(handshakes, autofp, 800*ms, 2000*ms, 50),
			measured(mix, oneWorker, 100*ms, 100*ms, 64),
			measured(mix, twoWorkers, 80*ms, 180*ms, 64),
			measured(syns, oneWorker, 100*ms, 100*ms, 512),
			measured(syns, twoWorkers, 100*ms, 100*ms, 512),
			measured(rulesHandshakes, oneWorker, 1000*ms, 1000*ms, 64),
			measured(rulesHandshakes, withRules, 2100*ms, 2100*ms, 300),
			measured(rulesStartup, oneWorker, 10*ms, 10*ms, 18),
			measured(rulesStartup, withRules, 1010*ms, 1010*ms, 300),
		}}
	}
	states := func(r *report) map[string]int {
		count := make(map[string]int)
		for _, g := range r.goals(options{scale: 1}) {
			count[g[2]]++
		}
		return count
	}
	if got := states(base()); got["reached"] != 9 || got["short"] != 0 || got["not measured: no Suricata"] != 1 {
		t.Errorf("at the limits: %v", base().goals(options{scale: 1}))
	}
	for i := range base().rows {
		r := base()
		w := &r.rows[i]
		f := &w.runs[0]
		sign := time.Duration(1) // oddcert's own figures must not grow, the others' not shrink
		switch {
		case w.program == single || w.program == autofp || w.program == tcpdump || w.program == bareLoop,
			w.capture == rulesStartup && w.program == withRules,
			w.capture == rulesHandshakes && w.program == oneWorker:
			sign = -1
		}
		f.wall += sign * ms
		f.cpu += sign * ms
		f.rss += int64(sign) << 20
		short := states(r)["short"]
		binds := !(w.capture == bulk && w.program == twoWorkers) // has memory left, and no goal but that
		if (short > 0) != binds {
			t.Errorf("%s, %s: %d goals are short after a change for the worse", w.capture, w.program, short)
		}
	}
	r := base()
	r.rows[0].wrong = "differs"
	if r.wrong() == nil || states(r)["wrong"] != 1 {
		t.Errorf("a wrong run: %v, %v", r.wrong(), r.goals(options{scale: 1}))
	}
	r = base()
	r.rows[7].wrong = "differs" // of Suricata's modes, the right one is left
	if got := states(r); r.wrong() != nil || got["reached"] != 9 {
		t.Errorf("one mode of Suricata: %v", got)
	}
}

// Live, a frame that is lost takes the time away, and frames that are withheld
// are not lost.
func TestLiveGoals(t *testing.T) {
	heard := func(program string, cpu time.Duration, f frames) row {
		return row{capture: liveBulk, program: program, verdict: new(verdict), runs: []figures{{wall: time.Second, cpu: cpu, frames: f}}}
	}
	state := func(ours, theirs row) (states []string) {
		r := &report{rows: []row{ours, theirs}}
		for _, line := range r.goals(options{scale: 1}) {
			states = append(states, line[2])
		}
		return states
	}
	ours := heard(withShunt, 100*time.Millisecond, frames{read: 50, withheld: 950})
	theirs := heard(suricataLive, 600*time.Millisecond, frames{read: 1000})
	if got := state(ours, theirs); !slices.Equal(got, []string{"reached", "reached"}) {
		t.Errorf("at the limits: %v", got)
	}
	if got := state(heard(withShunt, 101*time.Millisecond, frames{read: 51, withheld: 949}), theirs); !slices.Equal(got, []string{"short", "short"}) {
		t.Errorf("behind the limits: %v", got)
	}
	ours.wrong, ours.lost = "1 of 1000 frames lost", true
	if got := state(ours, theirs); !slices.Equal(got, []string{"wrong"}) {
		t.Errorf("with a frame lost: %v", got)
	}
	if err := (&report{rows: []row{ours}}).wrong(); err != nil {
		t.Errorf("a slow machine is no error: %v", err)
	}
}

func TestMedian(t *testing.T) {
	for want, runs := range map[int64][]int64{5: {5}, 4: {5, 3}, 3: {9, 1, 3}} {
		var all []figures
		for _, n := range runs {
			all = append(all, figures{rss: n})
		}
		if got := (&row{runs: all}).median().rss; got != want {
			t.Errorf("%v: %d, want %d", runs, got, want)
		}
	}
}

// The large rule set is one that oddcert loads without a complaint.
func TestWriteRules(t *testing.T) {
	dir := t.TempDir()
	if err := writeRules(dir, 1200, 500); err != nil {
		t.Fatal(err)
	}
	set, err := rules.Load(rules.Source{Name: "many", FS: os.DirFS(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Rules()) != 1200 || len(set.Lists()) != 1 || set.Lists()[0].Entries != 500 || len(set.Warnings()) > 0 {
		t.Errorf("%d rules, lists %v, warnings %v", len(set.Rules()), set.Lists(), set.Warnings())
	}
}

// What a process takes is what the kernel says of it.
func TestExecute(t *testing.T) {
	f, err := execute(t.Context(), nil, []string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.05"})
	if err != nil {
		t.Fatal(err)
	}
	if f.wall < 50*time.Millisecond || f.cpu <= 0 || f.rss <= 0 {
		t.Errorf("%+v", f)
	}
	if _, err := execute(t.Context(), nil, []string{"sh", "-c", "echo first >&2; echo why >&2; exit 3"}); err == nil || !strings.HasSuffix(err.Error(), ": why") {
		t.Errorf("error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := execute(ctx, nil, []string{"sleep", "60"}); err == nil {
		t.Error("runs on after the end")
	}
}
