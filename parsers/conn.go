// Package parsers finds TLS handshakes in the bytes of flows, and the certificates
// in them. It never panics on what it sees, holds no more than its [Limits], and
// says what became of each certificate.
//
// A worker makes one [Parser] with [New]. What concerns all flows are methods of the
// parser; what concerns one flow are methods of its [Conn]. They are called in this
// order:
//
//   - [Parser.SetKeys] and [Parser.WaitForKeys], where there are secrets of TLS 1.3,
//     and [Parser.Prompt], where somebody waits for the alert;
//   - [Parser.Open] for each flow, or [Shard.Open] where several shards share the
//     parser;
//   - [Conn.Midstream] for a direction whose beginning was not captured;
//   - [Conn.Segment] and [Conn.Gap] for the bytes of TCP in order, or
//     [Conn.Datagram] for datagrams, until one of them returns [Done]. A UDP payload
//     is needed only where [Looks] is true for it;
//   - [Conn.Close] at the end of the flow, and [Parser.Flush] at the end of all
//     flows. [Parser.Tick] is called now and then where secrets may come late, or
//     after Prompt.
//
// The parser gives each handshake, as an [event.Handshake], to the function that
// New was given.
//
// Below this package, record reads the records of one direction of a stream,
// dtlsrecord reads those of DTLS, negotiation follows the handshake of both
// directions, and demux takes TLS out of what carries several conversations. A
// Conn joins them.
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
	own     Shard   // of the flows that [Parser.Open] opens
	holders []*Conn // scratch of evict
	claims  []claim // likewise
	entered int     // bytes that all flows held when they were last put in the books
	emit    func(*event.Handshake)
	stats   Stats
	spare   *Conn // list of states to use again
	spares  int
	message []byte // scratch for an EAP packet that comes in several attributes
	ordered []byte // scratch for a datagram whose bytes are put in order

	records    record.Shared
	datagrams  dtlsrecord.Shared
	handshakes *negotiation.Shared
	quic       quic.Decoder

	keys    *keylog.Store // nil without keys
	wait    bool          // secrets may come after the packets
	added   uint64        // secrets at the last Tick
	now     int64         // flow time of the last Tick
	waiting list.List     // of *waiting, the oldest first

	prompt       bool     // see Prompt
	firstUnended *unended // list of those of which nothing was emitted, the oldest first
	lastUnended  *unended
	spareUnended *unended // list of those to use again: as many as there were at a time
}

// New returns a parser that calls emit, on the caller's goroutine, for each
// handshake that is over. The handshake belongs to emit, which may keep it, or give
// it back with [Parser.Recycle].
func New(emit func(*event.Handshake), limits Limits) *Parser {
	p := &Parser{emit: emit, limits: limits}
	p.records.Certs = cert.NewCache(cachedCertificates, limits.Cached)
	p.datagrams.Records = &p.records
	p.handshakes = negotiation.NewShared(p.records.Certs)
	p.own = Shard{p, book{limit: limits.Held}}
	return p
}

// Recycle gives back a handshake, of this parser or another, that its owner no
// longer needs. Its memory, and that of all it refers to except the certificates, is
// used for the next one. That saves the garbage collector work; it is optional.
func (p *Parser) Recycle(h *event.Handshake) { p.handshakes.Recycle(h) }

// Conn is the protocol state of one flow. Its memory belongs to the parser, which
// uses it again after [Conn.Close].
type Conn struct {
	p         *Parser
	flow      event.Flow
	stream    record.Stream      // both directions, whatever carries their records
	datagrams *dtlsrecord.Reader // nil before the first records of DTLS
	hs        negotiation.Handshake
	account   memory.Account // of what it keeps in addition to buffers
	quic      *overQUIC      // nil where the flow is not QUIC
	packets   *packetStream  // where the flow is a TCP stream of packets
	rdp       *overRDP       // nil where the flow is not Remote Desktop
	sessions  *sessions      // where the flow carries several
	parent    *Conn          // the flow, where this is one of its sessions
	waiting   *waiting       // nil unless it waits for secrets
	other     *Conn          // the alternative of this state, or the state whose alternative this is
	next      *Conn          // in the parser's list of spare ones
	holding                  // what the books of its shard say of it
	unended   *unended       // its handshake, where that has a certificate to tell of; nil without Prompt
	index     int            // of the next handshake
	leaf      [32]byte       // in an alternative: SHA-256 of the server's certificate that the other had

	within   carrier.Carrier // what carries the datagrams, or the packets of a stream, if anything does
	forged   event.Forged    // see Handshake.Forged
	done     bool            // see Done
	failed   bool            // an alert in plaintext ended the last handshake before its certificate
	replaces bool            // this is the alternative
	second   bool            // in an alternative: the other had a handshake
}

