package zeek

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cx509 "crypto/x509"
	"crypto/x509/pkix"
	encodingasn1 "encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// openssl runs OpenSSL 3, whose words Zeek's logs have.
func openssl(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is missing")
	}
	c := exec.Command(path, args...)
	c.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

// certificateRecord is a record of a certificate.
func certificateRecord(t testing.TB, der []byte) *output.Record {
	t.Helper()
	c := cert.Parse(der)
	d := map[string]any{
		"@timestamp": "2026-11-29T07:08:09Z",
		"oddcert": map[string]any{"certificate": map[string]any{
			"role": "leaf", "der": base64.StdEncoding.EncodeToString(der),
			"hash": map[string]any{"sha256": fmt.Sprintf("%X", c.SHA256)},
		}},
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return &output.Record{Dataset: output.Certificate, JSON: b}
}

// issue makes a certificate with a name in DER.
func issue(t testing.TB, key *ecdsa.PrivateKey, name []byte) []byte {
	t.Helper()
	template := &cx509.Certificate{
		SerialNumber: big.NewInt(0x8001), RawSubject: name,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<31, 0),
	}
	der, err := cx509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// member is an attribute of a name; joined to the one before it in one set.
type member struct {
	oid    string
	tag    asn1.Tag
	value  []byte
	joined bool
}

func rdnSequence(t testing.TB, members ...member) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for len(members) > 0 {
			n := 1
			for n < len(members) && members[n].joined {
				n++
			}
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				for _, m := range members[:n] {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						var oid encodingasn1.ObjectIdentifier
						for part := range strings.SplitSeq(m.oid, ".") {
							x := 0
							fmt.Sscan(part, &x)
							oid = append(oid, x)
						}
						b.AddASN1ObjectIdentifier(oid)
						b.AddASN1(m.tag, func(b *cryptobyte.Builder) { b.AddBytes(m.value) })
					})
				}
			})
			members = members[n:]
		}
	})
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// oddNames are names with everything that is printed in a way of its own.
func oddNames(t testing.TB) (names [][]byte) {
	const cn, unknown = "2.5.4.3", "1.3.6.1.4.1.99999.7"
	var all []member
	for _, tag := range []asn1.Tag{asn1.UTF8String, asn1.PrintableString, asn1.T61String, asn1.IA5String, 18} {
		var ascii, latin []byte
		for c := range 0x80 {
			ascii = append(ascii, byte(c))
			latin = append(latin, byte(c+0x80))
		}
		all = append(all, member{cn, tag, ascii, false}, member{unknown, tag, ascii[0x70:], true})
		if tag != asn1.UTF8String {
			all = append(all, member{cn, tag, latin[0x70:], true})
		}
	}
	for _, s := range []string{"#", " ", "  ", "#a", " a", "a ", "a  b", "a#", "=", "a=b", "\\", "ü", "日本 ", "€", "😀", "*.example", `a, b+c "d" <e>; f\g`} {
		all = append(all, member{cn, asn1.UTF8String, []byte(s), false})
	}
	all = append(all, member{cn, 30, []byte{0, 'a', 0, ',', 0x20, 0xAC, 0, ' '}, false}, member{cn, 28, []byte{0, 0, 0, 'b', 0, 1, 0xF6, 0}, false},
		member{cn, asn1.BIT_STRING, []byte{0, 5}, false})
	for oid := range shortNames {
		all = append(all, member{oid, asn1.UTF8String, []byte("x"), len(all)%3 == 1})
	}
	for len(all) > 0 {
		n := min(len(all), 12)
		names = append(names, rdnSequence(t, all[:n]...))
		all = all[n:]
	}
	return names
}

