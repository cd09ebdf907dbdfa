package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/pipeline"
	"github.com/oddcert/oddcert/sensor/internal/terminal"
)

// sensor is what a replay and a live capture have in common: what they are told,
// the rules, what a person sees, and where records go.
type sensor struct {
	cmd    *cobra.Command
	config *config
	rules  *rules.Set
	judge  *judge.Tables
	screen *terminal.Screen
	outs   *outputs // nil before openOutputs
}

// newSensor reads the configuration, the rules and what they are judged by. The caller closes the screen.
func newSensor(cmd *cobra.Command, c *config, live bool) (*sensor, error) {
	if err := c.load(cmd); err != nil {
		return nil, err
	}
	set, wrongRules := c.rules()
	tables, wrongTables := c.tables()
	if err := errors.Join(wrongRules, wrongTables); err != nil {
		return nil, err
	}
	if err := c.checkMemory(tables.Size()); err != nil {
		return nil, err
	}
	s := &sensor{cmd: cmd, config: c, rules: set, judge: tables}
	s.screen = terminal.New(cmd.OutOrStdout(), cmd.ErrOrStderr(), terminal.Options{Records: c.JSON == "-", Live: live})
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

// openOutputs opens the outputs, which must not be one of the inputs, and reopens
// the file of records on SIGHUP.
func (s *sensor) openOutputs(live bool, inputs []string) (err error) {
	if s.outs, err = openOutputs(s.cmd.Context(), s.config, s.cmd.OutOrStdout(), live, inputs, s.log()); err != nil {
		return err
	}
	go s.outs.reopen(hangups)
	return nil
}

// pipeline is what the pipeline of this sensor is made of, with so many workers
// that share so much memory.
func (s *sensor) pipeline(workers int, memory allotment, keys *keylog.Store) pipeline.Config {
	return pipeline.Config{
		Workers:    workers,
		Rules:      s.rules,
		Judge:      s.judge,
		Observer:   s.config.observer(),
		Records:    s.config.records(),
		Outputs:    s.outs.list,
		Limits:     s.config.validity(memory.flows),
		Parsers:    memory.parsers,
		Encoders:   memory.encoders,
		Remembered: memory.judged,
		Keys:       keys,
		VLANs:      s.config.VLANs,
		Sections:   s.outs.sections,
		Idle:       s.outs.flush,
		Alert:      s.screen.Alert,
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
