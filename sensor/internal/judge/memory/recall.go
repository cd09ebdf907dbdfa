package memory

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules/judgement"
)

// Shown is what is remembered from an earlier run: that a server has shown a leaf, and to
// whom or under which name.
type Shown struct {
	Time   int64    // when it did so last, nanoseconds since the Unix epoch
	SPKI   [32]byte // of the leaf; zero where it could not be read
	SHA256 [32]byte // of the leaf
	Server netip.Addr
	Client netip.Addr // the zero Addr where it says nothing of a client
	Name   string     // empty where it says nothing of a name
}

// Recall remembers what servers have shown in earlier runs. It may change the order of
// list.
func (m *Memory) Recall(list []Shown) {
	slices.SortStableFunc(list, func(a, b Shown) int { return cmp.Compare(a.Time, b.Time) })
	for i := range list {
		v := &list[i]
		if !v.Server.IsValid() {
			continue
		}
		k := sum(v.SPKI[:16])
		if v.SPKI == ([32]byte{}) {
			k = sum(v.SHA256[:16])
		}
		values := []value{{kind: servers, sum: v.Server.As16()}}
		if v.Client.IsValid() {
			values = append(values, value{kind: clients, sum: v.Client.As16()})
		}
		if v.Name != "" && len(v.Name) <= maxName {
			values = append(values, value{kind: names, sum: nameSum(v.Name)})
		}
		m.keys.recall(k, m.clock.see(v.Time), values)
	}
}

// recall notes values of a key on the day of a number.
func (k *keys) recall(s sum, day uint32, values []value) {
	i := k.slot(s, day)
	for _, v := range values {
		v.seen = uint8(day)
		k.count(i, v)
	}
	k.requeue(i)
	k.bound(i)
}

// RecallOpenVPN remembers when OpenVPN was seen on a server in earlier runs, first and last.
func (m *Memory) RecallOpenVPN(server netip.Addr, first, last int64) {
	if server.IsValid() {
		m.seeOpenVPN(server.As16(), first)
		m.seeOpenVPN(server.As16(), last)
	}
}

// RecallAlert remembers an alert of an earlier run for a server. Alerts come in the order
// of their times.
func (m *Memory) RecallAlert(server *event.Endpoint, transport event.Transport, f judgement.Flagged) {
	m.flag(serverAt(server, transport), f, f.Time)
}

// RecallReminder remembers that there was a reminder of the alert of a server, for a
// client, in an earlier run.
func (m *Memory) RecallReminder(server, client *event.Endpoint, transport event.Transport) {
	s := serverAt(server, transport)
	if v, ok := m.flagged.Get(s); ok {
		m.told.added++
		m.told.Put(told{s, addressOf(client)}, v.serial, 1)
	}
}

// OpenVPN is the name of the carrier that servers of OpenVPN have.
var OpenVPN = openVPNName

// Window is how long before the last handshake what servers have shown is remembered, in
// nanoseconds.
const Window = window * day

// MaxShown is how many values of what servers have shown are remembered at most.
const MaxShown = maxValueBytes / valueSize
