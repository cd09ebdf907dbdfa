package negotiation

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// span is a part of pooled.kept.
type span struct{ from, to int32 }

func (x span) empty() bool { return x.to == x.from }

// evidence is where what the server has sent to prove itself lies in pooled.kept, and
// what is wrong with it.
type evidence struct {
	random   [32]byte // of the ServerHello
	exchange span     // a ServerKeyExchange, with room for both randoms before it
	ocsp     span
	scts     span
	cut      bool // bytes of the ServerKeyExchange are missing
	differs  bool // it came twice, and not alike
}

const randoms = 2 * 32 // bytes of the randoms of both sides

// keep appends parts to what is kept of the handshake.
func (h *Handshake) keep(room int, b []byte) span {
	before := cap(h.kept)
	from := len(h.kept)
	h.kept = slices.Grow(h.kept, room+len(b))[:from+room]
	h.kept = append(h.kept, b...)
	if grown := cap(h.kept) - before; grown > 0 {
		h.charge(grown)
	}
	return span{int32(from), int32(len(h.kept))}
}

// at is what lies at x; nil where x is empty.
func (h *Handshake) at(x span) []byte {
	if x.empty() {
		return nil
	}
	return h.kept[x.from:x.to:x.to]
}

// keepExchange takes a ServerKeyExchange of direction d. Of several that differ no
// client makes anything, so they prove nothing.
func (h *Handshake) keepExchange(d event.Direction, m *tls.Message) {
	e := &h.evidence
	switch {
	case d == h.client:
	case !m.Whole() || m.Length > maxKeyExchange:
		e.cut = e.cut || e.exchange.empty()
	case e.exchange.empty():
		e.exchange, e.cut = h.keep(randoms, m.Head), false
	case !bytes.Equal(h.at(e.exchange)[randoms:], m.Head):
		e.differs = true
	}
}

// keepStatus takes a stapled OCSPResponse, the first counts.
func (h *Handshake) keepStatus(d event.Direction, response []byte) {
	h.keepOnce(d, &h.evidence.ocsp, response, maxOCSP)
}

// keepSCTs takes a list of signed certificate timestamps, the first counts.
func (h *Handshake) keepSCTs(d event.Direction, list []byte) {
	h.keepOnce(d, &h.evidence.scts, list, maxSCTs)
}

func (h *Handshake) keepOnce(d event.Direction, x *span, b []byte, most int) {
	switch {
	case d == h.client || !x.empty():
	case len(b) > most:
		h.shared.Limited++
	default:
		*x = h.keep(0, b)
	}
}

// takeEvidence fills in what the server has sent to prove itself, when the handshake is
// over: x has its outcome.
func (h *Handshake) takeEvidence(x *event.Handshake, e *Ending) {
	x.Proof.Missing = h.proof(x, e)
	x.OCSP, x.SCTs = h.at(h.evidence.ocsp), h.at(h.evidence.scts)
}

// proof sets x.Proof to what the server has signed, or returns why there is nothing.
func (h *Handshake) proof(x *event.Handshake, e *Ending) event.ProofMissing {
	server := h.client.Other()
	wire := &e.Wire[server]
	lost := event.ProofNotSeen
	if wire.Gapped || wire.Cause != event.NoLoss {
		lost = event.ProofCut
	}
	switch {
	case x.Outcome == event.Resumed:
		return event.ProofResumed
	case x.Version == tls.VersionSSL2: // RSA alone
		return event.ProofRSA
	case h.sides[server].opened:
		return h.proof13(x, lost)
	case x.Outcome == event.Encrypted, h.ServerHello != nil && tls.Is13(x.Version):
		return event.ProofEncrypted
	case h.ServerHello == nil:
		if !h.evidence.exchange.empty() || h.evidence.cut || h.sides[server].certificate {
			return event.ProofCut
		}
		return lost
	}
	way := tls.KeyExchangeOf(x.CipherSuite)
	none := h.evidence.exchange.empty() && !h.evidence.cut
	switch way {
	case tls.ExchangeUnsigned:
		return event.ProofAnonymous
	case tls.ExchangeRSAPSK:
		return event.ProofRSA
	case tls.ExchangeStatic:
		return event.ProofStatic
	case tls.ExchangeTLCP:
		return event.ProofForeign
	case tls.ExchangeRSA: // a temporary key is signed, for export, or as FREAK has it
		if none {
			return event.ProofRSA
		}
	}
	switch {
	case none:
		return lost
	case h.evidence.differs:
		return event.ProofMalformed
	case h.evidence.cut || h.ClientHello == nil:
		return event.ProofCut
	}
	signed := h.at(h.evidence.exchange)
	s, ok := tls.ParseServerKeyExchange(signed[randoms:], way, x.Version)
	if !ok {
		return event.ProofMalformed
	}
	copy(signed, h.random[:])
	copy(signed[len(h.random):], h.evidence.random[:])
	end := randoms + s.Params
	x.Proof = event.Proof{Scheme: s.Scheme, Signed: signed[:end:end], Signature: s.Value}
	return event.ProofSeen
}

