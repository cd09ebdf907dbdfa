package parsers

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/carrier"
	"github.com/oddcert/oddcert/parsers/dtls"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/parsers/openvpn"
	"github.com/oddcert/oddcert/parsers/tls13"
	"github.com/oddcert/oddcert/parsers/turn"
)

// framing is how packets that mostly go over UDP are dealt out to a stream.
type framing uint8

const (
	unframed framing = iota // not known yet
	vpnFraming
	turnFraming
	iceFraming // datagrams with their lengths (RFC 4571), for ICE over TCP (RFC 6544)
)

// packetStream is a TCP stream of packets. What they are, the first of either
// direction tells.
type packetStream struct {
	framing framing
	half    [2]packetHalf
	idle    int // bytes of packets that belong to no handshake
}

// packetHalf is one direction of it.
type packetHalf struct {
	begun bool
	kept  []byte // the beginning of a packet, borrowed from the parser's buffers
	skip  int    // bytes of the rest of one that is of no use
	lost  bool   // where the next packet begins is not known
	bind  bool   // a stream may follow that TURN relays
}

// unpacks reports whether direction d is a stream of packets: behind a proxy, once
// that side has told the proxy all.
func (c *Conn) unpacks(d event.Direction) bool {
	return c.packets != nil && (!c.stream.Scanning() || c.packets.half[d].begun)
}

// mayBePackets reports whether b, the first bytes of a direction, may be those of
// a stream of packets.
func mayBePackets(b []byte) bool {
	f, _ := frame(unframed, b)
	return f != unframed
}

const (
	prefix      = 2    // the length of a packet
	longest     = 1400 // no first packet is longer
	vpnShortest = 14

	stunHeader = 20
	stunCookie = "\x21\x12\xa4\x42"
)

// frame tells what the packet that w begins with is, and how long, with what
// is before and behind it; as far as it can be told it may be several things.
// The length is 0 when there are too few bytes.
func frame(f framing, w []byte) (framing, int) {
	first := f == unframed
	if first || f == vpnFraming {
		if n, ok := vpnLength(w, first); ok {
			return vpnFraming, n
		}
	}
	if first || f == turnFraming {
		if n, ok := turnLength(w, first); ok {
			return turnFraming, n
		}
	}
	if first || f == iceFraming {
		if n, ok := iceLength(w, first); ok {
			return iceFraming, n
		}
	}
	return unframed, 0
}

func vpnLength(w []byte, first bool) (int, bool) {
	if first && w[0] > longest>>8 {
		return 0, false
	}
	if len(w) < prefix {
		return 0, true
	}
	n := int(binary.BigEndian.Uint16(w))
	if n == 0 || first && (n < vpnShortest || n > longest) {
		return 0, false
	}
	if first && len(w) > prefix {
		switch w[prefix] >> 3 {
		case openvpn.HardResetClientV1, openvpn.HardResetServerV1, openvpn.HardResetClientV2, openvpn.HardResetServerV2, openvpn.HardResetClientV3:
		default:
			return 0, false
		}
	}
	return prefix + n, true
}

// iceLength wants a STUN message first, as ICE does.
func iceLength(w []byte, first bool) (int, bool) {
	if first && w[0] > longest>>8 {
		return 0, false
	}
	if len(w) < prefix {
		return 0, true
	}
	n := int(binary.BigEndian.Uint16(w))
	if n == 0 || first && (n < stunHeader || n > longest) {
		return 0, false
	}
	if w = w[prefix:]; first && len(w) > 0 {
		if _, ok := turnLength(w, true); !ok || len(w) >= 4 && stunHeader+int(binary.BigEndian.Uint16(w[2:])) != n {
			return 0, false
		}
	}
	return prefix + n, true
}

func turnLength(w []byte, first bool) (int, bool) {
	switch {
	case w[0]>>6 == 1 && !first:
		if len(w) < 4 {
			return 0, true
		}
		return 4 + (int(binary.BigEndian.Uint16(w[2:]))+3)&^3, true
	case w[0] > 1: // the types in use
		return 0, false
	case len(w) >= 8 && string(w[4:8]) != stunCookie, len(w) >= 4 && w[3]&3 != 0:
		return 0, false
	case len(w) < 8:
		return 0, true
	}
	return stunHeader + int(binary.BigEndian.Uint16(w[2:])), true
}

