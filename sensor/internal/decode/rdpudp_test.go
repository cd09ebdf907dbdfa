package decode

import (
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// A flow that begins as Remote Desktop is followed, both ways, for a while;
// others are not, and of many the last are.
func TestFollowed(t *testing.T) {
	var d Decoder
	idle := func(port uint16, back bool, payload []byte) bool {
		ip := ipv4(layers.IPProtocolUDP)
		l := udp(ip)
		l.SrcPort, l.DstPort = layers.UDPPort(port), 3389
		if back {
			ip.SrcIP, ip.DstIP, l.SrcPort, l.DstPort = ip.DstIP, ip.SrcIP, l.DstPort, l.SrcPort
		}
		var p Packet
		if c := d.Decode(frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), ip, l, gopacket.Payload(payload))), &p); c != Datagram {
			t.Fatalf("%v", c)
		}
		return p.Idle()
	}
	syn := slices.Concat(hex("ff ff ff ff 00 40 00 01 11 22 33 44 04 d0 04 d0"), make([]byte, 1216))
	data := []byte("like nothing")
	if !idle(1, false, data) || idle(1, false, syn) || idle(1, false, data) || idle(1, true, data) || !idle(2, false, data) {
		t.Error("the wrong flow is followed")
	}
	for range limitFollowing {
		idle(1, false, data)
	}
	if !idle(1, false, data) || idle(1, false, syn) {
		t.Error("followed for ever, or never again")
	}
	for port := range uint16(3 * limitFollowed) {
		idle(100+port, false, syn)
	}
	if !idle(1, false, data) || !idle(100, false, data) || idle(100+3*limitFollowed-1, false, data) {
		t.Error("not the last are followed")
	}
	const evicted = 1 + 3*limitFollowed - limitFollowed
	if n := d.Remembered().EvictedRDP; n != evicted {
		t.Errorf("%d flows are counted as evicted, %d were", n, evicted)
	}
	d.Reset()
	if n := d.Remembered().EvictedRDP; n != evicted {
		t.Errorf("after the next capture began, %d", n)
	}
}

// Nothing of a followed datagram is left in a packet that is used again.
func TestFollowedLeavesNothing(t *testing.T) {
	syn := slices.Concat(hex("ff ff ff ff 00 40 00 01 11 22 33 44 04 d0 04 d0"), make([]byte, 1216))
	ip := ipv4(layers.IPProtocolUDP)
	begins := frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), ip, udp(ip), gopacket.Payload(syn)))
	over := ipv4(layers.IPProtocolTCP)
	for name, f := range map[string]*capture.Frame{
		"EAP":      frame(linktype.Ethernet, eapolFrame(t, 1, 2, -1, layers.EAPCodeRequest, 1)),
		"segment":  frame(linktype.Ethernet, build(t, ethernet(layers.EthernetTypeIPv4), over, tcp(over), gopacket.Payload("x"))),
		"datagram": frame(linktype.Ethernet, overUDP4(t, 50001, 9999, []byte("like nothing"))),
	} {
		var d Decoder
		var used, fresh Packet
		if d.Decode(begins, &used); used.Idle() {
			t.Fatal("not followed")
		}
		c := d.Decode(f, &used)
		if d.Decode(f, &fresh) != c || used.Idle() != fresh.Idle() || used.Transport != fresh.Transport || used.Kind != fresh.Kind {
			t.Errorf("%s: %v, idle %v, %v; in a fresh packet idle %v, %v", name, c, used.Idle(), used.Kind, fresh.Idle(), fresh.Kind)
		}
	}
}
