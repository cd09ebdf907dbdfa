package record

import (
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// partialMessage is a handshake message that has not come completely. Of the body,
// the first keep bytes are kept, with a hole in them where bytes are missing.
type partialMessage struct {
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

// readHandshake takes the next bytes of the handshake messages of one direction.
// Messages that are all there are read in place.
func (r *Direction) readHandshake(at event.Moment, b []byte) {
	m := &r.partial
	for len(b) > 0 && (r.Phase == Plaintext || r.Phase == Protected) {
		if m.headers == 0 && len(b) >= tls.MessageHeader {
			n := tls.MessageHeader + tls.Uint24(b[1:])
			if n <= len(b) && r.checkType(at, b[0]) {
				message := tls.Message{Type: b[0], TLS13: r.Phase == Protected, Length: n - tls.MessageHeader, Head: b[tls.MessageHeader:n]}
				r.deliver(at, message, event.NoLoss)
				b = b[n:]
				continue
			}
			if r.Ended() || r.Phase == Unsynced {
				return
			}
		}
		if m.headers < tls.MessageHeader {
			n := copy(m.header[m.headers:], b)
			m.headers += uint8(n)
			m.at = event.Later(m.at, at)
			b = b[n:]
			if m.headers < tls.MessageHeader {
				r.stream.sink.Touch(at)
				return
			}
			m.length = tls.Uint24(m.header[1:])
			if !r.checkType(at, m.header[0]) {
				return
			}
			m.keep = min(m.length, Keeps(m.header[0], r.Phase == Protected))
			if m.length > MaxMessage {
				m.keep, m.cause = 0, event.Limit
			}
		}
		n := min(len(b), m.length-m.have)
		if k := min(n, m.keep-m.have); k > 0 {
			kept, ok := r.stream.shared.Pool.Append(m.kept, b[:k])
			if m.kept = kept; !ok {
				m.keep, m.cause = m.have, event.Limit
			}
		}
		m.have += n
		m.at = event.Later(m.at, at)
		r.stream.sink.Touch(at)
		b = b[n:]
		if m.have == m.length {
			r.complete(event.NoLoss)
		}
	}
}

// Keeps is how many bytes of the body of a message of type typ are looked at; tls13
// says that it is of the encrypted part of TLS 1.3.
func Keeps(typ uint8, tls13 bool) int {
	switch typ {
	case tls.TypeClientHello, tls.TypeServerHello, tls.Certificate, tls.CertificateRequest,
		tls.EncryptedExtensions, tls.CompressedCertificate:
		return MaxMessage
	case tls.ServerKeyExchange:
		return MaxKeyExchange
	case tls.CertificateStatus:
		return MaxStatus
	case tls.CertificateVerify:
		if tls13 {
			return MaxVerify
		}
	}
	return 0
}

// checkType takes the type of a handshake message. What cannot be one in plaintext
// is where the framing was lost, if something was; else it is a message that is
// not known, and is passed over.
func (r *Direction) checkType(at event.Moment, typ uint8) bool {
	if r.Phase == Protected { // whatever it is, the AEAD has authenticated it
		r.stream.sink.Touch(at)
		return true
	}
	if tls.SenderOf(typ) == tls.Nobody && (r.Gapped || r.midstream) {
		r.loseSync(event.Malformed)
		return false
	}
	r.stream.sink.Begins(r.d, at, typ)
	return true
}

// complete hands on the message that is being put together, whole or not.
func (r *Direction) complete(cause event.Loss) {
	m := r.partial
	r.partial = partialMessage{} // first: to handle a message may finish a handshake
	if m.cause != event.NoLoss {
		cause = m.cause
	}
	message := tls.Message{Type: m.header[0], TLS13: r.Phase == Protected, Length: m.length, Head: m.kept}
	if m.hole > 0 {
		message.Head, message.Tail, message.TailAt = m.kept[:m.holeAt], m.kept[m.holeAt:], m.holeAt+m.hole
	}
	r.deliver(m.at, message, cause)
	r.stream.shared.Pool.Put(m.kept)
}

// cutMessage ends the message that is being put together: the rest will not come.
func (r *Direction) cutMessage(cause event.Loss) {
	m := &r.partial
	if m.headers == tls.MessageHeader {
		r.complete(cause)
		return
	}
	r.stream.shared.Pool.Put(m.kept) // of an SSLv2 hello
	*m = partialMessage{}
}

// gapInMessage says that n bytes of the current handshake record are missing.
func (r *Direction) gapInMessage(n int) {
	m := &r.partial
	if m.headers < tls.MessageHeader || n > m.length-m.have {
		r.cutMessage(event.Gap)
		r.skip, r.Unaligned = true, true
		return
	}
	if m.have < m.keep {
		if m.hole > 0 { // a second one: forget what lies between
			if m.header[0] == tls.Certificate {
				r.Carve(m.at, m.kept[m.holeAt:])
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
		r.complete(event.Gap)
	}
}

// deliver hands a message on. What it ends is not protected any more.
func (r *Direction) deliver(at event.Moment, m tls.Message, cause event.Loss) {
	if r.stream.sink.Message(r.d, at, m, cause) {
		r.EndProtection()
	}
}
