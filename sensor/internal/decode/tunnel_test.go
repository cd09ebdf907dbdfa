package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// stackCase is a frame with the one test segment in it, and how it got there.
type stackCase struct {
	name    string
	link    linktype.Type
	data    []byte
	v6      bool
	vlan    string
	tunnels string
	mac     bool // the addresses of innerEthernet are those of the ends

	// Why gopacket does not find the segment. It is held to it.
	gopacket string
	// Why tshark does not, or the port and the protocol that it must be told.
	tshark string
}

var innerMACs = [2]net.HardwareAddr{{2, 0x11, 0x22, 0x33, 0x44, 0x55}, {2, 0x66, 0x77, 0x88, 0x99, 0xaa}}

func innerEthernet(proto layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: innerMACs[0], DstMAC: innerMACs[1], EthernetType: proto}
}

// outer is IPv4 or IPv6 between the ends of a tunnel.
func outer4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, Id: 77, SrcIP: net.IP{10, 9, 9, 1}, DstIP: net.IP{10, 9, 9, 2}}
}

func outer6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2")}
}

func port(ip gopacket.NetworkLayer, src, dst uint16) *layers.UDP {
	l := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	l.SetNetworkLayerForChecksum(ip)
	return l
}

// overUDP4 is a datagram between the ends of a tunnel.
func overUDP4(t testing.TB, src, dst uint16, parts ...[]byte) []byte {
	ip := outer4(layers.IPProtocolUDP)
	return build(t, ethernet(layers.EthernetTypeIPv4), ip, port(ip, src, dst), gopacket.Payload(bytes.Join(parts, nil)))
}

func overIP4(t testing.TB, proto layers.IPProtocol, parts ...[]byte) []byte {
	return build(t, ethernet(layers.EthernetTypeIPv4), outer4(proto), gopacket.Payload(bytes.Join(parts, nil)))
}

func overEther(t testing.TB, proto uint16, parts ...[]byte) []byte {
	return build(t, ethernet(layers.EthernetType(proto)), gopacket.Payload(bytes.Join(parts, nil)))
}

func hex(s string) []byte {
	var b []byte
	for _, f := range strings.Fields(s) {
		var v byte
		if _, err := fmt.Sscanf(f, "%02x", &v); err != nil {
			panic(err)
		}
		b = append(b, v)
	}
	return b
}

