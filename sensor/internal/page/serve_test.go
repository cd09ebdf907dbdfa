package page

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/health"
)

// maxPage is what a page has at most, in bytes.
const maxPage = 256 << 10

// TestPages asks for each page, and for what is none. Markup is the page's own: there is
// no script but its two files, and nothing that would act by itself.
func TestPages(t *testing.T) {
	w := newWorld(t, Config{})
	for i, text := range hostile {
		w.see(shown(certificate(t, int64(100+i), text, w.now.AddDate(1, 0, 0)), 100+i, text, w.now,
			raised(fmt.Sprintf("67e5a1d0aabbccddeeff0011223344%02d", i), "low", text, text)))
	}
	w.settled(t)
	leaf := w.surveyor.last.Load().newest[0].SHA256
	address := certificateAddress(leaf)
	for _, test := range []struct {
		path   string
		status int
		has    string
	}{
		{"/", 200, "Windows Update did not sign"},
		{"/", 200, "for 1m15s: dial tcp 192.0.2.1:9200: connection refused"},
		{"/alerts", 200, "198.51.0.3:443"},
		{"/alerts?skip=5", 200, "6 to 11 of the last 11"},
		{"/alerts", 200, "The list ends here: the inventory has no older alerts."}, // though all have the same time
		{"/alerts?skip=-1", 200, "1 to 11 of the last 11"},
		{"/alerts?skip=99999999999999999999", 200, ""},
		{"/alerts/67e5a1d0aabbccddeeff001122334455", 200, "Servers that showed the certificate in the last days: 1"},
		{"/alerts/67e5a1d0aabbccddeeff001122334466", 404, ""},
		{"/alerts/67e5a1d0aabbccddeeff001122334455/evidence.zip", 404, ""},
		{"/alerts/..%2f..%2fetc%2fpasswd/evidence.zip", 404, ""},
		{"/certificates", 200, "www.example.net"},
		{"/certificates?only=expired", 200, "old.example.net"},
		{"/certificates?q=EXAMPLE.NET", 200, "2 found"},
		{"/certificates?q=" + fmt.Sprintf("%x", leaf[:5]), 200, "1 found"},
		{"/certificates?q=nobody", 200, "0 found"},
		{"/certificates?q=%ff%fe%00", 200, "0 found"},
		{"/certificates?after=" + strings.Repeat("ff", 32), 200, "0 found"},
		{"/certificates?after=zz&only=zz", 200, ""},
		{address, 200, "SHA-256"},
		{address + ".exe", 404, ""},
		{"/certificates/00", 404, ""},
		{"/certificates/" + strings.Repeat("00", 32), 404, ""},
		{"/servers", 200, "198.51.0.3:443"},
		{"/servers?only=alerts", 200, "11 found"},
		{"/servers?q=198.51.0.0/30", 200, "3 found"},
		{"/servers?after=198.51.0.2/443/tcp/tls", 200, "198.51.0.3:443"},
		{"/servers/198.51.0.3/443/tcp/tls", 200, "TLS 1.2"},
		{"/servers/198.51.0.3/443/udp/tls", 404, ""},
		{"/servers/198.51.0.3/99999/tcp/tls", 404, ""},
		{"/servers/x/443/tcp/tls", 404, ""},
		{"/nothing", 404, ""},
		{"/files/none.js", 404, ""},
		{"/login", 200, "Token"},
	} {
		a := w.get(test.path)
		body := a.Body.String()
		if a.Code != test.status || !strings.Contains(body, test.has) {
			t.Errorf("%s: %d without %q\n%.3000s", test.path, a.Code, test.has, body)
		}
		check(t, test.path, a)
	}
	for ext, parse := range map[string]func([]byte) []byte{
		".der": func(b []byte) []byte { return b },
		".pem": func(b []byte) []byte {
			block, _ := pem.Decode(b)
			return block.Bytes
		},
	} {
		a := w.get(address + ext)
		if c, err := x509.ParseCertificate(parse(a.Body.Bytes())); err != nil && !strings.Contains(err.Error(), "x509") || c == nil && err == nil {
			t.Errorf("%s: %v", ext, err)
		}
		check(t, address+ext, a)
	}
}

