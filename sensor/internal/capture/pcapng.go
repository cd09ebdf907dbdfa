package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// The types of pcapng blocks that are looked at or counted; see
// draft-ietf-opsawg-pcapng, section 4. All others are passed over.
const (
	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSecrets   = 10
)

// secretsTLS is the type of the secrets that are the text of a TLS key log.
const secretsTLS = 0x544c534b

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
	sectionHeaderLen   = 24
	interfaceHeaderLen = 16
	packetHeaderLen    = 28 // enhanced and obsolete
	secretsHeaderLen   = 16
	simpleHeaderLen    = 12
	blockTrailerLen    = 4
)

// pcapng parses a pcapng file. Simple packets have no time: they get that of
// the packet before them in their section, 0 if there is none.
type pcapng struct {
	tally
	swapped bool // the section is big-endian
	naming  naming
	ifaces  []ngInterface // of the section
	time    int64         // of the section's latest packet

	// disclose gets the secrets of a block; nil where nobody wants them.
	disclose func() io.WriteCloser
	sink     io.WriteCloser // of the block that is being read
	text     int64          // bytes of secrets that are still to come
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
		if len(rest) < 12 {
			return frames, int64(pos), 12, nil
		}
		kind := binary.LittleEndian.Uint32(rest)
		total := binary.LittleEndian.Uint32(rest[4:])
		if kind == blockSection {
			if len(rest) < sectionHeaderLen {
				return frames, int64(pos), sectionHeaderLen, nil
			}
			if len(frames) > 0 { // those so far may be of a capture that ends here
				return frames, int64(pos), sectionHeaderLen, nil
			}
			if err := p.section(rest); err != nil {
				return frames, int64(pos), 0, err
			}
			p.fresh = p.number > 0
		} else if another(rest) {
			return frames, int64(pos), 0, errAnother
		}
		if p.swapped {
			kind = bits.ReverseBytes32(kind)
			total = bits.ReverseBytes32(total)
		}
		if total%4 != 0 || total < shortest(kind) {
			return frames, int64(pos), 0, fmt.Errorf("corrupt block of type %#x: its length is %d", kind, total)
		}
		switch kind {
		case blockInterface, blockPacket, blockSimple, blockEnhanced:
		case blockSecrets:
			if len(rest) < secretsHeaderLen {
				return frames, int64(pos), secretsHeaderLen, nil
			}
			if p.disclose != nil && p.uint32(rest[8:]) == secretsTLS {
				if len(frames) > 0 { // those so far go before the secrets
					return frames, int64(pos), secretsHeaderLen, nil
				}
				p.inside, p.sink = true, p.disclose()
				p.block = int64(total) - secretsHeaderLen
				p.text = min(int64(p.uint32(rest[12:])), p.block-blockTrailerLen)
				pos += secretsHeaderLen
				continue
			}
			fallthrough
		default:
			if countsAsPacket(kind) {
				p.number++
			}
			if int64(total) >= int64(len(rest)) {
				return frames, int64(pos) + int64(total), 12, nil
			}
			pos += int(total)
			continue
		}
		if total > maxBlockLen {
			return frames, int64(pos), 0, fmt.Errorf("corrupt block of type %#x: its length of %d is more than %d", kind, total, maxBlockLen)
		}
		if int(total) > len(rest) {
			return frames, int64(pos), int(total), nil
		}
		block := rest[:total]
		if again := p.uint32(block[total-blockTrailerLen:]); again != total {
			return frames, int64(pos), 0, fmt.Errorf("corrupt block of type %#x: its length is %d in front and %d at the end", kind, total, again)
		}

		var id, captured, length uint32
		data := block[:total-blockTrailerLen]
		switch kind {
		case blockInterface:
			is, name, err := p.describe(data)
			if err != nil {
				return frames, int64(pos), 0, err
			}
			naming := p.naming.with(name)
			if naming.name != p.naming.name && len(frames) > 0 {
				// The frames so far go under the name so far.
				return frames, int64(pos), int(total), nil
			}
			p.naming = naming
			p.ifaces = append(p.ifaces, is)
			pos += int(total)
			continue
		case blockEnhanced, blockPacket:
			id = p.uint32(data[8:])
			if kind == blockPacket { // the lower half counts drops
				id = uint32(p.uint16(data[8:]))
			}
			captured = p.uint32(data[20:])
			length = p.uint32(data[24:])
			data = data[packetHeaderLen:]
		case blockSimple:
			length = p.uint32(data[8:])
			data = data[simpleHeaderLen:]
			captured = min(length, uint32(len(data)))
			if len(p.ifaces) > 0 && p.ifaces[0].snaplen > 0 {
				captured = min(captured, p.ifaces[0].snaplen)
			}
		}
		if uint64(id) >= uint64(len(p.ifaces)) {
			return frames, int64(pos), 0, fmt.Errorf("corrupt packet block: interface %d of %d", id, len(p.ifaces))
		}
		if captured > maxFrameLen {
			return frames, int64(pos), 0, frameTooLong(captured)
		}
		if int(captured) > len(data) {
			return frames, int64(pos), 0, fmt.Errorf("corrupt packet block: %d bytes in a block with room for %d", captured, len(data))
		}
		is := &p.ifaces[id]
		if kind != blockSimple {
			p.time = is.clock.time(uint64(p.uint32(block[12:]))<<32 | uint64(p.uint32(block[16:])))
		}
		pos += int(total)
		p.number++
		if !is.known {
			p.unknown(is.link, &is.noted)
			if !p.all {
				continue
			}
		}
		frames = append(frames, Frame{
			Data:     data[:captured:captured],
			Time:     p.time,
			Clock:    p.see(int(id), p.time),
			Number:   p.number,
			Length:   max(length, captured),
			LinkType: is.link,
		})
	}
}

