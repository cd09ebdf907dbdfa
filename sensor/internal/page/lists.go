package page

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"html/template"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

// listView is a list of certificates or of servers.
type listView struct {
	Frame     frame
	Inventory bool
	Tiles     []tile
	Search    searchView
	Said      string
	Table     template.HTML
	Turns     turnsView
}

type searchView struct {
	Action, Label, Text string
	Most                int
	Choices             []choice
}

type choice struct {
	Value, Name string
	Chosen      bool
}

// kinds are what certificates can be chosen by.
var kinds = []struct {
	value, name string
	holds       func(c *inventory.Certificate, midnight int64) bool
}{
	{"today", "first seen today", func(c *inventory.Certificate, midnight int64) bool { return c.First.Time >= midnight }},
	{"alerts", "with alerts", func(c *inventory.Certificate, _ int64) bool { return c.Alerts > 0 }},
	{"expired", "expired when last seen", func(c *inventory.Certificate, _ int64) bool { return isExpired(c) }},
	{"self-signed", "self-signed", func(c *inventory.Certificate, _ int64) bool { return isSelfSigned(c) }},
	{"distrusted", "not trusted", func(c *inventory.Certificate, _ int64) bool { return isDistrusted(c) }},
}

// query is what somebody searches for.
type query struct {
	text, only, after string
	skip              int
}

// queryOf reads what is searched for. Text that is too long finds nothing.
func queryOf(r *http.Request) query {
	q := query{text: strings.TrimSpace(r.FormValue("q")), only: r.FormValue("only"), after: r.FormValue("after")}
	q.text = q.text[:min(len(q.text), maxText)]
	q.skip, _ = strconv.Atoi(r.FormValue("skip")) // what is no number is none
	q.skip = min(max(q.skip, 0), maxNewest)
	return q
}

// address is where the rest of a list is.
func (q query) address(path, name, value string) string {
	v := url.Values{name: {value}}
	if q.text != "" {
		v.Set("q", q.text)
	}
	if q.only != "" {
		v.Set("only", q.only)
	}
	return path + "?" + v.Encode()
}

