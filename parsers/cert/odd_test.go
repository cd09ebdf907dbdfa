package cert

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// odd are certificates that no good program issues. OpenSSL reads those without
// refused.
var odd = []struct {
	name    string
	der     []byte
	refused bool // by OpenSSL, in whole or in the odd part
	problem string
	check   func(c *Certificate) bool
}{
	{name: "plain", der: plain().bytes(), check: func(c *Certificate) bool {
		return c.Subject.String == "C=US, O=Microsoft, OU=DSP, CN=www.update.microsoft.com" && c.PublicKeySize == 1024 &&
			c.SignatureBits == 1024 && c.IsCA && len(c.DNSNames) == 2 && c.IPAddresses[0] == "192.0.2.1" && !c.SelfSigned
	}},
	{name: "negative serial", der: with(func(p *parts) { p.serial = []byte{0x80, 0x01} }), problem: "serialNumber: negative",
		check: func(c *Certificate) bool { return c.Serial == "-7FFF" }},
	{name: "serial -1", der: with(func(p *parts) { p.serial = []byte{0xff} }), problem: "serialNumber: negative",
		check: func(c *Certificate) bool { return c.Serial == "-01" }},
	{name: "serial -128", der: with(func(p *parts) { p.serial = []byte{0x80} }), problem: "serialNumber: negative",
		check: func(c *Certificate) bool { return c.Serial == "-80" }},
	{name: "serial -129", der: with(func(p *parts) { p.serial = []byte{0xff, 0x7f} }), problem: "serialNumber: negative",
		check: func(c *Certificate) bool { return c.Serial == "-81" }},
	{name: "serial -256", der: with(func(p *parts) { p.serial = []byte{0xff, 0} }), problem: "serialNumber: negative",
		check: func(c *Certificate) bool { return c.Serial == "-0100" && !c.SerialPadded }},
	{name: "serial negative and padded", der: with(func(p *parts) { p.serial = []byte{0xff, 0xff, 0x80} }), refused: true, problem: "serialNumber: padded",
		check: func(c *Certificate) bool {
			return strings.HasSuffix(c.Serial, "80") && c.Serial[0] == '-' && c.SerialPadded
		}},
	{name: "serial 0", der: with(func(p *parts) { p.serial = []byte{0} }),
		check: func(c *Certificate) bool { return c.Serial == "00" }},
	{name: "serial with a leading zero digit", der: with(func(p *parts) { p.serial = []byte{0x0a} }),
		check: func(c *Certificate) bool { return c.Serial == "0A" }},
	{name: "serial with a sign octet", der: with(func(p *parts) { p.serial = []byte{0, 0xa1, 0} }),
		check: func(c *Certificate) bool { return c.Serial == "A100" && !c.SerialPadded }},
	{name: "serial padded", der: with(func(p *parts) { p.serial = []byte{0, 0, 1} }), refused: true, problem: "serialNumber: padded",
		check: func(c *Certificate) bool { return c.Serial == "000001" && c.SerialPadded }},
	{name: "serial padded before a sign octet", der: with(func(p *parts) { p.serial = []byte{0, 0, 0x81} }), refused: true, problem: "serialNumber: padded",
		check: func(c *Certificate) bool { return c.Serial == "000081" && c.SerialPadded }},
	{name: "serial without octets", der: with(func(p *parts) { p.serial = nil }), refused: true,
		problem: "serialNumber: empty"},
	{name: "serial of a kilobyte", der: with(func(p *parts) { p.serial = bytes.Repeat([]byte{1}, 1024) }), refused: true,
		problem: "serialNumber: more than 128 bytes"},
	{name: "empty subject", der: with(func(p *parts) { p.subject = rdns() }),
		check: func(c *Certificate) bool { return c.Subject.String == "" && c.Issuer.String == "C=US, CN=Issuing CA" }},
	{name: "self-signed", der: with(func(p *parts) { p.issuer = p.subject }),
		check: func(c *Certificate) bool { return c.SelfSigned }},
	{name: "T61String", der: with(func(p *parts) { p.subject = rdns(attribute(oidCN, asn1.T61String, "M\xfcller")) }),
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "Müller" }},
	{name: "BMPString", der: with(func(p *parts) { p.subject = rdns(attribute(oidCN, bmpString, "\x00M\x00\xfc\x20\xac")) }),
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "Mü€" }},
	{name: "UniversalString", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, universalString, "\x00\x00\x00M\x00\x01\xf6\x00"))
	}), check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "M😀" }},
	{name: "NumericString", der: with(func(p *parts) { p.subject = rdns(attribute(oidCN, numericString, "17 4")) }),
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "17 4" }},
	{name: "VisibleString", refused: true, der: with(func(p *parts) { p.subject = rdns(attribute(oidCN, visibleString, "a~b")) }),
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "a~b" }},
	{name: "BMPString with surrogates", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, bmpString, "\xd8\x3d\xde\x00\xd8\x00\x00a\x01"))
	}), refused: true, problem: "subject: bad string",
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "😀\ufffda\ufffd" }},
	{name: "UniversalString beyond Unicode", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, universalString, "\xff\x00\x00M\x00\x00\x00b"))
	}), refused: true, problem: "subject: bad string",
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "\ufffdb" }},
	{name: "bad UTF-8", der: with(func(p *parts) { p.subject = rdns(attribute(oidCN, asn1.UTF8String, "a\xc3(\xff")) }),
		refused: true, problem: "subject: bad string",
		check: func(c *Certificate) bool { return c.Subject.String == "CN=a\ufffd(\ufffd" }},
	{name: "UTF-8 in a PrintableString", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, asn1.PrintableString, "Müller"))
	}), refused: true, problem: "subject: bad string",
		check: func(c *Certificate) bool { return c.Subject.CommonName[0] == "Müller" }},
	{name: "null character", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, asn1.UTF8String, "www.bank.example\x00.evil.example"))
	}), check: func(c *Certificate) bool {
		return c.Subject.CommonName[0] == "www.bank.example\x00.evil.example" &&
			c.Subject.String == `CN=www.bank.example\00.evil.example`
	}},
	{name: "characters to escape", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidO, asn1.UTF8String, ` a,b+c"d\e<f>g;h=i#j `),
			attribute(oidCN, asn1.UTF8String, "#\t\x7f\r\nx"), attribute(oidCN, asn1.UTF8String, " "), attribute(oidCN, asn1.UTF8String, ""))
	}), check: func(c *Certificate) bool {
		return c.Subject.String == `O=\ a\,b\+c\"d\\e\<f\>g\;h=i#j\ , CN=\#\09\7F\0D\0Ax, CN=\ , CN=`
	}},
	{name: "several values in one RDN", der: with(func(p *parts) {
		p.subject = sequence(der(asn1.SET, attribute(oidC, asn1.PrintableString, "NL"), attribute(oidCN, asn1.UTF8String, "a")),
			der(asn1.SET, attribute(oidCN, asn1.UTF8String, "b")))
	}), check: func(c *Certificate) bool { return c.Subject.String == "C=NL+CN=a, CN=b" }},
	{name: "many kinds of attributes", der: with(func(p *parts) {
		var all [][]byte
		for _, last := range []byte{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20, 41, 42, 43, 44, 45, 46, 65, 97} {
			all = append(all, attribute([]byte{6, 3, 0x55, 4, last}, asn1.UTF8String, "x"))
		}
		for _, oid := range [][]byte{
			{6, 10, 0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1}, {6, 10, 0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25},
			{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1}, {6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2}, {6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 8},
			{6, 11, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 1}, {6, 11, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 2}, {6, 11, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x3c, 2, 1, 3},
			{6, 3, 0x2a, 3, 4}, {6, 3, 0x88, 0x37, 3},
			append([]byte{6, 20, 0x69, 0x83, 0xff}, append(bytes.Repeat([]byte{0xaa}, 16), 0x11)...),
		} {
			all = append(all, attribute(oid, asn1.UTF8String, "x"))
		}
		p.subject = rdns(all...)
	}), check: func(c *Certificate) bool { return strings.Contains(c.Subject.String, "1.2.3.4=x, 2.999.3=x") }},
	{name: "value that is no string", der: with(func(p *parts) {
		p.subject = rdns(attribute(oidCN, asn1.INTEGER, "\x01\xab"), attribute(oidO, asn1.UTF8String, "o"))
	}), refused: true, problem: "subject: not a string",
		check: func(c *Certificate) bool {
			return c.Subject.String == "CN=#020201ab, O=o" && c.Subject.CommonName == nil
		}},
	{name: "GeneralizedTime", der: with(func(p *parts) {
		p.validity = sequence(der(asn1.GeneralizedTime, []byte("19491231235959Z")), der(asn1.GeneralizedTime, []byte("99991231235959Z")))
	}), check: func(c *Certificate) bool {
		return c.NotAfter.Time().Year() == 9999 && c.NotBefore.Time().Year() == 1949
	}},
	{name: "year 1 and year 0", der: with(func(p *parts) {
		p.validity = sequence(der(asn1.GeneralizedTime, []byte("00010101000000Z")), der(asn1.GeneralizedTime, []byte("00000229000000Z")))
	}), check: func(c *Certificate) bool {
		return c.NotBefore.IsValid() && c.NotBefore.String() == "0001-01-01T00:00:00Z" && c.NotAfter.String() == "0000-02-29T00:00:00Z"
	}},
	{name: "UTCTime either side of 1950", der: with(func(p *parts) { p.validity = utcTimes("500101000000Z", "491231235959Z") }),
		check: func(c *Certificate) bool {
			return c.NotBefore.Time().Year() == 1950 && c.NotAfter.Time().Year() == 2049
		}},
	{name: "one bad time", der: with(func(p *parts) { p.validity = utcTimes("170230120000Z", "190227000000Z") }), refused: true,
		problem: "validity: bad time",
		check: func(c *Certificate) bool {
			return !c.NotBefore.IsValid() && c.NotAfter.Time().Equal(time.Date(2019, 2, 27, 0, 0, 0, 0, time.UTC)) && c.Subject.CommonName != nil
		}},
	{name: "version 1", der: with(func(p *parts) { p.version, p.extension = nil, nil }),
		check: func(c *Certificate) bool { return c.Version == 1 }},
	{name: "version 1 with extensions", der: with(func(p *parts) { p.version = nil }), problem: "extensions: version is not 3",
		check: func(c *Certificate) bool { return c.Version == 1 && len(c.DNSNames) == 2 }},
	{name: "version 18", der: with(func(p *parts) { p.version = []byte{17} }), problem: "version: none of 1 to 3",
		check: func(c *Certificate) bool { return c.Version == 0 && c.Serial == "33001C" }},
	{name: "RSA-512, MD5", der: with(func(p *parts) {
		p.key, p.algorithm, p.signature = rsaKey(512), sequence(oidMD5RSA, null), make([]byte, 64)
	}), check: func(c *Certificate) bool {
		return c.PublicKeySize == 512 && c.PublicKeyExponent == 65537 && c.SignatureAlgorithm == "MD5-RSA" && c.SignatureBits == 512
	}},
	{name: "RSA exponent of 0", der: with(func(p *parts) {
		p.key = sequence(sequence(oidRSAKey, null), der(asn1.BIT_STRING, []byte{0},
			sequence(der(asn1.INTEGER, []byte{0x7f, 1}), der(asn1.INTEGER, []byte{0}))))
	}), problem: "subjectPublicKeyInfo: number not positive",
		check: func(c *Certificate) bool { return c.PublicKeySize == 15 }},
	{name: "DSA", der: with(func(p *parts) {
		p.key = sequence(sequence(oidDSAKey, sequence(der(asn1.INTEGER, []byte{0}, bytes.Repeat([]byte{0xcd}, 128)),
			der(asn1.INTEGER, []byte{0x71}), der(asn1.INTEGER, []byte{2}))), der(asn1.BIT_STRING, []byte{0}, der(asn1.INTEGER, []byte{5})))
	}), check: func(c *Certificate) bool { return c.PublicKeyAlgorithm == "DSA" && c.PublicKeySize == 1024 }},
	{name: "explicit curve", der: with(func(p *parts) { // CVE-2020-0601
		p.key = sequence(sequence(oidECKey, sequence(der(asn1.INTEGER, []byte{1}), sequence(oidPrimeField,
			der(asn1.INTEGER, []byte{0}, bytes.Repeat([]byte{0xff}, 32))))), der(asn1.BIT_STRING, []byte{0, 4}, make([]byte, 64)))
	}), problem: "subjectPublicKeyInfo: explicit curve",
		check: func(c *Certificate) bool { return c.PublicKeyCurve == "explicit" && c.PublicKeySize == 256 }},
	{name: "key of no known kind", der: with(func(p *parts) {
		p.key = sequence(sequence([]byte{6, 3, 0x2a, 3, 4}), der(asn1.BIT_STRING, []byte{0, 1}))
	}), check: func(c *Certificate) bool { return c.PublicKeyAlgorithm == "1.2.3.4" && c.PublicKeySize == 0 }},
	{name: "two signature algorithms", der: func() []byte {
		p := plain()
		return sequence(p.tbs(), sequence(oidMD5RSA, null), der(asn1.BIT_STRING, []byte{0}, p.signature))
	}(), problem: "signatureAlgorithm: not the one in tbsCertificate",
		check: func(c *Certificate) bool { return c.SignatureAlgorithm == "MD5-RSA" }},
	{name: "subjectAltName twice", der: with(func(p *parts) {
		p.extension = append(p.extension, extensionOf(oidSAN, sequence(der(asn1.Tag(2).ContextSpecific(), []byte("more.example"))))...)
	}), problem: "subjectAltName: repeated",
		check: func(c *Certificate) bool { return len(c.DNSNames) == 3 && c.DNSNames[2] == "more.example" }},
	{name: "IP address with a mask", der: with(func(p *parts) {
		p.extension = extensionOf(oidSAN, sequence(der(asn1.Tag(7).ContextSpecific(), make([]byte, 8)), der(asn1.Tag(7).ContextSpecific(), make([]byte, 16))))
	}), problem: "subjectAltName: bad IP address",
		check: func(c *Certificate) bool { return len(c.IPAddresses) == 1 && c.IPAddresses[0] == "::" }},
	{name: "extension that is garbage", der: with(func(p *parts) {
		p.extension = append(extensionOf(oidKeyUsage, []byte{4, 1, 0}), p.extension...)
	}), problem: "keyUsage: unexpected type",
		check: func(c *Certificate) bool { return len(c.DNSNames) == 2 && c.IsCA && len(c.SubjectKeyID) == 4 }},
	{name: "extension with a wild length", der: with(func(p *parts) {
		p.extension = append(extensionOf(oidKeyUsage, []byte{3, 0x84, 0xff}), p.extension...)
	}), problem: "keyUsage: bad length",
		check: func(c *Certificate) bool { return len(c.DNSNames) == 2 && c.IsCA && len(c.SubjectKeyID) == 4 }},
	{name: "constraints of all kinds", der: with(func(p *parts) {
		subtree := func(base []byte) []byte { return sequence(base) }
		p.extension = bytes.Join([][]byte{
			extensionOf(oidConstraints, sequence([]byte{1, 1, 0xff}, []byte{2, 1, 0})),
			extensionOf(oidNameConstraints, sequence(
				der(explicit0, subtree(general(2, "example.com")), subtree(general(1, ".example.org")), subtree(general(6, "uri.example")),
					subtree(general(7, "\x0a\x00\x00\x00\xff\x00\x00\x00"))),
				der(asn1.Tag(1).Constructed().ContextSpecific(), subtree(general(7, strings.Repeat("\x00", 32))),
					subtree(general(7, "\x0a\x00\x00\x07\xff\x00\x00\xff")),
					subtree(der(asn1.Tag(4).Constructed().ContextSpecific(), rdns(attribute(oidC, asn1.PrintableString, "US"), attribute(oidO, asn1.UTF8String, "O")))),
					subtree(general(8, "\x2a\x03"))))),
			extensionOf(oidPolicies, sequence(sequence([]byte{6, 4, 0x55, 0x1d, 0x20, 0}), sequence([]byte{6, 2, 0x2a, 3}, sequence()))),
			extensionOf(oidKeyUsage, der(asn1.BIT_STRING, []byte{7, 0x06, 0x80})),
			extensionOf(oidSCTs, der(asn1.OCTET_STRING, []byte{0, 8, 0, 1, 7, 0, 3, 1, 2, 3})),
		}, nil)
	}), refused: true, check: func(c *Certificate) bool {
		return c.IsCA && c.PathLen == 0 && c.SCTs == 2 && slices.Equal(slices.Collect(c.KeyUsage.Names), []string{"keyCertSign", "cRLSign", "decipherOnly"}) &&
			slices.Equal(c.Policies, []string{"2.5.29.32.0", "1.2.3"}) &&
			slices.Equal(c.Permitted, []string{"example.com", ".example.org", "uri.example", "10.0.0.0/8"}) &&
			slices.Equal(c.Excluded, []string{"::/0", "10.0.0.7/255.0.0.255", "C=US, O=O", "#88022a03"})
	}},
	{name: "path length that does not fit", der: with(func(p *parts) {
		p.extension = extensionOf(oidConstraints, sequence([]byte{1, 1, 0xff}, der(asn1.INTEGER, bytes.Repeat([]byte{1}, 9))))
	}), problem: "basicConstraints: bad path length", check: func(c *Certificate) bool { return c.IsCA && c.PathLen == -1 }},
	{name: "timestamps that go on beyond their list", der: with(func(p *parts) {
		p.extension = extensionOf(oidSCTs, der(asn1.OCTET_STRING, []byte{0, 6, 0, 1, 7, 0, 9, 1}))
	}), refused: true, problem: "SignedCertificateTimestampList: bad length", check: func(c *Certificate) bool { return c.SCTs == 1 }},
	{name: "trailing bytes", der: append(plain().bytes(), 0, 1, 2), problem: "certificate: trailing bytes",
		check: func(c *Certificate) bool {
			return c.SHA256 == sha256.Sum256(append(plain().bytes(), 0, 1, 2)) && c.TBSSHA256 == sha256.Sum256(plain().tbs())
		}},
	{name: "no certificate", der: []byte("-----BEGIN CERTIFICATE-----"), refused: true, problem: "certificate: unexpected type"},
	{name: "nothing", der: []byte{}, refused: true, problem: "certificate: missing"},
}

