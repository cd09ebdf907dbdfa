package flow

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/oddcert/oddcert/parsers"
)

// FragmentStats counts fragments, of IP and of CAPWAP, and what became of them:
// Fragments is the sum of Reassembled, Held and the ways to lose one, which are
// Repeated, Malformed, Oversized, Expired, Evicted and Discarded.
type FragmentStats struct {
	Fragments   uint64 `json:"total"`
	Reassembled uint64 `json:"reassembled"` // part of a datagram that was whole
	Held        uint64 `json:"held"`        // waiting now
	Repeated    uint64 `json:"repeated"`    // nothing in them that was not there
	Malformed   uint64 `json:"malformed"`   // empty, not of a multiple of 8 bytes before the last, or shorter than they say
	Oversized   uint64 `json:"oversized"`   // end beyond what a datagram can be ("ping of death")
	Expired     uint64 `json:"expired"`     // the others did not come in time
	Evicted     uint64 `json:"evicted"`     // gave way to others
	Discarded   uint64 `json:"discarded"`   // of datagrams given up, or one version too many of what a datagram has

	Datagrams   uint64 `json:"datagrams"`   // reassembled
	Overlapping uint64 `json:"overlapping"` // fragments that share a place with others, without being the same
	Conflicting uint64 `json:"conflicting"` // fragments that have other bytes for a place, or another end: somebody forges, or an identifier was used again too soon
	Resolved    uint64 `json:"resolved"`    // datagrams of which a checksum told which of the conflicting fragments are true
	Cut         uint64 `json:"cut"`         // datagrams given up because the snaplen cut a fragment
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
	s.Conflicting += o.Conflicting
	s.Resolved += o.Resolved
	s.Cut += o.Cut
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
// 4.5). The zero value is ready. What it holds is bounded by the limits. Where
// room is wanted, the source that takes most gives it: of what it has, first what
// was delivered, then what has grown least and waited longest. So a flood pushes
// out itself.
//
// Whoever can guess an identifier can send fragments that belong to somebody
// else's datagram. The receiver drops them, or the datagram; here the first copy
// of a byte is kept, beside it every fragment that says something else, and the
// checksum tells which are true.
type fragments struct {
	open     map[datagramKey]*datagram
	byTime   age       // all, in the order in which their first fragments came
	accounts []account // fragmentAccounts of them
	bytes    int
	seed     maphash.Seed
	free     []*page
	ready    []assembly // what the last fragment completed
	built    []byte     // the pages up to builtTo, for as long as a fragment is looked at
	builtTo  *end
	stats    FragmentStats
}

// fragmentAccounts is how many accounts the sources share, by a secret hash.
const fragmentAccounts = 256

// account is what the datagrams of some sources take, by how soon they give way.
type account struct {
	bytes, datagrams int
	ages             [ranks]age
}

// The ranks of datagrams in an account.
const (
	delivered = iota // repetitions of their fragments must not count as lost
	single           // one fragment came, as of those that nothing ever follows; or it was given up
	several          // more came
	ranks
)

// assembly is a datagram that was put together, in memory of its own, with the
// protocol number from its first fragment.
type assembly struct {
	payload []byte
	proto   uint8
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
	complete         // and its checksum is good, or cannot tell
	doubtful         // delivered, but its checksum is bad: fragments that come late may be the true ones
	abandoned        // no fragment of it may count as the first of another
)

// datagram is what came of one.
type datagram struct {
	key   datagramKey
	start int64 // time of the first fragment to come
	state state
	proto uint8
	cost  int
	count int // fragments that are held

	account *account
	rank    int

	pages  []*page // nil where nothing is; all nil once it is complete
	front  int     // units from the beginning on that are there, without a hole
	reach  int     // the highest end so far
	ends   []end
	others []version // fragments that contradict the pages
	extra  int       // assemblies that were delivered beside the first
	// overlapped says that a receiver gives the datagram up (RFC 5722): here it is
	// believed only if its checksum is good.
	overlapped bool

	whole []byte // what was delivered, once it is complete

	links [2]links // in byTime, and in an age of its account
}

// end is where a last fragment says that the datagram ends. Forged ones say
// something else.
type end struct {
	at      int
	judged  bool // what is in the pages up to there
	verdict checksumState
	short   bool   // the header says that there is more
	sum     uint16 // of the pages and the pseudo-header
}

// version is a fragment that says something else than the one before it.
type version struct {
	from, end int
	more      bool
	proto     uint8
	data      []byte
	delta     uint16 // what it adds to the checksum in the place of what is in the pages
	summed    bool
}

// unit is what places of fragments are multiples of.
const unit = 8

// page is a part of a datagram. Nothing is moved when fragments come in an awkward
// order: a place is a page and a bit in it.
type page struct {
	have [pageUnits / 64]uint64 // a bit for each unit
	data [pageBytes]byte
}

const (
	pageBytes = 1024
	pageUnits = pageBytes / unit
)

// What is kept of each counts against limitFragmentBytes: structs, the place in
// the map, and pages as the allocator rounds them.
const (
	datagramCost = 512
	pageCost     = 1152
	versionCost  = 64
	endCost      = 32
)

// add takes a fragment of a datagram between the addresses of p, and says whether
// that makes one whole. What is whole is in f.ready then, until the next call.
func (f *fragments) add(p *Packet, g piece) bool {
	f.ready = f.ready[:0]
	f.stats.Fragments++
	now := p.Frame.Clock
	f.expire(now)
	switch {
	case g.end() > g.limit:
		f.stats.Oversized++
		return false
	case g.end() == g.from, g.more && g.end()%unit != 0:
		f.stats.Malformed++
		return false
	case f.open == nil:
		f.open, f.accounts, f.seed = map[datagramKey]*datagram{}, make([]account, fragmentAccounts), maphash.MakeSeed()
	}
	key := datagramKey{p.src0, p.src1, p.dst0, p.dst1, g.id, p.vlan, g.kind, p.tags}
	a := f.open[key]
	if a != nil && (now-a.start >= timeoutFragments || a.state == doubtful && now-a.start >= timeoutDoubtful) {
		f.drop(a, &f.stats.Expired)
		a = nil
	}
	if a != nil && a.state == complete {
		if f.again(a, p, &g) {
			return len(f.ready) > 0
		}
		f.remove(a) // the identifier is used again
		a = nil
	}
	if a == nil {
		a = f.insert(key, now)
	}
	switch {
	case a.state == abandoned:
		f.stats.Discarded++
	case g.cut > 0:
		f.stats.Cut++
		f.stats.Discarded++
		f.abandon(a)
	case f.take(a, &g):
		f.settle(a, p)
	}
	f.bound()
	return len(f.ready) > 0
}

// take puts a fragment into a, and says whether it had anything new.
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

// fill copies what is not there yet into the pages, and returns how many bytes
// that were, and whether others are there than g has.
func (f *fragments) fill(a *datagram, g *piece) (fresh int, differs bool) {
	if n := (g.end() + pageBytes - 1) / pageBytes; n > len(a.pages) {
		before := cap(a.pages)
		a.pages = slices.Grow(a.pages, n-len(a.pages))[:n]
		f.charge(a, 8*(cap(a.pages)-before))
	}
	for at, data := g.from, g.data; len(data) > 0; {
		place := at % pageBytes
		part := data[:min(len(data), pageBytes-place)]
		p := a.pages[at/pageBytes]
		if p == nil {
			p = f.page()
			a.pages[at/pageBytes] = p
			f.charge(a, pageCost)
		}
		n, other := p.put(place, part)
		fresh, differs = fresh+n, differs || other
		at, data = at+len(part), data[len(part):]
	}
	// The front goes on by up to 64 units at a time.
	for i := a.front / pageUnits; i < len(a.pages) && a.pages[i] != nil; i = a.front / pageUnits {
		bit := a.front % 64
		n := bits.TrailingZeros64(^(a.pages[i].have[a.front%pageUnits/64] >> bit))
		a.front += n
		if n < 64-bit {
			break
		}
	}
	return fresh, differs
}

// put copies what of data is not there yet to place, and returns how many bytes
// that were, and whether others are there than data has.
func (p *page) put(place int, data []byte) (fresh int, differs bool) {
	first, last := place/unit, (place+len(data)-1)/unit
	if tail := (place + len(data)) % unit; tail != 0 && !p.has(last) {
		clear(p.data[place+len(data):][:unit-tail]) // the page was used before
	}
	any := false
	for w := first / 64; w <= last/64; w++ {
		mask := ^uint64(0)
		if w == first/64 {
			mask &= ^uint64(0) << (first % 64)
		}
		if w == last/64 {
			mask &= ^uint64(0) >> (63 - last%64)
		}
		any = any || p.have[w]&mask != 0
	}
	if !any {
		copy(p.data[place:], data)
		for u := first; u <= last; u++ {
			p.have[u/64] |= 1 << (u % 64)
		}
		return len(data), false
	}
	for u := first; u <= last; u++ {
		b := data[:min(unit, len(data))]
		data = data[len(b):]
		here := p.data[u*unit:][:len(b)]
		if p.has(u) {
			differs = differs || !bytes.Equal(here, b)
			continue
		}
		copy(here, b)
		p.have[u/64] |= 1 << (u % 64)
		fresh += len(b)
	}
	return fresh, differs
}

func (p *page) has(u int) bool { return p.have[u/64]&(1<<(u%64)) != 0 }

// settle delivers a if it is whole. Where fragments contradict one another, what
// has a good checksum is true.
func (f *fragments) settle(a *datagram, p *Packet) {
	defer func() { f.built, f.builtTo = nil, nil }()
	for i := range a.ends {
		if e := &a.ends[i]; a.front*unit >= e.at && len(f.ready) == 0 {
			f.judge(a, e, p)
			f.resolve(a, e, p)
		}
	}
	if len(f.ready) > 0 {
		if a.overlapped && len(f.ready) == 1 {
			f.stats.Resolved++
		}
		f.deliver(a, complete)
		return
	}
	if a.state == doubtful {
		return
	}
	for i := range a.ends {
		e := &a.ends[i]
		if !e.judged || e.short {
			continue
		}
		lies := a.overlapped && a.key.kind >= fragmentIPv6 // RFC 5722, section 4
		switch {
		case e.verdict == checksumBad && lies: // the true ones may still come
		case e.verdict == checksumBad:
			f.assemble(a, e, nil)
			f.deliver(a, doubtful)
		case lies:
			f.abandon(a)
		default:
			// No checksum can tell: the first copy, and the last.
			f.assemble(a, e, nil)
			if set := a.latest(e); len(set) > 0 {
				f.assemble(a, e, set)
			}
			f.deliver(a, complete)
		}
		return
	}
}

// judge sums the pages up to e, once.
func (f *fragments) judge(a *datagram, e *end, p *Packet) {
	if e.judged {
		return
	}
	e.judged = true
	whole := a.build(e, nil)
	f.built, f.builtTo = whole, e
	e.verdict = checksumUnknown
	if a.key.kind != fragmentCAPWAP {
		e.verdict, e.short = p.verify(a.proto, whole)
	}
	addresses := add(add(a.key.src0, a.key.src1), add(a.key.dst0, a.key.dst1))
	e.sum = fold(add(add(addresses, uint64(a.proto)+uint64(e.at)), uint64(onesSum(whole))))
}

// verify returns what the checksum of a whole payload between the addresses of p
// says, and whether its header says that there should be more of it.
func (p *Packet) verify(proto uint8, whole []byte) (s checksumState, short bool) {
	q := Packet{src0: p.src0, src1: p.src1, dst0: p.dst0, dst1: p.dst1, unsummed: p.unsummed, reassembled: true, segment: whole}
	switch {
	case proto == protoTCP && len(whole) >= 20:
		q.Transport = parsers.TCP
	case proto == protoUDP && len(whole) >= 8:
		q.Transport = parsers.UDP
		n := int(binary.BigEndian.Uint16(whole[4:]))
		if n < 8 || n > len(whole) {
			return checksumBad, n > len(whole)
		}
		q.segment = whole[:n]
	default:
		return checksumUnknown, false
	}
	return q.checksum(), false
}

// resolve puts what has a good checksum into f.ready: the first copies, or with
// one of the other versions in its place, or with all of the latest, or with any
// that it finds in limitTries.
func (f *fragments) resolve(a *datagram, e *end, p *Packet) {
	if e.verdict == checksumGood {
		f.assemble(a, e, nil)
	}
	if len(a.others) == 0 {
		return
	}
	r := resolution{f: f, a: a, e: e, p: p, left: limitTries}
	for i := len(a.others) - 1; i >= 0; i-- {
		if v := &a.others[i]; v.fits(e) {
			v.measure(a)
			r.fit = append(r.fit, i)
		}
	}
	for _, i := range r.fit {
		r.set = append(r.set[:0], i)
		r.try()
	}
	if len(f.ready) > 0 {
		return
	}
	r.set = a.latest(e)
	r.try()
	r.set = r.set[:0]
	r.search(0)
}

// resolution is a search for the versions that make a good checksum.
type resolution struct {
	f    *fragments
	a    *datagram
	e    *end
	p    *Packet
	fit  []int // the versions to choose from, the last that came first
	set  []int // those chosen
	left int   // how many sets to try still
}

// search tries all sets of versions that are in no other's place, of those from
// fit[k] on beside r.set, until one is good.
func (r *resolution) search(k int) {
	for ; k < len(r.fit) && r.left > 0 && len(r.f.ready) == 0; k++ {
		if v := &r.a.others[r.fit[k]]; r.a.apart(v, r.set) {
			r.set = append(r.set, r.fit[k])
			r.left--
			r.try()
			r.search(k + 1)
			r.set = r.set[:len(r.set)-1]
		}
	}
}

// try puts what r.set makes into f.ready if its checksum is good. Sums tell
// without a look at the bytes.
func (r *resolution) try() {
	sum := uint64(r.e.sum)
	for _, i := range r.set {
		sum += uint64(r.a.others[i].delta)
	}
	if fold(sum) != 0xffff || len(r.f.ready) == limitAssemblies {
		return
	}
	made := r.f.assemble(r.a, r.e, r.set)
	if s, _ := r.p.verify(made.proto, made.payload); s != checksumGood {
		r.f.ready = r.f.ready[:len(r.f.ready)-1]
	}
}

// fits says whether v can be part of a datagram that ends at e.
func (v *version) fits(e *end) bool { return v.more && v.end < e.at || !v.more && v.end == e.at }

// apart says whether v shares no place with those of set.
func (a *datagram) apart(v *version, set []int) bool {
	for _, i := range set {
		if o := &a.others[i]; v.from < o.end && o.from < v.end {
			return false
		}
	}
	return true
}

// measure computes what v adds to the checksum, once.
func (v *version) measure(a *datagram) {
	if v.summed {
		return
	}
	v.summed = true
	was := make([]byte, v.end-v.from)
	a.copy(was, v.from)
	delta := add(uint64(onesSum(v.data)), uint64(^onesSum(was)))
	if v.from == 0 {
		delta = add(delta, uint64(v.proto)+uint64(^uint16(a.proto)))
	}
	v.delta = fold(delta)
}

// latest is the versions that came last, at all places for which there are others.
func (a *datagram) latest(e *end) (set []int) {
	for i := len(a.others) - 1; i >= 0; i-- {
		if v := &a.others[i]; v.fits(e) && a.apart(v, set) {
			set = append(set, i)
		}
	}
	return set
}

// assemble puts what is in the pages up to e, and the versions of set in its
// place, into f.ready.
func (f *fragments) assemble(a *datagram, e *end, set []int) assembly {
	made := assembly{proto: a.proto}
	if len(set) == 0 && f.builtTo == e {
		made.payload = f.built
	} else {
		made.payload = a.build(e, set)
	}
	for _, i := range set {
		if v := &a.others[i]; v.from == 0 {
			made.proto = v.proto
		}
	}
	f.ready = append(f.ready, made)
	return made
}

// build makes a payload. Nobody knows when it is no longer used, so that its
// memory is not used again.
func (a *datagram) build(e *end, set []int) []byte {
	whole := make([]byte, e.at)
	a.copy(whole, 0)
	for _, i := range set {
		copy(whole[a.others[i].from:], a.others[i].data)
	}
	return whole
}

// copy copies from the pages.
func (a *datagram) copy(b []byte, from int) {
	for len(b) > 0 {
		n := copy(b, a.pages[from/pageBytes].data[from%pageBytes:])
		b, from = b[n:], from+n
	}
}

// deliver ends the wait for a, of which f.ready is what was made.
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

// again takes a fragment of a datagram that is complete, and says whether it
// belongs there: it is the same as before, or another with which the checksum is
// as good, as somebody makes who knows what he forges.
func (f *fragments) again(a *datagram, p *Packet, g *piece) bool {
	if g.end() > len(a.whole) || g.more != (g.end() < len(a.whole)) {
		return false
	}
	was := a.whole[g.from:][:len(g.data)]
	if bytes.Equal(was, g.data) {
		f.stats.Repeated++
		return true
	}
	if g.cut > 0 || a.extra == limitAssemblies || onesSum(was) != onesSum(g.data) || a.key.kind == fragmentCAPWAP {
		return false
	}
	whole := bytes.Clone(a.whole)
	copy(whole[g.from:], g.data)
	if s, _ := p.verify(a.proto, whole); s != checksumGood {
		return false
	}
	a.extra++
	f.stats.Overlapping++
	f.stats.Conflicting++
	f.stats.Reassembled++
	f.stats.Datagrams++
	f.ready = append(f.ready, assembly{whole, a.proto})
	return true
}

// abandon gives a datagram up. Fragments that are still to come go the same way.
func (f *fragments) abandon(a *datagram) {
	f.count(a, &f.stats.Discarded)
	f.release(a)
	a.state = abandoned
	f.move(a, single)
}

// release frees all that a has beside its struct.
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
func (f *fragments) page() *page {
	n := len(f.free)
	if n == 0 {
		return new(page)
	}
	p := f.free[n-1]
	f.free = f.free[:n-1]
	p.have = [len(p.have)]uint64{}
	return p
}

// count moves the fragments of a from those held to another count.
func (f *fragments) count(a *datagram, as *uint64) {
	f.stats.Held -= uint64(a.count)
	*as += uint64(a.count)
	a.count = 0
}

func (f *fragments) charge(a *datagram, n int) {
	a.cost += n
	a.account.bytes += n
	f.bytes += n
}

func (f *fragments) insert(key datagramKey, now int64) *datagram {
	a := &datagram{key: key, start: now, rank: single}
	a.account = &f.accounts[maphash.Comparable(f.seed, [2]uint64{key.src0, key.src1})%fragmentAccounts]
	f.open[key] = a
	f.byTime.push(a, inTime)
	a.account.ages[a.rank].push(a, inAccount)
	a.account.datagrams++
	f.charge(a, datagramCost)
	return a
}

// move puts a at the end of an age of its account.
func (f *fragments) move(a *datagram, rank int) {
	a.account.ages[a.rank].remove(a, inAccount)
	a.rank = rank
	a.account.ages[rank].push(a, inAccount)
}

// drop removes a datagram that did not become whole.
func (f *fragments) drop(a *datagram, as *uint64) {
	f.count(a, as)
	f.remove(a)
}

func (f *fragments) remove(a *datagram) {
	f.release(a)
	f.charge(a, -a.cost)
	a.account.datagrams--
	a.account.ages[a.rank].remove(a, inAccount)
	f.byTime.remove(a, inTime)
	delete(f.open, a.key)
}

// bound makes room.
func (f *fragments) bound() {
	for len(f.open) > limitDatagrams || f.bytes > limitFragmentBytes {
		largest := &f.accounts[0]
		for i := range f.accounts {
			x := &f.accounts[i]
			if f.bytes > limitFragmentBytes && x.bytes > largest.bytes ||
				f.bytes <= limitFragmentBytes && x.datagrams > largest.datagrams {
				largest = x
			}
		}
		for i := range largest.ages {
			if a := largest.ages[i].oldest; a != nil {
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

// age is datagrams in an order. Each is in two, and has links for both.
type age struct{ oldest, newest *datagram }

type links struct{ before, after *datagram }

// The links of a datagram.
const (
	inTime = iota
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
		return Malformed
	}
	proto := b[9]
	data := b[header:min(total, len(b))]
	if !d.fragments.add(p, piece{
		kind: uint16(proto), id: uint32(binary.BigEndian.Uint16(b[4:])), proto: proto,
		from: int(binary.BigEndian.Uint16(b[6:])&0x1fff) * 8, more: b[6]&more != 0,
		data: data, cut: total - header - len(data), limit: 65535 - header,
	}) {
		return Fragment
	}
	whole := d.assembled(p)
	return d.transport(whole.proto, whole.payload, len(whole.payload), p)
}

// fragment6 takes a fragment of IPv6, with its header at b, and says whether it
// makes a datagram whole.
func (d *Decoder) fragment6(b []byte, size int, p *Packet) bool {
	field := binary.BigEndian.Uint16(b[2:])
	return d.fragments.add(p, piece{
		kind: fragmentIPv6, id: binary.BigEndian.Uint32(b[4:]), proto: b[0],
		from: int(field &^ 7), more: field&1 != 0,
		data: b[8:], cut: size - len(b), limit: 65535,
	})
}

// assembled returns what the last fragment made whole. Where that is more than
// one payload, Next reads the others.
func (d *Decoder) assembled(p *Packet) assembly {
	p.reassembled = true
	ready := d.fragments.ready
	if len(ready) > 1 {
		d.versions, d.fragmented = slices.Clone(ready[1:]), *p
	}
	return ready[0]
}

// nextVersion reads the next of what fragments that contradict one another make.
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
