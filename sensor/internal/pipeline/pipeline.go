// Package pipeline runs the way of a frame to a record: it deals the frames of
// sources to workers, and brings what the workers find back into one order.
package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Config is what a pipeline is made of.
type Config struct {
	Workers  int // at least 1; in a replay at most flow.Shards are of use, live one for each source
	Rules    *rules.Set
	Observer output.Observer
	Records  output.Options
	Outputs  []output.Output
	Limits   flow.Limits
	Parsers  parsers.Limits // of all workers together; what shards hold is in Limits
	Encoders int            // bytes of certificates that all encoders remember

	// Keys are the secrets that encrypted handshakes are opened with; nil
	// without. A replay finds them there when a packet comes that needs them;
	// in a live capture they may come later.
	Keys *keylog.Store
	// KeysLater says that secrets may come after the packets that need them, in a
	// replay too.
	KeysLater bool

	// Follow says that the input of a replay may be written while it is read: what
	// was found is written when nothing comes for a while, and statistics are made
	// each StatsInterval.
	Follow bool

	// VLANs are EtherTypes that mark VLAN tags, beside those of the standards.
	VLANs []uint16

	// Sections returns the counters of the outputs; may be nil.
	Sections func() []output.Section
	// Idle is called when all that was found is written, by Live and by a Replay
	// that follows; may be nil.
	Idle func()
	// Alert is called for each match, in the order of the records; may be nil.
	Alert func(*event.Handshake, *rules.Match)
}

// Pipeline is one run over one set of sources.
type Pipeline struct {
	config    Config
	inventory *output.Inventory
	encoder   *output.Encoder // for the records that need the order
	hits      map[*rules.Rule]uint64
	records   [output.Datasets]uint64
	refused   uint64
	failures  uint64 // of the encoder
	failed    *failures
	total     counters
	dealt     counters // of the dealer
	buf       []byte

	seen    sync.Mutex // for what follows
	start   int64      // times of the first and the last packet
	end     int64
	origin  *event.Origin
	origins int
}

// New returns a pipeline that has not run.
func New(c Config) *Pipeline {
	return &Pipeline{config: c, inventory: output.NewInventory(), encoder: c.encoder(max(c.Workers, 1)), hits: map[*rules.Rule]uint64{}, failed: new(failures)}
}

// encoder makes the encoder of one of n workers, or the one more that the
// records have that need the order.
func (c *Config) encoder(n int) *output.Encoder {
	e := output.NewEncoder(c.Observer)
	e.Remember(c.Encoders / (n + 1))
	return e
}

// counters are what workers count.
type counters struct {
	decoded    [flow.Classes]uint64
	unread     flow.Unread
	messages   flow.MessageStats
	fragments  flow.FragmentStats
	flows      flow.Stats
	parser     parsers.Stats
	unrecorded uint64 // handshakes of floods
	jumps      uint64 // of the clock of a live capture
}

func (c *counters) add(o *counters) {
	for i, n := range o.decoded {
		c.decoded[i] += n
	}
	c.unread.Add(o.unread)
	c.messages.Add(o.messages)
	c.fragments.Add(o.fragments)
	c.flows.Add(o.flows)
	c.parser.Add(o.parser)
	c.jumps += o.jumps
	c.unrecorded += o.unrecorded
}

// epoch is what one worker found between two ticks.
type epoch struct {
	now     int64     // the tick that ended it
	last    bool      // of a series
	idle    bool      // nothing has come for a while
	counted *counters // so far; nil but from time to time in a replay that follows
	items   []item
	buf     []byte // the bytes of the records
	records []record
	matches []rules.Match
}

// item is one handshake, with what was made of it.
type item struct {
	h        *event.Handshake
	from     *epoch
	matches  [2]int // in epoch.matches
	records  [2]int // in epoch.records
	sequence int
	later    bool // the records are still to be made
}

