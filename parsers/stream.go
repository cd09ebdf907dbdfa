package parsers

import (
	"bytes"
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// phase is where one direction of a flow is.
type phase uint8

const (
	preface  phase = iota // nothing that looks like TLS yet
	records               // in plaintext records
	version2              // in an SSLv2 hello
	astray                // the record framing was lost
	veiled                // what follows is encrypted, and opened, or waits to be
	sealed                // all that follows is encrypted
	spent                 // given up: no TLS, or no way back to the framing
)

// half is one direction of a flow.
type half struct {
	phase    phase
	seen     bool       // there were bytes, or datagrams
	gapped   bool       // bytes of the handshake may be missing
	cause    event.Loss // why the framing was lost
	ccs      bool       // a ChangeCipherSpec that did not tell whether encryption begins
	adrift   bool       // the next handshake record may not begin with a message
	skip     bool       // the rest of the handshake record is of no use
	version  uint16     // of the first record
	after    int        // segments or datagrams since it ended
	bytes    int        // in preface or astray; else of plaintext records
	segments int        // in preface or astray; of datagrams, encrypted records

	header  [startBytes]byte // the beginning of a record that is not there to its end
	headers uint8            // bytes of it
	typ     uint8            // of the current record
	length  int              // of its body
	left    int              // bytes of it that are still to come
	alert   uint16           // alertBegun and the level of an alert whose description is to come, 0 without

	message assembly
	carrier carrier.Carrier // of the TLS in this direction
	joined  bool            // it was not seen how it began
	full    bool            // it waits for a secret, and no more of it is held
	carver  *carver         // nil where nothing was lost
}

// ended tells whether nothing more is to be read of this direction.
func (h *half) ended() bool { return h.phase == sealed || h.phase == spent || h.full }

// stranger tells whether all that came was no TLS.
func (h *half) stranger() bool {
	return h.seen && !h.gapped && h.headers == 0 && (h.phase == preface || h.phase == spent && h.cause == event.NoLoss)
}

// assembly is a handshake message that is not there to its end. Of the body,
// the first keep bytes are kept, but for a hole.
type assembly struct {
	header  [tls.MessageHeader]byte
	headers uint8  // bytes of it
	kept    []byte // borrowed from the parser's buffers
	length  int    // of the body
	have    int    // bytes of the body that went by, kept or not
	keep    int
	holeAt  int // in kept and in the body; only when there is a hole
	hole    int // its length, 0 without
	cause   event.Loss
	at      event.Moment // of the last packet of it
}

// startBytes is how many bytes at most it takes to recognize TLS: a record's
// header, a message's, and the beginning of a certificate list.
const startBytes = tls.RecordHeader + messageStart

// messageStart is how many bytes of a message at most it takes to recognize it:
// its header, the length of the list and of the first certificate, and the tag
// of that. helloStart is how many it takes when it is no Certificate.
const (
	messageStart = tls.MessageHeader + 7
	helloStart   = tls.MessageHeader + 2
)

const (
	// shortestHello is how long a record with a whole hello in it is at least.
	shortestHello = tls.MessageHeader + 2 + 32 + 4
	// longestAlerts is how many bytes of alerts in one record may be the first
	// of a stream: GnuTLS takes more than two.
	longestAlerts = 32
)

// start is what the beginning of a segment looks like.
type start uint8

const (
	noStart     start = iota
	needMore          // of more bytes it might be one
	framed            // a record; if of a handshake, then of contents unknown
	hello             // a record in which a handshake message begins
	helloOld          // an SSLv2 hello
	emptyRecord       // a record without content, which says nothing
)

// starts tells what b looks like; first, where TLS may begin. Receivers ignore
// the version of the first record, and so does this where the content says by
// itself that it is TLS.
func starts(b []byte, first bool) start {
	if first && b[0]&0x80 != 0 {
		if len(b) < tls.V2Header {
			return needMore
		}
		if n, _ := tls.V2Length(b); n > 0 {
			return helloOld
		}
		return noStart
	}
	if b[0] < tls.ChangeCipherSpec || b[0] > tls.ApplicationData || len(b) > 1 && !tls.AnyVersion(b[1]) {
		return noStart
	}
	if len(b) < tls.RecordHeader {
		return needMore
	}
	length, body := tls.RecordLength(b), b[tls.RecordHeader:]
	known := tls.IsVersion(b[1], b[2])
	odd := !known && b[1] != 3 // a version that no receiver takes but for a hello
	if length > tls.MaxRecord || odd && (b[0] != tls.Handshake || length < shortestHello) {
		return noStart
	}
	if length == 0 {
		return emptyRecord
	}
	want := 0
	switch b[0] {
	case tls.ChangeCipherSpec:
		want = 1
	case tls.Alert:
		want = 2
	case tls.Handshake:
		want = min(length, helloStart)
		if len(body) > 0 && body[0] == tls.Certificate {
			want = min(length, messageStart)
		}
	case tls.ApplicationData:
		if !known {
			return noStart
		}
	}
	if b[0] != tls.Handshake && want > 0 && length != want && !(first && b[0] == tls.Alert && length <= longestAlerts) {
		return noStart
	}
	want = min(want, length)
	body = body[:min(len(body), want)]
	if len(body) < want {
		if b[0] != tls.Handshake || messageStarts(body, length) {
			return needMore
		}
		return believed(known, framed)
	}
	switch b[0] {
	case tls.ChangeCipherSpec:
		if body[0] != 1 {
			return noStart
		}
	case tls.Alert:
		if !first && body[0] != alertWarning && body[0] != alertFatal {
			return noStart
		}
	case tls.Handshake:
		if !messageStarts(body, length) {
			return believed(known, framed)
		}
		if odd && (body[0] != tls.TypeClientHello && body[0] != tls.TypeServerHello || tls.MessageHeader+tls.Uint24(body[1:]) > length) {
			return noStart
		}
		return hello
	}
	return framed
}

// believed is s if that is known, else noStart.
func believed(known bool, s start) start {
	if known {
		return s
	}
	return noStart
}

// messageStarts tells whether b, the beginning of the body of a handshake
// record of length bytes, looks like the beginning of a message in plaintext,
// as far as b goes.
func messageStarts(b []byte, length int) bool {
	if len(b) == 0 {
		return true
	}
	typ := b[0]
	if tls.SenderOf(typ) == tls.Nobody {
		return false
	}
	if len(b) < tls.MessageHeader {
		return len(b) == 1 || b[1] <= maxMessage>>16
	}
	n := tls.Uint24(b[1:])
	fits := tls.MessageHeader+n <= length // in the record, as it mostly does
	body := b[tls.MessageHeader:min(len(b), messageStart)]
	major := func() bool {
		return len(body) == 0 || body[0] == 0x7f || len(body) == 1 && tls.AnyVersion(body[0]) || len(body) > 1 && tls.IsVersion(body[0], body[1])
	}
	switch typ {
	case tls.HelloRequest, tls.ServerHelloDone:
		return n == 0
	case tls.TypeClientHello: // of a version yet to come too (RFC 5246, section E.1)
		return n >= 38 && n <= 1<<17 && (major() || tls.AnyVersion(body[0]) && tls.MessageHeader+n == length)
	case tls.TypeServerHello:
		return n >= 38 && n <= 1<<17 && major()
	case tls.HelloRetryRequest:
		return fits && major()
	case tls.Certificate: // the list, and the first certificate in it
		if n == 3 {
			return len(body) < 3 || tls.Uint24(body) == 0
		}
		return n > 9 && n <= maxMessage && (len(body) < 3 || tls.Uint24(body) == n-3) &&
			(len(body) < 6 || tls.Uint24(body[3:]) <= n-6) && (len(body) < 7 || body[6] == 0x30)
	}
	return fits
}

// recognize looks for TLS at the beginning of b and of what is held of the
// segment before, where none was found yet or where the framing was lost. It is
// false when there is none; what is held then stays.
func (p *Parser) recognize(c *Conn, d event.Direction, at event.Moment, b []byte) bool {
	h := &c.half[d]
	if h.carving() {
		return false
	}
	n := int(h.headers)
	first := h.phase == preface && c.opens(d)
	var window []byte
	var s start
	for {
		window = b
		if n > 0 {
			copy(p.start[:], h.header[:n])
			window = p.start[:n+copy(p.start[n:startBytes], b)]
		}
		if s = starts(window[:min(len(window), startBytes)], first); s != emptyRecord {
			break
		}
		// It is passed over as if it had not come (RFC 5246, section 6.2.1).
		b = b[tls.RecordHeader-n:]
		if n = 0; len(b) == 0 {
			h.headers = 0
			h.segments++
			return true
		}
	}
	if s == hello && h.lost() && !messageResumes(window[tls.RecordHeader:], tls.RecordLength(window)) {
		s = framed
	}
	if s == noStart || s == framed && !c.believes(d, window[0]) ||
		s == framed && !h.lost() && window[0] == tls.ApplicationData { // TLS does not begin encrypted
		return false
	}
	if s == needMore {
		h.headers = uint8(copy(h.header[:], window))
		if h.phase == astray {
			p.wander(c, d, at, b)
		} else {
			p.stray(c, d, at, b)
		}
		return true
	}
	if k := h.carver; k != nil {
		if s == framed && window[0] == tls.Handshake {
			p.rejoin(k, n)
		} else {
			p.dropCarved(k)
		}
	}
	typ := uint8(tls.HelloRequest)
	switch s {
	case hello:
		typ = window[tls.RecordHeader]
	case helloOld:
		typ = tls.TypeClientHello
	}
	if h.phase == preface {
		c.carried(d, typ)
	}
	c.resumeSearch(d)
	h.headers, h.bytes, h.segments = 0, 0, 0
	// Behind an alert, say, a message begins where the stream does.
	h.adrift = h.phase == astray || s == framed && (!first || h.lost() || window[0] == tls.Handshake)
	h.phase = records
	switch s {
	case helloOld:
		h.phase = version2
	case hello:
		h.version = binary.BigEndian.Uint16(window[1:])
		p.begin(c, d, at)
		c.sent(d, typ)
	}
	if n > 0 {
		p.feed(c, d, at, p.start[:n])
	}
	p.feed(c, d, at, b)
	return true
}

// believes tells whether a record whose contents say nothing is taken for TLS:
// encrypted data by itself, a handshake where the other direction or this one
// was TLS already; but neither where TLS must begin with a hello, or with what
// may come before it.
func (c *Conn) believes(d event.Direction, typ uint8) bool {
	h, other := &c.half[d], c.half[d.Other()].phase
	if h.phase == preface && !h.lost() && c.upgrades() {
		return (typ == tls.Alert || typ == tls.ChangeCipherSpec) && c.opens(d)
	}
	return typ != tls.Handshake || h.phase == astray || other == records || other == sealed || other == astray
}

// wander searches what does not begin with a record, where the framing was lost.
// There is an end to that.
func (p *Parser) wander(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	if p.carve(c, d, at, b, true, false) {
		return
	}
	h.bytes += len(b)
	h.segments++
	if h.bytes > maxAstray || h.segments > maxAstraySegments {
		h.phase = spent
		p.settle(c, d)
	}
}

func (p *Parser) feed(c *Conn, d event.Direction, at event.Moment, b []byte) {
	if c.half[d].phase == version2 {
		p.version2(c, d, at, b)
		return
	}
	p.records(c, d, at, b)
}

// records reads plaintext records.
func (p *Parser) records(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	for len(b) > 0 && h.phase == records {
		if h.left == 0 {
			header := b
			if h.headers > 0 || len(b) < tls.RecordHeader {
				n := copy(h.header[h.headers:tls.RecordHeader], b)
				h.headers += uint8(n)
				b = b[n:]
				if h.headers < tls.RecordHeader {
					return
				}
				header, h.headers = h.header[:], 0
			} else {
				b = b[tls.RecordHeader:]
			}
			p.record(c, d, at, header)
			continue
		}
		begins := h.left == h.length
		if need := min(h.length, messageStart); begins && (h.adrift || h.ccs) && h.typ == tls.Handshake && (h.headers > 0 || len(b) < need) {
			// Too few bytes to tell whether a message begins here.
			n := copy(h.header[h.headers:need], b)
			h.headers += uint8(n)
			b = b[n:]
			if int(h.headers) < need {
				return
			}
			h.headers = 0
			p.records(c, d, at, bytes.Clone(h.header[:need]))
			continue
		}
		if begins && h.ccs && h.typ == tls.Handshake {
			if h.ccs = false; !helloFollows(b[:min(len(b), messageStart)], h.length) {
				p.seal(c, d, at, h.typ)
				return
			}
		}
		n := min(h.left, len(b))
		body := b[:n]
		b = b[n:]
		h.left -= n
		switch h.typ {
		case tls.Handshake:
			if begins {
				h.skip = h.adrift && (h.carving() || !messageResumes(body, h.length))
				h.adrift = h.skip
				if !h.skip {
					p.settle(c, d)
				}
			}
			if h.skip {
				p.carve(c, d, at, body, false, false)
			} else {
				p.handshake(c, d, at, body)
			}
		case tls.ChangeCipherSpec:
			if body[0] != 1 || h.length != 1 {
				p.lose(c, d, event.Malformed)
			} else if c.changeCipherSpec(d, at) {
				p.seal(c, d, at, 0)
			} else {
				h.ccs = true
			}
		case tls.Alert:
			for _, v := range body {
				if h.alert == 0 {
					h.alert = alertBegun | uint16(v)
					continue
				}
				c.alert(d, at, uint8(h.alert), v)
				h.alert = 0
			}
		}
	}
	switch {
	case len(b) == 0:
	case h.phase == astray:
		p.wander(c, d, at, b)
	case h.phase == veiled:
		p.unveil(c, d, at, b)
	}
}

// alertBegun tells the first byte of an alert from none.
const alertBegun = 1 << 8

// frames tells whether header is that of the next record. While nothing is
// missing, where records begin is known, and the version says nothing (RFC 8446,
// section 5.1); a type that is not known may be passed over (RFC 2246, section
// 6).
func (h *half) frames(header []byte) bool {
	if tls.IsRecord(header) {
		return true
	}
	version := binary.BigEndian.Uint16(header[1:])
	switch known := tls.IsContentType(header[0]); {
	case tls.RecordLength(header) > tls.MaxRecord:
		return false
	case h.gapped || h.joined || h.adrift:
		return known && (version == h.version || header[1] == 3)
	default:
		return known || version == h.version
	}
}

// record takes the header of a record.
func (p *Parser) record(c *Conn, d event.Direction, at event.Moment, header []byte) {
	h := &c.half[d]
	if !h.frames(header) {
		p.lose(c, d, event.Malformed)
		return
	}
	h.typ, h.length = header[0], tls.RecordLength(header)
	h.left = h.length
	if h.version == 0 {
		h.version = binary.BigEndian.Uint16(header[1:])
	}
	if h.bytes += tls.RecordHeader + h.length; h.bytes > maxPlaintext {
		p.lose(c, d, event.Limit)
		h.phase = spent
		return
	}
	if h.length == 0 {
		return
	}
	// In plaintext, of several. Encrypted ones have at least a MAC of 10 bytes
	// (RFC 6066, section 7), and come behind a ChangeCipherSpec, which may be
	// missing.
	const longestAlert = 11
	switch {
	case h.typ == tls.ApplicationData:
		p.seal(c, d, at, h.typ)
		p.veil(c, d, at, header)
	case h.typ == tls.Alert && h.length > longestAlert && (h.ccs || h.gapped || h.joined || h.adrift):
		p.seal(c, d, at, h.typ)
	case h.typ == tls.Handshake && c.hs != nil && c.hs.HelloRetry:
		h.ccs = false
	case h.typ == tls.Alert && h.length%2 == 0:
		h.alert = 0
	}
}

// helloFollows tells whether b, the beginning of the body of a handshake record
// of length bytes behind a ChangeCipherSpec, is plaintext all the same: a
// client that may speak TLS 1.3 ignores one that comes before the hello (RFC
// 8446, section 5).
func helloFollows(b []byte, length int) bool {
	const shortestFinished = 16 // encrypted, or with a MAC
	return length < shortestFinished || (b[0] == tls.TypeClientHello || b[0] == tls.TypeServerHello) && messageStarts(b, length)
}

// handshake takes the next bytes of the handshake messages of one direction.
// Messages that are all there are read in place.
func (p *Parser) handshake(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	m := &h.message
	for len(b) > 0 && (h.phase == records || h.phase == veiled) {
		if m.headers == 0 && len(b) >= tls.MessageHeader {
			n := tls.MessageHeader + tls.Uint24(b[1:])
			if n <= len(b) && p.admit(c, d, at, b[0]) {
				message := tls.Message{Type: b[0], TLS13: h.phase == veiled, Length: n - tls.MessageHeader, Head: b[tls.MessageHeader:n]}
				p.handle(c, d, at, &message, event.NoLoss)
				b = b[n:]
				continue
			}
			if h.ended() || h.phase == astray {
				return
			}
		}
		if m.headers < tls.MessageHeader {
			n := copy(m.header[m.headers:], b)
			m.headers += uint8(n)
			m.at = event.Later(m.at, at)
			b = b[n:]
			if m.headers < tls.MessageHeader {
				c.touch(at)
				return
			}
			m.length = tls.Uint24(m.header[1:])
			if !p.admit(c, d, at, m.header[0]) {
				return
			}
			m.keep = min(m.length, keeps(m.header[0]))
			if m.length > maxMessage {
				m.keep, m.cause = 0, event.Limit
			}
		}
		n := min(len(b), m.length-m.have)
		if k := min(n, m.keep-m.have); k > 0 {
			kept, ok := p.buffers.append(m.kept, b[:k])
			if m.kept = kept; !ok {
				m.keep, m.cause = m.have, event.Limit
			}
		}
		m.have += n
		m.at = event.Later(m.at, at)
		c.touch(at)
		b = b[n:]
		if m.have == m.length {
			p.complete(c, d, event.NoLoss)
		}
	}
}

// keeps is how many bytes of the body of a message of type typ are looked at.
func keeps(typ uint8) int {
	switch typ {
	case tls.TypeClientHello, tls.TypeServerHello, tls.Certificate, tls.CertificateRequest,
		tls.EncryptedExtensions, tls.CompressedCertificate:
		return maxMessage
	case tls.ServerKeyExchange:
		return 3 // the named curve
	}
	return 0
}

// admit takes the type of a handshake message. What cannot be one in plaintext
// is where the framing was lost, if something was; else it is a message that is
// not known, and is passed over.
func (p *Parser) admit(c *Conn, d event.Direction, at event.Moment, typ uint8) bool {
	if c.half[d].phase == veiled { // whatever it is, its sender meant it
		c.touch(at)
		return true
	}
	h := &c.half[d]
	if tls.SenderOf(typ) == tls.Nobody && (h.gapped || h.joined) {
		p.lose(c, d, event.Malformed)
		return false
	}
	p.begin(c, d, at)
	c.sent(d, typ)
	return true
}

// complete hands on the message that is being put together, whole or not.
func (p *Parser) complete(c *Conn, d event.Direction, cause event.Loss) {
	m := c.half[d].message
	c.half[d].message = assembly{} // first: to handle a message may finish a handshake
	if m.cause != event.NoLoss {
		cause = m.cause
	}
	message := tls.Message{Type: m.header[0], TLS13: c.half[d].phase == veiled, Length: m.length, Head: m.kept}
	if m.hole > 0 {
		message.Head, message.Tail, message.TailAt = m.kept[:m.holeAt], m.kept[m.holeAt:], m.holeAt+m.hole
	}
	p.handle(c, d, m.at, &message, cause)
	p.buffers.put(m.kept)
}

// cut ends the message that is being put together: the rest will not come.
func (p *Parser) cut(c *Conn, d event.Direction, cause event.Loss) {
	m := &c.half[d].message
	if m.headers == tls.MessageHeader {
		p.complete(c, d, cause)
		return
	}
	p.buffers.put(m.kept) // of an SSLv2 hello
	*m = assembly{}
}

// lose says that the records of one direction cannot be followed any more.
func (p *Parser) lose(c *Conn, d event.Direction, cause event.Loss) {
	h := &c.half[d]
	if h.cause == event.NoLoss {
		h.cause = cause
	}
	p.cut(c, d, cause)
	p.settle(c, d)
	h.phase = astray
	h.bytes, h.segments = 0, 0
	h.left, h.headers, h.alert = 0, 0, 0
}

// seal says that the rest of one direction is encrypted; by is the type of the
// record that told, 0 when it was the ChangeCipherSpec.
func (p *Parser) seal(c *Conn, d event.Direction, at event.Moment, by uint8) {
	h := &c.half[d]
	cause := event.Malformed // a message that goes on encrypted
	if h.gapped {
		cause = event.Gap
	}
	p.cut(c, d, cause)
	p.settle(c, d)
	if !h.adrift && !h.gapped {
		c.side[d].sealedBy = by
	}
	c.touch(at)
	h.phase = sealed
}

// flush hands on what is there of unfinished messages at the end of a flow.
func (p *Parser) flush(c *Conn, cause event.Loss) {
	if cause == event.NoLoss {
		cause = event.Gap
	}
	p.flushQUIC(c, cause)
	for d := range event.Direction(2) {
		if c.flights != nil {
			p.flushFlight(c, d, cause)
		}
		p.cut(c, d, cause)
		p.settle(c, d)
	}
	for d := range event.Direction(2) {
		p.adopt(c, d)
	}
}

// gap takes a gap of n bytes. Where it lies within a record, the records behind
// it can still be followed; within a message, the messages too.
func (p *Parser) gap(c *Conn, d event.Direction, at event.Moment, n int) {
	h := &c.half[d]
	p.settle(c, d)
	if (h.phase == preface || c.framed(d)) && !c.talk()[d].Skip(n) && h.phase != preface {
		h.gapped = true
		p.lose(c, d, event.Gap)
		return
	}
	switch h.phase {
	case preface, astray:
		h.gapped = true
		h.headers = 0
	case version2:
		h.gapped = true
		p.lose(c, d, event.Gap)
	case veiled:
		p.veilGap(c, d, at, n)
	case records:
		h.gapped = true
		if n > h.left || h.headers > 0 {
			p.lose(c, d, event.Gap)
			p.regain(c, d, at)
			return
		}
		begins := h.left == h.length
		h.left -= n
		h.alert = 0
		if h.typ == tls.Handshake && !h.skip {
			if begins && h.adrift {
				h.skip = true
				return
			}
			p.puncture(c, d, n)
		}
	}
}

// puncture says that n bytes of the current handshake record are missing.
func (p *Parser) puncture(c *Conn, d event.Direction, n int) {
	h := &c.half[d]
	m := &h.message
	if m.headers < tls.MessageHeader || n > m.length-m.have {
		p.cut(c, d, event.Gap)
		h.skip, h.adrift = true, true
		return
	}
	if m.have < m.keep {
		if m.hole > 0 { // a second one: forget what lies between
			if m.header[0] == tls.Certificate {
				p.sift(c, d, m.at, m.kept[m.holeAt:])
			}
			m.hole = m.have + n - m.holeAt
			m.kept = m.kept[:m.holeAt]
		} else {
			m.holeAt, m.hole = m.have, n
		}
		m.cause = event.Gap
	}
	m.have += n
	if m.have == m.length {
		p.complete(c, d, event.Gap)
	}
}

// version2 reads an SSLv2 hello. What follows that of the version itself is
// keys, then encrypted.
func (p *Parser) version2(c *Conn, d event.Direction, at event.Moment, b []byte) {
	h := &c.half[d]
	m := &h.message
	if m.length > 0 && m.have == m.length {
		p.seal(c, d, at, 0)
		return
	}
	whole := b
	if m.have > 0 || len(b) < tls.V2Header {
		kept, ok := p.buffers.append(m.kept, b)
		if m.kept = kept; !ok {
			p.lose(c, d, event.Limit)
			return
		}
		whole = kept
	}
	n := 0
	client := false
	if len(whole) >= tls.V2Header {
		n, client = tls.V2Length(whole)
	}
	if n == 0 || len(whole) < n {
		if m.have == 0 && len(m.kept) == 0 {
			m.kept, _ = p.buffers.append(nil, b)
		}
		m.have = len(whole)
		return
	}
	p.begin(c, d, at)
	if client {
		view := tls.ParseV2ClientHello(whole[:n])
		c.sent(d, tls.TypeClientHello)
		if c.client == d && !c.helloWhole {
			p.setClientHello(c, &view, ja.TCP, true)
		}
	} else {
		c.sent(d, tls.TypeServerHello)
		p.handleV2ServerHello(c, d, at, whole[:n])
	}
	old := !client || c.hs.Version == tls.VersionSSL2
	rest := whole[n:]
	kept := m.kept
	*m = assembly{}
	if old {
		m.length, m.have = n, n
		if len(rest) > 0 {
			p.seal(c, d, at, 0)
		}
	} else {
		h.phase = records
		p.records(c, d, at, rest)
	}
	p.buffers.put(kept)
}

func (p *Parser) handleV2ServerHello(c *Conn, d event.Direction, at event.Moment, b []byte) {
	der, resumed := tls.ParseV2ServerHello(b)
	c.hs.Carrier = "sslv2"
	c.hs.Version = tls.VersionSSL2
	c.echoed = resumed
	s := &c.side[d]
	if s.certificate || len(der) == 0 {
		return
	}
	s.certificate, s.at = true, at
	s.chain = append(c.hs.chain[d][:0], event.ChainEntry{Certificate: p.certs.Get(der)})
}
