package frames

import (
	"math"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// store is a log of frames, in the order in which they came. To add one touches nothing
// else: no flow is looked up. When there is no room, all records are read once, those of
// the least use are removed, and the others move together. Its memory is made at once
// and never grows, but only as much of it is used as what is of use needs: that stays in
// the processor's cache.
type store struct {
	records []record
	hashes  []uint32 // of the keys of records: all that a question reads of other flows
	data    []byte   // of the frames
	used    int      // bytes of data

	// How many records and bytes of data there may be before room is made.
	recordsLimit, usedLimit int

	datagrams []newest // that come in fragments: one for each remainder of their numbers
	walked    []uint32 // scratch of chain

	flows   []tally  // scratch of makeRoom
	buckets []uint32 // of flows, by hash: 1 + the newest
	mask    uint32   // of the buckets that are in use

	now      int64  // flow time
	interval uint16 // see Part.End
	judged   uint16 // the last interval of which all alerts are known
	stats    BufferStats
}

// record is a frame of a flow or of a fragmented datagram, or a mark.
type record struct {
	key      decode.Key
	number   uint64
	time     int64
	clock    int64  // flow time
	at       uint32 // in data
	captured uint32 // bytes there
	length   uint32
	before   uint32 // of a fragmented datagram: 1 + the record before, or noRecord or lostRecord
	origin   uint16
	link     uint16
	interval uint16 // in which it came
	fate     Fate
	bits     uint8
}

// Bits of a record.
const (
	opens   = 1 << iota // it is of the first packet of a flow
	payload             // it has some
	carrier             // a fragment of the datagram that the next record of the flow has made whole
	torn                // frames of the flow may be missing here
	mark                // there is no frame
	hold                // a mark: there is an alert
	joined              // the datagram was whole
	swapped             // the packet went from key.High to key.Low
)

const (
	noRecord   = 0
	lostRecord = math.MaxUint32
)

// newest is the newest record of a datagram. Of those that share a place the newest
// keeps it.
type newest struct {
	id   uint64
	last uint32 // as record.before
}

// Sizes in bytes.
const (
	recordSize = 88
	tallySize  = 32
	newestSize = 16
)

// rank is what a flow counts for when room is made.
type rank uint8

const (
	ended     rank = iota // decided for a while, or silent: they go first, whatever they take
	fragments             // of datagrams that are not whole
	embryonic             // no payload
	undecided
	shown // decided, with a handshake of which not all alerts are known
	held  // there is an alert
	ranks
)

// timeouts is how long flows are of use after their last frame.
var timeouts = [ranks]int64{fragments: timeoutPieces, embryonic: timeoutSilent, undecided: timeoutSilent, shown: timeoutShown, held: timeoutHeld}

func (s *store) init(size int) {
	n := size / (averageFrame + recordSize + 4 + tallySize + 2*4 + newestSize/8)
	s.records, s.hashes = make([]record, 0, n), make([]uint32, 0, n)
	s.flows = make([]tally, 0, n)
	s.buckets = make([]uint32, powerOf2(2*n))
	s.datagrams = make([]newest, powerOf2(n/8))
	s.data = make([]byte, size-n*(recordSize+4+tallySize)-4*len(s.buckets)-newestSize*len(s.datagrams))
	s.interval = 1 // the interval 0 is judged
	s.limit(0, 0)
}

// limit sets how much there may be before room is made for what comes beside n more
// records with so many bytes. So few records are moved, and each is read hardly more than
// once.
func (s *store) limit(n, size int) {
	s.recordsLimit = min(cap(s.records), max(cap(s.records)/shareUsed, timesLive*len(s.records))+n)
	s.usedLimit = min(len(s.data), max(len(s.data)/shareUsed, timesLive*s.used)+size)
}

// powerOf2 returns the largest power of two up to n.
func powerOf2(n int) int {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return p
}

// add adds a record of the frame f of the flow with a hash. Room is made where there is
// none.
func (s *store) add(key *decode.Key, hash uint32, f *capture.Frame, origin uint16, fate Fate, bits uint8) {
	data := f.Data
	if len(data) > len(s.data)/limitFrame {
		s.stats.Oversized++
		bits |= mark | torn
		data = nil
	}
	for !s.fits(1, len(data)) {
		s.makeRoom(1, len(data))
	}
	n := len(s.records)
	s.records, s.hashes = s.records[:n+1], append(s.hashes, hash)
	s.records[n] = record{
		key: *key, number: f.Number, time: f.Time, clock: s.now, at: uint32(s.used), captured: uint32(len(data)), length: f.Length,
		origin: origin, link: uint16(f.LinkType), interval: s.interval, fate: fate, bits: bits,
	}
	s.used += copy(s.data[s.used:], data)
	if bits&mark == 0 {
		s.stats.Copied++
		s.stats.CopiedBytes += uint64(len(data))
		s.stats.Held++
	}
	if isPiece(key) {
		s.link(n)
	}
}

// fits reports whether there may be n more records with so many bytes.
func (s *store) fits(n, size int) bool {
	return len(s.records)+n <= s.recordsLimit && s.used+size <= s.usedLimit
}

// full reports whether the memory has no room for n more records with so many bytes.
func (s *store) full(n, size int) bool {
	return len(s.records)+n > cap(s.records) || s.used+size > len(s.data)
}

// cost is what a record takes of the data and of the records, as if all of the one were
// worth all of the other.
func (s *store) cost(r *record) int { return int(r.captured) + len(s.data)/cap(s.records) }

// link connects the record n of a datagram with the one before.
func (s *store) link(n int) {
	r := &s.records[n]
	d := s.datagram(r.key.Low[0])
	switch {
	case d.id == r.key.Low[0]:
		r.before = d.last
	case d.id > r.key.Low[0]:
		r.before = lostRecord
		return
	default:
		r.before = noRecord
	}
	*d = newest{r.key.Low[0], uint32(n) + 1}
}

func (s *store) datagram(id uint64) *newest { return &s.datagrams[id&uint64(len(s.datagrams)-1)] }

// chain returns the records of a datagram, the newest first, and whether all are there.
// The slice is lent until the next call.
func (s *store) chain(id uint64) (list []uint32, whole bool) {
	d := s.datagram(id)
	s.walked = s.walked[:0]
	if d.id != id {
		return nil, false
	}
	at := d.last
	whole = true
	for at != noRecord && at != lostRecord {
		s.walked = append(s.walked, at-1)
		r := &s.records[at-1]
		whole = whole && r.bits&torn == 0
		at = r.before
	}
	return s.walked, whole && at == noRecord
}

// tally is what the records of a flow come to.
type tally struct {
	hash   uint32
	next   uint32 // in the bucket
	last   int64  // flow time of the last record
	cost   uint32
	drop   uint32 // of cost: the oldest records that take this go
	frames bool   // there are some
	rank   rank
	source uint16
	shown  uint16 // the interval in which it was decided, of rank shown
}

// sourceOf is what a flow counts for that begins with r: a hash of the sender's address,
// or of the network of 64 bits that an IPv6 address is of. All fragments count for one.
func sourceOf(r *record) uint16 {
	end := r.key.Low
	if r.bits&swapped != 0 {
		end = r.key.High
	}
	switch {
	case isPiece(&r.key):
		return 0
	case r.key.Stack&capture.ShuntIPv6 != 0:
		end[1] = 0
	}
	var from decode.Key
	from.Low = end
	return uint16(from.Hash())
}

// see takes the next record of the flow.
func (t *tally) see(r *record, cost int) {
	t.cost += uint32(cost)
	t.last = r.clock
	if r.bits&mark == 0 {
		t.frames = true
	}
	switch {
	case r.bits&hold != 0:
		t.rank = held
	case isPiece(&r.key):
		if t.rank = fragments; r.bits&joined != 0 {
			t.rank = ended
		}
	case t.rank == held || r.fate == Unfollowed:
	case r.fate == Over:
		t.rank = ended
	case r.fate == Shown:
		t.rank, t.shown = shown, r.interval
	case r.bits&payload != 0:
		t.rank = undecided
	case t.rank != undecided || r.bits&opens != 0:
		t.rank = embryonic
	}
}

// count makes the tallies of all flows, the oldest first, and returns what each rank takes.
func (s *store) count() (sums [ranks]int) {
	n := min(powerOf2(2*len(s.records)), len(s.buckets))
	clear(s.buckets[:n])
	s.mask = uint32(n) - 1
	s.flows = s.flows[:0]
	for i := range s.records {
		r := &s.records[i]
		t := s.flow(s.hashes[i])
		if t == nil {
			b := s.bucket(s.hashes[i])
			s.flows = append(s.flows, tally{hash: s.hashes[i], next: *b, source: sourceOf(r), rank: embryonic})
			*b = uint32(len(s.flows))
			t = &s.flows[len(s.flows)-1]
		}
		t.see(r, s.cost(r))
	}
	for i := range s.flows {
		t := &s.flows[i]
		if !t.frames || s.now-t.last >= timeouts[t.rank] || t.rank == shown && int16(s.judged-t.shown) >= 0 {
			t.rank = ended
		}
		sums[t.rank] += int(t.cost)
	}
	return sums
}

func (s *store) bucket(hash uint32) *uint32 { return &s.buckets[hash&s.mask] }

// flow returns the tally of a flow, nil where there is none. Flows with the same hash
// count as one.
func (s *store) flow(hash uint32) *tally {
	for i := *s.bucket(hash); i != 0; i = s.flows[i-1].next {
		if t := &s.flows[i-1]; t.hash == hash {
			return t
		}
	}
	return nil
}

// makeRoom removes the flows that have ended. Where that is less than a quarter of all,
// and the memory has no room for n more records with so many bytes, it removes a quarter
// of all: what is of least use.
func (s *store) makeRoom(n, size int) {
	sums := s.count()
	most := math.MaxInt
	var surplus [ranks]int
	total := 0
	for _, n := range sums {
		total += n
	}
	if s.full(n, size) {
		most = total / 4 * 3
	}
	surplus[ended] = sums[ended]
	total -= sums[ended]
	if total > most {
		total -= s.trim(&sums, most/limitFlow)
	}
	for total > most {
		r := ended + 1
		for i := r; i < ranks; i++ {
			if sums[i] > sums[r] {
				r = i
			}
		}
		n := min(total-most, sums[r]/8+1)
		surplus[r] += n
		sums[r] -= n
		total -= n
	}
	s.choose(&surplus)
	s.sweep()
	s.limit(n, size)
}

// trim has flows that take more than limit lose their oldest frames, and returns how
// much that is.
func (s *store) trim(sums *[ranks]int, limit int) (gained int) {
	for i := range s.flows {
		if t := &s.flows[i]; t.rank != ended && int(t.cost) > limit {
			t.drop = t.cost - uint32(limit)
			s.stats.FlowsEarly++
			sums[t.rank] -= int(t.drop)
			gained += int(t.drop)
		}
	}
	return gained
}

// choose chooses flows of each rank that take the surplus of it: the oldest, and before
// them those of one source that takes more than half of the rank.
func (s *store) choose(surplus *[ranks]int) {
	heavy, excess := s.heavy()
	for _, all := range [...]bool{false, true} {
		for i := range s.flows {
			t := &s.flows[i]
			n := int(t.cost - t.drop)
			if surplus[t.rank] <= 0 || n == 0 || !all && (t.source != heavy[t.rank] || excess[t.rank] <= 0) {
				continue
			}
			surplus[t.rank] -= n
			excess[t.rank] -= n
			if t.rank != ended && t.drop == 0 {
				s.stats.FlowsEarly++
			}
			t.drop = t.cost
		}
	}
}

// heavy returns for each rank the only source that can take more than half of it, and by
// how much it takes more than all others: it wins the vote of Boyer and Moore (MJRTY,
// 1981).
func (s *store) heavy() (source [ranks]uint16, excess [ranks]int) {
	var votes [ranks]int
	for i := range s.flows {
		t := &s.flows[i]
		switch n := int(t.cost - t.drop); {
		case t.source == source[t.rank]:
			votes[t.rank] += n
		case votes[t.rank] >= n:
			votes[t.rank] -= n
		default:
			source[t.rank], votes[t.rank] = t.source, n-votes[t.rank]
		}
	}
	for i := range s.flows {
		t := &s.flows[i]
		if n := int(t.cost - t.drop); t.source == source[t.rank] {
			excess[t.rank] += n
		} else {
			excess[t.rank] -= n
		}
	}
	return source, excess
}

// sweep removes what the tallies say.
func (s *store) sweep() {
	for i := range s.datagrams {
		if s.datagrams[i].last != noRecord {
			s.datagrams[i].last = lostRecord
		}
	}
	n := 0
	s.used = 0
	for i := range s.records {
		r := &s.records[i]
		t := s.flow(s.hashes[i])
		if t.drop > 0 {
			t.drop -= min(t.drop, uint32(s.cost(r)))
			s.giveUp(r, t.rank != ended)
			continue
		}
		at := r.at
		r.at = uint32(s.used)
		s.used += copy(s.data[s.used:], s.data[at:at+r.captured])
		s.records[n], s.hashes[n] = *r, s.hashes[i]
		if isPiece(&r.key) {
			s.relink(n)
		}
		n++
	}
	s.records, s.hashes = s.records[:n], s.hashes[:n]
}

// relink connects a record that has moved.
func (s *store) relink(n int) {
	r := &s.records[n]
	d := s.datagram(r.key.Low[0])
	if d.id != r.key.Low[0] {
		return // nobody will come to it
	}
	if r.before != noRecord && r.before != lostRecord {
		r.before = d.last
	}
	d.last = uint32(n) + 1
}

// giveUp counts the frame of a record that is removed.
func (s *store) giveUp(r *record, early bool) {
	switch {
	case r.bits&mark != 0:
		return
	case early:
		s.stats.GivenUpEarly++
	default:
		s.stats.GivenUp++
	}
	s.stats.Held--
}

// giveUpAll forgets all frames.
func (s *store) giveUpAll() {
	for i := range s.records {
		s.giveUp(&s.records[i], false)
	}
	s.records, s.hashes, s.used = s.records[:0], s.hashes[:0], 0
	for i := range s.datagrams {
		s.datagrams[i].last = lostRecord
	}
}

// bytes returns the bytes of the frame of r. They are lent.
func (s *store) bytes(r *record) []byte { return s.data[r.at : r.at+r.captured] }

// taken is the memory that the records take, in bytes.
func (s *store) taken() int { return s.used + len(s.records)*(recordSize+4) }

func (r *record) linkType() linktype.Type { return linktype.Type(r.link) }
