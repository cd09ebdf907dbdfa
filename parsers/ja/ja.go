// Package ja makes the fingerprints of hellos: JA3 and JA3S
// (https://github.com/salesforce/ja3) and the JA4 of a client
// (https://github.com/FoxIO-LLC/ja4). [Lists] decodes a ClientHello into what
// the fingerprints are made of.
package ja

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/dreadl0ck/tlsx"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// Transport is what carries the handshake, as the first letter of JA4 says it.
type Transport byte

// The transports that JA4 distinguishes.
const (
	TCP  Transport = 't'
	QUIC Transport = 'q'
	DTLS Transport = 'd'
)

// Lists decodes the lists of h, in the order sent, with the values of GREASE.
// They own their memory. The fingerprints are left empty. tlsx decodes h where it
// is well-formed enough for tlsx to read it right; what tlsx does not know, and
// hellos with oddities on which it fails, are read here.
func Lists(h *tls.ClientHello) event.Offer {
	l := event.Offer{Version: h.Version, SupportedVersions: uint16s(h.SupportedVersions)}
	if x, ok := decode(h); ok {
		for _, c := range x.CipherSuites {
			l.CipherSuites = append(l.CipherSuites, uint16(c))
		}
		l.Extensions = x.AllExtensions
		l.SupportedGroups = x.SupportedGroups
		l.PointFormats = x.SupportedPoints
		l.SignatureAlgorithms = x.SignatureAlgs
		l.ALPN = x.ALPNs
		return l
	}
	l.CipherSuites = uint16s(h.CipherSuites)
	for rest := h.Extensions; len(rest) > 0; {
		typ, _, next, ok := tls.NextExtension(rest)
		if !ok {
			break
		}
		l.Extensions = append(l.Extensions, typ)
		rest = next
	}
	l.SupportedGroups = uint16s(h.SupportedGroups)
	l.PointFormats = slices.Clone(h.PointFormats)
	l.SignatureAlgorithms = uint16s(h.SignatureAlgorithms)
	for rest := h.ALPN; len(rest) > 0 && len(rest) > int(rest[0]); rest = rest[1+int(rest[0]):] {
		l.ALPN = append(l.ALPN, string(rest[1:1+int(rest[0])]))
	}
	return l
}

// decode decodes h with tlsx when that is safe and right.
func decode(h *tls.ClientHello) (x tlsx.ClientHello, ok bool) {
	if h.Datagram || !h.Whole || !readable(h) {
		return x, false
	}
	err := x.Unmarshal(record(tls.TypeClientHello, h.Body))
	return x, err == nil
}

// readable reports whether tlsx would decode h, which is whole, without slicing
// past its input and without a mistake. tlsx believes the lengths inside
// extensions, overflows on extensions of nearly 65,535 bytes, takes all that
// follows the first server name for a part of it, and adds up the lists of
// repeated extensions.
func readable(h *tls.ClientHello) bool {
	const longest = 1<<16 - 1 - 4
	if len(h.CipherSuites)%2 != 0 || len(h.Body) > longest {
		return false
	}
	var seen uint32 // bit i is extension i
	for rest := h.Extensions; len(rest) > 0; {
		typ, data, next, ok := tls.NextExtension(rest)
		if !ok {
			return false
		}
		rest = next
		switch typ {
		case tls.ExtServerName:
			ok = h.ServerName != nil && len(data) == 5+len(h.ServerName) && data[2] == 0
		case tls.ExtSupportedGroups:
			ok = len(h.SupportedGroups)%2 == 0 && len(data) == 2+len(h.SupportedGroups)
		case tls.ExtSignatureAlgorithms:
			ok = len(h.SignatureAlgorithms)%2 == 0 && len(data) == 2+len(h.SignatureAlgorithms)
		case tls.ExtPointFormats:
			ok = len(data) == 1+len(h.PointFormats)
		case tls.ExtALPN:
			ok = len(data) == 2+len(h.ALPN)
			for names := h.ALPN; ok && len(names) > 0; {
				if ok = len(names) > int(names[0]); ok {
					names = names[1+int(names[0]):]
				}
			}
		}
		if !ok || typ < 32 && seen>>typ&1 == 1 {
			return false
		}
		if typ < 32 {
			seen |= 1 << typ
		}
	}
	return true
}

// record is a handshake message in one record, as tlsx wants it.
func record(typ uint8, body []byte) []byte {
	b := make([]byte, 0, tls.RecordHeader+tls.MessageHeader+len(body))
	n := len(body)
	b = append(b, tls.Handshake, 3, 1, byte((n+tls.MessageHeader)>>8), byte(n+tls.MessageHeader),
		typ, byte(n>>16), byte(n>>8), byte(n))
	return append(b, body...)
}

// JA3 is the fingerprint of the ClientHello with the lists l, an MD5 in 32
// lower-case hex digits, and the string that it hashes.
func JA3(l *event.Offer) (hash, raw string) {
	b := strconv.AppendUint(nil, uint64(l.Version), 10)
	b = appendDecimals(append(b, ','), l.CipherSuites)
	b = appendDecimals(append(b, ','), l.Extensions)
	b = appendDecimals(append(b, ','), l.SupportedGroups)
	b = append(b, ',')
	for i, p := range l.PointFormats {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(p), 10)
	}
	return md5hex(b), string(b)
}

