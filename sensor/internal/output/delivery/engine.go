package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outage"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// Output is one output: where its records go, and which these are.
type Output struct {
	Name        string // see [spool.ValidName]
	Destination Destination
	Severity    int    // of alerts, at least: 0 for all
	Where       Filter // nil for all records
}

// Filter chooses records. Its method may be called by several goroutines.
type Filter interface {
	Matches(record []byte) bool
}

// Engine delivers what a spool holds to all outputs. It is an [output.Output]; its
// methods may be called by several goroutines.
type Engine struct {
	spool *spool.Spool
	log   *slog.Logger
	dead  *DeadLetters
	outs  []*Running

	backoff Backoff
	took    func(output string, d time.Duration) // see Options.Delivered
	poll    time.Duration                        // between looks for dead letters to send again
	accept  context.Context                      // done when Write takes no more
	refuse  context.CancelFunc
	closing chan struct{} // closed when only what is spooled is to be delivered
	close   sync.Once
	err     error // of Close
}

var _ output.Output = (*Engine)(nil)

// Options are the log that hears of failures, nil for none, the waits after them, and
// how much memory there is.
type Options struct {
	Log     *slog.Logger
	Backoff Backoff // the zero value is that of Waits
	Memory  int     // bytes of records that are on their way at a time, about; 0 is DefaultMemory

	// Delivered is told of each record that a receiver has acknowledged how long that
	// took since the spool had accepted it. Any goroutine may call it. Nil for nobody.
	Delivered func(output string, took time.Duration)

	poll time.Duration // for tests; zero is resendPoll
}

// Backoff bounds the wait after a failure, at first and in the end, and is the wait
// where only somebody's intervention can help.
type Backoff struct{ Min, Max, Slow time.Duration }

// Waits are those of an engine that works.
var Waits = Backoff{Min: backoffMin, Max: backoffMax, Slow: slowRetry}

// Start starts the delivery of what sp holds and will hold to outs, whose names are
// those of the outputs of sp. It takes over sp and the destinations, which Close
// closes.
func Start(sp *spool.Spool, outs []Output, o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Backoff == (Backoff{}) {
		o.Backoff = Waits
	}
	if o.poll == 0 {
		o.poll = resendPoll
	}
	if o.Delivered == nil {
		o.Delivered = func(string, time.Duration) {}
	}
	e := &Engine{spool: sp, log: o.Log, dead: NewDeadLetters(sp.Dir()), backoff: o.Backoff, took: o.Delivered, poll: o.poll, closing: make(chan struct{})}
	e.accept, e.refuse = context.WithCancel(context.Background())
	bytes := o.batchBytes(sp, outs)
	for _, o := range outs {
		r := &Running{Output: o, engine: e, reader: sp.Reader(o.Name), limits: o.Destination.Limits()}
		r.limits.Bytes = min(r.limits.Bytes, bytes)
		r.work, r.stop = context.WithCancel(context.Background())
		e.outs = append(e.outs, r)
	}
	for _, o := range e.outs {
		for q := range spool.Queues {
			if o.reader.Has(q) {
				l := &lane{Running: o, queue: q, limit: o.limits.Records, probe: make(chan struct{}, 1)}
				l.slots = make(chan struct{}, max(o.limits.Requests, 1))
				o.done.Go(l.run)
			}
		}
	}
	return e
}

// batchBytes is how large a batch of each output may be, so that all that are read or
// under way at a time fit into the memory.
func (o *Options) batchBytes(sp *spool.Spool, outs []Output) int {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	batches := 0
	for _, out := range outs {
		for q := range spool.Queues {
			if sp.Reader(out.Name).Has(q) {
				batches += max(out.Destination.Limits().Requests, 1) + 2 // one is read ahead, and one is settled
			}
		}
	}
	return max(o.Memory/max(batches, 1), minBatchBytes)
}

// Write queues r in the spool. It waits for room only when the spool was opened
// with Block; Close ends that wait. A record that it refuses is counted.
func (e *Engine) Write(r *output.Record) error { return e.spool.Append(e.accept, r) }

// Refuse ends the waiting of Write for room: from now on Write refuses a record at
// once when there is no room.
func (e *Engine) Refuse() { e.refuse() }

// Outputs returns the outputs.
func (e *Engine) Outputs() []*Running { return e.outs }

// Spool returns the counts of the spool.
func (e *Engine) Spool() spool.Stats { return e.spool.Stats() }

// Undelivered is the error of Close when records of an output are left in the spool.
// The next process that opens the spool delivers them.
type Undelivered struct {
	Output  string
	Records uint64
	Dir     string
	Cause   error // why they were not delivered; nil when only the time was too short
}

