package transparency

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// The list that is shipped is whole: each line is a log with a key that can be used.
func TestShippedList(t *testing.T) {
	l := known()
	if _, err := time.Parse(time.DateOnly, l.date); err != nil {
		t.Error(err)
	}
	lines := 0
	for line := range strings.Lines(shipped) {
		if !strings.HasPrefix(line, "#") {
			lines++
		}
	}
	if lines != len(l.logs) || lines < 200 {
		t.Errorf("%d lines, %d logs", lines, len(l.logs))
	}
	for id, log := range l.logs {
		if log.key() == nil || log.name == "" || log.operator == "" {
			t.Errorf("%x: %+v", id, log)
		}
	}
	// These IDs are public: RFC 6962 has none, but each certificate of their time does.
	for id, name := range map[string]string{
		"pLkJkLQYWBSHuxOizGdwCjw1mAT5G9+443fNDsgN3BA=": "Google Pilot",
		"VhQGmi/XwuzT9eG9RLI+x0Z2ubyZEVzA75SYVdaJ0N0=": "DigiCert Log Server",
		"rDua7X+pZ0dXFZ5tfVdWcvnZgQCUHpve/+yhMTt1eC0=": "Venafi",
		"tz77JN+cTbp18jnFulj0bF38Qs96nzXEnh0JgSXttJk=": "Let's Encrypt Oak2023",
	} {
		octets, _ := base64.StdEncoding.DecodeString(id)
		if log := l.logs[[32]byte(octets)]; log == nil || log.name != name {
			t.Errorf("%s is %+v, want %s", id, log, name)
		}
	}
}

// world is an issuer, two logs, and a list of these. Their keys are always the same, and
// so is what they sign, so that what a fuzzer finds stays.
type world struct {
	ca     *x509.Certificate
	caKey  *rsa.PrivateKey
	ecLog  *ecdsa.PrivateKey
	rsaLog *rsa.PrivateKey
	list   *list
	issuer *cert.Certificate
}

var made = sync.OnceValue(func() *world {
	w := &world{}
	var err error
	check := func() {
		if err != nil {
			panic(err)
		}
	}
	w.caKey, w.rsaLog = stored("ca.pem"), stored("log.pem")
	w.ecLog, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	check()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: start, NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &w.caKey.PublicKey, w.caKey)
	check()
	w.ca, err = x509.ParseCertificate(der)
	check()
	w.issuer = cert.Parse(der)
	text := "# date: 2020-01-01\n"
	for i, key := range []crypto.Signer{w.ecLog, w.rsaLog} {
		spki, _ := x509.MarshalPKIXPublicKey(key.Public())
		text += fmt.Sprintf("Log %d\tOperator %d\t%s\n", i, i, base64.StdEncoding.EncodeToString(spki))
	}
	w.list = readList(text)
	return w
})

// stored reads a key from testdata.
func stored(name string) *rsa.PrivateKey {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	return key.(*rsa.PrivateKey)
}

var start = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) judge() *Judge {
	j := New()
	j.list = w.list
	return j
}

// leaf is a template for leaves. Its extensions vary with n.
func leaf(n int) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(int64(1000 + n)), Subject: pkix.Name{CommonName: "leaf.test"},
		NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
	}
	if n > 0 {
		c.DNSNames = []string{strings.Repeat("a", n%60) + ".test"}
	}
	for i := range n / 20 {
		c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.leaf.test", i))
	}
	return c
}

func (w *world) issue(t testing.TB, template *x509.Certificate) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca, &w.ecLog.PublicKey, w.caKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// stamp is what a log says of an entry: the DER of a certificate, or a TBSCertificate of
// a precertificate with the key of its issuer, as RFC 6962, section 3.2, has it.
func stamp(t testing.TB, key crypto.Signer, entry []byte, issuerSPKI []byte) []byte {
	t.Helper()
	spki, _ := x509.MarshalPKIXPublicKey(key.Public())
	id := sha256.Sum256(spki)
	moment := binary.BigEndian.AppendUint64(nil, uint64(start.UnixMilli()))
	signed := append([]byte{0, 0}, moment...)
	if issuerSPKI == nil {
		signed = append(signed, 0, 0)
	} else {
		h := sha256.Sum256(issuerSPKI)
		signed = append(append(signed, 0, 1), h[:]...)
	}
	signed = append(signed, byte(len(entry)>>16), byte(len(entry)>>8), byte(len(entry)))
	signed = append(append(signed, entry...), 0, 2, 0xca, 0xfe) // and extensions
	digest := sha256.Sum256(signed)
	sig, err := key.Sign(nil, digest[:], crypto.SHA256) // without random numbers, always the same
	if err != nil {
		t.Fatal(err)
	}
	algorithm := byte(algorithmECDSA)
	if _, ok := key.(*rsa.PrivateKey); ok {
		algorithm = algorithmRSA
	}
	s := append([]byte{0}, id[:]...)
	s = append(append(s, moment...), 0, 2, 0xca, 0xfe, hashSHA256, algorithm)
	s = binary.BigEndian.AppendUint16(s, uint16(len(sig)))
	return append(s, sig...)
}

