package parsers

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
)

// Limits bounds what a [Parser] holds, in bytes of memory as it is taken.
type Limits struct {
	Held   int // by the flows of one [Shard], beyond what every flow takes: unfinished messages, sessions, chains
	Sealed int // of encrypted bytes that wait for secrets, over all shards
	Cached int // of certificates that are remembered
}

// DefaultLimits are those of one worker with one shard.
var DefaultLimits = Limits{Held: 64 << 20, Sealed: 32 << 20, Cached: 32 << 20}

// Shard is a parser as the flows of one shard use it: what these hold is bounded
// together, so that it does not depend on which shards a parser has besides.
type Shard struct {
	*Parser
	book book
}

// Shard returns p for the flows of one shard, which may hold held bytes.
func (p *Parser) Shard(held int) *Shard { return &Shard{p, book{limit: held}} }

// Open is [Parser.Open] for a flow of the shard.
func (s *Shard) Open(f *event.Flow) *Conn {
	c := s.newConn(f)
	c.book = &s.book
	return c
}

// book says what the flows of a shard hold. When that is too much, those are
// evicted that have cost most: see evict.
type book struct {
	limit int
	held  int   // the sum over all flows
	first *Conn // of those that hold something
	now   int64 // time of the last packet

	flooded    bool  // a flow was evicted
	floodedAt  int64 // when the last has
	unanswered int   // hellos in such times
}

// holding is what stands in the book of one flow.
type holding struct {
	book   *book
	sender event.Direction // of what made it hold something
	bytes  int
	since  int64 // mean time at which these came, in nanoseconds
	prior  *Conn // in the book
	follow *Conn
}

// sessionCost is about what one of several sessions of a flow takes: its Conn,
// a handshake in the making, and where its pieces are noted.
const sessionCost = 5 << 10

// balance puts into the books what has changed since the last time, which is
// all due to c, and makes room when the shard holds too much. It must be called when
// nobody is in the middle of anything. d is who sent what c was given last; v is
// what c wants, and what balance returns unless c was evicted.
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

// reopens reports whether c goes on after a handshake by itself.
func (c *Conn) reopens() bool { return c.sessions != nil }

// enter is the first half of balance.
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

// leave takes c, which has given back all, out of the books.
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

// claim is a flow that may be evicted. It has no pointers, so that sorting is cheap.
type claim struct {
	flow   int32 // in Parser.holders
	source source
	cost   uint64 // of the flow: bytes by the microseconds for which they have been held
	rank   uint64 // costs of the source, without those of its flows that go before
}

// source is who is accountable for bytes: an IPv4 network of 256 addresses, an
// IPv6 network of a link, or a MAC address. More addresses than that cost
// nobody anything. The networks of IPv6 that are in use have other highest bits
// than those by which the others are told apart.
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

// evict makes room in b: the newcomer is never turned away. The price of a flow
// is what it holds by how long it has held it, so that what has grown least and
// waited longest is dear, and what has come just now costs nothing, however
// many others wait. The source that has cost most pays first, with its dearest
// flow. Room is made for some time, so that it costs little to find out.
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
	for i := range claims { // the dearest of a source is its last
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

// evicted ends what c is at, for want of room.
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

// floodTime is for how long after a flow was evicted, in packet time, hellos
// that nobody has answered are taken for those of a flood, and only one of
// floodSample is recorded.
const (
	floodTime   = int64(1e9)
	floodSample = 100
)

// flood notes that a flow was evicted.
func (b *book) flood() { b.flooded, b.floodedAt = true, b.now }

// records reports whether one more unanswered hello is to be recorded.
func (b *book) records() bool {
	if since := b.now - b.floodedAt; !b.flooded || since > floodTime || since < -floodTime {
		b.flooded = false
		return true
	}
	b.unanswered++
	return b.unanswered%floodSample == 1
}
