package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// sample is a handshake with something in every field.
func sample() *event.Handshake {
	h := ordinary()
	h.Flow.Endpoints[0].MAC = [6]byte{0, 0x1b, 0x21, 0xab, 0xcd, 0xef}
	h.Flow.Endpoints[1].MAC = [6]byte{0, 0x1b, 0x21, 1, 2, 3}
	h.Flow.VLANs, h.Flow.VLANCount = [2]uint16{100, 7}, 2
	h.Flow.Tunnel = []string{"vxlan"}
	h.Flow.Origin = &event.Origin{Path: "a.pcap", Interface: "eth1"}
	h.Curve, h.Resumed, h.Established = 29, false, true
	h.AuthorityNames, h.RawKey[0], h.ClientRawKey[31] = []string{"CN=Staff CA", "CN=Guest CA"}, 0xab, 1
	h.ClientHello.CipherSuites = []uint16{0xc02f, 0x1301, 0xfafa}
	h.ServerHello.ALPN = "h2"
	leaf := h.Chain[0].Certificate
	leaf.EmailAddresses, leaf.IPAddresses, leaf.URIs = []string{"me@example.net"}, []string{"198.51.100.7"}, []string{"https://example.net/"}
	leaf.PublicKeyExponent = 65537
	leaf.Subject.Country, leaf.Subject.Locality, leaf.Subject.StateOrProvince = []string{"US"}, []string{"Redmond"}, []string{"Washington"}
	leaf.Subject.OrganizationalUnit = []string{"DSP"}
	leaf.Issuer.Country, leaf.Issuer.Locality, leaf.Issuer.StateOrProvince = []string{"US"}, []string{"Redmond"}, []string{"Washington"}
	leaf.Issuer.OrganizationalUnit = []string{"CA"}
	leaf.ParseError, leaf.PublicKeyCurve = "odd", "P-256"
	leaf.AltNames, leaf.SerialPadded, leaf.SCTs = 5, true, 2
	leaf.IsCA, leaf.BasicConstraints, leaf.PathLen = true, true, 0
	leaf.KeyUsage, leaf.ExtendedKeyUsage = 0x21, []string{"serverAuth", "1.2.3"} // digitalSignature, keyCertSign
	leaf.Policies, leaf.Permitted, leaf.Excluded = []string{"2.23.140.1.2.1"}, []string{".example.net", "10.0.0.0/8"}, []string{"C=US, O=Other"}
	leaf.SubjectKeyID, leaf.AuthorityKeyID = []byte{0, 0xab, 0xcd}, []byte{0x12}
	h.End.Time = 1_999_999_999_500_000_000 // half a second before the end of the validity
	h.ClientChain = h.Chain[:1:1]
	h.Outcome, h.Loss = event.Lost, event.Gap
	h.Forged = event.ForgedRST | event.ForgedConflict
	return h
}

// matches are what is raised for a handshake, the first that is seen.
func matches(t testing.TB, s *Set, h *event.Handshake) []Match {
	t.Helper()
	return s.NewCorrelator(nil, 1).See(h, nil, s.NewMatcher(nil).Match(h, nil, nil))
}

