package linktype

import (
	"testing"

	"github.com/google/gopacket/layers"
)

// gopacket has part of the list.
func TestNumbers(t *testing.T) {
	for ours, theirs := range map[Type]layers.LinkType{
		Null: layers.LinkTypeNull, Ethernet: layers.LinkTypeEthernet, TokenRing: layers.LinkTypeTokenRing,
		PPP: layers.LinkTypePPP, FDDI: layers.LinkTypeFDDI, PPPoE: layers.LinkTypePPPEthernet,
		ATM: layers.LinkTypeATM_RFC1483, Raw: layers.LinkTypeRaw, CiscoHDLC: layers.LinkTypeC_HDLC,
		IEEE80211: layers.LinkTypeIEEE802_11, FrameRelay: layers.LinkTypeFRelay, Loop: layers.LinkTypeLoop,
		LinuxSLL: layers.LinkTypeLinuxSLL, PFLog: layers.LinkTypePFLog, Prism: layers.LinkTypePrismHeader,
		Radiotap: layers.LinkTypeIEEE80211Radio, IPv4: layers.LinkTypeIPv4, IPv6: layers.LinkTypeIPv6,
	} {
		if int(ours) != int(theirs) {
			t.Errorf("%v is %d in gopacket", ours, theirs)
		}
	}
}

func TestSets(t *testing.T) {
	for n := range 1 << 16 {
		link := Type(n)
		if link.Known() && (link.NoNetwork() || link.Canonical() != link) {
			t.Errorf("%v is known, and also of no network, or another number for a type", link)
		}
		if again := link.Canonical(); again.Canonical() != again || again != link && !again.Known() {
			t.Errorf("%v becomes %v", link, again)
		}
	}
}
