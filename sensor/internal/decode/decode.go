// Package decode turns a frame into the packets that it carries: it takes off
// link layers, tags and tunnels, puts fragments of IP and user messages of SCTP
// together, and ends at a TCP segment, UDP datagram, user message or EAP packet
// with the key of its flow. It keeps no flows: package flow does.
//
// A malformed frame is data here and never an error: it gets a class and a name,
// and is counted. What cannot be read is counted by what it carries.
package decode

import (
	"encoding/binary"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/ethertype"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Decoder turns frames into packets. The common stacks (Ethernet, VLAN tags,
// IPv4, IPv6, TCP, UDP) are read at fixed offsets, and everything else by
// functions that these call when they meet it. The zero value is ready. It is
// not safe for concurrent use.
type Decoder struct {
	// VLANs are EtherTypes that mark VLAN tags, beside those of the standards.
	// They are set before the first frame.
	VLANs []uint16

	fragments fragments
	stations  *stations // nil before the first EAP packet
	followed  *followed // nil before the first datagram of Remote Desktop
	count     [Classes]uint64
	unread    Unread
	weirds    Weirds
	content   content // of the frame at hand, where it holds no packet
	weird     weird   // of the frame at hand, where it is malformed

	rest      []byte // of an A-MSDU: what Next has to read
	restCut   int    // bytes missing at its end
	container Packet // and what it was found in

	versions   []assembly // of fragments: what else Next has to read
	fragmented Packet     // and what it came in

	pieces []Piece // of the frame at hand

	messages   *messages // nil before the first user message of SCTP
	chunks     []byte    // of an SCTP packet: what Next has to read
	chunksSize int       // and its length on the wire
	bundle     Packet    // and what it came in

	remembered RememberedStats // of captures before this one

	aggregating bool
	timestamp   int // see ciscoTimestamp
}

// Decoded returns how many frames are of each class.
func (d *Decoder) Decoded() [Classes]uint64 { return d.count }

// Unread returns what the frames of the classes OtherIP and NotIP carry.
func (d *Decoder) Unread() Unread { return d.unread.clone() }

// Weirds returns what is wrong with the frames of the class Malformed.
func (d *Decoder) Weirds() Weirds { return d.weirds.clone() }

// Fragments returns what became of the fragments.
func (d *Decoder) Fragments() FragmentStats { return d.fragments.stats }

// Messages returns what became of the user messages of SCTP.
func (d *Decoder) Messages() MessageStats {
	if d.messages == nil {
		return MessageStats{}
	}
	return d.messages.stats
}

// RememberedStats counts what a decoder has forgotten of other frames to make room.
type RememberedStats struct {
	EvictedStations uint64 `json:"evicted_stations"` // who sign in over EAPOL: their two directions may be two flows
	EvictedRDP      uint64 `json:"evicted_rdp"`      // flows of Remote Desktop over UDP, before their handshake can be over
}

// Add adds o to s.
func (s *RememberedStats) Add(o RememberedStats) {
	s.EvictedStations += o.EvictedStations
	s.EvictedRDP += o.EvictedRDP
}

// Remembered returns what was forgotten of other frames.
func (d *Decoder) Remembered() RememberedStats {
	s := d.remembered
	if d.stations != nil {
		s.EvictedStations += d.stations.evicted
	}
	if d.followed != nil {
		s.EvictedRDP += d.followed.evicted
	}
	return s
}

// Reset forgets all that the frames so far have left, except the counts: the next
// frame is of another capture.
func (d *Decoder) Reset() {
	d.fragments.reset()
	if d.messages != nil {
		d.messages.reset()
	}
	d.remembered = d.Remembered()
	d.stations, d.followed = nil, nil
	d.rest = nil
}

// Decode reads f into p. p holds a packet where the class is Segment, EAP, Message
// or Datagram, which are the classes up to Datagram. The frame may then hold more
// packets, which [Decoder.Next] reads.
func (d *Decoder) Decode(f *capture.Frame, p *Packet) Class {
	p.Frame = f
	p.tags, p.snaps, p.vlan = 0, 0, 0
	p.tunnels, p.assembled = tunnels{}, 0
	d.content = noContent
	if len(d.rest) > 0 {
		d.rest = nil
	}
	if len(d.versions) > 0 {
		d.versions = nil
	}
	if len(d.chunks) > 0 {
		d.chunks = nil
	}
	if len(d.pieces) > 0 {
		d.pieces = d.pieces[:0]
	}
	missing := max(int(f.Length)-len(f.Data), 0)
	var c Class
	if f.LinkType == linktype.Ethernet {
		c = d.ethernet(f.Data, missing, p)
	} else {
		p.SrcMAC, p.DstMAC = nil, nil
		c = d.link(f.LinkType, f.Data, missing, p)
	}
	switch {
	case c <= Datagram:
		d.finish(p, c)
	case c == Malformed:
		d.weirds.add(d.weird, 1)
	case d.content != noContent && c <= NotIP:
		d.unread.add(d.content, 1)
	}
	d.count[c]++
	return c
}

// Next reads the next packet of the frame that was decoded last into p, and
// reports whether there was one. An A-MSDU of 802.11 and an SCTP packet carry
// several, and fragments that contradict one another make several.
func (d *Decoder) Next(p *Packet) bool {
	return len(d.rest)|len(d.chunks)|len(d.versions) != 0 && d.another(p)
}

// another goes from the inside out: what is left of one packet would be lost where the
// next, which may hold the same, were read before.
func (d *Decoder) another(p *Packet) bool {
	return len(d.chunks) > 0 && d.nextMessage(p) || len(d.versions) > 0 && d.nextVersion(p) || len(d.rest) > 0 && d.nextAggregated(p)
}

// ethernet reads an Ethernet frame.
func (d *Decoder) ethernet(b []byte, missing int, p *Packet) Class {
	if len(b) < 14 {
		return d.malformed(truncatedEthernet)
	}
	p.DstMAC, p.SrcMAC = (*[6]byte)(b), (*[6]byte)(b[6:])
	proto := binary.BigEndian.Uint16(b[12:])
	if proto == ethertype.IPv4 || proto == ethertype.IPv6 {
		return d.ip(b[14:], missing, p)
	}
	return d.ether(proto, b[14:], missing, p)
}

// finish sets what follows from the headers of a packet of class c.
func (d *Decoder) finish(p *Packet, c Class) {
	switch c {
	case Segment:
		p.Transport, p.Kind = event.TCP, Stream
		if p.idle = len(p.Payload) == 0 && p.Missing == 0 && p.Flags&FlagsControl == 0; p.idle {
			return
		}
	case Datagram:
		p.Transport, p.Kind = event.UDP, kindOf(p.Payload)
		p.idle = p.Kind != Handshake
		if p.Kind == Unknown && d.followed == nil {
			return
		}
		p.Address()
		if d.follows(p) {
			p.idle = false
			if p.Kind == Unknown {
				p.Kind = Followed
			}
		}
		return
	case Message:
		p.Transport, p.Kind = event.SCTP, kindOf(p.Payload)
		p.idle = p.Kind != Handshake
	default:
		p.Transport, p.Kind = event.EAPOL, Unknown
		if p.idle = !parsers.LooksEAP(p.Payload); !p.idle {
			p.Kind = Handshake
		}
	}
	p.Address()
}

// kindOf returns what the payload of a datagram or user message looks like.
func kindOf(payload []byte) Kind {
	switch {
	case parsers.Looks(payload):
		return Handshake
	case parsers.LooksEncrypted(payload):
		return Encrypted
	}
	return Unknown
}

// Deal reads who talks to whom in f, where f has one of the common stacks. That
// is enough to know the shard, which it sets in p, and any decoder can then read
// the frame, such as that of the shard's owner. Where ok is false only the
// decoder that sees all frames can. A frame that is idle (see [Packet.Idle])
// is counted here, and need not be decoded.
func (d *Decoder) Deal(f *capture.Frame, p *Packet) (idle, ok bool) {
	b := f.Data
	if f.LinkType != linktype.Ethernet || len(b) < 14 {
		return false, false
	}
	proto := binary.BigEndian.Uint16(b[12:])
	b = b[14:]
	p.tags, p.vlan = 0, 0
	if proto == ethertype.VLAN && len(b) >= 4 {
		p.tags, p.vlan = 1, uint32(binary.BigEndian.Uint16(b)&0xfff)<<12
		proto, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	var size int // of the segment, on the wire
	switch {
	case proto == ethertype.IPv4 && len(b) >= 40 && b[0] == 0x45 && b[9] == protoTCP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0:
		p.v6 = false
		p.src0, p.src1 = 0, uint64(binary.BigEndian.Uint32(b[12:]))
		p.dst0, p.dst1 = 0, uint64(binary.BigEndian.Uint32(b[16:]))
		size, b = int(binary.BigEndian.Uint16(b[2:]))-20, b[20:]
	case proto == ethertype.IPv6 && len(b) >= 60 && b[0]>>4 == 6 && b[6] == protoTCP:
		p.v6 = true
		p.src0, p.src1 = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
		p.dst0, p.dst1 = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])
		size, b = int(binary.BigEndian.Uint16(b[4:])), b[40:]
	default:
		return false, false
	}
	header := int(b[12]>>4) * 4
	if size == header && header >= 20 && b[13]&FlagsControl == 0 {
		d.count[Segment]++
		return true, true
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.Transport = event.TCP
	p.setKey()
	p.Shard = p.Key.shard()
	return false, true
}

// ether reads what follows an EtherType, or the length field of IEEE 802.3.
// missing is, here as everywhere, how many bytes of the frame were not
// captured: they would follow on b.
func (d *Decoder) ether(proto uint16, b []byte, missing int, p *Packet) Class {
	for range limitTags + 1 {
		if proto == ethertype.IPv4 || proto == ethertype.IPv6 {
			return d.ip(b, missing, p)
		}
		n, known := 4, d.isVLAN(proto)
		if known && len(b) >= 4 {
			id := uint32(binary.BigEndian.Uint16(b) & 0xfff)
			switch p.tags {
			case 0:
				p.vlan = id << 12
			case 1:
				p.vlan |= id
			}
			p.tags++
		} else if !known {
			n, known = d.tagLength(proto, b)
		}
		switch {
		case !known:
			return d.etherPayload(proto, b, missing, p)
		case n == 0:
			return d.carries(ofEther | content(proto))
		case len(b) < n:
			return d.malformed(truncatedTag)
		}
		proto, b = binary.BigEndian.Uint16(b[n-2:]), b[n:]
	}
	return d.malformed(excessiveTags)
}
