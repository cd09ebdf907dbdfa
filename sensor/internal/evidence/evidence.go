// Package evidence makes packs: folders, or archives, that hold what an alert was raised
// for, in a form that stands without the sensor. A pack has the alert, the certificates,
// the frames of the handshake, the rule, and where all of it came from; a manifest with
// the hash of each file, chained to the manifest of the pack before, and signed where
// there is a key. [Verify] checks all of that again.
//
// A [Collector] takes findings and writes a pack for each alert into a [Folder].
package evidence

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/frames"
)

// Subject is what an alert is about. A pack gives the same alert again when its capture
// gives one with the same subject: event.id cannot be the same, as it depends on the
// name of the capture. Times are those of packets, RFC 3339 with nanoseconds, UTC.
type Subject struct {
	Rule        string `json:"rule"` // its id
	RuleVersion string `json:"rule_version"`
	Transport   string `json:"transport"`
	Client      string `json:"client"` // address and port, or the MAC address where there is none
	Server      string `json:"server"`
	Carrier     string `json:"carrier"`
	Handshake   int    `json:"handshake"`   // its 0-based number on the flow
	FlowStart   string `json:"flow_start"`  // of the first packet of the flow
	Start       string `json:"start"`       // of the handshake
	Certificate string `json:"certificate"` // when the server's certificate was complete; empty without one
	End         string `json:"end"`         // of the last packet of the handshake
	Leaf        string `json:"leaf"`        // SHA-256 of the server's certificate, upper-case hex; empty without one
}

// SubjectOf returns what an alert of rule r for h is about.
func SubjectOf(h *event.Handshake, r *rules.Rule) Subject {
	s := Subject{
		Rule: r.ID, RuleVersion: r.Version, Transport: h.Flow.Transport.String(),
		Client: endpoint(&h.Flow.Endpoints[h.Client]), Server: endpoint(&h.Flow.Endpoints[h.Client.Other()]),
		Carrier: h.Carrier, Handshake: h.Index, FlowStart: timeText(h.Flow.Start), Start: timeText(h.Start.Time), End: timeText(h.End.Time),
	}
	if h.Certificate != (event.Moment{}) {
		s.Certificate = timeText(h.Certificate.Time)
	}
	if len(h.Chain) > 0 && whole(h.Chain[0]) {
		s.Leaf = hash(h.Chain[0].SHA256)
	}
	return s
}

// fields are the members of s by their names in JSON, in order.
func (s *Subject) fields() []struct{ name, value string } {
	return []struct{ name, value string }{
		{"rule", s.Rule}, {"rule_version", s.RuleVersion}, {"transport", s.Transport}, {"client", s.Client}, {"server", s.Server},
		{"carrier", s.Carrier}, {"handshake", itoa(s.Handshake)}, {"flow_start", s.FlowStart}, {"start", s.Start},
		{"certificate", s.Certificate}, {"end", s.End}, {"leaf", s.Leaf},
	}
}

// alert is an alert with all that its pack needs. It owns what it refers to, except for
// what is shared and read-only.
type alert struct {
	id         string
	record     []byte // the JSON of its record
	rule       *rules.Rule
	reason     string
	reasons    []string
	name       string // asked for
	subject    Subject
	flow       event.Flow
	wanted     frames.Flow
	forged     bool         // somebody interfered: what an endpoint ignores may have come before the flow, and after the handshake
	start, at  event.Moment // of the handshake; of the server's certificate, zero without one
	end        event.Moment
	datagram   bool                // DTLS
	chain      []*cert.Certificate // those that are whole
	clients    []*cert.Certificate
	opened     *event.Opened // with what the handshake was decrypted; nil where it was not
	suppressed uint64        // alerts that are counted with it, so far
	unfinished *event.Notes  // of the handshake that goes on; nil when it is over
	since      time.Time     // it waits for the end of the handshake, by the wall clock
}

// newAlert copies what a pack needs of an alert.
func newAlert(f *finding.Finding, a *finding.Alert) *alert {
	p := &alert{id: a.ID, record: bytes.Clone(a.Record), rule: a.Match.Rule, reason: a.Match.Reason, reasons: slices.Clone(a.Match.Reasons)}
	p.handshake(f.Handshake)
	return p
}

// handshake takes what h, which is lent, tells of the handshake.
func (a *alert) handshake(h *event.Handshake) {
	a.subject = SubjectOf(h, a.rule)
	a.flow, a.wanted, a.forged = *h.Flow, frames.Of(h), h.Forged != 0
	a.flow.Tunnel = slices.Clone(a.flow.Tunnel)
	a.start, a.at, a.end, a.datagram = h.Start, h.Certificate, h.End, h.Datagram
	a.chain, a.clients = certificates(h.Chain), certificates(h.ClientChain)
	a.opened = h.Opened
	if h.ClientHello != nil {
		a.name = strings.Clone(h.ClientHello.ServerName)
	}
	a.unfinished = nil
	if h.Unfinished {
		a.unfinished = h.Notes
	}
}

// size is about what a takes in memory, in bytes.
func (a *alert) size() int {
	n := 1024 + len(a.record) + len(a.reason) + len(a.name)
	for _, r := range a.reasons {
		n += len(r)
	}
	for _, list := range [][]*cert.Certificate{a.chain, a.clients} {
		for _, c := range list {
			n += len(c.DER)
		}
	}
	return n
}

func whole(c event.ChainEntry) bool { return c.Certificate != nil && !c.Truncated && len(c.DER) > 0 }

func certificates(chain []event.ChainEntry) (list []*cert.Certificate) {
	for _, c := range chain {
		if whole(c) {
			list = append(list, c.Certificate)
		}
	}
	return list
}

func endpoint(e *event.Endpoint) string {
	if !e.Addr.IsValid() {
		return net.HardwareAddr(e.MAC[:]).String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}

// timeText is a time in nanoseconds since the Unix epoch as RFC 3339 writes it.
func timeText(t int64) string { return time.Unix(0, t).UTC().Format("2006-01-02T15:04:05.000000000Z") }

func hash(sum [32]byte) string { return strings.ToUpper(hex.EncodeToString(sum[:])) }
