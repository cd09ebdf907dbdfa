// Package negotiation follows a TLS handshake (RFC 8446, section 4; RFC 5246,
// section 7): the messages of both directions go in, and an [event.Handshake]
// comes out, with what became of the server's certificate. How the messages came,
// and what was lost of them, it is told.
package negotiation

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/certcompress"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// Unknown stands for the direction of the client while nobody knows it.
const Unknown event.Direction = 0xff

// Shared is what all handshakes of a parser use: caches, and handshakes to use
// again. It is not safe for concurrent use.
type Shared struct {
	Limited uint64 // messages with more certificates, names of authorities, or evidence than are kept

	certs      *cert.Cache
	clients    *generations.Cache[string, *event.Offer]
	servers    *generations.Cache[string, *event.ServerHello]
	key        []byte // scratch of the caches
	decompress certcompress.Decompressor
	free       []*pooled // handshakes that were given back

	transcripts      *transcript // list of those that were given back
	spareTranscripts int
}

// NewShared returns what handshakes share whose certificates come from certs.
func NewShared(certs *cert.Cache) *Shared {
	return &Shared{
		certs:   certs,
		clients: generations.New[string, *event.Offer](cachedHellos),
		servers: generations.New[string, *event.ServerHello](cachedHellos),
	}
}

// pooled is a handshake in the making, in one piece of memory with what most
// handshakes refer to.
type pooled struct {
	event.Handshake
	flow       event.Flow
	hello      event.ClientHello
	chain      [2][3]event.ChainEntry // where the chains of the two directions begin
	kept       []byte                 // what the server has signed, and what is stapled
	evidence   evidence
	transcript *transcript // nil where there are no keys
}

// take returns the memory of a handshake.
func (s *Shared) take() *pooled {
	n := len(s.free)
	if n == 0 {
		x := new(pooled)
		x.Memory = x
		return x
	}
	x := s.free[n-1]
	s.free = s.free[:n-1]
	x.Memory = x
	return x
}

// Recycle gives back a handshake that its owner has no use for any more.
func (s *Shared) Recycle(h *event.Handshake) {
	x, ok := h.Memory.(*pooled)
	if !ok || len(s.free) >= maxRecycled {
		return
	}
	kept := x.kept[:0]
	if cap(kept) > maxSpareKept {
		kept = nil
	}
	*x = pooled{kept: kept}
	s.free = append(s.free, x)
}

// Handshake is the handshake that a flow is in, and what is known of it besides
// what is reported.
type Handshake struct {
	*pooled // nil before the first message
	shared  *Shared
	account *memory.Account
	sides   [2]side // by direction
	early   earlyAlert

	random       [32]byte // of the ClientHello, of the last handshake where this has none yet
	session      [32]byte // its session_id, or as much of it
	sessionBytes uint8
	client       event.Direction // Unknown until a message tells
	alerted      event.Direction // who ended it by a fatal alert
	helloWhole   bool
	offers13     bool
	earlyData    bool     // the client sends some
	echoed       bool     // the ServerHello has the ClientHello's session_id
	psk          bool     // the server selected a pre-shared key
	ids          [2]uint8 // lengths of the connection IDs in records of DTLS 1.3
}

// earlyAlert is a fatal alert that was captured before what it answers.
type earlyAlert struct {
	at          event.Moment
	seen        bool
	d           event.Direction
	description uint8
}

// side is what one direction has sent.
type side struct {
	chain         []event.ChainEntry
	at            event.Moment // of the packet that completed the Certificate
	certificate   bool         // a Certificate message was seen
	rawKey        bool         // its certificate is a raw public key (RFC 7250)
	cut           event.Loss   // why the Certificate was not seen whole
	last          bool         // its flight was over: ServerHelloDone, or Finished in TLS 1.3
	opened        bool         // encrypted records were decrypted
	exchange      bool         // a key exchange was seen
	cipherChanged bool         // a ChangeCipherSpec was
	encryptedBy   uint8        // content type of the first encrypted record after the plaintext, 0 when not known
}

// leaf reports whether the first certificate was seen whole.
func (s *side) leaf() bool { return len(s.chain) > 0 && !s.chain[0].Truncated }

// Open makes h ready for the handshakes of a flow, whose memory account counts.
func (h *Handshake) Open(s *Shared, account *memory.Account) {
	*h = Handshake{shared: s, account: account, client: Unknown}
}

// reset makes h ready for the next handshake of the flow.
func (h *Handshake) reset() {
	*h = Handshake{shared: h.shared, account: h.account, client: Unknown, random: h.random}
}

