package pipeline

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// Time and frames between two ticks of a replay, whichever comes first. At a
// tick flows expire and records are put in order, so that the one bounds how
// late and the other how many they can be. Both are told from the packets
// alone: the ticks are the same in every run.
const (
	tickTime   = int64(100e6)
	tickFrames = 8192
)

// ticker says when a tick is due.
type ticker struct {
	now    int64 // the flow time so far
	next   int64
	frames int
}

// due takes the flow time of the next frame, and says whether a tick comes
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

// Replay reads a source to its end. What comes out does not depend on the
// number of workers: a shard of flows sees the same packets and the same ticks
// whoever runs it, and the records of all shards are sorted between ticks. Nor
// does what comes out of one series of batches depend on the others: at its end
// all flows end, and all their records are written.
func (p *Pipeline) Replay(ctx context.Context, source capture.Source) error {
	n := min(max(p.config.Workers, 1), flow.Shards)
	workers := make([]*worker, n)
	for i := range workers {
		workers[i] = newWorker(&p.config, n, p.config.KeysLater, p.failed)
		workers[i].shards = flow.Shards - 1
	}
	for s := range flow.Shards {
		w := workers[s%n]
		w.trackers[s] = flow.NewTracker(w.parser, p.config.Limits.Share(flow.Shards))
	}
	var err error
	if n == 1 {
		err = p.replayAlone(ctx, source, workers[0])
	} else {
		err = p.replayDealt(ctx, source, workers)
	}
	p.total = p.dealt
	for _, w := range workers {
		p.total.add(w.counters())
	}
	return errors.Join(err, p.stats(p.Counters(source.Stats())))
}

// replayAlone runs it all on one goroutine.
func (p *Pipeline) replayAlone(ctx context.Context, source capture.Source, w *worker) error {
	var tick ticker
	var order order
	idle := new(epoch)
	round := func() error {
		done := w.now
		w.again(idle)
		var err error
		idle, err = order.add(p, done.now, done)
		return err
	}
	follow := p.follow(source, 1)
	series := 0
	end := func() error {
		w.close()
		if err := round(); err != nil {
			return err
		}
		if err := order.flush(p); err != nil {
			return err
		}
		w.reset()
		tick = ticker{}
		return nil
	}
	for {
		batch, err := source.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		p.see(batch)
		if batch.Series != series {
			if err := end(); err != nil {
				return err
			}
			series = batch.Series
		}
		if follow != nil {
			if len(batch.Frames) == 0 {
				w.pause()
				if err := round(); err != nil {
					return err
				}
				if err := order.write(p); err != nil {
					return err
				}
			}
			if follow.due() {
				follow.counted[0] = w.counters()
			}
			if err := follow.report(len(batch.Frames) == 0); err != nil {
				return err
			}
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if tick.due(f.Clock) {
				w.flush(batch.Origin)
				w.tick(tick.now)
				if err := round(); err != nil {
					return err
				}
			}
			w.frame(f, batch.Origin)
		}
		w.flush(batch.Origin)
		batch.Release()
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(end(), stopped(ctx))
}

// hand is what one worker has to do of one batch.
type hand struct {
	share   *share
	work    []uint32      // in the order of the frames: numbers of frames, or decoded and a number of packets
	packets []flow.Packet // that the dealer had to decode
	ticks   []deadline
	fresh   bool      // the batch begins another series
	idle    bool      // there is no batch: nothing has come for a while
	counted *counters // what the dealer has counted so far, for the first worker; nil but from time to time
}

// decoded marks the number of a packet in hand.work.
const decoded = 1 << 31

// deadline is a tick that comes before the work at.
type deadline struct {
	at  int
	now int64
}

// share counts the workers that still use a batch.
type share struct {
	batch *capture.Batch
	users atomic.Int32
}

func (s *share) release() {
	if s.users.Add(-1) == 0 {
		s.batch.Release()
	}
}

// handsInFlight is how many batches may wait for a worker.
const handsInFlight = 2

// lane connects the dealer, a worker and the stage that orders.
type lane struct {
	hands  chan *hand // to the worker
	spent  chan *hand // and back
	epochs chan *epoch
	idle   chan *epoch // back to the worker
	first  bool
}

// replayDealt reads on one goroutine, deals the frames to the workers on this
// one, and orders on a third.
func (p *Pipeline) replayDealt(ctx context.Context, source capture.Source, workers []*worker) error {
	lanes := make([]lane, len(workers))
	for i, w := range workers {
		lanes[i] = lane{
			hands:  make(chan *hand, handsInFlight),
			spent:  make(chan *hand, handsInFlight+1),
			epochs: make(chan *epoch, handsInFlight),
			idle:   make(chan *epoch, 2*handsInFlight),
			first:  i == 0,
		}
		go w.run(&lanes[i])
	}
	failed := make(chan error, 1)
	ordered := make(chan error, 1)
	follow := p.follow(source, len(lanes))
	go func() { ordered <- p.collect(lanes, failed, follow) }()

	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan *capture.Batch, handsInFlight)
	var unread error // why the rest was not read; set when batches is closed
	go func() {
		defer close(batches)
		for reading.Err() == nil {
			batch, err := source.Next()
			if err != nil {
				if err != io.EOF {
					unread = err
				}
				return
			}
			batches <- batch
		}
	}()
	dealer := dealer{lanes: lanes, hands: make([]*hand, len(lanes)), wants: workers[0].wants}
	dealer.decoder.VLANs = p.config.VLANs
	counting := p.follow(source, 0)
	for batch := range batches {
		if len(failed) > 0 {
			cancel()
			batch.Release()
			continue
		}
		p.see(batch)
		dealer.counted = nil
		if counting != nil && counting.due() {
			dealer.counted = dealer.counters()
		}
		dealer.deal(batch)
	}
	for i := range lanes {
		close(lanes[i].hands)
	}
	err := errors.Join(unread, <-ordered, stopped(ctx))
	p.dealt = *dealer.counters()
	return err
}

