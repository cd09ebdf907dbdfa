package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// mint makes certificates. None of their signatures is true, as nobody here
// verifies them; so they can have any length.
type mint struct {
	t   *testing.T
	key *rsa.PrivateKey
}

type minted struct {
	cn, organization string
	names            []string
	issuer           string // its common name; empty for a self-signed one
	issuers          string // its organization
	bits             int    // of the signature, 2048 unless set
	md5              bool
	modulus          int // bits of the key, 2048 unless set
}

func (m *mint) make(c minted) []byte {
	m.t.Helper()
	name := func(cn, organization string) pkix.Name {
		n := pkix.Name{CommonName: cn}
		if organization != "" {
			n.Organization = []string{organization}
		}
		return n
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		m.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: name(c.cn, c.organization), DNSNames: c.names,
		NotBefore: time.Unix(1.6e9, 0), NotAfter: time.Unix(1.9e9, 0)}
	parent := &x509.Certificate{Subject: name(c.issuer, c.issuers)}
	if c.issuer == "" {
		parent = template
	}
	public := &m.key.PublicKey
	if c.modulus != 0 {
		public = &rsa.PublicKey{E: 65537, N: new(big.Int).SetBit(big.NewInt(1), c.modulus-1, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	if c.md5 { // sha256WithRSAEncryption and md5WithRSAEncryption differ in the last byte
		sha := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}
		der = bytes.ReplaceAll(der, sha, append(sha[:8:8], 4))
	}
	if c.bits != 0 {
		var parts struct {
			TBS, Algorithm asn1.RawValue
			Signature      asn1.BitString
		}
		if _, err := asn1.Unmarshal(der, &parts); err != nil {
			m.t.Fatal(err)
		}
		parts.Signature = asn1.BitString{Bytes: bytes.Repeat([]byte{0x5a}, c.bits/8), BitLength: c.bits}
		if der, err = asn1.Marshal(parts); err != nil {
			m.t.Fatal(err)
		}
	}
	return der
}

// presents is what client and server say in a handshake of TLS 1.2 in which the
// server sends a chain.
func presents(chain [][]byte) []said {
	u24 := func(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }
	message := func(kind byte, body []byte) []byte { return append(append([]byte{kind}, u24(len(body))...), body...) }
	record := func(b []byte) (out []byte) {
		for len(b) > 0 {
			n := min(len(b), 1<<14)
			out = append(binary.BigEndian.AppendUint16(append(out, 22, 3, 3), uint16(n)), b[:n]...)
			b = b[n:]
		}
		return out
	}
	random := bytes.Repeat([]byte{7}, 32)
	hello := append(append([]byte{3, 3}, random...), 0)
	var list []byte
	for _, der := range chain {
		list = append(append(list, u24(len(der))...), der...)
	}
	server := message(2, append(slices.Clone(hello), 0, 0x2f, 0))
	server = append(server, message(11, append(u24(len(list)), list...))...)
	return []said{
		{true, record(message(1, append(slices.Clone(hello), 0, 2, 0, 0x2f, 1, 0)))},
		{false, record(append(server, message(14, nil)...))},
	}
}

// reset is a copy of a frame of keyedFlows as a RST with a number far from the
// flow's, which its receiver ignores.
func reset(t *testing.T, frame []byte) []byte {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeIPv4, gopacket.Default)
	ip, tcp := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	tcp.RST, tcp.PSH, tcp.Seq = true, false, tcp.Seq+1000
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Every shipped rule, as a query in Elasticsearch, finds what it raised alerts
// for, neither more nor fewer: the handshakes themselves, or those with the
// certificates that the query finds.
func TestSigmaFindsWhatRulesFind(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Elasticsearch and pySigma")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := &mint{t, key}
	const corporation, ca1, ca21 = "Microsoft Corporation", "Microsoft Update Secure Server CA 1", "Microsoft Update Secure Server CA 2.1"
	good := m.make(minted{cn: "www.example.net", names: []string{"www.example.net"}, issuer: "Example CA"})
	divd := m.make(minted{cn: "www.update.microsoft.com", organization: "Microsoft", issuer: ca1, issuers: corporation})
	oldRoot := m.make(minted{cn: "Microsoft Root Authority", organization: corporation, md5: true})
	chains := [][][]byte{
		{good},
		{divd},
		{good, divd},
		{m.make(minted{cn: "www.update.microsoft.com", organization: "Microsoft"})},                      // self-signed
		{m.make(minted{cn: "www.update.microsoft.com", issuer: "Corporate Proxy CA"})},                   // another issuer
		{m.make(minted{cn: "x", names: []string{"a.example", "wWw.UPDATE.microsoft.com"}, issuer: "E"})}, // in another case
		{m.make(minted{cn: "x", names: []string{"*.update.microsoft.com"}, issuer: "E"})},
		{good, m.make(minted{cn: "www.update.microsoft.com", issuer: "E"})},
		{m.make(minted{cn: "www.update.microsoft.com.example.net", names: []string{"notupdate.microsoft.com"}, issuer: "E"})},
		{m.make(minted{cn: ca21, names: []string{"www.update.microsoft.com"}})}, // self-signed under the name of the CA
		{m.make(minted{cn: "www.update.microsoft.com", issuer: ca1, issuers: corporation})},
		{m.make(minted{cn: "www.update.microsoft.com", issuer: ca1, issuers: corporation, bits: 4096})},
		{m.make(minted{cn: "fe2.update.microsoft.com", issuer: strings.ToUpper(ca21), issuers: corporation})},
		{m.make(minted{cn: "a.example", issuer: ca1})},
		{m.make(minted{cn: "v5.windowsupdate.microsoft.com", issuer: "E"})},
		{m.make(minted{cn: "v5stats.windowsupdate.microsoft.com", issuer: ca21})},
		{m.make(minted{cn: "x", names: []string{"download.windowsupdate.com"}, issuer: "E"})},
		{m.make(minted{cn: "Microsoft X", names: []string{"download.microsoft.com"}})},
		{m.make(minted{cn: "download.microsoft.com", issuer: "Microsoft Azure RSA TLS Issuing CA 03", issuers: corporation})},
		{good, m.make(minted{cn: "Microsoft Enforced Licensing Intermediate PCA", organization: corporation, issuer: "Microsoft Root Authority"})},
		{m.make(minted{cn: "a.example", issuer: "Microsoft LSRA PA"})},
		{m.make(minted{cn: "Microsoft Licensing", issuer: "Microsoft PA"})},
		{m.make(minted{cn: "MS", organization: "Microsoft", issuer: "x", md5: true})},
		{m.make(minted{cn: "MS", issuer: "Microsoft PA", issuers: corporation, md5: true})},
		{m.make(minted{cn: "a", names: []string{"login.microsoft.com"}, issuer: "x", md5: true})},
		{good, oldRoot},
		{m.make(minted{cn: "a.example", organization: "Example", issuer: "x", md5: true})},
		{m.make(minted{cn: "Microsoft Other Root", organization: corporation, md5: true})}, // as the leaf
		{m.make(minted{cn: "x", organization: corporation, issuer: "y", modulus: 512})},
		{m.make(minted{cn: "x", organization: corporation, issuer: "y", modulus: 513})},
		{m.make(minted{cn: "x", issuer: "y", modulus: 512})},
		{m.make(minted{cn: "*.microsoft.com", issuer: "DigiNotar Public CA 2025", issuers: "DigiNotar"})},
		{m.make(minted{cn: "www.example.nl", issuer: "DigiNotar Public CA 2025", issuers: "DigiNotar"})},
		{m.make(minted{cn: "login.microsoft.com", issuer: "DigiCert Global", issuers: "DigiCert Inc"})},
		// What packaging/sigma/README.md says of two selections on a chain: here one
		// holds for the leaf, and the other for its issuer.
		{m.make(minted{cn: "www.microsoft.com", issuer: "Hidden CA"}), m.make(minted{cn: "Hidden CA", issuer: "DigiNotar Root", issuers: "DigiNotar"})},
	}
	var k keyedFlows
	for i, chain := range chains {
		before := len(k.frames)
		if err := k.capture(i, presents(chain)); err != nil {
			t.Fatal(err)
		}
		if i == 0 || i == 3 { // somebody interferes
			k.frames = slices.Insert(k.frames, before+3, reset(t, k.frames[before+3]))
		}
	}
	across := fmt.Sprintf("192.0.2.%d", len(chains)-1)
	capture := write(t, "made.pcap", k.pcap())

	// The rules, all of them on, and the one for the certificate of the case for
	// one that is like it.
	dir := t.TempDir()
	sum256, sum1, sumKey := sha256.Sum256(divd), sha1.Sum(divd), sha256.Sum256([]byte("no such key"))
	changes := strings.NewReplacer("enabled: false", "enabled: true",
		"1073570f79136511ba45b44c923a55c69b97e91d3aaa2e06e5e657129ca809ff", fmt.Sprintf("%x", sum256),
		"d1880f51c1019172a1a46e69f4337ffe3ec4f039", fmt.Sprintf("%x", sum1),
		"0c590250b960421f0c2504d1940a60c9eaace45e9ac395a362932ba5b864c642", fmt.Sprintf("%x", sumKey))
	texts := shippedRules(t)
	maps.DeleteFunc(texts, func(_, text string) bool { return strings.Contains(text, "\ncorrelation:") }) // Lucene has none
	names := slices.Sorted(maps.Keys(texts))
	var changed []string
	for _, name := range names {
		text := changes.Replace(texts[name])
		changed = append(changed, text)
		if err := os.WriteFile(filepath.Join(dir, path.Base(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	queries := convert(t, changed)

	server, namespace := estest.Shared(t), estest.Namespace(t)
	es := []string{"--es", server.URL, "--es-namespace", namespace}
	var out, errs bytes.Buffer
	if status := run(append([]string{"es", "setup", "--portable"}, es...), &out, &errs); status != exitOK {
		t.Fatalf("es setup: exit status %d: %s", status, &errs)
	}
	if status := run(append([]string{"replay", "--spool", t.TempDir(), "--handshakes", "full", "--rules", dir, capture}, es...), &out, &errs); status != exitOK {
		t.Fatalf("replay: exit status %d: %s", status, &errs)
	}

	type handshake struct {
		Source  struct{ IP string }
		Oddcert struct{ Chain traffic.Hashes }
	}
	handshakes := map[string]handshake{} // by client
	for _, source := range server.Search(t, "logs-oddcert.handshake-"+namespace) {
		var h handshake
		if err := json.Unmarshal(source, &h); err != nil {
			t.Fatalf("%v: %s", err, source)
		}
		handshakes[h.Source.IP] = h
	}
	if len(handshakes) != len(chains) {
		t.Fatalf("%d handshakes of %d are in Elasticsearch", len(handshakes), len(chains))
	}
	raised := map[string]map[string]bool{} // by rule, the clients
	for _, source := range server.Search(t, "logs-oddcert.alert-"+namespace) {
		var a struct {
			Source struct{ IP string }
			Rule   struct{ ID string }
		}
		if err := json.Unmarshal(source, &a); err != nil {
			t.Fatalf("%v: %s", err, source)
		}
		if raised[a.Rule.ID] == nil {
			raised[a.Rule.ID] = map[string]bool{}
		}
		raised[a.Rule.ID][a.Source.IP] = true
	}
	server.Search(t, "logs-oddcert.certificate-"+namespace) // a refresh

	for i, name := range names {
		query := queries[i]["lucene"]
		if strings.Contains(query.Error, "does not compare times with wildcards") {
			continue
		}
		if query.Error != "" {
			t.Errorf("%s: %s", name, query.Error)
			continue
		}
		body, err := json.Marshal(map[string]any{"size": 1000, "query": map[string]any{"query_string": map[string]any{"query": query.Query, "analyze_wildcard": true}}})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Hits struct {
				Hits []struct {
					Source struct {
						Source  struct{ IP string }
						Event   struct{ Dataset string }
						Oddcert struct {
							Certificate struct{ Hash struct{ SHA256 string } }
						}
					} `json:"_source"`
				}
			}
		}
		// Of all data streams at once: the query itself names the right one.
		server.Do(t, http.MethodPost, "/logs-oddcert.*-"+namespace+"/_search", string(body), &answer)
		found := map[string]bool{} // the clients
		for _, hit := range answer.Hits.Hits {
			if hit.Source.Event.Dataset == "oddcert.handshake" {
				found[hit.Source.Source.IP] = true
			}
			for client, h := range handshakes {
				if slices.Contains(h.Oddcert.Chain, hit.Source.Oddcert.Certificate.Hash.SHA256) {
					found[client] = true
				}
			}
		}
		id := strings.TrimSpace(strings.SplitN(strings.SplitN(changed[i], "\nid: ", 2)[1], "\n", 2)[0])
		want := maps.Clone(raised[id])
		if strings.Contains(name, "diginotar") {
			if !want[across] || found[across] {
				t.Errorf("%s: with its selections on two certificates: alert %v, found %v", name, want[across], found[across])
			}
			delete(want, across)
		}
		detection := between(changed[i], "\ndetection:", "\nlevel:")
		judged := ofHandshake.MatchString(detection)
		if judged && strings.Contains(detection, "oddcert.chain.") {
			// The record of a handshake has its certificates side by side, so the query
			// also finds what holds for two of them together.
			maps.DeleteFunc(found, func(client string, _ bool) bool { return !want[client] && len(handshakes[client].Oddcert.Chain) > 1 })
		}
		if !maps.Equal(found, want) {
			t.Errorf("%s: alerts for %v, found %v\n%s", name, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(found)), query.Query)
		}
		if !strings.HasPrefix(name, "hygiene/") && (len(want) == len(chains) || len(want) == 0 && !judged) {
			t.Errorf("%s: alerts for %d of %d handshakes", name, len(want), len(chains))
		}
	}
}
