package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/flow/flowtest"
)

// excuse says why a difference from crypto/x509 or OpenSSL is none; empty when nobody
// knows.
func excuse(ours *judgement.Trust, h *event.Handshake, theirs string) string {
	accepted := ours.Status == judgement.Trusted || ours.Status == judgement.Weak
	switch leaf := h.Chain[0]; {
	case accepted && strings.Contains(theirs, "insecure algorithm SHA1-RSA"):
		return "a signature with SHA-1 is weak here, and none to crypto/x509"
	case accepted && strings.Contains(theirs, "relies on legacy Common Name field") && leaf.AltNames == 0:
		return "the common name counts where there is no subjectAltName"
	}
	return ""
}

// Over all chains of public captures, trusted is what crypto/x509 and OpenSSL trust
// with the same roots at the same time, but for what is explained.
func TestCorpus(t *testing.T) {
	stores := builtin()
	x := stores.index()
	goRoots, goIntermediates := x509.NewCertPool(), x509.NewCertPool()
	var now time.Time
	var below bytes.Buffer
	var anchors []*certificate
	goRefuses := map[[32]byte]bool{}
	var pinned [][]byte
	for _, list := range x.byName {
		for _, c := range list {
			block := &pem.Block{Type: "CERTIFICATE", Bytes: c.DER}
			parsed, err := x509.ParseCertificate(c.DER)
			if err != nil {
				t.Logf("crypto/x509 does not read %s: %v", c.Subject.String, err)
				goRefuses[c.SHA256] = true
			}
			switch {
			case !c.anchor:
				pem.Encode(&below, block)
				pinned = append(pinned, c.DER)
				continue
			case err != nil:
			case c.until.IsValid():
				goRoots.AddCertWithConstraint(parsed, func([]*x509.Certificate) error {
					if now.After(c.until.Time()) {
						return errors.New("removed")
					}
					return nil
				})
			case c.distrust != nil:
				goRoots.AddCertWithConstraint(parsed, c.distrust)
			default:
				goRoots.AddCert(parsed)
			}
			anchors = append(anchors, c)
		}
	}
	dir := t.TempDir()
	// roots is a file of those that are in a store at a time.
	roots := func(at time.Time) string {
		var b bytes.Buffer
		n := 0
		for _, c := range anchors {
			if !c.until.IsValid() || !at.After(c.until.Time()) {
				pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.DER})
				n++
			}
		}
		file := filepath.Join(dir, fmt.Sprintf("%d.pem", n))
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("openssl is not installed: only crypto/x509 is asked")
	}
	opensslSays := func(leaf []byte, chain [][]byte, name string, at time.Time) string {
		one, rest := filepath.Join(dir, "leaf.pem"), filepath.Join(dir, "chain.pem")
		var b bytes.Buffer
		for _, der := range chain {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
		os.WriteFile(one, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), 0o600)
		os.WriteFile(rest, append(b.Bytes(), below.Bytes()...), 0o600)
		args := []string{"verify", "-no-CApath", "-no-CAstore", "-CAfile", roots(at), "-untrusted", rest, "-attime", fmt.Sprint(at.Unix()),
			"-purpose", "sslserver", "-auth_level", "0", "-partial_chain"}
		if name != "" {
			args = append(args, "-verify_hostname", name)
		}
		out, err := exec.Command(openssl, append(args, one)...).CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}

	v := stores.NewVerifier(32 << 20)
	counts, excused := map[string]int{}, map[string]int{}
	chains, judged := map[string]bool{}, 0
	flowtest.Corpus(t, func(capture string, h *event.Handshake) {
		got, pending := v.Verify(h, NewSeen(1))
		if got == nil || pending {
			t.Fatalf("%s: %v, %v", capture, got, pending)
		}
		counts[strings.TrimSpace(got.Status.String()+" "+got.Store)]++
		judged++
		if h.Chain[0].Truncated {
			return
		}
		name := ""
		if h.ClientHello != nil {
			name = h.ClientHello.ServerName
		}
		at := time.Unix(0, h.Certificate.Time)
		now = at
		key := name + at.Format(time.DateOnly)
		o := x509.VerifyOptions{Roots: goRoots, Intermediates: goIntermediates.Clone(), CurrentTime: at, DNSName: name}
		var chain [][]byte
		for _, e := range h.Chain {
			if e.Truncated {
				continue
			}
			key += string(e.SHA256[:])
			chain = append(chain, e.DER)
		}
		if chains[key] {
			return
		}
		chains[key] = true
		for _, der := range append(chain[1:len(chain):len(chain)], pinned...) {
			if c, err := x509.ParseCertificate(der); err == nil {
				o.Intermediates.AddCert(c)
			}
		}
		leaf, err := x509.ParseCertificate(chain[0])
		if err == nil {
			_, err = leaf.Verify(o)
		}
		says := map[string]string{"crypto/x509": ""}
		if err != nil {
			says["crypto/x509"] = err.Error()
		}
		accepted := got.Status == judgement.Trusted || got.Status == judgement.Weak
		if openssl != "" && len(chains)%6 == 0 { // it reads all roots again for each
			says["openssl"] = opensslSays(chain[0], chain[1:], name, at)
		}
		for who, theirs := range says {
			if accepted == (theirs == "") {
				continue
			}
			if why := excuse(got, h, theirs); why != "" {
				excused[who+": "+why]++
				continue
			}
			t.Errorf("%s: %s: %s %q, and %s says %q", capture, h.Chain[0].Subject.String, got.Status, got.Reasons, who, theirs)
		}
	})
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%-24s %d", k, counts[k])
	}
	for _, k := range slices.Sorted(maps.Keys(excused)) {
		t.Logf("%s: %d", k, excused[k])
	}
	t.Logf("%d handshakes, %d chains at different days or for different names", judged, len(chains))
	if counts["trusted microsoft"] == 0 || counts["trusted mozilla"] == 0 || counts["bad-signature"] == 0 {
		t.Error("the captures have lost their genuine and look-alike chains")
	}
}
