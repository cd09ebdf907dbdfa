package decode

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/sparse"
)

// FragmentStats counts the fragments of IP and CAPWAP by what became of them:
// Fragments is the sum of Reassembled, Held and the ways to lose one, which are
// Repeated, Malformed, Oversized, Expired, Evicted and Discarded.
type FragmentStats struct {
	Fragments   uint64 `json:"total"`
	Reassembled uint64 `json:"reassembled"` // of datagrams that became whole
	Held        uint64 `json:"held"`        // waiting now
	Repeated    uint64 `json:"repeated"`    // with nothing that had not come before
	Malformed   uint64 `json:"malformed"`   // empty, or not a multiple of 8 bytes long though not the last
	Oversized   uint64 `json:"oversized"`   // end beyond what a datagram can be ("ping of death")
	Expired     uint64 `json:"expired"`     // the others did not come in time
	Evicted     uint64 `json:"evicted"`     // to make room for others
	Discarded   uint64 `json:"discarded"`   // of datagrams that were given up, or of those with too many versions

	Datagrams   uint64 `json:"datagrams"`   // reassembled
	Overlapping uint64 `json:"overlapping"` // fragments that overlap others and are not the same
	Conflicting uint64 `json:"conflicting"` // fragments with other bytes for a place, or another end: they are forged, or the identifier was used again too soon
	Resolved    uint64 `json:"resolved"`    // datagrams where a checksum showed which of the conflicting fragments are true
	Cut         uint64 `json:"cut"`         // datagrams given up because the snaplen cut a fragment
	Tiny        uint64 `json:"tiny"`        // first fragments without all of the ports and flags
	Radio       uint64 `json:"radio"`       // fragments of 802.11, which are not put together; not in the sum
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
	s.Conflicting += o.Conflicting
	s.Resolved += o.Resolved
	s.Cut += o.Cut
	s.Tiny += o.Tiny
	s.Radio += o.Radio
}

// The kinds of identifiers, besides the protocol numbers of IPv4.
const (
	fragmentIPv6   = 1<<8 + iota // the protocol is not part of the key (RFC 8200, section 4.5)
	fragmentCAPWAP               // RFC 5415, section 3.4
)

// piece is one fragment as it comes.
type piece struct {
	kind  uint16
	id    uint32
	from  int    // its place in the datagram
	data  []byte // borrowed
	cut   int    // bytes that the snaplen cut off
	more  bool   // it is not the last
	limit int    // where a datagram must end at the latest
	proto uint8  // of the payload; counts in the first fragment
}

func (g *piece) end() int { return g.from + len(g.data) + g.cut }

// fragments puts datagrams together (RFC 791, section 3.2; RFC 8200, section
// 4.5). The zero value is ready. What it holds is bounded by the limits. To make
// room it evicts datagrams of the source that takes most of it, if one takes much,
// and of any source otherwise: first those that were delivered, then those with one
// fragment, the oldest of each first. So a flood evicts itself.
//
// Whoever guesses an identifier can send fragments for somebody else's datagram.
// The receiver drops them, or the datagram. Here the first copy of a byte is kept,
// and beside it every fragment that contradicts it, and the checksum shows which
// are true.
type fragments struct {
	open     map[datagramKey]*datagram
	byTime   age // all, in the order in which their first fragments came
	byRank   [ranks]age
	accounts map[[2]uint64]*account
	heavy    []*account // those that take much of the room
	bytes    int
	free     []*sparse.Page
	ready    []assembly // what the last fragment completed
	at       *datagram  // that the last fragment is of, nil where it was refused
	opened   uint64     // datagrams so far
	built    []byte     // the bytes up to builtTo, while one fragment is taken
	builtTo  *end
	stats    FragmentStats
}

// account is what the datagrams of one source take.
type account struct {
	source           [2]uint64
	bytes, datagrams int
	heavy            bool // see fragments.heavy
	ages             [ranks]age
}

// share is what part of the room makes an account heavy: one eighth of one of the
// two limits. So at most eight accounts are heavy for each.
const share = 8

// The ranks of datagrams, in the order in which they are evicted.
const (
	delivered = iota // repetitions of their fragments must not count as lost
	single           // one fragment came, as in a flood; or the datagram was given up
	several          // more came
	ranks
)

// assembly is a datagram that was put together. Its payload is memory of its own;
// the protocol number is that of the first fragment.
type assembly struct {
	payload []byte
	proto   uint8
}

// datagramKey identifies a datagram.
type datagramKey struct {
	src0, src1, dst0, dst1 uint64
	id, vlan               uint32
	kind                   uint16
	tags                   uint8
}

type state uint8

