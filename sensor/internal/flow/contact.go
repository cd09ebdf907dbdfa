package flow

import (
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/generations"
	"github.com/oddcert/oddcert/sensor/internal/decode"
)

// contact tells of p, with which a server answers from the port of OpenVPN: once a
// day of packet time for each server.
func (t *Tracker) contact(p *decode.Packet) {
	if t.Contact == nil {
		return
	}
	const day = int64(24 * 60 * 60 * 1e9)
	server, client := p.Key.Endpoints()
	if p.Swapped {
		server, client = client, server
	}
	c := event.Contact{Server: server.Addr(), Client: client.Addr(), Port: p.SrcPort, Transport: p.Transport, Time: p.Frame.Time}
	if t.contacts == nil {
		t.contacts = generations.New[netip.Addr, int64](limitContacts)
	}
	if told, ok := t.contacts.Get(c.Server); ok && told == c.Time/day {
		return
	}
	t.contacts.Put(c.Server, c.Time/day, 1)
	t.Contact(c)
}
