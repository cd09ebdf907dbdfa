package pipeline

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/judge"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Thousands of handshakes on a real network, and fifty reloads among them: each
// handshake has its record and its alerts, and no frame is dropped.
func TestReloadNetwork(t *testing.T) {
	const clients, reloads = 4, 50
	count := 3000
	if testing.Short() {
		count = 300
	}
	lab := netlab.New(t)
	address := net.JoinHostPort(lab.ServerIP, "443")
	listener := lab.Server.Listen(t, address)
	config := &tls.Config{Certificates: []tls.Certificate{newCertificate(t, "reload.example")}, MaxVersion: tls.VersionTLS12}
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			servers.Go(func() {
				conn := tls.Server(raw, config)
				defer conn.Close()
				if conn.Handshake() == nil {
					io.Copy(io.Discard, conn)
				}
			})
		}
	})

	var live *capture.Live
	var err error
	lab.Sensor.Do(func() {
		live, err = capture.OpenLive(capture.LiveOptions{Interfaces: []string{lab.SensorIface}, Workers: 2, Warn: func(err error) { t.Skip(err) }})
	})
	if err != nil {
		t.Fatal(err)
	}
	var sets []*rules.Set
	var tables []*judge.Tables
	for n := range 5 {
		sets, tables = append(sets, numbered(t, n+1)), append(tables, loadTables(t, judge.Options{}))
	}
	var lines bytes.Buffer
	out := output.NewLines(output.NewSink(&lines, output.SinkOptions{Block: true}), everything)
	p := New(Config{
		Workers: 2, Rules: sets[0], Judge: tables[0], Records: output.Options{Datasets: everything}, Outputs: []output.Output{out},
		Limits: flow.DefaultLimits, Parsers: parsers.DefaultLimits,
	})
	ctx, end := context.WithCancel(context.Background())
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- p.Live(ctx, live.Sources) }()

	var next, made atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for n := next.Add(1); n <= int64(count); n = next.Add(1) {
				if err := handshake(lab.Client, address, fmt.Sprintf("%d.reload.example", n)); err != nil {
					failed.Store(&err)
					return
				}
				if n := int(made.Add(1)); n%(count/reloads) == 0 {
					k := n / (count / reloads) % len(sets)
					p.Reload(sets[k], tables[k])
				}
			}
		})
	}
	running.Wait()
	listener.Close()
	servers.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	sum := func() (sum capture.Stats) {
		for _, s := range live.Sources {
			sum.Add(s.Stats())
		}
		return sum
	}
	for before, after := (capture.Stats{}), sum(); before != after; before, after = after, sum() {
		time.Sleep(300 * time.Millisecond)
	}
	end()
	if err := errors.Join(<-ended, out.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	stats := sum()
	if err := live.Close(); err != nil {
		t.Error(err)
	}
	if stats.Dropped > 0 || stats.Unread > 0 {
		t.Errorf("%d frames of %d are dropped, %d not read", stats.Dropped, stats.Frames, stats.Unread)
	}
	handshakes, constant := map[string]int{}, map[string]int{}
	alerts := map[string]int{}
	for _, e := range events(t, withoutStats(lines.Bytes())) {
		switch {
		case e.Event.Dataset == "oddcert.handshake":
			handshakes[e.Destination.Domain]++
		case e.Rule.Name == "Constant":
			constant[e.Destination.Domain]++
		}
		alerts[e.Rule.Name]++
	}
	for n := 1; n <= count; n++ {
		name := fmt.Sprintf("%d.reload.example", n)
		if handshakes[name] != 1 || constant[name] != 1 {
			t.Errorf("%s has %d handshakes and %d alerts", name, handshakes[name], constant[name])
		}
	}
	matched := 0 // on a fast machine a set can be replaced before an interval ends
	for n := range sets {
		if alerts[fmt.Sprint("Only ", n+1)] > 0 {
			matched++
		}
	}
	if matched < 2 {
		t.Errorf("%d sets have matched", matched)
	}
	if len(handshakes) != count {
		t.Errorf("%d handshakes, want %d", len(handshakes), count)
	}
	t.Logf("%d frames, %d dropped, %d handshakes", stats.Frames, stats.Dropped, len(handshakes))
}

// handshake makes a connection from a namespace, and ends it.
func handshake(n *netlab.Namespace, address, name string) error {
	var raw net.Conn
	var err error
	n.Do(func() { raw, err = net.Dial("tcp", address) })
	if err != nil {
		return err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	return errors.Join(conn.Handshake(), conn.Close())
}
