package flow

import (
	"encoding/binary"
)

// tunnel is what one packet is carried in beside another.
type tunnel uint8

const (
	noTunnel tunnel = iota
	tunnelIPIP
	tunnel4in6
	tunnel6in4
	tunnel6in6
	tunnelGRE
	tunnelNVGRE
	tunnelPPTP
	tunnelERSPAN
	tunnelEtherIP
	tunnelMPLS
	tunnelPPPoE
	tunnelPBB
	tunnelL2TP
	tunnelVXLAN
	tunnelVXLANGPE
	tunnelGENEVE
	tunnelGTP
	tunnelTeredo
	tunnelCAPWAP
	tunnelLISP
	tunnelTZSP
	tunnelEthernet
	tunnelNSH
	tunnelFabricPath
	tunnelTRILL
	tunnelSCTP
)

// String is the name of t in records. GRE with an Ethernet frame in it and a
// key is what NVGRE looks like (RFC 7637, section 3.2).
func (t tunnel) String() string {
	return [...]string{"", "ipip", "4in6", "6in4", "6in6", "gre", "nvgre", "pptp", "erspan", "etherip", "mpls", "pppoe",
		"pbb", "l2tp", "vxlan", "vxlan-gpe", "geneve", "gtp", "teredo", "capwap", "lisp", "tzsp", "ethernet", "nsh", "fabricpath", "trill", "sctp-udp"}[t]
}

// stack is the tunnels around a packet, outermost first, noTunnel after the last.
type stack [limitTunnels]tunnel

// push adds t, and says whether there was room.
func (s *stack) push(t tunnel) bool {
	for i := range s {
		if s[i] == noTunnel {
			s[i] = t
			return true
		}
	}
	return false
}

// names returns the stack as records show it, nil where there is none.
func (s *stack) names() (names []string) {
	for _, t := range s {
		if t != noTunnel {
			names = append(names, t.String())
		}
	}
	return names
}

// enter goes on in a packet that is carried in t, and says whether that is
// allowed. The VLANs so far are those of the tunnel's own way through the
// network: they are not part of what tells the inner flow from others, and nor
// are the identifiers of tunnels (VNI, key, TEID, labels), so that a flow whose
// directions take different tunnels, or one of them none, is one flow.
func (p *Packet) enter(t tunnel) bool {
	p.tags, p.vlan = 0, 0
	return p.tunnels.push(t)
}

// carriedEther reads what follows the rarer EtherTypes.
func (d *Decoder) carriedEther(proto uint16, b []byte, missing int, p *Packet) Class {
	switch proto {
	case etherMPLS, etherMPLSMulti:
		return d.mpls(b, missing, p)
	case etherPPPoE:
		return d.pppoe(b, missing, p)
	case etherPBB: // priority and service identifier, then the customer's frame
		if len(b) < 4 || !p.enter(tunnelPBB) {
			return Malformed
		}
		return d.ethernet(b[4:], missing, p)
	case etherFabric: // a tree and a time to live, then the frame
		if len(b) < 2 || !p.enter(tunnelFabricPath) {
			return Malformed
		}
		return d.ethernet(b[2:], missing, p)
	case etherTRILL: // RFC 6325, section 3.2
		if len(b) < 6 {
			return Malformed
		}
		header := 6 + int(binary.BigEndian.Uint16(b)>>6&0x1f)*4
		if header > len(b) || !p.enter(tunnelTRILL) {
			return Malformed
		}
		return d.ethernet(b[header:], missing, p)
	case etherNSH:
		return d.nsh(b, missing, p)
	case etherJumboLLC:
		return d.llc(b, missing, p)
	case etherEAPOL, etherPreauth:
		return d.eapol(b, missing, p)
	}
	if proto <= 1500 {
		return d.llc(b, missing, p)
	}
	return d.carries(ofEther | content(proto))
}

// nsh reads the network service header (RFC 8300, section 2).
func (d *Decoder) nsh(b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return Malformed
	}
	header := int(b[1]&0x3f) * 4
	if header < 8 || header > len(b) || !p.enter(tunnelNSH) {
		return Malformed
	}
	return d.carriedByNumber(b[3], b[header:], missing, p)
}

