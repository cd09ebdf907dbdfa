package page

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
	"github.com/oddcert/oddcert/sensor/internal/output/spool"
	"github.com/oddcert/oddcert/sensor/internal/summary"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

var (
	//go:embed pages.html
	pagesText string
	//go:embed live.js
	liveScript string
	//go:embed icon.svg
	icon string
)

// pages are the templates of all pages.
var pages = template.Must(views.Template(pagesText))

// files are what every page is drawn with, by name.
var files = map[string]struct{ kind, text string }{
	"style.css": {"text/css; charset=utf-8", views.Style},
	"table.js":  {"text/javascript; charset=utf-8", views.Script},
	"live.js":   {"text/javascript; charset=utf-8", liveScript},
	"icon.svg":  {"image/svg+xml", icon},
}

// sendFile sends one of files.
func sendFile(w http.ResponseWriter, r *http.Request) {
	f, ok := files[r.PathValue("name")]
	if !ok {
		refuse(w, http.StatusNotFound, "there is no such file")
		return
	}
	w.Header().Set("Content-Type", f.kind)
	_, _ = io.WriteString(w, f.text) // who asked may be gone
}

// frame is what all pages have.
type frame struct {
	Title, Sensor, Version, Time string
	Pages                        []pageLink
}

type pageLink struct {
	Name, Address string
	Here          bool
}

// frame makes the frame of a page in a part of the site.
func (p *Page) frame(title, part string) frame {
	f := frame{Title: title, Sensor: p.config.Sensor, Version: p.config.Version, Time: p.config.Now().UTC().Format(time.DateTime)}
	for _, l := range []pageLink{{"Overview", "/", false}, {"Alerts", "/alerts", false}, {"Certificates", "/certificates", false}, {"Servers", "/servers", false}} {
		l.Here = l.Address == part
		f.Pages = append(f.Pages, l)
	}
	return f
}

type signInView struct{ Wrong bool }

type missingView struct {
	Frame frame
	Why   string
}

// links are where the page has things.
var links = views.Links{
	Certificate: certificateAddress, Server: serverAddress, Filter: frames.Filter,
	Evidence: func(a *inventory.Alert) string { return "/alerts/" + a.ID + "/evidence.zip" },
}

func certificateAddress(h inventory.Hash) string { return fmt.Sprintf("/certificates/%X", h) }

// tile is one figure.
type tile struct {
	Name, Text string
	Severe     bool
}

func tileOf(name string, n uint64, severe bool) tile {
	return tile{name, views.Count(n), severe && n > 0}
}

// alertView is the card of an alert with its links.
type alertView struct {
	ID, Rule string
	Card     views.Alert
}

// alertView makes the card of an alert.
func (p *Page) alertView(a *inventory.Alert) alertView {
	var leaf *inventory.Certificate
	if a.Certificate != (inventory.Hash{}) {
		leaf = p.find(a.Certificate)
	}
	l := links
	if p.store.Load() == nil { // there is nothing to link to
		l.Certificate = func(inventory.Hash) string { return "" }
		l.Server = func(inventory.ServerKey) string { return "" }
	}
	shown := *a
	if shown.Evidence = ""; p.hasPack(a.ID) {
		shown.Evidence = "evidence.zip"
	}
	return alertView{a.ID, a.Rule, l.AlertOf(&shown, leaf)}
}

// brief is an alert with no more to read than the first page has room for.
func brief(a *inventory.Alert) *inventory.Alert {
	b := *a
	b.Reasons = nil
	for _, reason := range a.Reasons[:min(len(a.Reasons), maxBriefReasons)] {
		b.Reasons = append(b.Reasons, cut(reason))
	}
	if more := len(a.Reasons) - len(b.Reasons); more > 0 {
		b.Reasons = append(b.Reasons, "…")
	}
	b.Reason = cut(a.Reason)
	return &b
}

