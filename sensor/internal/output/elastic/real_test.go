package elastic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// TestKill kills a process that writes and delivers, again and again over one
// spool. What it said was accepted is there in the end, once.
func TestKill(t *testing.T) {
	s := ready(t, estest.Elasticsearch8)
	cfg := s.config(t)
	dir := t.TempDir()
	accepted := map[string]bool{}
	const rounds = 3
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, "CHILD_URL="+s.URL, "CHILD_NAMESPACE="+cfg.Namespace, fmt.Sprint("CHILD_FROM=", round*1_000_000))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 1; lines.Scan(); n++ {
			accepted[lines.Text()] = true
			if n == 1000*(round+1) {
				cmd.Process.Kill()
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("child: %v", err)
		}
	}
	st := start(t, newTest(t, cfg, nil), dir, nil).finish(t)
	found := s.search(t, "*-oddcert.*-"+cfg.Namespace) // fails where one is there twice
	for id := range accepted {
		if found[id] == nil {
			t.Fatalf("%s was accepted, and is not there", id)
		}
	}
	t.Logf("accepted %d, found %d; the last process delivered %d, and %d again", len(accepted), len(found), st.Delivered.Total(), st.Duplicates.Total())
}

const childEnv = "ODDCERT_ELASTIC_CHILD"

// child writes and delivers until it is killed, and says what was accepted.
func child(dir string) error {
	sp, err := spool.Open(dir, spool.Options{Outputs: []spool.Output{{Name: "es", Datasets: 1<<output.Datasets - 1}}})
	if err != nil {
		return err
	}
	d, err := New(Config{Addresses: []string{os.Getenv("CHILD_URL")}, Namespace: os.Getenv("CHILD_NAMESPACE")}, slogDiscard)
	if err != nil {
		return err
	}
	e := delivery.Start(sp, []delivery.Output{{Name: "es", Destination: d}}, delivery.Options{})
	from, err := strconv.Atoi(os.Getenv("CHILD_FROM"))
	if err != nil {
		return err
	}
	for n := from; ; n += 50 {
		var ids strings.Builder
		for i := n; i < n+50; i++ {
			r := record(output.Dataset(i)%output.Datasets, i)
			if err := e.Write(r); err != nil {
				return err
			}
			ids.WriteString(r.ID + "\n")
		}
		if err := sp.Sync(context.Background()); err != nil {
			return err
		}
		os.Stdout.WriteString(ids.String())
	}
}

// TestServerRestarts stops the server in the middle, and starts it again.
func TestServerRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the server once more")
	}
	s := ready(t, estest.Elasticsearch8)
	cfg := s.config(t)
	var said syncBuffer
	e := start(t, newTest(t, cfg, said.logger()), t.TempDir(), said.logger())
	const n = 3000
	for i := range n {
		if i == n/3 {
			s.Stop(t)
		}
		e.write(t, record(output.Dataset(i)%output.Datasets, i))
	}
	until(t, "records go again", func() bool { return e.out.Stats().Retries > 0 })
	s.Restart(t)
	st := e.finish(t)
	if st.Delivered.Total()+st.Duplicates.Total() != n {
		t.Errorf("delivered %v, duplicates %v", st.Delivered, st.Duplicates)
	}
	if found := s.search(t, "*-oddcert.*-"+cfg.Namespace); len(found) != n {
		t.Errorf("found %d documents, want %d", len(found), n)
	}
	if !strings.Contains(said.String(), "cannot deliver") || !strings.Contains(said.String(), "delivers again") {
		t.Errorf("said %q", said.String())
	}
}

