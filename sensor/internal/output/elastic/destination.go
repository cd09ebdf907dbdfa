// Package elastic delivers records to Elasticsearch or OpenSearch, and sets up what
// they need there.
//
// A [Destination] sends records in bulk requests. [Setup] puts the templates; it needs
// a key with more privileges than sending records does.
//
// Each dataset goes to a data stream of its own, logs-oddcert.DATASET-NAMESPACE or
// metrics-oddcert.stats-NAMESPACE. Records are only ever created there, never
// changed: a key for sending needs no more than create_doc and auto_configure on
// logs-oddcert.*-* and metrics-oddcert.stats-*.
package elastic

import (
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// Destination delivers records to a server.
type Destination struct {
	client *Client
	index  [output.Datasets]string // data stream of each dataset
	zips   sync.Pool               // of *gzip.Writer
}

var _ delivery.Destination = (*Destination)(nil)

// NewDestination makes a destination. It reads the files that cfg names, and does not
// connect yet.
func NewDestination(cfg Config) (*Destination, error) {
	client, err := NewClient(cfg)
	if err != nil {
		return nil, err
	}
	d := &Destination{client: client}
	d.zips.New = func() any {
		w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level is a constant
		return w
	}
	for set := range output.Datasets {
		d.index[set] = schema.Dataset(set.Form()).DataStream(cfg.namespace())
	}
	return d, nil
}

// Limits are below what servers take by default, and small enough to be answered
// soon.
func (d *Destination) Limits() delivery.Limits {
	return delivery.Limits{Records: maxBatchRecords, Bytes: maxBatchBytes, Requests: maxRequests}
}

// Close closes idle connections.
func (d *Destination) Close() error {
	d.client.close()
	return nil
}

// String is the addresses of the server.
func (d *Destination) String() string { return d.client.String() }