// Open returns the protocol state of a new flow. It copies f. The caller ends the
// state with [Conn.Close].
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

// Alternative returns another state for the flow of c, for the case that two
// segments have different bytes for the same place: each state gets one version.
// The alternative emits its handshake when it is closed, which should be after c is
// closed, and only if c had no handshake, or if the alternative has a certificate of
// the server that c did not have. It decrypts nothing.
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

// part takes c and its alternative apart.
func (c *Conn) part() {
	if o := c.other; o != nil && o.other == c {
		o.other = nil
	}
	c.other = nil
}

// Forged notes what was wrong with the packets of the flow that were ignored so
// far. Every handshake that is emitted from now on says so, in
// [event.Handshake].Forged.
func (c *Conn) Forged(kinds event.Forged) { c.forged = kinds }

// Begun reports whether a handshake has begun and is not over.
func (c *Conn) Begun() bool { return c.hs.Begun() }

// Unproven reports whether the flow is done for a reason that a single forged
// segment can give: it is not TLS, or the handshake has failed.
func (c *Conn) Unproven() bool { return c.done && !c.hs.Begun() && (c.index == 0 || c.failed) }

// Segment takes the next bytes of direction d of a TCP stream, in order. It borrows
// b until it returns. After [Done], more segments change nothing: a renegotiation is
// encrypted, and the parser does not look for it.
func (c *Conn) Segment(d event.Direction, at event.Moment, b []byte) Status {
	return c.balance(d, at, c.take(d, at, b))
}

// take does what Segment does, without the books.
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

// Midstream says that the capture of direction d began, or might have begun, in the
// middle of the stream. It is called before the first bytes of d.
func (c *Conn) Midstream(d event.Direction) { c.stream.Direction(d).Midstream() }

// EarlierBytes takes bytes of a direction for which Midstream was called. Their
// place is somewhere before the bytes that came first. It borrows b until it returns.
func (c *Conn) EarlierBytes(d event.Direction, at event.Moment, b []byte) Status {
	if c.done || len(b) == 0 {
		return c.status()
	}
	c.stream.Direction(d).EarlierBytes(at, b)
	return c.balance(d, at, c.conclude())
}

// Gap says that the next n bytes of direction d were not captured.
func (c *Conn) Gap(d event.Direction, at event.Moment, n int) Status {
	if c.done || n <= 0 {
		return c.status()
	}
	return c.balance(d, at, c.gap(d, at, n))
}

// gap does what Gap does, without the books.
func (c *Conn) gap(d event.Direction, at event.Moment, n int) Status {
	if c.done || n <= 0 {
		return c.status()
	}
	if !c.unpacks(d) || !c.packetGap(d, at, n) {
		c.stream.Direction(d).Gap(at, n)
	}
	return c.conclude()
}

// Datagram takes one UDP payload, one user message of SCTP, or one EAP packet over
// EAPOL. It may be cut short. Datagram borrows b until it returns.
//
// A flow that is done may get more datagrams: one for which [Starts] is true, and
// which does not belong to an earlier handshake, begins the next one; the others
// change nothing. A flow that carries several sessions is never done. Once Remote
// Desktop has begun in a flow, Datagram needs all datagrams of it, because [Looks] is
// false for the later ones.
func (c *Conn) Datagram(d event.Direction, at event.Moment, b []byte) Status {
	return c.balance(d, at, c.takeDatagram(d, at, b))
}

// takeDatagram does what Datagram does, without the books.
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

// Close ends the flow. A handshake that is not over is emitted as far as it was
// seen, and cause says why its certificate is lost. If the flow waits for secrets,
// that happens at a later [Parser.Tick] or [Parser.Flush]. c must not be used again.
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
	c.dropUnended()
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

// conclude finishes the handshake if it is over.
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
	c.list()
	return c.status()
}

