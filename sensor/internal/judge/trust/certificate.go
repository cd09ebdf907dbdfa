package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"math/bits"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
)

// certificate is a certificate as path building sees it. The names are there at
// once; what costs more is read by prepare, for certificates that are visited.
type certificate struct {
	*cert.Certificate
	subject, issuer name

	// Of certificates of stores:
	store    *store
	anchor   bool                            // a root of the store
	distrust func([]*x509.Certificate) error // the store's own condition; nil without one
	until    cert.Date                       // when the store has removed it, at the latest; none while it has it

	prepared  bool
	parts     cert.Parts
	whole     bool // the parts are there
	strict    bool // and are put together as DER has it
	sameAlg   bool // both names of the signature algorithm are the same
	key       *signature.Key
	keyErr    error
	cost      int // of a signature check with key, in microseconds
	scheme    signature.Scheme
	schemeErr error
	critical  []string // critical extensions that nobody here understands
	limits    constraints
}

// fold is a name as it is compared (RFC 5280, section 7.1): case and the count of
// spaces do not matter, nor does the type of its strings.
func fold(name string) string {
	for i := 0; i < len(name); i++ {
		if x := name[i]; x >= 0x80 || x == ' ' && i > 0 && name[i-1] == ' ' {
			return strings.ToLower(strings.Join(strings.Fields(name), " "))
		}
	}
	return strings.ToLower(name)
}

// name stands for a folded name. Names are compared often, and may be long.
type name [sha256.Size]byte

func nameOf(text string) name { return sha256.Sum256([]byte(fold(text))) }

// newCertificate does not change c and keeps it.
func newCertificate(c *cert.Certificate) *certificate {
	x := &certificate{Certificate: c, subject: nameOf(c.Subject.String)}
	if x.issuer = x.subject; !c.SelfSigned {
		x.issuer = nameOf(c.Issuer.String)
	}
	return x
}

// selfIssued reports whether c has its own name as its issuer's.
func (c *certificate) selfIssued() bool { return c.issuer == c.subject }

// understood are the extensions that may be critical (RFC 5280, section 4.2). Of
// those about policies nothing follows here, as no policy is asked for; those that
// say where something is change nothing.
var understood = map[string]bool{
	"2.5.29.14":               true, // subjectKeyIdentifier
	"2.5.29.15":               true, // keyUsage
	"2.5.29.17":               true, // subjectAltName
	"2.5.29.18":               true, // issuerAltName
	"2.5.29.19":               true, // basicConstraints
	"2.5.29.30":               true, // nameConstraints
	"2.5.29.31":               true, // cRLDistributionPoints
	"2.5.29.32":               true, // certificatePolicies
	"2.5.29.33":               true, // policyMappings
	"2.5.29.35":               true, // authorityKeyIdentifier
	"2.5.29.36":               true, // policyConstraints
	"2.5.29.37":               true, // extKeyUsage
	"2.5.29.54":               true, // inhibitAnyPolicy
	"1.3.6.1.5.5.7.1.1":       true, // authorityInfoAccess
	"1.3.6.1.5.5.7.1.24":      true, // TLS features (RFC 7633)
	"2.16.840.1.113730.1.1":   true, // Netscape's certificate type, from before keyUsage
	"1.3.6.1.4.1.11129.2.4.2": true, // signed certificate timestamps (RFC 6962)
}

const (
	oidNameConstraints = "2.5.29.30"
	oidPoison          = "1.3.6.1.4.1.11129.2.4.3" // RFC 6962, section 3.1
)

// prepare reads what a visit needs. It is for one goroutine.
func (c *certificate) prepare() {
	if c.prepared {
		return
	}
	c.prepared = true
	c.parts, c.whole = c.Parts()
	if !c.whole {
		c.keyErr = errUnreadable
		c.schemeErr = errUnreadable
		return
	}
	c.strict = c.isDER()
	c.sameAlg = bytes.Equal(c.parts.Signed, c.parts.Algorithm)
	c.scheme, c.schemeErr = signature.SchemeOfCertificate(c.parts.Algorithm)
	if c.key, c.keyErr = signature.ParseKey(c.parts.PublicKey); c.keyErr == nil {
		c.cost = cost(c.key, c.PublicKeyExponent)
	}
	for e := range c.parts.Extensions {
		switch {
		case e.OID == oidNameConstraints:
			c.limits.critical = e.Critical
			c.limits.read(e.Value)
		case !e.Critical || understood[e.OID]:
		case e.OID == "":
			c.critical = append(c.critical, "one that cannot be read")
		case e.OID == oidPoison:
			c.critical = append(c.critical, e.OID+" (a precertificate, which is not for use)")
		default:
			c.critical = append(c.critical, e.OID)
		}
		if len(c.critical) > maxNames {
			break
		}
	}
}

// isDER reports whether what is not signed (lengths, algorithm, signature) is
// encoded in the one way that DER has. Otherwise somebody could change the
// certificate, and its hash, without the issuer.
func (c *certificate) isDER() bool {
	s := cryptobyte.String(c.DER)
	var whole, tbs, algorithm, value cryptobyte.String
	return s.ReadASN1(&whole, asn1.SEQUENCE) && s.Empty() &&
		whole.ReadASN1Element(&tbs, asn1.SEQUENCE) && whole.ReadASN1Element(&algorithm, asn1.SEQUENCE) &&
		whole.ReadASN1(&value, asn1.BIT_STRING) && whole.Empty()
}

// cost is what a signature check with k takes on a server of 2020, in microseconds,
// within a factor of two.
func cost(k *signature.Key, exponent uint64) int {
	size := k.Bits()
	switch k.Algorithm() {
	case "ECDSA":
		switch {
		case size <= 224:
			return 200
		case size <= 256:
			return 70
		case size <= 384:
			return 500
		}
		return 1300
	case "DSA":
		return size * size * size / 7_000_000 // 3,072 bits take 4 ms
	case "Ed25519":
		return 70
	}
	words := (size + 63) / 64
	return 10 + words*words*(bits.Len64(exponent)+bits.OnesCount64(exponent))/650
}

// How the key identifiers of a certificate and of a possible issuer fit.
const (
	sameKeyID  = iota
	noKeyID    // one of them has none
	otherKeyID // they differ
	keyIDFits  // how many ways there are
)

// keyIDs compares the key identifier that c has of its issuer with that of by.
func (c *certificate) keyIDs(by *certificate) int {
	switch {
	case len(c.AuthorityKeyID) == 0 || len(by.SubjectKeyID) == 0:
		return noKeyID
	case bytes.Equal(c.AuthorityKeyID, by.SubjectKeyID):
		return sameKeyID
	}
	return otherKeyID
}

// mayIssue reports whether c, of version 3 or before it, may sign certificates. Of a
// root before version 3, being in a store says so.
func (c *certificate) mayIssue() bool {
	const keyCertSign = 1 << 5
	switch {
	case c.anchor && c.Version != 3:
		return true
	case !c.IsCA:
		return false
	}
	return c.KeyUsage == 0 || c.KeyUsage&keyCertSign != 0
}
