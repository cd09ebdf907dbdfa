package flow

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/sensor/internal/capture"
)

// Packet is one TCP segment or UDP datagram as decoded from a frame. The
// caller owns and reuses it; Payload and Frame are lent as the frame is.
type Packet struct {
	Frame   *capture.Frame
	Payload []byte // captured bytes
	Missing int    // bytes of the payload that the capture's snaplen cut off

	src0, src1, dst0, dst1 uint64

	Key     Key
	Shard   uint8 // of Shards, the same in every run
	Swapped bool  // the source is the second end of the key

	SrcPort, DstPort uint16
	Transport        parsers.Transport

	Seq, Ack uint32
	Flags    uint8 // TCP's, as in the header's 14th byte

	v6   bool
	tags uint8
	vlan uint32 // outer identifier in the upper 12 of 24 bits, inner in the lower
}

// Flags of TCP (RFC 9293, section 3.1).
const (
	flagFIN = 1 << 0
	flagSYN = 1 << 1
	flagRST = 1 << 2
	flagACK = 1 << 4
)

// Class is what a frame turned out to hold.
type Class uint8

// The classes. Frames decoded are the sum over them.
const (
	Segment   Class = iota // a TCP segment
	Datagram               // a UDP datagram
	OtherIP                // another protocol over IP
	NotIP                  // no IP
	Fragment               // an IP fragment
	Malformed              // headers that contradict themselves, or are cut
	Classes                // how many classes there are
)

// String is the name of c in the statistics.
func (c Class) String() string {
	return [...]string{"tcp", "udp", "other_ip", "not_ip", "fragments", "malformed"}[c]
}

// Decoder turns frames into packets. The common stacks (Ethernet, VLAN tags,
// IPv4, IPv6, TCP, UDP) are read at fixed offsets; what is rarer goes through
// gopacket's layers. It is not safe for concurrent use.
type Decoder struct {
	skipper layers.IPv6ExtensionSkipper
	count   [Classes]uint64
}

// Decoded returns how many frames fell in each class.
func (d *Decoder) Decoded() [Classes]uint64 { return d.count }

// Decode reads f into p. Only for Segment and Datagram is all of p set.
func (d *Decoder) Decode(f *capture.Frame, p *Packet) Class {
	p.Frame = f
	p.tags, p.vlan = 0, 0
	c := d.link(f, p)
	if c == Segment || c == Datagram {
		p.Transport = parsers.TCP
		if c == Datagram {
			p.Transport = parsers.UDP
		}
		p.Key, p.Swapped = makeKey(p)
		p.Shard = uint8(p.Key.hash(0) >> (64 - shardBits))
	}
	d.count[c]++
	return c
}

// EtherTypes (IEEE 802 numbers) that are followed.
const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100 // IEEE 802.1Q
	etherQinQ  = 0x88a8 // IEEE 802.1ad
	etherQinQ9 = 0x9100 // before 802.1ad had a number
)

func (d *Decoder) link(f *capture.Frame, p *Packet) Class {
	b := f.Data
	missing := 0
	if int(f.Length) > len(b) {
		missing = int(f.Length) - len(b)
	}
	switch f.LinkType {
	case capture.LinkEthernet:
		if len(b) < 14 {
			return Malformed
		}
		return d.ether(binary.BigEndian.Uint16(b[12:]), b[14:], missing, p)
	case capture.LinkRaw, capture.LinkIPv4, capture.LinkIPv6:
		return d.ip(b, missing, p)
	case capture.LinkNull, capture.LinkLoop:
		// The address family's number differs between systems, and its byte
		// order with the capturing host: the version nibble tells as much.
		if len(b) < 4 {
			return Malformed
		}
		return d.ip(b[4:], missing, p)
	case capture.LinkLinuxSLL:
		if len(b) < 16 {
			return Malformed
		}
		return d.ether(binary.BigEndian.Uint16(b[14:]), b[16:], missing, p)
	case capture.LinkLinuxSLL2:
		if len(b) < 20 {
			return Malformed
		}
		return d.ether(binary.BigEndian.Uint16(b), b[20:], missing, p)
	case capture.LinkPPP:
		return d.pointToPoint(b, missing, p)
	}
	return NotIP
}

// pointToPoint reads PPP (RFC 1661), with or without the address and control
// octets of RFC 1662. The protocol field may be compressed to one octet.
func (d *Decoder) pointToPoint(b []byte, missing int, p *Packet) Class {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) < 2 {
		return Malformed
	}
	proto := uint16(b[0])
	if b[0]&1 != 0 {
		b = b[1:]
	} else {
		proto = proto<<8 | uint16(b[1])
		b = b[2:]
	}
	switch layers.PPPType(proto) {
	case layers.PPPTypeIPv4, layers.PPPTypeIPv6:
		return d.ip(b, missing, p)
	}
	return NotIP
}

