package decode

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// udpTunnel is one kind of tunnel over UDP. All that is known of it is here, so
// that another one is another row of udpTunnels.
//
// Ports and first bytes may be coincidences. Where nothing comes of the packet in
// a tunnel, the datagram counts as a datagram like any other, and what is
// malformed in it has no name.
type udpTunnel struct {
	name tunnelName // in records; 0 where read enters the tunnel itself

	// A datagram from or to one of ports, or to one of to, is of the tunnel if
	// looks reports true: on a tunnel's own port a header that fits is enough.
	ports, to []uint16
	looks     func(d *Decoder, b []byte, missing int) bool

	// A datagram between other ports is of the tunnel if anywhere reports true,
	// which it must for packets only that are consistent, checksum and all; nil
	// where the header says too little for that.
	anywhere func(d *Decoder, b []byte, missing int) bool

	// strict reports whether the header has no bit set that is reserved. A
	// datagram to the first of ports is then of the tunnel and not by
	// coincidence, whatever is in it; nil where the header says too little.
	strict func(b []byte) bool

	// shares says that the flow inside has the addresses and the VLANs of the
	// datagram.
	shares bool

	// read reads the packet inside; b is the payload of the datagram. It is
	// called where looks or anywhere has reported true.
	read func(d *Decoder, b []byte, missing int, p *Packet) Class
}

// minTunnel is the length of the shortest payload that is looked at: that of the
// shortest header of a tunnel. The functions of udpTunnels get no shorter ones.
const minTunnel = 8

// udpTunnels is all tunnels over UDP, those first that are met most. It is set by
// init because a tunnel may be in a tunnel: its functions use it.
var udpTunnels []udpTunnel

// tunnelPorts has a bit for each port of udpTunnels.
var tunnelPorts [1 << 16 / 64]uint64

