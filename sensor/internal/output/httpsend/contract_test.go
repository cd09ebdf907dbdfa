package httpsend_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/endpoint"
	"github.com/oddcert/oddcert/sensor/internal/output/otlp"
	"github.com/oddcert/oddcert/sensor/internal/output/outputtest"
	"github.com/oddcert/oddcert/sensor/internal/output/splunk"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/output/webhook"
)

// kind is one of the outputs over HTTP: they keep the same contract.
type kind struct {
	make   func(url, token string, t endpoint.TLS, log *slog.Logger) (delivery.Destination, error)
	good   string // the answer to what was accepted
	scheme string // of the token
	reads  bool   // it reads the answer to what was accepted
}

var kinds = map[string]kind{
	"webhook": {
		make: func(url, token string, t endpoint.TLS, log *slog.Logger) (delivery.Destination, error) {
			return webhook.New(webhook.Config{URL: url, TokenFile: token, TLS: t, BatchSize: 10}, log)
		},
		good: "ok", scheme: "Bearer",
	},
	"splunk": {
		make: func(url, token string, t endpoint.TLS, log *slog.Logger) (delivery.Destination, error) {
			return splunk.New(splunk.Config{URL: url, TokenFile: token, TLS: t, Ack: "false"}, log)
		},
		good: `{"text":"Success","code":0}`, scheme: "Splunk", reads: true,
	},
	"otlp": {
		make: func(url, token string, t endpoint.TLS, log *slog.Logger) (delivery.Destination, error) {
			return otlp.New(otlp.Config{URL: url, TokenFile: token, TLS: t}, log)
		},
		good: `{}`, scheme: "Bearer", reads: true,
	},
}

// each runs a test for each kind.
func each(t *testing.T, f func(t *testing.T, k kind)) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) { f(t, k) })
	}
}

const token = "correct-horse-battery-staple"

// write writes a file with a secret.
func write(t testing.TB, content string) string {
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// serve starts a server that answers with f.
func serve(t testing.TB, f http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(f)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (k kind) new(t testing.TB, url string) delivery.Destination {
	d, err := k.make(url, write(t, token), endpoint.TLS{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// send sends n records, and gives up after a while.
func send(t testing.TB, d delivery.Destination, n int) ([]delivery.Verdict, *delivery.Trouble) {
	t.Helper()
	return sendFor(d, outputtest.Records(t)[:n], time.Minute)
}

func sendFor(d delivery.Destination, records []*output.Record, patience time.Duration) ([]delivery.Verdict, *delivery.Trouble) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	verdicts := make([]delivery.Verdict, len(records))
	trouble := d.Send(ctx, records, verdicts)
	return verdicts, trouble
}

// want fails unless all verdicts have a fate.
func want(t testing.TB, verdicts []delivery.Verdict, fate delivery.Fate) {
	t.Helper()
	for i, v := range verdicts {
		if v.Fate != fate {
			t.Errorf("record %d has fate %d, want %d: %s", i, v.Fate, fate, v.Reason)
		}
	}
}

func TestDelivers(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		var requests atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if got := r.Header.Get("Authorization"); got != k.scheme+" "+token {
				t.Errorf("Authorization is %q", got)
			}
			if got := r.Header.Get("User-Agent"); got != "oddcert" {
				t.Errorf("User-Agent is %q", got)
			}
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, k.good)
		})
		verdicts, trouble := send(t, k.new(t, s.URL), 10)
		if trouble != nil || requests.Load() != 1 {
			t.Fatalf("trouble %v, %d requests", trouble, requests.Load())
		}
		want(t, verdicts, delivery.Delivered)
	})
}

// TestSlowServer has servers that answer never, and for ever.
func TestSlowServer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		verdicts, trouble := sendFor(k.new(t, s.URL), outputtest.Records(t)[:2], 100*time.Millisecond)
		if trouble == nil || trouble.Slow || trouble.Split {
			t.Errorf("trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Again)

		drip := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		})
		verdicts, trouble = sendFor(k.new(t, drip.URL), outputtest.Records(t)[:2], 100*time.Millisecond)
		if trouble == nil {
			t.Error("no trouble")
		}
		want(t, verdicts, delivery.Again)
	})
}

// TestEndlessAnswer has a server that sends a gigabyte, and counts what it could send.
func TestEndlessAnswer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
			sent := make(chan int, 1)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(status)
				block, n := bytes.Repeat([]byte("x"), 64<<10), 0
				for n < 1<<30 {
					m, err := w.Write(block)
					n += m
					if err != nil {
						break
					}
				}
				sent <- n
			})
			verdicts, trouble := send(t, k.new(t, s.URL), 2)
			fate := delivery.Again
			if status == http.StatusOK && !k.reads {
				fate = delivery.Delivered // the status says it all
			}
			want(t, verdicts, fate)
			if (trouble == nil) != (fate == delivery.Delivered) {
				t.Errorf("status %d: trouble is %v", status, trouble)
			}
			if n := <-sent; n > 64<<20 { // buffers of the system are a part of it
				t.Errorf("status %d: the server could send %d bytes", status, n)
			}
		}
	})
}

