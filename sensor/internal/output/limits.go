package output

import "time"

// The limits of what this package holds, each with what it stops.
const (
	// DefaultCache bounds the certificates that an encoder's cache keeps alive
	// and their JSON, over both of its generations: a server that sends another
	// certificate with every handshake must not fill the memory.
	DefaultCache = 32 << 20

	// maxNameBytes bounds each list of names of one certificate in a record: a
	// control character takes six bytes in JSON, and the queue takes no record of
	// more than 8 MiB. How many names there are is in the record.
	maxNameBytes = 256 << 10

	// maxRestBytes bounds what the certificates of a chain in one record have beside
	// hashes, names and dates: the texts of a certificate come in several fields.
	// The certificates after it are marked as abridged.
	maxRestBytes = 1 << 20

	// maxScratchBytes bounds what an encoder keeps for the JSON of the next
	// certificate.
	maxScratchBytes = 1 << 20

	// maxOfferBytes bounds the JSON of what clients offer, over both generations:
	// a client that sends another hello each time must not fill the memory.
	maxOfferBytes = 4 << 20

	// maxOffered bounds each list of what a client offers in a record. A hello has
	// room for 32,767 suites of two bytes, whose names are twenty times as long;
	// the registry has fewer than this. What is left out is counted.
	maxOffered = 512

	// maxTold bounds the certificates that a Told remembers, and for itself the
	// servers with a name asked for, over both generations: an address scan, or
	// certificates that are made for each connection, must not fill the memory.
	// What is forgotten is counted.
	maxTold = 1 << 18

	// maxToldOthers bounds the leaves that such servers have beside their last, in
	// the same way.
	maxToldOthers = 1 << 16

	// maxToldHellos bounds its fingerprints, of about 70 bytes, in the same way.
	maxToldHellos = 1 << 15

	// maxVariants bounds the hellos that are told in a day for one JA4. A client
	// that shuffles its extensions has another JA3 with every hello.
	maxVariants = 16

	// sinkBatch is how many bytes of lines are written at once. maxSinkQueue
	// bounds the bytes that wait for a file that is full or a pipe that nobody
	// reads, while as many again are being written. Where callers wait for
	// space, more than maxSinkBlock would be of no use.
	sinkBatch    = 64 << 10
	maxSinkQueue = 16 << 20
	maxSinkBlock = 256 << 10

	// sinkRetry is the pause before a failed write is tried again. maxTrouble is
	// how long a caller that may wait does so for a file that cannot be written
	// to.
	sinkRetry  = 250 * time.Millisecond
	maxTrouble = 5 * time.Second
)
