package flow

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// FragmentStats counts fragments, of IP and of CAPWAP, and what became of them:
// Fragments is the sum of Reassembled, Held and the ways to lose one, which are
// Repeated, Malformed, Oversized, Expired, Evicted and Discarded.
type FragmentStats struct {
	Fragments   uint64 `json:"total"`
	Reassembled uint64 `json:"reassembled"` // part of a datagram that was whole
	Held        uint64 `json:"held"`        // waiting now
	Repeated    uint64 `json:"repeated"`    // nothing in them that was not there
	Malformed   uint64 `json:"malformed"`   // empty, not of a multiple of 8 bytes before the last, or beyond the end
	Oversized   uint64 `json:"oversized"`   // end beyond what a datagram can be ("ping of death")
	Expired     uint64 `json:"expired"`     // the others did not come in time
	Evicted     uint64 `json:"evicted"`     // gave way to others
	Discarded   uint64 `json:"discarded"`   // of datagrams given up for one of the causes below

	Datagrams   uint64 `json:"datagrams"`   // reassembled
	Overlapping uint64 `json:"overlapping"` // fragments: in IPv4 the first copy won, in IPv6 the datagram was given up
	Cut         uint64 `json:"cut"`         // datagrams given up because the snaplen cut a fragment
	TooMany     uint64 `json:"too_many"`    // datagrams given up because of how many fragments they came in
	Tiny        uint64 `json:"tiny"`        // first fragments that do not hold the ports and flags
	Radio       uint64 `json:"radio"`       // of 802.11, which nothing here puts together; not in the sum
}

// Add adds o to s.
func (s *FragmentStats) Add(o FragmentStats) {
	s.Fragments += o.Fragments
	s.Reassembled += o.Reassembled
	s.Held += o.Held
	s.Repeated += o.Repeated
	s.Malformed += o.Malformed
	s.Oversized += o.Oversized
	s.Expired += o.Expired
	s.Evicted += o.Evicted
	s.Discarded += o.Discarded
	s.Datagrams += o.Datagrams
	s.Overlapping += o.Overlapping
	s.Cut += o.Cut
	s.TooMany += o.TooMany
	s.Tiny += o.Tiny
	s.Radio += o.Radio
}

// What an identifier numbers, beside the protocol numbers of IPv4.
const (
	fragmentIPv6   = 1<<8 + iota // the protocol is not part of the key (RFC 8200, section 4.5)
	fragmentCAPWAP               // RFC 5415, section 3.4
)

// piece is one fragment as it comes.
type piece struct {
	kind    uint16
	id      uint32
	from    int    // its place in the datagram
	data    []byte // borrowed
	missing int    // bytes that the snaplen cut off
	more    bool   // it is not the last
	limit   int    // where a datagram must end at the latest
	proto   uint8  // of the payload; counts in the first fragment
}

// fragments puts datagrams together (RFC 791, section 3.2; RFC 8200, section
// 4.5). The zero value is ready. What it holds is bounded by the limits, and it
// gives up the oldest first.
type fragments struct {
	open    map[datagramKey]*datagram
	waiting age // not whole, or given up: no fragment of those may count as the first of another
	whole   age // delivered: repetitions of their fragments must not count as lost
	bytes   int
	seed    maphash.Seed
	stats   FragmentStats
}

// datagramKey tells datagrams apart.
type datagramKey struct {
	src0, src1, dst0, dst1 uint64
	id, vlan               uint32
	kind                   uint16
	tags                   uint8
}

type state uint8

const (
	incomplete state = iota
	complete
	abandoned
)

// datagram is what came of one.
type datagram struct {
	key   datagramKey
	start int64 // time of the first fragment to come
	state state
	proto uint8
	end   int    // its length; -1 until the last fragment came
	reach int    // the highest end so far
	holes []span // what is missing (RFC 815), in order
	parts []part // as they came
	cost  int

	before, after *datagram // in its list
}

type span struct{ from, to int }

type part struct {
	span
	sum  uint64
	data []byte // nil once the datagram is complete
}

// What is kept of each counts against limitFragmentBytes, beside the data.
const (
	datagramCost = 256
	partCost     = 64
)

