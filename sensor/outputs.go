package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// outputs are where records go.
type outputs struct {
	list   []output.Output
	engine *delivery.Engine // nil when nothing goes through the spool; also in list
	lines  *output.Lines    // nil when there are none; also in list
	file   *recordsFile     // of the JSON lines, nil for standard output
	told   context.Context  // done when the run is told to stop
	late   context.Context  // done when nothing may wait any more
	end    func()

	incomplete string // after close: the file with the records so far, where it did not replace the other
}

// The time limits of a run that was told to stop.
const (
	// stopPatience is how long it delivers records, and waits for outputs that do
	// not take them.
	stopPatience = 7 * time.Second

	// stopTrouble is how long it waits for an output that is in trouble.
	stopTrouble = 3 * time.Second

	// stopLimit is how long it takes at most until the process ends.
	stopLimit = 9500 * time.Millisecond
)

// late returns a context that is done stopPatience after ctx.
func late(ctx context.Context) (context.Context, func()) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopPatience, cancel) })
	return late, func() { stop(); cancel() }
}

// openOutputs opens the outputs that c names. A replay waits for a slow output, and
// replaces the file of records, which must not be one of its inputs. A live capture
// never waits, and appends.
func openOutputs(ctx context.Context, c *config, stdout io.Writer, live bool, inputs []string, log *slog.Logger) (_ *outputs, err error) {
	o := &outputs{told: ctx}
	o.late, o.end = late(ctx)
	defer func() {
		if err != nil {
			o.abandon()
		}
	}()
	opt := output.SinkOptions{Name: "standard output", What: "records", Block: !live, Late: o.late, Log: log}
	w := stdout
	if c.JSON != "" && c.JSON != "-" {
		if o.file, err = newRecordsFile(c.JSON, !live && !c.Append, log); err != nil {
			return nil, err
		}
		if err = o.file.isInput(inputs); err != nil {
			return nil, err
		}
		file, err := o.file.create()
		if err != nil {
			return nil, err
		}
		opt.Name, opt.Open, w = c.JSON, o.file.open, file
	}
	if c.JSON != "" {
		o.lines = output.NewLines(output.NewSink(w, opt), c.selected())
		o.list = append(o.list, o.lines)
	}
	if o.engine, err = openEngine(c, !live, log); err != nil {
		return nil, err
	}
	if o.engine != nil {
		context.AfterFunc(o.late, o.engine.Refuse)
		o.list = append(o.list, o.engine)
	}
	return o, nil
}

// abandon closes what openOutputs has opened before it failed.
func (o *outputs) abandon() {
	o.end()
	if o.lines == nil || o.file == nil {
		return
	}
	_ = o.lines.Close(o.late) // nothing was written
	if o.file.part != "" {
		_ = os.Remove(o.file.part)
	}
}

// openEngine opens the spool and begins to deliver what it holds. It returns nil
// when nothing goes through the spool.
func openEngine(c *config, wait bool, log *slog.Logger) (_ *delivery.Engine, err error) {
	var outs []delivery.Output
	defer func() {
		if err != nil {
			for _, o := range outs {
				_ = o.Destination.Close() // nothing was sent
			}
		}
	}()
	options := spool.Options{Size: c.SpoolSize, Age: c.SpoolAge, Block: wait, Logger: log}
	if len(c.Elasticsearch.Addresses) > 0 {
		es, err := elastic.NewDestination(c.Elasticsearch)
		if err != nil {
			return nil, fmt.Errorf("deliver to elasticsearch: %w", err)
		}
		outs = append(outs, delivery.Output{Name: elasticsearchName, Destination: es})
		options.Outputs = append(options.Outputs, spool.Output{Name: elasticsearchName, Datasets: c.selected()})
	}
	for _, o := range c.Outputs {
		d, err := outputTypeNamed(o.Type).open(o, log)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.name, err)
		}
		outs = append(outs, delivery.Output{Name: o.name, Destination: d, Severity: o.severity()})
		options.Outputs = append(options.Outputs, spool.Output{Name: o.name, Datasets: o.datasets()})
	}
	if len(outs) == 0 {
		return nil, nil
	}
	dir := c.Spool
	if dir == "" {
		if dir, err = defaultSpool(); err != nil {
			return nil, err
		}
	}
	sp, err := spool.Open(dir, options)
	if err != nil {
		return nil, err
	}
	return delivery.Start(sp, outs, delivery.Options{Log: log}), nil
}

// elasticsearchName is the name of the output of --es.
const elasticsearchName = "elasticsearch"

// defaultSpool is the folder of the spool where none is configured: the one that
// systemd names, or else the place for state in the file system hierarchy standard
// and the XDG base directory specification.
func defaultSpool() (string, error) {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.Join(dir, "spool"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/oddcert/spool", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "oddcert", "spool"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("choose a folder for the spool: %w", err)
	}
	return filepath.Join(home, ".local", "state", "oddcert", "spool"), nil
}

