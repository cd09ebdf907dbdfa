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
	"io/fs"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
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

// scene is a handshake and what is known of it, as the table below has it.
type scene struct {
	h *event.Handshake
	j judgement.Judgement
}

// of starts with what is most often known: nothing of the networks, and a proven key.
func of(chain ...event.ChainEntry) scene {
	return scene{handshake(chain...), judgement.Judgement{KeyProof: &judgement.KeyProof{Status: judgement.Proven, Reason: "The key has signed."}}}
}

func (c scene) trust(status judgement.TrustStatus, store string) scene {
	c.j.Trust = &judgement.Trust{Status: status, Store: store, Anchor: judgement.Anchor{Subject: "CN=Root"}, Reasons: []string{"This is wrong."}}
	if store == "" {
		c.j.Trust.Anchor = judgement.Anchor{}
	}
	return c
}

func (c scene) at(networks ...string) scene {
	c.j.Server = &judgement.Place{Networks: networks}
	return c
}

func (c scene) proof(s judgement.ProofStatus) scene {
	c.j.KeyProof = &judgement.KeyProof{Status: s, Reason: "That is so."}
	return c
}

func (c scene) direction(d judgement.Direction) scene { c.j.Direction = d; return c }

func (c scene) through(carrier string) scene { c.h.Carrier = carrier; return c }

// hidden shows no certificate, and asks for a name.
func hidden(name string, outcome event.Outcome) scene {
	c := of()
	c.j.KeyProof = nil
	c.h.Outcome = outcome
	c.h.ClientHello.ServerName = name
	return c
}

func (c scene) fits() scene {
	c.j.Shape = &judgement.Shape{Certificate: 1278, Verify: 281, Finished: 69, Fits: [][32]byte{{1}}}
	return c
}

func (c scene) flagged(verdict, level string) scene {
	c.j.Memory = &judgement.Memory{Flagged: &judgement.Flagged{AlertID: "65a1", Rule: "A rule", Verdict: verdict, Level: level, Time: 1e18}}
	return c
}

// match matches as the stage does that has handshakes in order.
func (c scene) match(t testing.TB, s *Set) []Match {
	t.Helper()
	known := judgement.Judgement{KeyProof: c.j.KeyProof, Memory: c.j.Memory, Shape: c.j.Shape}
	if known.Memory == nil {
		known.Memory = &judgement.Memory{Servers: 1, Clients: 1, Names: 1}
	}
	return s.NewMatcher(&judge{Judgement: c.j}).Match(c.h, &known, nil)
}

const (
	ruleDIVD      = "divd-2022-00013"
	ruleRelayed   = "relayed"
	ruleUnclear   = "relayed-or-copied"
	ruleCopied    = "copied"
	ruleCopy      = "copied-certificate" // of any name
	ruleForged    = "forged"
	ruleSignature = "forged-signature"
	ruleDownload  = "forged-download"
	ruleUnjudged  = "unjudged"
	rulePublic    = "public-authority"
	ruleOwn       = "intercepted"
	rulePosing    = "posing"
	ruleShape     = "posing-shape"
	ruleLicensing = "revoked-licensing-ca"
	ruleWeak      = "weak-microsoft-certificate"
	ruleDigiNotar = "diginotar-microsoft-name"
	ruleGenuine   = "genuine"
	ruleUnlogged  = "publicly-trusted-not-logged"
)

