package cert

// What one certificate may cost beyond its own bytes. A handshake message holds
// up to 16 MiB, which a sender may fill with names.
const (
	maxAttributes = 64   // kept of one name
	maxName       = 8192 // bytes of a name written out, except the last attribute
	maxAltNames   = 2048 // kept of subjectAltName, all kinds together
	maxUsages     = 64   // kept of extKeyUsage
	maxPolicies   = 64   // kept of certificatePolicies
	maxSubtrees   = 256  // kept of nameConstraints, permitted and excluded together
	maxValue      = 1024 // bytes read of one string; a multiple of 4, the widest character
	maxSerial     = 128  // octets; RFC 5280, section 4.1.2.2, allows 20
	maxKeyID      = 128  // octets of a key identifier
	maxOID        = 128  // octets of an object identifier
	maxDepth      = 32   // indefinite lengths within one another
)