// What one line of a selection holds for, in the sample.
func TestItems(t *testing.T) {
	for _, c := range []struct {
		line string
		want bool
	}{
		// Equality without regard to case, of lists.
		{`tls.client.server_name: WWW.example.NET`, true},
		{`tls.client.server_name: [a.example, www.example.net]`, true},
		{`tls.client.server_name: [a.example, b.example]`, false},
		{`tls.client.server_name: example.net`, false},
		{`tls.client.server_name|cased: www.example.net`, true},
		{`tls.client.server_name|cased: WWW.example.net`, false},
		{`tls.client.server_name|contains|cased: EXAMPLE`, false},
		{`oddcert.chain.x509.subject.organization|cased: [x, Example]`, true},
		// Wildcards and their escapes.
		{`tls.client.server_name: '*.example.net'`, true},
		{`tls.client.server_name: '*.EXAMPLE.*'`, true},
		{`tls.client.server_name: 'www.e?ample.net'`, true},
		{`tls.client.server_name: 'www.e??ample.net'`, false},
		{`tls.client.server_name: '\*.example.net'`, false},
		{`oddcert.chain.x509.alternative_names: '\*.www.example.net'`, true},
		{`tls.client.server_name: '*'`, true},
		{`tls.client.server_name: 'w*w*e*n?t'`, true},
		{`tls.client.server_name: 'w*w*e*n?t?'`, false},
		// Parts.
		{`tls.client.server_name|contains: .EXAMPLE.`, true},
		{`tls.client.server_name|contains: [nothing, exa*net]`, true},
		{`tls.client.server_name|startswith: www.`, true},
		{`tls.client.server_name|startswith: example`, false},
		{`tls.client.server_name|endswith: .net`, true},
		{`tls.client.server_name|endswith: t`, true},
		{`tls.client.server_name|endswith: .ne`, false},
		{`tls.client.server_name|contains|all: [www, net]`, true},
		{`tls.client.server_name|contains|all: [www, org]`, false},
		{`oddcert.chain.x509.alternative_names|all: [www.example.net, 'https://*']`, true},
		// Negation is of the whole line.
		{`tls.client.server_name|neq: www.example.net`, false},
		{`tls.client.server_name|neq: [a.example, b.example]`, true},
		{`tls.client.server_name|contains|neq: example`, false},
		{`tls.client.server_name|contains|all|neq: [www, org]`, true},
		{`tls.server.x509.alternative_names|neq: www.example.net`, false},
		// Regular expressions find, and mind case.
		{`tls.client.server_name|re: 'ex.mple\.net$'`, true},
		{`tls.client.server_name|re: 'EX.MPLE'`, false},
		{`tls.client.server_name|re|i: '^WWW\.EX.MPLE'`, true},
		{`tls.client.server_name|re: ['^example', '^w{3}']`, true},
		{`tls.client.server_name|re: '^example'`, false},
		// Addresses and numbers.
		{`server.ip: 198.51.100.7`, true},
		{`server.ip: '::ffff:198.51.100.7'`, true},
		{`server.ip: '198.51.*'`, true},
		{`server.ip|cidr: 198.51.100.0/24`, true},
		{`server.ip|cidr: [10.0.0.0/8, 198.51.100.7/32]`, true},
		{`server.ip|cidr: [10.0.0.0/8, 'fe80::/10', '::/0']`, false},
		{`server.ip|cidr: 0.0.0.0/0`, true},
		{`client.ip: 192.0.2.1`, true},
		{`source.ip: 192.0.2.1`, true},
		{`destination.ip: 198.51.100.7`, true},
		{`destination.port: 443`, true},
		{`source.port: 50000`, true},
		{`client.port: 50000`, true},
		{`server.port: 443`, true},
		{`server.port: '443'`, true},
		{`server.port: '44*'`, true},
		{`server.port|gte: 443`, true},
		{`server.port|gt: 443`, false},
		{`server.port|lte: 443`, true},
		{`server.port|lt: 443`, false},
		{`server.port|lt|neq: 443`, true},
		{`client.mac: 00:1b:21:ab:cd:ef`, true},
		{`source.mac: 00-1B-21-AB-CD-EF`, true},
		{`server.mac|startswith: 00-1b-21`, true},
		{`destination.mac: 001b21010203`, true},
		// Nothing there.
		{`tls.next_protocol|exists: true`, true},
		{`tls.next_protocol|exists: false`, false},
		{`tls.next_protocol: null`, false},
		{`tls.next_protocol: ''`, false},
		{`tls.next_protocol: [null, h2]`, true},
		// The other fields.
		{`network.transport: tcp`, true},
		{`network.type: ipv4`, true},
		{`network.vlan.id: 100`, true},
		{`network.inner.vlan.id: 7`, true},
		{`observer.ingress.interface.name: eth1`, true},
		{`log.file.path|endswith: .pcap`, true},
		{`oddcert.tunnel: vxlan`, true},
		{`oddcert.carrier: tls`, true},
		{`oddcert.certificates: lost`, true},
		{`oddcert.loss: gap`, true},
		{`oddcert.forged: rst`, true},
		{`oddcert.forged|all: [rst, conflict]`, true},
		{`oddcert.forged: fin`, false},
		{`oddcert.alternative: false`, true},
		{`oddcert.ja4|startswith: t13d`, true},
		{`oddcert.authority_names: CN=guest ca`, true},
		{`oddcert.authority_names|contains: Root`, false},
		{`oddcert.raw_key.sha256: ab` + strings.Repeat("00", 31), true},
		{`oddcert.client_raw_key.sha256: ` + strings.Repeat("00", 31) + `02`, false},
		{`tls.version: "1.2"`, true},
		{`tls.version: 1.2`, true},
		{`tls.version_protocol: tls`, true},
		{`tls.cipher: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`, true},
		{`tls.cipher: '0xC02F'`, true},
		{`tls.cipher|contains: _ECDHE_`, true},
		{`tls.client.supported_ciphers: TLS_AES_128_GCM_SHA256`, true},
		{`tls.client.supported_ciphers: '0xfafa'`, true},
		{`tls.client.supported_ciphers: TLS_RSA_WITH_NULL_MD5`, false},
		{`tls.curve: X25519`, true},
		{`tls.established: true`, true},
		{`tls.resumed: false`, true},
		{`tls.client.ja3: ` + strings.Repeat("AB", 16), true},
		{`tls.server.ja3s: ` + strings.Repeat("cd", 16), true},
		{`tls.server.ja3s: ` + strings.Repeat("cf", 16), false},
		{`tls.server.hash.md5: '01` + strings.Repeat("00", 15) + `'`, true},
		{`tls.server.hash.sha1: '01` + strings.Repeat(":00", 19) + `'`, true},
		{`tls.server.hash.sha1|startswith: '0100'`, true},
		{`oddcert.chain.tbs.sha256: '01` + strings.Repeat("-00", 31) + `'`, true},
		{`tls.server.subject: C=US, O=Example, CN=www.example.net`, true},
		{`tls.server.issuer|contains: Example CA`, true},
		{`tls.server.not_before: 2001-09-09T01:46:40Z`, true},
		{`tls.server.not_after: '2033-*'`, true},
		{`tls.server.x509.serial_number: 123456789abcdef`, true},
		{`tls.server.x509.serial_number: '0x0123456789ABCDEF'`, true},
		{`tls.server.x509.serial_number: '00:01:23:45:67:89:ab:cd:ef'`, true},
		{`oddcert.chain.serial_number: 123456789abcdee`, false},
		{`tls.server.x509.subject.locality: redmond`, true},
		{`tls.server.x509.issuer.state_or_province: washington`, true},
		{`tls.server.x509.subject.country: us`, true},
		{`tls.server.x509.subject.organizational_unit: dsp`, true},
		{`tls.server.x509.subject.distinguished_name|endswith: CN=www.example.net`, true},
		{`tls.server.x509.public_key_algorithm: RSA`, true},
		{`tls.server.x509.public_key_size: 2048`, true},
		{`tls.server.x509.public_key_exponent: 65537`, true},
		{`tls.server.x509.public_key_curve: P-256`, true},
		{`tls.server.x509.signature_algorithm: SHA256-RSA`, true},
		{`tls.server.x509.version_number: 3`, true},
		{`tls.client.x509.subject.common_name: www.example.net`, true},
		{`oddcert.client_chain.name: www.example.net`, true},
		{`oddcert.client_chain.name: Example CA`, false},
		{`oddcert.chain.name: Example CA`, true},
		{`oddcert.chain.name: 198.51.100.7`, true},
		{`oddcert.chain.position: 1`, true},
		{`oddcert.chain.position: 2`, false},
		{`oddcert.chain.truncated: true`, false},
		{`oddcert.chain.self_signed: true`, false},
		{`oddcert.chain.signature_bits: 2048`, true},
		{`oddcert.chain.parse_error: odd`, true},
		{`oddcert.chain.x509.alternative_names_count: 5`, true},
		{`oddcert.chain.serial_padded: true`, true},
		{`oddcert.chain.is_ca: true`, true},
		{`oddcert.chain.path_len|lt: 1`, true},
		{`oddcert.chain.path_len: 1`, false},
		{`oddcert.chain.key_usage: keyCertSign`, true},
		{`oddcert.chain.key_usage|all: [DIGITALSIGNATURE, keyCertSign]`, true},
		{`oddcert.chain.key_usage: cRLSign`, false},
		{`oddcert.chain.extended_key_usage: [clientAuth, serverAuth]`, true},
		{`oddcert.chain.extended_key_usage: 1.2.3`, true},
		{`oddcert.chain.policies|startswith: 2.23.140.`, true},
		{`oddcert.chain.name_constraints.permitted: 10.0.0.0/8`, true},
		{`oddcert.chain.name_constraints.excluded|contains: O=Other`, true},
		{`oddcert.chain.subject_key_id: '00:AB:cd'`, true},
		{`oddcert.chain.subject_key_id: abcd`, false},
		{`oddcert.chain.authority_key_id: '12'`, true},
		{`oddcert.chain.sct.count|gte: 2`, true},
		{`oddcert.chain.sct.count: 0`, true}, // of the authority
		{`oddcert.chain.validity.days: 11574`, true},
		{`oddcert.chain.validity.days_left: 0`, true},
		{`oddcert.chain.validity.expired: true`, false},
		{`oddcert.chain.validity.not_yet_valid: false`, true},
	} {
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + c.line + "\ncondition: a")})
		got := matches(t, s, sample())
		if (len(got) == 1) != c.want {
			t.Errorf("%s: %v", c.line, !c.want)
		}
		if len(got) == 1 {
			name, _, _ := strings.Cut(c.line, ":")
			name, modifiers, _ := strings.Cut(name, "|")
			if !strings.Contains(modifiers, "neq") && got[0].Field != name {
				t.Errorf("%s: field %q", c.line, got[0].Field)
			}
		}
	}
	// Every field was tried, or has a twin that was.
	used := make(map[string]bool)
	h := sample()
	for name, f := range fields {
		for i := range 2 {
			if len(f.values(nil, &Matcher{h: h, j: sampleJudgement()}, f.entry(h, i))) > 0 {
				used[name] = true
			}
		}
		if !used[name] {
			t.Errorf("%s: no value in the sample", name)
		}
	}
}

