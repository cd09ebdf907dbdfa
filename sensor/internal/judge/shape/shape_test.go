package shape

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
)

// hidden is a handshake of TLS 1.3 whose server has sent records of these lengths.
func hidden(suite uint16, lengths ...uint16) *event.Handshake {
	h := &event.Handshake{Version: 0x0304, CipherSuite: suite, Outcome: event.Encrypted,
		Flow: &event.Flow{Endpoints: [2]event.Endpoint{
			{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000}, {Addr: netip.MustParseAddr("192.0.2.2"), Port: 443}}},
		ClientHello: &event.ClientHello{Offer: &event.Offer{JA3: "known"}}}
	h.Flight.Records, h.Flight.Whole = uint8(copy(h.Flight.Lengths[:], lengths)), true
	return h
}

// The certificate of DIVD-2022-00013 is looked for: 1,248 bytes, so records of 1,278
// and 281.
func TestBuiltin(t *testing.T) {
	w, err := Load(rules.Builtin().FS)
	if err != nil {
		t.Fatal(err)
	}
	const divd = 0x10
	for _, c := range []struct {
		suite   uint16
		lengths []uint16
		fits    bool
	}{
		{0x1301, []uint16{23, 1278, 281, 53}, true},
		{0x1302, []uint16{23, 1278, 281, 69}, true},
		{0x1301, []uint16{27, 82, 1278, 281, 53, 135}, true}, // a CertificateRequest, and a ticket
		{0x1302, []uint16{65, 1294, 297, 85}, true},          // as Java pads
		{0x1305, []uint16{15, 1270, 273, 45}, true},          // a short tag
		{0x1301, []uint16{6 + 1261 + 264 + 36 + 17}, true},   // all in one
		{0x1301, []uint16{7 + 1261 + 264 + 36 + 17}, false},
		{0x1301, []uint16{23, 1279, 281, 53}, false},
		{0x1301, []uint16{23, 1277, 281, 53}, false},
		{0x1301, []uint16{23, 1278, 537, 53}, false},   // RSA-4096
		{0x1301, []uint16{23, 1278, 281, 69}, false},   // a Finished of another hash
		{0x1301, []uint16{23, 1278, 281}, false},       // and none
		{0x1301, []uint16{65, 1294, 281, 69}, false},   // padded here and there
		{0x1301, []uint16{528, 1552, 528, 528}, false}, // to multiples of 512
		{0xc02f, []uint16{23, 1278, 281, 53}, false},   // TLS 1.2
	} {
		h := hidden(c.suite, c.lengths...)
		got := w.Fits(Of(h), h, nil)
		if (len(got) == 1) != c.fits || len(got) == 1 && got[0][0] != divd {
			t.Errorf("%#x %v: %x", c.suite, c.lengths, got)
		}
	}
}

func TestLoad(t *testing.T) {
	const sum = "1073570f79136511ba45b44c923a55c69b97e91d3aaa2e06e5e657129ca809ff"
	file := func(text string) fstest.MapFS { return fstest.MapFS{"pack/watched.txt": {Data: []byte(text)}} }
	for text, want := range map[string]string{
		"":                              "",
		"# nothing\n\n":                 "",
		sum + " 1248 rsa-2048 # it\r\n": "",
		sum + " 1248 rsa-2048\n" + strings.ToUpper(sum) + "\t1248 rsa-2048": "",
		sum + " 1248":                                     "pack/watched.txt:1: 2 values",
		"\n" + sum[1:] + " 1248 rsa-2048":                 "pack/watched.txt:2: \"" + sum[1:],
		sum + " 100000 rsa-2048":                          "no length",
		sum + " 1248 rsa-2048\n" + sum + " 1249 rsa-2048": "pack/watched.txt:2: certificate",
		sum + " 1248 rsa-02048":                           "no kind of key",
		sum + " 1248 dsa\n" + sum + " x ed25519":          "pack/watched.txt:2: \"x\"",
		strings.Repeat("#", maxWatchedFile+1):             "token too long",
		strings.Repeat("#\n", maxWatchedFile/2+1):         "longer than",
	} {
		w, err := Load(file(text))
		switch {
		case err == nil && want != "", err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%.200q: %v, want %q", text, err, want)
		case err == nil && len(w.certificates) > 1:
			t.Errorf("%q: %d certificates", text, len(w.certificates))
		}
	}
	var none *Watched
	if h := hidden(0x1301, 23, 1278, 281, 53); len(none.Fits(Of(h), h, nil)) > 0 {
		t.Error("something fits where nothing is looked for")
	}
}

// leafOf is a certificate that only has what is looked at.
func leafOf(n byte, bytes int) *cert.Certificate {
	c := &cert.Certificate{DER: make([]byte, bytes), PublicKeyAlgorithm: "RSA", PublicKeySize: 2048}
	c.DER[0] = n
	c.SHA256 = sha256.Sum256(c.DER)
	return c
}

func showing(end int64, chain ...*cert.Certificate) *event.Handshake {
	h := hidden(0)
	h.End.Time = end
	for _, c := range chain {
		h.Chain = append(h.Chain, event.ChainEntry{Certificate: c})
	}
	return h
}