// release gives back the buffers of the flow.
func (c *Conn) release() {
	for d := range event.Direction(2) {
		c.stream.Direction(d).Release()
		if c.packets != nil {
			c.dropPacket(&c.packets.dirs[d])
		}
	}
}

// awaits reports whether the certificate of direction d may still come late. That is
// so when not even a hello of d was seen, and either the capture began in the middle
// of the stream, or d consists of datagrams, which come in any order and from
// anybody.
func (c *Conn) awaits(d event.Direction) bool {
	h := c.stream.Direction(d)
	return (h.BeganMidstream() || c.dtls()) && h.Phase == record.Encrypted && h.After < oneSided && c.hs.Awaits(d)
}

// isOver reports whether all has come that can be seen of the handshake.
func (c *Conn) isOver() bool {
	a, b := c.stream.Direction(0), c.stream.Direction(1)
	if a.Ended() && b.Ended() && !c.awaits(0) && !c.awaits(1) || c.alone(0) || c.alone(1) {
		return true
	}
	if !c.hs.Begun() { // one direction is not TLS, and the other has spoken, and was not TLS so far
		return a.Phase == record.Abandoned && b.Quiet() || b.Phase == record.Abandoned && a.Quiet()
	}
	client := c.hs.Client()
	return client != negotiation.Unknown && c.hs.Refused(c.stream.Direction(client.Other()).Phase == record.Protected)
}

// alone reports whether direction d has ended, and the other is not expected any
// more. One side may say a lot that is not TLS before the first bytes of the other
// begin TLS.
func (c *Conn) alone(d event.Direction) bool {
	h := c.stream.Direction(d)
	if !h.Ended() || c.stream.Direction(d.Other()).Seen {
		return false
	}
	return c.monologue(d) || !(!c.hs.Begun() && h.Searched()) && h.After >= oneSided
}

// monologue reports whether direction d, in which no TLS was found, has said more
// than the parser reads before it stops waiting for the other.
func (c *Conn) monologue(d event.Direction) bool {
	return !c.hs.Begun() && c.stream.Direction(d).Monologue()
}

// flush hands on what was captured of unfinished messages, at the end of a flow.
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

// finish emits the handshake, if there is one, and gets ready for the next. cause
// says why a certificate that has not come yet is lost; NoLoss says that it would
// have come by now.
func (c *Conn) finish(cause event.Loss) {
	c.flush(cause)
	if !c.hs.Begun() {
		return
	}
	p, root := c.p, c.root()
	e := c.ending(cause)
	h := c.hs.Finish(&e)
	h.Forged, h.Alternative = root.forged, c.replaces
	if !c.isNews(h.Handshake) {
		c.dropUnended()
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
	if u := c.unended; u != nil && u.notes != nil {
		h.Index, h.Notes = u.index, u.notes
	} else {
		h.Index = root.nextIndex()
	}
	c.dropUnended()
	p.emit(h.Handshake)
}

// ending is how the handshake stands. cause says why a certificate that has not come
// yet is lost.
func (c *Conn) ending(cause event.Loss) negotiation.Ending {
	return negotiation.Ending{Wire: [2]negotiation.Wire{c.wire(0), c.wire(1)}, QUIC: c.quic != nil, Loss: cause}
}

// nextIndex returns the index of one more handshake of the flow.
func (c *Conn) nextIndex() int {
	c.index++
	return c.index - 1
}

// wire returns what the records of direction d have shown.
func (c *Conn) wire(d event.Direction) negotiation.Wire {
	h := c.stream.Direction(d)
	return negotiation.Wire{
		Seen: h.Seen, NotTLS: h.NotTLS(), Gapped: h.Gapped, Cause: h.Cause, Carrier: h.Carrier(),
		Encrypted: h.Phase == record.Encrypted, Followed: h.Followed(),
		Encrypts: h.Phase == record.Encrypted || c.dtls() && h.State.Protected > 0 || h.Phase == record.Protected && h.Protection().Begun,
	}
}

// isNews reports whether h must be emitted. It also notes, for the alternative of c,
// which certificate h has.
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

// root returns the state of the flow: the parent of c where c is a session, else c.
func (c *Conn) root() *Conn {
	if c.parent != nil {
		return c.parent
	}
	return c
}

// reopen reports whether b begins a new handshake of DTLS, not the last one again. If
// so, it gets c ready for that.
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
