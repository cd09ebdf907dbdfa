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

// book says what the flows of a shard hold. When that is too much, those give
// way that have cost most: see evict.
type book struct {
	limit int
	held  int   // the sum over all flows
	first *Conn // of those that hold something
	now   int64 // time of the last packet

	flooded    bool  // a flow has given way
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

// markCost is what a piece of the encrypted part takes that waits for a secret,
// beside its bytes.
const markCost = 32

// chargedFrom is what a flow may keep of a message without a charge: so much is
// in the price of every flow that is not decided.
const chargedFrom = 1 << 10

// charge notes that c keeps n bytes besides buffers.
func (p *Parser) charge(c *Conn, n int) {
	c.charged += n
	p.charged += n
}

// discharge notes that c has given up what it was charged for.
func (p *Parser) discharge(c *Conn) { p.charge(c, -c.charged) }

// chargeChain charges c for a certificate. That others may share it is not
// considered: they need not.
func (p *Parser) chargeChain(c *Conn, e *event.ChainEntry) { p.charge(c, e.Size()) }

// chargeClientHello charges c for its ClientHello, unless it is as short as most.
func (p *Parser) chargeClientHello(c *Conn) {
	h := &c.hs.hello
	p.chargeLong(c, len(h.ServerName)+2*(len(h.CipherSuites)+len(h.SupportedVersions)+len(h.Extensions)+len(h.SupportedGroups)+len(h.SignatureAlgorithms))+len(h.PointFormats)+len(h.JA3Raw)+sizeOf(h.ALPN))
}

// chargeServerHello does the same for its ServerHello.
func (p *Parser) chargeServerHello(c *Conn) {
	p.chargeLong(c, len(c.hs.ServerHello.ALPN)+len(c.hs.ServerHello.JA3SRaw))
}

// chargeAuthorities does the same for the authorities that its server names.
func (p *Parser) chargeAuthorities(c *Conn) { p.chargeLong(c, sizeOf(c.hs.AuthorityNames)) }

func (p *Parser) chargeLong(c *Conn, n int) {
	if n > chargedFrom {
		p.charge(c, n)
	}
}

// sizeOf is what strings take, in bytes.
func sizeOf(list []string) (n int) {
	for _, s := range list {
		n += 16 + len(s)
	}
	return n
}

// account puts into the books what has changed since the last time, which is
// all due to c, and makes room when the shard holds too much. It must be called when
// nobody is in the middle of anything. d is who sent what c was given last; v is
// what c wants, and what account returns unless c had to give way.
func (p *Parser) account(c *Conn, d event.Direction, at event.Moment, v Verdict) Verdict {
	if c.parent != nil {
		return v
	}
	b := c.book
	b.now = at.Time
	p.enter(c, d)
	if p.crowded {
		p.relieve()
		if c.decided && v == More && !c.reopens() {
			v = Decided
		}
	}
	if b.held > b.limit {
		p.evict(b)
		if c.decided {
			v = Decided
		}
	}
	return v
}

// reopens tells whether c goes on after a handshake by itself.
func (c *Conn) reopens() bool { return c.sessions != nil }

// enter is the first half of account.
func (p *Parser) enter(c *Conn, d event.Direction) {
	held := p.buffers.lent + p.fragments.Held() + p.charged + p.quic.Held()
	grown := held - p.settled
	if grown == 0 {
		return
	}
	p.settled = held
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
func (p *Parser) leave(c *Conn) {
	if c.parent != nil {
		return
	}
	p.enter(c, c.sender)
	if c.bytes != 0 {
		c.book.held -= c.bytes
		c.bytes = 0
		c.book.unlink(c)
	}
}

// claim is a flow that may give way. It has no pointers, so that sorting is cheap.
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
		p.evictFlow(holders[claims[i].flow])
	}
	clear(holders)
	p.holders, p.claims = holders[:0], claims[:0]
}

// evictFlow ends what c is at, for want of room.
func (p *Parser) evictFlow(c *Conn) {
	switch {
	case c.sessions != nil:
		p.stats.EvictedSessions++
	case c.quic != nil:
		p.stats.EvictedQUIC++
	case c.dtls():
		p.stats.EvictedDatagrams++
	default:
		p.stats.EvictedStreams++
	}
	c.book.flood()
	if w := c.waiting; w != nil {
		ended := w.ended
		if p.resolve(w, true); ended {
			return
		}
	}
	p.closeSessions(c, event.Evicted)
	if !c.decided {
		p.finish(c, event.Evicted)
		c.decided = true
	}
	p.release(c)
	if c.quic != nil {
		c.quic.session.Close()
		c.quic.connection = -1
	}
	p.discharge(c)
	p.enter(c, c.sender)
}

// floodTime is for how long after a flow has given way, in packet time, hellos
// that nobody has answered are taken for those of a flood, and only one of
// floodSample is recorded.
const (
	floodTime   = int64(1e9)
	floodSample = 100
)

// flood notes that a flow has given way.
func (b *book) flood() { b.flooded, b.floodedAt = true, b.now }

// records tells whether one more unanswered hello is to be recorded.
func (b *book) records() bool {
	if since := b.now - b.floodedAt; !b.flooded || since > floodTime || since < -floodTime {
		b.flooded = false
		return true
	}
	b.unanswered++
	return b.unanswered%floodSample == 1
}
