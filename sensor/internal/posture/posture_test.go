package posture

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

func list(leaves ...*inventory.Certificate) iter.Seq2[*inventory.Certificate, error] {
	return func(yield func(*inventory.Certificate, error) bool) {
		for _, c := range leaves {
			if !yield(c, nil) {
				return
			}
		}
	}
}

type counts = map[uint16]uint64

// TestExchange has what was negotiated and what was offered, and never the one for the
// other.
func TestExchange(t *testing.T) {
	for name, c := range map[string]struct {
		versions, groups, offered counts
		want                      Exchange
		n                         uint64
	}{
		"no ServerHello":                   {nil, nil, counts{4588: 3, 29: 3}, Unknown, 0},
		"hybrid":                           {counts{0x304: 5}, counts{4588: 3, 29: 2}, counts{4588: 3, 29: 5}, Hybrid, 3},
		"hybrid of two kinds":              {counts{0x304: 5}, counts{4587: 3, 4589: 2}, nil, Hybrid, 5},
		"drafts":                           {counts{0x304: 2}, counts{25497: 1, 25498: 1}, nil, Hybrid, 2},
		"ML-KEM alone":                     {counts{0x304: 2}, counts{513: 1, 29: 1}, nil, Pure, 1},
		"ML-KEM alone and hybrid":          {counts{0x304: 2}, counts{514: 1, 4588: 1}, nil, Hybrid, 2},
		"offered":                          {counts{0x304: 2}, counts{29: 2}, counts{29: 2, 4588: 1}, Offered, 0},
		"offered, a draft":                 {counts{0x303: 2}, counts{23: 2}, counts{25497: 1}, Offered, 0},
		"classical":                        {counts{0x304: 2}, counts{29: 2}, counts{29: 2, 23: 2}, Classical, 0},
		"GREASE and what nobody knows":     {counts{0x304: 2}, counts{29: 2}, counts{0x1a1a: 2, 0x6a6a: 1, 0x7777: 1}, Classical, 0},
		"RSA key exchange":                 {counts{0x303: 2}, nil, nil, Classical, 0},
		"SSL 2.0":                          {counts{0x0002: 1}, nil, nil, Classical, 0},
		"DTLS 1.2":                         {counts{0xfefd: 1}, nil, counts{4588: 1}, Offered, 0},
		"resumed, with the old secret":     {counts{0x304: 2}, nil, counts{4588: 2}, Unknown, 0},
		"resumed DTLS 1.3":                 {counts{0xfefc: 2}, nil, nil, Unknown, 0},
		"a version that nobody knows":      {counts{0x9999: 1}, nil, nil, Unknown, 0},
		"a group that nobody knows":        {counts{0x304: 1}, counts{0x7777: 1}, nil, Classical, 0},
		"TLS 1.2 as well, without a group": {counts{0x304: 1, 0x303: 1}, nil, nil, Classical, 0},
	} {
		p, err := Of(&inventory.Server{Versions: c.versions, Groups: c.groups, Offered: c.offered}, list())
		if err != nil || p.Exchange != c.want || p.PostQuantum != c.n {
			t.Errorf("%s: %v (%d), want %v (%d); %v", name, p.Exchange, p.PostQuantum, c.want, c.n, err)
		}
	}
}

// TestLeaf has every set of outcomes: what was seen is never called absent, and
// what is absent never hidden.
func TestLeaf(t *testing.T) {
	for set := range 1 << event.Outcomes {
		var v inventory.Server
		has := func(o event.Outcome) bool { return set>>o&1 == 1 }
		for o := range event.Outcomes {
			if has(o) {
				v.Outcomes[o] = 7
			}
		}
		p, err := Of(&v, list())
		if err != nil {
			t.Fatal(err)
		}
		want := None
		switch {
		case has(event.Extracted):
			want = Seen
		case has(event.Encrypted):
			want = Encrypted
		case has(event.Lost):
			want = Lost
		case has(event.Resumed):
			want = Resumed
		}
		if p.Leaf != want {
			t.Errorf("%05b: %v, want %v", set, p.Leaf, want)
		}
	}
}

