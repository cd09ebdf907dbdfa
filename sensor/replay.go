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
		Long: `Read captures: pcap, pcapng and snoop files, compressed with gzip, zstd or bzip2
or not, folders of them, and standard input (-).

Captures are read in the order of their first packets, each for itself: a flow
goes on from one file into the next only where files of a rotated capture follow
one another. A pipe is followed: results are written whenever it is silent, new
lines of key logs are read, and there are statistics every 30 s.

The file of --json is replaced when all input has been read. Until then the
records are in FILE.part.`,
		Example: `  oddcert replay capture.pcap
  oddcert replay --json records.json captures/ monday.pcapng.zst
  oddcert replay --keys sslkeys.log --filter 'port 443' capture.pcap
  tcpdump -i eth1 -w - | oddcert replay --json - - >records.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return replay(cmd, &c, args) },
	}
	c.bind(cmd, cmd.Flags(), onReplay)
	return cmd
}

func replay(cmd *cobra.Command, c *config, paths []string) error {
	if len(paths) == 0 {
		return errors.New("no capture named: give files, folders, or - for standard input")
	}
	s, err := newSensor(cmd, c, false)
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
	options := s.pipeline(c.workers(), c.divideMemory(c.workers(), 0, s.judge.Size()), keys)
	options.KeysLater = follow && len(c.Keys) > 0
	options.Follow = follow
	p := pipeline.New(options)
	stop := s.screen.Progress(files.Progress)
	err = p.Replay(cmd.Context(), source)
	stop()
	stats := source.Stats()
	closed := s.outs.close(err == nil)
	s.finish(p, stats)
	for _, f := range s.outs.incomplete {
		s.screen.Warn(fmt.Errorf("%s is not replaced: the records so far are in %s", f.path, f.part))
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
