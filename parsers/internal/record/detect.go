package record

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// startBytes is how many bytes at most it takes to recognize TLS: a record's
// header, a message's, and the beginning of a certificate list.
const startBytes = tls.RecordHeader + messageStart

// messageStart is how many bytes of a message at most it takes to recognize it:
// its header, the length of the list and of the first certificate, and the tag
// of that. helloStart is how many it takes when it is no Certificate.
const (
	messageStart = tls.MessageHeader + 7
	helloStart   = tls.MessageHeader + 2
)

const (
	// shortestHello is how long a record with a whole hello in it is at least.
	shortestHello = tls.MessageHeader + 2 + 32 + 4
	// longestAlerts is how many bytes of alerts in one record may be the first
	// of a stream: GnuTLS takes more than two.
	longestAlerts = 32
)

// start is what the beginning of a segment looks like.
type start uint8

const (
	notTLS      start = iota
	tooShort          // of more bytes it might be one
	recordStart       // a record; if of a handshake, then of contents unknown
	hello             // a record in which a handshake message begins
	sslv2Hello        // an SSLv2 hello
	emptyRecord       // a record without content, which says nothing
)

// detect tells what b looks like; first, where TLS may begin. Receivers ignore
// the version of the first record, and so does this where the content says by
// itself that it is TLS.
func detect(b []byte, first bool) start {
	if first && b[0]&0x80 != 0 {
		if len(b) < tls.V2Header {
			return tooShort
		}
		if n, _ := tls.V2Length(b); n > 0 {
			return sslv2Hello
		}
		return notTLS
	}
	if b[0] < tls.ChangeCipherSpec || b[0] > tls.ApplicationData || len(b) > 1 && !tls.AnyVersion(b[1]) {
		return notTLS
	}
	if len(b) < tls.RecordHeader {
		return tooShort
	}
	length, body := tls.RecordLength(b), b[tls.RecordHeader:]
	known := tls.IsVersion(b[1], b[2])
	odd := !known && b[1] != 3 // a version that receivers take for a hello only
	if length > tls.MaxRecord || odd && (b[0] != tls.Handshake || length < shortestHello) {
		return notTLS
	}
	if length == 0 {
		return emptyRecord
	}
	want := 0
	switch b[0] {
	case tls.ChangeCipherSpec:
		want = 1
	case tls.Alert:
		want = 2
	case tls.Handshake:
		want = min(length, helloStart)
		if len(body) > 0 && body[0] == tls.Certificate {
			want = min(length, messageStart)
		}
	case tls.ApplicationData:
		if !known {
			return notTLS
		}
	}
	if b[0] != tls.Handshake && want > 0 && length != want && !(first && b[0] == tls.Alert && length <= longestAlerts) {
		return notTLS
	}
	want = min(want, length)
	body = body[:min(len(body), want)]
	if len(body) < want {
		if b[0] != tls.Handshake || messageBegins(body, length) {
			return tooShort
		}
		return ifKnown(known, recordStart)
	}
	switch b[0] {
	case tls.ChangeCipherSpec:
		if body[0] != 1 {
			return notTLS
		}
	case tls.Alert:
		if !first && body[0] != tls.AlertWarning && body[0] != tls.AlertFatal {
			return notTLS
		}
	case tls.Handshake:
		if !messageBegins(body, length) {
			return ifKnown(known, recordStart)
		}
		if odd && (body[0] != tls.TypeClientHello && body[0] != tls.TypeServerHello || tls.MessageHeader+tls.Uint24(body[1:]) > length) {
			return notTLS
		}
		return hello
	}
	return recordStart
}

// ifKnown is s if that is known, else notTLS.
func ifKnown(known bool, s start) start {
	if known {
		return s
	}
	return notTLS
}

// messageBegins reports whether b, the beginning of the body of a handshake
// record of length bytes, looks like the beginning of a message in plaintext,
// as far as b goes.
func messageBegins(b []byte, length int) bool {
	if len(b) == 0 {
		return true
	}
	typ := b[0]
	if tls.SenderOf(typ) == tls.Nobody {
		return false
	}
	if len(b) < tls.MessageHeader {
		return len(b) == 1 || b[1] <= MaxMessage>>16
	}
	n := tls.Uint24(b[1:])
	fits := tls.MessageHeader+n <= length // in the record, as it mostly does
	body := b[tls.MessageHeader:min(len(b), messageStart)]
	major := func() bool {
		return len(body) == 0 || body[0] == 0x7f || len(body) == 1 && tls.AnyVersion(body[0]) || len(body) > 1 && tls.IsVersion(body[0], body[1])
	}
	switch typ {
	case tls.HelloRequest, tls.ServerHelloDone:
		return n == 0
	case tls.TypeClientHello: // of a version yet to come too (RFC 5246, section E.1)
		return n >= 38 && n <= 1<<17 && (major() || tls.AnyVersion(body[0]) && tls.MessageHeader+n == length)
	case tls.TypeServerHello:
		return n >= 38 && n <= 1<<17 && major()
	case tls.HelloRetryRequest:
		return fits && major()
	case tls.Certificate: // the list, and the first certificate in it
		if n == 3 {
			return len(body) < 3 || tls.Uint24(body) == 0
		}
		return n > 9 && n <= MaxMessage && (len(body) < 3 || tls.Uint24(body) == n-3) &&
			(len(body) < 6 || tls.Uint24(body[3:]) <= n-6) && (len(body) < 7 || body[6] == 0x30)
	}
	return fits
}

