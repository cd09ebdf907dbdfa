package transparency

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"math"
	"slices"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// answer is what a stapled OCSPResponse says of one certificate (RFC 6960, section
// 4.2.1). Moments are in nanoseconds since the Unix epoch, UTC.
type answer struct {
	status  string // "good", "revoked" or "unknown"
	revoked int64  // when; 0 when not
	from    int64  // thisUpdate
	to      int64  // nextUpdate; the last moment there is where nothing newer is promised
	stamps  []byte // the SignedCertificateTimestampList for it; nil without one
}

// refusal is what is wrong with a stapled answer, in a sentence.
type refusal string

func (r refusal) Error() string { return string(r) }

// The refusals.
const (
	errOCSPLong      = refusal("The stapled OCSP answer is too long to be read.")
	errOCSPMalformed = refusal("The stapled OCSP answer cannot be read.")
	errOCSPError     = refusal("The stapled OCSP answer is an error of the responder.")
	errOCSPKind      = refusal("The stapled OCSP answer is of a kind that is not known.")
	errOCSPOther     = refusal("The stapled OCSP answer is for another certificate.")
	errOCSPSignature = refusal("The stapled OCSP answer is not signed by the issuer, nor by a responder of the issuer.")
	errOCSPDelegate  = refusal("The stapled OCSP answer is signed with a certificate of the issuer that is not for answers.")
	errOCSPExpired   = refusal("The stapled OCSP answer is signed with a certificate that was not valid when it was made.")
)

// Contents of object identifiers.
var (
	oidBasicOCSP = []byte{0x2b, 6, 1, 5, 5, 7, 48, 1, 1} // RFC 6960, section 4.2.1
	oidSHA1      = []byte{0x2b, 14, 3, 2, 26}
	oidSHA256    = []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}
	oidSHA384    = []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2}
	oidSHA512    = []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3}
)

// basic is a BasicOCSPResponse that was not looked into yet.
type basic struct {
	data      []byte // ResponseData, whole
	produced  time.Time
	answers   cryptobyte.String // SingleResponses
	algorithm []byte            // AlgorithmIdentifier, whole
	signature []byte
	certs     cryptobyte.String // certificates
}

// readOCSP reads an OCSPResponse as far as the answers in it.
func readOCSP(der []byte) (b basic, err error) {
	if len(der) > maxOCSP {
		return b, errOCSPLong
	}
	var response, status, wrapped, kind, octets cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&response, asn1.SEQUENCE) || !s.Empty() ||
		!response.ReadASN1(&status, asn1.ENUM) || len(status) != 1 {
		return b, errOCSPMalformed
	}
	if status[0] != 0 {
		return b, errOCSPError
	}
	explicit := func(n asn1.Tag) asn1.Tag { return n.Constructed().ContextSpecific() }
	if !response.ReadASN1(&wrapped, explicit(0)) || !response.Empty() ||
		!wrapped.ReadASN1(&wrapped, asn1.SEQUENCE) ||
		!wrapped.ReadASN1(&kind, asn1.OBJECT_IDENTIFIER) || !wrapped.ReadASN1(&octets, asn1.OCTET_STRING) {
		return b, errOCSPMalformed
	}
	if !bytes.Equal(kind, oidBasicOCSP) {
		return b, errOCSPKind
	}
	var whole, data, algorithm, certs, bits cryptobyte.String
	if !octets.ReadASN1(&whole, asn1.SEQUENCE) || !octets.Empty() ||
		!whole.ReadASN1Element(&data, asn1.SEQUENCE) || !whole.ReadASN1Element(&algorithm, asn1.SEQUENCE) ||
		!whole.ReadASN1(&bits, asn1.BIT_STRING) || len(bits) == 0 || bits[0] != 0 ||
		!whole.ReadOptionalASN1(&certs, nil, explicit(0)) || !whole.Empty() {
		return b, errOCSPMalformed
	}
	if len(certs) > 0 && (!certs.ReadASN1(&b.certs, asn1.SEQUENCE) || !certs.Empty()) {
		return b, errOCSPMalformed
	}
	b.data, b.algorithm, b.signature = data, algorithm, bits[1:]
	var responder cryptobyte.String
	var tag asn1.Tag
	if !data.ReadASN1(&data, asn1.SEQUENCE) || !data.SkipOptionalASN1(explicit(0)) ||
		!data.ReadAnyASN1(&responder, &tag) || tag != explicit(1) && tag != explicit(2) ||
		!data.ReadASN1GeneralizedTime(&b.produced) || !data.ReadASN1(&b.answers, asn1.SEQUENCE) ||
		!data.SkipOptionalASN1(explicit(1)) || !data.Empty() {
		return b, errOCSPMalformed
	}
	return b, nil
}

