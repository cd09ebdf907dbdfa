package output

import (
	"net"
	"strconv"

	"github.com/oddcert/oddcert/parsers/event"
)

// appendDisplayFilter appends the pcap.filter member: a display filter of
// Wireshark for the packets of f (wireshark-filter(4)). It names addresses and
// ports, which hold inside VLANs and tunnels as well.
func appendDisplayFilter(b []byte, f *event.Flow) []byte {
	from := len(b)
	b = append(b, `"filter":"`...)
	empty := len(b)
	var port string
	switch f.Transport {
	case event.TCP:
		port = "tcp.port=="
	case event.UDP:
		port = "udp.port=="
	case event.SCTP:
		port = "sctp.port=="
	}
	for i := range f.Endpoints {
		e := &f.Endpoints[i]
		switch {
		case e.Addr.Is4():
			b = append(b, "ip.addr=="...)
			b = e.Addr.AppendTo(b)
		case e.Addr.IsValid():
			b = append(b, "ipv6.addr=="...)
			b = e.Addr.WithZone("").AppendTo(b)
		case e.MAC != [6]byte{}:
			b = append(b, "eth.addr=="...)
			b = append(b, net.HardwareAddr(e.MAC[:]).String()...)
		default:
			continue
		}
		b = append(b, "&&"...)
		if port != "" {
			b = append(b, port...)
			b = strconv.AppendUint(b, uint64(e.Port), 10)
			b = append(b, "&&"...)
		}
	}
	if f.Transport == event.EAPOL {
		b = append(b, "eapol&&"...)
	}
	if len(b) == empty {
		return b[:from]
	}
	return append(b[:len(b)-len("&&")], '"', ',')
}
