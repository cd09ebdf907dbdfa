package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

const everything = output.Set(1<<output.Datasets - 1)

// fast are waits for tests.
var fast = Backoff{Min: time.Millisecond, Max: 4 * time.Millisecond, Slow: 4 * time.Millisecond}

func record(d output.Dataset, n int) *output.Record {
	id := fmt.Sprintf("%08x%024x", n, d)
	return &output.Record{Dataset: d, ID: id, Time: int64(n), JSON: fmt.Appendf(nil, `{"event":{"id":%q,"severity":%d},"n":%d}`, id, []int{21, 47, 73, 99}[n%4], n)}
}

// receiver is a destination that answers as it is told, and notes what it has.
type receiver struct {
	limits Limits
	answer func(records []*output.Record, verdicts []Verdict) *Trouble // nil: all is delivered

	mu      sync.Mutex
	got     []int
	ids     map[string]int
	sending int
	most    int // requests at the same time
	sizes   []int
	closed  bool
}

func (r *receiver) Send(ctx context.Context, records []*output.Record, verdicts []Verdict) *Trouble {
	r.mu.Lock()
	r.sending++
	r.most = max(r.most, r.sending)
	r.sizes = append(r.sizes, len(records))
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.sending--
		r.mu.Unlock()
	}()
	var t *Trouble
	if r.answer != nil {
		t = r.answer(records, verdicts)
	} else {
		for i := range verdicts {
			verdicts[i].Fate = Delivered
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]int{}
	}
	for i, v := range verdicts {
		if v.Fate == Delivered {
			r.got = append(r.got, int(records[i].Time))
			r.ids[records[i].ID]++
		}
	}
	return t
}

func (r *receiver) Limits() Limits {
	if r.limits == (Limits{}) {
		return Limits{Records: 10, Bytes: 1 << 20, Requests: 1}
	}
	return r.limits
}

func (r *receiver) Close() error   { r.closed = true; return nil }
func (r *receiver) String() string { return "receiver" }

// logBuffer is a log that several goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// start starts an engine with outputs that are named a, b, c.
func start(t testing.TB, dir string, log *slog.Logger, outs ...Output) *Engine {
	t.Helper()
	o := spool.Options{}
	for i := range outs {
		outs[i].Name = string(rune('a' + i))
		o.Outputs = append(o.Outputs, spool.Output{Name: outs[i].Name, Datasets: everything})
	}
	sp, err := spool.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return Start(sp, outs, Options{Log: log, Backoff: fast})
}