// answerFor finds the answer for a leaf in b. issuerKey is the public key of its issuer,
// as keyBits returns it.
func (b *basic) answerFor(leaf *body, issuerKey []byte) (a answer, err error) {
	answers := b.answers
	for n := 0; !answers.Empty(); n++ {
		var single, id, algorithm, oid, name, key, serial cryptobyte.String
		if n == maxAnswers || !answers.ReadASN1(&single, asn1.SEQUENCE) ||
			!single.ReadASN1(&id, asn1.SEQUENCE) || !id.ReadASN1(&algorithm, asn1.SEQUENCE) ||
			!algorithm.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !id.ReadASN1(&name, asn1.OCTET_STRING) ||
			!id.ReadASN1(&key, asn1.OCTET_STRING) || !id.ReadASN1(&serial, asn1.INTEGER) || !id.Empty() {
			return a, errOCSPMalformed
		}
		if !bytes.Equal(serial, leaf.serial) || !bytes.Equal(name, hashOf(oid, leaf.issuer)) || !bytes.Equal(key, hashOf(oid, issuerKey)) {
			continue
		}
		return readAnswer(single)
	}
	return a, errOCSPOther
}

// hashOf is a hash that has an identifier, of b; nil if it is not known.
func hashOf(oid, b []byte) []byte {
	switch {
	case bytes.Equal(oid, oidSHA1):
		h := sha1.Sum(b)
		return h[:]
	case bytes.Equal(oid, oidSHA256):
		h := sha256.Sum256(b)
		return h[:]
	case bytes.Equal(oid, oidSHA384):
		h := sha512.Sum384(b)
		return h[:]
	case bytes.Equal(oid, oidSHA512):
		h := sha512.Sum512(b)
		return h[:]
	}
	return nil
}

// readAnswer reads what follows the CertID in a SingleResponse.
func readAnswer(s cryptobyte.String) (a answer, err error) {
	var status, next, extensions cryptobyte.String
	var tag asn1.Tag
	var from, to, revoked time.Time
	var hasNext, hasExtensions bool
	explicit := func(n asn1.Tag) asn1.Tag { return n.Constructed().ContextSpecific() }
	if !s.ReadAnyASN1(&status, &tag) || !s.ReadASN1GeneralizedTime(&from) ||
		!s.ReadOptionalASN1(&next, &hasNext, explicit(0)) || hasNext && !(next.ReadASN1GeneralizedTime(&to) && next.Empty()) ||
		!s.ReadOptionalASN1(&extensions, &hasExtensions, explicit(1)) || !s.Empty() {
		return a, errOCSPMalformed
	}
	a.from, a.to = nanoseconds(from), math.MaxInt64
	if hasNext {
		a.to = nanoseconds(to)
	}
	switch tag {
	case asn1.Tag(0).ContextSpecific():
		a.status = "good"
	case explicit(1):
		if !status.ReadASN1GeneralizedTime(&revoked) {
			return a, errOCSPMalformed
		}
		a.status, a.revoked = "revoked", nanoseconds(revoked)
	case asn1.Tag(2).ContextSpecific():
		a.status = "unknown"
	default:
		return a, errOCSPMalformed
	}
	if hasExtensions {
		_, value, found, ok := without(extensions, oidOCSPTimestamps)
		if !ok {
			return a, errOCSPMalformed
		}
		if found > 0 {
			a.stamps, _ = unwrap(value)
			if a.stamps == nil {
				a.stamps = []byte{} // there are some, which cannot be read
			}
		}
	}
	return a, nil
}

// nanoseconds is t as a moment. Those beyond what a moment can be are the first or the
// last one.
func nanoseconds(t time.Time) int64 {
	const first, last = math.MinInt64 / int64(time.Second), math.MaxInt64 / int64(time.Second)
	switch s := t.Unix(); {
	case s <= first:
		return math.MinInt64
	case s >= last:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// signedBy returns nil if the issuer has signed b, or a responder to which the issuer
// delegates that (RFC 6960, section 4.2.2.2).
func (b *basic) signedBy(issuer *signature.Key) error {
	scheme, err := signature.SchemeOfCertificate(b.algorithm)
	if err != nil {
		return errOCSPSignature
	}
	if issuer.Verify(scheme, b.data, b.signature) == nil {
		return nil
	}
	certs := b.certs
	for n := 0; n < maxDelegates && !certs.Empty(); n++ {
		var der cryptobyte.String
		if !certs.ReadASN1Element(&der, asn1.SEQUENCE) {
			break
		}
		c := cert.Parse(der)
		key, err := signature.KeyOf(c)
		if err != nil || key.Verify(scheme, b.data, b.signature) != nil || !issued(c, issuer) {
			continue
		}
		if !slices.Contains(c.ExtendedKeyUsage, "OCSPSigning") {
			return errOCSPDelegate
		}
		if at := b.produced.Unix(); !c.NotBefore.IsValid() || !c.NotAfter.IsValid() ||
			at < c.NotBefore.Unix()-int64(maxSkew/time.Second) || at > c.NotAfter.Unix() {
			return errOCSPExpired
		}
		return nil
	}
	return errOCSPSignature
}

// issued reports whether key has signed a certificate.
func issued(c *cert.Certificate, key *signature.Key) bool {
	parts, ok := c.Parts()
	if !ok {
		return false
	}
	scheme, err := signature.SchemeOfCertificate(parts.Algorithm)
	return err == nil && key.Verify(scheme, parts.TBS, parts.Signature) == nil
}
