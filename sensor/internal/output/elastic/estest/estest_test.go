package estest

import (
	"net/http"
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestServer starts each product, and asks it who it is.
func TestServer(t *testing.T) {
	for _, p := range Products {
		t.Run(p.String(), func(t *testing.T) {
			if testing.Short() && p != Elasticsearch8 {
				t.Skip("starts a server of its own")
			}
			s := SharedOf(t, p)
			var nodes struct {
				Nodes map[string]struct{ Version string }
			}
			s.Do(t, http.MethodGet, "/_nodes/_local?filter_path=nodes.*.version", "", &nodes)
			for _, n := range nodes.Nodes {
				if n.Version != p.Version {
					t.Errorf("version %q, not %q", n.Version, p.Version)
				}
			}
			if len(nodes.Nodes) != 1 {
				t.Errorf("%d nodes", len(nodes.Nodes))
			}
			if again := SharedOf(t, p); again != s {
				t.Errorf("the shared server is another one: %s, %s", again.URL, s.URL)
			}
		})
	}
}
