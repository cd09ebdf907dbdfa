package syslog

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
)

// many returns n records with ids of their own.
func many(n int) []*output.Record {
	all := make([]*output.Record, n)
	for i := range all {
		all[i] = &output.Record{
			Dataset: output.Handshake, ID: fmt.Sprintf("%032x", i), Time: int64(i) * 1e6,
			JSON: fmt.Appendf(nil, `{"event":{"id":"%032x"},"text":"%s"}`, i, strings.Repeat("x", 500+i%100)),
		}
	}
	return all
}

// deliver sends records as the engine does, until each has its fate.
func deliver(t *testing.T, d *Destination, records []*output.Record, batch int) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for len(records) > 0 {
		n := min(batch, len(records))
		verdicts := make([]delivery.Verdict, n)
		trouble := d.Send(t.Context(), records[:n], verdicts)
		if trouble != nil {
			if time.Now().After(end) {
				t.Fatalf("still in trouble: %v", trouble.Err)
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for _, v := range verdicts {
			if v.Fate != delivery.Delivered {
				t.Fatalf("verdict %+v", v)
			}
		}
		records = records[n:]
	}
}

// receiver is a server that reads messages in their frames.
type receiver struct {
	net.Listener

	mu   sync.Mutex
	got  map[string]int // messages
	last []string
}

// listen starts a receiver; serve gets each connection with its number.
func listen(t *testing.T, config *tls.Config, serve func(r *receiver, c net.Conn, n int)) *receiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	r := &receiver{Listener: l, got: map[string]int{}}
	var done sync.WaitGroup
	done.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				serve(r, c, n)
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return r
}

// read reads n messages, or all for a negative n.
func (r *receiver) read(c net.Conn, n int) {
	b := bufio.NewReader(c)
	for ; n != 0; n-- {
		size, err := b.ReadString(' ')
		if err != nil {
			return
		}
		length, err := strconv.Atoi(strings.TrimSuffix(size, " "))
		if err != nil {
			return
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(b, text); err != nil {
			return
		}
		r.mu.Lock()
		r.got[string(text)]++
		r.last = append(r.last, string(text))
		r.mu.Unlock()
	}
}

// all waits until the receiver has all records, byte for byte.
func (r *receiver) all(t *testing.T, d *Destination, records []*output.Record) {
	t.Helper()
	for _, record := range records {
		text, err := d.message.format(record)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			r.mu.Lock()
			n := r.got[string(text)]
			r.mu.Unlock()
			if n > 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("lost: %s", text)
			}
		}
	}
}

