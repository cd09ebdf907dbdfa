package traffic

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// The directions of a conversation.
const (
	toServer = 0
	toClient = 1
)

// turn is a flight: bytes of one direction's stream, up to end.
type turn struct {
	dir uint8
	end int64
}

// span is a range of a stream, from lo to before hi.
type span struct{ lo, hi int64 }

// placed is a certificate and its place in the stream of one direction.
type placed struct {
	certificate int
	span
}

// conversation is what two parties say to one another. It is replayed by many
// flows and never changes.
type conversation struct {
	kind    Kind
	udp     bool
	version uint16
	sni     string
	host    int // number of the server
	port    uint16
	stream  [2][]byte
	turns   []turn

	clientHello span // of the first one; empty when this is no TLS
	decisive    span // the bytes of the server that settle the outcome if there is no certificate
	certs       [2][]placed
}

// end is one end of a recorded connection. The two share a lock, so that what
// is recorded is in the order of cause and effect.
type end struct {
	*wire
	dir uint8
}

type wire struct {
	mu     sync.Mutex
	wake   sync.Cond
	read   [2]int
	closed [2]bool
	conv   *conversation
}

func (e end) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.conv
	c.stream[e.dir] = append(c.stream[e.dir], b...)
	if n := len(c.turns); n == 0 || c.turns[n-1].dir != e.dir {
		c.turns = append(c.turns, turn{dir: e.dir})
	}
	c.turns[len(c.turns)-1].end = int64(len(c.stream[e.dir]))
	e.wake.Broadcast()
	return len(b), nil
}

func (e end) Read(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	from := 1 - e.dir
	for e.read[from] == len(e.conv.stream[from]) {
		if e.closed[0] || e.closed[1] {
			return 0, io.EOF
		}
		e.wake.Wait()
	}
	n := copy(b, e.conv.stream[from][e.read[from]:])
	e.read[from] += n
	return n, nil
}

func (e end) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed[e.dir] = true
	e.wake.Broadcast()
	return nil
}

func (e end) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (e end) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (e end) SetDeadline(time.Time) error      { return nil }
func (e end) SetReadDeadline(time.Time) error  { return nil }
func (e end) SetWriteDeadline(time.Time) error { return nil }

// record lets crypto/tls shake hands and returns what was said. After the
// handshake the client asks with request bytes and the server answers with
// response bytes. Errors of the handshake itself are part of the conversation.
func record(client, server *tls.Config, request, response int) (c *conversation, shaken bool, err error) {
	w := &wire{conv: &conversation{}}
	w.wake.L = &w.mu
	cl, sv := tls.Client(end{w, toServer}, client), tls.Server(end{w, toClient}, server)
	over := make(chan error, 1)
	go func() {
		err := sv.Handshake()
		if err != nil {
			sv.NetConn().Close()
		}
		over <- err
	}()
	clientErr := cl.Handshake()
	if clientErr != nil {
		cl.NetConn().Close()
	}
	if serverErr := <-over; clientErr != nil || serverErr != nil {
		return w.conv, false, nil
	}
	// One after the other, so that the order of the flights is always the same.
	ask, answer := make([]byte, request), make([]byte, response)
	_, err = cl.Write(ask)
	if err == nil {
		_, err = io.ReadFull(sv, ask)
	}
	if err == nil {
		_, err = sv.Write(answer)
	}
	if err == nil {
		_, err = io.ReadFull(cl, answer)
	}
	return w.conv, true, errors.Join(err, cl.Close(), sv.Close())
}

// studio records conversations of every kind of TLS.
type studio struct {
	*authority
	rng   *rand.Rand
	count int
}

// The ports of servers: TLS is on any port.
var serverPorts = []uint16{443, 443, 443, 8443, 636, 993, 995, 465, 5061, 6514, 3269, 9200, 4444, 10443, 25001, 51820}

