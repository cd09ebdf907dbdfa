package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/safecsv"
)

// asks runs oddcert certs, and returns what it writes and its exit status.
func asks(args ...string) (stdout, stderr string, status int) {
	var out, wrong bytes.Buffer
	status = run(append([]string{"certs"}, args...), &out, &wrong)
	return out.String(), wrong.String(), status
}

// askedOf are the captures that the commands are asked about: the project's, and the
// public ones where they are.
func askedOf(testing.TB) []string {
	paths := []string{capturesDir}
	if dir := filepath.Join(corpusDir(), "captures"); isFolder(dir) {
		paths = append(paths, dir)
	}
	return paths
}

// TestCertsInventory holds that an inventory answers as the captures do that it was made
// of.
func TestCertsInventory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inventory.db")
	paths := askedOf(t)
	if status := run(append([]string{"replay", "--inventory", file}, paths...), new(bytes.Buffer), new(bytes.Buffer)); status != exitOK && status != exitInput {
		t.Fatalf("exit status %d", status)
	}
	for _, question := range [][]string{
		{"list", "--role", "any"}, {"list", "--json", "--role", "any"}, {"list", "--self-signed", "--sort", "-until,name"}, {"list", "--untrusted", "--columns", strings.Join(query.ColumnNames(), ",")},
		{"export"}, {"export", "--format", "csv"}, {"export", "--format", "json"}, {"show", "149190E5"}, {"show", "--json", "149190E5"},
		{"pivot", "--depth", "2", "149190E5"}, {"pivot", "--format", "graphml", "192.0.2.2"},
	} {
		theirs, wrong, status := asks(append(question, paths...)...)
		ours, wrongToo, statusToo := asks(append(question, file)...)
		if theirs != ours || status != exitOK || statusToo != exitOK || theirs == "" {
			t.Errorf("%v: exit status %d and %d, %d and %d bytes; %s%s", question, status, statusToo, len(theirs), len(ours), wrong, wrongToo)
		}
	}
	if out, wrong, status := asks("diff", file, capturesDir); status != exitOK || len(paths) == 1 && out != "" {
		t.Errorf("exit status %d: %s%s", status, out, wrong)
	}
	for _, args := range [][]string{{"diff", oddCapture, oddCapture}, {"diff", "--json", oddCapture, oddCapture}} {
		if out, wrong, status := asks(args...); status != exitOK || out != "" || wrong != "oddcert: nothing differs: A and B have the same 1 certificate, on the same 1 server\n" {
			t.Errorf("%v: exit status %d: %s%s", args, status, out, wrong)
		}
	}
	for _, column := range query.Columns {
		if out, wrong, status := asks("list", "--limit", "3", "--sort", "-"+column.Name, "--columns", column.Name, file); status != exitOK || strings.Count(out, "\n") != 4 {
			t.Errorf("%s: exit status %d: %s%s", column.Name, status, out, wrong)
		}
	}
}

// TestCertsDocument holds that the documents have the fields that --where knows, no
// other, and each somewhere.
func TestCertsDocument(t *testing.T) {
	out, wrong, status := asks(append([]string{"list", "--json", "--role", "any"}, askedOf(t)...)...)
	if status != exitOK {
		t.Fatalf("exit status %d: %s", status, wrong)
	}
	fields, seen := query.Fields(), map[string]bool{}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, below := range v {
				walk(strings.TrimPrefix(name+"."+key, "."), below)
			}
		case []any:
			for _, below := range v {
				walk(name, below)
			}
		default:
			if seen[name] = true; fields[name] == "" {
				t.Errorf("%s is in a document, and --where does not know it", name)
			}
		}
	}
	for line := range strings.Lines(out) {
		var document map[string]any
		if err := json.Unmarshal([]byte(line), &document); err != nil {
			t.Fatal(err)
		}
		walk("", document)
	}
	if len(askedOf(t)) == 1 {
		t.Skip("not all fields are in the captures of the project, and there are no public ones here")
	}
	// What these captures do not have.
	rare := []string{"destination.mac", "observer.ingress.interface.name", "oddcert.inventory.estimated", "oddcert.certificate.name_constraints.excluded",
		"oddcert.certificate.name_constraints.permitted", "oddcert.certificate.serial_padded"}
	for name := range fields {
		if !seen[name] && !slices.Contains(rare, name) {
			t.Errorf("%s is in no document", name)
		}
	}
}

