// Package dtlsrecord reads the records of DTLS (RFC 6347, section 4.1; RFC 9147,
// section 4) of one flow: datagrams go in, and the verbs of a [Sink] come out.
// Handshake messages come in fragments, in any order, and are put together here.
// They are read in any order too: each says by itself what it is.
package dtlsrecord

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/reassembly"
	"github.com/oddcert/oddcert/parsers/internal/record"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// Sink takes what the records hold, as [record.Sink] does.
type Sink interface {
	Begins(d event.Direction, at event.Moment, typ uint8)
	Message(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) (last bool)
	ChangeCipherSpec(d event.Direction, at event.Moment) (encrypted bool)
	Alert(d event.Direction, at event.Moment, level, description uint8)
	Touch(at event.Moment)

	// Flight is what is known of the handshake, and of what d has sent of it.
	Flight(d event.Direction) Flight
}

// Flight is what a handshake has come to, as far as it tells how the next records
// of one direction are to be read.
type Flight struct {
	CipherChanged bool // a ChangeCipherSpec was seen
	Certificate   bool // a whole Certificate message was
	Last          bool // the last message of the direction was
	TLS13         bool // the version is one of TLS 1.3
	Hidden        bool // both hellos were seen, and all that follows them is encrypted
	ConnectionID  int  // length of the connection IDs in the direction's encrypted records
}

// Shared is what all flows of a parser use. It is not safe for concurrent use.
type Shared struct {
	Records *record.Shared
	Keys    bool            // there may be secrets
	Pool    reassembly.Pool // of the messages

	message []byte // scratch of messages that are put together
}

// Reader reads the records of both directions of a flow.
type Reader struct {
	shared *Shared
	sink   Sink
	stream *record.Stream // has the state of the directions, and their secrets
	sent   [2]sent
}

// sent is what one direction has sent of its messages.
type sent struct {
	pending []partialMessage
	seen    uint64 // bit i: message_seq i was seen, whole or not
}

// partialMessage is a handshake message of which some fragments came.
type partialMessage struct {
	typ    uint8
	seq    uint16
	tls13  bool // it came encrypted, in DTLS 1.3
	length int
	body   reassembly.Buffer // from the shared pool
	bytes  int               // of the fragments that came
	cause  event.Loss
	at     event.Moment
}

// NewReader returns a reader for one flow after another, whose directions stream
// has. Between two of them all must have been flushed.
func NewReader(shared *Shared, sink Sink, stream *record.Stream) *Reader {
	return &Reader{shared: shared, sink: sink, stream: stream}
}

// Datagram reads the records of one datagram, which is borrowed until the return.
func (r *Reader) Datagram(d event.Direction, at event.Moment, b []byte) {
	h := r.stream.Direction(d)
	h.Seen = true
	if h.Phase == record.Cleartext {
		h.Phase = record.Plaintext
	}
	if h.Ended() {
		h.After++
	}
	for len(b) > 0 {
		if r.shared.Keys && tls13.IsUnified(b) {
			u, rest, ok := tls13.NextUnified(b, r.sink.Flight(d).ConnectionID)
			if !ok {
				return
			}
			r.ciphertext(d, at, &u)
			b = rest
			continue
		}
		x, rest, ok := dtls.Next(b)
		if !ok {
			return
		}
		b = rest
		if h.Version == 0 {
			h.Version = x.Version
		}
		if x.Epoch > 0 {
			r.sink.Touch(at)
			r.encryptedRecord(d)
			continue
		}
		r.plaintext(d, at, x.Type, x.Body)
	}
	// DTLS 1.3 encrypts all that comes now, in records of their own kind.
	if r.sink.Flight(d).Hidden {
		for d := range event.Direction(2) {
			if h := r.stream.Direction(d); !h.Ended() && h.Phase != record.Protected && !h.StartProtection(at) {
				h.Phase = record.Abandoned
			}
		}
	}
}

// plaintext reads the body of a record that is not encrypted.
func (r *Reader) plaintext(d event.Direction, at event.Moment, typ uint8, body []byte) {
	h := r.stream.Direction(d)
	switch typ {
	case tls.Handshake:
		if h.Phase == record.Encrypted && !r.sink.Flight(d).CipherChanged { // it was too early for that
			h.Phase, h.After = record.Plaintext, 0
		}
		for len(body) > 0 {
			f, rest, ok := dtls.NextFragment(body)
			if !ok {
				break
			}
			body = rest
			if tls.SenderOf(f.Type) != tls.Nobody {
				r.fragment(d, at, &f)
			}
		}
	case tls.ChangeCipherSpec:
		if len(body) > 0 && body[0] == 1 {
			r.sink.ChangeCipherSpec(d, at)
			h.Phase = record.Encrypted // DTLS 1.3 sends none for show
		}
	case tls.Alert:
		if len(body) == 2 {
			r.sink.Alert(d, at, body[0], body[1])
		}
	}
}