// session records one conversation of the given kind, with a certificate of its own.
func (s *studio) session(kind Kind, p *plant) (*conversation, error) {
	n := s.count
	s.count++
	recipe, ok := recipes[kind]
	if !ok {
		return nil, fmt.Errorf("record %s: no such kind", kind)
	}
	certificate, err := s.certificate(kind, n, p)
	if err != nil {
		return nil, err
	}
	sent := certificate
	if key, ok := sent.PrivateKey.(*ecdsa.PrivateKey); ok {
		sent.PrivateKey = even{key}
	}
	clock := func() time.Time { return epoch }
	sni := fmt.Sprintf("www.host-%d.example.com", n)
	client := &tls.Config{ServerName: sni, InsecureSkipVerify: true, Time: clock, NextProtos: []string{"h2", "http/1.1"},
		MinVersion: tls.VersionTLS10, MaxVersion: recipe.version, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}}
	server := &tls.Config{Certificates: []tls.Certificate{sent}, Time: clock, NextProtos: []string{"h2", "http/1.1"},
		MinVersion: tls.VersionTLS10, MaxVersion: recipe.version}
	if n%2 == 0 {
		client.MaxVersion = tls.VersionTLS13
	}
	var clientCert tls.Certificate
	if recipe.mutual {
		if clientCert, err = s.server(n, false, nil); err != nil {
			return nil, err
		}
		sent := clientCert
		sent.PrivateKey = even{sent.PrivateKey.(*ecdsa.PrivateKey)}
		client.Certificates = []tls.Certificate{sent}
		server.ClientAuth = tls.RequireAnyClientCert
	}
	if recipe.adapt != nil {
		recipe.adapt(client, server)
	}
	request, response := 120+s.rng.IntN(400), 200+s.rng.IntN(6000)
	if recipe.resumed {
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if _, _, err := record(client, server, request, response); err != nil {
			return nil, fmt.Errorf("record %s: %w", kind, err)
		}
	}
	c, shaken, err := record(client, server, request, response)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", kind, err)
	}
	if fails := kind == Refused || kind == TLS12Rejected; shaken == fails {
		return nil, fmt.Errorf("record %s: handshake came out the other way", kind)
	}
	c.kind, c.version, c.sni = kind, recipe.version, sni
	c.host, c.port = n, serverPorts[n%len(serverPorts)]
	if kind == Unanswered {
		c.turns, c.stream[toClient] = c.turns[:1], nil
		c.stream[toServer] = c.stream[toServer][:c.turns[0].end]
	}
	return c, s.annotate(c, recipe, [2][][]byte{clientCert.Certificate, certificate.Certificate}, p)
}

func (s *studio) certificate(kind Kind, n int, p *plant) (tls.Certificate, error) {
	if kind == TLS12Huge {
		return s.huge(n)
	}
	return s.server(n, recipes[kind].rsa, p)
}

// annotate finds the hellos and the certificates in the streams of c.
func (s *studio) annotate(c *conversation, r recipe, chains [2][][]byte, p *plant) error {
	var msgs [2]clear
	for dir := range msgs {
		msgs[dir] = readClear(c.stream[dir])
	}
	hello, ok := msgs[toServer].message(1, false)
	if !ok {
		return fmt.Errorf("record %s: no ClientHello", c.kind)
	}
	c.clientHello = hello
	switch {
	case c.kind == Refused:
		c.decisive = span{0, int64(len(c.stream[toClient]))}
	case c.kind != Unanswered:
		if c.decisive, ok = msgs[toClient].message(2, true); !ok {
			return fmt.Errorf("record %s: no ServerHello", c.kind)
		}
		if r.resumed && r.version < tls.VersionTLS13 {
			c.decisive.hi = msgs[toClient].end // the ChangeCipherSpec in the place of a Certificate
		}
	}
	if !r.shows {
		return nil
	}
	for dir, chain := range chains {
		for i, der := range chain {
			var why *plant
			if dir == toClient && i == 0 {
				why = p
			}
			at, ok := msgs[dir].find(der)
			if !ok {
				return fmt.Errorf("record %s: certificate %d is not in the clear", c.kind, i)
			}
			c.certs[dir] = append(c.certs[dir], placed{s.index(der, why), at})
		}
	}
	return nil
}

// recipe says how a kind of handshake is brought about.
type recipe struct {
	version uint16
	rsa     bool // the certificate's key
	mutual  bool
	resumed bool
	shows   bool // certificates go in the clear
	adapt   func(client, server *tls.Config)
}

