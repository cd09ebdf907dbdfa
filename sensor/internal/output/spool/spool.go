// Package spool is a queue of records on disk, between a sensor that must not
// wait and receivers that may be away.
//
// Open a directory, Append records, and take them out with the [Reader] of each
// output: Next, then Settle. A record counts as accepted once it is fsynced. From
// then on each reader that wants it gets it until it has settled it, after a crash
// too, so it is delivered at least once. A slow reader holds up no other.
//
// Alerts and telemetry have a queue each: telemetry that piles up never delays an
// alert, and is given up first where space is short. What all readers have settled
// is deleted.
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
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/ownfile"
)

// Queue is one of the queues of a spool. Each is in the order of Append.
type Queue uint8

// The queues.
const (
	Alerts    Queue = iota // fsynced at once, given up last
	Telemetry              // all other records
	Queues                 // how many queues there are
)

// String is the name of q in file names.
func (q Queue) String() string { return [...]string{"alerts", "telemetry"}[q] }

// Datasets is the set of the datasets whose records q has.
func (q Queue) Datasets() output.Set {
	alerts := output.Set(0).Add(output.Alert)
	if q == Alerts {
		return alerts
	}
	return output.Set(1<<output.Datasets-1) &^ alerts
}

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

// Output is somebody who reads a spool.
type Output struct {
	Name     string     // see [ValidName]; its cursors have it in their names
	Datasets output.Set // that it wants; it gets no others
}

var names = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ValidName reports whether name can be that of an output: a small letter, and then
// up to 31 small letters, digits and hyphens.
func ValidName(name string) bool { return names.MatchString(name) }

// Options are the limits of a spool, and who reads it.
type Options struct {
	Outputs []Output      // at most MaxOutputs
	Size    int64         // bytes on disk, compressed, at least MinSize; 0 is DefaultSize
	Age     time.Duration // telemetry older than this is given up, alerts never; 0 is DefaultAge
	Block   bool          // Append waits for space, and nothing is given up for want of it
	Logger  *slog.Logger  // hears of losses; nil for none

	// For tests; zero values are the limits of this package.
	segment int64
	pending int
	delay   time.Duration
	retry   time.Duration
	create  func(path string) (file, error)
}

