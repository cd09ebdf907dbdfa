package health

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

// serve serves a monitor on loopback until the test ends, and returns its address.
func serve(t testing.TB, m *Monitor) (address string) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := m.Serve(ctx, l, Service{}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return l.Addr().String()
}

// get gets a page, which must be there.
func get(t testing.TB, address, path string) string {
	t.Helper()
	r, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", path, r.Status, err, b)
	}
	return string(b)
}

// TestPages asks for each page, and for what is none.
func TestPages(t *testing.T) {
	wall := newClock()
	m := New(Config{Version: "v1.2.3", Now: wall.time})
	m.Reloaded(1, 0, 0, nil)
	m.See(new(output.Counters))
	address := serve(t, m)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, path, accept string, body io.Reader) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		a, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, a.Header, string(b)
	}
	for _, test := range []struct {
		method, path, accept, body string
		status                     int
		kind, has                  string
	}{
		{"GET", "/metrics", "", "", 200, "text/plain; version=0.0.4", "\noddcert_build_info{"},
		{"GET", "/metrics", "application/openmetrics-text; version=1.0.0", "", 200, "application/openmetrics-text; version=1.0.0", "\n# EOF\n"},
		{"HEAD", "/metrics", "", "", 200, "text/plain", ""},
		{"GET", "/healthz", "", "", 200, "text/plain", "ok\n"},
		{"HEAD", "/readyz", "", "", 200, "text/plain", ""},
		{"GET", "/readyz", "", "", 200, "text/plain", "ok\n"},
		{"GET", "/", "", "", 404, "text/plain", "only /metrics"},
		{"GET", "/metrics/", "", "", 404, "text/plain", ""},
		{"GET", "//metrics", "", "", 404, "text/plain", ""},
		{"GET", "/debug/pprof/", "", "", 404, "text/plain", ""},
		{"POST", "/metrics", "", "", 405, "text/plain", "only GET and HEAD"},
		{"OPTIONS", "/metrics", "", "", 405, "text/plain", ""},
		{"DELETE", "/readyz", "", "", 405, "text/plain", ""},
		{"GET", "/healthz", "", "a body", 400, "text/plain", "no body"},
	} {
		var body io.Reader
		if test.body != "" {
			body = strings.NewReader(test.body)
		}
		status, header, text := ask(test.method, test.path, test.accept, body)
		if status != test.status || !strings.HasPrefix(header.Get("Content-Type"), test.kind) || !strings.Contains(text, test.has) {
			t.Errorf("%s %s: %d, %q, %q", test.method, test.path, status, header.Get("Content-Type"), text[:min(len(text), 200)])
		}
		if status == 405 && header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s allows %q", test.method, test.path, header.Get("Allow"))
		}
	}
	wall.pass(time.Hour)
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, _, text := ask("GET", path, "", nil); status != 503 || !strings.Contains(text, "told nothing for 1h0m0s") {
			t.Errorf("%s of a sensor that hangs: %d, %q", path, status, text)
		}
	}
	if !strings.Contains(get(t, address, "/metrics"), "\noddcert_snapshot_age_seconds 3600\n") {
		t.Error("the metrics of a sensor that hangs do not say so")
	}
}

// TestHostileClients opens connections that send nothing, half a request, too much, or
// read nothing. Others are served meanwhile.
func TestHostileClients(t *testing.T) {
	m := New(Config{})
	m.Reloaded(1, 0, 0, nil)
	m.See(new(output.Counters))
	address := serve(t, m)
	open := func(text string) net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for i := range maxConnections - 2 {
		open([]string{"", "GET /metr", "GET /metrics HTTP/1.1\r\nHost: x\r\nA: ", strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 100)}[i%4])
	}
	began := time.Now()
	if text := get(t, address, "/readyz"); text != "ok\n" {
		t.Errorf("%q", text)
	}
	get(t, address, "/metrics")
	t.Logf("answered after %v", time.Since(began))

	answer := func(c net.Conn) string {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		b, err := io.ReadAll(c)
		if os.IsTimeout(err) {
			t.Errorf("a connection is kept for a minute")
		}
		return string(b)
	}
	if got := answer(open("GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n")); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("a long request: %.60q", got)
	}
	// Full: who comes next is served once the others' time is over.
	for range 10 {
		open("")
	}
	if text := get(t, address, "/healthz"); text != "ok\n" {
		t.Errorf("%q", text)
	}
}

