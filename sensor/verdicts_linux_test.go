package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Rows of the table of verdicts live, at the mirror port of a network: a copied
// certificate; a forged one behind a relay, and then the same server with TLS 1.3; and
// an intercepting proxy that is listed.
func TestVerdictsLive(t *testing.T) {
	b := newBench(t)
	program := drilled(t)
	dir := t.TempDir()
	networks := filepath.Join(dir, "proxies.txt")
	if err := os.WriteFile(networks, []byte(b.ServerIP6+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "records.json")
	live := b.listen(t, program, "--json", file, "--records", "alert", "--networks", networks)

	fe2 := certificateIn(t, "internal/judge/trust/testdata/fe2.update.microsoft.com-2016.pem")
	private := issueCertificate(t, issued{cn: "A Private Root"})
	forged := issueCertificate(t, issued{names: []string{updateServer}, issuer: private})
	copied := &identity{fe2, liar{issueCertificate(t, issued{cn: "x", bits: 2048}).key, fe2.PublicKey}}

	// meet shakes hands at an address of the server's system; between, if it is not
	// nil, is what the connection goes through there.
	meet := func(address, name string, version uint16, server *tls.Config, relayed, wrong bool) {
		t.Helper()
		behind := b.Server.Listen(t, "127.0.0.1:0")
		front := b.Server.Listen(t, address)
		defer front.Close()
		defer behind.Close()
		go func() {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			if !relayed {
				answer(conn, server)
				return
			}
			onward := b.Server.Dial(t, behind.Addr().String())
			go pump(onward, conn)
			pump(conn, onward)
		}()
		if relayed {
			go func() {
				if conn, err := behind.Accept(); err == nil {
					answer(conn, server)
				}
			}()
		}
		conn := b.Client.Dial(t, address)
		defer conn.Close()
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: name, MinVersion: version, MaxVersion: version})
		if err := client.Handshake(); (err != nil) != wrong {
			t.Fatalf("%s: %v", address, err)
		}
	}
	meet(net.JoinHostPort(b.ServerIP, "443"), updateServer, tls.VersionTLS12, copied.serves(tls.VersionTLS12, updateAuthorities(t)...), false, true)
	meet(net.JoinHostPort(b.ServerIP, "8443"), updateServer, tls.VersionTLS12, forged.serves(tls.VersionTLS12), true, false)
	meet(net.JoinHostPort(b.ServerIP6, "443"), updateServer, tls.VersionTLS12, forged.serves(tls.VersionTLS12), false, false)
	waitFor(t, "the first alerts", func() bool { text, _ := os.ReadFile(file); return bytes.Count(text, []byte("\n")) >= 3 })
	meet(net.JoinHostPort(b.ServerIP, "8443"), "www.example.net", tls.VersionTLS13, forged.serves(tls.VersionTLS13), true, false)
	waitFor(t, "the alert of the contact", func() bool { text, _ := os.ReadFile(file); return bytes.Count(text, []byte("\n")) >= 4 })
	live.end(t)

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range objects(t, text) {
		f := flat(r)
		got = append(got, net.JoinHostPort(f.one("destination.ip"), f.one("destination.port"))+" "+f.one("oddcert.verdict"))
		t.Log(f.one("event.reason"), f["oddcert.verdict_reasons"])
	}
	slices.Sort(got)
	if want := "192.0.2.2:443 copied, 192.0.2.2:8443 contact, 192.0.2.2:8443 forged, [2001:db8::2]:443 intercepted"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// answer shakes hands as a server, whatever comes of it.
func answer(conn net.Conn, c *tls.Config) {
	_ = tls.Server(conn, c).Handshake()
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}

// pump takes bytes from one connection to another.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
}
