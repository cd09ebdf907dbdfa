package rules

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// element is one DER element.
func element(tag byte, contents ...[]byte) []byte {
	b := bytes.Join(contents, nil)
	head := []byte{tag, 0x84}
	return append(binary.BigEndian.AppendUint32(head, uint32(len(b))), b...)
}

func certificateWith(names []byte, notBefore, notAfter string) *cert.Certificate {
	return certificateOf(nil, names, notBefore, notAfter)
}

// certificateOf is a certificate with these RDNs and GeneralNames, and a validity
// in GeneralizedTime.
func certificateOf(rdns, names []byte, notBefore, notAfter string) *cert.Certificate {
	null := []byte{5, 0}
	rsa := element(0x30, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11}, null)
	extension := element(0x30, []byte{6, 3, 0x55, 0x1d, 0x11}, element(4, element(0x30, names)))
	tbs := element(0x30, element(0xa0, []byte{2, 1, 2}), []byte{2, 1, 1}, rsa, element(0x30),
		element(0x30, element(0x18, []byte(notBefore)), element(0x18, []byte(notAfter))), element(0x30, rdns),
		element(0x30, rsa, element(3, []byte{0, 0})), element(0xa3, element(0x30, extension)))
	return cert.Parse(element(0x30, tbs, rsa, element(3, []byte{0, 1})))
}

func withCertificate(c *cert.Certificate) *event.Handshake {
	h := ordinary()
	h.Chain = []event.ChainEntry{h.Chain[1], {Certificate: c}}
	return h
}

// A name is found wherever it stands among others, by whatever a rule asks of it.
func TestNameAmongMany(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"lists/evil.txt": "evil.example\nworse.example\n", "lists/other.txt": "other.example\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := []struct {
		line string
		want bool // with the name, and without when it is not
	}{
		{`oddcert.chain.name: Evil.Example`, true},
		{`oddcert.chain.name: [a.example, evil.example]`, true},
		{`oddcert.chain.name|contains: vil.exam`, true},
		{`oddcert.chain.name|endswith: l.example`, true},
		{`oddcert.chain.name|startswith: evil.`, true},
		{`oddcert.chain.name|re: '^ev.l\.'`, true},
		{`oddcert.chain.name: '*vil.exampl?'`, true},
		{`oddcert.chain.name|cased: evil.example`, true},
		{`oddcert.chain.name|expand: '%evil%'`, true},
		{`oddcert.chain.name|all: [evil.example, name-7.example]`, true},
		{`oddcert.chain.x509.alternative_names: evil.example`, true},
		{`oddcert.chain.name|neq: evil.example`, false},
	}
	const n = 50_000
	for _, place := range []int{0, 2047, 2048, 2049, n / 2, n - 1} {
		var names []byte
		for i := range n {
			name := fmt.Sprintf("name-%d.example", i)
			if i == place {
				name = "evil.example"
			}
			names = append(append(names, 0x82, byte(len(name))), name...)
		}
		c := certificateWith(names, "20200101000000Z", "20300101000000Z")
		if c.AltNames != n {
			t.Fatalf("%d names: %s", c.AltNames, c.ParseError)
		}
		h := withCertificate(c)
		clean := withCertificate(certificateWith(bytes.ReplaceAll(names, []byte("evil.example"), []byte("good.example")), "20200101000000Z", "20300101000000Z"))
		for _, l := range lines {
			// The line anchors the rule, or another does.
			for _, detection := range []string{
				"a:\n  " + l.line + "\ncondition: a",
				"a:\n  oddcert.chain.position: 1\n  " + l.line + "\nb:\n  server.port: 443\ncondition: a and b",
			} {
				if err := os.WriteFile(filepath.Join(dir, "r.yml"), []byte(rule(detection)), 0o600); err != nil {
					t.Fatal(err)
				}
				s, err := Load(Source{dir, os.DirFS(dir)})
				if err != nil {
					t.Fatal(err)
				}
				m := s.NewMatcher(nil)
				for range 2 { // the second time the index remembers
					got := m.Match(h, nil, nil)
					found := len(got) == 1 && got[0].ChainIndex == 1
					if !l.want { // the other certificate has no such name
						found = len(got) == 1 && got[0].ChainIndex == 1
					}
					if found != l.want {
						t.Fatalf("%s, name %d: %v", l.line, place, got)
					}
					if l.want && len(m.Match(clean, nil, nil)) != 0 {
						t.Fatalf("%s: holds without the name", l.line)
					}
				}
			}
		}
	}
}

