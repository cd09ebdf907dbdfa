package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic"
)

// outputs are where records go.
type outputs struct {
	list []output.Output
	file *os.File // of the JSON lines, when that is not standard output
}

// openOutputs opens what c names. A replay waits for an output that is slow;
// a live capture never does.
func openOutputs(c *config, stdout io.Writer, wait bool, log *slog.Logger) (*outputs, error) {
	o := new(outputs)
	set := c.datasets()
	switch c.JSON {
	case "":
	case "-":
		o.list = append(o.list, output.NewLines(stdout, set))
	default:
		f, err := os.OpenFile(c.JSON, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return nil, fmt.Errorf("open records file: %w", err)
		}
		o.file = f
		o.list = append(o.list, output.NewLines(f, set))
	}
	if len(c.Elasticsearch.Addresses) > 0 {
		es, err := elastic.New(c.Elasticsearch, elastic.Options{Wait: wait, Log: log})
		if err != nil {
			return nil, errors.Join(prefix("elasticsearch", err), o.close(context.Background(), nil))
		}
		o.list = append(o.list, es)
	}
	return o, nil
}

// close delivers what was accepted.
func (o *outputs) close(ctx context.Context, counters *output.Counters) error {
	// The signal that ended the capture must not end the delivery.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var errs []error
	for _, out := range o.list {
		errs = append(errs, out.Close(ctx))
	}
	if o.file != nil {
		errs = append(errs, o.file.Close())
	}
	return errors.Join(errs...)
}
