package frames

import (
	"cmp"
	"slices"
	"sync"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// Buffer keeps the frames of flows from which an alert may still come, where there is
// no capture file to look at again. Its memory is bounded. The frames of a flow are
// copied from the first on, up to that which decides the flow. Those whose packets are
// idle (see [decode.Packet.Idle]), such as bare acknowledgements, are not: no parser
// reads a byte of them.
//
// Flows that are decided and have raised no alert are removed when there are some times
// as many frames as those of other flows are, and an eighth of the memory is in use. Where
// that does not make room enough, a quarter of all at least is removed: what the groups
// take that take most: fragments, flows without payload, undecided ones, those of which
// not all alerts are known, those with an alert.
// Of a group the oldest flows go, and before them those of one source that takes more
// than half of it. So a flood of whatever kind pushes out itself.
//
// Any goroutine may call its methods.
type Buffer struct {
	size  int
	mu    sync.Mutex // for what follows
	parts []*Part
	stats BufferStats // of the questions
}

// BufferStats counts the frames that were copied by what became of them: Copied is the
// sum of Held, GivenUp and GivenUpEarly.
type BufferStats struct {
	Copied       uint64 `json:"copied"`         // frames
	CopiedBytes  uint64 `json:"copied_bytes"`   // of these frames
	Held         uint64 `json:"held"`           // frames that are there now
	HeldBytes    uint64 `json:"held_bytes"`     // memory that they take now
	GivenUp      uint64 `json:"given_up"`       // frames of flows that were over, and that nobody has asked for
	GivenUpEarly uint64 `json:"given_up_early"` // frames of flows that might still have raised an alert, or that have
	FlowsEarly   uint64 `json:"flows_early"`    // flows with such frames
	Oversized    uint64 `json:"oversized"`      // frames that were not copied because they take too much of the memory
	Asked        uint64 `json:"asked"`          // flows that were asked for
	Incomplete   uint64 `json:"incomplete"`     // of these, flows of which frames were missing
}

// Add adds o to s.
func (s *BufferStats) Add(o BufferStats) {
	s.Copied += o.Copied
	s.CopiedBytes += o.CopiedBytes
	s.Held += o.Held
	s.HeldBytes += o.HeldBytes
	s.GivenUp += o.GivenUp
	s.GivenUpEarly += o.GivenUpEarly
	s.FlowsEarly += o.FlowsEarly
	s.Oversized += o.Oversized
	s.Asked += o.Asked
	s.Incomplete += o.Incomplete
}

// NewBuffer returns an empty buffer that takes at most size bytes of memory, and not less
// than MinBuffer.
func NewBuffer(size int) *Buffer { return &Buffer{size: max(size, MinBuffer)} }

// Parts divides the memory among n goroutines that track flows, each of which gets a part
// of its own. Where another one decodes all fragments, it gets the part pieces; else that
// is nil. Parts is called once, before the first frame.
func (b *Buffer) Parts(n int, dispatched bool) (parts []*Part, pieces *Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	size := b.size
	if dispatched {
		pieces = newPart(size / sharePieces)
		size -= size / sharePieces
	}
	for range n {
		parts = append(parts, newPart(size/n))
	}
	b.parts = parts
	if dispatched {
		b.parts = append(b.parts[:n:n], pieces)
	}
	return parts, pieces
}

// Stats returns what was counted so far.
func (b *Buffer) Stats() BufferStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	for _, p := range b.parts {
		p.mu.Lock()
		s.Add(p.stats)
		s.HeldBytes += uint64(p.taken())
		p.mu.Unlock()
	}
	return s
}

// Frames returns the frames of a flow that are there, in the order of capture: from the
// first packet of the flow to the frame at f.To, with all fragments that they came in.
// The caller owns them. It is complete unless frames of the flow in between were given
// up, or the last has not come or was never kept. Idle frames, and those that the
// capture has lost or withheld, are not missed here.
func (b *Buffer) Frames(f Flow) (list []Frame, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if key, ok := decode.NewKey(f.Transport, f.Endpoints[0], f.Endpoints[1]); ok {
		for _, p := range b.parts {
			part, whole := p.frames(&key, &f)
			if whole && !complete || whole == complete && len(part) > len(list) {
				list, complete = part, whole
			}
		}
	}
	b.stats.Asked++
	if !complete {
		b.stats.Incomplete++
	}
	return list, complete
}

// Hold keeps the frames of a flow, which has raised an alert, longer than those of other
// flows.
func (b *Buffer) Hold(f Flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		p.Hold(f)
	}
}

// Fate is what became of the flow of a packet.
type Fate uint8

