package cbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// flows counts the handshakes that were made: each has a port of its own.
var flows uint16

// met is a handshake in which a server shows certificates.
func met(server byte, port uint16, suite uint16, chain ...*cert.Certificate) *event.Handshake {
	flows++
	h := &event.Handshake{
		Flow: &event.Flow{Transport: event.TCP, Origin: &event.Origin{Path: "monday.pcap"}, Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr("192.0.2.1"), Port: flows}, {Addr: netip.AddrFrom4([4]byte{198, 51, 100, server}), Port: port}}},
		Client: 0, Carrier: "tls", Version: 0x0303, CipherSuite: suite, Curve: 29, Outcome: event.Extracted,
		ClientHello: &event.ClientHello{ServerName: "www.example", Offer: &event.Offer{}}, ServerHello: &event.ServerHello{},
		End: event.Moment{Time: 1.7e18, Frame: 9}, Certificate: event.Moment{Time: 1.7e18, Frame: 6},
	}
	for _, c := range chain {
		h.Chain = append(h.Chain, event.ChainEntry{Certificate: c})
	}
	return h
}

func certificate(name string) *cert.Certificate {
	der := []byte("certificate of " + name)
	return &cert.Certificate{DER: der, SHA256: sha256.Sum256(der), SPKISHA256: sha256.Sum256([]byte("key of " + name)),
		Subject: cert.Name{String: "CN=" + name, CommonName: []string{name}}, Issuer: cert.Name{String: "CN=" + name},
		SignatureAlgorithm: "ECDSA-SHA256", PublicKeyAlgorithm: "ECDSA", PublicKeySize: 256, PublicKeyCurve: "P-256"}
}

func stored(t testing.TB, all ...*event.Handshake) *inventory.Store {
	t.Helper()
	s, err := inventory.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, h := range all {
		s.See(&finding.Finding{Handshake: h, Judged: &judgement.Judgement{}})
	}
	return s
}

type part struct {
	Ref      string `json:"bom-ref"`
	Name     string
	Type     string
	Evidence struct {
		Occurrences []struct{ Location, AdditionalContext string }
	}
	Crypto struct {
		Asset    string `json:"assetType"`
		Protocol struct {
			Suites []struct{ Name string } `json:"cipherSuites"`
		} `json:"protocolProperties"`
	} `json:"cryptoProperties"`
	Properties []struct{ Name, Value string }
}

type parts struct {
	Components, Services []part
	Dependencies         []struct {
		Ref string
		On  []string `json:"dependsOn"`
	}
	Compositions []struct{ Aggregate string }
	Properties   []struct{ Name, Value string }
	Serial       string `json:"serialNumber"`
}

func written(t testing.TB, s *inventory.Store, o Options) (parts, Written) {
	t.Helper()
	var b bytes.Buffer
	w, err := Write(&b, s, o)
	if err != nil {
		t.Fatal(err)
	}
	var p parts
	if err := json.Unmarshal(b.Bytes(), &p); err != nil {
		t.Fatalf("%v in\n%s", err, &b)
	}
	known := map[string]bool{}
	for _, c := range slices.Concat(p.Components, p.Services) {
		if known[c.Ref] {
			t.Errorf("%s is there twice", c.Ref)
		}
		known[c.Ref] = true
	}
	for _, d := range p.Dependencies {
		for _, ref := range append(d.On, d.Ref) {
			if !known[ref] {
				t.Errorf("%s is referred to, and not there", ref)
			}
		}
	}
	return p, w
}

func refs(list []part) (all []string) {
	for _, c := range list {
		all = append(all, c.Ref)
	}
	return all
}

