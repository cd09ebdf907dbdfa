package eve

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// sample returns the records of testdata, which a replay of captures has made: of
// TLS 1.0 to 1.3, with a client's certificate, resumed, over DTLS, over QUIC with
// secrets, after SMTP's STARTTLS, an alert, statistics, and an alert that sums up others.
func sample(t testing.TB) (all []*output.Record) {
	t.Helper()
	b, err := os.ReadFile("testdata/records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		d, err := document.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		r := &output.Record{Dataset: output.FullHandshake, ID: d.Event.ID, Time: d.Time.UnixNano(), JSON: line}
		switch d.Event.Dataset {
		case "oddcert.alert":
			r.Dataset = output.Alert
		case "oddcert.stats":
			r.Dataset = output.Stats
		}
		all = append(all, r)
	}
	return all
}

// linesOf returns the events of a record.
func linesOf(t testing.TB, r *output.Record) (lines []string) {
	t.Helper()
	err := Format{}.Format(r, func(file int, line []byte) {
		if file != 0 || bytes.ContainsAny(line, "\n\r") || !json.Valid(line) {
			t.Fatalf("file %d, line %q", file, line)
		}
		lines = append(lines, string(line))
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func allLines(t testing.TB) (lines []string) {
	for _, r := range sample(t) {
		lines = append(lines, linesOf(t, r)...)
	}
	return lines
}

// eve is an event as a reader sees it.
type eve struct {
	raw       map[string]any
	Timestamp string `json:"timestamp"`
	FlowID    int64  `json:"flow_id"`
	EventType string `json:"event_type"`
	SrcIP     string `json:"src_ip"`
	SrcPort   int    `json:"src_port"`
	DestIP    string `json:"dest_ip"`
	DestPort  int    `json:"dest_port"`
	Proto     string `json:"proto"`
	Community string `json:"community_id"`
	TLS       *struct {
		Subject     string
		IssuerDN    string
		Serial      string
		Fingerprint string
		NotBefore   string
		NotAfter    string
		Certificate string
		Chain       []string
		Version     string
		SNI         string
		FromProto   string   `json:"from_proto"`
		Resumed     bool     `json:"session_resumed"`
		AltNames    []string `json:"subjectaltname"`
		Client      *struct{ Subject, Serial, Fingerprint, Certificate string }
	}
	QUIC  *struct{ SNI string }
	Alert *struct {
		SignatureID uint32 `json:"signature_id"`
		Severity    int
		Signature   string
		Metadata    map[string][]string
	}
	Oddcert struct {
		ID     string
		SHA256 []string `json:"sha256"`
	}
}

func read(t testing.TB, line string) *eve {
	t.Helper()
	e := &eve{}
	if err := json.Unmarshal([]byte(line), e); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(line), &e.raw); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestCertificates compares the certificates of events with what crypto/x509 reads
// in their DER.
func TestCertificates(t *testing.T) {
	seen := 0
	compare := func(der, serial, fingerprint, notBefore, notAfter string, altNames []string) {
		t.Helper()
		raw, err := base64.StdEncoding.DecodeString(der)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		sum := sha1.Sum(raw)
		number := rawSerial(t, c)
		if want := fmt.Sprintf("% x", sum); strings.ReplaceAll(want, " ", ":") != fingerprint {
			t.Errorf("fingerprint %s, want %s", fingerprint, want)
		}
		if want := strings.ToUpper(strings.ReplaceAll(fmt.Sprintf("% x", number), " ", ":")); want != serial {
			t.Errorf("serial %s, want %s", serial, want)
		}
		if notBefore != "" && (notBefore != c.NotBefore.UTC().Format("2006-01-02T15:04:05") || notAfter != c.NotAfter.UTC().Format("2006-01-02T15:04:05")) {
			t.Errorf("valid %s to %s, want %s to %s", notBefore, notAfter, c.NotBefore, c.NotAfter)
		}
		for _, name := range c.DNSNames {
			if altNames != nil && !slices.Contains(altNames, name) {
				t.Errorf("subjectaltname %q, want %s too", altNames, name)
			}
		}
	}
	for _, line := range allLines(t) {
		e := read(t, line)
		if e.TLS == nil || e.TLS.Certificate == "" {
			continue
		}
		compare(e.TLS.Certificate, e.TLS.Serial, e.TLS.Fingerprint, e.TLS.NotBefore, e.TLS.NotAfter, append([]string{}, e.TLS.AltNames...))
		if c := e.TLS.Client; c != nil {
			compare(c.Certificate, c.Serial, c.Fingerprint, "", "", nil)
		}
		chain := e.TLS.Chain
		if len(chain) == 0 {
			chain = []string{e.TLS.Certificate}
		}
		for i, der := range chain {
			raw, _ := base64.StdEncoding.DecodeString(der)
			if sum := sha256.Sum256(raw); i < len(e.Oddcert.SHA256) && !strings.EqualFold(e.Oddcert.SHA256[i], hex.EncodeToString(sum[:])) {
				t.Errorf("chain %d of %s has another hash than oddcert.sha256", i, e.Oddcert.ID)
			}
		}
	}
	if seen < 7 {
		t.Errorf("compared %d certificates", seen)
	}
}

// rawSerial is the octets of the serial number in the DER.
func rawSerial(t *testing.T, c *x509.Certificate) []byte {
	t.Helper()
	var tbs struct {
		Raw     asn1.RawContent
		Version int `asn1:"optional,explicit,default:0,tag:0"`
		Serial  asn1.RawValue
		Rest    []asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(c.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	return tbs.Serial.Bytes
}

// TestSerial compares serial numbers with their DER, as encoding/asn1 has it.
func TestSerial(t *testing.T) {
	for _, n := range []int64{0, 1, 127, 128, 255, 256, 32767, 32768, -1, -127, -128, -129, -255, -256, -32768, -32769, 1 << 62, -1 << 62} {
		der, err := asn1.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		magnitude := new(big.Int).Abs(big.NewInt(n)).Bytes()
		if n == 0 {
			magnitude = []byte{0}
		}
		text := fmt.Sprintf("%X", magnitude)
		if n < 0 {
			text = "-" + text
		}
		if got, want := serial(text), strings.ReplaceAll(fmt.Sprintf("% X", der[2:]), " ", ":"); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// TestEvents looks at what each kind of record becomes.
func TestEvents(t *testing.T) {
	var got []string
	flows := map[string]int64{}
	for _, line := range allLines(t) {
		e := read(t, line)
		what := e.EventType + " " + e.Proto
		if e.TLS != nil {
			what += " " + e.TLS.Version + " " + e.TLS.FromProto
			if e.TLS.Resumed {
				what += " resumed"
			}
			if e.TLS.Client != nil {
				what += " client"
			}
			if e.TLS.Certificate != "" {
				what += " certificate"
			}
		}
		got = append(got, strings.Join(strings.Fields(what), " "))
		if _, err := time.Parse("2006-01-02T15:04:05.999999999Z0700", e.Timestamp); err != nil {
			t.Error(err)
		}
		if e.Community == "" {
			continue
		}
		if id, ok := flows[e.Community]; ok && id != e.FlowID {
			t.Errorf("flow %s has the ids %d and %d", e.Community, id, e.FlowID)
		}
		flows[e.Community] = e.FlowID
		if e.FlowID <= 0 || e.FlowID >= 1<<53 {
			t.Errorf("flow id %d", e.FlowID)
		}
		if _, err := netip.ParseAddr(e.SrcIP); err != nil || e.SrcPort == 0 || e.DestPort == 0 {
			t.Errorf("from %s:%d to %s:%d", e.SrcIP, e.SrcPort, e.DestIP, e.DestPort)
		}
	}
	want := []string{
		"alert TCP TLS 1.2 certificate", "tls TCP TLS 1.2 certificate", "stats", "tls TCP TLS 1.2 client certificate",
		"tls UDP DTLS 1.2 certificate", "tls TCP TLS 1.3", "tls TCP TLS 1.2 resumed", "tls TCP TLSv1 certificate",
		"quic UDP", "tls UDP TLS 1.3 certificate", "tls TCP TLS 1.2 smtp certificate", "alert",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(flows) != 8 {
		t.Errorf("%d flows", len(flows))
	}
}

// TestAlert looks at the alert of the capture odd-certificate.
func TestAlert(t *testing.T) {
	lines := allLines(t)
	e, handshake := read(t, lines[0]), read(t, lines[1])
	if e.SrcIP != "192.0.2.2" || e.SrcPort != 443 || e.DestIP != "192.0.2.1" || e.DestPort != 44512 ||
		handshake.SrcIP != e.DestIP || handshake.DestPort != e.SrcPort || e.FlowID != handshake.FlowID {
		t.Errorf("alert from %s:%d, handshake from %s:%d", e.SrcIP, e.SrcPort, handshake.SrcIP, handshake.SrcPort)
	}
	a := e.Alert
	if a.Severity != 2 || a.SignatureID < 1_000_000 || a.SignatureID > 1_999_999 ||
		a.Signature != "Certificate that Microsoft's CA for Windows Update did not sign" {
		t.Errorf("alert %+v", a)
	}
	want := map[string][]string{
		"signature_severity":   {"Major"},
		"mitre_tactic_id":      {"TA0011"},
		"mitre_tactic_name":    {"Command_and_Control"},
		"mitre_technique_id":   {"T1001", "T1036", "T1001.003"},
		"mitre_technique_name": {"Data_Obfuscation", "Masquerading", "Protocol_Impersonation"},
		"oddcert_rule":         {"7f0c9b0e-1b64-4a38-b1f3-3b7e5a0b9c03"},
		"oddcert_verdict":      {"forged"},
	}
	if fmt.Sprint(a.Metadata) != fmt.Sprint(want) {
		t.Errorf("metadata %v", a.Metadata)
	}
	sum := read(t, lines[len(lines)-1])
	if sum.SrcIP != "209.250.241.25" || sum.SrcPort != 443 || sum.DestIP != "" || sum.raw["dest_port"] != nil || sum.raw["flow"] != nil ||
		sum.raw["app_proto"] != nil || sum.raw["tls"] != nil {
		t.Errorf("an alert that sums up others is %v", sum.raw)
	}
	for version, rev := range map[string]int{"2026-11-29": 20261129, "7": 7, "": 0, "1.2": 0, "99999999999": 0} {
		if got := revision(version); got != rev {
			t.Errorf("revision of %q: %d, want %d", version, got, rev)
		}
	}
}

// TestSkipped gives records of datasets that have no event.
func TestSkipped(t *testing.T) {
	for d := range output.Datasets {
		if !Datasets.Has(d) && linesOf(t, &output.Record{Dataset: d, JSON: []byte("{}")}) != nil {
			t.Errorf("%s has an event", d)
		}
	}
	if err := (Format{}).Format(&output.Record{Dataset: output.Alert, JSON: []byte("{")}, nil); err == nil {
		t.Error("half a record has an event")
	}
}

// TestFilebeat looks for the members that Filebeat's module for Suricata reads
// (elastic/beats, x-pack/filebeat/module/suricata/eve: config/eve.yml,
// ingest/pipeline.yml and ingest/tls.yml), in the form that its processors want.
func TestFilebeat(t *testing.T) {
	iso := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)
	forms := map[string]func(any) bool{
		"src_ip":             func(v any) bool { _, err := netip.ParseAddr(v.(string)); return err == nil },
		"dest_ip":            func(v any) bool { _, err := netip.ParseAddr(v.(string)); return err == nil },
		"src_port":           isNumber,
		"dest_port":          isNumber,
		"proto":              func(v any) bool { return v == "TCP" },
		"app_proto":          func(v any) bool { return v == "tls" },
		"alert.category":     isText,
		"alert.signature_id": isNumber,
		"alert.signature":    isText,
		"alert.action":       func(v any) bool { return v == "allowed" },
		"alert.severity":     isNumber,
		"tls.version":        func(v any) bool { return strings.Count(v.(string), " ") == 1 },
		"tls.sni":            isText,
		"tls.subject":        func(v any) bool { return strings.Contains(v.(string), ", CN=") },
		"tls.issuerdn":       func(v any) bool { return strings.Contains(v.(string), ", CN=") },
		"tls.fingerprint":    func(v any) bool { return len(strings.Split(v.(string), ":")) == 20 },
		"tls.ja3.hash":       func(v any) bool { return len(v.(string)) == 32 },
		"tls.ja3s.hash":      func(v any) bool { return len(v.(string)) == 32 },
		"tls.certificate":    isText,
		"tls.serial":         func(v any) bool { return strings.Contains(v.(string), ":") },
		"tls.notafter":       func(v any) bool { return iso.MatchString(v.(string)) },
		"tls.notbefore":      func(v any) bool { return iso.MatchString(v.(string)) },
		"tls.ja4":            isText,
	}
	e := read(t, allLines(t)[0])
	for path, ok := range forms {
		var at any = e.raw
		for _, key := range strings.Split(path, ".") {
			object, _ := at.(map[string]any)
			at = object[key]
		}
		if at == nil || !ok(at) {
			t.Errorf("%s is %v", path, at)
		}
	}
}

func isNumber(v any) bool { _, ok := v.(float64); return ok }

func isText(v any) bool { s, _ := v.(string); return s != "" }

// TestSchema validates all events, without the member that is ours, against
// Suricata's schema, which is at the path in a variable of the environment.
func TestSchema(t *testing.T) {
	schema := os.Getenv("ODDCERT_EVE_SCHEMA")
	if schema == "" {
		t.Skip("ODDCERT_EVE_SCHEMA does not name a copy of Suricata's etc/schema.json")
	}
	if err := exec.Command("python3", "-c", "import jsonschema").Run(); err != nil {
		t.Skip("python3 has no jsonschema")
	}
	cmd := exec.Command("python3", "-c", `
import json, sys, jsonschema
validator = jsonschema.Draft7Validator(json.load(open(sys.argv[1])))
n = 0
for line in sys.stdin:
    event = json.loads(line)
    del event["oddcert"]
    for error in validator.iter_errors(event):
        sys.exit("%s: %s" % (list(error.absolute_path), error.message))
    n += 1
print(n)
`, schema)
	lines := allLines(t)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != fmt.Sprintln(len(lines)) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestFever has FEVER, which processes the EVE output of Suricata's sensors, read all
// events and pass them on: it never passes on what it cannot read.
func TestFever(t *testing.T) {
	fever, err := exec.LookPath("fever")
	if err != nil {
		t.Skip("fever is not installed")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	listener, err := net.Listen("unix", out)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.Command(fever, "run", "--dummy", "--in-socket", in, "--out-socket", out, "--fwd-all-types", "--in-buffer-drop=false",
		"--mgmt-socket", filepath.Join(dir, "mgmt"), "--verbose")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	deadline := time.Now().Add(time.Minute)
	listener.(*net.UnixListener).SetDeadline(deadline)
	forwarded, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer forwarded.Close()
	forwarded.SetDeadline(deadline)
	var feed net.Conn
	for feed == nil && time.Now().Before(deadline) {
		if feed, err = net.Dial("unix", in); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if feed == nil {
		t.Fatal(err)
	}
	defer feed.Close()
	feed.SetDeadline(deadline)
	passed := make(chan string, 1000)
	go func() {
		defer close(passed)
		for got := bufio.NewReader(forwarded); ; {
			line, err := got.ReadString('\n')
			if err != nil {
				return
			}
			passed <- line
		}
	}()
	for _, line := range allLines(t) {
		for came := false; !came; { // it also drops events for want of time
			if _, err := feed.Write([]byte(line + "\n")); err != nil {
				t.Fatal(err)
			}
			for wait := time.After(300 * time.Millisecond); !came && wait != nil; {
				select {
				case got, ok := <-passed:
					if !ok {
						t.Fatalf("not passed on: %s", line)
					}
					came = key(read(t, got)) == key(read(t, line))
				case <-wait:
					wait = nil
				}
			}
		}
	}
}

// key is what tells an event from others.
func key(e *eve) string {
	what := fmt.Sprint(e.EventType, e.Timestamp, e.FlowID, e.SrcIP, e.SrcPort, e.DestIP, e.DestPort, e.Proto)
	if e.TLS != nil {
		what += e.TLS.Subject + e.TLS.Fingerprint + e.TLS.SNI
	}
	return what
}

// FuzzFormat puts texts of the wire in a record: each event is one line of JSON with
// the same texts.
func FuzzFormat(f *testing.F) {
	f.Add("www.example.net", "CN=a\n\"b\\", "0AFF", "tls", "1.2", "2026-11-29T00:00:00Z", uint8(0))
	f.Add("\u2028<&>\x00", "", "A", "dtls", "", "0001-01-01T00:00:00Z", uint8(1))
	f.Add("", "\xff\xfe", "Ä", "quic", "9", "9999-12-31T23:59:59-12:00", uint8(2))
	f.Fuzz(func(t *testing.T, name, subject, serial, protocol, number, when string, kind uint8) {
		party := map[string]any{
			"server_name": name, "subject": subject, "issuer": subject, "not_before": validTime(when), "not_after": validTime(when),
			"hash": map[string]any{"sha1": serial}, "certificate_chain": []string{name, subject},
			"x509": map[string]any{"serial_number": serial, "alternative_names": []string{name, subject}},
		}
		record, err := json.Marshal(map[string]any{
			"@timestamp": validTime(when),
			"event":      map[string]any{"id": name, "reason": subject},
			"network":    map[string]any{"transport": protocol, "protocol": protocol, "application": name, "community_id": serial, "vlan": map[string]any{"id": serial}},
			"tls":        map[string]any{"version": number, "version_protocol": protocol, "client": party, "server": party, "next_protocol": name},
			"rule":       map[string]any{"id": name, "name": subject, "version": number, "level": protocol, "reference": []string{subject}},
			"threat":     map[string]any{"tactic": map[string]any{"id": []string{name}, "name": []string{subject}}},
			"oddcert":    map[string]any{"verdict": name, "ja4": number, "hello": map[string]any{"alpn": []string{name}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			TLS struct {
				Server struct{ Subject string }
				Client struct {
					Name string `json:"server_name"`
				}
			}
		}
		if err := json.Unmarshal(record, &back); err != nil {
			t.Fatal(err)
		}
		set := []output.Dataset{output.Alert, output.FullHandshake, output.Stats}[kind%3]
		r := &output.Record{Dataset: set, JSON: record}
		lines := linesOf(t, r)
		if !slices.Equal(lines, linesOf(t, r)) {
			t.Error("the same record has other events") // what is there already could not be found
		}
		for _, line := range lines {
			e := read(t, line)
			if e.TLS != nil && (e.TLS.Subject != back.TLS.Server.Subject || e.TLS.SNI != back.TLS.Client.Name) {
				t.Errorf("subject %q, SNI %q of %s", e.TLS.Subject, e.TLS.SNI, record)
			}
			if e.EventType == "" || e.Timestamp == "" || e.FlowID < 0 || e.FlowID >= 1<<51 {
				t.Errorf("event %s", line)
			}
		}
		if len(lines) == 0 || len(lines) > 2 {
			t.Errorf("%d events", len(lines))
		}
	})
}

// validTime is text where that is a time, and else one.
func validTime(text string) string {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.Format(time.RFC3339Nano)
	}
	return "2026-11-29T00:00:00Z"
}

func BenchmarkFormat(b *testing.B) {
	all := sample(b)
	bytes := 0
	for _, r := range all {
		bytes += len(r.JSON)
	}
	b.SetBytes(int64(bytes))
	for b.Loop() {
		for _, r := range all {
			if err := (Format{}).Format(r, func(int, []byte) {}); err != nil {
				b.Fatal(err)
			}
		}
	}
}
