package pipeline

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
)

// Time and frames between two ticks of a replay, whichever comes first. At a
// tick flows expire and records are put in order, so that the one bounds how
// late and the other how many they can be. Both are told from the packets
// alone: the ticks are the same in every run.
const (
	tickTime   = int64(100e6)
	tickFrames = 8192
)

// ticker knows when a tick is due.
type ticker struct {
	now    int64 // the flow time so far
	next   int64
	frames int
}

// due takes the flow time of the next frame, and reports whether a tick comes
// before it.
func (t *ticker) due(clock int64) bool {
	t.frames++
	t.now = clock
	if t.now < t.next && t.frames < tickFrames {
		return false
	}
	first := t.next == 0
	t.next, t.frames = t.now+tickTime, 0
	return !first
}

// Replay reads a source until it ends. What comes out does not depend on the
// number of workers: a shard of flows sees the same packets and the same ticks
// whoever runs it, and the records of all shards are sorted between ticks. Nor
// does what comes out of one series of batches depend on the others: at its end
// all flows end, and all their records are written.
func (p *Pipeline) Replay(ctx context.Context, source capture.Source) error {
	n := min(max(p.config.Workers, 1), decode.Shards)
	workers := make([]*worker, n)
	for i := range workers {
		workers[i] = p.newWorker(n, p.config.KeysLater)
		workers[i].shards = decode.Shards - 1
	}
	for s := range decode.Shards {
		w := workers[s%n]
		w.track(s, flow.NewTracker(w.parser, p.config.Limits.Share(decode.Shards)))
	}
	pieces := p.keepers(workers, n > 1)
	var err error
	if n == 1 {
		err = p.replayAlone(ctx, source, workers[0])
	} else {
		err = p.replayDispatched(ctx, source, workers, pieces)
	}
	p.total = p.dispatched
	for _, w := range workers {
		p.total.add(w.counters())
	}
	return errors.Join(err, p.stats(p.Counters(source.Stats())))
}

// replayAlone runs the only worker on this goroutine: there is nothing to dispatch.
func (p *Pipeline) replayAlone(ctx context.Context, source capture.Source, w *worker) error {
	q := newQueues(true)
	var tick ticker
	series := 0
	return p.stages(ctx, source, []queues{q}, func(batch *capture.Batch, count bool) {
		if batch.Series != series {
			series, tick = batch.Series, ticker{}
			w.finishSeries(&q)
		}
		if count {
			w.now.counted = w.counters()
		}
		if len(batch.Frames) == 0 {
			w.pause()
			w.hand(&q)
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if tick.due(f.Clock) {
				w.flush(batch.Origin)
				w.tick(tick.now)
				w.hand(&q)
			}
			w.frame(f, batch.Origin)
		}
		w.flush(batch.Origin)
		batch.Release()
	}, func() {
		w.finishSeries(&q)
		close(q.intervals)
	})
}

// stages reads on one goroutine, has take take each batch on this one, and orders on
// a third what the workers put into their queues. count says that the counters so far
// are to go with the batch. end ends the workers when there are no more batches.
func (p *Pipeline) stages(ctx context.Context, source capture.Source, all []queues, take func(batch *capture.Batch, count bool), end func()) error {
	failed := make(chan error, 1)
	ordered := make(chan error, 1)
	follow := p.follow(source, len(all))
	go func() { ordered <- p.collect(all, failed, follow) }()

	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, unread := read(reading, source)
	counting := p.follow(source, 0)
	for batch := range batches {
		if len(failed) > 0 {
			cancel()
			batch.Release()
			continue
		}
		p.see(batch)
		take(batch, counting != nil && counting.due())
	}
	end()
	return errors.Join(*unread, <-ordered, stopped(ctx))
}

// read reads a source on a goroutine of its own until it ends or ctx is done. The
// error is that for which the rest was not read; it may be looked at when the
// channel is closed.
func read(ctx context.Context, source capture.Source) (<-chan *capture.Batch, *error) {
	batches := make(chan *capture.Batch, inFlight)
	unread := new(error)
	go func() {
		defer close(batches)
		for ctx.Err() == nil {
			batch, err := source.Next()
			if err != nil {
				if err != io.EOF {
					*unread = err
				}
				return
			}
			batches <- batch
		}
	}()
	return batches, unread
}

