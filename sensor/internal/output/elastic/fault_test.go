package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// status answers the whole request with a status.
func status(code int, body string, headers ...string) fault {
	return fault{answer: func(w http.ResponseWriter, _ *http.Request, _ []action) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
		return true
	}}
}

// itemStatus answers the items that pick picks with a status.
func itemStatus(code int, kind string, pick func(i int) bool) fault {
	return fault{item: func(i int, _ action) map[string]any {
		if !pick(i) {
			return nil
		}
		return map[string]any{"status": code, "error": map[string]any{"type": kind, "reason": "as scripted"}}
	}}
}

func all(int) bool     { return true }
func odd(i int) bool   { return i%2 == 1 }
func first(i int) bool { return i == 0 }

// hang answers nothing until the client gives up.
var hang = fault{answer: func(_ http.ResponseWriter, r *http.Request, _ []action) bool {
	<-r.Context().Done()
	return true
}}

// hangUp closes the connection without an answer.
var hangUp = fault{answer: func(w http.ResponseWriter, _ *http.Request, _ []action) bool {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		c.Close()
	}
	return true
}}

// huge answers with more than anybody reads: JSON that never ends.
func huge(code int, start string) fault {
	return fault{answer: func(w http.ResponseWriter, r *http.Request, _ []action) bool {
		w.WriteHeader(code)
		io.WriteString(w, start)
		chunk := bytes.Repeat([]byte{' '}, 1<<20)
		for range 1 << 10 {
			if _, err := w.Write(chunk); err != nil || r.Context().Err() != nil {
				return true
			}
		}
		return true
	}}
}