// cut cuts a long sentence. No character is cut that stands in valid UTF-8.
func cut(s string) string {
	if len(s) <= maxBriefReason {
		return s
	}
	n := maxBriefReason
	for n > maxBriefReason-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// find returns a certificate of the inventory, nil where it is not there.
func (p *Page) find(h inventory.Hash) *inventory.Certificate {
	store := p.store.Load()
	if store == nil {
		return nil
	}
	c, err := store.Certificate(h)
	if err != nil {
		return nil
	}
	return c
}

// alert returns an alert, nil where there is none with this id.
func (p *Page) alert(id string) *inventory.Alert {
	if a := p.alerts.get(id); a != nil {
		return a
	}
	store := p.store.Load()
	if store == nil || !alertID.MatchString(id) {
		return nil
	}
	a, err := store.Alert(id)
	if err != nil {
		return nil
	}
	return a
}

// overview is the first page.
type overview struct {
	Frame                                      frame
	Troubles, Notes                            []string
	Tiles                                      []tile
	Alerts                                     []alertView
	AlertTotal                                 string
	Chart, Newest, Interfaces, Outcomes, Rules template.HTML
	Outputs, Lost                              template.HTML
	Spool                                      string
	Inventory                                  bool
}

func (p *Page) showOverview(w http.ResponseWriter, r *http.Request) {
	p.showShared(w, "overview", func() any { return p.overview() })
}

func (p *Page) overview() *overview {
	v := &overview{Frame: p.frame("Overview", "/")}
	if err := p.ready(); err != nil {
		v.Troubles = strings.Split(err.Error(), "\n")
	}
	list, total := p.alerts.newest(0, maxCards)
	for _, a := range list {
		v.Alerts = append(v.Alerts, p.alertView(brief(a)))
	}
	v.AlertTotal = views.Count(uint64(total))
	c := p.counters.Load()
	if c == nil {
		c = new(output.Counters)
	}
	var raised uint64
	for i := range c.Rules {
		raised += c.Rules[i].Matches
	}
	v.Notes = notes(c, p.config.Now())
	counted, from, to, last, took := p.rates.intervals()
	if seconds := took.Seconds(); seconds > 0 {
		v.Tiles = append(v.Tiles, tileOf("packets a second", uint64(float64(last.packets)/seconds), false),
			tile{"handshakes a second", strconv.FormatFloat(float64(last.handshakes)/seconds, 'f', 1, 64), false})
	}
	v.Tiles = append(v.Tiles, tileOf("handshakes", c.Parser.Handshakes, false), tileOf("matches of rules", raised, true),
		tileOf("packets dropped", c.Capture.Dropped, true), tileOf("certificates lost", c.Parser.Outcomes[event.Lost], true))
	if len(counted) > 0 {
		v.Chart = chart(counted, from, to)
	}
	if store := p.store.Load(); store != nil {
		v.Inventory = true
		if s := p.surveyor.get(p, store); s != nil {
			v.Tiles = append(v.Tiles, tileOf("certificates first seen today", s.today, false), tileOf("certificates", s.totals.Certificates, false), tileOf("servers", s.totals.Servers, false))
			t := certificateTable("newest", "Certificates that were first seen last")
			t.Plain = true
			for _, c := range s.newest[:min(len(s.newest), maxCards)] {
				addCertificate(t, c)
			}
			v.Newest = t.HTML()
		}
	}
	v.Interfaces = interfaces(c.Interfaces, p.config.Now())
	v.Outcomes = outcomes(c)
	v.Lost = lost(c)
	v.Spool, v.Outputs = outputs(c)
	v.Rules = hits(c.Rules)
	return v
}

// ready is why what happens now may not become an alert that somebody gets.
func (p *Page) ready() error {
	if p.config.Monitor == nil {
		return nil
	}
	return p.config.Monitor.Ready()
}

// chart draws what was counted in some intervals.
func chart(list []totals, from, to time.Time) template.HTML {
	rows := []views.Series{{Name: "packets"}, {Name: "handshakes"}, {Name: "matches of rules", Severe: true}, {Name: "packets dropped", Severe: true}, {Name: "certificates lost", Severe: true}}
	for _, t := range list {
		for i, n := range []uint64{t.packets, t.handshakes, t.matches, t.dropped, t.lost} {
			rows[i].Counts = append(rows[i].Counts, n)
		}
	}
	step := to.Sub(from) / time.Duration(len(list))
	return views.TimeLine("Counted each "+step.Round(time.Second).String()+", by the clock of the sensor", from.UnixNano(), to.UnixNano(), rows)
}

func interfaces(list []capture.Interface, now time.Time) template.HTML {
	t := &views.Table{ID: "interfaces", Caption: "Interfaces", Plain: true, Columns: []views.Column{{Name: "Interface"}, {Name: "Link"}, {Name: "Since", Class: "time"},
		{Name: "Packets", Class: "number"}, {Name: "Dropped", Class: "number"}, {Name: "Silent for"}}}
	for i := range list {
		n := &list[i]
		silent := ""
		if quiet := n.Silence(now); quiet >= capture.SilentAfter {
			silent = quiet.Round(time.Second).String()
		}
		t.Add(views.Words(n.Name), views.Words(string(n.State)), views.When(n.Since.UnixNano()), views.Number(n.Frames), views.Number(n.Dropped), views.Words(silent))
	}
	return t.HTML()
}

// outcomes draws what became of the certificates of the handshakes.
func outcomes(c *output.Counters) template.HTML {
	var bars []views.Bar
	for o := range event.Outcomes {
		bars = append(bars, views.Bar{Label: o.String(), N: c.Parser.Outcomes[o], Severe: o == event.Lost})
	}
	return views.Bars("Certificates of the handshakes", bars)
}

// lost lists what was lost; empty where nothing was.
func lost(c *output.Counters) template.HTML {
	t := &views.Table{ID: "lost", Caption: "Lost", Plain: true, Columns: []views.Column{{Name: "What"}, {Name: "Number", Class: "number"}, {Name: "Why"}}}
	if s, err := summary.Of(c, filepath.Base); err == nil { // it fails where counters have no JSON: then there would be no records of them either
		for _, r := range s.Lost {
			t.Add(views.Words(strings.TrimSpace(r.Label)), views.Number(r.N), views.Words(r.Note))
		}
	}
	if t.Shown() == 0 {
		return ""
	}
	return t.HTML()
}

// notes are what is in trouble, and has not yet cost anything.
func notes(c *output.Counters, now time.Time) (list []string) {
	for i := range c.Interfaces {
		n := &c.Interfaces[i]
		if quiet := n.Silence(now); quiet >= capture.SilentAfter {
			list = append(list, fmt.Sprintf("%s is silent for %v", n.Name, quiet.Round(time.Second)))
		}
	}
	for i := range c.Sections {
		outs, _ := c.Sections[i].Value.(map[string]delivery.Stats)
		for _, name := range slices.Sorted(maps.Keys(outs)) {
			if st := outs[name]; st.Trouble != "" {
				list = append(list, fmt.Sprintf("%s takes nothing for %v, and its records wait", name, time.Duration(st.Outage)*time.Second))
			}
		}
	}
	return list
}

// outputs says how the outputs and the spool are.
func outputs(c *output.Counters) (queue string, table template.HTML) {
	t := &views.Table{ID: "out", Caption: "Outputs", Plain: true, Columns: []views.Column{{Name: "Output"}, {Name: "Delivered", Class: "number"}, {Name: "Waiting", Class: "number"},
		{Name: "Dead letters", Class: "number"}, {Name: "Dropped", Class: "number"}, {Name: "Trouble"}}}
	for i := range c.Sections {
		switch s := c.Sections[i].Value.(type) {
		case spool.Stats:
			queue = fmt.Sprintf("The spool has %s of %s.", views.Bytes(s.Bytes), views.Bytes(s.Limit))
			if s.Trouble != "" {
				queue += " It takes no records: " + s.Trouble
			}
		case map[string]delivery.Stats:
			for _, name := range slices.Sorted(maps.Keys(s)) {
				st := s[name]
				trouble := st.Trouble
				if trouble != "" {
					trouble = fmt.Sprintf("for %v: %s", time.Duration(st.Outage)*time.Second, trouble)
				}
				t.Add(views.Words(name), views.Number(st.Delivered.Total()+st.Duplicates.Total()), views.Number(st.Waiting.Total()),
					views.Number(st.Dead.Total()), views.Number(st.Dropped.Total()), views.Words(trouble))
			}
		}
	}
	return queue, t.HTML()
}

// hits lists the rules that have matched, the gravest first.
func hits(list []output.RuleCount) template.HTML {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b output.RuleCount) int { return b.Rule.Severity - a.Rule.Severity })
	t := &views.Table{ID: "hits", Caption: "Rules with hits", Plain: true, Columns: []views.Column{{Name: "Rule", Class: "name"}, {Name: "Level"}, {Name: "Pack"}, {Name: "Matches", Class: "number"}}}
	var matched uint64
	for _, c := range list {
		if c.Matches == 0 {
			continue
		}
		if matched++; t.Shown() < maxRows {
			t.Add(views.Words(c.Rule.Title), views.Cell{HTML: views.Level(c.Rule.Level)}, views.Words(c.Rule.Ruleset), views.Number(c.Matches))
		}
	}
	t.Total = matched
	return t.HTML()
}

