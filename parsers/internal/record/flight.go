package record

import "github.com/oddcert/oddcert/parsers/tls"

// flight follows the headers of the encrypted records of a direction, whether or not
// there is a secret that opens them: their lengths tell of what is in them (RFC 8446,
// section 5.2).
type flight struct {
	open    bool                   // more of them are of interest
	broken  bool                   // where the next one begins is not known
	headers uint8                  // bytes of header
	left    uint16                 // bytes of the current record's fragment that are still to come
	header  [tls.RecordHeader]byte // the part of a header that has come
}

// beginFlight begins with the encrypted record whose header was read. All records
// before it are known, unless the direction is unaligned.
func (r *Direction) beginFlight() {
	if r.late || r.Unaligned || r.framed() || !r.stream.sink.EncryptedRecord(r.d, r.length) {
		return
	}
	r.flight = flight{open: true, left: uint16(r.length)}
}

// follow takes the next bytes of the direction. What begins after the other
// direction has gone on to encrypted data is not followed any more.
func (r *Direction) follow(b []byte) {
	f := &r.flight
	if other := r.peer().Phase; other == Encrypted || other == Protected {
		f.open = false
		return
	}
	for len(b) > 0 {
		if f.left > 0 {
			n := min(int(f.left), len(b))
			f.left -= uint16(n)
			b = b[n:]
			continue
		}
		n := copy(f.header[f.headers:], b)
		f.headers += uint8(n)
		b = b[n:]
		if f.headers < tls.RecordHeader {
			return
		}
		f.headers = 0
		length := tls.RecordLength(f.header[:]) // the version says nothing (RFC 8446, section 5.1)
		known := length > 0 && length <= tls.MaxRecord
		switch {
		case known && f.header[0] == tls.ApplicationData:
			f.open = r.stream.sink.EncryptedRecord(r.d, length)
		case known && f.header[0] == tls.ChangeCipherSpec && length == 1: // for show (RFC 8446, section D.4)
		default:
			f.open, f.broken = false, true
		}
		if !f.open {
			return
		}
		f.left = uint16(length)
	}
}

// followGap takes a gap of n bytes. Within a record it does no harm.
func (r *Direction) followGap(n int) {
	f := &r.flight
	if n > int(f.left) {
		f.open, f.broken = false, true
		return
	}
	f.left -= uint16(n)
}

// Followed reports whether the lengths of all encrypted records that the direction
// has sent so far are known, and the last of them has come to its end.
func (r *Direction) Followed() bool {
	f := &r.flight
	return !f.broken && f.left == 0 && f.headers == 0
}
