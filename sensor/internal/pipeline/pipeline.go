// Package pipeline takes frames to records: it dispatches the frames of sources to
// workers, and brings what the workers find into one order.
package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Config is what a pipeline is made of.
type Config struct {
	Workers    int           // at least 1; a replay uses at most decode.Shards, a live capture one for each source
	Rules      *rules.Set    // to begin with: see [Pipeline.Reload]
	Judge      *judge.Tables // the same; nil: nothing is judged
	Observer   output.Observer
	Records    output.Options // which records are made, and what they hold
	Outputs    []output.Output
	Limits     flow.Limits
	Parsers    parsers.Limits // of all workers together; what shards hold is in Limits
	Remembered float64        // share of JudgeMemory, at most 1; 0 stands for 1
	Encoders   int            // bytes of certificates that all encoders together remember

	// Keys are the secrets that decrypt handshakes; nil without. A replay finds them there when a packet comes that needs them;
	// in a live capture they may come later.
	Keys *keylog.Store
	// KeysLater is set where secrets can come after the packets that need them, in a
	// replay too.
	KeysLater bool

	// Follow is set where the input of a replay can be written while it is read: what
	// was found is written when nothing comes for a while, and statistics are made
	// every StatsInterval.
	Follow bool

	// VLANs are EtherTypes that mark VLAN tags, beside those of the standards.
	VLANs []uint16

	// Sections returns the counters of the outputs; nil where there are none.
	Sections func() []output.Section
	// Frames keeps the frames of flows that may raise an alert; nil where nobody wants
	// them. It is of this pipeline alone.
	Frames *frames.Buffer
	// Idle is called when all that was found is written, by Live and by a Replay
	// that follows; nil for nobody.
	Idle func()
	// Watch is called each WatchInterval of a live capture with what was counted so
	// far; nil for nobody.
	Watch func(*output.Counters)
	// Interfaces are what a live capture captures on; nil in a replay.
	Interfaces func() []capture.Interface
	// Alert is called for each match, in the order of the records. Its id is there also
	// where no records of alerts are made; nil for nobody.
	Alert func(h *event.Handshake, a *finding.Alert)
	// Found is called for each handshake, in the order of the records, when its records
	// are made; nil for nobody.
	Found func(*finding.Finding)
	// Before says what was seen before the first packet; nil: nothing was. With it, what
	// is seen of a capture is known in those that follow. order is nil where nothing is
	// judged.
	Before func(told *output.Told, order *judge.Order)
	// Now is the wall clock of statistics; nil for time.Now.
	Now func() time.Time
}

// Pipeline is one run over one set of sources.
type Pipeline struct {
	config     Config                     // without Rules and Judge, which are in current
	current    atomic.Pointer[generation] // never nil
	generation *generation                // that of the stage that orders
	told       *output.Told
	judge      *judge.Order        // nil when nothing is judged
	judged     judgement.Judgement // of the handshake at hand
	matcher    *rules.Matcher      // asks judge, if there is one
	matches    []rules.Match       // what it found
	met        []event.Contact     // scratch
	sequence   *sequence
	recorder   *recorder // of the records that need the order
	hits       hits
	delivered  [output.Datasets]uint64
	refused    uint64
	failed     *failures
	total      counters
	ordered    matching        // of the stage that orders
	dispatched counters        // of the dispatcher
	begun      time.Time       // by the wall clock
	stalled    time.Duration   // see [output.Counters]
	lag        time.Duration   // the same
	packet     int64           // time of the last packet of a live capture
	lent       output.Record   // to the outputs
	found      finding.Finding // lent to Config.Found
	alerts     [][2]int        // where the records of found.Alerts are in buf
	buf        []byte          // the bytes of the records that recorder makes of one handshake
	records    []record        // where they are

	seen     sync.Mutex // for what follows
	start    int64      // times of the first and the last packet
	end      int64
	origin   *event.Origin
	origins  int
	captures []string // their paths
	named    int      // bytes of captures
	unnamed  uint64   // captures that captures has no room for
}

