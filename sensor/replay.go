package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/oddcert/oddcert/parsers"
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
		Long: `Read captures: pcap and pcapng files, also compressed with gzip or zstd, folders of
them, and standard input (-), in the order of their first packets.

Exit status: 0 all input was read, 1 bad use or configuration or an output that
failed, 2 some input could not be read whole, 3 a rule matched (--fail-on-alert).`,
		RunE: func(cmd *cobra.Command, args []string) error { return replay(cmd, &c, args) },
	}
	c.bind(cmd.Flags())
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
	keys := new(keylog.Store)
	for _, path := range c.Keys {
		if err := keys.ReadFile(path, screen.warn); err != nil {
			return err
		}
	}
	files, err := capture.OpenFiles(paths, capture.FileOptions{
		Warn:    screen.warn,
		Secrets: func(path string) io.WriteCloser { return keys.Log(path+": decryption secrets", screen.warn) },
	})
	if err != nil {
		return err
	}
	defer files.Close()
	var source capture.Source = files
	if c.Filter != "" {
		if source, err = capture.Filtered(files, c.Filter); err != nil {
			return err
		}
	}
	outs, err := openOutputs(c, cmd.OutOrStdout(), true, screen.log())
	if err != nil {
		return err
	}
	memory := c.divideMemory(c.workers(), 0)
	p := pipeline.New(pipeline.Config{
		Workers:  c.workers(),
		Rules:    set,
		Observer: c.observer(),
		Datasets: c.datasets(),
		Outputs:  outs.list,
		Limits:   memory.flows,
		Parsers:  memory.parsers,
		Encoders: memory.encoders,
		Keys:     keys,
		Sections: outs.sections,
		Alert:    screen.alert,
	})
	screen.start(files)
	err = p.Replay(cmd.Context(), source)
	screen.stop()
	stats := source.Stats()
	counters := p.Counters(stats)
	err = errors.Join(err, outs.close(cmd.Context()))
	screen.summary(counters)
	switch {
	case errors.Is(err, context.Canceled) && isOnly(err, context.Canceled):
		screen.warn(errors.New("stopped before the end of the input"))
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
	warnings io.Writer
	terminal *output.Terminal // nil when nobody is looking
	bar      *progress        // nil without a terminal
	show     bool             // a progress bar
}

func newScreen(c *config, stdout, stderr io.Writer) *screen {
	s := &screen{warnings: stderr, show: isTerminal(stderr)}
	switch {
	case c.JSON != "-":
		s.terminal = output.NewTerminal(stdout)
	case isTerminal(stderr):
		s.terminal = output.NewTerminal(stderr)
	}
	return s
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

func (s *screen) alert(h *parsers.Handshake, m *rules.Match) {
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
