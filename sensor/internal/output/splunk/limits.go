package splunk

import "time"

const (
	// maxBatchRecords and maxBatchBytes bound one request, below the megabyte that
	// Splunk Cloud recommends, with the fields that are added.
	maxBatchRecords = 500
	maxBatchBytes   = 512 << 10

	// maxRequests bounds the requests that wait for their acknowledgement at a time, for
	// each queue of the spool: an indexer takes seconds to acknowledge.
	maxRequests = 4

	// ackTimeout is how long to ask for an acknowledgement before the records go again,
	// and ackPollMin and ackPollMax the time from one question to the next. Splunk
	// recommends to ask every 10 s for 5 min (Getting Data In, "About HTTP Event
	// Collector Indexer Acknowledgment").
	ackTimeout = 5 * time.Minute
	ackPollMin = 500 * time.Millisecond
	ackPollMax = 10 * time.Second

	// maxNames bounds the values of a field that has several: each is indexed.
	maxNames = 64
)