func le16(n int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(n)) }

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func stackCases(t testing.TB) []stackCase {
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
	ip4 := build(t, four, tcp(four), payload)
	ip6 := build(t, six, tcp(six), payload)
	eth4 := build(t, innerEthernet(layers.EthernetTypeIPv4), gopacket.Payload(ip4))
	eth6 := build(t, innerEthernet(layers.EthernetTypeIPv6), gopacket.Payload(ip6))
	tagged := build(t, innerEthernet(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 42, Type: layers.EthernetTypeIPv4}, gopacket.Payload(ip4))
	snap4, snap6 := append(hex("aa aa 03 00 00 00 08 00"), ip4...), append(hex("aa aa 03 00 00 00 86 dd"), ip6...)
	vxlan := hex("08 00 00 00 00 00 07 00")
	geneve := hex("00 00 65 58 00 00 07 00")
	gtp := func(flags byte, optional []byte, inner []byte) []byte {
		return slices.Concat([]byte{flags, 0xff}, be16(len(optional)+len(inner)), hex("00 00 00 09"), optional, inner)
	}
	toDS := slices.Concat(hex("08 01 00 00"), hex("02 00 00 00 00 02"), innerMACs[0], innerMACs[1], hex("10 00"))
	fromDS := slices.Concat(hex("88 02 00 00"), innerMACs[1], hex("02 00 00 00 00 02"), innerMACs[0], hex("20 00 05 00"))
	wds := slices.Concat(hex("08 03 00 00 02 00 00 00 00 02 02 00 00 00 00 03"), innerMACs[1], hex("30 00"), innerMACs[0])
	subframe := func(body []byte) []byte {
		b := slices.Concat(innerMACs[1], innerMACs[0], be16(len(body)), body)
		return append(b, make([]byte, -len(b)&3)...)
	}
	amsdu := slices.Concat(hex("88 01 00 00 02 00 00 00 00 02 02 11 22 33 44 55 02 00 00 00 00 02 40 00 80 00"),
		subframe(append(hex("aa aa 03 00 00 00 08 06 00 01 08 00 06 04 00 01"), make([]byte, 20)...)), subframe(snap4))
	teredo6 := bytes.Clone(ip6)
	copy(teredo6[8:], hex("20 01 00 00"))
	const e, i4, i6 = linktype.Ethernet, layers.EthernetTypeIPv4, layers.EthernetTypeIPv6
	udp4, udp6 := outer4(layers.IPProtocolUDP), outer6(layers.IPProtocolUDP)

	return []stackCase{
		// Link types.
		{name: "802.3 with SNAP", link: e, data: slices.Concat(hex("02 00 00 00 00 02 02 00 00 00 00 01"), be16(len(snap4)), snap4)},
		{name: "802.3 with SNAP, IPv6 in a VLAN", link: e, v6: true, vlan: "9",
			data:     slices.Concat(hex("02 00 00 00 00 02 02 00 00 00 00 01 81 00 00 09"), be16(len(snap6)), snap6),
			gopacket: "its 802.1Q takes the length for an EtherType"},
		{name: "802.3 with the SAP of IP", link: e, data: slices.Concat(hex("02 00 00 00 00 02 02 00 00 00 00 01"), be16(len(ip4)+3), hex("06 06 03"), ip4),
			gopacket: "its LLC knows no SAP of IP"},
		{name: "SLL with LLC", link: linktype.LinuxSLL, data: slices.Concat(hex("00 04 00 01 00 06 02 00 00 00 00 01 00 00 00 04"), snap4),
			gopacket: "its cooked capture knows EtherTypes only"},
		{name: "PPP over HDLC", link: linktype.PPP, data: slices.Concat(hex("ff 03 00 21"), ip4)},
		{name: "PPP as pppd captures it", link: linktype.PPP, data: slices.Concat(hex("01 03 00 57"), ip6), v6: true,
			gopacket: "its PPP takes the direction for the protocol", tshark: "another link type to it"},
		{name: "Cisco HDLC", link: linktype.CiscoHDLC, data: slices.Concat(hex("0f 00 08 00"), ip4), gopacket: "not known"},
		{name: "PPP under Cisco HDLC's number", link: linktype.CiscoHDLC, data: slices.Concat(hex("ff 03 00 21"), ip4), gopacket: "not known",
			tshark: "takes HDLC for granted"},
		{name: "PPPoE", link: linktype.PPPoE, data: slices.Concat(hex("11 00 00 07"), be16(len(ip4)+2), hex("00 21"), ip4), tunnels: "pppoe",
			gopacket: "not known", tshark: "not known"},
		{name: "Frame Relay", link: linktype.FrameRelay, data: slices.Concat(hex("18 41 03 cc"), ip4), gopacket: "not known"},
		{name: "Frame Relay, long address, IPv6", link: linktype.FrameRelay, data: slices.Concat(hex("18 40 40 01 03 00 8e"), ip6), v6: true,
			gopacket: "not known"},
		{name: "Frame Relay, SNAP", link: linktype.FrameRelay, data: slices.Concat(hex("18 41 03 00 80 00 00 00 08 00"), ip4), gopacket: "not known"},
		{name: "Frame Relay, bridged", link: linktype.FrameRelay, data: slices.Concat(hex("18 41 03 00 80 00 80 c2 00 07"), eth4), mac: true, gopacket: "not known"},
		{name: "Frame Relay of Cisco", link: linktype.FrameRelay, data: slices.Concat(hex("18 41 08 00"), ip4), gopacket: "not known",
			tshark: "only by a preference"},
		{name: "pflog", link: linktype.PFLog, data: slices.Concat(hex("3d 02 00 00"), make([]byte, 60), ip4)},
		{name: "802.11, to the network", link: linktype.IEEE80211, data: slices.Concat(toDS, snap4), mac: true, gopacket: "it takes the last four bytes for a checksum"},
		{name: "802.11, from the network, QoS", link: linktype.IEEE80211, data: slices.Concat(fromDS, snap6), mac: true, v6: true, gopacket: "it takes the last four bytes for a checksum"},
		{name: "802.11, four addresses", link: linktype.IEEE80211, data: slices.Concat(wds, snap4), mac: true, gopacket: "it takes the last four bytes for a checksum"},
		{name: "802.11, A-MSDU", link: linktype.IEEE80211, data: amsdu, mac: true, gopacket: "it knows no A-MSDU"},
		{name: "radiotap", link: linktype.Radiotap, data: slices.Concat(hex("00 00 09 00 02 00 00 00 00"), toDS, snap4), mac: true},
		{name: "radiotap, timer and padding", link: linktype.Radiotap,
			data: slices.Concat(hex("00 00 11 00 03 00 00 00"), make([]byte, 8), hex("20"), fromDS, hex("00 00"), snap6), mac: true, v6: true},
		{name: "radiotap, two words of presence", link: linktype.Radiotap,
			data: slices.Concat(hex("00 00 0d 00 02 00 00 80 00 00 00 00 20"), fromDS, hex("00 00"), snap6), mac: true, v6: true},
		{name: "Prism", link: linktype.Prism, data: slices.Concat(hex("44 00 00 00 90 00 00 00"), make([]byte, 0x88), toDS, snap4), mac: true,
			gopacket: "it takes the last four bytes for a checksum"},
		{name: "AVS", link: linktype.AVS, data: slices.Concat(hex("80 21 10 01 00 00 00 40"), make([]byte, 0x38), toDS, snap4), mac: true, gopacket: "not known"},
		{name: "PPI", link: linktype.PPI, data: slices.Concat(hex("00 00 08 00 69 00 00 00"), toDS, snap4), mac: true, gopacket: "not known"},
		{name: "PKTAP", link: linktype.PKTAP, data: slices.Concat(hex("6c 00 00 00 01 00 00 00 01 00 00 00"), make([]byte, 96), eth4), mac: true, tshark: "pcapgo cannot write its number"},
		{name: "PKTAP of raw IP", link: linktype.PKTAP, data: slices.Concat(hex("6c 00 00 00 01 00 00 00 0c 00 00 00"), make([]byte, 96), ip6), v6: true, tshark: "pcapgo cannot write its number"},
		{name: "NFLOG", link: linktype.NFLOG, gopacket: "not known",
			data: slices.Concat(hex("02 00 00 05 08 00 01 00 08 00 01 00 05 00 0a 00 61 00 00 00"), le16(len(ip4)+4), hex("09 00"), ip4)},
		{name: "ENC", link: linktype.ENC, data: slices.Concat(hex("02 00 00 00 00 00 10 01 00 00 00 02"), ip4), gopacket: "not known"},
		{name: "RFC 1483", link: linktype.ATM, data: snap6, v6: true, gopacket: "not known"},
		{name: "ERF", link: linktype.ERF, mac: true, gopacket: "not known",
			data: slices.Concat(make([]byte, 8), hex("02 04"), be16(18+len(eth4)), hex("00 00"), be16(len(eth4)), hex("00 00"), eth4)},
		{name: "ERF with an extension", link: linktype.ERF, mac: true, gopacket: "not known",
			data: slices.Concat(make([]byte, 8), hex("82 04"), be16(26+len(eth4)), hex("00 00"), be16(len(eth4)), hex("03 00 00 00 00 00 00 00 00 00"), eth4)},
		{name: "PPP with a direction", link: linktype.PPPDir, data: slices.Concat(hex("01 ff 03 00 21"), ip4), gopacket: "not known"},
		{name: "Cisco HDLC with a direction", link: linktype.HDLCDir, data: slices.Concat(hex("01 0f 00 08 00"), ip4), gopacket: "not known", tshark: "not known"},
		{name: "Frame Relay with a direction", link: linktype.FRelayDir, data: slices.Concat(hex("01 18 41 03 cc"), ip4), gopacket: "not known", tshark: "not known"},
		{name: "FDDI", link: linktype.FDDI, data: slices.Concat(hex("50"), innerMACs[1], innerMACs[0], snap4), mac: true},
		{name: "Token Ring", link: linktype.TokenRing, data: slices.Concat(hex("10 40"), innerMACs[1], innerMACs[0], snap4), mac: true, gopacket: "not known"},
		{name: "Token Ring with a route", link: linktype.TokenRing, gopacket: "not known",
			data: slices.Concat(hex("10 40"), innerMACs[1], hex("82 11 22 33 44 55 06 30 00 11 00 20"), snap4)},

		// Tags and tunnels below IP.
		{name: "Cisco's metadata", link: e, data: overEther(t, 0x8909, hex("01 01 00 01 00 07 08 00"), ip4), gopacket: "not known"},
		{name: "VLAN and metadata", link: e, data: overEther(t, 0x8100, hex("00 05 89 09 01 01 00 01 00 07 86 dd"), ip6), v6: true, vlan: "5", gopacket: "not known"},
		{name: "MACsec without encryption", link: e, data: overEther(t, 0x88e5, hex("00 00 00 00 00 01 08 00"), ip4, make([]byte, 16)), gopacket: "not known"},
		{name: "MACsec without encryption, explicit channel", link: e,
			data: overEther(t, 0x88e5, hex("20 00 00 00 00 01 02 00 00 00 00 01 00 01 81 00 00 03 08 00"), ip4, make([]byte, 16)), vlan: "3", gopacket: "not known"},
		{name: "VN-Tag", link: e, data: overEther(t, 0x8926, hex("80 01 00 02 08 00"), ip4), gopacket: "not known"},
		{name: "VN-Tag and a VLAN", link: e, data: overEther(t, 0x8926, hex("80 01 00 02 81 00 00 2a 86 dd"), ip6), v6: true, vlan: "42", gopacket: "not known"},
		{name: "E-Tag", link: e, data: overEther(t, 0x893f, hex("00 00 00 64 00 00 81 00 00 2a 08 00"), ip4), vlan: "42", gopacket: "not known"},
		{name: "HSR", link: e, data: overEther(t, 0x892f, be16(len(ip4)+6), hex("00 07 08 00"), ip4), gopacket: "not known"},
		{name: "HSR in a VLAN", link: e, data: overEther(t, 0x8100, hex("00 05 89 2f"), be16(len(ip6)+6), hex("00 07 86 dd"), ip6), v6: true, vlan: "5", gopacket: "not known"},
		{name: "PRP", link: e, data: overEther(t, 0x0800, ip4, hex("00 07 a0"), be16(len(ip4) + 6)[1:], hex("88 fb"))},
		{name: "R-Tag", link: e, data: overEther(t, 0x8100, hex("00 05 f1 c1 00 00 00 07 08 00"), ip4), vlan: "5", gopacket: "not known"},
		{name: "TTAG", link: e, data: overEther(t, 0x8988, hex("01 02 03 04 08 00"), ip4), gopacket: "not known", tshark: "not known"},
		{name: "TTAG of 48 bits", link: e, data: overEther(t, 0x8988, hex("01 02 03 04 08 00 86 dd"), ip6), v6: true, gopacket: "not known", tshark: "not known"},
		{name: "TTAG of 64 bits in a VLAN", link: e, data: overEther(t, 0x8100, hex("00 05 89 88 01 02 03 04 05 06 07 08 81 00 00 2a 08 00"), ip4), vlan: "5 42",
			gopacket: "not known", tshark: "not known"},
		{name: "Arista's time stamp", link: e, data: overEther(t, 0xd28b, hex("00 01 00 10 00 00 00 01 00 00 00 02 08 00"), ip4), gopacket: "not known"},
		{name: "Arista's time stamp of 48 bits", link: e, data: overEther(t, 0xd28b, hex("00 01 01 20 00 01 00 00 00 02 81 00 00 2a 86 dd"), ip6), v6: true, vlan: "42", gopacket: "not known"},
		{name: "a trailer with a time stamp", link: e, data: overEther(t, 0x0800, ip4, hex("53 00 00 01 00 00 00 02 00 2a 05"))},
		{name: "QinQ before its number, 0x9200", link: e, data: overEther(t, 0x9200, hex("00 05 81 00 00 2a 08 00"), ip4), vlan: "5 42", gopacket: "not known", tshark: "not known"},
		{name: "QinQ before its number, 0x9300", link: e, data: overEther(t, 0x9300, hex("00 05 86 dd"), ip6), v6: true, vlan: "5", gopacket: "not known", tshark: "not known"},
		{name: "FabricPath", link: e, data: overEther(t, 0x8903, hex("00 60"), tagged), tunnels: "fabricpath", vlan: "42", mac: true, gopacket: "not known",
			tshark: "wants addresses of FabricPath's own"},
		{name: "TRILL", link: e, data: overEther(t, 0x22f3, hex("00 45 00 02 00 01 00 00 00 00"), eth6), tunnels: "trill", v6: true, mac: true, gopacket: "not known"},
		{name: "NSH", link: e, data: overEther(t, 0x894f, hex("0f c6 01 03 00 00 01 ff"), make([]byte, 16), tagged), tunnels: "nsh", vlan: "42", mac: true, gopacket: "not known"},
		{name: "NSH of IPv6", link: e, data: overEther(t, 0x894f, hex("0f c3 02 02 00 00 01 ff 00 00 00 00"), ip6), tunnels: "nsh", v6: true, gopacket: "not known"},
		{name: "NSH of MPLS", link: e, data: overEther(t, 0x8100, hex("00 05 89 4f 0f c2 02 05 00 00 01 ff 00 01 21 40"), ip4), tunnels: "nsh mpls", gopacket: "not known"},
		{name: "LLC in a jumbo frame", link: e, data: overEther(t, 0x8870, snap4), gopacket: "not known"},
		{name: "PBB", link: e, data: overEther(t, 0x88a8, hex("00 64 88 e7 00 01 e2 40"), tagged), vlan: "42", tunnels: "pbb", mac: true, gopacket: "not known"},
		{name: "PPPoE session", link: e, data: build(t, ethernet(layers.EthernetTypePPPoESession),
			&layers.PPPoE{Version: 1, Type: 1, SessionId: 9}, &layers.PPP{PPPType: layers.PPPTypeIPv4}, gopacket.Payload(ip4)), tunnels: "pppoe"},
		{name: "PPPoE in a VLAN", link: e, data: overEther(t, 0x8100, hex("00 07 88 64 11 00 00 07"), be16(len(ip6)+2), hex("00 57"), ip6), tunnels: "pppoe", v6: true},
		{name: "MPLS", link: e, data: build(t, ethernet(layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 17, TTL: 3},
			&layers.MPLS{Label: 18, StackBottom: true, TTL: 4}, gopacket.Payload(ip4)), tunnels: "mpls"},
		{name: "MPLS with IPv6", link: e, data: overEther(t, 0x8847, hex("00 01 21 40"), ip6), tunnels: "mpls", v6: true},
		{name: "pseudowire with a control word", link: e, data: overEther(t, 0x8847, hex("00 01 21 40 00 00 00 00"), tagged), tunnels: "mpls", vlan: "42", mac: true,
			gopacket: "it looks for IP only"},
		{name: "pseudowire without", link: e, data: overEther(t, 0x8847, hex("00 01 21 40"), eth6), tunnels: "mpls", v6: true, mac: true,
			gopacket: "it looks for IP only", tshark: "takes the address for a control word"},
		{name: "pseudowire to an address that begins like IPv4", link: e,
			data: overEther(t, 0x8847, hex("00 01 21 40 44 66 77 88 99 aa 02 11 22 33 44 55 08 00"), ip4), tunnels: "mpls",
			gopacket: "it takes the address for IP", tshark: "takes the address for IP"},
		{name: "pseudowire with PPPoE", link: e, data: overEther(t, 0x8847, hex("00 01 21 40 00 00 00 00"), innerMACs[1], innerMACs[0],
			hex("88 64 11 00 00 07"), be16(len(ip4)+2), hex("00 21"), ip4), tunnels: "mpls pppoe", mac: true, gopacket: "it looks for IP only"},
		{name: "PPP with MPLS", link: linktype.PPP, data: slices.Concat(hex("ff 03 02 81 00 01 21 40"), ip4), tunnels: "mpls"},

		// Tunnels over IP.
		{name: "IP in IP", link: e, data: overIP4(t, 4, ip4), tunnels: "ipip"},
		{name: "6in4", link: e, data: overIP4(t, 41, ip6), tunnels: "6in4", v6: true},
		{name: "4in6", link: e, data: build(t, ethernet(i6), outer6(4), gopacket.Payload(ip4)), tunnels: "4in6"},
		{name: "6in6", link: e, data: build(t, ethernet(i6), outer6(41), gopacket.Payload(ip6)), tunnels: "6in6", v6: true},
		{name: "4in6 behind destination options", link: e, tunnels: "4in6",
			data: build(t, ethernet(i6), outer6(60), gopacket.Payload(slices.Concat(hex("04 00 04 01 04 01 01 00"), ip4)))},
		{name: "AH", link: e, data: overIP4(t, 51, hex("04 04 00 00 00 00 00 01 00 00 00 02"), make([]byte, 12), ip4), tunnels: "ipip"},
		{name: "AH in IPv6", link: e, data: build(t, ethernet(i6), outer6(51), gopacket.Payload(slices.Concat(hex("29 04 00 00 00 00 00 01 00 00 00 02"), make([]byte, 12), ip6))),
			tunnels: "6in6", v6: true},
		{name: "GRE", link: e, data: build(t, ethernet(i4), outer4(47), &layers.GRE{Protocol: i4}, gopacket.Payload(ip4)), tunnels: "gre"},
		{name: "GRE, all fields", link: e, tunnels: "gre", v6: true, data: build(t, ethernet(i4), outer4(47),
			&layers.GRE{ChecksumPresent: true, KeyPresent: true, SeqPresent: true, Key: 5, Seq: 6, Protocol: i6}, gopacket.Payload(ip6))},
		{name: "GRE over IPv6", link: e, data: build(t, ethernet(i6), outer6(47), &layers.GRE{KeyPresent: true, Protocol: i4}, gopacket.Payload(ip4)), tunnels: "gre"},
		{name: "GRE with MPLS", link: e, data: overIP4(t, 47, hex("00 00 88 47 00 01 21 40"), ip4), tunnels: "gre mpls"},
		{name: "GRE with Ethernet", link: e, data: overIP4(t, 47, hex("00 00 65 58"), tagged), tunnels: "gre", vlan: "42", mac: true},
		{name: "NVGRE", link: e, data: build(t, ethernet(i4), outer4(47), &layers.GRE{KeyPresent: true, Key: 0x700, Protocol: layers.EthernetTypeTransparentEthernetBridging},
			gopacket.Payload(eth4)), tunnels: "nvgre", mac: true},
		{name: "WCCP", link: e, data: overIP4(t, 47, hex("00 00 88 3e"), ip4), tunnels: "gre", gopacket: "not known"},
		{name: "WCCP 2", link: e, data: overIP4(t, 47, hex("00 00 88 3e 00 00 01 02"), ip4), tunnels: "gre", gopacket: "not known"},
		{name: "PPTP", link: e, data: overIP4(t, 47, hex("30 81 88 0b"), be16(len(ip4)+4), hex("00 07 00 00 00 01 00 00 00 02 ff 03 00 21"), ip4), tunnels: "pptp"},
		{name: "PPTP, no acknowledgement, compressed protocol", link: e, data: overIP4(t, 47, hex("30 01 88 0b"), be16(len(ip4)+1), hex("00 07 00 00 00 01 21"), ip4), tunnels: "pptp"},
		{name: "ERSPAN I", link: e, data: overIP4(t, 47, hex("00 00 88 be"), eth4), tunnels: "erspan", mac: true, gopacket: "it takes all for type II"},
		{name: "ERSPAN II", link: e, data: build(t, ethernet(i4), outer4(47), &layers.GRE{SeqPresent: true, Protocol: layers.EthernetTypeERSPAN},
			&layers.ERSPANII{Version: 1, SessionID: 3, VLANIdentifier: 7}, gopacket.Payload(tagged)), tunnels: "erspan", vlan: "42", mac: true},
		{name: "ERSPAN III", link: e, data: overIP4(t, 47, hex("10 00 22 eb 00 00 00 01 20 00 00 03 00 00 00 00 00 00 00 00"), eth6), tunnels: "erspan", v6: true, mac: true,
			gopacket: "not known"},
		{name: "ERSPAN III with the platform's header", link: e, tunnels: "erspan", mac: true, gopacket: "not known",
			data: overIP4(t, 47, hex("10 00 22 eb 00 00 00 01 20 00 00 03 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00"), eth4)},
		{name: "ERSPAN III of IP", link: e, data: overIP4(t, 47, hex("10 00 22 eb 00 00 00 01 20 00 00 03 00 00 00 00 00 00 08 00"), ip4), tunnels: "erspan",
			gopacket: "not known", tshark: "takes it for Ethernet"},
		{name: "ERSPAN III with the EtherType of the others", link: e, tunnels: "erspan", mac: true, gopacket: "it takes all for type II",
			data: overIP4(t, 47, hex("10 00 88 be 00 00 00 01 20 00 00 03 00 00 00 00 00 00 00 00"), eth4)},
		{name: "ERSPAN II with the EtherType of type III", link: e, tunnels: "erspan", mac: true, v6: true, gopacket: "not known", tshark: "goes by the EtherType",
			data: overIP4(t, 47, hex("10 00 22 eb 00 00 00 01 10 07 00 03 00 00 00 00"), eth6)},
		{name: "ERSPAN II without a sequence number", link: e, tunnels: "erspan", mac: true, vlan: "42", tshark: "takes it for type I",
			data: overIP4(t, 47, hex("00 00 88 be 10 07 00 03 00 00 00 00"), tagged)},
		{name: "ERSPAN I to an address that begins like a version", link: e, tunnels: "erspan", gopacket: "it takes all for type II",
			data: overIP4(t, 47, hex("00 00 88 be 10 66 77 88 99 aa 02 11 22 33 44 55 08 00"), ip4)},
		{name: "NSH in GRE", link: e, data: overIP4(t, 47, hex("00 00 89 4f 0f c2 02 03 00 00 01 ff"), eth4), tunnels: "gre nsh", mac: true, gopacket: "not known"},
		{name: "NSH in IP", link: e, data: build(t, ethernet(i6), outer6(145), gopacket.Payload(slices.Concat(hex("0f c2 02 01 00 00 01 ff"), ip4))), tunnels: "nsh",
			gopacket: "not known", tshark: "not known"},
		{name: "Ethernet in IP", link: e, data: overIP4(t, 143, tagged), tunnels: "ethernet", vlan: "42", mac: true, gopacket: "not known"},
		{name: "Ethernet in IPv6 behind a segment routing header", link: e, tunnels: "ethernet", v6: true, mac: true, gopacket: "not known",
			data: build(t, ethernet(i6), outer6(43), gopacket.Payload(slices.Concat(hex("8f 02 04 00 00 00 00 00"), net.ParseIP("fd00::2"), eth6)))},
		{name: "EtherIP", link: e, data: overIP4(t, 97, hex("30 00"), eth4), tunnels: "etherip", mac: true},
		{name: "MPLS over IP", link: e, data: overIP4(t, 137, hex("00 01 21 40"), ip4), tunnels: "mpls"},

		// Tunnels over UDP.
		{name: "VXLAN", link: e, tunnels: "vxlan", mac: true,
			data: build(t, ethernet(i4), udp4, port(udp4, 50001, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: 7}, gopacket.Payload(eth4))},
		{name: "VXLAN over IPv6, in VLANs", link: e, tunnels: "vxlan", vlan: "42", mac: true,
			data: build(t, ethernet(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 5, Type: i6}, udp6, port(udp6, 50001, 4789), gopacket.Payload(append(vxlan, tagged...)))},
		{name: "VXLAN with a group policy", link: e, tunnels: "vxlan", mac: true,
			data: build(t, ethernet(i4), udp4, port(udp4, 50001, 4789), &layers.VXLAN{ValidIDFlag: true, GBPExtension: true, GBPGroupPolicyID: 9, VNI: 7}, gopacket.Payload(eth4))},
		{name: "VXLAN on Linux's old port", link: e, data: overUDP4(t, 50001, 8472, vxlan, eth4), tunnels: "vxlan", mac: true, gopacket: "by port only", tshark: "8472,vxlan"},
		{name: "VXLAN on any port", link: e, data: overUDP4(t, 50001, 9999, vxlan, eth6), tunnels: "vxlan", mac: true, v6: true, gopacket: "by port only", tshark: "9999,vxlan"},
		{name: "VXLAN-GPE", link: e, data: overUDP4(t, 50001, 4790, hex("0c 00 00 01 00 00 07 00"), ip4), tunnels: "vxlan-gpe", gopacket: "not known"},
		{name: "VXLAN-GPE with Ethernet on any port", link: e, data: overUDP4(t, 50001, 9998, hex("0c 00 00 03 00 00 07 00"), eth4), tunnels: "vxlan-gpe", mac: true,
			gopacket: "not known", tshark: "9998,vxlan_gpe"},
		{name: "VXLAN-GPE with NSH", link: e, data: overUDP4(t, 50001, 4790, hex("0c 00 00 04 00 00 07 00 0f c6 01 03 00 00 01 ff"), make([]byte, 16), eth4),
			tunnels: "vxlan-gpe nsh", mac: true, gopacket: "not known"},
		{name: "MPLS over UDP", link: e, data: overUDP4(t, 50001, 6635, hex("00 01 00 ff 00 01 21 40"), ip4), tunnels: "mpls", gopacket: "not known"},
		{name: "MPLS over UDP, a large label, a pseudowire", link: e, data: overUDP4(t, 50001, 6635, hex("ff ff f1 40 00 00 00 00"), tagged), tunnels: "mpls", vlan: "42", mac: true,
			gopacket: "not known"},
		{name: "GRE over UDP", link: e, data: overUDP4(t, 50001, 4754, hex("20 00 86 dd 00 00 00 01"), ip6), tunnels: "gre", v6: true, gopacket: "not known", tshark: "4754,gre"},
		{name: "GENEVE", link: e, data: overUDP4(t, 50001, 6081, geneve, tagged), tunnels: "geneve", vlan: "42", mac: true},
		{name: "GENEVE with options", link: e, data: overUDP4(t, 50001, 6081, hex("02 40 86 dd 00 00 07 00 01 02 80 01 de ad be ef"), ip6), tunnels: "geneve", v6: true},
		{name: "GENEVE on any port", link: e, data: overUDP4(t, 50001, 9997, hex("00 00 08 00 00 00 07 00"), ip4), tunnels: "geneve", gopacket: "by port only", tshark: "9997,geneve"},
		{name: "GTP", link: e, tunnels: "gtp", data: build(t, ethernet(i4), udp4, port(udp4, 2152, 2152),
			&layers.GTPv1U{Version: 1, ProtocolType: 1, MessageType: 0xff, MessageLength: uint16(len(ip4)), TEID: 9}, gopacket.Payload(ip4))},
		{name: "GTP with a sequence number", link: e, data: overUDP4(t, 2152, 2152, gtp(0x32, hex("00 01 00 00"), ip6)), tunnels: "gtp", v6: true},
		{name: "GTP with extension headers", link: e, data: overUDP4(t, 2152, 2152, gtp(0x34, hex("00 00 00 85 01 10 09 c0 02 00 00 00 00 00 00 00"), ip4)), tunnels: "gtp"},
		{name: "GTP with Ethernet", link: e, data: overUDP4(t, 2152, 2152, gtp(0x30, nil, eth4)), tunnels: "gtp", mac: true, gopacket: "it looks for IP only", tshark: "not known"},
		{name: "Teredo", link: e, data: overUDP4(t, 50001, 3544, ip6), tunnels: "teredo", v6: true, gopacket: "not known"},
		{name: "Teredo with indications", link: e, tunnels: "teredo", v6: true, gopacket: "not known",
			data: overUDP4(t, 3544, 50001, hex("00 01 00 00 01 02 03 04 05 06 07 08 00"), hex("00 00 c3 50 f5 f6 f6 fe"), ip6)},
		{name: "Teredo on any port", link: e, data: overUDP4(t, 50001, 50002, teredo6), tunnels: "teredo", v6: true, gopacket: "not known", tshark: "50002,teredo"},
		{name: "CAPWAP with 802.11", link: e, data: overUDP4(t, 50001, 5247, hex("00 10 03 00 00 00 00 00"), toDS, snap4), tunnels: "capwap", mac: true, gopacket: "not known",
			tshark: "takes Cisco's order for granted"},
		{name: "CAPWAP with Cisco's 802.11", link: e, tunnels: "capwap", mac: true, v6: true, gopacket: "not known",
			data: overUDP4(t, 5247, 50001, hex("00 10 03 00 00 00 00 00 02 88"), fromDS[2:], snap6)},
		{name: "CAPWAP with Ethernet", link: e, data: overUDP4(t, 50001, 5247, hex("00 10 02 00 00 00 00 00"), tagged), tunnels: "capwap", vlan: "42", mac: true, gopacket: "not known"},
		{name: "L2TP", link: e, data: overUDP4(t, 1701, 1701, hex("40 02"), be16(len(ip4)+12), hex("00 01 00 02 ff 03 00 21"), ip4), tunnels: "l2tp", gopacket: "not known"},
		{name: "L2TP, all fields", link: e, data: overUDP4(t, 1701, 50001, hex("4a 02"), be16(len(ip6)+20), hex("00 01 00 02 00 03 00 04 00 02 00 00 00 57"), ip6), tunnels: "l2tp", v6: true,
			gopacket: "not known"},
		{name: "LISP", link: e, data: overUDP4(t, 61000, 4341, hex("80 00 00 01 00 00 00 01"), ip4), tunnels: "lisp", gopacket: "not known"},
		{name: "TZSP", link: e, data: overUDP4(t, 50001, 37008, hex("01 00 00 01 00 0d 01 05 01"), eth4), tunnels: "tzsp", mac: true, gopacket: "not known",
			tshark: "37008,tzsp"},
		{name: "TZSP with 802.11", link: e, data: overUDP4(t, 50001, 37008, hex("01 00 00 12 01"), toDS, snap4), tunnels: "tzsp", mac: true, gopacket: "not known",
			tshark: "37008,tzsp"},

		// In one another.
		{name: "ERSPAN of VXLAN", link: e, tunnels: "erspan vxlan", mac: true,
			data: overIP4(t, 47, hex("10 00 88 be 00 00 00 01 10 07 00 03 00 00 00 00"), overUDP4(t, 50001, 4789, vxlan, eth4))},
		{name: "PPPoE, 6in4, GRE, MPLS", link: e, tunnels: "pppoe 6in4 gre mpls", v6: true,
			data: func() []byte {
				in := build(t, outer6(47), gopacket.Payload(slices.Concat(hex("00 00 88 47 00 01 21 40"), ip6)))
				in = build(t, outer4(41), gopacket.Payload(in))
				return overEther(t, 0x8864, hex("11 00 00 07"), be16(len(in)+2), hex("00 21"), in)
			}()},
	}
}

