package splunk

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
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
)

// of is the first record of a dataset.
func of(t testing.TB, d output.Dataset) *output.Record {
	for _, r := range outputtest.Records(t) {
		if r.Dataset == d {
			return r
		}
	}
	t.Fatalf("no %v", d)
	return nil
}

func newTest(t testing.TB, s *standIn, cfg Config) *Destination {
	cfg.URL = s.URL
	cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(cfg.TokenFile, []byte(s.token), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.ackPoll = time.Millisecond
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

// TestEvents holds what is sent of each record: the record itself, and beside it what
// Splunk calls its parts.
func TestEvents(t *testing.T) {
	s := newStandIn(t)
	d := newTest(t, s, Config{Index: "tls"})
	records := outputtest.Records(t)
	verdicts, trouble := send(d, records)
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	if len(s.indexed) != len(records) {
		t.Fatalf("%d events of %d records", len(s.indexed), len(records))
	}
	for i, e := range s.indexed {
		var record any
		decoder := json.NewDecoder(bytes.NewReader(records[i].JSON))
		decoder.UseNumber()
		if err := decoder.Decode(&record); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(e["event"], record) {
			t.Errorf("event %d is not the record", i)
		}
		if e["sourcetype"] != "oddcert:"+records[i].Dataset.String() || e["host"] != "span-1" || e["source"] != "oddcert" || e["index"] != "tls" {
			t.Errorf("event %d is %v %v %v %v", i, e["sourcetype"], e["host"], e["source"], e["index"])
		}
		got, err := e["time"].(json.Number).Float64()
		if err != nil || got < float64(records[i].Time)/1e9-0.001 || got > float64(records[i].Time)/1e9+0.001 {
			t.Errorf("time is %v of %d", e["time"], records[i].Time)
		}
	}
}

// TestCertificates compares the fields of the data model with what OpenSSL says of the
// certificate of DIVD-2022-00013's look-alike in sensor/testdata/captures:
// openssl x509 -noout -subject -issuer -serial -startdate -enddate -fingerprint -sha256.
func TestCertificates(t *testing.T) {
	s := newStandIn(t)
	d := newTest(t, s, Config{})
	common := map[string]any{
		"src": "192.0.2.1", "src_port": "44512", "dest": "192.0.2.2", "dest_port": "443", "transport": "tcp",
		"ssl_hash":    "149190E5014F4322BB51A9F77207A83AF3C71793C4ED810D2DA91488EA4828BD",
		"ssl_subject": "C=US, ST=Washington, L=Redmond, O=Microsoft, OU=DSP, CN=www.update.microsoft.com",
		"ssl_issuer":  "C=US, ST=Washington, L=Redmond, O=Microsoft Corporation, CN=Microsoft Update Secure Server CA 1",
	}
	ended := map[string]any{"ssl_end_time": "1858388065"} // Nov 21 02:54:25 2028 GMT
	whole := map[string]any{
		"ssl_serial": "2C25915AFF52383E247710273462E3BE0EB96792", "ssl_start_time": "1795316065", // Nov 22 02:54:25 2026 GMT
		"ssl_validity_window": "63072000", // 730 days
		"ssl_is_valid":        "true", "ssl_self_signed": "false", "ssl_name": "www.update.microsoft.com",
		"ssl_signature_algorithm": "SHA256-RSA", "ssl_publickey_algorithm": "RSA",
		"ssl_subject_common_name": "www.update.microsoft.com", "ssl_subject_organization": "Microsoft", "ssl_subject_unit": "DSP",
		"ssl_subject_locality": "Redmond", "ssl_subject_state": "Washington",
		"ssl_issuer_common_name": "Microsoft Update Secure Server CA 1", "ssl_issuer_organization": "Microsoft Corporation",
	}
	for dataset, wants := range map[output.Dataset][]map[string]any{
		output.Certificate: {common, ended, whole},
		output.Handshake:   {common, ended, {"ssl_version": "TLSv1.2"}},
		output.Sighting:    {common},
		output.Alert: {common, ended, whole, {"ssl_version": "TLSv1.2", "severity": "high", "ids_type": "network",
			"signature": "Certificate that Microsoft's CA for Windows Update did not sign", "mitre_technique_id": []any{"T1001", "T1036"}}},
	} {
		s.indexed = nil
		if _, trouble := send(d, []*output.Record{of(t, dataset)}); trouble != nil {
			t.Fatal(trouble.Err)
		}
		got := s.indexed[0]["fields"].(map[string]any)
		for _, w := range wants {
			for name, value := range w {
				if !reflect.DeepEqual(got[name], value) {
					t.Errorf("%v: %s is %v, want %v", dataset, name, got[name], value)
				}
			}
		}
	}
}

func TestEpoch(t *testing.T) {
	for ns, want := range map[int64]json.Number{
		0: "0.000000", 1_795_316_065_566_388_999: "1795316065.566388", 5_000: "0.000005", -1_500_000_000: "-1.500000",
	} {
		if got := epoch(ns); got != want {
			t.Errorf("%d is %s, want %s", ns, got, want)
		}
	}
}

// TestLateAck has an indexer that takes its time.
func TestLateAck(t *testing.T) {
	s := newStandIn(t)
	s.late = 4
	d := newTest(t, s, Config{})
	verdicts, trouble := send(d, outputtest.Records(t))
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	if s.requests != 1 || s.asked != 6 { // one question before any event
		t.Errorf("%d requests, asked %d times", s.requests, s.asked)
	}
	if s.askedIn[0] == d.channel || s.askedIn[1] != d.channel {
		t.Errorf("asked in %v; the channel of events is %s", s.askedIn, d.channel)
	}
}

// TestNoAckInTime has an indexer that acknowledges nothing: the records go again, with
// the same ids.
func TestNoAckInTime(t *testing.T) {
	s := newStandIn(t)
	s.late = 1 << 30
	d := newTest(t, s, Config{})
	d.ackTimeout = 50 * time.Millisecond
	records := outputtest.Records(t)
	verdicts, trouble := send(d, records)
	if trouble == nil || trouble.Slow || trouble.Class != "ack" {
		t.Fatalf("trouble is %+v", trouble)
	}
	want(t, verdicts, delivery.Again)
	s.mu.Lock()
	s.late = 0
	s.mu.Unlock()
	d.ackTimeout = time.Minute
	if verdicts, trouble = send(d, records); trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	for id, n := range s.ids() {
		if n != 2 {
			t.Errorf("%s was indexed %d times", id, n)
		}
	}
}

// TestLostQuestions has questions that get no answer, or a bad one: the
// acknowledgement still comes.
func TestLostQuestions(t *testing.T) {
	s := newStandIn(t)
	pass := func(http.ResponseWriter, string) bool { return false }
	fail := func(status int, text string) func(w http.ResponseWriter, path string) bool {
		return func(w http.ResponseWriter, path string) bool {
			if path != "/services/collector/ack" {
				t.Errorf("%s is no question", path)
			}
			w.WriteHeader(status)
			io.WriteString(w, text)
			return true
		}
	}
	hangUp := func(w http.ResponseWriter, path string) bool { panic(http.ErrAbortHandler) }
	s.faults = []func(w http.ResponseWriter, path string) bool{pass, pass, fail(503, `{"text":"Server is busy","code":9}`), hangUp, fail(500, "")}
	d := newTest(t, s, Config{})
	verdicts, trouble := send(d, outputtest.Records(t))
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
	if s.requests != 1 {
		t.Errorf("%d requests", s.requests)
	}
}

// TestTokenWithoutAck has a token without indexer acknowledgement, before the first
// event and later: no event is sent before somebody has changed that.
func TestTokenWithoutAck(t *testing.T) {
	s := newStandIn(t)
	s.useAck = false
	d := newTest(t, s, Config{})
	for range 3 {
		verdicts, trouble := send(d, outputtest.Records(t))
		if trouble == nil || !trouble.Slow || !strings.Contains(trouble.Err.Error(), "set ack to false") {
			t.Fatalf("trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Again)
	}
	if s.requests != 0 {
		t.Errorf("%d requests with events", s.requests)
	}
	s.useAck = true
	if verdicts, trouble := send(d, outputtest.Records(t)); trouble != nil {
		t.Fatal(trouble.Err)
	} else {
		want(t, verdicts, delivery.Delivered)
	}
	s.useAck = false
	for range 3 {
		if _, trouble := send(d, outputtest.Records(t)); trouble == nil || !trouble.Slow {
			t.Fatalf("trouble is %+v", trouble)
		}
	}
	if s.requests != 2 { // the one that showed that acknowledgement is off now
		t.Errorf("%d requests with events", s.requests)
	}
	withoutAck := newTest(t, s, Config{Ack: "false"})
	verdicts, trouble := send(withoutAck, outputtest.Records(t))
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, verdicts, delivery.Delivered)
}

// TestCodes holds what the codes of the collector mean, whatever the status.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		status, code int
		text         string
		fate         delivery.Fate
		slow         bool
	}{
		{403, 1, "Token disabled", delivery.Again, true},
		{401, 2, "Token is required", delivery.Again, true},
		{401, 3, "Invalid authorization", delivery.Again, true},
		{403, 4, "Invalid token", delivery.Again, true},
		{400, 7, "Incorrect index", delivery.Again, true},
		{500, 8, "Internal server error", delivery.Again, false},
		{503, 9, "Server is busy", delivery.Again, false},
		{400, 10, "Data channel is missing", delivery.Again, true},
		{400, 11, "Invalid data channel", delivery.Again, true},
		{400, 14, "ACK is disabled", delivery.Again, true},
		{400, 16, "Query string authorization is not enabled", delivery.Again, true},
		{503, 18, "HEC is unhealthy, queues are full", delivery.Again, false},
		{503, 23, "Server is shutting down", delivery.Again, false},
		{429, 26, "HEC queue is at capacity", delivery.Again, false},
	} {
		s := newStandIn(t)
		d := newTest(t, s, Config{Ack: "false"})
		s.faults = append(s.faults, func(w http.ResponseWriter, _ string) bool {
			answer(w, c.status, c.code, c.text, "")
			return true
		})
		verdicts, trouble := send(d, outputtest.Records(t))
		want(t, verdicts, c.fate)
		if trouble == nil || trouble.Slow != c.slow || trouble.Split || !strings.Contains(trouble.Err.Error(), c.text) {
			t.Errorf("code %d: trouble is %+v", c.code, trouble)
		}
	}
}

// TestInvalidEvent has one event that the collector cannot index: the others get
// there.
func TestInvalidEvent(t *testing.T) {
	s := newStandIn(t)
	bad := of(t, output.Hello)
	s.invalid = func(e map[string]any) bool { return e["sourcetype"] == "oddcert:hello" }
	d := newTest(t, s, Config{})
	left := outputtest.Records(t)
	for range 3 {
		verdicts, trouble := send(d, left)
		var again []*output.Record
		for i, v := range verdicts {
			switch {
			case left[i].ID == bad.ID:
				if v.Fate != delivery.Dead || !strings.Contains(v.Reason, "indexed fields") {
					t.Errorf("verdict is %+v", v)
				}
			case v.Fate == delivery.Again:
				again = append(again, left[i])
			}
		}
		if (trouble == nil) != (len(again) == 0) {
			t.Errorf("trouble %+v, and %d records go again", trouble, len(again))
		}
		if left = again; len(left) == 0 {
			break
		}
	}
	if n := len(s.ids()); n != len(outputtest.Records(t))-1 {
		t.Errorf("%d events are indexed", n)
	}
	verdicts, trouble := send(d, []*output.Record{bad})
	if trouble != nil {
		t.Error(trouble.Err)
	}
	want(t, verdicts, delivery.Dead)
}

// TestNotJSON has a record that is damaged: it goes nowhere, and the others do.
func TestNotJSON(t *testing.T) {
	s := newStandIn(t)
	d := newTest(t, s, Config{})
	records := []*output.Record{of(t, output.Alert), {JSON: []byte(`{"event":`)}, of(t, output.Stats)}
	verdicts, trouble := send(d, records)
	if trouble != nil {
		t.Fatal(trouble.Err)
	}
	want(t, []delivery.Verdict{verdicts[0], verdicts[2]}, delivery.Delivered)
	want(t, verdicts[1:2], delivery.Dead)
	if verdicts, trouble = send(d, records[1:2]); trouble != nil || verdicts[0].Fate != delivery.Dead {
		t.Errorf("trouble %+v, verdict %+v", trouble, verdicts[0])
	}
}

// TestOthersAnswer has servers that are no collectors.
func TestOthersAnswer(t *testing.T) {
	for _, text := range []string{"<html>Log in</html>", "", "{}", `[]`, `{"code":"0"}`, `"ok"`} {
		s := newStandIn(t)
		d := newTest(t, s, Config{Ack: "false"})
		s.faults = append(s.faults, func(w http.ResponseWriter, _ string) bool {
			io.WriteString(w, text)
			return true
		})
		verdicts, trouble := send(d, outputtest.Records(t))
		if trouble == nil || !trouble.Slow {
			t.Errorf("%q: trouble is %+v", text, trouble)
		}
		want(t, verdicts, delivery.Again)
	}
}

// TestConcurrentAcks has requests under way at the same time, as the engine does.
func TestConcurrentAcks(t *testing.T) {
	s := newStandIn(t)
	s.late = 2
	d := newTest(t, s, Config{})
	records := outputtest.Records(t)
	var done sync.WaitGroup
	for i := range d.Limits().Requests * 2 {
		done.Go(func() {
			r := *records[i]
			verdicts, trouble := send(d, []*output.Record{&r})
			if trouble != nil {
				t.Error(trouble.Err)
			}
			want(t, verdicts, delivery.Delivered)
		})
	}
	done.Wait()
	for id, n := range s.ids() {
		if n != 1 {
			t.Errorf("%s was indexed %d times", id, n)
		}
	}
}

func TestURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://splunk:8088":                     "https://splunk:8088",
		"https://splunk:8088/":                    "https://splunk:8088",
		"https://splunk:8088/services/collector":  "https://splunk:8088",
		"https://splunk:8088/services/collector/": "https://splunk:8088",
		"https://proxy/hec":                       "https://proxy/hec",
	} {
		cfg := Config{URL: given, TokenFile: "t"}
		if got := cfg.options().URL; got != want {
			t.Errorf("%s is %s, want %s", given, got, want)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", given, err)
		}
	}
}

