package spool

import "time"

// What the spool holds at most. A peer decides how long names and certificates
// are, and an absent server how long they must be kept.
const (
	// DefaultSize is the limit on disk when [Options] names none.
	DefaultSize = 1 << 30

	// MinSize is the smallest limit on disk that leaves space for both queues.
	MinSize = 1 << 20

	// DefaultAge is how long telemetry is kept when [Options] names no age. A
	// backing index that is rolled over no longer refuses ids it has seen, so
	// what is too old could be doubled.
	DefaultAge = 7 * 24 * time.Hour

	// MaxOutputs is how many outputs a spool has. Each reads all of what it wants for
	// itself.
	MaxOutputs = 32

	// maxRecord bounds one record, and so what a block takes in memory, whatever
	// its header or its frame promise.
	maxRecord = 8 << 20

	// maxFrame bounds a compressed block: what cannot be compressed gets a little longer,
	// less than this. A longer one is damage, or is to have gigabytes allocated.
	maxFrame = maxRecord + maxRecord/256

	// blockSize is the size, before compression, from which a block gets no more
	// records. Larger blocks compress better, smaller ones lose less to a bad
	// sector. A block also ends where somebody waits for it, so that in practice
	// only backlogs and busy sensors fill it.
	blockSize = 1 << 20

	// maxBlockRecords is what the counters of a block header can hold.
	maxBlockRecords = 1<<16 - 1

	// maxSegment is the size on disk from which a segment gets no more blocks.
	// It is the unit in which space is given back.
	maxSegment = 8 << 20

	// maxWrites bounds how exactly a segment knows when its records were accepted:
	// that of the last maxWrites/2 writes to it is known for each.
	maxWrites = 64

	// maxCursor is more than a cursor file has.
	maxCursor = 4096

	// maxPending bounds the records of one queue that wait in memory for the
	// disk, before compression. While they are written, or the disk takes none, as
	// many again may come.
	maxPending = 4 << 20

	// firstAlarm is the share of the limit, in tenths, from which on alerts that wait
	// are said to fill the spool, at each tenth once.
	firstAlarm = 5

	// expireInterval is how often the age of telemetry is looked at.
	expireInterval = time.Minute

	// telemetryDelay is how long telemetry waits for more before its fsync.
	telemetryDelay = 250 * time.Millisecond

	// retryDelay is the pause before a failed write is tried again.
	retryDelay = time.Second

	// roomAfter is how long nothing must have been given up for want of space before
	// the log says that there is room again: it is given up a segment at a time.
	roomAfter = time.Minute

	// calmAfter is how long no record must have been refused before the log says
	// that it is over: in a spool that is full, space comes and goes.
	calmAfter = 2 * time.Second
)
