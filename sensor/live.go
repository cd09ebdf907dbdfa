package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
)

func liveCommand() *cobra.Command {
	var c config
	var noShunt bool
	cmd := &cobra.Command{
		Use:   "live -i IFACE…",
		Short: "Watch network interfaces",
		Long: `Watch one or more network interfaces, such as the one at a mirror port. It only
listens. It needs CAP_NET_RAW. With CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) the
kernel withholds the packets of TCP flows whose handshake is over, and says how
many there were. SIGINT or SIGTERM ends it: what is under way is finished, and
the counts are printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return live(cmd, &c, noShunt) },
	}
	c.bind(cmd.Flags())
	cmd.Flags().StringSliceVarP(&c.Interfaces, "interface", "i", nil, "interface to watch; may be repeated")
	cmd.Flags().BoolVar(&noShunt, "no-shunt", false, "have the kernel hand over the packets of decided flows too")
	return cmd
}

// followKeys reads the key logs, on which more may be written; nil without.
func (c *config) followKeys(ctx context.Context, warn func(error)) (*keylog.Store, error) {
	if len(c.Keys) == 0 {
		return nil, nil
	}
	keys := new(keylog.Store)
	for _, path := range c.Keys {
		if err := keys.Follow(ctx, path, warn); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func live(cmd *cobra.Command, c *config, noShunt bool) error {
	if err := c.load(cmd); err != nil {
		return err
	}
	if len(c.Interfaces) == 0 {
		return errors.New("no interface given: use -i")
	}
	set, err := c.rules()
	if err != nil {
		return err
	}
	screen := newScreen(c, cmd.OutOrStdout(), cmd.ErrOrStderr())
	keys, err := c.followKeys(cmd.Context(), screen.warn)
	if err != nil {
		return err
	}
	outs, err := openOutputs(c, cmd.OutOrStdout(), false, screen.log())
	if err != nil {
		return err
	}
	workers := c.workers()
	rings := workers * len(c.Interfaces) // each with a worker
	memory := c.divideMemory(rings, rings)
	sources, err := capture.OpenLive(capture.LiveOptions{
		Interfaces: c.Interfaces, Workers: workers, Filter: c.Filter, RingSize: memory.ring, NoShunt: noShunt, Warn: screen.warn})
	if err != nil {
		return errors.Join(err, outs.close(cmd.Context()))
	}
	p := pipeline.New(pipeline.Config{
		Workers:  rings,
		Rules:    set,
		Observer: c.observer(),
		Datasets: c.datasets(),
		Outputs:  outs.list,
		Limits:   memory.flows,
		Parsers:  memory.parsers,
		Encoders: memory.encoders,
		Keys:     keys,
		Sections: outs.sections,
		Idle:     outs.flush,
		Alert:    screen.alert,
	})
	screen.log().Info("listening", "interfaces", c.Interfaces, "workers", workers, "rules", len(set.Rules()))
	err = p.Live(cmd.Context(), sources)
	var stats capture.Stats
	for _, s := range sources {
		stats.Add(s.Stats())
		err = errors.Join(err, s.Close())
	}
	counters := p.Counters(stats)
	err = errors.Join(err, outs.close(cmd.Context()))
	screen.summary(counters)
	return err
}