// sampleJudgement has a value for every field of judgements.
func sampleJudgement() *judgement.Judgement {
	sum := [32]byte{1, 2, 3}
	return &judgement.Judgement{
		Trust:     &judgement.Trust{Status: judgement.Expired, Store: "microsoft", Anchor: judgement.Anchor{Subject: "CN=Root", SHA256: sum}, Reasons: []string{"The leaf is over."}},
		KeyProof:  &judgement.KeyProof{Status: judgement.Mismatch, Reason: "Another key has signed."},
		Client:    &judgement.Place{Networks: []string{"internal"}, ASN: 64496, ASOrg: "Example", Country: "NL"},
		Server:    &judgement.Place{Networks: []string{"cdn", "microsoft"}, ASN: 8075, ASOrg: "Microsoft", Country: "US"},
		Direction: judgement.Outbound,
		Transparency: &judgement.Transparency{SCTs: 3, Judged: true, Valid: 2, Operators: []string{"Google"}, OCSP: "revoked",
			Revoked: 1_600_000_000e9},
		Shape: &judgement.Shape{Certificate: 1278, Verify: 281, Finished: 69, Coalesced: true, Fits: [][32]byte{sum}},
		Memory: &judgement.Memory{Servers: 7, Clients: 2, Names: 3, OpenVPN: 1_600_000_000e9, Flagged: &judgement.Flagged{
			AlertID: "65a1b2c3000000000000000000000000", Rule: "A rule", Verdict: "disguise", Level: "medium", Time: 1_600_000_000e9, SHA256: sum}},
	}
}