const (
	incomplete state = iota
	complete         // and its checksum is good, or nobody can know
	doubtful         // delivered, but its checksum is bad: fragments that come late may be the true ones
	abandoned        // given up; kept so that its other fragments do not count as another datagram
)

// datagram is what has come of one datagram.
type datagram struct {
	key   datagramKey
	id    uint64 // that no other datagram has
	start int64  // time of the first fragment to come
	state state
	proto uint8
	cost  int
	count int // fragments that are held

	account *account
	rank    int

	pages  []*sparse.Page // nil where nothing has come; all nil once it is complete
	front  int            // bytes that have come from the beginning on, without a hole
	reach  int            // the highest end so far
	ends   []end
	others []version // fragments that contradict the pages
	tries  int       // sets of them that were tried in a search
	extra  int       // assemblies that were delivered beside the first
	// overlapped is set where a receiver of IPv6 gives the datagram up (RFC 5722).
	// Here it is delivered if its checksum is good.
	overlapped bool

	whole []byte // what was delivered, once it is complete

	links [3]links // in byTime, byRank, and an age of its account
}

// end is an end of the datagram, as a last fragment gives it. Forged fragments give
// others.
type end struct {
	at       int
	judged   bool // sumState is set
	sumState ChecksumState
	short    bool   // by its header the datagram is longer
	tried    int    // how many versions were tried
	sum      uint16 // of the pages and the pseudo-header
}

// version is a fragment that contradicts what came before it.
type version struct {
	from, end int
	more      bool
	proto     uint8
	data      []byte
	delta     uint16 // what it changes of the checksum
	summed    bool
}

// What is kept of each counts against limitFragmentBytes: structs, the place in
// the map, and pages.
const (
	datagramCost = 768 // with an account
	versionCost  = 64
	endCost      = 48
)

// add takes a fragment of a datagram between the addresses of p, and reports
// whether that completes a datagram, which is then in f.ready until the next call.
func (f *fragments) add(p *Packet, g piece) bool {
	f.ready, f.at = f.ready[:0], nil
	f.stats.Fragments++
	now := p.Frame.Clock
	f.expire(now)
	switch {
	case g.end() > g.limit:
		f.stats.Oversized++
		return false
	case g.end() == g.from, g.more && g.end()%8 != 0: // places are multiples of 8 (RFC 791, section 3.1)
		f.stats.Malformed++
		return false
	case f.open == nil:
		f.open, f.accounts = map[datagramKey]*datagram{}, map[[2]uint64]*account{}
	}
	key := datagramKey{p.src0, p.src1, p.dst0, p.dst1, g.id, p.vlan, g.kind, p.tags}
	a := f.open[key]
	if a != nil && (now-a.start >= timeoutFragments || a.state == doubtful && now-a.start >= timeoutDoubtful) {
		f.drop(a, &f.stats.Expired)
		a = nil
	}
	if a != nil && a.state == complete {
		if f.again(a, p, &g) {
			f.at = a
			return len(f.ready) > 0
		}
		f.remove(a) // the identifier is used again
		a = nil
	}
	if a == nil {
		a = f.insert(key, now)
	}
	f.at = a
	switch {
	case a.state == abandoned:
		f.stats.Discarded++
	case g.cut > 0:
		f.stats.Cut++
		f.stats.Discarded++
		f.abandon(a)
	case f.take(a, &g):
		f.complete(a, p)
	}
	f.bound()
	return len(f.ready) > 0
}

// take puts a fragment into a, and reports whether the fragment has anything new.
func (f *fragments) take(a *datagram, g *piece) bool {
	conflict := false
	switch {
	case !g.more && !a.hasEnd(g.end()):
		conflict = len(a.ends) > 0 || a.reach > g.end()
		if len(a.ends) == limitEnds {
			f.stats.Conflicting++
			f.stats.Discarded++
			return false
		}
		before := cap(a.ends)
		a.ends = append(a.ends, end{at: g.end()})
		f.charge(a, endCost*(cap(a.ends)-before))
	case g.more && len(a.ends) > 0:
		conflict = true
		for _, e := range a.ends {
			conflict = conflict && e.at <= g.end()
		}
	}
	if g.from == 0 {
		if g.proto == protoTCP && g.end() < 20 || g.proto == protoUDP && g.end() < 8 {
			f.stats.Tiny++ // RFC 1858, section 3: made to pass a filter
		}
		if a.front == 0 { // the first copy
			a.proto = g.proto
		}
	}
	fresh, differs := f.fill(a, g)
	if fresh == 0 && !differs && !conflict {
		f.stats.Repeated++
		return false
	}
	if differs || fresh < len(g.data) {
		f.stats.Overlapping++
		a.overlapped = true
	}
	if differs || conflict {
		f.stats.Conflicting++
		a.overlapped = true
	}
	if differs {
		if len(a.others) == limitVersions {
			f.stats.Discarded++
			return false
		}
		a.others = append(a.others, version{from: g.from, end: g.end(), more: g.more, proto: g.proto, data: bytes.Clone(g.data)})
		f.charge(a, versionCost+cap(a.others[len(a.others)-1].data))
	}
	a.reach = max(a.reach, g.end())
	a.count++
	f.stats.Held++
	if a.count > 1 {
		f.move(a, several)
	}
	return true
}