// Each row of the table of verdicts, and what is beside it.
func TestPack(t *testing.T) {
	s, err := Load(withGenuine(t))
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
	entry := func(m made) event.ChainEntry { m.signedWith = 2048; return m.make(t) }
	fe2 := func() event.ChainEntry {
		return entry(made{subject: named("fe2.update.microsoft.com", "Microsoft"), issuer: ca2})
	}
	proxied := func() event.ChainEntry { return entry(made{subject: www, issuer: named("Corporate Proxy CA", "Corp")}) }
	download := func() event.ChainEntry {
		return entry(made{subject: named("x"), names: []string{"download.windowsupdate.com"}, issuer: named("Some CA")})
	}
	good := entry(made{subject: named("www.example.net"), issuer: named("Example CA"), names: []string{"www.example.net"}})
	truncated := func(c scene) scene {
		x := c.h.Chain[0].Certificate
		*x = cert.Certificate{Subject: x.Subject, Issuer: x.Issuer}
		c.h.Chain[0].Truncated = true
		return c
	}
	edit := func(c scene, f func(c *cert.Certificate)) scene { f(c.h.Chain[0].Certificate); return c }
	theCase := func() scene { return of(divd().Chain[0]).trust(judgement.BadSignature, "") }
	const (
		microsoft, mozilla, operator = "microsoft", "mozilla", "operator"
		update                       = "www.update.microsoft.com"
	)
	for name, c := range map[string]struct {
		scene
		want string // the rules that match, in order
	}{
		"genuine":                         {of(fe2()).trust(judgement.Trusted, microsoft).at(microsoft), ruleGenuine},
		"genuine, weak":                   {of(fe2()).trust(judgement.Weak, microsoft).at(microsoft), ruleGenuine},
		"genuine, key unknown":            {of(fe2()).trust(judgement.Trusted, microsoft).at(microsoft).proof(judgement.ProofUnknown), ruleGenuine},
		"genuine, over":                   {of(fe2()).trust(judgement.Expired, microsoft).at(microsoft), ""},
		"genuine of a browser's root":     {of(fe2()).trust(judgement.Trusted, mozilla).at(microsoft), ""},
		"another name at Microsoft":       {of(good).trust(judgement.Trusted, microsoft).at(microsoft), ""},
		"an ordinary server":              {of(good).trust(judgement.Trusted, mozilla), ""},
		"an ordinary server, self-signed": {of(good).trust(judgement.SelfSigned, ""), ""},
		"no certificate":                  {of(), ""},
		"nothing is known":                {scene{handshake(fe2()), judgement.Judgement{}}, ""},

		"the case":                         {theCase(), ruleDIVD},
		"the case in Microsoft's networks": {theCase().at(microsoft), ruleDIVD},
		"the case behind another":          {of(good, divd().Chain[0]).trust(judgement.Trusted, mozilla), ruleDIVD},
		"the case by SHA-256 alone":        {of(event.ChainEntry{Certificate: &cert.Certificate{SHA256: divd().Chain[0].SHA256}}), ruleDIVD},
		"the case by SHA-1 alone":          {of(event.ChainEntry{Certificate: &cert.Certificate{SHA1: divd().Chain[0].SHA1}}), ruleDIVD},
		"the case by its key alone":        {of(event.ChainEntry{Certificate: &cert.Certificate{SPKISHA256: divd().Chain[0].SPKISHA256}}), ruleDIVD},
		"the case, key not held":           {theCase().proof(judgement.Mismatch), ruleCopied + " " + ruleDIVD},
		"the case at a proxy":              {theCase().at("proxies"), ruleDIVD},
		"the case, cut":                    {truncated(theCase().trust(judgement.TrustUnknown, "")), ""},
		"the case, one bit changed":        {edit(theCase(), func(c *cert.Certificate) { c.SHA256[31]++; c.SHA1[19]++; c.SPKISHA256[31]++ }), ruleSignature},

		"relayed":                         {of(fe2()).trust(judgement.Trusted, microsoft), ruleRelayed},
		"relayed, somebody's network":     {of(fe2()).trust(judgement.Trusted, microsoft).at("cdn"), ruleRelayed},
		"relayed, over":                   {of(fe2()).trust(judgement.Expired, microsoft), ruleRelayed},
		"relayed, another name asked for": {of(fe2()).trust(judgement.NameMismatch, microsoft), ruleRelayed},
		"through a proxy that was asked":  {of(fe2()).trust(judgement.Trusted, microsoft).through("http-connect"), ""},
		"passed on by a proxy of ours":    {of(fe2()).trust(judgement.Trusted, microsoft).at("internal", "proxies"), ""},
		"relayed or copied":               {of(fe2()).trust(judgement.Weak, microsoft).proof(judgement.ProofUnknown), ruleUnclear},
		"copied":                          {of(fe2()).trust(judgement.Trusted, microsoft).proof(judgement.Mismatch), ruleCopied},
		"copied, in Microsoft's networks": {of(fe2()).trust(judgement.Trusted, microsoft).at(microsoft).proof(judgement.Mismatch), ruleCopied},
		"copied, a download name":         {of(download()).trust(judgement.Trusted, mozilla).proof(judgement.Mismatch), ruleCopied},
		"copied, any name":                {of(good).trust(judgement.Trusted, mozilla).proof(judgement.Mismatch), ruleCopy},
		"a public authority elsewhere":    {of(fe2()).trust(judgement.Trusted, mozilla), rulePublic},

		"forged, self-signed":                {of(entry(made{subject: www, selfSigned: true})).trust(judgement.SelfSigned, ""), ruleForged},
		"forged, another issuer":             {of(proxied()).trust(judgement.UntrustedRoot, ""), ruleForged},
		"forged, issuer not there":           {of(proxied()).trust(judgement.Incomplete, ""), ruleForged},
		"forged, rented from Microsoft":      {of(proxied()).trust(judgement.UntrustedRoot, "").at(microsoft), ruleForged},
		"issuer not there, at Microsoft":     {of(entry(made{subject: www, issuer: ca1})).trust(judgement.Incomplete, "").at(microsoft), ""},
		"issuer not there, elsewhere":        {of(entry(made{subject: www, issuer: ca1})).trust(judgement.Incomplete, ""), ruleForged},
		"forged, another issuer not there":   {of(proxied()).trust(judgement.Incomplete, "").at(microsoft), ruleForged},
		"forged, name in SAN":                {of(entry(made{subject: named("x"), issuer: named("Evil CA"), names: []string{"a.example", "www.UPDATE.microsoft.com"}})).trust(judgement.Incomplete, ""), ruleForged},
		"forged, wildcard":                   {of(entry(made{subject: named("x"), issuer: named("Evil CA"), names: []string{"*.update.microsoft.com"}})).trust(judgement.Incomplete, ""), ruleForged},
		"forged, a Flame name":               {of(entry(made{subject: named("v5.windowsupdate.microsoft.com"), issuer: named("Evil CA")})).trust(judgement.Incomplete, ""), ruleForged},
		"a name like it":                     {of(entry(made{subject: named("www.update.microsoft.com.example.net"), issuer: named("Evil CA"), names: []string{"notupdate.microsoft.com", "xupdate.microsoft.com"}})).trust(judgement.Incomplete, ""), ""},
		"forged signature":                   {of(fe2()).trust(judgement.BadSignature, ""), ruleSignature},
		"forged signature, CA 1":             {of(entry(made{subject: named("a.example"), issuer: ca1})).trust(judgement.BadSignature, ""), ruleSignature},
		"forged signature, at Microsoft":     {of(fe2()).trust(judgement.BadSignature, "").at(microsoft), ruleSignature},
		"bad signature under another name":   {of(good).trust(judgement.BadSignature, ""), ""},
		"forged download":                    {of(download()).trust(judgement.UntrustedRoot, ""), ruleDownload},
		"forged download and update":         {of(entry(made{subject: www, names: []string{"download.windowsupdate.com", update}, issuer: named("Evil CA")})).trust(judgement.UntrustedRoot, ""), ruleForged},
		"download of a content network":      {of(download()).trust(judgement.Trusted, mozilla), ""},
		"download of a browser's root, over": {of(download()).trust(judgement.Expired, mozilla), ""},
		"unjudged":                           {of(fe2()).trust(judgement.TrustUnknown, ""), ruleUnjudged},
		"unjudged, at Microsoft":             {of(fe2()).trust(judgement.TrustUnknown, "").at(microsoft), ""},

		"intercepted, own authority":     {of(proxied()).trust(judgement.Trusted, operator), ruleOwn},
		"intercepted, own address":       {of(proxied()).trust(judgement.UntrustedRoot, "").at("proxies"), ruleOwn},
		"intercepted, copied issuer":     {of(fe2()).trust(judgement.BadSignature, "").at("proxies"), ruleOwn},
		"intercepted download":           {of(download()).trust(judgement.Trusted, operator), ruleOwn},
		"own authority for another name": {of(good).trust(judgement.Trusted, operator), ""},

		"posing":                           {hidden(update, event.Encrypted), rulePosing},
		"posing, bare":                     {hidden("UPDATE.microsoft.com", event.Encrypted), rulePosing},
		"posing, resumed":                  {hidden("v5.windowsupdate.microsoft.com", event.Resumed), rulePosing},
		"posing, nothing of a server seen": {hidden(update, event.Lost), ""},
		"asked at Microsoft":               {hidden(update, event.Encrypted).at(microsoft), ""},
		"asked at a proxy":                 {hidden(update, event.Encrypted).at("proxies"), ""},
		"asked through a proxy":            {hidden(update, event.Encrypted).through("socks5"), ""},
		"asked inside":                     {hidden(update, event.Encrypted).at("internal").direction(judgement.Internal), ""},
		"asked from outside":               {hidden(update, event.Encrypted).at("internal").direction(judgement.Inbound), rulePosing},
		"a download name, hidden":          {hidden("download.windowsupdate.com", event.Encrypted), ""},
		"posing with the shape":            {hidden(update, event.Encrypted).fits(), ruleShape},
		"the shape at Microsoft":           {hidden(update, event.Encrypted).fits().at(microsoft), ""},
		"the shape under another name":     {hidden("www.example.net", event.Encrypted).fits(), ""},
		"posing, flagged before":           {hidden(update, event.Encrypted).flagged("disguise", "medium"), "contact-medium " + ruleShape},
		"contact":                          {hidden("www.example.net", event.Encrypted).flagged("forged", "high"), "contact-high"},
		"contact, resumed":                 {hidden("", event.Resumed).flagged("rogue-ca", "critical"), "contact-critical"},
		"contact, a small matter":          {hidden("", event.Resumed).flagged("listed", "low"), ""},
		"contact, nothing bad":             {hidden("", event.Resumed).flagged("intercepted", "medium"), ""},

		"licensing CA by name":         {of(good, entry(made{subject: named("Microsoft Enforced Licensing Intermediate PCA", corporation), issuer: named("Microsoft Root Authority")})), ruleLicensing},
		"licensing CA as issuer":       {of(entry(made{subject: named("a.example"), issuer: named("Microsoft LSRA PA")})), ruleLicensing},
		"licensing CA by SHA-1":        {edit(of(entry(made{subject: named("y"), issuer: named("z")})), func(c *cert.Certificate) { hexTo(c.SHA1[:], "FA6660A94AB45F6A88C0D7874D89A863D74DEE97") }), ruleLicensing},
		"another licensing name":       {of(entry(made{subject: named("Microsoft Licensing"), issuer: named("Microsoft PA")})), ""},
		"MD5 under a Microsoft name":   {of(entry(made{subject: named("MS", "Microsoft"), issuer: named("x"), md5: true})), ruleWeak},
		"MD5 by a Microsoft CA":        {of(entry(made{subject: named("MS"), issuer: named("Microsoft PA", corporation), md5: true})), ruleWeak},
		"MD5 in SAN":                   {of(entry(made{subject: named("a"), names: []string{"login.microsoft.com"}, issuer: named("x"), md5: true})), ruleWeak},
		"MD5 of an old root":           {of(good, entry(made{subject: named("Microsoft Root Authority", corporation), issuer: named("Microsoft Root Authority", corporation), selfSigned: true, md5: true})), ""},
		"MD5 of an old root, as leaf":  {of(entry(made{subject: named("Microsoft Root Authority", corporation), issuer: named("Microsoft Root Authority", corporation), selfSigned: true, md5: true})), ruleWeak},
		"MD5 under another name":       {of(entry(made{subject: named("a.example", "Example"), issuer: named("x"), md5: true})), ""},
		"RSA-512":                      {of(weakKey(t, made{subject: named("x", corporation), issuer: named("y"), signedWith: 2048}, 512)), ruleWeak},
		"RSA-513":                      {of(weakKey(t, made{subject: named("x", corporation), issuer: named("y"), signedWith: 2048}, 513)), ""},
		"RSA-512 under another name":   {of(weakKey(t, made{subject: named("x"), issuer: named("y"), signedWith: 2048}, 512)), ""},
		"DigiNotar":                    {of(entry(made{subject: named("*.microsoft.com"), issuer: named("DigiNotar Public CA 2025", "DigiNotar")})), ruleDigiNotar},
		"DigiNotar at the top":         {of(entry(made{subject: named("login.microsoft.com"), issuer: named("Hidden CA")}), entry(made{subject: named("DigiNotar Public CA 2025", "DigiNotar"), issuer: named("DigiNotar Root CA", "DigiNotar")})), ruleDigiNotar},
		"DigiNotar, an update name":    {of(entry(made{subject: named("update.microsoft.com"), issuer: named("DigiNotar Public CA 2025", "DigiNotar")})).trust(judgement.Incomplete, ""), ruleDigiNotar + " " + ruleForged},
		"DigiNotar, another name":      {of(entry(made{subject: named("www.example.nl"), issuer: named("DigiNotar Public CA 2025", "DigiNotar")})), ""},
		"Microsoft name of another CA": {of(entry(made{subject: named("login.microsoft.com"), issuer: named("DigiCert Global", "DigiCert Inc")})).trust(judgement.Trusted, mozilla), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, m := range c.match(t, s) {
				file := strings.TrimSuffix(m.Rule.File[strings.LastIndexByte(m.Rule.File, '/')+1:], ".yml")
				if file == "shared-certificate" { // what others count
					continue
				}
				got = append(got, file)
				t.Logf("%s: %s", m.Rule.Level, m.Reason)
				for _, r := range m.Reasons {
					t.Log("  ", r)
				}
				if text := m.Reason + strings.Join(m.Reasons, " "); strings.Contains(text, "(none)") || strings.Contains(text, "{") {
					t.Errorf("%+v", m)
				}
			}
			slices.Sort(got)
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("got %q, want %q", g, c.want)
			}
		})
	}
}

