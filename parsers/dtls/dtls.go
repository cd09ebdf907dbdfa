// Package dtls reads the plaintext of DTLS 1.0 to 1.3: records and handshake
// fragments (RFC 4347, RFC 6347, RFC 9147). Bytes in, structs out: it keeps no
// state, and what it returns points into what it was given. The bodies of the
// messages are those of TLS; see package tls.
package dtls

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/tls"
)

const (
	// RecordHeader is the length of a record's header.
	RecordHeader = 13
	// FragmentHeader is the length of the header of a handshake fragment.
	FragmentHeader = 12

	typeCID = 25 // tls12_cid
	maxType = 26 // ACK
	maxCID  = 32 // bytes of the longest connection ID that is looked for

	maxLooksMessage = 1 << 17 // body of a message that Looks believes in
)

// Record is one record of a datagram.
type Record struct {
	Type    uint8  // as in TLS; ApplicationData for one of DTLS 1.3 that is encrypted
	Version uint16 // 0 in a record of DTLS 1.3 that is encrypted
	Epoch   uint16 // 0 is plaintext
	Length  int    // of the body, as the header has it
	Body    []byte // shorter than Length when the datagram is cut
}

// Next cuts the first record off a datagram. It is false when there is none. One
// with a connection ID is encrypted, and is taken to end where the next begins,
// or with the datagram.
func Next(b []byte) (r Record, rest []byte, ok bool) {
	if len(b) > 0 && b[0]>>5 == 1 { // DTLSCiphertext (RFC 9147, section 4): to the end, for us
		return Record{Type: tls.ApplicationData, Epoch: 1, Length: len(b), Body: b}, nil, true
	}
	if !begins(b) {
		return r, nil, false
	}
	r = Record{
		Type:    b[0],
		Version: binary.BigEndian.Uint16(b[1:]),
		Epoch:   binary.BigEndian.Uint16(b[3:]),
		Length:  int(binary.BigEndian.Uint16(b[11:])),
	}
	if r.Type == typeCID {
		rest = behind(b)
		r.Body = b[RecordHeader : len(b)-len(rest)]
		r.Length = len(r.Body)
		return r, rest, true
	}
	if r.Length > tls.MaxRecord {
		return r, nil, false
	}
	end := min(RecordHeader+r.Length, len(b))
	r.Body = b[RecordHeader:end]
	return r, b[end:], true
}

// isVersion reports whether records have this version by the documents: DTLS 1.0
// to 1.3, what OpenSSL had before them, DTLCP.
func isVersion(major, minor byte) bool {
	v := uint16(major)<<8 | uint16(minor)
	return v == tls.VersionDTLS12 || v == tls.VersionDTLS10 || v == tls.VersionDTLSOld || v == tls.VersionDTLS13 || v == tls.VersionTLCP
}

// ignored reports whether receivers may take a record of a hello in spite of this
// version (RFC 9147, section 4).
func ignored(major byte) bool { return major == tls.VersionDTLS12>>8 }

// Fragment is a piece of a handshake message (RFC 6347, section 4.2.2).
type Fragment struct {
	Type     uint8
	Length   int    // of the message's body
	Sequence uint16 // message_seq
	Offset   int    // of Body in the message's body
	Body     []byte // shorter than the header has it when the datagram is cut
	TLS13    bool   // it was in an encrypted record of DTLS 1.3
}

// Whole reports whether f is all of its message.
func (f *Fragment) Whole() bool { return f.Offset == 0 && len(f.Body) == f.Length }

// NextFragment13 cuts the first fragment off the content of an encrypted record
// of DTLS 1.3. It is false when there is none, or one whose lengths lie.
func NextFragment13(b []byte) (f Fragment, rest []byte, ok bool) {
	f, rest, ok = NextFragment(b)
	f.TLS13 = true
	return f, rest, ok
}

