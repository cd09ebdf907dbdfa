package transparency

import (
	"crypto"
	"crypto/sha256"

	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
	"golang.org/x/crypto/cryptobyte"
)

// timestamp is a SignedCertificateTimestamp (RFC 6962, section 3.2). It refers to the
// bytes that it was read from.
type timestamp struct {
	version    uint8
	log        [sha256.Size]byte // the ID: SHA-256 of the log's key
	time       []byte            // 8 bytes: milliseconds since 1970
	extensions []byte
	hash       uint8 // of TLS 1.2 (RFC 5246, section 7.4.1.4.1), as algorithm
	algorithm  uint8
	signature  []byte
}

// Numbers of TLS 1.2, and of RFC 6962, section 3.2.
const (
	hashSHA256     = 4
	algorithmRSA   = 1
	algorithmECDSA = 3

	version1             = 0
	certificateTimestamp = 0 // SignatureType
	entryX509            = 0 // LogEntryType
	entryPrecert         = 1
)

// takeTimestamp takes the next serialized timestamp off a list. It is false where none
// is there whole, and then t is not known.
func takeTimestamp(list *cryptobyte.String) (serialized cryptobyte.String, ok bool) {
	return serialized, list.ReadUint16LengthPrefixed(&serialized) && len(serialized) > 0
}

// readTimestamp reads a serialized timestamp. It is false unless that is one of
// version 1 and nothing else.
func readTimestamp(s cryptobyte.String) (t timestamp, ok bool) {
	var id []byte
	ok = s.ReadUint8(&t.version) && t.version == version1 && s.ReadBytes(&id, sha256.Size) &&
		s.ReadBytes(&t.time, 8) && s.ReadUint16LengthPrefixed((*cryptobyte.String)(&t.extensions)) &&
		s.ReadUint8(&t.hash) && s.ReadUint8(&t.algorithm) &&
		s.ReadUint16LengthPrefixed((*cryptobyte.String)(&t.signature)) && s.Empty()
	copy(t.log[:], id)
	return t, ok
}

// verify returns nil if key has signed t for an entry of a log: the DER of a
// certificate, or, where issuer is not nil, the TBSCertificate of a precertificate
// and the SHA-256 of the key of its issuer.
func (t *timestamp) verify(key *signature.Key, entry []byte, issuer *[sha256.Size]byte) error {
	scheme := signature.Scheme{Kind: signature.ECDSA, Hash: crypto.SHA256}
	switch {
	case t.hash == hashSHA256 && t.algorithm == algorithmECDSA:
	case t.hash == hashSHA256 && t.algorithm == algorithmRSA:
		scheme.Kind = signature.PKCS1
	default:
		return signature.ErrUnsupported // RFC 6962, section 2.1.4, allows these two
	}
	b := make([]byte, 0, 64+len(entry)+len(t.extensions))
	b = append(b, version1, certificateTimestamp)
	b = append(b, t.time...)
	if issuer == nil {
		b = append(b, 0, entryX509)
	} else {
		b = append(b, 0, entryPrecert)
		b = append(b, issuer[:]...)
	}
	n := len(entry)
	b = append(b, byte(n>>16), byte(n>>8), byte(n))
	b = append(b, entry...)
	b = append(b, byte(len(t.extensions)>>8), byte(len(t.extensions)))
	b = append(b, t.extensions...)
	return key.Verify(scheme, b, t.signature)
}