func TestStacks(t *testing.T) {
	for _, c := range stackCases(t) {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			var p Packet
			if class := d.Decode(frame(c.link, c.data), &p); class != Segment {
				t.Fatalf("class %v", class)
			}
			if string(p.Payload) != string(payload) || p.Missing != 0 || p.Seq != 0x01020304 {
				t.Errorf("payload %q, missing %d, seq %x", p.Payload, p.Missing, p.Seq)
			}
			src, dst := "192.0.2.9:50000", "198.51.100.7:8443"
			if c.v6 {
				src, dst = "[2001:db8::9]:50000", "[2001:db8::7]:8443"
			}
			if strings.HasPrefix(c.name, "Teredo on any") {
				src = "[2001::9]:50000"
			}
			a, b := p.Key.Endpoints()
			if p.Swapped {
				a, b = b, a
			}
			if a.String() != src || b.String() != dst {
				t.Errorf("%v > %v", a, b)
			}
			if got := strings.Join(p.Tunnels(), " "); got != c.tunnels {
				t.Errorf("tunnels %q, want %q", got, c.tunnels)
			}
			ids, n := p.VLANs().IDs()
			if got := strings.Trim(fmt.Sprint(ids[:n]), "[]"); got != c.vlan {
				t.Errorf("VLANs %q, want %q", got, c.vlan)
			}
			if c.mac && (*p.SrcMAC != [6]byte(innerMACs[0]) || *p.DstMAC != [6]byte(innerMACs[1])) {
				t.Errorf("MACs %x > %x", *p.SrcMAC, *p.DstMAC)
			}
			f := frame(c.link, c.data)
			if n := testing.AllocsPerRun(20, func() { d.Decode(f, &p) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			// Every prefix, as a snaplen leaves it: what comes out is what was captured, and
			// the rest is missing.
			for n := range c.data {
				f := frame(c.link, c.data[:n:n])
				f.Length = uint32(len(c.data))
				var d Decoder
				switch d.Decode(f, &p) {
				case Segment:
					if !bytes.HasPrefix(payload, p.Payload) || len(p.Payload)+p.Missing != len(payload) {
						t.Fatalf("%d bytes: payload %q, %d missing", n, p.Payload, p.Missing)
					}
				case Fragment:
					t.Fatalf("%d bytes: a fragment", n)
				}
			}
		})
	}
}

