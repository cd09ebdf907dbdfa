package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
)

// Config is what a [Collector] is made of.
type Config struct {
	Folder  *Folder
	Sensor  Sensor
	Secrets bool // packs have the secrets that opened the handshake
	// Losses returns what the sensor has lost so far.
	Losses func() Losses
	// Hash returns the SHA-256 of a whole capture file, lower-case hex, and its size.
	Hash func(ctx context.Context, path string) (sum string, size int64, err error)
	// Warn is told when packs cannot be written, and when they can again.
	Warn func(error)
	Now  func() time.Time // the wall clock; nil for time.Now
}

// Stats counts what became of alerts.
type Stats struct {
	Packs      uint64 `json:"packs"`
	Bytes      uint64 `json:"bytes"`      // of these
	Existing   uint64 `json:"existing"`   // alerts of which there was a pack already, or one in the making
	Differing  uint64 `json:"differing"`  // packs that were there already, with others: they were not replaced
	Incomplete uint64 `json:"incomplete"` // packs that lack frames
	Failed     uint64 `json:"failed"`     // packs that could not be written
	OverSize   uint64 `json:"over_size"`  // packs for which the folder had no room
	GivenUp    uint64 `json:"given_up"`   // alerts that got no pack because too many waited
	Suppressed uint64 `json:"suppressed"` // alerts that are counted in the pack of another
	Waiting    uint64 `json:"waiting"`    // alerts whose packs are not written yet
}

// Lost names the fields of [Stats] that count something lost.
var Lost = []string{"differing", "incomplete", "failed", "over_size", "given_up"}

// Collector takes findings and writes packs. Its methods may be called by several
// goroutines.
type Collector struct {
	config Config

	mu      sync.Mutex
	waiting map[*rules.Rule][]*alert // in the order in which they came
	byID    map[string]*alert
	goesOn  map[*event.Notes][]*alert // those of handshakes that are unfinished
	bytes   int
	ready   chan struct{} // holds one when an alert can be written

	failing bool // the last pack could not be written
	stats   struct{ packs, bytes, existing, differing, incomplete, failed, overSize, givenUp, suppressed atomic.Uint64 }
}

// NewCollector returns a collector that has seen nothing.
func NewCollector(c Config) *Collector {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Collector{config: c, waiting: map[*rules.Rule][]*alert{}, byID: map[string]*alert{}, goesOn: map[*event.Notes][]*alert{}, ready: make(chan struct{}, 1)}
}

// Stats returns the counters so far.
func (c *Collector) Stats() Stats {
	c.mu.Lock()
	waiting := len(c.byID)
	c.mu.Unlock()
	s := &c.stats
	return Stats{s.packs.Load(), s.bytes.Load(), s.existing.Load(), s.differing.Load(), s.incomplete.Load(), s.failed.Load(), s.overSize.Load(), s.givenUp.Load(), s.suppressed.Load(), uint64(waiting)}
}

// See takes a finding, which is lent. It never waits.
func (c *Collector) See(f *finding.Finding) {
	h := f.Handshake
	if len(f.Alerts) == 0 && h.Notes == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Notes != nil && !h.Unfinished {
		for _, a := range c.goesOn[h.Notes] {
			c.bytes -= a.size()
			a.handshake(h)
			c.bytes += a.size()
		}
		delete(c.goesOn, h.Notes)
	}
	for i := range f.Alerts {
		a := &f.Alerts[i]
		if a.ID == "" {
			continue
		}
		if a.Counted {
			c.stats.suppressed.Add(1)
			if with := c.byID[a.ID]; with != nil {
				with.suppressed++
			}
			continue
		}
		if c.byID[a.ID] != nil { // the same event, in a copy of the capture
			c.stats.existing.Add(1)
			continue
		}
		c.add(newAlert(f, a))
	}
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// add has a wait, and gives up others where too much waits.
func (c *Collector) add(a *alert) {
	a.since = c.config.Now()
	c.waiting[a.rule] = append(c.waiting[a.rule], a)
	c.byID[a.id] = a
	c.bytes += a.size()
	if a.unfinished != nil {
		c.goesOn[a.unfinished] = append(c.goesOn[a.unfinished], a)
	}
	for c.bytes > maxQueue && len(c.byID) > 1 {
		var least *rules.Rule
		for r, list := range c.waiting {
			if least == nil || cmp.Or(cmp.Compare(r.RiskScore, least.RiskScore), cmp.Compare(len(c.waiting[least]), len(list)), cmp.Compare(r.ID, least.ID)) < 0 {
				least = r
			}
		}
		c.remove(c.waiting[least][0])
		c.stats.givenUp.Add(1)
	}
}

// remove has a wait no longer.
func (c *Collector) remove(a *alert) {
	c.bytes -= a.size()
	delete(c.byID, a.id)
	if list := slices.DeleteFunc(c.waiting[a.rule], func(b *alert) bool { return a == b }); len(list) > 0 {
		c.waiting[a.rule] = list
	} else {
		delete(c.waiting, a.rule)
	}
	if a.unfinished != nil {
		if list := slices.DeleteFunc(c.goesOn[a.unfinished], func(b *alert) bool { return a == b }); len(list) > 0 {
			c.goesOn[a.unfinished] = list
		} else {
			delete(c.goesOn, a.unfinished)
		}
	}
}

// take returns the alerts that can be written, in the order of their handshakes, and has
// them wait no longer. Those of a handshake that goes on wait for its end, but not for
// ever.
func (c *Collector) take(all bool) (list []*alert) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Now()
	for _, a := range c.byID {
		if all || a.unfinished == nil || now.Sub(a.since) >= patience {
			list = append(list, a)
		}
	}
	for _, a := range list {
		c.remove(a)
	}
	slices.SortFunc(list, func(a, b *alert) int { return cmp.Or(cmp.Compare(a.end.Time, b.end.Time), cmp.Compare(a.id, b.id)) })
	return list
}

