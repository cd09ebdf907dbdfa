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
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/elastic/go-elasticsearch/v8/esapi"
	"github.com/klauspost/compress/gzip"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// Destination delivers records to a server.
type Destination struct {
	client  *Client
	log     *slog.Logger
	streams [output.Datasets]stream
	zips    sync.Pool   // of *gzip.Writer
	checked atomic.Bool // whether the server has the templates, since it was last away
}

// stream is the data stream of a dataset.
type stream struct {
	name                      string
	typeAndDataset, namespace string // members of data_stream
}

var _ delivery.Destination = (*Destination)(nil)

// New makes a destination, which says in log what it cannot say in a verdict. It reads
// the files that cfg names, and does not connect yet.
func New(cfg Config, log *slog.Logger) (*Destination, error) {
	client, err := NewClient(cfg)
	if err != nil {
		return nil, err
	}
	d := &Destination{client: client, log: log}
	d.zips.New = func() any {
		w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level is a constant
		return w
	}
	for set := range output.Datasets {
		of := schema.Dataset(set.Form())
		d.streams[set] = stream{
			name:           of.DataStream(cfg.namespace()),
			typeAndDataset: `"type":"` + of.Stream() + `","dataset":"oddcert.` + of.String() + `"`,
			namespace:      `"namespace":"` + cfg.namespace() + `"`,
		}
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

// checkTemplates warns when the server has no templates for our data streams.
func (d *Destination) checkTemplates(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if missing := d.missingTemplates(ctx); len(missing) > 0 {
		d.log.Warn("elasticsearch: the server lacks index templates, so that the fields of records get types by chance: run oddcert es setup",
			"address", d.String(), "missing", strings.Join(missing, " "))
	}
}

// missingTemplates are the templates of our data streams that the server lacks: it maps
// records by their first values then. Who may only send records may not ask, and hears
// of none.
func (d *Destination) missingTemplates(ctx context.Context) (missing []string) {
	b, err := d.client.do(ctx, func() esapi.Request {
		return esapi.IndicesGetIndexTemplateRequest{Name: "*-oddcert.*", FilterPath: []string{"index_templates.name"}}
	})
	if err != nil && !isStatus(err, 404) { // what OpenSearch says of a pattern that matches nothing
		return nil
	}
	var answer struct {
		Templates []struct {
			Name string `json:"name"`
		} `json:"index_templates"`
	}
	if err == nil && json.Unmarshal(b, &answer) != nil {
		return nil
	}
	has := map[string]bool{}
	for _, t := range answer.Templates {
		has[t.Name] = true
	}
	for set := range schema.Datasets {
		if name := templateOf(set); !has[name] {
			missing = append(missing, name)
		}
	}
	return missing
}
