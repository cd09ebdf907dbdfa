package decode

import (
	"bytes"
	"encoding/binary"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// link reads a frame of type t.
func (d *Decoder) link(t linktype.Type, b []byte, missing int, p *Packet) Class {
	switch t {
	case linktype.Ethernet:
		return d.ethernet(b, missing, p)
	case linktype.Raw, linktype.IPv4, linktype.IPv6:
		return d.ip(b, missing, p)
	case linktype.Null, linktype.Loop:
		// The address family's number differs between systems, and its byte
		// order with the capturing host: the version nibble tells as much.
		if len(b) < 4 {
			return d.malformed(truncatedLinkHeader)
		}
		return d.ip(b[4:], missing, p)
	case linktype.LinuxSLL:
		if len(b) < 16 {
			return d.malformed(truncatedLinkHeader)
		}
		if binary.BigEndian.Uint16(b[4:]) == 6 {
			p.SrcMAC = (*[6]byte)(b[6:])
		}
		return d.ether(binary.BigEndian.Uint16(b[14:]), b[16:], missing, p)
	case linktype.LinuxSLL2:
		if len(b) < 20 {
			return d.malformed(truncatedLinkHeader)
		}
		if b[11] == 6 {
			p.SrcMAC = (*[6]byte)(b[12:])
		}
		return d.ether(binary.BigEndian.Uint16(b), b[20:], missing, p)
	case linktype.PPP:
		return d.pointToPoint(b, missing, p)
	case linktype.PPPoE:
		return d.pppoe(b, missing, p)
	case linktype.CiscoHDLC:
		return d.pointToPoint(b, missing, p)
	case linktype.FrameRelay:
		return d.frameRelay(b, missing, p)
	case linktype.PFLog:
		return d.pflog(b, missing, p)
	case linktype.IEEE80211:
		return d.wlan(b, missing, false, p)
	case linktype.Radiotap:
		return d.radiotap(b, missing, p)
	case linktype.Prism, linktype.AVS:
		return d.prism(b, missing, p)
	case linktype.PPI:
		return d.ppi(b, missing, p)
	case linktype.PKTAP:
		return d.pktap(b, missing, p)
	case linktype.NFLOG:
		return d.nflog(b, missing, p)
	case linktype.ERF:
		return d.erf(b, missing, p)
	case linktype.ENC: // address family, security parameters, flags
		if len(b) < 12 {
			return d.malformed(truncatedLinkHeader)
		}
		return d.ip(b[12:], missing, p)
	case linktype.ATM:
		return d.llc(b, missing, p)
	case linktype.FDDI:
		return d.ring(b, 1, missing, p)
	case linktype.TokenRing:
		return d.ring(b, 2, missing, p)
	case linktype.PPPDir, linktype.HDLCDir, linktype.FRelayDir:
		if len(b) < 1 {
			return d.malformed(truncatedLinkHeader)
		}
		if t == linktype.FRelayDir {
			return d.frameRelay(b[1:], missing, p)
		}
		return d.pointToPoint(b[1:], missing, p)
	}
	return d.carries(ofLink | content(t))
}

// pktap reads a frame behind the header of macOS, which says how long it is, and
// of what type the frame.
func (d *Decoder) pktap(b []byte, missing int, p *Packet) Class {
	if len(b) < 12 {
		return d.malformed(truncatedLinkHeader)
	}
	header, record, t := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	const packet = 1
	if header < 12 || uint64(header) > uint64(len(b)) {
		return d.malformed(badLinkHeader)
	}
	switch {
	case record != packet:
		return d.carries(ofCapture | content(linktype.PKTAP))
	case t > 0xffff, t == uint32(linktype.PKTAP), t == uint32(linktype.PPI):
		return d.carries(ofLink | content(t))
	}
	if t == 12 { // what the system calls raw IP
		t = uint32(linktype.Raw)
	}
	return d.link(linktype.Type(t), b[header:], missing, p)
}

// nflog reads what Linux's netfilter logs: fields in the byte order of the host,
// one of them the packet.
func (d *Decoder) nflog(b []byte, missing int, p *Packet) Class {
	const header, payload = 4, 9
	if len(b) < header || b[1] != 0 {
		return d.malformed(truncatedLinkHeader)
	}
	for b = b[header:]; len(b) >= 4; {
		n, kind := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if kind > 0xff { // of a big-endian host
			n, kind = int(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint16(b[2:])
		}
		if n < 4 {
			return d.malformed(badLinkHeader)
		}
		if kind == payload {
			return d.ip(b[4:min(n, len(b))], missing, p)
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return d.carries(ofCapture | content(linktype.NFLOG))
}

// erf reads Endace's record header, its extensions, and what it is of.
func (d *Decoder) erf(b []byte, missing int, p *Packet) Class {
	const header, kind, more = 16, 8, 0x80
	if len(b) < header {
		return d.malformed(truncatedLinkHeader)
	}
	t, extended := b[kind]&^more, b[kind]&more != 0
	for b = b[header:]; extended; b = b[8:] {
		if len(b) < 8 {
			return d.malformed(truncatedLinkHeader)
		}
		extended = b[0]&more != 0
	}
	switch t {
	case 2, 11, 16, 20: // Ethernet, behind an offset and padding
		if len(b) < 2 {
			return d.malformed(truncatedLinkHeader)
		}
		return d.ethernet(b[2:], missing, p)
	case 1, 10, 15, 19: // PPP or HDLC
		return d.pointToPoint(b, missing, p)
	case 22, 23:
		return d.ip(b, missing, p)
	}
	return d.carries(ofCapture | content(linktype.ERF))
}

// ring reads a frame of FDDI or a token ring, with control bytes before its
// addresses, and on a token ring perhaps the route behind them.
func (d *Decoder) ring(b []byte, control, missing int, p *Packet) Class {
	if len(b) < control+12+2 {
		return d.malformed(truncatedLinkHeader)
	}
	b = b[control:]
	dst, src := (*[6]byte)(b), (*[6]byte)(b[6:])
	p.DstMAC, p.SrcMAC = dst, src
	b = b[12:]
	if control == 2 && src[0]&0x80 != 0 {
		route := int(b[0] & 0x1f)
		if route < 2 || route > len(b) {
			return d.malformed(badLinkHeader)
		}
		b = b[route:]
	}
	return d.llc(b, missing, p)
}

// PPP protocol numbers (RFC 1661, section 2).
const (
	pppIPv4      = 0x0021
	pppIPv6      = 0x0057
	pppMPLS      = 0x0281
	pppMPLSMulti = 0x0283
)

// pointToPoint reads PPP (RFC 1661), with or without the address and control
// octets of RFC 1662, and Cisco's HDLC, which has others in their place. The
// protocol field of PPP may be compressed to one octet.
func (d *Decoder) pointToPoint(b []byte, missing int, p *Packet) Class {
	if len(b) >= 4 {
		switch {
		case (b[0] == 0x0f || b[0] == 0x8f) && b[1] == 0:
			return d.ether(binary.BigEndian.Uint16(b[2:]), b[4:], missing, p)
		// Where pppd captures, the address says which way the frame went.
		case (b[0] == 0xff || b[0] <= 1) && b[1] == 0x03:
			b = b[2:]
		}
	}
	if len(b) < 2 {
		return d.malformed(truncatedPPP)
	}
	proto := uint16(b[0])
	if b[0]&1 != 0 {
		b = b[1:]
	} else {
		proto = proto<<8 | uint16(b[1])
		b = b[2:]
	}
	switch proto {
	case pppIPv4, pppIPv6:
		return d.ip(b, missing, p)
	case pppMPLS, pppMPLSMulti:
		return d.mpls(b, missing, p)
	}
	return d.carries(ofPPP | content(proto))
}

// llc reads IEEE 802.2 headers: SNAP, or the number that IP itself has.
func (d *Decoder) llc(b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		if len(b) == 0 {
			return NotIP
		}
		return d.carries(ofLLC | content(b[0]))
	}
	switch {
	case b[0] == 0xaa && b[1] == 0xaa && b[2] == 0x03 && b[3] == 0 && b[4] == 0 && (b[5] == 0 || b[5] == 0xf8):
		// A tag may be followed by another length, and that by LLC again.
		if p.snaps == limitTags {
			return d.malformed(excessiveLLC)
		}
		p.snaps++
		return d.ether(binary.BigEndian.Uint16(b[6:]), b[8:], missing, p)
	case b[0] == 0x06 && b[1] == 0x06 && b[2] == 0x03:
		return d.ip(b[3:], missing, p)
	case b[0] == 0xaa && b[1] == 0xaa && b[2] == 0x03:
		return d.carries(ofSNAP | content(binary.BigEndian.Uint64(b)&0xff_ffff_ffff))
	}
	return d.carries(ofLLC | content(b[0]&^1)) // without the bit for a group
}

// frameRelay reads RFC 2427's encapsulation in Frame Relay, and Cisco's, which
// is an EtherType.
func (d *Decoder) frameRelay(b []byte, missing int, p *Packet) Class {
	address := 0
	for {
		if address >= min(len(b), 4) {
			return d.malformed(badFrameRelay)
		}
		address++
		if b[address-1]&1 != 0 { // the last octet of the address
			break
		}
	}
	b = b[address:]
	if len(b) < 4 {
		return d.malformed(badFrameRelay)
	}
	const unnumbered, ipv4, ipv6, snap = 0x03, 0xcc, 0x8e, 0x80
	if b[0] != unnumbered {
		return d.ether(binary.BigEndian.Uint16(b), b[2:], missing, p)
	}
	b = b[1:]
	if b[0] == 0 { // padding
		b = b[1:]
	}
	switch b[0] {
	case ipv4, ipv6:
		return d.ip(b[1:], missing, p)
	case snap:
		if len(b) < 6 {
			return d.malformed(badFrameRelay)
		}
		proto := binary.BigEndian.Uint16(b[4:])
		switch [3]byte(b[1:]) {
		case [3]byte{}:
			return d.ether(proto, b[6:], missing, p)
		case [3]byte{0x00, 0x80, 0xc2}: // bridged: Ethernet with its checksum, or without
			if proto == 1 || proto == 7 {
				return d.ethernet(b[6:], missing, p)
			}
		}
	}
	return d.carries(ofNLPID | content(b[0]))
}

// pflog reads what the packet filter of the BSDs logs: a header that says how
// long it is, without its padding.
func (d *Decoder) pflog(b []byte, missing int, p *Packet) Class {
	if len(b) < 4 {
		return d.malformed(truncatedLinkHeader)
	}
	header := (int(b[0]) + 3) &^ 3
	if header < 4 || header > len(b) {
		return d.malformed(badLinkHeader)
	}
	return d.ip(b[header:], missing, p)
}

// radiotap reads an 802.11 frame behind what the driver says of its reception
// (https://www.radiotap.org).
func (d *Decoder) radiotap(b []byte, missing int, p *Packet) Class {
	const timer, flags, more = 1 << 0, 1 << 1, 1 << 31
	const padded = 0x20
	if len(b) < 8 {
		return d.malformed(truncatedLinkHeader)
	}
	header := int(binary.LittleEndian.Uint16(b[2:]))
	if header < 8 || header > len(b) {
		return d.malformed(badLinkHeader)
	}
	// The fields follow on the words that say which there are.
	present := binary.LittleEndian.Uint32(b[4:])
	at := 8
	for word := present; word&more != 0; at += 4 {
		if at+4 > header {
			return d.malformed(badLinkHeader)
		}
		word = binary.LittleEndian.Uint32(b[at:])
	}
	if present&timer != 0 {
		at = (at+7)&^7 + 8
	}
	pad := present&flags != 0 && at < header && b[at]&padded != 0
	return d.wlan(b[header:], missing, pad, p)
}

// prism reads an 802.11 frame behind the header of the Prism drivers, or behind
// AVS's, which may come under the same number.
func (d *Decoder) prism(b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return d.malformed(truncatedLinkHeader)
	}
	header := binary.LittleEndian.Uint32(b[4:])
	if header > 1<<16 || binary.BigEndian.Uint32(b)&^0xfff == 0x80211000 {
		header = binary.BigEndian.Uint32(b[4:])
	}
	if header < 8 || uint64(header) > uint64(len(b)) {
		return d.malformed(badLinkHeader)
	}
	return d.wlan(b[header:], missing, false, p)
}

// ppi reads a frame behind the header of CACE's "per-packet information".
func (d *Decoder) ppi(b []byte, missing int, p *Packet) Class {
	if len(b) < 8 {
		return d.malformed(truncatedLinkHeader)
	}
	header, t := int(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])
	if header < 8 || header > len(b) {
		return d.malformed(badLinkHeader)
	}
	if t == uint32(linktype.PPI) || t > 0xffff {
		return d.carries(ofLink | content(t))
	}
	return d.link(linktype.Type(t), b[header:], missing, p)
}

// wlan reads an IEEE 802.11 frame (section 9.2 of the 2020 edition). The flag
// for protection is not looked at: controllers decrypt and leave it set, and
// where the LLC header can be read nothing is encrypted.
func (d *Decoder) wlan(b []byte, missing int, padded bool, p *Packet) Class {
	if len(b) < 2 {
		return d.malformed(truncatedWLAN)
	}
	const toDS, fromDS, moreFragments, protected, order = 0x01, 0x02, 0x04, 0x40, 0x80
	const versionAndType, data, qos, null = 0x0f, 0x08, 0x80, 0x40
	control, flags := b[0], b[1]
	// Cisco's access points swap the two on the way to their controller.
	if control&0x03 != 0 && flags&versionAndType == data {
		control, flags = flags, control
	}
	if control&versionAndType != data || control&null != 0 {
		return d.carries(ofWLAN | wlanControl)
	}
	header := 24
	if flags&(toDS|fromDS) == toDS|fromDS {
		header += 6
	}
	aggregated := false
	if control&qos != 0 {
		if len(b) > header {
			aggregated = b[header]&0x80 != 0
		}
		header += 2
		if flags&order != 0 {
			header += 4
		}
	}
	if padded {
		header = (header + 3) &^ 3
	}
	if len(b) < header {
		return d.malformed(truncatedWLAN)
	}
	// Cisco's access points number whole frames too.
	if flags&moreFragments != 0 || b[22]&0x0f != 0 && !bytes.HasPrefix(b[header:], []byte{0xaa, 0xaa, 0x03, 0, 0, 0}) {
		d.fragments.stats.Radio++
		return Fragment
	}
	address := func(n int) *[6]byte { return (*[6]byte)(b[[...]int{4, 10, 16, 24}[n]:]) }
	p.DstMAC, p.SrcMAC = address(0), address(1)
	switch flags & (toDS | fromDS) {
	case toDS:
		p.DstMAC = address(2)
	case fromDS:
		p.SrcMAC = address(2)
	case toDS | fromDS:
		p.DstMAC, p.SrcMAC = address(2), address(3)
	}
	read := d.llc
	if aggregated {
		read = d.aggregate
	}
	c := read(b[header:], missing, p)
	if c == NotIP && flags&protected != 0 {
		return d.carries(ofWLAN | wlanEncrypted)
	}
	return c
}

// aggregate reads the frames of an A-MSDU up to the first that holds a packet,
// and leaves the others to Next.
func (d *Decoder) aggregate(b []byte, missing int, p *Packet) Class {
	if d.aggregating { // one in a tunnel in one
		return d.malformed(nestedAMSDU)
	}
	d.aggregating = true
	defer func() { d.aggregating = false }()
	c, outer := NotIP, *p
	for len(b) >= 14 {
		*p = outer
		end := 14 + int(binary.BigEndian.Uint16(b[12:]))
		p.DstMAC, p.SrcMAC = (*[6]byte)(b), (*[6]byte)(b[6:])
		body, cut := b[14:min(end, len(b))], min(max(end-len(b), 0), missing)
		b = b[min((end+3)&^3, len(b)):]
		if c = d.llc(body, cut, p); c <= Datagram {
			d.rest, d.restCut, d.container = b, missing, outer
			break
		}
	}
	return c
}

// nextAggregated reads the next packet of an A-MSDU.
func (d *Decoder) nextAggregated(p *Packet) bool {
	b := d.rest
	*p = d.container
	d.rest, d.container = nil, Packet{}
	c := d.aggregate(b, d.restCut, p)
	if c > Datagram {
		return false
	}
	d.finish(p, c)
	return true
}