func TestOdd(t *testing.T) {
	for _, test := range odd {
		t.Run(test.name, func(t *testing.T) {
			c := Parse(test.der)
			if c.ParseError != test.problem {
				t.Errorf("ParseError is %q, want %q", c.ParseError, test.problem)
			}
			if test.check != nil && !test.check(c) {
				t.Errorf("read wrong: %+v", c)
			}
			if c.SHA256 != sha256.Sum256(test.der) {
				t.Error("hash is not of the bytes")
			}
			checkPrefixes(t, test.der)
		})
	}
}

// An odd field must not take the others along.
func TestOddElsewhere(t *testing.T) {
	for _, test := range odd {
		if test.name == "nothing" || test.name == "no certificate" {
			continue
		}
		c := Parse(test.der)
		if c.Issuer.String == "" || c.SPKISHA256 == [32]byte{} || c.TBSSHA256 == [32]byte{} || c.SignatureAlgorithm == "" ||
			c.SignatureBits == 0 || !c.NotAfter.IsValid() || c.PublicKeyAlgorithm == "" {
			t.Errorf("%s: fields are missing: %+v", test.name, c)
		}
	}
}

func TestAgainstOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	path := filepath.Join(t.TempDir(), "certificate.der")
	names := strings.NewReplacer(" + ", "+", "serialNumber=", "SERIALNUMBER=", "street=", "STREET=")
	for _, test := range odd {
		if test.refused {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			c := Parse(test.der)
			// OpenSSL stops where the certificate does.
			whole := Parse(test.der[:len(test.der)-len(trailing(test.der))])
			if err := os.WriteFile(path, test.der, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(openssl, "x509", "-inform", "DER", "-in", path, "-noout", "-serial", "-subject", "-issuer", "-dates",
				"-fingerprint", "-sha256", "-nameopt", "esc_2253,esc_ctrl,utf8,sep_comma_plus_space,sname").CombinedOutput()
			if err != nil {
				t.Fatalf("openssl: %v: %s", err, out)
			}
			date := func(d Date) string {
				return d.Time().Format("Jan _2 15:04:05 ") + strconv.Itoa(d.Time().Year()) + " GMT"
			}
			want := "serial=" + c.Serial + "\nsubject=" + c.Subject.String + "\nissuer=" + c.Issuer.String +
				"\nnotBefore=" + date(c.NotBefore) + "\nnotAfter=" + date(c.NotAfter) +
				"\nsha256 Fingerprint=" + colons(whole.SHA256[:]) + "\n"
			if got := names.Replace(string(out)); got != want {
				t.Errorf("openssl prints\n%s\nwe have\n%s", got, want)
			}
		})
	}
}

