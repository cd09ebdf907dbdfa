package frames

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Options are how frames are read. They have to be those of the sensor that has found
// the flows.
type Options struct {
	VLANs []uint16 // see [decode.Decoder]
}

// Stats counts what a search has found.
type Stats struct {
	Frames  uint64 // that were found
	Bytes   uint64 // captured, of these
	GivenUp uint64 // fragments that were not looked at further, to make room: some may be wanted
}

// A Matcher says which packets are wanted, and for what. Packets come in the order of
// capture, each with its key. It is for one goroutine.
type Matcher interface {
	// Match appends to of the numbers of those who want p, none of them twice.
	Match(p *decode.Packet, batch *capture.Batch, of []int) []int
}

// Cut reads a source to its end and passes on the frames of flows, in the order of
// capture: each frame once, with the numbers of all flows that it is of, in rising
// order. of is lent until the call returns. An error that each returns ends the search
// and is returned. What could not be read counts in the statistics of the source.
func Cut(ctx context.Context, source capture.Source, flows []Flow, o Options, each func(f *Frame, of []int) error) (Stats, error) {
	t := newTable(flows)
	return cutWhere(ctx, source, t, t, o, each)
}

// CutWhere is Cut for the packets that m wants.
func CutWhere(ctx context.Context, source capture.Source, m Matcher, o Options, each func(f *Frame, of []int) error) (Stats, error) {
	return cutWhere(ctx, source, m, nil, o, each)
}

func cutWhere(ctx context.Context, source capture.Source, m Matcher, t *table, o Options, each func(f *Frame, of []int) error) (Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan *capture.Batch, inFlight)
	var unread error
	go func() {
		defer close(batches)
		for ctx.Err() == nil {
			b, err := source.Next()
			if err != nil {
				if err != io.EOF {
					unread = err
				}
				return
			}
			batches <- b
		}
	}()
	s := newSearch(m, t, o, each)
	var err error
	for b := range batches {
		if err == nil {
			if err = s.Batch(b); err != nil {
				cancel()
			}
		}
		b.Release()
	}
	if err == nil {
		err = errors.Join(unread, context.Cause(ctx))
	}
	return s.Stats(), errors.Join(err, s.Flush())
}

// inFlight is how many batches are read ahead.
const inFlight = 2

// Search finds frames in batches that somebody else reads. It is for one goroutine.
//
// A fragment says only when its datagram is whole whether it is wanted. Until then it
// waits, and what was found behind it waits too, so that frames are passed on in their
// order.
type Search struct {
	decoder decode.Decoder
	packet  decode.Packet
	matcher Matcher
	table   *table // the matcher, where it is one
	each    func(*Frame, []int) error
	series  int
	of      []int // of the frame at hand
	some    []int // of a packet in it
	stats   Stats
	err     error // that each has returned

	queue     []*entry             // the first of them waits for a datagram
	bytes     int                  // what the queue takes
	datagrams map[uint64]*datagram // by their ids
	ages      []*datagram          // and those without one, the oldest first
}

// entry is a frame in the queue.
type entry struct {
	frame Frame
	of    []int
	waits int // for so many datagrams
	cost  int // of the bytes of the queue
}

// datagram is one of which fragments were seen, or the frames that came before a flow
// and may be of it.
type datagram struct {
	id      uint64
	begun   int64       // flow time
	over    bool        // it is whole, or was given up: nobody waits for it
	of      []int       // who wants it
	frames  []*entry    // that hold pieces of it and wait for it
	carries []*datagram // those of which it has held pieces
}

// NewSearch returns a search for the frames of flows that calls each as [Cut] does.
func NewSearch(flows []Flow, o Options, each func(f *Frame, of []int) error) *Search {
	t := newTable(flows)
	return newSearch(t, t, o, each)
}

func newSearch(m Matcher, t *table, o Options, each func(f *Frame, of []int) error) *Search {
	return &Search{decoder: decode.Decoder{VLANs: o.VLANs}, matcher: m, table: t, each: each, datagrams: map[uint64]*datagram{}}
}

// Stats returns the counts so far.
func (s *Search) Stats() Stats { return s.stats }

// Batch takes the next batch, which it does not release. It returns the first error of
// each, and then does nothing more.
func (s *Search) Batch(b *capture.Batch) error {
	if b.Series != s.series {
		s.Flush()
		s.series = b.Series
		s.decoder.Reset()
	}
	for i := range b.Frames {
		if s.err != nil {
			break
		}
		s.look(&b.Frames[i], b)
	}
	return s.err
}

// Flush ends the wait for datagrams that are not whole: the capture ends here.
func (s *Search) Flush() error {
	for len(s.ages) > 0 {
		s.forget()
	}
	s.pass()
	return s.err
}

