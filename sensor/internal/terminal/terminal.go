// Package terminal is what a person sees of a run: alerts, warnings, the
// progress of a long replay, and the closing summary.
//
// Its rules:
//   - Standard output has the result: alerts and the summary. Where it carries
//     records (--json -), alerts and the summary go to standard error if that is
//     a terminal, and nowhere otherwise.
//   - Standard error has everything else. Each warning is one line and begins
//     with "oddcert: ".
//   - Colours and progress are for terminals only. NO_COLOR (https://no-color.org)
//     and TERM=dumb switch the colours off.
//   - All lines fit into 80 columns. A wider window is used up to 100 columns.
//   - Nothing that comes from the wire, from a file or from a server can move the
//     cursor, change a colour or reorder text: a character that does not print is
//     shown as an escape, and each value has a limit.
//   - An alert is shown once: those like it are counted, and the count is shown at the
//     end, in a live capture within a minute. Where nobody watches, an alert is one
//     line.
//   - Progress appears when a run takes longer than a second, and leaves nothing
//     when it ends.
//   - A live capture never waits for whoever reads its texts.
package terminal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Screen is standard output and standard error of one run. Its methods may be
// called by several goroutines.
type Screen struct {
	mu       sync.Mutex
	sinks    []*output.Sink // that texts go through; none in a replay
	stderr   io.Writer      // shows characters that do not print as escapes
	terminal io.Writer      // standard error itself; nil when it is not a terminal
	printer  *printer       // of alerts and the summary; nil when nobody sees them
	bar      *bar           // nil when no progress is shown
	oneline  bool           // each alert is a line
	live     bool
	repeats  repeats
	later    *time.Timer // tells of repeated alerts; nil when none waits
}

// Options say how a [Screen] behaves.
type Options struct {
	// Records says that standard output carries records.
	Records bool
	// Live has goroutines of their own write all texts, so that the capture does
	// not wait for whoever reads them. Texts that are not read in time are lost,
	// and the number of lines lost is shown.
	Live bool
	// Oneline shows each alert in one line. Without a terminal that is so unless it is
	// said otherwise: lines are for logs. In lines each client is told of once.
	Oneline *bool
	// Quiet shows neither alerts nor the summary.
	Quiet bool
}

// New returns the screen of a run. Close ends it.
func New(stdout, stderr io.Writer, o Options) *Screen {
	s := &Screen{stderr: Harmless(stderr)}
	if IsTerminal(stderr) {
		s.terminal = stderr
	}
	window := stdout
	if o.Records {
		window = s.terminal
	}
	if window != nil && !o.Quiet {
		s.printer = newPrinter(window)
		s.oneline, s.live = !IsTerminal(window), o.Live
		if o.Oneline != nil {
			s.oneline = *o.Oneline
		}
		s.repeats.perClient = s.oneline
	}
	if o.Live {
		texts := output.NewSink(stderr, output.SinkOptions{Name: "standard error", What: "messages"})
		s.stderr = Harmless(texts)
		s.sinks = append(s.sinks, texts)
		if s.printer != nil {
			alerts := output.NewSink(window, output.SinkOptions{Name: "the terminal", What: "alerts", Log: s.Log()})
			s.printer.w = alerts
			s.sinks = append(s.sinks, alerts)
		}
	}
	return s
}

// Captures says which captures are read: one is shown by the end of its path that no
// other has.
func (s *Screen) Captures(paths []string) {
	if s.printer != nil {
		s.write(func() { s.printer.captures = distinct(paths) })
	}
}

// Close tells which alerts have repeated, and waits for the last texts to be read, for
// closePatience at most.
func (s *Screen) Close() {
	s.tellRepeats()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	for _, sink := range slices.Backward(s.sinks) {
		_ = sink.Close(ctx) // nobody is left to be told
	}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// write runs f while nothing else writes and no progress is shown.
func (s *Screen) write(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked(f)
}

// locked is write for a caller that holds mu.
func (s *Screen) locked(f func()) {
	if s.bar != nil {
		s.bar.clear()
		defer s.bar.draw()
	}
	f()
}

// Warn shows err.
func (s *Screen) Warn(err error) {
	s.write(func() { fmt.Fprintf(s.stderr, "oddcert: %v\n", err) })
}

// Failure shows a panic that the run survived: what failed, the value of the
// panic, and the stack.
func (s *Screen) Failure(where, text, stack string) {
	s.write(func() {
		fmt.Fprintf(s.stderr, "oddcert: %s: %s\n%s\noddcert: this is a fault of the program, and cost one flow or one handshake: please report these lines at %s\n",
			where, text, stack, reports)
	})
}

// reports is where faults of the program are reported.
const reports = "https://github.com/oddcert/oddcert/issues"

// Alert shows an alert. Those like one that was shown are counted: the same rule, the
// same certificate, the same server.
func (s *Screen) Alert(h *event.Handshake, a *finding.Alert) {
	if s.printer == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.printer.seen
	if s.oneline {
		place = s.printer.spot
	}
	show, forgotten := s.repeats.see(h, a.Match, a.Counted, place)
	switch {
	case show:
		s.locked(func() {
			if forgotten != nil {
				s.again(forgotten)
			}
			if s.oneline {
				_ = s.printer.line(h, a)
			} else {
				_ = s.printer.alert(h, a)
			}
		})
	case s.live && s.later == nil:
		s.later = time.AfterFunc(repeatDelay, s.tellRepeats)
	}
}

func (s *Screen) again(r *repeat) {
	if s.oneline {
		_ = s.printer.againLine(r)
	} else {
		_ = s.printer.again(r)
	}
}

// tellRepeats shows how often alerts have repeated since they were told.
func (s *Screen) tellRepeats() {
	s.write(func() {
		if s.later != nil {
			s.later.Stop()
			s.later = nil
		}
		s.repeats.due(s.again)
	})
}

// Summary shows which alerts have repeated, what was seen, what became of it, and what
// was lost and why.
func (s *Screen) Summary(c *output.Counters) {
	s.tellRepeats()
	if s.printer != nil {
		s.write(func() { _ = s.printer.summary(c) })
	}
}

// Log returns a logger for what happens beside the capture.
func (s *Screen) Log() *slog.Logger { return slog.New(slog.NewTextHandler(logWriter{s}, nil)) }

// logWriter takes one line of the log with each Write.
type logWriter struct{ s *Screen }

func (w logWriter) Write(line []byte) (n int, err error) {
	w.s.write(func() { n, err = w.s.stderr.Write(line) })
	return n, err
}

// Progress shows on a terminal how much of the input has been read, until the
// function that it returns is called. read returns the number of bytes read and
// of all bytes, which is 0 where that is not known; it is called by another
// goroutine.
func (s *Screen) Progress(read func() (done, total int64)) (stop func()) {
	if s.terminal == nil {
		return func() {}
	}
	bar := newBar(s.terminal, read) // its clock runs from now on
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-quit:
			return
		case <-time.After(progressDelay):
		}
		s.mu.Lock()
		s.bar = bar
		s.mu.Unlock()
		t := time.NewTicker(progressInterval)
		defer t.Stop()
		for {
			select {
			case <-quit:
				s.mu.Lock()
				bar.clear()
				s.bar = nil
				s.mu.Unlock()
				return
			case <-t.C:
				s.mu.Lock()
				bar.draw()
				s.mu.Unlock()
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}