// Each value, written as a rule and as its text, is found again: what is
// parsed, keyed and shown agree for every field.
func TestValuesRoundTrip(t *testing.T) {
	h := sample()
	for _, name := range fieldNames {
		f := fields[name]
		for i := range 2 {
			for _, v := range f.values(nil, &Matcher{h: h, j: sampleJudgement()}, f.entry(h, i)) {
				shown := string(f.appendText(nil, &v))
				key, err := f.parse(nil, shown)
				if err != nil {
					t.Errorf("%s %s: %v", name, shown, err)
				} else if got := f.appendKey(nil, &v); string(got) != string(key) {
					t.Errorf("%s %s: key %x, parsed %x", name, shown, got, key)
				}
			}
		}
	}
}

// Without a hello, a certificate or a flow, every field has no value and
// nothing panics.
func TestEmptyHandshake(t *testing.T) {
	for _, h := range []*event.Handshake{
		{}, {Chain: []event.ChainEntry{{}, {Truncated: true}}, ClientChain: []event.ChainEntry{{}}},
		{Flow: &event.Flow{}, Chain: []event.ChainEntry{{Certificate: &cert.Certificate{}}}},
	} {
		for _, name := range fieldNames {
			for _, condition := range []string{"a", "not a"} {
				s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + name + "|exists: true\ncondition: " + condition)})
				matches(t, s, h)
			}
		}
	}
}