func init() {
	capwap := named("capwap")
	udpTunnels = []udpTunnel{{
		name: named("vxlan"), ports: []uint16{4789, 8472}, // RFC 7348, section 5; the second before IANA gave it a number
		looks: func(_ *Decoder, b []byte, _ int) bool { return b[0]&0x08 != 0 },
		anywhere: func(d *Decoder, b []byte, missing int) bool {
			return strictVXLAN(b) && d.plausibleEthernet(b[8:], missing)
		},
		strict: strictVXLAN,
		read:   func(d *Decoder, b []byte, missing int, p *Packet) Class { return d.ethernet(b[8:], missing, p) },
	}, {
		name: named("geneve"), ports: []uint16{6081}, // RFC 8926, section 3.4
		looks:    func(_ *Decoder, b []byte, _ int) bool { return b[0]&0xc0 == 0 },
		anywhere: (*Decoder).plausibleGENEVE,
		strict: func(b []byte) bool {
			return b[0]&0xc0 == 0 && b[1]&0x3f == 0 && binary.BigEndian.Uint16(b[2:]) >= ethertype.Min && b[7] == 0
		},
		read: (*Decoder).geneve,
	}, {
		name: named("gtp"), ports: []uint16{2152}, // 3GPP TS 29.281, section 5
		looks: func(_ *Decoder, b []byte, missing int) bool {
			// Version 1, not prime, a user's packet.
			return b[0]&0xf0 == 0x30 && b[1] == 0xff && int(binary.BigEndian.Uint16(b[2:]))+8 <= len(b)+missing
		},
		read: (*Decoder).gtp,
	}, {
		name: named("vxlan-gpe"), ports: []uint16{4790}, // draft-ietf-nvo3-vxlan-gpe, section 3
		// The flag for the protocol field is not set by everybody.
		looks: func(_ *Decoder, b []byte, _ int) bool { return b[0]&0x08 != 0 },
		anywhere: func(d *Decoder, b []byte, missing int) bool {
			return strictVXLANGPE(b) && (plausibleIP(b[8:], missing) || d.plausibleEthernet(b[8:], missing))
		},
		strict: strictVXLANGPE,
		read: func(d *Decoder, b []byte, missing int, p *Packet) Class {
			if b[3] == 0 { // as in VXLAN
				return d.ethernet(b[8:], missing, p)
			}
			return d.nextProtocol(b[3], b[8:], missing, p)
		},
	}, {
		name: capwap, ports: []uint16{5246, 5247}, // control and data; RFC 5415, section 4.1
		looks:  func(_ *Decoder, b []byte, _ int) bool { return capwapDTLS(b) },
		shares: true,
		read:   readCAPWAPDTLS,
	}, {
		name: capwap, ports: []uint16{5247}, // RFC 5415, section 4.3
		looks: func(_ *Decoder, b []byte, _ int) bool { return b[0] == 0 },
		read:  (*Decoder).capwap,
	}, {
		name: named("l2tp"), ports: []uint16{1701}, // RFC 2661, section 3.1
		looks: func(_ *Decoder, b []byte, _ int) bool {
			// Version 2, data, and no bit that means nothing.
			return binary.BigEndian.Uint16(b)&0xb4ff == 2
		},
		read: (*Decoder).l2tp,
	}, {
		name: named("lisp"), ports: []uint16{4341}, // RFC 9300, section 5.3
		looks: func(_ *Decoder, b []byte, missing int) bool { return plausibleIP(b[8:], missing) },
		read:  func(d *Decoder, b []byte, missing int, p *Packet) Class { return d.ip(b[8:], missing, p) },
	}, {
		to: []uint16{6635}, // MPLS (RFC 7510)
		looks: func(d *Decoder, b []byte, missing int) bool {
			n := labels(b)
			return n > 0 && d.plausibleUntyped(b[n:], missing)
		},
		read: (*Decoder).mpls,
	}, {
		to: []uint16{4754}, // GRE (RFC 8086)
		looks: func(_ *Decoder, b []byte, _ int) bool {
			return binary.BigEndian.Uint16(b)&^0xb000 == 0 && binary.BigEndian.Uint16(b[2:]) >= ethertype.Min
		},
		read: (*Decoder).gre,
	}, {
		name: named("sctp-udp"), ports: []uint16{9899}, // RFC 6951
		looks:  func(_ *Decoder, b []byte, missing int) bool { return plausibleSCTP(b, missing) },
		shares: true,
		read: func(d *Decoder, b []byte, missing int, p *Packet) Class {
			return d.sctp(b, len(b)+missing, p)
		},
	}, {
		name: named("tzsp"), to: []uint16{37008}, // what an access point or router mirrors
		looks: func(_ *Decoder, b []byte, _ int) bool { return b[0] == 1 && b[1] <= 1 },
		read:  (*Decoder).tzsp,
	}, {
		name: named("teredo"), ports: []uint16{3544}, // RFC 4380
		looks: func(_ *Decoder, b []byte, missing int) bool {
			at := teredoStart(b)
			return at >= 0 && plausibleIP(b[at:], missing)
		},
		anywhere: func(_ *Decoder, b []byte, missing int) bool {
			const prefix = 0x20010000 // RFC 4380, section 2.6
			at := teredoStart(b)
			return at >= 0 && (binary.BigEndian.Uint32(b[at+8:]) == prefix || binary.BigEndian.Uint32(b[at+24:]) == prefix) && plausibleIP(b[at:], missing)
		},
		read: func(d *Decoder, b []byte, missing int, p *Packet) Class { return d.ip(b[teredoStart(b):], missing, p) },
	}}
	for _, t := range udpTunnels {
		for _, ports := range [...][]uint16{t.ports, t.to} {
			for _, port := range ports {
				tunnelPorts[port/64] |= 1 << (port % 64)
			}
		}
	}
}

// onTunnelPort reports whether p goes from or to the port of a tunnel.
func onTunnelPort(p *Packet) bool {
	return (tunnelPorts[p.SrcPort/64]>>(p.SrcPort%64)|tunnelPorts[p.DstPort/64]>>(p.DstPort%64))&1 != 0
}

// mayBeTunnel reports whether a datagram is worth a closer look. What it lets
// through is rare among what is not a tunnel, except DNS and DTLS: no header that
// is looked for on any port begins with another byte.
func mayBeTunnel(p *Packet) bool {
	if len(p.Payload) < minTunnel {
		return false
	}
	first := p.Payload[0]
	return first < 0x40 || first>>4 == 6 || onTunnelPort(p)
}