// Begun reports whether there is a handshake.
func (h *Handshake) Begun() bool { return h.pooled != nil }

// Opening is how a handshake begins.
type Opening struct {
	Flow     *event.Flow // is copied
	Carrier  carrier.Carrier
	Datagram bool   // over DTLS
	Version  uint16 // of the first record
	Keys     bool   // the handshake may be decrypted
}

// Begin makes sure that there is a handshake to add to; d is the direction of its
// first packet.
func (h *Handshake) Begin(d event.Direction, at event.Moment, o Opening) {
	h.pooled = h.shared.take()
	h.flow = *o.Flow
	h.Flow, h.Start, h.Version = &h.flow, at, o.Version
	h.Carrier, h.Datagram = o.Carrier.String(), o.Datagram
	h.alerted = Unknown
	if o.Keys {
		h.transcript = h.shared.takeTranscript()
	}
	if e := h.early; e.seen && e.d != d {
		h.Alert(e.d, e.at, tls.AlertFatal, e.description)
	}
}

// Touch says that a packet belongs to the handshake.
func (h *Handshake) Touch(at event.Moment) {
	if h.Begun() {
		h.End = event.Later(h.End, at)
	}
}

// Sent notes who the client is by a message of direction d. A HelloRequest is
// ignored by everybody during a handshake, and does not tell.
func (h *Handshake) Sent(d event.Direction, typ uint8) {
	if h.client != Unknown || typ == tls.HelloRequest {
		return
	}
	switch tls.SenderOf(typ) {
	case tls.Client:
		h.client = d
	case tls.Server:
		h.client = d.Other()
	}
}

// Restarts reports whether m, of direction d, is the ClientHello of another
// handshake than h.
func (h *Handshake) Restarts(d event.Direction, m *tls.Message, over ja.Transport) bool {
	if m.Type != tls.TypeClientHello || m.TLS13 || !h.Begun() || h.ClientHello == nil || h.client != d {
		return false
	}
	hello, ok := tls.ParseClientHello(m.Head, over == ja.DTLS)
	return ok && !h.IsOf(hello.Random)
}

// IsOf reports whether the ClientHello of h, or of the handshake before where h
// has none yet, has this random value.
func (h *Handshake) IsOf(random []byte) bool { return bytes.Equal(random, h.random[:]) }

// Message takes one handshake message of direction d; cause says why it is not
// whole when it is not. over is what the handshake is carried in. It reports
// whether what the direction sends next has other keys.
func (h *Handshake) Message(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss, over ja.Transport) (last bool) {
	if m.TLS13 {
		return h.encrypted(d, at, m, cause, over)
	}
	h.Touch(at)
	h.Sent(d, m.Type)
	s := &h.sides[d]
	switch m.Type {
	case tls.TypeClientHello:
		h.clientHello(d, m, over)
	case tls.TypeServerHello:
		h.serverHello(d, m)
	case tls.HelloVerifyRequest, tls.HelloRetryRequest:
		h.HelloRetry = true
	case tls.Certificate:
		h.certificate(d, at, m, cause)
	case tls.ServerKeyExchange:
		s.exchange = true
		h.keepExchange(d, m)
		if h.Curve == 0 {
			h.Curve = tls.NamedCurve(m.Head)
		}
	case tls.CertificateStatus:
		if m.Whole() {
			h.keepStatus(d, tls.ParseCertificateStatus(m.Head))
		}
	case tls.CertificateRequest:
		h.requested()
		tls.Authorities(m.Head, m.Length, h.addAuthority)
		h.chargeAuthorities()
	case tls.ServerHelloDone:
		s.last = true
	case tls.ClientKeyExchange:
		s.exchange = true
	}
	return false
}

// encrypted takes a message of the encrypted part of TLS 1.3.
func (h *Handshake) encrypted(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss, over ja.Transport) (last bool) {
	h.Touch(at)
	if d != h.client {
		switch m.Type {
		case tls.EncryptedExtensions:
			h.record(extensions13, m)
		case tls.CertificateRequest:
			h.record(request13, m)
		case tls.Certificate, tls.CompressedCertificate:
			h.record(certificate13, m)
		case tls.CertificateVerify:
			h.record(verify13, m)
		default:
			h.recordOther(m.Type)
		}
	}
	switch m.Type {
	case tls.EncryptedExtensions:
		h.encryptedExtensions(d, m)
	case tls.CertificateRequest:
		h.requested()
		tls.Authorities13(m.Head, h.addAuthority)
		h.chargeAuthorities()
	case tls.Certificate:
		h.certificate(d, at, m, cause)
	case tls.CompressedCertificate:
		h.compressed(d, at, m, cause)
	case tls.Finished:
		h.sides[d].last = true
		return cause == event.NoLoss && over != ja.DTLS
	}
	return false
}

