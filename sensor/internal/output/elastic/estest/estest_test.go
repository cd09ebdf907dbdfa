package estest

import (
	"net/http"
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServer(t *testing.T) {
	s := Shared(t)
	var health struct{ Status string }
	s.Do(t, http.MethodGet, "/_cluster/health", "", &health)
	if health.Status != "green" && health.Status != "yellow" {
		t.Errorf("status %q", health.Status)
	}
	if again := Shared(t); again != s {
		t.Errorf("the shared server is another one: %s, %s", again.URL, s.URL)
	}
}
