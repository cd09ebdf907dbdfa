package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// The types of pcapng blocks that are read or counted; see
// draft-ietf-opsawg-pcapng, section 4. All others are skipped.
const (
	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSecrets   = 10
)

// The byte-order magic of a section of pcapng, in either order.
const (
	sectionOrder   = 0x1a2b3c4d
	sectionSwapped = 0x4d3c2b1a
)

// countsAsPacket reports whether Wireshark numbers a block of another type
// along with the packets.
func countsAsPacket(kind uint32) bool {
	switch kind {
	case 9, // systemd journal
		0xbad, 0x40000bad, // custom
		0x204, 0x216, 0x221: // system calls
		return true
	}
	return false
}

// The options of an interface description.
const (
	optionEnd            = 0
	optionName           = 2
	optionTimeResolution = 9
	optionTimeOffset     = 14
)

// Bytes of a block before its frame, or, in a section header and an interface
// description, before its options. Each block ends with its length once more.
const (
	blockHeaderLen     = 12 // enough to know another capture by
	sectionHeaderLen   = 24
	interfaceHeaderLen = 16
	packetHeaderLen    = 28 // enhanced and obsolete
	secretsHeaderLen   = 16
	simpleHeaderLen    = 12
	blockTrailerLen    = 4
)

// pcapng parses a pcapng file. Simple packets have no time: they get that of the
// packet before them in their section, or 0 if there is no other.
type pcapng struct {
	tally
	swapped bool // the section is big-endian
	naming  naming
	ifaces  []ngInterface // of the section
	time    int64         // of the section's latest packet

	// disclose gets the secrets of a block; nil where nobody wants them.
	disclose func() io.WriteCloser
	sink     io.WriteCloser // of the block that is being read
	text     int64          // bytes of the secrets that are still to come
	block    int64          // and of the block
}

// ngInterface is one capturing interface of a section.
type ngInterface struct {
	clock   ngClock
	snaplen uint32
	link    linktype.Type
	known   bool
	noted   bool
}

// naming follows whether all interfaces of a file have one name.
type naming struct {
	name        string
	seen, mixed bool
}

func (n naming) with(name string) naming {
	switch {
	case !n.seen:
		return naming{name: name, seen: true}
	case n.name != name:
		return naming{seen: true, mixed: true}
	}
	return n
}

func (p *pcapng) iface() string { return p.naming.name }

func (p *pcapng) parse(b []byte, frames []Frame) ([]Frame, int64, int, error) {
	pos := 0
	for {
		rest := b[pos:]
		if p.inside {
			if len(rest) == 0 {
				return frames, int64(pos), 1, nil
			}
			pos += p.secrets(rest)
			continue
		}
		if len(rest) < blockHeaderLen {
			return frames, int64(pos), blockHeaderLen, nil
		}
		kind := p.uint32(rest)
		if kind == blockSection {
			// The frames so far go first: they may be of a capture that ends here.
			if len(rest) < sectionHeaderLen || len(frames) > 0 {
				return frames, int64(pos), sectionHeaderLen, nil
			}
			if err := p.section(rest); err != nil {
				return frames, int64(pos), 0, err
			}
		} else if !isRead(kind) && another(rest) {
			return frames, int64(pos), 0, errAnother
		}
		total := p.uint32(rest[4:]) // after the header of a section, which may turn the byte order
		if total%4 != 0 || total < shortest(kind) {
			return frames, int64(pos), 0, fmt.Errorf("corrupt block of type %#x: its length is %d", kind, total)
		}
		switch kind {
		case blockEnhanced, blockPacket, blockSimple, blockInterface:
			body, err := p.body(kind, total, rest)
			if err != nil {
				return frames, int64(pos), 0, err
			}
			if body == nil {
				return frames, int64(pos), int(total), nil
			}
			later := false
			if kind == blockInterface {
				later, err = p.describe(body, len(frames) > 0)
			} else {
				frames, err = p.packet(kind, body, frames)
			}
			if later || err != nil {
				return frames, int64(pos), int(total), err
			}
			pos += int(total)
			continue
		case blockSecrets:
			if len(rest) < secretsHeaderLen {
				return frames, int64(pos), secretsHeaderLen, nil
			}
			if p.disclose != nil && p.uint32(rest[8:]) == secretsTLS {
				if len(frames) > 0 { // those so far go before the secrets
					return frames, int64(pos), secretsHeaderLen, nil
				}
				p.beginSecrets(rest, total)
				pos += secretsHeaderLen
				continue
			}
		}
		// Whatever is left is passed over, without being held.
		if countsAsPacket(kind) {
			p.number++
		}
		if int64(total) >= int64(len(rest)) {
			return frames, int64(pos) + int64(total), blockHeaderLen, nil
		}
		pos += int(total)
	}
}

// isRead reports whether blocks of a type are looked into. Nothing that begins
// another capture is such a type in either byte order, except a section.
func isRead(kind uint32) bool {
	switch kind {
	case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced, blockSecrets:
		return true
	}
	return false
}

// body returns the block that b begins with, without its trailer. It is nil where
// b does not have all of it.
func (p *pcapng) body(kind, total uint32, b []byte) ([]byte, error) {
	if total > maxBlockLen {
		return nil, fmt.Errorf("corrupt block of type %#x: its length of %d is more than %d", kind, total, maxBlockLen)
	}
	if int(total) > len(b) {
		return nil, nil
	}
	end := total - blockTrailerLen
	if again := p.uint32(b[end:]); again != total {
		return nil, fmt.Errorf("corrupt block of type %#x: its length is %d in front and %d at the end", kind, total, again)
	}
	return b[:end], nil
}

