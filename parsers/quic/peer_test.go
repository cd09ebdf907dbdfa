package quic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	ctls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/oddcert/oddcert/parsers/tls"
)

// recorded is a datagram as the proxy saw it.
type recorded struct {
	direction uint8
	b         []byte
}

// conversation is what one handshake between a real client and server looked like.
type conversation struct {
	datagrams      []recorded
	certificate    []byte // DER, as the client got it
	client, server []byte // handshake traffic secrets
	suite          uint16
	err            error // of the client
}

// setting is how the peers are to speak.
type setting struct {
	name     string
	version  quicgo.Version
	big      bool // a certificate over many packets
	retry    bool
	mutual   bool // the client has a certificate too
	drop     int  // datagrams of each direction that never arrive
	alpn     string
	refused  bool
	helloRTT bool // the server asks for another key share
}

// converse lets a client of quic-go talk to a server of it through a proxy.
func converse(t testing.TB, set setting) conversation {
	t.Helper()
	names := []string{"quic.test.example"}
	if set.big {
		for i := range 400 {
			names = append(names, fmt.Sprintf("host-%d.quic.test.example", i))
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pair := ctls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}

	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	serverSocket, front, back := listen(), listen(), listen()
	transport := &quicgo.Transport{Conn: serverSocket}
	if set.retry {
		transport.VerifySourceAddress = func(net.Addr) bool { return true }
	}
	serverTLS := &ctls.Config{Certificates: []ctls.Certificate{pair}, NextProtos: []string{"h3-test", "other"}}
	if set.mutual {
		serverTLS.ClientAuth = ctls.RequireAnyClientCert
	}
	if set.helloRTT {
		serverTLS.CurvePreferences = []ctls.CurveID{ctls.CurveP384}
	}
	config := &quicgo.Config{Versions: []quicgo.Version{set.version}}
	listener, err := transport.Listen(serverTLS, config)
	if err != nil {
		t.Fatal(err)
	}

	// The proxy records what passes, in the order that it passes.
	var conv conversation
	var mutex sync.Mutex
	var client *net.UDPAddr
	var wait sync.WaitGroup
	forward := func(direction uint8, from, to *net.UDPConn) {
		defer wait.Done()
		b := make([]byte, 1<<16)
		for n := 0; ; n++ {
			size, peer, err := from.ReadFromUDP(b)
			if err != nil {
				return
			}
			mutex.Lock()
			if direction == 0 {
				client = peer
			}
			target := client
			if n >= set.drop {
				conv.datagrams = append(conv.datagrams, recorded{direction, bytes.Clone(b[:size])})
			}
			mutex.Unlock()
			if n < set.drop {
				continue
			}
			if direction == 0 {
				target = serverSocket.LocalAddr().(*net.UDPAddr)
			}
			to.WriteToUDP(b[:size], target)
		}
	}
	wait.Add(2)
	go forward(0, front, back)
	go forward(1, back, front)

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		listener.Accept(ctx) // when the handshake is complete
	}()
	var log bytes.Buffer
	clientTLS := &ctls.Config{
		InsecureSkipVerify: true, ServerName: names[0], NextProtos: []string{set.alpn}, KeyLogWriter: &log,
	}
	if set.mutual {
		clientTLS.Certificates = []ctls.Certificate{pair}
	}
	dialer := &quicgo.Transport{Conn: listen()}
	c, err := dialer.Dial(ctx, front.LocalAddr(), clientTLS, config)
	conv.err = err
	if err == nil {
		state := c.ConnectionState().TLS
		conv.certificate, conv.suite = state.PeerCertificates[0].Raw, state.CipherSuite
		<-accepted
		c.CloseWithError(0, "")
	} else {
		cancel()
		<-accepted
	}
	dialer.Close()
	dialer.Conn.Close()
	listener.Close()
	transport.Close()
	for _, c := range []*net.UDPConn{serverSocket, front, back} {
		c.Close()
	}
	wait.Wait()
	for lines := bufio.NewScanner(&log); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 {
			secret, _ := hex.DecodeString(f[2])
			switch f[0] {
			case "CLIENT_HANDSHAKE_TRAFFIC_SECRET":
				conv.client = secret
			case "SERVER_HANDSHAKE_TRAFFIC_SECRET":
				conv.server = secret
			}
		}
	}
	return conv
}