// requested notes that the server has asked for a certificate.
func (h *Handshake) requested() {
	h.ClientAuth = true
	h.AuthorityNames = h.AuthorityNames[:0]
}

func (h *Handshake) addAuthority(name []byte) bool {
	if len(h.AuthorityNames) == MaxAuthorities {
		h.shared.Limited++
		return false
	}
	h.AuthorityNames = append(h.AuthorityNames, cert.ParseName(name).String)
	return true
}

func (h *Handshake) encryptedExtensions(d event.Direction, m *tls.Message) {
	x, ok := tls.ParseEncryptedExtensions(m.Head)
	if !ok || d == h.client {
		return
	}
	h.sides[d].rawKey, h.sides[d.Other()].rawKey = x.ServerRawKey, x.ClientRawKey
	if h.ServerHello != nil && len(x.ALPN) > 0 {
		hello := *h.ServerHello // which others share
		hello.ALPN = string(x.ALPN)
		h.ServerHello = &hello
	}
}

func (h *Handshake) clientHello(d event.Direction, m *tls.Message, over ja.Transport) {
	hello, ok := tls.ParseClientHello(m.Head, over == ja.DTLS)
	if !ok || h.client != d {
		return
	}
	h.recordClientHello(m)
	if h.helloWhole {
		return
	}
	h.setClientHello(&hello, over, m.Whole())
}

// setClientHello keeps what is reported of a ClientHello. One that was cut has no
// fingerprints: they would be wrong.
func (h *Handshake) setClientHello(x *tls.ClientHello, over ja.Transport, whole bool) {
	h.helloWhole = whole
	h.offers13, h.earlyData = x.Offers13(), x.EarlyData
	h.ids[h.client.Other()] = uint8(len(x.ConnectionID))
	// The challenge of an SSLv2 hello has zeros before it (RFC 5246, section E.2).
	h.random = [32]byte{}
	n := min(len(x.Random), len(h.random))
	copy(h.random[len(h.random)-n:], x.Random[len(x.Random)-n:])
	h.sessionBytes = uint8(copy(h.session[:], x.SessionID))
	if whole {
		h.hello.Offer = h.shared.offer(x, over)
	} else {
		lists := ja.Lists(x)
		h.hello.Offer = &lists
	}
	h.hello.ServerName = string(x.ServerName)
	h.ClientHello = &h.hello
	h.chargeClientHello()
	if h.ServerHello == nil {
		h.Version = x.Version
	}
}

func (h *Handshake) serverHello(d event.Direction, m *tls.Message) {
	x, ok := tls.ParseServerHello(m.Head)
	if !ok || h.client == d {
		return
	}
	if x.Retry {
		h.record(retry13, m)
		h.HelloRetry = h.HelloRetry || h.ServerHello == nil
		return
	}
	h.record(serverHello13, m)
	if h.ServerHello != nil {
		return
	}
	copy(h.evidence.random[:], x.Random)
	h.keepSCTs(d, x.SCTs)
	h.ServerHello = h.shared.serverHello(&x)
	h.charge(len(h.ServerHello.ALPN) + len(h.ServerHello.JA3SRaw))
	h.Version, h.CipherSuite = h.ServerHello.Version, x.CipherSuite
	if x.Group != 0 {
		h.Curve = x.Group
	}
	h.psk = x.PreSharedKey
	h.ids[h.client] = uint8(len(x.ConnectionID))
	h.echoed = h.sessionBytes > 0 && bytes.Equal(h.session[:h.sessionBytes], x.SessionID)
	h.sides[d].rawKey, h.sides[d.Other()].rawKey = x.ServerRawKey, x.ClientRawKey
}

// compressed takes a CompressedCertificate (RFC 8879).
func (h *Handshake) compressed(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	certificate := tls.Message{Type: tls.Certificate, TLS13: true, Length: m.Length}
	if m.Whole() {
		body, err := h.shared.decompress.Certificate(m.Head)
		switch {
		case err == nil:
			certificate.Length, certificate.Head = len(body), body
		case errors.Is(err, certcompress.ErrTooLong):
			cause = event.Limit
		default:
			cause = event.Malformed
		}
	}
	h.certificate(d, at, &certificate, cause)
}