// TestFaults answers one batch of 20 alerts with one fault, and holds what Send says
// of it. Then all goes well: each record is there once, or is dead.
func TestFaults(t *testing.T) {
	const n = 20
	const tooMany = `{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"},"status":429}`
	every := func(fate delivery.Fate) string { return strings.Repeat(fmt.Sprint(fate), n) }
	half := func(even, odd delivery.Fate) string { return strings.Repeat(fmt.Sprintf("%d%d", even, odd), n/2) }
	for name, c := range map[string]struct {
		fault fault
		fates string // each is Again unless it is given
		class string // of the trouble, empty for none
		slow  bool
		split bool
		said  string // in the trouble, or in the last reason
	}{
		"none":                {fates: every(delivery.Delivered)},
		"429":                 {fault: status(429, tooMany), class: "status 429", said: "queue is full"},
		"502 of a proxy":      {fault: status(502, "<html>bad gateway</html>"), class: "status 502", said: "status 502"},
		"503":                 {fault: status(503, ""), class: "status 503", said: "status 503"},
		"500":                 {fault: status(500, "{}"), class: "status 500", said: "status 500"},
		"time-out":            {fault: hang, class: "network", said: "deadline exceeded"},
		"hung up":             {fault: hangUp, class: "network", said: "EOF"},
		"answer cut at end":   {fault: fault{cut: 1}, fates: every(delivery.Delivered), class: "answer", said: "read answer"},
		"cut answer":          {fault: fault{cut: 150}, fates: strings.Repeat("1", n-2) + "00", class: "answer", said: "read answer"},
		"empty answer":        {fault: status(200, ""), class: "answer", said: "read answer"},
		"HTML":                {fault: status(200, "<html>log in</html>"), class: "answer", said: "read answer"},
		"a list":              {fault: status(200, `[1]`), class: "answer", said: "read answer"},
		"no list of items":    {fault: status(200, `{"items":{}}`), class: "answer", said: "read answer"},
		"wrong items":         {fault: status(200, `{"items":[1]}`), class: "answer", said: "read answer"},
		"null items":          {fault: status(200, `{"items":[null,{"create":null},{}]}`), class: "answer", said: "0 of 20 items"},
		"short answer":        {fault: fault{drop: odd}, fates: half(delivery.Delivered, delivery.Again), class: "answer", said: "10 of 20 items"},
		"1 GB":                {fault: huge(200, `{"took":1,`), class: "answer", said: "read answer"},
		"1 GB of an item":     {fault: huge(200, `{"items":[{"create":{"_id":"`), class: "answer", said: "read answer"},
		"1 GB of an error":    {fault: huge(500, `{"error":"x`), class: "status 500", said: "status 500"},
		"items 429":           {fault: itemStatus(429, "es_rejected_execution_exception", odd), fates: half(delivery.Delivered, delivery.Again), said: "es_rejected_execution_exception"},
		"items 503":           {fault: itemStatus(503, "unavailable_shards_exception", all), said: "unavailable_shards"},
		"items 500":           {fault: itemStatus(500, "x", first), fates: "0" + strings.Repeat("1", n-1)},
		"items 400":           {fault: itemStatus(400, "document_parsing_exception", odd), fates: half(delivery.Delivered, delivery.Dead), said: "as scripted"},
		"items 404":           {fault: itemStatus(404, "shard_not_found_exception", first), fates: "3" + strings.Repeat("1", n-1)},
		"no stream":           {fault: itemStatus(404, "index_not_found_exception", all), fates: every(delivery.Blocked), said: "index_not_found_exception"},
		"closed index":        {fault: itemStatus(400, "index_closed_exception", all), fates: every(delivery.Blocked), said: "index_closed_exception"},
		"disk nearly full":    {fault: itemStatus(429, "cluster_block_exception", all), fates: every(delivery.Blocked), said: "cluster_block_exception"},
		"read-only":           {fault: itemStatus(403, "cluster_block_exception", all), fates: every(delivery.Blocked), said: "cluster_block_exception"},
		"no master":           {fault: itemStatus(503, "cluster_block_exception", all), said: "cluster_block_exception"},
		"items 403":           {fault: itemStatus(403, "security_exception", all), fates: every(delivery.Blocked), said: "security_exception"},
		"401":                 {fault: status(401, `{"error":{"type":"security_exception","reason":"who are you"}}`), class: "status 401", slow: true, said: "who are you"},
		"403":                 {fault: status(403, `{"error":"forbidden"}`), class: "status 403", slow: true, said: "forbidden"},
		"redirect":            {fault: status(302, "", "Location", "http://127.0.0.1:1/?pw=hunter2"), class: "status 302", slow: true, said: "redirections are not followed"},
		"404 of a wrong path": {fault: status(404, "not here"), class: "status 404", slow: true, said: "not here"},
		"400 of a proxy":      {fault: status(400, "<html>The plain HTTP request was sent to HTTPS port"), class: "status 400", slow: true, said: "status 400"},
		"413":                 {fault: status(413, ""), class: "status 413", split: true, said: "status 413"},
		"400 of a record":     {fault: status(400, `{"error":{"type":"x_content_parse_exception","reason":"bad"},"status":400}`), class: "status 400", split: true, said: "bad"},
		"all blocked":         {fault: status(503, `{"error":{"type":"cluster_block_exception","reason":"no master"},"status":503}`), class: "status 503", said: "no master"},
		"no pipeline": {fault: fault{item: func(int, action) map[string]any {
			return map[string]any{"status": 400, "error": map[string]any{"type": "illegal_argument_exception", "reason": "pipeline with id [oddcert@final] does not exist"}}
		}}, fates: every(delivery.Blocked), said: "oddcert@final"},
		"failure store": {fault: fault{item: func(int, action) map[string]any { return map[string]any{"status": 201, "failure_store": "used"} }}, fates: every(delivery.Delivered)},
		"no product":    {fault: status(200, `{"items":[]}`, "X-Elastic-Product", ""), class: "product", slow: true, said: "neither Elasticsearch nor OpenSearch"},
		"early answer":  {fault: status(429, tooMany, "Connection", "close"), class: "status 429", said: "queue is full"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.plan(c.fault)
			d := newTest(t, Config{Addresses: []string{s.URL}}, nil)
			if name == "time-out" {
				d.client.timeout = 100 * time.Millisecond
			}
			var records []*output.Record
			for i := range n {
				records = append(records, record(output.Alert, i))
			}
			verdicts := make([]delivery.Verdict, n)
			trouble := d.Send(t.Context(), records, verdicts)
			want := c.fates
			if want == "" {
				want = every(delivery.Again)
			}
			if got := fates(verdicts); got != want {
				t.Errorf("fates %s, want %s", got, want)
			}
			text := verdicts[n-1].Reason
			if trouble == nil {
				trouble = &delivery.Trouble{}
			} else {
				text = trouble.Err.Error()
			}
			if trouble.Class != c.class || trouble.Slow != c.slow || trouble.Split != c.split {
				t.Errorf("trouble %+v", trouble)
			}
			if !strings.Contains(text, c.said) || strings.ContainsAny(text, "\n") || strings.Contains(text, "hunter2") || len(text) > 2*delivery.MaxReason {
				t.Errorf("said %q, want %q", text, c.said)
			}
			if (name == "failure store") != verdicts[0].Redirected {
				t.Error("redirected")
			}
			d.client.timeout = enough
			var back []*output.Record
			dead := 0
			for i, v := range verdicts {
				switch v.Fate {
				case delivery.Again, delivery.Blocked:
					back = append(back, records[i])
				case delivery.Dead:
					dead++
				}
			}
			if len(back) > 0 {
				one(t, d, back...)
			}
			if found := s.search(t, "logs-oddcert.alert-default"); len(found) != n-dead && name != "failure store" {
				t.Errorf("%d documents, and %d dead", len(found), dead)
			}
		})
	}
}

