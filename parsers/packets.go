package parsers

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/internal/demux"
	"github.com/oddcert/oddcert/parsers/openvpn"
	"github.com/oddcert/oddcert/parsers/tls13"
	"github.com/oddcert/oddcert/parsers/turn"
)

// packetStream is a TCP stream of packets. The first packet of either direction shows
// what they are.
type packetStream struct {
	framing demux.Framing
	dirs    [2]packetDirection
	idle    int // bytes of packets that do not belong to a handshake
}

// packetDirection is one direction of it.
type packetDirection struct {
	begun bool
	kept  []byte // the beginning of a packet, in one of the parser's buffers
	skip  int    // bytes still to come of a packet that is not needed
	lost  bool   // it is not known where the next packet begins
	bind  bool   // TURN may relay a stream after this
}

// unpacks reports whether direction d is a stream of packets now. Where the flow
// begins with a proxy, d is one only after the talk with the proxy.
func (c *Conn) unpacks(d event.Direction) bool {
	return c.packets != nil && (!c.stream.Scanning() || c.packets.dirs[d].begun)
}

// unpack takes the next bytes of a stream of packets.
func (c *Conn) unpack(d event.Direction, at event.Moment, b []byte) Status {
	k := c.packets
	if k == nil {
		k = new(packetStream)
		c.packets = k
	}
	h := &k.dirs[d]
	h.begun = true
	for len(b) > 0 {
		if h.skip > 0 {
			n := min(h.skip, len(b))
			h.skip -= n
			k.idle += n
			b = b[n:]
			continue
		}
		w := b
		had := len(h.kept)
		if had > 0 {
			kept, ok := c.p.records.Pool.Append(h.kept, b)
			if !ok {
				return c.abandonPackets()
			}
			h.kept, w = kept, kept
		}
		f, n := demux.Frame(k.framing, w)
		if f == demux.Unframed && k.framing == demux.Unframed {
			return c.repack(d, at, w, had > 0)
		}
		if h.bind { // a stream that is relayed, or another message of TURN
			if _, ok := demux.TURNLength(w, true); !ok {
				return c.repack(d, at, w, had > 0)
			}
		}
		if h.lost && !k.framing.Resumes(w, n) {
			c.dropPacket(h)
			k.idle += len(b)
			break
		}
		h.lost = false
		switch {
		case f == demux.Unframed:
			return c.abandonPackets()
		case k.idle > maxIdle:
			c.p.stats.PacketLimit++
			return c.abandonPackets()
		case n > 0 && k.framing == demux.OpenVPNFraming && len(w) > demux.Prefix && len(w) < n && openvpn.IsData(w[demux.Prefix]):
			h.skip = n - len(w)
			k.idle += len(w)
			c.dropPacket(h)
			return c.packetsStatus()
		case n == 0 || len(w) < n:
			if had == 0 {
				h.kept, _ = c.p.records.Pool.Append(nil, w)
			}
			return c.packetsStatus()
		}
		if !c.packet(d, at, f, w[:n]) {
			return c.repack(d, at, w, had > 0)
		}
		b = b[n-had:]
		c.dropPacket(h)
		if c.done {
			return Done
		}
	}
	return c.packetsStatus()
}

// packet takes one packet. It returns false if the packet shows that the stream does
// not consist of packets.
func (c *Conn) packet(d event.Direction, at event.Moment, f demux.Framing, b []byte) bool {
	k := c.packets
	if f != demux.OpenVPNFraming {
		k.framing = f
		data := b[demux.Prefix:]
		if f == demux.TURNFraming {
			c.within = carrier.TURN
			k.dirs[d].bind = turn.Binds(b)
			data = turn.Data(b)
			if b[0]>>6 == 1 { // with padding
				data = turn.Data(b[:4+min(len(b)-4, int(binary.BigEndian.Uint16(b[2:])))])
			} else if data == nil {
				data = b
			}
		}
		if turn.IsMessage(data) { // a connectivity check of ICE, which may have DTLS in it
			if data = turn.Embedded(data); dtls.Looks(data) {
				c.within = carrier.STUN
			}
		}
		if !dtls.Looks(data) && (!c.stream.Protected() || !tls13.IsUnified(data)) {
			k.idle += len(b)
			return true
		}
		c.dtlsDatagram(d, at, data)
		c.conclude()
		return true
	}
	b = b[demux.Prefix:]
	pkt, ok := openvpn.Parse(b)
	switch {
	case ok && (k.framing != demux.Unframed || pkt.Reset()):
		k.framing = f
		c.openvpn(d, at, b)
	case k.framing != demux.Unframed:
		k.idle += len(b)
	case openvpn.Encrypted(b):
		c.p.stats.Opaque++
		c.abandonPackets()
	default:
		return false
	}
	return true
}

// packetsStatus is the status of a stream of packets. A stream of OpenVPN is done when
// its handshakes are over and its data flows.
func (c *Conn) packetsStatus() Status {
	if c.done || c.packets == nil || c.packets.framing != demux.OpenVPNFraming || c.packets.idle == 0 || c.sessions == nil ||
		c.find(func(s *session) bool { return !s.conn.done }) != nil {
		return c.status()
	}
	return c.abandonPackets()
}

// abandonPackets ends the flow, of which nothing more is needed.
func (c *Conn) abandonPackets() Status {
	c.closeSessions(event.NoLoss)
	c.finish(event.NoLoss)
	c.done = true
	c.release()
	return Done
}

// repack is called when a stream turns out not to consist of packets. It reads w, and
// what was kept of the other direction, as a stream. kept says that w is in the buffer
// of direction d.
func (c *Conn) repack(d event.Direction, at event.Moment, w []byte, kept bool) Status {
	k := c.packets
	c.packets = nil
	other := &k.dirs[d.Other()]
	if len(other.kept) > 0 {
		c.take(d.Other(), at, other.kept)
		c.dropPacket(other)
	}
	v := c.take(d, at, w)
	if kept {
		c.dropPacket(&k.dirs[d])
	}
	return v
}

func (c *Conn) dropPacket(h *packetDirection) {
	c.p.records.Pool.Put(h.kept)
	h.kept = nil
}

// packetGap takes a gap of n bytes in a stream of packets. It returns false if the
// stream turns out not to consist of packets.
func (c *Conn) packetGap(d event.Direction, at event.Moment, n int) bool {
	k := c.packets
	h := &k.dirs[d]
	if k.framing == demux.Unframed {
		c.repack(d, at, nil, false)
		if len(h.kept) > 0 {
			c.take(d, at, h.kept)
			c.dropPacket(h)
		}
		return false
	}
	rest := h.skip
	if len(h.kept) > 0 {
		if _, total := demux.Frame(k.framing, h.kept); total > 0 {
			rest = total - len(h.kept)
		}
		c.dropPacket(h)
	}
	h.skip = rest - n
	if h.skip < 0 || rest == 0 {
		h.skip, h.lost = 0, true
	}
	return true
}
