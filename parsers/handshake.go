package parsers

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/certcompress"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// shown is a handshake in the making, in one piece of memory with what most
// handshakes refer to.
type shown struct {
	event.Handshake
	flow  event.Flow
	hello event.ClientHello
	chain [2][3]event.ChainEntry // where the chains of the two directions begin
	next  *shown                 // in the parser's list
}

// show returns the memory of a handshake.
func (p *Parser) show() *shown {
	s := p.back
	if s == nil {
		s = new(shown)
	} else {
		p.back = s.next
		p.backs--
		s.next = nil
	}
	s.Memory = s
	return s
}

// Recycle gives back a handshake, of this parser or another, that its owner has
// no use for any more, with all that it refers to but for the certificates: the
// next one is made of it. That is less work for the garbage collector, and may
// be left out.
func (p *Parser) Recycle(h *event.Handshake) {
	s, ok := h.Memory.(*shown)
	if !ok || p.backs >= maxRecycled {
		return
	}
	*s = shown{next: p.back}
	p.back = s
	p.backs++
}

// unknown stands for the direction of the client, or who sent an alert.
const unknown event.Direction = 0xff

// progress is what is known of the handshake that a flow is in, besides what
// will be reported of it.
type progress struct {
	hs     *shown          // nil before the first message
	client event.Direction // unknown until a message tells
	side   [2]side         // by direction

	random       [32]byte // of the ClientHello that shown has
	session      [32]byte // its session, or as much of it
	sessionBytes uint8
	helloWhole   bool
	offers13     bool
	earlyData    bool     // the client sends some
	ids          [2]uint8 // lengths of the connection IDs in records of DTLS 1.3

	echoed  bool // the ServerHello has the ClientHello's session
	psk     bool // the server selected a pre-shared key
	rawKey  [2]bool
	alerted event.Direction // who ended it by a fatal alert
	early   refusal         // a fatal alert before any message
}

// refusal is a fatal alert that was captured before what it answers.
type refusal struct {
	seen        bool
	d           event.Direction
	at          event.Moment
	description uint8
}

// side is what one direction showed.
type side struct {
	chain       []event.ChainEntry
	certificate bool         // a Certificate message was seen
	cut         event.Loss   // why it was not seen whole
	at          event.Moment // of the packet that completed it
	last        bool         // its flight was over: ServerHelloDone, or Finished in TLS 1.3
	opened      bool         // encrypted records were opened with keys
	exchange    bool         // a key exchange was seen
	ccs         bool         // a ChangeCipherSpec was
	sealedBy    uint8        // content type of the first encrypted record behind the plaintext, 0 when not known
}

// leaf tells whether the first certificate was seen whole.
func (s *side) leaf() bool { return len(s.chain) > 0 && !s.chain[0].Truncated }

// begin makes sure that there is a handshake to add to.
func (p *Parser) begin(c *Conn, d event.Direction, at event.Moment) {
	if c.hs == nil {
		c.hs = p.show()
		c.hs.flow = c.flow
		c.hs.Flow, c.hs.Start, c.hs.Version = &c.hs.flow, at, c.half[d].version
		c.hs.Carrier, c.hs.Handshake.Datagram = c.within.String(), c.dtls()
		if c.within == carrier.None && c.dtls() {
			c.hs.Carrier = "dtls"
		}
		c.alerted = unknown
		if e := c.early; e.seen && e.d != d {
			c.alert(e.d, e.at, alertFatal, e.description)
		}
	}
	c.touch(at)
}

// dtls tells whether the handshakes of c are those of DTLS.
func (c *Conn) dtls() bool {
	if c.flow.Transport == event.TCP {
		return c.packets != nil && (c.packets.framing == turnFraming || c.packets.framing == iceFraming)
	}
	return c.parent == nil && c.quic == nil
}

// touch says that a packet belongs to the handshake.
func (c *Conn) touch(at event.Moment) {
	if c.hs != nil {
		c.hs.End = event.Later(c.hs.End, at)
	}
}

// sent notes who the client is by a message of direction d. A HelloRequest is
// ignored by everybody during a handshake, and does not tell.
func (c *Conn) sent(d event.Direction, typ uint8) {
	if c.client != unknown || typ == tls.HelloRequest {
		return
	}
	switch tls.SenderOf(typ) {
	case tls.Client:
		c.client = d
	case tls.Server:
		c.client = d.Other()
	}
}

