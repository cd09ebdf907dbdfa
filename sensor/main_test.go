package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){
		"oddcert": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// tests runs the tests of the package, and stops what they share.
type tests struct{ m *testing.M }

func (t tests) Run() int { return estest.Main(t.m) }
