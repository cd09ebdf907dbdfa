package cert

// signatureAlgorithms has crypto/x509's names. RSASSA-PSS is not among them, for
// its name depends on the parameters; nor is Ed25519, which is a kind of key too.
var signatureAlgorithms = map[string]string{
	"1.2.840.113549.1.1.4":   "MD5-RSA",
	"1.2.840.113549.1.1.5":   "SHA1-RSA",
	"1.3.14.3.2.29":          "SHA1-RSA", // of ISO/IEC JTC1
	"1.2.840.113549.1.1.11":  "SHA256-RSA",
	"1.2.840.113549.1.1.12":  "SHA384-RSA",
	"1.2.840.113549.1.1.13":  "SHA512-RSA",
	"1.2.840.10040.4.3":      "DSA-SHA1",
	"2.16.840.1.101.3.4.3.2": "DSA-SHA256",
	"1.2.840.10045.4.1":      "ECDSA-SHA1",
	"1.2.840.10045.4.3.2":    "ECDSA-SHA256",
	"1.2.840.10045.4.3.3":    "ECDSA-SHA384",
	"1.2.840.10045.4.3.4":    "ECDSA-SHA512",
}

// otherSignatures has the signature algorithms for which crypto/x509 has no name,
// in the manner of its names where a hash and a key are put together, else by the
// names of their standards. What is in keyAlgorithms too is only there.
var otherSignatures = map[string]string{
	"1.2.840.113549.1.1.2":    "MD2-RSA",
	"1.3.14.7.2.3.1":          "MD2-RSA", // of OIW, as the next
	"1.2.840.113549.1.1.3":    "MD4-RSA",
	"1.3.14.3.2.3":            "MD5-RSA",
	"1.2.840.113549.1.1.14":   "SHA224-RSA",
	"1.2.840.113549.1.1.15":   "SHA512/224-RSA",
	"1.2.840.113549.1.1.16":   "SHA512/256-RSA",
	"1.3.36.3.3.1.2":          "RIPEMD160-RSA",
	"2.16.840.1.101.3.4.3.13": "SHA3-224-RSA",
	"2.16.840.1.101.3.4.3.14": "SHA3-256-RSA",
	"2.16.840.1.101.3.4.3.15": "SHA3-384-RSA",
	"2.16.840.1.101.3.4.3.16": "SHA3-512-RSA",
	"1.3.14.3.2.13":           "DSA-SHA", // FIPS 180 before its first revision
	"1.3.14.3.2.27":           "DSA-SHA1",
	"2.16.840.1.101.3.4.3.1":  "DSA-SHA224",
	"2.16.840.1.101.3.4.3.3":  "DSA-SHA384",
	"2.16.840.1.101.3.4.3.4":  "DSA-SHA512",
	"2.16.840.1.101.3.4.3.5":  "DSA-SHA3-224",
	"2.16.840.1.101.3.4.3.6":  "DSA-SHA3-256",
	"2.16.840.1.101.3.4.3.7":  "DSA-SHA3-384",
	"2.16.840.1.101.3.4.3.8":  "DSA-SHA3-512",
	"1.2.840.10045.4.3.1":     "ECDSA-SHA224",
	"2.16.840.1.101.3.4.3.9":  "ECDSA-SHA3-224",
	"2.16.840.1.101.3.4.3.10": "ECDSA-SHA3-256",
	"2.16.840.1.101.3.4.3.11": "ECDSA-SHA3-384",
	"2.16.840.1.101.3.4.3.12": "ECDSA-SHA3-512",
	"1.3.6.1.5.5.7.6.30":      "SHAKE128-RSAPSS", // RFC 8692, as the next three
	"1.3.6.1.5.5.7.6.31":      "SHAKE256-RSAPSS",
	"1.3.6.1.5.5.7.6.32":      "ECDSA-SHAKE128",
	"1.3.6.1.5.5.7.6.33":      "ECDSA-SHAKE256",
	"1.2.643.2.2.4":           "GOST R 34.11-94 with GOST R 34.10-94", // RFC 4491, section 2.2
	"1.2.643.2.2.3":           "GOST R 34.11-94 with GOST R 34.10-2001",
	"1.2.643.7.1.1.3.2":       "GOST R 34.11-2012-256 with GOST R 34.10-2012-256", // RFC 9215, section 3
	"1.2.643.7.1.1.3.3":       "GOST R 34.11-2012-512 with GOST R 34.10-2012-512",
	"1.2.156.10197.1.501":     "SM2-SM3", // GM/T 0006
	"1.2.156.10197.1.502":     "SM2-SHA1",
	"1.2.156.10197.1.503":     "SM2-SHA256",
	"1.2.156.10197.1.504":     "SM3-RSA",
}

