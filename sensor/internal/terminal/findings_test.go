package terminal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/doctor"
)

// TestFindings shows findings by group, in 80 columns, with commands that can be copied
// and nothing that could control the terminal.
func TestFindings(t *testing.T) {
	long := "ethtool -K span0 " + strings.Repeat("gro off lro off ", 6)
	var b bytes.Buffer
	err := Findings(&b, []doctor.Finding{
		{Group: doctor.GroupTraffic, Check: "gaps", Level: doctor.Problem, Text: strings.Repeat("many gaps ", 20)},
		{Group: doctor.GroupInterface, Subject: "span0", Check: "offload", Level: doctor.Warning, Text: "merged", Fix: long},
		{Group: doctor.GroupInterface, Subject: "span1", Check: "link", Level: doctor.OK, Text: "up"},
		{Group: doctor.GroupInterface, Subject: "span0", Check: "drops", Level: doctor.OK, Text: "none \x1b[31m"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := b.String()
	want := "Interface span0\n" +
		"  warning  offload       merged\n" +
		"                         $ " + long + "\n" +
		"  ok       drops         none \\x1b[31m\n\n" +
		"Interface span1\n" +
		"  ok       link          up\n\n" +
		"Traffic\n" +
		"  problem  gaps          many gaps "
	if !strings.HasPrefix(text, want) || !strings.HasSuffix(text, "\n2 ok, 1 warning, 1 problem\n") {
		t.Errorf("%s", text)
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 && !strings.Contains(line, "$ ") {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
