package parsers

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
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
)

// chunk is what one side wrote at once.
type chunk struct {
	d event.Direction
	b []byte
}

// tape records what two sides write, in the order written.
type tape struct {
	mu     sync.Mutex
	chunks []chunk
}

type taped struct {
	net.Conn
	t *tape
	d event.Direction
}

func (c *taped) Write(b []byte) (int, error) {
	c.t.mu.Lock()
	c.t.chunks = append(c.t.chunks, chunk{c.d, bytes.Clone(b)})
	c.t.mu.Unlock()
	return c.Conn.Write(b)
}

// handshake runs client (direction 0) against server and then a few bytes each
// way, and returns what was on the wire.
func handshake(t testing.TB, client, server *tls.Config) []chunk {
	t.Helper()
	var rec tape
	a, b := loopback(t)
	cl := tls.Client(&taped{a, &rec, 0}, client)
	sv := tls.Server(&taped{b, &rec, 1}, server)
	deadline := time.Now().Add(20 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		defer b.Close()
		if err := sv.Handshake(); err != nil {
			done <- err
			return
		}
		buf := make([]byte, 64)
		n, err := sv.Read(buf)
		if err == nil {
			_, err = sv.Write(buf[:n])
		}
		done <- err
	}()
	err := cl.Handshake()
	if err == nil {
		if _, err = cl.Write([]byte("ping")); err == nil {
			_, err = io.ReadFull(cl, make([]byte, 4))
		}
	}
	a.Close()
	if serr := <-done; err != nil || serr != nil {
		t.Logf("handshake: client %v, server %v", err, serr)
	}
	return rec.chunks
}

// loopback is a pair of connections that buffer what is written: a handshake
// over net.Pipe stalls when both sides write.
func loopback(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// authority issues the certificates of the tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

var newAuthority = sync.OnceValue(func() *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	return a
})

// issue returns a chain of a leaf, whose names have padding bytes more in them,
// and the authority.
func (a *authority) issue(name string, key crypto.Signer, padding int) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if padding > 0 {
		template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, padding)}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}
}

var (
	ecdsaKey = sync.OnceValue(func() crypto.Signer {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
	rsaKey = sync.OnceValue(func() crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return k
	})
	ed25519Key = sync.OnceValue(func() crypto.Signer {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	})
)

const serverName = "www.update.example"

// configs are a client's and a server's that go together.
func configs(version uint16, key crypto.Signer) (client, server *tls.Config) {
	a := newAuthority()
	client = &tls.Config{ServerName: serverName, RootCAs: a.pool, MinVersion: tls.VersionTLS10, MaxVersion: version,
		NextProtos: []string{"h2", "http/1.1"}, Time: func() time.Time { return time.Unix(2e9, 0) }}
	server = &tls.Config{Certificates: []tls.Certificate{a.issue(serverName, key, 0)}, MinVersion: tls.VersionTLS10,
		NextProtos: []string{"h2"}, Time: client.Time, ClientCAs: a.pool}
	return client, server
}

func testFlow(transport event.Transport) *event.Flow {
	return &event.Flow{Transport: transport, Endpoints: [2]event.Endpoint{
		{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000},
		{Addr: netip.MustParseAddr("192.0.2.2"), Port: 443},
	}}
}

// sensor is a parser that keeps what it emits.
type sensor struct {
	*Parser
	got     []*event.Handshake
	early   []*event.Handshake // unfinished
	emitted uint64
}

func newSensor() *sensor {
	s := new(sensor)
	s.Parser = New(func(h *event.Handshake) {
		if h.Unfinished {
			s.early = append(s.early, h)
			return
		}
		s.got = append(s.got, h)
		s.emitted++
	}, DefaultLimits)
	return s
}

// check fails if the counters do not add up.
func (s *sensor) check(t testing.TB) {
	t.Helper()
	st := s.Stats()
	var outcomes, losses uint64
	for _, n := range st.Outcomes {
		outcomes += n
	}
	for _, n := range st.Losses {
		losses += n
	}
	if st.Handshakes != s.emitted || outcomes != st.Handshakes || losses != st.Outcomes[event.Lost] || st.Losses[event.NoLoss] != 0 {
		t.Errorf("counters do not add up: %d emitted, %+v", s.emitted, st)
	}
	if s.records.Pool.Lent() != 0 || s.Parser.datagrams.Pool.Held() != 0 {
		t.Errorf("%d bytes of buffers not given back, %d of fragments", s.records.Pool.Lent(), s.Parser.datagrams.Pool.Held())
	}
}

// play gives chunks to a new flow and closes it with cause.
func play(t testing.TB, chunks []chunk, cause event.Loss) []*event.Handshake {
	t.Helper()
	s := newSensor()
	s.play(chunks, cause)
	s.check(t)
	return s.got
}

func (s *sensor) play(chunks []chunk, cause event.Loss) {
	c := s.Open(testFlow(event.TCP))
	for i, ch := range chunks {
		if c.Segment(ch.d, event.Moment{Time: int64(i), Frame: uint64(i + 1)}, bytes.Clone(ch.b)) == Done {
			break
		}
	}
	c.Close(cause)
}

// one fails unless there is exactly one handshake.
func one(t testing.TB, got []*event.Handshake) *event.Handshake {
	t.Helper()
	if len(got) != 1 {
		t.Fatalf("%d handshakes, want 1", len(got))
	}
	return got[0]
}