// check looks at what every answer has to have.
func check(t testing.TB, path string, a *httptest.ResponseRecorder) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
	} {
		if got := a.Header().Get(name); got != want {
			t.Errorf("%.200q: %s is %q", path, name, got)
		}
	}
	if !strings.HasPrefix(a.Header().Get("Content-Type"), "text/html") {
		return
	}
	if a.Body.Len() > maxPage {
		t.Errorf("%.200q: %d bytes", path, a.Body.Len())
	}
	z := html.NewTokenizer(bytes.NewReader(a.Body.Bytes()))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return
		}
		if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
			continue
		}
		token := z.Token()
		own := map[string]bool{"src": true, "href": true, "action": true}
		for _, attribute := range token.Attr {
			switch {
			case strings.HasPrefix(attribute.Key, "on"), attribute.Key == "style":
				t.Errorf("%.200q: <%s %s=%q>", path, token.Data, attribute.Key, attribute.Val)
			case own[attribute.Key] && !strings.HasPrefix(attribute.Val, "/") && !strings.HasPrefix(attribute.Val, "#") || strings.HasPrefix(attribute.Val, "//"):
				t.Errorf("%.200q: <%s %s=%q> leads elsewhere", path, token.Data, attribute.Key, attribute.Val)
			}
		}
		switch token.Data {
		case "img", "iframe", "object", "embed", "base", "style":
			t.Errorf("%.200q has <%s>", path, token.Data)
		case "script":
			if len(token.Attr) == 0 || token.Attr[0].Key != "src" {
				t.Errorf("%.200q has a script of its own", path)
			}
		}
	}
}

