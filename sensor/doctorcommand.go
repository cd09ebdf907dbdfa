package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/doctor"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// exitProblem is the exit status of oddcert doctor when it has found a problem. Its
// help has the table of its statuses.
const exitProblem = 2

// The time that oddcert doctor listens to traffic.
const (
	listenDefault = 10 * time.Second
	listenLeast   = time.Second
	listenMost    = time.Hour
)

func doctorCommand() *cobra.Command {
	var c config
	var listen time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [-i IFACE…]",
		Short: "Find what keeps a sensor from seeing everything",
		Long: `Look at the configuration, at the machine, at network interfaces and the
traffic that comes there, and at the outputs. For each finding there is the
evidence and, where there is one, the command that mends it. That command is
not run. Nothing is changed, and no record is sent.

Without -i, and without interfaces in the configuration, no traffic is looked
at.

Exit status:
  0  no problem, but maybe warnings
  1  wrong use or configuration
  2  a problem: the sensor would miss something, or could not tell it`,
		Example: `  sudo oddcert doctor -i eth1
  sudo oddcert doctor -i eth1 -i eth2 --for 1m
  sudo oddcert doctor --config oddcert.yaml --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if listen < listenLeast || listen > listenMost {
				return fmt.Errorf("--for: %v is not from %v to %v", listen, listenLeast, listenMost)
			}
			if err := c.load(cmd); err != nil {
				return err
			}
			findings, err := c.examine(cmd.Context(), listen)
			if err != nil {
				return err
			}
			out := terminal.Harmless(cmd.OutOrStdout())
			if asJSON {
				err = doctor.WriteJSON(out, findings)
			} else {
				err = terminal.Findings(cmd.OutOrStdout(), findings)
			}
			if err == nil && doctor.Worst(findings) == doctor.Problem {
				return exit(exitProblem)
			}
			return err
		},
	}
	o := c.find("interface")
	cmd.Flags().VarPF(given{o}, o.name, o.short, o.usage)
	_ = cmd.RegisterFlagCompletionFunc(o.name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return interfaces()
	}) // it fails only where the flag is missing or has one
	cmd.Flags().DurationVar(&listen, "for", listenDefault, "listen to the traffic for this `time`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write each finding as a JSON object on a line")
	c.bind(cmd, cmd.Flags(), 0)
	return cmd
}

// examine looks at everything.
func (c *config) examine(ctx context.Context, listen time.Duration) (findings []doctor.Finding, err error) {
	findings = c.examineConfig()
	machine, err := c.examineMachine()
	if err != nil {
		return nil, err
	}
	findings = append(findings, machine...)
	if len(c.Interfaces) > 0 {
		traffic, err := c.examineInterfaces(ctx, listen)
		if err != nil {
			return nil, err
		}
		findings = append(findings, traffic...)
	}
	return append(findings, c.examineOutputs(ctx)...), nil
}

// examineConfig looks at what the configuration names.
func (c *config) examineConfig() (findings []doctor.Finding) {
	add := func(level doctor.Level, text string) {
		findings = append(findings, doctor.Finding{Group: doctor.GroupConfig, Check: "settings", Level: level, Text: text})
	}
	warn := func(err error) { add(doctor.Warning, err.Error()) }
	c.remarks(warn)
	for _, err := range each(c.preflight(warn)) {
		for line := range strings.Lines(err.Error()) {
			add(doctor.Problem, strings.TrimSuffix(line, "\n"))
		}
	}
	if doctor.Worst(findings) == doctor.OK {
		name := c.file
		if name == "" {
			name = "the defaults: there is no configuration file"
		}
		add(doctor.OK, "nothing is wrong with "+name)
	}
	return findings
}

// examineMachine looks at the machine, and at the disk of the spool.
func (c *config) examineMachine() ([]doctor.Finding, error) {
	m, err := doctor.ReadMachine()
	if err != nil {
		return nil, err
	}
	m.Memory, m.MemoryLimit = machineMemory(), c.memory()
	findings := m.Judge()
	dir, err := c.spoolPlace()
	if err != nil || dir == "" {
		return findings, err
	}
	f, err := doctor.ReadFolder(dir, c.spoolSize())
	if err != nil {
		return nil, err
	}
	return append(findings, f.Judge()...), nil
}

// examineInterfaces listens to the interfaces for a while, all of them at once: a tap
// shows the two directions of a link on two of them.
func (c *config) examineInterfaces(ctx context.Context, listen time.Duration) (findings []doctor.Finding, err error) {
	names := capture.Expand(c.Interfaces)
	before := map[string]*doctor.Interface{}
	var usable []string
	for _, name := range names {
		if before[name], err = doctor.ReadInterface(name); err != nil {
			return nil, err
		}
		if before[name].Usable() {
			usable = append(usable, name)
		}
	}
	var traffic *doctor.Traffic
	if len(usable) > 0 {
		if traffic, err = c.listen(ctx, usable, listen); err != nil {
			findings = append(findings, doctor.Finding{Group: doctor.GroupTraffic, Check: "capture", Level: doctor.Problem, Text: err.Error()})
		}
	}
	for _, name := range names {
		now, longest, elapsed := before[name], 0, time.Duration(0)
		if traffic != nil {
			longest, elapsed = traffic.Heard.ByInterface[name].Longest, traffic.Elapsed
			if now, err = doctor.ReadInterface(name); err != nil {
				return nil, err
			}
			traffic.CardLost += now.LostSince(before[name])
		}
		findings = append(findings, doctor.JudgeInterface(before[name], now, elapsed, longest)...)
	}
	if traffic != nil {
		findings = append(findings, doctor.JudgeTraffic(traffic)...)
	}
	return findings, nil
}

// listen captures for a while as oddcert live does, with no rules and no outputs but a
// listener.
func (c *config) listen(ctx context.Context, names []string, d time.Duration) (*doctor.Traffic, error) {
	none, err := rules.Load()
	if err != nil {
		return nil, err
	}
	t := new(doctor.Traffic)
	var mu sync.Mutex // guards t.NoShunt
	workers := c.workers()
	rings := workers * len(names)
	memory := c.divideMemory(rings, rings, 0, 0)
	captured, err := capture.OpenLive(capture.LiveOptions{
		Interfaces: names, Workers: workers, Filter: c.Filter, RingSize: memory.ring, NoShunt: c.NoShunt,
		Warn: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if rest, ok := strings.CutPrefix(err.Error(), "shunt: "); ok {
				t.NoShunt = errors.New(rest)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		i, err := doctor.ReadInterface(name)
		if err != nil {
			return nil, errors.Join(err, captured.Close())
		}
		t.Interfaces = append(t.Interfaces, i)
	}
	l := doctor.NewListener()
	for i, source := range captured.Sources {
		captured.Sources[i] = l.Source(source, c.VLANs)
	}
	p := pipeline.New(pipeline.Config{
		Workers: rings, Rules: none, Observer: c.observer(), Records: output.Options{Datasets: output.Set(0).Add(output.Handshake)},
		Outputs: []output.Output{l}, Limits: c.validity(memory.flows), Parsers: memory.parsers, Encoders: memory.encoders, VLANs: c.VLANs,
	})
	ctx, cancel := context.WithCancel(ctx)
	defer time.AfterFunc(d, cancel).Stop()
	begun := time.Now()
	err = p.Live(ctx, captured.Sources)
	t.Elapsed = time.Since(begun)
	var stats capture.Stats
	for _, source := range captured.Sources {
		stats.Add(source.Stats())
	}
	if err := errors.Join(err, captured.Close()); err != nil {
		return nil, err
	}
	t.Counters = p.Counters(stats)
	t.Heard, t.Handshakes = l.Heard(), l.Handshakes()
	return t, nil
}

// examineOutputs asks all outputs at once whether they would take records.
func (c *config) examineOutputs(ctx context.Context) []doctor.Finding {
	all := c.destinations()
	findings := make([]doctor.Finding, len(all))
	var asking sync.WaitGroup
	for i, d := range all {
		asking.Go(func() {
			f := &findings[i]
			*f = doctor.Finding{Group: doctor.GroupOutput, Subject: d.name, Check: "delivery", Level: doctor.OK}
			d.examine(ctx, f)
		})
	}
	asking.Wait()
	if c.JSON != "" && c.JSON != "-" {
		f := doctor.Finding{Group: doctor.GroupOutput, Subject: "json", Check: "delivery", Level: doctor.OK}
		(&destination{file: true, path: c.JSON}).examine(ctx, &f)
		findings = append(findings, f)
	}
	return findings
}

// examine says in f whether an output would take records.
func (d *destination) examine(ctx context.Context, f *doctor.Finding) {
	fail := func(err error) { f.Level, f.Text = doctor.Problem, err.Error() }
	if d.file {
		if err := checkFolder(d.path); err != nil {
			fail(err)
			return
		}
		folder, err := doctor.ReadFolder(filepath.Dir(d.path), spool.MinSize)
		if err != nil {
			fail(err)
			return
		}
		f.Text = fmt.Sprintf("%s can be written, and the disk has %d MiB free", d.path, folder.Free>>20)
		if folder.Free < folder.Size {
			f.Level, f.Fix = doctor.Warning, "df -h "+folder.On
		}
		return
	}
	opened, err := d.open()
	if err != nil {
		fail(err)
		return
	}
	defer opened.Close()
	ctx, cancel := context.WithTimeout(ctx, doctor.Patience)
	defer cancel()
	begun := time.Now()
	checker, ok := opened.(delivery.Checker)
	if !ok {
		f.Level, f.Text = doctor.Warning, fmt.Sprintf("%s: it cannot be asked", opened)
		return
	}
	if err := checker.Check(ctx, d.datasets); err != nil {
		fail(fmt.Errorf("%s: %w", opened, err))
		return
	}
	f.Text = fmt.Sprintf("%s answers in %v", opened, time.Since(begun).Round(time.Millisecond))
	if d.datagram {
		f.Level, f.Text = doctor.Warning, fmt.Sprintf("%s: nobody answers over UDP, and whether records arrive is not known", opened)
	}
}
