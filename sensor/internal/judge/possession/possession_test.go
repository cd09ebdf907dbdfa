package possession_test

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
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
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
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/judge/possession"
)

// tape is what two sides have sent, in the order sent: segments or datagrams.
type tape struct {
	mu     sync.Mutex
	chunks []chunk
}

type chunk struct {
	d event.Direction
	b []byte
}

func (r *tape) add(d event.Direction, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chunks = append(r.chunks, chunk{d, bytes.Clone(b)})
}

// all is what was sent so far.
func (r *tape) all() []chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]chunk(nil), r.chunks...)
}

type taped struct {
	net.Conn
	tape *tape
}

func (c *taped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.tape.add(1, b[:n])
	}
	return n, err
}

func (c *taped) Write(b []byte) (int, error) {
	c.tape.add(0, b)
	return c.Conn.Write(b)
}

// parse returns the handshakes of chunks, which are cut into pieces of at most size
// bytes; of size 0 at random.
func parse(t testing.TB, chunks []chunk, datagrams bool, log []byte, size int) (all []*event.Handshake) {
	t.Helper()
	p := parsers.New(func(h *event.Handshake) { all = append(all, h) }, parsers.DefaultLimits)
	if len(log) > 0 {
		keys := new(keylog.Store)
		keys.Add("test", log, func(err error) { t.Error(err) })
		p.SetKeys(keys)
	}
	f := &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{
		{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000}, {Addr: netip.MustParseAddr("192.0.2.2"), Port: 443}}}
	if datagrams {
		f.Transport = event.UDP
	}
	c := p.Open(f)
	for i, ch := range chunks {
		at := event.Moment{Time: int64(i + 1), Frame: uint64(i + 1)}
		if datagrams {
			c.Datagram(ch.d, at, ch.b)
			continue
		}
		for b := ch.b; len(b) > 0; {
			n := size
			if n == 0 {
				n = 1 + mathrand.IntN(900)
			}
			n = min(n, len(b))
			c.Segment(ch.d, at, b[:n])
			b = b[n:]
		}
	}
	c.Close(event.EndOfInput)
	p.Flush()
	return all
}

// proves checks that the server of the conversation has proven its key, however it is
// cut, and no bit of what is verified can be changed.
func proves(t *testing.T, chunks []chunk, datagrams bool, log []byte, reason string) *event.Handshake {
	t.Helper()
	prover := possession.New()
	var h *event.Handshake
	for _, size := range []int{1 << 20, 1, 100, 0, 0} {
		all := parse(t, chunks, datagrams, log, size)
		if len(all) != 1 {
			t.Fatalf("%d handshakes", len(all))
		}
		h = all[0]
		j := prover.Prove(h)
		if j == nil || j.Status != judgement.Proven || !strings.Contains(j.Reason, reason) {
			t.Fatalf("by %d: %+v, proof missing %d, outcome %v", size, j, h.Proof.Missing, h.Outcome)
		}
	}
	for _, b := range [][]byte{h.Proof.Signed, h.Proof.Signature} {
		for i := 0; i < len(b); i += 1 + len(b)/40 {
			b[i] ^= 1 << (i % 8)
			if j := prover.Prove(h); j.Status != judgement.Mismatch {
				t.Errorf("with a bit of byte %d of %d changed: %+v", i, len(b), j)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
	return h
}

// certificate is one of key.
func certificate(t testing.TB, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proven.example"},
		DNSNames: []string{"proven.example"}, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key,
		OCSPStaple: bytes.Repeat([]byte("an answer"), 50), SignedCertificateTimestamps: [][]byte{[]byte("a timestamp")}}
}

// Handshakes of crypto/tls are proven, with what is stapled.
func TestStandardLibrary(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		version uint16
		key     crypto.Signer
		reason  string
		change  func(client, server *tls.Config)
	}{
		{"TLS 1.0, RSA", tls.VersionTLS10, r, "RSA with MD5 and SHA-1", nil},
		{"TLS 1.1, ECDSA", tls.VersionTLS11, e, "ECDSA with SHA-1", nil},
		{"TLS 1.2, RSA", tls.VersionTLS12, r, "RSA-PSS with SHA-256", nil},
		{"TLS 1.2, Ed25519", tls.VersionTLS12, ed, "Ed25519", nil},
		{"TLS 1.3, RSA", tls.VersionTLS13, r, "RSA-PSS with SHA-256", nil},
		{"TLS 1.3, ECDSA", tls.VersionTLS13, e, "ECDSA with SHA-384", nil},
		{"TLS 1.3, Ed25519, a client's certificate", tls.VersionTLS13, ed, "Ed25519", func(client, server *tls.Config) {
			server.ClientAuth, client.Certificates = tls.RequireAnyClientCert, []tls.Certificate{certificate(t, r)}
		}},
		{"TLS 1.3, HelloRetryRequest", tls.VersionTLS13, r, "RSA-PSS", func(client, server *tls.Config) {
			client.CurvePreferences, server.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}, []tls.CurveID{tls.CurveP384}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			client := &tls.Config{InsecureSkipVerify: true, ServerName: "proven.example", MinVersion: test.version, MaxVersion: test.version}
			server := &tls.Config{Certificates: []tls.Certificate{certificate(t, test.key)}, MinVersion: test.version, MaxVersion: test.version, KeyLogWriter: &log}
			if test.change != nil {
				test.change(client, server)
			}
			a, b := loopback(t)
			var rec tape
			done := make(chan error, 1)
			go func() {
				s := tls.Server(b, server)
				err := s.Handshake()
				if err == nil {
					_, err = s.Write([]byte("data"))
				}
				done <- err
			}()
			c := tls.Client(&taped{a, &rec}, client)
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			var secrets []byte
			if test.version == tls.VersionTLS13 {
				secrets = log.Bytes()
			}
			h := proves(t, rec.all(), false, secrets, test.reason)
			staple := server.Certificates[0].OCSPStaple
			if !bytes.Equal(h.OCSP, staple) || !strings.Contains(string(h.SCTs), "a timestamp") {
				t.Errorf("stapled: %q, timestamps: %q", h.OCSP, h.SCTs)
			}
			if h.HelloRetry != strings.Contains(test.name, "Retry") {
				t.Error("HelloRetryRequest")
			}
		})
	}
}

