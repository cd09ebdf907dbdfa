package health

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

// rig is a live pipeline that reads captures as if they came from an interface, with an
// output, and a monitor that watches it.
type rig struct {
	*Monitor
	receiver *receiver
	seen     chan *output.Counters // each time, as far as there is room
}

// receiver is a destination that takes all records, or refuses them.
type receiver struct {
	mu     sync.Mutex
	refuse *delivery.Trouble
}

func (r *receiver) Send(_ context.Context, _ []*output.Record, verdicts []delivery.Verdict) *delivery.Trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return r.refuse
	}
	for i := range verdicts {
		verdicts[i].Fate = delivery.Delivered
	}
	return nil
}

func (r *receiver) set(refuse *delivery.Trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = refuse
}

func (r *receiver) Limits() delivery.Limits {
	return delivery.Limits{Records: 100, Bytes: 1 << 20, Requests: 1}
}
func (r *receiver) Close() error   { return nil }
func (r *receiver) String() string { return "receiver" }

// wire is a source of frames in memory, as if they came now. It is silent after them,
// or begins anew.
type wire struct {
	frames  [][]capture.Frame
	next    int
	begin   <-chan struct{} // nothing comes before it is closed
	anew    bool
	counted atomic.Uint64
}

func (w *wire) Next() (*capture.Batch, error) {
	select {
	case <-w.begin:
		if w.anew {
			time.Sleep(20 * time.Millisecond)
			w.next %= len(w.frames)
		}
		if w.next < len(w.frames) {
			b := &capture.Batch{Frames: slices.Clone(w.frames[w.next])}
			w.next++
			now := time.Now().UnixNano() - int64(len(b.Frames))
			for i := range b.Frames {
				b.Frames[i].Time = now + int64(i)
			}
			w.counted.Add(uint64(len(b.Frames)))
			return b, nil
		}
	default:
	}
	time.Sleep(20 * time.Millisecond)
	return &capture.Batch{}, nil
}

func (w *wire) Stats() capture.Stats { return capture.Stats{Frames: w.counted.Load()} }
func (w *wire) Close() error         { return nil }

// read reads captures.
func read(t *testing.T) (frames [][]capture.Frame) {
	t.Helper()
	paths, err := filepath.Glob("../../testdata/captures/*/capture.pcap*")
	if err != nil || len(paths) == 0 {
		t.Fatal("no captures", err)
	}
	source, err := capture.OpenFiles(paths, capture.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	for {
		b, err := source.Next()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Clone(b.Frames)
		for i := range all {
			all[i].Data = bytes.Clone(all[i].Data)
		}
		frames = append(frames, all)
		b.Release()
	}
}

// now is closed: for what begins at once.
var now = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// start starts a rig, which ends with the test. It sees the same frames again and again
// from begin on, or once from now on.
func start(t *testing.T, interfaces func() []capture.Interface, begin <-chan struct{}) *rig {
	t.Helper()
	source := &wire{frames: read(t), begin: begin, anew: begin != now}
	set, err := rules.Load(rules.Source{Name: "test", FS: fstest.MapFS{"r.yml": {Data: []byte(`title: Shown
id: 11111111-0000-0000-0000-000000000001
level: low
logsource: {product: oddcert}
detection: {a: {oddcert.certificates: extracted}, condition: a}
`)}}})
	if err != nil {
		t.Fatal(err)
	}
	tables, err := judge.Load(judge.Options{Packs: fstest.MapFS{}})
	if err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(t.TempDir(), spool.Options{Outputs: []spool.Output{{Name: "siem", Datasets: output.Records}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Monitor: New(Config{Version: "v1.2.3", Revision: "0123456789ab"}), receiver: new(receiver), seen: make(chan *output.Counters, 64)}
	engine := delivery.Start(sp, []delivery.Output{{Name: "siem", Destination: r.receiver}}, delivery.Options{
		Delivered: r.Delivered, Backoff: delivery.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond, Slow: 10 * time.Millisecond}})
	p := pipeline.New(pipeline.Config{
		Workers: 1, Rules: set, Judge: tables, Observer: output.Observer{Name: "test", Version: "test"},
		Records: output.Options{Datasets: output.Records}, Outputs: []output.Output{engine},
		Limits: flow.Limits{}, Parsers: parsers.DefaultLimits, Encoders: output.DefaultCache, Keys: new(keylog.Store),
		Interfaces: interfaces,
		Sections: func() []output.Section {
			outs := map[string]delivery.Stats{}
			for _, o := range engine.Outputs() {
				outs[o.Name] = o.Stats()
			}
			return []output.Section{{Name: "spool", Value: engine.Spool()}, {Name: "outputs", Value: outs}}
		},
		Watch: func(c *output.Counters) {
			r.See(c)
			select {
			case r.seen <- c:
			default:
			}
		},
	})
	r.Reloaded(1, 0, time.Millisecond, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Live(ctx, []capture.Source{source}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = engine.Close(ctx) // a receiver that refuses all leaves records
	})
	return r
}

// wait waits until the pipeline has told of something.
func (r *rig) wait(t *testing.T, what string, ok func(*output.Counters) bool) *output.Counters {
	t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case c := <-r.seen:
			if ok(c) {
				return c
			}
		case <-late:
			t.Fatal("the pipeline never told of", what)
		}
	}
}

