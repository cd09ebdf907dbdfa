package cert

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	encoding "encoding/asn1"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// oidOf is the whole element of an object identifier in dots.
func oidOf(t testing.TB, dots string) []byte {
	t.Helper()
	var oid encoding.ObjectIdentifier
	for arc := range strings.SplitSeq(dots, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			t.Fatal(err)
		}
		oid = append(oid, n)
	}
	b, err := encoding.Marshal(oid)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keyOf is a SubjectPublicKeyInfo with a key of that many octets.
func keyOf(t testing.TB, algorithm string, params []byte, octets int) []byte {
	return sequence(sequence(oidOf(t, algorithm), params), der(asn1.BIT_STRING, []byte{0}, make([]byte, octets)))
}

// Keys of all kinds have a name, a size and a curve.
func TestKeys(t *testing.T) {
	curve := func(dots string) []byte { return oidOf(t, dots) }
	prime := func(bits int) []byte {
		p := make([]byte, bits/8)
		p[0] = 0x80
		return sequence(der(asn1.INTEGER, []byte{0}, p), der(asn1.INTEGER, []byte{7}))
	}
	gost := func(set string) []byte { return sequence(oidOf(t, set), oidOf(t, "1.2.643.7.1.1.2.2")) }
	tests := []struct {
		algorithm string
		params    []byte
		octets    int
		name      string
		bits      int
		curve     string
	}{
		{"2.16.840.1.101.3.4.3.17", nil, 1312, "ML-DSA-44", 10496, ""},
		{"2.16.840.1.101.3.4.3.18", nil, 1952, "ML-DSA-65", 15616, ""},
		{"2.16.840.1.101.3.4.3.19", nil, 2592, "ML-DSA-87", 20736, ""},
		{"2.16.840.1.101.3.4.3.32", nil, 1312, "HashML-DSA-44-SHA512", 10496, ""},
		{"2.16.840.1.101.3.4.3.20", nil, 32, "SLH-DSA-SHA2-128s", 256, ""},
		{"2.16.840.1.101.3.4.3.23", nil, 48, "SLH-DSA-SHA2-192f", 384, ""},
		{"2.16.840.1.101.3.4.3.30", nil, 64, "SLH-DSA-SHAKE-256s", 512, ""},
		{"2.16.840.1.101.3.4.3.41", nil, 32, "HashSLH-DSA-SHAKE-128s-SHAKE128", 256, ""},
		{"2.16.840.1.101.3.4.4.2", nil, 1184, "ML-KEM-768", 9472, ""},
		{"1.3.101.110", nil, 32, "X25519", 256, ""},
		{"1.3.101.111", nil, 56, "X448", 448, ""},
		{"1.3.101.112", nil, 32, "Ed25519", 256, ""},
		{"1.3.101.113", nil, 57, "Ed448", 456, ""},
		{"1.3.6.1.5.5.7.6.39", nil, 1344, "MLDSA44-Ed25519-SHA512", 10752, ""},
		{oidGOST2001, gost("1.2.643.2.2.35.1"), 66, "GOST R 34.10-2001", 256, "GostR3410-2001-CryptoPro-A-ParamSet"},
		{oidGOST256, gost("1.2.643.7.1.2.1.1.1"), 66, "GOST R 34.10-2012-256", 256, "tc26-gost-3410-2012-256-paramSetA"},
		{oidGOST512, gost("1.2.643.7.1.2.1.2.3"), 131, "GOST R 34.10-2012-512", 512, "tc26-gost-3410-2012-512-paramSetC"},
		{oidGOST512, nil, 131, "GOST R 34.10-2012-512", 512, ""},
		{oidEC, curve(oidSM2), 65, "SM2", 256, "SM2"},
		{oidSM2, nil, 65, "SM2", 256, "SM2"},
		{oidEC, curve("1.3.36.3.3.2.8.1.1.9"), 81, "ECDSA", 320, "brainpoolP320r1"},
		{oidEC, curve("1.3.36.3.3.2.8.1.1.14"), 129, "ECDSA", 512, "brainpoolP512t1"},
		{oidEC, curve("1.3.132.0.10"), 65, "ECDSA", 256, "secp256k1"},
		{oidEC, curve("1.3.132.0.33"), 57, "ECDSA", 224, "P-224"},
		{oidEC, curve("1.2.3.4"), 57, "ECDSA", 0, "1.2.3.4"},
		{oidECDH, curve("1.3.132.0.34"), 97, "ECDH", 384, "P-384"},
		{oidDSA, prime(1024), 131, "DSA", 1024, ""},
		{oidDSA, prime(3072), 387, "DSA", 3072, ""},
		{oidDSA, nil, 131, "DSA", 0, ""},
		{oidDH, prime(2048), 259, "DH", 2048, ""},
		{"1.2.3.4", nil, 5, "1.2.3.4", 0, ""},
	}
	for _, test := range tests {
		c := Parse(with(func(p *parts) { p.key = keyOf(t, test.algorithm, test.params, test.octets) }))
		if c.PublicKeyAlgorithm != test.name || c.PublicKeySize != test.bits || c.PublicKeyCurve != test.curve || c.ParseError != "" {
			t.Errorf("%s is %q of %d bits, curve %q, problem %q; want %q, %d, %q", test.algorithm,
				c.PublicKeyAlgorithm, c.PublicKeySize, c.PublicKeyCurve, c.ParseError, test.name, test.bits, test.curve)
		}
	}
	for oid, kind := range keyAlgorithms {
		if kind.octets == 0 {
			continue
		}
		c := Parse(with(func(p *parts) { p.key, p.algorithm = keyOf(t, oid, nil, kind.octets-1), sequence(oidOf(t, oid)) }))
		if c.ParseError != "subjectPublicKeyInfo: key of a wrong length" || c.PublicKeySize != 8*kind.octets || c.SignatureAlgorithm != kind.name {
			t.Errorf("%s one octet short: %d bits, %q, signed with %q", kind.name, c.PublicKeySize, c.ParseError, c.SignatureAlgorithm)
		}
	}
}