// carriedByNumber reads what the next protocol of an NSH header, or of VXLAN's
// generic protocol extension, says: the two have the same numbers.
func (d *Decoder) carriedByNumber(next uint8, b []byte, missing int, p *Packet) Class {
	const ipv4, ipv6, ethernet, nsh, mpls = 1, 2, 3, 4, 5
	switch next {
	case ipv4, ipv6:
		return d.ip(b, missing, p)
	case ethernet:
		return d.ethernet(b, missing, p)
	case nsh:
		return d.nsh(b, missing, p)
	case mpls:
		return d.mpls(b, missing, p)
	}
	return d.carries(ofNSH | content(next))
}

// pppoe reads the session stage of PPPoE (RFC 2516, section 4).
func (d *Decoder) pppoe(b []byte, missing int, p *Packet) Class {
	if len(b) < 6 || b[0] != 0x11 || b[1] != 0 || !p.enter(tunnelPPPoE) {
		return Malformed
	}
	return d.pointToPoint(b[6:], missing, p)
}

// mpls reads a label stack (RFC 3032, section 2.1) and what is below it.
func (d *Decoder) mpls(b []byte, missing int, p *Packet) Class {
	n := labels(b)
	if n == 0 || !p.enter(tunnelMPLS) {
		return Malformed
	}
	return d.unmarked(b[n:], missing, p)
}

// labels returns the length of a label stack, 0 where it does not end.
func labels(b []byte) int {
	for n := 4; n <= min(4*limitLabels, len(b)); n += 4 {
		if b[n-2]&1 != 0 {
			return n
		}
	}
	return 0
}

// unmarked reads what no header says the type of: IP by its version nibble, or
// an Ethernet frame, with the control word of a pseudowire (RFC 4448, section
// 4.6) or without. An address may begin like an IP header or like a control
// word, so that what lies deeper decides.
func (d *Decoder) unmarked(b []byte, missing int, p *Packet) Class {
	if len(b) < 4 {
		return Malformed
	}
	version := b[0] >> 4
	switch {
	case plausibleIP(b, missing):
		return d.ip(b, missing, p)
	case version == 0 && d.plausibleEthernet(b[4:], missing):
		return d.ethernet(b[4:], missing, p)
	case d.plausibleEthernet(b, missing):
		return d.ethernet(b, missing, p)
	case version == 4 || version == 6:
		return d.ip(b, missing, p)
	case version == 0 && carriesNone(b[4:]):
		return d.ethernet(b[4:], missing, p)
	case carriesNone(b):
		return d.ethernet(b, missing, p)
	}
	return d.carries(ofEther | etherMPLS)
}

// plausibleUnmarked says whether unmarked would find IP in b, beyond chance.
func (d *Decoder) plausibleUnmarked(b []byte, missing int) bool {
	return plausibleIP(b, missing) || d.plausibleEthernet(b, missing) ||
		len(b) >= 4 && b[0]>>4 == 0 && d.plausibleEthernet(b[4:], missing)
}

// carriedIP reads an IP payload that is neither TCP nor UDP. size is the length
// on the wire of what begins at b.
func (d *Decoder) carriedIP(proto uint8, b []byte, size int, p *Packet) Class {
	missing := size - len(b)
	switch proto {
	case protoIPv4, protoIPv6:
		kind := tunnelIPIP
		switch {
		case proto == protoIPv4 && p.v6:
			kind = tunnel4in6
		case proto == protoIPv6 && p.v6:
			kind = tunnel6in6
		case proto == protoIPv6:
			kind = tunnel6in4
		}
		if !p.enter(kind) {
			return Malformed
		}
		return d.ip(b, missing, p)
	case protoSCTP:
		return d.sctp(b, size, p)
	case protoGRE:
		return d.gre(b, missing, p)
	case protoMPLS: // RFC 4023
		return d.mpls(b, missing, p)
	case protoEtherIP: // RFC 3378
		if len(b) < 2 || b[0]>>4 != 3 || !p.enter(tunnelEtherIP) {
			return Malformed
		}
		return d.ethernet(b[2:], missing, p)
	case protoEthernet:
		if !p.enter(tunnelEthernet) {
			return Malformed
		}
		return d.ethernet(b, missing, p)
	case protoNSH:
		return d.nsh(b, missing, p)
	case protoAH: // RFC 4302: authenticated, not encrypted
		if len(b) < 12 {
			return Malformed
		}
		header := (int(b[1]) + 2) * 4
		if header > len(b) || b[0] == protoAH {
			return Malformed
		}
		return d.transport(b[0], b[header:], size-header, p)
	}
	return d.carries(ofIP | content(proto))
}

