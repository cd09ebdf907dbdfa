//go:build unix

package logfile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	d := open(t, Config{Path: path}, JSON{}) // nobody reads yet
	if tr := d.Send(t.Context(), records(0, 1), make([]delivery.Verdict, 1)); tr == nil || !errors.Is(tr.Err, syscall.ENXIO) {
		t.Fatalf("trouble %v", tr)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	send(t, d, records(0, 3))
	b := make([]byte, 4096)
	n, err := reader.Read(b)
	if err != nil || bytes.Count(b[:n], []byte("\n")) != 3 {
		t.Errorf("read %q, %v", b[:n], err)
	}
	// A reader that does not read holds nobody up for longer than the context.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if tr := d.Send(ctx, records(0, 2000), make([]delivery.Verdict, 2000)); tr == nil {
		t.Error("a full pipe took everything")
	}
}
