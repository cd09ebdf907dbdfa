package elastic

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

// info asks the server what it is.
func info(c *Client) error {
	_, err := c.do(context.Background(), func() esapi.Request { return esapi.InfoRequest{} })
	return err
}

// TestRequests looks at what goes over the wire: the library's client is not
// there to see to it.
func TestRequests(t *testing.T) {
	t.Setenv(EnvAPIKey, "id:key")
	t.Setenv("ELASTIC_CLIENT_APIVERSIONING", "true") // older servers and OpenSearch refuse its media types
	t.Setenv("ELASTICSEARCH_URL", "http://127.0.0.1:1")
	var mu sync.Mutex
	var seen []*http.Request
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		seen, bodies = append(seen, r), append(bodies, string(b))
		mu.Unlock()
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		io.WriteString(w, `{"items":[]}`)
	}))
	defer s.Close()
	c, err := NewClient(Config{Addresses: []string{s.URL + "/behind/a/proxy/"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx := context.Background()
	if err := info(c); err != nil {
		t.Error(err)
	}
	a := Asset{Path: settingsPath, Body: []byte(`{"template":{}}`)}
	if _, err := c.do(ctx, a.put); err != nil {
		t.Error(err)
	}
	d := newTest(t, Config{Addresses: []string{s.URL + "/behind/a/proxy/"}}, nil)
	r := record(output.Alert, 1)
	for range 2 {
		d.Send(ctx, []*output.Record{r}, make([]delivery.Verdict, 1))
	}
	document := `{"data_stream":{"type":"logs","dataset":"oddcert.alert","namespace":"default"},` + string(r.JSON[1:])
	if len(seen) != 6 {
		t.Fatalf("%d requests", len(seen))
	}
	for i, want := range []struct{ method, path, kind, encoding, body string }{
		{"GET", "/behind/a/proxy/", "", "", ""}, // what it is
		{"GET", "/behind/a/proxy/", "", "", ""},
		{"PUT", "/behind/a/proxy/_component_template/oddcert@settings", "application/json", "", `{"template":{}}`},
		{"GET", "/behind/a/proxy/", "", "", ""}, // the client of the destination is another one
		{"POST", "/behind/a/proxy/_bulk", "application/x-ndjson", "gzip", `{"create":{"_index":"logs-oddcert.alert-default","_id":"` + r.ID + `"}}` + "\n" + document + "\n"},
		{"POST", "/behind/a/proxy/_bulk", "application/x-ndjson", "gzip", `{"create":{"_index":"logs-oddcert.alert-default","_id":"` + r.ID + `"}}` + "\n" + document + "\n"},
	} {
		h := seen[i].Header
		if seen[i].Method != want.method || seen[i].URL.Path != want.path {
			t.Errorf("%s %s, want %s %s", seen[i].Method, seen[i].URL.Path, want.method, want.path)
		}
		if h.Get("Content-Type") != want.kind || h.Get("Content-Encoding") != want.encoding || bodies[i] != want.body {
			t.Errorf("%s: %v, body %q", want.path, h, bodies[i])
		}
		if h.Get("Accept") != "application/json" || h.Get("Authorization") != "ApiKey aWQ6a2V5" || len(h.Values("Authorization")) != 1 {
			t.Errorf("%s: %v", want.path, h)
		}
		if ua := h.Get("User-Agent"); !strings.HasPrefix(ua, "oddcert (") || !strings.Contains(ua, esapi.Version) {
			t.Errorf("%s: user agent %q", want.path, ua)
		}
	}
	if got := seen[4].URL.Query().Get("filter_path"); got != "errors,took,items.*.status,items.*.error,items.*.failure_store,items.*._id" {
		t.Errorf("filter_path %q", got)
	}
}

// TestExplain connects in the wrong way, and wants to be told the right one.
func TestExplain(t *testing.T) {
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		tls     bool   // the server speaks it
		scheme  string // that the client uses
		want    string
	}{
		"https to a port without TLS": {answer(200, `{}`), false, "https", "use http:// in its address"},
		"http to a TLS port":          {answer(200, `{}`), true, "http", "use https:// in its address"},
		"http to a TLS port of nginx": {answer(400, "400 The plain HTTP request was sent to HTTPS port"), false, "http", "use https:// in its address"},
		"unknown authority":           {answer(200, `{}`), true, "https", "give its authority with ca_file"},
		"redirection":                 {answer(302, ``, "Location", "http://127.0.0.1:1/"), false, "http", "redirections are not followed"},
		"something else":              {answer(200, `{}`), false, "http", "neither Elasticsearch nor OpenSearch"},
		"401":                         {answer(401, `{"error":{"type":"security_exception","reason":"missing authentication credentials"}}`), false, "http", "credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(c.handler)
			s.Config.ErrorLog = nil
			if c.tls {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			_, host, _ := strings.Cut(s.URL, "://")
			client, err := NewClient(Config{Addresses: []string{c.scheme + "://" + host}})
			if err != nil {
				t.Fatal(err)
			}
			defer client.close()
			if err := info(client); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestExplainHangUp has a TLS port that answers a plain request with an alert,
// and one that hangs up, as Elasticsearch's does.
func TestExplainHangUp(t *testing.T) {
	for name, reply := range map[string]string{"alert": "\x15\x03\x01\x00\x02\x02\x50", "hang up": ""} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Read(make([]byte, 1))
					io.WriteString(c, reply)
					c.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, c)
					c.Close()
				}
			}()
			client, err := NewClient(Config{Addresses: []string{"http://" + l.Addr().String()}})
			if err != nil {
				t.Fatal(err)
			}
			defer client.close()
			err = info(client)
			var status *StatusError
			if err == nil || errors.As(err, &status) || !strings.Contains(err.Error(), "use https:// in its address") {
				t.Errorf("%v", err)
			}
		})
	}
}
