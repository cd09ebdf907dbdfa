package cert

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The certificates of public captures, as tshark takes them out: their hashes
// are the published ones, and their fields those of crypto/x509 wherever that
// reads them.
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("reading captures takes seconds")
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	dir := os.Getenv("ODDCERT_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Skipf("no corpus of captures (set ODDCERT_CORPUS): %v", err)
	}
	type entry struct {
		SHA256 string `json:"sha256"`
	}
	var expected map[string]struct{ Server, Client []entry }
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	seen, refused := 0, 0
	for _, path := range []string{
		"FoxIO-LLC+ja4/pcap/badcurveball.pcap", // a curve by its parameters
		"FoxIO-LLC+ja4/pcap/browsers-x509.pcapng",
		"arkime+arkime/tests/pcap/https-generalizedtime.pcap",
		"arkime+arkime/tests/pcap/arkime_synthetic.pcap", // lengths that are not DER
		"ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng",
		"ntop+nDPI/tests/cfgs/default/pcap/gnutella.pcap", // negative serial numbers
		"ntop+nDPI/tests/cfgs/default/pcap/tls-rdn-extract.pcap",
	} {
		hashes := make(map[string]bool)
		for _, e := range append(expected[path].Server, expected[path].Client...) {
			hashes[e.SHA256] = true
		}
		out, err := exec.Command(tshark, "-r", filepath.Join(dir, "captures", path), "-Y", "tls.handshake.certificate or dtls.handshake.certificate",
			"-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate").Output()
		if err != nil {
			t.Fatalf("tshark %s: %v", path, err)
		}
		for text := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return strings.ContainsRune(",;\t\n", r) }) {
			raw, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
			if err != nil {
				t.Fatalf("tshark %s: %v", path, err)
			}
			c := Parse(raw)
			hash := hex.EncodeToString(c.SHA256[:])
			if !hashes[hash] {
				t.Errorf("%s: no certificate with the SHA-256 %s is known there (%q)", path, hash, c.Subject.String)
			}
			seen++
			if hash == "1073570f79136511ba45b44c923a55c69b97e91d3aaa2e06e5e657129ca809ff" {
				checkDIVD(t, c)
			}
			x, err := x509.ParseCertificate(raw)
			if err != nil {
				refused++
				t.Logf("%s: %s %q: %v; we say %q", path, hash, c.Subject.String, err, c.ParseError)
				continue
			}
			for _, d := range differences(c, x) {
				t.Errorf("%s: %s: %s", path, hash, d)
			}
			if c.ParseError != "" {
				t.Errorf("%s: %s %q: ParseError is %q", path, hash, c.Subject.String, c.ParseError)
			}
		}
	}
	t.Logf("%d certificates, %d of them refused by crypto/x509", seen, refused)
	if seen == 0 {
		t.Error("no certificate in any capture")
	}
}

// checkDIVD compares with what is published of the certificate of case
// DIVD-2022-00013.
func checkDIVD(t *testing.T, c *Certificate) {
	for _, f := range []struct{ field, got, want string }{
		{"MD5", fmt.Sprintf("%X", c.MD5), "1D33D4E6057C2D739072EF9B89169EE7"},
		{"SHA1", fmt.Sprintf("%X", c.SHA1), "D1880F51C1019172A1A46E69F4337FFE3EC4F039"},
		{"SPKISHA256", fmt.Sprintf("%X", c.SPKISHA256), "0C590250B960421F0C2504D1940A60C9EAACE45E9AC395A362932BA5B864C642"},
		{"Subject", c.Subject.String, "C=US, ST=Washington, L=Redmond, O=Microsoft, OU=DSP, CN=www.update.microsoft.com"},
		{"Issuer", c.Issuer.String, "C=US, ST=Washington, L=Redmond, O=Microsoft Corporation, CN=Microsoft Update Secure Server CA 1"},
		{"Serial", c.Serial, "330000001CB679B5BA072F73F300000000001C"},
		{"NotBefore", c.NotBefore.Time().Format(time.DateTime), "2017-02-27 12:00:00"},
		{"NotAfter", c.NotAfter.Time().Format(time.DateTime), "2019-02-27 00:00:00"},
		{"key and signature", fmt.Sprintf("%s-%d, %s", c.PublicKeyAlgorithm, c.PublicKeySize, c.SignatureAlgorithm), "RSA-2048, SHA1-RSA"},
		{"signature bits, length", fmt.Sprintf("%d, %d", c.SignatureBits, len(c.DER)), "2048, 1248"},
		{"AuthorityKeyID", fmt.Sprintf("%X", c.AuthorityKeyID), "13038909A84FFB8F30036E2A5D6C236581747EBB"},
	} {
		if f.got != f.want {
			t.Errorf("%s is %q, want %q", f.field, f.got, f.want)
		}
	}
	if len(c.DNSNames) != 0 {
		t.Errorf("DNSNames are %q", c.DNSNames)
	}
}