// on reports whether p goes from or to a port of t.
func (t *udpTunnel) on(p *Packet) bool {
	for _, port := range t.ports {
		if p.SrcPort == port || p.DstPort == port {
			return true
		}
	}
	for _, port := range t.to {
		if p.DstPort == port {
			return true
		}
	}
	return false
}

// tunnelOf returns the tunnel that a datagram is of, nil where it is of none.
func (d *Decoder) tunnelOf(p *Packet) *udpTunnel {
	b, missing := p.Payload, p.Missing
	if onTunnelPort(p) {
		for i := range udpTunnels {
			if t := &udpTunnels[i]; t.on(p) && t.looks(d, b, missing) {
				return t
			}
		}
	}
	for i := range udpTunnels {
		if t := &udpTunnels[i]; t.anywhere != nil && t.anywhere(d, b, missing) {
			return t
		}
	}
	return nil
}

// unwrap reads a datagram that may carry a packet. Where nothing comes of that,
// it is a datagram like any other: a port or a first byte may be a coincidence.
func (d *Decoder) unwrap(p *Packet) Class {
	t := d.tunnelOf(p)
	if t == nil {
		return Datagram
	}
	outer := *p
	c := d.through(t, p)
	if c != NotIP && c != Malformed {
		return c
	}
	*p = outer
	if c == NotIP && d.content != noContent && t.strict != nil && p.DstPort == t.ports[0] && t.strict(p.Payload) {
		d.unread.add(d.content, 1)
	}
	d.content = noContent
	return Datagram
}

// through reads the packet in a datagram of tunnel t.
func (d *Decoder) through(t *udpTunnel, p *Packet) Class {
	switch {
	case t.name == 0:
	case t.shares:
		if !p.tunnels.push(t.name) {
			return Malformed
		}
	case !p.enter(t.name):
		return Malformed
	}
	return t.read(d, p.Payload, p.Missing, p)
}

// strictVXLAN reports whether b begins with the header of VXLAN (RFC 7348, section 5).
func strictVXLAN(b []byte) bool { return binary.BigEndian.Uint32(b) == 0x08000000 && b[7] == 0 }

// strictVXLANGPE reports whether b begins with the header of VXLAN-GPE, of one of
// the next protocols below 8.
func strictVXLANGPE(b []byte) bool { return binary.BigEndian.Uint32(b)&^7 == 0x0c000000 && b[7] == 0 }

// plausibleGENEVE reports whether b is a packet of GENEVE beyond chance.
func (d *Decoder) plausibleGENEVE(b []byte, missing int) bool {
	if b[0]&0xc0 != 0 || b[1]&0x3f != 0 || b[7] != 0 {
		return false
	}
	header := 8 + int(b[0])*4
	if header > len(b) {
		return false
	}
	switch binary.BigEndian.Uint16(b[2:]) {
	case ethertype.Bridging:
		return d.plausibleEthernet(b[header:], missing)
	case ethertype.IPv4, ethertype.IPv6:
		return plausibleIP(b[header:], missing)
	}
	return false
}

// geneve reads a packet of GENEVE, with an Ethernet frame or another protocol.
func (d *Decoder) geneve(b []byte, missing int, p *Packet) Class {
	header := 8 + int(b[0]&0x3f)*4
	if header > len(b) {
		return Malformed
	}
	if proto := binary.BigEndian.Uint16(b[2:]); proto != ethertype.Bridging {
		return d.ether(proto, b[header:], missing, p)
	}
	return d.ethernet(b[header:], missing, p)
}

// gtp reads a user's packet in GTP (3GPP TS 29.281, section 5).
func (d *Decoder) gtp(b []byte, missing int, p *Packet) Class {
	header, next := 8, uint8(0)
	if b[0]&7 != 0 { // one of them present, all three fields are
		header = 12
		if len(b) < header {
			return Malformed
		}
		if b[0]&4 != 0 {
			next = b[11]
		}
	}
	for range limitExtensions {
		if next == 0 {
			return d.untyped(b[header:], missing, p)
		}
		if header >= len(b) {
			return Malformed
		}
		n := int(b[header]) * 4
		if n == 0 || header+n > len(b) {
			return Malformed
		}
		header += n
		next = b[header-1]
	}
	return Malformed
}