// handle takes one handshake message of direction d; cause says why it is not
// whole when it is not.
func (p *Parser) handle(c *Conn, d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	if m.TLS13 {
		p.handleEncrypted(c, d, at, m, cause)
		return
	}
	if m.Type == tls.TypeClientHello {
		p.handleClientHello(c, d, at, m)
		return
	}
	p.begin(c, d, at)
	c.sent(d, m.Type)
	s := &c.side[d]
	switch m.Type {
	case tls.TypeServerHello:
		p.handleServerHello(c, d, m)
	case tls.HelloVerifyRequest, tls.HelloRetryRequest:
		c.hs.HelloRetry = true
	case tls.Certificate:
		p.handleCertificate(c, d, at, m, cause)
	case tls.ServerKeyExchange:
		s.exchange = true
		if c.hs.Curve == 0 {
			c.hs.Curve = tls.NamedCurve(m.Head)
		}
	case tls.CertificateRequest:
		c.requested()
		tls.Authorities(m.Head, m.Length, c.addAuthority)
		p.chargeAuthorities(c)
	case tls.ServerHelloDone:
		s.last = true
	case tls.ClientKeyExchange:
		s.exchange = true
	}
}

// handleEncrypted does the same for a message of the encrypted part of TLS 1.3.
func (p *Parser) handleEncrypted(c *Conn, d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	c.touch(at)
	switch m.Type {
	case tls.EncryptedExtensions:
		c.handleEncryptedExtensions(d, m)
	case tls.CertificateRequest:
		c.requested()
		tls.Authorities13(m.Head, c.addAuthority)
		p.chargeAuthorities(c)
	case tls.Certificate:
		p.handleCertificate(c, d, at, m, cause)
	case tls.CompressedCertificate:
		p.handleCompressed(c, d, at, m, cause)
	case tls.Finished: // what comes now has other keys
		c.side[d].last = true
		if cause == event.NoLoss && !c.dtls() {
			p.unseal(c, d)
		}
	}
}

// requested notes that the server has asked for a certificate.
func (c *Conn) requested() {
	c.hs.ClientAuth = true
	c.hs.AuthorityNames = c.hs.AuthorityNames[:0]
}

func (c *Conn) addAuthority(name []byte) bool {
	c.hs.AuthorityNames = append(c.hs.AuthorityNames, cert.ParseName(name).String)
	return len(c.hs.AuthorityNames) < maxAuthorities
}

func (c *Conn) handleEncryptedExtensions(d event.Direction, m *tls.Message) {
	h, ok := tls.ParseEncryptedExtensions(m.Head)
	if !ok || d == c.client {
		return
	}
	c.rawKey[d], c.rawKey[d.Other()] = h.ServerRawKey, h.ClientRawKey
	if c.hs.ServerHello != nil && len(h.ALPN) > 0 {
		hello := *c.hs.ServerHello // which others share
		hello.ALPN = string(h.ALPN)
		c.hs.ServerHello = &hello
	}
}

func (p *Parser) handleCompressed(c *Conn, d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	certificate := tls.Message{Type: tls.Certificate, TLS13: true, Length: m.Length}
	if m.Whole() {
		body, err := p.decompress.Certificate(m.Head)
		switch {
		case err == nil:
			certificate.Length, certificate.Head = len(body), body
		case errors.Is(err, certcompress.ErrTooLong):
			cause = event.Limit
		default:
			cause = event.Malformed
		}
	}
	p.handleCertificate(c, d, at, &certificate, cause)
}

func (p *Parser) handleClientHello(c *Conn, d event.Direction, at event.Moment, m *tls.Message) {
	h, ok := tls.ParseClientHello(m.Head, c.dtls())
	if ok && c.hs != nil && c.hs.ClientHello != nil && c.client == d && !bytes.Equal(c.random[:], h.Random) {
		p.finish(c, event.EndOfInput) // the client begins anew
		if c.dtls() {
			c.half = [2]half{}
			c.half[d].seen, c.half[d].phase = true, records
		}
	}
	p.begin(c, d, at)
	c.sent(d, m.Type)
	if !ok || c.client != d || c.helloWhole {
		return
	}
	over := ja.TCP
	switch {
	case c.quic != nil:
		over = ja.QUIC
	case c.dtls():
		over = ja.DTLS
	}
	p.setClientHello(c, &h, over, m.Whole())
}

// setClientHello keeps what is reported of h. A hello that was cut has no
// fingerprints: they would be wrong.
func (p *Parser) setClientHello(c *Conn, h *tls.ClientHello, over ja.Transport, whole bool) {
	c.helloWhole = whole
	c.offers13, c.earlyData = h.Offers13(), h.EarlyData
	c.ids[c.client.Other()] = uint8(len(h.ConnectionID))
	copy(c.random[:], h.Random)
	c.sessionBytes = uint8(copy(c.session[:], h.SessionID))
	if whole {
		c.hs.hello.Offer = p.offer(h, over)
	} else {
		lists := ja.Lists(h)
		c.hs.hello.Offer = &lists
	}
	c.hs.hello.ServerName = string(h.ServerName)
	p.chargeClientHello(c)
	c.hs.ClientHello = &c.hs.hello
	if c.hs.ServerHello == nil {
		c.hs.Version = h.Version
	}
}