// turnsView are links to other pages of a list.
type turnsView struct{ Back, BackText, On, OnText string }

type alertsView struct {
	Frame     frame
	Live      bool // it changes when there is another alert
	Said, End string
	Table     template.HTML
	Turns     turnsView
}

// listAlerts shows the last alerts in the order in which they came, and then those before
// them that the inventory has.
func (p *Page) listAlerts(w http.ResponseWriter, r *http.Request) {
	if before := r.FormValue("before"); before != "" {
		p.listOlder(w, r, before)
		return
	}
	skip, _ := strconv.Atoi(r.FormValue("skip")) // what is no number is none
	skip = min(max(skip, 0), maxAlerts)
	make := func() any {
		list, total := p.alerts.newest(skip, maxRows)
		v := alertsView{Frame: p.frame("Alerts", "/alerts"), Live: true}
		t := alertTable()
		for _, a := range list {
			if !p.addAlert(t, a) {
				break
			}
		}
		next := skip + t.Shown()
		if t.Shown() > 0 {
			v.Table = t.HTML()
			v.Said = fmt.Sprintf("%s to %s of the last %s. What came last is first.", views.Count(uint64(skip+1)), views.Count(uint64(next)), views.Count(uint64(total)))
		}
		if skip > 0 {
			v.Turns.Back, v.Turns.BackText = fmt.Sprintf("/alerts?skip=%d", max(skip-maxRows, 0)), "Newer"
		}
		switch {
		case next < total:
			v.Turns.On, v.Turns.OnText = fmt.Sprintf("/alerts?skip=%d", next), "Older"
		case p.hasOlder(total):
			v.Turns.On, v.Turns.OnText = "/alerts?before="+beforeNone, "Older, from the inventory"
		case total > 0:
			v.End = p.listEnd()
		}
		return v
	}
	if skip == 0 {
		p.showShared(w, "alerts", make)
		return
	}
	p.show(w, http.StatusOK, "alerts", make())
}

