package quic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/hex"
)

// The versions with an RFC.
const (
	Version1 = 0x00000001 // RFC 9000
	Version2 = 0x6b3343cf // RFC 9369
)

const (
	version2Draft = 0x709a50c4 // drafts 01 to 05 of version 2
	googleT050    = 0x54303530 // Google's, with TLS
	googleT051    = 0x54303531
	mvfst22       = 0xfaceb001 // Facebook's, with the salt of draft 22
)

// scheme is how a version protects its packets.
type scheme struct {
	salt   []byte // of the Initial secrets
	labels string // what the labels of keys begin with
	types  [4]packetType
	retry  *retryKey // nil when a Retry has no integrity tag
	crypto uint64    // type of CRYPTO frames
}

// retryKey makes the integrity tags of Retry packets (RFC 9001, section 5.8).
type retryKey struct {
	aead  cipher.AEAD
	nonce []byte
}

var (
	types1 = [4]packetType{initial, zeroRTT, handshake, retry}
	types2 = [4]packetType{retry, initial, zeroRTT, handshake}

	retry25 = newRetryKey("4d32ecdb2a2133c841e4043df27d4430", "4d1611d05513a552c587d575")
	retry29 = newRetryKey("ccce187ed09a09d05728155a6cb96be1", "e54930f97f2136f0530a8c1c")
	retry1  = newRetryKey("be0c690b9f66575a1d766b54e368c84e", "461599d35d632bf2239825bb")
	retry2  = newRetryKey("8fb4b01b56ac48e260fbcbcead7ccc92", "d86969bc2d7c6d9990efb04a")

	// RFC 9001, section 5.2, and RFC 9369, section 3.3.1; the others are of the
	// drafts, and of Google's own versions, whose other frames are not those of
	// the RFC.
	scheme22  = &scheme{unhex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a"), "tls13 quic ", types1, nil, frameCrypto}
	scheme23  = &scheme{unhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"), "tls13 quic ", types1, nil, frameCrypto}
	scheme25  = &scheme{unhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"), "tls13 quic ", types1, retry25, frameCrypto}
	scheme29  = &scheme{unhex("afbfec289993d24c9e9786f19c6111e04390a899"), "tls13 quic ", types1, retry29, frameCrypto}
	scheme1   = &scheme{unhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "tls13 quic ", types1, retry1, frameCrypto}
	scheme2   = &scheme{unhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "tls13 quicv2 ", types2, retry2, frameCrypto}
	scheme2D  = &scheme{unhex("a707c203a59b47184a1d62ca570406ea7ae3e5d3"), "tls13 quicv2 ", types2, nil, frameCrypto}
	schemeT50 = &scheme{unhex("7ff579e5acd072915580304c43a2367c60488310"), "tls13 quic ", types1, nil, frameCryptoGoogle}
	schemeT51 = &scheme{unhex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d"), "tls13 quic ", types1, nil, frameCryptoGoogle}

	schemes22    = []*scheme{scheme22}
	schemes23    = []*scheme{scheme23}
	schemes25    = []*scheme{scheme25}
	schemes29    = []*scheme{scheme29}
	schemes1     = []*scheme{scheme1}
	schemes2     = []*scheme{scheme2}
	schemes2D    = []*scheme{scheme2D}
	schemesT50   = []*scheme{schemeT50}
	schemesT51   = []*scheme{schemeT51}
	schemesMVFST = []*scheme{scheme23, scheme1}
	schemesForce = []*scheme{scheme1, scheme29}
)

// schemesOf are the ways in which packets of version v may be protected, the
// likeliest first; nil when the version is not known.
func schemesOf(v uint32) []*scheme {
	switch {
	case v == Version1, v == 0xff000021, v == 0xff000022:
		return schemes1
	case v == Version2:
		return schemes2
	case v >= 0xff00001d && v <= 0xff000020:
		return schemes29
	case v >= 0xff000019 && v <= 0xff00001c:
		return schemes25
	case v == 0xff000017, v == 0xff000018:
		return schemes23
	case v == 0xff000016, v == mvfst22:
		return schemes22
	case v&0xffffffe0 == 0xfaceb000:
		// Most have never changed their salt since draft 23; the aliases of
		// version 1 have its salt.
		return schemesMVFST
	case isReserved(v):
		// A client that wants to see Version Negotiation takes the salt of a
		// version that it knows.
		return schemesForce
	case v == version2Draft:
		return schemes2D
	case v == googleT051:
		return schemesT51
	case v == googleT050:
		return schemesT50
	}
	return nil
}

// isReserved reports whether v only provokes Version Negotiation (RFC 9000,
// section 15).
func isReserved(v uint32) bool { return v&0x0f0f0f0f == 0x0a0a0a0a }

// signed reports whether packet, a whole Retry, has the integrity tag that
// belongs to odcid, the Destination Connection ID of the client's first Initial.
func (k *retryKey) signed(packet, odcid []byte) bool {
	body, tag := packet[:len(packet)-tagLength], packet[len(packet)-tagLength:]
	pseudo := append([]byte{byte(len(odcid))}, odcid...)
	pseudo = append(pseudo, body...)
	return subtle.ConstantTimeCompare(k.aead.Seal(nil, k.nonce, nil, pseudo), tag) == 1
}

func newRetryKey(key, nonce string) *retryKey {
	block, err := aes.NewCipher(unhex(key))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &retryKey{aead, unhex(nonce)}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
