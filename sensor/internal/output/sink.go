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

// ErrGone is the error of an output that will never take a record again, such as
// a pipe that nobody reads any more.
var ErrGone = errors.New("nobody takes records any more")

// Why a sink loses lines.
var (
	errFull   = errors.New("they are not taken as fast as they come")
	errClosed = errors.New("closed")
)

// Sink writes lines to a file that may be full, or a pipe that nobody reads,
// from a goroutine of its own: a caller of Write waits only if SinkOptions.Block
// says so, and only within limits. Lines that cannot be written yet wait in a
// queue; lines that find no space there are lost, and counted. The log says when
// that begins and when it is over.
//
// A line is written whole or not at all: when a disk becomes full within a line,
// the beginning of the line is cut off again, and the line is written when there
// is space.
//
// It is an [io.Writer] of whole lines. Its methods may be called by several
// goroutines.
type Sink struct {
	o    SinkOptions
	wake chan struct{} // there is something to do
	done chan struct{} // all is written, or never will be

	mu         sync.Mutex
	w          io.Writer
	queue      []byte // whole lines
	spare      []byte // the queue before, for reuse
	writing    []byte // what the goroutine is about to write
	written    int    // how much of it is written
	direct     bool   // the caller that fills the queue writes it: a file takes it at once
	flush      bool   // do not wait for a full batch
	reopen     bool   // open the file anew
	closing    bool
	waiting    int           // callers that wait for space
	space      chan struct{} // closed when there is some
	final      error         // why nothing will be written any more
	trouble    error         // why nothing is written now, nil when all is well
	since      time.Time     // when that began
	before     uint64        // lost when it began
	lastLogged time.Time
	lost       uint64
	cause      error // of the latest loss
}

// SinkOptions say how a [Sink] behaves.
type SinkOptions struct {
	Name string // of the file, for the log
	What string // what the lines are, for the log, such as "records"

	// Block makes Write wait for space: for as long as a pipe is not read, and
	// for maxTrouble where the file cannot be written to.
	Block bool
	// Late is done when nobody may wait any more; nil for never.
	Late context.Context
	// Log gets a line when lines cannot be written, and when they can again.
	// Without one the file itself gets a line with the number of lost ones.
	Log *slog.Logger
	// Open opens the file anew for Reopen; nil when it cannot be.
	Open func() (*os.File, error)
}

// NewSink returns a sink that writes to w, which it does not close unless Open
// is given.
func NewSink(w io.Writer, o SinkOptions) *Sink {
	if o.Late == nil {
		o.Late = context.Background()
	}
	s := &Sink{o: o, w: w, wake: make(chan struct{}, 1), done: make(chan struct{}), space: make(chan struct{})}
	if f, ok := w.(*os.File); ok && o.Block {
		info, err := f.Stat()
		s.direct = err == nil && info.Mode().IsRegular()
	}
	go s.run()
	return s
}

// Write copies lines into the queue, all of p or nothing; they are written soon.
// An error means that they are lost; it is [ErrGone] when all that follows will
// be lost as well.
func (s *Sink) Write(p []byte) (int, error) {
	if err := s.enqueue(p, ""); err != nil {
		return 0, err
	}
	s.Flush()
	return len(p), nil
}

// enqueue queues p, and end after it.
func (s *Sink) enqueue(p []byte, end string) error {
	s.mu.Lock()
	for {
		err := s.final
		switch {
		case err != nil:
		case s.closing:
			err = errClosed
		case len(s.queue) == 0 || len(s.queue)+len(p) < s.limit():
			before := len(s.queue)
			s.queue = append(append(s.queue, p...), end...)
			if before < sinkBatch && len(s.queue) >= sinkBatch && !s.writeDirectly() {
				s.wakeWriter()
			}
			s.mu.Unlock()
			return nil
		default:
			if err = errFull; s.waitForSpace() {
				continue
			}
		}
		if err == errFull && s.trouble != nil {
			err = s.trouble
		}
		log := s.noteTrouble(err)
		s.lost += uint64(bytes.Count(p, lineFeed) + len(end))
		s.cause = err
		s.mu.Unlock()
		log()
		return fmt.Errorf("write to %s: %w", s.o.Name, err)
	}
}

