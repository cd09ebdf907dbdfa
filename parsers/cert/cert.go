// Package cert reads X.509 certificates (RFC 5280) as they come off the wire:
// hashes first, then the fields, each as far as the bytes allow.
package cert

import "time"

// Certificate is one certificate. It is immutable and owns its bytes.
type Certificate struct {
	DER    []byte   // nil when the certificate was truncated
	MD5    [16]byte // of DER
	SHA1   [20]byte // of DER
	SHA256 [32]byte // of DER

	SPKISHA256 [32]byte // of the SubjectPublicKeyInfo element; zero when unreadable
	TBSSHA256  [32]byte // of the TBSCertificate element; zero when unreadable

	Version            int    // 1..3, 0 when unreadable
	Serial             string // upper-case hex as OpenSSL prints it, leading zeros kept, "-" before a negative one
	SignatureAlgorithm string // Go's name, such as "SHA256-RSA"; the OID in dots when Go has none
	SignatureBits      int    // length of the signature value in bits
	Subject, Issuer    Name
	NotBefore          time.Time // UTC; zero when unreadable
	NotAfter           time.Time // UTC; zero when unreadable

	PublicKeyAlgorithm string // Go's name: "RSA", "ECDSA", "Ed25519", "DSA"; the OID in dots otherwise
	PublicKeySize      int    // bits; 0 when unknown
	PublicKeyCurve     string // "P-256", …; empty when none
	PublicKeyExponent  uint64 // RSA only; 0 when it does not fit

	DNSNames       []string // subjectAltName, each kind in the order sent
	IPAddresses    []string
	EmailAddresses []string
	URIs           []string

	IsCA             bool
	BasicConstraints bool   // the extension is there
	KeyUsage         uint16 // bit 0 is digitalSignature (RFC 5280, section 4.2.1.3)
	ExtendedKeyUsage []string
	SubjectKeyID     []byte
	AuthorityKeyID   []byte
	SelfSigned       bool // issuer equals subject, to the byte
	ParseError       string
}

// Name is a distinguished name.
type Name struct {
	// String is the whole name, such as "C=US, ST=Washington, O=Microsoft, CN=www.update.microsoft.com",
	// in the order sent, with the escapes of RFC 4514.
	String string

	CommonName         []string
	Organization       []string
	OrganizationalUnit []string
	Country            []string
	Locality           []string
	StateOrProvince    []string
}