// The fates. First is set beside one of the others.
const (
	Unfollowed Fate = iota // nobody has looked, or the packet changes nothing
	Undecided              // the flow may still raise an alert
	Over                   // the flow is decided or at its end
	Shown                  // the same, and the packet has ended a handshake
	Unwanted               // the packet is not to be kept

	First Fate = 1 << 7 // the packet is the first of a flow
)

// Part is the share of a [Buffer] that one goroutine fills.
type Part struct {
	mu sync.Mutex // for all that follows
	store
	origins []*event.Origin
	origin  uint16 // in origins, of the last frame
}

func newPart(size int) *Part {
	p := new(Part)
	p.store.init(size)
	return p
}

// Take takes packets, in the order of capture and all of one origin, with the fates of
// their flows. pieces has the fragments that they came in: the part that the goroutine
// fills which has decoded them. Everything is lent; what is kept is copied.
func (p *Part) Take(packets []decode.Packet, fates []Fate, origin *event.Origin, pieces *Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from(origin)
	for i := range packets {
		p.take(&packets[i], fates[i], pieces)
	}
}

// from notes where the next frames come from.
func (p *Part) from(origin *event.Origin) {
	if p.known(origin) {
		return
	}
	p.giveUpAll()
	clear(p.origins)
	p.origins = append(p.origins[:0], origin)
	p.origin = 0
}

// known notes where the next frames come from, and reports whether there was room for
// that.
func (p *Part) known(origin *event.Origin) bool {
	if int(p.origin) < len(p.origins) && p.origins[p.origin] == origin {
		return true
	}
	i := slices.Index(p.origins, origin)
	if i < 0 {
		if i = len(p.origins); i == limitOrigins {
			return false
		}
		p.origins = append(p.origins, origin)
	}
	p.origin = uint16(i)
	return true
}

// take takes one packet.
func (p *Part) take(q *decode.Packet, fate Fate, pieces *Part) {
	first := fate&First != 0
	fate &^= First
	if fate == Unwanted || first && fate == Over {
		return
	}
	p.now = max(p.now, q.Frame.Clock)
	var bits uint8
	if first {
		bits = opens
	}
	if len(q.Payload)+q.Missing > 0 {
		bits |= payload
	}
	if q.Swapped {
		bits |= swapped
	}
	if n := len(p.records); n > 0 {
		// A frame that holds several packets of a flow is copied once.
		if r := &p.records[n-1]; r.number == q.Frame.Number && r.origin == p.origin && r.bits&(carrier|mark) == 0 && r.key == q.Key {
			r.fate = max(r.fate, fate)
			r.bits |= bits
			return
		}
	}
	if id := q.Assembled(); id != 0 {
		bits |= p.join(&q.Key, q.Hash, bits&swapped, id, pieces)
	}
	p.add(&q.Key, q.Hash, q.Frame, p.origin, fate, bits)
}

// Pieces takes a frame that holds pieces of fragmented datagrams, as [decode.Decoder]
// has named them, before the packet that they make.
func (p *Part) Pieces(f *capture.Frame, origin *event.Origin, pieces []decode.Piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from(origin)
	p.now = max(p.now, f.Clock)
	for _, piece := range pieces {
		key := pieceKey(piece.Of)
		bits := uint8(carrier)
		if piece.In != 0 && piece.In != piece.Of {
			bits |= p.join(&key, key.Hash(), 0, piece.In, p)
		}
		p.add(&key, key.Hash(), f, p.origin, Unfollowed, bits)
	}
}

// End ends an interval, and returns the number by which Judged knows it. Numbers begin
// anew after 65,536 intervals.
func (p *Part) End() (interval uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	interval = p.interval
	p.interval++
	return interval
}

// Judged says that all alerts are known of the flows that were decided until an interval
// has ended: of those without one nobody will ask. Any goroutine may say so.
func (p *Part) Judged(interval uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judged = interval
}

// pieceKey is the key under which the frames of a fragmented datagram are.
func pieceKey(id uint64) (k decode.Key) {
	k.Low[0] = id
	k.Stack = stackPiece
	return k
}

// stackPiece is what no flow has.
const stackPiece = 1 << 31

func isPiece(k *decode.Key) bool { return k.Stack == stackPiece }