// readAlerts reads the list of alerts to its end, page by page. It returns the ids in the
// order in which they are listed, and what is said at the end.
func readAlerts(t *testing.T, w *world) (ids []string, end string) {
	t.Helper()
	for path, pages := "/alerts", 0; path != ""; pages++ {
		if pages > 100 {
			t.Fatal("the list has no end")
		}
		a := w.get(path)
		if a.Code != http.StatusOK {
			t.Fatalf("%s: %d", path, a.Code)
		}
		check(t, path, a)
		doc, err := html.Parse(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		path, end = "", ""
		for n := range doc.Descendants() {
			href, rel := "", ""
			for _, at := range n.Attr {
				switch at.Key {
				case "href":
					href = at.Val
				case "rel":
					rel = at.Val
				}
			}
			switch id, ok := strings.CutPrefix(href, "/alerts/"); {
			case ok:
				ids = append(ids, id)
				rows++
			case rel == "next":
				path = href
			case n.Type == html.TextNode && strings.HasPrefix(n.Data, "The list ends here"):
				end = n.Data
			}
		}
		if rows > maxRows {
			t.Errorf("%d rows in one page", rows)
		}
	}
	return ids, end
}

// TestOlder reads more alerts than the page keeps: the list goes on in the inventory, has
// each of them once, and says why it ends.
func TestOlder(t *testing.T) {
	w := newWorld(t, Config{})
	const all = maxAlerts + 250
	der := certificate(t, 70, "many.example.net", w.now.AddDate(1, 0, 0))
	for n := range all {
		at := w.now.Add(time.Duration(1+n^3) * time.Second) // not quite in order
		w.see(shown(der, n, "many.example.net", at, raised(fmt.Sprintf("%032x", n), "low", "Many", "one of many")))
	}
	w.settled(t)
	ids, end := readAlerts(t, w)
	seen := map[string]int{}
	for _, id := range ids {
		seen[id]++
	}
	for n := range all {
		if id := fmt.Sprintf("%032x", n); seen[id] != 1 {
			t.Errorf("alert %d is listed %d times", n, seen[id])
		}
	}
	if len(ids) != all+1 { // and the one that a world has
		t.Errorf("%d alerts are listed", len(ids))
	}
	if end != "The list ends here: the inventory has no older alerts." {
		t.Errorf("at the end: %q", end)
	}
	for _, path := range []string{"/alerts?before=x", "/alerts?before=1.", "/alerts?before=1.../..", "/alerts?before=-9223372036854775808.a", "/alerts?before=99999999999999999999.a"} {
		if a := w.get(path); a.Code != http.StatusOK {
			t.Errorf("%s: %d", path, a.Code)
		}
	}

	w.Page.store.Store(nil) // without an inventory
	ids, end = readAlerts(t, w)
	if len(ids) != maxAlerts || !strings.Contains(end, "Those before, 251, are in the records") {
		t.Errorf("without an inventory %d alerts are listed; at the end: %q", len(ids), end)
	}
	if a := w.get("/alerts?before=" + beforeNone); a.Code != http.StatusOK || !strings.Contains(a.Body.String(), "The list ends here") {
		t.Errorf("without an inventory: %d, %s", a.Code, a.Body)
	}
	few := &world{Page: New(Config{Sensor: "span-1", Version: "v1.2.3"}), now: w.now}
	t.Cleanup(few.Close)
	if ids, end := readAlerts(t, few); len(ids) != 0 || end != "" {
		t.Errorf("before any alert: %q, %q", ids, end)
	}
	few.See(shown(der, 1, "many.example.net", w.now, raised("a", "low", "Many", "one of many")))
	few.mu.Lock()
	clear(few.shared) // pages are made anew at most each refreshLimit
	few.mu.Unlock()
	if ids, end := readAlerts(t, few); len(ids) != 1 || !strings.Contains(end, "all alerts since the sensor was started") {
		t.Errorf("after one alert: %q, %q", ids, end)
	}
}

// TestSelfSigned holds that a root in a chain is not counted, found or shown as self-signed,
// as it is no server's own certificate.
func TestSelfSigned(t *testing.T) {
	w := newWorld(t, Config{})
	own := func(serial int64, name string) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: w.now.AddDate(-1, 0, 0), NotAfter: w.now.AddDate(1, 0, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key().PublicKey, key())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	w.see(shown(own(20, "own.example.net"), 20, "own.example.net", w.now))
	f := shown(certificate(t, 21, "leaf.example.net", w.now.AddDate(1, 0, 0)), 21, "leaf.example.net", w.now)
	f.Handshake.Chain = append(f.Handshake.Chain, event.ChainEntry{Certificate: cert.Parse(own(22, "root.example.net"))})
	w.see(f)
	w.settled(t)
	if n := w.surveyor.last.Load().selfSigned; n != 1 {
		t.Errorf("%d are counted as self-signed, want 1", n)
	}
	if body := w.get("/certificates?only=self-signed").Body.String(); !strings.Contains(body, "own.example.net") || strings.Contains(body, "root.example.net") {
		t.Error(body)
	}
	if body := w.get("/servers").Body.String(); !strings.Contains(body, "pairs of a client and a server") { // a client is one in each
		t.Error(body)
	}
}

// TestForeign asks as other web pages could have a browser ask.
func TestForeign(t *testing.T) {
	w := newWorld(t, Config{})
	for _, test := range []struct {
		host   string
		header []string
		status int
	}{
		{"127.0.0.1:9847", nil, 200},
		{"localhost:9847", nil, 200},
		{"LOCALHOST", nil, 200},
		{"[::1]:9847", nil, 200},
		{"localhost.", nil, 200},
		{"10.1.2.3:9847", nil, 200}, // a name can lead there, an address cannot be anybody else's
		{"evil.example:9847", nil, 421},
		{"127.0.0.1.evil.example", nil, 421},
		{"localhost.evil.example", nil, 421},
		{"evil.example:9847:127.0.0.1", nil, 421},
		{"", nil, 421},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "none"}, 200},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403},
		{"127.0.0.1", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}, 403}, // another port of this machine
		{"127.0.0.1", []string{"Sec-Fetch-Site", "?"}, 403},
		{"127.0.0.1:9847", []string{"Origin", "http://127.0.0.1:9847"}, 200},
		{"127.0.0.1:9847", []string{"Origin", "http://127.0.0.1:3000"}, 403},
		{"127.0.0.1", []string{"Origin", "http://evil.example"}, 403},
		{"127.0.0.1", []string{"Origin", "null"}, 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "/alerts", nil)
		r.Host = test.host
		for i := 0; i+1 < len(test.header); i += 2 {
			r.Header.Set(test.header[i], test.header[i+1])
		}
		a := httptest.NewRecorder()
		w.ServeHTTP(a, r)
		if a.Code != test.status {
			t.Errorf("%q %q: %d", test.host, test.header, a.Code)
		}
		check(t, "/alerts", a)
	}
	for method, status := range map[string]int{"POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405, "TRACE": 405, "HEAD": 200, "PATCH": 405} {
		a := httptest.NewRecorder()
		w.ServeHTTP(a, httptest.NewRequest(method, "http://127.0.0.1/alerts", nil))
		if a.Code != status {
			t.Errorf("%s: %d", method, a.Code)
		}
	}
}

