package elastic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestConfigErrors holds that every fault is named, all at once, and no secret
// is repeated.
func TestConfigErrors(t *testing.T) {
	c := Config{
		Addresses: []string{"https://sensor:hunter2@es.example.net:9200", "es.example.net", "https://u:hunter2@[bad", "ftp://x", "http://x?pw=hunter2"},
		Server:    "solr", PasswordFile: "x", APIKeyFile: "y", ServiceTokenFile: "z",
		CertificateFingerprint: "abc", Namespace: "Has-Hyphen",
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"credentials in the URL of es.example.net:9200", "entry 2 ", "entry 3 ", "entry 4 ", "entry 5 ", `"solr"`, "es-password-file: es-username is missing",
		"only one of es-api-key-file, es-service-token-file", "es-fingerprint: ", "es-namespace: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not said: %s", want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("says the password: %v", err)
	}
	if err := (&Config{}).Validate(); err == nil {
		t.Error("no address, no error")
	}
}

func TestAuthorization(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		cfg  Config
		env  map[string]string
		want string
		bad  string
	}{
		"none":                     {},
		"password file":            {cfg: Config{Username: "Aladdin", PasswordFile: file("p", "open sesame\n")}, want: "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}, // RFC 7617, section 2
		"password environment":     {cfg: Config{Username: "Aladdin"}, env: map[string]string{EnvPassword: "open sesame"}, want: "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		"no password":              {cfg: Config{Username: "Aladdin"}, bad: EnvPassword},
		"empty password file":      {cfg: Config{Username: "Aladdin", PasswordFile: file("e", " \n")}, bad: "is empty"},
		"missing password file":    {cfg: Config{Username: "Aladdin", PasswordFile: filepath.Join(dir, "none")}, bad: "no such file"},
		"API key, encoded":         {cfg: Config{APIKeyFile: file("k", "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw==")}, want: "ApiKey VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw=="},
		"API key, id:key":          {cfg: Config{APIKeyFile: file("r", "VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw")}, want: "ApiKey VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw=="}, // the example of Elasticsearch's reference
		"API key environment":      {env: map[string]string{EnvAPIKey: "abc"}, want: "ApiKey abc"},
		"service token":            {cfg: Config{ServiceTokenFile: file("t", "AAEAA")}, want: "Bearer AAEAA"},
		"token environment":        {env: map[string]string{EnvServiceToken: "AAEAA"}, want: "Bearer AAEAA"},
		"a file beats environment": {cfg: Config{ServiceTokenFile: file("t2", "AAEAB")}, env: map[string]string{EnvServiceToken: "x", EnvAPIKey: "y"}, want: "Bearer AAEAB"},
		"header injection":         {cfg: Config{APIKeyFile: file("i", "abc\r\nX: y")}, bad: "control characters"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, k := range []string{EnvPassword, EnvAPIKey, EnvServiceToken} {
				t.Setenv(k, c.env[k])
			}
			got, err := c.cfg.authorization()
			if got != c.want || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestAuthorizationIsSent checks the header on a request, that a wrong one keeps
// the records, and that the log has no secret.
func TestAuthorizationIsSent(t *testing.T) {
	s := newStandIn(t)
	s.authorization = "ApiKey c2VjcmV0"
	t.Setenv(EnvAPIKey, "c2VjcmV0")
	o := startTest(t, Config{Addresses: []string{s.URL}}, t.TempDir())
	write(t, o, record(output.Alert, 1))
	if st := closeTest(t, o); st.Delivered.Total() != 1 {
		t.Errorf("delivered %v", st.Delivered)
	}
	t.Setenv(EnvAPIKey, "d3Jvbmc")
	var said syncBuffer
	o = newTest(t, Config{Addresses: []string{s.URL}}, t.TempDir(), slog.New(slog.NewTextHandler(&said, nil)))
	o.start()
	write(t, o, record(output.Alert, 2))
	for o.Stats().Retries < 3 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := o.Close(ctx); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
		t.Errorf("close: %v", err)
	}
	if !strings.Contains(said.String(), "status 401") || strings.Contains(said.String(), "d3Jvbmc") {
		t.Errorf("said %q", said.String())
	}
}

// TestTLS connects to a server of crypto/tls with each way to trust it.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()
	sum := sha256.Sum256(s.Certificate().Raw)
	pin := hex.EncodeToString(sum[:])
	other := strings.Repeat("00", 32)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	byName := strings.Replace(s.URL, "127.0.0.1", "localhost", 1) // not in the certificate
	for name, c := range map[string]struct {
		cfg Config
		bad string
	}{
		"no trust":              {Config{Addresses: []string{s.URL}}, "unknown authority"},
		"CA file":               {Config{Addresses: []string{s.URL}, CAFile: ca}, ""},
		"CA file, other name":   {Config{Addresses: []string{byName}, CAFile: ca}, "localhost"},
		"pin":                   {Config{Addresses: []string{s.URL}, CertificateFingerprint: pin}, ""},
		"pin with colons":       {Config{Addresses: []string{s.URL}, CertificateFingerprint: strings.ToUpper(pin[:2] + ":" + pin[2:])}, ""},
		"other pin":             {Config{Addresses: []string{s.URL}, CertificateFingerprint: other}, "certificate_fingerprint"},
		"CA file and other pin": {Config{Addresses: []string{s.URL}, CAFile: ca, CertificateFingerprint: other}, "certificate_fingerprint"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := NewClient(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.close()
			err = info(client)
			if (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.Error(), c.bad) {
				t.Errorf("info: %v", err)
			}
		})
	}
	if _, err := NewClient(Config{Addresses: []string{s.URL}, CAFile: os.DevNull}); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("empty CA file: %v", err)
	}
}

// TestOpenSearch talks to a server that does not say that it is Elasticsearch.
func TestOpenSearch(t *testing.T) {
	for server, want := range map[string]bool{"opensearch": true, "elasticsearch": false} {
		s := newStandIn(t)
		s.noProduct = true
		o := newTest(t, Config{Addresses: []string{s.URL}, Server: server}, t.TempDir(), nil)
		write(t, o, record(output.Alert, 1))
		ctx, cancel := context.WithCancel(context.Background())
		o.start()
		if want {
			closeTest(t, o)
		} else {
			for o.Stats().Retries == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
			if err := o.Close(ctx); err == nil || !strings.Contains(err.Error(), "es-server opensearch") {
				t.Errorf("%s: close: %v", server, err)
			}
		}
		cancel()
		if got := o.Stats().Delivered.Total() == 1; got != want {
			t.Errorf("%s: delivered: %v", server, got)
		}
	}
}
