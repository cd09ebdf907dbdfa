package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// The command on a corpus of two captures, of which one ends within a packet:
// oddcert finds all, and nobody finds what is not there.
func TestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs and runs them")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build oddcert with")
	}
	whole, truth := sample(t)
	capture, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "captures"), 0o777); err != nil {
		t.Fatal(err)
	}
	distinct := func(chain func(*traffic.Connection) []traffic.Shown) (list []map[string]any) {
		seen := make(map[string]bool)
		for i := range truth.Connections {
			for _, e := range chain(&truth.Connections[i]) {
				if sum := strings.ToLower(truth.Certificates[e.Certificate].SHA256); e.Visible && !seen[sum] {
					seen[sum] = true
					list = append(list, map[string]any{"sha256": sum})
				}
			}
		}
		return list
	}
	list := distinct(func(c *traffic.Connection) []traffic.Shown { return c.Chain })
	clients := distinct(func(c *traffic.Connection) []traffic.Shown { return c.ClientChain })
	list = append(list, map[string]any{"sha256": strings.Repeat("ab", 32), "exotic": "why"})
	expected, err := json.Marshal(map[string]any{
		"whole.pcap": map[string]any{"server": list, "client": clients},
		"cut.pcap":   map[string]any{"server": list, "client": clients},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"expected.json": expected, "captures/whole.pcap": capture, "captures/cut.pcap": capture[:len(capture)-5]} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"-corpus", dir, "-dir", t.TempDir()}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	tables := parse(t, stdout.String())
	if len(tables) == 0 || len(tables[0]) < 2 {
		t.Fatalf("no table in %s", stdout.String())
	}
	all := func(n int) string { return fmt.Sprintf("%d of %d (100 %%)", n, n) }
	for _, row := range tables[0][1:] {
		if row[3] != "0" || row[0] == "oddcert" && (row[4] != "1" || row[1] != all(2*(len(list)-1)) || row[2] != all(2*len(clients))) {
			t.Errorf("%q", row)
		}
	}
}

// Each program's output is read as what it is.
func TestCorpusReaders(t *testing.T) {
	pair, err := os.ReadFile("../../sensor/testdata/captures/tls12-client-certificate/want.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Handshakes []struct {
			Chain       []string `json:"chain"`
			ClientChain []string `json:"client_chain"`
		} `json:"handshakes"`
	}
	if err := json.Unmarshal(pair, &want); err != nil || len(want.Handshakes) != 1 {
		t.Fatalf("%v in %s", err, pair)
	}
	server, client := strings.ToLower(want.Handshakes[0].Chain[0]), strings.ToLower(want.Handshakes[0].ClientChain[0])
	b := &bench{peers: map[string]string{}, out: t.TempDir()}
	for _, name := range []string{"tshark", "suricata"} {
		if path, err := exec.LookPath(name); err == nil {
			b.peers[name] = path
		} else {
			t.Logf("without %s, which is not installed", name)
		}
	}
	readers, err := b.readers()
	if err != nil {
		t.Skip(err)
	}
	for _, r := range readers[1:] {
		args := r.args("../../sensor/testdata/captures/tls12-client-certificate/capture.pcap")
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.certificates(out)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(got.Server, shown{sha256: server}) || !slices.Contains(got.Client, shown{sha256: client}) {
			t.Errorf("%s: %+v", r.name, got)
		}
	}
	got, err := recordCertificates([]byte(`{"oddcert":{"carrier":"rdp","tunnel":["gre"],"chain":[{"hash":{"sha256":"AB"}},{"truncated":true}],"client_chain":[{"hash":{"sha256":"CD"}}]}}` + "\n"))
	if err != nil || !slices.Equal(got.Server, []shown{{"ab", "gre, rdp"}}) || !slices.Equal(got.Client, []shown{{"cd", "gre, rdp"}}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What is counted: once, for the side that it is of; what nobody knows is wrong.
func TestCorpusJudge(t *testing.T) {
	var s score
	want := sides[expectedCertificate]{
		Server: []expectedCertificate{{SHA256: "a"}, {SHA256: "b"}, {SHA256: "k", Keys: true}},
		Client: []expectedCertificate{{SHA256: "c"}, {SHA256: "a"}},
	}
	got := sides[shown]{Server: []shown{{"a", "x"}, {"a", "y"}, {"c", "x"}, {"k", "x"}, {"w", "x"}}, Client: []shown{{"w", "x"}, {"a", "x"}}}
	carriers := map[finding]string{}
	s.judge("p", want, got, carriers)
	if !slices.Equal(s.found.Server, []finding{{"p", "a"}}) || !slices.Equal(s.found.Client, []finding{{"p", "a"}}) ||
		s.expectedServer != 2 || s.expectedClient != 2 || s.wrong != 1 || carriers[finding{"p", "a"}] != "x" {
		t.Errorf("%+v, %v", s, carriers)
	}
	other := score{name: "other"}
	head, rows := missed([]*score{&s, &other}, carriers)
	if len(head) != 3 || len(rows) != 1 || strings.Join(rows[0], " ") != "x 2 0" {
		t.Errorf("%q, %q", head, rows)
	}
}
