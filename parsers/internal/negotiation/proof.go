package negotiation

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// signature is what is known of the message that a server signs.
type signature uint8

const (
	unseen signature = iota
	cut              // bytes of it are missing, or it is too long
	whole
	twice // it came twice, and differs
)

// paramsAt is where the parameters of a key exchange begin in what is signed: after
// both randoms.
const paramsAt = 2 * 32

// keepSigned keeps the body of the message that the server has signed: its
// ServerKeyExchange up to TLS 1.2, its CertificateVerify after that. A message that
// is not whole gives way to one that is; two that are whole must be the same.
func (h *Handshake) keepSigned(d event.Direction, m *tls.Message) {
	switch {
	case d == h.client:
		return
	case !m.Whole() || m.Length > maxSigned:
		if h.signed == unseen {
			h.signed = cut
		}
		return
	case h.signed == whole && !bytes.Equal(h.proof[paramsAt:], m.Head[:m.Length]):
		h.signed = twice
		return
	case h.signed >= whole:
		return
	}
	h.signed = whole
	b := h.proof[:0]
	if n := paramsAt + m.Length; cap(b) < n {
		b = make([]byte, 0, (n+proofStep-1)&^(proofStep-1))
	}
	h.proof = append(b[:paramsAt], m.Head[:m.Length]...)
	h.charge(cap(h.proof))
}

// setProof fills in what the server has proved, at the end of the handshake, when its
// outcome is known.
func (h *Handshake) setProof(e *Ending) {
	defer h.forgetTranscript()
	p := &h.Proof
	p.Missing = h.missingProof(e)
	if p.Missing != event.ProofSeen {
		return
	}
	if e.QUIC || tls.Is13(h.Version) {
		p.Missing = h.setVerified()
		return
	}
	x, ok := tls.ParseServerKeyExchange(h.proof[paramsAt:], tls.KeyExchangeOf(h.CipherSuite), h.Version)
	if !ok {
		p.Missing = event.ProofMalformed
		return
	}
	copy(h.proof, h.random[:])
	copy(h.proof[len(h.random):], h.answer[:])
	n := paramsAt + x.Params
	p.Scheme, p.Signed, p.Signature = x.Scheme, h.proof[:n:n], x.Value
}

// missingProof is why there is nothing to verify, [event.ProofSeen] where there is.
func (h *Handshake) missingProof(e *Ending) event.ProofMissing {
	server := &e.Wire[h.client.Other()]
	absent := event.ProofNotSeen
	if server.Gapped || server.Cause != event.NoLoss || h.signed == cut {
		absent = event.ProofCut
	}
	switch {
	case h.Version == tls.VersionSSL2:
		return event.ProofRSA
	case e.QUIC, tls.Is13(h.Version):
		return h.missingVerify(absent)
	case h.ServerHello == nil && h.Outcome == event.Encrypted:
		return event.ProofEncrypted
	case h.ServerHello == nil && h.signed != unseen:
		return event.ProofCut // whether it is signed, the hello would tell
	}
	if h.ServerHello != nil {
		switch tls.KeyExchangeOf(h.CipherSuite) {
		case tls.ExchangeUnsigned:
			return event.ProofAnonymous
		case tls.ExchangeRSAPSK:
			return resumedOr(h.Outcome, event.ProofRSA)
		case tls.ExchangeStatic:
			return resumedOr(h.Outcome, event.ProofStatic)
		case tls.ExchangeTLCP:
			return resumedOr(h.Outcome, event.ProofForeign)
		case tls.ExchangeRSA: // signed only with a temporary key (RFC 2246, section 7.4.3)
			if h.signed == unseen {
				return resumedOr(h.Outcome, event.ProofRSA)
			}
		}
	}
	switch {
	case h.signed == twice:
		return event.ProofMalformed
	case h.signed == whole && h.ClientHello == nil:
		return event.ProofCut
	case h.signed == whole:
		return event.ProofSeen
	}
	return resumedOr(h.Outcome, absent)
}

// missingVerify is [Handshake.missingProof] for TLS 1.3.
func (h *Handshake) missingVerify(absent event.ProofMissing) event.ProofMissing {
	switch {
	case h.Outcome == event.Resumed:
		return event.ProofResumed
	case !h.sides[h.client.Other()].opened:
		return event.ProofEncrypted
	case h.ServerHello != nil && h.Version != tls.VersionTLS13 && h.Version != tls.VersionDTLS13:
		return event.ProofForeign // a draft
	case h.signed == twice:
		return event.ProofMalformed
	case h.signed == whole && absent != event.ProofCut:
		return event.ProofSeen
	case h.signed == whole: // a message before it may be missing
		return event.ProofCut
	}
	return absent
}

// resumedOr is why a resumed session proves nothing, or why another does.
func resumedOr(o event.Outcome, why event.ProofMissing) event.ProofMissing {
	if o == event.Resumed {
		return event.ProofResumed
	}
	return why
}
