package decode

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers/eap"
	"github.com/oddcert/oddcert/sensor/internal/ethertype"
)

// eapol reads a frame of IEEE 802.1X that holds an EAP packet. Its flow is
// between two MAC addresses.
func (d *Decoder) eapol(b []byte, missing int, p *Packet) Class {
	packet, length, ok := eap.ParseEAPOL(b)
	if !ok || p.SrcMAC == nil {
		return d.carries(ofEther | ethertype.EAPOL)
	}
	p.Payload, p.segment = packet, nil
	p.Missing = min(length-len(packet), missing)
	p.SrcPort, p.DstPort = 0, 0
	p.Seq, p.Ack, p.Flags = 0, 0, 0
	p.v6 = false
	src, dst := macNumber(p.SrcMAC), uint64(paeGroup)
	if p.DstMAC != nil {
		dst = macNumber(p.DstMAC)
	}
	if len(packet) >= 2 {
		if d.stations == nil {
			d.stations = new(stations)
		}
		dst = d.stations.partner(uint32(p.tags)<<24|p.vlan, src, dst, packet[0] == eap.Response, packet[1])
	}
	p.src0, p.src1, p.dst0, p.dst1 = macWord, src, macWord, dst
	return EAP
}

// paeGroup is the group address to which both sides send while they do not know one
// another, and to which many send always (IEEE 802.1X-2020, section 11.1.1).
const paeGroup = 0x0180c2000003

// stations finds the receiver of a frame to the group address. The code of an EAP
// packet gives its side; who signs in to whom is known from other frames, or from
// the identifier that an answer repeats.
type stations struct {
	list    [limitStations]station
	next    int    // the slot that is used next
	evicted uint64 // stations, to make room for others
}

// station is who signs in, and to whom.
type station struct {
	vlans         uint32
	supplicant    uint64 // 0 while it has not answered
	authenticator uint64 // 0 in a slot that is free
	id            uint8  // of the last packet
}

// partner returns the address of the side that src talks to. dst is the destination
// in the frame; it is returned where nothing better is known.
func (s *stations) partner(vlans uint32, src, dst uint64, response bool, id uint8) uint64 {
	if dst != paeGroup {
		supplicant, authenticator := dst, src
		if response {
			supplicant, authenticator = src, dst
		}
		t := s.find(func(t *station) bool { return t.supplicant == supplicant && t.vlans == vlans })
		if t == nil {
			t = s.add()
		}
		*t = station{vlans, supplicant, authenticator, id}
		return dst
	}
	var t *station
	if response {
		t = s.find(func(t *station) bool { return t.supplicant == src && t.vlans == vlans })
		if t == nil {
			t = s.find(func(t *station) bool { return t.supplicant == 0 && t.id == id && t.vlans == vlans })
		}
		if t == nil {
			return dst
		}
		t.supplicant, t.id = src, id
		return t.authenticator
	}
	// A switch may send to all of its ports from one address. A conversation goes on
	// with the next identifier (RFC 3748, section 4.1).
	for ahead := range uint8(2) {
		if t = s.find(func(t *station) bool { return t.authenticator == src && t.vlans == vlans && t.id+ahead == id }); t != nil {
			break
		}
	}
	if t == nil {
		t = s.add()
		*t = station{vlans: vlans, authenticator: src}
	}
	t.id = id
	if t.supplicant == 0 {
		return dst
	}
	return t.supplicant
}

// find returns the first station in use for which is returns true, nil when there is
// none.
func (s *stations) find(is func(*station) bool) *station {
	for i := range s.list {
		if t := &s.list[i]; t.authenticator != 0 && is(t) {
			return t
		}
	}
	return nil
}

// add returns a slot: a free one, or else that of the oldest station.
func (s *stations) add() *station {
	t := &s.list[s.next]
	if t.authenticator != 0 {
		s.evicted++
	}
	s.next = (s.next + 1) % limitStations
	return t
}

// macNumber and macOf turn MAC addresses into numbers and back.
func macNumber(mac *[6]byte) uint64 {
	return uint64(binary.BigEndian.Uint16(mac[:]))<<32 | uint64(binary.BigEndian.Uint32(mac[2:]))
}

func macOf(n uint64) (mac [6]byte) {
	binary.BigEndian.PutUint16(mac[:], uint16(n>>32))
	binary.BigEndian.PutUint32(mac[2:], uint32(n))
	return mac
}
