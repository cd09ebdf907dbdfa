package rules

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// key makes an RSA key; those of a size are made once.
func key(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	if keys[bits] == nil {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys[bits] = k
	}
	return keys[bits]
}

var keys = map[int]*rsa.PrivateKey{}

type made struct {
	subject, issuer pkix.Name
	names           []string
	signedWith      int // bits of the issuer's key
	keyBits         int // 2048 unless set
	selfSigned      bool
	md5             bool // the signature's algorithm becomes MD5 with RSA
}

// make makes a real certificate with crypto/x509, and reads it back with
// crypto/x509 into what the parser gives.
func (c made) make(t testing.TB) event.ChainEntry {
	t.Helper()
	if c.keyBits == 0 {
		c.keyBits = 2048
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7038), Subject: c.subject, DNSNames: c.names,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	parent := &x509.Certificate{Subject: c.issuer}
	if c.selfSigned {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key(t, c.keyBits).PublicKey, key(t, c.signedWith))
	if err != nil {
		t.Fatal(err)
	}
	if c.md5 {
		// sha256WithRSAEncryption and md5WithRSAEncryption differ in one byte.
		from, to := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4}
		der = bytes.ReplaceAll(der, from, to)
	}
	x, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return entryOf(x)
}

func entryOf(x *x509.Certificate) event.ChainEntry {
	name := func(n pkix.Name) cert.Name {
		out := cert.Name{Organization: n.Organization, OrganizationalUnit: n.OrganizationalUnit, Country: n.Country}
		var parts []string
		for _, a := range n.Names {
			kind := map[string]string{"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.10": "O", "2.5.4.11": "OU"}[a.Type.String()]
			parts = append(parts, fmt.Sprintf("%s=%v", kind, a.Value))
			if kind == "CN" {
				out.CommonName = append(out.CommonName, fmt.Sprint(a.Value))
			}
		}
		out.String = strings.Join(parts, ", ")
		return out
	}
	return event.ChainEntry{Certificate: &cert.Certificate{
		DER: x.Raw, MD5: md5.Sum(x.Raw), SHA1: sha1.Sum(x.Raw), SHA256: sha256.Sum256(x.Raw),
		SPKISHA256: sha256.Sum256(x.RawSubjectPublicKeyInfo), TBSSHA256: sha256.Sum256(x.RawTBSCertificate),
		Version: x.Version, Serial: fmt.Sprintf("%X", x.SerialNumber), SignatureAlgorithm: x.SignatureAlgorithm.String(), SignatureBits: 8 * len(x.Signature),
		Subject: name(x.Subject), Issuer: name(x.Issuer), NotBefore: cert.DateOf(x.NotBefore), NotAfter: cert.DateOf(x.NotAfter),
		PublicKeyAlgorithm: x.PublicKeyAlgorithm.String(), PublicKeySize: x.PublicKey.(*rsa.PublicKey).N.BitLen(),
		DNSNames: x.DNSNames, SelfSigned: bytes.Equal(x.RawIssuer, x.RawSubject),
	}}
}

// weakKey gives a certificate the size of a key that crypto/rsa would not
// make: its SubjectPublicKeyInfo is of a made-up modulus.
func weakKey(t testing.TB, c made, bits int) event.ChainEntry {
	t.Helper()
	e := c.make(t)
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	inner, err := asn1.Marshal(struct {
		N *big.Int
		E int
	}{n, 65537})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKCS1PublicKey(inner)
	if err != nil {
		t.Fatal(err)
	}
	copied := *e.Certificate
	copied.PublicKeySize = pub.N.BitLen()
	return event.ChainEntry{Certificate: &copied}
}

func named(cn string, organization ...string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: organization}
}

func handshake(chain ...event.ChainEntry) *event.Handshake {
	h := ordinary()
	h.Chain = chain
	return h
}

func hexTo(dst []byte, s string) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) {
		panic(s)
	}
	copy(dst, b)
}

