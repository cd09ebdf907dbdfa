package splunk

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// standIn is a strict stand-in for the HTTP Event Collector, made after Splunk's
// documents: "Format events for HTTP Event Collector" (the members of an event),
// "About HTTP Event Collector Indexer Acknowledgment" (channels and acknowledgements)
// and "Troubleshoot HTTP Event Collector" (codes). What they do not allow is answered
// as they say.
type standIn struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	token   string
	useAck  bool
	indexes []string
	late    int                                             // how often an acknowledgement is asked for before it is there
	faults  []func(w http.ResponseWriter, path string) bool // one for each request to come; false lets it pass
	invalid func(e map[string]any) bool                     // events that cannot be indexed

	indexed  []map[string]any
	requests int
	asked    int
	askedIn  []string                 // the channel of each question
	acks     map[string]map[int64]int // by channel: how often each id was asked for
	next     map[string]int64
}

func newStandIn(t testing.TB) *standIn {
	s := &standIn{t: t, token: "11111111-2222-3333-4444-555555555555", useAck: true, indexes: []string{"main", "tls"},
		acks: map[string]map[int64]int{}, next: map[string]int64{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func answer(w http.ResponseWriter, status, code int, text, more string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"text":%q,"code":%d%s}`, text, code, more)
}

var guid = regexp.MustCompile(`^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$`)

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z, err := gzip.NewReader(r.Body)
	if err != nil || r.Header.Get("Content-Encoding") != "gzip" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		s.t.Errorf("request %s %v: %v", r.Method, r.Header, err)
		return
	}
	body, err := io.ReadAll(z)
	if err != nil {
		s.t.Error(err)
	}
	if len(s.faults) > 0 {
		f := s.faults[0]
		s.faults = s.faults[1:]
		if f(w, r.URL.Path) {
			return
		}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	channel := r.Header.Get("X-Splunk-Request-Channel")
	switch {
	case token == "":
		answer(w, 401, 2, "Token is required", "")
	case scheme != "Splunk":
		answer(w, 401, 3, "Invalid authorization", "")
	case token != s.token:
		answer(w, 403, 4, "Invalid token", "")
	case r.URL.Path == "/services/collector/event":
		s.event(w, channel, body)
	case r.URL.Path == "/services/collector/ack":
		s.ack(w, channel, body)
	default:
		s.t.Errorf("path %s", r.URL.Path)
		w.WriteHeader(404)
	}
}

func (s *standIn) event(w http.ResponseWriter, channel string, body []byte) {
	s.requests++
	if s.useAck && channel == "" {
		answer(w, 400, 10, "Data channel is missing", "")
		return
	}
	if s.useAck && !guid.MatchString(channel) {
		answer(w, 400, 11, "Invalid data channel", "")
		return
	}
	var events []map[string]any
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	for n := 0; ; n++ {
		var e map[string]any
		err := d.Decode(&e)
		if err == io.EOF {
			break
		}
		at := fmt.Sprintf(`,"invalid-event-number":%d`, n)
		if err != nil {
			answer(w, 400, 6, "Invalid data format", at)
			return
		}
		s.check(e)
		index, _ := e["index"].(string)
		switch event, there := e["event"]; {
		case !there:
			answer(w, 400, 12, "Event field is required", at)
			return
		case event == "":
			answer(w, 400, 13, "Event field cannot be blank", at)
			return
		case index != "" && !slices.Contains(s.indexes, index):
			answer(w, 400, 7, "Incorrect index", at)
			return
		case s.invalid != nil && s.invalid(e):
			answer(w, 400, 15, "Error in handling indexed fields", at)
			return
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		answer(w, 400, 5, "No data", "")
		return
	}
	s.indexed = append(s.indexed, events...)
	if !s.useAck {
		answer(w, 200, 0, "Success", "")
		return
	}
	id := s.next[channel]
	s.next[channel]++
	if s.acks[channel] == nil {
		s.acks[channel] = map[int64]int{}
	}
	s.acks[channel][id] = 0
	answer(w, 200, 0, "Success", fmt.Sprintf(`,"ackId":%d`, id))
}

var seconds = regexp.MustCompile(`^-?[0-9]+\.[0-9]{6}$`)

// check fails the test where an event is none.
func (s *standIn) check(e map[string]any) {
	for name, value := range e {
		text, isText := value.(string)
		switch name {
		case "time":
			if n, ok := value.(json.Number); !ok || !seconds.MatchString(n.String()) {
				s.t.Errorf("time is %v", value)
			}
		case "host", "source", "sourcetype", "index":
			if !isText || text == "" {
				s.t.Errorf("%s is %v", name, value)
			}
		case "event":
		case "fields":
			fields, ok := value.(map[string]any)
			if !ok {
				s.t.Errorf("fields is %v", value)
			}
			for name, value := range fields {
				list, ok := value.([]any)
				if !ok {
					list = []any{value}
				}
				for _, v := range list {
					if text, ok := v.(string); !ok || text == "" {
						s.t.Errorf("field %s is %v", name, value)
					}
				}
			}
		default:
			s.t.Errorf("an event has no member %s", name)
		}
	}
}

// ack says true once for each id, and forgets it: so does Splunk.
func (s *standIn) ack(w http.ResponseWriter, channel string, body []byte) {
	s.asked++
	s.askedIn = append(s.askedIn, channel)
	if !s.useAck {
		answer(w, 400, 14, "ACK is disabled", "")
		return
	}
	var q struct {
		Acks []int64 `json:"acks"`
	}
	if err := json.Unmarshal(body, &q); err != nil || len(q.Acks) == 0 {
		answer(w, 400, 6, "Invalid data format", "")
		return
	}
	acks := map[string]bool{}
	for _, id := range q.Acks {
		n, there := s.acks[channel][id]
		acks[fmt.Sprint(id)] = there && n >= s.late
		if there {
			s.acks[channel][id]++
		}
		if there && n >= s.late {
			delete(s.acks[channel], id)
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"acks": acks})
}

// ids counts how often each event was indexed.
func (s *standIn) ids() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, e := range s.indexed {
		n[e["fields"].(map[string]any)["event_id"].(string)]++
	}
	return n
}