// observed is what a session makes of a conversation.
type observed struct {
	Messages []Message
	Flags    Result // all that was said, together
}

func (o *observed) take(r Result) {
	o.Messages = append(o.Messages, r.Messages...)
	o.Flags.Retry = o.Flags.Retry || r.Retry
	o.Flags.Sealed = o.Flags.Sealed || r.Sealed
	o.Flags.Blind = o.Flags.Blind || r.Blind
	for d := range r.Limited {
		o.Flags.Limited[d] = o.Flags.Limited[d] || r.Limited[d]
	}
	if r.Version != 0 {
		o.Flags.Version = r.Version
	}
	if r.Closed && !o.Flags.Closed {
		o.Flags.Closed, o.Flags.Code = true, r.Code
	}
}

// message is the body of the first message of a type at a level in a direction.
func (o *observed) message(typ uint8, direction uint8, level Level) []byte {
	for _, m := range o.Messages {
		if m.Type == typ && m.Direction == direction && m.Level == level {
			return m.Head
		}
	}
	return nil
}

// leaf is the first certificate of a Certificate message of TLS 1.3 (RFC 8446,
// section 4.4.2).
func leaf(body []byte) []byte {
	if len(body) < 7 || body[0] != 0 {
		return nil
	}
	n := tls.Uint24(body[4:])
	if len(body) < 7+n {
		return nil
	}
	return body[7 : 7+n]
}

// observe gives datagrams to a session: the secrets first, when they are known
// (after n datagrams, or at the end).
func observe(datagrams []recorded, conv *conversation, after int) observed {
	d := Decoder{Wait: true}
	s := d.Open()
	defer s.Close()
	var o observed
	for i, g := range datagrams {
		if i >= after {
			o.take(s.SetSecrets(0, conv.client, conv.server))
		}
		o.take(s.Datagram(g.direction, g.b))
	}
	o.take(s.SetSecrets(0, conv.client, conv.server))
	return o
}

const never = 1 << 30

