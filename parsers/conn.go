package parsers

import (
	"container/list"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/certcompress"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/parsers/internal/reassembly"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/quic"
	"github.com/oddcert/oddcert/parsers/rdpudp"
)

// Verdict is what a [Conn] wants of its flow.
type Verdict uint8

// The verdicts.
const (
	More    Verdict = iota // more bytes: the handshake is not over, or not yet found
	Decided                // nothing: the handshake is over and emitted, or this is no TLS
)

// Parser holds what one worker shares between its flows: scratch space, caches
// of certificates and hellos, counters. It is not safe for concurrent use.
type Parser struct {
	limits  Limits
	own     Shard   // of flows that are opened in no other
	charged int     // bytes of what flows keep besides buffers
	holders []*Conn // scratch of evict
	claims  []claim // likewise
	settled int     // what was held, over all, when it was last put in the books
	emit    func(*event.Handshake)
	quic    quic.Decoder
	stats   Stats
	certs   *cert.Cache
	clients *generations.Cache[string, *event.Offer]
	servers *generations.Cache[string, *event.ServerHello]
	buffers buffers
	spare   *Conn // list of states to use again
	spares  int
	back    *shown // list of handshakes that were given back
	backs   int
	key     []byte   // scratch of the hello caches
	start   [32]byte // scratch of the recognition
	message []byte   // scratch of messages put together of fragments

	fragments reassembly.Pool // of the messages of DTLS
	ordered   []byte          // scratch of datagrams whose bytes are put in order

	keys       *keylog.Store // nil without keys
	wait       bool          // secrets may come after the packets
	added      uint64        // secrets at the last look
	now        int64         // of the last Tick
	waiting    list.List     // of *waiting, the oldest first
	sealed     int           // bytes of the buffers that hold what waits
	crowded    bool          // more waits than may
	plain      []byte        // scratch of decrypted records
	decompress certcompress.Decompressor
}

// New returns a parser that calls emit, on the caller's goroutine, for each
// handshake that is over. The handshake is the callee's to keep, or to give
// back with [Parser.Recycle].
func New(emit func(*event.Handshake), limits Limits) *Parser {
	p := &Parser{
		emit: emit, limits: limits,
		certs:   cert.NewCache(cachedCertificates, limits.Cached),
		clients: generations.New[string, *event.Offer](cachedHellos),
		servers: generations.New[string, *event.ServerHello](cachedHellos),
	}
	p.own = Shard{p, book{limit: limits.Held}}
	return p
}

// Stats counts what a parser has seen and lost.
type Stats struct {
	Handshakes uint64                 `json:"handshakes"` // the sum of Outcomes
	Outcomes   [event.Outcomes]uint64 `json:"-"`
	Losses     [event.Losses]uint64   `json:"-"`          // by cause; their sum is Outcomes[Lost]
	Opaque     uint64                 `json:"opaque"`     // control channels of OpenVPN that are encrypted as a whole
	BlindQUIC  uint64                 `json:"quic_blind"` // Initial packets that could not be opened: the client's first was not captured
	Monologues uint64                 `json:"monologues"` // flows given up in which one side spoke for long, and was no TLS, and the other was silent

	Decrypted    uint64 `json:"decrypted"`     // handshakes whose encrypted part was opened with keys, or a side of it
	WrongSecrets uint64 `json:"wrong_secrets"` // sides of handshakes that did not open with the secret that was given
	SealedLimit  uint64 `json:"sealed_limit"`  // sides that waited for secrets, or were opened, given up because of a limit

	EvictedStreams   uint64 `json:"evicted_streams"`   // flows of TCP with unfinished messages that gave way to others, because all together held too much
	EvictedDatagrams uint64 `json:"evicted_datagrams"` // the same, of DTLS
	EvictedQUIC      uint64 `json:"evicted_quic"`      // the same, of QUIC
	EvictedSessions  uint64 `json:"evicted_sessions"`  // the same, of flows that carry several sessions; and sessions that gave way to others of their flow
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Handshakes += o.Handshakes
	s.Opaque += o.Opaque
	s.BlindQUIC += o.BlindQUIC
	s.Monologues += o.Monologues
	s.Decrypted += o.Decrypted
	s.WrongSecrets += o.WrongSecrets
	s.SealedLimit += o.SealedLimit
	s.EvictedStreams += o.EvictedStreams
	s.EvictedDatagrams += o.EvictedDatagrams
	s.EvictedQUIC += o.EvictedQUIC
	s.EvictedSessions += o.EvictedSessions
	for i, n := range o.Outcomes {
		s.Outcomes[i] += n
	}
	for i, n := range o.Losses {
		s.Losses[i] += n
	}
}

