package pipeline

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/netlab"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// liveSensor is a pipeline that watches a lab.
type liveSensor struct {
	sources []capture.Source
	lines   bytes.Buffer
	output  output.Output
	end     context.CancelFunc
	ended   chan error
}

func watch(t *testing.T, lab *netlab.Lab, opt capture.LiveOptions) *liveSensor {
	t.Helper()
	s := &liveSensor{ended: make(chan error, 1)}
	opt.Interfaces = []string{lab.SensorIface}
	opt.Warn = func(err error) { t.Skip(err) }
	s.output = output.NewLines(output.NewSink(&s.lines, output.SinkOptions{Block: true}), everything)
	var err error
	var live *capture.Live
	lab.Sensor.Do(func() { live, err = capture.OpenLive(opt) })
	if err != nil {
		t.Fatal(err)
	}
	s.sources = live.Sources
	for _, source := range s.sources {
		t.Cleanup(func() { source.Close() })
	}
	p := New(Config{
		Rules:    builtin(t),
		Observer: output.Observer{Name: "test", Version: "test"},
		Records:  output.Options{Datasets: everything},
		Outputs:  []output.Output{s.output},
		Limits:   flow.DefaultLimits,
		Parsers:  parsers.DefaultLimits,
		Encoders: output.DefaultCache,
	})
	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	t.Cleanup(s.end)
	go func() { s.ended <- p.Live(ctx, s.sources) }()
	return s
}

func (s *liveSensor) stats() (sum capture.Stats) {
	for _, source := range s.sources {
		sum.Add(source.Stats())
	}
	return sum
}

// settle waits until nothing more comes.
func (s *liveSensor) settle() capture.Stats {
	for before := s.stats(); ; {
		time.Sleep(300 * time.Millisecond)
		after := s.stats()
		if after == before {
			return after
		}
		before = after
	}
}

// records ends the run and returns what it wrote of handshakes.
func (s *liveSensor) records(t *testing.T) []string {
	t.Helper()
	s.end()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	if err := s.output.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	var records []string
	for line := range bytes.Lines(s.lines.Bytes()) {
		var record map[string]any
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		if record["event"].(map[string]any)["dataset"] == "oddcert.stats" {
			continue
		}
		// When, and as which frame of its own, a sensor saw it.
		event, our := record["event"].(map[string]any), record["oddcert"].(map[string]any)
		for _, name := range []string{"id", "start", "end", "duration", "created"} {
			delete(event, name)
		}
		delete(record, "@timestamp")
		delete(our, "pcap")
		text, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, string(text))
	}
	slices.Sort(records)
	return records
}

// newCertificate makes a certificate that names a server, and an issuer for
// whom a built-in rule raises an alert.
func newCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Microsoft Update Secure Server CA 1"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve sends each client as many bytes as it asks for in its server name,
// "<bytes>.<anything>", with a certificate of that name.
func serve(t *testing.T, n *netlab.Namespace, address string) {
	t.Helper()
	config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := newCertificate(t, hello.ServerName)
		return &c, nil
	}}
	listener := n.Listen(t, address)
	var clients sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		clients.Wait()
	})
	clients.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				conn := tls.Server(raw, config)
				defer conn.Close()
				if conn.Handshake() != nil {
					return
				}
				var count int
				fmt.Sscanf(conn.ConnectionState().ServerName, "%d.", &count)
				block := make([]byte, 16<<10)
				for count > 0 {
					sent, err := conn.Write(block[:min(count, len(block))])
					if err != nil {
						return
					}
					count -= sent
				}
				conn.CloseWrite()
				io.Copy(io.Discard, raw)
			})
		}
	})
}