// listOf is a SignedCertificateTimestampList.
func listOf(stamps ...[]byte) []byte {
	var all []byte
	for _, s := range stamps {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(s))), s...)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(all))), all...)
}

// embed issues template with timestamps in it. crypto/x509 appends the extension, so
// what the logs sign is the TBSCertificate of the same certificate without.
func (w *world) embed(t testing.TB, template *x509.Certificate, keys ...crypto.Signer) []byte {
	t.Helper()
	plain, err := x509.ParseCertificate(w.issue(t, template))
	if err != nil {
		t.Fatal(err)
	}
	var stamps [][]byte
	for _, key := range keys {
		stamps = append(stamps, stamp(t, key, plain.RawTBSCertificate, w.ca.RawSubjectPublicKeyInfo))
	}
	value, _ := asn1.Marshal(listOf(stamps...))
	with := *template
	with.ExtraExtensions = append(slices.Clone(template.ExtraExtensions), pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value})
	return w.issue(t, &with)
}

func handshake(certs ...[]byte) *event.Handshake {
	h := &event.Handshake{End: event.Moment{Time: start.UnixNano(), Frame: 1}}
	for _, der := range certs {
		h.Chain = append(h.Chain, event.ChainEntry{Certificate: cert.Parse(der)})
	}
	return h
}

