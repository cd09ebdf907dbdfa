package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
)

func write(t testing.TB, content string) string {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func newTest(t testing.TB, cfg Config) *Destination {
	t.Helper()
	d, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func send(d *Destination, records []*output.Record) ([]delivery.Verdict, *delivery.Trouble) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	verdicts := make([]delivery.Verdict, len(records))
	trouble := d.Send(ctx, records, verdicts)
	return verdicts, trouble
}

// request is what a receiver got.
type request struct {
	method string
	header http.Header
	body   []byte
}

// receive starts a receiver that answers with status and text.
func receive(t testing.TB, status int, text string) (*httptest.Server, *[]request) {
	var got []request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, request{r.Method, r.Header, body})
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s, &got
}

func TestRecordIsBody(t *testing.T) {
	s, got := receive(t, 204, "")
	d := newTest(t, Config{URL: s.URL, Method: "PUT", Headers: map[string]string{"X-Team": "blue"}})
	r := outputtest.Records(t)[0]
	verdicts, trouble := send(d, []*output.Record{r})
	if trouble != nil || verdicts[0].Fate != delivery.Delivered || d.Limits().Records != 1 {
		t.Fatalf("trouble %+v, verdict %+v, limits %+v", trouble, verdicts[0], d.Limits())
	}
	q := (*got)[0]
	if !bytes.Equal(q.body, r.JSON) || q.method != "PUT" || q.header.Get("X-Team") != "blue" || q.header.Get("Content-Type") != "application/json" ||
		q.header.Get("Webhook-Id") != r.ID || q.header.Get("Idempotency-Key") != r.ID || q.header.Get("Webhook-Signature") != "" {
		t.Errorf("request is %s %v", q.method, q.header)
	}
	if n, err := strconv.ParseInt(q.header.Get("Webhook-Timestamp"), 10, 64); err != nil || time.Since(time.Unix(n, 0)).Abs() > time.Minute {
		t.Errorf("timestamp is %s", q.header.Get("Webhook-Timestamp"))
	}
}

// TestBatch has several records in a request: with and without a template, a list.
func TestBatch(t *testing.T) {
	s, got := receive(t, 200, "")
	records := outputtest.Records(t)[:3]
	plain := newTest(t, Config{URL: s.URL, BatchSize: 5})
	templated := newTest(t, Config{URL: s.URL, BatchSize: 5, ContentType: "text/plain", TemplateFile: write(t, `{{range .}}{{.event.id}};{{end}}`)})
	for _, d := range []*Destination{plain, templated} {
		for _, n := range []int{3, 1} {
			if _, trouble := send(d, records[:n]); trouble != nil {
				t.Fatal(trouble.Err)
			}
		}
		if _, trouble := send(d, records); trouble != nil {
			t.Fatal(trouble.Err)
		}
	}
	var list []json.RawMessage
	if err := json.Unmarshal((*got)[0].body, &list); err != nil || len(list) != 3 || !bytes.Equal(list[1], records[1].JSON) {
		t.Errorf("%v: %d records", err, len(list))
	}
	if err := json.Unmarshal((*got)[1].body, &list); err != nil || len(list) != 1 {
		t.Errorf("%v: %d records", err, len(list))
	}
	if want := records[0].ID + ";" + records[1].ID + ";" + records[2].ID + ";"; string((*got)[3].body) != want {
		t.Errorf("body is %s, want %s", (*got)[3].body, want)
	}
	id := func(i int) string { return (*got)[i].header.Get("Webhook-Id") }
	if id(0) != id(2) || id(0) == id(1) || id(1) != records[0].ID || len(id(0)) != 32 {
		t.Errorf("ids are %s, %s and %s", id(0), id(1), id(2))
	}
}

