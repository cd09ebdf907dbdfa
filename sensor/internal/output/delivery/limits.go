package delivery

import "time"

const (
	// DefaultMemory is how many bytes of records are on their way at a time where
	// [Options] does not say it. However many outputs there are, a batch may have
	// minBatchBytes.
	DefaultMemory = 32 << 20
	minBatchBytes = 256 << 10

	// maxDeadLetters bounds each file of dead letters. A file that is full becomes
	// the old one, and the old one before it is given up.
	maxDeadLetters = 64 << 20

	// maxDeadLetter bounds a line of such a file, which somebody may have changed.
	maxDeadLetter = 32 << 20

	// backoffMin and backoffMax bound the wait after a failure; slowRetry is the
	// wait where only somebody's intervention can help.
	backoffMin = time.Second
	backoffMax = time.Minute
	slowRetry  = time.Minute

	// directPatience is how long a replay waits for files that cannot be written to;
	// directBatch is how many bytes of records it collects for them.
	directPatience = 30 * time.Second
	directBatch    = 256 << 10

	// resendPoll is how often an output looks whether dead letters are to be sent again.
	resendPoll = 5 * time.Second

	// maxRequest is more than the file has that says so.
	maxRequest = 64

	// closingRetry bounds the wait once the engine is being closed.
	closingRetry = time.Second
)