// Rules hold for the names that a certificate does not keep as they do for those
// that it keeps.
func TestNamesAsKept(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	letters := []string{"a", "B", "b", "é", "É", "K", "\u212a", ".", "x"}
	word := func(n int) (s string) {
		for range random.IntN(n) {
			s += letters[random.IntN(len(letters))]
		}
		return s
	}
	ops := []string{"", "|contains", "|startswith", "|endswith", "|cased", "|contains|cased", "|re", "|re|i", "|neq", "|contains|neq"}
	files := make(map[string]string)
	for i := range 300 {
		op, values := ops[random.IntN(len(ops))], make([]string, 1+random.IntN(3))
		for i := range values {
			w := word(5)
			switch {
			case strings.Contains(op, "re"):
				w = []string{"^" + w + "$", w, w + ".*" + word(2), "(" + w + "|" + word(3) + ")"}[random.IntN(4)]
				w = strings.ReplaceAll(w, ".", `\.`)
			case random.IntN(4) == 0:
				w += []string{"*", "?", "*?" + word(3)}[random.IntN(3)]
			}
			if w == "" && op != "" {
				w = "a"
			}
			values[i] = "'" + w + "'"
		}
		field := []string{"name", "x509.alternative_names"}[random.IntN(2)]
		detection := "a:\n  oddcert.chain." + field + op + ": [" + strings.Join(values, ", ") + "]\ncondition: a"
		files[fmt.Sprintf("%03d.yml", i)] = strings.Replace(rule(detection), "11111111", fmt.Sprintf("%08d", i), 1)
	}
	s := mustLoad(t, files)
	m := s.NewMatcher(nil)
	held := 0
	for range 40 {
		var names []byte
		kept := &cert.Certificate{SHA256: [32]byte{byte(random.Uint32()), byte(random.Uint32()), 1}}
		for range 2048 {
			names = append(names, "\x86\x00"...) // URIs, to fill the lists
			kept.URIs = append(kept.URIs, "")
		}
		for range random.IntN(8) {
			name := word(7)
			kind := []byte{0x82, 0x81}[random.IntN(2)]
			names = append(append(names, kind, byte(len(name))), name...)
			if kind == 0x82 {
				kept.DNSNames = append(kept.DNSNames, name)
			} else {
				kept.EmailAddresses = append(kept.EmailAddresses, name)
			}
		}
		c := certificateWith(names, "20200101000000Z", "20300101000000Z")
		ids := func(c *cert.Certificate) (ids []string) {
			h := ordinary()
			h.Chain = []event.ChainEntry{{Certificate: c}}
			for _, match := range m.Match(h, nil, nil) {
				ids = append(ids, match.Rule.ID)
			}
			return ids
		}
		got, want := ids(c), ids(kept)
		if !slices.Equal(got, want) {
			t.Fatalf("names %q and %q beyond those kept: matches of\n%q, of the same kept\n%q", kept.DNSNames, kept.EmailAddresses, got, want)
		}
		held += len(want)
	}
	if held < 500 {
		t.Errorf("only %d matches", held)
	}
}

// Names of other kinds are not values of a field, and what a field
// has is there when only the last of many names is of its kinds.
func TestNameOfAnotherKind(t *testing.T) {
	names := append(bytes.Repeat([]byte("\x81\x01a"), 5000), "\x82\x0cevil.example"...)
	for line, want := range map[string]bool{
		`oddcert.chain.name|exists: true`:  true,
		`oddcert.chain.name: evil.example`: true,
		`oddcert.chain.name: a`:            false,
		`oddcert.chain.name: null`:         false,

		`oddcert.chain.x509.alternative_names: a`:           true,
		`oddcert.chain.x509.alternative_names_count: 5001`:  true,
		`oddcert.chain.x509.alternative_names: null`:        false,
		`oddcert.chain.x509.alternative_names|exists: true`: true,
	} {
		h := ordinary()
		h.Chain = []event.ChainEntry{{Certificate: certificateWith(names, "20200101000000Z", "20300101000000Z")}}
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + line + "\ncondition: a")})
		if got := matches(t, s, h); (len(got) == 1) != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// A common name is found after any number of attributes.