func (p *Parser) handleServerHello(c *Conn, d event.Direction, m *tls.Message) {
	h, ok := tls.ParseServerHello(m.Head)
	if !ok || c.hs.ServerHello != nil || c.client == d {
		return
	}
	if h.Retry {
		c.hs.HelloRetry = true
		return
	}
	c.hs.ServerHello = p.serverHello(&h)
	p.chargeServerHello(c)
	c.hs.Version, c.hs.CipherSuite = c.hs.ServerHello.Version, h.CipherSuite
	if h.Group != 0 {
		c.hs.Curve = h.Group
	}
	c.psk = h.PreSharedKey
	c.ids[c.client] = uint8(len(h.ConnectionID))
	c.echoed = c.sessionBytes > 0 && bytes.Equal(c.session[:c.sessionBytes], h.SessionID)
	c.rawKey[d], c.rawKey[d.Other()] = h.ServerRawKey, h.ClientRawKey
}

func (p *Parser) handleCertificate(c *Conn, d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	s := &c.side[d]
	if s.certificate && (s.cut == event.NoLoss || !m.Whole()) {
		return // sent again
	}
	s.certificate, s.cut, s.at = true, event.NoLoss, at
	s.chain = nil
	if !m.TLS13 && tls.IsIdentityBased(c.hs.CipherSuite) {
		return
	}
	if c.rawKey[d] { // with a length before it
		key := &c.hs.RawKey
		if d == c.client {
			key = &c.hs.ClientRawKey
		}
		switch b := m.Head; {
		case m.TLS13:
			m.Certificates(func(der []byte, whole bool) bool {
				if whole {
					*key = sha256.Sum256(der)
				}
				return false
			})
		case m.Whole() && len(b) > 3 && tls.Uint24(b) == len(b)-3:
			*key = sha256.Sum256(b[3:])
		}
		return
	}
	if !m.Whole() {
		s.cut = cause
		p.sift(c, d, at, m.Tail)
	}
	s.chain = c.hs.chain[d][:0]
	ok := m.Certificates(func(der []byte, whole bool) bool {
		e := event.ChainEntry{Truncated: !whole}
		if whole {
			e.Certificate = p.certs.Get(der)
		} else {
			e.Certificate = cert.Salvage(der)
		}
		s.chain = append(s.chain, e)
		p.chargeChain(c, &e)
		return len(s.chain) < maxChain
	})
	if !ok {
		s.cut = event.Malformed
	}
}

// changeCipherSpec takes the message of that name of direction d. It reports
// whether all that follows in d is encrypted.
func (c *Conn) changeCipherSpec(d event.Direction, at event.Moment) bool {
	c.side[d].ccs = true
	c.touch(at)
	// TLS 1.3 sends it for show (RFC 8446, section D.4), before a second
	// ClientHello too.
	return c.hs != nil && c.hs.ServerHello != nil && !tls.Is13(c.hs.Version)
}

// alert takes an alert in plaintext.
func (c *Conn) alert(d event.Direction, at event.Moment, level, description uint8) {
	if c.hs == nil {
		if level == alertFatal && !c.early.seen {
			c.early = refusal{true, d, at, description}
		}
		return
	}
	if c.alerted != unknown || level != alertWarning && level != alertFatal {
		return
	}
	c.touch(at)
	is13 := c.hs.ServerHello != nil && tls.Is13(c.hs.Version) // where the level means nothing
	if level == alertFatal || is13 && description != alertCloseNotify && description != alertUserCanceled {
		c.hs.Alerted, c.hs.Alert, c.alerted = true, description, d
	}
}

// Levels and descriptions of alerts (RFC 8446, section 6).
const (
	alertWarning      = 1
	alertFatal        = 2
	alertCloseNotify  = 0
	alertUserCanceled = 90
)

// refused tells whether a fatal alert has ended the handshake: nothing of the
// other side can still be on its way.
func (c *Conn) refused() bool {
	if c.alerted == unknown || c.client == unknown {
		return false
	}
	if c.alerted != c.client {
		return c.helloWhole
	}
	s := &c.side[c.client.Other()]
	if c.half[c.client.Other()].phase == veiled { // the certificate is to come
		return s.certificate
	}
	return s.certificate || s.last || c.hs.ServerHello != nil && tls.Is13(c.hs.Version)
}

