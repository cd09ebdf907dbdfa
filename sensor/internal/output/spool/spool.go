// Package spool is a queue of records on disk, between a sensor that must not
// wait and a server that may be away.
//
// Open a directory, Append records, and take them out with Next and Settle.
// A record counts as accepted once it is fsynced. From then on Next returns it
// until it is settled, after a crash too, so it is delivered at least once.
// Alerts and telemetry have a queue each: telemetry that piles up never delays
// an alert, and is evicted for alerts where space is short.
//
// Records are compressed on their way to the disk, many together if many come.
// None waits for others longer than for the next fsync.
package spool

import (
	"context"
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

// Queue is one of the queues of a spool. Each is in the order of Append.
type Queue uint8

// The queues.
const (
	Alerts    Queue = iota // fsynced at once, never given up for want of space in the limit
	Telemetry              // all other records
	Queues                 // how many queues there are
)

// String is the name of q in file names.
func (q Queue) String() string { return [...]string{"alerts", "telemetry"}[q] }

// QueueOf is the queue of records of d.
func QueueOf(d output.Dataset) Queue {
	if d == output.Alert {
		return Alerts
	}
	return Telemetry
}

// What Append refuses a record with.
var (
	ErrFull     = errors.New("append to spool: no space")
	ErrClosed   = errors.New("append to spool: closed")
	ErrTooLarge = errors.New("append to spool: record too large")
)

// Options are the limits of a spool.
type Options struct {
	Size   int64         // bytes on disk, compressed, at least MinSize; 0 is DefaultSize
	Age    time.Duration // telemetry older than this is dropped, alerts never; 0 is DefaultAge
	Block  bool          // Append waits for space instead of refusing
	Logger *slog.Logger  // hears of losses; nil for none

	// For tests; zero values are the limits of this package.
	segment int64
	pending int
	delay   time.Duration
	create  func(path string) (file, error)
}

// file is what a queue needs of a segment that it writes.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Spool is an open spool. All methods may be called by several goroutines,
// but each queue has one reader.
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

	lock   *os.File
	queues [Queues]*queue
	used   atomic.Int64 // bytes of segments and of records on their way there
	space  broadcast    // sent when used or a queue's pending bytes went down

	finishing  sync.Once
	finished   chan struct{} // closed when no more records are taken
	closing    sync.Once
	closed     chan struct{}
	closeError error
}

// Open opens the spool in dir, which it makes when it is not there, and refuses
// when others may write to it. One process at a time can have it open. A tail
// that a crash left torn is cut off; records that are missing are counted. What
// an older version of the program left is delivered as well.
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
	for i := range s.queues {
		if s.queues[i], err = openQueue(s, Queue(i)); err != nil {
			lock.Close()
			in.dir.Close()
			return nil, fmt.Errorf("open spool %s: %w", dir, err)
		}
	}
	s.queues[Telemetry].delay = o.delay
	for _, q := range s.queues {
		q.done.Go(q.run)
	}
	return s, nil
}

// Dir is the directory of the spool.
func (s *Spool) Dir() string { return s.dir }

// Append queues r and returns; r counts as accepted once it is on disk, which
// for an alert is at once, for others within a fraction of a second, or after
// Sync. The bytes of r are copied.
//
// Without space it returns ErrFull, or with Options.Block waits for space until
// ctx is done or the spool is finished. An error means that r is not queued;
// the refusal is counted.
func (s *Spool) Append(ctx context.Context, r *output.Record) error {
	err := checkRecord(r)
	if err == nil {
		err = s.enqueue(ctx, r)
	}
	if err != nil && r.Dataset < output.Datasets {
		s.queues[QueueOf(r.Dataset)].refuse(r.Dataset, err)
	}
	return err
}

// enqueue queues r, and waits for space where the spool blocks.
func (s *Spool) enqueue(ctx context.Context, r *output.Record) error {
	q := s.queues[QueueOf(r.Dataset)]
	var space <-chan struct{}
	for {
		err := q.enqueue(r)
		if err != ErrFull || !s.block {
			return err
		}
		if space != nil {
			select {
			case <-space:
			case <-s.finished:
				return ErrClosed
			case <-ctx.Done():
				return fmt.Errorf("append to spool: %w", context.Cause(ctx))
			}
		}
		space = s.space.wait() // before enqueue is tried again, so that no wake-up is lost
	}
}

// Sync returns when all that was appended before it is on disk or lost. An error
// says how many records were lost, since the last Sync, that Append had taken.
func (s *Spool) Sync(ctx context.Context) error {
	var errs []error
	for _, q := range s.queues {
		errs = append(errs, q.sync(ctx))
	}
	return errors.Join(errs...)
}

// Next returns the oldest accepted records of a queue that are not settled, at
// least one and at most records of them, or fewer so that their JSON comes to
// at most bytes (one record may be more). It waits for the first, until ctx is
// done, and returns io.EOF when there is none and the spool is finished.
//
// What is not settled is returned again. The records and their bytes are lent
// until the next call.
func (s *Spool) Next(ctx context.Context, queue Queue, records, bytes int) ([]output.Record, error) {
	return s.queues[queue].take(ctx, records, bytes)
}

// Settle says that the first n records of what Next last returned are dealt
// with. They do not come again, except after a crash before Settle returns. An error
// means that they may come again after a restart.
func (s *Spool) Settle(queue Queue, n int) error { return s.queues[queue].settle(n) }

// Finish ends appending: Append returns ErrClosed, and Next io.EOF where it
// would wait.
func (s *Spool) Finish() {
	s.finishing.Do(func() {
		close(s.finished)
		for _, q := range s.queues {
			wake(q.flush)
			wake(q.work)
			wake(q.ready)
		}
	})
}

// Close writes what was appended, and unlocks the directory. What is not
// settled stays there for the next Open.
func (s *Spool) Close() error {
	s.Finish()
	s.closing.Do(func() {
		close(s.closed)
		var errs []error
		for _, q := range s.queues {
			q.done.Wait()
			errs = append(errs, q.release())
		}
		errs = append(errs, s.lock.Close(), s.in.dir.Close())
		s.closeError = errors.Join(errs...)
	})
	return s.closeError
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

// wake wakes the reader of c, now or when it next looks.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