// TestScrapesDoNotStopTheCapture asks a lot, and looks whether the pipeline goes on.
func TestScrapesDoNotStopTheCapture(t *testing.T) {
	r := start(t, linked, now)
	r.wait(t, "delivery", delivered)
	address := serve(t, r.Monitor)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	answers := map[int]int{}
	for range 8 {
		asking.Go(func() {
			for ctx.Err() == nil {
				a, err := http.Get("http://" + address + "/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
				mu.Lock()
				answers[a.StatusCode]++
				mu.Unlock()
			}
		})
	}
	for range 3 { // it tells each second
		r.wait(t, "anything", func(*output.Counters) bool { return true })
	}
	cancel()
	asking.Wait()
	t.Logf("answers by status: %v", answers)
	if answers[200] == 0 || answers[200]+answers[503] != sum(answers) {
		t.Errorf("answers by status: %v", answers)
	}
}

func sum(counts map[int]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.sock")
	for _, address := range []string{"", "127.0.0.1", "9847", "localhost", "127.0.0.1:", "127.0.0.1:nosuchport", "127.0.0.1:65536", "unix:", "unix:relative", "http://127.0.0.1:9847/"} {
		if l, err := Listen(address); err == nil {
			t.Errorf("%q: listens on %s", address, l.Addr())
			l.Close()
		}
	}
	l, err := Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	if a := l.Addr().(*net.TCPAddr); !a.IP.IsLoopback() {
		t.Errorf("without a host it listens on %s", a)
	}
	if other, err := Listen(l.Addr().String()); err == nil {
		t.Error("two listen on one address")
		other.Close()
	}
	l.Close()

	// A socket that a process has left is replaced; one in use, and a file, are not.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	l, err = Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if other, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error("two listen on one socket", other, err)
	}
	m := New(Config{})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- m.Serve(ctx, l, Service{}) }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	a, err := client.Get("http://oddcert/healthz")
	if err != nil || a.StatusCode != 200 {
		t.Fatal(a, err)
	}
	a.Body.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen("unix:" + file); err == nil {
		t.Error("a file is replaced")
		l.Close()
	}
}

// TestOthersCanRead looks whether the log says that other machines can ask.
func TestOthersCanRead(t *testing.T) {
	for address, says := range map[string]bool{"127.0.0.1:0": false, "[::1]:0": false, "0.0.0.0:0": true} {
		l, err := Listen(address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))}).Serve(ctx, l, Service{}); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "other machines can read them"); got != says {
			t.Errorf("%s: %q", address, log.String())
		}
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New(Config{}).Serve(t.Context(), l, Service{}); err == nil {
		t.Error("a listener that is closed is no error")
	}
}

// FuzzRequest asks for anything in any way.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nAccept-Encoding: gzip\r\n\r\n",
		"HEAD /readyz HTTP/1.0\r\n\r\n", "GET /healthz?a=%00 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://x/metrics?name[]=oddcert_build_info HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: ;;;,*/*;q=\xff\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	m := New(Config{})
	m.Reloaded(1, 0, 0, nil)
	m.See(new(output.Counters))
	handler := m.handler(Service{})
	f.Fuzz(func(t *testing.T, request []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		size := w.Body.Len()
		fail := func(format string, args ...any) {
			t.Errorf("%s %s: %d, %d bytes: %s", r.Method, r.URL, w.Code, size, fmt.Sprintf(format, args...))
		}
		switch w.Code {
		case http.StatusOK:
			if r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 {
				fail("answered")
			}
			if p := r.URL.Path; p != "/metrics" && p != "/healthz" && p != "/readyz" {
				fail("there is such a page")
			}
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusServiceUnavailable:
			if size > 100 {
				fail("a long refusal")
			}
			if w.Code != http.StatusServiceUnavailable && w.Header().Get("Connection") != "close" {
				fail("the connection is kept")
			}
		default:
			fail("not a status of ours")
		}
		if size > 1<<20 {
			fail("not bounded")
		}
	})
}