// add takes a fragment of a datagram between the addresses of p. When that
// makes it whole, its payload is returned, in memory of its own, with the
// protocol number from its first fragment.
func (f *fragments) add(p *Packet, g piece) (whole []byte, proto uint8) {
	now := p.Frame.Time
	f.stats.Fragments++
	f.expire(now)
	end := g.from + len(g.data) + g.missing
	switch {
	case end > g.limit:
		f.stats.Oversized++
		return nil, 0
	case end == g.from, g.more && end%8 != 0:
		f.stats.Malformed++
		return nil, 0
	case f.open == nil:
		f.open, f.seed = map[datagramKey]*datagram{}, maphash.MakeSeed()
	}
	key := datagramKey{p.src0, p.src1, p.dst0, p.dst1, g.id, p.vlan, g.kind, p.tags}
	sum := maphash.Bytes(f.seed, g.data)
	a := f.open[key]
	if a != nil && a.state == complete && !a.has(span{g.from, end}, sum) {
		f.remove(a) // the identifier is used again
		a = nil
	}
	if a == nil {
		a = &datagram{key: key, start: now, end: -1, holes: []span{{0, g.limit}}}
		f.insert(a)
	}
	switch {
	case a.state == abandoned:
		f.stats.Discarded++
		return nil, 0
	case g.missing > 0:
		f.stats.Cut++
		f.abandon(a)
		return nil, 0
	case a.has(span{g.from, end}, sum):
		f.stats.Repeated++
		return nil, 0
	case a.end >= 0 && (end > a.end || !g.more && end < a.end), !g.more && a.reach > end:
		// Which of them lies, nobody knows.
		if g.kind >= fragmentIPv6 {
			f.stats.Overlapping++
			f.abandon(a)
			return nil, 0
		}
		f.stats.Malformed++
		return nil, 0
	}
	if g.from == 0 {
		if g.proto == protoTCP && end < 20 || g.proto == protoUDP && end < 8 {
			f.stats.Tiny++ // RFC 1858, section 3: made to pass a filter
		}
		if a.holes[0].from == 0 { // the first copy
			a.proto = g.proto
		}
	}
	fresh := a.fill(g.from, end)
	if fresh < end-g.from {
		f.stats.Overlapping++
		if g.kind >= fragmentIPv6 { // RFC 5722, section 4
			f.abandon(a)
			return nil, 0
		}
		if fresh == 0 {
			f.stats.Repeated++
			return nil, 0
		}
	}
	if len(a.parts) == limitFragments {
		f.stats.TooMany++
		f.abandon(a)
		return nil, 0
	}
	a.parts = append(a.parts, part{span{g.from, end}, sum, bytes.Clone(g.data)})
	f.charge(a, partCost+len(g.data))
	f.stats.Held++
	a.reach = max(a.reach, end)
	if !g.more {
		a.end = end
		a.fill(end, g.limit)
	}
	if len(a.holes) == 0 {
		return f.deliver(a), a.proto
	}
	f.bound()
	return nil, 0
}

// has says whether the datagram has that very fragment.
func (a *datagram) has(s span, sum uint64) bool {
	for i := range a.parts {
		if a.parts[i].span == s && a.parts[i].sum == sum {
			return true
		}
	}
	return false
}

// fill takes what lies between from and to out of the holes, and returns how
// many bytes that were.
func (a *datagram) fill(from, to int) (fresh int) {
	for i := 0; i < len(a.holes); i++ {
		h := a.holes[i]
		low, high := max(h.from, from), min(h.to, to)
		if low >= high {
			continue
		}
		fresh += high - low
		left, right := span{h.from, low}, span{high, h.to}
		switch {
		case left.from < left.to && right.from < right.to:
			a.holes[i] = right
			a.holes = append(a.holes, span{})
			copy(a.holes[i+1:], a.holes[i:])
			a.holes[i] = left
			i++
		case left.from < left.to:
			a.holes[i] = left
		case right.from < right.to:
			a.holes[i] = right
		default:
			a.holes = append(a.holes[:i], a.holes[i+1:]...)
			i--
		}
	}
	return fresh
}

