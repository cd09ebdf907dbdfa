// Package elastic delivers records to Elasticsearch, and sets up what they need
// there.
//
// [New] makes an [Output] over a spool: a record that Write accepted is on disk,
// and goes to the server in bulk requests until the server has answered that it
// stored the record or that it will never accept it. [Setup] puts the templates; it
// needs a key with more privileges than sending records does.
//
// Each dataset goes to a data stream of its own, logs-oddcert.DATASET-NAMESPACE or
// metrics-oddcert.stats-NAMESPACE. Records are only ever created there, never
// changed: a key for sending needs no more than create_doc and auto_configure on
// logs-oddcert.*-* and metrics-oddcert.stats-*.
package elastic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// Output delivers records. It is an [output.Output]; its methods may be called
// by several goroutines.
type Output struct {
	client *Client
	spool  *spool.Spool
	log    *slog.Logger
	index  [output.Datasets]string
	dead   *deadLetters

	min, max, slow time.Duration // waits, see limits.go

	accept  context.Context // done when Write takes no more
	refuse  context.CancelFunc
	work    context.Context // done when delivery must stop
	stop    context.CancelFunc
	closing chan struct{} // closed when only what is spooled is to be delivered
	done    sync.WaitGroup
	close   sync.Once
	err     error // of Close

	mu       sync.Mutex
	stats    Stats
	troubles [spool.Queues]string // class of what keeps each lane from delivering
	last     error                // the latest of them, nil when there is none
	since    time.Time            // when the oldest of them began
}

var _ output.Output = (*Output)(nil)

// Stats counts the outcomes of records since New. With the counts of the spool,
// for each dataset
//
//	Spool.Settled = Delivered + Duplicates + Dead
type Stats struct {
	Spool spool.Stats `json:"spool"`

	Delivered  spool.Counts `json:"delivered"`
	Duplicates spool.Counts `json:"duplicates"` // the server had them already
	Dead       spool.Counts `json:"dead"`       // in the dead-letter file

	Redirected uint64 `json:"redirected"` // of Delivered, those that went to the failure store
	Requests   uint64 `json:"requests"`   // bulk requests sent
	Retries    uint64 `json:"retries"`    // records that had to go again, each time
}

// Undelivered is the error of Close when records are left in the spool. The next
// process that opens the spool delivers them.
type Undelivered struct {
	Records uint64
	Dir     string
	Cause   error // why they were not delivered; nil when only the time was too short
}

func (e *Undelivered) Error() string {
	s := fmt.Sprintf("%d records kept in %s", e.Records, e.Dir)
	if e.Cause != nil {
		s = fmt.Sprintf("deliver to elasticsearch: %v: %s", e.Cause, s)
	}
	return s
}

func (e *Undelivered) Unwrap() error { return e.Cause }

// New starts the delivery of what sp holds and will hold. It takes over sp,
// which Close closes.
func New(cfg Config, sp *spool.Spool, log *slog.Logger) (*Output, error) {
	client, err := NewClient(cfg)
	if err != nil {
		return nil, err
	}
	o := newOutput(client, cfg.namespace(), sp, log)
	o.start()
	return o, nil
}

func newOutput(client *Client, namespace string, sp *spool.Spool, log *slog.Logger) *Output {
	o := &Output{
		client: client, spool: sp, log: log, dead: newDeadLetters(sp.Dir()),
		min: backoffMin, max: backoffMax, slow: slowRetry, closing: make(chan struct{}),
	}
	for d := range output.Datasets {
		o.index[d] = schema.Dataset(d.Form()).DataStream(namespace)
	}
	o.accept, o.refuse = context.WithCancel(context.Background())
	o.work, o.stop = context.WithCancel(context.Background())
	return o
}

func (o *Output) start() {
	for lane := range spool.Queues {
		d := &delivery{Output: o, lane: lane, bulk: bulk{client: o.client, index: o.index}, limit: maxBatchRecords}
		o.done.Go(func() { d.run(o.work) })
	}
}

