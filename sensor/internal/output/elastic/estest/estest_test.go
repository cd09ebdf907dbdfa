package estest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestServer starts a server, which says who it is, and shares it. The other products
// are started, and asked the same, by the tests that use them.
func TestServer(t *testing.T) {
	s := SharedOf(t, Elasticsearch8)
	if err := s.identify(); err != nil {
		t.Error(err)
	}
	if again := SharedOf(t, Elasticsearch8); again != s {
		t.Errorf("the shared server is another one: %s, %s", again.URL, s.URL)
	}
	if again := Shared(t); again != s {
		t.Errorf("the one that is shared without a choice is another one: %s, %s", again.URL, s.URL)
	}
}

// TestIdentify holds that a server of another version than the one asked for is found out.
func TestIdentify(t *testing.T) {
	for text, want := range map[string]string{
		`{"nodes":{"a":{"version":"1.2.3"}}}`:                         "",
		`{"nodes":{"a":{"version":"1.2.4"}}}`:                         `version "1.2.4", not "1.2.3"`,
		`{"nodes":{"a":{"version":"1.2.3"},"b":{"version":"1.2.3"}}}`: "names its nodes",
		`{}`: "names its nodes",
		`no`: "names its nodes",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
		s := &Server{URL: server.URL, Product: Product{Name: elasticsearch, Version: "1.2.3"}, client: server.Client()}
		if err := s.identify(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		server.Close()
	}
}
