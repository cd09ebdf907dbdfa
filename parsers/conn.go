// Package parsers finds TLS handshakes in the bytes of flows, and the certificates
// in them. It never panics on what it sees, holds no more than it is told to, and
// says what became of each certificate.
//
// A worker makes one [Parser] with [New], and calls its methods in this order:
//
//   - [Parser.SetKeys], where there are secrets of TLS 1.3, before all others;
//   - [Parser.Open] for each flow (or [Shard.Open], where several shards share the
//     parser), and [Conn.Midstream] for a direction whose beginning was not captured;
//   - [Conn.Segment] and [Conn.Gap] for the bytes of TCP in order, or
//     [Conn.Datagram] for datagrams, until [Done]. Of UDP, only what [Looks]
//     like a handshake need be given;
//   - [Conn.Close] at the end of the flow, and [Parser.Flush] at the end of all.
//     [Parser.Tick] is called now and then where secrets may come late.
//
// The handshakes come to the function that New was given, as [event.Handshake].
//
// Below it, package record reads the records of one direction of a stream,
// dtlsrecord those of DTLS, negotiation follows the handshake of both directions,
// and demux takes TLS out of what carries several conversations; a [Conn] joins
// them.
package parsers

import (
	"container/list"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/internal/dtlsrecord"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/internal/negotiation"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/quic"
	"github.com/oddcert/oddcert/parsers/rdpudp"
	"github.com/oddcert/oddcert/parsers/tls"
)

// Status is how far a [Conn] is with its flow.
type Status uint8

// The statuses.
const (
	NeedMore Status = iota // the handshake is not over, or not yet found
	Done                   // the handshake is over and emitted, or the flow is not TLS
)

// Parser holds what one worker shares between its flows: scratch space, caches
// of certificates and hellos, counters. It is not safe for concurrent use.
type Parser struct {
	limits  Limits
	own     Shard   // of flows that are opened in no other
	holders []*Conn // scratch of evict
	claims  []claim // likewise
	entered int     // what was held, over all, when it was last put in the books
	emit    func(*event.Handshake)
	stats   Stats
	spare   *Conn // list of states to use again
	spares  int
	message []byte // scratch of EAP packets put together
	ordered []byte // scratch of datagrams whose bytes are put in order

	records    record.Shared
	datagrams  dtlsrecord.Shared
	handshakes *negotiation.Shared
	quic       quic.Decoder

	keys    *keylog.Store // nil without keys
	wait    bool          // secrets may come after the packets
	added   uint64        // secrets at the last look
	now     int64         // of the last Tick
	waiting list.List     // of *waiting, the oldest first
}

// New returns a parser that calls emit, on the caller's goroutine, for each
// handshake that is over. The handshake is the callee's to keep, or to give
// back with [Parser.Recycle].
func New(emit func(*event.Handshake), limits Limits) *Parser {
	p := &Parser{emit: emit, limits: limits}
	p.records.Certs = cert.NewCache(cachedCertificates, limits.Cached)
	p.datagrams.Records = &p.records
	p.handshakes = negotiation.NewShared(p.records.Certs)
	p.own = Shard{p, book{limit: limits.Held}}
	return p
}

// Recycle gives back a handshake, of this parser or another, that its owner has
// no use for any more, with all that it refers to except the certificates: the
// next one is made of it. That is less work for the garbage collector, and may
// be left out.
func (p *Parser) Recycle(h *event.Handshake) { p.handshakes.Recycle(h) }

// Conn is the protocol state of one flow. It is the parser's, which uses it
// again after [Conn.Close].
type Conn struct {
	p         *Parser
	flow      event.Flow
	stream    record.Stream      // both directions, whatever their records are carried in
	datagrams *dtlsrecord.Reader // nil before the first records of DTLS
	hs        negotiation.Handshake
	account   memory.Account // of what it keeps besides buffers
	quic      *overQUIC      // nil where the flow is not QUIC
	packets   *packetStream  // where the flow is a TCP stream of packets
	rdp       *overRDP       // nil where the flow is not Remote Desktop
	sessions  *sessions      // where the flow carries several
	parent    *Conn          // of one of several sessions
	waiting   *waiting       // nil unless it waits for secrets
	other     *Conn          // the alternative of this state, or the one that this is an alternative of
	next      *Conn          // in the parser's list
	holding                  // by what stands in the books of its shard
	index     int            // of the handshake, whether begun or not
	leaf      [32]byte       // of an alternative, the hash of the server's certificate that the other had

	within   carrier.Carrier // what carries the datagrams, or the packets of a stream, if anything does
	forged   event.Forged    // see Handshake.Forged
	done     bool            // see Done
	failed   bool            // an alert in the clear ended the last handshake before its certificate
	replaces bool            // this is the alternative
	second   bool            // of an alternative, that the other had a handshake
}

