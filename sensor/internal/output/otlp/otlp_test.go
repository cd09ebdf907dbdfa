package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
)

// strict reads a message of OTLP in JSON as the protocol has it, and fails on anything
// else: receivers ignore what they do not know, and so hide mistakes.
//
// The members are those of opentelemetry-proto, collector/logs/v1/logs_service.proto,
// logs/v1/logs.proto, common/v1/common.proto and resource/v1/resource.proto.
type strict struct {
	t    testing.TB
	logs []map[string]any // the log records, attributes as a map from key to value
	of   []map[string]any // the resource of each
}

func (s *strict) request(body []byte) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		s.t.Fatalf("%v in %.200s", err, body)
	}
	for _, r := range s.list(s.object(v, "resourceLogs")["resourceLogs"]) {
		of := s.object(r, "resource", "scopeLogs", "schemaUrl")
		resource := s.attributes(s.object(of["resource"], "attributes", "droppedAttributesCount", "entityRefs")["attributes"])
		for _, l := range s.list(of["scopeLogs"]) {
			logs := s.object(l, "scope", "logRecords", "schemaUrl")
			s.object(logs["scope"], "name", "version", "attributes", "droppedAttributesCount")
			for _, r := range s.list(logs["logRecords"]) {
				log := s.object(r, "timeUnixNano", "observedTimeUnixNano", "severityNumber", "severityText", "body", "attributes",
					"droppedAttributesCount", "flags", "traceId", "spanId", "eventName")
				s.decimal(log["timeUnixNano"], 0, 64)
				s.decimal(log["observedTimeUnixNano"], 1, 64)
				if n, err := log["severityNumber"].(json.Number).Int64(); err != nil || n < 1 || n > 24 {
					s.t.Errorf("severityNumber is %v", log["severityNumber"])
				}
				log["body"] = s.value(log["body"])
				log["attributes"] = s.attributes(log["attributes"])
				s.logs, s.of = append(s.logs, log), append(s.of, resource)
			}
		}
	}
}

func (s *strict) object(v any, names ...string) map[string]any {
	object, ok := v.(map[string]any)
	if !ok {
		s.t.Fatalf("%v is no object", v)
	}
	for name := range object {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			s.t.Errorf("%s is not among %v", name, names)
		}
	}
	return object
}

func (s *strict) list(v any) []any {
	list, ok := v.([]any)
	if !ok {
		s.t.Fatalf("%v is no list", v)
	}
	return list
}

// decimal fails unless v is a number in a string: 64-bit numbers are.
func (s *strict) decimal(v any, least int64, bits int) int64 {
	text, _ := v.(string)
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil || n < least {
		s.t.Errorf("%v is no 64-bit number from %d", v, least)
	}
	return n
}

func (s *strict) attributes(v any) map[string]any {
	attributes := map[string]any{}
	for _, e := range s.list(v) {
		kv := s.object(e, "key", "value")
		key, ok := kv["key"].(string)
		if _, twice := attributes[key]; twice || !ok || key == "" {
			s.t.Errorf("key %v is none, or there twice", kv["key"])
		}
		attributes[key] = s.value(kv["value"])
	}
	return attributes
}

func (s *strict) value(v any) any {
	object := s.object(v, "stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue")
	if len(object) > 1 {
		s.t.Errorf("%v has several values", object)
	}
	for kind, value := range object {
		switch kind {
		case "stringValue":
			if text, ok := value.(string); ok {
				return text
			}
		case "boolValue":
			if b, ok := value.(bool); ok {
				return b
			}
		case "intValue":
			return s.decimal(value, -1<<63, 64)
		case "doubleValue":
			if n, ok := value.(json.Number); ok {
				f, _ := n.Float64()
				return f
			}
		case "arrayValue":
			list := []any{}
			for _, e := range s.list(s.object(value, "values")["values"]) {
				list = append(list, s.value(e))
			}
			return list
		case "kvlistValue":
			return s.attributes(s.object(value, "values")["values"])
		}
		s.t.Errorf("%s is %v", kind, value)
	}
	return nil
}

