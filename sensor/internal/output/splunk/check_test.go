package splunk

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// TestCheck asks a collector for its health, and with acknowledgement whether the token
// has that. It answers as Splunk's documents say.
func TestCheck(t *testing.T) {
	health, ack := 200, 200
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /services/collector/health":
			w.WriteHeader(health)
			fmt.Fprint(w, `{"text":"HEC is healthy","code":17}`)
		case "POST /services/collector/ack":
			switch {
			case r.Header.Get("Authorization") != "Splunk right":
				answer(w, 403, 4, "Invalid token", "")
			case ack != 200:
				answer(w, ack, codeAckDisabled, "ACK is disabled", "")
			default:
				fmt.Fprint(w, `{"acks":{"0":false}}`)
			}
		default:
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
	}))
	defer s.Close()
	check := func(what, token, ack, want string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := New(Config{URL: s.URL, TokenFile: file, Ack: ack}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = d.Check(t.Context(), output.Records)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("all is well", "right", "", "")
	check("a wrong token", "wrong", "", "Invalid token")
	ack = 400
	check("a token without acknowledgement", "right", "", "no indexer acknowledgement")
	check("a token without acknowledgement, which nobody wants", "right", "false", "")
	health = 503
	check("a collector whose queues are full", "right", "false", "status 503")
}
