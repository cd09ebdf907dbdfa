package cert

import (
	"bytes"
	"crypto"
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encoding "encoding/asn1"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var x509Usages = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageAny:                            "anyExtendedKeyUsage",
	x509.ExtKeyUsageServerAuth:                     "serverAuth",
	x509.ExtKeyUsageClientAuth:                     "clientAuth",
	x509.ExtKeyUsageCodeSigning:                    "codeSigning",
	x509.ExtKeyUsageEmailProtection:                "emailProtection",
	x509.ExtKeyUsageIPSECEndSystem:                 "ipsecEndSystem",
	x509.ExtKeyUsageIPSECTunnel:                    "ipsecTunnel",
	x509.ExtKeyUsageIPSECUser:                      "ipsecUser",
	x509.ExtKeyUsageTimeStamping:                   "timeStamping",
	x509.ExtKeyUsageOCSPSigning:                    "OCSPSigning",
	x509.ExtKeyUsageMicrosoftServerGatedCrypto:     "msSGC",
	x509.ExtKeyUsageNetscapeServerGatedCrypto:      "nsSGC",
	x509.ExtKeyUsageMicrosoftCommercialCodeSigning: "msCodeCom",
	x509.ExtKeyUsageMicrosoftKernelCodeSigning:     "1.3.6.1.4.1.311.61.1.1",
}

