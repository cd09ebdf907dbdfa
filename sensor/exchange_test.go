//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// exchange is one server and the clients that shake hands with it, with what a
// passive observer should find. Command lines are templates: $IP, $PORT, and
// NAME.pem and NAME.key for each name of certificates, in the current folder.
type exchange struct {
	name    string // of the capture too
	about   string
	port    int
	ipv6    bool
	udp     bool
	server  string   // empty for crypto/tls in this process, with goTLS
	clients []string // one after the other
	says    []string // each client's output holds this: the client's own word for what was negotiated
	goTLS   uint16   // the version

	want []handshake // in the order of the clients; server and hashes are filled in
}

// Identifiers of rules that the certificates of the exchanges are made for.
const (
	ruleSignatureLength = "7f0c9b0e-1b64-4a38-b1f3-3b7e5a0b9c03"
	ruleUnknownIssuer   = "5d9f0b77-6c57-4f0e-8a6e-0d2c1b5b8e02"
	rulePosing          = "17c8e5a3-9b60-4d2f-8f41-7e3a5c0b9d18"
)

const (
	serve    = "openssl s_server -quiet -accept $IP:$PORT "
	connect  = "openssl s_client -brief -connect $IP:$PORT "
	oldSuite = " -cipher ALL:@SECLEVEL=0"
)

