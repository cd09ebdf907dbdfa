package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Chains that are made to cost much are given up, and say so.
func TestCost(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	stores := trusting(t, root)
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	chains := map[string]func() [][]byte{
		// 255 authorities of one name and key identifier, none of which has signed.
		"one name": func() (chain [][]byte) {
			same := all(isCA, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} })
			chain = [][]byte{issue(t, issue(t, nil, "CA", same), "a.example", forHost("a.example")).Raw}
			for range 255 {
				chain = append(chain, issue(t, nil, "CA", same).Raw)
			}
			return chain
		},
		// Each of six authorities has signed each.
		"all for all": func() (chain [][]byte) {
			var cas []*authority
			for i := range 6 {
				cas = append(cas, issue(t, nil, fmt.Sprint("CA ", i), isCA))
			}
			for _, a := range cas {
				for _, b := range cas {
					if a != b {
						chain = append(chain, issueFor(t, a, b.Subject.CommonName, b.key, isCA).Raw)
					}
				}
			}
			return append([][]byte{issue(t, cas[0], "a.example", forHost("a.example")).Raw}, chain...)
		},
		// Two ways at each of many levels.
		"ladder": func() (chain [][]byte) {
			a, b := issue(t, nil, "Level 0 A", isCA), issue(t, nil, "Level 0 B", isCA)
			for i := range 10 {
				down := issue(t, a, fmt.Sprint("Level ", i+1), isCA)
				chain = append(chain, down.Raw)
				again := issueFor(t, b, fmt.Sprint("Level ", i+1), down.key, isCA)
				chain = append(chain, again.Raw)
				a, b = down, again
			}
			return append([][]byte{issue(t, a, "a.example", forHost("a.example")).Raw}, chain...)
		},
		"long": func() (chain [][]byte) {
			by := root
			for i := range 255 {
				by = issue(t, by, fmt.Sprint("CA ", i), isCA)
				chain = append([][]byte{by.Raw}, chain...)
			}
			return append([][]byte{issue(t, by, "a.example", forHost("a.example")).Raw}, chain...)
		},
		"slow keys": func() (chain [][]byte) {
			by := root
			for i := range 8 {
				by = issueFor(t, by, fmt.Sprint("CA ", i), curve(elliptic.P521()), isCA)
				chain = append([][]byte{by.Raw}, chain...)
			}
			return append([][]byte{issue(t, by, "a.example", forHost("a.example")).Raw}, chain...)
		},
		"name constraints": func() [][]byte {
			ca := issue(t, root, "CA", all(isCA, func(c *x509.Certificate) {
				for i := range 1000 {
					c.ExcludedDNSDomains = append(c.ExcludedDNSDomains, fmt.Sprintf("x%d.test", i))
				}
			}))
			return [][]byte{issue(t, ca, "a.example", func(c *x509.Certificate) {
				for i := range 2000 {
					c.DNSNames = append(c.DNSNames, fmt.Sprintf("a%d.example", i))
				}
			}).Raw, ca.Raw}
		},
	}
	for name, make := range chains {
		chain := make()
		v := stores.NewVerifier(1 << 20)
		h := handshake(noon, "", chain...)
		start := time.Now()
		got, pending := v.Verify(h, NewSeen(1))
		t.Logf("%s: %v, %d signatures, %d steps", name, time.Since(start), v.checks, maxSteps)
		if pending || got.Status != judgement.TrustUnknown {
			t.Errorf("%s: %v, %+v", name, pending, got)
		}
		if v.checks > maxChecks || len(got.Reasons) > maxReasons {
			t.Errorf("%s: %d signatures were checked, %d reasons", name, v.checks, len(got.Reasons))
		}
		for _, r := range got.Reasons {
			if len(r) > 600 {
				t.Errorf("%s: a reason of %d bytes", name, len(r))
			}
		}
	}
	// Real chains are far from that.
	by := root
	var chain [][]byte
	for i := range 2 {
		by = issueFor(t, by, fmt.Sprint("CA ", i), curve(elliptic.P521()), isCA)
		chain = append([][]byte{by.Raw}, chain...)
	}
	chain = append([][]byte{issue(t, by, "a.example", forHost("a.example")).Raw}, chain...)
	check(t, verify(t, stores, handshake(noon, "a.example", chain...)), judgement.Trusted, operator)
}

