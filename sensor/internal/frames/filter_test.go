package frames

import (
	"net/netip"
	"testing"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// TestFilter has the forms. What they let through is held against tshark in package
// main (TestDisplayFilter).
func TestFilter(t *testing.T) {
	at := netip.MustParseAddrPort
	four := inventory.Flow{Transport: event.TCP, Client: at("192.0.2.1:44512"), Server: at("192.0.2.2:443")}
	six := inventory.Flow{Transport: event.UDP, Client: at("[2001:db8::1]:5000"), Server: at("[fe80::2%eth0]:443")}
	sctp := inventory.Flow{Transport: event.SCTP, Client: at("192.0.2.1:7"), Server: at("192.0.2.2:8")}
	eapol := inventory.Flow{Transport: event.EAPOL, ClientMAC: [6]byte{2, 0, 0, 0, 0, 1}, ServerMAC: [6]byte{2, 0, 0, 0, 0, 2}}
	for want, flows := range map[string][]inventory.Flow{
		"": {{}},
		"ip.addr==192.0.2.1&&tcp.port==44512&&ip.addr==192.0.2.2&&tcp.port==443":    {four},
		"ipv6.addr==2001:db8::1&&udp.port==5000&&ipv6.addr==fe80::2&&udp.port==443": {six, {}},
		"ip.addr==192.0.2.1&&sctp.port==7&&ip.addr==192.0.2.2&&sctp.port==8":        {{}, sctp},
		"eth.addr==02:00:00:00:00:01&&eth.addr==02:00:00:00:00:02&&eapol":           {eapol},
		"(ip.addr==192.0.2.1&&tcp.port==44512&&ip.addr==192.0.2.2&&tcp.port==443)||" +
			"(ip.addr==192.0.2.1&&sctp.port==7&&ip.addr==192.0.2.2&&sctp.port==8)": {four, {}, sctp},
	} {
		if got := Filter(flows...); got != want {
			t.Errorf("%v: %s, want %s", flows, got, want)
		}
	}
}
