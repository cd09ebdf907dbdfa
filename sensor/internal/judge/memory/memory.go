// Package memory remembers what was seen of servers, their keys and their clients
// before: how many servers share a key, where OpenVPN runs, for which servers there
// was an alert, and whose key was proven today.
//
// It is for the one stage that has the handshakes in order, and not safe for
// concurrent use. Nothing in it looks at a clock but that of the packets, and the
// same handshakes in the same order give the same answers. All of it is bounded; see
// the limits for what it forgets first. What it forgets it counts.
package memory

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Memory is what is remembered of one capture.
type Memory struct {
	clock   clock
	keys    keys
	openVPN table[sum, openVPN] // by the address of the server
	flagged table[server, *flagged]
	told    table[told, uint64] // the serial of the alert of which each client of a server was told
	proofs  table[proof, int64] // the day since the Unix epoch when each was due last
	bucket  bucket
	serial  uint64 // of the last alert

	due        uint64
	overBudget uint64
	result     judgement.Memory
}

// server is an endpoint of servers.
type server struct {
	address   sum
	port      uint16
	transport event.Transport
}

// told is a client of a server.
type told struct {
	server
	client sum
}

// proof is a leaf on a server.
type proof struct {
	server
	leaf sum // of its SHA-256
}

// openVPN is when OpenVPN was seen on a server, in nanoseconds since the Unix epoch.
type openVPN struct{ first, last int64 }

// flagged is an alert, for which a server is remembered.
type flagged struct {
	judgement.Flagged
	serial uint64
	last   int64 // time of the last alert, nanoseconds since the Unix epoch
}

// New returns a Memory that remembers nothing, and may remember a share, above 0 and
// at most 1, of the most that is remembered.
func New(share float64) *Memory {
	of := func(n int) int { return max(int(float64(n)*share), 2) }
	m := &Memory{keys: newKeys(of(maxKeys), of(maxValueBytes))}
	m.openVPN.limit, m.flagged.limit, m.told.limit, m.proofs.limit = of(maxOpenVPN), of(maxFlagged), of(maxTold), of(maxProofs)
	m.forget()
	return m
}

// forget makes what is remembered new, but for the keys.
func (m *Memory) forget() {
	m.clock, m.bucket = clock{}, bucket{}
	m.openVPN.reset()
	m.flagged.reset()
	m.told.reset()
	m.proofs.reset()
}

// Next says that what comes is of another capture than what came.
func (m *Memory) Next() {
	m.keys.reset()
	m.forget()
}

// See remembers h, and returns what is known of its server and its certificate, with
// h. It must be called for every handshake. The result is lent until the next call,
// except for what it refers to.
//
// Where there is no IP, as over EAPOL, nothing is counted: all access points of a
// network show the certificate of one server.
func (m *Memory) See(h *event.Handshake) *judgement.Memory {
	r := &m.result
	*r = judgement.Memory{}
	now := m.clock.see(h.End.Time)
	c, s := ends(h)
	if s.Addr.IsValid() && c.Addr.IsValid() {
		address := sum(s.Addr.As16())
		if h.Carrier == openVPNName {
			m.seeOpenVPN(address, h.End.Time)
		}
		r.OpenVPN = m.openVPNAt(address, h.End.Time)
		if k, ok := keyOf(h); ok {
			name := ""
			if h.ClientHello != nil {
				name = h.ClientHello.ServerName
			}
			n := m.keys.see(k, address, sum(c.Addr.As16()), name, now)
			r.Servers, r.Clients, r.Names = int(n[servers]), int(n[clients]), int(n[names])
		}
	}
	if m.flagged.Len() > 0 && hidden(h) {
		r.Flagged = m.remind(h)
	}
	return r
}

var openVPNName = carrier.OpenVPN.String()

// ends returns the client and the server of h.
func ends(h *event.Handshake) (client, server *event.Endpoint) {
	return &h.Flow.Endpoints[h.Client], &h.Flow.Endpoints[h.Client.Other()]
}

