package flow

import "time"

// What a shard may hold. A sensor has [Shards] of them, so that the figures of
// the whole are Shards times these; what a shard does depends on its own
// packets only, and so not on how many workers share the shards.
const (
	shardBits = 4
	Shards    = 1 << shardBits // how many shards flows are dealt to

	limitTags       = 8       // tags of one Ethernet frame; a frame of nothing but tags ends here
	limitLabels     = 16      // MPLS labels of one stack, for the same reason
	limitExtensions = 12      // extension headers of one IPv6 or GTP packet; stops chains without an end
	limitUnread     = 64      // kinds of content that are named where they cannot be read; numbers can be made up
	limitStations   = 256     // who is remembered to sign in over EAPOL; a switch has some 50 ports, and sources of frames can be made up
	limitFollowed   = 64      // flows of Remote Desktop whose datagrams are not looked at; each costs the others a comparison
	limitFollowing  = 1 << 10 // datagrams of one of them; its handshake has some twenty
	limitTunnels    = 8       // tunnels in one another; stops a frame of nothing but tunnel headers

	// What is kept of IP datagrams whose fragments are still to come, by one
	// decoder. Stops a flood of first fragments that nothing ever follows.
	limitDatagrams     = 4096
	limitFragmentBytes = 16 << 20
	// Fragments of one datagram that contradict others, and the ends that they
	// say it has. Stops a flood of forged fragments for one identifier, each of
	// which is tried with the others.
	limitVersions = 64
	limitEnds     = 16
	limitTries    = 512 // sets of versions of one datagram whose checksum is looked at
	// Payloads that are made of one datagram where checksums do not tell which
	// is true. Each costs as much as the whole does.
	limitAssemblies = 3

	// Fragments of user messages of SCTP that one decoder holds, their bytes, and
	// of how many a message may be made. A record of DTLS has some 12 on an
	// Ethernet; the search for the others of a fragment takes as many steps.
	limitChunks     = 1024
	limitChunkBytes = 4 << 20
	limitMessage    = 32

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

	// Reassemblies that are kept to use again.
	limitIdle = 1 << 12
)

// Timeouts, in flow time.
const (
	// Fragments of a datagram that does not become whole: what hosts in use
	// wait for them (RFC 791 says 15 seconds, RFC 8200 a minute).
	timeoutFragments = int64(30 * time.Second)
	// A datagram with a bad checksum, of which the true fragments may still come:
	// they are on their way at the same time. Later the identifier is used again.
	timeoutDoubtful = int64(2 * time.Second)
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