// Any tags one after the other, in whatever frame, are no obstacle, and VLANs are
// those of the innermost frame.
func TestTags(t *testing.T) {
	four, six := ipv4(layers.IPProtocolTCP), ipv6(layers.IPProtocolTCP)
	ip := map[bool][]byte{false: build(t, four, tcp(four), payload), true: build(t, six, tcp(six), payload)}
	samples := []struct {
		etherType uint16
		body      []byte // up to the EtherType that ends the tag
		vlan      string
	}{
		{0x8926, hex("80 01 00 02"), ""},
		{0x893f, hex("e0 00 00 64 00 00"), ""},
		{0x892f, hex("00 2e 00 07"), ""},
		{0xf1c1, hex("00 00 ff ff"), ""},
		{0x8988, hex("08 00 45 00"), ""},
		{0x8988, hex("01 02 03 04 08 00"), ""},
		{0x8988, hex("08 00 08 00 86 dd 81 00"), ""},
		{0xd28b, hex("00 01 01 10 00 00 00 01 00 00 00 02"), ""},
		{0xd28b, hex("00 01 00 21 00 01 00 00 00 02"), ""},
		{0x8909, hex("01 01 00 01 00 07"), ""},
		{0x88e5, hex("20 00 00 00 00 01 02 00 00 00 00 01 00 01"), ""},
		{0x8100, hex("00 0b"), "11"},
		{0x88a8, hex("a0 0c"), "12"},
		{0x9100, hex("00 0d"), "13"},
		{0x9200, hex("00 0e"), "14"},
		{0x9300, hex("00 0f"), "15"},
		{0x9400, hex("00 10"), "16"}, // named by the operator
	}
	frames := map[string]func(inner []byte) []byte{
		"itself":         func(inner []byte) []byte { return inner },
		"VXLAN":          func(inner []byte) []byte { return overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), inner) },
		"VXLAN anywhere": func(inner []byte) []byte { return overUDP4(t, 50001, 9999, hex("08 00 00 00 00 00 07 00"), inner) },
		"GENEVE":         func(inner []byte) []byte { return overUDP4(t, 50001, 6081, hex("00 00 65 58 00 00 07 00"), inner) },
		"NSH":            func(inner []byte) []byte { return overEther(t, 0x894f, hex("0f c2 02 03 00 00 01 ff"), inner) },
		"FabricPath":     func(inner []byte) []byte { return overEther(t, 0x8903, hex("00 60"), inner) },
		"ERSPAN": func(inner []byte) []byte {
			return overIP4(t, 47, hex("10 00 88 be 00 00 00 01 10 07 00 03 00 00 00 00"), inner)
		},
		"pseudowire": func(inner []byte) []byte { return overUDP4(t, 50001, 6635, hex("00 01 21 40 00 00 00 00"), inner) },
		"IP":         func(inner []byte) []byte { return overIP4(t, 143, inner) },
		"PBB":        func(inner []byte) []byte { return overEther(t, 0x88e7, hex("00 01 e2 40"), inner) },
	}
	for around, wrap := range frames {
		for i := range samples {
			for j := range samples {
				const ttag = 0x8988
				if samples[i].etherType == ttag && samples[j].etherType == ttag && len(samples[i].body) != len(samples[j].body) {
					continue // of no one switch
				}
				v6 := (i+j)%2 == 1
				b := slices.Concat(innerMACs[1], innerMACs[0])
				var tagged []string
				for _, k := range []int{i, j} {
					b = binary.BigEndian.AppendUint16(b, samples[k].etherType)
					b = append(b, samples[k].body...)
					if samples[k].vlan != "" {
						tagged = append(tagged, samples[k].vlan)
					}
				}
				b = binary.BigEndian.AppendUint16(b, map[bool]uint16{false: ethertype.IPv4, true: ethertype.IPv6}[v6])
				b = wrap(append(b, ip[v6]...))
				d := Decoder{VLANs: []uint16{0x9400}}
				var p Packet
				c := d.Decode(frame(linktype.Ethernet, b), &p)
				if c != Segment || string(p.Payload) != string(payload) || p.v6 != v6 || *p.SrcMAC != [6]byte(innerMACs[0]) {
					t.Errorf("%x %x in %s: %v, %q", samples[i].body, samples[j].body, around, c, p.Payload)
					continue
				}
				ids, n := p.VLANs().IDs()
				if got, want := strings.Trim(fmt.Sprint(ids[:n]), "[]"), strings.Join(tagged, " "); got != want {
					t.Errorf("%x %x in %s: VLANs %q, want %q", samples[i].body, samples[j].body, around, got, want)
				}
			}
		}
	}
}

