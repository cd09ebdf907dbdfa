package decode

import (
	"net"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Who talks in the tests of EAPOL, and the group address.
const (
	peer1     = 0x021122334455
	peer2     = 0x021122334466
	switchMAC = 0x02aabbccddee
)

// eapBytes is the length of their packets.
const eapBytes = 100

// eapolFrame is a frame with an EAP packet of EAP-TLS, as gopacket makes it.
func eapolFrame(t testing.TB, src, dst uint64, vlan int, code layers.EAPCode, id uint8) []byte {
	t.Helper()
	a, b := macOf(src), macOf(dst)
	l := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: net.HardwareAddr(a[:]), DstMAC: net.HardwareAddr(b[:]), EthernetType: layers.EthernetTypeEAPOL}}
	if vlan >= 0 {
		l[0].(*layers.Ethernet).EthernetType = layers.EthernetTypeDot1Q
		l = append(l, &layers.Dot1Q{VLANIdentifier: uint16(vlan), Type: layers.EthernetTypeEAPOL})
	}
	packet := append([]byte{byte(code), id, 0, eapBytes, 13}, text(eapBytes-5)...)
	l = append(l, &layers.EAPOL{Version: 2, Type: layers.EAPOLTypeEAP, Length: eapBytes}, gopacket.Payload(packet))
	return build(t, l...)
}

func TestEAPOLFlows(t *testing.T) {
	const asks, answers = layers.EAPCodeRequest, layers.EAPCodeResponse
	type step struct {
		src, dst uint64
		vlan     int
		code     layers.EAPCode
		id       uint8
		from, to uint64 // the ends of its flow
	}
	for name, steps := range map[string][]step{
		"to one another": {
			{switchMAC, peer1, -1, asks, 7, switchMAC, peer1}, {peer1, switchMAC, -1, answers, 7, peer1, switchMAC},
		},
		"the peer to the group": {
			{switchMAC, peer1, -1, asks, 7, switchMAC, peer1}, {peer1, paeGroup, -1, answers, 7, peer1, switchMAC},
			{switchMAC, peer1, -1, asks, 8, switchMAC, peer1}, {peer1, paeGroup, -1, answers, 8, peer1, switchMAC},
		},
		"both to the group": {
			{switchMAC, paeGroup, -1, asks, 7, switchMAC, paeGroup}, // its identity is asked for: who, nobody knows
			{peer1, paeGroup, -1, answers, 7, peer1, switchMAC},
			{switchMAC, paeGroup, -1, asks, 8, switchMAC, peer1}, {peer1, paeGroup, -1, answers, 8, peer1, switchMAC},
		},
		"two at a switch": {
			{switchMAC, paeGroup, -1, asks, 7, switchMAC, paeGroup}, {peer1, paeGroup, -1, answers, 7, peer1, switchMAC},
			{switchMAC, paeGroup, -1, asks, 90, switchMAC, paeGroup}, {switchMAC, paeGroup, -1, asks, 8, switchMAC, peer1},
			{peer2, paeGroup, -1, answers, 90, peer2, switchMAC}, {switchMAC, paeGroup, -1, asks, 91, switchMAC, peer2},
			{switchMAC, paeGroup, -1, asks, 8, switchMAC, peer1}, {peer1, paeGroup, -1, answers, 8, peer1, switchMAC},
			{peer2, paeGroup, -1, answers, 91, peer2, switchMAC},
		},
		"in other VLANs": {
			{switchMAC, peer1, 5, asks, 7, switchMAC, peer1}, {peer1, paeGroup, 6, answers, 7, peer1, paeGroup},
			{peer1, paeGroup, 5, answers, 7, peer1, switchMAC},
		},
		"one side": {
			{peer1, paeGroup, -1, answers, 7, peer1, paeGroup}, {peer1, paeGroup, -1, answers, 8, peer1, paeGroup},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			for i, s := range steps {
				var p Packet
				data := eapolFrame(t, s.src, s.dst, s.vlan, s.code, s.id)
				if c := d.Decode(frame(linktype.Ethernet, data), &p); c != EAP {
					t.Fatalf("%d: %v", i, c)
				}
				from, to := p.Key.MACs()
				if p.Swapped {
					from, to = to, from
				}
				if from != macOf(s.from) || to != macOf(s.to) || p.Key.Transport() != event.EAPOL || p.Transport != event.EAPOL {
					t.Errorf("%d: from %x to %x over %d", i, from, to, p.Key.Transport())
				}
				if low, high := p.Key.Endpoints(); low.IsValid() || high.IsValid() {
					t.Errorf("%d: IP addresses %v and %v", i, low, high)
				}
				if ids, n := p.VLANs().IDs(); (s.vlan >= 0) != (n == 1 && int(ids[0]) == s.vlan) {
					t.Errorf("%d: VLANs %v", i, ids)
				}
				if got := string(p.Payload); got != string(data[len(data)-len(got):]) || len(got) != eapBytes {
					t.Errorf("%d: packet %q", i, got)
				}
				if p.Idle() || p.Kind != Handshake {
					t.Errorf("%d: idle %v, %v", i, p.Idle(), p.Kind)
				}
				// Both ways are one flow.
				var q Packet
				if d.Decode(frame(linktype.Ethernet, eapolFrame(t, s.to, s.from, s.vlan, s.code, s.id+100)), &q); s.to != paeGroup && (q.Key != p.Key || q.Swapped == p.Swapped || q.Shard != p.Shard) {
					t.Errorf("%d: the way back is another flow", i)
				}
			}
		})
	}
}