// divd is a handshake with the certificate of DIVD-2022-00013, as far as it is
// published.
func divd() *event.Handshake {
	c := &cert.Certificate{
		SignatureAlgorithm: "SHA1-RSA", SignatureBits: 2048, PublicKeyAlgorithm: "RSA", PublicKeySize: 2048, Version: 3,
		Serial:  "330000001CB679B5BA072F73F300000000001C",
		Subject: cert.Name{String: "C=US, ST=Washington, L=Redmond, O=Microsoft, OU=DSP, CN=www.update.microsoft.com", CommonName: []string{"www.update.microsoft.com"}, Organization: []string{"Microsoft"}},
		Issuer:  cert.Name{String: "C=US, ST=Washington, L=Redmond, O=Microsoft Corporation, CN=Microsoft Update Secure Server CA 1", CommonName: []string{"Microsoft Update Secure Server CA 1"}, Organization: []string{"Microsoft Corporation"}},
	}
	hexTo(c.SHA256[:], "1073570F79136511BA45B44C923A55C69B97E91D3AAA2E06E5E657129CA809FF")
	hexTo(c.SHA1[:], "D1880F51C1019172A1A46E69F4337FFE3EC4F039")
	hexTo(c.MD5[:], "1D33D4E6057C2D739072EF9B89169EE7")
	hexTo(c.SPKISHA256[:], "0C590250B960421F0C2504D1940A60C9EAACE45E9AC395A362932BA5B864C642")
	return handshake(event.ChainEntry{Certificate: c})
}

const (
	ruleDIVD      = "divd-2022-00013"
	ruleName      = "update-name-unknown-issuer"
	ruleLength    = "update-issuer-signature-length"
	ruleFlame     = "flame-names"
	ruleLicensing = "revoked-licensing-ca"
	ruleWeak      = "weak-microsoft-certificate"
	ruleDigiNotar = "diginotar-microsoft-name"
	ruleKnown     = "update-name-known-issuer"
	ruleUnlogged  = "publicly-trusted-not-logged"
	ruleShared    = "shared-certificate"
)