func (a *datagram) hasEnd(at int) bool {
	for _, e := range a.ends {
		if e.at == at {
			return true
		}
	}
	return false
}

// fill copies the bytes of g that have not come before into the pages. It returns how
// many those are, and whether the others differ from g.
func (f *fragments) fill(a *datagram, g *piece) (fresh int, differs bool) {
	if n := (g.end() + sparse.PageBytes - 1) / sparse.PageBytes; n > len(a.pages) {
		before := cap(a.pages)
		a.pages = slices.Grow(a.pages, n-len(a.pages))[:n]
		f.charge(a, 8*(cap(a.pages)-before))
	}
	for at, data := g.from, g.data; len(data) > 0; {
		place := at % sparse.PageBytes
		part := data[:min(len(data), sparse.PageBytes-place)]
		p := a.pages[at/sparse.PageBytes]
		if p == nil {
			p = f.page()
			a.pages[at/sparse.PageBytes] = p
			f.charge(a, sparse.PageCost)
		}
		n, other := p.Put(place, part, false)
		fresh, differs = fresh+n, differs || other
		at, data = at+len(part), data[len(part):]
	}
	for i := a.front / sparse.PageBytes; i < len(a.pages) && a.pages[i] != nil; i++ {
		end := a.pages[i].Run(a.front % sparse.PageBytes)
		a.front = i*sparse.PageBytes + end
		if end < sparse.PageBytes {
			break
		}
	}
	return fresh, differs
}

// deliver ends the wait for the fragments of a, which made what is in f.ready.
func (f *fragments) deliver(a *datagram, s state) {
	f.stats.Datagrams += uint64(len(f.ready))
	f.count(a, &f.stats.Reassembled)
	a.state = s
	if s == complete {
		f.release(a)
		a.whole, a.proto = f.ready[0].payload, f.ready[0].proto
		f.charge(a, cap(a.whole))
		f.move(a, delivered)
	}
}

// abandon gives a datagram up, and with it the fragments that are still to come.
func (f *fragments) abandon(a *datagram) {
	f.count(a, &f.stats.Discarded)
	f.release(a)
	a.state = abandoned
	f.move(a, single)
}

// release frees all that a holds besides its struct.
func (f *fragments) release(a *datagram) {
	for _, p := range a.pages {
		if p != nil {
			f.free = append(f.free, p)
		}
	}
	a.pages, a.ends, a.others, a.whole = nil, nil, nil, nil
	f.charge(a, datagramCost-a.cost)
}

// page returns an empty page.
func (f *fragments) page() *sparse.Page {
	n := len(f.free)
	if n == 0 {
		return new(sparse.Page)
	}
	p := f.free[n-1]
	f.free = f.free[:n-1]
	p.Clear()
	return p
}

// count counts the fragments of a, which were held, as something else.
func (f *fragments) count(a *datagram, as *uint64) {
	f.stats.Held -= uint64(a.count)
	*as += uint64(a.count)
	a.count = 0
}

func (f *fragments) charge(a *datagram, n int) {
	a.cost += n
	a.account.bytes += n
	f.bytes += n
	f.weigh(a.account)
}

// weigh notes whether x takes much of the room.
func (f *fragments) weigh(x *account) {
	heavy := x.bytes >= limitFragmentBytes/share || x.datagrams >= limitDatagrams/share
	if heavy == x.heavy {
		return
	}
	if x.heavy = heavy; heavy {
		f.heavy = append(f.heavy, x)
	} else {
		i := slices.Index(f.heavy, x)
		f.heavy = slices.Delete(f.heavy, i, i+1)
	}
}

func (f *fragments) insert(key datagramKey, now int64) *datagram {
	source := [2]uint64{key.src0, key.src1}
	x := f.accounts[source]
	if x == nil {
		x = &account{source: source}
		f.accounts[source] = x
	}
	f.opened++
	a := &datagram{key: key, id: f.opened, start: now, rank: single, account: x}
	f.open[key] = a
	f.byTime.push(a, inTime)
	f.byRank[a.rank].push(a, inRank)
	x.ages[a.rank].push(a, inAccount)
	x.datagrams++
	f.charge(a, datagramCost)
	return a
}

