package shape

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
)

const name = "www.update.example"

// pair is a certificate with its key, in memory and in files.
type pair struct {
	tls.Certificate
	chain, key string // PEM
	kind       string // of the key, as in a file of watched certificates
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
	p := &pair{kind: kind}
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
	for file, b := range map[string][]byte{p.chain: chain, p.key: private} {
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
	return run(t, a, "openssl", append([]string{"s_server", "-accept", a, "-cert", p.chain, "-cert_chain", p.chain, "-key", p.key, "-quiet"}, args...)...)
}

func gnutls(t testing.TB, p *pair, args ...string) string {
	a := free(t)
	_, port, _ := net.SplitHostPort(a)
	return run(t, a, "gnutls-serv", append([]string{"--port", port, "--echo", "--x509certfile", p.chain, "--x509keyfile", p.key}, args...)...)
}

func nginx(t testing.TB, p *pair, config string) string {
	a := free(t)
	file := filepath.Join(t.TempDir(), "nginx.conf")
	text := fmt.Sprintf("daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {}\nhttp { access_log off; server { listen %s ssl; ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3; %s } }\n", a, p.chain, p.key, config)
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

func TestExplore(t *testing.T) {
	for _, kind := range []string{"rsa-2048", "ecdsa-p256"} {
		for _, issued := range []bool{false, true} {
			p := issue(t, kind, issued)
			for name, start := range map[string]func(t testing.TB) string{
				"go": func(t testing.TB) string { return goServer(t, p, nil) },
				"goauth": func(t testing.TB) string {
					return goServer(t, p, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })
				},
				"openssl":         func(t testing.TB) string { return openssl(t, p) },
				"openssl padding": func(t testing.TB) string { return openssl(t, p, "-record_padding", "512") },
				"openssl verify":  func(t testing.TB) string { return openssl(t, p, "-verify", "1") },
				"openssl groups":  func(t testing.TB) string { return openssl(t, p, "-groups", "P-384") },
				"gnutls":          func(t testing.TB) string { return gnutls(t, p) },
				"nginx":           func(t testing.TB) string { return nginx(t, p, "") },
				"nginxh2":         func(t testing.TB) string { return nginx(t, p, "http2 on;") },
				"java":            func(t testing.TB) string { return java(t, p) },
				"node":            func(t testing.TB) string { return node(t, p) },
			} {
				t.Run(name, func(t *testing.T) {
					h := seen(t, start(t), &tls.Config{ServerName: "www.update.example", NextProtos: []string{"h2", "http/1.1"}})
					n := 0
					for _, der := range p.Certificate.Certificate {
						n += len(der) + 5
					}
					t.Logf("%s %v leaf %d chain %d suite %x: %v whole %v  %+v", name, issued, len(p.leaf()), n, h.CipherSuite, h.Flight.Lengths[:h.Flight.Records], h.Flight.Whole, Of(h))
				})
			}
		}
	}
}