// loopback returns the two ends of a connection, which has room for what is not read
// yet.
func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// program skips the test where there is no such program.
func program(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("there is no %s", name)
	}
}

func run(t testing.TB, dir string, args ...string) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start runs a program until the end of the test, or until it ends itself.
func start(t testing.TB, dir string, in string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Dir, c.Stdin = dir, strings.NewReader(in)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(args, " "), out.String())
		}
	})
	return c
}

// freePort is a port of loopback that nobody listens at.
func freePort(t testing.TB, network string) int {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// between records what goes through a port of its own to a server at another.
func between(t testing.TB, network string, server int) (port int, rec *tape) {
	t.Helper()
	rec = new(tape)
	to := fmt.Sprintf("127.0.0.1:%d", server)
	if network == "udp" {
		in, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		out, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); out.Close() })
		var mu sync.Mutex
		var client net.Addr
		go func() {
			b := make([]byte, 1<<16)
			for {
				n, from, err := in.ReadFrom(b)
				if err != nil {
					return
				}
				mu.Lock()
				client = from
				mu.Unlock()
				rec.add(0, b[:n])
				out.Write(b[:n])
			}
		}()
		go func() {
			b := make([]byte, 1<<16)
			for {
				n, err := out.Read(b)
				if err != nil {
					if strings.Contains(err.Error(), "refused") { // the server does not listen yet
						continue
					}
					return
				}
				rec.add(1, b[:n])
				mu.Lock()
				in.WriteTo(b[:n], client)
				mu.Unlock()
			}
		}()
		return in.LocalAddr().(*net.UDPAddr).Port, rec
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		var out net.Conn
		for range 500 {
			if out, err = net.Dial("tcp", to); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return
		}
		defer out.Close()
		pass := func(d event.Direction, from, to net.Conn) {
			b := make([]byte, 1<<15)
			for {
				n, err := from.Read(b)
				if n > 0 {
					rec.add(d, b[:n])
					to.Write(b[:n])
				}
				if err != nil {
					return
				}
			}
		}
		go pass(0, in, out)
		pass(1, out, in)
	}()
	return l.Addr().(*net.TCPAddr).Port, rec
}

