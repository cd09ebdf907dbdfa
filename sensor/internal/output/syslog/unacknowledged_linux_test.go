package syslog

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// What was written and is in no buffer of the receiver does not count, however long the
// connection lives.
func TestUnacknowledged(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	defer close(ended)
	r := listen(t, nil, func(_ *receiver, c net.Conn, _ int) {
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		<-ended
	})
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for address, n := range map[string]int{"tcp://" + r.Addr().String(): 1800, "unix://" + path: 1} {
		d := open(t, Config{URL: address})
		records := many(n)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		verdicts := make([]delivery.Verdict, n)
		if trouble := d.Send(ctx, records, verdicts); trouble == nil || verdicts[0].Fate != delivery.Again {
			t.Errorf("%s: %+v, %+v", address, trouble, verdicts[0])
		}
		cancel()
	}
}
