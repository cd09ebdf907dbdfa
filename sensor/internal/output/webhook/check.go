package webhook

import (
	"context"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]; see [httpsend.Client.Check].
func (d *Destination) Check(ctx context.Context, _ output.Set) error { return d.client.Check(ctx) }
