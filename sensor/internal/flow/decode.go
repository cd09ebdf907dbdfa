package flow

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/oddcert/oddcert/parsers"
	"github.com/oddcert/oddcert/parsers/event"
	"github.com/oddcert/oddcert/sensor/internal/capture"
	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Packet is one TCP segment, UDP datagram, user message of SCTP or EAP packet as decoded from a frame. The
// caller owns and reuses it; Payload and Frame are lent as the frame is. The
// payload of a datagram that came in fragments is memory of its own, which the
// decoder does not use again.
type Packet struct {
	Frame   *capture.Frame // the one that completed it
	Payload []byte         // captured bytes
	Missing int            // bytes of the payload that the capture's snaplen cut off

	src0, src1, dst0, dst1 uint64

	Key     Key
	hash    uint64 // of Key, for the tables of trackers
	near    uint64 // see Tracker.Touch
	Shard   uint8  // of Shards, the same in every run
	Swapped bool   // the source is the second end of the key

	SrcPort, DstPort uint16
	Transport        event.Transport

	Seq, Ack uint32
	Flags    uint8 // TCP's, as in the header's 14th byte

	// What a checksum is computed over: the captured bytes of the segment or
	// datagram from its header on, with the addresses above.
	segment     []byte
	unsummed    bool // the headers do not say what the checksum is of
	reassembled bool // from fragments

	v6    bool
	tags  uint8
	snaps uint8  // LLC headers
	vlan  uint32 // outer identifier in the upper 12 of 24 bits, inner in the lower

	followed bool // a datagram of a flow whose later ones look like nothing
	idle     bool // see Idle

	tunnels        stack
	srcMAC, dstMAC *[6]byte // of the innermost frame that has any
}

// Flags of TCP (RFC 9293, section 3.1).
const (
	flagFIN = 1 << 0
	flagSYN = 1 << 1
	flagRST = 1 << 2
	flagACK = 1 << 4

	flagsOfNote = flagSYN | flagFIN | flagRST // without payload too
)

// Class is what a frame turned out to hold.
type Class uint8

// The classes. Frames decoded are the sum over them.
const (
	Segment   Class = iota // a TCP segment
	EAP                    // an EAP packet over EAPOL
	Message                // a user message of SCTP
	Datagram               // a UDP datagram
	OtherIP                // another protocol over IP
	NotIP                  // no IP
	Fragment               // a fragment that completes nothing
	Malformed              // headers that contradict themselves, are cut, or nest too deep
	Classes                // how many classes there are
)

// String is the name of c in the statistics.
func (c Class) String() string {
	return [...]string{"tcp", "eapol", "sctp", "udp", "other_ip", "not_ip", "fragments", "malformed"}[c]
}

// Decoder turns frames into packets. The common stacks (Ethernet, VLAN tags,
// IPv4, IPv6, TCP, UDP) are read at fixed offsets, and everything else by
// functions that these call when they meet it. The zero value is ready. It is
// not safe for concurrent use.
type Decoder struct {
	// VLANs are EtherTypes that mark VLAN tags, beside those of the standards.
	// They are set before the first frame.
	VLANs []uint16

	skipper   layers.IPv6ExtensionSkipper
	fragments fragments
	stations  *stations // nil before the first EAP
	followed  *followed // nil before the first of Remote Desktop
	count     [Classes]uint64
	unread    Unread
	content   content // of the frame at hand, where it is no packet

	rest      []byte // of an A-MSDU: what Next has to read
	restCut   int    // bytes missing at its end
	container Packet // and what it was found in

	versions   []assembly // of fragments: what else Next has to read
	fragmented Packet     // and what it came in

	messages   *messages // nil before the first user message of SCTP
	chunks     []byte    // of an SCTP packet: what Next has to read
	chunksSize int       // and its length on the wire
	bundle     Packet    // and what it came in

	aggregating bool
	timestamp   int // see ciscoTimestamp
}

// Decoded returns how many frames fell in each class.
func (d *Decoder) Decoded() [Classes]uint64 { return d.count }

// Unread returns what the frames of the classes OtherIP and NotIP carry.
func (d *Decoder) Unread() Unread { return d.unread.clone() }

// Fragments returns what became of the fragments.
func (d *Decoder) Fragments() FragmentStats { return d.fragments.stats }

// Messages returns what became of the user messages of SCTP.
func (d *Decoder) Messages() MessageStats {
	if d.messages == nil {
		return MessageStats{}
	}
	return d.messages.stats
}