// look decodes a frame and finds who wants it.
func (s *Search) look(f *capture.Frame, b *capture.Batch) {
	p, d := &s.packet, &s.decoder
	s.of = s.of[:0]
	if len(s.ages) > 0 {
		s.expire(f.Clock)
	}
	var e *entry // nil while the frame holds no fragment
	pieces := 0
	class := d.Decode(f, p)
	for more := true; more; more = d.Next(p) {
		if list := d.Pieces(); len(list) > pieces {
			if e == nil {
				e = s.entry(f, b)
			}
			for _, piece := range list[pieces:] {
				s.hold(e, piece, f.Clock)
			}
			pieces = len(list)
		}
		switch {
		case class > decode.Datagram:
			if class == decode.NotIP || !d.OfAssociation(p) {
				continue
			}
		case p.Idle():
			p.Address()
		}
		if s.some = s.matcher.Match(p, b, s.some[:0]); len(s.some) > 0 {
			s.of = union(s.of, s.some)
			if id := p.Assembled(); id != 0 {
				s.want(s.datagrams[id])
			}
		}
		if t := s.table; t != nil && len(t.early)+len(t.begun)+len(t.apart) > 0 {
			if e == nil {
				e = s.entry(f, b)
			}
			held := []*entry{e}
			if x := s.datagrams[p.Assembled()]; x != nil {
				held = x.frames
			}
			s.early(held, f.Clock)
		}
	}
	if e == nil {
		if len(s.of) == 0 {
			return
		}
		e = s.entry(f, b)
	}
	e.of = union(e.of, s.of)
	for _, piece := range d.Pieces() {
		if x := s.datagrams[piece.Of]; piece.Whole && x != nil {
			x.end()
		}
	}
	if len(s.queue) == 0 && e.waits == 0 {
		s.give(e)
		return
	}
	if e.waits > 0 || len(e.of) > 0 {
		s.queue = append(s.queue, e)
		s.bytes += e.cost
	}
	for s.bytes > limitWaiting && s.giveUp() {
		s.pass()
	}
	s.pass()
}

// entry returns an entry for a frame, with a copy of its bytes.
func (s *Search) entry(f *capture.Frame, b *capture.Batch) *entry {
	return &entry{
		frame: Frame{Origin: b.Origin, Number: f.Number, Offset: b.Offset(f), Time: f.Time, Length: f.Length, LinkType: f.LinkType, Data: bytes.Clone(f.Data)},
		cost:  waitingCost + len(f.Data),
	}
}

// hold notes that e holds a piece of a datagram.
func (s *Search) hold(e *entry, piece decode.Piece, now int64) {
	x := s.datagrams[piece.Of]
	if x == nil {
		x = &datagram{id: piece.Of, begun: now}
		s.datagrams[x.id] = x
		s.ages = append(s.ages, x)
		if len(s.ages) > limitDatagrams {
			s.stats.GivenUp += s.ages[0].waiting()
			s.forget()
		}
	}
	x.add(e)
	if outer := s.datagrams[piece.In]; outer != nil && !slices.Contains(outer.carries, x) {
		for _, e := range outer.frames {
			x.add(e)
		}
		outer.carries = append(outer.carries, x)
	}
}

// early notes what the table has found beside of a packet, which these frames hold.
func (s *Search) early(held []*entry, now int64) {
	t := s.table
	for _, n := range t.apart {
		if x := t.flows[n].early; x != nil {
			x.end()
			t.flows[n].early = nil
		}
	}
	for _, n := range t.early {
		w := &t.flows[n]
		if w.early == nil || w.early.over {
			w.early = &datagram{begun: now}
			s.ages = append(s.ages, w.early)
		}
		for _, e := range held {
			w.early.add(e)
		}
	}
	for _, n := range t.begun {
		if x := t.flows[n].early; x != nil {
			s.some = append(s.some[:0], n)
			s.want(x)
			x.end()
			t.flows[n].early = nil
		}
	}
	t.early, t.begun, t.apart = t.early[:0], t.begun[:0], t.apart[:0]
}

// add has e wait for x, and for what x carries.
func (x *datagram) add(e *entry) {
	e.of = union(e.of, x.of)
	if !x.over && !slices.Contains(x.frames[max(0, len(x.frames)-1):], e) {
		x.frames = append(x.frames, e)
		e.waits++
	}
	for _, inner := range x.carries {
		inner.add(e)
	}
}

// want notes that s.some want x, nil for a datagram that was forgotten.
func (s *Search) want(x *datagram) {
	if x == nil {
		return
	}
	x.of = union(x.of, s.some)
	for _, e := range x.frames {
		e.of = union(e.of, s.some)
	}
}

// end ends the wait for x.
func (x *datagram) end() {
	for _, e := range x.frames {
		e.waits--
	}
	x.over, x.frames = true, nil
}

// waiting returns how many frames wait for x and are wanted by nobody yet.
func (x *datagram) waiting() (n uint64) {
	for _, e := range x.frames {
		if len(e.of) == 0 {
			n++
		}
	}
	return n
}

// giveUp ends the wait for the oldest datagram that is not over, and reports whether
// there was one.
func (s *Search) giveUp() bool {
	for _, x := range s.ages {
		if !x.over {
			s.stats.GivenUp += x.waiting()
			x.end()
			return true
		}
	}
	return false
}

// expire forgets the datagrams that decode has forgotten too.
func (s *Search) expire(now int64) {
	for len(s.ages) > 0 && now-s.ages[0].begun >= timeoutDatagram {
		s.forget()
	}
	s.pass()
}

// forget ends the wait for the oldest datagram and forgets it.
func (s *Search) forget() {
	x := s.ages[0]
	x.end()
	delete(s.datagrams, x.id)
	s.ages[0], s.ages = nil, s.ages[1:]
}

// pass passes on the frames at the head of the queue that wait for nothing.
func (s *Search) pass() {
	for len(s.queue) > 0 && s.queue[0].waits == 0 {
		e := s.queue[0]
		s.queue[0], s.queue = nil, s.queue[1:]
		s.bytes -= e.cost
		s.give(e)
	}
}

// give passes on e, if somebody wants it.
func (s *Search) give(e *entry) {
	if len(e.of) == 0 || s.err != nil {
		return
	}
	s.stats.Frames++
	s.stats.Bytes += uint64(len(e.frame.Data))
	s.err = s.each(&e.frame, e.of)
}

// union adds the numbers of more to of, which stays sorted.
func union(of, more []int) []int {
	for _, n := range more {
		if i, found := slices.BinarySearch(of, n); !found {
			of = slices.Insert(of, i, n)
		}
	}
	return of
}
