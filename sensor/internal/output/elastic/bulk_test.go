package elastic

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// FuzzAnswer reads answers to a request of three records. A record has a verdict only
// where the answer names it, and there is no trouble only where each has one.
func FuzzAnswer(f *testing.F) {
	records := []*output.Record{{ID: "a1"}, {ID: "b2"}, {ID: "c3"}}
	for _, s := range []string{
		`{"errors":false,"took":1,"items":[{"create":{"_id":"a1","status":201}},{"create":{"_id":"b2","status":409}},{"create":{"_id":"c3","status":400,"error":{"type":"t","reason":"r","caused_by":{"type":"t","reason":"c","caused_by":{"reason":"d"}}}}}]}`,
		`{"items":[{"create":{"_id":"c3","status":429,"error":{"type":"cluster_block_exception"}}}]}`,
		`{"items":[{"create":{"_id":"a1","status":201,"failure_store":"used"}},{"create":{"_id":"a1","status":500,"error":"text"}}]}`,
		`{"items":[null,{"create":null},{},1]}`, `{"items":{}}`, `[]`, `{"items":[`, ``, `{"items":[{"create":{"_id":"b2","status":400,"error":[]}}]} x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		verdicts := make([]delivery.Verdict, len(records))
		trouble := readAnswer(bytes.NewReader(answer), records, verdicts)
		for i, v := range verdicts {
			if v == (delivery.Verdict{}) {
				continue
			}
			// The id can be written with escapes, and then the text does not have it.
			if !bytes.Contains(answer, []byte(records[i].ID)) && !bytes.Contains(answer, []byte(`\u`)) {
				t.Errorf("%s has a verdict, and is not named: %+v", records[i].ID, v)
			}
			if len(v.Reason) > delivery.MaxReason || !utf8.ValidString(v.Reason) {
				t.Errorf("reason of %d bytes: %q", len(v.Reason), v.Reason)
			}
			if v.Fate == delivery.Delivered && v.Status != 200 && v.Status != 201 {
				t.Errorf("delivered with status %d", v.Status)
			}
			if v.Fate == delivery.Dead && (v.Status < 400 || v.Status >= 500) {
				t.Errorf("dead with status %d", v.Status)
			}
		}
		if trouble == nil && bytes.Count(answer, []byte("status")) < len(records) && !bytes.Contains(answer, []byte(`\u`)) && !strings.Contains(strings.ToLower(string(answer)), "_id") {
			t.Errorf("no trouble, but not all have an answer: %q", answer)
		}
	})
}

// FuzzStatusError reads the bodies of errors, of whoever gave them.
func FuzzStatusError(f *testing.F) {
	for _, s := range []string{
		`{"error":{"type":"security_exception","reason":"missing authentication credentials","caused_by":{"reason":"x"}},"status":401}`,
		`{"error":"Incorrect HTTP method for uri [/] and method [GET], allowed: [DELETE]","status":405}`,
		"<html>\n<h1>502</h1>", "no\nroute", "", "{", `{"error":null}`, `{"error":[1]}`, "\xff\xfe",
	} {
		f.Add(500, []byte(s))
	}
	c := &Client{}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := statusError(status, body)
		if len(e.Type) > delivery.MaxReason || len(e.Reason) > delivery.MaxReason || !utf8.ValidString(e.Error()) {
			t.Errorf("%q: %q", body, e)
		}
		if status == 401 {
			return // what to do about it depends on the configuration
		}
		trouble := c.refusal(nil, e)
		if trouble.Split && (trouble.Slow || status != 413 && status != 400) || trouble.After != 0 || trouble.Class == "" {
			t.Errorf("%d %q: %+v", status, body, trouble)
		}
	})
}
