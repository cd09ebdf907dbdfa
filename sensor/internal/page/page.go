// Package page is what a person sees of a live sensor in a browser: alerts as they come,
// certificates and servers of the inventory, what is lost, and how the outputs are.
//
// Make a [Page], tell it what is found and counted, and give it to the listener:
//
//	p := page.New(page.Config{Sensor: name, Version: version})
//	options.Found, options.Watch = p.See, p.Watch
//	go monitor.Serve(ctx, listener, health.Service{Page: p, Streams: page.MaxStreams})
//
// It can be read and nothing else, and needs no script: a script only keeps it up to
// date. Whoever asks holds up no capture: what the pipeline tells is kept in bounded
// memory, and a page is made of that.
package page

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

// Config is what a [Page] is made of.
type Config struct {
	Sensor  string         // its name
	Version string         // of the program
	Access  *health.Access // who may ask; nil for everybody who reaches the listener
	Monitor *health.Monitor
	Log     *slog.Logger     // nil for none
	Now     func() time.Time // the wall clock; nil for time.Now
}

// Page shows a live sensor. Its methods may be called by any goroutine.
type Page struct {
	config   Config
	handler  http.Handler
	packs    atomic.Pointer[os.Root] // folder of evidence; nil without
	store    atomic.Pointer[inventory.Store]
	counters atomic.Pointer[output.Counters]
	rates    rates
	alerts   recent
	hub      *hub
	surveyor surveyor

	answers, downloads, searches chan struct{} // turns

	mu     sync.Mutex
	shared map[string]*answer // pages that many ask for

	done   chan struct{}
	ending sync.Once

	answered, refused, failed atomic.Uint64
	complained                atomic.Int64 // second of the last warning about a token
}

// New returns a page that has seen nothing. The caller closes it.
func New(c Config) *Page {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Page{
		config: c, hub: newHub(), done: make(chan struct{}), shared: map[string]*answer{},
		answers: make(chan struct{}, maxAnswers), downloads: make(chan struct{}, maxDownloads), searches: make(chan struct{}, 1),
	}
	p.alerts.byID = map[string]*inventory.Alert{}
	p.handler = p.routes()
	return p
}

// Close ends all streams. When it returns, nobody asks the inventory any more, except for
// requests that are being answered.
func (p *Page) Close() {
	p.ending.Do(func() {
		close(p.done)
		p.store.Store(nil)
		p.surveyor.looking.Lock() // for good: there is no other look
	})
}

// Ask has the page ask an inventory, from now on. Questions to it find what is stored
// then.
func (p *Page) Ask(store *inventory.Store) {
	store.AnswerAsStored()
	p.store.Store(store)
	p.surveyor.look(p, store)
}

// SendFrom has the page send evidence packs from a folder. The folder stays open, so that
// no other can be put into its place.
func (p *Page) SendFrom(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("send evidence: %w", err)
	}
	p.packs.Store(root)
	return nil
}

// Watch takes what was counted so far. It keeps c, which nobody may change any more.
func (p *Page) Watch(c *output.Counters) {
	p.counters.Store(c)
	if p.rates.see(c, p.config.Now()) {
		p.hub.publish("sample", []byte("{}"))
	}
}

// See takes a finding. It waits for nobody.
func (p *Page) See(f *finding.Finding) {
	for i := range f.Alerts {
		id := f.Alerts[i].ID
		switch {
		case id == "":
		case f.Alerts[i].Counted:
			p.alerts.count(id)
		default:
			if a := alertOf(f, i); p.alerts.add(a) {
				p.hub.publish("alert", told(a))
			}
		}
	}
}

// told is what the event of an alert says: one line of JSON, whose texts are harmless.
func told(a *inventory.Alert) []byte {
	text := func(s string) string { return harmless.Short(s, 300) }
	b, _ := json.Marshal(struct { // it cannot fail
		ID      string `json:"id"`
		Time    string `json:"time"`
		Level   string `json:"level"`
		Rule    string `json:"rule"`
		Verdict string `json:"verdict"`
		Reason  string `json:"reason"`
		Server  string `json:"server"`
		Client  string `json:"client"`
		Name    string `json:"name,omitempty"`
	}{a.ID, time.Unix(0, a.Time).UTC().Format(time.RFC3339Nano), a.Level, text(a.Rule), text(a.Verdict), text(a.Reason),
		views.ServerName(a.Server), views.ClientName(a.Place.Flow), text(a.Name)})
	return b
}

// Stats counts what was asked of the page.
type Stats struct {
	Answers        uint64 `json:"answers"`
	Refused        uint64 `json:"refused"`          // requests: of another host or page, without the token, or too many
	Failures       uint64 `json:"failures"`         // answers that could not be made
	Open           int64  `json:"open_streams"`     // streams that are open
	RefusedStreams uint64 `json:"refused_streams"`  // there were too many
	SlowStreams    uint64 `json:"slow_streams"`     // ended because nobody read them
	Missed         uint64 `json:"missed_events"`    // events that slow streams have missed
	Forgotten      uint64 `json:"forgotten_alerts"` // given up for newer ones: the page no longer shows them, the records have them
}

// Section is the section of the statistics that is about the page.
func (p *Page) Section() output.Section {
	return output.Section{Name: "page", Books: true, Value: Stats{
		Answers: p.answered.Load(), Refused: p.refused.Load() + p.config.Access.Refused(), Failures: p.failed.Load(),
		Open: p.hub.open.Load(), RefusedStreams: p.hub.refused.Load(), SlowStreams: p.hub.slow.Load(), Missed: p.hub.missed.Load(),
		Forgotten: p.alerts.forgotten(),
	}}
}