// Open starts the protocol state of a flow, whose description it copies. The
// caller gives the state back with [Conn.Close].
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
	c.p, c.flow, c.account = p, *f, p.records.Pool.NewAccount()
	c.stream.Open(&p.records, (*sink)(c), &c.account, f.Transport == event.TCP)
	c.hs.Open(p.handshakes, &c.account)
	return c
}

// Alternative opens another state for the flow of c, which was told other bytes
// for the same places. What comes of it is emitted when it is closed, which should
// be after c, and only where c had no handshake, or it has a certificate of the
// server that c has not.
// It opens nothing with keys.
func (c *Conn) Alternative() *Conn {
	a := c.p.newConn(&c.flow)
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
func (c *Conn) Forged(kinds event.Forged) { c.forged = kinds }

// Begun reports whether a handshake was found that is not over.
func (c *Conn) Begun() bool { return c.hs.Begun() }

// Unproven reports whether the flow was decided by what a single forged segment
// can say: that it is no TLS, or that the handshake has failed.
func (c *Conn) Unproven() bool { return c.done && !c.hs.Begun() && (c.index == 0 || c.failed) }

// Segment takes the next bytes in order of one direction of a TCP stream. b is
// borrowed until the return. After Done more segments change nothing: a
// renegotiation is encrypted, and not looked for.
func (c *Conn) Segment(d event.Direction, at event.Moment, b []byte) Status {
	return c.balance(d, at, c.take(d, at, b))
}

// take is Segment without the books.
func (c *Conn) take(d event.Direction, at event.Moment, b []byte) Status {
	if c.done || len(b) == 0 {
		return c.status()
	}
	h := c.stream.Direction(d)
	packets := c.unpacks(d) || !h.Seen && !h.Lost() && demux.MayBePackets(b)
	h.Seen = true
	if packets {
		return c.unpack(d, at, b)
	}
	h.Segment(at, b)
	return c.conclude()
}

// Midstream says that the capture of direction d began in the middle of the stream,
// or might have: to be told before the first bytes.
func (c *Conn) Midstream(d event.Direction) { c.stream.Direction(d).Midstream() }

// EarlierBytes takes bytes of direction d, of which the capture began in the middle:
// they lie somewhere before those that were taken first. b is borrowed until
// the return.
func (c *Conn) EarlierBytes(d event.Direction, at event.Moment, b []byte) Status {
	if c.done || len(b) == 0 {
		return c.status()
	}
	c.stream.Direction(d).EarlierBytes(at, b)
	return c.balance(d, at, c.conclude())
}

// Gap says that the next n bytes of one direction were not captured.
func (c *Conn) Gap(d event.Direction, at event.Moment, n int) Status {
	if c.done || n <= 0 {
		return c.status()
	}
	return c.balance(d, at, c.gap(d, at, n))
}

// gap is Gap without the books.
func (c *Conn) gap(d event.Direction, at event.Moment, n int) Status {
	if c.done || n <= 0 {
		return c.status()
	}
	if !c.unpacks(d) || !c.packetGap(d, at, n) {
		c.stream.Direction(d).Gap(at, n)
	}
	return c.conclude()
}

// Datagram takes one UDP payload, or over SCTP one user message, or over EAPOL one EAP packet, which may be cut.
// b is borrowed until the return. A decided flow may be given more: a datagram that [Starts] and belongs
// to no handshake seen before begins the next one; the others change nothing.
// Flows that carry several sessions are never decided. Those in
// which Remote Desktop begins are to be given whole: their datagrams look like
// nothing.
func (c *Conn) Datagram(d event.Direction, at event.Moment, b []byte) Status {
	return c.balance(d, at, c.takeDatagram(d, at, b))
}

// takeDatagram is Datagram without the books.
func (c *Conn) takeDatagram(d event.Direction, at event.Moment, b []byte) Status {
	if c.flow.Transport == event.EAPOL {
		c.eapol(d, at, b)
		return NeedMore
	}
	if c.stream.Protected() && !c.done {
		if inner := demux.EncryptedRecords(b); inner != nil && c.dtls() {
			c.dtlsDatagram(d, at, inner)
			return c.conclude()
		}
	}
	kind, inner := demux.Inspect(b)
	if kind == demux.RDP {
		s, _ := rdpudp.ParseSYN(b)
		return c.rdpSYN(d, &s)
	}
	if c.rdp != nil {
		return c.rdpDatagram(d, at, b)
	}
	switch kind {
	case demux.None:
		return c.status()
	case demux.OpenVPN:
		c.openvpn(d, at, b)
	case demux.RADIUS:
		c.radius(d, at, b)
	case demux.OpenVPNEncrypted:
		if c.within != carrier.OpenVPN {
			c.within = carrier.OpenVPN
			c.p.stats.Opaque++
		}
	default:
		switch {
		case c.done && kind == demux.QUIC:
			return c.reopenQUIC(d, at, b)
		case c.done && !c.reopen(inner):
			return Done
		}
		if kind == demux.QUIC || c.quic != nil {
			c.quicDatagram(d, at, b)
		} else {
			c.within = kind.Carrier()
			c.dtlsDatagram(d, at, inner)
		}
		return c.conclude()
	}
	c.done = false
	return NeedMore
}

// Close ends the flow: what it has of a handshake is emitted, a certificate
// that was still to come is lost by cause, and c must not be used again.
func (c *Conn) Close(cause event.Loss) {
	if cause == event.Evicted && c.parent == nil {
		c.book.flood()
	}
	if w := c.waiting; w != nil && c.parent == nil { // see Tick
		w.ended, w.cause = true, cause
		return
	}
	c.end(cause)
}

// end is the end of a flow.
func (c *Conn) end(cause event.Loss) {
	p := c.p
	c.closeSessions(cause)
	if !c.done || c.replaces {
		c.finish(cause)
	}
	c.part()
	c.release()
	if c.quic != nil {
		c.quic.session.Close()
	}
	c.account.Discharge()
	c.leave()
	c.stream.Close()
	*c = Conn{stream: c.stream, datagrams: c.datagrams}
	if p.spares < maxSpareConns {
		c.next = p.spare
		p.spare = c
		p.spares++
	}
}

func (c *Conn) status() Status {
	if c.done {
		return Done
	}
	return NeedMore
}

// conclude finishes the handshake when it is over.
func (c *Conn) conclude() Status {
	if c.isOver() {
		c.done = true
		if c.monologue(0) || c.monologue(1) {
			c.p.stats.Monologues++
		}
		if c.waiting == nil && !c.replaces {
			c.finish(event.NoLoss)
			c.release()
		}
	}
	return c.status()
}

// release gives back what the flow has borrowed.
func (c *Conn) release() {
	for d := range event.Direction(2) {
		c.stream.Direction(d).Release()
		if c.packets != nil {
			c.dropPacket(&c.packets.dirs[d])
		}
	}
}

// awaits reports whether the certificate of direction d may still come late: not
// even a hello of it was seen, and the capture began in the middle, or datagrams
// come in any order and from anybody.
func (c *Conn) awaits(d event.Direction) bool {
	h := c.stream.Direction(d)
	return (h.Joined() || c.dtls()) && h.Phase == record.Encrypted && h.After < oneSided && c.hs.Awaits(d)
}

// isOver reports whether nothing more is to come that a handshake would show.
func (c *Conn) isOver() bool {
	a, b := c.stream.Direction(0), c.stream.Direction(1)
	if a.Ended() && b.Ended() && !c.awaits(0) && !c.awaits(1) || c.alone(0) || c.alone(1) {
		return true
	}
	if !c.hs.Begun() { // that one is not TLS is enough when the other has spoken, and was not TLS so far
		return a.Phase == record.Abandoned && b.Quiet() || b.Phase == record.Abandoned && a.Quiet()
	}
	client := c.hs.Client()
	return client != negotiation.Unknown && c.hs.Refused(c.stream.Direction(client.Other()).Phase == record.Protected)
}

// alone reports whether direction d has ended, and the other is not to come any
// more. Who speaks and is not TLS may have to do so for long before the other
// begins it with its first bytes.
func (c *Conn) alone(d event.Direction) bool {
	h := c.stream.Direction(d)
	if !h.Ended() || c.stream.Direction(d.Other()).Seen {
		return false
	}
	return c.monologue(d) || !(!c.hs.Begun() && h.Searched()) && h.After >= oneSided
}

// monologue reports whether direction d, in which TLS was searched in vain, spoke
// for longer than is waited for the other.
func (c *Conn) monologue(d event.Direction) bool {
	return !c.hs.Begun() && c.stream.Direction(d).Monologue()
}

// flush hands on the captured parts of unfinished messages at the end of a flow.
func (c *Conn) flush(cause event.Loss) {
	if cause == event.NoLoss {
		cause = event.Gap
	}
	c.flushQUIC(cause)
	for d := range event.Direction(2) {
		if c.datagrams != nil {
			c.datagrams.Flush(d, cause)
		}
		c.stream.Direction(d).Flush(cause)
	}
	for d := range event.Direction(2) {
		if found, ok := c.stream.Direction(d).TakeCarved(); ok {
			c.begin(d, found.At)
			c.hs.Carved(d, found.Chain, found.Leaf, found.At)
		}
	}
}

// finish emits the handshake, if there is one, and gets ready for the next. A
// certificate that was still to come is lost by cause; NoLoss says that it
// would have come by now.
func (c *Conn) finish(cause event.Loss) {
	c.flush(cause)
	if !c.hs.Begun() {
		return
	}
	p, root := c.p, c.root()
	h := c.hs.Finish(&negotiation.Ending{Wire: [2]negotiation.Wire{c.wire(0), c.wire(1)}, QUIC: c.quic != nil, Loss: cause})
	h.Forged, h.Alternative = root.forged, c.replaces
	if !c.isNews(h.Handshake) {
		c.account.Discharge()
		return
	}
	c.failed = h.Alerted && h.Outcome != event.Extracted
	c.countKeys(h.Opened)
	p.stats.Handshakes++
	p.stats.Outcomes[h.Outcome]++
	if h.Outcome == event.Lost {
		p.stats.Losses[h.Loss]++
	}
	h.Unrecorded = h.Unanswered && !root.book.records()
	c.forgetSecrets()
	c.account.Discharge()
	h.Index = root.index
	root.index++
	p.emit(h.Handshake)
}

// wire is what the records of direction d have come to.
func (c *Conn) wire(d event.Direction) negotiation.Wire {
	h := c.stream.Direction(d)
	return negotiation.Wire{
		Seen: h.Seen, NotTLS: h.NotTLS(), Gapped: h.Gapped, Cause: h.Cause, Carrier: h.Carrier(),
		Encrypted: h.Phase == record.Encrypted,
		Encrypts:  h.Phase == record.Encrypted || c.dtls() && h.State.Protected > 0 || h.Phase == record.Protected && h.Protection().Begun,
	}
}

// isNews reports whether h is to be emitted, and tells the alternative of c what
// certificate it has.
func (c *Conn) isNews(h *event.Handshake) bool {
	if c.other == nil && !c.replaces {
		return true
	}
	var leaf [32]byte
	if h.Outcome == event.Extracted {
		leaf = h.Chain[0].SHA256
	}
	if c.replaces {
		return !c.second || h.Outcome == event.Extracted && leaf != c.leaf
	}
	c.other.second = true
	if h.Outcome == event.Extracted {
		c.other.leaf = leaf
	}
	return true
}

// root is the flow that carries c, where that is one of several sessions.
func (c *Conn) root() *Conn {
	if c.parent != nil {
		return c.parent
	}
	return c
}

// reopen reports whether b begins another handshake of DTLS than the last, and
// gets c ready for it.
func (c *Conn) reopen(b []byte) bool {
	if b = dtls.Start(b); b == nil {
		return false
	}
	r, _, _ := dtls.Next(b)
	f, _, ok := dtls.NextFragment(r.Body)
	if !ok {
		return false
	}
	if h, ok := tls.ParseClientHello(f.Body, true); ok && c.hs.IsOf(h.Random) {
		return false
	}
	c.done = false
	c.stream.Reset()
	return true
}

// dtlsDatagram reads the records of DTLS in b.
func (c *Conn) dtlsDatagram(d event.Direction, at event.Moment, b []byte) {
	if c.datagrams == nil {
		c.datagrams = dtlsrecord.NewReader(&c.p.datagrams, (*sink)(c), &c.stream)
	}
	c.datagrams.Datagram(d, at, b)
}
