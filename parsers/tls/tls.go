// Package tls reads the plaintext of TLS: record headers, hellos, certificate
// lists and what else a handshake shows (RFC 8446, RFC 5246, RFC 6101). Bytes
// in, structs out: it keeps no state, and what it returns points into what it
// was given unless it says otherwise.
package tls

import "encoding/binary"

// The record content types (RFC 8446, section 5.1; RFC 6520).
const (
	ChangeCipherSpec = 20
	Alert            = 21
	Handshake        = 22
	ApplicationData  = 23
	Heartbeat        = 24
)

// The handshake message types (RFC 8446, section B.3, and those before it).
const (
	HelloRequest       = 0
	TypeClientHello    = 1
	TypeServerHello    = 2
	HelloVerifyRequest = 3
	NewSessionTicket   = 4
	HelloRetryRequest  = 6 // drafts of TLS 1.3 before 22
	Certificate        = 11
	ServerKeyExchange  = 12
	CertificateRequest = 13
	ServerHelloDone    = 14
	CertificateVerify  = 15
	ClientKeyExchange  = 16
	Finished           = 20
	CertificateURL     = 21
	CertificateStatus  = 22
	SupplementalData   = 23

	// Those that TLS 1.3 has in its encrypted part alone.
	EncryptedExtensions   = 8
	CompressedCertificate = 25 // RFC 8879
)

// The protocol versions.
const (
	VersionSSL2     = 0x0002
	VersionSSL30    = 0x0300
	VersionTLS10    = 0x0301
	VersionTLS12    = 0x0303
	VersionTLS13    = 0x0304
	VersionTLCP     = 0x0101 // TLCP and DTLCP (GB/T 38636-2020, section 6.4.5.2.1)
	VersionDTLSOld  = 0x0100 // of OpenSSL before the RFC, which AnyConnect still speaks
	VersionDTLS10   = 0xfeff
	VersionDTLS12   = 0xfefd
	VersionDTLS13   = 0xfefc
	draftsTLS13     = 0x7f // high byte of the versions of TLS 1.3's drafts
	draftsTLS13Fizz = 0xfb // high byte of Facebook's
)

const (
	// RecordHeader is the length of a record's header.
	RecordHeader = 5
	// MessageHeader is the length of a handshake message's header.
	MessageHeader = 4
	// MaxRecord is the longest body of a record: TLSCiphertext of RFC 5246,
	// section 6.2.3.
	MaxRecord = 1<<14 + 2048

	randomLength = 32
)

// Is13 reports whether v, a negotiated version, is TLS or DTLS 1.3 or a draft of
// it: all after the ServerHello is encrypted.
func Is13(v uint16) bool {
	return v == VersionTLS13 || v == VersionDTLS13 || v>>8 == draftsTLS13 || v>>8 == draftsTLS13Fizz
}

// IsEarlyDraft reports whether v is a draft of TLS 1.3 before 23, the first whose
// handshake is that of the standard.
func IsEarlyDraft(v uint16) bool { return v>>8 == draftsTLS13 && v&0xff < 23 }

// Levels and descriptions of alerts (RFC 8446, section 6).
const (
	AlertWarning      = 1
	AlertFatal        = 2
	AlertCloseNotify  = 0
	AlertUserCanceled = 90
)

// IsGREASE reports whether v is one of the values that mean nothing (RFC 8701).
func IsGREASE(v uint16) bool {
	return v&0x0f0f == 0x0a0a && v>>8 == v&0xff
}

// IsRecord reports whether h, of at least [RecordHeader] bytes, may be the header
// of a record: a known type, a known version, a length that is allowed.
func IsRecord(h []byte) bool {
	return IsContentType(h[0]) && IsVersion(h[1], h[2]) && RecordLength(h) <= MaxRecord
}

// IsContentType reports whether t is a content type that is known.
func IsContentType(t uint8) bool { return t >= ChangeCipherSpec && t <= Heartbeat }

// IsVersion reports whether records have this version by the documents: 3.0 to
// 3.4, or that of TLCP. What receivers do with others, see [AnyVersion].
func IsVersion(major, minor uint8) bool {
	return major == 3 && minor <= 4 || major == VersionTLCP>>8 && minor == VersionTLCP&0xff
}

// AnyVersion reports whether a receiver may take a record of this major version
// where it expects a hello. Servers must accept {03,XX} (RFC 5246, section E.1),
// and everybody is to ignore the version (RFC 8446, section 5.1); of those in
// use, GnuTLS takes what is not above 3, and Go what is below 16.
func AnyVersion(major uint8) bool { return major < 16 }

