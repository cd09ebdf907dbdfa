package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

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
records are in FILE.part. So is a report: --report case.html also writes
case.md, and case.csv and three more tables that have all of it.`,
		Example: `  oddcert replay capture.pcap
  oddcert replay --json records.json captures/ monday.pcapng.zst
  oddcert replay --report case.html captures/
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
	in, err := s.openCaptures(paths)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := s.openEvidence(); err != nil {
		return err
	}
	inputs := append(paths, c.Keys...)
	if s.report, err = openReport(c.Report, inputs, c.JSON, s.log()); err != nil {
		return err
	}
	defer s.report.abandon()
	if s.outs, err = openOutputs(s, false, inputs); err != nil {
		return err
	}
	if err := s.openInventory(false); err != nil {
		return errors.Join(err, s.outs.close(false))
	}
	p := pipeline.New(s.reading(in))
	packed := s.followEvidence()
	go s.onHangup(func() {})
	stop := s.screen.Progress(in.Progress)
	err = p.Replay(cmd.Context(), in.source)
	stop()
	stats := in.source.Stats()
	kept := s.closeInventory(p.Counters(stats), err == nil)
	closed := errors.Join(kept, s.outs.close(err == nil))
	packed()
	closed = errors.Join(closed, s.lookAgain(p.Counters(stats), paths))
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
