package tls

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestKeyExchangeOf compares with OpenSSL, which knows of each of its suites how keys
// are exchanged and who authenticates.
func TestKeyExchangeOf(t *testing.T) {
	out, err := exec.Command("openssl", "ciphers", "-V", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Skipf("no ciphers of openssl here: %v", err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		number := strings.ReplaceAll(f[0], "0x", "")
		suite, err := strconv.ParseUint(strings.ReplaceAll(number, ",", ""), 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		kx, au := strings.TrimPrefix(f[4], "Kx="), strings.TrimPrefix(f[5], "Au=")
		want := map[string]KeyExchange{
			"RSA": ExchangeRSA, "ECDH": ExchangeECDHE, "DH": ExchangeDHE, "SRP": ExchangeSRP, "RSAPSK": ExchangeRSAPSK, "GOST": ExchangeStatic, "GOST18": ExchangeStatic,
			"PSK": ExchangeUnsigned, "DHEPSK": ExchangeUnsigned, "ECDHEPSK": ExchangeUnsigned, "any": ExchangeUnknown,
		}[kx]
		if au == "None" || au == "SRP" {
			want = ExchangeUnsigned
		}
		if got := KeyExchangeOf(uint16(suite)); got != want {
			t.Errorf("%s: %d, want %d", strings.TrimSpace(line), got, want)
		}
		n++
	}
	if n < 30 {
		t.Errorf("%d suites", n)
	}
}

// TestKeyExchangeOthers has suites that OpenSSL does not have.
func TestKeyExchangeOthers(t *testing.T) {
	for suite, want := range map[uint16]KeyExchange{
		0x0003: ExchangeRSA,      // RSA_EXPORT_WITH_RC4_40_MD5
		0x0014: ExchangeDHE,      // DHE_RSA_EXPORT_WITH_DES40_CBC_SHA
		0x0017: ExchangeUnsigned, // DH_anon_EXPORT_WITH_RC4_40_MD5
		0x0010: ExchangeStatic,   // DH_RSA_WITH_3DES_EDE_CBC_SHA
		0xc004: ExchangeStatic,   // ECDH_ECDSA_WITH_AES_128_CBC_SHA
		0x0081: ExchangeStatic,   // GOSTR341001_WITH_28147_CNT_IMIT
		0xe011: ExchangeTLCP,     // ECDHE_SM4_CBC_SM3
		0xe019: ExchangeRSA,      // RSA_SM4_CBC_SM3
		0x1301: ExchangeUnknown,  // of TLS 1.3
		0xfafa: ExchangeUnknown,
	} {
		if got := KeyExchangeOf(suite); got != want {
			t.Errorf("%#04x: %d, want %d", suite, got, want)
		}
	}
}

// v8 and v16 are values with one and two bytes of length before them.
func v8(n int) []byte { return append([]byte{byte(n)}, bytes.Repeat([]byte{7}, n)...) }
func v16(n int) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(n)), bytes.Repeat([]byte{9}, n)...)
}

// exchangesOf are the parameters of every kind of key exchange that is signed.
func exchangesOf() map[string]struct {
	way    KeyExchange
	params []byte
} {
	type x = struct {
		way    KeyExchange
		params []byte
	}
	return map[string]x{
		"named curve": {ExchangeECDHE, bytes.Join([][]byte{{3, 0, 29}, v8(32)}, nil)},
		"explicit prime": {ExchangeECDHE, bytes.Join([][]byte{{1}, v8(32), // prime
			v8(32), v8(32), v8(65), v8(32), v8(1), // a, b, base, order, cofactor
			v8(65)}, nil)},
		"trinomial":   {ExchangeECDHE, bytes.Join([][]byte{{2, 0, 233, 1}, v8(1), v8(30), v8(30), v8(61), v8(30), v8(1), v8(61)}, nil)},
		"pentanomial": {ExchangeECDHE, bytes.Join([][]byte{{2, 0, 163, 2}, v8(1), v8(1), v8(1), v8(21), v8(21), v8(43), v8(21), v8(1), v8(43)}, nil)},
		"DHE":         {ExchangeDHE, bytes.Join([][]byte{v16(256), v16(1), v16(256)}, nil)},
		"export":      {ExchangeRSA, bytes.Join([][]byte{v16(64), v16(3)}, nil)},
		"SRP":         {ExchangeSRP, bytes.Join([][]byte{v16(256), v16(1), v8(16), v16(256)}, nil)},
	}
}

