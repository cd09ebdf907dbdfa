package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/elastic/estest"
	"github.com/oddcert/oddcert/sensor/internal/output/schema"
)

// server is what the contract is checked on.
type server interface {
	config(t testing.TB) Config // with a namespace for the test
	search(t testing.TB, pattern string) map[string]json.RawMessage
}

type realServer struct{ *estest.Server }

func (s realServer) config(t testing.TB) Config {
	return Config{Addresses: []string{s.URL}, Namespace: estest.Namespace(t)}
}

func (s realServer) search(t testing.TB, pattern string) map[string]json.RawMessage {
	t.Helper()
	return s.Search(t, pattern)
}

// connect makes a client for a server without security.
func connect(t testing.TB, s *estest.Server) *Client {
	t.Helper()
	c, err := NewClient(Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// ready is the shared server of a product with the templates. Elasticsearch 7 comes
// without data streams: it takes records all the same.
func ready(t testing.TB, p estest.Product) realServer {
	t.Helper()
	if testing.Short() && p != estest.Elasticsearch8 {
		t.Skip("starts a server of its own")
	}
	s := estest.SharedOf(t, p)
	if p == estest.Elasticsearch7 {
		return realServer{s}
	}
	if _, err := Setup(t.Context(), connect(t, s), SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	return realServer{s}
}

// TestContract holds the stand-in and real servers to the same expectations,
// so that what is tested on the stand-in alone means something.
func TestContract(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) { contract(t, newStandIn(t)) })
	for _, p := range estest.Products {
		t.Run(p.String(), func(t *testing.T) { contract(t, ready(t, p)) })
	}
}

func contract(t *testing.T, s server) {
	var unset syncBuffer // Elasticsearch 7 lacks the templates
	t.Run("each dataset goes to its stream", func(t *testing.T) {
		cfg := s.config(t)
		d := newTest(t, cfg, unset.logger())
		e := start(t, d, t.TempDir(), nil)
		const n = 70
		for i := range n {
			e.write(t, record(output.Dataset(i)%output.Datasets, i))
		}
		st := e.finish(t)
		if st.Delivered.Total() != n || st.Duplicates.Total() != 0 || st.Retries != 0 {
			t.Errorf("stats %+v", st)
		}
		for d := range schema.Datasets {
			want := st.Delivered[d]
			if output.Dataset(d) == output.Handshake {
				want += st.Delivered[output.FullHandshake]
			}
			found := s.search(t, d.DataStream(cfg.Namespace))
			if uint64(len(found)) != want {
				t.Errorf("%s: found %d documents, delivered %d", d, len(found), want)
			}
			for id, document := range found {
				var e struct {
					Event  struct{ ID, Dataset string }
					Stream struct{ Type, Dataset, Namespace string } `json:"data_stream"`
				}
				if err := json.Unmarshal(document, &e); err != nil || e.Event.ID != id || e.Event.Dataset != "oddcert."+d.String() {
					t.Errorf("%s: document %s: %s (%v)", d, id, document, err)
				}
				if name := e.Stream.Type + "-" + e.Stream.Dataset + "-" + e.Stream.Namespace; name != d.DataStream(cfg.Namespace) {
					t.Errorf("%s: document of the data stream %s: %s", d, name, document)
				}
			}
		}
	})
	t.Run("what is there already counts as done", func(t *testing.T) {
		cfg := s.config(t)
		for round, want := range []string{strings.Repeat("1", 20) + "2", strings.Repeat("2", 21)} {
			var batch []*output.Record
			for i := range 20 {
				batch = append(batch, record(output.Alert, i))
			}
			batch = append(batch, record(output.Alert, 3)) // once more in the same batch
			if got := fates(one(t, newTest(t, cfg, unset.logger()), batch...)); got != want {
				t.Errorf("round %d: fates %s, want %s", round, got, want)
			}
		}
		if found := s.search(t, "logs-oddcert.alert-"+cfg.Namespace); len(found) != 20 {
			t.Errorf("found %d documents, want 20", len(found))
		}
	})
	t.Run("a record that no mapping takes is a dead letter", func(t *testing.T) {
		cfg := s.config(t)
		dir := t.TempDir()
		e := start(t, newTest(t, cfg, unset.logger()), dir, nil, record(output.Alert, 1), broken(2), record(output.Alert, 3))
		if st := e.finish(t); st.Delivered[output.Alert] != 2 || st.Dead[output.Alert] != 1 {
			t.Errorf("delivered %d, dead %d", st.Delivered[output.Alert], st.Dead[output.Alert])
		}
		letters := deadLetters(t, dir)
		if len(letters) != 1 {
			t.Fatalf("%d dead letters", len(letters))
		}
		l := letters[0]
		if want := broken(2); l.ID != want.ID || string(l.Document) != string(want.JSON) || l.Status != http.StatusBadRequest ||
			!strings.Contains(l.Reason, "_parsing_exception") || !strings.Contains(l.Reason, "[source]") {
			t.Errorf("dead letter %+v", l)
		}
		if found := s.search(t, "logs-oddcert.alert-"+cfg.Namespace); len(found) != 2 {
			t.Errorf("found %d documents, want 2", len(found))
		}
	})
	t.Run("what another process left is delivered", func(t *testing.T) {
		cfg := s.config(t)
		dir := t.TempDir()
		var records []*output.Record
		for i := range 30 {
			records = append(records, record(output.Handshake, i))
		}
		left := start(t, newTest(t, Config{Addresses: []string{"http://127.0.0.1:1"}}, nil), dir, nil, records...)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var u *delivery.Undelivered
		if err := left.Close(ctx); !errors.As(err, &u) || u.Records != 30 || u.Dir != dir {
			t.Fatalf("close: %v", err)
		}
		e := start(t, newTest(t, cfg, unset.logger()), dir, nil)
		if st := e.finish(t); st.Delivered.Total() != 30 {
			t.Errorf("delivered %d", st.Delivered.Total())
		}
		if found := s.search(t, "logs-oddcert.handshake-"+cfg.Namespace); len(found) != 30 {
			t.Errorf("found %d documents, want 30", len(found))
		}
	})
	t.Run("any id can be sent", func(t *testing.T) {
		cfg := s.config(t)
		var batch []*output.Record
		for _, id := range []string{`a"`, "a b", `a\`, `"}}` + "x", "<&>"} {
			r := record(output.Hello, 1)
			r.ID = id
			batch = append(batch, r)
		}
		d := newTest(t, cfg, unset.logger())
		if got := fates(one(t, d, batch...)); got != "11111" {
			t.Errorf("fates %s", got)
		}
		found := s.search(t, "logs-oddcert.hello-"+cfg.Namespace)
		for _, r := range batch {
			if found[r.ID] == nil {
				t.Errorf("%q is not there", r.ID)
			}
		}
	})
}

// TestBlocked makes states of a real server in which it takes no record, and holds
// that records wait for their end and are delivered then.
func TestBlocked(t *testing.T) {
	for _, p := range []estest.Product{estest.Elasticsearch8, estest.Elasticsearch7, estest.OpenSearch3} {
		t.Run(p.String(), func(t *testing.T) {
			s := ready(t, p)
			cluster := func(t *testing.T, settings string) {
				s.Do(t, http.MethodPut, "/_cluster/settings", `{"transient":{`+settings+`}}`, nil)
			}
			put := func(t *testing.T, index, settings string) {
				s.Do(t, http.MethodPut, "/"+index+"/_settings", `{`+settings+`}`, nil)
			}
			for name, c := range map[string]struct {
				cause, end func(t *testing.T, index string)
				fresh      bool // the stream is not there yet
				said       string
			}{
				"closed index": {
					cause: func(t *testing.T, index string) { s.Do(t, http.MethodPost, "/"+index+"/_close", "", nil) },
					end:   func(t *testing.T, index string) { s.Do(t, http.MethodPost, "/"+index+"/_open", "", nil) },
					said:  "index_closed_exception",
				},
				"disk nearly full": {
					cause: func(t *testing.T, index string) { put(t, index, `"index.blocks.read_only_allow_delete":true`) },
					end:   func(t *testing.T, index string) { put(t, index, `"index.blocks.read_only_allow_delete":null`) },
					said:  "flood-stage watermark",
				},
				"read-only index": {
					cause: func(t *testing.T, index string) { put(t, index, `"index.blocks.read_only":true`) },
					end:   func(t *testing.T, index string) { put(t, index, `"index.blocks.read_only":null`) },
					said:  "index read-only",
				},
				"unknown index": {
					cause: func(t *testing.T, _ string) { cluster(t, `"action.auto_create_index":"false"`) },
					end:   func(t *testing.T, _ string) { cluster(t, `"action.auto_create_index":null`) },
					said:  "index_not_found_exception",
					fresh: true,
				},
				"too many shards": {
					cause: func(t *testing.T, _ string) { cluster(t, `"cluster.max_shards_per_node":1`) },
					end:   func(t *testing.T, _ string) { cluster(t, `"cluster.max_shards_per_node":null`) },
					said:  "shards open",
					fresh: true,
				},
			} {
				t.Run(name, func(t *testing.T) {
					if name == "unknown index" && p == estest.Elasticsearch8 {
						t.Skip("its templates allow it")
					}
					if name == "closed index" && p == estest.OpenSearch3 {
						t.Skip("it does not close an index that a data stream writes to")
					}
					cfg := s.config(t)
					index := "none"
					d := newTest(t, cfg, slogDiscard)
					if !c.fresh {
						one(t, d, record(output.Alert, 0))
						index = indexOf(t, s.Server, "logs-oddcert.alert-"+cfg.Namespace)
					}
					c.cause(t, index)
					ended := false
					defer func() {
						if !ended { // other tests share the server
							c.end(t, index)
						}
					}()
					dir := t.TempDir()
					var said syncBuffer
					e := start(t, d, dir, said.logger(), record(output.Alert, 1), record(output.Alert, 2))
					until(t, "records go again", func() bool { return e.out.Stats().Retries >= 4 })
					c.end(t, index)
					ended = true
					if st := e.finish(t); st.Delivered.Total() != 2 || st.Dead.Total() != 0 || len(deadLetters(t, dir)) != 0 {
						t.Errorf("delivered %d, dead %d", st.Delivered.Total(), st.Dead.Total())
					}
					if n := strings.Count(said.String(), "cannot deliver"); n != 1 || !strings.Contains(said.String(), c.said) || !strings.Contains(said.String(), "delivers again") {
						t.Errorf("said %q", said.String())
					}
				})
			}
		})
	}
}

// indexOf is the name of the index of a data stream, or of the index of that name.
func indexOf(t *testing.T, s *estest.Server, stream string) string {
	t.Helper()
	var answer map[string]json.RawMessage
	s.Do(t, http.MethodGet, "/"+stream+"/_settings", "", &answer)
	for name := range answer {
		return name
	}
	t.Fatalf("%s has no index", stream)
	return ""
}

// TestTooLarge sends more than a server takes at a time.
func TestTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server of its own")
	}
	s := realServer{estest.Start(t, estest.Options{Product: estest.Elasticsearch7, Settings: []string{"http.max_content_length=64kb"}})}
	cfg := s.config(t)
	dir := t.TempDir()
	var records []*output.Record
	for i := range 60 {
		r := record(output.Handshake, i)
		size := 4 << 10
		if i == 42 {
			size = 80 << 10 // it is too large alone
		}
		noise := make([]byte, size) // what is counted may be compressed
		for j := range noise {
			noise[j] = "0123456789abcdef"[(i*7919+j*j*31+j*i*13+(j>>3)*17)%16]
		}
		r.JSON = fmt.Appendf(r.JSON[:len(r.JSON)-1], `,"message":%q}`, noise)
		records = append(records, r)
	}
	e := start(t, newTest(t, cfg, slogDiscard), dir, nil, records...)
	if st := e.finish(t); st.Delivered.Total() != 59 || st.Dead.Total() != 1 {
		t.Errorf("delivered %d, dead %d", st.Delivered.Total(), st.Dead.Total())
	}
	letters := deadLetters(t, dir)
	if len(letters) != 1 || letters[0].ID != records[42].ID || !strings.Contains(letters[0].Reason, "413") {
		t.Errorf("%d dead letters", len(letters))
	}
	if found := s.search(t, "logs-oddcert.handshake-"+cfg.Namespace); len(found) != 59 {
		t.Errorf("found %d documents", len(found))
	}
}

