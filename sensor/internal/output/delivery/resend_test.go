package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// reject is what a receiver answers that never accepts a record of which tenth holds.
func reject(tenth func(n int) bool, reason string) func([]*output.Record, []Verdict) *Trouble {
	return func(records []*output.Record, verdicts []Verdict) *Trouble {
		for i, r := range records {
			verdicts[i].Fate = Delivered
			if tenth(mustN(r.JSON)) {
				verdicts[i] = Verdict{Fate: Dead, Status: 400, Reason: reason}
			}
		}
		return nil
	}
}

func all(*DeadLetter) bool { return true }

// buried makes dead letters of alerts and statistics in dir, for the outputs a and b:
// those of n/10 of each.
func buried(t *testing.T, dir string, n int) {
	t.Helper()
	answer := reject(func(n int) bool { return n%10 == 0 }, "no")
	e := start(t, dir, nil, Output{Destination: &receiver{answer: answer}}, Output{Destination: &receiver{answer: answer}})
	write(t, e, output.Alert, 0, n)
	write(t, e, output.Stats, 0, n)
	finish(t, e)
	if letters, _ := lettersIn(t, dir); letters != 4*n/10 {
		t.Fatalf("%d dead letters", letters)
	}
}

// lettersIn counts the letters in a folder, and those that are marked.
func lettersIn(t *testing.T, dir string) (letters, marked int) {
	t.Helper()
	for l, err := range NewDeadLetters(dir).All() {
		if err != nil {
			t.Fatal(err)
		}
		if letters++; l.Again {
			marked++
		}
	}
	return letters, marked
}

func hasRequest(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, requestFile))
	return err == nil
}

// quick starts an engine that looks often for dead letters.
func quick(t *testing.T, dir string, dests ...*receiver) *Engine {
	t.Helper()
	var o spool.Options
	var outs []Output
	for i, d := range dests {
		outs = append(outs, Output{Name: string(rune('a' + i)), Destination: d})
		o.Outputs = append(o.Outputs, spool.Output{Name: outs[i].Name, Datasets: everything})
	}
	sp, err := spool.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return Start(sp, outs, Options{Backoff: fast, poll: time.Millisecond})
}

