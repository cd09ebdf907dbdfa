package syslog

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// wrong returns the settings that Validate complains about.
func wrong(t *testing.T, c Config) (settings []string) {
	t.Helper()
	err := c.Validate()
	if err == nil {
		return nil
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var e *endpoint.ConfigError
		if !errors.As(err, &e) {
			t.Fatalf("%v is no *endpoint.ConfigError", err)
		}
		settings = append(settings, e.Setting)
	}
	slices.Sort(settings)
	return settings
}

func TestValidate(t *testing.T) {
	for _, good := range []Config{
		{URL: "tcp://siem.example.net:514"}, {URL: "tcp://siem.example.net"}, {URL: "tls://[2001:db8::1]"}, {URL: "udp://192.0.2.1:5514"},
		{URL: "unix:///dev/log"}, {URL: "tcp://siem.example.net/", Format: "cef", Framing: "newline", Facility: "local7", MaxMessage: 1024},
		{URL: "tls://siem.example.net", Format: "leef", Framing: "octet-counting", MaxMessage: 16 << 20,
			TLS: endpoint.TLS{CAFile: "ca.pem", CertificateFile: "c.pem", KeyFile: "k.pem"}},
		{URL: "udp://siem.example.net", Format: "json", Facility: "kern", MaxMessage: 65507},
	} {
		if settings := wrong(t, good); settings != nil {
			t.Errorf("%+v: %v", good, good.Validate())
		}
	}
	for _, bad := range []struct {
		Config
		settings string
	}{
		{Config{}, "url"},
		{Config{URL: "siem.example.net:514"}, "url"},
		{Config{URL: "https://siem.example.net"}, "url"},
		{Config{URL: "tcp://siem.example.net:514/path"}, "url"},
		{Config{URL: "tcp://:514"}, "url"},
		{Config{URL: "unix://dev/log"}, "url"},
		{Config{URL: "unix:dev/log"}, "url"},
		{Config{URL: "udp://siem.example.net", MaxMessage: 65508}, "max_message_size"},
		{Config{URL: "udp://siem.example.net", Framing: "newline"}, "framing"},
		{Config{URL: "tcp://siem.example.net", TLS: endpoint.TLS{CAFile: "x"}}, "ca_file"},
		{Config{URL: "tcp://siem.example.net?x", Format: "xml", Framing: "nul", Facility: "local8", MaxMessage: 1, TLS: endpoint.TLS{KeyFile: "k"}},
			"certificate_file facility format framing max_message_size url"},
	} {
		if got := strings.Join(wrong(t, bad.Config), " "); got != bad.settings {
			t.Errorf("%+v: %q, want %q", bad.Config, got, bad.settings)
		}
	}
	err := (&Config{URL: "tcp://user:hunter2@siem.example.net"}).Validate()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("password in the address: %v", err)
	}
}

// An address is shown with the port that it stands for.
func TestPorts(t *testing.T) {
	for address, want := range map[string]string{
		"tcp://siem.example.net": "tcp://siem.example.net:514", "udp://siem.example.net": "udp://siem.example.net:514",
		"tls://siem.example.net": "tls://siem.example.net:6514", "tls://siem.example.net:1": "tls://siem.example.net:1",
		"udp://[2001:db8::1]": "udp://[2001:db8::1]:514", "unix:///dev/log": "unix:///dev/log",
	} {
		d, err := New(Config{URL: address}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if d.String() != want {
			t.Errorf("%s: %s, want %s", address, d, want)
		}
	}
}

// A file that is missing is told at the start.
func TestMissingFiles(t *testing.T) {
	for _, files := range []endpoint.TLS{{CAFile: "missing.pem"}, {CertificateFile: "missing.pem", KeyFile: "missing.pem"}} {
		if _, err := New(Config{URL: "tls://siem.example.net", TLS: files}, quiet); err == nil || !strings.Contains(err.Error(), "missing.pem") {
			t.Errorf("%+v: %v", files, err)
		}
	}
}
