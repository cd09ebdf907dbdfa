package frames

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// table is the [Matcher] of flows: a hash table with chaining.
type table struct {
	heads []int32  // by the low bits of the key's hash: 1 + a number in flows
	flows []wanted // by their numbers

	// What the last call of Match has found beside: flows that p came shortly before,
	// those that have begun with p, and those of which nothing came before p.
	early, begun, apart []int
}

// wanted is a flow of the table and where in it the search is.
type wanted struct {
	Flow
	key    decode.Key
	next   int32 // in the chain, 1 + a number in flows
	series int
	begun  bool // From was reached
	over   bool // its last frame was reached

	early  *datagram // frames before From that are of the flow if nothing divides them from it
	seq    uint32    // of its SYN
	opened bool      // seq is known
	data   bool      // there was a payload
	fins   uint8     // a bit for each direction that was closed
	last   int64     // flow time of its last packet
}

// newTable returns a table of flows. Those that no frame can have match nothing.
func newTable(flows []Flow) *table {
	size := 64
	for size < 4*len(flows) {
		size *= 2
	}
	t := &table{heads: make([]int32, size), flows: make([]wanted, len(flows))}
	for i := len(flows) - 1; i >= 0; i-- { // so that the chains rise
		key, ok := decode.NewKey(flows[i].Transport, flows[i].Endpoints[0], flows[i].Endpoints[1])
		if !ok {
			continue
		}
		head := t.head(key.Hash())
		t.flows[i] = wanted{Flow: flows[i], key: key, next: *head}
		*head = int32(i) + 1
	}
	return t
}

func (t *table) head(hash uint32) *int32 { return &t.heads[hash&uint32(len(t.heads)-1)] }

// Match appends the numbers of the flows that p is of.
func (t *table) Match(p *decode.Packet, b *capture.Batch, of []int) []int {
	for i := *t.head(p.Hash); i != 0; {
		w := &t.flows[i-1]
		if w.key == p.Key && t.takes(int(i)-1, w, p, b) {
			of = append(of, int(i)-1)
		}
		i = w.next
	}
	return of
}

// takes reports whether p, a packet between the endpoints of w, is of the flow.
func (t *table) takes(n int, w *wanted, p *decode.Packet, b *capture.Batch) bool {
	f := p.Frame
	switch {
	case w.over:
		return false
	case w.From == (event.Moment{}):
	case !w.begun:
		if w.Origin != nil && !same(w.Origin, b.Origin) {
			return false
		}
		if !reached(w.From, f) {
			if w.From.Frame == 0 && f.Time >= w.From.Time-earlier {
				if w.another(p) {
					t.apart = append(t.apart, n)
				}
				t.early = append(t.early, n)
			}
			return false
		}
		if w.another(p) {
			t.apart = append(t.apart, n)
		}
		t.begun = append(t.begun, n)
		w.begun, w.series = true, b.Series
	case b.Series != w.series, w.another(p) && w.To == (event.Moment{}):
		w.over = true
		return false
	}
	switch {
	case w.To == (event.Moment{}):
	case w.To.Frame == 0:
		return f.Time <= w.To.Time
	case f.Number == w.To.Frame && f.Time == w.To.Time:
		w.over = true
	case f.Time > w.To.Time+disorder && f.Number >= w.To.Frame:
		w.over = true
		return false
	}
	return true
}

// reached reports whether f is at m or after it.
func reached(m event.Moment, f *capture.Frame) bool {
	if m.Frame == 0 {
		return f.Time >= m.Time
	}
	return f.Number == m.Frame && f.Time == m.Time || f.Time > m.Time+disorder
}

// another reports whether p begins another flow on the same endpoints than that of the
// packets before, and notes what p says of its flow.
func (w *wanted) another(p *decode.Packet) (another bool) {
	silence := p.Frame.Clock - w.last
	if w.last == 0 {
		silence = 0
	}
	w.last = p.Frame.Clock
	if p.Transport != event.TCP {
		return silence >= silenceOther
	}
	if p.Flags&(decode.FlagSYN|decode.FlagACK|decode.FlagRST) == decode.FlagSYN && (!w.opened || p.Seq != w.seq) {
		// Before From, a SYN after data begins the flow that the tracker has seen begin.
		another = w.fins == 3 || silence >= silenceTCP || !w.begun && w.data
		if another || !w.opened {
			w.seq, w.opened, w.fins, w.data = p.Seq, true, 0, false
		}
	}
	w.data = w.data || len(p.Payload)+p.Missing > 0
	switch {
	case p.Flags&decode.FlagRST != 0:
		w.fins = 3
	case p.Flags&decode.FlagFIN != 0 && p.Swapped:
		w.fins |= 1
	case p.Flags&decode.FlagFIN != 0:
		w.fins |= 2
	}
	return another
}

// same reports whether frames of o come from where those of w do.
func same(w, o *event.Origin) bool {
	return w == o || w.Path == o.Path && (w.Path != "" || w.Interface == o.Interface)
}