// Buffer holds frames that have come lately.
type Buffer interface {
	// Frames returns those of a flow that are held, in the order of capture, and whether
	// these are all.
	Frames(frames.Flow) (list []frames.Frame, complete bool)
}

// Follow writes packs of the frames in a buffer while alerts come, until ctx is done, and
// then those that still wait.
func (c *Collector) Follow(ctx context.Context, buffer Buffer) {
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
		case <-c.ready:
		case <-tick.C:
		}
		b := batch{c: c}
		for _, a := range c.take(over) {
			wanted := a.wanted
			if a.forged {
				wanted.From, wanted.To = event.Moment{}, event.Moment{}
			}
			list, complete := buffer.Frames(wanted)
			p := &pack{alert: a}
			if !complete {
				p.missing = "some had not come, or the buffer had no room for them any more"
			}
			for i := range list {
				p.add(&list[i])
			}
			b.add(context.WithoutCancel(ctx), p)
		}
		b.write()
	}
}

// Cut finds the frames of flows: of is the numbers of the flows that each frame is of.
type Cut func(ctx context.Context, flows []frames.Flow, each func(f *frames.Frame, of []int) error) error

// Look writes the packs of all alerts so far from a second look at the captures, which
// are read once.
func (c *Collector) Look(ctx context.Context, cut Cut) error {
	list := c.take(true)
	if len(list) == 0 {
		return nil
	}
	flows, packs := make([]frames.Flow, len(list)), make([]*pack, len(list))
	for i, a := range list {
		flows[i], packs[i] = a.wanted, &pack{alert: a}
		if a.forged {
			flows[i].From.Time -= int64(before)
			flows[i].To = event.Moment{}
		}
	}
	b := batch{c: c}
	open, held := map[*pack]bool{}, 0 // those with frames that are not written, and the bytes of these
	done := func(p *pack, missing string) {
		delete(open, p)
		held -= p.bytes
		p.missing = cmp.Or(p.missing, missing)
		b.add(ctx, p)
		p.list, p.written = nil, true
	}
	err := cut(ctx, flows, func(f *frames.Frame, of []int) error {
		for _, i := range of {
			p := packs[i]
			if p.written {
				continue
			}
			open[p] = true
			had := p.bytes
			full := p.add(f)
			if held += p.bytes - had; full {
				done(p, "")
			}
		}
		for held > maxHeld {
			var most *pack
			for p := range open {
				if most == nil || p.bytes > most.bytes {
					most = p
				}
			}
			done(most, unlessEnded(most, "too many frames were wanted at the same time"))
		}
		return nil
	})
	missing := "the last of the handshake were not found in the capture"
	if err != nil {
		missing = "the capture could not be read to its end once more"
	}
	for _, p := range packs {
		if !p.written {
			done(p, unlessEnded(p, missing))
		}
	}
	b.write()
	if err != nil {
		return fmt.Errorf("read the frames of alerts: %w", err)
	}
	return nil
}

// unlessEnded is why frames are missing, if the handshake is not there to its end.
func unlessEnded(p *pack, missing string) string {
	if p.ended {
		return ""
	}
	return missing
}

// batch is packs that are written together.
type batch struct {
	c     *Collector
	list  []*entry
	lack  []bool // frames, for each of them
	files int
	bytes int64
}

// add adds a pack. Where there are enough of them, they are written.
func (b *batch) add(ctx context.Context, p *pack) {
	m, files, err := b.c.build(ctx, p)
	if err != nil {
		b.c.count(&entry{manifest: m, err: err}, false)
		return
	}
	b.list, b.lack = append(b.list, &entry{manifest: m, files: files}), append(b.lack, p.missing != "")
	b.files += len(files)
	b.bytes += bytesOf(files)
	if len(b.list) >= maxBatch || b.files >= maxBatchFiles || b.bytes >= maxBatchBytes {
		b.write()
	}
}

// write writes the packs, and begins another batch.
func (b *batch) write() {
	if len(b.list) == 0 {
		return
	}
	b.c.config.Folder.write(b.list)
	for i, e := range b.list {
		b.c.count(e, b.lack[i])
	}
	*b = batch{c: b.c}
}

// count counts what became of a pack, which may lack frames.
func (c *Collector) count(e *entry, lacks bool) {
	s := &c.stats
	m, err := e.manifest, e.err
	switch {
	case err == nil:
		s.packs.Add(1)
		s.bytes.Add(uint64(e.size))
		if lacks {
			s.incomplete.Add(1)
		}
		if c.failing {
			c.failing = false
			c.config.Warn(errors.New("evidence: packs are written again"))
		}
		return
	case errors.Is(err, errThere):
		if same(e.there, e.files) {
			s.existing.Add(1)
			return
		}
		s.differing.Add(1)
		c.config.Warn(fmt.Errorf("evidence: %s has another alert or other frames than those of now; it is not replaced", c.config.Folder.Name(m.ID)))
		return
	case errors.Is(err, errFull):
		s.overSize.Add(1)
		err = fmt.Errorf("%w (--evidence-size): move packs elsewhere, or allow more", err)
	default:
		s.failed.Add(1)
	}
	if !c.failing {
		c.failing = true
		c.config.Warn(fmt.Errorf("evidence: the alert %s has no pack, and more may follow: %w", m.ID, err))
	}
}

// same reports whether two packs have the same alert, certificates and frames.
func same(a, b []file) bool {
	for _, f := range b {
		if f.name != textName && f.name != ruleName && string(find(a, f.name)) != string(f.data) {
			return false
		}
	}
	return true
}
