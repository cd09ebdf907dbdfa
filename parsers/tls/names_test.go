package tls

import (
	"crypto/tls"
	"slices"
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
