package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestMissing deletes, empties and cuts segments between two runs, after any
// number of records were settled: what comes out and what is said to be missing
// are all that was not settled, and it is said once.
func TestMissing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		dir := t.TempDir()
		s := open(t, dir, Options{segment: 600})
		n := 1 + r.IntN(40)
		for i := range n {
			if err := s.Append(ctx, record(output.Alert, i)); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
		settled := 0
		for goal := r.IntN(n + 1); settled < goal; {
			batch, err := next(ctx, s, Alerts, 1+r.IntN(3), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := settle(s, Alerts, len(batch)); err != nil {
				t.Fatal(err)
			}
			settled += len(batch)
		}
		s.Close()
		for _, name := range segments(t, dir, Alerts) {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			switch r.IntN(5) {
			case 0:
				err = os.Remove(name)
			case 1:
				err = os.Truncate(name, 0)
			case 2:
				err = os.Truncate(name, r.Int64N(info.Size()))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var log syncBuffer
		s = open(t, dir, Options{segment: 600, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		st := checkSums(t, s)
		if got := int(st.Recovered.Total() + st.Missing); got != n-settled {
			t.Fatalf("round %d: %d recovered and %d missing of %d, %d of them settled", round, st.Recovered.Total(), st.Missing, n, settled)
		}
		if said := strings.Contains(log.String(), fmt.Sprintf("records=%d", st.Missing)); said != (st.Missing > 0) {
			t.Fatalf("round %d: said %q of %d", round, log.String(), st.Missing)
		}
		// What comes then has numbers of its own.
		for i := range 5 {
			if err := s.Append(ctx, record(output.Alert, n+i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := drain(t, s); len(got) != int(st.Recovered.Total())+5 {
			t.Fatalf("round %d: got %v", round, got)
		}
		s.Close()
		s = open(t, dir, Options{})
		if st := stats(s); st.Missing != 0 {
			t.Fatalf("round %d: %d are missing again", round, st.Missing)
		}
		s.Close()
	}
}

// TestMissingIsNotGivenUp gives up telemetry for alerts, in the middle of what
// is kept: it is counted then, and not missing later.
func TestMissingIsNotGivenUp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Size: MinSize, delay: 1})
	for i := range 90 {
		if err := s.Append(ctx, large(output.Handshake, i, 10_000)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := next(ctx, s, Telemetry, 5, 1<<20); err != nil { // holds the first segment
		t.Fatal(err)
	}
	for i := range 50 {
		if err := s.Append(ctx, large(output.Alert, i, 10_000)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	dropped := checkSums(t, s).Dropped.Total() // with what was held, and is nowhere now
	for range 2 {
		s = open(t, dir, Options{Size: MinSize})
		if st := checkSums(t, s); dropped == 0 || st.Missing != 0 || st.Recovered.Total() != 140-dropped {
			t.Errorf("%d dropped; then %+v", dropped, st)
		}
		s.Close()
	}
	s = open(t, dir, Options{Size: MinSize})
	if n := count(t, s); n.Total() != 140-dropped {
		t.Errorf("got %v", n)
	}
	s.Close()
	s = open(t, dir, Options{Size: MinSize})
	if st := stats(s); st.Missing != 0 {
		t.Errorf("%+v", st)
	}
}

// TestDamagedWhileOpen empties, cuts and deletes the segments of an open spool:
// how many records are lost is said.
func TestDamagedWhileOpen(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 300) },
		"deleted": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var log syncBuffer
			s := open(t, dir, Options{segment: 1000, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			for i := range 20 {
				if err := s.Append(ctx, record(output.Alert, i)); err != nil {
					t.Fatal(err)
				}
				if err := s.Sync(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := damage(segments(t, dir, Alerts)[1]); err != nil {
				t.Fatal(err)
			}
			got := drain(t, s)
			st := checkSums(t, s)
			if lost := 20 - len(got); lost == 0 || int(st.Dropped.Total()) != lost || !regexp.MustCompile(fmt.Sprintf(`records=(map\[elasticsearch:)?%d\b`, lost)).MatchString(log.String()) {
				t.Errorf("got %d, dropped %v, said %q", len(got), st.Dropped, log.String())
			}
			s.Close()
			s = open(t, dir, Options{})
			if st := stats(s); st.Missing != 0 {
				t.Errorf("missing again: %+v", st)
			}
		})
	}
}

// TestRefusedAlertsAreSaid fills a disk and makes room again.
func TestRefusedAlertsAreSaid(t *testing.T) {
	var log syncBuffer
	d := &disk{room: 20_000}
	s := open(t, t.TempDir(), Options{pending: 10_000, retry: time.Millisecond, create: d.create, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 20 {
		if err := s.Append(ctx, large(output.Alert, i, 5_000)); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	lost := stats(s).Refused[output.Alert]
	if n := strings.Count(log.String(), "records lost"); n != 1 || lost == 0 {
		t.Errorf("%d lost, said %d times: %s", lost, n, log.String())
	}
	d.set(func(d *disk) { d.room = 1 << 20 })
	s.queues[Alerts].mu.Lock()
	l := &s.queues[Alerts].losses
	l.latest = l.latest.Add(-calmAfter)
	s.queues[Alerts].mu.Unlock()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`takes records again" queue=alerts lost=%d`, lost); !strings.Contains(log.String(), want) {
		t.Errorf("said %q, not %q", log.String(), want)
	}
}

// TestFolder refuses folders that others may write to, and follows no links.
func TestFolder(t *testing.T) {
	for _, mode := range []os.FileMode{0o770, 0o707, 0o777, 0o777 | os.ModeSticky} {
		dir := filepath.Join(t.TempDir(), "spool")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, withOutput(Options{})); err == nil || !strings.Contains(err.Error(), "others may write to "+dir) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		if err := os.Chown(dir, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, withOutput(Options{})); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("another owner: %v", err)
		}
	}
	for _, name := range []string{"lock", "elasticsearch.alerts.cursor", "elasticsearch.alerts.cursor.new", "alerts-0000000000000001.spool"} {
		dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, withOutput(Options{}))
		if err == nil {
			_ = s.Append(context.Background(), record(output.Alert, 1))
			_ = s.Sync(context.Background())
			s.Close()
		}
		if b, err := os.ReadFile(victim); err != nil || !bytes.Equal(b, []byte("mine")) {
			t.Errorf("%s: the file behind the link is %q, %v", name, b, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir, Options{})
	_ = s.Append(context.Background(), record(output.Alert, 1))
	s.Close()
	for _, path := range append(segments(t, dir, Alerts), filepath.Join(dir, "lock"), filepath.Join(dir, "elasticsearch.alerts.cursor"), dir) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}