var recipes = map[Kind]recipe{
	TLS10: {version: tls.VersionTLS10, rsa: true, shows: true},
	TLS11: {version: tls.VersionTLS11, rsa: true, shows: true},
	TLS12RSA: {version: tls.VersionTLS12, rsa: true, shows: true, adapt: func(client, server *tls.Config) {
		client.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		server.CipherSuites = client.CipherSuites
	}},
	TLS12ECDHE:  {version: tls.VersionTLS12, rsa: true, shows: true},
	TLS12ECDSA:  {version: tls.VersionTLS12, shows: true},
	TLS12Mutual: {version: tls.VersionTLS12, shows: true, mutual: true},
	TLS12Rejected: {version: tls.VersionTLS12, shows: true, adapt: func(client, _ *tls.Config) {
		client.VerifyConnection = func(tls.ConnectionState) error { return errors.New("unwanted") }
	}},
	TLS12Resumed: {version: tls.VersionTLS12, resumed: true},
	TLS12Huge:    {version: tls.VersionTLS12, shows: true},
	TLS13:        {version: tls.VersionTLS13},
	TLS13Hybrid: {version: tls.VersionTLS13, adapt: func(client, _ *tls.Config) {
		client.CurvePreferences = slices.Insert(client.CurvePreferences, 0, tls.X25519MLKEM768)
	}},
	TLS13Mutual: {version: tls.VersionTLS13, mutual: true},
	TLS13Retry: {version: tls.VersionTLS13, adapt: func(_, server *tls.Config) {
		server.CurvePreferences = []tls.CurveID{tls.CurveP384}
	}},
	TLS13Resumed: {version: tls.VersionTLS13, resumed: true},
	Refused: {version: tls.VersionTLS13, adapt: func(client, server *tls.Config) {
		client.MinVersion, server.MaxVersion = tls.VersionTLS13, tls.VersionTLS12
	}},
	Unanswered: {version: tls.VersionTLS13},
}

// clear is the handshake of one direction as far as it goes in the clear.
type clear struct {
	bytes []byte  // handshake messages, without the record headers
	at    []int64 // where each of bytes is in the stream
	end   int64   // where the clear part ends, with a first ChangeCipherSpec
}

// readClear reads records up to the first one that is encrypted.
func readClear(stream []byte) clear {
	const (
		changeCipherSpec = 20
		handshake        = 22
	)
	var c clear
	for at := 0; at+5 <= len(stream); {
		next := at + 5 + int(stream[at+3])<<8 + int(stream[at+4])
		if next > len(stream) {
			break
		}
		switch body := stream[at+5 : next]; stream[at] {
		case handshake:
			if c.end > 0 && !isHello(body) {
				return c
			}
			for i := range body {
				c.bytes, c.at = append(c.bytes, body[i]), append(c.at, int64(at+5+i))
			}
		case changeCipherSpec:
			if c.end == 0 {
				c.end = int64(next)
			}
		default:
			return c
		}
		at = next
	}
	return c
}

// isHello reports whether a record holds a hello and nothing else. After a
// HelloRetryRequest there is one in the clear behind the ChangeCipherSpec.
func isHello(body []byte) bool {
	return len(body) > 4 && (body[0] == 1 || body[0] == 2) &&
		4+int(body[1])<<16+int(body[2])<<8+int(body[3]) == len(body)
}

// message returns the place of the first, or the last, message of a type.
func (c clear) message(kind byte, last bool) (at span, ok bool) {
	for i := 0; i+4 <= len(c.bytes); {
		next := i + 4 + int(c.bytes[i+1])<<16 + int(c.bytes[i+2])<<8 + int(c.bytes[i+3])
		if next > len(c.bytes) {
			break
		}
		if c.bytes[i] == kind {
			at, ok = span{c.at[i], c.at[next-1] + 1}, true
			if !last {
				return at, ok
			}
		}
		i = next
	}
	return at, ok
}

// find returns the place of a certificate.
func (c clear) find(der []byte) (span, bool) {
	i := bytes.Index(c.bytes, der)
	if i < 0 {
		return span{}, false
	}
	return span{c.at[i], c.at[i+len(der)-1] + 1}, true
}
