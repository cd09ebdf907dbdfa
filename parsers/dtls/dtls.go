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

// Next cuts the first record off a datagram. It is false when there is none.
func Next(b []byte) (r Record, rest []byte, ok bool) {
	if len(b) > 0 && b[0]>>5 == 1 { // DTLSCiphertext (RFC 9147, section 4): to the end, for us
		return Record{Type: tls.ApplicationData, Epoch: 1, Length: len(b), Body: b}, nil, true
	}
	if len(b) < RecordHeader || b[0] < tls.ChangeCipherSpec || b[0] > 26 || !isVersion(b[1], b[2]) {
		return r, nil, false
	}
	r = Record{
		Type:    b[0],
		Version: binary.BigEndian.Uint16(b[1:]),
		Epoch:   binary.BigEndian.Uint16(b[3:]),
		Length:  int(binary.BigEndian.Uint16(b[11:])),
	}
	if r.Length > tls.MaxRecord {
		return r, nil, false
	}
	end := min(RecordHeader+r.Length, len(b))
	r.Body = b[RecordHeader:end]
	return r, b[end:], true
}

func isVersion(major, minor byte) bool {
	v := uint16(major)<<8 | uint16(minor)
	return v == tls.VersionDTLS12 || v == tls.VersionDTLS10 || v == tls.VersionDTLSOld || v == tls.VersionDTLS13
}

// Fragment is a piece of a handshake message (RFC 6347, section 4.2.2).
type Fragment struct {
	Type     uint8
	Length   int    // of the message's body
	Sequence uint16 // message_seq
	Offset   int    // of Body in the message's body
	Body     []byte // shorter than the header has it when the datagram is cut
	TLS13    bool   // it was in an encrypted record of DTLS 1.3
}

// Whole tells whether f is all of its message.
func (f *Fragment) Whole() bool { return f.Offset == 0 && len(f.Body) == f.Length }

// NextFragment cuts the first fragment off the body of a handshake record in
// plaintext. It is false when there is none, or one whose lengths lie.
func NextFragment(b []byte) (f Fragment, rest []byte, ok bool) {
	if len(b) == 0 || tls.SenderOf(b[0]) == tls.Nobody {
		return f, nil, false
	}
	return nextFragment(b)
}

// NextFragment13 does the same for the content of an encrypted record of DTLS 1.3,
// where messages of any type may be.
func NextFragment13(b []byte) (f Fragment, rest []byte, ok bool) {
	f, rest, ok = nextFragment(b)
	f.TLS13 = true
	return f, rest, ok
}

func nextFragment(b []byte) (f Fragment, rest []byte, ok bool) {
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

// Looks tells whether a UDP payload begins with a record of a DTLS handshake in
// plaintext: a handshake fragment whose lengths fit one another, a
// ChangeCipherSpec or an alert, of epoch 0. Records of application data and of
// later epochs do not count: they say nothing about a handshake.
func Looks(b []byte) bool {
	if len(b) < RecordHeader+1 || b[0] < tls.ChangeCipherSpec || b[0] > tls.Handshake || !isVersion(b[1], b[2]) ||
		binary.BigEndian.Uint32(b[3:]) != 0 { // epoch 0, and fewer than 2^32 records
		return false
	}
	length := int(binary.BigEndian.Uint16(b[11:]))
	body := b[RecordHeader:]
	switch b[0] {
	case tls.ChangeCipherSpec: // with a number after it in the old version
		return body[0] == 1 && (length == 1 || length == 3 && b[1] == 1)
	case tls.Alert:
		return length == 2 && (body[0] == 1 || body[0] == 2)
	}
	if length < FragmentHeader || length > tls.MaxRecord || len(body) < FragmentHeader ||
		tls.SenderOf(body[0]) == tls.Nobody {
		return false
	}
	message, offset, fragment := tls.Uint24(body[1:]), tls.Uint24(body[6:]), tls.Uint24(body[9:])
	return message <= maxLooksMessage && offset+fragment <= message && FragmentHeader+fragment <= length &&
		(fragment > 0 || message == 0)
}

// Starts tells whether a UDP payload begins with the first fragment of the
// first ClientHello of a handshake.
func Starts(b []byte) bool {
	if !Looks(b) || b[0] != tls.Handshake {
		return false
	}
	body := b[RecordHeader:]
	return body[0] == tls.TypeClientHello && body[4] == 0 && body[5] == 0 && tls.Uint24(body[6:]) == 0
}
