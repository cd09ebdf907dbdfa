package parsers

import "time"

// What one parser, and one flow of it, may hold and look at.
const (
	// maxMessage is the longest handshake message that is read, in bytes of its
	// body: against lengths that make the sensor collect 16 MiB for each flow.
	// Real chains reach 340 kB.
	maxMessage = 1 << 20

	// maxDatagramMessage is the same over DTLS, where fragments may come in any
	// order and number.
	maxDatagramMessage = 1 << 17

	// maxSpare is what a parser keeps of buffers that are free, to use again.
	maxSpare = 4 << 20

	// maxSpareConns is how many flows' states it keeps to use again.
	maxSpareConns = 1 << 16

	// maxRecycled is how many handshakes that were given back it keeps.
	maxRecycled = 1 << 13

	// maxChain is how many certificates of one message are kept: against a
	// message full of one-byte certificates.
	maxChain = 256

	// maxAuthorities is how many names of one CertificateRequest are kept: the
	// message has room for 20,000.
	maxAuthorities = 256

	// maxPreface and maxPrefaceSegments bound how far into one direction of a
	// flow TLS is looked for at the start of each segment, where nothing looked
	// like it yet and no carrier was recognized: after them it is given up.
	maxPreface         = 16 << 10
	maxPrefaceSegments = 32

	// maxDialogue and maxDialogueSegments bound it where a protocol is spoken
	// that can go over to TLS, or where the other direction is TLS: against talk that never does. Long ones that do
	// are FTP sessions and proxies that ask for passwords.
	maxDialogue         = 1 << 20
	maxDialogueSegments = 4096

	// maxMonologue and maxMonologueSegments bound how long one direction that is
	// no TLS is followed while the other has not said a word: of the first
	// bytes of that, and of the beginnings of segments of this, TLS is still
	// expected. Against flows of which one direction is not captured. Malware
	// sends its second stage so, some megabytes, before TLS on the same
	// connection.
	maxMonologue         = 64 << 20
	maxMonologueSegments = 1 << 16

	// maxAstray and maxAstraySegments bound the search for the next record where
	// the framing was lost: a whole chain may follow on a gap.
	maxAstray         = 1 << 20
	maxAstraySegments = 4096

	// maxCarving is how many bytes of one direction are looked at in vain when
	// certificates are searched in it, each counted as often as it is; to find
	// the next record counts as resumeCost. Against bytes that look like the
	// beginnings of many certificates.
	maxCarving = 4 << 20
	resumeCost = 4 << 10

	// smallestCertificate is the shortest certificate that is searched for.
	smallestCertificate = 128

	// maxPlaintext bounds the plaintext records of one direction: against
	// handshakes that never end.
	maxPlaintext = 8 << 20

	// maxSealedServer and maxSealedClient are how many bytes of the encrypted
	// part of a handshake are held in one direction until its secret comes,
	// and maxSealedAfter how many of the server's after the client has answered
	// it; maxMarks is in how many pieces. Real chains reach 340 kB.
	maxSealedServer = 512 << 10
	maxSealedClient = 64 << 10
	maxSealedAfter  = 16 << 10
	maxMarks        = 1024

	// maxWaiting is how many flows wait for their secrets at a time; the one
	// that has waited longest gives way. maxSealedTime is how long a flow waits, in packet time: against flows
	// whose secrets never come, which are most.
	maxWaiting    = 1 << 14
	maxSealedTime = int64(10 * time.Second)

	// maxEarlyData is how many bytes of records are tried with a secret that does
	// not open them, where that need not mean that it is wrong: early data has
	// another, and after a gap it is not known where records begin.
	maxEarlyData = 256 << 10

	// oneSided is how many segments or datagrams of encrypted data of one
	// direction are enough to know that the other was not captured.
	oneSided = 16

	// maxPending is how many handshake messages of one direction of DTLS are put
	// together at a time: against messages that are never finished. A flight has
	// seven.
	maxPending = 8

	// maxSessions is how many TLS sessions of one flow are followed at a time,
	// where it carries several: RADIUS has one for each user that signs in.
	maxSessions = 64

	// maxPiecesHeld is how many packets of OpenVPN's control channel, or of Remote
	// Desktop, are held that came too early. OpenVPN's senders have at most
	// 12 on the way.
	maxPiecesHeld = 16

	// maxRDP is how many datagrams a connection of Remote Desktop may have until
	// its handshake is over: some twenty do.
	maxRDP = 1 << 10

	// maxIdle is how many bytes of a TCP stream of packets may belong to no
	// handshake until it is given up.
	maxIdle = 1 << 20

	// unknownGap stands for a gap whose length nobody knows: longer than any
	// message.
	unknownGap = 1<<31 - 1

	// The entries of the caches.
	cachedCertificates = 4096
	cachedHellos       = 2048 // of each kind
	maxHelloKey        = 1024 // bytes of what makes a hello's fingerprint, to be cached
)