// TestSecurity ships with the least privileges over TLS.
func TestSecurity(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of its own")
	}
	s := estest.Start(t, estest.Options{
		Security: true,
		Roles: `shipper:
  indices:
    - names: [ 'logs-oddcert.*-*', 'metrics-oddcert.stats-*' ]
      privileges: [ auto_configure, create_doc ]
alertless:
  indices:
    - names: [ 'logs-oddcert.handshake-*' ]
      privileges: [ auto_configure, create_doc ]
setup:
  cluster: [ manage_index_templates, manage_ingest_pipelines ]
looker:
  cluster: [ monitor, read_pipeline ]
`,
		Users: []estest.User{{Name: "shipper", Password: "shipper-password", Role: "shipper"}, {Name: "alertless", Password: "alertless-password", Role: "alertless"}, {Name: "setup", Password: "setup-password", Role: "setup"},
			{Name: "looker", Password: "looker-password", Role: "looker"}, {Name: "admin-like", Password: "admin-password", Role: "superuser"}},
	})
	ctx := context.Background()
	config := func(user, password string) Config {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{CAFile: s.CAFile}, Username: user, PasswordFile: path}
	}
	connect := func(cfg Config) *Client {
		c, err := NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		return c
	}
	shipper := config("shipper", "shipper-password")
	// Before anything is changed, setup names the rights that are missing.
	if done, err := Setup(ctx, connect(shipper), SetupOptions{}); err == nil || len(done) != 0 || !strings.Contains(err.Error(), "this one lacks manage_index_templates, manage_ingest_pipelines") {
		t.Errorf("setup with the shipping user: %q, %v", done, err)
	}
	if _, err := Setup(ctx, connect(config("alertless", "guess")), SetupOptions{}); !isStatus(err, http.StatusUnauthorized) {
		t.Errorf("setup with a wrong password: %v", err)
	}
	var said syncBuffer
	one(t, newTest(t, config("admin-like", "admin-password"), said.logger()), record(output.Alert, 1))
	if !strings.Contains(said.String(), "lacks index templates") {
		t.Errorf("before setup: said %q", said.String())
	}
	if _, err := Setup(ctx, connect(config("setup", "setup-password")), SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	checkSecurity(t, config)
	// To look whether all is well takes only the right to look.
	if differences, err := Check(ctx, connect(config("looker", "looker-password")), SetupOptions{}); err != nil || len(differences) > 0 {
		t.Errorf("check: %q, %v", differences, err)
	}

	for name, cfg := range map[string]Config{
		"CA file": shipper,
		"pin":     {Addresses: shipper.Addresses, TLS: endpoint.TLS{Fingerprint: s.Fingerprint}, Username: shipper.Username, PasswordFile: shipper.PasswordFile},
		"CA pin":  {Addresses: shipper.Addresses, TLS: endpoint.TLS{Fingerprint: s.CAFingerprint}, Username: shipper.Username, PasswordFile: shipper.PasswordFile},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Namespace = estest.Namespace(t)
			// The shipping key may not look for the templates: nothing is said.
			e := start(t, newTest(t, cfg, nil), t.TempDir(), nil, record(output.Alert, 1), record(output.Handshake, 2))
			if st := e.finish(t); st.Delivered.Total() != 2 {
				t.Errorf("delivered %v", st.Delivered)
			}
			if found := s.Search(t, "*-oddcert.*-"+cfg.Namespace); len(found) != 2 {
				t.Errorf("found %d documents", len(found))
			}
		})
	}
	// A stolen key cannot alter what is there, nor read it.
	c := connect(shipper)
	const stream = "logs-oddcert.alert-stolen"
	var created struct {
		Index string `json:"_index"`
	}
	s.Do(t, http.MethodPost, "/"+stream+"/_create/1", string(record(output.Alert, 1).JSON), &created)
	for name, r := range map[string]esapi.Request{
		"search":        esapi.SearchRequest{Index: []string{stream}, Body: strings.NewReader(`{}`)},
		"update":        esapi.UpdateRequest{Index: created.Index, DocumentID: "1", Body: strings.NewReader(`{"doc":{"message":"changed"}}`)},
		"replace":       esapi.IndexRequest{Index: created.Index, DocumentID: "1", IfSeqNo: esapi.IntPtr(0), IfPrimaryTerm: esapi.IntPtr(1), Body: strings.NewReader(`{"@timestamp":"2022-02-21T16:39:40Z"}`)},
		"delete":        esapi.DeleteRequest{Index: created.Index, DocumentID: "1"},
		"delete all":    esapi.IndicesDeleteRequest{Index: []string{created.Index}},
		"other streams": esapi.IndexRequest{Index: "logs-other-default", OpType: "create", Body: strings.NewReader(`{"@timestamp":"2022-02-21T16:39:40Z"}`)},
	} {
		if _, err := c.do(ctx, func() esapi.Request { return r }); !isStatus(err, http.StatusForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}

	for name, x := range map[string]struct {
		cfg       Config
		said      string
		delivered uint64
	}{
		"wrong password":      {config("shipper", "guess"), "status 401", 0},
		"no right for alerts": {config("alertless", "alertless-password"), "status 403: security_exception", 1},
		"wrong pin":           {Config{Addresses: []string{s.URL}, TLS: endpoint.TLS{Fingerprint: strings.Repeat("0", 64)}}, "fingerprint: no certificate", 0},
		"unknown authority":   {Config{Addresses: []string{s.URL}}, "give its authority with ca_file", 0},
	} {
		t.Run(name, func(t *testing.T) {
			x.cfg.Namespace = estest.Namespace(t)
			var said syncBuffer
			dir := t.TempDir()
			e := start(t, newTest(t, x.cfg, nil), dir, said.logger(), record(output.Alert, 1), record(output.Handshake, 2))
			until(t, "records go again", func() bool {
				st := e.out.Stats()
				return st.Retries >= 4 && st.Delivered.Total() >= x.delivered
			})
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var u *delivery.Undelivered
			if err := e.Close(ctx); !errors.As(err, &u) || u.Records != 2-x.delivered {
				t.Errorf("close: %v", err)
			}
			if strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), x.said) || strings.Contains(said.String(), "alertless-password") || strings.Contains(said.String(), "guess") {
				t.Errorf("said %q", said.String())
			}
			if len(deadLetters(t, dir)) != 0 {
				t.Error("there are dead letters")
			}
			// With the right key the next process delivers what was kept.
			fixed := shipper
			fixed.Namespace = x.cfg.Namespace
			if st := start(t, newTest(t, fixed, nil), dir, nil).finish(t); st.Delivered.Total() != 2-x.delivered {
				t.Errorf("delivered %v", st.Delivered)
			}
		})
	}

	// A password that is changed on both sides needs no restart.
	t.Run("password replaced", func(t *testing.T) {
		cfg := config("shipper", "old-password")
		cfg.Namespace = estest.Namespace(t)
		var said syncBuffer
		e := start(t, newTest(t, cfg, nil), t.TempDir(), said.logger(), record(output.Alert, 1))
		until(t, "records go again", func() bool { return e.out.Stats().Retries >= 2 })
		if err := os.WriteFile(cfg.PasswordFile, []byte("shipper-password\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if st := e.finish(t); st.Delivered.Total() != 1 || !strings.Contains(said.String(), "delivers again") {
			t.Errorf("delivered %d, said %q", st.Delivered.Total(), said.String())
		}
	})
}

// TestLatency writes one alert behind a heap of telemetry, and finds it.
func TestLatency(t *testing.T) {
	s := ready(t, estest.Elasticsearch8)
	cfg := s.config(t)
	e := start(t, newTest(t, cfg, nil), t.TempDir(), nil)
	e.write(t, record(output.Alert, 0))
	until(t, "the stream is made", func() bool { return e.out.Stats().Delivered.Total() == 1 })
	for i := range 5000 {
		e.write(t, record(output.Handshake, i))
	}
	from := time.Now()
	e.write(t, record(output.Alert, 1))
	until(t, "the alert is found", func() bool {
		var answer struct{ Count int }
		s.Do(t, http.MethodGet, "/logs-oddcert.alert-"+cfg.Namespace+"/_count", "", &answer)
		return answer.Count == 2
	})
	t.Logf("the alert was found after %v", time.Since(from)) // a loaded machine may take any time
	e.finish(t)
}
