package elastic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// TestCheckStandIn asks a stand-in that lets one password in, for its rights and its
// templates.
func TestCheckStandIn(t *testing.T) {
	const right = "Basic c2Vuc29yOnJpZ2h0" // sensor:right
	lacking, templates, insecure := "", true, false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != right:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"type":"security_exception","reason":"unable to authenticate user"}}`)
		case r.URL.Path == "/_security/user/_has_privileges" && insecure:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"type":"illegal_argument_exception","reason":"no handler found"}}`)
		case r.URL.Path == "/_security/user/_has_privileges":
			var asked struct {
				Index []struct{ Names, Privileges []string }
			}
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Index) != 1 || len(asked.Index[0].Privileges) != 2 {
				t.Errorf("asked for %+v: %v", asked, err)
			}
			has := map[string]map[string]bool{}
			for _, name := range asked.Index[0].Names {
				has[name] = map[string]bool{}
				for _, p := range asked.Index[0].Privileges {
					has[name][p] = name+" "+p != lacking
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"index": has})
		case strings.HasPrefix(r.URL.Path, "/_index_template/"):
			var names []map[string]string
			for d := range schema.Datasets {
				if templates {
					names = append(names, map[string]string{"name": templateOf(d)})
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"index_templates": names})
		default:
			fmt.Fprint(w, `{"version":{"number":"9.0.0"}}`)
		}
	}))
	defer s.Close()
	check := func(password string) error {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newTest(t, Config{Addresses: []string{s.URL}, Username: "sensor", PasswordFile: path}, nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return d.Check(ctx, output.Set(0).Add(output.Alert).Add(output.Stats))
	}
	want := func(what string, err error, part string) {
		t.Helper()
		if (err == nil) != (part == "") || err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", what, err, part)
		}
	}
	want("all is well", check("right"), "")
	want("a wrong password", check("wrong"), "status 401")
	lacking = "metrics-oddcert.stats-default create_doc"
	want("a right is missing", check("right"), "lack the privileges create_doc on metrics-oddcert.stats-default")
	lacking = "logs-oddcert.handshake-default create_doc"
	want("a right that these records do not need is missing", check("right"), "")
	templates = false
	want("no templates", check("right"), "run oddcert es setup")
	templates, insecure = true, true
	want("without security", check("right"), "")
	s.Close()
	want("nobody listens", check("right"), "refused")
}

// checkSecurity asks a real server with users of different rights; config is that of a
// user.
func checkSecurity(t *testing.T, config func(user, password string) Config) {
	alert, handshake := output.Set(0).Add(output.Alert), output.Set(0).Add(output.Handshake)
	for _, c := range []struct {
		user, password string
		datasets       output.Set
		want           string
	}{
		{"shipper", "shipper-password", output.Records, ""},
		{"alertless", "alertless-password", handshake, ""},
		{"alertless", "alertless-password", alert, "lack the privileges auto_configure on logs-oddcert.alert-default, create_doc on logs-oddcert.alert-default"},
		{"shipper", "guess", alert, "status 401"},
	} {
		err := newTest(t, config(c.user, c.password), nil).Check(t.Context(), c.datasets)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, want %q", c.user, c.password, err, c.want)
		}
	}
}