// differences is what c has otherwise than crypto/x509's reading x of the same
// bytes.
func differences(c *Certificate, x *x509.Certificate) (diffs []string) {
	check := func(field string, got, want any) {
		if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
			diffs = append(diffs, fmt.Sprintf("%s is %s, crypto/x509 has %s", field, g, w))
		}
	}
	// Null characters at the end of a BMPString are taken off by crypto/x509.
	list := func(field string, got, want []string) {
		if !slices.EqualFunc(got, want, func(a, b string) bool {
			return strings.TrimRight(a, "\x00") == strings.TrimRight(b, "\x00")
		}) {
			check(field, got, want)
		}
	}
	check("SPKISHA256", c.SPKISHA256, sha256.Sum256(x.RawSubjectPublicKeyInfo))
	check("TBSSHA256", c.TBSSHA256, sha256.Sum256(x.RawTBSCertificate))
	check("Version", c.Version, x.Version)
	check("Serial", c.Serial, opensslSerial(x.SerialNumber))
	if x.SignatureAlgorithm != x509.UnknownSignatureAlgorithm {
		check("SignatureAlgorithm", c.SignatureAlgorithm, x.SignatureAlgorithm.String())
	}
	check("SignatureBits / 8", (c.SignatureBits+7)/8, len(x.Signature))
	for _, n := range []struct {
		field string
		got   Name
		want  pkix.Name
	}{{"Subject", c.Subject, x.Subject}, {"Issuer", c.Issuer, x.Issuer}} {
		var names []string
		for _, a := range n.want.Names {
			if a.Type.String() == "2.5.4.3" {
				names = append(names, a.Value.(string))
			}
		}
		list(n.field+".CommonName", n.got.CommonName, names)
		list(n.field+".Organization", n.got.Organization, n.want.Organization)
		list(n.field+".OrganizationalUnit", n.got.OrganizationalUnit, n.want.OrganizationalUnit)
		list(n.field+".Country", n.got.Country, n.want.Country)
		list(n.field+".Locality", n.got.Locality, n.want.Locality)
		list(n.field+".StateOrProvince", n.got.StateOrProvince, n.want.Province)
	}
	check("NotBefore", c.NotBefore, DateOf(x.NotBefore))
	check("NotAfter", c.NotAfter, DateOf(x.NotAfter))
	check("SelfSigned", c.SelfSigned, bytes.Equal(x.RawIssuer, x.RawSubject))

	if x.PublicKeyAlgorithm != x509.UnknownPublicKeyAlgorithm {
		check("PublicKeyAlgorithm", c.PublicKeyAlgorithm, x.PublicKeyAlgorithm.String())
	}
	size, curve, exponent := 0, "", uint64(0)
	switch key := x.PublicKey.(type) {
	case *rsa.PublicKey:
		size, exponent = key.N.BitLen(), uint64(key.E)
	case *ecdsa.PublicKey:
		size, curve = key.Params().BitSize, key.Params().Name
	case ed25519.PublicKey:
		size = 8 * len(key)
	case *dsa.PublicKey:
		size = key.P.BitLen()
	default:
		size, curve, exponent = c.PublicKeySize, c.PublicKeyCurve, c.PublicKeyExponent
	}
	check("PublicKeySize", c.PublicKeySize, size)
	check("PublicKeyCurve", c.PublicKeyCurve, curve)
	check("PublicKeyExponent", c.PublicKeyExponent, exponent)

	if x.Version != 3 { // crypto/x509 does not look for extensions then
		return diffs
	}
	list("DNSNames", c.DNSNames, x.DNSNames)
	list("EmailAddresses", c.EmailAddresses, x.EmailAddresses)
	var addrs []string
	for _, ip := range x.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		addrs = append(addrs, addr.String())
	}
	list("IPAddresses", c.IPAddresses, addrs)
	check("len(URIs)", len(c.URIs), len(x.URIs)) // net/url writes some otherwise
	check("AltNames", c.AltNames, len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs))
	check("BasicConstraints", c.BasicConstraints, x.BasicConstraintsValid)
	check("IsCA", c.IsCA, x.IsCA)
	if x.BasicConstraintsValid && x.MaxPathLen <= math.MaxInt32 {
		check("PathLen", c.PathLen, x.MaxPathLen)
	}
	check("KeyUsage", c.KeyUsage, KeyUsage(x.KeyUsage))
	var policies []string
	for _, p := range x.Policies {
		policies = append(policies, p.String())
	}
	list("Policies", c.Policies, policies)
	networks := func(all []*net.IPNet) (s []string) {
		for _, n := range all {
			ones, bits := n.Mask.Size()
			addr, _ := netip.AddrFromSlice(n.IP)
			if mask, _ := netip.AddrFromSlice(n.Mask); bits == 0 {
				s = append(s, addr.String()+"/"+mask.String())
			} else {
				s = append(s, addr.String()+"/"+strconv.Itoa(ones))
			}
		}
		return s
	}
	subtrees := func(field string, got []string, lists ...[]string) {
		for _, name := range slices.Concat(lists...) {
			if !slices.Contains(got, name) {
				diffs = append(diffs, fmt.Sprintf("%s are %q, crypto/x509 has %q", field, got, name))
			}
		}
	}
	subtrees("Permitted", c.Permitted, x.PermittedDNSDomains, networks(x.PermittedIPRanges), x.PermittedEmailAddresses, x.PermittedURIDomains)
	subtrees("Excluded", c.Excluded, x.ExcludedDNSDomains, networks(x.ExcludedIPRanges), x.ExcludedEmailAddresses, x.ExcludedURIDomains)
	check("SubjectKeyID", string(c.SubjectKeyID), string(x.SubjectKeyId))
	check("AuthorityKeyID", string(c.AuthorityKeyID), string(x.AuthorityKeyId))
	var usages []string
	for _, u := range x.ExtKeyUsage {
		usages = append(usages, x509Usages[u])
	}
	for _, u := range x.UnknownExtKeyUsage {
		usages = append(usages, u.String())
	}
	slices.Sort(usages)
	ours := slices.Clone(c.ExtendedKeyUsage)
	for i, u := range ours {
		for oid, name := range map[string]string{
			"1.3.6.1.4.1.311.2.1.21": "msCodeInd", "1.3.6.1.4.1.311.20.2.2": "msSmartcardLogin", // unknown there
		} {
			if u == name {
				ours[i] = oid
			}
		}
	}
	slices.Sort(ours)
	list("ExtendedKeyUsage", ours, usages)
	return diffs
}

