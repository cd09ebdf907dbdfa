package delivery

import (
	"context"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Checker is a [Destination] that can say beforehand whether it could deliver.
type Checker interface {
	// Check connects, logs in, and asks whether records of these datasets would be
	// accepted, as far as the receiver tells. It sends no record. The error says what
	// to mend, where that is known. Check returns soon when ctx is done.
	Check(ctx context.Context, datasets output.Set) error
}
