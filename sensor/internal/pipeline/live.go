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

// publishLive is the packet time between two publications of a live worker's
// counters.
const publishLive = int64(1e9)

// Live runs one worker for each source until ctx ends or a source fails, and
// then what the sources have captured until then. The workers share nothing: the
// kernel has dealt the flows.
func (p *Pipeline) Live(ctx context.Context, sources []capture.Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	epochs := make(chan *epoch, 4*len(sources))
	idle := make(chan *epoch, 8*len(sources))
	latest := make([]atomic.Pointer[counters], len(sources))
	var running sync.WaitGroup
	for i, source := range sources {
		w := newWorker(&p.config, len(sources), true, p.failed)
		limits := p.config.Limits.Share(len(sources))
		limits.Live = true
		w.trackers[0] = flow.NewTracker(w.parser, limits)
		w.trackers[0].Shunter, _ = source.(capture.Shunter)
		running.Go(func() {
			if err := w.live(ctx, source, epochs, idle, &latest[i]); err != nil {
				cancel(err)
			}
		})
	}
	go func() {
		running.Wait()
		close(epochs)
	}()

	// counters sums what the workers published last.
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
	for open := true; open; {
		select {
		case e, ok := <-epochs:
			if open = ok; !ok {
				break
			}
			slices.SortFunc(e.items, compare)
			for i := range e.items {
				// A live sensor goes on: a record that no output took is counted.
				_ = p.write(&e.items[i])
			}
			p.advance(e.now)
			if p.config.Idle != nil && len(epochs) == 0 {
				p.config.Idle()
			}
			select {
			case idle <- e:
			default:
			}
		case <-period.C:
			source := sum()
			_ = p.stats(p.Counters(source))
		}
	}
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

// live runs one source to its end.
func (w *worker) live(ctx context.Context, source capture.Source, epochs chan<- *epoch, idle <-chan *epoch, latest *atomic.Pointer[counters]) error {
	var now, next, published int64
	var clock capture.Clock
	since := time.Now() // of the last batch
	hand := func() {
		if len(w.now.items) == 0 {
			return
		}
		w.now.now = now
		epochs <- w.now
		w.renew(idle)
	}
	defer func() {
		w.close()
		hand()
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
		if now >= next || len(w.now.items) > 0 {
			w.tick(now)
			next = now + tickLive
			hand()
		}
		if now-published >= publishLive {
			published = now
			latest.Store(w.counters())
		}
	}
}
