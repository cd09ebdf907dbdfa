package signature

import (
	"bytes"
	"crypto"
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/cert"
)

// spkiOf is the SubjectPublicKeyInfo of a key of the standard library.
func spkiOf(t testing.TB, public any) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func parse(t testing.TB, spki []byte) *Key {
	t.Helper()
	k, err := ParseKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// flips checks that nothing verifies with one bit changed, of the signature or of
// what was signed.
func flips(t *testing.T, k *Key, s Scheme, signed, sig []byte) {
	t.Helper()
	if err := k.Verify(s, signed, sig); err != nil {
		t.Errorf("%s: %v", s, err)
		return
	}
	for _, b := range [][]byte{sig, signed} {
		for i := 0; i < len(b); i += 1 + len(b)/24 {
			b[i] ^= 1 << (i % 8)
			if err := k.Verify(s, signed, sig); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: with a bit of byte %d changed: %v", s, i, err)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
	for _, wrong := range [][]byte{nil, sig[:len(sig)-1], append(bytes.Clone(sig), 0), make([]byte, len(sig)), make([]byte, maxSignature+1)} {
		if err := k.Verify(s, signed, wrong); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: a signature of %d bytes: %v", s, len(wrong), err)
		}
	}
}

// What the standard library signs is verified.
func TestStandardLibrary(t *testing.T) {
	signed := []byte("what a server signs")
	key, err := rsa.GenerateKey(rand.Reader, 2049) // the encoding of RSA-PSS is a byte shorter
	if err != nil {
		t.Fatal(err)
	}
	even, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(h crypto.Hash) []byte {
		d, err := sum(nil, h, signed)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, key := range []*rsa.PrivateKey{key, even} {
		k := parse(t, spkiOf(t, &key.PublicKey))
		if k.Algorithm() != "RSA" || k.Bits() != key.N.BitLen() {
			t.Errorf("%s of %d bits", k.Algorithm(), k.Bits())
		}
		for h := range digestInfos {
			sig, err := rsa.SignPKCS1v15(rand.Reader, key, h, digest(h))
			if err != nil {
				t.Fatal(err)
			}
			flips(t, k, Scheme{Kind: PKCS1, Hash: h}, signed, sig)
		}
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384} {
			for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, 1, 7} {
				sig, err := rsa.SignPSS(rand.Reader, key, h, digest(h), &rsa.PSSOptions{SaltLength: salt})
				if err != nil {
					t.Fatal(err)
				}
				s := pss(h)
				s.Salt = SaltAny
				flips(t, k, s, signed, sig)
			}
		}
	}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		spki := spkiOf(t, &key.PublicKey)
		k := parse(t, spki)
		if k.Algorithm() != "ECDSA" || k.Bits() != curve.Params().BitSize {
			t.Errorf("%s of %d bits", k.Algorithm(), k.Bits())
		}
		for _, h := range []crypto.Hash{crypto.MD5, crypto.SHA1, crypto.SHA256, crypto.SHA512} {
			sig, err := ecdsa.SignASN1(rand.Reader, key, digest(h))
			if err != nil {
				t.Fatal(err)
			}
			flips(t, k, Scheme{Kind: ECDSA, Hash: h}, signed, sig)
		}

		// The compressed form of the point is the same key.
		size := (curve.Params().BitSize + 7) / 8
		head := bytes.Clone(spki[:len(spki)-1-2*size])
		compressed := append(head, elliptic.MarshalCompressed(curve, key.X, key.Y)...)
		for i, x := range compressed[:len(head)] { // lengths of the two elements around it
			if int(x) == 2+2*size && i > 0 && compressed[i-1] == tagBitString {
				compressed[i] -= byte(size)
			}
		}
		if compressed[1] == 0x81 {
			compressed[2] -= byte(size)
		} else {
			compressed[1] -= byte(size)
		}
		if size < 60 { // the longest one needs other lengths
			if same := parse(t, compressed); !same.ecdsa.Equal(k.ecdsa) {
				t.Errorf("%s: another key from the compressed point", curve.Params().Name)
			}
		}
		spki[len(spki)-1] ^= 1
		if _, err := ParseKey(spki); !errors.Is(err, ErrMalformed) {
			t.Errorf("a point off the curve: %v", err)
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	flips(t, parse(t, spkiOf(t, public)), Scheme{Kind: Ed25519}, signed, ed25519.Sign(private, signed))
}

// openssl runs the program with its arguments in dir.
func openssl(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	c := exec.Command("openssl", args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// What OpenSSL signs is verified, with keys that the standard library refuses too.
func TestOpenSSL(t *testing.T) {
	dir := t.TempDir()
	signed := []byte("what a server signs")
	if err := os.WriteFile(filepath.Join(dir, "signed"), signed, 0o600); err != nil {
		t.Fatal(err)
	}
	pkcs1 := func(h crypto.Hash) Scheme { return Scheme{Kind: PKCS1, Hash: h} }
	tests := []struct {
		name   string
		make   []string
		digest string
		sign   []string
		scheme Scheme
		bits   int
	}{
		{name: "RSA-512", make: []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"}, digest: "-md5", scheme: pkcs1(crypto.MD5), bits: 512},
		{name: "RSA-768", make: []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:768"}, digest: "-sha1", scheme: pkcs1(crypto.SHA1), bits: 768},
		{name: "RSA-1023", make: []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1023", "-pkeyopt", "rsa_keygen_pubexp:3"}, digest: "-sha512", scheme: pkcs1(crypto.SHA512), bits: 1023},
		{name: "RSA with a long exponent", make: []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:18446744073709551557"}, digest: "-sha512-256", scheme: pkcs1(crypto.SHA512_256), bits: 2048},
		{name: "RSA-PSS", make: []string{"genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:1536"}, digest: "-sha384", sign: []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, scheme: pss(crypto.SHA384), bits: 1536},
		{name: "RSA-PSS with two hashes", make: []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1025"}, digest: "-sha256", sign: []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_mgf1_md:sha1", "-sigopt", "rsa_pss_saltlen:max"}, scheme: Scheme{Kind: PSS, Hash: crypto.SHA256, MGF: crypto.SHA1, Salt: SaltAny}, bits: 1025},
		{name: "P-521", make: []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}, digest: "-sha224", scheme: Scheme{Kind: ECDSA, Hash: crypto.SHA224}, bits: 521},
	}
	for _, size := range []string{"1024/160", "2048/224"} {
		p, q, _ := strings.Cut(size, "/")
		openssl(t, dir, "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:"+p, "-pkeyopt", "dsa_paramgen_q_bits:"+q, "-pkeyopt", "dsa_paramgen_md:sha256", "-out", "dsa"+p+q)
		var bits int
		fmt.Sscan(p, &bits)
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA512} {
			name := map[crypto.Hash]string{crypto.SHA1: "-sha1", crypto.SHA512: "-sha512"}[h]
			tests = append(tests, struct {
				name   string
				make   []string
				digest string
				sign   []string
				scheme Scheme
				bits   int
			}{"DSA " + size, []string{"genpkey", "-paramfile", "dsa" + p + q}, name, nil, Scheme{Kind: DSA, Hash: h}, bits})
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			openssl(t, dir, append(test.make, "-out", "key")...)
			openssl(t, dir, "pkey", "-in", "key", "-pubout", "-outform", "DER", "-out", "public")
			openssl(t, dir, append(append([]string{"dgst", test.digest, "-sign", "key"}, test.sign...), "-out", "sig", "signed")...)
			spki, err := os.ReadFile(filepath.Join(dir, "public"))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := os.ReadFile(filepath.Join(dir, "sig"))
			if err != nil {
				t.Fatal(err)
			}
			k := parse(t, spki)
			if k.Bits() != test.bits {
				t.Errorf("%d bits", k.Bits())
			}
			flips(t, k, test.scheme, bytes.Clone(signed), sig)
		})
	}
}

// Certificates that OpenSSL signs itself are verified with the algorithm that they
// name; crypto/x509 is asked where it can tell.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"RSA with SHA-1":      {"-newkey", "rsa:1024", "-sha1"},
		"RSA with MD5":        {"-newkey", "rsa:1024", "-md5"},
		"RSA with SHA-256":    {"-newkey", "rsa:2048", "-sha256"},
		"RSA-PSS with SHA-1":  {"-newkey", "rsa:1024", "-sha1", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"},
		"RSA-PSS with SHA256": {"-newkey", "rsa:1024", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:9", "-sigopt", "rsa_mgf1_md:sha1"},
		"ECDSA with SHA-384":  {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha384"},
		"Ed25519":             {"-newkey", "ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			openssl(t, dir, append([]string{"req", "-x509", "-nodes", "-subj", "/CN=signed.example", "-keyout", "key", "-out", "cert", "-outform", "DER"}, args...)...)
			der, err := os.ReadFile(filepath.Join(dir, "cert"))
			if err != nil {
				t.Fatal(err)
			}
			c := cert.Parse(der)
			parts, ok := c.Parts()
			if !ok {
				t.Fatal("no parts")
			}
			std, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(parts.TBS, std.RawTBSCertificate) || !bytes.Equal(parts.Signature, std.Signature) || !bytes.Equal(parts.PublicKey, std.RawSubjectPublicKeyInfo) {
				t.Error("crypto/x509 has other parts")
			}
			s, err := SchemeOfCertificate(parts.Algorithm)
			if err != nil {
				t.Fatal(err)
			}
			k, err := KeyOf(c)
			if err != nil {
				t.Fatal(err)
			}
			if k.Algorithm() != c.PublicKeyAlgorithm || k.Bits() != c.PublicKeySize && c.PublicKeyAlgorithm != "Ed25519" {
				t.Errorf("%s of %d bits, and package cert says %s of %d", k.Algorithm(), k.Bits(), c.PublicKeyAlgorithm, c.PublicKeySize)
			}
			flips(t, k, s, bytes.Clone(parts.TBS), bytes.Clone(parts.Signature))
		})
	}
}

// Where a certificate ends before its key, that is what is said.
func TestKeyOf(t *testing.T) {
	for _, c := range []*cert.Certificate{cert.Parse(nil), cert.Parse([]byte{0x30, 0x80}), cert.Salvage([]byte{0x30, 0x03, 0x02})} {
		if _, err := KeyOf(c); !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v", c.DER, err)
		}
	}
}

// Keys that cost too much, or are none, are refused for a reason.
func TestRefused(t *testing.T) {
	rsaKey := func(n, e *big.Int) []byte {
		return spki(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue, struct{ N, E *big.Int }{n, e})
	}
	odd := func(bits int) *big.Int { return new(big.Int).SetBit(big.NewInt(1), bits-1, 1) }
	dsaKey := func(p, q, g, y *big.Int) []byte {
		return spki(t, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, struct{ P, Q, G *big.Int }{p, q, g}, y)
	}
	for name, test := range map[string]struct {
		spki []byte
		want error
	}{
		"a modulus of 16,385 bits":          {rsaKey(odd(16385), big.NewInt(3)), ErrTooCostly},
		"16,384 bits and a long exponent":   {rsaKey(odd(16384), odd(32)), ErrTooCostly},
		"16,384 bits and 65,537":            {rsaKey(odd(16384), big.NewInt(65537)), nil},
		"2,048 bits and an exponent of 64":  {rsaKey(odd(2048), new(big.Int).SetUint64(1<<64-1)), nil},
		"2,048 bits and an exponent of 65":  {rsaKey(odd(2048), odd(65)), ErrTooCostly},
		"an even modulus":                   {rsaKey(new(big.Int).Lsh(one, 1023), big.NewInt(3)), ErrMalformed},
		"the exponent 1":                    {rsaKey(odd(1024), one), ErrMalformed},
		"the exponent 0":                    {rsaKey(odd(1024), big.NewInt(0)), ErrMalformed},
		"the exponent 2":                    {rsaKey(odd(1024), big.NewInt(2)), ErrMalformed},
		"an exponent above the modulus":     {rsaKey(big.NewInt(5), big.NewInt(7)), ErrMalformed},
		"a negative modulus":                {rsaKey(big.NewInt(-5), big.NewInt(3)), ErrMalformed},
		"DSA with a prime of 3,073 bits":    {dsaKey(odd(3073), odd(256), big.NewInt(2), big.NewInt(2)), ErrTooCostly},
		"DSA with a subgroup of 3,000 bits": {dsaKey(odd(3072), odd(3000), big.NewInt(2), big.NewInt(2)), ErrUnsupported},
		"DSA with an even prime":            {dsaKey(new(big.Int).Lsh(one, 1023), odd(160), big.NewInt(2), big.NewInt(2)), ErrMalformed},
		"DSA with the generator 1":          {dsaKey(odd(1024), odd(160), one, big.NewInt(2)), ErrMalformed},
		"DSA with a generator too long":     {dsaKey(odd(1024), odd(160), odd(1025), big.NewInt(2)), ErrMalformed},
		"DSA with a long value":             {dsaKey(odd(1024), odd(160), big.NewInt(2), odd(4096)), ErrMalformed},
		"a value of zero":                   {dsaKey(odd(1024), odd(160), big.NewInt(2), big.NewInt(0)), ErrMalformed},
		"a curve that is not known":         {spki(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}, 1), ErrUnsupported},
		"a curve by its parameters":         {spki(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, struct{ A int }{1}, 1), ErrUnsupported},
		"an algorithm that is not known":    {spki(t, asn1.ObjectIdentifier{1, 3, 101, 113}, asn1.NullRawValue, 1), ErrUnsupported},
		"nothing":                           {nil, ErrMalformed},
	} {
		if _, err := ParseKey(test.spki); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// spki makes a SubjectPublicKeyInfo of whatever key has.
func spki(t testing.TB, algorithm asn1.ObjectIdentifier, params, key any) []byte {
	t.Helper()
	b, err := asn1.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err = asn1.Marshal(struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params any
		}
		Key asn1.BitString
	}{struct {
		OID    asn1.ObjectIdentifier
		Params any
	}{algorithm, params}, asn1.BitString{Bytes: b, BitLength: 8 * len(b)}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The parameters of a hash may be left out of a signature (RFC 8017, section 9.2),
// and nothing else may.
func TestWithoutNull(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	k := parse(t, spkiOf(t, &key.PublicKey))
	signed := []byte("signed")
	digest, _ := sum(nil, crypto.SHA1, signed)
	sign := func(info []byte, fill byte) []byte {
		em := bytes.Repeat([]byte{fill}, 128)
		em[0], em[1] = 0, 1
		em[127-len(info)] = 0
		copy(em[128-len(info):], info)
		m := new(big.Int).SetBytes(em)
		return m.Exp(m, key.D, key.N).FillBytes(make([]byte, 128))
	}
	bare := append([]byte("\x30\x1f\x30\x07\x06\x05\x2b\x0e\x03\x02\x1a\x04\x14"), digest...)
	s := Scheme{Kind: PKCS1, Hash: crypto.SHA1}
	if err := k.Verify(s, signed, sign(bare, 0xff)); err != nil {
		t.Error(err)
	}
	for name, sig := range map[string][]byte{
		"filled otherwise":    sign(bare, 0xfe),
		"a hash alone":        sign(digest, 0xff),
		"something behind it": sign(append(bytes.Clone(bare), 0), 0xff),
		"a shorter fill":      sign(append(make([]byte, 60), bare...), 0xff),
	} {
		if err := k.Verify(s, signed, sig); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemeOfTLS(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	r := parse(t, spkiOf(t, &key.PublicKey))
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := parse(t, spkiOf(t, &curve.PublicKey))
	d := &Key{algorithm: "DSA", dsa: new(dsa.PublicKey)}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := parse(t, spkiOf(t, public))
	for _, test := range []struct {
		scheme uint16
		key    *Key
		want   string
		err    error
	}{
		{0, r, "RSA with MD5 and SHA-1", nil},
		{0, e, "ECDSA with SHA-1", nil},
		{0, d, "DSA with SHA-1", nil},
		{0, ed, "", ErrUnsupported},
		{0x0101, r, "RSA with MD5", nil},
		{0x0201, r, "RSA with SHA-1", nil},
		{0x0202, d, "DSA with SHA-1", nil},
		{0x0303, e, "ECDSA with SHA-224", nil},
		{0x0601, r, "RSA with SHA-512", nil},
		{0x0403, e, "ECDSA with SHA-256", nil},
		{0x0804, r, "RSA-PSS with SHA-256", nil},
		{0x0806, r, "RSA-PSS with SHA-512", nil},
		{0x080b, r, "RSA-PSS with SHA-512", nil},
		{0x0807, ed, "Ed25519", nil},
		{0x0807, r, "", ErrMismatch},
		{0x0403, r, "", ErrMismatch},
		{0x0401, e, "", ErrMismatch},
		{0x0808, ed, "", ErrUnsupported},
		{0x0701, r, "", ErrUnsupported},
		{0x0400, r, "", ErrUnsupported},
		{0x0001, r, "", ErrUnsupported},
		{0xffff, r, "", ErrUnsupported},
	} {
		s, err := SchemeOfTLS(test.scheme, test.key)
		if !errors.Is(err, test.err) || err == nil && s.String() != test.want {
			t.Errorf("0x%04x with %s: %s, %v", test.scheme, test.key.Algorithm(), s, err)
		}
	}
}

func BenchmarkRSA(b *testing.B) {
	for _, bits := range []int{1024, 2048, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			b.Fatal(err)
		}
		k := parse(b, spkiOf(b, &key.PublicKey))
		signed := []byte("signed")
		digest, _ := sum(nil, crypto.SHA256, signed)
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			for b.Loop() {
				if err := k.Verify(Scheme{Kind: PKCS1, Hash: crypto.SHA256}, signed, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(bits, "/standard library"), func(b *testing.B) {
			for b.Loop() {
				if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCostliest verifies with the keys that cost as much as a key may.
func BenchmarkCostliest(b *testing.B) {
	random := func(bits int) *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(one, uint(bits-1)))
		if err != nil {
			b.Fatal(err)
		}
		return n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
	}
	for _, x := range []struct{ bits, e int }{{16384, 17}, {6400, 64}} {
		e := random(x.e)
		if x.e == 17 {
			e = big.NewInt(65537)
		} else {
			e.Sub(e.Lsh(one, 64), one)
		}
		k, err := ParseKey(spki(b, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue, struct{ N, E *big.Int }{random(x.bits), e}))
		if err != nil {
			b.Fatal(err)
		}
		sig := random(x.bits - 1).FillBytes(make([]byte, (x.bits+7)/8))
		b.Run(fmt.Sprintf("RSA %d bits, exponent of %d", x.bits, x.e), func(b *testing.B) {
			for b.Loop() {
				k.Verify(Scheme{Kind: PKCS1, Hash: crypto.SHA256}, nil, sig)
			}
		})
	}
	k := parse(b, spki(b, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, struct{ P, Q, G *big.Int }{random(maxPrime), random(256), random(maxPrime - 1)}, random(maxPrime-1)))
	sig, _ := asn1.Marshal(struct{ R, S *big.Int }{random(255), random(255)})
	b.Run("DSA", func(b *testing.B) {
		for b.Loop() {
			k.Verify(Scheme{Kind: DSA, Hash: crypto.SHA256}, nil, sig)
		}
	})
}

// seeds are keys of every kind.
func seeds(f *testing.F) {
	for _, text := range []string{
		"MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==",
		"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
	} {
		block, _ := pem.Decode([]byte("-----BEGIN PUBLIC KEY-----\n" + text + "\n-----END PUBLIC KEY-----\n"))
		f.Add(block.Bytes, uint16(0x0401), []byte("signed"), []byte("signature"))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(spkiOf(f, &key.PublicKey), uint16(0x0403), []byte("signed"), []byte("\x30\x06\x02\x01\x01\x02\x01\x01"))
	odd := func(bits int) *big.Int { return new(big.Int).SetBit(big.NewInt(1), bits-1, 1) }
	f.Add(spki(f, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, struct{ P, Q, G *big.Int }{odd(512), odd(160), big.NewInt(2)}, big.NewInt(3)),
		uint16(0x0202), []byte("signed"), []byte("\x30\x06\x02\x01\x01\x02\x01\x01"))
}

// Whatever a key and a signature hold: what is wrong has one of the errors, a key is
// as short as the limits say, and what is read once is read again alike.
func FuzzVerify(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, spki []byte, scheme uint16, signed, sig []byte) {
		k, err := ParseKey(spki)
		if err != nil {
			if k != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrTooCostly) {
				t.Fatal(k, err)
			}
			return
		}
		if k.Bits() < 1 || k.Bits() > maxModulus || k.Algorithm() == "" {
			t.Fatalf("%s of %d bits", k.Algorithm(), k.Bits())
		}
		if k.rsa != nil && rsaCost(k.rsa.n, k.rsa.e) > maxCost {
			t.Fatal("too costly")
		}
		s, err := SchemeOfTLS(scheme, k)
		if err != nil {
			if !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		err = k.Verify(s, signed, sig)
		if err != nil && !errors.Is(err, ErrMismatch) {
			t.Fatal(err)
		}
		if again := k.Verify(s, signed, sig); (again == nil) != (err == nil) {
			t.Fatal(err, again)
		}
	})
}

// Whatever an AlgorithmIdentifier holds, a scheme comes from known hashes.
func FuzzSchemeOfCertificate(f *testing.F) {
	for oid := range certificateSchemes {
		f.Add(append([]byte{tagSequence, byte(2 + len(oid)), tagOID, byte(len(oid))}, oid...))
	}
	f.Add([]byte("\x30\x3d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x30\xa0\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\xa1\x1a\x30\x18\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\xa2\x03\x02\x01\x20"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := SchemeOfCertificate(b)
		switch {
		case err != nil:
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
		case s.Kind != Ed25519 && !s.Hash.Available(), s.Kind == PSS && !s.MGF.Available():
			t.Fatalf("%+v", s)
		}
	})
}