// TestTemplatesMissing sends to servers that were set up and that were not.
func TestTemplatesMissing(t *testing.T) {
	var said syncBuffer
	s := newStandIn(t)
	d := newTest(t, s.config(t), said.logger())
	one(t, d, record(output.Alert, 1))
	if said.String() != "" {
		t.Errorf("all are there: said %q", said.String())
	}
	s.templates = `{"name":"` + templateOf(schema.Alert) + `"}`
	one(t, d, record(output.Alert, 2))
	if said.String() != "" {
		t.Errorf("it was checked before: said %q", said.String())
	}
	d = newTest(t, s.config(t), said.logger())
	for i := range 3 {
		one(t, d, record(output.Alert, 10+i))
	}
	if text := said.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "oddcert es setup") || strings.Contains(text, templateOf(schema.Alert)) ||
		!strings.Contains(text, templateOf(schema.Handshake)+" ") {
		t.Errorf("said %q", text)
	}
	s.plan(hangUp)
	d.Send(t.Context(), []*output.Record{record(output.Alert, 20)}, make([]delivery.Verdict, 1))
	one(t, d, record(output.Alert, 20))
	if strings.Count(said.String(), "\n") != 2 {
		t.Errorf("after the server was away: said %q", said.String())
	}
	s.hidden = true
	one(t, newTest(t, s.config(t), nil), record(output.Alert, 30)) // silent
	if !slices.Equal(s.sizes(), []int{1, 1, 1, 1, 1, 1, 1, 1}) {
		t.Errorf("requests %v", s.sizes())
	}

	real := estest.Shared(t)
	said = syncBuffer{}
	s2 := realServer{real}
	one(t, newTest(t, s2.config(t), said.logger()), record(output.Alert, 1))
	before := said.String()
	if _, err := Setup(t.Context(), connect(t, real), SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	one(t, newTest(t, s2.config(t), nil), record(output.Alert, 1))
	t.Logf("before setup: %s", before) // another test may have set it up
}