// record is an encoded record in epoch.buf.
type record struct {
	dataset  output.Dataset
	stamp    output.Stamp
	from, to int
}

// renew makes another epoch the one at hand: one of idle, which are written, or
// a new one.
func (w *worker) renew(idle <-chan *epoch) {
	select {
	case e := <-idle:
		w.again(e)
	default:
		w.now = new(epoch)
	}
}

// again makes an epoch, all of which is written, the one at hand.
func (w *worker) again(e *epoch) {
	for i := range e.items {
		w.parser.Recycle(e.items[i].h)
	}
	clear(e.items)
	clear(e.matches)
	*e = epoch{items: e.items[:0], buf: e.buf[:0], records: e.records[:0], matches: e.matches[:0]}
	w.now = e
}

// worker owns flows: one goroutine runs it.
type worker struct {
	config     *Config
	parser     *parsers.Parser
	matcher    *rules.Matcher
	encoder    *output.Encoder
	trackers   [flow.Shards]*flow.Tracker // nil for those of other workers
	shards     uint8                      // the bits of a packet's shard that tell its tracker
	closing    bool                       // all flows end at once: their records would be too many to hold
	now        *epoch
	time       int64  // of the last tick
	failures   uint64 // of the matcher or the encoder
	failed     *failures
	unrecorded uint64 // handshakes
	jumps      uint64 // of the clock of a live capture

	decoder flow.Decoder
	packets [window]flow.Packet // decoded, not yet tracked
	waiting int                 // how many
}

// window is how many packets are decoded before the first of them is tracked,
// so that what they need of the flow tables comes from memory side by side.
const window = 16

// newWorker returns one of n workers.
func newWorker(c *Config, n int, wait bool, failed *failures) *worker {
	w := &worker{config: c, matcher: c.Rules.NewMatcher(), encoder: c.encoder(n), failed: failed, now: new(epoch)}
	w.decoder.VLANs = c.VLANs
	w.parser = parsers.New(w.handshake, parsers.Limits{Sealed: c.Parsers.Sealed / n, Cached: c.Parsers.Cached / n})
	if c.Keys != nil {
		w.parser.Keys(c.Keys, wait)
	}
	return w
}

// frame takes the next frame. It is lent until flush.
func (w *worker) frame(f *capture.Frame, origin *event.Origin) {
	p := &w.packets[w.waiting]
	for ok := w.decoder.Decode(f, p) <= flow.Datagram; ok; ok = w.decoder.Next(p) {
		if w.wants(p) {
			p = w.take(origin)
		}
	}
}

// wants tells whether p is of use. Any goroutine may ask.
func (w *worker) wants(p *flow.Packet) bool {
	return !p.Idle() || w.parser.Keyed() && p.Sealed()
}

// take takes the packet that was put at w.packets[w.waiting], and returns
// where to put the next.
func (w *worker) take(origin *event.Origin) *flow.Packet {
	if w.waiting++; w.waiting == window {
		w.flush(origin)
	}
	return &w.packets[w.waiting]
}

// flush tracks the packets that wait; origin is where they all come from.
func (w *worker) flush(origin *event.Origin) {
	packets := w.packets[:w.waiting]
	for i := range packets {
		w.trackers[packets[i].Shard&w.shards].Touch(&packets[i])
	}
	for i := range packets {
		w.trackers[packets[i].Shard&w.shards].Packet(&packets[i], origin)
	}
	w.waiting = 0
}

// handshake takes what the parser emits.
func (w *worker) handshake(h *event.Handshake) {
	e := w.now
	e.items = append(e.items, item{h: h, from: e, sequence: len(e.items), later: w.closing})
}