// Write queues r in the spool. It waits for room only when the spool was opened
// with Block; Close ends that wait. A record that it refuses is counted.
func (o *Output) Write(r *output.Record) error {
	if !validID(r.ID) {
		return fmt.Errorf("write record: id %q is not of letters, digits, - and _", r.ID)
	}
	return o.spool.Append(o.accept, r)
}

// validID reports whether id can stand in a bulk request as it is.
func validID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return id != ""
}

// Close delivers what was accepted until ctx is done, and closes the spool.
// When something is left there the error is an [*Undelivered]. It may be called
// while Write waits, which then returns an error.
func (o *Output) Close(ctx context.Context) error {
	o.close.Do(func() {
		o.refuse()
		o.spool.Finish()
		close(o.closing)
		drained := make(chan struct{})
		go func() {
			o.done.Wait()
			close(drained)
		}()
		select {
		case <-drained:
		case <-ctx.Done():
		}
		o.stop()
		<-drained
		o.client.close()
		err := o.spool.Close()
		if left := o.spool.Stats().Spooled.Total(); left > 0 {
			o.mu.Lock()
			cause := o.last
			o.mu.Unlock()
			if cause == nil && ctx.Err() != nil {
				cause = fmt.Errorf("%s: no answer in time", o.client)
			}
			err = errors.Join(&Undelivered{Records: left, Dir: o.spool.Dir(), Cause: cause}, err)
		}
		o.err = err
	})
	return o.err
}

// Refuse ends the waiting of Write for room: from now on Write refuses a record at
// once when there is no room.
func (o *Output) Refuse() { o.refuse() }

// Stats returns the counts.
func (o *Output) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Spool = o.spool.Stats()
	return s
}

// Trouble is the error that keeps the output from delivering now, nil when it
// delivers.
func (o *Output) Trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// delivery delivers one lane: one batch at a time, until each record of the batch
// has its fate.
type delivery struct {
	*Output
	lane    spool.Queue
	bulk    bulk
	limit   int // records in a request: less after a 413, growing again with each success
	failure int // requests in a row that got nowhere
}

func (d *delivery) run(ctx context.Context) {
	for {
		records, err := d.spool.Next(ctx, d.lane, maxBatchRecords, maxBatchBytes)
		if err == io.EOF || ctx.Err() != nil {
			return
		}
		if err != nil {
			d.trouble(&trouble{class: "spool", err: err})
			if !d.pause(ctx, d.slow, false) {
				return
			}
			continue
		}
		verdicts := d.deliver(ctx, records)
		if err := d.spool.Settle(d.lane, len(verdicts)); err != nil {
			d.log.Warn("elasticsearch: records may be sent again after a restart", "err", err)
		}
		d.count(records, verdicts)
	}
}

// deliver sends records until each has its fate, or ctx is done: then it
// returns the verdicts for the first of them that have one.
func (d *delivery) deliver(ctx context.Context, records []output.Record) []verdict {
	verdicts := make([]verdict, len(records))
	left := make([]int, len(records)) // indexes of records without a fate
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 && ctx.Err() == nil {
		n := min(d.limit, len(left))
		sent := left[:n]
		request := make([]*output.Record, n)
		for i, at := range sent {
			request[i] = &records[at]
		}
		d.mu.Lock()
		d.stats.Requests++
		d.mu.Unlock()
		got, t := d.bulk.send(ctx, request)
		if ctx.Err() != nil && t != nil && t.class == "network" {
			break // the output is being closed
		}
		if t != nil && t.split {
			if n > 1 {
				d.limit = n / 2
				continue
			}
			var status *StatusError
			errors.As(t.err, &status)
			got[0] = verdict{fate: dead, status: status.Status, reason: status.Error()}
			t = nil
		}
		if err := d.bury(request, got); err != nil {
			t = &trouble{class: "dead letters", err: err, slow: true}
		}
		rest, back := left[n:], []int{}
		for i, v := range got {
			switch v.fate {
			case delivered, duplicate, dead:
				verdicts[sent[i]] = v
				continue
			case blocked:
				t = &trouble{class: "blocked " + v.reason, err: &StatusError{Status: v.status, Reason: v.reason}, slow: true}
			case again:
				if t == nil {
					t = &trouble{class: fmt.Sprintf("item status %d", v.status), err: &StatusError{Status: v.status, Reason: v.reason}}
				}
			}
			back = append(back, sent[i])
		}
		left = append(back, rest...)
		d.mu.Lock()
		d.stats.Retries += uint64(len(back))
		d.mu.Unlock()
		if len(back) == 0 {
			d.failure = 0
			d.limit = min(d.limit+d.limit/8+1, maxBatchRecords)
			d.recovered()
			continue
		}
		if len(back) < n {
			d.failure = 0
		}
		if ctx.Err() != nil {
			break // the answers until then count
		}
		d.trouble(t)
		if !d.pause(ctx, d.wait(t), t.after > 0) {
			break
		}
	}
	for i := range verdicts {
		if verdicts[i].fate == again {
			return verdicts[:i]
		}
	}
	return verdicts
}

