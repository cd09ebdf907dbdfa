package elastic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// TestKill kills a process that writes and delivers, again and again over one
// spool. What it said was accepted is there in the end, once.
func TestKill(t *testing.T) {
	s := ready(t, estest.Shared(t))
	cfg := s.config(t)
	dir := t.TempDir()
	accepted := map[string]bool{}
	const rounds = 4
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
			if n == 2000*(round+1) {
				cmd.Process.Kill()
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("child: %v", err)
		}
	}
	o := startTest(t, cfg, dir)
	st := closeTest(t, o)
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
	sp, err := spool.Open(dir, spool.Options{})
	if err != nil {
		return err
	}
	o, err := New(Config{Addresses: []string{os.Getenv("CHILD_URL")}, Namespace: os.Getenv("CHILD_NAMESPACE")}, sp, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	from, err := strconv.Atoi(os.Getenv("CHILD_FROM"))
	if err != nil {
		return err
	}
	for n := from; ; n += 50 {
		var ids strings.Builder
		for i := n; i < n+50; i++ {
			r := record(output.Dataset(i)%output.Datasets, i)
			if err := o.Write(r); err != nil {
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
	server := estest.Shared(t)
	s := ready(t, server)
	cfg := s.config(t)
	var said syncBuffer
	o := newTest(t, cfg, t.TempDir(), slog.New(slog.NewTextHandler(&said, nil)))
	o.start()
	const n = 3000
	for i := range n {
		if i == n/3 {
			server.Stop(t)
		}
		write(t, o, record(output.Dataset(i)%output.Datasets, i))
	}
	for o.Stats().Retries == 0 {
		time.Sleep(time.Millisecond)
	}
	server.Restart(t)
	st := closeTest(t, o)
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
`,
		Users: []estest.User{{Name: "shipper", Password: "shipper-password", Role: "shipper"}, {Name: "alertless", Password: "alertless-password", Role: "alertless"}, {Name: "setup", Password: "setup-password", Role: "setup"}},
	})
	ctx := context.Background()
	config := func(user, password string) Config {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return Config{Addresses: []string{s.URL}, CAFile: s.CAFile, Username: user, PasswordFile: path}
	}
	connect := func(cfg Config) *Client {
		c, err := NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	shipper := config("shipper", "shipper-password")
	if _, err := Setup(ctx, connect(shipper), SetupOptions{Portable: true}); !isStatus(err, http.StatusForbidden) {
		t.Errorf("setup with the shipping user: %v", err)
	}
	if _, err := Setup(ctx, connect(config("setup", "setup-password")), SetupOptions{Portable: true}); err != nil {
		t.Fatal(err)
	}

	for name, cfg := range map[string]Config{
		"CA file": shipper,
		"pin":     {Addresses: shipper.Addresses, CertificateFingerprint: s.Fingerprint, Username: shipper.Username, PasswordFile: shipper.PasswordFile},
		"CA pin":  {Addresses: shipper.Addresses, CertificateFingerprint: s.CAFingerprint, Username: shipper.Username, PasswordFile: shipper.PasswordFile},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Namespace = estest.Namespace(t)
			o := startTest(t, cfg, t.TempDir())
			write(t, o, record(output.Alert, 1), record(output.Handshake, 2))
			if st := closeTest(t, o); st.Delivered.Total() != 2 {
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
		if _, err := c.do(ctx, r); !isStatus(err, http.StatusForbidden) {
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
		"wrong pin":           {Config{Addresses: []string{s.URL}, CertificateFingerprint: strings.Repeat("0", 64)}, "certificate_fingerprint", 0},
	} {
		t.Run(name, func(t *testing.T) {
			x.cfg.Namespace = estest.Namespace(t)
			var said syncBuffer
			dir := t.TempDir()
			o := newTest(t, x.cfg, dir, slog.New(slog.NewTextHandler(&said, nil)))
			o.start()
			write(t, o, record(output.Alert, 1), record(output.Handshake, 2))
			for st := o.Stats(); st.Retries < 4 || st.Delivered.Total() < x.delivered; st = o.Stats() {
				time.Sleep(time.Millisecond)
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var u *Undelivered
			if err := o.Close(ctx); !errors.As(err, &u) || u.Records != 2-x.delivered {
				t.Errorf("close: %v", err)
			}
			if !strings.Contains(said.String(), x.said) || strings.Contains(said.String(), "alertless-password") || strings.Contains(said.String(), "guess") {
				t.Errorf("said %q", said.String())
			}
			if len(deadLettersIn(t, dir)) != 0 {
				t.Error("there are dead letters")
			}
			// With the right key the next process delivers what was kept.
			fixed := shipper
			fixed.Namespace = x.cfg.Namespace
			next := startTest(t, fixed, dir)
			if st := closeTest(t, next); st.Delivered.Total() != 2-x.delivered {
				t.Errorf("delivered %v", st.Delivered)
			}
		})
	}
}

// TestLatency writes one alert behind a heap of telemetry, and finds it.
func TestLatency(t *testing.T) {
	s := ready(t, estest.Shared(t))
	cfg := s.config(t)
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := newOutput(client, cfg.namespace(), openSpool(t, t.TempDir()), slog.New(slog.DiscardHandler))
	o.start() // with the waits of real use
	write(t, o, record(output.Alert, 0))
	for o.Stats().Delivered.Total() == 0 { // the stream is made
		time.Sleep(time.Millisecond)
	}
	for i := range 5000 {
		write(t, o, record(output.Handshake, i))
	}
	start := time.Now()
	write(t, o, record(output.Alert, 1))
	for o.Stats().Delivered[output.Alert] < 2 {
		time.Sleep(time.Millisecond)
	}
	t.Logf("the alert was there after %v", time.Since(start)) // a loaded machine may take any time
	closeTest(t, o)
}
