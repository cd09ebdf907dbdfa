package spool

import "time"

// What the spool holds at most. A peer decides how long names and certificates
// are, and an absent server how long they must be kept.
const (
	// DefaultSize is the limit on disk when [Options] names none.
	DefaultSize = 1 << 30

	// MinSize is the smallest limit on disk that leaves room for both lanes.
	MinSize = 1 << 20

	// DefaultAge is how long telemetry is kept when [Options] names no age. A
	// backing index that is rolled over no longer refuses ids it has seen, so
	// what is too old could be doubled.
	DefaultAge = 7 * 24 * time.Hour

	// maxRecord bounds one record, and so what a damaged length can make a reader
	// look at.
	maxRecord = 8 << 20

	// maxSegment is the size from which a segment gets no more records. It is
	// the unit in which room is given back.
	maxSegment = 8 << 20

	// maxPending bounds the records of one lane that wait in memory for the disk.
	maxPending = 4 << 20

	// telemetryDelay is how long telemetry waits for company before its fsync.
	telemetryDelay = 250 * time.Millisecond

	// retryDelay is the pause before a failed write is tried again.
	retryDelay = time.Second

	// calmAfter is how long no record must have been refused until it is said
	// that it is over: at a spool that is full, room comes and goes.
	calmAfter = 2 * time.Second
)