// Stats returns the counters so far.
func (p *Parser) Stats() Stats {
	s := p.stats
	s.BlindQUIC = p.quic.Stats().Blind
	return s
}

// Conn is the protocol state of one flow. It is the parser's, which uses it
// again after [Parser.Close].
type Conn struct {
	flow    event.Flow
	half    [2]half // by direction
	flights *[2]flight
	before  *dialogue // nil while nothing was said before TLS
	quic    *overQUIC // nil but for flows of QUIC
	veils   *[2]veil  // by direction; nil where there are no keys
	waiting *waiting  // nil unless it waits for secrets
	decided bool
	late    bool // what comes now lies before what came
	index   int  // of the handshake, whether begun or not
	progress
	within   carrier.Carrier // what carries the datagrams, or the packets of a stream, if anything does
	sessions *sessions       // where the flow carries several
	packets  *packetStream   // where the flow is a TCP stream of packets
	rdp      *overRDP        // nil but for flows of Remote Desktop
	parent   *Conn           // of one of several sessions
	forged   event.Forged    // see Handshake.Forged
	other    *Conn           // the alternative of this state, or the one that this is an alternative of
	replaces bool            // this is the alternative
	failed   bool            // an alert in the clear ended the last handshake before its certificate
	leaf     [32]byte        // of an alternative, the hash of the server's certificate that the other had
	second   bool            // of an alternative, that the other had a handshake
	charged  int             // bytes of what it keeps besides buffers
	holding                  // by what stands in the books of its shard
	next     *Conn           // in the parser's list
}

// Open starts the protocol state of a flow, whose description it copies. The
// caller gives the state back with [Parser.Close].
func (p *Parser) Open(f *event.Flow) *Conn { return p.own.Open(f) }

// newConn makes the state of a flow, or of a session.
func (p *Parser) newConn(f *event.Flow) *Conn {
	c := p.spare
	if c == nil {
		c = new(Conn)
	} else {
		p.spare = c.next
		p.spares--
		c.next = nil
	}
	c.flow = *f
	c.progress = progress{client: unknown}
	return c
}

// Alternative opens another state for the flow of c, which was told other bytes
// for the same places. What comes of it is emitted when it is closed, which should
// be after c, and only where c had no handshake, or it has a certificate of the
// server that c has not.
// It opens nothing with keys.
func (p *Parser) Alternative(c *Conn) *Conn {
	a := p.newConn(&c.flow)
	a.book = c.book
	if c.replaces { // of the same state
		a.leaf, a.second, c = c.leaf, c.second, c.other
	}
	if c != nil {
		a.second = a.second || c.index > 0
		c.other = a
	}
	a.other, a.replaces = c, true
	return a
}

// part forgets who is the alternative of whom.
func (c *Conn) part() {
	if o := c.other; o != nil && o.other == c {
		o.other = nil
	}
	c.other = nil
}

// Forged says what was wrong with packets of the flow that were ignored so far,
// for what is emitted from now on.
func (p *Parser) Forged(c *Conn, kinds event.Forged) { c.forged = kinds }

// Begun reports whether a handshake was found that is not over.
func (c *Conn) Begun() bool { return c.hs != nil }

// Unproven reports whether the flow was decided by what a single forged segment
// can say: that it is no TLS, or that the handshake has failed.
func (c *Conn) Unproven() bool { return c.decided && c.hs == nil && (c.index == 0 || c.failed) }

