// Package flowtest reads captures in tests: as far as the handshakes, and no further.
package flowtest

import (
	"cmp"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/flow"
)

// Corpus calls f with the handshakes of each public capture that show a certificate of
// the server, and with the path of the capture below the folder of all. Secrets that
// are in a capture open its handshakes. Files that are no captures are left out. It
// skips the test where there are no public captures, or the test is to be short.
func Corpus(t *testing.T, f func(capture string, h *event.Handshake)) {
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
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		read(t, name, func(h *event.Handshake) {
			if len(h.Chain) > 0 {
				f(relative, h)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// read calls f with the handshakes of a file, unless that is no capture.
func read(t *testing.T, name string, f func(h *event.Handshake)) {
	keys := new(keylog.Store)
	source, err := capture.OpenFiles([]string{name}, capture.FileOptions{
		Warn:    func(error) {},
		Secrets: func(path string) io.WriteCloser { return keys.Own(path, func(error) {}) },
	})
	if err != nil {
		return
	}
	defer source.Close()
	p := parsers.New(f, parsers.DefaultLimits)
	p.SetKeys(keys)
	tracker := flow.NewTracker(p, flow.DefaultLimits)
	var decoder decode.Decoder
	for {
		batch, err := source.Next()
		if err != nil {
			if err != io.EOF {
				t.Logf("%s: %v", filepath.Base(name), err) // it is cut
			}
			break
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
}
