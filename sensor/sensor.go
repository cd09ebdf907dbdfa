package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// sensor is what a replay and a live capture have in common: what they are told,
// the rules, what a person sees, and where records go.
type sensor struct {
	cmd     *cobra.Command
	config  *config
	rules   *rules.Set
	judge   *judge.Tables
	screen  *terminal.Screen
	monitor *health.Monitor // nil in a replay
	outs    *outputs        // nil before openOutputs
	input   *captures       // nil in a live capture
	report  *reportFiles    // nil without
	finders []func(*finding.Finding)

	inventory     *inventory.Store // nil without
	inventoryPath string           // its file; empty without
	run           inventory.Run    // as the inventory has it

	hashes   hashes         // of captures
	evidence *collecting    // nil without
	frames   *frames.Buffer // that evidence needs; nil where captures can be read again
}

// newSensor reads the configuration, the rules and what they are judged by. The caller
// closes the screen.
func newSensor(cmd *cobra.Command, c *config, live bool) (*sensor, error) {
	if err := c.load(cmd); err != nil {
		return nil, err
	}
	begun := time.Now()
	set, tables, err := c.loadRules(0)
	if err = errors.Join(err, c.checkPlaces(func(error) {})); err != nil {
		return nil, err
	}
	s := &sensor{cmd: cmd, config: c, rules: set, judge: tables}
	s.screen = terminal.New(cmd.OutOrStdout(), cmd.ErrOrStderr(), terminal.Options{Records: c.JSON == "-", Live: live, Oneline: c.Oneline, Quiet: c.Quiet})
	if live {
		s.monitor = health.New(health.Config{Version: version(), Revision: revision(), Log: s.log()})
		s.monitor.Reloaded(len(set.Rules()), len(set.Lists()), time.Since(begun), nil)
	}
	c.remarks(s.screen.Warn)
	return s, nil
}

// log is for what happens beside the capture.
func (s *sensor) log() *slog.Logger { return s.screen.Log() }

// readKeys reads the key logs and, if they are followed, what is appended to them
// later.
func (s *sensor) readKeys(keys *keylog.Store, follow bool) error {
	for _, path := range s.config.Keys {
		var err error
		if follow {
			err = keys.Follow(s.cmd.Context(), path, s.screen.Warn)
		} else {
			err = keys.ReadFile(path, s.screen.Warn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onHangup reopens the files of the outputs on each SIGHUP, as they may have been moved
// away, and calls then, until the outputs are closed.
func (s *sensor) onHangup(then func()) {
	for {
		select {
		case <-hangups:
			s.outs.reopen()
			then()
		case <-s.outs.late.Done():
			return
		}
	}
}

// pipeline is what the pipeline of this sensor is made of, with so many workers
// that share so much memory.
func (s *sensor) pipeline(workers int, memory allotment, keys *keylog.Store) pipeline.Config {
	records := s.config.records()
	if s.inventory != nil {
		records.Datasets = records.Datasets.Add(output.Alert) // it keeps them, and asks for their ids
	}
	return pipeline.Config{
		Workers:    workers,
		Rules:      s.rules,
		Judge:      s.judge,
		Observer:   s.config.observer(),
		Records:    records,
		Outputs:    s.outs.list,
		Limits:     s.config.validity(memory.flows),
		Parsers:    memory.parsers,
		Encoders:   memory.encoders,
		Remembered: memory.judged,
		Keys:       keys,
		VLANs:      s.config.VLANs,
		Sections:   s.sections,
		Idle:       s.outs.flush,
		Alert:      s.screen.Alert,
		Found:      s.found(),
		Frames:     s.frames,
		Before:     s.before(),
	}
}

// divideMemory divides the memory as [config.divideMemory] does. Where evidence is wanted,
// and frames cannot be read again, a part is for those.
func (s *sensor) divideMemory(workers, rings int, again bool) allotment {
	buffer := s.config.bufferMemory()
	if again {
		buffer = 0
	}
	if buffer > 0 {
		s.frames = frames.NewBuffer(int(buffer))
	}
	return s.config.divideMemory(workers, rings, s.judge.Size(), buffer)
}

// found is what is called for each handshake; nil where nobody wants more than records.
func (s *sensor) found() func(*finding.Finding) {
	switch len(s.finders) {
	case 0:
		return nil
	case 1:
		return s.finders[0]
	}
	return func(f *finding.Finding) {
		for _, each := range s.finders {
			each(f)
		}
	}
}

// finish shows how the run ended: what was seen, with what became of the records,
// and the first panic that it survived.
func (s *sensor) finish(p *pipeline.Pipeline, stats capture.Stats) {
	s.screen.Summary(p.Counters(stats))
	if f := p.Failure(); f != nil {
		s.screen.Failure(f.Where, f.Text, f.Stack)
	}
}

// isOnly reports whether err consists of nothing but target.
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
