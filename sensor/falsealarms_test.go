package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// corpusAlerts are the alerts of the packs that are on by themselves, in all public
// captures: the rule, the capture, and why that is right, or not wrong, as seen in its
// packets.
var corpusAlerts = map[string]string{
	"disguise medium dtls_certificate.pcapng":             "the certificate of DIVD-2022-00013 itself",
	"listed low KakaoTalk_chat.pcap":                      "frame 46: the server, or somebody for it, answers a SYN for the second time, with another number",
	"listed low tls_multiple_synack_different_seq.pcapng": "made for that: two answers to a SYN with different numbers",
	"listed low ja3_lots_of_cipher_suites.pcap":           "frame 11: a RST 7 bytes behind what was captured of the client, as where an alert was lost",
	"listed low tls2.pcap":                                "most segments of the server are missing, and data is far from what came before",
	"listed low heuristic_tcp_ack_payload.pcap":           "2 and 6 bytes of padding count as payload, and other bytes follow in the same place",
}

// The packs that are on by themselves raise in public captures the alerts of the table
// above, and no more. The captures are of ordinary networks, of malware, of VPNs and
// of protocols in every state.
func TestFalseAlarms(t *testing.T) {
	dir := filepath.Join(publicCorpus(t), "captures")
	records, status := replayedObjects(t, "--records", "alert", dir)
	if status != exitOK && status != exitInput {
		t.Fatalf("exit status %d", status)
	}
	seen := map[string]int{}
	for _, r := range records {
		f := flat(r)
		seen[fmt.Sprintf("%s %s %s", f.one("oddcert.verdict"), level(f.one("event.severity")), f.one("log.file.path"))]++
	}
	for what, n := range seen {
		if corpusAlerts[what] == "" || n != 1 {
			t.Errorf("%d of %s", n, what)
		}
	}
	for what := range corpusAlerts {
		if seen[what] == 0 {
			t.Errorf("not there: %s", what)
		}
	}
}

// level is the word for a severity.
func level(severity string) string {
	return map[string]string{"21": "low", "47": "medium", "73": "high", "99": "critical"}[severity]
}

// What Microsoft's servers showed in 2016, at an address of theirs, is genuine; the
// same at other addresses, without a proof of the key, is one of two things. The
// addresses and the chain are those of public captures.
func TestGenuine(t *testing.T) {
	fe2 := certificateIn(t, "internal/judge/trust/testdata/fe2.update.microsoft.com-2016.pem")
	chain := [][]byte{fe2.Raw}
	for _, x := range updateAuthorities(t) {
		if slices.Equal(x.RawSubject, fe2.RawIssuer) {
			chain = append(chain, x.Raw)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "genuine.yml"), []byte(genuineOn(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{
		"191.232.80.58": "genuine", "23.103.189.126": "genuine", "134.170.58.189": "genuine",
		"8.8.8.8": "relayed-or-copied", "198.51.100.7": "relayed-or-copied", "192.168.1.1": "relayed-or-copied",
	} {
		for sends := 1; sends <= len(chain); sends++ { // without the intermediate, too: it is pinned
			p := newTape(t, in2016)
			p.flow(theClient, server, 443, presents(chain[:sends]))
			got, reasons := p.rules("--rules", dir)
			if strings.Join(got, " ") != want {
				t.Errorf("%s: got %q, want %q: %s", server, got, want, reasons)
			}
		}
	}
}