// New returns a pipeline that has not run.
func New(c Config) *Pipeline {
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Pipeline{config: c, begun: c.Now(), told: output.NewTold(), hits: hits{current: map[*rules.Rule]uint64{}}, failed: new(failures)}
	p.generation = &generation{c.Rules, c.Judge}
	p.current.Store(p.generation)
	p.config.Rules, p.config.Judge = nil, nil // or they would be in memory after a reload
	var asked judgement.Judge
	if c.Judge != nil {
		p.judge = c.Judge.NewOrder(c.judges(c.Workers), c.share())
		asked = p.judge
	}
	if c.Before != nil {
		p.told.Keep()
		c.Before(p.told, p.judge)
	}
	p.matcher = c.Rules.NewMatcher(asked)
	p.sequence = newSequence(c.Rules, asked, c.share(), p.failed)
	p.recorder = newRecorder(&p.config, max(c.Workers, 1), p.failed)
	return p
}

// JudgeMemory is how many bytes all that judges, correlations and suppression
// remember takes at most, where Config.Remembered is 1.
const JudgeMemory = judgeCache + 120<<20

// judgeCache is how many bytes of certificates and answers all judges together
// remember.
const judgeCache = 16 << 20

// share is Remembered, within its bounds.
func (c *Config) share() float64 {
	if c.Remembered == 0 {
		return 1
	}
	return min(max(c.Remembered, 1.0/64), 1)
}

// judges is what each of n workers, and the stage that orders, remember.
func (c *Config) judges(n int) int { return int(judgeCache * c.share() / float64(max(n, 1)+1)) }

// matching counts handshakes where they are matched.
type matching struct {
	unrecorded uint64 // of floods
	unmatched  uint64 // on which the judge or the matcher failed
	untold     uint64 // on which who wants more than records failed
}

// counters are what workers count.
type counters struct {
	decoded    [decode.Classes]uint64
	weirds     decode.Weirds
	unread     decode.Unread
	messages   decode.MessageStats
	remembered decode.RememberedStats
	fragments  decode.FragmentStats
	flows      flow.Stats
	parser     parsers.Stats
	matching
	unencoded uint64 // handshakes on which the encoder failed
	cut       uint64 // values that records have no room for
	jumps     uint64 // of the clock of a live capture
}

func (c *counters) add(o *counters) {
	for i, n := range o.decoded {
		c.decoded[i] += n
	}
	c.weirds.Add(o.weirds)
	c.unread.Add(o.unread)
	c.messages.Add(o.messages)
	c.remembered.Add(o.remembered)
	c.fragments.Add(o.fragments)
	c.flows.Add(o.flows)
	c.parser.Add(o.parser)
	c.jumps += o.jumps
	c.unrecorded += o.unrecorded
	c.unmatched += o.unmatched
	c.untold += o.untold
	c.unencoded += o.unencoded
	c.cut += o.cut
}

// interval is what one worker found between two ticks.
type interval struct {
	now      int64     // the tick that ended it
	last     bool      // of a series
	idle     bool      // nothing has come for a while
	counted  *counters // so far; nil except from time to time in a replay that follows
	by       *generation
	items    []item
	matches  []rules.Match
	contacts []event.Contact
	buf      []byte // the bytes of the records
	records  []record

	kept   *frames.Part // has the frames of the items; nil where none are kept
	number uint16       // of the interval there
}

// item is one handshake, with what was made of it.
type item struct {
	h        *event.Handshake
	from     *interval
	matches  [2]int               // in interval.matches
	records  [2]int               // in interval.records
	judged   *judgement.Judgement // nil where nothing was judged
	sequence int
	later    bool // the records are still to be made: it takes the order to know what they say
}

// record is an encoded record in a buffer.
type record struct {
	dataset  output.Dataset
	stamp    output.Stamp
	from, to int
}

// next begins another interval: in the memory of one that was written, or else in
// new memory.
func (w *worker) next(written <-chan *interval) {
	select {
	case v := <-written:
		w.reuse(v)
	default:
		w.now = new(interval)
	}
}

// forget makes v, all of which is written, hold nothing of a generation: it may be long
// until v is used again. All alerts of its items are known.
func (v *interval) forget() {
	if v.kept != nil {
		v.kept.Judged(v.number)
	}
	clear(v.matches)
	v.by = nil
}

