package flow

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
)

// eavesdropper is a client's socket, of which the wiretap keeps what passes.
type eavesdropper struct {
	net.PacketConn
	*wiretap
}

type wiretap struct {
	mu        sync.Mutex
	datagrams []overheard
}

type overheard struct {
	d int
	b []byte
}

func (w *wiretap) keep(d int, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.datagrams = append(w.datagrams, overheard{d, bytes.Clone(b)})
}

func (e eavesdropper) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := e.PacketConn.ReadFrom(b)
	if err == nil {
		e.keep(1, b[:n])
	}
	return n, from, err
}

func (e eavesdropper) WriteTo(b []byte, to net.Addr) (int, error) {
	e.keep(0, b)
	return e.PacketConn.WriteTo(b, to)
}

// A client connects again and again from one port: each of its connections is
// seen, though those before it were decided, and their long headers and
// retransmissions begin nothing.
func TestQUICPortReuse(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := quicgo.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"test"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	names := []string{"one.example", "two.example", "three.example", "four.example", "five.example", "six.example"}
	for name, length := range map[string]int{"with connection IDs": 8, "without": 0} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			w := new(wiretap)
			local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
			for _, name := range names {
				socket, err := net.ListenUDP("udp4", local)
				if err != nil {
					t.Fatal(err)
				}
				local = socket.LocalAddr().(*net.UDPAddr)
				e := eavesdropper{socket, w}
				config := &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"test"}}
				transport := &quicgo.Transport{Conn: e, ConnectionIDLength: length}
				dial := transport.Dial
				if length == 0 {
					dial = func(ctx context.Context, to net.Addr, c *tls.Config, q *quicgo.Config) (*quicgo.Conn, error) {
						return quicgo.Dial(ctx, e, to, c, q)
					}
				}
				c, err := dial(ctx, listener.Addr(), config, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := listener.Accept(ctx); err != nil {
					t.Fatal(err)
				}
				c.CloseWithError(0, "")
				transport.Close()
				socket.Close()
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			var got []string
			parser := parsers.New(func(h *event.Handshake) {
				if h.Outcome != event.Encrypted || h.ServerHello == nil || h.Index != len(got) {
					t.Errorf("%s: outcome %v, index %d", h.ClientHello.ServerName, h.Outcome, h.Index)
				}
				got = append(got, h.ClientHello.ServerName)
			}, parsers.DefaultLimits)
			limits := DefaultLimits
			limits.noRecover = true
			tracker := NewTracker(parser, limits)
			for i, x := range w.datagrams {
				for range 1 + i%2 { // some come twice
					if p := datagram(x.d, int64(i), string(x.b)); !p.Idle() {
						tracker.Packet(p, nil)
					}
				}
			}
			tracker.Close()
			if !slices.Equal(got, names) {
				t.Errorf("%q, not %q", got, names)
			}
			if s := tracker.Stats(); s.Flows != 1 || s.Decided != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}
