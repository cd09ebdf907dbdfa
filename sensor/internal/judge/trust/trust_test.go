package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
)

// builtin are the stores that are part of the program.
var builtin = sync.OnceValue(func() *Stores {
	s, err := Load(rules.PackFiles(), nil)
	if err != nil {
		panic(err)
	}
	return s
})

// noon is when chains of tests are judged.
var noon = time.Date(2020, 6, 15, 12, 0, 0, 0, time.UTC)

// handshake is one that shows a chain.
func handshake(at time.Time, name string, chain ...[]byte) *event.Handshake {
	h := &event.Handshake{Certificate: event.Moment{Time: at.UnixNano(), Frame: 1}, Outcome: event.Extracted}
	if name != "" {
		h.ClientHello = &event.ClientHello{ServerName: name}
	}
	for _, der := range chain {
		h.Chain = append(h.Chain, event.ChainEntry{Certificate: cert.Parse(der)})
	}
	return h
}

// authority is a certificate and its key.
type authority struct {
	*x509.Certificate
	key crypto.Signer
}

var serials int64

// issue makes a certificate by the authority, or one that is signed by itself. It is
// valid for the years 2019 to 2021 and for servers, where change does not say
// otherwise.
func issue(t testing.TB, by *authority, name string, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, by, name, key, change)
}

func issueFor(t testing.TB, by *authority, name string, key crypto.Signer, change func(*x509.Certificate)) *authority {
	t.Helper()
	serials++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serials),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2021, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	read, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{read, key}
}

// isCA makes the certificate an authority's.
func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
}

// forHost makes it a server's.
func forHost(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames = names
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature
	}
}

// all makes several changes.
func all(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, f := range changes {
			f(c)
		}
	}
}

// trusting are the built-in stores and an operator's with some roots.
func trusting(t testing.TB, roots ...*authority) *Stores {
	t.Helper()
	var b bytes.Buffer
	for _, r := range roots {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(rules.PackFiles(), []string{file})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verify judges with everything that was seen before being nothing.
func verify(t testing.TB, s *Stores, h *event.Handshake) *judgement.Trust {
	t.Helper()
	got, pending := s.NewVerifier(1<<20).Verify(h, NewSeen(1))
	if got == nil || pending {
		t.Fatalf("Verify = %v, %v", got, pending)
	}
	return got
}

func check(t testing.TB, got *judgement.Trust, status judgement.TrustStatus, store string, reasons ...string) {
	t.Helper()
	if got.Status != status || got.Store != store {
		t.Errorf("%s by store %q, want %s by %q\n%s", got.Status, got.Store, status, store, strings.Join(got.Reasons, "\n"))
	}
	for _, r := range reasons {
		if !strings.Contains(strings.Join(got.Reasons, "\n"), r) {
			t.Errorf("no reason says %q:\n%s", r, strings.Join(got.Reasons, "\n"))
		}
	}
}

// readPEM reads the certificates of a file.
func readPEM(t testing.TB, b []byte) (ders [][]byte) {
	t.Helper()
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return ders
		}
		ders = append(ders, block.Bytes)
	}
}

func fromPack(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../../rules/packs/microsoft-update", name))
	if err != nil {
		t.Fatal(err)
	}
	return readPEM(t, b)
}

func genuine(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/fe2.update.microsoft.com-2016.pem")
	if err != nil {
		t.Fatal(err)
	}
	return readPEM(t, b)[0]
}