// opensslSerial writes a serial number as `openssl x509 -serial` does.
func opensslSerial(n *big.Int) string {
	s := fmt.Sprintf("%X", new(big.Int).Abs(n))
	if len(s)%2 == 1 {
		s = "0" + s
	}
	if n.Sign() < 0 {
		s = "-" + s
	}
	return s
}

func oid(arcs ...uint64) x509.OID {
	o, err := x509.OIDFromInts(arcs)
	if err != nil {
		panic(err)
	}
	return o
}

func TestAgainstX509(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"RSA": rsaKey}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if keys[curve.Params().Name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if _, keys["Ed25519"], err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	link, err := url.Parse("spiffe://example.org/service")
	if err != nil {
		t.Fatal(err)
	}
	full := x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(0xabcdef), 120),
		Subject: pkix.Name{
			Country: []string{"US"}, Province: []string{"Washington"}, Locality: []string{"Redmond"},
			Organization: []string{"Microsoft"}, OrganizationalUnit: []string{"DSP", "Ünit, 2"},
			CommonName: "www.update.microsoft.com", SerialNumber: "17",
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: encoding.ObjectIdentifier{2, 5, 4, 3}, Value: "second.example"}},
		},
		NotBefore:             time.Date(1951, 2, 3, 4, 5, 6, 0, time.UTC),
		NotAfter:              time.Date(2051, 2, 3, 4, 5, 6, 0, time.UTC),
		DNSNames:              []string{"www.update.microsoft.com", "*.example.com"},
		EmailAddresses:        []string{"someone@example.com"},
		IPAddresses:           []net.IP{net.IPv4(192, 0, 2, 7), net.ParseIP("2001:db8::1")},
		URIs:                  []*url.URL{link},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageDecipherOnly,
		UnknownExtKeyUsage:    []encoding.ObjectIdentifier{{2, 25, 1234567}},
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: 3,
		Policies:            []x509.OID{oid(2, 5, 29, 32, 0), oid(2, 23, 140, 1, 2, 1), oid(1, 3, 6, 1, 4, 1, 99999, 1<<40)},
		PermittedDNSDomains: []string{"example.com", ".example.org"}, ExcludedDNSDomains: []string{"bad.example.com"},
		PermittedIPRanges:       []*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}, {IP: net.ParseIP("2001:db8::"), Mask: net.CIDRMask(33, 128)}},
		ExcludedIPRanges:        []*net.IPNet{{IP: net.IP{0, 0, 0, 0}, Mask: net.CIDRMask(0, 32)}, {IP: net.IP{10, 0, 7, 7}, Mask: net.CIDRMask(32, 32)}},
		PermittedEmailAddresses: []string{"example.com"}, ExcludedEmailAddresses: []string{"root@example.com"},
		PermittedURIDomains: []string{".example.net"}, ExcludedURIDomains: []string{"uri.example.net"},
		SubjectKeyId: []byte{1, 2, 3}, AuthorityKeyId: []byte{4, 5, 6, 7},
	}
	for u := range x509Usages {
		full.ExtKeyUsage = append(full.ExtKeyUsage, u)
	}
	ca := full
	ca.MaxPathLen, ca.MaxPathLenZero, ca.NotBefore, ca.NotAfter = 0, true, time.Time{}.UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	bare := x509.Certificate{SerialNumber: big.NewInt(0), NotBefore: full.NotBefore, NotAfter: full.NotAfter}

	tests := []struct {
		key       string
		signer    string
		algorithm x509.SignatureAlgorithm
	}{
		{"RSA", "RSA", x509.SHA256WithRSA},
		{"RSA", "RSA", x509.SHA384WithRSA},
		{"RSA", "RSA", x509.SHA512WithRSA},
		{"RSA", "RSA", x509.SHA256WithRSAPSS},
		{"RSA", "RSA", x509.SHA384WithRSAPSS},
		{"RSA", "RSA", x509.SHA512WithRSAPSS},
		{"P-224", "P-256", x509.ECDSAWithSHA256},
		{"P-256", "P-384", x509.ECDSAWithSHA384},
		{"P-384", "P-521", x509.ECDSAWithSHA512},
		{"P-521", "Ed25519", x509.PureEd25519},
		{"Ed25519", "RSA", x509.SHA256WithRSA},
	}
	for _, test := range tests {
		for name, template := range map[string]x509.Certificate{"full": full, "ca": ca, "bare": bare} {
			t.Run(fmt.Sprintf("%s signed with %v, %s", test.key, test.algorithm, name), func(t *testing.T) {
				parent := template
				if test.key != test.signer {
					parent.Subject = pkix.Name{CommonName: "parent", Organization: []string{"A", "B"}}
				}
				template.SignatureAlgorithm = test.algorithm
				raw, err := x509.CreateCertificate(rand.Reader, &template, &parent, keys[test.key].Public(), keys[test.signer])
				if err != nil {
					t.Fatal(err)
				}
				x, err := x509.ParseCertificate(raw)
				if err != nil {
					t.Fatal(err)
				}
				c := Parse(raw)
				for _, d := range differences(c, x) {
					t.Error(d)
				}
				if c.ParseError != "" {
					t.Errorf("ParseError is %q", c.ParseError)
				}
				if c.MD5 != md5.Sum(raw) || c.SHA1 != sha1.Sum(raw) || c.SHA256 != sha256.Sum256(raw) || !bytes.Equal(c.DER, raw) {
					t.Error("hashes or DER are not of the bytes")
				}
				if name == "full" && !slices.Equal(c.URIs, []string{link.String()}) {
					t.Errorf("URIs are %q", c.URIs)
				}
				if name == "full" {
					checkPrefixes(t, raw)
				}
			})
		}
	}
}

