package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// receivers are stand-ins that take everything, and note what they took by the name of
// the output.
type receivers struct {
	mu  sync.Mutex
	got map[string]string
}

func (r *receivers) add(name, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[name] += text + "\n"
}

// http is a receiver that answers each request with a text.
func (r *receivers) http(t *testing.T, name, answer string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unzipped
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		r.add(name, string(b))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// syslog is a receiver over TCP.
func (r *receivers) syslog(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					r.add(name, lines.Text())
				}
			}()
		}
	}()
	return "tcp://" + l.Addr().String()
}

// TestAllOutputs reads a capture with an output of each type at once: each gets the
// alert in its form, and the one that wants something else does not.
func TestAllOutputs(t *testing.T) {
	r := &receivers{got: map[string]string{}}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "oddcert"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("secret-of-the-test"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "oddcert.yaml")
	text := fmt.Sprintf(`spool: %q
output:
  lines: {type: file, path: %q, records: alert}
  events: {type: file, format: eve, path: %q}
  logs: {type: file, format: zeek, path: %q}
  bus: {type: kafka, brokers: [%q]}
  hook: {type: webhook, url: %q, records: alert, where: {oddcert.verdict: forged}}
  other: {type: webhook, url: %q, records: alert, where: {oddcert.verdict: posing}}
  low: {type: webhook, url: %q, records: alert, level: critical}
  splunk: {type: splunk, url: %q, token_file: %q, ack: false}
  collector: {type: otlp, url: %q}
  cef: {type: syslog, url: %q, format: cef, framing: newline}
`, filepath.Join(dir, "spool"), filepath.Join(dir, "alerts.json"), filepath.Join(dir, "eve.json"), filepath.Join(dir, "zeek"), cluster.ListenAddrs()[0],
		r.http(t, "hook", ""), r.http(t, "other", ""), r.http(t, "low", ""), r.http(t, "splunk", `{"text":"Success","code":0}`), token,
		r.http(t, "collector", "{}"), r.syslog(t, "cef"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	if status := run([]string{"replay", "--config", config, filepath.Join(capturesDir, "odd-certificate", "capture.pcap")}, &stdout, &stderr); status != exitOK {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}

	file := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	const leaf = "149190E5014F4322BB51A9F77207A83AF3C71793C4ED810D2DA91488EA4828BD"
	lines := file("alerts.json")
	_, after, _ := strings.Cut(lines, `"id":"`)
	id := after[:min(len(after), 32)] // of the alert
	if strings.Count(lines, "\n") != 1 || !strings.Contains(lines, leaf) {
		t.Errorf("lines: %s", lines)
	}
	for name, wants := range map[string][]string{
		file("eve.json"):             {`"event_type":"alert"`, `"event_type":"tls"`, `"event_type":"stats"`, "ca:a5:d6:fe:77:d5:1d:0a:36:0a:08:b7:46:2c:59:10:3d:61:be:33"},
		file("zeek/ssl.log"):         {"#path\tssl", strings.ToLower(leaf)},
		file("zeek/notice.log"):      {"Oddcert::Forged"},
		file("zeek/x509.log"):        {strings.ToLower(leaf)},
		r.got["hook"]:                {lines},
		r.got["splunk"]:              {id, `"sourcetype":"oddcert:alert"`, `"sourcetype":"oddcert:stats"`},
		r.got["collector"]:           {id, `"resourceLogs"`},
		r.got["cef"]:                 {"CEF:0|", id},
		file("zeek/known_certs.log"): {"192.0.2.2"},
	} {
		for _, want := range wants {
			if !strings.Contains(name, want) {
				t.Errorf("%q is not in %s", want, name)
			}
		}
	}
	if got := r.got["other"] + r.got["low"]; got != "" {
		t.Errorf("what they do not want: %s", got)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("oddcert"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	within, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	keys := map[string]int{}
	for n := 0; n < 6; {
		fetches := consumer.PollFetches(within)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(m *kgo.Record) {
			n++
			keys[string(m.Key)]++
		})
	}
	if keys["192.0.2.2:443"] != 5 {
		t.Errorf("messages by key: %v", keys)
	}
	if !strings.Contains(stdout.String(), "nothing lost") || !strings.Contains(stdout.String(), "record delivered to hook") {
		t.Errorf("the summary: %s", stdout.String())
	}
}