func trailing(der []byte) []byte {
	_, rest, _ := read(der, 1)
	return rest
}

func colons(b []byte) string {
	var s []string
	for _, x := range b {
		s = append(s, string("0123456789ABCDEF"[x>>4])+string("0123456789ABCDEF"[x&15]))
	}
	return strings.Join(s, ":")
}

// Lengths that BER allows and DER does not lose nothing.
func TestBER(t *testing.T) {
	p := plain()
	want := Parse(p.bytes())
	longForm := func(e []byte) []byte { // 82 hh ll becomes 84 00 00 hh ll
		if e[1] != 0x82 {
			t.Fatal("element is too short for this")
		}
		return append([]byte{e[0], 0x84, 0, 0}, e[2:]...)
	}
	rest := func(tbs []byte) []byte {
		return bytes.Join([][]byte{tbs, p.algorithm, der(asn1.BIT_STRING, []byte{0}, p.signature)}, nil)
	}
	subject := indefinite(t, p.subject)
	q := p
	q.subject, q.issuer = subject, indefinite(t, p.issuer)
	deep := p
	for range 3 * maxDepth {
		deep.extension = indefinite(t, sequence(deep.extension))
	}
	tests := map[string][]byte{
		"certificate indefinite":      indefinite(t, p.bytes()),
		"certificate non-minimal":     longForm(p.bytes()),
		"tbsCertificate indefinite":   sequence(rest(indefinite(t, p.tbs()))),
		"tbsCertificate non-minimal":  sequence(rest(longForm(p.tbs()))),
		"names indefinite":            q.bytes(),
		"all of the above indefinite": indefinite(t, sequence(rest(indefinite(t, q.tbs())))),
	}
	for name, raw := range tests {
		c := Parse(raw)
		if c.SHA256 != sha256.Sum256(raw) || c.SPKISHA256 != want.SPKISHA256 {
			t.Errorf("%s: hashes are wrong", name)
		}
		if c.Subject.String != want.Subject.String || c.Issuer.String != want.Issuer.String || c.Serial != want.Serial ||
			c.NotAfter != want.NotAfter || len(c.DNSNames) != 2 || c.SignatureBits != want.SignatureBits {
			t.Errorf("%s: %+v", name, c)
		}
		if !strings.HasSuffix(c.ParseError, ": length not DER") {
			t.Errorf("%s: ParseError is %q", name, c.ParseError)
		}
		checkPrefixes(t, raw)
	}
	if c := Parse(indefinite(t, deep.bytes())); c.Subject.String != want.Subject.String {
		t.Errorf("deep: %+v", c)
	}
}

