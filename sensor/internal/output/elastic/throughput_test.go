//go:build unix

package elastic

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

var (
	throughput = flag.Int("throughput", 0, "measure the delivery of so many records to Elasticsearch, beside a bare loader")
	requests   = flag.Int("requests", maxRequests, "how many requests the bare loader has under way")
)

// handshake is the nth of many handshakes that differ.
func handshake(n int) *output.Record {
	r := &output.Record{Dataset: output.Handshake, ID: fmt.Sprintf("%032x", n), Time: 1.7e18 + int64(n)*1e6}
	at := time.Unix(0, r.Time).UTC().Format("2006-01-02T15:04:05.000000000Z")
	mixed := uint32(n) * 2654435761 // Knuth's multiplicative hash: neighbours differ everywhere
	ip := fmt.Sprintf("10.%d.%d.%d", mixed>>24, mixed>>16&255, mixed>>8&255)
	server := fmt.Sprintf("192.0.2.%d", mixed&255)
	name := fmt.Sprintf("host%d.example.net", mixed%5000)
	r.JSON = fmt.Appendf(nil, `{"@timestamp":%q,"ecs":{"version":"9.4.0"},"tags":["forwarded"],"event":{"kind":"event","category":["network"],"type":["connection","protocol"],"dataset":"oddcert.handshake","id":%q,"duration":%d},`+
		`"source":{"ip":%q,"port":%d},"destination":{"ip":%q,"port":443,"domain":%q},"network":{"transport":"tcp","type":"ipv4","protocol":"tls","community_id":"1:%032x"},"observer":{"name":"span-1","ingress":{"interface":{"name":"eth1"}}},`+
		`"tls":{"version":"1.2","version_protocol":"tls","cipher":"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256","curve":"secp256r1","next_protocol":"h2","resumed":false,"client":{"server_name":%q,"ja3":"%032x"},"server":{"ja3s":"%032x",`+
		`"hash":{"sha1":"%040X","sha256":"%064X"},"subject":"C=US, ST=California, O=Example, CN=%s","issuer":"C=US, O=Example Trust, CN=Example Authority G2","not_after":"2027-03-10T00:00:00Z"}},`+
		`"oddcert":{"carrier":"tls","ja4":"t12d1609s1_2490b10d2092_50e68031a889","certificates":"extracted","chain":{"hash":{"sha256":["%064X","C3F697A92A293D86F9A3EE7CCB970E20E0050B8728CC83ED1B996CE9005D4C36"]}}}}`,
		at, r.ID, mixed%1e8, ip, 1024+mixed%60000, server, name, mixed, name, mixed%50, mixed%20, mixed%5000, mixed%5000, name, mixed%5000)
	return r
}

// TestThroughput compares the whole way of a record, from Write over the disk to the
// server's answer, with a loader that does nothing but send the same documents in
// requests of the same size. It takes minutes, and runs only where it is asked for:
//
//	go test ./sensor/internal/output/elastic -run TestThroughput -v -throughput 200000
func TestThroughput(t *testing.T) {
	if *throughput == 0 {
		t.Skip("it runs with -throughput N only")
	}
	s := ready(t, estest.Elasticsearch8)
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	measure := func(name string, n int, f func()) float64 {
		used, from := cpu(), time.Now()
		f()
		took := time.Since(from)
		t.Logf("%-8s %d records in %v: %.0f a second; our CPU time %v", name, n, took.Round(time.Millisecond), float64(n)/took.Seconds(), (cpu() - used).Round(time.Millisecond))
		return float64(n) / took.Seconds()
	}
	warm := s.config(t)
	measure("warm-up", 20_000, func() { load(t, s.URL, warm.Namespace, 20_000, *requests) })
	var ours, bare float64
	const rounds = 2
	for range rounds {
		n := *throughput / rounds
		cfg := s.config(t)
		bare += measure("loader", n, func() { load(t, s.URL, cfg.Namespace, n, *requests) })
		cfg = s.config(t)
		ours += measure("oddcert", n, func() { deliver(t, cfg, n) })
	}
	t.Logf("oddcert has %.2f of the loader's rate, with %d requests under way in both", ours/bare, *requests)
}

// deliver sends n handshakes through spool and engine.
func deliver(t *testing.T, cfg Config, n int) {
	sp, err := spool.Open(t.TempDir(), spool.Options{Outputs: []spool.Output{{Name: "es", Datasets: 1 << output.Handshake}}, Block: true})
	if err != nil {
		t.Fatal(err)
	}
	e := delivery.Start(sp, []delivery.Output{{Name: "es", Destination: newTest(t, cfg, nil)}}, delivery.Options{})
	for i := range n {
		if err := e.Write(handshake(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := e.Outputs()[0].Stats(); st.Delivered.Total() != uint64(n) {
		t.Fatalf("stats %+v", st)
	}
}

// load sends n handshakes in bulk requests of the size that [Destination] has.
func load(t *testing.T, url, namespace string, n, requests int) {
	stream := "logs-oddcert.handshake-" + namespace
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: requests}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range requests {
		wg.Go(func() {
			for {
				from := int(next.Add(maxBatchRecords)) - maxBatchRecords
				if from >= n {
					return
				}
				var body bytes.Buffer
				zip, _ := gzip.NewWriterLevel(&body, gzip.BestSpeed)
				for i := from; i < min(from+maxBatchRecords, n); i++ {
					r := handshake(i)
					fmt.Fprintf(zip, `{"create":{"_index":%q,"_id":%q}}`+"\n%s\n", stream, r.ID, r.JSON)
				}
				zip.Close()
				req, err := http.NewRequest(http.MethodPost, url+"/_bulk?filter_path=errors", &body)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/x-ndjson")
				req.Header.Set("Content-Encoding", "gzip")
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Contains(answer, []byte(`"errors":false`)) {
					t.Errorf("answer %.500s, %v", answer, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