// writeDirectly writes the queue in the goroutine that filled it, while it is in
// the processor's cache, and reports whether it could: errors are left to the
// sink's goroutine. The caller holds mu.
func (s *Sink) writeDirectly() bool {
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

// waitForSpace waits until there may be space in the queue, and reports false when
// the caller must not wait for it. The caller holds mu.
func (s *Sink) waitForSpace() bool {
	if !s.o.Block || s.o.Late.Err() != nil || s.trouble != nil && s.trouble != errFull && time.Since(s.since) > maxTrouble {
		return false
	}
	s.wakeWriter()
	space := s.space
	s.waiting++
	s.mu.Unlock()
	t := time.NewTimer(maxTrouble)
	select {
	case <-space:
	case <-s.o.Late.Done():
	case <-t.C:
		s.mu.Lock()
		log := s.noteTrouble(errFull)
		s.mu.Unlock()
		log()
	}
	t.Stop()
	s.mu.Lock()
	s.waiting--
	return true
}

// Flush makes the sink write what is queued soon.
func (s *Sink) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush = true
	s.wakeWriter()
}

// Reopen makes the sink open the file anew, between two lines, when somebody has
// moved it away.
func (s *Sink) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reopen = s.o.Open != nil
	s.wakeWriter()
}

// Close writes what is queued, until ctx is done, and returns an error when
// lines were lost.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.wakeWriter()
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

// wakeWriter wakes the goroutine that writes. The caller holds mu.
func (s *Sink) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wakeCallers wakes the callers that wait for space. The caller holds mu.
func (s *Sink) wakeCallers() {
	if s.waiting > 0 {
		close(s.space)
		s.space = make(chan struct{})
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
			s.wakeCallers()
		}
		chunk, at, over := s.writing, s.written, s.closing
		s.written = 0
		s.mu.Unlock()
		s.reopenIfDue()
		if len(chunk) > 0 {
			s.writeLines(chunk, at)
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

// writeLines writes lines, of which at bytes are written, until all are written or
// lost.
func (s *Sink) writeLines(chunk []byte, at int) {
	for {
		n, err := s.w.Write(chunk[at:])
		at += n
		if err == nil {
			s.noteRecovery()
			return
		}
		line := bytes.LastIndexByte(chunk[:at], '\n') + 1
		if at > line && s.cutLine(at-line) {
			at = line
		}
		s.mu.Lock()
		s.writing = chunk[line:]
		log := s.noteTrouble(err)
		final := isFinal(s.w, err)
		if final {
			s.final = fmt.Errorf("%w: %w", err, ErrGone)
		}
		if final || s.closing {
			// There is no other try: the queue is lost as well.
			s.lost += uint64(bytes.Count(chunk[line:], lineFeed) + bytes.Count(s.queue, lineFeed))
			s.cause = err
			s.queue = s.queue[:0]
			s.wakeCallers()
			s.mu.Unlock()
			log()
			return
		}
		s.mu.Unlock()
		log()
		t := time.NewTimer(sinkRetry)
		select {
		case <-t.C:
		case <-s.wake:
		}
		t.Stop()
		if s.reopenIfDue() {
			at = line
		}
	}
}

// isFinal reports whether nothing can be written to w any more after err: a disk
// may get space again, but a reader who went away does not come back.
func isFinal(w io.Writer, err error) bool {
	f, ok := w.(*os.File)
	if !ok || errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		return true
	}
	info, e := f.Stat()
	return e != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

// cutLine takes the first bytes of a torn line off the end of a file, and reports
// whether the line must be written from its beginning.
func (s *Sink) cutLine(torn int) bool {
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

// reopenIfDue opens the file anew when Reopen asked for it, and reports whether it
// did.
func (s *Sink) reopenIfDue() bool {
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

// File is what the sink writes to now.
func (s *Sink) File() io.Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w
}

// noteTrouble notes why lines cannot be written, and returns a function that logs
// it: at once, and once a minute for as long as it lasts. The caller holds mu, and
// calls the function when it no longer does.
func (s *Sink) noteTrouble(err error) (log func()) {
	isNew := s.trouble == nil || s.trouble == errFull && err != errFull
	if s.trouble == nil {
		s.since, s.before = time.Now(), s.lost
	}
	if isNew {
		s.trouble = err
	} else if time.Since(s.lastLogged) < time.Minute {
		return func() {}
	}
	s.lastLogged = time.Now()
	lost := s.lost - s.before
	return func() {
		s.log(slog.LevelError, s.o.What+": cannot be written", "file", s.o.Name, "err", err, "lost", lost)
	}
}

// noteRecovery notes that lines are written. It logs that only when the queue is
// half empty, so that a reader who is too slow does not fill the log.
func (s *Sink) noteRecovery() {
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
