package parsers

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
)

// Limits bounds what a [Parser] holds. All are in bytes of memory as allocated.
type Limits struct {
	Held   int // unfinished messages, sessions and chains of the flows of one [Shard], without the Conn of each
	Sealed int // encrypted bytes that wait for secrets, over all shards
	Cached int // certificates that are remembered, over all shards
}

// DefaultLimits are for one worker with one shard.
var DefaultLimits = Limits{Held: 64 << 20, Sealed: 32 << 20, Cached: 32 << 20}

// Shard is a parser for the flows of one shard. One limit bounds what these flows
// hold together. Which of them are evicted does not depend on the other shards of the
// parser.
type Shard struct {
	*Parser
	book book
}

// Shard returns a shard of p, whose flows may hold up to held bytes together.
func (p *Parser) Shard(held int) *Shard { return &Shard{p, book{limit: held}} }

// Open does what [Parser.Open] does, for a flow of the shard.
func (s *Shard) Open(f *event.Flow) *Conn {
	c := s.newConn(f)
	c.book = &s.book
	return c
}

// book says what the flows of a shard hold. When that is more than the limit, the
// flows that have cost most are evicted: see evict.
type book struct {
	limit int
	held  int   // the sum over all flows
	first *Conn // list of the flows that hold something
	now   int64 // time of the last packet

	flooded    bool  // a flow was evicted
	floodedAt  int64 // when the last one was
	unanswered int   // hellos without an answer while flows are evicted
}

// holding is what a book says of one flow.
type holding struct {
	book   *book
	sender event.Direction // of the packet that made it hold something
	bytes  int
	since  int64 // mean time at which the bytes came, in nanoseconds
	prior  *Conn // the one before in the list of the book
	follow *Conn // the one after
}

// sessionCost is the approximate size, in bytes, of one of several sessions of a
// flow: its Conn, an unfinished handshake, and the notes about its pieces.
const sessionCost = 5 << 10

// balance enters what has changed since the last time, all of it due to c, in the
// books, and makes room when the shard holds too much. It may evict any flow, and
// must therefore be called last. d is the direction of what c was given; v is the
// status of c, which balance returns unless c is evicted.
func (c *Conn) balance(d event.Direction, at event.Moment, v Status) Status {
	if c.parent != nil {
		return v
	}
	b := c.book
	b.now = at.Time
	c.enter(d)
	if c.p.crowded() {
		c.p.evictWaiting()
		if c.done && v == NeedMore && !c.reopens() {
			v = Done
		}
	}
	if b.held > b.limit {
		c.p.evict(b)
		if c.done {
			v = Done
		}
	}
	return v
}

// reopens reports whether c needs more after a handshake that is over.
func (c *Conn) reopens() bool { return c.sessions != nil }

// enter enters what has changed since the last time in the books: see balance.
func (c *Conn) enter(d event.Direction) {
	p := c.p
	held := p.records.Pool.Held() + p.datagrams.Pool.Held() + p.quic.Held()
	grown := held - p.entered
	if grown == 0 {
		return
	}
	p.entered = held
	b := c.book
	b.held += grown
	if c.bytes == 0 {
		c.sender, c.since = d, b.now
		c.prior, c.follow = nil, b.first
		if b.first != nil {
			b.first.prior = c
		}
		b.first = c
	}
	c.bytes += grown
	switch {
	case c.bytes == 0:
		b.unlink(c)
	case grown > 0:
		c.since += int64(float64(b.now-c.since) * float64(grown) / float64(c.bytes))
	}
}

func (b *book) unlink(c *Conn) {
	if c.prior != nil {
		c.prior.follow = c.follow
	} else {
		b.first = c.follow
	}
	if c.follow != nil {
		c.follow.prior = c.prior
	}
	c.prior, c.follow = nil, nil
}

// leave takes c, which has given back all that it held, out of the books.
func (c *Conn) leave() {
	if c.parent != nil {
		return
	}
	c.enter(c.sender)
	if c.bytes != 0 {
		c.book.held -= c.bytes
		c.bytes = 0
		c.book.unlink(c)
	}
}

