package kafka

import (
	"context"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]: it asks the brokers for the topics.
func (d *Destination) Check(ctx context.Context, datasets output.Set) error {
	var records []*output.Record // of which check looks at the dataset alone
	for set := range output.Datasets {
		if datasets.Has(set) {
			records = append(records, &output.Record{Dataset: set})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	d.rest.sending.Lock()
	defer d.rest.sending.Unlock()
	if _, err := d.rest.check(ctx, records); err != nil {
		return explain(err, d.cfg.Encrypt).Err
	}
	return nil
}
