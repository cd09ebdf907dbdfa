package syslog

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// The engine delivers both queues to a receiver that ends now and then, and is done
// when the receiver has all.
func TestEngine(t *testing.T) {
	t.Parallel()
	r := listen(t, nil, func(r *receiver, c net.Conn, n int) {
		if n < 4 {
			r.read(c, 200)
			return
		}
		r.read(c, -1)
	})
	d := open(t, Config{URL: "tcp://" + r.Addr().String()})
	sp, err := spool.Open(t.TempDir(), spool.Options{Block: true, Outputs: []spool.Output{{Name: "siem", Datasets: output.Records}}})
	if err != nil {
		t.Fatal(err)
	}
	e := delivery.Start(sp, []delivery.Output{{Name: "siem", Destination: d}}, delivery.Options{
		Backoff: delivery.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond, Slow: 10 * time.Millisecond},
	})
	all := many(2000)
	for i, record := range all {
		if i%2 == 0 {
			record.Dataset = output.Alert
		}
		if err := e.Write(record); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if n := e.Outputs()[0].Stats().Delivered.Total(); n != uint64(len(all)) {
		t.Errorf("%d of %d records are delivered", n, len(all))
	}
	r.all(t, d, all)
}
