package otlp

import (
	"context"
	"net/http"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]: it sends a request without a log record.
func (d *Destination) Check(ctx context.Context, _ output.Set) error {
	answer, trouble := d.client.Do(ctx, httpsend.Request{
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}, Body: []byte(`{"resourceLogs":[]}`), Gzip: true,
	})
	if trouble == nil && (answer.Status < 200 || answer.Status >= 300) {
		trouble = answer.Trouble(reason(answer))
	}
	if trouble == nil {
		trouble = d.accepted(answer, nil)
	}
	if trouble != nil {
		return trouble.Err
	}
	return nil
}