// fetch gets bytes from a server. A port is kept for the next call: the
// connection is reset at the end, and the next may begin at once.
func fetch(t *testing.T, n *netlab.Namespace, address string, version uint16, port, count int, name string) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		if e != nil {
			return e
		}
		return err
	}}
	if port != 0 {
		dialer.LocalAddr = &net.TCPAddr{Port: port}
	}
	var raw net.Conn
	var err error
	n.Do(func() { raw, err = dialer.Dial("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: fmt.Sprintf("%d.%s", count, name), MinVersion: version, MaxVersion: version})
	got, err := io.Copy(io.Discard, conn)
	if err != nil || got != int64(count) {
		t.Fatalf("%d of %d bytes: %v", got, count, err)
	}
	if port != 0 {
		raw.(*net.TCPConn).SetLinger(0)
	}
}

// TestLiveShuntBulk watches long transfers with two sensors at once, of which
// one withholds decided flows.
func TestLiveShuntBulk(t *testing.T) {
	const size = 100 << 20
	lab := netlab.New(t)
	v4, v6 := net.JoinHostPort(lab.ServerIP, "443"), net.JoinHostPort(lab.ServerIP6, "443")
	serve(t, lab.Server, v4)
	serve(t, lab.Server, v6)
	without := watch(t, lab, capture.LiveOptions{NoShunt: true, Workers: 1})
	with := watch(t, lab, capture.LiveOptions{Workers: 1})
	lostBefore := backlogDrops(t)
	receivedBefore, _ := lab.Sensor.Counters(t, lab.SensorIface)

	fetch(t, lab.Client, v4, tls.VersionTLS12, 0, size, "tls12.example")
	fetch(t, lab.Client, v6, tls.VersionTLS13, 0, size, "tls13.example")

	received, _ := lab.Sensor.Counters(t, lab.SensorIface)
	received -= receivedBefore
	a, b := without.settle(), with.settle()
	t.Logf("%d frames; without: %d came, %d dropped; with: %d came, %d dropped, %d withheld of %d bytes",
		received, a.Frames, a.Dropped, b.Frames, b.Dropped, b.Shunted, b.ShuntedBytes)
	if share := float64(b.Frames) / float64(b.Frames+b.Shunted); share > 0.05 {
		t.Errorf("%.1f %% of the frames came, 5 %% are allowed", 100*share)
	}
	if min := uint64(2 * size * 9 / 10); b.ShuntedBytes < min {
		t.Errorf("%d bytes were withheld of %d", b.ShuntedBytes, 2*size)
	}
	// Frames may arrive between two looks at the counters, such as those of
	// neighbour discovery, and be lost on a busy machine before they arrive.
	lost := uint64(backlogDrops(t) - lostBefore)
	for name, stats := range map[string]capture.Stats{"without": a, "with": b} {
		if sum := stats.Frames + stats.Shunted + stats.Dropped; sum+lost < received || sum > received+100 {
			t.Errorf("%s: %d frames crossed the interface, %d are accounted for", name, received, sum)
		}
	}
	if a.Dropped > 0 {
		t.Skip("the sensor without lost frames: what it found is no measure")
	}
	// The certificate of TLS 1.3 is encrypted.
	found := without.records(t)
	compareRecords(t, found, with.records(t), "tls12.example")
	if !strings.Contains(strings.Join(found, "\n"), "tls13.example") {
		t.Error("no handshake of TLS 1.3")
	}
}

// compareRecords holds what two sensors found against each other. names are of
// servers that showed their certificates.
func compareRecords(t *testing.T, without, with []string, names ...string) {
	t.Helper()
	if !slices.Equal(with, without) {
		t.Errorf("with:\n%s\nwithout:\n%s", strings.Join(with, "\n"), strings.Join(without, "\n"))
	}
	for _, name := range names {
		for _, dataset := range []string{"oddcert.alert", "oddcert.handshake", "oddcert.certificate"} {
			if !slices.ContainsFunc(without, func(r string) bool {
				return strings.Contains(r, name) && strings.Contains(r, `"dataset":"`+dataset+`"`)
			}) {
				t.Errorf("no record %s of %s", dataset, name)
			}
		}
	}
}

// TestLiveShuntReuse uses one five-tuple again and again, at once after the
// flow before was withheld.
func TestLiveShuntReuse(t *testing.T) {
	const rounds, size = 30, 2 << 20
	lab := netlab.New(t)
	server := net.JoinHostPort(lab.ServerIP, "443")
	serve(t, lab.Server, server)
	without := watch(t, lab, capture.LiveOptions{NoShunt: true, Workers: 2})
	with := watch(t, lab, capture.LiveOptions{Workers: 2})
	var names []string
	for i := range rounds {
		names = append(names, fmt.Sprintf("round%d.example", i))
		fetch(t, lab.Client, server, tls.VersionTLS12, 50000, size, names[i])
	}
	a, b := without.settle(), with.settle()
	t.Logf("without %+v, with %+v", a, b)
	if b.Shunted == 0 {
		t.Error("nothing was withheld")
	}
	if a.Dropped > 0 {
		t.Skip("frames were lost: what was found is no measure")
	}
	compareRecords(t, without.records(t), with.records(t), names...)
}

// backlogDrops returns how many frames this machine has dropped between its
// interfaces.
func backlogDrops(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var processed, dropped int
		if _, err := fmt.Sscanf(line, "%x %x", &processed, &dropped); err != nil {
			t.Fatal(err)
		}
		n += dropped
	}
	return n
}
