// Package pythontest runs programs in Python for tests: they hold oddcert against
// libraries that only Python has.
//
// pip installs the libraries once, into a virtual environment where tests keep what they
// have fetched. It is outside of internal, since the tests of rules use it too.
package pythontest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/testcache"
)

// installTimeout bounds an installation, as pip waits long for a network that is missing.
const installTimeout = 5 * time.Minute

// Run runs a program that has the given packages, each as NAME==VERSION. in is its
// standard input in JSON; its standard output is decoded into out. Where Python, pip or
// the network is missing the test is skipped, with a line on standard error that begins
// with the given mark.
func Run(t testing.TB, mark string, packages []string, program string, in, out any) {
	t.Helper()
	if testing.Short() {
		t.Skip("Python takes seconds")
	}
	python, err := install(packages)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s: %v\n", mark, t.Name(), err) // standard error shows without -v too
		t.Skipf("%s: %v", mark, err)
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
		t.Fatalf("run Python: %v", err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("read what Python says: %v", err)
	}
}

// environment is what became of an installation. Each is tried once in a process, since
// one that fails takes long.
type environment struct {
	once   sync.Once
	python string
	err    error
}

var environments sync.Map // of *environment, by name

// install returns the Python of an environment with the given packages.
func install(packages []string) (python string, err error) {
	name := strings.ReplaceAll(strings.Join(packages, "+"), "==", "-")
	found, _ := environments.LoadOrStore(name, new(environment))
	e := found.(*environment)
	e.once.Do(func() { e.python, e.err = installed(name, packages) })
	return e.python, e.err
}

// installed makes the environment if no other run has. Test binaries that run at the
// same time wait for one another.
func installed(name string, packages []string) (python string, err error) {
	cache, unlock, err := testcache.Open("lock-python")
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(cache, name)
	python = filepath.Join(dir, "bin", "python3")
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return python, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "python3", "-m", "venv", "--clear", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("python3 -m venv: %w: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, python, append([]string{"-m", "pip", "install", "-q", "--no-input"}, packages...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip install: %w: %s", err, out)
	}
	return python, os.WriteFile(done, nil, 0o600)
}
