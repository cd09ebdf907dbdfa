package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/oddcert/oddcert/sensor/internal/doctor"
)

// TestDoctorOutputs has oddcert doctor ask an output of each type, once where all is
// well and once where nobody listens, or where the password is wrong. No record is
// sent.
func TestDoctorOutputs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("oddcert doctor is for Linux")
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// One server stands in for all that speak HTTP, and lets one password in.
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		token := r.Header.Get("Authorization")
		elastic := strings.HasPrefix(r.URL.Path, "/es/")
		if elastic {
			w.Header().Set("X-Elastic-Product", "Elasticsearch")
			w.Header().Set("Content-Type", "application/json")
		}
		switch path := r.Method + " " + r.URL.Path; {
		case password != "right" && token != "Bearer right" && token != "Splunk right":
			w.WriteHeader(http.StatusUnauthorized)
		case path == "POST /es/_security/user/_has_privileges":
			fmt.Fprint(w, `{"index":{}}`)
		case elastic && r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/es/_index_template/"):
			w.WriteHeader(http.StatusForbidden)
		case elastic && r.Method == http.MethodGet:
			fmt.Fprint(w, `{"version":{"number":"9.0.0"}}`)
		case path == "GET /services/collector/health":
		case path == "POST /services/collector/ack":
			fmt.Fprint(w, `{"acks":{"0":false}}`)
		case path == "OPTIONS /hook":
			w.WriteHeader(http.StatusMethodNotAllowed)
		case path == "POST /v1/logs":
			fmt.Fprint(w, `{}`)
		default:
			t.Errorf("%s was asked for", path)
		}
	}))
	defer web.Close()
	brokers, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "oddcert"))
	if err != nil {
		t.Fatal(err)
	}
	defer brokers.Close()
	receiver, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	right, wrong := file("right", "right"), file("wrong", "wrong")

	var text strings.Builder
	fmt.Fprintf(&text, "spool: %s\noutput:\n", filepath.Join(dir, "spool"))
	want := map[string]doctor.Level{}
	add := func(name string, level doctor.Level, settings string, args ...any) {
		want[name] = level
		fmt.Fprintf(&text, "  %s: {%s}\n", name, fmt.Sprintf(settings, args...))
	}
	add("file", doctor.OK, "type: file, path: %q", filepath.Join(dir, "records.json"))
	for name, c := range map[string]struct {
		level doctor.Level
		file  string
	}{"right": {doctor.OK, right}, "wrong": {doctor.Problem, wrong}} {
		add("elasticsearch-"+name, c.level, "type: elasticsearch, url: [%q], username: sensor, password_file: %q", web.URL+"/es", c.file)
		add("webhook-"+name, c.level, "type: webhook, url: %q, username: sensor, password_file: %q", web.URL+"/hook", c.file)
		add("otlp-"+name, c.level, "type: otlp, url: %q, token_file: %q", web.URL, c.file)
		add("splunk-"+name, c.level, "type: splunk, url: %q, token_file: %q", web.URL, c.file)
	}
	add("kafka-right", doctor.OK, "type: kafka, brokers: [%q]", brokers.ListenAddrs()[0])
	add("kafka-wrong", doctor.Problem, "type: kafka, brokers: [%q], topic: absent", brokers.ListenAddrs()[0])
	add("syslog-right", doctor.OK, "type: syslog, url: %q", "tcp://"+receiver.Addr().String())
	add("syslog-wrong", doctor.Problem, "type: syslog, url: %q", "tcp://127.0.0.1:1")
	add("syslog-udp", doctor.Warning, "type: syslog, url: %q", "udp://127.0.0.1:9")
	for _, kind := range outputTypes {
		if !strings.Contains(text.String(), "type: "+kind.name+",") {
			t.Errorf("type %s is not tried", kind.name)
		}
	}

	var out, stderr bytes.Buffer
	if status := run([]string{"doctor", "--json", "--config", file("oddcert.yaml", text.String())}, &out, &stderr); status != exitProblem {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var f doctor.Finding
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatal(err)
		}
		if f.Group != doctor.GroupOutput {
			continue
		}
		if f.Level != want[f.Subject] || f.Text == "" {
			t.Errorf("%s: %s: %s; want %s", f.Subject, f.Level, f.Text, want[f.Subject])
		}
		if strings.Contains(f.Text, "right") {
			t.Errorf("the finding has the secret: %s", f.Text)
		}
		delete(want, f.Subject)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
	if _, err := os.Stat(filepath.Join(dir, "records.json")); err == nil {
		t.Error("the file of records was made")
	}
}