// Signatures are named by their parameters where they have some.
func TestSignatureNames(t *testing.T) {
	integer := func(n byte) []byte { return der(asn1.INTEGER, []byte{n}) }
	tagged := func(n asn1.Tag, e []byte) []byte { return der(n.Constructed().ContextSpecific(), e) }
	pss := func(hash, mgf string, salt byte, more ...[]byte) []byte {
		of := func(dots string) []byte { return sequence(oidOf(t, dots), null) }
		return sequence(append([][]byte{tagged(0, of(hash)), tagged(1, sequence(oidOf(t, oidMGF1), of(mgf))), tagged(2, integer(salt))}, more...)...)
	}
	const sha256, sha512, sha3 = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3", "2.16.840.1.101.3.4.2.8"
	for _, test := range []struct {
		oid    string
		params []byte
		want   string
	}{
		{oidRSAPSS, pss(sha256, sha256, 32), "SHA256-RSAPSS"},
		{oidRSAPSS, pss(sha512, sha512, 64), "SHA512-RSAPSS"},
		{oidRSAPSS, pss(sha3, sha3, 32), "SHA3-256-RSAPSS"},
		{oidRSAPSS, sequence(), "SHA1-RSAPSS"},
		{oidRSAPSS, nil, "SHA1-RSAPSS"},
		{oidRSAPSS, pss(oidSHA1, oidSHA1, 20), "SHA1-RSAPSS"},
		{oidRSAPSS, pss(sha256, oidSHA1, 32), "RSAPSS"},
		{oidRSAPSS, pss(sha256, sha256, 20), "RSAPSS"},
		{oidRSAPSS, pss(sha256, sha256, 32, tagged(3, integer(2))), "RSAPSS"},
		{oidRSAPSS, null, "RSAPSS"},
		{"1.2.156.10197.1.501", nil, "SM2-SM3"},
		{"1.2.643.7.1.1.3.2", nil, "GOST R 34.11-2012-256 with GOST R 34.10-2012-256"},
		{"1.3.101.113", nil, "Ed448"},
		{"2.16.840.1.101.3.4.3.31", nil, "SLH-DSA-SHAKE-256f"},
		{"1.2.3.4.5", nil, "1.2.3.4.5"},
	} {
		c := Parse(with(func(p *parts) { p.algorithm = sequence(oidOf(t, test.oid), test.params) }))
		if c.SignatureAlgorithm != test.want || c.ParseError != "" {
			t.Errorf("%s with %x is %q, want %q (%q)", test.oid, test.params, c.SignatureAlgorithm, test.want, c.ParseError)
		}
	}
}

