package ja

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
)

// The examples of the README of JA3.
func TestJA3(t *testing.T) {
	for _, c := range []struct {
		lists     event.Offer
		raw, hash string
	}{
		{
			event.Offer{Version: 769, CipherSuites: []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4},
				Extensions: []uint16{0, 10, 11}, SupportedGroups: []uint16{23, 24, 25}, PointFormats: []uint8{0}},
			"769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0", "ada70206e40642a3e4461f35503241d5",
		},
		{
			event.Offer{Version: 769, CipherSuites: []uint16{4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99}},
			"769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6",
		},
		{ // GREASE at the beginning, between and at the end leaves no dash behind
			event.Offer{Version: 769, CipherSuites: []uint16{0x0a0a, 4, 0x1a1a, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99, 0xfafa},
				Extensions: []uint16{0x2a2a}, SupportedGroups: []uint16{0x3a3a}},
			"769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6",
		},
	} {
		if hash, raw := JA3(&c.lists); raw != c.raw || hash != c.hash {
			t.Errorf("JA3 %s %q, want %s %q", hash, raw, c.hash, c.raw)
		}
	}
}

// The example of the README of JA3S.
func TestJA3S(t *testing.T) {
	body := append([]byte{3, 1}, make([]byte, 32+1)...)
	body = append(body, 0, 47, 0)
	body = append(body, 0, 6*4, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 35, 0, 0, 0, 5, 0, 0, 0, 16, 0, 0)
	h, ok := tls.ParseServerHello(body)
	if !ok || !h.Whole {
		t.Fatalf("ServerHello %+v", h)
	}
	if hash, raw := JA3S(&h); raw != "769,47,65281-0-11-35-5-16" || hash != "836ce314215654b5b1f85f97c73e506f" {
		t.Errorf("JA3S %s %q", hash, raw)
	}
}

// specified is the ClientHello that JA4's specification takes apart.
var specified = event.Offer{
	Version: tls.VersionTLS12,
	CipherSuites: []uint16{0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
		0x009c, 0x009d, 0x002f, 0x0035},
	Extensions: []uint16{0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b,
		0xff01, 0x000b, 0x000a, 0x0015},
	SignatureAlgorithms: []uint16{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
	SupportedVersions:   []uint16{0x0a0a, tls.VersionTLS13, tls.VersionTLS12},
	ALPN:                []string{"h2", "http/1.1"},
}

func TestJA4(t *testing.T) {
	with := func(change func(*event.Offer)) event.Offer {
		l := specified
		change(&l)
		return l
	}
	for _, c := range []struct {
		name  string
		lists event.Offer
		over  Transport
		want  string
	}{
		{"specification", specified, TCP, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		{"QUIC", specified, QUIC, "q13d1516h2_8daaf6152771_e5627efa2ab1"},
		{"no signature algorithms", with(func(l *event.Offer) { l.SignatureAlgorithms = nil }), TCP,
			"t13d1516h2_8daaf6152771_6d807ffa2a79"},
		{"GREASE", with(func(l *event.Offer) {
			l.CipherSuites = append([]uint16{0x3a3a}, l.CipherSuites...)
			l.Extensions = append(append([]uint16{0x4a4a}, l.Extensions...), 0x5a5a)
			l.SignatureAlgorithms = append([]uint16{0x6a6a}, l.SignatureAlgorithms...)
		}), TCP, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		{"legacy version alone", with(func(l *event.Offer) { l.SupportedVersions = nil }), TCP,
			"t12d1516h2_8daaf6152771_e5627efa2ab1"},
		{"no list at all", event.Offer{Version: tls.VersionSSL30}, TCP, "ts3i000000_000000000000_000000000000"},
		{"DTLS 1.2", with(func(l *event.Offer) { l.Version, l.SupportedVersions = tls.VersionDTLS12, nil }), DTLS,
			"dd2d1516h2_8daaf6152771_e5627efa2ab1"},
		{"DTLS 1.3 counts down", with(func(l *event.Offer) {
			l.SupportedVersions = []uint16{tls.VersionDTLS12, tls.VersionDTLS13, tls.VersionDTLS10}
		}), DTLS, "dd3d1516h2_8daaf6152771_e5627efa2ab1"},
		{"a draft", with(func(l *event.Offer) { l.SupportedVersions = []uint16{0x7f1c, tls.VersionTLS12} }), TCP,
			"t00d1516h2_8daaf6152771_e5627efa2ab1"},
		{"more than 99", with(func(l *event.Offer) { l.CipherSuites = make([]uint16, 150) }), TCP, "t13d9916h2_"},
	} {
		if got := JA4(&c.lists, c.over); got != c.want && !(strings.HasSuffix(c.want, "_") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// The examples of JA4's specification, and what it says in words.
func TestJA4ALPN(t *testing.T) {
	for alpn, want := range map[string]string{
		"": "00", "h2": "h2", "http/1.1": "h1", "x": "xx",
		"\xab": "ab", "\xab\xcd": "ad", "\x30\xab": "3b", "\x30\x31\xab\xcd": "3d", "\x30\xab\xcd\x31": "01",
	} {
		l := event.Offer{ALPN: []string{alpn}}
		if got := JA4(&l, TCP)[8:10]; got != want {
			t.Errorf("%q: %s, want %s", alpn, got, want)
		}
	}
}

func TestSortCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 255, 256, 257, 5000, 32767} {
		l := make([]uint16, n)
		for i := range l {
			l[i] = uint16(r.Uint32()) >> r.IntN(12)
		}
		want := slices.Sorted(slices.Values(l))
		if sortCodes(l); !slices.Equal(l, want) {
			t.Errorf("%d are not in order", n)
		}
	}
}
