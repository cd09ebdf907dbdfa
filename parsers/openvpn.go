package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/openvpn"
)

// vpn identifies one TLS session of OpenVPN: by its key ID, and by the session IDs
// of both sides.
type vpn struct {
	key uint8
	ids [2]vpnID
}

// vpnID is the session ID that one side has chosen.
type vpnID struct {
	known bool
	id    uint64
}

// openvpn takes a packet of OpenVPN's control channel.
func (c *Conn) openvpn(d event.Direction, at event.Moment, b []byte) {
	pkt, ok := openvpn.Parse(b)
	if !ok {
		return
	}
	s := c.vpnSession(d, &pkt)
	pool, v := &c.p.records.Pool, &s.pieces[d]
	if pkt.Opcode == openvpn.Ack || pkt.Reset() || s.conn.done {
		if pkt.Reset() && !v.Started() {
			v.Start(pool, 1)
		}
		return
	}
	if !v.Started() { // its first packet was not seen
		first := uint32(1)
		if pkt.ID > demux.MaxPiecesHeld {
			s.conn.Midstream(d)
			first = pkt.ID
		}
		v.Start(pool, first)
	}
	v.Add(pool, (*inner)(s.conn), d, at, pkt.ID, pkt.Payload)
}

// vpnSession returns the session of a packet. It opens a session for the first packet
// of one.
func (c *Conn) vpnSession(d event.Direction, pkt *openvpn.Packet) *session {
	s := c.find(func(s *session) bool {
		own, peer := &s.vpn.ids[d], &s.vpn.ids[d.Other()]
		return s.vpn.key == pkt.Key && (!own.known || own.id == pkt.Session) && (pkt.Acks == 0 || !peer.known || peer.id == pkt.Peer) &&
			(own.known || pkt.Acks > 0 && peer.known)
	})
	if s == nil {
		s = c.openSession(carrier.OpenVPN)
		s.vpn.key = pkt.Key
	}
	s.vpn.ids[d] = vpnID{true, pkt.Session}
	if pkt.Acks > 0 {
		s.vpn.ids[d.Other()] = vpnID{true, pkt.Peer}
	}
	return s
}
