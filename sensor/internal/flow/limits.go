package flow

import "time"

// What a shard may hold. A sensor has [Shards] of them, so that the figures of
// the whole are Shards times these; what a shard does depends on its own
// packets only, and so not on how many workers share the shards.
const (
	shardBits = 4
	Shards    = 1 << shardBits // how many shards flows are dealt to

	limitTags       = 4  // VLAN tags of one frame; a frame of nothing but tags ends here
	limitExtensions = 12 // IPv6 extension headers of one packet; stops chains without an end

	// Bytes beyond a hole that one direction of a flow may hold back. Stops a
	// sender that never fills the hole; a real sender's window may be larger,
	// but no handshake waits for more.
	limitHeldStream = 512 << 10
	// Segments beyond a hole in one direction. Stops a million segments of
	// one byte, each with its own bookkeeping.
	limitHeldSegments = 4096
)

// Timeouts, in packet time.
const (
	// A hole in the stream is given up after this long: every TCP in use has
	// retransmitted by then, and the alert must not wait for ever.
	timeoutHole = int64(3 * time.Second)
	// A flow that only showed a SYN.
	timeoutEmbryonic = int64(15 * time.Second)
	// A flow in whose handshake nothing happens any more.
	timeoutHandshake = int64(30 * time.Second)
	// A decided flow; its later packets would be taken for a new one.
	timeoutDecided = int64(120 * time.Second)
	// A closed flow, kept for retransmissions that come late.
	timeoutClosed = int64(5 * time.Second)
	// A reset may be forged: the flow is closed when nothing more comes.
	timeoutReset = int64(1 * time.Second)
)
