package syslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/document"
)

// records are records as oddcert wrote them, one of each dataset and another.
func records(t testing.TB) (all []*output.Record) {
	t.Helper()
	text, err := os.ReadFile("../cef/testdata/records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		d, err := document.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		r := &output.Record{ID: d.Event.ID, Time: d.Time.UnixNano(), JSON: line}
		for set := range output.Datasets {
			if "oddcert."+set.String() == d.Event.Dataset {
				r.Dataset = set
			}
		}
		all = append(all, r)
	}
	return all
}

// grammar is that of RFC 5424 section 6, as far as our messages use it.
var grammar = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) oddcert - ([!-~]{1,32}) ` +
	`\[([!#-<>-\\^-~]{1,32}) id="((?:[^"\\\]]|\\["\\\]])*)" dataset="([a-z_.]+)"(?: leftOut="([a-z0-9_.,]+)")?\] (.*)$`)

func TestMessage(t *testing.T) {
	m := newMessage(&Config{Sensor: "span 1\nü", MaxMessage: 1 << 20})
	for _, r := range records(t) {
		text, err := m.format(r)
		if err != nil {
			t.Fatal(err)
		}
		parts := grammar.FindSubmatch(text)
		if parts == nil {
			t.Fatalf("no message of RFC 5424: %s", text)
		}
		if string(parts[9]) != string(r.JSON) {
			t.Errorf("the text is not the record: %s", text)
		}
		at, err := time.Parse(time.RFC3339Nano, string(parts[2]))
		if err != nil || !at.Equal(time.Unix(0, r.Time).Truncate(time.Microsecond)) {
			t.Errorf("time %s, of a record of %v", parts[2], time.Unix(0, r.Time).UTC())
		}
		if host := string(parts[3]); host != "span-1--" {
			t.Errorf("host %q", host)
		}
		if string(parts[4]) != r.Dataset.String() || string(parts[6]) != r.ID || string(parts[7]) != "oddcert."+r.Dataset.String() {
			t.Errorf("MSGID, id and dataset: %q", parts)
		}
		want := 16*8 + 6 // local0, informational
		if r.Dataset == output.Alert {
			want = 16*8 + 5 // notice: the rule's level is low
		}
		if string(parts[1]) != strconv.Itoa(want) {
			t.Errorf("%v: priority %s, want %d", r.Dataset, parts[1], want)
		}
	}
}

func TestSeverity(t *testing.T) {
	for event, want := range map[int]int{21: 5, 47: 4, 73: 3, 99: 2, 0: 5} {
		r := &output.Record{Dataset: output.Alert, JSON: fmt.Appendf(nil, `{"rule":{"name":"\"severity\":99"},"event":{"severity":%d}}`, event)}
		if got := severity(r); got != want {
			t.Errorf("event.severity %d: %d, want %d", event, got, want)
		}
	}
}

func TestHostname(t *testing.T) {
	for name, want := range map[string]string{
		"": "-", "span-1.example.net": "span-1.example.net", "a b": "a-b", "x\x7f": "x-", strings.Repeat("h", 300): strings.Repeat("h", 255),
	} {
		if got := hostname(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// subset says where got has something that want has not.
func subset(got, want any, at string) error {
	switch got := got.(type) {
	case map[string]any:
		want, ok := want.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is an object", at)
		}
		for key, v := range got {
			w, ok := want[key]
			if !ok {
				return fmt.Errorf("%s.%s is new", at, key)
			}
			if err := subset(v, w, at+"."+key); err != nil {
				return err
			}
		}
		return nil
	case []any:
		want, ok := want.([]any)
		if !ok || len(want) != len(got) {
			return fmt.Errorf("%s is an array of %d", at, len(got))
		}
		for i := range got {
			if err := subset(got[i], want[i], at); err != nil {
				return err
			}
		}
		return nil
	}
	if got != want {
		return fmt.Errorf("%s is %v, not %v", at, got, want)
	}
	return nil
}

func decode(t testing.TB, text []byte) (v map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// Whatever the limit, a message is JSON and a part of its record, says what is
// missing, and is not longer than the limit. A higher limit leaves out no more.
func TestAbridge(t *testing.T) {
	for _, r := range records(t) {
		whole, before := decode(t, r.JSON), 1000
		for limit := minMaxMessage; limit < len(r.JSON)+300; limit += 97 {
			m := newMessage(&Config{Sensor: "span-1", MaxMessage: limit})
			text, err := m.format(r)
			if err != nil {
				if before < 1000 || !strings.Contains(err.Error(), "max_message_size") {
					t.Fatalf("%v, limit %d: %v", r.Dataset, limit, err)
				}
				continue
			}
			parts := grammar.FindSubmatch(text)
			if parts == nil || len(text) > limit {
				t.Fatalf("%v, limit %d: %d bytes: %s", r.Dataset, limit, len(text), text)
			}
			if err := subset(decode(t, parts[9]), whole, ""); err != nil {
				t.Fatalf("%v, limit %d: %v", r.Dataset, limit, err)
			}
			left := strings.FieldsFunc(string(parts[8]), func(r rune) bool { return r == ',' })
			if len(left) > before {
				t.Fatalf("%v, limit %d: more is left out than below: %q", r.Dataset, limit, left)
			}
			before = len(left)
			if (len(left) == 0) != bytes.Equal(parts[9], r.JSON) {
				t.Fatalf("%v, limit %d: %q is left out of %s", r.Dataset, limit, left, parts[9])
			}
			for _, name := range left {
				if remove(decode(t, parts[9]), strings.Split(name, ".")) > 0 {
					t.Fatalf("%v, limit %d: %s is still there", r.Dataset, limit, name)
				}
			}
		}
		if before != 0 {
			t.Errorf("%v: something is left out in the end", r.Dataset)
		}
	}
}

// The bytes of certificates go first, and with them out nothing else has to.
func TestAbridgedAlert(t *testing.T) {
	der := strings.Repeat("A", 9000)
	r := &output.Record{Dataset: output.Alert, ID: "00", JSON: fmt.Appendf(nil, `{"event":{"severity":99,"reason":"<&>"},`+
		`"tls":{"server":{"certificate_chain":["%s","%s"],"subject":"CN=a"}},"oddcert":{"chain":[{"der":"%s","position":0}],"n":1.50}}`, der, der, der)}
	m := newMessage(&Config{Sensor: "span-1"})
	text, err := m.format(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `<130>1 1970-01-01T00:00:00.000000Z span-1 oddcert - alert [oddcert@32473 id="00" dataset="oddcert.alert" ` +
		`leftOut="tls.server.certificate_chain,oddcert.chain.der"] ` +
		`{"event":{"reason":"<&>","severity":99},"oddcert":{"chain":[{"position":0}],"n":1.50},"tls":{"server":{"subject":"CN=a"}}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

// CEF and LEEF are bounded as a whole, header of syslog included.
func TestOtherFormats(t *testing.T) {
	for _, name := range []string{"cef", "leef"} {
		for limit := minMaxMessage; limit < 3000; limit += 50 {
			m := newMessage(&Config{Format: name, MaxMessage: limit, Version: "1.2", Sensor: "span-1"})
			for _, r := range records(t) {
				text, err := m.format(r)
				if err != nil {
					t.Fatal(err)
				}
				parts := grammar.FindSubmatch(text)
				if parts == nil || len(text) > limit || !bytes.HasPrefix(parts[9], []byte(strings.ToUpper(name)+":")) {
					t.Fatalf("%s, limit %d: %d bytes: %s", name, limit, len(text), text)
				}
			}
		}
	}
}

// No id and no name of a sensor breaks the header, and no record its line.
func FuzzMessage(f *testing.F) {
	f.Add("00", "span-1", `{"message":"x"}`, 1024)
	f.Add(`a"]\ b`, "a b\nc", `{"related":{"hosts":["`+strings.Repeat("x", 2000)+`"]},"rule":{"description":5}}`, 1200)
	f.Add("", "", `{"oddcert":{"chain":[{"der":"x","y":1.0e400},{"der":"`+strings.Repeat("z", 1500)+`"}]}}`, 1100)
	f.Fuzz(func(t *testing.T, id, sensor, record string, limit int) {
		if !json.Valid([]byte(record)) || !strings.HasPrefix(record, "{") || strings.ContainsAny(record+id, "\n\r") {
			return // records and ids are checked before they come here
		}
		limit = minMaxMessage + limit&0xFFF
		m := newMessage(&Config{Sensor: sensor, MaxMessage: limit})
		text, err := m.format(&output.Record{Dataset: output.Alert, ID: id, JSON: []byte(record)})
		if err != nil {
			return
		}
		parts := grammar.FindSubmatch(text)
		if parts == nil || len(text) > limit {
			t.Fatalf("limit %d: %q", limit, text)
		}
		if got := strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`).Replace(string(parts[6])); got != id {
			t.Errorf("id %q, want %q", got, id)
		}
		if !json.Valid(parts[9]) {
			t.Errorf("no JSON: %q", parts[9])
		}
	})
}