// TestSplit has a server that takes few records at a time, and one that chokes
// on one record.
func TestSplit(t *testing.T) {
	const n = 100
	bad := record(output.Alert, 42).ID
	refuse := func(status int, body string) fault {
		return fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
			for _, r := range records {
				if r.id == bad {
					w.WriteHeader(status)
					io.WriteString(w, body)
					return true
				}
			}
			return false
		}}
	}
	for name, c := range map[string]struct {
		fault fault
		dead  uint64
		said  string
	}{
		"413 above 7": {fault: fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
			if len(records) > 7 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
			return len(records) > 7
		}}},
		"413 always for one": {refuse(413, ""), 1, "status 413"},
		"400 always for one": {refuse(400, `{"error":{"type":"x_content_parse_exception","reason":"bad"},"status":400}`), 1, "bad"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			for range 10 * n {
				s.plan(c.fault)
			}
			dir := t.TempDir()
			var records []*output.Record
			for i := range n {
				records = append(records, record(output.Alert, i))
			}
			st := start(t, newTest(t, Config{Addresses: []string{s.URL}}, nil), dir, nil, records...).finish(t)
			if st.Delivered.Total() != n-c.dead || st.Dead.Total() != c.dead || st.Duplicates.Total() != 0 {
				t.Errorf("delivered %d, dead %d, duplicates %d", st.Delivered.Total(), st.Dead.Total(), st.Duplicates.Total())
			}
			letters := deadLetters(t, dir)
			if uint64(len(letters)) != c.dead || c.dead > 0 && (letters[0].ID != bad || !strings.Contains(letters[0].Reason, c.said)) {
				t.Errorf("dead letters %+v", letters)
			}
		})
	}
}

// TestRetryAfter holds what a server may ask for (RFC 9110, section 10.2.3).
func TestRetryAfter(t *testing.T) {
	s := newStandIn(t)
	s.plan(status(429, "", "Retry-After", "7"))
	d := newTest(t, Config{Addresses: []string{s.URL}}, nil)
	if trouble := d.Send(t.Context(), []*output.Record{record(output.Alert, 1)}, make([]delivery.Verdict, 1)); trouble == nil || trouble.After != 7*time.Second {
		t.Errorf("trouble %+v", trouble)
	}
}

// TestFailOver has several addresses, of which some do not answer.
func TestFailOver(t *testing.T) {
	closed := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	a, b, s := closed(), closed(), newStandIn(t)
	other := newStandIn(t)
	other.product = http.Header{"Server": {"nginx"}} // not what we look for
	other.templates = ""
	var said syncBuffer
	d := newTest(t, Config{Addresses: []string{"http://" + a, other.URL, s.URL, "http://" + b}}, said.logger())
	const n = 20
	for i := range n {
		one(t, d, record(output.Alert, i))
	}
	if found := s.search(t, "*"); len(found) != n {
		t.Errorf("%d documents", len(found))
	}
	for _, dead := range []string{a, b, strings.TrimPrefix(other.URL, "http://")} {
		if c := strings.Count(said.String(), dead); c > 2 { // it is left out for a minute, and the error may name it twice
			t.Errorf("%s is named %d times: %s", dead, c, said.String())
		}
	}
	if !strings.Contains(said.String(), "an address does not answer, another one does") {
		t.Errorf("said %q", said.String())
	}
	// When none is left, the error is that of the last, and the next call tries again.
	s.Close()
	trouble := d.Send(t.Context(), []*output.Record{record(output.Alert, n)}, make([]delivery.Verdict, 1))
	if trouble == nil {
		t.Fatal("no trouble without a server")
	}
	t.Log(trouble.Err)
}

