package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

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

// unreadable are the formats of captures, and of what captures are packed in,
// that are not read, each by what its files begin with.
var unreadable = []struct {
	magic string
	err   error
}{
	{"PK\x03\x04", errors.New("a zip archive: unpack it first")},
	{"7z\xbc\xaf\x27\x1c", errors.New("a 7z archive: unpack it first")},
	{"Rar!\x1a\x07", errors.New("a rar archive: unpack it first")},
	{"\xfd7zXZ\x00", errors.New("compressed with xz: unpack it first")},
	{"\x04\x22\x4d\x18", errors.New("compressed with lz4: unpack it first")},
	{"GMBU", errors.New("a capture of Network Monitor (NetMon): convert it to pcapng first, with editcap")},
	{"RTSS", errors.New("a capture of Network Monitor (NetMon): convert it to pcapng first, with editcap")},
	{"TRSNIFF data", errors.New("a capture of Sniffer: convert it to pcapng first, with editcap")},
	{"XCP\x00", errors.New("a capture of NetXRay: convert it to pcapng first, with editcap")},
}

// longestMagic is how much of a file tells what it is, where it is no capture.
const longestMagic = 12

// notRead is the error about a file that begins with b, which detect does not
// know.
func notRead(b []byte) error {
	for _, f := range unreadable {
		if bytes.HasPrefix(b, []byte(f.magic)) {
			return f.err
		}
	}
	return errNoCapture
}

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

func byteOrder(swapped bool) binary.ByteOrder {
	if swapped {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func frameTooLong(n uint32) error {
	return fmt.Errorf("corrupt record: a frame of %d bytes, more than %d", n, maxFrameLen)
}
