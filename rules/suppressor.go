package rules

import (
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// suppression says which matches of a rule are alike, and for how long they are
// counted instead of raised.
type suppression struct {
	by   []*field
	span int64 // nanoseconds
}

// suppress reads the attribute of oddcert with this name.
func (d *document) suppress(e *entry) {
	entries, ok := d.entries(e.value)
	if !ok || find(entries, "by") == nil || find(entries, "for") == nil {
		d.problem(e.place, e.key, "suppress must be a map of by and for, such as {by: [server.ip], for: 1h}")
		return
	}
	s := new(suppression)
	for i := range entries {
		switch e := &entries[i]; e.key {
		case "by":
			for _, name := range d.oneOrMore(e, maxGroupBy) {
				s.by = append(s.by, d.fieldFor(name))
			}
		case "for":
			if of, ok := d.text(e.value, e.key); ok {
				s.span = d.duration(of, minSuppression, maxSuppression)
			}
		default:
			d.problem(e.place, e.key, "is not an attribute of suppress%s", didYouMean(nearest(e.key, []string{"by", "for"})))
		}
	}
	d.rule.suppress = s
}

// Suppressor counts matches that are like one that was raised shortly before: of
// the same rule, with the same values of the fields that the rule names. A field
// with several values has all of them compared, and one without a value is like
// another without one. It looks at matches in the order of time, and belongs to one
// goroutine.
//
// A match that is raised begins a window. Up to the rule's time later, the end
// included, those like it are counted, and when packet time has passed the end, or
// there is no room for the window any more, the count is told. So each match is
// raised or counted in one summary.
type Suppressor struct {
	limit   int     // of memory
	m       Matcher // in which fields are looked up
	windows map[groupKey]*window
	ends    windowHeap
	over    []*window // before their time: the next Due tells them
	memory  int
	begun   uint64 // how many windows there were
	now     int64  // the time of what came last
	stats   SuppressionStats
}

// SuppressionStats counts what a [Suppressor] did.
type SuppressionStats struct {
	Windows    int    `json:"windows"`    // now
	Memory     int    `json:"memory"`     // bytes that they hold
	Suppressed uint64 `json:"suppressed"` // matches
	Summaries  uint64 `json:"summaries"`  // with their counts
	GivenUp    uint64 `json:"given_up"`   // windows for which there was no room: their counts are told, and what follows is raised
}

// Summary is what became of the matches like one that was raised.
type Summary struct {
	Rule       *Rule
	By         []ByValue // the fields by which they are alike, in the order of the rule
	Count      uint64    // of the matches that were not raised; at least 1
	First      int64     // time of the first of them; nanoseconds since the Unix epoch, like all times here
	Last       int64     // of the last
	Raised     int64     // of the one that was raised
	Time       int64     // when the window ended
	FirstAlert string    // event.id of what was raised; empty when nobody has told it

	Origin *event.Origin // of the handshake that was raised
}

// window is the time after a match that was raised.
type window struct {
	Summary
	key   groupKey
	end   int64
	seq   uint64 // orders windows that end together
	place int    // in the heap
}

// windowOverhead is the memory of a window beside its texts, with its place in the
// map and the heap.
const windowOverhead = 400

func (w *window) memory() int {
	n := windowOverhead
	for _, v := range w.By {
		n += 32 + len(v.Value)
	}
	return n
}

// NewSuppressor returns a suppressor that has seen nothing. It asks judge where rules
// name what is not judged yet; nil is for nobody. share is as for
// [Set.NewCorrelator].
func NewSuppressor(judge judgement.Judge, share float64) *Suppressor {
	return &Suppressor{m: Matcher{judge: judge}, limit: int(maxSuppressionMemory * share), windows: make(map[groupKey]*window)}
}

// Use makes s look at the matches of another set from now on. The windows of rules
// that say the same there go on; those of the others end, and the next Due tells what
// they have counted.
func (s *Suppressor) Use(set *Set) {
	var ended []*window
	for _, w := range s.windows {
		if now := set.same(w.Rule); now != nil {
			w.Rule = now
		} else {
			ended = append(ended, w)
		}
	}
	slices.SortFunc(ended, func(a, b *window) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.seq, b.seq)) })
	for _, w := range ended {
		s.finish(w)
	}
}

// Stats returns what was counted so far.
func (s *Suppressor) Stats() SuppressionStats {
	stats := s.stats
	stats.Windows, stats.Memory = len(s.windows), s.memory
	return stats
}