// The same frames as gopacket reads them: where it is not mentioned that it
// cannot, it finds the same segment.
func TestStacksGopacket(t *testing.T) {
	for _, c := range stackCases(t) {
		if c.link > 255 {
			continue
		}
		pkt := gopacket.NewPacket(c.data, layers.LinkType(c.link), gopacket.Default)
		var got []byte
		for _, l := range pkt.Layers() {
			if l, ok := l.(*layers.TCP); ok {
				got = l.Payload
			}
		}
		switch found := bytes.Equal(got, payload); {
		case c.gopacket == "" && !found:
			t.Errorf("%s: gopacket does not find it: %v", c.name, pkt)
		case c.gopacket != "" && found:
			t.Errorf("%s: gopacket finds it: %v", c.name, pkt)
		}
	}
}

// The same frames as tshark reads them.
func TestStacksTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	var buf bytes.Buffer
	var w *pcapgo.NgWriter
	options := []string{}
	var cases []stackCase
	interfaces := map[linktype.Type]int{}
	for _, c := range stackCases(t) {
		if c.tshark != "" {
			if c.tshark[0] < '0' || c.tshark[0] > '9' {
				continue
			}
			options = append(options, "-d", "udp.port=="+c.tshark)
		}
		i, ok := interfaces[c.link]
		if !ok {
			in := pcapgo.NgInterface{LinkType: layers.LinkType(c.link), SnapLength: 65535}
			if w == nil {
				w, err = pcapgo.NewNgWriterInterface(&buf, in, pcapgo.DefaultNgWriterOptions)
			} else {
				i, err = w.AddInterface(in)
			}
			if err != nil {
				t.Fatal(err)
			}
			interfaces[c.link] = i
		}
		err := w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(c.data), Length: len(c.data), InterfaceIndex: i}, c.data)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "stacks.pcapng")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-r", path, "-T", "fields", "-E", "occurrence=l", "-e", "tcp.seq_raw", "-e", "tcp.payload", "-e", "ip.src", "-e", "ipv6.dst", "-e", "frame.protocols"}, options...)
	out, err := exec.Command(tshark, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if len(lines) != len(cases) {
		t.Fatalf("%d lines for %d frames", len(lines), len(cases))
	}
	for i, c := range cases {
		field := strings.Split(lines[i], "\t")
		address, want := field[2], "192.0.2.9"
		if c.v6 {
			address, want = field[3], "2001:db8::7"
		}
		if field[0] != "16909060" || field[1] != fmt.Sprintf("%x", []byte(payload)) || address != want {
			t.Errorf("%s: tshark has %q", c.name, lines[i])
		}
	}
}