// A truncated certificate has names and no hash, whatever its hash fields say.
func TestTruncatedHasNoHash(t *testing.T) {
	h := ordinary()
	hash := fmt.Sprintf("%X", h.Chain[0].SHA256)
	s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.chain.hash.sha256: '" + hash + "'\ncondition: a")})
	if len(matches(t, s, h)) != 1 {
		t.Fatal("no match of the whole certificate")
	}
	h.Chain[0].Truncated = true
	if got := matches(t, s, h); len(got) != 0 {
		t.Error("a truncated certificate matched a hash")
	}
	s = mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.chain.name: www.example.net\n  oddcert.chain.truncated: true\ncondition: a")})
	if got := matches(t, s, h); len(got) != 1 || got[0].ChainIndex != 0 {
		t.Errorf("by name: %+v", got)
	}
}

// The fields of a chain in one map speak of one certificate; in two
// selections, each of its own.
func TestOneCertificate(t *testing.T) {
	h := ordinary() // www.example.net by Example CA, Example CA by Example Root
	for _, c := range []struct {
		detection string
		index     int // -2 for no match
	}{
		{"a:\n  oddcert.chain.x509.subject.common_name: www.example.net\n  oddcert.chain.x509.issuer.common_name: Example CA\ncondition: a", 0},
		{"a:\n  oddcert.chain.x509.subject.common_name: Example CA\n  oddcert.chain.x509.issuer.common_name: Example Root\ncondition: a", 1},
		{"a:\n  oddcert.chain.x509.subject.common_name: www.example.net\n  oddcert.chain.x509.issuer.common_name: Example Root\ncondition: a", -2},
		{"a:\n  oddcert.chain.x509.subject.common_name: www.example.net\nb:\n  oddcert.chain.x509.issuer.common_name: Example Root\ncondition: a and b", 0},
		{"a:\n  oddcert.chain.x509.subject.common_name: www.example.net\n  oddcert.chain.x509.issuer.common_name|neq: Example CA\ncondition: a", -2},
		{"a:\n  oddcert.chain.x509.issuer.common_name|neq: Example CA\ncondition: a", 1},
		{"a:\n  oddcert.chain.position: 1\n  oddcert.chain.self_signed: false\n  server.port: 443\ncondition: a", 1},
		{"a:\n  - oddcert.chain.name: nothing\n  - oddcert.chain.name: Example CA\ncondition: a", 1},
		{"a:\n  server.port: 443\ncondition: a", -1},
		{"a:\n  tls.server.x509.subject.common_name: www.example.net\ncondition: a", 0},
		{"a:\n  oddcert.client_chain.name: null\ncondition: a", -1},
		{"a:\n  oddcert.client_chain.hash.sha1|exists: false\ncondition: a", -1},
		{"a:\n  oddcert.client_chain.hash.sha1|exists: true\ncondition: a", -2},
	} {
		got := matches(t, mustLoad(t, map[string]string{"r.yml": rule(c.detection)}), h)
		switch {
		case c.index == -2 && len(got) != 0:
			t.Errorf("%s\nmatched: %+v", c.detection, got[0])
		case c.index > -2 && (len(got) != 1 || got[0].ChainIndex != c.index):
			t.Errorf("%s\ngot %+v", c.detection, got)
		}
	}
}

func TestReason(t *testing.T) {
	text := rule("a:\n  tls.client.server_name|endswith: .net\nb:\n  oddcert.chain.hash.sha256|expand: '%bad%'\ncondition: b and a") +
		"oddcert:\n  reason: '{client.ip} {{met}} {oddcert.chain.subject} at {server.ip}:{server.port}, {oddcert.match.value}, {oddcert.match.list} {oddcert.match.chain_index} {tls.next_protocol}'\n  verdict_reasons: ['It is {tls.client.server_name}']\n"
	h := ordinary()
	hash := fmt.Sprintf("%X", h.Chain[1].SHA256)
	s := mustLoad(t, map[string]string{"r.yml": text, "lists/bad.txt": hash})
	h.ClientHello.ServerName = "www.\x1b[31mexample\n.net"
	got := matches(t, s, h)
	if len(got) != 1 {
		t.Fatal(got)
	}
	m := got[0]
	if m.Field != "oddcert.chain.hash.sha256" || m.Value != hash || m.List != "bad" || m.ChainIndex != 1 {
		t.Errorf("match %+v", m)
	}
	if want := "192.0.2.1 {met} C=US, O=Example, CN=Example CA at 198.51.100.7:443, " + hash + ", bad 1 (none)"; m.Reason != want {
		t.Errorf("reason %q", m.Reason)
	}
	if want := []string{"oddcert.chain.hash.sha256 is " + hash + " (certificate 2 of 2), in list bad",
		"tls.client.server_name is www.\uFFFD[31mexample\uFFFD.net", "It is www.\uFFFD[31mexample\uFFFD.net"}; !slices.Equal(m.Reasons, want) {
		t.Errorf("reasons %q", m.Reasons)
	}
	// People count from 1, also where the field speaks of the leaf alone.
	for selection, want := range map[string]string{"tls.server.x509.version_number: '3'": "tls.server.x509.version_number is 3 (the leaf, certificate 1 of 2)",
		"oddcert.chain.position: 0": "oddcert.chain.position is 0 (the leaf, certificate 1 of 2)"} {
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + selection + "\ncondition: a")})
		if got := matches(t, s, h); len(got) != 1 || got[0].Reasons[0] != want {
			t.Errorf("%s: %+v", selection, got)
		}
	}
	// A rule that says nothing has a reason all the same.
	s = mustLoad(t, map[string]string{"r.yml": strings.Replace(rule("a:\n  server.port: 443\ncondition: a"), "A rule", "Odd {port}", 1)})
	if got := matches(t, s, h)[0].Reason; got != "Odd {port}: 192.0.2.1 to 198.51.100.7:443, server.port is 443" {
		t.Errorf("reason %q", got)
	}
}

