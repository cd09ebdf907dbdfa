package parsers

import "time"

// What one parser, and one flow of it, may hold and look at. The packages below have
// limits of their own.
const (
	// maxSpareConns is how many states of closed flows a parser keeps to use again.
	maxSpareConns = 1 << 16

	// cachedCertificates is how many certificates are remembered. [Limits].Cached
	// bounds their bytes.
	cachedCertificates = 4096

	// maxWaiting is how many flows wait for their secrets at a time; beyond that the
	// one that has waited longest is evicted. maxWaitingTime is how long a flow
	// waits, in nanoseconds of packet time. Both stop flows whose secrets never
	// come, as is the case for most flows, from filling the memory.
	maxWaiting     = 1 << 14
	maxWaitingTime = int64(10 * time.Second)

	// maxUntold is for how long, in nanoseconds of flow time, nothing is said of a
	// certificate that was seen, where [Parser.Prompt] was called: it stops a client
	// or server that keeps a handshake from its end from holding back an alert. Most
	// handshakes take less.
	maxUntold = int64(500 * time.Millisecond)

	// oneSided is after how many segments or datagrams of encrypted data in one
	// direction the parser no longer waits for the other, which was not captured.
	oneSided = 16

	// maxSessions is how many TLS sessions of one flow are followed at a time. RADIUS
	// has one for each user who signs in. The oldest is evicted.
	maxSessions = 64

	// maxRDP is how many datagrams a connection of Remote Desktop may have before
	// its handshake is over. Real ones have about twenty.
	maxRDP = 1 << 10

	// maxIdle is after how many bytes that do not belong to a handshake a TCP stream
	// of packets is given up.
	maxIdle = 1 << 20
)