// move gives a another rank, where it is the newest.
func (f *fragments) move(a *datagram, rank int) {
	f.byRank[a.rank].remove(a, inRank)
	a.account.ages[a.rank].remove(a, inAccount)
	a.rank = rank
	f.byRank[rank].push(a, inRank)
	a.account.ages[rank].push(a, inAccount)
}

// drop removes a datagram that did not become whole.
func (f *fragments) drop(a *datagram, as *uint64) {
	f.count(a, as)
	f.remove(a)
}

func (f *fragments) remove(a *datagram) {
	x := a.account
	f.release(a)
	x.datagrams--
	f.charge(a, -a.cost)
	x.ages[a.rank].remove(a, inAccount)
	f.byRank[a.rank].remove(a, inRank)
	f.byTime.remove(a, inTime)
	delete(f.open, a.key)
	if x.datagrams == 0 {
		delete(f.accounts, x.source)
	}
}

// bound evicts datagrams until what is held is within the limits.
func (f *fragments) bound() {
	for len(f.open) > limitDatagrams || f.bytes > limitFragmentBytes {
		ages := &f.byRank
		most := 0
		for _, x := range f.heavy {
			if takes := x.bytes/(limitFragmentBytes/limitDatagrams) + x.datagrams; takes > most {
				ages, most = &x.ages, takes
			}
		}
		for i := range ages {
			if a := ages[i].oldest; a != nil {
				f.drop(a, &f.stats.Evicted)
				break
			}
		}
	}
}

// expire removes what is older than the timeout, in flow time.
func (f *fragments) expire(now int64) {
	for a := f.byTime.oldest; a != nil && now-a.start >= timeoutFragments; a = f.byTime.oldest {
		f.drop(a, &f.stats.Expired)
	}
}

// reset forgets all datagrams: those that are not whole never will be.
func (f *fragments) reset() {
	for f.byTime.oldest != nil {
		f.drop(f.byTime.oldest, &f.stats.Expired)
	}
}

// age is a list of datagrams, the oldest first. Each datagram is in three.
type age struct{ oldest, newest *datagram }

type links struct{ before, after *datagram }

// The links of a datagram.
const (
	inTime = iota
	inRank
	inAccount
)

func (q *age) push(a *datagram, which int) {
	a.links[which] = links{before: q.newest}
	if q.newest != nil {
		q.newest.links[which].after = a
	} else {
		q.oldest = a
	}
	q.newest = a
}

func (q *age) remove(a *datagram, which int) {
	l := &a.links[which]
	if l.before != nil {
		l.before.links[which].after = l.after
	} else {
		q.oldest = l.after
	}
	if l.after != nil {
		l.after.links[which].before = l.before
	} else {
		q.newest = l.before
	}
	*l = links{}
}

// fragment4 takes a fragment of IPv4; header and total are the lengths in it.
func (d *Decoder) fragment4(b []byte, header, total, missing int, p *Packet) Class {
	const more = 0x20
	if total > len(b)+missing { // no host takes it
		return d.malformed(badFragment)
	}
	proto := b[9]
	data := b[header:min(total, len(b))]
	if !d.fragment(p, piece{
		kind: uint16(proto), id: uint32(binary.BigEndian.Uint16(b[4:])), proto: proto,
		from: int(binary.BigEndian.Uint16(b[6:])&0x1fff) * 8, more: b[6]&more != 0,
		data: data, cut: total - header - len(data), limit: 65535 - header,
	}) {
		return Fragment
	}
	whole := d.assembled(p)
	return d.transport(whole.proto, whole.payload, len(whole.payload), p)
}

// fragment6 takes a fragment of IPv6, with its header at b, and reports whether it
// makes a datagram whole.
func (d *Decoder) fragment6(b []byte, size int, p *Packet) bool {
	field := binary.BigEndian.Uint16(b[2:])
	return d.fragment(p, piece{
		kind: fragmentIPv6, id: binary.BigEndian.Uint32(b[4:]), proto: b[0],
		from: int(field &^ 7), more: field&1 != 0,
		data: b[8:], cut: size - len(b), limit: 65535,
	})
}

// assembled returns what the last fragment completed. Where that is several
// payloads, Next reads the others.
func (d *Decoder) assembled(p *Packet) assembly {
	p.reassembled = true
	ready := d.fragments.ready
	if len(ready) > 1 {
		d.versions, d.fragmented = slices.Clone(ready[1:]), *p
	}
	return ready[0]
}

// nextVersion reads the next payload of fragments that contradict one another.
func (d *Decoder) nextVersion(p *Packet) bool {
	for len(d.versions) > 0 {
		v := d.versions[0]
		d.versions = d.versions[1:]
		*p = d.fragmented
		if c := d.transport(v.proto, v.payload, len(v.payload), p); c <= Datagram {
			d.finish(p, c)
			return true
		}
	}
	return false
}
