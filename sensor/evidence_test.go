package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/evidence"
)

// anyRule is a folder with a rule that matches each certificate of a server.
func anyRule(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "any"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "any", "any.yml"), []byte(`title: Any certificate
id: 00000000-0000-4000-8000-000000000001
status: test
logsource: {product: oddcert, category: certificate}
detection:
  any: {oddcert.certificates: extracted}
  condition: any
level: low
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// oddcert runs the program and returns what it writes.
func oddcert(t testing.TB, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(args, &out, &errs); got != status {
		t.Fatalf("oddcert %q: status %d, not %d\n%s%s", args, got, status, &out, &errs)
	}
	return out.String(), errs.String()
}

// verified is what "oddcert evidence verify" finds out.
func verified(t testing.TB, status int, args ...string) (r evidence.Result) {
	t.Helper()
	out, _ := oddcert(t, status, append([]string{"evidence", "verify", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// program runs another program in a folder; it skips the test where that is not here.
func program(t testing.TB, dir string, input []byte, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// packNames are the manifests of the packs in a folder, without one that is in the making.
func packNames(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "[0-9a-f]*", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// manifests are those of the packs in a folder.
func manifests(t testing.TB, dir string) (all []evidence.Manifest) {
	t.Helper()
	for _, name := range packNames(t, dir) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m evidence.Manifest
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// TestEvidence makes the packs of the look-alike of this project and of the certificate of
// DIVD-2022-00013, and has them checked by sha256sum, ssh-keygen, openssl, tshark and the
// program itself.
func TestEvidence(t *testing.T) {
	captures := []string{filepath.Join(capturesDir, "odd-certificate", "capture.pcap")}
	divd := filepath.Join(corpusDir(), "captures", "ntop+nDPI/tests/cfgs/default/pcap/dtls_certificate.pcapng")
	if _, err := os.Stat(divd); err == nil {
		captures = append(captures, divd)
	} else {
		t.Logf("without the capture of DIVD-2022-00013: %v", err)
	}
	dir := t.TempDir()
	key, packs, file := filepath.Join(dir, "key"), filepath.Join(dir, "evidence"), filepath.Join(dir, "records.json")
	program(t, dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	oddcert(t, exitOK, append([]string{"replay", "--records", "alert", "--json", file, "--evidence", packs, "--evidence-key", key}, captures...)...)

	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	allowed := filepath.Join(dir, "allowed")
	if err := os.WriteFile(allowed, append([]byte("analyst@example.net "), public...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := verified(t, exitOK, "--allowed-signers", allowed, packs)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	alerts := objects(t, text)
	if len(r.Packs) != len(alerts) || len(alerts) < len(captures) {
		t.Fatalf("%d packs for %d alerts of %d captures", len(r.Packs), len(alerts), len(captures))
	}
	for _, a := range alerts {
		f := flat(a)
		pack := f.one("oddcert.evidence")
		if pack != filepath.Join(packs, f.one("event.id")) {
			t.Fatalf("the alert names %s", pack)
		}
		i := slices.IndexFunc(r.Packs, func(p evidence.Checked) bool { return p.ID == f.one("event.id") })
		if i < 0 || !r.Packs[i].Again || r.Packs[i].Signer != "analyst@example.net" {
			t.Fatalf("%+v", r.Packs)
		}
		manifest, err := os.ReadFile(filepath.Join(pack, "manifest.json"))
		if err != nil {
			t.Fatal(err)
		}
		program(t, pack, nil, "sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS")
		program(t, pack, manifest, "ssh-keygen", "-Y", "verify", "-n", evidence.Namespace, "-f", allowed, "-I", "analyst@example.net", "-s", "manifest.json.sig")
		print := program(t, pack, nil, "openssl", "x509", "-inform", "DER", "-in", "server-00.der", "-noout", "-fingerprint", "-sha256")
		if got := strings.ReplaceAll(print, ":", ""); !strings.Contains(got, f.one("tls.server.hash.sha256")) {
			t.Errorf("openssl says %s, the alert %s", got, f.one("tls.server.hash.sha256"))
		}
		der, err := os.ReadFile(filepath.Join(pack, "server-00.der"))
		if err != nil {
			t.Fatal(err)
		}
		shown := program(t, pack, nil, "tshark", "-r", "handshake.pcapng", "-Y", "tls.handshake.certificate||dtls.handshake.certificate", "-T", "fields", "-e", "tls.handshake.certificate", "-e", "dtls.handshake.certificate")
		if !strings.Contains(strings.ReplaceAll(shown, ":", ""), hex.EncodeToString(der)) {
			t.Errorf("tshark shows %.200s", shown)
		}
		comments := program(t, pack, nil, "tshark", "-r", "handshake.pcapng", "-T", "fields", "-e", "frame.comment")
		for _, want := range []string{"The server's certificate is complete here: SHA-256 " + f.one("tls.server.hash.sha256"), "Alert " + f.one("event.id") + ": " + f.one("rule.name")} {
			if !strings.Contains(comments, want) {
				t.Errorf("no frame has the comment %q: %s", want, comments)
			}
		}
	}
	for _, m := range manifests(t, packs) {
		if want := strings.Fields(program(t, "", nil, "sha256sum", m.Origin.Capture))[0]; m.Origin.SHA256 != want {
			t.Errorf("the capture has the SHA-256 %s, not %s", m.Origin.SHA256, want)
		}
	}

	// Without evidence the alerts are the same but for its place.
	plain := filepath.Join(dir, "plain.json")
	oddcert(t, exitOK, append([]string{"replay", "--records", "alert", "--json", plain}, captures...)...)
	without, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		place, err := json.Marshal(flat(a).one("oddcert.evidence"))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, fmt.Appendf(nil, `,"evidence":%s`, place), nil)
	}
	if !bytes.Equal(text, without) {
		t.Errorf("the alerts are\n%s\nand without evidence\n%s", text, without)
	}

	// A frame, a certificate, the rule: what is changed is named.
	for _, name := range []string{"handshake.pcapng", "server-00.der", "rule.yml", "alert.json", "README.txt"} {
		path := filepath.Join(flat(alerts[0]).one("oddcert.evidence"), name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verified(t, exitFailure, packs); !strings.Contains(fmt.Sprint(r), name+" was changed") {
			t.Errorf("%s: %+v", name, r)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := oddcert(t, exitOK, "evidence", "verify", packs)
	if !strings.Contains(out, "the rule finds the same alert in the capture of the pack") {
		t.Error(out)
	}
}

// TestEvidenceAgain has a pack for each certificate in the captures of this project, in
// the public ones, in those of attacks and of odd cases. Each gives the same alert again.
func TestEvidenceAgain(t *testing.T) {
	paths := []string{capturesDir}
	for _, dir := range []string{filepath.Join(corpusDir(), "captures"), filepath.Join(corpusDir(), "../attacks"), filepath.Join(corpusDir(), "../cases")} {
		if _, err := os.Stat(dir); err != nil || testing.Short() {
			t.Logf("without %s", dir)
			continue
		}
		paths = append(paths, dir)
	}
	rules := anyRule(t)
	packs := filepath.Join(t.TempDir(), "evidence")
	var out, errs bytes.Buffer
	run(append([]string{"replay", "--rules", rules, "--pack", "hygiene", "--evidence", packs, "--evidence-secrets"}, paths...), &out, &errs)
	out.Reset()
	run([]string{"evidence", "verify", "--json", "--rules", rules, "--pack", "hygiene", packs}, &out, &errs)
	var r evidence.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	again, ways := 0, map[string]int{}
	of := map[string]evidence.Manifest{}
	for _, m := range manifests(t, packs) {
		of[m.ID] = m
		ways[m.Subject.Transport+" "+m.Subject.Carrier+" "+string(m.Secrets)]++
	}
	for _, p := range r.Packs {
		if p.Again {
			again++
		}
		m := of[p.ID]
		if len(p.Problems) > 0 && m.Frames.Missing == "" {
			t.Errorf("%s of %s: %q", p.Path, m.Origin.Capture, p.Problems)
		}
	}
	if len(r.Problems) > 0 {
		t.Errorf("%q", r.Problems)
	}
	t.Logf("%d of %d packs give the same alert again: %v", again, len(r.Packs), ways)
	if len(r.Packs) < 10 || again < len(r.Packs)*99/100 {
		t.Errorf("%d of %d packs give the same alert again", again, len(r.Packs))
	}
}