// flush writes out what is buffered. The pipeline calls it when it is idle.
func (o *outputs) flush() {
	if o.lines != nil {
		o.lines.Flush()
	}
}

// reopen reopens the file of records on each signal: the file has been moved away.
func (o *outputs) reopen(hangups <-chan os.Signal) {
	for {
		select {
		case <-hangups:
			if o.lines != nil {
				o.lines.Reopen()
			}
		case <-o.late.Done():
			return
		}
	}
}

// lostLines counts the records that could not be written as JSON lines.
type lostLines struct {
	Lost uint64 `json:"lost"`
}

// sections are the counters of the outputs.
func (o *outputs) sections() (all []output.Section) {
	if o.lines != nil && o.lines.Lost() > 0 {
		all = append(all, output.Section{Name: "json", Value: lostLines{o.lines.Lost()}, Lost: []string{"lost"}})
	}
	if o.engine == nil {
		return all
	}
	all = append(all, output.Section{Name: "spool", Value: o.engine.Spool(), Lost: append(perDataset("refused"), "torn", "failures"), Books: true})
	outs := output.Section{Name: "outputs", Books: true}
	stats := map[string]delivery.Stats{}
	for _, out := range o.engine.Outputs() {
		st := out.Stats()
		stats[out.Name] = st
		outs.Lines = append(outs.Lines,
			output.Line{N: st.Delivered.Total() + st.Duplicates.Total(), One: "record delivered to " + out.Name, Many: "records delivered to " + out.Name},
			output.Line{N: st.Waiting.Total(), One: "record that waits for " + out.Name, Many: "records that wait for " + out.Name, Note: st.Trouble},
			output.Line{N: st.Retries, One: "  sent again", Many: "  sent again"})
		for _, lost := range append(perDataset("dropped", "dead"), "corrupt", "missing", "dead_given_up") {
			outs.Lost = append(outs.Lost, out.Name+" "+lost)
		}
	}
	outs.Value = stats
	return append(all, outs)
}

// perDataset names counters that there are for each dataset.
func perDataset(names ...string) (all []string) {
	for d := range output.Datasets {
		for _, name := range names {
			all = append(all, name+" "+d.String())
		}
	}
	return all
}

// closePatience is how long the end of a run waits for an output that takes nothing.
// Records that are not delivered stay in the spool.
// The time limit of a single request is the output's own.
const closePatience = 10 * time.Second

// close delivers the records that were accepted, and returns an error about those
// that could not be delivered. A file of records that is complete replaces the
// other.
func (o *outputs) close(complete bool) error {
	defer o.end()
	ctx, cancel := context.WithCancel(o.late)
	defer cancel()
	if o.engine != nil {
		for _, out := range o.engine.Outputs() {
			go o.giveUp(ctx, out)
		}
	}
	errs := make([]error, len(o.list))
	var closing sync.WaitGroup
	for i, out := range o.list {
		closing.Go(func() {
			within := ctx
			if out == o.lines {
				within = o.late // a pipe that is read slowly is still read
			}
			errs[i] = out.Close(within)
		})
	}
	closing.Wait()
	var all error
	for i, err := range errs {
		if complete = complete && (err == nil || o.list[i] != o.lines); err != nil {
			all = errors.Join(all, err)
		}
	}
	if o.engine != nil {
		all = errors.Join(all, o.refused())
	}
	if o.file == nil {
		return all
	}
	file, _ := o.lines.File().(*os.File)
	if complete {
		all = errors.Join(all, o.file.commit(file))
	} else if o.file.part != "" {
		o.incomplete = o.file.part
	}
	return errors.Join(all, file.Close())
}

// refused is an error about the records that outputs will never get, nil when there
// are none.
func (o *outputs) refused() (err error) {
	for _, out := range o.engine.Outputs() {
		st := out.Stats()
		if n := st.Dead.Total(); n > 0 {
			err = errors.Join(err, fmt.Errorf("deliver to %s: %d records refused for good, see oddcert deadletters", out.Name, n))
		}
		if n := st.Dropped.Total(); n > 0 {
			err = errors.Join(err, fmt.Errorf("deliver to %s: %d records lost before they could be sent", out.Name, n))
		}
	}
	if n := o.engine.Spool().Refused.Total(); n > 0 {
		err = errors.Join(err, fmt.Errorf("write to the spool: %d records lost", n))
	}
	return err
}

// giveUp ends the delivery of an output that is in trouble and makes no progress.
func (o *outputs) giveUp(ctx context.Context, out *delivery.Running) {
	t := time.NewTicker(stopTrouble / 10)
	defer t.Stop()
	settled, since := out.Stats().Settled.Total(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := out.Stats().Settled.Total(); now != settled {
			settled, since = now, time.Now()
		}
		patience := closePatience
		if o.told.Err() != nil {
			patience = stopTrouble
		}
		if time.Since(since) > patience && out.Trouble() != nil {
			out.Abandon()
			return
		}
	}
}
