package record

import (
	"bytes"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

// Protection is the encrypted part of a handshake in one direction, which a
// secret may open (RFC 8446, section 5.2; RFC 9147, section 4).
type Protection struct {
	Client    bool // it is the client's
	EarlyData bool // the client has announced early data
	Begun     bool // encrypted records were seen
	Opened    bool // some were decrypted: the secret is right
	Keyed     bool // the secret is known
	Failed    bool // the secret did not open what it must
	Missed    int  // bytes of records that the secret did not open before the first that it did

	Stream    *tls13.Stream    // over TCP: nil while the secret is not known
	Datagrams *tls13.Datagrams // over DTLS: likewise

	record []byte // over TCP: the beginning of one, borrowed from the pool
	skip   int    // over TCP: bytes of the rest of a record of which some are missing
	lost   bool   // over TCP: where the next record begins is not known

	held  []byte        // what waits for the secret, borrowed from the pool
	runs  []bufferedRun // of held
	limit int           // of len(held), 0 where nothing waits
}

// bufferedRun is a run of bytes in Protection.held, without a gap in it.
type bufferedRun struct {
	end int // in held
	gap int // bytes missing before it
	at  event.Moment
}

// runCost is what a bufferedRun takes, in bytes, beside what it is of.
const runCost = 32

// Waits reports whether there is a secret to wait for.
func (v *Protection) Waits() bool { return v.limit > 0 && !v.Keyed }

// Wait says that the secret may still come, and how many bytes are to be held
// until then.
func (v *Protection) Wait(limit int) { v.limit = limit }

// StartProtection begins the encrypted part of the direction, when its secret is
// known or may come: the phase is [Protected] then.
func (r *Direction) StartProtection(at event.Moment) bool {
	if r.late || !r.stream.sink.Protect(r.d, at) {
		return false
	}
	r.Phase = Protected
	return true
}

// beginProtected begins the encrypted part of a stream with the record whose
// header is header.
func (r *Direction) beginProtected(at event.Moment, header []byte) {
	if !r.StartProtection(at) {
		return
	}
	v := r.Protection()
	if !v.Begun {
		v.Begun = true
		if server := r.peer().Protection(); v.Client && !v.EarlyData && server.Waits() {
			// The client has the server's flight.
			server.limit = min(server.limit, len(server.held)+MaxHeldAfterAnswer)
		}
	}
	r.left = 0
	r.readProtected(at, header[:tls.RecordHeader])
}

// protectedAfterGap goes on with encrypted records after a gap in which plaintext has ended.
func (r *Direction) protectedAfterGap(at event.Moment) {
	if r.stream.sink.Progress().Answered && r.StartProtection(at) {
		r.Protection().lost = true
		r.Unaligned = true
	}
}

// readProtected takes the next bytes of a TCP stream that is encrypted.
func (r *Direction) readProtected(at event.Moment, b []byte) {
	v := r.Protection()
	if v.Waits() {
		r.BufferCiphertext(at, 0, b, false)
		return
	}
	for len(b) > 0 && r.Phase == Protected {
		if v.skip > 0 {
			n := min(v.skip, len(b))
			v.skip -= n
			b = b[n:]
			continue
		}
		if len(v.record) == 0 && !v.lost && len(b) >= tls.RecordHeader && r.frames(b) {
			if n := tls.RecordHeader + tls.RecordLength(b); n <= len(b) {
				r.decryptRecord(at, b[:n])
				b = b[n:]
				continue
			}
		}
		need := tls.RecordHeader
		if len(v.record) >= need {
			need += tls.RecordLength(v.record)
		}
		n := min(need-len(v.record), len(b))
		record, ok := r.stream.shared.Pool.Append(v.record, b[:n])
		if v.record = record; !ok {
			r.stream.shared.Limited++
			r.EndProtection()
			return
		}
		b = b[n:]
		if len(record) < tls.RecordHeader {
			return
		}
		if !r.frames(record) || v.lost && (record[0] != tls.ApplicationData || record[1] != 3 || record[2] != 3) {
			r.resyncProtected()
			continue
		}
		if len(record) == tls.RecordHeader+tls.RecordLength(record) {
			v.record = nil
			r.decryptRecord(at, record)
			r.stream.shared.Pool.Put(record)
		}
	}
	if len(b) > 0 && r.Phase == Plaintext {
		r.readPlaintext(at, b)
	}
}

// resyncProtected says that no record begins with what was taken for the header of one:
// it may begin a byte later.
func (r *Direction) resyncProtected() {
	v := r.Protection()
	v.lost = true
	r.loseRecord()
	if v.Missed += len(v.record); v.Missed > MaxMissed {
		r.EndProtection()
		return
	}
	next := bytes.IndexByte(v.record[1:], tls.ApplicationData) + 1
	if next == 0 {
		next = len(v.record)
	}
	v.record = v.record[:copy(v.record, v.record[next:])]
	if len(v.record) == 0 {
		r.stream.shared.Pool.Put(v.record)
		v.record = nil
	}
}

// loseRecord says that a record is missing: messages go on without what was in it.
func (r *Direction) loseRecord() {
	r.Gapped = true
	if !r.Unaligned {
		r.cutMessage(event.Gap)
		r.Unaligned = true
	}
	r.flushCarver()
}

// decryptRecord reads one record of an encrypted stream.
func (r *Direction) decryptRecord(at event.Moment, record []byte) {
	v := r.Protection()
	body := record[tls.RecordHeader:]
	switch record[0] {
	case tls.ChangeCipherSpec: // for show (RFC 8446, section D.4)
		return
	case tls.Alert: // of one who could not encrypt it
		if len(body) == 2 {
			r.stream.sink.Alert(r.d, at, body[0], body[1])
		}
		return
	case tls.Handshake: // a second ClientHello after early data
		if !v.Stream.Proved() {
			r.Phase = Plaintext
			r.readPlaintext(at, record)
		}
		return
	}
	typ, content, ok := v.Stream.Open(r.stream.shared.plain[:0], record[:tls.RecordHeader], body, r.Gapped)
	r.stream.shared.plain = content[:0]
	if !ok {
		r.decryptFailed(len(record))
		return
	}
	v.lost, v.Begun = false, true
	r.Decrypted(at)
	switch typ {
	case tls.Handshake:
		r.innerHandshake(at, content)
	case tls.Alert:
		if len(content) == 2 {
			r.stream.sink.Alert(r.d, at, content[0], content[1])
		}
	}
}

// decryptFailed takes a record of n bytes that the secret does not open.
func (r *Direction) decryptFailed(n int) {
	v := r.Protection()
	v.Missed += n
	switch {
	case v.lost && v.Missed <= MaxMissed:
		r.loseRecord()
		return
	case v.Opened: // the other's records, or none of TLS
		if r.Cause == event.NoLoss {
			r.Cause = event.Malformed
		}
	case v.Missed <= MaxMissed && (r.Gapped || v.EarlyData && v.Client):
		return // early data has keys of its own
	default:
		v.Failed = true
	}
	r.EndProtection()
}

// Decrypted notes that the secret of the direction is right.
func (r *Direction) Decrypted(at event.Moment) {
	r.Protection().Opened = true
	r.stream.sink.Decrypted(r.d, at)
}

// innerHandshake takes the handshake messages of one encrypted record.
func (r *Direction) innerHandshake(at event.Moment, b []byte) {
	if r.Unaligned && (r.carving() || !resumes13(b)) {
		r.carve(at, b, false, false)
		return
	}
	if r.Unaligned {
		r.Unaligned = false
		r.flushCarver()
	}
	r.readHandshake(at, b)
}

// resumes13 reports whether the content of an encrypted record begins with a
// message, where the record before was lost: it may begin in the middle of one
// as well.
func resumes13(b []byte) bool {
	for len(b) >= tls.MessageHeader {
		n := tls.MessageHeader + tls.Uint24(b[1:])
		switch b[0] {
		case tls.Certificate, tls.CompressedCertificate:
			if n > MaxMessage {
				return false
			}
		case tls.EncryptedExtensions, tls.CertificateRequest, tls.CertificateVerify, tls.Finished:
			if n > tls.MaxRecord {
				return false
			}
		default:
			return false
		}
		if n >= len(b) {
			return true
		}
		b = b[n:]
	}
	return false
}

// protectedGap takes a gap of n bytes in an encrypted TCP stream.
func (r *Direction) protectedGap(at event.Moment, n int) {
	v := r.Protection()
	if v.Waits() {
		r.BufferCiphertext(at, n, nil, false)
		return
	}
	left := v.skip
	if len(v.record) >= tls.RecordHeader {
		left = tls.RecordHeader + tls.RecordLength(v.record) - len(v.record)
	}
	r.stream.shared.Pool.Put(v.record)
	v.record = nil
	v.skip, v.lost = left-n, v.lost || n > left
	if v.lost {
		v.skip = 0
	}
	r.loseRecord()
}

// EndProtection ends the encrypted part of the direction: no more of it is of
// interest.
func (r *Direction) EndProtection() {
	r.cutMessage(event.Gap)
	r.flushCarver()
	v := r.Protection()
	r.drop(v)
	if r.Phase = Encrypted; !v.Begun {
		r.Phase = Abandoned
	}
}

// BufferCiphertext keeps encrypted bytes, or a gap of n bytes before them, until
// there is a secret. Where whole is set, b is one record, and kept whole or not
// at all.
func (r *Direction) BufferCiphertext(at event.Moment, gap int, b []byte, whole bool) {
	if r.Full {
		return
	}
	v, shared := r.Protection(), r.stream.shared
	n := min(len(b), v.limit-len(v.held))
	if n < len(b) && whole {
		n = 0
	}
	before := cap(v.held)
	held, ok := shared.Pool.Append(v.held, b[:n])
	v.held = held
	shared.Waiting += cap(held) - before
	if ok {
		had := cap(v.runs)
		v.runs = append(v.runs, bufferedRun{len(held), gap, at})
		r.stream.account.Charge((cap(v.runs) - had) * runCost)
	}
	if !ok || n < len(b) || len(v.runs) >= MaxRuns {
		r.Full = true
		if peer := r.peer(); peer.Protection().Waits() && peer.Protection().Begun && !v.EarlyData {
			peer.Full = true // a handshake has no such length
		}
	}
}

// ReplayBuffered reads what was held, now that the secret is known. Records of
// DTLS go to datagram, which may be nil for a stream.
func (r *Direction) ReplayBuffered(datagram func(at event.Moment, b []byte)) {
	v := r.Protection()
	held, runs := v.held, v.runs
	v.held, v.runs = nil, nil
	r.stream.shared.Waiting -= cap(held)
	from := 0
	for _, m := range runs {
		if m.gap > 0 && r.Phase == Protected {
			r.protectedGap(m.at, m.gap)
		}
		b := held[from:m.end]
		from = m.end
		switch {
		case r.Phase != Protected || len(b) == 0:
		case v.Datagrams == nil:
			r.readProtected(m.at, b)
		default:
			datagram(m.at, b)
		}
	}
	if r.Full && r.Phase == Protected {
		r.EndProtection()
	}
	r.stream.shared.Pool.Put(held)
}

// drop gives back what v has borrowed.
func (r *Direction) drop(v *Protection) {
	r.stream.shared.Pool.Put(v.record)
	r.stream.shared.Pool.Put(v.held)
	r.stream.shared.Waiting -= cap(v.held)
	*v = Protection{Client: v.Client, EarlyData: v.EarlyData, Begun: v.Begun, Opened: v.Opened, Keyed: v.Keyed, Failed: v.Failed}
}

// Protection is the encrypted part of the direction; nil where the flow has none.
func (r *Direction) Protection() *Protection {
	if r.stream.protections == nil {
		return nil
	}
	return &r.stream.protections[r.d]
}

// Protect makes room for the encrypted part of both directions.
func (s *Stream) Protect() {
	if s.protections == nil {
		s.protections = new([2]Protection)
	}
}

// Protected reports whether an encrypted part was ever begun in either direction
// with a secret, or with the hope for one.
func (s *Stream) Protected() bool { return s.protections != nil }

// ResetProtection forgets the encrypted parts of a handshake that is over.
func (s *Stream) ResetProtection() {
	if s.protections == nil {
		return
	}
	for d := range s.protections {
		s.dirs[d].drop(&s.protections[d])
		s.protections[d] = Protection{}
	}
}
