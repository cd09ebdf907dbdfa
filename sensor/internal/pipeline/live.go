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

// StatsInterval is the time between two stats records of a live capture, and
// WatchInterval that between two calls of Config.Watch, by the wall clock.
const (
	StatsInterval = 30 * time.Second
	WatchInterval = time.Second
)

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
	states := make([]liveState, len(sources))
	workers := make([]*worker, len(sources))
	for i := range workers {
		workers[i] = p.newWorker(len(sources), true)
	}
	p.keepers(workers, false)
	var running sync.WaitGroup
	for i, source := range sources {
		w := workers[i]
		w.parser.Prompt()
		limits := p.config.Limits.Share(len(sources))
		limits.Live = true
		w.track(0, flow.NewTracker(w.parser, limits))
		w.trackers[0].Shunter, _ = source.(capture.Shunter)
		states[i].alive.Store(time.Now().UnixNano())
		running.Go(func() {
			if err := w.live(ctx, source, intervals, written, &states[i]); err != nil {
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
		p.total, p.stalled, p.lag = counters{}, 0, 0
		now := time.Now().UnixNano()
		for i := range sources {
			source.Add(sources[i].Stats())
			if c := states[i].latest.Load(); c != nil {
				p.total.add(c)
			}
			p.stalled = max(p.stalled, time.Duration(now-states[i].alive.Load()))
			p.lag = max(p.lag, time.Duration(states[i].lag.Load()))
			p.packet = max(p.packet, states[i].packet.Load())
			if first := states[i].first.Load(); p.start == 0 || first != 0 && first < p.start {
				p.start = first
			}
		}
		source.Jumps = p.total.jumps
		return source
	}
	period := time.NewTicker(StatsInterval)
	defer period.Stop()
	watched := time.NewTicker(WatchInterval)
	defer watched.Stop()
	var errs error
	var list []ranked
	for open := true; open; {
		select {
		case v, ok := <-intervals:
			if open = ok; !ok {
				break
			}
			p.renew()
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
			v.forget()
			select {
			case written <- v:
			default:
			}
		case <-period.C:
			source := sum()
			_ = p.stats(p.Counters(source))
			if p.config.Idle != nil {
				p.config.Idle()
			}
		case <-watched.C:
			p.renew() // although nothing comes: the old rules are to be forgotten
			if p.config.Watch != nil {
				source := sum()
				p.config.Watch(p.Counters(source))
			}
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

// liveState is what others see of a live worker.
type liveState struct {
	latest atomic.Pointer[counters] // what it published last
	alive  atomic.Int64             // when it was done with a batch last, by the wall clock, in nanoseconds
	first  atomic.Int64             // time of the first packet; 0 before it
	packet atomic.Int64             // time of the last packet
	lag    atomic.Int64             // how old that packet was when its batch was done; 0 where the ring was empty
}

// done notes that frames were read by now.
func (s *liveState) done(now int64, frames []capture.Frame) {
	s.alive.Store(now)
	if len(frames) == 0 {
		s.lag.Store(0)
		return
	}
	if s.first.Load() == 0 {
		s.first.Store(frames[0].Time)
	}
	last := frames[len(frames)-1].Time
	s.packet.Store(last)
	s.lag.Store(now - last)
}

// live reads one source until it ends.
func (w *worker) live(ctx context.Context, source capture.Source, intervals chan<- *interval, written <-chan *interval, state *liveState) error {
	var now, next, handed, published int64
	var clock capture.Clock
	since := time.Now() // of the last batch
	finish := func() {
		if len(w.now.items)+len(w.now.contacts) == 0 {
			return
		}
		w.now.now = now
		intervals <- w.end()
		w.next(written)
	}
	defer func() {
		w.close()
		finish()
		state.latest.Store(w.counters())
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
		state.done(since.UnixNano(), batch.Frames)
		w.jumps = clock.Jumps()
		batch.Release()
		if now >= next || len(w.now.items) > 0 && (len(batch.Frames) == 0 || now >= handed+handLive) {
			w.tick(now)
			next, handed = now+tickLive, now
			finish()
		}
		if now-published >= publishLive {
			published = now
			state.latest.Store(w.counters())
		}
	}
}
