package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestInventoryRemembers splits a capture at several places: two runs with an inventory say
// what one run says that reads all of it.
func TestInventoryRemembers(t *testing.T) {
	private := issueCertificate(t, issued{cn: "A Private Root"})
	forged := issueCertificate(t, issued{names: []string{updateServer}, issuer: private})
	other := issueCertificate(t, issued{names: []string{"www.example.net"}, issuer: private})
	type step func(p *tape)
	shown := func(client, server string, i *identity, version uint16, name string) step {
		return func(p *tape) {
			p.flow(client, server, 443, shakes(p.t, i.serves(version), name, false))
		}
	}
	var steps []step
	for i := range 5 {
		steps = append(steps, shown(fmt.Sprintf("192.0.2.%d", 10+i), fmt.Sprintf("198.51.100.%d", 10+i), forged, tls.VersionTLS12, updateServer))
	}
	steps = append(steps,
		shown("192.0.2.2", "198.51.100.10", forged, tls.VersionTLS13, "www.example.net"), // contact with a flagged server
		shown("192.0.2.9", "198.51.100.77", other, tls.VersionTLS12, "www.example.net"),
		shown("192.0.2.9", "198.51.100.77", forged, tls.VersionTLS12, "www.example.net"), // another leaf than before
		shown("192.0.2.9", "198.51.100.77", other, tls.VersionTLS12, "www.example.net"),  // seen before
		shown("192.0.2.2", "198.51.100.10", forged, tls.VersionTLS13, "www.example.net"), // reminded already
		shown("192.0.2.3", "198.51.100.11", forged, tls.VersionTLS13, "www.example.net"),
		shown("192.0.2.8", "198.51.100.78", other, tls.VersionTLS12, "www.example.net"),
	)
	begun := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	whole := newTape(t, begun)
	var ends []int
	for i, s := range steps {
		whole.at = begun.Add(time.Duration(i) * 90 * time.Minute)
		s(whole)
		ends = append(ends, len(whole.b))
	}
	const header = 24
	told := func(capture []byte, args ...string) (all []string) {
		file := filepath.Join(t.TempDir(), "capture.pcap")
		if err := os.WriteFile(file, capture, 0o600); err != nil {
			t.Fatal(err)
		}
		list, status := replayedObjects(t, append([]string{"--records", "alert,sighting,certificate", file}, args...)...)
		if status != exitOK {
			t.Fatalf("exit status %d", status)
		}
		for _, r := range list {
			f := flat(r)
			// What correlation rules count, and lengths of records, begin anew in each run.
			if strings.Contains(f.one("rule.name"), "on many servers") {
				continue
			}
			reasons := slices.DeleteFunc(f["oddcert.verdict_reasons"], func(s string) bool { return strings.HasPrefix(s, "The lengths of the encrypted records") })
			all = append(all, strings.Join([]string{f.one("@timestamp"), f.one("event.dataset"), f.one("rule.name"), f.one("server.ip"), f.one("client.ip"),
				f.one("oddcert.certificate.hash.sha256"), strings.Join(f["oddcert.flagged.alert"], " "), strings.Join(reasons, "\n\t")}, " "))
		}
		return all
	}
	want := told(whole.b)
	slices.Sort(want)
	if text := strings.Join(want, "\n"); !strings.Contains(text, "Contact with a server") || !strings.Contains(text, "last days: 5") {
		t.Fatalf("nothing is to be remembered:\n%s", text)
	}
	for _, at := range []int{0, 3, 4, 5, 6, 7, 9, len(ends) - 1} {
		inventory := []string{"--inventory", filepath.Join(t.TempDir(), "inventory.db")}
		got := told(whole.b[:ends[at]], inventory...)
		got = append(got, told(append(slices.Clone(whole.b[:header]), whole.b[ends[at]:]...), inventory...)...)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("split after %d:", at+1)
			for _, line := range got {
				if !slices.Contains(want, line) {
					t.Errorf("not wanted: %s", line)
				}
			}
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("missing: %s", line)
				}
			}
		}
		if again := told(whole.b, inventory...); slices.ContainsFunc(again, func(s string) bool { return strings.Contains(s, "oddcert.sighting") }) {
			t.Errorf("read again: %s", strings.Join(again, "\n"))
		}
	}
}
