package elastic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
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

// TestFaults answers one batch of 20 alerts with one fault after the other. In
// the end each is there once, or a dead letter.
func TestFaults(t *testing.T) {
	const n = 20
	const tooMany = `{"error":{"type":"es_rejected_execution_exception","reason":"queue is full"},"status":429}`
	for name, c := range map[string]struct {
		script  []fault
		retries uint64 // records that went again
		dead    uint64
		said    string // in the log
	}{
		"none":                {},
		"429":                 {script: []fault{status(429, tooMany), status(429, tooMany)}, retries: 2 * n, said: "queue is full"},
		"502 of a proxy":      {script: []fault{status(502, "<html>bad gateway</html>")}, retries: n, said: "status 502"},
		"503 and 504":         {script: []fault{status(503, ""), status(504, "")}, retries: 2 * n, said: "status 503"},
		"500":                 {script: []fault{status(500, "{}")}, retries: n, said: "status 500"},
		"time-out":            {script: []fault{hang}, retries: n, said: "deadline exceeded"},
		"hung up":             {script: []fault{hangUp}, retries: n, said: "EOF"},
		"answer cut at end":   {script: []fault{{cut: 1}}}, // each item has its answer
		"cut answer":          {script: []fault{{cut: 150}}, retries: 2, said: "read answer"},
		"empty answer":        {script: []fault{status(200, "")}, retries: n, said: "read answer"},
		"another answer":      {script: []fault{status(200, `[1]`), status(200, `{"items":{}}`), status(200, `{"items":[1]}`)}, retries: 3 * n, said: "read answer"},
		"short answer":        {script: []fault{{drop: odd}}, retries: n / 2, said: "10 of 20 items"},
		"items 429":           {script: []fault{itemStatus(429, "es_rejected_execution_exception", odd)}, retries: n / 2, said: "status 429"},
		"items 503":           {script: []fault{itemStatus(503, "unavailable_shards_exception", all), itemStatus(500, "x", first)}, retries: n + 1, said: "unavailable_shards"},
		"items 400 and 404":   {script: []fault{itemStatus(400, "document_parsing_exception", odd)}, dead: n / 2, said: "refused for good"},
		"items 404":           {script: []fault{itemStatus(404, "shard_not_found_exception", first)}, dead: 1, said: "refused for good"},
		"no stream":           {script: []fault{itemStatus(404, "index_not_found_exception", all)}, retries: n, said: "index_not_found_exception"},
		"items 403":           {script: []fault{itemStatus(403, "security_exception", all)}, retries: n, said: "security_exception"},
		"401":                 {script: []fault{status(401, `{"error":{"type":"security_exception","reason":"who are you"}}`)}, retries: n, said: "who are you"},
		"403":                 {script: []fault{status(403, `{"error":"forbidden"}`)}, retries: n, said: "forbidden"},
		"redirect":            {script: []fault{status(302, "", "Location", "http://127.0.0.1:1/")}, retries: n, said: "status 302"},
		"404 of a wrong path": {script: []fault{status(404, "not here")}, retries: n, said: "status 404"},
		"400 of a proxy":      {script: []fault{status(400, "<html>The plain HTTP request was sent to HTTPS port")}, retries: n, said: "status 400"},
		"no pipeline": {script: []fault{{item: func(int, action) map[string]any {
			return map[string]any{"status": 400, "error": map[string]any{"type": "illegal_argument_exception", "reason": "pipeline with id [oddcert@final] does not exist"}}
		}}}, retries: n, said: "oddcert@final"},
		"no product":   {script: []fault{status(200, `{"items":[]}`, "X-Elastic-Product", "")}, retries: n, said: "not Elasticsearch"},
		"early answer": {script: []fault{status(429, tooMany, "Connection", "close")}, retries: n, said: "queue is full"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.plan(c.script...)
			var said syncBuffer
			dir := t.TempDir()
			o := newTest(t, Config{Addresses: []string{s.URL}}, dir, slog.New(slog.NewTextHandler(&said, nil)))
			if name == "time-out" {
				o.client.timeout = time.Second
			}
			for i := range n {
				write(t, o, record(output.Alert, i))
			}
			// All are in one batch: delivery starts when they are on disk.
			if err := o.spool.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			o.start()
			st := closeTest(t, o)
			if got := st.Delivered[output.Alert] + st.Duplicates[output.Alert]; got != n-c.dead || st.Dead[output.Alert] != c.dead {
				t.Errorf("delivered %d, duplicates %d, dead %d", st.Delivered[output.Alert], st.Duplicates[output.Alert], st.Dead[output.Alert])
			}
			if c.retries != st.Retries && name != "time-out" { // a slow machine has more of them
				t.Errorf("%d records went again, want %d", st.Retries, c.retries)
			}
			if found := s.search(t, "logs-oddcert.alert-default"); uint64(len(found)) != n-c.dead {
				t.Errorf("%d documents", len(found))
			}
			if letters := deadLettersIn(t, dir); uint64(len(letters)) != c.dead {
				t.Errorf("%d dead letters", len(letters))
			}
			if !strings.Contains(said.String(), c.said) {
				t.Errorf("said %q, want %q", said.String(), c.said)
			}
			if c.retries > 0 && !strings.Contains(said.String(), "delivers again") {
				t.Errorf("said %q, not that it delivers again", said.String())
			}
		})
	}
}

