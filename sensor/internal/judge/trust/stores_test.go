package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
)

// The operator's roots are read from PEM and DER, files and folders, and each mistake
// in them is told with its place.
func TestLoad(t *testing.T) {
	a, b, c := issue(t, nil, "Root A", isCA), issue(t, nil, "Root B", isCA), issue(t, nil, "Root C", isCA)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	dir := t.TempDir()
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := []byte("# Ours\nnot PEM\n")
	one := write("one.txt", text, block("CERTIFICATE", a.Raw), text, block("TRUSTED CERTIFICATE", append(append([]byte(nil), b.Raw...), 0x30, 0)))
	der := write("two.bin", a.Raw, c.Raw)
	write("folder/x.crt", block("CERTIFICATE", a.Raw))
	write("folder/below/y.der", b.Raw)
	write("folder/readme.txt", text)
	write("folder/.hidden.pem", text)
	folder := filepath.Join(dir, "folder")
	for _, test := range []struct {
		roots []string
		want  int
	}{{nil, 0}, {[]string{one}, 2}, {[]string{der}, 2}, {[]string{folder}, 2}, {[]string{one, der, folder}, 3}} {
		s, err := Load(rules.PackFiles(), test.roots)
		if err != nil {
			t.Errorf("%v: %v", test.roots, err)
		}
		if len(s.operator.roots) != test.want {
			t.Errorf("%v: %d roots, want %d", test.roots, len(s.operator.roots), test.want)
		}
	}

	empty := write("bad/empty.pem")
	key := write("bad/key.pem", block("PRIVATE KEY", []byte{1}))
	broken := write("bad/broken.pem", text, block("CERTIFICATE", a.Raw[:100]))
	base64 := write("bad/base64.pem", bytes.Replace(block("CERTIFICATE", a.Raw), []byte("M"), []byte("%"), 1))
	cut := write("bad/cut.der", a.Raw, b.Raw[:50])
	missing := filepath.Join(dir, "missing.pem")
	_, err := Load(rules.PackFiles(), []string{filepath.Join(dir, "bad"), missing})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{empty + ": holds no certificate", key + ": holds no certificate", broken + ":3: a certificate that cannot be read",
		base64 + ": 1 of 1 certificates in PEM cannot be decoded", cut + ": is neither PEM nor DER from byte", missing + ": lstat: no such file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 6 {
		t.Errorf("%d problems:\n%v", n, err)
	}

	write("nothing/readme.txt", text)
	if _, err = Load(rules.PackFiles(), []string{filepath.Join(dir, "nothing")}); err == nil || !strings.Contains(err.Error(), "nothing: the folder holds no certificates") {
		t.Errorf("a folder without certificates: %v", err)
	}

	packs := fstest.MapFS{
		"p/roots/mozilla.pem":            {Data: block("CERTIFICATE", a.Raw)},
		"p/intermediates/known-keys.txt": {Data: []byte("# x\nstore 100 CN=X\nstore 2048 nothing\nstore CN=X\n\nstore 2048 CN=Fine\n")},
	}
	_, err = Load(packs, nil)
	for _, want := range []string{"p/roots/mozilla.pem: a pack cannot have a store of that name", "known-keys.txt:2: ", "known-keys.txt:3: ", "known-keys.txt:4: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing says %q:\n%v", want, err)
		}
	}
}

// Where a root is in several stores, packs come first, then Mozilla's, then the
// operator's.
func TestPreference(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	ca := issue(t, root, "CA", isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example"))
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		packs fstest.MapFS
		want  string
	}{
		{fstest.MapFS{}, operator},
		{fstest.MapFS{"p/roots/zeta.pem": {Data: encoded}}, "zeta"},
		{fstest.MapFS{"p/roots/zeta.pem": {Data: encoded}, "q/roots/alpha.pem": {Data: encoded}}, "alpha"},
	} {
		s, err := Load(test.packs, []string{file})
		if err != nil {
			t.Fatal(err)
		}
		check(t, verify(t, s, handshake(noon, "a.example", leaf.Raw, ca.Raw)), judgement.Trusted, test.want)
		check(t, verify(t, s, handshake(noon, "a.example", leaf.Raw, ca.Raw, root.Raw)), judgement.Trusted, test.want)
	}
}

// A server's own certificate may be in a store; it is no authority there.
func TestLeafInStore(t *testing.T) {
	self := issue(t, nil, "a.example", forHost("a.example"))
	below := issue(t, self, "b.example", forHost("b.example"))
	stores := trusting(t, self)
	check(t, verify(t, stores, handshake(noon, "a.example", self.Raw)), judgement.Trusted, operator)
	check(t, verify(t, stores, handshake(noon, "b.example", below.Raw)), judgement.Invalid, operator, "and is no CA")
}

// Some roots are trusted for what they issued up to a date.
func TestDistrust(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	stores := trusting(t, root)
	after := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	checked := 0
	for _, r := range stores.index().roots {
		if r.store.name == mozilla && r.distrust != nil {
			checked++
			if err := r.distrust([]*x509.Certificate{{NotBefore: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}}); err == nil {
				t.Errorf("%s is trusted for ever", r.Subject.String)
			}
		}
		if r.store.name == operator {
			r.distrust = func(chain []*x509.Certificate) error {
				for _, c := range chain {
					if c.NotBefore.After(after) {
						return x509.CertificateInvalidError{}
					}
				}
				return nil
			}
		}
	}
	t.Logf("%d roots of Mozilla's with a date", checked)
	old := issue(t, root, "a.example", forHost("a.example"))
	late := issue(t, root, "a.example", all(forHost("a.example"), func(c *x509.Certificate) { c.NotBefore = after.AddDate(0, 1, 0) }))
	check(t, verify(t, stores, handshake(noon, "a.example", old.Raw)), judgement.Trusted, operator)
	check(t, verify(t, stores, handshake(noon, "a.example", late.Raw)), judgement.UntrustedRoot, operator, `The root "Root" is not trusted for this in the store operator`)
}
