package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrGone is what an output refuses records with when it will never take one
// again, such as a pipe that nobody reads any more.
var ErrGone = errors.New("nobody takes records any more")

// Why a sink loses lines.
var (
	errFull   = errors.New("they are not taken as fast as they come")
	errClosed = errors.New("closed")
)

// Sink writes lines to a file that may be full, or a pipe that nobody reads,
// from a goroutine of its own: whoever has something to write waits for no
// longer than he wants. What does not go waits in a queue; what has no room
// there is lost, and counted. That it begins and that it is over is logged.
//
// A line is written whole or not at all: where a disk became full within one
// the beginning is cut off again, and the line written when there is room.
//
// It is an [io.Writer] of whole lines. Its methods may be called by several
// goroutines.
type Sink struct {
	o    SinkOptions
	wake chan struct{} // there is something to do
	done chan struct{} // all is written, or never will be

	mu      sync.Mutex
	w       io.Writer
	queue   []byte // whole lines
	spare   []byte // the queue before, for reuse
	writing []byte // what the goroutine is about to write
	written int    // how much of it is written
	direct  bool   // a full queue is written by who fills it: a file takes it at once
	flush   bool   // do not wait for company
	reopen  bool
	closing bool
	waiting int           // callers that wait for room
	room    chan struct{} // closed when there is some
	gone    error         // why nothing will be written any more
	trouble error         // why nothing is written, nil when all is well
	since   time.Time     // when it began
	said    time.Time     // when that was said last
	before  uint64        // lost when it began
	lost    uint64
	cause   error // of the latest loss
}

// SinkOptions say how a [Sink] behaves.
type SinkOptions struct {
	Name string // of the file, for the log
	What string // what the lines are, for the log, such as "records"

	// Block makes Write wait for room: for as long as a pipe is not read, and
	// for maxTrouble where the file cannot be written to.
	Block bool
	// Late is done when nobody may wait any more; nil for never.
	Late context.Context
	// Log hears when lines cannot be written, and when they can again. Without
	// one the lines that were lost are noted in the file itself.
	Log *slog.Logger
	// Open opens the file anew for Reopen; nil when there is no such thing.
	Open func() (*os.File, error)
}

// NewSink returns a sink that writes to w, which it does not close unless Open
// is given.
func NewSink(w io.Writer, o SinkOptions) *Sink {
	if o.Late == nil {
		o.Late = context.Background()
	}
	s := &Sink{o: o, w: w, wake: make(chan struct{}, 1), done: make(chan struct{}), room: make(chan struct{})}
	if f, ok := w.(*os.File); ok && o.Block {
		info, err := f.Stat()
		s.direct = err == nil && info.Mode().IsRegular()
	}
	go s.run()
	return s
}

// Write queues lines, all of p or nothing, and copies them; they are written
// soon. An error means that they are lost; it is [ErrGone] when all that follows
// will be lost as well.
func (s *Sink) Write(p []byte) (int, error) {
	if err := s.append(p, ""); err != nil {
		return 0, err
	}
	s.Flush()
	return len(p), nil
}

// append queues p, and end behind it.
func (s *Sink) append(p []byte, end string) error {
	s.mu.Lock()
	for {
		err := s.gone
		switch {
		case err != nil:
		case s.closing:
			err = errClosed
		case len(s.queue) == 0 || len(s.queue)+len(p) < s.limit():
			before := len(s.queue)
			s.queue = append(append(s.queue, p...), end...)
			if before < sinkBatch && len(s.queue) >= sinkBatch && !s.here() {
				s.poke()
			}
			s.mu.Unlock()
			return nil
		default:
			if err = errFull; s.wait() {
				continue
			}
		}
		if err == errFull && s.trouble != nil {
			err = s.trouble
		}
		say := s.begin(err)
		s.lost += uint64(bytes.Count(p, lineFeed) + len(end))
		s.cause = err
		s.mu.Unlock()
		say()
		return fmt.Errorf("write to %s: %w", s.o.Name, err)
	}
}

// here writes the queue where it was filled, which spares the processor's caches,
// and reports whether it could: what goes wrong is left to the goroutine. The
// caller holds mu.
func (s *Sink) here() bool {
	if !s.direct || s.trouble != nil || len(s.writing) > 0 || s.reopen {
		return false
	}
	n, err := s.w.Write(s.queue)
	if err != nil {
		s.writing, s.written, s.queue = s.queue, n, nil
		return false
	}
	s.queue = s.queue[:0]
	return true
}

var lineFeed = []byte{'\n'}

func (s *Sink) limit() int {
	if s.o.Block {
		return maxSinkBlock
	}
	return maxSinkQueue
}

// wait waits for room, and reports whether it is worth looking for. The caller
// holds mu.
func (s *Sink) wait() bool {
	if !s.o.Block || s.o.Late.Err() != nil || s.trouble != nil && s.trouble != errFull && time.Since(s.since) > maxTrouble {
		return false
	}
	s.poke()
	room := s.room
	s.waiting++
	s.mu.Unlock()
	t := time.NewTimer(maxTrouble)
	select {
	case <-room:
	case <-s.o.Late.Done():
	case <-t.C:
		s.mu.Lock()
		say := s.begin(errFull)
		s.mu.Unlock()
		say()
	}
	t.Stop()
	s.mu.Lock()
	s.waiting--
	return true
}

// Flush has what is queued written soon.
func (s *Sink) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush = true
	s.poke()
}

// Reopen has the file opened anew, between two lines: it may have been moved
// away.
func (s *Sink) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reopen = s.o.Open != nil
	s.poke()
}

