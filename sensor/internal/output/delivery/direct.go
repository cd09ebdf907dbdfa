package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outage"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// Direct delivers records to one output without a spool: to the files of a replay,
// which can be read again. It waits while they cannot be written to, up to
// directPatience; then records are lost, and counted. It is an [output.Output].
type Direct struct {
	Output
	datasets output.Set
	limits   Limits
	log      *slog.Logger
	late     context.Context // done when nothing may wait any more
	backoff  Backoff

	records []output.Record
	bytes   []byte // their JSON, end to end

	mu     sync.Mutex
	stats  Stats
	outage outage.Outage
	since  time.Time // when the outage began; zero for none
}

var _ output.Output = (*Direct)(nil)

// NewDirect returns an output that takes records of datasets. Nothing waits any more
// when late is done.
func NewDirect(o Output, datasets output.Set, late context.Context, opt Options) *Direct {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Backoff == (Backoff{}) {
		opt.Backoff = Waits
	}
	return &Direct{Output: o, datasets: datasets, limits: o.Destination.Limits(), log: opt.Log, late: late, backoff: opt.Backoff}
}

// Write takes r if the output wants it.
func (d *Direct) Write(r *output.Record) error {
	if !d.datasets.Has(r.Dataset) {
		return nil
	}
	d.mu.Lock()
	d.stats.Accepted[r.Dataset]++
	d.mu.Unlock()
	if !wants(&d.Output, r) {
		d.mu.Lock()
		d.stats.Settled[r.Dataset]++
		d.stats.count(r.Dataset, &Verdict{Fate: filtered})
		d.mu.Unlock()
		return nil
	}
	from := len(d.bytes)
	d.bytes = append(d.bytes, r.JSON...)
	d.records = append(d.records, *r)
	d.records[len(d.records)-1].JSON = d.bytes[from:len(d.bytes):len(d.bytes)]
	if len(d.records) >= d.limits.Records || len(d.bytes) >= min(d.limits.Bytes, directBatch) {
		return d.flush()
	}
	return nil
}

// flush sends what was taken. An error means that some of it is lost.
func (d *Direct) flush() error {
	if len(d.records) == 0 {
		return nil
	}
	left := make([]*output.Record, len(d.records))
	for i := range d.records {
		left[i] = &d.records[i]
	}
	var err error
	for len(left) > 0 {
		verdicts := make([]Verdict, len(left))
		t := d.Destination.Send(d.late, left, verdicts)
		left = d.settle(left, verdicts)
		if len(left) == 0 {
			break
		}
		if t == nil {
			t = &Trouble{Class: "refused", Err: fmt.Errorf("%d records are not taken", len(left))}
		}
		if !d.wait(t) {
			err = d.lose(left, t.Err)
			break
		}
	}
	if err == nil {
		d.mu.Lock()
		if lasted, was := d.outage.Works(); was {
			d.since = time.Time{}
			d.log.Info(d.Name+": delivers again", "address", d.Destination.String(), "after", lasted.Round(time.Second))
		}
		d.mu.Unlock()
	}
	d.records, d.bytes = d.records[:0], d.bytes[:0]
	return err
}

// settle counts the records that have a fate, and returns the others.
func (d *Direct) settle(records []*output.Record, verdicts []Verdict) (left []*output.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Requests++
	for i, v := range verdicts {
		set := records[i].Dataset
		if v.Fate == Again || v.Fate == Blocked {
			left = append(left, records[i])
			continue
		}
		d.stats.count(set, &v)
		d.stats.Settled[set]++
		if v.Fate == Dead && d.stats.Dead.Total() == 1 {
			d.log.Error(d.Name+": a record is refused for good", "id", records[i].ID, "reason", v.Reason)
		}
	}
	d.stats.Retries += uint64(len(left))
	return left
}

// wait waits before another try, and reports false when there is to be none.
func (d *Direct) wait(t *Trouble) bool {
	d.mu.Lock()
	if d.since.IsZero() {
		d.since = time.Now()
	}
	if d.outage.Fails(t.Class) {
		d.log.Error(d.Name+": cannot deliver, the replay waits", "address", d.Destination.String(), "err", t.Err)
	}
	over := time.Since(d.since) > directPatience
	d.mu.Unlock()
	if over {
		return false
	}
	pause := time.NewTimer(d.backoff.Min)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-d.late.Done():
		return false
	}
}

// lose counts records that are lost.
func (d *Direct) lose(records []*output.Record, cause error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var n spool.Counts
	for _, r := range records {
		n[r.Dataset]++
		d.stats.Dropped[r.Dataset]++
	}
	return fmt.Errorf("deliver to %s: %d records lost: %w", d.Name, n.Total(), cause)
}

// Flush sends what was taken. What is lost is counted.
func (d *Direct) Flush() { _ = d.flush() }

// Close sends what was taken. The destination stays open: its files are still to be
// put in their place, or not.
func (d *Direct) Close(context.Context) error { return d.flush() }

// Stats returns the counts.
func (d *Direct) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}
