package decode

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// Unread counts the frames in which no TCP, UDP or EAP was found, by what they
// carry instead. The zero value is ready.
type Unread struct {
	frames  map[content]uint64
	strange int // kinds that are not known to carry no TLS
}

// add counts a frame. What is not known to carry no TLS has limitUnread places,
// and all that finds none is counted as one.
func (u *Unread) add(c content, frames uint64) {
	if _, ok := u.frames[c]; !ok {
		if u.frames == nil {
			u.frames = map[content]uint64{}
		}
		if _, known := carrying[c]; !known {
			if u.strange == limitUnread {
				c = ofOthers
			} else {
				u.strange++
			}
		}
	}
	u.frames[c] += frames
}

// Add adds o to u.
func (u *Unread) Add(o Unread) {
	for _, c := range slices.Sorted(maps.Keys(o.frames)) {
		u.add(c, o.frames[c])
	}
}

// clone returns a copy that shares nothing with u.
func (u *Unread) clone() Unread { return Unread{maps.Clone(u.frames), u.strange} }

// Lists returns what is known to carry no TLS, and what may carry it and could
// not be read, the most frequent first. The names are with their numbers:
// "EtherType 0x88cc (LLDP)".
func (u *Unread) Lists() (none, unread []FrameCount) {
	for c, n := range u.frames {
		if _, known := carrying[c]; known {
			none = append(none, FrameCount{c.String(), n})
		} else {
			unread = append(unread, FrameCount{c.String(), n})
		}
	}
	slices.SortFunc(none, compareCounts)
	slices.SortFunc(unread, compareCounts)
	return none, unread
}

// content is what a frame or a packet was found to carry: where a number is,
// and the number.
type content uint64

// Where the numbers are from.
const (
	noContent content = iota << 48
	ofLink            // link types, of tcpdump.org
	ofEther           // EtherTypes, of IEEE 802
	ofLLC             // service access points of IEEE 802.2
	ofSNAP            // an organisation's protocols, behind SNAP: 3 and 2 bytes
	ofPPP             // PPP's, of IANA
	ofIP              // IP's, of IANA
	ofSCTP            // types of SCTP's chunks, of IANA
	ofIPVersion
	ofNLPID   // ISO's, in Frame Relay
	ofNSH     // next protocols of NSH and VXLAN-GPE, of IANA
	ofWLAN    // the kinds below
	ofCapture // records of a capture format that hold no frame; the number is its link type
	ofOthers  // all that found no room

	numberOf = 1<<48 - 1
)

// The kinds of frames of 802.11.
const (
	wlanControl   = iota // management and control, and data frames without data
	wlanEncrypted        // WEP, TKIP, CCMP, GCMP
)

// carrying names what is known to carry no TLS. A frame of it is not lost.
var carrying = map[content]string{
	ofEther | 0x0806: "ARP", ofEther | 0x8035: "RARP", ofEther | 0x0842: "Wake-on-LAN",
	ofEther | 0x88cc: "LLDP", ofEther | 0x8809: "slow protocols, LACP", ofEther | 0x9000: "configuration test",
	ofEther | 0x8863: "PPPoE discovery", ofEther | 0x888e: "EAPOL without EAP", ofEther | 0x88c7: "preauthentication without EAP",
	ofEther | 0x88f7: "PTP", ofEther | 0x8902: "CFM", ofEther | 0x88ee: "E-LMI", ofEther | 0x8808: "flow control",
	ofEther | 0x8906: "FCoE", ofEther | 0x8914: "FIP", ofEther | 0x88a2: "ATA over Ethernet", ofEther | 0x8915: "RoCE",
	ofEther | 0x88b8: "GOOSE", ofEther | 0x88b9: "GSE", ofEther | 0x88ba: "sampled values",
	ofEther | 0x8892: "PROFINET", ofEther | 0x88a4: "EtherCAT", ofEther | 0x88ab: "Powerlink", ofEther | 0x88cd: "SERCOS III",
	ofEther | 0x88e3: "MRP", ofEther | 0x88fb: "PRP and HSR supervision", ofEther | 0x88f5: "MVRP", ofEther | 0x88f6: "MMRP",
	ofEther | 0x22ea: "MSRP", ofEther | 0x22f0: "AVTP", ofEther | 0x22f4: "IS-IS", ofEther | 0x8946: "RBridge channel",
	ofEther | 0x893a: "IEEE 1905", ofEther | 0x8940: "ECP", ofEther | 0x88d9: "LLTD", ofEther | 0x890d: "802.11 over Ethernet",
	ofEther | 0x887b: "HomePlug", ofEther | 0x88e1: "HomePlug AV", ofEther | 0x8912: "HomePlug AV2", ofEther | 0x8899: "Realtek",
	ofEther | 0x88bf: "RoMON", ofEther | 0x8137: "IPX", ofEther | 0x809b: "AppleTalk", ofEther | 0x80f3: "AARP",
	ofEther | 0x6001: "DEC MOP", ofEther | 0x6002: "DEC MOP", ofEther | 0x6003: "DECnet", ofEther | 0x6004: "DEC LAT",
	ofEther | 0x8038: "DEC spanning tree",

	ofLLC | 0x00: "test", ofLLC | 0x42: "STP", ofLLC | 0xfe: "ISO, IS-IS", ofLLC | 0xf0: "NetBIOS", ofLLC | 0xe0: "IPX", ofLLC | 0xff: "IPX",
	ofLLC | 0x04: "SNA", ofLLC | 0x08: "SNA", ofLLC | 0x0c: "SNA", ofLLC | 0xf4: "LAN management", ofLLC | 0x80: "XNS", ofLLC | 0xbc: "VINES",
	ofSNAP | 0x00000c_2000: "CDP", ofSNAP | 0x00000c_2003: "VTP", ofSNAP | 0x00000c_2004: "DTP", ofSNAP | 0x00000c_0104: "PAgP",
	ofSNAP | 0x00000c_0111: "UDLD", ofSNAP | 0x00000c_010b: "PVST+", ofSNAP | 0x00000c_010c: "VLAN bridge", ofSNAP | 0x00e02b_00bb: "EDP",
	ofSNAP | 0x080007_809b: "AppleTalk", ofSNAP | 0x00e0fe_2000: "FDP", ofSNAP | 0x000081_01a2: "SONMP", ofSNAP | 0x000081_01a1: "SONMP",

	ofNLPID | 0x08: "Q.933", ofNLPID | 0x09: "LMI", ofNLPID | 0x82: "ES-IS", ofNLPID | 0x83: "IS-IS", ofNLPID | 0xb1: "FRF.12",

	ofPPP | 0xc021: "LCP", ofPPP | 0xc023: "PAP", ofPPP | 0xc025: "LQR", ofPPP | 0xc223: "CHAP", ofPPP | 0x8021: "IPCP", ofPPP | 0x8057: "IPV6CP",
	ofPPP | 0x80fd: "CCP", ofPPP | 0x8281: "MPLSCP", ofPPP | 0x8053: "ECP", ofPPP | 0xc029: "CBCP", ofPPP | 0x8207: "CDPCP",

	ofIP | 1: "ICMP", ofIP | 2: "IGMP", ofIP | 8: "EGP", ofIP | 9: "IGRP", ofIP | 46: "RSVP", ofIP | 54: "NHRP", ofIP | 58: "ICMPv6", ofIP | 59: "no next header",
	ofIP | 88: "EIGRP", ofIP | 89: "OSPF", ofIP | 103: "PIM", ofIP | 112: "VRRP", ofIP | 113: "PGM", ofIP | 124: "IS-IS",
	ofIP | protoSCTP: "SCTP without a user message",

	ofWLAN | wlanControl: "802.11 management and control",
}

