package flow

import "time"

// What a shard may hold. A sensor has [decode.Shards] of them, so that the figures
// of the whole are that many times these.
const (
	// How far beyond a hole the bytes of one direction are held, and how far
	// from where a stream is a number fits it. Windows may be larger, but no
	// handshake fills one; and a number at random fits once in 4,096 times.
	limitHeldStream = 512 << 10
	limitEarly      = 64 << 10 // before the first byte that was captured, where the beginning was not
	limitCuts       = 64       // pieces of it that the snaplen cut off

	// Flows on one five-tuple at a time. Stops a flood of SYNs on one.
	limitTwins = 8

	// Segments, and bytes of them, that are kept aside in one direction because
	// an endpoint may have ignored them. The oldest give way.
	limitAside      = 128
	limitAsideBytes = 128 << 10

	// How many segments that follow on one another far from where the stream
	// was, with none there in between, show that the capture lacks a part.
	// At the end of the flow fewer do.
	farRun      = 32
	farRunAtEnd = 4

	// How often a flow is told again with other bytes; each costs as much as
	// its transcript is long.
	limitAlternatives = 8

	// Segments after which a flow counts as no TLS, though it may have been
	// forged ones that said so.
	limitAfter = 8
	// The same, while the alternative is in the middle of a handshake.
	limitAfterBegun = 200

	// Reassemblies, and pages of held bytes, that stay allocated to be used again
	// after a burst.
	limitIdle      = 1 << 12
	limitFreePages = 512
)

// Timeouts, in flow time.
const (
	// Live, a hole in the stream whose bytes the other side has acknowledged:
	// only a capture that brings them late can fill it.
	timeoutHole = int64(3 * time.Second)
	// Live, any other hole: TCP has sent again after 1, 3, 7, 15 and 31 s by
	// then (RFC 6298, section 5). A replay waits as long as there is room.
	timeoutRetransmission = int64(32 * time.Second)
	// A flow that only showed a SYN: it is sent again as often.
	timeoutEmbryonic = int64(32 * time.Second)
	// A flow in whose handshake nothing happens any more. Somebody may be
	// looking for a smart card.
	timeoutHandshake     = int64(time.Hour)
	timeoutHandshakeLive = int64(5 * time.Minute)
	// A silence after which a flow that gives way was no handshake any more.
	timeoutHandshakeIdle = int64(time.Minute)
	// A decided flow; its later packets would be taken for a new one.
	timeoutDecided = int64(120 * time.Second)
	// A closed flow, kept for retransmissions that come late.
	timeoutClosed = int64(2 * time.Second)
	// A reset may be forged: the flow is closed when nothing more comes.
	timeoutReset = int64(1 * time.Second)
)