// A value counts from its last byte on, and not before.
func TestSalvage(t *testing.T) {
	raw := plain().bytes()
	find := func(value string, occurrence int) int { // the offset behind it
		end := 0
		for range occurrence {
			i := bytes.Index(raw[end:], []byte(value))
			if i < 0 {
				t.Fatalf("%q is not in the certificate", value)
			}
			end += i + len(value)
		}
		return end
	}
	tests := []struct {
		value string
		end   int
		has   func(c *Certificate) bool
	}{
		{"serial", find("\x02\x03\x33\x00\x1c", 1), func(c *Certificate) bool { return c.Serial == "33001C" }},
		{"issuer", find("Issuing CA", 1), func(c *Certificate) bool { return c.Issuer.String == "C=US, CN=Issuing CA" }},
		{"notBefore", find("170227120000Z", 1), func(c *Certificate) bool { return c.NotBefore.Time().Year() == 2017 }},
		{"notAfter", find("190227000000Z", 1), func(c *Certificate) bool { return c.NotAfter.Time().Year() == 2019 }},
		{"subject", find("www.update.microsoft.com", 1), func(c *Certificate) bool {
			return c.Subject.String == "C=US, O=Microsoft, OU=DSP, CN=www.update.microsoft.com" && c.Subject.CommonName[0] == "www.update.microsoft.com"
		}},
		{"first name", find("www.update.microsoft.com", 2), func(c *Certificate) bool {
			return len(c.DNSNames) == 1 && c.DNSNames[0] == "www.update.microsoft.com"
		}},
		{"second name", find("\x14update.microsoft.com", 1), func(c *Certificate) bool { return len(c.DNSNames) == 2 }},
	}
	for _, test := range tests {
		part := bytes.Clone(raw[:test.end])
		c := Salvage(part)
		clear(part) // it was borrowed
		if !test.has(c) {
			t.Errorf("%s: not there at its last byte: %+v", test.value, c)
		}
		if c := Salvage(raw[:test.end-1]); test.has(c) {
			t.Errorf("%s: there before its last byte", test.value)
		}
	}
	part := bytes.Clone(raw)
	c := Salvage(part)
	clear(part)
	if !bytes.Equal(c.SubjectKeyID, []byte{1, 2, 3, 4}) {
		t.Errorf("SubjectKeyID is %x", c.SubjectKeyID)
	}
}