// file is what a queue needs of a segment that it writes.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Spool is an open spool. All methods may be called by several goroutines.
type Spool struct {
	dir   string
	in    folder
	limit int64
	age   time.Duration
	block bool
	log   *slog.Logger

	pending int
	segment int64
	retry   time.Duration
	create  func(path string) (file, error)

	lock    *os.File
	queues  [Queues]*queue
	readers []*Reader    // those of Options first, then those of outputs that are not there
	used    atomic.Int64 // bytes of segments
	space   broadcast    // sent when used or a queue's pending bytes went down

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
//
// An output that is new gets what the spool has. What an output that is not in
// Options has not settled is kept for it, within the limits, until [Forget].
func Open(dir string, o Options) (*Spool, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Size < MinSize {
		return nil, fmt.Errorf("open spool %s: size %d is below %d bytes", dir, o.Size, int64(MinSize))
	}
	if len(o.Outputs) > MaxOutputs {
		return nil, fmt.Errorf("open spool %s: %d outputs are more than %d", dir, len(o.Outputs), MaxOutputs)
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
		o.pending = maxPending
	}
	if o.delay == 0 {
		o.delay = telemetryDelay
	}
	if o.retry == 0 {
		o.retry = retryDelay
	}
	in, lock, err := take(dir)
	if err != nil {
		return nil, err
	}
	if o.create == nil {
		o.create = func(path string) (file, error) {
			return in.open(filepath.Base(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		}
	}
	s := &Spool{
		dir: dir, in: in, limit: o.Size, age: o.Age, block: o.Block, log: o.Logger,
		pending: o.pending, segment: o.segment, retry: o.retry, create: o.create,
		lock: lock, finished: make(chan struct{}), closed: make(chan struct{}),
	}
	err = s.load(&o)
	if err != nil {
		lock.Close()
		in.close()
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	for _, q := range s.queues {
		q.expire()
		q.done.Go(q.run)
	}
	return s, nil
}

// take opens the folder of a spool for this process alone.
func take(dir string) (in folder, lock *os.File, err error) {
	in, err = openFolder(dir)
	if err != nil {
		return in, nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err = in.open("lock", os.O_RDWR|os.O_CREATE)
	if err != nil {
		in.close()
		return in, nil, fmt.Errorf("open spool: %w", err)
	}
	if err := ownfile.TryLock(lock); err != nil {
		lock.Close()
		in.close()
		if errors.Is(err, ownfile.ErrInUse) {
			return in, nil, fmt.Errorf("open spool %s: %w", dir, err)
		}
		return in, nil, fmt.Errorf("lock spool %s: %w", dir, err)
	}
	return in, lock, nil
}

// load makes the readers and the queues of what earlier processes left.
func (s *Spool) load(o *Options) (err error) {
	files, err := s.in.names()
	if err != nil {
		return err
	}
	if err := adoptCursors(s.in, files); err != nil {
		return err
	}
	if files, err = s.in.names(); err != nil {
		return err
	}
	for _, out := range o.Outputs {
		if !ValidName(out.Name) || s.reader(out.Name) != nil {
			return fmt.Errorf("output %q: a name is a small letter and up to 31 small letters, digits and hyphens, and is there once", out.Name)
		}
		s.readers = append(s.readers, newReader(s, out, false))
	}
	for _, name := range outputsOf(files) {
		if s.reader(name) != nil {
			continue
		}
		if len(s.readers) >= 2*MaxOutputs {
			return fmt.Errorf("more than %d outputs have cursors here: forget those that do not exist any more", 2*MaxOutputs)
		}
		s.readers = append(s.readers, newReader(s, Output{Name: name, Datasets: 1<<output.Datasets - 1}, true))
	}
	for i := range s.queues {
		if s.queues[i], err = openQueue(s, Queue(i), files); err != nil {
			return err
		}
	}
	s.queues[Telemetry].delay = o.delay
	for _, r := range s.readers {
		if left := r.waiting(); r.absent && left > 0 {
			s.log.Warn("spool: keeps records for an output that is not configured: oddcert spool forget drops them",
				"output", r.name, "records", left, "dir", s.dir)
		}
	}
	return nil
}

func (s *Spool) reader(name string) *Reader {
	for _, r := range s.readers {
		if r.name == name {
			return r
		}
	}
	return nil
}

// Reader returns the reader of the output with a name, nil when Options does not
// have it.
func (s *Spool) Reader(name string) *Reader {
	if r := s.reader(name); r != nil && !r.absent {
		return r
	}
	return nil
}

// Dir is the directory of the spool.
func (s *Spool) Dir() string { return s.dir }

// Append queues r and returns; r counts as accepted once it is on disk, which
// for an alert is at once, for others within a fraction of a second, or after
// Sync. The bytes of r are copied.
//
// Without space in memory it returns ErrFull, or with Options.Block waits for space
// until ctx is done or the spool is finished. An error means that r is not queued;
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

// Finish ends appending: Append returns ErrClosed, and Next io.EOF where it
// would wait.
func (s *Spool) Finish() {
	s.finishing.Do(func() {
		close(s.finished)
		for _, q := range s.queues {
			wake(q.flush)
			wake(q.work)
			q.arrived.send()
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
		errs = append(errs, s.lock.Close(), s.in.close())
		s.closeError = errors.Join(errs...)
	})
	return s.closeError
}

// Forget drops what a spool keeps for an output that is no longer there. Another
// output with the name gets what the spool has then.
func Forget(dir, name string) error {
	in, lock, err := take(dir)
	if err != nil {
		return err
	}
	defer in.close()
	defer lock.Close()
	files, err := in.names()
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	found := false
	for _, file := range files {
		if out, _, ok := cursorOf(file); ok && out == name {
			found = true
			if err := in.remove(file); err != nil {
				return fmt.Errorf("forget output %s: %w", name, err)
			}
		}
	}
	if !found {
		return fmt.Errorf("forget output %s: %s has nothing of it", name, dir)
	}
	return in.sync()
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
