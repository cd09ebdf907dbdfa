package trust

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// corpus calls f with the handshakes of each public capture that show a certificate.
func corpus(t *testing.T, f func(capture string, h *event.Handshake)) {
	t.Helper()
	if testing.Short() {
		t.Skip("reading captures takes seconds")
	}
	dir := filepath.Join(cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../../shared/corpus"), "captures")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		source, err := capture.OpenFiles([]string{name}, capture.FileOptions{Warn: func(error) {}})
		if err != nil {
			return nil // not a capture
		}
		defer source.Close()
		relative, _ := filepath.Rel(dir, name)
		p := parsers.New(func(h *event.Handshake) {
			if len(h.Chain) > 0 {
				f(relative, h)
			}
		}, parsers.DefaultLimits)
		tracker := flow.NewTracker(p, flow.DefaultLimits)
		var decoder decode.Decoder
		for {
			batch, err := source.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				break // a capture that is cut
			}
			for i := range batch.Frames {
				var packet decode.Packet
				for ok := decoder.Decode(&batch.Frames[i], &packet) <= decode.Datagram; ok; ok = decoder.Next(&packet) {
					tracker.Packet(&packet, batch.Origin)
				}
			}
			batch.Release()
		}
		tracker.Close()
		p.Flush()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