// l2tp reads a data message of L2TP (RFC 2661, section 3.1).
func (d *Decoder) l2tp(b []byte, missing int, p *Packet) Class {
	const length, sequence, offset = 0x40, 0x08, 0x02
	header := 6
	if b[0]&length != 0 {
		header += 2
	}
	if b[0]&sequence != 0 {
		header += 4
	}
	if b[0]&offset != 0 {
		if len(b) < header+2 {
			return Malformed
		}
		header += 2 + int(binary.BigEndian.Uint16(b[header:]))
	}
	if header > len(b) {
		return Malformed
	}
	return d.pointToPoint(b[header:], missing, p)
}

// teredoStart returns where the IPv6 packet begins after the indications that
// Teredo may put before it (RFC 4380, section 5.1.1), -1 where there is none.
func teredoStart(b []byte) int {
	at := 0
	if len(b) >= 4 && b[0] == 0 && b[1] == 1 {
		at = 4 + int(b[2]) + int(b[3]) + 9
	}
	if len(b) >= at+8 && b[at] == 0 && b[at+1] == 0 {
		at += 8
	}
	if len(b) < at+40 || b[at]>>4 != 6 {
		return -1
	}
	return at
}

// capwapDTLS reports whether a datagram of CAPWAP is protected: a preamble, then a
// DTLS record (RFC 5415, section 4.1).
func capwapDTLS(b []byte) bool {
	const preamble, changeCipherSpec, tls12CID = 0x01, 20, 25
	return len(b) >= 4+13 && b[0] == preamble && b[4] >= changeCipherSpec && b[4] <= tls12CID && (b[5] == 0xfe || b[5] == 0x01)
}

// capwap reads a frame in CAPWAP's data channel (RFC 5415, section 4.3).
func (d *Decoder) capwap(b []byte, missing int, p *Packet) Class {
	const native, fragment, last, keepAlive = 1 << 8, 1 << 7, 1 << 6, 1 << 3
	const binding80211 = 1
	bits := binary.BigEndian.Uint32(b)
	header := int(b[1]>>3) * 4
	if header < 8 || header > len(b) {
		return Malformed
	}
	if bits&keepAlive != 0 {
		return NotIP
	}
	id, offset := binary.BigEndian.Uint16(b[4:]), int(binary.BigEndian.Uint16(b[6:])&^7)
	b = b[header:]
	if bits&fragment != 0 {
		if !d.fragment(p, piece{
			kind: fragmentCAPWAP, id: uint32(id) | uint32(p.SrcPort)<<16,
			from: offset, data: b, cut: missing, more: bits&last == 0, limit: 65535,
		}) {
			return Fragment
		}
		b, missing = d.fragments.ready[0].payload, 0
	}
	switch {
	case bits&native == 0:
		return d.ethernet(b, missing, p)
	case bits>>9&0x1f == binding80211:
		return d.wlan(b, missing, false, p)
	}
	return NotIP
}

// tzsp reads a frame that an access point or router mirrors over UDP.
func (d *Decoder) tzsp(b []byte, missing int, p *Packet) Class {
	const padding, end = 0, 1
	content := binary.BigEndian.Uint16(b[2:])
	for at := 4; at < len(b); {
		switch {
		case b[at] == padding:
			at++
		case b[at] == end:
			switch content {
			case 1:
				return d.ethernet(b[at+1:], missing, p)
			case 18:
				return d.wlan(b[at+1:], missing, false, p)
			}
			return NotIP
		case at+1 < len(b):
			at += 2 + int(b[at+1])
		default:
			return Malformed
		}
	}
	return Malformed
}

// readCAPWAPDTLS leaves the preamble out: the flow is that of the datagram.
func readCAPWAPDTLS(_ *Decoder, b []byte, _ int, p *Packet) Class {
	p.Payload = b[4:]
	return Datagram
}
