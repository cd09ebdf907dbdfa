// Package possession says whether a server has proven in a handshake that it holds
// the key of the certificate that it shows.
//
// Up to TLS 1.2 the server signs the parameters of an ephemeral key exchange (RFC
// 5246, section 7.4.3), in TLS 1.3 the transcript (RFC 8446, section 4.4.3). Package
// event has what it signed; here it is verified with the key of the leaf.
package possession

import (
	"errors"
	"fmt"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
)

// Prover verifies what servers signed. It remembers the keys of certificates, and is
// for one goroutine.
type Prover struct {
	keys *generations.Cache[*cert.Certificate, key]
}

// key is that of a certificate, or why it has none.
type key struct {
	*signature.Key
	err error
}

// New returns a Prover.
func New() *Prover { return &Prover{generations.New[*cert.Certificate, key](maxKeys)} }

func unknown(reason string) *judgement.KeyProof {
	return &judgement.KeyProof{Status: judgement.ProofUnknown, Reason: reason}
}

// missing are the answers where there is no signature to look at. They are shared.
var missing = [...]*judgement.KeyProof{
	event.ProofNotSeen:   unknown("The message with the server's signature was not seen."),
	event.ProofCut:       unknown("Bytes of the server's signature, or of what it signed, were not captured, or are too many to keep."),
	event.ProofRSA:       unknown("The key exchange was RSA, in which the server signs nothing: who can go on with the connection holds the key."),
	event.ProofAnonymous: unknown("The cipher suite has no signature of the server."),
	event.ProofResumed:   unknown("The session was resumed, and proves nothing anew."),
	event.ProofEncrypted: unknown("The server's signature is encrypted, and there are no keys."),
	event.ProofMalformed: unknown("The message with the server's signature cannot be read, or came twice and differs."),
	event.ProofStatic:    unknown("The key exchange uses the key of the certificate, and signs nothing."),
	event.ProofForeign:   unknown("The signature is made in a way that is not read."),
}

var (
	leafCut  = unknown("The leaf was not seen whole.")
	conflict = unknown("The server's signature is not over what was seen, but other bytes came for the same place, and the endpoints may have taken those.")
)

// Prove says whether the server of h holds the key of its leaf; nil where h shows no
// certificate. What it returns is shared and read-only.
//
// A signature that another key made, or that is none, is a mismatch. So is one over
// other bytes, as where somebody replays what the holder of the key once signed.
func (p *Prover) Prove(h *event.Handshake) *judgement.KeyProof {
	if len(h.Chain) == 0 {
		return nil
	}
	leaf := &h.Chain[0]
	if leaf.Truncated || leaf.Certificate == nil || leaf.DER == nil {
		return leafCut
	}
	if h.Proof.Missing != event.ProofSeen {
		return missing[h.Proof.Missing]
	}
	k := p.key(leaf.Certificate)
	if k.err != nil {
		return unknown(fmt.Sprintf("The key of the leaf cannot be used: %v.", k.err))
	}
	scheme, err := signature.SchemeOfTLS(h.Proof.Scheme, k.Key)
	if err == nil {
		err = k.Verify(scheme, h.Proof.Signed, h.Proof.Signature)
	}
	switch {
	case err == nil:
		return &judgement.KeyProof{Status: judgement.Proven, Reason: fmt.Sprintf(
			"The server has signed this handshake with the key of its certificate (%s, %s of %d bits).", scheme, k.Algorithm(), k.Bits())}
	case errors.Is(err, signature.ErrMismatch) && h.Forged&event.ForgedConflict != 0:
		return conflict
	case errors.Is(err, signature.ErrMismatch):
		return &judgement.KeyProof{Status: judgement.Mismatch, Reason: fmt.Sprintf(
			"The server's signature of this handshake is not by the key of its certificate (%s of %d bits): it does not hold that key.", k.Algorithm(), k.Bits())}
	}
	return unknown(fmt.Sprintf("The server's signature cannot be verified: %v.", err))
}

// key returns the key of a certificate.
func (p *Prover) key(c *cert.Certificate) key {
	if k, ok := p.keys.Get(c); ok {
		return k
	}
	var k key
	k.Key, k.err = signature.KeyOf(c)
	p.keys.Put(c, k, 1)
	return k
}
