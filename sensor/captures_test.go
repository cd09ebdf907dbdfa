package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// handshake is what the tests want of one handshake, and find in records. The
// hashes are upper-case hex.
type handshake struct {
	Protocol     string   `json:"protocol"` // tls or dtls
	Transport    string   `json:"transport"`
	Server       string   `json:"server"` // address and port
	Version      string   `json:"version"`
	SNI          string   `json:"sni,omitempty"`
	Certificates string   `json:"certificates"`           // what became of them
	Chain        []string `json:"chain,omitempty"`        // SHA-256 of the server's
	ClientChain  []string `json:"client_chain,omitempty"` // and of the client's
	Alerts       []string `json:"alerts,omitempty"`       // identifiers of the rules that match
}

// record is what the tests read of a line of JSON.
type record struct {
	Timestamp string `json:"@timestamp"`
	Event     struct {
		Dataset string `json:"dataset"`
		ID      string `json:"id"`
	} `json:"event"`
	Client  party `json:"source"`
	Server  party `json:"destination"`
	Network struct {
		Transport string `json:"transport"`
	} `json:"network"`
	Rule struct {
		ID string `json:"id"`
	} `json:"rule"`
	TLS struct {
		Version  string `json:"version"`
		Protocol string `json:"version_protocol"`
		Client   struct {
			ServerName string `json:"server_name"`
		} `json:"client"`
	} `json:"tls"`
	Oddcert struct {
		Carrier      string         `json:"carrier"`
		Certificates string         `json:"certificates"`
		Chain        traffic.Hashes `json:"chain"`
		ClientChain  traffic.Hashes `json:"client_chain"`
		Suppressed   struct {
			Count int `json:"count"` // of matches like an alert before
		} `json:"suppressed"`
	} `json:"oddcert"`
}

type party struct {
	IP   string `json:"ip"`
	Port int    `json:"port"`
	MAC  string `json:"mac"`
}

// records reads lines of JSON.
func records(t testing.TB, lines []byte) (all []record) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, r)
	}
	return all
}

// flow tells records of one connection from those of others.
func (r *record) flow() [3]string {
	return [3]string{r.Network.Transport, net.JoinHostPort(r.Client.IP, strconv.Itoa(r.Client.Port)), net.JoinHostPort(r.Server.IP, strconv.Itoa(r.Server.Port))}
}

// handshakes puts records together again: each handshake with its alerts.
func handshakes(records []record) (all []handshake) {
	alerts := map[[3]string][]string{}
	for _, r := range records {
		if r.Event.Dataset == "oddcert.alert" && r.Oddcert.Suppressed.Count == 0 {
			alerts[r.flow()] = append(alerts[r.flow()], r.Rule.ID)
		}
	}
	for _, r := range records {
		if r.Event.Dataset != "oddcert.handshake" {
			continue
		}
		all = append(all, handshake{
			Protocol: r.TLS.Protocol, Transport: r.Network.Transport, Server: r.flow()[2],
			Version: r.TLS.Version, SNI: r.TLS.Client.ServerName,
			Certificates: r.Oddcert.Certificates, Chain: r.Oddcert.Chain, ClientChain: r.Oddcert.ClientChain,
			Alerts: alerts[r.flow()],
		})
	}
	return all
}

// replayed runs the replay command and returns the records and the exit status.
func replayed(t testing.TB, args ...string) ([]record, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(append([]string{"replay", "--json", "-"}, args...), &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Logf("%s", bytes.TrimSpace(stderr.Bytes()))
	}
	return records(t, stdout.Bytes()), status
}

// capturesDir holds the captures of the project, a folder each.
const capturesDir = "testdata/captures"

// golden is the expectation beside a capture. The hashes are those that
// OpenSSL printed of the certificates when the capture was made.
type golden struct {
	Handshakes []handshake `json:"handshakes"`
}

// Each capture of the project gives exactly what was put into it.
func TestCaptures(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(capturesDir, "*", "want.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures in %s: %v", capturesDir, err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want golden
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "README.md")); err != nil {
				t.Error(err)
			}
			records, status := replayed(t, filepath.Join(dir, "capture.pcap"))
			if status != exitOK {
				t.Errorf("exit status %d", status)
			}
			if diff := cmp.Diff(want.Handshakes, handshakes(records), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}