// Tunnels in tunnels come to an end.
func TestTunnelLimit(t *testing.T) {
	four := ipv4(layers.IPProtocolTCP)
	for _, c := range []struct {
		name string
		wrap func([]byte) []byte
		size int
	}{
		{"IP in IP", func(b []byte) []byte { return build(t, outer4(4), gopacket.Payload(b)) }, 20},
		{"MPLS in GRE", func(b []byte) []byte {
			return build(t, outer4(47), gopacket.Payload(slices.Concat(hex("00 00 88 47 00 01 21 40"), b)))
		}, 28},
	} {
		in := build(t, four, tcp(four), payload)
		var deepest int
		for depth := 1; depth < 40; depth++ {
			in = c.wrap(in)
			var d Decoder
			var p Packet
			if d.Decode(frame(linktype.Raw, in), &p) == Segment {
				deepest = len(p.Tunnels())
			} else if d.Decoded()[Malformed] != 1 {
				t.Errorf("%s, %d deep: %v", c.name, depth, d.Decoded())
			}
		}
		if deepest != limitTunnels {
			t.Errorf("%s: followed to %d, want %d", c.name, deepest, limitTunnels)
		}
	}
	// Over UDP, what is too deep to follow is a datagram.
	datagram := func(b []byte) []byte {
		ip := outer4(layers.IPProtocolUDP)
		return build(t, ip, port(ip, 50001, 6081), gopacket.Payload(slices.Concat(hex("00 00 08 00 00 00 07 00"), b)))
	}
	in := build(t, four, tcp(four), payload)
	for range limitTunnels + 3 {
		in = datagram(in)
	}
	var d Decoder
	var p Packet
	if c := d.Decode(frame(linktype.Raw, in), &p); c != Datagram || len(p.Tunnels()) != limitTunnels {
		t.Errorf("class %v in %v", c, p.Tunnels())
	}
	// LLC after a tag, and LLC again.
	loop := hex("02 00 00 00 00 02 02 00 00 00 00 01 00 40")
	for range 100 {
		loop = append(loop, hex("aa aa 03 00 00 00 81 00 00 01 00 40")...)
	}
	if c := d.Decode(frame(linktype.Ethernet, loop), &p); c != Malformed {
		t.Errorf("LLC without an end: %v", c)
	}
}

