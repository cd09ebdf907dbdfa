package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
)

const examples = "../../../../packaging/webhook"

// hostile are values that somebody may put into a name or a certificate.
var hostile = []string{
	"", `"`, `\`, `\"}]}`, "line\nbreak\r\n\ttab", "\x00\x1b[31m\x7f", "\u2028\u2029", "😀 é \ufffd", "<script>alert(1)</script>&amp;",
	"<!channel> <@U0> <https://evil.example|bank>", "@all @channel @here", "`code` ``` *bold* _it_ [bank](https://evil.example)",
	"{{secret \"routing_key\"}} {{.}}", "%s %d %!", strings.Repeat("a", 3_500), strings.Repeat("é😀", 1_600), "null", "-1e999",
}

// poison replaces each string of a record, but for times and ids, and the rule's level,
// which are not from the network.
func poison(v any, with string) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if name != "@timestamp" && name != "id" && name != "level" && name != "dataset" && name != "start" {
				v[name] = poison(member, with)
			}
		}
	case []any:
		for i := range v {
			v[i] = poison(v[i], with)
		}
	case string:
		return with
	}
	return v
}

// variants are records, with hostile values, and with parts that are missing.
func variants(t testing.TB, records []*output.Record) (all []*output.Record) {
	add := func(r *output.Record, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &output.Record{Dataset: r.Dataset, ID: r.ID, Time: r.Time, JSON: b})
	}
	parse := func(r *output.Record) (v map[string]any) {
		if err := json.Unmarshal(r.JSON, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, r := range records {
		all = append(all, r)
		for _, s := range hostile {
			add(r, poison(parse(r), s))
		}
		for name := range parse(r) {
			v := parse(r)
			delete(v, name)
			if name == "event" {
				v["event"] = map[string]any{"id": r.ID}
			}
			add(r, v)
		}
	}
	return all
}

// The messages of the services, with what their documents demand. Unknown members are
// mistakes.
type (
	slackText struct {
		Type  string `json:"type"`
		Text  string `json:"text"`
		Emoji *bool  `json:"emoji"`
	}
	slackMessage struct {
		Text   string `json:"text"`
		Blocks []struct {
			Type     string      `json:"type"`
			Text     *slackText  `json:"text"`
			Fields   []slackText `json:"fields"`
			Elements []slackText `json:"elements"`
		} `json:"blocks"`
	}
	mattermostMessage struct {
		Username    string `json:"username"`
		Attachments []struct {
			Fallback string `json:"fallback"`
			Color    string `json:"color"`
			Title    string `json:"title"`
			Text     string `json:"text"`
			Footer   string `json:"footer"`
			Fields   []struct {
				Short bool   `json:"short"`
				Title string `json:"title"`
				Value string `json:"value"`
			} `json:"fields"`
		} `json:"attachments"`
	}
	teamsMessage struct {
		Type        string `json:"type"`
		Attachments []struct {
			ContentType string          `json:"contentType"`
			ContentURL  json.RawMessage `json:"contentUrl"`
			Content     struct {
				Schema  string            `json:"$schema"`
				Type    string            `json:"type"`
				Version string            `json:"version"`
				Teams   map[string]string `json:"msteams"`
				Body    []struct {
					Type    string `json:"type"`
					Spacing string `json:"spacing"`
					Inlines []struct {
						Type   string `json:"type"`
						Text   string `json:"text"`
						Size   string `json:"size"`
						Weight string `json:"weight"`
						Color  string `json:"color"`
					} `json:"inlines"`
				} `json:"body"`
			} `json:"content"`
		} `json:"attachments"`
	}
	theHiveAlert struct {
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		SourceRef   string   `json:"sourceRef"`
		Title       string   `json:"title"`
		Description string   `json:"description"`
		Severity    int      `json:"severity"`
		Date        int64    `json:"date"`
		Tags        []string `json:"tags"`
		TLP         int      `json:"tlp"`
		PAP         int      `json:"pap"`
		Observables []struct {
			DataType string `json:"dataType"`
			Data     string `json:"data"`
			Message  string `json:"message"`
		} `json:"observables"`
	}
	irisAlert struct {
		Title       string         `json:"alert_title"`
		Description string         `json:"alert_description"`
		Source      string         `json:"alert_source"`
		SourceRef   string         `json:"alert_source_ref"`
		EventTime   string         `json:"alert_source_event_time"`
		Content     map[string]any `json:"alert_source_content"`
		Severity    int            `json:"alert_severity_id"`
		Status      int            `json:"alert_status_id"`
		Customer    int            `json:"alert_customer_id"`
		Note        string         `json:"alert_note"`
		Tags        string         `json:"alert_tags"`
	}
	pagerDutyEvent struct {
		RoutingKey string `json:"routing_key"`
		Action     string `json:"event_action"`
		DedupKey   string `json:"dedup_key"`
		Client     string `json:"client"`
		Payload    struct {
			Summary   string         `json:"summary"`
			Source    string         `json:"source"`
			Severity  string         `json:"severity"`
			Timestamp *string        `json:"timestamp"`
			Component string         `json:"component"`
			Class     string         `json:"class"`
			Details   map[string]any `json:"custom_details"`
		} `json:"payload"`
	}
	mispSighting struct {
		Values    []string `json:"values"`
		Type      string   `json:"type"`
		Source    string   `json:"source"`
		Timestamp int64    `json:"timestamp"`
	}
	alertmanagerAlerts []struct {
		Labels      map[string]string  `json:"labels"`
		Annotations map[string]*string `json:"annotations"`
		StartsAt    *string            `json:"startsAt"`
	}
)

// inCode matches Markdown that is code, and what stands between.
var inCode = regexp.MustCompile("`[^`\n]*`")

// checks say for each example what the service demands of its message. r is the record.
var checks = map[string]func(r *output.Record, d *json.Decoder) error{
	"slack": func(r *output.Record, d *json.Decoder) error {
		var m slackMessage
		if err := d.Decode(&m); err != nil {
			return err
		}
		if m.Text == "" || strings.ContainsAny(m.Text, "<@") || len(m.Blocks) != 4 {
			return fmt.Errorf("text is %q, of %d blocks", m.Text, len(m.Blocks))
		}
		for _, b := range m.Blocks {
			limit := map[string]int{"header": 150, "section": 3000, "context": 3000}[b.Type]
			texts := b.Elements
			if b.Text != nil {
				texts = append(texts, *b.Text)
			}
			for _, f := range b.Fields {
				if utf8.RuneCountInString(f.Text) > 2000 {
					return fmt.Errorf("a field has %d characters", utf8.RuneCountInString(f.Text))
				}
			}
			if texts = append(texts, b.Fields...); limit == 0 || len(texts) == 0 || len(texts) > 10 {
				return fmt.Errorf("block %s has %d texts", b.Type, len(texts))
			}
			for _, text := range texts {
				if n := utf8.RuneCountInString(text.Text); text.Type != "plain_text" || n == 0 || n > limit {
					return fmt.Errorf("a %s in %s has %d characters", text.Type, b.Type, n)
				}
			}
		}
		return nil
	},
	"mattermost": func(r *output.Record, d *json.Decoder) error {
		var m mattermostMessage
		if err := d.Decode(&m); err != nil {
			return err
		}
		a := m.Attachments[0]
		if len(m.Attachments) != 1 || a.Fallback == "" || !regexp.MustCompile(`^#[0-9A-F]{6}$`).MatchString(a.Color) {
			return fmt.Errorf("attachment is %+v", a)
		}
		for _, f := range a.Fields {
			if f.Title == "" {
				return fmt.Errorf("field is %+v", f)
			}
			if rest := inCode.ReplaceAllString(f.Value, ""); rest != "" {
				return fmt.Errorf("%q is not in code", rest)
			}
		}
		if rest := inCode.ReplaceAllString(a.Text, ""); rest != "" {
			return fmt.Errorf("%q is not in code", rest)
		}
		return nil
	},
	"teams": func(r *output.Record, d *json.Decoder) error {
		var m teamsMessage
		if err := d.Decode(&m); err != nil {
			return err
		}
		if m.Type != "message" || len(m.Attachments) != 1 || m.Attachments[0].ContentType != "application/vnd.microsoft.card.adaptive" {
			return fmt.Errorf("message is %+v", m)
		}
		card := m.Attachments[0].Content
		if card.Type != "AdaptiveCard" || card.Version != "1.4" || card.Schema != "http://adaptivecards.io/schemas/adaptive-card.json" || len(card.Body) != 8 {
			return fmt.Errorf("card is %+v", card)
		}
		for _, b := range card.Body {
			if b.Type != "RichTextBlock" || len(b.Inlines) == 0 {
				return fmt.Errorf("element is %+v", b)
			}
			for _, i := range b.Inlines {
				if i.Type != "TextRun" || i.Text == "" || i.Color != "" && !slices.Contains([]string{"Attention", "Warning", "Accent"}, i.Color) {
					return fmt.Errorf("inline is %+v", i)
				}
			}
		}
		return nil
	},
	"thehive": func(r *output.Record, d *json.Decoder) error {
		var a theHiveAlert
		if err := d.Decode(&a); err != nil {
			return err
		}
		if a.Type == "" || a.Source == "" || a.SourceRef != r.ID || a.Title == "" || utf8.RuneCountInString(a.Title) > 512 || a.Description == "" ||
			a.Severity < 1 || a.Severity > 4 || a.TLP < 0 || a.TLP > 4 || a.PAP < 0 || a.PAP > 3 || a.Date < 0 {
			return fmt.Errorf("alert is %.500s", fmt.Sprint(a))
		}
		if a.Date != 0 && a.Date != r.Time/1e6 {
			return fmt.Errorf("date is %d", a.Date)
		}
		for _, o := range a.Observables {
			if !slices.Contains([]string{"ip", "fqdn", "hash"}, o.DataType) || o.Data == "" {
				return fmt.Errorf("observable is %+v", o)
			}
		}
		if rest := inCode.ReplaceAllString(a.Description, ""); strings.ContainsAny(rest, "<>@[]*`{") {
			return fmt.Errorf("%q is not in code", rest)
		}
		return nil
	},
	"iris": func(r *output.Record, d *json.Decoder) error {
		var a irisAlert
		if err := d.Decode(&a); err != nil {
			return err
		}
		if a.Title == "" || a.Source == "" || a.SourceRef != r.ID || a.Severity < 1 || a.Severity > 6 || a.Status < 1 || a.Customer < 1 || len(a.Content) == 0 {
			return fmt.Errorf("alert is %.500s", fmt.Sprint(a))
		}
		if a.EventTime != "" {
			if at, err := time.Parse("2006-01-02T15:04:05.999999", a.EventTime); err != nil || at.UnixMicro() != r.Time/1e3 {
				return fmt.Errorf("time is %s: %v", a.EventTime, err)
			}
		}
		if rest := inCode.ReplaceAllString(a.Description, ""); rest != "" {
			return fmt.Errorf("%q is not in code", rest)
		}
		return nil
	},
	"pagerduty": func(r *output.Record, d *json.Decoder) error {
		var e pagerDutyEvent
		if err := d.Decode(&e); err != nil {
			return err
		}
		p := e.Payload
		if e.RoutingKey != "the value of routing_key" || e.Action != "trigger" || e.DedupKey != r.ID || p.Summary == "" || utf8.RuneCountInString(p.Summary) > 1024 ||
			p.Source == "" || !slices.Contains([]string{"critical", "error", "warning", "info"}, p.Severity) {
			return fmt.Errorf("event is %.500s", fmt.Sprint(e))
		}
		if p.Timestamp != nil {
			_, err := time.Parse(time.RFC3339, *p.Timestamp)
			return err
		}
		return nil
	},
	"misp": func(r *output.Record, d *json.Decoder) error {
		var s mispSighting
		if err := d.Decode(&s); err != nil {
			return err
		}
		if s.Type != "0" || s.Source == "" || s.Timestamp != 0 && s.Timestamp != r.Time/1e9 {
			return fmt.Errorf("sighting is %.500s", fmt.Sprint(s))
		}
		return nil
	},
	"alertmanager": func(r *output.Record, d *json.Decoder) error {
		var a alertmanagerAlerts
		if err := d.Decode(&a); err != nil {
			return err
		}
		if len(a) != 1 || a[0].Labels["alertname"] == "" {
			return fmt.Errorf("alerts are %.500s", fmt.Sprint(a))
		}
		for name := range a[0].Labels {
			if !regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`).MatchString(name) {
				return fmt.Errorf("%q is no label", name)
			}
		}
		if a[0].StartsAt != nil {
			_, err := time.Parse(time.RFC3339, *a[0].StartsAt)
			return err
		}
		return nil
	},
}

// TestExamples renders each example in packaging/webhook from records as they are, with
// hostile values, and with parts missing, and checks what comes out against the
// documents that it names.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.tmpl"))
	if err != nil || len(files) != len(checks) {
		t.Fatalf("%d examples, and checks for %d: %v", len(files), len(checks), err)
	}
	var some []*output.Record // one of each dataset, and all alerts
	var seen [output.Datasets]bool
	for _, r := range outputtest.Records(t) {
		if r.Dataset == output.Alert || !seen[r.Dataset] {
			some = append(some, r)
		}
		seen[r.Dataset] = true
	}
	records := variants(t, some)
	readme, err := os.ReadFile(filepath.Join(examples, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".tmpl")
		t.Run(name, func(t *testing.T) {
			if !bytes.Contains(readme, []byte("["+name+"]("+name+".tmpl)")) {
				t.Error("the README does not mention it")
			}
			d := newTest(t, Config{URL: "https://siem.example.net", TemplateFile: file, SecretFiles: map[string]string{
				"routing_key": write(t, "the value of routing_key"),
			}})
			for _, r := range records {
				body, err := d.render([]*output.Record{r})
				if err != nil {
					t.Fatalf("%v of %.300s", err, r.JSON)
				}
				decoder := json.NewDecoder(bytes.NewReader(body))
				decoder.DisallowUnknownFields()
				if err := checks[name](r, decoder); err != nil {
					t.Fatalf("%v of %.300s in %.2000s", err, r.JSON, body)
				}
				if _, err := decoder.Token(); err != io.EOF {
					t.Errorf("there is more than one value: %v", err)
				}
				if bytes.Contains(body, []byte("<no value>")) || bytes.Contains(body, []byte("<nil>")) {
					t.Errorf("something is missing in %.2000s", body)
				}
			}
		})
	}
}

// TestExampleOfAlert holds what a person reads of the forged certificate in
// sensor/testdata/captures.
func TestExampleOfAlert(t *testing.T) {
	d := newTest(t, Config{URL: "https://siem.example.net", TemplateFile: filepath.Join(examples, "mattermost.tmpl")})
	body, err := d.render(outputtest.Records(t)[:1])
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`"title": "HIGH: Certificate that Microsoft's CA for Windows Update did not sign"`,
		"`192.0.2.2:443 www.update.microsoft.com`", "`192.0.2.1`", "`forged`", "`span-1`",
		"`149190E5014F4322BB51A9F77207A83AF3C71793C4ED810D2DA91488EA4828BD`", `"#D10C20"`,
		"2026-11-22T02:54:25.566388000Z, event 00079c0a69156f9e0ccd818c7aedc078",
	} {
		if !bytes.Contains(body, []byte(text)) {
			t.Errorf("%s is not in %s", text, body)
		}
	}
}

// FuzzExamples holds that whatever is in a record, the examples make JSON of it.
func FuzzExamples(f *testing.F) {
	for _, r := range outputtest.Records(f) {
		f.Add(r.JSON)
	}
	f.Add([]byte(`{"rule":1,"event":"x","destination":[],"oddcert":{"chain":{"a":{"hash":2}}},"threat":{"technique":{"id":"T1"}}}`))
	f.Add([]byte(`{"@timestamp":"2026-11-22T02:54:25Z","rule":{"level":["high"]}}`))
	f.Add([]byte(`[]`))
	files, err := filepath.Glob(filepath.Join(examples, "*.tmpl"))
	if err != nil || len(files) == 0 {
		f.Fatal("no examples", err)
	}
	key := filepath.Join(f.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k"), 0o600); err != nil {
		f.Fatal(err)
	}
	var all []*Destination
	for _, file := range files {
		d, err := New(Config{URL: "https://siem.example.net", TemplateFile: file, SecretFiles: map[string]string{"routing_key": key}}, slog.New(slog.DiscardHandler))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, d)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		for _, d := range all {
			body, err := d.render([]*output.Record{{JSON: record}})
			if err != nil {
				continue // types that no record has: a dead letter
			}
			if !json.Valid(body) {
				t.Errorf("%s makes %s", d.config.TemplateFile, body)
			}
		}
	})
}