// TestSplit has a server that takes few records at a time, and one that chokes
// on one record.
func TestSplit(t *testing.T) {
	const n = 100
	bad := record(output.Alert, 42).ID
	for name, c := range map[string]struct {
		fault fault
		dead  uint64
	}{
		"413 above 7": {fault: fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
			if len(records) > 7 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
			return len(records) > 7
		}}},
		"413 always for one": {dead: 1, fault: fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
			for _, r := range records {
				if r.id == bad {
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return true
				}
			}
			return false
		}}},
		"400 always for one": {dead: 1, fault: fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
			for _, r := range records {
				if r.id == bad {
					w.WriteHeader(http.StatusBadRequest)
					io.WriteString(w, `{"error":{"type":"x_content_parse_exception","reason":"bad"},"status":400}`)
					return true
				}
			}
			return false
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			for range 10 * n {
				s.plan(c.fault)
			}
			dir := t.TempDir()
			o := newTest(t, Config{Addresses: []string{s.URL}}, dir, nil)
			for i := range n {
				write(t, o, record(output.Alert, i))
			}
			if err := o.spool.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
			o.start()
			st := closeTest(t, o)
			if st.Delivered.Total() != n-c.dead || st.Dead.Total() != c.dead || st.Duplicates.Total() != 0 {
				t.Errorf("delivered %d, dead %d, duplicates %d", st.Delivered.Total(), st.Dead.Total(), st.Duplicates.Total())
			}
			letters := deadLettersIn(t, dir)
			if uint64(len(letters)) != c.dead || c.dead > 0 && letters[0].ID != bad {
				t.Errorf("dead letters %+v", letters)
			}
			if sizes := s.sizes(); sizes[0] != n {
				t.Errorf("requests of %v records", sizes)
			}
		})
	}
}

// TestWait holds the waits against their bounds.
func TestWait(t *testing.T) {
	o := &Output{min: time.Second, max: time.Minute, slow: time.Hour}
	ceiling := time.Second
	d := &delivery{Output: o}
	longest := time.Duration(0)
	for range 2000 {
		w := d.wait(&trouble{})
		if w <= 0 || w > ceiling {
			t.Fatalf("wait %v, at most %v", w, ceiling)
		}
		longest = max(longest, w)
		ceiling = min(2*ceiling, o.max)
	}
	if longest < o.max/2 {
		t.Errorf("longest of 2000 waits %v", longest)
	}
	if w := d.wait(&trouble{after: 2 * time.Minute}); w != 2*time.Minute {
		t.Errorf("asked for 2m, waits %v", w)
	}
	if w := d.wait(&trouble{slow: true}); w != o.slow {
		t.Errorf("slow wait %v", w)
	}
	for header, want := range map[string]time.Duration{
		"": 0, "-1": 0, "x": 0, "3": 3 * time.Second, "99999999999": maxRetryAfter, "100000": maxRetryAfter,
		"Mon, 01 Jan 2001 00:00:00 GMT": 0, "Fri, 01 Jan 2999 00:00:00 GMT": maxRetryAfter,
	} {
		if got := retryAfter(header); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
}

// TestRetryAfter checks that the server's wish is obeyed, when closing too.
func TestRetryAfter(t *testing.T) {
	s := newStandIn(t)
	s.plan(status(429, "", "Retry-After", "1"))
	o := startTest(t, Config{Addresses: []string{s.URL}}, t.TempDir())
	start := time.Now()
	write(t, o, record(output.Alert, 1))
	closeTest(t, o)
	if took := time.Since(start); took < time.Second {
		t.Errorf("sent again after %v", took)
	}
}

// TestAlertsFirst has a server that never takes telemetry: alerts go through
// all the same.
func TestAlertsFirst(t *testing.T) {
	s := newStandIn(t)
	stuck := fault{answer: func(w http.ResponseWriter, _ *http.Request, records []action) bool {
		if !strings.HasPrefix(records[0].index, "logs-oddcert.alert-") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}}
	for range 100_000 {
		s.plan(stuck)
	}
	dir := t.TempDir()
	o := startTest(t, Config{Addresses: []string{s.URL}}, dir)
	for i := range 50 {
		write(t, o, record(output.Handshake, i), record(output.Alert, i))
	}
	for o.Stats().Delivered[output.Alert] < 50 {
		time.Sleep(time.Millisecond)
	}
	if err := o.spool.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := o.Close(ctx)
	var u *Undelivered
	if !errors.As(err, &u) || u.Records != 50 || !strings.Contains(err.Error(), "status 503") || !strings.Contains(err.Error(), "50 records kept in "+dir) {
		t.Errorf("close: %v", err)
	}
	checkSums(t, o)
}

// TestUnreachable has no server at all: one line says so, for both lanes, and
// Close says what it left.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	l.Close()
	var said syncBuffer
	o := newTest(t, Config{Addresses: []string{address}}, t.TempDir(), slog.New(slog.NewTextHandler(&said, nil)))
	o.start()
	write(t, o, record(output.Alert, 1), record(output.Handshake, 2))
	for o.Stats().Retries < 10 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err = o.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), address) || strings.Contains(err.Error(), "\n") {
		t.Errorf("close: %v", err)
	}
	if n := strings.Count(said.String(), "\n"); n != 1 {
		t.Errorf("said %q", said.String())
	}
}

