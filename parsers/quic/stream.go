package quic

import (
	"github.com/oddcert/oddcert/parsers/internal/reassembly"
	"github.com/oddcert/oddcert/parsers/tls"
)

// stream is the CRYPTO data of one direction at one level (RFC 9000, section
// 7.5), of which each message is delivered once.
type stream struct {
	reassembly.Buffer      // from after the last message delivered
	broken            bool // a limit was reached: nothing more is kept
}

// place adds what is new in data; where fragments overlap, the first stays. It
// is false when a limit was reached.
func (t *stream) place(d *Decoder, offset uint64, data []byte, window uint64) bool {
	end := offset + uint64(len(data)) // both below 2^62
	if end <= t.Floor() || len(data) == 0 {
		return true
	}
	if t.broken || end > t.Floor()+window {
		return false
	}
	t.Add(&d.pool, offset, data)
	return true
}

// message takes the next message off the stream when it is whole. Its body is
// the caller's. A longer one than window breaks the stream.
func (t *stream) message(d *Decoder, window uint64) (m tls.Message, ok bool) {
	var header [tls.MessageHeader]byte
	begin := t.Floor() + tls.MessageHeader
	if t.Ready() < begin {
		return m, false
	}
	t.Append(header[:0], t.Floor(), begin)
	m.Type, m.Length = header[0], tls.Uint24(header[1:])
	end := begin + uint64(m.Length)
	if end > t.Floor()+window {
		t.broken = true
		return m, false
	}
	if t.Ready() < end {
		return m, false
	}
	m.Head = t.Append(make([]byte, 0, m.Length), begin, end)
	t.Discard(&d.pool, end)
	return m, true
}

// settle gives up what is held when a limit has broken the stream, and reports
// whether none has.
func (t *stream) settle(d *Decoder) bool {
	if t.Empty() || !t.broken {
		return true
	}
	t.Release(&d.pool)
	return false
}

// rest is the message that is not whole, as far as it is there: up to its first
// hole, and from there to the second. It is false when there is none, or when
// where it begins is not known.
func (t *stream) rest() (m tls.Message, ok bool) {
	begin := t.Floor() + tls.MessageHeader
	if t.broken || t.Ready() < begin {
		return m, false
	}
	header := t.Append(nil, t.Floor(), begin)
	m.Type, m.Length = header[0], tls.Uint24(header[1:])
	end := begin + uint64(m.Length)
	m.Head = t.Append(nil, begin, min(t.Ready(), end))
	if start, stop := t.Run(t.Ready()); start < min(stop, end) {
		m.TailAt = int(start - begin)
		m.Tail = t.Append(nil, start, min(stop, end))
	}
	return m, true
}
