package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
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
	s, err := newSession(cmd, c, false)
	if err != nil {
		return err
	}
	defer s.screen.Close()
	keys := new(keylog.Store)
	files, err := capture.OpenFiles(paths, capture.FileOptions{
		Warn:    s.screen.Warn,
		Secrets: func(path string) io.WriteCloser { return keys.Own(path+": decryption secrets", s.screen.Warn) },
		Forget:  keys.Forget,
	})
	if err != nil {
		return err
	}
	defer files.Close()
	follow := files.Streams()
	if err := s.readKeys(keys, follow); err != nil {
		return err
	}
	var source capture.Source = files
	if c.Filter != "" {
		if source, err = capture.Filtered(files, c.Filter); err != nil {
			return err
		}
	}
	if err := s.openOutputs(false, append(paths, c.Keys...)); err != nil {
		return err
	}
	options := s.pipeline(c.workers(), c.divideMemory(c.workers(), 0), keys)
	options.KeysLater = follow && len(c.Keys) > 0
	options.Follow = follow
	p := pipeline.New(options)
	stop := s.screen.Progress(files.Progress)
	err = p.Replay(cmd.Context(), source)
	stop()
	stats := source.Stats()
	closed := s.outs.close(err == nil)
	s.finish(p, stats)
	if s.outs.incomplete != "" {
		s.screen.Warn(fmt.Errorf("%s is not replaced: the records so far are in %s", c.JSON, s.outs.incomplete))
	}
	if errors.Is(err, output.ErrGone) {
		err = errors.New("the rest of the input was not read: nobody takes its records")
	}
	interrupted := err != nil && isOnly(err, context.Canceled)
	if interrupted {
		s.screen.Warn(errors.New("stopped before the end of the input"))
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
