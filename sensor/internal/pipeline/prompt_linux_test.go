package pipeline

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// silent is a connection whose client says one thing and then nothing more.
type silent struct {
	net.Conn
	said sync.Once
	held chan struct{}
}

func (c *silent) Write(b []byte) (n int, err error) {
	first := false
	c.said.Do(func() { first = true })
	if first {
		return c.Conn.Write(b)
	}
	<-c.held
	return 0, net.ErrClosed
}

// alerts is a file of records that says when the first alert was written.
type alerts struct {
	once sync.Once
	came chan struct{}
}

func (a *alerts) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(`"oddcert.alert"`)) {
		a.once.Do(func() { close(a.came) })
	}
	return len(b), nil
}

// TestPromptLive has a client that falls silent after the server's certificate, on a
// network where nothing else happens. The alert comes long before the flow is given up.
func TestPromptLive(t *testing.T) {
	lab := netlab.New(t)
	address := net.JoinHostPort(lab.ServerIP, "443")
	serve(t, lab.Server, address)
	written := &alerts{came: make(chan struct{})}
	sink := output.NewSink(written, output.SinkOptions{})
	out := output.NewLines(sink, everything)
	var live *capture.Live
	var err error
	lab.Sensor.Do(func() {
		live, err = capture.OpenLive(capture.LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 1, Warn: func(err error) { t.Skip(err) }})
	})
	if err != nil {
		t.Fatal(err)
	}
	p := New(Config{
		Rules: builtin(t), Records: output.Options{Datasets: everything}, Outputs: []output.Output{out}, Limits: flow.DefaultLimits, Parsers: parsers.DefaultLimits, Idle: sink.Flush,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Live(ctx, live.Sources) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, s := range live.Sources {
			s.Close()
		}
		if err := out.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()

	client := &silent{Conn: lab.Client.Dial(t, address), held: make(chan struct{})}
	defer client.Close()
	shown := make(chan time.Time, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(client, &tls.Config{ServerName: "0.silent.example", MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error {
			shown <- time.Now()
			return nil
		}}).Handshake()
	}()
	defer func() {
		close(client.held)
		<-done
	}()
	seen := <-shown
	select {
	case <-written.came: // at once, and not after the five minutes of a flow that waits
		t.Logf("the alert came %v after the certificate", time.Since(seen).Round(time.Millisecond))
	case <-time.After(time.Minute):
		t.Error("no alert a minute after the certificate")
	}
}
