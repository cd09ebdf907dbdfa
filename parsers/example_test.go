package parsers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
)

// tap is a connection that passes what is written to it to a function, too.
type tap struct {
	net.Conn
	write func(b []byte)
}

func (t tap) Write(b []byte) (int, error) {
	t.write(b)
	return t.Conn.Write(b)
}

// Example gives a parser what the two sides of a TLS connection send, and prints the
// certificate.
func Example() {
	parser := parsers.New(func(h *event.Handshake) {
		fmt.Println(h.Carrier, h.Outcome, "for", h.ClientHello.ServerName)
		for _, c := range h.Chain {
			fmt.Println(c.Subject.String, c.DNSNames)
		}
	}, parsers.DefaultLimits)

	flow := &event.Flow{
		Transport: event.TCP,
		Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr("192.0.2.1"), Port: 50000},
			{Addr: netip.MustParseAddr("192.0.2.2"), Port: 443},
		},
	}
	conn := parser.Open(flow)
	done := false
	var mu sync.Mutex // a parser is not safe for concurrent use
	frame := uint64(0)
	segment := func(d event.Direction) func(b []byte) {
		return func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			if frame++; !done {
				at := event.Moment{Time: time.Now().UnixNano(), Frame: frame}
				done = conn.Segment(d, at, b) == parsers.Done
			}
		}
	}
	connect(segment(0), segment(1))
	mu.Lock()
	defer mu.Unlock()
	conn.Close(event.EndOfInput)
	fmt.Println(parser.Stats().Handshakes, "handshake")
	// Output:
	// tls extracted for www.update.example
	// CN=www.update.example [www.update.example]
	// 1 handshake
}

// ExampleLooks shows for which datagrams a flow of UDP needs a Conn.
func ExampleLooks() {
	dns := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	dtls := append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13}, 14, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0)
	fmt.Println(parsers.Looks(dns), parsers.Looks(dtls))
	// Output: false true
}

// connect does a TLS 1.2 handshake, and calls client and server with what that side
// sends.
func connect(client, server func(b []byte)) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "www.update.example"},
		DNSNames:     []string{"www.update.example"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	a, b := net.Pipe()
	done := make(chan error)
	go func() {
		config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: tls.VersionTLS12}
		done <- tls.Server(tap{b, server}, config).Handshake()
	}()
	config := &tls.Config{ServerName: "www.update.example", InsecureSkipVerify: true}
	if err := tls.Client(tap{a, client}, config).Handshake(); err != nil {
		log.Fatal(err)
	}
	if err := <-done; err != nil {
		log.Fatal(err)
	}
}