// reuse begins another interval in the memory of v, all of which is written.
func (w *worker) reuse(v *interval) {
	for i := range v.items {
		w.parser.Recycle(v.items[i].h)
	}
	clear(v.items)
	*v = interval{items: v.items[:0], buf: v.buf[:0], records: v.records[:0], matches: v.matches[:0], contacts: v.contacts[:0]}
	w.now = v
}

// worker owns flows: one goroutine runs it.
type worker struct {
	current    *atomic.Pointer[generation] // of the pipeline
	generation *generation                 // by which judge and matcher go
	parser     *parsers.Parser
	judge      *judge.Judge        // nil when nothing is judged
	judged     judgement.Judgement // scratch
	matcher    *rules.Matcher
	recorder   *recorder
	trackers   [decode.Shards]*flow.Tracker // nil for those of other workers
	shards     uint8                        // the bits of a packet's shard that select its tracker
	closing    bool                         // all flows end at once: their records would be too many to hold
	now        *interval
	time       int64 // of the last tick
	failed     *failures
	matching
	jumps uint64 // of the clock of a live capture

	decoder decode.Decoder
	packets [decodeAhead]decode.Packet // decoded, not yet tracked
	waiting int                        // how many

	keeper *keeper // nil where no frames are kept
}

// decodeAhead is how many packets are decoded before the first of them is tracked,
// so that the processor fetches what they need of the flow tables at the same time.
const decodeAhead = 16

// newWorker returns one of n workers.
func (p *Pipeline) newWorker(n int, wait bool) *worker {
	c := &p.config
	w := &worker{current: &p.current, generation: p.current.Load(), recorder: newRecorder(c, n, p.failed), failed: p.failed, now: new(interval)}
	var asked judgement.Judge
	if t := w.generation.tables; t != nil {
		w.judge = t.NewJudge(c.judges(n))
		asked = w.judge
	}
	w.matcher = w.generation.rules.NewMatcher(asked)
	w.decoder.VLANs = c.VLANs
	w.parser = parsers.New(w.handshake, parsers.Limits{Sealed: c.Parsers.Sealed / n, Cached: c.Parsers.Cached / n})
	if c.Keys != nil {
		w.parser.SetKeys(c.Keys)
		if wait {
			w.parser.WaitForKeys()
		}
	}
	return w
}

// frame takes the next frame. It is lent until flush.
func (w *worker) frame(f *capture.Frame, origin *event.Origin) {
	if w.keeper != nil {
		w.keep(f, origin)
		return
	}
	p := &w.packets[w.waiting]
	for ok := w.decoder.Decode(f, p) <= decode.Datagram; ok; ok = w.decoder.Next(p) {
		if w.wants(p) {
			p = w.take(origin)
		}
	}
}

// wants reports whether p is of use. Any goroutine may ask.
func (w *worker) wants(p *decode.Packet) bool {
	return !p.Idle() || w.parser.Decrypts() && p.Encrypted()
}