// join adds the frames that a datagram came in to a flow, with the bit swapped or not. It
// returns torn where some are missing.
func (p *Part) join(key *decode.Key, hash uint32, way uint8, id uint64, from *Part) (bits uint8) {
	if from != p {
		from.mu.Lock()
		defer from.mu.Unlock()
	}
	list, whole := from.chain(id)
	size := 0
	for _, i := range list {
		size += int(from.records[i].captured)
	}
	if !p.fits(len(list), size) {
		p.makeRoom(len(list), size)
		if !p.fits(len(list), size) {
			return torn
		}
		list, whole = from.chain(id) // p may be from
	}
	if !whole {
		bits = torn
	}
	origin := p.origin
	for k := len(list) - 1; k >= 0; k-- {
		r := from.records[list[k]]
		switch {
		case r.bits&mark != 0:
		case !p.known(from.origins[r.origin]):
			bits = torn
		default:
			p.add(key, hash, &capture.Frame{Data: from.bytes(&r), Time: r.time, Number: r.number, Length: r.length, LinkType: r.linkType()}, p.origin, Unfollowed, carrier|way)
		}
	}
	if len(list) > 0 {
		from.records[list[0]].bits |= joined
	}
	p.origin = origin
	return bits
}

// Hold is [Buffer.Hold] for flows of this part.
func (p *Part) Hold(f Flow) {
	key, ok := decode.NewKey(f.Transport, f.Endpoints[0], f.Endpoints[1])
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(&key, key.Hash(), new(capture.Frame), p.origin, Unfollowed, mark|hold)
}

// frames is [Buffer.Frames] for flows of this part.
func (p *Part) frames(key *decode.Key, f *Flow) (list []Frame, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.of(key)
	first, last := p.span(all, f)
	complete = first >= 0 && last >= 0
	var found []Frame
	for i, n := range all {
		r := &p.records[n]
		origin := p.origins[r.origin]
		switch {
		case i < first, last >= 0 && i > last, first < 0 && r.time < f.From.Time, last < 0 && f.To.Time != 0 && r.time > f.To.Time:
			continue
		case r.bits&torn != 0, i < last && r.fate >= Over:
			complete = false // what comes when a flow is decided is not kept
		}
		if r.bits&mark == 0 && sameCapture(f.Origin, origin) {
			found = append(found, Frame{Origin: origin, Number: r.number, Time: r.time, Length: r.length, LinkType: r.linkType(), Data: slices.Clone(p.bytes(r))})
		}
	}
	return inOrder(found), complete
}

// of returns the records of a flow, and of others on the same five-tuple.
func (p *Part) of(key *decode.Key) (all []int) {
	hash := key.Hash()
	for i, h := range p.hashes {
		if h == hash && p.records[i].key == *key && p.records[i].bits&hold == 0 {
			all = append(all, i)
		}
	}
	return all
}

// span returns where in all, its records, the flow f begins, and where its last frame is;
// -1 where that is not there.
func (p *Part) span(all []int, f *Flow) (first, last int) {
	first, last = -1, len(all)-1
	if f.To != (event.Moment{}) {
		for ; last >= 0; last-- {
			r := &p.records[all[last]]
			if r.number == f.To.Frame && r.time == f.To.Time && r.bits&carrier == 0 && sameCapture(f.Origin, p.origins[r.origin]) {
				break
			}
		}
	}
	for i := last; i >= 0; i-- {
		r := &p.records[all[i]]
		if r.bits&opens == 0 {
			continue
		}
		begin := p.begin(all, i)
		if r.time == f.From.Time || f.From == (event.Moment{}) && begin == 0 {
			return begin, last
		}
	}
	return first, last
}

// begin returns where the flow begins that all[i] opens: its fragments come before, and
// what sets an association of SCTP up.
func (p *Part) begin(all []int, i int) int {
	for i > 0 {
		r := &p.records[all[i-1]]
		if r.bits&carrier == 0 && (r.key.Transport() != event.SCTP || r.fate != Unfollowed || r.bits&opens != 0) {
			break
		}
		i--
	}
	return i
}

// sameCapture reports whether frames of origin o are of the capture of want; nil is any.
// One capture file may have several interfaces.
func sameCapture(want, o *event.Origin) bool {
	return want == nil || want == o || o != nil && want.Path == o.Path && (o.Path != "" || want.Interface == o.Interface)
}

// inOrder returns frames in the order of capture, each once. Fragments were added when
// they had become a packet.
func inOrder(found []Frame) (list []Frame) {
	for len(found) > 0 {
		n := 1 // frames of one capture
		for n < len(found) && sameCapture(found[0].Origin, found[n].Origin) {
			n++
		}
		slices.SortStableFunc(found[:n], func(a, b Frame) int { return cmp.Compare(a.Number, b.Number) })
		for i, f := range found[:n] {
			if i == 0 || f.Number != found[i-1].Number {
				list = append(list, f)
			}
		}
		found = found[n:]
	}
	return list
}
