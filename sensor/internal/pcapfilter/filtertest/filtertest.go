// Package filtertest has what capture filters are tested with: expressions, and
// frames of which they match some.
package filtertest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Expressions must compile, here and in tcpdump.
var Expressions = []string{
	"",
	"  ",
	"tcp",
	"udp",
	"sctp",
	"ip",
	"ip6",
	"arp",
	"rarp",
	"icmp",
	"icmp6",
	"igmp",
	"pim",
	"ah",
	"esp",
	"vrrp",
	"port 443",
	"port https",
	"port domain",
	"tcp port https",
	"udp port domain",
	"port ntp",
	"tcp port 443",
	"tcp port 443 or udp port 443",
	"tcp and port 443",
	"tcp and not port 443",
	"port 443 or 53",
	"port (443 or 53)",
	"port not 443",
	"not port 443 and 53",
	"tcp port 443 and (80 or 443)",
	"src port 443",
	"dst port 443",
	"src or dst port 443",
	"src and dst port 443",
	"dst or src port 443",
	"tcp src port 443 or dst port 53",
	"portrange 50-443",
	"portrange 443-50",
	"tcp portrange 400-500",
	"udp dst portrange 1-1023",
	"portrange 80",
	"sctp port 9",
	"host 192.0.2.1",
	"src host 192.0.2.1",
	"src 192.0.2.1",
	"dst 192.0.2.1 or 192.0.2.2",
	"host (192.0.2.1 and 192.0.2.2)",
	"src or dst 192.0.2.1",
	"ip host 192.0.2.1",
	"ip src 192.0.2.1",
	"arp host 192.0.2.1",
	"rarp src host 192.0.2.1",
	"host 2001:db8::1",
	"ip6 host 2001:db8::1",
	"ip6 src 2001:db8::1",
	"src host 2001:db8::1 or 2001:db8::2",
	"net 192.0.2.0/24",
	"net 192.0.2",
	"net 192",
	"net 192.0.0.0 mask 255.255.0.0",
	"net 192.0.2.0",
	"net 0.0.0.0/0",
	"src net 192.0.0.0/9 and dst net 192.0.2.0/30",
	"not net 192.0.2.0/24",
	"net 2001:db8::/32",
	"net 2001:db8::/45",
	"net 2001:db8::/127",
	"dst net 2001:db8::/64",
	"ether host 02:00:00:00:00:01",
	"ether src 02:00:00:00:00:01",
	"ether dst host 02:00:00:00:00:02",
	"ether broadcast",
	"broadcast",
	"multicast",
	"ether multicast",
	"ip multicast",
	"ip6 multicast",
	"not broadcast and not multicast",
	"ether proto 0x800",
	`ether proto \ip6`,
	"ip proto 17",
	`ip proto \tcp`,
	"ip6 proto 6",
	"proto 47",
	`proto \udp`,
	"vlan",
	"vlan 10",
	"vlan 0x14",
	"not vlan",
	"vlan and tcp",
	"vlan 10 and tcp port 443",
	"vlan and vlan 20",
	"vlan 10 and vlan 20 and port 443",
	"tcp or vlan and tcp",
	"port 443 or (vlan and port 443)",
	"vlan and not tcp",
	"less 100",
	"greater 100",
	"greater 0x40 and less 200",
	"ip or ip6 and tcp",
	"ip and tcp or udp",
	"!tcp",
	"! tcp||udp",
	"tcp&&port 443",
	"((tcp))",
	"not (tcp or udp)",
	"not not tcp",
	"not host 192.0.2.1 and port 443",
	"(tcp port 443 or udp port 53) and ip6",
	"tcp port 443 or udp port 53 and ip6",
	"host 192.0.2.1 and (tcp port 443 or udp port 53) and not net 192.0.2.0/30",
}

// Frames makes whole frames of one link type, the same each time, whose fields are
// often those that the Expressions ask for.
func Frames(link linktype.Type) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(n ...uint32) uint32 { return n[rng.IntN(len(n))] }
	v4 := []string{"192.0.2.1", "192.0.2.2", "192.0.2.77", "192.128.0.1", "10.0.0.1", "239.0.0.1"}
	v6 := []string{"2001:db8::1", "2001:db8::2", "2001:db8:8::1", "2001:db9::1", "ff02::1"}
	var frames [][]byte
	for range 4000 {
		etherType := pick(ethertype.IPv4, ethertype.IPv4, ethertype.IPv6, ethertype.IPv6, ethertype.ARP, ethertype.RARP, 0x88cc)
		transport := byte(pick(6, 6, 17, 17, 132, 1, 58, 2, 103, 50, 51, 112, 47))
		ports := make([]byte, 40+rng.IntN(120))
		binary.BigEndian.PutUint16(ports, uint16(pick(443, 443, 53, 80, 9, 123, 49152)))
		binary.BigEndian.PutUint16(ports[2:], uint16(pick(443, 443, 53, 80, 9, 123, 49152)))
		var packet []byte
		switch etherType {
		case ethertype.IPv4:
			options := 4 * rng.IntN(3)
			packet = make([]byte, 20+options)
			packet[0] = byte(0x45 + options/4)
			binary.BigEndian.PutUint16(packet[6:], uint16(pick(0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001)))
			packet[9] = transport
			copy(packet[12:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
			copy(packet[16:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
		case ethertype.IPv6:
			packet = make([]byte, 40)
			packet[0] = 0x60
			packet[6] = transport
			copy(packet[8:], netip.MustParseAddr(v6[rng.IntN(len(v6))]).AsSlice())
			copy(packet[24:], netip.MustParseAddr(v6[rng.IntN(len(v6))]).AsSlice())
			if rng.IntN(4) == 0 {
				packet[6] = 44
				packet = append(packet, transport, 0, 0, byte(pick(0, 1, 8)), 0, 0, 0, 0)
			}
		default:
			packet = make([]byte, 28)
			copy(packet[14:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
			copy(packet[24:], netip.MustParseAddr(v4[rng.IntN(len(v4))]).AsSlice())
		}
		packet = append(packet, ports...)
		put := binary.BigEndian.AppendUint16
		var header []byte
		switch link {
		case linktype.Ethernet:
			mac := [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e, 0, 0, 1}}
			header = append(append([]byte{}, mac[rng.IntN(4)]...), mac[rng.IntN(2)]...)
			for range max(0, rng.IntN(5)-2) {
				header = put(header, uint16(pick(ethertype.VLAN, ethertype.VLAN, ethertype.QinQ, ethertype.QinQ91)))
				header = put(header, uint16(pick(10, 10, 20, 0x600a, 0)))
			}
			header = put(header, uint16(etherType))
		case linktype.LinuxSLL:
			header = put(make([]byte, 14), uint16(etherType))
		case linktype.LinuxSLL2:
			header = append(put(nil, uint16(etherType)), make([]byte, 18)...)
		case linktype.Loop:
			// libpcap knows but the IPv6 of the machine that it runs on.
			header = []byte{0, 0, 0, byte(map[uint32]int{ethertype.IPv4: 2, ethertype.IPv6: 10}[etherType])}
		case linktype.PPP:
			header = put([]byte{0xff, 0x03}, uint16(map[uint32]int{ethertype.IPv4: 0x21, ethertype.IPv6: 0x57}[etherType]))
		}
		frames = append(frames, append(header, packet...))
	}
	return frames
}
