package transparency

import "time"

// What one handshake may cost. A server chooses how much it sends, and each
// signature that is verified takes up to 2 ms.
const (
	maxTimestamps = 16       // verified of one handshake; more are counted only. Certificates have 2 to 6
	maxList       = 16 << 10 // bytes of a list of timestamps; TLS allows 64 KiB
	maxOCSP       = 64 << 10 // bytes of a stapled answer
	maxAnswers    = 64       // looked at in one, for that of the leaf
	maxDelegates  = 3        // certificates in one that may have signed it
	maxIssuers    = 3        // certificates of a chain that are tried as the issuer

	// maxSkew is how far the clocks of a responder and of the capture may be apart.
	maxSkew = 5 * time.Minute

	// What is remembered: verdicts in bytes, where one takes about verdictSize and
	// what its reasons take at three times, and pairs of a leaf and its issuer, and
	// keys of issuers, in entries of 100 bytes and of up to 3 KiB.
	maxVerdicts = 4 << 20
	verdictSize = 512
	maxPairs    = 8192
	maxKeys     = 512
)