func TestCommonNameAmongMany(t *testing.T) {
	attribute := func(last byte, value string) []byte {
		return element(0x31, element(0x30, []byte{6, 3, 0x55, 4, last}, element(0x0c, []byte(value))))
	}
	subject := append(bytes.Repeat(attribute(10, "O"), 500), attribute(3, "evil.example")...)
	for line, want := range map[string]bool{
		`oddcert.chain.name: evil.example`:                          true,
		`oddcert.chain.name|endswith: .example`:                     true,
		`oddcert.chain.x509.subject.common_name: evil.example`:      true,
		`tls.server.x509.subject.common_name|exists: true`:          true,
		`oddcert.chain.x509.issuer.common_name: evil.example`:       false,
		`oddcert.chain.x509.subject.organization: evil.example`:     false,
		`oddcert.chain.x509.alternative_names|contains: evil`:       false,
		`oddcert.chain.parse_error|exists: true`:                    true,
		`oddcert.chain.x509.subject.common_name|neq: evil.example`:  false,
		`oddcert.chain.x509.subject.common_name|neq: other.example`: true,
	} {
		h := ordinary()
		h.Chain = []event.ChainEntry{{Certificate: certificateOf(subject, nil, "20200101000000Z", "20300101000000Z")}}
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  " + line + "\ncondition: a")})
		if got := matches(t, s, h); (len(got) == 1) != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// Dates are those that the certificate names, of whatever year.
func TestDates(t *testing.T) {
	at := time.Date(2026, 5, 6, 7, 8, 9, 500, time.UTC)
	for _, c := range []struct {
		notBefore, notAfter string
		line                string
		want                bool
	}{
		{"00010101000000Z", "99991231235959Z", "not_before: 0001-01-01", true},
		{"00010101000000Z", "99991231235959Z", "x509.not_before: '0001-01-01T00:00:00Z'", true},
		{"00010101000000Z", "99991231235959Z", "not_before: '0001-*'", true},
		{"00010101000000Z", "99991231235959Z", "not_before|exists: false", false},
		{"00010101000000Z", "99991231235959Z", "not_after: 9999-12-31T23:59:59Z", true},
		{"00010101000000Z", "99991231235959Z", "validity.days: 3652058", true},
		{"00010101000000Z", "99991231235959Z", "validity.expired: false", true},
		{"00010101000000Z", "99991231235959Z", "validity.not_yet_valid: false", true},
		{"00000101000000Z", "00001231000000Z", "not_before: 0000-01-01", true},
		{"00000101000000Z", "00001231000000Z", "validity.expired: true", true},
		{"00000101000000Z", "00001231000000Z", "validity.days: 365", true},
		{"00000101000000Z", "00001231000000Z", "validity.days_left|lt: -700000", true},
		{"19700101000000Z", "19700101000000Z", "not_before: 1970-01-01", true},
		{"19700101000000Z", "19700101000000Z", "validity.days: 0", true},
		{"19691231235959Z", "19500101000000Z", "not_before: 1969-12-31T23:59:59Z", true},
		{"19691231235959Z", "19500101000000Z", "validity.days: -7305", true},
		{"30000101000000Z", "30000102000000Z", "validity.not_yet_valid: true", true},
		{"20200101000000Z", "20260506070809Z", "validity.expired: true", true}, // by 500 ns
		{"20200101000000Z", "20260506070809Z", "validity.days_left: -1", true},
		{"20200101000000Z", "20260506070810Z", "validity.expired: false", true},
		{"20200101000000Z", "20260507070809Z", "validity.days_left: 0", true},
		{"20200101000000Z", "20260507070810Z", "validity.days_left: 1", true},
		{"20200101000000Z", "20260508070809Z", "validity.days_left: 1", true},
		{"20260506070809Z", "20260508070809Z", "validity.not_yet_valid: false", true},
		{"20260506070810Z", "20260508070809Z", "validity.not_yet_valid: true", true},
		{"nonsense", "20260508070809Z", "not_before: null", true},
		{"nonsense", "20260508070809Z", "validity.days: null", true},
		{"nonsense", "20260508070809Z", "validity.expired: false", true},
		{"20260506070810Z", "nonsense", "validity.expired: null", true},
	} {
		h := ordinary()
		h.End.Time = at.UnixNano()
		h.Chain = []event.ChainEntry{{Certificate: certificateWith(nil, c.notBefore, c.notAfter)}}
		s := mustLoad(t, map[string]string{"r.yml": rule("a:\n  oddcert.chain." + c.line + "\ncondition: a")})
		if got := matches(t, s, h); (len(got) == 1) != c.want {
			t.Errorf("%s to %s, %s: %v", c.notBefore, c.notAfter, c.line, !c.want)
		}
	}
}

// What many names cost does not grow with how many rules ask for them.
func BenchmarkManyNames(b *testing.B) {
	var names []byte
	for i := range 100_000 {
		name := fmt.Sprintf("%05d.xx", i)
		names = append(append(names, 0x82, byte(len(name))), name...)
	}
	h := ordinary()
	h.Chain = []event.ChainEntry{{Certificate: certificateWith(names, "20200101000000Z", "20300101000000Z")}}
	for _, rules := range []int{1, 100} {
		for kind, line := range map[string]string{"exact": "oddcert.chain.name: %05d.xx", "part": "oddcert.chain.name|contains: %05d.x"} {
			files := make(map[string]string)
			for i := range rules {
				detection := "a:\n  server.port: 1\nb:\n  " + fmt.Sprintf(line, 99_999-i) + "\ncondition: b and a"
				files[fmt.Sprintf("%d.yml", i)] = strings.Replace(rule(detection), "11111111", fmt.Sprintf("%08d", i), 1)
			}
			s := mustLoad(b, files)
			b.Run(fmt.Sprintf("%s/%d rules", kind, rules), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if got := s.NewMatcher(nil).Match(h, nil, nil); len(got) != 0 {
						b.Fatal(got)
					}
				}
			})
		}
	}
}