// take takes the packet that was put at w.packets[w.waiting], and returns
// where to put the next.
func (w *worker) take(origin *event.Origin) *decode.Packet {
	if w.waiting++; w.waiting == decodeAhead {
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
	if w.keeper != nil {
		w.follow(packets, origin)
		packets = nil
	}
	for i := range packets {
		w.trackers[packets[i].Shard&w.shards].Packet(&packets[i], origin)
	}
	w.waiting = 0
}

// handshake takes what the parser emits.
func (w *worker) handshake(h *event.Handshake) {
	v := w.now
	v.items = append(v.items, item{h: h, from: v, sequence: len(v.items), later: w.closing})
}

// track makes t one of the trackers of w.
func (w *worker) track(s int, t *flow.Tracker) {
	w.trackers[s] = t
	if w.judge != nil {
		t.Contact = func(c event.Contact) { w.now.contacts = append(w.now.contacts, c) }
	}
}

// finish makes of the handshakes of the interval all that needs no order: one step
// for all of them and then the next, so that the code for it stays in the
// processor's cache. A handshake that is not worth a record, and for which no rule
// matches, is removed from the interval.
func (w *worker) finish() {
	w.renew()
	v := w.now
	v.by = w.generation
	kept := 0
	for i := range v.items {
		it := &v.items[i]
		w.match(v, it)
		matched := it.matches[0] < it.matches[1]
		if matched && w.keeper != nil {
			w.keeper.frames.Hold(frames.Of(it.h))
		}
		if matched || it.judged != nil && it.judged.Pending || it.h.Notes != nil {
			it.later = true
		} else if it.h.Unrecorded {
			w.unrecorded++
			w.parser.Recycle(it.h)
			continue
		}
		if kept < i {
			v.items[kept] = *it
		}
		kept++
	}
	clear(v.items[kept:])
	v.items = v.items[:kept]
	for i := range v.items {
		it := &v.items[i]
		it.records[0] = len(v.records)
		if !it.later {
			v.buf, v.records = w.recorder.handshake(v.buf, v.records, it, 0)
		}
		it.records[1] = len(v.records)
	}
}

// match matches one handshake.
func (w *worker) match(v *interval, it *item) {
	it.matches = [2]int{len(v.matches), len(v.matches)}
	defer w.failed.survive("match rules", &w.unmatched)
	w.judged = judgement.Judgement{}
	if w.judge != nil {
		w.judge.Locate(it.h, &w.judged)
	}
	v.matches = w.matcher.Match(it.h, &w.judged, v.matches)
	if w.judged != (judgement.Judgement{}) {
		it.judged = new(w.judged)
	}
	it.matches[1] = len(v.matches)
}

// recorder makes the records of handshakes. It belongs to one goroutine.
type recorder struct {
	encoder   *output.Encoder
	datasets  output.Set
	failed    *failures
	unencoded uint64 // handshakes on which the encoder failed
}

// newRecorder returns the recorder of one of n workers, or the one more that makes
// the records that need the order.
func newRecorder(c *Config, n int, failed *failures) *recorder {
	return &recorder{
		encoder:  output.NewEncoder(c.Observer, c.Records, c.Encoders/(n+1)),
		datasets: c.Records.Datasets,
		failed:   failed,
	}
}

// handshake makes the record of a handshake for which alerts rules matched. It
// appends its bytes to buf, and to list where they are in it.
func (r *recorder) handshake(buf []byte, list []record, it *item, alerts int) (b []byte, l []record) {
	b, l = buf, list
	defer r.failed.survive("encode records", &r.unencoded)
	if r.datasets.Has(output.Handshake) {
		more, stamp := r.encoder.AppendHandshake(b, it.h, it.judged, alerts)
		b, l = more, append(l, record{output.Handshake, stamp, len(b), len(more)})
	}
	if r.datasets.Has(output.FullHandshake) {
		more, stamp := r.encoder.AppendFullHandshake(b, it.h, it.judged, alerts)
		b, l = more, append(l, record{output.FullHandshake, stamp, len(b), len(more)})
	}
	return b, l
}

// alert makes the record of a match in the same way, and returns its id.
func (r *recorder) alert(buf []byte, list []record, it *item, m *rules.Match) (b []byte, l []record, id string) {
	b, l = buf, list
	defer r.failed.survive("encode records", &r.unencoded)
	if r.datasets.Has(output.Alert) {
		more, stamp := r.encoder.AppendAlert(b, it.h, it.judged, m)
		b, l, id = more, append(l, record{output.Alert, stamp, len(b), len(more)}), string(stamp.ID[:])
	}
	return b, l, id
}

// alertID is the id that the record of a match has, or would have.
func (r *recorder) alertID(it *item, m *rules.Match) (id string) {
	defer r.failed.survive("make the id of an alert", &r.unencoded)
	return r.encoder.AlertID(it.h, m)
}

// news makes the records of what a handshake has that was not told before, in the
// same way.
func (r *recorder) news(buf []byte, list []record, it *item, n *output.News) (b []byte, l []record) {
	h := it.h
	b, l = buf, list
	defer r.failed.survive("encode records", &r.unencoded)
	if r.datasets.Has(output.Certificate) {
		for _, place := range n.Certificates {
			more, stamp := r.encoder.AppendCertificate(b, h, place)
			b, l = more, append(l, record{output.Certificate, stamp, len(b), len(more)})
		}
	}
	if n.Sighting && r.datasets.Has(output.Sighting) {
		more, stamp := r.encoder.AppendSighting(b, h, it.judged, n.Previous)
		b, l = more, append(l, record{output.Sighting, stamp, len(b), len(more)})
	}
	if n.Hello && r.datasets.Has(output.Hello) {
		more, stamp := r.encoder.AppendHello(b, h)
		b, l = more, append(l, record{output.Hello, stamp, len(b), len(more)})
	}
	return b, l
}

// summary makes the record of matches that were counted instead of raised, in the
// same way.
func (r *recorder) summary(buf []byte, list []record, s *rules.Summary) (b []byte, l []record) {
	b, l = buf, list
	defer r.failed.survive("encode records", &r.unencoded)
	if r.datasets.Has(output.Alert) {
		more, stamp := r.encoder.AppendSummary(b, s)
		b, l = more, append(l, record{output.Alert, stamp, len(b), len(more)})
	}
	return b, l
}

// failures keeps the first failure of a run. Any goroutine may use it.
type failures struct{ first atomic.Pointer[flow.Failure] }

// survive is deferred: a panic on one handshake is counted in n, and costs that
// handshake alone.
func (f *failures) survive(where string, n *uint64) {
	cause := recover()
	if cause == nil {
		return
	}
	*n++
	if f.first.Load() == nil {
		f.first.CompareAndSwap(nil, flow.NewFailure(cause, where))
	}
}

// keep keeps the first failure of a tracker.
func (f *failures) keep(t *flow.Tracker) {
	if one := t.Failure(); one != nil && f.first.Load() == nil {
		f.first.CompareAndSwap(nil, &flow.Failure{Where: "follow the flow " + one.Where, Text: one.Text, Stack: one.Stack})
	}
}

// tick ends the interval.
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

// pause ends the interval where nothing comes for a while. No time passes: what
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
	c := &counters{decoded: w.decoder.Decoded(), weirds: w.decoder.Weirds(), unread: w.decoder.Unread(), messages: w.decoder.Messages(), remembered: w.decoder.Remembered(), fragments: w.decoder.Fragments(), parser: w.parser.Stats(), jumps: w.jumps,
		matching: w.matching, unencoded: w.recorder.unencoded, cut: w.recorder.encoder.Cut()}
	for _, t := range w.trackers {
		if t != nil {
			c.flows.Add(t.Stats())
			w.failed.keep(t)
		}
	}
	return c
}