// Segment takes the next bytes in order of one direction of a TCP stream. b is
// borrowed until the return. After Decided more segments change nothing: a
// renegotiation is encrypted, and not looked for.
func (p *Parser) Segment(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
	return p.account(c, d, at, p.take(c, d, at, b))
}

// take is Segment without the books.
func (p *Parser) take(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
	if c.decided || len(b) == 0 {
		return c.verdict()
	}
	h := &c.half[d]
	packets := c.unpacks(d) || !h.seen && !h.lost() && mayBePackets(b)
	h.seen = true
	if packets {
		return p.unpack(c, d, at, b)
	}
	p.segment(c, d, at, b)
	return p.decide(c)
}

// Join says that the capture of direction d began in the middle of the stream,
// or may have: to be told before the first bytes.
func (p *Parser) Join(c *Conn, d event.Direction) { c.half[d].joined = true }

// Late takes bytes of direction d, of which the capture began in the middle:
// they lie somewhere before those that were taken first. b is borrowed until
// the return.
func (p *Parser) Late(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
	if c.decided || len(b) == 0 {
		return c.verdict()
	}
	h := &c.half[d]
	p.settle(c, d)
	now := *h
	*h = half{phase: astray, seen: true, gapped: true, carver: now.carver}
	c.late = true
	p.carve(c, d, at, b, true, true)
	c.late = false
	p.cut(c, d, event.Gap)
	p.settle(c, d)
	now.carver = h.carver
	*h = now
	return p.account(c, d, at, p.decide(c))
}

// Gap says that the next n bytes of one direction were not captured.
func (p *Parser) Gap(c *Conn, d event.Direction, at event.Moment, n int) Verdict {
	if c.decided || n <= 0 {
		return c.verdict()
	}
	if !c.unpacks(d) || !p.packetGap(c, d, at, n) {
		p.gap(c, d, at, n)
	}
	return p.account(c, d, at, p.decide(c))
}

// Datagram takes one UDP payload, or over SCTP one user message, or over EAPOL one EAP packet, which may be cut.
// b is borrowed until the return. A decided flow may be given more: a datagram that [Starts] and belongs
// to no handshake seen before begins the next one; the others change nothing.
// Flows that carry several sessions are never decided. Those in
// which Remote Desktop begins are to be given whole: their datagrams look like
// nothing.
func (p *Parser) Datagram(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
	return p.account(c, d, at, p.takeDatagram(c, d, at, b))
}

// takeDatagram is Datagram without the books.
func (p *Parser) takeDatagram(c *Conn, d event.Direction, at event.Moment, b []byte) Verdict {
	if c.flow.Transport == event.EAPOL {
		p.eapol(c, d, at, b)
		return More
	}
	if c.veils != nil && !c.decided {
		if inner := sealedRecords(b); inner != nil && c.dtls() {
			p.datagram(c, d, at, inner)
			return p.decide(c)
		}
	}
	kind, inner := inspect(b)
	if kind == rdpPayload {
		s, _ := rdpudp.ParseSYN(b)
		return p.rdpSYN(c, d, &s)
	}
	if c.rdp != nil {
		return p.rdp(c, d, at, b)
	}
	switch kind {
	case noPayload:
		return c.verdict()
	case openvpnPayload:
		p.openvpn(c, d, at, b)
	case radiusPayload:
		p.radius(c, d, at, b)
	case cryptPayload:
		if c.within != carrier.OpenVPN {
			c.within = carrier.OpenVPN
			p.stats.Opaque++
		}
	default:
		switch {
		case c.decided && kind == quicPayload:
			return p.reopenQUIC(c, d, at, b)
		case c.decided && !c.reopen(inner):
			return Decided
		}
		if kind == quicPayload || c.quic != nil {
			p.quicDatagram(c, d, at, b)
		} else {
			c.within = kind.carrier()
			p.datagram(c, d, at, inner)
		}
		return p.decide(c)
	}
	c.decided = false
	return More
}

// Close ends the flow: what it has of a handshake is emitted, a certificate
// that was still to come is lost by cause, and c must not be used again.
func (p *Parser) Close(c *Conn, cause event.Loss) {
	if cause == event.Evicted && c.parent == nil {
		c.book.flood()
	}
	if w := c.waiting; w != nil && c.parent == nil { // see Tick
		w.ended, w.cause = true, cause
		return
	}
	p.end(c, cause)
}

