package tls

import (
	"encoding/binary"
	"strings"
	"sync"

	"golang.org/x/crypto/cryptobyte"
)

// KeyExchange is how the parties of a cipher suite up to TLS 1.2 agree on a secret,
// as far as it tells what the server signs.
type KeyExchange uint8

// The ways.
const (
	ExchangeUnknown  KeyExchange = iota
	ExchangeRSA                  // encrypted with the key of the certificate, or with a temporary one that is signed (export)
	ExchangeRSAPSK               // likewise, with a pre-shared key, and never signed (RFC 4279, section 4)
	ExchangeStatic               // with the key of the certificate: Diffie-Hellman, GOST; never signed
	ExchangeDHE                  // signed
	ExchangeECDHE                // signed
	ExchangeSRP                  // signed (RFC 5054, section 2.5.3)
	ExchangeTLCP                 // signed in the way of GB/T 38636-2020
	ExchangeUnsigned             // the server has no certificate: anonymous, or with a pre-shared key or a password
)

// exchanges has the ways by the number of the suite.
var exchanges = sync.OnceValue(func() map[uint16]KeyExchange {
	m := make(map[uint16]KeyExchange)
	for suite, name := range suiteNames() {
		m[suite] = exchangeOf(suite, strings.TrimPrefix(name, "TLS_"))
	}
	return m
})

// exchangeOf tells the way by the name of a suite.
func exchangeOf(suite uint16, name string) KeyExchange {
	if !HasCertificate(suite) {
		return ExchangeUnsigned
	}
	if suite>>8 == 0xe0 { // TLCP (GB/T 38636-2020, section 6.4.5.2.1), and GM/T 0024 before it
		if strings.HasPrefix(name, "RSA_") {
			return ExchangeRSA
		}
		return ExchangeTLCP
	}
	for _, x := range []struct {
		prefix string
		way    KeyExchange
	}{
		{"RSA_PSK_", ExchangeRSAPSK},
		{"DHE_PSK_", ExchangeUnsigned},
		{"ECDHE_PSK_", ExchangeUnsigned},
		{"PSK_", ExchangeUnsigned},
		{"SRP_SHA_", ExchangeSRP},
		{"ECDHE_", ExchangeECDHE},
		{"DHE_", ExchangeDHE},
		{"DH_", ExchangeStatic},
		{"ECDH_", ExchangeStatic},
		{"GOSTR", ExchangeStatic},
		{"RSA_", ExchangeRSA},
	} {
		if strings.HasPrefix(name, x.prefix) {
			return x.way
		}
	}
	return ExchangeUnknown
}

// KeyExchangeOf is how the parties of suite agree on a secret. Suites of TLS 1.3
// do not say that, and are unknown.
func KeyExchangeOf(suite uint16) KeyExchange { return exchanges()[suite] }

// Signature is what a server has signed with the key of its certificate.
type Signature struct {
	Params int    // length of what is signed, from the beginning of the message
	Scheme uint16 // as in [event.Proof]: 0 before TLS 1.2
	Value  []byte
}

// ParseServerKeyExchange reads the body of a ServerKeyExchange that is signed. way is
// that of the suite; of an unknown suite ECDHE and DHE are tried. It is false where
// the body has another form, to the last byte.
func ParseServerKeyExchange(body []byte, way KeyExchange, version uint16) (x Signature, ok bool) {
	s := cryptobyte.String(body)
	switch way {
	case ExchangeECDHE: // RFC 8422, section 5.4
		ok = skipECParams(&s)
	case ExchangeDHE: // prime, generator, public value (RFC 5246, section 7.4.3)
		ok = skip16(&s, 3)
	case ExchangeRSA: // modulus, exponent (RFC 2246, section 7.4.3)
		ok = skip16(&s, 2)
	case ExchangeSRP: // prime, generator, salt, public value (RFC 5054, section 2.8.1)
		ok = skip16(&s, 2) && skip8(&s, 1) && skip16(&s, 1)
	case ExchangeUnknown:
		if x, ok = ParseServerKeyExchange(body, ExchangeECDHE, version); !ok {
			x, ok = ParseServerKeyExchange(body, ExchangeDHE, version)
		}
		return x, ok
	}
	if !ok {
		return x, false
	}
	x.Params = len(body) - len(s)
	return x, x.read(s, version == VersionTLS12 || version == VersionDTLS12)
}

// ParseCertificateVerify reads the body of a CertificateVerify of TLS 1.3 (RFC 8446,
// section 4.4.3).
func ParseCertificateVerify(body []byte) (x Signature, ok bool) { return x, x.read(body, true) }