func certificateTable(id, caption string) *views.Table {
	return &views.Table{ID: id, Caption: caption, Budget: maxTable, Columns: []views.Column{{Name: "Certificate", Class: "name"}, {Name: "Issuer", Class: "name"}, {Name: "Valid until", Class: "time"},
		{Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Servers", Class: "number"}, {Name: "Clients", Class: "number"}, {Name: "Alerts", Class: "number"}}}
}

// addCertificate adds a row, unless the page is large enough.
func addCertificate(t *views.Table, c *inventory.Certificate) bool {
	issuer := c.Issuer
	if c.Organization != "" {
		issuer = c.Organization
	}
	return t.Add(views.Cell{HTML: views.Link(certificateAddress(c.SHA256), views.Text(views.NameOf(c))) + " " + views.Flags(views.Traits(c)), Key: views.NameOf(c)[:min(len(views.NameOf(c)), 64)]},
		views.Words(issuer), views.Cell{HTML: template.HTML(views.Date(c.NotAfter)), Key: strconv.FormatInt(c.NotAfter, 10)},
		views.When(c.First.Time), views.When(c.Last.Time), views.Distinct(c.Servers), views.Distinct(c.Clients), views.Number(c.Alerts))
}

// listCertificates shows the newest certificates, or those that are searched for. The
// newest are known from the last survey; a search goes through the inventory in the order
// of hashes, for searchLimit at most, and can be gone on with.
func (p *Page) listCertificates(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	v := listView{Frame: p.frame("Certificates", "/certificates"),
		Search: searchView{"/certificates", "Name, issuer or hash", q.text, maxText, []choice{{"", "everything", q.only == ""}}}}
	for _, k := range kinds {
		v.Search.Choices = append(v.Search.Choices, choice{k.value, k.name, q.only == k.value})
	}
	store := p.store.Load()
	if store == nil {
		p.show(w, http.StatusOK, "list", v)
		return
	}
	v.Inventory = true
	t := certificateTable("certificates", "Certificates")
	s := p.surveyor.get(p, store)
	if s != nil {
		v.Tiles = []tile{tileOf("certificates", s.totals.Certificates, false), tileOf("first seen today", s.today, false), tileOf("with alerts", s.withAlerts, true),
			tileOf("expired when last seen", s.expired, false), tileOf("self-signed", s.selfSigned, false), tileOf("not trusted", s.distrusted, false)}
	}
	if q.text == "" && q.only == "" && q.after == "" {
		v.newestOf(s, q, t)
		p.show(w, http.StatusOK, "list", v)
		return
	}
	wanted := wantedCertificate(q, p.config.Now())
	from := hashOf(q.after)
	last, whole, err := searchThrough(r.Context(), p, t, store.CertificatesAfter(from), func(c *inventory.Certificate) (inventory.Hash, bool) {
		return c.SHA256, !wanted(c) || addCertificate(t, c)
	})
	if err != nil {
		p.busy(w)
		return
	}
	v.found(t, whole)
	if !whole {
		v.Turns.On, v.Turns.OnText = q.address("/certificates", "after", hex.EncodeToString(last[:])), "Go on"
	}
	p.show(w, http.StatusOK, "list", v)
}

// newestOf lists the certificates that were first seen last.
func (v *listView) newestOf(s *survey, q query, t *views.Table) {
	if s == nil {
		v.Said = "The inventory is being read: come again in some seconds."
		return
	}
	list := s.newest[min(q.skip, len(s.newest)):]
	list = list[:min(len(list), maxRows)]
	for _, c := range list {
		if !addCertificate(t, c) {
			break
		}
	}
	v.Table = t.HTML()
	v.Said = fmt.Sprintf("First seen last, as of %s UTC.", s.at.UTC().Format(time.TimeOnly))
	if s.partial {
		v.Said += " The inventory is large: not all of it was looked at."
	}
	if q.skip > 0 {
		v.Turns.Back, v.Turns.BackText = fmt.Sprintf("/certificates?skip=%d", max(q.skip-maxRows, 0)), "Newer"
	}
	switch next := q.skip + t.Shown(); {
	case next < len(s.newest):
		v.Turns.On, v.Turns.OnText = fmt.Sprintf("/certificates?skip=%d", next), "Older"
	case s.totals.Certificates > uint64(len(s.newest)):
		v.Turns.On, v.Turns.OnText = "/certificates?after="+strings.Repeat("00", 32), "All, in the order of their hashes"
	}
}

// found says what a search has found.
func (v *listView) found(t *views.Table, whole bool) {
	v.Table = t.HTML()
	switch {
	case whole:
		v.Said = fmt.Sprintf("%s found.", views.Count(uint64(t.Shown())))
	case t.Shown() == maxRows || t.Full():
		v.Said = fmt.Sprintf("%d are shown; there may be more.", t.Shown())
	default:
		v.Said = fmt.Sprintf("%s found in %v; not all of the inventory was looked at.", views.Count(uint64(t.Shown())), searchLimit)
	}
}

// wantedCertificate is what a certificate has to be.
func wantedCertificate(q query, now time.Time) func(*inventory.Certificate) bool {
	midnight := now.UTC().Truncate(24 * time.Hour).UnixNano()
	text := strings.ToLower(q.text)
	hash := strings.ToUpper(strings.ReplaceAll(q.text, ":", ""))
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	return func(c *inventory.Certificate) bool {
		for _, k := range kinds {
			if k.value == q.only && !k.holds(c, midnight) {
				return false
			}
		}
		return text == "" || has(c.Subject) || has(c.Issuer) || slices.ContainsFunc(c.Names, has) ||
			strings.HasPrefix(c.Serial, hash) || strings.HasPrefix(fmt.Sprintf("%X", c.SHA256), hash) || strings.HasPrefix(fmt.Sprintf("%X", c.SPKI), hash)
	}
}

// hashOf reads a hash in hex; zero for what is none.
func hashOf(text string) (h inventory.Hash) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return inventory.Hash{}
	}
	return inventory.Hash(b)
}

var (
	errMore = errors.New("there is more")
	errBusy = errors.New("others are searching")
)

// search has find go through the inventory, alone and for searchLimit at most: more says
// whether to go on. It reports whether find has seen everything; errBusy is its only
// error.
func (p *Page) search(ctx context.Context, find func(more func() bool) error) (whole bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	select {
	case p.searches <- struct{}{}:
		defer func() { <-p.searches }()
	case <-waiting.Done():
		return false, errBusy
	}
	begun, n := time.Now(), 0
	err = find(func() bool {
		n++
		return n%256 != 0 || time.Since(begun) < searchLimit && ctx.Err() == nil
	})
	return err == nil, nil
}

// searchThrough goes through a part of the inventory and has take add rows to t. take returns the
// key of what it was given, and whether there was room for it. last is the key of the last
// for which there was; whole and err are those of search.
func searchThrough[T, K any](ctx context.Context, p *Page, t *views.Table, all iter.Seq2[T, error], take func(T) (K, bool)) (last K, whole bool, err error) {
	whole, err = p.search(ctx, func(more func() bool) error {
		for v, err := range all {
			if err != nil {
				continue // one that is damaged is counted by the inventory
			}
			key, taken := take(v)
			if !taken {
				return errMore
			}
			last = key
			if !more() || t.Shown() == maxRows {
				return errMore
			}
		}
		return nil
	})
	return last, whole, err
}

type oneCertificateView struct {
	Frame           frame
	Certificate     views.Certificate
	Address         string
	Flags           template.HTML
	Servers, Alerts template.HTML
}

// showCertificate shows a certificate, or sends its bytes.
func (p *Page) showCertificate(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("hash")
	ext := path.Ext(name)
	h := hashOf(strings.TrimSuffix(name, ext))
	store := p.store.Load()
	if store == nil || h == (inventory.Hash{}) {
		p.missing(w, "There is no such certificate.")
		return
	}
	c, err := store.Certificate(h)
	if err != nil {
		p.missing(w, "This certificate is not in the inventory.")
		return
	}
	switch ext {
	case "":
	case ".pem", ".der":
		p.sendCertificate(w, store, h, ext)
		return
	default:
		p.missing(w, "A certificate can be had as .pem and as .der.")
		return
	}
	v := oneCertificateView{Frame: p.frame(views.NameOf(c), "/certificates"), Certificate: links.CertificateOf(c, p.find),
		Address: certificateAddress(h), Flags: views.Flags(views.Traits(c))}
	t := &views.Table{ID: "servers", Caption: "Servers that showed it", Budget: maxTable, Columns: []views.Column{{Name: "Server", Class: "address"}, {Name: "Names asked for", Class: "name"},
		{Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Handshakes", Class: "number"}, {Name: "Alerts", Class: "number"}, {Name: "Where", Class: "place"}}}
	_, err = p.search(r.Context(), func(more func() bool) error {
		for s, err := range store.ShownAt(h) {
			if err == nil {
				t.Add(views.Cell{HTML: views.Link(serverAddress(s.Server), views.Text(views.ServerName(s.Server)))}, views.Words(strings.Join(s.Names, ", ")),
					views.When(s.First.Time), views.When(s.Last.Time), views.Number(s.Handshakes), views.Number(s.Alerts), views.Cell{HTML: views.Place(s.First, frames.Filter)})
			}
			if !more() || t.Shown() == maxRelated {
				return errMore
			}
		}
		return nil
	})
	if err != nil {
		p.busy(w)
		return
	}
	t.Total = c.Servers.N
	v.Servers = t.HTML()
	v.Alerts = p.alertsOf(func(a *inventory.Alert) bool { return a.Certificate == h || slices.Contains(a.Chain, h) })
	p.show(w, http.StatusOK, "one certificate", v)
}

// alertsOf lists those of the last alerts that are about something.
func (p *Page) alertsOf(about func(*inventory.Alert) bool) template.HTML {
	list, total := p.alerts.newest(0, maxAlerts)
	t := alertTable()
	for _, a := range list {
		if about(a) {
			if t.Total++; t.Shown() < maxRelated {
				p.addAlert(t, a)
			}
		}
	}
	if t.Shown() == 0 {
		return ""
	}
	return template.HTML(`<p class="soft">Among the last `+views.Count(uint64(total))+`.</p>`) + t.HTML()
}

// sendCertificate sends the bytes of a certificate, as DER or PEM.
func (p *Page) sendCertificate(w http.ResponseWriter, store *inventory.Store, h inventory.Hash, ext string) {
	b, err := store.DER(h)
	if err != nil {
		p.missing(w, "The bytes of this certificate are not in the inventory.")
		return
	}
	kind := "application/pkix-cert"
	if ext == ".pem" {
		b, kind = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}), "application/x-pem-file"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%X%s"`, h, ext))
	p.answered.Add(1)
	_, _ = w.Write(b) // who asked may be gone
}

// listServers shows the servers in the order of their addresses.
func (p *Page) listServers(w http.ResponseWriter, r *http.Request) {
	q := queryOf(r)
	v := listView{Frame: p.frame("Servers", "/servers"),
		Search: searchView{"/servers", "Address, network, port or carrier", q.text, maxText, []choice{{"", "everything", q.only == ""}, {"alerts", "with alerts", q.only == "alerts"}}}}
	store := p.store.Load()
	if store == nil {
		p.show(w, http.StatusOK, "list", v)
		return
	}
	v.Inventory = true
	if totals, err := store.Totals(); err == nil {
		v.Tiles = []tile{tileOf("servers", totals.Servers, false), tileOf("pairs of a certificate and a server", totals.Sightings, false), tileOf("pairs of a client and a server", totals.Contacts, false)}
	}
	t := &views.Table{ID: "servers", Caption: "Servers", Budget: maxTable, Columns: []views.Column{{Name: "Server", Class: "address"}, {Name: "Certificates", Class: "number"}, {Name: "Names asked for", Class: "number"}, {Name: "Clients", Class: "number"},
		{Name: "Handshakes", Class: "number"}, {Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Alerts", Class: "number"}, {Name: "Highest level"}}}
	from, _ := parseServer(strings.Split(q.after, "/"))
	wanted := wantedServer(q)
	last, whole, err := searchThrough(r.Context(), p, t, store.ServersAfter(from), func(s *inventory.Server) (inventory.ServerKey, bool) {
		return s.ServerKey, !wanted(s) || addServer(t, s)
	})
	if err != nil {
		p.busy(w)
		return
	}
	v.found(t, whole)
	if !whole {
		v.Turns.On, v.Turns.OnText = q.address("/servers", "after", strings.TrimPrefix(serverAddress(last), "/servers/")), "Go on"
	}
	p.show(w, http.StatusOK, "list", v)
}

// addServer adds a row, unless the page is large enough.
func addServer(t *views.Table, s *inventory.Server) bool {
	return t.Add(views.Cell{HTML: views.Link(serverAddress(s.ServerKey), views.Text(views.ServerName(s.ServerKey)))}, views.Distinct(s.Certificates), views.Distinct(s.AskedFor), views.Distinct(s.Clients),
		views.Number(s.Handshakes), views.When(s.First.Time), views.When(s.Last.Time), views.Number(s.Alerts), views.Cell{HTML: views.Level(s.Level), Key: strconv.Itoa(slices.Index(levels, s.Level))})
}

// wantedServer is what a server has to be.
func wantedServer(q query) func(*inventory.Server) bool {
	network, err := netip.ParsePrefix(q.text)
	text := strings.ToLower(q.text)
	return func(s *inventory.Server) bool {
		switch {
		case q.only == "alerts" && s.Alerts == 0:
			return false
		case err == nil:
			return network.Contains(s.Address)
		}
		return strings.Contains(strings.ToLower(views.ServerName(s.ServerKey)), text)
	}
}

// serverAddress is where the page of a server is: it says all of the key.
func serverAddress(k inventory.ServerKey) string {
	address := net.HardwareAddr(k.MAC[:]).String()
	if k.Address.IsValid() {
		address = k.Address.String()
	}
	carrier := k.Carrier
	if carrier == "" {
		carrier = "-"
	}
	return "/servers/" + url.PathEscape(address) + "/" + strconv.Itoa(int(k.Port)) + "/" + k.Transport.String() + "/" + url.PathEscape(carrier)
}

// parseServer reads the parts of what serverAddress has written, without escapes.
func parseServer(parts []string) (k inventory.ServerKey, ok bool) {
	if len(parts) != 4 {
		return k, false
	}
	var err error
	if k.Address, err = netip.ParseAddr(parts[0]); err != nil {
		mac, err := net.ParseMAC(parts[0])
		if err != nil || len(mac) != len(k.MAC) {
			return inventory.ServerKey{}, false
		}
		k.MAC = [6]byte(mac)
	}
	port, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return inventory.ServerKey{}, false
	}
	k.Port = uint16(port)
	var known bool
	if k.Transport, known = event.ParseTransport(parts[2]); !known {
		return inventory.ServerKey{}, false
	}
	if k.Carrier = parts[3]; k.Carrier == "-" {
		k.Carrier = ""
	}
	return k, true
}

type fact struct {
	Name string
	HTML template.HTML
}

type oneServerView struct {
	Frame                         frame
	Facts                         []fact
	Certificates, Clients, Alerts template.HTML
	Charts                        []template.HTML
}

func (p *Page) showServer(w http.ResponseWriter, r *http.Request) {
	k, ok := parseServer([]string{r.PathValue("address"), r.PathValue("port"), r.PathValue("transport"), r.PathValue("carrier")})
	store := p.store.Load()
	if store == nil || !ok {
		p.missing(w, "There is no such server.")
		return
	}
	s, err := store.Server(k)
	if err != nil {
		p.missing(w, "This server is not in the inventory.")
		return
	}
	v := oneServerView{Frame: p.frame(views.ServerName(k), "/servers"), Facts: []fact{
		{"First seen", template.HTML(views.Time(s.First.Time)+" UTC, ") + views.Place(s.First, frames.Filter)},
		{"Last seen", template.HTML(views.Time(s.Last.Time)+" UTC, ") + views.Place(s.Last, frames.Filter)},
		{"Handshakes", template.HTML(views.Count(s.Handshakes))}, {"Clients", template.HTML(views.Counted(s.Clients))}, {"Names asked for", template.HTML(views.Counted(s.AskedFor))},
		{"Alerts", template.HTML(views.Count(s.Alerts)) + " " + views.Level(s.Level)},
	}}
	shown := &views.Table{ID: "certificates", Caption: "Certificates that it showed", Budget: maxTable / 2, Columns: []views.Column{{Name: "Certificate", Class: "name"}, {Name: "Names asked for", Class: "name"},
		{Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"}, {Name: "Handshakes", Class: "number"}, {Name: "Alerts", Class: "number"}}}
	clients := &views.Table{ID: "clients", Caption: "Clients that met it", Budget: maxTable / 2, Total: s.Clients.N, Columns: []views.Column{{Name: "Client", Class: "address"}, {Name: "First seen", Class: "time"}, {Name: "Last seen", Class: "time"},
		{Name: "Handshakes", Class: "number"}, {Name: "Alerts", Class: "number"}, {Name: "Where", Class: "place"}}}
	_, err = p.search(r.Context(), func(more func() bool) error {
		for g, err := range store.ShownBy(k) {
			if err == nil {
				name, flags := views.HTML("a certificate that is not in the inventory any more"), views.HTML("")
				if c := p.find(g.Certificate); c != nil {
					name, flags = views.Text(views.NameOf(c)), views.Flags(views.Traits(c))
				}
				shown.Add(views.Cell{HTML: views.Link(certificateAddress(g.Certificate), name) + " " + flags}, views.Words(strings.Join(g.Names, ", ")),
					views.When(g.First.Time), views.When(g.Last.Time), views.Number(g.Handshakes), views.Number(g.Alerts))
			}
			if !more() || shown.Shown() == maxRelated {
				break
			}
		}
		for c, err := range store.Met(k) {
			if err == nil {
				clients.Add(views.Words(c.Client.String()), views.When(c.First.Time), views.When(c.Last.Time), views.Number(c.Handshakes), views.Number(c.Alerts), views.Cell{HTML: views.Place(c.First, frames.Filter)})
			}
			if !more() || clients.Shown() == maxRelated {
				break
			}
		}
		return nil
	})
	if err != nil {
		p.busy(w)
		return
	}
	v.Certificates, v.Clients = shown.HTML(), clients.HTML()
	for _, c := range []struct {
		title string
		of    map[uint16]uint64
		name  func(uint16) string
	}{{"Versions", s.Versions, views.Version}, {"Cipher suites", s.Suites, views.Suite}, {"Groups of the key exchange", s.Groups, views.Group}} {
		if len(c.of) > 0 {
			v.Charts = append(v.Charts, views.Bars(c.title, bars(c.of, c.name)))
		}
	}
	v.Alerts = p.alertsOf(func(a *inventory.Alert) bool { return a.Server == k })
	p.show(w, http.StatusOK, "one server", v)
}

// bars are the most frequent values, the most frequent first. What has one name has one
// bar, as the drafts of a version have.
func bars(counts map[uint16]uint64, name func(uint16) string) (list []views.Bar) {
	named := map[string]uint64{}
	for value, n := range counts {
		named[name(value)] += n
	}
	for label, n := range named {
		list = append(list, views.Bar{Label: label, N: n})
	}
	slices.SortFunc(list, func(a, b views.Bar) int {
		return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Label, b.Label))
	})
	return list[:min(len(list), maxBarsOfList)]
}
