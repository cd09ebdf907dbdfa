package elastic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(estest.Main(m))
}

// enough is how long a test waits for what must happen: only a test that fails
// takes so long.
const enough = 2 * time.Minute

// record makes the nth record of a dataset.
func record(d output.Dataset, n int) *output.Record {
	id := fmt.Sprintf("%08x%024x", n, d)
	return &output.Record{Dataset: d, ID: id, Time: int64(n) * 1e9, JSON: fmt.Appendf(nil,
		`{"@timestamp":%q,"ecs":{"version":"9.4.0"},"event":{"id":%q,"dataset":"oddcert.%s","kind":"event"},"source":{"ip":"192.0.2.%d","port":443}}`,
		time.Unix(int64(n), 0).UTC().Format(time.RFC3339Nano), id, d, n%250+1)}
}

// broken makes a record that no mapping of ours takes.
func broken(n int) *output.Record {
	r := record(output.Alert, n)
	r.JSON = fmt.Appendf(nil, `{"@timestamp":"2022-02-21T16:39:40Z","event":{"id":%q},"tls":"not an object"}`, r.ID)
	return r
}

func openSpool(t testing.TB, dir string) *spool.Spool {
	t.Helper()
	sp, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return sp
}

// newTest makes an output with short waits that is not started.
func newTest(t testing.TB, cfg Config, dir string, log *slog.Logger) *Output {
	t.Helper()
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	o := newOutput(client, cfg.namespace(), openSpool(t, dir), log)
	o.min, o.max, o.slow = time.Millisecond, 5*time.Millisecond, 5*time.Millisecond
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		o.Close(ctx)
	})
	return o
}

func startTest(t testing.TB, cfg Config, dir string) *Output {
	t.Helper()
	o := newTest(t, cfg, dir, nil)
	o.start()
	return o
}

func write(t testing.TB, o *Output, records ...*output.Record) {
	t.Helper()
	for _, r := range records {
		if err := o.Write(r); err != nil {
			t.Fatal(err)
		}
	}
}

// closeTest closes o, and holds its counts against what Stats promises.
func closeTest(t testing.TB, o *Output) Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s := checkSums(t, o)
	if n := s.Spool.Spooled.Total(); n != 0 {
		t.Errorf("%d records left in the spool", n)
	}
	return s
}

func checkSums(t testing.TB, o *Output) Stats {
	t.Helper()
	s := o.Stats()
	for d := range output.Datasets {
		if s.Spool.Settled[d] != s.Delivered[d]+s.Duplicates[d]+s.Dead[d] {
			t.Errorf("%s: settled %d != delivered %d + duplicates %d + dead %d", d, s.Spool.Settled[d], s.Delivered[d], s.Duplicates[d], s.Dead[d])
		}
		if in, out := s.Spool.Recovered[d]+s.Spool.Accepted[d], s.Spool.Settled[d]+s.Spool.Dropped[d]+s.Spool.Spooled[d]; in != out {
			t.Errorf("%s: %d records in, %d out", d, in, out)
		}
	}
	return s
}

func deadLettersIn(t testing.TB, dir string) (letters []deadLetter) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "dead-letter.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var l deadLetter
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		letters = append(letters, l)
	}
	return letters
}

// server is what the contract is checked on.
type server interface {
	config(t testing.TB) Config // with a namespace for the test
	search(t testing.TB, pattern string) map[string]json.RawMessage
}

type realServer struct{ *estest.Server }

func (s realServer) config(t testing.TB) Config {
	return Config{Addresses: []string{s.URL}, Server: s.Kind, Namespace: estest.Namespace(t)}
}

func (s realServer) search(t testing.TB, pattern string) map[string]json.RawMessage {
	t.Helper()
	return s.Search(t, pattern)
}

// ready puts the templates into a real server.
func ready(t testing.TB, s *estest.Server) realServer {
	t.Helper()
	c, err := NewClient(Config{Addresses: []string{s.URL}, Server: s.Kind})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Setup(context.Background(), c, SetupOptions{Portable: true}); err != nil {
		t.Fatal(err)
	}
	return realServer{s}
}

// TestContract holds the stand-in and real servers to the same expectations,
// so that what is tested on the stand-in alone means something.
func TestContract(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) { contract(t, func(t *testing.T) server { return newStandIn(t) }) })
	t.Run("elasticsearch", func(t *testing.T) {
		contract(t, func(t *testing.T) server { return ready(t, estest.Shared(t)) })
	})
	t.Run("opensearch", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts a server of its own")
		}
		s := estest.Start(t, estest.Options{OpenSearch: true})
		contract(t, func(t *testing.T) server { return ready(t, s) })
		real := ready(t, s)
		testMapped(t, real)
		c, err := NewClient(real.config(t))
		if err != nil {
			t.Fatal(err)
		}
		if differences, err := Check(context.Background(), c, SetupOptions{}); err != nil || len(differences) > 0 {
			t.Errorf("differences %q, %v", differences, err)
		}
	})
}

