package elastic

import "time"

const (
	// maxBatchBytes and maxBatchRecords bound one bulk request, well below the
	// 100 MB that servers take by default and small enough to be answered soon.
	maxBatchBytes   = 4 << 20
	maxBatchRecords = 2000

	// maxRequests is how many bulk requests of a queue are under way at a time.
	maxRequests = 3

	// maxAnswer bounds what is read of an answer: a server that is not
	// Elasticsearch could fill the memory with it.
	maxAnswer = 16 << 20

	// maxReason bounds the reason that a dead letter or a log line repeats.
	maxReason = 2048

	// maxRetryAfter bounds the wait that a server may ask for.
	maxRetryAfter = 5 * time.Minute

	dialTimeout    = 10 * time.Second
	requestTimeout = 90 * time.Second
)