const secret = "9f86d081884c7d659a2feaa0c55ad015"

// withToken is a page that asks for a token.
func withToken(t testing.TB) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	access, err := health.OpenAccess(health.AccessFiles{Token: path})
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, Config{Access: access})
}

// TestToken asks for everything without the token, with another, and with it.
func TestToken(t *testing.T) {
	w := withToken(t)
	paths := []string{"/", "/alerts", "/alerts/67e5a1d0aabbccddeeff001122334455", "/alerts/x/evidence.zip", "/certificates", "/certificates/00", "/certificates/00.pem",
		"/servers", "/servers/198.51.0.3/443/tcp/tls", "/events", "/nothing", "/files/../alerts", "/files/%2e%2e/alerts", "//alerts", "/login/../alerts", "/alerts/"}
	for _, path := range paths {
		for _, header := range [][]string{nil, {"Authorization", "Bearer " + secret[1:]}, {"Authorization", "Basic " + secret}, {"Authorization", secret}, {"Authorization", "Bearer"}, {"Cookie", "oddcert=" + secret}, {"Cookie", "oddcert="}, {"Accept", "text/html"}} {
			a := w.get(path, header...)
			if a.Code != http.StatusUnauthorized && a.Code/100 != 3 || strings.Contains(a.Body.String(), "198.51") {
				t.Errorf("%s with %q: %d\n%.500s", path, header, a.Code, a.Body)
			}
		}
		if path != "/events" {
			if a := w.get(path, "Authorization", "Bearer "+secret); a.Code == http.StatusUnauthorized {
				t.Errorf("%s with the token: %d", path, a.Code)
			}
		}
	}
	if a := w.get("/files/style.css"); a.Code != 200 {
		t.Errorf("the style sheet: %d", a.Code)
	}
	send := func(text string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:9847/login", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		a := httptest.NewRecorder()
		w.ServeHTTP(a, r)
		return a
	}
	for text, status := range map[string]int{"token=" + secret[1:]: 401, "": 401, "token=": 401, "token=" + strings.Repeat("x", 3000): 400, "%zz": 400, "token=" + url.QueryEscape(secret): 303} {
		a := send(text)
		if a.Code != status || (status == 303) != (a.Header().Get("Set-Cookie") != "") {
			t.Errorf("%.40q: %d %q", text, a.Code, a.Header())
		}
		check(t, "/login", a)
	}
	if a := send("token="+secret, "Origin", "http://evil.example"); a.Code != 403 {
		t.Errorf("a form of another page: %d", a.Code)
	}
	cookie := send("token=" + secret).Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || strings.Contains(cookie.Value, secret) {
		t.Errorf("%+v", cookie)
	}
	if a := w.get("/alerts", "Cookie", cookie.Name+"="+cookie.Value); a.Code != 200 {
		t.Errorf("with the cookie: %d", a.Code)
	}
	for i := range cookie.Value { // one character is another
		b := []byte(cookie.Value)
		b[i] ^= 1
		if a := w.get("/alerts", "Cookie", cookie.Name+"="+string(b)); a.Code != 401 {
			t.Fatalf("with another cookie: %d", a.Code)
		}
	}
	if w.Section().Value.(Stats).Refused == 0 {
		t.Error("refusals are not counted")
	}
}

