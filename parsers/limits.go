package parsers

import "time"

// What one parser, and one flow of it, may hold and look at, beside the limits of
// the packages below.
const (
	// maxSpareConns is how many flows' states a parser keeps to use again.
	maxSpareConns = 1 << 16

	// cachedCertificates is how many certificates are remembered; in bytes
	// [Limits] bounds them.
	cachedCertificates = 4096

	// maxWaiting is how many flows wait for their secrets at a time; the one
	// that has waited longest is evicted. maxWaitingTime is how long a flow
	// waits, in packet time: against flows whose secrets never come, which are
	// most.
	maxWaiting     = 1 << 14
	maxWaitingTime = int64(10 * time.Second)

	// oneSided is how many segments or datagrams of encrypted data of one
	// direction are enough to know that the other was not captured.
	oneSided = 16

	// maxSessions is how many TLS sessions of one flow are followed at a time,
	// where it carries several: RADIUS has one for each user that signs in.
	maxSessions = 64

	// maxRDP is how many datagrams a connection of Remote Desktop may have until
	// its handshake is over: some twenty do.
	maxRDP = 1 << 10

	// maxIdle is how many bytes of a TCP stream of packets may belong to no
	// handshake until it is given up.
	maxIdle = 1 << 20
)
