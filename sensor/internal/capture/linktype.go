package capture

// Known reports whether frames of type t are understood. Sources yield no
// others.
func (t LinkType) Known() bool {
	switch t {
	case LinkNull, LinkEthernet, LinkPPP, LinkPPPoE, LinkRaw, LinkCiscoHDLC, Link80211, LinkFrameRelay, LinkLoop, LinkLinuxSLL,
		LinkPFLog, LinkPrism, LinkRadiotap, LinkAVS, LinkPPI, LinkIPv4, LinkIPv6, LinkLinuxSLL2, LinkTokenRing, LinkFDDI, LinkATM,
		LinkENC, LinkERF, LinkPPPDir, LinkHDLCDir, LinkFRelayDir, LinkNFLOG, LinkPKTAP:
		return true
	}
	return false
}

// foreign reports whether no network that carries IP has frames of type t: those
// of other buses and radios, which captures beside those of networks are of.
func (t LinkType) foreign() bool {
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

// canonical is the link type that frames of a file marked with t have. Files
// also come with the DLT of the capturing system where the two differ, and
// with types of the same layout.
func (t LinkType) canonical() LinkType {
	switch t {
	case 12, 14: // DLT_RAW of OpenBSD and of the others
		return LinkRaw
	// PPP_HDLC: PPP that always has its address and control bytes, or Cisco's
	// HDLC. PPP_PPPD: PPP as pppd captures it.
	case 50, 166:
		return LinkPPP
	case 149: // DLT_USER2, under which macOS had PKTAP before it had a number
		return LinkPKTAP
	}
	return t
}