// The pinned certificates are those whose hashes Microsoft and others have published.
func TestPins(t *testing.T) {
	want := map[string]string{
		"885DE64C340E3EA70658F01E1145F957FCDA27AABEEA1AB9FAA9FDB0102D4077": "root",
		"DF545BF919A2439C36983B54CDFC903DFA4F37D3996D8D84B4C31EEC6F3C163E": "root",
		"847DF6A78497943F27FC72EB93F9A637320A02B561D0A91B09E87A7807ED7C61": "root",
		"CACA93B9D23D2B6FA76E8B8471931E0DF3EC6F63AF3CDBB936C41954A1872326": "root",
		"6139E2DF97DC93BF7E90A303F75B3968FD06C57316B45E94DCFF773707CF2754": "intermediate",
	}
	for _, s := range builtin().packs {
		if s.name != "microsoft" {
			continue
		}
		for kind, list := range map[string][]*cert.Certificate{"root": s.roots, "intermediate": s.intermediates} {
			for _, c := range list {
				hash := strings.ToUpper(hex.EncodeToString(c.SHA256[:]))
				if want[hash] != kind {
					t.Errorf("%s %s: %s", kind, hash, c.Subject.String)
				}
				delete(want, hash)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// A genuine server of Windows Update, in 2016 and today.
func TestGenuine(t *testing.T) {
	leaf, intermediate := genuine(t), fromPack(t, "intermediates/microsoft.pem")[0]
	then := time.Date(2016, 8, 14, 12, 0, 0, 0, time.UTC)
	got := verify(t, builtin(), handshake(then, "fe2.update.microsoft.com", leaf, intermediate))
	check(t, got, judgement.Trusted, "microsoft", `The chain ends in the root "Microsoft Root Certificate Authority 2011" of the store microsoft.`)
	if len(got.Reasons) != 1 || !strings.HasSuffix(got.Anchor.Subject, "CN=Microsoft Root Certificate Authority 2011") || got.Anchor.SHA256[0] != 0x84 {
		t.Errorf("%+v", got)
	}
	got, pending := builtin().NewVerifier(1<<20).Verify(handshake(then, "fe2.update.microsoft.com", leaf), nil)
	if pending {
		t.Fatal("pending, though the store has the intermediate")
	}
	check(t, got, judgement.Trusted, "microsoft", `did not send the certificate of "Microsoft Update Secure Server CA 2.1": the store microsoft has it.`)
	check(t, verify(t, builtin(), handshake(then, "www.update.microsoft.com", leaf)), judgement.NameMismatch, "microsoft",
		`asked for "www.update.microsoft.com", and the leaf is for "fe2.update.microsoft.com"`)
	// The leaf ended on 2016-08-26 at 20:29:16; the intermediate on 2027-06-21.
	late := time.Date(2019, 8, 27, 0, 0, 0, 0, time.UTC)
	check(t, verify(t, builtin(), handshake(late, "", leaf, intermediate)), judgement.Expired, "microsoft", "The leaf ended 2016-08-26, 1,095 days before the capture.")
}

// Certificates under the names of Microsoft's authorities that these have not signed.
func TestLookAlikes(t *testing.T) {
	then := time.Date(2016, 8, 14, 12, 0, 0, 0, time.UTC)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	microsoft := func(name string) func(*x509.Certificate) {
		return all(isCA, func(c *x509.Certificate) {
			c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
				{Type: []int{2, 5, 4, 6}, Value: "US"}, {Type: []int{2, 5, 4, 8}, Value: "Washington"}, {Type: []int{2, 5, 4, 7}, Value: "Redmond"},
				{Type: []int{2, 5, 4, 10}, Value: "Microsoft Corporation"}, {Type: []int{2, 5, 4, 3}, Value: name},
			}}
		})
	}
	for _, name := range []string{"Microsoft Update Secure Server CA 1", "Microsoft Update Secure Server CA 2.1", "Microsoft Root Certificate Authority 2011"} {
		ca := issueFor(t, nil, "", small, microsoft(name))
		leaf := issue(t, ca, "www.update.microsoft.com", forHost("www.update.microsoft.com"))
		want := `The signature of the leaf has 2,048 bits, and the key of "` + name + `"`
		check(t, verify(t, builtin(), handshake(noon, "www.update.microsoft.com", leaf.Raw)), judgement.BadSignature, "", want, "has 4,096")
		// Its own authority changes nothing.
		check(t, verify(t, builtin(), handshake(noon, "www.update.microsoft.com", leaf.Raw, ca.Raw)), judgement.BadSignature, "", want, "has 4,096")

		curve := issue(t, nil, "", microsoft(name))
		leaf = issue(t, curve, "www.update.microsoft.com", forHost("www.update.microsoft.com"))
		check(t, verify(t, builtin(), handshake(noon, "www.update.microsoft.com", leaf.Raw, curve.Raw)), judgement.BadSignature, "")
	}
	// Of the right length, but of other bytes.
	for i, at := range map[string]int{"signed": 300, "signature": len(genuine(t)) - 10} {
		forged := bytes.Clone(genuine(t))
		forged[at] ^= 1
		got := verify(t, builtin(), handshake(then, "", forged, fromPack(t, "intermediates/microsoft.pem")[0]))
		check(t, got, judgement.BadSignature, "", `names "Microsoft Update Secure Server CA 2.1" as its issuer, and is not signed with the key of that name`)
		if _, pending := builtin().NewVerifier(1<<20).Verify(handshake(then, "", forged), nil); pending {
			t.Errorf("%s: pending", i)
		}
	}
	// Another authority that happens to have the name of one of Mozilla's is another one.
	for root := range builtin().index().roots {
		r := builtin().index().roots[root]
		if r.store.name != mozilla || r.Subject.String == "" || len(r.SubjectKeyID) == 0 {
			continue
		}
		ca := issue(t, nil, "", all(isCA, func(c *x509.Certificate) { c.RawSubject = r.parts.Subject }))
		leaf := issue(t, ca, "a.example", forHost("a.example"))
		check(t, verify(t, builtin(), handshake(noon, "a.example", leaf.Raw, ca.Raw)), judgement.UntrustedRoot, "")
		check(t, verify(t, builtin(), handshake(noon, "a.example", leaf.Raw)), judgement.Incomplete, "")
		break
	}
}

// What is wrong with a chain, each in a chain of its own, and what crypto/x509 says of
// it.
func TestStatuses(t *testing.T) {
	root := issue(t, nil, "Root", isCA)
	other := issue(t, nil, "Other Root", isCA)
	ca := issue(t, root, "CA", isCA)
	leaf := issue(t, ca, "a.example", forHost("a.example", "*.b.example"))
	stores := trusting(t, root)
	years := func(from, to int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(to, 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	// under issues a leaf by an authority with something changed.
	under := func(change func(*x509.Certificate), leaf func(*x509.Certificate)) [][]byte {
		ca := issue(t, root, "CA", all(isCA, change))
		return [][]byte{issue(t, ca, "a.example", all(forHost("a.example"), leaf)).Raw, ca.Raw}
	}
	none := func(*x509.Certificate) {}
	top := issue(t, root, "Top", all(isCA, func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	deep := issue(t, top, "Below", isCA)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(der []byte) []byte {
		der = bytes.Clone(der)
		der[len(der)-5] ^= 1
		return der
	}
	_, network, _ := net.ParseCIDR("192.0.2.0/24")
	addr := func(a string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(a)} }
	}
	self := issue(t, nil, "a.example", forHost("a.example"))
	policy := pkix.Extension{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
	looped := func() [][]byte {
		a, b := issue(t, nil, "Loop A", isCA), issue(t, nil, "Loop B", isCA)
		ab, ba := issueFor(t, a, "Loop B", b.key, isCA), issueFor(t, b, "Loop A", a.key, isCA)
		return [][]byte{issue(t, b, "a.example", forHost("a.example")).Raw, ab.Raw, ba.Raw}
	}
	tests := []struct {
		name   string
		chain  [][]byte
		asked  string
		status judgement.TrustStatus
		anchor bool
		reason string
	}{
		{"good", [][]byte{leaf.Raw, ca.Raw}, "a.example", judgement.Trusted, true, `root "Root" of the store operator`},
		{"good with root", [][]byte{leaf.Raw, ca.Raw, root.Raw}, "A.EXAMPLE.", judgement.Trusted, true, ""},
		{"wrong order, and others", [][]byte{leaf.Raw, root.Raw, other.Raw, ca.Raw}, "x.b.example", judgement.Trusted, true, ""},
		{"no name", [][]byte{leaf.Raw, ca.Raw}, "", judgement.Trusted, true, "asked for no name"},
		{"wildcard of two labels", [][]byte{leaf.Raw, ca.Raw}, "x.y.b.example", judgement.NameMismatch, true, `asked for "x.y.b.example", and the leaf is for "a.example", "*.b.example".`},
		{"wildcard of none", [][]byte{leaf.Raw, ca.Raw}, "b.example", judgement.NameMismatch, true, ""},
		{"address", under(none, addr("192.0.2.7")), "192.0.2.7", judgement.Trusted, true, ""},
		{"other address", under(none, addr("192.0.2.7")), "192.0.2.8", judgement.NameMismatch, true, ""},
		{"missing", [][]byte{leaf.Raw}, "a.example", judgement.Incomplete, false, `The certificate of "CA", which is named as the issuer of the leaf, was not sent`},
		{"untrusted", [][]byte{issue(t, other, "a.example", forHost("a.example")).Raw, other.Raw}, "a.example", judgement.UntrustedRoot, false, `root "Other Root", which is in no store`},
		{"self-signed", [][]byte{self.Raw}, "a.example", judgement.SelfSigned, false, "signed with its own key"},
		{"self-signed, broken", [][]byte{flip(self.Raw)}, "a.example", judgement.BadSignature, false, "names itself as its issuer"},
		{"broken leaf", [][]byte{flip(leaf.Raw), ca.Raw}, "a.example", judgement.BadSignature, false, `The leaf names "CA" as its issuer, and is not signed`},
		{"broken authority", [][]byte{leaf.Raw, flip(ca.Raw)}, "a.example", judgement.BadSignature, false, `The certificate of "CA" names "Root" as its issuer`},
		{"expired leaf", under(none, years(2018, 2020)), "a.example", judgement.Expired, true, "The leaf ended 2020-01-01, 166 days before the capture."},
		{"early leaf", under(none, years(2021, 2022)), "a.example", judgement.NotYetValid, true, "The leaf begins 2021-01-01, 199 days after the capture."},
		{"expired authority", under(years(2018, 2020), none), "a.example", judgement.Expired, true, `The certificate of "CA" ended 2020-01-01`},
		{"expired, and for others", under(none, years(2018, 2020)), "c.example", judgement.Expired, true, `asked for "c.example"`},
		{"no authority", [][]byte{issue(t, leaf, "c.example", forHost("c.example")).Raw, leaf.Raw, ca.Raw}, "c.example", judgement.Invalid, true, "is no CA"},
		{"key not for certificates", under(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, none), "a.example", judgement.Invalid, true, "its key is not for that"},
		{"path length", [][]byte{issue(t, deep, "a.example", forHost("a.example")).Raw, deep.Raw, top.Raw}, "a.example", judgement.Invalid, true, "may have 0 authorities below it, and has 1"},
		{"clients", under(none, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "a.example", judgement.Invalid, true, "The leaf is for other uses than servers: clientAuth."},
		{"authority for clients", under(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, none), "a.example", judgement.Invalid, true, "for other uses"},
		{"critical", under(none, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{policy} }), "a.example", judgement.TrustUnknown, true, "critical extension that is not understood: 1.2.3.4."},
		{"permitted", under(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }, none), "a.example", judgement.Trusted, true, ""},
		{"not permitted", under(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"b.example"} }, none), "a.example", judgement.Invalid, true, `not allowed to issue for "a.example", which the leaf has`},
		{"excluded", under(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"a.example"} }, none), "a.example", judgement.Invalid, true, "not allowed"},
		{"excluded by a star", under(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"a.example"} }, func(c *x509.Certificate) { c.DNSNames = []string{"*.example"} }), "a.example", judgement.Invalid, true, "not allowed"},
		{"permitted address", under(func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{network} }, addr("192.0.2.7")), "192.0.2.7", judgement.Trusted, true, ""},
		{"not permitted address", under(func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{network} }, addr("198.51.100.7")), "198.51.100.7", judgement.Invalid, true, "not allowed"},
		{"loop", looped(), "a.example", judgement.Incomplete, false, "name one another as issuers"},
		{"weak key", [][]byte{issueFor(t, ca, "a.example", short, forHost("a.example")).Raw, ca.Raw}, "a.example", judgement.Weak, true, "The key of the leaf is weak: RSA of 1,024 bits."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := verify(t, stores, handshake(noon, test.asked, test.chain...))
			store := ""
			if test.anchor {
				store = operator
			}
			check(t, got, test.status, store, test.reason)
			if (got.Anchor != judgement.Anchor{}) != test.anchor {
				t.Errorf("anchor is %+v", got.Anchor)
			}
			theirs := standard(t, test.chain, test.asked, noon, root.Certificate)
			if ours := got.Status == judgement.Trusted || got.Status == judgement.Weak; ours != (theirs == nil) {
				t.Errorf("%s, and crypto/x509 says %v", got.Status, theirs)
			}
		})
	}
}

// standard is what crypto/x509 says of a chain.
func standard(t testing.TB, chain [][]byte, name string, at time.Time, roots ...*x509.Certificate) error {
	t.Helper()
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at, DNSName: name}
	for _, r := range roots {
		o.Roots.AddCert(r)
	}
	if net.ParseIP(name) != nil {
		o.DNSName = "[" + name + "]"
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		o.Intermediates.AddCert(c)
	}
	_, err = leaf.Verify(o)
	return err
}