// TestWrite shares a key between two certificates, and has a server with two versions.
func TestWrite(t *testing.T) {
	a, b, authority := certificate("a"), certificate("b"), certificate("authority")
	b.SPKISHA256 = a.SPKISHA256
	old := met(1, 443, 0xc014, a, authority)
	old.Version = 0x0301
	tls13 := met(2, 443, 0x1301)
	tls13.Version, tls13.Outcome, tls13.Curve = 0x0304, event.Encrypted, 4588
	s := stored(t, met(1, 443, 0xc02b, a, authority), old, met(2, 443, 0xc02b, b), tls13)
	p, w := written(t, s, Options{Version: "1"})
	if w != (Written{Certificates: 3, Servers: 2}) || p.Compositions[0].Aggregate != "unknown" {
		t.Errorf("%+v, %v", w, p.Compositions)
	}
	count := map[string]int{}
	suites := map[string]int{}
	for _, c := range p.Components {
		count[c.Crypto.Asset]++
		suites[c.Name] += len(c.Crypto.Protocol.Suites)
	}
	if count["certificate"] != 3 || count["related-crypto-material"] != 2 || count["protocol"] != 3 {
		t.Errorf("%v", count)
	}
	// Server 1 has TLS 1.0 and 1.2, and nobody knows which suite is of which; server 2 has
	// one suite before TLS 1.3.
	if suites["TLS 1.0"] != 0 || suites["TLS 1.2"] != 1 || suites["TLS 1.3"] != 1 {
		t.Errorf("suites %v", suites)
	}
	all := refs(p.Components)
	for _, want := range []string{"algorithm/X25519MLKEM768", "algorithm/ML-KEM-768", "algorithm/x25519", "algorithm/AES-128-GCM", "algorithm/HMAC-SHA1",
		"algorithm/ECDSA P-256", "algorithm/ECDSA-SHA256", "protocol/0301"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not among %q", want, all)
		}
	}
	if got := p.Components[0].Evidence.Occurrences; len(got) == 0 || !strings.Contains(got[0].AdditionalContext, "in frame 6 of monday.pcap, client 192.0.2.1:") {
		t.Errorf("%+v", got)
	}
	for _, d := range p.Dependencies {
		if d.Ref == certificateRef(a.SHA256) && !slices.Contains(d.On, certificateRef(authority.SHA256)) {
			t.Errorf("the issuer is not among %q", d.On)
		}
	}

	// The same handshakes give the same document, others another number.
	again, _ := written(t, s, Options{Version: "1"})
	other, _ := written(t, s, Options{Version: "2"})
	if again.Serial != p.Serial || other.Serial == p.Serial {
		t.Errorf("serial numbers %s, %s, %s", p.Serial, again.Serial, other.Serial)
	}

	// A part.
	p, w = written(t, s, Options{Certificates: map[inventory.Hash]struct{}{b.SHA256: {}}})
	if w.Certificates != 1 || !slices.Equal(refs(p.Services), []string{"server/198.51.100.2:443/tcp/tls"}) {
		t.Errorf("%+v, %q", w, refs(p.Services))
	}
	p, w = written(t, stored(t), Options{})
	if w != (Written{}) || len(p.Components)+len(p.Services) != 0 {
		t.Errorf("of nothing: %+v, %+v", w, p)
	}
}

// TestBounds has more of everything than a document names.
func TestBounds(t *testing.T) {
	c := certificate("everywhere")
	var all []*event.Handshake
	for n := range maxOccurrences + 36 {
		all = append(all, met(byte(n), 443, 0xc02b, c))
	}
	p, _ := written(t, stored(t, all...), Options{})
	if n := len(p.Components[0].Evidence.Occurrences); n != maxOccurrences {
		t.Errorf("%d places", n)
	}
	if got := p.Components[0].Properties[0]; got.Name != "oddcert:occurrences:more" || got.Value != "36" {
		t.Errorf("%+v", got)
	}
	d := &document{algorithms: map[string]*used{}}
	for n := range maxAlgorithms + 50 {
		d.use(ofSignature(fmt.Sprintf("1.2.3.%d", n)))
	}
	if len(d.algorithms) != maxAlgorithms || d.written.LeftOut != 50 {
		t.Errorf("%d algorithms, %d left out", len(d.algorithms), d.written.LeftOut)
	}
}

type broken struct{ room int }

var errFull = errors.New("the disk is full")

func (b *broken) Write(p []byte) (int, error) {
	if b.room -= len(p); b.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	s := stored(t, met(1, 443, 0xc02b, certificate("a")))
	var whole bytes.Buffer
	if _, err := Write(&whole, s, Options{}); err != nil {
		t.Fatal(err)
	}
	for room := range whole.Len() {
		if _, err := Write(&broken{room}, s, Options{}); !errors.Is(err, errFull) {
			t.Fatalf("room for %d of %d bytes: %v", room, whole.Len(), err)
		}
	}
}

