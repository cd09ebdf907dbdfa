package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/posture"
	"github.com/oddcert/oddcert/sensor/internal/query"
	"github.com/oddcert/oddcert/sensor/internal/views"
)

// plain is foreign text as text of Markdown (CommonMark 0.31.2, section 2.4, and the
// links without brackets of GitHub's): nothing in it is markup, an address or a mention.
func plain(s string) string { return escaped(harmless.Short(s, views.MaxSentence)) }

func escaped(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == ' ' && i == 0:
			b.WriteString("&#32;")
			continue
		case strings.ContainsRune("\\`*_[]<>&#|~@$", r),
			r == ':' && strings.HasPrefix(s[i:], "://"),
			r == '.' && i >= 3 && strings.EqualFold(s[i-3:i], "www"),
			strings.ContainsRune("-+=!", r) && (i == 0 || s[i-1] == ' '),
			strings.ContainsRune(".)", r) && i > 0 && strings.Trim(s[:i], "0123456789") == "" && (i+1 == len(s) || s[i+1] == ' '):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// code is foreign text as code of Markdown in a cell of a table.
func code(s string) string {
	s = harmless.Short(s, views.MaxText)
	if s == "" {
		return ""
	}
	if strings.ContainsAny(s, "`|\\") {
		return escaped(s)
	}
	return "`" + s + "`"
}

// document writes Markdown, and keeps the first error.
type document struct {
	w   io.Writer
	err error
}

func (d *document) line(format string, a ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format+"\n", a...)
	}
}

func (d *document) table(columns ...string) {
	d.line("")
	d.row(columns...)
	d.line("|%s", strings.Repeat("---|", len(columns)))
}

func (d *document) row(cells ...string) { d.line("| %s |", strings.Join(cells, " | ")) }

// more says what a table leaves out.
func (d *document) more(shown int, total uint64, rest string) {
	d.line("")
	if uint64(shown) < total {
		d.line("%s of %s are shown. All are in `%s`.", Count(uint64(shown)), Count(total), rest)
		d.line("")
	}
}

func placeText(p *inventory.Place) string {
	s := code(query.Where(p))
	if p.Frame != 0 {
		s += ", frame " + Count(p.Frame)
	}
	return s
}