// finish makes of the handshakes of the epoch all that needs no order: one thing
// after the other, so that the code for it stays in the processor's cache. What
// is not worth a record, and matches no rule, is no part of the epoch then.
func (w *worker) finish() {
	e := w.now
	kept := 0
	for i := range e.items {
		it := &e.items[i]
		if w.match(e, it); it.h.Unrecorded && it.matches[0] == it.matches[1] {
			w.unrecorded++
			w.parser.Recycle(it.h)
			continue
		}
		if kept < i {
			e.items[kept] = *it
		}
		kept++
	}
	clear(e.items[kept:])
	e.items = e.items[:kept]
	for i := range e.items {
		if it := &e.items[i]; !it.later {
			w.encode(e, it)
		}
	}
}

// match matches one handshake.
func (w *worker) match(e *epoch, it *item) {
	it.matches = [2]int{len(e.matches), len(e.matches)}
	defer w.failed.survive("match rules", &w.failures)
	e.matches = w.matcher.Match(it.h, e.matches)
	it.matches[1] = len(e.matches)
}

// encode makes the records of one handshake that need no order.
func (w *worker) encode(e *epoch, it *item) {
	h := it.h
	it.records = [2]int{len(e.records), len(e.records)}
	defer w.failed.survive("encode records", &w.failures)
	if w.config.Records.Datasets.Has(output.Alert) {
		for i := it.matches[0]; i < it.matches[1]; i++ {
			from := len(e.buf)
			buf, stamp := w.encoder.AppendAlert(e.buf, h, &e.matches[i])
			e.buf = buf
			e.records = append(e.records, record{output.Alert, stamp, from, len(buf)})
		}
	}
	if w.config.Records.Datasets.Has(output.Handshake) {
		from := len(e.buf)
		buf, stamp := w.encoder.AppendHandshake(e.buf, h)
		e.buf = buf
		e.records = append(e.records, record{output.Handshake, stamp, from, len(buf)})
	}
	it.records[1] = len(e.records)
}

// failures keeps the first failure of a run. Any goroutine may use it.
type failures struct{ first atomic.Pointer[Failure] }

// survive is deferred: a panic on one handshake is counted in n, and costs that
// handshake alone.
func (f *failures) survive(where string, n *uint64) {
	cause := recover()
	if cause == nil {
		return
	}
	*n++
	if f.first.Load() == nil {
		f.first.CompareAndSwap(nil, &Failure{where, fmt.Sprint(cause), string(debug.Stack())})
	}
}

// tick ends the epoch.
func (w *worker) tick(now int64) {
	w.now.now, w.time = now, now
	for _, t := range w.trackers {
		if t != nil {
			t.Tick(now)
		}
	}
	w.parser.Tick(now)
	w.finish()
}

// pause ends the epoch where nothing comes for a while. No time passes: what
// comes out must not depend on when it came.
func (w *worker) pause() {
	w.now.now, w.now.idle = w.time, true
	w.parser.Tick(w.time)
	w.finish()
}

// close ends all flows.
func (w *worker) close() {
	w.closing = true
	for _, t := range w.trackers {
		if t != nil {
			t.Close()
		}
	}
	w.parser.Flush()
	w.finish()
}

// reset forgets the capture that close has ended.
func (w *worker) reset() {
	w.closing, w.time = false, 0
	w.decoder.Reset()
}

func (w *worker) counters() *counters {
	c := &counters{decoded: w.decoder.Decoded(), unread: w.decoder.Unread(), messages: w.decoder.Messages(), fragments: w.decoder.Fragments(), parser: w.parser.Stats(), unrecorded: w.unrecorded, jumps: w.jumps}
	for _, t := range w.trackers {
		if t != nil {
			c.flows.Add(t.Stats())
		}
	}
	c.flows.Panics += w.failures
	return c
}

