// Package pcapng writes captures in the format pcapng (draft-ietf-opsawg-pcapng).
// The writer of gopacket has no comments at packets, no secrets, and no link types
// above 255.
package pcapng

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/oddcert/oddcert/sensor/internal/linktype"
)

// Section describes a file (section 4.1). All of it may be empty.
type Section struct {
	Hardware, OS, Application string
	Comment                   string
}

// Interface is where packets were captured (section 4.2).
type Interface struct {
	LinkType    linktype.Type
	Name        string // may be empty, as what follows
	Description string
}

// Packet is one packet (section 4.3).
type Packet struct {
	Interface Interface
	Time      int64  // nanoseconds since the Unix epoch, UTC; not before 1697
	Length    uint32 // bytes on the wire; that of Data where it is less
	Data      []byte // the captured bytes
	Comments  []string
}

// Writer writes one section with the interfaces of its packets, in little-endian order
// and with times in nanoseconds. It is not safe for concurrent use. After an error of
// what it writes to, it returns that error and does nothing.
type Writer struct {
	out        *bufio.Writer
	written    int64
	interfaces map[described]uint32
	block      []byte // scratch
}

// described is an interface as the file has it. Times in the file are not negative:
// those of packets from before the epoch count from an earlier one.
type described struct {
	Interface
	early bool
}

// earlyEpoch is where the times of early interfaces count from, in seconds from the
// Unix epoch: a day of the year 1697. Readers have trouble with earlier ones.
const earlyEpoch = -1 << 33

// The types of blocks, and the codes of options.
const (
	blockInterface = 1
	blockPacket    = 6
	blockSecrets   = 10
	blockSection   = 0x0a0d0d0a

	optionEnd         = 0
	optionComment     = 1
	optionHardware    = 2 // of a section
	optionOS          = 3
	optionApplication = 4
	optionName        = 2 // of an interface
	optionDescription = 3
	optionResolution  = 9
	optionOffset      = 14

	secretsTLS = 0x544c534b // a key log of TLS
)

// NewWriter begins a file. [Writer.Flush] must be called in the end.
func NewWriter(w io.Writer, s Section) (*Writer, error) {
	f := &Writer{out: bufio.NewWriterSize(w, bufferSize), interfaces: map[described]uint32{}}
	f.begin(blockSection)
	f.uint32(0x1a2b3c4d)
	f.block = append(f.block, 1, 0, 0, 0) // version 1.0
	f.uint64(1<<64 - 1)                   // the length is not known
	n := len(f.block)
	f.text(optionComment, s.Comment)
	f.text(optionHardware, s.Hardware)
	f.text(optionOS, s.OS)
	f.text(optionApplication, s.Application)
	f.endOptions(n)
	return f, f.end()
}

// Begins reports whether b begins as a file of the format does. A compressed one does not.
func Begins(b []byte) bool { return len(b) >= 4 && binary.LittleEndian.Uint32(b) == blockSection }

// bufferSize is how much is written at once.
const bufferSize = 64 << 10

// Secrets writes a key log (SSLKEYLOGFILE), which readers have use of for the packets
// after it (section 4.7).
func (f *Writer) Secrets(keyLog []byte) error {
	f.begin(blockSecrets)
	f.uint32(secretsTLS)
	f.uint32(uint32(len(keyLog)))
	f.bytes(keyLog)
	return f.end()
}

// Packet writes a packet, and before it what describes its interface, where that is the
// first one of it. Comments that are no UTF-8 are mended; each is cut at 65,532 bytes.
func (f *Writer) Packet(p *Packet) error {
	d := described{p.Interface, p.Time < 0}
	id, ok := f.interfaces[d]
	if !ok {
		if err := f.describe(d); err != nil {
			return err
		}
		id = uint32(len(f.interfaces))
		f.interfaces[d] = id
	}
	time := uint64(p.Time)
	if d.early {
		time = uint64(max(p.Time, earlyEpoch*1e9) - earlyEpoch*1e9)
	}
	f.begin(blockPacket)
	f.uint32(id)
	f.uint32(uint32(time >> 32))
	f.uint32(uint32(time))
	f.uint32(uint32(len(p.Data)))
	f.uint32(max(p.Length, uint32(len(p.Data))))
	f.bytes(p.Data)
	n := len(f.block)
	for _, c := range p.Comments {
		f.text(optionComment, c)
	}
	f.endOptions(n)
	return f.end()
}

func (f *Writer) describe(d described) error {
	f.begin(blockInterface)
	f.uint32(uint32(d.LinkType))
	f.uint32(0) // no limit of captured bytes
	n := len(f.block)
	f.text(optionName, d.Name)
	f.text(optionDescription, d.Description)
	f.option(optionResolution, []byte{9}) // nanoseconds
	if d.early {
		offset := int64(earlyEpoch)
		f.option(optionOffset, binary.LittleEndian.AppendUint64(nil, uint64(offset)))
	}
	f.endOptions(n)
	return f.end()
}

// Written returns how many bytes the file has so far: where the next block begins.
func (f *Writer) Written() int64 { return f.written }

// Flush writes what is held back.
func (f *Writer) Flush() error { return f.out.Flush() }

func (f *Writer) begin(kind uint32) {
	f.block = f.block[:0]
	f.uint32(kind)
	f.uint32(0) // the length, see end
}

func (f *Writer) end() error {
	n := uint32(len(f.block) + 4)
	binary.LittleEndian.PutUint32(f.block[4:], n)
	f.uint32(n)
	f.written += int64(n)
	_, err := f.out.Write(f.block)
	return err
}

func (f *Writer) uint32(v uint32) { f.block = binary.LittleEndian.AppendUint32(f.block, v) }
func (f *Writer) uint64(v uint64) { f.block = binary.LittleEndian.AppendUint64(f.block, v) }

// bytes appends b, padded to 32 bits.
func (f *Writer) bytes(b []byte) {
	f.block = append(f.block, b...)
	f.block = append(f.block, make([]byte, -len(b)&3)...)
}

func (f *Writer) option(code uint16, b []byte) {
	f.block = binary.LittleEndian.AppendUint16(f.block, code)
	f.block = binary.LittleEndian.AppendUint16(f.block, uint16(len(b)))
	f.bytes(b)
}

// maxText is how long a text may be, in bytes. The format takes three more, but some
// readers do not (gopacket).
const maxText = 1<<16 - 4

// text appends an option, if there is a text.
func (f *Writer) text(code uint16, s string) {
	if s == "" {
		return
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	for len(s) > maxText || !utf8.ValidString(s) {
		s = s[:min(len(s)-1, maxText)]
	}
	f.option(code, []byte(s))
}

// endOptions ends the options that begin at n, where there are any.
func (f *Writer) endOptions(n int) {
	if len(f.block) > n {
		f.option(optionEnd, nil)
	}
}