// encryptedRecord takes a record of a later epoch of direction d. After a
// ChangeCipherSpec, or where no plaintext was seen, all that follows is
// encrypted. Elsewhere it may be anybody's, and is discarded by the receiver:
// many of them show that the ChangeCipherSpec was lost.
func (r *Reader) encryptedRecord(d event.Direction) {
	h := r.stream.Direction(d)
	h.Protected++
	plaintext := r.sent[d].seen != 0
	if f := r.sink.Flight(d); !plaintext || f.CipherChanged || h.Protected >= oneSided || f.TLS13 {
		h.Phase = record.Encrypted
	}
}

// ciphertext takes an encrypted record of DTLS 1.3 (RFC 9147, section 4).
func (r *Reader) ciphertext(d event.Direction, at event.Moment, u *tls13.Unified) {
	const handshakeEpoch = 2 // RFC 9147, section 6.1
	h := r.stream.Direction(d)
	if h.Phase != record.Protected {
		if v := h.Protection(); v != nil && v.Opened { // the handshake is over
			return
		}
		if h.Ended() || !h.StartProtection(at) {
			r.sink.Touch(at)
			h.Phase = record.Encrypted
			return
		}
	}
	v := h.Protection()
	v.Begun = true
	if u.Epoch != handshakeEpoch { // early data, or what comes after the handshake
		if h.After++; h.After >= oneSided {
			h.EndProtection()
		}
		return
	}
	if v.Waits() {
		h.BufferCiphertext(at, 0, u.Bytes, true)
		return
	}
	typ, content, ok := v.Datagrams.Open(r.shared.Records.Plain(), u)
	r.shared.Records.KeepPlain(content)
	if !ok {
		v.Failed = true
		if v.Missed += len(u.Bytes); v.Missed > record.MaxMissed {
			h.EndProtection()
		}
		return
	}
	h.Decrypted(at)
	switch typ {
	case tls.Handshake:
		for len(content) > 0 && h.Phase == record.Protected {
			f, rest, ok := dtls.NextFragment13(content)
			if !ok {
				return
			}
			content = rest
			r.fragment(d, at, &f)
		}
		// The messages may come in any order.
		if h.Phase == record.Protected && r.sink.Flight(d).Last && len(r.sent[d].pending) == 0 && !r.sent[d].holed() {
			h.EndProtection()
		}
	case tls.Alert:
		if len(content) == 2 {
			r.sink.Alert(d, at, content[0], content[1])
		}
	}
}

// ReplayBuffered reads the encrypted records of direction d that were held, now
// that the secret is known.
func (r *Reader) ReplayBuffered(d event.Direction) {
	r.stream.Direction(d).ReplayBuffered(func(at event.Moment, b []byte) {
		if u, _, ok := tls13.NextUnified(b, r.sink.Flight(d).ConnectionID); ok {
			r.ciphertext(d, at, &u)
		}
	})
}

// fragment takes one fragment of a handshake message.
func (r *Reader) fragment(d event.Direction, at event.Moment, f *dtls.Fragment) {
	m := tls.Message{Type: f.Type, TLS13: f.TLS13, Length: f.Length, Head: f.Body}
	if f.Whole() {
		r.forget(d, f)
		r.saw(d, f.Sequence)
		r.deliver(d, at, m, event.NoLoss)
		return
	}
	typ := f.Type
	if f.TLS13 {
		typ = tls.HelloRequest // of encrypted messages both sides send the same
	}
	r.sink.Begins(d, at, typ)
	r.saw(d, f.Sequence)
	if record.Keeps(f.Type, f.TLS13) == 0 {
		if f.Offset == 0 {
			r.deliver(d, at, m, event.NoLoss)
		}
		return
	}
	if f.Type == tls.Certificate && r.sink.Flight(d).Certificate {
		return // sent again
	}
	z := r.partial(d, f)
	r.insert(z, f)
	z.at = event.Later(z.at, at)
	if z.body.Ready() == uint64(z.length) {
		whole := r.take(d, z)
		r.finish(d, &whole, event.NoLoss)
	}
}

