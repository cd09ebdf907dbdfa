package tls

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// The extensions that are looked into (IANA, TLS ExtensionType Values).
const (
	ExtServerName          = 0
	ExtSupportedGroups     = 10
	ExtPointFormats        = 11
	ExtSignatureAlgorithms = 13
	ExtALPN                = 16
	extStatusRequest       = 5
	extSCTs                = 18
	extClientCertType      = 19
	extServerCertType      = 20
	extPreSharedKey        = 41
	extEarlyData           = 42
	extSupportedVersions   = 43
	extAuthorities         = 47
	extKeyShare            = 51
	extConnectionIDDraft   = 53 // draft-ietf-tls-dtls-connection-id before 09
	extConnectionID        = 54
)

// rawPublicKey is the certificate type of a key without a certificate
// (RFC 7250, section 3).
const rawPublicKey = 2

// retryRandom is the random value of a ServerHello that is a
// HelloRetryRequest (RFC 8446, section 4.1.3).
var retryRandom = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// ClientHello is a view of a ClientHello: the slices point into the message.
// Lists are as on the wire, without the length before them; those of an
// extension that is absent, or malformed, are nil.
type ClientHello struct {
	Version             uint16 // legacy_version
	Random              []byte // 32 bytes
	SessionID           []byte
	Cookie              []byte // DTLS only
	CipherSuites        []byte // 2 bytes each
	Compressions        []byte
	Extensions          []byte // type, length and data of each
	ServerName          []byte // the first host_name
	ALPN                []byte // ProtocolName list, 1 byte of length before each
	SupportedVersions   []byte // 2 bytes each
	SupportedGroups     []byte // 2 bytes each
	PointFormats        []byte // 1 byte each
	SignatureAlgorithms []byte // 2 bytes each
	ConnectionID        []byte // DTLS: what the records to the client are to have (RFC 9146)
	EarlyData           bool   // early data follows, before the server has answered

	// Whole says that the whole message was there, with every length in
	// place; without it the fields are as far as the bytes went.
	Whole bool

	Body     []byte // the message
	Datagram bool   // it came over DTLS, which has a cookie
}

// ParseClientHello reads the body of a ClientHello (RFC 8446, section 4.1.2;
// with a cookie when datagram, RFC 6347, section 4.2.1) as far as it goes. It
// is false when there are not even the version and the random value.
func ParseClientHello(body []byte, datagram bool) (h ClientHello, ok bool) {
	h.Body, h.Datagram = body, datagram
	s := cryptobyte.String(body)
	if !s.ReadUint16(&h.Version) || !s.ReadBytes(&h.Random, randomLength) {
		return h, false
	}
	if !read8(&s, &h.SessionID) || datagram && !read8(&s, &h.Cookie) ||
		!read16(&s, &h.CipherSuites) || !read8(&s, &h.Compressions) {
		return h, true
	}
	if len(s) == 0 { // SSL 3.0 to TLS 1.2 may go without
		h.Whole = true
		return h, true
	}
	var length uint16
	s.ReadUint16(&length)
	h.Whole = int(length) == len(s)
	h.extensions(s[:min(int(length), len(s))])
	return h, true
}

// extensions reads the block of extensions.
func (h *ClientHello) extensions(block []byte) {
	rest := block
	for len(rest) > 0 {
		typ, data, next, ok := NextExtension(rest)
		if !ok {
			h.Whole = false
			break
		}
		rest = next
		switch typ {
		case ExtServerName:
			if h.ServerName == nil {
				h.ServerName = serverName(data)
			}
		case ExtSupportedGroups:
			list(&h.SupportedGroups, data, 2)
		case ExtSignatureAlgorithms:
			list(&h.SignatureAlgorithms, data, 2)
		case ExtALPN:
			list(&h.ALPN, data, 2)
		case ExtPointFormats:
			list(&h.PointFormats, data, 1)
		case extSupportedVersions:
			list(&h.SupportedVersions, data, 1)
		case extConnectionID, extConnectionIDDraft:
			list(&h.ConnectionID, data, 1)
		case extEarlyData:
			h.EarlyData = true
		}
	}
	h.Extensions = block[:len(block)-len(rest)]
}

// list sets the list that is the whole of data, after a length of n bytes,
// when it is not set yet.
func list(dst *[]byte, data cryptobyte.String, n int) {
	var l []byte
	ok := n == 1 && read8(&data, &l) || n == 2 && read16(&data, &l)
	if ok && len(data) == 0 && *dst == nil {
		*dst = l
	}
}

// serverName is the first host_name in the data of a server_name extension
// (RFC 6066, section 3), nil when there is none.
func serverName(data cryptobyte.String) []byte {
	var names cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&names) {
		return nil
	}
	for len(names) > 0 {
		var kind uint8
		var name []byte
		if !names.ReadUint8(&kind) || !read16(&names, &name) {
			return nil
		}
		if kind == 0 && len(name) > 0 {
			return name
		}
	}
	return nil
}

