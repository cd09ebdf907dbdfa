package terminal

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/tls"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/summary"
)

// alert writes an alert, with an empty line after it.
func (p *printer) alert(h *event.Handshake, a *finding.Alert) error {
	m := a.Match
	level := strings.ToUpper(m.Rule.Level)
	p.wrap(p.styled(levels[m.Rule.Level], level)+"  ", len(level)+2, m.Rule.Title, bold)

	p.field("Seen", p.seen(h))
	server, client := endpoint(&h.Flow.Endpoints[h.Client.Other()]), endpoint(&h.Flow.Endpoints[h.Client])
	p.field("Server", server+" → client "+client+", "+protocol(h))
	if h.ClientHello != nil {
		p.field("SNI", h.ClientHello.ServerName)
	}
	if chain, whose, index := shownChain(h, m); index < len(chain) && chain[index].Certificate != nil {
		c := chain[index]
		p.field("Chain", rules.ChainPlace(index, len(chain))+" that the "+whose+" sent")
		p.field("Subject", c.Subject.String)
		p.field("Issuer", c.Issuer.String)
		if c.NotBefore.IsValid() && c.NotAfter.IsValid() {
			p.field("Valid", c.NotBefore.Time().Format(time.DateOnly)+" to "+c.NotAfter.Time().Format(time.DateOnly))
		}
		if c.DER != nil && !c.Truncated {
			p.field("SHA-256", fmt.Sprintf("%X", c.SHA256))
		}
	} else {
		p.field("Chain", "no certificate: "+summary.Outcome(h.Outcome))
	}
	p.field("Alert ID", a.ID)
	p.field("Evidence", a.Pack)
	p.field("Verdict", m.Rule.Verdict)
	p.field("Reason", m.Reason)
	for _, reason := range m.Reasons {
		if reason != m.Reason {
			p.wrap(strings.Repeat(" ", labelWidth)+"· ", labelWidth+2, reason, "")
		}
	}
	p.buf.WriteByte('\n')
	return p.flush()
}

// again writes how often an alert has repeated since it was shown, with an empty line
// after it.
func (p *printer) again(r *repeat) error {
	level := strings.ToUpper(r.level)
	p.wrap(p.styled(levels[r.level], level)+"  ", len(level)+2, r.title, bold)
	clients := Count(len(r.clients), "client", "clients")
	if len(r.clients) > maxRepeatClients {
		clients = fmt.Sprintf("more than %d clients", maxRepeatClients)
	}
	times := "once"
	if r.n > 1 {
		times = thousands(r.n) + " times"
	}
	on := endpoint(&r.server)
	if r.name != "" {
		on += " (" + r.name + ")"
	}
	p.field("Again", times+" on "+on+", with "+clients)
	p.field("Last", r.at)
	if r.hash != [32]byte{} {
		p.field("SHA-256", fmt.Sprintf("%X", r.hash))
	}
	p.buf.WriteByte('\n')
	return p.flush()
}

// seen says when and where the last packet was seen that an alert is about.
func (p *printer) seen(h *event.Handshake) string {
	at := lastMoment(h)
	seen := time.Unix(0, at.Time).UTC().Format("2006-01-02 15:04:05.000 MST")
	if at.Frame != 0 {
		seen += ", packet " + thousands(at.Frame)
	}
	switch o := h.Flow.Origin; {
	case o != nil && o.Path == "-":
		seen += " of standard input"
	case o != nil && o.Path != "":
		seen += " of " + p.capture(o.Path)
	case o != nil && o.Interface != "":
		seen += " on " + o.Interface
	}
	return seen
}

// capture is what a capture is shown as: the end of its path that no other has.
func (p *printer) capture(path string) string {
	if name, ok := p.captures[path]; ok {
		return name
	}
	return filepath.Base(path)
}

// lastMoment is the packet that completed the certificate, else the last of h.
func lastMoment(h *event.Handshake) event.Moment {
	if h.Certificate == (event.Moment{}) {
		return h.End
	}
	return h.Certificate
}

// shownChain is the chain that a match is about, who sent it, and the place in it of
// the certificate that is shown.
func shownChain(h *event.Handshake, m *rules.Match) (chain []event.ChainEntry, whose string, index int) {
	if ofClient(m.Field) {
		return h.ClientChain, "client", max(0, m.ChainIndex)
	}
	return h.Chain, "server", max(0, m.ChainIndex)
}

// ofClient reports whether a field is about the client's certificates.
func ofClient(field string) bool {
	for _, prefix := range []string{"oddcert.client_chain.", "tls.client.x509.", "tls.client.hash."} {
		if strings.HasPrefix(field, prefix) {
			return true
		}
	}
	return field == "tls.client.subject" || field == "tls.client.issuer"
}

// protocol is what was spoken, such as "TLS 1.2 in starttls-smtp".
func protocol(h *event.Handshake) string {
	s := "TLS"
	if h.Datagram {
		s = "DTLS"
	}
	if protocol, number := tls.VersionName(h.Version); number != "" {
		s = strings.ToUpper(protocol) + " " + number
	}
	if h.Carrier != "" && h.Carrier != "tls" && h.Carrier != "dtls" {
		s += " in " + h.Carrier
	}
	return s
}

// endpoint is the address and port of e, or its MAC address where it has no other.
func endpoint(e *event.Endpoint) string {
	if !e.Addr.IsValid() {
		return net.HardwareAddr(e.MAC[:]).String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}
