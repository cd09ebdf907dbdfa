package decode

import "time"

// What a decoder may hold and how far it looks. Each limit stops frames that
// somebody made to keep the sensor busy, or to fill its memory.
const (
	limitTags       = 8       // tags of one Ethernet frame; a frame of nothing but tags ends here
	limitLabels     = 16      // MPLS labels of one stack, for the same reason
	limitExtensions = 12      // extension headers of one IPv6 or GTP packet; stops chains without an end
	limitTunnels    = 8       // tunnels in one another; stops a frame of nothing but tunnel headers
	limitUnread     = 64      // kinds of content that are named where they cannot be read; numbers can be made up
	limitStations   = 256     // who is remembered to sign in over EAPOL; a switch has some 50 ports, and sources of frames can be made up
	limitFollowed   = 64      // flows of Remote Desktop whose datagrams all go to the tracker; each costs the others a comparison
	limitFollowing  = 1 << 10 // datagrams of one of them; its handshake has some twenty

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
)

// Timeouts, in flow time.
const (
	// Fragments of a datagram that does not become whole: what hosts in use
	// wait for them (RFC 791 says 15 seconds, RFC 8200 a minute).
	timeoutFragments = int64(30 * time.Second)
	// A datagram with a bad checksum, of which the true fragments may still come:
	// they are on their way at the same time. Later the identifier is used again.
	timeoutDoubtful = int64(2 * time.Second)
)
