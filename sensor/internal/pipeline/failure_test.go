package pipeline

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// The matcher and the encoder fail on one handshake: the others of the interval
// have their records, the failures are counted, and the first is kept.
func TestFailure(t *testing.T) {
	p := New(Config{Rules: builtin(t), Records: output.Options{Datasets: everything}})
	var delivered []output.Dataset
	p.config.Outputs = []output.Output{taker{&delivered}}
	w := p.newWorker(1, false)
	sound := func() *event.Handshake { return &event.Handshake{Flow: &event.Flow{}, Carrier: "tls"} }
	w.handshake(sound())
	w.handshake(&event.Handshake{}) // no flow: nothing that a parser would emit
	w.handshake(sound())
	w.finish()
	var records [3]int
	for i, it := range w.now.items {
		records[i] = it.records[1] - it.records[0]
	}
	if records != [3]int{1, 0, 1} {
		t.Errorf("%v records", records)
	}
	if c := w.counters(); c.unencoded != 1 {
		t.Errorf("%d failures to encode are counted, want 1", c.unencoded)
	}

	// The same where the records are made in the order.
	for _, i := range []int{1, 2} {
		it := &w.now.items[i]
		it.later, it.records = true, [2]int{}
		if err := p.write(it); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(delivered, []output.Dataset{output.Handshake}) || p.recorder.unencoded != 1 {
		t.Errorf("%v delivered, %d failures", delivered, p.recorder.unencoded)
	}
	f := p.Failure()
	if f == nil || f.Text == "" || !strings.Contains(f.Stack, "AppendHandshake") && !strings.Contains(f.Stack, "Match") {
		t.Fatalf("the first failure is %+v", f)
	}
	if c := p.Counters(capture.Stats{}); !strings.Contains(c.Failure, f.Text) {
		t.Errorf("statistics say %q, want %q", c.Failure, f.Text)
	}
}

// taker is an output that notes the datasets of the records.
type taker struct{ delivered *[]output.Dataset }

func (t taker) Write(r *output.Record) error {
	*t.delivered = append(*t.delivered, r.Dataset)
	return nil
}

func (taker) Close(context.Context) error { return nil }