// messageResumes reports whether b is the beginning of the body of a handshake
// record of length bytes that begins with a message, where the record before
// was lost: it may begin in the middle of one as well.
func messageResumes(b []byte, length int) bool {
	if !messageBegins(b[:min(len(b), messageStart)], length) {
		return false
	}
	if b[0] == tls.HelloRequest && length > tls.MessageHeader {
		return false
	}
	if len(b) < tls.MessageHeader {
		return true
	}
	next := tls.MessageHeader + tls.Uint24(b[1:])
	return next >= min(length, len(b)) || tls.SenderOf(b[next]) != tls.Nobody && b[next] != tls.HelloRequest
}

// helloFollows reports whether b, the beginning of the body of a handshake record
// of length bytes after a ChangeCipherSpec, is plaintext all the same: a
// client that may speak TLS 1.3 ignores one that comes before the hello (RFC
// 8446, section 5).
func helloFollows(b []byte, length int) bool {
	const shortestFinished = 16 // encrypted, or with a MAC
	return length < shortestFinished || (b[0] == tls.TypeClientHello || b[0] == tls.TypeServerHello) && messageBegins(b, length)
}

// recognize looks for TLS at the beginning of b and of what is held of the
// segment before, where none was found yet or where the framing was lost. It is
// false when there is none; what is held then stays.
func (r *Direction) recognize(at event.Moment, b []byte) bool {
	if r.carving() {
		return false
	}
	n := int(r.headers)
	first := r.Phase == Cleartext && r.opens()
	var window []byte
	var s start
	for {
		window = b
		if n > 0 {
			copy(r.stream.shared.start[:], r.header[:n])
			window = r.stream.shared.start[:n+copy(r.stream.shared.start[n:startBytes], b)]
		}
		if s = detect(window[:min(len(window), startBytes)], first); s != emptyRecord {
			break
		}
		// It is passed over as if it had not come (RFC 5246, section 6.2.1).
		b = b[tls.RecordHeader-n:]
		if n = 0; len(b) == 0 {
			r.headers = 0
			r.segments++
			return true
		}
	}
	if s == hello && r.Lost() && !messageResumes(window[tls.RecordHeader:], tls.RecordLength(window)) {
		s = recordStart
	}
	if s == notTLS || s == recordStart && !r.plausible(window[0]) ||
		s == recordStart && !r.Lost() && window[0] == tls.ApplicationData { // TLS does not begin encrypted
		return false
	}
	if s == tooShort {
		r.headers = uint8(copy(r.header[:], window))
		if r.Phase == Unsynced {
			r.searchUnsynced(at, b)
		} else {
			r.searchCleartext(at, b)
		}
		return true
	}
	if k := r.carver; k != nil {
		if s == recordStart && window[0] == tls.Handshake {
			r.continueInRecord(n)
		} else {
			r.dropCarved()
		}
	}
	typ := uint8(tls.HelloRequest)
	switch s {
	case hello:
		typ = window[tls.RecordHeader]
	case sslv2Hello:
		typ = tls.TypeClientHello
	}
	if r.Phase == Cleartext {
		r.carried(typ)
	}
	r.peer().searchAgain()
	r.headers, r.bytes, r.segments = 0, 0, 0
	// After an alert, say, a message begins where the stream does.
	r.Unaligned = r.Phase == Unsynced || s == recordStart && (!first || r.Lost() || window[0] == tls.Handshake)
	r.Phase = Plaintext
	switch s {
	case sslv2Hello:
		r.Phase = SSLv2
	case hello:
		r.Version = binary.BigEndian.Uint16(window[1:])
		r.stream.sink.Begins(r.d, at, typ)
	}
	if n > 0 {
		r.feed(at, r.stream.shared.start[:n])
	}
	r.feed(at, b)
	return true
}

// plausible reports whether a record whose contents say nothing is taken for TLS:
// encrypted data by itself, a handshake where the other direction or this one
// was TLS already; but neither where TLS must begin with a hello, or with what
// may come before it.
func (r *Direction) plausible(typ uint8) bool {
	other := r.peer().Phase
	if r.Phase == Cleartext && !r.Lost() && r.stream.upgrades() {
		return (typ == tls.Alert || typ == tls.ChangeCipherSpec) && r.opens()
	}
	return typ != tls.Handshake || r.Phase == Unsynced || other == Plaintext || other == Encrypted || other == Unsynced
}
