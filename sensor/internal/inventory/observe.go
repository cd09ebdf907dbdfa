package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/parsers/cert"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
	"github.com/oddcert/oddcert/sensor/internal/finding"
)

// observation is what the inventory wants of a finding, while it waits to be written.
// All of it is owned, or shared and read-only.
type observation struct {
	at         Place
	handshake  sum  // says which handshake it is; zero where there are no alerts
	state      sum  // says which handshake it is, and what was seen of it
	unfinished bool // it will come once more

	server   ServerKey
	client   netip.Addr
	name     string // asked for
	outcome  event.Outcome
	answered bool // a ServerHello was seen
	version  uint16
	suite    uint16
	group    uint16
	alpn     string
	retry    bool
	offered  []uint16
	scheme   uint16 // that the server signed with; 0 for none

	certificates []shownCertificate
	leaf         Hash // zero for none
	chain        []Hash
	trust        *judgement.TrustStatus
	reasons      []string
	proof        *judgement.ProofStatus
	alerts       []raised

	run   *Run // it is a run, and nothing else
	ended bool

	size int // bytes that it takes, about
}

// shownCertificate is a whole certificate of a handshake.
type shownCertificate struct {
	*cert.Certificate
	role Role
}

// raised is an alert, or one that was counted with it.
type raised struct {
	Alert
	counted bool
	level   string
}

// release forgets what an observation was of, but keeps its memory for the next.
func (o *observation) release() {
	clear(o.certificates)
	clear(o.alerts)
	*o = observation{certificates: o.certificates[:0], alerts: o.alerts[:0]}
}

// sum is half of a SHA-256.
type sum [16]byte

func place(h *event.Handshake) Place {
	at := h.Certificate
	if at == (event.Moment{}) {
		at = h.End
	}
	c, sv := &h.Flow.Endpoints[h.Client], &h.Flow.Endpoints[h.Client.Other()]
	p := Place{Time: at.Time, Frame: at.Frame, Flow: Flow{Transport: h.Flow.Transport}}
	if c.Addr.IsValid() && sv.Addr.IsValid() {
		p.Flow.Client, p.Flow.Server = netip.AddrPortFrom(c.Addr.WithZone(""), c.Port), netip.AddrPortFrom(sv.Addr.WithZone(""), sv.Port)
	} else {
		p.Flow.ClientMAC, p.Flow.ServerMAC = c.MAC, sv.MAC
	}
	if o := h.Flow.Origin; o != nil {
		p.Path, p.Interface = o.Path, o.Interface
	}
	return p
}

// cut is s, or the beginning of it.
func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}

// cuts is a copy of the first texts of a list, or of the beginnings of them.
func cuts(list []string, most int) []string {
	list = slices.Clone(list[:min(len(list), most)])
	for i := range list {
		list[i] = cut(list[i])
	}
	return list
}

// lately are certificates whose bytes were counted: findings share them.
type lately [256]*cert.Certificate

// size is how many bytes one more finding with a certificate takes.
func (l *lately) size(c *cert.Certificate) int {
	at := &l[c.SHA256[0]]
	if *at == c {
		return 64
	}
	*at = c
	return 64 + len(c.DER)
}

// observe takes of a finding what is wanted, into o, whose memory is used again.
func (o *observation) observe(f *finding.Finding, counted *lately) {
	h := f.Handshake
	*o = observation{at: place(h), unfinished: h.Unfinished, outcome: h.Outcome, certificates: o.certificates[:0], alerts: o.alerts[:0],
		retry: h.HelloRetry, size: 1024}
	flow := &o.at.Flow
	o.server = ServerKey{Address: flow.Server.Addr(), MAC: flow.ServerMAC, Port: flow.Server.Port(), Transport: h.Flow.Transport, Carrier: h.Carrier}
	o.client = flow.Client.Addr()
	if c := h.ClientHello; c != nil {
		o.name, o.offered = cut(c.ServerName), c.SupportedGroups
	}
	if s := h.ServerHello; s != nil {
		o.answered, o.version, o.suite, o.group, o.alpn = true, h.Version, h.CipherSuite, h.Curve, cut(s.ALPN)
	}
	if h.Proof.Missing == event.ProofSeen {
		o.scheme = h.Proof.Scheme
	}
	o.show(h.Chain, Leaf, counted)
	o.show(h.ClientChain, Client, counted)
	if t := f.Judged.Trust; t != nil {
		status := t.Status
		o.reasons = cuts(t.Reasons, MaxNames)
		o.trust = &status
	}
	if p := f.Judged.KeyProof; p != nil {
		status := p.Status
		o.proof = &status
	}
	for i := range f.Alerts {
		o.alert(f, &f.Alerts[i])
	}
	o.identify(h)
	o.size += len(o.name) + len(o.alpn) + len(o.server.Carrier) + 32*len(o.chain)
}