// exchanges are what the lab does. OpenSSL 3 speaks no SSL 3.0.
var exchanges = []exchange{
	{
		name: "odd-certificate", port: 443,
		about:   "A look-alike of Microsoft's certificate for www.update.microsoft.com: it names Microsoft Update Secure Server CA 1 as its issuer, which signs with 4,096 bits, and has a signature of 2,048.",
		server:  serve + "-tls1_2 -cert lookalike.pem -key lookalike.key",
		clients: []string{connect + "-servername www.update.microsoft.com"},
		says:    []string{"Protocol version: TLSv1.2"},
		want:    []handshake{{Version: "1.2", SNI: "www.update.microsoft.com", Certificates: "extracted", Chain: []string{"lookalike"}, Alerts: []string{ruleSignatureLength}}},
	},
	{
		name: "tls10-rsa", port: 8443, about: "TLS 1.0 with an RSA certificate.",
		server:  serve + "-tls1 -cert rsa.pem -key rsa.key" + oldSuite,
		clients: []string{connect + "-tls1" + oldSuite},
		says:    []string{"Protocol version: TLSv1\n"},
		want:    []handshake{{Version: "1.0", Certificates: "extracted", Chain: []string{"rsa"}}},
	},
	{
		name: "tls11-ecdsa", port: 636, ipv6: true, about: "TLS 1.1 with an ECDSA certificate, over IPv6.",
		server:  serve + "-tls1_1 -cert ecdsa.pem -key ecdsa.key" + oldSuite,
		clients: []string{connect + "-tls1_1" + oldSuite},
		says:    []string{"Protocol version: TLSv1.1"},
		want:    []handshake{{Version: "1.1", Certificates: "extracted", Chain: []string{"ecdsa"}}},
	},
	{
		name: "tls12-chain", port: 993, ipv6: true, about: "TLS 1.2 with a chain of three certificates, RSA and ECDSA, over IPv6.",
		server:  serve + "-tls1_2 -cert leaf.pem -key leaf.key -cert_chain chain.pem",
		clients: []string{connect + "-servername leaf.example"},
		says:    []string{"Protocol version: TLSv1.2"},
		want:    []handshake{{Version: "1.2", SNI: "leaf.example", Certificates: "extracted", Chain: []string{"leaf", "middle", "root"}}},
	},
	{
		name: "tls12-client-certificate", port: 5671, about: "TLS 1.2 where the server asks for a certificate and the client shows one.",
		server:  serve + "-tls1_2 -cert ecdsa.pem -key ecdsa.key -Verify 1 -verify_quiet",
		clients: []string{connect + "-cert client.pem -key client.key"},
		says:    []string{"Protocol version: TLSv1.2"},
		want:    []handshake{{Version: "1.2", Certificates: "extracted", Chain: []string{"ecdsa"}, ClientChain: []string{"client"}}},
	},
	{
		name: "tls12-resumed", port: 465, about: "TLS 1.2 twice: a full handshake, and one that resumes its session.",
		server: serve + "-tls1_2 -cert rsa.pem -key rsa.key",
		clients: []string{
			"openssl s_client -connect $IP:$PORT -sess_out session",
			"openssl s_client -connect $IP:$PORT -sess_in session",
		},
		says: []string{"New, TLSv1.2", "Reused, TLSv1.2"},
		want: []handshake{
			{Version: "1.2", Certificates: "extracted", Chain: []string{"rsa"}},
			{Version: "1.2", Certificates: "resumed"},
		},
	},
	{
		name: "tls12-anonymous", port: 4433, about: "TLS 1.2 with an anonymous suite: no certificate on either side.",
		server:  serve + "-tls1_2 -nocert -cipher ADH:@SECLEVEL=0",
		clients: []string{connect + "-cipher ADH:@SECLEVEL=0"},
		says:    []string{"Protocol version: TLSv1.2"},
		want:    []handshake{{Version: "1.2", Certificates: "none"}},
	},
	{
		name: "tls12-gnutls", port: 5061, about: "TLS 1.2 between GnuTLS on both sides, with a client's certificate.",
		server:  "gnutls-serv --quiet --port $PORT --x509certfile ecdsa.pem --x509keyfile ecdsa.key --require-client-cert --priority NORMAL:-VERS-ALL:+VERS-TLS1.2",
		clients: []string{"gnutls-cli --port $PORT --insecure --x509certfile client.pem --x509keyfile client.key --sni-hostname gnutls.example $IP"},
		says:    []string{"Description: (TLS1.2"},
		want:    []handshake{{Version: "1.2", SNI: "gnutls.example", Certificates: "extracted", Chain: []string{"ecdsa"}, ClientChain: []string{"client"}}},
	},
	{
		name: "tls12-go", port: 9443, about: "TLS 1.2 between Go's crypto/tls on both sides.",
		goTLS: tls.VersionTLS12,
		want:  []handshake{{Version: "1.2", SNI: "go.example", Certificates: "extracted", Chain: []string{"rsa"}}},
	},
	{
		name: "tls13", port: 8444, about: "TLS 1.3: the server's certificate is encrypted.",
		server:  serve + "-tls1_3 -cert lookalike.pem -key lookalike.key",
		clients: []string{connect + "-servername www.update.microsoft.com"},
		says:    []string{"Protocol version: TLSv1.3"},
		want:    []handshake{{Version: "1.3", SNI: "www.update.microsoft.com", Certificates: "encrypted", Alerts: []string{rulePosing}}},
	},
	{
		name: "tls13-retry", port: 8445, ipv6: true, about: "TLS 1.3 with a HelloRetryRequest, since the client's key share is of a group that the server does not take; and certificates on both sides, encrypted. Over IPv6.",
		server:  serve + "-tls1_3 -cert rsa.pem -key rsa.key -groups P-384 -Verify 1 -verify_quiet",
		clients: []string{connect + "-groups X25519:P-384 -cert client.pem -key client.key"},
		says:    []string{"Protocol version: TLSv1.3"},
		want:    []handshake{{Version: "1.3", Certificates: "encrypted"}},
	},
	{
		name: "tls13-gnutls", port: 5062, about: "TLS 1.3 between GnuTLS on both sides.",
		server:  "gnutls-serv --quiet --port $PORT --x509certfile rsa.pem --x509keyfile rsa.key --disable-client-cert",
		clients: []string{"gnutls-cli --port $PORT --insecure --sni-hostname gnutls.example $IP"},
		says:    []string{"Description: (TLS1.3"},
		want:    []handshake{{Version: "1.3", SNI: "gnutls.example", Certificates: "encrypted"}},
	},
	{
		name: "tls13-go", port: 9444, about: "TLS 1.3 between Go's crypto/tls on both sides.",
		goTLS: tls.VersionTLS13,
		want:  []handshake{{Version: "1.3", SNI: "go.example", Certificates: "encrypted"}},
	},
	{
		name: "dtls12", port: 4443, udp: true, about: "DTLS 1.2 with a cookie exchange, and a self-signed certificate for www.update.microsoft.com.",
		server:  serve + "-dtls1_2 -cert selfsigned.pem -key selfsigned.key",
		clients: []string{connect + "-dtls1_2 -servername www.update.microsoft.com"},
		says:    []string{"Protocol version: DTLSv1.2"},
		want:    []handshake{{Version: "1.2", SNI: "www.update.microsoft.com", Certificates: "extracted", Chain: []string{"selfsigned"}, Alerts: []string{ruleUnknownIssuer}}},
	},
	{
		name: "dtls12-fragments", port: 5349, udp: true, ipv6: true, about: "DTLS 1.2 over IPv6 with a chain in many fragments, and a client's certificate.",
		server:  serve + "-dtls1_2 -mtu 400 -cert leaf.pem -key leaf.key -cert_chain chain.pem -Verify 1 -verify_quiet",
		clients: []string{connect + "-dtls1_2 -mtu 400 -cert client.pem -key client.key"},
		says:    []string{"Protocol version: DTLSv1.2"},
		want:    []handshake{{Version: "1.2", Certificates: "extracted", Chain: []string{"leaf", "middle", "root"}, ClientChain: []string{"client"}}},
	},
	{
		name: "dtls10", port: 4444, udp: true, about: "DTLS 1.0.",
		server:  serve + "-dtls1 -cert rsa.pem -key rsa.key" + oldSuite,
		clients: []string{connect + "-dtls1" + oldSuite},
		says:    []string{"Protocol version: DTLSv1\n"},
		want:    []handshake{{Version: "1.0", Certificates: "extracted", Chain: []string{"rsa"}}},
	},
	{
		name: "dtls12-gnutls", port: 5063, udp: true, about: "DTLS 1.2 between GnuTLS on both sides.",
		server:  "gnutls-serv --quiet --udp --port $PORT --x509certfile ecdsa.pem --x509keyfile ecdsa.key --disable-client-cert",
		clients: []string{"gnutls-cli --udp --port $PORT --insecure --sni-hostname gnutls.example $IP"},
		says:    []string{"Description: (DTLS1.2"},
		want:    []handshake{{Version: "1.2", SNI: "gnutls.example", Certificates: "extracted", Chain: []string{"ecdsa"}}},
	},
}