// JA3S is the fingerprint of a ServerHello, an MD5 in 32 lower-case hex digits,
// and the string that it hashes. tlsx decodes the message where it is whole.
func JA3S(h *tls.ServerHello) (hash, raw string) {
	version, suite, extensions := h.LegacyVersion, h.CipherSuite, []uint16(nil)
	var x tlsx.ServerHelloBasic
	if h.Whole && !h.Draft() && x.Unmarshal(record(tls.TypeServerHello, h.Body)) == nil {
		version, suite, extensions = x.Vers, x.CipherSuite, x.Extensions
	} else {
		for rest := h.Extensions; len(rest) > 0; {
			typ, _, next, ok := tls.NextExtension(rest)
			if !ok {
				break
			}
			extensions = append(extensions, typ)
			rest = next
		}
	}
	b := strconv.AppendUint(nil, uint64(version), 10)
	b = strconv.AppendUint(append(b, ','), uint64(suite), 10)
	b = appendDecimals(append(b, ','), extensions)
	return md5hex(b), string(b)
}

// JA4 is the fingerprint of the ClientHello with the lists l (FoxIO-LLC/ja4,
// technical_details/JA4.md), such as t13d1516h2_8daaf6152771_e5627efa2ab1.
func JA4(l *event.Offer, over Transport) string {
	suites := withoutGREASE(l.CipherSuites)
	extensions := withoutGREASE(l.Extensions)
	sni := byte('i')
	if slices.Contains(extensions, tls.ExtServerName) {
		sni = 'd'
	}
	b := append(make([]byte, 0, 36), byte(over))
	b = append(b, ja4Version(l)...)
	b = append(b, sni)
	b = appendCount(b, len(suites))
	b = appendCount(b, len(extensions))
	b = append(b, ja4ALPN(l.ALPN)...)

	sortCodes(suites)
	b = appendHash(append(b, '_'), appendHex(nil, suites))

	extensions = slices.DeleteFunc(extensions, func(e uint16) bool { return e == tls.ExtServerName || e == tls.ExtALPN })
	sortCodes(extensions)
	c := appendHex(nil, extensions)
	if algorithms := withoutGREASE(l.SignatureAlgorithms); len(c) > 0 && len(algorithms) > 0 {
		c = appendHex(append(c, '_'), algorithms)
	}
	return string(appendHash(append(b, '_'), c))
}

// sortCodes sorts l. A hello has room for 32,767 suites in any order: from some
// number on they are counted, byte by byte, which costs each the same.
func sortCodes(l []uint16) {
	const many = 256
	if len(l) < many {
		slices.Sort(l)
		return
	}
	from, to := l, make([]uint16, len(l))
	for shift := 0; shift < 16; shift += 8 {
		var at [256]int // where the next with that byte goes
		for _, v := range from {
			at[byte(v>>shift)]++
		}
		sum := 0
		for b, n := range at {
			at[b], sum = sum, sum+n
		}
		for _, v := range from {
			b := byte(v >> shift)
			to[at[b]] = v
			at[b]++
		}
		from, to = to, from
	}
}

// ja4Version is the highest version that the client offers. Those of DTLS count
// down.
func ja4Version(l *event.Offer) string {
	version := l.Version
	if offered := withoutGREASE(l.SupportedVersions); len(offered) > 0 {
		version = slices.MaxFunc(offered, func(a, b uint16) int {
			if a>>8 == 0xfe && b>>8 == 0xfe {
				return int(b) - int(a)
			}
			return int(a) - int(b)
		})
	}
	switch version {
	case tls.VersionTLS13:
		return "13"
	case tls.VersionTLS12:
		return "12"
	case 0x0302:
		return "11"
	case tls.VersionTLS10:
		return "10"
	case tls.VersionSSL30:
		return "s3"
	case tls.VersionSSL2:
		return "s2"
	case tls.VersionDTLS10:
		return "d1"
	case tls.VersionDTLS12:
		return "d2"
	case tls.VersionDTLS13:
		return "d3"
	}
	return "00"
}

// ja4ALPN is the first and the last character of the first protocol, or of its
// bytes in hex where one of the two is not alphanumeric.
func ja4ALPN(protocols []string) string {
	if len(protocols) == 0 || protocols[0] == "" {
		return "00"
	}
	p := protocols[0]
	first, last := p[0], p[len(p)-1]
	if !alphanumeric(first) || !alphanumeric(last) {
		const digits = "0123456789abcdef"
		first, last = digits[first>>4], digits[last&15]
	}
	return string([]byte{first, last})
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// appendCount appends n in two digits.
func appendCount(b []byte, n int) []byte {
	n = min(n, 99)
	return append(b, byte('0'+n/10), byte('0'+n%10))
}

// appendHash appends the first 12 hex digits of the SHA-256 of what, or zeros
// for nothing.
func appendHash(b, what []byte) []byte {
	if len(what) == 0 {
		return append(b, "000000000000"...)
	}
	h := sha256.Sum256(what)
	return hex.AppendEncode(b, h[:6])
}

func appendHex(b []byte, list []uint16) []byte {
	b = slices.Grow(b, 5*len(list))
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
	}
	return b
}

// appendDecimals appends the values that are not GREASE, with dashes between.
func appendDecimals(b []byte, list []uint16) []byte {
	b = slices.Grow(b, 6*len(list))
	first := true
	for _, v := range list {
		if tls.IsGREASE(v) {
			continue
		}
		if !first {
			b = append(b, '-')
		}
		first = false
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return b
}

func withoutGREASE(list []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(list), tls.IsGREASE)
}

func uint16s(list []byte) []uint16 {
	if len(list) < 2 {
		return nil
	}
	l := make([]uint16, 0, len(list)/2)
	for ; len(list) >= 2; list = list[2:] {
		l = append(l, binary.BigEndian.Uint16(list))
	}
	return l
}

func md5hex(b []byte) string {
	h := md5.Sum(b)
	return hex.EncodeToString(h[:])
}