// "not" binds closer than "and", "and" closer than "or"; selectors leave out
// names with "_". Each condition is tried with every choice of what holds.
func TestConditions(t *testing.T) {
	for _, c := range []struct {
		condition string
		want      func(a, b, ab, hidden bool) bool
	}{
		{"a or b and ab", func(a, b, ab, _ bool) bool { return a || b && ab }},
		{"a and b or ab", func(a, b, ab, _ bool) bool { return a && b || ab }},
		{"not a and b", func(a, b, _, _ bool) bool { return !a && b }},
		{"not (a and b)", func(a, b, _, _ bool) bool { return !(a && b) }},
		{"not a or not not b", func(a, b, _, _ bool) bool { return !a || b }},
		{"(a or b) and not ab", func(a, b, ab, _ bool) bool { return (a || b) && !ab }},
		{"1 of them", func(a, b, ab, _ bool) bool { return a || b || ab }},
		{"all of them", func(a, b, ab, _ bool) bool { return a && b && ab }},
		{"any of a*", func(a, _, ab, _ bool) bool { return a || ab }},
		{"all of a*", func(a, _, ab, _ bool) bool { return a && ab }},
		{"not 1 of *b", func(_, b, ab, _ bool) bool { return !(b || ab) }},
		{"1 of _* and a", func(a, _, _, hidden bool) bool { return hidden && a }},
		{"_hidden", func(_, _, _, hidden bool) bool { return hidden }},
		{"[a and b, ab]", func(a, b, ab, _ bool) bool { return a && b || ab }},
		{"not all of them and a\n    or b", func(a, b, ab, _ bool) bool { return !(a && b && ab) && a || b }},
	} {
		for choice := range 16 {
			holds := func(i int) bool { return choice>>i&1 == 1 }
			port := func(i int) string {
				if holds(i) {
					return "443"
				}
				return "1"
			}
			s := mustLoad(t, map[string]string{"r.yml": rule(fmt.Sprintf(
				"a:\n  server.port: %s\nb:\n  server.port|gte: %s\n  server.port|lte: %s\nab:\n  - server.port: %s\n  - server.port: 2\n_hidden:\n  server.port: %s\ncondition: %s",
				port(0), port(1), port(1), port(2), port(3), c.condition))})
			if got := len(matches(t, s, sample())) == 1; got != c.want(holds(0), holds(1), holds(2), holds(3)) {
				t.Errorf("%s with %04b: %v", c.condition, choice, got)
			}
		}
	}
}

