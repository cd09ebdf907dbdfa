package syslog

import (
	"context"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]: it connects, and ends the connection. Over UDP
// nobody answers, and nothing is known.
func (d *Destination) Check(ctx context.Context, _ output.Set) error {
	c, trouble := d.links[1].dial(ctx)
	if trouble != nil {
		return trouble.Err
	}
	return c.Close()
}