func TestShown(t *testing.T) {
	s := NewShown(1)
	encrypted := func(certificate uint16) *event.Handshake { return hidden(0x1301, 23, certificate, 281, 53) }
	fits := func(h *event.Handshake) int { return len(s.Fits(Of(h), h)) }
	s.See(showing(1, leafOf(1, 1000), leafOf(2, 1500)))
	alone, together, other := encrypted(1030), encrypted(1030+1505), encrypted(1530)
	if fits(alone) != 1 || fits(together) != 1 || fits(other) != 0 {
		t.Error("not what was shown")
	}
	elsewhere := encrypted(1030)
	elsewhere.Flow.Endpoints[1].Port = 444
	if fits(elsewhere) != 0 {
		t.Error("another server")
	}
	late := encrypted(1030)
	if late.End.Time = shownFor + 1; fits(late) != 1 {
		t.Error("forgotten too early")
	}
	if late.End.Time++; fits(late) != 0 {
		t.Error("remembered for too long")
	}
	// A chain that was not seen whole leaves the one that was.
	cut := showing(5, leafOf(1, 1000))
	cut.Chain = append(cut.Chain, event.ChainEntry{Certificate: leafOf(2, 10), Truncated: true})
	if s.See(cut); fits(late) != 1 || fits(together) != 1 {
		t.Error("a cut chain")
	}
	for i := range byte(maxLeaves) { // the last are remembered
		s.See(showing(6, leafOf(10+i, 2000+int(i))))
	}
	if fits(alone) != 0 || fits(encrypted(2030)) != 1 || fits(encrypted(2033)) != 1 {
		t.Error("not the last leaves")
	}
	if s.Next(); fits(encrypted(2030)) != 0 {
		t.Error("remembered from another capture")
	}

	seen, again := showing(1, leafOf(1, 1000), leafOf(2, 1500)), encrypted(900)
	x := Of(again)
	s.See(seen)
	if n := testing.AllocsPerRun(1000, func() { s.See(seen); s.Fits(x, again) }); n > 0 {
		t.Errorf("%v allocations for what is known", n)
	}
	for i := range 200_000 { // a scan
		h := showing(1, leafOf(1, 1000))
		h.Flow.Endpoints[1].Addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.See(h)
	}
	if n := s.servers.Len() * serverCost; n > maxShown || s.Forgotten() == 0 {
		t.Errorf("%d bytes, %d forgotten", n, s.Forgotten())
	}
}

func BenchmarkSee(b *testing.B) {
	s, h := NewShown(1), showing(1, leafOf(1, 1000), leafOf(2, 1500))
	b.ReportAllocs()
	for b.Loop() {
		s.See(h)
	}
}

// FuzzShape says of any lengths what it says of them, and recomputes what fits by the
// sums of RFC 8446.
func FuzzShape(f *testing.F) {
	f.Add(uint16(0x1301), uint16(23), uint16(1278), uint16(281), uint16(53), uint16(135), uint8(4), uint16(1248), true)
	f.Add(uint16(0x1302), uint16(65), uint16(62), uint16(1294), uint16(297), uint16(85), uint8(5), uint16(1248), false)
	f.Add(uint16(0x1301), uint16(1129), uint16(0), uint16(0), uint16(0), uint16(0), uint8(1), uint16(780), true)
	f.Fuzz(func(t *testing.T, suite, a, b, c, d, e uint16, n uint8, bytes uint16, whole bool) {
		h := hidden(suite, []uint16{a, b, c, d, e}[:n%6]...)
		h.Flight.Whole = whole
		h.ClientHello.ALPN = []string{"h2"}
		h.ClientHello.ServerName = "x"
		x := Of(h)
		for _, kind := range []string{"rsa-2048", "ecdsa-p256", "ed25519"} {
			if len(watchedOf(int(bytes), kind).Fits(x, h, nil)) == 0 {
				continue
			}
			low := map[string]int{"rsa-2048": 256, "ecdsa-p256": 67, "ed25519": 64}[kind]
			high := max(low, map[string]int{"ecdsa-p256": 72}[kind])
			tag, finished := 16, 36
			if suite == 0x1305 {
				tag = 8
			}
			if suite == 0x1302 {
				finished = 52
			}
			explained := false
			for sig := low; sig <= high; sig++ {
				for _, pad := range []int{0, 16} {
					more := tag + 1 + pad
					messages := []int{13 + int(bytes) + more, 8 + sig + more, finished + more}
					for first := 1; first <= 2; first++ {
						ok := int(n%6) >= first+3
						for i, m := range messages {
							ok = ok && int(h.Flight.Lengths[first+i]) == m
						}
						explained = explained || ok
					}
				}
				for _, ee := range []int{6, 10, 15, 19} {
					explained = explained || whole && n%6 == 1 && kind != "ecdsa-p256" && int(a) == ee+13+int(bytes)+8+sig+finished+tag+1
				}
			}
			if !explained {
				t.Errorf("%#x %v: %s of %d bytes fits %+v", suite, h.Flight.Lengths[:h.Flight.Records], kind, bytes, x)
			}
		}
	})
}