// Decode reads f into p. Only for Segment, EAP, Message and Datagram is all of p set, but
// for its place in the tables where it is idle and not sealed. Then the frame
// may hold more than one packet: [Decoder.Next] reads the others.
func (d *Decoder) Decode(f *capture.Frame, p *Packet) Class {
	p.Frame = f
	p.tags, p.snaps, p.vlan = 0, 0, 0
	p.tunnels = stack{}
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
	missing := max(int(f.Length)-len(f.Data), 0)
	var c Class
	if f.LinkType == linktype.Ethernet {
		c = d.ethernet(f.Data, missing, p)
	} else {
		p.srcMAC, p.dstMAC = nil, nil
		c = d.link(f.LinkType, f.Data, missing, p)
	}
	if c <= Datagram {
		d.finish(p, c)
	} else if d.content != noContent && c <= NotIP {
		d.unread.add(d.content, 1)
	}
	d.count[c]++
	return c
}

// Next reads the next packet of the frame that was decoded last into p, and
// says whether there was one. The A-MSDU of 802.11 and SCTP carry several,
// and fragments that contradict one another make several.
func (d *Decoder) Next(p *Packet) bool {
	return len(d.rest)|len(d.chunks)|len(d.versions) != 0 && d.another(p)
}

func (d *Decoder) another(p *Packet) bool {
	return len(d.rest) > 0 && d.next(p) || len(d.chunks) > 0 && d.nextMessage(p) || len(d.versions) > 0 && d.nextVersion(p)
}

func (d *Decoder) next(p *Packet) bool {
	b := d.rest
	*p = d.container
	d.rest, d.container = nil, Packet{}
	c := d.aggregate(b, d.restCut, p)
	if c > Datagram {
		return false
	}
	d.finish(p, c)
	return true
}

// ethernet reads an Ethernet frame.
func (d *Decoder) ethernet(b []byte, missing int, p *Packet) Class {
	if len(b) < 14 {
		return Malformed
	}
	p.dstMAC, p.srcMAC = (*[6]byte)(b), (*[6]byte)(b[6:])
	proto := binary.BigEndian.Uint16(b[12:])
	if proto == etherIPv4 || proto == etherIPv6 {
		return d.ip(b[14:], missing, p)
	}
	return d.ether(proto, b[14:], missing, p)
}

// finish sets what follows from the headers of a packet of class c.
func (d *Decoder) finish(p *Packet, c Class) {
	switch c {
	case Segment:
		p.Transport = event.TCP
		if p.idle = len(p.Payload) == 0 && p.Missing == 0 && p.Flags&flagsOfNote == 0; p.idle {
			return
		}
	case Datagram:
		p.Transport = event.UDP
		p.idle = !parsers.Looks(p.Payload)
		if p.idle && d.followed == nil && !p.Sealed() {
			p.followed = false
			return
		}
		p.Address()
		p.followed = d.follows(p)
		p.idle = p.idle && !p.followed
		return
	case Message:
		p.Transport = event.SCTP
		p.followed = false
		p.idle = !parsers.Looks(p.Payload)
	default:
		p.Transport = event.EAPOL
		p.followed = false
		p.idle = !parsers.LooksEAP(p.Payload)
	}
	p.Address()
}

// Idle says that p is not worth a look-up: a bare acknowledgement, since the
// next segment with payload acknowledges the same, or a datagram that looks like
// no handshake. A tracker need not be told of it.
func (p *Packet) Idle() bool { return p.idle }

// Sealed says that p may be of the encrypted part of a DTLS 1.3 handshake. It is
// idle, but of use to a parser that has keys.
func (p *Packet) Sealed() bool {
	return (p.Transport == event.UDP || p.Transport == event.SCTP) && parsers.LooksSealed(p.Payload)
}

