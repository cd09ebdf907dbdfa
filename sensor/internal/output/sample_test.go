package output

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// testChain returns a leaf and its authority, as crypto/x509 made and reads
// them.
var testChain = sync.OnceValue(func() [2]*x509.Certificate {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(0x0102030405),
		Subject: pkix.Name{
			CommonName: "Example Root CA", Organization: []string{"Example & Söhne <GmbH>"},
			OrganizationalUnit: []string{"Trust"},
			Country:            []string{"DE"}, Locality: []string{"Köln"}, Province: []string{"NRW"},
		},
		NotBefore: time.Date(2015, 1, 2, 3, 4, 5, 0, time.UTC),
		NotAfter:  time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA:      true, BasicConstraintsValid: true,
	}
	link, err := url.Parse("https://www.example.com/x?y=1&z=2")
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0x7fabcdef),
		Subject: pkix.Name{
			CommonName: "www.example.com", Organization: []string{"Example", `"Quoted" \ Co`},
			OrganizationalUnit: []string{"Ops"}, Country: []string{"US"},
			Locality: []string{"Redmond"}, Province: []string{"Washington"},
		},
		NotBefore:      time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:       time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames:       []string{"www.example.com", "*.example.com"},
		IPAddresses:    []net.IP{net.ParseIP("192.0.2.9"), net.ParseIP("2001:db8::9")},
		EmailAddresses: []string{"ops@example.com"},
		URIs:           []*url.URL{link},

		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
	must(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), caKey)
	must(err)
	ca, err := x509.ParseCertificate(caDER)
	must(err)
	l, err := x509.ParseCertificate(leafDER)
	must(err)
	return [2]*x509.Certificate{l, ca}
})

// ofX509 fills our certificate from what crypto/x509 reads.
func ofX509(x *x509.Certificate) *cert.Certificate {
	name := func(n pkix.Name) cert.Name {
		return cert.Name{
			String:       n.String(),
			CommonName:   []string{n.CommonName},
			Organization: n.Organization, OrganizationalUnit: n.OrganizationalUnit,
			Country: n.Country, Locality: n.Locality, StateOrProvince: n.Province,
		}
	}
	c := &cert.Certificate{
		DER: x.Raw, MD5: md5.Sum(x.Raw), SHA1: sha1.Sum(x.Raw), SHA256: sha256.Sum256(x.Raw),
		SPKISHA256: sha256.Sum256(x.RawSubjectPublicKeyInfo), TBSSHA256: sha256.Sum256(x.RawTBSCertificate),
		Version: x.Version, Serial: fmt.Sprintf("%X", x.SerialNumber.Bytes()),
		SignatureAlgorithm: x.SignatureAlgorithm.String(),
		Subject:            name(x.Subject), Issuer: name(x.Issuer),
		NotBefore: cert.DateOf(x.NotBefore), NotAfter: cert.DateOf(x.NotAfter),
		PublicKeyAlgorithm: x.PublicKeyAlgorithm.String(),
		PublicKeySize:      x.PublicKey.(*ecdsa.PublicKey).Curve.Params().BitSize,
		PublicKeyCurve:     x.PublicKey.(*ecdsa.PublicKey).Curve.Params().Name,
		DNSNames:           x.DNSNames, EmailAddresses: x.EmailAddresses,
		IsCA: x.IsCA, SelfSigned: x.Subject.String() == x.Issuer.String(),

		SignatureBits: 8 * len(x.Signature), BasicConstraints: true, PathLen: 3, KeyUsage: cert.KeyUsage(x.KeyUsage),
		ExtendedKeyUsage: []string{"serverAuth"}, Policies: []string{"2.23.140.1.2.1", "1.2.3"},
		Permitted: []string{"example.com"}, Excluded: []string{"10.0.0.0/8", "C=US"},
		SubjectKeyID: []byte{0, 1, 0xab}, AuthorityKeyID: []byte{0xcd}, SCTs: 2,
		AltNames: len(x.DNSNames) + len(x.IPAddresses) + len(x.EmailAddresses) + len(x.URIs),
	}
	for _, ip := range x.IPAddresses {
		c.IPAddresses = append(c.IPAddresses, ip.String())
	}
	for _, u := range x.URIs {
		c.URIs = append(c.URIs, u.String())
	}
	return c
}

var testObserver = Observer{Name: "span-1", Version: "1.2.3"}

