package schema

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/rules"
)

var update = flag.Bool("update", false, "write FIELDS.md anew")

// docs say what the fields are that are neither in ECS nor in the documentation
// of the rules.
var docs = map[string]string{
	"oddcert.alerts":               "how many alerts the handshake raised",
	"oddcert.sct.reasons":          "what is wrong with timestamps and the stapled answer, in sentences",
	"oddcert.clock_jump":           "true where the times of the packets cannot be right, since the clock of the capture jumped",
	"oddcert.pcap.packet_number":   "in a replay: number of the packet that completed it, as Wireshark shows it",
	"oddcert.pcap.filter":          "in a replay: Wireshark's display filter for the flow",
	"oddcert.certificate.der":      "the certificate, base64 of DER",
	"oddcert.certificate.role":     "where it was seen: `leaf`, `issuer`, `root` or `client`",
	"oddcert.match.field":          "field of the rule that matched",
	"oddcert.match.value":          "value of that field in the handshake",
	"oddcert.match.list":           "list that has the value",
	"oddcert.match.chain_index":    "place in the chain of the certificate that matched, from 0",
	"oddcert.verdict":              "what the alert means: `genuine`, `disguise`, `forged`, …",
	"oddcert.verdict_reasons":      "what the verdict rests on, in sentences",
	"oddcert.rule.false_positives": "harmless causes that the author of the rule knows",
	"rule.level":                   "Sigma's level of the rule: `low`, `medium`, `high`, `critical`",

	"oddcert.correlation.count":      "of a correlation rule: how many matches, values or rules it has counted, as far as it tells them apart",
	"oddcert.correlation.from":       "time of the first of them",
	"oddcert.correlation.to":         "time of the last",
	"oddcert.correlation.group":      "fields by which they are grouped, with their values",
	"oddcert.evidence":               "path of the pack of evidence: a folder, or a zip archive; it is made after the record",
	"oddcert.suppressed.count":       "how many more matches there were like an alert, in a record that is about these only",
	"oddcert.suppressed.from":        "time of the first of them",
	"oddcert.suppressed.to":          "time of the last",
	"oddcert.suppressed.by":          "fields that make them alike, with their values",
	"oddcert.suppressed.first_alert": "`event.id` of that alert",

	"oddcert.sighting.change":               "what is new: `server` (this server and name were not seen before) or `certificate` (they had another one)",
	"oddcert.sighting.previous.hash.sha256": "SHA-256 of the certificate that the server had before under this name",
	"oddcert.hello.version":                 "legacy_version of the ClientHello",
	"oddcert.hello.supported_versions":      "versions offered in supported_versions",
	"oddcert.hello.extensions":              "extensions of the ClientHello",
	"oddcert.hello.supported_groups":        "groups offered",
	"oddcert.hello.signature_algorithms":    "signature algorithms offered",
	"oddcert.hello.point_formats":           "formats of elliptic-curve points offered",
	"oddcert.hello.alpn":                    "application protocols offered (ALPN)",
	"oddcert.stats.*":                       "counters since the start",
	"oddcert.stats.captures":                "paths of the captures that were read",
	"oddcert.stats.failure":                 "text of the first failure inside of oddcert, for a bug report",
	"oddcert.stats.packets.first":           "time of the first packet",
	"oddcert.stats.packets.last":            "time of the last packet",
	"oddcert.stats.interfaces.name":         "interface of a live capture",
	"oddcert.stats.interfaces.state":        "its link: `up`, `no-carrier`, `down` or `gone`",
	"oddcert.stats.interfaces.since":        "when that state began, by the wall clock",
	"oddcert.stats.interfaces.silence":      "nanoseconds without a frame while the link was up",
	"oddcert.stats.interfaces.changes":      "changes of the state",
	"oddcert.stats.interfaces.mtu":          "longest packet, in bytes",
	"oddcert.stats.interfaces.speed":        "speed of the link, in Mbit/s",
	"oddcert.stats.interfaces.frames":       "frames that were read",
	"oddcert.stats.interfaces.dropped":      "frames that the kernel dropped because a ring was full",
	"oddcert.stats.links.down":              "interfaces whose link is not up",
	"oddcert.stats.links.silent":            "interfaces whose link is up, and on which no frame came for 30 s",
	"oddcert.stats.no_tls.name":             "protocol that is known to carry no TLS",
	"oddcert.stats.no_tls.frames":           "frames that carried it",
	"oddcert.stats.unread.name":             "protocol that was not read, though it may carry TLS",
	"oddcert.stats.unread.frames":           "frames that carried it",
	"oddcert.stats.weird.name":              "what is wrong with malformed frames, such as `truncated_tcp`",
	"oddcert.stats.weird.frames":            "malformed frames of that kind",
	"oddcert.stats.rules.id":                "identifier of a rule",
	"oddcert.stats.rules.name":              "its title",
	"oddcert.stats.rules.matches":           "how often it matched",
}