func TestRedirect(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		other := serve(t, func(w http.ResponseWriter, r *http.Request) {
			t.Error("the redirect was followed")
		})
		for _, status := range []int{301, 302, 303, 307, 308} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, other.URL, status)
			})
			verdicts, trouble := send(t, k.new(t, s.URL), 2)
			if trouble == nil || !trouble.Slow || !strings.Contains(trouble.Err.Error(), "redirect") {
				t.Errorf("trouble is %+v", trouble)
			}
			want(t, verdicts, delivery.Again)
		}
	})
}

// TestHalfAnswer has a server that hangs up in the middle of a good answer, and one
// that hangs up without one.
func TestHalfAnswer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for name, text := range map[string]string{
			"half":   fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n%s", k.good),
			"header": "HTTP/1.1 200 OK\r\nContent-",
			"none":   "",
			"junk":   "\x00\x01\x02 SSH-2.0\r\n\r\n",
		} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, text)
				c.Close()
			})
			verdicts, trouble := send(t, k.new(t, s.URL), 2)
			if name == "half" && !k.reads {
				want(t, verdicts, delivery.Delivered)
				continue
			}
			if trouble == nil || trouble.Split {
				t.Errorf("%s: trouble is %+v", name, trouble)
			}
			want(t, verdicts, delivery.Again)
		}
	})
}

// TestNobodyListens has an address where no server is.
func TestNobodyListens(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		verdicts, trouble := send(t, k.new(t, s.URL), 1)
		if trouble == nil || trouble.Slow || trouble.Class != "network" {
			t.Errorf("trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Again)
	})
}

func TestCertificate(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, k.good)
		}))
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.StartTLS()
		defer s.Close()
		sum := sha256.Sum256(s.Certificate().Raw)
		pin := hex.EncodeToString(sum[:])
		ca := write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
		for name, c := range map[string]struct {
			tls  endpoint.TLS
			fate delivery.Fate
			said string
		}{
			"unknown authority": {endpoint.TLS{}, delivery.Again, "ca_file"},
			"its authority":     {endpoint.TLS{CAFile: ca}, delivery.Delivered, ""},
			"its pin":           {endpoint.TLS{Fingerprint: pin}, delivery.Delivered, ""},
			"another pin":       {endpoint.TLS{Fingerprint: strings.Repeat("00", 32)}, delivery.Again, "fingerprint"},
			"both":              {endpoint.TLS{CAFile: ca, Fingerprint: strings.Repeat("00", 32)}, delivery.Again, "fingerprint"},
		} {
			d, err := k.make(s.URL, write(t, token), c.tls, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			verdicts, trouble := send(t, d, 1)
			want(t, verdicts, c.fate)
			if c.said != "" && (trouble == nil || !trouble.Slow || !strings.Contains(trouble.Err.Error(), c.said)) {
				t.Errorf("%s: trouble is %+v", name, trouble)
			}
			d.Close()
		}
		// The wrong scheme has a cure. The server says it and hangs up, with the request
		// half read: a reset can overtake its answer, so it is asked until it is heard.
		plain := k.new(t, "http"+strings.TrimPrefix(s.URL, "https"))
		for range 100 {
			verdicts, trouble := send(t, plain, 1)
			want(t, verdicts, delivery.Again)
			if trouble != nil && trouble.Slow && strings.Contains(trouble.Err.Error(), "https://") {
				return
			}
			if trouble == nil || trouble.Class != "network" {
				t.Fatalf("trouble is %+v, verdicts %v", trouble, verdicts)
			}
		}
		t.Error("the answer was never heard")
	})
}

