package tls

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every suite and version that crypto/tls knows has the name that it has there.
func TestNamesAgainstCryptoTLS(t *testing.T) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		want := s.Name
		if got := CipherSuiteName(s.ID); got != want {
			t.Errorf("%04x: %q, crypto/tls has %q", s.ID, got, want)
		}
	}
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		_, n := VersionName(v)
		if "TLS "+n != tls.VersionName(v) {
			t.Errorf("%04x: %q", v, n)
		}
	}
	for id, want := range map[tls.CurveID]string{tls.CurveP256: "secp256r1", tls.X25519: "x25519", tls.X25519MLKEM768: "X25519MLKEM768"} {
		if got := GroupName(uint16(id)); got != want {
			t.Errorf("%d: %q", id, got)
		}
	}
}

// TestSignatureSchemeNames compares with tshark's names.
func TestSignatureSchemeNames(t *testing.T) {
	program, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is missing")
	}
	out, err := exec.CommandContext(t.Context(), program, "-G", "values").Output()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[1] != "tls.handshake.sig_hash_alg" {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 0, 16); err == nil && n < 0xfe00 { // those beyond are private
			compared++
			if got := SignatureSchemeName(uint16(n)); got != f[3] {
				t.Errorf("%04x: %q, tshark has %q", n, got, f[3])
			}
		}
	}
	if compared < 10 {
		t.Errorf("%d names compared", compared)
	}
}