// serve serves a page as the program does, until the test ends.
func serve(t testing.TB, w *world) string {
	t.Helper()
	l, err := health.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := health.New(health.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := m.Serve(ctx, l, health.Service{Page: w, Streams: MaxStreams}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return l.Addr().String()
}

// events reads the events of a stream until one of a kind comes.
func readEvent(t testing.TB, b *bufio.Reader, kind string) (id, data string) {
	t.Helper()
	found := false
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			t.Fatalf("no %s: %v", kind, err)
		}
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case name == "id":
			id = text
		case name == "event":
			found = text == kind
		case name == "data" && found:
			return id, text
		}
	}
}

func stream(t testing.TB, address, last string) (*http.Response, *bufio.Reader) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Body.Close() })
	return a, bufio.NewReader(a.Body)
}

func (w *world) raise(n int) {
	w.See(&finding.Finding{Handshake: w.handshake, Alerts: []finding.Alert{raised(fmt.Sprintf("%032x", n), "low", "one of many", "a reason")}})
}

// TestStream follows events, goes away, and comes back: each event comes once, and what
// was missed is said.
func TestStream(t *testing.T) {
	w := newWorld(t, Config{})
	address := serve(t, w)
	a, b := stream(t, address, "")
	if a.StatusCode != 200 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatal(a.Status, a.Header)
	}
	if line, err := b.ReadString('\n'); line != "retry: 3000\n" {
		t.Fatalf("%q, %v", line, err)
	}
	w.raise(1)
	id, data := readEvent(t, b, "alert")
	if !strings.Contains(data, fmt.Sprintf("%032x", 1)) || !strings.Contains(data, `"level":"low"`) {
		t.Error(data)
	}
	a.Body.Close()
	for n := 2; n < 10; n++ {
		w.raise(n)
	}
	a, b = stream(t, address, id)
	for n := 2; n < 10; n++ {
		if _, data := readEvent(t, b, "alert"); !strings.Contains(data, fmt.Sprintf("%032x", n)) {
			t.Errorf("not event %d: %s", n, data)
		}
	}
	a.Body.Close()
	for n := 10; n < 10+2*maxEvents; n++ {
		w.raise(n)
	}
	_, b = stream(t, address, id)
	if _, data := readEvent(t, b, "missed"); data != fmt.Sprint(8+maxEvents) {
		t.Errorf("%s events were missed", data)
	}
	if _, data := readEvent(t, b, "alert"); !strings.Contains(data, fmt.Sprintf("%032x", 10+maxEvents)) {
		t.Error(data)
	}
	if _, b = stream(t, address, "18446744073709551615"); b == nil { // of another run
		t.Error("no stream")
	}
	readEvent(t, b, "missed")
}

// TestThousandStreams opens a thousand streams at once: some are served, the others are
// told to come again, and all others who ask are answered meanwhile.
func TestThousandStreams(t *testing.T) {
	w := newWorld(t, Config{})
	address := serve(t, w)
	before := runtime.NumGoroutine()
	var mu sync.Mutex
	counts := map[int]int{}
	var open []net.Conn
	var asking sync.WaitGroup
	for range 1000 {
		asking.Go(func() {
			c, err := net.DialTimeout("tcp", address, time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(2 * time.Minute))
			if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Error(err)
				return
			}
			a, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			counts[a.StatusCode]++
			if a.StatusCode == 200 {
				open = append(open, c)
			} else if a.Header.Get("Retry-After") == "" {
				t.Error("it is not said when to come again")
			}
			mu.Unlock()
		})
	}
	asking.Wait()
	t.Logf("answers by status: %v", counts)
	if counts[200] != MaxStreams || counts[503] != 1000-MaxStreams {
		t.Errorf("answers by status: %v", counts)
	}
	began := time.Now()
	for _, path := range []string{"/metrics", "/", "/alerts"} {
		a, err := http.Get("http://" + address + path)
		if err != nil || a.StatusCode != 200 {
			t.Fatal(path, a, err)
		}
		a.Body.Close()
	}
	t.Logf("others are answered in %v", time.Since(began))
	if s := w.Section().Value.(Stats); s.Open != MaxStreams || s.RefusedStreams != 1000-MaxStreams {
		t.Errorf("%+v", s)
	}
	for _, c := range open {
		c.Close()
	}
	for deadline := time.Now().Add(time.Minute); w.hub.open.Load() > 0 || runtime.NumGoroutine() > before+20; time.Sleep(10 * time.Millisecond) {
		w.hub.publish("sample", []byte("{}"))
		if time.Now().After(deadline) {
			t.Fatalf("%d streams and %d goroutines are left", w.hub.open.Load(), runtime.NumGoroutine()-before)
		}
	}
}