// Algorithms of keys whose parameters or contents say how long they are.
const (
	oidRSA      = "1.2.840.113549.1.1.1"
	oidRSAPSS   = "1.2.840.113549.1.1.10"
	oidRSAOAEP  = "1.2.840.113549.1.1.7"
	oidDSA      = "1.2.840.10040.4.1"
	oidDSAOIW   = "1.3.14.3.2.12"
	oidDH       = "1.2.840.10046.2.1"    // X9.42
	oidDHPKCS3  = "1.2.840.113549.1.3.1" // PKCS #3
	oidEC       = "1.2.840.10045.2.1"
	oidECDH     = "1.3.132.1.12"
	oidECMQV    = "1.3.132.1.13"
	oidSM2      = "1.2.156.10197.1.301" // also the curve
	oidGOST94   = "1.2.643.2.2.20"
	oidGOST2001 = "1.2.643.2.2.19"
	oidGOST256  = "1.2.643.7.1.1.1.1"
	oidGOST512  = "1.2.643.7.1.1.1.2"
)

// keyAlgorithm is a kind of key.
type keyAlgorithm struct {
	name   string
	octets int // of the key, where its kind says that; else 0
}

// keyAlgorithms has the kinds of keys by name: Go's, or that of the standard.
var keyAlgorithms = map[string]keyAlgorithm{
	oidRSA:      {name: "RSA"},
	oidRSAPSS:   {name: "RSASSA-PSS"},
	oidRSAOAEP:  {name: "RSAES-OAEP"},
	oidDSA:      {name: "DSA"},
	oidDSAOIW:   {name: "DSA"},
	oidDH:       {name: "DH"},
	oidDHPKCS3:  {name: "DH"},
	oidEC:       {name: "ECDSA"},
	oidECDH:     {name: "ECDH"},
	oidECMQV:    {name: "ECMQV"},
	oidSM2:      {name: "SM2"},
	oidGOST94:   {name: "GOST R 34.10-94"},
	oidGOST2001: {name: "GOST R 34.10-2001"},
	oidGOST256:  {name: "GOST R 34.10-2012-256"},
	oidGOST512:  {name: "GOST R 34.10-2012-512"},

	// RFC 8410, section 3.
	"1.3.101.110": {"X25519", 32},
	"1.3.101.111": {"X448", 56},
	"1.3.101.112": {"Ed25519", 32},
	"1.3.101.113": {"Ed448", 57},

	// RFC 9881, section 2, and FIPS 204, table 2.
	"2.16.840.1.101.3.4.3.17": {"ML-DSA-44", 1312},
	"2.16.840.1.101.3.4.3.18": {"ML-DSA-65", 1952},
	"2.16.840.1.101.3.4.3.19": {"ML-DSA-87", 2592},
	"2.16.840.1.101.3.4.3.32": {"HashML-DSA-44-SHA512", 1312},
	"2.16.840.1.101.3.4.3.33": {"HashML-DSA-65-SHA512", 1952},
	"2.16.840.1.101.3.4.3.34": {"HashML-DSA-87-SHA512", 2592},

	// RFC 9909, section 3, and FIPS 205, table 2.
	"2.16.840.1.101.3.4.3.20": {"SLH-DSA-SHA2-128s", 32},
	"2.16.840.1.101.3.4.3.21": {"SLH-DSA-SHA2-128f", 32},
	"2.16.840.1.101.3.4.3.22": {"SLH-DSA-SHA2-192s", 48},
	"2.16.840.1.101.3.4.3.23": {"SLH-DSA-SHA2-192f", 48},
	"2.16.840.1.101.3.4.3.24": {"SLH-DSA-SHA2-256s", 64},
	"2.16.840.1.101.3.4.3.25": {"SLH-DSA-SHA2-256f", 64},
	"2.16.840.1.101.3.4.3.26": {"SLH-DSA-SHAKE-128s", 32},
	"2.16.840.1.101.3.4.3.27": {"SLH-DSA-SHAKE-128f", 32},
	"2.16.840.1.101.3.4.3.28": {"SLH-DSA-SHAKE-192s", 48},
	"2.16.840.1.101.3.4.3.29": {"SLH-DSA-SHAKE-192f", 48},
	"2.16.840.1.101.3.4.3.30": {"SLH-DSA-SHAKE-256s", 64},
	"2.16.840.1.101.3.4.3.31": {"SLH-DSA-SHAKE-256f", 64},
	"2.16.840.1.101.3.4.3.35": {"HashSLH-DSA-SHA2-128s-SHA256", 32},
	"2.16.840.1.101.3.4.3.36": {"HashSLH-DSA-SHA2-128f-SHA256", 32},
	"2.16.840.1.101.3.4.3.37": {"HashSLH-DSA-SHA2-192s-SHA512", 48},
	"2.16.840.1.101.3.4.3.38": {"HashSLH-DSA-SHA2-192f-SHA512", 48},
	"2.16.840.1.101.3.4.3.39": {"HashSLH-DSA-SHA2-256s-SHA512", 64},
	"2.16.840.1.101.3.4.3.40": {"HashSLH-DSA-SHA2-256f-SHA512", 64},
	"2.16.840.1.101.3.4.3.41": {"HashSLH-DSA-SHAKE-128s-SHAKE128", 32},
	"2.16.840.1.101.3.4.3.42": {"HashSLH-DSA-SHAKE-128f-SHAKE128", 32},
	"2.16.840.1.101.3.4.3.43": {"HashSLH-DSA-SHAKE-192s-SHAKE256", 48},
	"2.16.840.1.101.3.4.3.44": {"HashSLH-DSA-SHAKE-192f-SHAKE256", 48},
	"2.16.840.1.101.3.4.3.45": {"HashSLH-DSA-SHAKE-256s-SHAKE256", 64},
	"2.16.840.1.101.3.4.3.46": {"HashSLH-DSA-SHAKE-256f-SHAKE256", 64},

	// RFC 9936, section 3, and FIPS 203, table 3.
	"2.16.840.1.101.3.4.4.1": {"ML-KEM-512", 800},
	"2.16.840.1.101.3.4.4.2": {"ML-KEM-768", 1184},
	"2.16.840.1.101.3.4.4.3": {"ML-KEM-1024", 1568},

	// RFC 9802, section 3.
	"1.2.840.113549.1.9.16.3.17": {name: "HSS-LMS"},
	"1.3.6.1.5.5.7.6.34":         {name: "XMSS"},
	"1.3.6.1.5.5.7.6.35":         {name: "XMSSMT"},

	// draft-ietf-lamps-pq-composite-sigs, section 6.
	"1.3.6.1.5.5.7.6.37": {name: "MLDSA44-RSA2048-PSS-SHA256"},
	"1.3.6.1.5.5.7.6.38": {name: "MLDSA44-RSA2048-PKCS15-SHA256"},
	"1.3.6.1.5.5.7.6.39": {name: "MLDSA44-Ed25519-SHA512"},
	"1.3.6.1.5.5.7.6.40": {name: "MLDSA44-ECDSA-P256-SHA256"},
	"1.3.6.1.5.5.7.6.41": {name: "MLDSA65-RSA3072-PSS-SHA512"},
	"1.3.6.1.5.5.7.6.42": {name: "MLDSA65-RSA3072-PKCS15-SHA512"},
	"1.3.6.1.5.5.7.6.43": {name: "MLDSA65-RSA4096-PSS-SHA512"},
	"1.3.6.1.5.5.7.6.44": {name: "MLDSA65-RSA4096-PKCS15-SHA512"},
	"1.3.6.1.5.5.7.6.45": {name: "MLDSA65-ECDSA-P256-SHA512"},
	"1.3.6.1.5.5.7.6.46": {name: "MLDSA65-ECDSA-P384-SHA512"},
	"1.3.6.1.5.5.7.6.47": {name: "MLDSA65-ECDSA-brainpoolP256r1-SHA512"},
	"1.3.6.1.5.5.7.6.48": {name: "MLDSA65-Ed25519-SHA512"},
	"1.3.6.1.5.5.7.6.49": {name: "MLDSA87-ECDSA-P384-SHA512"},
	"1.3.6.1.5.5.7.6.50": {name: "MLDSA87-ECDSA-brainpoolP384r1-SHA512"},
	"1.3.6.1.5.5.7.6.51": {name: "MLDSA87-Ed448-SHAKE256"},
	"1.3.6.1.5.5.7.6.52": {name: "MLDSA87-RSA3072-PSS-SHA512"},
	"1.3.6.1.5.5.7.6.53": {name: "MLDSA87-RSA4096-PSS-SHA512"},
	"1.3.6.1.5.5.7.6.54": {name: "MLDSA87-ECDSA-P521-SHA512"},
}