func TestPack(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.Warnings() {
		t.Error(w)
	}
	corporation := "Microsoft Corporation"
	ca1 := named("Microsoft Update Secure Server CA 1", corporation)
	ca2 := named("Microsoft Update Secure Server CA 2.1", corporation)
	www := named("www.update.microsoft.com", "Microsoft")
	edit := func(h *event.Handshake, f func(c *cert.Certificate)) *event.Handshake {
		f(h.Chain[0].Certificate)
		return h
	}
	truncated := func(h *event.Handshake) *event.Handshake {
		c := h.Chain[0].Certificate
		*c = cert.Certificate{Subject: c.Subject, Issuer: c.Issuer}
		h.Chain[0].Truncated = true
		return h
	}
	good := made{subject: named("www.example.net"), issuer: named("Example CA"), names: []string{"www.example.net"}, signedWith: 2048}.make(t)
	licensing := made{subject: named("Microsoft Enforced Licensing Intermediate PCA", corporation), issuer: named("Microsoft Root Authority"), signedWith: 2048}.make(t)
	oldRoot := made{subject: named("Microsoft Root Authority", corporation), issuer: named("Microsoft Root Authority", corporation), selfSigned: true, signedWith: 2048, md5: true}.make(t)
	digiNotar := made{subject: named("DigiNotar Public CA 2025", "DigiNotar"), issuer: named("DigiNotar Root CA", "DigiNotar"), signedWith: 2048}.make(t)
	for name, c := range map[string]struct {
		h    *event.Handshake
		want string // the rules that match, in order
	}{
		"DIVD":                    {divd(), ruleDIVD},
		"DIVD behind another":     {handshake(good, divd().Chain[0]), ruleDIVD},
		"DIVD by SHA-256 alone":   {handshake(event.ChainEntry{Certificate: &cert.Certificate{SHA256: divd().Chain[0].SHA256}}), ruleDIVD},
		"DIVD by SHA-1 alone":     {handshake(event.ChainEntry{Certificate: &cert.Certificate{SHA1: divd().Chain[0].SHA1}}), ruleDIVD},
		"DIVD by its key alone":   {handshake(event.ChainEntry{Certificate: &cert.Certificate{SPKISHA256: divd().Chain[0].SPKISHA256}}), ruleDIVD},
		"DIVD truncated":          {truncated(divd()), ""},
		"one bit of DIVD changed": {edit(divd(), func(c *cert.Certificate) { c.SHA256[31]++; c.SHA1[19]++; c.SPKISHA256[31]++ }), ruleLength},
		"an ordinary server":      {handshake(good), ""},
		"no certificate":          {handshake(), ""},

		"name, self-signed":            {handshake(made{subject: www, selfSigned: true, signedWith: 2048}.make(t)), ruleName},
		"name, another issuer":         {handshake(made{subject: www, issuer: named("Corporate Proxy CA", "Corp"), signedWith: 2048}.make(t)), ruleName},
		"name in SAN":                  {handshake(made{subject: named("x"), issuer: named("Evil CA"), names: []string{"a.example", "www.UPDATE.microsoft.com"}, signedWith: 2048}.make(t)), ruleName},
		"name in a wildcard":           {handshake(made{subject: named("x"), issuer: named("Evil CA"), names: []string{"*.update.microsoft.com"}, signedWith: 2048}.make(t)), ruleName},
		"name behind the leaf":         {handshake(good, made{subject: www, issuer: named("Evil CA"), signedWith: 2048}.make(t)), ruleName},
		"self-signed as the CA":        {handshake(made{subject: ca2, names: []string{"www.update.microsoft.com"}, selfSigned: true, signedWith: 2048}.make(t)), ruleName},
		"forged, a genuine one behind": {handshake(made{subject: www, issuer: named("Evil CA"), signedWith: 2048}.make(t), made{subject: www, issuer: ca2, signedWith: 2048}.make(t)), ruleName},
		"a name like it":               {handshake(made{subject: named("www.update.microsoft.com.example.net"), issuer: named("Evil CA"), names: []string{"notupdate.microsoft.com", "xupdate.microsoft.com"}, signedWith: 2048}.make(t)), ""},
		"look-alike of CA 1":           {handshake(made{subject: www, issuer: ca1, signedWith: 2048}.make(t)), ruleLength},
		"genuine by CA 1":              {handshake(made{subject: www, issuer: ca1, signedWith: 4096}.make(t)), ""},
		"genuine by CA 2.1":            {handshake(made{subject: named("fe2.update.microsoft.com", "Microsoft"), issuer: ca2, signedWith: 2048}.make(t)), ""},
		"look-alike, another name":     {handshake(made{subject: named("a.example"), issuer: ca1, signedWith: 2048}.make(t)), ruleLength},

		"Flame name":                 {handshake(made{subject: named("v5.windowsupdate.microsoft.com"), issuer: named("Evil CA"), signedWith: 2048}.make(t)), ruleFlame},
		"Flame name, genuine":        {handshake(made{subject: named("v5stats.windowsupdate.microsoft.com"), issuer: ca2, signedWith: 2048}.make(t)), ""},
		"download name":              {handshake(made{subject: named("x"), names: []string{"download.windowsupdate.com"}, issuer: named("Evil CA"), signedWith: 2048}.make(t)), ruleFlame},
		"download name, self-signed": {handshake(made{subject: named("Microsoft X"), names: []string{"download.microsoft.com"}, selfSigned: true, signedWith: 2048}.make(t)), ruleFlame},
		"download name, public CA":   {handshake(made{subject: named("download.microsoft.com"), issuer: named("Microsoft Azure RSA TLS Issuing CA 03", corporation), signedWith: 2048}.make(t)), ""},

		"licensing CA by name":         {handshake(good, licensing), ruleLicensing},
		"licensing CA as issuer":       {handshake(made{subject: named("a.example"), issuer: named("Microsoft LSRA PA"), signedWith: 2048}.make(t)), ruleLicensing},
		"licensing CA by SHA-1":        {edit(handshake(made{subject: named("y"), issuer: named("z"), signedWith: 2048}.make(t)), func(c *cert.Certificate) { hexTo(c.SHA1[:], "FA6660A94AB45F6A88C0D7874D89A863D74DEE97") }), ruleLicensing},
		"another licensing name":       {handshake(made{subject: named("Microsoft Licensing"), issuer: named("Microsoft PA"), signedWith: 2048}.make(t)), ""},
		"MD5 under a Microsoft name":   {handshake(made{subject: named("MS", "Microsoft"), issuer: named("x"), signedWith: 2048, md5: true}.make(t)), ruleWeak},
		"MD5 by a Microsoft CA":        {handshake(made{subject: named("MS"), issuer: named("Microsoft PA", corporation), signedWith: 2048, md5: true}.make(t)), ruleWeak},
		"MD5 in SAN":                   {handshake(made{subject: named("a"), names: []string{"login.microsoft.com"}, issuer: named("x"), signedWith: 2048, md5: true}.make(t)), ruleWeak},
		"MD5 of an old root":           {handshake(good, oldRoot), ""},
		"MD5 of an old root, as leaf":  {handshake(oldRoot), ruleWeak},
		"MD5 under another name":       {handshake(made{subject: named("a.example", "Example"), issuer: named("x"), signedWith: 2048, md5: true}.make(t)), ""},
		"RSA-512":                      {handshake(weakKey(t, made{subject: named("x", corporation), issuer: named("y"), signedWith: 2048}, 512)), ruleWeak},
		"RSA-513":                      {handshake(weakKey(t, made{subject: named("x", corporation), issuer: named("y"), signedWith: 2048}, 513)), ""},
		"RSA-512 under another name":   {handshake(weakKey(t, made{subject: named("x"), issuer: named("y"), signedWith: 2048}, 512)), ""},
		"DigiNotar":                    {handshake(made{subject: named("*.microsoft.com"), issuer: named("DigiNotar Public CA 2025", "DigiNotar"), signedWith: 2048}.make(t)), ruleDigiNotar},
		"DigiNotar at the top":         {handshake(made{subject: named("login.microsoft.com"), issuer: named("Hidden CA"), signedWith: 2048}.make(t), digiNotar), ruleDigiNotar},
		"DigiNotar, an update name":    {handshake(made{subject: named("update.microsoft.com"), issuer: named("DigiNotar Public CA 2025", "DigiNotar"), signedWith: 2048}.make(t)), ruleDigiNotar + " " + ruleName},
		"DigiNotar, another name":      {handshake(made{subject: named("www.example.nl"), issuer: named("DigiNotar Public CA 2025", "DigiNotar"), signedWith: 2048}.make(t)), ""},
		"Microsoft name of another CA": {handshake(made{subject: named("login.microsoft.com"), issuer: named("DigiCert Global", "DigiCert Inc"), signedWith: 2048}.make(t)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, m := range matches(t, s, c.h) {
				file := m.Rule.File[strings.LastIndexByte(m.Rule.File, '/')+1:]
				got = append(got, strings.TrimSuffix(file, ".yml"))
				t.Logf("%s: %s", m.Rule.Level, m.Reason)
				if m.ChainIndex < 0 || strings.Contains(m.Reason, "(none)") || strings.Contains(m.Reason, "{") {
					t.Errorf("%+v", m)
				}
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("got %q, want %q", g, c.want)
			}
		})
	}
}