// keyOf returns the key of the server's leaf, or else its hash. All servers that show
// a leaf show its key, so a count of those of the key is the larger one.
func keyOf(h *event.Handshake) (sum, bool) {
	leaf := leafOf(h)
	if leaf == nil {
		return sum{}, false
	}
	if leaf.SPKISHA256 != ([32]byte{}) {
		return sum(leaf.SPKISHA256[:16]), true
	}
	return sum(leaf.SHA256[:16]), true
}

// leafOf returns the server's leaf, nil where it is not whole.
func leafOf(h *event.Handshake) *event.ChainEntry {
	if len(h.Chain) == 0 || h.Chain[0].Truncated || h.Chain[0].Certificate == nil || h.Chain[0].DER == nil {
		return nil
	}
	return &h.Chain[0]
}

// hidden reports whether somebody talked to a server without that its certificate was
// seen.
func hidden(h *event.Handshake) bool {
	switch h.Outcome {
	case event.Encrypted, event.Resumed:
		return true
	case event.None, event.Lost:
		return h.ClientHello != nil
	}
	return false
}

// serverOf names the server of h. Where there is no IP, its MAC address stands in the
// place of a multicast address, which no server has.
func serverOf(h *event.Handshake) server {
	_, s := ends(h)
	return serverAt(s, h.Flow.Transport)
}

func serverAt(e *event.Endpoint, t event.Transport) server { return server{addressOf(e), e.Port, t} }

func addressOf(e *event.Endpoint) (a sum) {
	if e.Addr.IsValid() {
		return e.Addr.As16()
	}
	for i := range a {
		a[i] = 0xff
	}
	copy(a[10:], e.MAC[:])
	return a
}

// Contact remembers that OpenVPN runs on a server, as a flow to its port suggests.
func (m *Memory) Contact(c event.Contact) {
	if c.Server.IsValid() {
		m.seeOpenVPN(c.Server.As16(), c.Time)
	}
}

func (m *Memory) seeOpenVPN(address sum, t int64) {
	v, ok := m.openVPN.Get(address)
	switch {
	case !ok:
		v = openVPN{t, t}
	case !within(v.first, t, openVPNFor):
		v.first = t
	}
	if v.last = t; !ok {
		m.openVPN.added++
	}
	m.openVPN.Put(address, v, 1)
}

// openVPNAt returns the time when OpenVPN was seen on a server first, if that is not
// too long before or after t; or else last; or else 0.
func (m *Memory) openVPNAt(address sum, t int64) int64 {
	if m.openVPN.Len() == 0 {
		return 0
	}
	v, ok := m.openVPN.Get(address)
	switch {
	case ok && within(v.first, t, openVPNFor):
		return v.first
	case ok && within(v.last, t, openVPNFor):
		return v.last
	}
	return 0
}

// Flag remembers that h raised an alert: whoever talks to its server again without
// that its certificate can be seen is reminded of f. Of several alerts the first
// counts.
func (m *Memory) Flag(h *event.Handshake, f judgement.Flagged) {
	m.flag(serverOf(h), f, h.End.Time)
}

func (m *Memory) flag(k server, f judgement.Flagged, t int64) {
	if v, ok := m.flagged.Get(k); ok {
		if within(v.last, t, flaggedFor) {
			v.last = t
			return
		}
		m.flagged.ended++
	}
	m.flagged.added++
	m.serial++
	m.flagged.Put(k, &flagged{f, m.serial, t}, 1)
}

// remind returns the alert of the server of h, once for each client.
func (m *Memory) remind(h *event.Handshake) *judgement.Flagged {
	s := serverOf(h)
	v, ok := m.flagged.Get(s)
	if !ok || !within(v.last, h.End.Time, flaggedFor) {
		return nil
	}
	c, _ := ends(h)
	k := told{s, addressOf(c)}
	serial, ok := m.told.Get(k)
	if ok && serial == v.serial {
		return nil
	}
	if !ok {
		m.told.added++
	}
	m.told.Put(k, v.serial, 1)
	return &v.Flagged
}

