package parsers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/oddcert/oddcert/parsers/event"
)

// pemFile writes a certificate's chain and key to a file.
func pemFile(t *testing.T, c tls.Certificate) string {
	t.Helper()
	var b []byte
	for _, der := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// converse lets a client talk to a server that the command starts, through a proxy
// that records. The address is the last argument of both.
func converse(t *testing.T, server *exec.Cmd, address string, client func(address string) *exec.Cmd) []chunk {
	t.Helper()
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	var back net.Conn
	for range 100 {
		if back, err = net.Dial("tcp", address); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Skipf("%s does not listen: %v", server.Path, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := client(l.Addr().String())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var answer bytes.Buffer
	cmd.Stdout, cmd.Stderr = &answer, &answer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	front, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var rec tape
	var wait sync.WaitGroup
	pass := func(from, to net.Conn, d event.Direction) {
		w := &taped{to, &rec, d}
		io.Copy(struct{ io.Writer }{w}, from)
		to.(*net.TCPConn).CloseWrite()
	}
	wait.Go(func() { pass(front, back, 0) })
	wait.Go(func() { pass(back, front, 1) })
	// The client sends a word when the handshake is over. When nothing more comes, all
	// is recorded.
	io.WriteString(in, "word\n")
	for last, quiet := 0, 0; quiet < 10; quiet++ {
		time.Sleep(20 * time.Millisecond)
		rec.mu.Lock()
		sides := [2]int{}
		for _, c := range rec.chunks {
			sides[c.d]++
		}
		rec.mu.Unlock()
		if n := sides[0] + sides[1]; n != last || sides[0] < 2 && time.Since(begun) < 10*time.Second {
			last, quiet = n, 0
		}
	}
	in.Close()
	cmd.Process.Kill()
	front.Close()
	back.Close()
	wait.Wait()
	if t.Failed() || testing.Verbose() {
		cmd.Wait() // until all that they said is there
		server.Process.Kill()
		server.Wait()
		t.Logf("server: %.300s\nclient: %.300s", said.String(), answer.String())
	}
	return rec.chunks
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Every suite, records with padding, small records, and client certificates, by
// openssl's client and server.
func TestKeysOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	issued := newAuthority().issue(serverName, rsaKey(), 3000)
	mine := newAuthority().issue("client", ecdsaKey(), 0)
	file, clientFile := pemFile(t, issued), pemFile(t, mine)
	for _, c := range []struct {
		suite          string
		number         uint16
		server, client []string
	}{
		{"TLS_AES_128_GCM_SHA256", 0x1301, nil, nil},
		{"TLS_AES_256_GCM_SHA384", 0x1302, nil, nil},
		{"TLS_CHACHA20_POLY1305_SHA256", 0x1303, nil, nil},
		{"TLS_AES_128_CCM_SHA256", 0x1304, nil, nil},
		{"TLS_AES_128_CCM_8_SHA256", 0x1305, nil, nil},
		{"TLS_AES_128_GCM_SHA256", 0x1301, []string{"-record_padding", "4096", "-Verify", "1"}, []string{"-record_padding", "512"}},
		{"TLS_AES_256_GCM_SHA384", 0x1302, []string{"-max_send_frag", "512"}, []string{"-max_send_frag", "512", "-maxfraglen", "512"}},
		{"TLS_CHACHA20_POLY1305_SHA256", 0x1303, []string{"-no_middlebox", "-groups", "P-384", "-Verify", "1"}, []string{"-groups", "X25519:P-384"}},
	} {
		t.Run(fmt.Sprint(c.suite, c.server), func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			log := filepath.Join(t.TempDir(), "keys")
			server := exec.Command(openssl, append([]string{"s_server", "-accept", address, "-cert", file, "-cert_chain", file, "-key", file,
				"-tls1_3", "-ciphersuites", c.suite, "-naccept", "1"}, c.server...)...)
			chunks := converse(t, server, address, func(address string) *exec.Cmd {
				return exec.Command(openssl, append([]string{"s_client", "-connect", address, "-tls1_3", "-ciphersuites", c.suite, "-keylogfile", log, "-servername", serverName,
					"-cert", clientFile, "-cert_chain", clientFile, "-key", clientFile}, c.client...)...)
			})
			text, err := os.ReadFile(log)
			if err != nil || len(lines(text, "SERVER_H")) == 0 {
				t.Skipf("openssl made no handshake here: %v", err)
			}
			s := keyedSensor(t, text)
			s.play(chunks, event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			if h.Outcome != event.Extracted || h.CipherSuite != c.number || !h.Established {
				t.Errorf("%+v", h)
			}
			if len(h.Chain) == 0 {
				t.Fatal("no chain")
			}
			if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
				t.Errorf("%+v", h.Proof)
			}
			wantChain(t, h.Chain[:1], issued.Certificate[:1])
			if h.ClientAuth {
				wantChain(t, h.ClientChain[:1], mine.Certificate[:1])
			}
			if want := len(c.server) > 2; h.ClientAuth != want && len(c.server) != 4 {
				t.Errorf("client auth %v", h.ClientAuth)
			}
		})
	}
}

// Early data of the client has keys of its own, and is skipped.
func TestKeysEarlyData(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	issued := newAuthority().issue(serverName, rsaKey(), 0)
	file, dir := pemFile(t, issued), t.TempDir()
	early := filepath.Join(dir, "early")
	if err := os.WriteFile(early, bytes.Repeat([]byte("early "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	session, log := filepath.Join(dir, "session"), filepath.Join(dir, "keys")
	// The second server does not know the session: the early data is refused, and
	// there is a certificate; the third also asks for another key share.
	for i, extra := range [][]string{nil, nil, {"-groups", "P-384"}} {
		address := freeAddress(t)
		server := exec.Command(openssl, append([]string{"s_server", "-accept", address, "-cert", file, "-key", file, "-tls1_3", "-early_data", "-max_early_data", "16384", "-naccept", "1"}, extra...)...)
		os.Remove(log)
		chunks := converse(t, server, address, func(address string) *exec.Cmd {
			args := []string{"s_client", "-connect", address, "-tls1_3", "-keylogfile", log, "-servername", serverName, "-groups", "X25519:P-384"}
			if i == 0 {
				args = append(args, "-sess_out", session)
			} else {
				args = append(args, "-sess_in", session, "-early_data", early)
			}
			return exec.Command(openssl, args...)
		})
		text, err := os.ReadFile(log)
		if err != nil || len(lines(text, "SERVER_H")) == 0 {
			t.Skipf("openssl made no handshake here: %v", err)
		}
		if _, err := os.Stat(session); err != nil {
			t.Skip("openssl kept no session here")
		}
		s := keyedSensor(t, text)
		s.play(chunks, event.EndOfInput)
		s.check(t)
		h := one(t, s.got)
		if i > 0 && len(lines(text, "CLIENT_EARLY")) == 0 {
			t.Fatal("openssl sent no early data")
		}
		if h.Outcome != event.Extracted || !h.Established || h.HelloRetry != (i == 2) || s.Stats().WrongSecrets != 0 {
			t.Errorf("%d: %+v, %+v", i, h, s.Stats())
		}
		if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
			t.Errorf("%+v", h.Proof)
		}
		wantChain(t, h.Chain, issued.Certificate[:1])
	}
}

// Compressed certificates, by GnuTLS's client and server.
func TestKeysCompressed(t *testing.T) {
	serv, err := exec.LookPath("gnutls-serv")
	if err != nil {
		t.Skip("no gnutls-serv here")
	}
	cli, err := exec.LookPath("gnutls-cli")
	if err != nil {
		t.Skip("no gnutls-cli here")
	}
	issued := newAuthority().issue(serverName, rsaKey(), 9000)
	mine := newAuthority().issue("client", rsaKey(), 1000)
	file, clientFile := pemFile(t, issued), pemFile(t, mine)
	for _, algorithm := range []string{"zlib", "brotli", "zstd"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			_, port, _ := net.SplitHostPort(address)
			log := filepath.Join(t.TempDir(), "keys")
			const priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
			server := exec.Command(serv, "--port", port, "--x509certfile", file, "--x509keyfile", file, "--priority", priority,
				"--compress-cert", algorithm, "--echo", "--quiet")
			chunks := converse(t, server, address, func(address string) *exec.Cmd {
				_, port, _ := net.SplitHostPort(address)
				cmd := exec.Command(cli, "--insecure", "--port", port, "--priority", priority, "--compress-cert", algorithm, "--sni-hostname", serverName,
					"--x509certfile", clientFile, "--x509keyfile", clientFile, "127.0.0.1")
				cmd.Env = append(os.Environ(), "SSLKEYLOGFILE="+log)
				return cmd
			})
			text, err := os.ReadFile(log)
			if err != nil || len(lines(text, "SERVER_H")) == 0 {
				t.Skipf("GnuTLS made no handshake here: %v", err)
			}
			if n := len(stream(1, chunks)); n > len(issued.Certificate[0]) {
				t.Skipf("the server has sent %d bytes: this GnuTLS compresses nothing", n)
			}
			s := keyedSensor(t, text)
			s.play(chunks, event.EndOfInput)
			s.check(t)
			h := one(t, s.got)
			if h.Outcome != event.Extracted || !h.Established || !h.ClientAuth {
				t.Errorf("%+v", h)
			}
			if h.Proof.Missing != event.ProofSeen || !proved(t, h) {
				t.Errorf("%+v", h.Proof)
			}
			wantChain(t, h.Chain, issued.Certificate)
			wantChain(t, h.ClientChain, mine.Certificate)
		})
	}
}

// quicConversation is a mutual handshake of QUIC.
func quicConversation(t *testing.T) (c conversation13) {
	t.Helper()
	var log bytes.Buffer
	client, server := configs(tls.VersionTLS13, ecdsaKey())
	client.NextProtos, server.NextProtos = []string{"h3-test"}, []string{"h3-test"}
	server.ClientAuth = tls.RequireAnyClientCert
	server.Certificates[0] = newAuthority().issue(serverName, ecdsaKey(), 6000)
	client.Certificates = []tls.Certificate{newAuthority().issue("client", ecdsaKey(), 3000)}
	client.KeyLogWriter = &log
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	socket, front := listen(), listen()
	back, err := net.Dial("udp4", socket.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	transport := &quicgo.Transport{Conn: socket}
	listener, err := transport.Listen(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	var rec tape
	done := make(chan struct{})
	go relay(&rec, front, back, done)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		listener.Accept(ctx)
	}()
	dialer := &quicgo.Transport{Conn: listen()}
	conn, err := dialer.Dial(ctx, front.LocalAddr(), client, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-accepted
	conn.CloseWithError(0, "")
	dialer.Close()
	dialer.Conn.Close()
	listener.Close()
	transport.Close()
	socket.Close()
	front.Close()
	back.Close()
	<-done
	c.chunks, c.log = rec.chunks, log.Bytes()
	c.server, c.client = server.Certificates[0].Certificate, client.Certificates[0].Certificate
	return c
}
