package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

func replayCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "replay [flags] PATH…",
		Short: "Read captures",
		Long: `Read captures: pcap, pcapng and snoop files, also compressed with gzip, zstd or
bzip2, folders of them, and standard input (-), in the order of their first
packets. Each capture is read for itself; only the flows of rotated files, which
are beside one another, named alike, and begin where the one before ends, go on
from one into the next. A pipe is followed: what was found is written when nothing
comes, key logs are read on, and statistics are made every 30 s.

Exit status: 0 all input was read, 1 bad use or configuration or an output that
failed, 2 some input could not be read whole, 3 a rule matched (--fail-on-alert).
An output has failed when records were lost, refused for good, or are left in
the spool.

The file of --json is replaced when all is read; until then the records are in
FILE.part.`,
		RunE: func(cmd *cobra.Command, args []string) error { return replay(cmd, &c, args) },
	}
	c.bind(cmd.Flags())
	cmd.Flags().BoolVar(&c.Append, "append", false, "append to the file of --json instead of replacing it")
	cmd.Flags().BoolVar(&c.FailOnAlert, "fail-on-alert", false, "end with exit status 3 when a rule matched")
	return cmd
}

func replay(cmd *cobra.Command, c *config, paths []string) error {
	if len(paths) == 0 {
		return errors.New("no capture named: give files, folders, or - for standard input")
	}
	if err := c.load(cmd); err != nil {
		return err
	}
	set, err := c.rules()
	if err != nil {
		return err
	}
	screen := newScreen(c, cmd.OutOrStdout(), cmd.ErrOrStderr())
	c.careless(screen.warn)
	keys := new(keylog.Store)
	files, err := capture.OpenFiles(paths, capture.FileOptions{
		Warn:    screen.warn,
		Secrets: func(path string) io.WriteCloser { return keys.Own(path+": decryption secrets", screen.warn) },
		Forget:  keys.Forget,
	})
	if err != nil {
		return err
	}
	defer files.Close()
	follow := files.Streams()
	if err := c.readKeys(cmd.Context(), keys, follow, screen.warn); err != nil {
		return err
	}
	var source capture.Source = files
	if c.Filter != "" {
		if source, err = capture.Filtered(files, c.Filter); err != nil {
			return err
		}
	}
	outs, err := openOutputs(cmd.Context(), c, cmd.OutOrStdout(), false, append(paths, c.Keys...), screen.log())
	if err != nil {
		return err
	}
	go outs.reopen(hangups)
	memory := c.divideMemory(c.workers(), 0)
	p := pipeline.New(pipeline.Config{
		Workers:   c.workers(),
		Rules:     set,
		Observer:  c.observer(),
		Records:   c.records(),
		Outputs:   outs.list,
		Limits:    c.judge(memory.flows),
		Parsers:   memory.parsers,
		Encoders:  memory.encoders,
		Keys:      keys,
		KeysLater: follow && len(c.Keys) > 0,
		Follow:    follow,
		Sections:  outs.sections,
		Idle:      outs.flush,
		Alert:     screen.alert,
		VLANs:     c.vlans,
	})
	screen.start(files)
	err = p.Replay(cmd.Context(), source)
	screen.stop()
	stats := source.Stats()
	closed := outs.close(err == nil)
	screen.summary(p.Counters(stats)) // with what became of the records
	if outs.incomplete != "" {
		screen.warn(fmt.Errorf("%s is not replaced: the records so far are in %s", c.JSON, outs.incomplete))
	}
	if errors.Is(err, output.ErrGone) {
		err = errors.New("the rest of the input was not read: nobody takes its records")
	}
	interrupted := err != nil && isOnly(err, context.Canceled)
	if interrupted {
		screen.warn(errors.New("stopped before the end of the input"))
		err = nil
	}
	switch err = errors.Join(err, closed); {
	case err == nil && interrupted:
		return exit(exitInput)
	case err != nil:
		return err
	case c.FailOnAlert && p.Matched() > 0:
		return exit(exitAlert)
	case stats.Broken > 0 || stats.Corrupt > 0 || stats.Ignored > 0:
		return exit(exitInput)
	}
	return nil
}

// isOnly says whether err is made of nothing but target.
func isOnly(err, target error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !isOnly(e, target) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, target)
}

// screen is what a person sees: alerts, warnings, progress and the summary, on
// standard output, or on standard error where that carries the records.
type screen struct {
	mu       sync.Mutex
	sinks    []*output.Sink // that the rest writes through; none in a replay
	warnings io.Writer
	terminal *output.Terminal // nil when nobody is looking
	window   io.Writer        // of terminal
	bar      *progress        // nil without a terminal
	show     bool             // a progress bar
}

func newScreen(c *config, stdout, stderr io.Writer) *screen {
	s := &screen{warnings: output.Harmless(stderr), show: isTerminal(stderr)}
	switch {
	case c.JSON != "-":
		s.terminal, s.window = output.NewTerminal(stdout), stdout
	case isTerminal(stderr):
		s.terminal, s.window = output.NewTerminal(stderr), stderr
	}
	return s
}

// detach has all texts written by goroutines of their own: a live capture must
// not wait for somebody to read them.
func (s *screen) detach(stderr io.Writer) {
	said := output.NewSink(stderr, output.SinkOptions{Name: "standard error", What: "messages"})
	s.warnings = output.Harmless(said)
	s.sinks = append(s.sinks, said)
	if s.terminal != nil {
		shown := output.NewSink(s.window, output.SinkOptions{Name: "the terminal", What: "alerts", Log: s.log()})
		s.terminal.Through(shown)
		s.sinks = append(s.sinks, shown)
	}
}

// showPatience is how long the end waits for somebody to read the last texts.
const showPatience = time.Second

// close shows what was said.
func (s *screen) close() {
	ctx, cancel := context.WithTimeout(context.Background(), showPatience)
	defer cancel()
	for _, sink := range slices.Backward(s.sinks) {
		_ = sink.Close(ctx) // there is nobody to tell
	}
}

// isTerminal says whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}

// aside runs f while no progress bar is in the way.
func (s *screen) aside(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		s.bar.clear()
		defer s.bar.draw()
	}
	f()
}

func (s *screen) warn(err error) {
	s.aside(func() { fmt.Fprintf(s.warnings, "oddcert: %v\n", err) })
}

func (s *screen) alert(h *event.Handshake, m *rules.Match) {
	if s.terminal != nil {
		s.aside(func() { _ = s.terminal.Alert(h, m) })
	}
}

func (s *screen) summary(c *output.Counters) {
	if s.terminal != nil {
		s.aside(func() { _ = s.terminal.Summary(c) })
	}
}

// start shows how far the reading of files is, until stop.
func (s *screen) start(files *capture.Files) {
	if s.show {
		s.bar = newProgress(s.warnings, files.Progress)
		s.bar.run(func(draw func()) {
			s.mu.Lock()
			defer s.mu.Unlock()
			draw()
		})
	}
}

func (s *screen) stop() {
	if s.bar != nil {
		s.bar.stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.bar.clear()
		s.bar = nil
	}
}

// log is for what happens beside the capture.
func (s *screen) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, nil))
}

// Write takes a line of the log.
func (s *screen) Write(line []byte) (n int, err error) {
	s.aside(func() { n, err = s.warnings.Write(line) })
	return n, err
}