// finish emits the handshake, if there is one, and gets ready for the next. A
// certificate that was still to come is lost by cause; NoLoss says that it
// would have come by now.
func (p *Parser) finish(c *Conn, cause event.Loss) {
	p.flush(c, cause)
	if c.hs == nil {
		return
	}
	if c.client == unknown { // nothing but certificates: a server's, most likely
		c.client = 0
		if c.side[0].certificate && !c.side[1].certificate {
			c.client = 1
		}
	}
	client, server := c.client, c.client.Other()
	h := &c.hs.Handshake
	h.Client = client
	if h.Carrier == carrier.None.String() {
		h.Carrier = c.carrier().String()
	}
	h.Chain, h.ClientChain = c.side[server].chain, c.side[client].chain
	h.Established = !h.Alerted && c.encrypts(0) && c.encrypts(1)
	h.Outcome, h.Loss = c.outcome(server, cause)
	h.Resumed = h.Outcome == event.Resumed
	if c.side[server].leaf() {
		h.Certificate = c.side[server].at
	}
	h.Forged, h.Alternative = c.root().forged, c.replaces
	if !p.isNews(c, h) {
		p.discharge(c)
		c.progress = progress{client: unknown, random: c.random}
		return
	}
	c.failed = h.Alerted && h.Outcome != event.Extracted
	p.countKeys(c)
	p.stats.Handshakes++
	p.stats.Outcomes[h.Outcome]++
	if h.Outcome == event.Lost {
		p.stats.Losses[h.Loss]++
	}
	if p.unanswered(c, server) && !c.root().book.records() {
		h.Unrecorded = true
	}
	p.uncover(c)
	p.discharge(c)
	c.progress = progress{client: unknown, random: c.random}
	root := c.root()
	h.Index = root.index
	root.index++
	p.emit(h)
}

// isNews reports whether h is to be emitted, and tells the alternative of c what
// certificate it has.
func (p *Parser) isNews(c *Conn, h *event.Handshake) bool {
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

// unanswered tells whether all that was seen of the handshake is a ClientHello,
// and no byte of the server.
func (p *Parser) unanswered(c *Conn, server event.Direction) bool {
	return c.hs.ClientHello != nil && c.hs.ServerHello == nil && !c.half[server].seen && !c.side[server].certificate
}

// encrypts tells whether direction d went on to encrypted data.
func (c *Conn) encrypts(d event.Direction) bool {
	return c.half[d].phase == sealed || c.dtls() && c.half[d].segments > 0 || c.half[d].phase == veiled && c.veils[d].begun
}

// outcome is what became of the server's certificate.
func (c *Conn) outcome(server event.Direction, cause event.Loss) (event.Outcome, event.Loss) {
	s, client := &c.side[server], &c.side[server.Other()]
	half := &c.half[server]
	if cause == event.NoLoss {
		cause = event.Gap // it went by
	}
	switch {
	case half.cause != event.NoLoss:
		cause = half.cause
	case half.stranger():
		cause = event.Malformed
	case half.gapped || !half.seen && c.half[server.Other()].phase == sealed:
		cause = event.Gap
	}
	switch {
	case s.leaf():
		return event.Extracted, event.NoLoss
	case s.cut != event.NoLoss:
		return event.Lost, s.cut
	case s.certificate: // an empty list, or a raw public key
		return event.None, event.NoLoss
	}
	if c.hs.ServerHello == nil {
		switch {
		case c.alerted == server:
			return event.None, event.NoLoss
		case c.quic != nil: // which is TLS 1.3, answered or not
			return event.Encrypted, event.NoLoss
		case s.sealedBy == tls.ApplicationData || client.sealedBy == tls.ApplicationData && c.offers13:
			return event.Encrypted, event.NoLoss // TLS 1.3 hides its Finished in application data
		case !half.seen && client.ccs && !client.exchange && c.helloWhole && !c.offers13 && !c.half[server.Other()].gapped:
			return event.Resumed, event.NoLoss // the client exchanged no keys
		}
		return event.Lost, cause
	}
	switch {
	case tls.Is13(c.hs.Version) && c.psk:
		return event.Resumed, event.NoLoss
	case s.opened && (s.last || c.alerted == server) && !half.gapped: // there was none
		return event.None, event.NoLoss
	case s.opened:
		return event.Lost, cause
	case tls.Is13(c.hs.Version):
		return event.Encrypted, event.NoLoss
	case !tls.HasCertificate(c.hs.CipherSuite):
		return event.None, event.NoLoss
	case c.echoed, s.resumes(client, half):
		return event.Resumed, event.NoLoss
	case c.alerted == server, s.last && !half.gapped:
		return event.None, event.NoLoss
	}
	return event.Lost, cause
}

// resumes tells whether the server s went on to encrypted data without a key
// exchange, so in a resumed session (RFC 5246, section 7.3; RFC 5077).
func (s *side) resumes(client *side, half *half) bool {
	return s.ccs && !s.exchange && !s.last && !client.exchange && !half.gapped && half.cause == event.NoLoss
}