// work is what one worker has to do of one batch.
type work struct {
	batch   *refs
	list    []uint32        // in the order of the frames: numbers of frames, or decoded and a number of packets
	packets []decode.Packet // that the dispatcher had to decode
	ticks   []deadline
	fresh   bool      // the batch begins another series
	idle    bool      // there is no batch: nothing has come for a while
	counted *counters // what the dispatcher has counted so far, for the first worker; nil except from time to time
}

// decoded marks the number of a packet in work.list.
const decoded = 1 << 31

// deadline is a tick that comes before the frame or packet at work.list[at].
type deadline struct {
	at  int
	now int64
}

// refs counts the workers that still use a batch.
type refs struct {
	batch *capture.Batch
	users atomic.Int32
}

func (r *refs) release() {
	if r.users.Add(-1) == 0 {
		r.batch.Release()
	}
}

// inFlight is how many batches may wait for a worker.
const inFlight = 2

// queues connect the dispatcher, a worker and the stage that orders.
type queues struct {
	work      chan *work // to the worker
	done      chan *work // and back
	intervals chan *interval
	written   chan *interval // back to the worker
	first     bool
}

func newQueues(first bool) queues {
	return queues{
		work:      make(chan *work, inFlight),
		done:      make(chan *work, inFlight+1),
		intervals: make(chan *interval, inFlight),
		written:   make(chan *interval, 2*inFlight),
		first:     first,
	}
}

// replayDispatched dispatches the frames to the workers, which run on goroutines of
// their own.
func (p *Pipeline) replayDispatched(ctx context.Context, source capture.Source, workers []*worker, pieces *frames.Part) error {
	all := make([]queues, len(workers))
	for i, w := range workers {
		all[i] = newQueues(i == 0)
		go w.run(&all[i])
	}
	d := dispatcher{queues: all, work: make([]*work, len(all)), wants: workers[0].wants, pieces: pieces}
	d.decoder.VLANs = p.config.VLANs
	err := p.stages(ctx, source, all, func(batch *capture.Batch, count bool) {
		d.counted = nil
		if count {
			d.counted = d.counters()
		}
		d.dispatch(batch)
	}, func() {
		for i := range all {
			close(all[i].work)
		}
	})
	p.dispatched = *d.counters()
	return err
}

// dispatcher gives each worker its share of the frames. It looks no deeper into
// them than it must: the worker that gets a frame decodes it.
type dispatcher struct {
	decoder decode.Decoder
	packet  decode.Packet
	tick    ticker
	series  int
	counted *counters // to go with the batch
	queues  []queues
	work    []*work // of the current batch, one for each worker
	wants   func(*decode.Packet) bool
	pieces  *frames.Part // where the fragments are kept; nil where no frames are
}

func (d *dispatcher) counters() *counters {
	return &counters{decoded: d.decoder.Decoded(), weirds: d.decoder.Weirds(), unread: d.decoder.Unread(), messages: d.decoder.Messages(), remembered: d.decoder.Remembered(), fragments: d.decoder.Fragments()}
}

func (d *dispatcher) dispatch(batch *capture.Batch) {
	r := &refs{batch: batch}
	r.users.Store(int32(len(d.queues)))
	fresh := batch.Series != d.series
	if fresh {
		d.series = batch.Series
		d.tick = ticker{}
		d.decoder.Reset()
	}
	for i := range d.work {
		select {
		case d.work[i] = <-d.queues[i].done:
		default:
			d.work[i] = new(work)
		}
		k := d.work[i]
		k.batch, k.fresh, k.idle, k.counted = r, fresh, len(batch.Frames) == 0, d.counted
	}
	p := &d.packet
	for i := range batch.Frames {
		f := &batch.Frames[i]
		if d.tick.due(f.Clock) {
			for _, k := range d.work {
				k.ticks = append(k.ticks, deadline{len(k.list), d.tick.now})
			}
		}
		if idle, ok := d.decoder.Deal(f, p); idle {
			continue
		} else if ok {
			k := d.work[int(p.Shard)%len(d.work)]
			k.list = append(k.list, uint32(i))
			continue
		}
		if d.pieces != nil {
			d.keep(f, batch.Origin)
			continue
		}
		for ok := d.decoder.Decode(f, p) <= decode.Datagram; ok; ok = d.decoder.Next(p) {
			if d.wants(p) {
				d.give(p)
			}
		}
	}
	for i, k := range d.work {
		d.queues[i].work <- k
	}
}

// give gives p to its worker.
func (d *dispatcher) give(p *decode.Packet) {
	k := d.work[int(p.Shard)%len(d.work)]
	k.list = append(k.list, decoded|uint32(len(k.packets)))
	k.packets = append(k.packets, *p)
}

