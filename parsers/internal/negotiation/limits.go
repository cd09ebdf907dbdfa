package negotiation

const (
	// MaxChain is how many certificates of one message are kept: against a
	// message full of one-byte certificates.
	MaxChain = 256

	// MaxAuthorities is how many names of one CertificateRequest are kept: the
	// message has room for 20,000.
	MaxAuthorities = 256

	// maxRecycled is how many handshakes that were given back are kept.
	maxRecycled = 1 << 13

	// maxSigned is how long the body of a message that the server signs may be, in
	// bytes: what is kept of one that comes in pieces, whatever it is kept of.
	maxSigned = 16 << 10

	// proofStep is the step, in bytes, in which the memory for such a message grows,
	// and maxRecycledProof how much of it stays with a handshake that was given
	// back: that is enough for a curve and a key of 4,096 bits.
	proofStep        = 512
	maxRecycledProof = 1 << 10

	// cachedHellos is how many hellos of each kind are remembered, and
	// maxHelloKey how long, in bytes, what makes a hello's fingerprint may be for
	// that: against hellos with thousands of suites that come once.
	cachedHellos = 2048
	maxHelloKey  = 1024

	// maxStaple is how long a stapled OCSPResponse, or a list of SCTs, may be to be
	// kept, in bytes. cachedStaples is how many bytes of them are remembered, of
	// which each costs its key, its value and stapleCost.
	maxStaple     = 32 << 10
	cachedStaples = 4 << 20
	stapleCost    = 128

	// maxTranscript is how many bytes of messages are kept to be hashed. Up to
	// maxRecycledTranscripts buffers of maxRecycledTranscript bytes are used again.
	maxTranscript          = 512 << 10
	maxRecycledTranscripts = 64
	maxRecycledTranscript  = 16 << 10

	// chargedFrom is how many bytes one message may leave behind without a charge:
	// so much is in the price of every flow that is not decided.
	chargedFrom = 1 << 10
)
