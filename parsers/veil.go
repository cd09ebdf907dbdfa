package parsers

import (
	"bytes"
	"container/list"

	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// veil is the encrypted part of a handshake in one direction of a flow, which
// secrets may open.
type veil struct {
	begun     bool             // encrypted records were seen
	stream    *tls13.Stream    // over TCP: nil while the secret is not known
	datagrams *tls13.Datagrams // over DTLS: the same
	keyed     bool             // the secret is known
	record    []byte           // over TCP: one that is not there to its end, borrowed from the parser's buffers
	skip      int              // over TCP: bytes of the rest of a record that is torn
	lost      bool             // over TCP: where the next record begins is not known
	failed    bool             // the secret did not open what it must
	missed    int              // bytes of records that the secret did not open before the first that it did
	held      []byte           // what waits for the secret, borrowed from the parser's buffers
	marks     []mark           // of the pieces of held
	limit     int              // of len(held)
}

// mark is where a piece of held ends.
type mark struct {
	end int
	gap int // bytes missing before the piece
	at  event.Moment
}

// waits tells whether there is a secret to wait for.
func (v *veil) waits() bool { return v.limit > 0 && !v.keyed }

// waiting is a flow that waits for secrets.
type waiting struct {
	conn  *Conn
	since int64 // flow time
	entry *list.Element
	ended bool       // the flow is over, or nobody needs to know of it any more
	cause event.Loss // why it ended
}

// Keys gives p the secrets that the encrypted handshakes of TLS 1.3 are opened
// with, before the first packet. With wait they may come later than the packets,
// which are held for a while then; without, what is not known when the first
// encrypted packet comes is taken to be unknown for ever.
func (p *Parser) Keys(store *keylog.Store, wait bool) {
	p.keys, p.wait = store, wait
}

// Keyed tells whether there are secrets, or may be.
func (p *Parser) Keyed() bool { return p.keys != nil && (p.wait || p.keys.Added() > 0) }

// keyed tells whether there may be secrets for the handshake of c.
func (p *Parser) keyed(c *Conn) bool {
	return p.Keyed() && c.hs != nil && c.hs.ClientHello != nil && c.client != unknown &&
		(c.hs.ServerHello == nil && c.offers13 || c.hs.ServerHello != nil && tls.Is13(c.hs.Version) && !c.psk)
}

// cover begins the encrypted part of direction d, when there is a secret for it or
// one may come: the phase is veiled then.
func (p *Parser) cover(c *Conn, d event.Direction, at event.Moment) bool {
	if !p.keyed(c) || c.late || c.replaces {
		return false
	}
	if c.veils == nil {
		c.veils = new([2]veil)
	}
	v := &c.veils[d]
	if !v.keyed && v.limit == 0 {
		if !p.unlock(c, d) {
			if !p.wait {
				return false
			}
			v.limit = maxSealedClient
			if d != c.client {
				v.limit = maxSealedServer
			}
			p.await(c, at)
		}
	}
	c.half[d].phase = veiled
	return true
}

// unlock looks for the secret of direction d.
func (p *Parser) unlock(c *Conn, d event.Direction) bool {
	v := &c.veils[d]
	known := p.keys.Secrets(&c.random)
	secret := known.Server
	if d == c.client {
		secret = known.Client
	}
	if secret == nil {
		return false
	}
	suite, version := uint16(0), uint16(0)
	if c.hs.ServerHello != nil {
		suite, version = c.hs.CipherSuite, c.hs.Version
	}
	switch {
	case c.quic != nil:
		v.keyed = true
	case c.dtls():
		v.datagrams = tls13.NewDatagrams(secret, suite)
		v.keyed = v.datagrams != nil
	default:
		v.stream = tls13.NewStream(secret, suite, version)
		v.keyed = v.stream != nil
	}
	return v.keyed
}

// veil begins the encrypted part of a TCP stream with the record whose header is
// header.
func (p *Parser) veil(c *Conn, d event.Direction, at event.Moment, header []byte) {
	if !p.cover(c, d, at) {
		return
	}
	v := &c.veils[d]
	if !v.begun {
		v.begun = true
		if server := &c.veils[d.Other()]; d == c.client && !c.earlyData && server.waits() {
			// The client has the server's flight.
			server.limit = min(server.limit, len(server.held)+maxSealedAfter)
		}
	}
	c.half[d].left = 0
	p.unveil(c, d, at, header[:tls.RecordHeader])
}

// regain goes on with encrypted records behind a gap in which plaintext has ended.
func (p *Parser) regain(c *Conn, d event.Direction, at event.Moment) {
	if p.keys != nil && c.hs != nil && c.hs.ServerHello != nil && p.cover(c, d, at) {
		c.veils[d].lost = true
		c.half[d].adrift = true
	}
}

// unveil takes the next bytes of a TCP stream that is encrypted.
func (p *Parser) unveil(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h, v := &c.half[d], &c.veils[d]
	if v.waits() {
		p.hold(c, d, at, 0, b)
		return
	}
	for len(b) > 0 && h.phase == veiled {
		if v.skip > 0 {
			n := min(v.skip, len(b))
			v.skip -= n
			b = b[n:]
			continue
		}
		if len(v.record) == 0 && !v.lost && len(b) >= tls.RecordHeader && h.frames(b) {
			if n := tls.RecordHeader + tls.RecordLength(b); n <= len(b) {
				p.open(c, d, at, b[:n])
				b = b[n:]
				continue
			}
		}
		need := tls.RecordHeader
		if len(v.record) >= need {
			need += tls.RecordLength(v.record)
		}
		n := min(need-len(v.record), len(b))
		record, ok := p.buffers.append(v.record, b[:n])
		if v.record = record; !ok {
			p.stats.SealedLimit++
			p.unseal(c, d)
			return
		}
		b = b[n:]
		if len(record) < tls.RecordHeader {
			return
		}
		if !h.frames(record) || v.lost && (record[0] != tls.ApplicationData || record[1] != 3 || record[2] != 3) {
			p.slip(c, d)
			continue
		}
		if len(record) == tls.RecordHeader+tls.RecordLength(record) {
			v.record = nil
			p.open(c, d, at, record)
			p.buffers.put(record)
		}
	}
	if len(b) > 0 && h.phase == records {
		p.records(c, d, at, b)
	}
}

// slip says that no record begins with what was taken for the header of one:
// it may begin a byte later.
func (p *Parser) slip(c *Conn, d event.Direction) {
	v := &c.veils[d]
	v.lost = true
	p.tear(c, d)
	if v.missed += len(v.record); v.missed > maxEarlyData {
		p.unseal(c, d)
		return
	}
	next := bytes.IndexByte(v.record[1:], tls.ApplicationData) + 1
	if next == 0 {
		next = len(v.record)
	}
	v.record = v.record[:copy(v.record, v.record[next:])]
	if len(v.record) == 0 {
		p.buffers.put(v.record)
		v.record = nil
	}
}

// tear says that a record is missing: messages go on without what was in it.
func (p *Parser) tear(c *Conn, d event.Direction) {
	h := &c.half[d]
	h.gapped = true
	if !h.adrift {
		p.cut(c, d, event.Gap)
		h.adrift = true
	}
	p.settle(c, d)
}

// open reads one record of an encrypted stream.
func (p *Parser) open(c *Conn, d event.Direction, at event.Moment, record []byte) {
	h, v := &c.half[d], &c.veils[d]
	body := record[tls.RecordHeader:]
	switch record[0] {
	case tls.ChangeCipherSpec: // for show (RFC 8446, section D.4)
		return
	case tls.Alert: // of one who could not encrypt it
		if len(body) == 2 {
			c.alert(d, at, body[0], body[1])
		}
		return
	case tls.Handshake: // a second ClientHello behind early data
		if !v.stream.Proved() {
			h.phase = records
			p.records(c, d, at, record)
		}
		return
	}
	typ, content, ok := v.stream.Open(p.plain[:0], record[:tls.RecordHeader], body, h.gapped)
	p.plain = content[:0]
	if !ok {
		p.shut(c, d, len(record))
		return
	}
	v.lost, v.begun = false, true
	p.opened(c, d, at)
	switch typ {
	case tls.Handshake:
		p.inner(c, d, at, content)
	case tls.Alert:
		if len(content) == 2 {
			c.alert(d, at, content[0], content[1])
		}
	}
}

// shut takes a record of n bytes that the secret does not open.
func (p *Parser) shut(c *Conn, d event.Direction, n int) {
	h, v := &c.half[d], &c.veils[d]
	v.missed += n
	switch {
	case v.lost && v.missed <= maxEarlyData:
		p.tear(c, d)
		return
	case c.side[d].opened: // the other's records, or none of TLS
		if h.cause == event.NoLoss {
			h.cause = event.Malformed
		}
	case v.missed <= maxEarlyData && (h.gapped || c.earlyData && d == c.client):
		return // early data has keys of its own
	default:
		v.failed = true
	}
	p.unseal(c, d)
}

// opened says that the secret of direction d is right.
func (p *Parser) opened(c *Conn, d event.Direction, at event.Moment) {
	c.side[d].opened = true
	c.touch(at)
	if c.hs.ServerHello == nil {
		if c.hs.Version = tls.VersionTLS13; c.dtls() {
			c.hs.Version = tls.VersionDTLS13
		}
	}
}

// inner takes the handshake messages of one encrypted record.
func (p *Parser) inner(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	if h.adrift && (h.carving() || !resumes13(b)) {
		p.carve(c, d, at, b, false, false)
		return
	}
	if h.adrift {
		h.adrift = false
		p.settle(c, d)
	}
	p.handshake(c, d, at, b)
}

// resumes13 tells whether the content of an encrypted record begins with a
// message, where the record before was lost: it may begin in the middle of one
// as well.
func resumes13(b []byte) bool {
	for len(b) >= tls.MessageHeader {
		n := tls.MessageHeader + tls.Uint24(b[1:])
		switch b[0] {
		case tls.Certificate, tls.CompressedCertificate:
			if n > maxMessage {
				return false
			}
		case tls.EncryptedExtensions, tls.CertificateRequest, tls.CertificateVerify, tls.Finished:
			if n > tls.MaxRecord {
				return false
			}
		default:
			return false
		}
		if n >= len(b) {
			return true
		}
		b = b[n:]
	}
	return false
}

// veilGap takes a gap of n bytes in an encrypted TCP stream.
func (p *Parser) veilGap(c *Conn, d event.Direction, at event.Moment, n int) {
	v := &c.veils[d]
	if v.waits() {
		p.hold(c, d, at, n, nil)
		return
	}
	left := v.skip
	if len(v.record) >= tls.RecordHeader {
		left = tls.RecordHeader + tls.RecordLength(v.record) - len(v.record)
	}
	p.buffers.put(v.record)
	v.record = nil
	v.skip, v.lost = left-n, v.lost || n > left
	if v.lost {
		v.skip = 0
	}
	p.tear(c, d)
}

// unseal ends the encrypted part of direction d: no more of it is of interest.
func (p *Parser) unseal(c *Conn, d event.Direction) {
	p.cut(c, d, event.Gap)
	p.settle(c, d)
	p.dropVeil(&c.veils[d])
	if c.half[d].phase = sealed; !c.veils[d].begun {
		c.half[d].phase = spent
	}
}

// hold keeps encrypted bytes, or a gap before them, until there is a secret.
func (p *Parser) hold(c *Conn, d event.Direction, at event.Moment, gap int, b []byte) {
	v := &c.veils[d]
	if c.half[d].full {
		return
	}
	n := min(len(b), v.limit-len(v.held))
	if n < len(b) && c.dtls() {
		n = 0 // records are held whole
	}
	before := cap(v.held)
	held, ok := p.buffers.append(v.held, b[:n])
	v.held = held
	p.sealed += cap(held) - before
	if ok {
		had := cap(v.marks)
		v.marks = append(v.marks, mark{len(held), gap, at})
		p.charge(c, (cap(v.marks)-had)*markCost)
	}
	if !ok || n < len(b) || len(v.marks) >= maxMarks {
		c.half[d].full = true
		if other := &c.veils[d.Other()]; other.waits() && other.begun && !c.earlyData {
			c.half[d.Other()].full = true // nobody says that much in a handshake
		}
	}
	p.crowded = p.crowded || p.sealed > p.limits.Sealed
}

// relieve makes room: what has waited longest gives way.
func (p *Parser) relieve() {
	for p.waiting.Len() > 0 && (p.sealed > p.limits.Sealed || p.waiting.Len() > maxWaiting) {
		p.stats.SealedLimit++
		p.resolve(p.waiting.Front().Value.(*waiting), true)
	}
	p.crowded = false
}

// await puts c among those that wait.
func (p *Parser) await(c *Conn, at event.Moment) {
	if c.waiting == nil {
		since := p.now
		if since == 0 {
			since = at.Time
		}
		c.waiting = &waiting{conn: c, since: since}
		c.waiting.entry = p.waiting.PushBack(c.waiting)
		p.crowded = p.crowded || p.waiting.Len() > maxWaiting
	}
}

// Tick opens what has waited for secrets that are there now, and gives up what has
// waited too long. now is flow time, in nanoseconds, which jumps of clocks do not
// move; before the first Tick, times of packets stand for it. Flows
// that were closed meanwhile are emitted then.
func (p *Parser) Tick(now int64) {
	p.now = now
	if p.waiting.Len() == 0 {
		return
	}
	added := p.keys.Added()
	fresh := added != p.added
	p.added = added
	for e := p.waiting.Front(); e != nil; {
		w := e.Value.(*waiting)
		late := now-w.since >= maxSealedTime
		if !fresh && !late {
			return
		}
		e = e.Next()
		p.resolve(w, late)
	}
}

// Flush gives up all that waits for secrets, at the end of all flows of a capture.
func (p *Parser) Flush() {
	for p.waiting.Len() > 0 {
		p.resolve(p.waiting.Front().Value.(*waiting), true)
	}
	p.now = 0
}

// resolve opens what w has held with the secrets that are there now. When that is
// all, or last says that there will be no more, w waits no longer.
func (p *Parser) resolve(w *waiting, last bool) {
	c := w.conn
	root := c
	if c.parent != nil {
		root = c.parent
	}
	defer func() { p.enter(root, root.sender) }() // nothing is left to enter when it is closed
	left := false
	for d := range event.Direction(2) {
		v := &c.veils[d]
		switch {
		case !v.waits():
		case p.unlock(c, d):
			p.reveal(c, d)
		case last:
			p.unseal(c, d)
		default:
			left = true
		}
	}
	if left || c.waiting == nil { // the handshake is over by what was revealed
		return
	}
	p.waiting.Remove(w.entry)
	c.waiting = nil
	switch {
	case w.ended && c.decided:
		p.finish(c, event.NoLoss)
		p.end(c, w.cause)
	case w.ended:
		p.end(c, w.cause)
	case c.decided:
		p.finish(c, event.NoLoss)
	default:
		p.decide(c)
	}
}

// reveal reads what was held in direction d.
func (p *Parser) reveal(c *Conn, d event.Direction) {
	v := &c.veils[d]
	if c.quic != nil {
		p.quicSecrets(c)
		return
	}
	held, marks := v.held, v.marks
	v.held, v.marks = nil, nil
	p.sealed -= cap(held)
	from := 0
	for _, m := range marks {
		if m.gap > 0 && c.half[d].phase == veiled {
			p.veilGap(c, d, m.at, m.gap)
		}
		b := held[from:m.end]
		from = m.end
		if c.half[d].phase != veiled || len(b) == 0 {
			continue
		}
		if v.datagrams == nil {
			p.unveil(c, d, m.at, b)
		} else if r, _, ok := tls13.NextUnified(b, int(c.ids[d])); ok {
			p.ciphertext(c, d, m.at, &r)
		}
	}
	if c.half[d].full && c.half[d].phase == veiled {
		p.unseal(c, d)
	}
	p.buffers.put(held)
}

// dropVeil gives back what v has borrowed.
func (p *Parser) dropVeil(v *veil) {
	p.buffers.put(v.record)
	p.buffers.put(v.held)
	p.sealed -= cap(v.held)
	*v = veil{begun: v.begun, keyed: v.keyed, failed: v.failed}
}

// countKeys counts what keys have done for a handshake that is over.
func (p *Parser) countKeys(c *Conn) {
	if c.veils == nil {
		return
	}
	if c.side[0].opened || c.side[1].opened {
		p.stats.Decrypted++
	}
	for d := range c.veils {
		if c.veils[d].failed && !c.side[d].opened {
			p.stats.WrongSecrets++
		}
	}
}

// uncover forgets the encrypted part of a handshake that is over.
func (p *Parser) uncover(c *Conn) {
	if c.veils == nil {
		return
	}
	if c.quic != nil {
		c.quic.session.Forget()
	}
	for d := range c.veils {
		p.dropVeil(&c.veils[d])
		c.veils[d] = veil{}
	}
	if w := c.waiting; w != nil && !w.ended {
		p.waiting.Remove(w.entry)
		c.waiting = nil
	}
}

// ciphertext takes an encrypted record of DTLS 1.3.
func (p *Parser) ciphertext(c *Conn, d event.Direction, at event.Moment, r *tls13.Unified) {
	const handshakeEpoch = 2
	h := &c.half[d]
	if h.phase != veiled {
		if c.side[d].opened { // the handshake is over
			return
		}
		if h.ended() || !p.cover(c, d, at) {
			c.touch(at)
			h.phase = sealed
			return
		}
	}
	v := &c.veils[d]
	v.begun = true
	if r.Epoch != handshakeEpoch { // early data, or what comes behind the handshake
		if h.after++; h.after >= oneSided {
			p.unseal(c, d)
		}
		return
	}
	if v.waits() {
		p.hold(c, d, at, 0, r.Bytes)
		return
	}
	typ, content, ok := v.datagrams.Open(p.plain[:0], r)
	p.plain = content[:0]
	if !ok {
		v.failed = true
		if v.missed += len(r.Bytes); v.missed > maxEarlyData {
			p.unseal(c, d)
		}
		return
	}
	p.opened(c, d, at)
	switch typ {
	case tls.Handshake:
		for len(content) > 0 && h.phase == veiled {
			f, rest, ok := dtls.NextFragment13(content)
			if !ok {
				return
			}
			content = rest
			p.fragment(c, d, at, &f)
		}
		// The messages may come in any order.
		if c.side[d].last && len(c.flights[d].pending) == 0 && !c.flights[d].holed() && h.phase == veiled {
			p.unseal(c, d)
		}
	case tls.Alert:
		if len(content) == 2 {
			c.alert(d, at, content[0], content[1])
		}
	}
}
