package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPageOptions checks configurations of the page: it is refused where other machines
// could read it, before anything is opened.
func TestPageOptions(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("9f86d081884c7d659a2feaa0c55ad015\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		"metrics: 127.0.0.1:9847\npage: true":                               "",
		"metrics: localhost:9847\npage: true":                               "",
		"metrics: '[::1]:9847'\npage: true":                                 "",
		"metrics: unix:/run/oddcert/metrics\npage: true":                    "",
		"metrics: 127.0.0.1:9847\npage: true\nmetrics_token_file: " + token: "",
		"metrics: 0.0.0.0:9847":                                             "",
		"metrics: 0.0.0.0:9847\npage: true":                                 "other machines can reach 0.0.0.0:9847, so it needs --metrics-token-file, --metrics-certificate-file and --metrics-key-file",
		"metrics: span-1.example.net:9847\npage: true":                      "other machines can reach",
		"metrics: 192.0.2.1:9847\npage: true\nmetrics_token_file: " + token: "other machines can reach",
		"page: true":                   "name its address with --metrics",
		"metrics_token_file: " + token: "name its address with --metrics",
		"metrics: 127.0.0.1:9847\nmetrics_key_file: " + token:                        "a certificate and its key belong together",
		"metrics: 127.0.0.1:9847\nmetrics_token_file: " + short:                      "24 to 512 characters",
		"metrics: 127.0.0.1:9847\nmetrics_token_file: " + filepath.Join(dir, "none"): "no such file",
	} {
		path := filepath.Join(dir, "oddcert.yaml")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := rootCommand()
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs([]string{"config", "check", path})
		err := cmd.Execute()
		said := out.String()
		if err != nil {
			said += err.Error()
		}
		if (err == nil) != (says == "") || !strings.Contains(said, says) {
			t.Errorf("%q: %v, %s", text, err, said)
		}
	}
}