// Offers13 reports whether the client would speak TLS 1.3 or a draft of it.
func (h *ClientHello) Offers13() bool {
	for l := h.SupportedVersions; len(l) >= 2; l = l[2:] {
		if v := binary.BigEndian.Uint16(l); !IsGREASE(v) && Is13(v) {
			return true
		}
	}
	return false
}

// NextExtension cuts the first extension off a block of them.
func NextExtension(block []byte) (typ uint16, data, rest []byte, ok bool) {
	const header = 4
	if len(block) < header {
		return 0, nil, nil, false
	}
	end := header + int(binary.BigEndian.Uint16(block[2:]))
	if len(block) < end {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint16(block), block[header:end:end], block[end:], true
}

// ServerHello is a view of a ServerHello: the slices point into the message.
type ServerHello struct {
	LegacyVersion   uint16
	Random          []byte // 32 bytes
	SessionID       []byte
	CipherSuite     uint16 // 0 when the message is cut before it
	Extensions      []byte // type, length and data of each
	SelectedVersion uint16 // of supported_versions, 0 without it
	ALPN            []byte // the protocol chosen
	Group           uint16 // of key_share, 0 without it
	PreSharedKey    bool   // a pre-shared key was selected
	ServerRawKey    bool   // the server's Certificate is a raw public key (RFC 7250)
	ClientRawKey    bool   // the client's is
	ConnectionID    []byte // DTLS: what the records to the server are to have (RFC 9146)
	SCTs            []byte // SignedCertificateTimestampList (RFC 6962, section 3.3.1)
	Retry           bool   // it is a HelloRetryRequest
	Whole           bool   // as in [ClientHello]

	Body []byte // the message
}

// ParseServerHello reads the body of a ServerHello (RFC 8446, section 4.1.3) as
// far as it goes. It is false when there are not even the version and the
// random value.
func ParseServerHello(body []byte) (h ServerHello, ok bool) {
	h.Body = body
	s := cryptobyte.String(body)
	if !s.ReadUint16(&h.LegacyVersion) || !s.ReadBytes(&h.Random, randomLength) {
		return h, false
	}
	h.Retry = bytes.Equal(h.Random, retryRandom)
	// The drafts before 22 have neither the session nor the compression.
	draft := h.Draft()
	if !draft && !read8(&s, &h.SessionID) || !s.ReadUint16(&h.CipherSuite) || !draft && !s.Skip(1) {
		return h, true
	}
	if len(s) == 0 {
		h.Whole = true
		return h, true
	}
	var length uint16
	s.ReadUint16(&length)
	h.Whole = int(length) == len(s)
	h.extensions(s[:min(int(length), len(s))])
	return h, true
}

// Draft reports whether h is of a draft of TLS 1.3, whose ServerHello before
// draft 22 has a form of its own.
func (h *ServerHello) Draft() bool { return h.LegacyVersion>>8 == draftsTLS13 }

// ParseEncryptedExtensions reads the body of an EncryptedExtensions (RFC 8446,
// section 4.3.1), which has what other versions have in the ServerHello: the
// protocol chosen, and the types of certificates. It is false when there is no
// list of extensions.
func ParseEncryptedExtensions(body []byte) (h ServerHello, ok bool) {
	if len(body) < 2 {
		return h, false
	}
	h.extensions(body[2:])
	return h, true
}

// extensions reads the block of extensions.
func (h *ServerHello) extensions(block []byte) {
	rest := block
	for len(rest) > 0 {
		typ, data, next, ok := NextExtension(rest)
		if !ok {
			h.Whole = false
			break
		}
		rest = next
		d := cryptobyte.String(data)
		switch typ {
		case extSupportedVersions:
			d.ReadUint16(&h.SelectedVersion)
		case extKeyShare:
			d.ReadUint16(&h.Group)
		case extPreSharedKey:
			h.PreSharedKey = true
		case extServerCertType:
			h.ServerRawKey = len(data) == 1 && data[0] == rawPublicKey
		case extClientCertType:
			h.ClientRawKey = len(data) == 1 && data[0] == rawPublicKey
		case extConnectionID, extConnectionIDDraft:
			read8(&d, &h.ConnectionID)
		case extSCTs:
			h.SCTs = data
		case ExtALPN:
			var protocols cryptobyte.String
			if d.ReadUint16LengthPrefixed(&protocols) {
				read8(&protocols, &h.ALPN)
			}
		}
	}
	h.Extensions = block[:len(block)-len(rest)]
}

// Version is the version that the server chose. A ServerHello that is cut
// before supported_versions is still known for TLS 1.3 by its suite.
func (h *ServerHello) Version() uint16 {
	switch {
	case h.SelectedVersion != 0:
		return h.SelectedVersion
	case h.LegacyVersion == VersionTLS12 && h.CipherSuite>>8 == 0x13:
		return VersionTLS13
	case h.LegacyVersion == VersionDTLS12 && h.CipherSuite>>8 == 0x13:
		return VersionDTLS13
	}
	return h.LegacyVersion
}

func read8(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint8LengthPrefixed((*cryptobyte.String)(out))
}

func read16(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint16LengthPrefixed((*cryptobyte.String)(out))
}