// TestRepairedSecret has a token that is wrong until somebody replaces its file. The
// server repeats the token that it refuses; nobody else may.
func TestRepairedSecret(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if r.Header.Get("Authorization") != k.scheme+" "+token {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprintf(w, "what is %s?", r.Header.Get("Authorization"))
				return
			}
			io.WriteString(w, k.good)
		})
		var said bytes.Buffer
		file := write(t, "swordfish\n")
		d, err := k.make(s.URL+"/", file, endpoint.TLS{}, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		verdicts, trouble := send(t, d, 2)
		if trouble == nil || !trouble.Slow {
			t.Fatalf("trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Again)
		for _, text := range []string{trouble.Err.Error(), trouble.Class, verdicts[0].Reason, said.String(), d.String()} {
			if strings.Contains(text, "swordfish") {
				t.Errorf("%q has the token", text)
			}
		}
		if !strings.Contains(verdicts[0].Reason, "what is") {
			t.Errorf("the reason is %q", verdicts[0].Reason)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if verdicts, trouble = send(t, d, 2); trouble == nil || !trouble.Slow || trouble.Class != "secret" {
			t.Fatalf("without the file, trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Again)
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if verdicts, trouble = send(t, d, 2); trouble != nil {
			t.Fatalf("after the repair, trouble is %+v", trouble)
		}
		want(t, verdicts, delivery.Delivered)
	})
}

// TestStatuses holds what each status means for one record, and for several.
func TestStatuses(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, c := range []struct {
			status    int
			one, many delivery.Fate
			split     bool
			slow      bool
		}{
			{400, delivery.Dead, delivery.Again, true, false},
			{401, delivery.Again, delivery.Again, false, true},
			{403, delivery.Again, delivery.Again, false, true},
			{404, delivery.Again, delivery.Again, false, true},
			{405, delivery.Again, delivery.Again, false, true},
			{407, delivery.Again, delivery.Again, false, true},
			{408, delivery.Again, delivery.Again, false, false},
			{410, delivery.Again, delivery.Again, false, true},
			{413, delivery.Dead, delivery.Again, true, false},
			{415, delivery.Dead, delivery.Again, true, false},
			{422, delivery.Dead, delivery.Again, true, false},
			{425, delivery.Again, delivery.Again, false, false},
			{429, delivery.Again, delivery.Again, false, false},
			{502, delivery.Again, delivery.Again, false, false},
			{503, delivery.Again, delivery.Again, false, false},
			{504, delivery.Again, delivery.Again, false, false},
		} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(c.status)
				io.WriteString(w, "the server's own words")
			})
			d := k.new(t, s.URL)
			verdicts, trouble := send(t, d, 1)
			want(t, verdicts, c.one)
			if (trouble == nil) != (c.one == delivery.Dead) {
				t.Errorf("%d: trouble is %+v", c.status, trouble)
			}
			if !strings.Contains(verdicts[0].Reason, "the server's own words") || verdicts[0].Status != c.status {
				t.Errorf("%d: verdict is %+v", c.status, verdicts[0])
			}
			verdicts, trouble = send(t, d, 3)
			want(t, verdicts, c.many)
			if trouble == nil || trouble.Split != c.split || trouble.Slow != c.slow || trouble.After != 7*time.Second {
				t.Errorf("%d: trouble is %+v", c.status, trouble)
			}
		}
	})
}

// TestLongWords has a server with much to say, and its token in the midst of it.
func TestLongWords(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, at := range []int{0, delivery.MaxReason - len(token)/2, 4*delivery.MaxReason - 5} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, strings.Repeat("x", at)+token+strings.Repeat("y", 3*delivery.MaxReason))
			})
			verdicts, trouble := send(t, k.new(t, s.URL), 1)
			if trouble != nil || len(verdicts[0].Reason) > delivery.MaxReason || len(verdicts[0].Reason) < delivery.MaxReason/2 {
				t.Errorf("trouble %+v, a reason of %d bytes", trouble, len(verdicts[0].Reason))
			}
			if strings.Contains(verdicts[0].Reason, token[:6]) {
				t.Errorf("%.100q has the token", verdicts[0].Reason)
			}
		}
	})
}

// TestConcurrent sends from several goroutines, as the two queues do.
func TestConcurrent(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			http.SetCookie(w, &http.Cookie{Name: "node", Value: r.RemoteAddr})
			io.WriteString(w, k.good)
		})
		d := k.new(t, s.URL)
		records := outputtest.Records(t)
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				for range 5 {
					verdicts, trouble := sendFor(d, records[:10], time.Minute)
					if trouble != nil {
						t.Error(trouble.Err)
					}
					want(t, verdicts, delivery.Delivered)
				}
			})
		}
		done.Wait()
	})
}

