package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/sandbox"
)

// TestPolicy holds what a confined sensor may still do with a configuration.
func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", filepath.Join(dir, "missing"))
	address := filepath.Join(dir, "address")
	if err := os.WriteFile(address, []byte("https://hooks.example.net/secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		want sandbox.Policy
	}{
		{"interface: [lo]", sandbox.Policy{}},
		{"rules: [/r]\nkeys: [/k]\nroots: [/c]\njson: /var/log/o/x.json", sandbox.Policy{Read: []string{"/c", "/k", "/r", "/var/log/o/x.json"}, Write: []string{"/var/log/o/x.json"}}},
		{"es: [\"https://es.example.net:9200\", \"http://192.0.2.1\"]\nes_api_key_file: /e", sandbox.Policy{Read: []string{"/e"}, Write: []string{"/spool"}, Ports: []uint16{80, 9200}, Resolve: true}},
		{"output: {a: {type: splunk, url: \"https://192.0.2.1:8088\", token_file: /t}}", sandbox.Policy{Read: []string{"/t"}, Write: []string{"/spool"}, Ports: []uint16{8088}}},
		{"output: {a: {type: webhook, url_file: " + address + ", header_files: {X: /h}, template_file: /m}}",
			sandbox.Policy{Read: []string{"/h", "/m", address}, Write: []string{"/spool"}, Ports: []uint16{443}, Resolve: true}},
		{"output: {a: {type: syslog, url: \"tls://192.0.2.1\", ca_file: /a}, b: {type: syslog, url: \"udp://192.0.2.1\"}, c: {type: syslog, url: \"unix:///dev/log\"}}",
			sandbox.Policy{Read: []string{"/a"}, Write: []string{"/spool"}, Ports: []uint16{6514}, UDP: true, Unix: true}},
		{"output: {a: {type: kafka, brokers: [\"192.0.2.1:9092\"]}, b: {type: file, path: /l/a.json}}", sandbox.Policy{Write: []string{"/l/a.json", "/spool"}, AnyPort: true, Resolve: true}},
		{"inventory: /i/inventory.db", sandbox.Policy{Write: []string{"/i"}}},
		{"inventory: none", sandbox.Policy{}},
	} {
		file := filepath.Join(dir, "oddcert.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		config := &config{file: file}
		if err := config.readFile(); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if err := config.check(); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		spool := ""
		if len(config.Outputs) > 0 || config.Elasticsearch.Given() {
			spool = "/spool"
		}
		got := config.policy(spool, config.inventoryFile(true))
		slices.Sort(got.Read)
		slices.Sort(got.Write)
		slices.Sort(c.want.Read)
		if !slices.Equal(got.Read, c.want.Read) || !slices.Equal(got.Write, c.want.Write) || !slices.Equal(got.Ports, c.want.Ports) ||
			got.AnyPort != c.want.AnyPort || got.Resolve != c.want.Resolve || got.UDP != c.want.UDP || got.Unix != c.want.Unix || got.KeepBPF {
			t.Errorf("%s:\n%+v, want\n%+v", c.text, got, c.want)
		}
	}
}
