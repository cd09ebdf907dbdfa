package splunk

import (
	"context"
	"net/http"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/httpsend"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]: it asks for the health of the collector
// ("services/collector/health"), which 200 says is well, and with acknowledgement for
// that of no event, which shows whether the token is good.
func (d *Destination) Check(ctx context.Context, _ output.Set) error {
	answer, trouble := d.client.Do(ctx, httpsend.Request{Method: http.MethodGet, Path: "/services/collector/health"})
	switch {
	case trouble != nil:
		return trouble.Err
	case !accepted(answer):
		return answer.Trouble(answer.Reason()).Err
	case !d.config.ack():
		return nil
	}
	if trouble := d.check(ctx); trouble != nil {
		return trouble.Err
	}
	return nil
}
