package transparency

import (
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/flow/flowtest"
)

// Each timestamp of a public capture is good where the issuer is there: nobody has
// forged these, and the logs of all years are in the list.
func TestCorpus(t *testing.T) {
	j := New()
	var handshakes, judged, stamped, valid, sent, stapled int
	statuses := make(map[string]int)
	flowtest.Corpus(t, func(capture string, h *event.Handshake) {
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
