package pipeline

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// Time and frames between two ticks of a replay, whichever comes first. At a
// tick flows expire and records are put in order, so that the one bounds how
// late and the other how many they can be. Both are told from the packets
// alone: the ticks are the same in every run.
const (
	tickTime   = int64(100e6)
	tickFrames = 16384
)

// ticker says when a tick is due.
type ticker struct {
	now    int64 // the highest packet time so far
	next   int64
	frames int
}

// due takes the time of the next frame, and says whether a tick comes before it.
func (t *ticker) due(time int64) bool {
	t.frames++
	if time > t.now {
		t.now = time
	}
	if t.now < t.next && t.frames < tickFrames {
		return false
	}
	first := t.next == 0
	t.next, t.frames = t.now+tickTime, 0
	return !first
}

// Replay reads a source to its end. What comes out does not depend on the
// number of workers: a shard of flows sees the same packets and the same ticks
// whoever runs it, and the records of all shards are sorted between ticks.
func (p *Pipeline) Replay(ctx context.Context, source capture.Source) error {
	n := min(max(p.config.Workers, 1), flow.Shards)
	var decoder flow.Decoder
	workers := make([]*worker, n)
	for i := range workers {
		workers[i] = newWorker(&p.config, false)
	}
	for s := range flow.Shards {
		w := workers[s%n]
		w.trackers[s] = w.tracker(p.config.Limits.Share(flow.Shards))
	}
	var err error
	if n == 1 {
		err = p.replayAlone(ctx, source, &decoder, workers[0])
	} else {
		err = p.replayDealt(ctx, source, &decoder, workers)
	}
	p.total.decoded, p.total.fragments = decoder.Decoded(), decoder.Fragments()
	for _, w := range workers {
		p.total.add(w.counters())
	}
	return errors.Join(err, p.stats(p.Counters(source.Stats())))
}

// replayAlone runs it all on one goroutine.
func (p *Pipeline) replayAlone(ctx context.Context, source capture.Source, decoder *flow.Decoder, w *worker) error {
	var tick ticker
	var packet flow.Packet
	var order order
	idle := new(epoch)
	round := func() error {
		done := w.now
		w.now = idle
		var err error
		idle, err = order.add(p, done.now, done)
		return err
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
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if tick.due(f.Time) {
				w.tick(tick.now)
				if err := round(); err != nil {
					return err
				}
			}
			for ok := decoder.Decode(f, &packet) <= flow.Datagram; ok; ok = decoder.Next(&packet) {
				w.trackers[packet.Shard].Packet(&packet, batch.Origin)
			}
		}
		batch.Release()
		if ctx.Err() != nil {
			break
		}
	}
	w.close()
	if err := round(); err != nil {
		return err
	}
	return errors.Join(order.flush(p), stopped(ctx))
}

// hand is the packets of one batch for one worker.
type hand struct {
	share   *share
	packets []flow.Packet
	ticks   []deadline
}

// deadline is a tick that comes before the packet at.
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
const handsInFlight = 4

// lane connects the dealer, a worker and the stage that orders.
type lane struct {
	hands  chan *hand // to the worker
	spent  chan *hand // and back
	epochs chan *epoch
	idle   chan *epoch // back to the worker
}

// replayDealt decodes on this goroutine, deals the packets to the workers by
// their shard, a whole batch at a time, and orders on a goroutine of its own.
func (p *Pipeline) replayDealt(ctx context.Context, source capture.Source, decoder *flow.Decoder, workers []*worker) error {
	lanes := make([]lane, len(workers))
	for i, w := range workers {
		lanes[i] = lane{
			hands:  make(chan *hand, handsInFlight),
			spent:  make(chan *hand, handsInFlight+1),
			epochs: make(chan *epoch, handsInFlight),
			idle:   make(chan *epoch, 2*handsInFlight),
		}
		go w.run(&lanes[i])
	}
	failed := make(chan error, 1)
	ordered := make(chan error, 1)
	go func() { ordered <- p.collect(lanes, failed) }()

	err := p.deal(ctx, source, decoder, lanes, failed)
	for i := range lanes {
		close(lanes[i].hands)
	}
	return errors.Join(err, <-ordered, stopped(ctx))
}

// deal reads and decodes until the end of the source, or until ordering failed.
func (p *Pipeline) deal(ctx context.Context, source capture.Source, decoder *flow.Decoder, lanes []lane, failed <-chan error) error {
	var tick ticker
	hands := make([]*hand, len(lanes))
	var packet flow.Packet
	for ctx.Err() == nil && len(failed) == 0 {
		batch, err := source.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p.see(batch)
		s := &share{batch: batch}
		s.users.Store(int32(len(lanes)))
		for i := range hands {
			select {
			case hands[i] = <-lanes[i].spent:
			default:
				hands[i] = new(hand)
			}
			hands[i].share = s
		}
		for i := range batch.Frames {
			f := &batch.Frames[i]
			if tick.due(f.Time) {
				for _, h := range hands {
					h.ticks = append(h.ticks, deadline{len(h.packets), tick.now})
				}
			}
			for ok := decoder.Decode(f, &packet) <= flow.Datagram; ok; ok = decoder.Next(&packet) {
				h := hands[int(packet.Shard)%len(hands)]
				h.packets = append(h.packets, packet)
			}
		}
		for i, h := range hands {
			lanes[i].hands <- h
		}
	}
	return nil
}

// run is the goroutine of a worker.
func (w *worker) run(l *lane) {
	defer close(l.epochs)
	end := func() {
		l.epochs <- w.now
		select {
		case w.now = <-l.idle:
		default:
			w.now = new(epoch)
		}
	}
	for h := range l.hands {
		next := 0
		for _, d := range h.ticks {
			w.packets(h.packets[next:d.at], h.share.batch.Origin)
			next = d.at
			w.tick(d.now)
			end()
		}
		w.packets(h.packets[next:], h.share.batch.Origin)
		h.share.release()
		clear(h.packets)
		h.packets, h.ticks, h.share = h.packets[:0], h.ticks[:0], nil
		select {
		case l.spent <- h:
		default:
		}
	}
	w.close()
	end()
}

func (w *worker) packets(packets []flow.Packet, origin *parsers.Origin) {
	for i := range packets {
		w.trackers[packets[i].Shard].Packet(&packets[i], origin)
	}
}

// collect brings the epochs of all workers into one order. After a failure it
// drains them, so that no worker is left waiting.
func (p *Pipeline) collect(lanes []lane, failed chan<- error) error {
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
		var now int64
		for _, e := range round {
			now = max(now, e.now)
		}
		spent, err := order.addAll(p, now, round)
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
	if first != nil {
		return first
	}
	return order.flush(p)
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
	for _, e := range spent {
		e.reset()
	}
	return spent, nil
}

// flush writes what is left.
func (o *order) flush(p *Pipeline) error {
	for i := range o.pending {
		if err := p.write(&o.pending[i]); err != nil {
			return err
		}
	}
	o.pending = nil
	return nil
}
