package traffic

import (
	"fmt"
	"net/netip"
	"slices"
)

// Truth is what a capture holds.
type Truth struct {
	Seed         uint64         `json:"seed"`
	Flows        int            `json:"flows"`
	Frames       int            `json:"frames"`
	Bytes        int64          `json:"bytes"` // of the file
	Faults       map[string]int `json:"faults,omitempty"`
	Certificates []Certificate  `json:"certificates"`
	Connections  []Connection   `json:"connections"` // those that speak TLS, in the order in which they ended
}

// Certificate is one distinct certificate.
type Certificate struct {
	SHA256  string `json:"sha256"` // upper-case hex
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	Plant   string `json:"plant,omitempty"` // what it is planted for; empty for a harmless one
}

// Connection is one flow that speaks TLS.
type Connection struct {
	Client  netip.AddrPort `json:"client"`
	Server  netip.AddrPort `json:"server"`
	VLANs   []uint16       `json:"vlans,omitempty"` // outermost first
	Kind    Kind           `json:"kind"`
	Version uint16         `json:"version"` // negotiated; the highest one offered if none was
	SNI     string         `json:"sni,omitempty"`
	Start   int64          `json:"start"` // time of its first captured frame, nanoseconds since the Unix epoch

	// Outcomes are those that a sensor may report, in the words of the
	// records. The empty string stands for no report at all, which is right
	// only where no whole hello was captured.
	Outcomes []string `json:"outcomes"`

	Chain       []Shown `json:"chain,omitempty"`        // what the server sent in the clear
	ClientChain []Shown `json:"client_chain,omitempty"` // what the client sent in the clear

	Faults map[string]int `json:"faults,omitempty"` // what befell its frames
}

// Shown is a certificate that was sent in the clear.
type Shown struct {
	Certificate int  `json:"certificate"` // index into Truth.Certificates
	Visible     bool `json:"visible"`     // each of its bytes was captured
	Whole       bool `json:"whole"`       // and so was the stream before them, with a known start
}

// Found is one handshake as a sensor reports it.
type Found struct {
	Client, Server netip.AddrPort
	VLANs          []uint16
	Outcome        string
	Chain          []string // SHA-256 in upper-case hex, truncated certificates left out
	ClientChain    []string
}

// Fault is what is wrong with a finding.
type Fault string

// The faults.
const (
	Missed         Fault = "missed"           // a certificate that was there whole, with all before it
	MissedAfterGap Fault = "missed after gap" // a certificate that was there whole, with a gap before it
	Wrong          Fault = "wrong"            // a certificate that was not visible on this connection
	BadOutcome     Fault = "outcome"          // another outcome than the connection had
	Swapped        Fault = "swapped"          // client and server exchanged, though a hello says who is who
	Unreported     Fault = "unreported"       // a connection without a record
	Extra          Fault = "extra"            // a record without a connection
)

// Difference is one point where findings and truth disagree.
type Difference struct {
	Fault      Fault
	Connection *Connection // nil for Extra
	Found      *Found      // nil for Unreported, and for a certificate missed for want of a record
	SHA256     string      // of the certificate, for Missed, MissedAfterGap and Wrong
}

// String says it in one line.
func (d Difference) String() string {
	s := string(d.Fault)
	if c := d.Connection; c != nil {
		s += fmt.Sprintf(": %s %v > %v %v, right are %q", c.Kind, c.Client, c.Server, c.VLANs, c.Outcomes)
	}
	if f := d.Found; f != nil {
		s += fmt.Sprintf(": found %q %v > %v %v", f.Outcome, f.Client, f.Server, f.VLANs)
	}
	if d.SHA256 != "" {
		s += ": " + d.SHA256
	}
	return s
}

// Check compares findings with the truth. Handshakes on one five-tuple are
// told apart by what they say, then by their order; those that need not be
// reported get what the others leave.
func (t *Truth) Check(found []Found) []Difference {
	records := make(map[string][]*Found)
	for i := range found {
		f := &found[i]
		k := key(f.Client, f.Server, f.VLANs)
		records[k] = append(records[k], f)
	}
	var diffs []Difference
	for _, optional := range []bool{false, true} {
		for i := range t.Connections {
			c := &t.Connections[i]
			if slices.Contains(c.Outcomes, "") != optional {
				continue
			}
			k := key(c.Client, c.Server, c.VLANs)
			best, bestDiffs := -1, t.compare(c, nil)
			for j, f := range records[k] {
				if d := t.compare(c, f); len(d) < len(bestDiffs) || best < 0 && len(d) == len(bestDiffs) {
					best, bestDiffs = j, d
				}
			}
			diffs = append(diffs, bestDiffs...)
			if best >= 0 {
				records[k] = slices.Delete(records[k], best, best+1)
			}
		}
	}
	for i := range found {
		f := &found[i]
		if slices.Contains(records[key(f.Client, f.Server, f.VLANs)], f) {
			diffs = append(diffs, Difference{Fault: Extra, Found: f})
		}
	}
	return diffs
}

// compare holds one record, or none, against one connection.
func (t *Truth) compare(c *Connection, f *Found) []Difference {
	var diffs []Difference
	none := f == nil
	if none {
		if !slices.Contains(c.Outcomes, "") {
			diffs = append(diffs, Difference{Fault: Unreported, Connection: c})
		}
		f = &Found{}
	} else if f.Outcome == "" || !slices.Contains(c.Outcomes, f.Outcome) {
		diffs = append(diffs, Difference{Fault: BadOutcome, Connection: c, Found: f})
	}
	if !none && f.Client != c.Client && !slices.Contains(c.Outcomes, "") {
		diffs = append(diffs, Difference{Fault: Swapped, Connection: c, Found: f})
	}
	for _, side := range []struct {
		shown []Shown
		found []string
	}{{c.Chain, f.Chain}, {c.ClientChain, f.ClientChain}} {
		rest := slices.Clone(side.found)
		for _, s := range side.shown {
			hash := t.Certificates[s.Certificate].SHA256
			at := slices.Index(rest, hash)
			if at >= 0 {
				rest = slices.Delete(rest, at, at+1)
			}
			if at >= 0 == s.Visible {
				continue
			}
			d := Difference{Fault: Wrong, Connection: c, Found: f, SHA256: hash}
			switch {
			case s.Whole:
				d.Fault = Missed
			case s.Visible:
				d.Fault = MissedAfterGap
			}
			if none {
				d.Found = nil
			}
			diffs = append(diffs, d)
		}
		for _, hash := range rest {
			diffs = append(diffs, Difference{Fault: Wrong, Connection: c, Found: f, SHA256: hash})
		}
	}
	return diffs
}

// key is the same for both directions of a flow.
func key(a, b netip.AddrPort, vlans []uint16) string {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return fmt.Sprint(a, b, vlans)
}