func (e *Undelivered) Error() string {
	records := "records"
	if e.Records == 1 {
		records = "record"
	}
	s := fmt.Sprintf("%d %s kept in %s", e.Records, records, e.Dir)
	if e.Cause != nil {
		s = fmt.Sprintf("deliver to %s: %v: %s", e.Output, e.Cause, s)
	}
	return s
}

func (e *Undelivered) Unwrap() error { return e.Cause }

// Close delivers what was accepted until ctx is done, or all outputs that have
// something left are abandoned, and closes the destinations and the spool. For each
// output that has something left the error has an [*Undelivered]. It may be called
// while Write waits, which then returns an error.
func (e *Engine) Close(ctx context.Context) error {
	e.close.Do(func() {
		e.refuse()
		e.spool.Finish()
		close(e.closing)
		drained := make(chan struct{})
		go func() {
			for _, o := range e.outs {
				o.done.Wait()
			}
			close(drained)
		}()
		select {
		case <-drained:
		case <-ctx.Done():
		}
		for _, o := range e.outs {
			o.stop()
		}
		<-drained
		var errs []error
		for _, o := range e.outs {
			errs = append(errs, o.Destination.Close())
		}
		errs = append(errs, e.spool.Close())
		for _, o := range e.outs {
			left := o.reader.Stats().Waiting.Total()
			if left == 0 {
				continue
			}
			cause := o.Trouble()
			if cause == nil && ctx.Err() != nil {
				cause = fmt.Errorf("%s: no answer in time", o.Destination)
			}
			errs = append(errs, &Undelivered{Output: o.Name, Records: left, Dir: e.spool.Dir(), Cause: cause})
		}
		e.err = errors.Join(errs...)
	})
	return e.err
}

// Running is an output that is at work.
type Running struct {
	Output
	engine *Engine
	reader *spool.Reader
	limits Limits

	work context.Context // done when delivery must stop
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	stats    Stats
	troubles [spool.Queues]string // class of what keeps each lane from delivering
	last     error                // the latest of them, nil when there is none
	blocked  bool                 // it will not change unless somebody does something
	outage   outage.Outage
}

// Stats counts the fates of the records of an output since Start. In each dataset
//
//	Settled = Delivered + Duplicates + Dead + Filtered + Skipped
type Stats struct {
	spool.ReaderStats

	Delivered  spool.Counts `json:"delivered,omitzero"`
	Duplicates spool.Counts `json:"duplicates,omitzero"` // the receiver had them already
	Dead       spool.Counts `json:"dead,omitzero"`       // in the files of dead letters
	Filtered   spool.Counts `json:"filtered,omitzero"`   // the output does not want them
	Skipped    spool.Counts `json:"skipped,omitzero"`    // the output has no form for them

	Resent     uint64 `json:"dead_resent,omitzero"`    // dead letters, also of earlier processes, that were delivered after all
	Redirected uint64 `json:"redirected,omitzero"`     // of Delivered, those that the receiver could not read
	GivenUp    uint64 `json:"dead_given_up,omitzero"`  // dead letters, also of other outputs, that later ones of this one took the place of
	Requests   uint64 `json:"requests"`                // sent
	Retries    uint64 `json:"retries"`                 // records that had to go again, each time
	Outage     int64  `json:"outage_seconds,omitzero"` // how long nothing could be delivered until now
	Trouble    string `json:"-"`                       // why
	Blocked    bool   `json:"-"`                       // it will not change unless somebody does something
}

// Stats returns the counts.
func (o *Running) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.ReaderStats = o.reader.Stats()
	if o.last != nil {
		s.Trouble, s.Blocked = o.last.Error(), o.blocked
		s.Outage = int64(time.Since(o.outage.Since()).Seconds())
	}
	return s
}

// Trouble is the error that keeps the output from delivering now, nil when it
// delivers.
func (o *Running) Trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// Abandon ends the delivery of the output. What it has not settled stays in the
// spool.
func (o *Running) Abandon() { o.stop() }

// wants reports whether an output wants a record of a dataset that it wants.
func wants(o *Output, r *output.Record) bool {
	if o.Severity > 0 && r.Dataset == output.Alert && severityOf(r.JSON) < o.Severity {
		return false
	}
	return o.Where == nil || o.Where.Matches(r.JSON)
}

// severityOf is event.severity of an alert. No text of the wire can pose as it:
// a quote within a text has a backslash before it.
func severityOf(record []byte) int {
	_, after, _ := bytes.Cut(record, []byte(`"severity":`))
	end := bytes.IndexAny(after, ",}")
	n, _ := strconv.Atoi(string(after[:max(end, 0)]))
	return n
}

