package tls

import "encoding/binary"

// Message is a handshake message of which a run of bytes may be missing.
type Message struct {
	Type   uint8
	TLS13  bool   // it has the form of TLS 1.3, of the encrypted part
	Length int    // of the body, as the header has it
	Head   []byte // the body from its beginning; all of it when nothing is missing
	Tail   []byte // the part of the body that is there after the hole
	TailAt int    // offset of Tail in the body
}

// Whole reports whether the whole body is there.
func (m *Message) Whole() bool { return len(m.Head) >= m.Length }

// bytes are the n bytes at offset off of the body, nil when they are not all there.
func (m *Message) bytes(off, n int) []byte {
	if off+n <= len(m.Head) {
		return m.Head[off : off+n]
	}
	if off >= m.TailAt && off+n <= m.TailAt+len(m.Tail) {
		return m.Tail[off-m.TailAt : off-m.TailAt+n]
	}
	return nil
}

// Certificates calls yield with each certificate of a Certificate message (RFC
// 5246, section 7.4.2; RFC 8446, section 4.4.2), in the order sent. One that is
// not whole comes with whole false and with its bytes up to where it is cut, of
// which there may be none. It reports whether the list was well-formed as far
// as it is there.
func (m *Message) Certificates(yield func(der []byte, whole bool) bool) bool {
	first := 3
	if m.TLS13 {
		context := m.bytes(0, 1)
		if context == nil {
			return m.Length >= 4
		}
		first += 1 + int(context[0])
	}
	l := m.bytes(first-3, 3)
	if l == nil {
		return m.Length >= first
	}
	end := min(first+Uint24(l), m.Length) // not beyond the message, whatever the list says
	ok := end == first+Uint24(l)
	for off := first; off < end; {
		if off+3 > end {
			return false
		}
		l := m.bytes(off, 3)
		if l == nil {
			return ok
		}
		n := Uint24(l)
		off += 3
		if n == 0 {
			return false
		}
		if off+n > end { // a length that lies
			yield(m.from(off, end), false)
			return false
		}
		if der := m.bytes(off, n); der != nil {
			if !yield(der, true) {
				return ok
			}
		} else if !yield(m.from(off, off+n), false) {
			return ok
		}
		off += n
		if m.TLS13 { // the extensions of the certificate
			l := m.bytes(off, 2)
			if l == nil {
				return ok && off+2 <= end
			}
			off += 2 + int(binary.BigEndian.Uint16(l))
			ok = ok && off <= end
		}
	}
	return ok
}

// from is the run of the body from offset off, but not
// beyond end.
func (m *Message) from(off, end int) []byte {
	if off < len(m.Head) {
		return m.Head[off:min(end, len(m.Head))]
	}
	if off >= m.TailAt && off < m.TailAt+len(m.Tail) {
		return m.Tail[off-m.TailAt : min(end-m.TailAt, len(m.Tail))]
	}
	return nil
}
