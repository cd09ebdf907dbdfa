package parsers

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
)

// wantChain fails unless chain is the one that the owner of the certificate has, byte
// for byte.
func wantChain(t testing.TB, chain []event.ChainEntry, want [][]byte) {
	t.Helper()
	if len(chain) != len(want) {
		t.Fatalf("chain of %d, want %d", len(chain), len(want))
	}
	for i, e := range chain {
		if e.Truncated || e.SHA256 != sha256.Sum256(want[i]) {
			t.Errorf("certificate %d: truncated %v, SHA-256 %x, want %x", i, e.Truncated, e.SHA256, sha256.Sum256(want[i]))
		}
	}
}

func TestHandshakes(t *testing.T) {
	keys := map[string]func() crypto.Signer{"rsa": rsaKey, "ecdsa": ecdsaKey, "ed25519": ed25519Key}
	for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
		for name, key := range keys {
			if name == "ed25519" && version < tls.VersionTLS12 {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", tls.VersionName(version), name), func(t *testing.T) {
				client, server := configs(version, key())
				h := one(t, play(t, handshake(t, client, server), event.EndOfInput))
				if h.Client != 0 || h.Version != version || !h.Established || h.Alerted || h.Resumed || h.Carrier != "tls" {
					t.Errorf("client %d, version %#x, established %v, alerted %v, resumed %v, carrier %q",
						h.Client, h.Version, h.Established, h.Alerted, h.Resumed, h.Carrier)
				}
				if h.ClientHello == nil || h.ClientHello.ServerName != serverName || len(h.ClientHello.ALPN) != 2 {
					t.Errorf("ClientHello %+v", h.ClientHello)
				}
				if version == tls.VersionTLS13 {
					if h.Outcome != event.Encrypted || h.Chain != nil || h.ServerHello.ALPN != "" {
						t.Errorf("outcome %v, chain %v", h.Outcome, h.Chain)
					}
					return
				}
				if h.Outcome != event.Extracted || h.Loss != event.NoLoss || h.ServerHello.ALPN != "h2" {
					t.Errorf("outcome %v, loss %v, ALPN %q", h.Outcome, h.Loss, h.ServerHello.ALPN)
				}
				wantChain(t, h.Chain, server.Certificates[0].Certificate)
				if h.Start.Frame != 1 || h.Certificate.Frame < 2 || h.End.Frame <= h.Certificate.Frame {
					t.Errorf("start %v, certificate %v, end %v", h.Start, h.Certificate, h.End)
				}
				if h.Curve != uint16(tls.X25519) {
					t.Errorf("curve %d", h.Curve)
				}
			})
		}
	}
}

func TestClientCertificate(t *testing.T) {
	for _, send := range []bool{true, false} {
		client, server := configs(tls.VersionTLS12, ecdsaKey())
		server.ClientAuth = tls.RequestClientCert
		var want [][]byte
		if send {
			mine := newAuthority().issue("client", rsaKey(), 0)
			client.Certificates, want = []tls.Certificate{mine}, mine.Certificate
		}
		h := one(t, play(t, handshake(t, client, server), event.EndOfInput))
		if !h.ClientAuth || h.Outcome != event.Extracted {
			t.Errorf("client auth %v, outcome %v", h.ClientAuth, h.Outcome)
		}
		wantChain(t, h.Chain, server.Certificates[0].Certificate)
		wantChain(t, h.ClientChain, want)
	}
}

// The names in a CertificateRequest are those of the authorities, whatever the
// version.
func TestAuthorityNames(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12} {
		client, server := configs(version, ecdsaKey())
		server.ClientAuth = tls.RequestClientCert
		server.ClientCAs = x509.NewCertPool()
		var want []string
		for i := range 3 {
			subject := pkix.Name{CommonName: fmt.Sprint("Authority ", i), Organization: []string{"Ex, ample"}}
			der, err := asn1.Marshal(subject.ToRDNSequence())
			if err != nil {
				t.Fatal(err)
			}
			server.ClientCAs.AddCert(&x509.Certificate{RawSubject: der, Raw: der})
			want = append(want, fmt.Sprintf("O=Ex\\, ample, CN=Authority %d", i))
		}
		chunks := handshake(t, client, server)
		if h := one(t, play(t, chunks, event.EndOfInput)); !slices.Equal(h.AuthorityNames, want) {
			t.Errorf("%s: %q, want %q", tls.VersionName(version), h.AuthorityNames, want)
		}
		for n := range chunks[1].b { // every prefix
			for _, h := range play(t, []chunk{chunks[0], {1, chunks[1].b[:n]}}, event.EndOfInput) {
				if len(h.AuthorityNames) > len(want) || !slices.Equal(h.AuthorityNames, want[:len(h.AuthorityNames)]) {
					t.Fatalf("of %d bytes: %q", n, h.AuthorityNames)
				}
			}
		}
	}
}

