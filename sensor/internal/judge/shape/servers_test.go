package shape

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

const name = "www.update.example"

// pair is a certificate with its key, in memory and in files.
type pair struct {
	tls.Certificate
	chain, key string // PEM
	issuers    string // the chain without the leaf; empty where there is no more
}

// rsaKey is made once: it takes long.
var rsaKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// issue makes a certificate of its own, or one with an issuer in its chain.
func issue(t testing.TB, kind string, issued bool) *pair {
	t.Helper()
	var signer crypto.Signer
	switch kind {
	case "rsa-2048":
		signer = rsaKey()
	case "ecdsa-p256":
		signer = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case "ecdsa-p384":
		signer = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case "ed25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		signer = must(private, err)
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0), IsCA: true, BasicConstraintsValid: true}
	}
	p := new(pair)
	leaf := template(name)
	if !issued {
		p.Certificate.Certificate = [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, leaf, signer.Public(), signer))}
	} else {
		ca, caKey := template("Test CA"), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		p.Certificate.Certificate = [][]byte{
			must(x509.CreateCertificate(rand.Reader, leaf, ca, signer.Public(), caKey)),
			must(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)),
		}
	}
	p.PrivateKey = signer
	var chain []byte
	for _, der := range p.Certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(signer))})
	dir := t.TempDir()
	p.chain, p.key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	files := map[string][]byte{p.chain: chain, p.key: private}
	if issued {
		p.issuers = filepath.Join(dir, "issuers.pem")
		files[p.issuers] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate.Certificate[1]})
	}
	for file, b := range files {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// leaf is the DER of the server's own certificate.
func (p *pair) leaf() []byte { return p.Certificate.Certificate[0] }

// tapped is a client's connection, and what a parser sees of it.
type tapped struct {
	net.Conn
	seen *parsers.Conn
	n    int64
}

func (c *tapped) segment(d event.Direction, b []byte) {
	c.n++
	c.seen.Segment(d, event.Moment{Time: c.n, Frame: uint64(c.n)}, b)
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.segment(1, b[:n])
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	c.segment(0, b)
	return c.Conn.Write(b)
}

// seen is the handshake that a parser sees between a client with this configuration
// and the server at address.
func seen(t testing.TB, address string, config *tls.Config) *event.Handshake {
	t.Helper()
	var got []*event.Handshake
	p := parsers.New(func(h *event.Handshake) { got = append(got, h) }, parsers.DefaultLimits)
	server := netip.MustParseAddrPort(address)
	back, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	back.SetDeadline(time.Now().Add(20 * time.Second))
	c := &tapped{Conn: back, seen: p.Open(&event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{
		{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000}, {Addr: server.Addr(), Port: server.Port()}}})}
	config.InsecureSkipVerify = true
	client := tls.Client(c, config)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.seen.Close(event.EndOfInput)
	if len(got) != 1 {
		t.Fatalf("%d handshakes", len(got))
	}
	return got[0]
}

// free is an address that nobody listens on.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs a server until the test ends, and waits until it listens. It skips the test
// where there is no such program.
func run(t testing.TB, address, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	cmd := exec.Command(path, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Dir = t.TempDir()
	cmd.WaitDelay = time.Second // children of it may hold its output open
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s: %.500s", program, said.String())
		}
	})
	for range 400 {
		select {
		case <-ended:
			t.Skipf("%s does not run so: %.300s", program, said.String())
		default:
		}
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s does not listen", program)
	return ""
}