// ether reads what follows an EtherType.
func (d *Decoder) ether(proto uint16, b []byte, missing int, p *Packet) Class {
	for {
		switch proto {
		case etherIPv4, etherIPv6:
			return d.ip(b, missing, p)
		case etherVLAN, etherQinQ, etherQinQ9:
			if len(b) < 4 {
				return Malformed
			}
			id := uint32(binary.BigEndian.Uint16(b) & 0xfff)
			switch p.tags {
			case 0:
				p.vlan = id << 12
			case 1:
				p.vlan |= id
			case limitTags:
				return Malformed
			}
			p.tags++
			proto, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		default:
			return NotIP
		}
	}
}

// ip reads an IPv4 or IPv6 packet. missing is how many bytes of the frame were
// not captured.
func (d *Decoder) ip(b []byte, missing int, p *Packet) Class {
	if len(b) < 20 {
		if len(b) == 0 {
			return NotIP
		}
		return Malformed
	}
	switch b[0] >> 4 {
	case 4:
		header := int(b[0]&0x0f) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if total == 0 { // segmentation offload: the card fills it in later
			total = len(b) + missing
		}
		if header < 20 || header > len(b) || total < header {
			return Malformed
		}
		// Offset other than 0, or more fragments to come.
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return Fragment
		}
		p.v6 = false
		p.src0, p.src1 = 0, uint64(binary.BigEndian.Uint32(b[12:]))
		p.dst0, p.dst1 = 0, uint64(binary.BigEndian.Uint32(b[16:]))
		return d.transport(b[9], b[header:], total-header, p)
	case 6:
		if len(b) < 40 {
			return Malformed
		}
		p.v6 = true
		p.src0, p.src1 = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
		p.dst0, p.dst1 = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])
		total := int(binary.BigEndian.Uint16(b[4:]))
		if total == 0 { // segmentation offload, or a jumbogram (RFC 2675)
			total = len(b) - 40 + missing
		}
		next, payload := b[6], b[40:]
		if next != protoTCP && next != protoUDP {
			captured := len(payload)
			var c Class
			next, payload, c = d.extensions(next, payload)
			if c != Segment {
				return c
			}
			total -= captured - len(payload)
		}
		return d.transport(next, payload, total, p)
	}
	return NotIP
}

// IP protocol numbers.
const (
	protoHopByHop    = 0
	protoTCP         = 6
	protoUDP         = 17
	protoRouting     = 43
	protoFragment    = 44
	protoNoNext      = 59
	protoDestination = 60
	protoMobility    = 135
	protoHIP         = 139
	protoShim6       = 140
)

// extensions walks the extension headers of IPv6 (RFC 8200, section 4). The
// class is Segment when payload is that of an upper-layer protocol.
func (d *Decoder) extensions(next uint8, b []byte) (uint8, []byte, Class) {
	for range limitExtensions {
		switch next {
		case protoHopByHop, protoRouting, protoDestination, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return 0, nil, Malformed
			}
			if err := d.skipper.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
				return 0, nil, Malformed
			}
			next, b = b[0], d.skipper.Payload
		case protoFragment:
			if len(b) < 8 {
				return 0, nil, Malformed
			}
			// An atomic fragment (RFC 6946) is whole.
			if binary.BigEndian.Uint16(b[2:])&0xfff9 != 0 {
				return 0, nil, Fragment
			}
			next, b = b[0], b[8:]
		case protoNoNext:
			return 0, nil, OtherIP
		default:
			return next, b, Segment
		}
	}
	return 0, nil, Malformed
}

// transport reads TCP or UDP; size is the length on the wire of what begins at b.
func (d *Decoder) transport(proto uint8, b []byte, size int, p *Packet) Class {
	if len(b) > size {
		if size < 0 {
			return Malformed
		}
		b = b[:size] // what follows is the padding of a short frame
	}
	switch proto {
	case protoTCP:
		if len(b) < 20 {
			return Malformed
		}
		header := int(b[12]>>4) * 4
		if header < 20 || header > size {
			return Malformed
		}
		if header > len(b) {
			// The snaplen cut the options off, and all of the payload.
			p.Missing = size - header
			p.Payload = nil
		} else {
			p.Missing = size - len(b)
			p.Payload = b[header:]
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Seq, p.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		p.Flags = b[13]
		return Segment
	case protoUDP:
		if len(b) < 8 {
			return Malformed
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		length := int(binary.BigEndian.Uint16(b[4:]))
		if length == 0 || length > size { // a jumbogram, or offload
			length = size
		}
		if length < 8 {
			return Malformed
		}
		end := min(length, len(b))
		p.Missing = length - end
		p.Payload = b[8:end]
		p.Seq, p.Ack, p.Flags = 0, 0, 0
		return Datagram
	}
	return OtherIP
}
