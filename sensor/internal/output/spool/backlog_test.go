package spool

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestAccepted compares when a segment says that records were accepted with when they
// were: exactly for the last writes, and never too late for the others, however many
// there are.
func TestAccepted(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	seg := &segment{number: 100, end: 100, modified: time.Unix(5, 0)}
	if got := seg.acceptedAt(100); got != 5e9 {
		t.Errorf("of an earlier process: %d", got)
	}
	var truth []int64 // of the records from 100 on
	now := time.Unix(1000, 0)
	for len(truth) < 1000 {
		now = now.Add(time.Duration(random.IntN(1e9)))
		n := 1 + random.IntN(5)
		for range n {
			truth = append(truth, now.UnixNano())
		}
		seg.wrote(seg.end+uint64(n), now)
		if len(seg.accepted) > maxWrites {
			t.Fatalf("%d writes are kept", len(seg.accepted))
		}
		last := int64(0)
		for i, want := range truth {
			got := seg.acceptedAt(100 + uint64(i))
			if got > want {
				t.Fatalf("record %d of %d: accepted %v after it was", i, len(truth), time.Duration(got-want))
			}
			if i >= len(truth)-maxWrites/2 && got != want { // each write has one record or more
				t.Fatalf("record %d of %d: accepted %v before it was", i, len(truth), time.Duration(want-got))
			}
			if got < last {
				t.Fatalf("record %d of %d: accepted before the one before it", i, len(truth))
			}
			last = got
		}
	}
}

// TestBacklog looks at what waits of two outputs while one of them reads, and after
// another process has opened the spool.
func TestBacklog(t *testing.T) {
	dir := t.TempDir()
	outs := Options{Outputs: []Output{{Name: "reads", Datasets: everything}, {Name: "sleeps", Datasets: output.Set(0).Add(output.Alert)}}, delay: 1}
	s := open(t, dir, outs)
	began := time.Now()
	put := func(d output.Dataset, n int) {
		t.Helper()
		if err := s.Append(ctx, record(d, n)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	put(output.Alert, 1)
	time.Sleep(1100 * time.Millisecond) // ages are whole seconds
	put(output.Alert, 2)
	put(output.Handshake, 3)
	ages := func(name string, q Queue) Backlog {
		b := s.Reader(name).Stats().Backlog[q]
		if most := int64(time.Since(began).Seconds()); b.Age < 0 || b.Age > most {
			t.Errorf("%s, %s: the oldest record is %d s old, and the test %d s", name, q, b.Age, most)
		}
		return b
	}
	for _, name := range []string{"reads", "sleeps"} {
		if b := ages(name, Alerts); b.Records != 2 || b.Bytes == 0 || b.Age < 1 {
			t.Errorf("%s: %+v", name, b)
		}
	}
	if b := ages("sleeps", Telemetry); b != (Backlog{}) {
		t.Errorf("of a queue that it does not want: %+v", b)
	}
	var b Batch
	r := s.Reader("reads")
	if err := r.Next(ctx, Alerts, &b, 1, 1<<20); err != nil {
		t.Fatal(err)
	}
	first := b.Accepted[0]
	if len(b.Accepted) != 1 || first < began.UnixNano() || first > time.Now().Add(-time.Second).UnixNano() {
		t.Errorf("accepted at %d, began at %d", first, began.UnixNano())
	}
	if got := ages("reads", Alerts); got.Records != 2 || got.Age < 1 {
		t.Errorf("while its record is sent: %+v", got)
	}
	if err := r.Settle(Alerts, 1); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(ctx, Alerts, &b, 1, 1<<20); err != nil {
		t.Fatal(err)
	}
	if b.Accepted[0] < first+1e9 {
		t.Errorf("the second was accepted %v after the first", time.Duration(b.Accepted[0]-first))
	}
	if err := r.Settle(Alerts, 1); err != nil {
		t.Fatal(err)
	}
	if got := ages("reads", Alerts); got != (Backlog{}) {
		t.Errorf("when all is settled: %+v", got)
	}
	if got := ages("sleeps", Alerts); got.Records != 2 || got.Age < 1 {
		t.Errorf("of another output: %+v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, outs)
	if got := ages("sleeps", Alerts); got.Records != 2 || got.Bytes == 0 {
		t.Errorf("of another process: %+v", got)
	}
}

// TestTrouble fills a disk, loses records, and makes room again.
func TestTrouble(t *testing.T) {
	d := &disk{room: 20_000}
	s := open(t, t.TempDir(), Options{pending: 10_000, retry: time.Millisecond, create: d.create})
	if got := s.Stats().Trouble; got != "" {
		t.Errorf("at first: %q", got)
	}
	until := func(want string) {
		t.Helper()
		for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			got := s.Stats().Trouble
			if strings.HasPrefix(got, want) && (want == "") == (got == "") {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	}
	for i := 0; s.Stats().Failures == 0; i++ {
		if err := s.Append(ctx, large(output.Alert, i, 5_000)); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	for i := 100; s.Stats().Refused.Total() == 0; i++ {
		if err := s.Append(ctx, large(output.Alert, i, 5_000)); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	until("alerts are lost: ")
	d.set(func(d *disk) { d.room = 1 << 20 })
	s.queues[Alerts].mu.Lock()
	l := &s.queues[Alerts].losses
	l.latest = l.latest.Add(-calmAfter)
	s.queues[Alerts].mu.Unlock()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	until("")
	d.set(func(d *disk) { d.room = 0 })
	if err := s.Append(ctx, large(output.Alert, 1000, 5_000)); err != nil {
		t.Fatal(err)
	}
	until("alerts cannot be written: ")
	d.set(func(d *disk) { d.room = 1 << 20 })
	until("")
}