// beforeNone is what stands in an address where the list of the inventory begins. After it
// the address has the last alert that was shown.
const beforeNone = "-"

// beforeAddress is where the list of the inventory goes on after an alert.
func beforeAddress(a *inventory.Alert) string {
	return fmt.Sprintf("/alerts?before=%d.%s", a.Time, a.ID)
}

// parseBefore reads what beforeAddress has written; nil for what is none.
func parseBefore(text string) *inventory.Alert {
	when, id, _ := strings.Cut(text, ".")
	at, err := strconv.ParseInt(when, 10, 64)
	if err != nil || !alertID.MatchString(id) {
		return nil
	}
	return &inventory.Alert{Time: at, ID: id}
}

// listOlder shows alerts of the inventory that are not among the last ones. They are in the
// order of their times.
func (p *Page) listOlder(w http.ResponseWriter, r *http.Request, before string) {
	v := alertsView{Frame: p.frame("Alerts", "/alerts"), Turns: turnsView{Back: "/alerts", BackText: "Newest"}}
	store := p.store.Load()
	if store == nil {
		v.End = p.listEnd()
		p.show(w, http.StatusOK, "alerts", v)
		return
	}
	t := alertTable()
	last, whole, err := searchThrough(r.Context(), p, t, store.AlertsBefore(parseBefore(before)), func(a *inventory.Alert) (*inventory.Alert, bool) {
		return a, p.alerts.get(a.ID) != nil || p.addAlert(t, a)
	})
	if err != nil {
		p.busy(w)
		return
	}
	if t.Shown() > 0 {
		v.Table = t.HTML()
		v.Said = fmt.Sprintf("%d older alerts of the inventory, the newest first.", t.Shown())
	}
	if whole {
		v.End = p.listEnd()
	} else if last != nil {
		v.Turns.On, v.Turns.OnText = beforeAddress(last), "Older"
	}
	p.show(w, http.StatusOK, "alerts", v)
}