// receiver is a strict stand-in for a receiver.
func receiver(t testing.TB, answer http.HandlerFunc) (*httptest.Server, *strict) {
	got := &strict{t: t}
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(z)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("request %s %s %v: %v", r.Method, r.URL, r.Header, err)
		}
		got.request(body)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s, got
}

func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
}

func newTest(t testing.TB, url string, log *slog.Logger) *Destination {
	d, err := New(Config{URL: url, Version: "1.2.3"}, log)
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

func want(t testing.TB, verdicts []delivery.Verdict, fate delivery.Fate) {
	t.Helper()
	for i, v := range verdicts {
		if v.Fate != fate {
			t.Errorf("record %d has fate %d, want %d: %s", i, v.Fate, fate, v.Reason)
		}
	}
}

// TestLogRecords compares each attribute with the record that it is from.
func TestLogRecords(t *testing.T) {
	s, got := receiver(t, says(200, `{}`))
	records := outputtest.Records(t)
	before := time.Now().UnixNano()
	verdicts, trouble := send(newTest(t, s.URL, slog.New(slog.DiscardHandler)), records)
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	if len(got.logs) != len(records) {
		t.Fatalf("%d log records of %d", len(got.logs), len(records))
	}
	for i, log := range got.logs {
		var fields map[string]any
		d := json.NewDecoder(bytes.NewReader(records[i].JSON))
		d.UseNumber()
		if err := d.Decode(&fields); err != nil {
			t.Fatal(err)
		}
		if log["timeUnixNano"] != fmt.Sprint(records[i].Time) || log["eventName"] != "oddcert."+records[i].Dataset.String() {
			t.Errorf("log record is %v %v", log["timeUnixNano"], log["eventName"])
		}
		if n := got.decimal(log["observedTimeUnixNano"], 1, 64); n < before || n > time.Now().UnixNano() {
			t.Errorf("observed at %d", n)
		}
		if of := got.of[i]; of["service.name"] != "oddcert" || of["service.instance.id"] != "span-1" || of["service.version"] != "1.2.3" {
			t.Errorf("resource is %v", of)
		}
		attributes := log["attributes"].(map[string]any)
		left := len(attributes)
		leaves(fields, "", func(name string, value any) {
			switch {
			case name == "@timestamp" || name == "message" || strings.HasPrefix(name, "client.") || strings.HasPrefix(name, "server."):
				return
			case fmt.Sprint(attributes[name]) != plain(value):
				t.Errorf("%s is %v, want %v", name, attributes[name], value)
			}
			left--
		})
		for _, name := range []string{"log.record.uid", "client.address", "client.port", "server.address", "server.port", "tls.protocol.name", "tls.protocol.version"} {
			if attributes[name] != nil {
				left--
			}
		}
		if left != 0 {
			t.Errorf("%d attributes are of no field", left)
		}
		if attributes["log.record.uid"] != records[i].ID {
			t.Errorf("log.record.uid is %v", attributes["log.record.uid"])
		}
		if records[i].Dataset == output.Alert && (log["body"] != fields["message"] || log["severityText"] != fields["rule"].(map[string]any)["level"]) {
			t.Errorf("body is %v, severity %v", log["body"], log["severityText"])
		}
	}
	first := got.logs[0]["attributes"].(map[string]any) // of the forged certificate
	for name, value := range map[string]any{"server.address": "www.update.microsoft.com", "server.port": int64(443), "client.address": "192.0.2.1",
		"client.port": int64(44512), "tls.protocol.name": "tls", "tls.protocol.version": "1.2"} {
		if first[name] != value {
			t.Errorf("%s is %v, want %v", name, first[name], value)
		}
	}
	if n := got.logs[0]["severityNumber"].(json.Number); n != "17" {
		t.Errorf("a high alert has severity %s", n)
	}
}

// leaves calls f for all that is no object, with its name.
func leaves(fields map[string]any, prefix string, f func(name string, value any)) {
	for name, value := range fields {
		if object, ok := value.(map[string]any); ok {
			leaves(object, prefix+name+".", f)
			continue
		}
		f(prefix+name, value)
	}
}

// plain is what fmt makes of the value that a strict reader has read.
func plain(v any) string { return fmt.Sprint(v) }

// TestSensors has records of two sensors in one request.
func TestSensors(t *testing.T) {
	s, got := receiver(t, says(200, ""))
	record := func(sensor string) *output.Record {
		return &output.Record{JSON: fmt.Appendf(nil, `{"observer":{"name":%q}}`, sensor)}
	}
	verdicts, trouble := send(newTest(t, s.URL+"/v1/logs", slog.New(slog.DiscardHandler)), []*output.Record{record("a"), record("b"), record("a"), record("")})
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	names := map[any]int{}
	for _, of := range got.of {
		names[of["service.instance.id"]]++
	}
	if names["a"] != 2 || names["b"] != 1 || names[nil] != 1 {
		t.Errorf("sensors are %v", names)
	}
}

// TestAnswers holds what the answers of a receiver mean.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		fate   delivery.Fate
		split  bool
		slow   bool
		said   string // in the reason, the trouble or the log
	}{
		"accepted":         {says(200, `{}`), delivery.Delivered, false, false, ""},
		"accepted, empty":  {says(200, ``), delivery.Delivered, false, false, ""},
		"accepted, null":   {says(200, `{"partialSuccess":null}`), delivery.Delivered, false, false, ""},
		"warning":          {says(200, `{"partialSuccess":{"errorMessage":"attribute too long"}}`), delivery.Delivered, false, false, "attribute too long"},
		"some rejected":    {says(200, `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}`), delivery.Dead, false, false, "rejected 2 of the 3 records of a request: too old"},
		"rejected, number": {says(200, `{"partialSuccess":{"rejectedLogRecords":3}}`), delivery.Dead, false, false, "rejected 3 of the 3"},
		"bad data":         {says(400, `{"code":3,"message":"no time"}`), delivery.Again, true, false, "status 400 Bad Request: no time"},
		"permanent":        {says(500, `{"code":13,"message":"Permanent error: never"}`), delivery.Again, true, false, "Permanent error: never"},
		"busy":             {says(503, `{"code":14,"message":"later"}`), delivery.Again, false, false, "later"},
		"no path":          {says(404, `404 page not found`), delivery.Again, false, true, "404 page not found"},
		"a web site":       {says(200, `<html>Log in</html>`), delivery.Again, false, true, "not a receiver"},
		"another service":  {says(200, `["ok"]`), delivery.Again, false, true, "not a receiver"},
	} {
		var said bytes.Buffer
		s, _ := receiver(t, c.answer)
		d := newTest(t, s.URL, slog.New(slog.NewTextHandler(&said, nil)))
		verdicts, trouble := send(d, outputtest.Records(t)[:3])
		want(t, verdicts, c.fate)
		text := said.String() + verdicts[0].Reason
		if trouble != nil {
			text += trouble.Err.Error()
		}
		settled := c.fate == delivery.Delivered || c.fate == delivery.Dead
		if settled != (trouble == nil) || trouble != nil && (trouble.Split != c.split || trouble.Slow != c.slow) || !strings.Contains(text, c.said) {
			t.Errorf("%s: trouble is %+v, said %q", name, trouble, text)
		}
		if c.split { // until one record is left
			verdicts, trouble = send(d, outputtest.Records(t)[:1])
			want(t, verdicts, delivery.Dead)
			if trouble != nil || !strings.Contains(verdicts[0].Reason, "status") {
				t.Errorf("%s: trouble is %+v, reason %q", name, trouble, verdicts[0].Reason)
			}
		}
	}
}

