// Package spool is a queue of records on disk, between a sensor that must not
// wait and a server that may be away.
//
// Open a directory, Append records, and take them out with Next and Settle.
// A record counts as accepted once it is fsynced; from then on it comes out of
// Next until it is settled, after a crash too, so it is delivered at least
// once. Alerts and telemetry go through lanes of their own: telemetry that
// piles up never delays an alert, and gives way to alerts where room is short.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Lane is one of the queues of a spool. Each is in the order of Append.
type Lane uint8

// The lanes.
const (
	Alerts    Lane = iota // fsynced at once, never given up for want of room in the limit
	Telemetry             // handshakes, certificates and stats
	Lanes                 // how many lanes there are
)

// String is the name of l in file names.
func (l Lane) String() string { return [...]string{"alerts", "telemetry"}[l] }

// LaneOf is the lane that records of d take.
func LaneOf(d output.Dataset) Lane {
	if d == output.Alert {
		return Alerts
	}
	return Telemetry
}

// What Append refuses a record with.
var (
	ErrFull     = errors.New("append to spool: no room")
	ErrClosed   = errors.New("append to spool: closed")
	ErrTooLarge = errors.New("append to spool: record too large")
)

// Options are the limits of a spool.
type Options struct {
	Size   int64         // bytes on disk, at least MinSize; 0 is DefaultSize
	Age    time.Duration // telemetry older than this is dropped, alerts never; 0 is DefaultAge
	Block  bool          // Append waits for room instead of refusing
	Logger *slog.Logger  // hears of losses; nil for none

	// For tests; zero values are the limits of this package.
	segment int64
	pending int
	delay   time.Duration
	create  func(path string) (file, error)
}

// file is what a lane needs of a segment that it writes.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Spool is an open spool. All methods may be called by several goroutines,
// but each lane has one reader.
type Spool struct {
	dir   string
	in    folder
	limit int64
	age   time.Duration
	block bool
	log   *slog.Logger

	pending int
	segment int64
	create  func(path string) (file, error)

	lock  *os.File
	lanes [Lanes]*lane
	used  atomic.Int64 // bytes of segments and of records on their way there
	room  broadcast    // sent when used or a lane's pending bytes went down

	finish     sync.Once
	finished   chan struct{} // closed when no more records are taken
	close      sync.Once
	closed     chan struct{}
	closeError error
}