// hasOlder reports whether the inventory has alerts that are not among the last ones, of
// which there are n.
func (p *Page) hasOlder(n int) bool {
	store := p.store.Load()
	if store == nil {
		return false
	}
	if totals, err := store.Totals(); err == nil && totals.Alerts > uint64(n) {
		return true
	}
	// The inventory is some seconds behind: many of the last ones may not be in it yet.
	if first := p.alerts.earliest(); first != nil {
		for _, err := range store.AlertsBefore(first) {
			return err == nil
		}
	}
	return false
}

// listEnd says why there are no older alerts.
func (p *Page) listEnd() string {
	const begin = "The list ends here: "
	if store := p.store.Load(); store != nil {
		if totals, err := store.Totals(); err == nil && totals.Forgotten > 0 {
			return begin + "the inventory has no older alerts. It has given up old entries for newer ones; the records have them."
		}
		return begin + "the inventory has no older alerts."
	}
	if n := p.alerts.forgotten(); n > 0 {
		return begin + "without an inventory the page keeps the last " + views.Count(maxAlerts) + " alerts at most. Those before, " + views.Count(n) + ", are in the records. With --inventory FILE the list goes on."
	}
	return begin + "these are all alerts since the sensor was started."
}

func alertTable() *views.Table {
	return &views.Table{ID: "alert-list", Caption: "Alerts", Budget: maxTable, Columns: []views.Column{{Name: "Time", Class: "time"}, {Name: "Level"}, {Name: "Rule", Class: "name"}, {Name: "Verdict", Class: "nowrap"},
		{Name: "Server", Class: "address"}, {Name: "Client", Class: "address"}, {Name: "Name asked for", Class: "address"}, {Name: "Counted with it", Class: "number"}}}
}

// addAlert adds a row, unless the page is large enough.
func (p *Page) addAlert(t *views.Table, a *inventory.Alert) bool {
	server := views.Text(views.ServerName(a.Server))
	if p.store.Load() != nil {
		server = views.Link(serverAddress(a.Server), server)
	}
	when := views.When(a.Time)
	when.HTML = views.Link("/alerts/"+a.ID, when.HTML)
	return t.Add(when, views.Cell{HTML: views.Level(a.Level), Key: strconv.Itoa(slices.Index(levels, a.Level))}, views.Words(a.Rule), views.Words(a.Verdict),
		views.Cell{HTML: server}, views.Words(views.ClientName(a.Place.Flow)), views.Words(a.Name), views.Number(a.Counted))
}

// levels are those of rules, in order.
var levels = []string{"informational", "low", "medium", "high", "critical"}

type oneAlertView struct {
	Frame                       frame
	Rule, Version, Record, Size string
	Alert                       alertView
	Chain                       views.Chain
}

func (p *Page) showAlert(w http.ResponseWriter, r *http.Request) {
	a := p.alert(r.PathValue("id"))
	if a == nil {
		p.missing(w, "There is no such alert, or it was forgotten: the records have it.")
		return
	}
	v := oneAlertView{Frame: p.frame(a.Rule, "/alerts"), Rule: a.RuleID, Version: a.RuleVersion, Alert: p.alertView(a)}
	if a.Certificate != (inventory.Hash{}) && p.store.Load() != nil {
		v.Chain = links.ChainOf(append([]inventory.Hash{a.Certificate}, a.Chain...), p.find)
	}
	var b bytes.Buffer
	if len(a.Record) > 0 && len(a.Record) <= maxRecord && json.Indent(&b, a.Record, "", "  ") == nil && b.Len() <= 2*maxRecord {
		v.Record, v.Size = harmless.Except(b.String(), "\n"), views.Bytes(int64(len(a.Record)))
	}
	p.show(w, http.StatusOK, "one alert", v)
}
