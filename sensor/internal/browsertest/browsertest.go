// Package browsertest drives a headless Chromium for tests of pages: it clicks and reads,
// takes pictures, prints, asks axe-core about accessibility, and notes each request and
// each complaint of the console.
package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take for all that a test does with it. It is long,
// because a machine may be busy with other tests.
const patience = 4 * time.Minute

// programs are the names of Chromium.
var programs = []string{"chromium", "chromium-browser", "google-chrome"}

// Browser is a running Chromium.
type Browser struct{ ctx context.Context }

// Start starts a browser that ends with the test. The test is skipped where there is no
// Chromium.
func Start(t testing.TB) *Browser {
	t.Helper()
	var path string
	for _, name := range programs {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skipf("no browser on this machine: none of %s", strings.Join(programs, ", "))
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(2*time.Minute),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-pings", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root
	}
	allocated, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, leave := chromedp.NewContext(allocated)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // it closes the browser, and waits for it
		leave()
		end()
	})
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx}
}

// View is how a page is looked at.
type View struct {
	Width    int64  // CSS pixels; 1440 where it is 0
	Height   int64  // CSS pixels; 900 where it is 0
	Dark     bool   // the reader prefers dark colours
	NoScript bool   // scripts of the page do not run
	Media    string // such as "print"; the screen where it is empty
}

// Page is a tab of the browser.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	requests   []string
}

// Open opens a tab, and url in it. The tab is closed with the test.
func (b *Browser) Open(t testing.TB, url string, v View) *Page {
	t.Helper()
	ctx, leave := chromedp.NewContext(b.ctx)
	ctx, end := context.WithTimeout(ctx, patience)
	t.Cleanup(func() { end(); leave() })
	p := &Page{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, p.note)
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	if v.Width == 0 {
		v.Width = 1440
	}
	if v.Height == 0 {
		v.Height = 900
	}
	p.Run(network.Enable(), log.Enable(), runtime.Enable(),
		chromedp.EmulateViewport(v.Width, v.Height),
		emulation.SetEmulatedMedia().WithMedia(v.Media).WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		emulation.SetScriptExecutionDisabled(v.NoScript),
		chromedp.Navigate(url))
	return p
}

// note takes what the browser tells of the page.
func (p *Page) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *network.EventWebSocketCreated:
		p.requests = append(p.requests, e.URL)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			p.complaints = append(p.complaints, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value)+a.Description)
			}
			p.complaints = append(p.complaints, fmt.Sprintf("console.%s: %s", e.Type, strings.Join(words, " ")))
		}
	}
}

// Run has the browser do things, and fails the test where one fails.
func (p *Page) Run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatalf("drive the page: %v", err)
	}
}

// Eval runs a script in the page, also where the page may run none, and returns its
// value. A promise is waited for.
func Eval[T any](p *Page, script string) (v T) {
	p.t.Helper()
	p.Run(chromedp.Evaluate(script, &v, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }))
	return v
}

// Complaints returns errors and warnings of the console, exceptions, and violations of
// the page's security policy, so far.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.complaints)
}

// Requests returns the addresses that the page has asked for so far, its own included.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Quiet fails the test where the console has complaints, or where the page asked for an
// address that begins with none of the prefixes.
func (p *Page) Quiet(prefixes ...string) {
	p.t.Helper()
	for _, c := range p.Complaints() {
		p.t.Errorf("the console complains: %s", c)
	}
	for _, r := range p.Requests() {
		if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(r, prefix) }) {
			p.t.Errorf("the page asked for %s", r)
		}
	}
}

// Picture writes a picture of the whole page into the folder that the environment names
// as ODDCERT_SCREENSHOTS, as NAME.png. Without that variable it does nothing.
func (p *Page) Picture(name string) {
	p.t.Helper()
	dir := os.Getenv("ODDCERT_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	p.Run(chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// PDF prints the page on A4 and returns the document.
func (p *Page) PDF() (pdf []byte) {
	p.t.Helper()
	p.Run(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		pdf, _, err = page.PrintToPDF().WithPrintBackground(true).WithPaperWidth(8.27).WithPaperHeight(11.69).Do(ctx)
		return err
	}))
	return pdf
}

// Fault is what axe-core finds wrong with a page.
type Fault struct {
	ID     string   `json:"id"`     // of axe-core's rule
	Impact string   `json:"impact"` // minor, moderate, serious or critical
	Help   string   `json:"help"`
	Nodes  []string `json:"nodes"` // where, as HTML
}

// Faults returns what axe-core finds wrong, the minor faults included. Where axe-core
// cannot be had, the test goes on without, and says so.
func (p *Page) Faults() (faults []Fault) {
	p.t.Helper()
	source, err := axe()
	if err != nil {
		p.t.Logf("axe-core is not asked: %v", err)
		return nil
	}
	p.Run(chromedp.Evaluate(source+"\n;undefined", nil))
	found := Eval[string](p, `axe.run(document, {preload: false, resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations.map(v =>
		({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 5).map(n => n.html + " | " + n.failureSummary)}))))`)
	if err := json.Unmarshal([]byte(found), &faults); err != nil {
		p.t.Fatalf("read the answer of axe-core: %v", err)
	}
	return faults
}

// Accessible fails the test where axe-core finds a serious or critical fault, and logs
// lesser ones.
func (p *Page) Accessible() {
	p.t.Helper()
	for _, f := range p.Faults() {
		say := p.t.Logf
		if f.Impact == "serious" || f.Impact == "critical" {
			say = p.t.Errorf
		}
		say("%s: %s (%s)\n\t%s", f.Impact, f.Help, f.ID, strings.Join(f.Nodes, "\n\t"))
	}
}

// Part writes a picture of the first element that a selector of CSS finds, as Picture does
// of the page.
func (p *Page) Part(name, selector string) {
	p.t.Helper()
	dir := os.Getenv("ODDCERT_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	p.Run(chromedp.Screenshot(selector, &png, chromedp.ByQuery))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
