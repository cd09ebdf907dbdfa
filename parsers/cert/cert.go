// Package cert reads X.509 certificates (RFC 5280) as they come off the wire:
// hashes first, then the fields, each as far as the bytes allow.
package cert

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// Certificate is one certificate. It is immutable and owns its bytes. A field
// that could not be read is zero, and ParseError says so.
//
// All strings are valid UTF-8: what has no place in a value's string type shows
// as U+FFFD. Outside of [Name.String], NUL and control characters stand as they
// were sent.
type Certificate struct {
	DER    []byte   // as sent; nil when the certificate was truncated
	size   int      // see Size; 0 where it is not known yet
	MD5    [16]byte // of DER
	SHA1   [20]byte // of DER
	SHA256 [32]byte // of DER

	SPKISHA256 [32]byte // of the SubjectPublicKeyInfo element; zero when unreadable
	TBSSHA256  [32]byte // of the TBSCertificate element; zero when unreadable

	Version            int    // 1..3, 0 when unreadable
	Serial             string // upper-case hex as OpenSSL prints it: whole octets, "-" before a negative one
	SerialPadded       bool   // it has more octets than DER allows (X.690, section 8.3.2)
	SignatureAlgorithm string // Go's name, such as "SHA256-RSA"; the OID in dots when Go has none
	SignatureBits      int    // length of the signature value in bits
	Subject, Issuer    Name
	NotBefore          Date // none when unreadable
	NotAfter           Date // none when unreadable

	PublicKeyAlgorithm string // Go's name: "RSA", "ECDSA", "Ed25519", "DSA"; that of its standard, such as "ML-DSA-44"; the OID in dots otherwise
	PublicKeySize      int    // bits: of the modulus, of a coordinate, or of the whole key where its standard has no such number; 0 when unknown
	PublicKeyCurve     string // "P-256", …, the OID in dots of an unknown one, or "explicit" (RFC 5480, section 2.1.1, forbids it); empty when none
	PublicKeyExponent  uint64 // RSA only; 0 when it does not fit

	DNSNames       []string // subjectAltName, each kind in the order sent, together at most 2,048
	IPAddresses    []string
	EmailAddresses []string
	URIs           []string
	AltNames       int // how many names of these kinds there are, those that [Certificate.MoreNames] reads included

	IsCA             bool
	BasicConstraints bool     // the extension is there
	PathLen          int      // pathLenConstraint of basicConstraints; -1 when there is none
	KeyUsage         KeyUsage // RFC 5280, section 4.2.1.3
	ExtendedKeyUsage []string // "serverAuth", …; the OID in dots of an unknown one
	Policies         []string // certificatePolicies, OIDs in dots
	Permitted        []string // nameConstraints: names as in subjectAltName, networks as 10.0.0.0/8, distinguished names
	Excluded         []string // likewise
	SubjectKeyID     []byte
	AuthorityKeyID   []byte
	SCTs             int    // signed certificate timestamps in the certificate (RFC 6962, section 3.3)
	SelfSigned       bool   // issuer equals subject, to the byte
	ParseError       string // the first problem, such as "validity: bad time"; empty when there is none

	more Names // those for which the lists have no room
}

// Name is a distinguished name.
type Name struct {
	// String is the whole name, such as "C=US, ST=Washington, O=Microsoft, CN=www.update.microsoft.com",
	// in the order sent, with the escapes of RFC 4514, control characters escaped too.
	String string

	// The values of one attribute each, in the order sent. Of a name with more
	// than 64 attributes or 8 KiB, these and String have the first.
	CommonName         []string
	Organization       []string
	OrganizationalUnit []string
	Country            []string
	Locality           []string
	StateOrProvince    []string
}

// Parse reads the certificate in der, which it copies. It never returns nil:
// the hashes are those of all of der whatever it holds, and each field is read
// that can be read.
func Parse(der []byte) *Certificate {
	der = append(make([]byte, 0, len(der)), der...)
	c := &Certificate{
		DER:    der,
		MD5:    md5.Sum(der),
		SHA1:   sha1.Sum(der),
		SHA256: sha256.Sum256(der),
	}
	c.PathLen = -1
	p := parser{c: c, hash: true}
	p.certificate(der)
	return c
}

// ParseName reads a distinguished name, in DER, as far as it can be read.
func ParseName(der []byte) Name {
	var p parser
	e, ok := p.expect(&der, asn1.SEQUENCE, "name")
	if !ok {
		return Name{}
	}
	n, _ := p.name("name", e.content)
	return n
}

// Salvage reads the first part of a certificate whose end is missing. The result has
// no hash and no DER; a value that is itself cut is left out.
func Salvage(partial []byte) *Certificate {
	c := &Certificate{PathLen: -1}
	p := parser{c: c}
	p.certificate(partial)
	c.SubjectKeyID = bytes.Clone(c.SubjectKeyID)
	c.AuthorityKeyID = bytes.Clone(c.AuthorityKeyID)
	for _, left := range []*[]byte{&c.more.set, &c.more.rdns, &c.more.names, &c.more.extensions} {
		*left = bytes.Clone(*left)
	}
	c.ParseError = "truncated"
	return c
}