// What looks like a tunnel and is none is the datagram that it was.
func TestNoTunnel(t *testing.T) {
	dtls := hex("16 fe fd 00 00 00 00 00 00 00 00 00 40 01 00 00 34 00 00 00 00 00 00 00 34 fe fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00")
	garbage := bytes.Repeat(hex("08 00 45 aa 55"), 30)
	for _, port := range []uint16{1701, 2152, 3544, 4341, 4789, 4790, 4754, 5247, 6081, 6635, 8472, 37008, 443} {
		for name, body := range map[string][]byte{
			"DTLS":                   dtls,
			"CID":                    append([]byte{25}, dtls[1:]...),
			"a VXLAN header, no IP":  append(hex("08 00 00 00 00 00 07 00"), garbage...),
			"a GENEVE header, no IP": append(hex("00 00 65 58 00 00 07 00"), garbage...),
			"a GTP header, no IP":    append(hex("30 ff 00 10 00 00 00 01"), garbage...),
			"an L2TP header, no PPP": append(hex("00 02 00 01 00 02"), garbage...),
			"a CAPWAP header":        append(hex("00 10 03 00 00 00 00 00"), garbage[2:]...),
			"a TZSP header":          append(hex("01 00 00 01 01"), garbage...),
			"the nibble of IPv6":     append(hex("60 00 00 00 40 20 06 40"), garbage...),
			"zeros":                  make([]byte, 100),
			"eight bytes":            hex("08 00 00 00 00 00 07 00"),
			"nothing":                nil,
		} {
			var d Decoder
			var p, want Packet
			f := frame(linktype.Ethernet, overUDP4(t, 50001, port, body))
			c := d.Decode(f, &p)
			if c != Datagram || !bytes.Equal(p.Payload, body) || p.Tunnelled() || p.DstPort != port || p.tags != 0 {
				t.Errorf("%s on %d: %v, %x in %v", name, port, c, p.Payload, p.Tunnels())
			}
			// The key is that of the same datagram without a payload.
			d.Decode(frame(linktype.Ethernet, overUDP4(t, 50001, port)), &want)
			p.Address() // idle packets have none
			want.Address()
			if p.Key != want.Key || p.Shard != want.Shard {
				t.Errorf("%s on %d: another key", name, port)
			}
		}
	}
}

