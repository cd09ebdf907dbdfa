package pipeline

import (
	"context"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestFailure has the matcher and the encoder fail on one handshake: the others
// of the epoch have their records, and the failures are counted.
func TestFailure(t *testing.T) {
	c := Config{Rules: builtin(t), Records: output.Options{Datasets: everything}}
	w := newWorker(&c, 1, false, new(failures))
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
	if n := w.counters().flows.Panics; n == 0 {
		t.Error("no failure is counted")
	}

	p := New(c)
	var delivered []output.Dataset
	p.config.Outputs = []output.Output{taker{&delivered}}
	w.now.items[1].later = true
	if err := p.encode(&w.now.items[1]); err != nil {
		t.Error(err)
	}
	w.now.items[2].later = true
	if err := p.encode(&w.now.items[2]); err != nil {
		t.Error(err)
	}
	if len(delivered) != 1 || delivered[0] != output.Handshake || p.failures != 1 {
		t.Errorf("%v delivered, %d failures", delivered, p.failures)
	}
}

// taker is an output that notes the datasets of the records.
type taker struct{ delivered *[]output.Dataset }

func (t taker) Write(r *output.Record) error {
	*t.delivered = append(*t.delivered, r.Dataset)
	return nil
}

func (taker) Close(context.Context) error { return nil }
