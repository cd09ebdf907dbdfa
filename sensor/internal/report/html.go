package report

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

//go:embed page.html
var pageText string

var page = sync.OnceValues(func() (*template.Template, error) { return views.Template(pageText) })

// tile is a figure at the top.
type tile struct {
	Label, Value string
	Severe       bool
}

type section struct{ ID, Title string }

type ruleView struct {
	Title, Level, Note string
	Cards, More        views.HTML
}

type kindView struct {
	ID, Title, Note string
	Table           views.HTML
}

// pageView is what the page is made of.
type pageView struct {
	Policy, Title, Lead, Loss, Span, Footer, Written, NamesNote             string
	Style                                                                   template.CSS
	Script                                                                  template.JS
	Tiles                                                                   []tile
	Contents                                                                []section
	Sources, Lost, Seen, TimeLine, Certificates, CertificateDetails, Matrix views.HTML
	Servers, ServerDetails, Names, Clients, MoreRules                       views.HTML
	Rules                                                                   []ruleView
	Kinds                                                                   []kindView
	Charts                                                                  []views.HTML
}

var contents = []section{
	{"alerts", "Alerts"}, {"input", "What was read"}, {"timeline", "Time line"}, {"certificates", "Certificates"}, {"flags", "What stands out"},
	{"shared", "Shared"}, {"servers", "Servers"}, {"cryptography", "Cryptography"}, {"names", "Names"}, {"clients", "Clients"},
}

// writer makes the page of facts.
type writer struct {
	*facts
	store       *inventory.Store
	template    *template.Template
	links       views.Links
	files       Files
	detailed    map[inventory.Hash]bool      // certificates that are told in full
	served      map[inventory.ServerKey]bool // servers that are
	certificate map[inventory.Hash]*inventory.Certificate
	err         error
}

func certificateID(h inventory.Hash) string { return "c-" + hex.EncodeToString(h[:12]) }

func serverID(k inventory.ServerKey) string {
	s := fmt.Sprintf("s-%x-%x-%d-%d-%x", k.Address.AsSlice(), k.MAC, k.Port, k.Transport, k.Carrier)
	return s[:min(len(s), 200)]
}