// RecordLength is the length of the body that follows h, of at least
// [RecordHeader] bytes.
func RecordLength(h []byte) int { return int(binary.BigEndian.Uint16(h[3:])) }

// Uint24 reads the first three bytes of b.
func Uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// Sender says who sends messages of a type.
type Sender uint8

// The senders.
const (
	Nobody Sender = iota // the type is unknown
	Either
	Client
	Server
)

// SenderOf says who sends handshake messages of type t in plaintext; Nobody
// when the type is not known.
func SenderOf(t uint8) Sender {
	switch t {
	case TypeClientHello, ClientKeyExchange, CertificateVerify, CertificateURL:
		return Client
	case HelloRequest, TypeServerHello, HelloVerifyRequest, NewSessionTicket, HelloRetryRequest,
		ServerKeyExchange, CertificateRequest, ServerHelloDone, CertificateStatus:
		return Server
	case Certificate, Finished, SupplementalData:
		return Either
	}
	return Nobody
}

// NamedCurve is the named curve of an ECDHE ServerKeyExchange whose body begins
// with b (RFC 8422, section 5.4), 0 when there is none. A finite-field exchange
// begins with a length where the curve's type would be; its prime never looks
// like the number of a curve.
func NamedCurve(b []byte) uint16 {
	const namedCurve = 3
	if len(b) < 3 || b[0] != namedCurve {
		return 0
	}
	if c := binary.BigEndian.Uint16(b[1:]); c >= 1 && c <= 41 {
		return c
	}
	return 0
}

// IsIdentityBased reports whether the keys of suite are those of identities (GB/T
// 38636-2020, section 6.4.5.2.1): its Certificate message has an identity and
// parameters in it, and no certificate.
func IsIdentityBased(suite uint16) bool {
	switch suite {
	case 0xe005, 0xe007, 0xe015, 0xe017, 0xe055, 0xe057: // IBSDH and IBC
		return true
	}
	return false
}

// HasCertificate reports whether servers that chose suite authenticate with a
// certificate, as far as TLS 1.2 goes: not with anonymous, pre-shared,
// Kerberos or password-only key exchange. Suites that are not known have one.
func HasCertificate(suite uint16) bool {
	switch s := suite; {
	case s == 0x0000, // NULL_WITH_NULL_NULL
		s >= 0x0017 && s <= 0x001b, // DH_anon
		s >= 0x001e && s <= 0x002b, // KRB5
		s == 0x002c, s == 0x002d,   // PSK, DHE_PSK
		s == 0x0034, s == 0x003a, s == 0x0046, s == 0x006c, s == 0x006d, s == 0x0089, // DH_anon
		s >= 0x008a && s <= 0x0091,            // PSK, DHE_PSK
		s == 0x009b, s == 0x00a6, s == 0x00a7, // DH_anon
		s >= 0x00a8 && s <= 0x00ab, // PSK, DHE_PSK
		s >= 0x00ae && s <= 0x00b5, // PSK, DHE_PSK
		s == 0x00bf, s == 0x00c5,   // DH_anon
		s >= 0xc015 && s <= 0xc019,            // ECDH_anon
		s == 0xc01a, s == 0xc01d, s == 0xc020, // SRP_SHA
		s >= 0xc033 && s <= 0xc03b, // ECDHE_PSK
		s == 0xc046, s == 0xc047,   // DH_anon
		s == 0xc05a, s == 0xc05b, // DH_anon
		s >= 0xc064 && s <= 0xc067, // PSK, DHE_PSK
		s >= 0xc06a && s <= 0xc06d, // PSK, DHE_PSK
		s == 0xc070, s == 0xc071,   // ECDHE_PSK
		s == 0xc084, s == 0xc085, // DH_anon
		s >= 0xc08e && s <= 0xc091, // PSK, DHE_PSK
		s >= 0xc094 && s <= 0xc097, // PSK, DHE_PSK
		s == 0xc09a, s == 0xc09b,   // ECDHE_PSK
		s >= 0xc0a4 && s <= 0xc0ab,            // PSK, DHE_PSK
		s >= 0xc0b0 && s <= 0xc0b3,            // ECCPWD
		s == 0xccab, s == 0xccac, s == 0xccad, // PSK, ECDHE_PSK, DHE_PSK
		s >= 0xd001 && s <= 0xd005: // ECDHE_PSK
		return false
	}
	return true
}
