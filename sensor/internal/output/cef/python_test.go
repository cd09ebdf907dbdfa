package cef

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runPython runs a program that has the given packages, with in as its standard input
// in JSON, and decodes its standard output into out. pip installs them once, into a
// virtual environment in the user's cache. Where Python, pip or the network is missing
// the test is skipped.
func runPython(t *testing.T, packages []string, program string, in, out any) {
	t.Helper()
	if testing.Short() {
		t.Skip("Python takes seconds")
	}
	python, err := installPython(packages)
	if err != nil {
		fmt.Fprintf(os.Stderr, "SKIP-CEF-PARSERS: %s: %v\n", t.Name(), err) // standard error shows without -v too
		t.Skipf("SKIP-CEF-PARSERS: %v", err)
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
		t.Fatalf("run the parsers: %v", err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("read what the parsers say: %v", err)
	}
}

func installPython(packages []string) (python string, err error) {
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
