package terminal

import (
	"container/list"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/rules"
)

// alike is what alerts have in common that are shown once: they are of one rule, for
// one certificate, on one server.
type alike struct {
	rule   string
	leaf   [32]byte // zero where no certificate was seen
	server event.Endpoint
	name   string     // that was asked for, where no certificate was seen
	client netip.Addr // in the form of lines, where each client is named
}

// repeat is an alert that was shown, and what came of it since.
type repeat struct {
	alike
	title, level string
	hash         [32]byte // of the certificate that was shown; zero for none
	at           string   // place of the last
	time         int64    // of the last; nanoseconds since the Unix epoch
	n            uint64   // since it was told
	clients      map[netip.Addr]struct{}
}

// repeats knows which alerts were shown.
type repeats struct {
	perClient bool
	shown     map[alike]*list.Element // of order
	order     list.List               // of *repeat, the one that was met last at the back
}

// see reports whether an alert is to be shown: it is not like one that was shown
// within repeatSpan. Else it is counted. Alerts that the rules have counted already are
// not shown. forgotten is one that had to go, or nil.
func (r *repeats) see(h *event.Handshake, m *rules.Match, counted bool, place func(*event.Handshake) string) (show bool, forgotten *repeat) {
	k := alike{rule: m.Rule.ID, server: h.Flow.Endpoints[h.Client.Other()]}
	if k.server.Addr.IsValid() {
		k.server.MAC = [6]byte{} // of a router
	}
	client := h.Flow.Endpoints[h.Client].Addr
	if r.perClient {
		k.client = client
	}
	chain, _, index := shownChain(h, m)
	if len(chain) > 0 && chain[0].Certificate != nil {
		k.leaf = chain[0].SHA256
	} else if h.ClientHello != nil {
		k.name = h.ClientHello.ServerName[:min(len(h.ClientHello.ServerName), maxLineValue)]
	}
	e := r.shown[k]
	if e != nil {
		old := e.Value.(*repeat)
		if h.End.Time-old.time <= int64(repeatSpan) {
			r.order.MoveToBack(e)
			old.n++
			old.time, old.at = max(old.time, h.End.Time), place(h)
			if len(old.clients) <= maxRepeatClients {
				old.clients[client] = struct{}{}
			}
			return false, nil
		}
		if counted {
			return false, nil
		}
		r.remove(e)
		if old.n > 0 {
			forgotten = old
		}
	}
	if counted {
		return false, nil
	}
	if r.shown == nil {
		r.shown = make(map[alike]*list.Element)
	}
	if r.order.Len() >= maxRepeats {
		first := r.order.Front()
		r.remove(first)
		if old := first.Value.(*repeat); old.n > 0 {
			forgotten = old
		}
	}
	fresh := &repeat{alike: k, title: m.Rule.Title, level: m.Rule.Level, time: h.End.Time, clients: make(map[netip.Addr]struct{})}
	if index < len(chain) && chain[index].Certificate != nil && !chain[index].Truncated {
		fresh.hash = chain[index].SHA256
	}
	r.shown[k] = r.order.PushBack(fresh)
	return true, forgotten
}

func (r *repeats) remove(e *list.Element) {
	delete(r.shown, e.Value.(*repeat).alike)
	r.order.Remove(e)
}

// due returns what has repeated and was not told, and takes it for told when told
// returns.
func (r *repeats) due(tell func(*repeat)) {
	for e := r.order.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*repeat); v.n > 0 {
			tell(v)
			v.n = 0
			clear(v.clients)
		}
	}
}
