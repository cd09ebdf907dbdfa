package negotiation

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/memory"
	"github.com/oddcert/oddcert/parsers/ja"
	"github.com/oddcert/oddcert/parsers/tls"
)

// TestSize keeps an eye on what a handshake costs.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(pooled{}); n > 768 {
		t.Errorf("a handshake takes %d bytes", n)
	}
}

// clientHello is the body of a ClientHello with this first byte of its random
// value.
func clientHello(random byte) []byte {
	b := append([]byte{3, 3, random}, make([]byte, 31)...)
	return append(b, 0, 0, 2, 0xc0, 0x2f, 1, 0)
}

// FuzzHandshake hands any messages and alerts in any order to a handshake. What
// comes out must agree with itself, and nothing may stay charged.
func FuzzHandshake(f *testing.F) {
	server := append(append([]byte{3, 3}, make([]byte, 32)...), 0, 0xc0, 0x2f, 0)
	message := func(d, typ byte, body []byte) []byte {
		return append([]byte{d, typ, byte(len(body))}, body...)
	}
	full := append(message(0, tls.TypeClientHello, clientHello(1)), message(1, tls.TypeServerHello, server)...)
	f.Add(append(full, message(1, tls.Certificate, []byte{0, 0, 6, 0, 0, 3, 0x30, 1, 2})...), uint8(0))
	f.Add(append(full, message(1, tls.ServerHelloDone, nil)...), uint8(3))
	f.Add(append(full, message(5, tls.CompressedCertificate, make([]byte, 9))...), uint8(9))
	f.Add(message(3, tls.Certificate, []byte{0, 0, 0}), uint8(1))
	exchange := append([]byte{3, 0, 29, 2, 1, 2, 4, 3, 0, 4}, "sign"...)
	f.Add(append(full, message(1, tls.ServerKeyExchange, exchange)...), uint8(0))
	f.Add(append(append(full, message(1, tls.ServerKeyExchange, exchange)...), message(1, tls.ServerKeyExchange, exchange[:9])...), uint8(0))
	f.Add(append(full, message(1, tls.CertificateStatus, []byte{1, 0, 0, 2, 0x30, 0})...), uint8(0))
	server13 := append(append([]byte{3, 3}, make([]byte, 32)...), 0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4)
	full13 := append(message(32, tls.TypeClientHello, clientHello(1)), message(1, tls.TypeServerHello, server13)...)
	full13 = append(full13, message(5|64, tls.EncryptedExtensions, []byte{0, 0})...)
	full13 = append(full13, message(5, tls.Certificate, []byte{0, 0, 0, 8, 0, 0, 2, 0x30, 0, 0, 1, 0})...)
	f.Add(append(full13, message(5, tls.CertificateVerify, append([]byte{4, 3, 0, 4}, "sign"...))...), uint8(0))
	shared := NewShared(cert.NewCache(16, 1<<20))
	f.Fuzz(func(t *testing.T, script []byte, ending uint8) {
		var pool memory.Pool
		account := pool.NewAccount()
		var h Handshake
		h.Open(shared, &account)
		flow := &event.Flow{Transport: event.TCP}
		for at := int64(1); len(script) >= 3; at++ {
			kind, typ, n := script[0], script[1], min(int(script[2]), len(script)-3)
			d, body := event.Direction(kind&1), script[3:3+n]
			script = script[3+n:]
			moment := event.Moment{Time: at, Frame: uint64(at)}
			if kind&8 != 0 {
				h.Alert(d, moment, typ, uint8(n))
				continue
			}
			if kind&16 != 0 {
				h.ChangeCipherSpec(d, moment)
				continue
			}
			m := tls.Message{Type: typ, TLS13: kind&4 != 0, Length: n, Head: body}
			if kind&2 != 0 { // cut
				m.Length++
			}
			if !h.Begun() {
				h.Begin(d, moment, Opening{Flow: flow, Keys: kind&32 != 0})
			}
			if h.Restarts(d, &m, ja.TCP) {
				break
			}
			if torn := h.Torn(d, &m); torn && m.Whole() {
				t.Fatal("a whole message is torn")
			}
			if m.TLS13 && kind&64 != 0 {
				h.Decrypted(d)
			}
			h.Message(d, moment, &m, event.Gap, ja.TCP)
		}
		if !h.Begun() {
			return
		}
		if suite, version := h.Selected(); !h.Answered() && (suite != 0 || version != 0) {
			t.Errorf("suite %#x, version %#x selected by no server", suite, version)
		}
		client := h.Client()
		e := Ending{Loss: event.Loss(ending % uint8(event.Losses)), QUIC: ending&64 != 0}
		e.Wire[0].Seen, e.Wire[1].Seen = true, ending&128 != 0
		r := h.Finish(&e)
		switch {
		case h.Begun():
			t.Error("a handshake after the end")
		case client != Unknown && r.Client != client:
			t.Errorf("client %d was %d", r.Client, client)
		case (r.Outcome == event.Lost) != (r.Loss != event.NoLoss):
			t.Errorf("%v, by %q", r.Outcome, r.Loss)
		case (r.Outcome == event.Extracted) != (len(r.Chain) > 0 && !r.Chain[0].Truncated):
			t.Errorf("%v with a chain of %d", r.Outcome, len(r.Chain))
		case (r.Outcome == event.Extracted) != (r.Handshake.Certificate != event.Moment{}):
			t.Errorf("%v at %v", r.Outcome, r.Handshake.Certificate)
		case r.Resumed != (r.Outcome == event.Resumed), r.Established:
			t.Errorf("%v, resumed %v, established %v", r.Outcome, r.Resumed, r.Established)
		case r.End.Frame < r.Start.Frame:
			t.Errorf("from %v to %v", r.Start, r.End)
		}
		checkProof(t, r.Handshake)
		for _, c := range append(r.Chain, r.ClientChain...) {
			if c.Truncated != (c.DER == nil) {
				t.Errorf("truncated %v with %d bytes", c.Truncated, len(c.DER))
			}
		}
		if account.Discharge(); pool.Held() != 0 {
			t.Errorf("%d bytes held", pool.Held())
		}
		shared.Recycle(r.Handshake)
	})
}

// checkProof fails where the evidence of h does not agree with itself.
func checkProof(t *testing.T, h *event.Handshake) {
	t.Helper()
	p := &h.Proof
	switch {
	case len(h.OCSP) > maxOCSP || len(h.SCTs) > maxSCTs:
		t.Errorf("%d and %d bytes are stapled", len(h.OCSP), len(h.SCTs))
	case p.Missing != event.ProofSeen:
		if p.Signed != nil || p.Signature != nil || p.Scheme != 0 {
			t.Errorf("missing %d, and there: %+v", p.Missing, p)
		}
	case h.ClientHello == nil || h.Outcome == event.Resumed || len(p.Signed) <= randoms:
		t.Errorf("%d bytes signed, outcome %v, ClientHello %v", len(p.Signed), h.Outcome, h.ClientHello)
	case tls.Is13(h.Version):
		if !bytes.HasPrefix(p.Signed, bytes.Repeat([]byte{' '}, 64)) || len(p.Signed) != 64+34+32 && len(p.Signed) != 64+34+48 {
			t.Errorf("signed %q", p.Signed)
		}
	case len(p.Signed)+len(p.Signature) > randoms+maxKeyExchange:
		t.Errorf("%d bytes", len(p.Signed)+len(p.Signature))
	}
}
