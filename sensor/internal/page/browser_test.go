package page

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/oddcert/oddcert/sensor/internal/browsertest"
)

// TestBrowser looks at all pages in a browser: nothing complains, nobody else is asked,
// axe-core finds no serious fault, and what happens shows without a reload.
func TestBrowser(t *testing.T) {
	b := browsertest.Start(t)
	w := newWorld(t, Config{})
	for i, text := range hostile {
		w.see(shown(certificate(t, int64(100+i), text, w.now.AddDate(1, 0, 0)), 100+i, text, w.now,
			raised(fmt.Sprintf("67e5a1d0aabbccddeeff0011223344%02d", i), "low", text, text)))
	}
	w.settled(t)
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	leaf := w.surveyor.last.Load().newest[len(w.surveyor.last.Load().newest)-1]
	pages := map[string]string{
		"overview": "/", "alerts": "/alerts", "alert": "/alerts/67e5a1d0aabbccddeeff001122334455", "certificates": "/certificates", "expired": "/certificates?only=expired",
		"certificate": certificateAddress(leaf.SHA256), "servers": "/servers", "server": "/servers/198.51.0.3/443/tcp/tls", "missing": "/nothing",
	}
	for name, path := range pages {
		for _, v := range []browsertest.View{{Width: 1440}, {Width: 390}, {Width: 1440, Dark: true}, {Width: 390, Dark: true}} {
			p := b.Open(t, server.URL+path, v)
			p.Run(chromedp.WaitReady("footer"))
			if name != "missing" {
				p.Quiet(server.URL + "/")
			}
			if got := browsertest.Eval[string](p, `document.title`); got == "owned" {
				t.Errorf("%s: a script of the wire has run", name)
			}
			if wide := browsertest.Eval[int](p, `document.documentElement.scrollWidth`); wide > int(v.Width) {
				t.Errorf("%s: %d pixels are wider than %d", name, wide, v.Width)
			}
			scheme := "light"
			if v.Dark {
				scheme = "dark"
			}
			p.Picture(fmt.Sprintf("page-%s-%d-%s", name, v.Width, scheme))
			if v.Width == 1440 {
				p.Accessible()
			}
		}
	}

	p := b.Open(t, server.URL+"/", browsertest.View{})
	p.Run(chromedp.WaitVisible("#alerts"))
	for deadline := time.Now().Add(time.Minute); w.hub.open.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	began := time.Now()
	w.see(shown(certificate(t, 500, "late.example.net", w.now.AddDate(1, 0, 0)), 500, "late.example.net", w.now,
		raised("67e5a1d0aabbccddeeff001122334499", "critical", "A late one", "it came late <b>")))
	p.Run(chromedp.WaitVisible("#alert-67e5a1d0aabbccddeeff001122334499"))
	t.Logf("the alert is on the page after %v", time.Since(began))
	p.Quiet(server.URL + "/")
}

// TestSignIn types the token into the form, a wrong one first.
func TestSignIn(t *testing.T) {
	b := browsertest.Start(t)
	w := withToken(t)
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	p := b.Open(t, server.URL+"/alerts", browsertest.View{})
	p.Run(chromedp.WaitVisible("input[name=token]"))
	p.Accessible()
	p.Picture("page-login")
	p.Run(chromedp.SendKeys("input[name=token]", secret[1:]+"\r", chromedp.ByQuery), chromedp.WaitVisible("[role=alert]", chromedp.ByQuery))
	p.Run(chromedp.SendKeys("input[name=token]", secret+"\r", chromedp.ByQuery), chromedp.WaitVisible("#state", chromedp.ByQuery))
	if got := browsertest.Eval[string](p, `document.cookie`); got != "" {
		t.Errorf("scripts can read the cookie: %q", got)
	}
	for deadline := time.Now().Add(time.Minute); w.hub.open.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the events are refused")
		}
	}
	for _, r := range p.Requests() {
		if strings.Contains(r, secret) {
			t.Errorf("the token is in an address: %s", r)
		}
	}
}

// TestTables sorts, filters and searches, and reads without scripts.
func TestTables(t *testing.T) {
	b := browsertest.Start(t)
	w := newWorld(t, Config{})
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	p := b.Open(t, server.URL+"/certificates", browsertest.View{})
	p.Run(chromedp.WaitVisible("table .number button", chromedp.ByQuery))
	first := func() string {
		return browsertest.Eval[string](p, `document.querySelector("#certificates tbody th").textContent.trim()`)
	}
	p.Run(chromedp.Click("#certificates thead th:first-child button", chromedp.ByQuery))
	if got := first(); !strings.HasPrefix(got, "old.example.net") {
		t.Errorf("by name, %q is the first", got)
	}
	p.Run(chromedp.Click("#certificates thead th:last-child button", chromedp.ByQuery))
	if got := first(); !strings.HasPrefix(got, "www.update.microsoft.com") {
		t.Errorf("by alerts, %q is the first", got)
	}
	p.Run(chromedp.SetValue("select[name=only]", "expired", chromedp.ByQuery), chromedp.Submit("form[role=search]", chromedp.ByQuery), chromedp.WaitVisible("#certificates", chromedp.ByQuery))
	for deadline := time.Now().Add(time.Minute); browsertest.Eval[int](p, `document.querySelectorAll("#certificates tbody tr").length`) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is searched for")
		}
	}
	if got := first(); !strings.HasPrefix(got, "old.example.net") {
		t.Errorf("%q is expired", got)
	}
	p.Quiet(server.URL + "/")

	for _, v := range []browsertest.View{{Width: 1440}, {Width: 390, Dark: true}} {
		b.Open(t, server.URL+"/", v).Picture(fmt.Sprintf("page-quiet-%d", v.Width))
	}
	p = b.Open(t, server.URL+"/", browsertest.View{NoScript: true})
	if got := browsertest.Eval[string](p, `document.querySelector("main").textContent`); !strings.Contains(got, "www.update.microsoft.com") || !strings.Contains(got, "old.example.net") {
		t.Errorf("without scripts: %q", got)
	}
}