// TestOpenSSL compares the columns of x509.log that are OpenSSL's words with what
// OpenSSL prints: for names that are odd, for the authorities of browsers, and for the
// certificates of captures.
func TestOpenSSL(t *testing.T) {
	var ders [][]byte
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range oddNames(t) {
		ders = append(ders, issue(t, key, name))
	}
	ders = append(ders, longLengths(t, ders[0]))
	for _, file := range []string{"records.txt", "public.txt"} {
		for _, r := range records(t, file) {
			if d, err := document.Read(r.JSON); err == nil && r.Dataset == output.Certificate {
				der, _ := base64.StdEncoding.DecodeString(d.Oddcert.Certificate.DER)
				ders = append(ders, der)
			}
		}
	}
	if !testing.Short() {
		n := 0
		for root := range bundle.Roots() {
			if n++; n%10 == 0 {
				ders = append(ders, root.Certificate)
			}
		}
	}
	for _, der := range ders {
		compare(t, der)
	}
}

// longLengths is a certificate with all lengths of its outer elements written in four
// octets, which is no DER.
func longLengths(t *testing.T, der []byte) []byte {
	t.Helper()
	long := func(tag byte, content []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{tag, 0x84}, uint32(len(content))), content...)
	}
	certificate, _ := takeTag(&der, tagSequence)
	tbs, ok := takeTag(&certificate, tagSequence)
	var inner []byte
	for len(tbs) > 0 && ok {
		var e element
		e, ok = take(&tbs)
		inner = append(inner, long(e.tag, e.content)...)
	}
	if !ok {
		t.Fatal("no certificate")
	}
	return long(tagSequence, append(long(tagSequence, inner), certificate...))
}

var (
	opensslLine = regexp.MustCompile(`(?m)^(subject|issuer|serial|notBefore|notAfter)=(.*)$`)
	opensslText = map[string]*regexp.Regexp{
		"certificate.version":        regexp.MustCompile(`Version: (\d+) `),
		"certificate.sig_alg":        regexp.MustCompile(`\n    Signature Algorithm: (.*)\n`),
		"certificate.key_alg":        regexp.MustCompile(`Public Key Algorithm: (.*)\n`),
		"certificate.exponent":       regexp.MustCompile(`Exponent: (\d+) `),
		"certificate.curve":          regexp.MustCompile(`ASN1 OID: (.*)\n`),
		"certificate.key_length":     regexp.MustCompile(`Public-Key: \((\d+) bit`),
		"basic_constraints.ca":       regexp.MustCompile(`CA:(TRUE|FALSE)`),
		"basic_constraints.path_len": regexp.MustCompile(`pathlen:(\d+)`),
	}
)

// compare compares the line for a certificate with what OpenSSL prints of it.
func compare(t *testing.T, der []byte) {
	t.Helper()
	_, _, lines := parse(t, write(t, false, certificateRecord(t, der))[x509])
	got := lines[0]
	out := openssl(t, der, "x509", "-inform", "der", "-noout", "-subject", "-issuer", "-serial", "-dates", "-dateopt", "iso_8601",
		"-nameopt", "RFC2253", "-text", "-certopt", "no_subject,no_issuer,no_serial")
	want := values{}
	for _, m := range opensslLine.FindAllStringSubmatch(out, -1) {
		switch m[1] {
		case "subject", "issuer", "serial":
			if m[2] != "" {
				want["certificate."+m[1]] = m[2]
			}
		case "notBefore", "notAfter":
			at, err := time.Parse("2006-01-02 15:04:05Z", m[2])
			if err != nil {
				t.Fatal(err)
			}
			name := map[string]string{"notBefore": "certificate.not_valid_before", "notAfter": "certificate.not_valid_after"}[m[1]]
			want[name] = fmt.Sprintf("%d.000000", at.Unix())
		}
	}
	for name, re := range opensslText {
		if m := re.FindStringSubmatch(out); m != nil {
			want[name] = strings.NewReplacer("TRUE", "T", "FALSE", "F").Replace(m[1])
		}
	}
	// A name that the record has in its own form gives the same, where all is text.
	if text, _ := want["certificate.subject"].(string); !strings.Contains(text, "#") {
		if name := reversedName(cert.Parse(der).Subject.String); name != text {
			t.Errorf("subject of the record is %q, OpenSSL has %q", name, text)
		}
	}
	for _, name := range []string{
		"certificate.subject", "certificate.issuer", "certificate.serial", "certificate.not_valid_before", "certificate.not_valid_after",
		"certificate.version", "certificate.sig_alg", "certificate.key_alg", "certificate.exponent", "certificate.curve",
		"certificate.key_length", "basic_constraints.ca", "basic_constraints.path_len",
	} {
		if got[name] != want[name] {
			t.Errorf("%s is %q, OpenSSL has %q", name, got[name], want[name])
		}
	}
}

