package cert

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
		"FoxIO-LLC+ja4/pcap/badcurveball.pcap",
		"FoxIO-LLC+ja4/pcap/browsers-x509.pcapng",
		"ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng",
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
