package possession_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/flow/flowtest"
	"github.com/oddcert/oddcert/sensor/internal/judge/possession"
)

// In public captures every signature of which all bytes are there is by the key of the
// leaf, and where there is none, the reason is that of the suite.
func TestCorpus(t *testing.T) {
	prover := possession.New()
	count := map[string]int{}
	flowtest.Corpus(t, func(capture string, h *event.Handshake) {
		if h.OCSP != nil {
			count["with a stapled answer"]++
		}
		if h.SCTs != nil {
			count["with timestamps in the hello"]++
		}
		j := prover.Prove(h)
		_, version := tls.VersionName(h.Version)
		if j.Status == judgement.ProofUnknown {
			count["unknown: "+j.Reason]++
		} else {
			count[fmt.Sprintf("%s %s: %s", j.Status, version, j.Reason)]++
		}
		where := fmt.Sprintf("%s, frame %d, %s", capture, h.Certificate.Frame, tls.CipherSuiteName(h.CipherSuite))
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
	for _, k := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%6d %s", count[k], k)
	}
}
