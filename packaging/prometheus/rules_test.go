// Package prometheus tests the alert rules of this folder with Prometheus' own tool.
package prometheus

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	rulesFile = "oddcert.rules.yml"
	testsFile = "oddcert.rules.test.yml"
)

// promtool runs promtool in a folder.
func promtool(t *testing.T, dir string, args ...string) (output string, err error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRules(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", rulesFile},
		{"test", "rules", testsFile},
	} {
		if out, err := promtool(t, ".", args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestRulesAreTested takes away each rule in turn, and turns it into one that always
// fires: the tests of the rules have to notice both.
func TestRulesAreTested(t *testing.T) {
	if testing.Short() {
		t.Skip("runs promtool some forty times")
	}
	rules, tests := read(t, rulesFile), read(t, testsFile)
	head, rest, ok := strings.Cut(rules, "      - alert: ")
	if !ok {
		t.Fatal("no rules")
	}
	list := strings.Split(rest, "      - alert: ")
	for i, rule := range list {
		name, _, _ := strings.Cut(rule, "\n")
		without := append(append([]string{}, list[:i]...), list[i+1:]...)
		always := append([]string{}, list...)
		always[i] = name + "\n        expr: vector(1)\n"
		for what, changed := range map[string][]string{"without": without, "always with": always} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, rulesFile), head+"      - alert: "+strings.Join(changed, "      - alert: "))
			write(t, filepath.Join(dir, testsFile), tests)
			if i == 0 { // the others are changed in the same way
				if out, err := promtool(t, dir, "check", "rules", rulesFile); err != nil {
					t.Fatalf("%s %s: %s", what, name, out)
				}
			}
			if _, err := promtool(t, dir, "test", "rules", testsFile); err == nil {
				t.Errorf("%s %s, the tests of the rules pass", what, name)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
