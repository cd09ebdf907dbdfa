package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

var ctx = context.Background()

// large makes a record with size bytes that cannot be compressed.
func large(d output.Dataset, n, size int) *output.Record {
	r := record(d, n)
	random := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(d)})
	start := len(r.JSON)
	r.JSON = append(r.JSON, make([]byte, size)...)
	random.Read(r.JSON[start:])
	for i, c := range r.JSON {
		if c == '\n' {
			r.JSON[i] = ' '
		}
	}
	return r
}

// count takes everything out of a finished spool and counts it.
func count(t testing.TB, s *Spool) (n Counts) {
	t.Helper()
	s.Finish()
	for queue := range Queues {
		for {
			batch, err := next(ctx, s, queue, 1000, 1<<20)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range batch {
				n[r.Dataset]++
			}
			if err := settle(s, queue, len(batch)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// TestFull fills a spool that must not wait: the oldest telemetry is given up for
// newer, all of it for alerts, and then the oldest alerts, and it never takes more
// than its limit.
func TestFull(t *testing.T) {
	var said syncBuffer
	s := open(t, t.TempDir(), Options{Size: MinSize, delay: time.Nanosecond, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	fill := func(d output.Dataset, n int) (dropped Counts) {
		for i := range n {
			if err := s.Append(ctx, large(d, i, 10_000)); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			if used := stats(s).Bytes; used > MinSize {
				t.Fatalf("%d bytes are used", used)
			}
			if d == output.Alert && dropped[output.Alert] == 0 {
				dropped = stats(s).Dropped
				if dropped[output.Alert] > 0 && dropped[output.Handshake] < 299-MinSize/8/10_000 {
					t.Errorf("alerts given up while telemetry was there: %v", dropped)
				}
			}
		}
		return stats(s).Dropped
	}
	if n := fill(output.Handshake, 300)[output.Handshake]; n < 300-MinSize/10_000 || n > 300-MinSize/10_000+MinSize/8/10_000+1 {
		t.Errorf("%d of 300 records of 10 kB given up in 1 MiB", n)
	}
	fill(output.Alert, 300)
	st := checkSums(t, s)
	if st.Refused.Total() != 0 {
		t.Errorf("refused %v", st.Refused)
	}
	if n := 300 - st.Dropped[output.Alert]; n < MinSize*3/4/10_000 || n > MinSize/10_000 {
		t.Errorf("%d alerts of 10 kB are kept in 1 MiB", n)
	}
	for _, want := range []string{"fills with alerts", "oldest records are given up\" queue=telemetry", "oldest records are given up\" queue=alerts"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said", want)
		}
	}
	// What is kept are the newest.
	var b Batch
	if err := s.Reader(onlyOutput).Next(ctx, Alerts, &b, 1, 1); err != nil || uint64(b.Records[0].Time) != st.Dropped[output.Alert] {
		t.Errorf("%v %v after %v", b.Records, err, st.Dropped)
	}
	n := count(t, s)
	if n[output.Alert] != 299-st.Dropped[output.Alert] || n[output.Handshake] != 300-st.Dropped[output.Handshake] {
		t.Errorf("got %v, dropped %v", n, st.Dropped)
	}
}

// TestBurst appends many alerts at once to the smallest spool: none is refused while
// there is room for them.
func TestBurst(t *testing.T) {
	s := open(t, t.TempDir(), Options{Size: MinSize})
	const n = 5000
	for i := range n {
		if err := s.Append(ctx, record(output.Alert, i)); err != nil {
			t.Fatalf("alert %d: %v", i, err)
		}
	}
	if got := count(t, s); got[output.Alert] != n {
		t.Errorf("got %v", got)
	}
	checkSums(t, s)
}

// TestHeld checks that what a reader has taken can be settled when it was given up
// for alerts meanwhile, and then counts as settled.
func TestHeld(t *testing.T) {
	s := open(t, t.TempDir(), Options{Size: MinSize, delay: time.Nanosecond})
	for i := range 90 {
		if err := s.Append(ctx, large(output.Handshake, i, 10_000)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	batch, err := next(ctx, s, Telemetry, 5, 1<<20)
	if err != nil || len(batch) != 5 {
		t.Fatalf("next: %d records, %v", len(batch), err)
	}
	for i := range 90 {
		if err := s.Append(ctx, large(output.Alert, i, 10_000)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range batch {
		if want := large(output.Handshake, i, 10_000); r.ID != want.ID || !bytes.Equal(r.JSON, want.JSON) {
			t.Errorf("record %d is now %s", i, r.ID)
		}
	}
	st := checkSums(t, s)
	if st.Waiting[output.Handshake] < 5 || st.Dropped[output.Handshake] < 60 {
		t.Errorf("waiting %v, dropped %v", st.Waiting, st.Dropped)
	}
	if err := settle(s, Telemetry, len(batch)); err != nil {
		t.Fatal(err)
	}
	if st := checkSums(t, s); st.Settled[output.Handshake] != 5 {
		t.Errorf("settled %v, dropped %v", st.Settled, st.Dropped)
	}
	if batch, err = next(ctx, s, Telemetry, 1, 1<<20); err != nil || batch[0].Time < 60 {
		t.Errorf("after the first five comes %v, %v", batch, err)
	}
}

// TestBlock puts through a small spool, with a reader, many times what it
// holds.
func TestBlock(t *testing.T) {
	s := open(t, t.TempDir(), Options{Size: MinSize, Block: true, delay: time.Nanosecond})
	const n = 600
	var got sync.WaitGroup
	var most atomic.Int64
	for queue := range Queues {
		got.Go(func() {
			for want := int(queue); ; {
				batch, err := next(ctx, s, queue, 50, 200_000)
				if err == io.EOF {
					if want < n {
						t.Errorf("%s: end before record %d", queue, want)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range batch {
					if int(r.Time) != want {
						t.Errorf("%s: record %d instead of %d", queue, r.Time, want)
					}
					want += 2
				}
				most.Store(max(most.Load(), stats(s).Bytes))
				if err := settle(s, queue, len(batch)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		d := output.Alert
		if i%2 == 1 {
			d = output.Handshake
		}
		if err := s.Append(ctx, large(d, i, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	s.Finish()
	got.Wait()
	if st := checkSums(t, s); st.Settled.Total() != n {
		t.Errorf("settled %v", st.Settled)
	}
	if most.Load() > MinSize {
		t.Errorf("used %d bytes of %d", most.Load(), MinSize)
	}
}

// TestBlockEnds ends a wait for room by its context, and by Finish.
func TestBlockEnds(t *testing.T) {
	s := open(t, t.TempDir(), Options{Size: MinSize, Block: true})
	fill := func(ctx context.Context) error {
		for {
			if err := s.Append(ctx, large(output.Handshake, 1, 100_000)); err != nil {
				return err
			}
		}
	}
	errs := make(chan error, 1)
	short, cancel := context.WithCancel(ctx)
	go func() { errs <- fill(short) }()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("append: %v", err)
	}
	go func() { errs <- fill(ctx) }()
	s.Finish()
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
}

// TestAge opens a spool whose segments were written long ago.
func TestAge(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{segment: 1})
	for i, d := range []output.Dataset{output.Handshake, output.Alert, output.Stats} {
		if err := s.Append(ctx, record(d, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range append(segments(t, dir, Alerts), segments(t, dir, Telemetry)[0]) {
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, Options{Age: time.Hour})
	want := Counts{output.Alert: 1, output.Stats: 1}
	if n := count(t, s); n != want {
		t.Errorf("got %v, want %v", n, want)
	}
	if st := checkSums(t, s); st.Dropped != (Counts{output.Handshake: 1}) {
		t.Errorf("dropped %v", st.Dropped)
	}
}

// TestRefused appends what cannot be stored.
func TestRefused(t *testing.T) {
	s := open(t, t.TempDir(), Options{Size: 16 * MinSize})
	for name, c := range map[string]struct {
		record output.Record
		want   error
	}{
		"no id":            {output.Record{JSON: []byte("{}")}, errRecord},
		"long id":          {output.Record{ID: strings.Repeat("0", 256), JSON: []byte("{}")}, errRecord},
		"line feed in id":  {output.Record{ID: "a\nb", JSON: []byte("{}")}, errRecord},
		"two lines":        {output.Record{ID: "a", JSON: []byte("{\n}")}, errRecord},
		"too large":        {output.Record{ID: "a", JSON: bytes.Repeat([]byte{'x'}, 5*MinSize)}, ErrTooLarge},
		"no dataset of us": {output.Record{Dataset: output.Datasets, ID: "a", JSON: []byte("{}")}, errRecord},
	} {
		if err := s.Append(ctx, &c.record); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := checkSums(t, s); st.Refused.Total() != 5 { // the last has no counter to be in
		t.Errorf("refused %v", st.Refused)
	}
}

// disk is a file system with a limit, and with faults.
type disk struct {
	mu   sync.Mutex
	room int   // bytes that can still be written
	sync error // of the next fsyncs
	once bool  // the next fsync fails
	hide bool  // create fails
}

type diskFile struct {
	*os.File
	d *disk
}

func (d *disk) create(path string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hide {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return &diskFile{f, d}, err
}

func (f *diskFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n, err := f.File.Write(b[:min(len(b), f.d.room)])
	f.d.room -= n
	if err == nil && n < len(b) {
		err = &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return n, err
}

func (f *diskFile) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.once {
		f.d.once = false
		return syscall.EIO
	}
	if f.d.sync != nil {
		return f.d.sync
	}
	return f.File.Sync()
}

func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// TestDiskFull runs out of disk long before the limit: what does not fit waits in
// memory; what does not fit there is counted and said; and when there is room again
// what waits is written, without a restart.
func TestDiskFull(t *testing.T) {
	var said syncBuffer
	d := &disk{room: 100_000}
	dir := t.TempDir()
	s := open(t, dir, Options{delay: time.Nanosecond, retry: time.Millisecond, pending: 50_000, create: d.create, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	lost := 0
	for i := range 80 {
		if err := s.Append(ctx, large(output.Alert, i, 5_000)); errors.Is(err, ErrFull) {
			lost++
		} else if err != nil {
			t.Fatal(err)
		}
		if i < 15 { // so that these are on the disk
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for i == 25 && stats(s).Failures == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if lost < 30 || lost > 60 {
		t.Errorf("lost %d of 80 records of 5 kB on a disk of 100 kB with 100 kB of memory", lost)
	}
	if st := checkSums(t, s); st.Refused[output.Alert] != uint64(lost) {
		t.Errorf("lost %d, refused %v, failures %d", lost, st.Refused, st.Failures)
	}
	for _, want := range []string{"records wait in memory", "no space left on device", "records lost"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said: %s", want, said.String())
		}
	}
	d.set(func(d *disk) { d.room = 1 << 20 })
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if st := checkSums(t, s); st.Accepted[output.Alert] != uint64(80-lost) || !strings.Contains(said.String(), "writes again") {
		t.Errorf("accepted %v, lost %d: %s", st.Accepted, lost, said.String())
	}
	s.Close()
	s = open(t, dir, Options{})
	if n := count(t, s); n[output.Alert] != uint64(80-lost) {
		t.Errorf("got %d alerts, want %d", n[output.Alert], 80-lost)
	}
	if st := checkSums(t, s); st.Corrupt != 0 || st.Torn != 0 {
		t.Errorf("corrupt %d, torn %d: a failed write was not cut off", st.Corrupt, st.Torn)
	}
}

// TestDiskFullToTheEnd closes a spool whose disk is still full: what waits is lost,
// and counted.
func TestDiskFullToTheEnd(t *testing.T) {
	d := &disk{}
	s := open(t, t.TempDir(), Options{create: d.create})
	if err := s.Append(ctx, record(output.Alert, 1)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if st := checkSums(t, s); st.Refused[output.Alert] != 1 {
		t.Errorf("refused %v", st.Refused)
	}
}

// TestDiskFullAlerts gives alerts the room of telemetry when the disk is full.
func TestDiskFullAlerts(t *testing.T) {
	d := &disk{room: 1 << 30}
	s := open(t, t.TempDir(), Options{segment: 1, delay: time.Nanosecond, retry: time.Millisecond, create: d.create})
	for i := range 5 {
		if err := s.Append(ctx, record(output.Handshake, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d.set(func(d *disk) { d.room, d.hide = 0, true })
	if err := s.Append(ctx, record(output.Alert, 9)); err != nil {
		t.Fatal(err)
	}
	// The last segment of telemetry may still grow, so it stays.
	for stats(s).Dropped[output.Handshake] < 4 || stats(s).Failures < 6 {
		time.Sleep(time.Millisecond)
	}
	if st := checkSums(t, s); st.Dropped != (Counts{output.Handshake: 4}) || st.Pending != (Counts{output.Alert: 1}) {
		t.Errorf("dropped %v, pending %v", st.Dropped, st.Pending)
	}
	d.set(func(d *disk) { d.room, d.hide = 1<<20, false })
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFullBlocks waits for room on the disk instead of losing records.
func TestDiskFullBlocks(t *testing.T) {
	d := &disk{room: 20}
	s := open(t, t.TempDir(), Options{Block: true, create: d.create})
	for i := range 10 {
		if err := s.Append(ctx, record(output.Dataset(i)%output.Datasets, i)); err != nil {
			t.Fatal(err)
		}
	}
	for stats(s).Failures == 0 {
		time.Sleep(time.Millisecond)
	}
	d.set(func(d *disk) { d.room = 1 << 20 })
	s.space.send()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, s); len(got) != 10 {
		t.Errorf("got %v", got)
	}
	if st := checkSums(t, s); st.Refused.Total() != 0 {
		t.Errorf("refused %v", st.Refused)
	}
}

// TestSyncFails makes fsync fail: the segment is not trusted again, and its last
// record goes to another.
func TestSyncFails(t *testing.T) {
	d := &disk{room: 1 << 30}
	dir := t.TempDir()
	s := open(t, dir, Options{create: d.create, retry: time.Millisecond})
	for i := range 6 {
		d.set(func(d *disk) {
			if d.sync = nil; i%2 == 1 {
				d.sync = syscall.EIO
			}
		})
		failures := stats(s).Failures
		if err := s.Append(ctx, record(output.Alert, i)); err != nil {
			t.Fatal(err)
		}
		for i%2 == 1 && stats(s).Failures < failures+3 {
			time.Sleep(time.Millisecond)
		}
		d.set(func(d *disk) { d.sync = nil })
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = open(t, dir, Options{})
	if got := drain(t, s); len(got) != 6 {
		t.Errorf("got %v", got)
	}
}

// TestSyncFailsOnce makes one fsync fail: the record goes to another segment.
func TestSyncFailsOnce(t *testing.T) {
	d := &disk{room: 1 << 30}
	dir := t.TempDir()
	s := open(t, dir, Options{create: d.create})
	for i := range 3 {
		if err := s.Append(ctx, record(output.Alert, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		d.set(func(d *disk) { d.once = i == 0 })
	}
	if st := checkSums(t, s); st.Failures != 1 || st.Refused.Total() != 0 {
		t.Errorf("failures %d, refused %v", st.Failures, st.Refused)
	}
	s.Close()
	s = open(t, dir, Options{})
	if got := drain(t, s); len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

// syncBuffer is a buffer for loggers in several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestModel does random things to a spool and to a list, and compares.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		o := Options{segment: int64(200 + r.IntN(2000)), delay: time.Hour}
		s := open(t, dir, o)
		var want [Queues][]int // accepted, not settled
		var taken [Queues]int  // of these
		n := 0
		for range 150 {
			queue := Queue(r.IntN(int(Queues)))
			switch r.IntN(10) {
			case 0, 1, 2, 3, 4:
				d := output.Dataset(r.IntN(int(output.Datasets)))
				if err := s.Append(ctx, record(d, n)); err != nil {
					t.Fatal(err)
				}
				want[QueueOf(d)] = append(want[QueueOf(d)], n)
				n++
			case 5, 6, 7, 8:
				if len(want[queue]) == 0 {
					continue
				}
				if err := s.Sync(ctx); err != nil {
					t.Fatal(err)
				}
				if taken[queue] < len(want[queue]) {
					batch, err := next(ctx, s, queue, 1+r.IntN(10), 1+r.IntN(1000))
					if err != nil {
						t.Fatal(err)
					}
					for i, b := range batch {
						if int(b.Time) != want[queue][taken[queue]+i] {
							t.Fatalf("seed %d: record %d, want %d", seed, b.Time, want[queue][taken[queue]+i])
						}
					}
					taken[queue] += len(batch)
				}
				n := r.IntN(taken[queue] + 1)
				if err := settle(s, queue, n); err != nil {
					t.Fatal(err)
				}
				want[queue] = want[queue][n:]
				taken[queue] -= n
			case 9:
				taken = [Queues]int{}
				s.Close()
				checkSums(t, s)
				s = open(t, dir, o)
			}
		}
		for queue := range Queues {
			if err := settle(s, queue, taken[queue]); err != nil {
				t.Fatal(err)
			}
			want[queue] = want[queue][taken[queue]:]
		}
		if got := drain(t, s); len(got) != len(want[Alerts])+len(want[Telemetry]) {
			t.Fatalf("seed %d: %d records left, want %v", seed, len(got), want)
		}
		checkSums(t, s)
		s.Close()
		if names, _ := filepath.Glob(filepath.Join(dir, "*.spool")); len(names) != 0 {
			t.Errorf("seed %d: %q left", seed, names)
		}
	}
}

// TestTelemetryDoesNotDelayAlerts reads alerts while nobody reads telemetry
// and its fsync is far away.
func TestTelemetryDoesNotDelayAlerts(t *testing.T) {
	s := open(t, t.TempDir(), Options{delay: time.Hour})
	for i := range 100 {
		if err := s.Append(ctx, record(output.Handshake, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(ctx, record(output.Alert, 100)); err != nil {
		t.Fatal(err)
	}
	batch, err := next(ctx, s, Alerts, 10, 1<<20)
	if err != nil || len(batch) != 1 || batch[0].Time != 100 {
		t.Errorf("next: %v, %v", batch, err)
	}
	if st := checkSums(t, s); st.Pending[output.Handshake] != 100 {
		t.Errorf("pending %v", st.Pending)
	}
}

func TestAppendAllocs(t *testing.T) {
	s := open(t, t.TempDir(), Options{delay: time.Hour})
	r := record(output.Handshake, 1)
	l := s.queues[Telemetry]
	l.mu.Lock()
	l.pending = make([]byte, 0, 1<<20)
	l.mu.Unlock()
	if n := testing.AllocsPerRun(1000, func() {
		if err := s.Append(ctx, r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), Options{Block: true})
	r := large(output.Handshake, 1, 1500)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var batch Batch
		for {
			if err := s.Reader(onlyOutput).Next(ctx, Telemetry, &batch, 2000, 4<<20); err != nil {
				return
			}
			if err := settle(s, Telemetry, len(batch.Records)); err != nil {
				b.Error(err)
			}
		}
	}()
	b.ReportAllocs()
	b.SetBytes(int64(recordSize(r)))
	for b.Loop() {
		if err := s.Append(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
	s.Finish()
	<-done
}