// delivered reports whether all that was accepted is delivered.
func delivered(c *output.Counters) bool {
	st := (&snapshot{Counters: c}).outputs()["siem"]
	return st.Delivered.Total() > 10 && st.Waiting.Total() == 0
}

// linked is an interface with a link.
func linked() []capture.Interface {
	return []capture.Interface{{Name: "eth1", State: capture.LinkUp, Since: time.Now().Add(-time.Hour), Last: time.Now(), MTU: 1500, Speed: 10000, Frames: 266}}
}

// clock is a wall clock that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1.8e9, 0)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// states are of a monitor without a pipeline: what is told in each row is all that it
// knows.
func TestStates(t *testing.T) {
	spooled := func(trouble string) output.Section {
		return output.Section{Name: "spool", Value: spool.Stats{Trouble: trouble}}
	}
	siem := func(st delivery.Stats) output.Section {
		return output.Section{Name: "outputs", Value: map[string]delivery.Stats{"siem": st}}
	}
	link := func(states ...capture.LinkState) (all []capture.Interface) {
		for i, s := range states {
			all = append(all, capture.Interface{Name: "eth" + string(rune('0'+i)), State: s})
		}
		return all
	}
	for _, test := range []struct {
		name   string
		see    *output.Counters // nil: nothing
		after  time.Duration    // since then, or since the start
		loads  string           // of rules: "+" went well, "-" did not
		alive  string           // a part of the reason, empty for none
		ready  string           // the same, its lines in order
		status string           // a part
	}{
		{name: "just started", loads: "+", ready: "the capture has not begun", status: "starting"},
		{name: "never begins", after: 2 * startLimit, loads: "+", alive: "has not begun after 2m0s", ready: "has not begun after 2m0s|the capture has not begun", status: "starting"},
		{name: "well", see: &output.Counters{Interfaces: link("up"), Sections: []output.Section{spooled(""), siem(delivery.Stats{})}}, loads: "+", status: "0 packets dropped"},
		{name: "without outputs and interfaces", see: &output.Counters{}, loads: "+", status: "0 packets/s"},
		{name: "hangs", see: &output.Counters{}, after: aliveAfter + time.Second, loads: "+", alive: "told nothing for 16s", ready: "told nothing for 16s", status: "told nothing for 16s"},
		{name: "a second ago", see: &output.Counters{}, after: time.Second, loads: "+"},
		{name: "a worker hangs", see: &output.Counters{Stalled: stallLimit + time.Second}, loads: "+", alive: "busy with one batch of frames for 31s", ready: "busy with one batch", status: "busy with one batch"},
		{name: "a worker has a lot to do", see: &output.Counters{Stalled: stallLimit / 2}, loads: "+"},
		{name: "one link of two", see: &output.Counters{Interfaces: link("up", "no-carrier")}, loads: "+", status: "eth1 is no-carrier"},
		{name: "no link", see: &output.Counters{Interfaces: link("gone", "no-carrier")}, loads: "+", ready: "no interface has a link: eth0 is gone, eth1 is no-carrier", status: "eth0 is gone; eth1 is no-carrier"},
		{name: "no rules", see: &output.Counters{}, loads: "-", ready: "no rules are loaded", status: "load of rules and lists failed"},
		{name: "new rules are wrong", see: &output.Counters{}, loads: "+-", status: "load of rules and lists failed"},
		{name: "new rules were wrong", see: &output.Counters{}, loads: "+-+"},
		{name: "disk full", see: &output.Counters{Sections: []output.Section{spooled("alerts cannot be written: no space left on device")}}, loads: "+", ready: "spool: alerts cannot be written: no space left", status: "spool: alerts cannot"},
		{name: "receiver away", see: &output.Counters{Sections: []output.Section{siem(delivery.Stats{Trouble: "connection refused", Outage: 42})}}, loads: "+", status: "siem is in trouble for 42 s: connection refused"},
		{name: "key expired", see: &output.Counters{Sections: []output.Section{siem(delivery.Stats{Trouble: "status 401\nexpired", Blocked: true})}}, loads: "+", ready: "output siem delivers nothing until somebody does something: status 401", status: "status 401 expired"},
		{name: "all at once", see: &output.Counters{Interfaces: link("down"), Stalled: time.Hour, Sections: []output.Section{spooled("x"), siem(delivery.Stats{Trouble: "y", Blocked: true})}},
			ready: "busy with one batch|no interface has a link|spool: x|output siem|no rules are loaded", alive: "busy", status: "eth0 is down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			wall := newClock()
			m := New(Config{Now: wall.time})
			for _, load := range test.loads {
				var err error
				if load == '-' {
					err = io.ErrUnexpectedEOF
				}
				m.Reloaded(1, 1, 0, err)
			}
			if test.see != nil {
				m.See(test.see)
			}
			wall.pass(test.after)
			check := func(what string, err error, want string) {
				t.Helper()
				if want == "" {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				if err == nil {
					t.Errorf("%s: no error, want %q", what, want)
					return
				}
				lines := strings.Split(err.Error(), "\n")
				for i, part := range strings.Split(want, "|") {
					if i >= len(lines) || !strings.Contains(lines[i], part) {
						t.Errorf("%s: %q, want line %d to have %q", what, err, i, part)
					}
				}
			}
			check("alive", m.Alive(wall.time()), test.alive)
			check("ready", m.Ready(), test.ready)
			status := m.Status()
			if !strings.Contains(status, test.status) {
				t.Errorf("status %q, want %q in it", status, test.status)
			}
			if (test.alive != "" || test.ready == "") != (test.alive != "" || m.Ready() == nil) {
				t.Error("ready, and not alive")
			}
			if strings.Contains(status, "\n") || len(status) > maxStatus {
				t.Errorf("status %q is not one short line", status)
			}
		})
	}
}