// TestWarnings logs a warning of the receiver once.
func TestWarnings(t *testing.T) {
	var said bytes.Buffer
	s, _ := receiver(t, says(200, `{"partialSuccess":{"errorMessage":"old version"}}`))
	d := newTest(t, s.URL, slog.New(slog.NewTextHandler(&said, nil)))
	for range 3 {
		send(d, outputtest.Records(t)[:1])
	}
	if n := strings.Count(said.String(), "old version"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestNotJSON has records that are damaged among others.
func TestNotJSON(t *testing.T) {
	s, got := receiver(t, says(200, `{}`))
	d := newTest(t, s.URL, slog.New(slog.DiscardHandler))
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	verdicts, trouble := send(d, []*output.Record{{JSON: []byte(`{`)}, outputtest.Records(t)[0], {JSON: []byte(deep)}})
	if trouble != nil || len(got.logs) != 1 {
		t.Fatalf("trouble %+v, %d log records", trouble, len(got.logs))
	}
	want(t, verdicts[1:2], delivery.Delivered)
	want(t, []delivery.Verdict{verdicts[0], verdicts[2]}, delivery.Dead)
	if verdicts, trouble = send(d, []*output.Record{{JSON: []byte(`{`)}}); trouble != nil || verdicts[0].Fate != delivery.Dead || len(got.logs) != 1 {
		t.Errorf("trouble %+v, verdict %+v", trouble, verdicts[0])
	}
}

func TestURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://collector:4318":         "https://collector:4318/v1/logs",
		"https://collector:4318/":        "https://collector:4318/v1/logs",
		"https://collector:4318/v1/logs": "https://collector:4318/v1/logs",
		"https://collector/otlp/v1/logs": "https://collector/otlp/v1/logs",
	} {
		cfg := Config{URL: given}
		if got := cfg.options().URL; got != want {
			t.Errorf("%s is %s, want %s", given, got, want)
		}
	}
}