// Handshakes of OpenSSL and of GnuTLS are proven: all versions, kinds of keys and ways
// to exchange keys that they still speak.
func TestServers(t *testing.T) {
	program(t, "openssl")
	dir := t.TempDir()
	ec := func(curve string) []string {
		return []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	made := map[string]bool{}
	for _, test := range []struct {
		name    string
		key     []string
		udp     bool
		gnutls  string // the priority string of gnutls-serv; OpenSSL without
		options []string
		reason  string
	}{
		{"TLS 1.0, RSA-1024, DHE", []string{"-newkey", "rsa:1024"}, false, "", []string{"-tls1", "-cipher", "DHE:@SECLEVEL=0"}, "RSA with MD5 and SHA-1, RSA of 1024 bits"},
		{"TLS 1.0, RSA-512, ECDHE", []string{"-newkey", "rsa:512"}, false, "", []string{"-tls1", "-cipher", "ECDHE:@SECLEVEL=0"}, "RSA of 512 bits"},
		{"TLS 1.1, P-521", ec("P-521"), false, "", []string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, "ECDSA with SHA-1, ECDSA of 521 bits"},
		{"TLS 1.2, DSA", []string{"-newkey", "dsa:params"}, false, "", []string{"-tls1_2", "-cipher", "DHE:ALL:@SECLEVEL=0", "-sigalgs", "DSA+SHA256"}, "DSA with SHA-256, DSA of 1024 bits"},
		{"TLS 1.2, RSA with SHA-1", []string{"-newkey", "rsa:2048"}, false, "", []string{"-tls1_2", "-cipher", "ECDHE:@SECLEVEL=0", "-sigalgs", "RSA+SHA1"}, "RSA with SHA-1"},
		{"TLS 1.2, RSA-PSS", []string{"-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"}, false, "", []string{"-tls1_2", "-cipher", "ECDHE:@SECLEVEL=0"}, "RSA-PSS with SHA-256, RSASSA-PSS of 2048 bits"},
		{"TLS 1.2, P-384", ec("P-384"), false, "", []string{"-tls1_2", "-cipher", "ALL:@SECLEVEL=0"}, "ECDSA of 384 bits"},
		{"TLS 1.2, Ed25519", []string{"-newkey", "ed25519"}, false, "", []string{"-tls1_2"}, "Ed25519"},
		{"TLS 1.3, RSA-4096, SHA-384", []string{"-newkey", "rsa:4096"}, false, "", []string{"-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"}, "RSA-PSS with SHA-256, RSA of 4096 bits"},
		{"TLS 1.3, P-256", ec("P-256"), false, "", []string{"-tls1_3"}, "ECDSA with SHA-256"},
		{"DTLS 1.0, RSA", []string{"-newkey", "rsa:2048"}, true, "", []string{"-dtls1", "-cipher", "ALL:@SECLEVEL=0"}, "RSA with MD5 and SHA-1"},
		{"DTLS 1.2, P-256, small fragments", ec("P-256"), true, "", []string{"-dtls1_2", "-mtu", "256", "-cipher", "ECDHE:@SECLEVEL=0"}, "ECDSA"},
		{"DTLS 1.2, RSA, DHE, small fragments", []string{"-newkey", "rsa:2048"}, true, "", []string{"-dtls1_2", "-mtu", "256", "-cipher", "DHE:@SECLEVEL=0"}, "RSA"},
		{"GnuTLS, DTLS 1.2, RSA", []string{"-newkey", "rsa:2048"}, true, "NORMAL:-VERS-ALL:+VERS-DTLS1.2", nil, "RSA"},
		{"GnuTLS, TLS 1.2, DHE", []string{"-newkey", "rsa:2048"}, false, "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA", nil, "RSA"},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := strings.NewReplacer(":", "-", " ", "-").Replace(strings.Join(test.key, ""))
			if test.key[1] == "dsa:params" && !made[name] {
				run(t, dir, "openssl", "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:1024", "-pkeyopt", "dsa_paramgen_q_bits:160", "-pkeyopt", "dsa_paramgen_md:sha1", "-out", "params")
			}
			if !made[name] {
				args := append([]string{"openssl", "req", "-x509", "-nodes", "-subj", "/CN=proven.example", "-keyout", name + ".key", "-out", name + ".pem"}, test.key...)
				if strings.Contains(name, "512") && test.key[1] == "rsa:512" {
					args = append(args, "-sha1")
				}
				run(t, dir, args...)
				made[name] = true
			}
			network := "tcp"
			if test.udp {
				network = "udp"
			}
			server := freePort(t, network)
			if test.gnutls != "" {
				program(t, "gnutls-serv")
				args := []string{"gnutls-serv", "--quiet", "--priority", test.gnutls, "--port", fmt.Sprint(server), "--x509keyfile", name + ".key", "--x509certfile", name + ".pem"}
				if test.udp {
					args = append(args, "--udp")
				}
				start(t, dir, "", args...)
			} else {
				start(t, dir, "", append([]string{"openssl", "s_server", "-quiet", "-accept", fmt.Sprintf("127.0.0.1:%d", server), "-key", name + ".key", "-cert", name + ".pem"}, test.options...)...)
			}
			port, rec := between(t, network, server)
			client := []string{"openssl", "s_client", "-quiet", "-keylogfile", "secrets", "-connect", fmt.Sprintf("127.0.0.1:%d", port)}
			client = append(client, test.options...)
			if test.gnutls != "" && test.udp {
				client = append(client, "-dtls1_2")
			}
			os.Remove(filepath.Join(dir, "secrets"))
			c := exec.CommandContext(t.Context(), client[0], client[1:]...)
			c.Dir = dir
			stdin, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { stdin.Close(); c.Process.Kill(); c.Wait() }()
			// It is over when the client has said something encrypted.
			var log []byte
			var last int
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				all := parse(t, rec.all(), test.udp, nil, 1<<20)
				log, _ = os.ReadFile(filepath.Join(dir, "secrets"))
				if len(all) == 1 && all[0].Established && len(log) > 0 {
					if n := len(rec.all()); n == last {
						break
					}
					last = len(rec.all())
				}
			}
			if !strings.Contains(test.name, "TLS 1.3") {
				log = nil
			}
			proves(t, rec.all(), test.udp, log, test.reason)
			if test.udp { // datagrams in any order, and twice
				for range 5 {
					chunks := rec.all()
					var hello int
					for i, ch := range chunks {
						if ch.d == 1 && bytes.Contains(ch.b[:min(14, len(ch.b))], []byte{2}) && ch.b[0] == 22 && ch.b[13] == 2 {
							hello = i
							break
						}
					}
					end := hello
					for end < len(chunks) && chunks[end].d == 1 {
						end++
					}
					flight := append(append([]chunk(nil), chunks[hello:end]...), chunks[hello:end]...)
					mathrand.Shuffle(len(flight), func(i, j int) { flight[i], flight[j] = flight[j], flight[i] })
					mixed := append(append(append([]chunk(nil), chunks[:hello]...), flight...), chunks[end:]...)
					proves(t, mixed, true, log, test.reason)
				}
			}
		})
	}
}