// Severities and verdicts are those that the case asks for: a match of the
// certificate itself is a matter of policy and never critical.
func TestPackAttributes(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		ruleDIVD + " medium 47 disguise true", ruleDigiNotar + " critical 99 rogue-ca true", ruleFlame + " high 73 forged true",
		ruleLicensing + " high 73 weak-ca true", ruleLength + " high 73 forged true", ruleKnown + " informational 21 genuine false",
		ruleName + " high 73 forged true", ruleWeak + " high 73 weak-ca true", "interference low 21 listed true",
		ruleShared + " informational 21 shared true", ruleShared + " medium 47 shared true", ruleShared + " medium 47 shared true",
		ruleUnlogged + " medium 47 listed true",
	}
	slices.Sort(want)
	var got []string
	for _, r := range s.Rules() {
		pack, file, _ := strings.Cut(strings.TrimPrefix(r.File, "packs/"), "/")
		name := strings.TrimSuffix(file, ".yml")
		got = append(got, fmt.Sprintf("%s %s %d %s %v", name, r.Level, r.Severity, r.Verdict, r.Enabled))
		if r.Ruleset != pack || r.Description == "" || r.Author == "" || len(r.Version) != len(time.DateOnly) {
			t.Errorf("%+v", r)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	m := matches(t, s, divd())[0]
	if m.Field != "oddcert.chain.hash.sha256" || m.Value != "1073570F79136511BA45B44C923A55C69B97E91D3AAA2E06E5E657129CA809FF" || m.ChainIndex != 0 {
		t.Errorf("%+v", m)
	}
	for _, must := range []string{"VPN", "TouchVPN", "policy", "1194", "192.0.2.1", "198.51.100.7:443"} {
		if !strings.Contains(m.Reason, must) {
			t.Errorf("no %s in %q", must, m.Reason)
		}
	}
	// No rule is tried on every handshake.
	if n := len(s.index.always); n != 0 {
		t.Errorf("%d rules without an anchor", n)
	}
}

// The rule that is off holds for what looks genuine, and for nothing that
// another rule flags.
func TestKnownIssuerRule(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Rules(), func(r *Rule) bool { return strings.Contains(r.File, ruleKnown) })
	m := s.NewMatcher(nil)
	ca1 := named("Microsoft Update Secure Server CA 1")
	www := named("www.update.microsoft.com")
	for _, c := range []struct {
		h    *event.Handshake
		want bool
	}{
		{handshake(made{subject: www, issuer: ca1, signedWith: 4096}.make(t)), true},
		{handshake(made{subject: www, issuer: ca1, signedWith: 2048}.make(t)), false},
		{divd(), false},
	} {
		if m.h = c.h; m.node(s.Rules()[i].cond) != c.want {
			t.Errorf("%v for %s", !c.want, c.h.Chain[0].Subject.String)
		}
	}
}

