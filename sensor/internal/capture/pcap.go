package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// The magic numbers of pcap files, as a little-endian machine writes them.
// See draft-ietf-opsawg-pcap, section 4.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Kuznetzov's: eight more bytes in each record header
	magicIxia     = 0x1c0001ac // of Ixia's hardware, and below of its software: a length
	magicIxiaSoft = 0x1c0001ab // of the file behind the file header
)

const pcapHeaderLen = 24

var errNoCapture = errors.New("no capture: neither pcap nor pcapng")

// parser takes frames out of one file's bytes.
type parser interface {
	// parse appends the frames of the whole records that b begins with; their
	// Data lies in b. It consumes used bytes, which may be more than b has,
	// and needs want bytes from there on to make progress. The error is about
	// what follows the used bytes; nothing can be read after it.
	parse(b []byte, frames []Frame) (out []Frame, used int64, want int, err error)

	// iface names the interface that all frames so far come from.
	iface() string

	packets() *tally
}

// tally counts the packets of one file.
type tally struct {
	number   uint64 // packets so far
	ignored  uint64 // of them, those of unknown link types
	all      bool   // yield these too
	inside   bool   // of a block that is not there to its end
	oddities []oddity
	odd      map[LinkType]bool // those in oddities
}

func (t *tally) packets() *tally { return t }

// oddity is the first packet of an unknown link type.
type oddity struct {
	link   LinkType
	number uint64
}

// note remembers that the packet last counted is of the unknown type link.
func (t *tally) note(link LinkType) {
	if t.odd[link] {
		return
	}
	if t.odd == nil {
		t.odd = make(map[LinkType]bool)
	}
	t.odd[link] = true
	t.oddities = append(t.oddities, oddity{link, t.number})
}

// detect tells the format from the beginning of a file, of which it consumes
// used bytes. Without a parser it wants more of the file.
func detect(b []byte) (p parser, used, want int, err error) {
	if len(b) < 4 {
		return nil, 0, 4, nil
	}
	magic := binary.LittleEndian.Uint32(b)
	if magic == blockSection {
		return &pcapng{}, 0, 0, nil
	}
	swapped := false
	switch bits.ReverseBytes32(magic) {
	case magicMicro, magicNano, magicModified, magicIxia, magicIxiaSoft:
		swapped = true
		magic = bits.ReverseBytes32(magic)
	}
	f := &pcap{header: 16, unit: 1000, swapped: swapped}
	header := pcapHeaderLen
	switch magic {
	case magicMicro:
	case magicIxia:
		f.unit = 1
		header += 4
	case magicIxiaSoft:
		header += 4
	case magicNano:
		f.unit = 1
	case magicModified:
		f.header = 24
	default:
		return nil, 0, 0, errNoCapture
	}
	if len(b) < header {
		return nil, 0, header, nil
	}
	order := byteOrder(swapped)
	if major := order.Uint16(b[4:]); major != 2 {
		return nil, 0, 0, fmt.Errorf("pcap version %d.%d is not understood", major, order.Uint16(b[6:]))
	}
	// The upper half says how long the frame check sequence is.
	f.link = LinkType(order.Uint32(b[20:])).canonical()
	f.known = f.link.Known()
	return f, header, 0, nil
}

// variantWindow is how much behind the header of a file tells its variant:
// always as much, so that the size of reads makes no difference.
const variantWindow = 4 << 10

// tell tells how long the record headers are by b, the first records of the
// file. Some systems wrote longer ones under the magic numbers of others:
// Nokia's firewalls four bytes more, old Linux distributions eight and twelve.
func (p *pcap) tell(b []byte) {
	b = b[:min(len(b), variantWindow)]
	const nokia, redHat, suse = 20, 24, 28
	for _, header := range [...]int{p.header, nokia, redHat, suse} {
		if p.plausible(b, header) {
			p.header = header
			return
		}
	}
}

// plausible tells whether b looks like records whose headers have that length,
// by the headers of the first three; what is not there is.
func (p *pcap) plausible(b []byte, header int) bool {
	order := byteOrder(p.swapped)
	const far = 365 * 24 * 3600
	var first uint32
	for i := 0; i < 3 && len(b) >= 16; i++ {
		sec, captured, length := order.Uint32(b), order.Uint32(b[8:]), order.Uint32(b[12:])
		if i == 0 {
			first = sec
		}
		if captured > maxFrameLen || captured > length || sec-first+far > 2*far || int64(order.Uint32(b[4:]))*p.unit >= 1e9 {
			return false
		}
		b = b[min(header+int(captured), len(b)):]
	}
	return true
}

func byteOrder(swapped bool) binary.ByteOrder {
	if swapped {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// pcap parses what follows the header of a pcap file.
type pcap struct {
	tally
	header  int // bytes before each frame
	unit    int64
	swapped bool // big-endian
	known   bool
	noted   bool
	link    LinkType
}

func (p *pcap) iface() string { return "" }

func (p *pcap) parse(b []byte, frames []Frame) ([]Frame, int64, int, error) {
	pos := 0
	for {
		rest := b[pos:]
		if len(rest) < p.header {
			return frames, int64(pos), p.header, nil
		}
		h := rest[:16]
		sec := binary.LittleEndian.Uint32(h)
		frac := binary.LittleEndian.Uint32(h[4:])
		captured := binary.LittleEndian.Uint32(h[8:])
		length := binary.LittleEndian.Uint32(h[12:])
		if p.swapped {
			sec = bits.ReverseBytes32(sec)
			frac = bits.ReverseBytes32(frac)
			captured = bits.ReverseBytes32(captured)
			length = bits.ReverseBytes32(length)
		}
		if captured > maxFrameLen {
			return frames, int64(pos), 0, frameTooLong(captured)
		}
		end := p.header + int(captured)
		if end > len(rest) {
			return frames, int64(pos), end, nil
		}
		pos += end
		p.number++
		if !p.known {
			if !p.noted {
				p.noted = true
				p.note(p.link)
			}
			p.ignored++
			if !p.all {
				continue
			}
		}
		time := int64(sec)*1e9 + int64(frac)*p.unit
		frames = append(frames, Frame{
			Data:     rest[p.header:end:end],
			Time:     time,
			Clock:    time,
			Number:   p.number,
			Length:   max(length, captured),
			LinkType: p.link,
		})
	}
}

func frameTooLong(n uint32) error {
	return fmt.Errorf("corrupt record: a frame of %d bytes, more than %d", n, maxFrameLen)
}
