package logfile

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
)

// TestEngine delivers records of both queues with the real engine, through an outage,
// and from where it stopped.
func TestEngine(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "log")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(logs, "records.json")
	var said syncBuffer
	const n = 3000
	for run := range 2 {
		d := open(t, Config{Path: path}, JSON{})
		sp, err := spool.Open(filepath.Join(dir, "spool"), spool.Options{Outputs: []spool.Output{{Name: "file", Datasets: output.Records}}})
		if err != nil {
			t.Fatal(err)
		}
		e := delivery.Start(sp, []delivery.Output{{Name: "file", Destination: d}}, delivery.Options{
			Log:     slog.New(slog.NewTextHandler(&said, nil)),
			Backoff: delivery.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond, Slow: 10 * time.Millisecond},
		})
		for i := range n {
			r := record(run*n + i)
			if i%3 == 0 {
				r.Dataset = output.Alert
			}
			if i == n/2 {
				if err := os.Rename(logs, logs+".away"); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		for e.Outputs()[0].Trouble() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := os.Rename(logs+".away", logs); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if st := e.Outputs()[0].Stats(); st.Delivered.Total()+st.Duplicates.Total() != n {
			t.Errorf("delivered %v, duplicates %v", st.Delivered, st.Duplicates)
		}
	}
	found := map[string]bool{}
	for _, id := range idsIn(t, path) {
		if found[id] {
			t.Errorf("%s is there twice", id)
		}
		found[id] = true
	}
	if len(found) != 2*n {
		t.Errorf("%d records, want %d", len(found), 2*n)
	}
	if !strings.Contains(said.String(), "cannot deliver") || !strings.Contains(said.String(), "delivers again") {
		t.Errorf("said %q", said.String())
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