// compare orders handshakes by the time of their last packet, then by flow.
func compare(a, b item) int {
	if c := cmp.Compare(a.h.End.Time, b.h.End.Time); c != 0 {
		return c
	}
	f, g := a.h.Flow, b.h.Flow
	for i := range f.Endpoints {
		if c := f.Endpoints[i].Addr.Compare(g.Endpoints[i].Addr); c != 0 {
			return c
		}
		if c := cmp.Compare(f.Endpoints[i].Port, g.Endpoints[i].Port); c != 0 {
			return c
		}
		if c := bytes.Compare(f.Endpoints[i].MAC[:], g.Endpoints[i].MAC[:]); c != 0 && !f.Endpoints[i].Addr.IsValid() {
			return c
		}
	}
	return cmp.Or(
		cmp.Compare(f.Transport, g.Transport),
		slices.Compare(f.VLANs[:f.VLANCount], g.VLANs[:g.VLANCount]),
		cmp.Compare(f.Start, g.Start),
		cmp.Compare(a.h.Index, b.h.Index),
		cmp.Compare(a.h.End.Frame, b.h.End.Frame),
		cmp.Compare(a.sequence, b.sequence), // of one flow, and so of one worker
	)
}

// write hands the records of one handshake, and those that need the order, to
// the outputs.
func (p *Pipeline) write(it *item) error {
	e := it.from
	for i := it.matches[0]; i < it.matches[1]; i++ {
		p.hits[e.matches[i].Rule]++
		if p.config.Alert != nil {
			p.config.Alert(it.h, &e.matches[i])
		}
	}
	var errs error
	for _, r := range e.records[it.records[0]:it.records[1]] {
		errs = errors.Join(errs, p.deliver(r.stamp.Record(r.dataset, e.buf[r.from:r.to])))
	}
	if it.later {
		errs = errors.Join(errs, p.encode(it))
	}
	for _, i := range p.inventory.Seen(it.h) {
		if !p.config.Records.Datasets.Has(output.Certificate) {
			break
		}
		buf, stamp := p.encoder.AppendCertificate(p.buf[:0], it.h, i)
		p.buf = buf
		errs = errors.Join(errs, p.deliver(stamp.Record(output.Certificate, buf)))
	}
	return errs
}

// encode makes the records that the worker has left to be made, and delivers
// them.
func (p *Pipeline) encode(it *item) (errs error) {
	defer p.failed.survive("encode records", &p.failures)
	if p.config.Records.Datasets.Has(output.Alert) {
		for i := it.matches[0]; i < it.matches[1]; i++ {
			buf, stamp := p.encoder.AppendAlert(p.buf[:0], it.h, &it.from.matches[i])
			p.buf = buf
			errs = errors.Join(errs, p.deliver(stamp.Record(output.Alert, buf)))
		}
	}
	if p.config.Records.Datasets.Has(output.Handshake) {
		buf, stamp := p.encoder.AppendHandshake(p.buf[:0], it.h)
		p.buf = buf
		errs = errors.Join(errs, p.deliver(stamp.Record(output.Handshake, buf)))
	}
	return errs
}

// deliver hands one record to every output. What an output refuses is counted,
// there as well, and the others go on; it is an error when none will ever take
// a record again.
func (p *Pipeline) deliver(r *output.Record) error {
	p.records[r.Dataset]++
	gone := 0
	for _, o := range p.config.Outputs {
		if err := o.Write(r); err != nil {
			p.refused++
			if errors.Is(err, output.ErrGone) {
				gone++
			}
		}
	}
	if gone > 0 && gone == len(p.config.Outputs) {
		return output.ErrGone
	}
	return nil
}

// Stats makes and delivers the stats record of what was counted so far.
func (p *Pipeline) stats(c *output.Counters) error {
	if !p.config.Records.Datasets.Has(output.Stats) {
		return nil
	}
	buf, stamp, err := p.encoder.AppendStats(nil, c)
	if err != nil {
		return fmt.Errorf("encode statistics: %w", err)
	}
	return p.deliver(stamp.Record(output.Stats, buf))
}

