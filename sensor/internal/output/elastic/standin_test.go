package elastic

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// standIn is a strict stand-in for Elasticsearch: what a real one would refuse
// fails the test. Faults come from a script.
type standIn struct {
	*httptest.Server
	t testing.TB

	mu            sync.Mutex
	documents     map[string]map[string]json.RawMessage // by index and _id
	script        []fault                               // one for each request to come; then all goes well
	requests      []int                                 // records in each bulk request
	authorization string                                // that is asked for, if any
	product       http.Header                           // with which each answer names the server
	templates     string                                // that it has, or what it says of them
	hidden        bool                                  // nobody may ask for them
}

// fault answers a bulk request instead of the stand-in, or returns false to let
// it; item changes the answer for one item.
type fault struct {
	answer func(w http.ResponseWriter, r *http.Request, records []action) bool
	item   func(i int, a action) map[string]any // nil to leave the item as it is
	drop   func(i int) bool                     // leaves the item out of the answer
	cut    int                                  // cuts the answer off so many bytes before its end
}

type action struct {
	index, id string
	document  json.RawMessage
}

func newStandIn(t testing.TB) *standIn {
	s := &standIn{t: t, documents: map[string]map[string]json.RawMessage{}, product: http.Header{"X-Elastic-Product": {"Elasticsearch"}}}
	for d := range schema.Datasets {
		s.templates += `{"name":"` + templateOf(d) + `"},`
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *standIn) plan(faults ...fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	authorization, product, templates, hidden := s.authorization, s.product, s.templates, s.hidden
	s.mu.Unlock()
	for key, values := range product {
		w.Header()[key] = values
	}
	w.Header().Set("Content-Type", "application/json")
	if authorization != "" && r.Header.Get("Authorization") != authorization {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}`)
		return
	}
	switch {
	case r.URL.Path == "/_index_template/*-oddcert.*" && hidden:
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error":{"type":"security_exception","reason":"action is unauthorized"},"status":403}`)
		return
	case r.URL.Path == "/_index_template/*-oddcert.*":
		fmt.Fprintf(w, `{"index_templates":[%s]}`, strings.TrimSuffix(templates, ","))
		return
	case r.URL.Path == "/" && product == nil: // OpenSearch 2
		io.WriteString(w, `{"version":{"distribution":"opensearch","number":"2.19.6"}}`)
		return
	case r.URL.Path != "/_bulk":
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	records := s.parse(r)
	s.mu.Lock()
	s.requests = append(s.requests, len(records))
	var f fault
	if len(s.script) > 0 {
		f, s.script = s.script[0], s.script[1:]
	}
	s.mu.Unlock()
	if f.answer != nil && f.answer(w, r, records) {
		return
	}
	var items []any
	failed := false
	for i, a := range records {
		var item map[string]any
		if f.item != nil {
			item = f.item(i, a)
		}
		if item == nil {
			item = s.create(a)
		}
		item["_id"] = a.id
		failed = failed || item["error"] != nil
		if f.drop == nil || !f.drop(i) {
			items = append(items, map[string]any{"create": item})
		}
	}
	b, err := json.Marshal(map[string]any{"errors": failed, "took": 1, "items": items})
	if err != nil {
		s.t.Error(err)
	}
	w.Write(b[:len(b)-f.cut])
}

// parse reads a bulk request, and fails the test where a server would refuse it.
func (s *standIn) parse(r *http.Request) (records []action) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-ndjson" || r.Header.Get("Content-Encoding") != "gzip" {
		s.t.Errorf("bulk request: %s, %v", r.Method, r.Header)
		return nil
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		s.t.Errorf("bulk request: %v", err)
		return nil
	}
	b := bufio.NewReader(z)
	line := func() []byte {
		l, err := b.ReadBytes('\n')
		if err == io.EOF && len(l) == 0 {
			return nil
		}
		if err != nil {
			s.t.Errorf("bulk request: %v after %q", err, l)
		}
		return l
	}
	for l := line(); l != nil; l = line() {
		var a struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		if err := json.Unmarshal(l, &a); err != nil || a.Create.Index == "" || a.Create.ID == "" {
			s.t.Errorf("bulk request: action %q: %v", l, err)
		}
		records = append(records, action{a.Create.Index, a.Create.ID, append([]byte(nil), line()...)})
	}
	if len(records) == 0 {
		s.t.Error("bulk request: empty")
	}
	return records
}

// create answers as a server with oddcert's templates does.
func (s *standIn) create(a action) map[string]any {
	var d struct {
		Time   string          `json:"@timestamp"`
		Source json.RawMessage `json:"source"`
	}
	fail := func(status int, kind, reason string) map[string]any {
		return map[string]any{"_index": a.index, "status": status, "error": map[string]any{"type": kind, "reason": reason}}
	}
	if err := json.Unmarshal(a.document, &d); err != nil {
		return fail(400, "document_parsing_exception", "failed to parse")
	}
	if d.Time == "" {
		return fail(400, "document_parsing_exception", "data stream timestamp field [@timestamp] is missing")
	}
	if len(d.Source) > 0 && d.Source[0] != '{' {
		return fail(400, "document_parsing_exception", "object mapping for [source] tried to parse field [source] as object, but found a concrete value")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.documents[a.index] == nil {
		s.documents[a.index] = map[string]json.RawMessage{}
	}
	if s.documents[a.index][a.id] != nil {
		return fail(409, "version_conflict_engine_exception", fmt.Sprintf("[%s]: version conflict, document already exists", a.id))
	}
	s.documents[a.index][a.id] = a.document
	return map[string]any{"_index": a.index, "status": 201}
}

func (s *standIn) config(t testing.TB) Config {
	return Config{Addresses: []string{s.URL}, Namespace: estest.Namespace(t)}
}

// search returns the documents of the indexes that match pattern.
func (s *standIn) search(t testing.TB, pattern string) map[string]json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]json.RawMessage{}
	for index, documents := range s.documents {
		if ok, err := path.Match(pattern, index); err == nil && ok {
			for id, d := range documents {
				found[id] = d
			}
		}
	}
	return found
}

// sizes returns how many records each bulk request had.
func (s *standIn) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.requests...)
}
