package transparency

import (
	"cmp"
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
			if err != nil {
				break // the end, or a capture that is cut
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

// Each timestamp of a public capture is good where the issuer is there: nobody has
// forged these, and the logs of all years are in the list.
func TestCorpus(t *testing.T) {
	j := New()
	var handshakes, judged, stamped, valid, sent, stapled int
	statuses := make(map[string]int)
	corpus(t, func(capture string, h *event.Handshake) {
		got := j.Judge(h, nil)
		if got == nil {
			return
		}
		handshakes++
		if len(h.SCTs) > 0 {
			sent++
		}
		if len(h.OCSP) > 0 {
			stapled++
			statuses[got.OCSP]++
		}
		if got.Judged {
			judged++
			stamped += got.SCTs
			valid += got.Valid
		}
		if got.Judged && got.Valid != got.SCTs || got.OCSP == "invalid" {
			t.Errorf("%s: %s: %+v", capture, h.Chain[0].Subject.String, got)
		}
		for _, reason := range got.Reasons {
			t.Logf("%s: %s: %s", capture, h.Chain[0].Subject.String, reason)
		}
	})
	t.Logf("%d handshakes with a leaf, %d of them with its issuer: %d timestamps, %d good; %d handshakes sent timestamps, %d stapled an answer %v",
		handshakes, judged, stamped, valid, sent, stapled, statuses)
	if judged < 400 || stamped < 600 {
		t.Error("there was less than in the captures of before")
	}
}
