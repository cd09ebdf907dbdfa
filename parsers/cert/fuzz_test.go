package cert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	for _, test := range odd {
		f.Add(test.der, uint16(len(test.der)/2))
	}
	f.Add(indefinite(f, plain().bytes()), uint16(400))
	f.Add(sequence(indefinite(f, plain().tbs())), uint16(300))
	f.Add(with(func(p *parts) {
		p.extension = bytes.Repeat(extensionOf(oidSAN, sequence(bytes.Repeat(general(DNSName, "a"), 100))), 25)
	}), uint16(7000))
	for oid := range keyAlgorithms {
		f.Add(with(func(p *parts) { p.key = keyOf(f, oid, nil, 32) }), uint16(200))
	}
	f.Fuzz(func(t *testing.T, raw []byte, n uint16) {
		c := Parse(raw)
		if c.SHA256 != sha256.Sum256(raw) || !bytes.Equal(c.DER, raw) {
			t.Error("hash or DER is not of the bytes")
		}
		checkStrings(t, c)
		if kept, more := altNamesOf(c); c.AltNames != len(kept)+len(more) || len(more) > 0 && len(kept) != maxAltNames {
			t.Errorf("%d names: %d kept and %d others", c.AltNames, len(kept), len(more))
		}
		if problem := checkPrefix(raw[:min(int(n), len(raw))], c); problem != "" {
			t.Errorf("first %d bytes: %s", n, problem)
		}
		if c.ParseError == "" && (c.TBSSHA256 == [32]byte{} || c.SPKISHA256 == [32]byte{} || c.Serial == "" ||
			c.SignatureAlgorithm == "" || c.PublicKeyAlgorithm == "" || c.Version == 0) {
			t.Errorf("something is missing and nothing is said: %+v", c)
		}
		x, err := x509.ParseCertificate(raw)
		if err != nil || strings.Contains(c.ParseError, "more than") {
			return
		}
		for _, d := range differences(c, x) {
			t.Error(d)
		}
	})
}

// checkStrings checks what holds for the strings of any certificate.
func checkStrings(t *testing.T, c *Certificate) {
	for _, list := range [][]string{
		{c.Serial, c.SignatureAlgorithm, c.PublicKeyAlgorithm, c.PublicKeyCurve, c.ParseError},
		c.Subject.CommonName, c.Subject.Organization, c.Subject.OrganizationalUnit,
		c.Subject.Country, c.Subject.Locality, c.Subject.StateOrProvince,
		c.Issuer.CommonName, c.Issuer.Organization, c.Issuer.OrganizationalUnit,
		c.Issuer.Country, c.Issuer.Locality, c.Issuer.StateOrProvince,
		c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs, c.ExtendedKeyUsage, c.Policies, c.Permitted, c.Excluded,
	} {
		for _, s := range list {
			if !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
	}
	for _, n := range []Name{c.Subject, c.Issuer} {
		if !utf8.ValidString(n.String) || strings.ContainsFunc(n.String, func(r rune) bool { return r < ' ' || r == unicode.MaxASCII }) {
			t.Errorf("%q is not UTF-8 or has control characters", n.String)
		}
		for _, value := range n.CommonName {
			if !strings.Contains(n.String, "CN="+string(appendEscaped(nil, value))) {
				t.Errorf("%q is not in %q", value, n.String)
			}
		}
	}
}