// writeMarkdown writes the report as text.
func writeMarkdown(w io.Writer, f *facts, files Files, o Options) error {
	d := &document{w: w}
	d.line("# Case report: %s", plain(o.title(f)))
	d.line("")
	d.line("%s %s", f.lead(), f.loss())
	d.line("")
	d.line("%s. Made by oddcert %s from %s.", span(f.totals.First, f.totals.Last), plain(o.Version), plain(o.From))
	d.line("")
	d.line("Written at %s UTC.", o.Written.UTC().Format(time.DateTime))
	d.line("")
	d.line("## What was read")
	d.table("Capture", "Size", "Packets", "SHA-256")
	n := 0
	for _, r := range f.runs {
		for i := range r.Sources {
			if s := &r.Sources[i]; n < maxSources {
				n++
				name := s.Path
				if name == "" {
					name = s.Interface
				}
				hash := "not known"
				if s.SHA256 != [32]byte{} {
					hash = fmt.Sprintf("`%X`", s.SHA256)
				}
				d.row(code(name), views.Bytes(s.Size), Count(s.Frames), hash)
			}
		}
	}
	d.line("")
	d.line("## What was lost, and why")
	d.line("")
	for _, l := range f.lostLines() {
		if l.note != "" {
			d.line("- %s", l.note)
		}
		for _, line := range l.lines {
			note := ""
			if line.Note != "" {
				note = " (" + plain(line.Note) + ")"
			}
			d.line("- %s %s%s", Count(line.N), plain(strings.TrimSpace(line.Label)), note)
		}
	}
	d.line("")
	d.line("## Alerts")
	d.line("")
	if len(f.rules) == 0 {
		d.line("No server was seen with a certificate that a rule names.")
		d.line("")
	}
	for _, r := range f.rules {
		d.line("### %s: %s", strings.ToUpper(plain(r.Level)), plain(r.Title))
		d.line("")
		d.line("%s, %s to %s.", some(r.Alerts, "alert", "alerts"), views.Time(r.First), views.Time(r.Last))
		d.line("")
		for _, a := range r.cards.first() {
			d.line("- **%s**, %s UTC, client %s, %s", plain(views.ServerName(a.Server)), views.Time(a.Time), code(views.ClientName(a.Place.Flow)), placeText(&a.Place))
			d.line("")
			d.line("  %s", plain(a.Reason))
			d.line("")
			for _, reason := range a.Reasons[:min(len(a.Reasons), maxInside)] {
				if reason != a.Reason {
					d.line("  - %s", plain(reason))
				}
			}
			if a.Certificate != (inventory.Hash{}) {
				d.line("  - SHA-256 `%X`", a.Certificate)
			}
			if filter := frames.Filter(a.Place.Flow); filter != "" {
				d.line("  - Display filter `%s`", filter)
			}
			d.line("  - Alert ID %s", code(a.ID))
			if a.Evidence != "" {
				d.line("  - Evidence %s", code(a.Evidence))
			}
			d.line("")
		}
		d.more(len(r.cards.first()), r.Alerts, files.Alerts)
	}
	certificates := func(title, note string, list *top[*query.Row]) {
		d.line("## %s", title)
		d.line("")
		d.line("%s: %s.", Count(list.total), note)
		if list.total == 0 {
			d.line("")
			return
		}
		d.table("Certificate", "Flags", "Alerts", "Servers", "Valid until", "First seen", "Where", "SHA-256")
		shown := list.first()[:min(len(list.first()), maxMarkdown)]
		for _, r := range shown {
			d.row(code(r.Name()), strings.Join(views.RowTraits(r), ", "), Count(r.Alerts), views.Counted(r.Servers), views.Date(r.NotAfter), views.Time(r.First.Time), placeText(&r.First), fmt.Sprintf("`%X`", r.SHA256))
		}
		d.more(len(shown), list.total, files.Certificates)
	}
	certificates("Certificates", "those with alerts come first", &f.certificates)
	for _, k := range f.kinds {
		certificates(k.Title+" certificates", k.Note, &k.top)
	}
	certificates("Certificates on many servers", "shown by servers of several addresses", &f.shared)
	d.line("## Servers")
	d.table("Server", "Alerts", "Handshakes", "Certificate", "Versions", "Key exchange", "Weak", "First seen", "Where")
	servers := f.servers.first()[:min(len(f.servers.first()), maxMarkdown)]
	for _, p := range servers {
		s := p.Server
		d.row(code(views.ServerName(s.ServerKey)), Count(s.Alerts), Count(s.Handshakes), p.Leaf.String(), values(p.Versions, 4), p.Exchange.String(), strings.Join(p.Weak, ", "), views.Time(s.First.Time), placeText(&s.First))
	}
	d.more(len(servers), f.servers.total, files.Servers)
	d.line("## Cryptography")
	for _, c := range []struct {
		title string
		bars  []views.Bar
	}{{"Version", bars(f.totals.Versions, posture.VersionName, nil)}, {"Cipher suite", bars(f.totals.Suites, posture.SuiteName, nil)}, {"Group", bars(f.totals.Groups, posture.GroupName, nil)}} {
		d.table(c.title, "Handshakes")
		for _, b := range c.bars {
			d.row(b.Label, Count(b.N))
		}
	}
	d.table("Post-quantum key exchange", "Servers")
	for _, b := range bars(f.exchange, posture.Exchange.String, nil) {
		d.row(b.Label, Count(b.N))
	}
	d.line("")
	d.line("## Names asked for")
	d.table("Name", "Certificates and servers", "Where")
	names := f.names.first()[:min(len(f.names.first()), maxMarkdown)]
	for _, n := range names {
		d.row(code(n.text), Count(n.servers), placeText(&n.place))
	}
	d.more(len(names), f.names.total, files.Certificates)
	d.line("## Clients that met servers with alerts")
	d.table("Client", "Server", "Level", "Handshakes", "Last seen", "Where")
	contacts := f.contacts.first()[:min(len(f.contacts.first()), maxMarkdown)]
	for _, c := range contacts {
		d.row(code(c.Client.String()), code(views.ServerName(c.Server)), c.level, Count(c.Handshakes), views.Time(c.Last.Time), placeText(&c.First))
	}
	d.more(len(contacts), f.contacts.total, files.Clients)
	return d.err
}
