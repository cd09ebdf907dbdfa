package pipeline

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// StatsInterval is the time between two stats records of a live capture.
const StatsInterval = 30 * time.Second

// tickLive is the packet time between two ticks of a live worker.
const tickLive = int64(100e6)

// handLive is the packet time for which what was found waits for more, while
// packets come: each time it is handed over, another goroutine wakes.
const handLive = int64(20e6)

// publishLive is the packet time between two publications of a live worker's
// counters.
const publishLive = int64(1e9)

// Live runs one worker for each source until ctx ends or a source fails, and then
// takes what the sources have captured until then. The workers share nothing: the
// kernel has divided the flows among them.
func (p *Pipeline) Live(ctx context.Context, sources []capture.Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	intervals := make(chan *interval, 4*len(sources))
	written := make(chan *interval, 8*len(sources))
	latest := make([]atomic.Pointer[counters], len(sources))
	var running sync.WaitGroup
	for i, source := range sources {
		w := newWorker(&p.config, len(sources), true, p.failed)
		w.parser.Prompt()
		limits := p.config.Limits.Share(len(sources))
		limits.Live = true
		w.track(0, flow.NewTracker(w.parser, limits))
		w.trackers[0].Shunter, _ = source.(capture.Shunter)
		running.Go(func() {
			if err := w.live(ctx, source, intervals, written, &latest[i]); err != nil {
				cancel(err)
			}
		})
	}
	go func() {
		running.Wait()
		close(intervals)
	}()

	// sum adds what the workers published last.
	sum := func() (source capture.Stats) {
		p.total = counters{}
		for i := range sources {
			source.Add(sources[i].Stats())
			if c := latest[i].Load(); c != nil {
				p.total.add(c)
			}
		}
		source.Jumps = p.total.jumps
		return source
	}
	period := time.NewTicker(StatsInterval)
	defer period.Stop()
	var errs error
	var list []ranked
	for open := true; open; {
		select {
		case v, ok := <-intervals:
			if open = ok; !ok {
				break
			}
			p.contacts(v)
			list = rank(list[:0], v)
			slices.SortFunc(list, compare)
			for _, e := range list {
				// A live sensor goes on: a record that no output took is counted.
				_ = p.write(e.item)
			}
			p.advance(v.now)
			_ = p.summarize(p.sequence.due(p.end))
			if p.config.Idle != nil && len(intervals) == 0 {
				p.config.Idle()
			}
			select {
			case written <- v:
			default:
			}
		case <-period.C:
			source := sum()
			_ = p.stats(p.Counters(source))
		}
	}
	_ = p.summarize(p.sequence.end())
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		errs = err
	}
	return errors.Join(errs, p.stats(p.Counters(sum())))
}

// advance notes the packet time up to which records are complete.
func (p *Pipeline) advance(now int64) {
	if p.start == 0 {
		p.start = now
	}
	p.end = max(p.end, now)
}

// live reads one source until it ends.
func (w *worker) live(ctx context.Context, source capture.Source, intervals chan<- *interval, written <-chan *interval, latest *atomic.Pointer[counters]) error {
	var now, next, handed, published int64
	var clock capture.Clock
	since := time.Now() // of the last batch
	finish := func() {
		if len(w.now.items)+len(w.now.contacts) == 0 {
			return
		}
		w.now.now = now
		intervals <- w.now
		w.next(written)
	}
	defer func() {
		w.close()
		finish()
		latest.Store(w.counters())
	}()
	for stopped := false; ; {
		if ctx.Err() != nil && !stopped {
			stopper, ok := source.(capture.Stopper)
			if !ok {
				return nil
			}
			stopper.Stop()
			stopped = true
		}
		batch, err := source.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			now, _ = clock.See(0, f.Time)
			f.Clock = now
			w.frame(f, batch.Origin)
		}
		w.flush(batch.Origin)
		if len(batch.Frames) == 0 {
			// The ring was empty: the machine's clock stands in for packets.
			now = clock.Pass(int64(time.Since(since)))
		}
		since = time.Now()
		w.jumps = clock.Jumps()
		batch.Release()
		if now >= next || len(w.now.items) > 0 && (len(batch.Frames) == 0 || now >= handed+handLive) {
			w.tick(now)
			next, handed = now+tickLive, now
			finish()
		}
		if now-published >= publishLive {
			published = now
			latest.Store(w.counters())
		}
	}
}