// read reads a signature to the end of b, and its scheme if it has one before it.
func (x *Signature) read(b []byte, scheme bool) bool {
	s := cryptobyte.String(b)
	if scheme && !s.ReadUint16(&x.Scheme) {
		return false
	}
	return read16(&s, &x.Value) && len(s) == 0
}

// skip16 skips n values with two bytes of length before each, skip8 with one.
func skip16(s *cryptobyte.String, n int) bool {
	var b []byte
	for range n {
		if !read16(s, &b) {
			return false
		}
	}
	return true
}

func skip8(s *cryptobyte.String, n int) bool {
	var b []byte
	for range n {
		if !read8(s, &b) {
			return false
		}
	}
	return true
}

// skipECParams skips ServerECDHParams (RFC 8422, section 5.4; explicit curves as in
// RFC 4492, section 5.4).
func skipECParams(s *cryptobyte.String) bool {
	const (
		explicitPrime = 1
		explicitChar2 = 2
		namedCurve    = 3
		curve         = 5 // a, b, base, order, cofactor
		point         = 1
	)
	var kind uint8
	if !s.ReadUint8(&kind) {
		return false
	}
	switch kind {
	case explicitPrime:
		return skip8(s, 1+curve+point)
	case explicitChar2:
		var basis uint8
		if !s.Skip(2) || !s.ReadUint8(&basis) {
			return false
		}
		switch basis {
		case 1: // a trinomial
			return skip8(s, 1+curve+point)
		case 2: // a pentanomial
			return skip8(s, 3+curve+point)
		}
		return false
	case namedCurve:
		return s.Skip(2) && skip8(s, point)
	}
	return false
}

// ParseCertificateStatus is the OCSPResponse for the leaf in the body of a
// CertificateStatus (RFC 6066, section 8; RFC 6961, section 2.2), nil when there is
// none.
func ParseCertificateStatus(body []byte) []byte {
	const ocsp, multi = 1, 2
	s := cryptobyte.String(body)
	var kind uint8
	var response cryptobyte.String
	if !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&response) || len(s) > 0 {
		return nil
	}
	switch kind {
	case multi:
		list := response
		if !list.ReadUint24LengthPrefixed(&response) {
			return nil
		}
	case ocsp:
	default:
		return nil
	}
	if len(response) == 0 {
		return nil
	}
	return response
}

// LeafExtensions is what the extensions of the first certificate of a Certificate
// message of TLS 1.3 (RFC 8446, section 4.4.2) say of it: the stapled OCSPResponse
// and the SignedCertificateTimestampList (RFC 6962, section 3.3.1). Either is nil
// without one, or where its bytes are missing.
func (m *Message) LeafExtensions() (ocsp, scts []byte) {
	s := cryptobyte.String(m.Head)
	var context, leaf, block cryptobyte.String
	if !m.TLS13 || !s.ReadUint8LengthPrefixed(&context) || !s.Skip(3) ||
		!s.ReadUint24LengthPrefixed(&leaf) || !s.ReadUint16LengthPrefixed(&block) {
		return nil, nil
	}
	for rest := []byte(block); ; {
		typ, data, next, ok := NextExtension(rest)
		if !ok {
			return ocsp, scts
		}
		rest = next
		switch {
		case typ == extStatusRequest && ocsp == nil:
			ocsp = ParseCertificateStatus(data)
		case typ == extSCTs && scts == nil && len(data) > 0:
			scts = data
		}
	}
}

// retryHash is the type of the message that stands for the first ClientHello after a
// HelloRetryRequest (RFC 8446, section 4.4.1).
const retryHash = 254

// AppendHeader appends the header of a message with a body of n bytes.
func AppendHeader(b []byte, typ uint8, n int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(typ)<<24|uint32(n))
}

// AppendMessageHash appends the message that stands for the first ClientHello after a
// HelloRetryRequest, whose hash is hash.
func AppendMessageHash(b, hash []byte) []byte {
	return append(AppendHeader(b, retryHash, len(hash)), hash...)
}

// AppendVerifyContent appends what a server's CertificateVerify signs, where the hash
// of the handshake up to its Certificate is hash (RFC 8446, section 4.4.3).
func AppendVerifyContent(b, hash []byte) []byte {
	for range 64 {
		b = append(b, ' ')
	}
	b = append(b, "TLS 1.3, server CertificateVerify\x00"...)
	return append(b, hash...)
}