func TestParseCopies(t *testing.T) {
	raw := plain().bytes()
	borrowed := bytes.Clone(raw)
	c := Parse(borrowed)
	clear(borrowed)
	if !bytes.Equal(c.DER, raw) || !bytes.Equal(c.SubjectKeyID, []byte{1, 2, 3, 4}) {
		t.Error("the certificate changes with the caller's bytes")
	}
}

// A certificate of megabytes, full of names, costs little beyond its own bytes.
func TestLimits(t *testing.T) {
	const total = 1 << 22
	long := strings.Repeat("é", maxValue)
	fill := func(e []byte) []byte { return bytes.Repeat(e, total/len(e)) }
	name := der(asn1.Tag(2).ContextSpecific(), []byte("a.example"))
	tests := []struct {
		name    string
		der     []byte
		problem string
		check   func(c *Certificate) bool
	}{
		{"attributes", with(func(p *parts) {
			p.subject = sequence(fill(der(asn1.SET, attribute(oidCN, asn1.UTF8String, "a"))))
		}), "subject: more than 64 attributes", func(c *Certificate) bool { return len(c.Subject.CommonName) == maxAttributes }},
		{"long value", with(func(p *parts) {
			p.subject = rdns(attribute(oidCN, asn1.UTF8String, "x"+long), attribute(oidO, asn1.UTF8String, "o"))
		}), "subject: value of more than 1024 bytes", func(c *Certificate) bool {
			cn := c.Subject.CommonName[0]
			return len(cn) == maxValue-1 && strings.HasPrefix("x"+long, cn) && c.Subject.Organization[0] == "o"
		}},
		{"long name", with(func(p *parts) {
			p.subject = rdns(append(slices.Repeat([][]byte{attribute(oidO, asn1.UTF8String, strings.Repeat("o", 1000))}, 20),
				attribute(oidCN, asn1.UTF8String, "y"))...)
		}), "subject: more than 8192 bytes", func(c *Certificate) bool {
			more := c.MoreNames()
			kind, name, ok := more.Next()
			return len(c.Subject.Organization) == 9 && ok && kind == CommonName && name == "y"
		}},
		{"long BMPString", with(func(p *parts) { p.subject = rdns(attribute(oidCN, bmpString, strings.Repeat("\x20\xac", maxValue))) }),
			"subject: value of more than 1024 bytes", func(c *Certificate) bool { return c.Subject.CommonName[0] == strings.Repeat("€", maxValue/2) }},
		{"names", with(func(p *parts) { p.extension = extensionOf(oidSAN, sequence(fill(name))) }),
			"subjectAltName: more than 2048 names", func(c *Certificate) bool { return len(c.DNSNames) == maxAltNames }},
		{"extensions of names", with(func(p *parts) { p.extension = fill(extensionOf(oidSAN, sequence(name))) }),
			"subjectAltName: repeated", func(c *Certificate) bool { return len(c.DNSNames) == maxAltNames }},
		{"usages", with(func(p *parts) {
			p.extension = extensionOf([]byte{6, 3, 0x55, 0x1d, 0x25}, sequence(fill([]byte{6, 3, 0x2a, 3, 4})))
		}), "extKeyUsage: more than 64 usages", func(c *Certificate) bool { return len(c.ExtendedKeyUsage) == maxUsages }},
		{"policies", with(func(p *parts) {
			p.extension = extensionOf(oidPolicies, sequence(fill(sequence([]byte{6, 3, 0x2a, 3, 4}))))
		}), "certificatePolicies: more than 64 policies", func(c *Certificate) bool { return len(c.Policies) == maxPolicies }},
		{"constraints", with(func(p *parts) {
			p.extension = extensionOf(oidNameConstraints, sequence(der(explicit0, fill(sequence(name)))))
		}), "nameConstraints: more than 256 names", func(c *Certificate) bool { return len(c.Permitted) == maxSubtrees }},
		{"object identifier", with(func(p *parts) {
			p.subject = rdns(attribute(append([]byte{6, 0x81, 0xc8}, bytes.Repeat([]byte{1}, 200)...), asn1.UTF8String, "x"), attribute(oidCN, asn1.UTF8String, "y"))
		}), "subject: bad object identifier", func(c *Certificate) bool { return c.Subject.String == "CN=y" }},
		{"key identifier", with(func(p *parts) {
			p.extension = extensionOf(oidSKI, der(asn1.OCTET_STRING, make([]byte, maxKeyID+1)))
		}), "subjectKeyIdentifier: more than 128 bytes", func(c *Certificate) bool { return c.SubjectKeyID == nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Parse(test.der)
			if c.ParseError != test.problem {
				t.Errorf("ParseError is %q, want %q", c.ParseError, test.problem)
			}
			if !test.check(c) {
				t.Error("kept something else")
			}
			if beyond := c.Size() - len(c.DER); beyond > 1<<20 {
				t.Errorf("costs %d bytes beyond the DER", beyond)
			}
			if !utf8.ValidString(c.Subject.String) {
				t.Error("the subject is not UTF-8")
			}
		})
	}
}