// Address sets the key of p and where that leads. Decode does it for all packets
// but those that are idle.
func (p *Packet) Address() {
	p.setKey()
	p.Shard = p.Key.shard()
	p.hash = p.Key.hash(tableSeed)
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
	if proto == etherVLAN && len(b) >= 4 {
		p.tags, p.vlan = 1, uint32(binary.BigEndian.Uint16(b)&0xfff)<<12
		proto, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	var size int // of the segment, on the wire
	switch {
	case proto == etherIPv4 && len(b) >= 40 && b[0] == 0x45 && b[9] == protoTCP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0:
		p.v6 = false
		p.src0, p.src1 = 0, uint64(binary.BigEndian.Uint32(b[12:]))
		p.dst0, p.dst1 = 0, uint64(binary.BigEndian.Uint32(b[16:]))
		size, b = int(binary.BigEndian.Uint16(b[2:]))-20, b[20:]
	case proto == etherIPv6 && len(b) >= 60 && b[0]>>4 == 6 && b[6] == protoTCP:
		p.v6 = true
		p.src0, p.src1 = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
		p.dst0, p.dst1 = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])
		size, b = int(binary.BigEndian.Uint16(b[4:])), b[40:]
	default:
		return false, false
	}
	header := int(b[12]>>4) * 4
	if size == header && header >= 20 && b[13]&flagsOfNote == 0 {
		d.count[Segment]++
		return true, true
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.Transport = event.TCP
	p.setKey()
	p.Shard = p.Key.shard()
	return false, true
}

// EtherTypes (IEEE 802 numbers) that are followed.
const (
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	etherVLAN   = 0x8100 // IEEE 802.1Q
	etherQinQ   = 0x88a8 // IEEE 802.1ad
	etherQinQ91 = 0x9100 // before 802.1ad had a number, as the two below
	etherQinQ92 = 0x9200
	etherQinQ93 = 0x9300

	etherBridging  = 0x6558 // an Ethernet frame, in tunnels
	etherMPLS      = 0x8847
	etherMPLSMulti = 0x8848
	etherPPPoE     = 0x8864 // the session stage
	etherPPP       = 0x880b // in GRE
	etherWCCP      = 0x883e // in GRE
	etherERSPAN    = 0x88be // in GRE
	etherERSPAN3   = 0x22eb // in GRE, type III; others use the number above for it
	etherPBB       = 0x88e7 // IEEE 802.1ah
	etherMACsec    = 0x88e5 // IEEE 802.1AE
	etherMetadata  = 0x8909 // Cisco's tag with the sender's security group
	etherVNTag     = 0x8926 // Cisco's, from which IEEE 802.1BR was made
	etherETag      = 0x893f // IEEE 802.1BR
	etherHSR       = 0x892f // IEC 62439-3; PRP, in the same standard, has a trailer
	etherRTag      = 0xf1c1 // IEEE 802.1CB
	etherTTag      = 0x8988 // a time stamp, of Cisco's switches
	etherArista    = 0xd28b // a time stamp, of Arista's switches
	etherFabric    = 0x8903 // Cisco's FabricPath
	etherTRILL     = 0x22f3 // RFC 6325
	etherNSH       = 0x894f // RFC 8300
	etherJumboLLC  = 0x8870 // LLC in a frame that is longer than its length field can say
	etherEAPOL     = 0x888e // IEEE 802.1X
	etherPreauth   = 0x88c7 // the same between access points (IEEE 802.11, section 12.6.10.2)
)

// ether reads what follows an EtherType, or the length field of IEEE 802.3.
// missing is, here as everywhere, how many bytes of the frame were not
// captured: they would follow on b.
func (d *Decoder) ether(proto uint16, b []byte, missing int, p *Packet) Class {
	for range limitTags + 1 {
		if proto == etherIPv4 || proto == etherIPv6 {
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
			return d.carriedEther(proto, b, missing, p)
		case n == 0:
			return d.carries(ofEther | content(proto))
		case len(b) < n:
			return Malformed
		}
		proto, b = binary.BigEndian.Uint16(b[n-2:]), b[n:]
	}
	return Malformed
}

// ip reads an IPv4 or IPv6 packet.
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
		p.unsummed, p.reassembled = total == 0, false
		if total == 0 { // segmentation offload: the card fills it in later
			total = len(b) + missing
		}
		if header < 20 || header > len(b) || total < header {
			return Malformed
		}
		p.v6 = false
		p.src0, p.src1 = 0, uint64(binary.BigEndian.Uint32(b[12:]))
		p.dst0, p.dst1 = 0, uint64(binary.BigEndian.Uint32(b[16:]))
		if header > 20 && sourceRouted(b[20:header]) {
			p.unsummed = true
		}
		// Offset other than 0, or more fragments to come.
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return d.fragment4(b, header, total, missing, p)
		}
		return d.transport(b[9], b[header:], total-header, p)
	case 6:
		if len(b) < 40 {
			return Malformed
		}
		p.v6 = true
		p.src0, p.src1 = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
		p.dst0, p.dst1 = binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])
		total := int(binary.BigEndian.Uint16(b[4:]))
		p.unsummed, p.reassembled = total == 0, false
		if total == 0 { // segmentation offload, or a jumbogram (RFC 2675)
			total = len(b) - 40 + missing
		}
		next, payload := b[6], b[40:]
		if next != protoTCP && next != protoUDP {
			return d.extensions(next, payload, total, missing, p)
		}
		return d.transport(next, payload, total, p)
	}
	return d.carries(ofIPVersion | content(b[0]>>4))
}