// TestConcurrent sends from many goroutines.
func TestConcurrent(t *testing.T) {
	s := newStandIn(t)
	d := newTest(t, Config{Addresses: []string{s.URL}}, nil)
	var wg sync.WaitGroup
	const workers, rounds, size = 8, 10, 20
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				var batch []*output.Record
				for j := range size {
					batch = append(batch, record(output.Handshake, (w*rounds+i)*size+j))
				}
				verdicts := make([]delivery.Verdict, size)
				if trouble := d.Send(context.Background(), batch, verdicts); trouble != nil || fates(verdicts) != strings.Repeat("1", size) {
					t.Errorf("fates %s, %v", fates(verdicts), trouble)
				}
			}
		})
	}
	wg.Wait()
	for id, document := range s.search(t, "*") {
		var d struct{ Event struct{ ID string } }
		if err := json.Unmarshal(document, &d); err != nil || d.Event.ID != id {
			t.Fatalf("%s: %s, %v", id, document, err)
		}
	}
	if found := s.search(t, "*"); len(found) != workers*rounds*size {
		t.Errorf("%d documents", len(found))
	}
}

// TestCredentialsReplaced replaces a key that the server refuses, and holds that the
// next request has the new one.
func TestCredentialsReplaced(t *testing.T) {
	s := newStandIn(t)
	s.authorization = "ApiKey bmV3"
	path := filepath.Join(t.TempDir(), "key")
	put := func(key string) {
		if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("b2xk")
	d := newTest(t, Config{Addresses: []string{s.URL}, APIKeyFile: path}, nil)
	send := func() *delivery.Trouble {
		return d.Send(t.Context(), []*output.Record{record(output.Alert, 1)}, make([]delivery.Verdict, 1))
	}
	for range 2 {
		if trouble := send(); trouble == nil || !trouble.Slow || !strings.Contains(trouble.Err.Error(), path) || strings.Contains(trouble.Err.Error(), "b2xk") {
			t.Fatalf("old key: %+v", trouble)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if trouble := send(); trouble == nil || !trouble.Slow || trouble.Class != "credentials" || !errors.Is(trouble.Err, os.ErrNotExist) {
		t.Fatalf("no key: %+v", trouble)
	}
	put("bmV3")
	if trouble := send(); trouble != nil {
		t.Fatalf("new key: %v", trouble.Err)
	}
	// A file that somebody takes away does not matter while the server takes what was in it.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if trouble := send(); trouble != nil {
		t.Fatalf("file removed: %v", trouble.Err)
	}
}

// TestServerKind talks to servers that name themselves in each way, and to one that
// is neither of them.
func TestServerKind(t *testing.T) {
	es := http.Header{"X-Elastic-Product": {"Elasticsearch"}}
	os3 := http.Header{"X-Opensearch-Version": {"OpenSearch/3.6.0 (opensearch)"}}
	for name, c := range map[string]struct {
		server  string
		product http.Header
		want    string // of the trouble
	}{
		"Elasticsearch":                 {"", es, ""},
		"Elasticsearch as configured":   {"elasticsearch", es, ""},
		"OpenSearch 3":                  {"", os3, ""},
		"OpenSearch 3 as configured":    {"opensearch", os3, ""},
		"OpenSearch 2":                  {"", nil, ""},
		"OpenSearch 2 as configured":    {"opensearch", nil, ""},
		"OpenSearch, not as configured": {"elasticsearch", os3, "what answers is OpenSearch"},
		"something else":                {"", http.Header{"Server": {"nginx"}}, "neither Elasticsearch nor OpenSearch"},
		"something else, as configured": {"elasticsearch", http.Header{"Server": {"nginx"}}, "neither Elasticsearch nor OpenSearch"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.product = c.product
			d := newTest(t, Config{Addresses: []string{s.URL}, Server: c.server}, nil)
			trouble := d.Send(t.Context(), []*output.Record{record(output.Alert, 1)}, make([]delivery.Verdict, 1))
			if c.want == "" && trouble != nil {
				t.Errorf("trouble: %v", trouble.Err)
			}
			if c.want != "" && (trouble == nil || !trouble.Slow || !strings.Contains(trouble.Err.Error(), c.want)) {
				t.Errorf("trouble %+v, want %q", trouble, c.want)
			}
		})
	}
}

// TestServerReplaced puts OpenSearch 2 to where Elasticsearch was.
func TestServerReplaced(t *testing.T) {
	s := newStandIn(t)
	d := newTest(t, Config{Addresses: []string{s.URL}}, nil)
	one(t, d, record(output.Alert, 1))
	s.product = nil
	if trouble := d.Send(t.Context(), []*output.Record{record(output.Alert, 2)}, make([]delivery.Verdict, 1)); trouble == nil || trouble.Class != "product" {
		t.Errorf("trouble %+v", trouble)
	}
	if got := fates(one(t, d, record(output.Alert, 3))); got != "1" {
		t.Errorf("fates %s", got)
	}
}