func write(t testing.TB, e *Engine, d output.Dataset, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if err := e.Write(record(d, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// finish closes e, and holds the counts against what Stats promises.
func finish(t testing.TB, e *Engine) []Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return check(t, e)
}

func check(t testing.TB, e *Engine) (all []Stats) {
	t.Helper()
	for _, o := range e.Outputs() {
		s := o.Stats()
		for d := range output.Datasets {
			if s.Settled[d] != s.Delivered[d]+s.Duplicates[d]+s.Dead[d]+s.Filtered[d]+s.Skipped[d] {
				t.Errorf("%s: %s: %+v", o.Name, d, s)
			}
			if s.Recovered[d]+s.Accepted[d] != s.Settled[d]+s.Dropped[d]+s.Waiting[d] {
				t.Errorf("%s: %s: %+v", o.Name, d, s)
			}
		}
		all = append(all, s)
	}
	return all
}

// TestFates has receivers that give each record a fate by chance, until it has one:
// each is delivered once, or is a dead letter with its reason, and the sums add up.
func TestFates(t *testing.T) {
	for _, requests := range []int{1, 3} {
		dir := t.TempDir()
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(1, uint64(requests)))
		dest := &receiver{limits: Limits{Records: 10, Bytes: 1 << 20, Requests: requests}}
		dest.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
			mu.Lock()
			defer mu.Unlock()
			if r.IntN(10) == 0 {
				return &Trouble{Class: "network", Err: errors.New("away")}
			}
			for i := range verdicts {
				switch n := records[i].Time % 10; {
				case r.IntN(4) == 0:
					verdicts[i] = Verdict{Fate: Again, Status: 429, Reason: "busy"}
				case r.IntN(10) == 0:
					verdicts[i] = Verdict{Fate: Blocked, Status: 403, Reason: "closed"}
				case n == 1:
					verdicts[i] = Verdict{Fate: Dead, Status: 400, Reason: fmt.Sprint("no ", records[i].Time)}
				case n == 2:
					verdicts[i].Fate = Duplicate
				case n == 3:
					verdicts[i].Fate = Skipped
				default:
					verdicts[i].Fate = Delivered
				}
			}
			return nil
		}
		e := start(t, dir, nil, Output{Destination: dest}, Output{Destination: &receiver{}})
		const n = 300
		write(t, e, output.Alert, 0, n)
		write(t, e, output.Handshake, n, n)
		s := finish(t, e)
		if len(dest.got) != 2*n*7/10 || len(dest.ids) != len(dest.got) {
			t.Errorf("%d delivered, %d of them different", len(dest.got), len(dest.ids))
		}
		if s[0].Delivered.Total() != 2*n*7/10 || s[0].Duplicates.Total() != 2*n/10 || s[0].Dead.Total() != 2*n/10 || s[0].Skipped.Total() != 2*n/10 {
			t.Errorf("%+v", s[0])
		}
		if s[1].Delivered.Total() != 2*n || s[1].Retries != 0 {
			t.Errorf("the other: %+v", s[1])
		}
		dead := map[string]bool{}
		for l, err := range NewDeadLetters(dir).All() {
			if err != nil {
				t.Fatal(err)
			}
			rec, err := l.Record()
			if err != nil || l.Output != "a" || l.Status != 400 || l.Reason != fmt.Sprintf("no %d", mustN(l.Document)) || dead[l.ID] || rec.ID != l.ID {
				t.Errorf("%+v, %v", l, err)
			}
			dead[l.ID] = true
		}
		if len(dead) != 2*n/10 {
			t.Errorf("%d dead letters", len(dead))
		}
		if !dest.closed {
			t.Error("the destination is not closed")
		}
	}
}

func mustN(document []byte) int {
	_, after, _ := bytes.Cut(document, []byte(`"n":`))
	var n int
	fmt.Sscan(strings.TrimRight(string(after), "}"), &n)
	return n
}

// TestRequests has a receiver that answers no request before three are under way:
// they are, and never a fourth.
func TestRequests(t *testing.T) {
	dest := &receiver{limits: Limits{Records: 2, Bytes: 1 << 20, Requests: 3}}
	var three sync.WaitGroup
	three.Add(3)
	var mu sync.Mutex
	n := 0
	dest.answer = func(_ []*output.Record, verdicts []Verdict) *Trouble {
		mu.Lock()
		n++
		first := n <= 3
		mu.Unlock()
		if first {
			three.Done()
			three.Wait()
		}
		for i := range verdicts {
			verdicts[i].Fate = Delivered
		}
		return nil
	}
	e := start(t, t.TempDir(), nil, Output{Destination: dest})
	write(t, e, output.Alert, 0, 60)
	finish(t, e)
	if dest.most != 3 || len(dest.ids) != 60 {
		t.Errorf("%d requests at a time, %d records", dest.most, len(dest.ids))
	}
}

// TestOrder delivers in order where one request is under way at a time, also when
// requests fail.
func TestOrder(t *testing.T) {
	failed := map[int64]bool{}
	dest := &receiver{}
	dest.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
		if first := records[0].Time; !failed[first] {
			failed[first] = true
			for i := range verdicts[:len(verdicts)/2] {
				verdicts[i].Fate = Delivered
			}
			return &Trouble{Class: "network", Err: errors.New("away")}
		}
		for i := range verdicts {
			verdicts[i].Fate = Delivered
		}
		return nil
	}
	e := start(t, t.TempDir(), nil, Output{Destination: dest})
	write(t, e, output.Alert, 0, 200)
	finish(t, e)
	if len(dest.got) != 200 || !slices.IsSorted(dest.got) {
		t.Errorf("got %v", dest.got)
	}
}

