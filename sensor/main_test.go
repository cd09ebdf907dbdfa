package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

func TestMain(m *testing.M) {
	// Variables that control tests are no concern of the program.
	foreign = regexp.MustCompile(foreign.String() + `|^ODDCERT_(CORPUS|CASES|ATTACKS|REQUIRE_ELASTICSEARCH|REQUIRE_KAFKA|DRILL_\w+)$`)
	testscript.Main(tests{m}, map[string]func(){
		"oddcert": func() {
			defaultConfig = os.Getenv("TEST_DEFAULT_CONFIG")
			os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// tests runs the tests of the package, and stops what they share.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	remove, err := ownState()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	defer func() {
		if shared.dir != "" {
			os.RemoveAll(shared.dir)
		}
	}()
	return estest.Main(t.m)
}

// stateEnv tells a test that runs itself again that it has a place for state already.
const stateEnv = "ODDCERT_DRILL_STATE"

// ownState gives the commands that tests run a place for what survives a run, other than
// that of the machine: a sensor may be in use here. Nothing is there until one of them
// makes it.
func ownState() (remove func(), err error) {
	const env = "STATE_DIRECTORY"
	if dir := os.Getenv(stateEnv); dir != "" {
		return func() {}, os.Setenv(env, dir)
	}
	dir, err := os.MkdirTemp("", "oddcert-state")
	if err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "state")
	return func() { os.RemoveAll(dir) }, errors.Join(os.Setenv(env, state), os.Setenv(stateEnv, state))
}

// shared is the program as it is shipped, one for all tests.
var shared struct {
	once sync.Once
	dir  string
	err  error
}

// drilledEnv names the program to a test that runs itself again.
const drilledEnv = "ODDCERT_DRILL_PROGRAM"

// drilled returns the path of the program as it is shipped.
func drilled(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(drilledEnv); path != "" {
		return path
	}
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "oddcert-drill"); shared.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(shared.dir, "oddcert"), ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			shared.err = fmt.Errorf("build: %w: %s", err, out)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return filepath.Join(shared.dir, "oddcert")
}
