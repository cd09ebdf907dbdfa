package elastic

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// TestConfigErrors holds that every fault is named, all at once, and no secret
// is repeated.
func TestConfigErrors(t *testing.T) {
	c := Config{
		Addresses: []string{"https://sensor:hunter2@es.example.net:9200", "es.example.net", "https://u:hunter2@[bad", "ftp://x", "http://x?pw=hunter2"},
		Server:    "solr", PasswordFile: "x", APIKeyFile: "y", ServiceTokenFile: "z",
		TLS: endpoint.TLS{Fingerprint: "abc", KeyFile: "k"}, CloudID: "x", Namespace: "Has-Hyphen",
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"credentials in the URL of es.example.net:9200", "entry 2 ", "entry 3 ", "entry 4 ", "entry 5 ", `"solr"`, "password_file: username is missing", "only one of url, cloud_id",
		"only one of api_key_file, service_token_file", "fingerprint: ", "certificate_file: ", "namespace: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not said: %s", want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("says the password: %v", err)
	}
	var wrong *endpoint.ConfigError
	if err := (&Config{}).Validate(); !errors.As(err, &wrong) || wrong.Setting != "url" {
		t.Errorf("no address: %v", err)
	}
	if err := (&Config{CloudID: "secret"}).Validate(); !errors.As(err, &wrong) || wrong.Setting != "cloud_id" || strings.Contains(err.Error(), "secret") {
		t.Errorf("bad Cloud ID: %v", err)
	}
}

// TestCloudID has the example of libbeat's reference, and what else its package cloudid
// reads.
func TestCloudID(t *testing.T) {
	id := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for in, want := range map[string]string{
		"staging:dXMtZWFzdC0xLmF3cy5mb3VuZC5pbyRjZWM2ZjI2MWE3NGJmMjRjZTMzYmI4ODExYjg0Mjk0ZiRjNmMyY2E2ZDA0MjI0OWFmMGNjN2Q3YTllOTYyNTc0Mw==": "https://cec6f261a74bf24ce33bb8811b84294f.us-east-1.aws.found.io:443",
		id("example.net$es$kibana"):               "https://es.example.net:443",
		"a:b:" + id("example.net:9243$es$kibana"): "https://es.example.net:9243",
		id("example.net:9243$es:9244$kibana:1"):   "https://es.example.net:9244",
		id("example.net$es"):                      "https://es.example.net:443",
		"":                                        "",
		"x:":                                      "",
		"x:not base64":                            "",
		id("example.net"):                         "",
		id("example.net$"):                        "",
		id("$es"):                                 "",
		id("example.net/x$user@host"):             "",
		id("example.net$es:port"):                 "",
		id("example.net$es\r\nx"):                 "",
	} {
		got, err := cloudAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	c := Config{CloudID: id("example.net$es")}
	client, err := NewClient(c)
	if err != nil || client.String() != "https://es.example.net:443" {
		t.Errorf("%v, %v", client, err)
	}
}

// FuzzCloudID holds that whatever is decoded is an address of a server and nothing
// else.
func FuzzCloudID(f *testing.F) {
	for _, s := range []string{"example.net$es$kibana", "example.net:9243$es:9244", "a$b", "$", "x@y$z", "h/$p", "h$[::1]"} {
		f.Add("label:" + base64.StdEncoding.EncodeToString([]byte(s)))
	}
	f.Fuzz(func(t *testing.T, id string) {
		a, err := cloudAddress(id)
		if err != nil {
			return
		}
		u, err := url.Parse(a)
		if err != nil || u.Scheme != "https" || u.Port() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.String() != a {
			t.Errorf("%q: %q, %v", id, a, err)
		}
	})
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
		"CA file":               {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{CAFile: ca}}, ""},
		"CA file, other name":   {Config{Addresses: []string{byName}, TLS: endpoint.TLS{CAFile: ca}}, "localhost"},
		"pin":                   {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{Fingerprint: pin}}, ""},
		"pin with colons":       {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{Fingerprint: strings.ToUpper(pin[:2] + ":" + pin[2:])}}, ""},
		"other pin":             {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{Fingerprint: other}}, "fingerprint: no certificate"},
		"CA file and other pin": {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{CAFile: ca, Fingerprint: other}}, "fingerprint: no certificate"},
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
			if c.bad != "" {
				if trouble := client.trouble(err); !trouble.Slow || trouble.Class != "tls" {
					t.Errorf("trouble %+v", trouble)
				}
			}
		})
	}
	if _, err := NewClient(Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{CAFile: os.DevNull}}); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("empty CA file: %v", err)
	}
}

// TestClientCertificate connects to a server that wants a certificate of the client.
func TestClientCertificate(t *testing.T) {
	s := newStandIn(t)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server := httptest.NewUnstartedServer(s.Config.Handler)
	server.Config.ErrorLog = s.Config.ErrorLog
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	trust := endpoint.TLS{CAFile: write("ca", "CERTIFICATE", server.Certificate().Raw)}
	send := func(tls endpoint.TLS) *delivery.Trouble {
		d := newTest(t, Config{Addresses: []string{server.URL}, TLS: tls}, nil)
		return d.Send(t.Context(), []*output.Record{record(output.Alert, 1)}, make([]delivery.Verdict, 1))
	}
	if trouble := send(trust); trouble == nil || !trouble.Slow || trouble.Class != "tls" || !strings.Contains(trouble.Err.Error(), "certificate_file") {
		t.Errorf("no certificate: %+v", trouble)
	}
	trust.CertificateFile, trust.KeyFile = trust.CAFile, write("key", "PRIVATE KEY", der)
	if trouble := send(trust); trouble != nil {
		t.Errorf("with a certificate: %v", trouble.Err)
	}
}