func TestTimes(t *testing.T) {
	date := func(year, month, day, hour, minute, second int) time.Time {
		return time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	}
	tests := []struct {
		tag  asn1.Tag
		text string
		want time.Time
		bad  bool
	}{
		{tag: asn1.UTCTime, text: "170227120000Z", want: date(2017, 2, 27, 12, 0, 0)},
		{tag: asn1.UTCTime, text: "1702271200Z", want: date(2017, 2, 27, 12, 0, 0)},
		{tag: asn1.UTCTime, text: "170227120000+0130", want: date(2017, 2, 27, 10, 30, 0)},
		{tag: asn1.UTCTime, text: "1702271200-0100", want: date(2017, 2, 27, 13, 0, 0)},
		{tag: asn1.UTCTime, text: "170227120000", want: date(2017, 2, 27, 12, 0, 0)},
		{tag: asn1.UTCTime, text: "240229000000Z", want: date(2024, 2, 29, 0, 0, 0)},
		{tag: asn1.GeneralizedTime, text: "00000101000000Z", want: date(0, 1, 1, 0, 0, 0)},
		{tag: asn1.GeneralizedTime, text: "99991231235959Z", want: date(9999, 12, 31, 23, 59, 59)},
		{tag: asn1.GeneralizedTime, text: "20170227120000.25Z", want: date(2017, 2, 27, 12, 0, 0)},
		{tag: asn1.GeneralizedTime, text: "2017022712Z", want: date(2017, 2, 27, 12, 0, 0)},
		{tag: asn1.GeneralizedTime, text: "99991231235959-0100", bad: true},
		{tag: asn1.GeneralizedTime, text: "00000101000000+0100", bad: true},
		{tag: asn1.UTCTime, text: "230229000000Z", bad: true},
		{tag: asn1.UTCTime, text: "170027120000Z", bad: true},
		{tag: asn1.UTCTime, text: "171327120000Z", bad: true},
		{tag: asn1.UTCTime, text: "170200120000Z", bad: true},
		{tag: asn1.UTCTime, text: "170227240000Z", bad: true},
		{tag: asn1.UTCTime, text: "170227126000Z", bad: true},
		{tag: asn1.UTCTime, text: "170227120060Z", bad: true},
		{tag: asn1.UTCTime, text: "170227120000ZZ", bad: true},
		{tag: asn1.UTCTime, text: "170227120000+2400", bad: true},
		{tag: asn1.UTCTime, text: "17022712000-Z", bad: true},
		{tag: asn1.UTCTime, text: "17 227120000Z", bad: true},
		{tag: asn1.UTCTime, text: "", bad: true},
		{tag: asn1.UTF8String, text: "170227120000Z", bad: true},
	}
	for _, test := range tests {
		got, ok := parseTime(test.tag, []byte(test.text))
		if ok == test.bad || !got.Equal(test.want) || ok && got.Location() != time.UTC {
			t.Errorf("%q is %v, %v; want %v", test.text, got, ok, test.want)
		}
	}
}
