package traffic

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"sync"
	"time"
)

// epoch is the time of the first frame of every capture.
var epoch = time.Date(2024, 6, 3, 8, 0, 0, 0, time.UTC)

// plant is a certificate that a sensor looks for, or a decoy beside it.
type plant struct {
	reason  string // empty for a decoy
	subject pkix.Name
	names   []string // subjectAltName
	issuer  *pkix.Name
}

var microsoft = pkix.Name{Country: []string{"US"}, Province: []string{"Washington"}, Locality: []string{"Redmond"},
	Organization: []string{"Microsoft"}, OrganizationalUnit: []string{"DSP"}, CommonName: "www.update.microsoft.com"}

// plants are dealt in turn. The decoys must raise nothing: their names only
// look like the ones that matter.
var plants = []plant{
	{reason: "name in subject, self-signed", subject: microsoft},
	{reason: "name in subject", subject: microsoft,
		issuer: &pkix.Name{Country: []string{"US"}, Organization: []string{"Microsoft Corporation"}, CommonName: "Microsoft Update Secure Server CA 1"}},
	{subject: pkix.Name{CommonName: "www.update.microsoft.com.example.net"}},
	{reason: "name in subjectAltName", subject: pkix.Name{CommonName: "vpn.example.org"},
		names: []string{"vpn.example.org", "www.update.microsoft.com"}},
	{subject: pkix.Name{CommonName: "update-microsoft.com.example.org", Organization: []string{"Example Update Services"}}},
	{reason: "name of the Flame story", subject: pkix.Name{CommonName: "v5.windowsupdate.microsoft.com"}},
	{reason: "revoked licensing CA", subject: pkix.Name{CommonName: "terminal.example.com"},
		issuer: &pkix.Name{CommonName: "Microsoft Enforced Licensing Registration Authority CA"}},
	{reason: "DigiNotar with a Microsoft name", subject: pkix.Name{CommonName: "*.microsoft.com"},
		issuer: &pkix.Name{Country: []string{"NL"}, Organization: []string{"DigiNotar"}, CommonName: "DigiNotar Public CA 2025"}},
}

// issuer signs certificates.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authority makes certificates that depend on its random source alone.
type authority struct {
	rng     *rand.Rand
	rsaKeys [2]*rsa.PrivateKey
	root    issuer
	middle  [2]issuer // an ECDSA and an RSA intermediate, under root

	list  *[]Certificate // of the truth
	known map[string]int // index in list by SHA-256
}

func newAuthority(rng *rand.Rand, list *[]Certificate) (*authority, error) {
	a := &authority{rng: rng, list: list, known: make(map[string]int)}
	var err error
	if a.rsaKeys, err = rsaKeys(); err != nil {
		return nil, fmt.Errorf("derive RSA keys: %w", err)
	}
	if a.root, err = a.ca("Example Root CA", ecdsaKey(rng), nil); err != nil {
		return nil, err
	}
	if a.middle[0], err = a.ca("Example Issuing CA E1", ecdsaKey(rng), &a.root); err != nil {
		return nil, err
	}
	a.middle[1], err = a.ca("Example Issuing CA R1", a.rsaKeys[0], &a.root)
	return a, err
}

func (a *authority) ca(name string, key crypto.Signer, parent *issuer) (issuer, error) {
	t := a.template(pkix.Name{Country: []string{"NL"}, Organization: []string{"Example Trust"}, CommonName: name})
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage, t.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	return sign(t, key, parent)
}

