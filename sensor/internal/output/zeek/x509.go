package zeek

import (
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// x509 writes a line of x509.log.
func (f *Format) x509(w *row, d *document.Document) error {
	r := &d.Oddcert.Certificate
	der, err := decode("der", r.DER)
	if err != nil {
		return err
	}
	c := cert.Parse(der)
	p := readParts(der)
	w.time(d.Time)
	w.text(strings.ToLower(r.Hash.SHA256))
	w.positive(uint64(c.Version))
	w.text(c.Serial)
	w.text(distinguishedName(p.subject))
	w.text(distinguishedName(p.issuer))
	for _, date := range [...]cert.Date{c.NotBefore, c.NotAfter} {
		if date.IsValid() {
			w.time(date.Time())
		} else {
			w.unset(1)
		}
	}
	w.text(longName(p.keyAlgorithm))
	w.text(longName(p.signatureAlgorithm))
	// Zeek has no type, and no length, for other kinds of keys.
	switch longName(p.keyAlgorithm) {
	case "rsaEncryption", "md5WithRSAEncryption": // the latter by RDP servers, who mean the former
		w.text("rsa")
		w.positive(uint64(c.PublicKeySize))
		if c.PublicKeyExponent > 0 {
			w.text(strconv.FormatUint(c.PublicKeyExponent, 10))
		} else {
			w.unset(1)
		}
		w.unset(1)
	case "id-ecPublicKey":
		w.text("ecdsa")
		w.positive(uint64(c.PublicKeySize))
		w.unset(1)
		w.text(keyCurve(c.PublicKeyCurve))
	case "dsaEncryption":
		w.text("dsa")
		w.positive(uint64(c.PublicKeySize))
		w.unset(2)
	default:
		w.unset(4)
	}
	w.texts(c.DNSNames)
	w.texts(c.URIs)
	w.texts(c.EmailAddresses)
	w.texts(c.IPAddresses)
	if c.BasicConstraints {
		w.bool(c.IsCA)
		if c.PathLen >= 0 {
			w.count(uint64(c.PathLen))
		} else {
			w.unset(1)
		}
	} else {
		w.unset(2)
	}
	switch r.Role {
	case "leaf":
		w.bool(true)
		w.bool(false)
	case "client":
		w.bool(true)
		w.bool(true)
	default: // whose chain it is in, the record does not say
		w.bool(false)
		w.unset(1)
	}
	return nil
}

// positive writes a number that is unset when it is 0.
func (w *row) positive(n uint64) {
	if n == 0 {
		w.unset(1)
		return
	}
	w.count(n)
}

// parts are what Zeek shows of a certificate in OpenSSL's words: the contents of
// names, and object identifiers. They refer to the certificate, and are empty where it
// could not be read.
type parts struct {
	subject, issuer                  []byte
	signatureAlgorithm, keyAlgorithm string
}

// readParts reads a certificate (RFC 5280, section 4.1) as far as it can be read.
func readParts(der []byte) (p parts) {
	certificate, _ := takeTag(&der, tagSequence)
	tbs, _ := takeTag(&certificate, tagSequence)
	algorithm, _ := takeTag(&certificate, tagSequence)
	p.signatureAlgorithm, _ = takeObjectIdentifier(&algorithm)
	if len(tbs) > 0 && tbs[0] == tagVersion { // those of version 1 have none
		takeTag(&tbs, tagVersion)
	}
	takeTag(&tbs, tagInteger)  // serialNumber
	takeTag(&tbs, tagSequence) // signature
	p.issuer, _ = takeTag(&tbs, tagSequence)
	takeTag(&tbs, tagSequence) // validity
	p.subject, _ = takeTag(&tbs, tagSequence)
	key, _ := takeTag(&tbs, tagSequence)
	algorithm, _ = takeTag(&key, tagSequence)
	p.keyAlgorithm, _ = takeObjectIdentifier(&algorithm)
	return p
}

// knownCerts writes a line of known_certs.log. A sighting has no serial number, and
// what other records say is not looked up: the same record always has the same line.
func (f *Format) knownCerts(w *row, d *document.Document) error {
	w.time(d.Time)
	if d.Destination.IP != "" {
		w.text(d.Destination.IP)
		w.count(uint64(d.Destination.Port))
	} else {
		w.unset(2)
	}
	w.text(reversedName(d.Oddcert.Certificate.Subject))
	w.text(reversedName(d.Oddcert.Certificate.Issuer))
	w.unset(1) // serial
	return nil
}
