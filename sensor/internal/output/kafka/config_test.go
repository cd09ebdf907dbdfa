package kafka

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// other is the PEM of an authority that has signed nothing.
var other = []byte(`-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUekAdB5tJ6jJebKQ3KI6bYFttgXUwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHYW5vdGhlcjAgFw0yNjExMjkwNzA4NDJaGA8yMTI2MTEwNTA3
MDg0MlowEjEQMA4GA1UEAwwHYW5vdGhlcjBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABJVqO/lYUieytL1KrF55tBYW6mRo4Uj4L1nSRsYKXEujRkYwVGH4quNeHp6F
0Bmese+dwaywtejau/VEN+tFfQ2jUzBRMB0GA1UdDgQWBBQR/p594Hauz51w0aRN
F2AiTe4GhDAfBgNVHSMEGDAWgBQR/p594Hauz51w0aRNF2AiTe4GhDAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQD/w5V2YdHLnEsvd4/DoXQluVfx
vjSTyib9D/R3pT8k1gIhAOjQMSIaoiXs2Py5HTjOW6UX3p9mbTL1FbjLQ1SSvm0A
-----END CERTIFICATE-----
`)

func TestValidate(t *testing.T) {
	t.Setenv("TEST_KAFKA_EMPTY", "")
	good := func(change func(*Config)) Config {
		c := Config{Brokers: []string{"kafka-1.example.net:9092", "kafka-2.example.net", "192.0.2.1:9093", "[2001:db8::1]:9092"}}
		change(&c)
		return c
	}
	for _, test := range []struct {
		name   string
		config Config
		want   []string // the settings that are wrong
	}{
		{"least", good(func(*Config) {}), nil},
		{"most", good(func(c *Config) {
			c.Topic, c.Compression, c.MaxMessageBytes = "soc.{dataset}", "lz4", 2_000_000
			c.Mechanism, c.Username, c.Password.File = "scram-sha-512", "sensor", "/etc/oddcert/password"
			c.TLS.CAFile = "/etc/oddcert/ca.pem"
		}), nil},
		{"token", good(func(c *Config) { c.Mechanism, c.Token.File = "OAUTHBEARER", "/run/token" }), nil},
		{"nothing", Config{}, []string{"brokers"}},
		{"brokers", good(func(c *Config) {
			c.Brokers = []string{"kafka://sensor:secret@a.example", "a.example:0", "a.example:70000", "", ":9092", "a b:1", "a,b"}
		}), []string{"brokers", "brokers", "brokers", "brokers", "brokers", "brokers", "brokers"}},
		{"topic", good(func(c *Config) { c.Topic = "odd cert" }), []string{"topic"}},
		{"topic of another member", good(func(c *Config) { c.Topic = "{datasets}" }), []string{"topic"}},
		{"topic too long", good(func(c *Config) { c.Topic = strings.Repeat("x", 240) + "{dataset}" }), []string{"topic"}},
		{"dots", good(func(c *Config) { c.Topic = ".." }), []string{"topic"}},
		{"mechanism", good(func(c *Config) { c.Mechanism = "GSSAPI" }), []string{"sasl_mechanism"}},
		{"no mechanism", good(func(c *Config) { c.Username = "sensor" }), []string{"sasl_mechanism"}},
		{"no password", good(func(c *Config) { c.Mechanism, c.Password.Env = "plain", "TEST_KAFKA_EMPTY" }), []string{"username", "password_file"}},
		{"no token", good(func(c *Config) { c.Mechanism, c.Username = "oauthbearer", "sensor" }), []string{"token_file", "username"}},
		{"token for plain", good(func(c *Config) {
			c.Mechanism, c.Username, c.Password.File, c.Token.File = "plain", "sensor", "/p", "/t"
		}), []string{"token_file"}},
		{"all at once", Config{Compression: "brotli", MaxMessageBytes: 1, TLS: endpoint.TLS{Fingerprint: "12", KeyFile: "/key"}},
			[]string{"fingerprint", "certificate_file", "brokers", "compression", "max_message_bytes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.config.Validate()
			var got []string
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, e := range joined.Unwrap() {
					var c *endpoint.ConfigError
					if !errors.As(e, &c) {
						t.Fatalf("%v is no ConfigError", e)
					}
					got = append(got, c.Setting)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("wrong are %v, want %v: %v", got, test.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats a password: %v", err)
			}
		})
	}
}

// TestNew names files that cannot be used, before anything is connected.
func TestNew(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"read ca_file": func(c *Config) { c.TLS.CAFile = empty },
		"read password": func(c *Config) {
			c.Mechanism, c.Username, c.Password.File = "plain", "sensor", filepath.Join(dir, "gone")
		},
		"read token":         func(c *Config) { c.Mechanism, c.Token.File = "oauthbearer", empty },
		"max_message_bytes:": func(c *Config) { c.MaxMessageBytes = -1 },
	} {
		c := Config{Brokers: []string{"kafka.example.net"}}
		change(&c)
		if d, err := New(c, slog.New(slog.DiscardHandler)); d != nil || err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("New gives %v, %v; want an error with %q", d, err, what)
		}
	}
}

// TestPlain warns where a secret can be read on the way.
func TestPlain(t *testing.T) {
	t.Setenv("TEST_KAFKA_PASSWORD", "sesame")
	for _, test := range []struct {
		broker, mechanism string
		encrypt, want     bool
	}{
		{"kafka.example.net", "plain", false, true},
		{"kafka.example.net", "plain", true, false},
		{"kafka.example.net", "scram-sha-256", false, false},
		{"localhost:9092", "plain", false, false},
		{"[::1]:9092", "plain", false, false},
	} {
		var said strings.Builder
		c := Config{Brokers: []string{test.broker}, Mechanism: test.mechanism, Username: "sensor", Encrypt: test.encrypt}
		c.Password.Env = "TEST_KAFKA_PASSWORD"
		d, err := New(c, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		if strings.Contains(said.String(), "unencrypted") != test.want || strings.Contains(said.String(), "sesame") {
			t.Errorf("%+v: said %q", test, said.String())
		}
	}
}

// TestTopicsOf has one form for both of a handshake.
func TestTopicsOf(t *testing.T) {
	c := Config{Topic: "{dataset}-{dataset}"}
	got := c.topics()
	if got[output.Alert] != "alert-alert" || got[output.FullHandshake] != "handshake-handshake" || got[output.Handshake] != "handshake-handshake" {
		t.Errorf("topics %v", got)
	}
	one := Config{}.withDefaults()
	for i, name := range one.topics() {
		if name != "oddcert" {
			t.Errorf("the topic of %v is %q", output.Dataset(i), name)
		}
	}
}
