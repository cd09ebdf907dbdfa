package httpsend

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

func newClient(t testing.TB, o Options) *Client {
	c, err := New(o, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRequest(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "key")
	if err := os.WriteFile(secret, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(z)
		if err != nil || string(body) != "hello" || r.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("body is %q, %v", body, err)
		}
		user, password, _ := r.BasicAuth()
		if r.Method != http.MethodPut || r.URL.Path != "/base/more" || r.URL.RawQuery != "a=b" ||
			r.Header.Get("X-Plain") != "p" || r.Header.Get("X-Key") != "k3y" || r.Header.Get("X-One") != "1" ||
			user != "ada" || password != "k3y" {
			t.Errorf("request is %s %s %v", r.Method, r.URL, r.Header)
		}
	}))
	defer s.Close()
	c := newClient(t, Options{
		URL: s.URL + "/base?a=b", Headers: map[string]string{"x-plain": "p"}, HeaderFiles: map[string]string{"X-Key": secret},
		Username: "ada", Password: endpoint.Secret{What: "password_file", File: secret},
	})
	a, trouble := c.Do(context.Background(), Request{Method: http.MethodPut, Path: "more", Header: http.Header{"X-One": {"1"}}, Body: []byte("hello"), Gzip: true})
	if trouble != nil || a.Status != http.StatusOK {
		t.Fatalf("answer %+v, trouble %+v", a, trouble)
	}
}

// TestAddressIsSecret has a webhook whose address lets one in.
func TestAddressIsSecret(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/services/T0/B0/swordfish" {
			t.Errorf("path is %s", r.URL.Path)
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "no access to "+"http://"+r.Host+r.URL.Path)
	}))
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(s.URL+"/services/T0/B0/swordfish"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{URLFile: file})
	a, trouble := c.Do(context.Background(), Request{})
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	if strings.Contains(a.Reason(), "swordfish") || !strings.Contains(a.Reason(), "no access") {
		t.Errorf("reason is %q", a.Reason())
	}
	s.Close()
	_, trouble = c.Do(context.Background(), Request{})
	if trouble == nil || strings.Contains(trouble.Err.Error(), "swordfish") || strings.Contains(c.String(), "swordfish") {
		t.Errorf("trouble is %+v of %s", trouble, c)
	}
	if err := os.WriteFile(file, []byte("https://ada:swordfish@x/"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, trouble = c.Do(context.Background(), Request{}); trouble == nil || !trouble.Slow || strings.Contains(trouble.Err.Error(), "swordfish") {
		t.Errorf("trouble is %+v", trouble)
	}
}

// TestWhatIsHidden has servers that repeat the login, or are not there: nothing of the
// login and of the path is told.
func TestWhatIsHidden(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "bad login "+r.Header.Get("Authorization"))
	}))
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("swordfish"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{URL: s.URL + "/path?query", Username: "ada", Password: endpoint.Secret{What: "password_file", File: file}})
	a, trouble := c.Do(context.Background(), Request{})
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	if got := a.Reason(); got != "bad login Basic [secret]" {
		t.Errorf("reason is %q", got)
	}
	s.Close()
	if _, trouble = c.Do(context.Background(), Request{}); trouble == nil || strings.Contains(trouble.Err.Error(), "path") || strings.Contains(c.String(), "path") {
		t.Errorf("trouble is %+v of %s", trouble, c)
	}
}

// TestPlainWarning holds when the log says that credentials can be read on the way.
func TestPlainWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("swordfish"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := endpoint.Secret{What: "token_file", File: file}
	for address, o := range map[string]struct {
		options Options
		warns   bool
	}{
		"http://siem.example.net":  {Options{Token: token}, true},
		"http://siem.example.net/": {Options{}, false},
		"https://siem.example.net": {Options{Token: token}, false},
		"http://127.0.0.1":         {Options{Token: token}, false},
	} {
		var said strings.Builder
		o.options.URL = address
		if _, err := New(o.options, 1, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
			t.Fatal(err)
		}
		if (said.Len() > 0) != o.warns || strings.Contains(said.String(), "swordfish") {
			t.Errorf("%s: said %q", address, said.String())
		}
	}
}

// FuzzReason holds that a reason is short, on one line, and without secrets.
func FuzzReason(f *testing.F) {
	f.Add([]byte("quota exceeded"))
	f.Add([]byte("<html>no</html>"))
	f.Add([]byte("bad token swordfish\n\x1b[31mred"))
	f.Add([]byte(strings.Repeat("swordfish ", 3*delivery.MaxReason)))
	f.Add([]byte("\xff\xfe" + strings.Repeat("é", delivery.MaxReason)))
	f.Fuzz(func(t *testing.T, body []byte) {
		a := &Answer{Status: 400, Body: body, login: &login{secrets: []string{"swordfish"}}}
		s := a.Reason()
		if len(s) > delivery.MaxReason || !utf8.ValidString(s) {
			t.Errorf("%d bytes: %q", len(s), s)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7F }) {
			t.Errorf("%q has control characters", s)
		}
		if strings.Contains(s, "swordfish") {
			t.Errorf("%q has the secret", s)
		}
	})
}

// TestJar holds that cookies of one server go back to it, and that they are bounded.
func TestJar(t *testing.T) {
	here, _ := url.Parse("http://here:1")
	there, _ := url.Parse("http://there:1")
	j := &jar{}
	for i := range 3 * maxCookies {
		j.SetCookies(here, []*http.Cookie{{Name: "c" + strings.Repeat("x", i), Value: "v"}})
	}
	j.SetCookies(here, []*http.Cookie{{Name: "long", Value: strings.Repeat("v", maxCookie)}, {Name: "secure", Value: "v", Secure: true}})
	if got := j.Cookies(here); len(got) != maxCookies || len(got[maxCookies-1].Name) != 3*maxCookies {
		t.Errorf("%d cookies, the last is %v", len(got), got[len(got)-1])
	}
	j.SetCookies(here, []*http.Cookie{{Name: "node", Value: "1"}})
	j.SetCookies(here, []*http.Cookie{{Name: "node", Value: "2"}})
	if got := j.Cookies(here); got[len(got)-1].Value != "2" || got[len(got)-2].Name == "node" {
		t.Errorf("cookies are %v", got)
	}
	if got := j.Cookies(there); got != nil {
		t.Errorf("another server gets %v", got)
	}
	j.SetCookies(here, []*http.Cookie{{Name: "node", MaxAge: -1}})
	if got := j.Cookies(here); len(got) != maxCookies-1 {
		t.Errorf("%d cookies are left", len(got))
	}
}