// curve is an elliptic curve.
type curve struct {
	name string
	bits int // of an element of its field
}

// curves has the names of the standards: FIPS 186, SEC 2, X9.62, RFC 5639, those
// of RFC 4357 and RFC 9215 without "id-".
var curves = map[string]curve{
	"1.2.840.10045.3.1.1": {"P-192", 192},
	"1.3.132.0.33":        {"P-224", 224},
	"1.2.840.10045.3.1.7": {"P-256", 256},
	"1.3.132.0.34":        {"P-384", 384},
	"1.3.132.0.35":        {"P-521", 521},

	"1.3.132.0.1":  {"sect163k1", 163},
	"1.3.132.0.2":  {"sect163r1", 163},
	"1.3.132.0.3":  {"sect239k1", 239},
	"1.3.132.0.4":  {"sect113r1", 113},
	"1.3.132.0.5":  {"sect113r2", 113},
	"1.3.132.0.6":  {"secp112r1", 112},
	"1.3.132.0.7":  {"secp112r2", 112},
	"1.3.132.0.8":  {"secp160r1", 160},
	"1.3.132.0.9":  {"secp160k1", 160},
	"1.3.132.0.10": {"secp256k1", 256},
	"1.3.132.0.15": {"sect163r2", 163},
	"1.3.132.0.16": {"sect283k1", 283},
	"1.3.132.0.17": {"sect283r1", 283},
	"1.3.132.0.22": {"sect131r1", 131},
	"1.3.132.0.23": {"sect131r2", 131},
	"1.3.132.0.24": {"sect193r1", 193},
	"1.3.132.0.25": {"sect193r2", 193},
	"1.3.132.0.26": {"sect233k1", 233},
	"1.3.132.0.27": {"sect233r1", 233},
	"1.3.132.0.28": {"secp128r1", 128},
	"1.3.132.0.29": {"secp128r2", 128},
	"1.3.132.0.30": {"secp160r2", 160},
	"1.3.132.0.31": {"secp192k1", 192},
	"1.3.132.0.32": {"secp224k1", 224},
	"1.3.132.0.36": {"sect409k1", 409},
	"1.3.132.0.37": {"sect409r1", 409},
	"1.3.132.0.38": {"sect571k1", 571},
	"1.3.132.0.39": {"sect571r1", 571},

	"1.2.840.10045.3.1.2": {"prime192v2", 192},
	"1.2.840.10045.3.1.3": {"prime192v3", 192},
	"1.2.840.10045.3.1.4": {"prime239v1", 239},
	"1.2.840.10045.3.1.5": {"prime239v2", 239},
	"1.2.840.10045.3.1.6": {"prime239v3", 239},

	"1.3.36.3.3.2.8.1.1.1":  {"brainpoolP160r1", 160},
	"1.3.36.3.3.2.8.1.1.2":  {"brainpoolP160t1", 160},
	"1.3.36.3.3.2.8.1.1.3":  {"brainpoolP192r1", 192},
	"1.3.36.3.3.2.8.1.1.4":  {"brainpoolP192t1", 192},
	"1.3.36.3.3.2.8.1.1.5":  {"brainpoolP224r1", 224},
	"1.3.36.3.3.2.8.1.1.6":  {"brainpoolP224t1", 224},
	"1.3.36.3.3.2.8.1.1.7":  {"brainpoolP256r1", 256},
	"1.3.36.3.3.2.8.1.1.8":  {"brainpoolP256t1", 256},
	"1.3.36.3.3.2.8.1.1.9":  {"brainpoolP320r1", 320},
	"1.3.36.3.3.2.8.1.1.10": {"brainpoolP320t1", 320},
	"1.3.36.3.3.2.8.1.1.11": {"brainpoolP384r1", 384},
	"1.3.36.3.3.2.8.1.1.12": {"brainpoolP384t1", 384},
	"1.3.36.3.3.2.8.1.1.13": {"brainpoolP512r1", 512},
	"1.3.36.3.3.2.8.1.1.14": {"brainpoolP512t1", 512},

	oidSM2:                    {"SM2", 256},
	"1.2.250.1.223.101.256.1": {"FRP256v1", 256},

	"1.2.643.2.2.35.0":    {"GostR3410-2001-TestParamSet", 256},
	"1.2.643.2.2.35.1":    {"GostR3410-2001-CryptoPro-A-ParamSet", 256},
	"1.2.643.2.2.35.2":    {"GostR3410-2001-CryptoPro-B-ParamSet", 256},
	"1.2.643.2.2.35.3":    {"GostR3410-2001-CryptoPro-C-ParamSet", 256},
	"1.2.643.2.2.36.0":    {"GostR3410-2001-CryptoPro-XchA-ParamSet", 256},
	"1.2.643.2.2.36.1":    {"GostR3410-2001-CryptoPro-XchB-ParamSet", 256},
	"1.2.643.7.1.2.1.1.1": {"tc26-gost-3410-2012-256-paramSetA", 256},
	"1.2.643.7.1.2.1.1.2": {"tc26-gost-3410-2012-256-paramSetB", 256},
	"1.2.643.7.1.2.1.1.3": {"tc26-gost-3410-2012-256-paramSetC", 256},
	"1.2.643.7.1.2.1.1.4": {"tc26-gost-3410-2012-256-paramSetD", 256},
	"1.2.643.7.1.2.1.2.0": {"tc26-gost-3410-2012-512-paramSetTest", 512},
	"1.2.643.7.1.2.1.2.1": {"tc26-gost-3410-2012-512-paramSetA", 512},
	"1.2.643.7.1.2.1.2.2": {"tc26-gost-3410-2012-512-paramSetB", 512},
	"1.2.643.7.1.2.1.2.3": {"tc26-gost-3410-2012-512-paramSetC", 512},
}