// What an endpoint ignored raises an alert, except what drivers and captures with
// holes make too.
func TestInterference(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for kind := event.Forged(1); kind != 0; kind <<= 1 {
		h := divd()
		h.Forged = kind
		want := kind&(event.ForgedFIN|event.ForgedRST|event.ForgedSYN|event.ForgedData|event.ForgedConflict) != 0
		got := false
		for _, m := range matches(t, s, h) {
			got = got || m.Rule.Ruleset == "evasion" && m.Value == kind.Names()[0]
		}
		if got != want {
			t.Errorf("%v: %v", kind.Names(), got)
		}
	}
}

// The certificate of DIVD-2022-00013 on five servers that are not Microsoft's is one
// alert of the correlation, with its first five servers; on Microsoft's own networks,
// or over more than a day, it is none. Ten servers with its key are another.
func TestSharedCertificate(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		servers int
		step    int64 // seconds
		network string
		want    []string
	}{
		"five servers":   {5, 60, "", []string{"5: One Windows Update certificate on many servers outside of Microsoft's networks"}},
		"four servers":   {4, 60, "", nil},
		"ten servers":    {10, 60, "cdn", []string{"5: One Windows Update certificate on many servers outside of Microsoft's networks", "10: One key under Windows Update certificates on many servers outside of Microsoft's networks"}},
		"in five days":   {5, 86400, "", nil},
		"in a day":       {5, 86400 / 4, "", []string{"5: One Windows Update certificate on many servers outside of Microsoft's networks"}},
		"Microsoft's":    {20, 60, "microsoft", nil},
		"over and over":  {9, 3600, "", []string{"5: One Windows Update certificate on many servers outside of Microsoft's networks"}},
		"in seven weeks": {50, 86400, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			m, c2 := s.NewMatcher(nil), s.NewCorrelator(nil)
			var got []string
			for i := range c.servers {
				for range 2 { // a server that is seen twice counts once
					h := divd()
					h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)})
					h.End.Time = 1_645_461_580e9 + int64(i)*c.step*1e9
					j := &judgement.Judgement{Server: &judgement.Place{}, Client: &judgement.Place{}}
					if c.network != "" {
						j.Server.Networks = []string{c.network}
					}
					for _, match := range c2.See(h, j, m.Match(h, j, nil)) {
						if match.Correlation == nil {
							continue
						}
						got = append(got, fmt.Sprintf("%d: %s", match.Correlation.Count, match.Rule.Title))
						if match.Rule.Verdict != "shared" || strings.Contains(match.Reason, "(none)") || !strings.Contains(match.Reason, match.Correlation.Group[0].Value) ||
							!strings.Contains(match.Reason, h.Flow.Endpoints[1].Addr.String()) || match.Field != "server.ip" {
							t.Errorf("%+v", match)
						}
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Only a certificate that browsers would trust, that was issued when they ask for
// timestamps, and whose timestamps were judged, raises the alert that no log has it.
func TestUnlogged(t *testing.T) {
	s, err := Load(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	date := func(s string) cert.Date {
		day, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return cert.DateOf(day)
	}
	for _, c := range []struct {
		from, to string
		embedded int
		trust    judgement.Trust
		logs     judgement.Transparency
		want     bool
	}{
		{"2018-05-01", "2020-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true}, true},
		{"2026-01-31", "2028-12-31", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true, SCTs: 3}, true},
		{"2018-04-30", "2020-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true}, false},
		{"2028-01-31", "2029-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true}, false},
		{"2020-05-01", "2021-01-01", 0, judgement.Trust{Store: "microsoft", Status: judgement.Trusted}, judgement.Transparency{Judged: true}, false},
		{"2020-05-01", "2021-01-01", 0, judgement.Trust{Status: judgement.UntrustedRoot}, judgement.Transparency{Judged: true}, false},
		{"2020-05-01", "2021-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Expired}, judgement.Transparency{Judged: true}, false},
		{"2020-05-01", "2021-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{SCTs: 2}, false},
		{"2020-05-01", "2021-01-01", 2, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true, SCTs: 2, Valid: 2}, false},
		{"2020-05-01", "2021-01-01", 2, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true, SCTs: 2}, true},
		{"2020-05-01", "2021-01-01", 0, judgement.Trust{Store: "mozilla", Status: judgement.Trusted}, judgement.Transparency{Judged: true, SCTs: 2, Valid: 1}, false},
	} {
		h := divd()
		leaf := *h.Chain[0].Certificate
		leaf.NotBefore, leaf.NotAfter = date(c.from), date(c.to)
		leaf.SCTs = c.embedded
		h.Chain = []event.ChainEntry{{Certificate: &leaf}}
		j := &judge{Judgement: judgement.Judgement{Trust: &c.trust, Transparency: &c.logs}}
		got := false
		told := judgement.Judgement{Transparency: &c.logs} // as it is once a day
		for _, m := range s.NewMatcher(j).Match(h, &told, nil) {
			got = got || strings.Contains(m.Rule.File, ruleUnlogged)
		}
		if got != c.want {
			t.Errorf("%v for %+v", got, c)
		}
	}
}