// Frames of IEEE 802.11, cut ones, and those without an EAP packet.
func TestEAPOLFrames(t *testing.T) {
	ether := eapolFrame(t, switchMAC, peer1, -1, layers.EAPCodeRequest, 7)
	mac := func(n uint64) []byte { b := macOf(n); return b[:] }
	radio := slices.Concat(hex("08 02 00 00"), mac(peer1), mac(switchMAC), mac(switchMAC), hex("20 00"), hex("aa aa 03 00 00 00 88 8e"), ether[14:])
	start := slices.Concat(ether[:14], hex("01 01 00 00"))
	cut := frame(linktype.Ethernet, ether)
	cut.Data = ether[:len(ether)-5]
	for _, c := range []struct {
		name    string
		f       *capture.Frame
		class   Class
		missing int
	}{
		{"802.11", frame(linktype.IEEE80211, radio), EAP, 0},
		{"padded", frame(linktype.Ethernet, append(slices.Clone(ether), make([]byte, 20)...)), EAP, 0},
		{"cut", cut, EAP, 5},
		{"EAPOL-Start", frame(linktype.Ethernet, start), NotIP, 0},
		{"no address", frame(linktype.PPP, slices.Concat(hex("0f 00 88 8e"), ether[14:])), NotIP, 0},
	} {
		var d Decoder
		var p Packet
		if got := d.Decode(c.f, &p); got != c.class {
			t.Errorf("%s: %v", c.name, got)
			continue
		}
		if c.class != EAP {
			continue
		}
		if k := p.Key; p.Missing != c.missing || !k.isMAC() || k.Low[1] != peer1 || k.High[1] != switchMAC || !p.Swapped {
			t.Errorf("%s: %d bytes missing, key %+v", c.name, p.Missing, p.Key)
		}
	}
}

// However many pretend to sign in, no more than the limit are remembered, and
// who signs in meanwhile is.
func TestStationsFlood(t *testing.T) {
	var s stations
	for i := range uint64(10 * limitStations) {
		s.partner(0, 0x020000000000+i, paeGroup, i%2 == 0, uint8(i))
		if i%100 == 0 {
			s.partner(0, switchMAC, peer1, false, 1)
		}
	}
	if got := s.partner(0, peer1, paeGroup, true, 1); got != switchMAC {
		t.Errorf("the partner is %012x", got)
	}
	if least := uint64(5*limitStations + 1 - limitStations); s.evicted < least { // every other one is an answer to nobody
		t.Errorf("%d stations are counted as evicted, at least %d were", s.evicted, least)
	}
}

// FuzzStations gives EAPOL frames of a few stations: who is found at the other
// end was in a frame, and nobody else than the frame says if that is one.
func FuzzStations(f *testing.F) {
	f.Add([]byte("\x08\x01\x00\x01\x08\x02"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s stations
		for ; len(in) >= 2; in = in[2:] {
			src, dst := uint64(in[0]&7)+1, uint64(in[0]>>3&7)+1
			if in[0]&0x40 != 0 {
				dst = paeGroup
			}
			got := s.partner(0, src, dst, in[0]&0x80 != 0, in[1])
			if got == 0 || got > 8 && got != paeGroup || dst != paeGroup && got != dst {
				t.Fatalf("from %x to %x: %x", src, dst, got)
			}
		}
	})
}
