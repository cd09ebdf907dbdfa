// Package output turns handshakes and rule matches into records, and delivers
// them: as JSON lines, on a terminal, to Elasticsearch.
package output

import "context"

// Dataset is the kind of a record, the last part of event.dataset.
type Dataset uint8

// The datasets.
const (
	Handshake Dataset = iota
	Certificate
	Alert
	Stats
	Datasets // how many datasets there are
)

// String is the name of d, such as "handshake".
func (d Dataset) String() string {
	return [...]string{"handshake", "certificate", "alert", "stats"}[d]
}

// Record is one encoded record.
type Record struct {
	Dataset Dataset
	ID      string // event.id, 32 hex digits: the same event always has the same
	Time    int64  // @timestamp, nanoseconds since the Unix epoch, UTC
	JSON    []byte // one JSON object on one line, without a line feed
}

// Output takes records in order.
//
// Write is called from one goroutine; the record and its bytes are lent until
// it returns. An error means that the record was not accepted. Close delivers
// what was accepted, as far as ctx allows, and says what it could not deliver.
type Output interface {
	Write(r *Record) error
	Close(ctx context.Context) error
}
