package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/oddcert/oddcert/packaging/grafana"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

const rulesFile = "../../../packaging/prometheus/oddcert.rules.yml"

// alertRules are the alerts with their expressions.
func alertRules(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r.Expr
		}
	}
	return all
}

// queries are those of the dashboard, as they are when everything is chosen.
func queries() map[string]string {
	all := map[string]string{}
	for _, p := range grafana.New().Panels {
		for _, q := range p.Targets {
			all[p.Title+" "+q.RefID] = strings.NewReplacer("$sensor", ".+", "$interface", ".+", "$__rate_interval", "1m").Replace(q.Expr)
		}
	}
	return all
}

// comparison is what makes an alert of a number.
var comparison = regexp.MustCompile(` (==|>) [0-9.]+`)

var metricName = regexp.MustCompile(`\b(?:oddcert|process|go)_[a-z_]+`)

// TestQueriesNameMetrics looks whether each metric that the dashboard and the rules name
// is one of the monitor's.
func TestQueriesNameMetrics(t *testing.T) {
	r := start(t, linked, now)
	r.See(filled(r.wait(t, "delivery", delivered)))
	known := map[string]bool{}
	for name := range gather(t, r.Monitor) {
		known[name], known[name+"_bucket"] = true, true
	}
	count := 0
	for _, all := range []map[string]string{queries(), alertRules(t)} {
		for title, expr := range all {
			for _, name := range metricName.FindAllString(expr, -1) {
				if count++; !known[name] {
					t.Errorf("%s: there is no metric %s", title, name)
				}
			}
		}
	}
	if count < 40 {
		t.Errorf("only %d metrics were looked for", count)
	}
}

// server is a Prometheus that scrapes a monitor.
type server struct{ address string }

// scrape starts a Prometheus that scrapes address each second and evaluates the rules,
// until the test ends.
func scrape(t *testing.T, address string) *server {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: oddcert
    static_configs: [{targets: [%q]}]
`, rules, address)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+own, "--log.level=warn")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return &server{own}
}

// query asks, and returns how many series there are, without those that are NaN.
func (s *server) query(ctx context.Context, expr string) (series []string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	var answer struct {
		Error string `json:"error"`
		Data  struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(a.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	for _, one := range answer.Data.Result {
		if one.Value[1] != "NaN" {
			series = append(series, fmt.Sprint(one.Metric, " ", one.Value[1]))
		}
	}
	return series, nil
}

// until asks until there is something that is wanted.
func (s *server) until(t *testing.T, expr string, ok func(series []string) bool) []string {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		series, err := s.query(t.Context(), expr)
		if err == nil && ok(series) {
			return series
		}
		if time.Now().After(late) {
			t.Fatalf("%s: %v, %v", expr, series, err)
		}
	}
}

// TestPrometheus has a real Prometheus scrape a monitor that watches a pipeline. Each
// query of the dashboard has data. No alert fires; when the sensor's span
// falls silent and new rules are wrong, those alerts begin.
func TestPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("scrapes for half a minute")
	}
	silent := make(chan struct{})
	begin := make(chan struct{})
	r := start(t, func() []capture.Interface {
		all := linked()
		select {
		case <-silent:
			all[0].Last = time.Now().Add(-time.Hour)
		default:
		}
		return all
	}, begin)
	s := scrape(t, serve(t, r.Monitor))
	some := func(series []string) bool { return len(series) > 0 }
	none := func(series []string) bool { return len(series) == 0 }
	s.until(t, `oddcert_capture_frames_total == 0`, some)
	close(begin)
	// What this sensor never has: it reads captures in which every frame can be read.
	empty := map[string]bool{"Frames that cannot be read A": true}
	for title, expr := range queries() {
		want := some
		if empty[title] {
			want = none
		}
		t.Logf("%s: %d series", title, len(s.until(t, expr, want)))
	}
	for name, expr := range alertRules(t) {
		want := some
		if name == "OddcertAbsent" { // Prometheus knows this sensor
			want = none
		}
		s.until(t, comparison.ReplaceAllString(expr, ""), want)
	}
	s.until(t, `ALERTS{alertstate="firing"}`, none)
	r.Reloaded(0, 0, 0, errors.New("rules are wrong"))
	close(silent)
	s.until(t, `ALERTS`, func(series []string) bool {
		all := strings.Join(series, "\n")
		return strings.Contains(all, "OddcertReloadFailed") && strings.Contains(all, "OddcertSpanSilent")
	})
}