// TestServerKeyExchange reads each kind, and none that is a byte longer or shorter, or
// of a version that says its hash and algorithm where it must not.
func TestServerKeyExchange(t *testing.T) {
	for name, c := range exchangesOf() {
		for _, version := range []uint16{VersionTLS12, VersionDTLS12, 0x0301, 0x0300} {
			body := bytes.Clone(c.params)
			scheme := uint16(0)
			if version == VersionTLS12 || version == VersionDTLS12 {
				scheme = 0x0401
				body = append(body, 4, 1)
			}
			body = append(body, v16(128)...)
			x, ok := ParseServerKeyExchange(body, c.way, version)
			if !ok || x.Params != len(c.params) || x.Scheme != scheme || !bytes.Equal(x.Value, v16(128)[2:]) {
				t.Errorf("%s, %x: %v, %+v", name, version, ok, x)
			}
			if c.way == ExchangeECDHE || c.way == ExchangeDHE {
				if y, ok := ParseServerKeyExchange(body, ExchangeUnknown, version); !ok || y.Params != x.Params {
					t.Errorf("%s, %x, of an unknown suite: %v, %+v", name, version, ok, y)
				}
			}
			for n := range body {
				if _, ok := ParseServerKeyExchange(body[:n], c.way, version); ok {
					t.Errorf("%s, %x: read with %d of %d bytes", name, version, n, len(body))
				}
			}
			if _, ok := ParseServerKeyExchange(append(body, 0), c.way, version); ok {
				t.Errorf("%s, %x: read with a byte more", name, version)
			}
			if other := version ^ VersionTLS12 ^ 0x0301; version == VersionTLS12 || version == 0x0301 {
				if _, ok := ParseServerKeyExchange(body, c.way, other); ok {
					t.Errorf("%s: of %x, and read as %x", name, version, other)
				}
			}
		}
	}
	for _, way := range []KeyExchange{ExchangeUnsigned, ExchangeStatic, ExchangeRSAPSK, ExchangeTLCP} {
		if _, ok := ParseServerKeyExchange(append([]byte{3, 0, 29}, append(v8(32), v16(70)...)...), way, 0x0301); ok {
			t.Errorf("read, where %d signs nothing", way)
		}
	}
}

// TestCertificateStatus reads stapled answers (RFC 6066, section 8; RFC 6961, section 2.2).
func TestCertificateStatus(t *testing.T) {
	v24 := func(b string) string { return string([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}) + b }
	for _, c := range []struct{ body, want string }{
		{"\x01" + v24("answer"), "answer"},
		{"\x02" + v24(v24("leaf")+v24("issuer")), "leaf"},
		{"\x02" + v24(v24("")+v24("issuer")), ""},
		{"\x02" + v24(""), ""},
		{"\x01" + v24(""), ""},
		{"\x01" + v24("answer") + "x", ""},
		{"\x01" + v24("answer")[:5], ""},
		{"\x03" + v24("answer"), ""},
		{"", ""},
	} {
		got := ParseCertificateStatus([]byte(c.body))
		if string(got) != c.want || (got == nil) != (c.want == "") {
			t.Errorf("%q: %q, want %q", c.body, got, c.want)
		}
	}
}

// FuzzServerKeyExchange reads any bytes: parameters, scheme and signature are all of
// what is read, and nothing else is.
func FuzzServerKeyExchange(f *testing.F) {
	for _, c := range exchangesOf() {
		f.Add(append(bytes.Clone(c.params), append([]byte{4, 1}, v16(64)...)...), uint8(c.way), true)
		f.Add(append(bytes.Clone(c.params), v16(64)...), uint8(c.way), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, way uint8, tls12 bool) {
		version, scheme := uint16(0x0301), 0
		if tls12 {
			version, scheme = VersionTLS12, 2
		}
		before := bytes.Clone(body)
		x, ok := ParseServerKeyExchange(body, KeyExchange(way%9), version)
		if ok && (x.Params+scheme+2+len(x.Value) != len(body) || !bytes.Equal(x.Value, body[len(body)-len(x.Value):])) {
			t.Errorf("%d bytes of parameters and %d of signature in %d", x.Params, len(x.Value), len(body))
		}
		if v, ok := ParseCertificateVerify(body); ok && len(v.Value)+4 != len(body) {
			t.Errorf("a signature of %d bytes in %d", len(v.Value), len(body))
		}
		if r := ParseCertificateStatus(body); r != nil && (len(r) == 0 || !bytes.Contains(body, r)) {
			t.Errorf("an answer of %d bytes", len(r))
		}
		m := Message{TLS13: true, Length: len(body), Head: body}
		ocsp, scts := m.LeafExtensions()
		if len(ocsp)+len(scts) > len(body) {
			t.Errorf("%d and %d bytes of extensions in %d", len(ocsp), len(scts), len(body))
		}
		if !bytes.Equal(before, body) {
			t.Error("the message was changed")
		}
	})
}