// Open opens the spool in dir, which it makes when it is not there, and refuses
// when others may write to it. One process at a time can have it open. A tail
// that a crash left torn is cut off; records that are missing are counted.
func Open(dir string, o Options) (*Spool, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Size < MinSize {
		return nil, fmt.Errorf("open spool %s: size %d is below %d bytes", dir, o.Size, int64(MinSize))
	}
	if o.Age == 0 {
		o.Age = DefaultAge
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.segment == 0 {
		o.segment = min(maxSegment, o.Size/8)
	}
	if o.pending == 0 {
		o.pending = int(min(maxPending, o.Size/8))
	}
	if o.delay == 0 {
		o.delay = telemetryDelay
	}
	in, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if o.create == nil {
		o.create = func(path string) (file, error) {
			return in.open(filepath.Base(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		}
	}
	lock, err := in.open("lock", os.O_RDWR|os.O_CREATE)
	if err != nil {
		in.dir.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		in.dir.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("open spool %s: in use by another process", dir)
		}
		return nil, fmt.Errorf("lock spool %s: %w", dir, err)
	}
	s := &Spool{
		dir: dir, in: in, limit: o.Size, age: o.Age, block: o.Block, log: o.Logger,
		pending: o.pending, segment: o.segment, create: o.create,
		lock: lock, finished: make(chan struct{}), closed: make(chan struct{}),
	}
	for i := range s.lanes {
		if s.lanes[i], err = openLane(s, Lane(i)); err != nil {
			lock.Close()
			in.dir.Close()
			return nil, fmt.Errorf("open spool %s: %w", dir, err)
		}
	}
	s.lanes[Telemetry].delay = o.delay
	for _, l := range s.lanes {
		l.done.Go(l.run)
	}
	return s, nil
}

// Dir is the directory of the spool.
func (s *Spool) Dir() string { return s.dir }

// Append queues r and returns; r counts as accepted once it is on disk, which
// for an alert is at once, for others within a fraction of a second, or after
// Sync. The bytes of r are copied.
//
// Without room it returns ErrFull, or with Options.Block waits for room until
// ctx is done or the spool is finished. An error means that r is not queued;
// the refusal is counted.
func (s *Spool) Append(ctx context.Context, r *output.Record) error {
	err := checkRecord(r)
	if err == nil {
		err = s.append(ctx, r)
	}
	if err != nil && r.Dataset < output.Datasets {
		s.lanes[LaneOf(r.Dataset)].refuse(r.Dataset, err)
	}
	return err
}

func (s *Spool) append(ctx context.Context, r *output.Record) error {
	l := s.lanes[LaneOf(r.Dataset)]
	var room <-chan struct{}
	for {
		err := l.append(r)
		if err != ErrFull || !s.block {
			return err
		}
		if room != nil {
			select {
			case <-room:
			case <-s.finished:
				return ErrClosed
			case <-ctx.Done():
				return fmt.Errorf("append to spool: %w", context.Cause(ctx))
			}
		}
		room = s.room.wait() // before append is tried again, so that no wake-up is lost
	}
}

// Sync returns when all that was appended before it is on disk or lost. An error
// says how many records were lost, since the last Sync, that Append had taken.
func (s *Spool) Sync(ctx context.Context) error {
	var errs []error
	for _, l := range s.lanes {
		errs = append(errs, l.sync(ctx))
	}
	return errors.Join(errs...)
}

// Next returns the oldest accepted records of a lane that are not settled, at
// least one and at most records of them, or fewer so that their JSON comes to
// at most bytes (one record may be more). It waits for the first, until ctx is
// done, and returns io.EOF when there is none and the spool is finished.
//
// What is not settled is returned again. The records and their bytes are lent
// until the next call.
func (s *Spool) Next(ctx context.Context, lane Lane, records, bytes int) ([]output.Record, error) {
	return s.lanes[lane].next(ctx, records, bytes)
}

// Settle says that the first n records of what Next last returned are dealt
// with. They do not come again, but for a crash before Settle returns. An error
// means that they may come again after a restart.
func (s *Spool) Settle(lane Lane, n int) error { return s.lanes[lane].settle(n) }

// Finish ends appending: Append returns ErrClosed, and Next io.EOF where it
// would wait.
func (s *Spool) Finish() {
	s.finish.Do(func() {
		close(s.finished)
		for _, l := range s.lanes {
			poke(l.flush)
			poke(l.work)
			poke(l.ready)
		}
	})
}

// Close writes what was appended, and gives the directory free. What is not
// settled stays there for the next Open.
func (s *Spool) Close() error {
	s.Finish()
	s.close.Do(func() {
		close(s.closed)
		var errs []error
		for _, l := range s.lanes {
			l.done.Wait()
			errs = append(errs, l.close())
		}
		errs = append(errs, s.lock.Close(), s.in.dir.Close())
		s.closeError = errors.Join(errs...)
	})
	return s.closeError
}

// Counts counts records by dataset.
type Counts [output.Datasets]uint64

// Total is the sum over the datasets.
func (c Counts) Total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// MarshalJSON names the datasets.
func (c Counts) MarshalJSON() ([]byte, error) {
	named := make(map[string]uint64, len(c))
	for d, n := range c {
		named[output.Dataset(d).String()] = n
	}
	return json.Marshal(named)
}

func (c *Counts) add(o Counts) {
	for d, v := range o {
		c[d] += v
	}
}

// Stats counts what became of records, since Open. In each dataset
//
//	Appended = Accepted + Refused + Pending
//	Recovered + Accepted = Settled + Dropped + Spooled
type Stats struct {
	Appended  Counts `json:"appended"`  // given to Append
	Pending   Counts `json:"pending"`   // not on disk yet
	Refused   Counts `json:"refused"`   // lost before they were on disk: no room, or a failed write
	Accepted  Counts `json:"accepted"`  // on disk
	Recovered Counts `json:"recovered"` // found on disk by Open
	Settled   Counts `json:"settled"`
	Dropped   Counts `json:"dropped"` // accepted, then given up: for alerts, for age, or damaged on disk
	Spooled   Counts `json:"spooled"` // on disk, not settled

	Bytes     int64  `json:"bytes"`      // in use, of the limit
	Torn      uint64 `json:"torn"`       // tails cut off by Open
	TornBytes uint64 `json:"torn_bytes"` // their length
	Corrupt   uint64 `json:"corrupt"`    // damaged places skipped
	Failures  uint64 `json:"failures"`   // writes to the disk that failed

	// Missing counts records that an earlier process had accepted and that Open
	// did not find: somebody has deleted, emptied or cut a segment. They are in
	// no other count.
	Missing uint64 `json:"missing"`
}

// Stats returns the counts.
func (s *Spool) Stats() Stats {
	st := Stats{Bytes: s.used.Load()}
	for _, l := range s.lanes {
		l.addStats(&st)
	}
	return st
}

// broadcast wakes all who wait for something to change.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next send closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// poke wakes the one who reads c, now or when it next looks.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
