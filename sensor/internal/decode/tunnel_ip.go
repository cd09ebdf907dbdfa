package decode

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// tunnelName is the name of a tunnel in one byte, since each packet has room for
// several and is copied where it may be in a tunnel; 0 is none.
type tunnelName uint8

// tunnelNames is the names by their numbers.
var tunnelNames = []string{""}

// named gives the next number to a name. It is called while the package is
// initialised, and not later.
func named(name string) tunnelName {
	tunnelNames = append(tunnelNames, name)
	return tunnelName(len(tunnelNames) - 1)
}

// The tunnels over IP and Ethernet. Those over UDP are in udpTunnels.
var (
	ipip       = named("ipip")
	ip4in6     = named("4in6")
	ip6in4     = named("6in4")
	ip6in6     = named("6in6")
	gre        = named("gre")
	nvgre      = named("nvgre")
	pptp       = named("pptp")
	erspan     = named("erspan")
	etherIP    = named("etherip")
	ethernetIP = named("ethernet")
	mpls       = named("mpls")
	pppoe      = named("pppoe")
	pbb        = named("pbb")
	fabricPath = named("fabricpath")
	trill      = named("trill")
	nsh        = named("nsh")
)

// tunnels is the tunnels around a packet, outermost first, 0 after the last.
type tunnels [limitTunnels]tunnelName

// push adds a tunnel, and reports whether there was room.
func (t *tunnels) push(name tunnelName) bool {
	for i := range t {
		if t[i] == 0 {
			t[i] = name
			return true
		}
	}
	return false
}

// list returns the names, nil where there are none.
func (t *tunnels) list() (names []string) {
	for _, name := range t {
		if name != 0 {
			names = append(names, tunnelNames[name])
		}
	}
	return names
}

// enter goes on in a packet that is carried in the tunnel of that name, and
// reports whether the limit allows it. The VLANs so far are those of the tunnel's
// own way through the network: they do not belong to what tells the inner flow
// from others. The identifiers of tunnels (VNI, key, TEID, labels) do not belong
// to it either, so that a flow is one flow where its directions take different
// tunnels, or only one of them takes a tunnel.
func (p *Packet) enter(name tunnelName) bool {
	p.tags, p.vlan = 0, 0
	return p.tunnels.push(name)
}

// etherPayload reads what follows the rarer EtherTypes.
func (d *Decoder) etherPayload(proto uint16, b []byte, missing int, p *Packet) Class {
	switch proto {
	case ethertype.MPLS, ethertype.MPLSMulticast:
		return d.mpls(b, missing, p)
	case ethertype.PPPoE:
		return d.pppoe(b, missing, p)
	case ethertype.PBB: // priority and service identifier, then the customer's frame
		if len(b) < 4 {
			return d.malformed(truncatedPBB)
		}
		if !p.enter(pbb) {
			return d.malformed(excessiveTunnels)
		}
		return d.ethernet(b[4:], missing, p)
	case ethertype.FabricPath: // a tree and a time to live, then the frame
		if len(b) < 2 {
			return d.malformed(truncatedFabricPath)
		}
		if !p.enter(fabricPath) {
			return d.malformed(excessiveTunnels)
		}
		return d.ethernet(b[2:], missing, p)
	case ethertype.TRILL:
		return d.trill(b, missing, p)
	case ethertype.NSH:
		return d.nsh(b, missing, p)
	case ethertype.JumboLLC:
		return d.llc(b, missing, p)
	case ethertype.EAPOL, ethertype.Preauth:
		return d.eapol(b, missing, p)
	}
	if proto <= 1500 {
		return d.llc(b, missing, p)
	}
	return d.carries(ofEther | content(proto))
}

// ipPayload reads an IP payload that is neither TCP nor UDP. size is the length
// on the wire of what begins at b.
func (d *Decoder) ipPayload(proto uint8, b []byte, size int, p *Packet) Class {
	missing := size - len(b)
	switch proto {
	case protoIPv4, protoIPv6:
		name := ipip
		switch {
		case proto == protoIPv4 && p.v6:
			name = ip4in6
		case proto == protoIPv6 && p.v6:
			name = ip6in6
		case proto == protoIPv6:
			name = ip6in4
		}
		if !p.enter(name) {
			return d.malformed(excessiveTunnels)
		}
		return d.ip(b, missing, p)
	case protoSCTP:
		return d.sctp(b, size, p)
	case protoGRE:
		return d.gre(b, missing, p)
	case protoMPLS: // RFC 4023
		return d.mpls(b, missing, p)
	case protoEtherIP: // RFC 3378
		if len(b) < 2 || b[0]>>4 != 3 {
			return d.malformed(badEtherIP)
		}
		if !p.enter(etherIP) {
			return d.malformed(excessiveTunnels)
		}
		return d.ethernet(b[2:], missing, p)
	case protoEthernet:
		if !p.enter(ethernetIP) {
			return d.malformed(excessiveTunnels)
		}
		return d.ethernet(b, missing, p)
	case protoNSH:
		return d.nsh(b, missing, p)
	case protoAH: // RFC 4302: authenticated, not encrypted
		if len(b) < 12 {
			return d.malformed(badAH)
		}
		header := (int(b[1]) + 2) * 4
		if header > len(b) || b[0] == protoAH {
			return d.malformed(badAH)
		}
		return d.transport(b[0], b[header:], size-header, p)
	}
	return d.carries(ofIP | content(proto))
}