func TestOf(t *testing.T) {
	rsa := &inventory.Certificate{KeyAlgorithm: "RSA", KeySize: 2048, SignatureAlgorithm: "SHA256-RSA"}
	short := &inventory.Certificate{KeyAlgorithm: "RSA", KeySize: 1024, SignatureAlgorithm: "SHA1-RSA"}
	own := &inventory.Certificate{KeyAlgorithm: "ECDSA", KeySize: 256, KeyCurve: "P-256", SignatureAlgorithm: "ECDSA-SHA1", SelfSigned: true}
	unread := &inventory.Certificate{ParseError: "not a certificate"}
	v := &inventory.Server{
		Versions: counts{0x0303: 4, 0x0301: 5, 0x0a0a: 1}, Suites: counts{0xc030: 4, 0x0005: 2, 0x000a: 1, 0xeeee: 1},
		Groups: counts{23: 2, 29: 2}, Signatures: counts{0x0804: 1, 0: 0},
	}
	p, err := Of(v, list(rsa, short, own, unread, rsa))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want []Value }{
		"versions": {p.Versions, []Value{{"TLS 1.0", 5}, {"TLS 1.2", 4}}},
		"suites": {p.Suites, []Value{{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 4}, {"TLS_RSA_WITH_RC4_128_SHA", 2},
			{"0xEEEE", 1}, {"TLS_RSA_WITH_3DES_EDE_CBC_SHA", 1}}},
		"groups": {p.Groups, []Value{{"secp256r1", 2}, {"x25519", 2}}},
		"keys":   {p.Keys, []Value{{"RSA-2048", 2}, {"ECDSA P-256", 1}, {"RSA-1024", 1}}},
		"signed": {p.Signed, []Value{{"SHA256-RSA", 2}, {"ECDSA-SHA1", 1}, {"SHA1-RSA", 1}}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if want := []string{"3DES", "RC4", "RSA-1024 key", "SHA-1 signature", "TLS 1.0"}; !slices.Equal(p.Weak, want) {
		t.Errorf("weak: %q, want %q", p.Weak, want)
	}
	many := slices.Repeat([]*inventory.Certificate{rsa}, MaxLeaves+3)
	if p, err := Of(v, list(many...)); err != nil || p.Keys[0].N != MaxLeaves || p.LeftOut != 3 {
		t.Errorf("%v, %d left out, %v", p.Keys, p.LeftOut, err)
	}
	failed := errors.New("the disk is gone")
	if _, err := Of(v, func(yield func(*inventory.Certificate, error) bool) { yield(nil, failed) }); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
}

// TestWeak has the suites and versions that the rules of pack hygiene name.
func TestWeak(t *testing.T) {
	for name, want := range map[string]string{
		"TLS_RSA_EXPORT_WITH_DES40_CBC_SHA": "export cipher", "TLS_RSA_WITH_DES_CBC_SHA": "DES", "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA": "3DES",
		"TLS_RSA_WITH_NULL_SHA256": "no encryption", "TLS_DH_anon_WITH_AES_128_CBC_SHA": "anonymous", "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "RC4",
		"TLS_RSA_EXPORT_WITH_RC2_CBC_40_MD5": "export cipher", "TLS_NULL_WITH_NULL_NULL": "no encryption",
		"TLS_AES_128_GCM_SHA256": "", "TLS_RSA_WITH_AES_128_CBC_SHA": "", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "", "0xEEEE": "",
	} {
		if got := WeakSuite(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for version, want := range map[uint16]bool{0x0002: true, 0x0300: true, 0x0301: true, 0x0302: true, 0x0303: false, 0x0304: false,
		0xfeff: true, 0xfefd: false, 0xfefc: false, 0x0101: false, 0x9999: false} {
		if got := WeakVersion(version); got != want {
			t.Errorf("%04x: %v", version, got)
		}
	}
}
