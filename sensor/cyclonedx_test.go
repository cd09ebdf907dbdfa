package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/sensor/internal/cbom"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/pythontest"
)

// inventoryOf reads captures into an inventory.
func inventoryOf(t *testing.T, args []string, paths ...string) *inventory.Store {
	t.Helper()
	cmd := &cobra.Command{}
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetContext(t.Context())
	var c config
	c.bind(cmd, cmd.Flags(), onInventory)
	if err := cmd.ParseFlags(append([]string{"--config="}, args...)); err != nil {
		t.Fatal(err)
	}
	s, err := readInventory(cmd, &c, paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// validator reads a document of CycloneDX 1.6 and certificates, and answers with what is
// wrong. The schema is that of the project, in its library for Python; certificates are
// read by the library cryptography.
const validator = `
import base64, json, sys, warnings
warnings.simplefilter("ignore")
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa, ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

given = json.load(sys.stdin)
text = given["document"]
problems = []
found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
if found is not None:
    problems.append("schema: %.2000s" % found)
doc = json.loads(text)
refs = [c["bom-ref"] for c in doc["components"] + doc["services"]]
if len(refs) != len(set(refs)):
    problems.append("a bom-ref is there twice")
known = set(refs)
used = set()
def walk(v, key=""):
    if isinstance(v, dict):
        for k, w in v.items():
            if k in ("signatureAlgorithmRef", "subjectPublicKeyRef", "algorithmRef", "ref"):
                used.add(w)
            elif k in ("dependsOn", "algorithms", "cryptoRefArray"):
                used.update(w)
            else:
                walk(w, k)
    elif isinstance(v, list):
        for w in v:
            walk(w, key)
walk(doc)
for r in sorted(used - known):
    problems.append("%s is referred to, and not there" % r)
algorithms = {r for r in refs if r.startswith("algorithm/")}
for r in sorted(algorithms - used):
    problems.append("nothing refers to %s" % r)
parts = {c["bom-ref"]: c for c in doc["components"]}
read = 0
for ref, der in given["certificates"].items():
    if ref not in parts:
        problems.append("%s is missing" % ref)
        continue
    p = parts[ref]["cryptoProperties"]["certificateProperties"]
    try:
        c = x509.load_der_x509_certificate(base64.b64decode(der))
        key = c.public_key()
    except Exception:
        continue
    read += 1
    for name, want in (("notValidBefore", c.not_valid_before_utc), ("notValidAfter", c.not_valid_after_utc)):
        if p[name] != want.strftime("%Y-%m-%dT%H:%M:%SZ"):
            problems.append("%s: %s is %s, want %s" % (ref, name, p[name], want))
    k = parts[p["subjectPublicKeyRef"]]["cryptoProperties"]["relatedCryptoMaterialProperties"]
    if isinstance(key, rsa.RSAPublicKey):
        if k["size"] != key.key_size or k["algorithmRef"] != "algorithm/RSA-%d" % key.key_size:
            problems.append("%s: key %s, want RSA of %d" % (ref, k, key.key_size))
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if k["size"] != key.key_size:
            problems.append("%s: key %s, want %d" % (ref, k, key.key_size))
    if c.fingerprint(hashes.SHA256()).hex().upper() != parts[ref]["hashes"][0]["content"]:
        problems.append("%s: the hash is wrong" % ref)
print(json.dumps({"problems": problems[:40], "read": read, "components": len(parts), "services": len(doc["services"])}))
`

// TestCycloneDX holds documents against the schema of CycloneDX 1.6, and what they say of
// certificates against another reader of certificates.
func TestCycloneDX(t *testing.T) {
	for name, paths := range map[string][]string{"captures": {capturesDir}, "corpus": {filepath.Join(corpusDir(), "captures")}} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(paths[0]); err != nil {
				t.Skipf("the corpus is missing: %v", err)
			}
			s := inventoryOf(t, nil, paths...)
			var doc, again bytes.Buffer
			written, err := cbom.Write(&doc, s, cbom.Options{Version: "1.2.3"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cbom.Write(&again, s, cbom.Options{Version: "1.2.3"}); err != nil || !bytes.Equal(doc.Bytes(), again.Bytes()) {
				t.Errorf("written twice, the document differs (%v)", err)
			}
			totals, err := s.Totals()
			if err != nil || written.Certificates != totals.Certificates || written.Servers != totals.Servers || written.LeftOut != 0 {
				t.Errorf("%+v of %+v, %v", written, totals, err)
			}
			certificates := map[string]string{}
			for c, err := range s.Certificates() {
				if err != nil {
					t.Fatal(err)
				}
				der, err := s.DER(c.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				certificates[fmt.Sprintf("certificate/%X", c.SHA256)] = base64.StdEncoding.EncodeToString(der)
			}
			var answer struct {
				Problems                   []string
				Read, Components, Services uint64
			}
			validate(t, map[string]any{"document": doc.String(), "certificates": certificates}, &answer)
			for _, p := range answer.Problems {
				t.Error(p)
			}
			t.Logf("%d components, %d services, %d bytes; %d of %d certificates compared", answer.Components, answer.Services, doc.Len(), answer.Read, totals.Certificates)
			if answer.Services != totals.Servers || answer.Read*10 < totals.Certificates*8 {
				t.Errorf("%+v of %+v", answer, totals)
			}

			// A part has what belongs to it, and nothing else.
			for c, err := range s.Certificates() {
				if err != nil {
					t.Fatal(err)
				}
				if c.Roles&inventory.Leaf == 0 {
					continue
				}
				doc.Reset()
				if written, err = cbom.Write(&doc, s, cbom.Options{Certificates: map[inventory.Hash]struct{}{c.SHA256: {}}}); err != nil || written.Certificates != 1 || written.Servers == 0 {
					t.Errorf("of one certificate: %+v, %v", written, err)
				}
				validate(t, map[string]any{"document": doc.String(), "certificates": map[string]string{}}, &answer)
				for _, p := range answer.Problems {
					t.Error(p)
				}
				break
			}
		})
	}
}

// validate asks the validator.
func validate(t *testing.T, question, answer any) {
	t.Helper()
	packages := []string{"cyclonedx-python-lib[json-validation]==11.6.0", "cryptography==46.0.3"}
	pythontest.Run(t, "SKIP-CYCLONEDX", packages, validator, question, answer)
}
