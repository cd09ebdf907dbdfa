package kafka

import "time"

const (
	// maxRecords and maxBytes bound what is under way to the brokers at a time, for
	// each queue of the spool: enough to fill the batches of several partitions.
	maxRecords = 5000
	maxBytes   = 4 << 20

	// maxBuffered bounds what a client holds for a queue: the records of requests
	// that were never answered, and those of a request after them.
	maxBuffered = 32 << 20

	// defaultMessage is what a batch may have by default before compression. The
	// default of brokers, message.max.bytes, is 1,048,588 after it.
	defaultMessage = 1_000_000

	// minMessage and maxMessage bound what can be configured. The larger one is more
	// than a record in the spool can have.
	minMessage = 16 << 10
	maxMessage = 16 << 20

	// messageOverhead is more than the rest of a batch of one record has: the header
	// of the batch, the key and the headers of the record.
	messageOverhead = 1 << 10

	// maxAnswer bounds an answer of a broker, which is about one topic: what calls
	// itself a broker could fill the memory with it.
	maxAnswer = 4 << 20

	// retryMin and retryMax bound the waits after which the client offers a batch
	// again that the brokers did not take.
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second

	// sendTimeout bounds the wait for acknowledgements, and produceTimeout that of
	// a leader for its replicas. What is not acknowledged in time stays with the
	// client, under its number, until the brokers answer.
	sendTimeout    = 15 * time.Second
	produceTimeout = 10 * time.Second

	// explainTimeout bounds the look for the reason after sendTimeout.
	explainTimeout = 5 * time.Second

	maxBrokers = 64  // to start with
	maxTopic   = 249 // bytes, of Kafka
)