// Due reports whether the proof of the key of h is to be judged, though no rule has
// asked: once a day of packet time for each leaf on each server, within a budget.
// What is over the budget is due with a later handshake.
func (m *Memory) Due(h *event.Handshake) bool {
	leaf := leafOf(h)
	if leaf == nil {
		return false
	}
	k, today := proof{serverOf(h), sum(leaf.SHA256[:16])}, dayOf(h.End.Time)
	last, ok := m.proofs.Get(k)
	if ok && last == today {
		return false
	}
	if !m.bucket.take(h.End.Time) {
		m.overBudget++
		return false
	}
	m.due++
	if !ok {
		m.proofs.added++
	}
	m.proofs.Put(k, today, 1)
	return true
}

// bucket is a budget of proofs: a token bucket in packet time. The zero value is full.
type bucket struct {
	started bool
	last    int64 // time of the packets up to which credit was given
	spent   int64 // nanoseconds that it takes until it is full
}

// take spends what one proof costs, at a time, and reports whether there was as much.
// A clock that goes back by more than it takes to fill the bucket starts anew there,
// without credit.
func (b *bucket) take(t int64) bool {
	const cost, room = int64(1e9) / proofRate, proofBurst * (int64(1e9) / proofRate)
	switch {
	case !b.started:
		b.started, b.last = true, t
	case t > b.last:
		if within(b.last, t, room) {
			b.spent = max(b.spent-(t-b.last), 0)
		} else {
			b.spent = 0
		}
		b.last = t
	case !within(b.last, t, room):
		b.last = t
	}
	if b.spent > room-cost {
		return false
	}
	b.spent += cost
	return true
}

// table is a bounded table with its books.
type table[K comparable, V any] struct {
	*generations.Cache[K, V]
	limit     int
	added     uint64
	ended     uint64
	forgotten uint64 // in captures before
}

// reset forgets everything, which is over.
func (t *table[K, V]) reset() {
	if t.Cache != nil {
		if t.Len() == 0 && t.Forgotten() == 0 {
			return
		}
		t.ended += uint64(t.Len())
		t.forgotten += t.Forgotten()
	}
	t.Cache = generations.New[K, V](t.limit)
}

func (t *table[K, V]) counts() Counts {
	return Counts{Added: t.added, Held: uint64(t.Len()), Ended: t.ended, Forgotten: t.forgotten + t.Forgotten()}
}

// Counts says what became of the entries of a table: those added are the sum of the
// others. What is forgotten and comes again counts again.
type Counts struct {
	Added     uint64 `json:"added"`
	Held      uint64 `json:"held"`      // in the table now; some may be over
	Ended     uint64 `json:"ended"`     // over, as their time or their capture is
	Forgotten uint64 `json:"forgotten"` // for want of room
}

// Stats counts what is remembered and what was forgotten.
type Stats struct {
	Keys       Counts `json:"keys"`            // of servers
	OpenVPN    Counts `json:"openvpn"`         // addresses of servers
	Flagged    Counts `json:"flagged"`         // servers with an alert
	Reminders  Counts `json:"reminders"`       // clients of such servers
	Proofs     Counts `json:"proofs"`          // leaves on servers
	Full       uint64 `json:"full"`            // how often the servers, clients or names of a key became as many as are counted
	Due        uint64 `json:"proofs_due"`      // proofs of keys
	OverBudget uint64 `json:"proofs_deferred"` // that were not due yet, since too many others were
}

// Stats returns the counters so far.
func (m *Memory) Stats() Stats {
	k := &m.keys
	return Stats{
		Keys:       Counts{Added: k.added, Held: uint64(len(k.index)), Ended: k.ended, Forgotten: k.forgotten},
		OpenVPN:    m.openVPN.counts(),
		Flagged:    m.flagged.counts(),
		Reminders:  m.told.counts(),
		Proofs:     m.proofs.counts(),
		Full:       k.full,
		Due:        m.due,
		OverBudget: m.overBudget,
	}
}