// FuzzAnswer has a server that answers anything: a record is delivered only by a
// success, and what is said of it is short.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"text":"Success","code":0}`), []byte(`{"acks":{"0":true}}`))
	f.Add(200, []byte(`{"text":"Success","code":0,"ackId":0}`), []byte(`{"acks":{"0":false}}`))
	f.Add(400, []byte(`{"text":"Invalid data format","code":6,"invalid-event-number":1}`), []byte(`{"acks":[]}`))
	f.Add(400, []byte(`{"text":"Incorrect index","code":7,"invalid-event-number":-1}`), []byte(`{}`))
	f.Add(503, []byte(`{"text":"Server is busy","code":9}`), []byte(`<html>`))
	f.Add(302, []byte("\x00"), []byte(""))
	var mu sync.Mutex
	var status int
	var event, ack []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/ack") {
			w.Write(ack)
			return
		}
		w.WriteHeader(status)
		w.Write(event)
	}))
	f.Cleanup(s.Close)
	file := filepath.Join(f.TempDir(), "token")
	if err := os.WriteFile(file, []byte("swordfish"), 0o600); err != nil {
		f.Fatal(err)
	}
	all := outputtest.Records(f)
	records := []*output.Record{all[2], all[3], all[4]}
	f.Fuzz(func(t *testing.T, code int, body, acks []byte) {
		if code < 200 || code > 599 {
			t.Skip()
		}
		mu.Lock()
		status, event, ack = code, body, acks
		mu.Unlock()
		for n, ack := range []string{"true", "false", "true", "false"} {
			d, err := New(Config{URL: s.URL, TokenFile: file, Ack: ack}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			d.ackTimeout, d.ackPoll = 2*time.Millisecond, time.Millisecond
			verdicts, trouble := send(d, records[n/2*2:]) // all, and one
			settled := true
			for _, v := range verdicts {
				if v.Fate == delivery.Delivered && (code > 299 || !json.Valid(body) || ack == "true" && !bytes.Contains(acks, []byte("true"))) {
					t.Errorf("delivered by status %d, %q and %q", code, body, acks)
				}
				if v.Fate == delivery.Duplicate || v.Fate == delivery.Skipped || len(v.Reason) > delivery.MaxReason || strings.Contains(v.Reason, "swordfish") {
					t.Errorf("verdict is %+v", v)
				}
				settled = settled && (v.Fate == delivery.Delivered || v.Fate == delivery.Dead)
			}
			if settled != (trouble == nil) {
				t.Errorf("verdicts %+v, trouble %+v", verdicts, trouble)
			}
			d.Close()
		}
	})
}

// FuzzEncode holds that the event of any record is one that a collector takes.
func FuzzEncode(f *testing.F) {
	for _, r := range outputtest.Records(f) {
		f.Add(r.JSON)
	}
	f.Add([]byte(`{"tls":{"server":{"not_after":"9999-12-31T23:59:59Z"}},"oddcert":{"certificate":{"not_before":"0001-01-01T00:00:00Z","not_after":"x"}}}`))
	f.Add([]byte(`{"rule":{"name":"\u2028\u0000\ud800"}}`))
	s := &standIn{}
	d := &Destination{}
	f.Fuzz(func(t *testing.T, record []byte) {
		e, err := d.encode(&output.Record{Dataset: output.Alert, JSON: record})
		if err != nil {
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(e))
		decoder.UseNumber()
		var event map[string]any
		if err := decoder.Decode(&event); err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		s.t = t
		s.check(event)
		if _, ok := event["event"].(map[string]any); !ok && event["event"] != nil {
			t.Errorf("event is %v", event["event"])
		}
	})
}
