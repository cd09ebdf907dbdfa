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
)

// alert writes a match, with an empty line after it.
func (p *printer) alert(h *event.Handshake, m *rules.Match) error {
	level := strings.ToUpper(m.Rule.Level)
	p.wrap(p.styled(levels[m.Rule.Level], level)+"  ", len(level)+2, m.Rule.Title, bold)

	at := h.Certificate // the last packet that the record is about
	if at == (event.Moment{}) {
		at = h.End
	}
	seen := time.Unix(0, at.Time).UTC().Format("2006-01-02 15:04:05.000 MST")
	if at.Frame != 0 {
		seen += ", packet " + thousands(at.Frame)
	}
	if o := h.Flow.Origin; o != nil && o.Path != "" {
		seen += " of " + filepath.Base(o.Path)
	} else if o != nil && o.Interface != "" {
		seen += " on " + o.Interface
	}
	p.field("Seen", seen)
	server, client := endpoint(&h.Flow.Endpoints[h.Client.Other()]), endpoint(&h.Flow.Endpoints[h.Client])
	p.field("Server", server+" → client "+client+", "+protocol(h))
	if h.ClientHello != nil {
		p.field("SNI", h.ClientHello.ServerName)
	}
	chain, whose := h.Chain, "server"
	if ofClient(m.Field) {
		chain, whose = h.ClientChain, "client"
	}
	if index := max(0, m.ChainIndex); index < len(chain) && chain[index].Certificate != nil {
		c := chain[index]
		place := "the only certificate"
		if len(chain) > 1 {
			place = fmt.Sprintf("certificate %d of the %d", index+1, len(chain))
		}
		p.field("Chain", place+" that the "+whose+" sent")
		p.field("Subject", c.Subject.String)
		p.field("Issuer", c.Issuer.String)
		if c.NotBefore.IsValid() && c.NotAfter.IsValid() {
			p.field("Valid", c.NotBefore.Time().Format(time.DateOnly)+" to "+c.NotAfter.Time().Format(time.DateOnly))
		}
		if c.DER != nil && !c.Truncated {
			p.field("SHA-256", fmt.Sprintf("%X", c.SHA256))
		}
	} else {
		p.field("Chain", "no certificate: "+whatOutcome[h.Outcome])
	}
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
