package quic

import (
	"bytes"
	"testing"

	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/parsers/tls13"
)

func BenchmarkLooksInitial(b *testing.B) {
	other := bytes.Repeat([]byte{0xc5}, 1200)
	for name, payload := range map[string][]byte{"initial": sampleClient1, "other": other} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				looksInitial(payload)
			}
		})
	}
}

// BenchmarkConnection reads both hellos of a connection.
func BenchmarkConnection(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(sampleClient1) + len(sampleServer1)))
	var d Decoder
	for b.Loop() {
		s := d.Open()
		if len(s.Datagram(0, sampleClient1).Messages)+len(s.Datagram(1, sampleServer1).Messages) != 2 {
			b.Fatal("no hellos")
		}
		s.Close()
	}
}

// BenchmarkStray reads an Initial that no key opens.
func BenchmarkStray(b *testing.B) {
	stray := bytes.Clone(sampleClient1)
	stray[200] ^= 1
	b.ReportAllocs()
	var d Decoder
	for b.Loop() {
		s := d.Open()
		s.Datagram(0, stray)
		s.Close()
	}
}

// BenchmarkInitial reads an Initial of a connection whose keys are there.
func BenchmarkInitial(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(sampleClient1)))
	var d Decoder
	s := d.Open()
	for b.Loop() {
		s.Datagram(0, sampleClient1)
	}
}

// TestAllocs: packets of a connection that is known, and datagrams that have
// nothing to read, cost no memory.
func TestAllocs(t *testing.T) {
	var d Decoder
	s := d.Open()
	s.Datagram(0, sampleClient1)
	s.Datagram(1, sampleServer1)
	p := &peer{version: Version1, dcid: sampleID, client: []byte{}}
	part := p.toServer(crypto(1000, message(tls.TypeClientHello, 1, 600)))
	s.Datagram(0, part)
	secret := make([]byte, 32)
	s.SetSecrets(0, secret, secret)
	sealed := seal(newOpener(tls13.AES128GCM, secret, "tls13 quic "), 2, Version1, []byte{}, []byte("server"), nil, 1, pad([][]byte{{framePing}}))
	s.Datagram(1, sealed)
	for name, b := range map[string][]byte{
		"client's Initial": sampleClient1, "server's Initial": sampleServer1, "CRYPTO that is there": part,
		"Handshake": sealed, "short header": sampleChaCha1, "nothing": nil,
	} {
		direction := uint8(0)
		if name == "server's Initial" || name == "Handshake" {
			direction = 1
		}
		if n := testing.AllocsPerRun(20, func() { s.Datagram(direction, b) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if d.Stats().Handshakes < 20 || d.Stats().Blind > 0 {
		t.Errorf("%+v", d.Stats())
	}
}