// bury writes dead letters. When that fails, the records go again instead.
func (d *delivery) bury(records []*output.Record, verdicts []verdict) error {
	var letters []deadLetter
	for i, v := range verdicts {
		if v.fate == dead {
			letters = append(letters, letter(records[i], d.index[records[i].Dataset], v))
		}
	}
	if len(letters) == 0 {
		return nil
	}
	if err := d.dead.add(letters); err != nil {
		for i := range verdicts {
			if verdicts[i].fate == dead {
				verdicts[i].fate = again
			}
		}
		return err
	}
	d.log.Error("elasticsearch: records refused for good", "records", len(letters), "file", d.dead.path,
		"index", letters[0].Index, "reason", letters[0].Reason)
	return nil
}

// count counts the fates of records that are settled.
func (d *delivery) count(records []output.Record, verdicts []verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.stats.Redirected == 0
	for i, v := range verdicts {
		switch set := records[i].Dataset; v.fate {
		case delivered:
			d.stats.Delivered[set]++
		case duplicate:
			d.stats.Duplicates[set]++
		case dead:
			d.stats.Dead[set]++
		}
		if v.redirected {
			d.stats.Redirected++
		}
	}
	if first && d.stats.Redirected > 0 {
		d.log.Warn("elasticsearch: records go to the failure store: the templates may be missing or changed")
	}
}

// wait is how long to wait after t.
func (d *delivery) wait(t *trouble) time.Duration {
	if t.slow {
		return d.slow
	}
	ceiling := d.max
	if d.failure < 16 {
		ceiling = min(d.max, d.min<<d.failure)
	}
	d.failure++
	return max(t.after, rand.N(ceiling)+1)
}

// pause waits, and reports whether to go on. Closing shortens the wait, unless the
// server asked for it.
func (d *delivery) pause(ctx context.Context, wait time.Duration, asked bool) bool {
	closing := d.closing
	select {
	case <-closing:
		closing = nil
		if !asked {
			wait = min(wait, closingRetry)
		}
	default:
		if asked {
			closing = nil
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-closing:
	case <-ctx.Done():
		return false
	}
	return true
}

// trouble logs what keeps the lane from delivering, once for as long as the cause is
// the same.
func (d *delivery) trouble(t *trouble) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := false
	down := false
	for _, class := range d.troubles {
		known = known || class == t.class
		down = down || class != ""
	}
	if !down {
		d.since = time.Now()
	}
	d.troubles[d.lane] = t.class
	d.last = fmt.Errorf("%s: %w", d.client, t.err)
	if !known {
		d.log.Error("elasticsearch: cannot deliver, records are kept", "address", d.client.String(), "err", t.err, "dir", d.spool.Dir())
	}
}

// recovered logs that the lane delivers again.
func (d *delivery) recovered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.troubles[d.lane] == "" {
		return
	}
	d.troubles[d.lane] = ""
	for _, class := range d.troubles {
		if class != "" {
			return
		}
	}
	d.last = nil
	d.log.Info("elasticsearch: delivers again", "address", d.client.String(), "after", time.Since(d.since).Round(time.Second))
}
