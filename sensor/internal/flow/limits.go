package flow

import "time"

// What the tracker of one shard may hold. A replay has [decode.Shards] trackers,
// and a live sensor one for each worker.
const (
	// How many bytes after a hole the bytes of one direction are held, and how far
	// a sequence number may be from the next one and still be of the stream. Windows
	// can be larger, but no handshake fills one, and a number that somebody guesses
	// fits once in 4,096 times.
	limitHeldStream = 512 << 10
	limitWindow     = 2 * limitHeldStream // from the next byte to the last that is held
	limitEarly      = 64 << 10            // before the first byte that was captured, where the beginning was not
	limitCuts       = 64                  // pieces among the bytes held that the snaplen cut off

	// Flows on one five-tuple at a time. Stops a flood of SYNs on one five-tuple.
	limitTwins = 8

	// Segments, and bytes of them, that are kept aside in one direction because
	// the endpoint may have ignored them. The oldest is evicted. Stops a flood of
	// forged segments.
	limitAside      = 128
	limitAsideBytes = 128 << 10

	// How many consecutive segments far from the next byte of a stream show that
	// the capture lacks a part, if no segment near it comes between them. At the end
	// of the flow fewer are enough.
	farRun      = 32
	farRunAtEnd = 4

	// Bytes of one direction, and deliveries of both, that a transcript has. A
	// handshake has some 8 KiB; what is retransmitted of later bytes is not
	// compared. Stops flows that never become decided from filling what all may keep.
	limitTranscript = 32 << 10
	limitDeliveries = 256

	// The urgent bytes of a stream that are known. Each costs a comparison for each byte
	// that comes after the first. An endpoint of TLS sends none.
	limitUrgent = 8

	// The bytes of a flow that are parsed again with others, all times added up. Each
	// time costs as much as its transcript is long, and something for the state of a
	// parser and for each delivery. Stops a flood of segments that contradict others,
	// but not a handshake in small segments of which each has a false copy.
	limitReparsed    = 256 << 10
	costAlternative  = 1 << 10
	costReparsedCall = 64

	// Segments after which a flow counts as decided, though forged segments may have
	// decided it: that it is not TLS, or that its handshake has failed.
	limitAfter = 8
	// The same, while the alternative reading of the flow is in a handshake.
	limitAfterBegun = 200

	// Holes in the queues, beside four for each reassembly, until those are looked for
	// that are filled or of flows that are over. Stops each flow that had a hole from
	// leaving one.
	limitOldHoles = 256

	// What stays allocated after a burst, to be used again: reassemblies, pages of
	// held bytes, buffers of each size, and how long the lists of an empty window
	// may be.
	limitIdle        = 1 << 12
	limitFreePages   = 512
	limitFreeBuffers = 64
	limitFreeList    = 16

	// Servers of OpenVPN of which somebody was told today. One that is forgotten is
	// told again.
	limitContacts = 1 << 10
)

// Timeouts, in flow time.
const (
	// Live, a hole in a stream whose bytes the other side has acknowledged. No
	// retransmission comes: only segments that the capture brings late can fill it.
	timeoutHole = int64(3 * time.Second)
	// Live, a hole of which the other side has said nothing. TCP has retransmitted
	// after 1, 3, 7, 15 and 31 s by then (RFC 6298, section 5). Where the other side
	// lacks the bytes too, and in a replay, it waits as long as there is room.
	timeoutRetransmission = int64(32 * time.Second)
	// A flow of which only a SYN was seen: TCP retransmits it in the same way.
	timeoutEmbryonic = int64(32 * time.Second)
	// A flow that is silent in the middle of its handshake. Somebody may be looking
	// for a smart card.
	timeoutHandshake     = int64(time.Hour)
	timeoutHandshakeLive = int64(5 * time.Minute)
	// A silence after which an undecided flow that is evicted counts as expired:
	// its handshake was over, though nothing said so.
	timeoutHandshakeIdle = int64(time.Minute)
	// A decided flow. If it were forgotten earlier, its next packet would look like
	// the first of another flow.
	timeoutDecided = int64(120 * time.Second)
	// A closed flow, which is kept for retransmissions.
	timeoutClosed = int64(2 * time.Second)
	// A flow that was reset. The RST may be forged: the flow ends when nothing more
	// comes.
	timeoutReset = int64(1 * time.Second)
)
