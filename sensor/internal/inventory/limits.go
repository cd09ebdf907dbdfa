package inventory

import "time"

const (
	// MaxNames is how many names an entry lists. The rest is counted.
	MaxNames = 64

	// MaxValues is how many different values a map of a server has: a server that
	// negotiates more is playing. The rest is left out.
	MaxValues = 64

	// maxExact is how many clients, servers or names an entry counts one by one, at 8
	// bytes each. Above it the count is an estimate of a [sketch].
	maxExact = 1024

	// maxInline is how many of these are kept in the entry itself.
	maxInline = 16

	// maxText is the longest text that an entry has of a certificate or a name, in
	// bytes: a subject may have megabytes. The DER is kept whole.
	maxText = 4 << 10

	// maxRuns is how many runs are remembered. The oldest are forgotten.
	maxRuns = 4096

	// maxSpoken is how many different bad values the log names. The rest is counted.
	maxSpoken = 16
)

// What waits to be written.
const (
	// DefaultMemory bounds what waits to be written and what is kept decoded, in bytes. The
	// pages of a transaction take as much again.
	DefaultMemory = 48 << 20
	// LeastMemory is the smallest such bound that is of use.
	LeastMemory = 4 << 20

	// leastChangeCost is what a change takes of the pages of a transaction at least, in
	// bytes. A transaction is bounded by what those before it took. Whoever begins to
	// change entries all over a large file, after many that share their pages, may make
	// one that takes more: two pages for each change, where this much was expected.
	leastChangeCost = 512

	// maxQueued is how many findings wait.
	maxQueued = 1 << 14
	// batch is after how many findings they are taken out of the queue, and writeInterval
	// after how long at the latest they are written: a transaction writes each page once
	// that it changes, so that few large ones cost less than many.
	batch         = 4096
	writeInterval = 5 * time.Second
	// lookInterval is how often the queue is looked at.
	lookInterval = time.Second
	// retryLeast and retryMost are how long a disk that took nothing is left alone.
	retryLeast = time.Second
	retryMost  = time.Minute
	// examineInterval is how long it takes at least until the file of an inventory in use
	// is looked at again: somebody may know how to make it seem damaged.
	examineInterval = time.Minute
	// lockPatience is how long an inventory that somebody reads is waited for.
	lockPatience = 5 * time.Second
)

// What the file may hold.
const (
	// DefaultSize is the most that the inventory takes on disk, in bytes. A million
	// certificates with their servers take about 2.5 GiB.
	DefaultSize = 4 << 30
	// LeastSize is the smallest such bound that is of use, and MaxSize the largest.
	LeastSize = 16 << 20
	MaxSize   = maxFile / 2

	// maxFile is the largest file that is looked at, and maxPages how many pages of it may
	// be in use: one without a byte on the disk can say that it has exabytes, and each page
	// takes time, and a bit of memory.
	maxFile  = 1 << 40
	maxPages = 1 << 28
	// maxContinued is more than the entries of a page take: four of the longest at most, of
	// 16 MiB each. A page that says that more continues it, other than the list of all free
	// pages, is damaged, or is to have as much memory allocated.
	maxContinued = 128 << 20

	// growth is by how much the file grows at least.
	growth = 1 << 20

	// sharedAlerts and sharedKnown are the parts of the size that alerts with their
	// records, and the handshakes that are told apart, take at most: one in so many.
	sharedAlerts = 4
	sharedKnown  = 16
	// giveUp is which part of the size is given up at once: one in so many.
	giveUp = 8
	// maxRounds is how often that is done before findings are taken again.
	maxRounds = 8
	// sampled is how many entries say which ones are old.
	sampled = 1 << 16

	// chunk is how many entries a transaction reads or deletes at most, and chunkBytes
	// how many bytes.
	chunk      = 1024
	chunkBytes = 1 << 20
	// maxParts is how many goroutines decode them.
	maxParts = 4
)

// Who reads while a sensor writes.
const (
	// maxReaders is how many are served at the same time.
	maxReaders = 2
	// servePatience is how long one may take: pages that a reader may still want are
	// not used again.
	servePatience = 2 * time.Minute
)