// The tables name algorithms as crypto/x509 does, also those with which it
// signs no more.
func TestAlgorithmNames(t *testing.T) {
	names := make(map[string]bool)
	for a := x509.MD2WithRSA; a <= x509.PureEd25519; a++ {
		names[a.String()] = true
	}
	ours := make(map[string]bool)
	for _, name := range signatureAlgorithms {
		ours[name] = true
	}
	for name := range ours {
		if !names[name] {
			t.Errorf("crypto/x509 has no %q", name)
		}
	}
	for oid, name := range otherSignatures {
		if _, key := keyAlgorithms[oid]; key || signatureAlgorithms[oid] != "" {
			t.Errorf("%s, %s, is in another table too", oid, name)
		}
	}
	for _, h := range pssHashes {
		ours[h.name] = true
	}
	ours[keyAlgorithms["1.3.101.112"].name] = true
	for name := range names {
		if _, err := fmt.Sscan(name, new(int)); err != nil && !ours[name] {
			t.Errorf("%q is missing", name)
		}
	}
}

func checkPrefixes(t testing.TB, raw []byte) {
	t.Helper()
	full := Parse(raw)
	for n := range len(raw) {
		if problem := checkPrefix(raw[:n], full); problem != "" {
			t.Fatalf("first %d of %d bytes: %s", n, len(raw), problem)
		}
	}
}