// Checksums tell a packet in a datagram on an unknown port from chance.
func TestContentIsStrict(t *testing.T) {
	four := ipv4(layers.IPProtocolTCP)
	ip4 := build(t, four, tcp(four), payload)
	eth4 := build(t, innerEthernet(layers.EthernetTypeIPv4), gopacket.Payload(ip4))
	eth4[14+10]++ // the checksum
	for port, want := range map[uint16]Class{4789: Segment, 9999: Datagram} {
		var d Decoder
		var p Packet
		if c := d.Decode(frame(linktype.Ethernet, overUDP4(t, 50001, port, hex("08 00 00 00 00 00 07 00"), eth4)), &p); c != want {
			t.Errorf("port %d: %v", port, c)
		}
	}
}

// CAPWAP's DTLS is a handshake of the datagram's own flow.
func TestCAPWAPDTLS(t *testing.T) {
	record := hex("16 fe ff 00 00 00 00 00 00 00 00 00 01 01 00")
	data := overEther(t, 0x8100, hex("00 07 08 00"), overUDP4(t, 50001, 5246, hex("01 00 00 00"), record)[14:])
	var d Decoder
	var p Packet
	c := d.Decode(frame(linktype.Ethernet, data), &p)
	p.Address() // idle packets have none
	if ids, n := p.VLANs().IDs(); c != Datagram || !bytes.Equal(p.Payload, record) || p.DstPort != 5246 || p.Tunnels()[0] != "capwap" || n != 1 || ids[0] != 7 {
		t.Errorf("%v: %x, port %d, in %v, VLANs %v", c, p.Payload, p.DstPort, p.Tunnels(), ids[:n])
	}
}

// An A-MSDU holds several packets.
func TestAggregate(t *testing.T) {
	header := hex("88 01 00 00 02 00 00 00 00 02 02 11 22 33 44 55 02 00 00 00 00 02 40 00 80 00")
	subframe := func(data string) []byte {
		four := ipv4(layers.IPProtocolTCP)
		body := slices.Concat(hex("aa aa 03 00 00 00 08 00"), build(t, four, tcp(four), gopacket.Payload(data)))
		b := slices.Concat(innerMACs[1], innerMACs[0], be16(len(body)), body)
		return append(b, make([]byte, -len(b)&3)...)
	}
	data := slices.Concat(header, subframe("one"), subframe("to"), subframe("three"))
	read := func(d *Decoder, f *capture.Frame) (got []string) {
		var p Packet
		for ok := d.Decode(f, &p) <= Datagram; ok; ok = d.Next(&p) {
			got = append(got, string(p.Payload))
			if p.Frame != f || p.Key == (Key{}) || *p.SrcMAC != [6]byte(innerMACs[0]) {
				t.Errorf("%+v", p)
			}
		}
		return got
	}
	var d Decoder
	if got := read(&d, frame(linktype.IEEE80211, data)); !slices.Equal(got, []string{"one", "to", "three"}) {
		t.Errorf("%q", got)
	}
	// What is left of one frame is not read with the next.
	var p Packet
	d.Decode(frame(linktype.IEEE80211, data), &p)
	if d.Decode(frame(linktype.Raw, nil), &p); d.Next(&p) {
		t.Errorf("%q after another frame", p.Payload)
	}
	cut := frame(linktype.IEEE80211, data[:len(data)-4])
	cut.Length += 4
	if got := read(&d, cut); len(got) != 3 || got[2] != "t" && got[2] != "th" && got[2] != "thr" {
		t.Errorf("%q of a frame that is cut", got)
	}
	if d.Decoded()[Segment] != 3 {
		t.Errorf("%v: one count for a frame", d.Decoded())
	}
}

// A flow is one whatever its directions come through, and a packet shows the
// tunnels around it and the addresses of the frame next to it.
func TestFlowThroughTunnels(t *testing.T) {
	segment := func(back bool) []byte {
		ip := ipv4(layers.IPProtocolTCP)
		l := tcp(ip)
		if back {
			ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
			l.SrcPort, l.DstPort = l.DstPort, l.SrcPort
		}
		return build(t, ip, l, payload)
	}
	bare := overEther(t, 0x0800, segment(false))
	inner := *(*[6]byte)(innerMACs[0])
	for name, c := range map[string]struct {
		data []byte
		want []string
		mac  [6]byte
	}{
		"VXLAN": {overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 07 00"), innerMACs[1], innerMACs[0], hex("08 00"), segment(true)),
			[]string{"vxlan"}, inner},
		"VXLAN of another network": {overUDP4(t, 50001, 4789, hex("08 00 00 00 00 00 08 00"), innerMACs[1], innerMACs[0], hex("08 00"), segment(true)),
			[]string{"vxlan"}, inner},
		"GRE in a VLAN": {overEther(t, 0x8100, hex("00 05 08 00"), overIP4(t, 47, hex("20 00 08 00 00 00 00 09"), segment(true))[14:]),
			[]string{"gre"}, [6]byte(bare[6:])},
	} {
		var d Decoder
		var there, back Packet
		if d.Decode(frame(linktype.Ethernet, bare), &there) != Segment || d.Decode(frame(linktype.Ethernet, c.data), &back) != Segment {
			t.Fatalf("%s: no segments", name)
		}
		if there.Key != back.Key || there.Swapped == back.Swapped || there.VLANs() != back.VLANs() || there.Shard != back.Shard {
			t.Errorf("%s: %v is not the way back of %v", name, &back, &there)
		}
		if got := back.Tunnels(); !slices.Equal(got, c.want) || there.Tunnelled() || there.Tunnels() != nil {
			t.Errorf("%s: tunnels %v", name, got)
		}
		if *back.SrcMAC != c.mac {
			t.Errorf("%s: from %x, want %x", name, *back.SrcMAC, c.mac)
		}
	}
}

func BenchmarkDecodeUDP(b *testing.B) {
	ip := ipv4(layers.IPProtocolUDP)
	benchmarkFrame(b, build(b, ethernet(layers.EthernetTypeIPv4), ip, udp(ip), gopacket.Payload(bytes.Repeat([]byte{0x40}, 1200))))
}

func BenchmarkDecodeVXLAN(b *testing.B) {
	four := ipv4(layers.IPProtocolTCP)
	benchmarkFrame(b, overUDP4(b, 50001, 4789, hex("08 00 00 00 00 00 07 00"),
		build(b, innerEthernet(layers.EthernetTypeIPv4), four, tcp(four), payload)))
}

func BenchmarkDecodeGRE(b *testing.B) {
	four := ipv4(layers.IPProtocolTCP)
	benchmarkFrame(b, overIP4(b, 47, hex("00 00 08 00"), build(b, four, tcp(four), payload)))
}

func benchmarkFrame(b *testing.B, data []byte) {
	f := frame(linktype.Ethernet, data)
	var d Decoder
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		d.Decode(f, &p)
	}
}