// packet appends the frame in the body of a packet block to frames, if it is of a
// link type that is understood.
func (p *pcapng) packet(kind uint32, body []byte, frames []Frame) ([]Frame, error) {
	var id, captured, length uint32
	var data []byte
	if kind == blockSimple {
		length = p.uint32(body[8:])
		data = body[simpleHeaderLen:]
		captured = min(length, uint32(len(data)))
		if len(p.ifaces) > 0 && p.ifaces[0].snaplen > 0 {
			captured = min(captured, p.ifaces[0].snaplen)
		}
	} else {
		id = p.uint32(body[8:])
		if kind == blockPacket { // the lower half counts drops
			id = uint32(p.uint16(body[8:]))
		}
		captured = p.uint32(body[20:])
		length = p.uint32(body[24:])
		data = body[packetHeaderLen:]
	}
	if uint64(id) >= uint64(len(p.ifaces)) {
		return frames, fmt.Errorf("corrupt packet block: interface %d of %d", id, len(p.ifaces))
	}
	if captured > maxFrameLen {
		return frames, frameTooLong(captured)
	}
	if int(captured) > len(data) {
		return frames, fmt.Errorf("corrupt packet block: %d bytes in a block with room for %d", captured, len(data))
	}
	is := &p.ifaces[id]
	if kind != blockSimple {
		p.time = is.clock.time(uint64(p.uint32(body[12:]))<<32 | uint64(p.uint32(body[16:])))
	}
	p.number++
	if !is.known {
		p.ignore(is.link, &is.noted)
		if !p.all {
			return frames, nil
		}
	}
	clock := p.next(int(id), p.time)
	if clock == 0 {
		clock = p.see(int(id), p.time)
	}
	return append(frames, Frame{
		Data:     data[:captured:captured],
		Time:     p.time,
		Clock:    clock,
		Number:   p.number,
		Length:   max(length, captured),
		LinkType: is.link,
	}), nil
}

// shortest is the least length of a block of a type.
func shortest(kind uint32) uint32 {
	switch kind {
	case blockSection:
		return sectionHeaderLen + blockTrailerLen
	case blockInterface:
		return interfaceHeaderLen + blockTrailerLen
	case blockEnhanced, blockPacket:
		return packetHeaderLen + blockTrailerLen
	case blockSimple:
		return simpleHeaderLen + blockTrailerLen
	case blockSecrets:
		return secretsHeaderLen + blockTrailerLen
	}
	return 8 + blockTrailerLen
}

func (p *pcapng) uint16(b []byte) uint16 {
	if p.swapped {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (p *pcapng) uint32(b []byte) uint32 {
	if p.swapped {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (p *pcapng) uint64(b []byte) uint64 {
	return byteOrder(p.swapped).Uint64(b)
}

// section starts the section whose header b begins with.
func (p *pcapng) section(b []byte) error {
	switch magic := binary.LittleEndian.Uint32(b[8:]); magic {
	case 0x1a2b3c4d:
		p.swapped = false
	case 0x4d3c2b1a:
		p.swapped = true
	default:
		return fmt.Errorf("corrupt section header: the byte order mark is %#08x", magic)
	}
	if major, minor := p.uint16(b[12:]), p.uint16(b[14:]); major != 1 {
		return fmt.Errorf("pcapng version %d.%d is not supported", major, minor)
	}
	p.ifaces = p.ifaces[:0]
	p.time = 0
	p.fresh = p.number > 0
	return nil
}

// describe takes the interface that the body of a block describes. It is later,
// and nothing has changed, where the frames so far must go first, under the name
// that all interfaces so far have.
func (p *pcapng) describe(body []byte, frames bool) (later bool, err error) {
	is, name, err := p.description(body)
	if err != nil {
		return false, err
	}
	naming := p.naming.with(name)
	if naming.name != p.naming.name && frames {
		return true, nil
	}
	p.naming = naming
	p.ifaces = append(p.ifaces, is)
	return false, nil
}

// description reads the body of an interface description.
func (p *pcapng) description(b []byte) (is ngInterface, name string, err error) {
	if len(p.ifaces) >= maxSectionInterfaces {
		return is, "", fmt.Errorf("more than %d interfaces in a section", maxSectionInterfaces)
	}
	is.link = linktype.Type(p.uint16(b[8:])).Canonical()
	is.known = is.link.Known()
	is.snaplen = p.uint32(b[12:])
	resolution, offset := uint8(6), int64(0)
	for o := b[interfaceHeaderLen:]; len(o) >= 4; {
		code, n := p.uint16(o), int(p.uint16(o[2:]))
		o = o[4:]
		if code == optionEnd {
			break
		}
		if n > len(o) {
			return is, "", fmt.Errorf("corrupt interface description: option %d of %d bytes where %d are left", code, n, len(o))
		}
		value := o[:n]
		o = o[min((n+3)&^3, len(o)):]
		switch {
		case code == optionName:
			name = string(bytes.TrimRight(value[:min(n, maxInterfaceName)], "\x00"))
		case code == optionTimeResolution && n == 1:
			resolution = value[0]
		case code == optionTimeOffset && n == 8:
			offset = int64(p.uint64(value))
		}
	}
	is.clock = newNgClock(resolution, offset)
	return is, name, nil
}
