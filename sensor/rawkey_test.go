//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/netlab"
)

// GnuTLS shows a raw public key in the place of its certificate, and names the
// authority whose certificates it wants from clients. Both are in the record.
func TestRawKey(t *testing.T) {
	for _, tool := range []string{"gnutls-serv", "gnutls-cli", "openssl", "tcpdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("a raw public key: %s is not installed", tool)
		}
	}
	lab := netlab.New(t)
	dir := t.TempDir()
	for _, line := range []string{
		"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out raw.key",
		"openssl pkey -in raw.key -pubout -out raw.pub",
		"openssl req -x509 -newkey rsa:2048 -noenc -keyout ca.key -out ca.pem -subj '/O=Example/CN=Staff CA'",
	} {
		w := words(line)
		cmd := exec.Command(w[0], w[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "raw.pub"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("openssl wrote %q", text)
	}

	capture := filepath.Join(dir, "raw.pcap")
	stop := recording(t, lab, capture)
	const priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+CTYPE-SRV-RAWPK"
	launched(t, lab.Server, dir, "listening", "gnutls-serv", "--port", "5671", "--priority", priority,
		"--rawpkkeyfile", "raw.key", "--rawpkfile", "raw.pub", "--x509cafile", "ca.pem")
	client := lab.Client.Command("gnutls-cli", "--port", "5671", "--insecure", "--priority", priority, lab.ServerIP)
	client.Stdin = strings.NewReader("")
	if out, err := client.CombinedOutput(); !bytes.Contains(out, []byte("Handshake was completed")) {
		t.Fatalf("gnutls-cli: %v: %s", err, out)
	}
	stop()

	var stdout, stderr bytes.Buffer
	run([]string{"replay", "--json", "-", "--records", "handshake", capture}, &stdout, &stderr)
	var r struct {
		Oddcert struct {
			Certificates   string   `json:"certificates"`
			AuthorityNames []string `json:"authority_names"`
			RawKey         struct {
				SHA256 string `json:"sha256"`
			} `json:"raw_key"`
		} `json:"oddcert"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	if o := r.Oddcert; o.Certificates != "none" || o.RawKey.SHA256 != fmt.Sprintf("%X", sha256.Sum256(block.Bytes)) ||
		!slices.Equal(o.AuthorityNames, []string{"O=Example, CN=Staff CA"}) {
		t.Errorf("%+v", o)
	}
}
