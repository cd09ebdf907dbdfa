package tls

import "encoding/binary"

// Authorities calls yield with the distinguished names, in DER, of a
// CertificateRequest up to TLS 1.2 whose body begins with b (RFC 5246, section
// 7.4.4), as far as they are there. The lists of signature algorithms, which
// only TLS 1.2 has, is known by what fits.
func Authorities(b []byte, length int, yield func(name []byte) bool) {
	if len(b) == 0 || 1+int(b[0]) > len(b) {
		return
	}
	at := 1 + int(b[0])
	if at+2 > len(b) {
		return
	}
	n := int(binary.BigEndian.Uint16(b[at:]))
	if at+2+n != length { // signature algorithms
		if at += 2 + n; at+2 > len(b) {
			return
		}
		if n = int(binary.BigEndian.Uint16(b[at:])); at+2+n != length {
			return
		}
	}
	names(b[at+2:], yield)
}

// Authorities13 does the same for a CertificateRequest of TLS 1.3 (RFC 8446,
// sections 4.3.2 and 4.2.4).
func Authorities13(b []byte, yield func(name []byte) bool) {
	if len(b) == 0 || 1+int(b[0])+2 > len(b) {
		return
	}
	for rest := b[1+int(b[0])+2:]; ; {
		typ, data, next, ok := NextExtension(rest)
		if !ok {
			return
		}
		if typ == extAuthorities && len(data) >= 2 {
			names(data[2:], yield)
			return
		}
		rest = next
	}
}

// names calls yield with each of a list of names.
func names(b []byte, yield func(name []byte) bool) {
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		if 2+n > len(b) || !yield(b[2:2+n]) {
			return
		}
		b = b[2+n:]
	}
}
