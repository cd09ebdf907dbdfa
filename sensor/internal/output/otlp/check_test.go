package otlp

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestCheck sends a request without a log record, whatever is answered.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		status     int
		text, want string
	}{
		{200, `{"partialSuccess":{}}`, ""},
		{200, ``, ""},
		{200, `<html>`, "is not a receiver of OTLP"},
		{400, `{"message":"no logs here"}`, "no logs here"},
		{401, ``, "credentials are missing or wrong"},
		{404, ``, "status 404"},
		{500, ``, "status 500"},
	} {
		s, got := receiver(t, says(c.status, c.text))
		err := newTest(t, s.URL, slog.New(slog.DiscardHandler)).Check(t.Context(), output.Records)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("status %d with %q: %v, want %q", c.status, c.text, err, c.want)
		}
		if len(got.logs) > 0 {
			t.Errorf("status %d: %d log records were sent", c.status, len(got.logs))
		}
	}
}
