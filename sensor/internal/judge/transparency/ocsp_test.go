package transparency

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// responder answers as OpenSSL's responder does.
type responder struct {
	*world
	dir  string
	leaf []byte // DER
}

func newResponder(t testing.TB) *responder {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	r := &responder{world: made(), dir: t.TempDir()}
	r.leaf = r.issue(t, leaf(1))
	r.write(t, "ca.pem", "CERTIFICATE", r.ca.Raw)
	r.write(t, "leaf.pem", "CERTIFICATE", r.leaf)
	r.key(t, "ca.key", r.caKey)
	return r
}

func (r *responder) path(name string) string { return filepath.Join(r.dir, name) }

func (r *responder) write(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(r.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *responder) key(t testing.TB, name string, key crypto.Signer) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, name, "PRIVATE KEY", der)
}

// delegate makes a certificate for a responder, by an issuer of the test.
func (r *responder) delegate(t testing.TB, name string, issuer *x509.Certificate, issuerKey crypto.Signer, change func(*x509.Certificate)) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, NotBefore: start, NotAfter: start.AddDate(40, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, name+".pem", "CERTIFICATE", der)
	r.key(t, name+".key", key)
}

// answer has OpenSSL answer for the leaf, of which the index has that line, and verify
// the answer. The certificate and key of who signs are the files of that name.
func (r *responder) answer(t testing.TB, index, signer string, args ...string) (der []byte, verified bool) {
	t.Helper()
	if err := os.WriteFile(r.path("index"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	out := r.path("answer.der")
	command := exec.Command("openssl", slices.Concat([]string{"ocsp", "-index", r.path("index"), "-CA", r.path("ca.pem"),
		"-rsigner", r.path(signer + ".pem"), "-rkey", r.path(signer + ".key"), "-respout", out, "-noverify"},
		args, []string{"-issuer", r.path("ca.pem"), "-cert", r.path("leaf.pem")})...)
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command.Args, err, text)
	}
	der, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return der, r.verify(t, der, slices.Contains(args, "-sha256"))
}

// verify asks OpenSSL whether the issuer has answered for the leaf, which is named with
// SHA-1 or with SHA-256.
func (r *responder) verify(t testing.TB, der []byte, sha256 bool) bool {
	t.Helper()
	if err := os.WriteFile(r.path("check.der"), der, 0o600); err != nil {
		t.Fatal(err)
	}
	// -no_check_time leaves it to the signatures; the answer itself is new.
	named := "-sha1"
	if sha256 {
		named = "-sha256"
	}
	text, _ := exec.Command("openssl", "ocsp", named, "-respin", r.path("check.der"), "-CAfile", r.path("ca.pem"), "-no_check_time", "-no_nonce",
		"-issuer", r.path("ca.pem"), "-cert", r.path("leaf.pem")).CombinedOutput()
	return bytes.Contains(text, []byte("Response verify OK")) &&
		!bytes.Contains(text, []byte("No Status found"))
}

const (
	valid   = "V\t300101000000Z\t\t03E9\tunknown\t/CN=leaf.test\n"
	revoked = "R\t300101000000Z\t200301000000Z,keyCompromise\t03E9\tunknown\t/CN=leaf.test\n"
)