// show takes the certificates of a chain.
func (o *observation) show(list []event.ChainEntry, first Role, counted *lately) {
	for i, e := range list {
		if e.Certificate == nil || e.Truncated || e.DER == nil {
			continue
		}
		role := first
		switch {
		case first == Leaf && i == 0:
			o.leaf = e.SHA256
		case first == Leaf:
			role = Issuer
			o.chain = append(o.chain, e.SHA256)
		}
		o.certificates = append(o.certificates, shownCertificate{e.Certificate, role})
		o.size += counted.size(e.Certificate)
	}
}

// alert takes an alert.
func (o *observation) alert(f *finding.Finding, a *finding.Alert) {
	r := a.Match.Rule
	v := raised{counted: a.Counted, level: r.Level, Alert: Alert{ID: cut(a.ID), RuleID: r.ID}}
	o.size += 256
	if !a.Counted && a.ID != "" {
		v.Alert = Alert{ID: cut(a.ID), Time: f.Handshake.End.Time, Place: o.at, RuleID: r.ID, Rule: r.Title, RuleVersion: r.Version, Level: r.Level,
			Verdict: r.Verdict, Reason: a.Match.Reason, Reasons: slices.Clone(a.Match.Reasons), Server: o.server, Client: o.at.Flow.Client, Name: o.name,
			Certificate: o.leaf, Chain: o.chain, Evidence: a.Pack, Record: bytes.Clone(a.Record)}
		if m := f.Judged.Memory; m != nil && m.Flagged != nil {
			v.Flagged = m.Flagged.AlertID
		}
		o.size += len(a.Record) + len(v.Reason)
	}
	o.alerts = append(o.alerts, v)
}

// identify makes the sums that say which handshake it is: the five-tuple, and the time of
// its first byte in microseconds, which is what most captures have. Neither the file nor
// what comes before it in the file is part of them. A handshake of which another capture
// has more is counted again: what is new of it would be lost otherwise.
func (o *observation) identify(h *event.Handshake) {
	b := make([]byte, 0, 192)
	f := &o.at.Flow
	b = append(b, byte(f.Transport), byte(f.Client.Addr().BitLen()))
	for _, e := range []netip.AddrPort{f.Client, f.Server} {
		b = append(b, e.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, e.Port())
	}
	b = append(append(b, f.ClientMAC[:]...), f.ServerMAC[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Start.Time/1000))
	b = append(append(b, h.Carrier...), 0)
	if h.Alternative {
		b = append(b, 1)
	}
	if len(o.alerts) > 0 {
		all := sha256.Sum256(b)
		o.handshake = sum(all[:16])
	}
	b = append(append(b, byte(h.Outcome)), o.leaf[:]...)
	all := sha256.Sum256(b)
	o.state = sum(all[:16])
}

// knownKey is the key of something that is counted once, at a time. What is of the same
// time lies together on disk, and the oldest can be forgotten.
func knownKey(t int64, which sum) (k onceKey) {
	copy(k[8:], which[:])
	appendTime(k[:0], t/1000)
	return k
}

// ofRule says which alert of a handshake it is.
func (s sum) ofRule(id string) sum {
	all := sha256.Sum256(append(s[:len(s):len(s)], id...))
	return sum(all[:16])
}

// hashOf is the hash of something that is counted. It is not 0, which stands for nothing.
func hashOf(b []byte) uint64 {
	all := sha256.Sum256(b)
	return max(binary.BigEndian.Uint64(all[:]), 1)
}