// until waits until a condition holds, as the engine works on its own.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestReviveAtStart marks letters while nobody has the spool: the next engine sends
// them, to their output alone.
func TestReviveAtStart(t *testing.T) {
	dir := t.TempDir()
	buried(t, dir, 200)
	letters := NewDeadLetters(dir)
	ofA := func(l *DeadLetter) bool { return l.Output == "a" }
	for i, want := range []int{40, 0} { // marked once
		if n, err := letters.SendAgain(ofA); n != want || err != nil {
			t.Errorf("time %d: %d marked, %v", i, n, err)
		}
	}
	a, b := &receiver{}, &receiver{}
	e := quick(t, dir, a, b)
	s := finish(t, e)
	if len(a.ids) != 40 || s[0].Resent != 40 || s[0].Delivered.Total() != 0 || len(b.ids) != 0 {
		t.Errorf("a has %d, b has %d: %+v", len(a.ids), len(b.ids), s)
	}
	for id, n := range a.ids {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	if left, marked := lettersIn(t, dir); left != 40 || marked != 0 || hasRequest(dir) {
		t.Errorf("%d letters, %d of them marked, request %v", left, marked, hasRequest(dir))
	}
}

// TestReviveAtWork marks letters while an engine has the spool, twice, and while a
// receiver is down, takes few records at once, or refuses them once more.
func TestReviveAtWork(t *testing.T) {
	dir := t.TempDir()
	buried(t, dir, 200)
	requests := 0
	a := &receiver{}
	a.answer = func(records []*output.Record, verdicts []Verdict) *Trouble {
		a.mu.Lock()
		requests++
		now := requests
		a.mu.Unlock()
		switch {
		case now < 4:
			return &Trouble{Class: "down", Err: errors.New("down")}
		case len(records) > 3:
			return &Trouble{Class: "large", Err: errors.New("too large"), Split: true}
		}
		return reject(func(n int) bool { return n%20 == 0 }, "never")(records, verdicts)
	}
	e := quick(t, dir, a, &receiver{})
	letters := NewDeadLetters(dir)
	for _, half := range []func(int) bool{func(n int) bool { return n < 100 }, func(n int) bool { return n >= 100 }} {
		if n, err := letters.SendAgain(func(l *DeadLetter) bool { return l.Output == "a" && half(mustN(l.Document)) }); n != 20 || err != nil {
			t.Fatalf("%d marked, %v", n, err)
		}
		until(t, "no letter is marked", func() bool { _, marked := lettersIn(t, dir); return marked == 0 })
	}
	write(t, e, output.Alert, 1001, 5) // others still come
	s := finish(t, e)
	if s[0].Resent != 20 || s[0].Delivered.Total() != 5 {
		t.Errorf("%+v", s[0])
	}
	refused := 0
	for l, err := range letters.All() {
		if err != nil {
			t.Fatal(err)
		}
		if l.Output == "a" {
			refused++
			if l.Reason != "never" || mustN(l.Document)%20 != 0 {
				t.Errorf("%+v", l)
			}
		}
	}
	if refused != 20 || hasRequest(dir) {
		t.Errorf("%d letters were refused again, request %v", refused, hasRequest(dir))
	}
}

// TestReviveRestart ends engines at any moment: each letter arrives, and once in effect.
func TestReviveRestart(t *testing.T) {
	dir := t.TempDir()
	buried(t, dir, 500)
	if n, err := NewDeadLetters(dir).SendAgain(all); n != 200 || err != nil {
		t.Fatalf("%d marked, %v", n, err)
	}
	dests := []*receiver{{limits: Limits{Records: 7, Bytes: 1 << 20, Requests: 3}}, {limits: Limits{Records: 2, Bytes: 1 << 20, Requests: 1}}}
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
	for round := range 8 {
		e := quick(t, dir, dests...)
		if round == 7 {
			finish(t, e)
			break
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		stopped, cancel := context.WithCancel(context.Background())
		cancel()
		if err := e.Close(stopped); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range dests {
		if len(d.ids) != 100 {
			t.Errorf("output %d has %d letters", i, len(d.ids))
		}
		for id, n := range d.ids {
			if n != 1 {
				t.Errorf("output %d has %s %d times", i, id, n)
			}
		}
	}
	if left, _ := lettersIn(t, dir); left != 0 || hasRequest(dir) {
		t.Errorf("%d letters, request %v", left, hasRequest(dir))
	}
}

// TestReviveAbsent marks letters of an output that is not there: they wait for it.
func TestReviveAbsent(t *testing.T) {
	dir := t.TempDir()
	buried(t, dir, 20)
	if n, err := NewDeadLetters(dir).SendAgain(func(l *DeadLetter) bool { return l.Output == "b" }); n != 4 || err != nil {
		t.Fatalf("%d marked, %v", n, err)
	}
	a, b := &receiver{}, &receiver{}
	finish(t, quick(t, dir, a))
	if _, marked := lettersIn(t, dir); marked != 4 || !hasRequest(dir) || len(a.ids) != 0 {
		t.Errorf("%d marked, request %v, a has %d", marked, hasRequest(dir), len(a.ids))
	}
	finish(t, quick(t, dir, a, b))
	if left, marked := lettersIn(t, dir); left != 4 || marked != 0 || len(b.ids) != 4 {
		t.Errorf("%d letters, %d marked, b has %d", left, marked, len(b.ids))
	}
}

// TestSendAgainKeepsOthers holds marking to the letters that are meant: all else in the
// files stays to the byte, also what is no letter.
func TestSendAgainKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetters(dir)
	for i, document := range []string{`{"a":"<é\u0000>"}`, `no JSON`} {
		if _, err := d.add(spool.Alerts, []DeadLetter{{Output: "a", Dataset: "alert", ID: fmt.Sprint(i), Document: []byte(document)}}); err != nil {
			t.Fatal(err)
		}
	}
	path := d.path(spool.Alerts)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before = append(before, "torn\n{\"id\":"...)
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := d.SendAgain(func(l *DeadLetter) bool { return l.ID == "x" }); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("%s", after)
	}
	if n, err := d.SendAgain(all); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	marked, err := d.marked(spool.Alerts, "a", Limits{Records: 9, Bytes: 1})
	if err != nil || len(marked) != 1 {
		t.Fatalf("%v, %v", marked, err)
	}
	if marked, err = d.marked(spool.Alerts, "a", Limits{Records: 9, Bytes: 100}); err != nil || len(marked) != 2 {
		t.Fatalf("%v, %v", marked, err)
	}
	if r, err := marked[0].Record(); err != nil || mustJSON(t, r.JSON) != mustJSON(t, []byte(`{"a":"<é\u0000>"}`)) {
		t.Errorf("%s, %v", r.JSON, err)
	}
	if r, err := marked[1].Record(); err != nil || string(r.JSON) != `no JSON` {
		t.Errorf("%s, %v", r.JSON, err)
	}
	if n, err := d.Remove(all); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != "torn\n{\"id\":" {
		t.Errorf("%q, %v", after, err)
	}
}

func mustJSON(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(v)
}
