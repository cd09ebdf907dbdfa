package syslog

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// TestCheck connects, and sends nothing.
func TestCheck(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	serve := func(r *receiver, c net.Conn, _ int) { r.read(c, -1) }
	plain := listen(t, nil, serve)
	secure := listen(t, &tls.Config{Certificates: []tls.Certificate{a.issue(t, "localhost")}}, serve)
	_, port, err := net.SplitHostPort(secure.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		config Config
		want   string
	}{
		{"all is well", Config{URL: "tcp://" + plain.Addr().String()}, ""},
		{"TLS", Config{URL: "tls://localhost:" + port, TLS: endpoint.TLS{CAFile: a.file("ca.pem")}}, ""},
		{"an authority that is not known", Config{URL: "tls://localhost:" + port}, "unknown authority"},
		{"UDP", Config{URL: "udp://127.0.0.1:9"}, ""},
		{"no socket", Config{URL: "unix:///absent/socket"}, "no such file"},
	} {
		err := open(t, c.config).Check(t.Context(), output.Records)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	plain.Close()
	if err := open(t, Config{URL: "tcp://" + plain.Addr().String()}).Check(t.Context(), output.Records); err == nil {
		t.Error("nobody listens, and all is well")
	}
	if n := len(plain.got) + len(secure.got); n > 0 {
		t.Errorf("%d messages were sent", n)
	}
}