// gre reads GRE (RFC 2784, RFC 2890), its second version in PPTP (RFC 2637,
// section 4.1), and what mirror ports and overlays put in it.
func (d *Decoder) gre(b []byte, missing int, p *Packet) Class {
	if len(b) < 4 {
		return Malformed
	}
	const checksum, routing, key, sequence, acknowledgement, version = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080, 0x0007
	flags, proto := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	header, kind := 4, tunnelGRE
	for _, field := range [...]uint16{checksum, key, sequence} {
		if flags&field != 0 {
			header += 4
		}
	}
	switch {
	case flags&version == 1 && proto == etherPPP:
		kind = tunnelPPTP
		if flags&acknowledgement != 0 {
			header += 4
		}
	case flags&(version|routing) != 0:
		return d.carries(ofIP | protoGRE)
	case proto == etherERSPAN || proto == etherERSPAN3:
		kind = tunnelERSPAN
	case proto == etherBridging && flags == key:
		kind = tunnelNVGRE
	}
	if header > len(b) || !p.enter(kind) {
		return Malformed
	}
	b = b[header:]
	switch proto {
	case etherBridging:
		return d.ethernet(b, missing, p)
	case etherPPP:
		if len(b) == 0 { // an acknowledgement alone
			return OtherIP
		}
		return d.pointToPoint(b, missing, p)
	case etherWCCP: // its second version puts a word before the packet
		if len(b) >= 4 && b[0]>>4 != 4 {
			b = b[4:]
		}
		return d.ip(b, missing, p)
	case etherERSPAN, etherERSPAN3:
		return d.erspan(flags&sequence != 0, b, missing, p)
	}
	return d.ether(proto, b, missing, p)
}

// erspan reads what a switch mirrors in GRE. The header says its version itself:
// 1 is type II, 2 is type III, and GRE's EtherType is no help. Type I has no
// header, and no sequence number in GRE; but others leave that number out too.
func (d *Decoder) erspan(sequence bool, b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return Malformed
	}
	const typeIP = 2
	header, ip := 8, false
	if b[0]>>4 == 2 {
		if header = 12; len(b) < header {
			return Malformed
		}
		if b[11]&1 != 0 { // the platform's own
			header += 8
		}
		ip = b[10]>>2&0x1f == typeIP
	}
	inside := header <= len(b) && (ip && plausibleIP(b[header:], missing) || !ip && d.plausibleEthernet(b[header:], missing))
	switch {
	case !inside && (!sequence || b[0]>>4 == 0 && d.plausibleEthernet(b, missing)):
		return d.ethernet(b, missing, p)
	case header > len(b):
		return Malformed
	case ip:
		return d.ip(b[header:], missing, p)
	}
	return d.ethernet(b[header:], missing, p)
}

// Ports of tunnels over UDP.
const (
	portL2TP          = 1701
	portGTP           = 2152
	portTeredo        = 3544
	portLISP          = 4341
	portGRE           = 4754 // RFC 8086
	portVXLAN         = 4789
	portVXLANGPE      = 4790
	portCAPWAPControl = 5246
	portCAPWAP        = 5247
	portGENEVE        = 6081
	portMPLS          = 6635 // RFC 7510
	portVXLANLinux    = 8472 // before IANA gave it a number
	portSCTP          = 9899 // RFC 6951
	portTZSP          = 37008
)

// mayCarry says whether a datagram is worth a closer look. What it lets through
// is rare among what is not a tunnel, but for DNS and DTLS.
func mayCarry(p *Packet) bool {
	if len(p.Payload) < 8 {
		return false
	}
	first := p.Payload[0]
	if first < 0x40 || first>>4 == 6 {
		return true
	}
	switch p.DstPort {
	case portVXLAN, portLISP, portL2TP, portMPLS, portGRE, portSCTP:
		return true
	}
	return p.SrcPort == portL2TP || p.SrcPort == portSCTP
}

