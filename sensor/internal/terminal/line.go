package terminal

import (
	"fmt"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

// line writes an alert in one line: time, level and title, then names and values as
// the log has them. What is not known is left out. The pack of evidence is left out too,
// as it has the name of the id.
func (p *printer) line(h *event.Handshake, a *finding.Alert) error {
	at, m := lastMoment(h), a.Match
	p.begin(at.Time, m.Rule.Level, m.Rule.Title)
	p.pair("server", endpoint(&h.Flow.Endpoints[h.Client.Other()]))
	if h.ClientHello != nil {
		p.pair("sni", h.ClientHello.ServerName)
	}
	p.pair("client", endpoint(&h.Flow.Endpoints[h.Client]))
	if chain, _, index := shownChain(h, m); index < len(chain) && chain[index].Certificate != nil && !chain[index].Truncated {
		p.pair("sha256", prefix(chain[index].SHA256))
	}
	p.pair("verdict", m.Rule.Verdict)
	p.pair("at", p.spot(h))
	p.pair("id", a.ID)
	p.buf.WriteByte('\n')
	return p.flush()
}

// againLine writes in one line how often an alert has repeated.
func (p *printer) againLine(r *repeat) error {
	p.begin(r.time, r.level, r.title)
	p.pair("server", endpoint(&r.server))
	p.pair("sni", r.name)
	if r.client.IsValid() {
		p.pair("client", r.client.String())
	}
	if r.hash != [32]byte{} {
		p.pair("sha256", prefix(r.hash))
	}
	p.pair("again", fmt.Sprint(r.n))
	p.pair("at", r.at)
	p.buf.WriteByte('\n')
	return p.flush()
}

func (p *printer) begin(t int64, level, title string) {
	p.buf.WriteString(time.Unix(0, t).UTC().Format("2006-01-02T15:04:05.000Z "))
	p.buf.WriteString(p.styled(levels[level], strings.ToUpper(level)) + " " + quoted(title, true))
}

// pair writes a name and its value, unless that is empty.
func (p *printer) pair(name, value string) {
	if value != "" {
		p.buf.WriteString(" " + name + "=" + quoted(value, false))
	}
}

// quoted is s as a value that cannot be taken for another one: in quotes where it has
// a space, a quote, an equals sign or a backslash of its own.
func quoted(s string, always bool) string {
	needs := always || strings.ContainsAny(s, `\ "=`)
	s = harmless.Short(s, maxLineValue)
	if !needs {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// prefix is the first 16 digits of a SHA-256: enough to find the certificate.
func prefix(hash [32]byte) string { return fmt.Sprintf("%X", hash[:8]) }

// spot is where in the captures the last packet of h is, such as "monday.pcap:6".
func (p *printer) spot(h *event.Handshake) string {
	o, frame := h.Flow.Origin, lastMoment(h).Frame
	switch {
	case o != nil && o.Path != "" && frame != 0:
		return fmt.Sprintf("%s:%d", p.capture(o.Path), frame)
	case o != nil && o.Path != "":
		return p.capture(o.Path)
	case o != nil:
		return o.Interface
	}
	return ""
}