// dealer gives each worker its share of the frames. It looks no deeper into
// them than it must: the worker whose frame it is decodes it.
type dealer struct {
	decoder flow.Decoder
	packet  flow.Packet
	tick    ticker
	series  int
	counted *counters // to go with the batch
	lanes   []lane
	hands   []*hand // of the batch at hand, one a lane
	wants   func(*flow.Packet) bool
}

func (d *dealer) counters() *counters {
	return &counters{decoded: d.decoder.Decoded(), unread: d.decoder.Unread(), messages: d.decoder.Messages(), fragments: d.decoder.Fragments()}
}

func (d *dealer) deal(batch *capture.Batch) {
	s := &share{batch: batch}
	s.users.Store(int32(len(d.lanes)))
	fresh := batch.Series != d.series
	if fresh {
		d.series = batch.Series
		d.tick = ticker{}
		d.decoder.Reset()
	}
	for i := range d.hands {
		select {
		case d.hands[i] = <-d.lanes[i].spent:
		default:
			d.hands[i] = new(hand)
		}
		h := d.hands[i]
		h.share, h.fresh, h.idle, h.counted = s, fresh, len(batch.Frames) == 0, d.counted
	}
	p := &d.packet
	for i := range batch.Frames {
		f := &batch.Frames[i]
		if d.tick.due(f.Clock) {
			for _, h := range d.hands {
				h.ticks = append(h.ticks, deadline{len(h.work), d.tick.now})
			}
		}
		if idle, ok := d.decoder.Deal(f, p); idle {
			continue
		} else if ok {
			h := d.hands[int(p.Shard)%len(d.hands)]
			h.work = append(h.work, uint32(i))
			continue
		}
		for ok := d.decoder.Decode(f, p) <= flow.Datagram; ok; ok = d.decoder.Next(p) {
			if d.wants(p) {
				h := d.hands[int(p.Shard)%len(d.hands)]
				h.work = append(h.work, decoded|uint32(len(h.packets)))
				h.packets = append(h.packets, *p)
			}
		}
	}
	for i, h := range d.hands {
		d.lanes[i].hands <- h
	}
}