// unwrap reads a datagram that may carry a packet. Where nothing comes of that,
// it is a datagram like any other: a port or a first byte may be a coincidence.
func (d *Decoder) unwrap(p *Packet) Class {
	t := d.carrier(p)
	if t == noTunnel {
		return Datagram
	}
	outer := *p
	c := d.overUDP(t, p)
	if c != NotIP && c != Malformed {
		return c
	}
	*p = outer
	if c == NotIP && d.content != noContent && surely(t, p) {
		d.unread.add(d.content, 1)
	}
	d.content = noContent
	return Datagram
}

// surely says that a datagram is of tunnel t and not by coincidence, whatever is
// in it: it goes to the tunnel's port, and its header has no bit that is reserved.
func surely(t tunnel, p *Packet) bool {
	b := p.Payload
	word := binary.BigEndian.Uint32(b)
	switch {
	case b[7] != 0:
		return false
	case t == tunnelVXLAN:
		return p.DstPort == portVXLAN && word == 0x08000000
	case t == tunnelVXLANGPE:
		return p.DstPort == portVXLANGPE && word&^7 == 0x0c000000
	case t == tunnelGENEVE:
		return p.DstPort == portGENEVE && word&0xc03f0000 == 0 && word&0xffff >= 0x0600
	}
	return false
}

// carrier says what tunnel a datagram belongs to. On a tunnel's own port a
// header that fits is enough; on others the packet inside must be consistent,
// checksum and all.
func (d *Decoder) carrier(p *Packet) tunnel {
	b, missing := p.Payload, p.Missing
	on := func(port uint16) bool { return p.SrcPort == port || p.DstPort == port }
	word := binary.BigEndian.Uint32(b)
	switch {
	case on(portCAPWAP) || on(portCAPWAPControl):
		if capwapDTLS(b) || on(portCAPWAP) && b[0] == 0 {
			return tunnelCAPWAP
		}
	case on(portGTP):
		// Version 1, not prime, a user's packet.
		if b[0]&0xf0 == 0x30 && b[1] == 0xff && int(word&0xffff)+8 <= len(b)+missing {
			return tunnelGTP
		}
	case on(portL2TP):
		// Version 2, data, and no bit that means nothing.
		if word>>16&0xb4ff == 2 {
			return tunnelL2TP
		}
	case on(portVXLAN) || on(portVXLANLinux):
		if b[0]&0x08 != 0 {
			return tunnelVXLAN
		}
	case on(portVXLANGPE):
		// The flag for the protocol field is not set by everybody.
		if b[0]&0x08 != 0 {
			return tunnelVXLANGPE
		}
	case on(portGENEVE):
		if b[0]&0xc0 == 0 {
			return tunnelGENEVE
		}
	case on(portLISP):
		if plausibleIP(b[8:], missing) {
			return tunnelLISP
		}
	case p.DstPort == portMPLS:
		if n := labels(b); n > 0 && d.plausibleUnmarked(b[n:], missing) {
			return tunnelMPLS
		}
	case p.DstPort == portGRE:
		if proto := word & 0xffff; word>>16&^0xb000 == 0 && (proto == etherIPv4 || proto == etherIPv6 || proto >= 1536) {
			return tunnelGRE
		}
	case on(portSCTP):
		if plausibleSCTP(b, missing) {
			return tunnelSCTP
		}
	case p.DstPort == portTZSP:
		if b[0] == 1 && b[1] <= 1 {
			return tunnelTZSP
		}
	}
	switch {
	case word == 0x08000000 && b[7] == 0:
		if d.plausibleEthernet(b[8:], missing) {
			return tunnelVXLAN
		}
	case word&^7 == 0x0c000000 && b[7] == 0:
		if plausibleIP(b[8:], missing) || d.plausibleEthernet(b[8:], missing) {
			return tunnelVXLANGPE
		}
	case b[0]&0xc0 == 0 && b[1]&0x3f == 0 && b[7] == 0:
		header := 8 + int(b[0])*4
		if header > len(b) {
			return noTunnel
		}
		switch proto := word & 0xffff; {
		case proto == etherBridging && d.plausibleEthernet(b[header:], missing),
			(proto == etherIPv4 || proto == etherIPv6) && plausibleIP(b[header:], missing):
			return tunnelGENEVE
		}
	}
	if at := teredoStart(b); at >= 0 && plausibleIP(b[at:], missing) {
		b = b[at:]
		const prefix = 0x20010000 // RFC 4380, section 2.6
		if on(portTeredo) || binary.BigEndian.Uint32(b[8:]) == prefix || binary.BigEndian.Uint32(b[24:]) == prefix {
			return tunnelTeredo
		}
	}
	return noTunnel
}

