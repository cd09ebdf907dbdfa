package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/rules/judgement"
)

// plainHost is a name that crypto/x509 compares without doubts.
var plainHost = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$`)

// A leaf is for a name if crypto/x509 says so, and otherwise only where it refuses to
// compare the names at all.
func FuzzIsFor(f *testing.F) {
	for _, s := range [][2]string{{"a.example", "a.example"}, {"*.a.example", "x.a.example"}, {"*.a.example", "a.example"}, {"*.a.example", "x.y.a.example"},
		{"A.Example.", "a.example"}, {"*", "a"}, {"*.example", "a.example."}, {"f*.example", "foo.example"}, {"192.0.2.1", "192.0.2.1"}, {"", ""}, {"*.", "a."}, {"xn--e1afmkfd.example", "xn--e1afmkfd.example"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, asked string) {
		ours := isFor(&cert.Certificate{DNSNames: []string{pattern}, AltNames: 1}, asked)
		theirs := (&x509.Certificate{DNSNames: []string{pattern}}).VerifyHostname(asked) == nil
		if asked == "" || strings.HasPrefix(asked, "[") {
			return
		}
		if _, err := netip.ParseAddr(asked); err == nil {
			if ours {
				t.Errorf("a DNS name %q is for the address %q", pattern, asked)
			}
			return
		}
		clean := plainHost.MatchString(strings.TrimSuffix(pattern, ".")) && plainHost.MatchString(strings.TrimSuffix(asked, ".")) &&
			!strings.HasSuffix(pattern, ".") && !strings.Contains(asked, "*") && net.ParseIP(pattern) == nil
		if theirs && !ours || ours && !theirs && clean {
			t.Errorf("%q for %q: %v, crypto/x509 says %v", pattern, asked, ours, theirs)
		}
	})
}

// Name constraints of any bytes are read or are a problem, and what is excluded by
// the empty name is everything.
func FuzzConstraints(f *testing.F) {
	f.Add([]byte{0x30, 0x0d, 0xa0, 0x0b, 0x30, 0x09, 0x82, 0x07, 'e', 'x', 'a', 'm', 'p', 'l', 'e'}, "a.example")
	f.Add([]byte{0x30, 0x06, 0xa1, 0x04, 0x30, 0x02, 0x82, 0x00}, "a.example")
	f.Add([]byte{0x30, 0x0e, 0xa1, 0x0c, 0x30, 0x0a, 0x87, 0x08, 192, 0, 2, 0, 255, 255, 255, 0}, "192.0.2.1")
	f.Add([]byte{0x30, 0x15, 0xa0, 0x13, 0x30, 0x11, 0xa4, 0x0f, 0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 6, 3, 0x55, 4, 6, 0x13, 2, 'D', 'E'}, "a.example")
	f.Fuzz(func(t *testing.T, value []byte, name string) {
		var x constraints
		x.read(value)
		c := newCertificate(&cert.Certificate{DNSNames: []string{name}, AltNames: 1})
		if addr, err := netip.ParseAddr(name); err == nil {
			c = newCertificate(&cert.Certificate{IPAddresses: []string{addr.String()}, AltNames: 1})
		}
		c.parts.Subject = []byte{0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 6, 3, 0x55, 4, 6, 0x13, 2, 'D', 'E'}
		checks := maxNameChecks
		a, _ := x.allow(c, &checks)
		if (x.problem != "") && a != unclear {
			t.Fatalf("%q, and the answer is %d", x.problem, a)
		}
		for _, k := range x.list {
			if k.kind == cert.DNSName && k.excluded && k.host == "" && len(c.DNSNames) > 0 && a == within {
				t.Fatal("everything is excluded, and the name is within")
			}
		}
	})
}

// The verdict on a name that only the subject has, of a leaf with many names, and of
// distinguished names below a directory.
func TestNames(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	stores := trusting(t, root)
	bare := issue(t, root, "a.example", nil)
	check(t, verify(t, stores, handshake(noon, "a.example", bare.Raw)), judgement.Trusted, operator)
	check(t, verify(t, stores, handshake(noon, "b.example", bare.Raw)), judgement.NameMismatch, operator, `asked for "b.example", and the leaf is for "a.example".`)
	other := issue(t, root, "a.example", forHost("b.example"))
	check(t, verify(t, stores, handshake(noon, "a.example", other.Raw)), judgement.NameMismatch, operator)
	var many []string
	for range 3000 {
		many = append(many, "x.example")
	}
	last := issue(t, root, "a", forHost(append(many, "last.example")...))
	check(t, verify(t, stores, handshake(noon, "last.example", last.Raw)), judgement.Trusted, operator)
	check(t, verify(t, stores, handshake(noon, "a.example", last.Raw)), judgement.NameMismatch, operator, "and 2,998 more.")
	none := issue(t, root, "", func(c *x509.Certificate) { c.EmailAddresses = []string{"a@a.example"} })
	check(t, verify(t, stores, handshake(noon, "a.example", none.Raw)), judgement.NameMismatch, operator, "the leaf is for no host")

	// Only subjects in DE may be below.
	german := issue(t, root, "CA", all(isCA, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 30}, Critical: true, Value: []byte{0x30, 0x15, 0xa0, 0x13, 0x30, 0x11, 0xa4, 0x0f,
			0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 6, 3, 0x55, 4, 6, 0x13, 2, 'D', 'E'}}}
	}))
	for country, status := range map[string]judgement.TrustStatus{"DE": judgement.Trusted, "de": judgement.Trusted, "FR": judgement.Invalid} {
		leaf := issue(t, german, "", all(forHost("a.example"), func(c *x509.Certificate) {
			c.Subject = pkix.Name{Country: []string{country}, CommonName: "a.example"}
		}))
		check(t, verify(t, stores, handshake(noon, "a.example", leaf.Raw, german.Raw)), status, operator)
	}

	// A name that a terminal would obey, and one without end.
	evil := issue(t, root, "\x1b[2J\u202e"+strings.Repeat("x", 200), nil)
	got := verify(t, stores, handshake(noon, "a.example", evil.Raw))
	for _, r := range got.Reasons {
		if strings.ContainsAny(r, "\x1b\u202e\n") || len(r) > 400 {
			t.Errorf("reason %q", r)
		}
	}
}