// trouble logs what keeps a lane from delivering: when it begins, and at growing
// intervals for as long as the cause is the same.
func (o *Running) trouble(q spool.Queue, t *Trouble) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.troubles[q] = t.Class
	o.last, o.blocked = fmt.Errorf("%s: %w", o.Destination, t.Err), t.Slow
	if other := o.troubles[(q+1)%spool.Queues]; other != "" && other != t.Class && o.outage.Class() == other {
		return // the lanes would take turns
	}
	if o.outage.Fails(t.Class) {
		o.engine.log.Error(o.Name+": cannot deliver, records are kept", "address", o.Destination.String(), "err", t.Err,
			"waiting", o.reader.Stats().Waiting.Total(), "dir", o.engine.spool.Dir())
	}
}

// recovered logs that a lane delivers again.
func (o *Running) recovered(q spool.Queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.troubles[q] == "" {
		return
	}
	o.troubles[q] = ""
	for _, class := range o.troubles {
		if class != "" {
			return
		}
	}
	o.last = nil
	lasted, _ := o.outage.Works()
	o.engine.log.Info(o.Name+": delivers again", "address", o.Destination.String(), "after", lasted.Round(time.Second))
}

// count counts the fate of a record that is settled.
func (s *Stats) count(set output.Dataset, v *Verdict) {
	switch v.Fate {
	case Delivered:
		s.Delivered[set]++
	case Duplicate:
		s.Duplicates[set]++
	case Dead:
		s.Dead[set]++
	case Skipped:
		s.Skipped[set]++
	case filtered:
		s.Filtered[set]++
	}
	if v.Redirected {
		s.Redirected++
	}
}

// count counts the fates of records that are settled.
func (o *Running) count(records []output.Record, verdicts []Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := o.stats.Redirected == 0
	for i := range verdicts {
		o.stats.count(records[i].Dataset, &verdicts[i])
	}
	if first && o.stats.Redirected > 0 {
		o.engine.log.Warn(o.Name + ": records go to the failure store: the templates may be missing or changed")
	}
}

// bury writes dead letters. When that fails, the records go again instead.
func (o *Running) bury(q spool.Queue, records []*output.Record, verdicts []Verdict) error {
	var letters []DeadLetter
	for i, v := range verdicts {
		if v.Fate == Dead {
			r := records[i]
			letters = append(letters, DeadLetter{
				Time: time.Now().UTC().Truncate(time.Millisecond), Output: o.Name, Dataset: r.Dataset.String(), ID: r.ID,
				Status: v.Status, Reason: v.Reason, Document: r.JSON,
			})
		}
	}
	if len(letters) == 0 {
		return nil
	}
	lost, err := o.engine.dead.add(q, letters)
	if err != nil {
		for i := range verdicts {
			if verdicts[i].Fate == Dead {
				verdicts[i].Fate = Again
			}
		}
		return err
	}
	o.engine.log.Error(o.Name+": records refused for good", "records", len(letters), "file", o.engine.dead.path(q), "reason", letters[0].Reason)
	if lost > 0 {
		o.mu.Lock()
		o.stats.GivenUp += uint64(lost)
		o.mu.Unlock()
		o.engine.log.Error(o.Name+": too many records refused for good, the oldest of them are given up", "records", lost, "file", o.engine.dead.path(q))
	}
	return nil
}

// sending is a batch under way.
type sending struct {
	batch    *spool.Batch
	verdicts []Verdict // of the first records, as far as each has one
	done     chan struct{}
}

// lane delivers one queue of an output: a goroutine reads batches, one for each
// batch sends it until each of its records has its fate, and one settles them in
// their order.
type lane struct {
	*Running
	queue spool.Queue

	probe chan struct{} // held by the one batch that is sent while there is trouble
	slots chan struct{} // one for each batch that is sent or waits to be settled

	state   sync.Mutex
	limit   int  // records in a request: less after one was too large, growing again with each success
	failure int  // requests in a row that got nowhere
	failing bool // the last request failed
}

func (l *lane) run() {
	n := max(l.limits.Requests, 1)
	batches := make(chan *sending, n)
	spare := make(chan *spool.Batch, n+1) // batches to use again
	go l.read(batches, spare)
	var resending sync.WaitGroup
	resending.Go(l.resend)
	defer resending.Wait()
	settling := true
	for f := range batches {
		<-f.done
		if settling {
			l.settle(f)
		}
		// What comes after a batch that has no fate cannot be settled before it.
		settling = settling && len(f.verdicts) == len(f.batch.Records)
		spare <- f.batch
		<-l.slots
	}
}

