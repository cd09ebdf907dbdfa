//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// At a mirror port, with a key log that the clients write while they shake hands,
// the certificates of TLS 1.3 are found, and the look-alike is flagged; without
// the keys of a client its handshake is encrypted, a while later.
func TestLiveKeys(t *testing.T) {
	b := newBench(t)
	program := drilled(t)
	dir := t.TempDir()
	lines, log := filepath.Join(dir, "records.json"), filepath.Join(b.dir, "keys.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live := b.listen(t, program, "--json", lines, "--keys", log)

	var want []handshake
	for _, e := range exchanges {
		var client string
		switch e.name {
		case "tls13":
			client = e.clients[0] + " -keylogfile keys.log"
			e.want = []handshake{{Version: "1.3", SNI: "www.update.microsoft.com", Certificates: "extracted", Chain: []string{"lookalike"}, Alerts: []string{ruleSignatureLength}}}
		case "tls13-retry":
			client = e.clients[0] + " -keylogfile keys.log"
			e.want = []handshake{{Version: "1.3", Certificates: "extracted", Chain: []string{"rsa"}, ClientChain: []string{"client"}}}
		case "tls13-gnutls":
			client = "env SSLKEYLOGFILE=keys.log " + e.clients[0]
			e.want = []handshake{{Version: "1.3", SNI: "gnutls.example", Certificates: "extracted", Chain: []string{"rsa"}}}
		case "tls13-go": // of which nobody has the keys
		default:
			continue
		}
		if client != "" {
			e.clients = []string{client}
		}
		b.run(t, &e)
		want = append(want, b.expected(&e)...)
	}
	found := func() []handshake {
		text, _ := os.ReadFile(lines)
		if n := bytes.LastIndexByte(text, '\n'); n >= 0 {
			return handshakes(records(t, text[:n+1]))
		}
		return nil
	}
	waitFor(t, "the handshakes that have keys", func() bool { return len(found()) >= len(want)-1 })
	live.end(t)
	byServer := func(a, b handshake) int { return strings.Compare(a.Server, b.Server) }
	got := found()
	slices.SortStableFunc(want, byServer)
	slices.SortStableFunc(got, byServer)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if out := live.stdout.String() + live.stderr.String(); !strings.Contains(out, "3  handshakes decrypted") || !strings.Contains(out, "nothing lost") {
		t.Errorf("the summary:\n%s", out)
	}
}