// TestStatusIsBounded has servers say a lot.
func TestStatusIsBounded(t *testing.T) {
	outs := map[string]delivery.Stats{}
	for i := range 30 {
		outs["out"+string(rune('a'+i))] = delivery.Stats{Trouble: strings.Repeat("é\n\xff", 1000)}
	}
	m := New(Config{})
	m.See(&output.Counters{Sections: []output.Section{{Name: "outputs", Value: outs}}})
	if s := m.Status(); len(s) > maxStatus || strings.ContainsAny(s, "\n") || !strings.HasSuffix(s, "…") || strings.ToValidUTF8(s, "") != s {
		t.Errorf("status of %d bytes: %q", len(s), s)
	}
}

// TestRate counts packets a second over some seconds.
func TestRate(t *testing.T) {
	wall := newClock()
	m := New(Config{Now: wall.time})
	for i := range 60 {
		m.See(&output.Counters{Capture: capture.Stats{Frames: uint64(1500 * i)}})
		wall.pass(time.Second)
	}
	if s := m.Status(); !strings.HasPrefix(s, "1500 packets/s") {
		t.Error(s)
	}
}

// TestLive watches a pipeline on which all is well.
func TestLive(t *testing.T) {
	r := start(t, linked, now)
	r.wait(t, "delivery", delivered)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	if err := r.Alive(time.Now()); err != nil {
		t.Error(err)
	}
	if s := r.Status(); !strings.Contains(s, "matches of rules") {
		t.Error(s)
	}
}
