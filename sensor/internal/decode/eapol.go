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

// paeGroup is the address of a group to which both sides send while they do not
// know one another, and many always (IEEE 802.1X-2020, section 11.1.1).
const paeGroup = 0x0180c2000003

// stations tells who is meant by a frame to the group address: which side of
// EAP sends it is known, and who signs in to whom from other frames, or from
// the identifier that an answer repeats.
type stations struct {
	list [limitStations]station
	next int // the slot whose turn it is to be used again
}

// station is who signs in, and to whom.
type station struct {
	vlans         uint32
	supplicant    uint64 // 0 while it has not answered
	authenticator uint64 // 0 in a slot that is free
	id            uint8  // of the last packet
}

// partner returns the address of the other side than src; dst is what the frame
// says, and what is returned where nothing better is known.
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
	// A switch may send to all of its ports from one address: the next of a
	// conversation's identifiers tells them apart (RFC 3748, section 4.1).
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

// find returns the station in use that is satisfies, nil when there is none.
func (s *stations) find(is func(*station) bool) *station {
	for i := range s.list {
		if t := &s.list[i]; t.authenticator != 0 && is(t) {
			return t
		}
	}
	return nil
}

// add returns a slot, of the station that was added first if none is free.
func (s *stations) add() *station {
	t := &s.list[s.next]
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
