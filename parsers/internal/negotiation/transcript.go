package negotiation

import (
	"bytes"
	"hash"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// transcript is the messages of a handshake of TLS 1.3 up to the server's Certificate,
// whose hash the server signs (RFC 8446, section 4.4.1). It is kept only where there
// are, or may be, secrets to read the Certificate with. The messages are kept and not
// hashed as they come, because those of DTLS come in any order.
type transcript struct {
	buf    []byte // of all messages, with headers, as they came
	parts  [transcriptParts]span
	broken bool        // it cannot be what the server has signed, or is too long
	next   *transcript // in the list of those that are free
}

// span is a part of a buffer; of no bytes where there is none.
type span struct{ from, to int }

// The parts, in the order in which they are hashed.
const (
	firstHello = iota
	retryHello // the HelloRetryRequest
	secondHello
	serverHello
	serverExtensions
	serverRequest     // the CertificateRequest
	serverCertificate // may be compressed
	transcriptParts
)

// transcribe adds m to the transcript as part, if one is kept.
func (h *Handshake) transcribe(part int, m *tls.Message) {
	t, had := h.transcript, 0
	if t != nil {
		had = cap(t.buf)
	} else {
		if h.shared.Keys == nil || !h.shared.Keys() {
			return
		}
		t = h.shared.takeTranscript()
		h.transcript = t
	}
	t.add(part, m)
	h.account.Charge(cap(t.buf) - had)
}

// add adds m as part. What is sent again as it was changes nothing.
func (t *transcript) add(part int, m *tls.Message) {
	if !m.Whole() {
		return // it may still come whole
	}
	body := m.Head[:m.Length]
	same := func(part int) bool {
		p := t.parts[part]
		return p.to > 0 && bytes.Equal(t.buf[p.from+tls.MessageHeader:p.to], body)
	}
	switch {
	case same(part), part == firstHello && same(secondHello):
		return
	case t.parts[part].to == 0:
	case part == firstHello && t.parts[secondHello].to == 0:
		part = secondHello
	default:
		t.broken = true
		return
	}
	if len(t.buf)+tls.MessageHeader+len(body) > maxTranscript {
		t.broken = true
		return
	}
	from := len(t.buf)
	t.buf = append(tls.AppendHeader(t.buf, m.Type, len(body)), body...)
	t.parts[part] = span{from, len(t.buf)}
}

// hash appends the hash of the transcript, made by x, to b. It is false where it cannot
// be what the server has signed.
func (t *transcript) hash(x hash.Hash, b []byte) ([]byte, bool) {
	has := func(part int) bool { return t.parts[part].to > 0 }
	if t.broken || !has(firstHello) || !has(serverHello) || !has(serverExtensions) || !has(serverCertificate) ||
		has(retryHello) != has(secondHello) {
		return b, false
	}
	for part, p := range t.parts {
		message := t.buf[p.from:p.to]
		if part == firstHello && has(retryHello) {
			x.Write(message)
			var first [64]byte
			sum := x.Sum(first[:0])
			x.Reset()
			message = tls.AppendMessageHash(nil, sum)
		}
		x.Write(message)
	}
	return x.Sum(b), true
}

// takeTranscript returns an empty transcript.
func (s *Shared) takeTranscript() *transcript {
	t := s.transcripts
	if t == nil {
		return new(transcript)
	}
	s.transcripts = t.next
	s.freeTranscripts--
	t.next = nil
	return t
}

// forgetTranscript gives the transcript of h back.
func (h *Handshake) forgetTranscript() {
	t, s := h.transcript, h.shared
	h.transcript = nil
	if t == nil || s.freeTranscripts >= maxRecycledTranscripts || cap(t.buf) > maxRecycledTranscript {
		return
	}
	*t = transcript{buf: t.buf[:0], next: s.transcripts}
	s.transcripts = t
	s.freeTranscripts++
}

// transcribeServer adds an encrypted message of the server, before it has signed, to the
// transcript.
func (h *Handshake) transcribeServer(m *tls.Message) {
	switch m.Type {
	case tls.EncryptedExtensions:
		h.transcribe(serverExtensions, m)
	case tls.CertificateRequest:
		h.transcribe(serverRequest, m)
	case tls.Certificate, tls.CompressedCertificate:
		h.transcribe(serverCertificate, m)
	case tls.CertificateVerify, tls.Finished, tls.NewSessionTicket, keyUpdate:
	default: // it is part of what is signed, and nobody knows where
		if h.transcript != nil {
			h.transcript.broken = true
		}
	}
}

// keyUpdate is the type of a message that comes after the handshake (RFC 8446, section
// 4.6.3).
const keyUpdate = 24

// setVerified fills in what the server has signed in TLS 1.3.
func (h *Handshake) setVerified() event.ProofMissing {
	x, ok := tls.ParseCertificateVerify(h.proof[paramsAt:])
	if !ok {
		return event.ProofMalformed
	}
	var hash func() hash.Hash
	for _, n := range []int{256 / 8, 384 / 8} {
		if s := tls13.Suites(h.CipherSuite, n); h.CipherSuite != 0 && len(s) > 0 {
			hash = s[0].Hash
		}
	}
	if hash == nil {
		return event.ProofForeign
	}
	if h.transcript == nil {
		return event.ProofCut
	}
	var room [64]byte
	sum, ok := h.transcript.hash(hash(), room[:0])
	if !ok {
		return event.ProofCut
	}
	from := len(h.proof)
	h.proof = tls.AppendVerifyContent(h.proof, sum)
	h.Proof.Scheme, h.Proof.Signature, h.Proof.Signed = x.Scheme, x.Value, h.proof[from:]
	return event.ProofSeen
}
