package parsers

import (
	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/openvpn"
)

// vpn is one TLS session of OpenVPN, or of Remote Desktop over UDP: both sides
// number their packets, of which each has a piece of a stream.
type vpn struct {
	key  uint8
	half [2]vpnHalf
}

// vpnHalf is what one side sends.
type vpnHalf struct {
	known bool // id is
	id    uint64
	next  uint32 // the packet that continues the stream
	held  []vpnPiece
}

// vpnPiece is the payload of a packet that came too early, borrowed from the
// parser's buffers.
type vpnPiece struct {
	id uint32
	at event.Moment
	b  []byte
}

// openvpn takes a packet of OpenVPN's control channel.
func (c *Conn) openvpn(d event.Direction, at event.Moment, b []byte) {
	pkt, ok := openvpn.Parse(b)
	if !ok {
		return
	}
	s := c.vpnSession(d, &pkt)
	v := &s.vpn.half[d]
	if pkt.Opcode == openvpn.Ack || pkt.Reset() || s.conn.decided {
		if pkt.Reset() && v.next == 0 {
			v.next = 1
		}
		return
	}
	if v.next == 0 { // its first packet was not seen
		if v.next = 1; pkt.ID > maxPiecesHeld {
			c.p.Join(s.conn, d)
			v.next = pkt.ID
		}
	}
	s.piece(d, at, pkt.ID, pkt.Payload)
}

// piece takes the piece of a stream that has a number.
func (s *session) piece(d event.Direction, at event.Moment, id uint32, b []byte) {
	v := &s.vpn.half[d]
	switch {
	case id < v.next:
		return // sent again
	case id > v.next:
		s.holdPiece(d, at, id, b)
	default:
		s.conn.p.Segment(s.conn, d, at, b)
		v.next++
	}
	s.followPieces(d, at)
	for len(v.held) > maxPiecesHeld { // no sender is that far ahead: the packet is lost
		s.skipPieces(d)
	}
}

// vpnSession is the session that a packet belongs to, opened when it is the
// first.
func (c *Conn) vpnSession(d event.Direction, pkt *openvpn.Packet) *session {
	s := c.find(func(s *session) bool {
		own, peer := &s.vpn.half[d], &s.vpn.half[d.Other()]
		return s.vpn.key == pkt.Key && (!own.known || own.id == pkt.Session) && (pkt.Acks == 0 || !peer.known || peer.id == pkt.Peer) &&
			(own.known || pkt.Acks > 0 && peer.known)
	})
	if s == nil {
		s = c.openSession(carrier.OpenVPN)
		s.vpn.key = pkt.Key
	}
	own, peer := &s.vpn.half[d], &s.vpn.half[d.Other()]
	own.known, own.id = true, pkt.Session
	if pkt.Acks > 0 {
		peer.known, peer.id = true, pkt.Peer
	}
	return s
}

// holdPiece keeps a piece that came too early.
func (s *session) holdPiece(d event.Direction, at event.Moment, id uint32, payload []byte) {
	v := &s.vpn.half[d]
	i := 0
	for ; i < len(v.held) && v.held[i].id <= id; i++ {
		if v.held[i].id == id {
			return
		}
	}
	b, ok := s.conn.p.records.Pool.Append(nil, payload)
	if !ok {
		return
	}
	v.held = append(v.held, vpnPiece{})
	copy(v.held[i+1:], v.held[i:])
	v.held[i] = vpnPiece{id, at, b}
}

// followPieces hands on the packets that are in order now.
func (s *session) followPieces(d event.Direction, at event.Moment) {
	v := &s.vpn.half[d]
	for len(v.held) > 0 && v.held[0].id == v.next {
		x := v.held[0]
		v.held = v.held[:copy(v.held, v.held[1:])]
		s.conn.p.Segment(s.conn, d, event.Later(at, x.at), x.b)
		s.conn.p.records.Pool.Put(x.b)
		v.next++
	}
}

// skipPieces gives up the packets before those that are held.
func (s *session) skipPieces(d event.Direction) {
	v := &s.vpn.half[d]
	s.conn.p.Gap(s.conn, d, v.held[0].at, unknownGap)
	v.next = v.held[0].id
	s.followPieces(d, v.held[0].at)
}

// drainPieces hands on all that is held.
func (s *session) drain() {
	for d := range event.Direction(2) {
		for len(s.vpn.half[d].held) > 0 {
			s.skipPieces(d)
		}
	}
}