// ranked is an item, with what it is mostly ordered by beside it.
type ranked struct {
	time int64 // of the last packet
	*item
}

// rank appends the items of an interval to list.
func rank(list []ranked, v *interval) []ranked {
	for i := range v.items {
		list = append(list, ranked{v.items[i].h.End.Time, &v.items[i]})
	}
	return list
}

// compare orders handshakes by the time of their last packet, then by flow.
func compare(a, b ranked) int {
	if a.time != b.time {
		return cmp.Compare(a.time, b.time)
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

// write takes the next handshake in order, and gives its records, and those that
// follow from what was seen before, to the outputs.
func (p *Pipeline) write(it *item) error {
	p.judged = judgement.Judgement{}
	if it.judged != nil {
		p.judged = *it.judged
	}
	it.judged = &p.judged
	matches := it.from.matches[it.matches[0]:it.matches[1]]
	before := alertedOf(it.h)
	old := it.from.by != p.generation
	if old {
		matches = p.redo(it)
	}
	again := p.judge != nil && p.remember(it, before)
	if again {
		matches = p.match(it)
	}
	if again || old {
		if len(matches) == 0 && it.h.Unrecorded {
			p.ordered.unrecorded++
			return nil
		}
		it.later = true
	}
	err := p.summarize(p.sequence.due(it.h.End.Time))
	p.buf, p.records = p.buf[:0], p.records[:0]
	if matches = before.news(matches); len(matches) > 0 {
		matches = p.sequence.see(it, matches)
	}
	for i := range matches {
		p.raise(it, &matches[i])
	}
	p.tell(it)
	alerts := before.count(len(matches))
	if it.h.Unfinished { // the other records are made when it is over
		before.judged = it.judged.KeyProof != nil
		if p.judge != nil {
			p.judge.Learn(it.h, false)
		}
		return errors.Join(err, p.deliver(p.buf, p.records))
	}
	if it.later {
		p.buf, p.records = p.recorder.handshake(p.buf, p.records, it, alerts)
	} else {
		err = errors.Join(err, p.deliver(it.from.buf, it.from.records[it.records[0]:it.records[1]]))
	}
	news := p.told.See(it.h)
	p.buf, p.records = p.recorder.news(p.buf, p.records, it, news)
	if p.judge != nil {
		p.judge.Learn(it.h, news.Sighting || len(news.Certificates) > 0)
	}
	return errors.Join(err, p.deliver(p.buf, p.records))
}

// contacts takes the contacts of intervals that have ended. They are known before the
// handshakes of the same time.
func (p *Pipeline) contacts(ended ...*interval) {
	if p.judge == nil {
		return
	}
	all := p.met[:0]
	for _, v := range ended {
		all = append(all, v.contacts...)
	}
	p.met = all
	slices.SortFunc(all, func(a, b event.Contact) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), a.Server.Compare(b.Server), a.Client.Compare(b.Client), cmp.Compare(a.Transport, b.Transport))
	})
	for _, c := range all {
		p.judge.Contact(c)
	}
}