// The index finds exactly what evaluating every rule finds.
func TestIndexAgainstAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	word := func() string {
		b := make([]byte, 1+random.IntN(5))
		for i := range b {
			b[i] = "abAB."[random.IntN(5)]
		}
		return string(b)
	}
	line := func() string {
		name := pick("tls.client.server_name", "oddcert.chain.name", "tls.server.x509.issuer.common_name", "oddcert.client_chain.subject", "oddcert.carrier")
		switch random.IntN(9) {
		case 0:
			return name + ": '" + word() + "'"
		case 1:
			return name + pick("|contains", "|startswith", "|endswith", "|contains|cased", "|contains|neq") + ": ['" + word() + "', '" + word() + word() + "']"
		case 2:
			return name + "|contains|all: ['" + word() + "', '" + word() + "']"
		case 3:
			return name + ": '*" + word() + pick("*", "?", "") + word() + "*'"
		case 4:
			return name + pick("|re", "|re|i") + ": '" + regexp.QuoteMeta(word()) + pick("", ".*", "+", "{2}", "|x", "?") + regexp.QuoteMeta(word()) + "'"
		case 5:
			return name + pick("|exists: true", "|exists: false", ": null", ": ''", ": '*'", "|neq: '"+word()+"'", "|expand: '%words%'", "|expand|neq: '%words%'")
		case 6:
			return fmt.Sprintf("server.ip|cidr%s: %s", pick("", "|neq"), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), 0, 0}), 8+random.IntN(25)).Masked())
		case 7:
			return fmt.Sprintf("server.port%s: %d", pick("", "|lt", "|gte", "|neq"), random.IntN(4))
		default:
			return fmt.Sprintf("oddcert.chain.%s", pick("position: 0", "position|gt: 0", "truncated: true", "self_signed: true"))
		}
	}
	files := map[string]string{"lists/words.txt": "a\nb\nab\nba\n.\n"}
	for i := range 300 {
		var b strings.Builder
		for _, name := range []string{"x", "y", "z"} {
			b.WriteString(name + ":\n")
			seen := map[string]bool{}
			for range 1 + random.IntN(2) {
				l := line()
				if key, _, _ := strings.Cut(l, ":"); !seen[key] {
					seen[key] = true
					b.WriteString("  " + l + "\n")
				}
			}
		}
		b.WriteString("condition: " + pick("x", "x and y", "x or y", "x and not y", "not x", "not (x or y)", "not (not x and not y)", "1 of them", "x or y and z", "all of them"))
		files[fmt.Sprintf("%03d.yml", i)] = strings.Replace(rule(b.String()), "11111111", fmt.Sprintf("%08d", i), 1)
	}
	s := mustLoad(t, files)
	m := s.NewMatcher(nil)
	hits := 0
	var chains []event.ChainEntry // shared, as they are between handshakes
	for i := range 40 {
		chains = append(chains, event.ChainEntry{Certificate: &cert.Certificate{SHA256: [32]byte{byte(i), 1}, SelfSigned: i%3 == 0,
			Subject: cert.Name{String: word(), CommonName: []string{word(), word()}}, Issuer: cert.Name{CommonName: []string{word() + word()}}}, Truncated: i%5 == 0})
	}
	for range 2000 {
		h := &event.Handshake{
			Flow:        &event.Flow{Endpoints: [2]event.Endpoint{{}, {Addr: netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), 0, byte(random.IntN(3))}), Port: uint16(random.IntN(4))}}},
			ClientHello: &event.ClientHello{ServerName: word() + word(), Offer: new(event.Offer)}, Carrier: pick("", word()),
		}
		for range random.IntN(4) {
			h.Chain = append(h.Chain, chains[random.IntN(len(chains))])
		}
		for range random.IntN(2) {
			h.ClientChain = append(h.ClientChain, chains[random.IntN(len(chains))])
		}
		var got, want []string
		for _, match := range m.Match(h, nil, nil) {
			got = append(got, match.Rule.File)
		}
		m.h = h
		for _, r := range s.Rules() {
			if m.node(r.cond) {
				want = append(want, r.File)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("index %v\nall   %v", got, want)
		}
		hits += len(got)
	}
	if hits < 10_000 {
		t.Errorf("only %d matches: the test shows little", hits)
	}
}

