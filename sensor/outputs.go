package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// outputs are where records go.
type outputs struct {
	list  []output.Output
	es    *elastic.Output // nil when there is none; also in list
	lines *output.Lines   // nil when there are none; also in list
	file  *os.File        // of the JSON lines, when that is not standard output
}

// openOutputs opens what c names. A replay waits for an output that is slow;
// a live capture never does.
func openOutputs(c *config, stdout io.Writer, wait bool, log *slog.Logger) (*outputs, error) {
	o := new(outputs)
	var w io.Writer
	switch c.JSON {
	case "":
	case "-":
		w = stdout
	default:
		f, err := os.OpenFile(c.JSON, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return nil, fmt.Errorf("open records file: %w", err)
		}
		o.file, w = f, f
	}
	if w != nil {
		o.lines = output.NewLines(w, c.datasets())
		o.list = append(o.list, o.lines)
	}
	if len(c.Elasticsearch.Addresses) > 0 {
		es, err := openElasticsearch(c, wait, log)
		if err != nil {
			return nil, errors.Join(prefix("elasticsearch", err), o.close(context.Background()))
		}
		o.es = es
		o.list = append(o.list, es)
	}
	return o, nil
}

// openElasticsearch opens the spool and begins to deliver what it holds.
func openElasticsearch(c *config, wait bool, log *slog.Logger) (*elastic.Output, error) {
	dir := c.Elasticsearch.Spool.Dir
	if dir == "" {
		var err error
		if dir, err = defaultSpool(); err != nil {
			return nil, err
		}
	}
	sp, err := spool.Open(dir, spool.Options{
		Size:   int64(c.Elasticsearch.Spool.Size),
		Age:    c.Elasticsearch.Spool.Age,
		Block:  wait,
		Logger: log,
	})
	if err != nil {
		return nil, err
	}
	es, err := elastic.New(c.Elasticsearch, sp, log)
	if err != nil {
		return nil, errors.Join(err, sp.Close())
	}
	return es, nil
}

// defaultSpool is the folder for the spool where none is configured: what
// systemd names, or the place that the file system hierarchy and the XDG base
// directories have for state.
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

// flush writes out what is buffered; a live capture calls it when it is idle.
func (o *outputs) flush() {
	if o.lines != nil {
		_ = o.lines.Flush()
	}
}

// sections are the counters of the outputs.
func (o *outputs) sections() []output.Section {
	if o.es == nil {
		return nil
	}
	es := output.Section{Name: "elasticsearch", Value: o.es.Stats(), Lost: []string{"spool torn", "spool corrupt", "spool failures"}}
	for d := range output.Datasets {
		for _, lost := range []string{"spool refused ", "spool dropped ", "dead "} {
			es.Lost = append(es.Lost, lost+d.String())
		}
	}
	return []output.Section{es}
}

// closePatience is how long the end of the program waits for an Elasticsearch
// that is away or in trouble. What that does not take stays in the spool. For
// an answer that is under way the output has a limit of its own.
const closePatience = 10 * time.Second

// close delivers what was accepted.
func (o *outputs) close(ctx context.Context) error {
	// The signal that ended the capture must not end the delivery.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if o.es != nil {
		go o.giveUp(ctx, cancel)
	}
	var errs []error
	for _, out := range o.list {
		errs = append(errs, out.Close(ctx))
	}
	if o.file != nil {
		errs = append(errs, o.file.Close())
	}
	return errors.Join(errs...)
}

// giveUp ends the delivery when it is in trouble and does not get on.
func (o *outputs) giveUp(ctx context.Context, cancel context.CancelFunc) {
	t := time.NewTicker(closePatience)
	defer t.Stop()
	for settled := o.es.Stats().Spool.Settled.Total(); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := o.es.Stats().Spool.Settled.Total()
		if now == settled && o.es.Trouble() != nil {
			cancel()
		}
		settled = now
	}
}