// goServer runs crypto/tls.
func goServer(t testing.TB, p *pair, change func(*tls.Config)) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{p.Certificate}}
	if change != nil {
		change(config)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func openssl(t testing.TB, p *pair, args ...string) string {
	a := free(t)
	command := []string{"s_server", "-accept", a, "-cert", p.chain, "-key", p.key, "-quiet"}
	if p.issuers != "" {
		command = append(command, "-cert_chain", p.issuers)
	}
	return run(t, a, "openssl", append(command, args...)...)
}

func gnutls(t testing.TB, p *pair, args ...string) string {
	a := free(t)
	_, port, _ := net.SplitHostPort(a)
	return run(t, a, "gnutls-serv", append([]string{"--port", port, "--echo", "--x509certfile", p.chain, "--x509keyfile", p.key}, args...)...)
}

func nginx(t testing.TB, p *pair) string {
	a := free(t)
	file := filepath.Join(t.TempDir(), "nginx.conf")
	text := fmt.Sprintf("daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {}\nhttp { access_log off; server { listen %s ssl; ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3; } }\n", a, p.chain, p.key)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return run(t, a, "nginx", "-p", filepath.Dir(file), "-c", file, "-e", "stderr")
}

func java(t testing.TB, p *pair) string {
	a := free(t)
	_, port, _ := net.SplitHostPort(a)
	store := filepath.Join(t.TempDir(), "store.p12")
	if out, err := exec.Command("openssl", "pkcs12", "-export", "-in", p.chain, "-inkey", p.key, "-out", store, "-passout", "pass:secret").CombinedOutput(); err != nil {
		t.Skipf("openssl pkcs12: %v: %s", err, out)
	}
	source, err := filepath.Abs("testdata/Server.java")
	if err != nil {
		t.Fatal(err)
	}
	return run(t, a, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", source, port, store)
}

func node(t testing.TB, p *pair) string {
	a := free(t)
	_, port, _ := net.SplitHostPort(a)
	return run(t, a, "node", "-e", `const fs = require("fs");
require("tls").createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2])}, s => s.on("error", () => {})).listen(+process.argv[3], "127.0.0.1")`, p.chain, p.key, port)
}

// grpc runs a server of BoringSSL, which Python's package grpcio has inside.
func grpc(t testing.TB, p *pair) string {
	if err := exec.Command("python3", "-c", "import grpc").Run(); err != nil {
		t.Skip("Python's package grpcio is not installed")
	}
	a := free(t)
	return run(t, a, "python3", "-c", `import grpc, sys
from concurrent import futures
read = lambda name: open(name, "rb").read()
s = grpc.server(futures.ThreadPoolExecutor(1))
s.add_secure_port(sys.argv[1], grpc.ssl_server_credentials([(read(sys.argv[2]), read(sys.argv[3]))]))
s.start()
sys.stdin.read()`, a, p.key, p.chain)
}

// TestServers has real servers send certificates, and holds what is said of their
// lengths against the certificates themselves.
func TestServers(t *testing.T) {
	if testing.Short() {
		t.Skip("left out of a short run")
	}
	const (
		apart     = iota // each message in a record
		coalesced        // all in one
		hidden           // padded, so that nothing is told
		longer           // apart, with more in the Certificate than certificates
	)
	for _, s := range []struct {
		name  string
		start func(t testing.TB, p *pair) string
		form  int
	}{
		{"crypto/tls", func(t testing.TB, p *pair) string { return goServer(t, p, nil) }, apart},
		{"crypto/tls, client certificate", func(t testing.TB, p *pair) string {
			return goServer(t, p, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })
		}, apart},
		{"crypto/tls, HelloRetryRequest", func(t testing.TB, p *pair) string {
			return goServer(t, p, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} })
		}, apart},
		{"crypto/tls, stapled", func(t testing.TB, p *pair) string {
			q := *p
			q.OCSPStaple = bytes.Repeat([]byte{1}, 300)
			return goServer(t, &q, nil)
		}, longer},
		{"openssl", func(t testing.TB, p *pair) string { return openssl(t, p) }, apart},
		{"openssl, client certificate", func(t testing.TB, p *pair) string { return openssl(t, p, "-verify", "1") }, apart},
		{"openssl, HelloRetryRequest", func(t testing.TB, p *pair) string { return openssl(t, p, "-groups", "P-521") }, apart},
		{"openssl, SHA-384", func(t testing.TB, p *pair) string { return openssl(t, p, "-ciphersuites", "TLS_AES_256_GCM_SHA384") }, apart},
		{"openssl, padding", func(t testing.TB, p *pair) string { return openssl(t, p, "-record_padding", "512") }, hidden},
		{"gnutls-serv", func(t testing.TB, p *pair) string { return gnutls(t, p) }, apart},
		{"nginx", nginx, apart},
		{"node", node, apart},
		{"java", java, apart},
		{"grpc", grpc, coalesced},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []string{"rsa-2048", "ecdsa-p256", "ecdsa-p384", "ed25519"} {
				if (kind == "ed25519" || kind == "ecdsa-p384") && s.name != "crypto/tls" && s.name != "openssl" {
					continue // it takes long, and BoringSSL takes no Ed25519
				}
				for _, issued := range []bool{false, true} {
					p := issue(t, kind, issued)
					h := seen(t, s.start(t, p), &tls.Config{ServerName: name, NextProtos: []string{"h2", "http/1.1"}})
					x := Of(h)
					how := fmt.Sprintf("%s, issued %v, %d bytes: records of %v, %+v", kind, issued, len(p.leaf()), h.Flight.Lengths[:h.Flight.Records], x)
					t.Log(how)
					if h.Version != tls.VersionTLS13 || !h.Flight.Whole || h.HelloRetry != strings.HasSuffix(s.name, "HelloRetryRequest") {
						t.Fatalf("%s: version %#x, retry %v", how, h.Version, h.HelloRetry)
					}
					if s.form == hidden {
						if x != nil {
							t.Error(how)
						}
						continue
					}
					if x == nil || x.Coalesced != (s.form == coalesced) {
						t.Fatal(how)
					}
					// The choices of a hello and those of a signature are too many together.
					tells := s.form == apart || s.form == coalesced && kind == "rsa-2048"
					for more := range 3 {
						w := watchedOf(len(p.leaf())+more-1, kind)
						if got := len(w.Fits(x, h, nil)) == 1; got != (tells && more == 1 && !issued) {
							t.Errorf("%s: one of %d bytes fits: %v", how, len(p.leaf())+more-1, got)
						}
					}
					for _, other := range []string{"rsa-2048", "rsa-3072", "ecdsa-p384", "ed448"} {
						if other != kind && s.form == apart && len(watchedOf(len(p.leaf()), other).Fits(x, h, nil)) > 0 {
							t.Errorf("%s: one with a key %s fits", how, other)
						}
					}
					// It is known from a handshake of TLS 1.2, with what was sent beside it.
					shown := NewShown(1)
					shown.See(handshakeOf(h, p))
					fits := shown.Fits(x, h)
					if (len(fits) == 1 && fits[0] == sha256.Sum256(p.leaf())) != tells {
						t.Errorf("%s: fits %x of those that were shown", how, fits)
					}
				}
			}
		})
	}
}

// watchedOf watches for one certificate.
func watchedOf(bytes int, kind string) *Watched {
	k, _ := keyNamed(kind)
	return &Watched{[]certificateShape{{sha256: [32]byte{1}, bytes: bytes, key: k}}}
}

// handshakeOf is a handshake with the server of h that shows the certificate.
func handshakeOf(h *event.Handshake, p *pair) *event.Handshake {
	x := &event.Handshake{Flow: h.Flow, Client: h.Client, End: h.End}
	for _, der := range p.Certificate.Certificate {
		x.Chain = append(x.Chain, event.ChainEntry{Certificate: cert.Parse(der)})
	}
	return x
}