// remember adds to what was judged of a handshake what follows from those before,
// and reports whether rules must be asked again.
func (p *Pipeline) remember(it *item, before *alerted) (again bool) {
	defer p.failed.survive("judge a handshake", &p.ordered.unmatched)
	again, it.judged.Pending = it.judged.Pending, false
	if before != nil && before.judged { // once more today: the signature may have come since
		it.judged.KeyProof, _ = p.judge.KeyProof(it.h)
		it.judged.Transparency = p.judge.Transparency(it.h)
		again = true
	}
	return p.judge.See(it.h, it.judged) || again
}

// redo matches a handshake that its worker has matched by another generation than
// that of the stage that orders: there was a reload in between.
func (p *Pipeline) redo(it *item) (matches []rules.Match) {
	defer p.failed.survive("match rules", &p.ordered.unmatched)
	p.judged = judgement.Judgement{}
	if p.judge != nil {
		p.judge.Locate(it.h, &p.judged)
	}
	return p.match(it)
}

// match matches a handshake of which more is known now.
func (p *Pipeline) match(it *item) (matches []rules.Match) {
	defer p.failed.survive("match rules", &p.ordered.unmatched)
	clear(p.matches)
	p.matches = p.matcher.Match(it.h, it.judged, p.matches[:0])
	return p.matches
}

// raise makes the alert of a match, unless it is counted with those like one before.
func (p *Pipeline) raise(it *item, m *rules.Match) {
	p.hits.current[m.Rule]++
	id, from, raised := "", len(p.buf), p.sequence.admit(it, m)
	if p.config.Alert != nil {
		a := p.alertOf(p.recorder.alertID(it, m), m, !raised)
		p.config.Alert(it.h, &a)
	}
	if raised {
		if p.judge != nil {
			p.complete(it)
		}
		p.buf, p.records, id = p.recorder.alert(p.buf, p.records, it, m)
		p.sequence.suppressor.Raised(m, id)
	} else {
		id = m.Alert()
	}
	if p.config.Found != nil {
		p.found.Alerts = append(p.found.Alerts, p.alertOf(id, m, !raised))
		p.alerts = append(p.alerts, [2]int{from, len(p.buf)})
	}
	if p.judge != nil && Flags(m.Rule.Verdict) {
		f := judgement.Flagged{AlertID: id, Rule: m.Rule.Title, Verdict: m.Rule.Verdict, Level: m.Rule.Level, Time: it.h.End.Time}
		if len(it.h.Chain) > 0 && it.h.Chain[0].Certificate != nil {
			f.SHA256 = it.h.Chain[0].SHA256
		}
		p.judge.Flag(it.h, f)
	}
}

// alertOf is an alert, with the place of its evidence.
func (p *Pipeline) alertOf(id string, m *rules.Match, counted bool) finding.Alert {
	a := finding.Alert{ID: id, Match: m, Counted: counted}
	if place := p.config.Records.Evidence; place != nil && !counted && id != "" {
		a.Pack = place(id)
	}
	return a
}