// run is the goroutine of a worker.
func (w *worker) run(l *lane) {
	defer close(l.epochs)
	end := func() {
		l.epochs <- w.now
		w.renew(l.idle)
	}
	finish := func() {
		w.close()
		w.now.last = true
		end()
		w.reset()
	}
	for h := range l.hands {
		if h.fresh {
			finish()
		}
		if h.counted != nil {
			w.now.counted = w.counters()
			if l.first {
				w.now.counted.add(h.counted)
			}
		}
		if h.idle {
			w.pause()
			end()
		}
		next := 0
		for _, d := range h.ticks {
			w.work(h, h.work[next:d.at])
			next = d.at
			w.tick(d.now)
			end()
		}
		w.work(h, h.work[next:])
		h.share.release()
		clear(h.packets)
		*h = hand{work: h.work[:0], packets: h.packets[:0], ticks: h.ticks[:0]}
		select {
		case l.spent <- h:
		default:
		}
	}
	finish()
}

// work does a part of h.work.
func (w *worker) work(h *hand, part []uint32) {
	batch := h.share.batch
	for _, n := range part {
		if n&decoded != 0 {
			w.packets[w.waiting] = h.packets[n&^decoded]
			w.take(batch.Origin)
		} else {
			w.frame(&batch.Frames[n], batch.Origin)
		}
	}
	w.flush(batch.Origin)
}

// collect brings the epochs of all workers into one order. After a failure it
// drains them, so that no worker is left waiting.
func (p *Pipeline) collect(lanes []lane, failed chan<- error, follow *following) error {
	var order order
	var first error
	round := make([]*epoch, len(lanes))
	for {
		open := false
		for i := range lanes {
			round[i] = <-lanes[i].epochs
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
			for i, e := range round {
				if e.counted != nil {
					follow.counted[i] = e.counted
				}
			}
		}
		spent, err := order.addAll(p, round[0].now, round)
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
		for i, e := range spent {
			select {
			case lanes[i].idle <- e:
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

// order sorts the items of epochs. An item is written at the tick after the
// one that ended its epoch, so that packets whose times go back a little do not
// put it before its time.
type order struct {
	until   int64 // the tick before
	pending []item
	last    []*epoch // whose items may be pending
}

// add takes the one epoch that now ended, and returns one to use again.
func (o *order) add(p *Pipeline, now int64, e *epoch) (*epoch, error) {
	spent, err := o.addAll(p, now, []*epoch{e})
	if len(spent) == 0 {
		return new(epoch), err
	}
	return spent[0], err
}

// addAll takes the epochs that now ended, one of each worker, and returns those
// that are not needed any more.
func (o *order) addAll(p *Pipeline, now int64, epochs []*epoch) (spent []*epoch, err error) {
	for _, e := range epochs {
		o.pending = append(o.pending, e.items...)
	}
	slices.SortFunc(o.pending, compare)
	n := 0
	for n < len(o.pending) && o.pending[n].h.End.Time <= o.until {
		n++
	}
	// Whatever an epoch before the last still has is due.
	for i := n; i < len(o.pending); i++ {
		if slices.Contains(o.last, o.pending[i].from) {
			n = i + 1
		}
	}
	for i := range o.pending[:n] {
		if err = p.write(&o.pending[i]); err != nil {
			return nil, err
		}
	}
	kept := copy(o.pending, o.pending[n:])
	clear(o.pending[kept:])
	o.pending = o.pending[:kept]
	spent, o.last, o.until = o.last, slices.Clone(epochs), now
	return spent, nil
}

// write writes what is left.
func (o *order) write(p *Pipeline) error {
	for i := range o.pending {
		if err := p.write(&o.pending[i]); err != nil {
			return err
		}
	}
	clear(o.pending)
	o.pending = o.pending[:0]
	return nil
}

// flush ends a series.
func (o *order) flush(p *Pipeline) error {
	err := o.write(p)
	p.inventory.Renew()
	o.until = 0
	return err
}
