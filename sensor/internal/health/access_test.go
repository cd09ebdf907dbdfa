package health

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// accessFiles writes a token, and a certificate for some names with its key.
func accessFiles(t testing.TB, token string, names ...string) AccessFiles {
	t.Helper()
	dir := t.TempDir()
	f := AccessFiles{Token: filepath.Join(dir, "token"), Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	rewrite(t, f, token, names...)
	return f
}

func rewrite(t testing.TB, f AccessFiles, token string, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{
		f.Token: []byte(token + "\n"), f.Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		f.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBeyondLoopback listens where other machines can ask. The page is served with a
// token and over TLS only; both can be replaced while it runs.
func TestBeyondLoopback(t *testing.T) {
	const first, second = "9f86d081884c7d659a2feaa0c55ad015", "60303ae22b998861bce3b28f33eec1be"
	files := accessFiles(t, first, "span-1.example.net", "*.sensors.example.net")
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") })
	m := New(Config{})
	m.Reloaded(1, 0, 0, nil)
	m.See(new(output.Counters))
	for _, some := range []AccessFiles{{}, {Token: files.Token}, {Certificate: files.Certificate, Key: files.Key}} {
		access, err := OpenAccess(some)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Listen("0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Serve(t.Context(), l, Service{Access: access, Page: page}); err == nil || !strings.Contains(err.Error(), "needs a token, a certificate and a key") {
			t.Errorf("%+v: %v", some, err)
		}
	}
	access, err := OpenAccess(files)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go m.Serve(ctx, l, Service{Access: access, Page: page})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	serials := map[string]bool{}
	ask := func(path, token string) (int, string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		r, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if a.ProtoMajor != 1 {
			t.Errorf("it is %s", a.Proto)
		}
		serials[a.TLS.PeerCertificates[0].SerialNumber.String()] = true
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		for token, want := range map[string]int{"": 401, second: 401, first: 200} {
			if status, text := ask(path, token); status != want {
				t.Errorf("%s with %q: %d, %q", path, token, status, text)
			}
		}
	}
	if status, text := ask("/anything", ""); status != 200 || text != "the page" {
		t.Errorf("the page, which asks for the token itself: %d, %q", status, text)
	}
	if r, err := http.Get("http://127.0.0.1:" + port + "/metrics"); err == nil && r.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %s", r.Status)
	}

	cookie := access.SignIn(first)
	rewrite(t, files, second, "span-1.example.net")
	if err := access.Reload(); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask("/metrics", first); status != 401 {
		t.Errorf("with the token before: %d", status)
	}
	if status, _ := ask("/metrics", second); status != 200 {
		t.Errorf("with the new token: %d", status)
	}
	if len(serials) != 2 {
		t.Errorf("%d certificates", len(serials))
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(cookie)
	if access.Allows(r) {
		t.Error("a session outlives its token")
	}

	// What is wrong is named, and what was in use stays.
	for _, broken := range []struct{ path, text, says string }{
		{files.Token, "short", "24 to 512 characters"}, {files.Token, "", "24 to 512 characters"}, {files.Token, strings.Repeat("two words ", 5), "no space"}, {files.Certificate, "none", "certificate"},
	} {
		rewrite(t, files, second)
		if err := os.WriteFile(broken.path, []byte(broken.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := access.Reload(); err == nil || !strings.Contains(err.Error(), broken.says) || !strings.Contains(err.Error(), broken.path) {
			t.Errorf("%s with %q: %v", broken.path, broken.text, err)
		}
		if status, _ := ask("/metrics", second); status != 200 {
			t.Errorf("after a reload that failed: %d", status)
		}
	}
}

// TestSession lets time pass.
func TestSession(t *testing.T) {
	const token = "9f86d081884c7d659a2feaa0c55ad015"
	access, err := OpenAccess(accessFiles(t, token))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	access.now = func() time.Time { return now }
	cookie := access.SignIn(" " + token + "\n")
	if cookie == nil || !cookie.Secure || !strings.HasPrefix(cookie.Name, "__Host-") || cookie.Path != "/" || cookie.Domain != "" {
		t.Fatalf("%+v", cookie)
	}
	allowed := func() bool {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(cookie)
		return access.Allows(r)
	}
	if !allowed() {
		t.Error("the cookie is of no use")
	}
	if now = now.Add(sessionLimit - time.Second); !allowed() {
		t.Error("the session has ended too early")
	}
	if now = now.Add(time.Second); allowed() {
		t.Error("the session does not end")
	}
}

// TestNamed asks under names in the certificate and under others.
func TestNamed(t *testing.T) {
	access, err := OpenAccess(accessFiles(t, "9f86d081884c7d659a2feaa0c55ad015", "span-1.example.net", "*.sensors.example.net"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"span-1.example.net": true, "SPAN-1.example.net:9847": true, "a.sensors.example.net": true, "localhost": true, "192.0.2.1": true, "[2001:db8::1]:9847": true, "2001:db8::1": true,
		"span-2.example.net": false, "a.b.sensors.example.net": false, "": false, ":9847": false, "span-1.example.net.evil.example": false, "192.0.2.1.evil.example": false, "localhost:1:2": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if got := access.Named(r); got != want {
			t.Errorf("%q: %v", host, got)
		}
		if got := (*Access)(nil).Named(r); got && strings.Contains(host, "example") {
			t.Errorf("%q without a certificate: %v", host, got)
		}
	}
}