// TestDeadLetterFails cannot write the dead-letter file: the record stays in the
// spool.
func TestDeadLetterFails(t *testing.T) {
	s := newStandIn(t)
	dir := t.TempDir()
	o := newTest(t, Config{Addresses: []string{s.URL}}, dir, nil)
	if err := os.Mkdir(o.dead.path, 0o700); err != nil {
		t.Fatal(err)
	}
	o.start()
	write(t, o, broken(1))
	for o.Stats().Retries < 3 {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(o.dead.path); err != nil {
		t.Fatal(err)
	}
	if st := closeTest(t, o); st.Dead.Total() != 1 || len(deadLettersIn(t, dir)) != 1 {
		t.Errorf("dead %v", st.Dead)
	}
}

// TestDeadLettersBounded turns the file over.
func TestDeadLettersBounded(t *testing.T) {
	dir := t.TempDir()
	d := newDeadLetters(dir)
	d.max = 1000
	for i := range 20 {
		if err := d.add([]deadLetter{{ID: fmt.Sprint(i), Document: bytes.Repeat([]byte("x"), 200)}}); err != nil {
			t.Fatal(err)
		}
	}
	letters := deadLettersIn(t, dir)
	if last := letters[len(letters)-1]; last.ID != "19" || string(last.Document) != `"`+strings.Repeat("x", 200)+`"` {
		t.Errorf("last letter %+v", last)
	}
	for _, name := range []string{"dead-letter.jsonl", "dead-letter.jsonl.old"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() > d.max || info.Size() < d.max/2 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestBadID refuses ids that could break out of a bulk request.
func TestBadID(t *testing.T) {
	o := newTest(t, Config{Addresses: []string{"http://127.0.0.1:1"}}, t.TempDir(), nil)
	for _, id := range []string{"", `a"`, "a b", "ä", "a/b"} {
		r := record(output.Alert, 1)
		r.ID = id
		if err := o.Write(r); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
}

// TestWriteEnds closes an output whose Write waits for room.
func TestWriteEnds(t *testing.T) {
	sp, err := spool.Open(t.TempDir(), spool.Options{Size: spool.MinSize, Block: true})
	if err != nil {
		t.Fatal(err)
	}
	o, err := New(Config{Addresses: []string{"http://127.0.0.1:1"}}, sp, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := record(output.Handshake, 1)
	r.JSON = append(r.JSON[:len(r.JSON)-1], `,"x":"`+strings.Repeat("x", 100_000)+`"}`...)
	ended := make(chan error)
	go func() {
		for {
			if err := o.Write(r); err != nil {
				ended <- err
				return
			}
		}
	}()
	for sp.Stats().Bytes < spool.MinSize/2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var u *Undelivered
	if err := o.Close(ctx); !errors.As(err, &u) {
		t.Errorf("close: %v", err)
	}
	<-ended
	checkSums(t, o)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
