package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/sandbox"
)

func liveCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "live -i IFACE…",
		Short: "Watch network interfaces",
		Long: `Watch one or more network interfaces, such as one at a mirror port. The program
only listens, and never sends a packet.

It needs the capability CAP_NET_RAW. With CAP_BPF (CAP_SYS_ADMIN before Linux
5.8) the kernel withholds the packets of TCP flows whose handshake is over, and
counts them.

SIGINT or SIGTERM ends the capture: packets that have arrived are read, and the
counts are printed. Records that an output has not taken by then stay in the
spool, and the next run delivers them. On SIGHUP rules and lists are read again,
without a pause in the capture, and files are reopened. When something is wrong
with the new rules, those in use are kept.

An interface can be a pattern, as 'span*': all that match are watched, also
those that appear later. Quote it, or the shell may replace it. An interface
that disappears is taken up again when it is back.

Once it listens, the program gives up all rights that it does not need any more:
its capabilities, other files and ports, other programs.`,
		Example: `  sudo oddcert live -i eth1
  sudo oddcert live -i eth1 -i eth2 --filter 'not port 22'
  sudo oddcert live -i eth1 --json /var/log/oddcert.json
  sudo oddcert live --config oddcert.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("name each interface after -i: -i %s", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return live(cmd, &c) },
	}
	c.bind(cmd, cmd.Flags(), onLive)
	return cmd
}

func live(cmd *cobra.Command, c *config) error {
	s, err := newSensor(cmd, c, true)
	if err != nil {
		return err
	}
	defer s.screen.Close()
	if len(c.Interfaces) == 0 {
		return errors.New("no interface given: use -i")
	}
	listening, err := s.listen()
	if err != nil {
		return err
	}
	defer listening.close()
	var keys *keylog.Store // nil without, so that nothing waits for secrets
	if len(c.Keys) > 0 {
		keys = new(keylog.Store)
	}
	if err := s.readKeys(keys, true); err != nil {
		return err
	}
	if err := s.openEvidence(); err != nil {
		return err
	}
	if s.outs, err = openOutputs(s, true, nil); err != nil {
		return err
	}
	if err := s.openInventory(true); err != nil {
		return errors.Join(err, s.outs.close(false))
	}
	workers := c.workers()
	rings := workers * len(capture.Expand(c.Interfaces)) // each with a worker
	memory := s.divideMemory(rings, rings, false)
	listen := capture.LiveOptions{
		Interfaces: c.Interfaces, Workers: workers, Filter: c.Filter, RingSize: memory.ring, NoShunt: c.NoShunt, Warn: s.screen.Warn}
	if confine != nil {
		opener, err := sandbox.StartOpener()
		if err != nil {
			return errors.Join(err, s.closeInventory(nil, false), s.outs.close(false))
		}
		defer opener.Close()
		listen.Socket = opener.Socket
	}
	service := newService(s.monitor, s.log())
	captured, err := capture.OpenLive(listen)
	if err == nil && confine != nil {
		err = s.confine(captured)
	}
	if err == nil {
		err = listening.ask(s)
	}
	if err != nil {
		return errors.Join(err, s.closeInventory(nil, false), s.outs.close(false))
	}
	options := s.pipeline(rings, memory, keys)
	options.Interfaces, options.Sections = captured.Interfaces, listening.sections(options.Sections)
	watch := listening.watch(s.monitor)
	options.Watch = func(c *output.Counters) {
		watch(c)
		s.evidence.saw(c)
	}
	p := pipeline.New(options)
	packed := s.followEvidence()
	s.log().Info("listening", "interfaces", c.Interfaces, "workers", workers, "rules", len(s.rules.Rules()))
	go service.run(cmd.Context())
	go s.onHangup(func() {
		service.reloading()
		s.reload(p)
		listening.reload(s)
		service.ready()
	})
	err = p.Live(cmd.Context(), captured.Sources)
	var stats capture.Stats
	for _, source := range captured.Sources {
		stats.Add(source.Stats())
	}
	listening.close() // it asks the inventory
	err = errors.Join(err, captured.Close(), s.closeInventory(p.Counters(stats), false))
	closed := s.outs.close(true)
	if isUndelivered(closed) {
		s.screen.Warn(closed) // nothing is lost: the next run delivers it
		closed = nil
	}
	packed()
	s.finish(p, stats)
	return errors.Join(err, closed)
}

// confine takes every right from the process that it does not need any more. It is nil
// in tests, whose process goes on.
var confine func(sandbox.Policy) (sandbox.Report, error)

// confine confines the process, now that it captures, and says what is in force.
func (s *sensor) confine(captured *capture.Live) error {
	policy := s.config.policy(s.outs.spool, s.inventoryPath)
	policy.KeepBPF = captured.NeedsBPF
	report, err := confine(policy)
	if err != nil {
		return fmt.Errorf("give up rights: %w", err)
	}
	s.log().Info("confined", "report", report)
	for _, lack := range report.Lacks {
		s.log().Warn("confined: " + lack)
	}
	return nil
}

// reload reads rules and lists again. Where something is wrong, those in use are kept. One
// goroutine alone calls it.
func (s *sensor) reload(p *pipeline.Pipeline) {
	begun := time.Now()
	set, tables, err := s.config.loadRules(s.judge.Size()) // both are in memory for a while
	took := time.Since(begun)
	if err != nil {
		s.monitor.Reloaded(0, 0, took, err)
		s.screen.Warn(err)
		s.log().Error("rules and lists are not read anew: those in use are kept")
		return
	}
	p.Reload(set, tables)
	entries := 0
	for _, l := range set.Lists() {
		entries += l.Entries
	}
	s.monitor.Reloaded(len(set.Rules()), len(set.Lists()), took, nil)
	c := set.Since(s.rules)
	s.log().Info("rules and lists are read anew", "rules", len(set.Rules()), "added", c.Added, "changed", c.Changed, "removed", c.Removed,
		"lists", len(set.Lists()), "entries", entries, "took", took.Round(time.Millisecond))
	for _, w := range set.Warnings() {
		s.screen.Warn(w)
	}
	s.rules, s.judge = set, tables
}

// isUndelivered reports whether err says nothing but that records wait for the next
// run.
func isUndelivered(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !isUndelivered(e) {
				return false
			}
		}
		return true
	}
	var kept *delivery.Undelivered
	return errors.As(err, &kept)
}
