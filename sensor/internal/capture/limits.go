package capture

import "time"

// Limits of what a file can make its reader hold.
const (
	// maxFrameLen is the most captured bytes of one frame: the largest snaplen
	// that tcpdump takes. A longer record is damage, or an attempt to have
	// gigabytes allocated.
	maxFrameLen = 256 << 10

	// maxBlockLen is the longest pcapng block that is held whole: a frame with
	// its options, or an interface's description. Other blocks are skipped
	// without being held, however long they are.
	maxBlockLen = 2 * maxFrameLen

	// maxSectionInterfaces bounds what a section of nothing but interface
	// descriptions makes the reader remember. Identifiers in the obsolete
	// packet block have 16 bits.
	maxSectionInterfaces = 1 << 16

	// maxInterfaceName is how many bytes of a name are kept: it goes into every
	// record.
	maxInterfaceName = 255

	// slabSize is how much is read at once. It stays in the second-level cache
	// together with its frames; see BenchmarkFiles.
	slabSize = 256 << 10

	// peekSize is how much is read first to learn the time of the first packet.
	peekSize = 4 << 10

	// scanSize is how much of a pcapng file is read at once to find the headers of
	// its blocks. It stays in the first-level cache.
	scanSize = 32 << 10

	// peekFrames is how many packets are looked at to find when a file begins. The
	// median of their times is taken, so that one wrong time does no harm.
	peekFrames = 5

	// rotationGap is the longest silence between two files of a rotated capture,
	// and rotationBack how far the second may reach back into the first, whose
	// last packets may be out of order.
	rotationGap  = 5 * time.Minute
	rotationBack = 1 * time.Second

	// spareSlabs is how many released slabs are kept for reuse.
	spareSlabs = 32

	// chunkSize and chunkCount bound how far a decompressor reads ahead.
	chunkSize  = 128 << 10
	chunkCount = 4

	// MaxWindow is the most memory that the header of a Zstandard frame may ask for: what
	// zstd itself grants by default. A few bytes could ask for terabytes.
	MaxWindow = 128 << 20
)
