// Package linktype names the kinds of headers that captured frames begin with,
// as https://www.tcpdump.org/linktypes.html numbers them.
package linktype

import "fmt"

// Type is a number of that list.
type Type uint16

// The types that are understood.
const (
	Null       Type = 0   // BSD loopback: the address family in the byte order of the capturing host
	Ethernet   Type = 1   //
	TokenRing  Type = 6   // IEEE 802.5
	PPP        Type = 9   // with or without HDLC framing
	FDDI       Type = 10  //
	PPPoE      Type = 51  // from the header of PPPoE on
	ATM        Type = 100 // RFC 1483: an LLC header comes first
	Raw        Type = 101 // IPv4 or IPv6, as the version in the first 4 bits says
	CiscoHDLC  Type = 104 //
	IEEE80211  Type = 105 // IEEE 802.11
	FrameRelay Type = 107 //
	Loop       Type = 108 // OpenBSD loopback: the address family in network byte order
	ENC        Type = 109 // what a BSD has put into IPsec, or taken out of it
	LinuxSLL   Type = 113 // Linux cooked capture v1
	PFLog      Type = 117 // log of the packet filter of a BSD
	Prism      Type = 119 // 802.11 after the header of the Prism drivers
	Radiotap   Type = 127 // 802.11 after a radiotap header
	AVS        Type = 163 // 802.11 after an AVS header
	PPI        Type = 192 // any other type after a header of "per-packet information"
	ERF        Type = 197 // Endace's record header
	PPPDir     Type = 204 // PPP after a byte with the direction
	HDLCDir    Type = 205 // Cisco's HDLC, likewise
	FRelayDir  Type = 206 // Frame Relay, likewise
	IPv4       Type = 228 //
	IPv6       Type = 229 //
	NFLOG      Type = 239 // log of Linux's netfilter
	PKTAP      Type = 258 // any other type after macOS's header
	LinuxSLL2  Type = 276 // Linux cooked capture v2
)

// names are those of the list, without their common beginning.
var names = map[Type]string{
	Null:       "NULL",
	Ethernet:   "ETHERNET",
	TokenRing:  "IEEE802_5",
	PPP:        "PPP",
	FDDI:       "FDDI",
	PPPoE:      "PPP_ETHER",
	ATM:        "ATM_RFC1483",
	Raw:        "RAW",
	CiscoHDLC:  "C_HDLC",
	IEEE80211:  "IEEE802_11",
	FrameRelay: "FRELAY",
	Loop:       "LOOP",
	ENC:        "ENC",
	LinuxSLL:   "LINUX_SLL",
	PFLog:      "PFLOG",
	Prism:      "IEEE802_11_PRISM",
	Radiotap:   "IEEE802_11_RADIOTAP",
	AVS:        "IEEE802_11_AVS",
	PPI:        "PPI",
	ERF:        "ERF",
	PPPDir:     "PPP_WITH_DIR",
	HDLCDir:    "C_HDLC_WITH_DIR",
	FRelayDir:  "FRELAY_WITH_DIR",
	IPv4:       "IPV4",
	IPv6:       "IPV6",
	NFLOG:      "NFLOG",
	PKTAP:      "PKTAP",
	LinuxSLL2:  "LINUX_SLL2",
}

// Known reports whether frames of type t are understood.
func (t Type) Known() bool {
	_, ok := names[t]
	return ok
}

// String is the number of t, with its name if it is Known.
func (t Type) String() string {
	if name, ok := names[t]; ok {
		return fmt.Sprintf("%d (%s)", uint16(t), name)
	}
	return fmt.Sprint(uint16(t))
}

// NoNetwork reports whether t is a type of buses and radios on which there is no
// IP. Captures of them are found beside those of networks.
func (t Type) NoNetwork() bool {
	switch t {
	case 139, 140, 141, 142, // SS7
		187, 201, 251, 254, 255, 256, 272, // Bluetooth
		186, 189, 220, 249, 266, 288, 293, 294, 295, // USB
		190, 227, // CAN
		199, 209, 210, 211, 212, // IPMB, I2C, FlexRay, MOST, LIN
		231, 250, 253, 264: // D-Bus, serial lines, netlink, RFID
		return true
	}
	return false
}

// Canonical returns the type that frames have in a file that is marked with t.
// Some files are marked with the DLT of the capturing system where that differs
// from the list, and some types have the same layout.
func (t Type) Canonical() Type {
	switch t {
	case 12, 14: // DLT_RAW of OpenBSD and of the others
		return Raw
	// PPP_HDLC: PPP that always has its address and control bytes, or Cisco's
	// HDLC. PPP_PPPD: PPP as pppd captures it.
	case 50, 166:
		return PPP
	case 149: // DLT_USER2, under which macOS had PKTAP before it had a number
		return PKTAP
	}
	return t
}
