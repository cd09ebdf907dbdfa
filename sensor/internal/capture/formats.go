package capture

import (
	"bytes"
	"errors"
)

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
