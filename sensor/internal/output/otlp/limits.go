package otlp

const (
	// maxBatchRecords and maxBatchBytes bound one request. Receivers take 20 MiB by
	// default (OTLP Specification, "OTLP/HTTP Request"), and the attributes of a record
	// take up to four times its JSON.
	maxBatchRecords = 500
	maxBatchBytes   = 1 << 20

	// maxRequests bounds the requests that are under way at a time, for each queue of
	// the spool.
	maxRequests = 2

	// maxDepth bounds the nesting of a record. Ours have 6 levels.
	maxDepth = 32
)