// unpack takes the next bytes of a stream of packets.
func (c *Conn) unpack(d event.Direction, at event.Moment, b []byte) Verdict {
	k := c.packets
	if k == nil {
		k = new(packetStream)
		c.packets = k
	}
	h := &k.half[d]
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
				return c.spendPackets()
			}
			h.kept, w = kept, kept
		}
		f, n := frame(k.framing, w)
		if f == unframed && k.framing == unframed {
			return c.repack(d, at, w, had > 0)
		}
		if h.bind { // what is relayed, or TURN once more
			if _, ok := turnLength(w, true); !ok {
				return c.repack(d, at, w, had > 0)
			}
		}
		if h.lost && !regains(k, w, n) {
			c.dropPacket(h)
			k.idle += len(b)
			break
		}
		h.lost = false
		switch {
		case f == unframed || k.idle > maxIdle:
			return c.spendPackets()
		case n > 0 && k.framing == vpnFraming && len(w) > prefix && len(w) < n && openvpn.IsData(w[prefix]):
			h.skip = n - len(w)
			k.idle += len(w)
			c.dropPacket(h)
			return c.packetsVerdict()
		case n == 0 || len(w) < n:
			if had == 0 {
				h.kept, _ = c.p.records.Pool.Append(nil, w)
			}
			return c.packetsVerdict()
		}
		if !c.packet(d, at, f, w[:n]) {
			return c.repack(d, at, w, had > 0)
		}
		b = b[n-had:]
		c.dropPacket(h)
		if c.decided {
			return Decided
		}
	}
	return c.packetsVerdict()
}

// regains reports whether a packet of the handshake begins with w, behind a gap.
func regains(k *packetStream, w []byte, n int) bool {
	if n == 0 || n > len(w) {
		return false
	}
	switch k.framing {
	case turnFraming:
		return dtls.Looks(turn.Data(w[:n])) || turn.IsMessage(w)
	case iceFraming:
		return dtls.Looks(w[prefix:n]) || turn.IsMessage(w[prefix:n])
	}
	_, ok := openvpn.Parse(w[prefix:n])
	return ok
}

// packet takes one packet. It is false when it shows that the stream is
// something else.
func (c *Conn) packet(d event.Direction, at event.Moment, f framing, b []byte) bool {
	k := c.packets
	if f != vpnFraming {
		k.framing = f
		data := b[prefix:]
		if f == turnFraming {
			c.within = carrier.TURN
			k.half[d].bind = turn.Binds(b)
			data = turn.Data(b)
			if b[0]>>6 == 1 { // with padding
				data = turn.Data(b[:4+min(len(b)-4, int(binary.BigEndian.Uint16(b[2:])))])
			} else if data == nil {
				data = b
			}
		}
		if turn.IsMessage(data) { // a connectivity check, that may have some in it
			if data = turn.Embedded(data); dtls.Looks(data) {
				c.within = carrier.STUN
			}
		}
		if !dtls.Looks(data) && (!c.stream.Protected() || !tls13.IsUnified(data)) {
			k.idle += len(b)
			return true
		}
		c.dtlsDatagram(d, at, data)
		c.decide()
		return true
	}
	b = b[prefix:]
	pkt, ok := openvpn.Parse(b)
	switch {
	case ok && (k.framing != unframed || pkt.Reset()):
		k.framing = f
		c.openvpn(d, at, b)
	case k.framing != unframed:
		k.idle += len(b)
	case openvpn.Encrypted(b):
		c.p.stats.Opaque++
		c.spendPackets()
	default:
		return false
	}
	return true
}

// packetsVerdict reports whether more of the stream is of interest: once the
// handshakes of OpenVPN are over, and its data flows, there is not.
func (c *Conn) packetsVerdict() Verdict {
	if c.decided || c.packets == nil || c.packets.framing != vpnFraming || c.packets.idle == 0 || c.sessions == nil ||
		c.find(func(s *session) bool { return !s.conn.decided }) != nil {
		return c.verdict()
	}
	return c.spendPackets()
}

// spendPackets ends the flow: nothing more of it is of interest.
func (c *Conn) spendPackets() Verdict {
	c.closeSessions(event.NoLoss)
	c.finish(event.NoLoss)
	c.decided = true
	c.release()
	return Decided
}

// repack gives back what was kept of a stream that is none of packets.
func (c *Conn) repack(d event.Direction, at event.Moment, w []byte, kept bool) Verdict {
	k := c.packets
	c.packets = nil
	other := &k.half[d.Other()]
	if len(other.kept) > 0 {
		c.take(d.Other(), at, other.kept)
		c.dropPacket(other)
	}
	v := c.take(d, at, w)
	if kept {
		c.dropPacket(&k.half[d])
	}
	return v
}

func (c *Conn) dropPacket(h *packetHalf) {
	c.p.records.Pool.Put(h.kept)
	h.kept = nil
}

// packetGap takes a gap of n bytes in a stream of packets. It is false when the
// stream is none.
func (c *Conn) packetGap(d event.Direction, at event.Moment, n int) bool {
	k := c.packets
	h := &k.half[d]
	if k.framing == unframed {
		c.repack(d, at, nil, false)
		if len(h.kept) > 0 {
			c.take(d, at, h.kept)
			c.dropPacket(h)
		}
		return false
	}
	rest := h.skip
	if len(h.kept) > 0 {
		if _, total := frame(k.framing, h.kept); total > 0 {
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
