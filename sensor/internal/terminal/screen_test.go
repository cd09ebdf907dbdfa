package terminal

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestHarmless has everything that moves a cursor, colours, or reorders.
func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"plain äöü 漢\n":         "plain äöü 漢\n",
		"a\x1b[2Jb":             `a\x1b[2Jb`,
		"a\rb\bc\x7f":           `a\x0db\x08c\x7f`,
		"C1 \u009b2J":           `C1 \x9b2J`,
		"raw \x9b2J":            `raw \x9b2J`,
		"bidi \u202egpj.exe":    `bidi \u202egpj.exe`,
		"isolate \u2066x\u2069": `isolate \u2066x\u2069`,
		"title \x1b]0;x\a":      `title \x1b]0;x\x07`,
	} {
		var out bytes.Buffer
		if n, err := io.WriteString(Harmless(&out), text); n != len(text) || err != nil || out.String() != want {
			t.Errorf("%q: %q, want %q (%d, %v)", text, out.String(), want, n, err)
		}
	}
}

// TestScreen holds which texts go to which of the two outputs.
func TestScreen(t *testing.T) {
	for name, o := range map[string]Options{"replay": {}, "records": {Records: true}, "live": {Live: true}, "both": {Records: true, Live: true}, "quiet": {Quiet: true}, "quiet live": {Quiet: true, Live: true}} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			s := New(&stdout, &stderr, o)
			s.Progress(func() (int64, int64) { return 1, 2 })()
			s.Warn(errors.New("a \x1b[2Jwarning"))
			s.Alert(sampleHandshake(), sampleAlert())
			s.Log().Info("a line")
			s.Failure("match rules", "index out of range", "goroutine 1 [running]:\nmain.f(\x1b)\n\tf.go:7")
			s.Summary(&output.Counters{})
			s.Close()
			wantErr := `(?s)^oddcert: a \\x1b\[2Jwarning
.*msg="a line".*oddcert: match rules: index out of range
goroutine 1 \[running\]:
main.f\(\\x1b\)
	f.go:7
oddcert: this is a fault of the program.*https://.*
$`
			if !regexp.MustCompile(wantErr).Match(stderr.Bytes()) {
				t.Errorf("standard error: %q", stderr.String())
			}
			out := stdout.String()
			if (o.Records || o.Quiet) && out != "" {
				t.Errorf("beside the records: %q", out)
			}
			if !o.Records && !o.Quiet && (!strings.HasPrefix(out, "2022-02-21T16:39:40.001Z MEDIUM ") || !strings.HasSuffix(out, "nothing lost\n")) {
				t.Errorf("standard output: %q", out)
			}
		})
	}
}