// run is the goroutine of a worker.
func (w *worker) run(q *queues) {
	defer close(q.intervals)
	for k := range q.work {
		if k.fresh {
			w.finishSeries(q)
		}
		if k.counted != nil {
			w.now.counted = w.counters()
			if q.first {
				w.now.counted.add(k.counted)
			}
		}
		if k.idle {
			w.pause()
			w.hand(q)
		}
		next := 0
		for _, d := range k.ticks {
			w.do(k, k.list[next:d.at])
			next = d.at
			w.tick(d.now)
			w.hand(q)
		}
		w.do(k, k.list[next:])
		k.batch.release()
		clear(k.packets)
		*k = work{list: k.list[:0], packets: k.packets[:0], ticks: k.ticks[:0]}
		select {
		case q.done <- k:
		default:
		}
	}
	w.finishSeries(q)
}

// hand hands the interval that has ended to the stage that orders.
func (w *worker) hand(q *queues) {
	q.intervals <- w.end()
	w.next(q.written)
}

// finishSeries ends all flows, and forgets the series.
func (w *worker) finishSeries(q *queues) {
	w.close()
	w.now.last = true
	w.hand(q)
	w.reset()
}

// do takes a part of k.list.
func (w *worker) do(k *work, part []uint32) {
	batch := k.batch.batch
	for _, n := range part {
		if n&decoded != 0 {
			w.packets[w.waiting] = k.packets[n&^decoded]
			w.take(batch.Origin)
		} else {
			w.frame(&batch.Frames[n], batch.Origin)
		}
	}
	w.flush(batch.Origin)
}

// collect brings the intervals of all workers into one order. After a failure it
// still takes them, so that no worker is left waiting.
func (p *Pipeline) collect(all []queues, failed chan<- error, follow *following) error {
	var order order
	var first error
	round := make([]*interval, len(all))
	for {
		open := false
		for i := range all {
			round[i] = <-all[i].intervals
			open = open || round[i] != nil
		}
		if !open {
			break
		}
		if first != nil {
			continue
		}
		idle := round[0].idle
		if follow != nil {
			for i, v := range round {
				if v.counted != nil {
					follow.counted[i] = v.counted
				}
			}
		}
		p.renew()
		written, err := order.add(p, round[0].now, round)
		switch {
		case err != nil:
		case round[0].last:
			err = order.flush(p)
		case idle:
			err = order.write(p)
		}
		if err == nil && follow != nil {
			err = follow.report(idle)
		}
		for i, v := range written {
			v.forget()
			select {
			case all[i].written <- v:
			default:
			}
		}
		if err != nil {
			first = err
			failed <- err
		}
	}
	return first
}

// order sorts the items of intervals. An item is written at the tick after the one
// that ended its interval, so that packets whose times go back a little do not
// put it before its time.
type order struct {
	until   int64       // the tick before
	pending []ranked    // in order
	last    []*interval // whose items may be pending
}

// add takes the intervals that now ended, one of each worker, and returns those
// that are not needed any more.
func (o *order) add(p *Pipeline, now int64, ended []*interval) (written []*interval, err error) {
	p.contacts(ended...)
	for _, v := range ended {
		o.pending = rank(o.pending, v)
	}
	slices.SortFunc(o.pending, compare)
	n := 0
	for n < len(o.pending) && o.pending[n].time <= o.until {
		n++
	}
	// The rest of the intervals before the last is due.
	for i := n; i < len(o.pending); i++ {
		if slices.Contains(o.last, o.pending[i].from) {
			n = i + 1
		}
	}
	for _, e := range o.pending[:n] {
		if err = p.write(e.item); err != nil {
			return nil, err
		}
	}
	kept := copy(o.pending, o.pending[n:])
	clear(o.pending[kept:])
	o.pending = o.pending[:kept]
	written, o.last, o.until = o.last, slices.Clone(ended), now
	return written, nil
}

// write writes what is left.
func (o *order) write(p *Pipeline) error {
	for _, e := range o.pending {
		if err := p.write(e.item); err != nil {
			return err
		}
	}
	clear(o.pending)
	o.pending = o.pending[:0]
	return nil
}

// flush ends a series.
func (o *order) flush(p *Pipeline) error {
	err := errors.Join(o.write(p), p.summarize(p.sequence.end()))
	p.told.Next()
	if p.judge != nil {
		p.judge.Next()
	}
	o.until = 0
	return err
}
