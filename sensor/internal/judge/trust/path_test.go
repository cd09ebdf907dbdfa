package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oddcert/oddcert/rules/judgement"
)

// The chain of a real server by Let's Encrypt, in a public capture of 2023: its last
// certificate is ISRG Root X1 as an older root had signed it, which was over by then.
func TestCrossSigned(t *testing.T) {
	b, err := os.ReadFile("testdata/proton.me-2023.pem")
	if err != nil {
		t.Fatal(err)
	}
	chain := readPEM(t, b)
	leaf, r3, cross := chain[0], chain[1], chain[2]
	then := time.Date(2023, 6, 15, 0, 0, 0, 0, time.UTC)
	for _, chain := range [][][]byte{{leaf, r3, cross}, {leaf, cross, r3}, {leaf, r3}, {leaf, r3, r3, cross, leaf, cross}} {
		check(t, verify(t, builtin(), handshake(then, "proton.me", chain...)), judgement.Trusted, mozilla, `root "ISRG Root X1" of the store mozilla.`)
	}
	check(t, verify(t, builtin(), handshake(then, "proton.me", leaf, cross)), judgement.Incomplete, "", `The certificate of "R3"`)

	// Where the older root is in a store that is preferred, the path to it counts, but
	// only while it is good.
	var old []byte
	for _, line := range strings.Split(formerRoots, "\n") {
		_, encoded, _ := strings.Cut(line, " ")
		der, err := base64.StdEncoding.DecodeString(encoded)
		if c, err2 := x509.ParseCertificate(der); err == nil && err2 == nil && c.Subject.CommonName == "DST Root CA X3" {
			old = der
		}
	}
	if old == nil {
		t.Fatal("DST Root CA X3 is not among the roots that Mozilla's list had")
	}
	stores, err := Load(fstest.MapFS{"p/roots/older.pem": {Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old})}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, verify(t, stores, handshake(then, "proton.me", leaf, r3, cross)), judgement.Trusted, mozilla)
}

// Removed roots count for captures from before that, and are named for later ones.
func TestFormerRoots(t *testing.T) {
	lines, read := 0, 0
	for line := range strings.Lines(formerRoots) {
		if line[0] != '#' {
			lines++
		}
	}
	for until := range former {
		read++
		if until.Year() < 2015 || until.Year() > 2100 {
			t.Errorf("removed %s", until)
		}
	}
	if lines != read || lines < 100 {
		t.Errorf("%d of %d lines can be read", read, lines)
	}
	for _, r := range builtin().index().roots {
		if !r.until.IsValid() || r.NotAfter.Unix() < r.until.Unix()+1 {
			continue
		}
		// Shown by itself, it is its own anchor.
		before, after := r.until.Time(), r.until.Time().Add(time.Second)
		if got := verify(t, builtin(), handshake(before, "", r.DER)); got.Store != mozilla || got.Status == judgement.UntrustedRoot {
			t.Errorf("%s: %+v", r.Subject.String, got)
		}
		check(t, verify(t, builtin(), handshake(after, "", r.DER)), judgement.UntrustedRoot, mozilla, "was removed from the store mozilla before the capture")
	}
}

// Random authorities that sign one another, with random flaws: trusted is what
// crypto/x509 trusts.
func TestRandomGraphs(t *testing.T) {
	runs := 400
	if testing.Short() {
		runs = 60
	}
	r := rand.New(rand.NewPCG(7, 11))
	one := func(n int) bool { return r.IntN(n) == 0 }
	flaw := func(c *x509.Certificate) {
		switch r.IntN(24) {
		case 0:
			c.NotAfter = noon.Add(-time.Hour)
		case 1:
			c.NotBefore = noon.Add(time.Hour)
		case 2:
			c.MaxPathLenZero = true
		case 3:
			c.MaxPathLen = 1
		case 4:
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		case 5:
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		case 6:
			c.PermittedDNSDomains = []string{[]string{"example", "a.example", "b.example", ".example"}[r.IntN(4)]}
		case 7:
			c.ExcludedDNSDomains = []string{[]string{"test", "a.example", "x.a.example"}[r.IntN(3)]}
		case 8:
			c.KeyUsage = x509.KeyUsageDigitalSignature
		case 9:
			_, n, _ := net.ParseCIDR([]string{"192.0.2.0/24", "198.51.100.0/24"}[r.IntN(2)])
			c.PermittedIPRanges = []*net.IPNet{n}
		case 10:
			_, n, _ := net.ParseCIDR("192.0.2.0/28")
			c.ExcludedIPRanges = []*net.IPNet{n}
		}
	}
	accepted, graphs := 0, 0
	for range runs {
		var cas []*authority
		var sent [][]byte
		for i := range 2 + r.IntN(4) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			cas = append(cas, issueFor(t, nil, fmt.Sprint("CA ", i), key, all(isCA, flaw)))
		}
		var roots []*authority
		for i, by := range cas {
			if one(2) {
				roots = append(roots, by)
			}
			if one(3) {
				sent = append(sent, by.Raw)
			}
			for j, of := range cas {
				if i != j && one(3) {
					sent = append(sent, issueFor(t, by, of.Subject.CommonName, of.key, all(isCA, flaw)).Raw)
				}
			}
		}
		leaf := issue(t, cas[r.IntN(len(cas))], "a.example", all(forHost("a.example", "*.a.example"), func(c *x509.Certificate) {
			if one(3) {
				c.IPAddresses = []net.IP{net.ParseIP("192.0.2.7")}
			}
			if one(8) {
				flaw(c)
			}
		}))
		r.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
		if one(8) {
			for i := range sent {
				if one(4) {
					sent[i] = bytes.Clone(sent[i])
					sent[i][len(sent[i])-1-r.IntN(8)] ^= 1 << r.IntN(8)
				}
			}
		}
		chain := append([][]byte{leaf.Raw}, sent...)
		name := []string{"a.example", "x.a.example", "b.example", ""}[r.IntN(4)]
		var theirs []*x509.Certificate
		for _, a := range roots {
			theirs = append(theirs, a.Certificate)
		}
		err := standard(t, chain, name, noon, theirs...)
		got := verify(t, trusting(t, append(roots, issue(t, nil, "Unrelated", isCA))...), handshake(noon, name, chain...))
		graphs++
		if (err == nil) != (got.Status == judgement.Trusted) {
			t.Errorf("%s %q of %d roots, %d sent, and crypto/x509 says %v", got.Status, got.Reasons, len(roots), len(sent), err)
		}
		if err == nil {
			accepted++
		}
	}
	t.Logf("%d graphs, %d of them trusted", graphs, accepted)
	if accepted == 0 || accepted == graphs {
		t.Error("the graphs are all alike")
	}
}
