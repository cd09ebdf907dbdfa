package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/logfile"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// outputs are where records go.
type outputs struct {
	list    []output.Output
	engine  *delivery.Engine // nil when nothing goes through the spool; also in list
	spool   string           // its folder
	direct  []*direct        // those of a replay that need no spool; also in list
	reopens []reopener       // what is opened anew on SIGHUP
	lines   *output.Lines    // nil when there are none; also in list
	file    *recordsFile     // of the JSON lines, nil for standard output
	told    context.Context  // done when the run is told to stop
	late    context.Context  // done when nothing may wait any more
	end     func()

	incomplete []incomplete // after close
}

// incomplete is a file that did not replace the other, and the one with the records so
// far.
type incomplete struct{ path, part string }

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

// openOutputs opens the outputs that the configuration of s names. A replay waits for a slow output, and
// replaces the file of records, which must not be one of its inputs. A live capture
// never waits, and appends.
func openOutputs(s *sensor, live bool, inputs []string) (_ *outputs, err error) {
	c, log := s.config, s.log()
	o := &outputs{told: s.cmd.Context()}
	o.late, o.end = late(o.told)
	defer func() {
		if err != nil {
			o.abandon()
		}
	}()
	opt := output.SinkOptions{Name: "standard output", What: "records", Block: !live, Late: o.late, Log: log}
	w := s.cmd.OutOrStdout()
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
	if err = o.openOthers(s, live, inputs); err != nil {
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
	for _, d := range o.direct {
		d.files.Close()
		if part := d.files.Part(); part != "" {
			_ = os.Remove(part)
		}
	}
	if o.lines == nil || o.file == nil {
		return
	}
	_ = o.lines.Close(o.late) // nothing was written
	if o.file.Part != "" {
		_ = os.Remove(o.file.Part)
	}
}

// direct is an output of a replay that needs no spool: files that replace others when
// all input has been read.
type direct struct {
	*delivery.Direct
	files *logfile.Destination
}

// reopener is what may have to open its files anew.
type reopener interface{ Reopen() }

// openOthers opens the outputs other than the JSON lines, and begins to deliver what
// the spool holds where one of them needs it.
func (o *outputs) openOthers(s *sensor, live bool, inputs []string) (err error) {
	c, log := s.config, s.log()
	options := spool.Options{Size: c.SpoolSize, Age: c.SpoolAge, Block: !live, Logger: log}
	var spooled []delivery.Output
	defer func() {
		if err != nil {
			for _, out := range spooled {
				_ = out.Destination.Close() // nothing was sent
			}
		}
	}()
	if c.Elasticsearch.Given() {
		es, err := c.openElasticsearch(log)
		if err != nil {
			return err
		}
		spooled = append(spooled, delivery.Output{Name: elasticsearchName, Destination: es})
		options.Outputs = append(options.Outputs, spool.Output{Name: elasticsearchName, Datasets: c.selected()})
	}
	for _, out := range c.Outputs {
		inPlace := outputTypeNamed(out.Type).inPlace && !live
		if inPlace {
			out.File.Replay, out.File.Append, out.File.Inputs = true, c.Append, inputs
		}
		d, err := c.openOutput(out, log)
		if err != nil {
			return err
		}
		to := delivery.Output{Name: out.name, Destination: d, Severity: out.severity(), Where: out.filter()}
		if inPlace {
			to := &direct{delivery.NewDirect(to, out.datasets(), o.late, delivery.Options{Log: log}), d.(*logfile.Destination)}
			o.direct = append(o.direct, to)
			o.list = append(o.list, to)
			continue
		}
		if r, ok := d.(reopener); ok {
			o.reopens = append(o.reopens, r)
		}
		spooled = append(spooled, to)
		options.Outputs = append(options.Outputs, spool.Output{Name: out.name, Datasets: out.datasets()})
	}
	if len(spooled) == 0 {
		return nil
	}
	if o.spool, err = c.spoolPlace(); err != nil {
		return err
	}
	sp, err := spool.Open(o.spool, options)
	if err != nil {
		return err
	}
	deliver := delivery.Options{Log: log, Memory: int(c.deliveryMemory())}
	if s.monitor != nil {
		deliver.Delivered = s.monitor.Delivered
	}
	o.engine = delivery.Start(sp, spooled, deliver)
	return nil
}

// openElasticsearch opens the output of --es.
func (c *config) openElasticsearch(log *slog.Logger) (delivery.Destination, error) {
	d, err := elastic.New(c.Elasticsearch, log)
	if err != nil {
		return nil, fmt.Errorf("deliver to elasticsearch: %w", err)
	}
	return d, nil
}

// openOutput opens an output that has a name.
func (c *config) openOutput(o *outputConfig, log *slog.Logger) (delivery.Destination, error) {
	d, err := outputTypeNamed(o.Type).open(o, c.observer().Name, log)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", o.name, err)
	}
	return d, nil
}

