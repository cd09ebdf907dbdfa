package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/evidence"
)

// carried are captures in which certificates come in many ways, below the folder of
// public captures, each with a carrier or a tunnel that its packs have.
var carried = map[string]string{
	"FoxIO-LLC+ja4/pcap/chrome-cloudflare-quic-with-secrets.pcapng": "quic",
	"ntop+nDPI/tests/cfgs/default/pcap/quic-33.pcapng":              "quic",
	"ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng":     "dtls",
	"boundary+wireshark/test/captures/snakeoil-dtls.pcap":           "dtls",
	"arkime+arkime/tests/pcap/smtp-starttls.pcap":                   "starttls-smtp",
	"arkime+arkime/tests/pcap/ldap-ssl.pcap":                        "starttls-ldap",
	"ntop+nDPI/tests/cfgs/default/pcap/stun_dtls_rtp.pcapng":        "turn",
	"ntop+nDPI/tests/cfgs/default/pcap/rdp_over_tls.pcap":           "rdp",
}

// TestEvidencePipe has packs of what comes through a pipe, which cannot be read again:
// each gives the same alert.
func TestEvidencePipe(t *testing.T) {
	corpus := publicCorpus(t)
	rules := anyRule(t)
	for name, carrier := range carried {
		t.Run(carrier+" in "+filepath.Base(name), func(t *testing.T) {
			capture, err := os.ReadFile(filepath.Join(corpus, "captures", name))
			if err != nil {
				t.Skip(err)
			}
			packs := filepath.Join(t.TempDir(), "evidence")
			in, _, wait := piped(t, "--rules", rules, "--evidence", packs, "--evidence-secrets")
			if _, err := io.Copy(in, bytes.NewReader(capture)); err != nil {
				t.Fatal(err)
			}
			in.Close()
			wait()
			r := verified(t, exitOK, "--rules", rules, packs)
			for _, p := range r.Packs {
				if !p.Again {
					t.Errorf("%+v", p)
				}
			}
			if all := manifests(t, packs); !slices.ContainsFunc(all, func(m evidence.Manifest) bool { return m.Subject.Carrier == carrier }) {
				t.Errorf("no pack of %s among %d", carrier, len(all))
			}
		})
	}
}

// TestEvidenceLive has packs of handshakes at a mirror port, with the rights that a sensor
// has. Each gives the same alert again: of TLS 1.3 with the key log, and without it the
// certificate stays encrypted, as verify says.
func TestEvidenceLive(t *testing.T) {
	b := newBench(t)
	oddcert := drilled(t)
	dir, rules := t.TempDir(), anyRule(t)
	packs, key, log := filepath.Join(dir, "evidence"), filepath.Join(dir, "key"), filepath.Join(b.dir, "keys.log")
	program(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lines := filepath.Join(dir, "records.json")
	live := b.listen(t, oddcert, "--rules", rules, "--records", "alert", "--json", lines, "--keys", log, "--evidence", packs, "--evidence-key", key)
	for _, e := range exchanges {
		switch e.name {
		case "tls13":
			e.clients = []string{e.clients[0] + " -keylogfile keys.log"}
		case "odd-certificate", "tls12-chain", "tls12-client-certificate", "dtls12", "dtls12-fragments", "tls12-resumed":
		default:
			continue
		}
		b.run(t, &e)
	}
	waitFor(t, "the packs", func() bool {
		text, _ := os.ReadFile(lines)
		return bytes.Count(text, []byte("\n")) >= 7 && len(packNames(t, packs)) >= 7
	})
	live.end(t)
	text, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	if alerts, names := objects(t, text), packNames(t, packs); len(alerts) != len(names) {
		t.Errorf("%d alerts and %d packs", len(alerts), len(names))
	}
	for _, keys := range [][]string{nil, {"--keys", log}} {
		r := verified(t, exitOK, append(keys, "--rules", rules, packs)...)
		for _, p := range r.Packs {
			encrypted := strings.Contains(strings.Join(p.Notes, " "), "is encrypted in it")
			if p.SignedBy == "" || p.Again == encrypted || encrypted && keys != nil {
				t.Errorf("with %q: %+v", keys, p)
			}
		}
	}
	if out := live.stdout.String(); !strings.Contains(out, "packs of evidence") || !strings.Contains(out, "nothing lost") {
		t.Error(out, live.stderr.String())
	}
	for _, m := range manifests(t, packs) {
		if m.Origin.Interface != b.SensorIface || m.Origin.Capture != "" || m.Losses.Frames == 0 && m.Losses.Time != "" {
			t.Errorf("%+v %+v", m.Origin, m.Losses)
		}
	}
}

// TestEvidenceFullDisk loses packs where the disk is full, and no alert.
func TestEvidenceFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, 0) })
	rules, dir := anyRule(t), t.TempDir()
	packs := filepath.Join(disk, "evidence")
	count := func(args ...string) (alerts int, stdout, stderr string) {
		file := filepath.Join(dir, "records.json")
		stdout, stderr = oddcert(t, exitOK, append([]string{"replay", "--rules", rules, "--records", "alert", "--json", file, capturesDir}, args...)...)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n")), stdout, stderr
	}
	want, _, _ := count()
	got, stdout, stderr := count("--evidence", packs)
	if got != want || want < 10 {
		t.Errorf("%d alerts, and %d with a full disk", want, got)
	}
	if strings.Count(stderr, "no space left on device") != 1 || !strings.Contains(stdout, "evidence: failed") {
		t.Errorf("%s%s", stdout, stderr)
	}
	r := verified(t, exitOK, "--rules", rules, packs)
	if len(r.Packs) == 0 || len(r.Packs) >= want {
		t.Errorf("%d packs of %d alerts", len(r.Packs), want)
	}
	t.Logf("%d packs of %d alerts on 64 KiB", len(r.Packs), want)
}