// proof13 is the proof of a handshake of TLS 1.3 whose encrypted part was opened; lost
// is the reason where a message did not come.
func (h *Handshake) proof13(x *event.Handshake, lost event.ProofMissing) event.ProofMissing {
	t := h.transcript
	if t == nil {
		return event.ProofCut
	}
	verify := t.message(verify13)
	switch {
	case t.broken:
		return event.ProofCut
	case t.differs:
		return event.ProofMalformed
	case verify == nil || lost == event.ProofCut: // a message before it, such as a CertificateRequest, may be missing
		return lost
	case tls.IsEarlyDraft(x.Version):
		return event.ProofForeign
	}
	var room [sha512.Size384]byte
	hash, ok := t.hash(room[:0], h.CipherSuite)
	if !ok {
		return event.ProofCut
	}
	s, ok := tls.ParseCertificateVerify(verify[tls.MessageHeader:])
	if !ok {
		return event.ProofMalformed
	}
	signed := h.keep(0, tls.AppendVerifyContent(h.shared.key[:0], hash))
	signature := h.keep(0, s.Value)
	x.Proof = event.Proof{Scheme: s.Scheme, Signed: h.at(signed), Signature: h.at(signature)}
	return event.ProofSeen
}

// transcript is the messages of a handshake that may be one of TLS 1.3 with keys, as
// far as the server's CertificateVerify. They are kept until the handshake is over,
// for they come in any order: hellos of both sides, and in DTLS all of them.
type transcript struct {
	bytes   []byte // messages with their headers, in the order they came
	spans   [messages13]span
	broken  bool        // bytes of one are missing, or there are too many
	differs bool        // one came twice, and not alike
	next    *transcript // in the list of those that are free
}

// The messages of a transcript, in its order.
const (
	firstHello13 = iota
	retry13
	clientHello13
	serverHello13
	extensions13
	request13
	certificate13
	verify13
	messages13 // how many there are
)

// message is one message with its header; nil when it was not seen.
func (t *transcript) message(i int) []byte {
	if t.spans[i].empty() {
		return nil
	}
	return t.bytes[t.spans[i].from:t.spans[i].to]
}

// record notes message i of the handshake's transcript.
func (h *Handshake) record(i int, m *tls.Message) {
	t := h.transcript
	if t == nil {
		return
	}
	had := t.message(i)
	switch {
	case !m.Whole():
		t.broken = t.broken || had == nil
	case had != nil:
		t.differs = t.differs || !bytes.Equal(had[tls.MessageHeader:], m.Head)
	case len(t.bytes)+tls.MessageHeader+m.Length > maxTranscript:
		t.broken = true
		h.shared.Limited++
	default:
		before, from := cap(t.bytes), len(t.bytes)
		t.bytes = append(tls.AppendHeader(t.bytes, m.Type, m.Length), m.Head[:m.Length]...)
		t.spans[i] = span{int32(from), int32(len(t.bytes))}
		h.account.Charge(cap(t.bytes) - before)
	}
}

// recordOther notes an encrypted message of the server of another type. What comes before
// the signature is signed too, and nobody knows what the client makes of it.
func (h *Handshake) recordOther(typ uint8) {
	if t := h.transcript; t != nil && t.message(verify13) == nil && typ != tls.Finished && typ != tls.NewSessionTicket {
		t.broken = true
	}
}

// recordClientHello notes a ClientHello: the one that is not the first follows a
// HelloRetryRequest.
func (h *Handshake) recordClientHello(m *tls.Message) {
	t := h.transcript
	if t == nil {
		return
	}
	if first := t.message(firstHello13); first == nil || m.Whole() && bytes.Equal(first[tls.MessageHeader:], m.Head) {
		h.record(firstHello13, m)
		return
	}
	h.record(clientHello13, m)
}

// hash appends the hash of the handshake up to the server's Certificate (RFC 8446,
// section 4.4.1). It is false where a message of it is missing.
func (t *transcript) hash(dst []byte, suite uint16) ([]byte, bool) {
	first, retry, second := t.message(firstHello13), t.message(retry13), t.message(clientHello13)
	rest := [...][]byte{t.message(serverHello13), t.message(extensions13), t.message(request13), t.message(certificate13)}
	if first == nil || (retry == nil) != (second == nil) || rest[0] == nil || rest[1] == nil || rest[3] == nil {
		return dst, false
	}
	sum := sha256.New()
	if len(tls13.Suites(suite, sha512.Size384)) > 0 {
		sum = sha512.New384()
	}
	sum.Write(first)
	if retry != nil {
		hello := tls.AppendMessageHash(nil, sum.Sum(nil))
		sum.Reset()
		sum.Write(hello)
		sum.Write(retry)
		sum.Write(second)
	}
	for _, m := range rest {
		sum.Write(m)
	}
	return sum.Sum(dst), true
}

// takeTranscript returns an empty transcript.
func (s *Shared) takeTranscript() *transcript {
	t := s.transcripts
	if t == nil {
		return new(transcript)
	}
	s.transcripts = t.next
	s.spareTranscripts--
	*t = transcript{bytes: t.bytes}
	return t
}

// dropTranscript gives t back, which may be nil.
func (s *Shared) dropTranscript(t *transcript) {
	if t == nil || s.spareTranscripts >= maxSpareTranscripts || cap(t.bytes) > maxSpareTranscript {
		return
	}
	*t = transcript{bytes: t.bytes[:0], next: s.transcripts}
	s.transcripts = t
	s.spareTranscripts++
}
