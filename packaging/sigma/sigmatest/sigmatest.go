// Package sigmatest runs pySigma, the reference implementation of Sigma, for
// tests.
//
// pip installs it once, into a virtual environment in the user's cache. Where
// Python, pip or the network is missing the test is skipped, with a line that
// begins with SKIP-PYSIGMA.
package sigmatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Reader are the packages that read rules.
var Reader = []string{"pysigma==2.0.1"}

// Converter are the packages that convert rules to queries of Elasticsearch.
// Their pySigma is older, as the backend has it so.
var Converter = []string{"pysigma==1.5.1", "pysigma-backend-elasticsearch==2.1.1"}

// Run runs a Python program that has the given packages. in is its standard
// input in JSON; its standard output is decoded into out.
func Run(t testing.TB, packages []string, program string, in, out any) {
	t.Helper()
	if testing.Short() {
		t.Skip("pySigma takes seconds")
	}
	python, err := install(packages)
	if err != nil {
		fmt.Fprintf(os.Stderr, "SKIP-PYSIGMA: %s: %v\n", t.Name(), err) // standard error shows without -v too
		t.Skipf("SKIP-PYSIGMA: %v", err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", program)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(text)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("run pySigma: %v", err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("read what pySigma says: %v", err)
	}
}

var installing sync.Mutex

// install returns the Python of an environment with the given packages.
func install(packages []string) (python string, err error) {
	installing.Lock()
	defer installing.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "oddcert-test", strings.ReplaceAll(strings.Join(packages, "+"), "==", "-"))
	python = filepath.Join(dir, "bin", "python3")
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return python, nil
	}
	if out, err := exec.Command("python3", "-m", "venv", "--clear", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("python3 -m venv: %w: %s", err, out)
	}
	if out, err := exec.Command(python, append([]string{"-m", "pip", "install", "-q", "--no-input"}, packages...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip install: %w: %s", err, out)
	}
	return python, os.WriteFile(done, nil, 0o600)
}