// What does not prove anything has a reason, which costs no memory.
func TestMissing(t *testing.T) {
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certificate(t, e)
	prover := possession.New()
	if j := prover.Prove(&event.Handshake{}); j != nil {
		t.Errorf("without a certificate: %+v", j)
	}
	h := &event.Handshake{Chain: []event.ChainEntry{{Certificate: cert.Parse(leaf.Certificate[0])}}}
	reasons := map[string]bool{}
	for m := event.ProofNotSeen; m <= event.ProofForeign; m++ {
		if m == event.ProofSeen {
			continue
		}
		h.Proof.Missing = m
		j := prover.Prove(h)
		if j.Status != judgement.ProofUnknown || j.Reason == "" || reasons[j.Reason] {
			t.Errorf("%d: %+v", m, j)
		}
		reasons[j.Reason] = true
		if n := testing.AllocsPerRun(10, func() { prover.Prove(h) }); n > 0 {
			t.Errorf("%d: %v allocations", m, n)
		}
	}
}

// FuzzProve verifies any signature over anything with any certificate: nothing is
// proven but what was signed.
func FuzzProve(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der := certificate(f, key).Certificate[0]
	f.Add(der, uint16(0x0807), []byte("signed"), ed25519.Sign(key, []byte("signed")))
	f.Add(der, uint16(0), []byte("signed"), []byte{})
	prover := possession.New()
	f.Fuzz(func(t *testing.T, der []byte, scheme uint16, signed, sig []byte) {
		h := &event.Handshake{Chain: []event.ChainEntry{{Certificate: cert.Parse(der)}},
			Proof: event.Proof{Missing: event.ProofSeen, Scheme: scheme, Signed: signed, Signature: sig}}
		j := prover.Prove(h)
		if j == nil || j.Reason == "" {
			t.Fatalf("%+v", j)
		}
		if j.Status == judgement.Proven {
			h.Proof.Signed = append(bytes.Clone(signed), 0)
			if again := prover.Prove(h); again.Status == judgement.Proven {
				t.Fatal("something else is proven by the same signature")
			}
		}
	})
}