// fullHandshake has every field that a record can show.
func fullHandshake(t testing.TB) *event.Handshake {
	t.Helper()
	chain := testChain()
	leaf, ca := ofX509(chain[0]), ofX509(chain[1])
	start := time.Date(2022, 2, 21, 16, 39, 40, 7, time.UTC).UnixNano()
	return &event.Handshake{
		Flow: &event.Flow{
			Transport: event.TCP,
			Endpoints: [2]event.Endpoint{
				{Addr: netip.MustParseAddr("66.35.250.204"), Port: 80, MAC: [6]byte{0, 0x1b, 0x21, 0xab, 0xcd, 0xef}},
				{Addr: netip.MustParseAddr("128.232.110.120"), Port: 34855, MAC: [6]byte{2, 0, 0, 0, 0, 1}},
			},
			VLANs: [2]uint16{100, 4095}, VLANCount: 2,
			Tunnel: []string{"vxlan", "gre"},
			Start:  start - 5e9,
			Origin: &event.Origin{Path: "/captures/a \"b\".pcapng", Interface: "eth0"},
		},
		Client:      1,
		Carrier:     "starttls-smtp",
		Index:       2,
		Start:       event.Moment{Time: start, Frame: 4},
		Certificate: event.Moment{Time: start + 1e6, Frame: 6},
		End:         event.Moment{Time: start + 1999999993, Frame: 9},
		Version:     0x0303, CipherSuite: 0xc02f, Curve: 23,
		ClientHello: &event.ClientHello{
			ServerName: "mail.example.com",
			Offer: &event.Offer{
				Version: 0x0303, ALPN: []string{"h2", "http/1.1"}, SupportedVersions: []uint16{0x1a1a, 0x0304, 0x0303},
				Extensions: []uint16{0, 43}, SupportedGroups: []uint16{29, 0x4243}, SignatureAlgorithms: []uint16{0x0403}, PointFormats: []uint8{0},
				CipherSuites: []uint16{0x5a5a, 0x1301, 0xc02f, 0x00ff, 0x4242},
				JA3:          "d4e5b18d6b55c71272893221c96ba240", JA3Raw: "771,1-2", JA4: "t13d1516h2_8daaf6152771_02713d6af862",
			},
		},
		ServerHello: &event.ServerHello{
			Version: 0x0303, CipherSuite: 0xc02f, ALPN: "h2", JA3S: "394441ab65754e2207b1e1b457b3641d",
		},
		Established: true, Resumed: false, ClientAuth: true,
		RawKey: sha256.Sum256([]byte("a key")), ClientRawKey: sha256.Sum256([]byte("another")),
		AuthorityNames: []string{"CN=Example Root CA", `O="Söhne"`},
		Outcome:        event.Extracted,
		Chain: []event.ChainEntry{
			{Certificate: leaf},
			{Certificate: ca},
			{Certificate: &cert.Certificate{
				DER: []byte("no certificate"), MD5: md5.Sum([]byte("no certificate")),
				SHA1: sha1.Sum([]byte("no certificate")), SHA256: sha256.Sum256([]byte("no certificate")),
				ParseError: "no SEQUENCE\x00 at offset 0",
			}},
			{Certificate: &cert.Certificate{Subject: cert.Name{String: "CN=cut"}}, Truncated: true},
		},
		ClientChain: []event.ChainEntry{{Certificate: ca}, {Certificate: leaf}},
	}
}

// fullMatch has every field that an alert can show.
func fullMatch() *rules.Match {
	return &rules.Match{
		Rule: &rules.Rule{
			ID: "6f0d6e3c-5d1c-4d63-9d3b-0f7a1f2f8e01", Title: "Look-alike of www.update.microsoft.com",
			Description: "A certificate that\nposes.", Category: "tls", Ruleset: "microsoft-update",
			Version: "2024-05-06", Author: "Example", License: "CC0-1.0",
			References:     []string{"https://csirt.divd.nl/x?a=1&b=2", "https://example.com"},
			FalsePositives: []string{"A test of the rule."},
			Level:          "medium", Severity: 47, RiskScore: 50, Verdict: "disguise",
			Threat: rules.Threat{
				Framework:     "MITRE ATT&CK",
				Tactics:       []rules.ThreatEntry{{ID: "TA0011", Name: "Command and Control", Reference: "https://attack.mitre.org/tactics/TA0011/"}},
				Techniques:    []rules.ThreatEntry{{ID: "T1573", Reference: "https://attack.mitre.org/techniques/T1573/"}, {ID: "T1090"}},
				Subtechniques: []rules.ThreatEntry{{ID: "T1573.002", Name: "Asymmetric Cryptography", Reference: "https://attack.mitre.org/techniques/T1573/002/"}},
			},
		},
		Field: "tls.server.hash.sha256", Value: "1073570F", List: "divd", ChainIndex: 0,
		Reason:  "Someone goes around the filters.",
		Reasons: []string{"the hash is on the list", "it is no certificate of Microsoft"},
	}
}

func fullCounters() *Counters {
	c := &Counters{
		Time: 2e18, Start: 1e18, End: 1e18 + 12345,
		Captures: []string{"/a/b.pcap", "c.pcap"}, Unnamed: 3, Failure: "match rules: nil",
		Rules: []RuleCount{{fullMatch().Rule, 3}},
		Sections: []Section{
			{Name: "flow", Value: struct {
				Flows   uint64 `json:"flows"`
				Evicted uint64 `json:"evicted"`
			}{12, 1}, Lost: []string{"evicted"}},
		},
	}
	c.NoTLS = []decode.FrameCount{{Name: "EtherType 0x0806 (ARP)", Frames: 40}, {Name: "LLC 0x42 (STP)", Frames: 7}}
	for n := range uint64(15) {
		c.Unread = append(c.Unread, decode.FrameCount{Name: fmt.Sprintf("EtherType %#04x", 0x9400+n), Frames: 100 - n})
	}
	c.Uptime, c.Lag = 90*time.Second, 3*time.Millisecond
	c.Interfaces = []capture.Interface{
		{Name: "span0", State: capture.LinkUp, Since: time.Unix(1.9e9, 0), Changes: 2, MTU: 1500, Speed: 10000, Frames: 900, Dropped: 3, Last: time.Unix(2e9, 0)},
		{Name: "span1", State: capture.LinkUp, Since: time.Unix(2e9-100, 0), Last: time.Unix(2e9-31, 0)},
		{Name: "span2", State: capture.LinkNoCarrier, Since: time.Unix(2e9-100, 0)},
	}
	c.Weird = []decode.FrameCount{{Name: "truncated_tcp", Frames: 4}}
	c.Capture.Frames, c.Capture.Bytes = 1000, 900_000
	c.Parser.Handshakes = 12
	c.Parser.Outcomes = [event.Outcomes]uint64{5, 4, 1, 0, 2}
	c.Parser.Losses[event.Gap] = 2
	c.Told = ToldStats{Certificates: 7, Sightings: 9, Changed: 1, Hellos: 2}
	return c
}

func upper(sum []byte) string { return strings.ToUpper(fmt.Sprintf("%x", sum)) }
