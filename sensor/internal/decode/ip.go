package decode

import "encoding/binary"

// ip reads an IPv4 or IPv6 packet.
func (d *Decoder) ip(b []byte, missing int, p *Packet) Class {
	if len(b) < 20 {
		if len(b) == 0 {
			return NotIP
		}
		return d.malformed(truncatedIP)
	}
	switch b[0] >> 4 {
	case 4:
		header := int(b[0]&0x0f) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		p.unsummed, p.reassembled = total == 0, false
		if total == 0 { // segmentation offload: the network card fills it in
			total = len(b) + missing
		}
		if header < 20 || header > len(b) || total < header {
			return d.malformed(badIPLength)
		}
		p.v6 = false
		p.src0, p.src1 = 0, uint64(binary.BigEndian.Uint32(b[12:]))
		p.dst0, p.dst1 = 0, uint64(binary.BigEndian.Uint32(b[16:]))
		if header > 20 && sourceRouted(b[20:header]) {
			p.unsummed = true
		}
		// Offset other than 0, or more fragments to come.
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			p.badHeader = false
			return d.fragment4(b, header, total, missing, p)
		}
		p.badHeader = !p.unsummed && binary.BigEndian.Uint16(b[10:]) != 0 && onesSum(b[:header]) != 0xffff
		return d.transport(b[9], b[header:], total-header, p)
	case 6:
		if len(b) < 40 {
			return d.malformed(truncatedIPv6)
		}
		p.v6, p.badHeader = true, false
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
		return d.malformed(badExtension)
	}
	b = b[:min(len(b), size)]
	whole := false
	for range limitExtensions {
		var header int
		switch next {
		case protoHopByHop, protoRouting, protoDestination, protoMobility, protoHIP, protoShim6:
			if len(b) < 8 {
				return d.malformed(badExtension)
			}
			if header = 8 + int(b[1])*8; header > len(b) {
				return d.malformed(badExtension)
			}
			if readdressed(next, b[:header]) {
				p.unsummed = true
			}
		case protoFragment:
			if len(b) < 8 {
				return d.malformed(badExtension)
			}
			header = 8
			// An atomic fragment (RFC 6946) is whole.
			if binary.BigEndian.Uint16(b[2:])&0xfff9 == 0 {
				break
			}
			// No host makes fragments of fragments.
			if whole {
				return d.malformed(badFragment)
			}
			if size > len(b)+missing { // no host takes it
				return d.malformed(badFragment)
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
	return d.malformed(excessiveExtensions)
}

// sourceRouted reports whether options of IPv4 have another destination than the
// header (RFC 791, section 3.1): the checksums of TCP and UDP are over the last one.
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

// readdressed reports whether an extension header of IPv6 has an address that is in
// the pseudo-header instead of one in the header: the last destination of a route
// (RFC 8200, section 8.1), or the home address of a host that is away (RFC 6275,
// section 11.3.1).
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
			return d.malformed(badIPLength)
		}
		b = b[:size] // what follows is the padding of a short frame
	}
	switch proto {
	case protoTCP:
		if len(b) < 20 {
			return d.malformed(truncatedTCP)
		}
		header := int(b[12]>>4) * 4
		if header < 20 || header > size {
			return d.malformed(badTCPOffset)
		}
		if header > len(b) {
			// The snaplen cut off a part of the options, and all of the payload.
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
			return d.malformed(truncatedUDP)
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		length := int(binary.BigEndian.Uint16(b[4:]))
		if length == 0 || length > size { // a jumbogram, or offload
			length = size
			p.unsummed = true
		}
		if length < 8 {
			return d.malformed(badUDPLength)
		}
		end := min(length, len(b))
		p.Missing = length - end
		p.Payload = b[8:end]
		p.segment = b[:end]
		p.Seq, p.Ack, p.Flags = 0, 0, 0
		if mayBeTunnel(p) {
			return d.unwrap(p)
		}
		return Datagram
	}
	return d.ipPayload(proto, b, size, p)
}