// TestPeers watches real handshakes.
func TestPeers(t *testing.T) {
	for _, set := range []setting{
		{name: "version 1", version: quicgo.Version1, alpn: "h3-test"},
		{name: "version 2", version: quicgo.Version2, alpn: "other"},
		{name: "big certificate", version: quicgo.Version1, big: true, alpn: "h3-test"},
		{name: "Retry", version: quicgo.Version1, retry: true, alpn: "h3-test"},
		{name: "Retry in version 2", version: quicgo.Version2, retry: true, alpn: "h3-test"},
		{name: "client certificate", version: quicgo.Version1, mutual: true, alpn: "h3-test"},
		{name: "first datagrams lost", version: quicgo.Version1, drop: 1, alpn: "h3-test"},
		{name: "HelloRetryRequest", version: quicgo.Version1, helloRTT: true, alpn: "h3-test"},
		{name: "refused", version: quicgo.Version1, alpn: "unknown", refused: true},
	} {
		t.Run(set.name, func(t *testing.T) {
			t.Parallel()
			conv := converse(t, set)
			if set.refused != (conv.err != nil) {
				t.Fatal(conv.err)
			}
			for _, g := range conv.datagrams[:1] {
				if !looksInitial(g.b) {
					t.Errorf("the first datagram does not look like QUIC: %x", g.b[:40])
				}
			}
			check := func(what string, o observed) {
				t.Helper()
				hello, ok := tls.ParseClientHello(o.message(tls.TypeClientHello, 0, Initial), false)
				if !ok || !hello.Whole || string(hello.ServerName) != "quic.test.example" ||
					string(hello.ALPN) != string(rune(len(set.alpn)))+set.alpn {
					t.Errorf("%s: ClientHello %+v", what, hello)
				}
				if o.Flags.Retry != set.retry || o.Flags.Limited != [2]bool{} || o.Flags.Version != uint32(set.version) {
					t.Errorf("%s: %+v", what, o.Flags)
				}
				if set.refused {
					if alert, ok := o.Flags.Alert(); !ok || alert != 120 { // no_application_protocol
						t.Errorf("%s: %+v", what, o.Flags)
					}
					return
				}
				reply, ok := tls.ParseServerHello(o.message(tls.TypeServerHello, 1, Initial))
				if !ok || reply.CipherSuite != conv.suite || reply.Retry != set.helloRTT {
					t.Errorf("%s: ServerHello %+v", what, reply)
				}
				if got := leaf(o.message(tls.Certificate, 1, Handshake)); !bytes.Equal(got, conv.certificate) {
					t.Errorf("%s: certificate of %d bytes is not the server's, of %d", what, len(got), len(conv.certificate))
				}
				if got := leaf(o.message(tls.Certificate, 0, Handshake)); set.mutual != bytes.Equal(got, conv.certificate) {
					t.Errorf("%s: the client's certificate has %d bytes", what, len(got))
				}
				if o.message(tls.Finished, 0, Handshake) == nil || o.message(tls.Finished, 1, Handshake) == nil {
					t.Errorf("%s: no Finished", what)
				}
				if !o.Flags.Sealed {
					t.Errorf("%s: nothing sealed", what)
				}
			}
			check("in order", observe(conv.datagrams, &conv, 1))
			check("secrets at the end", observe(conv.datagrams, &conv, never))

			// Each datagram twice, and out of order by a few.
			for seed := range uint64(30) {
				r := mrand.New(mrand.NewPCG(seed, 3))
				var list []recorded
				for _, g := range conv.datagrams {
					list = append(list, g)
					if r.IntN(2) == 0 {
						list = append(list, g)
					}
				}
				place := map[*byte]int{}
				for i := range list {
					list[i].b = bytes.Clone(list[i].b)
					place[&list[i].b[0]] = i + r.IntN(4)
				}
				slices.SortStableFunc(list, func(a, b recorded) int { return place[&a.b[0]] - place[&b.b[0]] })
				check(fmt.Sprintf("reordered, seed %d", seed), observe(list, &conv, []int{len(list) / 2, never}[seed%2]))
			}

			// Each datagram lost to the observer alone: what is still seen is right.
			whole := observe(conv.datagrams, &conv, never)
			for i := range conv.datagrams {
				list := append(append([]recorded{}, conv.datagrams[:i]...), conv.datagrams[i+1:]...)
				o := observe(list, &conv, never)
				for _, m := range o.Messages {
					if want := whole.message(m.Type, m.Direction, m.Level); m.Type != tls.TypeClientHello && m.Type != tls.TypeServerHello && !bytes.Equal(m.Head, want) {
						t.Errorf("without datagram %d: message %d is not what it was", i, m.Type)
					}
				}
			}
		})
	}
}

// TestServerAlone sees the server's side only: there is nothing to read, and
// that is said.
func TestServerAlone(t *testing.T) {
	conv := converse(t, setting{version: quicgo.Version1, alpn: "h3-test"})
	if conv.err != nil {
		t.Fatal(conv.err)
	}
	var o observed
	var d Decoder
	s := d.Open()
	for _, g := range conv.datagrams {
		if g.direction == 1 {
			o.take(s.Datagram(0, g.b))
		}
	}
	if len(o.Messages) > 0 || !o.Flags.Blind || d.Stats().Blind == 0 || d.Stats().Connections > 0 {
		t.Errorf("%+v, %+v", o, d.Stats())
	}
}
