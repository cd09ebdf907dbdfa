package webhook

const (
	// maxBatch bounds batch_size.
	maxBatch = 1000

	// maxBatchBytes bounds the records of a request: services refuse long requests.
	maxBatchBytes = 1 << 20

	// maxBody bounds what a template makes: one with loops can make much of a record.
	maxBody = 8 << 20

	// maxTemplate bounds the file of a template.
	maxTemplate = 256 << 10

	// minKey and maxKey bound the secret of a signature, in bytes (Standard Webhooks,
	// "Signature scheme").
	minKey = 24
	maxKey = 64
)
