package output

import (
	"net"
	"strconv"

	"github.com/oddcert/oddcert/parsers/event"
)

// appendDisplayFilter appends the pcap.filter member.
func appendDisplayFilter(b []byte, f *event.Flow) []byte {
	from := len(b)
	b = append(b, `"filter":"`...)
	empty := len(b)
	if b = AppendFilter(b, f.Transport, &f.Endpoints); len(b) == empty {
		return b[:from]
	}
	return append(b, '"', ',')
}

// AppendFilter appends a display filter of Wireshark for the packets of a flow
// (wireshark-filter(4)), or nothing where its ends are not known. It names addresses
// and ports, which hold inside VLANs and tunnels as well.
func AppendFilter(b []byte, transport event.Transport, ends *[2]event.Endpoint) []byte {
	empty := len(b)
	var port string
	switch transport {
	case event.TCP:
		port = "tcp.port=="
	case event.UDP:
		port = "udp.port=="
	case event.SCTP:
		port = "sctp.port=="
	}
	for i := range ends {
		e := &ends[i]
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
	if len(b) == empty {
		return b
	}
	if transport == event.EAPOL {
		b = append(b, "eapol&&"...)
	}
	return b[:len(b)-len("&&")]
}