// writeHTML writes the page.
func writeHTML(out io.Writer, store *inventory.Store, f *facts, files Files, o Options) error {
	t, err := page()
	if err != nil {
		return fmt.Errorf("read the template of the page: %w", err)
	}
	w := &writer{facts: f, store: store, template: t, files: files, detailed: map[inventory.Hash]bool{}, served: map[inventory.ServerKey]bool{},
		certificate: map[inventory.Hash]*inventory.Certificate{}}
	w.links = views.Links{
		Certificate: func(h inventory.Hash) string {
			if !w.detailed[h] {
				return ""
			}
			return "#" + certificateID(h)
		},
		Server: func(k inventory.ServerKey) string {
			if !w.served[k] {
				return ""
			}
			return "#" + serverID(k)
		},
		Filter: frames.Filter,
	}
	for _, r := range f.certificates.first()[:min(len(f.certificates.first()), maxDetails)] {
		w.detailed[r.SHA256] = true
	}
	for _, p := range f.servers.first()[:min(len(f.servers.first()), maxDetails)] {
		w.served[p.Server.ServerKey] = true
	}
	v := pageView{Policy: views.Policy(), Style: views.CSS(), Script: views.JS(), Contents: contents,
		Title: o.title(f), Written: o.Written.UTC().Format(time.DateTime), Footer: "oddcert " + o.Version + ", from " + o.From + ". Times are UTC. Click a hash or a display filter to copy all of it.",
		Lead: f.lead(), Loss: f.loss(), Span: span(f.totals.First, f.totals.Last)}
	v.Tiles = f.tiles()
	v.Sources, v.Lost, v.Seen = w.sources(), w.lost(), w.seen()
	v.Rules, v.MoreRules = w.alerts()
	v.TimeLine = w.line()
	v.Certificates = w.certificateTable("certificates-table", "Certificates", &f.certificates, files.Certificates)
	v.CertificateDetails = w.certificateDetails()
	for _, k := range f.kinds {
		v.Kinds = append(v.Kinds, kindView{k.ID, k.Title, Count(k.top.total) + ": " + k.Note, w.certificateTable(k.ID+"-table", k.Title+" certificates", &k.top, files.Certificates)})
	}
	v.Matrix = w.matrix()
	v.Servers, v.ServerDetails = w.serverTable(), w.serverDetails()
	v.Charts = w.charts()
	v.Names, v.NamesNote = w.nameTable()
	v.Clients = w.contactTable()
	if w.err != nil {
		return fmt.Errorf("read the inventory: %w", w.err)
	}
	if err := t.Execute(out, v); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// Count writes a number with separators.
func Count(n uint64) string { return views.Count(n) }

func some(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// lead is the case in a sentence.
func (f *facts) lead() string {
	t := &f.totals
	seen := some(t.Handshakes, "handshake", "handshakes") + " with " + some(t.Servers, "server", "servers") + ", " + some(t.Certificates, "certificate", "certificates") + "."
	if t.Alerts == 0 {
		return "No alerts. " + seen
	}
	var parts []string
	for _, level := range levels {
		if n := f.levels[level]; n > 0 {
			parts = append(parts, Count(n)+" "+level)
		}
	}
	return some(t.Alerts, "alert", "alerts") + " (" + strings.Join(parts, ", ") + "), for " + some(f.flagged, "server", "servers") + ". " + seen
}

// loss says in a sentence whether anything was lost.
func (f *facts) loss() string {
	all := f.lostLines()
	switch {
	case slices.ContainsFunc(all, func(l loss) bool { return len(l.lines) > 0 || l.stored }):
		return "Something was lost."
	case slices.ContainsFunc(all, func(l loss) bool { return l.unknown }):
		return "What was lost is not known."
	}
	return "Nothing was lost."
}

func (f *facts) tiles() []tile {
	t := &f.totals
	tiles := []tile{{"alerts", Count(t.Alerts), t.Alerts > 0}, {"servers with alerts", Count(f.flagged), f.flagged > 0}, {"servers", Count(t.Servers), false},
		{"certificates of servers", Count(f.certificates.total), false}}
	for _, k := range f.kinds {
		if k.ID == "expired" || k.ID == "self-signed" || k.ID == "weak" {
			tiles = append(tiles, tile{strings.ToLower(k.Title), Count(k.top.total), false})
		}
	}
	return append(tiles, tile{"clients", Count(f.clients), false}, tile{"handshakes", Count(t.Handshakes), false})
}

func span(first, last int64) string {
	if first == 0 && last == 0 {
		return "No handshake was seen."
	}
	return "Handshakes of " + views.Time(first) + " to " + views.Time(last) + " UTC"
}

func (w *writer) sources() views.HTML {
	t := views.Table{ID: "sources", Caption: "Captures and interfaces", Budget: tableBudget, Plain: true, Columns: []views.Column{{Name: "Capture", Class: "name"}, {Name: "Size", Class: "number"},
		{Name: "Packets", Class: "number"}, {Name: "First packet", Class: "time"}, {Name: "Last packet", Class: "time"}, {Name: "SHA-256", Class: "hash"}}}
	for _, r := range slices.Backward(w.runs) {
		for i := range r.Sources {
			s := &r.Sources[i]
			t.Total++
			if t.Total > maxSources {
				continue
			}
			name, hash, size := s.Path, views.HTML("not known"), views.HTML("–")
			if name == "" {
				name, hash = "interface "+s.Interface, "–"
			}
			if s.SHA256 != [32]byte{} {
				hash = views.Hash(s.SHA256[:])
			}
			if s.Size > 0 {
				size = views.HTML(views.Bytes(s.Size))
			}
			first, last := s.Start, s.End
			if len(r.Sources) == 1 && first == 0 {
				first, last = r.Start, r.End
			}
			t.Add(views.Words(name), views.Cell{HTML: size, Key: strconv.FormatInt(s.Size, 10)}, views.Number(s.Frames), views.When(first), views.When(last), views.Cell{HTML: hash})
		}
	}
	note := views.HTML("")
	if w.allRuns > len(w.runs) {
		note = views.HTML(fmt.Sprintf(`<p class="more">The last %d runs of %d.</p>`, len(w.runs), w.allRuns))
	}
	return t.HTML() + note
}

func lines(list []inventory.Line) views.HTML {
	t := views.Table{Caption: "Counts", Budget: tableBudget, Plain: true, Columns: []views.Column{{Name: "What"}, {Name: "Number", Class: "number"}, {Name: "Note"}}}
	for _, l := range list {
		t.Add(views.Words(strings.TrimSpace(l.Label)), views.Number(l.N), views.Words(l.Note))
	}
	return t.HTML()
}

// lost is what the runs lost. An inventory can have lost something, too.
func (w *writer) lost() views.HTML {
	var b strings.Builder
	for _, l := range w.lostLines() {
		if len(w.runs) > 1 && l.begun != 0 {
			fmt.Fprintf(&b, "<h4>Run of %s</h4>", views.Time(l.begun))
		}
		if l.note != "" {
			b.WriteString("<p>" + template.HTMLEscapeString(l.note) + "</p>")
			continue
		}
		b.WriteString(string(lines(l.lines)))
	}
	return views.HTML(b.String())
}

// loss is what one run lost: lines, or a note.
type loss struct {
	begun   int64
	note    string
	lines   []inventory.Line
	stored  bool // the inventory has lost something
	unknown bool // it is not known whether anything was lost
}

func (f *facts) lostLines() (all []loss) {
	for _, r := range slices.Backward(f.runs) {
		switch {
		case r.Ended == 0:
			all = append(all, loss{begun: r.Begun, note: "The run goes on, or it was killed: what it lost is not known.", unknown: true})
		case len(r.Lost) == 0:
			all = append(all, loss{begun: r.Begun, note: "Nothing was lost."})
		default:
			all = append(all, loss{begun: r.Begun, lines: r.Lost})
		}
	}
	if n := f.totals.Lost; n > 0 {
		all = append(all, loss{note: some(n, "finding", "findings") + " could not be stored in the inventory.", stored: true})
	}
	if n := f.totals.Forgotten; n > 0 {
		all = append(all, loss{note: some(n, "entry", "entries") + " of the inventory were given up for newer ones.", stored: true})
	}
	if len(f.runs) == 0 {
		all = append(all, loss{note: "The inventory has no run: what was lost is not known.", unknown: true})
	}
	return all
}

func (w *writer) seen() views.HTML {
	if len(w.runs) == 0 {
		return ""
	}
	return lines(w.runs[len(w.runs)-1].Seen)
}

// find returns a certificate, nil where it is not there.
func (w *writer) find(h inventory.Hash) *inventory.Certificate {
	if c, ok := w.certificate[h]; ok {
		return c
	}
	c, err := w.store.Certificate(h)
	if err != nil {
		if !errors.Is(err, inventory.ErrNotFound) {
			w.err = errors.Join(w.err, err)
		}
		c = nil
	}
	if len(w.certificate) < maxCertificates*2 {
		w.certificate[h] = c
	}
	return c
}

// piece appends what a template makes of v to b, while the budget lasts.
func (w *writer) piece(b *bytes.Buffer, name string, v any) bool {
	from := b.Len()
	if err := w.template.ExecuteTemplate(b, name, v); err != nil {
		w.err = errors.Join(w.err, err)
	}
	if b.Len() > cardBudget {
		b.Truncate(from)
		return false
	}
	return true
}

func (w *writer) alerts() (all []ruleView, more views.HTML) {
	var cards bytes.Buffer
	for _, r := range w.rules {
		v := ruleView{Title: r.Title, Level: r.Level, Note: some(r.Alerts, "alert", "alerts") + ", " + views.Time(r.First)}
		if r.Last != r.First {
			v.Note += " to " + views.Time(r.Last)
		}
		if r.Counted > 0 {
			v.Note += "; " + some(r.Counted, "more match", "more matches") + " counted with them"
		}
		from, shown := cards.Len(), uint64(0)
		for _, a := range r.cards.first() {
			var leaf *inventory.Certificate
			if a.Certificate != (inventory.Hash{}) {
				leaf = w.find(a.Certificate)
			}
			if !w.piece(&cards, "alert", w.links.AlertOf(a, leaf)) {
				break
			}
			shown++
		}
		v.Cards = views.HTML(cards.Bytes()[from:])
		v.More = views.More(shown, r.Alerts, w.files.Alerts)
		all = append(all, v)
	}
	return all, views.More(uint64(len(w.rules)), uint64(w.allRules), w.files.Alerts)
}

func (w *writer) line() views.HTML {
	t := &w.timeline
	if t.from == 0 {
		return `<p class="soft">None.</p>`
	}
	chart := views.TimeLine("What was seen when", t.from, t.to, []views.Series{{Name: "Alerts", Counts: t.alerts, Severe: true},
		{Name: "New certificates", Counts: t.certificates}, {Name: "New servers", Counts: t.encounter}})
	table := views.Table{Caption: "Time line in figures", Plain: true, Columns: []views.Column{{Name: "From", Class: "time"}, {Name: "Alerts", Class: "number"}, {Name: "New certificates", Class: "number"}, {Name: "New servers", Class: "number"}}}
	for i := range intervals {
		if t.alerts[i]+t.certificates[i]+t.encounter[i] > 0 {
			at := t.from + int64(float64(t.to-t.from)*float64(i)/intervals)
			table.Add(views.When(at), views.Number(t.alerts[i]), views.Number(t.certificates[i]), views.Number(t.encounter[i]))
		}
	}
	return chart + `<details><summary>In figures</summary><div class="inside">` + table.HTML() + `</div></details>`
}

func (w *writer) certificateTable(id, caption string, of *top[*query.Row], rest string) views.HTML {
	t := views.Table{ID: id, Caption: caption, Total: of.total, Rest: rest, Budget: tableBudget, Columns: []views.Column{{Name: "Certificate", Class: "name"}, {Name: "Flags", Class: "flags"}, {Name: "Alerts", Class: "number"},
		{Name: "Servers", Class: "number"}, {Name: "Clients", Class: "number"}, {Name: "Valid until", Class: "time"}, {Name: "First seen", Class: "time"}, {Name: "SHA-256", Class: "hash"}, {Name: "Where", Class: "place"}}}
	for _, r := range of.first() {
		name := views.Link(w.links.Certificate(r.SHA256), views.Text(r.Name())) + `<small>` + views.Text(r.Issuer) + `</small>`
		alerts := views.Cell{HTML: views.HTML(Count(r.Alerts)), Key: strconv.FormatUint(r.Alerts, 10)}
		if r.Level != "" {
			alerts.HTML = views.Level(r.Level) + " " + alerts.HTML
		}
		if !t.Add(views.Cell{HTML: name}, views.Cell{HTML: views.Flags(views.RowTraits(r))}, alerts, views.Distinct(r.Servers), views.Distinct(r.Clients),
			views.Cell{HTML: views.HTML(views.Date(r.NotAfter)), Key: strconv.FormatInt(r.NotAfter, 10)}, views.When(r.First.Time), views.Cell{HTML: views.Hash(r.SHA256[:])},
			views.Cell{HTML: views.Place(r.First, w.links.Filter)}) {
			break
		}
	}
	return t.HTML()
}

// details wraps what is told in full.
func details(b *bytes.Buffer, id string, head, inside views.HTML) bool {
	if b.Len()+len(head)+len(inside) > cardBudget {
		return false
	}
	b.WriteString(`<details id="` + template.HTMLEscapeString(id) + `"><summary>` + string(head) + `</summary><div class="inside">` + string(inside) + "</div></details>\n")
	return true
}

func (w *writer) certificateDetails() views.HTML {
	var all bytes.Buffer
	for _, r := range w.certificates.first() {
		if !w.detailed[r.SHA256] {
			break
		}
		v := w.links.CertificateOf(r.Certificate, w.find)
		asked, err := r.Asked()
		if err != nil {
			w.err = errors.Join(w.err, err)
		}
		v.AskedFor = asked[:min(len(asked), maxInside)]
		var one bytes.Buffer
		w.piece(&one, "certificate", v)
		sightings, err := r.Sightings()
		if err != nil {
			w.err = errors.Join(w.err, err)
		}
		t := views.Table{Caption: "Servers that showed it", Total: r.Servers.N, Rest: w.files.Certificates, Plain: true, Columns: []views.Column{{Name: "Server", Class: "address"}, {Name: "As"}, {Name: "Handshakes", Class: "number"},
			{Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Where", Class: "place"}}}
		for _, s := range sightings[:min(len(sightings), maxInside)] {
			t.Add(views.Cell{HTML: views.Link(w.links.Server(s.Server), views.Text(views.ServerName(s.Server)))}, views.Words(strings.Join(query.RoleNames(s.Roles), ", ")), views.Number(s.Handshakes),
				views.When(s.First.Time), views.When(s.Last.Time), views.Cell{HTML: views.Place(s.First, w.links.Filter)})
		}
		head := views.Text(r.Name()) + " " + views.Flags(views.RowTraits(r))
		if r.Level != "" {
			head += views.Level(r.Level)
		}
		if !details(&all, certificateID(r.SHA256), head, views.HTML(one.String())+t.HTML()) {
			break
		}
	}
	return views.HTML(all.String())
}

func values(list []posture.Value, n int) string {
	var parts []string
	for _, v := range list[:min(len(list), n)] {
		parts = append(parts, v.Name)
	}
	if len(list) > n {
		parts = append(parts, fmt.Sprintf("%d more", len(list)-n))
	}
	return strings.Join(parts, ", ")
}

func (w *writer) serverTable() views.HTML {
	t := views.Table{ID: "servers-table", Caption: "Servers", Total: w.servers.total, Rest: w.files.Servers, Budget: tableBudget, Columns: []views.Column{{Name: "Server", Class: "address"}, {Name: "Alerts", Class: "number"},
		{Name: "Handshakes", Class: "number"}, {Name: "Certificates", Class: "number"}, {Name: "Clients", Class: "number"}, {Name: "Certificate"}, {Name: "Versions"}, {Name: "Key exchange"}, {Name: "Weak"}, {Name: "First seen", Class: "place"}}}
	for _, p := range w.servers.first() {
		s := p.Server
		alerts := views.Cell{HTML: views.HTML(Count(s.Alerts)), Key: strconv.FormatUint(s.Alerts, 10)}
		if s.Level != "" {
			alerts.HTML = views.Level(s.Level) + " " + alerts.HTML
		}
		first := views.When(s.First.Time) // with where that was: there are many columns
		first.HTML += `<small>` + views.Place(s.First, w.links.Filter) + `</small>`
		if !t.Add(views.Cell{HTML: views.Link(w.links.Server(s.ServerKey), views.Text(views.ServerName(s.ServerKey)))}, alerts, views.Number(s.Handshakes), views.Distinct(s.Certificates), views.Distinct(s.Clients),
			views.Words(p.Leaf.String()), views.Words(values(p.Versions, 4)), views.Words(p.Exchange.String()), views.Cell{HTML: views.Flags(p.Weak[:min(len(p.Weak), 6)])}, first) {
			break
		}
	}
	return t.HTML()
}

func (w *writer) serverDetails() views.HTML {
	var all bytes.Buffer
	for _, p := range w.servers.first() {
		s := p.Server
		if !w.served[s.ServerKey] {
			break
		}
		var b strings.Builder
		b.WriteString(`<dl class="facts">`)
		for _, fact := range [][2]string{{"Suites", values(p.Suites, maxBars)}, {"Groups", values(p.Groups, maxBars)}, {"Groups offered", values(p.Offered, maxBars)}, {"Signatures", values(p.Signatures, maxBars)},
			{"Keys", values(p.Keys, maxBars)}, {"Signed with", values(p.Signed, maxBars)}} {
			if fact[1] != "" {
				b.WriteString(`<dt>` + fact[0] + `</dt><dd>` + string(views.Text(fact[1])) + `</dd>`)
			}
		}
		b.WriteString(`</dl><h4>Certificates</h4>`)
		n := uint64(0)
		for shown, err := range w.store.ShownBy(s.ServerKey) {
			if err != nil {
				w.err = errors.Join(w.err, err)
				break
			}
			if shown.Roles&inventory.Leaf == 0 {
				continue
			}
			if n++; n > maxInside {
				break
			}
			leaf := w.find(shown.Certificate)
			hashes := []inventory.Hash{shown.Certificate}
			if leaf != nil {
				hashes = append(hashes, leaf.Chain...)
			}
			var one bytes.Buffer
			w.piece(&one, "chain", w.links.ChainOf(hashes, w.find))
			b.WriteString(one.String() + `<p class="soft">` + some(shown.Handshakes, "handshake", "handshakes") + `, ` + views.Time(shown.First.Time) + ` to ` + views.Time(shown.Last.Time) + `, ` + string(views.Place(shown.First, w.links.Filter)) + `</p>`)
		}
		if n == 0 {
			b.WriteString(`<p class="soft">None was seen: ` + p.Leaf.String() + `.</p>`)
		}
		b.WriteString(string(views.More(min(n, maxInside), s.Certificates.N, w.files.Certificates)))
		head := views.Text(views.ServerName(s.ServerKey)) + " "
		if s.Level != "" {
			head += views.Level(s.Level)
		}
		if !details(&all, serverID(s.ServerKey), head, views.HTML(b.String())) {
			break
		}
	}
	return views.HTML(all.String())
}

// matrix shows which servers show the certificates that most of them show.
func (w *writer) matrix() views.HTML {
	shared := w.shared.first()
	if len(shared) == 0 {
		return `<p class="soft">No certificate was shown by servers of several addresses.</p>`
	}
	shows := map[inventory.ServerKey][]bool{}
	for i, r := range shared {
		n := 0
		for s, err := range w.store.ShownAt(r.SHA256) {
			if err != nil {
				w.err = errors.Join(w.err, err)
				break
			}
			if s.Roles&inventory.Leaf == 0 {
				continue
			}
			if n++; n > maxSharing {
				break
			}
			row := shows[s.Server]
			if row == nil {
				row = make([]bool, len(shared))
				shows[s.Server] = row
			}
			row[i] = true
		}
	}
	keys := slices.SortedFunc(maps.Keys(shows), inventory.ServerKey.Compare)
	var b strings.Builder
	b.WriteString(`<div class="scroll" role="region" tabindex="0" aria-label="Certificates by server"><table class="matrix"><caption class="hidden">Which server showed which certificate</caption><thead><tr><th scope="col">Server</th>`)
	for _, r := range shared {
		b.WriteString(`<th scope="col">` + string(views.Link(w.links.Certificate(r.SHA256), views.Short(r.Name(), 40))) + ` <span class="soft">` + fmt.Sprintf("%X", r.SHA256[:3]) + `</span></th>`)
	}
	b.WriteString("</tr></thead><tbody>\n")
	for _, k := range keys[:min(len(keys), maxSharing)] {
		b.WriteString(`<tr><th scope="row">` + string(views.Link(w.links.Server(k), views.Text(views.ServerName(k)))) + `</th>`)
		for _, yes := range shows[k] {
			if yes {
				b.WriteString(`<td class="yes"><span aria-hidden="true">●</span><span class="hidden">yes</span></td>`)
			} else {
				b.WriteString(`<td></td>`)
			}
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("<tr><th scope=\"row\">All servers</th>")
	for _, r := range shared {
		b.WriteString(`<td>` + views.Counted(r.Servers) + `</td>`)
	}
	b.WriteString("</tr></tbody></table></div>\n")
	return views.HTML(b.String()) + views.More(uint64(len(shared)), w.shared.total, w.files.Certificates)
}

// bars makes bars of the greatest counts. What has one name has one bar, as the drafts of a
// version have.
func bars[K comparable](m map[K]uint64, label func(K) string, severe func(K) bool) (list []views.Bar) {
	named := map[string]views.Bar{}
	for k, n := range m {
		if n > 0 {
			b := named[label(k)]
			named[label(k)] = views.Bar{Label: label(k), N: b.N + n, Severe: b.Severe || severe != nil && severe(k)}
		}
	}
	list = slices.Collect(maps.Values(named))
	slices.SortFunc(list, func(a, b views.Bar) int {
		if a.N != b.N {
			if a.N > b.N {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Label, b.Label)
	})
	if len(list) > maxBars {
		rest := views.Bar{Label: fmt.Sprintf("%d others", len(list)-maxBars+1)}
		for _, b := range list[maxBars-1:] {
			rest.N += b.N
		}
		list = append(list[:maxBars-1], rest)
	}
	return list
}

func (w *writer) charts() (all []views.HTML) {
	outcomes := map[event.Outcome]uint64{}
	for o := range event.Outcomes {
		outcomes[o] = w.totals.Outcomes[o]
	}
	for _, c := range []struct {
		title string
		bars  []views.Bar
	}{
		{"Versions, by handshakes", bars(w.totals.Versions, posture.VersionName, posture.WeakVersion)},
		{"Cipher suites, by handshakes", bars(w.totals.Suites, posture.SuiteName, func(s uint16) bool { return posture.WeakSuite(posture.SuiteName(s)) != "" })},
		{"Groups of the key exchange, by handshakes", bars(w.totals.Groups, posture.GroupName, nil)},
		{"Post-quantum key exchange, by servers", bars(w.exchange, posture.Exchange.String, nil)},
		{"The server's certificate, by handshakes", bars(outcomes, event.Outcome.String, func(o event.Outcome) bool { return o == event.Lost })},
		{"What is weak, by servers", bars(w.weak, func(s string) string { return s }, func(string) bool { return true })},
	} {
		if len(c.bars) > 0 {
			all = append(all, views.Bars(c.title, c.bars))
		}
	}
	return all
}

func (w *writer) nameTable() (views.HTML, string) {
	t := views.Table{ID: "names-table", Caption: "Names asked for", Total: w.names.total, Budget: tableBudget, Rest: w.files.Certificates, Columns: []views.Column{{Name: "Name", Class: "name"}, {Name: "Certificates and servers", Class: "number"}, {Name: "One certificate", Class: "hash"}, {Name: "Where", Class: "place"}}}
	for _, n := range w.names.first() {
		if !t.Add(views.Words(n.text), views.Number(n.servers), views.Cell{HTML: views.Link(w.links.Certificate(n.certificate), views.Hash(n.certificate[:]))}, views.Cell{HTML: views.Place(n.place, w.links.Filter)}) {
			break
		}
	}
	note := "The names in client hellos for which a certificate was seen, with how many pairs of a certificate and a server."
	if w.namesCut {
		note += " There are too many to count one by one: those with few pairs may be missing."
	}
	return t.HTML(), note
}

func (w *writer) contactTable() views.HTML {
	t := views.Table{ID: "clients-table", Caption: "Clients that met servers with alerts", Total: w.contacts.total, Budget: tableBudget, Rest: w.files.Clients, Columns: []views.Column{{Name: "Client", Class: "address"}, {Name: "Server", Class: "address"}, {Name: "Level"},
		{Name: "Handshakes", Class: "number"}, {Name: "With alerts", Class: "number"}, {Name: "Certificate", Class: "hash"}, {Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Where", Class: "place"}}}
	for _, c := range w.contacts.first() {
		hash := views.HTML("–")
		if c.Certificate != (inventory.Hash{}) {
			hash = views.Hash(c.Certificate[:])
		}
		if !t.Add(views.Words(c.Client.String()), views.Cell{HTML: views.Link(w.links.Server(c.Server), views.Text(views.ServerName(c.Server)))}, views.Cell{HTML: views.Level(c.level), Key: strconv.Itoa(rank(c.level))},
			views.Number(c.Handshakes), views.Number(c.Alerts), views.Cell{HTML: hash}, views.When(c.First.Time), views.When(c.Last.Time), views.Cell{HTML: views.Place(c.First, w.links.Filter)}) {
			break
		}
	}
	return t.HTML()
}

// title is what the report is called.
func (o *Options) title(f *facts) string {
	var paths []string
	for _, r := range f.runs {
		for i := range r.Sources {
			if p := r.Sources[i].Path; p != "" && !slices.Contains(paths, p) && len(paths) < maxSources {
				paths = append(paths, p)
			}
		}
	}
	switch len(paths) {
	case 0:
		return o.From
	case 1:
		return harmless.Short(filepath.Base(paths[0]), views.MaxText)
	}
	return some(uint64(len(paths)), "capture", "captures")
}