// tell calls Found with a handshake and the alerts of it that were raised.
func (p *Pipeline) tell(it *item) {
	if p.config.Found == nil {
		return
	}
	f := &p.found
	defer func() {
		clear(f.Alerts)
		*f = finding.Finding{Alerts: f.Alerts[:0]}
		p.alerts = p.alerts[:0]
	}()
	if it.h.Unfinished && len(f.Alerts) == 0 {
		return
	}
	for i, at := range p.alerts { // now that p.buf is at its place
		if at[0] < at[1] {
			f.Alerts[i].Record = p.buf[at[0]:at[1]]
		}
	}
	if p.config.Frames != nil && len(f.Alerts) > 0 {
		p.config.Frames.Hold(frames.Of(it.h))
	}
	defer p.failed.survive("tell of a handshake", &p.ordered.untold)
	f.Handshake, f.Judged = it.h, it.judged
	p.config.Found(f)
}

// summarize makes and delivers the records of matches that were counted.
func (p *Pipeline) summarize(list []rules.Summary) error {
	if len(list) == 0 {
		return nil
	}
	p.buf, p.records = p.buf[:0], p.records[:0]
	for i := range list {
		p.buf, p.records = p.recorder.summary(p.buf, p.records, &list[i])
	}
	return p.deliver(p.buf, p.records)
}

// complete judges all that can be judged of a handshake.
func (p *Pipeline) complete(it *item) {
	defer p.failed.survive("judge a handshake", &p.ordered.unmatched)
	p.judge.Complete(it.h, it.judged)
}

// Flags reports whether a server is remembered for an alert with this verdict:
// another contact with it is worth an alert, even where it shows no certificate.
func Flags(verdict string) bool {
	switch verdict {
	case "disguise", "relayed", "forged", "copied", "weak-ca", "rogue-ca", "listed":
		return true
	}
	return false
}

// deliver gives records, whose bytes are in buf, to every output. What an output
// refuses is counted, there as well, and the others go on; it is an error when none
// will ever take a record again.
func (p *Pipeline) deliver(buf []byte, list []record) error {
	for i := range list {
		r := &list[i]
		p.delivered[r.dataset]++
		p.lent = r.stamp.Record(r.dataset, buf[r.from:r.to])
		gone := 0
		for _, o := range p.config.Outputs {
			if err := o.Write(&p.lent); err != nil {
				p.refused++
				if errors.Is(err, output.ErrGone) {
					gone++
				}
			}
		}
		if gone > 0 && gone == len(p.config.Outputs) {
			return output.ErrGone
		}
	}
	return nil
}

// stats makes and delivers the stats record of what was counted so far.
func (p *Pipeline) stats(c *output.Counters) error {
	if !p.config.Records.Datasets.Has(output.Stats) {
		return nil
	}
	buf, stamp, err := p.recorder.encoder.AppendStats(p.buf[:0], c)
	if err != nil {
		return fmt.Errorf("encode statistics: %w", err)
	}
	p.buf = buf
	return p.deliver(buf, []record{{output.Stats, stamp, 0, len(buf)}})
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
		p.name(b.Origin)
	}
	// One of the first two frames, and one of the last two, can have a wrong time.
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

// name notes the path of a capture.
func (p *Pipeline) name(o *event.Origin) {
	if o == nil || o.Path == "" || slices.Contains(p.captures[max(0, len(p.captures)-2):], o.Path) {
		return // the interfaces of one capture are origins of their own
	}
	if p.named += len(o.Path); p.named > maxCaptures {
		p.unnamed++
		return
	}
	p.captures = append(p.captures, o.Path)
}

// maxCaptures bounds the paths of captures that statistics name, in bytes: a folder
// may hold a million of them. The others are counted.
const maxCaptures = 64 << 10

// far reports whether two times are days apart.
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
	Sightings    uint64 `json:"sightings"`
	Hellos       uint64 `json:"hellos"`
	Alerts       uint64 `json:"alerts"`
	Stats        uint64 `json:"stats"`
	Refused      uint64 `json:"refused"`               // by an output
	Unrecorded   uint64 `json:"handshakes_unrecorded"` // unanswered hellos of a flood, left out; handshakes seen are this and Handshakes
	Unmatched    uint64 `json:"match_failures"`        // handshakes on which the matcher failed
	Untold       uint64 `json:"inventory_failures"`    // handshakes on which the inventory, evidence or the page failed
	Unencoded    uint64 `json:"encode_failures"`       // handshakes on which the encoder failed, so that records are missing
	Cut          uint64 `json:"cut_values"`            // of the lists that clients offer, left out of records
}

