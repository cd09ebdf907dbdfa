package cbom

import (
	"fmt"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

func outcome(o int) string { return event.Outcome(o).String() }

// spot is where in the captures something was seen, such as "frame 6 of monday.pcap".
func spot(p inventory.Place) string {
	where := p.Interface
	if p.Path != "" {
		where = text(p.Path)
	}
	if p.Frame != 0 && where != "" {
		return fmt.Sprintf("frame %d of %s", p.Frame, where)
	}
	return where
}

// seen says when and where something was seen.
func seen(p inventory.Place) string {
	s := instant(p.Time)
	if in := spot(p); in != "" {
		s += " in " + in
	}
	if c := p.Flow.Client; c.IsValid() {
		s += ", client " + c.String()
	}
	return s
}

// location names a server.
func location(k inventory.ServerKey) string {
	s := address(k) + "/" + k.Transport.String()
	if k.Carrier != "" {
		s += " " + k.Carrier
	}
	return s
}

// between says how often something was seen, and from when to when.
func between(first, last inventory.Place, handshakes uint64) string {
	s := "first seen " + seen(first)
	if last != first {
		s += "; last seen " + seen(last)
	}
	return fmt.Sprintf("%s; handshakes: %d", s, handshakes)
}

// sighting is a certificate on a server.
func sighting(v *inventory.Sighting) cdx.EvidenceOccurrence {
	context := between(v.First, v.Last, v.Handshakes) + "; as " + roles(v.Roles)
	if len(v.Names) > 0 {
		names := make([]string, 0, len(v.Names))
		for _, n := range v.Names[:min(len(v.Names), 8)] {
			names = append(names, text(n))
		}
		context += "; asked for as " + strings.Join(names, ", ")
	}
	return cdx.EvidenceOccurrence{Location: location(v.Server), AdditionalContext: context}
}

// server is a server that was seen with something. How often it was is in its service.
func server(v *inventory.Server) cdx.EvidenceOccurrence {
	return cdx.EvidenceOccurrence{Location: location(v.ServerKey), AdditionalContext: "server " + between(v.First, v.Last, v.Handshakes)}
}

// of is the first place in which a certificate was seen.
func of(c *inventory.Certificate) cdx.EvidenceOccurrence {
	return cdx.EvidenceOccurrence{Location: certificateRef(c.SHA256), AdditionalContext: "first seen " + seen(c.First)}
}