// deliver hands a message on. That it is the last of its sender does not end the
// protection: others may come after it.
func (r *Reader) deliver(d event.Direction, at event.Moment, m tls.Message, cause event.Loss) {
	r.sink.Message(d, at, m, cause)
}

// saw notes a message_seq.
func (r *Reader) saw(d event.Direction, seq uint16) {
	if seq < 64 {
		r.sent[d].seen |= 1 << seq
	}
}

// partial is the message that f is a fragment of, begun when it is the first. The
// one that has grown least is evicted when there are too many.
func (r *Reader) partial(d event.Direction, f *dtls.Fragment) *partialMessage {
	s := &r.sent[d]
	least := 0
	for i := range s.pending {
		z := &s.pending[i]
		if z.typ == f.Type && z.seq == f.Sequence && z.tls13 == f.TLS13 && z.length == f.Length {
			return z
		}
		if z.bytes < s.pending[least].bytes {
			least = i
		}
	}
	if len(s.pending) == MaxPending {
		r.stream.Direction(d).Cause = event.Limit
		z := r.take(d, &s.pending[least])
		z.body.Release(&r.shared.Pool)
	}
	s.pending = append(s.pending, partialMessage{typ: f.Type, seq: f.Sequence, tls13: f.TLS13, length: f.Length})
	return &s.pending[len(s.pending)-1]
}

// insert adds what is new in f; where fragments overlap, the first stays.
func (r *Reader) insert(z *partialMessage, f *dtls.Fragment) {
	z.bytes += len(f.Body)
	if z.length > MaxMessage {
		z.cause = event.Limit
		return
	}
	z.body.Add(&r.shared.Pool, uint64(f.Offset), f.Body)
}

// finish hands on the message that z has become: up to its first hole, and what
// lies between that and the next.
func (r *Reader) finish(d event.Direction, z *partialMessage, cause event.Loss) {
	m := tls.Message{Type: z.typ, TLS13: z.tls13, Length: z.length}
	head := z.body.Ready()
	b := z.body.Append(r.shared.message[:0], 0, head)
	start, end := z.body.Run(head)
	if start < end {
		m.TailAt = int(start)
		b = z.body.Append(b, start, end)
	}
	m.Head, m.Tail = b[:head], b[head:]
	if z.typ == tls.Certificate {
		for start, stop := z.body.Run(end); start < stop; start, stop = z.body.Run(stop) {
			n := len(b)
			b = z.body.Append(b, start, stop)
			r.stream.Direction(d).Carve(z.at, b[n:])
		}
	}
	r.shared.message = b
	if z.cause != event.NoLoss {
		cause = z.cause
	}
	r.deliver(d, z.at, m, cause)
	z.body.Release(&r.shared.Pool)
}

// take takes z out of the messages that are being put together.
func (r *Reader) take(d event.Direction, z *partialMessage) partialMessage {
	s := &r.sent[d]
	taken, last := *z, len(s.pending)-1
	*z = s.pending[last]
	s.pending[last] = partialMessage{}
	s.pending = s.pending[:last]
	return taken
}

// forget gives up the fragments of a message that came whole.
func (r *Reader) forget(d event.Direction, f *dtls.Fragment) {
	s := &r.sent[d]
	for i := len(s.pending) - 1; i >= 0; i-- {
		if z := &s.pending[i]; z.typ == f.Type && z.seq == f.Sequence {
			taken := r.take(d, z)
			taken.body.Release(&r.shared.Pool)
		}
	}
}

// holed reports whether messages between others have not come.
func (s *sent) holed() bool {
	run := s.seen >> bits.TrailingZeros64(s.seen)
	return run&(run+1) != 0
}

// Flush hands on the captured parts of the unfinished messages of one direction, and
// notes whether messages between others never came.
func (r *Reader) Flush(d event.Direction, cause event.Loss) {
	s, h := &r.sent[d], r.stream.Direction(d)
	if s.holed() {
		h.Gapped = true
	}
	s.seen = 0
	slices.SortFunc(s.pending, func(a, b partialMessage) int { return cmp.Compare(b.seq, a.seq) })
	for len(s.pending) > 0 {
		z := r.take(d, &s.pending[len(s.pending)-1])
		why := cause
		if start, end := z.body.Run(z.body.Ready()); h.Cause == event.Limit {
			why = event.Limit // perhaps others of it came, and were evicted
		} else if start < end {
			why = event.Gap // fragments from after the hole came
		}
		r.finish(d, &z, why)
	}
}