// Counters returns all that was counted, when the run is over.
func (p *Pipeline) Counters(source capture.Stats) *output.Counters {
	p.seen.Lock()
	c := &output.Counters{
		Time: p.config.Now().UnixNano(), Uptime: p.config.Now().Sub(p.begun), Stalled: p.stalled, Lag: p.lag, Start: p.start, End: max(p.end, p.packet), Captures: slices.Clone(p.captures), Unnamed: p.unnamed,
		Capture: source, Parser: p.total.parser, Told: p.told.Stats(),
	}
	if p.origins == 1 {
		c.Origin = p.origin
	}
	if p.config.Interfaces != nil {
		c.Interfaces = p.config.Interfaces()
	}
	p.seen.Unlock()
	if f := p.Failure(); f != nil {
		c.Failure = f.Where + ": " + f.Text
	}
	c.Rules = p.hits.list(p.generation.rules)
	c.NoTLS, c.Unread = p.total.unread.Lists()
	c.Weird = p.total.weirds.List()
	decoded := map[string]uint64{}
	for class, n := range p.total.decoded {
		decoded[decode.Class(class).String()] = n
	}
	c.Sections = []output.Section{
		{Name: "decoded", Value: decoded, Lost: []string{"malformed"}},
		{Name: "fragments", Value: p.total.fragments, Lost: []string{"held", "malformed", "oversized", "expired", "evicted", "discarded", "radio"}},
		{Name: "sctp", Value: p.total.messages, Lost: []string{"held", "evicted", "cut"}},
		{Name: "remembered", Value: p.total.remembered, Lost: []string{"evicted_stations", "evicted_rdp"}},
		{Name: "flows", Value: p.total.flows, Lost: []string{"evicted_undecided", "gaps", "gap_bytes", "cut_bytes", "held_limit", "parser_failures"}},
		{Name: "records", Value: recordCounts{
			Handshakes: max(p.delivered[output.Handshake], p.delivered[output.FullHandshake]), Certificates: p.delivered[output.Certificate], Sightings: p.delivered[output.Sighting],
			Hellos: p.delivered[output.Hello], Alerts: p.delivered[output.Alert], Stats: p.delivered[output.Stats],
			Refused: p.refused, Unrecorded: p.total.unrecorded + p.ordered.unrecorded,
			Untold:    p.ordered.untold,
			Unmatched: p.total.unmatched + p.ordered.unmatched + p.sequence.failures, Unencoded: p.total.unencoded + p.recorder.unencoded,
			Cut: p.total.cut + p.recorder.encoder.Cut(),
		}, Lost: []string{"refused", "handshakes_unrecorded", "match_failures", "inventory_failures", "encode_failures"}},
	}
	c.Sections = append(c.Sections, p.sequence.sections()...)
	if p.judge != nil {
		c.Sections = append(c.Sections, output.Section{Name: "memory", Value: p.judge.Stats(), Books: true, Lost: []string{"keys forgotten", "openvpn forgotten", "flagged forgotten", "intermediates_forgotten", "servers_forgotten"}})
	}
	if p.config.Frames != nil {
		c.Sections = append(c.Sections, output.Section{Name: "evidence_buffer", Value: p.config.Frames.Stats(), Books: true, Lost: []string{"given_up_early", "flows_early", "oversized", "incomplete"}})
	}
	if s := p.config.Keys; s != nil && s.Stats() != (keylog.Stats{}) {
		c.Sections = append(c.Sections, output.Section{Name: "keys", Value: s.Stats(), Lost: []string{"malformed", "evicted"}})
	}
	if p.config.Sections != nil {
		c.Sections = append(c.Sections, p.config.Sections()...)
	}
	return c
}

// Matched returns how often rules matched.
func (p *Pipeline) Matched() uint64 { return p.hits.sum() }

// stopped returns the error of a run that was told to stop.
func stopped(ctx context.Context) error { return context.Cause(ctx) }

// Failure returns the first panic of the run, nil when there was none. It is for
// after Replay or Live.
func (p *Pipeline) Failure() *flow.Failure { return p.failed.first.Load() }
