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

	// maxRestBytes bounds what a chain in a record about certificates has beyond
	// its entries in a handshake: the texts of a certificate come in several
	// fields. The certificates after it have such an entry, marked as abridged.
	maxRestBytes = 1 << 20

	// maxScratchBytes bounds what an encoder keeps for the JSON of the next
	// certificate.
	maxScratchBytes = 1 << 20

	// maxSuiteBytes is the same for lists of cipher suites.
	maxSuiteBytes = 4 << 20

	// maxSuites bounds tls.client.supported_ciphers. A hello has room for
	// 32,767 suites of two bytes, whose names are twenty times as long; the
	// registry has fewer than this. What is left out is counted.
	maxSuites = 512

	// maxInventory bounds, for each of its two generations, the pairs of
	// certificate and server that an Inventory remembers.
	maxInventory = 1 << 17

	// sinkBatch is how many bytes of lines are written at once, and
	// maxSinkQueue how many wait for a file or a pipe that takes none; where
	// the writer waits for room, more than maxSinkBlock would be of no use.
	sinkBatch    = 64 << 10
	maxSinkQueue = 16 << 20
	maxSinkBlock = 256 << 10

	// sinkRetry is the pause before a failed write is tried again, and
	// maxTrouble how long one who may wait waits for a file that cannot be
	// written to.
	sinkRetry  = 250 * time.Millisecond
	maxTrouble = 5 * time.Second
)