// certificates are how the certificates of the exchanges are made, in order.
var certificates = []string{
	"openssl req -x509 -newkey rsa:2048 -noenc -days 3650 -keyout rsa.key -out rsa.pem -subj /CN=rsa.example",
	"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -keyout ecdsa.key -out ecdsa.pem -subj /CN=ecdsa.example",
	"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -keyout client.key -out client.pem -subj /CN=client.example",
	"openssl req -x509 -newkey rsa:2048 -noenc -days 3650 -keyout root.key -out root.pem -subj /CN=Root",
	"openssl req -x509 -CA root.pem -CAkey root.key -newkey ec -pkeyopt ec_paramgen_curve:P-384 -noenc -days 3650 -keyout middle.key -out middle.pem -subj /CN=Intermediate",
	"openssl req -x509 -CA middle.pem -CAkey middle.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -keyout leaf.key -out leaf.pem -subj /CN=leaf.example",
	"openssl req -x509 -newkey rsa:2048 -noenc -days 3650 -keyout issuer.key -out issuer.pem -subj '/C=US/ST=Washington/L=Redmond/O=Microsoft Corporation/CN=Microsoft Update Secure Server CA 1'",
	"openssl req -x509 -CA issuer.pem -CAkey issuer.key -newkey rsa:2048 -noenc -days 730 -keyout lookalike.key -out lookalike.pem -subj /C=US/ST=Washington/L=Redmond/O=Microsoft/OU=DSP/CN=www.update.microsoft.com",
	"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 730 -keyout selfsigned.key -out selfsigned.pem -subj /CN=www.update.microsoft.com",
}

