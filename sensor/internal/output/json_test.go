package output

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dreadl0ck/tlsx"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
)

// reference is s as encoding/json writes it.
func reference(t testing.TB, s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var awkward = []string{
	"", "plain", `"\/`, "<a href='x'>&", "\x00\x01\b\f\n\r\t\x1b[31m\x1f\x7f", "é世界🎉", "\u2028\u2029\u202e\ufeff",
	"\xff", "a\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "\ufffd", "x\xe2\x80", "\xe2\x80\xa8",
}

func TestAppendString(t *testing.T) {
	for _, s := range awkward {
		if got, want := string(appendString(nil, s)), reference(t, s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		if got, want := string(appendString(nil, s)), reference(t, s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// FuzzRecord puts whatever comes into all strings of the wire: the record is
// one line of valid JSON in UTF-8, and says what encoding/json would say.
func FuzzRecord(f *testing.F) {
	for _, s := range awkward {
		f.Add(s, "x"+s, uint16(0x1301), int64(1e18))
	}
	f.Add("www.example.com", "CN=a", uint16(0xfefd), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, s, s2 string, v uint16, at int64) {
		if got, want := string(appendString(nil, s)), reference(t, s); got != want {
			t.Fatalf("%q: %s, want %s", s, got, want)
		}
		h, m := fullHandshake(t), fullMatch()
		hello := *h.ClientHello
		hello.ServerName = s
		offer := *hello.Offer
		offer.CipherSuites, offer.ALPN, offer.Extensions = []uint16{v, v >> 3}, []string{s, s2}, []uint16{v}
		hello.Offer = &offer
		h.ClientHello = &hello
		h.ServerHello.ALPN = s2
		h.Version, h.CipherSuite, h.Curve = v, v, v
		h.Start.Time, h.End.Time, h.Certificate.Time = at, at+1, at/2
		h.Flow.Origin.Path = s2
		h.Flow.VLANs[0] = v
		c := &cert.Certificate{
			DER: []byte(s), Version: int(v % 4), Serial: s2, SignatureAlgorithm: s,
			Subject:   cert.Name{String: s2, CommonName: []string{s, s2}, Country: []string{""}},
			NotBefore: cert.DateOf(time.Unix(at%1e12, 0)), NotAfter: cert.DateOf(time.Unix(int64(v)<<24, int64(v))),
			DNSNames: []string{s, s2}, URIs: []string{s2}, ParseError: s, AltNames: int(v),
			KeyUsage: cert.KeyUsage(v), ExtendedKeyUsage: []string{s}, Policies: []string{s2}, Permitted: []string{s}, Excluded: []string{s2},
			SubjectKeyID: []byte(s), AuthorityKeyID: []byte(s2), BasicConstraints: v%2 == 0, PathLen: int(v) - 1,
		}
		h.Chain[0].Certificate = c
		m.Value, m.Field, m.List, m.Reasons = s, s2, s, []string{s, s2}
		e, full := lean(testObserver), NewEncoder(testObserver, Options{Constants: true, Labels: map[string]string{s: s2}}, 0)
		for name, record := range map[string]func() []byte{
			"handshake":   func() []byte { b, _ := e.AppendHandshake(nil, h, nil, 1); return b },
			"alert":       func() []byte { b, _ := e.AppendAlert(nil, h, nil, m); return b },
			"full":        func() []byte { b, _ := full.AppendFullHandshake(nil, h, nil, 1); return b },
			"certificate": func() []byte { b, _ := e.AppendCertificate(nil, h, Place{}); return b },
			"sighting":    func() []byte { b, _ := e.AppendSighting(nil, h, nil, nil); return b },
			"hello":       func() []byte { b, _ := e.AppendHello(nil, h); return b },
		} {
			b := record()
			if !utf8.Valid(b) || !json.Valid(b) || bytes.ContainsAny(b, "\n\r") {
				t.Fatalf("%s: %q", name, b)
			}
			doc := decodeJSON(t, b).(map[string]any)
			if again := record(); !bytes.Equal(b, again) {
				t.Fatalf("%s differs the second time:\n%s\n%s", name, b, again)
			}
			var said string
			if err := json.Unmarshal([]byte(reference(t, s)), &said); err != nil {
				t.Fatal(err)
			}
			got, _ := doc["destination"].(map[string]any)["domain"].(string)
			if got != said {
				t.Fatalf("%s: destination.domain %q, want %q", name, got, said)
			}
			if _, err := time.Parse(time.RFC3339Nano, doc["@timestamp"].(string)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAppendTime(t *testing.T) {
	var c clock
	for _, at := range []int64{
		0, 1, -1, 999_999_999, 1_000_000_000, -1_000_000_000, -999_999_999, 1645461580_000000007, 1645461580_100000000,
		1645461579_999999999, math.MaxInt64, math.MinInt64, 951_782_400_000_000_000,
	} {
		want := `"x":"` + time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.000000000Z") + `",`
		if got := string(c.appendTime(nil, `"x":`, at)); got != want {
			t.Errorf("%d: %s, want %s", at, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	e, h := lean(testObserver), fullHandshake(t)
	said := func() map[string]any {
		b, _ := e.AppendHandshake(nil, h, nil, 1)
		return decodeJSON(t, b).(map[string]any)["tls"].(map[string]any)
	}
	names := map[uint16]string{0x5600: "TLS_FALLBACK_SCSV", 0x0a0a: "0x0a0a", 0xfa0a: "0xfa0a", 0xffff: "0xffff"}
	for v, name := range tlsx.CipherSuiteReg {
		if v < 0xffc0 || v > 0xffcd { // drafts of OCB suites in the range for private use
			names[uint16(v)] = name
		}
	}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		names[s.ID] = s.Name
	}
	for v, want := range names {
		h.CipherSuite = v
		if got := said()["cipher"]; got != want {
			t.Errorf("suite %#04x: %s, want %s", v, got, want)
		}
	}
	for v, want := range map[tls.CurveID]any{
		tls.CurveP256: "secp256r1", tls.CurveP384: "secp384r1", tls.CurveP521: "secp521r1",
		tls.X25519: "x25519", tls.X25519MLKEM768: "X25519MLKEM768", 0x0100: "ffdhe2048", 0x6a6a: "0x6a6a", 0: nil,
	} {
		h.Curve = uint16(v)
		if got := said()["curve"]; got != want {
			t.Errorf("group %d: %s, want %s", v, got, want)
		}
	}
	for v, want := range map[uint16][2]any{
		tls.VersionSSL30: {"3.0", "ssl"}, tls.VersionTLS10: {"1.0", "tls"}, tls.VersionTLS11: {"1.1", "tls"},
		tls.VersionTLS12: {"1.2", "tls"}, tls.VersionTLS13: {"1.3", "tls"}, 0x7f1c: {"1.3", "tls"},
		0xfeff: {"1.0", "dtls"}, 0xfefd: {"1.2", "dtls"}, 0xfefc: {"1.3", "dtls"}, 0x0002: {"2.0", "ssl"}, 0x0101: {"1.1", "tlcp"},
		0x0305: {nil, nil}, 0: {nil, nil},
	} {
		h.Version = v
		got := said()
		if got["version"] != want[0] || got["version_protocol"] != want[1] {
			t.Errorf("version %#04x: %v %v, want %v", v, got["version"], got["version_protocol"], want)
		}
	}
}

func TestHandshakeAllocatesNothing(t *testing.T) {
	h := fullHandshake(t)
	h.Chain = h.Chain[:3] // a truncated certificate is not worth keeping
	e := lean(testObserver)
	dst, _ := e.AppendHandshake(nil, h, nil, 1)
	second := *h
	second.Start.Time += 1e9
	if n := testing.AllocsPerRun(100, func() {
		dst, _ = e.AppendHandshake(dst[:0], h, nil, 0)
		dst, _ = e.AppendHandshake(dst[:0], &second, nil, 0)
	}); n != 0 {
		t.Errorf("%v allocations for two handshakes", n)
	}
}

func TestOffersAreCut(t *testing.T) {
	h := fullHandshake(t)
	hello := *h.ClientHello
	offer := *hello.Offer
	offer.CipherSuites, offer.ALPN = make([]uint16, maxOffered+5), make([]string, maxOffered+2)
	hello.Offer = &offer
	h.ClientHello = &hello
	e := lean(testObserver)
	for n := range uint64(2) { // the second time out of the cache
		b, _ := e.AppendHello(nil, h)
		doc := decodeJSON(t, b).(map[string]any)
		suites := doc["tls"].(map[string]any)["client"].(map[string]any)["supported_ciphers"].([]any)
		if len(suites) != maxOffered || e.Cut() != 7*(n+1) {
			t.Errorf("%d suites and %d values cut, want %d and %d", len(suites), e.Cut(), maxOffered, 7*(n+1))
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	h := fullHandshake(b)
	h.Chain, h.ClientChain = h.Chain[:2], nil
	h.Flow.Tunnel, h.Flow.VLANCount = nil, 0
	e := lean(testObserver)
	dst, _ := e.AppendHandshake(nil, h, nil, 1)
	b.ReportAllocs()
	b.SetBytes(int64(len(dst)))
	for b.Loop() {
		dst, _ = e.AppendHandshake(dst[:0], h, nil, 0)
	}
}

func BenchmarkHandshakeEncrypted(b *testing.B) {
	h := fullHandshake(b)
	h.Chain, h.ClientChain = nil, nil
	h.Outcome = event.Encrypted
	h.Flow.Tunnel, h.Flow.VLANCount = nil, 0
	e := lean(testObserver)
	dst, _ := e.AppendHandshake(nil, h, nil, 1)
	b.ReportAllocs()
	b.SetBytes(int64(len(dst)))
	for b.Loop() {
		dst, _ = e.AppendHandshake(dst[:0], h, nil, 0)
	}
}

// BenchmarkHandshakeNew is a handshake with a certificate never seen before.
func BenchmarkHandshakeNew(b *testing.B) {
	h := fullHandshake(b)
	h.Chain, h.ClientChain = h.Chain[:1], nil
	e := lean(testObserver)
	dst, _ := e.AppendHandshake(nil, h, nil, 1)
	b.ReportAllocs()
	for b.Loop() {
		c := *h.Chain[0].Certificate
		h.Chain[0].Certificate = &c
		dst, _ = e.AppendHandshake(dst[:0], h, nil, 0)
	}
}

func BenchmarkAlert(b *testing.B) {
	h, m := fullHandshake(b), fullMatch()
	e := lean(testObserver)
	dst, _ := e.AppendAlert(nil, h, nil, m)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = e.AppendAlert(dst[:0], h, nil, m)
	}
}
