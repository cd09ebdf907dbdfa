package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
)

// The certificate of DIVD-2022-00013 in the one public capture of it, a single
// DTLS frame: the alert is on the terminal, in JSON, and in Elasticsearch.
func TestTheCase(t *testing.T) {
	path := filepath.Join(publicCorpus(t), "captures/ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng")
	const sha256 = "1073570F79136511BA45B44C923A55C69B97E91D3AAA2E06E5E657129CA809FF"

	var out, errs bytes.Buffer
	if status := run([]string{"replay", "--oneline=false", path}, &out, &errs); status != exitOK || errs.Len() > 0 {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	for _, want := range []string{"MEDIUM", sha256, "packet 1", "191.62.60.190:443", "DTLS 1.2", "disguise", "TouchVPN"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal does not show %q:\n%s", want, &out)
		}
	}

	out.Reset()
	if status := run([]string{"replay", "--json", "-", "--records", "alert", "--fail-on-alert", path}, &out, &errs); status != exitAlert {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	var alert struct {
		Timestamp string `json:"@timestamp"`
		Event     struct {
			ID       string `json:"id"`
			Severity int    `json:"severity"`
		} `json:"event"`
		TLS struct {
			Server struct {
				Hash struct{ SHA256, SHA1, MD5 string } `json:"hash"`
				X509 struct {
					Serial string `json:"serial_number"`
				} `json:"x509"`
			} `json:"server"`
		} `json:"tls"`
		Oddcert struct {
			Carrier string `json:"carrier"`
			Verdict string `json:"verdict"`
			PCAP    struct {
				Number int `json:"packet_number"`
			} `json:"pcap"`
		} `json:"oddcert"`
	}
	if err := json.Unmarshal(out.Bytes(), &alert); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	hash := alert.TLS.Server.Hash
	if hash.SHA256 != sha256 || hash.SHA1 != "D1880F51C1019172A1A46E69F4337FFE3EC4F039" || hash.MD5 != "1D33D4E6057C2D739072EF9B89169EE7" ||
		alert.TLS.Server.X509.Serial != "330000001CB679B5BA072F73F300000000001C" || alert.Oddcert.PCAP.Number != 1 ||
		alert.Oddcert.Carrier != "dtls" || alert.Oddcert.Verdict != "disguise" || alert.Event.Severity != 47 ||
		!strings.HasPrefix(alert.Timestamp, "2022-02-21T16:39:40.") {
		t.Errorf("%s", &out)
	}

	server := estest.Shared(t)
	namespace := estest.Namespace(t)
	es := []string{"--es", server.URL, "--es-namespace", namespace}
	if status := run(append([]string{"es", "setup", "--portable"}, es...), &out, &errs); status != exitOK {
		t.Fatalf("es setup: exit status %d: %s", status, &errs)
	}
	if status := run(append([]string{"replay", "--spool", t.TempDir(), path}, es...), &out, &errs); status != exitOK {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	found := server.Search(t, "logs-oddcert.alert-"+namespace)
	if len(found) != 1 || !strings.Contains(string(found[alert.Event.ID]), sha256) {
		t.Errorf("in Elasticsearch: %d alerts, %s", len(found), found[alert.Event.ID])
	}
	// Once more: the same event has the same id, and is there once.
	if status := run(append([]string{"replay", "--spool", t.TempDir(), path}, es...), &out, &errs); status != exitOK {
		t.Fatalf("exit status %d: %s", status, &errs)
	}
	if found := server.Search(t, "logs-oddcert.alert-"+namespace); len(found) != 1 {
		t.Errorf("read twice: %d alerts", len(found))
	}
}