// The object identifiers and sizes are those that OpenSSL knows, as far as the
// installed one goes.
func TestKeysOfOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	tests := []struct {
		name    string
		key     []string // arguments of genpkey
		bits    int
		curve   string
		options []string // of req
	}{
		{name: "Ed448", key: []string{"-algorithm", "ED448"}, bits: 456},
		{name: "SM2", key: []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2"}, bits: 256, curve: "SM2", options: []string{"-sm3", "-sigopt", "distid:1234567812345678"}},
		{name: "RSASSA-PSS", key: []string{"-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:1024"}, bits: 1024},
		{name: "ECDSA", key: []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP384t1"}, bits: 384, curve: "brainpoolP384t1"},
		{name: "ECDSA", key: []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp160r2"}, bits: 160, curve: "secp160r2"},
		{name: "ECDSA", key: []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime239v2"}, bits: 239, curve: "prime239v2"},
		{name: "ML-DSA-65", key: []string{"-algorithm", "ML-DSA-65"}, bits: 15616},
		{name: "SLH-DSA-SHA2-128f", key: []string{"-algorithm", "SLH-DSA-SHA2-128f"}, bits: 256},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			base := filepath.Join(dir, strconv.Itoa(i))
			if out, err := exec.Command(openssl, append([]string{"genpkey", "-out", base + ".pem"}, test.key...)...).CombinedOutput(); err != nil {
				t.Skipf("this openssl cannot: %s", out)
			}
			args := append([]string{"req", "-x509", "-new", "-key", base + ".pem", "-subj", "/CN=a", "-outform", "DER", "-out", base + ".der"}, test.options...)
			if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
				t.Fatalf("openssl req: %s", out)
			}
			raw, err := os.ReadFile(base + ".der")
			if err != nil {
				t.Fatal(err)
			}
			c := Parse(raw)
			if c.PublicKeyAlgorithm != test.name || c.PublicKeySize != test.bits || c.PublicKeyCurve != test.curve || c.ParseError != "" ||
				strings.Contains(c.SignatureAlgorithm, ".") {
				t.Errorf("%q of %d bits, curve %q, signed with %q, problem %q", c.PublicKeyAlgorithm, c.PublicKeySize, c.PublicKeyCurve, c.SignatureAlgorithm, c.ParseError)
			}
			checkPrefixes(t, raw)
		})
	}
}

// Object identifiers with arcs of any length are those that crypto/x509 writes.
func TestOIDs(t *testing.T) {
	for range 2000 {
		raw := make([]byte, 1+len(rand.Text()))
		rand.Read(raw)
		for i := range raw {
			if i%3 > 0 {
				raw[i] |= 0x80
			}
		}
		raw[len(raw)-1] &= 0x7f
		raw = raw[slices.IndexFunc(raw, func(x byte) bool { return x != 0x80 }):]
		element := der(asn1.OBJECT_IDENTIFIER, raw)
		var o x509.OID
		if o.UnmarshalBinary(element[2:]) != nil {
			continue // an arc with padding
		}
		if dots, ok := appendOID(nil, raw); !ok || string(dots) != o.String() {
			t.Errorf("%x is %s, want %s", raw, dots, o)
		}
	}
}

// The sizes of the curves are those of crypto/elliptic.
func TestCurveSizes(t *testing.T) {
	for _, known := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		found := false
		for _, c := range curves {
			found = found || c.name == known.Params().Name && c.bits == known.Params().BitSize
		}
		if !found {
			t.Errorf("no %s", known.Params().Name)
		}
	}
}