// NextFragment does the same for the body of a handshake record in plaintext.
// The type may be one that is not known.
func NextFragment(b []byte) (f Fragment, rest []byte, ok bool) {
	if len(b) < FragmentHeader {
		return f, nil, false
	}
	length := tls.Uint24(b[9:])
	f = Fragment{
		Type:     b[0],
		Length:   tls.Uint24(b[1:]),
		Sequence: binary.BigEndian.Uint16(b[4:]),
		Offset:   tls.Uint24(b[6:]),
	}
	if f.Offset+length > f.Length {
		return f, nil, false
	}
	end := min(FragmentHeader+length, len(b))
	f.Body = b[FragmentHeader:end]
	return f, b[end:], true
}

// Looks reports whether a UDP payload has in it a record of a DTLS handshake in
// plaintext: a handshake fragment whose lengths fit one another, a
// ChangeCipherSpec or an alert, of epoch 0. Records of application data and of
// later epochs do not count: they say nothing about a handshake.
func Looks(b []byte) bool { return Find(b) != nil }

// Find returns a UDP payload from its first record on that [Looks] like a handshake,
// nil when there is none. The bytes before it are records too: a receiver discards
// those that it cannot use, one by one (RFC 6347, section 4.1.2.7).
func Find(b []byte) []byte {
	for {
		if looks(b) {
			return b
		}
		if b = behind(b); b == nil {
			return nil
		}
	}
}

// behind returns what follows the record that b begins with, nil when nothing
// does. How long a connection ID is, is not in the record (RFC 9146, section 4):
// what follows must be the header of another.
func behind(b []byte) []byte {
	if !begins(b) {
		return nil
	}
	if b[0] != typeCID {
		if n := int(binary.BigEndian.Uint16(b[11:])); n <= tls.MaxRecord && RecordHeader+n < len(b) {
			return b[RecordHeader+n:]
		}
		return nil
	}
	for id := 0; id <= maxCID && RecordHeader+id <= len(b); id++ {
		next := RecordHeader + id + int(binary.BigEndian.Uint16(b[11+id:]))
		if next < len(b) && begins(b[next:]) {
			return b[next:]
		}
	}
	return nil
}

// begins reports whether b may begin with a record, other than those of DTLS 1.3
// that are encrypted.
func begins(b []byte) bool {
	return len(b) >= RecordHeader && b[0] >= tls.ChangeCipherSpec && b[0] <= maxType && (isVersion(b[1], b[2]) || ignored(b[1]))
}

// looks reports whether b begins with a record of a handshake.
func looks(b []byte) bool {
	if len(b) < RecordHeader+1 || b[0] < tls.ChangeCipherSpec || b[0] > tls.Handshake || binary.BigEndian.Uint16(b[3:]) != 0 {
		return false
	}
	length := int(binary.BigEndian.Uint16(b[11:]))
	body := b[RecordHeader:]
	if known := isVersion(b[1], b[2]); b[0] != tls.Handshake {
		if !known || binary.BigEndian.Uint16(b[5:]) != 0 { // more than 2^32 records
			return false
		}
	} else if !known && !ignored(b[1]) {
		return false
	}
	switch b[0] {
	case tls.ChangeCipherSpec: // with a number after it in the old version
		return body[0] == 1 && (length == 1 || length == 3 && b[1] == 1)
	case tls.Alert:
		return length == 2 && (body[0] == alertWarning || body[0] == alertFatal)
	}
	if length < FragmentHeader || length > tls.MaxRecord || len(body) < FragmentHeader ||
		tls.SenderOf(body[0]) == tls.Nobody {
		return false
	}
	message, offset, fragment := tls.Uint24(body[1:]), tls.Uint24(body[6:]), tls.Uint24(body[9:])
	return message <= maxLooksMessage && offset+fragment <= message && FragmentHeader+fragment <= length
}

const (
	alertWarning = 1
	alertFatal   = 2
)

// Starts reports whether a record in a UDP payload has the first fragment of the
// first ClientHello of a handshake.
func Starts(b []byte) bool { return Start(b) != nil }

// Start returns a UDP payload from the record on that [Starts] a handshake, nil
// when there is none.
func Start(b []byte) []byte {
	for b = Find(b); b != nil; b = Find(behind(b)) {
		body := b[RecordHeader:]
		if b[0] == tls.Handshake && body[0] == tls.TypeClientHello && body[4] == 0 && body[5] == 0 && tls.Uint24(body[6:]) == 0 {
			return b
		}
	}
	return nil
}
