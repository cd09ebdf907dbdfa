package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// manyRules is a source of n rules of the kinds that feeds have, and a list of
// the given number of hashes.
func manyRules(n, entries int) Source {
	var list strings.Builder
	for i := range entries {
		sum := sha256.Sum256(fmt.Append(nil, i))
		list.WriteString(hex.EncodeToString(sum[:]))
		list.WriteByte('\n')
	}
	files := fstest.MapFS{"lists/bad.txt": {Data: []byte(list.String())}}
	var rules strings.Builder
	for i := range n {
		sum := sha256.Sum256(fmt.Append(nil, "rule", i))
		x := hex.EncodeToString(sum[:])
		var selection string
		switch i % 8 {
		case 0:
			selection = "oddcert.chain.hash.sha256: " + x
		case 1:
			selection = "tls.client.server_name: " + x[:12] + ".example"
		case 2:
			selection = "tls.client.server_name|endswith: ." + x[:9] + ".com"
		case 3:
			selection = "oddcert.chain.x509.subject.common_name|contains: " + x[:10]
		case 4:
			selection = "tls.client.ja3: " + x[:32] + "\n    server.port: 443"
		case 5:
			selection = fmt.Sprintf("server.ip|cidr: 10.%d.%d.0/24", i>>8&255, i&255)
		case 6:
			selection = "oddcert.chain.x509.issuer.common_name|re: '^" + x[:8] + "[0-9]+$'"
		case 7:
			selection = "oddcert.chain.x509.alternative_names: '*." + x[:8] + ".org'\n    oddcert.chain.self_signed: true"
		}
		if i == 0 {
			selection = "oddcert.chain.hash.sha256|expand: '%bad%'"
		}
		fmt.Fprintf(&rules, `---
title: Rule %d
id: %s-%s-%s-%s-%s
level: low
logsource: {category: tls}
detection:
  selection:
    %s
  condition: selection
`, i, x[:8], x[8:12], x[12:16], x[16:20], x[20:32], selection)
		if i%1000 == 999 || i == n-1 {
			files[fmt.Sprintf("rules%d.yml", i/1000)] = &fstest.MapFile{Data: []byte(rules.String())}
			rules.Reset()
		}
	}
	return Source{"many", files}
}

// ordinary is a handshake like most: a chain of two and nothing odd.
func ordinary() *event.Handshake {
	name := func(cn string) cert.Name {
		return cert.Name{String: "C=US, O=Example, CN=" + cn, CommonName: []string{cn}, Organization: []string{"Example"}}
	}
	made := func(cn, issuer string) event.ChainEntry {
		der := []byte(cn)
		return event.ChainEntry{Certificate: &cert.Certificate{
			DER: der, SHA256: sha256.Sum256(der), SPKISHA256: sha256.Sum256([]byte("key of " + cn)),
			MD5: [16]byte{1}, SHA1: [20]byte{1}, TBSSHA256: [32]byte{1},
			Serial: "0123456789ABCDEF", Subject: name(cn), Issuer: name(issuer), SignatureAlgorithm: "SHA256-RSA", SignatureBits: 2048,
			PublicKeyAlgorithm: "RSA", PublicKeySize: 2048, DNSNames: []string{cn, "*." + cn},
			NotBefore: cert.DateOf(time.Unix(1e9, 0)), NotAfter: cert.DateOf(time.Unix(2e9, 0)), Version: 3,
		}}
	}
	return &event.Handshake{
		Flow: &event.Flow{Transport: event.TCP, Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr("192.0.2.1"), Port: 50000}, {Addr: netip.MustParseAddr("198.51.100.7"), Port: 443}}},
		Carrier: "tls", Version: 0x0303, CipherSuite: 0xc02f,
		ClientHello: &event.ClientHello{ServerName: "www.example.net", Offer: &event.Offer{JA3: strings.Repeat("ab", 16), JA4: "t13d1516h2_8daaf6152771_02713d6af862"}},
		ServerHello: &event.ServerHello{JA3S: strings.Repeat("cd", 16)},
		Chain:       []event.ChainEntry{made("www.example.net", "Example CA"), made("Example CA", "Example Root")},
	}
}

func BenchmarkMiss(b *testing.B) {
	for _, size := range []struct{ rules, entries int }{{8, 1000}, {10_000, 1_000_000}} {
		b.Run(fmt.Sprintf("%drules", size.rules), func(b *testing.B) {
			s, err := Load(Builtin(), manyRules(size.rules, size.entries))
			if err != nil {
				b.Fatal(err)
			}
			m, h := s.NewMatcher(nil), ordinary()
			b.ReportAllocs()
			for b.Loop() {
				if got := m.Match(h, nil, nil); got != nil {
					b.Fatal(got)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	source := manyRules(1000, 100_000)
	for b.Loop() {
		if _, err := Load(source); err != nil {
			b.Fatal(err)
		}
	}
}