func (a *authority) template(subject pkix.Name) *x509.Certificate {
	serial := make([]byte, 16)
	for i := range serial {
		serial[i] = byte(a.rng.Uint32())
	}
	serial[0] &= 0x7f
	from := epoch.AddDate(0, 0, -1-a.rng.IntN(300))
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      subject,
		NotBefore:    from,
		NotAfter:     from.AddDate(2, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// server makes the n-th server certificate, with a chain of one to three.
func (a *authority) server(n int, withRSA bool, p *plant) (tls.Certificate, error) {
	name := fmt.Sprintf("host-%d.example.%s", n, []string{"com", "net", "org"}[n%3])
	t := a.template(pkix.Name{Country: []string{"NL"}, Organization: []string{fmt.Sprintf("Company %d", n/8)}, CommonName: name})
	t.DNSNames = []string{name, "www." + name}
	var key crypto.Signer = ecdsaKey(a.rng)
	parent, length := a.middle[0], 1+n%3
	if withRSA {
		key, parent = a.rsaKeys[1], a.middle[1]
	}
	if p != nil {
		t.Subject, t.DNSNames = p.subject, p.names
		length = 2
		if p.subject.CommonName == microsoft.CommonName && p.issuer == nil {
			length = 1
		}
		if p.issuer != nil {
			ca := a.template(*p.issuer)
			ca.IsCA, ca.BasicConstraintsValid = true, true
			var err error
			if parent, err = sign(ca, parent.key, nil); err != nil {
				return tls.Certificate{}, err
			}
		}
	}
	var signer *issuer
	if length > 1 {
		signer = &parent
	}
	leaf, err := sign(t, key, signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	chain := [][]byte{leaf.cert.Raw, parent.cert.Raw, a.root.cert.Raw}[:length]
	return tls.Certificate{Certificate: chain, PrivateKey: key}, nil
}

// huge makes a chain of about 100 KB.
func (a *authority) huge(n int) (tls.Certificate, error) {
	c, err := a.server(n*3+1, false, nil)
	if err != nil {
		return c, err
	}
	for i := range 20 {
		t := a.template(pkix.Name{CommonName: fmt.Sprintf("Example Cross CA %d.%d", n, i)})
		for j := range 120 {
			t.DNSNames = append(t.DNSNames, fmt.Sprintf("alternative-name-%d.of-ca-%d.example.org", j, i))
		}
		cross, err := sign(t, ecdsaKey(a.rng), &a.root)
		if err != nil {
			return c, err
		}
		c.Certificate = append(c.Certificate, cross.cert.Raw)
	}
	return c, nil
}

// index is where der is in the truth's list, to which it is added at need.
func (a *authority) index(der []byte, p *plant) int {
	hash := fmt.Sprintf("%X", sha256.Sum256(der))
	if i, ok := a.known[hash]; ok {
		return i
	}
	c := Certificate{SHA256: hash}
	if parsed, err := x509.ParseCertificate(der); err == nil {
		c.Subject, c.Issuer = parsed.Subject.String(), parsed.Issuer.String()
	}
	if p != nil {
		c.Plant = p.reason
	}
	a.known[hash] = len(*a.list)
	*a.list = append(*a.list, c)
	return a.known[hash]
}

func sign(t *x509.Certificate, key crypto.Signer, parent *issuer) (issuer, error) {
	by := issuer{cert: t, key: key}
	if parent != nil {
		by = *parent
	}
	der, err := x509.CreateCertificate(nil, t, by.cert, key.Public(), stable{by.key})
	if err != nil {
		return issuer{}, fmt.Errorf("sign certificate of %s: %w", t.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	return issuer{cert: cert, key: key}, err
}

// stable signs the same bytes the same way, always: without a random source,
// ECDSA is that of RFC 6979.
type stable struct{ crypto.Signer }

func (s stable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(nil, digest, opts)
}

// even signs with ECDSA so that the signature always has the same length, for
// the sizes of a capture not to differ from run to run.
type even struct{ *ecdsa.PrivateKey }

func (s even) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	const length = 71 // one of two signatures on P-256 in DER has it
	for {
		sig, err := s.PrivateKey.Sign(cryptorand.Reader, digest, opts)
		if err != nil || len(sig) == length {
			return sig, err
		}
	}
}

func ecdsaKey(rng *rand.Rand) *ecdsa.PrivateKey {
	scalar := make([]byte, 32)
	for {
		for i := range scalar {
			scalar[i] = byte(rng.Uint32())
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err == nil {
			return key
		}
	}
}

// rsaKeys are the same for all seeds, for they take half a second.
var rsaKeys = sync.OnceValues(func() (keys [2]*rsa.PrivateKey, err error) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range keys {
		if keys[i], err = rsaKey(rng); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

// rsaKey derives a key of 2,048 bits from rng, which crypto/rsa does not do.
func rsaKey(rng *rand.Rand) (*rsa.PrivateKey, error) {
	one, e := big.NewInt(1), big.NewInt(65537)
	for {
		p, q := prime(rng), prime(rng)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil || p.Cmp(q) == 0 {
			continue
		}
		key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: d, Primes: []*big.Int{p, q}}
		key.Precompute()
		return key, key.Validate()
	}
}

// prime returns a prime of 1,024 bits whose two top bits are set.
func prime(rng *rand.Rand) *big.Int {
	b := make([]byte, 128)
	for {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[0] |= 0xc0
		b[127] |= 1
		if p := new(big.Int).SetBytes(b); p.ProbablyPrime(0) {
			return p
		}
	}
}