// TestCertsWhere holds that a selection chooses as jq and the flags do.
func TestCertsWhere(t *testing.T) {
	paths := askedOf(t)
	list := func(args ...string) string {
		t.Helper()
		out, wrong, status := asks(append(append([]string{"list", "--columns", "hash"}, args...), paths...)...)
		// Without the public captures none is weak.
		if status != exitOK && (status != exitNothing || !strings.Contains(wrong, "nothing was found")) {
			t.Errorf("%v: exit status %d: %s", args, status, wrong)
		}
		return out
	}
	for _, flag := range []string{"self-signed", "weak", "untrusted", "shared", "alerting"} {
		if by, where := list("--"+flag), list("--where", "oddcert.inventory.flags: "+flag); by != where {
			t.Errorf("--%s:\n%sand --where:\n%s", flag, by, where)
		}
	}
	jq, err := exec.LookPath("jq")
	if err != nil {
		t.Skip("jq is not installed")
	}
	documents, _, _ := asks(append([]string{"list", "--json"}, paths...)...)
	for where, filter := range map[string]string{
		"oddcert.certificate.x509.public_key_size|lt: 2048":                  `.oddcert.certificate.x509.public_key_size? // 9999 | . < 2048`,
		"oddcert.certificate.issuer|contains: ca":                            `.oddcert.certificate.issuer // "" | ascii_downcase | contains("ca")`,
		"tls.client.server_name|endswith: .com":                              `any(.tls.client.server_name[]?; ascii_downcase | endswith(".com"))`,
		"oddcert.carrier: [dtls, quic]":                                      `any(.oddcert.carrier[]?; . == "dtls" or . == "quic")`,
		"{destination.port|gt: 1000, oddcert.certificate.self_signed: true}": `any(.destination.port[]?; . > 1000) and .oddcert.certificate.self_signed`,
		"{a: {oddcert.trust.status: trusted}, condition: not a}":             `(.oddcert.trust.status? // "") != "trusted"`,
	} {
		cmd := exec.CommandContext(t.Context(), jq, "-r", "select("+filter+") | .oddcert.certificate.hash.sha256")
		cmd.Stdin = strings.NewReader(documents)
		want, err := cmd.Output()
		if err != nil {
			t.Fatalf("jq %s: %v", filter, err)
		}
		if got := strings.TrimPrefix(list("--where", where), "hash\n"); got != string(want) {
			t.Errorf("%s:\n%swant\n%s", where, got, want)
		}
	}
	if _, wrong, status := asks("list", "--where", "oddcert.certificate.isuer: x", capturesDir); status != exitFailure || !strings.Contains(wrong, "did you mean") {
		t.Errorf("exit status %d: %s", status, wrong)
	}
}

// TestCertsExport has openssl read what is exported, and a reader of CSV.
func TestCertsExport(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []string{"pem", "der"} {
		folder := filepath.Join(dir, format) + "/"
		for range 2 { // the second time all is there already
			if _, wrong, status := asks("export", "--role", "any", "--format", format, "-o", folder, capturesDir); status != exitOK {
				t.Fatalf("exit status %d: %s", status, wrong)
			}
		}
		files, err := filepath.Glob(folder + "*." + format)
		if err != nil || len(files) != 8 { // as TestReadInventory
			t.Errorf("%v, %v", files, err)
		}
		openssl, err := exec.LookPath("openssl")
		if err != nil {
			t.Skip("openssl is not installed")
		}
		for _, file := range files {
			out, err := exec.CommandContext(t.Context(), openssl, "x509", "-in", file, "-inform", format, "-noout", "-fingerprint", "-sha256").CombinedOutput()
			if sum := strings.ReplaceAll(string(out), ":", ""); err != nil || !strings.Contains(sum, strings.TrimSuffix(filepath.Base(file), "."+format)) {
				t.Errorf("%s: %v: %s", file, err, out)
			}
		}
	}
	one := filepath.Join(dir, "one.der")
	if _, wrong, status := asks("export", "--format", "der", "-o", one, capturesDir); status != exitFailure || !strings.Contains(wrong, "FOLDER/") {
		t.Errorf("several as one DER: exit status %d: %s", status, wrong)
	}
	if _, err := os.Stat(one); err == nil {
		t.Error("an export that failed leaves a file")
	}
	if _, wrong, status := asks("export", "--format", "der", "--hash", "149190e5", "-o", one, capturesDir); status != exitOK {
		t.Errorf("exit status %d: %s", status, wrong)
	}
	if _, wrong, status := asks("export", "-o", one, capturesDir); status != exitFailure || !strings.Contains(wrong, "exists") {
		t.Errorf("a file is replaced: exit status %d: %s", status, wrong)
	}
	out, _, _ := asks("export", "--format", "csv", capturesDir)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || !slices.Equal(rows[0], query.ColumnNames()) {
		t.Fatalf("%v, %v", rows, err)
	}
	documents, _, _ := asks("export", "--format", "json", capturesDir)
	if n := strings.Count(documents, "\n"); n != len(rows)-1 {
		t.Errorf("%d documents, %d rows", n, len(rows)-1)
	}
	for _, row := range rows[1:] {
		for i, cell := range row {
			if cell != safecsv.Cell(safecsv.Plain(cell)) {
				t.Errorf("%s: %q", rows[0][i], cell)
			}
		}
	}
}

