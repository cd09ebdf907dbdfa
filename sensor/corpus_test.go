package main

import (
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unlisted are certificates that others missed: two lie whole in a segment behind
// a gap, at the end of the server's Certificate message; three in DTLS 1.3, whose
// secrets the capture has.
var unlisted = map[side]string{
	{"4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161", "server"}: "DigiCert Global Root CA, in tls2.pcap",
	{"f1c1b50ae5a20dd8030ec9f6bc24823dd367b5255759b4e71b61fce9f7375d73", "server"}: "SecureTrust CA, in tls2.pcap",
	{"0d9921cf546ec33f069c0fa40db049b340d9068b0437547341f2651f62fbbf3d", "server"}: "www.wolfssl.com, in dtls.pcap",
	{"ad8f3c36e1d52252d2434940fd4add7db79159f61ef61a7a95fead66aada1f67", "server"}: "its authority",
	{"72219fdd91e5ddbbbc6dcadacea538ccc0353aa62eb6a0e05a9549be92fff58f", "client"}: "of wolfSSL's client, in dtls.pcap",
}

// visible is a certificate that somebody else saw in a capture.
type visible struct {
	SHA256  string          `json:"sha256"`
	Partial bool            `json:"partial_message"` // the capture cuts its message
	Exotic  json.RawMessage `json:"exotic"`
}

// side is a certificate with the side that showed it.
type side struct{ sha256, side string }

// corpusDir is where public captures may be.
func corpusDir() string { return cmp.Or(os.Getenv("ODDCERT_CORPUS"), "../../shared/corpus") }

// publicCorpus is the folder of public captures with expected.json. It skips
// the test where there is none.
func publicCorpus(t testing.TB) string {
	t.Helper()
	dir := corpusDir()
	if _, err := os.Stat(filepath.Join(dir, "expected.json")); err != nil {
		t.Skipf("no public captures here: %v (ODDCERT_CORPUS names their folder)", err)
	}
	return dir
}

// seen are the certificates in records.
func seen(records []record) map[side]bool {
	all := map[side]bool{}
	for _, r := range records {
		if r.Event.Dataset != "oddcert.handshake" {
			continue
		}
		for _, h := range r.Oddcert.Chain {
			all[side{strings.ToLower(h), "server"}] = true
		}
		for _, h := range r.Oddcert.ClientChain {
			all[side{strings.ToLower(h), "client"}] = true
		}
	}
	return all
}

// The certificates in public captures, as tshark, Suricata, Zeek and others
// found them, also with the secrets that some of the captures hold: none is
// wrong, and none is missing.
func TestCorpus(t *testing.T) {
	dir := publicCorpus(t)
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var expected map[string]struct{ Server, Client []visible }
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	found, total := 0, 0
	for _, name := range slices.Sorted(maps.Keys(expected)) {
		path := filepath.Join(dir, "captures", name)
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		must, may := map[side]bool{}, map[side]bool{}
		for which, list := range map[string][]visible{"server": expected[name].Server, "client": expected[name].Client} {
			for _, c := range list {
				if c.Partial || flagged(c.Exotic) {
					may[side{c.SHA256, which}] = true
				} else {
					must[side{c.SHA256, which}] = true
				}
			}
		}
		records, status := replayed(t, "--records", "handshake", path)
		if status != exitOK && status != exitInput {
			t.Errorf("%s: exit status %d", name, status)
		}
		got := seen(records)
		missing := 0
		for c := range must {
			if !got[c] {
				missing++
				t.Errorf("%s: not found: %s of the %s", name, c.sha256, c.side)
			}
		}
		for c := range got {
			if !must[c] && !may[c] && unlisted[c] == "" {
				t.Errorf("%s: wrong: %s of the %s", name, c.sha256, c.side)
			}
		}
		found += len(must) - missing
		total += len(must)
	}
	t.Logf("%d of %d certificates in %d captures", found, total, len(expected))
}

// flagged reports whether a mark is set, whatever its type.
func flagged(mark json.RawMessage) bool {
	switch string(mark) {
	case "", "null", "false", `""`:
		return false
	}
	return true
}