// overUDP reads the packet in a datagram of tunnel t.
func (d *Decoder) overUDP(t tunnel, p *Packet) Class {
	b, missing := p.Payload, p.Missing
	if t == tunnelCAPWAP && capwapDTLS(b) {
		// The flow is the datagram's own, in VLANs of its own.
		p.Payload = b[4:]
		if !p.tunnels.push(t) {
			return Malformed
		}
		return Datagram
	}
	switch t {
	case tunnelMPLS:
		return d.mpls(b, missing, p)
	case tunnelGRE:
		return d.gre(b, missing, p)
	}
	if t == tunnelSCTP { // between the same addresses, in the same VLANs
		if !p.tunnels.push(t) {
			return Malformed
		}
		return d.sctp(b, len(b)+missing, p)
	}
	if !p.enter(t) {
		return Malformed
	}
	switch t {
	case tunnelVXLAN:
		return d.ethernet(b[8:], missing, p)
	case tunnelVXLANGPE:
		if b[3] == 0 { // as in VXLAN
			return d.ethernet(b[8:], missing, p)
		}
		return d.carriedByNumber(b[3], b[8:], missing, p)
	case tunnelGENEVE: // RFC 8926, section 3.4
		header := 8 + int(b[0]&0x3f)*4
		if header > len(b) {
			return Malformed
		}
		if proto := binary.BigEndian.Uint16(b[2:]); proto != etherBridging {
			return d.ether(proto, b[header:], missing, p)
		}
		return d.ethernet(b[header:], missing, p)
	case tunnelGTP:
		return d.gtp(b, missing, p)
	case tunnelL2TP:
		return d.l2tp(b, missing, p)
	case tunnelTeredo:
		return d.ip(b[teredoStart(b):], missing, p)
	case tunnelCAPWAP:
		return d.capwap(b, missing, p)
	case tunnelLISP: // RFC 9300, section 5.3
		return d.ip(b[8:], missing, p)
	case tunnelTZSP:
		return d.tzsp(b, missing, p)
	}
	return NotIP
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
			return d.unmarked(b[header:], missing, p)
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

// capwapDTLS says whether a datagram of CAPWAP is protected: a preamble, then a
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
		if !d.fragments.add(p, piece{
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

// plausibleIP says whether b is an IP packet beyond what chance would make of
// other bytes. missing bytes would follow on b.
func plausibleIP(b []byte, missing int) bool {
	if len(b) < 20 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
		if header < 20 || header > len(b) || total < header || total > len(b)+missing {
			return false
		}
		sum := uint32(0)
		for i := 0; i < header; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		return sum>>16+sum&0xffff == 0xffff
	case 6:
		if len(b) < 40 {
			return false
		}
		size := int(binary.BigEndian.Uint16(b[4:]))
		return size > 0 && 40+size <= len(b)+missing
	}
	return false
}

// plausibleEthernet says the same of an Ethernet frame: it must carry IP.
func (d *Decoder) plausibleEthernet(b []byte, missing int) bool {
	if len(b) < 14 || b[6]&1 != 0 { // a group never sends
		return false
	}
	return d.leadsToIP(binary.BigEndian.Uint16(b[12:]), b[14:], missing)
}

// leadsToIP says the same of what follows an EtherType.
func (d *Decoder) leadsToIP(proto uint16, b []byte, missing int) bool {
	for range limitTags + 1 {
		n, known := 4, d.isVLAN(proto)
		if !known {
			n, known = d.tagLength(proto, b)
		}
		switch {
		case known && (n == 0 || len(b) < n):
			return false
		case known:
			proto, b = binary.BigEndian.Uint16(b[n-2:]), b[n:]
			continue
		}
		switch proto {
		case etherIPv4, etherIPv6:
			return plausibleIP(b, missing)
		case etherMPLS:
			n := labels(b)
			return n > 0 && plausibleIP(b[n:], missing)
		case etherPPPoE:
			if len(b) < 8 || b[0] != 0x11 || b[1] != 0 {
				return false
			}
			proto := binary.BigEndian.Uint16(b[6:])
			return (proto == pppIPv4 || proto == pppIPv6) && plausibleIP(b[8:], missing)
		}
		return false
	}
	return false
}