// TestCertsNothing holds what a question ends with that finds nothing, or is none.
func TestCertsNothing(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", filepath.Join(t.TempDir(), "missing"))
	for _, c := range []struct {
		args []string
		text string
	}{
		{[]string{"list", "--expired", oddCapture}, "nothing was found"},
		{[]string{"list", "--hash", "00000000", oddCapture}, "nothing was found"},
		{[]string{"export", "--expired", oddCapture}, "nothing was found"},
		{[]string{"show", "00000000", oddCapture}, "no certificate has"},
		{[]string{"show", strings.Repeat("0", 40), oddCapture}, "SHA-1"},
		{[]string{"pivot", "198.51.100.1", oddCapture}, "nothing"},
		{[]string{"show", "149190", oddCapture}, "too short"},
		{[]string{"show", "/nonexistent.pcap", "149190E5014F4322"}, "is no hash"},
		{[]string{"show"}, "name the certificate"},
		{[]string{"pivot", "--depth", "9", "x", oddCapture}, "from 1 to 5"},
		{[]string{"pivot", "--format", "x", "x", oddCapture}, "none of table"},
		{[]string{"pivot", "a b", oddCapture}, "no address"},
		{[]string{"list", "--columns", "isuer", oddCapture}, "did you mean issuer"},
		{[]string{"list", "--sort", "x", oddCapture}, "there is no column"},
		{[]string{"list", "--role", "x", "--at", "y", "--seen-since", "z", oddCapture}, "--seen-since"},
		{[]string{"list", "--client", "name.example", oddCapture}, "not a name"},
		{[]string{"list", "--limit", "-1", oddCapture}, "less than 0"},
		{[]string{"list", "/nonexistent.pcap"}, "no such file"},
		{[]string{"list", "certscommand.go"}, "certscommand.go"},
		{[]string{"list", "--config", ""}, "no inventory"},
		{[]string{"export", "--format", "x", oddCapture}, "none of pem"},
		{[]string{"export", "--format", "csv", "-o", "testdata/", oddCapture}, "one file"},
		{[]string{"diff", oddCapture}, "two"},
	} {
		out, wrong, status := asks(c.args...)
		if status != exitFailure || !strings.Contains(wrong, c.text) || out != "" {
			t.Errorf("%v: exit status %d: %s%s", c.args, status, out, wrong)
		}
	}
}

// attacking is what a server may send as a name.
const attacking = "=cmd|'/C calc'!A0<script>\x00\x1b[31m\u202egpj\t\n\u009b\xff" + "\u2028"