func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		client, server := configs(version, ecdsaKey())
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if h := one(t, play(t, handshake(t, client, server), event.EndOfInput)); h.Resumed {
			t.Errorf("%s: the first is resumed", tls.VersionName(version))
		}
		h := one(t, play(t, handshake(t, client, server), event.EndOfInput))
		if h.Outcome != event.Resumed || !h.Resumed || !h.Established || h.Version != version || len(h.Chain) > 0 {
			t.Errorf("%s: outcome %v, resumed %v, established %v, version %#x", tls.VersionName(version), h.Outcome, h.Resumed, h.Established, h.Version)
		}
	}
}

func TestHelloRetry(t *testing.T) {
	client, server := configs(tls.VersionTLS13, ecdsaKey())
	client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}
	server.CurvePreferences = []tls.CurveID{tls.CurveP384}
	h := one(t, play(t, handshake(t, client, server), event.EndOfInput))
	if !h.HelloRetry || h.Outcome != event.Encrypted || h.Curve != uint16(tls.CurveP384) || !h.Established {
		t.Errorf("retry %v, outcome %v, curve %d, established %v", h.HelloRetry, h.Outcome, h.Curve, h.Established)
	}
}

func TestRefusal(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	server.MinVersion = tls.VersionTLS13
	h := one(t, play(t, handshake(t, client, server), event.EndOfInput))
	if h.Outcome != event.None || !h.Alerted || h.Alert != 70 || h.Established || h.ServerHello != nil {
		t.Errorf("outcome %v, alerted %v, alert %d", h.Outcome, h.Alerted, h.Alert)
	}

	client, server = configs(tls.VersionTLS12, ecdsaKey())
	client.ServerName = "other.example"
	h = one(t, play(t, handshake(t, client, server), event.EndOfInput))
	if h.Outcome != event.Extracted || !h.Alerted || h.Alert != 42 || h.Established {
		t.Errorf("outcome %v, alerted %v, alert %d", h.Outcome, h.Alerted, h.Alert)
	}
}

// only are the chunks of one direction.
func only(d event.Direction, chunks []chunk) (l []chunk) {
	for _, c := range chunks {
		if c.d == d {
			l = append(l, c)
		}
	}
	return l
}

func TestOneDirection(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	h := one(t, play(t, only(1, chunks), event.EndOfInput))
	if h.Outcome != event.Extracted || h.Client != 0 || h.ClientHello != nil || h.Established {
		t.Errorf("server alone: outcome %v, client %d", h.Outcome, h.Client)
	}
	wantChain(t, h.Chain, server.Certificates[0].Certificate)
	h = one(t, play(t, only(0, chunks), event.EndOfInput))
	if h.Outcome != event.Lost || h.Loss != event.Gap || h.ClientHello == nil {
		t.Errorf("client alone: outcome %v, loss %v", h.Outcome, h.Loss)
	}

	client, server = configs(tls.VersionTLS13, ecdsaKey())
	chunks = handshake(t, client, server)
	for d := range event.Direction(2) {
		if h := one(t, play(t, only(d, chunks), event.EndOfInput)); h.Outcome != event.Encrypted || h.Client != 0 {
			t.Errorf("TLS 1.3, direction %d alone: outcome %v, client %d", d, h.Outcome, h.Client)
		}
	}
}

// stream is one direction as a whole.
func stream(d event.Direction, chunks []chunk) (b []byte) {
	for _, c := range only(d, chunks) {
		b = append(b, c.b...)
	}
	return b
}

func TestMidStream(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	b := stream(1, chunks)
	// The capture begins after the ServerHello.
	n := 5 + (int(b[3])<<8 | int(b[4]))
	h := one(t, play(t, []chunk{{1, b[n:]}}, event.EndOfInput))
	if h.Outcome != event.Extracted || h.Client != 0 || h.ServerHello != nil || h.CipherSuite != 0 {
		t.Errorf("outcome %v, client %d", h.Outcome, h.Client)
	}
	wantChain(t, h.Chain, server.Certificates[0].Certificate)
}

func TestDecidedEarly(t *testing.T) {
	client, server := configs(tls.VersionTLS12, ecdsaKey())
	chunks := handshake(t, client, server)
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	done := -1
	for i, ch := range chunks {
		if c.Segment(ch.d, event.Moment{Frame: uint64(i)}, ch.b) == Done {
			done = i
			break
		}
	}
	if done < 0 || done > 4 || len(s.got) != 1 {
		t.Errorf("done at chunk %d of %d, %d emitted", done, len(chunks), len(s.got))
	}
	c.Close(event.Evicted)
	if len(s.got) != 1 {
		t.Errorf("%d emitted", len(s.got))
	}
	s.check(t)
}

func TestNotTLS(t *testing.T) {
	s := newSensor()
	c := s.Open(testFlow(event.TCP))
	c.Segment(0, event.Moment{}, []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"))
	body := make([]byte, 1400)
	for i := range body {
		body[i] = 'a'
	}
	n := 0
	for c.Segment(1, event.Moment{}, body) == NeedMore {
		if n++; n > 100 {
			t.Fatal("never done")
		}
	}
	c.Close(event.EndOfInput)
	if s.check(t); len(s.got) > 0 {
		t.Error("a handshake out of nothing")
	}
}
