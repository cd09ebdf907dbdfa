package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	errNoCapture = errors.New("not a capture: neither pcap, pcapng nor snoop")
	errEmpty     = errors.New("not a capture: the file is empty")
)

// errAnother says that another capture begins where the next record must.
var errAnother = errors.New("another capture begins")

// parser takes frames out of the bytes of one file, in one format.
type parser interface {
	// parse appends the frames of the complete records that b begins with. Their
	// Data lies in b. It has used so many bytes, which may be more than b has: the
	// caller skips the rest. After them it needs want bytes to make progress. The
	// error is about what follows the used bytes, and ends the file.
	parse(b []byte, frames []Frame) (out []Frame, used int64, want int, err error)

	// iface is the name of the interface that all frames so far come from; empty
	// if it is not known, or if there are several.
	iface() string

	// packets returns the counts, which stay the parser's.
	packets() *tally
}

// detect finds the format of a file by its beginning, of which the parser has used
// so many bytes. Without a parser and without an error it wants so many bytes.
func detect(b []byte) (p parser, used, want int, err error) {
	if len(b) < 4 {
		return nil, 0, 4, nil
	}
	if binary.LittleEndian.Uint32(b) == blockSection {
		return &pcapng{}, 0, 0, nil
	}
	if string(b[:4]) == snoopMagic[:4] {
		return detectSnoop(b)
	}
	return detectPcap(b)
}

// unreadable are formats that are not read, of captures and of archives of
// captures, each with the bytes that its files begin with.
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

// longestMagic is how many bytes tell the unreadable formats apart.
const longestMagic = 12

// notRead is the error about a file that begins with b, in a format that is not
// read.
func notRead(b []byte) error {
	for _, f := range unreadable {
		if bytes.HasPrefix(b, []byte(f.magic)) {
			return f.err
		}
	}
	return errNoCapture
}

// another reports whether another capture begins with b, at least 12 bytes where a
// record or a block must begin: files may have been joined, as cat does. As a record,
// the header of a file would be an empty packet of 1975 or 2055.
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