// TestSignature takes the example that implementations of Standard Webhooks share:
// github.com/standard-webhooks/standard-webhooks, libraries/go/webhook_test.go.
func TestSignature(t *testing.T) {
	cfg := Config{SigningSecretFile: write(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")}
	key, err := cfg.signingKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`)), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature is %s, want %s", got, want)
	}
	s, got := receive(t, 200, "")
	cfg.URL = s.URL
	if _, trouble := send(newTest(t, cfg), outputtest.Records(t)[:1]); trouble != nil {
		t.Fatal(trouble.Err)
	}
	q := (*got)[0]
	seconds, _ := strconv.ParseInt(q.header.Get("Webhook-Timestamp"), 10, 64)
	if got := q.header.Get("Webhook-Signature"); got != sign(key, q.header.Get("Webhook-Id"), seconds, q.body) {
		t.Errorf("signature is %s", got)
	}
	for _, bad := range []string{"whsec_", "whsec_c2hvcnQ=", "swordfish", "whsec_" + strings.Repeat("AAAA", 30)} {
		cfg.SigningSecretFile = write(t, bad)
		if _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: error is %v", bad, err)
		}
	}
}

func TestFates(t *testing.T) {
	for _, c := range []struct {
		status int
		fate   delivery.Fate
	}{{200, delivery.Delivered}, {202, delivery.Delivered}, {409, delivery.Duplicate}, {451, delivery.Dead}, {403, delivery.Again}, {500, delivery.Again}, {501, delivery.Again}} {
		s, _ := receive(t, c.status, `["words of the server"]`)
		verdicts, trouble := send(newTest(t, Config{URL: s.URL, DeadStatus: 451}), outputtest.Records(t)[:1])
		if verdicts[0].Fate != c.fate || (trouble == nil) != (c.fate == delivery.Delivered || c.fate == delivery.Duplicate || c.fate == delivery.Dead) {
			t.Errorf("%d: verdict %+v, trouble %+v", c.status, verdicts[0], trouble)
		}
		if c.fate == delivery.Dead && !strings.Contains(verdicts[0].Reason, "words of the server") {
			t.Errorf("reason is %q", verdicts[0].Reason)
		}
	}
	s, _ := receive(t, 451, "no")
	if _, trouble := send(newTest(t, Config{URL: s.URL, BatchSize: 2, DeadStatus: 451}), outputtest.Records(t)[:2]); trouble == nil || !trouble.Split {
		t.Errorf("trouble is %+v", trouble)
	}
}

// TestSecretOfTemplate has a secret in the body that the server repeats, and that
// somebody replaces.
func TestSecretOfTemplate(t *testing.T) {
	var body string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "bad request: "+body)
	}))
	defer s.Close()
	file := write(t, "swordfish")
	d := newTest(t, Config{URL: s.URL, TemplateFile: write(t, `{"key": {{secret "key" | json}}}`), SecretFiles: map[string]string{"key": file}})
	verdicts, trouble := send(d, outputtest.Records(t)[:1])
	if trouble != nil || body != `{"key": "swordfish"}` || strings.Contains(verdicts[0].Reason, "swordfish") || !strings.Contains(verdicts[0].Reason, "bad request") {
		t.Errorf("trouble %+v, body %s, reason %q", trouble, body, verdicts[0].Reason)
	}
	if err := os.WriteFile(file, []byte("trout"), 0o600); err != nil {
		t.Fatal(err)
	}
	if send(d, outputtest.Records(t)[:1]); body != `{"key": "trout"}` {
		t.Errorf("body is %s", body)
	}
	os.Remove(file)
	if verdicts, trouble = send(d, outputtest.Records(t)[:1]); trouble == nil || !trouble.Slow || verdicts[0].Fate != delivery.Again {
		t.Errorf("trouble %+v, verdict %+v", trouble, verdicts[0])
	}
}

// TestTemplateErrors has mistakes that show at the start: they name the file and the
// line.
func TestTemplateErrors(t *testing.T) {
	for source, want := range map[string]string{
		"{\n\n{{json .rule.name":        ":3: unclosed action",
		"a\n{{jsn .rule.name}}":         `:2: function "jsn" not defined`,
		"{{if .x}}":                     "unexpected EOF",
		"{{range}}{{end}}":              "missing value for range",
		strings.Repeat(" ", 300<<10):    "more than",
		"\n\n\n\n{{.rule.name | date )": ":5:",
	} {
		file := write(t, source)
		_, err := New(Config{URL: "https://x", TemplateFile: file}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "read template_file: ") {
			t.Errorf("%.40q: error is %v, want %s", source, err, want)
		}
	}
}

// TestDeadRecords has records that a template makes nothing of: they are dead, and in a
// batch only they.
func TestDeadRecords(t *testing.T) {
	s, got := receive(t, 200, "")
	records := outputtest.Records(t)[:2]
	for source, want := range map[string]string{
		`{"a": {{.rule.name}}}`:      "not JSON",
		`{{index .rule.author 7}}`:   "index",
		`{{date "unix" .rule.name}}`: "date needs a time",
		`{{secret "nothing"}}`:       "secret_files",
		"{{range .tls.client.supported_ciphers}}{{range $.tls.client.supported_ciphers}}{{range $.tls.client.supported_ciphers}}{{json $}}{{end}}{{end}}{{end}}": "more than",
	} {
		d := newTest(t, Config{URL: s.URL, TemplateFile: write(t, source)})
		verdicts, trouble := send(d, records[:1])
		if trouble != nil || verdicts[0].Fate != delivery.Dead || !strings.Contains(verdicts[0].Reason, want) {
			t.Errorf("%s: trouble %+v, verdict %+v", source, trouble, verdicts[0])
		}
	}
	if len(*got) != 0 {
		t.Errorf("%d requests", len(*got))
	}
	d := newTest(t, Config{URL: s.URL, BatchSize: 2, TemplateFile: write(t, `{{range .}}{{index .rule.author 0}}{{end}}`), ContentType: "text/plain"})
	if _, trouble := send(d, records); trouble == nil || !trouble.Split {
		t.Errorf("trouble is %+v", trouble)
	}
}

// TestTemplates holds what templates can do.
func TestTemplates(t *testing.T) {
	record := `{"@timestamp":"2026-11-22T02:54:25.5Z","a":{"b":{"c":"x","n":443,"big":12345678901234567890,"f":1.5,"t":true}},"list":["p","q",3],
		"objects":[{"k":{"v":1}},{"k":{"v":2}}],"s":"<a> & \"b\"\n","empty":"","none":null}`
	for source, want := range map[string]string{
		`{{.a.b.c}}`:            `x`,
		`{{.a.nothing.at.all}}`: ``,
		`{{.a.b.c.d}}`:          ``,
		`{{.nothing}}`:          ``,
		`{{.none}}`:             ``,
		`{{json .nothing}} {{json .a.b.nothing}}`: `null null`,
		`{{json .s}}`:                                `"<a> & \"b\"\n"`,
		`{{json .a.b.n}} {{json .a.b.f}}`:            `443 1.5`,
		`{{.a.b.n}} {{.a.b.t}} {{.list}}`:            `443 true ["p","q",3]`,
		`{{json .list}}`:                             `["p","q",3]`,
		`{{join ", " .list}}`:                        `p, q, 3`,
		`{{join ", " .a.b.c}}{{join ", " .nothing}}`: `x`,
		`{{.list | join "|" | upper | json}}`:        `"P|Q|3"`,
		`{{default "d" .nothing}}{{default "d" .empty}}{{default "d" .a.b.c}}`: `ddx`,
		`{{.nothing | default 0}}{{.a.b.n | default 0}}`:                       `0443`,
		`{{upper .a.b.c}}{{lower "ABC"}}{{upper .nothing}}`:                    `Xabc`,
		`{{urlquery .s}}{{urlquery .nothing}}`:                                 `%3Ca%3E+%26+%22b%22%0A`,
		`{{html .a.b.c}}{{html .nothing}}{{html "<"}}`:                         `x&lt;`,
		`{{printf "%s-%v-%d-%s" .nothing .a.b.n .a.b.n .list}}`:                `-443-443-["p","q",3]`,
		`{{trunc 3 "abcdef"}}{{trunc 3 "äöü"}}{{trunc 3 .nothing}}`:            `ab…äöü`,
		"{{code \"a`b\\nc\"}}{{code .nothing}}{{code \" \"}}":                  "`a'b c`",
		`{{replace "a" "b" "banana"}}`:                                         `bbnbnb`,
		`{{date "2006-01-02" (index . "@timestamp")}} {{date "unix" (index . "@timestamp")}} {{date "unix_ms" (index . "@timestamp")}}{{date "unix" .nothing}}`: `2026-11-22 1795316065 1795316065500`,
		`{{if .a.b.nothing}}y{{else}}n{{end}}{{if eq .a.nothing "x"}}y{{else}}n{{end}}{{if eq .a.b.c "x"}}y{{end}}`:                                             `nny`,
		`{{if eq .a.b.n 443}}y{{end}}{{if gt .a.b.n 80}}y{{end}}{{if and .a.b.t (not .nothing)}}y{{end}}`:                                                       `yyy`,
		`{{with .a.b}}{{.c}}{{.nothing.x}}{{end}}{{with .nothing.x}}never{{end}}`:                                                                               `x`,
		`{{range .objects}}{{.k.v}}{{.k.nothing.x}}{{end}}{{range .nothing.x}}never{{else}}none{{end}}`:                                                         `12none`,
		`{{range $i, $o := .objects}}{{$i}}{{$o.k.v}}{{$o.nothing.v}}{{$.a.b.c}}{{end}}`:                                                                        `01x12x`,
		`{{$x := .a.b}}{{$x.c}}{{$y := .nothing}}{{$y}}{{(index .objects 1).k.v}}{{(index .objects 1).nothing.v}}`:                                              `x2`,
		`{{define "p"}}[{{.c}}{{.nothing.x}}]{{end}}{{template "p" .a.b}}{{template "p" .nothing}}`:                                                             `[x][]`,
		`{{len .list}}{{index .list 1}}{{slice .a.b.c 0 1}}`:                                                                                                    `3qx`,
		`{{json .a.b.big}}`: `12345678901234567000`,
	} {
		b, err := parseBody("test", source, noSecret)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		data, err := decode([]byte(record))
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.make(data)
		if err != nil || string(got) != want {
			t.Errorf("%s makes %q, want %q: %v", source, got, want, err)
		}
	}
}

func noSecret(string) (string, error) { return "", nil }

// FuzzTemplate holds that no template ends the program: it makes something, or an error.
func FuzzTemplate(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(examples, "*.tmpl"))
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(source))
	}
	f.Add(`{{range $i, $o := .a.b}}{{break}}{{end}}{{(index .x 0).y.z | json}}{{block "b" .c.d}}{{.e.f}}{{end}}`)
	f.Add(`{{_field . "a"}}{{_text 1}}{{with $x := .a}}{{$x.b.c}}{{else with .d}}{{.e}}{{end}}`)
	data := map[string]any{"a": map[string]any{"b": []any{"c", int64(1)}}, "x": []any{map[string]any{"y": nil}}}
	f.Fuzz(func(t *testing.T, source string) {
		if strings.Contains(source, "template") || strings.Contains(source, "block") && strings.Count(source, "{{") > 8 {
			return // one may call itself: the depth of that is bounded, and takes its time
		}
		b, err := parseBody("fuzz", source, noSecret)
		if err != nil {
			return
		}
		if body, err := b.make(data); err == nil && len(body) > maxBody {
			t.Errorf("%d bytes", len(body))
		}
	})
}
