package signature

// What verifying one signature may cost. Keys come off the wire, so whoever sends
// one chooses how much work it makes.
const (
	// maxModulus is the longest RSA modulus in bits, and maxExponent the longest
	// public exponent: keys beyond are in no use, and OpenSSL has the same two.
	maxModulus  = 16384
	maxExponent = 64

	// maxCost bounds an RSA operation, as rsaCost estimates it: so much is a modulus
	// of 16,384 bits with the exponent 65,537, which takes about 2 ms.
	maxCost = 20 * (maxModulus / 64) * (maxModulus / 64)

	// maxPrime is the longest prime p of a DSA key in bits, the longest of FIPS
	// 186-4, section 4.2. A verification takes about 4 ms then.
	maxPrime = 3072

	// maxSignature is the longest signature in bytes: as long as the longest modulus.
	maxSignature = maxModulus / 8
)