// TestObjects compares the names of algorithms and attributes with OpenSSL's list.
func TestObjects(t *testing.T) {
	short, long := map[string]string{}, map[string]string{}
	for line := range strings.Lines(openssl(t, nil, "list", "-objects")) {
		names, oid, _ := strings.Cut(strings.TrimSpace(line), " = ")
		words, last := oid, oid
		if i := strings.LastIndex(oid, ", "); i >= 0 {
			words, last = oid[:i], oid[i+2:]
		} else {
			words = names
		}
		short[last], long[last] = names, words
	}
	if len(short) < 500 {
		t.Skipf("this openssl lists %d objects only", len(short))
	}
	for oid, name := range shortNames {
		if short[oid] != name {
			t.Errorf("%s is %q, OpenSSL has %q", oid, name, short[oid])
		}
	}
	for oid, name := range longNames {
		if long[oid] != name {
			t.Errorf("%s is %q, OpenSSL has %q", oid, name, long[oid])
		}
	}
}

// TestHost compares whether a certificate is for a name with OpenSSL.
func TestHost(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: it starts openssl for each name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		names, cn []string
		hosts     string
	}{
		{[]string{"example.org"}, nil, "example.org www.example.org Example.ORG example.org. .example.org"},
		{[]string{"*.example.org"}, nil, "www.Example.org a.b.example.org example.org xn--a.example.org -.example.org *.example.org .example.org a_b.example.org www.example.org."},
		{[]string{"f*.example.org"}, nil, "f.example.org foo.example.org xn--f.example.org f*.example.org"},
		{[]string{"*r.example.org"}, nil, "bar.example.org xn--r.example.org r.example.org"},
		{[]string{"f*r.example.org"}, nil, "foobar.example.org"}, {[]string{"*.example"}, nil, "www.example"}, {[]string{"*"}, nil, "example"},
		{[]string{"*.*.org"}, nil, "a.b.org"}, {[]string{"www.*.org"}, nil, "www.b.org"}, {[]string{"**.example.org"}, nil, "www.example.org"},
		{[]string{"xn--*.example.org"}, nil, "xn--a.example.org"}, {[]string{"*-.example.org"}, nil, "a-.example.org"},
		{[]string{"-*.example.org"}, nil, "-a.example.org"}, {[]string{"*.-example.org"}, nil, "a.-example.org"},
		{[]string{"*.example.org."}, nil, "a.example.org."}, {[]string{"a_b.example.org"}, nil, "a_b.example.org"},
		{[]string{"mail.example.net", "www.example.org"}, []string{"cn.example.org"}, "www.example.org cn.example.org"},
		{nil, []string{"other.example", "*.example.org"}, "www.example.org other.example"}, {nil, nil, "example"},
		{nil, []string{"192.0.2.1"}, "192.0.2.1"},
	} {
		template := &cx509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), DNSNames: c.names, NotAfter: time.Unix(1<<31, 0),
			Subject: pkix.Name{Organization: []string{"x"}},
		}
		for _, cn := range c.cn {
			template.Subject.ExtraNames = append(template.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: cn})
		}
		der, err := cx509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "cert")
		if err := os.WriteFile(file, der, 0o600); err != nil {
			t.Fatal(err)
		}
		for host := range strings.FieldsSeq(c.hosts) {
			out := openssl(t, nil, "x509", "-inform", "der", "-in", file, "-noout", "-checkhost", host)
			want := strings.Contains(out, "does match certificate")
			if want == strings.Contains(out, "does NOT match certificate") {
				t.Fatalf("openssl says %q", out)
			}
			if got := isFor(cert.Parse(der), host); got != want {
				t.Errorf("%v %v is for %s: %t, OpenSSL says %t", c.names, c.cn, host, got, want)
			}
		}
	}
}
