package evidence

import "time"

// The limits of what this package holds and writes, each with what it stops.
const (
	// DefaultSize bounds the packs of a folder on disk: a server that raises alert after
	// alert must not fill the disk. What is over it gets no pack, and is counted.
	DefaultSize = 1 << 30

	// MinSize is the smallest bound that is of use.
	MinSize = 1 << 20

	// maxPackFrames and maxPackBytes bound the frames of one pack: a handshake of which
	// each byte is sent a thousand times. The pack says that frames are missing.
	maxPackFrames = 50_000
	maxPackBytes  = 16 << 20

	// maxAfter bounds the frames after the handshake, and before is how long before the
	// flow they may be, where all is wanted because somebody interfered.
	maxAfter = 5000
	before   = time.Minute

	// maxQueue bounds what is kept of the alerts that wait for their packs: their
	// records, mostly. Beyond it an alert of the least severe rules is given up, of the
	// rule that has most of them.
	maxQueue = 64 << 20

	// maxBatch, maxBatchFiles and maxBatchBytes bound the packs that are written together:
	// the alerts of a scan come by the thousand. One pack alone may be larger.
	maxBatch      = 32
	maxBatchFiles = 384
	maxBatchBytes = 16 << 20

	// maxSyncs is how many files the disk is waited for at a time, each in a thread.
	maxSyncs = 16

	// maxHeld bounds the frames of all packs that a replay collects at the same time.
	// Beyond it the pack with most of them is written without the rest.
	maxHeld = 128 << 20

	// patience is how long an alert of a handshake that goes on waits for its end, by the
	// wall clock.
	patience = 5 * time.Second

	// maxComment bounds a comment in a capture, and maxText a value in the text for a
	// person, in bytes: a certificate may have names of 64 KB.
	maxComment = 512
	maxText    = 1024
)

// The limits of what is read of a pack, which may be anybody's.
const (
	// maxFiles is how many files a pack has: the longest chain that a handshake can have,
	// as DER and PEM, with room.
	maxFiles = 512

	// maxFile bounds each of them, and maxPack all of them, unpacked: a short archive may
	// say that it holds petabytes.
	maxFile = 64 << 20
	maxPack = 96 << 20

	// maxManifest bounds a manifest: three bytes of JSON are a frame or a file of forty. The
	// longest that is written has maxPackFrames frames, at 130 bytes.
	maxManifest = 8 << 20

	// maxChain bounds a chain, and maxLine a line of it: some six million packs.
	maxChain = 1 << 30
	maxLine  = 512

	// maxSigners bounds a file of allowed signers.
	maxSigners = 1 << 20

	// maxProblems bounds what is said of one pack, or of one chain.
	maxProblems = 50
)
