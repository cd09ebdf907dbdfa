package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
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

var (
	errNoCapture = errors.New("no capture: neither pcap nor pcapng")
	errEmpty     = errors.New("empty, so no capture")
)

// errAnother says that another capture begins where a record must.
var errAnother = errors.New("another capture begins")

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
	found    bool   // the file was found in a folder, and not asked for by its name
	inside   bool   // of a block that is not there to its end
	oddities []oddity
	odd      map[linktype.Type]bool // those in oddities
	foreign  uint64                 // packets of link types that are no network's; not in ignored

	clock *Clock
	jumps uint64 // of the clock
	jump  uint64 // the number of the packet at the first
	fresh bool   // a header inside of the file was read, and no packet since
	parts int    // captures that began inside of the file, and do not go on from what is before
}

func (t *tally) packets() *tally { return t }

// see counts a packet of time t, and returns its flow time.
func (t *tally) see(iface int, time int64) int64 {
	if t.fresh {
		t.fresh = false
		if !t.clock.goesOn(time) {
			t.parts++
			t.clock = new(Clock)
		}
	}
	if now, ok := t.clock.next(iface, time); ok {
		return now
	}
	now, jumped := t.clock.See(iface, time)
	if jumped {
		if t.jumps++; t.jumps == 1 {
			t.jump = t.number
		}
	}
	return now
}

// unknown counts the packet last counted, of the unknown type link, as ignored.
func (t *tally) unknown(link linktype.Type, noted *bool) {
	if link.NoNetwork() && t.found {
		t.foreign++
		return
	}
	if !*noted {
		*noted = true
		t.note(link)
	}
	t.ignored++
}

// The byte-order magic of a section of pcapng, in either order.
const (
	sectionOrder   = 0x1a2b3c4d
	sectionSwapped = 0x4d3c2b1a
)

// another tells whether b, at least 12 bytes where a record or block must begin,
// begins another capture, as where files were put behind one another. As a
// record, what it takes for that is an empty packet of 1975 or 2055, and as a
// block its length is wrong.
func another(b []byte) bool {
	if binary.LittleEndian.Uint32(b) == blockSection {
		order := binary.LittleEndian.Uint32(b[8:])
		return order == sectionOrder || order == sectionSwapped
	}
	_, swapped, ok := magic(b)
	return ok && byteOrder(swapped).Uint16(b[4:]) == 2 && binary.LittleEndian.Uint32(b[8:]) == 0
}

// oddity is the first packet of an unknown link type.
type oddity struct {
	link   linktype.Type
	number uint64
}

// note remembers that the packet last counted is of the unknown type link.
func (t *tally) note(link linktype.Type) {
	if t.odd[link] {
		return
	}
	if t.odd == nil {
		t.odd = make(map[linktype.Type]bool)
	}
	t.odd[link] = true
	t.oddities = append(t.oddities, oddity{link, t.number})
}

// magic returns the magic number that b begins with, and whether it is in
// big-endian order. It is not ok if none of pcap is.
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

// detect tells the format from the beginning of a file, of which it consumes
// used bytes. Without a parser it wants more of the file.
func detect(b []byte) (p parser, used, want int, err error) {
	if len(b) < 4 {
		return nil, 0, 4, nil
	}
	if binary.LittleEndian.Uint32(b) == blockSection {
		return &pcapng{}, 0, 0, nil
	}
	if string(b[:4]) == snoopMagic[:4] {
		if len(b) < snoopHeaderLen {
			return nil, 0, snoopHeaderLen, nil
		}
		if string(b[:len(snoopMagic)]) != snoopMagic {
			return nil, 0, 0, errNoCapture
		}
		if p, err = newSnoop(b); err != nil {
			return nil, 0, 0, err
		}
		return p, snoopHeaderLen, 0, nil
	}
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
		return nil, 0, 0, fmt.Errorf("pcap version %d.%d is not understood", major, order.Uint16(b[6:]))
	}
	// The upper half says how long the frame check sequence is.
	f.link = linktype.Type(order.Uint32(b[20:])).Canonical()
	f.known = f.link.Known()
	return f, header, 0, nil
}

// variantWindow is how much behind the header of a file tells its variant:
// always as much, so that the size of reads makes no difference.
const variantWindow = 4 << 10

// The headers of variants under the magic numbers of others.
var variants = [...]struct {
	header int
	name   string
}{
	{20, "Nokia's firewalls"},
	{24, "Red Hat Linux 6.1"},
	{28, "SUSE Linux 6.3"},
}

// tell tells how long the record headers are by b, the first records of the
// file. Some systems wrote longer ones than the magic number says. That is
// believed only where b cannot be what it says, and is such records from
// beginning to end. tell returns whose the variant is, if it is one.
func (p *pcap) tell(b []byte) (variant string) {
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

// impossible tells whether the records in b cannot have the headers that the
// magic number says: one is longer than any frame, or two of its fields are
// wrong. Times say nothing: clocks have any.
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

// plausible tells whether b looks like records whose headers have that length,
// two of them at least; what is not there does.
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

// overflows tells whether a fraction of a second is none.
func (p *pcap) overflows(fraction uint32) bool { return int64(fraction)*p.unit >= 1e9 }

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
	link    linktype.Type
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
		switch binary.LittleEndian.Uint32(h[8:]) { // few records have to be looked at
		case 0, sectionOrder, sectionSwapped:
			if another(h) {
				return frames, int64(pos), 0, errAnother
			}
		}
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
			p.unknown(p.link, &p.noted)
			if !p.all {
				continue
			}
		}
		time := int64(sec)*1e9 + int64(frac)*p.unit
		frames = append(frames, Frame{
			Data:     rest[p.header:end:end],
			Time:     time,
			Clock:    p.see(0, time),
			Number:   p.number,
			Length:   max(length, captured),
			LinkType: p.link,
		})
	}
}

func frameTooLong(n uint32) error {
	return fmt.Errorf("corrupt record: a frame of %d bytes, more than %d", n, maxFrameLen)
}