// checkPrefix says what the reading of the first bytes of a certificate has
// that the reading of the whole has not.
func checkPrefix(part []byte, full *Certificate) string {
	c := Parse(part)
	if c.SHA256 != sha256.Sum256(part) || !bytes.Equal(c.DER, part) {
		return "Parse: hashes or DER are not of the bytes"
	}
	if c.SPKISHA256 != [32]byte{} && c.SPKISHA256 != full.SPKISHA256 || c.TBSSHA256 != [32]byte{} && c.TBSSHA256 != full.TBSSHA256 {
		return "Parse: hash of a part that is cut"
	}
	if problem := checkPart(c, full); problem != "" {
		return "Parse: " + problem
	}
	s := Salvage(part)
	if s.DER != nil || s.MD5 != [16]byte{} || s.SHA1 != [20]byte{} || s.SHA256 != [32]byte{} ||
		s.SPKISHA256 != [32]byte{} || s.TBSSHA256 != [32]byte{} || s.ParseError != "truncated" {
		return "Salvage: hashes, DER or ParseError"
	}
	if problem := checkPart(s, full); problem != "" {
		return "Salvage: " + problem
	}
	s.DER, s.MD5, s.SHA1, s.SHA256, s.SPKISHA256, s.TBSSHA256, s.ParseError = c.DER, c.MD5, c.SHA1, c.SHA256, c.SPKISHA256, c.TBSSHA256, c.ParseError
	if !reflect.DeepEqual(s, c) {
		return fmt.Sprintf("Salvage reads %+v, Parse %+v", s, c)
	}
	return ""
}

func checkPart(c, full *Certificate) string {
	begins := func(list, part []string) bool {
		return len(part) <= len(list) && slices.Equal(list[:len(part)], part)
	}
	name := func(full, part Name) bool {
		return strings.HasPrefix(full.String, part.String) &&
			begins(full.CommonName, part.CommonName) && begins(full.Organization, part.Organization) &&
			begins(full.OrganizationalUnit, part.OrganizationalUnit) && begins(full.Country, part.Country) &&
			begins(full.Locality, part.Locality) && begins(full.StateOrProvince, part.StateOrProvince)
	}
	switch {
	case !name(full.Subject, c.Subject):
		return fmt.Sprintf("subject %+v is not in %+v", c.Subject, full.Subject)
	case !name(full.Issuer, c.Issuer):
		return fmt.Sprintf("issuer %+v is not in %+v", c.Issuer, full.Issuer)
	case !begins(full.DNSNames, c.DNSNames), !begins(full.IPAddresses, c.IPAddresses),
		!begins(full.EmailAddresses, c.EmailAddresses), !begins(full.URIs, c.URIs):
		return "subjectAltName"
	case c.AltNames > full.AltNames:
		return "number of names"
	case c.Serial != "" && c.Serial != full.Serial:
		return "serial " + c.Serial
	case c.NotBefore.IsValid() && c.NotBefore != full.NotBefore, c.NotAfter.IsValid() && c.NotAfter != full.NotAfter:
		return "validity"
	case c.Version != 0 && c.Version != full.Version:
		return "version"
	case c.PublicKeyAlgorithm != "" && c.PublicKeyAlgorithm != full.PublicKeyAlgorithm,
		c.PublicKeySize != 0 && c.PublicKeySize != full.PublicKeySize,
		c.PublicKeyCurve != "" && c.PublicKeyCurve != full.PublicKeyCurve,
		c.PublicKeyExponent != 0 && c.PublicKeyExponent != full.PublicKeyExponent:
		return "public key"
	case c.SignatureBits != 0 && c.SignatureBits != full.SignatureBits:
		return "signature"
	case c.PathLen >= 0 && c.PathLen != full.PathLen, c.SCTs != 0 && c.SCTs != full.SCTs, !begins(full.Policies, c.Policies),
		!begins(full.Permitted, c.Permitted), !begins(full.Excluded, c.Excluded),
		c.SerialPadded && !full.SerialPadded:
		return "constraints, policies or timestamps"
	case c.IsCA && !full.IsCA, c.BasicConstraints && !full.BasicConstraints, c.SelfSigned && !full.SelfSigned,
		c.KeyUsage != 0 && c.KeyUsage != full.KeyUsage, !begins(full.ExtendedKeyUsage, c.ExtendedKeyUsage),
		c.SubjectKeyID != nil && !bytes.Equal(c.SubjectKeyID, full.SubjectKeyID),
		c.AuthorityKeyID != nil && !bytes.Equal(c.AuthorityKeyID, full.AuthorityKeyID):
		return "extensions"
	}
	return ""
}
