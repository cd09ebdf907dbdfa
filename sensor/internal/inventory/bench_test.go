package inventory

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
)

// many makes the finding of a number: a handshake of one of so many servers, which show a
// certificate each.
func many(n, servers int) *finding.Finding {
	server := n % servers
	ends := [2]event.Endpoint{
		{Addr: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Port: uint16(n)},
		{Addr: netip.AddrFrom4([4]byte{192, byte(server >> 16), byte(server >> 8), byte(server)}), Port: 443},
	}
	at := event.Moment{Time: 1.7e18 + int64(n)*1e6, Frame: uint64(n)}
	c := certificate(server)
	c.Issuer.Organization, c.PublicKeyAlgorithm, c.PublicKeySize, c.SignatureAlgorithm = []string{"Example Trust"}, "RSA", 2048, "SHA256-RSA"
	return &finding.Finding{
		Handshake: &event.Handshake{Carrier: "tls", Start: at, End: at, Certificate: at, Version: 0x303, CipherSuite: 0xc02f, Curve: 29,
			Flow:        &event.Flow{Transport: event.TCP, Endpoints: ends, Origin: &event.Origin{Path: "/evidence/monday/capture.pcap"}},
			ClientHello: &event.ClientHello{ServerName: fmt.Sprintf("%d.example.net", server), Offer: &event.Offer{SupportedGroups: []uint16{29, 23, 24}}},
			ServerHello: &event.ServerHello{}, Chain: []event.ChainEntry{{Certificate: c}}},
		Judged: &judgement.Judgement{},
	}
}

// BenchmarkSee writes handshakes of a thousand servers.
func BenchmarkSee(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "inventory.db"), Options{})
	list := make([]*finding.Finding, 100000)
	for i := range list {
		list[i] = many(i, 1000)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := list[i%len(list)]
		f.Handshake.Start.Time += int64(i)
		s.See(f)
	}
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMillion fills an inventory with a million certificates, and reads all of them.
// It takes about three minutes and 3 GiB, and runs where ODDCERT_BENCH_INVENTORY names a
// folder for it.
func BenchmarkMillion(b *testing.B) {
	dir := os.Getenv("ODDCERT_BENCH_INVENTORY")
	if dir == "" {
		b.Skip("ODDCERT_BENCH_INVENTORY is not set")
	}
	path := filepath.Join(dir, "million.db")
	const certificates = 1000000
	s := open(b, path, Options{Size: 8 << 30, Memory: 512 << 20})
	s.db.Load().NoSync = true
	totals, err := s.Totals()
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	for i := int(totals.Certificates); i < certificates; i++ { // it goes on where it was stopped
		s.See(many(i, certificates))
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d certificates written in %v, %d MiB", certificates-totals.Certificates, time.Since(begun), info.Size()>>20)
	for b.Loop() {
		begun := time.Now()
		s := open(b, path, Options{Size: 8 << 30})
		opened := time.Since(begun)
		begun = time.Now()
		n, expired := 0, 0
		now := time.Now().Unix()
		for c, err := range s.Certificates() {
			if err != nil {
				b.Fatal(err)
			}
			if n++; c.NotAfter < now {
				expired++
			}
		}
		b.Logf("opened in %v, %d certificates in %v, %d expired", opened, n, time.Since(begun), expired)
		s.Close()
	}
}