// certificate takes a Certificate message.
func (h *Handshake) certificate(d event.Direction, at event.Moment, m *tls.Message, cause event.Loss) {
	s := &h.sides[d]
	if s.certificate && (s.cut == event.NoLoss || !m.Whole()) {
		return // sent again
	}
	s.certificate, s.cut, s.at = true, event.NoLoss, at
	s.chain = nil
	if !m.TLS13 && tls.IsIdentityBased(h.CipherSuite) {
		return
	}
	if s.rawKey { // with a length before it
		key := &h.RawKey
		if d == h.client {
			key = &h.ClientRawKey
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
	}
	if m.TLS13 {
		ocsp, scts := m.LeafExtensions()
		h.keepStatus(d, ocsp)
		h.keepSCTs(d, scts)
	}
	s.chain = h.chain[d][:0]
	ok := m.Certificates(func(der []byte, whole bool) bool {
		if len(s.chain) == MaxChain {
			h.shared.Limited++
			return false
		}
		e := event.ChainEntry{Truncated: !whole}
		if whole {
			e.Certificate = h.shared.certs.Get(der)
		} else {
			e.Certificate = cert.Salvage(der)
		}
		s.chain = append(s.chain, e)
		h.account.Charge(e.Size())
		return true
	})
	if !ok {
		s.cut = event.Malformed
	}
}

// Torn reports whether m, which direction d has sent, is a Certificate message of
// which bytes are missing, so that certificates may lie between them: to be asked
// before [Handshake.Message].
func (h *Handshake) Torn(d event.Direction, m *tls.Message) bool {
	if m.Type != tls.Certificate || m.Whole() {
		return false
	}
	s := &h.sides[d]
	return !s.certificate && !s.rawKey && (m.TLS13 || !tls.IsIdentityBased(h.CipherSuite))
}

// Carved adds certificates of direction d that were found outside of a message.
// Where the first of them is not known to be the leaf, and looks like an
// authority, an empty entry stands for what is missing before it.
func (h *Handshake) Carved(d event.Direction, found []event.ChainEntry, leaf bool, at event.Moment) {
	s := &h.sides[d]
	if s.certificate && s.cut == event.NoLoss || s.rawKey {
		return // a whole message was seen
	}
	if !s.certificate {
		s.chain, s.at = h.chain[d][:0], at
	}
	if len(s.chain) == 0 && !leaf && (found[0].IsCA || found[0].SelfSigned) {
		s.chain = append(s.chain, event.ChainEntry{Certificate: cert.Salvage(nil), Truncated: true})
	}
	for i := range found {
		if len(s.chain) < MaxChain && !contains(s.chain, &found[i]) {
			s.chain = append(s.chain, found[i])
		}
	}
	s.certificate = true
	if s.cut == event.NoLoss {
		s.cut = event.Gap
	}
}

func contains(chain []event.ChainEntry, e *event.ChainEntry) bool {
	for i := range chain {
		if !chain[i].Truncated && chain[i].SHA256 == e.SHA256 {
			return true
		}
	}
	return false
}

// SSLv2 takes a hello of SSL 2.0 with its header, of the client or of the server.
// It reports whether what follows is of SSL 2.0 too.
func (h *Handshake) SSLv2(d event.Direction, at event.Moment, hello []byte, client bool) (old bool) {
	if client {
		x := tls.ParseV2ClientHello(hello)
		h.Sent(d, tls.TypeClientHello)
		if h.client == d && !h.helloWhole {
			h.setClientHello(&x, ja.TCP, true)
		}
		return h.Version == tls.VersionSSL2
	}
	h.Sent(d, tls.TypeServerHello)
	der, resumed := tls.ParseV2ServerHello(hello)
	h.Carrier = carrier.SSLv2.String()
	h.Version = tls.VersionSSL2
	h.echoed = resumed
	if s := &h.sides[d]; !s.certificate && len(der) > 0 {
		s.certificate, s.at = true, at
		s.chain = append(h.chain[d][:0], event.ChainEntry{Certificate: h.shared.certs.Get(der)})
	}
	return true
}

// ChangeCipherSpec takes the message of that name of direction d. It reports
// whether all that follows in d is encrypted.
func (h *Handshake) ChangeCipherSpec(d event.Direction, at event.Moment) bool {
	h.sides[d].cipherChanged = true
	h.Touch(at)
	// TLS 1.3 sends it for show (RFC 8446, section D.4), before a second
	// ClientHello too.
	return h.Begun() && h.ServerHello != nil && !tls.Is13(h.Version)
}

// Alert takes an alert of direction d.
func (h *Handshake) Alert(d event.Direction, at event.Moment, level, description uint8) {
	if !h.Begun() {
		if level == tls.AlertFatal && !h.early.seen {
			h.early = earlyAlert{at, true, d, description}
		}
		return
	}
	if h.alerted != Unknown || level != tls.AlertWarning && level != tls.AlertFatal {
		return
	}
	h.Touch(at)
	is13 := h.ServerHello != nil && tls.Is13(h.Version) // where the level means nothing
	if level == tls.AlertFatal || is13 && description != tls.AlertCloseNotify && description != tls.AlertUserCanceled {
		h.Alerted, h.pooled.Alert, h.alerted = true, description, d
	}
}

// Encrypted says that all that follows in direction d is encrypted; by is the type
// of the record that shows it, 0 where that is the ChangeCipherSpec.
func (h *Handshake) Encrypted(d event.Direction, by uint8) { h.sides[d].encryptedBy = by }

// EncryptedRecord takes the length of an encrypted record of direction d. It reports
// whether it wants that of the next: they are kept where d is the server's and the
// version TLS 1.3, until there are too many.
func (h *Handshake) EncryptedRecord(d event.Direction, length int) (more bool) {
	if !h.Answered() || h.client != d.Other() || !tls.Is13(h.Version) {
		return false
	}
	f := &h.Flight
	if f.Records == event.MaxFlight {
		f.More = true
		return false
	}
	f.Lengths[f.Records] = uint16(length)
	f.Records++
	return true
}

// Decrypted says that encrypted records of direction d were decrypted.
func (h *Handshake) Decrypted(d event.Direction) {
	h.sides[d].opened = true
}

// Assume13 sets the version, where no ServerHello was seen, of a handshake that
// can only be one of TLS 1.3.
func (h *Handshake) Assume13(over ja.Transport) {
	switch {
	case h.ServerHello != nil:
	case over == ja.DTLS:
		h.Version = tls.VersionDTLS13
	default:
		h.Version = tls.VersionTLS13
	}
}

// Client is the direction in which the client sends, or [Unknown].
func (h *Handshake) Client() event.Direction { return h.client }

// Random is the random value of the ClientHello: of the handshake before where
// this one has none yet.
func (h *Handshake) Random() *[32]byte { return &h.random }

// EarlyData reports whether the client has announced early data.
func (h *Handshake) EarlyData() bool { return h.earlyData }

// Answered reports whether the ServerHello was seen.
func (h *Handshake) Answered() bool { return h.Begun() && h.ServerHello != nil }

// Selected is the cipher suite and the version that the server has selected, 0
// where its hello was not seen.
func (h *Handshake) Selected() (suite, version uint16) {
	if !h.Answered() {
		return 0, 0
	}
	return h.CipherSuite, h.Version
}

// Decryptable reports whether the handshake has, or may have, an encrypted part
// with a certificate in it.
func (h *Handshake) Decryptable() bool {
	if !h.Begun() || h.ClientHello == nil || h.client == Unknown {
		return false
	}
	if h.ServerHello == nil {
		return h.offers13
	}
	return tls.Is13(h.Version) && !h.psk
}

// Shown reports whether the server, known as such, has shown its own certificate
// whole.
func (h *Handshake) Shown() bool {
	return h.Begun() && h.client != Unknown && h.sides[h.client.Other()].leaf()
}

// Leaf is the SHA-256 of the certificate that the server has [Handshake.Shown]; zero
// without one.
func (h *Handshake) Leaf() (sum [32]byte) {
	if h.Shown() {
		sum = h.sides[h.client.Other()].chain[0].SHA256
	}
	return sum
}

// Side is what the next records of one direction depend on.
type Side struct {
	CipherChanged bool // a ChangeCipherSpec was seen
	Certificate   bool // a whole Certificate message was
	Last          bool // the last message of the direction was
	TLS13         bool // the version is one of TLS 1.3
	Hidden        bool // both hellos were seen, and all that follows them is encrypted
	ConnectionID  int  // length of the connection IDs in the direction's encrypted records
}

// Side is what is known of direction d.
func (h *Handshake) Side(d event.Direction) Side {
	s := &h.sides[d]
	is13 := h.Begun() && tls.Is13(h.Version)
	return Side{
		CipherChanged: s.cipherChanged,
		Certificate:   s.certificate && s.cut == event.NoLoss,
		Last:          s.last,
		TLS13:         is13,
		Hidden:        is13 && h.helloWhole && h.ServerHello != nil,
		ConnectionID:  int(h.ids[d]),
	}
}

// Awaits reports whether direction d is the server's, and neither its hello nor its
// certificate was seen.
func (h *Handshake) Awaits(d event.Direction) bool {
	return h.Begun() && h.ServerHello == nil && h.client == d.Other() && !h.sides[d].certificate
}
