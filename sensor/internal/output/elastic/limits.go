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

	// maxError bounds what is read of an answer that only says what is wrong.
	maxError = 1 << 20

	// requestTimeout bounds a request until its answer has been read; checkTimeout that
	// which looks for our templates.
	requestTimeout = 90 * time.Second
	checkTimeout   = 10 * time.Second
)