// IP protocol numbers.
const (
	protoHopByHop    = 0
	protoIPv4        = 4
	protoTCP         = 6
	protoUDP         = 17
	protoIPv6        = 41
	protoRouting     = 43
	protoFragment    = 44
	protoGRE         = 47
	protoAH          = 51
	protoNoNext      = 59
	protoDestination = 60
	protoEtherIP     = 97
	protoEthernet    = 143 // RFC 8986, section 4.9
	protoNSH         = 145 // RFC 9491
	protoSCTP        = 132
	protoMobility    = 135
	protoMPLS        = 137
	protoHIP         = 139
	protoShim6       = 140
)

// extensions walks the extension headers of IPv6 (RFC 8200, section 4) and
// reads what follows them. size is the length on the wire of what begins at b.
func (d *Decoder) extensions(next uint8, b []byte, size, missing int, p *Packet) Class {
	if size < 0 {
		return Malformed
	}
	b = b[:min(len(b), size)]
	whole := false
	for range limitExtensions {
		var header int
		switch next {
		case protoHopByHop, protoRouting, protoDestination, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return Malformed
			}
			if err := d.skipper.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
				return Malformed
			}
			header = len(d.skipper.Contents)
			if readdressed(next, b[:header]) {
				p.unsummed = true
			}
		case protoFragment:
			if len(b) < 8 {
				return Malformed
			}
			header = 8
			// An atomic fragment (RFC 6946) is whole.
			if binary.BigEndian.Uint16(b[2:])&0xfff9 == 0 {
				break
			}
			// No host makes fragments of fragments.
			if whole {
				return Malformed
			}
			if size > len(b)+missing { // no host takes it
				return Malformed
			}
			if !d.fragment6(b, size, p) {
				return Fragment
			}
			made := d.assembled(p)
			whole, next, b, size = true, made.proto, made.payload, len(made.payload)
			continue
		case protoNoNext:
			return d.carries(ofIP | protoNoNext)
		default:
			return d.transport(next, b, size, p)
		}
		next, b, size = b[0], b[header:], size-header
	}
	return Malformed
}

// sourceRouted says whether options of IPv4 name another destination than the
// header (RFC 791, section 3.1): the checksums of TCP and UDP are over the last.
func sourceRouted(options []byte) bool {
	const end, nop, loose, strict = 0, 1, 131, 137
	for len(options) >= 2 && options[0] != end {
		switch n := int(options[1]); {
		case options[0] == nop:
			options = options[1:]
		case options[0] == loose, options[0] == strict:
			return true
		case n < 2 || n > len(options):
			return false
		default:
			options = options[n:]
		}
	}
	return false
}

// readdressed says whether an extension header of IPv6 names an address that
// stands in the pseudo-header in the place of one in the header: the last
// destination of a route (RFC 8200, section 8.1), or the home of a host that is
// away (RFC 6275, section 11.3.1).
func readdressed(proto uint8, header []byte) bool {
	const pad1, home = 0, 201
	switch proto {
	case protoRouting:
		return header[3] != 0
	case protoDestination:
		for options := header[2:]; len(options) >= 2; {
			switch n := 2 + int(options[1]); {
			case options[0] == pad1:
				options = options[1:]
			case options[0] == home:
				return true
			default:
				options = options[min(n, len(options)):]
			}
		}
	}
	return false
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
			p.unsummed = true
		} else {
			p.Missing = size - len(b)
			p.Payload = b[header:]
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.Seq, p.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		p.Flags = b[13]
		p.segment = b
		return Segment
	case protoUDP:
		if len(b) < 8 {
			return Malformed
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		length := int(binary.BigEndian.Uint16(b[4:]))
		if length == 0 || length > size { // a jumbogram, or offload
			length = size
			p.unsummed = true
		}
		if length < 8 {
			return Malformed
		}
		end := min(length, len(b))
		p.Missing = length - end
		p.Payload = b[8:end]
		p.segment = b[:end]
		p.Seq, p.Ack, p.Flags = 0, 0, 0
		if mayCarry(p) {
			return d.unwrap(p)
		}
		return Datagram
	}
	return d.carriedIP(proto, b, size, p)
}