func contract(t *testing.T, start func(*testing.T) server) {
	t.Run("each dataset goes to its stream", func(t *testing.T) {
		s := start(t)
		cfg := s.config(t)
		o := startTest(t, cfg, t.TempDir())
		const n = 50
		for i := range n {
			write(t, o, record(output.Dataset(i)%output.Datasets, i))
		}
		st := closeTest(t, o)
		if st.Delivered.Total() != n || st.Duplicates.Total() != 0 || st.Retries != 0 {
			t.Errorf("stats %+v", st)
		}
		for d := range output.Datasets {
			found := s.search(t, schema.Dataset(d).DataStream(cfg.Namespace))
			if uint64(len(found)) != st.Delivered[d] {
				t.Errorf("%s: found %d documents, delivered %d", d, len(found), st.Delivered[d])
			}
			for id, document := range found {
				var e struct{ Event struct{ ID, Dataset string } }
				if err := json.Unmarshal(document, &e); err != nil || e.Event.ID != id || e.Event.Dataset != "oddcert."+d.String() {
					t.Errorf("%s: document %s: %s (%v)", d, id, document, err)
				}
			}
		}
	})
	t.Run("what is there already counts as done", func(t *testing.T) {
		s := start(t)
		cfg := s.config(t)
		for round := range 2 {
			o := startTest(t, cfg, t.TempDir())
			for i := range 20 {
				write(t, o, record(output.Alert, i))
			}
			write(t, o, record(output.Alert, 3)) // once more in the same batch
			st := closeTest(t, o)
			if want := uint64(20 * (1 - round)); st.Delivered.Total() != want || st.Duplicates.Total() != 21-want {
				t.Errorf("round %d: delivered %d, duplicates %d", round, st.Delivered.Total(), st.Duplicates.Total())
			}
		}
		if found := s.search(t, "logs-oddcert.alert-"+cfg.Namespace); len(found) != 20 {
			t.Errorf("found %d documents, want 20", len(found))
		}
	})
	t.Run("a record that no mapping takes is a dead letter", func(t *testing.T) {
		s := start(t)
		cfg := s.config(t)
		dir := t.TempDir()
		o := newTest(t, cfg, dir, nil)
		write(t, o, record(output.Alert, 1), broken(2), record(output.Alert, 3))
		if err := o.spool.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		o.start()
		st := closeTest(t, o)
		if st.Delivered[output.Alert] != 2 || st.Dead[output.Alert] != 1 {
			t.Errorf("delivered %d, dead %d", st.Delivered[output.Alert], st.Dead[output.Alert])
		}
		letters := deadLettersIn(t, dir)
		if len(letters) != 1 {
			t.Fatalf("%d dead letters", len(letters))
		}
		l := letters[0]
		if want := broken(2); l.ID != want.ID || string(l.Document) != string(want.JSON) || l.Status != http.StatusBadRequest ||
			l.Index != "logs-oddcert.alert-"+cfg.Namespace ||
			!strings.Contains(l.Reason, "_parsing_exception") || !strings.Contains(l.Reason, "[tls]") {
			t.Errorf("dead letter %+v", l)
		}
		if found := s.search(t, "logs-oddcert.alert-"+cfg.Namespace); len(found) != 2 {
			t.Errorf("found %d documents, want 2", len(found))
		}
	})
	t.Run("what another process left is delivered", func(t *testing.T) {
		s := start(t)
		cfg := s.config(t)
		dir := t.TempDir()
		left := newTest(t, Config{Addresses: []string{"http://127.0.0.1:1"}}, dir, nil)
		left.start()
		for i := range 30 {
			write(t, left, record(output.Handshake, i))
		}
		if err := left.spool.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var u *Undelivered
		if err := left.Close(ctx); !errors.As(err, &u) || u.Records != 30 || u.Dir != dir {
			t.Fatalf("close: %v", err)
		}
		checkSums(t, left)
		o := startTest(t, cfg, dir)
		st := closeTest(t, o)
		if st.Spool.Recovered.Total() != 30 || st.Delivered.Total() != 30 {
			t.Errorf("recovered %d, delivered %d", st.Spool.Recovered.Total(), st.Delivered.Total())
		}
		if found := s.search(t, "logs-oddcert.handshake-"+cfg.Namespace); len(found) != 30 {
			t.Errorf("found %d documents, want 30", len(found))
		}
	})
}