// see notes the origin and the times of frames.
func (p *Pipeline) see(b *capture.Batch) {
	if len(b.Frames) == 0 {
		return
	}
	p.seen.Lock()
	defer p.seen.Unlock()
	if p.origin != b.Origin {
		p.origin = b.Origin
		p.origins++
	}
	// Of the first and of the last two frames, one may have a time that is out of
	// line.
	first, last := b.Frames[0].Time, b.Frames[len(b.Frames)-1].Time
	if n := len(b.Frames); n > 2 {
		if second := b.Frames[1].Time; far(first, second) && !far(second, b.Frames[2].Time) {
			first = second
		}
		if before := b.Frames[n-2].Time; far(last, before) && !far(before, b.Frames[n-3].Time) {
			last = before
		}
	}
	if p.start == 0 {
		p.start = first
	}
	p.end = max(p.end, last)
}

// far tells whether two times are days apart.
func far(a, b int64) bool {
	if a > b {
		a, b = b, a
	}
	return uint64(b)-uint64(a) > uint64(24*time.Hour)
}

// recordCounts is how many records were made and refused.
type recordCounts struct {
	Handshakes   uint64 `json:"handshakes"`
	Certificates uint64 `json:"certificates"`
	Alerts       uint64 `json:"alerts"`
	Refused      uint64 `json:"refused"`               // by an output
	Unrecorded   uint64 `json:"handshakes_unrecorded"` // unanswered hellos of a flood, left out; handshakes seen are this and Handshakes
}

// Counters returns all that was counted, when the run is over.
func (p *Pipeline) Counters(source capture.Stats) *output.Counters {
	p.seen.Lock()
	c := &output.Counters{Start: p.start, End: p.end, Capture: source, Parser: p.total.parser, Inventory: p.inventory.Stats()}
	if p.origins == 1 {
		c.Origin = p.origin
	}
	p.seen.Unlock()
	flows := p.total.flows
	flows.Panics += p.failures
	for _, r := range p.config.Rules.Rules() {
		if n := p.hits[r]; n > 0 {
			c.Rules = append(c.Rules, output.RuleCount{Rule: r, Matches: n})
		}
	}
	c.NoTLS, c.Unread = p.total.unread.Lists()
	decoded := map[string]uint64{}
	for class, n := range p.total.decoded {
		decoded[flow.Class(class).String()] = n
	}
	c.Sections = []output.Section{
		{Name: "decoded", Value: decoded, Lost: []string{"malformed"}},
		{Name: "fragments", Value: p.total.fragments, Lost: []string{"held", "malformed", "oversized", "expired", "evicted", "discarded", "radio"}},
		{Name: "sctp", Value: p.total.messages, Lost: []string{"held", "evicted", "cut"}},
		{Name: "flows", Value: flows, Lost: []string{"evicted_undecided", "gaps", "gap_bytes", "cut_bytes", "held_limit", "parser_failures"}},
		{Name: "records", Value: recordCounts{p.records[output.Handshake], p.records[output.Certificate], p.records[output.Alert], p.refused, p.total.unrecorded}, Lost: []string{"refused", "handshakes_unrecorded"}},
	}
	if s := p.config.Keys; s != nil && s.Stats() != (keylog.Stats{}) {
		c.Sections = append(c.Sections, output.Section{Name: "keys", Value: s.Stats(), Lost: []string{"malformed", "evicted"}})
	}
	if p.config.Sections != nil {
		c.Sections = append(c.Sections, p.config.Sections()...)
	}
	return c
}

// Matched is how often rules matched.
func (p *Pipeline) Matched() (n uint64) {
	for _, hits := range p.hits {
		n += hits
	}
	return n
}

// stopped is the error of a run that was told to stop.
func stopped(ctx context.Context) error { return context.Cause(ctx) }

// Failure is the first panic of a run, which cost one flow or one handshake.
type Failure struct {
	Where string // what failed, such as "match rules" or "encode records"
	Text  string // the value of the panic
	Stack string
}

// Failure returns the first panic of the run, nil when there was none. It is for
// after Replay or Live.
func (p *Pipeline) Failure() *Failure { return p.failed.first.Load() }