// secrets takes what b has of a decryption secrets block, and says how much that
// is.
func (p *pcapng) secrets(b []byte) int {
	n := min(p.block, int64(len(b)))
	text := min(p.text, n)
	_, _ = p.sink.Write(b[:text]) // it never fails
	p.text -= text
	if p.block -= n; p.block == 0 {
		_ = p.sink.Close()
		p.inside, p.sink = false, nil
	}
	return int(n)
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
		return fmt.Errorf("pcapng version %d.%d is not understood", major, minor)
	}
	p.ifaces = p.ifaces[:0]
	p.time = 0
	return nil
}

// describe reads an interface description, b being its block without the
// trailer.
func (p *pcapng) describe(b []byte) (is ngInterface, name string, err error) {
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

// ngClock turns an interface's timestamps to nanoseconds since the epoch.
type ngClock struct {
	factor     uint64 // nanoseconds a unit, for timestamps up to limit
	limit      uint64
	offset     int64 // nanoseconds
	resolution uint8 // if_tsresol: the unit is 10^-resolution s, or 2^-n s if the top bit is set
}

// newNgClock makes the clock of an interface with the options if_tsresol and
// if_tsoffset, the latter in seconds.
func newNgClock(resolution uint8, offset int64) ngClock {
	c := ngClock{resolution: resolution}
	if hi, lo := bits.Mul64(magnitude(offset), 1e9); hi != 0 || lo > math.MaxInt64 {
		c.offset = math.MaxInt64
	} else {
		c.offset = int64(lo)
	}
	if offset < 0 {
		c.offset = -c.offset
	}
	const half = 1 << 62 // two of them add up without overflow
	if resolution <= 9 && magnitude(c.offset) < half {
		c.factor = pow10(9 - resolution)
		c.limit = half / c.factor
	}
	return c
}

// time is the time of timestamp t; one that no int64 holds becomes the nearest
// that does.
func (c *ngClock) time(t uint64) int64 {
	if t <= c.limit {
		return int64(t*c.factor) + c.offset
	}
	var hi, lo uint64
	switch n := c.resolution & 0x7f; {
	case c.resolution >= 0x80:
		hi, lo = bits.Mul64(t, 1e9)
		if n >= 64 {
			hi, lo, n = 0, hi, n-64
		}
		hi, lo = hi>>n, lo>>n|hi<<(64-n)
	case n <= 9:
		hi, lo = bits.Mul64(t, pow10(9-n))
	case n-9 < 20:
		lo = t / pow10(n-9)
	}
	if hi != 0 || lo > math.MaxInt64 {
		lo = math.MaxInt64
	}
	ns := int64(lo)
	if c.offset > 0 && ns > math.MaxInt64-c.offset {
		return math.MaxInt64
	}
	return ns + c.offset
}

// pow10 is 10^n, n at most 19.
func pow10(n uint8) uint64 {
	r := uint64(1)
	for ; n > 0; n-- {
		r *= 10
	}
	return r
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}
