package elastic

import "time"

const (
	// maxBatchBytes and maxBatchRecords bound one bulk request, well below the
	// 100 MB that servers take by default and small enough to be answered soon.
	maxBatchBytes   = 4 << 20
	maxBatchRecords = 2000

	// maxAnswer bounds what is read of an answer: a server that is not
	// Elasticsearch could fill the memory with it.
	maxAnswer = 16 << 20

	// maxReason bounds the reason that a dead letter or a log line repeats.
	maxReason = 2048

	// maxDeadLetters bounds the dead-letter file. A file that is full becomes the
	// old one, and the old one before it is deleted.
	maxDeadLetters = 64 << 20

	// maxRetryAfter bounds the wait that a server may ask for.
	maxRetryAfter = 5 * time.Minute

	// backoffMin and backoffMax bound the wait after a failure; slowRetry is the
	// wait where only an operator's intervention can help.
	backoffMin = time.Second
	backoffMax = time.Minute
	slowRetry  = time.Minute

	// closingRetry bounds the wait once the output is being closed.
	closingRetry = time.Second

	dialTimeout    = 10 * time.Second
	requestTimeout = 90 * time.Second
)
