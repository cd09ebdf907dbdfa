package record

// What one direction may hold and look at.
const (
	// MaxMessage is the longest handshake message that is read, in bytes of its
	// body: against lengths that make the sensor collect 16 MiB for each flow.
	// Real chains reach 340 kB.
	MaxMessage = 1 << 20

	// MaxKeyExchange, MaxStatus and MaxVerify are how many bytes are kept of a
	// ServerKeyExchange, a CertificateStatus and, in TLS 1.3, a CertificateVerify
	// that comes in pieces. The groups of RFC 7919 and a key of 16,384 bits need
	// 6 KiB; an answer of OCSP with a chain in it 10; the longest signature of
	// FIPS 205 is 49,856 bytes.
	MaxKeyExchange = 16 << 10
	MaxStatus      = 32 << 10
	MaxVerify      = 64 << 10

	// MaxChain is how many certificates that were found outside of a message are
	// kept: against bytes full of small ones.
	MaxChain = 256

	// MaxCleartext and MaxCleartextSegments bound how far TLS is looked for at the
	// start of each segment, in bytes and in segments, where nothing looked like
	// it yet and no carrier was recognized: after them it is given up. Against
	// the cost of traffic that is not TLS.
	MaxCleartext         = 16 << 10
	MaxCleartextSegments = 32

	// MaxDialogue and MaxDialogueSegments bound it where a protocol is spoken
	// that can go over to TLS, or where the other direction is TLS: against talk
	// that never does. Long ones that do are FTP sessions and proxies that ask for
	// passwords.
	MaxDialogue         = 1 << 20
	MaxDialogueSegments = 4096

	// MaxMonologue and MaxMonologueSegments bound how long one direction that is
	// not TLS is followed while the other has not said a word: of the first
	// bytes of that, and of the beginnings of segments of this, TLS is still
	// expected. Against flows of which one direction is not captured. Malware
	// sends its second stage in this way, some megabytes, before TLS on the same
	// connection.
	MaxMonologue         = 64 << 20
	MaxMonologueSegments = 1 << 16

	// MaxUnsynced and MaxUnsyncedSegments bound the search for the next record
	// where it is not known where it begins: a whole chain may follow a gap.
	MaxUnsynced         = 1 << 20
	MaxUnsyncedSegments = 4096

	// MaxCarving is how many bytes are looked at in vain when certificates are
	// searched, each counted as often as it is; to find the next record counts as
	// resumeCost. Against bytes that look like the beginnings of many
	// certificates.
	MaxCarving = 4 << 20
	resumeCost = 4 << 10

	// smallestCertificate is the shortest certificate that is searched for, in
	// bytes.
	smallestCertificate = 128

	// MaxPlaintext bounds the plaintext records, in bytes: against handshakes
	// that never end.
	MaxPlaintext = 8 << 20

	// MaxHeldServer and MaxHeldClient are how many bytes of the encrypted part of
	// a handshake are held until the secret of the server or of the client comes,
	// and MaxHeldAfterAnswer how many of the server's after the client has
	// answered it; MaxRuns is in how many pieces. Against flows whose secrets
	// never come, which are most. Real chains reach 340 kB.
	MaxHeldServer      = 512 << 10
	MaxHeldClient      = 64 << 10
	MaxHeldAfterAnswer = 16 << 10
	MaxRuns            = 1024

	// MaxMissed is how many bytes of records are tried with a secret that does
	// not open them, where that need not mean that it is wrong: early data has
	// another, and after a gap it is not known where records begin. Against the
	// cost of each trial.
	MaxMissed = 256 << 10
)