// trill reads the header of TRILL (RFC 6325, section 3.2).
func (d *Decoder) trill(b []byte, missing int, p *Packet) Class {
	if len(b) < 6 {
		return d.malformed(badTRILL)
	}
	header := 6 + int(binary.BigEndian.Uint16(b)>>6&0x1f)*4
	if header > len(b) {
		return d.malformed(badTRILL)
	}
	if !p.enter(trill) {
		return d.malformed(excessiveTunnels)
	}
	return d.ethernet(b[header:], missing, p)
}

// nsh reads the network service header (RFC 8300, section 2).
func (d *Decoder) nsh(b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return d.malformed(badNSH)
	}
	header := int(b[1]&0x3f) * 4
	if header < 8 || header > len(b) {
		return d.malformed(badNSH)
	}
	if !p.enter(nsh) {
		return d.malformed(excessiveTunnels)
	}
	return d.nextProtocol(b[3], b[header:], missing, p)
}

// nextProtocol reads what the next protocol of an NSH header, or of VXLAN's
// generic protocol extension, says: the two have the same numbers.
func (d *Decoder) nextProtocol(next uint8, b []byte, missing int, p *Packet) Class {
	const typeIPv4, typeIPv6, typeEthernet, typeNSH, typeMPLS = 1, 2, 3, 4, 5
	switch next {
	case typeIPv4, typeIPv6:
		return d.ip(b, missing, p)
	case typeEthernet:
		return d.ethernet(b, missing, p)
	case typeNSH:
		return d.nsh(b, missing, p)
	case typeMPLS:
		return d.mpls(b, missing, p)
	}
	return d.carries(ofNSH | content(next))
}

// pppoe reads the session stage of PPPoE (RFC 2516, section 4).
func (d *Decoder) pppoe(b []byte, missing int, p *Packet) Class {
	if len(b) < 6 || b[0] != 0x11 || b[1] != 0 {
		return d.malformed(badPPPoE)
	}
	if !p.enter(pppoe) {
		return d.malformed(excessiveTunnels)
	}
	return d.pointToPoint(b[6:], missing, p)
}

// mpls reads a label stack (RFC 3032, section 2.1) and what is below it.
func (d *Decoder) mpls(b []byte, missing int, p *Packet) Class {
	n := labels(b)
	if n == 0 {
		return d.malformed(badMPLS)
	}
	if !p.enter(mpls) {
		return d.malformed(excessiveTunnels)
	}
	return d.untyped(b[n:], missing, p)
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

// untyped reads a payload whose type no header gives, as below MPLS: IP by its
// version nibble, or an Ethernet frame, with the control word of a pseudowire
// (RFC 4448, section 4.6) or without. An address may begin like an IP header or
// like a control word, so that what lies deeper decides.
func (d *Decoder) untyped(b []byte, missing int, p *Packet) Class {
	if len(b) < 4 {
		return d.malformed(truncatedMPLS)
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
	return d.carries(ofEther | ethertype.MPLS)
}

// plausibleUntyped reports whether untyped would find IP in b, beyond chance.
func (d *Decoder) plausibleUntyped(b []byte, missing int) bool {
	return plausibleIP(b, missing) || d.plausibleEthernet(b, missing) ||
		len(b) >= 4 && b[0]>>4 == 0 && d.plausibleEthernet(b[4:], missing)
}

// gre reads GRE (RFC 2784, RFC 2890), its second version in PPTP (RFC 2637,
// section 4.1), and what mirror ports and overlays put in it. GRE with a key and
// an Ethernet frame is what NVGRE looks like (RFC 7637, section 3.2).
func (d *Decoder) gre(b []byte, missing int, p *Packet) Class {
	if len(b) < 4 {
		return d.malformed(truncatedGRE)
	}
	const checksum, routing, key, sequence, acknowledgement, version = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080, 0x0007
	flags, proto := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	header, name := 4, gre
	for _, field := range [...]uint16{checksum, key, sequence} {
		if flags&field != 0 {
			header += 4
		}
	}
	switch {
	case flags&version == 1 && proto == ethertype.PPP:
		name = pptp
		if flags&acknowledgement != 0 {
			header += 4
		}
	case flags&(version|routing) != 0:
		return d.carries(ofIP | protoGRE)
	case proto == ethertype.ERSPAN || proto == ethertype.ERSPAN3:
		name = erspan
	case proto == ethertype.Bridging && flags == key:
		name = nvgre
	}
	if header > len(b) {
		return d.malformed(truncatedGRE)
	}
	if !p.enter(name) {
		return d.malformed(excessiveTunnels)
	}
	b = b[header:]
	switch proto {
	case ethertype.Bridging:
		return d.ethernet(b, missing, p)
	case ethertype.PPP:
		if len(b) == 0 { // an acknowledgement alone
			return OtherIP
		}
		return d.pointToPoint(b, missing, p)
	case ethertype.WCCP: // its second version puts a word before the packet
		if len(b) >= 4 && b[0]>>4 != 4 {
			b = b[4:]
		}
		return d.ip(b, missing, p)
	case ethertype.ERSPAN, ethertype.ERSPAN3:
		return d.erspan(flags&sequence != 0, b, missing, p)
	}
	return d.ether(proto, b, missing, p)
}

// erspan reads what a switch mirrors in GRE. The header says its version itself:
// 1 is type II, 2 is type III, and GRE's EtherType is no help. Type I has no
// header, and no sequence number in GRE; but others leave that number out too.
func (d *Decoder) erspan(sequence bool, b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return d.malformed(truncatedERSPAN)
	}
	const typeIP = 2
	header, ip := 8, false
	if b[0]>>4 == 2 {
		if header = 12; len(b) < header {
			return d.malformed(truncatedERSPAN)
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
		return d.malformed(truncatedERSPAN)
	case ip:
		return d.ip(b[header:], missing, p)
	}
	return d.ethernet(b[header:], missing, p)
}
