package shape

import (
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/parsers/cert"
)

// key is how long the signatures of a key are, in bytes.
type key struct{ shortest, longest int }

// signs reports whether a signature of n bytes can be by the key.
func (k key) signs(n int) bool { return k.shortest <= n && n <= k.longest }

// signatures is how many lengths the signatures of one elliptic curve have here. The
// two numbers in them are written without leading zeros (RFC 3279, section 2.2.3), so
// shorter ones are possible, and come once in 2^32 or less.
const signatures = 6

// curve returns the key of an elliptic curve whose longest signature has n bytes.
func curve(n int) key { return key{n - signatures + 1, n} }

// exact returns a key all of whose signatures have n bytes.
func exact(n int) key { return key{n, n} }

// keys are those that TLS 1.3 has signature schemes for, by the names that they have in
// a file of watched certificates; RSA is beside them.
var keys = [...]struct {
	name string
	key
}{
	{"ecdsa-p256", curve(72)},
	{"ecdsa-p384", curve(104)},
	{"ecdsa-p521", curve(139)},
	{"ed25519", exact(64)},     // RFC 8032, section 5.1.6
	{"ed448", exact(114)},      // section 5.2.6
	{"ml-dsa-44", exact(2420)}, // FIPS 204, table 2
	{"ml-dsa-65", exact(3309)},
	{"ml-dsa-87", exact(4627)},
}

// The sizes of RSA keys that are known, in bits, and the shortest signature of all.
const (
	leastRSA          = 1024
	mostRSA           = 16384
	shortestSignature = 64
)

// modulus returns an RSA key of a size in bits (RFC 8017, section 8.1.1).
func modulus(bits int) (k key, ok bool) {
	return exact((bits + 7) / 8), bits >= leastRSA && bits <= mostRSA
}

// keyNamed returns the key of a name such as "rsa-2048".
func keyNamed(name string) (k key, ok bool) {
	if bits, is := strings.CutPrefix(name, "rsa-"); is {
		n, err := strconv.Atoi(bits)
		if err != nil || strconv.Itoa(n) != bits {
			return key{}, false
		}
		return modulus(n)
	}
	for i := range keys {
		if keys[i].name == name {
			return keys[i].key, true
		}
	}
	return key{}, false
}

// keyOf returns the key of a certificate.
func keyOf(c *cert.Certificate) (k key, ok bool) {
	switch c.PublicKeyAlgorithm {
	case "RSA", "RSASSA-PSS":
		return modulus(c.PublicKeySize)
	case "ECDSA":
		switch c.PublicKeyCurve {
		case "P-256":
			return keyNamed("ecdsa-p256")
		case "P-384":
			return keyNamed("ecdsa-p384")
		case "P-521":
			return keyNamed("ecdsa-p521")
		}
		return key{}, false
	}
	return keyNamed(strings.ToLower(c.PublicKeyAlgorithm))
}

// isSignature reports whether a signature of any key can have n bytes. RSA keys whose
// size is no multiple of 64 bits are left out: nobody makes them.
func isSignature(n int) bool {
	if n >= leastRSA/8 && n <= mostRSA/8 && n%8 == 0 {
		return true
	}
	for i := range keys {
		if keys[i].signs(n) {
			return true
		}
	}
	return false
}