// TestDocument holds FIELDS.md against the schema.
func TestDocument(t *testing.T) {
	ruled := map[string]bool{}
	for _, name := range rules.FieldNames() {
		ruled[name] = true
	}
	var b strings.Builder
	b.WriteString(`# The fields of the records

One JSON object a line; a dotted name here is an object within an object there. ` + "`go test ./sensor/internal/output/schema -update`" + `
writes this table.

Fields of the Elastic Common Schema (ECS ` + ECS + `) have the types and the meaning that it gives them. What rules can ask for
is explained in [rules/README.md](../../../../rules/README.md). "full" means handshakes with ` + "`--handshakes full`" + `,
"constants" any record with ` + "`--constants`" + `. In the data streams of the last column, searches find the field although
the records there do not have it: as a constant, as another name of a field, or collected from several.

` + "`CERT`" + ` stands for ` + "`oddcert.certificate`" + ` in records of certificates, and for ` + "`oddcert.chain` and `oddcert.client_chain`" + `
in alerts and full handshakes, where they are arrays with one object for each certificate. A handshake that is not full
has ` + "`oddcert.chain.hash.sha256` and `oddcert.client_chain.hash.sha256`" + `, arrays of the hashes.

| field | type | in records | what it is | in Elasticsearch alone |
|---|---|---|---|---|
`)
	for _, f := range Fields() {
		name, what := f.Name, docs[f.Name]
		if rest, ok := strings.CutPrefix(name, "oddcert.client_chain"); ok {
			if _, ok := Lookup("oddcert.chain" + rest); !ok {
				t.Errorf("%s is not in oddcert.chain", name)
			}
			continue
		}
		if rest, ok := strings.CutPrefix(name, "oddcert.chain."); ok {
			name = "CERT." + rest
		} else if rest, ok := strings.CutPrefix(name, "oddcert.certificate."); ok {
			if _, ok := Lookup("oddcert.chain." + rest); ok {
				continue
			}
		}
		_, documented := docs[f.Name]
		switch {
		case f.ECS:
			what = "ECS"
		case ruled[f.Name]:
			what = "rules"
		case f.Type == Nested:
			what = "objects"
		case strings.HasSuffix(f.Name, ".abridged"):
			what = "true where fields of the certificate are left out because the record would be too long"
		case what == "":
			t.Errorf("%s is not documented", f.Name)
		}
		if documented && (f.ECS || ruled[f.Name]) {
			t.Errorf("%s is documented twice", f.Name)
		}
		var in []string
		for d := range Datasets {
			switch {
			case f.In.Has(d) && d == Handshake && f.Full:
				in = append(in, "full")
			case f.In.Has(d):
				in = append(in, d.String())
			}
		}
		records, alone := strings.Join(in, ", "), strings.ReplaceAll(f.Template.String(), " ", ", ")
		switch {
		case f.In != 0 && f.In&^f.Optional == 0:
			records, alone = "constants", "all"
		case f.Optional != 0:
			records = strings.ReplaceAll((f.In&^f.Optional).String(), " ", ", ") + ", constants"
		case strings.HasPrefix(name, "CERT."):
			records = "certificate, alert, full"
		case f.In == Every:
			records = "all"
		case f.In == Flows:
			records = "all but stats"
		}
		if f.Template == Every {
			alone = "all"
		}
		if f.AliasOf != "" {
			what += ", another name of `" + f.AliasOf + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, f.Type, records, what, alone)
	}
	for name := range docs {
		if _, ok := find(name); !ok {
			t.Errorf("%s is documented, but not in the schema", name)
		}
	}
	if *update {
		if err := os.WriteFile("FIELDS.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("FIELDS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("FIELDS.md is not what the schema says: go test ./sensor/internal/output/schema -update")
	}
}