// TestSlowReaders has readers of streams that take nothing, or a byte now and then, while
// there is a flood of alerts. Neither the flood nor another reader waits for them.
func TestSlowReaders(t *testing.T) {
	w := newWorld(t, Config{})
	address := serve(t, w)
	for i := range 20 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.(*net.TCPConn).SetReadBuffer(1024)
		if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			go func() {
				for one := make([]byte, 1); ; time.Sleep(time.Second) {
					if _, err := c.Read(one); err != nil {
						return
					}
				}
			}()
		}
	}
	_, b := stream(t, address, "")
	for deadline := time.Now().Add(time.Minute); w.hub.open.Load() < 21; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the streams are not open")
		}
	}
	const flood = 100_000
	began := time.Now()
	for n := range flood {
		w.raise(n)
	}
	t.Logf("%d alerts take %v", flood, time.Since(began))
	w.raise(flood)
	for {
		if _, data := readEvent(t, b, "alert"); strings.Contains(data, fmt.Sprintf("%032x", flood)) {
			break
		}
	}
	t.Logf("who reads has the last of them after %v", time.Since(began))
	w.alerts.mu.Lock()
	defer w.alerts.mu.Unlock()
	if len(w.alerts.order) != maxAlerts || len(w.alerts.byID) != maxAlerts || w.alerts.given == 0 {
		t.Errorf("%d alerts are kept, %d were forgotten", len(w.alerts.order), w.alerts.given)
	}
}

// FuzzRequest asks for anything in any way: there is never a panic, a status that is
// none of the page's, or an answer without the headers that protect it.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HEAD /alerts?skip=3 HTTP/1.1\r\nHost: 127.0.0.1:9847\r\n\r\n",
		"GET /certificates?q=a&only=expired&after=" + strings.Repeat("11", 32) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /servers/198.51.0.3/443/tcp/tls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
		"GET /servers?q=198.51.0.0/24&after=::1/443/tcp/- HTTP/1.1\r\nHost: [::1]\r\n\r\n",
		"GET /alerts/..%2f/evidence.zip HTTP/1.1\r\nHost: localhost\r\nCookie: oddcert=AAAA\r\n\r\n",
		"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntoken=x",
		"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 7\r\n\r\n--x\r\n\r\n",
		"HEAD /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: -1\r\n\r\n", "GET /files/live.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=1-2,3-\r\nIf-None-Match: *\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET http://localhost/certificates/%00.pem HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	open, closed := newWorld(f, Config{}), withToken(f)
	known := map[int]bool{200: true, 301: true, 303: true, 307: true, 400: true, 401: true, 403: true, 404: true, 405: true, 414: true, 421: true}
	f.Fuzz(func(t *testing.T, request []byte, token bool) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		w := open
		if token {
			w = closed
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if strings.Contains(r.URL.Path, "events") && r.Method == http.MethodGet { // it would not end by itself
			cancel()
		}
		a := httptest.NewRecorder()
		w.ServeHTTP(a, r.WithContext(ctx))
		if !known[a.Code] {
			t.Errorf("%s %q: status %d\n%.500s", r.Method, r.URL, a.Code, a.Body)
		}
		if token && (a.Code == 200 || a.Code == 404) && r.Header.Get("Authorization") == "" && bytes.Contains(a.Body.Bytes(), []byte("198.51")) {
			t.Errorf("%s %q: shown without the token", r.Method, r.URL)
		}
		check(t, r.URL.Path, a)
	})
}