// deliver assembles a datagram without holes. Nobody knows when the payload is
// no longer used, so that its memory is not used again.
func (f *fragments) deliver(a *datagram) []byte {
	whole := make([]byte, a.end)
	data := 0
	for i := len(a.parts) - 1; i >= 0; i-- { // what came first is written last
		part := &a.parts[i]
		copy(whole[part.from:], part.data)
		data += len(part.data)
		part.data = nil
	}
	f.stats.Datagrams++
	f.count(a, &f.stats.Reassembled)
	f.charge(a, -data)
	f.waiting.remove(a)
	a.state = complete
	f.whole.push(a)
	f.bound()
	return whole
}

// abandon gives a datagram up, with the fragment that was the cause. Those that
// are still to come go the same way.
func (f *fragments) abandon(a *datagram) {
	f.stats.Discarded++
	f.count(a, &f.stats.Discarded)
	f.charge(a, datagramCost-a.cost)
	a.state, a.parts, a.holes = abandoned, nil, nil
}

// count moves the fragments of a from those held to another count.
func (f *fragments) count(a *datagram, as *uint64) {
	f.stats.Held -= uint64(len(a.parts))
	*as += uint64(len(a.parts))
}

func (f *fragments) charge(a *datagram, n int) {
	a.cost += n
	f.bytes += n
}

func (f *fragments) insert(a *datagram) {
	f.open[a.key] = a
	f.waiting.push(a)
	f.charge(a, datagramCost)
	f.bound()
}

func (f *fragments) remove(a *datagram) {
	delete(f.open, a.key)
	if a.state == complete {
		f.whole.remove(a)
	} else {
		f.waiting.remove(a)
	}
	f.charge(a, -a.cost)
}

// bound makes room: what was delivered goes first, then what has waited longest.
func (f *fragments) bound() {
	for len(f.open) > limitDatagrams || f.bytes > limitFragmentBytes {
		a := f.whole.oldest
		if a == nil {
			a = f.waiting.oldest
			f.count(a, &f.stats.Evicted)
		}
		f.remove(a)
	}
}

// expire removes what is older than the timeout. Time that goes back as far, as
// from one capture file to the next, has the same effect.
func (f *fragments) expire(now int64) {
	for _, q := range [...]*age{&f.waiting, &f.whole} {
		for a := q.oldest; a != nil && (now-a.start >= timeoutFragments || a.start-now >= timeoutFragments); a = q.oldest {
			if a.state == incomplete {
				f.count(a, &f.stats.Expired)
			}
			f.remove(a)
		}
	}
}

// age is datagrams in the order in which their first fragments came, or in
// which they were delivered.
type age struct{ oldest, newest *datagram }

func (q *age) push(a *datagram) {
	a.before, a.after = q.newest, nil
	if q.newest != nil {
		q.newest.after = a
	} else {
		q.oldest = a
	}
	q.newest = a
}

func (q *age) remove(a *datagram) {
	if a.before != nil {
		a.before.after = a.after
	} else {
		q.oldest = a.after
	}
	if a.after != nil {
		a.after.before = a.before
	} else {
		q.newest = a.before
	}
	a.before, a.after = nil, nil
}

// fragment4 takes a fragment of IPv4; header and total are the lengths in it.
func (d *Decoder) fragment4(b []byte, header, total int, p *Packet) Class {
	const more = 0x20
	proto := b[9]
	data := b[header:min(total, len(b))]
	whole, _ := d.fragments.add(p, piece{
		kind: uint16(proto), id: uint32(binary.BigEndian.Uint16(b[4:])), proto: proto,
		from: int(binary.BigEndian.Uint16(b[6:])&0x1fff) * 8, more: b[6]&more != 0,
		data: data, missing: total - header - len(data), limit: 65535 - header,
	})
	if whole == nil {
		return Fragment
	}
	p.reassembled = true
	return d.transport(proto, whole, len(whole), p)
}

// fragment6 takes a fragment of IPv6, with its header at b. The payload is nil
// but for that of a datagram that is now whole.
func (d *Decoder) fragment6(b []byte, size int, p *Packet) (next uint8, payload []byte) {
	field := binary.BigEndian.Uint16(b[2:])
	payload, next = d.fragments.add(p, piece{
		kind: fragmentIPv6, id: binary.BigEndian.Uint32(b[4:]), proto: b[0],
		from: int(field &^ 7), more: field&1 != 0,
		data: b[8:], missing: size - len(b), limit: 65535,
	})
	return next, payload
}