// Certificates of many lengths, so that the lengths within them have one to three octets.
func TestEmbedded(t *testing.T) {
	w := made()
	for _, n := range []int{0, 1, 20, 60, 100, 200, 900, 2000, 40_000} {
		j := w.judge()
		der := w.embed(t, leaf(n), w.ecLog, w.rsaLog)
		h := handshake(der, w.ca.Raw)
		got := j.Judge(h, nil)
		if got == nil || !got.Judged || got.SCTs != 2 || got.Valid != 2 || len(got.Reasons) != 0 ||
			!slices.Equal(got.Operators, []string{"Operator 0", "Operator 1"}) || got.OCSP != "" {
			t.Errorf("%d: %+v", n, got)
		}
		if again := j.Judge(h, w.issuer); again != got {
			t.Error("judged twice")
		}
		if allocs := testing.AllocsPerRun(100, func() { j.Judge(h, nil) }); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}

func TestVerdicts(t *testing.T) {
	w := made()
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der := w.embed(t, leaf(1), w.ecLog, w.rsaLog)
	plain := w.issue(t, leaf(2))
	flipped := bytes.Clone(der)
	flipped[bytes.Index(flipped, []byte("leaf.test"))] = 'L'

	// A copy of the issuer's name with another key, as somebody has who forges.
	otherKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	template := *w.ca
	template.PublicKey = nil
	other, err := x509.CreateCertificate(rand.Reader, &template, &template, &otherKey.PublicKey, otherKey)
	if err != nil {
		t.Fatal(err)
	}

	// Timestamps of another certificate.
	moved := leaf(3)
	list, _ := asn1.Marshal(listOf(stamp(t, w.ecLog, []byte("other"), w.ca.RawSubjectPublicKeyInfo)))
	moved.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: list}}
	broken := leaf(4)
	broken.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: []byte{4, 2, 0, 9}}}

	for _, c := range []struct {
		name   string
		h      *event.Handshake
		scts   []byte
		want   judgement.Transparency
		reason string
	}{
		{"none", handshake(plain, w.ca.Raw), nil, judgement.Transparency{Judged: true}, ""},
		{"no issuer", handshake(der), nil, judgement.Transparency{SCTs: 2}, "issued the leaf is not there"},
		{"no issuer, none", handshake(plain), nil, judgement.Transparency{}, ""},
		{"another issuer of that name", handshake(der, other), nil, judgement.Transparency{SCTs: 2}, "issued the leaf is not there"},
		{"another before it", handshake(der, other, w.ca.Raw), nil, judgement.Transparency{SCTs: 2, Valid: 2, Judged: true}, ""},
		{"changed", handshake(flipped, w.ca.Raw), nil, judgement.Transparency{SCTs: 2}, "issued the leaf is not there"},
		{"of another certificate", handshake(w.issue(t, moved), w.ca.Raw), nil, judgement.Transparency{SCTs: 1, Judged: true}, "said to be of Log 0"},
		{"malformed", handshake(w.issue(t, broken), w.ca.Raw), nil, judgement.Transparency{Judged: true}, "in the certificate cannot be read"},
		{"of a stranger", handshake(w.embed(t, leaf(5), stranger, w.ecLog), w.ca.Raw), nil, judgement.Transparency{SCTs: 2, Valid: 1, Judged: true},
			"1 timestamp is of a log that is not in the list of 2020-01-01."},
		{"in the handshake", handshake(plain, w.ca.Raw), listOf(stamp(t, w.ecLog, plain, nil)), judgement.Transparency{SCTs: 1, Valid: 1, Judged: true}, ""},
		{"in both", handshake(der, w.ca.Raw), listOf(stamp(t, w.rsaLog, der, nil)), judgement.Transparency{SCTs: 3, Valid: 3, Judged: true}, ""},
		{"in the handshake, of another", handshake(plain, w.ca.Raw), listOf(stamp(t, w.ecLog, der, nil)), judgement.Transparency{SCTs: 1, Judged: true}, "timestamp in the handshake is said"},
		{"of version 2", handshake(plain, w.ca.Raw), listOf(append([]byte{1}, stamp(t, w.ecLog, plain, nil)[1:]...)), judgement.Transparency{SCTs: 1, Judged: true}, "1 timestamp cannot be read."},
		{"too many", handshake(plain, w.ca.Raw), listOf(slices.Repeat([][]byte{stamp(t, w.ecLog, plain, nil)}, 20)...),
			judgement.Transparency{SCTs: 20, Valid: maxTimestamps, Judged: true}, "4 timestamps were not looked at"},
		{"cut", handshake(plain, w.ca.Raw), listOf(stamp(t, w.ecLog, plain, nil))[:40], judgement.Transparency{Judged: true}, "timestamps in the handshake cannot be read"},
		{"too long", handshake(plain, w.ca.Raw), make([]byte, maxList+1), judgement.Transparency{Judged: true}, "timestamps in the handshake cannot be read"},
	} {
		c.h.SCTs = c.scts
		got := w.judge().Judge(c.h, nil)
		if got.SCTs != c.want.SCTs || got.Valid != c.want.Valid || got.Judged != c.want.Judged {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.reason == "" && len(got.Reasons) > 0 || !strings.Contains(strings.Join(got.Reasons, "|"), c.reason) {
			t.Errorf("%s: reasons %q, want %q", c.name, got.Reasons, c.reason)
		}
	}
	if w.judge().Judge(&event.Handshake{}, nil) != nil || w.judge().Judge(&event.Handshake{Chain: []event.ChainEntry{{Truncated: true, Certificate: cert.Salvage(der[:300])}}}, nil) != nil {
		t.Error("judged without a leaf")
	}
}

// One bit that is flipped anywhere in a list makes its timestamp worthless.
func TestFlippedBits(t *testing.T) {
	w := made()
	plain := w.issue(t, leaf(2))
	good := listOf(stamp(t, w.ecLog, plain, nil))
	j := w.judge()
	for i := range len(good) * 8 {
		h := handshake(plain, w.ca.Raw)
		h.SCTs = bytes.Clone(good)
		h.SCTs[i/8] ^= 1 << (i % 8)
		if got := j.Judge(h, nil); got.Valid != 0 || len(got.Reasons) == 0 {
			t.Fatalf("bit %d: %+v", i, got)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	w := made()
	h := handshake(w.embed(b, leaf(1), w.ecLog, w.rsaLog), w.ca.Raw)
	for b.Loop() {
		w.judge().Judge(h, nil)
	}
}

func BenchmarkHit(b *testing.B) {
	w := made()
	h := handshake(w.embed(b, leaf(1), w.ecLog, w.rsaLog), w.ca.Raw)
	h.OCSP = make([]byte, 2000)
	j := w.judge()
	b.ReportAllocs()
	for b.Loop() {
		j.Judge(h, nil)
	}
}
