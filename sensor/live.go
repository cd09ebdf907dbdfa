package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
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
counts are printed. Records that Elasticsearch has not taken by then stay in the
spool, and the next run delivers them. On SIGHUP the file of --json is reopened.`,
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
	var keys *keylog.Store // nil without, so that nothing waits for secrets
	if len(c.Keys) > 0 {
		keys = new(keylog.Store)
	}
	if err := s.readKeys(keys, true); err != nil {
		return err
	}
	if err := s.openOutputs(true, nil); err != nil {
		return err
	}
	workers := c.workers()
	rings := workers * len(c.Interfaces) // each with a worker
	memory := c.divideMemory(rings, rings, s.judge.Size())
	sources, err := capture.OpenLive(capture.LiveOptions{
		Interfaces: c.Interfaces, Workers: workers, Filter: c.Filter, RingSize: memory.ring, NoShunt: c.NoShunt, Warn: s.screen.Warn})
	if err != nil {
		return errors.Join(err, s.outs.close(false))
	}
	p := pipeline.New(s.pipeline(rings, memory, keys))
	s.log().Info("listening", "interfaces", c.Interfaces, "workers", workers, "rules", len(s.rules.Rules()))
	err = p.Live(cmd.Context(), sources)
	var stats capture.Stats
	for _, source := range sources {
		stats.Add(source.Stats())
		err = errors.Join(err, source.Close())
	}
	closed := s.outs.close(true)
	if isUndelivered(closed) {
		s.screen.Warn(closed) // nothing is lost: the next run delivers it
		closed = nil
	}
	s.finish(p, stats)
	return errors.Join(err, closed)
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