// end is the end of a flow.
func (p *Parser) end(c *Conn, cause event.Loss) {
	p.closeSessions(c, cause)
	if !c.decided || c.replaces {
		p.finish(c, cause)
	}
	c.part()
	p.release(c)
	if c.quic != nil {
		c.quic.session.Close()
	}
	p.discharge(c)
	p.leave(c)
	if c.before != nil {
		*c.before = dialogue{}
	}
	*c = Conn{flights: c.flights, before: c.before}
	if p.spares < maxSpareConns {
		c.next = p.spare
		p.spare = c
		p.spares++
	}
}

func (c *Conn) verdict() Verdict {
	if c.decided {
		return Decided
	}
	return More
}

// decide finishes the handshake when it is over.
func (p *Parser) decide(c *Conn) Verdict {
	if c.over() {
		c.decided = true
		if c.monologue(0) || c.monologue(1) {
			p.stats.Monologues++
		}
		if c.waiting == nil && !c.replaces {
			p.finish(c, event.NoLoss)
			p.release(c)
		}
	}
	return c.verdict()
}

// release gives back what the flow has borrowed.
func (p *Parser) release(c *Conn) {
	for d := range c.half {
		m := &c.half[d].message
		p.buffers.put(m.kept)
		*m = assembly{}
		if k := c.half[d].carver; k != nil {
			p.dropCarved(k)
		}
		if c.packets != nil {
			p.dropPacket(&c.packets.half[d])
		}
	}
}

// awaits tells whether the certificate of direction d may still come late: not
// even a hello of it was seen, and the capture began in the middle, or datagrams
// come in any order and from anybody.
func (c *Conn) awaits(d event.Direction) bool {
	h := &c.half[d]
	return (h.joined || c.dtls()) && h.phase == sealed && h.after < oneSided &&
		c.hs != nil && c.hs.ServerHello == nil && c.client == d.Other() && !c.side[d].certificate
}

// over tells whether nothing more is to come that a handshake would show.
func (c *Conn) over() bool {
	a, b := &c.half[0], &c.half[1]
	if a.ended() && b.ended() && !c.awaits(0) && !c.awaits(1) || c.alone(0) || c.alone(1) {
		return true
	}
	if c.hs == nil { // one that is no TLS is enough when the other has spoken, and is none so far
		return a.phase == spent && b.quiet() || b.phase == spent && a.quiet()
	}
	return c.refused()
}

// quiet tells whether a direction has spoken, and that was no TLS so far.
func (h *half) quiet() bool { return h.seen && h.phase == preface && h.headers == 0 }

// alone tells whether direction d has ended, and the other is not to come any
// more. Who speaks and is no TLS may have to do so for long before the other
// begins it with its first bytes.
func (c *Conn) alone(d event.Direction) bool {
	h := &c.half[d]
	if !h.ended() || c.half[d.Other()].seen {
		return false
	}
	return c.monologue(d) || !c.searched(d) && h.after >= oneSided
}

// searched tells whether TLS was searched in direction d in vain, in bytes of no
// protocol that is known.
func (c *Conn) searched(d event.Direction) bool {
	return c.hs == nil && c.half[d].phase == spent && (c.before == nil || !c.before[d].Foreign())
}

// monologue tells whether direction d spoke for longer than is waited for the
// other.
func (c *Conn) monologue(d event.Direction) bool {
	h := &c.half[d]
	return c.searched(d) && !c.half[d.Other()].seen && (h.bytes > maxMonologue || h.after > maxMonologueSegments)
}

// resumeSearch says that direction d is TLS: where the other was given up, TLS
// is looked for once more.
func (c *Conn) resumeSearch(d event.Direction) {
	if h := &c.half[d.Other()]; h.phase == spent && h.cause == event.NoLoss && c.flow.Transport == event.TCP {
		h.phase = preface
		h.bytes, h.segments = min(h.bytes, maxPreface), 0
	}
}
