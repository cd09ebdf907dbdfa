package tls13

import (
	"encoding/binary"
	"slices"
)

// MaxCiphertext is the longest body of a protected record (RFC 8446, section
// 5.2).
const MaxCiphertext = 1<<14 + 256

// tried is how many record numbers ahead of the next are tried where records
// may be missing: each costs an attempt to decrypt.
const tried = 32

// Stream removes the protection from the records of one sender over TCP.
type Stream struct {
	seals []seal // of the suites that it may be; one when that is known
	next  uint64 // number of the next record
	bare  bool   // the header of records is not authenticated
	nonce [12]byte
}

// candidates are the suites to try with a secret of n bytes. One that does not fit
// the suite is a wrong one, which no record will open to.
func candidates(suite uint16, n int) []*Suite {
	if l := Suites(suite, n); l != nil {
		return l
	}
	return Suites(0, n)
}

// NewStream makes a Stream of the sender's traffic secret, which is not kept.
// suite is the number of the cipher suite, 0 when that is not known: the first
// record that opens then tells. version is that which was negotiated, for the
// drafts differ. It is nil for a secret
// of a length that no suite has.
func NewStream(secret []byte, suite, version uint16) *Stream {
	const draft, bareSince, bareUntil = 0x7f00, 20, 24
	s := &Stream{bare: version >= draft+bareSince && version <= draft+bareUntil}
	for _, suite := range candidates(suite, len(secret)) {
		if k, ok := newSeal(suite, secret, "tls13 "); ok {
			s.seals = append(s.seals, k)
		}
	}
	if len(s.seals) == 0 {
		return nil
	}
	return s
}

// Proved reports whether a record was opened: the secret is right.
func (s *Stream) Proved() bool { return s.next > 0 }

// Open decrypts the next record, its header being header, and appends its
// content to dst, without the padding. gap says that records before it may be
// missing. It is false when the record is not one of this secret's; it may still
// be one of another secret of the same sender, and does not count.
func (s *Stream) Open(dst, header, body []byte, gap bool) (typ uint8, content []byte, ok bool) {
	if s.bare {
		header = nil
	}
	last := s.next
	if gap {
		last += tried
	}
	dst = slices.Grow(dst, len(body))
	for seq := s.next; seq <= last; seq++ {
		for i := range s.seals {
			plain, ok := s.seals[i].open(dst, &s.nonce, seq, body, header)
			if !ok {
				continue
			}
			s.seals = s.seals[i : i+1]
			s.next = seq + 1
			return strip(dst, plain)
		}
	}
	return 0, dst, false
}

// strip takes the content type and the padding off a TLSInnerPlaintext (RFC
// 8446, section 5.2), which is appended to dst.
func strip(dst, plain []byte) (typ uint8, content []byte, ok bool) {
	for n := len(plain); n > len(dst); n-- {
		if plain[n-1] != 0 {
			return plain[n-1], plain[:n-1], true
		}
	}
	return 0, dst, false
}

// Datagrams removes the protection from the records of one sender over UDP
// (RFC 9147, section 4.2), at one epoch.
type Datagrams struct {
	seals  []seal
	masks  []*Mask
	next   uint64 // the record number after the greatest that was opened
	header []byte
	nonce  [12]byte
	mask   [SampleLength]byte
}

// NewDatagrams makes a Datagrams of the sender's traffic secret, which is not
// kept; suite as in [NewStream].
func NewDatagrams(secret []byte, suite uint16) *Datagrams {
	const prefix = "dtls13" // without a space (RFC 9147, section 5.9)
	s := new(Datagrams)
	for _, suite := range candidates(suite, len(secret)) {
		k, ok := newSeal(suite, secret, prefix)
		if !ok {
			continue
		}
		m, err := NewMask(suite, ExpandLabel(suite.Hash, secret, prefix+"sn", suite.Key))
		if err != nil {
			continue
		}
		s.seals, s.masks = append(s.seals, k), append(s.masks, m)
	}
	if len(s.seals) == 0 {
		return nil
	}
	return s
}

// Open decrypts r and appends its content to dst, without the padding. It is
// false when r is not one of this secret's.
func (s *Datagrams) Open(dst []byte, r *Unified) (typ uint8, content []byte, ok bool) {
	if len(r.Body) < SampleLength {
		return 0, dst, false
	}
	dst = slices.Grow(dst, len(r.Body))
	for i := range s.seals {
		if !s.masks[i].Of(r.Body, &s.mask) {
			continue
		}
		s.header = append(s.header[:0], r.Header...)
		truncated := uint64(0)
		for j := range r.number {
			s.header[r.numberAt+j] ^= s.mask[j]
			truncated = truncated<<8 | uint64(s.header[r.numberAt+j])
		}
		seq := Number(s.next, truncated, 8*r.number)
		plain, ok := s.seals[i].open(dst, &s.nonce, seq, r.Body, s.header)
		if !ok {
			continue
		}
		s.seals, s.masks = s.seals[i:i+1], s.masks[i:i+1]
		s.next = max(s.next, seq+1)
		return strip(dst, plain)
	}
	return 0, dst, false
}

// Number is the number nearest to expected whose low bits are truncated (RFC
// 9000, appendix A.3; RFC 9147, section 4.2.2).
func Number(expected, truncated uint64, bits int) uint64 {
	window := uint64(1) << bits
	candidate := expected&^(window-1) | truncated
	switch {
	case candidate+window/2 <= expected && candidate < 1<<62-window:
		return candidate + window
	case candidate > expected+window/2 && candidate >= window:
		return candidate - window
	}
	return candidate
}

// Unified is a DTLSCiphertext: a record with the unified header of DTLS 1.3
// (RFC 9147, section 4). The slices point into the datagram.
type Unified struct {
	Epoch  uint8  // the low two bits
	Bytes  []byte // all of it
	Header []byte // as on the wire, with the record number encrypted
	Body   []byte // the encrypted record

	number, numberAt int // bytes of the record number, and where it is in Header
}

// IsUnified reports whether b may begin with a record that has the unified header.
func IsUnified(b []byte) bool { return len(b) > 0 && b[0]>>5 == 1 }

// NextUnified cuts the first record off a datagram. id is the length of the
// connection IDs that the receiver asked for, 0 when it did not. It is false when
// there is no such record, or when it is cut.
func NextUnified(b []byte, id int) (r Unified, rest []byte, ok bool) {
	const withID, longNumber, withLength = 0x10, 0x08, 0x04
	if !IsUnified(b) {
		return r, nil, false
	}
	first := b[0]
	at := 1
	if first&withID != 0 {
		at += id
	}
	r.Epoch, r.numberAt, r.number = first&3, at, 1
	if first&longNumber != 0 {
		r.number = 2
	}
	at += r.number
	end := len(b)
	if first&withLength != 0 {
		if at+2 > len(b) {
			return r, nil, false
		}
		at += 2
		end = at + int(binary.BigEndian.Uint16(b[at-2:]))
	}
	if at > len(b) || end > len(b) || end-at > MaxCiphertext {
		return r, nil, false
	}
	r.Bytes, r.Header, r.Body = b[:end:end], b[:at:at], b[at:end:end]
	return r, b[end:], true
}