func TestOCSP(t *testing.T) {
	r := newResponder(t)
	strangerKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	template := *r.ca
	template.PublicKey = nil // or it would have to be the parent's
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &strangerKey.PublicKey, strangerKey)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "stranger.pem", "CERTIFICATE", der)
	r.key(t, "stranger.key", strangerKey)
	stranger, _ := x509.ParseCertificate(der)
	r.delegate(t, "delegate", r.ca, r.caKey, nil)
	r.delegate(t, "other", r.ca, r.caKey, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	r.delegate(t, "foreign", stranger, strangerKey, nil)
	r.delegate(t, "over", r.ca, r.caKey, func(c *x509.Certificate) { c.NotAfter = start.AddDate(0, 0, 1) })

	for _, c := range []struct {
		name, index, signer string
		args                []string
		want, reason        string
		verified            bool // by OpenSSL, which does not look at times here
	}{
		{"good", valid, "ca", nil, "good", "", true},
		{"revoked", revoked, "ca", nil, "revoked", "revoked the certificate at 2020-03-01T00:00:00Z", true},
		{"unknown", "", "ca", nil, "unknown", "", true},
		{"SHA-1", valid, "ca", []string{"-rmd", "sha1"}, "good", "", true},
		{"SHA-512", valid, "ca", []string{"-rmd", "sha512"}, "good", "", true},
		{"IDs with SHA-256", valid, "ca", []string{"-sha256"}, "good", "", true},
		{"by hash of the key", valid, "ca", []string{"-resp_key_id"}, "good", "", true},
		{"delegated", valid, "delegate", nil, "good", "", true},
		{"delegated, revoked", revoked, "delegate", []string{"-resp_key_id"}, "revoked", "revoked the certificate", true},
		{"not for answers", valid, "other", nil, "invalid", "is not for answers", false},
		{"another issuer", valid, "stranger", nil, "invalid", "is not signed by the issuer", false},
		{"delegated by another", valid, "foreign", nil, "invalid", "is not signed by the issuer", false},
		{"delegate that was over", valid, "over", nil, "invalid", "was not valid when it was made", true},
		{"delegated, certificate not sent", valid, "delegate", []string{"-resp_no_certs"}, "invalid", "is not signed by the issuer", false},
	} {
		staple, verified := r.answer(t, c.index, c.signer, slices.Concat([]string{"-ndays", "7"}, c.args)...)
		if verified != c.verified {
			t.Errorf("%s: OpenSSL says %v", c.name, verified)
		}
		h := handshake(r.leaf, r.ca.Raw)
		h.OCSP = staple
		h.Certificate.Time = time.Now().Add(time.Hour).UnixNano()
		got := r.judge().Judge(h, nil)
		if got.OCSP != c.want || (got.Revoked != 0) != (c.want == "revoked") {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.reason == "" && len(got.Reasons) > 0 || !strings.Contains(strings.Join(got.Reasons, "|"), c.reason) {
			t.Errorf("%s: reasons %q, want %q", c.name, got.Reasons, c.reason)
		}
	}
}

// What an answer says stays where it is out of its time, with a reason.
func TestOCSPTimes(t *testing.T) {
	r := newResponder(t)
	staple, _ := r.answer(t, valid, "ca", "-ndays", "7")
	j := r.judge()
	now := time.Now()
	for _, c := range []struct {
		at     time.Duration
		reason string
	}{
		{0, ""},
		{-time.Hour, "from later than the handshake"},
		{6 * 24 * time.Hour, ""},
		{8 * 24 * time.Hour, "out of date: a newer one was due at 20"},
	} {
		h := handshake(r.leaf, r.ca.Raw)
		h.OCSP = staple
		h.Certificate.Time = now.Add(c.at).UnixNano()
		got := j.Judge(h, nil)
		text := strings.Join(got.Reasons, "|")
		if got.OCSP != "good" || c.reason == "" && text != "" || !strings.Contains(text, c.reason) {
			t.Errorf("%v: %+v", c.at, got)
		}
		if allocs := testing.AllocsPerRun(100, func() { j.Judge(h, nil) }); allocs != 0 {
			t.Errorf("%v: %v allocations", c.at, allocs)
		}
	}
	for _, at := range []int64{-1 << 63, 1<<63 - 1} {
		h := handshake(r.leaf, r.ca.Raw)
		h.OCSP = staple
		h.Certificate.Time = at
		if got := j.Judge(h, nil); got.OCSP != "good" || len(got.Reasons) != 1 {
			t.Errorf("%d: %+v", at, got)
		}
	}
}

// An answer for another certificate, one that is cut, and errors of a responder.
func TestOCSPRefused(t *testing.T) {
	r := newResponder(t)
	staple, _ := r.answer(t, valid, "ca", "-ndays", "7")
	for _, c := range []struct {
		name         string
		staple       []byte
		chain        [][]byte
		want, reason string
	}{
		{"of another leaf", staple, [][]byte{r.issue(t, leaf(2)), r.ca.Raw}, "invalid", "for another certificate"},
		{"without the issuer", staple, [][]byte{r.leaf}, "", "cannot be judged without the certificate that issued"},
		{"tryLater", []byte{0x30, 3, 0x0a, 1, 3}, [][]byte{r.leaf, r.ca.Raw}, "invalid", "an error of the responder"},
		{"nothing in it", []byte{0x30, 3, 0x0a, 1, 0}, [][]byte{r.leaf, r.ca.Raw}, "invalid", "cannot be read"},
		{"too long", make([]byte, maxOCSP+1), [][]byte{r.leaf, r.ca.Raw}, "invalid", "too long"},
	} {
		h := handshake(c.chain...)
		h.OCSP = c.staple
		got := r.judge().Judge(h, nil)
		if got.OCSP != c.want || !strings.Contains(strings.Join(got.Reasons, "|"), c.reason) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	for n := range staple {
		h := handshake(r.leaf, r.ca.Raw)
		h.OCSP = staple[:n]
		if got := r.judge().Judge(h, nil); n > 0 && got.OCSP != "invalid" {
			t.Fatalf("the first %d bytes: %+v", n, got)
		}
	}
	// A flipped bit; without certificates, everything in an answer is signed but the
	// NULL in the identifier of the algorithm.
	staple, _ = r.answer(t, valid, "ca", "-ndays", "7", "-resp_no_certs")
	j := r.judge()
	null := bytes.Index(staple, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0}) + 9
	for i := range len(staple) * 8 {
		if i/8 == null || i/8 == null+1 {
			continue
		}
		h := handshake(r.leaf, r.ca.Raw)
		h.OCSP = bytes.Clone(staple)
		h.OCSP[i/8] ^= 1 << (i % 8)
		if got := j.Judge(h, nil); got.OCSP != "invalid" {
			t.Errorf("bit %d: %+v", i, got)
		}
	}
}