// FuzzEncode holds that any record becomes a request as the protocol has it.
func FuzzEncode(f *testing.F) {
	for _, r := range outputtest.Records(f) {
		f.Add(r.JSON)
	}
	f.Add([]byte(`{"a":[null,1.5,-1,1e400,true,{"b":[]},[[]]],"labels":{"":"x","é":"\u0000\ud800"}}`))
	d := &Destination{}
	f.Fuzz(func(t *testing.T, record []byte) {
		errs := make([]error, 1)
		body, err := d.encode([]*output.Record{{Dataset: output.Alert, JSON: record, Time: -1}}, errs, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		if errs[0] != nil {
			return
		}
		if strings.Contains(string(record), `"":`) || bytes.ContainsAny(record, ".") {
			return // names of nothing, or with dots, are not ours: they can meet
		}
		got := &strict{t: t}
		got.request(body)
		if len(got.logs) != 1 {
			t.Errorf("%d log records", len(got.logs))
		}
	})
}

// FuzzAnswer has a receiver that answers anything.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"x"}}`))
	f.Add(200, []byte(`{"partialSuccess":{"rejectedLogRecords":-2,"errorMessage":"\u0007"}}`))
	f.Add(400, []byte(`{"message":{}}`))
	f.Add(503, []byte(`<html>`))
	f.Add(500, bytes.Repeat([]byte("x"), 3*delivery.MaxReason))
	f.Add(302, []byte{0xFF})
	var mu sync.Mutex
	var status int
	var text []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(status)
		w.Write(text)
	}))
	f.Cleanup(s.Close)
	d := newTest(f, s.URL, slog.New(slog.DiscardHandler))
	records := outputtest.Records(f)[2:5]
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		if code < 200 || code > 599 {
			t.Skip()
		}
		mu.Lock()
		status, text = code, body
		mu.Unlock()
		for _, sent := range [][]*output.Record{records, records[:1]} {
			verdicts, trouble := send(d, sent)
			settled := true
			for _, v := range verdicts {
				if v.Fate == delivery.Delivered && code > 299 || v.Fate == delivery.Duplicate || len(v.Reason) > delivery.MaxReason {
					t.Errorf("status %d: verdict is %+v", code, v)
				}
				settled = settled && (v.Fate == delivery.Delivered || v.Fate == delivery.Dead)
			}
			if settled != (trouble == nil) {
				t.Errorf("verdicts %+v, trouble %+v", verdicts, trouble)
			}
		}
	})
}
