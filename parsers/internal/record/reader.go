package record

import (
	"bytes"
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

func (r *Direction) feed(at event.Moment, b []byte) {
	if r.Phase == SSLv2 {
		r.readSSLv2(at, b)
		return
	}
	r.readPlaintext(at, b)
}

// readPlaintext reads plaintext records.
func (r *Direction) readPlaintext(at event.Moment, b []byte) {
	for len(b) > 0 && r.Phase == Plaintext {
		if r.left == 0 {
			header := b
			if r.headers > 0 || len(b) < tls.RecordHeader {
				n := copy(r.header[r.headers:tls.RecordHeader], b)
				r.headers += uint8(n)
				b = b[n:]
				if r.headers < tls.RecordHeader {
					return
				}
				header, r.headers = r.header[:], 0
			} else {
				b = b[tls.RecordHeader:]
			}
			r.recordHeader(at, header)
			continue
		}
		begins := r.left == r.length
		if need := min(r.length, messageStart); begins && (r.Unaligned || r.ccs) && r.typ == tls.Handshake && (r.headers > 0 || len(b) < need) {
			// Too few bytes to tell whether a message begins here.
			n := copy(r.header[r.headers:need], b)
			r.headers += uint8(n)
			b = b[n:]
			if int(r.headers) < need {
				return
			}
			r.headers = 0
			r.readPlaintext(at, bytes.Clone(r.header[:need]))
			continue
		}
		if begins && r.ccs && r.typ == tls.Handshake {
			if r.ccs = false; !helloFollows(b[:min(len(b), messageStart)], r.length) {
				r.encrypted(at, r.typ)
				return
			}
		}
		n := min(r.left, len(b))
		body := b[:n]
		b = b[n:]
		r.left -= n
		switch r.typ {
		case tls.Handshake:
			if begins {
				r.skip = r.Unaligned && (r.carving() || !messageResumes(body, r.length))
				r.Unaligned = r.skip
				if !r.skip {
					r.flushCarver()
				}
			}
			if r.skip {
				r.carve(at, body, false, false)
			} else {
				r.readHandshake(at, body)
			}
		case tls.ChangeCipherSpec:
			if body[0] != 1 || r.length != 1 {
				r.loseSync(event.Malformed)
			} else if r.stream.sink.ChangeCipherSpec(r.d, at) {
				r.encrypted(at, 0)
			} else {
				r.ccs = true
			}
		case tls.Alert:
			for _, v := range body {
				if r.alert == 0 {
					r.alert = alertBegun | uint16(v)
					continue
				}
				r.stream.sink.Alert(r.d, at, uint8(r.alert), v)
				r.alert = 0
			}
		}
	}
	if r.flight.open {
		r.follow(b)
	}
	switch {
	case len(b) == 0:
	case r.Phase == Unsynced:
		r.searchUnsynced(at, b)
	case r.Phase == Protected:
		r.readProtected(at, b)
	}
}

// alertBegun tells the first byte of an alert from none.
const alertBegun = 1 << 8

// frames reports whether header is that of the next record. While nothing is
// missing, where records begin is known, and the version says nothing (RFC 8446,
// section 5.1); a type that is not known may be passed over (RFC 2246, section
// 6).
func (r *Direction) frames(header []byte) bool {
	if tls.IsRecord(header) {
		return true
	}
	version := binary.BigEndian.Uint16(header[1:])
	switch known := tls.IsContentType(header[0]); {
	case tls.RecordLength(header) > tls.MaxRecord:
		return false
	case r.Gapped || r.midstream || r.Unaligned:
		return known && (version == r.Version || header[1] == 3)
	default:
		return known || version == r.Version
	}
}

// recordHeader takes the header of a record.
func (r *Direction) recordHeader(at event.Moment, header []byte) {
	if !r.frames(header) {
		r.loseSync(event.Malformed)
		return
	}
	r.typ, r.length = header[0], tls.RecordLength(header)
	r.left = r.length
	if r.Version == 0 {
		r.Version = binary.BigEndian.Uint16(header[1:])
	}
	if r.bytes += tls.RecordHeader + r.length; r.bytes > MaxPlaintext {
		r.loseSync(event.Limit)
		r.Phase = Abandoned
		return
	}
	if r.length == 0 {
		return
	}
	// In plaintext, of several. Encrypted ones have at least a MAC of 10 bytes
	// (RFC 6066, section 7), and come after a ChangeCipherSpec, which may be
	// missing.
	const longestAlert = 11
	switch {
	case r.typ == tls.ApplicationData:
		r.encrypted(at, r.typ)
		r.beginFlight()
		r.beginProtected(at, header)
	case r.typ == tls.Alert && r.length > longestAlert && (r.ccs || r.Gapped || r.midstream || r.Unaligned):
		r.encrypted(at, r.typ)
	case r.typ == tls.Handshake && r.stream.sink.Progress().Retried:
		r.ccs = false
	case r.typ == tls.Alert && r.length%2 == 0:
		r.alert = 0
	}
}

// encrypted says that the rest of one direction is encrypted; by is the type of the
// record that told, 0 when it was the ChangeCipherSpec.
func (r *Direction) encrypted(at event.Moment, by uint8) {
	cause := event.Malformed // a message that goes on encrypted
	if r.Gapped {
		cause = event.Gap
	}
	r.cutMessage(cause)
	r.flushCarver()
	if !r.Unaligned && !r.Gapped {
		r.stream.sink.Encrypted(r.d, at, by)
	} else {
		r.stream.sink.Touch(at)
	}
	r.Phase = Encrypted
}

// loseSync says that the records of one direction cannot be nextIsCertificate any more.
func (r *Direction) loseSync(cause event.Loss) {
	if r.Cause == event.NoLoss {
		r.Cause = cause
	}
	r.cutMessage(cause)
	r.flushCarver()
	r.Phase = Unsynced
	r.bytes, r.segments = 0, 0
	r.left, r.headers, r.alert = 0, 0, 0
}

// Gap takes a gap of n bytes. Where it lies within a record, the records after
// it can still be nextIsCertificate; within a message, the messages too.
func (r *Direction) Gap(at event.Moment, n int) {
	r.flushCarver()
	if r.flight.open {
		r.followGap(n)
	}
	if (r.Phase == Cleartext || r.framed()) && !r.cleartext().Skip(n) && r.Phase != Cleartext {
		r.Gapped = true
		r.loseSync(event.Gap)
		return
	}
	switch r.Phase {
	case Cleartext, Unsynced:
		r.Gapped = true
		r.headers = 0
	case SSLv2:
		r.Gapped = true
		r.loseSync(event.Gap)
	case Protected:
		r.protectedGap(at, n)
	case Plaintext:
		r.Gapped = true
		if n > r.left || r.headers > 0 {
			r.loseSync(event.Gap)
			r.protectedAfterGap(at)
			return
		}
		begins := r.left == r.length
		r.left -= n
		r.alert = 0
		if r.typ == tls.Handshake && !r.skip {
			if begins && r.Unaligned {
				r.skip = true
				return
			}
			r.gapInMessage(n)
		}
	}
}