// Close writes what is queued, until ctx is done, and returns an error when
// lines were lost.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.poke()
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := bytes.Count(s.writing, lineFeed) + bytes.Count(s.queue, lineFeed); left > 0 {
		s.lost += uint64(left) // a write that is under way may still succeed
		s.writing, s.queue, s.cause = nil, nil, errFull
	}
	if s.lost == 0 {
		return nil
	}
	return fmt.Errorf("write %s to %s: %d lost: %w", s.o.What, s.o.Name, s.lost, s.cause)
}

// Lost is how many lines were lost.
func (s *Sink) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// poke wakes the goroutine that writes. The caller holds mu.
func (s *Sink) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// free tells those who wait that there is room. The caller holds mu.
func (s *Sink) free() {
	if s.waiting > 0 {
		close(s.room)
		s.room = make(chan struct{})
	}
}

// run writes the queue until the sink is closed.
func (s *Sink) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		due := len(s.queue) >= sinkBatch || s.flush || s.closing || s.waiting > 0
		s.flush = false
		if due && len(s.queue) > 0 && len(s.writing) == 0 {
			s.writing, s.queue, s.spare = s.queue, s.spare[:0], nil
		}
		if due {
			s.free()
		}
		chunk, at, over := s.writing, s.written, s.closing
		s.written = 0
		s.mu.Unlock()
		s.renew()
		if len(chunk) > 0 {
			s.put(chunk, at)
			s.mu.Lock()
			s.writing, s.spare = nil, chunk[:0]
			s.mu.Unlock()
			continue
		}
		if over {
			return
		}
		<-s.wake
	}
}

// put writes lines, of which at bytes are written, until all are written or lost.
func (s *Sink) put(chunk []byte, at int) {
	for {
		n, err := s.w.Write(chunk[at:])
		at += n
		if err == nil {
			s.end()
			return
		}
		line := bytes.LastIndexByte(chunk[:at], '\n') + 1
		if at > line && s.cut(at-line) {
			at = line
		}
		s.mu.Lock()
		s.writing = chunk[line:]
		say := s.begin(err)
		final := isFinal(s.w, err)
		if final {
			s.gone = fmt.Errorf("%w: %w", err, ErrGone)
		}
		if final || s.closing {
			// There is no other try: the queue is lost as well.
			s.lost += uint64(bytes.Count(chunk[line:], lineFeed) + bytes.Count(s.queue, lineFeed))
			s.cause = err
			s.queue = s.queue[:0]
			s.free()
			s.mu.Unlock()
			say()
			return
		}
		s.mu.Unlock()
		say()
		t := time.NewTimer(sinkRetry)
		select {
		case <-t.C:
		case <-s.wake:
		}
		t.Stop()
		if s.renew() {
			at = line
		}
	}
}

// isFinal says whether nothing can be written to w any more after err: a disk
// may get room again, a reader who went away does not come back.
func isFinal(w io.Writer, err error) bool {
	f, ok := w.(*os.File)
	if !ok || errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		return true
	}
	info, e := f.Stat()
	return e != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

// cut takes the beginning of a line off the end of a file, and reports whether
// the line is to be written from its beginning.
func (s *Sink) cut(torn int) bool {
	f, ok := s.w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	// Where the last write ended, also in a file to append to.
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false
	}
	if info.Size() < end {
		return true // somebody has emptied the file meanwhile
	}
	if info.Size() > end || f.Truncate(end-int64(torn)) != nil {
		return false
	}
	_, err = f.Seek(end-int64(torn), io.SeekStart)
	return err == nil
}

// renew opens the file anew when that was asked for, and reports whether it
// did.
func (s *Sink) renew() bool {
	s.mu.Lock()
	due := s.reopen
	s.reopen = false
	s.mu.Unlock()
	if !due {
		return false
	}
	f, err := s.o.Open()
	if err != nil {
		s.log(slog.LevelError, s.o.What+": the file stays the old one", "file", s.o.Name, "err", err)
		return false
	}
	s.mu.Lock()
	old := s.w
	s.w = f
	s.mu.Unlock()
	if old, ok := old.(*os.File); ok {
		_ = old.Close() // nothing that was written to it is in a buffer of ours
	}
	s.log(slog.LevelInfo, s.o.What+": opened anew", "file", s.o.Name)
	return true
}

// File is what is written to now.
func (s *Sink) File() io.Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w
}

// begin notes why lines cannot be written, and returns what says so: at once,
// and once a minute for as long as it lasts. The caller holds mu.
func (s *Sink) begin(err error) (say func()) {
	news := s.trouble == nil || s.trouble == errFull && err != errFull
	if s.trouble == nil {
		s.since, s.before = time.Now(), s.lost
	}
	if news {
		s.trouble = err
	} else if time.Since(s.said) < time.Minute {
		return func() {}
	}
	s.said = time.Now()
	lost := s.lost - s.before
	return func() {
		s.log(slog.LevelError, s.o.What+": cannot be written", "file", s.o.Name, "err", err, "lost", lost)
	}
}

// end notes that lines are written. It is said when the queue is half empty,
// so that a reader who is too slow is not said to come and go.
func (s *Sink) end() {
	s.mu.Lock()
	if s.trouble == nil || len(s.queue) > s.limit()/2 {
		s.mu.Unlock()
		return
	}
	lost, after := s.lost-s.before, time.Since(s.since)
	s.trouble = nil
	if s.o.Log == nil && lost > 0 {
		s.queue = fmt.Appendf(s.queue, "oddcert: %d lines were lost before this one\n", lost)
	}
	s.mu.Unlock()
	s.log(slog.LevelInfo, s.o.What+": written again", "file", s.o.Name, "after", after.Round(time.Millisecond), "lost", lost)
}

func (s *Sink) log(level slog.Level, message string, args ...any) {
	if s.o.Log != nil {
		s.o.Log.Log(context.Background(), level, message, args...)
	}
}
