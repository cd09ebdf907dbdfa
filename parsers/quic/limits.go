package quic

// What one session may hold and try.
const (
	// maxConnectionID is the longest connection ID of the versions known here
	// (RFC 9000, section 17.2).
	maxConnectionID = 20

	// minFirstID is the shortest Destination Connection ID of a client's first
	// Initial (RFC 9000, section 7.2).
	minFirstID = 8

	// minInitialDatagram is the least size of a datagram with a client's
	// Initial (RFC 9000, section 14.1).
	minInitialDatagram = 1200

	// maxConnections is how many connections of one flow are followed at a
	// time, and maxKeySets how many keys for the Initials of each (a Retry or
	// another version brings new ones): against clients that begin without end.
	maxConnections = 4
	maxKeySets     = 4

	// maxTrials is how many packets of one session may cost the derivation of
	// keys that then do not open them: against datagrams that only look like
	// Initials.
	maxTrials = 32

	// maxInitialStream and maxHandshakeStream bound how far ahead of what was
	// delivered CRYPTO data of one direction is kept, and so how long a message
	// may be: against offsets and lengths that lie. Hellos take 2 kB; real
	// chains reach 340 kB.
	maxInitialStream   = 64 << 10
	maxHandshakeStream = 512 << 10

	// maxWaiting is how many Handshake packets of one session wait for their
	// secrets, maxWaitingInitials how many Initials for the client's first,
	// which may come late, and maxWaitingBytes what they take together.
	maxWaiting         = 64
	maxWaitingInitials = 8
	maxWaitingBytes    = 128 << 10

	// connectionCost is about what a connection takes beside that: mostly the
	// keys for its Initials. What all sessions hold together is the caller's to
	// bound, see [Decoder.Held].
	connectionCost = 4 << 10
)
