package zeek

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptox509 "crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/oddcert/oddcert/parsers/cert"
)

// A server may fill its certificate with names, and a name with attributes.
func TestLimits(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &cryptox509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<31, 0),
		RawSubject: rdnSequence(t, member{"2.5.4.10", asn1.UTF8String, []byte("first"), false},
			member{"2.5.4.3", asn1.UTF8String, []byte(strings.Repeat("x", 5000)), false}),
	}
	for i := range 600 {
		template.DNSNames = append(template.DNSNames, fmt.Sprintf("host%d.example.org", i))
	}
	der, err := cryptox509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	_, _, lines := parse(t, write(t, false, certificateRecord(t, der))[x509])
	names := lines[0]["san.dns"].([]string)
	if len(names) != 500 || names[0] != "host0.example.org" || names[499] != "host499.example.org" {
		t.Errorf("%d names, the last %s", len(names), names[len(names)-1])
	}
	if s := lines[0]["certificate.subject"]; s != "CN="+strings.Repeat("x", 2044) {
		t.Errorf("subject of %d bytes: %.60s", len(s.(string)), s)
	}
	if !isFor(cert.Parse(der), "host599.example.org") {
		t.Error("the last name does not count")
	}
}