// claim is a flow that may be evicted. It has no pointers, because that makes sorting
// cheap.
type claim struct {
	flow   int32 // index in Parser.holders
	source source
	cost   uint64 // of the flow: bytes times the microseconds for which it has held them
	rank   uint64 // what the source costs, without its flows that are evicted earlier
}

// source is who is accountable for bytes: an IPv4 network of 256 addresses, an IPv6
// network of a link (a prefix of 64 bits), or a MAC address. A sender can use many
// addresses within one of these at no cost. The highest bits tell IPv4 (1<<62) and
// MAC addresses (2<<62) apart; no IPv6 network in use begins with these bits.
type source uint64

func sourceOf(e *event.Endpoint) source {
	switch {
	case e.Addr.Is4():
		a := e.Addr.As4()
		return 1<<62 | source(binary.BigEndian.Uint32(a[:])>>8)
	case e.Addr.Is6():
		a := e.Addr.As16()
		return source(binary.BigEndian.Uint64(a[:]))
	}
	return 2<<62 | source(binary.BigEndian.Uint32(e.MAC[:]))<<16 | source(binary.BigEndian.Uint16(e.MAC[4:]))
}

// evict makes room in b, and never evicts the newcomer for it. The cost of a flow is
// the bytes that it holds times the time for which it has held them. A flow that came
// just now therefore costs nothing, however many others wait, and one that has waited
// long costs much. The source that costs most loses its most expensive flow first.
// evict frees a quarter of the limit at a time, because its own work is expensive.
func (p *Parser) evict(b *book) {
	holders, claims := p.holders[:0], p.claims[:0]
	for c := b.first; c != nil; c = c.follow {
		held := max(b.now-c.since, 0)/1e3 + 1
		claims = append(claims, claim{flow: int32(len(holders)), source: sourceOf(&c.flow.Endpoints[c.sender]), cost: uint64(c.bytes) * uint64(held)})
		holders = append(holders, c)
	}
	slices.SortFunc(claims, func(x, y claim) int {
		if x.source != y.source {
			return cmp.Compare(x.source, y.source)
		}
		if x.cost != y.cost {
			return cmp.Compare(x.cost, y.cost)
		}
		return cmp.Compare(x.flow, y.flow)
	})
	for i := range claims { // the most expensive of a source is its last
		claims[i].rank = claims[i].cost
		if i > 0 && claims[i-1].source == claims[i].source {
			claims[i].rank += claims[i-1].rank
		}
	}
	slices.SortFunc(claims, func(x, y claim) int {
		if x.rank != y.rank {
			return cmp.Compare(y.rank, x.rank)
		}
		return cmp.Compare(x.flow, y.flow)
	})
	for i := range claims {
		if b.held <= b.limit-b.limit/4 {
			break
		}
		holders[claims[i].flow].evicted()
	}
	clear(holders)
	p.holders, p.claims = holders[:0], claims[:0]
}

// evicted ends the handshake and the sessions of c, because there is no room.
func (c *Conn) evicted() {
	switch {
	case c.sessions != nil:
		c.p.stats.EvictedSessions++
	case c.quic != nil:
		c.p.stats.EvictedQUIC++
	case c.dtls():
		c.p.stats.EvictedDatagrams++
	default:
		c.p.stats.EvictedStreams++
	}
	c.book.flood()
	if w := c.waiting; w != nil {
		ended := w.ended
		if c.p.retry(w, true); ended {
			return
		}
	}
	c.closeSessions(event.Evicted)
	if !c.done {
		c.finish(event.Evicted)
		c.done = true
	}
	c.release()
	if c.quic != nil {
		c.quic.session.Close()
		c.quic.connection = -1
	}
	c.account.Discharge()
	c.enter(c.sender)
}

// For floodTime nanoseconds of packet time after a flow was evicted, hellos that
// nobody has answered are likely those of a flood: only one of floodSample is
// recorded.
const (
	floodTime   = int64(1e9)
	floodSample = 100
)

// flood notes that a flow was evicted.
func (b *book) flood() { b.flooded, b.floodedAt = true, b.now }

// records reports whether one more unanswered hello must be recorded.
func (b *book) records() bool {
	if since := b.now - b.floodedAt; !b.flooded || since > floodTime || since < -floodTime {
		b.flooded = false
		return true
	}
	b.unanswered++
	return b.unanswered%floodSample == 1
}