// withGenuine is the packs that are on, with the rule for what is genuine switched on.
func withGenuine(t testing.TB) Source {
	t.Helper()
	files := fstest.MapFS{}
	builtin := Builtin()
	err := fs.WalkDir(builtin.FS, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(builtin.FS, name)
		if strings.HasSuffix(name, "/"+ruleGenuine+".yml") {
			b = bytes.Replace(b, []byte("enabled: false"), []byte("enabled: true"), 1)
		}
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return Source{builtin.Name, files}
}

// A sentence of the reasons that names a field without a value is left out; the
// reason of the alert is always there.
func TestReasonsWithoutValue(t *testing.T) {
	s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  server.port: 443\ncondition: a") +
		"oddcert:\n  reason: 'At {oddcert.server.openvpn}.'\n  verdict_reasons: ['OpenVPN at {oddcert.server.openvpn}.', 'Port {server.port}.']\n"})
	h := sample()
	for _, c := range []struct {
		j    judgement.Judgement
		want string
	}{
		{judgement.Judgement{}, "At (none). Port 443."},
		{judgement.Judgement{Memory: &judgement.Memory{OpenVPN: 1_600_000_000e9}}, "At 2020-09-13T12:26:40Z. OpenVPN at 2020-09-13T12:26:40Z. Port 443."},
	} {
		m := s.NewMatcher(nil).Match(h, &c.j, nil)[0]
		if got := m.Reason + " " + strings.Join(m.Reasons[1:], " "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
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
		ruleDIVD + " medium 47 disguise true", ruleRelayed + " high 73 relayed true", ruleUnclear + " medium 47 relayed true",
		ruleCopied + " high 73 copied true", ruleCopy + " high 73 copied true", ruleForged + " high 73 forged true",
		ruleSignature + " high 73 forged true", ruleDownload + " high 73 forged true", ruleUnjudged + " medium 47 forged true",
		rulePublic + " medium 47 relayed true", ruleOwn + " low 21 intercepted true", rulePosing + " medium 47 posing true",
		ruleShape + " high 73 posing true", ruleLicensing + " high 73 weak-ca true", ruleWeak + " high 73 weak-ca true",
		ruleDigiNotar + " critical 99 rogue-ca true", ruleGenuine + " informational 21 genuine false",
		"contact-medium medium 47 contact true", "contact-high high 73 contact true", "contact-critical critical 99 contact true",
		"shared-certificate informational 21 shared true", "shared-certificate medium 47 shared true", "shared-certificate medium 47 shared true",
		"interference low 21 listed true", ruleUnlogged + " medium 47 listed true",
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
	m := of(divd().Chain[0]).match(t, s)[0]
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
			m, c2 := s.NewMatcher(nil), s.NewCorrelator(nil, 1)
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
		told := judgement.Judgement{Transparency: &c.logs, Memory: new(judgement.Memory)} // as it is once a day, in order
		for _, m := range s.NewMatcher(j).Match(h, &told, nil) {
			got = got || strings.Contains(m.Rule.File, ruleUnlogged)
		}
		if got != c.want {
			t.Errorf("%v for %+v", got, c)
		}
	}
}
