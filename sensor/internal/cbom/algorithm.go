package cbom

import (
	"slices"
	"strconv"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/oddcert/oddcert/sensor/internal/posture"
)

// algorithm is an algorithm as CycloneDX describes it. Levels are -1 where nobody has
// given the algorithm one.
type algorithm struct {
	name      string
	primitive cdx.CryptoPrimitive
	parameter string // of the set of parameters
	curve     string
	mode      cdx.CryptoAlgorithmMode
	padding   cdx.CryptoPadding
	functions []cdx.CryptoFunction
	classical int      // bits (NIST SP 800-57 part 1 revision 5, table 2)
	quantum   int      // category of NIST's call for post-quantum proposals, section 4.A.5; 0 for what a quantum computer breaks
	of        []string // names of the algorithms that it combines
}

var (
	encrypts = []cdx.CryptoFunction{cdx.CryptoFunctionEncrypt, cdx.CryptoFunctionDecrypt}
	signs    = []cdx.CryptoFunction{cdx.CryptoFunctionSign, cdx.CryptoFunctionVerify}
	tags     = []cdx.CryptoFunction{cdx.CryptoFunctionTag}
	digests  = []cdx.CryptoFunction{cdx.CryptoFunctionDigest}
	agrees   = []cdx.CryptoFunction{cdx.CryptoFunctionKeyderive}
	kems     = []cdx.CryptoFunction{cdx.CryptoFunctionEncapsulate, cdx.CryptoFunctionDecapsulate}
)

// curves have their strength in bits.
var curves = map[string]int{
	"x25519": 128, "x448": 224, "secp224r1": 112, "secp256r1": 128, "secp256k1": 128, "secp384r1": 192, "secp521r1": 256,
	"brainpoolP256r1": 128, "brainpoolP384r1": 192, "brainpoolP512r1": 256, "curveSM2": 128,
	"P-224": 112, "P-256": 128, "P-384": 192, "P-521": 256,
}

// modulus is the strength in bits of RSA, DSA and finite fields of so many bits.
func modulus(bits int) int {
	switch {
	case bits >= 15360:
		return 256
	case bits >= 7680:
		return 192
	case bits >= 3072:
		return 128
	case bits >= 2048:
		return 112
	case bits >= 1024:
		return 80
	}
	return -1
}

func level(of map[string]int, name string) int {
	if bits, ok := of[name]; ok {
		return bits
	}
	return -1
}

// ofGroup is the key exchange with a named group, and the algorithms of which a hybrid
// one is made.
func ofGroup(name string) []algorithm {
	switch {
	case strings.HasPrefix(name, "MLKEM"):
		return []algorithm{mlkem(name[len("MLKEM"):])}
	case strings.Contains(name, "MLKEM"):
		curve, set, _ := strings.Cut(name, "MLKEM")
		parts := []algorithm{agreement(strings.ToLower(curve)), mlkem(set)}
		return append([]algorithm{{name: name, primitive: cdx.CryptoPrimitiveCombiner, parameter: set, functions: kems, classical: -1,
			quantum: parts[1].quantum, of: []string{parts[0].name, parts[1].name}}}, parts...)
	case strings.Contains(name, "Kyber"): // drafts, which no category was given to
		return []algorithm{{name: name, primitive: cdx.CryptoPrimitiveCombiner, functions: kems, classical: -1, quantum: -1}}
	case strings.HasPrefix(name, "0x"):
		return []algorithm{{name: name, primitive: cdx.CryptoPrimitiveUnknown, classical: -1, quantum: -1}}
	}
	return []algorithm{agreement(name)}
}

func mlkem(set string) algorithm {
	return algorithm{name: "ML-KEM-" + set, primitive: cdx.CryptoPrimitiveKEM, parameter: set, functions: kems, classical: -1,
		quantum: level(map[string]int{"512": 1, "768": 3, "1024": 5}, set)} // FIPS 203, section 8
}

func agreement(group string) algorithm {
	a := algorithm{name: group, primitive: cdx.CryptoPrimitiveKeyAgree, functions: agrees}
	if bits, ok := strings.CutPrefix(group, "ffdhe"); ok {
		a.parameter = bits
		n, _ := strconv.Atoi(bits)
		a.classical = modulus(n)
		return a
	}
	a.curve, a.classical = group, level(curves, strings.TrimSuffix(group, "tls13"))
	return a
}