func open(t *testing.T, c Config) *Destination {
	t.Helper()
	c.Sensor = "span-1"
	d, err := New(c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// A receiver that is well gets each message once, in order.
func TestTCP(t *testing.T) {
	t.Parallel()
	r := listen(t, nil, func(r *receiver, c net.Conn, _ int) { r.read(c, -1) })
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	records := many(3000)
	deliver(t, d, records, 700)
	r.all(t, d, records)
	for i, text := range r.last {
		if !strings.Contains(text, fmt.Sprintf(`id="%032x"`, i)) {
			t.Fatalf("message %d: %s", i, text)
		}
	}
	if len(r.last) != len(records) {
		t.Errorf("%d messages for %d records", len(r.last), len(records))
	}
}

// What a receiver's kernel has acknowledged and the receiver never read goes again:
// here it ends again and again with unread bytes, or closes in good order.
func TestReceiverEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	r := listen(t, nil, func(r *receiver, c net.Conn, n int) {
		if n < 5 {
			r.read(c, 100)
			time.Sleep(1100 * time.Millisecond) // until what came is acknowledged and believed
			if n%2 == 0 {
				_ = c.(*net.TCPConn).SetLinger(0) // a reset
			}
			return
		}
		r.read(c, -1)
	})
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	records := many(2000)
	deliver(t, d, records, 50)
	// The end of the last connection may come after the last batch: the next batch
	// finds it.
	for range 200 {
		r.mu.Lock()
		n := len(r.got)
		r.mu.Unlock()
		if n >= len(records) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		deliver(t, d, records[:1], 1)
	}
	r.all(t, d, records)
}

// What was delivered last, and never read, goes again without a new record.
func TestNothingFollows(t *testing.T) {
	t.Parallel()
	r := listen(t, nil, func(r *receiver, c net.Conn, n int) {
		if n == 0 {
			time.Sleep(1500 * time.Millisecond)
			return
		}
		r.read(c, -1)
	})
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	records := many(10)
	verdicts := make([]delivery.Verdict, len(records))
	if trouble := d.Send(t.Context(), records, verdicts); trouble != nil || verdicts[9].Fate != delivery.Delivered {
		t.Skipf("too slow a machine: the connection ended before it was believed: %+v", trouble)
	}
	r.all(t, d, records)
}

// The memory for what may go again is bounded, and the newest is in it.
func TestTail(t *testing.T) {
	l := new(link)
	l.url = open(t, Config{URL: "tcp://127.0.0.1:1"}).url
	for i := range 100 {
		l.begin()
		l.add([]byte(strings.Repeat("x", 100_000+i)))
		l.remember()
		sum := 0
		for _, b := range l.tail {
			sum += len(b.data)
		}
		if sum != l.held || l.held > maxTail {
			t.Fatalf("%d bytes held, %d counted", sum, l.held)
		}
	}
	if len(l.tail) < 40 || len(l.tail[len(l.tail)-1].data) != 100_099+len("100099 ") {
		t.Errorf("%d batches", len(l.tail))
	}
	// What was old when the connection ended, or went again too often, is dropped.
	l.tail[0].time = time.Now().Add(-2 * maxTailAge)
	l.tail[1].again = maxAgain
	n := len(l.tail)
	l.forget(time.Now())
	if len(l.tail) != n-2 {
		t.Errorf("%d batches left of %d", len(l.tail), n)
	}
}

// A server that is no syslog receiver gets no records for delivered.
func TestAnswer(t *testing.T) {
	t.Parallel()
	r := listen(t, nil, func(_ *receiver, c net.Conn, _ int) {
		_, _ = c.Read(make([]byte, 10))
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	verdicts := make([]delivery.Verdict, 1)
	trouble := d.Send(t.Context(), many(1), verdicts)
	if trouble == nil || !errors.Is(trouble.Err, errAnswer) || !trouble.Slow || verdicts[0].Fate != delivery.Again {
		t.Errorf("%+v, %+v", trouble, verdicts)
	}
}

// Send returns soon when it has to, also from a receiver that reads nothing.
func TestCancel(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	defer close(ended)
	r := listen(t, nil, func(*receiver, net.Conn, int) { <-ended })
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	records := many(30_000) // more than the buffers of a socket hold
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	trouble := d.Send(ctx, records, make([]delivery.Verdict, len(records)))
	if trouble == nil || time.Since(begin) > 20*time.Second {
		t.Errorf("after %v: %+v", time.Since(begin), trouble)
	}
}

// A receiver that nobody can reach is a trouble, also over UDP on a machine that says
// so, and for a socket that is not there.
func TestNobody(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.LocalAddr().String()
	l.Close()
	for _, address := range []string{"tcp://" + free, "udp://" + free, "unix://" + filepath.Join(t.TempDir(), "none")} {
		d := open(t, Config{URL: address})
		verdicts := make([]delivery.Verdict, 1)
		trouble := d.Send(t.Context(), many(1), verdicts)
		if trouble == nil || trouble.Slow || verdicts[0].Fate != delivery.Again {
			t.Errorf("%s: %+v, %+v", address, trouble, verdicts)
		}
	}
}

// authority signs certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.issue(t, "ca")
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue makes NAME.pem and NAME.key.
func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name + ".example.net"},
		DNSNames: []string{name + ".example.net", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.DNSNames, c.IPAddresses = true, x509.KeyUsageCertSign, nil, nil, nil
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = key
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A server of TLS 1.3 refuses the client's certificate, or its absence, after the
// handshake is over for the client: nothing counts as delivered. When somebody puts
// the right certificate there, delivery goes on.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t), newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{ours.issue(t, "server")}, ClientAuth: tls.RequestClientCert, ClientCAs: roots, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(s tls.ConnectionState) error {
			time.Sleep(200 * time.Millisecond) // as over a network
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate")
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			return err
		},
	}
	r := listen(t, config, func(r *receiver, c net.Conn, _ int) { r.read(c, -1) })
	address := "tls://" + r.Addr().String()
	other.issue(t, "client")
	c := Config{URL: address, TLS: endpoint.TLS{CAFile: ours.file("ca.pem"), CertificateFile: other.file("client.pem"), KeyFile: other.file("client.key")}}
	records := many(10)
	refuse := func(c Config) *Destination {
		d := open(t, c)
		verdicts := make([]delivery.Verdict, len(records))
		trouble := d.Send(t.Context(), records, verdicts)
		if trouble == nil || verdicts[0].Fate != delivery.Again {
			t.Fatalf("%+v: %+v, %+v", c, trouble, verdicts[0])
		}
		return d
	}
	d := refuse(c)
	refuse(Config{URL: address, TLS: endpoint.TLS{CAFile: ours.file("ca.pem")}})

	ours.issue(t, "client")
	for _, name := range []string{"client.pem", "client.key"} {
		text, err := os.ReadFile(ours.file(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(other.file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deliver(t, d, records, 10)
	r.all(t, d, records)

	// Whom we do not trust gets nothing at all.
	distrusts := open(t, Config{URL: address, TLS: endpoint.TLS{CAFile: other.file("ca.pem")}})
	if trouble := distrusts.Send(t.Context(), records, make([]delivery.Verdict, 10)); trouble == nil || !trouble.Slow {
		t.Errorf("an authority that we do not know: %+v", trouble)
	}
}

// A record that the datagrams of a socket cannot take is dead, and the others arrive.
func TestUnixDatagram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines := make(chan string, 10)
	go func() {
		b := make([]byte, 1<<20)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			lines <- string(b[:n])
		}
	}()
	d := open(t, Config{URL: "unix://" + path, MaxMessage: 4 << 20})
	records := many(3)
	records[1].JSON = fmt.Appendf(nil, `{"x":"%s"}`, strings.Repeat("x", 3<<20))
	verdicts := make([]delivery.Verdict, 3)
	if trouble := d.Send(t.Context(), records, verdicts); trouble != nil {
		t.Fatal(trouble.Err)
	}
	if verdicts[0].Fate != delivery.Delivered || verdicts[1].Fate != delivery.Dead || verdicts[2].Fate != delivery.Delivered {
		t.Errorf("%+v", verdicts)
	}
	for _, i := range []int{0, 2} {
		want, err := d.message.format(records[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := <-lines; got != string(want)+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A socket for streams is taken where there is none for datagrams, and gets lines.
func TestUnixStream(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines := make(chan string, 100)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s := bufio.NewScanner(c)
		for s.Scan() {
			lines <- s.Text()
		}
	}()
	d := open(t, Config{URL: "unix://" + path})
	records := many(50)
	deliver(t, d, records, 20)
	for _, r := range records {
		want, err := d.message.format(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-lines; got != string(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// What has no form, or is too long in any form, does not keep the others.
func TestFates(t *testing.T) {
	t.Parallel()
	r := listen(t, nil, func(r *receiver, c net.Conn, _ int) { r.read(c, -1) })
	d := open(t, Config{URL: "tcp://" + r.Addr().String(), Format: "cef"})
	records := many(3)
	records[0].JSON = []byte(`{"event":{"dataset":"oddcert.handshake"}}`)
	records[1].JSON = []byte(`{"event":{"dataset":"oddcert.another"}}`)
	records[2].JSON = []byte(`{"event":{"dataset":"oddcert.handshake"},"@timestamp":"never"}`)
	verdicts := make([]delivery.Verdict, 3)
	if trouble := d.Send(t.Context(), records, verdicts); trouble != nil {
		t.Fatal(trouble.Err)
	}
	if verdicts[0].Fate != delivery.Delivered || verdicts[1].Fate != delivery.Skipped || verdicts[2].Fate != delivery.Dead || verdicts[2].Reason == "" {
		t.Errorf("%+v", verdicts)
	}
	d = open(t, Config{URL: "tcp://" + r.Addr().String()})
	records[0].JSON = fmt.Appendf(nil, `{"x":"%s"}`, strings.Repeat("x", DefaultMaxMessage))
	verdicts = make([]delivery.Verdict, 1)
	if trouble := d.Send(t.Context(), records[:1], verdicts); trouble != nil || verdicts[0].Fate != delivery.Dead {
		t.Errorf("%+v, %+v", trouble, verdicts)
	}
}