// A glob is what the same regular expression is.
func TestGlobAgainstRegexp(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	text := func(alphabet string, n int) string {
		r := []rune(alphabet)
		var b strings.Builder
		for range random.IntN(n) {
			b.WriteRune(r[random.IntN(len(r))])
		}
		return b.String()
	}
	hits := 0
	for range 50_000 {
		pattern, s := text(`aäB*?\`, 9), text("aAäÄbB*", 10)
		var expr strings.Builder
		for _, p := range splitWildcards(pattern) {
			switch {
			case p.many:
				expr.WriteString(".*")
			case p.literal == "":
				expr.WriteString(".")
			default:
				expr.WriteString(regexp.QuoteMeta(p.literal))
			}
		}
		want := regexp.MustCompile(`(?is)^(?:` + expr.String() + `)$`).MatchString(s)
		parts := splitWildcards(pattern)
		if len(parts) == 0 {
			continue
		}
		test := pattern_(parts)
		if got := test.holds(&value{s: s}, []byte(s), []byte(fold(s))); got != want {
			t.Fatalf("%q on %q: %v", pattern, s, got)
		}
		if want {
			hits++
			if n := test.needle(); !strings.Contains(fold(s), n) {
				t.Fatalf("%q on %q: needle %q", pattern, s, n)
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d hits", hits)
	}
}

func pattern_(parts []part) test { return pattern(parts, false) }

func TestFoldAgainstEqualFold(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	some := []rune("kK\u212AsSſåÅ\u212BσςΣßẞǅǆǄ日ıIiİ")
	for range 100_000 {
		var a, b strings.Builder
		for range 1 + random.IntN(3) {
			a.WriteRune(some[random.IntN(len(some))])
			b.WriteRune(some[random.IntN(len(some))])
		}
		if (fold(a.String()) == fold(b.String())) != strings.EqualFold(a.String(), b.String()) {
			t.Fatalf("%q and %q", a.String(), b.String())
		}
	}
	if got := fold("A\xff\xc3B"); got != "a\xff\xc3b" {
		t.Errorf("invalid UTF-8: %q", got)
	}
}

func TestKeySet(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, lengths := range []int{1, 20} {
		var s keySet
		known := map[string]int{}
		for range 20_000 {
			key := make([]byte, 3+random.IntN(lengths))
			for i := range key {
				key[i] = byte(random.IntN(32))
			}
			n, added := s.add(key)
			old, there := known[string(key)]
			if added == there || there && old != n || !there && n != len(known) {
				t.Fatalf("%x: %d, %v; was %d, %v", key, n, added, old, there)
			}
			known[string(key)] = n
		}
		for key, n := range known {
			if s.find([]byte(key)) != n || string(s.key(n)) != key {
				t.Fatalf("%x is lost", key)
			}
		}
		if s.find([]byte("not there at all, whatever")) != -1 {
			t.Error("found what was never added")
		}
	}
}

func TestMissAllocatesNothing(t *testing.T) {
	s, err := Load(Builtin(), manyRules(2000, 1000))
	if err != nil {
		t.Fatal(err)
	}
	m, h := s.NewMatcher(nil), ordinary()
	h.ClientChain = h.Chain[1:]
	odd := ordinary()
	odd.Chain[0].Truncated = true
	var dst []Match
	if n := testing.AllocsPerRun(1000, func() {
		dst = m.Match(h, nil, dst[:0])
		dst = m.Match(odd, nil, dst)
	}); n != 0 || len(dst) != 0 {
		t.Errorf("%v allocations, %d matches", n, len(dst))
	}
	// Certificates that were never seen do not allocate either.
	fresh := make([]*event.Handshake, 300)
	for i := range fresh {
		fresh[i] = ordinary()
		fresh[i].Chain[0].Certificate.SHA256[0] = byte(i)
		fresh[i].Chain[0].Certificate.SHA256[1] = byte(i >> 8)
	}
	i := 0
	if n := testing.AllocsPerRun(len(fresh)-1, func() { dst = m.Match(fresh[i], nil, dst[:0]); i++ }); n != 0 {
		t.Errorf("%v allocations for a new certificate", n)
	}
}

// A set is shared by matchers on many goroutines.
func TestConcurrentMatchers(t *testing.T) {
	s, err := Load(Builtin(), manyRules(500, 1000))
	if err != nil {
		t.Fatal(err)
	}
	h := divd()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			m := s.NewMatcher(nil)
			for range 200 {
				if got := m.Match(h, nil, nil); len(got) != 2 { // one of them only correlations look at
					t.Errorf("%d matches", len(got))
					return
				}
			}
		})
	}
	group.Wait()
}

// Hostile conditions and values take bounded time.
func TestSlowInput(t *testing.T) {
	s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  tls.client.server_name: '*" + strings.Repeat("a*", 50) + "b'\n" +
		"b:\n  tls.client.server_name|re: '(a+)+$'\ncondition: a or b and a")})
	h := ordinary()
	h.ClientHello.ServerName = strings.Repeat("a", 65535) + "c"
	// What tries all ways to match these would not end before the test's deadline.
	if got := matches(t, s, h); len(got) != 0 {
		t.Errorf("%d matches", len(got))
	}
}