// ofKey is the algorithm of a public key, with its size.
func ofKey(name, algorithmName, curve string, bits int) algorithm {
	a := algorithm{name: name, primitive: cdx.CryptoPrimitiveSignature, functions: signs, curve: curve, classical: -1, quantum: -1}
	switch {
	case algorithmName == "RSA":
		a.primitive, a.functions = cdx.CryptoPrimitivePKE, slices.Concat(encrypts, signs)
		a.classical, a.quantum = modulus(bits), 0
	case strings.HasPrefix(algorithmName, "RSA"), algorithmName == "DSA":
		a.classical, a.quantum = modulus(bits), 0
	case curve != "":
		a.classical, a.quantum = level(curves, curve), 0
	case algorithmName == "Ed25519":
		a.classical, a.quantum = 128, 0
	case algorithmName == "Ed448":
		a.classical, a.quantum = 224, 0
	case strings.Contains(algorithmName, "ML-DSA-"):
		a.parameter, a.quantum = mldsa(algorithmName)
	case strings.Contains(algorithmName, "."): // an object identifier
		a.primitive, a.functions = cdx.CryptoPrimitiveUnknown, nil
	}
	if bits > 0 && a.parameter == "" && curve == "" {
		a.parameter = strconv.Itoa(bits)
	}
	return a
}

// mldsa is the set of parameters of ML-DSA, and its category (FIPS 204, section 4).
func mldsa(name string) (set string, category int) {
	_, set, _ = strings.Cut(name, "ML-DSA-")
	set, _, _ = strings.Cut(set, "-")
	return set, level(map[string]int{"44": 2, "65": 3, "87": 5}, set)
}

// ofSignature is an algorithm of signatures, by the name that package cert gives it.
func ofSignature(name string) algorithm {
	a := algorithm{name: name, primitive: cdx.CryptoPrimitiveSignature, functions: signs, classical: -1, quantum: 0}
	switch {
	case strings.HasSuffix(name, "-RSA"):
		a.padding = cdx.CryptoPaddingPKCS1v15
	case strings.HasSuffix(name, "-RSAPSS"):
		a.padding = cdx.CryptoPaddingOther // CycloneDX 1.6 has no name for PSS
	case strings.HasPrefix(name, "ECDSA-"), strings.HasPrefix(name, "DSA-"), strings.HasPrefix(name, "Ed"):
	case strings.Contains(name, "ML-DSA-"):
		a.parameter, a.quantum = mldsa(name)
	default:
		a.quantum = -1
	}
	return a
}

// ofScheme is an algorithm of signatures, by the name of its scheme of TLS.
func ofScheme(name string) algorithm {
	a := algorithm{name: name, primitive: cdx.CryptoPrimitiveSignature, functions: signs, classical: -1, quantum: 0}
	switch {
	case strings.HasPrefix(name, "rsa_pkcs1"):
		a.padding = cdx.CryptoPaddingPKCS1v15
	case strings.HasPrefix(name, "rsa_pss"):
		a.padding = cdx.CryptoPaddingOther
	case strings.HasPrefix(name, "mldsa"):
		a.parameter, a.quantum = mldsa("ML-DSA-" + name[len("mldsa"):])
	case strings.HasPrefix(name, "0x"):
		a.quantum = -1
	}
	return a
}

// hashes have their strength against collisions (NIST SP 800-57 part 1 revision 5, table
// 3), and their categories.
var hashes = map[string]struct{ classical, quantum int }{
	"MD5": {-1, 0}, "SHA1": {-1, 0}, "SHA256": {128, 2}, "SHA384": {192, 4}, "SHA512": {256, 5}, "SM3": {128, -1},
}

