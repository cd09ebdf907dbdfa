package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
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
		time.Unix(int64(n), 0).UTC().Format(time.RFC3339Nano), id, d.Form(), n%250+1)}
}

// broken makes a record that no server takes where another one is already.
func broken(n int) *output.Record {
	r := record(output.Alert, n)
	r.JSON = fmt.Appendf(nil, `{"@timestamp":"2022-02-21T16:39:40Z","event":{"id":%q},"source":"not an object"}`, r.ID)
	return r
}

// newTest makes a destination. Where log is nil, what it says there fails the test.
func newTest(t testing.TB, cfg Config, log *slog.Logger) *Destination {
	t.Helper()
	if log == nil {
		log = slog.New(slog.NewTextHandler(failing{t}, nil))
	}
	d, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

type failing struct{ testing.TB }

func (f failing) Write(b []byte) (int, error) {
	f.Errorf("said %s", b)
	return len(b), nil
}

// engine is a spool with one output, and short waits.
type engine struct {
	*delivery.Engine
	out *delivery.Running
}

// start starts an engine over the spool in dir. Before it, the records are written
// and on disk: they are one batch for each queue.
func start(t testing.TB, d *Destination, dir string, log *slog.Logger, records ...*output.Record) engine {
	t.Helper()
	sp, err := spool.Open(dir, spool.Options{Outputs: []spool.Output{{Name: "es", Datasets: 1<<output.Datasets - 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := sp.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := sp.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := engine{Engine: delivery.Start(sp, []delivery.Output{{Name: "es", Destination: d}},
		delivery.Options{Log: log, Backoff: delivery.Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond, Slow: 5 * time.Millisecond}})}
	e.out = e.Outputs()[0]
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Close(ctx)
	})
	return e
}

func (e engine) write(t testing.TB, records ...*output.Record) {
	t.Helper()
	for _, r := range records {
		if err := e.Write(r); err != nil {
			t.Fatal(err)
		}
	}
}

// finish delivers everything.
func (e engine) finish(t testing.TB) delivery.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), enough)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return e.out.Stats()
}

// until waits for what must happen.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(enough); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// deadLetters returns the dead letters in a spool's folder.
func deadLetters(t testing.TB, dir string) (letters []delivery.DeadLetter) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "dead-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var l delivery.DeadLetter
			if err := json.Unmarshal(line, &l); err != nil {
				t.Fatal(err)
			}
			letters = append(letters, l)
		}
	}
	return letters
}

// syncBuffer is what a log is written to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// one sends one batch, and wants no trouble.
func one(t testing.TB, d *Destination, records ...*output.Record) []delivery.Verdict {
	t.Helper()
	verdicts := make([]delivery.Verdict, len(records))
	if trouble := d.Send(t.Context(), records, verdicts); trouble != nil {
		t.Fatalf("%s: %v", trouble.Class, trouble.Err)
	}
	return verdicts
}

func fates(verdicts []delivery.Verdict) string {
	var s strings.Builder
	for _, v := range verdicts {
		fmt.Fprint(&s, v.Fate)
	}
	return s.String()
}

var slogDiscard = slog.New(slog.DiscardHandler)
