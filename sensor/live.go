package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
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
the counts are printed. SIGHUP has the file of --json opened anew.

Exit status: 0 it was told to end, 1 bad use or configuration, no interface is
left, or an output that lost records or had them refused for good. Records that
are left in the spool are said, and delivered by the next run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return live(cmd, &c, noShunt) },
	}
	c.bind(cmd.Flags())
	cmd.Flags().StringSliceVarP(&c.Interfaces, "interface", "i", nil, "interface to watch; may be repeated")
	cmd.Flags().BoolVar(&noShunt, "no-shunt", false, "have the kernel hand over the packets of decided flows too")
	return cmd
}

// readKeys reads the key logs, and if they are followed also what is written on
// them later.
func (c *config) readKeys(ctx context.Context, keys *keylog.Store, follow bool, warn func(error)) error {
	for _, path := range c.Keys {
		read := keys.ReadFile
		if follow {
			read = func(path string, warn func(error)) error { return keys.Follow(ctx, path, warn) }
		}
		if err := read(path, warn); err != nil {
			return err
		}
	}
	return nil
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
	screen.detach(cmd.ErrOrStderr())
	defer screen.close()
	c.careless(screen.warn)
	var keys *keylog.Store // nil without, so that nothing waits for secrets
	if len(c.Keys) > 0 {
		keys = new(keylog.Store)
	}
	if err := c.readKeys(cmd.Context(), keys, true, screen.warn); err != nil {
		return err
	}
	outs, err := openOutputs(cmd.Context(), c, cmd.OutOrStdout(), true, nil, screen.log())
	if err != nil {
		return err
	}
	go outs.reopen(hangups)
	workers := c.workers()
	rings := workers * len(c.Interfaces) // each with a worker
	memory := c.divideMemory(rings, rings)
	sources, err := capture.OpenLive(capture.LiveOptions{
		Interfaces: c.Interfaces, Workers: workers, Filter: c.Filter, RingSize: memory.ring, NoShunt: noShunt, Warn: screen.warn})
	if err != nil {
		return errors.Join(err, outs.close(false))
	}
	p := pipeline.New(pipeline.Config{
		Workers:  rings,
		Rules:    set,
		Observer: c.observer(),
		Records:  c.records(),
		Outputs:  outs.list,
		Limits:   c.judge(memory.flows),
		Parsers:  memory.parsers,
		Encoders: memory.encoders,
		Keys:     keys,
		VLANs:    c.vlans,
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
	closed := outs.close(true)
	var kept *elastic.Undelivered
	if errors.As(closed, &kept) && isOnly(closed, kept) {
		screen.warn(kept) // nothing is lost: the next run delivers it
		closed = nil
	}
	screen.summary(p.Counters(stats)) // with what became of the records
	return errors.Join(err, closed)
}