// ofSuite are the algorithms of a cipher suite, by its name in the IANA registry.
func ofSuite(name string) (list []algorithm) {
	_, rest, ok := strings.Cut(name, "_") // TLS_ or SSL_
	if !ok {
		return nil
	}
	cipher := rest
	if exchange, behind, ok := strings.Cut(rest, "_WITH_"); ok {
		cipher = behind
		for _, part := range strings.Split(exchange, "_") {
			if a, ok := ofExchange(part); ok {
				list = append(list, a)
			}
		}
	}
	hash := ""
	if at := strings.LastIndexByte(cipher, '_'); at > 0 {
		name := cipher[at+1:]
		if name == "SHA" {
			name = "SHA1"
		}
		if _, ok := hashes[name]; ok {
			hash, cipher = name, cipher[:at]
		}
	}
	a, ok := ofCipher(cipher)
	if ok {
		list = append(list, a)
	}
	switch {
	case hash == "":
	case a.primitive == cdx.CryptoPrimitiveAE: // it is for the derivation of keys alone
		h := hashes[hash]
		list = append(list, algorithm{name: hash, primitive: cdx.CryptoPrimitiveHash, functions: digests, classical: h.classical, quantum: h.quantum})
	default:
		list = append(list, algorithm{name: "HMAC-" + hash, primitive: cdx.CryptoPrimitiveMAC, functions: tags, classical: -1, quantum: -1})
	}
	return list
}

func ofExchange(part string) (algorithm, bool) {
	switch part {
	case "RSA":
		return algorithm{name: "RSA", primitive: cdx.CryptoPrimitivePKE, functions: slices.Concat(encrypts, signs), classical: -1}, true
	case "DH", "DHE", "ECDH", "ECDHE":
		return algorithm{name: part, primitive: cdx.CryptoPrimitiveKeyAgree, functions: agrees, classical: -1}, true
	case "DSS":
		return algorithm{name: "DSA", primitive: cdx.CryptoPrimitiveSignature, functions: signs, classical: -1}, true
	case "ECDSA":
		return algorithm{name: "ECDSA", primitive: cdx.CryptoPrimitiveSignature, functions: signs, classical: -1}, true
	}
	return algorithm{}, false // PSK and others are no algorithms
}

// ofCipher is the cipher of a suite, such as AES_256_GCM.
func ofCipher(cipher string) (algorithm, bool) {
	a := algorithm{name: strings.ReplaceAll(cipher, "_", "-"), primitive: cdx.CryptoPrimitiveBlockCipher, functions: encrypts, classical: -1, quantum: -1}
	parts := strings.Split(cipher, "_")
	for _, p := range parts[1:] {
		switch p {
		case "GCM":
			a.primitive, a.mode = cdx.CryptoPrimitiveAE, cdx.CryptoAlgorithmModeGCM
		case "CCM":
			a.primitive, a.mode = cdx.CryptoPrimitiveAE, cdx.CryptoAlgorithmModeCCM
		case "CBC":
			a.mode = cdx.CryptoAlgorithmModeCBC
		case "128", "192", "256":
			if a.parameter == "" {
				a.parameter = p
			}
		}
	}
	bits, _ := strconv.Atoi(a.parameter)
	switch parts[0] {
	case "NULL":
		return a, false
	case "AES":
		a.classical, a.quantum = bits, level(map[string]int{"128": 1, "192": 3, "256": 5}, a.parameter)
	case "CAMELLIA", "ARIA":
		a.classical = bits
	case "CHACHA20":
		a.primitive, a.parameter, a.classical = cdx.CryptoPrimitiveAE, "256", 256
	case "3DES":
		a.classical, a.quantum = 112, 0
	case "DES", "DES40", "RC2":
		a.classical, a.quantum = 0, 0
	case "RC4":
		a.primitive, a.classical, a.quantum = cdx.CryptoPrimitiveStreamCipher, 0, 0
	}
	return a, true
}

// ref is the bom-ref of an algorithm.
func (a *algorithm) ref() string { return algorithmRef(a.name) }

func algorithmRef(name string) string { return "algorithm/" + name }

// component is the algorithm as a component.
func (a *algorithm) component() *cdx.Component {
	p := &cdx.CryptoAlgorithmProperties{Primitive: a.primitive, ParameterSetIdentifier: a.parameter, Curve: a.curve, Mode: a.mode, Padding: a.padding}
	if len(a.functions) > 0 {
		p.CryptoFunctions = &a.functions
	}
	if a.classical >= 0 {
		p.ClassicalSecurityLevel = &a.classical
	}
	if a.quantum >= 0 {
		p.NistQuantumSecurityLevel = &a.quantum
	}
	return &cdx.Component{Type: cdx.ComponentTypeCryptographicAsset, BOMRef: a.ref(), Name: text(a.name),
		CryptoProperties: &cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeAlgorithm, AlgorithmProperties: p}}
}

// counted writes values with how often each was seen.
func counted(list []posture.Value) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = v.String()
	}
	return strings.Join(parts, ", ")
}
