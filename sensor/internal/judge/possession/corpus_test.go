package possession_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/keylog"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/decode"
	"github.com/oddcert/oddcert/sensor/internal/flow"
	"github.com/oddcert/oddcert/sensor/internal/judge/possession"
)

// read calls f with the handshakes of a capture, with the secrets that are in it.
func read(t *testing.T, name string, f func(h *event.Handshake)) {
	keys := new(keylog.Store)
	source, err := capture.OpenFiles([]string{name}, capture.FileOptions{
		Warn:    func(error) {},
		Secrets: func(path string) io.WriteCloser { return keys.Own(path, func(error) {}) },
	})
	if err != nil {
		return // not a capture
	}
	defer source.Close()
	p := parsers.New(f, parsers.DefaultLimits)
	p.SetKeys(keys)
	tracker := flow.NewTracker(p, flow.DefaultLimits)
	var decoder decode.Decoder
	for {
		batch, err := source.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: %v", filepath.Base(name), err)
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

// In public captures every signature of which all bytes are there is by the key of the
// leaf, and where there is none, the reason is that of the suite.
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("reading captures takes seconds")
	}
	dir := filepath.Join(cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../../../../shared/corpus"), "captures")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	prover := possession.New()
	count := map[string]int{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		read(t, name, func(h *event.Handshake) {
			if h.OCSP != nil {
				count["with a stapled answer"]++
			}
			if h.SCTs != nil {
				count["with timestamps in the hello"]++
			}
			j := prover.Prove(h)
			if j == nil {
				return
			}
			_, version := tls.VersionName(h.Version)
			if j.Status == judgement.ProofUnknown {
				count["unknown: "+j.Reason]++
			} else {
				count[fmt.Sprintf("%s %s: %s", j.Status, version, j.Reason)]++
			}
			relative, _ := filepath.Rel(dir, name)
			where := fmt.Sprintf("%s, frame %d, %s", relative, h.Certificate.Frame, tls.CipherSuiteName(h.CipherSuite))
			signs := strings.Contains(tls.CipherSuiteName(h.CipherSuite), "DHE_")
			switch {
			case j.Status == judgement.Mismatch, h.Proof.Missing == event.ProofMalformed:
				t.Errorf("%s: %s", where, j.Reason)
			case signs && j.Status == judgement.ProofUnknown && !h.Chain[0].Truncated:
				t.Logf("%s: %s", where, j.Reason)
			case !signs && h.CipherSuite>>8 != 0x13 && j.Status != judgement.ProofUnknown && !strings.Contains(tls.CipherSuiteName(h.CipherSuite), "EXPORT"):
				t.Errorf("%s: %s", where, j.Reason)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%6d %s", count[k], k)
	}
}