// elasticsearchName is the name of the output of --es.
const elasticsearchName = "elasticsearch"

// defaultSpool is the folder of the spool where none is configured: the one that
// systemd names, or else the place for state in the file system hierarchy standard
// and the XDG base directory specification.
func defaultSpool() (string, error) {
	dir, err := stateFolder()
	if err != nil {
		return "", fmt.Errorf("choose a folder for the spool: %w", err)
	}
	return filepath.Join(dir, "spool"), nil
}

// stateFolder is where what survives a run is kept.
func stateFolder() (string, error) {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/oddcert", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "oddcert"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state", "oddcert"), nil
}

// flush writes out what is buffered. The pipeline calls it when it is idle.
func (o *outputs) flush() {
	if o.lines != nil {
		o.lines.Flush()
	}
	for _, d := range o.direct {
		d.Flush()
	}
}

// reopen reopens the files, which may have been moved away.
func (o *outputs) reopen() {
	if o.lines != nil {
		o.lines.Reopen()
	}
	for _, r := range o.reopens {
		r.Reopen()
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
	if o.engine == nil && len(o.direct) == 0 {
		return all
	}
	if o.engine != nil {
		all = append(all, output.Section{Name: "spool", Value: o.engine.Spool(), Lost: append(perDataset("refused"), "torn", "failures"), Books: true})
	}
	outs := output.Section{Name: "outputs", Books: true}
	stats := map[string]delivery.Stats{}
	for name, st := range o.stats() {
		stats[name] = st
		outs.Lines = append(outs.Lines,
			output.Line{N: st.Delivered.Total() + st.Duplicates.Total(), One: "record delivered to " + name, Many: "records delivered to " + name},
			output.Line{N: st.Waiting.Total(), One: "record that waits for " + name, Many: "records that wait for " + name, Note: st.Trouble},
			output.Line{N: st.Retries, One: "  sent again", Many: "  sent again"})
		for _, lost := range append(perDataset("dropped", "dead"), "corrupt", "missing", "dead_given_up") {
			outs.Lost = append(outs.Lost, name+" "+lost)
		}
	}
	outs.Value = stats
	return append(all, outs)
}

// stats are the counts of all outputs but the JSON lines, by name.
func (o *outputs) stats() iter.Seq2[string, delivery.Stats] {
	return func(yield func(string, delivery.Stats) bool) {
		for _, d := range o.direct {
			if !yield(d.Name, d.Stats()) {
				return
			}
		}
		if o.engine == nil {
			return
		}
		for _, out := range o.engine.Outputs() {
			if !yield(out.Name, out.Stats()) {
				return
			}
		}
	}
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
		if complete = complete && (err == nil || o.list[i] == o.engine); err != nil {
			all = errors.Join(all, err)
		}
	}
	all = errors.Join(all, o.refused())
	for _, d := range o.direct {
		if complete {
			all = errors.Join(all, d.files.Commit())
		} else if part := d.files.Part(); part != "" {
			o.incomplete = append(o.incomplete, incomplete{d.files.String(), part})
		}
		all = errors.Join(all, d.files.Close())
	}
	if o.file == nil {
		return all
	}
	file, _ := o.lines.File().(*os.File)
	if complete {
		all = errors.Join(all, o.file.commit(file))
	} else if o.file.Part != "" {
		o.incomplete = append(o.incomplete, incomplete{o.file.Path, o.file.Part})
	}
	return errors.Join(all, file.Close())
}

// refused is an error about the records that outputs will never get, nil when there
// are none.
func (o *outputs) refused() (err error) {
	for name, st := range o.stats() {
		if n := st.Dead.Total(); n > 0 {
			err = errors.Join(err, fmt.Errorf("deliver to %s: %d records refused for good, see oddcert deadletters", name, n))
		}
		if n := st.Dropped.Total(); n > 0 {
			err = errors.Join(err, fmt.Errorf("deliver to %s: %d records lost before they could be sent", name, n))
		}
	}
	if o.engine == nil {
		return err
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