// TestDown has a receiver that is away while much comes: it is asked by one request
// of each queue at a time, the other output gets everything, and the log says when it
// begins and when it ends.
func TestDown(t *testing.T) {
	var said logBuffer
	dest := &receiver{limits: Limits{Records: 5, Bytes: 1 << 20, Requests: 4}}
	var mu sync.Mutex
	up := false
	probing := 0
	dest.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
		mu.Lock()
		defer mu.Unlock()
		if !up {
			probing++
			return &Trouble{Class: "network", Err: errors.New("connection refused")}
		}
		for i := range verdicts {
			verdicts[i].Fate = Delivered
		}
		return nil
	}
	other := &receiver{}
	e := start(t, t.TempDir(), said.logger(), Output{Destination: dest}, Output{Destination: other})
	write(t, e, output.Alert, 0, 100)
	e.spool.Sync(context.Background())
	for e.Outputs()[1].Stats().Delivered.Total() < 100 {
		time.Sleep(time.Millisecond)
	}
	for {
		mu.Lock()
		n := probing
		mu.Unlock()
		if n > 20 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	dest.mu.Lock()
	dest.most = dest.sending // from now on
	dest.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	dest.mu.Lock()
	most := dest.most
	dest.mu.Unlock()
	if most > 1 {
		t.Errorf("%d requests at a time to a receiver that is down", most)
	}
	if e.Outputs()[0].Trouble() == nil || e.Outputs()[1].Trouble() != nil {
		t.Error("who is in trouble?")
	}
	mu.Lock()
	up = true
	mu.Unlock()
	finish(t, e)
	if len(dest.ids) != 100 {
		t.Errorf("got %d", len(dest.ids))
	}
	if n := strings.Count(said.String(), "cannot deliver"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
	if n := strings.Count(said.String(), "a: delivers again"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
}

// TestSplit has a receiver that takes at most three records, and one of them never.
func TestSplit(t *testing.T) {
	dir := t.TempDir()
	dest := &receiver{limits: Limits{Records: 50, Bytes: 1 << 20, Requests: 2}}
	dest.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
		if len(records) > 3 || records[0].Time == 17 || len(records) > 1 && slices.ContainsFunc(records, func(r *output.Record) bool { return r.Time == 17 }) {
			return &Trouble{Class: "status 413", Err: errors.New("too large"), Split: true}
		}
		for i := range verdicts {
			verdicts[i].Fate = Delivered
		}
		return nil
	}
	e := start(t, dir, nil, Output{Destination: dest})
	write(t, e, output.Alert, 0, 100)
	s := finish(t, e)[0]
	if s.Delivered.Total() != 99 || s.Dead.Total() != 1 {
		t.Errorf("%+v", s)
	}
	for l := range NewDeadLetters(dir).All() {
		if mustN(l.Document) != 17 || l.Reason != "too large" {
			t.Errorf("%+v", l)
		}
	}
}

// TestFilters gives outputs alerts from a level on, and records by a filter.
func TestFilters(t *testing.T) {
	high, some := &receiver{}, &receiver{}
	e := start(t, t.TempDir(), nil, Output{Destination: high, Severity: 73}, Output{Destination: some, Where: thirds{}})
	write(t, e, output.Alert, 0, 40)
	write(t, e, output.Handshake, 100, 30)
	s := finish(t, e)
	for _, n := range high.got {
		if n < 100 && n%4 < 2 {
			t.Errorf("%d has a low level", n)
		}
	}
	for _, n := range some.got {
		if n%3 != 0 {
			t.Errorf("%d is not wanted", n)
		}
	}
	if len(high.got) != 20+30 || s[0].Filtered[output.Alert] != 20 || len(some.got) != 14+10 || s[1].Filtered.Total() != 46 {
		t.Errorf("got %v, %v: %v", high.got, some.got, s)
	}
}

type thirds struct{}

func (thirds) Matches(record []byte) bool { return mustN(record)%3 == 0 }

// TestRestart stops an engine at any time and starts it again, with receivers that
// drop what they have seen by its id: in the end each has everything once.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	dests := []*receiver{{limits: Limits{Records: 7, Bytes: 1 << 20, Requests: 3}}, {}, {}}
	for _, d := range dests {
		d.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
			d.mu.Lock()
			defer d.mu.Unlock()
			for i := range verdicts {
				verdicts[i].Fate = Delivered
				if d.ids[records[i].ID] > 0 {
					verdicts[i].Fate = Duplicate
				}
			}
			return nil
		}
	}
	const rounds, n = 8, 60
	for round := range rounds {
		e := start(t, dir, nil, Output{Destination: dests[0]}, Output{Destination: dests[1]}, Output{Destination: dests[2]})
		write(t, e, output.Alert, round*n, n)
		write(t, e, output.Stats, round*n, n)
		if round == rounds-1 {
			finish(t, e)
			break
		}
		for range round {
			time.Sleep(time.Millisecond)
		}
		stopped, cancel := context.WithCancel(context.Background())
		cancel()
		err := e.Close(stopped)
		var kept *Undelivered
		if err != nil && !errors.As(err, &kept) {
			t.Fatal(err)
		}
		check(t, e)
	}
	for i, d := range dests {
		if len(d.ids) != 2*rounds*n {
			t.Errorf("output %d has %d of %d", i, len(d.ids), 2*rounds*n)
		}
		for id, times := range d.ids {
			if times != 1 {
				t.Errorf("output %d has %s %d times", i, id, times)
			}
		}
	}
}