// Admit reports whether a match of h is to be raised now; else it is counted. j is
// what was judged of h, and may be nil. Of h only its origin is kept.
func (s *Suppressor) Admit(h *event.Handshake, j *judgement.Judgement, m *Match) bool {
	if m.Rule.suppress == nil {
		return true
	}
	t := h.End.Time
	s.now = t
	s.m.see(h, j)
	key := s.key(m)
	if w := s.windows[key]; w != nil {
		if within(t, w.Raised, m.Rule.suppress.span) {
			if w.Count++; w.Count == 1 {
				w.First, w.Last = t, t
			}
			w.First, w.Last = min(w.First, t), max(w.Last, t)
			s.stats.Suppressed++
			m.window = w
			s.m.see(nil, nil)
			return false
		}
		s.finish(w)
	}
	w := &window{key: key, seq: s.begun, end: t + m.Rule.suppress.span, Summary: Summary{Rule: m.Rule, Raised: t}}
	if h.Flow != nil {
		w.Origin = h.Flow.Origin
	}
	if w.end < t {
		w.end = math.MaxInt64
	}
	found := evidenceOf(m)
	for _, f := range m.Rule.suppress.by {
		value := ""
		if s.m.beginAt(f, placeIn(f, m)); len(s.m.values) > 0 {
			value = s.m.all(f, found)
		}
		w.By = append(w.By, ByValue{f.name, value})
	}
	s.m.see(nil, nil)
	s.begun++
	s.windows[key] = w
	heap.Push(&s.ends, w)
	s.memory += w.memory()
	for s.memory > s.limit && len(s.ends) > 1 {
		old := s.ends[0]
		if old == w {
			old = s.ends[1] // the next but one to end, or nearly
		}
		s.stats.GivenUp++
		s.finish(old)
	}
	m.window = w
	return true
}

// key returns a hash of the rule of a match and of what makes matches alike.
func (s *Suppressor) key(m *Match) groupKey {
	sum := sha256.New()
	sum.Write([]byte(m.Rule.ID))
	var size [4]byte
	for _, f := range m.Rule.suppress.by {
		for s.m.beginAt(f, placeIn(f, m)); len(s.m.values) > 0; s.m.next(f) {
			for i := range s.m.values {
				s.m.key = f.appendKey(s.m.key[:0], &s.m.values[i])
				binary.BigEndian.PutUint32(size[:], uint32(len(s.m.key)))
				sum.Write(size[:])
				sum.Write(s.m.key)
			}
		}
		sum.Write([]byte{0xff, 0xff, 0xff, 0xff}) // no value has this length
	}
	var full [sha256.Size]byte
	return groupKey(sum.Sum(full[:0])[:16])
}

// Raised tells the id of the alert that was made of a match that was admitted, for
// the summary of those that follow.
func (s *Suppressor) Raised(m *Match, id string) {
	if m.window != nil {
		m.window.FirstAlert = id
	}
}

// Alert returns the event.id of the alert that was raised for a match like m, where m
// was counted and somebody told the id; else it is empty.
func (m *Match) Alert() string {
	if m.window == nil {
		return ""
	}
	return m.window.FirstAlert
}

// finish ends a window. Where it has counted, the next Due tells that.
func (s *Suppressor) finish(w *window) {
	delete(s.windows, w.key)
	heap.Remove(&s.ends, w.place)
	s.memory -= w.memory()
	if w.Count > 0 {
		w.Time = min(w.end, s.now)
		s.over = append(s.over, w)
	}
}

// Due appends the summaries of the windows that have ended before the packet time
// now, in the order in which they ended, and returns dst.
func (s *Suppressor) Due(now int64, dst []Summary) []Summary {
	if len(s.ends) == 0 && len(s.over) == 0 {
		return dst
	}
	s.now = now
	for len(s.ends) > 0 && s.ends[0].end < now {
		s.finish(s.ends[0])
	}
	return s.tell(dst)
}

// Flush appends the summaries of all windows, and forgets them: what follows has
// nothing to do with what came before.
func (s *Suppressor) Flush(dst []Summary) []Summary {
	for len(s.ends) > 0 {
		s.finish(s.ends[0])
	}
	dst = s.tell(dst)
	s.now = 0
	return dst
}

func (s *Suppressor) tell(dst []Summary) []Summary {
	for _, w := range s.over {
		dst = append(dst, w.Summary)
	}
	s.stats.Summaries += uint64(len(s.over))
	clear(s.over)
	s.over = s.over[:0]
	return dst
}

// windowHeap has the window first that ends first.
type windowHeap []*window

func (h windowHeap) Len() int { return len(h) }

func (h windowHeap) Less(i, j int) bool {
	if h[i].end != h[j].end {
		return h[i].end < h[j].end
	}
	return h[i].seq < h[j].seq
}

func (h windowHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push and Pop are for package heap.
func (h *windowHeap) Push(x any) {
	w := x.(*window)
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *windowHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
