package main

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// TestInventoryLive has a confined sensor keep an inventory, which others read meanwhile. A
// second run knows what the first has seen.
func TestInventoryLive(t *testing.T) {
	b := newBench(t)
	program := drilled(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "state", "inventory.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	server := issueCertificate(t, issued{names: []string{"www.example.net"}})
	meet := func() {
		t.Helper()
		address := net.JoinHostPort(b.ServerIP, "443")
		front := b.Server.Listen(t, address)
		defer front.Close()
		go func() {
			if conn, err := front.Accept(); err == nil {
				answer(conn, server.serves(tls.VersionTLS12))
			}
		}()
		conn := b.Client.Dial(t, address)
		defer conn.Close()
		if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "www.example.net"}).Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	handshakes := func() (n uint64) {
		s, err := inventory.OpenForReading(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for c, err := range s.Certificates() {
			if err != nil || c.CommonName != "" && !strings.Contains(c.CommonName, "example.net") {
				t.Fatal(c, err)
			}
			n += c.Handshakes
		}
		return n
	}
	for run := range uint64(2) {
		file := filepath.Join(dir, "records.json")
		live := b.listen(t, program, "--json", file, "--records", "sighting", "--inventory", path)
		meet()
		waitFor(t, "the inventory to have the handshake", func() bool { return handshakes() == run+1 })
		live.end(t)
		if got := handshakes(); got != run+1 {
			t.Errorf("%d handshakes after run %d", got, run)
		}
		text, err := os.ReadFile(file)
		if err != nil || strings.Count(string(text), "\n") != 1 {
			t.Errorf("after run %d these are the sightings: %s, %v", run, text, err)
		}
	}
	s, err := inventory.OpenForReading(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	runs := 0
	for r, err := range s.Runs() {
		if err != nil || r.Ended == 0 || len(r.Sources) == 0 || r.Sources[0].Interface == "" || len(r.Stats) == 0 {
			t.Errorf("%+v, %v", r, err)
		}
		runs++
	}
	if runs != 2 {
		t.Errorf("%d runs", runs)
	}
}
