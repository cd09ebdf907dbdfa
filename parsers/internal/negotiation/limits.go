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

	// cachedHellos is how many hellos of each kind are remembered, and
	// maxHelloKey how long, in bytes, what makes a hello's fingerprint may be for
	// that: against hellos with thousands of suites that come once.
	cachedHellos = 2048
	maxHelloKey  = 1024

	// chargedFrom is how many bytes one message may leave behind without a charge:
	// so much is in the price of every flow that is not decided.
	chargedFrom = 1 << 10

	// maxKeyExchange is the longest ServerKeyExchange that is kept, maxOCSP the
	// longest stapled answer, and maxSCTs the longest list of signed certificate
	// timestamps, in bytes: more is in no use.
	maxKeyExchange = 16 << 10
	maxOCSP        = 16 << 10
	maxSCTs        = 4 << 10

	// maxTranscript is how many bytes of the messages of a handshake are kept until
	// its signature comes, where there are keys. Chains beyond are not proven.
	maxTranscript = 256 << 10

	// maxSpareKept is how many bytes for the signature and the stapled answer a
	// handshake has that is used again. maxSpareTranscripts is how many transcripts
	// are, of at most maxSpareTranscript bytes.
	maxSpareKept        = 2 << 10
	maxSpareTranscripts = 64
	maxSpareTranscript  = 16 << 10
)
