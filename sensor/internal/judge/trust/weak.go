package trust

import "strings"

// WeakHash is the hash of a signature that can be forged, from the name of its
// algorithm as package cert has it; empty when it is none of these.
func WeakHash(algorithm string) string {
	for _, hash := range []string{"MD2", "MD4", "MD5", "SHA1"} {
		if strings.HasPrefix(algorithm, hash+"-") || strings.HasSuffix(algorithm, "-"+hash) {
			if hash == "SHA1" {
				return "SHA-1"
			}
			return hash
		}
	}
	if algorithm == "DSA-SHA" {
		return "SHA-0"
	}
	return ""
}

// WeakKey reports whether a key is too short, or of an algorithm that nobody should use
// any more, from the name of the algorithm as package cert has it and its size in bits;
// 0 where that is not known.
func WeakKey(algorithm string, bits int) bool {
	return algorithm == "DSA" ||
		strings.HasPrefix(algorithm, "RSA") && bits > 0 && bits < 2048 ||
		algorithm == "ECDSA" && bits > 0 && bits < 224
}