// TestEngine has the engine deliver to a server that fails in one way after the other,
// refuses one record for good, and wants another token in between. In the end all
// others are there, and the one is a dead letter.
func TestEngine(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		records := outputtest.Records(t)
		refused := records[3]
		var mu sync.Mutex
		requests, arrived, want := 0, map[string]bool{}, k.scheme+" "+token
		file := write(t, token)
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			requests++
			var body io.Reader = r.Body
			if r.Header.Get("Content-Encoding") == "gzip" {
				z, err := gzip.NewReader(body)
				if err != nil {
					t.Error(err)
					return
				}
				body = z
			}
			text, err := io.ReadAll(body)
			if err != nil {
				t.Error(err)
			}
			switch {
			case requests == 1:
				w.WriteHeader(http.StatusServiceUnavailable)
			case requests == 2:
				panic(http.ErrAbortHandler)
			case requests == 3:
				want = k.scheme + " another token"
				w.WriteHeader(http.StatusTooManyRequests)
			case r.Header.Get("Authorization") != want:
				w.WriteHeader(http.StatusUnauthorized)
				if err := os.WriteFile(file, []byte("another token"), 0o600); err != nil {
					t.Error(err)
				}
			case bytes.Contains(text, []byte(refused.ID)):
				w.WriteHeader(http.StatusBadRequest)
			default:
				for _, r := range records {
					if bytes.Contains(text, []byte(r.ID)) {
						arrived[r.ID] = true
					}
				}
				io.WriteString(w, k.good)
			}
		})
		d, err := k.make(s.URL, file, endpoint.TLS{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		sp, err := spool.Open(t.TempDir(), spool.Options{Outputs: []spool.Output{{Name: "siem", Datasets: output.Records}}})
		if err != nil {
			t.Fatal(err)
		}
		wait := 2 * time.Millisecond
		e := delivery.Start(sp, []delivery.Output{{Name: "siem", Destination: d}}, delivery.Options{Backoff: delivery.Backoff{Min: wait, Max: wait, Slow: wait}})
		for _, r := range records {
			if err := e.Write(r); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Fatal(err)
		}
		st := e.Outputs()[0].Stats()
		if st.Delivered.Total() != uint64(len(records)-1) || st.Dead.Total() != 1 || st.Dead[refused.Dataset] != 1 {
			t.Errorf("delivered %d, dead %d of %d", st.Delivered.Total(), st.Dead.Total(), len(records))
		}
		for _, r := range records {
			if arrived[r.ID] == (r == refused) {
				t.Errorf("%v %s: arrived is %v", r.Dataset, r.ID, arrived[r.ID])
			}
		}
	})
}

// TestCancelled has a context that is done already.
func TestCancelled(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, k.good) })
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		verdicts := make([]delivery.Verdict, 1)
		if k.new(t, s.URL).Send(ctx, outputtest.Records(t)[:1], verdicts) == nil {
			t.Error("no trouble")
		}
		want(t, verdicts, delivery.Again)
	})
}

// TestConfigErrors names all mistakes at once, by the names of settings.
func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		settings []string
	}{
		"webhook, nothing": {(&webhook.Config{}).Validate(), []string{"url"}},
		"webhook, everything": {(&webhook.Config{
			URL: "ftp://x", URLFile: "y", Method: "GET", ContentType: "/", BatchSize: 1001, SecretFiles: map[string]string{"a b": "f"},
			Headers:     map[string]string{"webhook-id": "1", "a:b": "c", "X": "\n", "Authorization": "x"},
			HeaderFiles: map[string]string{"Content-Type": "f"}, Username: "u:v", TokenFile: "t", DeadStatus: 200,
			TLS: endpoint.TLS{Fingerprint: "1", CertificateFile: "c"},
		}).Validate(), []string{"url_file", "method", "content_type", "batch_size", "secret_files", "secret_files", "headers", "headers", "headers", "headers",
			"header_files", "username", "password_file", "token_file", "dead_status", "fingerprint", "key_file"}},
		"webhook, password in the address": {(&webhook.Config{URL: "https://u:swordfish@x"}).Validate(), []string{"url"}},
		"splunk, nothing":                  {(&splunk.Config{}).Validate(), []string{"url", "token_file"}},
		"splunk, everything": {(&splunk.Config{URL: "https://x/services/collector/raw?a=b", TokenFile: "t", Index: "-", Ack: "no"}).Validate(),
			[]string{"url", "index", "ack"}},
		"otlp, nothing":    {(&otlp.Config{}).Validate(), []string{"url"}},
		"otlp, everything": {(&otlp.Config{URL: "https://x#f", PasswordFile: "p"}).Validate(), []string{"url", "username"}},
	} {
		found := map[string]int{}
		if c.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, err := range c.err.(interface{ Unwrap() []error }).Unwrap() {
			var e *endpoint.ConfigError
			if !errors.As(err, &e) {
				t.Errorf("%s: %v is no ConfigError", name, err)
				continue
			}
			found[e.Setting]++
		}
		for _, s := range c.settings {
			found[s]--
		}
		for s, n := range found {
			if n != 0 {
				t.Errorf("%s: %d of %s too many in %v", name, n, s, c.err)
			}
		}
		if strings.Contains(c.err.Error(), "swordfish") {
			t.Errorf("%s: the error has a password: %v", name, c.err)
		}
	}
}
