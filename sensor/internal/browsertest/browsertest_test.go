package browsertest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// A page with known faults has all of them found; one without has none.
func TestPage(t *testing.T) {
	b := Start(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch r.URL.Path {
		case "/good":
			fmt.Fprint(w, `<!doctype html><html lang=en><title>good</title><link rel=icon href="data:,"><main><h1>good</h1><button>press</button><p></p></main>
<script>document.querySelector("button").onclick = () => document.querySelector("p").textContent = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"</script></html>`)
		case "/bad":
			fmt.Fprint(w, `<!doctype html><html><title>bad</title><h1>bad</h1><img src="/missing.png"><p style="color:#ddd;background:#fff">hard to read</p>
<script>console.error("no good"); throw new Error("worse")</script></html>`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	for _, dark := range []bool{false, true} {
		p := b.Open(t, server.URL+"/good", View{Width: 390, Dark: dark})
		p.Run(chromedp.Click("button", chromedp.ByQuery))
		if got, want := Eval[string](p, `document.querySelector("p").textContent`), map[bool]string{false: "light", true: "dark"}[dark]; got != want {
			t.Errorf("the page is %q, not %q", got, want)
		}
		if w := Eval[int](p, `innerWidth`); w != 390 {
			t.Errorf("%d pixels wide", w)
		}
		p.Quiet(server.URL, "data:")
		p.Accessible()
		if pdf := p.PDF(); !bytes.HasPrefix(pdf, []byte("%PDF-")) {
			t.Errorf("not a PDF: %.20q", pdf)
		}
	}

	p := b.Open(t, server.URL+"/bad", View{})
	complaints := strings.Join(p.Complaints(), "\n")
	for _, want := range []string{"no good", "worse", "404"} {
		if !strings.Contains(complaints, want) {
			t.Errorf("no complaint of %q in:\n%s", want, complaints)
		}
	}
	if !slices.Contains(p.Requests(), server.URL+"/missing.png") {
		t.Errorf("requests: %q", p.Requests())
	}
	if _, err := axe(); err == nil {
		var ids []string
		for _, f := range p.Faults() {
			ids = append(ids, f.ID)
		}
		for _, want := range []string{"html-has-lang", "image-alt", "color-contrast"} {
			if !slices.Contains(ids, want) {
				t.Errorf("axe-core did not find %s: %q", want, ids)
			}
		}
	}

	if p := b.Open(t, server.URL+"/bad", View{NoScript: true}); strings.Contains(strings.Join(p.Complaints(), "\n"), "worse") {
		t.Error("a script has run")
	}
}
