package page

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/oddcert/oddcert/sensor/internal/finding"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// recent has the last alerts, with or without an inventory. Its methods may be called by
// any goroutine. What it has is never changed, but replaced.
type recent struct {
	mu    sync.Mutex
	order []string // their ids, the oldest first
	byID  map[string]*inventory.Alert
	size  int    // bytes of their records and texts
	given uint64 // up for newer ones, that came in this run
}

// add takes an alert, unless it is there.
func (r *recent) add(a *inventory.Alert) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID[a.ID] != nil {
		return false
	}
	r.order = append(r.order, a.ID)
	r.byID[a.ID] = a
	r.size += sizeOf(a)
	for len(r.order) > maxAlerts || r.size > maxAlertBytes && len(r.order) > 1 {
		oldest := r.order[0]
		r.size -= sizeOf(r.byID[oldest])
		delete(r.byID, oldest)
		r.order = slices.Delete(r.order, 0, 1)
		r.given++
	}
	return true
}

// before takes alerts of former runs, the oldest first, while there is room.
func (r *recent) before(old []*inventory.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range slices.Backward(old) {
		if r.byID[a.ID] != nil {
			continue
		}
		if len(r.order) >= maxAlerts || r.size+sizeOf(a) > maxAlertBytes {
			return
		}
		r.order = slices.Insert(r.order, 0, a.ID)
		r.byID[a.ID] = a
		r.size += sizeOf(a)
	}
}

// count counts a match with an alert that was raised before.
func (r *recent) count(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.byID[id]; a != nil {
		more := *a
		more.Counted++
		r.byID[id] = &more
	}
}

// forgotten returns how many were given up for newer ones.
func (r *recent) forgotten() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.given
}

// get returns an alert, nil where it is not there.
func (r *recent) get(id string) *inventory.Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// newest returns n alerts at most after the first skip, the newest first, and how many
// there are.
func (r *recent) newest(skip, n int) (list []*inventory.Alert, total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	total = len(r.order)
	for i := total - 1 - skip; i >= 0 && len(list) < n; i-- {
		list = append(list, r.byID[r.order[i]])
	}
	return list, total
}

// earliest returns the alert that is first in the order of the inventory, nil where there
// is none: alerts come in about the order of time, and not quite.
func (r *recent) earliest() (first *inventory.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.byID {
		if first == nil || cmp.Or(cmp.Compare(a.Time, first.Time), cmp.Compare(a.ID, first.ID)) < 0 {
			first = a
		}
	}
	return first
}

// sizeOf is about what an alert takes, in bytes.
func sizeOf(a *inventory.Alert) int {
	n := 512 + len(a.Record) + len(a.Reason) + 32*len(a.Chain)
	for _, reason := range a.Reasons {
		n += len(reason)
	}
	return n
}

// alertOf is alert i of a finding. It shares nothing with what is lent.
func alertOf(f *finding.Finding, i int) *inventory.Alert {
	h, m := f.Handshake, f.Alerts[i].Match
	client, server := &h.Flow.Endpoints[h.Client], &h.Flow.Endpoints[h.Client.Other()]
	at := h.Certificate
	if at.Time == 0 {
		at = h.End
	}
	a := &inventory.Alert{
		ID: f.Alerts[i].ID, Time: at.Time, RuleID: m.Rule.ID, Rule: m.Rule.Title, RuleVersion: m.Rule.Version,
		Level: m.Rule.Level, Verdict: m.Rule.Verdict, Reason: m.Reason, Reasons: slices.Clone(m.Reasons),
		Record: bytes.Clone(f.Alerts[i].Record),
		Server: inventory.ServerKey{Address: server.Addr, Port: server.Port, Transport: h.Flow.Transport, Carrier: h.Carrier},
		Place:  inventory.Place{Time: at.Time, Frame: at.Frame, Flow: inventory.Flow{Transport: h.Flow.Transport}},
	}
	if client.Addr.IsValid() && server.Addr.IsValid() {
		a.Client = netip.AddrPortFrom(client.Addr, client.Port)
		a.Place.Flow.Client, a.Place.Flow.Server = a.Client, netip.AddrPortFrom(server.Addr, server.Port)
	} else {
		a.Server.MAC = server.MAC
		a.Place.Flow.ClientMAC, a.Place.Flow.ServerMAC = client.MAC, server.MAC
	}
	if o := h.Flow.Origin; o != nil {
		a.Place.Path, a.Place.Interface = o.Path, o.Interface
	}
	if h.ClientHello != nil {
		a.Name = h.ClientHello.ServerName
	}
	for i, c := range h.Chain {
		switch {
		case c.Certificate == nil || c.Truncated || c.DER == nil:
		case i == 0:
			a.Certificate = c.SHA256
		default:
			a.Chain = append(a.Chain, c.SHA256)
		}
	}
	return a
}