// hiding names what may carry TLS that cannot be read.
var hiding = map[content]string{
	ofEther | ethertype.MACsec: "MACsec, encrypted", ofEther | ethertype.MPLS: "MPLS of neither IP nor Ethernet", ofEther | ethertype.Arista: "Arista's, of another subtype", ofEther | 0x4305: "batman-adv", ofEther | 0x22e5: "Gigamon",
	ofLLC | 0xaa: "SNAP, cut", ofLLC | 0x06: "IP, cut",
	ofPPP | 0x00fd: "compressed or encrypted", ofPPP | 0x003d: "multilink", ofPPP | 0x0053: "encrypted", ofPPP | 0xc227: "EAP",
	ofPPP | 0x002d: "TCP with compressed headers", ofPPP | 0x002f: "TCP with compressed headers",
	ofIP | 33: "DCCP", ofIP | protoGRE: "GRE of another version", ofIP | 50: "ESP, encrypted", ofIP | 55: "minimal encapsulation", ofIP | 94: "IPIP", ofIP | 108: "IPComp",
	ofSCTP | 64: "I-DATA",
	ofIP | 115:  "L2TPv3", ofIP | 136: "UDP-Lite",
}

// String names c with its number.
func (c content) String() string {
	n := uint64(c & numberOf)
	var s string
	switch c &^ numberOf {
	case ofLink:
		s = fmt.Sprintf("link type %d", n)
	case ofEther:
		s = fmt.Sprintf("EtherType %#04x", n)
	case ofLLC:
		s = fmt.Sprintf("LLC %#02x", n)
	case ofSNAP:
		s = fmt.Sprintf("SNAP %02x-%02x-%02x %#04x", n>>32&0xff, n>>24&0xff, n>>16&0xff, n&0xffff)
	case ofPPP:
		s = fmt.Sprintf("PPP %#04x", n)
	case ofIP:
		s = fmt.Sprintf("IP protocol %d", n)
	case ofSCTP:
		s = fmt.Sprintf("SCTP chunk %d", n)
	case ofIPVersion:
		s = fmt.Sprintf("IP version %d", n)
	case ofNLPID:
		s = fmt.Sprintf("NLPID %#02x", n)
	case ofNSH:
		s = fmt.Sprintf("NSH %d", n)
	case ofWLAN:
		return [...]string{wlanControl: "802.11 management and control", wlanEncrypted: "802.11, encrypted"}[n]
	case ofCapture:
		s = fmt.Sprintf("records of link type %d that hold no packet", n)
	default:
		return "others"
	}
	if name := cmp.Or(carrying[c], hiding[c]); name != "" {
		s += " (" + name + ")"
	}
	return s
}

// carries notes what was found in the place of a packet, for the count of the
// frame if nothing else comes of it.
func (d *Decoder) carries(c content) Class {
	d.content = c
	if kind := c &^ numberOf; kind == ofIP || kind == ofSCTP {
		return OtherIP
	}
	return NotIP
}

// carriesNone reports whether b is an Ethernet frame of a kind that is known to
// carry no TLS.
func carriesNone(b []byte) bool {
	if len(b) < 15 || b[6]&1 != 0 { // a group never sends
		return false
	}
	c := ofEther | content(binary.BigEndian.Uint16(b[12:]))
	if c <= ofEther|1500 {
		c = ofLLC | content(b[14]&^1)
	}
	_, known := carrying[c]
	return known
}