// TestCertsHostile shows a certificate whose names are an attack: none of the forms has a
// character that does not print, a cell that is a formula, or a name that opens markup.
func TestCertsHostile(t *testing.T) {
	store, err := inventory.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	der := []byte(attacking)
	c := &cert.Certificate{DER: der, SHA256: sha256.Sum256(der), SPKISHA256: sha256.Sum256(der), Serial: "01", ParseError: attacking, DNSNames: []string{attacking, strings.Repeat("n", 65535)}}
	c.Subject.String, c.Issuer.String, c.Subject.CommonName = attacking, attacking+strings.Repeat("x", 1<<16), []string{attacking}
	at := event.Moment{Time: 1_700_000_000_000_000_000, Frame: 1}
	store.See(&finding.Finding{
		Judged: &judgement.Judgement{Trust: &judgement.Trust{Status: judgement.Incomplete, Reasons: []string{attacking}}},
		Alerts: []finding.Alert{{ID: "00", Match: &rules.Match{Rule: &rules.Rule{Title: attacking, Level: "high"}, Reason: attacking}, Record: []byte(`{"a":"\u202e"}`)}},
		Handshake: &event.Handshake{Carrier: "tls", Start: at, End: at, Certificate: at, Chain: []event.ChainEntry{{Certificate: c}, {Certificate: cert.Parse([]byte("no certificate"))}},
			ClientHello: &event.ClientHello{ServerName: attacking, Offer: new(event.Offer)},
			Flow: &event.Flow{Transport: event.TCP, Origin: &event.Origin{Path: "/tmp/" + attacking},
				Endpoints: [2]event.Endpoint{{Addr: netip.MustParseAddr("10.0.0.1"), Port: 1}, {Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}}}}})
	entry, err := store.Certificate(c.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	row, err := query.NewRow(store, entry, 0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := query.Pivot(store, query.Start{Certificates: []inventory.Hash{c.SHA256}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	all := (&query.Selection{}).Certificates(store)
	every, err := columnsNamed(query.ColumnNames())
	if err != nil {
		t.Fatal(err)
	}
	x := &export{store: store, rows: all}
	postures := func(write func(*posture.Posture) error, flush func() error) error {
		for p, err := range posture.All(store) {
			if err = errors.Join(err, write(p)); err != nil {
				return err
			}
		}
		return flush()
	}
	for name, write := range map[string]func(w io.Writer) error{
		"page":         func(w io.Writer) error { return new(certs).showPage(w, store, row) },
		"page, JSON":   func(w io.Writer) error { return new(certs).showJSON(w, store, row) },
		"list":         func(w io.Writer) error { _, err := new(certs).write(cmd, w, all, every, 0); return err },
		"list, JSON":   func(w io.Writer) error { _, err := (&certs{json: true}).write(cmd, w, all, every, 0); return err },
		"PEM":          func(w io.Writer) error { _, err := eachPart(pemOf)(w, x); return err },
		"CSV":          func(w io.Writer) error { _, err := writeCSV(w, x); return err },
		"CycloneDX":    func(w io.Writer) error { _, err := writeCycloneDX(w, x); return err },
		"servers":      func(w io.Writer) error { return postures(postureTable(w)) },
		"servers, CSV": func(w io.Writer) error { return postures(postureCSV(w)) },
		"servers, JSON": func(w io.Writer) error {
			return postures(postureJSON(w), func() error { return nil })
		},
		"graph":      func(w io.Writer) error { return writeGraph(w, g, "table") },
		"graph, CSV": func(w io.Writer) error { return writeGraph(w, g, "csv") },
		"GraphML":    func(w io.Writer) error { return writeGraph(w, g, "graphml") },
		"graph JSON": func(w io.Writer) error { return writeGraph(w, g, "json") },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text := b.String()
		for _, r := range strings.NewReplacer("\n", "", "\t", "", "\r\n", "").Replace(text) {
			if !unicode.IsPrint(r) {
				t.Errorf("%s has %U", name, r)
			}
		}
		if !strings.Contains(text, "cmd|") && name != "PEM" || text == "" {
			t.Errorf("%s does not show the name: %.200s", name, text)
		}
		switch name {
		case "list", "graph":
			for line := range strings.Lines(text) {
				if n, want := strings.Count(line, "\t"), strings.Count(text[:strings.Index(text, "\n")], "\t"); n != want {
					t.Errorf("%s: %d tabs, not %d: %.200s", name, n, want, line)
				}
			}
		case "CSV", "graph, CSV":
			rows, err := csv.NewReader(&b).ReadAll()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, row := range rows {
				for _, cell := range row {
					if strings.HasPrefix(cell, "=") {
						t.Errorf("%s: %.100s", name, cell)
					}
				}
			}
		case "GraphML":
			if strings.Contains(text, "<script") {
				t.Errorf("%s has markup of somebody else", name)
			}
		}
	}
}
