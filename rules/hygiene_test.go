package rules

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// sound is a handshake of 2026 with which nothing is wrong, by a public authority.
func sound() scene {
	c := of(ordinary().Chain...).trust(judgement.Trusted, "mozilla").direction(judgement.Outbound)
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	c.h.End.Time, c.h.Certificate.Time = now.UnixNano(), now.UnixNano()
	c.h.Outcome = event.Extracted
	leaf := c.h.Chain[0].Certificate
	leaf.NotBefore, leaf.NotAfter = cert.DateOf(now.AddDate(0, 0, -100)), cert.DateOf(now.AddDate(0, 0, 200))
	leaf.KeyUsage, leaf.ExtendedKeyUsage = usage("digitalSignature"), []string{"serverAuth"}
	authority := c.h.Chain[1].Certificate
	authority.IsCA = true
	return c
}

// usage is the bit of a name.
func usage(name string) cert.KeyUsage {
	for u := cert.KeyUsage(1); u != 0; u <<= 1 {
		for n := range u.Names {
			if n == name {
				return u
			}
		}
	}
	panic(name)
}

// Each rule of the pack holds for what it is about, and for nothing beside it.
func TestHygiene(t *testing.T) {
	s, err := Load(Source{"hygiene", func() fs.FS {
		sub, err := fs.Sub(PackFiles(), "hygiene")
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}()})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	days := func(from, to int) func(*scene) {
		return func(c *scene) {
			c.h.Chain[0].NotBefore, c.h.Chain[0].NotAfter = cert.DateOf(now.AddDate(0, 0, from)), cert.DateOf(now.AddDate(0, 0, to))
		}
	}
	leaf := func(f func(*cert.Certificate)) func(*scene) { return func(c *scene) { f(c.h.Chain[0].Certificate) } }
	issuer := func(f func(*cert.Certificate)) func(*scene) { return func(c *scene) { f(c.h.Chain[1].Certificate) } }
	status := func(s judgement.TrustStatus, store string) func(*scene) {
		return func(c *scene) { *c = c.trust(s, store) }
	}
	asked := func(name string) func(*scene) { return func(c *scene) { c.h.ClientHello.ServerName = name } }
	toward := func(d judgement.Direction) func(*scene) { return func(c *scene) { c.j.Direction = d } }
	version := func(v uint16) func(*scene) { return func(c *scene) { c.h.Version = v } }
	suite := func(v uint16) func(*scene) { return func(c *scene) { c.h.CipherSuite = v } }
	ours := func(c *scene) { *c = c.at("internal") }
	selfSigned := leaf(func(c *cert.Certificate) { c.SelfSigned = true })
	algorithm := func(a string) func(*cert.Certificate) {
		return func(c *cert.Certificate) { c.SignatureAlgorithm = a }
	}
	size := func(n int) func(*cert.Certificate) { return func(c *cert.Certificate) { c.PublicKeySize = n } }
	ocsp := func(s string) func(*scene) {
		return func(c *scene) { c.j.Transparency = &judgement.Transparency{OCSP: s, Revoked: 1e18} }
	}
	type change = func(*scene)
	seen := map[string]bool{}
	for _, c := range []struct {
		want    string // the rules that hold
		changes []change
	}{
		{"", nil},
		{"expired", []change{days(-100, -1)}},
		{"", []change{days(-100, 90)}},
		{"not-yet-valid", []change{days(1, 100)}},
		{"expires-soon", []change{days(-100, 29), ours}},
		{"expires-soon", []change{days(-100, 0), ours}},
		{"", []change{days(-100, 30), ours}},
		{"", []change{days(-100, 29)}},      // not ours
		{"", []change{days(-65, 24), ours}}, // made for 89 days: renewed by a machine
		{"expires-soon", []change{days(-83, 6), ours}},
		{"", []change{days(-1, 5), ours}}, // made for a week
		{"expired", []change{days(-100, -1), ours}},
		{"self-signed-outside", []change{selfSigned, status(judgement.SelfSigned, "")}},
		{"", []change{selfSigned, status(judgement.SelfSigned, ""), toward(judgement.Inbound)}},
		{"", []change{selfSigned, status(judgement.SelfSigned, ""), toward(judgement.DirectionUnknown)}},
		{"", []change{selfSigned, status(judgement.Trusted, "operator")}},
		{"name-mismatch", []change{status(judgement.NameMismatch, "mozilla")}},
		{"private-authority", []change{status(judgement.UntrustedRoot, "")}},
		{"private-authority", []change{status(judgement.Incomplete, "")}},
		{"", []change{status(judgement.Incomplete, ""), toward(judgement.Internal)}},
		{"", []change{status(judgement.Incomplete, ""), asked("nas.local")}},
		{"", []change{status(judgement.Incomplete, ""), asked("nas")}},
		{"", []change{status(judgement.Trusted, "operator")}},
		{"rsa-below-2048", []change{leaf(size(1024))}},
		{"rsa-below-2048", []change{issuer(size(2047))}},
		{"", []change{issuer(size(1024)), issuer(func(c *cert.Certificate) { c.SelfSigned = true })}}, // an old root
		{"", []change{leaf(size(256)), leaf(func(c *cert.Certificate) { c.PublicKeyAlgorithm = "ECDSA" })}},
		{"md5-signature", []change{leaf(algorithm("MD5-RSA"))}},
		{"md5-signature", []change{issuer(algorithm("MD2-RSA"))}},
		{"", []change{issuer(algorithm("MD5-RSA")), issuer(func(c *cert.Certificate) { c.SelfSigned = true })}},
		{"sha1-signature", []change{leaf(algorithm("SHA1-RSA"))}},
		{"sha1-signature", []change{issuer(algorithm("ECDSA-SHA1"))}},
		{"", []change{leaf(algorithm("ECDSA-SHA256"))}},
		{"validity-too-long", []change{days(-100, 299)}},
		{"", []change{days(-100, 298)}},
		{"", []change{days(-100, 299), status(judgement.Trusted, "operator")}},
		{"", []change{days(-100, 299), status(judgement.Expired, "mozilla")}},
		{"leaf-is-authority", []change{leaf(func(c *cert.Certificate) { c.IsCA = true })}},
		{"", []change{leaf(func(c *cert.Certificate) { c.IsCA, c.SelfSigned = true, true })}},
		{"key-usage", []change{leaf(func(c *cert.Certificate) { c.ExtendedKeyUsage = []string{"clientAuth", "emailProtection"} })}},
		{"key-usage", []change{leaf(func(c *cert.Certificate) { c.KeyUsage = usage("keyCertSign") })}},
		{"", []change{leaf(func(c *cert.Certificate) { c.ExtendedKeyUsage = []string{"clientAuth", "serverAuth"} })}},
		{"", []change{leaf(func(c *cert.Certificate) { c.ExtendedKeyUsage, c.KeyUsage = nil, 0 })}},
		{"", []change{leaf(func(c *cert.Certificate) { c.KeyUsage = usage("keyEncipherment") | usage("cRLSign") })}},
		{"old-version", []change{version(0x0002)}}, {"old-version", []change{version(0x0300)}}, {"old-version", []change{version(0x0302)}},
		{"old-version", []change{version(0xfeff)}}, {"", []change{version(0xfefd)}}, {"", []change{version(0x0304)}},
		{"", []change{version(0x0101)}}, // TLCP 1.1, which is another protocol
		{"no-encryption", []change{suite(0x0002)}}, {"no-encryption", []change{suite(0x006c)}}, {"no-encryption weak-cipher", []change{suite(0x0062)}},
		{"no-encryption weak-cipher", []change{suite(0x0003)}}, {"no-encryption weak-cipher", []change{suite(0xc016)}},
		{"weak-cipher", []change{suite(0xc011)}}, {"weak-cipher", []change{suite(0x0009)}}, {"weak-cipher", []change{suite(0x000a)}},
		{"", []change{suite(0x1301)}}, {"", []change{suite(0x002f)}},
		{"revoked", []change{ocsp("revoked")}}, {"", []change{ocsp("good")}}, {"", []change{ocsp("invalid")}},
	} {
		h := sound()
		for _, f := range c.changes {
			f(&h)
		}
		var got []string
		for _, m := range h.match(t, s) {
			name := strings.TrimSuffix(m.Rule.File[strings.LastIndexByte(m.Rule.File, '/')+1:], ".yml")
			got, seen[name] = append(got, name), true
			if text := m.Reason + strings.Join(m.Reasons, " "); strings.Contains(text, "(none)") || strings.Contains(text, "{") || m.Rule.Verdict != "hygiene" {
				t.Errorf("%+v", m)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	for _, r := range s.Rules() {
		if name := strings.TrimSuffix(r.File[strings.LastIndexByte(r.File, '/')+1:], ".yml"); !seen[name] {
			t.Errorf("%s holds for nothing here", name)
		}
	}
	if n := len(s.index.always); n != 0 {
		t.Errorf("%d rules without an anchor", n)
	}
}
