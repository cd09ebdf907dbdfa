package frames

import (
	"net/netip"
	"strings"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
	"github.com/oddcert/oddcert/sensor/internal/output"
)

// Filter returns a display filter of Wireshark for the frames of some flows, the same
// that records have; empty where none has an end that is known. It lets through what
// Wireshark finds the addresses and ports of a flow in: of a packet in fragments the
// last one, and also other flows between the same addresses with the ports the other
// way round.
func Filter(flows ...inventory.Flow) string {
	var all []string
	for _, f := range flows {
		one := output.AppendFilter(nil, f.Transport, &[2]event.Endpoint{end(f.Client, f.ClientMAC), end(f.Server, f.ServerMAC)})
		if len(one) > 0 {
			all = append(all, string(one))
		}
	}
	if len(all) > 1 {
		return "(" + strings.Join(all, ")||(") + ")"
	}
	return strings.Join(all, "")
}

func end(a netip.AddrPort, mac [6]byte) event.Endpoint {
	return event.Endpoint{Addr: a.Addr(), Port: a.Port(), MAC: mac}
}
