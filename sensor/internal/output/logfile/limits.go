package logfile

import "time"

const (
	// maxBatchRecords and maxBatchBytes bound what is written between two fsyncs.
	maxBatchRecords = 2000
	maxBatchBytes   = 4 << 20

	// tailBytes is how much of the end of a file is read when it is opened, to find
	// what was written and not settled: two queues have a batch each, and a batch is
	// no larger than maxBatchBytes, or one record of 8 MiB. A form may take more
	// bytes than the record.
	tailBytes = 32 << 20

	// tailLines bounds the lines of it that are remembered: a few for each record of
	// the two batches.
	tailLines = 8 * maxBatchRecords

	// keptBuffer bounds the memory that is kept from one batch to the next.
	keptBuffer = 8 << 20

	// minRotateSize and minRotateAge are the smallest that make sense: a file is not
	// for a single record.
	minRotateSize = 1 << 20
	minRotateAge  = time.Minute
)