// TestClose ends the delivery to a receiver that never answers: what it has not is
// kept, and said.
func TestClose(t *testing.T) {
	dest := &receiver{answer: func([]*output.Record, []Verdict) *Trouble {
		return &Trouble{Class: "login", Err: errors.New("wrong password"), Slow: true}
	}}
	other := &receiver{}
	e := start(t, t.TempDir(), nil, Output{Destination: dest}, Output{Destination: other})
	write(t, e, output.Alert, 0, 30)
	go func() {
		for e.Outputs()[0].Trouble() == nil {
			time.Sleep(time.Millisecond)
		}
		e.Outputs()[0].Abandon()
	}()
	err := e.Close(context.Background())
	var kept *Undelivered
	if !errors.As(err, &kept) || kept.Records != 30 || kept.Output != "a" || !strings.Contains(err.Error(), "wrong password") {
		t.Errorf("closed: %v", err)
	}
	if len(other.got) != 30 {
		t.Errorf("the other has %v", other.got)
	}
	if err := e.Write(record(output.Alert, 31)); err == nil {
		t.Error("a record is taken after the end")
	}
	check(t, e)
}

// TestDeadLetterFails has no room for dead letters: the records go again until there
// is.
func TestDeadLetterFails(t *testing.T) {
	dir := t.TempDir()
	dest := &receiver{answer: func(_ []*output.Record, verdicts []Verdict) *Trouble {
		for i := range verdicts {
			verdicts[i] = Verdict{Fate: Dead, Reason: "never"}
		}
		return nil
	}}
	path := NewDeadLetters(dir).path(spool.Alerts)
	if err := os.MkdirAll(filepath.Join(path, "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	e := start(t, dir, nil, Output{Destination: dest})
	write(t, e, output.Alert, 0, 3)
	for e.Outputs()[0].Stats().Retries < 10 {
		time.Sleep(time.Millisecond)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if s := finish(t, e)[0]; s.Dead.Total() != 3 {
		t.Errorf("%+v", s)
	}
}

// TestDeadLettersBounded fills the files of dead letters: the oldest are given up,
// and counted, alerts and the rest each for themselves.
func TestDeadLettersBounded(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetters(dir)
	d.max = 2000
	lost := 0
	for i := range 100 {
		n, err := d.add(spool.Alerts, []DeadLetter{{Output: "a", Dataset: "alert", ID: fmt.Sprint(i), Reason: "never", Document: []byte(`not JSON "`)}})
		if err != nil {
			t.Fatal(err)
		}
		lost += n
	}
	if _, err := d.add(spool.Telemetry, []DeadLetter{{Output: "a", Dataset: "handshake", ID: "x", Document: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for l, err := range d.All() {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.ID)
		if r, err := l.Record(); err != nil || l.ID != "x" && string(r.JSON) != `not JSON "` {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if len(ids)-1+lost != 100 || lost == 0 || ids[len(ids)-2] != "99" || ids[len(ids)-1] != "x" {
		t.Errorf("%d lost, left %v", lost, ids)
	}
	// A line that a crash has torn stays, and does no harm.
	if err := os.WriteFile(d.path(spool.Telemetry), []byte(`{"id":"to`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range d.All() {
		if err != nil { // it may still be written
			t.Error(err)
		}
	}
	if _, err := d.add(spool.Telemetry, []DeadLetter{{ID: "y", Dataset: "hello", Document: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Remove(func(l *DeadLetter) bool { return l.ID == "99" || l.ID == "y" }); n != 2 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	broken, left := 0, 0
	for l, err := range d.All() {
		switch {
		case err != nil:
			broken++
		case l.ID == "99" || l.ID == "y":
			t.Errorf("%s is still there", l.ID)
		default:
			left++
		}
	}
	if broken != 1 || left != len(ids)-2 {
		t.Errorf("%d broken lines, %d letters", broken, left)
	}
}

// TestSeverity takes the severity of an alert, whatever the texts in it say.
func TestSeverity(t *testing.T) {
	for text, want := range map[string]int{
		`{"event":{"severity":73,"risk_score":73}}`:             73,
		`{"event":{"severity":99}}`:                             99,
		`{"a":"\"severity\":21","event":{"severity":47,"x":1}}`: 47,
		`{}`:                    0,
		`{"event":{"severity":`: 0,
	} {
		if got := severityOf([]byte(text)); got != want {
			t.Errorf("%s: %d", text, got)
		}
	}
}

// TestDelivered compares the time to delivery with when records were written and
// acknowledged, of an output that fails at first, skips some and refuses others.
func TestDelivered(t *testing.T) {
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	failing := true
	answer := func(records []*output.Record, verdicts []Verdict) *Trouble {
		mu.Lock()
		defer mu.Unlock()
		if failing {
			return &Trouble{Class: "away", Err: errors.New("away")}
		}
		for i, r := range records {
			verdicts[i].Fate = []Fate{Delivered, Duplicate, Dead, Skipped}[r.Time%4]
		}
		return nil
	}
	sp, err := spool.Open(t.TempDir(), spool.Options{Outputs: []spool.Output{{Name: "a", Datasets: everything}}})
	if err != nil {
		t.Fatal(err)
	}
	e := Start(sp, []Output{{Name: "a", Destination: &receiver{answer: answer}}}, Options{Backoff: fast, Delivered: func(output string, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		took[output] = append(took[output], d)
	}})
	began := time.Now()
	for n := range 40 {
		if err := e.Write(record(output.Alert, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sp.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	const away = 50 * time.Millisecond
	time.Sleep(away)
	mu.Lock()
	failing = false
	mu.Unlock()
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	most := time.Since(began)
	if len(took) != 1 || len(took["a"]) != 20 {
		t.Errorf("%d of the 20 records that were delivered: %v", len(took["a"]), took)
	}
	for _, d := range took["a"] {
		if d < away || d > most {
			t.Errorf("took %v, not between %v and %v", d, away, most)
		}
	}
}
