package trust

// What one judgement may cost. The sender of a chain chooses its certificates, their
// names and their keys, and so how much there is to try.
const (
	// maxCost bounds the signature checks of one judgement, in microseconds as [cost]
	// estimates them, and maxChecks their number. It is enough for three signatures
	// with P-521, the slowest keys that real chains have; the first check is made
	// whatever it costs. Checks that were remembered count like others, so that an
	// answer does not depend on what was asked before.
	maxCost   = 4000
	maxChecks = 32

	// maxDepth bounds the certificates of a path, the leaf and the root included. Real
	// ones have up to six.
	maxDepth = 12

	// maxSteps bounds the certificates that are visited. Cross-signed authorities make
	// paths multiply, while the signatures stay few.
	maxSteps = 64

	// maxNameChecks bounds the comparisons of names with name constraints.
	maxNameChecks = 20_000

	// maxConstraints is how many name constraints one certificate may have.
	maxConstraints = 1024

	// maxReasons is how many reasons a judgement has, and maxQuoted how many bytes of
	// a name stand in one.
	maxReasons = 16
	maxQuoted  = 96
	maxNames   = 3 // of a certificate, named in a reason

	// maxKey is the longest key of an answer that is kept to be used again, in bytes.
	maxKey = 64 << 10

	// maxSeen and maxSeenBytes bound the intermediates that are remembered from
	// handshakes before, all of a capture.
	maxSeen      = 4096
	maxSeenBytes = 16 << 20
	// maxSameName bounds those of one name, so that a visit costs little.
	maxSameName = 8

	// What the operator's roots may be: files of at most so many bytes, so many
	// certificates in all.
	maxStoreFile = 16 << 20
	maxStore     = 10_000
)