// mutate changes the chain as the bytes of b say: which certificate, where, and to what.
func mutate(chain [][]byte, b []byte) [][]byte {
	changed := make([][]byte, len(chain))
	for i := range chain {
		changed[i] = append([]byte(nil), chain[i]...)
	}
	for ; len(b) >= 4; b = b[4:] {
		c := changed[int(b[0]&0x3f)%len(changed)]
		if len(c) == 0 {
			continue
		}
		at := (int(b[1])<<8 | int(b[2])) % len(c)
		switch b[0] >> 6 {
		case 0, 1:
			c[at] ^= b[3]
		case 2:
			changed[int(b[0]&0x3f)%len(changed)] = append(c[:at:at], c[min(len(c), at+int(b[3])):]...)
		case 3:
			changed[int(b[0]&0x3f)%len(changed)] = append(append(append([]byte(nil), c[:at]...), b[3]), c[at:]...)
		}
	}
	return changed
}

// However a chain is changed: if its leaf is another one, it is not trusted, and no
// judgement takes more signatures than it may.
func FuzzVerify(f *testing.F) {
	root := issue(f, nil, "Root", isCA)
	ca := issue(f, root, "CA", all(isCA, func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.ExcludedDNSDomains = []string{"example"}, []string{"bad.example"}
	}))
	leaf := issue(f, ca, "a.example", forHost("a.example"))
	stores := trusting(f, root)
	then := time.Date(2016, 8, 14, 0, 0, 0, 0, time.UTC)
	microsoft := [][]byte{genuine(f), fromPack(f, "intermediates/microsoft.pem")[0]}
	own := [][]byte{leaf.Raw, ca.Raw, root.Raw}
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{1, 2, 0, 1, 0, 0, 9, 255})
	f.Add([]byte{0x80, 0, 4, 2})
	f.Add([]byte{0xc0, 255, 255, 0})
	f.Add([]byte{2, 0, 40, 1, 0xc1, 0, 5, 7})
	for i := range 250 {
		f.Add([]byte{0, byte(i >> 2), byte(i << 6), 1})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, original := range [][][]byte{microsoft, own} {
			at, name := noon, "a.example"
			if &original[0] == &microsoft[0] {
				at, name = then, "fe2.update.microsoft.com"
			}
			chain := mutate(original, b)
			seen := NewSeen(1)
			seen.Add(handshake(at, name, original...))
			v := stores.NewVerifier(1 << 20)
			for _, s := range []*Seen{nil, seen} {
				h := handshake(at, name, chain...)
				got, pending := v.Verify(h, s)
				if pending != (got == nil) || pending && s != nil {
					t.Fatalf("%+v, pending is %v", got, pending)
				}
				if v.checks > 3*maxChecks {
					t.Fatalf("%d signatures", v.checks)
				}
				if got == nil {
					continue
				}
				if changed := string(chain[0]) != string(original[0]); changed && got.Status != judgement.BadSignature && got.Anchor != (judgement.Anchor{}) && got.Status >= judgement.Weak {
					t.Fatalf("a leaf that was changed is %s\n%x", got.Status, chain[0])
				}
				if len(got.Reasons) == 0 || len(got.Reasons) > maxReasons {
					t.Fatalf("%d reasons", len(got.Reasons))
				}
				if (got.Store == "") != (got.Anchor == judgement.Anchor{}) || got.Status >= judgement.Expired && got.Store == "" {
					t.Fatalf("%+v", got)
				}
				again, _ := stores.NewVerifier(1<<20).Verify(&event.Handshake{Chain: h.Chain, Certificate: h.Certificate, ClientHello: h.ClientHello}, s)
				if again == nil || again.Status != got.Status {
					t.Fatalf("%+v, and asked again %+v", got, again)
				}
			}
		}
	})
}