// read reads batches and has them sent, until nothing more comes.
func (l *lane) read(batches chan<- *sending, spare <-chan *spool.Batch) {
	defer close(batches)
	for l.work.Err() == nil {
		f := &sending{done: make(chan struct{})}
		select {
		case f.batch = <-spare:
		default:
			f.batch = new(spool.Batch)
		}
		err := l.reader.Next(l.work, l.queue, f.batch, l.limits.Records, l.limits.Bytes)
		if err == io.EOF || l.work.Err() != nil {
			return
		}
		if err != nil {
			l.trouble(l.queue, &Trouble{Class: "spool", Err: err})
			if !l.pause(l.engine.backoff.Slow, false) {
				return
			}
			continue
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.work.Done():
			return
		}
		go func() {
			defer close(f.done)
			l.deliver(f)
		}()
		batches <- f
	}
}

// settle settles the records of f that have their fate.
func (l *lane) settle(f *sending) {
	if err := l.reader.Settle(l.queue, len(f.verdicts)); err != nil {
		l.engine.log.Warn(l.Name+": records may be sent again after a restart", "err", err)
	}
	l.count(f.batch.Records, f.verdicts)
}

// deliver sends the records of f until each has its fate, or the output is stopped.
func (l *lane) deliver(f *sending) {
	records := f.batch.Records
	verdicts := make([]Verdict, len(records))
	var left []int // indexes of records without a fate
	for i := range records {
		if wants(&l.Output, &records[i]) {
			left = append(left, i)
		} else {
			verdicts[i].Fate = filtered
		}
	}
	for len(left) > 0 && l.work.Err() == nil {
		leave, ok := l.enter()
		if !ok {
			break
		}
		var t *Trouble
		left, t = l.send(f.batch, verdicts, left)
		ok = t == nil || l.work.Err() == nil && l.pause(l.wait(t), t.After > 0)
		leave()
		if !ok {
			break
		}
	}
	n := 0
	for n < len(verdicts) && verdicts[n].Fate != Again {
		n++
	}
	f.verdicts = verdicts[:n]
}

// enter lets all batches pass while all is well, and one at a time while there is
// trouble, so that a receiver that is down is not asked by all of them.
func (l *lane) enter() (leave func(), ok bool) {
	l.state.Lock()
	failing := l.failing
	l.state.Unlock()
	if !failing {
		return func() {}, true
	}
	select {
	case l.probe <- struct{}{}:
		return func() { <-l.probe }, true
	case <-l.work.Done():
		return nil, false
	}
}

// send sends some of the records at left, and returns those that have no fate then,
// and what keeps them from it.
func (l *lane) send(b *spool.Batch, verdicts []Verdict, left []int) ([]int, *Trouble) {
	l.state.Lock()
	n := min(l.limit, len(left))
	l.state.Unlock()
	sent, rest := left[:n], left[n:]
	request := make([]*output.Record, n)
	for i, at := range sent {
		request[i] = &b.Records[at]
	}
	l.mu.Lock()
	l.stats.Requests++
	l.mu.Unlock()
	got := make([]Verdict, n)
	t := l.Destination.Send(l.work, request, got)
	if t != nil && t.Split {
		if n > 1 {
			l.state.Lock()
			l.limit = n / 2
			l.state.Unlock()
			return left, nil
		}
		got[0] = Verdict{Fate: Dead, Reason: Reason(t.Err.Error())}
		t = nil
	}
	if err := l.bury(l.queue, request, got); err != nil {
		t = &Trouble{Class: "dead letters", Err: err, Slow: true}
	}
	var back []int
	now := time.Now().UnixNano()
	for i, v := range got {
		switch v.Fate {
		case Again:
			if t == nil {
				t = &Trouble{Class: fmt.Sprint("status ", v.Status), Err: reasonOf(v)}
			}
		case Blocked:
			t = &Trouble{Class: "blocked " + v.Reason, Err: reasonOf(v), Slow: true}
		default:
			if v.Fate == Delivered || v.Fate == Duplicate {
				l.engine.took(l.Name, time.Duration(max(now-b.Accepted[sent[i]], 0)))
			}
			verdicts[sent[i]] = v
			continue
		}
		back = append(back, sent[i])
	}
	l.mu.Lock()
	l.stats.Retries += uint64(len(back))
	l.mu.Unlock()
	l.state.Lock()
	l.failing = len(back) > 0
	if len(back) < n {
		l.failure = 0
	}
	if len(back) == 0 {
		l.limit = min(l.limit+l.limit/8+1, l.limits.Records)
	}
	l.state.Unlock()
	if len(back) == 0 {
		l.recovered(l.queue)
		return rest, nil
	}
	if l.work.Err() == nil { // else it is the end that the request was cut off by
		l.trouble(l.queue, t)
	}
	return append(back, rest...), t
}

// reasonOf is what a receiver said about a record.
func reasonOf(v Verdict) error {
	switch {
	case v.Status == 0:
		return errors.New(v.Reason)
	case v.Reason == "":
		return fmt.Errorf("status %d", v.Status)
	}
	return fmt.Errorf("status %d: %s", v.Status, v.Reason)
}
