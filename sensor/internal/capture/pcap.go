package capture

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// The magic numbers of pcap files, as a little-endian machine writes them.
// See draft-ietf-opsawg-pcap, section 4. After the file header, files of Ixia have
// one more field: the length of what follows.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Kuznetzov's: eight more bytes in each record header
	magicIxia     = 0x1c0001ac // of Ixia's hardware: nanoseconds
	magicIxiaSoft = 0x1c0001ab // of Ixia's software: microseconds
)

const pcapHeaderLen = 24

// pcap parses what follows the header of a pcap file.
type pcap struct {
	tally
	header  int   // bytes of the header of a record
	unit    int64 // nanoseconds of a unit of the fraction of a second
	swapped bool  // the file is big-endian
	known   bool  // link is
	noted   bool  // that link is not known
	link    linktype.Type
}

// detectPcap reads the header of a file, of which b is the beginning. Results are those
// of detect.
func detectPcap(b []byte) (p parser, used, want int, err error) {
	magic, swapped, _ := magic(b)
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
		return nil, 0, 0, fmt.Errorf("pcap version %d.%d is not supported", major, order.Uint16(b[6:]))
	}
	// The upper half says how long the frame check sequence is.
	f.link = linktype.Type(order.Uint32(b[20:])).Canonical()
	f.known = f.link.Known()
	return f, header, 0, nil
}

// magic returns the magic number that b begins with, and whether it is in
// big-endian order. It is not ok if it is not one of pcap.
func magic(b []byte) (magic uint32, swapped, ok bool) {
	magic = binary.LittleEndian.Uint32(b)
	for range 2 {
		switch magic {
		case magicMicro, magicNano, magicModified, magicIxia, magicIxiaSoft:
			return magic, swapped, true
		}
		magic, swapped = bits.ReverseBytes32(magic), true
	}
	return 0, false, false
}

// variantWindow is how many bytes after the header of a file show its variant:
// always as many, so that the size of reads makes no difference.
const variantWindow = 4 << 10

// variants have longer headers of records than their magic number says.
var variants = [...]struct {
	header int
	name   string
}{
	{20, "Nokia's firewalls"},
	{24, "Red Hat Linux 6.1"},
	{28, "SUSE Linux 6.3"},
}

// detectVariant finds the length of the headers of records by b, the first records
// of the file. Some systems wrote longer headers than the magic number says. That is
// believed only where b cannot be what the number says, and all of b is records of
// the variant. It returns who wrote the variant; nothing if it is not one.
func (p *pcap) detectVariant(b []byte) (variant string) {
	b = b[:min(len(b), variantWindow)]
	if !p.impossible(b) {
		return ""
	}
	for _, v := range variants {
		if p.plausible(b, v.header) {
			p.header = v.header
			return v.name
		}
	}
	return ""
}

// impossible reports whether the records in b cannot have the headers that the
// magic number says: one is longer than any frame, or two of its fields are
// wrong. Times prove nothing, since clocks may show any.
func (p *pcap) impossible(b []byte) bool {
	order := byteOrder(p.swapped)
	for len(b) >= 16 {
		captured, length := order.Uint32(b[8:]), order.Uint32(b[12:])
		if captured > maxFrameLen || captured > length && p.overflows(order.Uint32(b[4:])) {
			return true
		}
		b = b[min(p.header+int(captured), len(b)):]
	}
	return false
}

// plausible reports whether b looks like two records or more whose headers have that
// length. The last one may be cut.
func (p *pcap) plausible(b []byte, header int) bool {
	order := byteOrder(p.swapped)
	const far = 365 * 24 * 3600
	var first uint32
	n := 0
	for ; len(b) >= 16; n++ {
		sec, captured, length := order.Uint32(b), order.Uint32(b[8:]), order.Uint32(b[12:])
		if n == 0 {
			first = sec
		}
		if captured > maxFrameLen || captured > length || sec-first+far > 2*far || p.overflows(order.Uint32(b[4:])) {
			return false
		}
		b = b[min(header+int(captured), len(b)):]
	}
	return n >= 2
}

// overflows reports whether a fraction is a second or more.
func (p *pcap) overflows(fraction uint32) bool { return int64(fraction)*p.unit >= 1e9 }

func (p *pcap) iface() string { return "" }

func (p *pcap) parse(b []byte, frames []Frame) ([]Frame, int64, int, error) {
	header := p.header
	pos := 0
	for {
		rest := b[pos:]
		if len(rest) < header {
			return frames, int64(pos), header, nil
		}
		sec, frac, captured, length := p.record((*[16]byte)(rest))
		if captured-1 >= maxFrameLen { // 0 too, which wraps
			if another(rest[:16]) {
				return frames, int64(pos), 0, errAnother
			}
			if captured > maxFrameLen {
				return frames, int64(pos), 0, frameTooLong(captured)
			}
		}
		end := header + int(captured)
		if end > len(rest) {
			return frames, int64(pos), end, nil
		}
		pos += end
		p.number++
		if !p.known {
			p.ignore(p.link, &p.noted)
			if !p.all {
				continue
			}
		}
		time := int64(sec)*1e9 + int64(frac)*p.unit
		clock := p.next(0, time)
		if clock == 0 {
			clock = p.see(0, time)
		}
		frames = append(frames, Frame{
			Data:     rest[header:end:end],
			Time:     time,
			Clock:    clock,
			Number:   p.number,
			Length:   max(length, captured),
			LinkType: p.link,
		})
	}
}

// record reads the fields that begin the header of a record: seconds, their
// fraction, and the lengths of what was captured and of the frame.
func (p *pcap) record(h *[16]byte) (sec, frac, captured, length uint32) {
	sec, frac = binary.LittleEndian.Uint32(h[0:]), binary.LittleEndian.Uint32(h[4:])
	captured, length = binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:])
	if p.swapped {
		return bits.ReverseBytes32(sec), bits.ReverseBytes32(frac), bits.ReverseBytes32(captured), bits.ReverseBytes32(length)
	}
	return sec, frac, captured, length
}
