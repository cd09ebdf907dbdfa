package negotiation

import (
	"slices"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// Wire is what the records of one direction have come to when a handshake ends.
type Wire struct {
	Seen      bool            // there were bytes, or datagrams
	NotTLS    bool            // all of them were something else
	Gapped    bool            // bytes of the handshake may be missing
	Cause     event.Loss      // why the records could not be followed
	Encrypted bool            // all that follows is encrypted
	Encrypts  bool            // it went on to encrypted data
	Followed  bool            // the lengths of its encrypted records are known
	Carrier   carrier.Carrier // what carries the TLS in this direction
}

// Ending is how a handshake ends.
type Ending struct {
	Wire [2]Wire    // by direction
	QUIC bool       // it is one of QUIC
	Loss event.Loss // of a certificate that was still to come; NoLoss where it would have come by now
}

// Result is a handshake that is over.
type Result struct {
	*event.Handshake
	Opened     [2]bool // by direction: encrypted records were decrypted
	Unanswered bool    // all that was seen is a ClientHello, and no byte of the server
}

// Finish returns the handshake, which is the caller's, and gets ready for the next.
// There must be one.
func (h *Handshake) Finish(e *Ending) Result {
	if h.client == Unknown { // nothing but certificates: a server's, most likely
		h.client = 0
		if h.sides[0].certificate && !h.sides[1].certificate {
			h.client = 1
		}
	}
	r := h.result(e)
	h.shared.dropTranscript(h.transcript)
	h.transcript = nil
	h.reset()
	return r
}

// Snapshot returns the handshake as far as it has come, with [Handshake.Shown] true,
// in memory of its own, which is the caller's. The handshake itself goes on.
func (h *Handshake) Snapshot(e *Ending) Result {
	s := *h
	s.pooled = h.clone(h.shared)
	for d := range s.sides {
		if chain := h.sides[d].chain; len(chain) > 0 {
			s.sides[d].chain = append(s.chain[d][:0], chain...)
		}
	}
	r := s.result(e)
	s.transcript = nil // that of h
	return r
}

// clone returns a copy of x that shares nothing with it that is ever written to,
// except for the chains and the transcript.
func (x *pooled) clone(s *Shared) *pooled {
	c := s.take()
	kept := append(c.kept[:0], x.kept...)
	*c = *x
	c.kept, c.Memory, c.Flow = kept, c, &c.flow
	if c.ClientHello != nil {
		c.ClientHello = &c.hello
	}
	c.AuthorityNames = slices.Clone(c.AuthorityNames)
	return c
}

// result completes the handshake with what follows from all that was seen. Who the
// client is must be known.
func (h *Handshake) result(e *Ending) Result {
	client, server := h.client, h.client.Other()
	x := &h.Handshake
	x.Client = client
	if x.Carrier == carrier.None.String() {
		x.Carrier = h.carriedBy(e).String()
	}
	x.Chain, x.ClientChain = h.sides[server].chain, h.sides[client].chain
	x.Established = !x.Alerted && e.Wire[0].Encrypts && e.Wire[1].Encrypts
	// Early data comes before the answer, and looks like it.
	answered := e.Wire[client].Encrypts && !h.earlyData || h.alerted == client
	x.Flight.Whole = x.Flight.Records > 0 && !x.Flight.More && e.Wire[server].Followed && answered
	x.Outcome, x.Loss = h.outcome(e)
	x.Resumed = x.Outcome == event.Resumed
	if h.sides[server].leaf() {
		x.Certificate = h.sides[server].at
	}
	h.takeEvidence(x, e)
	return Result{
		Handshake:  x,
		Opened:     [2]bool{h.sides[0].opened, h.sides[1].opened},
		Unanswered: x.ClientHello != nil && x.ServerHello == nil && !e.Wire[server].Seen && !h.sides[server].certificate,
	}
}

// carriedBy is what carries the TLS of the flow: what the client says, who knows
// more, or else the server. PostgreSQL and TDS also speak TLS from the first
// byte, which the client's ALPN tells.
func (h *Handshake) carriedBy(e *Ending) carrier.Carrier {
	client, server := e.Wire[h.client].Carrier, e.Wire[h.client.Other()].Carrier
	switch {
	case client > carrier.Unknown:
		return client
	case server != carrier.None:
		return server
	case client == carrier.None && h.ClientHello != nil && len(h.ClientHello.ALPN) > 0:
		switch h.ClientHello.ALPN[0] {
		case "postgresql":
			return carrier.PostgreSQLDirect
		case "tds/8.0":
			return carrier.TDS
		}
	}
	return client
}

// Refused reports whether a fatal alert has ended the handshake, so that nothing
// of the other side can still be on its way. protected says that the server's
// records are decrypted, or will be.
func (h *Handshake) Refused(protected bool) bool {
	if !h.Begun() || h.alerted == Unknown || h.client == Unknown {
		return false
	}
	if h.alerted != h.client {
		return h.helloWhole
	}
	s := &h.sides[h.client.Other()]
	if protected { // the certificate is to come
		return s.certificate
	}
	return s.certificate || s.last || h.ServerHello != nil && tls.Is13(h.Version)
}

// outcome is what became of the server's certificate.
func (h *Handshake) outcome(e *Ending) (event.Outcome, event.Loss) {
	server := h.client.Other()
	s, client := &h.sides[server], &h.sides[h.client]
	wire, clientWire := &e.Wire[server], &e.Wire[h.client]
	cause := e.Loss
	if cause == event.NoLoss {
		cause = event.Gap // it went by
	}
	switch {
	case wire.Cause != event.NoLoss:
		cause = wire.Cause
	case wire.NotTLS:
		cause = event.Malformed
	case wire.Gapped || !wire.Seen && clientWire.Encrypted:
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
	if h.ServerHello == nil {
		switch {
		case h.alerted == server:
			return event.None, event.NoLoss
		case e.QUIC: // which is TLS 1.3, answered or not
			return event.Encrypted, event.NoLoss
		case s.encryptedBy == tls.ApplicationData || client.encryptedBy == tls.ApplicationData && h.offers13:
			return event.Encrypted, event.NoLoss // TLS 1.3 hides its Finished in application data
		case !wire.Seen && client.cipherChanged && !client.exchange && h.helloWhole && !h.offers13 && !clientWire.Gapped:
			return event.Resumed, event.NoLoss // the client exchanged no keys
		}
		return event.Lost, cause
	}
	switch {
	case tls.Is13(h.Version) && h.psk:
		return event.Resumed, event.NoLoss
	case s.opened && (s.last || h.alerted == server) && !wire.Gapped: // there was none
		return event.None, event.NoLoss
	case s.opened:
		return event.Lost, cause
	case tls.Is13(h.Version):
		return event.Encrypted, event.NoLoss
	case !tls.HasCertificate(h.CipherSuite):
		return event.None, event.NoLoss
	case h.echoed, s.resumes(client, wire):
		return event.Resumed, event.NoLoss
	case h.alerted == server, s.last && !wire.Gapped:
		return event.None, event.NoLoss
	}
	return event.Lost, cause
}

// resumes reports whether the server s went on to encrypted data without a key
// exchange, so in a resumed session (RFC 5246, section 7.3; RFC 5077).
func (s *side) resumes(client *side, wire *Wire) bool {
	return s.cipherChanged && !s.exchange && !s.last && !client.exchange && !wire.Gapped && wire.Cause == event.NoLoss
}