// TestSuites takes names of suites apart. The strengths are those of NIST SP 800-57 and
// of the categories of its call for proposals.
func TestSuites(t *testing.T) {
	for name, want := range map[string]string{
		"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384":         "ECDHE key-agree -1/0, RSA pke -1/0, AES-256-GCM ae 256/5, SHA384 hash 192/4",
		"TLS_AES_128_CCM_8_SHA256":                      "AES-128-CCM-8 ae 128/1, SHA256 hash 128/2",
		"TLS_CHACHA20_POLY1305_SHA256":                  "CHACHA20-POLY1305 ae 256/-1, SHA256 hash 128/2",
		"TLS_RSA_WITH_3DES_EDE_CBC_SHA":                 "RSA pke -1/0, 3DES-EDE-CBC block-cipher 112/0, HMAC-SHA1 mac -1/-1",
		"TLS_RSA_WITH_RC4_128_MD5":                      "RSA pke -1/0, RC4-128 stream-cipher 0/0, HMAC-MD5 mac -1/-1",
		"TLS_RSA_WITH_NULL_SHA":                         "RSA pke -1/0, HMAC-SHA1 mac -1/-1",
		"TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA256":      "DHE key-agree -1/0, DSA signature -1/0, CAMELLIA-256-CBC block-cipher 256/-1, HMAC-SHA256 mac -1/-1",
		"TLS_PSK_WITH_AES_128_CCM":                      "AES-128-CCM ae 128/1",
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE key-agree -1/0, ECDSA signature -1/0, CHACHA20-POLY1305 ae 256/-1, SHA256 hash 128/2",
		"0xEEEE": "",
	} {
		var got []string
		for _, a := range ofSuite(name) {
			got = append(got, fmt.Sprintf("%s %s %d/%d", a.name, a.primitive, a.classical, a.quantum))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s:\n%s, want\n%s", name, s, want)
		}
	}
	for name, want := range map[string]string{
		"X25519MLKEM768": "X25519MLKEM768 combiner -1/3, x25519 key-agree 128/0, ML-KEM-768 kem -1/3", "SecP384r1MLKEM1024": "SecP384r1MLKEM1024 combiner -1/5, secp384r1 key-agree 192/0, ML-KEM-1024 kem -1/5",
		"MLKEM512": "ML-KEM-512 kem -1/1", "X25519Kyber768Draft00": "X25519Kyber768Draft00 combiner -1/-1", "secp521r1": "secp521r1 key-agree 256/0",
		"ffdhe2048": "ffdhe2048 key-agree 112/0", "brainpoolP256r1tls13": "brainpoolP256r1tls13 key-agree 128/0", "0x7777": "0x7777 unknown -1/-1",
	} {
		var got []string
		for _, a := range ofGroup(name) {
			got = append(got, fmt.Sprintf("%s %s %d/%d", a.name, a.primitive, a.classical, a.quantum))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s:\n%s, want\n%s", name, s, want)
		}
	}
}

// FuzzWrite has hostile texts wherever a text comes from the wire or from a file: the
// document stays one, and shows none of them as it is.
func FuzzWrite(f *testing.F) {
	for _, s := range []string{"", "plain", "\x00\x1b[31m\x7f", "\u202egpj", "\xff\"},{", "</script>", strings.Repeat("x", 70_000), strings.Repeat("\x12", maxText), strings.Repeat("<", maxText), "=cmd()"} {
		f.Add(s, uint16(0x1301), uint16(4588))
	}
	// The text is in 16 places, and a byte of it becomes six of JSON at most, as < does.
	const largest = 16*6*maxText + 16<<10
	f.Fuzz(func(t *testing.T, s string, suite, group uint16) {
		c := certificate(s)
		c.Serial, c.ParseError, c.PublicKeyAlgorithm, c.PublicKeyCurve = "00", s, "ECDSA", "P-256"
		h := met(1, 443, suite, c)
		h.Curve, h.ClientHello.ServerName, h.Flow.Origin = group, s, &event.Origin{Path: s}
		store := stored(t, h)
		var b bytes.Buffer
		if _, err := Write(&b, store, Options{}); err != nil {
			t.Fatal(err)
		}
		written(t, store, Options{})
		for _, r := range b.String() {
			if r != '\n' && !harmless.Visible(r) {
				t.Errorf("%U is there", r)
			}
		}
		if strings.Contains(b.String(), "</") || b.Len() > largest {
			t.Errorf("%d bytes: %.2000s", b.Len(), &b)
		}
	})
}