// words splits a command line as a shell does, single quotes included.
func words(line string) (all []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// issue makes the certificates in a folder, and returns their SHA-256 by name
// as OpenSSL prints them.
func issue(t *testing.T, dir string) map[string]string {
	t.Helper()
	hashes := map[string]string{}
	for _, line := range certificates {
		w := words(line)
		cmd := exec.Command(w[0], w[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		for i, s := range w {
			if s == "-out" {
				name := strings.TrimSuffix(w[i+1], ".pem")
				hashes[name] = fingerprint(t, filepath.Join(dir, w[i+1]))
			}
		}
	}
	var chain []byte
	for _, name := range []string{"middle.pem", "root.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, b...)
	}
	if err := os.WriteFile(filepath.Join(dir, "chain.pem"), chain, 0o600); err != nil {
		t.Fatal(err)
	}
	return hashes
}

// fingerprint is the SHA-256 of a certificate, by OpenSSL.
func fingerprint(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(strings.TrimSpace(string(out)), "=")
	value = strings.ReplaceAll(value, ":", "")
	if b, err := hex.DecodeString(value); err != nil || len(b) != 32 {
		t.Fatalf("openssl x509 -fingerprint printed %q", out)
	}
	return value
}

// bench is a lab with certificates.
type bench struct {
	*netlab.Lab
	dir    string // of certificates and keys
	hashes map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	for _, tool := range []string{"openssl", "gnutls-serv", "gnutls-cli"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("handshakes of the lab: %s is not installed", tool)
		}
	}
	b := &bench{Lab: netlab.New(t), dir: t.TempDir()}
	b.hashes = issue(t, b.dir)
	return b
}

// expected is what should be found of e.
func (b *bench) expected(e *exchange) []handshake {
	var all []handshake
	for _, h := range e.want {
		h.Protocol, h.Transport = "tls", "tcp"
		if e.udp {
			h.Protocol, h.Transport = "dtls", "udp"
		}
		h.Server = net.JoinHostPort(b.serverIP(e), fmt.Sprint(e.port))
		h.Chain, h.ClientChain = b.named(h.Chain), b.named(h.ClientChain)
		all = append(all, h)
	}
	return all
}

func (b *bench) named(names []string) (hashes []string) {
	for _, name := range names {
		hashes = append(hashes, b.hashes[name])
	}
	return hashes
}

func (b *bench) serverIP(e *exchange) string {
	if e.ipv6 {
		return b.ServerIP6
	}
	return b.ServerIP
}

// line fills in a command line.
func (b *bench) line(e *exchange, template string) []string {
	ip := b.serverIP(e)
	if e.ipv6 && strings.HasPrefix(template, "openssl") {
		ip = "[" + ip + "]"
	}
	return words(strings.NewReplacer("$IP", ip, "$PORT", fmt.Sprint(e.port)).Replace(template))
}

// run does the handshakes of e.
func (b *bench) run(t *testing.T, e *exchange) {
	t.Helper()
	if e.goTLS != 0 {
		b.runGo(t, e)
		return
	}
	w := b.line(e, e.server)
	server := b.Server.Command(w[0], w[1:]...)
	server.Dir = b.dir
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if _, err := server.StdinPipe(); err != nil { // at its end s_server would stop
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	b.listening(t, e)
	for i, template := range e.clients {
		w := b.line(e, template)
		client := b.Client.Command("timeout", append([]string{"20"}, w...)...)
		client.Dir = b.dir
		out, _ := client.CombinedOutput() // what it says is what counts
		if !strings.Contains(string(out), e.says[i]) {
			t.Fatalf("%s: %s: does not say %q:\n%s", e.name, strings.Join(w, " "), e.says[i], out)
		}
	}
}

// runGo does one handshake with crypto/tls.
func (b *bench) runGo(t *testing.T, e *exchange) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(b.dir, "rsa.pem"), filepath.Join(b.dir, "rsa.key"))
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(b.serverIP(e), fmt.Sprint(e.port))
	listener := b.Server.Listen(t, address)
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			err = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: e.goTLS, MaxVersion: e.goTLS}).Handshake()
		}
		served <- err
	}()
	conn := tls.Client(b.Client.Dial(t, address), &tls.Config{ServerName: "go.example", InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().Version; got != e.goTLS {
		t.Fatalf("%s: version %s", e.name, tls.VersionName(got))
	}
	conn.Close()
	listener.Close()
}

// listening waits until the server of e does, without a packet.
func (b *bench) listening(t *testing.T, e *exchange) {
	t.Helper()
	network := "tcp"
	if e.udp {
		network = "udp"
	}
	waitFor(t, e.name+" to listen", func() bool { return b.Server.Listens(network, e.port) })
}
